//! What is there to read: the files behind a source and the columns in them, for the compiler of dataflow files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::avsc::read_avsc;
use super::decode::normalise::converts;
use super::file::{parquet, paths};
use super::generator;
use crate::plan::expr::engine_type;
use crate::plan::model::{FileFormat, GeneratorStream};

/// Finds files and schemas on this machine.
#[derive(Clone, Debug)]
pub struct FileCatalog {
    /// Where relative paths are looked up, in this order: the current directory, then the dataflow file's.
    pub bases: Vec<PathBuf>,
}

impl FileCatalog {
    /// A catalog for a dataflow file: relative paths count from the current directory, else from the file's.
    pub fn for_job(job: &Path) -> FileCatalog {
        let mut bases = vec![PathBuf::new()];
        bases.extend(job.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned));
        FileCatalog { bases }
    }

    /// The files of a source, sorted: a path, a directory or a glob.
    ///
    /// # Errors
    /// A sentence that says what is missing and how to mend it.
    pub fn files(&self, path: &str, format: FileFormat) -> Result<Vec<PathBuf>, String> {
        paths::expand(path, format, &self.bases)
    }

    /// The columns of a source of files, in the engine's types; columns of types that the engine has no use for keep their
    /// own. With a `schema` (an `.avsc` file) it is what that says, and Parquet files are held against it; without one,
    /// which only Parquet can do, it is what all the files say alike.
    ///
    /// # Errors
    /// Sentences, one per line, that name the file and what is wrong.
    pub fn file_schema(&self, files: &[PathBuf], format: FileFormat, schema: Option<&str>) -> Result<SchemaRef, String> {
        let given = schema.map(|path| self.avsc(path)).transpose()?;
        match (format, given) {
            (FileFormat::Parquet, Some(given)) => {
                let faults: Vec<String> = files.iter().filter_map(|file| misfit(file, &given).transpose()).map(|f| {
                    f.unwrap_or_else(|unreadable| unreadable)
                }).collect();
                if faults.is_empty() { Ok(given) } else { Err(faults.join("\n")) }
            }
            (FileFormat::Parquet, None) => common_schema(files),
            (_, Some(given)) => Ok(given),
            (_, None) => Err("text files do not say their columns' types; add `schema: FILE.avsc`".into()),
        }
    }

    /// The columns of a stream of the built-in generator.
    pub fn generator_schema(&self, stream: GeneratorStream) -> SchemaRef {
        generator::schema(stream)
    }

    fn avsc(&self, path: &str) -> Result<SchemaRef, String> {
        let candidates: Vec<PathBuf> = self.bases.iter().map(|base| base.join(path)).collect();
        let found = candidates.iter().find(|p| p.exists()).or_else(|| candidates.first());
        read_avsc(found.map_or(Path::new(path), PathBuf::as_path))
    }
}

/// A Parquet file's columns in the engine's types.
fn parquet_schema(file: &Path) -> Result<Schema, String> {
    let say = |what: String| format!("{}: {what}", file.display());
    let opened = File::open(file).map_err(|e| say(format!("cannot open it: {e}")))?;
    let metadata = parquet::load_metadata(&opened).map_err(say)?;
    let fields = metadata.schema().fields().iter().map(|field| {
        let data_type = engine_type(field.data_type()).unwrap_or_else(|| field.data_type().clone());
        Field::new(field.name(), data_type, field.is_nullable())
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// What all files say alike: a column is nullable when it is so in any of them.
fn common_schema(files: &[PathBuf]) -> Result<SchemaRef, String> {
    let (first, others) = files.split_first().ok_or("there is no file to read the columns from")?;
    let mut common = parquet_schema(first)?;
    let mut faults = Vec::new();
    for file in others {
        let schema = match parquet_schema(file) {
            Ok(schema) => schema,
            Err(what) => {
                faults.push(what);
                continue;
            }
        };
        let mut differences: Vec<String> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for field in common.fields() {
            let nullable = match schema.field_with_name(field.name()) {
                Ok(found) if found.data_type() == field.data_type() => field.is_nullable() || found.is_nullable(),
                Ok(found) => {
                    let (name, here, there) = (field.name(), found.data_type(), field.data_type());
                    differences.push(format!("its `{name}` is {here} and not {there}"));
                    field.is_nullable()
                }
                Err(_) => {
                    differences.push(format!("it lacks `{}`", field.name()));
                    field.is_nullable()
                }
            };
            fields.push(field.as_ref().clone().with_nullable(nullable));
        }
        let more = schema.fields().iter().filter(|f| common.field_with_name(f.name()).is_err());
        differences.extend(more.map(|f| format!("it has `{}` besides", f.name())));
        if !differences.is_empty() {
            let (file, first) = (file.display(), first.display());
            faults.push(format!(
                "{file} differs from {first}: {}; say the columns with `schema`, or narrow `path`",
                differences.join(", ")
            ));
        }
        common = Schema::new(fields);
    }
    if faults.is_empty() { Ok(Arc::new(common)) } else { Err(faults.join("\n")) }
}

/// What a Parquet file has other than `given` says.
fn misfit(file: &Path, given: &Schema) -> Result<Option<String>, String> {
    let opened = File::open(file).map_err(|e| format!("{}: cannot open it: {e}", file.display()))?;
    let metadata = parquet::load_metadata(&opened).map_err(|what| format!("{}: {what}", file.display()))?;
    let faults = given.fields().iter().filter_map(|field| match metadata.schema().field_with_name(field.name()) {
        Err(_) => Some(format!("it lacks `{}`", field.name())),
        Ok(found) if converts(found.data_type(), field) => None,
        Ok(found) => {
            Some(format!("its `{}` is {}, which does not become {}", field.name(), found.data_type(), field.data_type()))
        }
    });
    let faults: Vec<String> = faults.collect();
    Ok((!faults.is_empty()).then(|| format!("{} is not what `schema` says: {}", file.display(), faults.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::kit::{Dir, data};
    use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampNanosecondArray};
    use arrow::datatypes::DataType;

    fn catalog(dir: &Dir) -> FileCatalog {
        FileCatalog { bases: vec![dir.path().to_owned()] }
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn parquet_files_that_agree_say_their_columns() {
        let dir = Dir::new();
        let ts: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
        dir.parquet("a.parquet", &batch(vec![("ts", ts.clone()), ("x", Arc::new(Int32Array::from(vec![1])))]), 1);
        dir.parquet("b.parquet", &batch(vec![("ts", ts.clone()), ("x", Arc::new(Int32Array::from(vec![2])))]), 1);
        let files = catalog(&dir).files("*.parquet", FileFormat::Parquet).unwrap();
        let schema = catalog(&dir).file_schema(&files, FileFormat::Parquet, None).unwrap();
        assert_eq!(schema.field(0).data_type(), &crate::plan::expr::time_type());
        assert_eq!(schema.field(1).data_type(), &DataType::Int32);

        let other = batch(vec![("x", Arc::new(Float64Array::from(vec![2.0]))), ("y", Arc::new(Int32Array::from(vec![2])))]);
        dir.parquet("c.parquet", &other, 1);
        let files = catalog(&dir).files(".", FileFormat::Parquet).unwrap();
        let error = catalog(&dir).file_schema(&files, FileFormat::Parquet, None).unwrap_err();
        assert!(error.contains("it lacks `ts`, its `x` is Float64 and not Int32, it has `y` besides"), "{error}");
    }

    #[test]
    fn a_schema_file_rules_and_parquet_is_held_against_it() {
        let dir = Dir::new();
        dir.text(
            "tx.avsc",
            r#"{"type":"record","name":"tx","fields":[{"name":"x","type":"long"},
                {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#,
        );
        let good: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(Int64Array::from(vec![1]))),
            ("x", Arc::new(Int32Array::from(vec![1]))),
            ("more", Arc::new(Int32Array::from(vec![1]))),
        ];
        let a = dir.parquet("a.parquet", &batch(good), 1);
        let schema = catalog(&dir).file_schema(&[a], FileFormat::Parquet, Some("tx.avsc")).unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        let b = dir.parquet("b.parquet", &batch(vec![("x", Arc::new(Float64Array::from(vec![1.0])))]), 1);
        let error = catalog(&dir).file_schema(&[b], FileFormat::Parquet, Some("tx.avsc")).unwrap_err();
        assert!(error.contains("its `x` is Float64, which does not become Int64, it lacks `ts`"), "{error}");
        let error = catalog(&dir).file_schema(&[], FileFormat::Csv, None).unwrap_err();
        assert!(error.contains("add `schema: FILE.avsc`"), "{error}");
        let error = catalog(&dir).file_schema(&[], FileFormat::Csv, Some("none.avsc")).unwrap_err();
        assert!(error.contains("cannot read"), "{error}");
    }

    #[test]
    fn relative_paths_count_from_here_and_then_from_the_job() {
        let dir = Dir::new();
        dir.text("x.csv", b"");
        let found = FileCatalog::for_job(&dir.path().join("job.yaml")).files("x.csv", FileFormat::Csv).unwrap();
        assert_eq!(found, [dir.path().join("x.csv")]);
        assert_eq!(FileCatalog::for_job(Path::new("job.yaml")).bases, [PathBuf::new()]);
    }

    #[test]
    fn the_flights_say_their_columns() {
        let Some(path) = data("flights/flights.parquet") else { return };
        let schema = FileCatalog { bases: vec![] }.file_schema(&[path], FileFormat::Parquet, None).unwrap();
        assert_eq!(schema.field_with_name("arr_utc").unwrap().data_type(), &crate::plan::expr::time_type());
    }
}

//! What is there to read: the files behind a source and the columns in them, for the compiler of dataflow files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use super::avsc::read_avsc;
use super::decode::normalise::converts;
use super::file::{parquet, paths::expand};
use super::generator;
use crate::kafka::setting_fault;
use crate::plan::expr::engine_type;
use crate::plan::model::FileFormat;
use crate::plan::{Catalog, ConnectorSpec, SourceSpec, format_of};

/// Finds files and schemas on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileCatalog;

impl Catalog for FileCatalog {
    /// Columns of types that the engine has no use for keep their own type. With a schema (an `.avsc` file) the columns are
    /// what that says, and Parquet files are held against it; without one, which only Parquet can do, they are what all
    /// the files say alike. The fields' nullability and metadata matter to the decoders: they belong in
    /// [`SourcePlan::schema`](crate::plan::model::SourcePlan::schema).
    fn event_schema(&self, _source: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String> {
        let given = spec.schema.as_deref().map(read_avsc).transpose()?;
        match &spec.connector {
            ConnectorSpec::Generator(stream) => match given {
                None => Ok((generator::schema(*stream), Vec::new())),
                // The reader makes these very columns, so a file that describes them can only agree.
                Some(given) => match differences(&generator::schema(*stream), &given) {
                    None => Ok((generator::schema(*stream), Vec::new())),
                    Some(what) => Err(format!("the generator's columns are not what `schema` says: {what}")),
                },
            },
            ConnectorSpec::Kafka => match given {
                Some(given) => Ok((given, Vec::new())),
                None => Err("messages do not say the types of their fields; add `schema: FILE.avsc`".into()),
            },
            ConnectorSpec::File { path, format } => {
                let files = expand(path, *format)?;
                let schema = file_schema(&files, *format, given)?;
                Ok((schema, files))
            }
        }
    }

    fn kafka_setting_fault(&self, name: &str, text: &str) -> Option<String> {
        setting_fault(name, text)
    }
}

fn file_schema(files: &[PathBuf], format: Option<FileFormat>, given: Option<SchemaRef>) -> Result<SchemaRef, String> {
    let format = format.or_else(|| files.first().and_then(|file| format_of(file)));
    match (format, given) {
        (Some(FileFormat::Parquet), Some(given)) => {
            let faults = files.iter().filter_map(|file| misfit(file, &given).err()).collect::<Vec<_>>();
            if faults.is_empty() { Ok(given) } else { Err(faults.join("; ")) }
        }
        (Some(FileFormat::Parquet), None) => common_schema(files),
        (_, Some(given)) => Ok(given),
        (_, None) => Err("text files do not say their columns' types; add `schema: FILE.avsc`".into()),
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
    if faults.is_empty() { Ok(Arc::new(common)) } else { Err(faults.join("; ")) }
}

/// Holds a Parquet file against a schema.
fn misfit(file: &Path, given: &Schema) -> Result<(), String> {
    let opened = File::open(file).map_err(|e| format!("{}: cannot open it: {e}", file.display()))?;
    let metadata = parquet::load_metadata(&opened).map_err(|what| format!("{}: {what}", file.display()))?;
    match differences(metadata.schema(), given) {
        None => Ok(()),
        Some(what) => Err(format!("{} is not what `schema` says: {what}", file.display())),
    }
}

/// What of `given` the columns that there are do not serve.
fn differences(there: &Schema, given: &Schema) -> Option<String> {
    let faults = given.fields().iter().filter_map(|field| match there.field_with_name(field.name()) {
        Err(_) => Some(format!("it lacks `{}`", field.name())),
        Ok(found) if converts(found.data_type(), field) => None,
        Ok(found) => {
            let (name, is, wanted) = (field.name(), found.data_type(), field.data_type());
            Some(format!("its `{name}` is {is}, which does not become {wanted}"))
        }
    });
    let faults: Vec<String> = faults.collect();
    (!faults.is_empty()).then(|| faults.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::tests::kit::{Dir, data};
    use crate::plan::model::GeneratorStream;
    use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampNanosecondArray};
    use arrow::datatypes::DataType;

    fn schema(dir: &Dir, path: &str, avsc: Option<&str>) -> Result<SchemaRef, String> {
        let path = dir.path().join(path).to_str().unwrap().to_owned();
        let schema = avsc.map(|name| dir.path().join(name));
        let spec = SourceSpec { connector: ConnectorSpec::File { path, format: None }, schema };
        FileCatalog.event_schema("tx", &spec).map(|(schema, _)| schema)
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
        let found = schema(&dir, "*.parquet", None).unwrap();
        assert_eq!(found.field(0).data_type(), &crate::plan::expr::time_type());
        assert_eq!(found.field(1).data_type(), &DataType::Int32);

        let other =
            batch(vec![("x", Arc::new(Float64Array::from(vec![2.0]))), ("y", Arc::new(Int32Array::from(vec![2])))]);
        dir.parquet("c.parquet", &other, 1);
        let error = schema(&dir, ".", None).unwrap_err();
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
        dir.parquet("a.parquet", &batch(good), 1);
        let found = schema(&dir, "a.parquet", Some("tx.avsc")).unwrap();
        assert_eq!(found.field(0).data_type(), &DataType::Int64);
        dir.parquet("b.parquet", &batch(vec![("x", Arc::new(Float64Array::from(vec![1.0])))]), 1);
        let error = schema(&dir, "b.parquet", Some("tx.avsc")).unwrap_err();
        assert!(error.contains("its `x` is Float64, which does not become Int64, it lacks `ts`"), "{error}");
        dir.text("c.csv", "");
        let error = schema(&dir, "c.csv", None).unwrap_err();
        assert!(error.contains("add `schema: FILE.avsc`"), "{error}");
        let error = schema(&dir, "c.csv", Some("none.avsc")).unwrap_err();
        assert!(error.contains("cannot read"), "{error}");
        assert!(schema(&dir, "d.csv", None).unwrap_err().contains("there is no file"));
    }

    #[test]
    fn the_generators_columns_need_no_schema_and_agree_with_ours() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let pairs =
            [(GeneratorStream::Transactions, "transaction.avsc"), (GeneratorStream::Labels, "fraud_label.avsc")];
        for (stream, name) in pairs {
            for schema in [None, Some(root.join("schemas").join(name))] {
                let spec = SourceSpec { connector: ConnectorSpec::Generator(stream), schema };
                assert_eq!(FileCatalog.event_schema("tx", &spec), Ok((generator::schema(stream), vec![])));
            }
        }
        let labels = Some(root.join("schemas/fraud_label.avsc"));
        let spec = SourceSpec { connector: ConnectorSpec::Generator(GeneratorStream::Transactions), schema: labels };
        assert!(FileCatalog.event_schema("tx", &spec).unwrap_err().contains("it lacks `known_at`"));
    }

    #[test]
    fn the_flights_say_their_columns() {
        let Some(path) = data("flights/flights.parquet") else {
            return;
        };
        let path = path.to_str().unwrap().to_owned();
        let spec = SourceSpec { connector: ConnectorSpec::File { path, format: None }, schema: None };
        let (schema, files) = FileCatalog.event_schema("flights", &spec).unwrap();
        assert_eq!(schema.field_with_name("arr_utc").unwrap().data_type(), &crate::plan::expr::time_type());
        assert_eq!(files.len(), 1);
    }
}

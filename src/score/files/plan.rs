//! What is to be done, found out before anything is written: every file's columns are held against the model.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetMetaDataReader;
use serde::{Deserialize, Serialize};

use super::error::FilesError;
use super::{HASH, Input, Keep, Mapped, Options, REASON, VERSION};
use crate::plan::model::ModelOutput;
use crate::score::{Bound, Model};

/// Key of an output's metadata that says what it was made of.
pub(super) const MADE_OF: &str = "tidemill.score";

/// What an output was made of: the same again is the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MadeOf {
    model_version: String,
    model_hash: String,
    bytes: u64,
    modified_ns: u64,
    rows: u64,
    columns: Vec<(String, String)>,
    outputs: Vec<(String, String, Option<usize>)>,
    keep: Vec<String>,
}

/// A file, and what becomes of it.
pub(super) struct Planned {
    pub path: PathBuf,
    pub target: PathBuf,
    pub rows: u64,
    pub groups: usize,
    pub bound: Arc<Bound>,
    /// Columns that are read, by number.
    pub read: Vec<usize>,
    /// Of the columns read, those that go to the model, in the order in which it is bound.
    pub scored: Vec<usize>,
    /// Of the columns read, those that pass through.
    pub kept: Vec<usize>,
    pub schema: SchemaRef,
    pub made_of: MadeOf,
    /// It is there already.
    pub done: bool,
}

/// Every value of every output: `<output>` where it has one per row, else `<output>.<element>`.
///
/// # Errors
/// A sentence, when the model does not say how wide an output is.
pub fn every_output(model: &Model) -> Result<Vec<ModelOutput>, String> {
    let mut all = Vec::new();
    for o in model.outputs() {
        let width = o.width().ok_or_else(|| format!("the model does not say how wide its output {} is", o.name))?;
        all.extend((0..width).map(|e| ModelOutput {
            name: if width == 1 { o.name.clone() } else { format!("{}.{e}", o.name) },
            tensor: o.name.clone(),
            element: Some(e),
        }));
    }
    Ok(all)
}

/// Opens a file's footer.
pub(super) fn footer(path: &Path) -> Result<(File, ArrowReaderMetadata), FilesError> {
    let read = |why: String| FilesError::Read { path: path.to_owned(), why };
    let file = File::open(path).map_err(|error| read(error.to_string()))?;
    let metadata =
        ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| read(error.to_string()))?;
    Ok((file, metadata))
}

/// Plans one file.
pub(super) fn plan(input: &Input, options: &Options) -> Result<Planned, FilesError> {
    let Input { path, name } = input;
    let (file, metadata) = footer(path)?;
    let schema = metadata.schema().clone();
    let wrong = |why: String| FilesError::Request(format!("{}: {why}", path.display()));
    let mapped = columns(&options.model, &options.columns, &schema).map_err(wrong)?;
    let find = |column: &str| {
        schema.index_of(column).map_err(|_| {
            let has: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            wrong(format!("there is no column {column}; there are {}", has.join(", ")))
        })
    };
    let own: Vec<usize> = mapped.iter().map(|m| find(&m.column)).collect::<Result<_, _>>()?;
    let typed: Vec<(&str, DataType)> =
        mapped.iter().zip(&own).map(|(m, i)| (m.name.as_str(), plain(schema.field(*i).data_type()))).collect();
    let model = options.model.with_columns(typed.len())?;
    let outputs = match options.outputs.is_empty() {
        true => every_output(&model).map_err(wrong)?,
        false => options.outputs.clone(),
    };
    let bound = model.bind(&typed, &outputs).map_err(|faults| wrong(faults.join("; ")))?;
    let kept: Vec<usize> = match &options.keep {
        Keep::All => (0..schema.fields().len()).collect(),
        Keep::Only(names) => names.iter().map(|name| find(name)).collect::<Result<_, _>>()?,
    };
    let mut fields: Vec<Field> = kept.iter().map(|i| schema.field(*i).clone()).collect();
    fields.extend(bound.outputs().into_iter().map(|(name, t)| Field::new(name, t, true)));
    fields.extend([VERSION, HASH].map(|name| Field::new(name, DataType::Utf8, false)));
    fields.push(Field::new(REASON, DataType::Utf8, true));
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|before| before.name() == field.name()) {
            let name = field.name();
            return Err(wrong(format!(
                "two columns of the output would be called {name}; leave one out with --keep, or name the score otherwise with --score"
            )));
        }
    }
    let mut read: Vec<usize> = own.iter().chain(&kept).copied().collect();
    read.sort_unstable();
    read.dedup();
    let place = |i: &usize| read.binary_search(i).unwrap_or(0);
    let (scored, passed) = (own.iter().map(place).collect(), kept.iter().map(place).collect());
    let stat = file.metadata().map_err(|error| FilesError::Read { path: path.clone(), why: error.to_string() })?;
    let modified = stat.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let rows = u64::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
    let made_of = MadeOf {
        model_version: options.version.clone(),
        model_hash: options.model.hash().to_owned(),
        bytes: stat.len(),
        modified_ns: modified.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)),
        rows,
        columns: mapped.into_iter().map(|m| (m.name, m.column)).collect(),
        outputs: outputs.into_iter().map(|o| (o.name, o.tensor, o.element)).collect(),
        keep: kept.iter().map(|i| schema.field(*i).name().clone()).collect(),
    };
    let target = options.out.join(name);
    let done = already(path, &target, &made_of, options.replace)?;
    Ok(Planned {
        path: path.clone(),
        target,
        rows,
        groups: metadata.metadata().num_row_groups(),
        bound,
        read,
        scored,
        kept: passed,
        schema: Arc::new(Schema::new(fields)),
        made_of,
        done,
    })
}

/// Whether an output is there and is what would be made.
fn already(input: &Path, target: &Path, made_of: &MadeOf, replace: bool) -> Result<bool, FilesError> {
    if !target.exists() {
        return Ok(false);
    }
    let same = |path: &Path| std::fs::canonicalize(path).ok();
    if same(input) == same(target) {
        return Err(FilesError::Request(format!(
            "{} would be replaced by its own scores; give another --out",
            input.display()
        )));
    }
    let found = File::open(target).ok().and_then(|file| ParquetMetaDataReader::new().parse_and_finish(&file).ok());
    let said = found.as_ref().and_then(|m| m.file_metadata().key_value_metadata()).into_iter().flatten();
    let said = said.filter(|pair| pair.key == MADE_OF).find_map(|pair| pair.value.as_deref());
    let was = said.and_then(|text| serde_json::from_str::<MadeOf>(text).ok());
    match was {
        Some(was) if was == *made_of => Ok(true),
        _ if replace => Ok(false),
        _ => Err(FilesError::Request(format!(
            "{} is there already and was made of something else; --replace writes it anew",
            target.display()
        ))),
    }
}

/// Dictionaries stand for their values.
pub(super) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

/// Which columns become which of the model's.
fn columns(model: &Model, asked: &[Mapped], schema: &Schema) -> Result<Vec<Mapped>, String> {
    let own: Vec<String> = match (model.inputs(), model.columns()) {
        ([_], Some(names)) => names.to_vec(),
        ([_], None) => Vec::new(),
        (inputs, _) => inputs.iter().map(|input| input.name.clone()).collect(),
    };
    let same = |name: &str| Mapped { name: name.to_owned(), column: name.to_owned() };
    if !own.is_empty() {
        // Those that are not mapped are called in the file as in the model.
        let of = |name: &String| asked.iter().find(|m| m.name == *name).cloned().unwrap_or_else(|| same(name));
        if let Some(stranger) = asked.iter().find(|m| !own.contains(&m.name)) {
            return Err(format!("the model takes no {}; it takes {}", stranger.name, own.join(", ")));
        }
        return Ok(own.iter().map(of).collect());
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let width = model.inputs().first().and_then(|input| input.width());
    let fields = schema.fields();
    if width.is_some_and(|width| width != fields.len()) {
        let input = model.inputs().first().map(ToString::to_string).unwrap_or_default();
        return Err(format!(
            "the model does not say of which columns its input {input} is made, and the file has {} columns; name them in order with --columns",
            fields.len()
        ));
    }
    Ok(fields.iter().map(|field| same(field.name())).collect())
}

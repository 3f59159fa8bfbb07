//! Training sets as versions of models remember them: the [`Profile`] of a set's rows, kept beside the version.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchReader};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::EngineError;
use crate::base::Selector;
use crate::monitor::drift::profile::{PROFILE_FILE, Profile, Profiler};
use crate::plan::expr::engine_type;
use crate::registry::Registry;
use crate::store::StoreError;
use crate::store::pit::{Role, read_roles};

/// Counts the columns of a training set that `tidemill dataset` has written: all its rows, or those at `rows`, ascending.
///
/// # Errors
/// When the file is no such set, or cannot be read.
pub fn profile_of(set: &Path, rows: Option<&[u32]>, tables: BTreeMap<String, u64>) -> Result<Profile, EngineError> {
    let notes = read_roles(set)?;
    let time = notes.iter().find(|note| note.role == Role::Time).map(|note| note.name.as_str());
    let unfit = |what: &str| EngineError::Plan(format!("{}: {what}", set.display()));
    let time = time.ok_or_else(|| unfit("there is no event time"))?;
    let file = File::open(set).map_err(StoreError::io("open", set))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::parquet(set))?;
    let is_counted = |role: Role| matches!(role, Role::Input | Role::Label | Role::Extra);
    let counted: Vec<&str> = notes.iter().filter(|n| is_counted(n.role)).map(|n| n.name.as_str()).collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), counted.iter().copied().chain([time]));
    let reader = builder.with_projection(mask).build().map_err(StoreError::parquet(set))?;
    let wrong = || StoreError::arrow(set.display().to_string());
    let schema = reader.schema();
    let typed = |field: &Arc<Field>| Some((field.name().clone(), engine_type(field.data_type())?));
    let fields: Vec<(String, DataType)> = schema.fields().iter().filter_map(typed).collect();
    let columns: Vec<(String, DataType)> =
        fields.into_iter().filter(|(name, _)| counted.contains(&name.as_str())).collect();
    let mut profiler = Profiler::new(&columns);
    let mut wanted = rows.map(|rows| rows.iter().copied().peekable());
    let mut before = 0u32;
    for batch in reader {
        let batch = batch.map_err(wrong())?;
        let count = batch.num_rows() as u32;
        let batch = match &mut wanted {
            None => batch,
            Some(wanted) => {
                let mut keep = vec![false; batch.num_rows()];
                while let Some(row) = wanted.next_if(|row| *row < before + count) {
                    if let Some(keep) = keep.get_mut(row.saturating_sub(before) as usize) {
                        *keep = true;
                    }
                }
                filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(wrong())?
            }
        };
        before += count;
        let times = batch.column_by_name(time).ok_or_else(|| unfit("there is no event time"))?;
        let times = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))).map_err(wrong())?;
        let times: Vec<i64> = times.as_primitive::<TimestampMicrosecondType>().iter().flatten().collect();
        profiler.count(&in_engine_types(&batch, &columns).map_err(wrong())?, &times).map_err(wrong())?;
    }
    Ok(profiler.finish(tables))
}

fn in_engine_types(batch: &RecordBatch, columns: &[(String, DataType)]) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, ty) in columns {
        let column = batch.column_by_name(name);
        let missing = || ArrowError::SchemaError(format!("there is no column `{name}`"));
        arrays.push(cast(column.ok_or_else(missing)?, ty)?);
        fields.push(Field::new(name, ty.clone(), true));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// The profile that a version was registered with.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn registered(registry: &Registry, name: &str, number: u32) -> Result<Profile, String> {
    let version = registry.version(name, &Selector::Number(number)).map_err(|error| error.to_string())?;
    let file = version.files.get(PROFILE_FILE).ok_or_else(|| {
        format!(
            "{name}@{number} was registered without its training set; `tidemill train` registers with it, and so does `tidemill models register --set SET.parquet`; or name another `reference`"
        )
    })?;
    let path = registry.artifact(&file.hash).map_err(|error| error.to_string())?;
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Profile::decode(&bytes).map_err(|error| format!("the training set of {name}@{number}: {error}"))
}

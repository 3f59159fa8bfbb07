//! Batches of the engine in the form of a table's rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int16Type, SchemaRef, UInt64Type};

use super::spec::{DATE_COLUMN, TableSpec};
use crate::base::{ORD_COLUMN, Ord64, Position, TIME_COLUMN, Tick};
use crate::ops::system::{SYSTEM_COLUMNS, utc};
use crate::store::StoreError;

/// Brings batches into the form of a table's rows: its columns in its order, without `event_date`, which follows from
/// `event_time`.
#[derive(Clone, Debug)]
pub struct RowForm {
    spec: TableSpec,
    sources: ArrayRef,
    job_version: u32,
}

impl RowForm {
    /// For rows of `spec`, of a job of this version, whose sources have these names by rank.
    pub fn new(spec: TableSpec, sources: &[String], job_version: u32) -> Self {
        RowForm { spec, sources: Arc::new(StringArray::from(sources.to_vec())), job_version }
    }

    /// Columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        self.spec.file_schema()
    }

    /// Rows of a batch of the engine, released at `tick`; see [`TableWriter::append`](super::TableWriter::append).
    ///
    /// # Errors
    /// [`StoreError::Shape`] when a column is missing.
    pub fn engine_rows(&self, tick: Tick, batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
        let columns = engine_columns(&self.spec, &self.sources, self.job_version, tick, batch)?;
        let fields = self.schema().fields().iter();
        let columns = fields
            .zip(&columns)
            .map(|(field, column)| fitting(&self.spec, column, field.data_type()))
            .collect::<Result<_, _>>()?;
        RecordBatch::try_new(Arc::clone(self.schema()), columns).map_err(StoreError::arrow(self.spec.name()))
    }

    /// Rows of a batch that has the table's columns already, `event_date` perhaps among them.
    ///
    /// # Errors
    /// As [`engine_rows`](Self::engine_rows).
    pub fn table_rows(&self, batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
        let fields = self.schema().fields().iter();
        let columns = fields
            .map(|field| fitting(&self.spec, column(&self.spec, batch, field.name())?, field.data_type()))
            .collect::<Result<_, _>>()?;
        RecordBatch::try_new(Arc::clone(self.schema()), columns).map_err(StoreError::arrow(self.spec.name()))
    }
}

/// Columns of the table's file schema for a batch of the engine, `_source` as a dictionary of `sources`.
pub(super) fn engine_columns(
    spec: &TableSpec,
    sources: &ArrayRef,
    job_version: u32,
    tick: Tick,
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>, StoreError> {
    let rows = batch.num_rows();
    let times = cast(column(spec, batch, TIME_COLUMN)?, &utc()).map_err(StoreError::arrow(spec.name()))?;
    let ords = column(spec, batch, ORD_COLUMN)?;
    let Some(ords) = ords.as_primitive_opt::<UInt64Type>() else {
        return Err(shape(spec, format!("`{ORD_COLUMN}` is {}, not UInt64", ords.data_type())));
    };
    let positions = || ords.values().iter().map(|ord| Position::from(Ord64(*ord)));
    if let Some(p) = positions().find(|p| usize::from(p.source) >= sources.len()) {
        return Err(shape(spec, format!("a row names source {}, of {} declared", p.source, sources.len())));
    }
    let source_keys = Int16Array::from_iter_values(positions().map(|p| i16::from(p.source)));
    let mut columns: Vec<ArrayRef> = vec![
        times,
        Arc::new(Int64Array::from_value(tick as i64, rows)),
        Arc::new(
            DictionaryArray::<Int16Type>::try_new(source_keys, sources.clone())
                .map_err(StoreError::arrow(spec.name()))?,
        ),
        Arc::new(Int32Array::from_iter_values(positions().map(|p| i32::from(p.partition)))),
        Arc::new(Int64Array::from_iter_values(positions().map(|p| p.offset as i64))),
        Arc::new(Int32Array::from_value(job_version as i32, rows)),
    ];
    for payload in spec.columns() {
        columns.push(fitting(spec, column(spec, batch, &payload.engine)?, &payload.data_type)?);
    }
    Ok(columns)
}

pub(super) fn column<'a>(spec: &TableSpec, batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, StoreError> {
    batch.column_by_name(name).ok_or_else(|| shape(spec, format!("column `{name}` is missing")))
}

pub(super) fn fitting(spec: &TableSpec, column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, StoreError> {
    if column.data_type() == data_type {
        return Ok(column.clone());
    }
    cast(column, data_type).map_err(StoreError::arrow(spec.name()))
}

fn shape(spec: &TableSpec, reason: String) -> StoreError {
    StoreError::Shape { what: format!("table {}", spec.name()), reason }
}

const _: () = assert!(DATE_COLUMN == 1 && SYSTEM_COLUMNS.len() == 7, "the system columns are built by hand");

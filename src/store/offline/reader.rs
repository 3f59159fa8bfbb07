//! Reads tables through the Delta log: whole, by version, and one entity as of a time.

use std::cmp::Reverse;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar, TimestampMicrosecondArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{and, cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::schema::StructType;
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::{Engine, Snapshot, SnapshotRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};

use super::kernel::engine;
use super::part::format_date;
use super::sort::date_of;
use super::spec::DATE_COLUMN;
use super::table::{has_log, table_url};
use crate::base::{EventTime, Micros};
use crate::ops::system::SYSTEM_COLUMNS;
use crate::store::StoreError;

/// A Delta table at one version.
pub struct TableReader {
    pub(super) directory: PathBuf,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) snapshot: SnapshotRef,
    pub(super) schema: SchemaRef,
}

impl TableReader {
    /// Opens the table in `directory` at `version`, or at its newest.
    ///
    /// # Errors
    /// [`StoreError::NoTable`] when the directory holds no Delta log; [`StoreError::Delta`] when the log cannot be read or
    /// has no such version.
    pub fn open(directory: &Path, version: Option<u64>) -> Result<Self, StoreError> {
        if !has_log(directory)? {
            return Err(StoreError::NoTable(directory.display().to_string()));
        }
        let table = directory.display().to_string();
        let engine = engine()?;
        let mut builder = Snapshot::builder_for(table_url(directory)?);
        if let Some(version) = version {
            builder = builder.at_version(version);
        }
        let snapshot = builder.build(engine.as_ref()).map_err(StoreError::delta(&table))?;
        let schema: Schema = snapshot.schema().as_ref().try_into_arrow().map_err(StoreError::arrow(table))?;
        Ok(TableReader { directory: directory.to_path_buf(), engine, snapshot, schema: Arc::new(schema) })
    }

    /// The table's version.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The table's schema, partition columns included.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads all rows, of `columns` or of all columns, in the order of the log and of the files: no order to rely on.
    ///
    /// # Errors
    /// [`StoreError::Request`] for a column that the table lacks; [`StoreError::Delta`] when a file cannot be read.
    pub fn read(&self, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>, StoreError> {
        let wrong = || StoreError::delta(self.directory.display().to_string());
        let mut scan = self.snapshot.clone().scan_builder();
        if let Some(columns) = columns {
            scan = scan.with_schema(Arc::new(self.kernel_projection(columns)?));
        }
        let scan = scan.build().map_err(wrong())?;
        let mut batches = Vec::new();
        for data in scan.execute(self.engine.clone()).map_err(wrong())? {
            let batch = data.and_then(EngineDataArrowExt::try_into_record_batch).map_err(wrong())?;
            if batch.num_rows() > 0 {
                batches.push(batch);
            }
        }
        Ok(batches)
    }

    fn kernel_projection(&self, columns: &[&str]) -> Result<StructType, StoreError> {
        let schema = self.snapshot.schema();
        let fields = columns
            .iter()
            .map(|column| schema.field(column).cloned().ok_or_else(|| self.no_column(column)))
            .collect::<Result<Vec<_>, _>>()?;
        StructType::try_new(fields).map_err(StoreError::delta(self.directory.display().to_string()))
    }

    fn no_column(&self, column: &str) -> StoreError {
        let names: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        StoreError::Request(format!(
            "table {} has no column `{column}`; it has {}",
            self.directory.display(),
            names.join(", ")
        ))
    }

    /// The live files, newest event date first.
    pub(super) fn files(&self) -> Result<Vec<ScanFile>, StoreError> {
        let wrong = || StoreError::delta(self.directory.display().to_string());
        let scan = self.snapshot.clone().scan_builder().build().map_err(wrong())?;
        let mut files = Vec::new();
        for metadata in scan.scan_metadata(self.engine.as_ref()).map_err(wrong())? {
            files = metadata
                .and_then(|metadata| metadata.visit_scan_files(files, |files, file| files.push(file)))
                .map_err(wrong())?;
        }
        files.sort_by_cached_key(|file| (Reverse(partition_date(file).map(str::to_string)), file.path.clone()));
        Ok(files)
    }

    /// Where a file of the table is.
    pub(super) fn file_path(&self, file: &ScanFile) -> Result<PathBuf, StoreError> {
        let url = self.snapshot.table_root().join(&file.path).map_err(|e| StoreError::Request(e.to_string()))?;
        url.to_file_path()
            .map_err(|()| StoreError::Request(format!("`{url}`, named by the delta log, is not a local file")))
    }

    /// Whether files can be read without the Delta library's help: plain column names, no deleted rows.
    pub(super) fn plain(&self, files: &[ScanFile]) -> bool {
        self.snapshot.table_configuration().column_mapping_mode() == ColumnMappingMode::None
            && !files.iter().any(|file| file.dv_info.has_vector())
    }
}

/// Event date of a file, as the log says.
pub(super) fn partition_date(file: &ScanFile) -> Option<&str> {
    file.partition_values.get(SYSTEM_COLUMNS[DATE_COLUMN]).map(String::as_str)
}

/// Reads a whole table: [`TableReader::open`] and [`TableReader::read`] in one.
///
/// # Errors
/// As those two.
pub fn read_table(
    directory: &Path,
    columns: Option<&[&str]>,
    version: Option<u64>,
) -> Result<Vec<RecordBatch>, StoreError> {
    TableReader::open(directory, version)?.read(columns)
}

/// The newest row of an entity at or before a time.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The row: one row, all columns of the table.
    pub row: RecordBatch,
    /// Its event time.
    pub event_time: EventTime,
}

/// The newest row at or before `at`, and after `at − ttl` if there is one, whose `entity` columns equal the given
/// one-row arrays. Among rows of one event time the last by (`_source`, `_partition`, `_offset`), the order in which the
/// engine met them. Reads the newest dates first and stops at the first that has a row.
///
/// # Errors
/// [`StoreError::Request`] for a column that the table lacks, [`StoreError::Delta`] and [`StoreError::Parquet`] from reading.
pub fn latest_as_of(
    table: &TableReader,
    entity: &[(String, ArrayRef)],
    at: EventTime,
    ttl: Option<Micros>,
) -> Result<Option<Latest>, StoreError> {
    for (column, _) in entity {
        table.schema.field_with_name(column).map_err(|_| table.no_column(column))?;
    }
    let oldest = ttl.map_or(EventTime::MIN, |ttl| at.saturating_sub(ttl));
    let files = table.files()?;
    if !table.plain(&files) {
        let rows = table
            .read(None)?
            .into_iter()
            .map(|batch| matching(&batch, entity, oldest, at))
            .collect::<Result<Vec<_>, _>>();
        let rows = rows.map_err(StoreError::arrow(table.directory.display().to_string()))?;
        return Ok(newest(rows));
    }
    let (first, last) = (format_date(date_of(oldest)), format_date(date_of(at)));
    let mut date = None;
    let mut found = Vec::new();
    for file in &files {
        let Some(file_date) = partition_date(file) else {
            continue;
        };
        if file_date > last.as_str() {
            continue;
        }
        let past_ttl = ttl.is_some() && file_date < first.as_str();
        if past_ttl || (date.is_some_and(|date| date != file_date) && !found.is_empty()) {
            break;
        }
        date = Some(file_date);
        found.extend(table.rows_of(file, entity, oldest, at)?);
    }
    Ok(newest(found))
}

impl TableReader {
    /// The rows of an entity in one plain file, skipping row groups that cannot hold it.
    fn rows_of(
        &self,
        file: &ScanFile,
        entity: &[(String, ArrayRef)],
        oldest: EventTime,
        at: EventTime,
    ) -> Result<Vec<RecordBatch>, StoreError> {
        let path = self.file_path(file)?;
        let opened = File::open(&path).map_err(StoreError::io("open", &path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(StoreError::parquet(&path))?;
        // A file older than a column lacks it: then no row of the file has the entity.
        if entity.iter().any(|(column, _)| builder.schema().field_with_name(column).is_err()) {
            return Ok(Vec::new());
        }
        let groups = (0..builder.metadata().num_row_groups())
            .filter(|group| entity.iter().all(|(column, key)| may_hold(&builder, *group, column, key).unwrap_or(true)))
            .collect::<Vec<_>>();
        let keys: Vec<&str> = entity.iter().map(|(column, _)| column.as_str()).chain(["event_time"]).collect();
        let mask = ProjectionMask::columns(builder.parquet_schema(), keys);
        let wanted: Vec<(String, ArrayRef)> = entity.to_vec();
        let predicate = ArrowPredicateFn::new(mask, move |batch| selects(&batch, &wanted, oldest, at));
        let reader = builder
            .with_row_groups(groups)
            .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
            .build()
            .map_err(StoreError::parquet(&path))?;
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(StoreError::arrow(path.display().to_string()))?;
        batches
            .into_iter()
            .map(|batch| self.complete(&batch, file).map_err(StoreError::arrow(path.display().to_string())))
            .collect()
    }

    /// A file's batch with the table's columns: the partition value from the log, nulls where the file is older than a column.
    pub(super) fn complete(&self, batch: &RecordBatch, file: &ScanFile) -> Result<RecordBatch, ArrowError> {
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type()),
            None => match file.partition_values.get(field.name()) {
                Some(value) => {
                    let text = arrow::array::StringArray::from(vec![value.as_str(); batch.num_rows()]);
                    cast(&text, field.data_type())
                }
                None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
            },
        });
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)
    }
}

/// Whether a row group's statistics allow rows with a key. `None`: there are none.
fn may_hold(
    builder: &ParquetRecordBatchReaderBuilder<File>,
    group: usize,
    column: &str,
    key: &ArrayRef,
) -> Option<bool> {
    if key.is_null(0) {
        return None;
    }
    let converter = StatisticsConverter::try_new(column, builder.schema(), builder.parquet_schema()).ok()?;
    let group = [builder.metadata().row_group(group)];
    let bound = |bound: ArrayRef| cast(&bound, key.data_type()).ok().filter(|bound| bound.is_valid(0));
    let least = bound(converter.row_group_mins(group).ok()?)?;
    let most = bound(converter.row_group_maxes(group).ok()?)?;
    Some(cmp::lt_eq(&least, key).ok()?.value(0) && cmp::gt_eq(&most, key).ok()?.value(0))
}

/// Which rows have the entity's key and an event time in `(oldest, at]` (all up to `at` when `oldest` is the least time).
fn selects(
    batch: &RecordBatch,
    entity: &[(String, ArrayRef)],
    oldest: EventTime,
    at: EventTime,
) -> Result<BooleanArray, ArrowError> {
    let missing = |name: &str| ArrowError::SchemaError(format!("column `{name}` is missing"));
    let time = batch.column_by_name("event_time").ok_or_else(|| missing("event_time"))?;
    let moment = |t: EventTime| Scalar::new(TimestampMicrosecondArray::from(vec![t]).with_timezone("UTC"));
    let mut selected = cmp::lt_eq(time, &moment(at))?;
    if oldest > EventTime::MIN {
        selected = and(&selected, &cmp::gt_eq(time, &moment(oldest))?)?;
    }
    for (column, key) in entity {
        let values = cast(batch.column_by_name(column).ok_or_else(|| missing(column))?, key.data_type())?;
        selected = and(&selected, &cmp::not_distinct(&values, &Scalar::new(key.clone()))?)?;
    }
    Ok(selected)
}

fn matching(
    batch: &RecordBatch,
    entity: &[(String, ArrayRef)],
    oldest: EventTime,
    at: EventTime,
) -> Result<RecordBatch, ArrowError> {
    filter_record_batch(batch, &selects(batch, entity, oldest, at)?)
}

/// The newest of some rows.
fn newest(batches: Vec<RecordBatch>) -> Option<Latest> {
    let mut best: Option<((i64, String, i64, i64), Latest)> = None;
    for batch in batches {
        let integer = |name: &str, row: usize| -> i64 {
            let column = batch.column_by_name(name).and_then(|c| cast(c, &DataType::Int64).ok());
            column.map_or(i64::MIN, |c| c.as_primitive::<arrow::datatypes::Int64Type>().value(row))
        };
        let Some(times) = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>().cloned() else {
            continue;
        };
        for row in 0..batch.num_rows() {
            let source = batch
                .column_by_name("_source")
                .and_then(|c| c.as_string_opt::<i32>().map(|c| c.value(row).to_string()));
            let rank =
                (times.value(row), source.unwrap_or_default(), integer("_partition", row), integer("_offset", row));
            if best.as_ref().is_none_or(|(held, _)| *held < rank) {
                best = Some((rank, Latest { row: batch.slice(row, 1), event_time: times.value(row) }));
            }
        }
    }
    best.map(|(_, latest)| latest)
}

//! Turns batches of the engine into sorted parts of one table.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};

use super::outbox;
use super::part::{Columns, Layout, Part, PartWriter, Place, publish, sync_parents};
use super::rows::{column, engine_columns, fitting};
use super::sort::order;
use super::spec::{TableSpec, table_path};
use crate::base::Tick;
use crate::store::StoreError;

/// What a writer stamps on rows, and how much it holds back.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Version of the job.
    pub job_version: u32,
    /// Names of the job's sources by rank.
    pub sources: Vec<String>,
    /// Number of the worker, for file names.
    pub worker: usize,
    /// A part is written once this many rows are buffered, and is no longer than that.
    pub rows_max: usize,
    /// ... or once this many bytes are buffered.
    pub bytes_max: usize,
    /// Stage parts in the outbox of this name (that of a job's instance, fit for a file name) instead of in the table; the
    /// commit moves them. For jobs whose parts wait for a manifest.
    pub outbox: Option<String>,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            job_version: 1,
            sources: Vec::new(),
            worker: 0,
            rows_max: 1 << 20,
            bytes_max: 512 << 20,
            outbox: None,
        }
    }
}

/// Buffers rows of one table and writes them as sorted Parquet parts. One per worker and table; `Send`, so that it may
/// live on a thread of its own.
pub struct TableWriter {
    spec: TableSpec,
    /// Directory that parts are written below: the table's, or the outbox's for it.
    place: PathBuf,
    options: WriterOptions,
    parts: PartWriter,
    /// Schema of buffered batches: the file's, with `_source` as a dictionary.
    schema: SchemaRef,
    sources: ArrayRef,
    buffered: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    published: Vec<Part>,
}

/// Parts written before they are forced to disk together: bounded by the open-file limit of ordinary systems.
const UNSYNCED_MAX: usize = 128;

impl TableWriter {
    /// Opens a writer for the table `spec` below `root`, the offline store's directory. Writes nothing yet; a
    /// [`TableCommitter`](super::TableCommitter) creates the table itself.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory for its parts cannot be made; [`StoreError::Request`] when an outbox's name is
    /// no file name.
    pub fn new(root: &Path, spec: &TableSpec, options: WriterOptions) -> Result<Self, StoreError> {
        let place = match &options.outbox {
            Some(instance) => outbox::place(root, instance, spec.name())?,
            None => Place { directory: table_path(root, spec.name()), staged: None },
        };
        let directory = place.directory.clone();
        std::fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        if place.staged.is_some() {
            sync_parents(root, &directory)?;
        }
        let source_type = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
        let fields = spec.file_schema().fields().iter().map(|field| match field.name().as_str() {
            "_source" => Field::new("_source", source_type.clone(), true),
            _ => field.as_ref().clone(),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let layout = Layout {
            table: spec.name().to_owned(),
            schema: schema.clone(),
            sort_by: spec.sort_by().to_vec(),
            stats: spec.stats_columns().into_iter().map(str::to_owned).collect(),
        };
        Ok(TableWriter {
            parts: PartWriter::new(place, layout, options.worker)?,
            schema,
            sources: Arc::new(StringArray::from(options.sources.clone())),
            spec: spec.clone(),
            place: directory,
            options,
            buffered: Vec::new(),
            rows: 0,
            bytes: 0,
            published: Vec::new(),
        })
    }

    /// Takes a batch of the engine, released at `tick`: columns `_time`, `_ord` and, in any order and among others, those
    /// of the table by their engine names. May write parts; nothing is visible to readers before a commit.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when a column is missing; [`StoreError::Io`] and [`StoreError::Parquet`] from writing.
    pub fn append(&mut self, tick: Tick, batch: &RecordBatch) -> Result<(), StoreError> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns = engine_columns(&self.spec, &self.sources, self.options.job_version, tick, batch)?;
        self.buffer(columns)
    }

    /// Takes rows that are in the table's form already, system columns included: every column of the table by its table
    /// name (`event_date` is not looked at; it follows from `event_time`, null event times go to 1970-01-01).
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_rows(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let schema = self.schema.clone();
        let columns = schema
            .fields()
            .iter()
            .map(|field| fitting(&self.spec, column(&self.spec, batch, field.name())?, field.data_type()))
            .collect::<Result<_, _>>()?;
        self.buffer(columns)
    }

    /// Rows that are buffered and not yet in a part.
    pub fn rows_buffered(&self) -> usize {
        self.rows
    }

    /// Writes what is buffered and returns all parts since the last flush, on disk for good. Commit them all in one
    /// epoch; parts that are never committed are harmless.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Parquet`]. Rows not written stay buffered for another try.
    pub fn flush(&mut self) -> Result<Vec<Part>, StoreError> {
        self.write_parts()?;
        Ok(std::mem::take(&mut self.published))
    }

    fn buffer(&mut self, columns: Vec<ArrayRef>) -> Result<(), StoreError> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(StoreError::arrow(self.spec.name()))?;
        self.bytes +=
            batch.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(c.len() * 8)).sum::<usize>();
        self.rows += batch.num_rows();
        self.buffered.push(batch);
        if self.rows >= self.options.rows_max || self.bytes >= self.options.bytes_max {
            self.write_parts()?;
        }
        Ok(())
    }

    /// Sorts and writes everything buffered, one part per event date (more when a date has more rows than a part).
    fn write_parts(&mut self) -> Result<(), StoreError> {
        if self.rows == 0 {
            return Ok(());
        }
        // All or nothing: after an error the rows stay buffered, and parts that hold some of them are forgotten.
        let parts = self.try_write_parts()?;
        self.published.extend(parts);
        self.buffered.clear();
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn try_write_parts(&self) -> Result<Vec<Part>, StoreError> {
        let name = self.spec.name().to_string();
        let wrong = || StoreError::arrow(&name);
        let mut gathered = Gathered::new(&name, &self.buffered);
        let event_times = gathered.whole(0)?;
        let event_times = event_times.as_primitive::<TimestampMicrosecondType>();
        let keys: Vec<ArrayRef> = self
            .spec
            .sort_by()
            .iter()
            .map(|key| gathered.whole(self.schema.index_of(key).map_err(wrong())?))
            .collect::<Result<_, _>>()?;
        // The slot under a null is not defined: read nulls as 0, which is 1970-01-01.
        let order = if event_times.null_count() == 0 {
            order(event_times.values(), &keys)
        } else {
            let times: Vec<i64> = event_times.iter().map(|t| t.unwrap_or(0)).collect();
            order(&times, &keys)
        }
        .map_err(wrong())?;
        let rows = UInt32Array::from(order.rows);
        let longest = self.options.rows_max.max(1);
        let parts: Vec<(i32, Range<usize>)> = order
            .dates
            .into_iter()
            .flat_map(|(date, range)| {
                range.clone().step_by(longest).map(move |start| (date, start..range.end.min(start + longest)))
            })
            .collect();
        if parts.len() > 1 {
            // Every part reads every column: put them together once.
            for column in 0..self.schema.fields().len() {
                gathered.keep(column)?;
            }
        }
        let (mut unsynced, mut published) = (Vec::new(), Vec::new());
        for (date, range) in parts {
            gathered.rows = rows.slice(range.start, range.len());
            unsynced.push(self.parts.write(date, range.len(), &mut gathered)?);
            if unsynced.len() >= UNSYNCED_MAX {
                published.extend(publish(&self.place, std::mem::take(&mut unsynced))?);
            }
        }
        published.extend(publish(&self.place, unsynced)?);
        Ok(published)
    }
}

/// Buffered batches as columns, whose rows are handed out in the order of `rows`.
struct Gathered<'a> {
    table: &'a str,
    batches: &'a [RecordBatch],
    rows: UInt32Array,
    /// Columns put together for good, by number.
    kept: HashMap<usize, ArrayRef>,
    /// The column put together last: a lone part asks for each column once, in pieces.
    latest: Option<(usize, ArrayRef)>,
}

impl<'a> Gathered<'a> {
    fn new(table: &'a str, batches: &'a [RecordBatch]) -> Self {
        Gathered { table, batches, rows: UInt32Array::from(Vec::<u32>::new()), kept: HashMap::new(), latest: None }
    }

    /// A column of all batches.
    fn whole(&self, column: usize) -> Result<ArrayRef, StoreError> {
        let pieces: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        concat(&pieces).map_err(StoreError::arrow(self.table))
    }

    fn keep(&mut self, column: usize) -> Result<(), StoreError> {
        let whole = self.whole(column)?;
        self.kept.insert(column, whole);
        Ok(())
    }
}

impl Columns for Gathered<'_> {
    fn piece(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef, StoreError> {
        let rows = self.rows.slice(rows.start, rows.len());
        let whole = match (self.kept.get(&column), &self.latest) {
            (Some(kept), _) => kept,
            (None, Some((latest, whole))) if *latest == column => whole,
            _ => &self.latest.insert((column, self.whole(column)?)).1,
        };
        take(whole, &rows, None).map_err(StoreError::arrow(self.table))
    }
}

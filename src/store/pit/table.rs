//! Tables as they are read here: file by file on a few threads, keys and times first, the rows that count after.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::statistics::Statistics;

use super::asof::{At, Best, Probes};
use super::keys::NO_GROUP;
use super::{Asked, Progress, TableVersion};
use crate::base::{EventTime, format_time};
use crate::ops::system::{SYSTEM_COLUMNS, utc};
use crate::store::StoreError;
use crate::store::offline::{DataFile, TableReader, table_path};

/// Name of the time column of tables.
pub(super) const EVENT_TIME: &str = SYSTEM_COLUMNS[0];
/// Rows read at a time.
const BATCH_ROWS: usize = 1 << 13;
/// Files larger than this are read by several threads.
const STRIPE_BYTES: u64 = 16 << 20;
/// More threads than this find the disk, not the processor, in their way.
const THREADS_MAX: usize = 8;

/// A table at one version.
pub(super) struct Table {
    /// Its name, such as `labels/fraud`.
    pub name: String,
    reader: TableReader,
    files: Vec<DataFile>,
}

impl Table {
    /// Opens the table `name` below `lake`, at the version that is asked for.
    pub fn open(lake: &Path, name: &str, at: &Asked) -> Result<Table, StoreError> {
        let directory = table_path(lake, name);
        let reader = match at {
            Asked::Newest => TableReader::open(&directory, None)?,
            Asked::Time(time) => TableReader::open_committed_by(&directory, *time)?,
            Asked::Version(version) => version_of(&directory, name, *version)?,
            Asked::Tables(versions) => {
                let version = versions.get(name).copied();
                let known = || versions.iter().map(|(name, v)| format!("{name}={v}")).collect::<Vec<_>>().join(", ");
                let version = version.ok_or_else(|| {
                    StoreError::Request(format!("no version is given for table {name}; given are {}", known()))
                })?;
                version_of(&directory, name, version)?
            }
        };
        let files = reader.data_files()?;
        Ok(Table { name: name.to_owned(), reader, files })
    }

    /// Which version this is.
    pub fn version(&self) -> TableVersion {
        let committed = self.reader.committed().map(format_time);
        TableVersion { table: self.name.clone(), version: self.reader.version(), committed }
    }

    /// A column.
    pub fn field(&self, name: &str) -> Result<&Field, StoreError> {
        self.reader.schema().field_with_name(name).map_err(|_| {
            let names: Vec<&str> = self.payload().map(|f| f.name().as_str()).collect();
            StoreError::Request(format!("table {} has no column `{name}`; it has {}", self.name, names.join(", ")))
        })
    }

    /// The columns behind the system's.
    pub fn payload(&self) -> impl Iterator<Item = &Field> {
        let fields = self.reader.schema().fields().iter().map(|f| f.as_ref());
        fields.filter(|f| !SYSTEM_COLUMNS.contains(&f.name().as_str()))
    }

    /// Types of some columns.
    pub fn types(&self, columns: &[String]) -> Result<Vec<DataType>, StoreError> {
        columns.iter().map(|column| Ok(self.field(column)?.data_type().clone())).collect()
    }

    /// A schema of some columns.
    pub fn schema_of(&self, columns: &[&str]) -> Result<SchemaRef, StoreError> {
        let fields = columns.iter().map(|c| self.field(c).cloned()).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Rows of all files, as their footers tell.
    pub fn rows(&self) -> Result<u64, StoreError> {
        let mut rows = 0;
        for file in &self.files {
            rows += self.open_file(file, false)?.rows();
        }
        Ok(rows)
    }

    /// The newest event time in the table.
    pub fn newest_time(&self) -> Result<Option<EventTime>, StoreError> {
        let Some(date) = self.files.last().map(|file| file.date.as_str()) else { return Ok(None) };
        let mut newest = None;
        for file in self.files.iter().rev().take_while(|file| file.date == date) {
            let open = self.open_file(file, false)?;
            for group in 0..open.groups() {
                if let Some((_, most)) = open.span_of(group) {
                    newest = newest.max(Some(most));
                    continue;
                }
                // A file of another writer, without statistics.
                let schema = self.schema_of(&[EVENT_TIME])?;
                for batch in open.reader(&schema)?.with_row_groups(vec![group]).build().map_err(open.wrong())? {
                    let batch = batch.map_err(StoreError::arrow(file.path.display().to_string()))?;
                    newest = newest.max(times_of(&batch, &file.path)?.iter().copied().max());
                }
            }
        }
        Ok(newest)
    }

    /// Offers the table's rows with times in `reach` to probes of its columns `keys`.
    pub fn search(
        &self,
        keys: &[String],
        probes: &Probes,
        reach: (EventTime, EventTime),
        progress: &Progress,
    ) -> Result<Best, StoreError> {
        let schema = self.schema_of(&keys.iter().map(String::as_str).chain([EVENT_TIME]).collect::<Vec<_>>())?;
        let results = self.in_parallel(
            &self.stripes()?,
            || probes.best(),
            |best, stripe| {
                let mut groups = Vec::new();
                self.scan(stripe, &schema, reach, progress, &mut |first, batch, path| {
                    probes.index.find(&batch.columns()[..keys.len()], &mut groups)?;
                    for ((row, time), group) in (first..).zip(times_of(batch, path)?).zip(&groups) {
                        if *group != NO_GROUP && (reach.0..=reach.1).contains(time) {
                            best.offer(probes, *group, *time, (stripe.file, row));
                        }
                    }
                    Ok(())
                })
            },
        )?;
        Ok(results
            .into_iter()
            .reduce(|mut all, one| {
                all.merge(one);
                all
            })
            .unwrap_or_else(|| probes.best()))
    }

    /// Hands all rows, with some columns, to `take`, in an order of files and rows that is the same each time for the same
    /// files.
    pub fn each(
        &self,
        columns: &[&str],
        progress: &Progress,
        take: &mut dyn FnMut(RecordBatch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let schema = self.schema_of(columns)?;
        for file in 0..self.files.len() as u32 {
            let stripe = Stripe { file, part: 0, of: 1 };
            let whole = (EventTime::MIN, EventTime::MAX);
            self.scan(&stripe, &schema, whole, progress, &mut |_, batch, _| take(batch.clone()))?;
        }
        Ok(())
    }

    /// Reads the batches of a stripe's row groups that may have times in `reach`; `take` is told the number of the first row.
    fn scan(
        &self,
        stripe: &Stripe,
        schema: &SchemaRef,
        reach: (EventTime, EventTime),
        progress: &Progress,
        take: &mut dyn FnMut(u32, &RecordBatch, &Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let file = &self.files[stripe.file as usize];
        let open = self.open_file(file, false)?;
        let of_stripe = stripe.groups(open.groups());
        let mut first = 0u32;
        for group in 0..open.groups() {
            let rows = open.rows_of(group);
            let may_hold = open.span_of(group).is_none_or(|(least, most)| least <= reach.1 && most >= reach.0);
            if of_stripe.contains(&group) && !may_hold {
                progress.add(u64::from(rows))?;
            } else if of_stripe.contains(&group) {
                let reader = open.reader(schema)?.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS);
                let mut at = first;
                for batch in reader.build().map_err(open.wrong())? {
                    let batch = batch.and_then(|batch| shaped(&batch, schema));
                    let batch = batch.map_err(StoreError::arrow(file.path.display().to_string()))?;
                    take(at, &batch, &file.path)?;
                    at += batch.num_rows() as u32;
                    progress.add(batch.num_rows() as u64)?;
                }
            }
            first = first.checked_add(rows).ok_or_else(|| {
                StoreError::Request(format!("{} has more rows than can be numbered", file.path.display()))
            })?;
        }
        Ok(())
    }

    /// Some rows, in the order of `rows`, which are sorted and distinct.
    pub fn fetch(&self, rows: &[At], columns: &[&str], progress: &Progress) -> Result<Fetched, StoreError> {
        let schema = self.schema_of(columns)?;
        let stripes = self.stripes()?;
        let parts = self.in_parallel(&stripes, Vec::new, |parts: &mut Vec<(Stripe, Vec<RecordBatch>)>, stripe| {
            let own = &rows[rows.partition_point(|r| r.0 < stripe.file)..rows.partition_point(|r| r.0 <= stripe.file)];
            if !own.is_empty() {
                parts.push((*stripe, self.fetch_stripe(stripe, own, &schema, progress)?));
            }
            Ok(())
        })?;
        let mut parts: Vec<(Stripe, Vec<RecordBatch>)> = parts.into_iter().flatten().collect();
        parts.sort_by_key(|(stripe, _)| (stripe.file, stripe.part));
        let batches: Vec<RecordBatch> = parts.into_iter().flat_map(|(_, batches)| batches).collect();
        let mut places = Vec::with_capacity(rows.len());
        for (number, batch) in batches.iter().enumerate() {
            places.extend((0..batch.num_rows()).map(|row| (number as u32, row as u32)));
        }
        if places.len() != rows.len() {
            let reason = format!("{} rows were read of {} that are there", places.len(), rows.len());
            return Err(StoreError::Shape { what: format!("table {}", self.name), reason });
        }
        Ok(Fetched { batches, places, schema })
    }

    /// The rows `own` of a file as far as they are in a stripe of it.
    fn fetch_stripe(
        &self,
        stripe: &Stripe,
        own: &[At],
        schema: &SchemaRef,
        progress: &Progress,
    ) -> Result<Vec<RecordBatch>, StoreError> {
        let file = &self.files[stripe.file as usize];
        let open = self.open_file(file, true)?;
        let (mut first, mut groups, mut ranges, mut before): (u32, Vec<usize>, Vec<Range<usize>>, usize) =
            Default::default();
        let of_stripe = stripe.groups(open.groups());
        for group in 0..open.groups() {
            let rows = open.rows_of(group);
            let here = &own[own.partition_point(|r| r.1 < first)..own.partition_point(|r| r.1 < first + rows)];
            if of_stripe.contains(&group) && !here.is_empty() {
                groups.push(group);
                for (_, row) in here {
                    let at = before + (row - first) as usize;
                    match ranges.last_mut() {
                        Some(range) if range.end == at => range.end += 1,
                        _ => ranges.push(at..at + 1),
                    }
                }
                before += rows as usize;
            }
            first += rows;
        }
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), before);
        let reader = open
            .reader(schema)?
            .with_row_groups(groups)
            .with_row_selection(selection)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(open.wrong())?;
        let mut batches = Vec::new();
        for batch in reader {
            let batch = batch.and_then(|batch| shaped(&batch, schema));
            let batch = batch.map_err(StoreError::arrow(file.path.display().to_string()))?;
            progress.add(batch.num_rows() as u64)?;
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Does `work` for all stripes on a few threads; what each thread has made.
    fn in_parallel<T: Send>(
        &self,
        stripes: &[Stripe],
        begin: impl Fn() -> T + Sync,
        work: impl Fn(&mut T, &Stripe) -> Result<(), StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(THREADS_MAX).min(stripes.len());
        let next = AtomicUsize::new(0);
        let run = || -> Result<T, StoreError> {
            let mut made = begin();
            while let Some(stripe) = stripes.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = work(&mut made, stripe) {
                    next.store(stripes.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(made)
        };
        if threads <= 1 {
            return Ok(vec![run()?]);
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mut made = vec![run()];
            for other in others {
                made.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            made.into_iter().collect()
        })
    }

    /// The files in pieces that take about as long.
    fn stripes(&self) -> Result<Vec<Stripe>, StoreError> {
        let mut stripes = Vec::with_capacity(self.files.len());
        for (number, file) in (0u32..).zip(&self.files) {
            let bytes = std::fs::metadata(&file.path).map_err(|error| self.gone(file, error))?.len();
            let of = bytes.div_ceil(STRIPE_BYTES).max(1) as usize;
            stripes.extend((0..of).map(|part| Stripe { file: number, part, of }));
        }
        Ok(stripes)
    }

    fn open_file<'a>(&self, file: &'a DataFile, pages: bool) -> Result<Opened<'a>, StoreError> {
        let opened = File::open(&file.path).map_err(|error| self.gone(file, error))?;
        let policy = if pages { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new().with_offset_index_policy(policy);
        let metadata = ArrowReaderMetadata::load(&opened, options).map_err(StoreError::parquet(&file.path))?;
        Ok(Opened { path: &file.path, file: opened, metadata })
    }

    fn gone(&self, file: &DataFile, error: std::io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::NotFound => StoreError::Request(format!(
                "version {} of table {} needs {}, which is gone: a vacuum has deleted it; ask for a newer version, and keep files longer (vacuum_after) where old versions are to be read",
                self.reader.version(),
                self.name,
                file.path.display()
            )),
            _ => StoreError::io("open", &file.path)(error),
        }
    }
}

fn version_of(directory: &Path, name: &str, version: u64) -> Result<TableReader, StoreError> {
    let newest = TableReader::open(directory, None)?;
    if version > newest.version() {
        return Err(StoreError::Request(format!(
            "table {name} has no version {version}; its newest is {}",
            newest.version()
        )));
    }
    TableReader::open(directory, Some(version))
}

/// A part of a file: its row groups in `of` equal pieces.
#[derive(Clone, Copy)]
struct Stripe {
    file: u32,
    part: usize,
    of: usize,
}

impl Stripe {
    fn groups(&self, count: usize) -> Range<usize> {
        count * self.part / self.of..count * (self.part + 1) / self.of
    }
}

/// Rows that were fetched.
pub(super) struct Fetched {
    /// In the order of the rows asked for.
    pub batches: Vec<RecordBatch>,
    /// Per row asked for, its batch and its row in there.
    pub places: Vec<(u32, u32)>,
    /// Columns of the batches.
    pub schema: SchemaRef,
}

/// An open data file with its footer.
struct Opened<'a> {
    path: &'a Path,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl Opened<'_> {
    fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows().max(0) as u64
    }

    fn rows_of(&self, group: usize) -> u32 {
        self.metadata.metadata().row_group(group).num_rows().max(0) as u32
    }

    /// Least and greatest event time of a row group, where its statistics say.
    fn span_of(&self, group: usize) -> Option<(EventTime, EventTime)> {
        let columns = self.metadata.metadata().row_group(group).columns();
        let column = columns.iter().find(|column| column.column_path().string() == EVENT_TIME)?;
        match column.statistics()? {
            Statistics::Int64(bounds) => Some((*bounds.min_opt()?, *bounds.max_opt()?)),
            _ => None,
        }
    }

    /// A reader of those columns of `schema` that the file has.
    fn reader(&self, schema: &SchemaRef) -> Result<ParquetRecordBatchReaderBuilder<File>, StoreError> {
        let file = self.file.try_clone().map_err(StoreError::io("open", self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let fields = builder.schema().fields();
        let roots: Vec<usize> =
            (0..fields.len()).filter(|i| schema.column_with_name(fields[*i].name()).is_some()).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        Ok(builder.with_projection(mask))
    }

    fn wrong(&self) -> impl FnOnce(ParquetError) -> StoreError {
        StoreError::parquet(self.path)
    }
}

/// The event times of a batch; its last column or by name.
fn times_of<'a>(batch: &'a RecordBatch, path: &Path) -> Result<&'a [EventTime], StoreError> {
    let times = batch.column_by_name(EVENT_TIME).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    times.map(|times| times.values().as_ref()).ok_or_else(|| StoreError::Shape {
        what: path.display().to_string(),
        reason: format!("`{EVENT_TIME}` is not there, or is no {}", utc()),
    })
}

/// A file's batch with the columns of `schema`: nulls where the file is older than a column.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &rows)
}

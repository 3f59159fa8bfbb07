//! Parts: finished Parquet files that wait for a commit.
//!
//! Encodings, by measurement: no dictionaries except for text and constants, byte-stream split for floats, deltas for
//! integers and times, zstd level 1 over all.

use std::fs::{self, File};
use std::io::BufWriter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use delta_kernel::engine::arrow_conversion::TryIntoKernel;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::base::wall_clock;
use crate::store::StoreError;

/// A finished Parquet file of one event date, on disk but named by no commit yet. Any worker may write it, any worker may
/// commit it; it survives serialisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Path below the table's directory, `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// When it was written, milliseconds since 1970.
    pub modified_ms: i64,
    /// Event date of its rows, `YYYY-MM-DD`.
    pub event_date: String,
    /// Delta statistics as JSON: row count, and smallest, largest and nulls of event time, tick and entity.
    pub stats: String,
    /// Where the file waits for its commit, as a path below the offline store's directory with `/` between its parts; none
    /// when it lies in the table already.
    #[serde(default)]
    pub staged: Option<String>,
}

/// Rows per row group: small enough that a point read decodes little, large enough to compress.
pub(in crate::store) const ROW_GROUP_ROWS: usize = 1 << 17;

/// Where parts are written.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Directory that the date's directories are in: the table's, or one of an outbox.
    pub directory: PathBuf,
    /// Path of an outbox's directory below the offline store's, which goes before [`Part::path`] in [`Part::staged`].
    pub staged: Option<String>,
}

/// What the files of a table look like.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Name of the table, for errors.
    pub table: String,
    /// The columns as they come: those of the files; text may be a dictionary.
    pub schema: SchemaRef,
    /// Columns that rows are sorted by, before event time.
    pub sort_by: Vec<String>,
    /// Columns with statistics in the Delta log.
    pub stats: Vec<String>,
}

/// Writes parts of one table.
pub(super) struct PartWriter {
    place: Place,
    layout: Layout,
    worker: usize,
    properties: WriterProperties,
    stats_columns: Vec<ColumnName>,
    stats_fields: SchemaRef,
    stats_schema: StructType,
}

impl PartWriter {
    /// A writer of parts that look like `layout` to `place`.
    pub fn new(place: Place, layout: Layout, worker: usize) -> Result<Self, StoreError> {
        let fields = layout.schema.fields().iter();
        let stats_fields: Vec<_> = fields.filter(|f| layout.stats.contains(f.name())).cloned().collect();
        let stats_fields = Arc::new(Schema::new(stats_fields));
        Ok(PartWriter {
            place,
            worker,
            properties: properties(&layout.schema, &layout.sort_by),
            stats_columns: stats_fields.fields().iter().map(|f| ColumnName::new([f.name()])).collect(),
            stats_schema: stats_fields.as_ref().try_into_kernel().map_err(StoreError::arrow(&layout.table))?,
            stats_fields,
            layout,
        })
    }

    /// Writes one part of `rows` rows, whose columns `columns` hands out in pieces. On return its bytes are with the
    /// operating system, under a hidden name; [`publish`] makes them last.
    ///
    /// Encodes column by column over all row groups, so that the pieces of one column, not of all, must be at hand.
    pub fn write(&self, date: i32, rows: usize, columns: &mut dyn Columns) -> Result<Unsynced, StoreError> {
        let mut part = self.begin(&format_date(date))?;
        part.all_columns(rows, columns)?;
        part.finish()
    }

    /// Begins a part of one event date, to be written row group by row group.
    pub fn begin(&self, event_date: &str) -> Result<OpenPart<'_>, StoreError> {
        let directory = self.place.directory.join(format!("event_date={event_date}"));
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        let name = format!("part-{:05}-{}.zstd.parquet", self.worker, unique());
        let (hidden, path) = (Hidden(directory.join(format!(".{name}.tmp"))), directory.join(&name));
        let file = File::create_new(&hidden.0).map_err(StoreError::io("create", &hidden.0))?;
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let buffered = BufWriter::with_capacity(1 << 20, file);
        let (writer, groups) = ArrowWriter::try_new_with_options(buffered, self.layout.schema.clone(), options)
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(StoreError::parquet(&hidden.0))?;
        Ok(OpenPart {
            stats: Stats::new(self),
            of: self,
            event_date: event_date.to_owned(),
            name,
            hidden,
            path,
            writer,
            groups,
            written: 0,
            rows: 0,
        })
    }
}

/// A part that is being written.
pub(super) struct OpenPart<'a> {
    of: &'a PartWriter,
    event_date: String,
    name: String,
    hidden: Hidden,
    path: PathBuf,
    writer: SerializedFileWriter<BufWriter<File>>,
    groups: ArrowRowGroupWriterFactory,
    /// Row groups in the file so far.
    written: usize,
    rows: usize,
    stats: Stats<'a>,
}

impl OpenPart<'_> {
    fn all_columns(&mut self, rows: usize, columns: &mut dyn Columns) -> Result<(), StoreError> {
        let wrong = || StoreError::parquet(&self.hidden.0);
        let pieces: Vec<Range<usize>> =
            (0..rows).step_by(ROW_GROUP_ROWS).map(|start| start..rows.min(start + ROW_GROUP_ROWS)).collect();
        let mut encoders = (0..pieces.len())
            .map(|group| self.groups.create_column_writers(self.written + group).map(Vec::into_iter))
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong())?;
        let mut encoded: Vec<Vec<ArrowColumnChunk>> = pieces.iter().map(|_| Vec::new()).collect();
        for (i, field) in self.of.layout.schema.fields().iter().enumerate() {
            for (group, piece) in pieces.iter().enumerate() {
                let column = columns.piece(i, piece.clone())?;
                self.stats.take(i, group, &column)?;
                let mut encoder = encoders[group].next().expect("table columns are flat: one encoder each");
                for leaf in compute_leaves(field, &column).map_err(wrong())? {
                    encoder.write(&leaf).map_err(wrong())?;
                }
                encoded[group].push(encoder.close().map_err(wrong())?);
            }
        }
        for chunks in encoded {
            let mut group = self.writer.next_row_group().map_err(wrong())?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut group).map_err(wrong())?;
            }
            group.close().map_err(wrong())?;
            self.written += 1;
        }
        self.rows += rows;
        Ok(())
    }

    /// Appends rows, at most [`ROW_GROUP_ROWS`] of them, as a row group of their own.
    pub fn row_group(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.all_columns(batch.num_rows(), &mut Whole(batch))
    }

    /// Ends the part, which must have rows. On return its bytes are with the operating system, under a hidden name;
    /// [`publish`] makes them last.
    pub fn finish(self) -> Result<Unsynced, StoreError> {
        let OpenPart { of, event_date, name, hidden, path, writer, rows, stats, .. } = self;
        let buffered = writer.into_inner().map_err(StoreError::parquet(&hidden.0))?;
        let file = buffered.into_inner().map_err(|e| StoreError::io("write", &hidden.0)(e.into_error()))?;
        let size = file.metadata().map_err(StoreError::io("inspect", &hidden.0))?.len();
        let below = format!("event_date={event_date}/{name}");
        let part = Part {
            staged: of.place.staged.as_ref().map(|directory| format!("{directory}/{below}")),
            path: below,
            size,
            rows: rows as u64,
            modified_ms: now_ms(),
            event_date,
            stats: stats.finish()?,
        };
        Ok(Unsynced { file, hidden, path, part })
    }
}

/// A batch as the columns of a row group.
struct Whole<'a>(&'a RecordBatch);

impl Columns for Whole<'_> {
    fn piece(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef, StoreError> {
        Ok(self.0.column(column).slice(rows.start, rows.len()))
    }
}

/// Hands out the columns of a part.
pub(super) trait Columns {
    /// Rows `rows` of the part's column `column`.
    fn piece(&mut self, column: usize, rows: Range<usize>) -> Result<ArrayRef, StoreError>;
}

/// Gathers Delta statistics of a part.
struct Stats<'a> {
    writer: &'a PartWriter,
    /// Column numbers of the statistics columns.
    columns: Vec<usize>,
    /// Per row group at hand, the statistics columns so far.
    groups: Vec<Vec<ArrayRef>>,
    accumulator: FileStatsAccumulator,
}

impl<'a> Stats<'a> {
    fn new(writer: &'a PartWriter) -> Self {
        let names = writer.stats_fields.fields().iter();
        let columns = names.map(|f| writer.layout.schema.index_of(f.name()).expect("a column of the table")).collect();
        let accumulator = FileStatsAccumulator::new(&writer.stats_columns, &writer.stats_schema);
        Stats { writer, columns, groups: Vec::new(), accumulator }
    }

    fn take(&mut self, column: usize, group: usize, piece: &ArrayRef) -> Result<(), StoreError> {
        if !self.columns.contains(&column) {
            return Ok(());
        }
        self.groups.resize_with(self.groups.len().max(group + 1), Vec::new);
        self.groups[group].push(piece.clone());
        if self.groups[group].len() == self.columns.len() {
            let name = self.writer.layout.table.as_str();
            let columns = std::mem::take(&mut self.groups[group]);
            let batch =
                RecordBatch::try_new(self.writer.stats_fields.clone(), columns).map_err(StoreError::arrow(name))?;
            self.accumulator.merge(&batch).map_err(StoreError::delta(name))?;
        }
        Ok(())
    }

    /// The statistics as JSON.
    fn finish(self) -> Result<String, StoreError> {
        let name = self.writer.layout.table.as_str();
        let stats: StructArray = self
            .accumulator
            .finish()
            .map_err(StoreError::delta(name))?
            .ok_or_else(|| StoreError::Shape { what: format!("table {name}"), reason: "a part without rows".into() })?;
        let mut text = Vec::new();
        let mut json = arrow::json::LineDelimitedWriter::new(&mut text);
        json.write(&RecordBatch::from(stats)).map_err(StoreError::arrow(name))?;
        json.finish().map_err(StoreError::arrow(name))?;
        drop(json);
        let text = String::from_utf8(text).expect("json is utf-8");
        Ok(text.trim_end().to_string())
    }
}

/// A part whose bytes may still be in the page cache.
pub(super) struct Unsynced {
    file: File,
    hidden: Hidden,
    path: PathBuf,
    part: Part,
}

/// A file that no one knows yet; removed when dropped.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        // After `publish` there is none of that name.
        let _ = fs::remove_file(&self.0);
    }
}

/// Forces parts to disk and gives them their names. One call for many parts costs little more than for one, as the file
/// system's journal is shared. `place` is the directory that the dates' directories are in.
pub(super) fn publish(place: &Path, unsynced: Vec<Unsynced>) -> Result<Vec<Part>, StoreError> {
    let mut directories = Vec::new();
    let mut parts = Vec::with_capacity(unsynced.len());
    for Unsynced { file, hidden, path, part } in unsynced {
        file.sync_all().map_err(StoreError::io("sync", &hidden.0))?;
        fs::rename(&hidden.0, &path).map_err(StoreError::io("rename", &hidden.0))?;
        let directory = path.parent().unwrap_or(place).to_path_buf();
        if !directories.contains(&directory) {
            directories.push(directory);
        }
        parts.push(part);
    }
    if !directories.is_empty() {
        directories.push(place.to_path_buf());
    }
    for directory in directories {
        sync_directory(&directory)?;
    }
    Ok(parts)
}

/// Forces a directory's entries to disk.
pub(in crate::store) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", path))
}

/// Forces the names of a directory and of those above it, up to the store's root, to disk.
pub(super) fn sync_parents(root: &Path, directory: &Path) -> Result<(), StoreError> {
    let mut at: PathBuf = directory.to_path_buf();
    loop {
        sync_directory(&at)?;
        if at == root || !at.pop() || at.as_os_str().is_empty() {
            return Ok(());
        }
    }
}

/// How each column is encoded.
pub(in crate::store) fn properties(schema: &SchemaRef, sort_by: &[String]) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for field in schema.fields() {
        let column = ColumnPath::new(vec![field.name().clone()]);
        if field.name() == "event_time" || sort_by.contains(field.name()) {
            builder = builder.set_column_statistics_enabled(column.clone(), EnabledStatistics::Page);
        }
        builder = match (field.name().as_str(), field.data_type()) {
            ("_partition" | "_job_version" | "_tick", _) => builder.set_column_dictionary_enabled(column, true),
            (_, DataType::Utf8 | DataType::Dictionary(..) | DataType::Decimal128(..)) => {
                builder.set_column_dictionary_enabled(column, true)
            }
            (_, DataType::Float32 | DataType::Float64) => {
                builder.set_column_encoding(column, Encoding::BYTE_STREAM_SPLIT)
            }
            (
                _,
                DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::Date32
                | DataType::Timestamp(..),
            ) => builder.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED),
            _ => builder,
        };
    }
    builder.build()
}

/// `YYYY-MM-DD`.
pub(super) fn format_date(date: i32) -> String {
    match arrow::temporal_conversions::date32_to_datetime(date) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        // Beyond the calendar; ingest turns such times away, and the table must not fail for one.
        None => if date < 0 { "-9999-01-01" } else { "9999-12-31" }.to_string(),
    }
}

pub(super) fn now_ms() -> i64 {
    wall_clock() / 1_000
}

/// 32 hex digits that no other process and no other call makes: 128-bit hash of time, process, a counter and a stack address.
pub(in crate::store) fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let seed = format!("{nanos}/{}/{count}/{:p}", std::process::id(), &count);
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(seed.as_bytes()))
}

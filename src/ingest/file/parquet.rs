//! Parquet: reads the needed columns of one file, row group by row group.
//!
//! Offsets are row numbers. Rows are decoded in blocks on a grid that begins anew with each row group, so that the rows
//! lost to damage are the same whatever `rows_max` was and wherever reading was resumed: from the first block that cannot
//! be decoded to the end of its row group. The lost rows keep their offsets and leave one dead letter.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;

use super::RawReader;
use crate::ingest::IngestError;
use crate::ingest::dead_letter::DeadLetterKind;
use crate::ingest::decode::normalise::{converts, normalise};
use crate::ingest::decode::{Failure, Offsets, Originals, RawChunk};
use crate::ingest::shield::shielded;

/// Rows decoded at a time: large enough that the cost per column vanishes, small enough that a block stays in the cache.
const BLOCK_ROWS: usize = 8_192;

/// Offsets have 40 bits.
const ROWS_MAX: u64 = 1 << 40;

/// One Parquet file.
pub(crate) struct ParquetReader {
    source: String,
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    projection: ProjectionMask,
    /// For each field of `schema`, its place among the projected columns.
    places: Vec<usize>,
    /// Row group being read, and what of it has been decoded or given up.
    group: usize,
    group_row: usize,
    open: Option<ParquetRecordBatchReader>,
    /// Decoded rows that nobody has asked for yet.
    pending: RecordBatch,
    /// Rows at the present offset that are lost, still to be stepped over.
    lost: usize,
    offset: u64,
    failed: Vec<Failure>,
}

impl ParquetReader {
    /// Opens the file to read the fields of `schema` from row `offset` on.
    ///
    /// # Errors
    /// When the file cannot be opened, is no Parquet file, or lacks a column or has it in a type that does not convert.
    pub(crate) fn open(source: &str, path: &Path, schema: &SchemaRef, offset: u64) -> Result<Self, IngestError> {
        let open_error = |error| IngestError::Open { source_name: source.into(), path: path.into(), error };
        let file = File::open(path).map_err(open_error)?;
        let metadata = load_metadata(&file).and_then(counted).map_err(|what| {
            let mend = "write the file again, or take it out of `path`";
            IngestError::file(source, path, what, mend)
        })?;
        let (projection, places) = project(&metadata, schema)
            .map_err(|what| IngestError::file(source, path, what, "run `tidemill check` against the present files"))?;

        let mut reader = ParquetReader {
            source: source.into(),
            path: path.into(),
            file,
            metadata,
            schema: schema.clone(),
            projection,
            places,
            group: 0,
            group_row: 0,
            open: None,
            pending: RecordBatch::new_empty(schema.clone()),
            lost: 0,
            offset: 0,
            failed: Vec::new(),
        };
        reader.seek(offset)?;
        Ok(reader)
    }

    /// Goes to a row: over whole row groups by their counts, then by decoding, since whether a row is lost depends on all
    /// blocks before it in its group.
    fn seek(&mut self, offset: u64) -> Result<(), IngestError> {
        while self.group < self.groups() && offset - self.offset >= self.group_rows() as u64 {
            self.offset += self.group_rows() as u64;
            self.group += 1;
        }
        while self.offset < offset {
            let Some(step) = self.step((offset - self.offset) as usize)? else {
                break;
            };
            self.pending = self.pending.slice(step.kept, self.pending.num_rows() - step.kept);
        }
        self.offset = offset;
        // What was lost before this offset was told before this offset.
        self.failed.clear();
        Ok(())
    }

    /// Goes on by up to `rows` rows that are all decoded or all lost; `None` at the end. The decoded ones are the first of
    /// `pending` and are for the caller to take.
    fn step(&mut self, rows: usize) -> Result<Option<Step>, IngestError> {
        if self.pending.num_rows() == 0 && self.lost == 0 && !self.next_block()? {
            return Ok(None);
        }
        let first = self.offset;
        let kept = rows.min(self.pending.num_rows());
        let lost = if kept == 0 { rows.min(self.lost) } else { 0 };
        self.lost -= lost;
        self.offset += (kept + lost) as u64;
        Ok(Some(Step { first, kept, lost }))
    }

    fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn group_rows(&self) -> usize {
        self.metadata.metadata().row_group(self.group).num_rows().max(0) as usize
    }

    /// Decodes the next block into `pending`, or finds rows `lost`; false at the end.
    fn next_block(&mut self) -> Result<bool, IngestError> {
        while self.group < self.groups() {
            let decoded = shielded(|| self.decode()).unwrap_or_else(|panic| Err(panic.to_string()));
            match decoded {
                Ok(Some(block)) => {
                    self.group_row += block.num_rows();
                    self.pending = block;
                    return Ok(true);
                }
                Ok(None) if self.group_row >= self.group_rows() => self.next_group(),
                Ok(None) => self.lose_group("it holds fewer rows than it says"),
                Err(what) => {
                    self.probe()?;
                    self.lose_group(&what);
                }
            }
            if self.lost > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_group(&mut self) {
        self.group += 1;
        self.group_row = 0;
        self.open = None;
    }

    /// Gives up the rest of the row group.
    fn lose_group(&mut self, what: &str) {
        let rows = self.group_rows() - self.group_row.min(self.group_rows());
        if rows == 0 {
            return self.next_group();
        }
        let last = self.offset + rows as u64 - 1;
        self.failed.push(Failure {
            offset: self.offset,
            kind: DeadLetterKind::CorruptBlock,
            reason: format!(
                "row group {} of {} is damaged; rows {} to {last} are lost: {what}",
                self.group,
                self.path.display(),
                self.offset
            ),
            original: Vec::new(),
        });
        self.lost = rows;
        self.next_group();
    }

    /// Decodes one block of the present row group; `None` at its end.
    fn decode(&mut self) -> Result<Option<RecordBatch>, String> {
        let say = |e: ArrowError| e.to_string();
        if self.open.is_none() {
            let file = self.file.try_clone().map_err(|e| e.to_string())?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_row_groups(vec![self.group])
                .with_projection(self.projection.clone())
                .with_batch_size(BLOCK_ROWS);
            self.open = Some(builder.build().map_err(|e: ParquetError| e.to_string())?);
        }
        let Some(block) = self.open.as_mut().expect("opened above").next().transpose().map_err(say)? else {
            return Ok(None);
        };
        let columns: Result<Vec<_>, ArrowError> = (self.places.iter().zip(self.schema.fields()))
            .map(|(place, field)| normalise(block.column(*place), field))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(block.num_rows()));
        // Nulls in required columns are for the checks to find, so the batch itself promises nothing.
        RecordBatch::try_new_with_options(nullable(&self.schema), columns.map_err(say)?, &options)
            .map(Some)
            .map_err(say)
    }

    /// Tells damage from a disk that does not answer: reads the row group's bytes again.
    fn probe(&mut self) -> Result<(), IngestError> {
        let read = |file: &mut File, start: u64, length: u64| -> io::Result<()> {
            file.seek(SeekFrom::Start(start))?;
            io::copy(&mut file.take(length), &mut io::sink()).map(drop)
        };
        for column in self.metadata.metadata().row_group(self.group).columns() {
            // A damaged footer may give a place that is none.
            let Ok((start, length)) = shielded(|| column.byte_range()) else {
                continue;
            };
            read(&mut self.file, start, length).map_err(|error| IngestError::Read {
                source_name: self.source.clone(),
                path: self.path.clone(),
                error,
            })?;
        }
        Ok(())
    }
}

/// A stretch of rows: decoded ones, or lost ones.
struct Step {
    first: u64,
    kept: usize,
    lost: usize,
}

impl RawReader for ParquetReader {
    fn read(&mut self, rows_max: usize) -> Result<Option<RawChunk>, IngestError> {
        let mut parts: Vec<RecordBatch> = Vec::with_capacity(2);
        let mut runs: Vec<(u64, usize)> = Vec::with_capacity(2);
        let mut need = rows_max;
        while need > 0 {
            let Some(step) = self.step(need)? else { break };
            if step.kept > 0 {
                parts.push(self.pending.slice(0, step.kept));
                runs.push((step.first, step.kept));
                self.pending = self.pending.slice(step.kept, self.pending.num_rows() - step.kept);
            }
            need -= step.kept + step.lost;
        }
        if need == rows_max {
            return Ok(None);
        }
        let batch = match parts.len() {
            1 => parts.remove(0),
            _ => concat_batches(&nullable(&self.schema), &parts).map_err(|e| IngestError::internal(&self.source, e))?,
        };
        Ok(Some(RawChunk {
            batch,
            offsets: offsets(&runs),
            originals: Originals::Columns,
            failed: std::mem::take(&mut self.failed),
            blank: 0,
            rows: (rows_max - need) as u64,
            next_offset: self.offset,
        }))
    }
}

/// Offsets of rows that were taken in runs of (first offset, rows).
fn offsets(runs: &[(u64, usize)]) -> Offsets {
    let dense = runs.windows(2).all(|w| w[0].0 + w[0].1 as u64 == w[1].0);
    match runs.first() {
        Some((first, _)) if dense => Offsets::From(*first),
        _ => Offsets::List(runs.iter().flat_map(|(first, rows)| (*first..).take(*rows)).collect()),
    }
}

/// The same fields, each of which may be null.
pub(crate) fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

/// Reads a file's footer. INT96 times are read as microseconds, because nanoseconds reach from 1677 to 2262 only.
///
/// # Errors
/// A sentence when the footer is not Parquet's.
pub(crate) fn load_metadata(file: &File) -> Result<ArrowReaderMetadata, String> {
    let say = |e: ParquetError| format!("it is not a whole Parquet file: {e}");
    let load = || -> Result<ArrowReaderMetadata, ParquetError> {
        let options = ArrowReaderOptions::new();
        let metadata = ArrowReaderMetadata::load(file, options.clone())?;
        let descriptor = metadata.parquet_schema();
        let legacy = |root: usize| {
            (descriptor.columns().iter().enumerate()).any(|(leaf, c)| {
                c.physical_type() == PhysicalType::INT96 && descriptor.get_column_root_idx(leaf) == root
            })
        };
        let fields = metadata.schema().fields();
        if !(0..fields.len()).any(legacy) {
            return Ok(metadata);
        }
        let hinted = fields.iter().enumerate().map(|(root, field)| match field.data_type() {
            DataType::Timestamp(_, zone) if legacy(root) => {
                field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
            }
            _ => field.as_ref().clone(),
        });
        let hinted = Arc::new(Schema::new(hinted.collect::<Vec<_>>()));
        ArrowReaderMetadata::try_new(metadata.metadata().clone(), options.with_schema(hinted))
    };
    shielded(load).map_err(|panic| format!("it is not a whole Parquet file: {panic}"))?.map_err(say)
}

/// Refuses a footer whose numbers of rows cannot be: offsets are built on them.
fn counted(metadata: ArrowReaderMetadata) -> Result<ArrowReaderMetadata, String> {
    let mut groups = metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
    let rows = groups.try_fold(0u64, |sum, rows| sum.checked_add(rows?));
    let said = u64::try_from(metadata.metadata().file_metadata().num_rows()).ok();
    if rows.is_none() || rows != said || rows > Some(ROWS_MAX) {
        return Err("it is not a whole Parquet file: its footer contradicts itself on the number of rows".into());
    }
    Ok(metadata)
}

/// The file's columns to read for `schema`, and the place of each field among them.
fn project(metadata: &ArrowReaderMetadata, schema: &Schema) -> Result<(ProjectionMask, Vec<usize>), String> {
    let file = metadata.schema();
    let mut roots = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let (root, found) =
            file.column_with_name(field.name()).ok_or_else(|| format!("it has no column `{}`", field.name()))?;
        if !converts(found.data_type(), field) {
            let (name, is, wanted) = (field.name(), found.data_type(), field.data_type());
            return Err(format!("its column `{name}` is {is}, which does not become the source's {wanted}"));
        }
        roots.push(root);
    }
    let mut sorted = roots.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let places = roots.iter().map(|root| sorted.binary_search(root).expect("sorted holds every root")).collect();
    Ok((ProjectionMask::roots(metadata.parquet_schema(), sorted), places))
}

//! The threads that score files, and the order in which what they made is written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::error::FilesError;
use super::plan::{MADE_OF, Planned, footer, plain, plan};
use super::{Input, Options, Progress, Report};
use crate::score::Scorer;

/// Rows that are scored together.
const BATCH: usize = 8192;

/// Name of the file that keeps others from writing into the same directory.
const LOCK: &str = ".tidemill-score.lock";

/// Scores files.
///
/// # Errors
/// Before anything is written: a file that cannot be read, whose columns do not fit the model, or whose output is there and was
/// made otherwise. Later: what cannot be read or written. Outputs that are whole by then stay; no other is left behind.
pub fn run(inputs: &[Input], options: &Options, progress: &Progress) -> Result<Report, FilesError> {
    if inputs.is_empty() {
        return Err(FilesError::Request("there are no files to score".to_owned()));
    }
    let mut names: BTreeMap<&Path, &Path> = BTreeMap::new();
    for Input { path, name } in inputs {
        if let Some(other) = names.insert(name, path) {
            let (a, b, name) = (other.display(), path.display(), name.display());
            return Err(FilesError::Request(format!(
                "{a} and {b} would both become {name}; score them into two directories"
            )));
        }
    }
    let files: Vec<Planned> = inputs.iter().map(|input| plan(input, options)).collect::<Result<_, _>>()?;
    progress.rows.store(files.iter().map(|file| file.rows).sum(), Relaxed);
    progress.done.store(files.iter().filter(|file| file.done).map(|file| file.rows).sum(), Relaxed);
    let _lock = lock(&options.out)?;
    let mut report = Report {
        model_version: options.version.clone(),
        model_hash: options.model.hash().to_owned(),
        skipped: files.iter().filter(|file| file.done).count(),
        scores: files[0].bound.outputs().into_iter().map(|(name, _)| name).collect(),
        ..Report::default()
    };
    let files: Vec<Planned> = files.into_iter().filter(|file| !file.done).collect();
    // A file without rows is one unit too: its output has none either.
    let units: Vec<(usize, usize)> =
        files.iter().enumerate().flat_map(|(f, file)| (0..file.groups.max(1)).map(move |g| (f, g))).collect();
    let threads = options.threads.clamp(1, units.len().max(1));
    let work = Work {
        options,
        progress,
        units: &units,
        files: files
            .iter()
            .map(|file| Mutex::new(Writing { file, open: None, next: 0, made: BTreeMap::new() }))
            .collect(),
        state: Mutex::default(),
        moved: Condvar::new(),
        // One that is being written while all others are being made, and one more ready for whoever is fast.
        ahead: threads + 2,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work.go());
        }
    });
    let state = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    for writing in work.files {
        let writing = writing.into_inner().unwrap_or_else(PoisonError::into_inner);
        if writing.open.is_some() {
            // What cannot be removed has a hidden name and is written over by the next attempt.
            let _ = fs::remove_file(hidden(&writing.file.target));
        }
    }
    match state.error {
        Some(error) => Err(error),
        None => {
            (report.files, report.rows, report.failed) = (files.len(), state.rows, state.failed);
            Ok(report)
        }
    }
}

/// Keeps others from the directory until it is dropped.
fn lock(out: &Path) -> Result<File, FilesError> {
    let write = |error: std::io::Error| FilesError::Write { path: out.to_owned(), why: error.to_string() };
    fs::create_dir_all(out).map_err(write)?;
    let file = File::create(out.join(LOCK)).map_err(write)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(FilesError::Request(format!(
            "another process scores into {}; wait for it, or give another --out",
            out.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(write(error)),
    }
}

/// Where an output is until it is whole.
fn hidden(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.part"))
}

#[derive(Default)]
struct State {
    /// The next unit that nobody has taken.
    next: usize,
    /// Units that are written.
    written: usize,
    rows: u64,
    failed: u64,
    error: Option<FilesError>,
}

/// An output that is begun.
struct Open {
    writer: SerializedFileWriter<File>,
    factory: std::sync::Arc<ArrowRowGroupWriterFactory>,
    metadata: ArrowReaderMetadata,
}

/// A file's output on its way.
struct Writing<'a> {
    file: &'a Planned,
    open: Option<Open>,
    /// The row group that is next.
    next: usize,
    /// Row groups that are made and wait for their turn; without chunks where the file has no rows.
    made: BTreeMap<usize, Vec<ArrowColumnChunk>>,
}

struct Work<'a> {
    options: &'a Options,
    progress: &'a Progress,
    units: &'a [(usize, usize)],
    files: Vec<Mutex<Writing<'a>>>,
    state: Mutex<State>,
    moved: Condvar,
    /// Units that may be on their way.
    ahead: usize,
}

impl<'a> Work<'a> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one unit after the other.
    fn go(&self) {
        while let Some((file, group)) = self.take() {
            if let Err(error) = self.unit(file, group) {
                self.state().error.get_or_insert(error);
            }
            self.moved.notify_all();
        }
        self.moved.notify_all();
    }

    /// The next unit; waits while too many are on their way.
    fn take(&self) -> Option<(usize, usize)> {
        let mut state = self.state();
        loop {
            if self.progress.is_stopped() {
                state.error.get_or_insert(FilesError::Stopped);
            }
            if state.error.is_some() || state.next == self.units.len() {
                return None;
            }
            if state.next < state.written + self.ahead {
                state.next += 1;
                return Some(self.units[state.next - 1]);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn unit(&self, index: usize, group: usize) -> Result<(), FilesError> {
        let file = self.writing(index).file;
        let (metadata, factory) = {
            let mut writing = self.writing(index);
            if writing.open.is_none() {
                writing.open = Some(open(file)?);
            }
            match &writing.open {
                Some(open) => (open.metadata.clone(), open.factory.clone()),
                None => return Ok(()),
            }
        };
        let made = if group < file.groups { self.make(file, group, metadata, &factory)? } else { Made::default() };
        let mut written = 0;
        {
            let mut writing = self.writing(index);
            writing.made.insert(group, made.chunks);
            while let Some(chunks) = writing.ready() {
                writing.append(chunks)?;
                written += 1;
            }
            if writing.next == file.groups.max(1) {
                writing.finish()?;
            }
        }
        let mut state = self.state();
        state.written += written;
        state.rows += made.rows;
        state.failed += made.failed;
        Ok(())
    }

    fn writing(&self, index: usize) -> MutexGuard<'_, Writing<'a>> {
        self.files[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Scores and encodes a row group.
    fn make(
        &self,
        file: &Planned,
        group: usize,
        metadata: ArrowReaderMetadata,
        factory: &ArrowRowGroupWriterFactory,
    ) -> Result<Made, FilesError> {
        let read = |why: String| FilesError::Read { path: file.path.clone(), why };
        let write = |why: String| FilesError::Write { path: file.target.clone(), why };
        let source = File::open(&file.path).map_err(|error| read(error.to_string()))?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), file.read.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(source, metadata)
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(BATCH)
            .build()
            .map_err(|error| read(error.to_string()))?;
        let mut scorer = file.bound.scorer()?;
        let mut writers = factory.create_column_writers(group).map_err(|error| write(error.to_string()))?;
        let mut made = Made::default();
        for batch in reader {
            if self.progress.is_stopped() || self.state().error.is_some() {
                return Err(FilesError::Stopped);
            }
            let batch = batch.map_err(|error| read(error.to_string()))?;
            let (columns, failed) = self.score(file, &mut scorer, &batch)?;
            let mut writer = writers.iter_mut();
            for (field, column) in file.schema.fields().iter().zip(&columns) {
                let leaves = compute_leaves(field, column).map_err(|error| write(error.to_string()))?;
                for (leaf, writer) in leaves.iter().zip(&mut writer) {
                    writer.write(leaf).map_err(|error| write(error.to_string()))?;
                }
            }
            made.rows += batch.num_rows() as u64;
            made.failed += failed as u64;
            self.progress.done.fetch_add(batch.num_rows() as u64, Relaxed);
        }
        made.chunks = writers
            .into_iter()
            .map(|w| w.close())
            .collect::<Result<_, _>>()
            .map_err(|error| write(error.to_string()))?;
        Ok(made)
    }

    /// The output's columns for a batch, and how many rows have no score.
    fn score(
        &self,
        file: &Planned,
        scorer: &mut Scorer,
        batch: &RecordBatch,
    ) -> Result<(Vec<ArrayRef>, usize), FilesError> {
        let rows = batch.num_rows();
        let read = |why: String| FilesError::Read { path: file.path.clone(), why };
        let inputs: Vec<ArrayRef> = file
            .scored
            .iter()
            .map(|i| match batch.column(*i).data_type() {
                dictionary @ DataType::Dictionary(..) => {
                    cast(batch.column(*i), &plain(dictionary)).map_err(|error| read(error.to_string()))
                }
                _ => Ok(batch.column(*i).clone()),
            })
            .collect::<Result<_, _>>()?;
        let scores = scorer.score(&inputs)?;
        let same = |text: &str| -> ArrayRef {
            std::sync::Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)))
        };
        let mut columns: Vec<ArrayRef> = file.kept.iter().map(|i| batch.column(*i).clone()).collect();
        columns.extend(scores.columns);
        columns.extend([same(&self.options.version), same(self.options.model.hash())]);
        columns.push(match scores.failed.is_empty() {
            true => new_null_array(&DataType::Utf8, rows),
            false => {
                let mut reasons: Vec<Option<&str>> = vec![None; rows];
                scores.failed.iter().for_each(|(row, why)| reasons[*row] = Some(why));
                std::sync::Arc::new(StringArray::from(reasons))
            }
        });
        Ok((columns, scores.failed.len()))
    }
}

#[derive(Default)]
struct Made {
    chunks: Vec<ArrowColumnChunk>,
    rows: u64,
    failed: u64,
}

/// Begins an output.
fn open(file: &Planned) -> Result<Open, FilesError> {
    let write = |why: String| FilesError::Write { path: file.target.clone(), why };
    if let Some(folder) = file.target.parent() {
        fs::create_dir_all(folder).map_err(|error| write(error.to_string()))?;
    }
    let (_, metadata) = footer(&file.path)?;
    let made_of = serde_json::to_string(&file.made_of).map_err(|error| write(error.to_string()))?;
    let level = ZstdLevel::try_new(1).map_err(|error| write(error.to_string()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_key_value_metadata(Some(vec![KeyValue::new(MADE_OF.to_owned(), made_of)]))
        .build();
    let part = File::create(hidden(&file.target)).map_err(|error| write(error.to_string()))?;
    let opened = ArrowWriter::try_new(part, file.schema.clone(), Some(properties))
        .and_then(ArrowWriter::into_serialized_writer)
        .map_err(|error| write(error.to_string()))?;
    Ok(Open { writer: opened.0, factory: std::sync::Arc::new(opened.1), metadata })
}

impl Writing<'_> {
    /// The row group that is next, if it is made.
    fn ready(&mut self) -> Option<Vec<ArrowColumnChunk>> {
        self.made.remove(&self.next)
    }

    fn append(&mut self, chunks: Vec<ArrowColumnChunk>) -> Result<(), FilesError> {
        let write = |error: parquet::errors::ParquetError| FilesError::Write {
            path: self.file.target.clone(),
            why: error.to_string(),
        };
        if let (Some(open), false) = (&mut self.open, chunks.is_empty()) {
            let mut group = open.writer.next_row_group().map_err(write)?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut group).map_err(write)?;
            }
            group.close().map_err(write)?;
        }
        self.next += 1;
        Ok(())
    }

    /// Gives the whole output its name, durably.
    fn finish(&mut self) -> Result<(), FilesError> {
        let target = &self.file.target;
        let write = |why: String| FilesError::Write { path: target.clone(), why };
        let Some(open) = self.open.take() else { return Ok(()) };
        let part = hidden(target);
        let written = open.writer.into_inner().map_err(|error| write(error.to_string())).and_then(|part_file| {
            part_file.sync_all().map_err(|error| write(error.to_string()))?;
            fs::rename(&part, target).map_err(|error| write(error.to_string()))
        });
        if written.is_err() {
            // It has a hidden name; the next attempt writes over it.
            let _ = fs::remove_file(&part);
        }
        written?;
        if let Some(folder) = target.parent().and_then(|folder| File::open(folder).ok()) {
            // A file system that cannot do this for a directory has done it with the rename.
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

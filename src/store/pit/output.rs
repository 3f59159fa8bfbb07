//! The set's file: one sorted stream of rows, from memory or from sorted runs on disk.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use sha2::{Digest, Sha256};

use super::manifest::{ColumnNote, directory_of, roles};
use super::run::Run;
use crate::store::StoreError;
use crate::store::offline::{Merge, ROW_GROUP_ROWS, properties, sync_directory, unique};

/// What was written.
pub(super) struct Written {
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// A set that is being written.
pub(super) struct Output<'a> {
    out: &'a Path,
    /// Columns of the runs, of which the first are the set's.
    schema: SchemaRef,
    /// Columns that rows are sorted by.
    order: Vec<usize>,
    notes: &'a [ColumnNote],
    runs: Vec<Hidden>,
}

impl<'a> Output<'a> {
    /// A set with the columns `notes`, which are the first of `schema`; runs are sorted by the columns `order`.
    pub fn new(out: &'a Path, schema: SchemaRef, order: Vec<usize>, notes: &'a [ColumnNote]) -> Self {
        Output { out, schema, order, notes, runs: Vec::new() }
    }

    /// Takes in one of several runs.
    pub fn run(&mut self, run: &Run) -> Result<(), StoreError> {
        let hidden = hidden_beside(self.out);
        let mut file = Parquet::create(hidden, self.schema.clone(), &[])?;
        run.in_order(&mut |batch| file.write(batch))?;
        self.runs.push(file.finish(false)?.0);
        Ok(())
    }

    /// Writes the set from the runs so far, or from the `only` one.
    pub fn finish(self, only: Option<&Run>) -> Result<Written, StoreError> {
        let kept: Vec<usize> = (0..self.notes.len()).collect();
        let schema = self.schema.project(&kept).map_err(StoreError::arrow("a set"))?;
        let mut file = Parquet::create(hidden_beside(self.out), schema.into(), self.notes)?;
        let mut rows = 0;
        let mut write = |batch: &RecordBatch| {
            rows += batch.num_rows() as u64;
            file.write(&batch.project(&kept).map_err(StoreError::arrow("a set"))?)
        };
        if let Some(run) = only {
            run.in_order(&mut write)?;
        }
        if !self.runs.is_empty() {
            let paths: Vec<PathBuf> = self.runs.iter().map(|run| run.0.clone()).collect();
            let batch_rows = (ROW_GROUP_ROWS / paths.len()).clamp(256, 8192);
            let mut merge = Merge::open(&paths, self.schema.clone(), self.order, batch_rows)?;
            while let Some(batch) = merge.next(ROW_GROUP_ROWS)? {
                write(&batch)?;
            }
        }
        let (hidden, bytes, sha256) = file.finish(true)?;
        fs::rename(&hidden.0, self.out).map_err(StoreError::io("write", self.out))?;
        sync_directory(&directory_of(self.out))?;
        Ok(Written { rows, bytes, sha256 })
    }
}

/// A file that nobody knows yet; removed when dropped, unless it has got its name.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn hidden_beside(out: &Path) -> Hidden {
    Hidden(directory_of(out).join(format!(".{}.tmp", unique())))
}

/// A Parquet file that is hashed as it is written.
struct Parquet {
    hidden: Hidden,
    writer: ArrowWriter<Hashing>,
}

impl Parquet {
    fn create(hidden: Hidden, schema: SchemaRef, notes: &[ColumnNote]) -> Result<Self, StoreError> {
        let file = File::create_new(&hidden.0).map_err(StoreError::io("create", &hidden.0))?;
        let metadata = if notes.is_empty() { None } else { Some(vec![roles(notes)?]) };
        let properties = properties(&schema, &[]).into_builder().set_key_value_metadata(metadata).build();
        // A name for a field would be written, and says nothing that Parquet's own schema does not.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let schema = Schema::new(schema.fields().clone());
        let sink = Hashing { file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), bytes: 0 };
        let writer = ArrowWriter::try_new_with_options(sink, schema.into(), options);
        let writer = writer.map_err(StoreError::parquet(&hidden.0))?;
        Ok(Parquet { hidden, writer })
    }

    /// Writes a row group.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        let written = self.writer.write(batch).and_then(|()| self.writer.flush());
        written.map_err(StoreError::parquet(&self.hidden.0))
    }

    fn finish(self, last: bool) -> Result<(Hidden, u64, String), StoreError> {
        let sink = self.writer.into_inner().map_err(StoreError::parquet(&self.hidden.0))?;
        let (bytes, hash) = (sink.bytes, sink.hash.finalize());
        let file = sink.file.into_inner().map_err(|e| StoreError::io("write", &self.hidden.0)(e.into_error()))?;
        if last {
            file.sync_all().map_err(StoreError::io("sync", &self.hidden.0))?;
        }
        Ok((self.hidden, bytes, hex(&hash)))
    }
}

struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// SHA-256 of a file's bytes.
pub(super) fn sha256_of(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(StoreError::io("read", path))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

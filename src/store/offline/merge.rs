//! Merges the rows of several sorted files of a table into one sorted stream, a row group at a time.
//!
//! Each file is read in batches and stands in a heap by its next row; the rows that come out are gathered from the batches
//! at hand. So the memory is the rows handed out plus one batch per file, however long the files are. Of files that are not
//! sorted themselves every row comes out too, only not in order.

use std::cmp::Ordering;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{cast, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::store::StoreError;

/// A merge of files, under way.
pub(in crate::store) struct Merge {
    schema: SchemaRef,
    /// Columns that rows are ordered by, one at least.
    keys: Vec<usize>,
    converter: RowConverter,
    inputs: Vec<Input>,
    /// Numbers of the inputs that have rows left, as a heap: the one with the least row first.
    heap: Vec<usize>,
    /// Batches that rows are gathered from.
    batches: Vec<RecordBatch>,
}

/// One file.
struct Input {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// The current batch, the order of its rows, the next of them.
    batch: usize,
    rows: Rows,
    next: usize,
}

impl Merge {
    /// Opens `files`, whose rows shall come with the columns of `schema` (nulls where a file is older than a column), sorted
    /// by the columns `keys`, one at least. Files are read `batch_rows` rows at a time.
    pub fn open(files: &[PathBuf], schema: SchemaRef, keys: Vec<usize>, batch_rows: usize) -> Result<Self, StoreError> {
        let fields = keys.iter().map(|key| SortField::new(schema.field(*key).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(StoreError::arrow("a merge's order"))?;
        let mut merge = Merge { schema, keys, converter, inputs: Vec::new(), heap: Vec::new(), batches: Vec::new() };
        for path in files {
            let reader = merge.reader(path, batch_rows)?;
            let rows = merge.converter.empty_rows(0, 0);
            merge.inputs.push(Input { path: path.clone(), reader, batch: 0, rows, next: 0 });
            let input = merge.inputs.len() - 1;
            if merge.refill(input)? {
                merge.heap.push(input);
                merge.rise();
            }
        }
        Ok(merge)
    }

    fn reader(&self, path: &Path, batch_rows: usize) -> Result<ParquetRecordBatchReader, StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(StoreError::parquet(path))?;
        let roots: Vec<usize> = (0..builder.schema().fields().len())
            .filter(|i| self.schema.column_with_name(builder.schema().field(*i).name()).is_some())
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        builder.with_projection(mask).with_batch_size(batch_rows).build().map_err(StoreError::parquet(path))
    }

    /// Reads an input's next batch; false when there is none.
    fn refill(&mut self, input: usize) -> Result<bool, StoreError> {
        let Input { path, reader, .. } = &mut self.inputs[input];
        let wrong = |path: &Path| StoreError::arrow(path.display().to_string());
        for batch in reader.by_ref() {
            let batch = batch.map_err(wrong(path))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let batch = shaped(&batch, &self.schema).map_err(wrong(path))?;
            let keys: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
            let rows = self.converter.convert_columns(&keys).map_err(wrong(path))?;
            let state = &mut self.inputs[input];
            (state.rows, state.next, state.batch) = (rows, 0, self.batches.len());
            self.batches.push(batch);
            return Ok(true);
        }
        Ok(false)
    }

    /// The next rows, at most `rows_max` of them; none at the end.
    pub fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>, StoreError> {
        let mut picked: Vec<(usize, usize)> = Vec::with_capacity(rows_max);
        while picked.len() < rows_max
            && let Some(&least) = self.heap.first()
        {
            let input = &mut self.inputs[least];
            picked.push((input.batch, input.next));
            input.next += 1;
            if input.next == self.batches[input.batch].num_rows() && !self.refill(least)? {
                self.heap.swap_remove(0);
            }
            self.sink();
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let sources: Vec<&RecordBatch> = self.batches.iter().collect();
        let rows = interleave_record_batch(&sources, &picked).map_err(StoreError::arrow("a merge"))?;
        let mut kept = Vec::with_capacity(self.heap.len());
        for input in &self.heap {
            let input = &mut self.inputs[*input];
            kept.push(self.batches[input.batch].clone());
            input.batch = kept.len() - 1;
        }
        self.batches = kept;
        Ok(Some(rows))
    }

    /// Order of the next rows of two inputs; of equal rows the earlier file's comes first.
    fn order(&self, a: usize, b: usize) -> Ordering {
        let (left, right) = (&self.inputs[a], &self.inputs[b]);
        left.rows.row(left.next).cmp(&right.rows.row(right.next)).then(a.cmp(&b))
    }

    /// Brings the last of the heap to its place.
    fn rise(&mut self) {
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.order(self.heap[at], self.heap[parent]) == Ordering::Greater {
                return;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    /// Brings the first of the heap to its place.
    fn sink(&mut self) {
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.order(self.heap[child], self.heap[least]) == Ordering::Less {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

/// A file's batch with the columns of `schema`.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => cast(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

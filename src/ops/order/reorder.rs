//! The reorder buffer: holds rows until the watermark has passed them and lets them go in the order of `(_time, _ord)`.
//!
//! Rows wait in *runs*, each sorted once when it is made; a release takes the front of every run. The runs' lengths
//! fall by more than half from one to the next, since a run that grows beyond half of its predecessor is merged into it;
//! so a row is copied a logarithmic number of times however far the disorder reaches beyond a tick. When the disorder is
//! a small part of a tick, as is common, a row is sorted once and copied once.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::sort::Sorter;
use crate::base::EventTime;
use crate::ops::columns::{collect, compact, slice_bytes};
use crate::ops::{Batch, load_rows, times};

/// Rows not yet sorted that make a run of their own though none is due.
const FRESH_MAX: usize = 1 << 17;

/// Rows that wait in order.
#[derive(Debug)]
struct Run {
    rows: RecordBatch,
    /// Rows of the buffers that `rows` is a slice of.
    backing: usize,
}

/// The core of the reorder operator.
///
/// Any input order. State: the rows at or after the watermark. A checkpoint holds what is [held](Reorder::held), by key slot.
#[derive(Debug)]
pub struct Reorder {
    runs: Vec<Run>,
    /// Batches as they came since the last release that found something to do.
    fresh: Vec<Batch>,
    fresh_rows: usize,
    /// The earliest of their times.
    fresh_first: EventTime,
    sorter: Sorter,
}

impl Default for Reorder {
    fn default() -> Self {
        Reorder {
            runs: Vec::new(),
            fresh: Vec::new(),
            fresh_rows: 0,
            fresh_first: EventTime::MAX,
            sorter: Sorter::default(),
        }
    }
}

impl Reorder {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes rows in, in any order. All batches of a buffer have one schema.
    pub fn push(&mut self, rows: impl Into<Batch>) {
        let rows = rows.into();
        if rows.num_rows() == 0 {
            return;
        }
        rows.each(times(rows.backing()), |time| self.fresh_first = self.fresh_first.min(time));
        self.fresh_rows += rows.num_rows();
        self.fresh.push(rows);
    }

    /// Takes out all rows with a time before the watermark, sorted by `(_time, _ord)`; `None` when there are none.
    pub fn release(&mut self, watermark: EventTime) -> Option<RecordBatch> {
        let sources: Vec<RecordBatch> = self.runs.iter_mut().filter_map(|run| run.take_before(watermark)).collect();
        self.runs.retain(|run| run.rows.num_rows() > 0);
        let mut sources: Vec<Batch> = sources.into_iter().map(Batch::from).collect();
        if self.fresh_first < watermark {
            self.fresh_first = EventTime::MAX;
            sources.append(&mut self.fresh);
            self.fresh_rows = 0;
        }
        let released = (!sources.is_empty()).then(|| {
            let rows = self.sorter.sort(&sources);
            let due = times(&rows).partition_point(|time| *time < watermark);
            self.hold(&rows, due..rows.num_rows());
            rows.slice(0, due)
        });
        if self.fresh_rows >= FRESH_MAX {
            self.sort_fresh();
        }
        self.merge_runs();
        released
    }

    /// Number of rows held.
    pub fn len(&self) -> usize {
        self.fresh_rows + self.runs.iter().map(|run| run.rows.num_rows()).sum::<usize>()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the held rows and the sorting buffers take.
    pub fn memory_bytes(&self) -> usize {
        let runs: usize = self.runs.iter().map(|run| slice_bytes(&run.rows)).sum();
        runs + self.fresh.iter().map(|rows| slice_bytes(rows.backing())).sum::<usize>() + self.sorter.memory_bytes()
    }

    /// The rows held, in no order, without a copy of those that came as whole batches: [`by_slot`](crate::ops::by_slot) makes
    /// bytes of them by key slot, on any thread.
    pub fn held(&self) -> Vec<RecordBatch> {
        self.runs.iter().map(|run| run.rows.clone()).chain(self.fresh.iter().cloned().map(Batch::into_rows)).collect()
    }

    /// The rows held, in no order, as one batch.
    pub fn into_held(self) -> Batch {
        let held: Vec<Batch> = self.runs.into_iter().map(|run| run.rows.into()).chain(self.fresh).collect();
        if held.is_empty() { Batch::default() } else { collect(&held).into() }
    }

    /// Takes in a slot's rows, as [`by_slot`](crate::ops::by_slot) made bytes of them.
    ///
    /// # Errors
    /// When the bytes are not such a slot, or have other columns than the rows held; the buffer is then unchanged.
    pub fn import(&mut self, slot: &[u8]) -> Result<(), ArrowError> {
        let rows = load_rows(slot)?;
        let held = self.runs.iter().map(|run| &run.rows).chain(self.fresh.iter().map(Batch::backing)).next();
        if held.is_some_and(|held| held.schema() != rows.schema()) {
            let what = "the saved rows have other columns than those beside them".to_owned();
            return Err(ArrowError::SchemaError(what));
        }
        self.push(rows);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    #[cfg(test)]
    pub(super) fn backing_rows(&self) -> usize {
        self.fresh_rows + self.runs.iter().map(|run| run.backing).sum::<usize>()
    }

    /// Makes a run of sorted rows, in memory of its own when most of the rows are not part of it.
    fn hold(&mut self, sorted: &RecordBatch, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let mut run = Run { rows: sorted.slice(range.start, range.len()), backing: sorted.num_rows() };
        run.compact();
        self.runs.push(run);
    }

    fn sort_fresh(&mut self) {
        let rows = self.sorter.sort(&std::mem::take(&mut self.fresh));
        self.fresh_rows = 0;
        self.fresh_first = EventTime::MAX;
        self.hold(&rows, 0..rows.num_rows());
    }

    fn merge_runs(&mut self) {
        while let [.., longer, shorter] = &self.runs[..]
            && shorter.rows.num_rows() * 2 > longer.rows.num_rows()
        {
            let pair = [longer.rows.clone(), shorter.rows.clone()];
            let rows = self.sorter.sort(&pair.map(Batch::from));
            self.runs.truncate(self.runs.len() - 2);
            self.hold(&rows, 0..rows.num_rows());
        }
    }
}

impl Run {
    fn take_before(&mut self, watermark: EventTime) -> Option<RecordBatch> {
        let due = times(&self.rows).partition_point(|t| *t < watermark);
        if due == 0 {
            return None;
        }
        let taken = self.rows.slice(0, due);
        self.rows = self.rows.slice(due, self.rows.num_rows() - due);
        self.compact();
        Some(taken)
    }

    fn compact(&mut self) {
        if self.rows.num_rows() * 2 < self.backing {
            self.rows = compact(&self.rows);
            self.backing = self.rows.num_rows();
        }
    }
}

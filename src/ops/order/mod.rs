//! Event-time order: rows leave by `(_time, _ord)`, whatever the order of their arrival.
//!
//! [`Reorder`] assumes nothing about the order of its input. It releases the rows whose time is before the watermark; a row that
//! comes behind an earlier watermark (none does unless ingest lets it) leaves with the next release. Its state is the rows
//! at or after the watermark: no more than the disorder's length of the stream.

mod reorder;
mod sort;
#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;

pub use reorder::Reorder;

use self::sort::Sorter;
use super::Batch;

/// Merges batches of one schema into one, sorted by `(_time, _ord)`; `None` when they have no rows.
///
/// The batches need not be sorted, though it is cheapest when they are nearly in order one after the other.
pub fn merge_sorted(batches: Vec<impl Into<Batch>>) -> Option<RecordBatch> {
    let batches: Vec<Batch> = batches.into_iter().map(Into::into).filter(|b: &Batch| b.num_rows() > 0).collect();
    (!batches.is_empty()).then(|| Sorter::default().sort(&batches))
}

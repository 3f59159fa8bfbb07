//! Event-time order: rows leave by `(_time, _ord)`, whatever the order of their arrival.
//!
//! [`reorder()`] assumes nothing about the order of its input. It releases at a tick the rows whose time is before that
//! tick's watermark; a row that comes behind an earlier watermark (none does unless ingest lets it) leaves with the next
//! release. Its state is the rows at or after the watermark: no more than the disorder's length of the stream. It keeps
//! no capability for rows that wait: they leave under the capability of the tick that releases them.

mod reorder;
mod sort;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

pub use reorder::Reorder;

use self::sort::{Sorter, Span};
use super::Batch;
use super::control::TickInfo;
use crate::base::{EventTime, Tick};

/// Most rows in a container that the operators of this module send.
pub const ROWS_MAX: usize = 1 << 16;

/// When rows leave the reorder buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// When the watermark has passed them: results depend on no cut.
    UntilWatermark,
    /// At the end of the tick that brought them: they are merged within their tick and wait for no later one.
    UntilTickEnds,
}

/// Puts a worker's rows into event-time order: at each tick that both inputs have passed, sends the rows with a time before
/// that tick's watermark, sorted by `(_time, _ord)`, in containers of at most [`ROWS_MAX`] rows.
///
/// `control` has one record per tick, on every worker. Rows still held when the inputs end were not released by any
/// watermark and are dropped: a finite source ends with a watermark of `i64::MAX`.
pub fn reorder<'scope>(
    rows: Stream<'scope, Tick, Batch>,
    control: Stream<'scope, Tick, Vec<TickInfo>>,
) -> Stream<'scope, Tick, Batch> {
    reorder_with(rows, control, Hold::UntilWatermark, Rc::default())
}

/// [`reorder()`] with a choice of when rows leave and a buffer that the caller may read, fill and empty between steps of
/// the worker, for instance to move its slots.
pub fn reorder_with<'scope>(
    rows: Stream<'scope, Tick, Batch>,
    control: Stream<'scope, Tick, Vec<TickInfo>>,
    hold: Hold,
    buffer: Rc<RefCell<Reorder>>,
) -> Stream<'scope, Tick, Batch> {
    rows.binary_frontier::<_, NoopBuilder<Batch>, _, _, _, _>(control, Pipeline, Pipeline, "reorder", move |_, _| {
        let mut arrived: BTreeMap<Tick, Vec<RecordBatch>> = BTreeMap::new();
        let mut open: BTreeMap<Tick, (Capability<Tick>, TickInfo)> = BTreeMap::new();
        move |(rows, rows_frontier), (control, control_frontier), output| {
            rows.for_each(|tick, batch| arrived.entry(*tick).or_default().push(std::mem::take(batch).0));
            let port = output.output_index();
            control.for_each(|tick, records| {
                for record in records.drain(..) {
                    open.insert(record.tick, (tick.retain(port), record));
                }
            });
            while let Some(entry) = open.first_entry() {
                if rows_frontier.less_equal(entry.key()) || control_frontier.less_equal(entry.key()) {
                    break;
                }
                let (tick, (capability, record)) = entry.remove_entry();
                let mut buffer = buffer.borrow_mut();
                // Later ticks' rows wait their turn, so that what a tick releases depends on no schedule.
                while let Some(batches) = arrived.first_entry().filter(|batches| *batches.key() <= tick) {
                    batches.remove().into_iter().for_each(|rows| buffer.push(rows));
                }
                let watermark = match hold {
                    Hold::UntilWatermark => record.watermark,
                    Hold::UntilTickEnds => EventTime::MAX,
                };
                if let Some(released) = buffer.release(watermark) {
                    let mut session = output.session_with_builder(&capability);
                    pieces(&released).for_each(|piece| session.give_container(&mut Batch(piece)));
                }
            }
        }
    })
}

/// A batch in slices of at most [`ROWS_MAX`] rows.
pub fn pieces(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    (0..rows.num_rows()).step_by(ROWS_MAX).map(|start| rows.slice(start, ROWS_MAX.min(rows.num_rows() - start)))
}

/// Merges batches of one schema into one, sorted by `(_time, _ord)`; `None` when they have no rows.
///
/// The batches need not be sorted, though it is cheapest when they are nearly in order one after the other.
pub fn merge_sorted(batches: &[RecordBatch]) -> Option<RecordBatch> {
    let filled = batches.iter().any(|b| b.num_rows() > 0);
    filled.then(|| Sorter::default().sort(batches, batches.iter().fold(Span::NONE, Span::with), EventTime::MAX).rows)
}

//! Routes every row to the worker that owns its key slot.
//!
//! A row's worker is `worker_of_slot(slot_of(hash(key)), workers)`. Rows for one worker keep the order in which they
//! came. Small pieces are gathered until there are [`ROWS_PER_CONTAINER`] for a worker or the tick's rows have all been
//! seen, since a message costs as much as some hundred rows; each row is copied once. With one worker timely bypasses
//! all of this.

use arrow::array::{ArrayRef, RecordBatch};
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;

use super::columns::{Pick, collect};
use super::{Batch, key};
use crate::base::{SLOTS, slot_of, worker_of_slot};

/// Rows for one worker that are worth a message of their own.
pub const ROWS_PER_CONTAINER: usize = 8192;

/// Makes the distributor once timely has told the number of workers.
pub type SlotPact = DistributorPact<Box<dyn FnOnce(usize) -> SlotDistributor>>;

/// A pact that sends each row to the worker which owns the slot of its key, the values of `key_columns`.
///
/// The columns' types must be [supported](key::is_supported); the plan sees to it. Without key columns all rows go to the first
/// worker.
pub fn by_slot(key_columns: Vec<usize>) -> SlotPact {
    DistributorPact(Box::new(move |workers| SlotDistributor::new(key_columns, workers)))
}

/// Rows that wait for more rows to the same worker.
#[derive(Debug, Default)]
struct Pending {
    parts: Vec<(RecordBatch, Pick)>,
    rows: usize,
}

/// Splits batches by key slot; see [`by_slot`].
#[derive(Debug)]
pub struct SlotDistributor {
    key_columns: Vec<usize>,
    worker_of_slot: Vec<u32>,
    pending: Vec<Pending>,
    hashes: Vec<u64>,
}

impl SlotDistributor {
    /// A distributor among this many workers.
    pub fn new(key_columns: Vec<usize>, workers: usize) -> Self {
        SlotDistributor {
            key_columns,
            worker_of_slot: (0..SLOTS).map(|slot| worker_of_slot(slot, workers) as u32).collect(),
            pending: (0..workers).map(|_| Pending::default()).collect(),
            hashes: Vec::new(),
        }
    }

    /// Takes a batch in and hands `send` what is ready, as `(worker, rows)`.
    pub fn split(&mut self, rows: &RecordBatch, mut send: impl FnMut(usize, RecordBatch)) {
        if rows.num_rows() == 0 {
            return;
        }
        for (worker, pick) in self.route(rows).into_iter().enumerate() {
            let Some(pick) = pick else { continue };
            let pending = &mut self.pending[worker];
            pending.rows += match &pick {
                Pick::All => rows.num_rows(),
                Pick::Rows(picked) => picked.len(),
            };
            pending.parts.push((rows.clone(), pick));
            if pending.rows >= ROWS_PER_CONTAINER {
                send(worker, pending.take());
            }
        }
    }

    /// Hands `send` all that is left.
    pub fn finish(&mut self, mut send: impl FnMut(usize, RecordBatch)) {
        for (worker, pending) in self.pending.iter_mut().enumerate() {
            if pending.rows > 0 {
                send(worker, pending.take());
            }
        }
    }

    /// What each worker gets of a batch.
    fn route(&mut self, rows: &RecordBatch) -> Vec<Option<Pick>> {
        if self.key_columns.is_empty() {
            return (0..self.pending.len()).map(|worker| (worker == 0).then_some(Pick::All)).collect();
        }
        let columns: Vec<ArrayRef> = self.key_columns.iter().map(|c| ArrayRef::clone(rows.column(*c))).collect();
        self.hashes.clear();
        key::hashes(&columns, &mut self.hashes).expect("the plan has checked the types of entity keys");
        let mut counts = vec![0usize; self.pending.len()];
        // The hashes give way to the workers in place.
        for hash in &mut self.hashes {
            let worker = self.worker_of_slot[slot_of(*hash)];
            *hash = u64::from(worker);
            counts[worker as usize] += 1;
        }
        if let Some(only) = counts.iter().position(|count| *count == rows.num_rows()) {
            return (0..counts.len()).map(|worker| (worker == only).then_some(Pick::All)).collect();
        }
        let mut picked: Vec<Vec<u32>> = counts.iter().map(|count| Vec::with_capacity(*count)).collect();
        for (row, worker) in self.hashes.iter().enumerate() {
            picked[*worker as usize].push(row as u32);
        }
        picked.into_iter().map(|rows| (!rows.is_empty()).then_some(Pick::Rows(rows))).collect()
    }
}

impl Pending {
    fn take(&mut self) -> RecordBatch {
        self.rows = 0;
        let parts = std::mem::take(&mut self.parts);
        match &parts[..] {
            [(rows, Pick::All)] => rows.clone(),
            _ => collect(&parts),
        }
    }
}

impl Distributor<Batch> for SlotDistributor {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(&mut self, container: &mut Batch, time: &T, pushers: &mut [P]) {
        let rows = std::mem::take(container).0;
        self.split(&rows, |worker, rows| Message::push_at(&mut Batch(rows), time.clone(), &mut pushers[worker]));
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, time: &T, pushers: &mut [P]) {
        self.finish(|worker, rows| Message::push_at(&mut Batch(rows), time.clone(), &mut pushers[worker]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ords;
    use crate::ops::tests::rows_with_strings;
    use proptest::prelude::*;

    fn worker_of(rows: &RecordBatch, columns: &[usize], workers: usize) -> Vec<usize> {
        let columns: Vec<ArrayRef> = columns.iter().map(|c| rows.column(*c).clone()).collect();
        let mut hashes = Vec::new();
        key::hashes(&columns, &mut hashes).unwrap();
        hashes.iter().map(|hash| worker_of_slot(slot_of(*hash), workers)).collect()
    }

    proptest! {
        /// Every row arrives once, at its worker, in the order in which it was sent, whatever the batches' sizes.
        #[test]
        fn rows_arrive_once_and_in_order(
            sizes in prop::collection::vec(prop_oneof![0usize..50, 8000usize..20_000], 1..6),
            workers in 1usize..5,
            columns in prop_oneof![Just(vec![2]), Just(vec![4]), Just(vec![4, 2])],
        ) {
            let mut distributor = SlotDistributor::new(columns.clone(), workers);
            let mut arrived: Vec<Vec<RecordBatch>> = vec![Vec::new(); workers];
            let mut expected: Vec<Vec<u64>> = vec![Vec::new(); workers];
            let mut next = 0u64;
            for size in sizes {
                let batch = rows_with_strings(&(next..next + size as u64).map(|i| (i as i64, i)).collect::<Vec<_>>());
                next += size as u64;
                for (worker, ord) in worker_of(&batch, &columns, workers).into_iter().zip(ords(&batch)) {
                    expected[worker].push(*ord);
                }
                distributor.split(&batch, |worker, rows| arrived[worker].push(rows));
            }
            distributor.finish(|worker, rows| arrived[worker].push(rows));
            for (worker, batches) in arrived.iter().enumerate() {
                let got: Vec<u64> = batches.iter().flat_map(|b| ords(b).to_vec()).collect();
                prop_assert_eq!(&got, &expected[worker]);
                for batch in batches {
                    // Whole rows moved, not just their first columns.
                    let again = rows_with_strings(&ords(batch).iter().map(|o| (*o as i64, *o)).collect::<Vec<_>>());
                    prop_assert_eq!(batch, &again);
                }
                let small = batches.iter().rev().skip(1).filter(|b| b.num_rows() < ROWS_PER_CONTAINER).count();
                prop_assert_eq!(small, 0, "only the last container of a worker may be small");
            }
        }
    }

    /// Prints what a row costs; the figure is a measurement, not a check.
    #[test]
    fn cost_per_row() {
        use arrow::array::{Float64Array, Int64Array};
        use std::sync::Arc;
        let rows = 65_536u64;
        let system = crate::ops::tests::rows(&(0..rows).map(|i| (i as i64, i)).collect::<Vec<_>>());
        let mut columns: Vec<ArrayRef> = system.columns().to_vec();
        columns.extend(
            (0..2).map(|c| Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|i| i * 7 + c))) as ArrayRef),
        );
        columns
            .extend((0..3).map(|_| Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64))) as ArrayRef));
        let names = ["_time", "_ord", "card", "merchant", "a", "b", "c"];
        let batch = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
        for (name, size) in [("whole ticks", 65_536), ("containers of 1,024 rows", 1_024)] {
            let mut distributor = SlotDistributor::new(vec![2], 2);
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let start = std::time::Instant::now();
                let mut sent = 0;
                for at in (0..rows as usize).step_by(size) {
                    distributor.split(&batch.slice(at, size), |_, rows| sent += rows.num_rows());
                }
                distributor.finish(|_, rows| sent += rows.num_rows());
                assert_eq!(sent as u64, rows);
                best = best.min(start.elapsed().as_nanos() as f64 / rows as f64);
            }
            println!("exchange among two workers, {name}: {best:.1} ns per row");
        }
    }
}

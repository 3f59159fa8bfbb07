//! Routes every row to the worker that owns its key slot.
//!
//! A row's worker is that of `slot_of(hash(key))` in a [`Placement`]. Rows for one worker keep the order in which they
//! came. A large part of a batch moves as the batch with the numbers of its rows, without a copy; small pieces are gathered
//! until there are [`ROWS_PER_CONTAINER`] for a worker or the tick's rows have all been seen, since a message costs as much
//! as some hundred rows. With one worker timely bypasses all of this.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;

use super::batch::Pick;
use super::columns::collect;
use super::wide::rows_of_owners;
use super::{Batch, key};
use crate::base::{SLOTS, slot_of, worker_of_slot};

/// Rows for one worker that are worth a message of their own.
pub const ROWS_PER_CONTAINER: usize = 8192;
/// Rows of one batch for one worker that are not worth a copy.
const ROWS_PICKED: usize = 512;

/// Makes the distributor once timely has told the number of workers.
pub type SlotPact = DistributorPact<Box<dyn FnOnce(usize) -> SlotDistributor>>;

/// Which worker owns each key slot, for all exchanges whose rows must meet.
///
/// The slots are given out once: evenly, or by weights, which say how much work a slot is (its rows among the first that come,
/// its bytes in a snapshot). Then the heaviest slot goes first, each to the worker that has least, so that a few busy keys do
/// not make one worker wait for another.
#[derive(Debug, Default)]
pub struct Placement(OnceLock<Box<[u32]>>);

impl Placement {
    /// Slots that are yet to be given out.
    pub fn new() -> Self {
        Self::default()
    }

    /// Slots given out as contiguous ranges, equal to within one.
    pub fn even(workers: usize) -> Self {
        Placement(OnceLock::from((0..SLOTS).map(|slot| worker_of_slot(slot, workers) as u32).collect::<Box<[u32]>>()))
    }

    /// The worker of each slot. The first call gives them out, if they are not yet.
    pub fn workers(&self, workers: usize, weights: impl FnOnce() -> Box<[u64; SLOTS]>) -> &[u32] {
        self.0.get_or_init(|| by_weight(workers, &weights()))
    }
}

/// The heaviest slot first, each to the worker that has least.
fn by_weight(workers: usize, weights: &[u64; SLOTS]) -> Box<[u32]> {
    let total: u64 = weights.iter().sum();
    // Keys that have not been seen yet come to all slots alike.
    let unseen = total / (8 * SLOTS as u64) + 1;
    let mut slots: Vec<usize> = (0..SLOTS).collect();
    slots.sort_by_key(|slot| std::cmp::Reverse(weights[*slot]));
    let mut loads = vec![0u64; workers];
    let mut owners = vec![0; SLOTS].into_boxed_slice();
    for slot in slots {
        let least = (0..workers).min_by_key(|worker| loads[*worker]).unwrap_or(0);
        loads[least] = loads[least].saturating_add(weights[slot]).saturating_add(unseen);
        owners[slot] = least as u32;
    }
    owners
}

/// A pact that sends each row to the worker which owns the slot of its key, the values of `key_columns`. A placement that is
/// still open is settled by the first rows that are sent.
///
/// The columns' types must be [supported](key::is_supported); the plan sees to it. Without key columns all rows go to the first
/// worker.
pub fn by_slot(key_columns: Vec<usize>, placement: Option<Arc<Placement>>) -> SlotPact {
    DistributorPact(Box::new(move |workers| SlotDistributor::new(key_columns, workers, placement)))
}

/// Rows that wait for more rows to the same worker.
#[derive(Debug, Default)]
struct Pending {
    parts: Vec<Batch>,
    rows: usize,
}

/// Splits batches by key slot; see [`by_slot`].
#[derive(Debug)]
pub struct SlotDistributor {
    key_columns: Vec<usize>,
    placement: Arc<Placement>,
    pending: Vec<Pending>,
    hashes: Vec<u64>,
}

impl SlotDistributor {
    /// A distributor among this many workers; without a placement, evenly.
    pub fn new(key_columns: Vec<usize>, workers: usize, placement: Option<Arc<Placement>>) -> Self {
        let placement = placement.unwrap_or_else(|| Arc::new(Placement::even(workers)));
        let pending = (0..workers).map(|_| Pending::default()).collect();
        SlotDistributor { key_columns, placement, pending, hashes: Vec::new() }
    }

    /// Takes a batch in and hands `send` what is ready, as `(worker, rows)`.
    pub fn split(&mut self, rows: Batch, mut send: impl FnMut(usize, Batch)) {
        let rows = rows.into_rows();
        if rows.num_rows() == 0 {
            return;
        }
        for (worker, pick) in self.route(&rows).into_iter().enumerate() {
            let Some(pick) = pick else { continue };
            let part = Batch::picked(rows.clone(), pick);
            let pending = &mut self.pending[worker];
            if pending.rows == 0 && part.num_rows() >= ROWS_PICKED {
                send(worker, part);
                continue;
            }
            pending.rows += part.num_rows();
            pending.parts.push(part);
            if pending.rows >= ROWS_PER_CONTAINER {
                send(worker, pending.take());
            }
        }
    }

    /// Hands `send` all that is left.
    pub fn finish(&mut self, mut send: impl FnMut(usize, Batch)) {
        for (worker, pending) in self.pending.iter_mut().enumerate() {
            if pending.rows > 0 {
                send(worker, pending.take());
            }
        }
    }

    /// What each worker gets of a batch.
    fn route(&mut self, rows: &RecordBatch) -> Vec<Option<Pick>> {
        let workers = self.pending.len();
        if self.key_columns.is_empty() {
            return (0..workers).map(|worker| (worker == 0).then_some(Pick::All)).collect();
        }
        let columns: Vec<ArrayRef> = self.key_columns.iter().map(|c| ArrayRef::clone(rows.column(*c))).collect();
        self.hashes.clear();
        key::hashes(&columns, &mut self.hashes).expect("the plan has checked the types of entity keys");
        let hashes = &mut self.hashes;
        let worker_of_slot = self.placement.workers(workers, || {
            let mut rows_of_slot = Box::new([0; SLOTS]);
            hashes.iter().for_each(|hash| rows_of_slot[slot_of(*hash)] += 1);
            rows_of_slot
        });
        // The hashes give way to the workers in place.
        hashes.iter_mut().for_each(|hash| *hash = u64::from(worker_of_slot[slot_of(*hash)]));
        let pick = |picked: Vec<u32>| match picked.len() {
            0 => None,
            all if all == rows.num_rows() => Some(Pick::All),
            _ => Some(Pick::Rows(picked)),
        };
        rows_of_owners(hashes, workers).into_iter().map(pick).collect()
    }
}

impl Pending {
    fn take(&mut self) -> Batch {
        self.rows = 0;
        let mut parts = std::mem::take(&mut self.parts);
        match parts.len() {
            // A few rows hold on to no large batch.
            1 => Batch::from(parts.remove(0).into_rows()),
            _ => Batch::from(collect(&parts)),
        }
    }
}

impl Distributor<Batch> for SlotDistributor {
    fn partition<T: Clone, P: Push<Message<T, Batch>>>(&mut self, container: &mut Batch, time: &T, pushers: &mut [P]) {
        self.split(std::mem::take(container), |worker, mut rows| {
            Message::push_at(&mut rows, time.clone(), &mut pushers[worker]);
        });
    }

    fn flush<T: Clone, P: Push<Message<T, Batch>>>(&mut self, time: &T, pushers: &mut [P]) {
        self.finish(|worker, mut rows| Message::push_at(&mut rows, time.clone(), &mut pushers[worker]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ords;
    use crate::ops::tests::rows_with_strings;
    use arrow::array::Int64Array;
    use proptest::prelude::*;

    fn slots(rows: &RecordBatch, columns: &[usize]) -> Vec<usize> {
        let columns: Vec<ArrayRef> = columns.iter().map(|c| rows.column(*c).clone()).collect();
        let mut hashes = Vec::new();
        key::hashes(&columns, &mut hashes).unwrap();
        hashes.iter().map(|hash| slot_of(*hash)).collect()
    }

    proptest! {
        /// Every row arrives once, at its worker, in the order in which it was sent, whatever the batches' sizes.
        #[test]
        fn rows_arrive_once_and_in_order(
            sizes in prop::collection::vec(prop_oneof![0usize..50, 8000usize..20_000], 1..6),
            workers in 1usize..5,
            columns in prop_oneof![Just(vec![2]), Just(vec![4]), Just(vec![4, 2])],
            placed in any::<bool>(),
        ) {
            let placement = Arc::new(Placement::new());
            let mut distributor =
                SlotDistributor::new(columns.clone(), workers, placed.then(|| Arc::clone(&placement)));
            let mut arrived: Vec<Vec<Batch>> = vec![Vec::new(); workers];
            let mut expected: Vec<Vec<u64>> = vec![Vec::new(); workers];
            let mut next = 0u64;
            for size in sizes {
                let batch = rows_with_strings(&(next..next + size as u64).map(|i| (i as i64, i)).collect::<Vec<_>>());
                next += size as u64;
                let (slots, ords) = (slots(&batch, &columns), ords(&batch).to_vec());
                distributor.split(Batch::from(batch), |worker, rows| arrived[worker].push(rows));
                for (slot, ord) in slots.into_iter().zip(ords) {
                    let worker = if placed {
                        placement.workers(workers, || unreachable!("rows have settled it"))[slot] as usize
                    } else {
                        worker_of_slot(slot, workers)
                    };
                    expected[worker].push(ord);
                }
            }
            distributor.finish(|worker, rows| arrived[worker].push(rows));
            for (worker, batches) in arrived.iter().enumerate() {
                let rows: Vec<RecordBatch> = batches.iter().map(|batch| batch.clone().into_rows()).collect();
                let got: Vec<u64> = rows.iter().flat_map(|b| ords(b).to_vec()).collect();
                prop_assert_eq!(&got, &expected[worker]);
                for (batch, rows) in batches.iter().zip(&rows) {
                    // Whole rows moved, not just their first columns.
                    let again = rows_with_strings(&ords(rows).iter().map(|o| (*o as i64, *o)).collect::<Vec<_>>());
                    prop_assert_eq!(rows, &again);
                    prop_assert_eq!(batch.num_rows(), rows.num_rows());
                    let few = batch.num_rows() < ROWS_PICKED && batch.backing().num_rows() > batch.num_rows();
                    prop_assert!(!few, "a few rows do not hold on to many");
                }
                let small = batches.iter().rev().skip(1).filter(|b| b.num_rows() < ROWS_PICKED).count();
                prop_assert_eq!(small, 0, "only the last container of a worker may be small");
            }
        }
    }

    proptest! {
        /// No worker has more than another by more than one slot, which the heaviest made necessary.
        #[test]
        fn slots_are_given_out_by_weight(
            weights in prop::collection::vec(prop_oneof![8 => 0u64..20, 1 => 0u64..100_000], SLOTS),
            workers in 1usize..9,
        ) {
            let weights: Box<[u64; SLOTS]> = weights.into_boxed_slice().try_into().unwrap();
            let placement = Placement::new();
            let owners = placement.workers(workers, || weights.clone());
            let unseen = weights.iter().sum::<u64>() / (8 * SLOTS as u64) + 1;
            let mut loads = vec![0; workers];
            owners.iter().zip(weights.iter()).for_each(|(owner, weight)| loads[*owner as usize] += weight + unseen);
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(workers == 1 || most - least <= weights.iter().max().unwrap() + unseen, "{:?}", loads);
            // It is settled.
            prop_assert_eq!(placement.workers(workers, || unreachable!("it is settled")), owners);
        }
    }

    #[test]
    fn without_weights_slots_are_contiguous() {
        let placement = Placement::even(3);
        let even: Vec<u32> = (0..SLOTS).map(|slot| worker_of_slot(slot, 3) as u32).collect();
        assert_eq!(placement.workers(3, || unreachable!("it is settled")), even);
    }

    #[test]
    fn the_first_rows_settle_a_placement_and_busy_keys_are_kept_apart() {
        // Two busy keys among many, in slots that even ranges give to one worker.
        let key_in = |from: usize, to: usize| {
            (0..).find(|key: &i64| (from..to).contains(&slot_of(crate::base::hash_u64(*key as u64)))).unwrap()
        };
        let busy = [key_in(0, 100), key_in(200, 300)];
        let keys: Int64Array = (0..4_000).map(|i| if i % 4 == 3 { i } else { busy[i as usize % 2] }).collect();
        let batch = RecordBatch::try_from_iter([("key", Arc::new(keys) as ArrayRef)]).unwrap();
        let placement = Arc::new(Placement::new());
        let mut distributor = SlotDistributor::new(vec![0], 2, Some(Arc::clone(&placement)));
        let mut rows_of = [0; 2];
        distributor.split(Batch::from(batch.clone()), |worker, rows| rows_of[worker] += rows.num_rows());
        distributor.finish(|worker, rows| rows_of[worker] += rows.num_rows());
        assert!(rows_of[0].abs_diff(rows_of[1]) < 1_100, "{rows_of:?}");
        // Another exchange of the same placement sends the same keys to the same workers.
        let mut other = SlotDistributor::new(vec![0], 2, Some(placement));
        let mut again = [0; 2];
        other.split(Batch::from(batch), |worker, rows| again[worker] += rows.num_rows());
        other.finish(|worker, rows| again[worker] += rows.num_rows());
        assert_eq!(again, rows_of);
    }

    /// Prints what a row costs; the figure is a measurement, not a check.
    #[test]
    fn cost_per_row() {
        use arrow::array::Float64Array;
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
            let mut distributor = SlotDistributor::new(vec![2], 2, None);
            let mut best = f64::INFINITY;
            for _ in 0..20 {
                let start = std::time::Instant::now();
                let mut sent = 0;
                for at in (0..rows as usize).step_by(size) {
                    distributor.split(Batch::from(batch.slice(at, size)), |_, rows| sent += rows.num_rows());
                }
                distributor.finish(|_, rows| sent += rows.num_rows());
                assert_eq!(sent as u64, rows);
                best = best.min(start.elapsed().as_nanos() as f64 / rows as f64);
            }
            println!("exchange among two workers, {name}: {best:.1} ns per row");
        }
    }
}

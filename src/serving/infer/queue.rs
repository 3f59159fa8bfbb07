//! Which waiting requests are scored together, and when: dynamic batching without threads and without a clock of its own.
//!
//! Each version of a model has a lane, in which requests wait in the order of their arrival. A lane is due when it has a full batch, or when
//! its first request has waited for the lane's delay; with a delay of zero it is due at once, and what comes while all
//! scorers are busy is what forms batches. Of the lanes that are due, the one whose first request came first is next.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How a lane forms batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows of a batch at most; a request with more is a batch by itself.
    pub rows: usize,
    /// How long the first one waits for others.
    pub delay: Duration,
    /// Requests that may wait.
    pub waiting: usize,
}

/// A waiting request.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub rows: usize,
    pub bytes: usize,
    pub since: Instant,
    pub work: T,
}

struct Lane<T> {
    limits: Limits,
    waiting: VecDeque<Waiting<T>>,
    rows: usize,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The lane has its number.
    Lane,
    /// All lanes together have their bytes.
    Bytes,
}

/// What a scorer does next.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// Score these together.
    Batch(Vec<Waiting<T>>),
    /// Look again then.
    At(Instant),
    /// Nothing is waiting.
    Nothing,
}

/// All lanes.
pub(super) struct Queues<T> {
    /// Those in which something waits.
    lanes: BTreeMap<u64, Lane<T>>,
    bytes: usize,
    bytes_max: usize,
}

impl<T> Queues<T> {
    /// Without anything waiting, for inputs of this many bytes at most.
    pub fn new(bytes_max: usize) -> Queues<T> {
        Queues { lanes: BTreeMap::new(), bytes: 0, bytes_max }
    }

    /// Puts a request behind the others of its lane.
    ///
    /// # Errors
    /// The bound that it would break. A request is never too long by itself.
    pub fn offer(&mut self, lane: u64, limits: Limits, waiting: Waiting<T>) -> Result<(), Full> {
        if self.bytes > 0 && self.bytes.saturating_add(waiting.bytes) > self.bytes_max {
            return Err(Full::Bytes);
        }
        let lane = self.lanes.entry(lane).or_insert_with(|| Lane { limits, waiting: VecDeque::new(), rows: 0 });
        lane.limits = limits;
        if lane.waiting.len() >= limits.waiting {
            return Err(Full::Lane);
        }
        self.bytes += waiting.bytes;
        lane.rows += waiting.rows;
        lane.waiting.push_back(waiting);
        Ok(())
    }

    /// Takes the next batch out.
    pub fn take(&mut self, now: Instant) -> Next<T> {
        let mut due: Option<(Instant, u64)> = None;
        let mut later: Option<Instant> = None;
        for (id, lane) in &self.lanes {
            let Some(first) = lane.waiting.front() else { continue };
            let full = lane.rows >= lane.limits.rows;
            let at = if full { first.since } else { first.since + lane.limits.delay };
            if full || at <= now {
                due = Some(due.map_or((first.since, *id), |best| best.min((first.since, *id))));
            } else {
                later = Some(later.map_or(at, |best| best.min(at)));
            }
        }
        let Some((_, id)) = due else {
            return later.map_or(Next::Nothing, Next::At);
        };
        let mut batch = Vec::new();
        if let Some(lane) = self.lanes.get_mut(&id) {
            let mut rows = 0usize;
            while let Some(next) = lane.waiting.front() {
                if !batch.is_empty() && rows.saturating_add(next.rows) > lane.limits.rows {
                    break;
                }
                rows = rows.saturating_add(next.rows);
                batch.extend(lane.waiting.pop_front());
            }
            lane.rows = lane.rows.saturating_sub(rows);
            self.bytes = self.bytes.saturating_sub(batch.iter().map(|w| w.bytes).sum());
            if lane.waiting.is_empty() {
                self.lanes.remove(&id);
            }
        }
        Next::Batch(batch)
    }

    /// Requests that wait, of all lanes.
    pub fn waiting(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(rows: usize, delay_ms: u64) -> Limits {
        Limits { rows, delay: Duration::from_millis(delay_ms), waiting: 8 }
    }

    fn waiting(work: usize, rows: usize, since: Instant) -> Waiting<usize> {
        Waiting { rows, bytes: 10, since, work }
    }

    fn works(next: Next<usize>) -> Vec<usize> {
        match next {
            Next::Batch(batch) => batch.into_iter().map(|w| w.work).collect(),
            other => panic!("no batch: {other:?}"),
        }
    }

    #[test]
    fn a_batch_is_due_when_it_is_full_or_old() {
        let (start, mut queues) = (Instant::now(), Queues::new(1000));
        queues.offer(1, limits(4, 5), waiting(0, 1, start)).expect("room");
        let due = start + Duration::from_millis(5);
        assert!(matches!(queues.take(start), Next::At(at) if at == due));
        queues.offer(1, limits(4, 5), waiting(1, 2, start)).expect("room");
        assert!(matches!(queues.take(start), Next::At(_)));
        queues.offer(1, limits(4, 5), waiting(2, 2, start)).expect("room");
        assert_eq!(works(queues.take(start)), [0, 1], "the third does not fit");
        assert_eq!(works(queues.take(due)), [2]);
        assert!(matches!(queues.take(due), Next::Nothing));
        // A request that is longer than a batch is one by itself.
        queues.offer(1, limits(4, 0), waiting(3, 9, start)).expect("room");
        queues.offer(1, limits(4, 0), waiting(4, 1, start)).expect("room");
        assert_eq!((works(queues.take(start)), works(queues.take(start))), (vec![3], vec![4]));
    }

    #[test]
    fn too_much_is_turned_away() {
        let (now, mut queues) = (Instant::now(), Queues::new(25));
        queues.offer(1, limits(1, 0), waiting(0, 1, now)).expect("room");
        queues.offer(1, limits(1, 0), waiting(1, 1, now)).expect("room");
        assert_eq!(queues.offer(2, limits(1, 0), waiting(2, 1, now)), Err(Full::Bytes));
        let few = Limits { waiting: 2, ..limits(1, 0) };
        assert_eq!(queues.offer(1, few, Waiting { bytes: 1, ..waiting(2, 1, now) }), Err(Full::Lane));
        assert_eq!((queues.waiting(), works(queues.take(now))), (2, vec![0]));
        queues.offer(2, limits(1, 0), waiting(3, 1, now)).expect("room again");
    }

    proptest! {
        /// Whatever comes when: each request is taken once, those of a lane in their order, no batch is longer than it may
        /// be or of two lanes, none is taken before it is due and none left when it is.
        #[test]
        fn all_are_taken_once_and_in_order(
            steps in prop::collection::vec((0u64..3, 1usize..6, 0u64..4, any::<bool>()), 1..60),
        ) {
            let start = Instant::now();
            let (mut queues, mut now) = (Queues::new(usize::MAX), start);
            let of = |lane: u64| Limits { rows: 4, delay: Duration::from_millis(lane * 3), waiting: usize::MAX };
            let (mut offered, mut taken): (Vec<Vec<usize>>, Vec<Vec<usize>>) = (vec![vec![]; 3], vec![vec![]; 3]);
            let mut drain = |queues: &mut Queues<(u64, usize)>, now: Instant, once: bool| loop {
                match queues.take(now) {
                    Next::Batch(batch) => {
                        let lane = batch[0].work.0;
                        let rows: usize = batch.iter().map(|w| w.rows).sum();
                        prop_assert!(!batch.is_empty() && batch.iter().all(|w| w.work.0 == lane));
                        prop_assert!(rows <= 4 || batch.len() == 1, "{} rows", rows);
                        taken[lane as usize].extend(batch.iter().map(|w| w.work.1));
                    }
                    Next::At(at) => { prop_assert!(at > now); break Ok(()) }
                    Next::Nothing => { prop_assert_eq!(queues.waiting(), 0); break Ok(()) }
                }
                if once { break Ok(()) }
            };
            for (number, (lane, rows, later, look)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(later);
                offered[lane as usize].push(number);
                let one = Waiting { rows, bytes: rows, since: now, work: (lane, number) };
                prop_assert!(queues.offer(lane, of(lane), one).is_ok());
                if look { drain(&mut queues, now, number % 2 == 0)?; }
            }
            drain(&mut queues, now + Duration::from_secs(1), false)?;
            prop_assert_eq!(offered, taken);
            prop_assert_eq!(queues.bytes, 0);
        }
    }
}

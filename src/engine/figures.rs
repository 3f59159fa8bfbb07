//! What checkpoints and a recovery cost, measured while the job runs and told in its summary.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::run::LatencySummary;
use crate::base::{Epoch, Tick};
use crate::state::{SnapshotSize, Written};

/// Not known yet.
const UNKNOWN: u64 = u64::MAX;

/// How a start went on from saved state. Times run from the beginning of the start.
#[derive(Clone, Debug, Serialize)]
pub struct RecoverySummary {
    /// When the start began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// The epoch that was loaded.
    pub epoch: Epoch,
    /// Bytes of its snapshot.
    pub state_bytes: u64,
    /// Until the snapshot was read, in milliseconds.
    pub read_ms: f64,
    /// Until all operators had it.
    pub loaded_ms: f64,
    /// Ticks of the tick log that came after it.
    pub replayed_ticks: u64,
    /// The last of them, or the last tick of the snapshot.
    pub replayed_through: Option<Tick>,
    /// Until they were through the graph.
    pub caught_up_ms: f64,
}

/// What checkpoints cost a run.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointSummary {
    /// Epochs committed.
    pub count: u64,
    /// Bytes of the last snapshot.
    pub bytes_last: u64,
    /// Bytes of all.
    pub bytes_total: u64,
    /// Bytes that a whole one takes, by those of each key slot when it was last written anew; 0 before that.
    pub bytes_whole: u64,
    /// Mean of the incremental ones; none when there was none.
    pub bytes_incremental_mean: Option<f64>,
    /// The latest, oldest first.
    pub recent: Vec<SnapshotSize>,
    /// The longest that a view's rows waited for a snapshot, in milliseconds: a freeze, a slice that was being written, or what a
    /// tick took longer than others while frozen keys had to be written first.
    pub longest_pause_ms: f64,
    /// The longest freeze, with what was left to write of the epoch before.
    pub longest_freeze_ms: f64,
    /// The longest slice.
    pub longest_slice_ms: f64,
    /// The longest tick of a view while keys were frozen.
    pub longest_tick_frozen_ms: f64,
    /// The longest tick of a view otherwise.
    pub longest_tick_ms: f64,
    /// From a tick's entry in the tick log until it was durable, in milliseconds.
    pub durable_ms: Option<LatencySummary>,
}

/// Measures.
pub struct Figures {
    began: Instant,
    began_unix_ms: u64,
    recovered: Option<Recovered>,
    loaded_us: AtomicU64,
    caught_up_us: AtomicU64,
    pause_us: AtomicU64,
    freeze_us: AtomicU64,
    slice_us: AtomicU64,
    tick_frozen_us: AtomicU64,
    tick_us: AtomicU64,
}

/// What a start went on from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovered {
    /// The epoch.
    pub epoch: Epoch,
    /// Bytes of its snapshot.
    pub bytes: u64,
    /// How long it took to read it.
    pub read: Duration,
    /// The first tick to replay.
    pub first: Tick,
    /// The first tick behind them.
    pub end: Tick,
}

/// What is known of a view's ticks while nothing is frozen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usual {
    rows: u64,
    took: Duration,
}

impl Figures {
    /// Begins to measure, for a start that began at `began`.
    pub fn new(began: Instant, recovered: Option<Recovered>) -> Figures {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Figures {
            began,
            began_unix_ms: now.saturating_sub(began.elapsed()).as_millis() as u64,
            recovered,
            loaded_us: AtomicU64::new(UNKNOWN),
            caught_up_us: AtomicU64::new(UNKNOWN),
            pause_us: AtomicU64::new(0),
            freeze_us: AtomicU64::new(0),
            slice_us: AtomicU64::new(0),
            tick_frozen_us: AtomicU64::new(0),
            tick_us: AtomicU64::new(0),
        }
    }

    /// All operators have what was saved.
    pub fn loaded(&self) {
        self.loaded_us.store(self.since_began(), Ordering::Relaxed);
    }

    /// Notes when the ticks to replay are through the graph.
    pub fn look(&self, is_through: impl Fn(Tick) -> bool) {
        let Some(recovered) = &self.recovered else { return };
        let is_new = || self.caught_up_us.load(Ordering::Relaxed) == UNKNOWN;
        if is_new() && (recovered.end <= recovered.first || is_through(recovered.end - 1)) {
            self.caught_up_us.store(self.since_began(), Ordering::Relaxed);
        }
    }

    /// A view was frozen.
    pub fn freeze(&self, took: Duration) {
        raise(&self.freeze_us, took);
        raise(&self.pause_us, took);
    }

    /// A view wrote a slice.
    pub fn slice(&self, took: Duration) {
        raise(&self.slice_us, took);
        raise(&self.pause_us, took);
    }

    /// A view worked on a tick.
    pub fn tick(&self, took: Duration, rows: usize, frozen: bool, usual: &mut Usual) {
        let rows = rows as u64;
        if frozen {
            raise(&self.tick_frozen_us, took);
            let per_row = usual.took.as_secs_f64() / usual.rows.max(1) as f64;
            raise(&self.pause_us, took.saturating_sub(Duration::from_secs_f64(per_row * rows as f64)));
        } else {
            raise(&self.tick_us, took);
            usual.rows += rows;
            usual.took += took;
        }
    }

    /// How the start went, where it went on from something.
    pub fn recovery(&self) -> Option<RecoverySummary> {
        let recovered = self.recovered?;
        let ms = |us: &AtomicU64| match us.load(Ordering::Relaxed) {
            UNKNOWN => self.since_began() as f64 / 1e3,
            us => us as f64 / 1e3,
        };
        Some(RecoverySummary {
            began_unix_ms: self.began_unix_ms,
            epoch: recovered.epoch,
            state_bytes: recovered.bytes,
            read_ms: recovered.read.as_secs_f64() * 1e3,
            loaded_ms: ms(&self.loaded_us),
            replayed_ticks: recovered.end.saturating_sub(recovered.first),
            replayed_through: recovered.end.checked_sub(1),
            caught_up_ms: ms(&self.caught_up_us),
        })
    }

    /// What checkpoints cost, given what was written.
    pub fn checkpoints(&self, written: &Written, durable_ms: Option<LatencySummary>) -> CheckpointSummary {
        let ms = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e3;
        let incremental = written.count - written.whole_count;
        CheckpointSummary {
            count: written.count,
            bytes_last: written.recent.back().map_or(0, |size| size.bytes),
            bytes_total: written.bytes,
            bytes_whole: written.whole_now,
            bytes_incremental_mean: (incremental > 0)
                .then(|| (written.bytes - written.whole_bytes) as f64 / incremental as f64),
            recent: written.recent.iter().copied().collect(),
            longest_pause_ms: ms(&self.pause_us),
            longest_freeze_ms: ms(&self.freeze_us),
            longest_slice_ms: ms(&self.slice_us),
            longest_tick_frozen_ms: ms(&self.tick_frozen_us),
            longest_tick_ms: ms(&self.tick_us),
            durable_ms,
        }
    }

    fn since_began(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

fn raise(longest: &AtomicU64, took: Duration) {
    longest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frozen_keys_cost_is_told_apart_from_what_rows_cost() {
        let figures = Figures::new(Instant::now(), None);
        let mut usual = Usual::default();
        let ms = Duration::from_millis;
        figures.tick(ms(100), 100_000, false, &mut usual);
        figures.tick(ms(300), 200_000, true, &mut usual);
        figures.tick(ms(60), 50_000, true, &mut usual);
        figures.slice(ms(7));
        let summary = figures.checkpoints(&Written::default(), None);
        assert!((summary.longest_pause_ms - 100.0).abs() < 0.01, "{}", summary.longest_pause_ms);
        assert_eq!((summary.longest_tick_ms, summary.longest_tick_frozen_ms), (100.0, 300.0));
        figures.freeze(ms(150));
        let summary = figures.checkpoints(&Written::default(), None);
        assert_eq!((summary.longest_pause_ms, summary.longest_slice_ms), (150.0, 7.0));
    }

    #[test]
    fn a_start_has_caught_up_when_the_last_recorded_tick_is_through() {
        let recovered = Recovered { epoch: 3, bytes: 9, first: 10, end: 13, ..Recovered::default() };
        let figures = Figures::new(Instant::now(), Some(recovered));
        let known = || figures.caught_up_us.load(Ordering::Relaxed) != UNKNOWN;
        figures.look(|tick| tick < 12);
        assert!(!known());
        figures.look(|tick| tick < 13);
        assert!(known());
        let at = figures.recovery().expect("it was one").caught_up_ms;
        figures.look(|_| true);
        let summary = figures.recovery().expect("it was one");
        assert_eq!((summary.caught_up_ms, summary.replayed_ticks, summary.state_bytes), (at, 3, 9));
        // Nothing to replay.
        let figures = Figures::new(Instant::now(), Some(Recovered { end: 10, ..recovered }));
        figures.look(|_| false);
        assert_ne!(figures.caught_up_us.load(Ordering::Relaxed), UNKNOWN);
    }
}

//! What all workers of one job share: the plan, the stop switch, the first failure, the counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::EngineError;
use super::checkpoint::Checkpoints;
use super::observe::Observer;
use super::offsets::Offsets;
use super::online_redis::Left;
use super::rollout::Rollouts;
use super::run::{Alter, Tap};
use super::status::StopMode;
use super::status::letters::Letters;
use super::status::savepoints::Asked;
use super::telemetry::Meters;
use crate::base::{EventTime, Tick};
use crate::ingest::aligned::{Cut, LaneView};
use crate::ingest::ticks::{Delays, Durable, TickLog, TickRecord};
use crate::ingest::{Counts, DeadLetter};
use crate::plan::model::Plan;

/// Asks a running job to stop; clones share one switch.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicU8>);

/// Nobody has asked.
const GOES_ON: u8 = 0;
const CHECKPOINT: u8 = 1;
const DRAIN: u8 = 2;
const NOW: u8 = 3;

impl StopHandle {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the job to take in no more events, finish what it has read, and end. One that was asked before ends as it was asked.
    pub fn stop(&self) {
        let _ = self.stop_by(StopMode::Checkpoint);
    }

    /// Asks the job to end in this way. [`StopMode::Now`] goes before what was asked earlier.
    ///
    /// # Errors
    /// How the job was asked to end before: another way, which it may have gone already.
    pub fn stop_by(&self, mode: StopMode) -> Result<(), StopMode> {
        let wanted = match mode {
            StopMode::Checkpoint => CHECKPOINT,
            StopMode::Drain => DRAIN,
            StopMode::Now => NOW,
        };
        let next = |was| (was == GOES_ON || wanted == NOW).then_some(wanted);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(was) if was == wanted => Ok(()),
            Err(was) => Err(mode_of(was).unwrap_or(mode)),
        }
    }

    /// Whether the job was asked to end.
    pub fn is_stopped(&self) -> bool {
        self.mode().is_some()
    }

    /// How the job was asked to end.
    pub fn mode(&self) -> Option<StopMode> {
        mode_of(self.0.load(Ordering::Relaxed))
    }
}

fn mode_of(number: u8) -> Option<StopMode> {
    match number {
        CHECKPOINT => Some(StopMode::Checkpoint),
        DRAIN => Some(StopMode::Drain),
        NOW => Some(StopMode::Now),
        _ => None,
    }
}

/// The first failure of a job.
#[derive(Debug, Default)]
pub struct Failure {
    error: Mutex<Option<EngineError>>,
    failed: AtomicBool,
}

impl Failure {
    /// Records a failure, if it is the first.
    pub fn fail(&self, error: EngineError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// Whether there was one.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// What it says.
    pub fn text(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }

    /// Takes it out.
    pub fn take(&self) -> Option<EngineError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Source, partition and kind of rows turned away.
type Place = (Arc<str>, u16, &'static str);

/// State shared by the workers of one job.
pub struct Shared {
    /// The compiled plan.
    pub plan: Arc<Plan>,
    /// What the job counts for those who watch it from outside.
    pub meters: Meters,
    /// Who watches the job.
    pub observer: Option<Arc<Observer>>,
    /// Who sees the rows at the end of chains.
    pub tap: Option<Tap>,
    /// Who alters them.
    pub alter: Option<Alter>,
    /// Tells the brokers how far topics have been read.
    pub offsets: Offsets,
    /// The tick log, where the job has a state directory.
    tick_log: Option<(Mutex<TickLog>, Durable)>,
    stop: StopHandle,
    failure: Arc<Failure>,
    /// Names the outbox of this start beside the tables.
    pub outbox: String,
    /// Versions of models that take each other's place.
    pub rollouts: Rollouts,
    /// Checkpoints: where state is saved, and restored from.
    pub checkpoints: Checkpoints,
    /// The newest dead letters.
    pub letters: Letters,
    /// Savepoints that were asked for.
    pub savepoints: Asked,
    /// Raw rows read.
    pub rows_read: AtomicU64,
    /// Rows scored.
    pub rows_scored: AtomicU64,
    /// Rows turned away.
    pub dead_letters: AtomicU64,
    /// Ticks cut.
    pub ticks: AtomicU64,
    /// The latest watermark.
    pub watermark: AtomicI64,
    /// How often the thread that reads has found the workers behind.
    pub behind: AtomicUsize,
    /// Keys over all views and workers, and the bytes of their state, as of the end.
    pub keys: AtomicU64,
    /// Bytes of state at the end.
    pub state_bytes: AtomicU64,
    /// Longest time that a view took for the rows of one tick, in microseconds.
    pub longest_stall_us: AtomicU64,
    /// What stages leave at their last tick for an online store that may lose its values.
    pub left: Left,
    counts: Mutex<Vec<Counts>>,
    turned_away: Mutex<BTreeMap<Place, u64>>,
}

/// Rows turned away, of one source and partition and for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TurnedAway {
    /// Name of the source.
    pub source: String,
    /// Partition of the source.
    pub partition: u16,
    /// Why, in one word, as in the tables of dead letters.
    pub kind: &'static str,
    /// How many.
    pub rows: u64,
}

/// What is counted for whom, who watches, who may stop the job, who sees and who alters its rows.
pub type Watchers = (Meters, Option<Arc<Observer>>, StopHandle, Option<Tap>, Option<Alter>);

impl Shared {
    /// Shared state of a job that is about to start.
    pub fn new(
        plan: Arc<Plan>,
        tick_log: Option<TickLog>,
        failure: Arc<Failure>,
        checkpoints: Checkpoints,
        offsets: Offsets,
        (outbox, rollouts): (String, Rollouts),
        (meters, observer, stop, tap, alter): Watchers,
    ) -> Arc<Self> {
        Arc::new(Shared {
            plan,
            tick_log: tick_log.map(|log| {
                let durable = log.handle();
                (Mutex::new(log), durable)
            }),
            offsets,
            meters,
            observer,
            stop,
            tap,
            alter,
            failure,
            rollouts,
            checkpoints,
            outbox,
            letters: Letters::default(),
            savepoints: Asked::default(),
            rows_read: AtomicU64::new(0),
            rows_scored: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            watermark: AtomicI64::new(EventTime::MIN),
            behind: AtomicUsize::new(0),
            keys: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            longest_stall_us: AtomicU64::new(0),
            left: Left::default(),
            counts: Mutex::new(Vec::new()),
            turned_away: Mutex::default(),
        })
    }

    /// Records the first failure and makes every worker end.
    pub fn fail(&self, error: EngineError) {
        self.failure.fail(error);
    }

    /// Whether some worker has failed.
    pub fn failed(&self) -> bool {
        self.failure.failed()
    }

    /// Takes the failure out.
    pub fn take_failure(&self) -> Option<EngineError> {
        self.failure.take()
    }

    /// What the failure says.
    pub fn failure(&self) -> Option<String> {
        self.failure.text()
    }

    /// How the job was asked to stop.
    pub fn stop_mode(&self) -> Option<StopMode> {
        self.stop.mode()
    }

    /// Whether the job was asked to stop.
    pub fn stopping(&self) -> bool {
        self.stop.is_stopped()
    }

    /// Notes the input of a tick.
    pub fn note_cut(&self, cut: &Cut, counts: &[Counts], lanes: Vec<LaneView>) {
        self.rows_read.fetch_add(cut.rows, Ordering::Relaxed);
        self.dead_letters.fetch_add(cut.dead.len() as u64, Ordering::Relaxed);
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.watermark.store(cut.info.now, Ordering::Relaxed);
        self.count_letters(&cut.dead);
        self.meters.cut(&cut.info, &cut.offsets, counts, lanes);
        if let Some(observer) = &self.observer {
            observer.on_tick(&cut.info, &cut.offsets, cut.rows, cut.dead.len() as u64);
            for (source, batch) in &cut.batches {
                observer.on_labels(*source, batch);
            }
        }
        if cut.info.epoch_end {
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts.to_vec();
        }
    }

    /// Row counts per source as of the last epoch's end.
    pub fn counts(&self) -> Vec<Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_letters(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        self.letters.keep(letters);
        let mut counts = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        for letter in letters {
            *counts.entry((Arc::clone(&letter.source), letter.partition, letter.kind.as_str())).or_default() += 1;
        }
    }

    /// Rows turned away so far, by source, partition and kind.
    pub fn turned_away(&self) -> Vec<TurnedAway> {
        let counts = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |((source, partition, kind), rows): (&(Arc<str>, u16, &'static str), &u64)| TurnedAway {
            source: source.to_string(),
            partition: *partition,
            kind,
            rows: *rows,
        };
        counts.iter().map(one).collect()
    }

    /// Notes rows turned away past ingest.
    pub fn note_dead_letters(&self, letters: &[DeadLetter]) {
        let rows = letters.len() as u64;
        self.dead_letters.fetch_add(rows, Ordering::Relaxed);
        self.count_letters(letters);
        if let Some(observer) = &self.observer {
            observer.on_dead_letters(rows);
        }
    }

    /// Notes the time that a view took for a tick.
    pub fn note_work(&self, took: Duration) {
        self.longest_stall_us.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// Writes a tick's record, where the job keeps a log.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn log_tick(&self, record: &TickRecord) -> Result<(), EngineError> {
        match &self.tick_log {
            Some((log, _)) => Ok(log.lock().unwrap_or_else(PoisonError::into_inner).append(record)?),
            None => Ok(()),
        }
    }

    /// How long ticks waited for the disk; none without a tick log.
    pub fn tick_log_delays(&self) -> Option<Delays> {
        self.tick_log.as_ref().and_then(|(_, durable)| durable.delays())
    }

    /// Whether the log of `tick` is on disk.
    pub fn is_durable(&self, tick: Tick) -> bool {
        self.tick_log.as_ref().is_none_or(|(_, durable)| durable.ticks() > tick)
    }

    /// Waits until the log of `tick` is on disk: nothing may leave the job before. False when the log has failed.
    pub fn wait_durable(&self, tick: Tick) -> bool {
        let Some((_, durable)) = &self.tick_log else {
            return true;
        };
        match durable.wait(tick) {
            Ok(()) => true,
            Err(error) => {
                self.fail(error.into());
                false
            }
        }
    }
}

/// A name that no other start has: wall-clock nanoseconds and the process.
pub fn instance_id() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:x}-{:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_as_it_was_asked_first_unless_at_once() {
        use StopMode::{Checkpoint, Drain, Now};
        let stop = StopHandle::new();
        assert_eq!((stop.is_stopped(), stop.mode()), (false, None));
        assert_eq!(stop.stop_by(Drain), Ok(()));
        assert_eq!((stop.stop_by(Drain), stop.stop_by(Checkpoint), stop.mode()), (Ok(()), Err(Drain), Some(Drain)));
        stop.stop();
        assert_eq!(stop.mode(), Some(Drain), "a signal does not change its mind");
        assert_eq!((stop.stop_by(Now), stop.stop_by(Now), stop.mode()), (Ok(()), Ok(()), Some(Now)));
        assert_eq!((stop.stop_by(Checkpoint), stop.stop_by(Drain)), (Err(Now), Err(Now)));
    }
}

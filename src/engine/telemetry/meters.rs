//! What is counted while a job runs, for metrics and for statistics of its operation. Nothing here costs more than an
//! addition per batch or a short lock per tick.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;
use super::data_paths;
use crate::base::{EventTime, Tick};
use crate::engine::RunOptions;
use crate::ingest::{Counts, TopicWatch};
use crate::ops::control::TickInfo;
use crate::plan::model::Plan;
use crate::telemetry::Histogram;

/// Bounds of a tick's way through the graph, in seconds.
const TICK_BOUNDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of an epoch's way to its readers, in seconds.
const EPOCH_BOUNDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Counts of a running job.
pub struct Meters {
    models: Vec<ModelMeter>,
    newest: Mutex<Newest>,
    underway: Mutex<VecDeque<(Tick, Instant)>>,
    tick_seconds: Histogram,
    epoch_seconds: Arc<Histogram>,
    topics: OnceLock<Vec<TopicWatch>>,
    /// The newest statistics.
    pub board: Board,
    /// Directories that the job writes to.
    pub paths: Vec<PathBuf>,
    building: AtomicUsize,
    /// The shortest time between two samples of the job's operation; none are taken without monitors, and in replays.
    every: Option<Duration>,
}

#[derive(Default)]
struct ModelMeter {
    scored: AtomicU64,
    unscored: AtomicU64,
}

/// How far the input has come, as of the newest tick.
#[derive(Clone, Debug, Default)]
pub struct Newest {
    /// Row counts by source.
    pub counts: Vec<Counts>,
    /// Next offsets by source and partition.
    pub offsets: Vec<Vec<u64>>,
    /// The job's clock in event time: the watermark, but never past the newest event.
    pub clock: Option<EventTime>,
    /// The newest tick.
    pub tick: Tick,
}

impl Meters {
    /// For a run that is about to start.
    pub fn new(plan: &Plan, workers: usize, options: &RunOptions) -> Meters {
        let every = plan.monitors.iter().map(|monitor| monitor.latency.every).min();
        Meters {
            models: plan.models.iter().map(|_| ModelMeter::default()).collect(),
            newest: Mutex::default(),
            underway: Mutex::default(),
            tick_seconds: Histogram::new(TICK_BOUNDS),
            epoch_seconds: Arc::new(Histogram::new(EPOCH_BOUNDS)),
            topics: OnceLock::new(),
            board: Board::default(),
            paths: data_paths(plan, options.state_dir.as_deref()),
            building: AtomicUsize::new(workers),
            every: every.filter(|_| options.replay.is_none()).map(|every| Duration::from_micros(every.unsigned_abs())),
        }
    }

    /// Whether the job's operation is sampled: what is on the wall clock is no part of a replay.
    pub fn samples(&self) -> bool {
        self.every.is_some()
    }

    /// Ticks are wanted at least this often, for samples are taken with them.
    pub fn beat(&self) -> Option<Duration> {
        self.every
    }

    /// A worker has built its graph.
    pub fn built(&self) {
        self.building.fetch_sub(1, Relaxed);
    }

    /// Whether all workers have.
    pub fn is_built(&self) -> bool {
        self.building.load(Relaxed) == 0
    }

    /// The topics that are read.
    pub fn watch_topics(&self, topics: Vec<TopicWatch>) {
        // Set once, before the run.
        let _ = self.topics.set(topics);
    }

    /// The topics that are read.
    pub fn topics(&self) -> &[TopicWatch] {
        self.topics.get().map_or(&[], Vec::as_slice)
    }

    /// A tick is on its way.
    pub fn cut(&self, info: &TickInfo, offsets: &[Vec<u64>], counts: &[Counts]) {
        lock(&self.underway).push_back((info.tick, Instant::now()));
        let mut newest = lock(&self.newest);
        newest.counts.clone_from_slice_or_grow(counts);
        newest.offsets.clone_from_slice_or_grow(offsets);
        newest.tick = info.tick;
        // The last tick releases what was read ahead: its clock says nothing about how far the job had come.
        let clock = if info.last { info.previous_watermark.min(info.now) } else { info.now };
        newest.clock =
            newest.clock.max(Some(clock).filter(|clock| (EventTime::MIN + 1..EventTime::MAX).contains(clock)));
    }

    /// How far the input has come.
    pub fn newest(&self) -> Newest {
        lock(&self.newest).clone()
    }

    /// Notes how long ticks took that are through the graph.
    pub fn through(&self, is_through: impl Fn(Tick) -> bool) {
        let mut underway = lock(&self.underway);
        while let Some((_, since)) = underway.pop_front_if(|(tick, _)| is_through(*tick)) {
            self.tick_seconds.record(since.elapsed());
        }
    }

    /// How long ticks took.
    pub fn tick_seconds(&self) -> &Histogram {
        &self.tick_seconds
    }

    /// How long epochs took from their last cut until they were published.
    pub fn epoch_seconds(&self) -> Arc<Histogram> {
        Arc::clone(&self.epoch_seconds)
    }

    /// A model scored rows, and could not score others.
    pub fn scored(&self, model: usize, scored: usize, unscored: usize) {
        let meter = &self.models[model];
        meter.scored.fetch_add(scored as u64, Relaxed);
        if unscored > 0 {
            meter.unscored.fetch_add(unscored as u64, Relaxed);
        }
    }

    /// Rows that a model scored, and those that it could not.
    pub fn model(&self, model: usize) -> (u64, u64) {
        let meter = &self.models[model];
        (meter.scored.load(Relaxed), meter.unscored.load(Relaxed))
    }
}

/// Copies a list over one that is kept, and its allocations with it.
trait CloneOver<T> {
    fn clone_from_slice_or_grow(&mut self, from: &[T]);
}

impl<T: Clone> CloneOver<T> for Vec<T> {
    fn clone_from_slice_or_grow(&mut self, from: &[T]) {
        self.truncate(from.len());
        let (over, more) = from.split_at(self.len());
        self.clone_from_slice(over);
        self.extend_from_slice(more);
    }
}

/// A panic elsewhere leaves counts as they were: good enough to be shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What is counted while a job runs, for metrics and for statistics of its operation. Nothing here costs more than an
//! addition per batch or a short lock per tick.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;
use super::data_paths;
use crate::base::{EventTime, Tick};
use crate::engine::RunOptions;
use crate::engine::status::flow::{Flow, Node};
use crate::engine::status::{AlertStatus, NodeKind, RouteStatus};
use crate::ingest::aligned::LaneView;
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
    /// The dataflow, and what goes through it.
    pub flow: Arc<Flow>,
    /// When the reader waited for the graph.
    pub backpressure: Waiting,
    /// The sources' nodes.
    sources: Vec<Arc<Node>>,
    /// What the state that the start went on from had counted of the sources.
    base: OnceLock<Vec<Counts>>,
    ended: AtomicBool,
    /// Alerts that are firing, by fingerprint.
    alerts: Mutex<BTreeMap<String, AlertStatus>>,
    /// Versions that score, by model.
    routes: Mutex<Vec<Vec<RouteStatus>>>,
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
    /// The partitions as they stood with it.
    pub lanes: Vec<LaneView>,
}

/// When something waited.
pub struct Waiting {
    begin: Instant,
    total_ns: AtomicU64,
    /// Nanoseconds since the beginning at which it began to wait, more one; 0 while it does not.
    since_ns: AtomicU64,
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { begin: Instant::now(), total_ns: AtomicU64::new(0), since_ns: AtomicU64::new(0) }
    }

    fn now_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Waits by `wait`.
    pub fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        let since = self.now_ns();
        self.since_ns.store(since + 1, Relaxed);
        let done = wait();
        // Who looks in between misses this wait once, and is right a moment later.
        self.since_ns.store(0, Relaxed);
        self.total_ns.fetch_add(self.now_ns() - since, Relaxed);
        done
    }

    /// How long it has waited in all, up to now.
    pub fn total(&self) -> Duration {
        let waits = self.since_ns.load(Relaxed).checked_sub(1).map_or(0, |since| self.now_ns().saturating_sub(since));
        Duration::from_nanos(self.total_ns.load(Relaxed) + waits)
    }
}

impl Meters {
    /// For a run that is about to start.
    pub fn new(plan: &Plan, workers: usize, options: &RunOptions) -> Meters {
        let flow = Arc::new(Flow::default());
        let every = plan.monitors.iter().map(|monitor| monitor.latency.every).min();
        Meters {
            models: plan.models.iter().map(|_| ModelMeter::default()).collect(),
            newest: Mutex::default(),
            underway: Mutex::default(),
            tick_seconds: Histogram::new(TICK_BOUNDS),
            epoch_seconds: Arc::new(Histogram::new(EPOCH_BOUNDS)),
            topics: OnceLock::new(),
            board: Board::default(),
            sources: plan.sources.iter().map(|source| flow.node(NodeKind::Source, &source.name)).collect(),
            flow,
            backpressure: Waiting::new(),
            base: OnceLock::new(),
            ended: AtomicBool::new(false),
            alerts: Mutex::default(),
            routes: Mutex::new(vec![Vec::new(); plan.models.len()]),
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
    pub fn cut(&self, info: &TickInfo, offsets: &[Vec<u64>], counts: &[Counts], lanes: Vec<LaneView>) {
        for (source, (node, counts)) in self.sources.iter().zip(counts).enumerate() {
            node.came(counts.read - self.base(source).0);
        }
        lock(&self.underway).push_back((info.tick, Instant::now()));
        let mut newest = lock(&self.newest);
        newest.counts.clone_from_slice_or_grow(counts);
        newest.offsets.clone_from_slice_or_grow(offsets);
        newest.tick = info.tick;
        newest.lanes = lanes;
        // The last tick releases what was read ahead: its clock says nothing about how far the job had come.
        let clock = if info.last { info.previous_watermark.min(info.now) } else { info.now };
        newest.clock =
            newest.clock.max(Some(clock).filter(|clock| (EventTime::MIN + 1..EventTime::MAX).contains(clock)));
    }

    /// Notes what was counted of the sources before this start.
    pub fn begin_with(&self, counts: &[Counts]) {
        // Set once, before the run.
        let _ = self.base.set(counts.to_vec());
    }

    /// Rows of a source that were read, and accepted, before this start.
    fn base(&self, source: usize) -> (u64, u64) {
        let counts = self.base.get().and_then(|counts| counts.get(source));
        counts.map_or((0, 0), |counts| (counts.read, counts.accepted))
    }

    /// The reader has come so far, and worked so long.
    pub fn ahead(&self, counts: &[Counts], worked: &[Duration]) {
        for (source, ((node, counts), worked)) in self.sources.iter().zip(counts).zip(worked).enumerate() {
            node.ahead(counts.accepted - self.base(source).1);
            node.has_worked(*worked);
        }
    }

    /// The nodes of the sources.
    pub fn sources(&self) -> Vec<Arc<Node>> {
        self.sources.clone()
    }

    /// Nothing more is read.
    pub fn input_ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Whether nothing more is read.
    pub fn has_input_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Ticks on their way.
    pub fn in_flight(&self) -> u64 {
        lock(&self.underway).len() as u64
    }

    /// An alert fires, or no longer.
    pub fn alert(&self, fingerprint: &str, firing: Option<AlertStatus>) {
        let mut alerts = lock(&self.alerts);
        match firing {
            Some(alert) => drop(alerts.insert(fingerprint.to_owned(), alert)),
            None => drop(alerts.remove(fingerprint)),
        }
    }

    /// Alerts that are firing.
    pub fn alerts(&self) -> Vec<AlertStatus> {
        lock(&self.alerts).values().cloned().collect()
    }

    /// These versions of a model score from now on.
    pub fn route(&self, model: usize, routes: Vec<RouteStatus>) {
        if let Some(known) = lock(&self.routes).get_mut(model) {
            *known = routes;
        }
    }

    /// The versions of a model that score.
    pub fn routes(&self, model: usize) -> Vec<RouteStatus> {
        lock(&self.routes).get(model).cloned().unwrap_or_default()
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

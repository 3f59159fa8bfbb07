//! The status of a job, put together when somebody asks, from what is counted anyway.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::flow::Counted;
use super::history::History;
use super::savepoints::{SavepointError, Savepoints};
use super::window::{Rates, Sample, Window};
use super::{
    EdgeStatus, GraphStatus, JobState, JobStatus, LatencyStatus, LetterStatus, ModelStatus, NodeKind, NodeStatus,
    PartitionStatus, SavepointRequest, SavepointStatus, SourceStatus, StopMode, TopicStatus,
};
use crate::base::{EventTime, format_time, wall_clock};
use crate::engine::EngineError;
use crate::engine::graph::Resources;
use crate::engine::shared::{Shared, StopHandle};
use crate::engine::topics;
use crate::plan::model::{Connector, Plan};

/// Counters are looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// What the control socket needs of a job.
pub struct Control {
    plan: Arc<Plan>,
    stop: StopHandle,
    /// The status as far as it does not change.
    fixed: Fixed,
    /// Savepoints.
    pub savepoints: Arc<Savepoints>,
    /// Checkpoints.
    pub history: Arc<History>,
    job: Mutex<Option<Attached>>,
    window: Mutex<Window>,
}

/// What does not change about a run.
pub struct Fixed {
    /// Hash of what the stateful operators mean.
    pub fingerprint: String,
    /// Number of the claim.
    pub generation: u64,
    /// When the run began.
    pub started: String,
    /// Worker threads.
    pub workers: usize,
}

#[derive(Clone)]
struct Attached {
    shared: Weak<Shared>,
    resources: Weak<Resources>,
}

impl Control {
    /// For a job that is about to start.
    pub fn new(plan: &Arc<Plan>, stop: StopHandle, fixed: Fixed, savepoints: Arc<Savepoints>) -> Arc<Control> {
        Arc::new(Control {
            plan: Arc::clone(plan),
            stop,
            fixed,
            savepoints,
            history: Arc::default(),
            job: Mutex::default(),
            window: Mutex::new(Window::new(Instant::now())),
        })
    }

    /// Tells of this job from now on.
    pub fn attach(&self, shared: &Arc<Shared>, resources: &Arc<Resources>) {
        let attached = Attached { shared: Arc::downgrade(shared), resources: Arc::downgrade(resources) };
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(attached);
        // It was told to end before there was something to end.
        if self.stop.mode() == Some(StopMode::Now) {
            shared.fail(EngineError::EndedNow);
        }
    }

    /// What does not change about the run.
    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    fn attached(&self) -> Option<Attached> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shared(&self) -> Weak<Shared> {
        self.attached().map_or_else(Weak::new, |attached| attached.shared)
    }

    /// Asks the job to end.
    ///
    /// # Errors
    /// How it was asked to end before.
    pub fn stop(&self, mode: StopMode) -> Result<(), StopMode> {
        self.stop.stop_by(mode)?;
        if mode == StopMode::Now
            && let Some(shared) = self.shared().upgrade()
        {
            shared.fail(EngineError::EndedNow);
        }
        Ok(())
    }

    /// Takes a savepoint.
    ///
    /// # Errors
    /// See [`SavepointError`].
    pub fn savepoint(&self, request: &SavepointRequest) -> Result<SavepointStatus, SavepointError> {
        self.savepoints.ask(request, &self.shared())
    }

    /// The newest dead letters.
    pub fn letters(&self, limit: usize) -> Vec<LetterStatus> {
        self.shared().upgrade().map_or_else(Vec::new, |shared| shared.letters.newest(limit))
    }

    /// Looks at the counters once a second, for rates.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(shared) = self.shared().upgrade() {
                let (sample, _) = sample(&shared);
                self.window.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now(), sample);
            }
        }
    }

    /// The status now.
    pub fn status(&self) -> JobStatus {
        let Fixed { fingerprint, generation, started, workers } = &self.fixed;
        let mut status = JobStatus {
            job: self.plan.job.clone(),
            version: self.plan.version,
            fingerprint: fingerprint.clone(),
            generation: *generation,
            started: started.clone(),
            workers: *workers,
            state: JobState::Starting,
            error: None,
            stopping: self.stop.mode(),
            input_ended: false,
            clock: None,
            clock_lag_ms: None,
            tick: 0,
            ticks: 0,
            ticks_in_flight: 0,
            ticks_in_flight_max: self.plan.ticks.in_flight_max as u64,
            backpressure: 0.0,
            rows_read: 0,
            rows_scored: 0,
            dead_letters: 0,
            keys: 0,
            state_bytes: 0,
            sources: Vec::new(),
            graph: GraphStatus::default(),
            checkpoints: self.history.newest(),
            epochs_outstanding: 0,
            models: Vec::new(),
            alerts: Vec::new(),
            topics: Vec::new(),
        };
        let Some(attached) = self.attached() else { return status };
        let Some(shared) = attached.shared.upgrade() else { return status };
        let (sample, counted) = sample(&shared);
        let rates = self.window.lock().unwrap_or_else(PoisonError::into_inner).rates(Instant::now(), &sample);
        self.tell(&mut status, &shared, &rates);
        if let Some(resources) = attached.resources.upgrade() {
            status.topics = written(&self.plan, &resources);
        }
        status.graph = graph(&shared, &counted, &rates, *workers, &status.topics);
        status
    }

    fn tell(&self, status: &mut JobStatus, shared: &Shared, rates: &Rates) {
        let newest = shared.meters.newest();
        status.state = match (shared.failed(), status.stopping, shared.meters.is_built()) {
            (true, Some(StopMode::Now), _) => JobState::Stopping,
            (true, ..) => JobState::Failed,
            (false, Some(_), _) => JobState::Stopping,
            (false, None, true) => JobState::Running,
            (false, None, false) => JobState::Starting,
        };
        status.error = shared.failure().filter(|_| status.state == JobState::Failed);
        status.input_ended = shared.meters.has_input_ended();
        status.clock = newest.clock.map(format_time);
        status.clock_lag_ms = newest.clock.map(|clock| (wall_clock() - clock) / 1_000);
        status.tick = newest.tick;
        status.ticks = shared.ticks.load(Relaxed);
        status.ticks_in_flight = shared.meters.in_flight();
        status.backpressure = rates.waited;
        status.rows_read = shared.rows_read.load(Relaxed);
        status.rows_scored = shared.rows_scored.load(Relaxed);
        status.dead_letters = shared.dead_letters.load(Relaxed);
        status.keys = shared.keys.load(Relaxed);
        status.state_bytes = shared.state_bytes.load(Relaxed);
        status.epochs_outstanding = shared.checkpoints.progress.outstanding();
        status.alerts = shared.meters.alerts();
        let watches = shared.meters.topics();
        for (index, source) in self.plan.sources.iter().enumerate() {
            let counts = newest.counts.get(index).cloned().unwrap_or_default();
            let watch = watches.iter().find(|watch| watch.source() == source.name);
            let up = watch.and_then(|watch| watch.is_up());
            let lanes = newest.lanes.iter().filter(|lane| lane.source == index);
            let time = |time: EventTime| (time != EventTime::MIN && time != EventTime::MAX).then(|| format_time(time));
            let partitions = lanes.map(|lane| PartitionStatus {
                partition: lane.partition as u32,
                next_offset: lane.next_offset,
                lag: watch
                    .and_then(|watch| watch.end_offset(lane.partition))
                    .map(|end| end.saturating_sub(lane.next_offset)),
                watermark: time(lane.watermark),
                idle: lane.idle,
                paused: lane.paused,
                ended: lane.ended,
            });
            let kind = match source.connector {
                Connector::File(_) => "file",
                Connector::Generator(_) => "generator",
                Connector::Kafka(_) => "kafka",
            };
            status.sources.push(SourceStatus {
                name: source.name.clone(),
                kind: kind.to_owned(),
                read: counts.read,
                accepted: counts.accepted,
                filtered: counts.filtered,
                late: counts.late_dropped,
                dead: counts.dead.values().sum(),
                rate: rates.read.get(index).copied().unwrap_or(0.0),
                up,
                partitions: partitions.collect(),
            });
        }
        for (index, model) in self.plan.models.iter().enumerate() {
            let (scored, unscored) = shared.meters.model(index);
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let latency = shared.observer.as_ref().and_then(|observer| observer.recent_of(index));
            status.models.push(ModelStatus {
                name: model.name.clone(),
                scored,
                unscored,
                routes: shared.meters.routes(index),
                latency_ms: latency.map(|[p50, p90, p99]| LatencyStatus { p50: ms(p50), p90: ms(p90), p99: ms(p99) }),
            });
        }
    }
}

/// The counters now, with those of the nodes in full.
fn sample(shared: &Shared) -> (Sample, Vec<Counted>) {
    let counted: Vec<Counted> = shared.meters.flow.nodes().iter().map(|node| node.counted()).collect();
    let sources = shared.meters.sources();
    let sample = Sample {
        read: sources.iter().map(|source| source.counted().rows_in).collect(),
        nodes: counted.iter().map(|c| [c.rows_in, c.rows_out, c.busy.as_nanos() as u64]).collect(),
        waited_ns: shared.meters.backpressure.total().as_nanos() as u64,
    };
    (sample, counted)
}

fn graph(shared: &Shared, counted: &[Counted], rates: &Rates, workers: usize, topics: &[TopicStatus]) -> GraphStatus {
    let mut graph = GraphStatus::default();
    // A node that was made since the counters were looked at is told of the next time.
    for ((node, counted), [rate_in, rate_out, busy]) in shared.meters.flow.nodes().iter().zip(counted).zip(&rates.nodes)
    {
        let topic = node.name.strip_prefix("topic/").filter(|_| node.kind == NodeKind::Sink);
        let delivered = topic.map(|name| topics.iter().filter(|t| t.topic == name).map(|t| t.delivered).sum());
        // The reader is one thread, whatever the workers.
        let threads = if node.kind == NodeKind::Source { 1 } else { workers };
        graph.nodes.push(NodeStatus {
            id: node.id.clone(),
            kind: node.kind,
            name: node.name.clone(),
            rows_in: counted.rows_in,
            rows_out: delivered.unwrap_or(counted.rows_out),
            rate_in: *rate_in,
            rate_out: *rate_out,
            queued: counted.queued,
            busy: (busy / threads as f64).clamp(0.0, 1.0),
            keys: counted.state.map(|(keys, _)| keys),
            state_bytes: counted.state.map(|(_, bytes)| bytes),
        });
        let edge = |from: String| EdgeStatus { from, to: node.id.clone() };
        graph.edges.extend(node.edges().into_iter().map(edge));
    }
    graph.nodes.sort_by(|a, b| (a.kind as u8, &a.id).cmp(&(b.kind as u8, &b.id)));
    graph.edges.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
    graph
}

fn written(plan: &Plan, resources: &Resources) -> Vec<TopicStatus> {
    let summaries = topics::summaries(plan, &resources.topics).into_iter().zip(&resources.topics);
    let told = |(summary, topic): (crate::engine::TopicSummary, &topics::OpenTopic)| TopicStatus {
        topic: summary.topic,
        rows: summary.rows,
        delivered: summary.delivered,
        up: topic.publisher().map(|publisher| !publisher.is_away()),
    };
    summaries.map(told).collect()
}

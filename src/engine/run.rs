//! Runs a plan: worker threads, the graph, the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use serde::Serialize;
use timely::{CommunicationConfig, Config, WorkerConfig};

use super::EngineError;
use super::checkpoint::{Checkpoints, Resumed, Target};
use super::figures::{CheckpointSummary, RecoverySummary};
use super::graph::{self, Built, OpenStore};
use super::monitor::receivers::{self, ReceiverSummary};
use super::observe::Observer;
use super::offsets::Offsets;
use super::outbox::{self, Staging};
use super::publish::{self, Publication};
use super::recovery::{self, Notice, Parts, Recovery, RestartOptions};
use super::retrain::{Retrainer, Retraining};
use super::rollout::{self, Pilot, Rollouts, Versions};
use super::shared::{self, Failure, Shared, StopHandle, TurnedAway};
use super::status::history::History;
use super::status::savepoints::Savepoints;
use super::status::{self, Control, Door, Fixed, StopMode};
use super::telemetry::{Meters, Telemetry};
use super::upkeep::UpkeepThread;
use super::{models, online_redis, online_sink, operators};
use crate::base::{Cores, Epoch, failpoint, format_time, hash_bytes, wall_clock};
use crate::ingest::aligned::{Afterwards, Aligned, EpochPolicy};
use crate::ingest::ticks::{self, TickLog};
use crate::ingest::{Counts, Reading};
use crate::ops::control::TickInfo;
use crate::plan::chain::Chain;
use crate::plan::model::Plan;
use crate::state::{self, Coordinator, Expected, Hooks, Progress as CheckpointProgress, Store};
use crate::store::offline::outbox_name;
use crate::store::online::Rank;
use crate::store::topic::transactions::Rightful;

/// How a job runs here (what it means is in its file).
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Worker threads; 0 counts as 1.
    pub workers: usize,
    /// End when all finite sources have ended, and topics where they ended when the job started; otherwise the job stays,
    /// reading and answering readers, until stopped.
    pub until_end: bool,
    /// Directory of the tick log and, unless the plan has them elsewhere, of the snapshots; none saves nothing.
    pub state_dir: Option<PathBuf>,
    /// What is done with state that is found there.
    pub restart: RestartOptions,
    /// Where a savepoint is written when the job ends.
    pub savepoint: Option<String>,
    /// Is told what a start does with the state that it found, before it does it.
    pub notice: Option<Notice>,
    /// Cut the input by this recorded tick log instead of anew: the same ticks, whatever the settings and the speed. With a
    /// state directory it is that directory's log, from the loaded state on. The run ends with the log.
    pub replay: Option<PathBuf>,
    /// Who watches.
    pub observer: Option<Arc<Observer>>,
    /// Tells of the run in metrics.
    pub telemetry: Option<Arc<Telemetry>>,
    /// Takes what retraining the job asks for; without anybody it is asked for in vain.
    pub retrain: Option<Arc<dyn Retrainer>>,
    /// Open a socket in the state directory by which others may watch and steer the job.
    pub control: bool,
    /// The switch that stops the job.
    pub stop: StopHandle,
    /// Called with the rows at the end of each chain.
    pub tap: Option<Tap>,
    /// Alters the rows at the end of each chain.
    pub alter: Option<Alter>,
}

/// Sees the rows at the end of every chain as they leave the last view: the tick and the batch, in the tick's order, from
/// any worker's thread.
pub type Tap = Arc<dyn Fn(&TickInfo, &RecordBatch) + Send + Sync>;

/// Puts another batch in the place of one at the end of a chain, where it returns one: for tests of what notices.
pub type Alter = Arc<dyn Fn(&TickInfo, &RecordBatch) -> Option<RecordBatch> + Send + Sync>;

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Name of the job.
    pub job: String,
    /// Worker threads.
    pub workers: usize,
    /// Raw rows read from all sources.
    pub rows_read: u64,
    /// Rows scored by all models.
    pub rows_scored: u64,
    /// Rows turned away to dead letters.
    pub dead_letters: u64,
    /// The same by source, partition and kind.
    pub turned_away: Vec<TurnedAway>,
    /// What the topics have got.
    pub topics: Vec<TopicSummary>,
    /// What became of the alerts, by receiver; topics are above.
    pub alerts: Vec<ReceiverSummary>,
    /// Ticks cut.
    pub ticks: u64,
    /// Wall time from the first read to the last commit, in seconds.
    pub seconds: f64,
    /// Entity keys held by all views at the end.
    pub keys: u64,
    /// Bytes of view state at the end.
    pub state_bytes: u64,
    /// Longest time that a view took for the rows of one tick, in milliseconds.
    pub longest_stall_ms: f64,
    /// What checkpoints cost; none without a state directory.
    pub checkpoints: Option<CheckpointSummary>,
    /// How the start went on from saved state; none where there was none.
    pub recovery: Option<RecoverySummary>,
    /// Time from the cut of the tick that read a row until it was scored, in milliseconds; none without an observer.
    pub latency_ms: Option<LatencySummary>,
    /// How the job was asked to end; none where its input had ended.
    pub stopped: Option<StopMode>,
    /// The job's clock at the end.
    pub clock: Option<String>,
    /// Per source: name and counts.
    pub sources: Vec<SourceSummary>,
}

/// Quantiles of a latency, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencySummary {
    /// Half of the rows were faster.
    pub p50: f64,
    /// 99 of 100 rows were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// Messages of one topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicSummary {
    /// Name of the topic.
    pub topic: String,
    /// What was published there: a table's name or `dead letters`.
    pub rows: String,
    /// Messages that the brokers acknowledged.
    pub delivered: u64,
}

/// Row counts of one source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceSummary {
    /// Name of the source.
    pub name: String,
    /// Its counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Rows of an epoch where neither the file nor the clock closes it.
const EPOCH_ROWS: u64 = 1_000_000;

/// Runs `plan` to its end, or until it is stopped.
///
/// # Errors
/// The first failure of any worker: a source that cannot be read, a store that cannot be written.
pub fn run(plan: Plan, options: RunOptions) -> Result<RunSummary, EngineError> {
    let mut claim = None;
    attempt(plan, options, &mut claim).map_err(|error| match claim {
        Some((store, generation)) => recovery::explained(error, &store, generation),
        None => error,
    })
}

/// Runs `plan`; notes in `claim` what was taken over, and under which number.
fn attempt(plan: Plan, options: RunOptions, claim: &mut Option<(Store, Epoch)>) -> Result<RunSummary, EngineError> {
    let began = Instant::now();
    let tell = |text: &str| options.notice.iter().for_each(|notice| notice(text));
    let plan = Arc::new(models::pinned(plan, options.state_dir.as_deref().or(options.replay.as_deref()), &tell)?);
    abort_on_panic_in_workers();
    options.savepoint.as_deref().map_or(Ok(()), state::check_savepoint_target)?;
    // What others may hold is opened before anybody is told to stop.
    let mut resources = graph::Resources::open(&plan)?;
    let mut recovery = match &options.state_dir {
        Some(dir) => Some(Recovery::open(dir, &plan, &resources.chains, &options)?),
        None => None,
    };
    if let Some((dir, recovery)) = options.state_dir.as_ref().zip(recovery.as_ref()) {
        // Before the first tick, and by nobody who has not taken the state over.
        models::Pins::of(&plan).write(dir, Some(&recovery.store))?;
    }
    let drained = recovery.as_ref().is_some_and(Recovery::drained);
    let control = recovery.as_ref().zip(options.state_dir.as_ref()).map(|(recovery, dir)| {
        let fixed = Fixed {
            fingerprint: fingerprint(&plan, &resources.chains),
            generation: recovery.opened.generation,
            started: format_time(wall_clock()),
            workers: options.workers.max(1),
        };
        let savepoints = Savepoints::new(dir, recovery.store.clone(), &plan.job);
        (Control::new(&plan, options.stop.clone(), fixed, savepoints), dir)
    });
    let control = control.filter(|_| options.control);
    let door = control.as_ref().and_then(|(control, dir)| open_door(control, dir, &options, &tell));
    let control = control.map(|(control, _)| control);
    *claim = recovery.as_ref().map(|recovery| (recovery.store.clone(), recovery.opened.generation));
    let rank = recovery.as_ref().map(|Recovery { opened, .. }| {
        // Numbers of claims grow with the order in which the state was taken over.
        Rank { instance: opened.instance.clone(), number: opened.generation }
    });
    resources.join_redis(&plan, rank)?;
    if let Some((open, loaded)) =
        resources.online.as_ref().zip(recovery.as_ref().and_then(|r| r.opened.loaded.as_ref()))
    {
        online_sink::tell_clock(open, &loaded.manifest, &options.stop)?;
    }
    let resumed = recovery.as_ref().map(|recovery| recovery.resumed(began, &resources)).unwrap_or_default();
    // A job that stays keeps the values of its last tick in Redis.
    let keeps = options.reading() == Reading::Live && matches!(resources.online, Some(OpenStore::Redis(_)));
    let mut aligned = input(&plan, &options, recovery.as_mut(), resumed.online_lost || keeps)?;
    let meters = Meters::new(&plan, options.workers.max(1), &options);
    meters.watch_topics(aligned.topic_watches());
    meters.begin_with(aligned.counts());
    let beats = meters.beat().into_iter().chain(rollout::wanted(&plan).then_some(rollout::BEAT));
    if let Some(beat) = beats.filter(|_| options.replay.is_none()).min() {
        aligned.beat_every(beat);
    }
    let history = control.as_ref().map(|control| Arc::clone(&control.history)).unwrap_or_default();
    let takeover = Takeover { began, recovery, resumed, history };
    let Job { shared, coordinator, publication } = Job::prepare(&plan, &options, resources, takeover, meters)?;
    let resources = &publication.resources;
    if let Some(control) = &control {
        control.attach(&shared, resources);
        control.savepoints.resume(&shared);
    }

    let names = || resources.specs().map(|spec| spec.name().to_owned()).collect();
    let upkeep = publication.root.clone().and_then(|root| UpkeepThread::spawn(root, names(), &plan));
    let pilot = Pilot::start(&shared)?;
    let started = Instant::now();
    let workers = options.workers.max(1);
    let outcome = work(&shared, resources, workers, aligned);
    if !shared.failed() {
        // The operator that looks after them has ended with its last tick.
        shared.meters.through(|_| true);
    }
    // Everything that was staged is committed and published, or the job has failed.
    shared.checkpoints.close();
    coordinator.finish();
    drop(upkeep);
    drop(pilot);
    outcome?;
    let seconds = started.elapsed().as_secs_f64();
    let savepoints = control.as_ref().map(|control| Arc::clone(&control.savepoints));
    match shared.take_failure() {
        Some(EngineError::EndedNow) => {
            drop(door);
            savepoints.iter().for_each(|savepoints| savepoints.finish());
            let topics = super::topics::summaries(&shared.plan, &resources.topics);
            return Ok(summary(&shared, workers, seconds, topics));
        }
        Some(error) => return Err(error),
        None => {}
    }
    shared.offsets.finish();
    if let (Some(dir), Some(target)) = (&options.state_dir, &options.savepoint) {
        recovery::save(&plan, dir, target)?;
    }
    if !options.until_end && !drained {
        // The sources have ended; the online store goes on answering until the job is stopped.
        if let Some(OpenStore::Redis(store)) = &resources.online {
            online_redis::keep(&shared, store, &|| options.stop.is_stopped())?;
        }
        while !options.stop.is_stopped() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    drop(door);
    savepoints.iter().for_each(|savepoints| savepoints.finish());
    let topics = super::topics::summaries(&shared.plan, &resources.topics);
    let alerts = receivers::summaries(&resources.receivers);
    Ok(RunSummary { alerts, ..summary(&shared, workers, seconds, topics) })
}

impl RunOptions {
    fn reading(&self) -> Reading {
        match (&self.replay, self.until_end) {
            (Some(_), _) => Reading::Replay,
            (None, true) => Reading::UntilEnd,
            (None, false) => Reading::Live,
        }
    }
}

/// The sources, where the run begins; `once_more` with one tick more where they had ended, for an online store that lacks values.
fn input(
    plan: &Plan,
    options: &RunOptions,
    recovery: Option<&mut Recovery>,
    once_more: bool,
) -> Result<Aligned, EngineError> {
    let reading = options.reading();
    let stateful = options.state_dir.is_some();
    let epochs = EpochPolicy {
        interval: Duration::from_micros(plan.checkpoint.interval.unsigned_abs()),
        rows: plan.checkpoint.rows.unwrap_or(if stateful { u64::MAX } else { EPOCH_ROWS }),
        timed: stateful,
    };
    let Some(recovery) = recovery else {
        let mut aligned = Aligned::begin(plan, reading, epochs)?;
        if let Some(dir) = &options.replay {
            aligned.follow(ticks::read(dir)?.records, Afterwards::End);
        }
        return Ok(aligned);
    };
    let mut aligned = recovery.reader(plan, reading, epochs)?;
    if once_more && aligned.has_ended() {
        aligned.once_more();
    }
    Ok(aligned)
}

/// What a start goes on from.
struct Takeover {
    began: Instant,
    recovery: Option<Recovery>,
    resumed: Resumed,
    history: Arc<History>,
}

/// Opens the socket by which others watch and steer the job; says why where it cannot.
fn open_door(control: &Arc<Control>, dir: &Path, options: &RunOptions, tell: &dyn Fn(&str)) -> Option<Door> {
    let Fixed { started, generation, .. } = control.fixed();
    let router = status::router(control, options.telemetry.as_deref());
    let opened = Door::open(dir, (started.as_str(), *generation), router, Arc::clone(control).watch());
    // The job is there for its rows, and runs without.
    opened.map_err(|error| tell(&format!("the job cannot be watched by a socket in {}: {error}", dir.display()))).ok()
}

/// Tells plans apart by what their state means.
fn fingerprint(plan: &Plan, chains: &[Chain]) -> String {
    let operators = operators::operators(plan, chains);
    let text: Vec<String> = operators.iter().map(|(name, meaning)| format!("{name}\n{meaning}\n")).collect();
    format!("{:016x}", hash_bytes(text.concat().as_bytes()))
}

/// A job that is ready to run: what earlier processes left is published, and epochs can be committed.
struct Job {
    shared: Arc<Shared>,
    coordinator: Coordinator,
    publication: Arc<Publication>,
}

impl Job {
    fn prepare(
        plan: &Arc<Plan>,
        options: &RunOptions,
        mut resources: graph::Resources,
        Takeover { began, recovery, mut resumed, history }: Takeover,
        meters: Meters,
    ) -> Result<Job, EngineError> {
        let instance = recovery.as_ref().map_or_else(shared::instance_id, |recovery| recovery.opened.instance.clone());
        let generation = recovery.as_ref().map_or(0, |recovery| recovery.opened.generation);
        let application = format!("{}/{instance}", plan.job);
        let failure = Arc::new(Failure::default());
        // Who reports what topics stage; there is nobody yet.
        let reports: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let rightful = recovery.as_ref().map(|recovery| {
            let store = recovery.store.clone();
            Rightful(Arc::new(move || {
                state::manifest::newer_claim(&store, generation).ok().map(|newer| newer.is_none())
            }))
        });
        let staging = options.state_dir.as_ref().map(|dir| Staging {
            directory: dir.join(outbox::FOLDER),
            application: application.clone(),
            generation,
            rightful,
            stage: publish::stage_topics(Arc::clone(&reports)),
        });
        resources.open_topics(plan, staging.as_ref())?;
        resources.retraining =
            options.retrain.clone().map(|retrainer| Retraining { retrainer, instance: instance.clone() });
        let resources = Arc::new(resources);
        let (log, staged, tick_log) = match recovery.map(|recovery| recovery.into_parts(plan.checkpoint.keep)) {
            None => (None, Vec::new(), None),
            Some(Parts { log, loaded, staged, tick_log }) => {
                resumed.loaded = loaded;
                (Some(log), staged, Some(tick_log))
            }
        };
        let durable = tick_log.as_ref().map(TickLog::handle);
        let publication = Arc::new(Publication {
            failure: Arc::clone(&failure),
            tick_log: durable.clone(),
            state_dir: options.state_dir.clone(),
            keep_ticks: Duration::from_micros(plan.checkpoint.keep_ticks.unsigned_abs()),
            application,
            stop: options.stop.clone(),
            root: plan.offline.as_ref().map(|offline| PathBuf::from(&offline.uri)),
            resources: Arc::clone(&resources),
            epoch_seconds: meters.epoch_seconds(),
            history,
            flow: OnceLock::new(),
            committers: Mutex::default(),
        });
        let hooks: Arc<dyn Hooks> = Arc::clone(&publication) as Arc<dyn Hooks>;
        if log.is_some() {
            publication.catch_up(&staged, &instance, generation)?;
            failpoint("restore.published");
        }
        // What earlier processes had staged is not this one's to count.
        let _ = publication.flow.set(Arc::clone(&meters.flow));
        if let Some(log) = &log {
            publication.history.found(&log.entries);
        }
        let workers = options.workers.max(1);
        let target =
            log.as_ref().map(|log| Target { store: log.store.clone(), generation, workers, hooks: Arc::clone(&hooks) });
        let progress = Arc::new(CheckpointProgress::default());
        if log.as_ref().is_none_or(|log| log.chain.is_empty()) {
            progress.want_whole();
        }
        let first = log.as_ref().map_or(0, |log| log.generation + 1);
        let expected = expected(plan, &resources, workers, first, log.is_some());
        let refused = |error: std::io::Error| EngineError::Workers(format!("a thread could not be started: {error}"));
        let (coordinator, reporter) =
            Coordinator::start(log, expected, Arc::clone(&progress), hooks).map_err(refused)?;
        let checkpoints = Checkpoints::start(began, target, resumed, progress, reporter)?;
        let offsets = match options.reading() {
            // What was read once is read again; nobody's lag changes.
            Reading::Replay => Offsets::default(),
            Reading::Live | Reading::UntilEnd => Offsets::start(plan, durable.as_ref())?,
        };
        let observer = options.observer.clone().or_else(|| {
            let wanted = options.replay.is_none() && (options.telemetry.is_some() || meters.samples());
            wanted.then(|| Arc::new(Observer::of_latency(plan)))
        });
        let watchers = (meters, observer, options.stop.clone(), options.tap.clone(), options.alter.clone());
        let outbox = outbox_name(&instance, generation);
        let versions = Versions::new(plan, &publication.resources.models);
        let rollouts = Rollouts::new(versions, options.replay.is_none());
        let outbox = (outbox, rollouts);
        let shared = Shared::new(Arc::clone(plan), tick_log, failure, checkpoints, offsets, outbox, watchers);
        // Set once, here.
        let _ = reports.set(Arc::downgrade(&shared));
        if let Some(telemetry) = &options.telemetry {
            telemetry.attach(&shared, &publication.resources);
        }
        Ok(Job { shared, coordinator, publication })
    }
}

/// What makes an epoch complete. `saved`: state is, so that a start goes on from here.
fn expected(plan: &Plan, resources: &graph::Resources, workers: usize, first: Epoch, saved: bool) -> Expected {
    let mut sinks = BTreeMap::new();
    if plan.offline.is_some() {
        sinks.insert(publish::OFFLINE.to_owned(), workers);
    }
    if resources.outboxes.is_some() {
        sinks.insert(publish::TOPICS.to_owned(), workers);
    }
    if saved && resources.sends() {
        sinks.insert(publish::SENT.to_owned(), workers);
    }
    if resources.online.is_some() {
        sinks.insert(publish::ONLINE.to_owned(), workers);
    }
    // Without operators that have state there is the reader's alone, on the first worker.
    let parts = if operators::operators(plan, &resources.chains).is_empty() { 1 } else { workers };
    Expected { first, parts, sinks }
}

/// Runs the graph to its end.
fn work(
    shared: &Arc<Shared>,
    resources: &Arc<graph::Resources>,
    workers: usize,
    reader: Aligned,
) -> Result<(), EngineError> {
    let config = Config {
        communication: if workers == 1 { CommunicationConfig::Thread } else { CommunicationConfig::Process(workers) },
        worker: WorkerConfig::default(),
    };
    let reader = Mutex::new(Some(reader));
    let (for_workers, for_graph) = (Arc::clone(shared), Arc::clone(resources));
    let guards = timely::execute(config, move |worker| {
        let shared = Arc::clone(&for_workers);
        let reader =
            if worker.index() == 0 { reader.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        let Built { done, mut looked } = graph::build(worker, Arc::clone(&shared), Arc::clone(&for_graph), reader);
        shared.checkpoints.built();
        shared.meters.built();
        let cores = Cores::shared_by(workers);
        let mut behind = 0;
        while !done.done() && !shared.failed() {
            let times = shared.behind.load(Ordering::Relaxed);
            if let Some(cores) = cores.as_ref().filter(|_| times != behind) {
                cores.go_to(worker.index());
            }
            behind = times;
            worker.step_or_park(Some(Duration::from_millis(50)));
            looked.look();
        }
        if shared.failed() {
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        }
    })
    .map_err(EngineError::Workers)?;
    for guard in guards.join() {
        guard.map_err(EngineError::Workers)?;
    }
    Ok(())
}

fn summary(shared: &Shared, workers: usize, seconds: f64, topics: Vec<TopicSummary>) -> RunSummary {
    let clock = shared.watermark.load(Ordering::Relaxed);
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let latency = shared.observer.as_ref().and_then(|observer| observer.snapshot().latency_total);
    RunSummary {
        job: shared.plan.job.clone(),
        workers,
        rows_read: shared.rows_read.load(Ordering::Relaxed),
        rows_scored: shared.rows_scored.load(Ordering::Relaxed),
        dead_letters: shared.dead_letters.load(Ordering::Relaxed),
        turned_away: shared.turned_away(),
        topics,
        alerts: Vec::new(),
        ticks: shared.ticks.load(Ordering::Relaxed),
        seconds,
        keys: shared.keys.load(Ordering::Relaxed),
        state_bytes: shared.state_bytes.load(Ordering::Relaxed),
        longest_stall_ms: shared.longest_stall_us.load(Ordering::Relaxed) as f64 / 1e3,
        checkpoints: shared.checkpoints.enabled().then(|| {
            let durable =
                shared.tick_log_delays().map(|d| LatencySummary { p50: ms(d.p50), p99: ms(d.p99), max: ms(d.max) });
            shared.checkpoints.figures.checkpoints(&shared.checkpoints.progress.written(), durable)
        }),
        recovery: shared.checkpoints.figures.recovery(),
        latency_ms: latency.map(|l| LatencySummary { p50: ms(l.p50), p99: ms(l.p99), max: ms(l.max) }),
        stopped: shared.stop_mode(),
        clock: (clock != i64::MIN).then(|| format_time(clock)),
        sources: shared
            .plan
            .sources
            .iter()
            .zip(shared.counts())
            .map(|(source, counts)| SourceSummary { name: source.name.clone(), counts })
            .collect(),
    }
}

/// A panic in one worker leaves the others stepping with a frozen frontier, so it ends the process.
fn abort_on_panic_in_workers() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A decoder that panics on damaged bytes is caught where it was called; the row is a dead letter.
            if crate::ingest::is_shielded() {
                return;
            }
            previous(info);
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if name.starts_with("timely:") || name.starts_with("tidemill-") {
                eprintln!("tidemill: a worker failed by a defect of the program; the process ends so that nothing half-done is published");
                std::process::abort();
            }
        }));
    });
}

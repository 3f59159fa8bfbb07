//! Runs a plan: worker threads, the graph, the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use serde::Serialize;
use timely::{CommunicationConfig, Config, WorkerConfig};

use super::EngineError;
use super::graph::{self, Built, OpenStore};
use super::observe::Observer;
use super::offsets::Offsets;
use super::online_redis;
use super::shared::{Shared, StopHandle, TurnedAway};
use crate::base::format_time;
use crate::ingest::aligned::{Aligned, EpochPolicy};
use crate::ingest::ticks::{self, TickLog};
use crate::ingest::{Counts, ReaderOptions, Reading, SourceReader};
use crate::ops::control::TickInfo;
use crate::plan::model::Plan;

/// How a job runs here (what it means is in its file).
#[derive(Clone, Default)]
pub struct RunOptions {
    /// Worker threads; 0 counts as 1.
    pub workers: usize,
    /// End when all finite sources have ended, and topics where they ended when the job started; otherwise the job stays,
    /// reading and answering readers, until stopped.
    pub until_end: bool,
    /// Directory of the tick log; none writes no log.
    pub state_dir: Option<PathBuf>,
    /// Cut the input by this recorded tick log instead of anew: the same ticks, whatever the settings and the speed.
    pub replay: Option<PathBuf>,
    /// Who watches.
    pub observer: Option<Arc<Observer>>,
    /// The switch that stops the job.
    pub stop: StopHandle,
    /// Called with the rows at the end of each chain.
    pub tap: Option<Tap>,
}

/// Sees the rows at the end of every chain as they leave the last view: the tick and the batch, in the tick's order, from
/// any worker's thread.
pub type Tap = Arc<dyn Fn(&TickInfo, &RecordBatch) + Send + Sync>;

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
    /// Time from the cut of the tick that read a row until it was scored, in milliseconds; none without an observer.
    pub latency_ms: Option<LatencySummary>,
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
    let workers = options.workers.max(1);
    let plan = Arc::new(plan);
    abort_on_panic_in_workers();
    let tick_log = options.state_dir.as_deref().map(open_tick_log).transpose()?;
    let mut readers = Vec::with_capacity(plan.sources.len());
    let reading = match (&options.replay, options.until_end) {
        (Some(_), _) => Reading::Replay,
        (None, true) => Reading::UntilEnd,
        (None, false) => Reading::Live,
    };
    for index in 0..plan.sources.len() {
        let options = ReaderOptions { reading, ..ReaderOptions::of(&plan, index) };
        readers.push(SourceReader::open(&plan.sources[index], options)?);
    }
    let interval = Duration::from_micros(plan.checkpoint.interval.unsigned_abs());
    let rows = plan.checkpoint.rows.unwrap_or(EPOCH_ROWS);
    let mut aligned = Aligned::new(&plan, readers, EpochPolicy { interval, rows });
    if let Some(dir) = &options.replay {
        aligned.follow(ticks::read(dir)?.records);
    }
    let reader = Mutex::new(Some(aligned));
    let offsets = match reading {
        // What was read once is read again; nobody's lag changes.
        Reading::Replay => Offsets::default(),
        Reading::Live | Reading::UntilEnd => Offsets::start(&plan, tick_log.as_ref().map(TickLog::handle).as_ref())?,
    };
    let (observer, stop) = (options.observer.clone(), options.stop.clone());
    let shared = Shared::new(Arc::clone(&plan), tick_log, offsets, observer, stop, options.tap.clone());
    let resources = Arc::new(graph::Resources::open(&plan)?);

    let started = Instant::now();
    let config = Config {
        communication: if workers == 1 { CommunicationConfig::Thread } else { CommunicationConfig::Process(workers) },
        worker: WorkerConfig::default(),
    };
    let for_workers = Arc::clone(&shared);
    let for_graph = Arc::clone(&resources);
    let guards = timely::execute(config, move |worker| {
        let shared = Arc::clone(&for_workers);
        let reader =
            if worker.index() == 0 { reader.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
        let Built { done } = graph::build(worker, Arc::clone(&shared), Arc::clone(&for_graph), reader);
        while !done.done() && !shared.failed() {
            worker.step_or_park(Some(Duration::from_millis(50)));
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
    if let Some(error) = shared.take_failure() {
        return Err(error);
    }
    let seconds = started.elapsed().as_secs_f64();
    shared.offsets.finish();
    if !options.until_end {
        // The sources have ended; the online store goes on answering until the job is stopped.
        if let Some(OpenStore::Redis(store)) = &resources.online {
            online_redis::keep(&shared, store, &|| options.stop.is_stopped())?;
        }
        while !options.stop.is_stopped() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let topics = super::topics::summaries(&shared.plan, &resources.topics);
    drop(resources);
    Ok(summary(&shared, workers, seconds, topics))
}

fn open_tick_log(dir: &Path) -> Result<TickLog, EngineError> {
    std::fs::create_dir_all(dir).map_err(|error| EngineError::StateDir { path: dir.to_owned(), error })?;
    TickLog::create(dir).map_err(EngineError::TickLog)
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
        ticks: shared.ticks.load(Ordering::Relaxed),
        seconds,
        keys: shared.keys.load(Ordering::Relaxed),
        state_bytes: shared.state_bytes.load(Ordering::Relaxed),
        longest_stall_ms: shared.longest_stall_us.load(Ordering::Relaxed) as f64 / 1e3,
        latency_ms: latency.map(|l| LatencySummary { p50: ms(l.p50), p99: ms(l.p99), max: ms(l.max) }),
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

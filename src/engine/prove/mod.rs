//! The proof: the recorded events replayed, and what comes out held against what was stored, bit for bit.
//!
//! What is proven are the rows of the newest epoch whose rows are in all tables, and of all before it: a running job is ahead
//! of that. The replay reads the sources again, cut by the tick log, with its sinks in a folder of its own (`replay`), at
//! several worker counts, and killed and resumed (`chaos`). Tables are compared date by date (`tables`, `compare`), online
//! values through the store's reader (`online`).

mod chaos;
mod compare;
mod online;
mod recorded;
mod replay;
mod show;
mod tables;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

pub use self::chaos::{Chaos, Kills, Launch, Started};
pub use self::online::OnlineProof;
use self::recorded::Recorded;
pub use self::replay::state_dir as state_of_replay;
use self::replay::{Injection, Place};
pub use self::show::{Difference, Shown};
use self::tables::Comparison;
pub use self::tables::TableProof;
use super::{EngineError, Observer, RunOptions, StopHandle, models};
use crate::base::{Epoch, EventTime, Tick};
use crate::plan::model::Plan;

/// Differences that are kept of each comparison.
const DIFFERENCES_MAX: usize = 10;

/// Called with the plan when a replay begins; what it returns watches until it is dropped.
pub type Watch = Arc<dyn Fn(&Plan) -> (Option<Arc<Observer>>, Box<dyn Any>) + Send + Sync>;

/// What to prove, and how.
#[derive(Clone, Default)]
pub struct ProveOptions {
    /// Directory of the job's state, with its tick log.
    pub state: PathBuf,
    /// Worker counts, each in turn.
    pub workers: Vec<usize>,
    /// Begin with the state of this epoch instead of with the first event.
    pub from_epoch: Option<Epoch>,
    /// Compare the rows of these event times alone.
    pub range: Range,
    /// Compare the online store too.
    pub online: bool,
    /// Replay with kills too.
    pub chaos: Option<Chaos>,
    /// Change one value of each replay by one unit in the last place.
    pub inject_ulp: bool,
    /// Count rows that the tick log does not cover instead of failing.
    pub allow_foreign: bool,
    /// Where replays have their folders; the state directory if nowhere else.
    pub scratch: Option<PathBuf>,
    /// The switch that ends it.
    pub stop: StopHandle,
    /// Who watches.
    pub watch: Option<Watch>,
}

/// Event times `[since, until)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub since: Option<EventTime>,
    /// Behind the last.
    pub until: Option<EventTime>,
}

impl Range {
    /// Whether a time is in it; rows without a time are in the whole alone.
    pub fn has(&self, time: Option<EventTime>) -> bool {
        match time {
            Some(time) => self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until),
            None => self.is_whole(),
        }
    }

    /// Whether it is all of time.
    pub fn is_whole(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }
}

/// What a proof found.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// Name of the job.
    pub job: String,
    /// Whether everything that was compared is the same in every bit.
    pub proven: bool,
    /// Where the replay began.
    pub from: String,
    /// The newest epoch that was proven.
    pub epoch: Epoch,
    /// A newer epoch that is committed and not published yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublished_epoch: Option<Epoch>,
    /// The first tick.
    pub first_tick: Tick,
    /// The last tick.
    pub last_tick: Tick,
    /// Replays, in the order in which they ran.
    pub runs: Vec<ProofRun>,
    /// Wall time of everything, in seconds.
    pub seconds: f64,
}

/// One replay and its comparison.
#[derive(Clone, Debug, Serialize)]
pub struct ProofRun {
    /// Worker threads; of a replay that was killed, those of each start.
    pub workers: Vec<usize>,
    /// What was done to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Kills>,
    /// Raw rows read; unknown of replays that were killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_read: Option<u64>,
    /// Wall time of the replay, in seconds.
    pub replay_seconds: f64,
    /// Wall time of the comparison, in seconds.
    pub compare_seconds: f64,
    /// The tables, up to the first that differs.
    pub tables: Vec<TableProof>,
    /// The online store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlineProof>,
    /// The first differences.
    pub differences: Vec<Difference>,
}

impl ProofRun {
    fn of(workers: Vec<usize>, replay_seconds: f64) -> ProofRun {
        ProofRun {
            workers,
            chaos: None,
            rows_read: None,
            replay_seconds,
            compare_seconds: 0.0,
            tables: Vec::new(),
            online: None,
            differences: Vec::new(),
        }
    }

    /// Rows that are the same in every bit, of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Proves what a job has recorded; ends with the first replay that differs.
///
/// # Errors
/// When it cannot be proven or refuted: there is no state, the input has changed, the job is another. A difference is no error.
pub fn prove(plan: &Plan, options: &ProveOptions) -> Result<Proof, EngineError> {
    let started = Instant::now();
    if plan.offline.is_none() {
        let what = "the job has no offline sink, so nothing is recorded that a replay could be held against";
        return Err(EngineError::Unprovable(what.to_owned()));
    }
    if options.online && plan.online.is_none() {
        return Err(EngineError::Unprovable("the job has no online sink; leave --online out".to_owned()));
    }
    let plan = &models::pinned(plan.clone(), Some(options.state.as_path()), &|_| ())?;
    let recorded = Recorded::find(plan, options)?;
    if options.online {
        online::check(plan, &recorded)?;
    }
    let parent = options.scratch.clone().unwrap_or_else(|| options.state.clone());
    let scratch = Place::new(&parent, &format!("prove-{}", super::shared::instance_id()))?;
    let mut proof = Proof {
        job: plan.job.clone(),
        proven: true,
        from: recorded.start.to_string(),
        epoch: recorded.epoch,
        unpublished_epoch: recorded.unpublished,
        first_tick: recorded.first_tick(),
        last_tick: recorded.last_tick(),
        runs: Vec::new(),
        seconds: 0.0,
    };
    let job = Job { plan, options, recorded: &recorded, scratch: scratch.path() };
    let workers = if options.workers.is_empty() { vec![1, 2] } else { options.workers.clone() };
    for (number, &workers) in workers.iter().enumerate() {
        let run = job.plain(workers, options.online && number == 0)?;
        proof.proven &= run.differences.is_empty();
        proof.runs.push(run);
        if !proof.proven {
            break;
        }
    }
    if let Some(chaos) = options.chaos.as_ref().filter(|_| proof.proven) {
        let slowest = proof.runs.iter().map(|run| run.replay_seconds).fold(0.0, f64::max);
        let run = job.chaos(chaos, slowest)?;
        proof.proven &= run.differences.is_empty();
        proof.runs.push(run);
    }
    proof.seconds = started.elapsed().as_secs_f64();
    Ok(proof)
}

/// Replays over a folder that [`prove`] prepared, in a process that may be killed.
///
/// # Errors
/// As [`super::run()`].
pub fn replay_into(plan: &Plan, place: &Path, workers: usize) -> Result<(), EngineError> {
    let plan = replay::redirected(plan, place, false);
    replay::replay(&plan, place, true, RunOptions { workers, ..RunOptions::default() }).map(|_| ())
}

struct Job<'a> {
    plan: &'a Plan,
    options: &'a ProveOptions,
    recorded: &'a Recorded,
    scratch: &'a Path,
}

impl Job<'_> {
    fn plain(&self, workers: usize, with_online: bool) -> Result<ProofRun, EngineError> {
        let place = Place::new(self.scratch, &format!("{workers}-workers"))?;
        replay::prepare(self.plan, self.recorded, place.path())?;
        let plan = replay::redirected(self.plan, place.path(), with_online);
        let injection = self.options.inject_ulp.then(|| Injection::new(self.plan, self.options));
        let (observer, watching) =
            self.options.watch.as_ref().map_or((None, Box::new(()) as Box<dyn Any>), |watch| watch(&plan));
        let options = RunOptions {
            workers,
            stop: self.options.stop.clone(),
            alter: injection.as_ref().map(|injection| Arc::clone(&injection.alter)),
            observer,
            ..RunOptions::default()
        };
        let summary = replay::replay(&plan, place.path(), false, options)?;
        drop(watching);
        self.not_stopped()?;
        if injection.is_some_and(|injection| !injection.is_done()) {
            let what = "--inject-ulp: no table has a float in the range, so there is nothing to change";
            return Err(EngineError::Unprovable(what.to_owned()));
        }
        let mut run = ProofRun::of(vec![workers], summary.seconds);
        run.rows_read = Some(summary.rows_read);
        self.compare(&mut run, place.path())?;
        if with_online && run.differences.is_empty() {
            let (proof, differences) = online::compare(self.plan, &replay::online(place.path()))?;
            run.online = Some(proof);
            run.differences = differences;
        }
        Ok(run)
    }

    fn chaos(&self, chaos: &Chaos, plain_seconds: f64) -> Result<ProofRun, EngineError> {
        let place = Place::new(self.scratch, "chaos")?;
        replay::prepare(self.plan, self.recorded, place.path())?;
        let started = Instant::now();
        let kills = chaos::run(chaos, place.path(), plain_seconds, &self.options.stop)?;
        self.not_stopped()?;
        let mut run = ProofRun::of(kills.workers(), started.elapsed().as_secs_f64());
        run.chaos = Some(kills);
        self.compare(&mut run, place.path())?;
        Ok(run)
    }

    fn compare(&self, run: &mut ProofRun, place: &Path) -> Result<(), EngineError> {
        let started = Instant::now();
        let comparison = Comparison { plan: self.plan, recorded: self.recorded, options: self.options };
        (run.tables, run.differences) = comparison.tables(&replay::lake(place))?;
        self.not_stopped()?;
        run.compare_seconds = started.elapsed().as_secs_f64();
        if run.differences.is_empty() && run.rows() == 0 {
            let what = "neither the tables nor the replay have a row in the range, so nothing is proven; widen it";
            return Err(EngineError::Unprovable(what.to_owned()));
        }
        Ok(())
    }

    fn not_stopped(&self) -> Result<(), EngineError> {
        match self.options.stop.is_stopped() {
            true => Err(EngineError::Unprovable("it was interrupted; nothing is proven".to_owned())),
            false => Ok(()),
        }
    }
}

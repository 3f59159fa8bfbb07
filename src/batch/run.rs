//! Runs one job of a queue: claims it, goes on where it was, says how it ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::BatchError;
use super::executor::{Processes, step_directory};
use super::journal::{Change, Input, Journal, Output, Record};
use super::load::load_request;
use super::process;
use super::queue::{Queue, Standing};
use super::runner::{Executor, Runner, Verdict};
use super::schedule::{Rule, Schedule, Start, State};
use crate::base::{EventTime, Micros, format_time};
use crate::plan::batch::{BatchPlan, StepPlan};

/// How a job goes, some times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Steps that are over, and of how many.
    pub over: usize,
    /// All steps.
    pub total: usize,
    /// The steps, in the order of the file.
    pub steps: Vec<StepProgress>,
    /// Time left in seconds, where it can be told from how far steps say they are and how long they took before.
    pub seconds_left: Option<f64>,
}

/// How a step goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepProgress {
    /// Its name.
    pub name: String,
    /// `queued`, `running`, `retrying`, `done`, `failed` or `skipped`.
    pub state: &'static str,
    /// The attempt that is under way or comes.
    pub attempt: Option<u32>,
    /// How long it has been running, or ran.
    pub seconds: Option<f64>,
    /// How far it is, from 0 to 1.
    pub fraction: Option<f64>,
    /// What it says, or why it is not done.
    pub text: String,
}

/// What became of a job.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Its name in the queue.
    pub id: String,
    /// The batch dataflow.
    pub batch: String,
    /// `done`, `failed`, `cancelled` or `interrupted`.
    pub state: &'static str,
    /// How long this run took, in seconds.
    pub seconds: f64,
    /// Where everything of it is.
    pub directory: PathBuf,
    /// The steps, in the order of the file.
    pub steps: Vec<StepSummary>,
}

/// What became of a step.
#[derive(Clone, Debug, Serialize)]
pub struct StepSummary {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: &'static str,
    /// How it stands.
    pub state: &'static str,
    /// Whether it was done by an earlier run, and found whole.
    pub reused: bool,
    /// How long its last attempt took.
    pub seconds: Option<f64>,
    /// Why, where it is not done.
    pub why: Option<String>,
    /// What it has read.
    pub inputs: Vec<Input>,
    /// What it has left, below `directory`.
    pub outputs: Vec<Output>,
    /// Where its outputs are.
    pub directory: PathBuf,
    /// What it tells.
    pub facts: Value,
    /// Its log.
    pub log: PathBuf,
}

/// How a job is run here.
pub struct RunOptions<'a> {
    /// The program whose processes carry out attempts: this one.
    pub program: PathBuf,
    /// Whether this process is to end.
    pub stopped: &'a dyn Fn() -> bool,
    /// Told how things go, some times a second.
    pub watch: &'a mut dyn FnMut(&Progress),
}

/// The rules of a batch dataflow's steps.
pub fn rules(plan: &BatchPlan) -> Vec<Rule> {
    let rule = |step: &StepPlan| Rule {
        name: step.name.clone(),
        needs: step.needs.clone(),
        retries: step.retries,
        backoff: step.backoff,
    };
    plan.steps.iter().map(rule).collect()
}

/// Runs a job to its end, or until it is cancelled or the process is to end. Steps that are done and whole are not repeated; of
/// a job that had failed, what failed is tried again.
///
/// # Errors
/// When another process runs it, its file has faults, or its directory cannot be written. That a step failed is no error.
pub fn run(queue: &Queue, id: &str, options: RunOptions<'_>) -> Result<Summary, BatchError> {
    let began = Instant::now();
    let claim = queue.claim(id)?;
    let was = claim.job.status.state;
    if was == Standing::Done {
        return Err(BatchError::Refused(format!("job `{id}` is done already; submit the file again for another")));
    }
    let request = claim.job.request.clone();
    let (plan, _) = load_request(&request)?;
    let directory = claim.directory().to_owned();
    // A runner that was killed may have left programs that go on writing.
    process::kill_leftovers(&format!("{}/", directory.display()));
    claim.begin()?;
    let mut journal = Journal::open(&directory.join("journal"))?;
    let threads = plan.limits.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let parallel = plan.limits.parallel.unwrap_or(threads);
    let arguments = arguments(queue, id);
    let mut executor = Processes::new(&plan, &directory, options.program, arguments);
    let again = was != Standing::Queued && !claim.job.interrupted;
    let history = history(queue, id, &request.batch);
    let before: Vec<State>;
    let outcome = {
        let shared = std::cell::RefCell::new(&mut executor);
        let mut watched = Watched { inner: &shared };
        let mut runner = Runner::new(rules(&plan), (threads, parallel), again, &mut journal, &mut watched)?;
        before = runner.schedule().states().to_vec();
        let seconds: BTreeMap<usize, f64> = runner.records().iter().map(|(step, r)| (*step, r.seconds)).collect();
        let watch = options.watch;
        runner.run(&mut |schedule| {
            watch(&progress(&plan, schedule, &shared.borrow(), &history, &seconds, parallel));
            match () {
                () if claim.is_cancelled() => Some(Verdict::Cancelled),
                () if (options.stopped)() => Some(Verdict::Interrupted),
                () => None,
            }
        })
    };
    drop(executor);
    let verdict = outcome?;
    let steps = summaries(&plan, &directory, &journal, &before);
    let failed = steps.iter().find(|step| step.state == "failed");
    let why = failed.map(|step| format!("step `{}`: {}", step.name, step.why.as_deref().unwrap_or_default()));
    let (state, standing) = match verdict {
        Verdict::Done => ("done", Some(Standing::Done)),
        Verdict::Failed => ("failed", Some(Standing::Failed)),
        Verdict::Cancelled => ("cancelled", Some(Standing::Cancelled)),
        // It stays marked as running by a process that is no more: the next goes on.
        Verdict::Interrupted => ("interrupted", None),
    };
    if let Some(standing) = standing {
        let why = if standing == Standing::Cancelled { Some("cancelled".to_owned()) } else { why };
        claim.end(standing, why)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Summary { id: id.to_owned(), batch: plan.name.clone(), state, seconds, directory, steps })
}

/// What the process of an attempt is told.
fn arguments(queue: &Queue, id: &str) -> super::executor::Arguments {
    let (queue, id) = (queue.root().display().to_string(), id.to_owned());
    Box::new(move |step: &StepPlan, start: &Start, definition: &str| {
        let threads = start.threads.to_string();
        ["train", "--queue", &queue, "--resume", &id, "--step", &step.name, "--threads", &threads]
            .into_iter()
            .chain(["--definition", definition])
            .map(str::to_owned)
            .collect()
    })
}

/// The executor, lent to the runner while progress is read off it.
struct Watched<'a, 'b, 'c> {
    inner: &'a std::cell::RefCell<&'b mut Processes<'c>>,
}

impl Executor for Watched<'_, '_, '_> {
    fn is_sound(&self, step: usize, record: &Record, done: &BTreeMap<usize, Record>) -> bool {
        self.inner.borrow().is_sound(step, record, done)
    }

    fn begin(&mut self, start: Start, done: &BTreeMap<usize, Record>) -> Result<(), BatchError> {
        self.inner.borrow_mut().begin(start, done)
    }

    fn wait(
        &mut self,
        wait: std::time::Duration,
    ) -> Result<Option<(usize, super::schedule::Ended, Option<Record>)>, BatchError> {
        self.inner.borrow_mut().wait(wait)
    }

    fn stop(&mut self) {
        self.inner.borrow_mut().stop();
    }

    fn now(&self) -> EventTime {
        self.inner.borrow().now()
    }
}

/// How long each step took in earlier jobs of the same batch dataflow, in the middle.
fn history(queue: &Queue, id: &str, batch: &str) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    // A queue that cannot be read tells nothing about time left; whoever needs it will say why.
    for job in queue.list().unwrap_or_default() {
        if job.id == id || job.request.batch != batch {
            continue;
        }
        for entry in Journal::read(&queue.directory(&job.id).join("journal")).unwrap_or_default() {
            if let Change::Done(record) = entry.change {
                all.entry(entry.step).or_default().push(record.seconds);
            }
        }
    }
    let middle = |(step, mut seconds): (String, Vec<f64>)| {
        seconds.sort_by(f64::total_cmp);
        (step, seconds[seconds.len() / 2])
    };
    all.into_iter().map(middle).collect()
}

fn progress(
    plan: &BatchPlan,
    schedule: &Schedule,
    executor: &Processes<'_>,
    history: &BTreeMap<String, f64>,
    earlier: &BTreeMap<usize, f64>,
    parallel: usize,
) -> Progress {
    let mut left: Option<Vec<f64>> = Some(Vec::new());
    let mut steps = Vec::with_capacity(plan.steps.len());
    for (index, (step, state)) in plan.steps.iter().zip(schedule.states()).enumerate() {
        let going = executor.going(index);
        let mut told = StepProgress { name: step.name.clone(), state: state.word(), ..StepProgress::default() };
        match state {
            State::Running { attempt, .. } => {
                let going = going.unwrap_or_default();
                (told.attempt, told.seconds) = (Some(*attempt), Some(going.seconds));
                (told.fraction, told.text) = (going.far.fraction, going.far.text);
            }
            State::Retrying { attempt, at, why } => {
                (told.attempt, told.text) = (Some(*attempt), format!("again at {}: {why}", format_time(second(*at))));
            }
            State::Failed { why } | State::Skipped { why } => told.text = why.clone(),
            State::Done => (told.seconds, told.fraction) = (earlier.get(&index).copied(), Some(1.0)),
            State::Queued => {}
        }
        if !state.is_over() {
            let usual = history.get(&step.name).copied();
            let rest = match (told.seconds, told.fraction) {
                (Some(seconds), Some(fraction)) if fraction > 0.02 => Some(seconds * (1.0 - fraction) / fraction),
                (Some(seconds), _) => usual.map(|usual| (usual - seconds).max(0.0)),
                (None, _) => usual,
            };
            left = left.zip(rest).map(|(mut left, rest)| {
                left.push(rest);
                left
            });
        }
        steps.push(told);
    }
    // As if the rest were shared out evenly; it is no shorter than the longest.
    let seconds_left = left.map(|left| {
        let side_by_side = parallel.min(left.len()).max(1) as f64;
        (left.iter().sum::<f64>() / side_by_side).max(left.iter().copied().fold(0.0, f64::max))
    });
    let over = schedule.states().iter().filter(|state| state.is_over()).count();
    Progress { over, total: plan.steps.len(), steps, seconds_left }
}

fn second(at: EventTime) -> Micros {
    at.div_euclid(1_000_000) * 1_000_000
}

fn summaries(plan: &BatchPlan, directory: &std::path::Path, journal: &Journal, before: &[State]) -> Vec<StepSummary> {
    let one = |(index, step): (usize, &StepPlan)| {
        let change = journal.last(&step.name).cloned().unwrap_or(Change::Queued);
        let state = change.state();
        let record = match change {
            Change::Done(record) => Some(record),
            _ => None,
        };
        let why = match &state {
            State::Failed { why } | State::Skipped { why } | State::Retrying { why, .. } => Some(why.clone()),
            _ => None,
        };
        let own = step_directory(directory, &step.name);
        StepSummary {
            name: step.name.clone(),
            kind: step.kind.word(),
            state: state.word(),
            reused: before.get(index) == Some(&State::Done),
            seconds: record.as_ref().map(|record| record.seconds),
            why,
            directory: own.join("out"),
            log: own.join("log.txt"),
            inputs: record.as_ref().map(|record| record.inputs.clone()).unwrap_or_default(),
            facts: record.as_ref().map(|record| record.facts.clone()).unwrap_or_default(),
            outputs: record.map(|record| record.outputs).unwrap_or_default(),
        }
    };
    plan.steps.iter().enumerate().map(one).collect()
}

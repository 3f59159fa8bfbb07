//! Training runs: what jobs have queued, the steps of each, and what they found.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::Json;
use super::{Console, ConsoleJob, in_path, reads};
use crate::batch::journal::{Change, Entry, Journal};
use crate::batch::{BatchError, Job, Queue};
use crate::http::{Api, Problem, schema_of};

/// Newest runs that are told of each job.
const RUNS_MAX: usize = 200;
/// Bytes of a step's log that are told.
const LOG_BYTES: u64 = 16 << 10;

/// Training runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Trainings {
    /// The oldest first.
    trainings: Vec<Training>,
    /// Queues that cannot be read.
    problems: Vec<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Training {
    /// Its id here: the job's and its own.
    id: String,
    /// Id of the job that asked for it.
    job: String,
    /// Its batch dataflow.
    batch: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    state: String,
    /// Since when, by the wall clock.
    since: String,
    /// Whether it was begun by a process that is no more.
    interrupted: bool,
    /// The model that is trained anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Why it was asked for.
    cause: String,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// When it was asked for.
    submitted: String,
    /// Its steps, in the order in which they began.
    steps: Vec<Step>,
}

/// A step of a run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Step {
    /// Its name.
    name: String,
    /// `queued`, `running`, `retrying`, `done`, `failed` or `skipped`.
    state: String,
    /// Since when.
    at: String,
    /// Which attempt it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// Why it is tried again, failed or was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// What it tells: rows, metrics, decisions, trials.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    facts: Value,
    /// The end of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let all = reads(
        "/api/v1/trainings",
        "trainings",
        "trainings",
        "The training runs that jobs asked for.",
        schema_of::<Trainings>(),
    );
    let mut one = reads(
        "/api/v1/trainings/{id}",
        "training",
        "trainings",
        "A training run with what its steps tell.",
        schema_of::<Training>(),
    );
    one.parameters = vec![in_path("id", "The run.")];
    one.problems = vec![404];
    let (for_all, for_one) = (Arc::clone(console), Arc::clone(console));
    Api::default()
        .with(
            all,
            get(async move || -> Result<Json<Trainings>, Problem> {
                for_all.read(|console| Ok(console.trainings())).await.map(Json)
            }),
        )
        .with(
            one,
            get(async move |Path(id): Path<String>| -> Result<Json<Training>, Problem> {
                for_one.read(move |console| console.training(&id)).await.map(Json)
            }),
        )
}

/// The queue of a job's retraining.
fn queue(job: &ConsoleJob) -> Result<Queue, BatchError> {
    Queue::new(&job.state.join("queue"))
}

impl Console {
    fn trainings(&self) -> Trainings {
        let mut all = Trainings::default();
        for job in self.parts.source.jobs() {
            let found = queue(&job).and_then(|queue| Ok((queue.list()?, queue)));
            match found {
                Ok((runs, queue)) => {
                    let runs = runs.iter().rev().take(RUNS_MAX).rev();
                    for run in runs {
                        match told(&job, &queue, run, false) {
                            Ok(training) => all.trainings.push(training),
                            Err(error) => all.problems.push(format!("{}: {error}", job.id)),
                        }
                    }
                }
                Err(error) => all.problems.push(format!("{}: {error}", job.id)),
            }
        }
        all.trainings.sort_by(|a, b| (&a.submitted, &a.id).cmp(&(&b.submitted, &b.id)));
        all
    }

    fn training(&self, id: &str) -> Result<Training, Problem> {
        let unknown =
            || Problem::not_found(format!("there is no training `{id}`; GET /api/v1/trainings lists those there are"));
        let (job, run) = id.split_once(':').ok_or_else(unknown)?;
        let job = self.job(job).map_err(|_| unknown())?;
        let failed = |error: BatchError| match error {
            BatchError::Unknown { .. } => unknown(),
            other => Problem::unavailable(other.to_string()),
        };
        let queue = queue(&job).map_err(failed)?;
        let run = queue.job(run).map_err(failed)?;
        told(&job, &queue, &run, true).map_err(failed)
    }
}

fn told(job: &ConsoleJob, queue: &Queue, run: &Job, whole: bool) -> Result<Training, BatchError> {
    let directory = queue.directory(&run.id);
    let mut steps: Vec<Step> = Vec::new();
    for entry in Journal::read(&directory.join("journal"))? {
        let mut step = step(entry);
        match steps.iter_mut().find(|known| known.name == step.name) {
            Some(known) => {
                // Which attempt it was is said when it begins.
                step.attempt = step.attempt.or(known.attempt);
                *known = step;
            }
            None => steps.push(step),
        }
    }
    for step in &mut steps {
        if whole {
            step.log = tail(&directory.join("steps").join(&step.name).join("log.txt"));
        } else {
            step.facts = Value::Null;
        }
    }
    Ok(Training {
        id: format!("{}:{}", job.id, run.id),
        job: job.id.clone(),
        batch: run.request.batch.clone(),
        state: run.status.state.word().to_owned(),
        since: run.status.since.clone(),
        interrupted: run.interrupted,
        model: run.request.model.clone(),
        cause: run.request.cause.clone(),
        why: run.status.why.clone(),
        submitted: run.request.submitted.clone(),
        steps,
    })
}

fn step(entry: Entry) -> Step {
    let bare = |state: &str| Step {
        name: entry.step.clone(),
        state: state.to_owned(),
        at: entry.at.clone(),
        attempt: None,
        seconds: None,
        why: None,
        facts: Value::Null,
        log: None,
    };
    match entry.change {
        Change::Queued => bare("queued"),
        Change::Running { attempt, .. } => Step { attempt: Some(attempt), ..bare("running") },
        Change::Retrying { attempt, ref why, .. } => {
            Step { attempt: Some(attempt), why: Some(why.clone()), ..bare("retrying") }
        }
        Change::Done(ref record) => Step { seconds: Some(record.seconds), facts: record.facts.clone(), ..bare("done") },
        Change::Failed { ref why } => Step { why: Some(why.clone()), ..bare("failed") },
        Change::Skipped { ref why } => Step { why: Some(why.clone()), ..bare("skipped") },
    }
}

/// The end of a text file; nothing where there is none.
fn tail(path: &FilePath) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

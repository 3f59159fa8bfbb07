//! What a step is: it reads outputs of steps before it and tables, and leaves files in a directory of its own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::StepError;
use super::journal::{Input, Record};
use crate::plan::batch::{BatchPlan, StepPlan};
use crate::plan::model::Plan;

/// Name of the file by which an attempt tells how far it is.
pub(super) const PROGRESS: &str = ".progress.json";
/// Name of the file by which an attempt tells what became of it.
pub(super) const RESULT: &str = ".result.json";
/// Least time between two notes on how far an attempt is.
const TELL: Duration = Duration::from_millis(100);

/// One kind of work.
pub trait Step {
    /// Does it: writes files below [`Context::out`], and says which.
    ///
    /// # Errors
    /// Why it failed, and whether another attempt may help.
    fn run(&self, context: &Context<'_>) -> Result<Produced, StepError>;
}

/// What an attempt of a step leaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// Files below [`Context::out`] by what they are.
    pub outputs: Vec<(String, String)>,
    /// What was read, outputs of other steps apart.
    pub inputs: Vec<Input>,
    /// What is told of it.
    pub facts: Value,
    /// Why there was nothing to do.
    #[serde(default)]
    pub skipped: Option<String>,
}

/// How an attempt ended, as its process tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// It has what it was to make.
    Done(Produced),
    /// It failed.
    Failed {
        /// Why.
        why: String,
        /// Whether another attempt may help.
        again: bool,
    },
}

/// How far an attempt is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Far {
    /// From 0 to 1, where it is known.
    pub fraction: Option<f64>,
    /// In words.
    pub text: String,
}

/// A step that is done, for those that need it.
#[derive(Clone, Debug)]
pub struct Given {
    /// Where its outputs are.
    pub directory: PathBuf,
    /// What it left.
    pub record: Record,
}

impl Given {
    /// The path of an output.
    ///
    /// # Errors
    /// When the step has left no such output.
    pub fn file(&self, name: &str) -> Result<PathBuf, StepError> {
        let output = self.record.outputs.iter().find(|output| output.name == name);
        let output = output.ok_or_else(|| StepError::hopeless(format!("there is no `{name}` among what it left")))?;
        Ok(self.directory.join(&output.file))
    }
}

/// What an attempt has to go by.
pub struct Context<'a> {
    /// The batch dataflow.
    pub plan: &'a BatchPlan,
    /// The job that it is of.
    pub job: Option<&'a Plan>,
    /// The step.
    pub step: &'a StepPlan,
    /// Where outputs are written.
    pub directory: &'a Path,
    /// Threads that it may use.
    pub threads: usize,
    /// The steps that it needs, by name.
    pub given: BTreeMap<String, Given>,
    /// Name of the job in the queue.
    pub id: &'a str,
    /// Why the job was submitted.
    pub cause: &'a str,
    /// When, by the wall clock.
    pub submitted: &'a str,
    told: Cell<Option<Instant>>,
}

impl<'a> Context<'a> {
    /// What an attempt of a step has to go by.
    pub fn new(
        plan: &'a BatchPlan,
        step: &'a StepPlan,
        directory: &'a Path,
        threads: usize,
        given: BTreeMap<String, Given>,
        (id, cause, submitted): (&'a str, &'a str, &'a str),
    ) -> Self {
        let (job, told) = (plan.job.as_ref().map(|job| job.plan.as_ref()), Cell::new(None));
        Context { plan, job, step, directory, threads, given, id, cause, submitted, told }
    }

    /// Where to write an output.
    pub fn out(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// A step that this one needs.
    ///
    /// # Errors
    /// When it has left nothing: a defect of the schedule.
    pub fn given(&self, step: &str) -> Result<&Given, StepError> {
        self.given.get(step).ok_or_else(|| StepError::hopeless(format!("step `{step}` has left nothing")))
    }

    /// The job that the batch dataflow is of.
    ///
    /// # Errors
    /// When the file names none, which its compiler refuses.
    pub fn job(&self) -> Result<&'a Plan, StepError> {
        self.job.ok_or_else(|| StepError::hopeless("the batch dataflow is of no job"))
    }

    /// The job's model that the batch dataflow is about, by index.
    ///
    /// # Errors
    /// When the file names none, which its compiler refuses.
    pub fn model(&self) -> Result<usize, StepError> {
        self.plan.model.ok_or_else(|| StepError::hopeless("the batch dataflow is about no model"))
    }

    /// Tells how far the attempt is; too often is no harm.
    pub fn progress(&self, fraction: Option<f64>, text: &str) {
        let now = Instant::now();
        if self.told.get().is_some_and(|at| now.duration_since(at) < TELL) && fraction != Some(1.0) {
            return;
        }
        self.told.set(Some(now));
        let told = Far { fraction: fraction.map(|f| f.clamp(0.0, 1.0)), text: text.to_owned() };
        let (path, aside) = (self.directory.join(PROGRESS), self.directory.join(".progress.new"));
        // Whoever watches sees the last one; nothing depends on it.
        if let Ok(bytes) = serde_json::to_vec(&told)
            && std::fs::write(&aside, bytes).is_ok()
        {
            let _ = std::fs::rename(&aside, &path);
        }
    }
}

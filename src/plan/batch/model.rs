//! A compiled batch dataflow.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::base::{EventTime, Micros};
use crate::plan::model::Plan;

/// A whole batch dataflow.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The job that it is of.
    pub job: Option<JobOf>,
    /// The job's model, by index.
    pub model: Option<usize>,
    /// What is drawn at random is drawn by it.
    pub seed: u64,
    /// What the steps may take.
    pub limits: Limits,
    /// The steps, in the order of the file.
    pub steps: Vec<StepPlan>,
    /// Where programs run: the file's directory.
    pub directory: PathBuf,
    /// SHA-256 (hex) of the file as it is meant.
    pub fingerprint: String,
}

/// The job that a batch dataflow is of.
#[derive(Clone, Debug)]
pub struct JobOf {
    /// Its file.
    pub file: PathBuf,
    /// What is changed in it.
    pub sets: Vec<(String, String)>,
    /// The job.
    pub plan: Arc<Plan>,
}

/// What the steps of a batch dataflow may take of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads; none for as many as the machine has processors.
    pub threads: Option<usize>,
    /// Bytes of resident memory; none for no limit.
    pub memory: Option<u64>,
    /// Steps side by side; none for as many as there are threads.
    pub parallel: Option<usize>,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
    /// The steps, by index, that must be done before: sorted, each once.
    pub needs: Vec<usize>,
    /// Attempts after the first.
    pub retries: u32,
    /// Pause before the second attempt.
    pub backoff: Micros,
    /// Longest time of an attempt.
    pub timeout: Option<Micros>,
    /// What it is told to do, as one text: the same text means the same work.
    pub definition: String,
}

/// What a step does; other steps are named by their index.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// Makes a training set.
    Dataset(DatasetPlan),
    /// Fits a model.
    Fit(FitPlan),
    /// Judges a model.
    Evaluate(EvaluatePlan),
    /// Registers a model.
    Register(RegisterPlan),
    /// Brings a registered model in.
    Rollout(RolloutStep),
    /// Runs a program.
    Command(CommandPlan),
}

impl StepKind {
    /// Its key in the file.
    pub fn word(&self) -> &'static str {
        match self {
            StepKind::Dataset(_) => "dataset",
            StepKind::Fit(_) => "fit",
            StepKind::Evaluate(_) => "evaluate",
            StepKind::Register(_) => "register",
            StepKind::Rollout(_) => "rollout",
            StepKind::Command(_) => "command",
        }
    }
}

/// A training set.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetPlan {
    /// Rows of this long; none for all.
    pub last: Option<Micros>,
    /// The cut-off; none for the newest time in the tables.
    pub to: Option<EventTime>,
    /// Rows younger than this at the cut-off are left out.
    pub label_delay: Option<Micros>,
    /// Which state of the tables, as it was written: `latest`, a version, a time.
    pub at: String,
}

/// A fit. Settings are JSON in the words of what they are for.
#[derive(Clone, Debug, PartialEq)]
pub struct FitPlan {
    /// The training set.
    pub from: usize,
    /// The learner by its name, with the settings that were written: `{"gbdt": {"trees": 200}}`.
    pub learner: Value,
    /// What is done to the inputs; `{}` where nothing is said.
    pub prepare: Value,
    /// How settings are looked for.
    pub tune: Option<TunePlan>,
    /// Which rows are kept to judge by; `{}` where nothing is said.
    pub split: Value,
    /// What the model is to tell.
    pub tells: Tells,
}

/// How settings are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TunePlan {
    /// Method, trials, space and so on.
    pub options: Value,
    /// Folds one after another in time, where they are asked for.
    pub folds: Option<Value>,
}

/// What a model is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// One of so many classes, from 2.
    Classes(u32),
    /// A number.
    Number,
}

/// A judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatePlan {
    /// What made the model.
    pub model: usize,
    /// What made the set.
    pub on: usize,
    /// Which rows, for a model of a program; `{}` where nothing is said.
    pub split: Value,
    /// Statistics, slices, the condition for what comes after, and so on.
    pub options: Value,
    /// Whether columns are shuffled.
    pub importance: bool,
    /// What the model tells.
    pub tells: Tells,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterPlan {
    /// What made the model.
    pub from: usize,
    /// What judged it.
    pub after: Option<usize>,
    /// The alias that it gets.
    pub alias: Option<String>,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutStep {
    /// What registered the model.
    pub from: usize,
    /// The alias that it gets.
    pub alias: String,
    /// How long the decision is waited for.
    pub wait: Option<Micros>,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandPlan {
    /// It and its arguments.
    pub run: Vec<String>,
    /// The step whose output it takes.
    pub input: Option<usize>,
    /// The file that it must leave.
    pub out: Option<String>,
    /// More variables of its environment.
    pub env: Vec<(String, String)>,
}

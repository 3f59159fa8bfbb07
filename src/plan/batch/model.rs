//! A compiled batch dataflow.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::base::Micros;
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

/// Which state of tables is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest.
    Latest,
    /// This version of the table of labels.
    Version(u64),
    /// What was there at this time, by the wall clock.
    Time(i64),
}

/// A training set.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetPlan {
    /// Rows of this long; none for all.
    pub last: Option<Micros>,
    /// How long labels had to come.
    pub label_delay: Micros,
    /// Labels later than this after their row are left out.
    pub ttl: Option<Micros>,
    /// Which state of the tables.
    pub at: At,
    /// More columns.
    pub extra: Vec<String>,
}

/// A fit. Settings are in the words of what they are for, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct FitPlan {
    /// The training set.
    pub from: usize,
    /// The learner by its name, with the settings that were written: `{"gbdt": {"trees": 200}}`.
    pub learner: Value,
    /// What is done to the inputs, as it was written.
    pub prepare: Option<Value>,
    /// How settings are looked for.
    pub tune: Option<TunePlan>,
    /// Which rows are kept to judge by.
    pub split: SplitPlan,
    /// Classes of the labels, where the file says.
    pub classes: Option<u32>,
}

/// A split by time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitPlan {
    /// Length of the time that is kept.
    pub test: Option<Micros>,
    /// Share of the rows that is kept.
    pub share: Option<f64>,
    /// Time between.
    pub gap: Micros,
    /// Length of the time to fit on.
    pub train: Option<Micros>,
}

/// How settings are looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TunePlan {
    /// `grid`, `random`, `tpe` or `halving`.
    pub method: String,
    /// Settings that are tried at most.
    pub trials: Option<u32>,
    /// What each setting may be.
    pub space: Vec<(String, Range)>,
    /// What is best.
    pub metric: Option<String>,
    /// Folds.
    pub folds: Option<FoldsPlan>,
}

/// Values that a setting may take.
#[derive(Clone, Debug, PartialEq)]
pub enum Range {
    /// These.
    In(Vec<Value>),
    /// Numbers.
    Between {
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
        /// Whether small ones are as likely as large ones.
        log: bool,
        /// Whether they are whole.
        whole: bool,
    },
}

/// Folds one after another in time.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldsPlan {
    /// How many.
    pub folds: u32,
    /// Length of the time to fit on.
    pub train: Micros,
    /// Time between.
    pub gap: Micros,
    /// Length of the test's time.
    pub test: Micros,
    /// How much earlier each fold is.
    pub step: Option<Micros>,
}

/// A judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatePlan {
    /// What made the model.
    pub model: usize,
    /// What made the set.
    pub on: usize,
    /// Which rows, for a model of a program.
    pub split: SplitPlan,
    /// The condition for what comes after.
    pub promote_if: Option<String>,
    /// Columns that are looked at value by value.
    pub slices: Vec<String>,
    /// Whether columns are shuffled.
    pub importance: bool,
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

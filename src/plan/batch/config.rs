//! The batch dataflow file's types: what may be written, and what each key means. These comments are the reference manual and
//! the descriptions in `schemas/batch.schema.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::values::{ByColumn, ByName, Bytes, Duration, Literal, Name, Sql, Text};

/// A batch dataflow: steps that make a training set of a job's tables, fit a model, judge and register it. `tidemill train`
/// runs it; so does a running job, by `retrain`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct BatchConfig {
    /// Name of the batch dataflow.
    pub batch: Name,
    /// Its version; raise it when a step's meaning changes.
    #[serde(default = "one")]
    pub version: u32,
    /// The file of the job whose tables, registry and model it works on; relative paths start at this file's directory.
    /// Only a file of commands alone can do without.
    pub of: Option<Text>,
    /// Changes of the job's file, as `--set` makes them: values by their paths of keys, such as
    /// `sinks.offline.delta.uri: /data/lake`.
    #[serde(default)]
    pub with: ByColumn<Text>,
    /// The job's model that is trained.
    pub model: Option<Name>,
    /// Whatever is drawn at random follows from it. Default 42.
    pub seed: Option<u64>,
    /// What the steps may take of the machine.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// The steps, by name. One that names another's outputs comes after it; those that do not depend on each other run side by
    /// side.
    pub steps: ByName<StepConfig>,
}

fn one() -> u32 {
    1
}

/// What the steps of a batch dataflow may take of the machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LimitsConfig {
    /// Threads of all steps together. Default: as many as the machine has processors.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u32>,
    /// Memory (resident) of all steps together, as measured; when it is passed, the step that has most ends with an error.
    /// Default: no limit.
    pub memory: Option<Bytes>,
    /// Steps that run side by side. Default: as many as there are threads.
    #[schemars(range(min = 1, max = 1024))]
    pub parallel: Option<u32>,
}

/// A step; exactly one of `dataset`, `fit`, `evaluate`, `register`, `rollout` and `command` says what it does.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct StepConfig {
    /// Makes a training set of the job's tables.
    pub dataset: Option<DatasetConfig>,
    /// Fits a model to a training set.
    pub fit: Option<FitConfig>,
    /// Judges a model beside the champion, on the same rows.
    pub evaluate: Option<EvaluateConfig>,
    /// Registers a model.
    pub register: Option<RegisterConfig>,
    /// Brings a registered model in, and may wait for what becomes of it.
    pub rollout: Option<RolloutStepConfig>,
    /// Runs a program.
    pub command: Option<CommandConfig>,
    /// Steps that must be done before, besides those whose outputs it takes.
    #[serde(default)]
    pub needs: Vec<Name>,
    /// How often it is tried again after it failed. Default 0.
    #[schemars(range(max = 100))]
    pub retries: Option<u32>,
    /// How long it waits before it is tried again; doubles from one attempt to the next, up to 10m. Default 10s.
    pub backoff: Option<Duration>,
    /// An attempt that takes longer is ended, with all the processes that it has started. Default: no limit.
    pub timeout: Option<Duration>,
}

/// A training set: one row per prediction whose label is known, with the features as they were when it was scored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DatasetConfig {
    /// Take rows of this long before the newest that may be taken. Default: all.
    pub last: Option<Duration>,
    /// Rows are taken only when their labels had this long to come, so that slow labels are not missing from the newest days.
    /// Default 0s.
    pub label_delay: Option<Duration>,
    /// A label that came later than this after its row is left out. Default: the `within` of the job's labels.
    pub ttl: Option<Duration>,
    /// Which state of the tables: `latest`, a version of the table of labels, or a point in time. Default `latest`. Whatever
    /// it is, the versions that were read are recorded.
    pub at: Option<Text>,
    /// More columns, for slices: of the predictions' rows, such as `country`.
    #[serde(default)]
    pub extra: Vec<Text>,
}

/// Fits a model: rows are split by time, what prepares the inputs is fitted on the training part alone, and the result is
/// exported to ONNX and held against what was fitted, row by row.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct FitConfig {
    /// The step that made the training set.
    pub from: Name,
    /// What learns, and its settings; exactly one.
    pub learner: LearnerConfig,
    /// What is done to the inputs before they are learnt from.
    pub prepare: Option<PrepareConfig>,
    /// Looks for better settings of the learner.
    pub tune: Option<TuneConfig>,
    /// Which rows are fitted on, and which are kept to judge by. Default: the newest fifth is kept.
    pub split: Option<SplitConfig>,
    /// How many classes the labels `0, 1, …` have; 2 for yes and no. Without it the job's monitor says: binary or
    /// regression.
    #[schemars(range(min = 2, max = 1000))]
    pub classes: Option<u32>,
}

/// What learns; exactly one.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LearnerConfig {
    /// Gradient-boosted trees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbdt: Option<GbdtConfig>,
    /// A random forest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forest: Option<ForestConfig>,
    /// One decision tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeConfig>,
    /// Logistic regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logistic: Option<LogisticConfig>,
    /// Linear regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<LinearConfig>,
}

/// Settings of gradient-boosted trees.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct GbdtConfig {
    /// Rounds at most; one tree each, or one per class. Default 100.
    #[schemars(range(min = 1, max = 100000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees: Option<u32>,
    /// What part of each tree's answer is added. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Leaves of a tree at most. Default 31.
    #[schemars(range(min = 2, max = 65536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<u32>,
    /// Questions from root to leaf at most. Default: no limit but that of the leaves.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Rows that a leaf has at least. Default 20.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u32>,
    /// Sum of second derivatives that a leaf has at least. Default 0.001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_hessian: Option<f64>,
    /// Gain that a split has at least. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_gain: Option<f64>,
    /// L2 penalty on the values of leaves. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<f64>,
    /// Bins of a column at most; missing values have one of their own. Default 255.
    #[schemars(range(min = 2, max = 255))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins: Option<u32>,
    /// Share of the rows that each tree sees. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_share: Option<f64>,
    /// Share of the columns that each tree sees. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column_share: Option<f64>,
    /// Added to a category's second derivatives when categories are put in order. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category_smooth: Option<f64>,
    /// L2 penalty on splits by category, beside `l2`. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category_l2: Option<f64>,
    /// Stop when the loss on the rows that are kept to judge by has not fallen for so many rounds. Default: never.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<u32>,
}

/// What a split of classes is judged by.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum CriterionConfig {
    /// The chance that two rows of a node have different labels.
    Gini,
    /// The entropy of the labels of a node.
    Entropy,
}

/// Settings of a random forest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ForestConfig {
    /// Trees. Default 100.
    #[schemars(range(min = 1, max = 100000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees: Option<u32>,
    /// Questions from root to leaf at most. Default: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Rows that a node must have to be split. Default 2.
    #[schemars(range(min = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_split: Option<u32>,
    /// Rows that a leaf has at least. Default 1.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u32>,
    /// What a split of classes is judged by. Default `gini`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criterion: Option<CriterionConfig>,
    /// Whether rows are drawn with replacement for each tree. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<bool>,
    /// Bins of a column at most. Default: a threshold between any two values.
    #[schemars(range(min = 2, max = 255))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins: Option<u32>,
}

/// Settings of a decision tree.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct TreeConfig {
    /// Questions from root to leaf at most. Default: no limit.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Rows that a node must have to be split. Default 2.
    #[schemars(range(min = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_split: Option<u32>,
    /// Rows that a leaf has at least. Default 1.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u32>,
    /// What a split of classes is judged by. Default `gini`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criterion: Option<CriterionConfig>,
}

/// Settings of logistic regression.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LogisticConfig {
    /// How much the data weigh against the penalty: the inverse of its strength. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c: Option<f64>,
    /// The part of the penalty that is on absolute weights, from 0 (all on squares) to 1. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1_ratio: Option<f64>,
    /// Whether sums have an intercept. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intercept: Option<bool>,
    /// Whether each class counts alike, however many rows it has. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced: Option<bool>,
    /// Steps at most. Default 100.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
}

/// Settings of linear regression.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LinearConfig {
    /// Strength of the penalty. Default 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The part of the penalty that is on absolute weights, from 0 (all on squares: ridge) to 1 (lasso). Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1_ratio: Option<f64>,
    /// Whether the sum has an intercept. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intercept: Option<bool>,
}

/// What is done to the inputs, fitted on the training rows alone.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct PrepareConfig {
    /// How numbers are scaled. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleConfig>,
    /// What stands in for missing numbers. Default: nothing; trees take them as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute: Option<ImputeConfig>,
    /// How texts become numbers. Default: as they are, which trees can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<CategoriesConfig>,
}

/// How numbers are scaled.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum ScaleConfig {
    /// To mean 0 and standard deviation 1.
    Standard,
    /// To 0 for the smallest and 1 for the largest.
    MinMax,
}

/// What stands in for missing numbers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum ImputeConfig {
    /// The column's mean.
    Mean,
    /// The column's median.
    Median,
    /// 0.
    Zero,
}

/// How texts become numbers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum CategoriesConfig {
    /// A column of 0 and 1 for each value.
    OneHot,
    /// The value's number in the order of the values.
    Ordinal,
}

/// Looks for better settings of a learner.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct TuneConfig {
    /// How. Default `random`; `grid` tries every combination of lists.
    pub method: Option<TuneMethodConfig>,
    /// Settings that are tried at most. Default 20; of a grid all.
    #[schemars(range(min = 1, max = 100000))]
    pub trials: Option<u32>,
    /// What is tried, by the names of the learner's settings: a list of values, or a range.
    pub space: ByName<RangeConfig>,
    /// What is best: `auc`, `average_precision`, `log_loss`, `brier`, `rmse`, `mae`, … Default: the loss that suits the
    /// labels.
    pub metric: Option<Text>,
    /// Folds one after another in time, each as a model would have been fitted and used then. Default: the step's own split.
    pub folds: Option<FoldsConfig>,
}

/// How settings are looked for.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum TuneMethodConfig {
    /// Every combination.
    Grid,
    /// Draws.
    Random,
    /// Draws near the better ones so far (tree-structured Parzen estimator).
    Tpe,
    /// Many on few rows, the better ones on more.
    Halving,
}

/// Values that a setting may take: `in` a list, or from `min` to `max`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RangeConfig {
    /// These.
    #[serde(rename = "in")]
    pub values: Option<Vec<Literal>>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Whether small ones are as likely as large ones. Default false.
    #[serde(default)]
    pub log: bool,
    /// Whether it is a whole number. Default false.
    #[serde(default)]
    pub whole: bool,
}

/// Folds one after another in time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct FoldsConfig {
    /// How many. Default 4.
    #[schemars(range(min = 1, max = 1000))]
    pub folds: Option<u32>,
    /// Length of the time to fit on. Default 7d.
    pub train: Option<Duration>,
    /// Time between the rows to fit on and the test: the time that labels take. Default 7d.
    pub gap: Option<Duration>,
    /// Length of the test's time. Default 7d.
    pub test: Option<Duration>,
    /// How much earlier each fold is than the next. Default: the length of the test.
    pub step: Option<Duration>,
}

/// A split by time: the newest rows are kept to judge by.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct SplitConfig {
    /// Length of the time whose rows are kept to judge by. Default: `share` of the rows.
    pub test: Option<Duration>,
    /// Share of the rows that is kept to judge by, where `test` is not given. Default 0.2.
    pub share: Option<f64>,
    /// Time between the rows to fit on and those to judge by: the time that labels take. Default 0s.
    pub gap: Option<Duration>,
    /// Length of the time to fit on. Default: all before the gap.
    pub train: Option<Duration>,
}

/// Judges a model on the rows that its fit kept, beside the champion on the same rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct EvaluateConfig {
    /// The step that made the model: a `fit` or a `command`.
    pub model: Name,
    /// The step that made the training set.
    pub on: Name,
    /// Which rows are judged by, for a model of a `command`. One of a `fit` is judged on the rows that the fit kept.
    pub split: Option<SplitConfig>,
    /// The condition for what comes after, over metrics of both models, such as
    /// `"auc_challenger >= auc_champion - 0.002"`. Default: none.
    pub promote_if: Option<Sql>,
    /// Columns whose values are judged one by one, too.
    #[serde(default)]
    pub slices: Vec<Text>,
    /// Whether columns are shuffled one by one to see what each is worth. Default true.
    pub importance: Option<bool>,
}

/// Registers a model with its metrics, its card and the versions of its data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RegisterConfig {
    /// The step that made the model: a `fit` or a `command`.
    pub from: Name,
    /// A step that judged it: nothing is registered where its condition is not met.
    pub after: Option<Name>,
    /// The alias that the new version gets, such as `challenger`, which a running job rolls out. Default: none.
    pub alias: Option<Text>,
}

/// Brings a registered model in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RolloutStepConfig {
    /// The step that registered it.
    pub from: Name,
    /// The alias that the version gets: `challenger` is rolled out by the running job as its `retrain` says, `champion` comes
    /// in at once. Default `challenger`.
    pub alias: Option<Text>,
    /// Waits this long at most for the running job to decide, and fails if it does not. Default: does not wait.
    pub wait: Option<Duration>,
}

/// Runs a program with the training set in and a file out. It finds their paths in its environment: `TIDEMILL_SET` (Parquet),
/// `TIDEMILL_OUT` (where to write), besides `TIDEMILL_THREADS`, `TIDEMILL_SEED`, `TIDEMILL_BATCH` and `TIDEMILL_STEP`. What it
/// prints goes to the step's log.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct CommandConfig {
    /// The program and its arguments. It runs in this file's directory, without a shell.
    #[schemars(length(min = 1))]
    pub run: Vec<Text>,
    /// The step whose output it takes. Default: none.
    #[serde(rename = "in")]
    pub input: Option<Name>,
    /// The file that it must leave. One that ends in `.onnx` is held against the model's inputs and outputs.
    pub out: Option<Text>,
    /// Ended when it takes longer, with all that it has started; as the step's own `timeout`. Default: no limit.
    pub timeout: Option<Duration>,
    /// More variables of its environment.
    #[serde(default)]
    pub env: ByColumn<Text>,
}

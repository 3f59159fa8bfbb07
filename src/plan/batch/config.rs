//! The batch dataflow file's types: what may be written, and what each key means. These comments are the reference manual and
//! the descriptions in `schemas/batch.schema.json`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::values::{ByColumn, ByName, Bytes, Duration, Name, Sql, Text, Time};

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

/// A training set: one row per prediction whose label is known, with the features as they were when it was scored, as
/// `tidemill dataset` makes it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DatasetConfig {
    /// Rows of this long up to the cut-off less the label delay. Default: all.
    pub last: Option<Duration>,
    /// The cut-off: rows at or before this time, with labels that were known by then. Default: the newest time in the tables.
    pub to: Option<Time>,
    /// Rows younger than this at the cut-off are left out, labelled or not: their labels are not settled yet. Default 0s.
    pub label_delay: Option<Duration>,
    /// Which state of the tables: `latest`, a version (a number, of all tables), what had been committed at a time of the wall
    /// clock, or `labels/fraud=3,feature_sets/inputs=5`. Default `latest`. Whatever it is, the versions that were read are
    /// recorded.
    pub at: Option<Text>,
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
    /// Stop when the loss on the newest tenth of the rows to fit on, which are left out for it, has not fallen for so many rounds,
    /// and keep the best. Default: never.
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
    /// Columns that a node chooses among: `sqrt` of their number, `all`, `{share: 0.3}` or `{count: 5}`. Default `sqrt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<ForestColumnsConfig>,
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

/// How many columns a node of a forest chooses among.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(in crate::plan) enum ForestColumnsConfig {
    Word(String),
    With(ForestColumnsSettings),
}

impl JsonSchema for ForestColumnsConfig {
    fn schema_name() -> Cow<'static, str> {
        "ForestColumnsConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with = generator.subschema_for::<ForestColumnsSettings>();
        json_schema!({
            "anyOf": [{"type": "string", "enum": ["sqrt", "all"]}, with],
            "description": "Columns that a node chooses among: sqrt of their number, all, {share: 0.3} or {count: 5}.",
        })
    }
}

/// A share or a number of columns.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ForestColumnsSettings {
    /// This share of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// So many.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
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

/// What is done to the inputs, fitted on the training rows alone. What is left open is chosen by the learner: trees take columns as
/// they are; linear models have gaps filled with the mean, numbers scaled, and a number of 0 or 1 for each category.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct PrepareConfig {
    /// What fills gaps of number columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute: Option<ImputeConfig>,
    /// How numbers are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleConfig>,
    /// What becomes of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode: Option<EncodeConfig>,
    /// Categories of a column at most, the most frequent ones; the others count as missing. Default 255.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
    /// Other settings for single columns.
    #[serde(default, skip_serializing_if = "no_columns")]
    pub columns: ByColumn<PrepareColumnConfig>,
}

fn no_columns(columns: &ByColumn<PrepareColumnConfig>) -> bool {
    columns.0.is_empty()
}

/// Settings for one column; what is left open is as for the others.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct PrepareColumnConfig {
    /// What fills gaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute: Option<ImputeConfig>,
    /// How numbers are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleConfig>,
    /// What becomes of texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encode: Option<EncodeConfig>,
    /// Categories at most.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
}

/// What fills the gaps of a column: `none`, `mean`, `median`, or `{constant: 0}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(in crate::plan) enum ImputeConfig {
    Word(String),
    With(ConstantConfig),
}

impl JsonSchema for ImputeConfig {
    fn schema_name() -> Cow<'static, str> {
        "ImputeConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with = generator.subschema_for::<ConstantConfig>();
        json_schema!({
            "anyOf": [{"type": "string", "enum": ["none", "mean", "median"]}, with],
            "description": "What fills the gaps of a column: none, mean, median, or {constant: 0}.",
        })
    }
}

/// A number that fills gaps.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ConstantConfig {
    /// The number.
    pub constant: f64,
}

/// How numbers are scaled.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum ScaleConfig {
    /// Not at all.
    None,
    /// To mean 0 and standard deviation 1.
    Standard,
    /// To 0 for the smallest and 1 for the largest.
    MinMax,
}

/// What becomes of texts.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum EncodeConfig {
    /// They stay categories; trees split them by sets.
    Native,
    /// A column of 0 and 1 for each value.
    OneHot,
    /// The value's number in the order of the values.
    Ordinal,
}

/// Looks for better settings of the learner: points of a space are tried on folds in time.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct TuneConfig {
    /// How points are chosen. Default `tpe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<TuneMethodConfig>,
    /// Points that are tried; of a grid at most. Default 30, of a grid all.
    #[schemars(range(min = 1, max = 100000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<u32>,
    /// The statistic that trials are ordered by. Default: `auc` (two classes), `log_loss` (several) or `rmse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Text>,
    /// Further statistics that the table of results tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Text>,
    /// Settings with what is tried of each: a list, `{range: [0.5, 1]}`, `{log: [0.01, 0.5]}`, `{int: [2, 12]}`,
    /// `{int_log: [1, 500]}`; with a grid, ranges give `points` values.
    pub space: ByColumn<Json>,
    /// Share of the rows to fit on, the newest, that early stopping looks at; 0 for none. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    /// A score at or above this predicts the positive class. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Precision among the entities with the highest scores; trials may be ordered by it, as `card_precision_K`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cards: Option<CardsConfig>,
    /// Of `tpe`: points that are drawn at random first. Default 10.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<u32>,
    /// Of `tpe`: points that are chosen at a time, whatever the number of threads. Default 4.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Of `halving`: what is given little of at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halving: Option<HalvingConfig>,
    /// Folds one after another in time, each as a model would have been fitted and used then. Default: the newest
    /// fifth of the rows to fit on is one.
    #[serde(skip_serializing)]
    pub folds: Option<FoldsConfig>,
}

/// How points are chosen.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum TuneMethodConfig {
    /// Every combination.
    Grid,
    /// At random.
    Random,
    /// What is likely to be good after the trials so far (tree-structured Parzen estimator).
    Tpe,
    /// Many with little, the best of them with more.
    Halving,
}

/// What is given little of at first, and how it grows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct HalvingConfig {
    /// `rows`, of which each fit gets a share, or the name of a setting that is a whole number, such as `trees`.
    pub of: Text,
    /// In the first round.
    pub from: f64,
    /// In the last round.
    pub to: f64,
    /// One of so many goes on to the next round, with so many times as much. Default 3.
    #[schemars(range(min = 2))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

/// Precision among the entities with the highest scores.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct CardsConfig {
    /// A further column of the set: the card, the customer.
    pub by: Text,
    /// Entities that are looked at in a piece of time. Default 100.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<u32>,
    /// Length of a piece of time. Default 1d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// Any value; what it is for says what it may be.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(in crate::plan) struct Json(pub Value);

impl JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
    }
}

/// Folds one after another in time.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct FoldsConfig {
    /// How many. Default 4.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<u32>,
    /// Length of the time to fit on. Default 7d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<Duration>,
    /// Time between the rows to fit on and the test: the time that labels take. Default 7d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Duration>,
    /// Length of the test's time. Default 7d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Duration>,
    /// How much earlier each fold is than the next. Default: the length of the test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Duration>,
    /// First moment after the last fold's test. Default: the end of the rows that may be fitted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Text>,
    /// Takes rows out of the tests that are of something known to be positive already, such as a defrauded card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_known: Option<RemoveKnownConfig>,
}

/// What is known to be positive is not judged again.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RemoveKnownConfig {
    /// A further column of the set: the card, the customer.
    pub by: Text,
    /// Length of a piece of time. Default 1d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// A split by time: the newest rows are kept to judge by.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct SplitConfig {
    /// Length of the time whose rows are kept to judge by. Default: `share` of the rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Duration>,
    /// Share of the rows that is kept to judge by, where `test` is not given. Default 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Time between the rows to fit on and those to judge by: the time that labels take. Default 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Duration>,
    /// Length of the time to fit on. Default: all before the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<Duration>,
    /// First moment after the rows that are kept. Default: the end of the set's last day, or with `share` its last row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Text>,
}

/// Judges a model on the rows that its fit kept, beside the champion on the same rows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct EvaluateConfig {
    /// The step that made the model: a `fit` or a `command`.
    #[serde(skip_serializing)]
    pub model: Name,
    /// The step that made the training set.
    #[serde(skip_serializing)]
    pub on: Name,
    /// Which rows are judged by, for a model of a `command`. One of a `fit` is judged on the rows that the fit kept.
    #[serde(skip_serializing)]
    pub split: Option<SplitConfig>,
    /// The condition for what comes after, over statistics of both models, such as
    /// `"auc_challenger >= auc_champion - 0.002"`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_if: Option<Sql>,
    /// Statistics, in their order. Default: all that fit the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<Text>>,
    /// Columns whose values are told apart: further columns of the set, or inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Text>,
    /// A score at or above this predicts the positive class. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Resamples that intervals are made of; 0 leaves those out that need resamples. Default 1000.
    #[schemars(range(max = 1000000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u32>,
    /// Confidence of the intervals. Default 0.95.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// A further column whose rows are drawn together: those of a customer are alike. Default: rows are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Text>,
    /// Precision among the entities with the highest scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cards: Option<CardsConfig>,
    /// Whether columns are shuffled one by one to see what each is worth. Default true.
    #[serde(skip_serializing)]
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

//! What may be written under `monitors`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::accuracy::{CardPrecisionConfig, MetricConfig, RankingConfig, ScoresConfig};
use super::{AlertConfig, DetectorConfig, DriftConfig, LatencyConfig, QualityConfig, ToConfig};
use crate::plan::values::{Columns, Duration, Text};

/// What is watched of a model: how good its predictions turn out to be, whether its input moves, and who is told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct MonitorConfig {
    /// Statistics are of tumbling windows of this length, by the time of the prediction, in UTC. Default 1d.
    pub window: Option<Duration>,
    /// A window whose labels are still coming is told again after this long in event time, at whole multiples of it, if
    /// anything changed. Default: the window.
    pub refresh: Option<Duration>,
    /// Columns of the scored event or its features: each value of each is a group with statistics of its own, beside those
    /// of all rows.
    #[serde(default)]
    pub segments: Vec<Text>,
    /// Values of one segment column that are told apart in a window; further ones count as `(other)`. Default 100.
    #[schemars(range(min = 1, max = 10000))]
    pub segments_max: Option<u32>,
    /// Output of the model that is held against the label; for several classes the outputs with the probabilities of classes
    /// 0, 1, … in this order. Default: the model's first output.
    pub prediction: Option<Columns>,
    /// What the model does. Default: `multiclass` for several outputs, `regression` when the label is a fraction, else `binary`.
    pub task: Option<TaskConfig>,
    /// How long a row may take from its reading until it is scored.
    pub latency: Option<LatencyConfig>,
    /// How the model's inputs and outputs differ from a reference.
    pub drift: Option<DriftConfig>,
    /// Statistics of the quality of the scored rows, over the windows of `drift`, or the monitor's.
    pub quality: Option<QualityConfig>,
    /// Statistics of how good predictions turn out to be; needs `labels`. Default: the usual ones of the task.
    pub accuracy: Option<Vec<MetricConfig>>,
    /// A score at or above this predicts the positive class. Default 0.5.
    pub threshold: Option<f64>,
    /// How scores are counted. Default: each for itself, and all statistics are exact.
    pub scores: Option<ScoresConfig>,
    /// How the items of a ranking are ranked.
    pub ranking: Option<RankingConfig>,
    /// Precision among the entities with the highest scores of a window.
    pub card_precision: Option<CardPrecisionConfig>,
    /// Change detectors over the errors of predictions, in the order in which their labels became known, each version by itself:
    /// `adwin`, `page_hinkley`, `ddm`, or one of these with settings. What they find is told in `stats/drift`.
    #[serde(default)]
    pub detectors: Vec<DetectorConfig>,
    /// Rules by which statistics become alerts.
    #[serde(default)]
    pub alerts: Vec<AlertConfig>,
    /// Publish the statistics to a topic, besides the tables `stats/…`.
    pub to: Option<ToConfig>,
}

/// What a model does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum TaskConfig {
    /// Scores one class against the other; a label above 0 is the positive class.
    Binary,
    /// Tells several classes apart; the label is the number of the class.
    Multiclass,
    /// Predicts a number.
    Regression,
    /// Ranks the items of a query; the label is the item's relevance.
    Ranking,
}

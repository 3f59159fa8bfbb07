//! What may be written under `monitors` about how good predictions turn out to be.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::model::Metric;
use crate::plan::values::{Duration, Text};

/// A statistic of predictions and their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum MetricConfig {
    /// Share of predictions that name the right class.
    Accuracy,
    /// Share of positive predictions that are right.
    Precision,
    /// Share of positive labels that were predicted.
    Recall,
    /// Harmonic mean of precision and recall.
    F1,
    /// Area under the ROC curve, ties counting one half; of several classes the mean of each against the rest.
    Auc,
    /// Mean precision over the positive labels, step by step (scikit-learn's definition).
    AveragePrecision,
    /// Counts by label and predicted class.
    Confusion,
    /// Mean of minus the logarithm of the probability of the label.
    LogLoss,
    /// Mean squared difference between score and label.
    Brier,
    /// Mean distance between score and share of positive labels over ten bins of equal width, weighted by their rows.
    CalibrationError,
    /// Share of positive labels.
    PositiveRate,
    /// Mean of the classes' precisions.
    PrecisionMacro,
    /// Precision over all classes taken together.
    PrecisionMicro,
    /// Mean of the classes' precisions, weighted by their labels.
    PrecisionWeighted,
    /// Mean of the classes' recalls.
    RecallMacro,
    /// Recall over all classes taken together.
    RecallMicro,
    /// Mean of the classes' recalls, weighted by their labels.
    RecallWeighted,
    /// Mean of the classes' F1.
    F1Macro,
    /// F1 over all classes taken together.
    F1Micro,
    /// Mean of the classes' F1, weighted by their labels.
    F1Weighted,
    /// Mean squared error.
    Mse,
    /// Square root of the mean squared error.
    Rmse,
    /// Mean absolute error.
    Mae,
    /// Share of the labels' variance that is explained.
    R2,
    /// Mean absolute error relative to the label.
    Mape,
    /// Normalised discounted cumulative gain of the first k.
    Ndcg,
    /// Mean over queries of the average precision.
    Map,
    /// Share of relevant items among the first k.
    PrecisionAtK,
    /// Share of a query's relevant items that are among the first k.
    RecallAtK,
}

impl MetricConfig {
    /// The metric of the plan.
    pub fn metric(self) -> Metric {
        use MetricConfig::*;
        match self {
            Accuracy => Metric::Accuracy,
            Precision => Metric::Precision,
            Recall => Metric::Recall,
            F1 => Metric::F1,
            Auc => Metric::Auc,
            AveragePrecision => Metric::AveragePrecision,
            Confusion => Metric::Confusion,
            LogLoss => Metric::LogLoss,
            Brier => Metric::Brier,
            CalibrationError => Metric::CalibrationError,
            PositiveRate => Metric::PositiveRate,
            PrecisionMacro => Metric::PrecisionMacro,
            PrecisionMicro => Metric::PrecisionMicro,
            PrecisionWeighted => Metric::PrecisionWeighted,
            RecallMacro => Metric::RecallMacro,
            RecallMicro => Metric::RecallMicro,
            RecallWeighted => Metric::RecallWeighted,
            F1Macro => Metric::F1Macro,
            F1Micro => Metric::F1Micro,
            F1Weighted => Metric::F1Weighted,
            Mse => Metric::Mse,
            Rmse => Metric::Rmse,
            Mae => Metric::Mae,
            R2 => Metric::R2,
            Mape => Metric::Mape,
            Ndcg => Metric::Ndcg,
            Map => Metric::Map,
            PrecisionAtK => Metric::PrecisionAtK,
            RecallAtK => Metric::RecallAtK,
        }
    }
}

/// How scores are counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ScoresConfig {
    /// Scores from 0 to 1 are counted in this many bins of equal width, a multiple of ten: state is bounded by bins, not by
    /// rows, and statistics that depend on the scores' order state how far they may be off.
    #[schemars(range(min = 10, max = 100000))]
    pub bins: u32,
}

/// How items are ranked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RankingConfig {
    /// Column of the scored event or its features: items with one value of it, in a window, are ranked against each other.
    pub query: Text,
    /// Items that are looked at. Default 10.
    #[schemars(range(min = 1, max = 100000))]
    pub k: Option<u32>,
}

/// Precision among the k entities with the highest scores of a window, such as cards to be called in a day.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct CardPrecisionConfig {
    /// Column that names the entity: its score is the highest of its rows, its label the highest of their labels. Equal
    /// scores are ordered by it.
    pub by: Text,
    /// Entities that are looked at. Default 100.
    #[schemars(range(min = 1, max = 100000))]
    pub k: Option<u32>,
    /// An entity that was found, so that it had a positive label among the first k, is left out of the windows that begin
    /// within this after its window. Default: none is left out.
    pub exclude_found: Option<Duration>,
}

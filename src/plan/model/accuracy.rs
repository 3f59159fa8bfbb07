//! How good predictions turn out to be: what is computed.

use serde::{Deserialize, Serialize};

use super::Task;
use crate::base::Micros;

/// What is computed of predictions and their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct AccuracyPlan {
    /// The statistics, in their order.
    pub metrics: Vec<Metric>,
    /// A score at or above this predicts the positive class.
    pub threshold: f64,
    /// Bins in which scores are counted; `None` counts each score for itself.
    pub bins: Option<u32>,
    /// How items are ranked.
    pub ranking: Option<RankingPlan>,
    /// Precision among the entities with the highest scores.
    pub card: Option<CardPlan>,
}

/// How items are ranked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankingPlan {
    /// Engine column whose values are the queries.
    pub query: String,
    /// Whether its values are texts, else whole numbers.
    pub text: bool,
    /// Items that are looked at.
    pub k: usize,
}

/// Precision among the entities with the highest scores of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardPlan {
    /// Engine column whose values are the entities.
    pub by: String,
    /// Whether its values are texts, else whole numbers.
    pub text: bool,
    /// Entities that are looked at.
    pub k: usize,
    /// Found entities are left out of windows that begin within this after theirs.
    pub exclude: Micros,
}

/// A statistic of predictions and their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the dataflow file, where each is described")]
pub enum Metric {
    Accuracy,
    Precision,
    Recall,
    F1,
    Auc,
    AveragePrecision,
    Confusion,
    LogLoss,
    Brier,
    CalibrationError,
    PositiveRate,
    PrecisionMacro,
    PrecisionMicro,
    PrecisionWeighted,
    RecallMacro,
    RecallMicro,
    RecallWeighted,
    F1Macro,
    F1Micro,
    F1Weighted,
    Mse,
    Rmse,
    Mae,
    R2,
    Mape,
    Ndcg,
    Map,
    PrecisionAtK,
    RecallAtK,
    CardPrecision,
    /// Predictions.
    Predictions,
    /// Predictions that have no label.
    Unmatched,
    /// Share of predictions that have a label.
    Coverage,
    /// Predictions for which a label came too late.
    LabelsLate,
    /// Labels for which no prediction came.
    LabelsOrphan,
    /// Predictions with a label, or a score, that does not fit the task.
    LabelsInvalid,
}

use Metric::*;

/// Those of two classes.
const BINARY: [Metric; 11] =
    [Accuracy, Precision, Recall, F1, Auc, AveragePrecision, Confusion, LogLoss, Brier, CalibrationError, PositiveRate];
/// Those of several classes.
const MULTICLASS: [Metric; 13] = [
    Accuracy,
    PrecisionMacro,
    PrecisionMicro,
    PrecisionWeighted,
    RecallMacro,
    RecallMicro,
    RecallWeighted,
    F1Macro,
    F1Micro,
    F1Weighted,
    Auc,
    Confusion,
    LogLoss,
];
const REGRESSION: [Metric; 5] = [Mse, Rmse, Mae, R2, Mape];
const RANKING: [Metric; 4] = [Ndcg, Map, PrecisionAtK, RecallAtK];

impl Metric {
    /// Its name in the dataflow file and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Accuracy => "accuracy",
            Precision => "precision",
            Recall => "recall",
            F1 => "f1",
            Auc => "auc",
            AveragePrecision => "average_precision",
            Confusion => "confusion",
            LogLoss => "log_loss",
            Brier => "brier",
            CalibrationError => "calibration_error",
            PositiveRate => "positive_rate",
            PrecisionMacro => "precision_macro",
            PrecisionMicro => "precision_micro",
            PrecisionWeighted => "precision_weighted",
            RecallMacro => "recall_macro",
            RecallMicro => "recall_micro",
            RecallWeighted => "recall_weighted",
            F1Macro => "f1_macro",
            F1Micro => "f1_micro",
            F1Weighted => "f1_weighted",
            Mse => "mse",
            Rmse => "rmse",
            Mae => "mae",
            R2 => "r2",
            Mape => "mape",
            Ndcg => "ndcg",
            Map => "map",
            PrecisionAtK => "precision_at_k",
            RecallAtK => "recall_at_k",
            CardPrecision => "card_precision",
            Predictions => "predictions",
            Unmatched => "unmatched",
            Coverage => "coverage",
            LabelsLate => "labels_late",
            LabelsOrphan => "labels_orphan",
            LabelsInvalid => "labels_invalid",
        }
    }

    /// All that fit a task.
    pub fn of(task: Task) -> &'static [Metric] {
        match task {
            Task::Binary => &BINARY,
            Task::Multiclass => &MULTICLASS,
            Task::Regression => &REGRESSION,
            Task::Ranking => &RANKING,
        }
    }

    /// Those that are told when the file names none.
    pub fn usual(task: Task) -> &'static [Metric] {
        match task {
            Task::Multiclass => &[Accuracy, PrecisionMacro, RecallMacro, F1Macro, Auc, Confusion, LogLoss],
            task => Metric::of(task),
        }
    }
}

//! The statistics that alerts may name.

use super::{MetricTable, Task};

/// Statistics of models that tell two classes apart, besides those of [`CLASSES`].
const BINARY: &[&str] = &["auc", "average_precision", "brier", "calibration_error"];
/// Statistics of models that tell classes apart.
const CLASSES: &[&str] = &["accuracy", "precision", "recall", "f1", "log_loss"];
/// Statistics of models that predict a number.
const REGRESSION: &[&str] = &["mse", "rmse", "mae", "r2", "mape"];
/// Statistics of models that rank, which have a number behind them, such as `ndcg_at_10`.
const RANKING: &[&str] = &["ndcg_at_", "map_at_", "precision_at_", "recall_at_"];
/// Statistics of all models.
const ANY: &[&str] = &["labelled", "unmatched"];
/// Statistics of drift.
const DRIFT: &[&str] = &["psi", "ks", "chi_square", "jensen_shannon", "wasserstein", "mean_shift", "drift_share"];
/// Statistics of the detectors' errors.
const ERRORS: &[&str] = &["prequential_error", "prequential_error_fading"];
/// Statistics of rows and of scoring.
const QUALITY: &[&str] = &[
    "null_rate",
    "out_of_range",
    "new_categories",
    "missing",
    "freshness_seconds",
    "volume",
    "duplicates",
    "latency_p50_ms",
    "latency_p99_ms",
    "error_rate",
];
/// Quantities of the engine.
const ENGINE: &[&str] = &["cpu", "memory_bytes", "disk_free_bytes", "brokers_up", "lag"];

/// The table of a statistic that a model of this task may have; `None` where there is no such.
pub fn table_of(task: Task, metric: &str) -> Option<MetricTable> {
    let ranked =
        RANKING.iter().any(|name| metric.strip_prefix(name).is_some_and(|k| k.parse::<u32>().is_ok_and(|k| k > 0)));
    let ranks = matches!(task, Task::Ranking | Task::Binary);
    if ranked && ranks {
        return Some(MetricTable::Accuracy);
    }
    metrics(task).find(|(name, _)| *name == metric).map(|(_, table)| table)
}

/// The statistics that a model of this task may have, with their tables; those with a number behind them by their beginning.
pub fn metrics(task: Task) -> impl Iterator<Item = (&'static str, MetricTable)> {
    let accuracy: &[&[&str]] = match task {
        Task::Binary => &[CLASSES, BINARY, RANKING, ANY],
        Task::Multiclass => &[CLASSES, &["auc", "brier", "calibration_error"], ANY],
        Task::Regression => &[REGRESSION, ANY],
        Task::Ranking => &[RANKING, ANY],
    };
    let of = |table: MetricTable, names: &[&'static [&'static str]]| {
        names.iter().flat_map(|n| n.iter()).map(|name| (*name, table)).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for names in accuracy {
        all.extend(names.iter().map(|name| (*name, MetricTable::Accuracy)));
    }
    all.extend(of(MetricTable::Drift, &[DRIFT, ERRORS]));
    all.extend(of(MetricTable::Quality, &[QUALITY]));
    all.extend(of(MetricTable::Engine, &[ENGINE]));
    all.into_iter()
}

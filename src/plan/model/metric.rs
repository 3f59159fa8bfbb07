//! The statistics that alerts may name.

use super::{Metric, MetricTable, Task};

/// What is told of every model that has labels.
const LABELLED: &[Metric] = &[
    Metric::Predictions,
    Metric::Unmatched,
    Metric::Coverage,
    Metric::LabelsLate,
    Metric::LabelsOrphan,
    Metric::LabelsInvalid,
    Metric::CardPrecision,
];
/// Statistics of drift.
const DRIFT: &[&str] = &[
    "psi",
    "psi_evidently",
    "ks",
    "ks_p",
    "chi_square",
    "chi_square_p",
    "chi_square_evidently_p",
    "js",
    "kl",
    "wasserstein",
    "shift_sd",
    "missing",
    "drifted_columns",
];
/// Statistics of the errors that detectors watch.
const ERRORS: &[&str] = &["prequential_error", "prequential_error_fading"];
/// Statistics of rows.
const QUALITY: &[&str] = &[
    "null_share",
    "out_of_range_share",
    "new_category_share",
    "new_category",
    "missing_share",
    "freshness_seconds",
    "volume",
    "volume_ratio",
    "duplicate_share",
];
/// How a model is served.
const SERVING: &[&str] = &["latency_p50_ms", "latency_p99_ms", "latency_max_ms", "error_rate", "predictions_per_s"];
/// How the job's process does.
const ENGINE: &[&str] =
    &["rows_per_s", "cpu_cores", "memory_bytes", "disk_free_bytes", "brokers_up", "kafka_lag", "watermark_lag_s"];

/// The table of a statistic that a model of this task may have; `None` where there is no such.
pub fn table_of(task: Task, metric: &str) -> Option<MetricTable> {
    metrics(task).into_iter().find(|(name, _)| *name == metric).map(|(_, table)| table)
}

/// The statistics that a model of this task may have, with their tables.
pub fn metrics(task: Task) -> Vec<(&'static str, MetricTable)> {
    let accuracy = Metric::of(task).iter().chain(LABELLED).map(|metric| (metric.name(), MetricTable::Accuracy));
    let others = [
        (DRIFT, MetricTable::Drift),
        (ERRORS, MetricTable::Errors),
        (QUALITY, MetricTable::Quality),
        (SERVING, MetricTable::Serving),
        (ENGINE, MetricTable::Engine),
    ];
    accuracy.chain(others.into_iter().flat_map(|(names, table)| names.iter().map(move |name| (*name, table)))).collect()
}

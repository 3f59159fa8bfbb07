//! What is known of statistics by their names: how they are called, which way is better, in what unit they are.

/// How a value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number.
    #[default]
    Number,
    /// A part of one, written in per cent.
    Share,
    /// Whole things.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// So many each second.
    PerSecond,
}

/// Which way a value should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
    /// It depends.
    Neither,
}

/// What is known of a statistic.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub title: &'static str,
    pub unit: Unit,
    pub better: Better,
}

const KNOWN: &[(&str, &str, Unit, Better)] = &[
    ("auc", "ROC AUC", Unit::Number, Better::More),
    ("average_precision", "Average precision", Unit::Number, Better::More),
    ("accuracy", "Accuracy", Unit::Share, Better::More),
    ("precision", "Precision", Unit::Share, Better::More),
    ("recall", "Recall", Unit::Share, Better::More),
    ("f1", "F1", Unit::Number, Better::More),
    ("log_loss", "Log loss", Unit::Number, Better::Less),
    ("brier", "Brier score", Unit::Number, Better::Less),
    ("calibration_error", "Calibration error", Unit::Number, Better::Less),
    ("f1_macro", "F1, macro", Unit::Number, Better::More),
    ("f1_micro", "F1, micro", Unit::Number, Better::More),
    ("f1_weighted", "F1, weighted", Unit::Number, Better::More),
    ("precision_macro", "Precision, macro", Unit::Share, Better::More),
    ("precision_micro", "Precision, micro", Unit::Share, Better::More),
    ("precision_weighted", "Precision, weighted", Unit::Share, Better::More),
    ("recall_macro", "Recall, macro", Unit::Share, Better::More),
    ("recall_micro", "Recall, micro", Unit::Share, Better::More),
    ("recall_weighted", "Recall, weighted", Unit::Share, Better::More),
    ("rmse", "RMSE", Unit::Number, Better::Less),
    ("mae", "Mean absolute error", Unit::Number, Better::Less),
    ("mse", "Mean squared error", Unit::Number, Better::Less),
    ("r2", "R²", Unit::Number, Better::More),
    ("mape", "Mean absolute error, relative", Unit::Share, Better::Less),
    ("ndcg", "NDCG", Unit::Number, Better::More),
    ("map", "MAP", Unit::Number, Better::More),
    ("precision_at_k", "Precision among the first k", Unit::Share, Better::More),
    ("recall_at_k", "Recall among the first k", Unit::Share, Better::More),
    ("card_precision", "Card precision", Unit::Share, Better::More),
    ("positive_rate", "Positive labels", Unit::Share, Better::Neither),
    ("coverage", "Predictions with a label", Unit::Share, Better::More),
    ("predictions", "Predictions", Unit::Count, Better::Neither),
    ("unmatched", "Predictions without a label", Unit::Count, Better::Neither),
    ("labels_late", "Labels that came too late", Unit::Count, Better::Less),
    ("labels_orphan", "Labels without a prediction", Unit::Count, Better::Less),
    ("labels_invalid", "Labels that do not fit", Unit::Count, Better::Less),
    ("psi", "PSI", Unit::Number, Better::Less),
    ("psi_evidently", "PSI, Evidently's bins", Unit::Number, Better::Less),
    ("ks", "Kolmogorov-Smirnov", Unit::Number, Better::Less),
    ("ks_p", "Kolmogorov-Smirnov, p", Unit::Number, Better::More),
    ("chi_square", "Chi-square", Unit::Number, Better::Less),
    ("chi_square_p", "Chi-square, p", Unit::Number, Better::More),
    ("chi_square_evidently_p", "Chi-square, Evidently's p", Unit::Number, Better::More),
    ("js", "Jensen-Shannon", Unit::Number, Better::Less),
    ("kl", "Kullback-Leibler", Unit::Number, Better::Less),
    ("wasserstein", "Wasserstein", Unit::Number, Better::Less),
    ("shift_sd", "Shift in standard deviations", Unit::Number, Better::Less),
    ("adwin", "ADWIN: mean error where it found a change", Unit::Number, Better::Less),
    ("page_hinkley", "Page-Hinkley: mean error where it found a change", Unit::Number, Better::Less),
    ("ddm", "DDM: mean error where it found a change", Unit::Number, Better::Less),
    ("prequential_error", "Error, over all predictions so far", Unit::Number, Better::Less),
    ("prequential_error_fading", "Error, the latest weighing most", Unit::Number, Better::Less),
    ("missing", "Missing values", Unit::Share, Better::Less),
    ("drifted_columns", "Columns that drift", Unit::Share, Better::Less),
    ("null_share", "Nulls", Unit::Share, Better::Less),
    ("out_of_range_share", "Outside of the reference's range", Unit::Share, Better::Less),
    ("new_category_share", "In new categories", Unit::Share, Better::Less),
    ("missing_share", "Rows with a missing value", Unit::Share, Better::Less),
    ("freshness_seconds", "Age of the newest row", Unit::Seconds, Better::Less),
    ("volume", "Rows", Unit::Count, Better::Neither),
    ("volume_ratio", "Rows, relative to the windows before", Unit::Number, Better::Neither),
    ("duplicate_share", "Duplicates", Unit::Share, Better::Less),
    ("latency_p50_ms", "Latency, median", Unit::Milliseconds, Better::Less),
    ("latency_p99_ms", "Latency, 99th percentile", Unit::Milliseconds, Better::Less),
    ("latency_max_ms", "Latency, slowest", Unit::Milliseconds, Better::Less),
    ("error_rate", "Rows that could not be scored", Unit::Share, Better::Less),
    ("predictions_per_s", "Predictions", Unit::PerSecond, Better::Neither),
    ("rows_per_s", "Rows read", Unit::PerSecond, Better::Neither),
    ("cpu_cores", "Processor cores in use", Unit::Number, Better::Neither),
    ("memory_bytes", "Memory", Unit::Bytes, Better::Neither),
    ("disk_free_bytes", "Free disk", Unit::Bytes, Better::More),
    ("brokers_up", "Sources whose brokers answer", Unit::Share, Better::More),
    ("kafka_lag", "Offsets behind the brokers", Unit::Count, Better::Less),
    ("watermark_lag_s", "Event time behind the wall clock", Unit::Seconds, Better::Less),
];

/// What is known of a statistic; of one that is not known, nothing but that it is a number.
pub(super) fn about(metric: &str) -> Option<About> {
    // Metrics with a number behind, such as `card_precision_100`, are called as those without.
    let stem = metric.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '@']);
    let find = |name: &str| KNOWN.iter().find(|(known, ..)| *known == name);
    find(metric).or_else(|| find(stem)).map(|(_, title, unit, better)| About { title, unit: *unit, better: *better })
}

/// What a statistic is called.
pub(super) fn title(metric: &str) -> String {
    match about(metric) {
        Some(about) if metric.ends_with(|c: char| c.is_ascii_digit()) && metric != "f1" && metric != "r2" => {
            let number = metric.trim_start_matches(|c: char| !c.is_ascii_digit());
            format!("{} ({number})", about.title)
        }
        Some(about) => about.title.to_owned(),
        None => metric.replace('_', " "),
    }
}

/// In what unit it is.
pub(super) fn unit(metric: &str) -> Unit {
    about(metric).map_or(Unit::Number, |about| about.unit)
}

/// Which way is better.
pub(super) fn better(metric: &str) -> Better {
    about(metric).map_or(Better::Neither, |about| about.better)
}

/// The place of a statistic among its like; unknown ones come last, by name.
pub(super) fn rank(metric: &str) -> (usize, String) {
    let stem = metric.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '@']);
    let at = |name: &str| KNOWN.iter().position(|(known, ..)| *known == name);
    (at(metric).or_else(|| at(stem)).unwrap_or(KNOWN.len()), metric.to_owned())
}

/// Whether less is what sets an alarm off: probabilities of a test.
pub(super) fn alarms_below(metric: &str) -> bool {
    metric.ends_with("_p")
}

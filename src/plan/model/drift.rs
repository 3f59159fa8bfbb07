//! What of a model's rows is held against a reference, and what is counted of their quality.

use std::path::PathBuf;

use crate::base::{EventTime, Micros};

/// Drift and data quality of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftPlan {
    /// Length of the tumbling windows.
    pub window: Micros,
    /// The columns that are counted.
    pub columns: Vec<DriftColumn>,
    /// The label, if it is watched.
    pub label: Option<DriftColumn>,
    /// What columns are held against.
    pub references: Vec<ReferencePlan>,
    /// Bins of `psi`.
    pub bins: usize,
    /// How often a statistic of a window is an alarm when nothing has changed.
    pub false_alarms: f64,
    /// Whether that is divided by the number of columns.
    pub bonferroni: bool,
    /// Whether Evidently's fixed thresholds are used instead.
    pub evidently: bool,
    /// Statistics of quality.
    pub quality: Vec<QualityMetric>,
    /// The source whose duplicates are counted, by index.
    pub spine: usize,
}

/// A column that is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftColumn {
    /// Its name in statistics.
    pub name: String,
    /// Its name in scored rows; of a label, nothing.
    pub engine: String,
    /// What it is to the model.
    pub role: ColumnRole,
    /// Whether its values are categories.
    pub categories: bool,
    /// Statistics of drift.
    pub metrics: Vec<DriftMetric>,
    /// Its reference, by index, if it has one.
    pub reference: Option<usize>,
    /// Its name in the reference.
    pub reference_column: String,
}

/// What a column is to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRole {
    /// An input.
    Feature,
    /// An output.
    Prediction,
    /// The label.
    Label,
}

/// What columns are held against.
#[derive(Clone, Debug, PartialEq)]
pub enum ReferencePlan {
    /// A Delta table.
    Delta {
        /// The table's directory.
        uri: PathBuf,
        /// Its version; the newest when the job starts if there is none.
        version: Option<u64>,
        /// Rows that are taken: SQL over the table's columns.
        filter: Option<String>,
    },
    /// A Parquet file.
    File {
        /// The file.
        path: PathBuf,
        /// Rows that are taken: SQL over the file's columns.
        filter: Option<String>,
    },
    /// The rows that the model's champion was fitted on.
    Training,
    /// The windows of so long before each window.
    Past(Micros),
    /// The job's own rows from the first time up to the second.
    Between(EventTime, EventTime),
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Its name in the file and in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)*
                }
            }
        }
    };
}

named! {
    /// A statistic of drift.
    DriftMetric {
        /// Population stability index over bins cut at the reference's quantiles, or over categories.
        Psi = "psi",
        /// The same with Evidently's bins: equal ones over both samples, as many as Sturges says.
        PsiEvidently = "psi_evidently",
        /// Kolmogorov-Smirnov statistic of numeric columns.
        Ks = "ks",
        /// Its p-value.
        KsP = "ks_p",
        /// Chi-square statistic of the table of counts.
        ChiSquare = "chi_square",
        /// Its p-value.
        ChiSquareP = "chi_square_p",
        /// P-value of Evidently's chi-square test, which takes the reference's shares as exact.
        ChiSquareEvidentlyP = "chi_square_evidently_p",
        /// Jensen-Shannon distance.
        Js = "js",
        /// Kullback-Leibler divergence.
        Kl = "kl",
        /// Wasserstein distance of numeric columns in standard deviations of the reference.
        Wasserstein = "wasserstein",
        /// Shift of the mean in standard deviations of the reference.
        ShiftSd = "shift_sd",
        /// Share of missing values.
        Missing = "missing",
    }
}

named! {
    /// A statistic of quality.
    QualityMetric {
        /// Share of missing values of each column.
        Nulls = "nulls",
        /// Share of values of each numeric column below or above all of the reference's.
        Range = "range",
        /// Share of values of each column of categories that the reference does not have, and the first of them.
        NewCategories = "new_categories",
        /// Share of rows in which any of the columns is missing.
        Missing = "missing",
        /// Age of the newest row at the end of the window, in seconds.
        Freshness = "freshness",
        /// Rows, and their ratio to the mean of the seven windows before.
        Volume = "volume",
        /// Share of rows that were duplicates, which the source's `dedup` has removed.
        Duplicates = "duplicates",
    }
}

impl DriftMetric {
    /// Whether columns of this kind have it.
    pub fn applies(self, categories: bool) -> bool {
        match self {
            DriftMetric::Ks | DriftMetric::KsP | DriftMetric::Wasserstein | DriftMetric::ShiftSd => !categories,
            _ => true,
        }
    }
}

//! What may be written under a monitor's `drift` and `quality`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::plan::model::{DriftMetric, QualityMetric};
use crate::plan::values::{ByColumn, Columns, Duration, Sql, Text, Time};

/// How the columns of a window differ from a reference, and from when on that is an alarm.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DriftConfig {
    /// Statistics of each input of the model; those that a column's kind does not have are left out. The first that a column
    /// has decides whether it counts among the drifted columns. Default psi, ks, js, missing.
    pub features: Option<Vec<DriftMetric>>,
    /// Statistics of each output of the model. Default: none.
    pub prediction: Option<Vec<DriftMetric>>,
    /// Statistics of the label, as labels come. Default: none.
    pub label: Option<Vec<DriftMetric>>,
    /// The inputs that are watched. Default: all of the model's.
    pub columns: Option<Columns>,
    /// Numeric columns whose values are categories. Texts and truth values are such anyway.
    pub categorical: Option<Columns>,
    /// What windows are held against: `training`, the rows that the registered version which is the champion was fitted on, or a
    /// table, a file, or rows of the job's own.
    pub reference: ReferenceConfig,
    /// What the outputs are held against, if not the same.
    pub prediction_reference: Option<ReferenceConfig>,
    /// What the label is held against, if not the same.
    pub label_reference: Option<ReferenceConfig>,
    /// Names of columns in a reference that is a table or a file, where they differ: `{amount: TX_AMOUNT}`.
    #[serde(default)]
    pub names: ByColumn<Text>,
    /// Length of the tumbling windows, in UTC. Default: the monitor's.
    pub window: Option<Duration>,
    /// Bins of psi: cut at so many quantiles of the reference. Default 10.
    #[schemars(range(min = 2, max = 100))]
    pub bins: Option<u32>,
    /// How often a statistic of a window is an alarm when nothing has changed; thresholds follow from it and the numbers of
    /// rows. Default 0.01.
    #[schemars(range(min = 0.000001, max = 0.5))]
    pub false_alarms: Option<f64>,
    /// Whether `false_alarms` holds for each statistic (`none`) or is divided by the number of columns (`bonferroni`).
    /// Default none: of 20 columns without drift, one in five windows has an alarm at 0.01.
    pub correct: Option<CorrectConfig>,
    /// Where thresholds come from. Default calibrated.
    pub rule: Option<DriftRuleConfig>,
}

/// What windows are held against.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::plan) enum ReferenceConfig {
    Word(ReferenceWord),
    With(Box<ReferenceSettings>),
}

/// What needs no settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum ReferenceWord {
    Training,
}

impl JsonSchema for ReferenceConfig {
    fn schema_name() -> Cow<'static, str> {
        "ReferenceConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with = generator.subschema_for::<ReferenceSettings>();
        json_schema!({
            "anyOf": [{"type": "string", "enum": ["training"]}, with],
            "description": "What windows are held against: `training`, the rows that the registered version which is the champion was fitted on; or one of {delta: {uri: …}}, {file: …}, {past: 7d}, {between: [T1, T2]}.",
        })
    }
}

/// What windows are held against: one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct ReferenceSettings {
    /// A Delta table, such as the training set.
    pub delta: Option<DeltaReferenceConfig>,
    /// A Parquet file.
    pub file: Option<Text>,
    /// With `file`: the rows that are taken.
    #[serde(rename = "where")]
    pub filter: Option<Sql>,
    /// The windows of so long before each window. A window is told without values until there are so many before it.
    pub past: Option<Duration>,
    /// The job's own rows from the first time up to the second.
    pub between: Option<Vec<Time>>,
}

/// A Delta table as reference.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DeltaReferenceConfig {
    /// Directory of the table.
    pub uri: Text,
    /// Version of the table. Default: the newest when the job starts; a job that goes on from saved state must find the same.
    pub version: Option<u64>,
    /// Rows that are taken, such as "event_time < timestamp '2026-01-01'".
    #[serde(rename = "where")]
    pub filter: Option<Sql>,
}

/// Correction for many columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum CorrectConfig {
    /// None.
    None,
    /// Division by the number of columns.
    Bonferroni,
}

/// Where thresholds come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum DriftRuleConfig {
    /// From `false_alarms` and the numbers of rows.
    Calibrated,
    /// Evidently's defaults: 0.1 for distances, 0.05 for p-values, whatever the numbers of rows.
    Evidently,
}

/// Statistics of quality.
pub(in crate::plan) type QualityConfig = Vec<QualityMetric>;

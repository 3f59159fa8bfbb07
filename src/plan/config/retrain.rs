//! What may be written under `retrain`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::RolloutConfig;
use crate::plan::values::{Duration, Text};

/// How a model gets new versions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RetrainConfig {
    /// What starts `job`: `drift` (any alert about drift of the model, or a change of its errors), `{alert: NAME}`,
    /// `{every: 7d}` and `{cron: "0 3 * * *"}` (minute, hour, day of the month, month, day of the week; UTC) on the job's
    /// clock, `{labels: 50000}` (so many labels since the last time). Without any it is started by hand alone:
    /// `tidemill train`.
    #[serde(default)]
    pub on: Vec<TriggerConfig>,
    /// None is started sooner after the last, on the job's clock; and one at a time in any case. Default 1h.
    pub cool_down: Option<Duration>,
    /// The batch dataflow that is started; a relative path starts at the directory of the job's file, or else at the current one.
    pub job: Option<Text>,
    /// How a new version of the model comes in, wherever it comes from: whichever version of the registry gets the alias
    /// `challenger`.
    pub rollout: Option<RolloutConfig>,
}

/// What starts a retraining.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::plan) enum TriggerConfig {
    Word(TriggerWord),
    With(TriggerSettings),
}

/// What needs no settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum TriggerWord {
    Drift,
}

impl JsonSchema for TriggerConfig {
    fn schema_name() -> Cow<'static, str> {
        "TriggerConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with = generator.subschema_for::<TriggerSettings>();
        json_schema!({
            "anyOf": [{"type": "string", "enum": ["drift"]}, with],
            "description": "What starts a retraining: drift, or one of {alert: NAME}, {every: 7d}, {cron: \"0 3 * * *\"}, {labels: 50000}.",
        })
    }
}

/// What starts a retraining; exactly one of the keys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct TriggerSettings {
    /// The alert of this name, of the model's monitor, begins to fire.
    pub alert: Option<Text>,
    /// So long after the last time.
    pub every: Option<Duration>,
    /// At these times: minute, hour, day of the month, month, day of the week; UTC.
    pub cron: Option<Text>,
    /// So many labels of the model have come since the last time.
    #[schemars(range(min = 1))]
    pub labels: Option<u64>,
}

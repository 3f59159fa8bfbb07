//! What may be written under `monitors.NAME.detectors`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// A change detector: its name, or its name and settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::plan) enum DetectorConfig {
    Name(String),
    With(Box<DetectorSettings>),
}

impl JsonSchema for DetectorConfig {
    fn schema_name() -> Cow<'static, str> {
        "DetectorConfig".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let with = generator.subschema_for::<DetectorSettings>();
        json_schema!({
            "anyOf": [{"type": "string", "enum": ["adwin", "page_hinkley", "ddm"]}, with],
            "description": "A change detector: its name, or its name and settings.",
        })
    }
}

/// A change detector with settings; exactly one of the keys.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DetectorSettings {
    /// Adaptive windowing: keeps a window of errors as long as no cut in it tells two means apart.
    pub adwin: Option<AdwinConfig>,
    /// Page-Hinkley's test: a sum of deviations from the mean.
    pub page_hinkley: Option<PageHinkleyConfig>,
    /// The drift detection method: an error rate above its lowest. Not for regression.
    pub ddm: Option<DdmConfig>,
}

/// ADWIN's settings, named and with the defaults as in River.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct AdwinConfig {
    /// Significance of a cut: smaller is slower and has fewer false alarms. Default 0.002.
    pub delta: Option<f64>,
    /// Cuts are tried every so many errors. Default 32.
    #[schemars(range(min = 1))]
    pub clock: Option<u64>,
    /// Buckets of one size before two are merged. Default 5.
    #[schemars(range(min = 2, max = 1000))]
    pub max_buckets: Option<u64>,
    /// Least length of either side of a cut. Default 5.
    #[schemars(range(min = 1))]
    pub min_window_length: Option<u64>,
    /// No cut before the window is longer than this. Default 10.
    pub grace_period: Option<u64>,
}

/// Page-Hinkley's settings, named and with the defaults as in River.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct PageHinkleyConfig {
    /// No change before so many errors. Default 30.
    #[schemars(range(min = 1))]
    pub min_instances: Option<u64>,
    /// Deviations below this do not count. Default 0.005.
    pub delta: Option<f64>,
    /// A change is a sum of deviations beyond this. Default 50.
    pub threshold: Option<f64>,
    /// What the sum keeps of itself with each error. Default 0.9999.
    pub alpha: Option<f64>,
    /// Which changes of the mean count. Default `both`.
    pub mode: Option<DirectionConfig>,
}

/// Which changes of a mean count.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum DirectionConfig {
    /// Rises.
    Up,
    /// Falls.
    Down,
    /// Both.
    Both,
}

/// DDM's settings, named and with the defaults as in River.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct DdmConfig {
    /// No change before more than so many errors. Default 30.
    pub warm_start: Option<u64>,
    /// Standard deviations above the lowest error rate that are a warning, told as `ddm_warning`. Default 2.
    pub warning_threshold: Option<f64>,
    /// Standard deviations above the lowest error rate that are a change. Default 3.
    pub drift_threshold: Option<f64>,
}

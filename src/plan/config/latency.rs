//! What may be written under a monitor's `latency`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::values::Duration;

/// How long a row may take from its reading until it is scored, and how often that and the job's operation (processor time,
/// memory, free disk, brokers, errors) are looked at. Without it they are looked at all the same, every 10s.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct LatencyConfig {
    /// It is an alarm when half of the rows take longer, in milliseconds.
    pub p50_ms: Option<f64>,
    /// It is an alarm when one row in a hundred takes longer, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Time between two looks, by the wall clock: at least 1s, default 10s. Whatever the monitor's window is.
    pub every: Option<Duration>,
}

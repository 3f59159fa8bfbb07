//! What may be written under `retrain`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RolloutConfig;

/// How a model gets new versions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RetrainConfig {
    /// How a new version of the model comes in, wherever it comes from: whichever version of the registry gets the alias
    /// `challenger`.
    pub rollout: Option<RolloutConfig>,
}

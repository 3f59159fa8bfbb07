//! What may be written under `retrain.<model>.rollout`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::values::{Duration, Text};

/// How a challenger of the model comes in: who sees it, for how long, and what must be shown before it replaces the champion. One
/// of `canary`, `ab` and `blue_green` is the way; without any it is `canary: [5, 25, 50, 100]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct RolloutConfig {
    /// First the challenger scores every row beside the champion for at least this long and nothing of it is published. Both are
    /// compared row by row. Default: not at all.
    pub shadow: Option<Duration>,
    /// Shares of the rows, in per cent and growing, that the challenger scores, one step after the other.
    #[schemars(length(min = 1))]
    pub canary: Option<Vec<f64>>,
    /// The challenger scores this share of the rows, in per cent, until the difference is known.
    pub ab: Option<f64>,
    /// Switch all rows at once; the champion is kept loaded for `keep` and comes back at once when a guard is hurt.
    pub blue_green: Option<bool>,
    /// How long a step of the canary lasts at the least, on the job's clock. Default 1h.
    pub hold: Option<Duration>,
    /// How long the champion is kept after a blue-green switch. Default 1h.
    pub keep: Option<Duration>,
    /// Column whose values are assigned as a whole, such as `customer_id`: all rows of a customer meet the same version.
    /// Default: each row by its `id`.
    pub by: Option<Text>,
    /// Loss of a row by which versions are compared; lower is better. Default: `squared_error` for a regression, else `log_loss`.
    pub metric: Option<LossConfig>,
    /// Probability with which a challenger that is no better may be promoted, however often it is looked at. Default 0.05.
    pub alpha: Option<f64>,
    /// How much worse, in units of `metric`, the challenger's mean loss may be and still pass as not inferior. Default 0.
    pub margin: Option<f64>,
    /// What must be shown: `superior`, the difference is below 0, or `not_inferior`, it is below `margin`. Default:
    /// `not_inferior` where there is a `margin`, else `superior`.
    pub promote_if: Option<PromoteIfConfig>,
    /// Nothing is decided by losses before each version has this many rows with labels: enough that the losses that matter are among
    /// them, such as some dozens of the rarer class. Default 1000.
    #[schemars(range(min = 10))]
    pub min_rows: Option<u64>,
    /// About how many rows with labels a decision will take, both versions together: there the interval is at its narrowest. It
    /// is valid at any number of rows. Default 20000.
    #[schemars(range(min = 10))]
    pub expect_rows: Option<u64>,
    /// When nothing is decided for this long. Default 30d.
    pub max: Option<Duration>,
    /// What happens then. Default `roll_back`.
    pub on_timeout: Option<OnTimeoutConfig>,
    /// What takes the challenger back at once.
    pub guard: Option<GuardConfig>,
}

/// A loss of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum LossConfig {
    /// Minus the logarithm of the probability of the label, which is taken as at least 1e-15.
    LogLoss,
    /// Squared difference between score and label, 0 or 1.
    Brier,
    /// 1 where the wrong class is predicted, else 0.
    Error,
    /// Squared difference between prediction and label.
    SquaredError,
    /// Absolute difference between prediction and label.
    AbsoluteError,
}

/// What must be shown before a challenger is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum PromoteIfConfig {
    /// Its mean loss is lower.
    Superior,
    /// Its mean loss is less than `margin` higher.
    NotInferior,
}

/// What happens when time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::plan) enum OnTimeoutConfig {
    /// The challenger is taken back.
    RollBack,
    /// All stays as it is until somebody decides.
    Hold,
}

/// What takes the challenger back at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::plan) struct GuardConfig {
    /// Latency of scored rows in milliseconds, 99th percentile, that may not be passed while the challenger is out.
    pub latency_p99_ms: Option<f64>,
    /// Share of the challenger's rows that may fail to be scored. It is passed when it is beyond doubt, as by `alpha`.
    pub error_rate: Option<f64>,
    /// How many standard deviations of the champion's scores the mean of the challenger's may be away from the champion's.
    pub score_shift_sd: Option<f64>,
    /// Probability of a false alarm of the test whether each version gets the share of rows that it should. Default 0.001; 0
    /// turns the test off.
    pub sample_ratio_alpha: Option<f64>,
}

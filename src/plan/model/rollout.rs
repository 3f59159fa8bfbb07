//! How a challenger replaces the champion, compiled.

use serde::{Deserialize, Serialize};

use crate::base::Micros;

/// A share of the rows in hundredths of a per cent, from 0 to [`SHARE_ALL`].
pub type Share = u16;

/// All rows.
pub const SHARE_ALL: Share = 10_000;

/// How a challenger of a model comes in. Written into the command that begins a rollout, so a later edit of the file changes no
/// rollout that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Both score every row for at least this long; 0 is not at all.
    pub shadow: Micros,
    /// What comes after.
    pub strategy: Strategy,
    /// Column whose values are assigned as a whole; `None` assigns each row by its id.
    pub by: Option<ByPlan>,
    /// The loss of a row.
    pub metric: Loss,
    /// Probability of a false promotion.
    pub alpha: f64,
    /// The difference of mean losses, challenger less champion, that must be excluded from above: 0 for superiority.
    pub margin: f64,
    /// Labelled rows of each version before losses decide.
    pub min_rows: u64,
    /// Labelled rows of both versions at which the interval is at its narrowest.
    pub expect_rows: u64,
    /// When nothing has been decided for this long.
    pub max: Micros,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// What takes the challenger back at once.
    pub guard: GuardPlan,
}

/// How the challenger gets rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Step by step.
    Canary {
        /// Growing shares.
        steps: Vec<Share>,
        /// How long a step lasts at the least.
        hold: Micros,
    },
    /// One share until the difference is known.
    Ab {
        /// The challenger's share.
        share: Share,
    },
    /// All at once.
    BlueGreen {
        /// How long the champion is kept loaded.
        keep: Micros,
    },
}

/// A column whose values are assigned as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByPlan {
    /// Engine column.
    pub column: String,
    /// Whether its values are texts, else whole numbers.
    pub text: bool,
}

/// A loss of one row; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Minus the logarithm of the probability of the label.
    LogLoss,
    /// Squared difference between score and label, 0 or 1.
    Brier,
    /// 1 where the wrong class is predicted.
    Error,
    /// Squared difference between prediction and label.
    SquaredError,
    /// Absolute difference between prediction and label.
    AbsoluteError,
}

impl Loss {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Loss::LogLoss => "log_loss",
            Loss::Brier => "brier",
            Loss::Error => "error",
            Loss::SquaredError => "squared_error",
            Loss::AbsoluteError => "absolute_error",
        }
    }
}

/// What happens when time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// The challenger is taken back.
    RollBack,
    /// All stays as it is.
    Hold,
}

/// What takes the challenger back at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardPlan {
    /// 99th percentile of latency in milliseconds.
    pub latency_p99_ms: Option<f64>,
    /// Share of rows that fail.
    pub error_rate: Option<f64>,
    /// Distance of mean scores in standard deviations of the champion's.
    pub score_shift_sd: Option<f64>,
    /// Probability of a false alarm about the shares; 0 is no test.
    pub sample_ratio_alpha: f64,
}

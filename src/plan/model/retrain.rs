//! When a model is retrained, compiled.

use std::path::PathBuf;

use crate::base::{Cron, Micros};

/// When a model is retrained, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrainPlan {
    /// The model, by index.
    pub model: usize,
    /// What starts it; nothing for by hand alone.
    pub on: Vec<Trigger>,
    /// None sooner after the last, on the job's clock.
    pub cool_down: Micros,
    /// The batch dataflow's file.
    pub job: PathBuf,
}

/// What starts a retraining.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// Any alert about drift, or a change that a detector has found.
    Drift,
    /// This alert of the model's monitor.
    Alert(String),
    /// So long after the last time.
    Every(Micros),
    /// At these times.
    Cron(Cron),
    /// So many labels since the last time.
    Labels(u64),
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trigger::Drift => f.write_str("drift"),
            Trigger::Alert(name) => write!(f, "alert {name}"),
            Trigger::Every(every) => write!(f, "every {}", crate::base::format_duration(*every)),
            Trigger::Cron(cron) => write!(f, "cron {cron}"),
            Trigger::Labels(count) => write!(f, "{count} labels"),
        }
    }
}

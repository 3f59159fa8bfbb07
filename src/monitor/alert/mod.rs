//! Alerts: what becomes of statistics that are wrong for long enough.
//!
//! [`Machine`] takes statistics as they are told and says when an alert fires and when it is resolved; [`table`] makes rows of
//! that, [`payload`] what receivers on the network get. An alert has a **fingerprint**, the same for as long as rule, model,
//! version, route, segment, subject and statistic are; it fires once until it is resolved.

mod machine;
pub mod message;
pub mod payload;
pub mod table;
#[cfg(test)]
mod tests;

pub use machine::{Machine, Rule, STALE_WINDOWS};
pub use table::{alert_batch, alert_schema};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::EventTime;

/// Why saved alerts cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AlertError {
    /// Saved bytes are not what was saved.
    #[error("the saved state of alerts is damaged: {0}")]
    Damaged(String),
}

/// Whether an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Something is wrong.
    Firing,
    /// It is right again.
    Resolved,
}

impl State {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Resolved => "resolved",
        }
    }
}

/// An alert that fires, goes on, or is resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The same as long as it is about the same.
    pub fingerprint: String,
    /// Whether it begins or ends.
    pub state: State,
    /// How often it has been told again; 0 when it begins and when it ends.
    pub repeat: u64,
    /// When what is told was known, on the clock of the statistics.
    pub at: EventTime,
    /// The job.
    pub job: String,
    /// The monitor.
    pub monitor: String,
    /// The rule.
    pub name: String,
    /// How bad it is.
    pub severity: String,
    /// The model; empty for the engine.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The route.
    pub route: String,
    /// The segment; empty for all rows.
    pub segment: String,
    /// What the statistic is of.
    pub subject: String,
    /// The statistic.
    pub metric: String,
    /// Its value.
    pub value: Option<f64>,
    /// What it is held against.
    pub threshold: Option<f64>,
    /// What is wrong, as the file says.
    pub condition: String,
    /// Rows behind the value.
    pub rows: u64,
    /// How often the statistic has been told.
    pub revision: u32,
    /// Its window.
    pub window_start: EventTime,
    /// End of the window.
    pub window_end: EventTime,
    /// Start of the first window in which it was wrong.
    pub since: EventTime,
    /// What is said.
    pub message: String,
    /// Labels that go along.
    pub labels: Vec<(String, String)>,
    /// Where to read what to do.
    pub runbook: Option<String>,
    /// Who is told.
    pub to: Vec<String>,
}

impl Alert {
    /// The same for the same state of the same alert, however often it is delivered, also after a restart.
    pub fn id(&self) -> String {
        let repeat = if self.repeat > 0 { format!("-{}", self.repeat) } else { String::new() };
        format!("{}-{}-{}{repeat}", self.fingerprint, self.state.as_str(), self.at)
    }
}

/// A short hash of texts one after the other.
fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

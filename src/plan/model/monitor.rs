//! What is watched of a model.

use super::{AccuracyPlan, AlertPlan, DetectorPlan, DriftPlan, LatencyPlan};
use crate::base::Micros;

/// A monitor of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorPlan {
    /// The model, by index; the monitor has its name.
    pub model: usize,
    /// Its labels, by index, if it has any.
    pub labels: Option<usize>,
    /// Length of the tumbling windows.
    pub window: Micros,
    /// Statistics are told at multiples of this in event time.
    pub refresh: Micros,
    /// Columns that make segments: the name as written and the engine column of scored rows.
    pub segments: Vec<(String, String)>,
    /// Values of a segment column that are told apart in a window.
    pub segments_max: usize,
    /// Output columns of the model that are held against the label.
    pub prediction: Vec<String>,
    /// What the model does.
    pub task: Task,
    /// How its latency and the job's operation are looked at.
    pub latency: LatencyPlan,
    /// What is counted of its inputs and outputs.
    pub drift: Option<DriftPlan>,
    /// How good predictions turn out to be, where there are labels.
    pub accuracy: Option<AccuracyPlan>,
    /// Change detectors over its errors.
    pub detectors: Vec<DetectorPlan>,
    /// Rules by which its statistics become alerts.
    pub alerts: Vec<AlertPlan>,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Scores one class against the other.
    Binary,
    /// Tells several classes apart.
    Multiclass,
    /// Predicts a number.
    Regression,
    /// Ranks the items of a query.
    Ranking,
}

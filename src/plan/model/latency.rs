//! How a model's latency and the job's operation are looked at.

use std::fmt::Write;

use crate::base::{Micros, format_duration};

/// Thresholds of latency, and how often it is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyPlan {
    /// Half of the rows may take so long, in milliseconds.
    pub p50_ms: Option<f64>,
    /// All but one row in a hundred may take so long, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Wall time between two looks.
    pub every: Micros,
}

impl LatencyPlan {
    /// A line for people.
    pub(in crate::plan) fn describe(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "  latency and operation: every {} of wall time", format_duration(self.every))?;
        for (name, threshold) in [("p50", self.p50_ms), ("p99", self.p99_ms)] {
            if let Some(threshold) = threshold {
                write!(out, "; an alarm when {name} > {threshold} ms")?;
            }
        }
        writeln!(out)
    }
}

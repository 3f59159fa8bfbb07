//! What is watched of columns, in words.

use std::fmt::Write;

use super::model::{DriftPlan, ReferencePlan};
use crate::base::{format_duration, format_time};

/// The lines of `check` about a monitor's drift and quality.
pub(super) fn write_drift(out: &mut String, drift: &DriftPlan) -> std::fmt::Result {
    let names: Vec<&str> = drift.columns.iter().chain(&drift.label).map(|column| column.name.as_str()).collect();
    writeln!(out, "  columns: {} over windows of {}", names.join(", "), format_duration(drift.window))?;
    let mut told: Vec<&str> = Vec::new();
    for metric in drift.columns.iter().chain(&drift.label).flat_map(|column| &column.metrics) {
        if !told.contains(&metric.name()) {
            told.push(metric.name());
        }
    }
    if !told.is_empty() {
        let rule = match (drift.evidently, drift.bonferroni) {
            (true, _) => "Evidently's thresholds".to_owned(),
            (false, false) => format!("false alarms {} of each statistic", drift.false_alarms),
            (false, true) => format!("false alarms {} over all columns", drift.false_alarms),
        };
        writeln!(out, "  drift: {}; {rule}", told.join(", "))?;
    }
    for reference in &drift.references {
        let text = match reference {
            ReferencePlan::Delta { uri, version, filter } => {
                let version = version.map(|v| format!(" version {v}")).unwrap_or_default();
                let filter = filter.as_ref().map(|f| format!(" where {f}")).unwrap_or_default();
                format!("table {}{version}{filter}", uri.display())
            }
            ReferencePlan::File { path, filter } => {
                let filter = filter.as_ref().map(|f| format!(" where {f}")).unwrap_or_default();
                format!("{}{filter}", path.display())
            }
            ReferencePlan::Training => "the training set of the version that is the champion".to_owned(),
            ReferencePlan::Past(span) => format!("the windows of {} before", format_duration(*span)),
            ReferencePlan::Between(from, to) => format!("rows from {} to {}", format_time(*from), format_time(*to)),
        };
        writeln!(out, "  reference: {text}")?;
    }
    if !drift.quality.is_empty() {
        let names: Vec<&str> = drift.quality.iter().map(|metric| metric.name()).collect();
        writeln!(out, "  quality: {}", names.join(", "))?;
    }
    Ok(())
}

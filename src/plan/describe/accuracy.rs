//! The plan in words: how good predictions turn out to be.

use std::fmt::Write;

use crate::base::format_duration;
use crate::plan::model::*;

/// Bytes that a prediction takes while its window may change, beside its scores, segments and groups.
const PREDICTION_BYTES: usize = 16 + 8 + 8 + 4 + 24 + 1 + 12;
/// Bytes that a score takes in the graph of statistics.
const SCORE_BYTES: usize = 24;

impl Plan {
    /// What is told of a monitor's labels, and what that keeps in memory.
    pub(in crate::plan) fn write_accuracy(&self, out: &mut String, monitor: &MonitorPlan) -> std::fmt::Result {
        let (Some(accuracy), Some(labels)) = (&monitor.accuracy, monitor.labels.map(|labels| &self.labels[labels]))
        else {
            return Ok(());
        };
        let metrics: Vec<&str> = accuracy.metrics.iter().map(|metric| metric.name()).collect();
        writeln!(
            out,
            "  accuracy in windows of {}, told every {}: {}",
            format_duration(monitor.window),
            format_duration(monitor.refresh),
            if metrics.is_empty() { "coverage only".to_owned() } else { metrics.join(", ") }
        )?;
        if monitor.task == Task::Binary {
            writeln!(out, "    a score of {} or more predicts the positive class", accuracy.threshold)?;
        }
        if let Some(ranking) = &accuracy.ranking {
            writeln!(out, "    items are ranked by {}; the first {} are looked at", ranking.query, ranking.k)?;
        }
        if let Some(card) = &accuracy.card {
            write!(out, "    card_precision of the first {} by {}", card.k, card.by)?;
            match card.exclude {
                0 => writeln!(out)?,
                exclude => writeln!(out, "; found ones are left out for {}", format_duration(exclude))?,
            }
        }
        let groups = usize::from(accuracy.ranking.is_some() || accuracy.card.is_some());
        let row = PREDICTION_BYTES + 8 * (monitor.prediction.len() + groups) + 4 * monitor.segments.len();
        let kept = format_duration(monitor.window.saturating_add(labels.within));
        writeln!(out, "    state: each prediction of the last {kept}, about {row} bytes")?;
        let curves = match monitor.task {
            Task::Binary => 1,
            Task::Multiclass if accuracy.metrics.contains(&Metric::Auc) => monitor.prediction.len(),
            Task::Multiclass | Task::Regression | Task::Ranking => 0,
        };
        match (curves, accuracy.bins) {
            (0, _) => Ok(()),
            (curves, None) => {
                let groups = 1 + monitor.segments.len();
                let bytes = SCORE_BYTES * curves * groups;
                writeln!(out, "    scores: exact, at most {bytes} bytes for each prediction with a label")
            }
            (curves, Some(bins)) => writeln!(
                out,
                "    scores: in {bins} bins, at most {} bytes for each group of a window; auc and average_precision state how far \
                 they may be off",
                2 * SCORE_BYTES * curves * bins as usize
            ),
        }
    }
}

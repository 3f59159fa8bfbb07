//! What is said of an alert.

use std::fmt::Write as _;

use super::{Alert, State};
use crate::base::format_time;
use crate::plan::model::{Condition, Template, TemplatePiece};

/// A template with what is known of an alert.
pub fn render(template: &Template, alert: &Alert) -> String {
    let mut out = String::new();
    for piece in &template.0 {
        match piece {
            TemplatePiece::Text(text) => out.push_str(text),
            TemplatePiece::Field(field) => out.push_str(&value_of(field, alert)),
        }
    }
    out
}

fn value_of(field: &str, alert: &Alert) -> String {
    match field {
        "name" => alert.name.clone(),
        "state" => alert.state.as_str().to_owned(),
        "severity" => alert.severity.clone(),
        "model" => alert.model.clone(),
        "version" => alert.version.clone(),
        "route" => alert.route.clone(),
        "segment" => alert.segment.clone(),
        "subject" => alert.subject.clone(),
        "metric" => alert.metric.clone(),
        "value" => number(alert.value),
        "threshold" => number(alert.threshold),
        "rows" => alert.rows.to_string(),
        "revision" => alert.revision.to_string(),
        "window_start" => format_time(alert.window_start),
        "window_end" => format_time(alert.window_end),
        "since" => format_time(alert.since),
        _ => String::new(),
    }
}

/// What is said where the rule says nothing.
pub fn usual(alert: &Alert, condition: &Condition) -> String {
    let mut out = what(alert);
    let again = if alert.state == State::Resolved { " again" } else { "" };
    let value = number(alert.value);
    // Writing to a string cannot fail.
    let _ = match condition {
        Condition::Change { .. } => {
            return format!(
                "{} found a change of the error of {}: it is {value} over the last {} rows",
                alert.metric,
                whose(alert),
                alert.rows
            );
        }
        Condition::Compare { wrong, .. } => write!(out, " is {value}{again} (alert when {wrong})"),
        Condition::Drift { .. } => write!(out, " is {value}{again} (threshold {})", number(alert.threshold)),
    };
    let (start, end) = (format_time(alert.window_start), format_time(alert.window_end));
    let _ = write!(out, "; {start} to {end}, {} rows", alert.rows);
    out
}

/// What is said when an alert ends by the clock or because its rule is gone.
pub fn over(alert: &Alert, template: Option<&Template>) -> String {
    match template {
        Some(template) => render(template, alert),
        None => format!("{}: over, nothing further was told", what(alert)),
    }
}

fn what(alert: &Alert) -> String {
    let subject = if alert.subject.is_empty() { String::new() } else { format!("({})", alert.subject) };
    format!("{}{subject} of {}", alert.metric, whose(alert))
}

fn whose(alert: &Alert) -> String {
    let mut out = alert.model.clone();
    for (before, text) in [(" version ", &alert.version), (" by ", &alert.route), (" for ", &alert.segment)] {
        if !text.is_empty() {
            out.push_str(before);
            out.push_str(text);
        }
    }
    out
}

/// A number for people: six digits are enough.
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "unknown".to_owned() };
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e15).contains(&magnitude) {
        let before = if magnitude >= 1.0 { magnitude.log10().floor() as usize + 1 } else { 0 };
        let text = format!("{value:.*}", 6usize.saturating_sub(before));
        let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        short.to_owned()
    } else {
        format!("{value:.5e}")
    }
}

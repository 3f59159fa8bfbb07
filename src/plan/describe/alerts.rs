//! Detectors, alerts and who is told, in words.

use std::fmt::Write;

use crate::base::format_duration;
use crate::plan::model::*;

/// The change detectors and the alerts of a monitor.
pub(super) fn write_alerts(out: &mut String, plan: &Plan, monitor: &MonitorPlan) -> std::fmt::Result {
    for detector in &monitor.detectors {
        write!(out, "  detector {}: ", detector.name())?;
        match detector {
            DetectorPlan::Adwin(a) => writeln!(
                out,
                "delta {}, every {} errors, {} buckets of a size, parts of {} at least, after {}",
                a.delta, a.clock, a.max_buckets, a.min_window_length, a.grace_period
            )?,
            DetectorPlan::PageHinkley(p) => {
                let direction = format!("{:?}", p.direction).to_lowercase();
                writeln!(
                    out,
                    "beyond {}, delta {}, alpha {}, {direction}, after {} errors",
                    p.threshold, p.delta, p.alpha, p.min_instances
                )?;
            }
            DetectorPlan::Ddm(d) => writeln!(
                out,
                "{} deviations above the lowest rate ({} warn), after {} errors",
                d.drift_threshold, d.warning_threshold, d.warm_start
            )?,
        }
    }
    for alert in &monitor.alerts {
        write!(out, "  alert {} ({}): {}, of {}", alert.name, alert.severity.as_str(), alert.when, alert.segment)?;
        match &alert.condition {
            Condition::Change { over_after, .. } => {
                write!(out, "; over {} after the last", format_duration(*over_after))?
            }
            Condition::Compare { clear: Some(clear), .. } => write!(out, "; clear when {clear}")?,
            _ => {}
        }
        if alert.hold != Hold::Time(0) {
            write!(out, "; for {}", alert.hold)?;
        }
        if alert.min_rows > 0 {
            write!(out, "; of {} rows at least", alert.min_rows)?;
        }
        if let Some(version) = &alert.version {
            write!(out, "; of version {version}")?;
        }
        let to: Vec<&str> = alert.to.iter().map(|receiver| plan.receivers[*receiver].name.as_str()).collect();
        write!(out, "; told to {}", to.join(", "))?;
        match alert.repeat {
            Some(repeat) => writeln!(out, ", again every {}", format_duration(repeat))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// Who is told of alerts.
pub(super) fn write_receivers(out: &mut String, plan: &Plan) -> std::fmt::Result {
    if !plan.receivers.is_empty() {
        writeln!(out, "\nalerts are told to")?;
    }
    for receiver in &plan.receivers {
        write!(out, "  {}: ", receiver.name)?;
        match &receiver.way {
            ReceiverWay::Log => writeln!(out, "the job's log")?,
            ReceiverWay::Topic => writeln!(out, "a topic, see below")?,
            ReceiverWay::Webhook(http, format) => {
                let format = match format {
                    WebhookFormat::Json => "JSON",
                    WebhookFormat::Slack => "Slack's form",
                };
                writeln!(out, "POST to {} in {format}, at least once", http.shown)?;
            }
            ReceiverWay::Alertmanager(http, resend) => {
                writeln!(out, "Alertmanager at {}, again every {}", http.shown, format_duration(*resend))?;
            }
        }
    }
    Ok(())
}

//! What receivers on the network get.

use serde_json::{Map, Value, json};

use super::{Alert, State, message};
use crate::base::{EventTime, format_time};

/// One JSON object with all that is known.
pub fn json(alert: &Alert) -> Value {
    json!({
        "id": alert.id(),
        "fingerprint": alert.fingerprint,
        "state": alert.state.as_str(),
        "repeat": alert.repeat,
        "name": alert.name,
        "severity": alert.severity,
        "message": alert.message,
        "at": format_time(alert.at),
        "since": format_time(alert.since),
        "job": alert.job,
        "model": alert.model,
        "version": alert.version,
        "route": alert.route,
        "segment": alert.segment,
        "subject": alert.subject,
        "metric": alert.metric,
        "value": alert.value,
        "threshold": alert.threshold,
        "condition": alert.condition,
        "rows": alert.rows,
        "revision": alert.revision,
        "window_start": format_time(alert.window_start),
        "window_end": format_time(alert.window_end),
        "labels": labels(alert),
        "runbook": alert.runbook,
    })
}

fn labels(alert: &Alert) -> Map<String, Value> {
    alert.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

/// What Slack's incoming webhooks take: a line for notifications, and an attachment with a bar in the colour of the severity.
pub fn slack(alert: &Alert) -> Value {
    let resolved = alert.state == State::Resolved;
    let (mark, color) = match (resolved, alert.severity.as_str()) {
        (true, _) => (":white_check_mark:", "#2eb67d"),
        (false, "critical") => (":rotating_light:", "#e01e5a"),
        (false, "info") => (":information_source:", "#36c5f0"),
        (false, _) => (":warning:", "#ecb22e"),
    };
    let state = if resolved { "Resolved" } else { "Firing" };
    let field =
        |title: &str, value: String| json!({"type": "mrkdwn", "text": format!("*{title}*\n{}", escaped(&value))});
    let mut fields = vec![
        field("Model", or_dash(&[&alert.model, &alert.version])),
        field("Statistic", or_dash(&[&alert.metric, &alert.subject])),
        field("Value", message::number(alert.value)),
        field("Condition", alert.condition.clone()),
        field("Window", format!("{} to {}", format_time(alert.window_start), format_time(alert.window_end))),
        field("Rows", alert.rows.to_string()),
    ];
    if !alert.segment.is_empty() {
        fields.push(field("Segment", alert.segment.clone()));
    }
    let mut context = format!("{} · job {} · since {}", alert.severity, alert.job, format_time(alert.since));
    for (name, value) in &alert.labels {
        context.push_str(&format!(" · {name} {value}"));
    }
    let context = match &alert.runbook {
        Some(runbook) => format!("{} · <{runbook}|runbook>", escaped(&context)),
        None => escaped(&context),
    };
    json!({
        "text": format!("{mark} {state}: {}", escaped(&alert.message)),
        "attachments": [{
            "color": color,
            "fallback": format!("{state}: {}", alert.message),
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": format!("*{}*\n{}", escaped(&alert.name), escaped(&alert.message))}},
                {"type": "section", "fields": fields},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
            ],
        }],
    })
}

fn or_dash(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(" ") }
}

/// Slack's markup has three signs of its own.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What Alertmanager's `POST /api/v2/alerts` takes, at a time of the wall clock. What fires ends by itself `lasting`
/// microseconds from now, unless it is told again.
pub fn alertmanager<'a>(alerts: impl IntoIterator<Item = &'a Alert>, now: EventTime, lasting: i64) -> Value {
    let one = |alert: &Alert| {
        let mut labels = labels(alert);
        let named = [
            ("alertname", &alert.name),
            ("severity", &alert.severity),
            ("job", &alert.job),
            ("model", &alert.model),
            ("version", &alert.version),
            ("route", &alert.route),
            ("segment", &alert.segment),
            ("subject", &alert.subject),
            ("metric", &alert.metric),
        ];
        // An empty label is none.
        labels.extend(
            named.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| ((*n).to_owned(), Value::from(v.as_str()))),
        );
        let mut annotations = Map::new();
        annotations.insert("summary".to_owned(), alert.message.as_str().into());
        annotations.insert("condition".to_owned(), alert.condition.as_str().into());
        annotations.insert("value".to_owned(), message::number(alert.value).into());
        let window = format!("{} to {}", format_time(alert.window_start), format_time(alert.window_end));
        annotations.insert("window".to_owned(), window.into());
        annotations.insert("rows".to_owned(), alert.rows.to_string().into());
        annotations.extend(alert.runbook.iter().map(|runbook| ("runbook_url".to_owned(), runbook.as_str().into())));
        // Alertmanager lives by the wall clock, and takes no end before the start.
        let starts = alert.since.min(now);
        let ends = match alert.state {
            State::Firing => now.saturating_add(lasting),
            State::Resolved => alert.at.min(now).max(starts),
        };
        let mut entry = json!({
            "labels": labels,
            "annotations": annotations,
            "startsAt": format_time(starts),
            "endsAt": format_time(ends),
        });
        if let (Some(runbook), Some(entry)) = (&alert.runbook, entry.as_object_mut()) {
            entry.insert("generatorURL".to_owned(), runbook.as_str().into());
        }
        entry
    };
    Value::Array(alerts.into_iter().map(one).collect())
}

//! The routes that every server has.

use std::sync::Arc;

use axum::extract::RawQuery;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::{Api, AuditEntry, AuditLog, Operation, Parameter, Place, Problem, Scope, schema_of};
use crate::telemetry::{Format, Health, Registry};

fn operation(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: Method::GET,
        path,
        id,
        tag: "server",
        summary,
        scope: None,
        parameters: Vec::new(),
        request: None,
        responses: vec![(200, "It does.", Some(("text/plain; charset=utf-8", json!({"type": "string"}))))],
        problems: Vec::new(),
        changes: false,
    }
}

/// Health, readiness and metrics; `leaves` says whether the server is about to stop.
pub(super) fn api(
    registry: Arc<Registry>,
    health: Arc<dyn Health>,
    leaves: Arc<dyn Fn() -> bool + Send + Sync>,
) -> Api {
    let answer = |state: Result<(), String>| match state {
        Ok(()) => "ok\n".into_response(),
        Err(why) => Problem::unavailable(why).into_response(),
    };
    let live = Arc::clone(&health);
    let metrics = Operation {
        scope: Some(Scope::ReadFeatures),
        responses: vec![(
            200,
            "The metrics.",
            Some(("text/plain; version=0.0.4; charset=utf-8", json!({"type": "string"}))),
        )],
        ..operation("/metrics", "metrics", "Metrics of this process, as Prometheus and OpenMetrics have them.")
    };
    Api::default()
        .with(
            operation("/health", "health", "Whether the process does what it is there for."),
            get(move || async move { answer(live.live()) }),
        )
        .with(
            operation("/ready", "ready", "Whether requests should be sent here; 503 while it stops."),
            get(move || async move {
                answer(if leaves() { Err("the server is stopping".to_owned()) } else { health.ready() })
            }),
        )
        .with(metrics, get(move |headers: HeaderMap| gather(registry, headers)))
}

async fn gather(registry: Arc<Registry>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    // It asks the system for free disk, which may take its time.
    match tokio::task::spawn_blocking(move || registry.gather().text(format)).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => Problem::internal("metrics could not be gathered").into_response(),
    }
}

/// The OpenAPI document, of all but itself.
pub(super) fn document(document: Arc<Value>) -> Api {
    let operation = Operation {
        responses: vec![(200, "The document.", Some(("application/json", json!({"type": "object"}))))],
        ..operation("/openapi.json", "openapi", "This document.")
    };
    let body = axum::body::Bytes::from(document.to_string());
    Api::default().with(operation, get(move || async move { ([(header::CONTENT_TYPE, "application/json")], body) }))
}

/// Entries of the audit log that an answer has if it is not asked for more or fewer.
const ENTRIES: usize = 100;
const ENTRIES_MAX: usize = 10_000;

/// `GET /api/v1/audit`: the newest entries of an audit log, newest first, for administrators.
pub fn audit_api(log: Arc<AuditLog>) -> Api {
    let limit = Parameter {
        name: "limit",
        place: Place::Query,
        description: "How many entries at most.",
        required: false,
        schema: json!({"type": "integer", "minimum": 1, "maximum": ENTRIES_MAX, "default": ENTRIES}),
    };
    let operation = Operation {
        scope: Some(Scope::Admin),
        parameters: vec![limit],
        responses: vec![(200, "Entries, newest first.", Some(("application/json", schema_of::<Vec<AuditEntry>>())))],
        problems: vec![400],
        ..operation("/api/v1/audit", "audit", "Who changed what, newest first.")
    };
    Api::default().with(operation, get(move |RawQuery(query): RawQuery| entries(log, query)))
}

async fn entries(log: Arc<AuditLog>, query: Option<String>) -> Result<Response, Problem> {
    let mut limit = ENTRIES;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let number = value.parse().ok().filter(|number| (1..=ENTRIES_MAX).contains(number));
        limit = match (&*name, number) {
            ("limit", Some(number)) => number,
            ("limit", None) => {
                return Err(Problem::bad_request(format!("limit: write a number from 1 to {ENTRIES_MAX}")));
            }
            _ => return Err(Problem::bad_request(format!("unknown parameter `{name}`; there is `limit`"))),
        };
    }
    let entries = tokio::task::spawn_blocking(move || log.newest(limit)).await;
    let entries = entries.map_err(|_| Problem::internal("the audit log could not be read"))?;
    let entries = entries.map_err(|error| Problem::internal(format!("the audit log could not be read: {error}")))?;
    let body = serde_json::to_vec(&entries).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

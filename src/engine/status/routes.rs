//! What the control socket answers: HTTP/1.1 on a thread of its own, which reads counters and asks nothing of the graph.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::collect::Control;
use super::letters::LETTERS_MAX;
use super::savepoints::SavepointError;
use super::{SavepointRequest, StopMode, StopRequest};
use crate::http::Problem;

/// The routes of a job.
pub fn routes(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/letters", get(letters))
        .route("/v1/stop", post(stop))
        .route("/v1/savepoints", get(savepoints).post(savepoint))
        .route("/v1/savepoints/{trigger}", get(savepoint_status))
        .fallback(|| async { Problem::not_found("this socket has /v1/status, /v1/letters, /v1/stop, /v1/savepoints, /v1/savepoints/{trigger}, /metrics, /health and /ready") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route has another method")
        })
        .with_state(control)
}

async fn status(State(control): State<Arc<Control>>) -> Response {
    Json(control.status()).into_response()
}

/// An answer.
struct Json<T>(T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => Problem::internal(error.to_string()).into_response(),
        }
    }
}

async fn letters(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let limit = uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("limit="));
    match limit.map_or(Ok(100), str::parse::<usize>) {
        Ok(limit) => Json(control.letters(limit.min(LETTERS_MAX))).into_response(),
        Err(_) => Problem::bad_request("`limit` is a whole number, such as 100").into_response(),
    }
}

async fn stop(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    let StopRequest { mode } = match read(body) {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    match control.stop(mode) {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({"mode": mode}))).into_response(),
        Err(was) => Problem::conflict(format!(
            "the job was asked to stop by `{}` before, and ends so; `now` is the only way that goes before another",
            word(was)
        ))
        .into_response(),
    }
}

fn word(mode: StopMode) -> &'static str {
    match mode {
        StopMode::Checkpoint => "checkpoint",
        StopMode::Drain => "drain",
        StopMode::Now => "now",
    }
}

async fn savepoints(State(control): State<Arc<Control>>) -> Response {
    match off_thread(move || Ok(control.savepoints.all())).await {
        Ok(all) => Json(all).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn savepoint(State(control): State<Arc<Control>>, body: Result<Bytes, BytesRejection>) -> Response {
    let request: SavepointRequest = match read(body) {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    match off_thread(move || control.savepoint(&request)).await {
        Ok(status) => (StatusCode::ACCEPTED, Json(status)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn savepoint_status(State(control): State<Arc<Control>>, Path(trigger): Path<String>) -> Response {
    let asked = trigger.clone();
    match off_thread(move || control.savepoints.status(&asked)).await {
        Ok(Some(status)) => Json(status).into_response(),
        Ok(None) => Problem::not_found(format!("no savepoint was asked for by trigger `{trigger}`")).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Does what may wait for a disk.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SavepointError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(problem),
        Err(_) => Err(Problem::internal("the request could not be dealt with")),
    }
}

fn problem(error: SavepointError) -> Problem {
    let text = error.to_string();
    match error {
        SavepointError::Trigger(_) | SavepointError::Place(_) => Problem::unprocessable(text),
        SavepointError::Taken { .. } => Problem::conflict(text),
        SavepointError::Many(_) | SavepointError::Ending => Problem::unavailable(text),
        SavepointError::Io { .. } => Problem::internal(text),
    }
}

/// A body as JSON.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let what = format!("the body is not what this route takes: {error}");
        if error.is_data() { Problem::unprocessable(what) } else { Problem::bad_request(what) }
    })
}

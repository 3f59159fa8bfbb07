//! What all handlers do: read the request, ask the manager where waiting is allowed, answer in JSON.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::model::FileProblem;
use super::super::{ControlError, Manager, file};
use crate::base::Blame;
use crate::http::{Caller, Problem};

/// Bytes of a request's body at most: a file of the greatest size with all of its characters escaped.
const BODY_MAX: usize = 8 << 20;

/// Media type of metrics.
pub(super) const TEXT: &str = "text/plain";

/// A request, taken apart.
pub(super) struct Asked {
    /// The job's id, where the path has one.
    pub id: String,
    /// The savepoint's trigger, where the path has one.
    pub trigger: String,
    /// Who asks.
    pub who: String,
    query: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn read(request: Request) -> Result<Asked, Problem> {
        let (mut parts, body) = request.into_parts();
        let who = parts.extensions.get::<Caller>().map_or_else(|| "anonymous".to_owned(), |caller| caller.name.clone());
        let query = parts.uri.query().unwrap_or_default();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let params = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| Problem::bad_request("the path is no text: it has bytes that are not UTF-8"))?;
        let param = |name: &str| {
            let found = params.iter().find(|(key, _)| *key == name);
            found.map_or_else(String::new, |(_, value)| value.to_owned())
        };
        let (id, trigger) = (param("id"), param("trigger"));
        let too_long = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request may have {BODY_MAX} bytes"));
        let body = to_bytes(body, BODY_MAX).await.map_err(|_| too_long())?.to_vec();
        if !body.is_empty() && !is_json(parts.headers.get(header::CONTENT_TYPE)) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, and say so: `content-type: application/json`",
            ));
        }
        Ok(Asked { id, trigger, who, query, body })
    }

    /// The body; none is as good as an empty mapping.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = if self.body.is_empty() { b"{}" } else { &self.body[..] };
        let wrong = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => Problem::unprocessable(format!("the request's body: {error}")),
            _ => Problem::bad_request(format!("the request's body is no JSON: {error}")),
        };
        // A list of the right values would pass for a mapping.
        if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
            return Err(Problem::unprocessable("the request's body: a list where a mapping is expected"));
        }
        serde_json::from_slice(body).map_err(wrong)
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A yes or no of the query; no without it.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!("`{name}` is `true` or `false`"))),
        }
    }

    /// A number of the query.
    ///
    /// # Errors
    /// When it is none, or outside of these bounds.
    pub fn number(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.query(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().ok().filter(|n: &u64| digits && (min..=max).contains(n)) {
            Some(number) => Ok(Some(number)),
            None if max == u64::MAX => Err(Problem::bad_request(format!("`{name}` is a whole number from {min} on"))),
            None => Err(Problem::bad_request(format!("`{name}` is a whole number from {min} to {max}"))),
        }
    }
}

fn is_json(value: Option<&HeaderValue>) -> bool {
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a request, has `ask` answer it on a thread that may wait, and answers.
pub(super) async fn answer<T, F>(manager: Arc<Manager>, request: Request, status: StatusCode, ask: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Manager, &Asked) -> Result<T, Refusal> + Send + 'static,
{
    answer_with(manager, request, move |manager, asked| Ok((status, ask(manager, asked)?))).await
}

/// The same where the status follows from the request.
pub(super) async fn answer_with<T, F>(manager: Arc<Manager>, request: Request, ask: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Manager, &Asked) -> Result<(StatusCode, T), Refusal> + Send + 'static,
{
    let asked = match Asked::read(request).await {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    let outcome = tokio::task::spawn_blocking(move || ask(&manager, &asked)).await;
    match outcome {
        Ok(Ok((status, value))) => json(status, "application/json", &value),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Problem::internal("a defect of the server ended this request; its log says more").into_response(),
    }
}

/// Reads a request and answers in text.
pub(super) async fn answer_in_text<F>(manager: Arc<Manager>, request: Request, ask: F) -> Response
where
    F: FnOnce(&Manager, &Asked) -> Result<String, Refusal> + Send + 'static,
{
    let asked = match Asked::read(request).await {
        Ok(asked) => asked,
        Err(problem) => return problem.into_response(),
    };
    match tokio::task::spawn_blocking(move || ask(&manager, &asked)).await {
        Ok(Ok(text)) => {
            let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Problem::internal("a defect of the server ended this request; its log says more").into_response(),
    }
}

/// Why a request is not answered as wished.
pub(super) enum Refusal {
    Problem(Problem),
    Control(ControlError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Problem(problem) => problem.into_response(),
            Refusal::Control(error) => refused(error),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::Problem(problem)
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Refusal {
        Refusal::Control(error)
    }
}

fn json(status: StatusCode, media: &'static str, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, HeaderValue::from_static(media))], body).into_response(),
        Err(error) => Problem::internal(error.to_string()).into_response(),
    }
}

fn refused(error: ControlError) -> Response {
    let of_blame = |blame| match blame {
        Blame::User => StatusCode::UNPROCESSABLE_ENTITY,
        Blame::Outside => StatusCode::SERVICE_UNAVAILABLE,
        Blame::Ours => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // Whatever it is, addresses in it may have been written with a password.
    let text = file::without_users(&error.to_string());
    let (status, faults, changes) = match &error {
        ControlError::NotFound(_) => (StatusCode::NOT_FOUND, Vec::new(), None),
        ControlError::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, Vec::new(), None),
        ControlError::Faults(faults) => (StatusCode::UNPROCESSABLE_ENTITY, file::faults(&faults.list), None),
        ControlError::Loss(changes) => (StatusCode::CONFLICT, Vec::new(), Some(file::state_changes(changes))),
        ControlError::Conflict(_) => (StatusCode::CONFLICT, Vec::new(), None),
        ControlError::Away(_) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new(), None),
        ControlError::Disk { .. } | ControlError::Damaged { .. } => {
            tracing::error!(%error, "a request could not be done");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new(), None)
        }
        ControlError::State(error) => (of_blame(error.blame()), Vec::new(), None),
        ControlError::Engine(error) => (of_blame(error.blame()), Vec::new(), None),
    };
    let text = match faults.len() {
        0 => text,
        1 => "the job's file has a fault".to_owned(),
        n => format!("the job's file has {n} faults"),
    };
    let problem = Problem::new(status, text);
    if matches!(status, StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT) {
        return json(status, "application/problem+json", &FileProblem { problem, faults, changes });
    }
    problem.into_response()
}

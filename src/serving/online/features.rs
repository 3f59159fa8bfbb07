//! `POST /get-online-features`: Feast's request and answer, and its errors.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{NO_TIME, Table};
use super::catalogue::{At, Catalogue, keys};
use super::link::LinkError;
use super::scalar::{Columns, Scalar, Text};
use super::{Online, STALE_HEADER};
use crate::store::online::Ask;

/// An error as Feast's clients read it: a JSON string that holds a JSON object with a class of `feast.errors`.
#[derive(Debug)]
pub struct FeastError {
    status: StatusCode,
    class: &'static str,
    message: String,
}

impl FeastError {
    fn new(status: StatusCode, class: &'static str, message: impl Into<String>) -> FeastError {
        FeastError { status, class, message: message.into() }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> FeastError {
        FeastError::new(StatusCode::BAD_REQUEST, "FeastError", message)
    }

    /// 404.
    pub fn absent(class: &'static str, message: impl Into<String>) -> FeastError {
        FeastError::new(StatusCode::NOT_FOUND, class, message)
    }

    /// 422.
    pub fn unprocessable(message: impl Into<String>) -> FeastError {
        FeastError::new(StatusCode::UNPROCESSABLE_ENTITY, "FeastError", message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> FeastError {
        FeastError::new(StatusCode::SERVICE_UNAVAILABLE, "FeastError", message)
    }
}

impl From<LinkError> for FeastError {
    fn from(error: LinkError) -> FeastError {
        let message = error.to_string();
        match error {
            LinkError::Away { .. } => FeastError::unavailable(message),
            LinkError::Absent(_) => FeastError::absent("FeastObjectNotFoundException", message),
            LinkError::Damaged(_) => FeastError::new(StatusCode::INTERNAL_SERVER_ERROR, "FeastError", message),
        }
    }
}

impl IntoResponse for FeastError {
    fn into_response(self) -> Response {
        let FeastError { status, class, message } = self;
        let detail = serde_json::json!({"module": "feast.errors", "class": class, "message": message}).to_string();
        let body = serde_json::to_vec(&detail).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    }
}

/// The request. What else Feast's clients send concerns their own registry and is let through.
#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    entities: Columns<'a>,
    #[serde(borrow, default)]
    features: Vec<Text<'a>>,
    #[serde(borrow, default)]
    feature_service: Option<Text<'a>>,
    #[serde(default)]
    full_feature_names: bool,
}

/// A view that is read, and the columns of it that are wanted.
struct Part<'a> {
    at: At,
    wanted: Vec<&'a str>,
}

/// Answers a request.
pub async fn answer(State(online): State<Arc<Online>>, body: Bytes) -> Response {
    match features(&online, &body).await {
        Ok((body, stale)) => {
            let mut response =
                ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
            mark(&mut response, stale);
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Says in a header how old an answer is that came from the cache while the store was away.
pub fn mark(response: &mut Response, stale: Option<Duration>) {
    if let Some(value) = stale.and_then(|age| HeaderValue::from_str(&format!("{:.3}", age.as_secs_f64())).ok()) {
        response.headers_mut().insert(HeaderName::from_static(STALE_HEADER), value);
    }
}

async fn features(online: &Online, body: &[u8]) -> Result<(Vec<u8>, Option<Duration>), FeastError> {
    let started = Instant::now();
    let request: Request<'_> = serde_json::from_slice(body)
        .map_err(|error| FeastError::bad(format!("the request cannot be read: {error}")))?;
    let rows = count_rows(&request.entities, online.options.rows_max)?;
    let catalogue = online.catalogue();
    let (parts, picks) = parts(&catalogue, &request)?;

    let mut tables: Vec<Option<Table>> = Vec::with_capacity(parts.len());
    tables.resize_with(parts.len(), || None);
    let mut invalid = Vec::with_capacity(parts.len());
    let mut asks = Vec::with_capacity(parts.len());
    for part in &parts {
        let (_, view) = catalogue.at(part.at);
        let column = |name: &str| {
            let found = request.entities.0.iter().find(|(given, _)| given.0 == name);
            found.map(|(_, values)| values.as_slice())
        };
        let (keys, nulls) = keys(view, rows, column).map_err(FeastError::bad)?;
        asks.push(Some(Ask { view: Arc::clone(&view.name), keys }));
        invalid.push(nulls);
    }
    let mut oldest = None;
    // Views of one job are read in one round trip; most requests are of one job.
    for job in 0..catalogue.jobs.len() {
        let ours: Vec<usize> = (0..parts.len()).filter(|part| parts[*part].at.job == job).collect();
        if ours.is_empty() {
            continue;
        }
        let link = catalogue.jobs[job].link.as_ref().map_err(|what| FeastError::unprocessable(what.as_str()))?;
        let found = link.read(ours.iter().filter_map(|part| asks[*part].take()).collect()).await;
        let found = found.inspect_err(|_| {
            ours.iter().for_each(|part| {
                catalogue.at(parts[*part].at).1.meter.errors.fetch_add(rows as u64, Relaxed);
            });
        })?;
        for (part, found) in ours.into_iter().zip(found) {
            let (_, view) = catalogue.at(parts[part].at);
            if let Some(age) = found.stale {
                oldest = oldest.max(Some(age));
                view.meter.stale.fetch_add(rows as u64, Relaxed);
            }
            tables[part] = Some(Table::new(view, &parts[part].wanted, found, &invalid[part])?);
        }
    }
    let tables: Vec<Table> = tables.into_iter().flatten().collect();
    let body = write(&request, rows, &catalogue, &parts, &picks, &tables, oldest);
    parts.iter().for_each(|part| catalogue.at(part.at).1.meter.note(started, rows));
    Ok((body, oldest))
}

fn count_rows(entities: &Columns<'_>, rows_max: usize) -> Result<usize, FeastError> {
    let Some((first, values)) = entities.0.first() else {
        return Err(FeastError::bad("`entities` is empty; give a list of values for each key"));
    };
    for (name, other) in &entities.0 {
        if other.len() != values.len() {
            return Err(FeastError::bad(format!(
                "`entities` has {} values of `{}` and {} of `{}`; give one of each per row",
                values.len(),
                first.0,
                other.len(),
                name.0
            )));
        }
        if let Some(row) = other.iter().position(|value| matches!(value, Scalar::Other(_))) {
            return Err(FeastError::bad(format!("`{}`: row {row} is no single value", name.0)));
        }
    }
    if values.len() > rows_max {
        return Err(FeastError::bad(format!("{} rows in one request; {rows_max} are the most", values.len())));
    }
    Ok(values.len())
}

/// The views to be read, and for each feature asked for its view and its place among the view's wanted columns.
fn parts<'a>(
    catalogue: &'a Catalogue,
    request: &'a Request<'a>,
) -> Result<(Vec<Part<'a>>, Vec<(usize, usize)>), FeastError> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let mut picks = Vec::with_capacity(request.features.len());
    let mut pick = |at: At, column: &'a str| {
        let part = parts.iter().position(|part| part.at == at).unwrap_or_else(|| {
            parts.push(Part { at, wanted: Vec::new() });
            parts.len() - 1
        });
        let wanted = &mut parts[part].wanted;
        let place = wanted.iter().position(|name| *name == column).unwrap_or_else(|| {
            wanted.push(column);
            wanted.len() - 1
        });
        picks.push((part, place));
    };
    match &request.feature_service {
        Some(name) if request.features.is_empty() => {
            let at =
                catalogue.set(&name.0).map_err(|what| FeastError::absent("FeatureServiceNotFoundException", what))?;
            let plan = &catalogue.jobs[at.job].plan;
            for column in &plan.sets[at.index].columns {
                // What is not kept by entity is the request's own, or follows from it: `/predict` computes it.
                let kept = plan.views.iter().position(|v| v.aggregates.iter().any(|a| a.name == column.engine));
                let Some(index) = kept else { continue };
                let view = &catalogue.jobs[at.job].views[index];
                if let Some(own) = column.engine.strip_prefix(&*view.name).and_then(|rest| rest.strip_prefix('.')) {
                    pick(At { job: at.job, index }, own);
                }
            }
        }
        Some(_) => return Err(FeastError::bad("give either `features` or `feature_service`, not both")),
        None => {
            for feature in &request.features {
                let (view, column) = feature
                    .0
                    .rsplit_once(':')
                    .ok_or_else(|| FeastError::bad(format!("`{}` is no feature; write `view:feature`", feature.0)))?;
                let at = catalogue.view(view);
                let at = at.map_err(|what| FeastError::absent("FeatureViewNotFoundException", what))?;
                let (_, known) = catalogue.at(at);
                if !known.columns.iter().any(|own| own == column) {
                    let near = crate::plan::nearest(column, known.columns.iter().map(String::as_str));
                    let hint = near.map_or_else(
                        || format!("it has {}", known.columns.join(", ")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let what = format!("view `{view}` has no feature `{column}`; {hint}");
                    return Err(FeastError::absent("FeastObjectNotFoundException", what));
                }
                pick(at, column);
            }
        }
    }
    if picks.is_empty() {
        return Err(FeastError::bad(
            "no features are asked for; give `features` as `view:feature`, or a `feature_service`",
        ));
    }
    if !request.full_feature_names {
        let name = |(part, place): &(usize, usize)| parts[*part].wanted[*place];
        for (at, one) in picks.iter().enumerate() {
            if let Some(other) = picks[..at].iter().find(|other| name(other) == name(one) && *other != one) {
                let views = [other, one].map(|pick| catalogue.at(parts[pick.0].at).1.name.to_string());
                return Err(FeastError::new(
                    StatusCode::BAD_REQUEST,
                    "FeatureNameCollisionError",
                    format!(
                        "views `{}` and `{}` both have a feature `{}`; ask with \"full_feature_names\": true",
                        views[0],
                        views[1],
                        name(one)
                    ),
                ));
            }
        }
    }
    Ok((parts, picks))
}

fn write(
    request: &Request<'_>,
    rows: usize,
    catalogue: &Catalogue,
    parts: &[Part<'_>],
    picks: &[(usize, usize)],
    tables: &[Table],
    stale: Option<Duration>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + (picks.len() + request.entities.0.len()) * (64 + rows * 48));
    out.extend_from_slice(b"{\"results\":[");
    for (at, (_, values)) in request.entities.0.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"values\":[");
        for (row, value) in values.iter().enumerate() {
            if row > 0 {
                out.push(b',');
            }
            value.write(&mut out);
        }
        out.extend_from_slice(b"],\"statuses\":[");
        repeat(&mut out, rows, "PRESENT");
        out.extend_from_slice(b"],\"event_timestamps\":[");
        repeat(&mut out, rows, NO_TIME);
        out.extend_from_slice(b"]}");
    }
    let times: Vec<Vec<String>> = tables.iter().map(Table::times).collect();
    for (part, place) in picks {
        out.push(b',');
        tables[*part].column(*place, &times[*part], &mut out);
    }
    out.extend_from_slice(b"],\"metadata\":{\"feature_names\":[");
    for (at, (name, _)) in request.entities.0.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(&mut out, &[&name.0]);
    }
    for (part, place) in picks {
        out.push(b',');
        let (view, column) = (catalogue.at(parts[*part].at).1, parts[*part].wanted[*place]);
        match request.full_feature_names {
            true => text(&mut out, &[&view.name, "__", column]),
            false => text(&mut out, &[column]),
        }
    }
    out.push(b']');
    if let Some(age) = stale {
        out.extend_from_slice(format!(",\"stale_seconds\":{:.3}", age.as_secs_f64()).as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

fn repeat(out: &mut Vec<u8>, rows: usize, word: &str) {
    for row in 0..rows {
        out.extend_from_slice(if row > 0 { b",\"".as_slice() } else { b"\"".as_slice() });
        out.extend_from_slice(word.as_bytes());
        out.push(b'"');
    }
}

fn text(out: &mut Vec<u8>, pieces: &[&str]) {
    let written = serde_json::to_writer(out, &pieces.concat());
    // Memory takes everything.
    debug_assert!(written.is_ok());
}

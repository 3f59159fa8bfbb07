//! `POST /predict/{model}`: rows by entity keys and request fields, scored as the stream would score them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Online;
use super::answer::{Standing, write_value};
use super::cache::Weight;
use super::catalogue::{At, Job};
use super::features::mark;
use super::link::LinkError;
use super::predictor::{Inputs, Predictor, ViewRows};
use super::version::{Version, VersionError};
use crate::base::{format_time, wall_clock};
use crate::http::Problem;
use crate::store::online::value::{Header, pack, walk};
use crate::store::online::{ColumnType, Stamp};

/// From so many rows on, scoring leaves the threads that answer requests.
const ROWS_HERE: usize = 256;

/// A request: one row or several.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictRequest {
    /// One row: a field of the event for each name, the entity's keys among them.
    #[serde(default)]
    pub row: Option<Map<String, Value>>,
    /// Several rows.
    #[serde(default)]
    pub rows: Option<Vec<Map<String, Value>>>,
    /// A version by number or alias; without it, the one that the job scores with.
    #[serde(default)]
    pub version: Option<String>,
    /// Tell the model's input with each score, and how the views' rows stand.
    #[serde(default)]
    pub vector: bool,
}

/// Scores, row by row, in the order of the request.
#[derive(Debug, schemars::JsonSchema)]
#[expect(dead_code, reason = "it describes what is written piece by piece")]
pub struct PredictAnswer {
    /// The model.
    model: String,
    /// The version that scored.
    version: String,
    /// SHA-256 (hex) of its file.
    hash: String,
    /// One for each row: the score columns by name; or `error`, why it has none. Beside them `stale` where a feature is older
    /// than it should be, and `vector` with `views` if they were asked for.
    rows: Vec<Map<String, Value>>,
    /// Fields of the request that the job does not use.
    ignored: Vec<String>,
}

/// A score that was told before: by the model's hash and the packed input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InputKey {
    hash: Arc<str>,
    row: Box<[u8]>,
}

impl Weight for InputKey {
    fn bytes(&self) -> usize {
        self.row.len()
    }
}

/// A packed row of scores.
#[derive(Clone, Debug)]
pub struct Told(Arc<[u8]>);

impl Weight for Told {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// What becomes of a row: its place among the rows that were read, or why it is not there.
type Fate = Result<usize, String>;

/// Answers a request.
pub async fn answer(State(online): State<Arc<Online>>, Path(model): Path<String>, body: Bytes) -> Response {
    match predict(&online, &model, &body).await {
        Ok((body, stale)) => {
            let json = HeaderValue::from_static("application/json");
            let mut response = ([(header::CONTENT_TYPE, json)], body).into_response();
            mark(&mut response, stale);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn predict(online: &Online, model: &str, body: &[u8]) -> Result<(Vec<u8>, Option<Duration>), Problem> {
    let started = Instant::now();
    let request: PredictRequest = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the request cannot be read: {error}")))?;
    let rows = match (request.row, request.rows) {
        (Some(row), None) => vec![row],
        (None, Some(rows)) => rows,
        _ => return Err(Problem::bad_request("give either `row`, an object, or `rows`, a list of objects")),
    };
    if rows.is_empty() || rows.len() > online.options.rows_max {
        let most = online.options.rows_max;
        return Err(Problem::bad_request(format!("{} rows in one request; 1 to {most} are allowed", rows.len())));
    }
    let catalogue = online.catalogue();
    let at = catalogue.model(model).map_err(Problem::not_found)?;
    let job = &catalogue.jobs[at.job];
    let predictor = online.predictor(&catalogue, at).map_err(Problem::unprocessable)?;
    let version = predictor.versions.get(request.version.as_deref()).await.map_err(|error| match error {
        VersionError::Absent(what) => Problem::not_found(what),
        VersionError::Unusable(what) => Problem::unavailable(what),
    })?;
    let count = rows.len();
    let scored = score(online, job, &predictor, &version, rows, request.vector).await.inspect_err(|_| {
        job.models[at.index].errors.fetch_add(count as u64, Relaxed);
    })?;
    let body = write(model, &version, &predictor, &scored, request.vector);
    let meter = &job.models[at.index];
    meter.errors.fetch_add(scored.fates.iter().filter(|fate| fate.is_err()).count() as u64, Relaxed);
    meter.note(started, count);
    Ok((body, scored.stale))
}

/// Rows, scored.
struct Scored {
    fates: Vec<Fate>,
    /// Packed scores of the rows that were read.
    scores: Vec<Arc<[u8]>>,
    outputs: Vec<(String, ColumnType)>,
    /// Packed inputs, if they are told or remembered.
    vectors: Vec<Box<[u8]>>,
    views: Vec<(Arc<str>, Vec<Standing>)>,
    stale: Option<Duration>,
    ignored: Vec<String>,
}

async fn score(
    online: &Online,
    job: &Job,
    predictor: &Arc<Predictor>,
    version: &Arc<Version>,
    mut rows: Vec<Map<String, Value>>,
    vector: bool,
) -> Result<Scored, Problem> {
    let mut ignored: Vec<String> = Vec::new();
    for row in &mut rows {
        for name in row.keys() {
            if !predictor.fields.contains(name) && !ignored.contains(name) {
                ignored.push(name.clone());
            }
        }
        // Whoever does not say when, asks about now.
        if let Some(time) = &predictor.time
            && row.get(time).is_none_or(Value::is_null)
        {
            row.insert(time.clone(), Value::from(format_time(wall_clock())));
        }
    }
    let texts: Vec<Vec<u8>> = rows.iter().map(|row| serde_json::to_vec(row).unwrap_or_default()).collect();
    let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let read = predictor.read(&texts).map_err(Problem::internal)?;
    let mut fates: Vec<Fate> = vec![Err("it was not read".to_owned()); rows.len()];
    read.refused.into_iter().for_each(|(row, why)| fates[row] = Err(why));
    read.row_of.iter().enumerate().for_each(|(place, row)| fates[*row] = Ok(place));

    let asks = predictor.asks(&read.rows, &job.views).map_err(Problem::internal)?;
    let found = match (&job.link, read.row_of.is_empty() || asks.is_empty()) {
        (_, true) => Vec::new(),
        (Ok(link), false) => link.read(asks).await.map_err(|error| match error {
            LinkError::Away { .. } => Problem::unavailable(error.to_string()),
            LinkError::Absent(what) => Problem::not_found(what),
            LinkError::Damaged(what) => Problem::internal(what),
        })?,
        (Err(what), false) => return Err(Problem::unprocessable(what.as_str())),
    };
    let outputs = version.outputs().into_iter().map(|(name, data_type)| {
        let held = ColumnType::of(&data_type);
        held.map(|held| (name, held)).ok_or_else(|| Problem::internal(format!("scores of type {data_type}")))
    });
    let outputs: Vec<(String, ColumnType)> = outputs.collect::<Result<_, _>>()?;
    let stale = found.iter().filter_map(|rows| rows.stale).max();
    let mut scored =
        Scored { fates, scores: Vec::new(), outputs, vectors: Vec::new(), views: Vec::new(), stale, ignored };
    if read.row_of.is_empty() {
        return Ok(scored);
    }
    let Inputs { columns, views } =
        predictor.inputs(read.rows, found, &job.views).map_err(|error| Problem::internal(error.to_string()))?;
    scored.views =
        views.into_iter().map(|ViewRows { view, standings }| (Arc::clone(&job.views[view].name), standings)).collect();
    let remembered = online.options.prediction_cache_bytes > 0;
    if vector || remembered {
        let types = predictor.vector().map(|(_, data_type)| ColumnType::of(data_type)).collect::<Option<Vec<_>>>();
        let types = types.ok_or_else(|| Problem::internal("an input is of a type that cannot be told"))?;
        scored.vectors = packed(&types, &columns, read.row_of.len())?;
    }
    let keys: Vec<InputKey> = match remembered {
        false => Vec::new(),
        true => {
            let hash: Arc<str> = version.hash.as_str().into();
            scored.vectors.iter().map(|row| InputKey { hash: Arc::clone(&hash), row: row.clone() }).collect()
        }
    };
    let now = Instant::now();
    let known = keys.iter().map(|key| online.predictions.get(key, Duration::MAX, now).map(|(Told(row), _)| row));
    if let Some(known) = known.collect::<Option<Vec<_>>>().filter(|known| remembered && !known.is_empty()) {
        scored.scores = known;
        return Ok(scored);
    }
    let scores = if read.row_of.len() >= ROWS_HERE {
        let version = Arc::clone(version);
        let work = tokio::task::spawn_blocking(move || version.score(&columns)).await;
        work.map_err(|error| Problem::internal(error.to_string()))?
    } else {
        version.score(&columns)
    };
    let scores = scores.map_err(Problem::internal)?;
    let types: Vec<ColumnType> = scored.outputs.iter().map(|(_, held)| *held).collect();
    scored.scores = packed(&types, &scores.columns, read.row_of.len())?.into_iter().map(Arc::from).collect();
    for (key, row) in keys.into_iter().zip(&scored.scores).enumerate().filter_map(|(at, pair)| {
        let failed = scores.failed.iter().any(|(row, _)| *row == at);
        (!failed).then_some(pair)
    }) {
        online.predictions.put(key, Told(Arc::clone(row)), now, |_| false);
    }
    for (place, why) in scores.failed {
        scored.fates[read.row_of[place]] = Err(why);
    }
    Ok(scored)
}

/// Columns as packed rows.
fn packed(types: &[ColumnType], columns: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>, Problem> {
    let stamp = Stamp { generation: 0, tick: 0 };
    let header = |_| Header { schema: 0, stamp, event_time: 0, valid_until: 0, refreshed_at: 0 };
    let packed = pack(types, columns, rows, header).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(packed.iter().map(Box::from).collect())
}

fn write(model: &str, version: &Version, predictor: &Predictor, scored: &Scored, vector: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + scored.fates.len() * 64);
    out.extend_from_slice(b"{\"model\":");
    json(&mut out, model);
    out.extend_from_slice(b",\"version\":");
    json(&mut out, &version.name);
    out.extend_from_slice(b",\"hash\":");
    json(&mut out, &version.hash);
    out.extend_from_slice(b",\"rows\":[");
    let names: Vec<&str> = scored.outputs.iter().map(|(name, _)| name.as_str()).collect();
    let types: Vec<ColumnType> = scored.outputs.iter().map(|(_, held)| *held).collect();
    let inputs: Vec<(&str, ColumnType)> = predictor
        .vector()
        .map(|(name, data_type): (&str, &DataType)| (name, ColumnType::of(data_type).unwrap_or(ColumnType::Float64)))
        .collect();
    let (input_names, input_types): (Vec<&str>, Vec<ColumnType>) = inputs.into_iter().unzip();
    for (at, fate) in scored.fates.iter().enumerate() {
        out.extend_from_slice(if at > 0 { b",{".as_slice() } else { b"{".as_slice() });
        match fate {
            Err(why) => {
                out.extend_from_slice(b"\"error\":");
                json(&mut out, why);
            }
            Ok(place) => {
                values(&mut out, &names, &types, &scored.scores[*place]);
                let overdue = scored.views.iter().any(|(_, standings)| standings[*place] == Standing::Overdue);
                if overdue || scored.stale.is_some() {
                    out.extend_from_slice(b",\"stale\":true");
                }
                if vector {
                    out.extend_from_slice(b",\"vector\":{");
                    values(&mut out, &input_names, &input_types, &scored.vectors[*place]);
                    out.extend_from_slice(b"},\"views\":{");
                    for (at, (view, standings)) in scored.views.iter().enumerate() {
                        if at > 0 {
                            out.push(b',');
                        }
                        json(&mut out, view);
                        out.push(b':');
                        json(&mut out, standings[*place].status());
                    }
                    out.push(b'}');
                }
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"ignored\":[");
    for (at, name) in scored.ignored.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json(&mut out, name);
    }
    out.extend_from_slice(b"]}");
    out
}

/// Writes the values of a packed row by their names.
fn values(out: &mut Vec<u8>, names: &[&str], types: &[ColumnType], row: &[u8]) {
    let written = walk(types, row, |column, value| {
        if column > 0 {
            out.push(b',');
        }
        json(out, names[column]);
        out.push(b':');
        match value {
            Some(value) => write_value(types[column], value, out),
            None => out.extend_from_slice(b"null"),
        }
    });
    // Packed by us a moment ago.
    debug_assert!(written.is_ok());
}

fn json(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(out, text);
    // Memory takes everything.
    debug_assert!(written.is_ok());
}

impl Online {
    /// What makes a model's input, made with the first request.
    fn predictor(&self, catalogue: &super::catalogue::Catalogue, at: At) -> Result<Arc<Predictor>, String> {
        let served = &catalogue.of[at.job];
        let key = (served.job.clone(), at.index);
        let mut known = self.predictors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((plan, predictor)) = known.get(&key)
            && Arc::ptr_eq(plan, &served.plan)
        {
            return Ok(Arc::clone(predictor));
        }
        let predictor = Arc::new(Predictor::new(served, at.index)?);
        known.insert(key, (Arc::clone(&served.plan), Arc::clone(&predictor)));
        Ok(predictor)
    }
}

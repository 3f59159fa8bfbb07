//! `/v2` over HTTP.

use std::io::Read;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::InferError;
use super::json;
use super::service::{EXTENSIONS, Infer, NAME, TensorConfig};
use super::stats::Told;
use crate::http::{Api, Operation, Parameter, Place, Scope, schema_of};

/// How many bytes of a body are JSON, where tensors in bytes follow.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What a path names.
#[derive(Debug, Deserialize)]
struct Named {
    model: String,
    #[serde(default)]
    version: String,
}

/// An operation but for method, path and handler.
struct What {
    id: &'static str,
    summary: &'static str,
    scope: Option<Scope>,
    request: Option<(&'static str, Value)>,
    answer: (&'static str, Option<Value>),
    problems: &'static [u16],
}

/// The routes of the protocol.
pub(super) fn api(infer: &Arc<Infer>) -> Api {
    let predict = Some(Scope::Predict);
    let open = |id, summary, answer| What { id, summary, scope: None, request: None, answer, problems: &[] };
    let any = || Some(json!({"type": "object"}));
    let api = Api::default();
    let api = route(
        api,
        Method::GET,
        "/v2",
        open("server_metadata", "What this server is.", ("Name, version and extensions.", any())),
        get(server),
        infer,
    );
    let api = route(
        api,
        Method::GET,
        "/v2/health/live",
        open("server_live", "Whether the server answers.", ("It does.", None)),
        get(|| async { StatusCode::OK }),
        infer,
    );
    let api = route(
        api,
        Method::GET,
        "/v2/health/ready",
        open("server_ready", "Whether it is known which models there are.", ("It is.", None)),
        get(ready),
        infer,
    );
    let api = route(
        api,
        Method::GET,
        "/v2/models/stats",
        asking("models_stats", "Counters of all models that were asked for.", &[]),
        get(all_stats),
        infer,
    );
    let index = What {
        request: Some(("application/json", schema_of::<Index>())),
        ..asking("repository_index", "All models and versions.", &[400])
    };
    let api = route(api, Method::POST, "/v2/repository/index", index, post(repository), infer);
    let mut api = api;
    for (with_version, paths) in PATHS {
        let id = |plain: &'static str, versioned: &'static str| if *with_version { versioned } else { plain };
        let [metadata, ready, config, stats, infer_path] = paths;
        api = route(
            api,
            Method::GET,
            metadata,
            asking(id("model_metadata", "version_metadata"), "Inputs and outputs of a model.", &[404]),
            get(model),
            infer,
        );
        api = route(
            api,
            Method::GET,
            ready,
            What {
                answer: ("It can.", None),
                ..asking(id("model_ready", "version_ready"), "Whether a model can be asked.", &[404])
            },
            get(model_ready),
            infer,
        );
        api = route(
            api,
            Method::GET,
            config,
            asking(id("model_config", "version_config"), "A model's configuration, as Triton tells it.", &[404]),
            get(config_of),
            infer,
        );
        api = route(
            api,
            Method::GET,
            stats,
            asking(id("model_stats", "version_stats"), "Counters and latency of a model.", &[404]),
            get(stats_of),
            infer,
        );
        let what = What {
            request: Some(("application/json", schema_of::<InferSchema>())),
            scope: predict,
            ..asking(
                id("infer", "infer_version"),
                "Scores rows: tensors in JSON, or in bytes behind it.",
                &[400, 404, 415, 504],
            )
        };
        api = route(api, Method::POST, infer_path, what, post(scores), infer);
    }
    api
}

const PATHS: &[(bool, [&str; 5])] = &[
    (
        false,
        [
            "/v2/models/{model}",
            "/v2/models/{model}/ready",
            "/v2/models/{model}/config",
            "/v2/models/{model}/stats",
            "/v2/models/{model}/infer",
        ],
    ),
    (
        true,
        [
            "/v2/models/{model}/versions/{version}",
            "/v2/models/{model}/versions/{version}/ready",
            "/v2/models/{model}/versions/{version}/config",
            "/v2/models/{model}/versions/{version}/stats",
            "/v2/models/{model}/versions/{version}/infer",
        ],
    ),
];

fn asking(id: &'static str, summary: &'static str, problems: &'static [u16]) -> What {
    let answer = ("The answer.", Some(json!({})));
    What { id, summary, scope: Some(Scope::Predict), request: None, answer, problems }
}

fn route(
    api: Api,
    method: Method,
    path: &'static str,
    what: What,
    handler: MethodRouter<Arc<Infer>>,
    infer: &Arc<Infer>,
) -> Api {
    let named = |name: &'static str, description| Parameter {
        name,
        place: Place::Path,
        description,
        required: true,
        schema: json!({"type": "string", "minLength": 1}),
    };
    let mut parameters = Vec::new();
    if path.contains("{model}") {
        parameters.push(named("model", "Name of the model."));
    }
    if path.contains("{version}") {
        parameters.push(named("version", "Number of the version, or an alias."));
    }
    let mut responses = vec![(200, what.answer.0, what.answer.1.map(|schema| ("application/json", schema)))];
    let meaning = |status: u16| StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
    responses
        .extend(what.problems.iter().map(|s| (*s, meaning(*s), Some(("application/json", schema_of::<Failure>())))));
    let operation = Operation {
        method,
        path,
        id: what.id,
        tag: "inference",
        summary: what.summary,
        scope: what.scope,
        parameters,
        request: what.request,
        responses,
        // Errors of the protocol have its own shape; they stand above.
        problems: Vec::new(),
        changes: false,
    };
    api.with(operation, handler.with_state(infer.clone()))
}

/// An error of the protocol.
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Failure {
    /// What is wrong.
    error: String,
}

/// A request for scores, as the document describes it.
#[derive(schemars::JsonSchema)]
#[schemars(rename = "InferenceRequest")]
#[allow(dead_code, reason = "only its schema is used")]
struct InferSchema {
    /// Comes back with the answer.
    id: Option<String>,
    /// The model's inputs.
    inputs: Vec<InputSchema>,
    /// The outputs that are wanted; all of them without.
    outputs: Option<Vec<OutputSchema>>,
    /// `timeout` in microseconds, `binary_data_output`.
    parameters: Option<serde_json::Map<String, Value>>,
}

#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct InputSchema {
    /// Name of the input.
    name: String,
    /// Rows first.
    shape: Vec<i64>,
    /// BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64, BYTES.
    datatype: String,
    /// `binary_data_size`, where the values follow the JSON as bytes.
    parameters: Option<serde_json::Map<String, Value>>,
    /// The values, row by row, nested or flat.
    data: Option<Vec<Value>>,
}

#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct OutputSchema {
    /// Name of the output.
    name: String,
    /// `binary_data`.
    parameters: Option<serde_json::Map<String, Value>>,
}

fn in_json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        Err(error) => InferError::Internal(error.to_string()).into_response(),
    }
}

async fn server() -> Response {
    in_json(&json!({"name": NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

async fn ready(State(infer): State<Arc<Infer>>) -> StatusCode {
    if infer.ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn model(State(infer): State<Arc<Infer>>, Path(named): Path<Named>) -> Result<Response, InferError> {
    Ok(in_json(&infer.metadata(&named.model, &named.version).await?))
}

async fn model_ready(State(infer): State<Arc<Infer>>, Path(named): Path<Named>) -> Result<Response, InferError> {
    infer.models.version(&named.model, &named.version).await?;
    Ok(StatusCode::OK.into_response())
}

async fn config_of(State(infer): State<Arc<Infer>>, Path(named): Path<Named>) -> Result<Response, InferError> {
    let (version, inputs, outputs) = infer.config(&named.model, &named.version).await?;
    let tensors = |all: Vec<TensorConfig>| -> Vec<Value> {
        all.into_iter().map(|t| json!({"name": t.name, "data_type": t.datatype.1, "dims": t.dims})).collect()
    };
    let settings = &version.settings;
    let config = json!({
        "name": version.name,
        "platform": super::service::PLATFORM,
        "backend": NAME,
        "max_batch_size": settings.batch_rows,
        "input": tensors(inputs),
        "output": tensors(outputs),
        "dynamic_batching": {
            "max_queue_delay_microseconds": u64::try_from(settings.batch_delay.as_micros()).unwrap_or(u64::MAX),
            "default_queue_policy": {
                "default_timeout_microseconds": u64::try_from(settings.timeout.as_micros()).unwrap_or(u64::MAX),
                "allow_timeout_override": true,
                "max_queue_size": settings.queue,
            },
        },
        "response_cache": {"enable": settings.cache_ttl.is_some()},
        "parameters": {"sha256": {"string_value": version.model.hash()}},
    });
    Ok(in_json(&config))
}

async fn stats_of(State(infer): State<Arc<Infer>>, Path(named): Path<Named>) -> Result<Response, InferError> {
    Ok(told(infer.statistics(&named.model, &named.version).await?))
}

async fn all_stats(State(infer): State<Arc<Infer>>) -> Result<Response, InferError> {
    Ok(told(infer.statistics("", "").await?))
}

fn told(all: Vec<(String, String, Told)>) -> Response {
    let one = |(name, version, told): (String, String, Told)| {
        let mut object = json!({"name": name, "version": version});
        if let (Value::Object(object), Ok(Value::Object(told))) = (&mut object, serde_json::to_value(told)) {
            object.extend(told);
        }
        object
    };
    in_json(&json!({"model_stats": all.into_iter().map(one).collect::<Vec<_>>()}))
}

/// What of the repository's index is asked for.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
struct Index {
    /// Only versions that can be asked.
    #[serde(default)]
    ready: bool,
}

async fn repository(State(infer): State<Arc<Infer>>, body: Bytes) -> Result<Response, InferError> {
    let index = match body.is_empty() {
        true => Index::default(),
        false => serde_json::from_slice::<Index>(&body)
            .map_err(|error| InferError::Invalid(format!("the request is not understood: {error}")))?,
    };
    Ok(in_json(&infer.index(index.ready).await?))
}

async fn scores(
    State(infer): State<Arc<Infer>>,
    Path(named): Path<Named>,
    request: Request,
) -> Result<Response, InferError> {
    let (parts, body) = request.into_parts();
    let most = infer.options.request_bytes;
    let encoding = Encoding::of(&parts.headers)?;
    let header = header_length(&parts.headers)?;
    let body = read_body(body, most).await?;
    // What takes longer than a moment keeps no other request waiting.
    let request = if encoding == Encoding::Plain && body.len() < INLINE {
        json::read(&body, header)?
    } else {
        let decoded = tokio::task::spawn_blocking(move || json::read(&encoding.decode(body, most)?, header)).await;
        decoded
            .unwrap_or_else(|_| Err(InferError::Internal("reading the request failed; this is a defect".to_owned())))?
    };
    let inferred = infer.infer(&named.model, &named.version, request).await?;
    let (body, header) = json::write(&inferred)?;
    let media = if header.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], body).into_response();
    if let Some(length) = header {
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let Some(value) = headers.get(&HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|value| value.trim().parse().ok());
    let shown = String::from_utf8_lossy(value.as_bytes());
    length.map(Some).ok_or_else(|| {
        InferError::Invalid(format!("Inference-Header-Content-Length is {shown:?}; it is a number of bytes"))
    })
}

/// Bodies from this length on are read by a thread of their own.
const INLINE: usize = 256 << 10;

/// The body, of at most `most` bytes.
async fn read_body(body: Body, most: usize) -> Result<Bytes, InferError> {
    axum::body::to_bytes(body, most).await.map_err(|error| {
        let limit = std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
        if limit { too_large(most) } else { InferError::Invalid(format!("the request did not come whole: {error}")) }
    })
}

fn too_large(most: usize) -> InferError {
    InferError::TooLarge(format!("the request is longer than {most} bytes; send fewer rows at once"))
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Encoding, InferError> {
        match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Encoding::Plain),
            Some(b"gzip") => Ok(Encoding::Gzip),
            Some(b"deflate") => Ok(Encoding::Deflate),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(InferError::Encoding(format!(
                    "Content-Encoding {other:?} is not understood; send gzip, deflate or plain"
                )))
            }
        }
    }

    /// The plain bytes, of which there may be at most `most`.
    fn decode(self, bytes: Bytes, most: usize) -> Result<Bytes, InferError> {
        let bound = most as u64 + 1;
        let mut plain = Vec::new();
        let read = match self {
            Encoding::Plain => return Ok(bytes),
            Encoding::Gzip => flate2::read::MultiGzDecoder::new(&bytes[..]).take(bound).read_to_end(&mut plain),
            Encoding::Deflate => flate2::read::ZlibDecoder::new(&bytes[..]).take(bound).read_to_end(&mut plain),
        };
        read.map_err(|error| InferError::Invalid(format!("the request cannot be decompressed: {error}")))?;
        if plain.len() > most { Err(too_large(most)) } else { Ok(plain.into()) }
    }
}

//! The routes, and what the document says of them.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalogue::keys;
use super::scalar::Scalar;
use super::{Online, PredictAnswer, PredictRequest, PushRequest, features, predict, push};
use crate::http::{Api, Operation, Parameter, Place, Problem, Scope, schema_of};

const TAG: &str = "online";

/// Feast's request, for the document.
#[derive(Deserialize, schemars::JsonSchema)]
#[expect(dead_code, reason = "it describes what is read piece by piece")]
struct FeaturesRequest {
    /// A list of values for each key column, all of one length.
    entities: std::collections::BTreeMap<String, Vec<Value>>,
    /// Features as `view:feature`.
    #[serde(default)]
    features: Vec<String>,
    /// Instead of `features`: a feature set, by its name. Its columns that are kept by entity are told.
    feature_service: Option<String>,
    /// Name features `view__feature`.
    #[serde(default)]
    full_feature_names: bool,
}

/// Feast's answer.
#[derive(Serialize, schemars::JsonSchema)]
struct FeaturesAnswer {
    /// A column for each entity key, then for each feature.
    results: Vec<Column>,
    /// Names of the columns.
    metadata: Metadata,
}

/// A column over all rows.
#[derive(Serialize, schemars::JsonSchema)]
struct Column {
    /// Values; null where the status is not `PRESENT` (an overdue value is told, with `OUTSIDE_MAX_AGE`).
    values: Vec<Value>,
    /// `PRESENT`, `NULL_VALUE`, `NOT_FOUND`, `OUTSIDE_MAX_AGE` or `INVALID` (its entity is null).
    statuses: Vec<String>,
    /// Time of the entity's last event.
    event_timestamps: Vec<String>,
}

/// About an answer.
#[derive(Serialize, schemars::JsonSchema)]
struct Metadata {
    /// Names of the columns, in their order.
    feature_names: Vec<String>,
    /// Age of the oldest row, where rows came from the cache since the store did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<f64>,
}

/// How many rows were forgotten.
#[derive(Serialize, schemars::JsonSchema)]
struct Forgotten {
    /// Rows.
    forgotten: usize,
}

fn operation(method: Method, path: &'static str, id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation {
        method,
        path,
        id,
        tag: TAG,
        summary,
        scope: Some(scope),
        parameters: Vec::new(),
        request: None,
        responses: Vec::new(),
        problems: vec![400, 404, 422],
        changes: false,
    }
}

fn path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, description, required: true, schema: schema_of::<String>() }
}

const JSON: &str = "application/json";

impl Online {
    /// The routes.
    pub fn api(self: &Arc<Self>) -> Api {
        let read = Operation {
            request: Some((JSON, schema_of::<FeaturesRequest>())),
            responses: vec![(200, "The features.", Some((JSON, schema_of::<FeaturesAnswer>())))],
            ..operation(
                Method::POST,
                "/get-online-features",
                "get_online_features",
                "Features of entities, as Feast's clients ask for them. Errors are Feast's: a JSON string that holds an object.",
                Scope::ReadFeatures,
            )
        };
        let pushed = Operation {
            request: Some((JSON, schema_of::<PushRequest>())),
            responses: vec![(200, "The brokers have the rows.", None)],
            changes: true,
            ..operation(
                Method::POST,
                "/push",
                "push",
                "Events for a source on Kafka, as Feast's clients push them. Errors are Feast's.",
                Scope::Submit,
            )
        };
        let predicted = Operation {
            parameters: vec![path("model", "The model, `job.model` where several jobs have it.")],
            request: Some((JSON, schema_of::<PredictRequest>())),
            responses: vec![(200, "Scores.", Some((JSON, schema_of::<PredictAnswer>())))],
            ..operation(
                Method::POST,
                "/predict/{model}",
                "predict",
                "Scores of rows, by the keys of their entities and the fields of a request.",
                Scope::Predict,
            )
        };
        let forgotten = Operation {
            parameters: vec![
                path("view", "The view, `job.view` where several jobs have it."),
                Parameter {
                    name: "key",
                    place: Place::Query,
                    description: "A key column and its value, as `customer_id=42`; once for each key column. Without any, all entities of the view.",
                    required: false,
                    schema: json!({"type": "array", "items": {"type": "string"}}),
                },
            ],
            responses: vec![(200, "How many rows were forgotten.", Some((JSON, schema_of::<Forgotten>())))],
            changes: true,
            ..operation(
                Method::DELETE,
                "/cache/{view}",
                "forget_features",
                "Forgets rows that were read and kept, so that the store is asked for them again.",
                Scope::Submit,
            )
        };
        Api::default()
            .with(read, post(features::answer).with_state(Arc::clone(self)))
            .with(pushed, post(push::answer).with_state(Arc::clone(self)))
            .with(predicted, post(predict::answer).with_state(Arc::clone(self)))
            .with(forgotten, delete(forget).with_state(Arc::clone(self)))
    }

    fn forget(&self, view: &str, given: &[(String, String)]) -> Result<usize, Problem> {
        let catalogue = self.catalogue();
        let at = catalogue.view(view).map_err(Problem::not_found)?;
        let (job, view) = catalogue.at(at);
        let link = job.link.as_ref().map_err(|what| Problem::unprocessable(what.as_str()))?;
        if given.is_empty() {
            let number = link.number();
            return Ok(self.settings.cache.forget_all(|key| key.link == number && key.view == view.name));
        }
        if let Some((name, _)) = given.iter().find(|(name, _)| !view.keys.iter().any(|key| key.name == *name)) {
            let known: Vec<&str> = view.keys.iter().map(|key| key.name.as_str()).collect();
            let known = known.join(", ");
            return Err(Problem::bad_request(format!(
                "`{name}` is no key of view `{}`; it is keyed by {known}",
                view.name
            )));
        }
        let values: Vec<(&str, [Scalar<'_>; 1])> = given
            .iter()
            .map(|(name, text)| {
                let column = view.keys.iter().find(|key| key.name == *name);
                (name.as_str(), [Scalar::of_text(text, column.map(|key| key.column_type))])
            })
            .collect();
        let column = |name: &str| values.iter().find(|(given, _)| *given == name).map(|(_, values)| values.as_slice());
        let (keys, _) = keys(view, 1, column).map_err(Problem::bad_request)?;
        Ok(usize::from(self.settings.cache.forget(&link.row_key(&view.name, keys.get(0)))))
    }
}

async fn forget(State(online): State<Arc<Online>>, Path(view): Path<String>, RawQuery(query): RawQuery) -> Response {
    let pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let mut given = Vec::new();
    for (name, value) in pairs {
        match (name.as_ref(), value.split_once('=')) {
            ("key", Some((column, text))) => given.push((column.to_owned(), text.to_owned())),
            ("key", None) => return Problem::bad_request("write `key=COLUMN=VALUE`").into_response(),
            (other, _) => {
                return Problem::bad_request(format!("there is no parameter `{other}`; there is `key`"))
                    .into_response();
            }
        }
    }
    match online.forget(&view, &given) {
        Ok(forgotten) => {
            let body = serde_json::to_vec(&Forgotten { forgotten }).unwrap_or_default();
            ([(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], body).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

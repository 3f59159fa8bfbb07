//! The features of all jobs: what they are, and the live values of an entity.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use axum::extract::{Path, RawQuery};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire::{Json, Query};
use super::{Console, ConsoleJob, in_path, parameter, plan_of, reads};
use crate::base::format_duration;
use crate::http::{Api, Place, Problem, schema_of};
use crate::plan::model::{AggregateFunction, AggregatePlan, OnlinePlace, Plan, SetPlan, StreamRef, ViewPlan, Window};
use crate::store::StoreError;
use crate::store::lookup::get_online;
use crate::store::online::OnlineReader;

/// Columns of an entity's key.
const KEYS_MAX: usize = 32;

/// What is told of features.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Features {
    /// Views and feature sets, by job in the order of their files.
    views: Vec<View>,
}

/// A feature view or a feature set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct View {
    /// Id of the job.
    job: String,
    /// Its name.
    view: String,
    /// `view` or `set`.
    kind: String,
    /// What it reads: a source, a joined stream, or the views of a set.
    from: String,
    /// The key columns; of a set those of its views.
    entity: Vec<Column>,
    /// For how long an entity's values are served after its last event, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<i64>,
    /// Where live values are read, if they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    online: Option<String>,
    /// The features, in their order.
    features: Vec<Feature>,
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Column {
    /// Its name.
    name: String,
    /// Its type.
    #[serde(rename = "type")]
    data_type: String,
}

/// A feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Feature {
    /// Its name, without the view's.
    name: String,
    /// Its type.
    #[serde(rename = "type")]
    data_type: String,
    /// What it is, in words.
    description: String,
    /// Whether it has live values.
    online: bool,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let search = || {
        parameter(
            "search",
            Place::Query,
            "Only features that have all these words in their names, types, views or descriptions.",
            schema_of::<String>(),
        )
    };
    let mut all =
        reads("/api/v1/features", "features", "features", "The features of all jobs.", schema_of::<Features>());
    all.parameters = vec![search()];
    let mut own = reads(
        "/api/v1/jobs/{id}/features",
        "job_features",
        "features",
        "The features of a job.",
        schema_of::<Features>(),
    );
    own.parameters = vec![in_path("id", "The job."), search()];
    own.problems = vec![404, 422];
    let row = json!({
        "type": "object",
        "required": ["view", "entity", "status", "stale", "features", "statuses"],
        "properties": {
            "view": {"type": "string"},
            "entity": {"type": "object", "description": "The key."},
            "status": {"enum": ["PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"]},
            "event_time": {"type": ["string", "null"], "description": "Event time of the entity's last event."},
            "valid_until": {"type": ["string", "null"], "description": "Until when the values hold, on the job's clock."},
            "now": {"type": ["string", "null"], "description": "The job's clock."},
            "stale": {"type": "boolean", "description": "Whether the job's clock has passed that."},
            "features": {"type": "object", "description": "Values by feature; null unless PRESENT."},
            "statuses": {"type": "object", "description": "By feature: PRESENT, NULL_VALUE, NOT_FOUND or OUTSIDE_MAX_AGE."},
        },
    });
    let mut value = reads(
        "/api/v1/jobs/{id}/features/{view}/value",
        "job_feature_value",
        "features",
        "The live values of one entity, from the job's online store.",
        row,
    );
    let key = json!({"type": "array", "items": {"type": "string"}});
    value.parameters = vec![
        in_path("id", "The job."),
        in_path("view", "The feature view."),
        parameter("key", Place::Query, "`column=value`, for each key column of the view.", key),
    ];
    value.problems = vec![400, 404, 422];
    let (for_all, for_own, for_value) = (Arc::clone(console), Arc::clone(console), Arc::clone(console));
    Api::default()
        .with(
            all,
            get(async move |RawQuery(query): RawQuery| -> Result<Json<Features>, Problem> {
                let found = for_all.read(move |console| {
                    let jobs = console.parts.source.jobs();
                    // A job whose file cannot be read any more is told by its own page.
                    Ok(jobs.iter().filter_map(|job| Some(of_job(job, plan_of(job).ok()?))).flatten().collect())
                });
                Ok(Json(matching(found.await?, query.as_deref())))
            }),
        )
        .with(
            own,
            get(async move |Path(id): Path<String>, RawQuery(query): RawQuery| -> Result<Json<Features>, Problem> {
                let found = for_own.read(move |console| {
                    let job = console.job(&id)?;
                    Ok(of_job(&job, plan_of(&job)?))
                });
                Ok(Json(matching(found.await?, query.as_deref())))
            }),
        )
        .with(
            value,
            get(
                async move |Path((id, view)): Path<(String, String)>,
                            RawQuery(query): RawQuery|
                            -> Result<Json<Value>, Problem> {
                    let keys = keys(&Query::of(query.as_deref()))?;
                    for_value.read(move |console| console.value(&id, &view, &keys)).await.map(Json)
                },
            ),
        )
}

fn keys(query: &Query) -> Result<Vec<(String, String)>, Problem> {
    let pair = |text: &str| match text.split_once('=') {
        Some((column, value)) => Ok((column.to_owned(), value.to_owned())),
        None => {
            Err(Problem::bad_request(format!("`key` is {text:?}; write key=column=value, such as key=customer_id=42")))
        }
    };
    let keys = query.all("key").take(KEYS_MAX + 1).map(pair).collect::<Result<Vec<_>, _>>()?;
    match keys.len() {
        0 => Err(Problem::bad_request("say which entity: key=column=value for each key column of the view")),
        n if n > KEYS_MAX => Err(Problem::bad_request(format!("a key has at most {KEYS_MAX} columns"))),
        _ => Ok(keys),
    }
}

/// The features that have all words.
fn matching(views: Vec<View>, query: Option<&str>) -> Features {
    let text = Query::of(query).all("search").collect::<Vec<_>>().join(" ").to_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return Features { views };
    }
    let has = |view: &View, feature: &Feature| {
        let entity: Vec<&str> = view.entity.iter().map(|column| column.name.as_str()).collect();
        let Feature { name, data_type, description, .. } = feature;
        let all =
            format!("{} {} {} {} {name} {data_type} {description}", view.job, view.view, view.kind, entity.join(" "));
        let all = all.to_lowercase();
        words.iter().all(|word| all.contains(word))
    };
    let narrowed = views.into_iter().map(|mut view| {
        let features = std::mem::take(&mut view.features);
        view.features = features.into_iter().filter(|feature| has(&view, feature)).collect();
        view
    });
    Features { views: narrowed.filter(|view| !view.features.is_empty()).collect() }
}

fn of_job(job: &ConsoleJob, plan: &Plan) -> Vec<View> {
    let views = plan.views.iter().map(|view| of_view(job, plan, view));
    views.chain(plan.sets.iter().map(|set| of_set(job, plan, set))).collect()
}

fn stream<'a>(plan: &'a Plan, view: &ViewPlan) -> (&'a str, &'a SchemaRef) {
    match view.stream {
        StreamRef::Source(at) => (&plan.sources[at].name, &plan.sources[at].stream_schema),
        StreamRef::Join(at) => (&plan.joins[at].name, &plan.joins[at].schema),
    }
}

fn entity(plan: &Plan, view: &ViewPlan) -> Vec<Column> {
    let (_, schema) = stream(plan, view);
    let columns = view.entity.iter().zip(&view.entity_names);
    columns
        .map(|(at, name)| Column { name: name.clone(), data_type: type_name(schema.field(*at).data_type()) })
        .collect()
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

fn of_view(job: &ConsoleJob, plan: &Plan, view: &ViewPlan) -> View {
    let (from, schema) = stream(plan, view);
    let prefix = format!("{}.", view.name);
    let short = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
    let aggregates = view.aggregates.iter().map(|aggregate| Feature {
        name: short(&aggregate.name),
        data_type: type_name(&aggregate.output_type),
        description: words(view, aggregate, schema),
        online: plan.online.is_some(),
    });
    let post = view.post.iter().map(|post| Feature {
        name: short(&post.name),
        data_type: type_name(&post.expr.data_type),
        description: post.expr.text.clone(),
        online: false,
    });
    View {
        job: job.id.clone(),
        view: view.name.clone(),
        kind: "view".to_owned(),
        from: from.to_owned(),
        entity: entity(plan, view),
        ttl_ms: view.ttl.map(|ttl| ttl / 1_000),
        online: plan.online.as_ref().map(|online| match &online.store {
            OnlinePlace::Embedded(_) => "embedded".to_owned(),
            OnlinePlace::Redis(redis) => redis.shown.clone(),
        }),
        features: aggregates.chain(post).collect(),
    }
}

fn of_set(job: &ConsoleJob, plan: &Plan, set: &SetPlan) -> View {
    let mut keys: Vec<Column> = Vec::new();
    for column in set.views.iter().flat_map(|at| entity(plan, &plan.views[*at])) {
        if !keys.contains(&column) {
            keys.push(column);
        }
    }
    let names: Vec<&str> = set.views.iter().map(|at| plan.views[*at].name.as_str()).collect();
    let spine = &plan.sources[set.spine].name;
    let features = set.columns.iter().map(|column| Feature {
        name: column.name.clone(),
        data_type: type_name(&column.data_type),
        description: match column.engine.split_once('.') {
            Some((view, name)) => format!("{name} of view {view}, as of each event of {spine}"),
            None => format!("of the event of {spine} itself"),
        },
        online: false,
    });
    View {
        job: job.id.clone(),
        view: set.name.clone(),
        kind: "set".to_owned(),
        from: match names[..] {
            [] => spine.clone(),
            _ => format!("{spine}, with {}", names.join(", ")),
        },
        entity: keys,
        ttl_ms: None,
        online: None,
        features: features.collect(),
    }
}

/// An aggregate in words: `mean of amount over the last 7d, by tiles of 1h`.
fn words(view: &ViewPlan, aggregate: &AggregatePlan, schema: &SchemaRef) -> String {
    let input = aggregate.input.map(|at| schema.field(at).name().clone());
    let what = match (aggregate.function, input) {
        (AggregateFunction::Count, None) => "number of events".to_owned(),
        (AggregateFunction::Count, Some(column)) => format!("number of events with {column}"),
        (function, column) => {
            let word = match function {
                AggregateFunction::Count => "count",
                AggregateFunction::Sum => "sum",
                AggregateFunction::Mean => "mean",
                AggregateFunction::Min => "smallest",
                AggregateFunction::Max => "largest",
                AggregateFunction::Variance => "variance",
                AggregateFunction::Stddev => "standard deviation",
                AggregateFunction::VarianceSample => "sample variance",
                AggregateFunction::StddevSample => "sample standard deviation",
                AggregateFunction::Last => "latest",
            };
            format!("{word} of {}", column.unwrap_or_else(|| "events".to_owned()))
        }
    };
    let over = match aggregate.window {
        Window::Trailing(width) => format!("over the last {}", format_duration(width)),
        Window::Lifetime => "over all time".to_owned(),
    };
    let delay = if view.delay > 0 { format!(", {} ago", format_duration(view.delay)) } else { String::new() };
    let tiles =
        aggregate.resolution.map(|width| format!(", by tiles of {}", format_duration(width))).unwrap_or_default();
    format!("{what} {over}{delay}{tiles}")
}

impl Console {
    fn value(&self, id: &str, view: &str, keys: &[(String, String)]) -> Result<Value, Problem> {
        let job = self.job(id)?;
        let plan = plan_of(&job)?;
        if !plan.views.iter().any(|known| known.name == view) {
            let names: Vec<&str> = plan.views.iter().map(|view| view.name.as_str()).collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Problem::not_found(format!("job `{id}` has no feature view `{view}`; it has {has}")));
        }
        let Some(online) = &plan.online else {
            return Err(Problem::unprocessable(format!("job `{id}` has no online sink, so no live values are kept")));
        };
        let told = |error: StoreError| match error {
            StoreError::Request(what) => Problem::unprocessable(what),
            other => Problem::unavailable(other.to_string()),
        };
        let reader = OnlineReader::of(&online.store).map_err(told)?;
        let row = get_online(&reader, view, keys).map_err(told)?;
        serde_json::to_value(&row).map_err(|error| Problem::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_by_column() {
        let of = |query: &str| keys(&Query::of(Some(query)));
        let wanted = [("customer_id", "4=2"), ("country", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(of("key=customer_id%3D4=2&key=country=").expect("keys"), wanted);
        assert!(of("").is_err());
        assert!(of("key=nothing").is_err());
        assert!(of(&"key=a=b&".repeat(KEYS_MAX + 1)).is_err());
    }
}

//! A Feast repository that says what a job's plan says: entities, feature views, feature services, where values are.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{FeastType, stream_of};
use crate::base::{Micros, format_duration};
use crate::plan::RedisAddress;
use crate::plan::model::{
    AggregateFunction, AggregatePlan, OnlinePlace, Plan, RedisLayout, RedisPlan, SetPlan, StreamRef, ViewPlan, Window,
};

/// Name of the file with the repository's settings.
pub const SETTINGS: &str = "feature_store.yaml";
/// Name of the file with the definitions.
pub const DEFINITIONS: &str = "features.py";

/// Where the repository's clients read online values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Online {
    /// In the job's Redis, which must be laid out as Feast's.
    Redis,
    /// From a server that answers Feast's remote online store.
    Remote {
        /// Its URL.
        url: String,
        /// The environment variable that holds the token which the server asks for.
        token: Option<String>,
    },
}

/// The texts of a repository's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `feature_store.yaml`.
    pub settings: String,
    /// `features.py`.
    pub definitions: String,
    /// Environment variables that Feast expands in the settings.
    pub variables: Vec<String>,
}

/// Writes a repository for `plan`; `project` stands in place of the project that the plan names.
///
/// # Errors
/// What of the plan Feast cannot have, and how to mend it.
pub fn repository(plan: &Plan, online: &Online, project: Option<&str>) -> Result<Repository, String> {
    let redis = match plan.online.as_ref().map(|online| &online.store) {
        Some(OnlinePlace::Redis(redis)) => Some(redis),
        _ => None,
    };
    let layout = redis.and_then(|redis| match &redis.layout {
        RedisLayout::Native => None,
        RedisLayout::Feast { project } => Some((redis, project.as_str())),
    });
    if let (Online::Redis, Some((_, held)), Some(asked)) = (online, layout, project)
        && held != asked
    {
        return Err(format!("the job writes to the project `{held}`; leave --project out, or change the job's file"));
    }
    let project = project.or(layout.map(|(_, project)| project)).unwrap_or(&plan.job);
    if !super::is_project(project) {
        return Err(format!("`{project}` is no name of a Feast project; give --project NAME"));
    }
    let mut variables = Vec::new();
    let store = match (online, layout) {
        (Online::Remote { url, .. }, _) => format!("  type: remote\n  path: {}\n", quoted(url)),
        (Online::Redis, Some((redis, _))) => {
            format!("  type: redis\n  connection_string: {}\n", single_quoted(&connection(redis, &mut variables)?))
        }
        (Online::Redis, None) => {
            return Err(
                "the job's online values are not laid out as Feast's; set `sinks.online.redis.layout: feast`, or \
                        give --remote URL of the server that answers for the job"
                    .into(),
            );
        }
    };
    let mut settings = format!(
        "{}project: {project}\nprovider: local\nregistry: data/registry.db\nonline_store:\n{store}offline_store:\n  \
         type: dask\nentity_key_serialization_version: 3\n",
        made_by(plan),
    );
    if let Online::Remote { token: Some(name), .. } = online {
        // Feast's client sends whatever token it is given as a bearer's under this type alone.
        let _ = write!(settings, "auth:\n  type: oidc\n  token_env_var: {}\n", quoted(name));
        variables.push(name.clone());
    }
    Ok(Repository { settings, definitions: definitions(plan)?, variables })
}

/// The line by which an exported file is known, and what follows from it.
fn made_by(plan: &Plan) -> String {
    format!(
        "# Made by `tidemill feast export` of job {} version {}. Changes are lost when it is made again.\n",
        plan.job, plan.version
    )
}

/// Feast's connection string; secrets stay references.
fn connection(redis: &RedisPlan, variables: &mut Vec<String>) -> Result<String, String> {
    if redis.url.is_reference() {
        // The URL is known to nobody but the job.
        variables.push("FEAST_REDIS_CONNECTION".into());
        return Ok("${FEAST_REDIS_CONNECTION}".into());
    }
    let address = RedisAddress::parse(&redis.url.shape("x"))?;
    if address.host.contains(':') {
        return Err("Feast cannot connect to an IPv6 address; give the server a name".into());
    }
    let mut text = format!("{}:{}", address.host, address.port);
    // Writing to a string cannot fail.
    if address.database != 0 {
        let _ = write!(text, ",db={}", address.database);
    }
    if let Some(username) = &address.username {
        let _ = write!(text, ",username={username}");
    }
    if address.password.is_some() {
        let name = match redis.url.variables()[..] {
            [name] => name,
            _ => "REDIS_PASSWORD",
        };
        variables.push(name.to_owned());
        // Quoted, so that Feast does not take digits for a number.
        let _ = write!(text, ",password=\"${{{name}}}\"");
    }
    Ok(text)
}

fn definitions(plan: &Plan) -> Result<String, String> {
    let mut entities = String::new();
    let mut views = String::new();
    let mut types: BTreeSet<&str> = BTreeSet::new();
    let mut known: Vec<(&str, FeastType)> = Vec::new();
    let mut sources = false;
    for view in &plan.views {
        let schema = stream_of(plan, view);
        for (&column, name) in view.entity.iter().zip(&view.entity_names) {
            let data_type = schema.field(column).data_type();
            let held = FeastType::of_key(data_type).ok_or_else(|| {
                format!("features.{}: Feast's keys hold no columns of type {data_type} (`{name}`)", view.name)
            })?;
            match known.iter().find(|(other, _)| other == name) {
                Some((_, other)) if *other != held => {
                    return Err(format!(
                        "features.{}: `{name}` is {} here and {} in another view: Feast has one type for it",
                        view.name,
                        held.value_type(),
                        other.value_type()
                    ));
                }
                Some(_) => {}
                None => {
                    known.push((name, held));
                    let _ = writeln!(
                        entities,
                        "{} = Entity(name={q}, join_keys=[{q}], value_type=ValueType.{})",
                        variable(name, "entity"),
                        held.value_type(),
                        q = quoted(name)
                    );
                }
            }
            types.insert(held.field_type());
        }
        sources |= table_of(plan, view).is_some();
        write_view(plan, view, &mut types, &mut views)?;
    }
    let services: String = plan.sets.iter().filter_map(|set| service(plan, set)).collect();
    let mut imports: Vec<&str> = Vec::new();
    imports.push("Entity");
    imports.extend((!services.is_empty()).then_some("FeatureService"));
    imports.extend(["FeatureView", "Field"]);
    imports.extend(sources.then_some("FileSource"));
    imports.push("ValueType");
    let types: Vec<&str> = types.into_iter().collect();
    Ok(format!(
        "{}# Values come from the job: `feast materialize` and `store.push` would write beside it.\nfrom datetime import \
         timedelta\n\nfrom feast import {}\nfrom feast.types import {}\n\n{entities}{views}{services}",
        made_by(plan),
        imports.join(", "),
        types.join(", "),
    ))
}

fn write_view(plan: &Plan, view: &ViewPlan, types: &mut BTreeSet<&str>, out: &mut String) -> Result<(), String> {
    let schema = stream_of(plan, view);
    let source = table_of(plan, view).map(|path| {
        let name = variable(&view.name, "rows");
        let _ = write!(
            out,
            "\n{name} = FileSource(\n    name={},\n    path={},\n    timestamp_field=\"event_time\",\n    description={},\n)\n",
            quoted(&format!("{}_rows", view.name)),
            quoted(&path),
            quoted("One row per event; a Delta table, of which Feast reads the Parquet files.")
        );
        name
    });
    let entities: Vec<String> = view.entity_names.iter().map(|name| variable(name, "entity")).collect();
    let stream = match view.stream {
        StreamRef::Source(source) => &plan.sources[source].name,
        StreamRef::Join(join) => &plan.joins[join].name,
    };
    let mut description = format!("{stream} by {}", view.entity_names.join(", "));
    if view.delay > 0 {
        let _ = write!(description, ", as of {} before", format_duration(view.delay));
    }
    let _ = write!(
        out,
        "\n{} = FeatureView(\n    name={},\n    entities=[{}],\n    ttl={},\n    schema=[\n",
        variable(&view.name, "view"),
        quoted(&view.name),
        entities.join(", "),
        view.ttl.map_or_else(|| "timedelta(0)".to_owned(), timedelta)
    );
    for (&column, name) in view.entity.iter().zip(&view.entity_names) {
        if let Some(held) = FeastType::of_key(schema.field(column).data_type()) {
            let _ = writeln!(out, "        Field(name={}, dtype={}),", quoted(name), held.field_type());
        }
    }
    for aggregate in &view.aggregates {
        let name = short(view, aggregate);
        let held = FeastType::of_feature(&aggregate.output_type).ok_or_else(|| {
            format!("features.{}: Feast has no type for {} (`{name}`)", view.name, aggregate.output_type)
        })?;
        types.insert(held.field_type());
        let input = aggregate.input.map(|input| schema.field(input).name().as_str());
        let _ = writeln!(
            out,
            "        Field(name={}, dtype={}, description={}),",
            quoted(name),
            held.field_type(),
            quoted(&explain(aggregate, input))
        );
    }
    let _ = write!(
        out,
        "    ],\n    source={},\n    online=True,\n    description={},\n    tags={{\"job\": {}, \"job_version\": \"{}\"}},\n)\n",
        source.as_deref().unwrap_or("None"),
        quoted(&description),
        quoted(&plan.job),
        plan.version
    );
    Ok(())
}

/// A feature set as a service; `None` where it takes nothing from a view.
fn service(plan: &Plan, set: &SetPlan) -> Option<String> {
    let mut parts = Vec::new();
    let mut own: BTreeSet<&str> = set.columns.iter().map(|column| column.name.as_str()).collect();
    for &index in &set.views {
        let view = &plan.views[index];
        let taken: Vec<&str> = set
            .columns
            .iter()
            .filter_map(|column| {
                let aggregate = view.aggregates.iter().find(|aggregate| aggregate.name == column.engine)?;
                own.remove(column.name.as_str());
                Some(short(view, aggregate))
            })
            .collect();
        if taken.is_empty() {
            continue;
        }
        let names: Vec<String> = taken.iter().map(|name| quoted(name)).collect();
        parts.push(format!("{}[[{}]]", variable(&view.name, "view"), names.join(", ")));
    }
    if parts.is_empty() {
        return None;
    }
    let spine = &plan.sources[set.spine].name;
    let mut description = format!("What of {} is known before an event of {spine}", set.name);
    if !own.is_empty() {
        let own: Vec<&str> = own.into_iter().collect();
        let _ = write!(description, "; not here, since they need the event: {}", own.join(", "));
    }
    Some(format!(
        "\n{} = FeatureService(\n    name={},\n    features=[{}],\n    description={},\n)\n",
        variable(&set.name, "service"),
        quoted(&set.name),
        parts.join(", "),
        quoted(&description)
    ))
}

/// Directory of the view's table, where the job writes one.
fn table_of(plan: &Plan, view: &ViewPlan) -> Option<String> {
    let offline = plan.offline.as_ref()?;
    let table = format!("features/{}", view.name);
    let written = offline.tables.as_ref().is_none_or(|tables| tables.contains(&table));
    written.then(|| format!("{}/{table}", offline.uri.trim_end_matches('/')))
}

fn short<'a>(view: &ViewPlan, aggregate: &'a AggregatePlan) -> &'a str {
    aggregate.name.strip_prefix(view.name.as_str()).and_then(|name| name.strip_prefix('.')).unwrap_or(&aggregate.name)
}

fn explain(aggregate: &AggregatePlan, input: Option<&str>) -> String {
    let what = match aggregate.function {
        AggregateFunction::Count => "number",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Mean => "mean",
        AggregateFunction::Min => "smallest",
        AggregateFunction::Max => "largest",
        AggregateFunction::Variance => "population variance",
        AggregateFunction::Stddev => "population standard deviation",
        AggregateFunction::VarianceSample => "sample variance",
        AggregateFunction::StddevSample => "sample standard deviation",
        AggregateFunction::Last => "latest",
    };
    let of = input.map_or_else(|| "of rows".to_owned(), |input| format!("of {input}"));
    match aggregate.window {
        Window::Trailing(width) => format!("{what} {of} over {}", format_duration(width)),
        Window::Lifetime => format!("{what} {of} since the beginning"),
    }
}

fn timedelta(micros: Micros) -> String {
    match micros % 1_000_000 {
        0 => format!("timedelta(seconds={})", micros / 1_000_000),
        _ => format!("timedelta(microseconds={micros})"),
    }
}

/// A Python variable for a name of a kind.
fn variable(name: &str, kind: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let text: String =
        name.chars().map(|c| if plain(c) { c.to_string() } else { format!("_{:x}_", c as u32) }).collect();
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    format!("{}{text}_{kind}", if digit { "_" } else { "" })
}

/// A literal of Python and of YAML: JSON's strings are both.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// YAML's literal in which nothing but the quote has a meaning.
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

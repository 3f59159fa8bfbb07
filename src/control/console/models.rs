//! Registered models: versions, aliases, metrics, history and cards, and what is done about them.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wire::{Json, Query, body};
use super::{Console, in_path, parameter, reads};
use crate::http::{Api, Caller, Operation, Place, Problem, Scope, schema_of};
use crate::registry::{
    By, CHALLENGER, CHAMPION, ModelInfo, Previous, Registry, RegistryError, Selector, VersionNumber,
};

/// Newest entries of a model's history that are told.
const HISTORY_MAX: usize = 500;
/// Bytes of a file beside a model that are told.
const FILE_MAX: u64 = 4 << 20;
/// Letters of a reason.
const WHY_MAX: usize = 500;

/// Registries that are open, by their places.
#[derive(Default)]
pub(super) struct Registries {
    open: Mutex<BTreeMap<String, Arc<Registry>>>,
}

impl Registries {
    fn get(&self, uri: &str) -> Result<Arc<Registry>, RegistryError> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(uri).cloned();
        if let Some(registry) = known {
            return Ok(registry);
        }
        let registry = Arc::new(Registry::existing(uri)?);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(uri.to_owned(), Arc::clone(&registry));
        Ok(registry)
    }
}

/// Where a model scores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Use {
    /// Id of the job.
    job: String,
    /// The model's name in the job's file.
    model: String,
}

/// What is asked of a model.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Deed {
    /// The registry, where several have a model of this name.
    registry: Option<String>,
    /// The version to promote.
    version: Option<VersionNumber>,
    /// Only if this version is the champion now.
    expect: Option<VersionNumber>,
    /// Promote a version that takes or gives something else than the champion.
    force: bool,
    /// The reason, for the history.
    #[schemars(length(max = 500))]
    why: String,
}

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Done {
    /// The model.
    model: String,
    /// Number of the entry in the model's history.
    entry: u64,
    /// The version that was the champion.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<VersionNumber>,
    /// The version that is the champion, or whose rollout is asked for something.
    to: VersionNumber,
    /// The same in words.
    text: String,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let registry = || {
        parameter(
            "registry",
            Place::Query,
            "The registry, where several have a model of this name.",
            schema_of::<String>(),
        )
    };
    let told = json!({
        "type": "object",
        "required": ["models", "files", "problems"],
        "properties": {
            "models": {"type": "array", "description": "The registered models of all jobs' registries.", "items": {"type": "object", "required": ["registry", "name", "versions", "aliases", "used_by"]}},
            "files": {"type": "array", "description": "Models that jobs score with and that are files, not registered.", "items": {"type": "object", "required": ["job", "model", "file"]}},
            "problems": {"type": "array", "description": "Registries that cannot be read.", "items": {"type": "object", "required": ["registry", "why"]}},
        },
    });
    let all = reads("/api/v1/models", "models", "models", "The models of all jobs.", told);
    let told = json!({"type": "object", "required": ["registry", "name", "versions", "aliases", "history", "used_by"]});
    let mut one = reads("/api/v1/models/{name}", "model", "models", "A registered model with its history.", told);
    one.parameters = vec![in_path("name", "The model."), registry()];
    one.problems = vec![404, 409];
    let mut file = reads(
        "/api/v1/models/{name}/versions/{number}/files/{file}",
        "model_file",
        "models",
        "A file beside a version, such as its card, as text.",
        Value::Null,
    );
    file.responses = vec![(200, "The file.", Some(("text/plain", schema_of::<String>())))];
    file.parameters = vec![
        in_path("name", "The model."),
        parameter("number", Place::Path, "The version.", schema_of::<u32>()),
        in_path("file", "The file's name, such as card.md."),
        registry(),
    ];
    file.problems = vec![400, 404, 409];
    let (for_all, for_one, for_file) = (Arc::clone(console), Arc::clone(console), Arc::clone(console));
    let api = Api::default()
        .with(all, get(async move || -> Result<Json<Value>, Problem> { for_all.read(Console::models).await.map(Json) }))
        .with(
            one,
            get(async move |Path(name): Path<String>, RawQuery(query): RawQuery| -> Result<Json<Value>, Problem> {
                let place = Query::of(query.as_deref()).one("registry");
                for_one.read(move |console| console.model(&name, place.as_deref())).await.map(Json)
            }),
        )
        .with(
            file,
            get(
                async move |Path((name, number, file)): Path<(String, u32, String)>,
                            RawQuery(query): RawQuery|
                            -> Result<Response, Problem> {
                    let place = Query::of(query.as_deref()).one("registry");
                    let text = for_file.read(move |console| console.file(&name, number, &file, place.as_deref()));
                    // As text, whatever it is: a page of somebody else's is not shown as ours.
                    let kind = [
                        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                    ];
                    Ok((StatusCode::OK, kind, text.await?).into_response())
                },
            ),
        );
    [
        deed(console, "/api/v1/models/{name}/promote", "model_promote", "Makes a version the champion.", Kind::Promote),
        deed(
            console,
            "/api/v1/models/{name}/rollback",
            "model_rollback",
            "Makes the version the champion that was it before.",
            Kind::Rollback,
        ),
        deed(
            console,
            "/api/v1/models/{name}/hold",
            "model_hold",
            "Asks jobs that roll out the challenger to go no further for now.",
            Kind::Request("hold"),
        ),
        deed(
            console,
            "/api/v1/models/{name}/resume",
            "model_resume",
            "Asks jobs that hold a rollout to go on with it.",
            Kind::Request("resume"),
        ),
    ]
    .into_iter()
    .fold(api, |api, (operation, handler)| api.with(operation, handler))
}

#[derive(Clone, Copy)]
enum Kind {
    Promote,
    Rollback,
    Request(&'static str),
}

fn deed(
    console: &Arc<Console>,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    kind: Kind,
) -> (Operation, axum::routing::MethodRouter) {
    let operation = Operation {
        method: Method::POST,
        scope: Some(Scope::Submit),
        parameters: vec![in_path("name", "The model.")],
        request: Some(("application/json", schema_of::<Deed>())),
        responses: vec![(200, "It is done.", Some(("application/json", schema_of::<Done>())))],
        problems: vec![400, 404, 409, 415, 422],
        changes: true,
        ..reads(path, id, "models", summary, Value::Null)
    };
    let console = Arc::clone(console);
    let handler = post(
        async move |Path(name): Path<String>,
                    Extension(caller): Extension<Caller>,
                    headers: HeaderMap,
                    bytes: Bytes|
                    -> Result<Json<Done>, Problem> {
            let deed: Deed = body(&headers, &bytes)?;
            if deed.why.chars().count() > WHY_MAX {
                return Err(Problem::unprocessable(format!("`why` has more than {WHY_MAX} letters")));
            }
            console.read(move |console| console.act(&name, kind, &deed, &caller.name)).await.map(Json)
        },
    );
    (operation, handler)
}

/// A registry's error, as it is told.
fn failed(error: RegistryError) -> Problem {
    let text = error.to_string();
    match error {
        RegistryError::NoModel { .. }
        | RegistryError::NoVersion { .. }
        | RegistryError::NoAlias { .. }
        | RegistryError::Absent { .. } => Problem::not_found(text),
        RegistryError::Conflict { .. } | RegistryError::NoPrevious { .. } | RegistryError::KeyUsed { .. } => {
            Problem::conflict(text)
        }
        RegistryError::Refused(_) | RegistryError::Place { .. } => Problem::unprocessable(text),
        _ => Problem::unavailable(text),
    }
}

/// What two versions take and give that is not the same.
fn clashes(old: &crate::registry::Signature, new: &crate::registry::Signature) -> Vec<String> {
    let mut found = Vec::new();
    for (what, old, new) in [("input", &old.inputs, &new.inputs), ("output", &old.outputs, &new.outputs)] {
        for at in 0..old.len().max(new.len()) {
            match (old.get(at), new.get(at)) {
                (Some(was), Some(is)) if was != is => found.push(format!("{what} {was} becomes {is}")),
                (Some(was), None) => found.push(format!("{what} {was} goes")),
                (None, Some(is)) => found.push(format!("{what} {is} comes")),
                _ => {}
            }
        }
    }
    found
}

impl Console {
    /// The registries that jobs name, and in which jobs their models score.
    fn places(&self) -> BTreeMap<String, Vec<(String, Use)>> {
        let mut places: BTreeMap<String, Vec<(String, Use)>> = BTreeMap::new();
        for job in self.parts.source.jobs() {
            let Ok(plan) = &job.plan else { continue };
            let uses = places.entry(plan.registry.clone()).or_default();
            for model in &plan.models {
                if let Some(registered) = &model.registered {
                    let name = registered.reference.name.clone();
                    uses.push((name, Use { job: job.id.clone(), model: model.name.clone() }));
                }
            }
        }
        places
    }

    fn models(&self) -> Result<Value, Problem> {
        let (mut models, mut problems) = (Vec::new(), Vec::new());
        for (place, uses) in self.places() {
            let found = self.registries.get(&place).and_then(|registry| registry.models());
            match found {
                Ok(found) => models.extend(found.iter().map(|model| told(&place, model, &uses))),
                // A registry that nobody has begun is none that is missed, unless something is to come from it.
                Err(RegistryError::Absent { .. }) if uses.is_empty() => {}
                Err(error) => problems.push(json!({"registry": place, "why": error.to_string()})),
            }
        }
        let mut files = Vec::new();
        for job in self.parts.source.jobs() {
            let Ok(plan) = &job.plan else { continue };
            for model in plan.models.iter().filter(|model| model.registered.is_none()) {
                files.push(json!({"job": job.id, "model": model.name, "version": model.version, "file": model.path.display().to_string()}));
            }
        }
        Ok(json!({"models": models, "files": files, "problems": problems}))
    }

    /// The registry that has a model of this name; of several, the one that was named.
    fn registry_of(
        &self,
        name: &str,
        wanted: Option<&str>,
    ) -> Result<(String, Arc<Registry>, ModelInfo, Vec<(String, Use)>), Problem> {
        let places = self.places();
        let mut found = Vec::new();
        let mut trouble = None;
        for (place, uses) in places.into_iter().filter(|(place, _)| wanted.is_none_or(|wanted| wanted == place)) {
            match self.registries.get(&place).and_then(|registry| registry.model(name).map(|model| (registry, model))) {
                Ok((registry, model)) => found.push((place, registry, model, uses)),
                Err(RegistryError::NoModel { .. } | RegistryError::Absent { .. }) => {}
                Err(error) => trouble = Some(failed(error)),
            }
        }
        match (found.len(), trouble) {
            (1, _) => Ok(found.remove(0)),
            (0, Some(trouble)) => Err(trouble),
            (0, None) => Err(Problem::not_found(format!(
                "no registry of a job here has a model `{name}`; GET /api/v1/models lists those there are"
            ))),
            _ => {
                let places: Vec<&str> = found.iter().map(|(place, ..)| place.as_str()).collect();
                Err(Problem::conflict(format!(
                    "several registries have a model `{name}`; say which with `registry`: {}",
                    places.join(", ")
                )))
            }
        }
    }

    fn model(&self, name: &str, wanted: Option<&str>) -> Result<Value, Problem> {
        let (place, registry, model, uses) = self.registry_of(name, wanted)?;
        let mut history = registry.history(name).map_err(failed)?;
        history.drain(..history.len().saturating_sub(HISTORY_MAX));
        let entry = |entry: &crate::registry::Entry| {
            json!({
                "number": entry.number, "at": entry.at, "who": entry.who, "what": entry.event.to_string(), "why": entry.why,
                "numbers": entry.numbers,
            })
        };
        let mut told = told(&place, &model, &uses);
        told["history"] = history.iter().map(entry).collect();
        Ok(told)
    }

    fn file(&self, name: &str, number: u32, file: &str, wanted: Option<&str>) -> Result<String, Problem> {
        let (_, registry, _, _) = self.registry_of(name, wanted)?;
        let version = registry.version(name, &Selector::Number(number)).map_err(failed)?;
        let Some(artifact) = version.files.get(file) else {
            let has: Vec<&str> = version.files.keys().map(String::as_str).collect();
            return Err(Problem::not_found(format!(
                "version {number} of `{name}` has no file {file:?}; it has {}",
                if has.is_empty() { "none".to_owned() } else { has.join(", ") }
            )));
        };
        if artifact.bytes > FILE_MAX {
            return Err(Problem::unprocessable(format!(
                "{file} has {} bytes; at most {FILE_MAX} are shown",
                artifact.bytes
            )));
        }
        let path = registry.artifact(&artifact.hash).map_err(failed)?;
        let unread =
            |path: &FilePath, error: std::io::Error| Problem::unavailable(format!("{}: {error}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| unread(&path, error))?;
        String::from_utf8(bytes).map_err(|_| Problem::unprocessable(format!("{file} is no text")))
    }

    fn act(&self, name: &str, kind: Kind, deed: &Deed, who: &str) -> Result<Done, Problem> {
        let (_, registry, model, _) = self.registry_of(name, deed.registry.as_deref())?;
        let by = By::new(who, deed.why.trim());
        let found = model.aliases.get(CHAMPION).copied();
        let expected = match (deed.force, deed.expect, found) {
            (true, None, _) => Previous::Any,
            (_, Some(number), _) | (false, None, Some(number)) => Previous::At(number),
            (false, None, None) => Previous::Nowhere,
        };
        match kind {
            Kind::Promote => {
                let number =
                    deed.version.ok_or_else(|| Problem::unprocessable("say which version to promote: `version`"))?;
                promote(&registry, &model, number, deed.force, expected, &by)
            }
            _ if deed.version.is_some() || deed.force => {
                Err(Problem::unprocessable("`version` and `force` are for promotions"))
            }
            Kind::Rollback => {
                // Without a champion the registry says so better.
                let expected = if found.is_none() && deed.expect.is_none() { Previous::Any } else { expected };
                let moved = registry.rollback(name, expected, &by).map_err(failed)?;
                Ok(done(
                    name,
                    moved.entry,
                    moved.from,
                    moved.to,
                    format!("version {} of {name} is the champion again", moved.to),
                ))
            }
            Kind::Request(what) => {
                let Some(challenger) = model.aliases.get(CHALLENGER).copied() else {
                    return Err(Problem::conflict(format!(
                        "model `{name}` has no {CHALLENGER}, so no rollout can {what}"
                    )));
                };
                let by = by.numbers(json!({"do": what}));
                let entry = registry.note(name, Some(challenger), "request", &by).map_err(failed)?;
                let text = format!("jobs that roll out {name} version {challenger} are asked to {what}");
                Ok(done(name, entry, None, challenger, text))
            }
        }
    }
}

fn done(model: &str, entry: u64, from: Option<VersionNumber>, to: VersionNumber, text: String) -> Done {
    Done { model: model.to_owned(), entry, from, to, text }
}

fn promote(
    registry: &Registry,
    model: &ModelInfo,
    number: VersionNumber,
    force: bool,
    expected: Previous,
    by: &By,
) -> Result<Done, Problem> {
    let name = &model.name;
    let new = registry.version(name, &Selector::Number(number)).map_err(failed)?;
    let old = model.aliases.get(CHAMPION).and_then(|champion| model.version(*champion));
    if let Some(old) = old.filter(|_| !force) {
        let clashes = clashes(&old.signature, &new.signature);
        if !clashes.is_empty() {
            return Err(Problem::conflict(format!(
                "version {number} of {name} takes or gives something else than the champion, version {}: {}; jobs that score with {name}@{CHAMPION} would refuse it, or promote it with `force`",
                old.number,
                clashes.join("; ")
            )));
        }
    }
    // A file that is damaged is found now, and not by the job.
    registry.artifact(&new.artifact.hash).map_err(failed)?;
    let moved = registry.set_alias(name, CHAMPION, number, expected, by).map_err(failed)?;
    if model.aliases.get(CHALLENGER) == Some(&number) {
        let by = By { why: "it was promoted".to_owned(), ..by.clone() };
        match registry.remove_alias(name, CHALLENGER, Previous::At(number), &by) {
            // Somebody has named another meanwhile, or none.
            Err(RegistryError::Conflict { .. } | RegistryError::NoAlias { .. }) | Ok(_) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(done(name, moved.entry, moved.from, moved.to, format!("version {number} of {name} is the champion")))
}

fn told(place: &str, model: &ModelInfo, uses: &[(String, Use)]) -> Value {
    let used: Vec<&Use> = uses.iter().filter(|(name, _)| *name == model.name).map(|(_, one)| one).collect();
    json!({"registry": place, "name": model.name, "versions": model.versions, "aliases": model.aliases, "used_by": used})
}

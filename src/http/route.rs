//! Routes as data: the router and the OpenAPI document follow from one list.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::context::{Context, Mark, Unrecognised, unpanicked};
use super::{Caller, Problem, Scope};

/// One operation of an API.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Method.
    pub method: Method,
    /// Path, with parameters as `{name}`; `{*rest}` takes all that follows.
    pub path: &'static str,
    /// Name for programs, unique.
    pub id: &'static str,
    /// Group, for readers.
    pub tag: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What its caller must be allowed to do; `None` for everybody.
    pub scope: Option<Scope>,
    /// Parameters of path, query and headers.
    pub parameters: Vec<Parameter>,
    /// Media type and schema of the request's body, if it has one.
    pub request: Option<(&'static str, Value)>,
    /// Status, what it means, and media type with schema of each answer that is not an error.
    pub responses: Vec<(u16, &'static str, Option<(&'static str, Value)>)>,
    /// Statuses of errors that a caller should expect, besides those that any route may have (401, 403, 408, 413, 429, 500, 503).
    pub problems: Vec<u16>,
    /// Whether it changes something, and so has an entry in the audit log.
    pub changes: bool,
}

/// A parameter of an operation.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub description: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// Schema of its value.
    pub schema: Value,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// Among the headers.
    Header,
}

/// The schema of a type, with what it refers to inside it.
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

/// Operations and their handlers.
#[derive(Default)]
pub struct Api {
    operations: Vec<Operation>,
    /// Names of what is no part of the document and yet is counted.
    beside: Vec<&'static str>,
    router: Router,
}

impl Api {
    /// With one operation more. The handler must answer the operation's method. One that changes something goes on to its end
    /// though its client goes away or the time limit passes, and then has its entry in the audit log.
    #[must_use]
    pub fn with(mut self, operation: Operation, handler: MethodRouter) -> Api {
        let Operation { scope, id, changes, .. } = operation;
        let handler =
            handler.route_layer(from_fn(move |request, next| enter(scope, Mark { id, changes }, request, next)));
        self.router = self.router.route(operation.path, handler);
        self.operations.push(operation);
        self
    }

    /// With all operations of another.
    #[must_use]
    pub fn and(mut self, other: Api) -> Api {
        self.operations.extend(other.operations);
        self.beside.extend(other.beside);
        self.router = self.router.merge(other.router);
        self
    }

    /// With routes that are no part of the document: pages, or what has a definition of its own.
    #[must_use]
    pub fn beside(mut self, routes: Router) -> Api {
        self.router = self.router.merge(routes);
        self
    }

    /// With routes that have a definition of their own, such as a gRPC service's, for whoever has a scope; metrics know them by
    /// `id`.
    #[must_use]
    pub fn beside_for(mut self, scope: Scope, id: &'static str, routes: Router) -> Api {
        self.beside.push(id);
        let mark = Mark { id, changes: false };
        self.beside(routes.route_layer(from_fn(move |request, next| enter(Some(scope), mark, request, next))))
    }

    /// The operations, in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The names that metrics know its routes by.
    pub(super) fn ids(&self) -> Vec<&'static str> {
        self.operations.iter().map(|operation| operation.id).chain(self.beside.iter().copied()).collect()
    }

    /// The router. What authenticates callers is layered around it and leaves a [`Caller`] with each request.
    pub fn into_router(self) -> Router {
        self.router
    }

    /// The OpenAPI 3.1 document.
    pub fn openapi(&self, title: &str, version: &str) -> Value {
        let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for operation in &self.operations {
            let method = operation.method.as_str().to_lowercase();
            paths.entry(operation.path).or_default().insert(method, describe(operation));
        }
        json!({
            "openapi": "3.1.0",
            "info": {"title": title, "version": version},
            "paths": paths,
            "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        })
    }
}

/// Lets a request in to its handler, if its caller may.
async fn enter(scope: Option<Scope>, mark: Mark, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Arc<Context>>().cloned();
    if let Some(context) = &context {
        context.enter(mark);
    }
    let refused = scope.and_then(|scope| admit(scope, &request).err());
    let caller = request.extensions().get::<Caller>().map(|caller| caller.name.clone());
    let path = request.uri().path().to_owned();
    if let Some(problem) = refused {
        let response = problem.into_response();
        // Those who are not known are left out: they could fill the disk.
        if let (true, Some(caller), Some(context)) = (mark.changes, caller, &context) {
            context.record(mark, caller, path, response.status()).await;
        }
        return response;
    }
    if !mark.changes {
        return next.run(request).await;
    }
    // A task of its own: what has begun to change is not left half done because nobody waits for it any more.
    let caller = caller.unwrap_or_else(|| "unknown".to_owned());
    let task = tokio::spawn(async move {
        let _work = context.as_ref().map(|context| context.work());
        let response = unpanicked(next.run(request)).await;
        if let Some(context) = &context {
            context.record(mark, caller, path, response.status()).await;
        }
        response
    });
    task.await.unwrap_or_else(|_| Problem::internal("a defect of the server ended this request").into_response())
}

fn admit(scope: Scope, request: &Request) -> Result<(), Problem> {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.may(scope) => Ok(()),
        Some(caller) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("`{}` may not do this: its token needs the scope `{scope}`", caller.name),
        )),
        None => Err(match request.extensions().get::<Unrecognised>() {
            Some(Unrecognised(why)) => Problem::new(StatusCode::UNAUTHORIZED, *why),
            None => Problem::new(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer <token>`"),
        }),
    }
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|p| {
            let place = match p.place {
                Place::Path => "path",
                Place::Query => "query",
                Place::Header => "header",
            };
            let Parameter { name, description, required, schema, .. } = p;
            json!({"name": name, "in": place, "description": description, "required": required, "schema": schema})
        })
        .collect();
    let content = |(media, schema): &(&str, Value)| json!({*media: {"schema": schema}});
    let mut responses = Map::new();
    for (status, meaning, body) in &operation.responses {
        let mut response = json!({"description": meaning});
        if let Some(body) = body {
            response["content"] = content(body);
        }
        responses.insert(status.to_string(), response);
    }
    let problem = schema_of::<Problem>();
    let of_any: &[u16] =
        if operation.scope.is_some() { &[401, 403, 408, 413, 429, 500, 503] } else { &[403, 408, 413, 429, 500, 503] };
    for &status in operation.problems.iter().chain(of_any) {
        let meaning = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        let body = json!({"application/problem+json": {"schema": problem}});
        responses.entry(status.to_string()).or_insert_with(|| json!({"description": meaning, "content": body}));
    }
    let mut description = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = &operation.request {
        description["requestBody"] = json!({"required": true, "content": content(body)});
    }
    if let Some(scope) = operation.scope {
        description["security"] = json!([{"token": []}]);
        description["x-scope"] = json!(scope.name());
    }
    description
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn api() -> Api {
        let operation = Operation {
            method: Method::GET,
            path: "/jobs/{id}",
            id: "job",
            tag: "jobs",
            summary: "One job.",
            scope: Some(Scope::Submit),
            parameters: vec![Parameter {
                name: "id",
                place: Place::Path,
                description: "The job.",
                required: true,
                schema: schema_of::<String>(),
            }],
            request: None,
            responses: vec![(200, "The job.", Some(("application/json", schema_of::<Problem>())))],
            problems: vec![404],
            changes: false,
        };
        Api::default().with(operation, get(|| async { "here" }))
    }

    fn ask(caller: Option<Caller>) -> StatusCode {
        let mut request = Request::builder().uri("/jobs/a").body(Body::empty()).expect("a request");
        caller.map(|caller| request.extensions_mut().insert(caller));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(api().into_router().oneshot(request)).expect("an answer").status()
    }

    #[test]
    fn a_route_admits_whoever_has_its_scope() {
        let caller = |scopes: &[Scope]| Some(Caller { name: "someone".to_owned(), scopes: scopes.to_vec() });
        assert_eq!(ask(None), 401);
        assert_eq!(ask(caller(&[Scope::Predict, Scope::ReadFeatures])), 403);
        assert_eq!(ask(caller(&[Scope::Submit])), 200);
        assert_eq!(ask(caller(&[Scope::Admin])), 200);
    }

    #[test]
    fn a_method_that_is_not_there_is_told_before_the_scope() {
        let request = Request::builder().method(Method::DELETE).uri("/jobs/a").body(Body::empty()).expect("a request");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let answer = runtime.block_on(api().into_router().oneshot(request)).expect("an answer");
        assert_eq!(answer.status(), 405);
    }

    #[test]
    fn the_document_tells_of_every_route_and_its_errors() {
        let document = api().openapi("tidemill", "1");
        let operation = &document["paths"]["/jobs/{id}"]["get"];
        assert_eq!(operation["operationId"], "job");
        assert_eq!(operation["x-scope"], "submit");
        for status in ["200", "401", "403", "404", "429", "500", "503"] {
            assert!(operation["responses"][status].is_object(), "{status}: {operation}");
        }
        assert!(!document.to_string().contains("$ref"), "schemas stand where they are used");
    }
}

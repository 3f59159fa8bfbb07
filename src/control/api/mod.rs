//! The jobs API over HTTP, under `/api/v1`.

mod answer;
mod change;
mod look;

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::Manager;
use super::model::{
    Checked, Event, FileProblem, Job, JobFile, Log, PlanText, RestartRequest, Savepoint, SavepointRequest, StopRequest,
    Submission, Upgrade, UpgradeRequest,
};
use crate::engine::status::{JobStatus, LetterStatus};
use crate::http::{Api, Operation, Parameter, Place, Scope, schema_of};

const JSON: &str = "application/json";

/// All that can be asked of the jobs of a manager.
pub fn api(manager: Manager) -> Api {
    let manager = Arc::new(manager);
    let with = |api: Api, operation: Operation, handler: MethodRouter<Arc<Manager>>| {
        api.with(operation, handler.with_state(Arc::clone(&manager)))
    };
    let mut api = Api::default();
    for (operation, handler) in changes().into_iter().chain(looks()) {
        api = with(api, operation, handler);
    }
    api
}

type Route = (Operation, MethodRouter<Arc<Manager>>);

fn changes() -> Vec<Route> {
    let change = |method, path, id, summary| operation(method, path, id, summary).changing();
    vec![
        (
            change(Method::POST, "/api/v1/jobs", "submit", "Submit a job and have it run.")
                .takes::<Submission>()
                .gives::<Job>(201, "The job was taken in.")
                .faulty(422)
                .faulty(409)
                .may(&[400, 415]),
            post(change::submit),
        ),
        (
            operation(Method::POST, "/api/v1/check", "check", "Validate a file without submitting it.")
                .scope(Scope::Submit)
                .takes::<Submission>()
                .gives::<Checked>(200, "The file is right.")
                .faulty(422)
                .may(&[400, 415]),
            post(change::check),
        ),
        (
            change(Method::POST, "/api/v1/jobs/{id}/stop", "stop", "Stop a job.")
                .takes::<StopRequest>()
                .gives::<Job>(202, "The job was asked to stop, or is at rest.")
                .may(&[400, 404, 409, 415, 422]),
            post(change::stop),
        ),
        (
            change(Method::POST, "/api/v1/jobs/{id}/start", "start", "Have a job run that is at rest.")
                .gives::<Job>(202, "The job starts, or runs.")
                .may(&[400, 404, 409]),
            post(change::start),
        ),
        (
            change(Method::POST, "/api/v1/jobs/{id}/restart", "restart", "Stop a job and start it again.")
                .takes::<RestartRequest>()
                .gives::<Job>(202, "The job was asked to stop, and will start.")
                .may(&[400, 404, 409, 415, 422]),
            post(change::restart),
        ),
        (
            change(Method::PUT, "/api/v1/jobs/{id}/file", "upgrade", "Go over to another file, keeping the state.")
                .query("dry_run", "Only say what would change.", json!({"type": "boolean", "default": false}))
                .takes::<UpgradeRequest>()
                .gives::<Upgrade>(200, "What would change: a dry run.")
                .gives::<Upgrade>(202, "What changes; the upgrade is under way, or done where the job is at rest.")
                .faulty(422)
                .faulty(409)
                .may(&[400, 404, 415]),
            put(change::upgrade),
        ),
        (
            change(
                Method::POST,
                "/api/v1/jobs/{id}/savepoints",
                "savepoint",
                "Make a savepoint; once for each trigger.",
            )
            .takes::<SavepointRequest>()
            .gives::<Savepoint>(202, "The savepoint, which may be on its way.")
            .may(&[400, 404, 409, 415, 422]),
            post(change::savepoint),
        ),
        (
            change(Method::DELETE, "/api/v1/jobs/{id}", "delete", "Delete a job with its files, state and log.")
                .query("force", "Though it runs: end it at once.", json!({"type": "boolean", "default": false}))
                .gives::<Job>(200, "The job as it was; it is gone, or about to be.")
                .may(&[400, 404, 409]),
            delete(change::delete),
        ),
    ]
}

fn looks() -> Vec<Route> {
    let look = |path, id, summary| operation(Method::GET, path, id, summary);
    let count =
        |default: u64, maximum: u64| json!({"type": "integer", "minimum": 1, "maximum": maximum, "default": default});
    vec![
        (look("/api/v1/jobs", "jobs", "All jobs, by id.").gives::<Vec<Job>>(200, "The jobs."), get(look::jobs)),
        (look("/api/v1/jobs/{id}", "job", "One job.").gives::<Job>(200, "The job.").may(&[400, 404]), get(look::job)),
        (
            look("/api/v1/jobs/{id}/file", "job_file", "A job's file, without the secrets in it.")
                .query(
                    "version",
                    "Which version; without it the one that the job runs.",
                    json!({"type": "integer", "minimum": 1}),
                )
                .gives::<JobFile>(200, "The file.")
                .may(&[400, 404]),
            get(look::file),
        ),
        (
            look("/api/v1/jobs/{id}/plan", "job_plan", "A job's plan in words.")
                .gives::<PlanText>(200, "The plan.")
                .faulty(422)
                .may(&[400, 404]),
            get(look::plan),
        ),
        (
            look(
                "/api/v1/jobs/{id}/status",
                "job_status",
                "How a running job is: sources, graph, checkpoints, models, alerts.",
            )
            .gives::<JobStatus>(200, "How it is.")
            .may(&[400, 404, 409]),
            get(look::status),
        ),
        (
            look("/api/v1/jobs/{id}/metrics", "job_metrics", "The metrics of a running job, for Prometheus.")
                .gives_text(200, "Metrics in Prometheus' text format.")
                .may(&[400, 404, 409]),
            get(look::metrics),
        ),
        (
            look(
                "/api/v1/jobs/{id}/letters",
                "job_letters",
                "The newest dead letters of a running job, with their content.",
            )
            .query("limit", "How many.", count(100, 1000))
            .gives::<Vec<LetterStatus>>(200, "Dead letters, newest first.")
            .may(&[400, 404, 409]),
            get(look::letters),
        ),
        (
            look(
                "/api/v1/jobs/{id}/history",
                "job_history",
                "What was done with a job, and what it did: oldest first.",
            )
            .query("limit", "How many, the newest.", count(1000, 100_000))
            .gives::<Vec<Event>>(200, "The history.")
            .may(&[400, 404]),
            get(look::history),
        ),
        (
            look("/api/v1/jobs/{id}/logs", "job_logs", "The end of a job's log.")
                .query("tail", "How many lines.", count(200, 100_000))
                .query(
                    "after",
                    "What came after this place, which an earlier answer named.",
                    json!({"type": "integer", "minimum": 0}),
                )
                .gives::<Log>(200, "Lines, oldest first.")
                .may(&[400, 404]),
            get(look::logs),
        ),
        (
            look("/api/v1/jobs/{id}/savepoints", "savepoints", "A job's savepoints, oldest first.")
                .gives::<Vec<Savepoint>>(200, "The savepoints.")
                .may(&[400, 404]),
            get(look::savepoints),
        ),
        (
            look("/api/v1/jobs/{id}/savepoints/{trigger}", "savepoint_status", "How far a savepoint is.")
                .gives::<Savepoint>(200, "The savepoint.")
                .may(&[400, 404]),
            get(look::savepoint),
        ),
    ]
}

/// An operation with the parameters that its path names.
fn operation(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let named = |name, description| Parameter {
        name,
        place: Place::Path,
        description,
        required: true,
        schema: json!({"type": "string", "minLength": 1, "maxLength": 160}),
    };
    let mut parameters = Vec::new();
    if path.contains("{id}") {
        parameters.push(named("id", "The job's id."));
    }
    if path.contains("{trigger}") {
        parameters.push(named("trigger", "The savepoint's trigger."));
    }
    Operation {
        method,
        path,
        id,
        tag: "jobs",
        summary,
        scope: Some(Scope::ReadFeatures),
        parameters,
        request: None,
        responses: Vec::new(),
        problems: Vec::new(),
        changes: false,
    }
}

/// Says what an operation takes and gives, piece by piece.
trait Describe: Sized {
    fn scope(self, scope: Scope) -> Self;
    fn changing(self) -> Self;
    fn takes<T: JsonSchema>(self) -> Self;
    fn gives<T: JsonSchema>(self, status: u16, meaning: &'static str) -> Self;
    fn gives_text(self, status: u16, meaning: &'static str) -> Self;
    fn faulty(self, status: u16) -> Self;
    fn may(self, problems: &[u16]) -> Self;
    fn query(self, name: &'static str, description: &'static str, schema: Value) -> Self;
}

impl Describe for Operation {
    fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    fn changing(mut self) -> Self {
        self.changes = true;
        self.scope(Scope::Submit)
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some((JSON, schema_of::<T>()));
        self
    }

    fn gives<T: JsonSchema>(mut self, status: u16, meaning: &'static str) -> Self {
        self.responses.push((status, meaning, Some((JSON, schema_of::<T>()))));
        self
    }

    fn gives_text(mut self, status: u16, meaning: &'static str) -> Self {
        self.responses.push((status, meaning, Some((answer::TEXT, json!({"type": "string"})))));
        self
    }

    /// An error that tells of faults in the file, or of state that would be lost.
    fn faulty(mut self, status: u16) -> Self {
        let schema = schema_of::<FileProblem>();
        let meaning = if status == 409 { "Not now, or not without losing state." } else { "The file has faults." };
        self.responses.push((status, meaning, Some(("application/problem+json", schema))));
        self
    }

    fn may(mut self, problems: &[u16]) -> Self {
        self.problems.extend(problems);
        self
    }

    fn query(mut self, name: &'static str, description: &'static str, schema: Value) -> Self {
        self.parameters.push(Parameter { name, place: Place::Query, description, required: false, schema });
        self
    }
}

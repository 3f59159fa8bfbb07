//! The web console: its pages, which are part of the program, and the data that only they and programs like them read.
//!
//! [`api`] has both. Pages are plain modules without a build step, under a policy that lets them ask this server alone.
//! What is read of tables and stores is read on threads that may wait, at most a few at a time, and what was read of a
//! table is kept as long as the table has no newer version.

mod assets;
mod features;
mod letters;
mod models;
mod server;
mod source;
mod stats;
mod tables;
mod trainings;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::Semaphore;

pub use letters::Letter;
pub use source::{ConsoleJob, Source};

use crate::http::{Api, Operation, Parameter, Place, Problem, Scope, schema_of};

/// Reads that go on at a time; more wait for them.
const READS_MAX: usize = 4;
/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(20);

/// What the console tells of.
pub struct ConsoleParts {
    /// The jobs.
    pub source: Arc<dyn Source>,
    /// The server's directory, as it is shown.
    pub data: PathBuf,
    /// Names and scopes of the tokens that the server accepts; `None` where it asks for none.
    pub tokens: Option<TokenNames>,
}

/// Tells the names and scopes of tokens as they are now.
pub type TokenNames = Arc<dyn Fn() -> Vec<(String, Vec<Scope>)> + Send + Sync>;

/// The pages and the data they read.
pub fn api(parts: ConsoleParts) -> Api {
    let console = Arc::new(Console {
        parts,
        reads: Arc::new(Semaphore::new(READS_MAX)),
        tables: tables::Cache::default(),
        registries: models::Registries::default(),
        started: crate::base::format_time(crate::base::wall_clock()),
    });
    Api::default()
        .and(stats::api(&console))
        .and(letters::api(&console))
        .and(features::api(&console))
        .and(models::api(&console))
        .and(trainings::api(&console))
        .and(server::api(&console))
        .beside(assets::routes())
}

struct Console {
    parts: ConsoleParts,
    reads: Arc<Semaphore>,
    tables: tables::Cache,
    registries: models::Registries,
    started: String,
}

impl Console {
    /// The job, by its id.
    fn job(&self, id: &str) -> Result<ConsoleJob, Problem> {
        let found = self.parts.source.jobs().into_iter().find(|job| job.id == id);
        found.ok_or_else(|| {
            Problem::not_found(format!("there is no job `{id}`; GET /api/v1/jobs lists those there are"))
        })
    }

    /// Does what may wait for disks and sockets, on a thread for that, when its turn comes.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Console) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::unavailable("too much is being read just now; ask again in a moment");
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.reads).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let own = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work and not by the request: a request that is given up leaves its work behind.
            let _turn = turn;
            work(&own)
        });
        done.await.unwrap_or_else(|_| Err(Problem::internal("a defect ended this read; the server's log says more")))
    }
}

/// The plan of a job, or why it has none.
fn plan_of(job: &ConsoleJob) -> Result<&Arc<crate::plan::model::Plan>, Problem> {
    job.plan
        .as_ref()
        .map_err(|why| Problem::unprocessable(format!("the file of job `{}` cannot be read: {why}", job.id)))
}

/// An operation that reads.
fn reads(path: &'static str, id: &'static str, tag: &'static str, summary: &'static str, answer: Value) -> Operation {
    Operation {
        method: Method::GET,
        path,
        id,
        tag,
        summary,
        scope: Some(Scope::ReadFeatures),
        parameters: Vec::new(),
        request: None,
        responses: vec![(200, "What was asked for.", Some(("application/json", answer)))],
        problems: Vec::new(),
        changes: false,
    }
}

fn parameter(name: &'static str, place: Place, description: &'static str, schema: Value) -> Parameter {
    Parameter { name, place, description, required: place == Place::Path, schema }
}

fn in_path(name: &'static str, description: &'static str) -> Parameter {
    parameter(name, Place::Path, description, schema_of::<String>())
}

/// JSON that is there already.
fn json_text(body: Arc<[u8]>) -> Response {
    let kind = [(axum::http::header::CONTENT_TYPE, "application/json")];
    (StatusCode::OK, kind, axum::body::Body::from(axum::body::Bytes::from_owner(body))).into_response()
}

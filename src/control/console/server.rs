//! The server itself: its version, who asks, who may, and who changed what.

use std::sync::Arc;

use axum::extract::Query;
use axum::routing::get;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Console, parameter, reads};
use crate::http::{Api, AuditEntry, Caller, Place, Problem, Scope, schema_of};

/// Entries that are told at most.
const ENTRIES_MAX: usize = 1_000;
/// Entries that are told when nobody says how many.
const ENTRIES: usize = 200;

/// The server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Server {
    /// Version of the program.
    version: String,
    /// When it started.
    started: String,
    /// Its directory.
    data: String,
    /// Jobs that it keeps.
    jobs: usize,
    /// Who asks.
    caller: Named,
    /// Who may do what, by name; told to whoever has the scope `admin`. Empty where no token is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Named>>,
}

/// Somebody, and what they may do.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Named {
    /// Name of a token or a client's certificate.
    name: String,
    /// What it may be used for.
    scopes: Vec<Scope>,
}

/// The audit log.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Audit {
    /// The newest first.
    entries: Vec<AuditEntry>,
}

#[derive(Deserialize)]
struct Asked {
    limit: Option<usize>,
}

pub(super) fn api(console: &Arc<Console>) -> Api {
    let server = reads("/api/v1/server", "server", "server", "The server: version, data, who asks.", schema_of::<Server>());
    let mut audit = reads("/api/v1/audit", "audit", "server", "Who changed what.", schema_of::<Audit>());
    audit.scope = Some(Scope::Admin);
    let limit = json!({"type": "integer", "minimum": 1, "maximum": ENTRIES_MAX, "default": ENTRIES});
    audit.parameters = vec![parameter("limit", Place::Query, "So many at most.", limit)];
    audit.problems = vec![400];
    let (for_server, for_audit) = (Arc::clone(console), Arc::clone(console));
    Api::default()
        .with(
            server,
            get(async move |Extension(caller): Extension<Caller>| -> Result<Json<Server>, Problem> {
                for_server.read(move |console| Ok(console.server(&caller))).await.map(Json)
            }),
        )
        .with(
            audit,
            get(async move |Query(asked): Query<Asked>| -> Result<Json<Audit>, Problem> {
                let limit = asked.limit.unwrap_or(ENTRIES);
                if !(1..=ENTRIES_MAX).contains(&limit) {
                    return Err(Problem::bad_request(format!("`limit` is {limit}; write 1 to {ENTRIES_MAX}")));
                }
                let unread = |error: std::io::Error| Problem::unavailable(format!("the audit log cannot be read: {error}"));
                let entries = for_audit.read(move |console| console.parts.audit.newest(limit).map_err(unread)).await?;
                Ok(Json(Audit { entries }))
            }),
        )
}

impl Console {
    fn server(&self, caller: &Caller) -> Server {
        let named = |(name, scopes): (String, Vec<Scope>)| Named { name, scopes };
        let tokens = || match &self.parts.tokens {
            Some(tokens) => tokens().into_iter().map(named).collect(),
            None => Vec::new(),
        };
        Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            data: self.parts.data.display().to_string(),
            jobs: self.parts.source.jobs().len(),
            caller: Named { name: caller.name.clone(), scopes: caller.scopes.clone() },
            tokens: caller.may(Scope::Admin).then(tokens),
        }
    }
}

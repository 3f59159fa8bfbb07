//! The server itself: its version, who asks, and who may do what. Who changed what is told by the server's audit log.

use std::sync::Arc;

use axum::Extension;
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::wire::Json;
use super::{Console, reads};
use crate::http::{Api, Caller, Problem, Scope, schema_of};

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

pub(super) fn api(console: &Arc<Console>) -> Api {
    let server =
        reads("/api/v1/server", "server", "server", "The server: version, data, who asks.", schema_of::<Server>());
    let for_server = Arc::clone(console);
    Api::default().with(
        server,
        get(async move |Extension(caller): Extension<Caller>| -> Result<Json<Server>, Problem> {
            for_server.read(move |console| Ok(console.server(&caller))).await.map(Json)
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

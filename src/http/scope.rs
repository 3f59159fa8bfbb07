//! What a token may be used for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a route asks of its caller. [`Scope::Admin`] has all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To read features, and what the console shows.
    ReadFeatures,
    /// To have rows scored.
    Predict,
    /// To submit, stop and change jobs.
    Submit,
    /// Everything, tokens and the audit log included.
    Admin,
}

impl Scope {
    /// As files and messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Scope::ReadFeatures => "read_features",
            Scope::Predict => "predict",
            Scope::Submit => "submit",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who made a request; an extension of every request that reaches a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token or of the client's certificate; `anonymous` where neither is asked for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Caller {
    /// Whoever reaches a server that asks for no token: may do everything.
    pub fn anonymous() -> Caller {
        Caller { name: "anonymous".to_owned(), scopes: vec![Scope::Admin] }
    }

    /// Whether the caller may use a route of this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|&own| own == scope || own == Scope::Admin)
    }
}

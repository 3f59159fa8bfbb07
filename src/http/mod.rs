//! HTTP as every server here speaks it: routes with their scopes, one shape of errors, an OpenAPI document, and the server.
//!
//! An [`Api`] is a list of [`Operation`]s with their handlers. The router and the OpenAPI document are made of the same list,
//! so that neither knows of a route that the other does not. [`HttpServer`] serves one: it finds out who asks and leaves a
//! [`Caller`] with the request, keeps everybody within limits, counts, and writes down who changed what.

mod audit;
mod body;
mod certificate;
mod connection;
mod context;
mod error;
mod figures;
mod gate;
mod options;
mod own;
mod problem;
mod rate;
mod route;
mod scope;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

pub use audit::{AuditEntry, AuditLog};
pub use context::Peer;
pub use error::HttpError;
pub use options::{Limits, ServerOptions};
pub use own::audit_api;
pub use problem::Problem;
pub use rate::Rate;
pub use route::{Api, Operation, Parameter, Place, schema_of};
pub use scope::{Caller, Scope};
pub use server::HttpServer;
pub use tls::TlsFiles;

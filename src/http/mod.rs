//! HTTP as every server here speaks it: routes with their scopes, one shape of errors, an OpenAPI document.
//!
//! An [`Api`] is a list of [`Operation`]s with their handlers. The router and the OpenAPI document are made of the same list,
//! so that neither knows of a route that the other does not.

mod problem;
mod route;
mod scope;

pub use problem::Problem;
pub use route::{Api, Operation, Parameter, Place, schema_of};
pub use scope::{Caller, Scope};

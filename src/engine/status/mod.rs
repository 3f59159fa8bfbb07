//! What a running job tells of itself to those who steer it: the words of its control socket.

//!
//! Layers, bottom-up: [`JobStatus`] and its like, the words; `flow`, `letters` and `history`, what is kept while the job runs;
//! `window`, rates; `savepoints`, taken while the job runs; `collect`, the status; `routes` and `door`, HTTP on a socket.

mod collect;
mod door;
pub(super) mod flow;
pub(super) mod history;
pub(super) mod letters;
mod routes;
pub(super) mod savepoints;
mod types;
mod window;

use std::sync::Arc;

pub(super) use collect::{Control, Fixed};
pub(super) use door::Door;
pub use door::{CONTROL_FILE, find_control};
pub use savepoints::{SavepointError, savepoint, savepoints as savepoint_records};
pub use types::*;

use axum::Router;

use super::Telemetry;

/// All routes of a job's socket.
pub(super) fn router(control: &Arc<Control>, telemetry: Option<&Telemetry>) -> Router {
    let routes = routes::routes(Arc::clone(control));
    match telemetry {
        Some(telemetry) => {
            routes.merge(crate::telemetry::server::routes(telemetry.registry(), telemetry.health(), None))
        }
        None => routes,
    }
}

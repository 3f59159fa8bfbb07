//! What a process tells of itself to those who scrape it: metrics in Prometheus' text formats, over HTTP.
//!
//! Layers, bottom-up:
//! - [`metric`]: families of samples, gathered anew for each scrape. Nothing is counted here that is counted elsewhere: a
//!   [`Collector`] reads what a room counts anyway.
//! - [`Histogram`]: the one kind that has to be recorded as it happens.
//! - [`text`]: the two text formats.
//! - [`process`]: processor time, memory and free disk of this process.
//! - [`server`]: `GET /metrics`, `/health`, `/ready`.

mod histogram;
mod log_file;
pub mod metric;
pub mod process;
pub mod server;
#[cfg(test)]
mod tests;
pub mod text;

pub use histogram::{Buckets, Histogram};
pub use log_file::{log_to_file, older as older_log};
pub use metric::{Collector, Description, Kind, Metrics, Registry};
pub use server::{Health, MetricsServer, ServerError, ServerOptions, ServerThread, Token};
pub use text::Format;

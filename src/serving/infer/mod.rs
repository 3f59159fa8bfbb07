//! Scores by the Open Inference Protocol (version 2), as Triton's clients speak it: HTTP with JSON or bytes, and gRPC on the same port.
//!
//! Models are those of the served jobs and of a registry; inputs and outputs are the ONNX file's own tensors, and scores are those of the stream to the bit.
//!
//! Layers, bottom-up: `datatype`, values from and to bytes and JSON; `request`, what a client asks and whether a model can take it; `queue`, which
//! requests are scored together; `cache` and `stats`; `catalogue`, which models there are; `models`, those that are loaded; `pool`, the
//! threads that score; `service`, all of it without a protocol; `json` and `http`, `messages` and `grpc`, the two
//! protocols; `metrics`.

mod cache;
mod catalogue;
mod datatype;
mod error;
mod grpc;
mod http;
mod json;
#[allow(missing_docs, reason = "the names are those of the protocol")]
mod messages;
mod metrics;
mod models;
mod options;
mod pool;
mod queue;
mod request;
mod service;
mod stats;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use error::InferError;
pub use options::{Options, Settings};
pub use service::Infer;

use super::Jobs;
use crate::http::Api;
use crate::telemetry::Registry;

/// The routes of the protocol for the models of these jobs and of the options' registry; gRPC is beside them. What is
/// counted is told to `registry`.
///
/// # Errors
/// When the system gives no threads.
pub fn api(jobs: Arc<dyn Jobs>, options: Options, registry: &Registry) -> std::io::Result<Api> {
    Ok(api_of(&Infer::start(jobs, options)?, registry))
}

/// As [`api`], of a service that is started already.
pub fn api_of(infer: &Arc<Infer>, registry: &Registry) -> Api {
    metrics::register(infer, registry);
    http::api(infer).beside(grpc::router(infer))
}

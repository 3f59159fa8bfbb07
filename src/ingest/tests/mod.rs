//! Tests of whole sources: files in, batches and dead letters out.

mod bad_input;
mod equal;
mod fuzz;
mod job;
pub(crate) mod kit;
mod parquet;
mod throughput;

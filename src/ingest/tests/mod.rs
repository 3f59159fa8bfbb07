//! Tests of whole sources: files in, batches and dead letters out.

mod bad_input;
mod equal;
pub(crate) mod kit;
mod parquet;

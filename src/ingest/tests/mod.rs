//! Tests of whole sources: files in, batches and dead letters out.

pub(crate) mod kit;
mod parquet;

//! Tidemill: streaming features, in-graph model scores and the tables that prove them, in one program.

pub mod base;
pub mod bench;
pub mod engine;
pub mod features;
pub mod ingest;
pub mod ops;
pub mod plan;
pub mod score;
pub mod store;

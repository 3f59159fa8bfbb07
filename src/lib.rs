#![doc = include_str!("ARCHITECTURE.md")]

pub mod base;
pub mod bench;
pub mod cli;
pub mod engine;
pub mod features;
pub mod ingest;
pub mod kafka;
pub mod monitor;
pub mod ops;
pub mod plan;
pub mod report;
pub mod score;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod train;

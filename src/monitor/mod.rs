//! What is watched of models: how good predictions turn out to be as labels arrive, whether inputs drift, whether rows are
//! sound, and who is told.
//!
//! Layers, bottom-up: [`stat`], a statistic as it is told, in tables, topics and on pages; [`drift`], columns held
//! against a reference, and the quality of rows.

pub mod drift;
pub mod stat;

pub use stat::{Stat, StatKind, stat_batch, stat_schema};

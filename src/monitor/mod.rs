//! What is watched of models: how good predictions turn out to be as labels arrive, whether inputs drift, whether rows are
//! sound, and who is told.
//!
//! Layers, bottom-up: [`stat`], a statistic as it is told, in tables, topics and on pages; [`windows`], when statistics are
//! told; [`matches`], predictions and what labels say of them; [`detect`], changes in a stream of errors; [`alert`], what becomes
//! of statistics that are wrong.

pub mod alert;
pub mod detect;
pub mod matches;
pub mod stat;
pub mod windows;

pub use stat::{Stat, StatKind, stat_batch, stat_schema};

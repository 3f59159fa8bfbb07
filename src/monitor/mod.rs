//! What is watched of models: how good predictions turn out to be as labels arrive, whether inputs drift, whether rows are
//! sound, and who is told.
//!
//! Layers, bottom-up: [`stat`], a statistic as it is told, in tables, topics and on pages; [`history`], what was told over
//! time.

pub mod history;
pub mod stat;

pub use history::{History, Series, Told, stats_of};
pub use stat::{Stat, StatKind, stat_batch, stat_schema};

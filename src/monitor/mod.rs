//! What is watched of models: how good predictions turn out to be as labels arrive, whether inputs drift, whether rows are
//! sound, and who is told.
//!
//! Layers, bottom-up: [`stat`], a statistic as it is told, in tables, topics and on pages; [`history`], what was told over
//! time; [`windows`], which window a time is in and when it is told; [`matches`](mod@matches), predictions and the labels that come for
//! them; [`accuracy`], what labels say of predictions; [`drift`], columns held against a reference, and the quality of rows;
//! [`detect`], changes in a stream of errors; [`alert`], what becomes of statistics that are wrong.

pub mod accuracy;
pub mod alert;
pub mod detect;
pub mod drift;
pub mod history;
pub mod matches;
pub mod stat;
pub mod windows;

pub use history::{History, Series, Told, stats_of};
pub use stat::{Stat, StatKind, stat_batch, stat_schema};

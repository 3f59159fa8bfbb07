//! Models from tables: training sets, learners, tuning, evaluation, export.
//!
//! Batch work, no dataflow: a [`data::Set`] in memory, a learner that makes a [`model::Fitted`] of it, and what judges and
//! writes the result. The same data and seed give the same model bit for bit, on any number of threads.

pub mod card;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod explain;
pub mod forest;
pub mod gbdt;
pub mod learner;
pub mod metrics;
pub mod model;
pub mod predict;
pub mod split;
pub mod tree;
pub mod tune;

//! Models from tables: training sets, learners, tuning, evaluation, export.
//!
//! Batch work, no dataflow: a [`data::Set`] in memory, a learner that makes a [`model::Fitted`] of it, and what judges and
//! writes the result. The same data and seed give the same model bit for bit, on any number of threads.

mod bins;
mod cart;
pub mod data;
pub mod error;
pub mod forest;
pub mod gbdt;
mod grow;
mod histogram;
pub mod learner;
mod loss;
pub mod model;
mod parallel;
pub mod predict;
mod rank;
pub mod tree;

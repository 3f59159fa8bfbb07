//! Models from tables: training sets, learners, tuning, evaluation, export.
//!
//! Batch work, no dataflow: a [`data::Set`] in memory, a learner that makes a [`model::Fitted`] of it, and what judges and
//! writes the result. The same data and seed give the same model bit for bit, on any number of threads.

mod algebra;
mod bins;
pub mod card;
mod cart;
pub mod check;
pub mod data;
mod dense;
pub mod error;
pub mod evaluate;
pub mod explain;
pub mod forest;
pub mod gbdt;
mod grow;
#[cfg(test)]
mod handbook;
mod histogram;
pub mod learner;
pub mod linear;
#[cfg(test)]
mod linear_tests;
pub mod logistic;
mod loss;
pub mod metrics;
mod minimise;
pub mod model;
pub mod onnx;
mod parallel;
pub mod pipeline;
#[cfg(test)]
mod pipeline_tests;
pub mod predict;
pub mod prepare;
mod probe;
mod rank;
pub mod set;
pub mod split;
pub mod tree;
pub mod tune;

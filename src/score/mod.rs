//! ONNX models and their scores.
//!
//! [`Model::load`] reads a file, names any operator that nothing here computes, and finds out the outputs' widths. [`Model::bind`] checks the
//! columns of a feature set against the inputs. [`Bound::scorer`] makes the thing that scores batches, one per thread.
//!
//! Layers, bottom up: `tensor`, `math`, `proto`; `post`; `kernels` and `tree`, an operator each; `graph`, the list of
//! steps; `neural`, tract for graphs with operators that only it has; `model`, `bind` and `scorer`; `runner`, tensors instead of columns; [`routes`], rows
//! scored by two versions and [`files`], Parquet in and out, on top.
//!
//! **A row's score depends on the row and the model alone**: not on the batch, the thread, or the processor's instruction set. Every kernel sums in
//! one fixed order without fused multiply-add, elementary functions are our own, and a model that mixes rows is refused when it is loaded.

mod bind;
mod error;
pub mod files;
mod graph;
mod kernels;
pub(crate) mod math;
mod model;
mod neural;
mod post;
mod proto;
pub mod routes;
pub(crate) mod runner;
mod scorer;
pub(crate) mod tensor;
#[cfg(test)]
mod tests;
mod tree;

pub use bind::Bound;
pub use error::ScoreError;
pub use model::{COLUMNS, Element, MISSING_TEXT, Model, TensorInfo};
pub use scorer::{Scorer, Scores};

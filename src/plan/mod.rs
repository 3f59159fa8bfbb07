//! The dataflow file: types, expressions, validation, and the compiled plan.

pub mod expr;
pub mod model;

//! Statistics that may be looked at after every row, and the fixed ones beside them.
//!
//! Layers, bottom-up: [`moments`], exact sums; [`sequence`], intervals and p-values that hold at every look; [`compare`], two
//! versions by their losses; [`ratio`], shares of rows; [`fixed`], tests with one look; [`passage`], how long a sequential test
//! takes; [`size`], how many rows an experiment needs.

pub mod compare;
pub mod fixed;
pub mod moments;
pub mod passage;
pub mod ratio;
pub mod sequence;
pub mod size;

#[cfg(test)]
mod tests;

//! Statistics that may be looked at after every row, and the fixed ones beside them.
//!
//! Layers, bottom-up: [`moments`], exact sums; [`sequence`], intervals and p-values that hold at every look; [`compare`], two
//! versions by their losses; [`ratio`], shares of rows.

pub mod compare;
pub mod moments;
pub mod ratio;
pub mod sequence;

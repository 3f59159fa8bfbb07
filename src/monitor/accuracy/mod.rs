//! How good predictions turn out to be: the statistics' graph without timely.
//!
//! Layers, bottom-up: [`sums`], floats whose sums can be taken back; [`counts`], what is counted of
//! a group; [`items`], what flows; [`feed`], changes of matches
//! until they are told; [`measure`], statistics of a group; [`segments`], the values of a segment that are told apart;
//! [`told`], what was told. The engine puts the graph between them.

mod binary;

mod classes;
pub mod counts;
pub mod feed;
pub mod items;
pub mod measure;
pub mod segments;
pub mod sums;
pub mod told;

#[cfg(test)]
mod tests;

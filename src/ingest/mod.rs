//! Sources, decoding, checks, dead letters.

pub mod generator;

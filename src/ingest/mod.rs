//! Sources, decoding, checks, dead letters.

pub mod ticks;

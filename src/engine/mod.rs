//! Builds the timely graph from a plan and runs it.

pub mod observe;

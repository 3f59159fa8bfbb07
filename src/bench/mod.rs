//! Benchmarks: the workloads, the hand-written loops that they are held against, and the runs themselves.

pub mod w1_data;
pub mod windows_baseline;

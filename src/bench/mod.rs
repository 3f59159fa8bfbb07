//! The reproducible benchmarks: each measures a plan compiled as any other beside a baseline in the same run.

pub mod chaos;
pub mod checkpoints;
mod checksum;
pub mod dataset;
pub mod decode;
pub mod detectors;
pub mod drift;
pub mod end_to_end;
mod end_to_end_baseline;
pub mod end_to_end_kafka;
pub mod fit;
pub mod labels;
pub mod online;
pub mod recovery;
pub mod rollouts;
pub mod score;
mod score_models;
pub mod serving;
pub mod serving_infer;
pub mod w1_data;
pub mod windows;
pub mod windows_baseline;

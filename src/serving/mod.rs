//! Answers for jobs, whether they run or not: features by entity, and scores by entity and request.

pub mod infer;
mod jobs;
pub mod online;

pub use jobs::{FixedJobs, Jobs, JoinedJobs, ServedJob};

//! Answers for jobs, whether they run or not: features by entity, and scores by entity and request.

mod jobs;
pub mod online;

pub use jobs::{FixedJobs, Jobs, JoinedJobs, ServedJob};

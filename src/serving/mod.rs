//! Answers for jobs, whether they run or not: features by entity, and scores by entity and request.

mod jobs;

pub use jobs::{FixedJobs, Jobs, ServedJob};

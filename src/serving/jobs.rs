//! Which jobs a server answers for.

use std::path::PathBuf;
use std::sync::Arc;

use crate::plan::model::Plan;

/// The jobs that are served now.
pub trait Jobs: Send + Sync {
    /// All of them. The list is replaced as jobs come and go; as long as nothing changed it is the same `Arc`, so that what
    /// is derived of it may be kept.
    fn list(&self) -> Arc<[ServedJob]>;
}

/// A job that is served.
#[derive(Clone, Debug)]
pub struct ServedJob {
    /// Name under which it is served.
    pub job: String,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Where its state is; `None` if it never ran here.
    pub state_dir: Option<PathBuf>,
}

/// A list that does not change: jobs that are served without being run.
#[derive(Clone, Debug)]
pub struct FixedJobs(Arc<[ServedJob]>);

impl FixedJobs {
    /// These jobs.
    pub fn new(jobs: Vec<ServedJob>) -> FixedJobs {
        FixedJobs(jobs.into())
    }
}

impl Jobs for FixedJobs {
    fn list(&self) -> Arc<[ServedJob]> {
        self.0.clone()
    }
}

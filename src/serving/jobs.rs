//! Which jobs a server answers for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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

/// The jobs of several lists, one after the other. Of two of one name the first counts.
pub struct JoinedJobs {
    of: Vec<Arc<dyn Jobs>>,
    /// The lists as they were, and what was made of them.
    joined: Mutex<Joined>,
}

type Joined = (Vec<Arc<[ServedJob]>>, Arc<[ServedJob]>);

impl JoinedJobs {
    /// The jobs of these lists.
    pub fn new(of: Vec<Arc<dyn Jobs>>) -> JoinedJobs {
        JoinedJobs { of, joined: Mutex::new((Vec::new(), Vec::new().into())) }
    }
}

impl Jobs for JoinedJobs {
    fn list(&self) -> Arc<[ServedJob]> {
        let lists: Vec<Arc<[ServedJob]>> = self.of.iter().map(|jobs| jobs.list()).collect();
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let same = joined.0.len() == lists.len() && joined.0.iter().zip(&lists).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            let mut all: Vec<ServedJob> = Vec::new();
            for job in lists.iter().flat_map(|list| list.iter()) {
                if !all.iter().any(|known| known.job == job.job) {
                    all.push(job.clone());
                }
            }
            *joined = (lists, all.into());
        }
        Arc::clone(&joined.1)
    }
}

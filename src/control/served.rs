//! The managed jobs, for whoever answers for jobs: of each name the one that runs, or ran last.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::entry::Entry;
use super::manager::Manager;
use super::model::Job;
use crate::serving::{Jobs, ServedJob};

/// The jobs of a server.
pub struct Served {
    manager: Manager,
    list: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// The manager's count of changes that the list was made at.
    at: u64,
    list: Arc<[ServedJob]>,
}

impl Served {
    /// The jobs of a server.
    pub fn new(manager: Manager) -> Served {
        Served { manager, list: Mutex::default() }
    }
}

impl Jobs for Served {
    fn list(&self) -> Arc<[ServedJob]> {
        let mut made = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the jobs are: what changes meanwhile is seen the next time.
        let at = self.manager.shared.changes.load(Ordering::Acquire);
        if made.at == at {
            return Arc::clone(&made.list);
        }
        let mut chosen: BTreeMap<String, (Job, Arc<Entry>)> = BTreeMap::new();
        for entry in self.manager.entries() {
            let job = entry.job();
            let better = chosen.get(&job.name).is_none_or(|(other, _)| rank(&job) > rank(other));
            if better {
                chosen.insert(job.name.clone(), (job, entry));
            }
        }
        let mut list: Vec<ServedJob> = Vec::new();
        for (job, entry) in chosen.values() {
            match entry.plan() {
                Ok(plan) => {
                    list.push(ServedJob { job: job.name.clone(), plan, state_dir: Some(entry.dir.state()) });
                }
                Err(error) => tracing::warn!(job = job.id, %error, "the job is not served"),
            }
        }
        *made = Made { at, list: list.into() };
        Arc::clone(&made.list)
    }
}

/// One that runs is better than one that does not, and the newer is better than the older.
fn rank(job: &Job) -> (bool, String, u64) {
    let number = job.id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    (!job.state.at_rest(), job.created.clone(), number)
}

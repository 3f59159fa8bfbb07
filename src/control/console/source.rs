//! What the console sees of the server's jobs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::control::Manager;
use crate::engine::status::LetterStatus;
use crate::plan::model::Plan;

/// The jobs that a console tells of. Its calls may wait for disks and sockets.
pub trait Source: Send + Sync {
    /// All jobs, in the order of their ids.
    fn jobs(&self) -> Vec<ConsoleJob>;

    /// The newest dead letters that the job's process has in memory, at most `limit`; `None` where none answers.
    fn letters(&self, job: &ConsoleJob, limit: usize) -> Option<Vec<LetterStatus>>;
}

/// One job.
#[derive(Clone, Debug)]
pub struct ConsoleJob {
    /// Its id, unique on the server.
    pub id: String,
    /// Its name in its file.
    pub name: String,
    /// What its file says, or why that cannot be read.
    pub plan: Result<Arc<Plan>, String>,
    /// Its state directory.
    pub state: PathBuf,
}

impl Source for Manager {
    fn jobs(&self) -> Vec<ConsoleJob> {
        let jobs = self.entries().into_iter().map(|entry| ConsoleJob {
            name: entry.job().name,
            plan: entry.plan().map_err(|error| error.to_string()),
            state: entry.dir.state(),
            id: entry.id.clone(),
        });
        jobs.collect()
    }

    fn letters(&self, job: &ConsoleJob, limit: usize) -> Option<Vec<LetterStatus>> {
        Manager::letters(self, &job.id, u32::try_from(limit).unwrap_or(u32::MAX)).ok()
    }
}

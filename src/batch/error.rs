//! What can go wrong with batch jobs.

use std::path::{Path, PathBuf};

use crate::base::{Blame, Faults};

/// Why a batch job cannot be queued, run or told of.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The file has faults.
    #[error(transparent)]
    File(#[from] Faults),
    /// A file of the queue cannot be read or written.
    #[error("cannot {action} {path}: {source}; steps that were done are safe: mend the disk and resume the job")]
    Disk {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of the queue does not hold what it should.
    #[error("{path} is damaged: {what}; take the job's directory away and submit it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no such job.
    #[error("the queue {queue} has no job `{id}`; it has {has}")]
    Unknown {
        /// The queue.
        queue: PathBuf,
        /// What was asked for.
        id: String,
        /// What is there.
        has: String,
    },
    /// Another process runs the job.
    #[error("job `{id}` is run by another process{who}; `tidemill train --cancel {id}` ends it")]
    Taken {
        /// The job.
        id: String,
        /// ` (12345)`, where it is known.
        who: String,
    },
    /// What was asked for does not go with how the job stands.
    #[error("{0}")]
    Refused(String),
    /// A program cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl BatchError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            BatchError::File(_) | BatchError::Unknown { .. } | BatchError::Refused(_) => Blame::User,
            BatchError::Disk { .. } | BatchError::Damaged { .. } => Blame::Outside,
            BatchError::Taken { .. } | BatchError::Start { .. } => Blame::Outside,
        }
    }

    /// An error of the disk.
    pub(super) fn disk(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BatchError {
        let path = path.to_owned();
        move |source| BatchError::Disk { action, path, source }
    }

    /// A damaged file.
    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> BatchError {
        BatchError::Damaged { path: path.to_owned(), what: what.into() }
    }
}

/// Why an attempt of a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Something outside that may be better next time.
    #[error("{0}")]
    Again(String),
    /// It would fail again.
    #[error("{0}")]
    Hopeless(String),
}

impl StepError {
    /// A failure that another attempt may mend.
    pub fn again(what: impl ToString) -> StepError {
        StepError::Again(what.to_string())
    }

    /// A failure that no attempt mends.
    pub fn hopeless(what: impl ToString) -> StepError {
        StepError::Hopeless(what.to_string())
    }
}

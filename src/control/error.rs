//! What can go wrong with a job that a server keeps.

use std::path::{Path, PathBuf};

use crate::base::Faults;
use crate::engine::{Changes, EngineError};
use crate::state::StateError;

/// Why something asked of a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such job, version or savepoint.
    #[error("{0}")]
    NotFound(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The job's file is not right.
    #[error("the job's file has faults")]
    Faults(Faults),
    /// A changed file would lose state.
    #[error("state would be lost:\n{}put back what is missing, or accept the loss with `allow_drop`", .0.text())]
    Loss(Changes),
    /// Not in the state that the job is in.
    #[error("{0}")]
    Conflict(String),
    /// The job's process does not answer, or there is none.
    #[error("{0}")]
    Away(String),
    /// A file of the server's own cannot be read or written.
    #[error("{}: {error}; see that the server may write there and that the disk is not full", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of the server's own is not as it was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A savepoint cannot be written or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// What the engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ControlError {
    /// A file that cannot be read or written.
    pub(super) fn disk(path: &Path, error: std::io::Error) -> ControlError {
        ControlError::Disk { path: path.to_owned(), error }
    }
}

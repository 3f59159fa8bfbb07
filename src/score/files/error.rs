//! What can go wrong with scoring files.

use std::path::PathBuf;

use crate::base::Blame;
use crate::score::ScoreError;

/// An error of scoring files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// What was asked for does not fit: columns, types, names.
    #[error("{0}")]
    Request(String),
    /// A file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {why}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The model cannot score.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// It was asked to end.
    #[error("stopped; files that are whole stay, and the same command goes on with the others")]
    Stopped,
}

impl FilesError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            FilesError::Request(_) | FilesError::Stopped => Blame::User,
            FilesError::Read { .. } | FilesError::Write { .. } => Blame::Outside,
            FilesError::Score(error) => error.blame(),
        }
    }
}

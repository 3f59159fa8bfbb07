//! What can end a job.

use std::path::PathBuf;

use arrow::error::ArrowError;

use crate::base::Blame;
use crate::features::view::ViewError;
use crate::ingest::IngestError;
use crate::ingest::ticks::TickLogError;
use crate::registry::RegistryError;
use crate::score::ScoreError;
use crate::state::StateError;
use crate::store::StoreError;

/// The first failure of a job.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A source cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A store cannot be written or opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model cannot be loaded or run.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A registered model cannot be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The tick log cannot be written.
    #[error(transparent)]
    TickLog(#[from] TickLogError),
    /// State cannot be saved, restored or taken over.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state directory cannot be made.
    #[error("cannot make the state directory {}: {error}; give --state a directory that may be written", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// What was recorded can neither be proven nor refuted.
    #[error("{0}")]
    Unprovable(String),
    /// Worker threads could not be started or joined.
    #[error("worker threads failed: {0}")]
    Workers(String),
    /// The plan does not fit what it names (found by `check` first).
    #[error("{0}")]
    Plan(String),
    /// A view cannot be computed as planned.
    #[error(transparent)]
    View(#[from] ViewError),
    /// It was told to end at once.
    #[error("the job was told to end at once, without a checkpoint")]
    EndedNow,
    /// A defect of Tidemill.
    #[error("this is a defect of tidemill, please report it: {0}")]
    Defect(String),
}

impl EngineError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            EngineError::Ingest(error) => error.blame(),
            EngineError::Store(error) => error.blame(),
            EngineError::State(error) => error.blame(),
            EngineError::Registry(error) => error.blame(),
            EngineError::EndedNow
            | EngineError::Score(_)
            | EngineError::Plan(_)
            | EngineError::View(_)
            | EngineError::Unprovable(_) => Blame::User,
            EngineError::TickLog(_) | EngineError::StateDir { .. } => Blame::Outside,
            EngineError::Workers(_) | EngineError::Defect(_) => Blame::Ours,
        }
    }

    pub(super) fn defect(what: impl Into<String>) -> Self {
        EngineError::Defect(what.into())
    }

    pub(super) fn arrow(error: ArrowError) -> Self {
        EngineError::Defect(error.to_string())
    }
}

//! What can stop a source: only what concerns a whole file or the machine. Bad rows are dead letters, never errors.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

use super::registry::RegistryError;
use crate::base::Blame;

/// An error that stops a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A file cannot be opened.
    #[error("source `{source_name}`: cannot open {}: {error}; give the file or take it out of `path`", path.display())]
    Open {
        /// Source in the dataflow file.
        source_name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file that was opened cannot be read on.
    #[error("source `{source_name}`: cannot read {} any further: {error}; when the disk answers again, run the job again", path.display())]
    Read {
        /// Source in the dataflow file.
        source_name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what the source says it is: damaged as a whole, another format, other columns.
    #[error("source `{source_name}`: {}: {what}; {mend}", path.display())]
    File {
        /// Source in the dataflow file.
        source_name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// How to mend it.
        mend: String,
    },
    /// The source asks for something that its connector does not do.
    #[error("source `{source_name}`: {what}")]
    Source {
        /// Source in the dataflow file.
        source_name: String,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// The schema registry of a source's messages is of no help.
    #[error("source `{source_name}`: {error}")]
    Registry {
        /// Source in the dataflow file.
        source_name: String,
        /// Why.
        error: RegistryError,
    },
    /// Brokers do not let a job in when it starts.
    #[error("source `{source_name}`: the brokers at {brokers} do not let it in: {why}")]
    Refused {
        /// Source in the dataflow file.
        source_name: String,
        /// The brokers.
        brokers: String,
        /// What they or librdkafka said, and what to mend.
        why: String,
    },
    /// Brokers do not answer when a job starts.
    #[error("source `{source_name}`: the brokers at {brokers} do not answer: {error}; start them, or mend `brokers`")]
    Broker {
        /// Source in the dataflow file.
        source_name: String,
        /// The brokers.
        brokers: String,
        /// What librdkafka said.
        error: String,
    },
    /// Messages that come next are no longer there.
    #[error(
        "source `{source_name}`: offset {offset} of partition {partition} of topic `{topic}` is not there any more: {held}; what is gone cannot be read: keep messages for longer (`retention.ms`), and begin anew from what is there"
    )]
    Expired {
        /// Source in the dataflow file.
        source_name: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u16,
        /// The offset that comes next.
        offset: u64,
        /// What the partition holds, in words.
        held: String,
    },
    /// What a checkpoint holds of the sources is of no use.
    #[error("the checkpoint's sources: {what}; restore from an older checkpoint")]
    Checkpoint {
        /// What is wrong with it.
        what: String,
    },
    /// Arrow refused what this room built.
    #[error("source `{source_name}`: this is a defect of tidemill, please report it: {error}")]
    Internal {
        /// Source in the dataflow file.
        source_name: String,
        /// What Arrow said.
        error: ArrowError,
    },
}

impl IngestError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            IngestError::Open { .. }
            | IngestError::File { .. }
            | IngestError::Source { .. }
            | IngestError::Refused { .. } => Blame::User,
            IngestError::Registry { error, .. } => error.blame(),
            IngestError::Read { .. }
            | IngestError::Broker { .. }
            | IngestError::Expired { .. }
            | IngestError::Checkpoint { .. } => Blame::Outside,
            IngestError::Internal { .. } => Blame::Ours,
        }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            IngestError::Read { .. } | IngestError::Broker { .. } => true,
            IngestError::Registry { error, .. } => error.retryable(),
            _ => false,
        }
    }

    pub(crate) fn file(source: &str, path: &Path, what: impl Into<String>, mend: impl Into<String>) -> Self {
        IngestError::File { source_name: source.into(), path: path.into(), what: what.into(), mend: mend.into() }
    }

    pub(crate) fn source(source: &str, what: impl Into<String>) -> Self {
        IngestError::Source { source_name: source.into(), what: what.into() }
    }

    pub(crate) fn registry(source: &str, error: RegistryError) -> Self {
        IngestError::Registry { source_name: source.into(), error }
    }

    pub(crate) fn internal(source: &str, error: ArrowError) -> Self {
        IngestError::Internal { source_name: source.into(), error }
    }
}

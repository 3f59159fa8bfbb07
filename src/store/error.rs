//! Errors of the stores.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::base::Blame;

/// What can go wrong in a store. Every variant names the place.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `write`, `sync`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A Delta table could not be read or changed.
    #[error("delta table {table}: {source}")]
    Delta {
        /// The table's directory.
        table: String,
        /// The cause, as the Delta library tells it.
        source: Box<delta_kernel::KernelError>,
    },
    /// A Parquet file could not be written or read.
    #[error("parquet file {file}: {source}")]
    Parquet {
        /// The file.
        file: String,
        /// The cause.
        source: ParquetError,
    },
    /// There is no Delta table in a directory.
    #[error("there is no delta table in {0}; run the job that writes it, or correct the path")]
    NoTable(String),
    /// An existing table does not take the rows that a job writes.
    #[error("table {table} does not fit the job: {reason}")]
    Schema {
        /// The table's name or directory.
        table: String,
        /// What differs, and how to mend it.
        reason: String,
    },
    /// Rows do not have the form that a table or view was declared with: a defect of the caller.
    #[error("rows for {what} have the wrong form: {reason}")]
    Shape {
        /// The table or view.
        what: String,
        /// What differs.
        reason: String,
    },
    /// Many commits in a row were lost to other writers or to an unreachable store.
    #[error("gave up committing epoch {epoch} to {table} after {attempts} attempts; the last one said: {reason}")]
    Contended {
        /// The table's directory.
        table: String,
        /// The epoch.
        epoch: u64,
        /// How often it was tried.
        attempts: u32,
        /// Outcome of the last attempt.
        reason: String,
    },
    /// Many attempts at a compaction's commit failed in a row.
    #[error(
        "gave up compacting {table} after {attempts} attempts; the last one said: {reason}; the table is as it was"
    )]
    Upkeep {
        /// The table's directory.
        table: String,
        /// How often it was tried.
        attempts: u32,
        /// Outcome of the last attempt.
        reason: String,
    },
    /// A part that an epoch names is nowhere: not in its outbox, not in its table.
    #[error(
        "rows of epoch {epoch} of {} are lost: {what}; bring the file back from a copy, or let the job compute the epoch \
         again from an earlier checkpoint",
        table.display()
    )]
    LostPart {
        /// The table's directory.
        table: PathBuf,
        /// The epoch.
        epoch: u64,
        /// Which file is not where it belongs, and where else it was looked for.
        what: String,
    },
    /// The embedded online store failed.
    #[error("online store {path}: {source}", path = path.display())]
    Online {
        /// The store's directory.
        path: PathBuf,
        /// The cause.
        source: fjall::Error,
    },
    /// Another process has the online store open and does not answer readers.
    #[error(
        "online store {path} is open in another process that does not answer; wait for it to start or stop, then try again",
        path = path.display()
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// Bytes in the online store make no sense.
    #[error("online store {path} is damaged: {reason}; delete the directory, the job fills it again", path = path.display())]
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A Redis server cannot be reached, or refuses something.
    #[error("redis at {address}: {reason}")]
    Redis {
        /// The server, without user and password.
        address: String,
        /// What happened, and how to mend it.
        reason: String,
        /// Whether it may pass by itself.
        passing: bool,
    },
    /// Keys of the online store in Redis make no sense.
    #[error(
        "online store at {address} is damaged: {reason}; delete the keys of this prefix, the job writes them again"
    )]
    RedisDamaged {
        /// The server and the prefix.
        address: String,
        /// What was found.
        reason: String,
    },
    /// A topic takes no messages, or not all were delivered.
    #[error("{topic} at {brokers}: {reason}")]
    Topic {
        /// The topic, or several.
        topic: String,
        /// The brokers.
        brokers: String,
        /// What happened, what was not delivered, and how to mend it.
        reason: String,
    },
    /// A file of messages that wait for their publication makes no sense.
    #[error(
        "outbox file {path} is damaged: {reason}; bring it back from a copy, or restart the job from a checkpoint before it",
        path = path.display()
    )]
    OutboxDamaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another process publishes to the topics of a job, and this one may not any more.
    #[error(
        "another process has taken over the topics that {application} publishes to at {brokers}: {reason}; this process stops and has published nothing of what it was at"
    )]
    TakenOver {
        /// Whose transactions.
        application: String,
        /// The brokers.
        brokers: String,
        /// How it shows.
        reason: String,
    },
    /// What was asked for does not exist or does not parse.
    #[error("{0}")]
    Request(String),
    /// An Arrow kernel failed on rows that were checked before.
    #[error("columns of {what}: {source}")]
    Arrow {
        /// The table or view.
        what: String,
        /// The cause.
        source: ArrowError,
    },
}

impl StoreError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            StoreError::Io { .. }
            | StoreError::Delta { .. }
            | StoreError::Parquet { .. }
            | StoreError::Contended { .. }
            | StoreError::LostPart { .. }
            | StoreError::Upkeep { .. }
            | StoreError::Online { .. }
            | StoreError::Locked { .. }
            | StoreError::Damaged { .. }
            | StoreError::Redis { .. }
            | StoreError::RedisDamaged { .. }
            | StoreError::OutboxDamaged { .. }
            | StoreError::TakenOver { .. }
            | StoreError::Topic { .. } => Blame::Outside,
            StoreError::NoTable(_) | StoreError::Schema { .. } | StoreError::Request(_) => Blame::User,
            StoreError::Shape { .. } | StoreError::Arrow { .. } => Blame::Ours,
        }
    }

    /// Whether the same call may succeed later without anything being mended.
    pub fn may_retry(&self) -> bool {
        matches!(
            self,
            StoreError::Contended { .. }
                | StoreError::Upkeep { .. }
                | StoreError::Locked { .. }
                | StoreError::Redis { passing: true, .. }
        ) || matches!(self, StoreError::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::StorageFull
        ))
    }

    /// Wraps an operating-system error, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io { action, path, source }
    }

    /// Wraps an error of the Delta library, for `map_err`.
    pub(crate) fn delta(table: impl Into<String>) -> impl FnOnce(delta_kernel::KernelError) -> StoreError {
        let table = table.into();
        move |source| StoreError::Delta { table, source: Box::new(source) }
    }

    /// Wraps an Arrow error, for `map_err`.
    pub(crate) fn arrow(what: impl Into<String>) -> impl FnOnce(ArrowError) -> StoreError {
        let what = what.into();
        move |source| StoreError::Arrow { what, source }
    }

    /// Wraps a Parquet error, for `map_err`.
    pub(crate) fn parquet(file: &Path) -> impl FnOnce(ParquetError) -> StoreError {
        let file = file.display().to_string();
        move |source| StoreError::Parquet { file, source }
    }
}

//! Why there is no page.

use crate::store::StoreError;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The job keeps no tables.
    #[error("job `{0}` has no offline sink, so it keeps no tables; name those of another run with --tables")]
    NoSink(String),
    /// The directory is not there.
    #[error("there are no tables in {0}: it is no directory; run the job first, or name its tables with --tables")]
    NoDirectory(String),
    /// There is nothing to tell.
    #[error(
        "there are no statistics in {0}: it has none of {1}; they are written by jobs with `monitors`, at the end of the first window"
    )]
    NoStatistics(String, String),
    /// The model is not watched.
    #[error("{0}")]
    Model(String),
    /// A table cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table is not what its name says.
    #[error(
        "table {table} does not hold what its name says: {reason}; is it of another program, or a newer version of this one?"
    )]
    Foreign {
        /// The table.
        table: String,
        /// What is wrong.
        reason: String,
    },
}

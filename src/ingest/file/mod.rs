//! Files: one partition per file.

pub(crate) mod lines;
pub(crate) mod parquet;
pub(crate) mod paths;
pub(crate) mod text;

use super::IngestError;
use super::decode::RawChunk;

/// The rows of one partition in their order. What `read` returns together depends on no `rows_max`.
pub(crate) trait RawReader: Send {
    /// Reads the next `min(rows_max, remaining)` raw rows; `None` at the end. `rows_max` is at least 1.
    ///
    /// # Errors
    /// When the partition cannot be read on at all; bad rows are in [`RawChunk::failed`].
    fn read(&mut self, rows_max: usize) -> Result<Option<RawChunk>, IngestError>;
}

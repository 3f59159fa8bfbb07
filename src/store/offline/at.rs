//! Tables as they stood: versions by the time of their commit, and the data files of one.

use std::path::{Path, PathBuf};

use delta_kernel::history_manager::{HistoryCommitType, latest_version_as_of};

use super::reader::{TableReader, partition_date};
use crate::base::{EventTime, format_time};
use crate::store::StoreError;

/// A live data file of a table.
pub(in crate::store) struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// Event date of its rows, `YYYY-MM-DD`.
    pub date: String,
}

impl TableReader {
    /// Opens the table in `directory` as the newest commit at or before `time`, on the wall clock, left it.
    ///
    /// # Errors
    /// As [`TableReader::open`]; [`StoreError::Request`] when the table is younger.
    pub fn open_committed_by(directory: &Path, time: EventTime) -> Result<Self, StoreError> {
        let newest = TableReader::open(directory, None)?;
        // A commit within the same millisecond is not after it.
        let ms = time.div_euclid(1_000);
        let found = latest_version_as_of(&newest.snapshot, newest.engine.as_ref(), ms, HistoryCommitType::Recreatable);
        let found = found.map_err(|error| {
            StoreError::Request(format!(
                "table {} has no version that was committed by {} and can still be read: {error}",
                directory.display(),
                format_time(time)
            ))
        })?;
        // The search takes commits of one millisecond for a millisecond apart; they are told with the times that they have.
        let mut version = found.version;
        while version < newest.version() {
            let next = TableReader::open(directory, Some(version + 1))?;
            if next.committed().is_none_or(|committed| committed.div_euclid(1_000) > ms) {
                break;
            }
            version += 1;
        }
        match version == newest.version() {
            true => Ok(newest),
            false => TableReader::open(directory, Some(version)),
        }
    }

    /// When this version was committed, on the wall clock, where the log still says.
    pub fn committed(&self) -> Option<EventTime> {
        self.snapshot.get_timestamp(self.engine.as_ref()).ok().map(|ms| ms.saturating_mul(1_000))
    }

    /// The data files, by date and path.
    ///
    /// # Errors
    /// [`StoreError::Delta`] when the log cannot be read; [`StoreError::Schema`] when its files are not the whole truth, as
    /// in tables whose rows were deleted or columns renamed by other programs.
    pub(in crate::store) fn data_files(&self) -> Result<Vec<DataFile>, StoreError> {
        let files = self.files()?;
        let fault = |reason: &str| StoreError::Schema {
            table: self.directory.display().to_string(),
            reason: reason.to_owned(),
        };
        if !self.plain(&files) {
            return Err(fault(
                "another program has deleted rows of it or renamed columns, which is not supported here; read an older version (--at), or write the table anew",
            ));
        }
        let mut found = Vec::with_capacity(files.len());
        for file in &files {
            let date = partition_date(file).ok_or_else(|| fault("it is not partitioned by event_date"))?.to_owned();
            found.push(DataFile { path: self.file_path(file)?, date });
        }
        found.sort_by(|a, b| (&a.date, &a.path).cmp(&(&b.date, &b.path)));
        Ok(found)
    }
}

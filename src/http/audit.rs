//! The audit log: who changed what, one JSON object to a line, appended and never rewritten.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How much of the file is looked at for one answer, in bytes.
const READ_MAX: u64 = 16 << 20;

/// One thing that was done, or was refused to somebody whose name is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditEntry {
    /// When it ended, RFC 3339 in UTC.
    pub at: String,
    /// Name of the caller's token or certificate; `anonymous` where none is asked for.
    pub caller: String,
    /// From where.
    pub address: String,
    /// The operation's id, as in the OpenAPI document.
    pub operation: String,
    /// The path that was asked for, without the query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A file of entries. It is opened for each entry, so that it may be moved away at any time.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    one_at_a_time: Mutex<()>,
    failures: AtomicU64,
}

impl AuditLog {
    /// The log in this file, which is made with its first entry.
    pub fn new(path: impl Into<PathBuf>) -> AuditLog {
        AuditLog { path: path.into(), one_at_a_time: Mutex::new(()), failures: AtomicU64::new(0) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an entry. One that cannot be written goes to the program's log as an error and is counted: what was done is done.
    pub fn append(&self, entry: &AuditEntry) {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.write(entry) {
            self.failures.fetch_add(1, Relaxed);
            tracing::error!(path = %self.path.display(), %error, ?entry, "the audit log cannot be written");
        }
    }

    fn write(&self, entry: &AuditEntry) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One write: lines of two processes do not mix.
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?.write_all(&line)
    }

    /// How many entries could not be written since the process began.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// The newest entries, newest first, at most `limit`, out of the last 16 MiB. Lines that are no entries are left out.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn newest(&self, limit: usize) -> io::Result<Vec<AuditEntry>> {
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        // Doubles what it reads from the end until there is enough.
        let mut wanted = 64 << 10;
        loop {
            let from = length.saturating_sub(wanted);
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            (&mut file).take(length - from).read_to_end(&mut bytes)?;
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            // It may be half a line.
            if from > 0 && !lines.is_empty() {
                lines.remove(0);
            }
            let entries: Vec<AuditEntry> =
                lines.iter().rev().filter_map(|line| serde_json::from_slice(line).ok()).take(limit).collect();
            if entries.len() == limit || from == 0 || wanted >= READ_MAX {
                return Ok(entries);
            }
            wanted *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> AuditEntry {
        AuditEntry {
            at: "2026-01-01T00:00:00Z".to_owned(),
            caller: "x".repeat(200),
            address: "127.0.0.1".to_owned(),
            operation: "submit".to_owned(),
            path: "/api/v1/jobs".to_owned(),
            status: 201,
            took_ms: number,
        }
    }

    #[test]
    fn the_newest_entries_come_first_however_long_the_file_is() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let log = AuditLog::new(dir.path().join("audit.ndjson"));
        assert_eq!(log.newest(5).expect("nothing yet"), []);
        (0..2000).for_each(|number| log.append(&entry(number)));
        let newest = |limit| log.newest(limit).expect("read").iter().map(|e| e.took_ms).collect::<Vec<_>>();
        assert_eq!(newest(3), [1999, 1998, 1997]);
        assert_eq!(newest(5000), (0..2000).rev().collect::<Vec<_>>());
        // Somebody's editor, and a write that was cut off.
        let mut file = OpenOptions::new().append(true).open(log.path()).expect("the file");
        file.write_all(b"hello\n\n{\"at\":\"2026").expect("written");
        assert_eq!(newest(2), [1999, 1998]);
        std::fs::rename(log.path(), dir.path().join("old")).expect("moved");
        log.append(&entry(7));
        assert_eq!((newest(9), log.failures()), (vec![7], 0));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let log = AuditLog::new("/nonexistent/folder/audit.ndjson");
        log.append(&entry(0));
        assert_eq!(log.failures(), 1);
    }
}

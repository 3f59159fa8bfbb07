//! A job on disk: `DIR/jobs/<id>/{job.json, files/<n>.{yaml,json}, savepoints.json, state/, logs/, history.ndjson}`.
//!
//! A record is replaced whole: written beside, flushed, renamed. What is wanted of a job is in its record before anything is
//! done about it, so that whoever reads the records knows what to do.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ControlError;
use super::model::{Event, Job, Savepoint, Settings, StopMode};

/// What the server knows of a job, and does about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// As the API shows it.
    pub job: Job,
    /// The newest version of its file; versions are never used again.
    pub newest: u64,
    /// Directory that relative paths of its file count from.
    pub directory: PathBuf,
    /// Its process, by more than a number that others may get.
    #[serde(default)]
    pub process: Option<ProcessId>,
    /// A stop that is under way or that was the last.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// An upgrade that is under way.
    #[serde(default)]
    pub upgrade: Option<UpgradeStep>,
    /// Deaths, as seconds since 1970, since the job last made progress.
    #[serde(default)]
    pub deaths: Vec<i64>,
    /// Ends of processes that were waited for in vain and then killed.
    #[serde(default)]
    pub killed: u64,
    /// The process that was sent the signal to end.
    #[serde(default)]
    pub signalled: Option<ProcessId>,
    /// The error that is shown is to be seen though the job runs: of an upgrade that failed.
    #[serde(default)]
    pub keeps_error: bool,
    /// The newest epoch when the job was last started: with a newer one it has made progress.
    #[serde(default)]
    pub epoch: Option<u64>,
}

/// A process: its number, and when it began, by which it differs from another that has got the number since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number of the process and of its group.
    pub pid: u32,
    /// Clock ticks from the machine's start to the process'; 0 where the system does not say.
    pub began: u64,
}

/// A stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// How.
    pub mode: StopMode,
    /// Where the state is copied to afterwards, and under which trigger.
    #[serde(default)]
    pub savepoint: Option<(String, String)>,
    /// When it was asked for, in seconds since 1970.
    pub asked: i64,
    /// Who asked.
    pub who: String,
}

/// How far an upgrade is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStep {
    /// The version that the job came from, and goes back to.
    pub from: u64,
    /// The version that it goes to.
    pub to: u64,
    /// Who asked.
    pub who: String,
    /// Whether the new file has been started.
    pub started: bool,
}

/// The directory of one server.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

/// The directory of one job.
#[derive(Clone, Debug)]
pub struct JobDir {
    path: PathBuf,
}

/// Bytes of a job's history that are answered at most.
const HISTORY_BYTES: u64 = 4 << 20;

impl Disk {
    /// The directory `root`, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Disk, ControlError> {
        let jobs = root.join("jobs");
        fs::create_dir_all(&jobs).map_err(|error| ControlError::disk(&jobs, error))?;
        let root = root.canonicalize().map_err(|error| ControlError::disk(root, error))?;
        Ok(Disk { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a job; it need not be there.
    pub fn job(&self, id: &str) -> JobDir {
        JobDir { path: self.root.join("jobs").join(id) }
    }

    /// Ids of jobs that have a directory, in order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>, ControlError> {
        let jobs = self.root.join("jobs");
        let entries = fs::read_dir(&jobs).map_err(|error| ControlError::disk(&jobs, error))?;
        let mut ids: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| is_id(id)).collect();
        ids.sort();
        Ok(ids)
    }

    /// Keeps what was done with a job that is deleted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_history(&self, id: &str, events: &[Event]) -> Result<(), ControlError> {
        let deleted = self.root.join("deleted");
        fs::create_dir_all(&deleted).map_err(|error| ControlError::disk(&deleted, error))?;
        let path = deleted.join(format!("{id}.ndjson"));
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, event).map_err(|error| ControlError::disk(&path, error.into()))?;
            lines.push(b'\n');
        }
        write(&path, &lines)
    }

    /// A number that no job of this name has had.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn next_number(&self, name: &str) -> Result<u64, ControlError> {
        let path = self.root.join("numbers.json");
        let mut numbers: std::collections::BTreeMap<String, u64> =
            if path.exists() { read_json(&path)? } else { Default::default() };
        let number = numbers.get(name).map_or(1, |last| last + 1);
        numbers.insert(name.to_owned(), number);
        write_json(&path, &numbers)?;
        Ok(number)
    }
}

/// Whether a text can be a job's id: it becomes a file's name.
pub fn is_id(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.len() <= 160 && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(good)
}

impl JobDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the job keeps its state.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where its log is.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where savepoints go that are given no other place.
    pub fn savepoint(&self, trigger: &str) -> PathBuf {
        self.path.join("savepoints").join(trigger)
    }

    /// A version of its file.
    pub fn file(&self, version: u64) -> PathBuf {
        self.path.join("files").join(format!("{version}.yaml"))
    }

    /// Makes the directories of a new job.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(&self) -> Result<(), ControlError> {
        for path in [self.path.join("files"), self.logs()] {
            fs::create_dir_all(&path).map_err(|error| ControlError::disk(&path, error))?;
        }
        // Values may be secrets that were written in plain text.
        restrict(&self.path)
    }

    /// The record, if the job has one: a submission that was cut short has left none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn record(&self) -> Result<Option<Record>, ControlError> {
        let path = self.path.join("job.json");
        if !path.exists() {
            return Ok(None);
        }
        read_json(&path).map(Some)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_record(&self, record: &Record) -> Result<(), ControlError> {
        write_json(&self.path.join("job.json"), record)
    }

    /// Keeps a version of the job's file with what came with it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, version: u64, text: &str, settings: &Settings) -> Result<(), ControlError> {
        write_json(&self.path.join("files").join(format!("{version}.json")), settings)?;
        write(&self.file(version), text.as_bytes())
    }

    /// A version of the job's file, and what came with it.
    ///
    /// # Errors
    /// When there is no such version.
    pub fn read_file(&self, version: u64) -> Result<(String, Settings), ControlError> {
        let path = self.file(version);
        if !path.exists() {
            return Err(ControlError::NotFound(format!("the job has no file of version {version}")));
        }
        let text = fs::read_to_string(&path).map_err(|error| ControlError::disk(&path, error))?;
        Ok((text, read_json(&self.path.join("files").join(format!("{version}.json")))?))
    }

    /// Versions of its file that are kept, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn versions(&self) -> Result<Vec<u64>, ControlError> {
        let path = self.path.join("files");
        let entries = fs::read_dir(&path).map_err(|error| ControlError::disk(&path, error))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".yaml")?.parse().ok();
        let mut versions: Vec<u64> = entries.flatten().filter_map(name).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Its savepoints, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn savepoints(&self) -> Result<Vec<Savepoint>, ControlError> {
        let path = self.path.join("savepoints.json");
        if path.exists() { read_json(&path) } else { Ok(Vec::new()) }
    }

    /// Replaces the list of savepoints.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_savepoints(&self, savepoints: &[Savepoint]) -> Result<(), ControlError> {
        write_json(&self.path.join("savepoints.json"), &savepoints)
    }

    /// Adds to the job's history.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, event: &Event) -> Result<(), ControlError> {
        let path = self.path.join("history.ndjson");
        let failed = |error| ControlError::disk(&path, error);
        let mut line = serde_json::to_vec(event).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        file.write_all(&line).map_err(failed)
    }

    /// The newest `limit` entries of the job's history, oldest first. A line that was cut short is passed by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn history(&self, limit: usize) -> Result<Vec<Event>, ControlError> {
        let path = self.path.join("history.ndjson");
        let text = match tail(&path, HISTORY_BYTES) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(|error| ControlError::disk(&path, error))?,
        };
        let mut events: Vec<Event> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.drain(..events.len().saturating_sub(limit));
        Ok(events)
    }

    /// Removes all that there is of the job.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), ControlError> {
        // Without a record the job is gone, whatever else is left.
        let record = self.path.join("job.json");
        match fs::remove_file(&record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ControlError::disk(&record, error));
            }
            _ => {}
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ControlError::disk(&self.path, error)),
            _ => Ok(()),
        }
    }
}

/// At most the last `bytes` of a file, as text.
pub(super) fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ControlError> {
    let bytes = fs::read(path).map_err(|error| ControlError::disk(path, error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ControlError::Damaged { path: path.to_owned(), what: error.to_string() })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ControlError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| ControlError::disk(path, error.into()))?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Replaces a file whole, and durably.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ControlError> {
    let beside = path.with_extension("tmp");
    let failed = |error| ControlError::disk(path, error);
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    match path.parent() {
        Some(directory) => File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed),
        None => Ok(()),
    }
}

/// Lets nobody but the owner into a directory.
fn restrict(path: &Path) -> Result<(), ControlError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| ControlError::disk(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_files_name() {
        for good in ["card_fraud-1", "a", "A.b-2", "_x-1"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a b", "-x", ".x", "a\0", "é"] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_not_used_again() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let disk = Disk::open(dir.path()).expect("a disk");
        assert_eq!((disk.next_number("a").unwrap(), disk.next_number("a").unwrap()), (1, 2));
        let again = Disk::open(dir.path()).expect("a disk");
        assert_eq!((again.next_number("a").unwrap(), again.next_number("b").unwrap()), (3, 1));
    }

    #[test]
    fn history_ends_with_the_newest_and_passes_a_broken_line_by() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let job = Disk::open(dir.path()).expect("a disk").job("a-1");
        job.create().expect("created");
        assert_eq!(job.history(10).expect("none"), []);
        let event = |what: &str| Event {
            at: "2024-01-01T00:00:00Z".into(),
            who: "me".into(),
            what: what.into(),
            outcome: "done".into(),
            detail: String::new(),
            version: 1,
        };
        job.append(&event("submit")).expect("written");
        let path = job.path().join("history.ndjson");
        OpenOptions::new().append(true).open(&path).expect("a file").write_all(b"{\"at\": \"20\n").expect("written");
        job.append(&event("stop")).expect("written");
        let what: Vec<String> = job.history(10).expect("read").into_iter().map(|e| e.what).collect();
        assert_eq!(what, ["submit", "stop"]);
        assert_eq!(job.history(1).expect("read")[0].what, "stop");
    }
}

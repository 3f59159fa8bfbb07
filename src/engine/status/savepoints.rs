//! Savepoints of a running job, asked for by name.
//!
//! What is asked for is written down in the state directory before anything is done, under its trigger, so that the same
//! trigger is one savepoint, also after a restart: what was not done then is done by the next start. The reader closes the
//! epoch with its next tick; when the epoch is published a thread copies it, while the job goes on. What is copied is pinned
//! until it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SavepointRequest, SavepointState, SavepointStatus};
use crate::base::{Epoch, failpoint, format_time, wall_clock};
use crate::engine::shared::Shared;
use crate::state::{self, StateError, Store};

/// Folder of the state directory that holds what was asked for.
const FOLDER: &str = "savepoints";
/// Savepoints that may be on their way at once.
const UNDERWAY_MAX: usize = 8;
/// How often a thread looks whether its epoch is there.
const LOOK: Duration = Duration::from_millis(10);
/// Longest name.
const TRIGGER_MAX: usize = 128;

/// What the reader knows of savepoints: whether an epoch is to be closed, and which it was.
#[derive(Default)]
pub struct Asked(Mutex<Turns>);

#[derive(Default)]
struct Turns {
    asked: u64,
    /// The requests up to this one have an epoch.
    served: u64,
    /// The epoch of requests up to a number.
    epochs: BTreeMap<u64, Epoch>,
    ended: bool,
    last: Option<Epoch>,
}

impl Asked {
    /// Asks for the end of an epoch.
    fn ask(&self) -> u64 {
        let mut turns = lock(&self.0);
        turns.asked += 1;
        turns.asked
    }

    /// The newest request that has no epoch.
    pub fn asked(&self) -> Option<u64> {
        let turns = lock(&self.0);
        (turns.asked > turns.served).then_some(turns.asked)
    }

    /// An epoch ends with a tick that was cut after `asked` had been asked.
    pub fn assign(&self, asked: Option<u64>, epoch: Epoch, last: bool) {
        let mut turns = lock(&self.0);
        if let Some(asked) = asked {
            turns.served = asked;
            turns.epochs.insert(asked, epoch);
        }
        if last {
            turns.last = Some(epoch);
        }
    }

    /// No tick follows.
    pub fn input_ended(&self) {
        lock(&self.0).ended = true;
    }

    /// The epoch of a request, when it is known: `Some(None)` is the newest that there is.
    fn epoch_of(&self, request: u64) -> Option<Option<Epoch>> {
        let turns = lock(&self.0);
        match turns.epochs.range(request..).next() {
            Some((_, epoch)) => Some(Some(*epoch)),
            None => turns.ended.then_some(turns.last),
        }
    }
}

/// What is written down of a savepoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    status: SavepointStatus,
    /// The claim and the last tick of what is copied: by them a copy is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copies: Option<(u64, u64)>,
}

/// Why a savepoint is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// The name cannot be.
    #[error("`{0}` is no trigger: write 1 to 128 of a-z A-Z 0-9 . _ -, not beginning with a dot")]
    Trigger(String),
    /// The name is taken.
    #[error(
        "trigger `{trigger}` has asked for a savepoint at {place} already; a trigger is one savepoint, so give this one another name"
    )]
    Taken {
        /// The name.
        trigger: String,
        /// The place that it was asked for.
        place: String,
    },
    /// The place cannot be written to, or holds a savepoint.
    #[error(transparent)]
    Place(#[from] StateError),
    /// Too many are on their way.
    #[error("{0} savepoints are on their way; wait until one is done")]
    Many(usize),
    /// The job is ending or has failed.
    #[error("the job is ending: it takes no more savepoints")]
    Ending,
    /// What was asked for cannot be written down.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// The savepoints of a job.
pub struct Savepoints {
    folder: PathBuf,
    store: Store,
    job: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closed: Mutex<bool>,
}

impl Savepoints {
    /// For the state in `dir`, whose snapshots lie in `store`.
    pub fn new(dir: &Path, store: Store, job: &str) -> Arc<Savepoints> {
        Arc::new(Savepoints {
            folder: dir.join(FOLDER),
            store,
            job: job.to_owned(),
            threads: Mutex::default(),
            closed: Mutex::new(false),
        })
    }

    /// Goes on with what earlier processes were asked for and have not done.
    pub fn resume(self: &Arc<Self>, shared: &Arc<Shared>) {
        for record in records(&self.folder) {
            if record.status.state == SavepointState::Running {
                self.start(record, shared);
            }
        }
    }

    /// Takes a savepoint, unless its trigger has asked for it before; either way tells how far it is. Writes to disk, and may ask
    /// an object store.
    ///
    /// # Errors
    /// See [`SavepointError`].
    pub fn ask(
        self: &Arc<Self>,
        request: &SavepointRequest,
        shared: &Weak<Shared>,
    ) -> Result<SavepointStatus, SavepointError> {
        let SavepointRequest { trigger, place } = request;
        check_trigger(trigger)?;
        let place = absolute(place);
        let known = |status: SavepointStatus| match status.place == place {
            true => Ok(status),
            false => Err(SavepointError::Taken { trigger: trigger.clone(), place: status.place }),
        };
        if let Some(status) = self.status(trigger)? {
            return known(status);
        }
        let shared = shared.upgrade().filter(|shared| !shared.failed()).ok_or(SavepointError::Ending)?;
        // It may have to wait for an object store.
        state::check_savepoint_target(&place)?;
        // Held while the thread starts: a job that ends waits for all that were taken on.
        let closed = lock(&self.closed);
        if *closed {
            return Err(SavepointError::Ending);
        }
        let underway = lock(&self.threads).iter().filter(|thread| !thread.is_finished()).count();
        if underway >= UNDERWAY_MAX {
            return Err(SavepointError::Many(underway));
        }
        let status = SavepointStatus {
            trigger: trigger.clone(),
            state: SavepointState::Running,
            place: place.clone(),
            asked: format_time(wall_clock()),
            epoch: None,
            error: None,
        };
        let record = Record { status: status.clone(), copies: None };
        if !self.write(&record, true)? {
            // Somebody was quicker.
            return match self.status(trigger)? {
                Some(status) => known(status),
                None => Err(SavepointError::Ending),
            };
        }
        failpoint("savepoint.recorded");
        self.start(record, &shared);
        Ok(status)
    }

    /// How far a savepoint is.
    ///
    /// # Errors
    /// When the name cannot be, or what was written down cannot be read.
    pub fn status(&self, trigger: &str) -> Result<Option<SavepointStatus>, SavepointError> {
        savepoint_in(&self.folder, trigger)
    }

    /// All that were asked for, the newest first.
    pub fn all(&self) -> Vec<SavepointStatus> {
        let mut all: Vec<SavepointStatus> = records(&self.folder).into_iter().map(|record| record.status).collect();
        all.sort_by(|a, b| b.asked.cmp(&a.asked).then_with(|| a.trigger.cmp(&b.trigger)));
        all
    }

    /// Takes no more, and waits for those that are on their way. All epochs must have been published, or the job have failed.
    pub fn finish(&self) {
        *lock(&self.closed) = true;
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // Its panic, short of a defect there is none, has been reported.
            let _ = thread.join();
        }
    }

    fn start(self: &Arc<Self>, record: Record, shared: &Arc<Shared>) {
        let (own, weak, trigger) = (Arc::clone(self), Arc::downgrade(shared), record.status.trigger.clone());
        // Before anybody else can remove anything.
        let pin = shared.checkpoints.progress.pin();
        let request = shared.savepoints.ask();
        let take = move || {
            own.take(record, request, &weak);
            drop(pin);
        };
        match std::thread::Builder::new().name("savepoint".to_owned()).spawn(take) {
            Ok(thread) => {
                let mut threads = lock(&self.threads);
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => tracing::warn!(%error, trigger, "a savepoint waits for the job's next start"),
        }
    }

    /// Waits for the epoch, copies it, and writes down what became of it. A job that fails leaves it to the next start.
    fn take(&self, mut record: Record, request: u64, shared: &Weak<Shared>) {
        let outcome = match self.copied_before(&record) {
            Ok(None) => {
                let Some(epoch) = wait(request, shared) else { return };
                self.copy(&mut record, epoch).map(Some)
            }
            before => before,
        };
        match outcome {
            Ok(None) => return,
            Ok(Some(epoch)) => {
                record.status.epoch = Some(epoch);
                record.status.state = SavepointState::Done;
            }
            Err(error) => {
                record.status.error = Some(error.to_string());
                record.status.state = SavepointState::Failed;
            }
        }
        failpoint("savepoint.copied");
        if let Err(error) = self.write(&record, false) {
            tracing::warn!(%error, trigger = record.status.trigger, "what became of a savepoint is not written down");
        }
    }

    /// The epoch of a copy that an earlier process has made and not written down.
    fn copied_before(&self, record: &Record) -> Result<Option<Epoch>, SavepointError> {
        let Some((generation, tick)) = record.copies else { return Ok(None) };
        match state::read_savepoint(&record.status.place)? {
            Some(found) if (found.generation, found.tick) == (generation, tick) && found.job == self.job => {
                Ok(record.status.epoch)
            }
            // Another's: the copy will refuse to write over it.
            _ => Ok(None),
        }
    }

    fn copy(&self, record: &mut Record, epoch: Option<Epoch>) -> Result<Epoch, SavepointError> {
        let manifest = state::committed(&self.store, epoch)?;
        record.status.epoch = Some(manifest.0);
        record.copies = Some((manifest.1.generation, manifest.1.tick));
        self.write(record, false)?;
        failpoint("savepoint.copying");
        Ok(state::copy_epoch(&self.store, Some(manifest.0), &record.status.place)?)
    }

    /// Writes a record, durable on return; false when it is to be new and is there.
    fn write(&self, record: &Record, new: bool) -> Result<bool, SavepointError> {
        let path = path(&self.folder, &record.status.trigger);
        let hidden = self.folder.join(format!(".{}.{}.tmp", record.status.trigger, std::process::id()));
        let written = (|| {
            fs::create_dir_all(&self.folder)?;
            let mut file = File::create(&hidden)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_all()?;
            let moved = if new { fs::hard_link(&hidden, &path) } else { fs::rename(&hidden, &path) };
            // A link leaves the hidden name behind, a failure a useless file.
            let _ = fs::remove_file(&hidden);
            match moved {
                Err(error) if new && error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                moved => moved?,
            }
            File::open(&self.folder)?.sync_all()?;
            Ok(true)
        })();
        written.map_err(|error| SavepointError::Io { path: path.clone(), error })
    }
}

/// The published epoch of a request, where it has one of its own; none when the job has failed or was told to end at once.
fn wait(request: u64, shared: &Weak<Shared>) -> Option<Option<Epoch>> {
    loop {
        {
            let shared = shared.upgrade()?;
            if shared.failed() {
                return None;
            }
            match shared.savepoints.epoch_of(request) {
                Some(Some(epoch)) if shared.checkpoints.progress.next() > epoch => return Some(Some(epoch)),
                Some(None) => return Some(None),
                _ => {}
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn check_trigger(trigger: &str) -> Result<(), SavepointError> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = (1..=TRIGGER_MAX).contains(&trigger.len()) && !trigger.starts_with('.') && trigger.chars().all(is_fit);
    if fits { Ok(()) } else { Err(SavepointError::Trigger(trigger.chars().take(TRIGGER_MAX).collect())) }
}

/// A directory by its whole path: the next start may be somewhere else.
fn absolute(place: &str) -> String {
    if place.contains("://") {
        return place.to_owned();
    }
    std::path::absolute(place).map_or_else(|_| place.to_owned(), |path| path.display().to_string())
}

fn path(folder: &Path, trigger: &str) -> PathBuf {
    folder.join(format!("{trigger}.json"))
}

/// A savepoint that a job with this state directory was asked for, whether the job runs or not.
///
/// # Errors
/// When the name cannot be, or what was written down cannot be read.
pub fn savepoint(state_dir: &Path, trigger: &str) -> Result<Option<SavepointStatus>, SavepointError> {
    savepoint_in(&state_dir.join(FOLDER), trigger)
}

/// All savepoints that a job with this state directory was asked for, by trigger, whether the job runs or not.
pub fn savepoints(state_dir: &Path) -> Vec<SavepointStatus> {
    records(&state_dir.join(FOLDER)).into_iter().map(|record| record.status).collect()
}

fn savepoint_in(folder: &Path, trigger: &str) -> Result<Option<SavepointStatus>, SavepointError> {
    check_trigger(trigger)?;
    let path = path(folder, trigger);
    let refused = |error| SavepointError::Io { path: path.clone(), error };
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(error)),
        Ok(bytes) => {
            let record: Record = serde_json::from_slice(&bytes).map_err(|error| refused(error.into()))?;
            Ok(Some(record.status))
        }
    }
}

/// What was written down, by trigger. A file that is no record is passed by, and told of.
fn records(folder: &Path) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut records = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).map_err(|error| error.to_string()))
        {
            Ok(record) => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "a savepoint that was asked for cannot be read")
            }
        }
    }
    records.sort_by(|a, b| a.status.trigger.cmp(&b.status.trigger));
    records
}

/// A panic elsewhere leaves what is behind a lock whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_gets_an_epoch_that_was_cut_after_it() {
        let asked = Asked::default();
        assert_eq!(asked.asked(), None);
        let first = asked.ask();
        let seen = asked.asked();
        let second = asked.ask();
        asked.assign(seen, 7, false);
        assert_eq!((asked.epoch_of(first), asked.epoch_of(second)), (Some(Some(7)), None));
        assert_eq!(asked.asked(), Some(second));
        // An epoch that ends by itself is nobody's.
        asked.assign(None, 8, false);
        assert_eq!(asked.epoch_of(second), None);
        asked.assign(asked.asked(), 9, true);
        asked.input_ended();
        assert_eq!((asked.epoch_of(first), asked.epoch_of(second)), (Some(Some(7)), Some(Some(9))));
        // After the end it is the last.
        let late = asked.ask();
        assert_eq!(asked.epoch_of(late), Some(Some(9)));
        let never = Asked::default();
        never.input_ended();
        assert_eq!(never.epoch_of(never.ask()), Some(None), "whatever is there");
    }

    #[test]
    fn triggers_are_names_of_files() {
        for good in ["a", "2026-01-05T00.00", "nightly_7", &"x".repeat(TRIGGER_MAX)] {
            assert!(check_trigger(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", &"x".repeat(TRIGGER_MAX + 1)] {
            assert!(check_trigger(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_down_is_written_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&dir.path().display().to_string()).expect("a store");
        let savepoints = Savepoints::new(dir.path(), store, "job");
        let status = SavepointStatus {
            trigger: "t".into(),
            state: SavepointState::Running,
            place: "/p".into(),
            asked: "2026-01-05T00:00:00Z".into(),
            epoch: None,
            error: None,
        };
        let record = Record { status: status.clone(), copies: None };
        assert!(savepoints.write(&record, true).expect("written"));
        assert!(!savepoints.write(&record, true).expect("it is there"));
        assert_eq!(savepoint(dir.path(), "t").expect("read"), Some(status.clone()));
        assert_eq!(savepoint(dir.path(), "u").expect("read"), None);
        std::fs::write(dir.path().join(FOLDER).join("bad.json"), "{").expect("written");
        assert!(savepoint(dir.path(), "bad").is_err());
        assert_eq!(savepoints.all(), [status]);
    }
}

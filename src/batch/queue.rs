//! Jobs in a directory: what is to be run, how each job stands, and who runs it.
//!
//! ```text
//! <queue>/<id>/request.json      what to run; never changes
//!              status.json       how it stands
//!              lock              held by who runs it, as long as that process lives
//!              cancel            is there when the job is to end
//!              journal           states of its steps
//!              steps/<step>/     log.txt, out/ (outputs of a step that is done), work/ (of one that is not)
//! ```
//!
//! A job comes to be by the renaming of a directory that is complete, so two who submit under one key make one job. The
//! lock is the system's and goes with its process, however that ends: what is marked as running and not locked was
//! interrupted.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::BatchError;
use super::disk::{read_json, remove_tree, replace, sync_directory, write_json};
use crate::base::{failpoint, format_time, wall_clock};

const REQUEST: &str = "request.json";
const STATUS: &str = "status.json";
const LOCK: &str = "lock";
const CANCEL: &str = "cancel";
/// Looking whether a lock is held holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// Longest key that becomes part of a file's name.
const KEY_MAX: usize = 150;

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Name of the batch dataflow.
    pub batch: String,
    /// Its file, absolute.
    pub file: PathBuf,
    /// Changes of the file, as `--set`.
    pub sets: Vec<(String, String)>,
    /// Changes of the file of the job that it is of.
    pub job_sets: Vec<(String, String)>,
    /// The model that is retrained, where a running job asks for it: one job at a time runs for each.
    pub model: Option<String>,
    /// Why it was submitted.
    pub cause: String,
    /// When, by the wall clock.
    pub submitted: String,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its turn has not come, or its runner died: the next goes on where it was.
    Queued,
    /// A process runs it.
    Running,
    /// All steps are done or skipped.
    Done,
    /// A step failed.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl Standing {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Queued => "queued",
            Standing::Running => "running",
            Standing::Done => "done",
            Standing::Failed => "failed",
            Standing::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows by itself.
    pub fn is_over(self) -> bool {
        matches!(self, Standing::Done | Standing::Failed | Standing::Cancelled)
    }
}

/// How a job stands, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How.
    pub state: Standing,
    /// Since when, by the wall clock.
    pub since: String,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why, where it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Status {
    fn now(state: Standing, why: Option<String>) -> Status {
        let pid = (state == Standing::Running).then(std::process::id);
        Status { state, since: format_time(wall_clock()), pid, why }
    }
}

/// A job of the queue.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Its name in the queue.
    pub id: String,
    /// How it stands.
    #[serde(flatten)]
    pub status: Status,
    /// Whether it was begun by a process that is no more.
    pub interrupted: bool,
    /// What is run.
    pub request: Request,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub id: String,
    /// Whether it is new: not where its key had been submitted before.
    pub fresh: bool,
}

/// A directory of jobs.
#[derive(Clone, Debug)]
pub struct Queue {
    root: PathBuf,
}

impl Queue {
    /// The queue in a directory, which is made when something is submitted.
    ///
    /// # Errors
    /// When the current directory is not known.
    pub fn new(root: &Path) -> Result<Queue, BatchError> {
        Ok(Queue { root: std::path::absolute(root).map_err(BatchError::disk("find", root))? })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a job.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Adds a job. Under a key that was submitted before nothing is added, whatever became of that job.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn submit(&self, request: &Request, key: Option<&str>) -> Result<Submitted, BatchError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.root).map_err(BatchError::disk("make", &self.root))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = self.root.join(format!(".new-{}-{number}", std::process::id()));
        remove_tree(&aside)?;
        fs::create_dir(&aside).map_err(BatchError::disk("make", &aside))?;
        write_json(&aside.join(REQUEST), request)?;
        write_json(&aside.join(STATUS), &Status::now(Standing::Queued, None))?;
        failpoint("batch.submit");
        let fixed = key.map(safe);
        let mut count = 1;
        loop {
            let id = fixed.clone().unwrap_or_else(|| format!("{}-{count}", safe(&request.batch)));
            let place = self.directory(&id);
            match fs::rename(&aside, &place) {
                Ok(()) => {
                    sync_directory(&self.root)?;
                    failpoint("batch.submitted");
                    return Ok(Submitted { id, fresh: true });
                }
                Err(_) if place.exists() && fixed.is_some() => {
                    remove_tree(&aside)?;
                    return Ok(Submitted { id, fresh: false });
                }
                Err(_) if place.exists() => count += 1,
                Err(e) => return Err(BatchError::disk("make", &place)(e)),
            }
        }
    }

    /// All jobs, the oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read, or a job in it is damaged.
    pub fn list(&self) -> Result<Vec<Job>, BatchError> {
        let mut jobs = Vec::new();
        for id in self.ids()? {
            jobs.push(self.job(&id)?);
        }
        jobs.sort_by(|a, b| (&a.request.submitted, &a.id).cmp(&(&b.request.submitted, &b.id)));
        Ok(jobs)
    }

    fn ids(&self) -> Result<Vec<String>, BatchError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(BatchError::disk("list", &self.root)(e)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(BatchError::disk("list", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().join(REQUEST).is_file() {
                ids.push(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// One job.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn job(&self, id: &str) -> Result<Job, BatchError> {
        let directory = self.directory(id);
        let named = !id.is_empty() && !id.starts_with('.') && !id.contains(['/', '\\']);
        let request = if named { read_json::<Request>(&directory.join(REQUEST))? } else { None };
        let Some(request) = request else {
            let ids = self.ids()?;
            let has = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            return Err(BatchError::Unknown { queue: self.root.clone(), id: id.to_owned(), has });
        };
        let path = directory.join(STATUS);
        let mut status: Status =
            read_json(&path)?.ok_or_else(|| BatchError::damaged(&path, "it is not there although the job is"))?;
        let interrupted = status.state == Standing::Running && !self.is_held(id);
        if interrupted {
            (status.state, status.pid) = (Standing::Queued, None);
        }
        Ok(Job { id: id.to_owned(), status, interrupted, request })
    }

    fn is_held(&self, id: &str) -> bool {
        let Ok(file) = File::open(self.directory(id).join(LOCK)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Takes a job to run it. It is this process's until the claim is dropped or the process ends.
    ///
    /// # Errors
    /// When another process runs it, or its directory cannot be written.
    pub fn claim(&self, id: &str) -> Result<Claim, BatchError> {
        let job = self.job(id)?;
        let directory = self.directory(id);
        let path = directory.join(LOCK);
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(BatchError::disk("open", &path))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    let who = job.status.pid.map_or(String::new(), |pid| format!(" ({pid})"));
                    return Err(BatchError::Taken { id: id.to_owned(), who });
                }
                Err(TryLockError::Error(e)) => return Err(BatchError::disk("lock", &path)(e)),
            }
        }
        // Between the look and the lock another may have run it.
        let found = self.job(id).map(|job| Job { interrupted: false, ..job })?;
        let was: Option<Status> = read_json(&directory.join(STATUS))?;
        let interrupted = was.is_some_and(|status| status.state == Standing::Running);
        Ok(Claim { directory, job: Job { interrupted, ..found }, _lock: lock })
    }

    /// Ends a job: one that runs is told to, and waited for as long as `patience`; one that does not is marked.
    ///
    /// # Errors
    /// When there is no such job, it is over, or it does not end.
    pub fn cancel(&self, id: &str, patience: Duration) -> Result<(), BatchError> {
        let job = self.job(id)?;
        if job.status.state.is_over() {
            return Err(BatchError::Refused(format!("job `{id}` is {} already", job.status.state.word())));
        }
        replace(&self.directory(id).join(CANCEL), b"")?;
        let until = Instant::now() + patience;
        loop {
            match self.claim(id) {
                Ok(claim) if claim.job.status.state.is_over() => return Ok(()),
                Ok(claim) => return claim.end(Standing::Cancelled, Some("cancelled before it was done".to_owned())),
                Err(BatchError::Taken { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The letters of a key that a file's name may have; others become dashes.
fn safe(key: &str) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let text: String = key.chars().take(KEY_MAX).map(one).collect();
    match text.trim_start_matches('.') {
        "" => "job".to_owned(),
        text => text.to_owned(),
    }
}

/// A job that this process runs.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    /// The job as it was found.
    pub job: Job,
    _lock: File,
}

impl Claim {
    /// The job's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Marks the job as running.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self) -> Result<(), BatchError> {
        match fs::remove_file(self.directory.join(CANCEL)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(BatchError::disk("remove", &self.directory.join(CANCEL))(e));
            }
            _ => {}
        }
        write_json(&self.directory.join(STATUS), &Status::now(Standing::Running, None))
    }

    /// Whether somebody wants it to end.
    pub fn is_cancelled(&self) -> bool {
        self.directory.join(CANCEL).exists()
    }

    /// Marks how it ended, and lets go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(self, state: Standing, why: Option<String>) -> Result<(), BatchError> {
        write_json(&self.directory.join(STATUS), &Status::now(state, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            batch: "nightly".into(),
            file: "/jobs/nightly.yaml".into(),
            sets: vec![("limits.threads".into(), "1".into())],
            job_sets: Vec::new(),
            model: None,
            cause: "by hand".into(),
            submitted: "2026-01-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn a_key_is_submitted_once() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(&dir.path().join("deep/queue")).unwrap();
        assert!(queue.list().unwrap().is_empty());
        let first = queue.submit(&request(), Some("fraud/2026-01-05T00:00:00Z")).unwrap();
        assert_eq!(first, Submitted { id: "fraud-2026-01-05T00-00-00Z".into(), fresh: true });
        queue.claim(&first.id).unwrap().end(Standing::Done, None).unwrap();
        let again = queue.submit(&request(), Some("fraud/2026-01-05T00:00:00Z")).unwrap();
        assert_eq!(again, Submitted { fresh: false, ..first });
        let others: Vec<String> = (0..2).map(|_| queue.submit(&request(), None).unwrap().id).collect();
        assert_eq!(others, ["nightly-1", "nightly-2"]);
        let all: Vec<_> = queue.list().unwrap().into_iter().map(|j| (j.id, j.status.state)).collect();
        assert_eq!(all[0], ("fraud-2026-01-05T00-00-00Z".into(), Standing::Done));
        assert_eq!(all.len(), 3, "nothing is left of what was not added: {all:?}");
        assert_eq!(fs::read_dir(queue.root()).unwrap().count(), 3);
    }

    #[test]
    fn one_runner_claims_a_job_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path()).unwrap();
        let id = queue.submit(&request(), None).unwrap().id;
        let claim = queue.claim(&id).unwrap();
        claim.begin().unwrap();
        assert!(matches!(queue.claim(&id), Err(BatchError::Taken { .. })));
        let job = queue.job(&id).unwrap();
        assert_eq!((job.status.state, job.interrupted), (Standing::Running, false));
        drop(claim); // as a kill does
        let job = queue.job(&id).unwrap();
        assert_eq!((job.status.state, job.interrupted), (Standing::Queued, true));
        assert!(queue.claim(&id).unwrap().job.interrupted);
    }

    #[test]
    fn who_cancels_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path()).unwrap();
        let id = queue.submit(&request(), None).unwrap().id;
        let claim = queue.claim(&id).unwrap();
        claim.begin().unwrap();
        assert!(matches!(queue.cancel(&id, Duration::ZERO), Err(BatchError::Taken { .. })));
        assert!(claim.is_cancelled());
        claim.end(Standing::Cancelled, None).unwrap();
        let error = queue.cancel(&id, Duration::ZERO).unwrap_err().to_string();
        assert_eq!(error, format!("job `{id}` is cancelled already"));
        let other = queue.submit(&request(), None).unwrap().id;
        queue.cancel(&other, Duration::ZERO).unwrap();
        assert_eq!(queue.job(&other).unwrap().status.state, Standing::Cancelled);
    }

    #[test]
    fn names_that_lead_elsewhere_are_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(&dir.path().join("queue")).unwrap();
        for id in ["", "..", "../x", ".new-1-0", "nothing"] {
            let error = queue.job(id).unwrap_err();
            assert!(matches!(error, BatchError::Unknown { .. }), "{id}: {error}");
        }
    }
}

//! One job in the server's memory: its record, and who keeps it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::disk::{Disk, JobDir, Record};
use super::keeper::Keeper;
use super::model::{Event, Job, Savepoint};
use super::{ControlError, file};
use crate::base::{format_time, wall_clock};
use crate::plan::model::Plan;

/// How jobs are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the server.
    pub data: PathBuf,
    /// The program that runs a job: this one.
    pub program: PathBuf,
    /// How long a job may take to stop before it is killed.
    pub stop_timeout: Duration,
    /// So many deaths without a new epoch between them are a failure.
    pub deaths_max: u32,
    /// Bytes of a job's log, after which it is begun anew; the one before is kept.
    pub log_bytes_max: u64,
}

impl Options {
    /// The usual ones.
    pub fn new(data: PathBuf, program: PathBuf) -> Options {
        Options { data, program, stop_timeout: Duration::from_secs(60), deaths_max: 5, log_bytes_max: 8 << 20 }
    }
}

/// What all jobs of a server share.
pub(super) struct Shared {
    pub disk: Disk,
    pub options: Options,
    pub jobs: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Directory in which the server was started: relative paths of job files count from it.
    pub directory: PathBuf,
    pub closing: AtomicBool,
    /// Grows when a job comes, goes, gets another file, begins or ends: whatever is derived of that is made anew.
    pub changes: Arc<AtomicU64>,
    /// Held from the look at other jobs' places until the job is there.
    pub admission: Mutex<()>,
    /// Keeps other servers out of the directory.
    pub _lock: File,
}

/// One job.
pub(super) struct Entry {
    pub id: String,
    pub dir: JobDir,
    changes: Arc<AtomicU64>,
    inner: Mutex<Inner>,
    wake: Condvar,
    plan: Mutex<Option<(u64, Arc<Plan>)>>,
}

struct Inner {
    record: Record,
    /// Somebody keeps the job.
    kept: bool,
    /// The job is deleted.
    gone: bool,
    /// Grows with every change from outside.
    pokes: u64,
}

/// Now, as the API tells times.
pub(super) fn now() -> String {
    format_time(wall_clock())
}

/// Now, in seconds since 1970.
pub(super) fn seconds() -> i64 {
    wall_clock() / 1_000_000
}

impl Entry {
    /// A job with this record.
    pub fn new(dir: JobDir, record: Record, changes: &Arc<AtomicU64>) -> Arc<Entry> {
        let id = record.job.id.clone();
        let inner = Inner { record, kept: false, gone: false, pokes: 0 };
        let changes = Arc::clone(changes);
        Arc::new(Entry { id, dir, changes, inner: Mutex::new(inner), wake: Condvar::new(), plan: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record as it is now.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// The job as the API shows it.
    pub fn job(&self) -> Job {
        self.lock().record.job.clone()
    }

    /// Whether the job is deleted.
    pub fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Changes the record, on disk first. Whatever `change` refuses is not changed.
    ///
    /// # Errors
    /// What `change` says; when the record cannot be written; when the job is deleted.
    pub fn change<T>(&self, change: impl FnOnce(&mut Record) -> Result<T, ControlError>) -> Result<T, ControlError> {
        let mut inner = self.lock();
        if inner.gone {
            return Err(ControlError::NotFound(format!("there is no job `{}`", self.id)));
        }
        let mut record = inner.record.clone();
        let out = change(&mut record)?;
        if record != inner.record {
            record.job.updated = now();
            self.dir.write_record(&record)?;
            let served = |job: &Job| (job.version, job.state.at_rest());
            let differs = served(&record.job) != served(&inner.record.job);
            inner.record = record;
            if differs {
                self.changes.fetch_add(1, Ordering::Release);
            }
        }
        Ok(out)
    }

    /// Changes the list of savepoints.
    ///
    /// # Errors
    /// As [`Entry::change`].
    pub fn change_savepoints<T>(
        &self,
        change: impl FnOnce(&mut Vec<Savepoint>) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        self.change(|record| {
            let mut list = self.dir.savepoints()?;
            let before = list.clone();
            let out = change(&mut list)?;
            if list != before {
                self.dir.write_savepoints(&list)?;
                record.job.savepoints = list.len() as u64;
            }
            Ok(out)
        })
    }

    /// Takes the job out of the world.
    ///
    /// # Errors
    /// When its directory cannot be removed.
    pub fn remove(&self) -> Result<(), ControlError> {
        let mut inner = self.lock();
        self.dir.remove()?;
        inner.gone = true;
        Ok(())
    }

    /// Adds to the job's history. A history that cannot be written stops nothing.
    pub fn tell(&self, who: &str, what: &str, outcome: &str, detail: impl Into<String>) {
        let version = self.lock().record.job.version;
        let detail = file::without_users(&detail.into());
        tracing::info!(job = self.id, who, what, outcome, detail, "job");
        let event = Event { at: now(), who: who.into(), what: what.into(), outcome: outcome.into(), detail, version };
        if let Err(error) = self.dir.append(&event) {
            tracing::error!(job = self.id, %error, "the job's history cannot be written");
        }
    }

    /// The plan of the version that the job runs.
    ///
    /// # Errors
    /// When its file has faults by now.
    pub fn plan(&self) -> Result<Arc<Plan>, ControlError> {
        let version = self.job().version;
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, plan)) = &*plan
            && *of == version
        {
            return Ok(Arc::clone(plan));
        }
        let (_, settings) = self.dir.read_file(version)?;
        let made = Arc::new(file::plan_of(&self.dir.file(version), &settings, &self.dir.state())?);
        *plan = Some((version, Arc::clone(&made)));
        Ok(made)
    }

    /// Keeps a plan that was just made.
    pub fn set_plan(&self, version: u64, plan: Plan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, Arc::new(plan)));
    }

    /// Has somebody look at the job.
    pub fn poke(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut inner = self.lock();
        inner.pokes += 1;
        self.wake.notify_all();
        if inner.kept || inner.gone || shared.closing.load(Ordering::Relaxed) {
            return;
        }
        let keeper = Keeper::new(Arc::clone(shared), Arc::clone(self));
        match std::thread::Builder::new().name(format!("keep-{}", self.id)).spawn(move || keeper.run()) {
            Ok(_) => inner.kept = true,
            Err(error) => tracing::error!(job = self.id, %error, "no thread can be had to keep the job"),
        }
    }

    /// How often the job was poked.
    pub fn pokes(&self) -> u64 {
        self.lock().pokes
    }

    /// Waits, unless the job was poked since `seen`.
    pub fn wait(&self, seen: u64, pause: Duration) {
        let inner = self.lock();
        let result = self.wake.wait_timeout_while(inner, pause, |inner| inner.pokes == seen);
        drop(result);
    }

    /// The keeper leaves, unless the job was poked since `seen`.
    pub fn leave(&self, seen: u64) -> bool {
        let mut inner = self.lock();
        if inner.pokes != seen && !inner.gone {
            return false;
        }
        inner.kept = false;
        true
    }
}

//! What can be asked of jobs.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::disk::{Disk, JobDir, Record, Stop, is_id};
use super::entry::{Entry, Options, Shared, now, seconds};
use super::file::{self, Sound};
use super::model::{
    Checked, Desired, Event, Job, JobFile, JobState, Log, PlanText, RestartRequest, Savepoint, SavepointRequest,
    SavepointState, Settings, StopMode, StopRequest, Submission,
};
use super::talk::{Talk, TalkError};
use super::{ControlError, model, process};
use crate::base::failpoint;
use crate::engine::status::{JobStatus, LetterStatus};
use crate::plan::model::Plan;
use crate::state;
use crate::telemetry::older_log;

/// Bytes of a log that are answered at most.
const LOG_BYTES: u64 = 1 << 20;
/// How long a deletion is waited for.
const DELETED: Duration = Duration::from_secs(30);

/// The jobs of a server.
#[derive(Clone)]
pub struct Manager {
    pub(super) shared: Arc<Shared>,
}

impl Manager {
    /// The jobs in a directory. Those that run are found and kept on; those that should run and do not are started.
    ///
    /// # Errors
    /// When the directory cannot be used, or another server uses it.
    pub fn open(options: Options) -> Result<Manager, ControlError> {
        let disk = Disk::open(&options.data)?;
        let path = disk.root().join("lock");
        let failed = |error| ControlError::disk(&path, error);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(ControlError::Conflict(format!(
                    "another server uses {}; stop it, or give --data another directory",
                    disk.root().display()
                )));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let directory = std::env::current_dir().map_err(|error| ControlError::disk(Path::new("."), error))?;
        let shared = Arc::new(Shared {
            disk,
            options,
            jobs: RwLock::default(),
            directory,
            closing: AtomicBool::new(false),
            changes: Arc::new(AtomicU64::new(1)),
            admission: Mutex::default(),
            _lock: lock,
        });
        let manager = Manager { shared };
        manager.find()?;
        Ok(manager)
    }

    /// Takes the jobs on disk over, with the processes that run them.
    fn find(&self) -> Result<(), ControlError> {
        let mut running = process::running();
        let mut found = BTreeMap::new();
        for id in self.shared.disk.ids()? {
            let dir = self.shared.disk.job(&id);
            let mut record = match dir.record() {
                Ok(Some(record)) => record,
                // A submission that was cut short, or a deletion.
                Ok(None) => {
                    dir.remove()?;
                    continue;
                }
                Err(error) => {
                    // Its process too.
                    running.remove(dir.path());
                    tracing::error!(job = id, %error, "the job is left aside");
                    continue;
                }
            };
            let adopted = running.remove(dir.path());
            if let Some(process) = adopted.filter(|process| record.process != Some(*process)) {
                // It was started, and the server died before it could say so.
                record.process = Some(process);
                record.job.pid = Some(process.pid);
                dir.write_record(&record)?;
            }
            let entry = Entry::new(dir, record, &self.shared.changes);
            if let Some(process) = adopted {
                entry.tell("server", "adopt", "done", format!("process {} goes on", process.pid));
            }
            found.insert(id, entry);
        }
        for (job, process) in running.iter().filter(|(job, _)| job.starts_with(self.shared.disk.root())) {
            // Its submission never came to be, or it was being deleted.
            tracing::warn!(job = %job.display(), pid = process.pid, "a process of a job that is no more is ended");
            process.kill();
        }
        let entries: Vec<Arc<Entry>> = found.values().cloned().collect();
        *self.shared.jobs.write().unwrap_or_else(PoisonError::into_inner) = found;
        entries.iter().for_each(|entry| entry.poke(&self.shared));
        Ok(())
    }

    /// Keeps nobody any more. Processes of jobs go on.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.entries().iter().for_each(|entry| entry.poke(&self.shared));
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.shared.jobs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn entry(&self, id: &str) -> Result<Arc<Entry>, ControlError> {
        let jobs = self.shared.jobs.read().unwrap_or_else(PoisonError::into_inner);
        let none = || ControlError::NotFound(format!("there is no job `{}`", shortened(id)));
        jobs.get(id).cloned().ok_or_else(none)
    }

    /// Directory of the server.
    pub fn root(&self) -> &Path {
        self.shared.disk.root()
    }

    /// Directory of a job that is there: its state is in `state` in it.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn directory(&self, id: &str) -> Result<PathBuf, ControlError> {
        Ok(self.entry(id)?.dir.path().to_owned())
    }

    /// The compiled plan of a job.
    ///
    /// # Errors
    /// When there is no such job, or its file has faults by now.
    pub fn compiled(&self, id: &str) -> Result<Arc<Plan>, ControlError> {
        self.entry(id)?.plan()
    }

    // ---- looks ----

    /// All jobs, by id.
    pub fn list(&self) -> Vec<Job> {
        self.entries().iter().map(|entry| entry.job()).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// When there is none.
    pub fn job(&self, id: &str) -> Result<Job, ControlError> {
        Ok(self.entry(id)?.job())
    }

    /// A job's file, of a version or of the one that it runs.
    ///
    /// # Errors
    /// When there is no such job or version.
    pub fn file(&self, id: &str, version: Option<u64>) -> Result<JobFile, ControlError> {
        let entry = self.entry(id)?;
        let version = version.unwrap_or(entry.job().version);
        let (text, settings) = entry.dir.read_file(version)?;
        Ok(JobFile {
            version,
            versions: entry.dir.versions()?,
            file: file::redacted(&text),
            settings: file::shown_settings(&settings),
        })
    }

    /// A job's plan in words.
    ///
    /// # Errors
    /// When there is no such job, or its file has faults by now.
    pub fn plan(&self, id: &str) -> Result<PlanText, ControlError> {
        let entry = self.entry(id)?;
        let plan = entry.plan()?;
        let text = crate::engine::check(&plan).map_err(ControlError::Faults)?;
        Ok(PlanText { version: entry.job().version, plan: text, summary: file::summary(&plan) })
    }

    /// What was done with a job, the newest `limit` entries, oldest first.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn history(&self, id: &str, limit: usize) -> Result<Vec<Event>, ControlError> {
        self.entry(id)?.dir.history(limit)
    }

    /// The end of a job's log: `lines` lines, or what came after the place that an earlier answer named.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn log(&self, id: &str, lines: usize, after: Option<u64>) -> Result<Log, ControlError> {
        let path = self.entry(id)?.dir.logs().join("job.log");
        let length = std::fs::metadata(&path).map_or(0, |file| file.len());
        let read = |path: &Path, bytes: u64| super::disk::tail(path, bytes.min(LOG_BYTES)).unwrap_or_default();
        let text = match after {
            Some(after) if after <= length => read(&path, length - after),
            // The file was begun anew since: first what the one before had to say after that.
            Some(after) => {
                let older = older_log(&path);
                let before = std::fs::metadata(&older).map_or(0, |file| file.len());
                read(&older, before.saturating_sub(after)) + &read(&path, length)
            }
            None => {
                let newest = read(&path, LOG_BYTES);
                match newest.lines().count() < lines {
                    true => read(&older_log(&path), LOG_BYTES) + &newest,
                    false => newest,
                }
            }
        };
        // Half a line comes whole the next time.
        let (whole, rest) = text.rsplit_once('\n').map_or(("", text.as_str()), |(whole, rest)| (whole, rest));
        let mut list: Vec<String> = whole.lines().map(file::without_users).collect();
        if after.is_none() {
            list.drain(..list.len().saturating_sub(lines));
        }
        Ok(Log { lines: list, next: length.saturating_sub(rest.len() as u64) })
    }

    /// How a running job is.
    ///
    /// # Errors
    /// When there is no such job, it does not run, or does not answer.
    pub fn status(&self, id: &str) -> Result<JobStatus, ControlError> {
        self.talk(id)?.get("/v1/status").map_err(told)
    }

    /// The metrics of a running job, in Prometheus' text format.
    ///
    /// # Errors
    /// As [`Manager::status`].
    pub fn metrics(&self, id: &str) -> Result<String, ControlError> {
        self.talk(id)?.text("/metrics").map_err(told)
    }

    /// The newest dead letters of a running job.
    ///
    /// # Errors
    /// As [`Manager::status`].
    pub fn letters(&self, id: &str, limit: u32) -> Result<Vec<LetterStatus>, ControlError> {
        self.talk(id)?.get(&format!("/v1/letters?limit={limit}")).map_err(told)
    }

    fn talk(&self, id: &str) -> Result<Talk, ControlError> {
        let entry = self.entry(id)?;
        let record = entry.record();
        let state = record.job.state.name();
        let Some(process) = record.process else {
            return Err(ControlError::Conflict(format!("the job has no process now: it is {state}")));
        };
        Talk::of(&entry.dir.state(), process.pid)
            .ok_or_else(|| ControlError::Away(format!("the job's process does not answer yet: it is {state}")))
    }

    /// The savepoints of a job, oldest first.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn savepoints(&self, id: &str) -> Result<Vec<Savepoint>, ControlError> {
        self.entry(id)?.dir.savepoints()
    }

    /// A savepoint.
    ///
    /// # Errors
    /// When there is no such job or savepoint.
    pub fn savepoint(&self, id: &str, trigger: &str) -> Result<Savepoint, ControlError> {
        let found = self.savepoints(id)?.into_iter().find(|one| one.trigger == trigger);
        found.ok_or_else(|| ControlError::NotFound(format!("`{id}` has no savepoint `{}`", shortened(trigger))))
    }

    // ---- changes ----

    /// Holds a file against all that it names.
    ///
    /// # Errors
    /// All its faults.
    pub fn check(&self, submission: &Submission) -> Result<Checked, ControlError> {
        Ok(file::check(&submission.file, &settings(submission), &self.shared.directory)?.told())
    }

    /// Takes a job in, and has it run.
    ///
    /// # Errors
    /// All faults of its file; a job that writes to the same places.
    pub fn submit(&self, submission: Submission, who: &str) -> Result<Job, ControlError> {
        let settings = settings(&submission);
        let sound = file::check(&submission.file, &settings, &self.shared.directory)?;
        self.check_from(&sound, &settings)?;
        let name = sound.plan.job.clone();
        let _admitted = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_places(&sound.plan, None)?;
        let id = format!("{name}-{}", self.shared.disk.next_number(&name)?);
        if !is_id(&id) {
            return Err(ControlError::Wrong(format!(
                "`{name}` cannot be a directory's name; give the job a shorter one"
            )));
        }
        let dir = self.shared.disk.job(&id);
        dir.create()?;
        dir.write_file(1, &submission.file, &settings)?;
        let job = Job {
            id: id.clone(),
            name,
            version: 1,
            desired: Desired::Running,
            state: JobState::Starting,
            restarts: 0,
            error: None,
            created: now(),
            updated: now(),
            workers: settings.workers,
            pid: None,
            started: None,
            doing: None,
            savepoints: 0,
        };
        let record = Record::new(job.clone(), self.shared.directory.clone());
        failpoint("control.submit");
        dir.write_record(&record)?;
        failpoint("control.submitted");
        let entry = Entry::new(dir, record, &self.shared.changes);
        entry.set_plan(1, sound.plan);
        self.shared.jobs.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&entry));
        self.shared.changes.fetch_add(1, Ordering::Release);
        entry.tell(who, "submit", "done", "");
        entry.poke(&self.shared);
        Ok(job)
    }

    /// A savepoint that a job is to begin with has to be there, and lose nothing that must not be lost.
    fn check_from(&self, sound: &Sound, settings: &Settings) -> Result<(), ControlError> {
        let Some(from) = &settings.from else { return Ok(()) };
        let changes = crate::engine::compare(&sound.plan, from)?;
        if !changes.lost.is_empty() && !settings.allow_drop {
            return Err(ControlError::Loss(changes));
        }
        Ok(())
    }

    /// Two jobs that write the same tables double their rows, and an embedded store locks to one process.
    pub(super) fn check_places(&self, plan: &Plan, but: Option<&str>) -> Result<(), ControlError> {
        let places = |plan: &Plan| {
            let tables = plan.offline.as_ref().map(|offline| ("sinks.offline.delta.uri", offline.uri.clone()));
            let online = plan.online.as_ref().and_then(|online| online.store.directory());
            let online = online.map(|path| ("sinks.online.embedded.path", path.display().to_string()));
            tables.into_iter().chain(online).collect::<Vec<_>>()
        };
        let ours = places(plan);
        for entry in self.entries() {
            if Some(entry.id.as_str()) == but || entry.job().state.at_rest() {
                continue;
            }
            let Ok(theirs) = entry.plan() else { continue };
            if let Some((key, place)) = ours.iter().find(|place| places(&theirs).contains(place)) {
                return Err(ControlError::Conflict(format!(
                    "{} writes to {} already; stop it first, or set `{key}` to another place",
                    entry.id,
                    file::without_users(place)
                )));
            }
        }
        Ok(())
    }

    /// Has a job run.
    ///
    /// # Errors
    /// When there is no such job, it is being stopped, or another writes to its places.
    pub fn start(&self, id: &str, who: &str) -> Result<Job, ControlError> {
        let entry = self.entry(id)?;
        let _admitted = self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.job().state.at_rest()
            && let Ok(plan) = entry.plan()
        {
            self.check_places(&plan, Some(id))?;
        }
        let (job, begun) = entry.change(|record| {
            not_deleted(record)?;
            if !record.job.state.at_rest() {
                return match record.job.desired {
                    Desired::Running => Ok((record.job.clone(), false)),
                    Desired::Stopped => {
                        Err(ControlError::Conflict(format!("{id} is being stopped; start it when it is STOPPED")))
                    }
                };
            }
            record.run_again();
            Ok((record.job.clone(), true))
        })?;
        if begun {
            entry.tell(who, "start", "done", "");
            entry.poke(&self.shared);
        }
        Ok(job)
    }

    /// Has a job stop. One that is at rest stays so.
    ///
    /// # Errors
    /// When there is no such job, or no savepoint can be written where it is wanted.
    pub fn stop(&self, id: &str, request: &StopRequest, who: &str) -> Result<Job, ControlError> {
        let entry = self.entry(id)?;
        let savepoint = match &request.savepoint {
            Some(place) => {
                if request.mode == StopMode::Now {
                    return Err(ControlError::Wrong(
                        "`savepoint` cannot go with mode `now`, which saves nothing; stop with `checkpoint`".to_owned(),
                    ));
                }
                let place = entry.place(place)?;
                Some((format!("stop-{}-{}", seconds(), entry.job().savepoints + 1), place))
            }
            None => None,
        };
        let job = entry.change(|record| {
            not_deleted(record)?;
            let stop = Stop { mode: request.mode, savepoint, asked: seconds(), who: who.to_owned() };
            match record.job.state {
                JobState::Stopped | JobState::Finished if stop.savepoint.is_none() => {}
                JobState::Stopped | JobState::Finished => record.stop = Some(stop),
                _ => {
                    record.job.desired = Desired::Stopped;
                    record.job.doing = None;
                    record.upgrade = None;
                    record.job.state = JobState::Stopping;
                    record.stop = Some(stop);
                }
            }
            Ok(record.job.clone())
        })?;
        entry.tell(who, "stop", "asked", request.mode.name());
        entry.poke(&self.shared);
        Ok(job)
    }

    /// Stops a job and starts it again; starts one that is at rest.
    ///
    /// # Errors
    /// When there is no such job, or it is being changed.
    pub fn restart(&self, id: &str, request: &RestartRequest, who: &str) -> Result<Job, ControlError> {
        if request.mode == StopMode::Drain {
            return Err(ControlError::Wrong(
                "`drain` ends the job's input for good, so it cannot be started again; restart with `checkpoint`"
                    .into(),
            ));
        }
        let entry = self.entry(id)?;
        if entry.job().state.at_rest() {
            return self.start(id, who);
        }
        let job = entry.change(|record| {
            not_changing(record)?;
            if record.job.desired == Desired::Stopped {
                return Err(ControlError::Conflict(format!("{id} is being stopped; start it when it is STOPPED")));
            }
            record.job.doing = Some(model::Doing::Restart);
            record.job.restarts = 0;
            record.deaths.clear();
            record.stop = Some(Stop { mode: request.mode, savepoint: None, asked: seconds(), who: who.to_owned() });
            Ok(record.job.clone())
        })?;
        entry.tell(who, "restart", "asked", request.mode.name());
        entry.poke(&self.shared);
        Ok(job)
    }

    /// Asks for a savepoint. The same trigger twice is one savepoint.
    ///
    /// # Errors
    /// When there is no such job, the place cannot be written, or the trigger was used with another place.
    pub fn save(&self, id: &str, request: &SavepointRequest, who: &str) -> Result<Savepoint, ControlError> {
        let entry = self.entry(id)?;
        let trigger = match &request.trigger {
            Some(trigger) => trigger.clone(),
            None => format!("{}-{}", seconds(), entry.job().savepoints + 1),
        };
        if trigger.len() > 64 || !is_id(&trigger) || trigger.starts_with('_') {
            return Err(ControlError::Wrong(format!(
                "`trigger` is {:?}; write up to 64 letters, digits, `-`, `_` and `.`, with a letter or digit first",
                shortened(&trigger)
            )));
        }
        let known = |list: &[Savepoint], place: Option<&str>| match list.iter().find(|one| one.trigger == trigger) {
            Some(one) if place.is_some_and(|place| place != one.place) => Err(ControlError::Conflict(format!(
                "the trigger `{trigger}` was used for a savepoint in {}; use another one",
                one.place
            ))),
            one => Ok(one.cloned()),
        };
        let asked = request.place.as_deref().map(|place| entry.absolute(place)).transpose()?;
        if let Some(one) = known(&entry.dir.savepoints()?, asked.as_deref())? {
            return Ok(one);
        }
        let place = match asked {
            Some(place) => entry.place(&place)?,
            None => entry.dir.savepoint(&trigger).display().to_string(),
        };
        let (savepoint, new) = entry.change_savepoints(|list| {
            if let Some(one) = known(list, Some(&place))? {
                return Ok((one, false));
            }
            let savepoint = Savepoint {
                trigger: trigger.clone(),
                state: SavepointState::Running,
                place,
                epoch: None,
                error: None,
                version: entry_version(&entry.dir),
                asked: now(),
            };
            list.push(savepoint.clone());
            Ok((savepoint, true))
        })?;
        if new {
            entry.tell(who, "savepoint", "asked", format!("{}: {}", savepoint.trigger, savepoint.place));
        }
        entry.poke(&self.shared);
        Ok(savepoint)
    }

    /// Deletes a job with its files, state and log. Its tables and savepoints elsewhere stay.
    ///
    /// # Errors
    /// When there is no such job; when it is not at rest, and `force` is not given.
    pub fn delete(&self, id: &str, force: bool, who: &str) -> Result<Job, ControlError> {
        let entry = self.entry(id)?;
        entry.change(|record| {
            if !record.job.state.at_rest() && !force {
                return Err(ControlError::Conflict(format!(
                    "{id} is {}; stop it first, or delete it with `force=true`",
                    record.job.state.name()
                )));
            }
            record.job.desired = Desired::Stopped;
            record.job.doing = Some(model::Doing::Delete);
            record.upgrade = None;
            record.stop = Some(Stop { mode: StopMode::Now, savepoint: None, asked: seconds(), who: who.to_owned() });
            Ok(())
        })?;
        entry.tell(who, "delete", "asked", "");
        let job = entry.job();
        entry.poke(&self.shared);
        let until = Instant::now() + DELETED;
        while !entry.is_gone() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(job)
    }
}

impl Shared {
    /// The job is deleted.
    pub fn forget(&self, id: &str) {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.changes.fetch_add(1, Ordering::Release);
    }
}

impl Entry {
    /// A place for a savepoint that can be written to.
    fn place(&self, place: &str) -> Result<String, ControlError> {
        let place = self.absolute(place)?;
        state::check_savepoint_target(&place)?;
        Ok(place)
    }

    /// A relative path counts from the job's directory of work.
    fn absolute(&self, place: &str) -> Result<String, ControlError> {
        if place.trim().is_empty() || place.contains('\0') {
            return Err(ControlError::Wrong("the savepoint's place is empty, or holds a zero byte".to_owned()));
        }
        if place.contains("://") || Path::new(place).is_absolute() {
            return Ok(place.to_owned());
        }
        Ok(self.record().directory.join(place).display().to_string())
    }
}

impl Record {
    /// Of a job that is about to begin.
    pub(super) fn new(job: Job, directory: PathBuf) -> Record {
        Record {
            newest: job.version,
            job,
            directory,
            process: None,
            stop: None,
            upgrade: None,
            deaths: Vec::new(),
            killed: 0,
            signalled: None,
            keeps_error: false,
            epoch: None,
        }
    }

    /// Somebody wants the job to run: what was is past.
    pub(super) fn run_again(&mut self) {
        self.job.desired = Desired::Running;
        self.job.state = JobState::Starting;
        self.job.restarts = 0;
        self.job.error = None;
        self.job.doing = None;
        self.stop = None;
        self.upgrade = None;
        self.keeps_error = false;
        self.deaths.clear();
    }
}

fn entry_version(dir: &JobDir) -> u64 {
    dir.record().ok().flatten().map_or(1, |record| record.job.version)
}

/// What a job is submitted with, besides its file.
fn settings(submission: &Submission) -> Settings {
    Settings {
        values: submission.values.clone(),
        set: submission.set.clone(),
        workers: submission.workers,
        from: submission.from.clone(),
        until_end: submission.until_end,
        allow_drop: submission.allow_drop,
    }
}

/// Refuses to change what is about to go.
pub(super) fn not_deleted(record: &Record) -> Result<(), ControlError> {
    match record.job.doing {
        Some(model::Doing::Delete) => Err(ControlError::Conflict(format!("{} is being deleted", record.job.id))),
        _ => Ok(()),
    }
}

/// Refuses to change what is being changed.
pub(super) fn not_changing(record: &Record) -> Result<(), ControlError> {
    match record.job.doing {
        Some(model::Doing::Upgrade) => Err(ControlError::Conflict(format!(
            "{} is being upgraded; wait until that is done, or stop it",
            record.job.id
        ))),
        _ => not_deleted(record),
    }
}

fn told(error: TalkError) -> ControlError {
    match error {
        TalkError::Refused { status: 404, detail } => ControlError::NotFound(detail),
        TalkError::Refused { status: 400..500, detail } => ControlError::Conflict(detail),
        error => ControlError::Away(error.to_string()),
    }
}

/// What a client sent is not repeated at any length.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

//! Keeps one job as it is wanted: starts it, watches it, stops it, starts it again.
//!
//! A keeper is a thread for as long as there is something to do about its job. It reads in the job's record what is wanted,
//! and writes there what it has found before it acts on that; so whichever step the server dies at, the next one goes on from
//! the record and from the process that it finds.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::disk::{ProcessId, Record, Stop};
use super::ending::{MARK, explain, printed_summary};
use super::entry::{Entry, Shared, now, seconds};
use super::model::{Desired, Doing, JobState, Savepoint, SavepointState, StopMode};
use super::process::Launch;
use super::talk::{Talk, TalkError};
use super::{ControlError, file};
use crate::base::{SplitMix64, any_seed, failpoint};
use crate::engine;
use crate::engine::status::{self, JobStatus, SavepointStatus};
use crate::state;

/// How often a process that comes or goes is looked at.
const SOON: Duration = Duration::from_millis(50);
/// How often one that runs is looked at.
const STEADY: Duration = Duration::from_millis(200);
/// How often one that runs is asked how it is.
const ASK: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Deaths that are longer ago do not count, in seconds.
const WINDOW: i64 = 900;
/// A process that has run for so long with a new file runs with it.
const SETTLED: Duration = Duration::from_secs(10);
/// The pause after the first death, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The program's exit code for a bad file or bad arguments: it will not get better by trying.
const BAD_FILE: i32 = 2;
/// Starts that may end with that.
const BAD_FILES_MAX: usize = 2;
/// Names a variable of the server's that holds failpoints of a job: for tests.
const FAILPOINTS_OF: &str = "TIDEMILL_FAILPOINTS_OF_";

/// Keeps one job.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    child: Option<Child>,
    status: Option<ExitStatus>,
    /// How this process was asked to stop.
    asked: Option<StopMode>,
    /// When the next start may be.
    start_at: Option<Instant>,
    /// Since when this process has said that it runs.
    running_since: Option<Instant>,
    ask_at: Instant,
    /// Since when it has not answered.
    silent_since: Option<Instant>,
    random: SplitMix64,
}

impl Keeper {
    /// Of this job.
    pub fn new(shared: Arc<Shared>, entry: Arc<Entry>) -> Keeper {
        let seed = any_seed() ^ u64::from(std::process::id()) ^ entry.id.bytes().map(u64::from).sum::<u64>();
        Keeper {
            shared,
            entry,
            child: None,
            status: None,
            asked: None,
            start_at: None,
            running_since: None,
            ask_at: Instant::now(),
            silent_since: None,
            random: SplitMix64::new(seed),
        }
    }

    /// Until the job is at rest, or the server ends. The job's process stays.
    pub fn run(mut self) {
        loop {
            if self.shared.closing.load(Ordering::Relaxed) {
                return;
            }
            let seen = self.entry.pokes();
            let step = catch_unwind(AssertUnwindSafe(|| self.step()));
            let pause = match step {
                Ok(Ok(Some(pause))) => pause,
                Ok(Ok(None)) if self.entry.leave(seen) => return,
                Ok(Ok(None)) => continue,
                Ok(Err(_)) if self.entry.is_gone() => return,
                Ok(Err(error)) => {
                    tracing::warn!(job = self.entry.id, %error, "the job cannot be kept as wanted; tried again");
                    Duration::from_secs(1)
                }
                Err(_) => {
                    tracing::error!(job = self.entry.id, "a defect of the server, while keeping the job; tried again");
                    Duration::from_secs(1)
                }
            };
            self.entry.wait(seen, pause);
        }
    }

    /// What is to be done next; how long to wait after it, none when nothing is left to do.
    fn step(&mut self) -> Result<Option<Duration>, ControlError> {
        let record = self.entry.record();
        match record.process {
            Some(process) if self.is_alive(process) => self.tend(&record, process).map(Some),
            Some(process) => self.bury(&record, process).map(|()| Some(Duration::ZERO)),
            None => self.idle(&record),
        }
    }

    fn is_alive(&mut self, process: ProcessId) -> bool {
        match &mut self.child {
            Some(child) if child.id() == process.pid => match child.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    self.status = Some(status);
                    false
                }
                Err(_) => process.is_alive(),
            },
            _ => process.is_alive(),
        }
    }

    // ---- a process is there ----

    fn tend(&mut self, record: &Record, process: ProcessId) -> Result<Duration, ControlError> {
        let changing = match record.doing() {
            Some(Doing::Upgrade) => record.upgrade.as_ref().is_some_and(|upgrade| !upgrade.started),
            Some(Doing::Restart | Doing::Delete) => true,
            None => false,
        };
        let talk = Talk::of(&self.entry.dir.state(), process.pid).map(|talk| talk.patient(PATIENCE));
        if record.job.desired == Desired::Stopped || changing {
            return self.stop(record, process, talk.as_ref());
        }
        if Instant::now() < self.ask_at {
            return Ok(if record.job.state == JobState::Starting { SOON } else { STEADY });
        }
        let told = talk.as_ref().map(|talk| talk.get::<JobStatus>("/v1/status"));
        let pending = match talk.as_ref().zip(told.as_ref()) {
            Some((talk, Ok(_))) => self.pass_on_savepoints(talk)?,
            _ => false,
        };
        self.note(record, told)?;
        let starting = self.entry.job().state == JobState::Starting;
        self.ask_at = Instant::now() + if starting || pending { 4 * SOON } else { ASK };
        Ok(if starting { SOON } else { STEADY })
    }

    /// Takes note of what a process tells of itself.
    fn note(&mut self, record: &Record, told: Option<Result<JobStatus, TalkError>>) -> Result<(), ControlError> {
        let status = match told {
            Some(Ok(status)) => status,
            // One that has not come to listen yet is starting.
            None => return Ok(()),
            Some(Err(error)) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SETTLED && record.job.state == JobState::Running {
                    return self.entry.change(|record| {
                        record.job.error =
                            Some(format!("{error}; it is not restarted for that: restart it, or stop it"));
                        Ok(())
                    });
                }
                return Ok(());
            }
        };
        let was_silent = self.silent_since.take().is_some();
        let runs = status.state == status::JobState::Running;
        let since = if runs { Some(*self.running_since.get_or_insert_with(Instant::now)) } else { None };
        let epoch = status.checkpoints.iter().map(|checkpoint| checkpoint.epoch).max();
        let progress = epoch > record.epoch;
        let settled = runs && (progress || since.is_some_and(|since| since.elapsed() >= SETTLED));
        let upgraded = self.entry.change(|record| {
            if runs {
                record.job.state = JobState::Running;
            }
            if progress {
                record.deaths.clear();
            }
            // Why it died last stays to be seen until it has got further.
            if (settled || was_silent) && !record.keeps_error {
                record.job.error = None;
            }
            match &record.upgrade {
                Some(upgrade) if upgrade.started && settled => {
                    record.job.doing = None;
                    Ok(record.upgrade.take())
                }
                _ => Ok(None),
            }
        })?;
        if let Some(upgrade) = upgraded {
            let (from, to) = (upgrade.from, upgrade.to);
            self.entry.tell(&upgrade.who, "upgrade", "done", format!("from version {from} to version {to}"));
        }
        Ok(())
    }

    /// Has a process stop, and kills it when that takes too long.
    fn stop(&mut self, record: &Record, process: ProcessId, talk: Option<&Talk>) -> Result<Duration, ControlError> {
        let stop = record.stop.clone().unwrap_or_else(|| Stop::by_server(StopMode::Checkpoint));
        if record.job.state != JobState::Stopping {
            self.entry.change(|record| {
                record.job.state = JobState::Stopping;
                Ok(())
            })?;
        }
        let timeout = match stop.mode {
            // All open windows come out first.
            StopMode::Drain => 10 * self.shared.options.stop_timeout,
            StopMode::Checkpoint => self.shared.options.stop_timeout,
            // There is nothing to wait for but good manners.
            StopMode::Now => self.shared.options.stop_timeout.min(Duration::from_secs(1)),
        };
        if seconds().saturating_sub(stop.asked) > timeout.as_secs() as i64 {
            // What is killed is noted before, so that nobody takes it for a death.
            self.entry.change(|record| {
                record.killed += 1;
                Ok(())
            })?;
            process.kill();
            if stop.mode != StopMode::Now {
                let said = format!("it did not stop within {} s, and was killed", timeout.as_secs());
                self.entry.tell("server", "kill", "done", said);
            }
            return Ok(SOON);
        }
        if self.asked == Some(stop.mode) {
            return Ok(SOON);
        }
        failpoint("control.stop");
        let mode = match stop.mode {
            StopMode::Checkpoint => status::StopMode::Checkpoint,
            StopMode::Drain => status::StopMode::Drain,
            StopMode::Now => status::StopMode::Now,
        };
        let asked = talk.map(|talk| talk.post("/v1/stop", &status::StopRequest { mode }));
        match asked {
            Some(Ok(())) => self.asked = Some(stop.mode),
            Some(Err(error)) => tracing::info!(job = self.entry.id, %error, "asked to stop"),
            // It listens to signals before it listens to us; a second signal would cut the first one's work short.
            None if stop.mode == StopMode::Checkpoint => {
                if record.signalled != Some(process) {
                    self.entry.change(|record| {
                        record.signalled = Some(process);
                        Ok(())
                    })?;
                    process.ask_to_end();
                }
                self.asked = Some(stop.mode);
            }
            None if stop.mode == StopMode::Now => process.kill(),
            None => {}
        }
        Ok(2 * SOON)
    }

    /// Has the process make the savepoints that were asked for, and looks how far they are. Whether some are not done.
    fn pass_on_savepoints(&mut self, talk: &Talk) -> Result<bool, ControlError> {
        let mut pending = false;
        for savepoint in self.entry.dir.savepoints()? {
            if savepoint.state != SavepointState::Running {
                continue;
            }
            let request =
                status::SavepointRequest { trigger: savepoint.trigger.clone(), place: savepoint.place.clone() };
            let told = talk
                .post("/v1/savepoints", &request)
                .and_then(|()| talk.get::<SavepointStatus>(&format!("/v1/savepoints/{}", savepoint.trigger)));
            match told {
                Ok(told) => {
                    let state = match told.state {
                        status::SavepointState::Running => {
                            pending = true;
                            continue;
                        }
                        status::SavepointState::Done => SavepointState::Done,
                        status::SavepointState::Failed => SavepointState::Failed,
                    };
                    self.savepoint_ended(&savepoint, state, told.epoch, told.error)?;
                }
                Err(TalkError::Refused { status, detail }) if (400..500).contains(&status) => {
                    self.savepoint_ended(&savepoint, SavepointState::Failed, None, Some(detail))?;
                }
                // Once more at the next look, to the same process or to its successor.
                Err(_) => pending = true,
            }
        }
        Ok(pending)
    }

    fn savepoint_ended(
        &self,
        savepoint: &Savepoint,
        state: SavepointState,
        epoch: Option<u64>,
        error: Option<String>,
    ) -> Result<(), ControlError> {
        self.entry.change_savepoints(|list| {
            for one in list.iter_mut().filter(|one| one.trigger == savepoint.trigger) {
                (one.state, one.epoch, one.error) = (state, epoch, error.clone());
            }
            Ok(())
        })?;
        let outcome = if state == SavepointState::Done { "done" } else { "failed" };
        let detail = error.unwrap_or_else(|| savepoint.place.clone());
        self.entry.tell("server", "savepoint", outcome, format!("{}: {detail}", savepoint.trigger));
        Ok(())
    }

    // ---- a process has ended ----

    fn bury(&mut self, record: &Record, process: ProcessId) -> Result<(), ControlError> {
        failpoint("control.dead");
        let status = self.status.take();
        self.child = None;
        let printed = self.entry.dir.logs().join("summary.json");
        let well = status.map_or_else(|| printed_summary(&printed), |status| status.success());
        let saved = self.entry.plan().and_then(|plan| Ok(engine::saved(&plan, &self.entry.dir.state())?));
        let saved = saved.unwrap_or_else(|error| {
            tracing::warn!(job = self.entry.id, %error, "what the job has saved cannot be read");
            None
        });
        let why = explain(status, &self.entry.dir.logs().join("job.log"));
        let bad_file = status.and_then(|status| status.code()) == Some(BAD_FILE);
        let (asked, options) = (self.asked.take(), self.shared.options.clone());
        self.running_since = None;
        self.silent_since = None;
        let mut pause = None;
        let unit = self.random.unit();
        let (what, outcome, detail) = self.entry.change(|record| {
            record.process = None;
            record.signalled = None;
            record.job.pid = None;
            record.job.started = None;
            let progress = saved.map(|saved| saved.epoch) > record.epoch;
            if record.job.desired == Desired::Stopped || record.changing() {
                let killed = std::mem::take(&mut record.killed) > 0;
                let now = record.stop.as_ref().is_some_and(|stop| stop.mode == StopMode::Now);
                if killed && !now {
                    record.job.error =
                        Some("it did not stop in time and was killed; its newest checkpoint is kept".into());
                    return Ok(("stop", "killed".to_owned(), String::new()));
                }
                if !well && !now {
                    record.job.error = Some(format!("while it was being stopped {why}"));
                    return Ok(("stop", "failed".to_owned(), why));
                }
                record.job.error = None;
                let mode = record.stop.as_ref().map_or("", |stop| stop.mode.name());
                return Ok(("stop", "done".to_owned(), mode.to_owned()));
            }
            if well && saved.is_some_and(|saved| saved.ended) {
                record.job.desired = Desired::Stopped;
                record.job.state = JobState::Finished;
                record.job.error = None;
                record.deaths.clear();
                if record.upgrade.take().is_some() {
                    record.job.doing = None;
                }
                return Ok(("finish", "done".to_owned(), String::new()));
            }
            // Whoever goes back to another file begins with a clean slate.
            if let Some(upgrade) = record.upgrade.take_if(|upgrade| upgrade.started && !(well || progress)) {
                record.job.version = upgrade.from;
                record.job.workers = self.entry.dir.read_file(upgrade.from).map_or(record.job.workers, |f| f.1.workers);
                record.job.doing = None;
                record.job.state = JobState::Restarting;
                record.deaths.clear();
                record.keeps_error = true;
                record.job.error = Some(format!(
                    "the upgrade to version {} failed, and the job went back to version {}: {why}",
                    upgrade.to, upgrade.from
                ));
                return Ok(("upgrade", "failed".to_owned(), why));
            }
            record.job.restarts += 1;
            record.job.state = JobState::Restarting;
            record.keeps_error = false;
            if well {
                // Somebody else asked it to end.
                return Ok(("end", "restarting".to_owned(), "it was asked to end, and not by the server".to_owned()));
            }
            let (now, of) = (seconds(), record.deaths.len());
            if progress {
                record.deaths.clear();
            }
            record.deaths.retain(|at| now.saturating_sub(*at) < WINDOW);
            record.deaths.push(now);
            let deaths = record.deaths.len();
            let max =
                if bad_file { BAD_FILES_MAX.min(options.deaths_max as usize) } else { options.deaths_max as usize };
            if deaths >= max {
                record.job.state = JobState::Failed;
                let times = if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") };
                record.job.error = Some(format!("it died {times} without getting any further: {why}"));
                return Ok(("fail", "failed".to_owned(), why));
            }
            record.job.error = Some(why.clone());
            let wait = backoff(deaths, unit);
            pause = Some(wait);
            tracing::debug!(of, "deaths before");
            Ok(("die", format!("restarting in {:.1} s", wait.as_secs_f64()), why))
        })?;
        self.start_at = pause.map(|pause| Instant::now() + pause);
        tracing::info!(job = self.entry.id, pid = process.pid, ?asked, "ended; it was {:?}", record.job.state);
        self.entry.tell("server", what, &outcome, detail);
        Ok(())
    }

    // ---- there is no process ----

    fn idle(&mut self, record: &Record) -> Result<Option<Duration>, ControlError> {
        if record.doing() == Some(Doing::Delete) {
            return self.delete().map(|()| None);
        }
        if let Some(upgrade) = record.upgrade.as_ref().filter(|upgrade| !upgrade.started) {
            self.save_at_stop(record)?;
            failpoint("control.upgrade");
            let (_, settings) = self.entry.dir.read_file(upgrade.to)?;
            self.entry.change(|record| {
                // Somebody may have stopped it meanwhile.
                if let Some(upgrade) = record.upgrade.as_mut().filter(|_| record.job.desired == Desired::Running) {
                    upgrade.started = true;
                    record.job.version = upgrade.to;
                    record.job.workers = settings.workers;
                    record.job.restarts = 0;
                    record.job.error = None;
                    record.deaths.clear();
                    record.keeps_error = false;
                    record.stop = None;
                }
                Ok(())
            })?;
            failpoint("control.upgraded");
            return Ok(Some(Duration::ZERO));
        }
        if record.job.desired == Desired::Stopped {
            self.save_at_stop(record)?;
            self.save_what_is_pending()?;
            return self.rest();
        }
        if record.doing() == Some(Doing::Restart) {
            self.entry.change(|record| {
                record.job.doing = record.job.doing.filter(|doing| *doing != Doing::Restart);
                record.stop = None;
                Ok(())
            })?;
            self.start_at = None;
            return Ok(Some(Duration::ZERO));
        }
        if record.job.state == JobState::Failed {
            self.save_what_is_pending()?;
            return Ok(None);
        }
        if let Some(at) = self.start_at {
            let left = at.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Ok(Some(left));
            }
        }
        self.start()?;
        Ok(Some(SOON))
    }

    /// Nothing is wanted of the job, and it does nothing.
    fn rest(&mut self) -> Result<Option<Duration>, ControlError> {
        self.entry.change(|record| {
            if record.job.desired == Desired::Stopped && record.process.is_none() && !record.job.state.at_rest() {
                let drained = record.stop.as_ref().is_some_and(|stop| stop.mode == StopMode::Drain);
                let well = record.job.error.is_none();
                record.job.state = if drained && well { JobState::Finished } else { JobState::Stopped };
                record.job.doing = None;
            }
            Ok(())
        })?;
        failpoint("control.stopped");
        Ok(None)
    }

    /// The savepoint that a stop was to end with.
    fn save_at_stop(&mut self, record: &Record) -> Result<(), ControlError> {
        let Some((trigger, place)) = record.stop.as_ref().and_then(|stop| stop.savepoint.clone()) else {
            return Ok(());
        };
        self.entry.change_savepoints(|list| {
            if !list.iter().any(|one| one.trigger == trigger) {
                list.push(Savepoint {
                    trigger: trigger.clone(),
                    state: SavepointState::Running,
                    place: place.clone(),
                    epoch: None,
                    error: None,
                    version: record.job.version,
                    asked: now(),
                });
            }
            Ok(())
        })?;
        self.save_what_is_pending()?;
        self.entry.change(|record| {
            if let Some(stop) = &mut record.stop {
                stop.savepoint = None;
            }
            Ok(())
        })
    }

    /// Copies the state of a job that does not run to where savepoints of it are wanted.
    fn save_what_is_pending(&mut self) -> Result<(), ControlError> {
        for savepoint in self.entry.dir.savepoints()? {
            if savepoint.state == SavepointState::Running {
                let (state, epoch, error) = match self.copy(&savepoint.place) {
                    Ok(epoch) => (SavepointState::Done, Some(epoch), None),
                    Err(error) => (SavepointState::Failed, None, Some(error.to_string())),
                };
                failpoint("control.saved");
                self.savepoint_ended(&savepoint, state, epoch, error)?;
            }
        }
        Ok(())
    }

    fn copy(&self, place: &str) -> Result<u64, ControlError> {
        let (plan, dir) = (self.entry.plan()?, self.entry.dir.state());
        let error = match engine::save(&plan, &dir, place) {
            Ok(epoch) => return Ok(epoch),
            Err(error) => error,
        };
        // A server that died after it had copied finds its own copy.
        let ours = state::open_savepoint(&plan.checkpoint.place(&dir)).map(|loaded| (loaded.epoch, loaded.manifest));
        match (ours, state::open_savepoint(place)) {
            (Ok((_, ours)), Ok(there)) if (&ours.job, ours.tick) == (&there.manifest.job, there.manifest.tick) => {
                Ok(engine::saved(&plan, &dir)?.map_or(there.epoch, |saved| saved.epoch))
            }
            _ => Err(error.into()),
        }
    }

    fn delete(&mut self) -> Result<(), ControlError> {
        failpoint("control.delete");
        let events = self.entry.dir.history(usize::MAX)?;
        self.shared.disk.keep_history(&self.entry.id, &events)?;
        self.entry.remove()?;
        self.shared.forget(&self.entry.id);
        tracing::info!(job = self.entry.id, "deleted");
        Ok(())
    }

    /// Starts a process.
    fn start(&mut self) -> Result<(), ControlError> {
        // Outside the record's lock, since it may take a while; a failure is the process' to tell.
        let plan = self.entry.plan().ok();
        let saved = plan.and_then(|plan| engine::saved(&plan, &self.entry.dir.state()).ok().flatten());
        let (shared, dir) = (Arc::clone(&self.shared), self.entry.dir.clone());
        let mut child = None;
        let started = self.entry.change(|record| {
            let wanted = record.job.desired == Desired::Running && record.process.is_none() && !record.changing();
            if !wanted || record.job.doing == Some(Doing::Delete) {
                return Ok(Ok(()));
            }
            let (_, settings) = dir.read_file(record.job.version)?;
            let log = dir.logs().join("job.log");
            mark(&log, record)?;
            let mut arguments: Vec<std::ffi::OsString> = vec!["run".into(), dir.file(record.job.version).into()];
            for (key, value) in file::sets(&settings) {
                arguments.extend(["--set".into(), format!("{key}={value}").into()]);
            }
            arguments.extend(["--workers".into(), settings.workers.to_string().into()]);
            arguments.extend(["--state".into(), dir.state().into(), "--json".into(), "--log-file".into()]);
            arguments.extend([log.clone().into(), "--log-bytes".into()]);
            arguments.push(shared.options.log_bytes_max.to_string().into());
            arguments.extend(settings.until_end.then(|| "--until-end".into()));
            arguments.extend(settings.allow_drop.then(|| "--allow-drop".into()));
            arguments.extend(settings.from.iter().flat_map(|from| ["--from".into(), from.into()]));
            failpoint("control.start");
            let launch = Launch {
                program: &shared.options.program,
                arguments,
                values: &settings.values,
                failpoints: std::env::var(format!("{FAILPOINTS_OF}{}", record.job.name)).ok(),
                directory: &record.directory,
                log: &log,
                printed: &dir.logs().join("summary.json"),
                job: dir.path(),
            };
            record.epoch = saved.map(|saved| saved.epoch);
            record.killed = 0;
            match launch.start() {
                Ok(process) => {
                    let id = ProcessId::of(process.id());
                    failpoint("control.started");
                    record.process = Some(id);
                    record.job.pid = Some(id.pid);
                    record.job.started = Some(now());
                    record.job.state = JobState::Starting;
                    child = Some(process);
                    Ok(Ok(()))
                }
                Err(error) => {
                    record.job.state = JobState::Failed;
                    record.job.error = Some(format!("its process cannot be started: {error}"));
                    Ok(Err(error))
                }
            }
        });
        // Though the record could not be written, the process is ours.
        if let Some(mut child) = child {
            if started.is_err() {
                ProcessId::of(child.id()).kill();
                let _ = child.wait();
            } else {
                self.child = Some(child);
            }
        }
        self.ask_at = Instant::now();
        self.start_at = None;
        if let Err(error) = started? {
            self.entry.tell("server", "fail", "failed", format!("its process cannot be started: {error}"));
        }
        Ok(())
    }
}

impl Record {
    fn doing(&self) -> Option<Doing> {
        self.job.doing
    }

    /// Whether the job is stopped in order to be started again, or deleted.
    fn changing(&self) -> bool {
        match self.job.doing {
            Some(Doing::Upgrade) => self.upgrade.as_ref().is_some_and(|upgrade| !upgrade.started),
            Some(Doing::Restart | Doing::Delete) => true,
            None => false,
        }
    }
}

impl Stop {
    /// One that nobody asked for.
    fn by_server(mode: StopMode) -> Stop {
        Stop { mode, savepoint: None, asked: seconds(), who: "server".to_owned() }
    }
}

/// Marks a start in a job's log: what is said before it is an earlier start's.
fn mark(log: &std::path::Path, record: &Record) -> Result<(), ControlError> {
    let line = format!("{MARK}{} start of {} version {}\n", now(), record.job.id, record.job.version);
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|error| ControlError::disk(log, error))
}

/// The pause after so many deaths: twice as long each time, a quarter more or less, so that jobs that died together do not
/// come back together.
fn backoff(deaths: usize, unit: f64) -> Duration {
    let doubled = PAUSE.0.saturating_mul(1 << deaths.saturating_sub(1).min(16));
    doubled.min(PAUSE.1).mul_f64(0.75 + 0.5 * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let ms = |deaths, unit| backoff(deaths, unit).as_millis();
        assert_eq!([ms(1, 0.5), ms(2, 0.5), ms(3, 0.5), ms(7, 0.5), ms(1000, 0.5)], [500, 1000, 2000, 30_000, 30_000]);
        assert_eq!((ms(1, 0.0), ms(1, 0.999_999)), (375, 624));
    }
}

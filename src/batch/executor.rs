//! Attempts of steps as processes of this program, watched: time, memory, what they tell.
//!
//! An attempt writes to `steps/<step>/work`. When its process has ended well, its outputs are hashed, synced, and the directory
//! is renamed to `out`; then the journal says that the step is done. A process that dies between leaves a directory that the
//! next attempt takes away.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::BatchError;
use super::disk::{hash_file, hash_text, remove_tree, sync_directory};
use super::journal::{Input, Output, Record};
use super::process::{self, TOKEN};
use super::runner::Executor;
use super::schedule::{Ended, Start};
use super::step::{Far, PROGRESS, RESULT, Told};
use crate::base::{EventTime, failpoint, format_bytes, format_duration, format_time, wall_clock};
use crate::plan::batch::{BatchPlan, StepPlan};

/// Between two looks at processes.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at memory: it reads a file of every process of the machine.
const WEIGH: Duration = Duration::from_millis(250);
/// As much of a log's end is told when a step fails without a word.
const TAIL: u64 = 600;

/// What a process of an attempt is told on its command line, after the program.
pub type Arguments = Box<dyn Fn(&StepPlan, &Start, &str) -> Vec<String>>;

/// Runs attempts as processes.
pub struct Processes<'a> {
    plan: &'a BatchPlan,
    /// The job's directory in the queue.
    directory: &'a Path,
    program: PathBuf,
    arguments: Arguments,
    running: BTreeMap<usize, Attempt>,
    weighed: Instant,
}

struct Attempt {
    child: Child,
    number: u32,
    began: Instant,
    definition: String,
    inputs: Vec<Input>,
    /// Why it is being ended.
    ending: Option<Ended>,
}

/// How an attempt is going.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Going {
    /// How long it has been going.
    pub seconds: f64,
    /// How far it says that it is.
    pub far: Far,
}

/// The directory of a step.
pub fn step_directory(job: &Path, step: &str) -> PathBuf {
    job.join("steps").join(step)
}

/// The hash of what a step is told to do and of what it is given.
pub fn definition(step: &StepPlan, plan: &BatchPlan, done: &BTreeMap<usize, Record>) -> String {
    let mut text = step.definition.clone();
    for needed in &step.needs {
        let outputs = done.get(needed).map(|record| record.outputs.as_slice()).unwrap_or_default();
        for Output { name, sha256, .. } in outputs {
            text.push_str(&format!("\n{} {name} {sha256}", plan.steps[*needed].name));
        }
    }
    hash_text(&text)
}

/// What a step takes of others.
fn inputs(step: &StepPlan, plan: &BatchPlan, done: &BTreeMap<usize, Record>) -> Vec<Input> {
    let of = |needed: &usize| {
        let outputs = done.get(needed).map(|record| record.outputs.as_slice()).unwrap_or_default();
        let name = &plan.steps[*needed].name;
        let one = move |output: &Output| Input {
            what: format!("{name}/{}", output.file),
            version: None,
            sha256: Some(output.sha256.clone()),
        };
        outputs.iter().map(one).collect::<Vec<_>>()
    };
    step.needs.iter().flat_map(of).collect()
}

impl<'a> Processes<'a> {
    /// Processes of `program`, for the steps of a job.
    pub fn new(plan: &'a BatchPlan, directory: &'a Path, program: PathBuf, arguments: Arguments) -> Self {
        Processes { plan, directory, program, arguments, running: BTreeMap::new(), weighed: Instant::now() }
    }

    /// How a step that is under way is going.
    pub fn going(&self, step: usize) -> Option<Going> {
        let attempt = self.running.get(&step)?;
        let path = step_directory(self.directory, &self.plan.steps[step].name).join("work").join(PROGRESS);
        let far = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Some(Going { seconds: attempt.began.elapsed().as_secs_f64(), far })
    }

    /// Ends attempts that take too long, and the largest when all together are too large.
    fn watch(&mut self) {
        for (&step, attempt) in &mut self.running {
            let limit = self.plan.steps[step].timeout;
            let late = limit.filter(|limit| attempt.began.elapsed().as_micros() > u128::from(limit.unsigned_abs()));
            if let (Some(limit), None) = (late, &attempt.ending) {
                let what = format!("it took longer than {} and was ended", format_duration(limit));
                attempt.ending = Some(Ended::Failed(what));
                process::kill_group(attempt.child.id());
            }
        }
        let Some(limit) = self.plan.limits.memory.filter(|_| self.weighed.elapsed() >= WEIGH) else { return };
        self.weighed = Instant::now();
        let Some(groups) = process::resident_by_group() else { return };
        let of = |attempt: &Attempt| groups.get(&attempt.child.id()).copied().unwrap_or_default();
        let total: u64 = self.running.values().map(of).sum();
        let largest = self.running.values_mut().filter(|attempt| attempt.ending.is_none()).max_by_key(|a| of(a));
        if let Some(attempt) = largest.filter(|_| total > limit) {
            let (limit, total, own) = (format_bytes(limit), mib(total), mib(of(attempt)));
            let what = format!(
                "the steps that run hold {total} of memory, more than limits.memory ({limit}); this one held {own} and was ended: give them more, or let fewer run side by side (limits.parallel)"
            );
            attempt.ending = Some(Ended::Hopeless(what));
            process::kill_group(attempt.child.id());
        }
    }

    /// What became of an attempt whose process has ended.
    fn outcome(
        &self,
        step: usize,
        attempt: Attempt,
        status: ExitStatus,
    ) -> Result<(Ended, Option<Record>), BatchError> {
        // What it has started and not waited for has no business any more.
        process::kill_group(attempt.child.id());
        if let Some(ended) = attempt.ending {
            return Ok((ended, None));
        }
        let directory = step_directory(self.directory, &self.plan.steps[step].name);
        let (work, out) = (directory.join("work"), directory.join("out"));
        let told: Option<Told> = fs::read(work.join(RESULT)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let produced = match told {
            Some(Told::Done(produced)) if status.success() => produced,
            Some(Told::Failed { why, again: true }) => return Ok((Ended::Failed(why), None)),
            Some(Told::Failed { why, again: false }) => return Ok((Ended::Hopeless(why), None)),
            _ => {
                let tail = tail(&directory.join("log.txt"));
                let tail = if tail.is_empty() { String::new() } else { format!("; its log ends with: {tail}") };
                return Ok((Ended::Failed(format!("its process ended ({status}) and told nothing{tail}")), None));
            }
        };
        if let Some(why) = produced.skipped {
            return Ok((Ended::Skipped(why), None));
        }
        let mut outputs = Vec::with_capacity(produced.outputs.len());
        for (name, file) in produced.outputs {
            let path = work.join(&file);
            let sound = File::open(&path).and_then(|file| file.sync_all()).and_then(|()| hash_file(&path));
            let (bytes, sha256) = sound.map_err(BatchError::disk("keep", &path))?;
            outputs.push(Output { name, file, bytes, sha256 });
        }
        for aside in [RESULT, PROGRESS] {
            // Nobody reads them any more.
            let _ = fs::remove_file(work.join(aside));
        }
        sync_directory(&work)?;
        failpoint("batch.produced");
        fs::rename(&work, &out).map_err(BatchError::disk("keep", &out))?;
        sync_directory(&directory)?;
        failpoint("batch.kept");
        let record = Record {
            definition: attempt.definition,
            inputs: attempt.inputs.into_iter().chain(produced.inputs).collect(),
            outputs,
            facts: produced.facts,
            seconds: attempt.began.elapsed().as_secs_f64(),
        };
        Ok((Ended::Done, Some(record)))
    }

    fn log(&self, step: &StepPlan, start: &Start) -> Result<File, BatchError> {
        let path = step_directory(self.directory, &step.name).join("log.txt");
        let open = || {
            let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
            let (now, threads) = (format_time(wall_clock()), start.threads);
            writeln!(log, "--- attempt {} at {now}, threads: {threads}", start.attempt)?;
            Ok(log)
        };
        open().map_err(BatchError::disk("write", &path))
    }
}

impl Executor for Processes<'_> {
    fn is_sound(&self, step: usize, record: &Record, done: &BTreeMap<usize, Record>) -> bool {
        let plan = &self.plan.steps[step];
        let out = step_directory(self.directory, &plan.name).join("out");
        record.definition == definition(plan, self.plan, done)
            && record.outputs.iter().all(|output| {
                let found = hash_file(&out.join(&output.file)).ok();
                found.is_some_and(|(bytes, sha256)| bytes == output.bytes && sha256 == output.sha256)
            })
    }

    fn begin(&mut self, start: Start, done: &BTreeMap<usize, Record>) -> Result<(), BatchError> {
        let step = &self.plan.steps[start.step];
        let directory = step_directory(self.directory, &step.name);
        for old in ["work", "out"] {
            remove_tree(&directory.join(old))?;
        }
        let work = directory.join("work");
        fs::create_dir_all(&work).map_err(BatchError::disk("make", &work))?;
        let log = self.log(step, &start)?;
        let both = log.try_clone().map_err(BatchError::disk("write", &directory))?;
        let definition = definition(step, self.plan, done);
        let mut command = Command::new(&self.program);
        command
            .args((self.arguments)(step, &start, &definition))
            .env(TOKEN, format!("{}/{}/{}", self.directory.display(), step.name, start.attempt))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both);
        process::lead_group(&mut command);
        let child = command
            .spawn()
            .map_err(|source| BatchError::Start { program: self.program.display().to_string(), source })?;
        let (number, began) = (start.attempt, Instant::now());
        let inputs = inputs(step, self.plan, done);
        self.running.insert(start.step, Attempt { child, number, began, definition, inputs, ending: None });
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Result<Option<(usize, Ended, Option<Record>)>, BatchError> {
        let until = Instant::now() + wait;
        loop {
            self.watch();
            let mut ended = None;
            for (&step, attempt) in &mut self.running {
                let status = attempt.child.try_wait();
                if let Some(status) = status.map_err(BatchError::disk("wait for a process of", self.directory))? {
                    ended = Some((step, status));
                    break;
                }
            }
            if let Some((step, status)) = ended
                && let Some(attempt) = self.running.remove(&step)
            {
                tracing::debug!(step = self.plan.steps[step].name, attempt = attempt.number, %status, "an attempt has ended");
                let (ended, record) = self.outcome(step, attempt, status)?;
                return Ok(Some((step, ended, record)));
            }
            let now = Instant::now();
            if now >= until {
                return Ok(None);
            }
            std::thread::sleep(LOOK.min(until - now));
        }
    }

    fn stop(&mut self) {
        for (_, mut attempt) in std::mem::take(&mut self.running) {
            process::kill_group(attempt.child.id());
            // It has been killed; there is nothing else to be told.
            let _ = attempt.child.wait();
        }
    }

    fn now(&self) -> EventTime {
        wall_clock()
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The last words of a log, on one line.
fn tail(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("--- ")).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

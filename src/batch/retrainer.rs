//! Retraining that running jobs ask for: queued at once, run one at a time per model by processes of this program, which a thread
//! of the job's process supervises.
//!
//! A retraining whose process died is begun again, here or by the next process of the job, and goes on where it was.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::BatchError;
use super::process;
use super::queue::{Job, Queue, Request, Standing};
use crate::base::{format_time, wall_clock};
use crate::engine::{Asked, Retrainer as Taker};
use crate::plan::model::Plan;

/// Between two looks at processes and at the queue.
const LOOK: Duration = Duration::from_millis(200);
/// How often a retraining whose process dies without an outcome is begun again by one process of the job.
const STARTS_MAX: u32 = 5;
/// How long processes have to end when the job does.
const GRACE: Duration = Duration::from_secs(5);

/// Queues what a job asks for, and has it run.
pub struct Retrainer {
    queue: Queue,
    job: String,
    /// The batch dataflow's file and name, by model.
    files: BTreeMap<String, PathBuf>,
    job_sets: Vec<(String, String)>,
    news: Mutex<Option<Sender<()>>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Retrainer {
    /// For the retraining of a plan's models; `job_sets` are the changes that the running job's file was loaded with, so that
    /// batch dataflows work on the same job. What an earlier process has left in the queue is gone on with at once.
    ///
    /// # Errors
    /// When the queue or the program's own file is not known, or the system refuses a thread.
    pub fn start(plan: &Plan, job_sets: Vec<(String, String)>, queue: &Path) -> Result<Retrainer, BatchError> {
        let queue = Queue::new(queue)?;
        let own = Path::new("the program's own file");
        let program = std::env::current_exe().map_err(BatchError::disk("find", own))?;
        let files: BTreeMap<String, PathBuf> = plan
            .retrains
            .iter()
            .map(|retrain| {
                let file = std::path::absolute(&retrain.job).map_err(BatchError::disk("find", &retrain.job))?;
                Ok((plan.models[retrain.model].name.clone(), file))
            })
            .collect::<Result<_, BatchError>>()?;
        let (news, inbox) = channel();
        let models = files.keys().map(|model| label(&plan.job, model)).collect();
        let mut supervisor =
            Supervisor { queue: queue.clone(), program, models, running: BTreeMap::new(), starts: BTreeMap::new() };
        let thread = std::thread::Builder::new().name("tidemill-batch".to_owned());
        let thread = thread
            .spawn(move || supervisor.run(&inbox))
            .map_err(|source| BatchError::Start { program: "a thread".to_owned(), source })?;
        let supervisor = Some(thread);
        let news = Mutex::new(Some(news));
        Ok(Retrainer { queue, job: plan.job.clone(), files, job_sets, news, supervisor })
    }

    fn submit(&self, asked: &Asked, key: &str) -> Result<(), BatchError> {
        let Some(file) = self.files.get(&asked.model) else {
            return Err(BatchError::Refused(format!("`{}` is not retrained", asked.model)));
        };
        let name = file.file_stem().map_or_else(|| "retrain".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let request = Request {
            batch: name,
            file: file.clone(),
            sets: Vec::new(),
            job_sets: self.job_sets.clone(),
            model: Some(label(&self.job, &asked.model)),
            cause: format!("{} at {}", asked.cause, format_time(asked.at)),
            submitted: format_time(wall_clock()),
        };
        let submitted = self.queue.submit(&request, Some(key))?;
        if submitted.fresh {
            tracing::info!(id = submitted.id, cause = request.cause, "a retraining is queued");
        }
        if let Some(news) = self.news.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // A supervisor that is gone is replaced by the next process of the job.
            let _ = news.send(());
        }
        Ok(())
    }
}

impl Taker for Retrainer {
    fn ask(&self, asked: &Asked, key: &str) -> Result<(), String> {
        self.submit(asked, key).map_err(|error| error.to_string())
    }
}

impl Drop for Retrainer {
    fn drop(&mut self) {
        drop(self.news.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.supervisor.take() {
            // A thread that failed has said so.
            let _ = thread.join();
        }
    }
}

/// What is retrained, in requests: one at a time runs of each.
fn label(job: &str, model: &str) -> String {
    format!("{job}/{model}")
}

struct Supervisor {
    queue: Queue,
    program: PathBuf,
    models: Vec<String>,
    /// By model: the job in the queue and its process.
    running: BTreeMap<String, (String, Child)>,
    /// How often each was begun here.
    starts: BTreeMap<String, u32>,
}

impl Supervisor {
    fn run(&mut self, inbox: &Receiver<()>) {
        let mut look = true;
        loop {
            self.reap();
            if (look || self.running.len() < self.models.len())
                && let Err(error) = self.begin()
            {
                tracing::warn!(%error, "the queue of retrainings cannot be worked on");
            }
            look = match inbox.recv_timeout(if self.running.is_empty() { LOOK * 5 } else { LOOK }) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => break,
            };
        }
        self.end();
    }

    /// Lets go of processes that have ended.
    fn reap(&mut self) {
        let ended: Vec<(String, ExitStatus)> = self
            .running
            .iter_mut()
            .filter_map(|(model, (_, child))| Some((model.clone(), child.try_wait().ok().flatten()?)))
            .collect();
        for (model, status) in ended {
            let Some((id, _)) = self.running.remove(&model) else { continue };
            match self.queue.job(&id).map(|job| job.status) {
                Ok(job) if job.state == Standing::Done => tracing::info!(id, model, "a retraining is done"),
                Ok(job) if job.state.is_over() => {
                    let why = job.why.unwrap_or_default();
                    tracing::warn!(id, model, state = job.state.word(), why, "a retraining has ended without a model");
                }
                Ok(_) => tracing::warn!(id, model, %status, "the process of a retraining has died; it is begun again"),
                Err(error) => tracing::warn!(id, model, %error, "a retraining cannot be looked at"),
            }
        }
    }

    /// Begins what waits, one at a time per model. Of several that wait the newest says all that the others do.
    fn begin(&mut self) -> Result<(), BatchError> {
        let jobs = self.queue.list()?;
        for model in self.models.clone() {
            let of_model = |job: &&Job| job.request.model.as_ref() == Some(&model);
            // Another process may run one still, such as the child of a job that was killed.
            let taken = jobs.iter().filter(of_model).any(|job| job.status.state == Standing::Running);
            if taken || self.running.contains_key(&model) {
                continue;
            }
            let mut waiting: Vec<&Job> =
                jobs.iter().filter(of_model).filter(|job| job.status.state == Standing::Queued).collect();
            // What was begun is finished first.
            waiting.sort_by_key(|job| job.interrupted);
            let Some(next) = waiting.pop() else { continue };
            for other in waiting {
                let claim = self.queue.claim(&other.id)?;
                claim.end(Standing::Cancelled, Some(format!("`{}` came before its turn had", next.id)))?;
            }
            let starts = self.starts.entry(next.id.clone()).or_default();
            *starts += 1;
            if *starts > STARTS_MAX {
                let why = format!("its process died {STARTS_MAX} times without an outcome");
                self.queue.claim(&next.id)?.end(Standing::Failed, Some(why))?;
                continue;
            }
            let child = self.spawn(&next.id)?;
            tracing::info!(id = next.id, model, "a retraining begins");
            self.running.insert(model, (next.id.clone(), child));
        }
        Ok(())
    }

    fn spawn(&self, id: &str) -> Result<Child, BatchError> {
        let path = self.queue.directory(id).join("run.log");
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(BatchError::disk("open", &path))?;
        let mut command = Command::new(&self.program);
        command.args(["train", "--resume", id, "--queue"]).arg(self.queue.root());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // The supervisor's thread lives as long as the job; a retraining without its job is asked to stop, and the next process
        // goes on with it.
        process::die_with_parent(&mut command, libc::SIGTERM);
        command.spawn().map_err(|source| BatchError::Start { program: self.program.display().to_string(), source })
    }

    /// Asks what runs to stop, so that it can go on later.
    fn end(&mut self) {
        for (_, child) in self.running.values() {
            process::ask_to_end(child.id());
        }
        let until = Instant::now() + GRACE;
        for (_, child) in self.running.values_mut() {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    // What it was at is half done, and starts over.
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

//! Threads that score: they take batches from the queues and give each request its own rows of the outputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::error::InferError;
use super::models::Version;
use super::queue::{Full, Limits, Next, Queues, Waiting};
use super::request::Prepared;
use super::stats::Phases;
use crate::score::runner::{Runner, append, part};
use crate::score::tensor::Tensor;

/// What a request becomes: all outputs, in the model's order.
pub(super) type Answer = Result<Vec<Tensor>, InferError>;

/// A request on its way through a scorer.
struct Work {
    version: Arc<Version>,
    inputs: Vec<Tensor>,
    answer: oneshot::Sender<Answer>,
}

struct State {
    queues: Queues<Work>,
    stopping: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads. What waits when it is dropped is still answered.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.wake.notify_all();
    }
}

impl Pool {
    /// Starts threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(threads: usize, queue_bytes: usize) -> std::io::Result<Pool> {
        let state = State { queues: Queues::new(queue_bytes), stopping: false };
        let pool = Pool { shared: Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() }) };
        for number in 0..threads.max(1) {
            let shared = pool.shared.clone();
            std::thread::Builder::new().name(format!("infer-{number}")).spawn(move || work(&shared))?;
        }
        Ok(pool)
    }

    /// Has a request scored; its answer comes by the channel. Who drops the receiver is not waited for.
    ///
    /// # Errors
    /// Too much is waiting.
    pub fn offer(&self, version: Arc<Version>, prepared: Prepared) -> Result<oneshot::Receiver<Answer>, InferError> {
        let (answer, receiver) = oneshot::channel();
        let settings = &version.settings;
        // Rows of open width may differ in it from request to request; such a model was not tried for rows that mix.
        let rows = if version.alone { 1 } else { settings.batch_rows };
        let limits = Limits { rows, delay: settings.batch_delay, waiting: settings.queue };
        let (lane, name) = (version.lane, version.name.clone());
        let Prepared { tensors: inputs, rows, bytes } = prepared;
        let waiting = Waiting { rows, bytes, since: Instant::now(), work: Work { version, inputs, answer } };
        let offered = self.shared.state().queues.offer(lane, limits, waiting);
        offered.map_err(|full| {
            InferError::Full(match full {
                Full::Lane => {
                    format!("{} requests for model {name:?} are waiting already; try again later", limits.waiting)
                }
                Full::Bytes => {
                    "the inputs of waiting requests take all the memory that is set apart for them; try again later"
                        .to_owned()
                }
            })
        })?;
        self.shared.wake.notify_one();
        Ok(receiver)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.shared.state().queues.waiting()
    }
}

/// Runners that a thread keeps, by the hash of their model, the newest used last.
struct Runners(Vec<(String, Runner)>);

/// Runners of a thread; a model that was not used for longer is started again.
const RUNNERS_MAX: usize = 16;

impl Runners {
    fn take(&mut self, version: &Version) -> Result<Runner, InferError> {
        if let Some(at) = self.0.iter().position(|(hash, _)| hash == version.model.hash()) {
            return Ok(self.0.remove(at).1);
        }
        version.model.runner().map_err(|error| InferError::Internal(error.to_string()))
    }

    fn keep(&mut self, version: &Version, runner: Runner) {
        if self.0.len() >= RUNNERS_MAX {
            self.0.remove(0);
        }
        self.0.push((version.model.hash().to_owned(), runner));
    }
}

fn work(shared: &Shared) {
    let mut runners = Runners(Vec::new());
    loop {
        let batch = {
            let mut state = shared.state();
            loop {
                match state.queues.take(Instant::now()) {
                    Next::Batch(batch) => break batch,
                    Next::Nothing if !state.stopping => {
                        state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                    Next::At(at) => {
                        let wait = at.saturating_duration_since(Instant::now());
                        state = shared.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                    }
                    Next::Nothing => return,
                }
            }
        };
        score(batch, &mut runners);
    }
}

/// Scores a batch and answers its requests. A panic of a kernel, which is a defect, is an error of these requests alone.
fn score(batch: Vec<Waiting<Work>>, runners: &mut Runners) {
    let started = Instant::now();
    let batch: Vec<Waiting<Work>> = batch.into_iter().filter(|w| !w.work.answer.is_closed()).collect();
    let Some(version) = batch.first().map(|w| w.work.version.clone()) else { return };
    let mut runner = match runners.take(&version) {
        Ok(runner) => runner,
        Err(error) => {
            return batch.into_iter().for_each(|w| drop(w.work.answer.send(Err(error.clone()))));
        }
    };
    let all: Vec<&[Tensor]> = batch.iter().map(|w| w.work.inputs.as_slice()).collect();
    let rows: usize = batch.iter().map(|w| w.rows).sum();
    let answers = catch_unwind(AssertUnwindSafe(|| {
        let (scored, phases) = together(&mut runner, &all, rows);
        version.stats.batch(rows, batch.iter().map(|w| started.saturating_duration_since(w.since)), phases);
        match scored {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(why) if all.len() == 1 => vec![Err(refused(&mut runner, all[0], &why))],
            // One of them is at fault; the others shall not suffer for it.
            Err(_) => all.iter().map(|one| alone(&mut runner, one)).collect(),
        }
    }));
    let answers: Vec<Answer> = match answers {
        Ok(answers) => {
            runners.keep(&version, runner);
            answers
        }
        Err(_) => {
            tracing::error!(model = version.name, version = version.label, "a kernel panicked");
            vec![
                Err(InferError::Internal(format!("scoring with model {:?} failed; this is a defect", version.name)));
                batch.len()
            ]
        }
    };
    for (waiting, answer) in batch.into_iter().zip(answers) {
        // Whoever no longer waits needs no answer.
        let _ = waiting.work.answer.send(answer);
    }
}

/// Scores requests as one batch.
fn together(runner: &mut Runner, all: &[&[Tensor]], rows: usize) -> (Result<Vec<Vec<Tensor>>, String>, Phases) {
    let begun = Instant::now();
    let filled = fill(runner, all);
    let ready = Instant::now();
    let ran = filled.and_then(|()| runner.run(rows));
    let done = Instant::now();
    let outputs = ran.and_then(|()| split(runner, all, rows));
    let phases = Phases { input: ready - begun, infer: done - ready, output: done.elapsed() };
    (outputs, phases)
}

fn fill(runner: &mut Runner, all: &[&[Tensor]]) -> Result<(), String> {
    let [first, others @ ..] = all else { return Ok(()) };
    for (i, x) in first.iter().enumerate() {
        let input = runner.input(i);
        input.copy(x, &x.dims);
        for other in others {
            append(input, &other[i])?;
        }
    }
    Ok(())
}

fn split(runner: &Runner, all: &[&[Tensor]], rows: usize) -> Result<Vec<Vec<Tensor>>, String> {
    let outputs = all.first().map_or(0, |_| runner.outputs());
    let mut answers = vec![Vec::with_capacity(outputs); all.len()];
    for o in 0..outputs {
        let output = runner.output(o);
        if all.len() == 1 {
            answers[0].push(output.clone());
            continue;
        }
        if output.dims.first() != Some(&rows) {
            return Err(format!("output {o} has the shape {:?} for {rows} rows", output.dims));
        }
        let mut first = 0;
        for (answer, one) in answers.iter_mut().zip(all) {
            let n = one.first().and_then(|t| t.dims.first()).copied().unwrap_or(0);
            answer.push(part(output, first, n));
            first += n;
        }
    }
    Ok(answers)
}

/// Scores one request by itself.
fn alone(runner: &mut Runner, inputs: &[Tensor]) -> Answer {
    let rows = inputs.first().and_then(|t| t.dims.first()).copied().unwrap_or(0);
    match together(runner, &[inputs], rows).0 {
        Ok(mut answers) => Ok(answers.pop().unwrap_or_default()),
        Err(why) => Err(refused(runner, inputs, &why)),
    }
}

/// Why a request cannot be scored, with the first row that cannot: found by halves, since a request may have many rows.
fn refused(runner: &mut Runner, inputs: &[Tensor], why: &str) -> InferError {
    let rows = inputs.first().and_then(|t| t.dims.first()).copied().unwrap_or(0);
    let mut fails = |first: usize, n: usize| {
        let some: Vec<Tensor> = inputs.iter().map(|x| part(x, first, n)).collect();
        together(runner, &[&some], n).0.err()
    };
    let (mut first, mut end) = (0, rows);
    while end - first > 1 {
        let middle = first + (end - first) / 2;
        match fails(first, middle - first) {
            Some(_) => end = middle,
            None => first = middle,
        }
    }
    match fails(first, 1).filter(|_| rows > 0) {
        Some(why) => InferError::Invalid(format!("row {first} cannot be scored: {why}")),
        // Each half can be scored, and not the whole.
        None => InferError::Invalid(format!("the rows cannot be scored: {why}")),
    }
}

//! Carries what the job asks for to whoever takes it, when its tick is durable, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::EngineError;
use super::super::shared::Shared;
use super::{Asked, Retraining};
use crate::base::{Tick, failpoint};

/// Between attempts; doubles from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Attempts when the job is to end.
const LAST_ATTEMPTS: u32 = 3;

/// The thread that carries.
pub struct Courier {
    thread: Option<(Sender<(Option<Tick>, Asked)>, JoinHandle<()>)>,
    taken: Receiver<Asked>,
    waiting: Vec<Asked>,
}

impl Courier {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn start(shared: &Arc<Shared>, taker: &Retraining, worker: usize) -> Result<Courier, EngineError> {
        let (outbox, inbox) = channel();
        let (done, taken) = channel();
        let (shared, taker) = (Arc::clone(shared), taker.clone());
        let thread = std::thread::Builder::new().name(format!("tidemill-retrain-{worker}"));
        let thread = thread
            .spawn(move || carry(&shared, &taker, &inbox, &done))
            .map_err(|error| EngineError::Workers(format!("a thread could not be started: {error}")))?;
        Ok(Courier { thread: Some((outbox, thread)), taken, waiting: Vec::new() })
    }

    /// Carries this, when the tick is durable.
    pub fn ask(&mut self, tick: Option<Tick>, asked: Asked) {
        if let Some((outbox, _)) = &self.thread {
            // The thread ends early only when the job has failed.
            let _ = outbox.send((tick, asked.clone()));
            self.waiting.push(asked);
        }
    }

    /// What has not been taken yet.
    pub fn waiting(&mut self) -> &[Asked] {
        while let Ok(taken) = self.taken.try_recv() {
            self.waiting.retain(|asked| *asked != taken);
        }
        &self.waiting
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        if let Some((outbox, thread)) = self.thread.take() {
            drop(outbox);
            // A thread that failed has said so.
            let _ = thread.join();
        }
    }
}

fn carry(shared: &Shared, taker: &Retraining, inbox: &Receiver<(Option<Tick>, Asked)>, done: &Sender<Asked>) {
    while let Ok((tick, asked)) = inbox.recv() {
        if tick.is_some_and(|tick| !shared.wait_durable(tick)) {
            return;
        }
        failpoint("retrain.ask");
        let key = asked.key(&shared.plan.job, &taker.instance);
        let (mut pause, mut attempts) = (PAUSE_MIN, 0);
        loop {
            match taker.retrainer.ask(&asked, &key) {
                Ok(()) => break,
                Err(what) => {
                    attempts += 1;
                    tracing::warn!(model = asked.model, what, "a retraining cannot be queued; it is tried again");
                    if shared.failed() || (shared.stopping() && attempts >= LAST_ATTEMPTS) {
                        return;
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        failpoint("retrain.asked");
        // Nobody waits for the answer when the job is over.
        let _ = done.send(asked);
    }
}

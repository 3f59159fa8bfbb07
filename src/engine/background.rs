//! Work that must not stall a worker thread: a thread with a bounded queue of requests and answers that wake the operator.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use timely::scheduling::SyncActivator;

/// A thread that answers requests in order.
pub struct Background<Q, A> {
    requests: Option<SyncSender<Q>>,
    answers: Receiver<A>,
    thread: Option<JoinHandle<()>>,
}

impl<Q: Send + 'static, A: Send + 'static> Background<Q, A> {
    /// Starts a thread named `name` that makes its worker by `start` and feeds it; at most `queue` requests wait.
    ///
    /// # Panics
    /// When the system refuses a thread.
    pub fn spawn<W>(name: &str, queue: usize, wake: SyncActivator, start: impl FnOnce() -> W + Send + 'static) -> Self
    where
        W: FnMut(Q) -> Option<A>,
    {
        let (requests, inbox) = sync_channel::<Q>(queue);
        let (outbox, answers) = channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut work = start();
                for request in inbox {
                    if let Some(answer) = work(request) {
                        if outbox.send(answer).is_err() {
                            break;
                        }
                        // A worker that is gone needs no waking.
                        let _ = wake.activate();
                    }
                }
            })
            .unwrap_or_else(|error| panic!("cannot start thread `{name}`: {error}"));
        Background { requests: Some(requests), answers, thread: Some(thread) }
    }

    /// Hands over a request; waits while the queue is full, which is how a slow disk slows the input.
    pub fn send(&self, request: Q) {
        if let Some(requests) = &self.requests {
            // The thread ends early only when it panicked, and then the process aborts.
            let _ = requests.send(request);
        }
    }

    /// The next answer, if there is one.
    pub fn try_answer(&self) -> Option<A> {
        self.answers.try_recv().ok()
    }
}

impl<Q, A> Drop for Background<Q, A> {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

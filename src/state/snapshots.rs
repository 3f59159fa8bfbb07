//! A worker's snapshots on their way to the store: a thread that writes what the operators hand over, one part per epoch.
//!
//! Operators hand over slices as they find the time, each says when it is through with an epoch, and the part is finished
//! and reported when all are. What can be turned into bytes away from the worker comes as a closure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::coordinator::{Report, Reporter};
use super::part::{self, Mode, PartWriter, SlotBytes};
use super::store::Store;
use super::{Hooks, StateError};
use crate::base::{Epoch, SlotRange, failpoint};

/// Bytes that may wait to be written before operators are asked to hold back.
const BACKLOG_BYTES: usize = 64 << 20;

/// Turns what an operator froze into bytes.
pub type Encode = Box<dyn FnOnce() -> Result<Vec<SlotBytes>, String> + Send>;

enum Message {
    Register,
    Chunk { epoch: Epoch, operator: Arc<str>, mode: Mode, entries: Vec<SlotBytes> },
    Later { epoch: Epoch, operator: Arc<str>, mode: Mode, encode: Encode },
    Done { epoch: Epoch, anew: SlotRange },
}

/// The writing end of one worker.
pub struct Snapshots {
    sender: Option<Sender<Message>>,
    backlog: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Where one operator hands its state over.
#[derive(Clone)]
pub struct OperatorSnapshots {
    operator: Arc<str>,
    sender: Sender<Message>,
    backlog: Arc<AtomicUsize>,
}

impl Snapshots {
    /// Starts the thread of worker `worker`, whose parts are named by `generation`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        store: Store,
        generation: u64,
        worker: usize,
        reporter: Reporter,
        hooks: Arc<dyn Hooks>,
    ) -> std::io::Result<Snapshots> {
        let (sender, messages) = channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&backlog);
        let thread = std::thread::Builder::new().name(format!("tidemill-snap-{worker}")).spawn(move || {
            let writing = Writing { store, generation, worker, reporter, open: BTreeMap::new(), operators: 0 };
            if let Err(error) = writing.run(&messages, &theirs) {
                hooks.failed(error);
            }
        })?;
        Ok(Snapshots { sender: Some(sender), backlog, thread: Some(thread) })
    }

    /// Registers an operator. All operators of a worker register before the first of them is through with an epoch.
    pub fn operator(&self, name: &str) -> Option<OperatorSnapshots> {
        let sender = self.sender.clone()?;
        // The thread ends early only when it failed, and then the job does.
        let _ = sender.send(Message::Register);
        Some(OperatorSnapshots { operator: name.into(), sender, backlog: Arc::clone(&self.backlog) })
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, short of a defect there is none, has been reported.
            let _ = thread.join();
        }
    }
}

impl OperatorSnapshots {
    /// Whether more can be taken without delay.
    pub fn ready(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) < BACKLOG_BYTES
    }

    /// Hands over entries.
    pub fn chunk(&self, epoch: Epoch, mode: Mode, entries: Vec<SlotBytes>) {
        let bytes: usize = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        let _ = self.sender.send(Message::Chunk { epoch, operator: Arc::clone(&self.operator), mode, entries });
    }

    /// Hands over what is turned into bytes on the writing thread.
    pub fn later(&self, epoch: Epoch, mode: Mode, encode: Encode) {
        let _ = self.sender.send(Message::Later { epoch, operator: Arc::clone(&self.operator), mode, encode });
    }

    /// Says that the operator has handed over all of an epoch, in which the slots `anew` are written anew.
    pub fn done(&self, epoch: Epoch, anew: SlotRange) {
        let _ = self.sender.send(Message::Done { epoch, anew });
    }
}

struct Writing {
    store: Store,
    generation: u64,
    worker: usize,
    reporter: Reporter,
    open: BTreeMap<Epoch, (PartWriter, usize)>,
    operators: usize,
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>, backlog: &AtomicUsize) -> Result<(), StateError> {
        for message in messages {
            match message {
                Message::Register => self.operators += 1,
                Message::Chunk { epoch, operator, mode, entries } => {
                    let bytes: usize = entries.iter().map(|(_, bytes)| bytes.len()).sum();
                    self.part(epoch)?.chunk(&operator, mode, &entries)?;
                    backlog.fetch_sub(bytes, Ordering::Relaxed);
                }
                Message::Later { epoch, operator, mode, encode } => {
                    let encoded = encode().map_err(|what| {
                        StateError::Refused(format!("the state of `{operator}` cannot be written: {what}"))
                    });
                    // Here no worker waits, and rows of many slots have their schema in common.
                    self.part(epoch)?.chunk_packed(&operator, mode, &encoded?)?;
                }
                Message::Done { epoch, anew } => {
                    self.part(epoch)?;
                    let done = self.open.get_mut(&epoch).map_or(0, |open| {
                        open.1 += 1;
                        open.1
                    });
                    if done == self.operators
                        && let Some((part, _)) = self.open.remove(&epoch)
                    {
                        failpoint("snapshot.part");
                        self.reporter.send(Report::Part { epoch, part: part.finish(epoch, anew)? });
                    }
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, epoch: Epoch) -> Result<&mut PartWriter, StateError> {
        use std::collections::btree_map::Entry;
        match self.open.entry(epoch) {
            Entry::Occupied(open) => Ok(&mut open.into_mut().0),
            Entry::Vacant(free) => {
                let name = part::name(self.generation, epoch, self.worker);
                Ok(&mut free.insert((PartWriter::begin(&self.store, &name)?, 0)).0)
            }
        }
    }
}

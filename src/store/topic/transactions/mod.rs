//! Publishes outboxes, each message exactly once for those who read committed messages.
//!
//! **Slots.** Each slot of the outbox has a producer of its own with the `transactional.id` `<application>-<slot>`, on a
//! thread of its own, since librdkafka may block. Whoever opens a slot fences the one before: the brokers abort what it left
//! open and take nothing from it any more.
//!
//! **Ledger.** A compacted topic. Each transaction ends with a record of how far its slot has come, so the messages and the
//! record are there together or not at all. Who opens a slot fences first, then reads the ledger, and publishes what it lacks:
//! in this order nothing can be published in between, whoever wins a race.
//!
//! **Claims.** On opening, each slot's record is written again with the generation at hand. A process that finds a later
//! generation than its own in the ledger stops: it was thought dead and has been replaced.
//!
//! **Epochs without messages** in a slot need no transaction. Epochs are published in order, so a record of epoch `n` covers
//! all before it, and what a slot has no messages for is published by having none.
//!
//! **Large epochs** go in several transactions, since the brokers abort one that lasts too long (60 s): one ends after
//! [`MESSAGES_MAX`] messages or ten seconds, and its record says how many of the epoch's messages are out. What comes after a
//! crash goes on from there; the record also holds a checksum of the outbox, for that number means nothing in another.
//!
//! **Brokers away** are waited for, with the warnings of [`Connection`]. A transaction that cannot be
//! completed is aborted and made anew from the outbox. One that outlived its time while nobody took over is found by the fence
//! that the brokers put up; its slot is opened anew and goes on by the ledger. So is a slot whose fence was put up by a start
//! that this one had replaced, and that was stopped between its look at the log and its fence: the log says who has the state,
//! and the fence only carries that out.

mod ledger;
mod report;
mod slot;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use ledger::LedgerEntry;

use super::Delivery;
use super::outbox::OutboxPart;
use crate::base::{Epoch, failpoint};
use crate::kafka::Connection;
use crate::store::StoreError;
use ledger::Ledger;
use slot::{Request, Slot};

/// Most messages of one transaction, unless the options say otherwise.
pub const MESSAGES_MAX: u64 = 1_000_000;

/// How often whoever waits asks whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How long a thread that was told to stop may take.
const GRACE: Duration = Duration::from_secs(10);

/// A call of librdkafka that should have returned long ago.
const STUCK: Duration = Duration::from_secs(120);

/// Tells whether a start still has its job's state, if that can be told: of two that fence each other, who has it goes on.
#[derive(Clone)]
pub struct Rightful(pub Arc<dyn Fn() -> Option<bool> + Send + Sync>);

impl Rightful {
    fn ask(&self) -> Option<bool> {
        (self.0)()
    }
}

impl std::fmt::Debug for Rightful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rightful")
    }
}

/// Where and as whom to publish.
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    /// Brokers, as librdkafka reads them.
    pub brokers: String,
    /// Settings of librdkafka's producer.
    pub properties: Vec<(String, String)>,
    /// The topics.
    pub topics: Vec<String>,
    /// Begins the names of the transactions and the keys in the ledger: names the job, its state and, where it has several
    /// publishers, which. It stays the same over restarts, and no other job has it.
    pub application: String,
    /// Slots at least; those that the ledger knows are opened too.
    pub slots: u16,
    /// The topic of the ledger; made if it is not there.
    pub ledger: String,
    /// Grows with each start of the job.
    pub generation: u64,
    /// Asked before slots are fenced and when they are; without it whoever is fenced stops.
    pub rightful: Option<Rightful>,
    /// Most messages of one transaction.
    pub messages_max: u64,
}

/// Publishes outbox parts.
pub struct TransactionalPublisher {
    options: Arc<TransactionOptions>,
    topics: Arc<Vec<TopicCount>>,
    slots: Vec<Running>,
    answers: Mutex<Receiver<Answer>>,
    cancel: Arc<AtomicBool>,
    /// A publication has failed: what the slots have done is known to the ledger alone.
    failed: AtomicBool,
}

/// A topic and the messages of committed transactions.
#[derive(Debug)]
struct TopicCount {
    name: String,
    committed: AtomicU64,
}

type Answer = (u16, Result<LedgerEntry, StoreError>);

/// A slot's thread.
struct Running {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    watch: Arc<Watch>,
    entry: Mutex<LedgerEntry>,
}

/// Which call of librdkafka a thread is in, and since when.
#[derive(Debug, Default)]
struct Watch(Mutex<Option<(&'static str, Instant)>>);

impl Watch {
    fn during<T>(&self, what: &'static str, call: impl FnOnce() -> T) -> T {
        *lock(&self.0) = Some((what, Instant::now()));
        let outcome = call();
        *lock(&self.0) = None;
        outcome
    }

    fn stuck(&self, patience: Duration) -> Option<&'static str> {
        lock(&self.0).filter(|(_, since)| since.elapsed() > patience).map(|(what, _)| what)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TransactionalPublisher {
    /// Fences whoever had these slots, reads the ledger and claims the slots. Waits for brokers that are away; `give_up` is
    /// asked meanwhile.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`] when the ledger has a later generation; when the brokers refuse the settings, the ledger or
    /// the transactions; when `give_up` says so.
    pub fn open(options: TransactionOptions, give_up: &dyn Fn() -> bool) -> Result<TransactionalPublisher, StoreError> {
        let options = Arc::new(options);
        let connection =
            Connection::new(format!("transactions of {}", options.topics.join(", ")), options.brokers.as_str());
        let ledger = Arc::new(Ledger::new(Arc::clone(&options), connection.clone()));
        ledger.prepare(give_up)?;
        // A process that was replaced must not fence the one that replaced it, which may not have come to the ledger yet.
        let before = ledger.peek(give_up)?;
        ledger.check(&before)?;
        if ledger.rightful() == Some(false) {
            return Err(ledger.taken_over("a later start has the job's state"));
        }
        failpoint("topic.fencing");
        let count =
            before.iter().map(|entry| entry.slot.saturating_add(1)).max().unwrap_or(0).max(options.slots.max(1));

        let topics: Vec<TopicCount> = (options.topics.iter())
            .map(|name| TopicCount { name: name.clone(), committed: AtomicU64::new(0) })
            .collect();
        let (topics, cancel) = (Arc::new(topics), Arc::new(AtomicBool::new(false)));
        let (answer, answers) = channel();
        let mut slots = Vec::with_capacity(usize::from(count));
        for number in 0..count {
            let watch = Arc::new(Watch::default());
            let slot = Slot::new(number, &ledger, &connection, &topics, &cancel, &watch);
            let (requests, inbox) = channel();
            let answer = answer.clone();
            let thread = std::thread::Builder::new()
                .name(format!("tidemill-slot-{number}"))
                .spawn(move || slot.work(&inbox, &answer))
                .map_err(|source| StoreError::Io { action: "start a thread for", path: "publish".into(), source })?;
            let entry = Mutex::new(LedgerEntry::none(number));
            slots.push(Running { requests: Some(requests), thread: Some(thread), watch, entry });
        }
        let publisher = TransactionalPublisher {
            options,
            topics,
            slots,
            answers: Mutex::new(answers),
            cancel,
            failed: false.into(),
        };
        publisher.all((0..count).map(|slot| (slot, Request::Fence)), give_up)?;
        let entries = ledger.read(give_up)?;
        ledger.check(&entries)?;
        let of = |slot: u16| entries.iter().find(|e| e.slot == slot).copied().unwrap_or(LedgerEntry::none(slot));
        publisher.all((0..count).map(|slot| (slot, Request::Claim(of(slot)))), give_up)?;
        Ok(publisher)
    }

    /// Whose transactions these are.
    pub fn application(&self) -> &str {
        &self.options.application
    }

    /// Number of slots, those included that an earlier start had more.
    pub fn slots(&self) -> u16 {
        self.slots.len() as u16
    }

    /// What the ledger says of a slot.
    pub fn ledger(&self, slot: u16) -> Option<LedgerEntry> {
        self.slots.get(usize::from(slot)).map(|running| *lock(&running.entry))
    }

    /// The newest epoch of which all messages of a slot are out, as far as it had any.
    pub fn published(&self, slot: u16) -> Option<Epoch> {
        self.ledger(slot)?.published()
    }

    /// Publishes what the ledger lacks of an epoch: the messages of those `parts` (directory and part) that are this
    /// publisher's, in the order given, which is the same whenever the epoch is published. Epochs come in order. Waits for
    /// brokers that are away; `give_up` is asked meanwhile. Returns the messages published by this call.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`] when another process has fenced this one, [`StoreError::OutboxDamaged`],
    /// [`StoreError::Topic`] when a topic takes no messages or `give_up` says so. After an error the publisher publishes
    /// no more; opened anew it goes on by the ledger.
    pub fn publish(
        &self,
        epoch: Epoch,
        parts: &[(PathBuf, OutboxPart)],
        give_up: &dyn Fn() -> bool,
    ) -> Result<Vec<Delivery>, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(self.fault("a publication has failed before; run the job again"));
        }
        let ours: Vec<(PathBuf, OutboxPart)> =
            parts.iter().filter(|(_, part)| part.application == self.options.application).cloned().collect();
        for (directory, part) in &ours {
            let path = directory.join(&part.path);
            if let Some(topic) = part.topics.iter().find(|topic| !self.options.topics.contains(topic)) {
                return Err(self.fault(&format!(
                    "{} holds messages for `{topic}`, which the job does not write any more; run the job once as it was before",
                    path.display()
                )));
            }
            if part.slots.len() > self.slots.len() {
                let reason = format!("it has {} slots, the ledger knows {}", part.slots.len(), self.slots.len());
                return Err(StoreError::OutboxDamaged { path, reason });
            }
        }
        let before: Vec<u64> = self.topics.iter().map(|t| t.committed.load(Ordering::Acquire)).collect();
        let ours = Arc::new(ours);
        let wanted = (0..self.slots()).filter(|slot| {
            let some = ours.iter().any(|(_, part)| part.slots.get(usize::from(*slot)).is_some_and(|count| *count > 0));
            some && !self.ledger(*slot).is_some_and(|entry| entry.covers(epoch))
        });
        let requests: Vec<(u16, Request)> =
            wanted.map(|slot| (slot, Request::Publish { epoch, parts: Arc::clone(&ours) })).collect();
        let published = self.all(requests, give_up);
        if published.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        published?;
        let counts = self.topics.iter().zip(before).map(|(topic, before)| {
            let delivered = topic.committed.load(Ordering::Acquire) - before;
            Delivery { topic: topic.name.clone(), sent: delivered, delivered }
        });
        Ok(counts.collect())
    }

    /// Messages of committed transactions, by topic, since the publisher was opened.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let counts = self.topics.iter().map(|topic| (topic.name.clone(), topic.committed.load(Ordering::Acquire)));
        counts.map(|(topic, count)| Delivery { topic, sent: count, delivered: count }).collect()
    }

    /// Has slots work side by side and waits for all of them, or for the first failure and the end of the others.
    fn all(
        &self,
        requests: impl IntoIterator<Item = (u16, Request)>,
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let answers = lock(&self.answers);
        let mut waiting = Vec::new();
        for (slot, request) in requests {
            if let Some(requests) = &self.slots[usize::from(slot)].requests {
                // The thread ends early only when it panicked, and then the process aborts.
                let _ = requests.send(request);
                waiting.push(slot);
            }
        }
        let mut failure = None;
        let mut ending: Option<Instant> = None;
        while !waiting.is_empty() {
            match answers.recv_timeout(ASK_EVERY) {
                Ok((slot, outcome)) => {
                    waiting.retain(|other| *other != slot);
                    match outcome {
                        Ok(entry) => *lock(&self.slots[usize::from(slot)].entry) = entry,
                        Err(error) => {
                            // What another slot says of being told to stop is no news.
                            failure.get_or_insert(error);
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ending.is_none() && (failure.is_some() || give_up()) {
                self.cancel.store(true, Ordering::Release);
                ending = Some(Instant::now());
            }
            let patience = if ending.is_some() { GRACE } else { STUCK };
            let stuck = waiting.iter().find_map(|slot| self.slots[usize::from(*slot)].watch.stuck(patience));
            if let Some(call) = stuck {
                self.cancel.store(true, Ordering::Release);
                let silent = self.fault(&format!("librdkafka has not come back from `{call}` for {patience:?}"));
                return Err(failure.unwrap_or(silent));
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn fault(&self, reason: &str) -> StoreError {
        let topic = format!("transactions of {}", self.options.application);
        StoreError::Topic { topic, brokers: self.options.brokers.clone(), reason: reason.to_owned() }
    }
}

impl Drop for TransactionalPublisher {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Release);
        for slot in &mut self.slots {
            slot.requests = None;
        }
        let until = Instant::now() + GRACE;
        for slot in &mut self.slots {
            let Some(thread) = slot.thread.take() else { continue };
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            // One that librdkafka does not let go of is left to the end of the process.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

//! One slot: a transactional producer on a thread of its own, and what to do when a transaction does not come through.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::ledger::{Ledger, LedgerEntry, PARTITION, PATIENCE};
use super::report::{Account, Reports, is_permanent, is_purged};
use super::{Answer, TopicCount, Watch};
use crate::base::{Epoch, failpoint};
use crate::kafka::{Bootstrap, Connection, Context, client_config};
use crate::store::StoreError;
use crate::store::topic::outbox::{OutboxMessage, OutboxPart, OutboxReader};

/// How long one call of librdkafka may take before whoever waits is asked.
const CALL: Duration = Duration::from_secs(1);

/// A transaction that has lasted so long is ended, so that it is committed well before the brokers abort it.
const PIECE_TIME: Duration = Duration::from_secs(10);

/// Transactions that lasted so long may have been aborted by the brokers rather than by another process.
const OLD: Duration = Duration::from_secs(30);

/// Longest pause before a transaction is made anew.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Settings that users may override.
const DEFAULTS: &[(&str, &str)] = &[
    // What ends a transaction does not wait for it.
    ("linger.ms", "5"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "32768"),
    ("partitioner", "murmur2_random"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Settings without which exactly once would not hold.
const FIXED: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all"), ("transaction.timeout.ms", "60000")];

/// What a slot is asked to do.
pub(super) enum Request {
    /// Take the slot from whoever has it.
    Fence,
    /// Write that it is taken, to a ledger that says this.
    Claim(LedgerEntry),
    /// Publish an epoch's messages of the slot.
    Publish {
        /// The epoch.
        epoch: Epoch,
        /// Directories and parts.
        parts: Arc<Vec<(PathBuf, OutboxPart)>>,
    },
}

/// Why a transaction did not come through.
enum Trouble {
    /// It can be aborted and made anew.
    Again(String),
    /// The brokers take nothing more from this producer, since there is a newer one or for another reason.
    Fenced {
        /// What they say.
        why: String,
        /// There is a newer one.
        newer: bool,
    },
    /// It is of no use to try again.
    Stop(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Stop(error)
    }
}

pub(super) struct Slot {
    number: u16,
    ledger: Arc<Ledger>,
    connection: Connection,
    topics: Arc<Vec<TopicCount>>,
    cancel: Arc<AtomicBool>,
    watch: Arc<Watch>,
    account: Arc<Account>,
    producer: Option<BaseProducer<Reports>>,
    entry: LedgerEntry,
    /// A transaction has begun and is neither committed nor aborted.
    open: bool,
    /// When the transaction at hand began.
    begun: Instant,
    /// Messages of the transaction at hand.
    sent: u64,
    bootstrap: Bootstrap,
}

impl Slot {
    pub(super) fn new(
        number: u16,
        ledger: &Arc<Ledger>,
        connection: &Connection,
        topics: &Arc<Vec<TopicCount>>,
        cancel: &Arc<AtomicBool>,
        watch: &Arc<Watch>,
    ) -> Slot {
        Slot {
            number,
            ledger: Arc::clone(ledger),
            connection: connection.clone(),
            topics: Arc::clone(topics),
            cancel: Arc::clone(cancel),
            watch: Arc::clone(watch),
            account: Arc::default(),
            producer: None,
            entry: LedgerEntry::none(number),
            open: false,
            begun: Instant::now(),
            sent: 0,
            bootstrap: Bootstrap::default(),
        }
    }

    /// The thread's work.
    pub(super) fn work(mut self, requests: &Receiver<Request>, answers: &Sender<Answer>) {
        loop {
            match requests.recv_timeout(Duration::from_millis(100)) {
                Ok(request) => {
                    let outcome = self.answer(request).map(|()| self.entry);
                    if answers.send((self.number, outcome)).is_err() {
                        return;
                    }
                }
                // Errors and log lines wait to be heard between epochs too.
                Err(RecvTimeoutError::Timeout) => {
                    self.producer.iter().for_each(|producer| producer.poll(Duration::ZERO));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<(), StoreError> {
        match request {
            Request::Fence => self.until_through(|slot| slot.fence()),
            Request::Claim(entry) => {
                self.entry = entry;
                self.until_through(|slot| slot.claim())
            }
            Request::Publish { epoch, parts } => self.publish(epoch, &parts),
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// Repeats `attempt`, with the transaction before aborted, until it comes through.
    fn until_through(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<(), Trouble>) -> Result<(), StoreError> {
        let (since, mut pause) = (Instant::now(), Duration::from_millis(50));
        loop {
            self.begun = Instant::now();
            let outcome = attempt(self).or_else(|trouble| {
                if matches!(trouble, Trouble::Fenced { .. }) { Err(trouble) } else { self.aborted(trouble) }
            });
            let why = match outcome {
                Ok(()) => {
                    self.connection.back();
                    return Ok(());
                }
                Err(Trouble::Stop(error)) => return Err(error),
                Err(Trouble::Again(why)) => why,
                Err(Trouble::Fenced { why, newer }) => {
                    self.refence(&why, newer)?;
                    why
                }
            };
            tracing::debug!(slot = self.number, why, "a transaction is made anew");
            if since.elapsed() > PATIENCE {
                self.connection.lost(&why);
            }
            if self.cancelled() {
                return Err(self.given_up(&why));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Aborts the transaction that was in trouble; `Ok` never.
    fn aborted(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        if !std::mem::take(&mut self.open) {
            return Err(trouble);
        }
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        let aborted = self.complete("abort_transaction", |producer| {
            producer.flush(CALL).and_then(|()| producer.abort_transaction(CALL))
        });
        match (trouble, aborted) {
            // It is aborted so that readers do not wait for it; when that fails, the next to open the slot does.
            (Trouble::Stop(error), _) => Err(Trouble::Stop(error)),
            (_, Err(worse)) => Err(worse),
            (trouble, Ok(())) => {
                // A commit may have come through although it was said not to.
                self.look_up()?;
                Err(trouble)
            }
        }
    }

    /// Takes the slot's entry from the ledger.
    fn look_up(&mut self) -> Result<(), StoreError> {
        let entries = self.ledger.read(&|| self.cancelled())?;
        self.ledger.check(&entries)?;
        let ours = entries.into_iter().find(|entry| entry.slot == self.number);
        self.entry = ours.unwrap_or(LedgerEntry::none(self.number));
        Ok(())
    }

    /// The brokers take nothing more: another process has the slot, unless the transaction outlived its time, or the other was
    /// replaced by this one and has woken late: it stops when it is fenced in its turn.
    fn refence(&mut self, why: &str, newer: bool) -> Result<(), StoreError> {
        let age = self.begun.elapsed();
        (self.producer, self.open) = (None, false);
        let taken = self.ledger.taken_over(&format!("slot {}: {why}", self.number));
        let rightful = self.ledger.rightful();
        if rightful == Some(false) || (newer && age < OLD && rightful.is_none()) {
            return Err(taken);
        }
        self.look_up()?;
        tracing::warn!(
            slot = self.number,
            seconds = age.as_secs(),
            why,
            "the brokers have ended a transaction, and no other process has the job's state or shows in the ledger; opening the slot anew"
        );
        loop {
            match self.fence() {
                Ok(()) => break,
                Err(Trouble::Stop(error)) => return Err(error),
                Err(Trouble::Fenced { .. }) if self.ledger.rightful() != Some(true) => return Err(taken),
                Err(Trouble::Fenced { .. }) if self.cancelled() => return Err(taken),
                Err(Trouble::Fenced { .. }) => std::thread::sleep(PAUSE_MAX),
                Err(Trouble::Again(why)) if self.cancelled() => return Err(self.given_up(&why)),
                Err(Trouble::Again(_)) => std::thread::sleep(PAUSE_MAX),
            }
        }
        // Only now can nobody publish between this look and our next transaction.
        self.look_up()
    }

    /// Makes a producer, which fences the one before.
    fn fence(&mut self) -> Result<(), Trouble> {
        (self.producer, self.open) = (None, false);
        let options = &self.ledger.options;
        let id = format!("{}-{}", options.application, self.number);
        let fixed: Vec<(&str, &str)> = FIXED.iter().copied().chain([("transactional.id", id.as_str())]).collect();
        let refused = |error: String| self.ledger.fault(format!("no transactional producer can be made: {error}"));
        let config = client_config(&options.brokers, &options.properties, DEFAULTS, &fixed);
        let reports = Reports { account: Arc::clone(&self.account), context: Context(self.connection.clone()) };
        let config = config.map_err(|error| refused(error.to_string()))?;
        let producer = config.create_with_context(reports).map_err(|error| refused(error.to_string()))?;
        self.producer = Some(producer);
        self.complete("init_transactions", |producer| producer.init_transactions(CALL))
    }

    /// Writes the slot's entry again with this generation.
    fn claim(&mut self) -> Result<(), Trouble> {
        let entry = LedgerEntry { generation: self.ledger.options.generation, ..self.entry };
        self.begin()?;
        self.record(&entry)?;
        self.commit()?;
        self.entry = entry;
        Ok(())
    }

    fn publish(&mut self, epoch: Epoch, parts: &[(PathBuf, OutboxPart)]) -> Result<(), StoreError> {
        let outbox = self.checksum(parts);
        while !self.entry.covers(epoch) {
            if !self.entry.complete {
                let LedgerEntry { epoch: partly, outbox: theirs, messages, .. } = self.entry;
                if (partly, theirs) != (Some(epoch), outbox) {
                    return Err(self.ledger.fault(format!(
                        "{messages} messages of epoch {} in slot {} were published from an outbox that is not here; bring it back, or give the job a state directory and a ledger of their own",
                        partly.unwrap_or_default(), self.number
                    )));
                }
            }
            self.until_through(|slot| slot.piece(epoch, outbox, parts))?;
        }
        Ok(())
    }

    /// Tells one outbox of the slot from another.
    fn checksum(&self, parts: &[(PathBuf, OutboxPart)]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for (_, part) in parts {
            hasher.update(&part.crc32.to_le_bytes());
            hasher.update(&part.bytes.to_le_bytes());
        }
        hasher.finalize()
    }

    /// One transaction: messages from where the ledger says, and the record of how far they go.
    fn piece(&mut self, epoch: Epoch, outbox: u32, parts: &[(PathBuf, OutboxPart)]) -> Result<(), Trouble> {
        if self.entry.covers(epoch) {
            // The commit before had come through.
            return Ok(());
        }
        let done = if self.entry.complete { 0 } else { self.entry.messages };
        let number = usize::from(self.number);
        let of_slot = |part: &OutboxPart| part.slots.get(number).copied().unwrap_or_default();
        let total: u64 = parts.iter().map(|(_, part)| of_slot(part)).sum();
        let most = self.ledger.options.messages_max.max(1).min(total - done.min(total));
        let mut counts = vec![0; self.topics.len()];
        let (mut skip, mut taken) = (done, 0);
        let began = Instant::now();
        self.begin()?;
        'parts: for (directory, part) in parts {
            let count = of_slot(part);
            if count <= skip {
                skip -= count;
                continue;
            }
            let topics: Vec<usize> = part.topics.iter().enumerate().map(|(i, name)| self.place(i, name)).collect();
            let mut reader = OutboxReader::open(directory, part, self.number)?;
            reader.skip(std::mem::take(&mut skip))?;
            while let Some(message) = reader.next()? {
                let topic = topics[usize::from(message.topic)];
                self.send(topic, &message)?;
                counts[topic] += 1;
                taken += 1;
                if taken == most || began.elapsed() > PIECE_TIME {
                    break 'parts;
                }
            }
        }
        let messages = done + taken;
        let generation = self.ledger.options.generation;
        let complete = messages == total;
        let entry = LedgerEntry { slot: self.number, generation, epoch: Some(epoch), messages, complete, outbox };
        self.record(&entry)?;
        self.settle()?;
        failpoint("topic.sent");
        self.commit()?;
        failpoint("topic.committed");
        self.entry = entry;
        for (topic, count) in self.topics.iter().zip(counts) {
            topic.committed.fetch_add(count, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Number of a topic that a part knows by another number, if the job has changed.
    fn place(&self, number: usize, name: &str) -> usize {
        match self.topics.get(number) {
            Some(topic) if topic.name == name => number,
            // The publisher has seen that all of them are among its own.
            _ => self.topics.iter().position(|topic| topic.name == name).unwrap_or_default(),
        }
    }

    fn begin(&mut self) -> Result<(), Trouble> {
        self.sent = 0;
        self.account.reset();
        self.begun = Instant::now();
        self.complete("begin_transaction", BaseProducer::begin_transaction)?;
        self.open = true;
        Ok(())
    }

    fn send(&mut self, topic: usize, message: &OutboxMessage<'_>) -> Result<(), Trouble> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in message.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let topics = Arc::clone(&self.topics);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&topics[topic].name, topic);
        record = record.payload(message.payload).headers(headers);
        record.key = message.key;
        self.enqueue(record)
    }

    fn record(&mut self, entry: &LedgerEntry) -> Result<(), Trouble> {
        let ledger = Arc::clone(&self.ledger);
        let (key, value) = (ledger.key(self.number), serde_json::to_vec(entry));
        let value = value.map_err(|error| ledger.fault(error.to_string()))?;
        let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&ledger.options.ledger, self.topics.len());
        self.enqueue(record.partition(PARTITION).key(key.as_bytes()).payload(value.as_slice()))
    }

    fn enqueue(&mut self, mut record: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), Trouble> {
        let mut moved = (0, Instant::now());
        loop {
            let Some(producer) = &self.producer else { return Err(self.defect()) };
            match producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    // Reports that wait take the place of messages.
                    if self.sent.is_multiple_of(1024) {
                        producer.poll(Duration::ZERO);
                    }
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(1));
                    self.look(&mut moved)?;
                }
                Err((error, _)) => return Err(self.refused(&error)),
            }
        }
    }

    /// Waits until all messages of the transaction are acknowledged.
    fn settle(&mut self) -> Result<(), Trouble> {
        let mut moved = (0, Instant::now());
        while self.account.settled() < self.sent {
            let Some(producer) = &self.producer else { return Err(self.defect()) };
            // Has what lingers go at once and hears of deliveries; takes all of its time whenever they come.
            match producer.flush(Duration::from_millis(1)) {
                Ok(()) | Err(KafkaError::Flush(Code::OperationTimedOut)) => {}
                Err(error) => return Err(self.trouble(&error)),
            }
            self.look(&mut moved)?;
        }
        self.look(&mut moved)
    }

    /// Whether messages were refused, and whether the brokers still take them.
    fn look(&self, moved: &mut (u64, Instant)) -> Result<(), Trouble> {
        if let Some((topic, error)) = self.account.failure() {
            return Err(match self.topics.get(topic) {
                Some(topic) if is_permanent(&error) => Trouble::Stop(StoreError::Topic {
                    topic: format!("topic `{}`", topic.name),
                    brokers: self.ledger.options.brokers.clone(),
                    reason: format!(
                        "a message was not taken: {error}; mend the topic or its settings and run the job again"
                    ),
                }),
                // It fell with the transaction, whose end says why.
                _ if is_purged(&error) => match self.end() {
                    Err(trouble) => trouble,
                    Ok(()) => self.trouble(&error),
                },
                _ => self.trouble(&error),
            });
        }
        let settled = self.account.settled();
        if settled != moved.0 {
            *moved = (settled, Instant::now());
            self.connection.back();
        } else if moved.1.elapsed() > PATIENCE {
            self.connection.lost(&format!("{} messages of a transaction are not acknowledged", self.sent - settled));
        }
        self.tend();
        if self.cancelled() { Err(Trouble::Stop(self.given_up("a transaction is not complete"))) } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Trouble> {
        self.settle()?;
        self.end()?;
        self.open = false;
        Ok(())
    }

    /// Commits, unless a message was not delivered: librdkafka then says what went wrong.
    fn end(&self) -> Result<(), Trouble> {
        self.complete("commit_transaction", |producer| producer.commit_transaction(CALL))
    }

    /// Calls again what only took too long.
    fn complete(
        &self,
        what: &'static str,
        call: impl Fn(&BaseProducer<Reports>) -> Result<(), KafkaError>,
    ) -> Result<(), Trouble> {
        let Some(producer) = &self.producer else { return Err(self.defect()) };
        let since = Instant::now();
        loop {
            let error = match self.watch.during(what, || call(producer)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let (retriable, abort) = match &error {
                KafkaError::Transaction(error) => (error.is_retriable(), error.txn_requires_abort()),
                other => (other.rdkafka_error_code() == Some(Code::OperationTimedOut), false),
            };
            if !retriable || abort {
                return Err(self.trouble(&error));
            }
            if self.cancelled() {
                return Err(Trouble::Stop(self.given_up(&format!("{what}: {error}"))));
            }
            if since.elapsed() > PATIENCE {
                if let Some(why) = self.connection.refusal() {
                    return Err(Trouble::Stop(self.ledger.fault(format!("the brokers do not let the job in: {why}"))));
                }
                self.connection.lost(&format!("{what}: {error}"));
            }
            self.tend();
            // Serves the log and errors, which say why.
            producer.poll(Duration::from_millis(10));
        }
    }

    /// Has the producer find its brokers again.
    fn tend(&self) {
        if let Some(producer) = &self.producer {
            self.connection.tend(&self.bootstrap, producer.client());
        }
    }

    /// What a message meets that is not taken into the queue: the transaction's own trouble says why, if it has any.
    fn refused(&self, error: &KafkaError) -> Trouble {
        match self.trouble(error) {
            Trouble::Stop(_) if error.rdkafka_error_code() == Some(Code::State) => Trouble::Again(error.to_string()),
            trouble => trouble,
        }
    }

    fn trouble(&self, error: &KafkaError) -> Trouble {
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        let (code, why) = match &fatal {
            Some((code, text)) => (Some(*code), text.clone()),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        let newer = [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch];
        let newer = code.is_some_and(|code| newer.contains(&code));
        if newer || (fatal.is_some() && code == Some(Code::InvalidTransactionalState)) {
            return Trouble::Fenced { why, newer };
        }
        let again = match error {
            // A topic that is there may be unknown to a broker that has just come back; one that is not shows by its messages.
            KafkaError::Transaction(error) if error.code() == Code::UnknownTopicOrPartition => true,
            KafkaError::Transaction(transaction) => transaction.txn_requires_abort() && !is_permanent(error),
            _ => !is_permanent(error),
        };
        if fatal.is_none() && again {
            return Trouble::Again(why);
        }
        Trouble::Stop(self.ledger.fault(format!("transactions of slot {}: {why}", self.number)))
    }

    fn given_up(&self, why: &str) -> StoreError {
        self.ledger.fault(format!("slot {}: {why}; what is not published yet is when the job runs again", self.number))
    }

    fn defect(&self) -> Trouble {
        Trouble::Stop(self.ledger.fault(format!("slot {} is not open", self.number)))
    }
}

//! The producer of a job's topics: an idempotent librdkafka producer with a bounded queue, and an account of what the
//! brokers have acknowledged.
//!
//! [`Publisher::submit`] waits while the queue is full: whoever calls it is slowed to the brokers' pace and nothing is lost.
//! Messages do not expire; a broker that is away is waited for, with one warning when it is missed and one when it is back.

mod messages;
mod sender;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

pub use self::messages::Messages;
use self::sender::Waiting;
use crate::kafka::{Bootstrap, Connection, Context, client_config};
use crate::store::StoreError;

/// Brokers that have not answered for so long are missed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a sender sleeps before it tries a full queue again.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// Bytes that may wait for the messages before them.
const WAITING_BYTES_MAX: usize = 64 << 20;

const QUEUE_MESSAGES: &str = "queue.buffering.max.messages";

/// Settings that users may override. Messages wait without end, and land in the partition where Java's clients would put
/// them. They linger until the last of their burst is there, which has them leave: see [`sender`].
const DEFAULTS: &[(&str, &str)] = &[
    ("linger.ms", "5"),
    ("message.timeout.ms", "0"),
    (QUEUE_MESSAGES, "100000"),
    ("queue.buffering.max.kbytes", "65536"),
    ("partitioner", "murmur2_random"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Settings without which at least once would not hold.
const FIXED: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all")];

/// What one topic has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the topic.
    pub topic: String,
    /// Messages handed to the producer.
    pub sent: u64,
    /// Messages acknowledged by the brokers.
    pub delivered: u64,
}

/// The producer of one or more topics on one set of brokers. Shared by the threads of all workers.
pub struct Publisher {
    brokers: String,
    connection: Connection,
    account: Arc<Account>,
    waiting: Arc<Waiting>,
    /// Messages that may be on their way.
    messages_max: u64,
    closing: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What was sent and what came of it.
#[derive(Debug, Default)]
struct Account {
    topics: Vec<TopicAccount>,
    failure: Mutex<Option<Failure>>,
    failed: AtomicBool,
}

/// Why the topics cannot be written.
#[derive(Debug)]
enum Failure {
    /// A message to the topic of this number was refused.
    Message(usize, String),
    /// Brokers have let the producer in not once.
    Client(String),
}

#[derive(Debug, Default)]
struct TopicAccount {
    name: String,
    sent: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Account {
    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
    }

    /// Messages to a topic were not taken.
    fn refused(&self, topic: usize, failure: Failure, count: u64) {
        self.fail(failure);
        if let Some(topic) = self.topics.get(topic) {
            topic.failed.fetch_add(count, Ordering::AcqRel);
        }
    }

    fn sum(&self, of: impl Fn(&TopicAccount) -> &AtomicU64) -> u64 {
        self.topics.iter().map(|topic| of(topic).load(Ordering::Acquire)).sum()
    }

    /// Messages that the brokers have neither acknowledged nor refused.
    fn outstanding(&self) -> u64 {
        let settled = self.sum(|t| &t.delivered) + self.sum(|t| &t.failed);
        self.sum(|t| &t.sent).saturating_sub(settled)
    }
}

/// Hears of deliveries.
struct Reports {
    account: Arc<Account>,
    context: Context,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, topic: usize) {
        let Some(account) = self.account.topics.get(topic) else { return };
        match result {
            Ok(_) => {
                account.delivered.fetch_add(1, Ordering::AcqRel);
            }
            Err((error, _)) => self.account.refused(topic, Failure::Message(topic, error.to_string()), 1),
        }
    }
}

impl Publisher {
    /// Makes a producer for `topics`. `properties` are librdkafka's, by name; they override the defaults of this module.
    /// Does not wait for a broker.
    ///
    /// # Errors
    /// When librdkafka does not know a setting or refuses its value.
    pub fn open(brokers: &str, properties: &[(String, String)], topics: &[String]) -> Result<Publisher, StoreError> {
        let whose = format!("producer of {}", topics.join(", "));
        let topics: Vec<TopicAccount> =
            topics.iter().map(|name| TopicAccount { name: name.clone(), ..TopicAccount::default() }).collect();
        let account = Arc::new(Account { topics, ..Account::default() });
        let refused = |error: String| StoreError::Topic {
            topic: "topics".to_owned(),
            brokers: brokers.to_owned(),
            reason: format!("no producer can be made: {error}"),
        };
        let config = client_config(brokers, properties, DEFAULTS, FIXED).map_err(|e| refused(e.to_string()))?;
        let connection = Connection::new(whose, brokers);
        let reports = Reports { account: Arc::clone(&account), context: Context(connection.clone()) };
        let producer: BaseProducer<Reports> =
            config.create_with_context(reports).map_err(|e| refused(e.to_string()))?;
        let producer = Arc::new(producer);
        // Zero is no bound, by librdkafka's word.
        let messages_max = config.get(QUEUE_MESSAGES).and_then(|text| text.parse().ok()).filter(|max| *max > 0);
        let mut publisher = Publisher {
            brokers: brokers.to_owned(),
            connection: connection.clone(),
            account: Arc::clone(&account),
            waiting: Arc::default(),
            messages_max: messages_max.unwrap_or(u64::MAX),
            closing: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        let (closing, theirs, served) = (Arc::clone(&publisher.closing), Arc::clone(&account), Arc::clone(&producer));
        publisher.start("tidemill-publish", move || poll(&served, &theirs, &closing, &connection))?;
        let (closing, waiting) = (Arc::clone(&publisher.closing), Arc::clone(&publisher.waiting));
        publisher.start("tidemill-send", move || sender::send(producer, &account, &waiting, &closing))?;
        Ok(publisher)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let failed = |source| StoreError::Io { action: "start a thread for", path: "publish".into(), source };
        self.threads.push(thread.map_err(failed)?);
        Ok(())
    }

    /// Whether the last news of its brokers is that they do not answer.
    pub fn is_away(&self) -> bool {
        self.connection.is_away()
    }

    /// Takes messages in, which leave as soon as those before them are acknowledged. Waits while as many are on their way
    /// as the producer's queue holds; `give_up` is asked meanwhile.
    ///
    /// # Errors
    /// When a message before could not be delivered, or `give_up` says so.
    pub fn submit(&self, topic: usize, messages: Messages, give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        if !messages.is_empty() {
            self.make_room(messages.len() as u64, give_up)?;
            // Counted before, so that no report comes ahead of its message.
            self.account.topics[topic].sent.fetch_add(messages.len() as u64, Ordering::AcqRel);
            self.waiting.push(topic, messages);
        }
        Ok(())
    }

    /// As [`submit`](Self::submit), for one message.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn send(
        &self,
        topic: usize,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: &[(&'static str, &[u8])],
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        self.make_room(1, give_up)?;
        self.account.topics[topic].sent.fetch_add(1, Ordering::AcqRel);
        self.waiting.push_one(topic, key, payload, headers);
        Ok(())
    }

    /// Waits until so many messages more may be on their way. More than there is ever room for go when nothing else does.
    fn make_room(&self, count: u64, give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        loop {
            self.check()?;
            let outstanding = self.account.outstanding();
            let room = outstanding + count <= self.messages_max && self.waiting.bytes() < WAITING_BYTES_MAX;
            if room || outstanding == 0 {
                return Ok(());
            }
            if give_up() {
                return Err(self.undelivered("the queue of the producer is full and the brokers take nothing"));
            }
            std::thread::sleep(FULL_WAIT);
        }
    }

    /// Whether all is well so far.
    ///
    /// # Errors
    /// When a message was refused, or the brokers have refused the producer from the start.
    pub fn check(&self) -> Result<(), StoreError> {
        if !self.account.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.account.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.as_ref() {
            Some(Failure::Message(topic, error)) => {
                let topic = &self.account.topics[*topic];
                let failed = topic.failed.load(Ordering::Acquire);
                Err(self.fault(&topic.name, &format!("{failed} messages were not taken, the first for: {error}")))
            }
            Some(Failure::Client(why)) => Err(StoreError::Topic {
                topic: "messages".to_owned(),
                brokers: self.brokers.clone(),
                reason: format!("the brokers do not let the producer in: {why}"),
            }),
            None => Ok(()),
        }
    }

    /// Waits until all messages are acknowledged; `give_up` is asked meanwhile.
    ///
    /// # Errors
    /// Names what was not delivered, when a message was refused or `give_up` says so.
    pub fn flush(&self, give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        while self.account.outstanding() > 0 {
            self.check()?;
            if give_up() {
                return Err(self.undelivered("the brokers do not answer"));
            }
            std::thread::sleep(FULL_WAIT);
        }
        self.check()
    }

    /// Messages acknowledged so far: grows while the brokers answer.
    pub fn delivered(&self) -> u64 {
        self.account.sum(|t| &t.delivered)
    }

    /// What each topic has got.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire);
        let topics = self.account.topics.iter();
        topics.map(|t| Delivery { topic: t.name.clone(), sent: load(&t.sent), delivered: load(&t.delivered) }).collect()
    }

    fn fault(&self, topic: &str, reason: &str) -> StoreError {
        StoreError::Topic {
            topic: format!("topic `{topic}`"),
            brokers: self.brokers.clone(),
            reason: format!("{reason}; mend the topic or its settings and run the job again"),
        }
    }

    fn undelivered(&self, why: &str) -> StoreError {
        let mut text = String::new();
        for delivery in self.deliveries().iter().filter(|d| d.sent > d.delivered) {
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{comma}{} of {} to `{}`",
                delivery.sent - delivery.delivered,
                delivery.sent,
                delivery.topic
            );
        }
        let text = if text.is_empty() { "the message at hand".to_owned() } else { text };
        StoreError::Topic {
            topic: "messages".to_owned(),
            brokers: self.brokers.clone(),
            reason: format!("{why}; not delivered: {text}; when the brokers answer again, run the job again"),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.waiting.close();
        for thread in self.threads.drain(..) {
            // The threads do not panic short of a defect, and then their panic has been reported.
            let _ = thread.join();
        }
    }
}

/// Serves delivery reports and tells when the brokers fall silent and when they answer again.
fn poll(producer: &BaseProducer<Reports>, account: &Account, closing: &AtomicBool, connection: &Connection) {
    let (mut seen, mut since) = (0, Instant::now());
    let bootstrap = Bootstrap::default();
    while !closing.load(Ordering::Acquire) {
        producer.poll(Duration::from_millis(100));
        let delivered = account.sum(|t| &t.delivered);
        let outstanding = account.outstanding();
        if delivered != seen {
            connection.back();
        }
        if delivered != seen || outstanding == 0 {
            (seen, since) = (delivered, Instant::now());
        } else if since.elapsed() > PATIENCE {
            // Settings that never worked are mended by nobody who waits; those that did may be valid again.
            if let Some(why) = connection.refusal().filter(|_| delivered == 0) {
                account.fail(Failure::Client(why));
            }
            connection.lost(&format!(
                "{outstanding} messages are not acknowledged; the input pauses when the producer's queue is full"
            ));
        }
        connection.tend(&bootstrap, producer.client());
    }
}

//! A topic as a whole: its client, its partitions, and the thread that watches both.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::Reading;
use super::columns::MessageColumns;
use super::partition::{Partition, Place};
use super::watch::TopicWatch;
use crate::ingest::IngestError;
use crate::kafka::{Bootstrap, Connection, Context, client_config};
use crate::plan::model::{KafkaConnector, KafkaStart, SourcePlan};

/// What we would choose; the file's `properties` may say otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    // Messages come as soon as there is one; the wait is how often an end of partition is told.
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    // Each partition has a queue of its own of this size.
    (FETCHED_KBYTES, "16384"),
    // A queue that was full is filled again at once, not after librdkafka's second.
    ("fetch.queue.backoff.ms", "5"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
];

const FETCHED_KBYTES: &str = "queued.max.messages.kbytes";
/// As in [`DEFAULTS`].
const FETCHED_KBYTES_EACH: usize = 16_384;
/// Fetched and not yet read, all partitions that are there at the start together.
const FETCHED_KBYTES_MAX: usize = 262_144;

/// What must be so; the file may not say otherwise.
const FIXED: &[(&str, &str)] = &[
    // Needed by librdkafka for assigning partitions; nothing is ever committed by this client.
    ("group.id", "tidemill"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
    ("allow.auto.create.topics", "false"),
];

/// How long a broker may take to answer when a job starts.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer is waited for when a job starts, time by time: a refusal is told before all of it has passed, for
/// waiting would not mend it. At first it may be one broker's of several, or that of a broker that is starting.
const START_WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(7)];

/// How long a broker may take to answer while a job runs, before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// Called from librdkafka's threads when a queue that was empty has something.
pub(crate) type Waker = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// A topic of one source.
pub(crate) struct Topic {
    source: String,
    connector: KafkaConnector,
    schema: SchemaRef,
    shared: Arc<Shared>,
    reading: Reading,
    /// Where the partitions that were there at the start begin, and where reading ends if it does.
    beginnings: Vec<Place>,
    /// Partitions entered so far.
    entered: usize,
    watcher: Option<JoinHandle<()>>,
}

/// What partitions and the watching thread have in common.
pub(crate) struct Shared {
    pub consumer: Arc<BaseConsumer<Context>>,
    pub connection: Connection,
    pub waker: Waker,
    /// First offsets of the partitions that have appeared since the start. Asked for by the thread that watches, since a
    /// leader that is not chosen yet would keep the caller waiting.
    appeared: Mutex<Vec<u64>>,
    /// When brokers were asked the first and the last of the questions that they have answered without a break.
    answering: Mutex<Option<(Instant, Instant)>>,
    stop: AtomicBool,
}

impl Shared {
    fn appeared(&self) -> MutexGuard<'_, Vec<u64>> {
        self.appeared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topic {
    /// Connects to the brokers and finds out where to begin. `resume` are next offsets by partition.
    ///
    /// # Errors
    /// When no broker answers, the topic is not there, or a setting is refused.
    pub(crate) fn open(
        plan: &SourcePlan,
        connector: &KafkaConnector,
        reading: Reading,
        resume: Option<&[u64]>,
    ) -> Result<Topic, IngestError> {
        let refuse = |what: String| IngestError::source(&plan.name, what);
        let mut config = client_config(&connector.brokers, &connector.properties.0, DEFAULTS, FIXED)
            .map_err(|e| refuse(e.to_string()))?;
        let connection = Connection::new(format!("source `{}`", plan.name), &connector.brokers).quiet();
        let connect = |config: &ClientConfig| -> Result<BaseConsumer<Context>, IngestError> {
            config.create_with_context(Context(connection.clone())).map_err(|e| refuse(e.to_string()))
        };
        let mut consumer = connect(&config)?;
        // Opened early so that a decoder that cannot be is told before anything is read.
        MessageColumns::new(&plan.name, connector, &plan.schema)?;
        let count = count_partitions(&plan.name, connector, &consumer, &connection)?;
        connection.back();
        // Fetched ahead by partition, so many of them have to do with less; the setting is the client's, made anew.
        let share = FETCHED_KBYTES_MAX / count.max(1);
        let set = connector.properties.0.iter().any(|(name, _)| name == FETCHED_KBYTES);
        if share < FETCHED_KBYTES_EACH && !set {
            config.set(FETCHED_KBYTES, share.max(64).to_string());
            consumer = connect(&config)?;
        }
        let shared = Arc::new(Shared {
            consumer: Arc::new(consumer),
            connection,
            waker: Waker::default(),
            appeared: Mutex::default(),
            answering: Mutex::new(Some((Instant::now(), Instant::now()))),
            stop: AtomicBool::new(false),
        });
        let mut topic = Topic {
            source: plan.name.clone(),
            connector: connector.clone(),
            schema: plan.schema.clone(),
            shared,
            reading,
            beginnings: Vec::new(),
            entered: 0,
            watcher: None,
        };
        let had = resume.map_or(0, <[u64]>::len);
        if had > count {
            let name = &connector.topic;
            return Err(refuse(format!(
                "topic `{name}` had {had} partitions and now has {count}; it is another topic: begin anew, or mend `topic`"
            )));
        }
        if reading != Reading::Replay {
            topic.beginnings = topic.beginnings(count, resume)?;
        }
        if reading != Reading::UntilEnd {
            topic.watch(plan.idle_after, count)?;
        }
        Ok(topic)
    }

    /// Whether partitions have no end and new ones may appear.
    pub(crate) fn is_live(&self) -> bool {
        self.reading == Reading::Live
    }

    /// Has `wake` called, from another thread, when a partition that had nothing has something.
    pub(crate) fn wake_with(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // A second one would be from a second graph over the same reader, which there is not.
        let _ = self.shared.waker.set(wake);
    }

    /// Enters the partitions that are there and have not been entered.
    ///
    /// # Errors
    /// When a partition cannot be assigned.
    pub(crate) fn discover(&mut self) -> Result<Vec<Partition>, IngestError> {
        let mut found = Vec::new();
        if self.reading == Reading::Replay {
            return Ok(found);
        }
        loop {
            let appeared =
                |index: usize| self.shared.appeared().get(index).map(|first| Place { next: *first, end: None });
            let place = match self.beginnings.get(self.entered) {
                Some(place) => Some(*place),
                // From its first offset, whatever `start` says, since all of it came after the start.
                None => appeared(self.entered - self.beginnings.len()),
            };
            let Some(place) = place else { return Ok(found) };
            found.push(self.enter(place.next, place.end)?);
        }
    }

    /// Enters the next partition at an offset. Where it ends, if it does, was found out at the start.
    ///
    /// # Errors
    /// When it cannot be assigned.
    pub(crate) fn enter_at(&mut self, next: u64) -> Result<Partition, IngestError> {
        let end = self.beginnings.get(self.entered).and_then(|place| place.end);
        self.enter(next, end)
    }

    /// Enters the next partition.
    fn enter(&mut self, next: u64, end: Option<u64>) -> Result<Partition, IngestError> {
        let number = u16::try_from(self.entered).map_err(|_| {
            IngestError::source(&self.source, "the topic has more than 65,536 partitions, which is the most".to_owned())
        })?;
        let columns = MessageColumns::new(&self.source, &self.connector, &self.schema)?;
        let place = Place { next, end };
        let partition = Partition::assign(&self.source, &self.connector.topic, number, place, &self.shared, columns)?;
        self.entered += 1;
        Ok(partition)
    }

    /// Looks at it from outside.
    pub(crate) fn watched(&self) -> Option<TopicWatch> {
        TopicWatch::new(&self.source, &self.connector.topic, Arc::downgrade(&self.shared))
    }

    /// When brokers were asked the first and the last of the questions that they have answered without a break.
    pub(crate) fn answering(&self) -> Option<(Instant, Instant)> {
        *self.shared.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watermarks(&self, partition: usize, patience: Duration) -> Result<(u64, u64), KafkaError> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shared.consumer.fetch_watermarks(&self.connector.topic, number, left) {
                Ok((low, high)) => return Ok((low.unsigned_abs(), high.unsigned_abs())),
                // A topic that was just made, or moves, has no leader for a moment.
                Err(error) if has_no_leader(&error) && left > LEADER_PAUSE => std::thread::sleep(LEADER_PAUSE),
                Err(error) => return Err(error),
            }
        }
    }

    fn beginnings(&self, count: usize, resume: Option<&[u64]>) -> Result<Vec<Place>, IngestError> {
        let mut places = Vec::with_capacity(count);
        for partition in 0..count {
            let (low, high) = self.watermarks(partition, START_PATIENCE).map_err(|e| self.unreachable(&e))?;
            let next = match (resume.map(|r| r.get(partition)), self.connector.start) {
                (Some(Some(next)), _) => *next,
                // It has appeared since the job began: all of it, as if the job had been there.
                (Some(None), _) => low,
                (None, KafkaStart::Earliest | KafkaStart::At(_)) => low,
                (None, KafkaStart::Latest) => high,
            };
            places.push(Place { next, end: (self.reading == Reading::UntilEnd).then_some(high) });
        }
        if let (None, KafkaStart::At(time)) = (resume, self.connector.start) {
            let mut asked = TopicPartitionList::new();
            for partition in 0..count {
                let number = i32::try_from(partition).unwrap_or(i32::MAX);
                // Rounded up, so that nothing from before the time is read.
                let millis = time.div_euclid(1_000) + i64::from(time.rem_euclid(1_000) > 0);
                asked
                    .add_partition_offset(&self.connector.topic, number, Offset::Offset(millis))
                    .map_err(|e| self.unreachable(&e))?;
            }
            let found = self.shared.consumer.offsets_for_times(asked, START_PATIENCE);
            for element in found.map_err(|e| self.unreachable(&e))?.elements() {
                element.error().map_err(|e| self.unreachable(&e))?;
                let Some(place) = usize::try_from(element.partition()).ok().and_then(|p| places.get_mut(p)) else {
                    continue;
                };
                place.next = match element.offset() {
                    Offset::Offset(offset) => offset.unsigned_abs(),
                    // No message is that young.
                    _ => {
                        self.watermarks(usize::try_from(element.partition()).unwrap_or_default(), START_PATIENCE)
                            .map_err(|e| self.unreachable(&e))?
                            .1
                    }
                };
            }
        }
        Ok(places)
    }

    fn unreachable(&self, error: &KafkaError) -> IngestError {
        unreachable(&self.source, &self.connector, error)
    }

    /// Starts the thread that looks for new partitions and whether brokers answer.
    fn watch(&mut self, idle_after: Option<i64>, partitions: usize) -> Result<(), IngestError> {
        let every = Duration::from_micros(self.connector.discover_every.max(1).unsigned_abs());
        // Silence must be told from absence well before it counts.
        let idle = idle_after.map_or(PROBE_MAX, |idle| Duration::from_micros(idle.unsigned_abs()) / 4);
        let every = every.min(idle).clamp(Duration::from_millis(100), PROBE_MAX);
        let (shared, connector, source) = (self.shared.clone(), self.connector.clone(), self.source.clone());
        let thread = std::thread::Builder::new().name("kafka-source".into());
        let thread = thread.spawn(move || watch(&source, &connector, &shared, every, partitions));
        let failed =
            |e: std::io::Error| IngestError::source(&self.source, format!("its thread cannot be started: {e}"));
        self.watcher = Some(thread.map_err(failed)?);
        Ok(())
    }
}

/// Between two questions for a partition that has no leader yet.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

fn has_no_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
    )
}

/// Longest time between two questions to the brokers.
const PROBE_MAX: Duration = Duration::from_secs(5);

impl Drop for Topic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.watcher.take() {
            // Its panic, a defect, has been reported.
            let _ = thread.join();
        }
    }
}

fn watch(source: &str, connector: &KafkaConnector, shared: &Shared, every: Duration, mut partitions: usize) {
    let mut asked = Instant::now();
    let bootstrap = Bootstrap::default();
    while !shared.stop.load(Ordering::Relaxed) {
        // Partitions have queues of their own; here come errors of the client as a whole.
        if let Some(Err(error)) = shared.consumer.poll(Duration::from_millis(50)) {
            // The client's context has heard of it and knows more.
            tracing::debug!(source, %error, "kafka");
        }
        shared.connection.tend(&bootstrap, shared.consumer.client());
        let wait = if shared.connection.is_away() { every.min(Duration::from_millis(500)) } else { every };
        if asked.elapsed() < wait {
            continue;
        }
        asked = Instant::now();
        let answer = shared.consumer.fetch_metadata(Some(&connector.topic), PATIENCE);
        let mut answering = shared.answering.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(metadata) => {
                *answering = Some((answering.map_or(asked, |(first, _)| first), asked));
                drop(answering);
                shared.connection.back();
                let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
                while partitions < count {
                    let number = i32::try_from(partitions).unwrap_or(i32::MAX);
                    // It fails while the new partition has no leader; asked again next time.
                    let Ok((low, _)) = shared.consumer.fetch_watermarks(&connector.topic, number, PATIENCE) else {
                        break;
                    };
                    tracing::info!(source, topic = connector.topic, partition = partitions, "new partition");
                    shared.appeared().push(low.unsigned_abs());
                    partitions += 1;
                    if let Some(wake) = shared.waker.get() {
                        wake();
                    }
                }
            }
            Err(error) => {
                *answering = None;
                drop(answering);
                shared.connection.lost(&error.to_string());
            }
        }
    }
}

/// Errors of a client that are heard at once.
const NEWS_MAX: usize = 64;

fn unreachable(source: &str, connector: &KafkaConnector, error: &KafkaError) -> IngestError {
    IngestError::Broker { source_name: source.into(), brokers: connector.brokers.clone(), error: error.to_string() }
}

fn count_partitions(
    source: &str,
    connector: &KafkaConnector,
    consumer: &BaseConsumer<Context>,
    connection: &Connection,
) -> Result<usize, IngestError> {
    let mut failed = None;
    let mut waits = START_WAITS.iter().enumerate();
    let metadata = loop {
        let Some((time, wait)) = waits.next() else {
            let error = failed.unwrap_or(KafkaError::Canceled);
            return Err(match connection.why() {
                Some(error) => {
                    IngestError::Broker { source_name: source.into(), brokers: connector.brokers.clone(), error }
                }
                None => unreachable(source, connector, &error),
            });
        };
        match consumer.fetch_metadata(Some(&connector.topic), *wait) {
            Ok(metadata) => break metadata,
            Err(error) => failed = Some(error),
        }
        // What went wrong waits to be asked for, news by news.
        for _ in 0..NEWS_MAX {
            let _ = consumer.poll(Duration::ZERO);
        }
        if let Some(why) = connection.refusal().filter(|_| time > 0) {
            return Err(IngestError::Refused { source_name: source.into(), brokers: connector.brokers.clone(), why });
        }
    };
    let found = metadata.topics().iter().find(|topic| topic.name() == connector.topic);
    let error = found.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
    let count = found.map_or(0, |topic| topic.partitions().len());
    if error.is_none() && count > 0 {
        return Ok(count);
    }
    let topic = &connector.topic;
    let what = match error {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            format!(
                "the brokers at {} do not let it read topic `{topic}`; grant it READ and DESCRIBE",
                connector.brokers
            )
        }
        None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            format!("there is no topic `{topic}` on the brokers at {}; create it, or mend `topic`", connector.brokers)
        }
        Some(other) => format!("topic `{topic}` on the brokers at {}: {other}", connector.brokers),
    };
    Err(IngestError::source(source, what))
}

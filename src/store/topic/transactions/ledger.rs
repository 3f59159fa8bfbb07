//! The ledger: how far each slot has come, in a compacted topic that the transactions themselves write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::{Rightful, TransactionOptions};
use crate::base::Epoch;
use crate::kafka::{Bootstrap, Connection, Context, client_config};
use crate::store::StoreError;

/// All records are in one partition: few, and in one order.
pub(super) const PARTITION: i32 = 0;

/// Brokers that have not answered for so long are missed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long one request may take before whoever waits is asked.
const CALL: Duration = Duration::from_secs(1);

/// Settings of a ledger that is made here. Old records go soon, since all are read at each start.
const SETTINGS: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.ms", "3600000"), ("min.cleanable.dirty.ratio", "0.1")];

/// How far a slot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The slot.
    pub slot: u16,
    /// The generation that wrote this.
    pub generation: u64,
    /// The newest epoch that anything is out of; none before the first.
    pub epoch: Option<Epoch>,
    /// Messages of the epoch that are out.
    pub messages: u64,
    /// Whether these are all.
    pub complete: bool,
    /// Checksum of the epoch's outbox: which messages these are.
    pub outbox: u32,
}

impl LedgerEntry {
    /// A slot that nothing was published of.
    pub(super) fn none(slot: u16) -> LedgerEntry {
        LedgerEntry { slot, generation: 0, epoch: None, messages: 0, complete: true, outbox: 0 }
    }

    /// Whether nothing of an epoch is left to be published.
    pub fn covers(&self, epoch: Epoch) -> bool {
        self.epoch.is_some_and(|newest| newest > epoch || (newest == epoch && self.complete))
    }

    /// The newest epoch that is out as a whole.
    pub fn published(&self) -> Option<Epoch> {
        if self.complete { self.epoch } else { self.epoch.and_then(|epoch| epoch.checked_sub(1)) }
    }
}

/// Reads the ledger of an application.
pub(super) struct Ledger {
    pub(super) options: Arc<TransactionOptions>,
    connection: Connection,
}

impl Ledger {
    pub(super) fn new(options: Arc<TransactionOptions>, connection: Connection) -> Ledger {
        Ledger { options, connection }
    }

    /// The key of a slot's records.
    pub(super) fn key(&self, slot: u16) -> String {
        format!("{}/{slot}", self.options.application)
    }

    fn slot_of(&self, key: &[u8]) -> Option<u16> {
        let rest = key.strip_prefix(self.options.application.as_bytes())?.strip_prefix(b"/")?;
        std::str::from_utf8(rest).ok()?.parse().ok()
    }

    /// Whether an entry is of a later generation.
    pub(super) fn check(&self, entries: &[LedgerEntry]) -> Result<(), StoreError> {
        match entries.iter().find(|entry| entry.generation > self.options.generation) {
            Some(later) => Err(self.taken_over(&format!(
                "the ledger `{}` has generation {}, this is {}",
                self.options.ledger, later.generation, self.options.generation
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn taken_over(&self, reason: &str) -> StoreError {
        StoreError::TakenOver {
            application: self.options.application.clone(),
            brokers: self.options.brokers.clone(),
            reason: reason.to_owned(),
        }
    }

    /// Whether this start still has its job's state, as far as that can be told.
    pub(super) fn rightful(&self) -> Option<bool> {
        self.options.rightful.as_ref().and_then(Rightful::ask)
    }

    pub(super) fn fault(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Topic {
            topic: format!("ledger `{}`", self.options.ledger),
            brokers: self.options.brokers.clone(),
            reason: reason.into(),
        }
    }

    /// Sees that the topic is there and keeps its records.
    pub(super) fn prepare(&self, give_up: &dyn Fn() -> bool) -> Result<(), StoreError> {
        let name = self.options.ledger.as_str();
        let consumer = self.consumer("read_committed")?;
        let admin: AdminClient<DefaultClientContext> =
            self.config(&[])?.create().map_err(|error| self.fault(error.to_string()))?;
        let mut made = false;
        loop {
            let metadata =
                self.wait(&consumer, "its metadata", give_up, |from| from.fetch_metadata(Some(name), CALL))?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            match found.map(|topic| (topic.error().map(RDKafkaErrorCode::from), topic.partitions().len())) {
                Some((None, 1..)) => break,
                Some((Some(RDKafkaErrorCode::TopicAuthorizationFailed), _)) => {
                    return Err(self.fault("the job may not read it; let its user read and write it"));
                }
                // Made is not yet known to all brokers.
                _ if made => {}
                _ => {
                    self.create(&admin)?;
                    made = true;
                }
            }
            if give_up() {
                return Err(self.fault("it does not appear; when the brokers answer again, run the job again"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.check_cleanup(&admin)
    }

    fn create(&self, admin: &AdminClient<DefaultClientContext>) -> Result<(), StoreError> {
        // As many replicas as the brokers think right.
        let mut topic = NewTopic::new(&self.options.ledger, 1, TopicReplication::Fixed(-1));
        for (name, value) in SETTINGS {
            topic = topic.set(name, value);
        }
        let limit = AdminOptions::new().request_timeout(Some(Duration::from_secs(30)));
        let outcome = self.block_on(admin.create_topics([&topic], &limit))?;
        let mend = "make a topic of one partition with `cleanup.policy=compact`, and name it as `ledger`";
        let refused = |what: String| self.fault(format!("it cannot be made: {what}; {mend}"));
        for one in outcome.map_err(|error| refused(error.to_string()))? {
            match one {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(refused(code.to_string())),
            }
        }
        Ok(())
    }

    /// A ledger whose records expire would have what is old published again.
    fn check_cleanup(&self, admin: &AdminClient<DefaultClientContext>) -> Result<(), StoreError> {
        let limit = AdminOptions::new().request_timeout(Some(PATIENCE));
        let asked = [ResourceSpecifier::Topic(&self.options.ledger)];
        let answer = self.block_on(admin.describe_configs(asked.iter(), &limit))?;
        let policy = answer.ok().into_iter().flatten().flatten().find_map(|resource| {
            resource.entries.into_iter().find(|entry| entry.name == "cleanup.policy").and_then(|entry| entry.value)
        });
        match policy {
            Some(policy) if policy != "compact" => Err(self.fault(format!(
                "its `cleanup.policy` is `{policy}`, and records that are gone would be missed; set it to `compact`"
            ))),
            Some(_) => Ok(()),
            None => {
                tracing::debug!(ledger = self.options.ledger, "whether the topic is compacted cannot be found out");
                Ok(())
            }
        }
    }

    fn block_on<F: Future>(&self, future: F) -> Result<F::Output, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Ok(runtime.map_err(|error| self.fault(format!("no runtime: {error}")))?.block_on(future))
    }

    /// The newest entry of each slot, committed or not, before any slot is opened: a transaction that its process left open
    /// is still in the way of those that are. Whoever claimed a slot in vain was there nevertheless.
    pub(super) fn peek(&self, give_up: &dyn Fn() -> bool) -> Result<Vec<LedgerEntry>, StoreError> {
        let all = self.consumer("read_uncommitted")?;
        let name = self.options.ledger.as_str();
        let (low, high) = self.wait(&all, "its end", give_up, |from| from.fetch_watermarks(name, PARTITION, CALL))?;
        if low >= high { Ok(Vec::new()) } else { self.entries(&all, give_up) }
    }

    /// The newest entry of each slot that the ledger knows.
    pub(super) fn read(&self, give_up: &dyn Fn() -> bool) -> Result<Vec<LedgerEntry>, StoreError> {
        let name = self.options.ledger.as_str();
        let all = self.consumer("read_uncommitted")?;
        let committed = self.consumer("read_committed")?;
        let (low, high) = self.wait(&all, "its end", give_up, |from| from.fetch_watermarks(name, PARTITION, CALL))?;
        if low >= high {
            return Ok(Vec::new());
        }
        // Committed records behind an open transaction, such as another job's, do not show until it ends.
        let since = Instant::now();
        let mut warned = false;
        while self.wait(&committed, "its end", give_up, |from| from.fetch_watermarks(name, PARTITION, CALL))?.1 < high {
            if give_up() {
                return Err(self.fault("a transaction is open in it; when that has ended, run the job again"));
            }
            if since.elapsed() > PATIENCE && !std::mem::replace(&mut warned, true) {
                tracing::warn!(ledger = name, "waiting for an open transaction in the ledger to end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.entries(&committed, give_up)
    }

    /// Reads to the end.
    fn entries(
        &self,
        consumer: &BaseConsumer<Context>,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Vec<LedgerEntry>, StoreError> {
        let mut place = TopicPartitionList::new();
        let assigned = place
            .add_partition_offset(&self.options.ledger, PARTITION, Offset::Beginning)
            .and_then(|()| consumer.assign(&place));
        assigned.map_err(|error| self.fault(error.to_string()))?;
        let mut entries: Vec<LedgerEntry> = Vec::new();
        let (mut heard, bootstrap) = (Instant::now(), Bootstrap::default());
        loop {
            self.connection.tend(&bootstrap, consumer.client());
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let slot = message.key().and_then(|key| self.slot_of(key));
                    let (Some(slot), Some(payload)) = (slot, message.payload()) else { continue };
                    let entry: LedgerEntry = serde_json::from_slice(payload).map_err(|error| {
                        self.fault(format!("the record at offset {} makes no sense: {error}", message.offset()))
                    })?;
                    entries.retain(|other| other.slot != slot);
                    entries.push(LedgerEntry { slot, ..entry });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) if !Context::is_outage(&error) => return Err(self.fault(error.to_string())),
                _ if give_up() => return Err(self.fault("it cannot be read to its end; run the job again")),
                _ if heard.elapsed() > PATIENCE => self.connection.lost("the ledger cannot be read to its end"),
                _ => {}
            }
        }
        self.connection.back();
        entries.sort_by_key(|entry| entry.slot);
        Ok(entries)
    }

    /// Repeats a request until the brokers answer it.
    fn wait<T>(
        &self,
        from: &BaseConsumer<Context>,
        what: &str,
        give_up: &dyn Fn() -> bool,
        ask: impl Fn(&BaseConsumer<Context>) -> Result<T, KafkaError>,
    ) -> Result<T, StoreError> {
        let (since, bootstrap) = (Instant::now(), Bootstrap::default());
        loop {
            match ask(from) {
                Ok(answer) => {
                    self.connection.back();
                    return Ok(answer);
                }
                Err(error) if !Context::is_outage(&error) => return Err(self.fault(format!("{what}: {error}"))),
                Err(error) => {
                    if give_up() {
                        return Err(
                            self.fault(format!("{what}: {error}; when the brokers answer again, run the job again"))
                        );
                    }
                    if since.elapsed() > PATIENCE {
                        if let Some(why) = self.connection.refusal() {
                            return Err(self.fault(format!("the brokers do not let the job in: {why}")));
                        }
                        self.connection.lost(&error.to_string());
                    }
                    self.connection.tend(&bootstrap, from.client());
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn config(&self, fixed: &[(&str, &str)]) -> Result<ClientConfig, StoreError> {
        let TransactionOptions { brokers, properties, .. } = &*self.options;
        client_config(brokers, properties, &[], fixed).map_err(|error| self.fault(error.to_string()))
    }

    fn consumer(&self, isolation: &str) -> Result<BaseConsumer<Context>, StoreError> {
        let fixed = [
            // librdkafka wants one; nobody is in it.
            ("group.id", "tidemill"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
            ("isolation.level", isolation),
            ("fetch.wait.max.ms", "10"),
        ];
        let context = Context(self.connection.clone());
        self.config(&fixed)?.create_with_context(context).map_err(|error| self.fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let options = TransactionOptions {
            brokers: "a:1".to_owned(),
            properties: Vec::new(),
            topics: Vec::new(),
            application: "tidemill.job".to_owned(),
            slots: 4,
            ledger: "l".to_owned(),
            generation: 3,
            rightful: None,
            messages_max: 1,
        };
        Ledger::new(Arc::new(options), Connection::new("test", "a:1"))
    }

    #[test]
    fn keys_are_of_one_application() {
        let ledger = ledger();
        assert_eq!(ledger.slot_of(ledger.key(12).as_bytes()), Some(12));
        for other in ["tidemill.job", "tidemill.job/", "tidemill.job/1/0", "tidemill.job2/0", "tidemill.job/x", ""] {
            assert_eq!(ledger.slot_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_an_entry_covers() {
        let entry = |epoch, complete| LedgerEntry { epoch, complete, ..LedgerEntry::none(0) };
        for (entry, published, covered) in [
            (entry(None, true), None, [false, false, false]),
            (entry(Some(0), false), None, [false, false, false]),
            (entry(Some(1), false), Some(0), [true, false, false]),
            (entry(Some(1), true), Some(1), [true, true, false]),
        ] {
            assert_eq!(entry.published(), published);
            assert_eq!([0, 1, 2].map(|epoch| entry.covers(epoch)), covered);
        }
    }

    #[test]
    fn a_later_generation_has_taken_over() {
        let ledger = ledger();
        let of = |generation| [LedgerEntry { generation, ..LedgerEntry::none(1) }];
        assert!(ledger.check(&of(3)).is_ok());
        let error = ledger.check(&of(4)).expect_err("it is later");
        assert!(error.to_string().starts_with("another process has taken over"), "{error}");
    }

    #[test]
    fn the_record_is_pinned() {
        let entry = LedgerEntry { slot: 2, generation: 3, epoch: Some(4), messages: 5, complete: false, outbox: 6 };
        let text = r#"{"slot":2,"generation":3,"epoch":4,"messages":5,"complete":false,"outbox":6}"#;
        assert_eq!(serde_json::to_string(&entry).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<LedgerEntry>(text).expect("an entry"), entry);
    }
}

//! Commits offsets under a group's name, without being a member of the group, for those who watch lag.

use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::ingest::IngestError;
use crate::kafka::{Bootstrap, client_config};
use crate::plan::model::{KafkaConnector, SourcePlan};

const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    ("socket.keepalive.enable", "true"),
    // How long a commit waits for an answer, and for the group's coordinator to be found.
    ("socket.timeout.ms", "10000"),
    ("session.timeout.ms", "10000"),
];

/// The offsets of one source's topic, as a consumer group has them.
pub struct GroupOffsets {
    source: String,
    topic: String,
    group: String,
    brokers: String,
    consumer: BaseConsumer<Quiet>,
    bootstrap: Bootstrap,
}

impl GroupOffsets {
    /// Makes the client, which looks for the group's coordinator by itself.
    ///
    /// # Errors
    /// When a setting is refused.
    pub fn open(plan: &SourcePlan, connector: &KafkaConnector, group: &str) -> Result<GroupOffsets, IngestError> {
        let refuse = |what: String| IngestError::source(&plan.name, what);
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
        let config = client_config(&connector.brokers, &connector.properties.0, DEFAULTS, &fixed)
            .map_err(|e| refuse(e.to_string()))?;
        let consumer = config.create_with_context(Quiet).map_err(|e| refuse(e.to_string()))?;
        Ok(GroupOffsets {
            source: plan.name.clone(),
            topic: connector.topic.clone(),
            group: group.to_owned(),
            brokers: connector.brokers.clone(),
            consumer,
            bootstrap: Bootstrap::default(),
        })
    }

    /// Commits the next offset of each partition. Waits for the answer.
    ///
    /// # Errors
    /// When the brokers refuse it or do not answer.
    pub fn commit(&self, next: &[u64]) -> Result<(), IngestError> {
        self.serve();
        let mut list = TopicPartitionList::with_capacity(next.len());
        for (number, next) in next.iter().enumerate() {
            let (number, next) = (i32::try_from(number).unwrap_or(i32::MAX), i64::try_from(*next).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.topic, number, Offset::Offset(next)).map_err(|e| self.refused(&e))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        let outcome = self.consumer.commit(&list, CommitMode::Sync);
        self.bootstrap.tend(self.consumer.client(), &self.brokers, outcome.is_err());
        outcome.map_err(|e| self.refused(&e))?;
        list.elements().iter().try_for_each(|one| one.error()).map_err(|e| self.refused(&e))
    }

    /// Throws away what the client has to say: it would be kept for ever, and the source's own client says the same.
    pub fn serve(&self) {
        while let Some(news) = self.consumer.poll(Duration::ZERO) {
            if let Err(error) = news {
                tracing::debug!(source = self.source, %error, "kafka offsets");
            }
        }
    }

    fn refused(&self, error: &KafkaError) -> IngestError {
        let group = &self.group;
        let (what, mend) = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                ("the brokers do not allow it".to_owned(), format!("grant READ on group `{group}`"))
            }
            Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration) => {
                ("the group has members of its own".to_owned(), "give another name".to_owned())
            }
            Some(code) => (code.to_string(), "look after the brokers".to_owned()),
            None => (error.to_string(), "look after the brokers".to_owned()),
        };
        let what = format!("offsets cannot be committed to group `{group}`: {what}; {mend}, or write `group: none`");
        IngestError::source(&self.source, what)
    }
}

/// The source's own client has told of everything that this one would.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::trace!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka offsets");
    }
}

impl ConsumerContext for Quiet {}

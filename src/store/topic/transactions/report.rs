//! What a transactional producer hears, and which errors time does not mend.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::lock;
use crate::kafka::Context;

/// What became of the messages of the transaction at hand.
#[derive(Debug, Default)]
pub(super) struct Account {
    settled: AtomicU64,
    failure: Mutex<Option<(usize, KafkaError)>>,
}

impl Account {
    /// A transaction begins.
    pub(super) fn reset(&self) {
        self.settled.store(0, Ordering::Release);
        *lock(&self.failure) = None;
    }

    /// Messages that the brokers have taken or refused.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// The first message that was refused: number of its topic, and why.
    pub(super) fn failure(&self) -> Option<(usize, KafkaError)> {
        lock(&self.failure).clone()
    }
}

/// Hears of deliveries, of errors and of librdkafka's log.
pub(super) struct Reports {
    pub(super) account: Arc<Account>,
    pub(super) context: Context,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // A fence shows in the call that meets it, and so do transactions that must be aborted.
        if !matches!(error.rdkafka_error_code(), Some(Code::Fatal | Code::Fenced | Code::ProducerFenced)) {
            self.context.error(error, reason);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, topic: usize) {
        if let Err((error, _)) = result {
            let mut failure = lock(&self.account.failure);
            if failure.as_ref().is_none_or(|(_, before)| is_purged(before)) {
                *failure = Some((topic, error.clone()));
            }
        }
        self.account.settled.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a message was given up for what befell another.
pub(super) fn is_purged(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight))
}

/// Whether a message would be refused again.
pub(super) fn is_permanent(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::MessageSizeTooLarge
                | Code::InvalidMessageSize
                | Code::MessageBatchTooLarge
                | Code::InvalidMessage
                | Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::InvalidTopic
                | Code::InvalidRequiredAcks
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::InvalidTransactionTimeout
                | Code::PolicyViolation
                | Code::UnsupportedForMessageFormat
                | Code::UnsupportedFeature
                | Code::UnsupportedCompressionType
                | Code::InvalidArgument
                | Code::NotImplemented
        )
    )
}

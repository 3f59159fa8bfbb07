//! News of brokers: a warning when they go away, one when they are back, and librdkafka's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// Whether a client's brokers answer; clones share it.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whose connection it is, such as ``source `tx` ``.
    whose: String,
    brokers: String,
    away: AtomicBool,
}

impl Connection {
    /// A connection that is taken to be sound.
    pub fn new(whose: impl Into<String>, brokers: impl Into<String>) -> Connection {
        let away = AtomicBool::new(false);
        Connection(Arc::new(Inner { whose: whose.into(), brokers: brokers.into(), away }))
    }

    /// Takes note that brokers do not answer; warns the first time.
    pub fn lost(&self, why: &str) {
        if !self.0.away.swap(true, Ordering::Relaxed) {
            let Inner { whose, brokers, .. } = &*self.0;
            tracing::warn!(whose, brokers, why, "kafka does not answer; trying again until it does");
        }
    }

    /// Takes note that a broker has answered; says so when none did before.
    pub fn back(&self) {
        // A load, since this is called often.
        if self.is_away() && self.0.away.swap(false, Ordering::Relaxed) {
            let Inner { whose, brokers, .. } = &*self.0;
            tracing::warn!(whose, brokers, "kafka answers again");
        }
    }

    /// Whether the last news is that no broker answers.
    pub fn is_away(&self) -> bool {
        self.0.away.load(Ordering::Relaxed)
    }
}

/// A client's callbacks: errors go to its [`Connection`], log lines to our log.
#[derive(Clone, Debug)]
pub struct Context(pub Connection);

impl Context {
    /// Whether an error says that brokers cannot be reached, rather than that they refuse something.
    pub fn is_outage(error: &KafkaError) -> bool {
        matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::NetworkException
                    | RDKafkaErrorCode::BrokerNotAvailable
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::Authentication
            )
        )
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What librdkafka cannot mend comes as an error as well; the rest is for those who look into its workings.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Debug => tracing::trace!(facility, "librdkafka: {message}"),
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if Context::is_outage(&error) {
            self.0.lost(reason);
        } else if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            // The end of a partition is no news to anybody: its reader sees it in its own queue.
            tracing::warn!(whose = self.0.0.whose, %error, reason, "kafka client");
        }
    }
}

impl ConsumerContext for Context {}

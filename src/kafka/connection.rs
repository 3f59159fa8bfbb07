//! News of brokers: a warning when they go away, one when they are back, and librdkafka's log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::Bootstrap;

/// Whether a client's brokers answer; clones share it.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whose connection it is, such as ``source `tx` ``.
    whose: String,
    brokers: String,
    away: AtomicBool,
    /// Nothing is said yet: whoever makes the connection tells what is wrong.
    quiet: AtomicBool,
    /// Brokers have answered before, so the settings are right.
    proven: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// What was last heard of brokers that do not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trouble {
    why: Option<String>,
    refused: bool,
    /// What a broken connection hints at; it comes before the news that brokers are away.
    hint: Option<String>,
}

impl Connection {
    /// A connection that is taken to be sound.
    pub fn new(whose: impl Into<String>, brokers: impl Into<String>) -> Connection {
        Connection(Arc::new(Inner {
            whose: whose.into(),
            brokers: brokers.into(),
            away: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            trouble: Mutex::default(),
        }))
    }

    /// Has nothing logged until [`back`](Self::back), for a caller that turns what goes wrong into an error of its own.
    pub fn quiet(self) -> Connection {
        self.0.quiet.store(true, Ordering::Relaxed);
        self
    }

    /// Takes note that brokers do not answer; warns the first time.
    pub fn lost(&self, why: &str) {
        self.note(why, false);
    }

    /// Takes note that brokers answer and do not let the client in; warns the first time, also when they were taken to
    /// be away.
    pub fn refused(&self, why: &str) {
        self.note(why, true);
    }

    fn note(&self, why: &str, refused: bool) {
        let Inner { whose, brokers, away, quiet, .. } = &*self.0;
        let mut trouble = self.trouble();
        let news = refused && !trouble.refused;
        // A refusal says more than that there is no answer, which it causes.
        if refused || !trouble.refused {
            trouble.why = Some(why.to_owned());
            trouble.refused = refused;
        }
        let hint = trouble.hint.clone();
        drop(trouble);
        let why = hint.as_deref().filter(|_| !refused).unwrap_or(why);
        let first = !away.swap(true, Ordering::Relaxed);
        if quiet.load(Ordering::Relaxed) {
        } else if news {
            tracing::warn!(whose, brokers, why, "kafka does not let this client in; trying again until it does");
        } else if first {
            tracing::warn!(whose, brokers, why, "kafka does not answer; trying again until it does");
        }
    }

    /// Takes note of what a broken connection hints at, in case it turns out that brokers are away.
    fn hint(&self, what: String) {
        if !self.0.proven.load(Ordering::Relaxed) {
            self.trouble().hint = Some(what);
        }
    }

    /// Takes note that a broker has answered; says so when none did before.
    pub fn back(&self) {
        if !self.0.proven.load(Ordering::Relaxed) {
            self.0.proven.store(true, Ordering::Relaxed);
            self.trouble().hint = None;
        }
        // A load, since this is called often.
        if self.is_away() && self.0.away.swap(false, Ordering::Relaxed) {
            *self.trouble() = Trouble::default();
            let Inner { whose, brokers, quiet, .. } = &*self.0;
            if !quiet.load(Ordering::Relaxed) {
                tracing::warn!(whose, brokers, "kafka answers again");
            }
        }
        self.0.quiet.store(false, Ordering::Relaxed);
    }

    /// Whether the last news is that no broker answers.
    pub fn is_away(&self) -> bool {
        self.0.away.load(Ordering::Relaxed)
    }

    /// Has a client that lost its brokers find them again; to be called whenever it is served.
    pub fn tend<C: ClientContext>(&self, bootstrap: &Bootstrap, client: &Client<C>) {
        bootstrap.tend(client, &self.0.brokers, self.is_away());
    }

    /// Why brokers do not answer, as far as they or librdkafka have said.
    pub fn why(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.hint.clone().filter(|_| !trouble.refused).or_else(|| trouble.why.clone())
    }

    /// Why brokers do not let the client in, if they do not.
    pub fn refusal(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.why.clone().filter(|_| trouble.refused)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
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
            )
        )
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // A connection that is closed at once comes as no error. `[thread]: broker: what`.
        if let Some(mend) = mend(None, message).filter(|_| facility == "FAIL") {
            let what = message.split_once("]: ").map_or(message, |(_, what)| what);
            self.0.hint(format!("{what}; {mend}"));
        }
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
        let code = error.rdkafka_error_code();
        // The end of a partition comes as an error; whoever reads the partition hears of it. And the connection to a
        // group's coordinator is librdkafka's own affair, since nobody is in a group.
        if code == Some(RDKafkaErrorCode::PartitionEOF) || reason.starts_with("GroupCoordinator") {
            return;
        }
        let told = match mend(code, reason) {
            Some(mend) => format!("{reason}; {mend}"),
            None => reason.to_owned(),
        };
        match code {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => self.0.refused(&told),
            _ if is_tls(reason) => self.0.refused(&told),
            // It follows from errors of single brokers, which have said more.
            Some(RDKafkaErrorCode::AllBrokersDown) if self.0.is_away() => {}
            _ if Context::is_outage(&error) || told.len() > reason.len() => self.0.lost(&told),
            _ => tracing::warn!(whose = self.0.0.whose, %error, reason, "kafka client"),
        }
    }
}

impl ConsumerContext for Context {}

/// Whether OpenSSL speaks: brokers that turn a client's certificate away do so when the handshake is over.
fn is_tls(reason: &str) -> bool {
    reason.contains("SSL routines:") || reason.contains("SSL alert number")
}

/// What to do about a connection that does not come about, where librdkafka's account of it tells.
fn mend(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<&'static str> {
    // A TLS alert (21, then version 3.x) that is taken for the length of an answer.
    let tls_alert = reason.contains("Invalid response size 352518");
    Some(match code {
        Some(RDKafkaErrorCode::Authentication) => {
            "mend `sasl.mechanism`, `sasl.username` or `sasl.password` in `properties`"
        }
        Some(RDKafkaErrorCode::SSL) if reason.contains("certificate verify failed") => {
            "let `ssl.ca.location` in `properties` name the certificate of the authority that signed the brokers', and name the brokers as their certificates do"
        }
        Some(RDKafkaErrorCode::SSL) => "mend `ssl.*` in `properties`",
        _ if is_tls(reason) => {
            "mend `ssl.*` in `properties`: the brokers may ask for a certificate (`ssl.certificate.location` and `ssl.key.location`, or `ssl.keystore.location`), or for another"
        }
        _ if reason.contains("PLAINTEXT broker listener") => {
            "if the brokers do not speak TLS on this port, mend `security.protocol` or the port"
        }
        _ if tls_alert || reason.contains("security.protocol") || reason.contains("in state APIVERSION_QUERY") => {
            "if the brokers expect TLS or a login on this port, set `security.protocol` in `properties` to ssl, sasl_plaintext or sasl_ssl"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context(Connection::new("source `tx`", "a:1"))
    }

    fn say(context: &Context, code: RDKafkaErrorCode, reason: &str) {
        context.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn a_refusal_stands_over_the_silence_that_it_causes_until_brokers_answer() {
        let context = context();
        let connection = &context.0;
        say(&context, RDKafkaErrorCode::OperationTimedOut, "nothing");
        assert!(connection.is_away() && connection.refusal().is_none());
        assert_eq!(connection.why().as_deref(), Some("nothing"));
        say(&context, RDKafkaErrorCode::Authentication, "wrong password");
        say(&context, RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        say(&context, RDKafkaErrorCode::BrokerTransportFailure, "gone");
        let refusal = connection.refusal().unwrap();
        assert!(refusal.starts_with("wrong password; mend `sasl.mechanism`"), "{refusal}");
        connection.back();
        assert!(!connection.is_away() && connection.refusal().is_none() && connection.why().is_none());
    }

    #[test]
    fn errors_of_a_wrong_protocol_say_what_to_set() {
        for (code, reason, expected) in [
            (RDKafkaErrorCode::BadMessage, "Receive failed: Invalid response size 352518912 (0..9)", "sasl_ssl"),
            (RDKafkaErrorCode::BrokerTransportFailure, "verify that security.protocol is correctly", "sasl_ssl"),
            (RDKafkaErrorCode::BrokerTransportFailure, "connecting to a PLAINTEXT broker listener?", "speak TLS"),
            (RDKafkaErrorCode::SSL, "error:0A000086: certificate verify failed: x", "ssl.ca.location"),
            (RDKafkaErrorCode::SSL, "handshake failure", "ssl.*"),
            (RDKafkaErrorCode::BrokerTransportFailure, "Receive failed: SSL alert number 42", "ask for a certificate"),
        ] {
            let context = context();
            say(&context, code, reason);
            let why = context.0.why().unwrap();
            assert!(why.starts_with(reason) && why.contains(expected), "{why}");
            assert_eq!(context.0.refusal().is_some(), expected.contains("ssl.") || expected.contains("ask"));
        }
    }

    #[test]
    fn a_connection_that_is_closed_at_once_hints_at_its_settings() {
        let context = context();
        let line = "[thrd:a:1/bootstrap]: a:1/bootstrap: Disconnected: might be caused by incorrect security.protocol";
        context.log(RDKafkaLogLevel::Info, "FAIL", line);
        assert!(!context.0.is_away());
        say(&context, RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let why = context.0.why().unwrap();
        assert!(why.starts_with("a:1/bootstrap: Disconnected") && why.contains("sasl_ssl"), "{why}");
        say(&context, RDKafkaErrorCode::Authentication, "wrong password");
        assert!(context.0.why().unwrap().starts_with("wrong password"));
        context.0.back();
        context.log(RDKafkaLogLevel::Info, "FAIL", line);
        context.0.lost("nothing");
        assert_eq!(context.0.why().as_deref(), Some("nothing"));
    }

    #[test]
    fn what_is_no_trouble() {
        let context = context();
        say(&context, RDKafkaErrorCode::PartitionEOF, "the end");
        say(&context, RDKafkaErrorCode::BrokerTransportFailure, "GroupCoordinator: gone");
        assert!(!context.0.is_away());
    }
}

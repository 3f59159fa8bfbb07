//! The server's own metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::audit::AuditLog;
use crate::telemetry::Histogram;
use crate::telemetry::metric::{Collector, Description, Kind, Metrics};

const REQUESTS: Description = Description {
    name: "tidemill_http_requests_total",
    kind: Kind::Counter,
    unit: "",
    help: "Requests answered, by operation and status; the operation is empty where there is no such route.",
};
const SECONDS: Description = Description {
    name: "tidemill_http_request_seconds",
    kind: Kind::Histogram,
    unit: "seconds",
    help: "From the end of a request's head to the beginning of its answer, by operation.",
};
const IN_FLIGHT: Description = Description {
    name: "tidemill_http_requests_in_flight",
    kind: Kind::Gauge,
    unit: "",
    help: "Requests that are not answered to the end.",
};
const CONNECTIONS: Description =
    Description { name: "tidemill_http_connections", kind: Kind::Gauge, unit: "", help: "Open connections." };
const CONNECTIONS_MAX: Description = Description {
    name: "tidemill_http_connections_max",
    kind: Kind::Gauge,
    unit: "",
    help: "Connections that may be open at a time.",
};
const ACCEPTED: Description = Description {
    name: "tidemill_http_connections_accepted_total",
    kind: Kind::Counter,
    unit: "",
    help: "Connections accepted.",
};
const REFUSED: Description = Description {
    name: "tidemill_http_refused_total",
    kind: Kind::Counter,
    unit: "",
    help: "Connections and requests that were refused or cut off, by reason.",
};
const RELOADS: Description = Description {
    name: "tidemill_http_reloads_total",
    kind: Kind::Counter,
    unit: "",
    help: "Times that tokens or certificates were read again after a change, by what came of it.",
};
const CERTIFICATE_ENDS: Description = Description {
    name: "tidemill_http_certificate_ends_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "When the server's certificate ends, in seconds since 1970.",
};
const AUDIT_FAILURES: Description = Description {
    name: "tidemill_http_audit_failures_total",
    kind: Kind::Counter,
    unit: "",
    help: "Entries that could not be written to the audit log.",
};
const DRAINING: Description = Description {
    name: "tidemill_http_draining",
    kind: Kind::Gauge,
    unit: "",
    help: "1 while the server finishes what it has begun and takes nothing new.",
};

/// Upper bounds in seconds: from a cached feature to a savepoint.
const BOUNDS: [f64; 15] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Why somebody was refused or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many connections.
    Connections,
    /// The TLS handshake failed.
    Handshake,
    /// It took too long over the head of a request, or over the handshake.
    SlowHead,
    /// It took too long over the body of a request.
    SlowBody,
    /// It did not read its answer.
    SlowReader,
    /// What it sent is no HTTP.
    Malformed,
    /// The body was too long.
    LargeBody,
    /// No token where one is needed, or a wrong one.
    Token,
    /// Its token may not do this.
    Scope,
    /// Too many requests.
    Rate,
    /// Another page's script, or a name that is not ours.
    Origin,
    /// The handler took too long.
    Time,
}

impl Refusal {
    const ALL: [(Refusal, &'static str); 12] = [
        (Refusal::Connections, "connections"),
        (Refusal::Handshake, "handshake"),
        (Refusal::SlowHead, "slow_head"),
        (Refusal::SlowBody, "slow_body"),
        (Refusal::SlowReader, "slow_reader"),
        (Refusal::Malformed, "malformed"),
        (Refusal::LargeBody, "large_body"),
        (Refusal::Token, "token"),
        (Refusal::Scope, "scope"),
        (Refusal::Rate, "rate"),
        (Refusal::Origin, "origin"),
        (Refusal::Time, "time"),
    ];
}

/// Of one operation.
struct Answered {
    by_status: Mutex<BTreeMap<u16, u64>>,
    seconds: Histogram,
}

/// What the server counts.
pub(super) struct Figures {
    /// By operation; those that have none are under the empty name.
    answered: BTreeMap<&'static str, Answered>,
    refused: [AtomicU64; Refusal::ALL.len()],
    pub in_flight: AtomicU64,
    pub connections: AtomicU64,
    pub connections_max: AtomicU64,
    pub accepted: AtomicU64,
    pub reloads_good: AtomicU64,
    pub reloads_bad: AtomicU64,
    /// 0 without TLS.
    pub certificate_ends: AtomicI64,
    pub draining: AtomicU64,
    audit: Option<Arc<AuditLog>>,
}

impl Figures {
    pub fn new(operations: impl IntoIterator<Item = &'static str>, audit: Option<Arc<AuditLog>>) -> Figures {
        let answered = || Answered { by_status: Mutex::default(), seconds: Histogram::new(&BOUNDS) };
        Figures {
            answered: std::iter::once("").chain(operations).map(|id| (id, answered())).collect(),
            refused: Default::default(),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_max: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            reloads_good: AtomicU64::new(0),
            reloads_bad: AtomicU64::new(0),
            certificate_ends: AtomicI64::new(0),
            draining: AtomicU64::new(0),
            audit,
        }
    }

    /// Takes note of an answer.
    pub fn answered(&self, operation: &str, status: u16, took: Duration) {
        let Some(answered) = self.answered.get(operation).or_else(|| self.answered.get("")) else { return };
        *answered.by_status.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        answered.seconds.record(took);
    }

    /// Takes note of a refusal.
    pub fn refused(&self, why: Refusal) {
        if let Some(at) = Refusal::ALL.iter().position(|(refusal, _)| *refusal == why) {
            self.refused[at].fetch_add(1, Relaxed);
        }
    }
}

impl Collector for Figures {
    fn collect(&self, metrics: &mut Metrics) {
        for (operation, answered) in &self.answered {
            let by_status = answered.by_status.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (status, count) in &by_status {
                metrics.add(&REQUESTS, &[("operation", operation), ("status", &status.to_string())], *count as f64);
            }
            if !by_status.is_empty() {
                metrics.add_histogram(&SECONDS, &[("operation", operation)], answered.seconds.buckets());
            }
        }
        for ((_, name), count) in Refusal::ALL.iter().zip(&self.refused) {
            metrics.add(&REFUSED, &[("reason", name)], count.load(Relaxed) as f64);
        }
        let mut add = |family, value: &AtomicU64| metrics.add(family, &[], value.load(Relaxed) as f64);
        add(&IN_FLIGHT, &self.in_flight);
        add(&CONNECTIONS, &self.connections);
        add(&CONNECTIONS_MAX, &self.connections_max);
        add(&ACCEPTED, &self.accepted);
        add(&DRAINING, &self.draining);
        metrics.add(&RELOADS, &[("outcome", "done")], self.reloads_good.load(Relaxed) as f64);
        metrics.add(&RELOADS, &[("outcome", "failed")], self.reloads_bad.load(Relaxed) as f64);
        let ends = self.certificate_ends.load(Relaxed);
        if ends != 0 {
            metrics.add(&CERTIFICATE_ENDS, &[], ends as f64);
        }
        if let Some(audit) = &self.audit {
            metrics.add(&AUDIT_FAILURES, &[], audit.failures() as f64);
        }
    }
}

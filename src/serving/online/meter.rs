//! What is counted of requests: latency by view and by model, and how stores and caches fare.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::{Buckets, Description, Histogram, Kind};

/// Bounds in seconds.
const BOUNDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// Quantiles are of the last one to two of these.
const SPAN: Duration = Duration::from_secs(30);
/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Quantiles that are told.
pub const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.99, "0.99"), (0.999, "0.999")];

pub const REQUESTS: Description = Description {
    name: "tidemill_serving_request_seconds",
    kind: Kind::Histogram,
    unit: "seconds",
    help: "How long requests took, by view (kind `view`) or model (kind `model`).",
};
pub const RECENT: Description = Description {
    name: "tidemill_serving_recent_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "Quantiles of how long requests of the last half a minute to a minute took, by view or model.",
};
pub const ROWS: Description = Description {
    name: "tidemill_serving_rows_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows answered, by view or model.",
};
pub const ERRORS: Description = Description {
    name: "tidemill_serving_errors_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows that could not be answered or scored, by view or model.",
};
pub const STALE: Description = Description {
    name: "tidemill_serving_stale_rows_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows answered from the cache while the store did not answer, by view.",
};
pub const BREAKER: Description = Description {
    name: "tidemill_serving_breaker_open",
    kind: Kind::Gauge,
    unit: "",
    help: "1 while requests to a job's online store are turned away since it failed, 0.5 while one tries it, else 0.",
};
pub const CACHE_HITS: Description = Description {
    name: "tidemill_serving_cache_hits_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows found in a cache (`features`, `predictions`).",
};
pub const CACHE_MISSES: Description = Description {
    name: "tidemill_serving_cache_misses_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows not found in a cache, or too old there.",
};
pub const CACHE_BYTES: Description = Description {
    name: "tidemill_serving_cache_bytes",
    kind: Kind::Gauge,
    unit: "bytes",
    help: "Memory that a cache takes.",
};

/// What is counted of one view or model.
#[derive(Debug)]
pub struct Meter {
    seconds: Histogram,
    recent: Mutex<Option<Recent>>,
    /// Rows answered.
    pub rows: AtomicU64,
    /// Rows that could not be.
    pub errors: AtomicU64,
    /// Rows answered from the cache while the store was away.
    pub stale: AtomicU64,
}

/// Latencies of this span and the one before it, in microseconds.
#[derive(Debug)]
struct Recent {
    since: Instant,
    spans: [hdrhistogram::Histogram<u32>; 2],
}

impl Default for Meter {
    fn default() -> Self {
        let span = || hdrhistogram::Histogram::new_with_max(LONGEST_US, 2);
        let recent = span().and_then(|a| Ok([a, span()?])).ok();
        Meter {
            seconds: Histogram::new(BOUNDS),
            recent: Mutex::new(recent.map(|spans| Recent { since: Instant::now(), spans })),
            rows: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Takes note of a request of so many rows.
    pub fn note(&self, started: Instant, rows: usize) {
        let now = Instant::now();
        let took = now.saturating_duration_since(started);
        self.seconds.record(took);
        self.rows.fetch_add(rows as u64, Relaxed);
        if let Some(recent) = &mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner) {
            recent.turn(now);
            let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).clamp(1, LONGEST_US);
            recent.spans[0].saturating_record(us);
        }
    }

    /// Latencies since the start.
    pub fn buckets(&self) -> Buckets {
        self.seconds.buckets()
    }

    /// Quantiles of the last spans in seconds; none where there was no request.
    pub fn recent(&self, now: Instant) -> Option<[f64; 3]> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.as_mut()?;
        recent.turn(now);
        let mut both = recent.spans[0].clone();
        both.add(&recent.spans[1]).ok()?;
        (!both.is_empty()).then(|| QUANTILES.map(|(q, _)| both.value_at_quantile(q) as f64 / 1e6))
    }
}

impl Recent {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < SPAN {
            return;
        }
        self.spans.swap(0, 1);
        self.spans[0].reset();
        if age >= SPAN * 2 {
            self.spans[1].reset();
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_spans() {
        let meter = Meter::default();
        let now = Instant::now();
        assert_eq!(meter.recent(now), None);
        meter.note(now - Duration::from_millis(10), 3);
        let [half, ..] = meter.recent(Instant::now()).expect("there was a request");
        assert!((0.009..0.5).contains(&half), "{half}");
        assert!(meter.recent(now + SPAN + Duration::from_secs(1)).is_some(), "the span before counts");
        assert_eq!(meter.recent(now + SPAN * 5), None);
        assert_eq!((meter.buckets().count, meter.rows.load(Relaxed)), (1, 3));
    }
}

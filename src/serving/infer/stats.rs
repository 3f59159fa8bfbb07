//! What is counted of each version: how many requests, how long they took, how large batches were.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::telemetry::{Buckets, Histogram as Seconds};

/// Bounds of the latency's buckets, in seconds.
const BOUNDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// How often, and how long together, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

impl Times {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Counters of the protocol's statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inference {
    /// Requests that were answered, from arrival to answer.
    pub success: Times,
    /// Requests that failed.
    pub fail: Times,
    /// Waiting for a scorer.
    pub queue: Times,
    /// Putting a batch together.
    pub compute_input: Times,
    /// Scoring.
    pub compute_infer: Times,
    /// Taking a batch apart.
    pub compute_output: Times,
    /// Answers from the cache.
    pub cache_hit: Times,
    /// Looks into the cache in vain.
    pub cache_miss: Times,
}

/// Counters of batches of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Rows.
    pub batch_size: u64,
    /// Putting it together.
    pub compute_input: Times,
    /// Scoring.
    pub compute_infer: Times,
    /// Taking it apart.
    pub compute_output: Times,
}

/// Quantiles of the latency of answered requests, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: u64,
    /// 9 of 10 are faster.
    pub p90: u64,
    /// 99 of 100 are faster.
    pub p99: u64,
    /// 999 of 1,000 are faster.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// What is told of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// When a row was scored last, in milliseconds since 1970.
    pub last_inference: u64,
    /// Rows scored; those answered from the cache are not among them.
    pub inference_count: u64,
    /// Batches scored.
    pub execution_count: u64,
    /// Requests by outcome and phase.
    pub inference_stats: Inference,
    /// Batches by size; sizes are rounded up to powers of two beyond 16.
    pub batch_stats: Vec<Batch>,
    /// Quantiles.
    pub latency_us: Latency,
}

struct Inner {
    told: Told,
    batches: BTreeMap<u64, Batch>,
    latency: Option<Histogram<u64>>,
}

/// Counters of a version.
pub(super) struct Stats {
    inner: Mutex<Inner>,
    seconds: Seconds,
}

/// How long the phases of a batch took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    pub input: Duration,
    pub infer: Duration,
    pub output: Duration,
}

impl Default for Stats {
    fn default() -> Self {
        // Two digits: quantiles within a hundredth of their value.
        let latency = Histogram::new_with_bounds(1, LONGEST_US, 2).ok();
        let inner = Inner { told: Told::default(), batches: BTreeMap::new(), latency };
        Stats { inner: Mutex::new(inner), seconds: Seconds::new(BOUNDS) }
    }
}

impl Stats {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered or failed.
    pub fn request(&self, took: Duration, answered: bool) {
        let mut inner = self.inner();
        if !answered {
            return inner.told.inference_stats.fail.add(took);
        }
        inner.told.inference_stats.success.add(took);
        self.seconds.record(took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        if let Some(latency) = &mut inner.latency {
            latency.saturating_record(micros);
        }
    }

    /// The cache had an answer, or had none.
    pub fn cache(&self, took: Duration, hit: bool) {
        let stats = &mut self.inner().told.inference_stats;
        if hit { stats.cache_hit.add(took) } else { stats.cache_miss.add(took) }
    }

    /// A batch was scored.
    pub fn batch(&self, rows: usize, waited: impl Iterator<Item = Duration>, phases: Phases) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let told = &mut inner.told;
        told.execution_count += 1;
        told.inference_count += rows as u64;
        told.last_inference = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        waited.for_each(|d| told.inference_stats.queue.add(d));
        let size = if rows <= 16 { rows } else { rows.checked_next_power_of_two().unwrap_or(rows) } as u64;
        let batch = inner.batches.entry(size).or_insert_with(|| Batch { batch_size: size, ..Batch::default() });
        let all = &mut told.inference_stats;
        for (of_all, of_size, took) in [
            (&mut all.compute_input, &mut batch.compute_input, phases.input),
            (&mut all.compute_infer, &mut batch.compute_infer, phases.infer),
            (&mut all.compute_output, &mut batch.compute_output, phases.output),
        ] {
            of_all.add(took);
            of_size.add(took);
        }
    }

    /// What was counted so far.
    pub fn told(&self) -> Told {
        let inner = self.inner();
        let mut told = inner.told.clone();
        told.batch_stats = inner.batches.values().cloned().collect();
        if let Some(latency) = inner.latency.as_ref().filter(|latency| !latency.is_empty()) {
            let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|q| latency.value_at_quantile(q));
            told.latency_us = Latency { p50, p90, p99, p999, max: latency.max() };
        }
        told
    }

    /// Latency of answered requests by bucket.
    pub fn seconds(&self) -> Buckets {
        self.seconds.buckets()
    }
}

//! A histogram with fixed bounds, recorded without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts by bucket, as they are told: cumulative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds, rising, and how many values are at most that; the last bucket, of all values, is not listed.
    pub cumulative: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// Durations by bucket. Recording costs two or three atomic additions.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// By bucket, the last one of values beyond all bounds.
    counts: Vec<AtomicU64>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// With these upper bounds in seconds, rising.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        debug_assert!(bounds.is_sorted());
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Histogram { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Takes note of a duration.
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What was recorded so far.
    pub fn buckets(&self) -> Buckets {
        let mut count = 0;
        let mut sum_up = |counts: &AtomicU64| {
            count += counts.load(Relaxed);
            count
        };
        let cumulative = self.bounds.iter().zip(&self.counts).map(|(bound, counts)| (*bound, sum_up(counts))).collect();
        self.counts.last().map(&mut sum_up);
        Buckets { cumulative, count, sum: self.sum_ns.load(Relaxed) as f64 / 1e9 }
    }
}

//! Families of samples, gathered anew for each scrape.
//!
//! Names follow Prometheus' rules: `tidemill_<thing>_<unit>`, counters end in `_total`, units are seconds and bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::histogram::Buckets;

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for restarts; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, a count and a sum.
    Histogram,
    /// Labels that say what something is; its name ends in `_info` and its value is 1.
    Info,
}

/// A family: all samples of one name.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Name, as in Prometheus' classic format: counters with `_total`.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its unit, which the name ends in (before `_total`); empty for plain numbers.
    pub unit: &'static str,
    /// What it is, a sentence.
    pub help: &'static str,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Buckets(Buckets),
}

/// Names and values of labels, in the order given.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The samples of one scrape, by family and in the order of their names.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(super) families: BTreeMap<&'static str, (Description, Vec<(Labels, Value)>)>,
}

impl Metrics {
    /// Adds a sample. Labels whose value is empty are left out: to Prometheus it is the same.
    pub fn add(&mut self, family: &Description, labels: &[(&'static str, &str)], value: f64) {
        self.put(family, labels, Value::Number(value));
    }

    /// Adds a histogram.
    pub fn add_histogram(&mut self, family: &Description, labels: &[(&'static str, &str)], buckets: Buckets) {
        self.put(family, labels, Value::Buckets(buckets));
    }

    fn put(&mut self, family: &Description, labels: &[(&'static str, &str)], value: Value) {
        debug_assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
        let labels: Labels = labels.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (*n, (*v).to_owned())).collect();
        let (_, samples) = self.families.entry(family.name).or_insert_with(|| (*family, Vec::new()));
        samples.push((labels, value));
    }

    /// A family's samples that are numbers, with their labels; for tests and for those who show them otherwise.
    pub fn numbers<'a>(&'a self, name: &str) -> Vec<(&'a [(&'static str, String)], f64)> {
        let samples = self.families.get(name).map_or(&[][..], |(_, samples)| samples);
        let number = |(labels, value): &'a (Labels, Value)| match value {
            Value::Number(number) => Some((labels.as_slice(), *number)),
            Value::Buckets(_) => None,
        };
        samples.iter().filter_map(number).collect()
    }
}

/// Reads what is to be told at this moment. Called for each scrape, from the server's thread.
pub trait Collector: Send + Sync {
    /// Adds samples.
    fn collect(&self, metrics: &mut Metrics);
}

/// All collectors of a process.
#[derive(Default)]
pub struct Registry {
    collectors: Mutex<Vec<Arc<dyn Collector>>>,
}

impl Registry {
    /// Adds a collector.
    pub fn register(&self, collector: Arc<dyn Collector>) {
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(collector);
    }

    /// The samples of this moment.
    pub fn gather(&self) -> Metrics {
        // Cloned, so that a collector that takes its time keeps nobody from registering.
        let collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut metrics = Metrics::default();
        collectors.iter().for_each(|collector| collector.collect(&mut metrics));
        metrics
    }
}

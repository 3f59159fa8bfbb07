//! Online features and predictions over HTTP: Feast's `get-online-features` and `push`, `/predict/{model}`.
//!
//! A request names views, feature sets, models and sources as jobs' files do, `job.name` where several jobs have one. Values
//! come from the job's online store, whether the job runs or not, by [`link`]: one round trip for each job, with a bound on time, a
//! breaker before a store that fails, and a cache.
//!
//! **What windows hold.** Values are as of the last event that the job has put into its store, and slide with the job's clock;
//! the request itself is in no window, since it is no event. A prediction by request therefore equals the stream's where the
//! view says `include_current: false`, or once the event has come.

mod answer;
mod breaker;
mod cache;
mod catalogue;
mod features;
mod link;
mod meter;
mod predict;
mod predictor;
mod push;
mod scalar;
mod service;
#[cfg(test)]
mod tests;
mod version;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::breaker::Standing;
use self::cache::Cache;
use self::catalogue::{Catalogue, Kept};
use self::link::{Features, Settings};
use self::predict::{InputKey, Told};
use self::predictor::Predictor;
use self::push::Producers;
use super::Jobs;
use crate::http::Api;
use crate::plan::model::Plan;
use crate::telemetry::{Collector, Metrics, Registry};

pub use self::predict::{PredictAnswer, PredictRequest};
pub use self::push::PushRequest;

/// Header of answers that hold features from the cache since the store was away: the age of the oldest, in seconds.
pub const STALE_HEADER: &str = "tidemill-stale-seconds";

/// How requests are answered.
#[derive(Clone, Debug)]
pub struct Options {
    /// A store that has not answered by then has failed.
    pub timeout: Duration,
    /// A row that was read is good for so long; zero asks the store each time.
    pub feature_cache_ttl: Duration,
    /// While the store does not answer, rows that were read may be told for so long, marked; zero tells none.
    pub stale_max: Duration,
    /// Memory for rows that were read, in bytes.
    pub feature_cache_bytes: usize,
    /// Memory for scores that were told, in bytes; they are kept by the model's hash and the whole input, and cannot be stale.
    pub prediction_cache_bytes: usize,
    /// Most rows in one request.
    pub rows_max: usize,
}

impl Default for Options {
    /// A quarter of a second for the store; no rows from the cache but for ten seconds of an outage, in 64 MiB; no cache of scores;
    /// 10,000 rows.
    fn default() -> Self {
        Options {
            timeout: Duration::from_millis(250),
            feature_cache_ttl: Duration::ZERO,
            stale_max: Duration::from_secs(10),
            feature_cache_bytes: 64 << 20,
            prediction_cache_bytes: 0,
            rows_max: 10_000,
        }
    }
}

/// Predictors by job and model, each with the plan that it was made of.
type Predictors = HashMap<(String, usize), (Arc<Plan>, Arc<Predictor>)>;

/// Answers requests for the features and predictions of a set of jobs.
pub struct Online {
    jobs: Arc<dyn Jobs>,
    options: Options,
    settings: Settings,
    kept: Kept,
    catalogue: RwLock<Option<Arc<Catalogue>>>,
    predictors: Mutex<Predictors>,
    predictions: Cache<InputKey, Told>,
    producers: Producers,
}

/// The routes for these jobs; what is counted is told by `registry`.
pub fn api(jobs: Arc<dyn Jobs>, options: Options, registry: &Registry) -> Api {
    let online = Online::new(jobs, options);
    registry.register(Arc::clone(&online) as Arc<dyn Collector>);
    online.api()
}

impl Online {
    /// For these jobs.
    pub fn new(jobs: Arc<dyn Jobs>, options: Options) -> Arc<Online> {
        let settings = Settings {
            timeout: options.timeout,
            fresh_for: options.feature_cache_ttl,
            stale_for: options.stale_max,
            cache: Arc::new(Features::new(options.feature_cache_bytes)),
        };
        Arc::new(Online {
            jobs,
            settings,
            kept: Kept::default(),
            catalogue: RwLock::default(),
            predictors: Mutex::default(),
            predictions: Cache::new(options.prediction_cache_bytes),
            producers: Producers::default(),
            options,
        })
    }

    /// What can be asked for now; made anew when the jobs changed.
    fn catalogue(&self) -> Arc<Catalogue> {
        let jobs = self.jobs.list();
        let current = |held: &Option<Arc<Catalogue>>| held.clone().filter(|held| Arc::ptr_eq(&held.of, &jobs));
        if let Some(held) = current(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner)) {
            return held;
        }
        let mut held = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = current(&held) {
            return held;
        }
        let catalogue = Arc::new(Catalogue::new(jobs, &self.kept, &self.settings));
        *held = Some(Arc::clone(&catalogue));
        catalogue
    }
}

impl Collector for Online {
    fn collect(&self, metrics: &mut Metrics) {
        use std::sync::atomic::Ordering::Relaxed;
        let now = Instant::now();
        for ((kind, job, name), meter) in self.kept.meters() {
            let labels = [("kind", kind), ("job", job.as_str()), ("name", name.as_str())];
            metrics.add_histogram(&meter::REQUESTS, &labels, meter.buckets());
            for (value, (_, quantile)) in meter.recent(now).into_iter().flatten().zip(meter::QUANTILES) {
                let labels = [labels.as_slice(), &[("quantile", quantile)]].concat();
                metrics.add(&meter::RECENT, &labels, value);
            }
            metrics.add(&meter::ROWS, &labels, meter.rows.load(Relaxed) as f64);
            metrics.add(&meter::ERRORS, &labels, meter.errors.load(Relaxed) as f64);
            if kind == "view" {
                metrics.add(&meter::STALE, &labels, meter.stale.load(Relaxed) as f64);
            }
        }
        for job in &self.catalogue().jobs {
            if let Ok(link) = &job.link {
                let open = match link.breaker.standing() {
                    Standing::Closed => 0.0,
                    Standing::HalfOpen => 0.5,
                    Standing::Open => 1.0,
                };
                metrics.add(&meter::BREAKER, &[("job", &job.name)], open);
            }
        }
        let features = &self.settings.cache;
        let predictions = &self.predictions;
        let caches = [
            ("features", &features.hits, &features.misses, features.size().1),
            ("predictions", &predictions.hits, &predictions.misses, predictions.size().1),
        ];
        for (cache, hits, misses, bytes) in caches {
            let labels = [("cache", cache)];
            metrics.add(&meter::CACHE_HITS, &labels, hits.load(Relaxed) as f64);
            metrics.add(&meter::CACHE_MISSES, &labels, misses.load(Relaxed) as f64);
            metrics.add(&meter::CACHE_BYTES, &labels, bytes as f64);
        }
    }
}

//! What the service tells Prometheus: requests, rows, batches and latency of each version.

use std::sync::{Arc, Weak};

use super::service::Infer;
use crate::telemetry::{Collector, Description, Kind, Metrics, Registry};

const fn family(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Description {
    Description { name, kind, unit, help }
}

const REQUESTS: Description =
    family("tidemill_infer_requests_total", Kind::Counter, "", "Requests for scores, by outcome: success or fail.");
const ROWS: Description = family("tidemill_infer_rows_total", Kind::Counter, "", "Rows scored for requests.");
const BATCHES: Description =
    family("tidemill_infer_batches_total", Kind::Counter, "", "Batches that requests were scored in.");
const CACHE: Description = family(
    "tidemill_infer_cache_lookups_total",
    Kind::Counter,
    "",
    "Looks into the cache of predictions: hit or miss.",
);
const CACHE_BYTES: Description = family("tidemill_infer_cache_bytes", Kind::Gauge, "bytes", "Kept answers.");
const SECONDS: Description =
    family("tidemill_infer_seconds", Kind::Histogram, "seconds", "From a request's arrival to its answer.");
const QUANTILES: Description = family(
    "tidemill_infer_latency_seconds",
    Kind::Gauge,
    "seconds",
    "Quantiles of the time from a request's arrival to its answer, since the start.",
);
const WAITING: Description =
    family("tidemill_infer_waiting_requests", Kind::Gauge, "", "Requests that wait for a scorer.");

struct Collected(Weak<Infer>);

/// Has a registry tell of the service, as long as that is there.
pub(super) fn register(infer: &Arc<Infer>, registry: &Registry) {
    registry.register(Arc::new(Collected(Arc::downgrade(infer))));
}

impl Collector for Collected {
    fn collect(&self, metrics: &mut Metrics) {
        let Some(infer) = self.0.upgrade() else { return };
        for ((model, version), stats) in infer.models.stats() {
            let told = stats.told();
            let own = [("model", model.as_str()), ("version", version.as_str())];
            let with = |name: &'static str, value: &'static str| [own[0], own[1], (name, value)];
            let s = &told.inference_stats;
            metrics.add(&REQUESTS, &with("outcome", "success"), s.success.count as f64);
            metrics.add(&REQUESTS, &with("outcome", "fail"), s.fail.count as f64);
            metrics.add(&ROWS, &own, told.inference_count as f64);
            metrics.add(&BATCHES, &own, told.execution_count as f64);
            metrics.add(&CACHE, &with("outcome", "hit"), s.cache_hit.count as f64);
            metrics.add(&CACHE, &with("outcome", "miss"), s.cache_miss.count as f64);
            metrics.add_histogram(&SECONDS, &own, stats.seconds());
            let l = &told.latency_us;
            for (quantile, micros) in [("0.5", l.p50), ("0.9", l.p90), ("0.99", l.p99), ("0.999", l.p999)] {
                metrics.add(&QUANTILES, &with("quantile", quantile), micros as f64 / 1e6);
            }
        }
        metrics.add(&CACHE_BYTES, &[], infer.cache().bytes() as f64);
        metrics.add(&WAITING, &[], infer.pool.waiting() as f64);
    }
}

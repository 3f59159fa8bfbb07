//! A monitor's `latency`.

use super::Compiler;
use crate::plan::config::LatencyConfig;
use crate::plan::faults::Path;
use crate::plan::model::LatencyPlan;

/// Time between two looks when the file does not say.
const EVERY: i64 = 10_000_000;
/// The least.
const EVERY_MIN: i64 = 1_000_000;

impl Compiler<'_> {
    pub(super) fn latency(&mut self, path: &Path, config: Option<&LatencyConfig>) -> LatencyPlan {
        let config = config.cloned().unwrap_or_default();
        for (key, threshold) in [("p50_ms", config.p50_ms), ("p99_ms", config.p99_ms)] {
            if threshold.is_some_and(|ms| !ms.is_finite() || ms <= 0.0) {
                let mend = "write milliseconds, such as 200";
                self.error(&path.key(key), format!("`{key}` is no latency"), mend);
            }
        }
        if let (Some(half), Some(most)) = (config.p50_ms, config.p99_ms)
            && half > most
        {
            let mend = "p50_ms is what half of the rows may take, p99_ms what all but one in a hundred may";
            self.error(
                &path.key("p50_ms"),
                "`p50_ms` is above `p99_ms`, so it would never be an alarm by itself",
                mend,
            );
        }
        let every = config.every.as_ref().map_or(EVERY, |every| every.0);
        if every < EVERY_MIN {
            self.error(&path.key("every"), "`every` is less than a second", "look every 1s or less often, such as 10s");
        }
        LatencyPlan { p50_ms: config.p50_ms, p99_ms: config.p99_ms, every: every.max(EVERY_MIN) }
    }
}

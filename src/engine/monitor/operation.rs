//! How a job runs, as statistics that alerts may look at: latency and errors of each model that is monitored, and the
//! processor time, memory, free disk and brokers of the process.
//!
//! A sample is taken on the first worker with the first tick after every `latency.every` of wall time; while live sources
//! are silent there is a tick for it. Its window is the span of wall time since the sample before. What is on the wall clock
//! differs from run to run: these rows have a table of their own, which no replay repeats and no proof looks at. There is no
//! state: after a restart the first window begins anew, and ticks that are replayed take no samples.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use timely::dataflow::Scope;

use super::Statistics;
use crate::base::{EventTime, Tick};
use crate::engine::observe::Latency;
use crate::engine::shared::Shared;
use crate::engine::ticked::{Control, per_tick};
use crate::monitor::{Stat, StatKind, stat_batch};
use crate::ops::control::TickInfo;
use crate::plan::model::LatencyPlan;
use crate::telemetry::process;

/// The subject of statistics of the process.
const ENGINE: &str = "engine";

/// The samples of a monitor's model; none in a replay.
pub fn operation<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
) -> Option<Statistics<'s>> {
    if !shared.meters.samples() {
        return None;
    }
    let plan = &shared.plan.monitors[monitor];
    let model = &shared.plan.models[plan.model];
    let mut core = Sampler::new(&model.name, &model.version, plan.latency);
    let name = format!("{} operation", super::name(&shared.plan, plan));
    let (shared, index, first) = (Arc::clone(shared), plan.model, scope.index() == 0);
    let logic = Box::new(move |info: &TickInfo, _: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        if !first || !shared.checkpoints.publishes(info.tick) || !core.is_due(Instant::now(), info.last) {
            return;
        }
        let stats = core.sample(&measure(&shared, index));
        if !stats.is_empty() {
            out[0].push(stat_batch(&stats, info.tick, shared.plan.version));
        }
    });
    let rows = per_tick(scope, &name, control.inside().telling(1), Vec::new(), 1, logic).pop()?;
    Some(Statistics { monitor, kind: StatKind::Operation, rows })
}

/// What is measured at one moment: counts since the start, and latencies since the last time.
#[derive(Clone, Debug, Default)]
struct Measured {
    /// Wall clock, microseconds since 1970.
    at: EventTime,
    scored: u64,
    unscored: u64,
    rows_read: u64,
    latency: Option<(Latency, u64)>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    disk_free_bytes: Option<u64>,
    /// Sources on topics, and how many of these have brokers that answer.
    brokers: (u64, u64),
    kafka_lag: Option<u64>,
    clock: Option<EventTime>,
}

fn measure(shared: &Shared, model: usize) -> Measured {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (scored, unscored) = shared.meters.model(model);
    let newest = shared.meters.newest();
    let (mut brokers, mut lag) = ((0, 0), None);
    for topic in shared.meters.topics() {
        let Some(up) = topic.is_up() else { continue };
        brokers = (brokers.0 + 1, brokers.1 + u64::from(up));
        let source = shared.plan.sources.iter().position(|source| source.name == topic.source());
        let offsets = source.and_then(|source| newest.offsets.get(source)).map_or(&[][..], Vec::as_slice);
        for (partition, next) in offsets.iter().enumerate() {
            let behind = topic.end_offset(partition).map(|end| end.saturating_sub(*next));
            lag = behind.map(|behind| lag.unwrap_or(0) + behind).or(lag);
        }
    }
    Measured {
        at: i64::try_from(now.as_micros()).unwrap_or(i64::MAX),
        scored,
        unscored,
        rows_read: shared.rows_read.load(Relaxed),
        latency: shared.observer.as_ref().and_then(|observer| observer.take_latency(model)),
        cpu_seconds: process::cpu_seconds(),
        memory_bytes: process::resident_bytes(),
        disk_free_bytes: shared.meters.paths.iter().filter_map(|path| process::disk_free_bytes(path)).min(),
        brokers,
        kafka_lag: lag,
        clock: newest.clock,
    }
}

/// Makes statistics of what is measured; knows nothing of timely, nor of the machine.
struct Sampler {
    model: String,
    version: String,
    plan: LatencyPlan,
    sampled: Option<Instant>,
    before: Option<Measured>,
}

impl Sampler {
    fn new(model: &str, version: &str, plan: LatencyPlan) -> Sampler {
        Sampler { model: model.to_owned(), version: version.to_owned(), plan, sampled: None, before: None }
    }

    /// Whether to measure now: at first, then every so often, and at the end.
    fn is_due(&mut self, now: Instant, last: bool) -> bool {
        let every = Duration::from_micros(self.plan.every.unsigned_abs());
        let due = last || self.sampled.is_none_or(|sampled| now.saturating_duration_since(sampled) >= every);
        if due {
            self.sampled = Some(now);
        }
        due
    }

    /// The statistics since what was measured last; none the first time.
    fn sample(&mut self, now: &Measured) -> Vec<Stat> {
        let Some(before) = self.before.replace(now.clone()) else { return Vec::new() };
        // A wall clock that was set back makes no window.
        if now.at <= before.at {
            return Vec::new();
        }
        let seconds = (now.at - before.at) as f64 / 1e6;
        let (scored, unscored) = (now.scored - before.scored, now.unscored - before.unscored);
        let seen = scored + unscored;
        let rows_read = now.rows_read - before.rows_read;
        let mut stats = Vec::new();
        let mut add = |subject: &str, metric: &str, value: Option<f64>, rows: u64, threshold: Option<f64>| {
            if value.is_none() {
                return;
            }
            stats.push(Stat {
                kind: StatKind::Operation,
                model: self.model.clone(),
                version: if subject.is_empty() { self.version.clone() } else { String::new() },
                route: String::new(),
                segment: String::new(),
                window_start: before.at,
                window_end: now.at,
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value,
                bound: None,
                rows,
                threshold,
                alarm: threshold.zip(value).map(|(threshold, value)| value > threshold),
                revision: 1,
                as_of: now.at,
                complete: true,
            });
        };
        if let Some((latency, rows)) = now.latency {
            let ms = |latency: Duration| Some(latency.as_secs_f64() * 1e3);
            add("", "latency_p50_ms", ms(latency.p50), rows, self.plan.p50_ms);
            add("", "latency_p99_ms", ms(latency.p99), rows, self.plan.p99_ms);
            add("", "latency_max_ms", ms(latency.max), rows, None);
        }
        add("", "error_rate", (seen > 0).then(|| unscored as f64 / seen as f64), seen, None);
        add("", "predictions_per_s", Some(scored as f64 / seconds), scored, None);
        add(ENGINE, "rows_per_s", Some(rows_read as f64 / seconds), rows_read, None);
        let cores = now.cpu_seconds.zip(before.cpu_seconds).map(|(now, before)| (now - before) / seconds);
        add(ENGINE, "cpu_cores", cores, rows_read, None);
        add(ENGINE, "memory_bytes", now.memory_bytes.map(|bytes| bytes as f64), rows_read, None);
        add(ENGINE, "disk_free_bytes", now.disk_free_bytes.map(|bytes| bytes as f64), rows_read, None);
        let up = (now.brokers.0 > 0).then(|| now.brokers.1 as f64 / now.brokers.0 as f64);
        add(ENGINE, "brokers_up", up, rows_read, None);
        add(ENGINE, "kafka_lag", now.kafka_lag.map(|lag| lag as f64), rows_read, None);
        add(ENGINE, "watermark_lag_s", now.clock.map(|clock| (now.at - clock) as f64 / 1e6), rows_read, None);
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn plan() -> LatencyPlan {
        LatencyPlan { p50_ms: None, p99_ms: Some(200.0), every: 10 * SECOND }
    }

    fn value(stats: &[Stat], subject: &str, metric: &str) -> Option<f64> {
        stats.iter().find(|s| s.subject == subject && s.metric == metric).and_then(|s| s.value)
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let mut sampler = Sampler::new("fraud", "3", plan());
        let latency = |p99| {
            let ms = Duration::from_millis;
            Some((Latency { p50: ms(5), p99: ms(p99), max: ms(900) }, 990))
        };
        let first = Measured { at: 100 * SECOND, scored: 1_000, cpu_seconds: Some(3.0), ..Measured::default() };
        assert_eq!(sampler.sample(&first), []);
        let second = Measured {
            at: 110 * SECOND,
            scored: 1_990,
            unscored: 10,
            rows_read: 5_000,
            latency: latency(200),
            cpu_seconds: Some(18.0),
            memory_bytes: Some(1 << 20),
            disk_free_bytes: Some(1 << 30),
            brokers: (2, 1),
            kafka_lag: Some(7),
            clock: Some(80 * SECOND),
        };
        let stats = sampler.sample(&second);
        for (subject, metric, expected) in [
            ("", "latency_p50_ms", 5.0),
            ("", "latency_p99_ms", 200.0),
            ("", "error_rate", 0.01),
            ("", "predictions_per_s", 99.0),
            ("engine", "rows_per_s", 500.0),
            ("engine", "cpu_cores", 1.5),
            ("engine", "memory_bytes", 1_048_576.0),
            ("engine", "brokers_up", 0.5),
            ("engine", "kafka_lag", 7.0),
            ("engine", "watermark_lag_s", 30.0),
        ] {
            assert_eq!(value(&stats, subject, metric), Some(expected), "{subject} {metric}");
        }
        let p99 = |stats: &[Stat]| stats.iter().find(|s| s.metric == "latency_p99_ms").unwrap().clone();
        let told = p99(&stats);
        assert_eq!((told.threshold, told.alarm, told.rows), (Some(200.0), Some(false), 990));
        assert_eq!((told.window_start, told.window_end, told.version.as_str()), (first.at, second.at, "3"));
        assert!(stats.iter().all(|s| s.alarm.is_none() || s.metric == "latency_p99_ms"));
        let third = Measured { at: 120 * SECOND, latency: latency(201), ..second.clone() };
        assert_eq!(p99(&sampler.sample(&third)).alarm, Some(true));
        // Nothing was scored: there is no latency and no rate of errors, and that is no alarm.
        let fourth = Measured { at: 130 * SECOND, latency: None, brokers: (0, 0), ..second };
        let stats = sampler.sample(&fourth);
        assert_eq!(value(&stats, "", "predictions_per_s"), Some(0.0));
        let absent = ["latency_p99_ms", "error_rate", "brokers_up"];
        assert!(stats.iter().all(|s| !absent.contains(&s.metric.as_str())), "{stats:?}");
        assert_eq!(sampler.sample(&Measured { at: 1, ..fourth }), [], "the clock was set back");
    }

    #[test]
    fn samples_are_so_far_apart() {
        let mut sampler = Sampler::new("m", "1", plan());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let due = [0, 1, 9, 10, 11, 20, 45, 54].map(|seconds| sampler.is_due(at(seconds), false));
        assert_eq!(due, [true, false, false, true, false, true, true, false]);
        assert!(sampler.is_due(at(54), true), "the end is told");
    }
}

//! The newest statistics of the monitors, by series: what a scrape shows of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::base::EventTime;
use crate::monitor::{Series, Stat, StatKind};
use crate::telemetry::{Description, Kind, Metrics};

/// Series that are shown at most: what comes from data, such as segments, must not outgrow those who scrape it.
const SERIES_MAX: usize = 10_000;

const fn gauge(name: &'static str, help: &'static str) -> Description {
    Description { name, kind: Kind::Gauge, unit: "", help }
}

const ACCURACY: Description = gauge(
    "ml_model_accuracy",
    "How predictions compare with labels, of the newest window that was told; `metric` says how it is measured.",
);
const ACCURACY_ALARM: Description = gauge(
    "ml_model_accuracy_alarm",
    "1 while an alert of the monitor fires for such a measure, 0 while those that judge it do not.",
);
const DRIFT: Description = gauge(
    "ml_drift",
    "How far a column, prediction or label is from its reference, of the newest window that was told.",
);
const DRIFT_THRESHOLD: Description = gauge("ml_drift_threshold", "Beyond this such a statistic is an alarm.");
const DRIFT_ALARM: Description = gauge("ml_drift_alarm", "1 while such a statistic is beyond its threshold.");
const QUALITY: Description =
    gauge("ml_quality", "Nulls, ranges, categories, freshness, volume of rows, of the newest window that was told.");
const QUALITY_ALARM: Description = gauge("ml_quality_alarm", "1 while such a statistic is beyond its threshold.");
const OPERATION_ALARM: Description =
    gauge("ml_operation_alarm", "1 while a latency of the model is beyond its threshold.");
const WINDOW_END: Description = Description {
    name: "ml_statistics_window_end_seconds",
    kind: Kind::Gauge,
    unit: "seconds",
    help: "Where the newest window of such statistics ends, in seconds since 1970.",
};
const LEFT_OUT: Description = Description {
    name: "tidemill_statistics_series_left_out_total",
    kind: Kind::Counter,
    unit: "",
    help: "Statistics that are not shown, or are shown no more, because there are too many series.",
};

/// The newest statistics. Open while somebody asks for metrics.
#[derive(Default)]
pub struct Board {
    open: AtomicBool,
    newest: Mutex<BTreeMap<Series, Newest>>,
    left_out: AtomicU64,
    /// Series that alerts judge, and whether any of these fires; by the worker that judges.
    judged: Mutex<BTreeMap<usize, BTreeMap<Series, bool>>>,
}

/// Of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Newest {
    window_start: EventTime,
    window_end: EventTime,
    revision: u32,
    value: Option<f64>,
    threshold: Option<f64>,
    alarm: Option<bool>,
}

impl Board {
    /// Somebody asks.
    pub fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Whether somebody does.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Takes note of a statistic, unless one of a newer window or revision of its series is there. With too many series the
    /// one whose window ended first makes room.
    pub fn publish(&self, stat: &Stat) {
        self.publish_within(stat, SERIES_MAX);
    }

    pub(super) fn publish_within(&self, stat: &Stat, series_max: usize) {
        let newest = Newest {
            window_start: stat.window_start,
            window_end: stat.window_end,
            revision: stat.revision,
            value: stat.value.filter(|value| value.is_finite()),
            threshold: stat.threshold,
            alarm: stat.alarm,
        };
        let series = Series::from(stat);
        let mut board = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = board.get_mut(&series) {
            if (there.window_start, there.revision) <= (newest.window_start, newest.revision) {
                *there = newest;
            }
            return;
        }
        if board.len() >= series_max {
            self.left_out.fetch_add(1, Relaxed);
            let oldest = board.iter().min_by_key(|(_, one)| one.window_end);
            let Some(oldest) = oldest.filter(|(_, one)| one.window_end < newest.window_end).map(|(s, _)| s.clone())
            else {
                return;
            };
            board.remove(&oldest);
        }
        board.insert(series, newest);
    }

    /// Takes note of the series that a worker's alerts judge, and whether any of these fires.
    pub fn judge(&self, worker: usize, judged: BTreeMap<Series, bool>) {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, judged);
    }

    /// Tells what is on the board.
    pub fn collect(&self, metrics: &mut Metrics) {
        let board = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ends: BTreeMap<(&str, StatKind), EventTime> = BTreeMap::new();
        for (series, newest) in board.iter() {
            let end = ends.entry((&series.model, series.kind)).or_insert(EventTime::MIN);
            *end = newest.window_end.max(*end);
            let labels = labels(series);
            let mut add = |family: Option<&Description>, value: Option<f64>| {
                if let Some((family, value)) = family.zip(value) {
                    metrics.add(family, &labels, value);
                }
            };
            let (value, threshold, alarm) = match series.kind {
                // Accuracy has no thresholds but those of alerts.
                StatKind::Accuracy => (Some(&ACCURACY), None, None),
                StatKind::Drift => (Some(&DRIFT), Some(&DRIFT_THRESHOLD), Some(&DRIFT_ALARM)),
                StatKind::Quality => (Some(&QUALITY), None, Some(&QUALITY_ALARM)),
                // The job tells these itself, at the moment of the scrape.
                StatKind::Operation => (None, None, Some(&OPERATION_ALARM)),
            };
            add(value, newest.value);
            add(threshold, newest.threshold);
            add(alarm, newest.alarm.map(|alarm| f64::from(u8::from(alarm))));
        }
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, fires) in judged.values().flatten().take(SERIES_MAX) {
            metrics.add(&ACCURACY_ALARM, &labels(series), f64::from(u8::from(*fires)));
        }
        for ((model, kind), end) in ends {
            let table = kind.table().trim_start_matches("stats/");
            metrics.add(&WINDOW_END, &[("model", model), ("table", table)], end as f64 / 1e6);
        }
        if self.is_open() {
            metrics.add(&LEFT_OUT, &[], self.left_out.load(Relaxed) as f64);
        }
    }
}

fn labels(series: &Series) -> [(&'static str, &str); 6] {
    let subject = if series.kind == StatKind::Accuracy { "class" } else { "column" };
    [
        ("model", &series.model),
        ("version", &series.version),
        ("route", &series.route),
        ("segment", &series.segment),
        (subject, &series.subject),
        ("metric", &series.metric),
    ]
}

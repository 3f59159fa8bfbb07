//! What is told of a window.

use std::sync::Arc;

use super::{Column, VOLUMES, Window, Windows};
use crate::base::EventTime;
use crate::monitor::drift::alarm::{Rule, is_alarm, threshold};
use crate::monitor::drift::distribution::fisher_critical;
use crate::monitor::drift::histogram::Histogram;
use crate::monitor::drift::measure::measure;
use crate::monitor::drift::reference::Reference;
use crate::monitor::{Stat, StatKind};
use crate::plan::model::{ColumnRole, DriftMetric, QualityMetric};

/// Share of drifted columns from which on the whole is taken to have drifted; Evidently's.
const DRIFTED_MAX: f64 = 0.5;
/// New categories that are named.
const NAMED_MAX: usize = 5;

impl Windows {
    pub(super) fn tell_window(&mut self, start: EventTime, told: &mut Vec<Stat>) {
        let watch = Arc::clone(&self.watch);
        let references: Vec<Option<Arc<Reference>>> =
            (0..watch.columns.len()).map(|index| self.reference(index, start)).collect();
        let window = self.windows.entry(start).or_insert_with(|| Window::empty(&watch));
        window.revision += 1;
        window.changed = false;
        self.unsaved.insert(start);
        let window = window.clone();
        self.empty = if window.rows > 0 { 0 } else { self.empty.saturating_add(1) };
        self.newest = self.newest.max(window.newest);
        let mut teller = Teller { windows: self, start, window, told };
        let (mut drifted, mut columns) = (0u64, 0u64);
        for (index, (column, reference)) in watch.columns.iter().zip(&references).enumerate() {
            match teller.drift(index, column, reference.as_deref()) {
                Some(alarm) if column.role == ColumnRole::Feature => {
                    columns += 1;
                    drifted += u64::from(alarm);
                }
                _ => {}
            }
        }
        if columns > 0 {
            let share = drifted as f64 / columns as f64;
            teller.stat(StatKind::Drift, "", "drifted_columns", Some(share), Some((DRIFTED_MAX, share >= DRIFTED_MAX)));
        }
        for metric in &watch.quality {
            teller.quality(*metric, &references);
        }
        let rows = self.windows.get(&start).map_or(0, |window| window.rows);
        if self.windows.get(&start).is_some_and(|window| window.revision == 1) {
            self.volumes.push_back(rows);
            if self.volumes.len() > VOLUMES {
                self.volumes.pop_front();
            }
        }
    }
}

/// A statistic of a column.
pub(in crate::monitor::drift) struct Drift {
    pub metric: DriftMetric,
    pub value: Option<f64>,
    pub bound: Option<f64>,
    /// Its threshold, and whether it is an alarm.
    pub limit: Option<(f64, bool)>,
    /// Rows behind it.
    pub rows: u64,
}

/// The statistics of a column that its kind has.
pub(in crate::monitor::drift) fn drifts(
    rule: Rule,
    column: &Column,
    window: &Histogram,
    reference: Option<&Reference>,
) -> Vec<Drift> {
    let (rows, missing) = (window.present(), window.missing());
    let metrics = column.metrics.iter().filter(|metric| metric.applies(column.categories));
    let drift = |metric: &DriftMetric| {
        let measured = reference.and_then(|reference| measure(*metric, reference, window));
        let limit = measured
            .as_ref()
            .zip(reference)
            .and_then(|(measured, reference)| threshold(rule, *metric, measured, reference, rows, missing));
        let (value, bound) = (measured.as_ref().map(|m| m.value), measured.and_then(|m| m.bound));
        let limit = value.zip(limit).map(|(value, limit)| (limit, is_alarm(rule, *metric, value, limit)));
        let rows = if *metric == DriftMetric::Missing { rows + missing } else { rows };
        Drift { metric: *metric, value, bound, limit, rows }
    };
    metrics.map(drift).collect()
}

struct Teller<'a> {
    windows: &'a Windows,
    start: EventTime,
    window: Window,
    told: &'a mut Vec<Stat>,
}

impl Teller<'_> {
    /// Tells of a column's drift. Returns whether the first statistic that the column has is an alarm.
    fn drift(&mut self, index: usize, column: &Column, reference: Option<&Reference>) -> Option<bool> {
        let drifts = drifts(self.windows.watch.rule, column, &self.window.columns[index], reference);
        let mut first = None;
        for Drift { metric, value, bound, limit, rows } in drifts {
            if first.is_none() && value.is_some() {
                // A statistic that cannot differ is none.
                first = limit.map(|(_, alarm)| alarm);
            }
            self.stat(StatKind::Drift, &column.name, metric.name(), value, limit);
            if let Some(last) = self.told.last_mut() {
                (last.bound, last.rows) = (bound, rows);
            }
        }
        first
    }

    fn quality(&mut self, metric: QualityMetric, references: &[Option<Arc<Reference>>]) {
        let watch = Arc::clone(&self.windows.watch);
        let window = self.window.clone();
        let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        let kind = StatKind::Quality;
        match metric {
            QualityMetric::Nulls => {
                for ((column, histogram), reference) in watch.columns.iter().zip(&window.columns).zip(references) {
                    let (rows, missing) = (histogram.present(), histogram.missing());
                    let all = rows + missing;
                    let limit = reference
                        .as_deref()
                        .map(Reference::rows)
                        .and_then(|(m, m_missing)| self.limit(missing, all, m_missing, m + m_missing));
                    self.stat(kind, &column.name, "null_share", share(missing, all), limit);
                }
            }
            QualityMetric::Range => {
                for ((column, histogram), reference) in watch.columns.iter().zip(&window.columns).zip(references) {
                    let outside = match (histogram, reference.as_deref()) {
                        (Histogram::Numeric(window), Some(Reference::Numeric(reference))) => {
                            let cells = &reference.counts.cells;
                            let (low, high) = (cells.keys().next(), cells.keys().next_back());
                            let outside = window.cells.iter().filter(|(i, _)| Some(*i) < low || Some(*i) > high);
                            Some((
                                outside.map(|(_, cell)| cell.count).sum::<i64>().max(0).cast_unsigned(),
                                reference.rows,
                            ))
                        }
                        (Histogram::Numeric(_), None) => None,
                        _ => continue,
                    };
                    let rows = histogram.present();
                    // The reference's own two ends are as far out as any of its values.
                    let limit = outside.and_then(|(outside, m)| self.limit(outside, rows, 2, m));
                    let value = outside.and_then(|(outside, _)| share(outside, rows));
                    self.stat(kind, &column.name, "out_of_range_share", value, limit);
                }
            }
            QualityMetric::NewCategories => {
                for ((column, histogram), reference) in watch.columns.iter().zip(&window.columns).zip(references) {
                    self.new_categories(column, histogram, reference.as_deref());
                }
            }
            QualityMetric::Missing => {
                self.stat(kind, "", "missing_share", share(window.missing, window.rows), None);
            }
            QualityMetric::Freshness => {
                let end = self.start.saturating_add(watch.window);
                let newest = Some(self.windows.newest).filter(|newest| *newest > EventTime::MIN);
                let age = newest.map(|newest| end.saturating_sub(newest) as f64 / 1e6);
                self.stat(kind, "", "freshness_seconds", age, None);
            }
            QualityMetric::Volume => {
                self.stat(kind, "", "volume", Some(window.rows as f64), None);
                let before = &self.windows.volumes;
                let mean = before.iter().sum::<u64>() as f64 / before.len() as f64;
                let ratio = Some(window.rows as f64 / mean).filter(|ratio| ratio.is_finite());
                self.stat(kind, "", "volume_ratio", ratio, None);
            }
            QualityMetric::Duplicates => {
                let all = window.rows + window.duplicates;
                self.stat(kind, "", "duplicate_share", share(window.duplicates, all), None);
            }
        }
    }

    fn new_categories(&mut self, column: &Column, histogram: &Histogram, reference: Option<&Reference>) {
        let Histogram::Categories(window) = histogram else { return };
        if !column.categories {
            return;
        }
        let kind = StatKind::Quality;
        let Some(Reference::Categories(known)) = reference else {
            self.stat(kind, &column.name, "new_category_share", None, None);
            return;
        };
        let mut new: Vec<(i64, &str)> = window
            .counts
            .iter()
            .filter(|(name, _)| !known.counts.contains_key(*name))
            .map(|(n, c)| (-c, &**n))
            .collect();
        new.sort_unstable();
        let count = new.iter().map(|(count, _)| -count).sum::<i64>().max(0).cast_unsigned();
        let rows = histogram.present();
        let known_rows = known.counts.values().sum::<i64>().max(0).cast_unsigned();
        // Good and Turing: what was seen once says how much was not seen.
        let once = known.counts.values().filter(|count| **count == 1).count() as u64;
        let limit = self.limit(count, rows, once, known_rows);
        let share = |count: u64| (rows > 0).then(|| count as f64 / rows as f64);
        self.stat(kind, &column.name, "new_category_share", share(count), limit);
        for (count, name) in new.into_iter().take(NAMED_MAX) {
            let subject = format!("{}={name}", column.name);
            self.stat(kind, &subject, "new_category", share((-count).max(0).cast_unsigned()), None);
        }
    }

    /// The largest share of `count` rows of `all` that `other` of `m` rows of the reference let expect, and whether it is
    /// exceeded.
    fn limit(&self, count: u64, all: u64, other: u64, m: u64) -> Option<(f64, bool)> {
        if all == 0 || m == 0 {
            return None;
        }
        let critical = fisher_critical(self.windows.watch.false_alarms, other, all, m);
        Some(((critical as f64 - 1.0) / all as f64, count >= critical))
    }

    fn stat(&mut self, kind: StatKind, subject: &str, metric: &str, value: Option<f64>, limit: Option<(f64, bool)>) {
        let end = self.start.saturating_add(self.windows.watch.window);
        self.told.push(Stat {
            kind,
            model: self.windows.watch.model.clone(),
            version: String::new(),
            route: String::new(),
            segment: String::new(),
            window_start: self.start,
            window_end: end,
            subject: subject.to_owned(),
            metric: metric.to_owned(),
            value,
            bound: None,
            rows: self.window.rows,
            threshold: limit.map(|(threshold, _)| threshold),
            alarm: limit.map(|(_, alarm)| alarm),
            revision: self.window.revision,
            as_of: end,
            complete: true,
        });
    }
}

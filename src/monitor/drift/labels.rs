//! Drift of labels: windows by the time of the prediction whose label comes later, changes, or is withdrawn.
//!
//! A change takes effect at its *due* time, the later of the prediction's and the label's, and is told at the first boundary (a
//! multiple of the monitor's `refresh`) at or after that, not before the window's end. A window is told again, as the next
//! revision, when one of its own labels changed; that a label of a window which is its reference changed is no reason.
//!
//! State: for each window the counts of labels that count, until no label of it can change any more, and the changes of boundaries to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alarm::Rule;
use super::count::{Kind, add_value};
use super::grid::Grid;
use super::histogram::{Histogram, Numeric, codec};
use super::profile::{Profile, ProfileError};
use super::reference::Reference;
use super::windows::tell::{Drift, drifts};
use super::windows::{Against, Column, SavedError, made};
use crate::base::{EventTime, Micros};
use crate::monitor::{Stat, StatKind};

/// What is watched of labels.
#[derive(Clone, Debug)]
pub struct LabelWatch {
    /// The model.
    pub model: String,
    /// The label, a numeric column.
    pub column: Column,
    /// Length of the windows.
    pub window: Micros,
    /// Boundaries are multiples of this, and windows are, too.
    pub refresh: Micros,
    /// How much later than its prediction a label may come.
    pub within: Micros,
    /// Bins of `psi`.
    pub bins: usize,
    /// Thresholds.
    pub rule: Rule,
}

impl LabelWatch {
    fn grid(&self) -> Arc<Grid> {
        match self.column.kind() {
            Kind::Numeric(grid) => grid,
            Kind::Categories | Kind::Nulls => Arc::new(Grid::fixed()),
        }
    }

    fn start_of(&self, time: EventTime) -> EventTime {
        time.div_euclid(self.window).saturating_mul(self.window)
    }

    /// The first boundary at or after a time.
    fn boundary(&self, time: EventTime) -> EventTime {
        match time.rem_euclid(self.refresh) {
            0 => time,
            past => time.saturating_add(self.refresh - past),
        }
    }

    /// The last boundary at which a window can change.
    fn complete(&self, start: EventTime) -> EventTime {
        let end = start.saturating_add(self.window);
        self.boundary(end.saturating_add(self.within).saturating_sub(1)).max(end)
    }
}

/// Changes of windows, by boundary and window.
type Changes = BTreeMap<(EventTime, EventTime), Numeric>;

/// Adds changes up on the worker that has them.
pub struct LocalLabels {
    watch: Arc<LabelWatch>,
    grid: Arc<Grid>,
    changes: Changes,
}

impl LocalLabels {
    /// Nothing yet.
    pub fn new(watch: Arc<LabelWatch>) -> LocalLabels {
        LocalLabels { grid: watch.grid(), watch, changes: Changes::new() }
    }

    /// From `due` on the label of a prediction at `time` counts (`sign` 1), or no longer counts (-1).
    pub fn change(&mut self, time: EventTime, due: EventTime, label: f64, sign: i64) {
        let start = self.watch.start_of(time);
        let boundary = self.watch.boundary(due).max(start.saturating_add(self.watch.window));
        let counts = self.changes.entry((boundary, start)).or_default();
        add_value(counts, &self.grid, label, sign);
    }

    /// What was added up since the last time, as bytes for [`LabelWindows::add`].
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.changes).into_iter().map(encode).collect()
    }
}

fn encode(((boundary, start), counts): ((EventTime, EventTime), Numeric)) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::put(&mut bytes, boundary);
    codec::put(&mut bytes, start);
    codec::write(&Histogram::Numeric(counts), &mut bytes);
    bytes
}

fn decode(reader: &mut codec::Reader<'_>) -> Option<((EventTime, EventTime), Numeric)> {
    let (boundary, start) = (reader.number()?, reader.number()?);
    match reader.histogram()? {
        Histogram::Numeric(counts) => Some(((boundary, start), counts)),
        Histogram::Categories(_) => None,
    }
}

#[derive(Clone, Debug, Default)]
struct Window {
    counts: Numeric,
    revision: u32,
}

/// The windows of a model's labels.
#[derive(Debug)]
pub struct LabelWindows {
    watch: Arc<LabelWatch>,
    windows: BTreeMap<EventTime, Window>,
    changes: Changes,
    /// The first window that had labels.
    first: Option<EventTime>,
    /// The labels of the training set that is in force.
    training: Option<Arc<Reference>>,
}

impl LabelWindows {
    /// The state before any label.
    pub fn new(watch: Arc<LabelWatch>) -> LabelWindows {
        LabelWindows { watch, windows: BTreeMap::new(), changes: Changes::new(), first: None, training: None }
    }

    /// From now on windows are held against the labels of this training set, as [`Windows::refer`](super::windows::Windows::refer).
    pub fn refer(&mut self, profile: Option<&Profile>) -> Option<ProfileError> {
        self.training = None;
        match self.watch.column.of_training(profile, self.watch.bins)? {
            Ok(reference) => {
                self.training = Some(reference);
                None
            }
            Err(error) => Some(error),
        }
    }

    /// Adds what [`LocalLabels::take`] gave; `false` when it did not.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        let Some((key, counts)) = decode(&mut codec::Reader(bytes)) else { return false };
        let all = Histogram::Numeric(self.changes.remove(&key).unwrap_or_default());
        let mut all = all;
        all.add(&Histogram::Numeric(counts));
        if let Histogram::Numeric(all) = all {
            self.changes.insert(key, all);
        }
        true
    }

    /// Tells of the windows that changed by boundaries which the watermark has passed.
    pub fn tell(&mut self, watermark: EventTime) -> Vec<Stat> {
        let mut told = Vec::new();
        while let Some(((boundary, _), _)) = self.changes.first_key_value() {
            let boundary = *boundary;
            // At the boundary itself there may be more to come.
            if watermark <= boundary && watermark < EventTime::MAX {
                break;
            }
            let mut changed = Vec::new();
            while let Some(entry) = self.changes.first_entry().filter(|entry| entry.key().0 == boundary) {
                let ((_, start), counts) = entry.remove_entry();
                // What was put right again at once is no change.
                let nothing = counts.cells.is_empty() && counts.not_finite == 0;
                let window = self.windows.entry(start).or_default();
                let mut all = Histogram::Numeric(std::mem::take(&mut window.counts));
                all.add(&Histogram::Numeric(counts));
                if let Histogram::Numeric(all) = all {
                    window.counts = all;
                }
                self.first = Some(self.first.map_or(start, |first| first.min(start)));
                if !nothing {
                    changed.push(start);
                }
            }
            for start in changed {
                self.tell_window(start, boundary, &mut told);
            }
        }
        self.forget(watermark);
        told
    }

    fn tell_window(&mut self, start: EventTime, boundary: EventTime, told: &mut Vec<Stat>) {
        let reference = self.reference(start, boundary);
        let watch = Arc::clone(&self.watch);
        let Some(window) = self.windows.get_mut(&start) else { return };
        window.revision += 1;
        let (revision, counts) = (window.revision, Histogram::Numeric(window.counts.clone()));
        for Drift { metric, value, bound, limit, rows } in
            drifts(watch.rule, &watch.column, &counts, reference.as_deref())
        {
            told.push(Stat {
                kind: StatKind::Drift,
                model: watch.model.clone(),
                version: String::new(),
                route: String::new(),
                segment: String::new(),
                window_start: start,
                window_end: start.saturating_add(watch.window),
                subject: watch.column.name.clone(),
                metric: metric.name().to_owned(),
                value,
                bound,
                rows,
                threshold: limit.map(|(threshold, _)| threshold),
                alarm: limit.map(|(_, alarm)| alarm),
                revision,
                as_of: boundary,
                complete: boundary >= watch.complete(start),
            });
        }
    }

    fn reference(&self, start: EventTime, boundary: EventTime) -> Option<Arc<Reference>> {
        let watch = &self.watch;
        let all = |from: EventTime, to: EventTime| {
            let mut all = watch.column.empty();
            self.windows.range(from..to).for_each(|(_, window)| all.add(&Histogram::Numeric(window.counts.clone())));
            made(&watch.column, &all, watch.bins)
        };
        match watch.column.against {
            Against::Nothing => None,
            Against::Given(ref reference) => Some(Arc::clone(reference)),
            Against::Training(_) => self.training.clone(),
            Against::Past(span) => {
                let from = start.saturating_sub(span);
                all(from, start).filter(|_| self.first.is_some_and(|first| first <= from))
            }
            // Labels of the span that are not known yet may still come.
            Against::Between(from, to) => {
                let known = watch.complete(to.saturating_sub(watch.window));
                all(from, to).filter(|_| start >= to && boundary >= known)
            }
        }
    }

    fn forget(&mut self, watermark: EventTime) {
        let watch = Arc::clone(&self.watch);
        let past = if let Against::Past(span) = watch.column.against { span } else { 0 };
        let kept = |start: &EventTime| match watch.column.against {
            Against::Between(from, to) if from <= *start && *start < to => true,
            _ => watch.complete(start.saturating_add(past)) >= watermark,
        };
        self.windows.retain(|start, _| kept(start));
    }

    /// All of the state, as one record.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::put(&mut bytes, self.watch.column.fingerprint().cast_signed());
        codec::put(&mut bytes, i64::from(self.first.is_some()));
        codec::put(&mut bytes, self.first.unwrap_or(0));
        codec::put(&mut bytes, self.windows.len() as i64);
        for (start, window) in &self.windows {
            // The place of the boundary holds the revision.
            bytes.extend(encode(((i64::from(window.revision), *start), window.counts.clone())));
        }
        codec::put(&mut bytes, self.changes.len() as i64);
        for (key, counts) in &self.changes {
            bytes.extend(encode((*key, counts.clone())));
        }
        bytes
    }

    /// Takes the place of all that was there.
    ///
    /// # Errors
    /// When the record is none, or labels were counted in other cells.
    pub fn import(&mut self, bytes: &[u8]) -> Result<(), SavedError> {
        let mut reader = codec::Reader(bytes);
        let model = || self.watch.model.clone();
        let print = reader.number().ok_or_else(|| SavedError::Damaged(model()))?;
        if print.cast_unsigned() != self.watch.column.fingerprint() {
            return Err(SavedError::OtherReference { model: model(), column: self.watch.column.name.clone() });
        }
        let mut read = || {
            let first = (reader.number()? != 0, reader.number()?);
            let windows = (0..reader.number()?).map(|_| {
                let ((revision, start), counts) = decode(&mut reader)?;
                Some((start, Window { counts, revision: u32::try_from(revision).ok()? }))
            });
            let windows = windows.collect::<Option<BTreeMap<_, _>>>()?;
            let changes = (0..reader.number()?).map(|_| decode(&mut reader)).collect::<Option<Changes>>()?;
            Some((first, windows, changes))
        };
        let (first, windows, changes) = read().ok_or_else(|| SavedError::Damaged(model()))?;
        self.first = first.0.then_some(first.1);
        (self.windows, self.changes) = (windows, changes);
        Ok(())
    }
}

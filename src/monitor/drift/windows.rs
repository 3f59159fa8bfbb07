//! The windows of a monitor: what their rows add up to, and what is told of them.
//!
//! Rows are counted where they are, by [`Local`], which keeps nothing for long; its parts are added up in one place by
//! [`Windows`], which tells of a window once its end is passed. Nothing here depends on how rows were cut into parts.
//!
//! Told are all windows from the first that has rows on, also those without; after [`EMPTY_MAX`] in a row without rows
//! nothing is told until there are rows again. A window's rows are complete when it is told, since sources turn away what is
//! behind the watermark; should there be more all the same, the window is told again within its own length.

mod local;
mod saved;
pub(super) mod tell;

pub use saved::SavedError;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use local::{Local, Part};

use super::alarm::Rule;
use super::count::Kind;
use super::grid::Grid;
use super::histogram::{Categories, Histogram, Numeric};
use super::profile::{Profile, ProfileError};
use super::reference::Reference;
use crate::base::{EventTime, Micros};
use crate::monitor::Stat;
use crate::plan::model::{ColumnRole, DriftMetric, QualityMetric};

/// Windows without rows that are told of in a row.
pub const EMPTY_MAX: u32 = 1000;
/// Windows before that the number of rows is compared with.
const VOLUMES: usize = 7;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The model.
    pub model: String,
    /// Length of the windows.
    pub window: Micros,
    /// The columns, in the order in which they are told of.
    pub columns: Vec<Column>,
    /// Bins of `psi`.
    pub bins: usize,
    /// Thresholds of drift, corrected for the number of columns where that is asked for.
    pub rule: Rule,
    /// How often a statistic of quality is an alarm without cause.
    pub false_alarms: f64,
    /// Statistics of quality.
    pub quality: Vec<QualityMetric>,
}

/// A column that is watched.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name in statistics.
    pub name: String,
    /// What it is to the model.
    pub role: ColumnRole,
    /// Whether its values are categories.
    pub categories: bool,
    /// Statistics of drift.
    pub metrics: Vec<DriftMetric>,
    /// What it is held against.
    pub against: Against,
}

/// What a column is held against.
#[derive(Clone, Debug)]
pub enum Against {
    /// Nothing: only missing values are counted.
    Nothing,
    /// What was read when the job started.
    Given(Arc<Reference>),
    /// The column of this name in the training set of the version that is the champion, see [`Windows::refer`].
    Training(Box<str>),
    /// The windows of so long before.
    Past(Micros),
    /// The job's own rows between two times.
    Between(EventTime, EventTime),
}

impl Column {
    /// How its values are counted.
    pub fn kind(&self) -> Kind {
        match &self.against {
            Against::Nothing => Kind::Nulls,
            Against::Given(reference) => reference.kind(),
            _ if self.categories => Kind::Categories,
            _ => Kind::Numeric(Arc::new(Grid::fixed())),
        }
    }

    /// Its reference in a training set; nothing where it is not held against one, or there is none.
    pub(super) fn of_training(
        &self,
        profile: Option<&Profile>,
        bins: usize,
    ) -> Option<Result<Arc<Reference>, ProfileError>> {
        match &self.against {
            Against::Training(name) => Some(profile?.reference(name, self.categories, bins)),
            _ => None,
        }
    }

    pub(super) fn empty(&self) -> Histogram {
        match self.kind() {
            Kind::Numeric(_) => Histogram::Numeric(Numeric::default()),
            Kind::Categories | Kind::Nulls => Histogram::Categories(Categories::default()),
        }
    }

    /// One number for how values are counted.
    pub(super) fn fingerprint(&self) -> u64 {
        match self.kind() {
            Kind::Numeric(grid) => grid.fingerprint(),
            Kind::Categories => 1,
            Kind::Nulls => 2,
        }
    }
}

impl Watch {
    /// The window that a time is in.
    pub fn start_of(&self, time: EventTime) -> EventTime {
        time.div_euclid(self.window).saturating_mul(self.window)
    }

    /// How far back windows are needed.
    fn reach(&self) -> Micros {
        let past = self.columns.iter().map(|column| match column.against {
            Against::Past(span) => span,
            _ => 0,
        });
        past.max().unwrap_or(0).max(self.window)
    }
}

/// What a window's rows add up to.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    rows: u64,
    /// Rows that lack a value of some feature.
    missing: u64,
    duplicates: u64,
    /// Time of the newest row.
    newest: EventTime,
    columns: Vec<Histogram>,
    /// How often it was told.
    revision: u32,
    /// Whether rows came since it was told.
    changed: bool,
}

/// The state of a monitor.
#[derive(Debug)]
pub struct Windows {
    watch: Arc<Watch>,
    windows: BTreeMap<EventTime, Window>,
    /// The first window that had rows.
    first: Option<EventTime>,
    /// The next window to tell.
    next: Option<EventTime>,
    /// Windows before this were needed no more.
    kept_from: EventTime,
    /// Windows without rows that were told since the last with rows.
    empty: u32,
    /// Time of the newest row of windows that were told.
    newest: EventTime,
    /// Rows of the last windows that were told.
    volumes: VecDeque<u64>,
    /// Of columns that are held against the rows between two times, those rows.
    between: BTreeMap<usize, Histogram>,
    /// References made of those rows, once complete.
    made: BTreeMap<usize, Option<Arc<Reference>>>,
    /// Of columns that are held against a training set, the one that is in force.
    training: BTreeMap<usize, Arc<Reference>>,
    /// Windows that changed since they were saved.
    unsaved: BTreeSet<EventTime>,
    /// Whether `between` did.
    unsaved_between: bool,
}

impl Windows {
    /// The state before any row.
    pub fn new(watch: Arc<Watch>) -> Windows {
        Windows {
            watch,
            windows: BTreeMap::new(),
            first: None,
            next: None,
            kept_from: EventTime::MIN,
            empty: 0,
            newest: EventTime::MIN,
            volumes: VecDeque::new(),
            between: BTreeMap::new(),
            made: BTreeMap::new(),
            training: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            unsaved_between: false,
        }
    }

    /// From now on windows are held against this training set; without one those statistics have no value. Returns what the
    /// set lacks. This is no part of the saved state: whoever knows the champion says it again after a restart.
    pub fn refer(&mut self, profile: Option<&Profile>) -> Vec<ProfileError> {
        self.training.clear();
        let mut lacking = Vec::new();
        for (index, column) in self.watch.columns.iter().enumerate() {
            let Some(found) = column.of_training(profile, self.watch.bins) else { continue };
            match found {
                Ok(reference) => drop(self.training.insert(index, reference)),
                Err(error) => lacking.push(error),
            }
        }
        lacking
    }

    /// Adds a part.
    pub fn add(&mut self, part: Part) {
        let start = part.start;
        let end = start.saturating_add(self.watch.window);
        if self.next.is_some_and(|next| start < next) && !self.windows.contains_key(&start) {
            tracing::warn!(
                model = self.watch.model,
                rows = part.rows,
                "rows of a window that was told long ago do not count"
            );
            return;
        }
        for (index, column) in self.watch.columns.iter().enumerate() {
            if let Against::Between(from, to) = column.against
                && from <= start
                && end <= to
                && let Some(histogram) = part.columns.get(index)
            {
                self.between.entry(index).or_insert_with(|| column.empty()).add(histogram);
                self.unsaved_between = true;
            }
        }
        let watch = &self.watch;
        let window = self.windows.entry(start).or_insert_with(|| Window::empty(watch));
        window.rows += part.rows;
        window.missing += part.missing;
        window.duplicates += part.duplicates;
        window.newest = window.newest.max(part.newest);
        window.changed = true;
        for (all, histogram) in window.columns.iter_mut().zip(&part.columns) {
            all.add(histogram);
        }
        self.unsaved.insert(start);
        self.first = Some(self.first.map_or(start, |first| first.min(start)));
    }

    /// Tells of the windows that the watermark has passed; at the end of finite input (`i64::MAX`) of all that have rows.
    pub fn tell(&mut self, watermark: EventTime) -> Vec<Stat> {
        let mut told = Vec::new();
        let length = self.watch.window;
        // Rows that should not have been there.
        let again: Vec<EventTime> = match self.next {
            Some(next) => self.windows.range(..next).filter(|(_, w)| w.changed).map(|(start, _)| *start).collect(),
            None => Vec::new(),
        };
        for start in again {
            self.tell_window(start, &mut told);
        }
        loop {
            let due = |start: EventTime| start.saturating_add(length) <= watermark;
            let from = self.next.unwrap_or(EventTime::MIN);
            let filled = self.windows.range(from..).next().map(|(start, _)| *start).filter(|start| due(*start));
            let next = match (self.next, filled) {
                (Some(next), Some(filled)) if self.empty < EMPTY_MAX => next.min(filled),
                (_, Some(filled)) => filled,
                // At the end of the input nothing more is missed.
                (Some(next), None) if due(next) && self.empty < EMPTY_MAX && watermark < EventTime::MAX => next,
                _ => break,
            };
            self.tell_window(next, &mut told);
            self.next = Some(next.saturating_add(length));
        }
        self.forget(watermark);
        told
    }

    fn forget(&mut self, watermark: EventTime) {
        let needed = watermark.saturating_sub(self.watch.reach()).saturating_sub(self.watch.window);
        while let Some(oldest) = self.windows.first_entry() {
            let told = self.next.is_some_and(|next| *oldest.key() < next);
            if !told || *oldest.key() >= needed {
                break;
            }
            self.unsaved.remove(oldest.key());
            self.kept_from = oldest.key().saturating_add(self.watch.window);
            oldest.remove();
        }
    }

    /// The reference of a column for a window; `None` while it is not complete.
    fn reference(&mut self, index: usize, start: EventTime) -> Option<Arc<Reference>> {
        let column = &self.watch.columns[index];
        match column.against {
            Against::Nothing => None,
            Against::Given(ref reference) => Some(Arc::clone(reference)),
            Against::Training(_) => self.training.get(&index).cloned(),
            Against::Past(span) => {
                let from = start.saturating_sub(span);
                if self.first.is_none_or(|first| first > from) {
                    return None;
                }
                let mut all = column.empty();
                for (_, window) in self.windows.range(from..start) {
                    all.add(&window.columns[index]);
                }
                made(column, &all, self.watch.bins)
            }
            Against::Between(_, to) => {
                if start < to {
                    return None;
                }
                let (between, bins) = (&self.between, self.watch.bins);
                let reference = self.made.entry(index).or_insert_with(|| made(column, between.get(&index)?, bins));
                reference.clone()
            }
        }
    }
}

pub(super) fn made(column: &Column, all: &Histogram, bins: usize) -> Option<Arc<Reference>> {
    let grid = match column.kind() {
        Kind::Numeric(grid) => Some(grid),
        _ => None,
    };
    Reference::of_windows(all, grid.as_ref(), bins).map(Arc::new)
}

impl Window {
    fn empty(watch: &Watch) -> Window {
        Window {
            rows: 0,
            missing: 0,
            duplicates: 0,
            newest: EventTime::MIN,
            columns: watch.columns.iter().map(Column::empty).collect(),
            revision: 0,
            changed: false,
        }
    }
}

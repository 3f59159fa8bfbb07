//! What was told of each group: a statistic is told again only when it has changed, as the next revision.
//!
//! **State:** for each group of a window that may still change, what each statistic was told as; for found cards, those of
//! windows that others still look back to. **A checkpoint** holds the groups that were told of since the one before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::items::{By, Group, Name, Outcome, Value};
use crate::base::{EventTime, hash_bytes, slot_of};
use crate::monitor::stat::{Stat, StatKind};
use crate::monitor::windows::Windows;
use crate::plan::model::{CardPlan, Metric};

/// Stands for the values of a segment beyond those that are told apart.
pub const OTHER: &str = "(other)";

/// Why saved statistics cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("saved slot {slot} of told statistics cannot be read: {what}; restore from an older checkpoint")]
pub struct ToldError {
    /// The slot.
    pub slot: u16,
    /// What is wrong with the bytes.
    pub what: String,
}

/// A change that came out of the graph: group, value of its segment, outcome, boundary, difference.
pub type Changed = (Group, Name, Outcome, EventTime, i64);

/// The key slot of an outcome: where what was told of its group is kept.
pub fn slot(group: &Group, outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Values(_) => slot_of_group(group),
        Outcome::Cards(_) => slot_of_cards(&group.version),
    }
}

fn slot_of_group(group: &Group) -> u16 {
    let Group { window, version, segment } = group;
    slot_of(hash_bytes(format!("{window} {segment} {}", version.0).as_bytes())) as u16
}

fn slot_of_cards(version: &Name) -> u16 {
    slot_of(hash_bytes(format!("cards {}", version.0).as_bytes())) as u16
}

/// A statistic as it was told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    value: Value,
    revision: u32,
    complete: bool,
}

/// What is told of a statistic, whichever its number.
type Subject = (Metric, Option<(u16, u16)>);

/// Cards of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cards {
    /// Those with the highest scores; they come out of the graph again after a restart.
    #[serde(skip)]
    first: Vec<(By, bool)>,
    found: BTreeSet<By>,
    /// What was found changes no more.
    complete: bool,
    last: Option<Last>,
}

/// An entry of the saved state.
#[derive(Serialize, Deserialize)]
enum Saved {
    Group(Group, Name, Vec<Last>),
    Cards(Name, EventTime, Cards),
}

/// Names that rows are told under.
#[derive(Clone, Debug)]
pub struct Titles {
    /// The model.
    pub model: String,
    /// Segment columns.
    pub segments: Vec<String>,
}

/// Holds what comes out of the graph against what was told.
#[derive(Debug)]
pub struct Told {
    windows: Windows,
    titles: Titles,
    card: Option<CardPlan>,
    groups: BTreeMap<(Group, Name), BTreeMap<Subject, Last>>,
    cards: BTreeMap<Name, BTreeMap<EventTime, Cards>>,
    dirty: BTreeSet<(Group, Name)>,
    dirty_cards: BTreeSet<(Name, EventTime)>,
    passed: EventTime,
}

impl Told {
    /// Nothing was told.
    pub fn new(windows: Windows, titles: Titles, card: Option<CardPlan>) -> Told {
        Told {
            windows,
            titles,
            card,
            groups: BTreeMap::new(),
            cards: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_cards: BTreeSet::new(),
            passed: EventTime::MIN,
        }
    }

    /// Takes in what changed at boundaries that the watermark has passed now, and returns what is to be told, boundary by
    /// boundary.
    pub fn apply(&mut self, changes: Vec<Changed>, watermark: EventTime) -> Vec<Stat> {
        self.passed = self.passed.max(self.windows.passed(watermark));
        let mut by_boundary: BTreeMap<EventTime, BTreeMap<(Group, Name, bool), Option<Outcome>>> = BTreeMap::new();
        for (group, name, outcome, boundary, diff) in changes {
            let is_cards = matches!(outcome, Outcome::Cards(_));
            let entry = by_boundary.entry(boundary).or_default().entry((group, name, is_cards)).or_default();
            if diff > 0 {
                *entry = Some(outcome);
            }
        }
        // The boundaries at which windows become complete are to be told, too, whether anything changes then or not.
        let known = self.groups.keys().map(|(group, _)| group.window);
        let known = known.chain(self.cards.values().flatten().filter(|(_, c)| !c.complete).map(|(window, _)| *window));
        let new = by_boundary.values().flat_map(BTreeMap::keys).map(|(group, ..)| group.window);
        let ends: BTreeSet<EventTime> = known.chain(new).map(|window| self.windows.complete(window)).collect();
        let ends = ends.into_iter().filter(|boundary| *boundary <= self.passed);
        let boundaries: BTreeSet<EventTime> = by_boundary.keys().copied().chain(ends).collect();
        let mut stats = Vec::new();
        for boundary in boundaries {
            let mut versions = BTreeSet::new();
            for ((group, name, is_cards), outcome) in by_boundary.remove(&boundary).unwrap_or_default() {
                // What is let go of after its last boundary has been told.
                if self.windows.complete(group.window) < boundary {
                    continue;
                }
                match outcome {
                    Some(Outcome::Cards(first)) => {
                        let windows = self.cards.entry(group.version.clone()).or_default();
                        windows.entry(group.window).or_default().first = first;
                    }
                    None if is_cards => {
                        let windows = self.cards.entry(group.version.clone()).or_default();
                        windows.entry(group.window).or_default().first.clear();
                    }
                    Some(Outcome::Values(values)) => self.tell(group.clone(), name, values, boundary, &mut stats),
                    None => self.tell(group.clone(), name, Vec::new(), boundary, &mut stats),
                }
                if is_cards {
                    versions.insert(group.version);
                }
            }
            self.finish(boundary, &mut versions, &mut stats);
        }
        stats
    }

    /// Values of a group that has none of those told before count as nothing or have no value.
    fn tell(&mut self, group: Group, name: Name, values: Vec<Value>, boundary: EventTime, stats: &mut Vec<Stat>) {
        let complete = self.windows.complete(group.window) <= boundary;
        let key = (group, name);
        let known = self.groups.entry(key.clone()).or_default();
        let mut values: BTreeMap<Subject, Value> = values.into_iter().map(|v| ((v.metric, v.subject), v)).collect();
        for subject in known.keys() {
            values.entry(*subject).or_insert_with(|| nothing(*subject));
        }
        let before = stats.len();
        for (subject, value) in values {
            let last = known.get(&subject);
            if last.is_some_and(|last| last.value == value && (last.complete || !complete)) {
                continue;
            }
            let revision = last.map_or(0, |last| last.revision) + 1;
            stats.push(stat(&self.windows, &self.titles, (&key.0, &key.1), &value, (revision, boundary, complete)));
            known.insert(subject, Last { value, revision, complete });
        }
        if stats.len() > before {
            self.dirty.insert(key);
        }
    }

    /// Tells of windows that are complete at a boundary, and of cards.
    fn finish(&mut self, boundary: EventTime, versions: &mut BTreeSet<Name>, stats: &mut Vec<Stat>) {
        let lengths = self.windows;
        let ended = |window: EventTime| lengths.complete(window) == boundary;
        let groups: Vec<(Group, Name)> = self.groups.keys().filter(|(group, _)| ended(group.window)).cloned().collect();
        for key in groups {
            let values = self.groups.get(&key).into_iter().flatten().map(|(_, last)| last.value.clone()).collect();
            self.tell(key.0.clone(), key.1.clone(), values, boundary, stats);
            self.groups.remove(&key);
            self.dirty.remove(&key);
        }
        let Some(card) = self.card.clone() else { return };
        let complete = |window: &EventTime, cards: &Cards| !cards.complete && ended(*window);
        for (version, windows) in &self.cards {
            if windows.iter().any(|(window, cards)| complete(window, cards)) {
                versions.insert(version.clone());
            }
        }
        for version in versions.iter() {
            self.cards(version, &card, boundary, stats);
        }
    }

    /// Walks a version's windows: a card that was found in one is left out of those that begin within `exclude` after it.
    fn cards(&mut self, version: &Name, card: &CardPlan, boundary: EventTime, stats: &mut Vec<Stat>) {
        let Some(windows) = self.cards.get_mut(version) else { return };
        let starts: Vec<EventTime> = windows.keys().copied().collect();
        for start in starts {
            let back = windows.range(start.saturating_sub(card.exclude)..start);
            let left_out: BTreeSet<By> = back.flat_map(|(_, cards)| cards.found.iter().cloned()).collect();
            let Some(cards) = windows.get_mut(&start).filter(|cards| !cards.complete) else { continue };
            let looked_at: Vec<&(By, bool)> =
                cards.first.iter().filter(|(by, _)| !left_out.contains(by)).take(card.k).collect();
            let found: BTreeSet<By> = looked_at.iter().filter(|card| card.1).map(|card| card.0.clone()).collect();
            let precision = found.len() as f64 / card.k as f64;
            let value = Value {
                metric: Metric::CardPrecision,
                subject: None,
                value: (!cards.first.is_empty()).then(|| precision.to_bits()),
                bound: None,
                rows: looked_at.len() as u64,
            };
            let complete = self.windows.complete(start) <= boundary;
            (cards.found, cards.complete) = (found, complete);
            let last = cards.last.as_ref();
            if last.is_none_or(|last| last.value != value || complete && !last.complete) {
                let revision = last.map_or(0, |last| last.revision) + 1;
                let group = Group { window: start, version: version.clone(), segment: 0 };
                let told = (revision, boundary, complete);
                stats.push(stat(&self.windows, &self.titles, (&group, &Name::of("")), &value, told));
                cards.last = Some(Last { value, revision, complete });
                self.dirty_cards.insert((version.clone(), start));
            }
            if complete {
                cards.first = Vec::new();
            }
        }
        // Later windows that look back to it are complete, too.
        let kept = |start: &EventTime| self.windows.complete(*start).saturating_add(card.exclude) > boundary;
        windows.retain(|start, cards| !cards.complete || kept(start));
        self.dirty_cards.retain(|(of, start)| of != version || windows.contains_key(start));
    }

    /// What was told since the last freeze, or with `whole` all of it, by key slot.
    pub fn freeze(&mut self, whole: bool) -> Vec<(u16, Vec<u8>)> {
        let (dirty, dirty_cards) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.dirty_cards));
        let mut slots: BTreeMap<u16, Vec<Saved>> = BTreeMap::new();
        for (key, known) in self.groups.iter().filter(|(key, _)| whole || dirty.contains(*key)) {
            let saved = Saved::Group(key.0.clone(), key.1.clone(), known.values().cloned().collect());
            slots.entry(slot_of_group(&key.0)).or_default().push(saved);
        }
        for (version, windows) in &self.cards {
            let wanted = |start: EventTime| whole || dirty_cards.contains(&(version.clone(), start));
            for (start, cards) in windows.iter().filter(|(start, _)| wanted(**start)) {
                let saved = Saved::Cards(version.clone(), *start, cards.clone());
                slots.entry(slot_of_cards(version)).or_default().push(saved);
            }
        }
        let bytes = |saved: Vec<Saved>| serde_json::to_vec(&saved).expect("what was told is plain data");
        slots.into_iter().map(|(slot, saved)| (slot, bytes(saved))).collect()
    }

    /// Takes in a slot's bytes: those of the last whole freeze first, then those that came after it, in their order.
    /// [`Told::restored`] must follow the last.
    ///
    /// # Errors
    /// When the bytes are not what was written.
    pub fn import(&mut self, slot: u16, bytes: &[u8]) -> Result<(), ToldError> {
        let saved: Vec<Saved> =
            serde_json::from_slice(bytes).map_err(|error| ToldError { slot, what: error.to_string() })?;
        for saved in saved {
            match saved {
                Saved::Group(group, name, told) => {
                    let told = told.into_iter().map(|last| ((last.value.metric, last.value.subject), last));
                    self.groups.insert((group, name), told.collect());
                }
                Saved::Cards(version, start, cards) => {
                    self.cards.entry(version).or_default().insert(start, cards);
                }
            }
        }
        Ok(())
    }

    /// All is imported, as it was at this watermark.
    pub fn restored(&mut self, watermark: EventTime) {
        self.passed = self.windows.passed(watermark);
        let (windows, passed) = (self.windows, self.passed);
        self.groups.retain(|(group, _), _| windows.complete(group.window) > passed);
        let exclude = self.card.as_ref().map_or(0, |card| card.exclude);
        for of in self.cards.values_mut() {
            of.retain(|start, _| windows.complete(*start).saturating_add(exclude) > passed);
        }
    }

    /// Groups of which something was told and may change.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// A statistic of which nothing is left.
fn nothing((metric, subject): Subject) -> Value {
    use Metric::*;
    let counts = matches!(metric, Confusion | Predictions | Unmatched | LabelsLate | LabelsOrphan | LabelsInvalid);
    Value { metric, subject, value: counts.then(|| 0f64.to_bits()), bound: None, rows: 0 }
}

fn stat(
    windows: &Windows,
    titles: &Titles,
    (group, name): (&Group, &Name),
    value: &Value,
    (revision, boundary, complete): (u32, EventTime, bool),
) -> Stat {
    let segment = usize::from(group.segment).checked_sub(1).and_then(|segment| titles.segments.get(segment));
    Stat {
        kind: StatKind::Accuracy,
        model: titles.model.clone(),
        version: group.version.0.to_string(),
        route: String::new(),
        segment: segment.map_or(String::new(), |column| format!("{column}={}", name.0)),
        window_start: group.window,
        window_end: windows.end(group.window),
        subject: value
            .subject
            .map_or(String::new(), |(truth, predicted)| format!("true={truth} predicted={predicted}")),
        metric: value.metric.name().to_owned(),
        value: value.value.map(f64::from_bits),
        bound: value.bound.map(f64::from_bits),
        rows: value.rows,
        threshold: None,
        alarm: None,
        revision,
        as_of: boundary,
        complete,
    }
}

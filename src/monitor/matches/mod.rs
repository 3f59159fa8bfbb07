//! Predictions and the labels that come for them, by id: late, corrected, withdrawn, early, or twice.
//!
//! At event time `t` a prediction counts with the value of the latest label row, by `(_time, _ord)`, of its id that has come
//! by `t` and is at most `within` away from it; a row without a value withdraws the label. What changes is *due* at the
//! later of the prediction's and the label row's time: a change is told as `-1` of the old and `+1` of the new at the new
//! due time. The same label again changes nothing. Predictions that share an id have the same labels; one that comes after
//! the window of the prediction that took a label is complete does not find that label.
//!
//! **Input order.** In event-time order: no row of a call is before the watermark of the call before; then what is told
//! depends on no cut. In order of arrival a label row that is older than one already seen for the id is passed over.
//! **State:** a prediction stays until its window can change no more, [`Windows::complete`]: its label may be corrected, and
//! a restart tells the statistics' graph of all rows of windows that are still open. A label that has found no prediction
//! waits `within` for one and is then an *orphan*; it is counted in the window of its own time. One that comes after `within`
//! is *late*, for as long as its prediction is there. **A checkpoint** holds what changed since the one before, by slot.

mod index;
mod lines;
mod saved;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::buffer::NullBuffer;
use hashbrown::HashMap;

pub use self::saved::MatchesFrozen;
pub use self::store::{GroupOf, Key, Kind, Names, Widths};

use self::index::Index;
use self::store::{Address, LABEL, Numbered, Texts, Waiting, Window, address, flag, place};
use super::windows::Windows;
use crate::base::{EventTime, hash_bytes, prefetch, want_large_pages};
use crate::ops::key::{self, KeyError};

/// How many ids ahead of the present one the index is asked for, and how many ahead the row that it leads to: one after the
/// other each would be waited for.
const AHEAD: [usize; 2] = [32, 16];

/// Why saved rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("saved slot {slot} of predictions and labels cannot be read: {what}; restore from an older checkpoint")]
pub struct MatchesError {
    /// The slot.
    pub slot: u16,
    /// What is wrong with the bytes.
    pub what: String,
}

/// The ids of a column, by which predictions and labels find each other.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    nulls: Option<NullBuffer>,
}

impl Keys {
    /// The ids of a column. Integers of any width and sign that are equal are one id; all else is compared by its bytes,
    /// of which 128 bits of hash are kept.
    ///
    /// # Errors
    /// When a column of this type cannot be an id.
    pub fn of(ids: &ArrayRef) -> Result<Keys, KeyError> {
        let column = std::slice::from_ref(ids);
        let mut hashes = Vec::with_capacity(ids.len());
        key::hashes(column, &mut hashes)?;
        let join = |(hash, low): (&u64, u64)| Key::from(*hash) << 64 | Key::from(low);
        let keys = if key::is_word(&[ids.data_type().clone()]) {
            let mut words = Vec::with_capacity(ids.len());
            key::words(ids, &mut words);
            hashes.iter().zip(words).map(join).collect()
        } else {
            let bytes = key::encode(column)?;
            // Reversed bytes: the second half must not follow from the first.
            let other = |bytes: &[u8]| hash_bytes(&bytes.iter().rev().copied().chain([0xa5]).collect::<Vec<u8>>());
            hashes.iter().zip(bytes.iter().map(other)).map(join).collect()
        };
        Ok(Keys { keys, nulls: ids.logical_nulls() })
    }

    /// Whether a row has an id.
    #[inline(always)]
    fn has(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }
}

/// Predictions in the order of `(_time, _ord)`.
#[derive(Debug)]
pub struct Predictions<'a> {
    /// Event times.
    pub times: &'a [EventTime],
    /// Positions.
    pub ords: &'a [u64],
    /// Ids.
    pub ids: Keys,
    /// Numbers in [`Matches::names`].
    pub versions: Vec<u32>,
    /// Outputs, row after row.
    pub scores: Vec<f64>,
    /// Numbers in [`Matches::names`], row after row.
    pub segments: Vec<u32>,
    /// Values of the column by which rows are grouped.
    pub groups: Groups,
}

/// Values of the column by which rows are grouped; a null is 0, or an empty text.
#[derive(Debug)]
pub enum Groups {
    /// There is no such column.
    None,
    /// Whole numbers.
    Numbers(Vec<i64>),
    /// Texts.
    Texts(StringArray),
}

/// Labels in the order of `(_time, _ord)`.
#[derive(Debug)]
pub struct Labels<'a> {
    /// Event times.
    pub times: &'a [EventTime],
    /// Positions.
    pub ords: &'a [u64],
    /// Ids.
    pub ids: Keys,
    /// Values; none withdraws.
    pub values: Vec<Option<f64>>,
}

/// A prediction as those see it who are told of a change; of an orphaned label its time, position and window only.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Event time.
    pub time: EventTime,
    /// Position.
    pub ord: u64,
    /// Start of its window.
    pub window: EventTime,
    /// Number of its version's name.
    pub version: u32,
    /// Outputs.
    pub scores: &'a [f64],
    /// Numbers of the segments' values.
    pub segments: &'a [u32],
    /// Value of the column by which it is grouped.
    pub group: GroupOf<'a>,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// There is a prediction.
    Predicted,
    /// It counts with this label; whether it never counted before.
    Labelled(f64, bool),
    /// A label came too late for it.
    Late,
    /// No prediction has come for a label.
    Orphan,
}

/// Who is told.
pub trait Sink {
    /// A change of a row at event time `due`: `+1` from then on it holds, `-1` no longer.
    fn change(&mut self, row: Row<'_>, change: Change, due: EventTime, diff: i64);
}

impl<F: FnMut(Row<'_>, Change, EventTime, i64)> Sink for F {
    fn change(&mut self, row: Row<'_>, change: Change, due: EventTime, diff: i64) {
        self(row, change, due, diff);
    }
}

/// A label row.
#[derive(Clone, Copy, Debug)]
struct Known {
    time: EventTime,
    ord: u64,
    value: Option<f64>,
}

impl Known {
    fn order(&self) -> (EventTime, u64) {
        (self.time, self.ord)
    }
}

/// The core of the match operator.
#[derive(Debug)]
pub struct Matches {
    windows: Windows,
    widths: Widths,
    /// Texts by which rows are grouped.
    texts: Texts,
    names: Names,
    all: Numbered,
    by_start: BTreeMap<EventTime, usize>,
    /// Start and number of the window that was asked for last.
    recent: Option<(EventTime, usize)>,
    index: Index,
    /// Labels without a prediction in the order in which they are given up.
    waiting: VecDeque<(EventTime, u64, Address)>,
    /// Labels that a prediction had before, while they are still to be told: when each was due, the oldest first.
    earlier: HashMap<Address, Vec<(EventTime, Option<f64>)>>,
    /// When the first label came that was too late.
    late: HashMap<Address, EventTime>,
    /// What has changed since the last freeze, where that is asked for.
    dirty: Option<Vec<Address>>,
    watermark: EventTime,
    /// The last boundary that the watermark has passed.
    passed: EventTime,
    rows: usize,
    found: Vec<Address>,
}

impl Matches {
    /// No predictions, no labels. With `tracked`, changes are noted for checkpoints that hold what is new.
    pub fn new(windows: Windows, widths: Widths, tracked: bool) -> Matches {
        let mut names = Names::default();
        // What has no name has number 0.
        names.number("");
        Matches {
            windows,
            widths,
            texts: Texts::default(),
            names,
            all: Numbered::default(),
            by_start: BTreeMap::new(),
            recent: None,
            index: Index::new(),
            waiting: VecDeque::new(),
            earlier: HashMap::new(),
            late: HashMap::new(),
            dirty: tracked.then(Vec::new),
            watermark: EventTime::MIN,
            passed: EventTime::MIN,
            rows: 0,
            found: Vec::new(),
        }
    }

    /// Texts by number.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The number of a text.
    pub fn name(&mut self, text: &str) -> u32 {
        self.names.number(text)
    }

    /// Predictions kept.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Labels that wait for a prediction.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that rows and index take.
    pub fn memory_bytes(&self) -> usize {
        let rows: usize = self.all.iter().map(Window::memory_bytes).sum();
        rows + self.index.memory_bytes()
            + self.waiting.capacity() * size_of::<(EventTime, u64, Address)>()
            + self.earlier.allocation_size()
            + self.late.allocation_size()
            + self.texts.memory_bytes()
            + self.dirty.as_ref().map_or(0, |dirty| dirty.capacity() * size_of::<Address>())
    }

    /// Takes in predictions and labels in the order of their times, and tells of what changes.
    pub fn apply(&mut self, predictions: Option<&Predictions>, labels: Option<&Labels>, sink: &mut impl Sink) {
        let (mut p, mut l) = (0, 0);
        loop {
            let prediction = predictions.and_then(|rows| rows.times.get(p));
            let label = labels.and_then(|rows| rows.times.get(l));
            match (prediction, label, predictions, labels) {
                // What is known at a time is known to the predictions of that time.
                (time, Some(known), _, Some(rows)) if time.is_none_or(|time| known <= time) => {
                    self.ask_ahead(&rows.ids.keys, l);
                    if rows.ids.has(l) {
                        let value = rows.values[l].filter(|value| !value.is_nan());
                        self.label(rows.ids.keys[l], Known { time: *known, ord: rows.ords[l], value }, sink);
                    }
                    l += 1;
                }
                (Some(_), _, Some(rows), _) => {
                    if let Some(key) = rows.ids.keys.get(p + AHEAD[0]) {
                        self.index.prefetch(*key);
                    }
                    self.predict(rows, p, sink);
                    p += 1;
                }
                _ => break,
            }
        }
    }

    /// Asks for what the labels that come next will need.
    #[inline(always)]
    fn ask_ahead(&self, keys: &[Key], from: usize) {
        if let Some(key) = keys.get(from + AHEAD[0]) {
            self.index.prefetch(*key);
        }
        let Some(at) = keys.get(from + AHEAD[1]).and_then(|key| self.index.guess(*key)) else { return };
        let (number, row) = place(at);
        let Some(window) = self.all.get(number).filter(|_| at & LABEL == 0) else { return };
        let (p, widths) = (&window.predictions, &self.widths);
        // A row may lie across two lines.
        let waiting = p.rows.as_ptr().wrapping_add(row);
        prefetch(waiting);
        prefetch(waiting.cast::<u8>().wrapping_add(size_of::<Waiting>() - 1));
        prefetch(p.scores.as_ptr().wrapping_add(row * widths.scores));
        if widths.segments > 0 {
            prefetch(p.segments.as_ptr().wrapping_add(row * widths.segments));
        }
        if widths.group.is_some() {
            prefetch(p.groups.as_ptr().wrapping_add(row));
        }
    }

    /// Nothing before the watermark comes any more: labels are given up, and windows that can change no more are let go
    /// of. Of their rows the sink is told at the boundary after their last, so that sums are left without them.
    pub fn advance(&mut self, watermark: EventTime, sink: &mut impl Sink) {
        self.watermark = self.watermark.max(watermark);
        self.passed = self.windows.passed(self.watermark);
        let within = self.windows.within;
        while let Some((time, _, at)) = self.waiting.front().copied()
            && time.saturating_add(within) < self.watermark
        {
            self.waiting.pop_front();
            let (number, row) = place(at);
            let Some(window) = self.all.get(number) else { continue };
            let flags = window.labels.flags[row];
            if flags & flag::DEAD == 0 {
                if flags & flag::LATE == 0 {
                    sink.change(orphan(window, row), Change::Orphan, time.saturating_add(within), 1);
                }
                self.index.remove(window.labels.keys[row], at);
            }
        }
        while let Some((start, number)) = self.by_start.first_key_value().map(|(start, number)| (*start, *number))
            && self.windows.complete(start) <= self.passed
        {
            self.by_start.remove(&start);
            if self.watermark < EventTime::MAX {
                let after = self.windows.complete(start).saturating_add(1);
                self.tell(number, EventTime::MAX, &mut |row: Row<'_>, change, _, diff: i64| {
                    sink.change(row, change, after, -diff);
                });
            }
            self.forget(number);
        }
        for window in self.all.iter_mut() {
            if !window.settled && self.windows.end(window.start) < self.watermark {
                window.settle();
            }
        }
    }

    /// Tells of all rows as if they came now: what holds, and what has held of it when it was due. A change that is due at
    /// or before the last boundary passed is part of what was told by then.
    pub fn replay(&self, sink: &mut impl Sink) {
        for number in self.by_start.values() {
            self.tell(*number, self.watermark, sink);
        }
    }

    /// All changes of a window's rows; orphans are those labels that were given up before `watermark`.
    fn tell(&self, number: usize, watermark: EventTime, sink: &mut impl Sink) {
        let Some(window) = self.all.get(number) else { return };
        for row in 0..window.predictions.rows.len() {
            let (at, seen) = (address(number, row), self.prediction(window, row));
            let p = &window.predictions;
            let flags = p.rows[row].flags;
            sink.change(seen, Change::Predicted, seen.time, 1);
            if flags & flag::LATE != 0
                && let Some(due) = self.late.get(&at)
            {
                sink.change(seen, Change::Late, *due, 1);
            }
            let mut held: Option<f64> = None;
            let present = (p.rows[row].label_time, (flags & flag::COUNTS != 0).then_some(p.rows[row].label));
            let past = self.earlier.get(&at).filter(|_| flags & flag::EARLIER != 0);
            let present = Some(present).filter(|_| flags & flag::SEEN != 0);
            for (due, value) in past.into_iter().flatten().copied().chain(present) {
                let due = due.max(seen.time);
                if value.map(f64::to_bits) != held.map(f64::to_bits) {
                    if let Some(old) = held {
                        sink.change(seen, Change::Labelled(old, false), due, -1);
                    }
                    if let Some(new) = value {
                        sink.change(seen, Change::Labelled(new, false), due, 1);
                    }
                }
                held = value;
            }
        }
        for (row, flags) in window.labels.flags.iter().enumerate() {
            let given_up = window.labels.times[row].saturating_add(self.windows.within);
            if flags & (flag::DEAD | flag::LATE) == 0 && given_up < watermark {
                sink.change(orphan(window, row), Change::Orphan, given_up, 1);
            }
        }
    }

    fn prediction<'a>(&'a self, window: &'a Window, row: usize) -> Row<'a> {
        seen(window, row, &self.widths, &self.texts)
    }

    /// Drops a window. What leads to it leads nowhere from then on.
    fn forget(&mut self, number: usize) {
        let Some(window) = self.all.take(number) else { return };
        self.recent = None;
        self.rows -= window.predictions.rows.len();
        if !(self.earlier.is_empty() && self.late.is_empty()) {
            for (row, Waiting { flags, .. }) in window.predictions.rows.iter().enumerate() {
                if flags & flag::EARLIER != 0 {
                    self.earlier.remove(&address(number, row));
                }
                if flags & flag::LATE != 0 {
                    self.late.remove(&address(number, row));
                }
            }
        }
        if self.widths.group == Some(Kind::Text) {
            window.predictions.groups.iter().for_each(|text| self.texts.release(*text));
        }
        // Its labels were given up before, and nothing leads to them.
        if let Some(dirty) = &mut self.dirty {
            dirty.retain(|at| place(*at).0 != number);
        }
    }

    /// The number of the window that a time is in.
    #[inline]
    fn window(&mut self, time: EventTime) -> usize {
        match self.recent {
            Some((start, number)) if time >= start && time < self.windows.end(start) => number,
            _ => self.find_window(time),
        }
    }

    fn find_window(&mut self, time: EventTime) -> usize {
        let start = self.windows.start(time);
        let number = match self.by_start.get(&start) {
            Some(number) => *number,
            None => {
                let number = self.all.push(Window::new(start, self.windows.complete(start)));
                self.by_start.insert(start, number);
                number
            }
        };
        self.recent = Some((start, number));
        number
    }

    /// Where the rows of an id are, into `found`.
    fn find(&mut self, key: Key) {
        let (all, found) = (&self.all, &mut self.found);
        found.clear();
        self.index.each(key, |at| {
            if all.key_at(at) == Some(key) {
                found.push(at);
            }
        });
        // Several rows of one id are told of in the order of their places, not of a table's.
        found.sort_unstable();
    }

    /// Where the row of an id is, if it has one, and whether it has more.
    #[inline(always)]
    fn find_one(&self, key: Key) -> (Option<Address>, bool) {
        let (mut one, mut more) = (None, false);
        self.index.each(key, |at| {
            if self.all.key_at(at) == Some(key) {
                more = one.is_some();
                one = Some(at);
            }
        });
        (one, more)
    }

    #[inline(always)]
    fn insert(&mut self, key: Key, at: Address) {
        let all = &self.all;
        self.index.insert(key, at, |at| all.get(place(at).0).is_some());
    }

    #[inline(always)]
    fn touch(&mut self, at: Address) {
        if self.dirty.is_some() {
            self.note(at);
        }
    }

    fn note(&mut self, at: Address) {
        let Some(dirty) = &mut self.dirty else { return };
        let (number, row) = place(at);
        let Some(window) = self.all.get_mut(number) else { return };
        let flags =
            if at & LABEL == 0 { &mut window.predictions.rows[row].flags } else { &mut window.labels.flags[row] };
        if *flags & flag::DIRTY == 0 {
            *flags |= flag::DIRTY;
            dirty.push(at);
        }
    }

    /// A prediction that comes: with the latest label that is there for its id.
    #[inline(always)]
    fn predict(&mut self, rows: &Predictions, i: usize, sink: &mut impl Sink) {
        let (time, key, widths) = (rows.times[i], rows.ids.keys[i], self.widths);
        let number = self.window(time);
        let has_id = rows.ids.has(i);
        let (mut known, mut from) = (None::<Known>, None);
        if has_id && self.find_one(key).0.is_some() {
            self.find(key);
            for at in &self.found {
                let Some(label) = self.label_at(*at, time) else { continue };
                if label.time.abs_diff(time) <= self.windows.within.unsigned_abs()
                    && known.is_none_or(|known| known.order() < label.order())
                {
                    known = Some(label);
                    from = Some(*at).filter(|at| at & LABEL != 0);
                }
            }
        }
        let Some(window) = self.all.get_mut(number) else { return };
        let p = &mut window.predictions;
        let row = p.rows.len();
        let at = address(number, row);
        p.scores.extend(rows.scores[i * widths.scores..(i + 1) * widths.scores].iter().copied());
        p.segments.extend(rows.segments[i * widths.segments..(i + 1) * widths.segments].iter().copied());
        match &rows.groups {
            Groups::None => {}
            Groups::Numbers(numbers) => p.groups.push(numbers[i]),
            Groups::Texts(texts) => p.groups.push(self.texts.take(if texts.is_valid(i) { texts.value(i) } else { "" })),
        }
        let mut flags = if has_id { 0 } else { flag::NO_ID };
        if let Some(known) = known {
            flags |= flag::SEEN | if known.value.is_some() { flag::COUNTS | flag::COUNTED } else { 0 };
        }
        if row == p.rows.capacity() {
            p.rows.reserve(1);
            want_large_pages(&p.rows);
        }
        p.rows.push(Waiting {
            key,
            time,
            ord: rows.ords[i],
            label: known.and_then(|known| known.value).unwrap_or_default(),
            label_time: known.map_or(0, |known| known.time),
            label_ord: known.map_or(0, |known| known.ord),
            version: rows.versions[i],
            flags,
        });
        self.rows += 1;
        if has_id {
            self.insert(key, at);
        }
        self.touch(at);
        if let Some(lone) = from {
            self.bury(lone);
        }
        let Some(window) = self.all.get(number) else { return };
        let seen = seen(window, row, &self.widths, &self.texts);
        sink.change(seen, Change::Predicted, time, 1);
        if let Some(Known { time: label_time, value: Some(value), .. }) = known {
            sink.change(seen, Change::Labelled(value, true), time.max(label_time), 1);
        }
    }

    /// The label that a place knows of at a time.
    fn label_at(&self, at: Address, time: EventTime) -> Option<Known> {
        let (number, row) = place(at);
        let window = self.all.get(number)?;
        if at & LABEL == 0 {
            let p = &window.predictions;
            let flags = p.rows[row].flags;
            let value = (flags & flag::COUNTS != 0).then_some(p.rows[row].label);
            let known = Known { time: p.rows[row].label_time, ord: p.rows[row].label_ord, value };
            return (flags & flag::SEEN != 0 && time <= window.complete).then_some(known);
        }
        let l = &window.labels;
        let value = (l.flags[row] & flag::COUNTS != 0).then_some(l.values[row]);
        let known = Known { time: l.times[row], ord: l.ords[row], value };
        (time <= known.time.saturating_add(self.windows.within)).then_some(known)
    }

    /// A label without a prediction is one no more.
    fn bury(&mut self, at: Address) {
        let (number, row) = place(at);
        let Some(window) = self.all.get_mut(number) else { return };
        window.labels.flags[row] |= flag::DEAD;
        self.index.remove(window.labels.keys[row], at);
        self.touch(at);
    }

    /// A label row that comes.
    #[inline(always)]
    fn label(&mut self, key: Key, label: Known, sink: &mut impl Sink) {
        match self.find_one(key) {
            (None, _) => self.keep(key, label, false),
            // As it mostly is: for one prediction, in time.
            (Some(at), false) if at & LABEL == 0 && self.is_in_time(at, label.time) => self.set(at, label, sink),
            _ => self.label_of_several(key, label, sink),
        }
    }

    /// Whether a label of a time counts for a prediction.
    #[inline(always)]
    fn is_in_time(&self, at: Address, time: EventTime) -> bool {
        let (number, row) = place(at);
        self.all.get(number).is_some_and(|window| {
            let away = time.saturating_sub(window.predictions.rows[row].time);
            time <= window.complete && (-self.windows.within..=self.windows.within).contains(&away)
        })
    }

    fn label_of_several(&mut self, key: Key, label: Known, sink: &mut impl Sink) {
        self.find(key);
        let found = std::mem::take(&mut self.found);
        let (mut met, mut late) = (false, false);
        for at in found.iter().copied().filter(|at| at & LABEL == 0) {
            let (number, row) = place(at);
            let Some(window) = self.all.get(number).filter(|window| label.time <= window.complete) else {
                continue;
            };
            let time = window.predictions.rows[row].time;
            if label.time.saturating_sub(time) > self.windows.within {
                late = true;
                self.came_late(at, label.time, sink);
            } else if time.saturating_sub(label.time) <= self.windows.within {
                met = true;
                self.set(at, label, sink);
            }
        }
        for at in found.iter().copied().filter(|at| at & LABEL != 0) {
            match self.label_at(at, label.time) {
                Some(known) if known.order() > label.order() => met = true,
                // The later row stands for both, here or with a prediction.
                Some(_) => self.bury(at),
                None => {}
            }
        }
        self.found = found;
        if !met {
            self.keep(key, label, late);
        }
    }

    fn came_late(&mut self, at: Address, due: EventTime, sink: &mut impl Sink) {
        let (number, row) = place(at);
        let Some(window) = self.all.get_mut(number) else { return };
        if window.predictions.rows[row].flags & flag::LATE != 0 {
            return;
        }
        window.predictions.rows[row].flags |= flag::LATE;
        self.late.insert(at, due);
        self.touch(at);
        let Some(window) = self.all.get(number) else { return };
        sink.change(self.prediction(window, row), Change::Late, due, 1);
    }

    /// A label row for a prediction.
    #[inline(always)]
    fn set(&mut self, at: Address, label: Known, sink: &mut impl Sink) {
        let (number, row) = place(at);
        let Some(window) = self.all.get_mut(number) else { return };
        let start = window.start;
        let waiting = &mut window.predictions.rows[row];
        let (flags, time) = (waiting.flags, waiting.time);
        let old = (flags & flag::COUNTS != 0).then_some(waiting.label);
        if flags & flag::SEEN != 0 {
            let before = (waiting.label_time, waiting.label_ord);
            if before >= label.order() {
                return;
            }
            let earlier = self.earlier.entry(at).or_default();
            if self.windows.told(start, time.max(before.0)) <= self.passed {
                earlier.clear();
            }
            earlier.push((before.0, old));
            waiting.flags |= flag::EARLIER;
        }
        waiting.flags = (waiting.flags | flag::SEEN) & !flag::COUNTS;
        if label.value.is_some() {
            waiting.flags |= flag::COUNTS | flag::COUNTED;
        }
        waiting.label = label.value.unwrap_or_default();
        (waiting.label_time, waiting.label_ord) = label.order();
        if let Some(dirty) = &mut self.dirty
            && waiting.flags & flag::DIRTY == 0
        {
            waiting.flags |= flag::DIRTY;
            dirty.push(at);
        }
        if old.map(f64::to_bits) == label.value.map(f64::to_bits) {
            return;
        }
        let (seen, due) = (seen(window, row, &self.widths, &self.texts), time.max(label.time));
        if let Some(old) = old {
            sink.change(seen, Change::Labelled(old, false), due, -1);
        }
        if let Some(new) = label.value {
            sink.change(seen, Change::Labelled(new, flags & flag::COUNTED == 0), due, 1);
        }
    }

    /// Keeps a label for a prediction that may come.
    fn keep(&mut self, key: Key, label: Known, late: bool) {
        let number = self.window(label.time);
        let Some(window) = self.all.get_mut(number) else { return };
        let l = &mut window.labels;
        let at = address(number, l.keys.len()) | LABEL;
        l.keys.push(key);
        l.times.push(label.time);
        l.ords.push(label.ord);
        l.values.push(label.value.unwrap_or_default());
        let counts = if label.value.is_some() { flag::COUNTS } else { 0 };
        l.flags.push(counts | if late { flag::LATE } else { 0 });
        self.insert(key, at);
        self.touch(at);
        self.wait((label.time, label.ord, at));
    }

    fn wait(&mut self, label: (EventTime, u64, Address)) {
        if self.waiting.back().is_none_or(|last| *last <= label) {
            self.waiting.push_back(label);
        } else {
            // Out of order by no more than the disorder, hence near the end.
            let place = self.waiting.partition_point(|earlier| *earlier <= label);
            self.waiting.insert(place, label);
        }
    }
}

/// A prediction as those see it who are told of it.
#[inline(always)]
fn seen<'a>(window: &'a Window, row: usize, widths: &Widths, texts: &'a Texts) -> Row<'a> {
    let p = &window.predictions;
    let waiting = &p.rows[row];
    Row {
        time: waiting.time,
        ord: waiting.ord,
        window: window.start,
        version: waiting.version,
        scores: &p.scores[row * widths.scores..(row + 1) * widths.scores],
        segments: &p.segments[row * widths.segments..(row + 1) * widths.segments],
        group: match widths.group {
            None => GroupOf::None,
            Some(Kind::Number) => GroupOf::Number(p.groups[row]),
            Some(Kind::Text) => GroupOf::Text(texts.get(p.groups[row])),
        },
    }
}

fn orphan(window: &Window, row: usize) -> Row<'_> {
    let l = &window.labels;
    let (time, ord, window) = (l.times[row], l.ords[row], window.start);
    Row { time, ord, window, version: 0, scores: &[], segments: &[], group: GroupOf::None }
}

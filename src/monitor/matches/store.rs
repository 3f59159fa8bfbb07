//! Rows of one window, column by column, and the ids that lead to them.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::EventTime;

/// An id: the hash that says where it lives in the high half; in the low half the word itself, or a second hash of its bytes.
pub type Key = u128;

/// The hash of an id.
#[inline]
pub(super) fn hash_of(key: Key) -> u64 {
    (key >> 64) as u64
}

/// Bits of a prediction's or a label's state.
pub(super) mod flag {
    /// A label row has come for the prediction.
    pub const SEEN: u8 = 1;
    /// The label counts; else it was withdrawn. Of a label: it has a value.
    pub const COUNTS: u8 = 2;
    /// The prediction has counted before.
    pub const COUNTED: u8 = 4;
    /// Has changed since the last freeze.
    pub const DIRTY: u8 = 8;
    /// No id: nothing leads to the row.
    pub const NO_ID: u8 = 16;
    /// Labels before the present one are still to be told.
    pub const EARLIER: u8 = 32;
    /// A label came too late for the prediction. Of a label: it was too late for one.
    pub const LATE: u8 = 64;
    /// Of a label: it has moved to a prediction, or a later label has replaced it.
    pub const DEAD: u8 = 128;
}

/// Where a row is: bit 63 tells labels from predictions, then the window's number, then the row.
pub(super) type Address = u64;

/// Set in the address of a label.
pub(super) const LABEL: Address = 1 << 63;

#[inline]
pub(super) fn address(number: usize, row: usize) -> Address {
    (number as u64) << 32 | row as u64
}

#[inline]
pub(super) fn place(address: Address) -> (usize, usize) {
    (((address & !LABEL) >> 32) as usize, address as u32 as usize)
}

/// How wide rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Prediction outputs.
    pub scores: usize,
    /// Segment columns.
    pub segments: usize,
    /// The column by which rows are grouped beyond segments, a ranking's query or a card, if there is one.
    pub group: Option<Kind>,
}

/// What the column by which rows are grouped holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers.
    Number,
    /// Texts.
    Text,
}

/// The value of the column by which a row is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupOf<'a> {
    /// There is no such column.
    None,
    /// A whole number.
    Number(i64),
    /// A text.
    Text(&'a Arc<str>),
}

/// What is looked at when a label comes, in one line of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub key: Key,
    pub time: EventTime,
    pub ord: u64,
    pub label: f64,
    pub label_time: EventTime,
    pub label_ord: u64,
    pub version: u32,
    pub flags: u8,
}

/// Predictions of a window.
#[derive(Debug, Default)]
pub(super) struct Predictions {
    pub rows: Vec<Waiting>,
    /// Row after row.
    pub scores: Vec<f64>,
    pub segments: Vec<u32>,
    /// Whole numbers, or numbers of texts; empty without such a column.
    pub groups: Vec<i64>,
}

/// Labels of a window, by their own time, without a prediction.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub keys: Vec<Key>,
    pub times: Vec<EventTime>,
    pub ords: Vec<u64>,
    pub values: Vec<f64>,
    pub flags: Vec<u8>,
}

/// All of a window.
#[derive(Debug)]
pub(super) struct Window {
    pub start: EventTime,
    /// The last boundary at which it can change; later rows do not see it.
    pub complete: EventTime,
    pub predictions: Predictions,
    pub labels: Labels,
    /// Whether spare memory was given back.
    pub settled: bool,
}

impl Window {
    pub fn new(start: EventTime, complete: EventTime) -> Window {
        Window { start, complete, predictions: Predictions::default(), labels: Labels::default(), settled: false }
    }

    /// Gives spare memory back: few rows come once the window has ended.
    pub fn settle(&mut self) {
        self.settled = true;
        let p = &mut self.predictions;
        p.rows.shrink_to_fit();
        p.scores.shrink_to_fit();
        p.segments.shrink_to_fit();
        p.groups.shrink_to_fit();
    }

    pub fn memory_bytes(&self) -> usize {
        let (p, l) = (&self.predictions, &self.labels);
        let words = p.scores.capacity() + p.groups.capacity();
        let lone = l.times.capacity() + l.ords.capacity() + l.values.capacity() + 2 * l.keys.capacity();
        let rows = p.rows.capacity() * size_of::<Waiting>() + 4 * p.segments.capacity();
        8 * (words + lone) + rows + l.flags.capacity()
    }
}

/// Windows by number. A number is given once: what is left of a window that is gone leads nowhere.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    /// Number of the first.
    first: usize,
    list: VecDeque<Option<Window>>,
}

impl Numbered {
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<&Window> {
        self.list.get(number.wrapping_sub(self.first))?.as_ref()
    }

    #[inline(always)]
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Window> {
        self.list.get_mut(number.wrapping_sub(self.first))?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.list.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.list.iter_mut().flatten()
    }

    /// Adds a window; returns its number.
    pub fn push(&mut self, window: Window) -> usize {
        self.list.push_back(Some(window));
        self.first + self.list.len() - 1
    }

    /// Takes a window out.
    pub fn take(&mut self, number: usize) -> Option<Window> {
        let window = self.list.get_mut(number.wrapping_sub(self.first))?.take();
        while let Some(None) = self.list.front() {
            self.list.pop_front();
            self.first += 1;
        }
        window
    }

    /// The id of a place that is there.
    #[inline(always)]
    pub fn key_at(&self, at: Address) -> Option<Key> {
        let (number, row) = place(at);
        let window = self.get(number)?;
        match at & LABEL {
            0 => window.predictions.rows.get(row).map(|row| row.key),
            _ => window.labels.keys.get(row).copied(),
        }
    }
}

/// Texts that many rows have, by number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    list: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let (number, text) = (self.list.len() as u32, Arc::<str>::from(text));
        self.list.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The text of a number.
    pub fn text(&self, number: u32) -> &Arc<str> {
        &self.list[number as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, by number.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        self.list.clone()
    }
}

/// Texts that rows have, by number, for as long as a row has them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// Each with the number of its rows.
    list: Vec<(Arc<str>, u32)>,
    numbers: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
}

impl Texts {
    /// A row more has a text.
    pub fn take(&mut self, text: &str) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            self.list[*number as usize].1 += 1;
            return i64::from(*number);
        }
        let text = Arc::<str>::from(text);
        let number = match self.free.pop() {
            Some(number) => {
                self.list[number as usize] = (Arc::clone(&text), 1);
                number
            }
            None => {
                self.list.push((Arc::clone(&text), 1));
                self.list.len() as u32 - 1
            }
        };
        self.numbers.insert(text, number);
        i64::from(number)
    }

    /// A row less has it.
    pub fn release(&mut self, number: i64) {
        let Some((text, rows)) = self.list.get_mut(number as usize) else { return };
        *rows -= 1;
        if *rows == 0 {
            self.numbers.remove(&**text);
            self.free.push(number as u32);
            *text = Arc::from("");
        }
    }

    /// The text of a number.
    pub fn get(&self, number: i64) -> &Arc<str> {
        &self.list[number as usize].0
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn memory_bytes(&self) -> usize {
        let text: usize = self.numbers.keys().map(|text| text.len() + 16).sum();
        text + self.list.capacity() * size_of::<(Arc<str>, u32)>() + self.numbers.allocation_size()
    }
}

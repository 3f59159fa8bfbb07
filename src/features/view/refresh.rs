//! What an online store must be told: keys that changed, and keys whose values slid by themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{ArrayRef, BinaryArray, BinaryBuilder};

use super::ViewError;
use super::columns::Answers;
use super::index::Handle;
use super::keys::bytes_of_word;
use super::small;
use super::state::{Bounds, ViewState, mark};
use super::value::Any;
use crate::base::EventTime;

/// Keys to look at.
#[derive(Default)]
pub(super) struct Refresh {
    /// Key words that changed since they were last told.
    pub(super) dirty: Vec<u64>,
    /// (time, key word) at which a value will change by itself. A record knows its own time; others are void.
    timers: BinaryHeap<Reverse<(EventTime, u64)>>,
}

impl Refresh {
    /// Has a key looked at when its time comes.
    pub(super) fn set_timer(&mut self, due: EventTime, key: u64) {
        self.timers.push(Reverse((due, key)));
    }
}

/// Values of keys at a time, row by row.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// Canonical bytes of the entity key, as `ops::key` encodes it.
    pub keys: BinaryArray,
    /// One array per aggregate, in the plan's order.
    pub values: Vec<ArrayRef>,
    /// Time of the key's newest row, if a trailing window holds it or its last values are kept; else where the widest window
    /// begins, whatever a record has not let go of yet.
    pub event_times: Vec<EventTime>,
    /// From this time on the values are others even if no row comes; `i64::MAX` when they stay.
    pub valid_until: Vec<EventTime>,
    /// Whether keys are left over, because of the limit.
    pub more: bool,
}

impl ViewState {
    /// Values at `now` of the keys that changed since they were last told, and of those whose values have slid since; at
    /// most `limit` keys. No row at or before `now − delay` may come any more for the values to be final; none is needed.
    /// Empty when refresh is not on.
    ///
    /// # Errors
    /// When Arrow refuses a conversion.
    pub fn refresh(&mut self, now: EventTime, limit: usize) -> Result<Refreshed, ViewError> {
        let mut refresh = self.refresh.take().unwrap_or_default();
        let mut answers = Answers::new(&self.layout);
        let mut bounds = Bounds::new(&self.layout);
        let head = now.saturating_sub(self.layout.delay);
        bounds.set(&self.layout, head);
        let widest = self.layout.windows.iter().filter_map(|window| window.width).max().unwrap_or(0);
        let start = head.saturating_sub(widest);
        let mut keys = BinaryBuilder::new();
        let (mut event_times, mut valid_until) = (Vec::new(), Vec::new());
        answers.begin(limit.min(refresh.dirty.len() + 1024));
        let mut told = 0;
        while told < limit {
            let (key, due) = match refresh.dirty.pop() {
                Some(key) => (key, None),
                None => match refresh.timers.peek() {
                    Some(Reverse((due, _))) if *due <= now => match refresh.timers.pop() {
                        Some(Reverse((due, key))) => (key, Some(due)),
                        None => break,
                    },
                    _ => break,
                },
            };
            let Some((handle, hash)) = self.handle_of(key) else { continue };
            let (dirty, planned) = self.state_of(handle);
            if due.map_or(!dirty, |due| due != planned) {
                continue;
            }
            let next = self.tell(handle, head, &bounds, &mut answers);
            let next = if next == i64::MAX { next } else { next.saturating_add(self.layout.delay) };
            // A timer that stands and is not later serves; else a new one takes its place.
            let stands = due.is_none() && planned <= next;
            if !stands && next != i64::MAX {
                refresh.timers.push(Reverse((next, key)));
            }
            self.touch_told(handle, hash);
            self.set_state(handle, if stands { planned } else { next });
            if self.words {
                keys.append_value(bytes_of_word(key));
            } else {
                keys.append_value(self.names.get(key));
            }
            let newest = self.newest_of(handle).filter(|time| self.layout.keep_last || *time > start);
            event_times.push(newest.unwrap_or(start));
            valid_until.push(next);
            told += 1;
        }
        let more = !refresh.dirty.is_empty() || refresh.timers.peek().is_some_and(|Reverse((due, _))| *due <= now);
        self.refresh = self.layout.refresh.then_some(refresh);
        let values = answers.finish(&self.layout, &self.texts)?;
        Ok(Refreshed { keys: keys.finish(), values, event_times, valid_until, more })
    }

    /// Makes the next [`refresh`](Self::refresh) tell the values of all keys, as to a reader that knows none.
    pub fn mark_all(&mut self) {
        for class in 0..self.small.len() {
            for block in 0..self.small[class].blocks() {
                if self.small[class].get(block)[1] != small::FREE {
                    self.touch_untold(Self::handle(Some(class), block));
                    mark(&mut self.refresh, self.small[class].get_mut(block));
                }
            }
        }
        for block in 0..self.dense.len() {
            if self.dense[block].is_some() {
                self.touch_untold(Self::handle(None, block as u32));
            }
            if let Some(dense) = &mut self.dense[block] {
                dense.mark(&mut self.refresh);
            }
        }
    }

    fn handle_of(&self, key: u64) -> Option<(Handle, u64)> {
        if !self.words && self.names.get(key).is_empty() {
            return None;
        }
        let hash = self.hash_of(key);
        self.index.find(hash, |handle| self.key_word(handle) == key).map(|(_, handle)| (handle, hash))
    }

    /// Whether a record is dirty, and the time of its timer.
    fn state_of(&self, handle: Handle) -> (bool, EventTime) {
        match Self::place(handle) {
            (Some(class), block) => small::told(&self.layout, self.small[class].get(block)),
            (None, block) => self.dense[block as usize].as_ref().map_or((false, i64::MAX), |d| (d.dirty, d.due)),
        }
    }

    fn set_state(&mut self, handle: Handle, due: EventTime) {
        match Self::place(handle) {
            (Some(class), block) => {
                small::set_told(self.small[class].get_mut(block), false, due);
            }
            (None, block) => {
                if let Some(dense) = &mut self.dense[block as usize] {
                    dense.dirty = false;
                    dense.due = due;
                }
            }
        }
    }

    fn newest_of(&self, handle: Handle) -> Option<EventTime> {
        match Self::place(handle) {
            (Some(class), block) => small::newest(&self.layout, self.small[class].get(block)),
            (None, block) => self.dense[block as usize].as_ref().map(|d| d.newest),
        }
    }

    /// Answers for a record at a head without moving it; returns the next head at which the answer changes.
    fn tell(&mut self, handle: Handle, head: EventTime, bounds: &Bounds, answers: &mut Answers) -> EventTime {
        let layout = &self.layout;
        let mut raw = answers.row(layout);
        let next = match Self::place(handle) {
            (Some(class), block) => {
                let record = self.small[class].get(block);
                let mut scan = small::ScanScratch::new(layout);
                small::query::<Any>(layout, record, head, &bounds.list, &mut scan, &mut raw);
                small::next_change(layout, record, head, &bounds.list)
            }
            (None, block) => match &self.dense[block as usize] {
                Some(dense) => {
                    let layout = layout.of(dense);
                    dense.peek(layout, &self.chunks, head, &bounds.list, &mut raw);
                    dense.next_change(layout, &self.chunks, head, &bounds.list)
                }
                None => i64::MAX,
            },
        };
        answers.done(layout, &self.texts);
        next
    }
}

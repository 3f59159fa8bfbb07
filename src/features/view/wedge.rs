//! The minimum of every suffix of a sequence in time order: all windows that end where the sequence ends share it.
//!
//! Kept are the items that are smaller than all later ones, hence in rising order of both time and value; the minimum of
//! the items after some time is the first kept item after it. Random values leave about ln n items.
//! Of items of one time only the smallest is kept, so tiles, whose items carry the tile's time, bound the length.

use std::collections::VecDeque;

use super::slab::prefetch;

/// A minimum wedge of (time, value). For maxima, hand in complemented values.
#[derive(Clone, Debug, Default)]
pub(super) struct Wedge {
    items: VecDeque<(i64, i64)>,
}

impl Wedge {
    /// Appends an item that is not before any other.
    #[inline(always)]
    pub(super) fn push(&mut self, time: i64, value: i64) {
        while let Some(&(last, smallest)) = self.items.back() {
            if smallest < value {
                if last == time {
                    return;
                }
                break;
            }
            self.items.pop_back();
        }
        self.items.push_back((time, value));
    }

    /// Inserts an item anywhere in time.
    pub(super) fn insert(&mut self, time: i64, value: i64) {
        let at = self.items.partition_point(|item| item.0 <= time);
        if self.items.get(at).is_some_and(|later| later.1 <= value) {
            return;
        }
        let mut from = at;
        while from > 0 && self.items[from - 1].1 >= value {
            from -= 1;
        }
        self.items.drain(from..at);
        if from > 0 && self.items[from - 1].0 == time {
            return;
        }
        self.items.insert(from, (time, value));
    }

    /// Forgets the items at or before a time.
    #[inline(always)]
    pub(super) fn expire(&mut self, bound: i64) {
        while self.items.front().is_some_and(|item| item.0 <= bound) {
            self.items.pop_front();
        }
    }

    /// The smallest value after a time, and the last time it occurs.
    #[inline(always)]
    pub(super) fn after(&self, bound: i64) -> Option<(i64, i64)> {
        // Wedges are short as a rule, and the asked item near the front.
        const NEAR: usize = 12;
        for item in self.items.iter().take(NEAR) {
            if item.0 > bound {
                return Some(*item);
            }
        }
        self.after_near(bound)
    }

    #[cold]
    fn after_near(&self, bound: i64) -> Option<(i64, i64)> {
        let at = self.items.partition_point(|item| item.0 <= bound);
        self.items.get(at).copied()
    }

    /// Whether an item is kept.
    pub(super) fn contains(&self, time: i64, value: i64) -> bool {
        let at = self.items.partition_point(|item| item.0 < time);
        self.items.get(at) == Some(&(time, value))
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
    }

    pub(super) fn items(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.items.iter().copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<(i64, i64)>()
    }

    /// Asks for the oldest and the newest item.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        if let (Some(front), Some(back)) = (self.items.front(), self.items.back()) {
            prefetch(front);
            prefetch(back);
        }
    }
}

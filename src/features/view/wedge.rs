//! The minimum of every suffix of a sequence in time order: all windows that end where the sequence ends share it.
//!
//! Kept are the items that are smaller than all later ones, hence in rising order of both time and value; the minimum of
//! the items after some time is the first kept item after it. Random values leave about ln n items.
//! Of items of one time only the smallest is kept, so tiles, whose items carry the tile's time, bound the length.

use super::strip::Strip;
use crate::base::prefetch;

/// A minimum wedge of (time, value). For maxima, hand in complemented values.
#[derive(Clone, Debug, Default)]
pub(super) struct Wedge {
    items: Strip<(i64, i64)>,
}

impl Wedge {
    /// Appends an item that is not before any other.
    #[inline(always)]
    pub(super) fn push(&mut self, time: i64, value: i64) {
        // How many items go is anybody's guess, so the last few are counted without a branch: values rise.
        const FEW: usize = 4;
        let mut len = self.items.len();
        if let Some(few) = self.items.last_chunk::<FEW>() {
            let gone = few.iter().map(|item| usize::from(item.1 >= value)).sum::<usize>();
            len -= gone;
            if gone == FEW {
                len = self.keep_below(len, value);
            }
        } else {
            len = self.keep_below(len, value);
        }
        self.items.truncate(len);
        if self.items.last().is_none_or(|last| last.0 != time) {
            self.items.push((time, value));
        }
    }

    /// Of the first `len` items, how many are there up to the last one below a value.
    #[inline(never)]
    fn keep_below(&self, mut len: usize, value: i64) -> usize {
        while len > 0 && self.items[len - 1].1 >= value {
            len -= 1;
        }
        len
    }

    /// The smallest value of all kept items.
    #[inline(always)]
    pub(super) fn front(&self) -> Option<i64> {
        self.items.first().map(|item| item.1)
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
        self.items.remove(from, at);
        if from > 0 && self.items[from - 1].0 == time {
            return;
        }
        self.items.insert(from, (time, value));
    }

    /// Forgets the items at or before a time.
    #[inline(always)]
    pub(super) fn expire(&mut self, bound: i64) {
        while self.items.first().is_some_and(|item| item.0 <= bound) {
            self.items.leave(1);
        }
    }

    /// The smallest value after a time, and the last time it occurs.
    #[inline(always)]
    pub(super) fn after(&self, bound: i64) -> Option<(i64, i64)> {
        // Wedges are short as a rule, and the asked item near the front.
        const NEAR: usize = 12;
        let kept = &self.items[..];
        for item in kept.iter().take(NEAR) {
            if item.0 > bound {
                return Some(*item);
            }
        }
        if kept.len() <= NEAR { None } else { self.after_near(bound) }
    }

    /// [`Self::after`] with a guess where the answer is, which is brought up to date: from question to question the answer
    /// mostly stays where it is.
    #[inline(always)]
    pub(super) fn after_guess(&self, bound: i64, guess: &mut u32) -> Option<i64> {
        let len = self.items.len();
        if len == 0 {
            return None;
        }
        let mut at = (*guess as usize).min(len - 1);
        while at > 0 && self.items[at - 1].0 > bound {
            at -= 1;
        }
        while at < len && self.items[at].0 <= bound {
            at += 1;
        }
        *guess = at as u32;
        self.items.get(at).map(|item| item.1)
    }

    #[inline(never)]
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
        self.items.bytes()
    }

    /// Asks for the oldest and the newest item.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self.items.as_ptr());
        prefetch(self.items.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn knows_the_minimum_of_every_suffix(
            items in prop::collection::vec((0i64..40, 0i64..9, any::<bool>()), 1..120),
            expire in 0i64..30,
        ) {
            let mut wedge = Wedge::default();
            let (mut all, mut newest) = (Vec::new(), 0);
            for (time, value, behind) in items {
                // Either anywhere, or not before the newest.
                if behind {
                    wedge.insert(time, value);
                    all.push((time, value));
                } else {
                    wedge.push(newest.max(time), value);
                    all.push((newest.max(time), value));
                }
                newest = newest.max(time);
            }
            wedge.expire(expire);
            for bound in expire..41 {
                let expected = all.iter().filter(|item| item.0 > bound).map(|item| item.1).min();
                prop_assert_eq!(wedge.after(bound).map(|item| item.1), expected, "after {}", bound);
                for guess in [0, 1, 5, 1000] {
                    prop_assert_eq!(wedge.after_guess(bound, &mut { guess }), expected);
                }
            }
        }
    }
}

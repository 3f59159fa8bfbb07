//! The minimum of every suffix of a sequence in time order: all windows that end where the sequence ends share it.
//!
//! Kept are the items that are smaller than all later ones, hence in rising order of both time and value; the minimum of
//! the items after some time is the first kept item after it. Random values leave about ln n items.
//! Of items of one time only the smallest is kept, so tiles, whose items carry the tile's time, bound the length.

use super::slab::prefetch;

/// A minimum wedge of (time, value). For maxima, hand in complemented values.
#[derive(Clone, Debug, Default)]
pub(super) struct Wedge {
    /// At least [`AHEAD`] items that no longer count, the kept ones, and room.
    items: Vec<(i64, i64)>,
    /// The kept items: from, and to before.
    first: u32,
    end: u32,
}

/// Items compared at once when one is appended.
const AHEAD: usize = 4;
const SMALLEST: (i64, i64) = (i64::MIN, i64::MIN);

impl Wedge {
    #[inline(always)]
    fn kept(&self) -> &[(i64, i64)] {
        &self.items[self.first as usize..self.end as usize]
    }

    /// Appends an item that is not before any other.
    #[inline(always)]
    pub(super) fn push(&mut self, time: i64, value: i64) {
        if self.end as usize == self.items.len() {
            self.make_room();
        }
        // How many items give way cannot be predicted, so the nearest are all compared rather than one after another.
        let mut end = self.end as usize;
        let near: &[(i64, i64); AHEAD] = self.items[end - AHEAD..end].try_into().unwrap_or(&[SMALLEST; AHEAD]);
        let kept = end - self.first as usize;
        let give_way = |i: usize| usize::from(near[AHEAD - 1 - i].1 >= value) & usize::from(i < kept);
        let give_way = give_way(0) + give_way(1) + give_way(2) + give_way(3);
        end -= give_way;
        if give_way == AHEAD {
            while end > self.first as usize && self.items[end - 1].1 >= value {
                end -= 1;
            }
        }
        // A smaller item of the same time lasts as long as this one would.
        let same = end > self.first as usize && self.items[end - 1].0 == time;
        self.items[end] = (time, value);
        self.end = end as u32 + u32::from(!same);
    }

    #[cold]
    fn make_room(&mut self) {
        let kept = self.kept().len();
        // What is forgotten makes room if it is a good part.
        let capacity =
            if kept * 2 + AHEAD < self.items.len() { self.items.len() } else { (kept * 2).max(AHEAD) + 2 * AHEAD };
        let mut items = Vec::with_capacity(capacity);
        items.resize(AHEAD, SMALLEST);
        items.extend_from_slice(self.kept());
        items.resize(capacity, SMALLEST);
        *self = Wedge { items, first: AHEAD as u32, end: (AHEAD + kept) as u32 };
    }

    /// Inserts an item anywhere in time.
    pub(super) fn insert(&mut self, time: i64, value: i64) {
        let mut kept = self.kept().to_vec();
        let at = kept.partition_point(|item| item.0 <= time);
        if kept.get(at).is_some_and(|later| later.1 <= value) {
            return;
        }
        let later = kept.split_off(at);
        self.clear();
        kept.into_iter().chain([(time, value)]).chain(later).for_each(|item| self.push(item.0, item.1));
    }

    /// Forgets the items at or before a time.
    #[inline(always)]
    pub(super) fn expire(&mut self, bound: i64) {
        while self.first < self.end && self.items[self.first as usize].0 <= bound {
            self.first += 1;
        }
    }

    /// The smallest value after a time, and the last time it occurs.
    #[inline(always)]
    pub(super) fn after(&self, bound: i64) -> Option<(i64, i64)> {
        // Wedges are short as a rule, and the asked item near the front.
        const NEAR: usize = 12;
        let kept = self.kept();
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
        let (first, end) = (self.first as usize, self.end as usize);
        if first == end {
            return None;
        }
        let mut at = (*guess as usize).clamp(first, end - 1);
        while at > first && self.items[at - 1].0 > bound {
            at -= 1;
        }
        while at < end && self.items[at].0 <= bound {
            at += 1;
        }
        *guess = at as u32;
        (at < end).then(|| self.items[at].1)
    }

    #[inline(never)]
    fn after_near(&self, bound: i64) -> Option<(i64, i64)> {
        let at = self.kept().partition_point(|item| item.0 <= bound);
        self.kept().get(at).copied()
    }

    /// Whether an item is kept.
    pub(super) fn contains(&self, time: i64, value: i64) -> bool {
        let at = self.kept().partition_point(|item| item.0 < time);
        self.kept().get(at) == Some(&(time, value))
    }

    pub(super) fn clear(&mut self) {
        (self.first, self.end) = if self.items.is_empty() { (0, 0) } else { (AHEAD as u32, AHEAD as u32) };
    }

    pub(super) fn items(&self) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.kept().iter().copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<(i64, i64)>()
    }

    /// Asks for the oldest and the newest item.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        let items = self.items.as_ptr();
        prefetch(items.wrapping_add(self.first as usize));
        prefetch(items.wrapping_add((self.end as usize).saturating_sub(1)));
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

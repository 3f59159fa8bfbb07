//! What is counted of a group: the difference of the graph's collection.
//!
//! Counts are added and taken back place by place, and what comes to nothing is dropped, so that a group of which all is
//! taken back is no more. Scores of a class are a list in their order, with the labels of each.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use super::items::Score;
use super::sums::Sums;

/// What rows are counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// They were predicted.
    Predicted,
    /// They have a label that fits.
    Labelled,
    /// They have a label, or a score, that does not fit the task.
    Invalid,
    /// A label came too late for them.
    Late,
    /// They are labels for which no prediction came.
    Orphan,
}

/// A score, and how many negative and positive labels it has.
pub type Point = (Score, i64, i64);

/// What is counted of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Counts {
    tallies: [i64; 5],
    /// By label and predicted class, sorted.
    confusion: Vec<((u16, u16), i64)>,
    /// Of each class, sorted by score.
    curves: Vec<Vec<Point>>,
    /// Sums over all rows.
    pub sums: Sums,
}

impl Counts {
    /// Nothing but sums.
    pub fn of_sums(sums: Sums) -> Counts {
        Counts { sums, ..Counts::default() }
    }

    /// How many rows are counted as this.
    pub fn tally(&self, tally: Tally) -> u64 {
        self.tallies[tally as usize].max(0).cast_unsigned()
    }

    /// Rows by label and predicted class, sorted, without those that have none.
    pub fn confusion(&self) -> impl Iterator<Item = ((u16, u16), u64)> {
        self.confusion.iter().map(|(classes, count)| (*classes, (*count).max(0).cast_unsigned()))
    }

    /// Scores of a class, the lowest first.
    pub fn curve(&self, class: usize) -> &[Point] {
        self.curves.get(class).map_or(&[], Vec::as_slice)
    }

    /// Adds others.
    pub fn add(&mut self, other: &Counts) {
        self.tallies.iter_mut().zip(&other.tallies).for_each(|(count, more)| *count += more);
        merge(
            &mut self.confusion,
            &other.confusion,
            |pair| pair.0,
            |pair, more| {
                pair.1 += more.1;
                pair.1 != 0
            },
        );
        if self.curves.len() < other.curves.len() {
            self.curves.resize_with(other.curves.len(), Vec::new);
        }
        for (curve, more) in self.curves.iter_mut().zip(&other.curves) {
            merge(
                curve,
                more,
                |point| point.0,
                |point, more| {
                    point.1 += more.1;
                    point.2 += more.2;
                    (point.1, point.2) != (0, 0)
                },
            );
        }
        while self.curves.last().is_some_and(Vec::is_empty) {
            self.curves.pop();
        }
        self.sums.add(&other.sums);
    }
}

/// Merges two sorted lists; `add` puts what has one key together and tells whether anything is left.
fn merge<T: Copy, K: Ord>(list: &mut Vec<T>, more: &[T], key: impl Fn(&T) -> K, add: impl Fn(&mut T, &T) -> bool) {
    match (list.last(), more.first()) {
        (_, None) => return,
        (None, _) => return list.extend_from_slice(more),
        (Some(last), Some(first)) if key(last) < key(first) => return list.extend_from_slice(more),
        _ => {}
    }
    let mut merged = Vec::with_capacity(list.len() + more.len());
    let (mut a, mut b) = (list.iter().peekable(), more.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => match key(x).cmp(&key(y)) {
                std::cmp::Ordering::Less => merged.extend(a.next()),
                std::cmp::Ordering::Greater => merged.extend(b.next()),
                std::cmp::Ordering::Equal => {
                    let mut sum = **x;
                    if add(&mut sum, y) {
                        merged.push(sum);
                    }
                    a.next();
                    b.next();
                }
            },
            (Some(_), None) => merged.extend(a.by_ref()),
            (None, Some(_)) => merged.extend(b.by_ref()),
            (None, None) => break,
        }
    }
    *list = merged;
}

impl IsZero for Counts {
    fn is_zero(&self) -> bool {
        self.tallies == [0; 5] && self.confusion.is_empty() && self.curves.is_empty() && self.sums.is_zero()
    }
}

impl Semigroup for Counts {
    fn plus_equals(&mut self, other: &Counts) {
        self.add(other);
    }
}

impl Monoid for Counts {
    fn zero() -> Counts {
        Counts::default()
    }
}

impl Abelian for Counts {
    fn negate(&mut self) {
        *self = std::mem::take(self).multiply(&-1);
    }
}

impl Multiply<i64> for Counts {
    type Output = Counts;

    fn multiply(mut self, times: &i64) -> Counts {
        if *times == 0 {
            return Counts::default();
        }
        self.tallies.iter_mut().for_each(|count| *count *= times);
        self.confusion.iter_mut().for_each(|(_, count)| *count *= times);
        for (_, negative, positive) in self.curves.iter_mut().flatten() {
            *negative *= times;
            *positive *= times;
        }
        self.sums = self.sums.multiply(times);
        self
    }
}

/// Points at which a list of scores is put in order.
const LOOSE_MAX: usize = 16_384;

/// Counts of rows as they come.
#[derive(Debug, Default)]
pub struct Counting {
    counts: Counts,
    /// Score, how often, class, and whether the label is the class, not yet in order.
    loose: Vec<(Score, i32, u16, bool)>,
    /// Points at which they are.
    most: usize,
}

impl Counting {
    /// Counts a row.
    #[inline(always)]
    pub fn tally(&mut self, tally: Tally, diff: i64) {
        self.counts.tallies[tally as usize] += diff;
    }

    /// Counts a row by label and predicted class.
    pub fn confusion(&mut self, classes: (u16, u16), diff: i64) {
        let confusion = &mut self.counts.confusion;
        match confusion.binary_search_by_key(&classes, |pair| pair.0) {
            Ok(at) => confusion[at].1 += diff,
            Err(at) => confusion.insert(at, (classes, diff)),
        }
    }

    /// Counts a score of a class.
    #[inline(always)]
    pub fn score(&mut self, class: u16, score: Score, positive: bool, diff: i64) {
        self.loose.push((score, diff as i32, class, positive));
        if self.loose.len() >= self.most.max(LOOSE_MAX) {
            self.order();
        }
    }

    /// The sums.
    pub fn sums(&mut self) -> &mut Sums {
        &mut self.counts.sums
    }

    /// Scores that are held.
    pub fn held(&self) -> usize {
        self.loose.len() + self.counts.curves.iter().map(Vec::len).sum::<usize>()
    }

    #[inline(never)]
    fn order(&mut self) {
        let mut more = Counts::default();
        // One word is compared quicker than two, and mostly there is one class.
        self.loose.sort_unstable_by_key(|point| point.0);
        for (score, diff, class, positive) in &self.loose {
            let class = usize::from(*class);
            if more.curves.len() <= class {
                more.curves.resize_with(class + 1, Vec::new);
            }
            let curve = &mut more.curves[class];
            let (negatives, positives) = if *positive { (0, i64::from(*diff)) } else { (i64::from(*diff), 0) };
            match curve.last_mut() {
                Some(last) if last.0 == *score => (last.1, last.2) = (last.1 + negatives, last.2 + positives),
                _ => curve.push((*score, negatives, positives)),
            }
        }
        if self.loose.iter().any(|point| point.1 < 0) {
            more.curves.iter_mut().for_each(|curve| curve.retain(|point| (point.1, point.2) != (0, 0)));
        }
        self.loose.clear();
        // Bins are few: their list stays short. Where most scores are their own it is merged into seldom: those that wait take
        // no more memory than those in order.
        self.counts.add(&more);
        self.most = self.counts.curves.iter().map(|curve| 4 * curve.len()).sum();
    }

    /// What was counted.
    pub fn counts(mut self) -> Counts {
        self.order();
        self.counts.confusion.retain(|(_, count)| *count != 0);
        self.counts.sums.settle();
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (u8, u8, bool, f64);

    fn count(rows: &[Row], diff: i64) -> Counts {
        let mut counting = Counting::default();
        for (class, score, positive, value) in rows {
            counting.tally(Tally::Labelled, diff);
            counting.confusion((u16::from(*class), u16::from(*score % 3)), diff);
            counting.score(u16::from(*class), Score::exact(f64::from(*score)), *positive, diff);
            counting.sums().at(usize::from(*class)).add(*value, diff);
        }
        counting.counts()
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        prop::collection::vec((0u8..3, 0u8..20, any::<bool>(), -1e3..1e3), 0..60)
    }

    /// Scores that are put in order many times over come to what a map counts.
    #[test]
    fn many_scores_are_counted_as_by_a_map() {
        // Nearly all different, and few.
        for distinct in [1u64 << 40, 300] {
            let (mut counting, mut map) = (Counting::default(), std::collections::BTreeMap::new());
            let mut word = 7u64;
            for row in 0..200_000u64 {
                word = crate::base::hash_u64(word ^ row);
                // Every third takes back what another one brought.
                let (score, diff) =
                    if row % 3 == 2 { (crate::base::hash_u64(word) % distinct, -1) } else { (word % distinct, 1) };
                let (score, class) = (Score::exact(score as f64), (row % 2) as u16);
                let positive = word >> 60 == 0;
                counting.score(class, score, positive, diff);
                let held: &mut (i64, i64) = map.entry((class, score)).or_default();
                *(if positive { &mut held.1 } else { &mut held.0 }) += diff;
            }
            assert!(counting.held() <= 200_000);
            let counts = counting.counts();
            for class in 0..2u16 {
                let of_class = map.iter().filter(|((of, _), held)| *of == class && **held != (0, 0));
                let expected: Vec<Point> = of_class.map(|((_, score), held)| (*score, held.0, held.1)).collect();
                assert_eq!(counts.curve(usize::from(class)), expected);
            }
        }
    }

    proptest! {
        /// Counts of parts add up to those of the whole, in any order, and take each other back to nothing.
        #[test]
        fn counts_add_up(a in rows(), b in rows()) {
            let whole = count(&[a.clone(), b.clone()].concat(), 1);
            let (mut one, mut other) = (count(&a, 1), count(&b, 1));
            one.plus_equals(&count(&b, 1));
            other.plus_equals(&count(&a, 1));
            prop_assert_eq!(&one, &whole);
            prop_assert_eq!(&other, &whole);
            let mut back = whole.clone();
            back.negate();
            prop_assert_eq!(&back, &count(&[b, a.clone()].concat(), -1));
            one.plus_equals(&back);
            prop_assert!(one.is_zero() && one == Counts::zero());
            prop_assert_eq!(count(&a, 2), count(&a, 1).multiply(&2));
        }
    }
}

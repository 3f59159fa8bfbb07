//! Matches predictions with the labels that arrive for them, and keeps the area under the ROC curve of the latest matches.
//!
//! With P positive and N negative scores, the area is the share of the P·N pairs whose positive scores higher, ties counting
//! one half: the rank statistic U of Mann and Whitney (1947) divided by P·N. Sorting the scores gives 2U as a whole number,
//! so the area is exact up to the one division. Matches are kept in a bounded window, so old behaviour leaves the figure.

use std::collections::VecDeque;

use hashbrown::HashMap;

/// One side that waits for the other, the oldest forgotten first.
#[derive(Debug)]
struct Waiting<T> {
    by_id: HashMap<u64, (u64, T)>,
    order: VecDeque<(u64, u64)>,
    next: u64,
    most: usize,
}

impl<T> Waiting<T> {
    fn new(most: usize) -> Waiting<T> {
        Waiting { by_id: HashMap::new(), order: VecDeque::new(), next: 0, most }
    }

    /// A second entry of the same id replaces the first.
    fn put(&mut self, id: u64, value: T) {
        self.by_id.insert(id, (self.next, value));
        self.order.push_back((id, self.next));
        self.next += 1;
        while self.order.len() > self.most {
            // An entry that was taken or replaced since has another number, or none.
            if let Some((id, number)) = self.order.pop_front()
                && self.by_id.get(&id).is_some_and(|(n, _)| *n == number)
            {
                self.by_id.remove(&id);
            }
        }
    }

    fn take(&mut self, id: u64) -> Option<T> {
        self.by_id.remove(&id).map(|(_, value)| value)
    }
}

/// Predictions, labels, and their latest matches.
#[derive(Debug)]
pub(super) struct Matches {
    scores: Waiting<f64>,
    labels: Waiting<bool>,
    window: VecDeque<(f64, bool)>,
    window_most: usize,
    matched: u64,
}

impl Matches {
    /// `window`: matches that count; `waiting`: predictions, and labels, that wait for the other side at most.
    pub fn new(window: usize, waiting: usize) -> Matches {
        Matches {
            scores: Waiting::new(waiting),
            labels: Waiting::new(waiting),
            window: VecDeque::new(),
            window_most: window,
            matched: 0,
        }
    }

    /// A prediction; one that is no number has no rank and is left out.
    pub fn predicted(&mut self, id: u64, score: f64) {
        if score.is_nan() {
            return;
        }
        match self.labels.take(id) {
            Some(label) => self.matched(score, label),
            None => self.scores.put(id, score),
        }
    }

    /// A label; the first one of an id counts.
    pub fn labelled(&mut self, id: u64, label: bool) {
        match self.scores.take(id) {
            Some(score) => self.matched(score, label),
            None => self.labels.put(id, label),
        }
    }

    fn matched(&mut self, score: f64, label: bool) {
        if self.window.len() == self.window_most {
            self.window.pop_front();
        }
        self.window.push_back((score, label));
        self.matched += 1;
    }

    /// Matches since the start.
    pub fn total(&self) -> u64 {
        self.matched
    }

    /// The matches that count.
    pub fn window(&self) -> Vec<(f64, bool)> {
        self.window.iter().copied().collect()
    }
}

/// The area under the ROC curve, and the number of positives; `None` for the area unless there are both classes.
pub(super) fn area(mut pairs: Vec<(f64, bool)>) -> (Option<f64>, u64) {
    // −0.0 and 0.0 are one score; `total_cmp` would part them.
    pairs.iter_mut().for_each(|(score, _)| *score += 0.0);
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut negatives, mut positives, mut twice_u) = (0u64, 0u64, 0u128);
    for ties in pairs.chunk_by(|a, b| a.0 == b.0) {
        let p = ties.iter().filter(|(_, label)| *label).count() as u64;
        let n = ties.len() as u64 - p;
        twice_u += u128::from(p) * u128::from(2 * negatives + n);
        negatives += n;
        positives += p;
    }
    let all = 2 * u128::from(positives) * u128::from(negatives);
    ((all > 0).then(|| twice_u as f64 / all as f64), positives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every pair of a positive and a negative, one by one.
    fn naive(pairs: &[(f64, bool)]) -> Option<f64> {
        let (mut twice, mut all) = (0u128, 0u128);
        for (positive, _) in pairs.iter().filter(|p| p.1) {
            for (negative, _) in pairs.iter().filter(|p| !p.1) {
                twice += if positive > negative { 2 } else { u128::from(positive == negative) };
                all += 2;
            }
        }
        (all > 0).then(|| twice as f64 / all as f64)
    }

    proptest! {
        #[test]
        fn area_equals_a_count_of_pairs(
            pairs in prop::collection::vec(
                (prop_oneof![(-3i32..4).prop_map(f64::from), Just(-0.0), -1.0..1.0f64, Just(f64::INFINITY)], any::<bool>()),
                0..200,
            ),
        ) {
            prop_assert_eq!(area(pairs.clone()).0, naive(&pairs));
        }

        /// Whatever the order in which the sides arrive, the window holds the latest matches in the order of their second side.
        #[test]
        fn matching_equals_a_scan(
            events in prop::collection::vec((0u64..20, 0.0..1.0f64, any::<bool>(), any::<bool>()), 0..300),
            window in 1usize..30,
        ) {
            let mut matches = Matches::new(window, usize::MAX);
            let mut scores: Vec<(u64, f64, bool)> = Vec::new();
            let mut labels = scores.clone();
            let mut expected = Vec::new();
            for (id, score, label, predicts) in events {
                let other = |list: &Vec<(u64, f64, bool)>| list.iter().position(|(other, ..)| *other == id);
                if predicts {
                    matches.predicted(id, score);
                    match other(&labels) {
                        Some(at) => expected.push((score, labels.remove(at).2)),
                        None => {
                            scores.retain(|(other, ..)| *other != id);
                            scores.push((id, score, false));
                        }
                    }
                } else {
                    matches.labelled(id, label);
                    match other(&scores) {
                        Some(at) => expected.push((scores.remove(at).1, label)),
                        None => {
                            labels.retain(|(other, ..)| *other != id);
                            labels.push((id, 0.0, label));
                        }
                    }
                }
            }
            prop_assert_eq!(matches.total(), expected.len() as u64);
            prop_assert_eq!(matches.window(), &expected[expected.len().saturating_sub(window)..]);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut matches = Matches::new(10, 100);
        for id in 0..10_000 {
            matches.predicted(id, 0.5);
            matches.labelled(id + 1_000_000, true);
        }
        assert_eq!((matches.scores.by_id.len(), matches.scores.order.len()), (100, 100));
        assert_eq!((matches.labels.by_id.len(), matches.labels.order.len()), (100, 100));
        (0..10_000).for_each(|id| matches.labelled(id, true));
        assert_eq!(matches.total(), 100, "the latest predictions still wait");
        assert_eq!(matches.window().len(), 10);
    }

    #[test]
    fn a_prediction_made_again_outlives_its_first() {
        let mut matches = Matches::new(10, 2);
        matches.predicted(1, 0.1);
        matches.predicted(2, 0.2);
        matches.predicted(1, 0.3); // the first entry of 1 is forgotten, not this one
        matches.predicted(7, f64::NAN);
        matches.labelled(1, true);
        assert_eq!(matches.window(), [(0.3, true)]);
    }
}

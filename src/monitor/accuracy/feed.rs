//! Changes of matches on their way into the graph: held until the boundary at which they are told has passed.
//!
//! At one boundary a group may change a thousandfold: the graph sees all of it at once, and works on it once.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::binary::log_cost;
use super::counts::{Counting, Tally};
use super::items::{By, Fact, Group, Name, Ranked, Ripe, Score};
use super::measure::{Measures, place};
use crate::base::EventTime;
use crate::monitor::matches::{Change, GroupOf, Names, Row, Sink};
use crate::monitor::windows::Windows;
use crate::plan::model::{Metric, Task};

/// A group and a value of its segment: window, number of the version, number of the segment column, number of the value.
type Place = (EventTime, u32, u16, u32);

/// What is told at one boundary.
#[derive(Debug, Default)]
struct Bucket {
    counts: Vec<(Place, Counting)>,
    numbers: HashMap<Place, usize>,
    /// Of each segment column the place of the last row: rows come by window.
    last: Vec<usize>,
    ranked: Vec<(Place, By, Ranked, i64)>,
    cards: Vec<(Place, By, (Score, bool), i64)>,
}

/// Takes changes and gives out what is told of them.
#[derive(Debug)]
pub struct Feed {
    measures: Measures,
    windows: Windows,
    /// By boundary, the first one first.
    pending: VecDeque<(EventTime, Bucket)>,
    /// No change is told at a boundary before this.
    floor: EventTime,
    /// Where the last prediction was told, and the last of all else: the next is mostly told there, too.
    recent: [Recent; 2],
    /// Whether of a score nothing is counted but the score itself.
    plain: bool,
}

/// Changes of one window that are told at one boundary: those that are due after one time and not after another.
#[derive(Clone, Copy, Debug)]
struct Recent {
    window: EventTime,
    after: EventTime,
    until: EventTime,
    /// The place of the boundary in [`Feed::pending`].
    at: usize,
}

impl Recent {
    /// Nothing is due in no time.
    const NONE: Recent = Recent { window: 0, after: EventTime::MAX, until: EventTime::MIN, at: 0 };
}

/// How a row counts.
enum Fit {
    Invalid,
    Classes { label: u16, predicted: u16 },
    Score { score: f64, positive: bool },
    Number { score: f64, label: f64 },
    Item { score: f64, relevance: f64 },
}

impl Feed {
    /// Nothing is held. Changes that were told by `passed`, the last boundary that the state has passed, come again after a
    /// restart and are told at that boundary.
    pub fn new(measures: Measures, windows: Windows, passed: EventTime) -> Feed {
        let plain = measures.plan.bins.is_none() && measures.plan.card.is_none();
        Feed { measures, windows, pending: VecDeque::new(), floor: passed, recent: [Recent::NONE; 2], plain }
    }

    /// What the watermark has made ripe. `names` are those of the rows' numbers.
    pub fn ripen(&mut self, watermark: EventTime, names: &Names) -> Ripe {
        let passed = self.windows.passed(watermark);
        let mut ripe = Ripe { facts: Vec::new(), passed };
        while let Some((boundary, bucket)) = self.pending.pop_front_if(|(boundary, _)| *boundary <= passed) {
            let mut facts = Vec::new();
            bucket.tell(names, &mut |fact| facts.push(fact));
            ripe.facts.push((boundary, facts));
        }
        self.floor = self.floor.max(passed.saturating_add(1));
        self.recent = [Recent::NONE; 2];
        ripe
    }

    /// Changes held.
    pub fn held(&self) -> usize {
        let of = |bucket: &Bucket| {
            bucket.counts.iter().map(|(_, counts)| 1 + counts.held()).sum::<usize>()
                + bucket.ranked.len()
                + bucket.cards.len()
        };
        self.pending.iter().map(|(_, bucket)| of(bucket)).sum()
    }

    #[inline(always)]
    fn fit(&self, row: &Row<'_>, label: f64) -> Fit {
        match (row.scores, self.plain, self.measures.task) {
            ([score, ..], true, Task::Binary) if label.is_finite() && row.scores.iter().all(|s| s.is_finite()) => {
                Fit::Score { score: *score, positive: label > 0.0 }
            }
            _ => self.fit_of_any(row, label),
        }
    }

    #[inline(never)]
    fn fit_of_any(&self, row: &Row<'_>, label: f64) -> Fit {
        let scores = row.scores;
        if !label.is_finite() || scores.iter().any(|score| !score.is_finite()) {
            return Fit::Invalid;
        }
        let binned = self.measures.plan.bins.is_some();
        if binned && scores.iter().any(|score| !(0.0..=1.0).contains(score)) {
            return Fit::Invalid;
        }
        match (self.measures.task, scores) {
            (Task::Binary, [score, ..]) => Fit::Score { score: *score, positive: label > 0.0 },
            (Task::Regression, [score, ..]) => Fit::Number { score: *score, label },
            (Task::Ranking, [score, ..]) if label >= 0.0 => Fit::Item { score: *score, relevance: label },
            (Task::Multiclass, _) if label >= 0.0 && label < scores.len() as f64 && label.fract() == 0.0 => {
                // Of equal probabilities the first class.
                let best = (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
                Fit::Classes { label: label as u16, predicted: best as u16 }
            }
            _ => Fit::Invalid,
        }
    }
}

impl Feed {
    /// The bucket of a change.
    #[inline(always)]
    fn bucket(&mut self, window: EventTime, due: EventTime, predicted: bool) -> usize {
        let recent = &self.recent[usize::from(predicted)];
        if recent.window == window && due > recent.after && due <= recent.until {
            return recent.at;
        }
        self.find(window, due, predicted)
    }

    #[cold]
    fn find(&mut self, window: EventTime, due: EventTime, predicted: bool) -> usize {
        let boundary = self.windows.told(window, due).max(self.floor);
        let at = self.pending.partition_point(|(earlier, _)| *earlier < boundary);
        if self.pending.get(at).is_none_or(|(found, _)| *found != boundary) {
            self.pending.insert(at, (boundary, Bucket::default()));
            // Those behind have other places now.
            self.recent = [Recent::NONE; 2];
        }
        let (end, until) = (self.windows.end(window), self.windows.boundary(due));
        let (after, until) = match until <= end {
            true => (EventTime::MIN, end),
            false => (until.saturating_sub(self.windows.refresh), until),
        };
        self.recent[usize::from(predicted)] = Recent { window, after, until, at };
        at
    }
}

impl Sink for Feed {
    #[inline(always)]
    fn change(&mut self, row: Row<'_>, change: Change, due: EventTime, diff: i64) {
        let at = self.bucket(row.window, due, change == Change::Predicted);
        match change {
            Change::Predicted => self.pending[at].1.count(&row, Tally::Predicted, diff),
            Change::Labelled(label, _) => {
                let fit = self.fit(&row, label);
                let bucket = &mut self.pending[at].1;
                match fit {
                    // The usual case, apart: what else may be counted takes much longer.
                    Fit::Score { score, positive } if self.plain => {
                        for (i, place) in places(&row).enumerate() {
                            let counts = bucket.counting(i, &place);
                            counts.tally(Tally::Labelled, diff);
                            counts.score(0, Score::exact(score), positive, diff);
                        }
                    }
                    fit => bucket.labelled(&self.measures, &row, &fit, diff),
                }
            }
            Change::Late => self.pending[at].1.count(&row, Tally::Late, diff),
            Change::Orphan => {
                self.pending[at].1.counting(0, &(row.window, 0, 0, 0)).tally(Tally::Orphan, diff);
            }
        }
    }
}

/// The places in which a row counts: among all rows, and with those of its segments.
fn places<'a>(row: &'a Row<'_>) -> impl Iterator<Item = Place> + 'a {
    let segments = row.segments.iter().zip(1..).map(|(value, segment)| (row.window, row.version, segment, *value));
    std::iter::once((row.window, row.version, 0, 0)).chain(segments)
}

impl Bucket {
    /// The counts of a place, the `i`-th of its row.
    #[inline(always)]
    fn counting(&mut self, i: usize, place: &Place) -> &mut Counting {
        let last = self.last.get(i).copied().unwrap_or(usize::MAX);
        let at = match self.counts.get(last) {
            Some((found, _)) if found == place => last,
            _ => self.find(i, place),
        };
        &mut self.counts[at].1
    }

    #[inline(never)]
    fn find(&mut self, i: usize, place: &Place) -> usize {
        if self.last.len() <= i {
            self.last.resize(i + 1, usize::MAX);
        }
        self.last[i] = *self.numbers.entry(*place).or_insert_with(|| {
            self.counts.push((*place, Counting::default()));
            self.counts.len() - 1
        });
        self.last[i]
    }

    #[inline(always)]
    fn count(&mut self, row: &Row<'_>, tally: Tally, diff: i64) {
        for (i, place) in places(row).enumerate() {
            self.counting(i, &place).tally(tally, diff);
        }
    }

    #[inline(never)]
    fn labelled(&mut self, measures: &Measures, row: &Row<'_>, fit: &Fit, diff: i64) {
        let plan = &measures.plan;
        if let Fit::Invalid = fit {
            return self.count(row, Tally::Invalid, diff);
        }
        for (i, place) in places(row).enumerate() {
            let counts = self.counting(i, &place);
            counts.tally(Tally::Labelled, diff);
            count(measures, counts, row, fit, diff);
        }
        let by = match row.group {
            GroupOf::None => return,
            GroupOf::Number(number) => By::Number(number),
            GroupOf::Text(text) => By::Text(Name(Arc::clone(text))),
        };
        match fit {
            Fit::Score { score, positive } if plan.card.is_some() => {
                self.cards.push(((row.window, row.version, 0, 0), by, (Score::exact(*score), *positive), diff));
            }
            Fit::Item { score, relevance } => {
                let ranked = Ranked {
                    score: std::cmp::Reverse(Score::exact(*score)),
                    ord: row.ord,
                    relevance: Score::exact(*relevance),
                };
                self.ranked.extend(places(row).map(|place| (place, by.clone(), ranked.clone(), diff)));
            }
            _ => {}
        }
    }

    fn tell(self, names: &Names, put: &mut impl FnMut(Fact)) {
        let name = |number: u32| Name(names.text(number).clone());
        let group = |place: &Place| Group { window: place.0, version: name(place.1), segment: place.2 };
        for (place, counts) in self.counts {
            put(Fact::Counts((group(&place), name(place.3)), counts.counts()));
        }
        for (place, query, ranked, diff) in self.ranked {
            put(Fact::Ranked(((group(&place), name(place.3), query), ranked), diff));
        }
        for (place, card, row, diff) in self.cards {
            put(Fact::Card(((group(&place), card), row), diff));
        }
    }
}

/// Counts a row with a label in one group.
fn count(measures: &Measures, counts: &mut Counting, row: &Row<'_>, fit: &Fit, diff: i64) {
    let plan = &measures.plan;
    let coded = |score| match plan.bins {
        None => Score::exact(score),
        Some(bins) => Score::binned(score, bins, plan.threshold),
    };
    match *fit {
        Fit::Invalid | Fit::Item { .. } => {}
        Fit::Score { score, positive } => {
            counts.score(0, coded(score), positive, diff);
            if plan.bins.is_some() {
                let truth = f64::from(u8::from(positive));
                let cost = log_cost(if positive { score } else { 1.0 - score });
                counts.sums().at(place::LOG_LOSS).add(cost, diff);
                counts.sums().at(place::BRIER).add((score - truth) * (score - truth), diff);
            }
        }
        Fit::Classes { label, predicted } => {
            counts.confusion((label, predicted), diff);
            if measures.wants(Metric::LogLoss) {
                counts.sums().at(place::LOG_LOSS).add(log_cost(row.scores[usize::from(label)]), diff);
            }
            if measures.wants(Metric::Auc) {
                for (score, class) in row.scores.iter().zip(0..) {
                    counts.score(class, coded(*score), class == label, diff);
                }
            }
        }
        Fit::Number { score, label } => {
            let (error, sums) = (label - score, counts.sums());
            sums.at(place::SQUARED).add(error * error, diff);
            sums.at(place::ABSOLUTE).add(error.abs(), diff);
            sums.at(place::RELATIVE).add(error.abs() / label.abs().max(f64::EPSILON), diff);
            sums.at(place::LABEL).add(label, diff);
            sums.at(place::LABEL_SQUARED).add_product(label, label, diff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::accuracy::counts::Counts;
    use crate::plan::model::AccuracyPlan;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A change: time of the prediction, version, segment, score and label if any, how long after it is due, difference.
    type Event = (i64, u32, u32, Option<(u8, f64)>, i64, i64);
    type Facts = BTreeMap<EventTime, BTreeMap<(Group, Name), Counts>>;

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let label = prop_oneof![Just(0.0), Just(1.0), Just(f64::NAN)];
        let told = prop::option::of((0u8..5, label));
        prop::collection::vec((0i64..300, 1u32..3, 3u32..6, told, 0i64..250, prop_oneof![Just(1), Just(-1)]), 1..120)
    }

    proptest! {
        /// A twin that looks each boundary up finds the same facts at the same boundaries, whatever was at hand before.
        #[test]
        fn as_the_twin(
            events in events(),
            passes in prop::collection::btree_map(0usize..120, 0i64..600, 0..6),
            plain in any::<bool>(),
            (refresh, within) in prop_oneof![Just((20, 45)), Just((50, 100)), Just((100, 7))],
            begun in prop_oneof![Just(i64::MIN), 0i64..200],
        ) {
            let windows = Windows { window: 100, refresh, within };
            let card = crate::plan::model::CardPlan { by: "card".to_owned(), text: false, k: 3, exclude: 0 };
            let plan = AccuracyPlan {
                metrics: vec![Metric::Auc],
                threshold: 0.5,
                bins: None,
                ranking: None,
                card: (!plain).then_some(card),
            };
            let mut names = Names::default();
            ["", "v1", "v2", "a", "b", "c"].iter().for_each(|name| {
                names.number(name);
            });
            let mut feed = Feed::new(Measures { task: Task::Binary, outputs: 1, plan }, windows, begun);
            let mut twin: BTreeMap<EventTime, BTreeMap<(Group, Name), Counting>> = BTreeMap::new();
            let (mut floor, mut told, mut expected) = (begun, Facts::new(), Facts::new());
            for (number, (time, version, segment, label, later, diff)) in events.into_iter().enumerate() {
                let due = time + later;
                let scores = [f64::from(label.map_or(0, |label| label.0))];
                let segments = [segment];
                let (window, group) = (windows.start(time), GroupOf::Number(7));
                let row = Row { time, ord: number as u64, window, version, scores: &scores, segments: &segments, group };
                let (change, due) = match label {
                    Some((_, label)) => (Change::Labelled(label, true), due),
                    None => (Change::Predicted, time),
                };
                feed.change(row, change, due, diff);
                let bucket = twin.entry(windows.told(window, due).max(floor)).or_default();
                for (column, value) in [(0, 0), (1, segment)] {
                    let group = Group { window, version: Name(names.text(version).clone()), segment: column };
                    let counting = bucket.entry((group, Name(names.text(value).clone()))).or_default();
                    match label {
                        None => counting.tally(Tally::Predicted, diff),
                        Some((_, label)) if label.is_nan() => counting.tally(Tally::Invalid, diff),
                        Some((_, label)) => {
                            counting.tally(Tally::Labelled, diff);
                            counting.score(0, Score::exact(scores[0]), label > 0.0, diff);
                        }
                    }
                }
                if let Some(watermark) = passes.get(&number).copied().filter(|_| number % 2 == 0) {
                    ripen(&mut feed, &mut twin, watermark, &names, &mut told, &mut expected);
                    floor = floor.max(windows.passed(watermark).saturating_add(1));
                }
            }
            ripen(&mut feed, &mut twin, i64::MAX, &names, &mut told, &mut expected);
            prop_assert_eq!(told, expected);
            prop_assert!(twin.is_empty() && feed.pending.is_empty());
        }
    }

    fn ripen(
        feed: &mut Feed,
        twin: &mut BTreeMap<EventTime, BTreeMap<(Group, Name), Counting>>,
        watermark: EventTime,
        names: &Names,
        told: &mut Facts,
        expected: &mut Facts,
    ) {
        let ripe = feed.ripen(watermark, names);
        for (boundary, facts) in ripe.facts {
            for fact in facts {
                if let Fact::Counts(group, counts) = fact {
                    let before = told.entry(boundary).or_default().insert(group, counts);
                    assert!(before.is_none(), "a group is told of once at a boundary");
                }
            }
        }
        while let Some(entry) = twin.first_entry().filter(|entry| *entry.key() <= ripe.passed) {
            let (boundary, groups) = entry.remove_entry();
            let groups = groups.into_iter().map(|(group, counting)| (group, counting.counts()));
            expected.insert(boundary, groups.collect());
        }
    }
}

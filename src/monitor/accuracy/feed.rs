//! Changes of matches on their way into the graph: held until the boundary at which they are told has passed.
//!
//! At one boundary a group may change a thousandfold: the graph sees all of it at once, and works on it once.

use std::collections::BTreeMap;
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
    pending: BTreeMap<EventTime, Bucket>,
    /// No change is told at a boundary before this.
    floor: EventTime,
    /// The places of the row at hand.
    places: Vec<Place>,
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
        Feed { measures, windows, pending: BTreeMap::new(), floor: passed, places: Vec::new() }
    }

    /// What the watermark has made ripe. `names` are those of the rows' numbers.
    pub fn ripen(&mut self, watermark: EventTime, names: &Names) -> Ripe {
        let passed = self.windows.passed(watermark);
        let mut ripe = Ripe { facts: Vec::new(), passed };
        while let Some(entry) = self.pending.first_entry()
            && *entry.key() <= passed
        {
            let (boundary, bucket) = entry.remove_entry();
            let mut facts = Vec::new();
            bucket.tell(names, &mut |fact| facts.push(fact));
            ripe.facts.push((boundary, facts));
        }
        self.floor = self.floor.max(passed.saturating_add(1));
        ripe
    }

    /// Changes held.
    pub fn held(&self) -> usize {
        let of = |bucket: &Bucket| {
            bucket.counts.iter().map(|(_, counts)| 1 + counts.held()).sum::<usize>()
                + bucket.ranked.len()
                + bucket.cards.len()
        };
        self.pending.values().map(of).sum()
    }

    fn fit(&self, row: &Row<'_>, label: f64) -> Fit {
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

impl Sink for Feed {
    fn change(&mut self, row: Row<'_>, change: Change, due: EventTime, diff: i64) {
        let boundary = self.windows.told(row.window, due).max(self.floor);
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        places.push((row.window, row.version, 0, 0));
        places.extend(row.segments.iter().zip(1..).map(|(value, segment)| (row.window, row.version, segment, *value)));
        let fit = if let Change::Labelled(label, _) = change { Some(self.fit(&row, label)) } else { None };
        let bucket = self.pending.entry(boundary).or_default();
        match (change, fit) {
            (Change::Predicted, _) => bucket.count(&places, Tally::Predicted, diff),
            (Change::Late, _) => bucket.count(&places, Tally::Late, diff),
            (Change::Orphan, _) => bucket.count(&[(row.window, 0, 0, 0)], Tally::Orphan, diff),
            (Change::Labelled(..), None | Some(Fit::Invalid)) => bucket.count(&places, Tally::Invalid, diff),
            (Change::Labelled(..), Some(fit)) => bucket.labelled(&self.measures, &places, &row, &fit, diff),
        }
        self.places = places;
    }
}

impl Bucket {
    /// The counts of a place, the `i`-th of its row.
    fn counting(&mut self, i: usize, place: &Place) -> &mut Counting {
        if self.last.len() <= i {
            self.last.resize(i + 1, usize::MAX);
        }
        if self.counts.get(self.last[i]).is_none_or(|(last, _)| last != place) {
            self.last[i] = *self.numbers.entry(*place).or_insert_with(|| {
                self.counts.push((*place, Counting::default()));
                self.counts.len() - 1
            });
        }
        &mut self.counts[self.last[i]].1
    }

    fn count(&mut self, places: &[Place], tally: Tally, diff: i64) {
        places.iter().enumerate().for_each(|(i, place)| self.counting(i, place).tally(tally, diff));
    }

    fn labelled(&mut self, measures: &Measures, places: &[Place], row: &Row<'_>, fit: &Fit, diff: i64) {
        let plan = &measures.plan;
        for (i, place) in places.iter().enumerate() {
            let counts = self.counting(i, place);
            counts.tally(Tally::Labelled, diff);
            count(measures, counts, row, fit, diff);
        }
        let by = match row.group {
            GroupOf::None => None,
            GroupOf::Number(number) => Some(By::Number(number)),
            GroupOf::Text(text) => Some(By::Text(Name(Arc::clone(text)))),
        };
        match (fit, by) {
            (Fit::Score { score, positive }, Some(group)) if plan.card.is_some() => {
                self.cards.push((places[0], group, (Score::exact(*score), *positive), diff));
            }
            (Fit::Item { score, relevance }, Some(query)) => {
                let ranked = Ranked {
                    score: std::cmp::Reverse(Score::exact(*score)),
                    ord: row.ord,
                    relevance: Score::exact(*relevance),
                };
                self.ranked.extend(places.iter().map(|place| (*place, query.clone(), ranked.clone(), diff)));
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

//! The values of a segment column in one window: each of the first few is a group, the others are one together.
//!
//! Which are told apart must not depend on arrival, nor on corrections of what came long ago: the smallest values, in the
//! order of their bytes, are. So a value that comes late may push another one out.

use std::sync::Arc;

use super::counts::Counts;
use super::items::{By, Name, Outcome, Score};
use super::measure::Measures;
use super::told::OTHER;

/// Statistics by value of a group's segment; values are sorted.
pub fn outcomes(measures: &Measures, apart: usize, values: &[(&Name, Counts)]) -> Vec<(Name, Outcome)> {
    let of = |counts: &Counts| Outcome::Values(measures.values(counts));
    let (apart, others) = values.split_at(apart.min(values.len()));
    let mut outcomes: Vec<_> = apart.iter().map(|(name, counts)| ((*name).clone(), of(counts))).collect();
    if let Some(((_, first), others)) = others.split_first() {
        let mut all = first.clone();
        others.iter().for_each(|(_, counts)| all.add(counts));
        outcomes.push((Name(Arc::from(OTHER)), of(&all)));
    }
    outcomes
}

/// The cards with the highest scores, of equal ones the smaller; `cards` are sorted that way.
pub fn first_cards(cards: &[(&(std::cmp::Reverse<Score>, By, bool), i64)], most: usize) -> Outcome {
    let first = cards.iter().filter(|(_, count)| *count > 0).take(most);
    Outcome::Cards(first.map(|((_, by, positive), _)| (by.clone(), *positive)).collect())
}

//! The values of a segment column in one window: each of the first few is a group, the others are one together.
//!
//! Which are told apart must not depend on arrival, nor on corrections of what came long ago: the smallest values, in the
//! order of their bytes, are. So a value that comes late may push another one out.

use std::sync::Arc;

use super::items::{By, Item, Name, Outcome, Score};
use super::measure::Measures;
use super::told::OTHER;

/// Statistics by value of a group's segment; `items` are sorted.
pub fn outcomes(measures: &Measures, apart: usize, items: &[(&(Name, Item), i64)]) -> Vec<(Name, Outcome)> {
    let of = |items: &[(&Item, i64)]| Outcome::Values(measures.values(items));
    let mut outcomes = Vec::new();
    let mut values = items.chunk_by(|a, b| a.0.0 == b.0.0);
    for value in values.by_ref().take(apart) {
        let items: Vec<(&Item, i64)> = value.iter().map(|((_, item), count)| (item, *count)).collect();
        outcomes.push((value[0].0.0.clone(), of(&items)));
    }
    let mut rest: Vec<(&Item, i64)> = values.flatten().map(|((_, item), count)| (item, *count)).collect();
    if !rest.is_empty() {
        rest.sort_unstable();
        outcomes.push((Name(Arc::from(OTHER)), of(&rest)));
    }
    outcomes
}

/// The cards with the highest scores, of equal ones the smaller; `cards` are sorted that way.
pub fn first_cards(cards: &[(&(std::cmp::Reverse<Score>, By, bool), i64)], most: usize) -> Outcome {
    let first = cards.iter().filter(|(_, count)| *count > 0).take(most);
    Outcome::Cards(first.map(|((_, by, positive), _)| (by.clone(), *positive)).collect())
}

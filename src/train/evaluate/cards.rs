//! Precision among the entities with the highest scores: what an investigator finds who has time for so many a day.
//!
//! Of each piece of time, each entity's highest score and highest label; the share of compromised entities among the first k
//! by score; entities that were found in one piece are left out of later ones; the mean over the pieces. Source: card
//! precision of Le Borgne et al., "Reproducible Machine Learning for Credit Card Fraud Detection", 2022. Equal scores, which
//! the book orders arbitrarily, stand in the order of the set's rows.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::{EventTime, Micros};

/// Precision among the entities with the highest scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CardOptions {
    /// A further column of the set: the card, the customer.
    pub by: String,
    /// Entities that are looked at in a piece of time.
    #[serde(default = "a_hundred")]
    pub k: u32,
    /// Length of a piece.
    #[serde(default = "a_day")]
    pub every: String,
}

fn a_hundred() -> u32 {
    100
}

fn a_day() -> String {
    "1d".into()
}

/// The mean over pieces of time that have rows; pieces begin at multiples of `every` after `start`.
pub fn card_precision(
    scores: &[f64],
    labels: &[f64],
    times: &[EventTime],
    entities: &[String],
    (start, every): (EventTime, Micros),
    k: u32,
) -> Option<f64> {
    let mut pieces: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
    for (row, time) in times.iter().enumerate() {
        pieces.entry((time - start).div_euclid(every.max(1))).or_default().push(row);
    }
    let (mut found, mut sum): (HashSet<&str>, f64) = (HashSet::new(), 0.0);
    for rows in pieces.values() {
        let mut at: HashMap<&str, usize> = HashMap::new();
        let mut cards: Vec<(&str, f64, bool)> = Vec::new();
        for row in rows {
            let entity = entities[*row].as_str();
            if found.contains(entity) {
                continue;
            }
            let card = *at.entry(entity).or_insert_with(|| {
                cards.push((entity, scores[*row], false));
                cards.len() - 1
            });
            cards[card].1 = cards[card].1.max(scores[*row]);
            cards[card].2 |= labels[*row] > 0.0;
        }
        cards.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut hits = 0u32;
        for (entity, _, compromised) in cards.iter().take(k as usize) {
            if *compromised {
                hits += 1;
                found.insert(entity);
            }
        }
        sum += f64::from(hits) / f64::from(k.max(1));
    }
    (!pieces.is_empty()).then(|| sum / pieces.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_cards_are_left_out_of_later_pieces() {
        let rows: [(i64, &str, f64, f64); 8] = [
            (0, "a", 0.2, 0.0),
            (1, "a", 0.9, 1.0), // the card's highest score and label
            (1, "a", 0.3, 0.0),
            (2, "b", 0.8, 0.0),
            (3, "c", 0.7, 1.0),   // third of two
            (10, "a", 0.99, 1.0), // found already
            (11, "c", 0.6, 1.0),
            (12, "d", 0.5, 0.0),
        ];
        let scores: Vec<f64> = rows.iter().map(|row| row.2).collect();
        let labels: Vec<f64> = rows.iter().map(|row| row.3).collect();
        let times: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let entities: Vec<String> = rows.iter().map(|row| row.1.to_owned()).collect();
        let of = |k, every| card_precision(&scores, &labels, &times, &entities, (0, every), k);
        // First piece: a and b, one hit of two; second: c and d, one hit of two.
        assert_eq!(of(2, 10), Some(0.5));
        assert_eq!(of(1, 10), Some(1.0));
        assert_eq!(of(3, 100), Some(2.0 / 3.0));
        assert_eq!(card_precision(&[], &[], &[], &[], (0, 1), 5), None);
    }
}

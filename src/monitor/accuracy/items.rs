//! What flows through the graph of statistics: which group a row counts in, and what is counted of it.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::counts::Counts;
use crate::base::EventTime;
use crate::plan::model::Metric;

/// A text that many rows have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub Arc<str>);

impl Name {
    /// A name of its own.
    pub fn of(text: &str) -> Name {
        Name(Arc::from(text))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        String::deserialize(deserializer).map(|text| Name(text.into()))
    }
}

/// Rows that are looked at together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group {
    /// Start of the window.
    pub window: EventTime,
    /// The model's version; empty for what is not known of a version.
    pub version: Name,
    /// 0 for all rows, else the number of the segment column.
    pub segment: u16,
}

/// A score in the order of its value: in bins the bin and whether it is at or above the threshold, else the float's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Score(u64);

impl Score {
    /// A float, which is not NaN, as it is.
    pub fn exact(value: f64) -> Score {
        // Zeros are one.
        let bits = (value + 0.0).to_bits();
        Score(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    }

    /// The float of an exact score.
    pub fn value(self) -> f64 {
        f64::from_bits(if self.0 >> 63 == 1 { self.0 & !(1 << 63) } else { !self.0 })
    }

    /// The bin of a float among `bins` of equal width from 0 to 1; what is outside is in the first or last.
    pub fn binned(value: f64, bins: u32, threshold: f64) -> Score {
        // A cast of what is outside saturates.
        let bin = ((value * f64::from(bins)) as u64).min(u64::from(bins) - 1);
        Score(bin << 1 | u64::from(value >= threshold))
    }

    /// The bin, and whether it is at or above the threshold.
    pub fn bin(self) -> (u64, bool) {
        (self.0 >> 1, self.0 & 1 == 1)
    }
}

/// The value of a column by which rows are grouped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum By {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(Name),
}

/// An item of a query: the best score first, of equal ones the earlier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ranked {
    /// Its score.
    pub score: Reverse<Score>,
    /// Its position.
    pub ord: u64,
    /// Its relevance.
    pub relevance: Score,
}

/// A change on its way into the graph.
#[derive(Clone, Debug)]
pub enum Fact {
    /// What is counted of a group, within a value of its segment.
    Counts((Group, Name), Counts),
    /// An item of a query.
    Ranked(((Group, Name, By), Ranked), i64),
    /// A row of a card.
    Card(((Group, By), (Score, bool)), i64),
}

/// Facts of one tick.
#[derive(Clone, Debug, Default)]
pub struct Ripe {
    /// Those of each boundary at which they are told, in the order of boundaries.
    pub facts: Vec<(EventTime, Vec<Fact>)>,
    /// The last boundary that the tick has passed: nothing more is told at or before it.
    pub passed: EventTime,
}

/// A statistic that came out of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value {
    /// Which.
    pub metric: Metric,
    /// Label and predicted class, for counts by class.
    pub subject: Option<(u16, u16)>,
    /// Bits of the value; none where it is not defined.
    pub value: Option<u64>,
    /// Bits of how far it may be off.
    pub bound: Option<u64>,
    /// Rows behind it.
    pub rows: u64,
}

/// What came out of the graph for a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Statistics.
    Values(Vec<Value>),
    /// The cards with the highest scores, and whether each was compromised.
    Cards(Vec<(By, bool)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_order() {
        let floats = [f64::NEG_INFINITY, -1e300, -1.0, -1e-310, 0.0, 1e-310, 0.1, 0.5, 1.0, 1e300, f64::INFINITY];
        let scores: Vec<Score> = floats.iter().map(|f| Score::exact(*f)).collect();
        assert!(scores.is_sorted() && scores.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(floats.iter().zip(&scores).all(|(float, score)| score.value() == *float));
        assert_eq!(Score::exact(-0.0), Score::exact(0.0));
    }

    #[test]
    fn bins_keep_the_threshold() {
        let bin = |value| Score::binned(value, 10, 0.55).bin();
        assert_eq!((bin(0.0), bin(0.54), bin(0.55), bin(1.0)), ((0, false), (5, false), (5, true), (9, true)));
        assert_eq!((bin(-3.0), bin(7.0)), ((0, false), (9, true)));
    }
}

//! Statistics of a group from what is counted of it: one pass over what the graph has sorted.
//!
//! Definitions are scikit-learn's where it has one. What it warns of and sets to zero, such as the precision of a model that
//! predicts no positives, is not defined here and has no value; averages over several classes count such a class as zero, as
//! there. Whole numbers are counted as such; floats are summed in the order of their scores with compensation, or exactly.

use super::binary::{self, Curve};
use super::classes;
use super::counts::{Counts, Point, Tally};
use super::items::{Ranked, Score, Value};
use super::sums::{Sums, Twofold};
use crate::plan::model::{AccuracyPlan, Metric, Task};

/// Places of [`Sums`].
pub mod place {
    /// Log loss.
    pub const LOG_LOSS: usize = 0;
    /// Squared distance of score and label.
    pub const BRIER: usize = 1;
    /// Squared error.
    pub const SQUARED: usize = 0;
    /// Absolute error.
    pub const ABSOLUTE: usize = 1;
    /// Absolute error relative to the label.
    pub const RELATIVE: usize = 2;
    /// The label.
    pub const LABEL: usize = 3;
    /// The label's square.
    pub const LABEL_SQUARED: usize = 4;
    /// Of a query: gain.
    pub const NDCG: usize = 0;
    /// Of a query: average precision.
    pub const MAP: usize = 1;
    /// Of a query: precision at k.
    pub const PRECISION: usize = 2;
    /// Of a query: recall at k.
    pub const RECALL: usize = 3;
    /// Queries that have a relevant item.
    pub const QUERIES: usize = 4;
}

/// What is computed, and of what.
#[derive(Clone, Debug)]
pub struct Measures {
    /// What the model does.
    pub task: Task,
    /// Outputs that are held against the label.
    pub outputs: usize,
    /// What is computed.
    pub plan: AccuracyPlan,
}

impl Measures {
    /// Whether a statistic is wanted.
    pub fn wants(&self, metric: Metric) -> bool {
        self.plan.metrics.contains(&metric)
    }

    /// The statistics of what is counted. A statistic that counts nothing is left out where that is the usual case.
    pub fn values(&self, counts: &Counts) -> Vec<Value> {
        let tally = |tally| counts.tally(tally);
        let (predicted, labelled) = (tally(Tally::Predicted), tally(Tally::Labelled));
        let mut values = Vec::new();
        let mut put = |metric, value, rows| values.push(Value { metric, subject: None, value, bound: None, rows });
        let number = |count: u64| Some((count as f64).to_bits());
        if predicted > 0 {
            let matched = labelled + tally(Tally::Invalid);
            put(Metric::Predictions, number(predicted), predicted);
            put(Metric::Unmatched, number(predicted.saturating_sub(matched)), predicted);
            let coverage = matched as f64 / predicted as f64;
            put(Metric::Coverage, Some(coverage.to_bits()), predicted);
        }
        for (metric, count) in [
            (Metric::LabelsLate, tally(Tally::Late)),
            (Metric::LabelsOrphan, tally(Tally::Orphan)),
            (Metric::LabelsInvalid, tally(Tally::Invalid)),
        ] {
            if count > 0 {
                put(metric, number(count), count);
            }
        }
        if labelled > 0 {
            match self.task {
                Task::Binary => binary::values(self, counts, &mut values),
                Task::Multiclass => classes::values(self, counts, &mut values),
                Task::Regression => self.regression(counts, &mut values),
                Task::Ranking => self.ranking(counts, &mut values),
            }
        }
        values
    }

    fn regression(&self, counts: &Counts, values: &mut Vec<Value>) {
        let rows = counts.tally(Tally::Labelled);
        let n = rows as f64;
        let sum = |place| counts.sums.get(place);
        let mean = |place| sum(place).value() / n;
        for metric in &self.plan.metrics {
            let value = match metric {
                Metric::Mse => Some(mean(place::SQUARED)),
                Metric::Rmse => Some(mean(place::SQUARED).sqrt()),
                Metric::Mae => Some(mean(place::ABSOLUTE)),
                Metric::Mape => Some(mean(place::RELATIVE)),
                Metric::R2 => {
                    let labels = sum(place::LABEL);
                    let total = sum(place::LABEL_SQUARED) * Twofold::of(n) - labels * labels;
                    let (errors, total) = (sum(place::SQUARED).value(), total.value() / n);
                    match (rows, total > 0.0, errors == 0.0) {
                        (..2, ..) => None,
                        (_, true, _) => Some(1.0 - errors / total),
                        // Labels that are all one: nothing is to be explained.
                        (_, false, right) => Some(f64::from(u8::from(right))),
                    }
                }
                _ => continue,
            };
            values.push(value_of(*metric, value, None, rows));
        }
    }

    fn ranking(&self, counts: &Counts, values: &mut Vec<Value>) {
        let queries = counts.sums.get(place::QUERIES).value();
        for metric in &self.plan.metrics {
            let place = match metric {
                Metric::Ndcg => place::NDCG,
                Metric::Map => place::MAP,
                Metric::PrecisionAtK => place::PRECISION,
                Metric::RecallAtK => place::RECALL,
                _ => continue,
            };
            let value = (queries > 0.0).then(|| counts.sums.get(place).value() / queries);
            values.push(value_of(*metric, value, None, counts.tally(Tally::Labelled)));
        }
    }

    /// What a query adds to the sums of its group; nothing when none of its items is relevant.
    ///
    /// Gains are the relevances, discounted by the logarithm to base 2 of the rank plus one; among equal scores they are
    /// averaged, as scikit-learn does. The first k for precision and recall take the earlier of equal scores.
    pub fn query(&self, items: &[(&Ranked, i64)]) -> Option<Sums> {
        let k = self.plan.ranking.as_ref().map_or(10, |ranking| ranking.k);
        let items: Vec<(Score, f64)> = items
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(item, _)| (item.score.0, item.relevance.value()))
            .collect();
        let relevant = items.iter().filter(|(_, relevance)| *relevance > 0.0).count();
        if relevant == 0 {
            return None;
        }
        let discount = |rank: usize| if rank < k { 1.0 / ((rank + 2) as f64).log2() } else { 0.0 };
        let (mut gain, mut rank) = (Twofold::default(), 0);
        for equal in items.chunk_by(|a, b| a.0 == b.0) {
            let discounts: f64 = (rank..rank + equal.len()).map(discount).sum();
            let mean = equal.iter().map(|(_, relevance)| relevance).sum::<f64>() / equal.len() as f64;
            gain = gain + Twofold::of(mean * discounts);
            rank += equal.len();
        }
        let mut best: Vec<f64> = items.iter().map(|(_, relevance)| *relevance).collect();
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        let ideal: f64 = best.iter().enumerate().map(|(rank, relevance)| relevance * discount(rank)).sum();
        let points = |equal: &[(Score, f64)]| {
            let relevant = equal.iter().filter(|(_, relevance)| *relevance > 0.0).count() as i64;
            (equal[0].0, equal.len() as i64 - relevant, relevant)
        };
        let mut points: Vec<Point> = items.chunk_by(|a, b| a.0 == b.0).map(points).collect();
        points.reverse();
        let curve = Curve::of(&points);
        let found = items.iter().take(k).filter(|(_, relevance)| *relevance > 0.0).count() as f64;
        let mut sums = Sums::default();
        sums.at(place::NDCG).add(if ideal > 0.0 { gain.value() / ideal } else { 0.0 }, 1);
        sums.at(place::MAP).add(curve.average_precision().unwrap_or_default(), 1);
        sums.at(place::PRECISION).add(found / k as f64, 1);
        sums.at(place::RECALL).add(found / relevant as f64, 1);
        sums.at(place::QUERIES).add(1.0, 1);
        Some(sums)
    }
}

/// A statistic that is not by class.
pub(super) fn value_of(metric: Metric, value: Option<f64>, bound: Option<f64>, rows: u64) -> Value {
    let bits = |value: Option<f64>| value.filter(|value| value.is_finite()).map(f64::to_bits);
    Value { metric, subject: None, value: bits(value), bound: bits(bound), rows }
}

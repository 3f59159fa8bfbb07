//! Statistics of scores for one class against the rest, from counts by score.

use super::counts::{Counts, Point};
use super::items::{Score, Value};
use super::measure::{Measures, place, value_of};
use super::sums::Twofold;
use crate::plan::model::Metric;

/// Bins of the calibration error.
const CALIBRATION_BINS: usize = 10;

/// Counts of negative and positive labels by score, the lowest score first.
#[derive(Debug)]
pub(super) struct Curve<'a> {
    points: &'a [Point],
    negative: u64,
    positive: u64,
}

/// Labels of a point. At a time that is complete none is less than nothing.
fn labels(point: &Point) -> (u64, u64) {
    (point.1.max(0).cast_unsigned(), point.2.max(0).cast_unsigned())
}

impl<'a> Curve<'a> {
    /// Of points in the order of their scores.
    pub fn of(points: &'a [Point]) -> Curve<'a> {
        let sum = |of: fn((u64, u64)) -> u64| points.iter().map(|point| of(labels(point))).sum();
        Curve { points, negative: sum(|labels| labels.0), positive: sum(|labels| labels.1) }
    }

    /// Area under the ROC curve and, when scores are in bins, how far it may be off.
    ///
    /// The share of pairs of a positive and a negative label whose positive scores higher, ties counting one half (Mann and
    /// Whitney 1947): a whole number of half pairs, so exact up to the one division. Pairs in one bin may be ordered either
    /// way: each may be half a pair off.
    pub fn auc(&self) -> Option<(f64, f64)> {
        let (mut below, mut halves, mut tied) = (0u128, 0u128, 0u128);
        for (negatives, positives) in self.points.iter().map(labels) {
            let (negatives, positives) = (u128::from(negatives), u128::from(positives));
            halves += positives * (2 * below + negatives);
            tied += positives * negatives;
            below += negatives;
        }
        let pairs = u128::from(self.negative) * u128::from(self.positive);
        let half = |count: u128| count as f64 / (2 * pairs) as f64;
        (pairs > 0).then(|| (half(halves), half(tied)))
    }

    /// Mean precision over positive labels: the sum over scores, the highest first, of the gain in recall times the precision
    /// so far. No interpolation.
    pub fn average_precision(&self) -> Option<f64> {
        self.precision_sum(|found, seen, negatives, positives| {
            positives as f64 * ((found + positives) as f64 / (seen + negatives + positives) as f64)
        })
    }

    /// Of scores in bins: how far the average precision may be off, whatever the order within bins.
    fn average_precision_bound(&self) -> Option<f64> {
        let told = self.average_precision()?;
        let ordered = |best: bool| {
            self.precision_sum(|found, seen, negatives, positives| {
                let before = if best { 0 } else { negatives };
                (1..=positives).map(|i| (found + i) as f64 / (seen + before + i) as f64).sum()
            })
        };
        Some((ordered(true)? - told).max(told - ordered(false)?).max(0.0))
    }

    fn precision_sum(&self, part: impl Fn(u64, u64, u64, u64) -> f64) -> Option<f64> {
        let (mut found, mut seen, mut sum) = (0, 0, Twofold::default());
        for (negatives, positives) in self.points.iter().rev().map(labels) {
            if positives > 0 {
                sum = sum + Twofold::of(part(found, seen, negatives, positives));
            }
            found += positives;
            seen += negatives + positives;
        }
        (self.positive > 0).then(|| sum.value() / self.positive as f64)
    }

    fn rows(&self) -> u64 {
        self.negative + self.positive
    }

    /// Whether all scores, which are exact, are probabilities.
    fn are_probabilities(&self) -> bool {
        let inside = |point: Option<&Point>| point.is_none_or(|point| (0.0..=1.0).contains(&point.0.value()));
        inside(self.points.first()) && inside(self.points.last())
    }

    /// The mean over rows of what a score costs with a negative and with a positive label.
    fn mean(&self, cost: impl Fn(f64) -> (f64, f64)) -> f64 {
        let sum = self.points.iter().fold(Twofold::default(), |sum, point| {
            let ((negatives, positives), (negative, positive)) = (labels(point), cost(point.0.value()));
            sum + Twofold::of(negatives as f64) * Twofold::of(negative)
                + Twofold::of(positives as f64) * Twofold::of(positive)
        });
        sum.value() / self.rows() as f64
    }

    /// Expected calibration error over ten bins of equal width: the mean distance between the mean score of a bin and its
    /// share of positive labels, weighted by its rows.
    fn calibration_error(&self, probability: impl Fn(Score) -> f64) -> f64 {
        let mut bins = [(Twofold::default(), 0u64, 0u64); CALIBRATION_BINS];
        for point in self.points {
            let (p, (negatives, positives)) = (probability(point.0), labels(point));
            let at = ((p * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
            let rows = negatives + positives;
            bins[at].0 = bins[at].0 + Twofold::of(rows as f64) * Twofold::of(p);
            bins[at].1 += positives;
            bins[at].2 += rows;
        }
        let far = bins.iter().map(|(scores, positives, _)| (scores.value() - *positives as f64).abs());
        far.sum::<f64>() / self.rows() as f64
    }

    /// Negatives and positives below the threshold, then at or above it.
    fn split(&self, above: impl Fn(Score) -> bool) -> [(u64, u64); 2] {
        let mut sides = [(0, 0); 2];
        for point in self.points {
            let (side, (negatives, positives)) = (&mut sides[usize::from(above(point.0))], labels(point));
            side.0 += negatives;
            side.1 += positives;
        }
        sides
    }
}

/// What a probability costs: minus its logarithm, never that of zero.
///
/// Source: scikit-learn's `log_loss`, which keeps probabilities away from 0 and 1 by the float's epsilon.
pub(super) fn log_cost(probability: f64) -> f64 {
    -probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// Statistics of two classes.
pub(super) fn values(measures: &Measures, counts: &Counts, values: &mut Vec<Value>) {
    let (curve, plan) = (Curve::of(counts.curve(0)), &measures.plan);
    let (rows, bins) = (curve.rows(), plan.bins);
    let [(tn, fn_), (fp, tp)] = curve.split(|score| match bins {
        Some(_) => score.bin().1,
        None => score.value() >= plan.threshold,
    });
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let probabilities = bins.is_some() || curve.are_probabilities();
    for metric in &plan.metrics {
        let exact = |value| (value, None);
        let (value, bound) = match metric {
            Metric::Accuracy => exact(share(tp + tn, rows)),
            Metric::Precision => exact(share(tp, tp + fp)),
            Metric::Recall => exact(share(tp, tp + fn_)),
            Metric::F1 => exact(share(2 * tp, 2 * tp + fp + fn_)),
            Metric::PositiveRate => exact(share(curve.positive, rows)),
            Metric::Auc => {
                let auc = curve.auc();
                (auc.map(|auc| auc.0), auc.map(|auc| auc.1).filter(|_| bins.is_some()))
            }
            Metric::AveragePrecision => {
                let bound = bins.and_then(|_| curve.average_precision_bound());
                (curve.average_precision(), bound)
            }
            Metric::Confusion => {
                for (subject, count) in [((0, 0), tn), ((0, 1), fp), ((1, 0), fn_), ((1, 1), tp)] {
                    let value = Some((count as f64).to_bits());
                    values.push(Value { metric: *metric, subject: Some(subject), value, bound: None, rows });
                }
                continue;
            }
            Metric::LogLoss if bins.is_some() => exact(Some(counts.sums.get(place::LOG_LOSS).value() / rows as f64)),
            Metric::Brier if bins.is_some() => exact(Some(counts.sums.get(place::BRIER).value() / rows as f64)),
            Metric::LogLoss => exact(probabilities.then(|| curve.mean(|p| (log_cost(1.0 - p), log_cost(p))))),
            Metric::Brier => exact(probabilities.then(|| curve.mean(|p| (p * p, (1.0 - p) * (1.0 - p))))),
            Metric::CalibrationError => match bins {
                None => exact(probabilities.then(|| curve.calibration_error(Score::value))),
                Some(bins) => {
                    let middle = |score: Score| (score.bin().0 as f64 + 0.5) / f64::from(bins);
                    (Some(curve.calibration_error(middle)), Some(0.5 / f64::from(bins)))
                }
            },
            _ => continue,
        };
        values.push(value_of(*metric, value, bound, rows));
    }
}

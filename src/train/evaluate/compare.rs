//! How far apart two models are on the same rows, and how sure that is.
//!
//! Areas under the ROC curve have DeLong's covariance (DeLong, DeLong and Clarke-Pearson 1988; by midranks, Sun and Xu 2014),
//! means over rows that of their differences, and everything else the bootstrap: rows, or all rows of an entity together,
//! are drawn with replacement, the same for both models, and the interval holds the middle of what comes out.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use crate::base::SplitMix64;
use crate::plan::model::Metric;
use crate::train::metrics::{Judged, Sum};

/// A value and the ends of its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The value.
    pub value: f64,
    /// Lower end; none where there is no interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Told {
    /// A value without an interval.
    pub fn bare(value: f64) -> Told {
        Told { value, low: None, high: None }
    }

    fn around(value: f64, reach: f64) -> Told {
        Told { value, low: Some(value - reach), high: Some(value + reach) }
    }
}

/// Where an interval comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// DeLong's covariance of areas.
    Delong,
    /// The variance of a mean over rows.
    Normal,
    /// Resamples.
    Bootstrap,
    /// There is none.
    None,
}

/// A statistic of a model beside another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The statistic.
    pub metric: String,
    /// Of the challenger; none where it is not defined.
    pub challenger: Option<Told>,
    /// Of the champion.
    pub champion: Option<Told>,
    /// Challenger less champion.
    pub difference: Option<Told>,
    /// Where the intervals come from.
    pub method: Method,
}

/// Ranks from 1 of values in ascending order; equal ones share the mean of theirs.
fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let (mut ranks, mut from) = (vec![0.0; values.len()], 0);
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = from as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|at| ranks[*at] = rank);
        from += tied.len();
    }
    ranks
}

/// What each positive and each negative row says of an area: the shares of the others that it is on the right side of.
fn placements(scores: &[f64], labels: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let side = |label: f64| -> Vec<f64> {
        scores.iter().zip(labels).filter(|(_, y)| **y == label).map(|(score, _)| *score).collect()
    };
    let (negative, positive) = (side(0.0), side(1.0));
    let all = midranks(&positive.iter().chain(&negative).copied().collect::<Vec<f64>>());
    let (above, below) = all.split_at(positive.len());
    let (m, n) = (positive.len() as f64, negative.len() as f64);
    let of_positive = above.iter().zip(midranks(&positive)).map(|(all, own)| (all - own) / n).collect();
    let of_negative = below.iter().zip(midranks(&negative)).map(|(all, own)| 1.0 - (all - own) / m).collect();
    (of_positive, of_negative)
}

fn mean(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.get() / values.len() as f64
}

/// The variance of the mean of values; not defined for fewer than two.
fn variance_of_mean(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let middle = mean(values);
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add((value - middle) * (value - middle)));
    (values.len() > 1).then(|| sum.get() / (n - 1.0) / n)
}

/// The variance of a difference of areas, or of one area, by DeLong; not defined for fewer than two rows of a label.
pub fn delong_variance(scores: &[f64], other: Option<&[f64]>, labels: &[f64]) -> Option<f64> {
    let (mut positive, mut negative) = placements(scores, labels);
    if let Some(other) = other {
        let (p, n) = placements(other, labels);
        positive.iter_mut().zip(p).for_each(|(a, b)| *a -= b);
        negative.iter_mut().zip(n).for_each(|(a, b)| *a -= b);
    }
    Some(variance_of_mean(&positive)? + variance_of_mean(&negative)?)
}

/// How many standard deviations an interval of this confidence reaches.
pub(super) fn reach_of(confidence: f64) -> f64 {
    Normal::standard().inverse_cdf(0.5 + confidence / 2.0)
}

/// One model or two with the labels of the same rows.
pub(super) struct Pair<'a> {
    pub challenger: &'a Judged<'a>,
    pub champion: Option<&'a Judged<'a>>,
}

impl Pair<'_> {
    /// The statistic of both without intervals.
    fn bare(&self, metric: Metric) -> Compared {
        let challenger = self.challenger.value(metric);
        let champion = self.champion.and_then(|champion| champion.value(metric));
        Compared {
            metric: metric.name().to_owned(),
            challenger: challenger.map(Told::bare),
            champion: champion.map(Told::bare),
            difference: challenger.zip(champion).map(|(a, b)| Told::bare(a - b)),
            method: Method::None,
        }
    }

    /// The statistic of both with the intervals that follow from a formula; none where there is no formula.
    pub fn by_formula(&self, metric: Metric, confidence: f64) -> Compared {
        let reach = reach_of(confidence);
        let mut told = self.bare(metric);
        let around = |value: &mut Option<Told>, variance: Option<f64>| {
            if let (Some(value), Some(variance)) = (value.as_mut(), variance) {
                *value = Told::around(value.value, reach * variance.sqrt());
            }
        };
        if metric == Metric::Auc && self.challenger.is_binary() {
            let (scores, labels) = (self.challenger.scores(), self.challenger.labels());
            if told.challenger.is_some() {
                around(&mut told.challenger, delong_variance(scores, None, labels));
            }
            if let Some(champion) = self.champion.filter(|_| told.champion.is_some()) {
                around(&mut told.champion, delong_variance(champion.scores(), None, labels));
                around(&mut told.difference, delong_variance(scores, Some(champion.scores()), labels));
            }
            told.method = Method::Delong;
        } else if let Some(parts) = self.challenger.parts(metric) {
            around(&mut told.challenger, variance_of_mean(&parts));
            if let Some(others) = self.champion.and_then(|champion| champion.parts(metric)) {
                around(&mut told.champion, variance_of_mean(&others));
                let apart: Vec<f64> = parts.iter().zip(&others).map(|(a, b)| a - b).collect();
                around(&mut told.difference, variance_of_mean(&apart));
            }
            told.method = Method::Normal;
        }
        told
    }
}

/// How resamples are drawn.
pub(super) struct Resampling<'a> {
    pub repeats: u32,
    pub confidence: f64,
    pub seed: u64,
    pub threads: usize,
    /// Per row, the number of its entity, from 0 without a gap; none draws rows.
    pub entities: Option<&'a [u32]>,
}

/// A sequence of its own for each repeat, so that it does not matter who draws it.
pub(in crate::train) fn sequence(seed: u64, at: u64) -> SplitMix64 {
    let first = SplitMix64::new(seed).word();
    SplitMix64::new(SplitMix64::new(first ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).word())
}

/// Calls `task` for each of `0..count` on so many threads; results are in order.
pub(in crate::train) fn parallel<T: Send>(count: usize, threads: usize, task: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return (0..count).map(task).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, task(at)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, value)| value).collect()
}

/// Statistics of both models with intervals from resamples.
pub(super) fn bootstrap(pair: &Pair<'_>, metrics: &[Metric], how: &Resampling<'_>) -> Vec<Compared> {
    let rows = pair.challenger.rows();
    let units = how.entities.map_or(rows, |entities| entities.iter().max().map_or(0, |last| *last as usize + 1));
    let drawn = parallel(how.repeats as usize, how.threads, |repeat| {
        let mut random = sequence(how.seed, repeat as u64);
        let mut times = vec![0u32; units];
        (0..units).for_each(|_| times[random.below(units as u64) as usize] += 1);
        if let Some(entities) = how.entities {
            times = entities.iter().map(|entity| times[*entity as usize]).collect();
        }
        let of = |judged: &Judged<'_>| -> Vec<Option<f64>> {
            metrics.iter().map(|metric| judged.resampled(*metric, &times)).collect()
        };
        (of(pair.challenger), pair.champion.map(of))
    });
    metrics
        .iter()
        .enumerate()
        .map(|(at, metric)| {
            let mut told = pair.bare(*metric);
            let between = |value: &mut Option<Told>, drawn: Vec<Option<f64>>| {
                if let Some(told) = value {
                    (told.low, told.high) = middle(drawn, how.confidence).unzip();
                }
            };
            let other = |champion: &Option<Vec<Option<f64>>>| champion.as_ref().and_then(|values| values[at]);
            between(&mut told.challenger, drawn.iter().map(|(values, _)| values[at]).collect());
            between(&mut told.champion, drawn.iter().map(|(_, champion)| other(champion)).collect());
            let apart = |(values, champion): &(Vec<Option<f64>>, _)| Some(values[at]? - other(champion)?);
            between(&mut told.difference, drawn.iter().map(apart).collect());
            told.method =
                if told.challenger.is_some_and(|told| told.low.is_some()) { Method::Bootstrap } else { Method::None };
            told
        })
        .collect()
}

/// The ends of the middle of values; none when more than one in twenty is not defined.
fn middle(values: Vec<Option<f64>>, confidence: f64) -> Option<(f64, f64)> {
    let all = values.len();
    let mut values: Vec<f64> = values.into_iter().flatten().collect();
    if values.is_empty() || values.len() * 20 < all * 19 {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some((quantile(&values, tail), quantile(&values, 1.0 - tail)))
}

/// A quantile of sorted values, between neighbours in proportion.
pub(super) fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    match sorted.get(low + 1) {
        Some(next) => sorted[low] + part * (next - sorted[low]),
        None => sorted[low],
    }
}

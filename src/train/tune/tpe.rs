//! Tree-structured Parzen estimator: tries what is likelier among the good trials than among the others.
//!
//! Trials are parted by their result into the better ones, `G`, and the rest, `B`. Each part has a density: a mixture, with
//! equal weights, of one product of kernels around each of its points and one uniform over the space. Kernels of ranges are
//! normal distributions cut off at the ends, of width `0.2 n^(-1 / (d + 4))`; those of choices give a part of their weight to all
//! choices alike. Candidates are drawn from the density of `G`; the one with the greatest ratio of densities is tried.
//!
//! Sources: J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011; joint kernels as in S. Falkner et al.,
//! "BOHB", 2018. Trials are proposed in batches of a fixed size, whatever the number of threads; those of a batch that have
//! no result yet stand in `B`, so that a batch does not crowd.

use std::collections::HashSet;

use statrs::distribution::{Continuous, ContinuousCDF, Normal};

use super::random::{fresh, key};
use super::space::{Domain, Space};
use crate::base::SplitMix64;
use crate::train::evaluate::compare::sequence;

/// Candidates that are compared.
const CANDIDATES: usize = 64;
/// Share of the trials that are good, and ...
const GOOD: f64 = 0.15;
/// ... how many at most.
const GOOD_MAX: usize = 25;

/// A mixture of kernels.
struct Density<'a> {
    space: &'a Space,
    points: Vec<&'a [f64]>,
    width: f64,
}

impl<'a> Density<'a> {
    fn new(space: &'a Space, points: Vec<&'a [f64]>) -> Self {
        let n = points.len().max(1) as f64;
        let open = space.dimensions.iter().filter(|d| d.domain.levels() != Some(1)).count() as f64;
        Density { space, points, width: 0.2 * n.powf(-1.0 / (open + 4.0)) }
    }

    /// How likely a kernel around `middle` makes `at`.
    fn kernel(&self, domain: &Domain, middle: f64, at: f64) -> f64 {
        match domain {
            Domain::Choice(values) => {
                // As much smoothing as a range has.
                let spread = (2.5 * self.width).min(1.0);
                let same = if middle == at { 1.0 - spread } else { 0.0 };
                same + spread / values.len() as f64
            }
            Domain::Range { .. } => {
                let Ok(normal) = Normal::new(middle, self.width) else { return 1.0 };
                normal.pdf(at) / (normal.cdf(1.0) - normal.cdf(0.0)).max(f64::MIN_POSITIVE)
            }
        }
    }

    fn log(&self, point: &[f64]) -> f64 {
        let uniform: f64 = self
            .space
            .dimensions
            .iter()
            .map(|d| if let Domain::Choice(values) = &d.domain { 1.0 / values.len() as f64 } else { 1.0 })
            .product();
        let kernels = self.points.iter().map(|middle| {
            let each = self.space.dimensions.iter().zip(middle.iter().zip(point));
            each.map(|(dimension, (middle, at))| self.kernel(&dimension.domain, *middle, *at)).product::<f64>()
        });
        ((kernels.sum::<f64>() + uniform) / (self.points.len() + 1) as f64).max(f64::MIN_POSITIVE).ln()
    }

    fn draw(&self, random: &mut SplitMix64) -> Vec<f64> {
        let at = random.below(self.points.len() as u64 + 1) as usize;
        let Some(middles) = self.points.get(at) else { return self.space.draw(random) };
        let each = self.space.dimensions.iter().zip(middles.iter());
        each.map(|(dimension, middle)| match &dimension.domain {
            Domain::Choice(values) => {
                let other = random.below(values.len() as u64) as f64;
                if random.unit() < (2.5 * self.width).min(1.0) { other } else { *middle }
            }
            range => {
                let Ok(normal) = Normal::new(*middle, self.width) else { return *middle };
                let (from, to) = (normal.cdf(0.0), normal.cdf(1.0));
                range.snapped(normal.inverse_cdf(from + random.unit() * (to - from)).clamp(0.0, 1.0))
            }
        })
        .collect()
    }
}

/// The points of the next batch. `done` are the points so far with their results, the less the better, infinite where a
/// trial failed. Shorter than `count` when the space has nothing left.
pub(super) fn next(space: &Space, seed: u64, startup: usize, done: &[(Vec<f64>, f64)], count: usize) -> Vec<Vec<f64>> {
    let mut order: Vec<usize> = (0..done.len()).collect();
    order.sort_by(|a, b| done[*a].1.total_cmp(&done[*b].1));
    let good = ((done.len() as f64 * GOOD).ceil() as usize).clamp(1, GOOD_MAX).min(done.len());
    let (good, rest) = order.split_at(good);
    let better = Density::new(space, good.iter().map(|at| done[*at].0.as_slice()).collect());
    let mut tried: HashSet<String> = done.iter().map(|(point, _)| key(space, point)).collect();
    let mut batch: Vec<Vec<f64>> = Vec::new();
    while batch.len() < count {
        let number = (done.len() + batch.len()) as u64;
        let mut chosen = None;
        if done.len() >= startup {
            let others = rest.iter().map(|at| done[*at].0.as_slice()).chain(batch.iter().map(Vec::as_slice));
            let worse = Density::new(space, others.collect());
            let mut random = sequence(seed ^ 0x7e11, number);
            let candidates = (0..CANDIDATES).map(|_| better.draw(&mut random));
            chosen = candidates
                .filter(|point| !tried.contains(&key(space, point)))
                .map(|point| (better.log(&point) - worse.log(&point), point))
                .reduce(|best, next| if next.0 > best.0 { next } else { best })
                .map(|(_, point)| point);
        }
        // The first trials, and those for which nothing new was near.
        let Some(point) = chosen.or_else(|| fresh(space, seed, number, &tried)) else { break };
        tried.insert(key(space, &point));
        batch.push(point);
    }
    batch
}

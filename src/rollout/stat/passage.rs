//! When a Gaussian walk with drift first passes a curved boundary: how long a sequential test takes.
//!
//! The walk `W(t)`, of variance `t` and drift `μ`, is above the boundary at `t` only if it passed it at some `s ≤ t` and from there
//! came to be above again. With the distribution `F` of the first passage,
//!
//! `P(W(t) > u(t)) = ∫ P(W(t) > u(t) | W(s) = u(s)) dF(s)`,
//!
//! a Volterra equation of the first kind, solved step by step on a grid (Park and Schuurmann, "Evaluations of barrier-crossing
//! probabilities of Wiener paths", 1976). That is exact for a test that is looked at without pause, up to the grid.

use super::fixed::above;

/// Distribution of the first passage: times, and the probability of a passage by then.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    times: Vec<f64>,
    passed: Vec<f64>,
}

impl Passage {
    /// Of the boundary `upper` between the times `from` and `to`, on a geometric grid of `steps`.
    pub fn of(upper: impl Fn(f64) -> f64, drift: f64, from: f64, to: f64, steps: usize) -> Passage {
        let growth = (to / from).powf(1.0 / steps as f64);
        let times: Vec<f64> = (1..=steps).map(|i| from * growth.powi(i as i32)).collect();
        // Passages within a step are taken to be in its middle.
        let middles: Vec<(f64, f64)> = times.iter().map(|t| t / growth.sqrt()).map(|t| (t, upper(t))).collect();
        let mut masses: Vec<f64> = Vec::with_capacity(steps);
        let mut passed = Vec::with_capacity(steps);
        let mut total: f64 = 0.0;
        for (j, t) in times.iter().enumerate() {
            let u = upper(*t);
            let again = |(s, at): &(f64, f64)| above((u - at - drift * (t - s)) / (t - s).sqrt());
            let earlier: f64 = masses.iter().zip(&middles).map(|(mass, middle)| mass * again(middle)).sum();
            let mass = (above((u - drift * t) / t.sqrt()) - earlier) / again(&middles[j]);
            let mass = mass.clamp(0.0, 1.0 - total);
            total += mass;
            masses.push(mass);
            passed.push(total);
        }
        Passage { times, passed }
    }

    /// The time by which it is passed with probability `p`; `None` where the grid ends before.
    pub fn quantile(&self, p: f64) -> Option<f64> {
        let at = self.passed.iter().position(|passed| *passed >= p)?;
        let (t, high) = (self.times[at], self.passed[at]);
        let (before, low) = match at {
            0 => return Some(t),
            at => (self.times[at - 1], self.passed[at - 1]),
        };
        Some(before + (t - before) * (p - low) / (high - low))
    }

    /// Probability that it is passed by `t`.
    pub fn by(&self, t: f64) -> f64 {
        match self.times.iter().rposition(|time| *time <= t) {
            Some(at) => self.passed[at],
            None => 0.0,
        }
    }

    /// The mean of the time of passage, or of `end` where that is earlier.
    pub fn mean_until(&self, end: f64) -> f64 {
        let (mut mean, mut time, mut passed) = (0.0, 0.0, 0.0);
        for (t, p) in self.times.iter().zip(&self.passed).take_while(|(t, _)| **t <= end) {
            mean += (t - time) * (1.0 - (passed + p) / 2.0);
            (time, passed) = (*t, *p);
        }
        mean + (end - time).max(0.0) * (1.0 - passed)
    }
}

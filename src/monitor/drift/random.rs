//! Numbers that look random and are the same in every run.

use crate::base::hash_u64;

/// Mean above which a binomial is drawn as a rounded normal.
const MANY: f64 = 30.0;

/// SplitMix64.
pub(super) struct Random(pub u64);

impl Random {
    /// At least 0 and below 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (hash_u64(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// How many of `n` have a property of probability `p`.
    fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if n <= 0.0 || p <= 0.0 {
            return 0.0;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if n * p > MANY {
            return (n * p + self.normal() * (n * p * (1.0 - p)).sqrt()).round().clamp(0.0, n);
        }
        // By inversion: the probabilities of 0, 1, 2, … in turn.
        let (mut left, odds) = (self.uniform(), p / (1.0 - p));
        let (mut count, mut share) = (0.0, (n * (-p).ln_1p()).exp());
        while left > share && count < n {
            left -= share;
            share *= odds * (n - count) / (count + 1.0);
            count += 1.0;
        }
        count
    }

    /// How `n` fall into groups of these shares.
    pub fn multinomial(&mut self, n: f64, shares: &[f64], counts: &mut Vec<f64>) {
        counts.clear();
        let (mut rows, mut rest) = (n.round(), 1.0);
        for (index, share) in shares.iter().enumerate() {
            let count = if index + 1 == shares.len() { rows } else { self.binomial(rows, (share / rest).min(1.0)) };
            counts.push(count);
            rows -= count;
            rest -= share;
        }
    }
}

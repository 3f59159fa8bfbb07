//! Sums from which means and variances follow, exact, so that rows may be taken away again in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::monitor::accuracy::sums::{ExactSum, Twofold};

/// Rows, and the exact sums of their values and of the values' squares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moments {
    rows: i64,
    sum: ExactSum,
    squares: ExactSum,
}

impl Moments {
    /// Adds a value `times` times, which may be less than none. What is not finite is left out.
    pub fn add(&mut self, value: f64, times: i64) {
        if value.is_finite() {
            self.rows += times;
            self.sum.add(value, times);
            self.squares.add_product(value, value, times);
        }
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Moments) {
        self.rows += other.rows;
        self.sum.add_sum(&other.sum);
        self.squares.add_sum(&other.squares);
    }

    /// Rows.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// The mean, where there are rows.
    pub fn mean(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.sum.get().value() / self.rows as f64)
    }

    /// The sample variance, where there are two rows.
    pub fn variance(&self) -> Option<f64> {
        self.both().map(|(_, variance)| variance)
    }

    /// The mean and the sample variance, where there are two rows.
    fn both(&self) -> Option<(f64, f64)> {
        if self.rows < 2 {
            return None;
        }
        let (n, sum) = (self.rows as f64, self.sum.get());
        let spread = Twofold::of(n) * self.squares.get() - sum * sum;
        Some((sum.value() / n, spread.value().max(0.0) / (n * (n - 1.0))))
    }
}

/// Values of rows that are assigned together by their group, such as all rows of some customers.
///
/// Rows of a group resemble each other, so that they tell less than as many rows of different groups. The mean's variance is
/// therefore taken between groups: with `n_g` rows and the sum `s_g` of group `g`, of `G` groups and `n` rows,
/// `G / (G − 1) · Σ (s_g − mean · n_g)² / n²` (the cluster-robust variance of a ratio; Cochran, Sampling Techniques, 6.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouped(BTreeMap<u16, (i64, ExactSum)>);

impl Grouped {
    fn add(&mut self, group: u16, value: f64, times: i64) {
        if value.is_finite() {
            let (rows, sum) = self.0.entry(group).or_default();
            *rows += times;
            sum.add(value, times);
            if *rows == 0 && *sum == ExactSum::default() {
                self.0.remove(&group);
            }
        }
    }

    fn variance_of_mean(&self, mean: f64, rows: f64) -> Option<f64> {
        if self.0.len() < 2 {
            return None;
        }
        let groups = self.0.len() as f64;
        let spread: f64 = self.0.values().map(|(n, sum)| (sum.get().value() - mean * *n as f64).powi(2)).sum();
        Some(groups / (groups - 1.0) * spread / (rows * rows))
    }
}

/// Losses of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    all: Moments,
    /// Where rows are assigned in groups.
    grouped: Grouped,
}

impl Sample {
    /// Adds a row's value `times` times; `group` where rows are assigned in groups, and then of all rows.
    pub fn add(&mut self, value: f64, group: Option<u16>, times: i64) {
        self.all.add(value, times);
        if let Some(group) = group {
            self.grouped.add(group, value, times);
        }
    }

    /// Rows.
    pub fn rows(&self) -> i64 {
        self.all.rows
    }

    /// The mean and its variance, where both are known.
    pub fn mean(&self) -> Option<(f64, f64)> {
        let ((mean, variance), rows) = (self.all.both()?, self.all.rows as f64);
        let variance = match self.grouped.0.is_empty() {
            true => variance / rows,
            false => self.grouped.variance_of_mean(mean, rows)?,
        };
        Some((mean, variance))
    }
}

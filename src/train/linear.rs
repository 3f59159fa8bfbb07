//! Linear regression: least squares, plain or with penalties (ridge, lasso, elastic net).
//!
//! Minimises `1/(2·Σwᵢ) · Σ wᵢ·(yᵢ − ŷᵢ)² + α · (ρ·|β|₁ + (1 − ρ)/2·|β|²)`, scikit-learn's `ElasticNet(alpha=α, l1_ratio=ρ)`, without a penalty
//! on the intercept: its `Lasso(α)` where ρ is 1, its `Ridge(α·Σwᵢ)` where ρ is 0, its `LinearRegression` where α is 0.

use serde::{Deserialize, Serialize};

use super::algebra::{Symmetric, descend};
use super::data::{Set, Task};
use super::dense::{Dense, sum_rows};
use super::error::TrainError;
use super::learner::{Options, Progress, check_set, data};
use super::model::{Linear, Link};

/// Settings of linear regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearRegression {
    /// Strength of the penalty: 0, least squares, unless given.
    pub alpha: f64,
    /// The part of the penalty that is on absolute weights (which makes some of them 0), from 0 (ridge) to 1 (lasso). 0 unless given.
    pub l1_ratio: f64,
    /// Whether there is an intercept. True unless given.
    pub intercept: bool,
}

impl Default for LinearRegression {
    fn default() -> Self {
        LinearRegression { alpha: 0.0, l1_ratio: 0.0, intercept: true }
    }
}

/// A pivot below this part of its column's squares tells of columns that say the same.
const SINGULAR: f64 = 1e-11;

impl LinearRegression {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |setting, why: String| Err(TrainError::Setting { learner: "linear", setting, why });
        match self {
            s if !(s.alpha >= 0.0 && s.alpha.is_finite()) => fail("alpha", format!("{} is not at least 0", s.alpha)),
            s if !(0.0..=1.0).contains(&s.l1_ratio) => fail("l1_ratio", format!("{} is not from 0 to 1", s.l1_ratio)),
            _ => Ok(()),
        }
    }

    /// Fits. Inputs are numbers without gaps: see [`super::prepare`]. Inputs that say the same share their weight where no penalty decides:
    /// of the best weights the shortest are taken.
    ///
    /// # Errors
    /// As [`super::learner::fit`]; besides, inputs that are not finite numbers, a task of classes.
    pub fn fit(&self, set: &Set, task: Task, options: &Options) -> Result<Linear, TrainError> {
        self.check()?;
        check_set(set, task)?;
        if task != Task::Regression {
            return Err(data("linear regression tells numbers, and the labels are classes; use logistic".to_owned()));
        }
        let rows = Dense::of(&set.inputs)?;
        let weights = set.weights.clone().unwrap_or_else(|| vec![1.0; rows.rows()]);
        let (labels, threads) = (&set.labels, options.threads);
        let squares = Squares::of(&rows, labels, &weights, self.intercept, threads);
        let n = rows.columns();
        let (ridge, lasso) = (self.alpha * (1.0 - self.l1_ratio), self.alpha * self.l1_ratio);
        let mut gram = squares.gram.clone();
        (0..n).for_each(|i| gram.add(i, i, ridge));
        let mut found = vec![0.0; n];
        if lasso > 0.0 {
            descend(&gram, &squares.right, &vec![lasso; n], &mut found, 1e-12, 100_000);
        } else {
            // The residuals of the first solution tell what rounding in the products has cost it.
            for _ in 0..2 {
                let mut left = squares.left(&rows, labels, &weights, &found, threads);
                left.iter_mut().zip(&found).for_each(|(l, x)| *l -= ridge * x);
                let more = gram.solve(&left, SINGULAR).unwrap_or_else(|| gram.solve_shortest(&left, SINGULAR));
                found.iter_mut().zip(more).for_each(|(x, more)| *x += more);
            }
        }
        let intercept = squares.label_mean - squares.means.iter().zip(&found).map(|(m, x)| m * x).sum::<f64>();
        options.tell(Progress { done: 1, total: 1, loss: None })?;
        Ok(Linear { weights: vec![found], intercepts: vec![intercept], link: Link::Identity })
    }
}

/// Means and mean products of the centred inputs and labels.
struct Squares {
    /// All 0 without an intercept.
    means: Vec<f64>,
    label_mean: f64,
    total: f64,
    gram: Symmetric,
    right: Vec<f64>,
}

impl Squares {
    fn of(rows: &Dense, labels: &[f64], weights: &[f64], intercept: bool, threads: usize) -> Squares {
        let n = rows.columns();
        let mut sums = sum_rows(rows.rows(), threads, n + 2, |range, sum| {
            for row in range {
                let w = weights[row];
                sum.iter_mut().zip(rows.row(row)).for_each(|(s, v)| *s += w * v);
                sum[n] += w * labels[row];
                sum[n + 1] += w;
            }
        });
        let total = sums[n + 1];
        sums.iter_mut().for_each(|s| *s = if intercept { *s / total } else { 0.0 });
        let (means, label_mean) = (sums[..n].to_vec(), sums[n]);
        let triangle = n * (n + 1) / 2;
        let products = sum_rows(rows.rows(), threads, triangle + n, |range, sum| {
            let mut centred = vec![0.0; n];
            let (products, right) = sum.split_at_mut(triangle);
            for row in range {
                centre(rows.row(row), &means, &mut centred);
                let label = labels[row] - label_mean;
                let mut cells = &mut *products;
                for (i, v) in centred.iter().enumerate() {
                    let scaled = weights[row] * v;
                    let (line, after) = cells.split_at_mut(i + 1);
                    line.iter_mut().zip(&centred).for_each(|(c, v)| *c += scaled * v);
                    cells = after;
                    right[i] += scaled * label;
                }
            }
        });
        let mut gram = Symmetric::zeros(n);
        let mut cells = products.iter();
        for i in 0..n {
            for j in 0..=i {
                gram.set(i, j, cells.next().unwrap_or(&0.0) / total);
            }
        }
        let right = products[triangle..].iter().map(|r| r / total).collect();
        Squares { means, label_mean, total, gram, right }
    }

    /// What is left of the right side with weights in place: mean products of the centred inputs and the residuals.
    fn left(&self, rows: &Dense, labels: &[f64], weights: &[f64], found: &[f64], threads: usize) -> Vec<f64> {
        let n = rows.columns();
        let mut left = sum_rows(rows.rows(), threads, n, |range, sum| {
            let mut centred = vec![0.0; n];
            for row in range {
                centre(rows.row(row), &self.means, &mut centred);
                let told: f64 = centred.iter().zip(found).map(|(v, x)| v * x).sum();
                let residual = weights[row] * (labels[row] - self.label_mean - told);
                sum.iter_mut().zip(&centred).for_each(|(s, v)| *s += residual * v);
            }
        });
        left.iter_mut().for_each(|l| *l /= self.total);
        left
    }
}

fn centre(row: &[f64], means: &[f64], out: &mut [f64]) {
    out.iter_mut().zip(row).zip(means).for_each(|((o, v), m)| *o = v - m);
}

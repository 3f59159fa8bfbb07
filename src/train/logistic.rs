//! Logistic regression: two classes by one sum, more by a softmax over one sum each.
//!
//! Minimises `C · Σ wᵢ·lossᵢ + (1 − ρ)/2 · |β|² + ρ · |β|₁` as scikit-learn's `LogisticRegression(C, l1_ratio=ρ)` does, without a penalty on
//! intercepts. The objective is divided by `C · Σ wᵢ` within.

use serde::{Deserialize, Serialize};

use super::algebra::Symmetric;
use super::data::{Set, Task};
use super::dense::{Dense, sum_rows};
use super::error::TrainError;
use super::learner::{Options, Progress, check_set, data};
use super::minimise::{Smooth, minimise};
use super::model::{Linear, Link};
use crate::score::math::exp64;

/// Settings of logistic regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logistic {
    /// How much the data weigh against the penalty: the inverse of its strength. 1 unless given.
    pub c: f64,
    /// The part of the penalty that is on absolute weights (which makes some of them 0), from 0, all squares, to 1. 0 unless given.
    pub l1_ratio: f64,
    /// Whether sums have an intercept. True unless given.
    pub intercept: bool,
    /// Whether each class counts alike, however many rows it has. False unless given.
    pub balanced: bool,
    /// Steps at most. 100 unless given.
    pub max_steps: u32,
}

impl Default for Logistic {
    fn default() -> Self {
        Logistic { c: 1.0, l1_ratio: 0.0, intercept: true, balanced: false, max_steps: 100 }
    }
}

/// A step below this, relative to the largest weight, is the last: Newton's method squares what is left.
const TOLERANCE: f64 = 1e-7;

impl Logistic {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |setting, why: String| Err(TrainError::Setting { learner: "logistic", setting, why });
        match self {
            s if !(s.c > 0.0 && s.c.is_finite()) => fail("c", format!("{} is not above 0", s.c)),
            s if !(0.0..=1.0).contains(&s.l1_ratio) => fail("l1_ratio", format!("{} is not from 0 to 1", s.l1_ratio)),
            s if s.max_steps == 0 => fail("max_steps", "0 fits nothing; write 1 or more".to_owned()),
            _ => Ok(()),
        }
    }

    /// Fits. Inputs are numbers without gaps, best of similar size: see [`super::prepare`].
    ///
    /// # Errors
    /// As [`super::learner::fit`]; besides, inputs that are not finite numbers, a task without classes, no minimum after `max_steps`.
    pub fn fit(&self, set: &Set, task: Task, options: &Options) -> Result<Linear, TrainError> {
        self.check()?;
        check_set(set, task)?;
        let classes = match task {
            Task::Binary => 2,
            Task::Classes(n) => n as usize,
            Task::Regression => {
                return Err(data(
                    "logistic regression tells classes, and the labels are numbers; use linear".to_owned(),
                ));
            }
        };
        let rows = Dense::of(&set.inputs)?;
        let labels: Vec<u32> = set.labels.iter().map(|label| *label as u32).collect();
        let mut weights = set.weights.clone().unwrap_or_else(|| vec![1.0; rows.rows()]);
        if self.balanced {
            balance(&mut weights, &labels, classes);
        }
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        let sums = if classes == 2 { 1 } else { classes };
        let strength = 1.0 / (self.c * total);
        let stride = rows.columns() + usize::from(self.intercept);
        let mut penalty = vec![0.0; sums * stride];
        for sum in penalty.chunks_exact_mut(stride) {
            sum[..rows.columns()].fill(strength * self.l1_ratio);
        }
        let loss = Loss {
            rows: &rows,
            labels: &labels,
            weights: &weights,
            sums,
            stride,
            ridge: strength * (1.0 - self.l1_ratio),
            threads: options.threads,
        };
        let told = |done, total, loss| options.tell(Progress { done, total, loss: Some(loss) });
        let least = minimise(&loss, &penalty, TOLERANCE, self.max_steps, told)?;
        if !least.found {
            let why = format!("no minimum after {} steps; write more, scale the inputs, or lower c", least.steps);
            return Err(TrainError::Setting { learner: "logistic", setting: "max_steps", why });
        }
        Ok(linear(&least.x, &rows, sums, stride, self.intercept, task))
    }
}

/// Makes every class weigh alike.
fn balance(weights: &mut [f64], labels: &[u32], classes: usize) {
    let mut of_class = vec![0.0; classes];
    labels.iter().zip(weights.iter()).for_each(|(l, w)| of_class[*l as usize] += w);
    let total: f64 = of_class.iter().sum();
    weights.iter_mut().zip(labels).for_each(|(w, l)| *w *= total / (classes as f64 * of_class[*l as usize]));
}

/// The model of a vector of unknowns.
fn linear(x: &[f64], rows: &Dense, sums: usize, stride: usize, intercept: bool, task: Task) -> Linear {
    let mut weights: Vec<Vec<f64>> = Vec::with_capacity(sums);
    let mut intercepts = Vec::with_capacity(sums);
    for sum in 0..sums {
        let own = &x[sum * stride..(sum + 1) * stride];
        weights.push(own[..rows.columns()].to_vec());
        intercepts.push(if intercept { own[rows.columns()] } else { 0.0 });
    }
    match task {
        Task::Classes(2) => {
            // Two sums whose softmax is the logistic function of their difference.
            weights.insert(0, vec![0.0; rows.columns()]);
            intercepts.insert(0, 0.0);
        }
        Task::Classes(_) => {
            // The same amount added to every intercept changes nothing: they are told with the mean 0.
            let mean = intercepts.iter().sum::<f64>() / sums.max(1) as f64;
            intercepts.iter_mut().for_each(|b| *b -= mean);
        }
        Task::Binary | Task::Regression => {}
    }
    let link = if task == Task::Binary { Link::Logistic } else { Link::Softmax };
    Linear { weights, intercepts, link }
}

/// The mean loss and the squared part of the penalty. Unknowns: per sum its weights, then its intercept.
struct Loss<'a> {
    rows: &'a Dense,
    labels: &'a [u32],
    /// Adding up to 1.
    weights: &'a [f64],
    /// 1 for two classes, else one per class.
    sums: usize,
    /// Unknowns per sum.
    stride: usize,
    ridge: f64,
    threads: usize,
}

impl Loss<'_> {
    /// Writes a row's probabilities (of label 1, or of every class) and tells its loss.
    fn probabilities(&self, x: &[f64], row: usize, out: &mut [f64]) -> f64 {
        let inputs = self.rows.row(row);
        for (out, x) in out.iter_mut().zip(x.chunks_exact(self.stride)) {
            let sum: f64 = inputs.iter().zip(x).map(|(v, x)| v * x).sum();
            *out = sum + x.get(inputs.len()).copied().unwrap_or(0.0);
        }
        let label = self.labels[row] as usize;
        if let [z] = out {
            let small = exp64(-z.abs());
            let own = if label == 1 { *z } else { -*z };
            *z = if *z >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
            return (-own).max(0.0) + small.ln_1p();
        }
        let top = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = out[label] - top;
        let mut total = 0.0;
        for p in out.iter_mut() {
            *p = exp64(*p - top);
            total += *p;
        }
        out.iter_mut().for_each(|p| *p /= total);
        total.ln() - own
    }

    /// What the squared penalty adds to the value and the slope.
    fn add_ridge(&self, x: &[f64], value: &mut f64, slope: &mut [f64]) {
        for (sum, x) in x.chunks_exact(self.stride).enumerate() {
            for (i, x) in x[..self.rows.columns()].iter().enumerate() {
                *value += self.ridge / 2.0 * x * x;
                slope[sum * self.stride + i] += self.ridge * x;
            }
        }
    }

    /// Adds a row's part of the slope: `by` per sum times its inputs.
    fn add_slope(&self, row: usize, by: &[f64], slope: &mut [f64]) {
        let inputs = self.rows.row(row);
        for (by, slope) in by.iter().zip(slope.chunks_exact_mut(self.stride)) {
            slope.iter_mut().zip(inputs).for_each(|(s, v)| *s += by * v);
            if let Some(intercept) = slope.get_mut(inputs.len()) {
                *intercept += by;
            }
        }
    }

    /// What the loss falls by with each sum, weighted.
    fn pull(&self, row: usize, probabilities: &mut [f64]) {
        let label = self.labels[row] as usize;
        match &mut *probabilities {
            [p] => *p -= label as f64,
            many => many[label] -= 1.0,
        }
        probabilities.iter_mut().for_each(|p| *p *= self.weights[row]);
    }
}

impl Smooth for Loss<'_> {
    fn size(&self) -> usize {
        self.sums * self.stride
    }

    fn value(&self, x: &[f64]) -> f64 {
        let sum = sum_rows(self.rows.rows(), self.threads, 1, |range, sum| {
            let mut p = vec![0.0; self.sums];
            sum[0] += range.map(|row| self.weights[row] * self.probabilities(x, row, &mut p)).sum::<f64>();
        });
        let mut value = sum[0];
        self.add_ridge(x, &mut value, &mut vec![0.0; x.len()]);
        value
    }

    fn slope(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let size = self.size();
        let mut sum = sum_rows(self.rows.rows(), self.threads, size + 1, |range, sum| {
            let mut p = vec![0.0; self.sums];
            let (slope, value) = sum.split_at_mut(size);
            for row in range {
                value[0] += self.weights[row] * self.probabilities(x, row, &mut p);
                self.pull(row, &mut p);
                self.add_slope(row, &p, slope);
            }
        });
        let mut value = sum.pop().unwrap_or(0.0);
        self.add_ridge(x, &mut value, &mut sum);
        (value, sum)
    }

    fn curve(&self, x: &[f64]) -> (f64, Vec<f64>, Symmetric) {
        let (size, stride) = (self.size(), self.stride);
        // Of the second derivatives, blocks (a, b) with a ≥ b, the lower triangle of each.
        let triangle = stride * (stride + 1) / 2;
        let blocks = self.sums * (self.sums + 1) / 2;
        let total = sum_rows(self.rows.rows(), self.threads, blocks * triangle + size + 1, |range, sum| {
            let mut p = vec![0.0; self.sums];
            let mut inputs = vec![1.0; stride];
            let mut scaled = vec![0.0; stride];
            let (curve, rest) = sum.split_at_mut(blocks * triangle);
            let (slope, value) = rest.split_at_mut(size);
            for row in range {
                let weight = self.weights[row];
                value[0] += weight * self.probabilities(x, row, &mut p);
                inputs[..self.rows.columns()].copy_from_slice(self.rows.row(row));
                let mut block = curve.chunks_exact_mut(triangle.max(1));
                for a in 0..self.sums {
                    for b in 0..=a {
                        let bend = match (self.sums, a == b) {
                            (1, _) => p[0] * (1.0 - p[0]),
                            (_, true) => p[a] * (1.0 - p[a]),
                            (_, false) => -p[a] * p[b],
                        };
                        scaled.iter_mut().zip(&inputs).for_each(|(s, v)| *s = weight * bend * v);
                        let Some(mut cells) = block.next() else { break };
                        for (i, s) in scaled.iter().enumerate() {
                            let (line, after) = cells.split_at_mut(i + 1);
                            line.iter_mut().zip(&inputs).for_each(|(c, v)| *c += s * v);
                            cells = after;
                        }
                    }
                }
                self.pull(row, &mut p);
                self.add_slope(row, &p, slope);
            }
        });
        let (curve, rest) = total.split_at(blocks * triangle);
        let (slope, value) = rest.split_at(size);
        let (mut value, mut slope) = (value[0], slope.to_vec());
        self.add_ridge(x, &mut value, &mut slope);
        let mut matrix = Symmetric::zeros(size);
        let mut cells = curve.iter();
        for a in 0..self.sums {
            for b in 0..=a {
                for i in 0..stride {
                    for j in 0..=i {
                        let cell = *cells.next().unwrap_or(&0.0);
                        matrix.set(a * stride + i, b * stride + j, cell);
                        matrix.set(a * stride + j, b * stride + i, cell);
                    }
                }
            }
        }
        for sum in 0..self.sums {
            (0..self.rows.columns()).for_each(|i| matrix.add(sum * stride + i, sum * stride + i, self.ridge));
        }
        if self.sums > 1 && stride > self.rows.columns() {
            // All intercepts together are free to move; as the slope along that is 0, any curvature keeps them where they are.
            for a in 0..self.sums {
                for b in 0..=a {
                    matrix.add(a * stride + stride - 1, b * stride + stride - 1, 1.0 / self.sums as f64);
                }
            }
        }
        (value, slope, matrix)
    }
}

//! What boosting makes smaller: log loss of two or more classes, or the squared error; and a watch on a validation set.
//!
//! Derivatives by the score s of a row with weight w: two classes, p = logistic(s): w (p − y) and w p (1 − p). K classes, p_k the softmax:
//! w (p_k − [y = k]) and w p_k (1 − p_k) K / (K − 1), the factor as in LightGBM. A number: w (s − y) and w.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::data::{Matrix, Set, Task};
use super::histogram::{Item, Units};
use super::model::Tree;
use super::parallel::each;
use super::predict::Walker;
use crate::score::math::exp64;

/// Rows whose derivatives are computed at a time.
const BLOCK: usize = 4096;

/// Scores of all rows, and their derivatives.
pub(super) struct Loss<'a> {
    set: &'a Set,
    task: Task,
    threads: usize,
    base: Vec<f64>,
    /// Bits of each row's score, one vector per output: leaves are added by several threads, each to rows of its own.
    scores: Vec<Vec<AtomicU64>>,
    /// Probabilities of all classes at the start of a round.
    probabilities: Vec<Vec<f64>>,
    weight_max: f64,
}

impl<'a> Loss<'a> {
    pub fn new(set: &'a Set, task: Task, threads: usize) -> Loss<'a> {
        let base = base(set, task);
        let scores =
            base.iter().map(|base| (0..set.rows()).map(|_| AtomicU64::new(base.to_bits())).collect()).collect();
        let weight_max = set.weights.as_ref().map_or(1.0, |weights| weights.iter().copied().fold(0.0, f64::max));
        Loss { set, task, threads, base, scores, probabilities: Vec::new(), weight_max }
    }

    /// The scores before the first tree.
    pub fn base(&self) -> Vec<f64> {
        self.base.clone()
    }

    /// Trees of a round.
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// Begins a round.
    pub fn prepare(&mut self) {
        if !matches!(self.task, Task::Classes(_)) {
            return;
        }
        let rows = self.set.rows();
        self.probabilities.resize_with(self.base.len(), || vec![0.0; rows]);
        let scores = &self.scores;
        let mut columns: Vec<_> = self.probabilities.iter_mut().map(|column| column.chunks_mut(BLOCK)).collect();
        let mut blocks: Vec<(usize, Vec<&mut [f64]>)> = (0..rows.div_ceil(BLOCK))
            .map(|block| (block * BLOCK, columns.iter_mut().filter_map(Iterator::next).collect()))
            .collect();
        each(self.threads, &mut blocks, |(start, block)| {
            for (column, scores) in block.iter_mut().zip(scores) {
                for (out, score) in column.iter_mut().zip(&scores[*start..]) {
                    *out = f64::from_bits(score.load(Relaxed));
                }
            }
            super::predict::softmax(block);
        });
    }

    /// The derivatives of all rows by one output.
    pub fn derive(&self, output: usize, items: &mut [Item]) -> Units {
        let rows = self.set.rows();
        let scores = &self.scores[output];
        let labels = &self.set.labels;
        let classes = self.base.len() as f64;
        let (gradient_max, hessian_max) = match self.task {
            Task::Binary => (self.weight_max, self.weight_max / 4.0),
            Task::Classes(_) => (self.weight_max, self.weight_max * classes / (classes - 1.0) / 4.0),
            Task::Regression => {
                let sizes = (0..rows).map(|row| {
                    let weight = self.set.weights.as_ref().map_or(1.0, |weights| weights[row]);
                    (weight * (f64::from_bits(scores[row].load(Relaxed)) - labels[row])).abs()
                });
                (sizes.fold(0.0, f64::max), self.weight_max)
            }
        };
        let units = Units::new(rows, gradient_max, hessian_max);
        let (by_gradient, by_hessian) = (1.0 / units.gradient, 1.0 / units.hessian);
        let mut blocks: Vec<(usize, &mut [Item])> =
            items.chunks_mut(BLOCK).enumerate().map(|(block, items)| (block * BLOCK, items)).collect();
        each(self.threads, &mut blocks, |(start, items)| {
            let (start, rows) = (*start, items.len());
            let (mut first, mut second) = ([0.0; BLOCK], [1.0; BLOCK]);
            let labels = &labels[start..start + rows];
            match self.task {
                Task::Binary => {
                    for (p, score) in first.iter_mut().zip(&scores[start..start + rows]) {
                        *p = f64::from_bits(score.load(Relaxed));
                    }
                    for ((g, h), y) in first.iter_mut().zip(&mut second).zip(labels) {
                        let p = 1.0 / (1.0 + exp64(-*g));
                        *h = p * (1.0 - p);
                        *g = p - y;
                    }
                }
                Task::Classes(_) => {
                    let factor = classes / (classes - 1.0);
                    let probabilities = &self.probabilities[output][start..start + rows];
                    for (((g, h), p), y) in first.iter_mut().zip(&mut second).zip(probabilities).zip(labels) {
                        *g = p - f64::from(u8::from(*y == output as f64));
                        *h = p * (1.0 - p) * factor;
                    }
                }
                Task::Regression => {
                    for ((g, score), y) in first.iter_mut().zip(&scores[start..start + rows]).zip(labels) {
                        *g = f64::from_bits(score.load(Relaxed)) - y;
                    }
                }
            }
            if let Some(weights) = &self.set.weights {
                for ((g, h), weight) in first.iter_mut().zip(&mut second).zip(&weights[start..start + rows]) {
                    *g *= weight;
                    *h *= weight;
                }
            }
            for (index, item) in items.iter_mut().enumerate() {
                let (gradient, hessian) = (rounded(first[index] * by_gradient), rounded(second[index] * by_hessian));
                *item = Item { row: (start + index) as u32, gradient: gradient as i32, hessian: hessian as u32 };
            }
        });
        units
    }

    /// Adds values of leaves to the scores of the rows that lie in them.
    pub fn add(&self, output: usize, items: &[Item], leaves: &mut [(Range<usize>, f64)]) {
        let scores = &self.scores[output];
        let threads = if items.len() < 50_000 { 1 } else { self.threads };
        each(threads, leaves, |(range, value)| {
            for item in &items[range.clone()] {
                let score = &scores[item.row as usize];
                score.store((f64::from_bits(score.load(Relaxed)) + *value).to_bits(), Relaxed);
            }
        });
    }

    /// Adds a tree to the scores of all rows, those it did not see among them.
    pub fn add_tree(&self, output: usize, tree: &Tree, inputs: &Matrix) {
        let walker = Walker::new(std::slice::from_ref(tree), inputs);
        let scores = &self.scores[output];
        let mut blocks: Vec<usize> = (0..inputs.rows()).step_by(BLOCK).collect();
        each(self.threads, &mut blocks, |start| {
            let end = inputs.rows().min(*start + BLOCK);
            let mut block: Vec<f64> =
                scores[*start..end].iter().map(|score| f64::from_bits(score.load(Relaxed))).collect();
            walker.add(*start, &mut [&mut block]);
            for (score, sum) in scores[*start..end].iter().zip(&block) {
                score.store(sum.to_bits(), Relaxed);
            }
        });
    }
}

/// The nearest integer, without a library call: 1.5 · 2^52 leaves it in the low bits.
#[inline(always)]
fn rounded(x: f64) -> i64 {
    const SHIFT: f64 = 6755399441055744.0;
    (x + SHIFT).to_bits() as i64 - SHIFT.to_bits() as i64
}

/// The constant model: what every row is told before the first tree.
fn base(set: &Set, task: Task) -> Vec<f64> {
    let weight = |row: usize| set.weights.as_ref().map_or(1.0, |weights| weights[row]);
    let total: f64 = (0..set.rows()).map(weight).sum();
    let share = |hit: &dyn Fn(f64) -> f64| -> f64 {
        set.labels.iter().enumerate().map(|(row, label)| weight(row) * hit(*label)).sum::<f64>() / total
    };
    match task {
        Task::Binary => {
            let p = share(&|label| label);
            vec![(p / (1.0 - p)).ln()]
        }
        Task::Classes(n) => {
            (0..n).map(|class| share(&|label| f64::from(u8::from(label == f64::from(class)))).ln()).collect()
        }
        Task::Regression => vec![share(&|label| label)],
    }
}

/// The loss on a validation set, tree by tree.
pub(super) struct Watch<'a> {
    set: &'a Set,
    task: Task,
    sums: Vec<Vec<f64>>,
    loss: f64,
    best: (f64, u32),
}

impl<'a> Watch<'a> {
    pub fn new(set: &'a Set, task: Task, base: &[f64]) -> Watch<'a> {
        let sums = base.iter().map(|base| vec![*base; set.rows()]).collect();
        let mut watch = Watch { set, task, sums, loss: f64::INFINITY, best: (f64::INFINITY, 0) };
        watch.loss = watch.mean();
        watch.best = (watch.loss, 0);
        watch
    }

    /// Mean loss by the trees so far.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// Rounds after which it was least.
    pub fn best_round(&self) -> u32 {
        self.best.1
    }

    pub fn add(&mut self, trees: &[Tree]) {
        let walker = Walker::new(trees, &self.set.inputs);
        let mut sums: Vec<&mut [f64]> = self.sums.iter_mut().map(Vec::as_mut_slice).collect();
        walker.add(0, &mut sums);
        self.loss = self.mean();
    }

    /// Takes note of a round; whether it is the last, as the loss has not fallen for `patience` rounds.
    pub fn stops(&mut self, round: u32, patience: Option<u32>) -> bool {
        if self.loss < self.best.0 {
            self.best = (self.loss, round);
        }
        patience.is_some_and(|patience| round - self.best.1 >= patience)
    }

    fn mean(&self) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for (row, label) in self.set.labels.iter().enumerate() {
            let loss = match self.task {
                // −ln p of what was seen, as ln(1 + e^−z): nothing is lost where p is near 1.
                Task::Binary => softplus(if *label == 1.0 { -self.sums[0][row] } else { self.sums[0][row] }),
                Task::Classes(_) => {
                    let most = self.sums.iter().map(|sum| sum[row]).fold(f64::NEG_INFINITY, f64::max);
                    let all: f64 = self.sums.iter().map(|sum| exp64(sum[row] - most)).sum();
                    all.ln() + most - self.sums[*label as usize][row]
                }
                Task::Regression => (self.sums[0][row] - label).powi(2),
            };
            let weight = self.set.weights.as_ref().map_or(1.0, |weights| weights[row]);
            sum += weight * loss;
            total += weight;
        }
        sum / total
    }
}

/// ln(1 + e^x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + exp64(-x.abs()).ln_1p()
}

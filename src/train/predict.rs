//! What a fitted model tells of the rows of a matrix.

use super::data::{Column, MISSING, Matrix};
use super::model::{Ensemble, Fitted, Linear, Link, Node, Split};
use crate::score::math::exp64;

impl Fitted {
    /// What the model tells, one vector per output: the probability of label 1 (binary), a probability per class, or a
    /// number. Columns are taken by their place; one that is not there counts as missing.
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        match self {
            Fitted::Ensemble(ensemble) => ensemble.predict(inputs),
            Fitted::Linear(linear) => linear.predict(inputs),
        }
    }
}

impl Ensemble {
    /// As [`Fitted::predict`].
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        let rows = inputs.rows();
        let mut sums: Vec<Vec<f64>> = self.base.iter().map(|base| vec![*base; rows]).collect();
        for tree in &self.trees {
            for row in 0..rows {
                let values = tree.leaf(inputs, row);
                for (output, value) in values.iter().enumerate() {
                    sums[tree.first_output as usize + output][row] += value;
                }
            }
        }
        self.link.apply(&mut sums);
        sums
    }
}

impl super::model::Tree {
    /// The values of the leaf that a row comes to: the walk as it is defined, for tests and single rows.
    pub fn leaf(&self, inputs: &Matrix, row: usize) -> &[f64] {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf { values } => return values,
                Node::Branch { column, split, missing_left, left, right, .. } => {
                    let yes = match (inputs.columns.get(*column as usize), split) {
                        (Some(Column::Number(values)), Split::AtMost(_)) if values[row].is_nan() => *missing_left,
                        (Some(Column::Number(values)), Split::AtMost(threshold)) => values[row] <= *threshold,
                        (Some(Column::Category { codes, .. }), Split::In(_)) if codes[row] == MISSING => *missing_left,
                        (Some(Column::Category { codes, .. }), Split::In(set)) => {
                            set.binary_search(&codes[row]).is_ok()
                        }
                        _ => *missing_left,
                    };
                    at = if yes { *left } else { *right } as usize;
                }
            }
        }
    }
}

impl Linear {
    /// As [`Fitted::predict`]; a row with a missing value or a category gives NaN.
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        let rows = inputs.rows();
        let mut sums: Vec<Vec<f64>> = self.intercepts.iter().map(|intercept| vec![*intercept; rows]).collect();
        for (sums, weights) in sums.iter_mut().zip(&self.weights) {
            for (index, weight) in weights.iter().enumerate() {
                match inputs.columns.get(index) {
                    Some(Column::Number(values)) => {
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += weight * f64::from(*value);
                        }
                    }
                    _ => sums.fill(f64::NAN),
                }
            }
        }
        self.link.apply(&mut sums);
        sums
    }
}

impl Link {
    /// Turns sums, one vector per sum, into what the model tells.
    pub fn apply(self, sums: &mut [Vec<f64>]) {
        match self {
            Link::Identity | Link::Probability => {}
            Link::Logistic => {
                for sum in sums.iter_mut().flatten() {
                    *sum = 1.0 / (1.0 + exp64(-*sum));
                }
            }
            Link::Softmax => {
                let rows = sums.first().map_or(0, Vec::len);
                for row in 0..rows {
                    let most = sums.iter().map(|sum| sum[row]).fold(f64::NEG_INFINITY, f64::max);
                    let mut total = 0.0;
                    for sum in sums.iter_mut() {
                        sum[row] = exp64(sum[row] - most);
                        total += sum[row];
                    }
                    for sum in sums.iter_mut() {
                        sum[row] /= total;
                    }
                }
            }
        }
    }
}

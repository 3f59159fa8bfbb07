//! A fitted model with its preparation: from the columns of a feature set to what is told of a row.
//!
//! [`Pipeline::predict`] computes in single precision, sum for sum, what the exported model computes: trees in order, then the base; inputs in order,
//! then the intercept. [`super::check`] holds the two against each other.

use serde::{Deserialize, Serialize};

use super::data::{Column, Matrix, Set, Task};
use super::error::TrainError;
use super::learner::{self, Learner, Options};
use super::model::{Ensemble, Fitted, Linear, Link};
use super::predict::Walker;
use super::prepare::{Prepare, Recipe};
use crate::score::math;

/// A fitted model with its preparation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// What is done to the inputs first.
    pub prepare: Recipe,
    /// What is made of the prepared columns.
    pub fitted: Fitted,
    /// What the model tells.
    pub task: Task,
}

/// What a model tells of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Values per row: one per class, or a single number.
    pub width: usize,
    /// Row after row.
    pub values: Vec<f32>,
}

impl Predictions {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// What is told of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    /// One value of each row: the probability of a class; of a number, value 0.
    pub fn values_of(&self, class: usize) -> Vec<f64> {
        self.values.iter().skip(class).step_by(self.width.max(1)).map(|v| f64::from(*v)).collect()
    }
}

impl Pipeline {
    /// Fits the preparation and the learner to a set; `valid` is what early stopping looks at.
    ///
    /// # Errors
    /// As [`Prepare::fit`] and [`learner::fit`].
    pub fn fit(
        prepare: &Prepare,
        learner: &Learner,
        set: &Set,
        task: Task,
        valid: Option<&Set>,
        options: &Options,
    ) -> Result<Pipeline, TrainError> {
        let recipe = prepare.fit(&set.inputs, learner)?;
        let prepared = |set: &Set| {
            Ok::<Set, TrainError>(Set {
                inputs: recipe.apply(&set.inputs)?,
                labels: set.labels.clone(),
                weights: set.weights.clone(),
                times: set.times.clone(),
                known: set.known.clone(),
                extra: Vec::new(),
            })
        };
        let valid = valid.map(prepared).transpose()?;
        let fitted = learner::fit(learner, &prepared(set)?, task, valid.as_ref(), options)?;
        Ok(Pipeline { prepare: recipe, fitted, task })
    }

    /// Values per row that the model tells: one per class, or a single number.
    pub fn width(&self) -> usize {
        match self.task {
            Task::Binary => 2,
            Task::Classes(n) => n as usize,
            Task::Regression => 1,
        }
    }

    /// As [`Self::predict`], one vector per output as [`Fitted::predict`] has it: of two classes the probability of label 1 alone.
    ///
    /// # Errors
    /// As [`Recipe::apply`].
    pub fn outputs(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
        let told = self.predict(inputs)?;
        let first = usize::from(self.task == Task::Binary);
        Ok((first..told.width).map(|class| told.values_of(class)).collect())
    }

    /// What the exported model tells of rows. A linear model without `impute` gives NaN where an input is missing.
    ///
    /// # Errors
    /// As [`Recipe::apply`].
    pub fn predict(&self, inputs: &Matrix) -> Result<Predictions, TrainError> {
        let prepared = self.prepare.apply(inputs)?;
        let (sums, values, link) = match &self.fitted {
            Fitted::Ensemble(ensemble) => (ensemble.base.len(), ensemble_sums(ensemble, &prepared), ensemble.link),
            Fitted::Linear(linear) => (linear.weights.len(), linear_sums(linear, &prepared), linear.link),
        };
        Ok(tell(link, sums, values))
    }
}

/// Sums of leaves, tree after tree, then the base; row after row.
fn ensemble_sums(ensemble: &Ensemble, prepared: &Matrix) -> Vec<f32> {
    let (rows, width) = (prepared.rows(), ensemble.base.len());
    let mut sums = vec![vec![0.0f32; rows]; width];
    let mut slices: Vec<&mut [f32]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
    Walker::new(&ensemble.trees, prepared).add_as(0, &mut slices, |value| value as f32);
    let mut by_row = vec![0.0; rows * width];
    for (at, (sums, base)) in sums.iter().zip(&ensemble.base).enumerate() {
        let places = by_row.iter_mut().skip(at).step_by(width);
        places.zip(sums).for_each(|(place, sum)| *place = sum + *base as f32);
    }
    by_row
}

/// Inputs times weights in order, then the intercept; row after row.
fn linear_sums(linear: &Linear, prepared: &Matrix) -> Vec<f32> {
    let width = linear.weights.len();
    let mut sums = vec![0.0f32; prepared.rows() * width];
    for (i, column) in prepared.columns.iter().enumerate() {
        let weights: Vec<f32> = linear.weights.iter().map(|w| w[i] as f32).collect();
        for (row, sums) in sums.chunks_exact_mut(width.max(1)).enumerate() {
            let x = match column {
                Column::Number(values) => values[row],
                Column::Category { .. } => f32::NAN,
            };
            sums.iter_mut().zip(&weights).for_each(|(sum, w)| *sum += x * w);
        }
    }
    for sums in sums.chunks_exact_mut(width.max(1)) {
        sums.iter_mut().zip(&linear.intercepts).for_each(|(sum, b)| *sum += *b as f32);
    }
    sums
}

/// From sums to what is told: of two classes by one sum, both probabilities.
fn tell(link: Link, sums: usize, mut values: Vec<f32>) -> Predictions {
    match link {
        Link::Identity => {}
        Link::Logistic => values.iter_mut().for_each(|v| *v = math::logistic(*v)),
        Link::Probability => values.iter_mut().for_each(|v| {
            // Averages of ones may add up to a hair more.
            *v = if *v < 0.0 { 0.0 } else { *v };
            *v = if *v > 1.0 { 1.0 } else { *v };
        }),
        Link::Softmax => {
            for row in values.chunks_exact_mut(sums.max(1)) {
                let top = row.iter().map(|v| f64::from(*v)).fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = row.iter().map(|v| math::exp64(f64::from(*v) - top)).collect();
                let total: f64 = exps.iter().sum();
                row.iter_mut().zip(exps).for_each(|(v, e)| *v = (e / total) as f32);
            }
        }
    }
    if sums == 1 && matches!(link, Link::Logistic | Link::Probability) {
        values = values.into_iter().flat_map(|p| [1.0 - p, p]).collect();
        return Predictions { width: 2, values };
    }
    Predictions { width: sums, values }
}

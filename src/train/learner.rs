//! The learners by name, and what every fit needs: options, progress, checks of the set.

use serde::{Deserialize, Serialize};

use super::data::{Column, MISSING, Matrix, Set, Task};
use super::error::TrainError;
use super::forest::Forest;
use super::gbdt::Gbdt;
use super::linear::LinearRegression;
use super::logistic::Logistic;
use super::model::Fitted;
use super::tree::DecisionTree;

/// A learner with its settings: `{gbdt: {trees: 200}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Learner {
    /// Gradient-boosted trees.
    Gbdt(Gbdt),
    /// A random forest.
    Forest(Forest),
    /// One decision tree.
    Tree(DecisionTree),
    /// Logistic regression.
    Logistic(Logistic),
    /// Linear regression.
    Linear(LinearRegression),
}

impl Learner {
    /// Its name in a dataflow.
    pub fn name(&self) -> &'static str {
        match self {
            Learner::Gbdt(_) => "gbdt",
            Learner::Forest(_) => "forest",
            Learner::Tree(_) => "tree",
            Learner::Logistic(_) => "logistic",
            Learner::Linear(_) => "linear",
        }
    }

    /// Whether its settings are in their ranges.
    ///
    /// # Errors
    /// Names the first setting that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        match self {
            Learner::Gbdt(settings) => settings.check(),
            Learner::Forest(settings) => settings.check(),
            Learner::Tree(settings) => settings.check(),
            Learner::Logistic(settings) => settings.check(),
            Learner::Linear(settings) => settings.check(),
        }
    }
}

/// How far a fit is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Rounds, trees or steps done.
    pub done: u32,
    /// Of so many at most.
    pub total: u32,
    /// Mean loss on the validation set, if there is one and the learner looks at it.
    pub loss: Option<f64>,
}

/// Whether a fit goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    /// It does.
    Yes,
    /// It ends with [`TrainError::Stopped`].
    No,
}

/// How a fit runs; of these only the seed is seen in the model.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Threads, at least 1.
    pub threads: usize,
    /// What is drawn at random is drawn by it.
    pub seed: u64,
    /// Told of progress, from any thread, and asked whether to go on.
    pub progress: Option<&'a (dyn Fn(Progress) -> Continue + Sync)>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { threads: 1, seed: 0, progress: None }
    }
}

impl Options<'_> {
    /// Tells of progress.
    ///
    /// # Errors
    /// [`TrainError::Stopped`] when the fit is to end.
    pub(super) fn tell(&self, progress: Progress) -> Result<(), TrainError> {
        match self.progress.map(|told| told(progress)) {
            Some(Continue::No) => Err(TrainError::Stopped),
            Some(Continue::Yes) | None => Ok(()),
        }
    }
}

/// Fits a learner to a set; `valid` is what early stopping looks at. The same set, settings and seed give the same model
/// bit for bit, on any number of threads.
///
/// # Errors
/// When a setting is out of range, the set does not suit the task, or the caller stopped it.
pub fn fit(
    learner: &Learner,
    set: &Set,
    task: Task,
    valid: Option<&Set>,
    options: &Options,
) -> Result<Fitted, TrainError> {
    learner.check()?;
    check_set(set, task)?;
    if let Some(valid) = valid {
        check_rows(valid, task)?;
        check_alike(&set.inputs, &valid.inputs)?;
    }
    match learner {
        Learner::Gbdt(settings) => settings.fit(set, task, valid, options).map(Fitted::Ensemble),
        Learner::Forest(settings) => settings.fit(set, task, options).map(Fitted::Ensemble),
        Learner::Tree(settings) => settings.fit(set, task, options).map(Fitted::Ensemble),
        Learner::Logistic(settings) => settings.fit(set, task, options).map(Fitted::Linear),
        Learner::Linear(settings) => settings.fit(set, task, options).map(Fitted::Linear),
    }
}

/// Whether a model of the task can be learnt from the set.
///
/// # Errors
/// Says what is wrong with the first row or column that is.
pub fn check_set(set: &Set, task: Task) -> Result<(), TrainError> {
    check_rows(set, task)?;
    let classes = match task {
        Task::Binary => 2,
        Task::Classes(n) => n,
        Task::Regression => return Ok(()),
    };
    let mut seen = vec![false; classes as usize];
    for (row, label) in set.labels.iter().enumerate() {
        if set.weights.as_ref().is_none_or(|weights| weights[row] > 0.0) {
            seen[*label as usize] = true;
        }
    }
    match seen.iter().position(|seen| !seen) {
        Some(missing) => Err(data(format!(
            "no row is labelled {missing}, and a classifier needs rows of every label; take a longer time, or fewer labels"
        ))),
        None => Ok(()),
    }
}

fn check_rows(set: &Set, task: Task) -> Result<(), TrainError> {
    let rows = set.rows();
    if rows == 0 || set.inputs.columns.is_empty() {
        return Err(data("it has no rows or no inputs".to_owned()));
    }
    if rows > i32::MAX as usize {
        return Err(data(format!("it has {rows} rows, and at most {} can be taken; take a sample", i32::MAX)));
    }
    if set.inputs.names.len() != set.inputs.columns.len() {
        let (names, columns) = (set.inputs.names.len(), set.inputs.columns.len());
        return Err(data(format!("{names} names for {columns} columns")));
    }
    for (name, column) in set.inputs.names.iter().zip(&set.inputs.columns) {
        if column.len() != rows {
            return Err(data(format!("column {name} has {} rows, the labels {rows}", column.len())));
        }
        if let Column::Category { codes, levels } = column
            && let Some(code) = codes.iter().find(|code| **code != MISSING && **code as usize >= levels.len())
        {
            return Err(data(format!("column {name} has code {code} of {} levels", levels.len())));
        }
    }
    let classes = match task {
        Task::Binary => Some(2),
        Task::Classes(n) if n < 2 => {
            return Err(data(format!("a classifier of {n} labels has nothing to tell; it needs at least 2")));
        }
        Task::Classes(n) => Some(n),
        Task::Regression => None,
    };
    let fits = |label: f64| match classes {
        Some(n) => label >= 0.0 && label < f64::from(n) && label.fract() == 0.0,
        None => label.is_finite(),
    };
    if let Some(row) = set.labels.iter().position(|label| !fits(*label)) {
        let wanted =
            classes.map_or_else(|| "a finite number".to_owned(), |n| format!("a whole number from 0 to {}", n - 1));
        return Err(data(format!("the label of row {row} is {}, not {wanted}", set.labels[row])));
    }
    let Some(weights) = &set.weights else { return Ok(()) };
    if weights.len() != rows {
        return Err(data(format!("{} weights for {rows} rows", weights.len())));
    }
    if let Some(row) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(data(format!("the weight of row {row} is {}, not a number of at least 0", weights[row])));
    }
    if weights.iter().all(|weight| *weight == 0.0) {
        return Err(data("all weights are 0".to_owned()));
    }
    Ok(())
}

fn check_alike(inputs: &Matrix, valid: &Matrix) -> Result<(), TrainError> {
    let alike = inputs.names == valid.names
        && inputs.columns.iter().zip(&valid.columns).all(|pair| match pair {
            (Column::Number(_), Column::Number(_)) => true,
            (Column::Category { levels, .. }, Column::Category { levels: others, .. }) => levels == others,
            _ => false,
        });
    if alike {
        return Ok(());
    }
    Err(data("the validation set has other columns or levels; take both from one set".to_owned()))
}

pub(super) fn data(why: String) -> TrainError {
    TrainError::Data { why }
}

#[cfg(test)]
mod tests;

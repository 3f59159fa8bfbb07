//! What a model goes by: how much worse it is when an input's values are shuffled among the rows, beside what its splits
//! on that input gained when it was fitted.
//!
//! Source: L. Breiman, "Random Forests", 2001; the model as it is, as in A. Fisher et al., "All Models are Wrong, but Many are
//! Useful", 2019. Shuffling one of several inputs that tell the same shows little of any of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data::{Matrix, Set, Task};
use super::error::TrainError;
use super::evaluate::compare::{parallel, sequence};
use super::metrics::{Judged, metric_named, more_is_better};
use super::model::{Fitted, Node};
use super::tune::Predict;
use crate::base::SplitMix64;

/// How importance is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainOptions {
    /// The statistic that gets worse; without it `auc` (two classes), `log_loss` (several) or `rmse`.
    pub metric: Option<String>,
    /// How often each input is shuffled.
    pub repeats: u32,
    /// What is drawn at random is drawn by it.
    pub seed: u64,
    /// Rows at most; of more, so many are drawn.
    pub rows_max: u32,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        ExplainOptions { metric: None, repeats: 5, seed: 0, rows_max: 100_000 }
    }
}

/// What inputs are worth to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// The statistic that gets worse.
    pub metric: String,
    /// Its value with all inputs as they are.
    pub value: f64,
    /// Rows it was measured on.
    pub rows: u64,
    /// How often each input was shuffled.
    pub repeats: u32,
    /// Inputs, the most important first.
    pub inputs: Vec<InputImportance>,
}

/// What an input is worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputImportance {
    /// The input.
    pub name: String,
    /// How much worse the statistic is without it: the mean over shuffles, above 0 for worse.
    pub worse: f64,
    /// Standard deviation over shuffles; none for fewer than two.
    pub sd: Option<f64>,
    /// Its share of what all splits gained; none of models without splits.
    pub gain: Option<f64>,
}

/// Each input's share of what all splits gained; none of models without splits. Weighted by trees as they are summed.
pub fn gain_shares(model: &Fitted, inputs: usize) -> Option<Vec<f64>> {
    let Fitted::Ensemble(ensemble) = model else { return None };
    let mut gains = vec![0.0; inputs];
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        if let Node::Branch { column, gain, .. } = node
            && let Some(sum) = gains.get_mut(*column as usize)
        {
            *sum += gain.max(0.0);
        }
    }
    let all: f64 = gains.iter().sum();
    (all > 0.0).then(|| gains.into_iter().map(|gain| gain / all).collect())
}

/// Measures what inputs are worth on the rows of a set that the model was not fitted on. `gains` are shares by input, where
/// there are any. The result is the same on any number of threads.
///
/// # Errors
/// When the statistic is not known or not defined on these rows, or the model cannot be asked.
pub fn explain(
    model: &dyn Predict,
    gains: Option<&[f64]>,
    set: &Set,
    task: Task,
    options: &ExplainOptions,
    threads: usize,
) -> Result<Importance, TrainError> {
    let usual = match task {
        Task::Binary => "auc",
        Task::Classes(_) => "log_loss",
        Task::Regression => "rmse",
    };
    let metric = metric_named(options.metric.as_deref().unwrap_or(usual), task)?;
    if options.repeats == 0 || options.rows_max == 0 {
        return Err(TrainError::asked("repeats and rows_max must be at least 1", ""));
    }
    let sample;
    let set = if set.rows() > options.rows_max as usize {
        sample = set.take(&drawn(set.rows(), options.rows_max as usize, options.seed));
        &sample
    } else {
        set
    };
    let value_of = |inputs: &Matrix| -> Result<Option<f64>, TrainError> {
        let scores = model.predict(inputs)?;
        Ok(Judged::new(task, &scores, &set.labels, 0.5)?.value(metric))
    };
    let undefined = || TrainError::data(format!("{} is not defined on these {} rows", metric.name(), set.rows()));
    let value = value_of(&set.inputs)?.ok_or_else(undefined)?;
    let columns = set.inputs.columns.len();
    let measured = parallel(columns, threads, |column| -> Result<Vec<f64>, TrainError> {
        let mut inputs = set.inputs.clone();
        let mut worse = Vec::new();
        for repeat in 0..options.repeats {
            let mut random = sequence(options.seed, column as u64 * u64::from(u32::MAX) + u64::from(repeat));
            inputs.columns[column] = set.inputs.columns[column].take(&shuffled(set.rows(), &mut random));
            let without = value_of(&inputs)?.ok_or_else(undefined)?;
            worse.push(if more_is_better(metric) { value - without } else { without - value });
        }
        Ok(worse)
    });
    let mut inputs = Vec::new();
    for (at, worse) in measured.into_iter().enumerate() {
        let worse = worse?;
        let n = worse.len() as f64;
        let mean = worse.iter().sum::<f64>() / n;
        let far: f64 = worse.iter().map(|value| (value - mean) * (value - mean)).sum();
        inputs.push(InputImportance {
            name: set.inputs.names.get(at).cloned().unwrap_or_default(),
            worse: mean,
            sd: (worse.len() > 1).then(|| (far / (n - 1.0)).sqrt()),
            gain: gains.and_then(|gains| gains.get(at).copied()),
        });
    }
    // Equal ones keep the order of the inputs.
    inputs.sort_by(|a, b| b.worse.total_cmp(&a.worse));
    Ok(Importance {
        metric: metric.name().to_owned(),
        value,
        rows: set.rows() as u64,
        repeats: options.repeats,
        inputs,
    })
}

/// Fisher and Yates.
fn shuffled(rows: usize, random: &mut SplitMix64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    for at in (1..rows).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

fn drawn(rows: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut rows = shuffled(rows, &mut sequence(seed, u64::MAX));
    rows.truncate(count);
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::Column;

    /// Tells its first input as the probability and the second not at all.
    struct First;

    impl Predict for First {
        fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
            match &inputs.columns[0] {
                Column::Number(values) => Ok(vec![values.iter().map(|value| f64::from(*value)).collect()]),
                Column::Category { .. } => Err(TrainError::data("not a number")),
            }
        }
    }

    fn set(rows: usize) -> Set {
        let mut random = SplitMix64::new(3);
        let labels: Vec<f64> = (0..rows).map(|_| f64::from(u8::from(random.unit() < 0.3))).collect();
        let first = labels.iter().map(|label| ((label * 0.5 + random.unit() * 0.5) as f32).min(1.0)).collect();
        let second = (0..rows).map(|_| random.unit() as f32).collect();
        let inputs = Matrix {
            names: vec!["told".into(), "noise".into()],
            columns: vec![Column::Number(first), Column::Number(second)],
        };
        Set { inputs, labels, weights: None, times: vec![0; rows], known: vec![0; rows], extra: Vec::new() }
    }

    #[test]
    fn what_is_not_used_is_worth_nothing() {
        let set = set(2000);
        let of = |threads, seed| {
            let options = ExplainOptions { seed, ..ExplainOptions::default() };
            explain(&First, Some(&[0.9, 0.1]), &set, Task::Binary, &options, threads).unwrap()
        };
        let found = of(1, 7);
        assert_eq!((found.metric.as_str(), found.value, found.rows), ("auc", 1.0, 2000));
        assert_eq!((found.inputs[0].name.as_str(), found.inputs[0].gain), ("told", Some(0.9)));
        // Shuffled, the scores are as good as a coin's.
        assert!((found.inputs[0].worse - 0.5).abs() < 0.03, "{found:?}");
        assert_eq!((found.inputs[1].worse, found.inputs[1].sd), (0.0, Some(0.0)));
        assert_eq!(found, of(4, 7));
        assert_ne!(found, of(1, 8));
    }

    #[test]
    fn costs_are_worse_when_they_rise() {
        let options = ExplainOptions { metric: Some("log_loss".into()), rows_max: 500, ..ExplainOptions::default() };
        let found = explain(&First, None, &set(2000), Task::Binary, &options, 2).unwrap();
        assert!(found.inputs[0].worse > 0.1 && found.rows == 500, "{found:?}");
        let options = ExplainOptions { metric: Some("logloss".into()), ..options };
        let fault = explain(&First, None, &set(20), Task::Binary, &options, 2).unwrap_err().to_string();
        assert!(fault.contains("did you mean `log_loss`?"), "{fault}");
    }

    #[test]
    fn gains_are_shares() {
        use crate::train::model::{Ensemble, Link, Split, Tree};
        let leaf = || Node::Leaf { values: vec![0.0] };
        let branch = |column, gain| Node::Branch {
            column,
            split: Split::AtMost(0.0),
            missing_left: true,
            left: 1,
            right: 2,
            gain,
        };
        let tree =
            |column, gain| Tree { nodes: vec![branch(column, gain), leaf(), leaf()], first_output: 0, outputs: 1 };
        let trees = vec![tree(0, 3.0), tree(2, 1.0)];
        let model = Fitted::Ensemble(Ensemble { base: vec![0.0], trees, link: Link::Logistic });
        assert_eq!(gain_shares(&model, 3), Some(vec![0.75, 0.0, 0.25]));
    }
}

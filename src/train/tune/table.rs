//! What a tuning found: every trial with its results, and the best.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{TuneMethod, Values};
use crate::train::split::Span;

/// What a tuning found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// How points were chosen.
    pub method: TuneMethod,
    /// The seed that points were drawn by.
    pub seed: u64,
    /// What trials are ordered by.
    pub metric: String,
    /// Whether a greater value is a better one.
    pub more_is_better: bool,
    /// The folds, the earliest first.
    pub folds: Vec<FoldFacts>,
    /// Trials in the order in which they were begun; of successive halving each round of a trial stands for itself.
    pub trials: Vec<Trial>,
    /// Place of the best in `trials`.
    pub best: usize,
}

/// What a fold holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldFacts {
    /// Where it is in time.
    pub span: Span,
    /// Rows to fit on.
    pub train_rows: u64,
    /// Of these with a label above 0.
    pub train_positives: u64,
    /// Rows to judge by.
    pub test_rows: u64,
    /// Of these with a label above 0.
    pub test_positives: u64,
}

/// A point that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its number, from 0.
    pub number: u32,
    /// The round of successive halving, from 0.
    pub round: u32,
    /// What it was given in the round: trees, or a share of the rows.
    pub budget: Option<f64>,
    /// The values that were tried, by name.
    pub values: Map<String, Value>,
    /// All settings, as they were given to the learner.
    pub params: Value,
    /// Statistics by fold; empty when the trial failed.
    pub folds: Vec<Values>,
    /// The mean of the statistic that trials are ordered by; none when the trial failed.
    pub mean: Option<f64>,
    /// Its standard deviation over folds; none for fewer than two.
    pub sd: Option<f64>,
    /// Time of its fits one after another. By the wall clock: the one thing here that differs between runs.
    pub seconds: f64,
    /// Why it failed.
    pub failed: Option<String>,
}

impl Trial {
    /// The mean over folds of a statistic.
    pub fn mean_of(&self, metric: &str) -> Option<f64> {
        let values: Option<Vec<f64>> = self.folds.iter().map(|fold| fold.get(metric).copied()).collect();
        values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>() / values.len() as f64)
    }
}

impl Table {
    /// The best trial.
    pub fn best(&self) -> Option<&Trial> {
        self.trials.get(self.best)
    }

    /// Without times by the wall clock: what is the same in every run.
    pub fn without_times(&self) -> Table {
        let mut table = self.clone();
        table.trials.iter_mut().for_each(|trial| trial.seconds = 0.0);
        table
    }

    /// Trials, the best first; those that failed last.
    pub fn ordered(&self) -> Vec<&Trial> {
        let mut trials: Vec<&Trial> = self.trials.iter().collect();
        let cost = |trial: &Trial| match trial.mean {
            Some(mean) if self.more_is_better => -mean,
            Some(mean) => mean,
            None => f64::INFINITY,
        };
        trials.sort_by(|a, b| b.round.cmp(&a.round).then(cost(a).total_cmp(&cost(b))).then(a.number.cmp(&b.number)));
        trials
    }

    /// As lines for people: the best `most` trials, the best first.
    pub fn text(&self, most: usize) -> String {
        let ordered = self.ordered();
        let names: Vec<&String> = self.trials.first().map(|trial| trial.values.keys().collect()).unwrap_or_default();
        let others: Vec<&String> = self
            .best()
            .and_then(|best| best.folds.first())
            .map(|fold| fold.keys().filter(|name| **name != self.metric).collect())
            .unwrap_or_default();
        let halving = self.method == TuneMethod::Halving;
        let mut head = vec!["trial".to_owned()];
        head.extend(halving.then(|| "given".to_owned()));
        head.extend(names.iter().map(|name| (*name).clone()));
        head.push(self.metric.clone());
        head.push("± sd".to_owned());
        head.extend(others.iter().map(|name| (*name).clone()));
        head.push("seconds".to_owned());
        let mut rows = vec![head];
        for trial in ordered.iter().take(most) {
            let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
            let mut row = vec![trial.number.to_string()];
            row.extend(halving.then(|| trial.budget.map_or_else(String::new, |budget| budget.to_string())));
            row.extend(names.iter().map(|name| shown(trial.values.get(*name))));
            row.push(number(trial.mean));
            row.push(number(trial.sd));
            row.extend(others.iter().map(|name| number(trial.mean_of(name))));
            row.push(
                trial.failed.as_ref().map_or_else(|| format!("{:.1}", trial.seconds), |why| format!("failed: {why}")),
            );
            rows.push(row);
        }
        let columns = rows[0].len();
        let widths: Vec<usize> =
            (0..columns).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &rows {
            for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let space = if i == 0 { "" } else { "  " };
                if i + 1 == columns && cell.starts_with("failed") {
                    let _ = write!(text, "{space}{cell}");
                } else {
                    let _ = write!(text, "{space}{cell:>width$}");
                }
            }
            text.push('\n');
        }
        if ordered.len() > most {
            let _ = writeln!(text, "and {} more", ordered.len() - most);
        }
        text
    }
}

/// A value as it is written in the file, without quotes.
pub fn shown(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

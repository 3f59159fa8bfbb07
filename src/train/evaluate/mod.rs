//! How good a model is on rows that it was not fitted on, beside the champion on the same rows: statistics with intervals,
//! slices, calibration, and whether what `promote_if` asks for is met.
//!
//! Layers, bottom-up: [`cards`], precision among entities; [`compare`], differences and their intervals; [`condition`], the
//! language of `promote_if`; `slices`, parts of the rows.

pub mod cards;
pub mod compare;
pub mod condition;
mod slices;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cards::{CardOptions, card_precision};
pub use compare::{Compared, Method, Told, delong_variance};
pub use condition::{Condition, Verdict};
pub use slices::Slice;

use super::data::{Set, Task};
use super::error::TrainError;
use super::metrics::{CalibrationBin, Judged, calibration, metric_named, metrics_of};
use super::split::column;
use crate::base::{EventTime, parse_duration};
use crate::plan::model::Metric;
use compare::{Pair, Resampling, bootstrap};
use condition::SIDES;

/// What is evaluated, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateOptions {
    /// Statistics, in their order; without them all that fit the task.
    pub metrics: Option<Vec<String>>,
    /// A score at or above this predicts the positive class.
    pub threshold: f64,
    /// Columns whose values are told apart: further columns of the set, or inputs.
    pub slices: Vec<String>,
    /// What must hold for the challenger to go on.
    pub promote_if: Option<String>,
    /// Resamples that intervals are made of; 0 leaves those out that need resamples.
    pub repeats: u32,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// What is drawn at random is drawn by it.
    pub seed: u64,
    /// A further column whose rows are drawn together: those of a customer are alike. Without it rows are drawn.
    pub by: Option<String>,
    /// Precision among the entities with the highest scores.
    pub cards: Option<CardOptions>,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            metrics: None,
            threshold: 0.5,
            slices: Vec::new(),
            promote_if: None,
            repeats: 1000,
            confidence: 0.95,
            seed: 0,
            by: None,
            cards: None,
        }
    }
}

impl EvaluateOptions {
    /// Whether all of it can be done for models of a task: what a check of the file can tell without rows.
    ///
    /// # Errors
    /// Names the first thing that cannot, with the way to mend it.
    pub fn check(&self, task: Task) -> Result<Option<Condition>, TrainError> {
        self.metrics(task)?;
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(TrainError::asked(format!("confidence is {}", self.confidence), "write such as 0.95"));
        }
        if !self.threshold.is_finite() {
            return Err(TrainError::asked(format!("threshold is {}", self.threshold), "write such as 0.5"));
        }
        if let Some(cards) = &self.cards {
            if task != Task::Binary {
                return Err(TrainError::asked("cards needs a binary model", "leave it out"));
            }
            if cards.k == 0 {
                return Err(TrainError::asked("cards.k is 0", "write how many entities are looked at, such as 100"));
            }
            every(cards)?;
        }
        self.promote_if.as_deref().map(|text| Condition::parse(text, &self.names(task)?)).transpose()
    }

    /// Names that `promote_if` may use.
    ///
    /// # Errors
    /// When a statistic is not known.
    pub fn names(&self, task: Task) -> Result<Vec<String>, TrainError> {
        let mut names = vec!["rows".to_owned()];
        if task == Task::Binary {
            names.push("positives".to_owned());
        }
        let metrics = self.metrics(task)?.into_iter().map(|metric| metric.name().to_owned());
        for metric in metrics.chain(self.cards.as_ref().map(card_metric)) {
            names.extend(SIDES.iter().map(|side| format!("{metric}_{side}")));
        }
        Ok(names)
    }

    fn metrics(&self, task: Task) -> Result<Vec<Metric>, TrainError> {
        match &self.metrics {
            None => Ok(metrics_of(task)),
            Some(names) => names.iter().map(|name| metric_named(name, task)).collect(),
        }
    }
}

fn card_metric(cards: &CardOptions) -> String {
    format!("card_precision_{}", cards.k)
}

fn every(cards: &CardOptions) -> Result<i64, TrainError> {
    match parse_duration(&cards.every) {
        Ok(every) if every > 0 => Ok(every),
        Ok(_) => Err(TrainError::asked("cards.every is no time at all", "write such as 1d")),
        Err(what) => Err(TrainError::asked(format!("cards.every: {what}"), "")),
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What the models tell.
    pub task: Task,
    /// Rows that both models were judged by.
    pub rows: u64,
    /// Of these with label 1; of two classes only.
    pub positives: Option<u64>,
    /// First moment of a row.
    pub from: EventTime,
    /// Last moment of a row.
    pub to: EventTime,
    /// A score at or above this predicts the positive class.
    pub threshold: f64,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// The column whose rows were drawn together.
    pub by: Option<String>,
    /// Statistics.
    pub metrics: Vec<Compared>,
    /// Parts of the rows.
    pub slices: Vec<Slice>,
    /// How scores compare with shares of positives; of two classes only.
    pub calibration: Vec<CalibrationBin>,
    /// The same of the champion.
    pub champion_calibration: Vec<CalibrationBin>,
    /// What became of `promote_if`.
    pub verdict: Option<Verdict>,
}

impl Evaluation {
    /// What a name of `promote_if` stands for.
    pub fn value(&self, name: &str) -> Option<f64> {
        match name {
            "rows" => return Some(self.rows as f64),
            "positives" => return self.positives.map(|positives| positives as f64),
            _ => {}
        }
        let (metric, side) = name.rsplit_once('_')?;
        let found = self.metrics.iter().find(|found| found.metric == metric)?;
        match side {
            "challenger" => found.challenger.map(|told| told.value),
            "champion" => found.champion.map(|told| told.value),
            "difference" => found.difference.map(|told| told.value),
            "low" => found.difference.and_then(|told| told.low),
            "high" => found.difference.and_then(|told| told.high),
            _ => None,
        }
    }

    /// A statistic of the challenger.
    pub fn challenger(&self, metric: &str) -> Option<f64> {
        self.value(&format!("{metric}_challenger"))
    }
}

/// Judges a challenger, beside the champion where there is one, by the rows of a set. Scores are as models tell them: one
/// vector per output. The result is the same on any number of threads.
///
/// # Errors
/// When an option cannot be, the set lacks a column, or scores do not fit the rows.
pub fn evaluate(
    set: &Set,
    task: Task,
    challenger: &[Vec<f64>],
    champion: Option<&[Vec<f64>]>,
    options: &EvaluateOptions,
    threads: usize,
) -> Result<Evaluation, TrainError> {
    let condition = options.check(task)?;
    let metrics = options.metrics(task)?;
    let (Some(from), Some(to)) = (set.times.iter().min(), set.times.iter().max()) else {
        return Err(TrainError::data("there are no rows to judge by"));
    };
    let labels = &set.labels;
    let judged = Judged::new(task, challenger, labels, options.threshold)?;
    let other = champion.map(|scores| Judged::new(task, scores, labels, options.threshold)).transpose()?;
    let pair = Pair { challenger: &judged, champion: other.as_ref() };
    let mut told: Vec<Compared> = metrics.iter().map(|metric| pair.by_formula(*metric, options.confidence)).collect();
    let entities = options.by.as_deref().map(|by| column(set, by, "by").map(numbered)).transpose()?;
    // A formula takes rows for independent; where they are drawn by entity they are not held to be.
    let resampled: Vec<usize> =
        (0..metrics.len()).filter(|at| entities.is_some() || told[*at].method == Method::None).collect();
    if options.repeats > 0 && !resampled.is_empty() {
        let how = Resampling {
            repeats: options.repeats,
            confidence: options.confidence,
            seed: options.seed,
            threads,
            entities: entities.as_deref(),
        };
        let wanted: Vec<Metric> = resampled.iter().map(|at| metrics[*at]).collect();
        for (at, compared) in resampled.into_iter().zip(bootstrap(&pair, &wanted, &how)) {
            told[at] = compared;
        }
    }
    if let Some(cards) = &options.cards {
        let (entities, every) = (column(set, &cards.by, "cards.by")?, every(cards)?);
        // Pieces begin with the first row's day, or at its moment where they are no parts of days.
        let start = from.div_euclid(every) * every;
        let of = |judged: &Judged<'_>| {
            card_precision(judged.scores(), labels, &set.times, entities, (start, every), cards.k).map(Told::bare)
        };
        let (challenger, champion) = (of(&judged), other.as_ref().and_then(of));
        told.push(Compared {
            metric: card_metric(cards),
            difference: challenger.zip(champion).map(|(a, b)| Told::bare(a.value - b.value)),
            challenger,
            champion,
            method: Method::None,
        });
    }
    let slices = slices::slices(set, task, challenger, champion, options, &metrics)?;
    let positives = (task == Task::Binary).then(|| labels.iter().filter(|label| **label == 1.0).count() as u64);
    let mut evaluation = Evaluation {
        task,
        rows: set.rows() as u64,
        positives,
        from: *from,
        to: *to,
        threshold: options.threshold,
        confidence: options.confidence,
        by: options.by.clone(),
        metrics: told,
        slices,
        calibration: calibration(&judged),
        champion_calibration: other.as_ref().map(calibration).unwrap_or_default(),
        verdict: None,
    };
    evaluation.verdict = condition.map(|condition| condition.judge(|name| evaluation.value(name)));
    Ok(evaluation)
}

/// Values as numbers from 0, in the order in which they first appear.
fn numbered(values: &[String]) -> Vec<u32> {
    let mut numbers: std::collections::HashMap<&str, u32> = std::collections::HashMap::new();
    values
        .iter()
        .map(|value| {
            let next = numbers.len() as u32;
            *numbers.entry(value).or_insert(next)
        })
        .collect()
}

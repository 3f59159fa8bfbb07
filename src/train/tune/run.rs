//! The fits of a tuning, side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::journal::{Entry, Journal};
use super::{
    Budget, Checked, FitWith, FoldSet, HalvingOptions, TRIALS, TrainError, Trial, TuneMethod, TuneProgress, Tuning,
    Values, grid, random, space, tpe,
};
use crate::train::data::Set;
use crate::train::evaluate::card_precision;
use crate::train::evaluate::compare::{parallel, sequence};
use crate::train::metrics::Judged;
use crate::train::split::{column, hold_out};

/// A point on its way.
struct Point {
    number: u32,
    round: u32,
    budget: Option<f64>,
    at: Vec<f64>,
}

/// What the threads of a tuning share.
pub(super) struct Run<'a> {
    tuning: &'a Tuning<'a>,
    pub checked: Checked,
    fit: &'a FitWith<'a>,
    journal: Option<Journal>,
    /// Of each fold: rows to fit on and rows for early stopping, where there is that.
    parts: Vec<Option<(Set, Set)>>,
    began: Instant,
    total: usize,
    done: AtomicUsize,
    /// Fits that were done in this life, and their end.
    fresh: AtomicUsize,
    best: Mutex<Option<f64>>,
}

impl<'a> Run<'a> {
    /// Nothing done yet.
    pub fn new(
        tuning: &'a Tuning<'a>,
        checked: Checked,
        fit: &'a FitWith<'a>,
        journal: Option<Journal>,
    ) -> Result<Run<'a>, TrainError> {
        let part = |fold: &FoldSet| -> Result<Option<(Set, Set)>, TrainError> {
            if tuning.options.valid == 0.0 {
                return Ok(None);
            }
            let (rows, watched) = hold_out(&fold.train, tuning.options.valid)?;
            Ok(Some((fold.train.take(&rows), fold.train.take(&watched))))
        };
        Ok(Run {
            tuning,
            checked,
            fit,
            journal,
            parts: tuning.folds.iter().map(part).collect::<Result<_, _>>()?,
            began: Instant::now(),
            total: 0,
            done: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            best: Mutex::new(None),
        })
    }

    /// Tries all points that the method chooses.
    pub fn trials(&mut self) -> Result<Vec<Trial>, TrainError> {
        let options = self.tuning.options;
        let (count, folds) = (options.trials.unwrap_or(TRIALS), self.tuning.folds.len());
        let points = match options.method {
            TuneMethod::Grid => grid::points(&self.checked.space, options.trials)?,
            TuneMethod::Random => random::points(&self.checked.space, options.seed, count),
            TuneMethod::Tpe => {
                let most = self.checked.space.size().map_or(count, |size| size.min(u64::from(count)) as u32);
                self.total = most as usize * folds;
                return self.tpe(most);
            }
            TuneMethod::Halving => {
                let points = random::points(&self.checked.space, options.seed, count);
                return self.halving(points);
            }
        };
        self.total = points.len() * folds;
        let points = points.into_iter().enumerate();
        self.batch(points.map(|(at, point)| Point { number: at as u32, round: 0, budget: None, at: point }).collect())
    }

    fn tpe(&self, count: u32) -> Result<Vec<Trial>, TrainError> {
        let options = self.tuning.options;
        let (mut trials, mut done): (Vec<Trial>, Vec<(Vec<f64>, f64)>) = (Vec::new(), Vec::new());
        while trials.len() < count as usize {
            let size = (options.batch as usize).min(count as usize - trials.len());
            let points = tpe::next(&self.checked.space, options.seed, options.startup as usize, &done, size);
            if points.is_empty() {
                break;
            }
            let first = trials.len() as u32;
            let numbered = points.iter().cloned().zip(first..);
            let told =
                self.batch(numbered.map(|(at, number)| Point { number, round: 0, budget: None, at }).collect())?;
            done.extend(points.into_iter().zip(&told).map(|(point, trial)| (point, self.checked.cost(trial.mean))));
            trials.extend(told);
        }
        Ok(trials)
    }

    fn halving(&mut self, points: Vec<Vec<f64>>) -> Result<Vec<Trial>, TrainError> {
        let Some(halving) = &self.tuning.options.halving else { return Ok(Vec::new()) };
        let mut sizes = vec![points.len()];
        while sizes.len() < self.checked.rounds.len() {
            sizes.push(halving.survivors(sizes[sizes.len() - 1]));
        }
        self.total = sizes.iter().sum::<usize>() * self.tuning.folds.len();
        let mut going: Vec<(u32, Vec<f64>)> = (0..).zip(points).collect();
        let mut trials: Vec<Trial> = Vec::new();
        for (round, (budget, size)) in (0u32..).zip(self.checked.rounds.iter().zip(&sizes)) {
            if round > 0 {
                // Trials of the round before stand at the end, in the order of `going`.
                let before = &trials[trials.len() - going.len()..];
                let mut order: Vec<usize> = (0..going.len()).filter(|at| before[*at].mean.is_some()).collect();
                order.sort_by(|a, b| {
                    self.checked.cost(before[*a].mean).total_cmp(&self.checked.cost(before[*b].mean)).then(a.cmp(b))
                });
                order.truncate(*size);
                order.sort_unstable();
                going = order.into_iter().map(|at| going[at].clone()).collect();
            }
            let points = going.iter().map(|(number, at)| Point {
                number: *number,
                round,
                budget: Some(*budget),
                at: at.clone(),
            });
            trials.extend(self.batch(points.collect())?);
        }
        Ok(trials)
    }

    /// Tries points, side by side.
    fn batch(&self, points: Vec<Point>) -> Result<Vec<Trial>, TrainError> {
        let folds = self.tuning.folds.len();
        let halving = self.tuning.options.halving.as_ref();
        let params: Vec<Value> = points
            .iter()
            .map(|point| {
                let mut params = self.checked.space.params(self.tuning.base, &point.at);
                if let (Some(halving), Some(budget)) = (halving.filter(|halving| !halving.of_rows()), point.budget) {
                    space::put(&mut params, &halving.of, Value::from(budget as i64));
                }
                params
            })
            .collect();
        let fits = points.len() * folds;
        let threads = self.tuning.threads.max(1);
        // Where there are fewer fits than threads, each fit has several.
        let each = (threads / fits.max(1)).max(1);
        let entries = parallel(fits, threads, |at| {
            let (point, fold) = (at / folds, at % folds);
            self.unit(&points[point], &params[point], fold, each)
        });
        let mut entries = entries.into_iter();
        let mut trials = Vec::new();
        for (point, params) in points.iter().zip(params) {
            let mut trial = Trial {
                number: point.number,
                round: point.round,
                budget: point.budget,
                values: self.checked.space.values(&point.at),
                params,
                folds: Vec::new(),
                mean: None,
                sd: None,
                seconds: 0.0,
                failed: None,
            };
            for entry in entries.by_ref().take(folds) {
                let entry = entry?;
                trial.seconds += entry.seconds;
                match entry.outcome {
                    Ok(values) => trial.folds.push(values),
                    Err(why) => trial.failed = trial.failed.or(Some(why)),
                }
            }
            if trial.failed.is_some() {
                trial.folds.clear();
            }
            trial.mean = trial.mean_of(&self.checked.metric);
            if let Some(mean) = trial.mean.filter(|_| folds > 1) {
                let far =
                    trial.folds.iter().map(|fold| fold.get(&self.checked.metric).map_or(0.0, |v| (v - mean).powi(2)));
                trial.sd = Some((far.sum::<f64>() / (folds - 1) as f64).sqrt());
            }
            trials.push(trial);
        }
        let found = trials.iter().filter_map(|trial| trial.mean);
        let mut best = self.best.lock().unwrap_or_else(PoisonError::into_inner);
        *best = best
            .iter()
            .copied()
            .chain(found)
            .reduce(|a, b| if self.checked.cost(Some(b)) < self.checked.cost(Some(a)) { b } else { a });
        Ok(trials)
    }

    /// One fit, or what is known of it.
    fn unit(&self, point: &Point, params: &Value, fold: usize, threads: usize) -> Result<Entry, TrainError> {
        let place = (point.number, point.round, fold as u32);
        let known = self.journal.as_ref().map_or(Ok(None), |journal| journal.find(place, params))?;
        let entry = match known {
            Some(entry) => entry.clone(),
            None => {
                if self.tuning.stop.load(Ordering::Relaxed) {
                    return Err(TrainError::Stopped);
                }
                let began = Instant::now();
                let outcome = match self.fitted(point, params, fold, threads) {
                    // Neither is the settings' fault.
                    Err(TrainError::Stopped) => return Err(TrainError::Stopped),
                    Err(fault @ TrainError::Journal { .. }) => return Err(fault),
                    outcome => outcome.map_err(|fault| fault.to_string()),
                };
                let seconds = began.elapsed().as_secs_f64();
                let (trial, round, fold) = place;
                let entry = Entry { trial, round, fold, params: params.clone(), outcome, seconds };
                if let Some(journal) = &self.journal {
                    journal.append(&entry)?;
                }
                self.fresh.fetch_add(1, Ordering::Relaxed);
                entry
            }
        };
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(progress) = self.tuning.progress {
            let (fresh, seconds) = (self.fresh.load(Ordering::Relaxed), self.began.elapsed().as_secs_f64());
            progress(TuneProgress {
                done,
                total: self.total,
                best: *self.best.lock().unwrap_or_else(PoisonError::into_inner),
                seconds,
                seconds_left: (fresh > 0).then(|| seconds / fresh as f64 * self.total.saturating_sub(done) as f64),
            });
        }
        Ok(entry)
    }

    fn fitted(&self, point: &Point, params: &Value, fold: usize, threads: usize) -> Result<Values, TrainError> {
        let options = self.tuning.options;
        let sets = &self.tuning.folds[fold];
        let (mut train, valid) = match &self.parts[fold] {
            Some((train, valid)) => (train, Some(valid)),
            None => (&sets.train, None),
        };
        let sample;
        let of_rows = options.halving.as_ref().is_some_and(HalvingOptions::of_rows);
        if let Some(share) = point.budget.filter(|share| of_rows && *share < 1.0) {
            sample = train.take(&sampled(train.rows(), share, options.seed));
            train = &sample;
        }
        let budget = Budget { threads, seed: options.seed, stop: self.tuning.stop };
        let model = (self.fit)(params, train, valid, &budget)?;
        let test = &sets.test;
        let scores = model.predict(&test.inputs)?;
        let judged = Judged::new(self.tuning.task, &scores, &test.labels, options.threshold)?;
        let mut values = Values::new();
        for metric in &self.checked.metrics {
            if let Some(value) = judged.value(*metric) {
                values.insert(metric.name().to_owned(), value);
            }
        }
        if let Some(cards) = &options.cards {
            let entities = column(test, &cards.by, "cards.by")?;
            let pieces = (sets.span.start, self.checked.cards_every);
            if let Some(value) = card_precision(&scores[0], &test.labels, &test.times, entities, pieces, cards.k) {
                values.insert(format!("card_precision_{}", cards.k), value);
            }
        }
        if !values.contains_key(&self.checked.metric) {
            return Err(TrainError::data(format!("{} is not defined on fold {}", self.checked.metric, fold + 1)));
        }
        Ok(values)
    }
}

/// A share of rows, in their order, drawn by a seed; less is part of more.
fn sampled(rows: usize, share: f64, seed: u64) -> Vec<u32> {
    let mut random = sequence(seed ^ 0x5a3e, 0);
    let mut drawn: Vec<(u64, u32)> = (0..rows as u32).map(|row| (random.word(), row)).collect();
    drawn.sort_unstable();
    drawn.truncate(((rows as f64 * share).ceil() as usize).max(1));
    let mut rows: Vec<u32> = drawn.into_iter().map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}

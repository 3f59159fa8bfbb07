//! Statistics of scores and labels that are in memory: those of the monitors, by the same definitions.
//!
//! Definitions are scikit-learn's where it has one; what it warns of and sets to zero is not defined here and has no value.
//! Each statistic can also be had of a resample, told as how often each row is in it: scores are sorted once, and a resample
//! costs one pass.

use super::data::Task;
use super::error::TrainError;
use crate::plan::model::{self, Metric};

/// Bins of the calibration error, and of a calibration plot.
pub const CALIBRATION_BINS: usize = 10;

/// The task as the plan calls it.
pub fn plan_task(task: Task) -> model::Task {
    match task {
        Task::Binary => model::Task::Binary,
        Task::Classes(_) => model::Task::Multiclass,
        Task::Regression => model::Task::Regression,
    }
}

/// The statistics that tell how good a model of this task is.
pub fn metrics_of(task: Task) -> Vec<Metric> {
    // A table of counts is no number, and the share of positive labels is none of the model's.
    let is_of_model = |metric: &Metric| !matches!(metric, Metric::Confusion | Metric::PositiveRate);
    Metric::of(plan_task(task)).iter().copied().filter(is_of_model).collect()
}

/// The statistic of a name.
///
/// # Errors
/// When the task has none of this name; the nearest is told.
pub fn metric_named(name: &str, task: Task) -> Result<Metric, TrainError> {
    let known = metrics_of(task);
    known.iter().copied().find(|metric| metric.name() == name).ok_or_else(|| {
        let names = || known.iter().map(|metric| metric.name());
        let mend = match crate::plan::nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        TrainError::asked(format!("`{name}` is no statistic of a {} model", task_name(task)), mend)
    })
}

/// What a task is called in messages.
pub fn task_name(task: Task) -> &'static str {
    match task {
        Task::Binary => "binary",
        Task::Classes(_) => "multi-class",
        Task::Regression => "regression",
    }
}

/// Scores per row that a model of this task tells.
pub fn outputs_of(task: Task) -> usize {
    match task {
        Task::Classes(classes) => classes as usize,
        Task::Binary | Task::Regression => 1,
    }
}

/// Whether a greater value is a better one.
pub fn more_is_better(metric: Metric) -> bool {
    !matches!(
        metric,
        Metric::LogLoss
            | Metric::Brier
            | Metric::CalibrationError
            | Metric::Mse
            | Metric::Rmse
            | Metric::Mae
            | Metric::Mape
    )
}

/// A sum that keeps what rounding takes away (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let next = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - next) + value } else { (value - next) + self.sum };
        self.sum = next;
    }

    pub fn get(self) -> f64 {
        self.sum + self.lost
    }
}

/// How often each row counts.
#[derive(Clone, Copy, Debug)]
enum Times<'a> {
    Once,
    These(&'a [u32]),
}

impl Times<'_> {
    #[inline]
    fn of(self, row: usize) -> u64 {
        match self {
            Times::Once => 1,
            Times::These(times) => u64::from(times[row]),
        }
    }
}

/// Scores of a model beside the labels of the same rows.
#[derive(Clone, Debug)]
pub struct Judged<'a> {
    task: Task,
    /// One vector per output.
    scores: &'a [Vec<f64>],
    labels: &'a [f64],
    threshold: f64,
    /// Per output, rows from the lowest score to the highest; none for regression.
    orders: Vec<Vec<u32>>,
    /// Per row, what its probability costs; empty where scores are no probabilities.
    log_costs: Vec<f64>,
    /// Per row, the class with the highest probability; of several classes only.
    classes: Vec<u32>,
}

impl<'a> Judged<'a> {
    /// Of scores, one vector per output (one per class where there are several classes), and labels. A score at or above
    /// `threshold` predicts the positive class.
    ///
    /// # Errors
    /// When there are not as many scores as the labels and the task ask for, a value is no number, or a label is no class.
    pub fn new(task: Task, scores: &'a [Vec<f64>], labels: &'a [f64], threshold: f64) -> Result<Self, TrainError> {
        let (rows, outputs) = (labels.len(), outputs_of(task));
        if scores.len() != outputs || outputs == 0 {
            return Err(TrainError::data(format!(
                "the model tells {} values a row where a {} model tells {outputs}",
                scores.len(),
                task_name(task)
            )));
        }
        for column in scores {
            if column.len() != rows {
                return Err(TrainError::data(format!("there are {} scores for {rows} labels", column.len())));
            }
            if let Some(row) = column.iter().position(|score| !score.is_finite()) {
                return Err(TrainError::data(format!(
                    "the score of row {row} is no number; a linear model needs its missing values filled in"
                )));
            }
        }
        let fits = |label: f64| match task {
            Task::Binary => label == 0.0 || label == 1.0,
            Task::Classes(classes) => label >= 0.0 && label < f64::from(classes) && label.fract() == 0.0,
            Task::Regression => label.is_finite(),
        };
        if let Some(row) = labels.iter().position(|label| !fits(*label)) {
            return Err(TrainError::data(format!(
                "the label of row {row} is {}, which does not fit a {} model",
                labels[row],
                task_name(task)
            )));
        }
        let order = |column: &Vec<f64>| {
            let mut order: Vec<u32> = (0..rows as u32).collect();
            // By row where scores are equal: the order of rows inside ties is of no account, but it is one order.
            order.sort_unstable_by(|a, b| column[*a as usize].total_cmp(&column[*b as usize]).then(a.cmp(b)));
            order
        };
        let orders = if task == Task::Regression { Vec::new() } else { scores.iter().map(order).collect() };
        let probabilities =
            task != Task::Regression && scores.iter().flatten().all(|score| (0.0..=1.0).contains(score));
        let (mut log_costs, mut classes) = (Vec::new(), Vec::new());
        match task {
            Task::Binary if probabilities => {
                let cost = |(p, y): (&f64, &f64)| log_cost(if *y == 1.0 { *p } else { 1.0 - p });
                log_costs = scores[0].iter().zip(labels).map(cost).collect();
            }
            Task::Classes(_) => {
                if probabilities {
                    let cost = |(row, label): (usize, &f64)| log_cost(scores[*label as usize][row]);
                    log_costs = labels.iter().enumerate().map(cost).collect();
                }
                let most = |row: usize| {
                    let better = |best: usize, class: usize| {
                        if scores[class][row] > scores[best][row] { class } else { best }
                    };
                    (0..outputs).fold(0, better) as u32
                };
                classes = (0..rows).map(most).collect();
            }
            Task::Binary | Task::Regression => {}
        }
        Ok(Judged { task, scores, labels, threshold, orders, log_costs, classes })
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Scores of the first output.
    pub(super) fn scores(&self) -> &'a [f64] {
        &self.scores[0]
    }

    /// Labels.
    pub(super) fn labels(&self) -> &'a [f64] {
        self.labels
    }

    /// Whether there are two classes.
    pub(super) fn is_binary(&self) -> bool {
        self.task == Task::Binary
    }

    /// A statistic of all rows; none where it is not defined.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.told(metric, Times::Once)
    }

    /// A statistic of a resample: row `i` is in it `times[i]` times. There are as many as [`Judged::rows`].
    pub fn resampled(&self, metric: Metric, times: &[u32]) -> Option<f64> {
        debug_assert_eq!(times.len(), self.rows());
        self.told(metric, Times::These(times))
    }

    /// What each row adds to a statistic that is a mean over rows; none of other statistics.
    pub(super) fn parts(&self, metric: Metric) -> Option<Vec<f64>> {
        let pairs = || self.scores[0].iter().zip(self.labels);
        match (self.task, metric) {
            (Task::Regression, Metric::Mse) => Some(pairs().map(|(s, y)| (s - y) * (s - y)).collect()),
            (Task::Regression, Metric::Mae) => Some(pairs().map(|(s, y)| (s - y).abs()).collect()),
            (Task::Binary, Metric::Brier) if !self.log_costs.is_empty() => {
                Some(pairs().map(|(s, y)| (s - y) * (s - y)).collect())
            }
            (Task::Binary, Metric::Accuracy) => {
                Some(pairs().map(|(s, y)| f64::from(u8::from((*s >= self.threshold) == (*y == 1.0)))).collect())
            }
            (Task::Classes(_), Metric::Accuracy) => {
                let right = |(class, label): (&u32, &f64)| f64::from(u8::from(f64::from(*class) == *label));
                Some(self.classes.iter().zip(self.labels).map(right).collect())
            }
            (Task::Binary | Task::Classes(_), Metric::LogLoss) if !self.log_costs.is_empty() => {
                Some(self.log_costs.clone())
            }
            _ => None,
        }
    }

    fn told(&self, metric: Metric, times: Times<'_>) -> Option<f64> {
        let rows: u64 = (0..self.rows()).map(|row| times.of(row)).sum();
        if rows == 0 {
            return None;
        }
        let value = match self.task {
            Task::Binary => self.binary(metric, times, rows),
            Task::Classes(_) => self.classes(metric, times, rows),
            Task::Regression => self.regression(metric, times, rows),
        };
        value.filter(|value| value.is_finite())
    }

    fn mean(&self, times: Times<'_>, rows: u64, part: impl Fn(usize) -> f64) -> f64 {
        let mut sum = Sum::default();
        for row in 0..self.rows() {
            let count = times.of(row);
            if count > 0 {
                sum.add(count as f64 * part(row));
            }
        }
        sum.get() / rows as f64
    }

    fn binary(&self, metric: Metric, times: Times<'_>, rows: u64) -> Option<f64> {
        let is = |row: usize| self.labels[row] == 1.0;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let confusion = || {
            let (mut tp, mut fp, mut fn_, mut tn) = (0, 0, 0, 0);
            for row in 0..self.rows() {
                let cell = match (self.scores[0][row] >= self.threshold, is(row)) {
                    (true, true) => &mut tp,
                    (true, false) => &mut fp,
                    (false, true) => &mut fn_,
                    (false, false) => &mut tn,
                };
                *cell += times.of(row);
            }
            (tp, fp, fn_, tn)
        };
        let probabilities = !self.log_costs.is_empty();
        match metric {
            Metric::Auc => self.auc(0, times, is),
            Metric::AveragePrecision => self.average_precision(times),
            Metric::Accuracy => {
                let (tp, _, _, tn) = confusion();
                share(tp + tn, rows)
            }
            Metric::Precision => {
                let (tp, fp, ..) = confusion();
                share(tp, tp + fp)
            }
            Metric::Recall => {
                let (tp, _, fn_, _) = confusion();
                share(tp, tp + fn_)
            }
            Metric::F1 => {
                let (tp, fp, fn_, _) = confusion();
                share(2 * tp, 2 * tp + fp + fn_)
            }
            Metric::LogLoss if probabilities => Some(self.mean(times, rows, |row| self.log_costs[row])),
            Metric::Brier if probabilities => Some(self.mean(times, rows, |row| {
                let far = self.scores[0][row] - self.labels[row];
                far * far
            })),
            Metric::CalibrationError if probabilities => {
                let far = self.bins(times).into_iter().map(|bin| (bin.0.get() - bin.1 as f64).abs());
                Some(far.sum::<f64>() / rows as f64)
            }
            _ => None,
        }
    }

    /// Of ten bins of equal width: sum of scores, positives, rows.
    fn bins(&self, times: Times<'_>) -> [(Sum, u64, u64); CALIBRATION_BINS] {
        let mut bins = [(Sum::default(), 0u64, 0u64); CALIBRATION_BINS];
        for row in 0..self.rows() {
            let (score, count) = (self.scores[0][row], times.of(row));
            let bin = &mut bins[((score * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1)];
            bin.0.add(count as f64 * score);
            bin.1 += if self.labels[row] == 1.0 { count } else { 0 };
            bin.2 += count;
        }
        bins
    }

    /// The share of pairs of a positive and a negative row whose positive scores higher, ties counting one half: a whole
    /// number of half pairs, so exact up to the one division.
    fn auc(&self, column: usize, times: Times<'_>, is: impl Fn(usize) -> bool) -> Option<f64> {
        let score = |row: &u32| self.scores[column][*row as usize];
        let (mut below, mut positives, mut halves) = (0u64, 0u64, 0u128);
        for tied in self.orders.get(column)?.chunk_by(|a, b| score(a) == score(b)) {
            let (mut negative, mut positive) = (0u64, 0u64);
            for row in tied {
                let row = *row as usize;
                *(if is(row) { &mut positive } else { &mut negative }) += times.of(row);
            }
            halves += u128::from(positive) * u128::from(2 * below + negative);
            below += negative;
            positives += positive;
        }
        let pairs = u128::from(below) * u128::from(positives);
        (pairs > 0).then(|| halves as f64 / (2 * pairs) as f64)
    }

    /// The sum over scores, the highest first, of the gain in recall times the precision so far. No interpolation.
    fn average_precision(&self, times: Times<'_>) -> Option<f64> {
        let (mut found, mut seen, mut sum) = (0u64, 0u64, Sum::default());
        let score = |row: &u32| self.scores[0][*row as usize];
        for tied in self.orders.first()?.chunk_by(|a, b| score(a) == score(b)).rev() {
            let mut positive = 0;
            for row in tied {
                let count = times.of(*row as usize);
                positive += if self.labels[*row as usize] == 1.0 { count } else { 0 };
                seen += count;
            }
            if positive > 0 {
                found += positive;
                sum.add(positive as f64 * (found as f64 / seen as f64));
            }
        }
        (found > 0).then(|| sum.get() / found as f64)
    }

    fn classes(&self, metric: Metric, times: Times<'_>, rows: u64) -> Option<f64> {
        let outputs = self.orders.len();
        match metric {
            Metric::LogLoss if !self.log_costs.is_empty() => {
                return Some(self.mean(times, rows, |row| self.log_costs[row]));
            }
            Metric::Auc => {
                let areas: Option<Vec<f64>> =
                    (0..outputs).map(|class| self.auc(class, times, |row| self.labels[row] == class as f64)).collect();
                return areas.map(|areas| areas.iter().sum::<f64>() / outputs as f64);
            }
            _ => {}
        }
        // Of each class: labels, predictions, and labels that were predicted.
        let mut classes = vec![(0u64, 0u64, 0u64); outputs];
        for row in 0..self.rows() {
            let (count, label, told) = (times.of(row), self.labels[row] as usize, self.classes[row] as usize);
            classes[label].0 += count;
            classes[told].1 += count;
            if label == told {
                classes[label].2 += count;
            }
        }
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let precision = |class: &(u64, u64, u64)| share(class.2, class.1);
        let recall = |class: &(u64, u64, u64)| share(class.2, class.0);
        let f1 = |class: &(u64, u64, u64)| share(2 * class.2, class.0 + class.1);
        // Averages are over the classes that occur among labels or predictions.
        let mean = |of: &dyn Fn(&(u64, u64, u64)) -> f64, weighted: bool| {
            let weight = |class: &(u64, u64, u64)| if weighted { class.0 as f64 } else { 1.0 };
            let there = || classes.iter().filter(|class| class.0 + class.1 > 0);
            there().map(|class| weight(class) * of(class)).sum::<f64>() / there().map(weight).sum::<f64>()
        };
        match metric {
            // Of one label and one prediction a row, what is predicted wrongly in one class is missed in another.
            Metric::Accuracy | Metric::PrecisionMicro | Metric::RecallMicro | Metric::F1Micro => {
                Some(share(classes.iter().map(|class| class.2).sum(), rows))
            }
            Metric::PrecisionMacro => Some(mean(&precision, false)),
            Metric::PrecisionWeighted => Some(mean(&precision, true)),
            Metric::RecallMacro => Some(mean(&recall, false)),
            Metric::RecallWeighted => Some(mean(&recall, true)),
            Metric::F1Macro => Some(mean(&f1, false)),
            Metric::F1Weighted => Some(mean(&f1, true)),
            _ => None,
        }
    }

    fn regression(&self, metric: Metric, times: Times<'_>, rows: u64) -> Option<f64> {
        let error = |row: usize| self.labels[row] - self.scores[0][row];
        let squared = || self.mean(times, rows, |row| error(row) * error(row));
        match metric {
            Metric::Mse => Some(squared()),
            Metric::Rmse => Some(squared().sqrt()),
            Metric::Mae => Some(self.mean(times, rows, |row| error(row).abs())),
            Metric::Mape => {
                Some(self.mean(times, rows, |row| error(row).abs() / self.labels[row].abs().max(f64::EPSILON)))
            }
            Metric::R2 => {
                let middle = self.mean(times, rows, |row| self.labels[row]);
                let total = self.mean(times, rows, |row| (self.labels[row] - middle) * (self.labels[row] - middle));
                let errors = squared();
                match (rows, total > 0.0, errors == 0.0) {
                    (..2, ..) => None,
                    (_, true, _) => Some(1.0 - errors / total),
                    // Labels that are all one: nothing is to be explained.
                    (_, false, right) => Some(f64::from(u8::from(right))),
                }
            }
            _ => None,
        }
    }
}

/// What a probability costs: minus its logarithm, never that of zero, as scikit-learn's `log_loss` has it.
fn log_cost(probability: f64) -> f64 {
    -probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// A bin of a calibration plot.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CalibrationBin {
    /// Mean score.
    pub score: f64,
    /// Share of positive labels, and ...
    pub share: f64,
    /// ... the ends of its 95 % interval (Wilson).
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Rows.
    pub rows: u64,
}

/// How scores of a binary model compare with shares of positives: ten bins of about equally many rows, fewer where scores
/// are alike, so that a rare class has more than one point.
pub fn calibration(judged: &Judged<'_>) -> Vec<CalibrationBin> {
    if judged.task != Task::Binary || judged.log_costs.is_empty() || judged.rows() == 0 {
        return Vec::new();
    }
    let score = |row: u32| judged.scores[0][row as usize];
    let (order, rows) = (&judged.orders[0], judged.rows());
    let (mut bins, mut from) = (Vec::new(), 0);
    for bin in 1..=CALIBRATION_BINS {
        let mut to = (rows * bin / CALIBRATION_BINS).max(from);
        // Equal scores are told together.
        while to > from && to < rows && score(order[to]) == score(order[to - 1]) {
            to += 1;
        }
        if to == from {
            continue;
        }
        let (mut sum, mut positives) = (Sum::default(), 0u64);
        for row in &order[from..to] {
            sum.add(score(*row));
            positives += u64::from(judged.labels[*row as usize] == 1.0);
        }
        let n = (to - from) as u64;
        let (low, high) = wilson(positives, n);
        let share = positives as f64 / n as f64;
        bins.push(CalibrationBin { score: sum.get() / n as f64, share, low, high, rows: n });
        from = to;
    }
    bins
}

/// The 95 % interval of a share (Wilson 1927).
fn wilson(part: u64, whole: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (whole as f64, part as f64 / whole as f64);
    let middle = p + Z * Z / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Rounding must not leave the share itself out.
    (((middle - reach) / scale).clamp(0.0, p), ((middle + reach) / scale).clamp(p, 1.0))
}

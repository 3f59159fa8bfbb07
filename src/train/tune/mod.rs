//! Which settings are best: points of a space are tried on folds in time and ordered by a statistic.
//!
//! Layers, bottom-up: [`space`], what may be tried; `grid`, `random`, `tpe` and `halving`, which points are; `journal`, what
//! is done already; `run`, the fits side by side; [`table`], what was found. Fits run side by side on a budget of threads, one thread each where there are
//! as many fits as threads. What is found follows from options, rows and seed, not from threads or from kills in between.

mod grid;
mod halving;
#[cfg(test)]
mod handbook_tests;
mod journal;
mod random;
mod run;
pub mod space;
pub mod table;
#[cfg(test)]
mod tests;
mod tpe;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use halving::HalvingOptions;
pub use space::Space;
pub use table::{FoldFacts, Table, Trial};

use super::data::{Column, Matrix, Set, Task};
use super::error::TrainError;
use super::evaluate::CardOptions;
use super::learner::{Continue, Learner, Options};
use super::metrics::{metric_named, more_is_better};
use super::model::Fitted;
use super::pipeline::Pipeline;
use super::prepare::Prepare;
use super::split::{Fold, Span};
use crate::base::{hash_bytes, parse_duration};
use crate::plan::model::Metric;
use journal::Journal;
use run::Run;

/// Statistics by name.
pub type Values = BTreeMap<String, f64>;

/// A model that can be asked.
pub trait Predict: Send + Sync {
    /// What it tells of rows: one vector per output.
    ///
    /// # Errors
    /// When it cannot take these inputs.
    fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError>;
}

impl Predict for Fitted {
    fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
        Ok(Fitted::predict(self, inputs))
    }
}

impl Predict for Pipeline {
    /// In double precision, by the fast path; what is exported differs by rounding.
    fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
        Ok(self.fitted.predict(&self.prepare.apply(inputs)?))
    }
}

/// What a fit of a trial may use.
#[derive(Clone, Copy, Debug)]
pub struct Budget<'a> {
    /// Threads, at least 1.
    pub threads: usize,
    /// What is drawn at random is drawn by it; the same for all trials, so that they differ by their settings alone.
    pub seed: u64,
    /// Set when the fit should end with [`TrainError::Stopped`].
    pub stop: &'a AtomicBool,
}

/// Fits settings to rows; the second set is what early stopping looks at.
pub type FitWith<'a> =
    dyn Fn(&Value, &Set, Option<&Set>, &Budget<'_>) -> Result<Box<dyn Predict>, TrainError> + Sync + 'a;

/// How points are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TuneMethod {
    /// Every combination.
    Grid,
    /// At random.
    Random,
    /// What is likely to be good after the trials so far.
    #[default]
    Tpe,
    /// Many with little, the best of them with more.
    Halving,
}

/// What is tuned, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TuneOptions {
    /// How points are chosen.
    pub method: TuneMethod,
    /// Points that are tried; of a grid at most. Without it 30, of a grid all.
    pub trials: Option<u32>,
    /// Points are drawn by it.
    pub seed: u64,
    /// The statistic that trials are ordered by; without it `auc` (two classes), `log_loss` (several) or `rmse`.
    pub metric: Option<String>,
    /// Further statistics that the table tells.
    pub also: Vec<String>,
    /// A score at or above this predicts the positive class.
    pub threshold: f64,
    /// Precision among the entities with the highest scores, told as `card_precision_K`; trials may be ordered by it.
    pub cards: Option<CardOptions>,
    /// Settings with what is tried of each.
    pub space: Map<String, Value>,
    /// Share of the rows to fit on, the newest, that early stopping looks at; 0 for none.
    pub valid: f64,
    /// Of `tpe`: points that are drawn at random first.
    pub startup: u32,
    /// Of `tpe`: points that are chosen at a time, whatever the number of threads.
    pub batch: u32,
    /// Of `halving`: what is given little of at first.
    pub halving: Option<HalvingOptions>,
}

impl Default for TuneOptions {
    fn default() -> Self {
        TuneOptions {
            method: TuneMethod::Tpe,
            trials: None,
            seed: 0,
            metric: None,
            also: Vec::new(),
            threshold: 0.5,
            cards: None,
            space: Map::new(),
            valid: 0.0,
            startup: 10,
            batch: 4,
            halving: None,
        }
    }
}

/// Trials where the file does not say how many.
const TRIALS: u32 = 30;
/// Trials at most.
const TRIALS_MAX: u32 = 100_000;

/// Options that were looked through.
struct Checked {
    space: Space,
    metric: String,
    more_is_better: bool,
    /// Statistics of each fold: the first is the one that trials are ordered by, unless that is card precision.
    metrics: Vec<Metric>,
    rounds: Vec<f64>,
    cards_every: i64,
}

impl Checked {
    /// The less the better; infinite where there is nothing.
    fn cost(&self, mean: Option<f64>) -> f64 {
        match mean {
            Some(mean) if self.more_is_better => -mean,
            Some(mean) => mean,
            None => f64::INFINITY,
        }
    }
}

impl TuneOptions {
    /// Whether all of it can be done for models of a task: what a check of the file can tell without rows.
    ///
    /// # Errors
    /// Names the first thing that cannot, with the way to mend it.
    pub fn check(&self, task: Task) -> Result<(), TrainError> {
        self.checked(task).map(|_| ())
    }

    fn checked(&self, task: Task) -> Result<Checked, TrainError> {
        let space = Space::parse(&self.space)?;
        let fallback = match task {
            Task::Binary => Metric::Auc,
            Task::Classes(_) => Metric::LogLoss,
            Task::Regression => Metric::Rmse,
        };
        let metric = self.metric.clone().unwrap_or_else(|| fallback.name().to_owned());
        let cards = self.cards.as_ref().map(|cards| format!("card_precision_{}", cards.k));
        let by_cards = cards.as_ref() == Some(&metric);
        let mut metrics = if by_cards { Vec::new() } else { vec![metric_named(&metric, task)?] };
        for name in &self.also {
            let metric = metric_named(name, task)?;
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        if cards.is_some() && task != Task::Binary {
            return Err(TrainError::asked("cards needs a binary model", "leave it out"));
        }
        let cards_every = match &self.cards {
            None => 1,
            Some(cards) => parse_duration(&cards.every)
                .ok()
                .filter(|every| *every > 0 && cards.k > 0)
                .ok_or_else(|| TrainError::asked("cards: `every` must be a time such as 1d, and `k` at least 1", ""))?,
        };
        for (name, value, range) in [
            ("trials", self.trials.unwrap_or(1), 1..=TRIALS_MAX),
            ("batch", self.batch, 1..=1000),
            ("startup", self.startup, 1..=TRIALS_MAX),
        ] {
            if !range.contains(&value) {
                let mend = format!("write a whole number from {} to {}", range.start(), range.end());
                return Err(TrainError::asked(format!("{name} is {value}"), mend));
            }
        }
        if !(0.0..1.0).contains(&self.valid) {
            return Err(TrainError::asked(format!("valid is {}", self.valid), "write a share such as 0.1, or 0"));
        }
        let rounds = match (self.method, &self.halving) {
            (TuneMethod::Halving, None) => {
                let mend = "say what grows, such as `halving: {of: trees, from: 20, to: 540}`";
                return Err(TrainError::asked("method halving lacks `halving`", mend));
            }
            (TuneMethod::Halving, Some(halving)) => {
                if space.dimensions.iter().any(|dimension| dimension.name == halving.of) {
                    return Err(TrainError::asked(
                        format!("space.{0}: {0} is what halving gives more of from round to round", halving.of),
                        "leave it out of the space",
                    ));
                }
                halving.rounds()?
            }
            (_, Some(_)) => {
                return Err(TrainError::asked(
                    "`halving` is given, but the method is another",
                    "write `method: halving`",
                ));
            }
            (_, None) => Vec::new(),
        };
        let more = by_cards || metrics.first().is_some_and(|metric| more_is_better(*metric));
        Ok(Checked { space, metric, more_is_better: more, metrics, rounds, cards_every })
    }
}

/// The rows of a fold.
#[derive(Clone, Debug)]
pub struct FoldSet {
    /// Rows to fit on.
    pub train: Set,
    /// Rows to judge by.
    pub test: Set,
    /// Where they are in time.
    pub span: Span,
}

impl FoldSet {
    /// Takes the rows of folds out of a set. All folds are in memory at once.
    pub fn of(set: &Set, folds: &[Fold]) -> Vec<FoldSet> {
        let take = |fold: &Fold| FoldSet { train: set.take(&fold.train), test: set.take(&fold.test), span: fold.span };
        folds.iter().map(take).collect()
    }

    /// What it holds.
    pub fn facts(&self) -> FoldFacts {
        let positives = |set: &Set| set.labels.iter().filter(|label| **label > 0.0).count() as u64;
        FoldFacts {
            span: self.span,
            train_rows: self.train.rows() as u64,
            train_positives: positives(&self.train),
            test_rows: self.test.rows() as u64,
            test_positives: positives(&self.test),
        }
    }
}

/// How far a tuning is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuneProgress {
    /// Fits done.
    pub done: usize,
    /// Of so many.
    pub total: usize,
    /// The best mean so far.
    pub best: Option<f64>,
    /// Since the beginning.
    pub seconds: f64,
    /// Until the end, going on at this pace; none before the first fit is done.
    pub seconds_left: Option<f64>,
}

/// A tuning as it is to be run.
#[derive(Clone, Copy)]
pub struct Tuning<'a> {
    /// What is tuned, and how.
    pub options: &'a TuneOptions,
    /// What models tell.
    pub task: Task,
    /// Settings that the points' values are laid over.
    pub base: &'a Value,
    /// Folds that each point is tried on.
    pub folds: &'a [FoldSet],
    /// Threads for all fits together, at least 1.
    pub threads: usize,
    /// What else results follow from, such as the learner and the preparation: a journal of another is not gone on with.
    pub made_by: &'a str,
    /// File of what is done, from which a tuning that was killed goes on.
    pub journal: Option<&'a Path>,
    /// Set when the tuning should end.
    pub stop: &'a AtomicBool,
    /// Told after each fit, from any thread.
    pub progress: Option<&'a (dyn Fn(TuneProgress) + Sync)>,
}

/// Tries points of a space and tells which is best.
///
/// # Errors
/// When options cannot be, a journal is another tuning's, [`Tuning::stop`] was set, or every trial failed.
pub fn tune(tuning: &Tuning<'_>, fit: &FitWith<'_>) -> Result<Table, TrainError> {
    let options = tuning.options;
    let checked = options.checked(tuning.task)?;
    if tuning.folds.is_empty() {
        return Err(TrainError::data("there is no fold to try settings on"));
    }
    let journal = match tuning.journal {
        Some(path) => Some(Journal::open(path, &fingerprint(tuning))?),
        None => None,
    };
    let mut run = Run::new(tuning, checked, fit, journal)?;
    let trials = run.trials()?;
    let last_round = trials.iter().map(|trial| trial.round).max().unwrap_or(0);
    let best = trials
        .iter()
        .enumerate()
        .filter(|(_, trial)| trial.round == last_round)
        .filter_map(|(at, trial)| trial.mean.map(|mean| (at, run.checked.cost(Some(mean)))))
        .reduce(|best, next| if next.1 < best.1 { next } else { best });
    let Some((best, _)) = best else {
        let why = trials.iter().find_map(|trial| trial.failed.as_deref()).unwrap_or("no reason was told");
        return Err(TrainError::asked(format!("all {} trials failed; the first: {why}", trials.len()), ""));
    };
    Ok(Table {
        method: options.method,
        seed: options.seed,
        metric: run.checked.metric,
        more_is_better: run.checked.more_is_better,
        folds: tuning.folds.iter().map(FoldSet::facts).collect(),
        trials,
        best,
    })
}

/// Tunes the settings of a learner: names of the space are those of its settings. The preparation is fitted anew for each
/// fold, on its rows to fit on alone. [`Tuning::base`] is not looked at.
///
/// # Errors
/// As [`tune`], and when the learner has no setting of a name.
pub fn tune_learner(tuning: &Tuning<'_>, prepare: &Prepare, learner: &Learner) -> Result<Table, TrainError> {
    check_names(tuning.options, learner)?;
    let (name, base) = settings_of(learner)?;
    let fit = |params: &Value, set: &Set, valid: Option<&Set>, budget: &Budget<'_>| {
        let learner = with_settings(name, params)?;
        let go_on = |_| if budget.stop.load(Ordering::Relaxed) { Continue::No } else { Continue::Yes };
        let options = Options { threads: budget.threads, seed: budget.seed, progress: Some(&go_on) };
        let fitted = Pipeline::fit(prepare, &learner, set, tuning.task, valid, &options)?;
        Ok(Box::new(fitted) as Box<dyn Predict>)
    };
    let settings = serde_json::to_string(prepare).map_err(|fault| TrainError::asked(fault.to_string(), ""))?;
    let made_by = format!("{} {name} {settings}", tuning.made_by);
    tune(&Tuning { base: &base, made_by: &made_by, ..*tuning }, &fit)
}

/// A learner with the settings of a trial in place of its own.
///
/// # Errors
/// When a value does not suit its setting.
pub fn learner_of(learner: &Learner, params: &Value) -> Result<Learner, TrainError> {
    with_settings(learner.name(), params)
}

/// Whether a learner has all settings that are tuned.
///
/// # Errors
/// Names the first that it has not, and the nearest that it has.
pub fn check_names(options: &TuneOptions, learner: &Learner) -> Result<(), TrainError> {
    let (learner, base) = settings_of(learner)?;
    let known: Vec<&str> = base.as_object().map(|base| base.keys().map(String::as_str).collect()).unwrap_or_default();
    let halving =
        options.halving.iter().filter(|halving| !halving.of_rows()).map(|halving| ("halving.of", &halving.of));
    for (key, name) in options.space.keys().map(|name| ("space", name)).chain(halving) {
        let first = name.split('.').next().unwrap_or(name);
        if !known.contains(&first) {
            let mend = match crate::plan::nearest(first, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(TrainError::asked(format!("{key}: {learner} has no setting `{name}`"), mend));
        }
    }
    Ok(())
}

fn settings_of(learner: &Learner) -> Result<(&'static str, Value), TrainError> {
    let mut all = serde_json::to_value(learner).map_err(|fault| TrainError::asked(fault.to_string(), ""))?;
    Ok((learner.name(), all.get_mut(learner.name()).map(Value::take).unwrap_or_default()))
}

fn with_settings(name: &str, params: &Value) -> Result<Learner, TrainError> {
    let whole = Value::Object(Map::from_iter([(name.to_owned(), params.clone())]));
    let learner: Learner =
        serde_json::from_value(whole).map_err(|fault| TrainError::asked(format!("{name}: {fault}"), ""))?;
    learner.check()?;
    Ok(learner)
}

/// Of all that results follow from, but not of threads.
fn fingerprint(tuning: &Tuning<'_>) -> String {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let options = serde_json::to_string(tuning.options).unwrap_or_default();
    put(format!("{options} {:?} {} {}", tuning.task, tuning.base, tuning.made_by).as_bytes());
    for fold in tuning.folds {
        put(format!("{:?}", fold.span).as_bytes());
        for set in [&fold.train, &fold.test] {
            put(format!("{:?}", set.inputs.names).as_bytes());
            let floats = |values: &[f64]| {
                hash_bytes(&values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect::<Vec<u8>>())
            };
            put(&floats(&set.labels).to_le_bytes());
            put(&set.weights.as_deref().map_or(0, floats).to_le_bytes());
            put(&hash_bytes(&set.times.iter().flat_map(|time| time.to_le_bytes()).collect::<Vec<u8>>()).to_le_bytes());
            for column in &set.inputs.columns {
                let bytes: Vec<u8> = match column {
                    Column::Number(values) => values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect(),
                    Column::Category { codes, levels } => {
                        put(format!("{levels:?}").as_bytes());
                        codes.iter().flat_map(|code| code.to_le_bytes()).collect()
                    }
                };
                put(&hash_bytes(&bytes).to_le_bytes());
            }
        }
    }
    hash.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

//! Rows to fit on and rows to judge by, apart in time as they are in use: a label comes late, so the rows before a test
//! begins have none yet.
//!
//! ```text
//!   from           end            start                 stop
//!    │    train     │     gap       │        test         │          end = start - gap, from = end - train
//! ───┴──────────────┴───────────────┴─────────────────────┴──► event time; ends are open
//! ```
//! A row is never fitted on whose label was not known when the test began, whatever the gap.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data::{Set, Task};
use super::error::TrainError;
use crate::base::{DAY, EventTime, Micros, format_duration, format_time, parse_duration, parse_time};

/// Rows to fit on and rows to judge by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Rows to fit on, in the order of the set.
    pub train: Vec<u32>,
    /// Rows to judge by, in the order of the set.
    pub test: Vec<u32>,
    /// Where these are in time.
    pub span: Span,
    /// Rows of the test's time that were left out, since what they are of was known to be positive.
    pub removed: u64,
}

/// Where a fold is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First moment of the rows to fit on.
    pub from: EventTime,
    /// First moment after them.
    pub end: EventTime,
    /// First moment of the rows to judge by.
    pub start: EventTime,
    /// First moment after them.
    pub stop: EventTime,
}

/// A split by time: the newest rows are for the test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitOptions {
    /// Length of the test's time, such as `7d`. Without it the test takes `share` of the rows.
    pub test: Option<String>,
    /// Share of the rows for the test, where `test` is not given.
    pub share: f64,
    /// Time between the rows to fit on and the test: the time that labels take.
    pub gap: String,
    /// Length of the time to fit on; without it all that is before the gap.
    pub train: Option<String>,
    /// First moment after the test; without it the end of the set's last day, or with `share` its last row.
    pub until: Option<String>,
}

impl Default for SplitOptions {
    fn default() -> Self {
        SplitOptions { test: None, share: 0.2, gap: "0s".into(), train: None, until: None }
    }
}

/// Folds one after another in time, each as a model would have been fitted and used then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrequentialOptions {
    /// How many.
    pub folds: u32,
    /// Length of the time to fit on.
    pub train: String,
    /// Time between the rows to fit on and the test: the time that labels take.
    pub gap: String,
    /// Length of the test's time.
    pub test: String,
    /// How much earlier each fold is than the next; without it the length of the test.
    pub step: Option<String>,
    /// First moment after the last fold's test; without it the end of the set's last day.
    pub until: Option<String>,
    /// Takes rows out of the tests that are of something known to be positive already, such as a defrauded card.
    pub remove_known: Option<RemoveKnown>,
}

impl Default for PrequentialOptions {
    fn default() -> Self {
        PrequentialOptions {
            folds: 4,
            train: "7d".into(),
            gap: "7d".into(),
            test: "7d".into(),
            step: None,
            until: None,
            remove_known: None,
        }
    }
}

/// What is known to be positive is not judged again.
///
/// A test is cut into pieces of length `every`. A row is left out when a row of the same value of `by` is positive and is
/// neither before the time to fit on nor later than the beginning of the row's piece less the gap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveKnown {
    /// A further column of the set: the card, the customer.
    pub by: String,
    /// Length of a piece.
    #[serde(default = "a_day")]
    pub every: String,
}

fn a_day() -> String {
    "1d".into()
}

fn length(text: &str, key: &str, least: Micros) -> Result<Micros, TrainError> {
    let length = parse_duration(text).map_err(|what| TrainError::asked(format!("{key}: {what}"), ""))?;
    if length < least {
        return Err(TrainError::asked(format!("{key} is {text}"), "it must be longer than nothing"));
    }
    Ok(length)
}

fn moment(text: &str, key: &str) -> Result<EventTime, TrainError> {
    parse_time(text).map_err(|what| TrainError::asked(format!("{key}: {what}"), ""))
}

/// The end of the day of the set's last row.
fn end_of(set: &Set) -> Result<EventTime, TrainError> {
    let last = set.times.iter().max().ok_or_else(|| TrainError::data("the training set has no rows".to_owned()))?;
    Ok((last.div_euclid(DAY) + 1) * DAY)
}

/// Splits a set once.
///
/// # Errors
/// When an option is no length or time, or a side has no rows.
pub fn split(set: &Set, options: &SplitOptions) -> Result<Fold, TrainError> {
    let gap = length(&options.gap, "gap", 0)?;
    let train = options.train.as_deref().map(|text| length(text, "train", 1)).transpose()?;
    let until = options.until.as_deref().map(|text| moment(text, "until")).transpose()?;
    let (start, stop) = match &options.test {
        Some(test) => {
            let stop = until.map_or_else(|| end_of(set), Ok)?;
            (stop - length(test, "test", 1)?, stop)
        }
        None => {
            if !(options.share > 0.0 && options.share < 1.0) {
                return Err(TrainError::asked(
                    format!("share is {}", options.share),
                    "write a share of the rows between 0 and 1, such as 0.2, or a length of time as `test: 7d`",
                ));
            }
            let mut times: Vec<EventTime> =
                set.times.iter().copied().filter(|time| until.is_none_or(|until| *time < until)).collect();
            times.sort_unstable();
            let last = *times.last().ok_or_else(|| TrainError::data("the training set has no rows".to_owned()))?;
            // Rows of one moment stay together, in the test.
            let at = (times.len() as f64 * (1.0 - options.share)).floor() as usize;
            (times[at.min(times.len() - 1)], until.unwrap_or(last + 1))
        }
    };
    let first = set.times.iter().copied().min().unwrap_or(start);
    let end = start - gap;
    let span = Span { from: train.map_or(first.min(end), |train| end - train), end, start, stop };
    let fold = fold(set, span, gap, None)?;
    checked(set, fold, "the split", None)
}

/// Cuts the newest `share` of the rows off for early stopping: rows to fit on, rows to watch.
///
/// # Errors
/// When a side has no rows.
pub fn hold_out(set: &Set, share: f64) -> Result<(Vec<u32>, Vec<u32>), TrainError> {
    let options = SplitOptions { share, ..SplitOptions::default() };
    // Within rows that are fitted on every label is known, so none is left out for coming late.
    let known = Set {
        inputs: Default::default(),
        labels: set.labels.clone(),
        weights: None,
        times: set.times.clone(),
        known: set.times.clone(),
        extra: Vec::new(),
    };
    let fold = split(&known, &options)?;
    Ok((fold.train, fold.test))
}

/// Cuts a set into folds, the earliest first.
///
/// # Errors
/// When an option is no length or time, the set has no such column, or a fold has no rows or, of two classes, but one of
/// them to fit on.
pub fn prequential(set: &Set, task: Task, options: &PrequentialOptions) -> Result<Vec<Fold>, TrainError> {
    if options.folds == 0 {
        return Err(TrainError::asked("folds is 0".to_owned(), "write at least 1"));
    }
    let train = length(&options.train, "train", 1)?;
    let gap = length(&options.gap, "gap", 0)?;
    let test = length(&options.test, "test", 1)?;
    let step = options.step.as_deref().map_or(Ok(test), |text| length(text, "step", 1))?;
    let until = match &options.until {
        Some(text) => moment(text, "until")?,
        None => end_of(set)?,
    };
    let removal = match &options.remove_known {
        None => None,
        Some(remove) => {
            let every = length(&remove.every, "remove_known.every", 1)?;
            Some((column(set, &remove.by, "remove_known.by")?, every))
        }
    };
    (0..i64::from(options.folds))
        .rev()
        .map(|back| {
            let stop = until - back * step;
            let start = stop - test;
            let span = Span { from: start - gap - train, end: start - gap, start, stop };
            let name = format!("fold {} of {}", i64::from(options.folds) - back, options.folds);
            checked(set, fold(set, span, gap, removal)?, &name, Some(task))
        })
        .collect()
}

/// A further column of a set by its name.
///
/// # Errors
/// When there is none; the nearest is told.
pub fn column<'a>(set: &'a Set, name: &str, key: &str) -> Result<&'a [String], TrainError> {
    let names = || set.extra.iter().map(|(name, _)| name.as_str());
    set.extra.iter().find(|(known, _)| known == name).map(|(_, values)| values.as_slice()).ok_or_else(|| {
        let mend = match crate::plan::nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if set.extra.is_empty() => "the set has no further columns; name them where it is made".to_owned(),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        TrainError::asked(format!("{key}: the set has no further column `{name}`"), mend)
    })
}

fn fold(set: &Set, span: Span, gap: Micros, removal: Option<(&[String], Micros)>) -> Result<Fold, TrainError> {
    let rows = u32::try_from(set.rows())
        .map_err(|_| TrainError::data(format!("{} rows are more than can be split", set.rows())))?;
    let time = |row: u32| set.times[row as usize];
    let within = |row: u32, from, to| (from..to).contains(&time(row));
    let train =
        (0..rows).filter(|row| within(*row, span.from, span.end) && set.known[*row as usize] <= span.start).collect();
    let mut test: Vec<u32> = (0..rows).filter(|row| within(*row, span.start, span.stop)).collect();
    let all = test.len();
    if let Some((of, every)) = removal {
        let positive = |row: u32| set.labels[row as usize] > 0.0;
        // When each value was first seen to be positive since the fold's beginning.
        let mut first: HashMap<&str, EventTime> = HashMap::new();
        for row in (0..rows).filter(|row| within(*row, span.from, span.stop) && positive(*row)) {
            let seen = first.entry(&of[row as usize]).or_insert(time(row));
            *seen = (*seen).min(time(row));
        }
        test.retain(|row| {
            let piece = span.start + (time(*row) - span.start) / every * every;
            first.get(of[*row as usize].as_str()).is_none_or(|first| *first >= piece - gap)
        });
    }
    let removed = (all - test.len()) as u64;
    Ok(Fold { train, test, span, removed })
}

/// A fold that something can be learned and told from.
fn checked(set: &Set, fold: Fold, name: &str, task: Option<Task>) -> Result<Fold, TrainError> {
    let Span { from, end, start, stop } = fold.span;
    for (rows, side, from, to) in [(&fold.train, "to fit on", from, end), (&fold.test, "to judge by", start, stop)] {
        let span = format!("from {} until {}", format_time(from), format_time(to));
        if rows.is_empty() {
            return Err(TrainError::data(format!(
                "{name} has no rows {side} {span}; the set has rows from {} to {} whose labels are known by {}",
                shown(set.times.iter().min()),
                shown(set.times.iter().max()),
                shown(set.known.iter().max()),
            )));
        }
        let labels: HashSet<u64> = rows.iter().map(|row| set.labels[*row as usize].to_bits()).collect();
        if task == Some(Task::Binary) && labels.len() < 2 {
            return Err(TrainError::data(format!(
                "{name} has {} rows {side} {span}, all of one label; make its time longer than {}",
                rows.len(),
                format_duration(to - from)
            )));
        }
    }
    Ok(fold)
}

fn shown(time: Option<&EventTime>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format_time(*time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::data::{Column, Matrix};

    /// One row each hour, the label known after a delay; every 24th row positive; customers in turn.
    fn hourly(days: i64, delay: Micros) -> Set {
        let times: Vec<EventTime> = (0..days * 24).map(|hour| hour * DAY / 24).collect();
        let rows = times.len();
        Set {
            inputs: Matrix {
                names: vec!["x".into()],
                columns: vec![Column::Number((0..rows).map(|row| row as f32).collect())],
            },
            labels: (0..rows).map(|row| f64::from(u8::from(row % 24 == 5))).collect(),
            weights: None,
            known: times.iter().map(|time| time + delay).collect(),
            times,
            extra: vec![("customer".into(), (0..rows).map(|row| format!("c{}", row % 31)).collect())],
        }
    }

    #[test]
    fn a_gap_lies_between_train_and_test() {
        let set = hourly(21, 7 * DAY);
        let options = SplitOptions { test: Some("7d".into()), gap: "7d".into(), ..SplitOptions::default() };
        let fold = split(&set, &options).unwrap();
        assert_eq!(fold.train, (0..7 * 24).collect::<Vec<u32>>());
        assert_eq!(fold.test, (14 * 24..21 * 24).collect::<Vec<u32>>());
        let short = SplitOptions { train: Some("2d".into()), ..options };
        assert_eq!(split(&set, &short).unwrap().train, (5 * 24..7 * 24).collect::<Vec<u32>>());
    }

    #[test]
    fn labels_that_were_not_there_are_not_fitted_on() {
        // A delay of 7 days and no gap: the rows of the last 7 days before the test have no label yet.
        let set = hourly(21, 7 * DAY);
        let fold = split(&set, &SplitOptions { test: Some("7d".into()), ..SplitOptions::default() }).unwrap();
        assert_eq!(fold.train, (0..=7 * 24).collect::<Vec<u32>>());
        assert!(fold.train.iter().all(|row| set.known[*row as usize] <= fold.span.start));
    }

    #[test]
    fn a_share_of_the_rows() {
        let mut set = hourly(10, 0);
        let fold = split(&set, &SplitOptions::default()).unwrap();
        assert_eq!((fold.train.len(), fold.test.len()), (192, 48));
        // Rows of one moment are on one side.
        set.times.iter_mut().for_each(|time| *time = *time / DAY * DAY);
        set.known.clone_from(&set.times);
        let fold = split(&set, &SplitOptions { share: 0.25, ..SplitOptions::default() }).unwrap();
        assert_eq!((fold.train.len(), fold.test.len()), (168, 72));
        let (fit, watch) = hold_out(&hourly(10, 7 * DAY), 0.1).unwrap();
        assert_eq!((fit.len(), watch.len()), (216, 24));
    }

    #[test]
    fn faults_are_told() {
        let set = hourly(21, 7 * DAY);
        let told = |fold: Result<Vec<Fold>, TrainError>| fold.unwrap_err().to_string();
        let options = PrequentialOptions { folds: 2, ..PrequentialOptions::default() };
        let none = told(prequential(&set, Task::Binary, &options));
        assert!(none.contains("fold 1 of 2 has no rows to fit on from 1969-12-25"), "{none}");
        let near = RemoveKnown { by: "custmer".into(), every: "1d".into() };
        let options = PrequentialOptions { folds: 1, remove_known: Some(near), ..PrequentialOptions::default() };
        let near = told(prequential(&set, Task::Binary, &options));
        assert!(near.contains("did you mean `customer`?"), "{near}");
        let options = PrequentialOptions { folds: 1, train: "1h".into(), ..PrequentialOptions::default() };
        let one = told(prequential(&set, Task::Binary, &options));
        assert!(one.contains("all of one label"), "{one}");
        let options = PrequentialOptions { train: "a week".into(), ..PrequentialOptions::default() };
        assert!(told(prequential(&set, Task::Binary, &options)).contains("train: `a week` is not a duration"));
        let split = split(&set, &SplitOptions { share: 1.0, ..SplitOptions::default() }).unwrap_err().to_string();
        assert!(split.contains("share is 1"), "{split}");
    }

    #[test]
    fn what_is_known_is_removed_from_the_pieces_after() {
        let set = hourly(28, 7 * DAY);
        let remove = Some(RemoveKnown { by: "customer".into(), every: "1d".into() });
        let options = PrequentialOptions { folds: 2, remove_known: remove, ..PrequentialOptions::default() };
        let folds = prequential(&set, Task::Binary, &options).unwrap();
        assert_eq!(folds.len(), 2);
        for fold in &folds {
            // The rule row by row, as the handbook tells it: known frauds are those of the training week and of the days up
            // to the eighth before.
            let first_day = fold.span.from / DAY;
            let expected: Vec<u32> = (0..set.rows() as u32)
                .filter(|row| (fold.span.start..fold.span.stop).contains(&set.times[*row as usize]))
                .filter(|row| {
                    let day = set.times[*row as usize] / DAY;
                    !(0..set.rows()).any(|other| {
                        let of = set.times[other] / DAY;
                        let same = set.extra[0].1[other] == set.extra[0].1[*row as usize];
                        set.labels[other] == 1.0 && same && first_day <= of && of <= day - 8
                    })
                })
                .collect();
            assert_eq!(fold.test, expected);
            assert!(fold.removed > 20 && expected.len() > 50, "{} {}", fold.removed, expected.len());
        }
        assert_eq!(folds[0].span.start + 7 * DAY, folds[1].span.start);
    }
}

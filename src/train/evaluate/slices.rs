//! Parts of the rows: how the models do for each value of a column.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::compare::{Compared, Pair, quantile};
use super::{EvaluateOptions, TrainError};
use crate::plan::model::Metric;
use crate::train::data::{Column, MISSING, Set, Task};
use crate::train::metrics::Judged;

/// Values of a column that are told apart at most; the rest, those with the fewest rows, are told together.
const VALUES_MAX: usize = 12;
/// Different numbers that are told apart as they are; of more, quarters of the rows are.
const NUMBERS_MAX: usize = 8;

/// A part of the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The column.
    pub column: String,
    /// Its value in these rows.
    pub value: String,
    /// Rows.
    pub rows: u64,
    /// Of these with label 1; of two classes only.
    pub positives: Option<u64>,
    /// Statistics, with the intervals that need no resamples.
    pub metrics: Vec<Compared>,
}

pub(super) fn slices(
    set: &Set,
    task: Task,
    challenger: &[Vec<f64>],
    champion: Option<&[Vec<f64>]>,
    options: &EvaluateOptions,
    metrics: &[Metric],
) -> Result<Vec<Slice>, TrainError> {
    let mut slices = Vec::new();
    for name in &options.slices {
        for (value, rows) in parts(set, name)? {
            let take = |scores: &[Vec<f64>]| -> Vec<Vec<f64>> {
                scores.iter().map(|column| rows.iter().map(|row| column[*row as usize]).collect()).collect()
            };
            let labels: Vec<f64> = rows.iter().map(|row| set.labels[*row as usize]).collect();
            let (own, others) = (take(challenger), champion.map(take));
            let judged = Judged::new(task, &own, &labels, options.threshold)?;
            let other =
                others.as_ref().map(|scores| Judged::new(task, scores, &labels, options.threshold)).transpose()?;
            let pair = Pair { challenger: &judged, champion: other.as_ref() };
            slices.push(Slice {
                column: name.clone(),
                value,
                rows: rows.len() as u64,
                positives: (task == Task::Binary).then(|| labels.iter().filter(|label| **label == 1.0).count() as u64),
                metrics: metrics.iter().map(|metric| pair.by_formula(*metric, options.confidence)).collect(),
            });
        }
    }
    Ok(slices)
}

/// Values of a column with their rows: the most frequent first, the rest together; quarters of numbers in their order.
fn parts(set: &Set, name: &str) -> Result<Vec<(String, Vec<u32>)>, TrainError> {
    if let Some((_, values)) = set.extra.iter().find(|(known, _)| known == name) {
        return Ok(frequent(values.iter().map(String::as_str)));
    }
    match set.inputs.names.iter().position(|known| known == name).and_then(|at| set.inputs.columns.get(at)) {
        Some(Column::Number(values)) => Ok(ranges(values)),
        Some(Column::Category { codes, levels }) => {
            let of = |code: &u32| match levels.get(*code as usize) {
                Some(level) if *code != MISSING => level.as_str(),
                _ => "(missing)",
            };
            Ok(frequent(codes.iter().map(of)))
        }
        None => {
            let names = || set.extra.iter().map(|(name, _)| name).chain(&set.inputs.names).map(String::as_str);
            let mend = match crate::plan::nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            Err(TrainError::asked(format!("slices: the set has no column `{name}`"), mend))
        }
    }
}

fn frequent<'a>(values: impl Iterator<Item = &'a str>) -> Vec<(String, Vec<u32>)> {
    let mut rows: HashMap<&str, Vec<u32>> = HashMap::new();
    for (row, value) in values.enumerate() {
        rows.entry(value).or_default().push(row as u32);
    }
    let mut parts: Vec<(String, Vec<u32>)> = rows.into_iter().map(|(value, rows)| (value.to_owned(), rows)).collect();
    parts.sort_unstable_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(&b.0)));
    if parts.len() > VALUES_MAX {
        let rest = parts.split_off(VALUES_MAX - 1);
        let mut rows: Vec<u32> = rest.iter().flat_map(|(_, rows)| rows).copied().collect();
        rows.sort_unstable();
        parts.push((format!("({} others)", rest.len()), rows));
    }
    parts
}

fn ranges(values: &[f32]) -> Vec<(String, Vec<u32>)> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let mut different = sorted.clone();
    different.dedup();
    let mut parts: Vec<(String, Vec<u32>)> = Vec::new();
    let mut put = |name: String, is: &dyn Fn(f32) -> bool| {
        let rows: Vec<u32> = (0..values.len() as u32).filter(|row| is(values[*row as usize])).collect();
        if !rows.is_empty() {
            parts.push((name, rows));
        }
    };
    if different.len() <= NUMBERS_MAX {
        different.iter().for_each(|number| put(number.to_string(), &|value| value == *number));
    } else {
        let wide: Vec<f64> = sorted.iter().map(|value| f64::from(*value)).collect();
        let mut edges: Vec<f32> = [0.25, 0.5, 0.75].map(|at| quantile(&wide, at) as f32).to_vec();
        edges.dedup();
        put(format!("≤ {}", edges[0]), &|value| value <= edges[0]);
        for pair in edges.windows(2) {
            put(format!("{} – {}", pair[0], pair[1]), &|value| value > pair[0] && value <= pair[1]);
        }
        let last = edges[edges.len() - 1];
        put(format!("> {last}"), &|value| value > last);
    }
    put("(missing)".to_owned(), &f32::is_nan);
    parts
}

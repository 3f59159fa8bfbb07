//! What is done to columns before a learner sees them: gaps filled, numbers scaled, categories made numbers.
//!
//! [`Prepare`] says what, [`Prepare::fit`] looks at the training rows, and them alone, and gives a [`Recipe`], which does it to any rows in single
//! precision, step for step as the exported model does.
//!
//! **A category that no training row had counts as missing**, as does an empty text: all zeros by `one_hot`, a gap by `ordinal` (which `impute`
//! fills), the missing side of a split by `native`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::data::{Column, MISSING, Matrix};
use super::error::TrainError;
use super::learner::{Learner, data};

/// Settings of the preparation. What is left open is chosen by the learner: trees take columns as they are; linear models have gaps filled with the
/// mean, numbers scaled to mean 0 and deviation 1, and a number of 0 or 1 for each category.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prepare {
    /// What fills gaps of number columns, and of categories made ordinal numbers.
    pub impute: Option<Impute>,
    /// How numbers are scaled.
    pub scale: Option<Scale>,
    /// What becomes of categories.
    pub encode: Option<Encode>,
    /// Categories of a column at most, the most frequent ones; the others count as missing. 255 unless given.
    pub levels: Option<u32>,
    /// Other settings for single columns.
    pub columns: BTreeMap<String, PrepareColumn>,
}

/// Settings for one column; what is left open is as for the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareColumn {
    /// What fills gaps.
    pub impute: Option<Impute>,
    /// How numbers are scaled.
    pub scale: Option<Scale>,
    /// What becomes of categories.
    pub encode: Option<Encode>,
    /// Categories at most.
    pub levels: Option<u32>,
}

/// What fills the gaps of a column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impute {
    /// Nothing.
    None,
    /// The mean of its values.
    Mean,
    /// The median of its values, of two the middle between them.
    Median,
    /// This number.
    Constant(f64),
}

/// How a column's numbers are scaled, after gaps are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Not at all.
    None,
    /// To mean 0 and standard deviation 1.
    Standard,
    /// To the range from 0 to 1.
    MinMax,
}

/// What becomes of categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encode {
    /// They stay categories; trees split them by sets.
    Native,
    /// A column of 0 and 1 for each.
    OneHot,
    /// Their place in the alphabet as a number.
    Ordinal,
}

/// Categories of a column at most, unless given.
const LEVELS: u32 = 255;

/// What a fitted preparation does to a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Per input of the model, in order.
    pub columns: Vec<RecipeColumn>,
}

/// What is done to one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeColumn {
    /// The input's name.
    pub name: String,
    /// What is done.
    pub step: Step,
}

/// What is done to a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It is a number and stays one.
    Number(Fill),
    /// A category becomes a column of 0 and 1 for each of these.
    OneHot(Vec<String>),
    /// A category becomes its place among these, a number.
    Ordinal(Vec<String>, Fill),
    /// A category becomes its place among these, and stays a category.
    Native(Vec<String>),
}

/// What is done to numbers: `(x or fill − offset) · factor`, in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// What stands where there is no number.
    pub fill: Option<f32>,
    /// Taken off, and the factor then.
    pub scale: Option<(f32, f32)>,
}

impl Fill {
    /// Does it to a number.
    pub fn apply(&self, x: f32) -> f32 {
        let x = if x.is_nan() { self.fill.unwrap_or(x) } else { x };
        self.scale.map_or(x, |(offset, factor)| (x - offset) * factor)
    }

    fn of(name: &str, impute: Impute, scale: Scale, values: &[f32]) -> Result<Fill, TrainError> {
        let present = || values.iter().filter(|v| !v.is_nan()).map(|v| f64::from(*v));
        if (impute, scale) == (Impute::None, Scale::None) {
            return Ok(Fill { fill: None, scale: None });
        }
        if let Some(bad) = present().find(|v| v.is_infinite()) {
            return Err(data(format!("column {name} holds {bad}, which can be neither averaged nor scaled")));
        }
        let count = present().count();
        if count == 0 && !matches!(impute, Impute::Constant(_)) {
            let why = format!("column {name} has no value in any training row; leave it out, or impute a constant");
            return Err(data(why));
        }
        let fill = match impute {
            Impute::None => None,
            Impute::Mean => Some(present().sum::<f64>() / count as f64),
            Impute::Median => {
                let mut sorted: Vec<f64> = present().collect();
                sorted.sort_unstable_by(f64::total_cmp);
                Some((sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0)
            }
            Impute::Constant(c) => Some(c),
        };
        let fill = fill.map(|f| f as f32);
        // Gaps that are not filled do not count for the scale.
        let filled = || values.iter().map(|v| if v.is_nan() { fill.unwrap_or(*v) } else { *v }).filter(|v| !v.is_nan());
        let n = filled().count() as f64;
        let scale = match scale {
            Scale::None => None,
            Scale::Standard => {
                let mean = filled().map(f64::from).sum::<f64>() / n;
                let variance = filled().map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
                let (offset, deviation) = (mean as f32, variance.sqrt());
                Some((offset, factor(deviation, mean)))
            }
            Scale::MinMax => {
                let (low, high) = filled().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
                let range = f64::from(high) - f64::from(low);
                Some((low, factor(range, f64::from(low))))
            }
        };
        Ok(Fill { fill, scale })
    }
}

/// 1 over a spread; 1 where a column has but one value, or a spread that is nothing but rounding beside it.
fn factor(spread: f64, beside: f64) -> f32 {
    let factor = (1.0 / spread) as f32;
    if spread > beside.abs() * 10.0 * f64::EPSILON && factor.is_finite() { factor } else { 1.0 }
}

/// The defaults that a learner brings.
struct Defaults {
    impute: Impute,
    scale: Scale,
    encode: Encode,
    /// Whether it takes categories and gaps as they are.
    takes_all: bool,
}

impl Defaults {
    fn of(learner: &Learner) -> Defaults {
        match learner {
            Learner::Gbdt(_) | Learner::Forest(_) | Learner::Tree(_) => {
                Defaults { impute: Impute::None, scale: Scale::None, encode: Encode::Native, takes_all: true }
            }
            Learner::Logistic(_) | Learner::Linear(_) => {
                Defaults { impute: Impute::Mean, scale: Scale::Standard, encode: Encode::OneHot, takes_all: false }
            }
        }
    }
}

impl Prepare {
    /// Looks at the rows of a training set, all of them and no others.
    ///
    /// # Errors
    /// Settings for a column that is not there, or that do not suit its type or the learner; a column without any value; numbers that cannot be scaled.
    pub fn fit(&self, inputs: &Matrix, learner: &Learner) -> Result<Recipe, TrainError> {
        if let Some(unknown) = self.columns.keys().find(|name| !inputs.names.contains(name)) {
            let all = inputs.names.join(", ");
            return Err(setting("columns", format!("{unknown} is no input of the model; its inputs are {all}")));
        }
        let defaults = Defaults::of(learner);
        let none = PrepareColumn::default();
        let mut columns = Vec::with_capacity(inputs.columns.len());
        for (name, column) in inputs.names.iter().zip(&inputs.columns) {
            let own = self.columns.get(name).unwrap_or(&none);
            let step = self.step(name, column, own, &defaults, learner.name())?;
            columns.push(RecipeColumn { name: name.clone(), step });
        }
        Ok(Recipe { columns })
    }

    fn step(
        &self,
        name: &str,
        column: &Column,
        own: &PrepareColumn,
        defaults: &Defaults,
        learner: &str,
    ) -> Result<Step, TrainError> {
        let impute = own.impute.or(self.impute).unwrap_or(defaults.impute);
        let scale = own.scale.or(self.scale).unwrap_or(defaults.scale);
        if matches!(impute, Impute::Constant(c) if !(c as f32).is_finite()) {
            return Err(setting("impute", format!("the constant for {name} is not a finite number")));
        }
        match column {
            Column::Number(values) => {
                if own.encode.is_some() || own.levels.is_some() {
                    return Err(setting(
                        "columns",
                        format!("{name} is a number, and encode and levels are for categories"),
                    ));
                }
                Ok(Step::Number(Fill::of(name, impute, scale, values)?))
            }
            Column::Category { codes, levels } => {
                let encode = own.encode.or(self.encode).unwrap_or(defaults.encode);
                if (own.impute.is_some() || own.scale.is_some()) && encode != Encode::Ordinal {
                    let why = format!("{name} is a category; impute and scale are for numbers and for encode: ordinal");
                    return Err(setting("columns", why));
                }
                if encode == Encode::Native && !defaults.takes_all {
                    let why = format!("{learner} takes numbers; encode {name} as one_hot or ordinal");
                    return Err(setting("encode", why));
                }
                let most = own.levels.or(self.levels).unwrap_or(LEVELS);
                if most == 0 {
                    return Err(setting("levels", format!("0 levels leave nothing of {name}; write 1 or more")));
                }
                let kept = frequent(codes, levels, most as usize);
                match encode {
                    Encode::Native => Ok(Step::Native(kept)),
                    Encode::OneHot | Encode::Ordinal if kept.is_empty() => {
                        Err(data(format!("column {name} has no value in any training row; leave it out")))
                    }
                    Encode::OneHot => Ok(Step::OneHot(kept)),
                    Encode::Ordinal => {
                        let values = ordinal(&recode(codes, levels, &kept));
                        let fill = Fill::of(name, impute, scale, &values)?;
                        Ok(Step::Ordinal(kept, fill))
                    }
                }
            }
        }
    }
}

fn setting(setting: &'static str, why: String) -> TrainError {
    TrainError::Setting { learner: "prepare", setting, why }
}

/// The most frequent categories, by the alphabet; of equally frequent ones those that come first in it.
fn frequent(codes: &[u32], levels: &[String], most: usize) -> Vec<String> {
    let mut counts = vec![0u64; levels.len()];
    for code in codes.iter().filter(|code| **code != MISSING) {
        counts[*code as usize] += 1;
    }
    let mut seen: Vec<(u64, &String)> =
        counts.into_iter().zip(levels).filter(|(count, level)| *count > 0 && !level.is_empty()).collect();
    seen.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    seen.truncate(most);
    let mut kept: Vec<String> = seen.into_iter().map(|(_, level)| level.clone()).collect();
    kept.sort_unstable();
    kept
}

/// Codes into other levels; a level that is not among them is missing.
fn recode(codes: &[u32], levels: &[String], kept: &[String]) -> Vec<u32> {
    let places: HashMap<&String, u32> = kept.iter().zip(0..).collect();
    let by_code: Vec<u32> = levels.iter().map(|level| places.get(level).copied().unwrap_or(MISSING)).collect();
    codes.iter().map(|code| if *code == MISSING { MISSING } else { by_code[*code as usize] }).collect()
}

fn ordinal(codes: &[u32]) -> Vec<f32> {
    codes.iter().map(|code| if *code == MISSING { f32::NAN } else { *code as f32 }).collect()
}

impl Recipe {
    /// Prepares rows: columns are found by name, others are left alone.
    ///
    /// # Errors
    /// A column is missing, of the other type, or of another length than the first.
    pub fn apply(&self, inputs: &Matrix) -> Result<Matrix, TrainError> {
        let mut out = Matrix::default();
        let mut put = |name: String, column| {
            out.names.push(name);
            out.columns.push(column);
        };
        for RecipeColumn { name, step } in &self.columns {
            let place = inputs.names.iter().position(|n| n == name);
            let column = place.and_then(|place| inputs.columns.get(place));
            let column = column.ok_or_else(|| data(format!("the model's input {name} has no column of its name")))?;
            if column.len() != inputs.rows() {
                return Err(data(format!("column {name} has {} rows where there are {}", column.len(), inputs.rows())));
            }
            match (step, column) {
                (Step::Number(fill), Column::Number(values)) => {
                    put(name.clone(), Column::Number(values.iter().map(|v| fill.apply(*v)).collect()));
                }
                (Step::OneHot(kept), Column::Category { codes, levels }) => {
                    let codes = recode(codes, levels, kept);
                    for (level, code) in kept.iter().zip(0u32..) {
                        let ones = codes.iter().map(|c| f32::from(u8::from(*c == code))).collect();
                        put(format!("{name}={level}"), Column::Number(ones));
                    }
                }
                (Step::Ordinal(kept, fill), Column::Category { codes, levels }) => {
                    let values = ordinal(&recode(codes, levels, kept));
                    put(name.clone(), Column::Number(values.into_iter().map(|v| fill.apply(v)).collect()));
                }
                (Step::Native(kept), Column::Category { codes, levels }) => {
                    let codes = recode(codes, levels, kept);
                    put(name.clone(), Column::Category { codes, levels: kept.clone() });
                }
                (Step::Number(_), _) => {
                    return Err(data(format!("column {name} holds categories where the model takes numbers")));
                }
                (_, Column::Number(_)) => {
                    return Err(data(format!("column {name} holds numbers where the model takes categories")));
                }
            }
        }
        Ok(out)
    }

    /// For each prepared column, in order, the input that it is made of.
    pub fn sources(&self) -> Vec<usize> {
        let width = |step: &Step| match step {
            Step::OneHot(levels) => levels.len(),
            Step::Number(_) | Step::Ordinal(..) | Step::Native(_) => 1,
        };
        self.columns.iter().enumerate().flat_map(|(i, column)| std::iter::repeat_n(i, width(&column.step))).collect()
    }
}

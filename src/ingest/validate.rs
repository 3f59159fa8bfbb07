//! Value checks: required fields, finite numbers, and the rules of a source's `validate`.
//!
//! Every check looks at a whole column first and at single rows only when the column is found wanting.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::dead_letter::DeadLetterKind;
use super::rows::Bad;
use crate::base::{EventTime, format_time};
use crate::plan::model::ValueRule;

/// Earliest event time taken, 1900-01-01T00:00:00Z.
pub const TIME_MIN: EventTime = -2_208_988_800_000_000;

/// Event times from here on are not taken, 2200-01-01T00:00:00Z.
pub const TIME_END: EventTime = 7_258_118_400_000_000;

/// Magnitude from which numbers are not taken: exact sums hold numbers below it in 128-bit fixed point.
pub const NUMBER_END: f64 = (1u64 << 42) as f64;

/// Finds rows whose event time nobody can mean.
pub(crate) fn time_range(times: &[EventTime]) -> Vec<Bad> {
    let outside = |time: &EventTime| *time < TIME_MIN || *time >= TIME_END;
    if !times.iter().fold(false, |any, time| any | outside(time)) {
        return Vec::new();
    }
    let bad = times.iter().enumerate().filter(|(_, time)| outside(time)).map(|(row, time)| Bad {
        row,
        kind: DeadLetterKind::TimeOutOfRange,
        reason: format!("event time {} is not within 1900 to 2199", format_time(*time)),
    });
    bad.collect()
}

/// Finds nulls in columns whose field says there are none.
pub(crate) fn required(batch: &RecordBatch, schema: &Schema) -> Vec<Bad> {
    let mut bad = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !field.is_nullable() {
            nulls(column, &mut bad, DeadLetterKind::MissingField, || {
                format!("field `{}` is null, the schema requires a value", field.name())
            });
        }
    }
    in_order(bad)
}

/// Finds null entity and join keys.
pub(crate) fn keys(batch: &RecordBatch, columns: &[usize]) -> Vec<Bad> {
    let mut bad = Vec::new();
    for column in columns {
        let name = batch.schema_ref().field(*column).name();
        nulls(batch.column(*column), &mut bad, DeadLetterKind::NoEntity, || format!("key `{name}` is null"));
    }
    in_order(bad)
}

/// Finds infinities and numbers too large for exact sums in the columns from `first` on. NaN passes: it counts as null.
pub(crate) fn numbers(batch: &RecordBatch, first: usize) -> Vec<Bad> {
    let mut bad = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()).skip(first) {
        match column.data_type() {
            DataType::Float64 => magnitudes::<Float64Type>(column, field.name(), &mut bad),
            DataType::Float32 => magnitudes::<Float32Type>(column, field.name(), &mut bad),
            _ => {}
        }
    }
    in_order(bad)
}

fn magnitudes<T: ArrowPrimitiveType>(column: &ArrayRef, name: &str, bad: &mut Vec<Bad>)
where
    T::Native: Into<f64>,
{
    let values = column.as_primitive::<T>();
    let outside = |value: &T::Native| (*value).into().abs() >= NUMBER_END;
    if !values.values().iter().fold(false, |any, value| any | outside(value)) {
        return;
    }
    for (row, value) in values.values().iter().enumerate() {
        if outside(value) && values.is_valid(row) {
            let value: f64 = (*value).into();
            let (kind, reason) = if value.is_infinite() {
                (DeadLetterKind::NotFinite, format!("`{name}` is infinite"))
            } else {
                let reason = format!("`{name}` is {value}; magnitudes of 2^42 (4.4e12) and more are not taken");
                (DeadLetterKind::OutOfRange, reason)
            };
            bad.push(Bad { row, kind, reason });
        }
    }
}

fn nulls(column: &ArrayRef, bad: &mut Vec<Bad>, kind: DeadLetterKind, reason: impl Fn() -> String) {
    if column.null_count() > 0 {
        let rows = (0..column.len()).filter(|row| column.is_null(*row));
        bad.extend(rows.map(|row| Bad { row, kind, reason: reason() }));
    }
}

/// Findings on one row stay in the order of the columns.
fn in_order(mut bad: Vec<Bad>) -> Vec<Bad> {
    bad.sort_by_key(|b| b.row);
    bad
}

/// The rules of one source, made ready for its columns' types. Null, and NaN as null, breaks `required` alone.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    column: usize,
    name: String,
    required: bool,
    bounds: Option<Bounds>,
    allowed: Option<Allowed>,
}

#[derive(Debug)]
enum Bounds {
    /// The least and the greatest whole number within the bounds.
    Whole(i128, i128),
    Real(f64, f64),
}

#[derive(Debug)]
enum Allowed {
    Numbers(Vec<f64>),
    Texts(HashSet<String>),
}

impl Rules {
    /// # Errors
    /// A sentence, for a rule that its column's type cannot be held against.
    pub(crate) fn new(rules: &[ValueRule], schema: &Schema) -> Result<Rules, String> {
        rules.iter().map(|rule| Rule::new(rule, schema)).collect::<Result<_, _>>().map(Rules)
    }

    /// Finds the rows that break a rule; of several broken rules on one row the first in the file comes first.
    pub(crate) fn check(&self, batch: &RecordBatch) -> Vec<Bad> {
        let mut bad = Vec::new();
        for rule in &self.0 {
            rule.check(batch.column(rule.column), &mut bad);
        }
        in_order(bad)
    }
}

impl Rule {
    fn new(rule: &ValueRule, schema: &Schema) -> Result<Rule, String> {
        let field = schema.field(rule.column);
        let (name, data_type) = (field.name(), field.data_type());
        let bounded = rule.min.is_some() || rule.max.is_some();
        if bounded && !data_type.is_numeric() {
            return Err(format!("`validate` bounds `{name}`, which is {data_type}; only numbers have `min` and `max`"));
        }
        let (min, max) = (rule.min.unwrap_or(f64::NEG_INFINITY), rule.max.unwrap_or(f64::INFINITY));
        let bounds = match (bounded, data_type.is_integer()) {
            (false, _) => None,
            // Saturating casts: an infinite bound is no bound.
            (true, true) => Some(Bounds::Whole(min.ceil() as i128, max.floor() as i128)),
            (true, false) => Some(Bounds::Real(min, max)),
        };
        let allowed = match &rule.allowed {
            None => None,
            Some(texts) if data_type.is_numeric() => {
                let numbers = texts.iter().map(|text| text.trim().parse().map_err(|_| text));
                let numbers: Result<Vec<f64>, _> = numbers.collect();
                let say =
                    |text| format!("`validate` allows {text:?} in `{name}`, which is {data_type}; write a number");
                Some(Allowed::Numbers(numbers.map_err(say)?))
            }
            Some(texts) => Some(Allowed::Texts(texts.iter().cloned().collect())),
        };
        Ok(Rule { column: rule.column, name: name.clone(), required: rule.required, bounds, allowed })
    }

    fn check(&self, column: &ArrayRef, bad: &mut Vec<Bad>) {
        let kind = DeadLetterKind::Invalid;
        let column = &without_nan(column);
        if self.required {
            nulls(column, bad, kind, || format!("`{}` is required and null", self.name));
        }
        let mut report = |row: usize, what: &str| {
            let value = text(column, row);
            bad.push(Bad { row, kind, reason: format!("`{}` is {value}, {what}", self.name) });
        };
        match &self.bounds {
            None => {}
            Some(Bounds::Whole(min, max)) => {
                let (below, above) = (format!("below {min}"), format!("above {max}"));
                if *column.data_type() == DataType::UInt64 {
                    let values = column.as_primitive::<UInt64Type>();
                    for row in broken(values, |v| i128::from(v) < *min || i128::from(v) > *max) {
                        report(row, if i128::from(values.value(row)) < *min { &below } else { &above });
                    }
                } else {
                    let values = cast(column, &DataType::Int64);
                    let values = values.as_primitive::<Int64Type>();
                    for row in broken(values, |v| i128::from(v) < *min || i128::from(v) > *max) {
                        report(row, if i128::from(values.value(row)) < *min { &below } else { &above });
                    }
                }
            }
            Some(Bounds::Real(min, max)) => {
                let values = real(column);
                for row in broken(&values, |v| v < *min || v > *max) {
                    let below = values.value(row) < *min;
                    report(row, &if below { format!("below {min}") } else { format!("above {max}") });
                }
            }
        }
        let what = "which `in` does not list";
        match &self.allowed {
            None => {}
            Some(Allowed::Numbers(numbers)) => {
                for row in broken(&real(column), |v| !numbers.contains(&v)) {
                    report(row, what);
                }
            }
            Some(Allowed::Texts(texts)) => {
                for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
                    let listed = match column.as_string_opt::<i32>() {
                        Some(column) => texts.contains(column.value(row)),
                        None => texts.contains(&text(column, row)),
                    };
                    if !listed {
                        report(row, what);
                    }
                }
            }
        }
    }
}

/// Valid rows for which `test` holds; looks for any before it looks for which.
fn broken<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, test: impl Fn(T::Native) -> bool) -> Vec<usize> {
    if !values.values().iter().fold(false, |any, value| any | test(*value)) {
        return Vec::new();
    }
    let rows = values.values().iter().enumerate();
    rows.filter(|(row, value)| test(**value) && values.is_valid(*row)).map(|(row, _)| row).collect()
}

fn real(column: &ArrayRef) -> arrow::array::Float64Array {
    cast(column, &DataType::Float64).as_primitive::<Float64Type>().clone()
}

fn cast(column: &ArrayRef, to: &DataType) -> ArrayRef {
    // Numbers to wider numbers: cannot fail, and a defect there must not stop a job, so a failure reads as null.
    cast_with_options(column, to, &CastOptions { safe: true, ..CastOptions::default() })
        .unwrap_or_else(|_| arrow::array::new_null_array(to, column.len()))
}

/// The column with null in place of NaN.
fn without_nan(column: &ArrayRef) -> ArrayRef {
    let nan = |values: &ArrayRef| -> Option<BooleanArray> {
        let is_nan: Vec<bool> = match values.data_type() {
            DataType::Float64 => values.as_primitive::<Float64Type>().values().iter().map(|v| v.is_nan()).collect(),
            DataType::Float32 => values.as_primitive::<Float32Type>().values().iter().map(|v| v.is_nan()).collect(),
            _ => return None,
        };
        is_nan.contains(&true).then(|| BooleanArray::from(is_nan))
    };
    match nan(column) {
        None => column.clone(),
        Some(mask) => arrow::compute::nullif(column, &mask).unwrap_or_else(|_| Arc::clone(column)),
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new().with_display_error(true);
    ArrayFormatter::try_new(column, &options).map(|f| f.value(row).to_string()).unwrap_or_default()
}

//! Differences in words: values as they are, and the bits behind them.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;

/// A value that may be held against another of its column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The value; floats as the exact decimal number that they are.
    pub value: String,
    /// Its bits in hexadecimal, of floats only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.bits {
            Some(bits) => write!(f, "{} ({bits})", self.value),
            None => f.write_str(&self.value),
        }
    }
}

/// A value of a column.
pub fn show(column: &ArrayRef, row: usize) -> Shown {
    if column.is_null(row) {
        return Shown { value: "null".to_owned(), bits: None };
    }
    match column.data_type() {
        DataType::Float64 => {
            let x = column.as_primitive::<Float64Type>().value(row);
            Shown { value: exact(x), bits: Some(format!("{:#018x}", x.to_bits())) }
        }
        DataType::Float32 => {
            let x = column.as_primitive::<Float32Type>().value(row);
            Shown { value: exact(f64::from(x)), bits: Some(format!("{:#010x}", x.to_bits())) }
        }
        _ => {
            let formatter = ArrayFormatter::try_new(column, &FormatOptions::default());
            let value = formatter.map_or_else(|error| error.to_string(), |text| text.value(row).to_string());
            Shown { value, bits: None }
        }
    }
}

/// The decimal number that a float is, all its digits.
pub fn exact(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "NaN"
        } else if x > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    // The smallest float has 1,074 digits behind the point, and none has more.
    let text = format!("{x:.1074}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// A whole number of a column, of any width.
pub fn integer(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(name)?;
    let cell = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64).ok()?;
    let cell = cell.as_primitive::<Int64Type>();
    cell.is_valid(0).then(|| cell.value(0))
}

/// The text of a column.
pub fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row).to_owned())
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong: `value`, `missing`, `extra`, `doubled` or `foreign`; of online values `online`.
    pub kind: &'static str,
    /// The table, or the view of the online store.
    pub table: String,
    /// Columns that say which entity it is, with their values.
    pub entity: Vec<(String, String)>,
    /// The tick that released the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick: Option<i64>,
    /// Source, partition and offset of the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The event time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Shown>,
    /// What the replay has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<Shown>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            "missing" => "the replay has a row that is not in the table",
            "extra" => "the table has a row that the replay has not",
            "doubled" => "the table has the row more than once",
            "foreign" => "the table has a row that the tick log does not cover",
            _ => "other bits",
        };
        let mut text = format!("{}: {what}:", self.table);
        // Writing to a string cannot fail.
        for (name, value) in &self.entity {
            let _ = write!(text, " {name}={value}");
        }
        if let Some(tick) = self.tick {
            let _ = write!(text, ", tick {tick}");
        }
        if let Some(position) = &self.position {
            let _ = write!(text, ", {position}");
        }
        if let Some(time) = &self.event_time {
            let _ = write!(text, ", at {time}");
        }
        if let Some(column) = &self.column {
            let _ = write!(text, ", column {column}");
        }
        if let Some(recorded) = &self.recorded {
            let _ = write!(text, "\n    recorded {recorded}");
        }
        if let Some(replayed) = &self.replayed {
            let _ = write!(text, "\n    replayed {replayed}");
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Float64Array, StringArray};

    use super::*;

    #[test]
    fn floats_are_shown_as_what_they_are() {
        assert_eq!(exact(0.1), "0.1000000000000000055511151231257827021181583404541015625");
        assert_eq!(exact(-2.0), "-2");
        assert_eq!(exact(-0.0), "-0");
        assert_eq!(exact(100.0), "100");
        assert_eq!(exact(f64::NEG_INFINITY), "-Infinity");
        assert!(exact(f64::from_bits(1)).ends_with("625"));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None]));
        assert_eq!(show(&x, 0).to_string(), "1 (0x3ff0000000000000)");
        assert_eq!(show(&x, 1).to_string(), "null");
        let x: ArrayRef = Arc::new(Float32Array::from(vec![f32::NAN]));
        assert_eq!(show(&x, 0).to_string(), "NaN (0x7fc00000)");
        let x: ArrayRef = Arc::new(StringArray::from(vec!["DE"]));
        assert_eq!(show(&x, 0).to_string(), "DE");
    }
}

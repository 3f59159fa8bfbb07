//! Dead letters: rows that were turned away, with their bytes, their position and the reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::base::{DAY, EventTime, Tick};
use crate::ops::system::{SystemRow, system_columns};
use crate::plan::expr::time_type;

/// Why a row was turned away. The text form is the `kind` column of the dead-letter table and a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeadLetterKind {
    /// The bytes are not a row of the source's format.
    Undecodable,
    /// The registry does not know the message's schema, or that schema does not resolve to the declared one.
    Schema,
    /// The row is larger than a row may be.
    TooLarge,
    /// A stretch of a file (a Parquet row group) is damaged; one letter stands for all its rows.
    CorruptBlock,
    /// A field's value is not of the field's type, or not within the type's range.
    WrongType,
    /// A field that must be there is absent or null.
    MissingField,
    /// `where`, `event_time` or a derived column could not be computed for the row.
    Expression,
    /// The row has no event time.
    NoEventTime,
    /// The event time is before 1900 or after 2199.
    TimeOutOfRange,
    /// A number is infinite.
    NotFinite,
    /// A number's magnitude is 2^42 or more.
    OutOfRange,
    /// A value breaks a rule of the source's `validate`.
    Invalid,
    /// An entity or join key is null.
    NoEntity,
    /// The row is behind its partition's watermark.
    Late,
    /// A row with the same `id` was kept before, within the `dedup` horizon.
    Duplicate,
    /// A label whose id no event has.
    UnknownId,
    /// A model could not score the row.
    Unscored,
}

impl DeadLetterKind {
    /// Every kind, in the order of the checks.
    pub const ALL: [DeadLetterKind; 17] = [
        DeadLetterKind::Undecodable,
        DeadLetterKind::Schema,
        DeadLetterKind::TooLarge,
        DeadLetterKind::CorruptBlock,
        DeadLetterKind::WrongType,
        DeadLetterKind::MissingField,
        DeadLetterKind::Expression,
        DeadLetterKind::NoEventTime,
        DeadLetterKind::TimeOutOfRange,
        DeadLetterKind::NotFinite,
        DeadLetterKind::OutOfRange,
        DeadLetterKind::Invalid,
        DeadLetterKind::NoEntity,
        DeadLetterKind::Late,
        DeadLetterKind::Duplicate,
        DeadLetterKind::UnknownId,
        DeadLetterKind::Unscored,
    ];

    /// The kind as written in tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadLetterKind::Undecodable => "undecodable",
            DeadLetterKind::Schema => "schema",
            DeadLetterKind::TooLarge => "too_large",
            DeadLetterKind::CorruptBlock => "corrupt_block",
            DeadLetterKind::WrongType => "wrong_type",
            DeadLetterKind::MissingField => "missing_field",
            DeadLetterKind::Expression => "expression",
            DeadLetterKind::NoEventTime => "no_event_time",
            DeadLetterKind::TimeOutOfRange => "time_out_of_range",
            DeadLetterKind::NotFinite => "not_finite",
            DeadLetterKind::OutOfRange => "out_of_range",
            DeadLetterKind::Invalid => "invalid",
            DeadLetterKind::NoEntity => "no_entity",
            DeadLetterKind::Late => "late",
            DeadLetterKind::Duplicate => "duplicate",
            DeadLetterKind::UnknownId => "unknown_id",
            DeadLetterKind::Unscored => "unscored",
        }
    }

    /// Whether the row itself is at fault, so that it belongs to the source's `on_invalid` table; the others (late,
    /// duplicate, unknown id, unscored) are sound rows at the wrong time and always go to `dead_letters`.
    pub fn rejects_row(self) -> bool {
        !matches!(
            self,
            DeadLetterKind::Late | DeadLetterKind::Duplicate | DeadLetterKind::UnknownId | DeadLetterKind::Unscored
        )
    }
}

impl fmt::Display for DeadLetterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of the table of dead letters that no source names otherwise.
pub const DEAD_LETTERS: &str = "dead_letters";

/// A row that was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why, in one word.
    pub kind: DeadLetterKind,
    /// Why, in one sentence.
    pub reason: String,
    /// Source in the dataflow file.
    pub source: Arc<str>,
    /// Partition of the source, from 0.
    pub partition: u16,
    /// Offset within the partition, from 0.
    pub offset: u64,
    /// Event time, when it was known by then.
    pub event_time: Option<EventTime>,
    /// The row's bytes: the line of a text file as it stands there; the row as one JSON object where the source has
    /// columns instead of bytes (Parquet, the generator). Of a row that is [`DeadLetterKind::TooLarge`], its beginning.
    pub original: Vec<u8>,
}

impl DeadLetter {
    /// The table that takes this letter, given the `rejected_to` of its source's plan.
    pub fn table<'a>(&self, rejected_to: &'a str) -> &'a str {
        if self.kind.rejects_row() { rejected_to } else { DEAD_LETTERS }
    }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        Field::new("event_time", time_type(), true),
        field("event_date", DataType::Date32),
        field("_tick", DataType::Int64),
        field("_source", DataType::Utf8),
        field("_partition", DataType::Int32),
        field("_offset", DataType::Int64),
        field("_job_version", DataType::Int32),
        field("kind", DataType::Utf8),
        field("reason", DataType::Utf8),
        field("original", DataType::Binary),
    ]))
});

/// Schema of a table of dead letters. `event_date` is 1970-01-01 where `event_time` is null, so that it never depends on
/// when the row was read.
pub fn dead_letter_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Dead letters as rows of [`dead_letter_schema`], in the order given.
pub fn dead_letter_batch(letters: &[DeadLetter], tick: Tick, job_version: u32) -> RecordBatch {
    const YEAR_1: i64 = -719_162 * DAY;
    const YEAR_10000: i64 = 2_932_897 * DAY;
    // Times outside of the calendar that readers of tables know (years 1 to 9999) are in the original alone.
    let time = |l: &DeadLetter| l.event_time.filter(|t| (YEAR_1..YEAR_10000).contains(t));
    let places = letters.iter().map(|l| SystemRow {
        time: time(l),
        tick,
        source: &l.source,
        partition: l.partition,
        offset: l.offset.cast_signed(),
    });
    let mut columns = system_columns(places, job_version);
    let own: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|l| l.kind.as_str()))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|l| &l.reason))),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|l| &l.original))),
    ];
    columns.extend(own);
    RecordBatch::try_new(dead_letter_schema(), columns).expect("columns are built from this very schema")
}

/// Counts of dead letters by kind; a sum of such counts is the sum by kind.
pub type KindCounts = BTreeMap<DeadLetterKind, u64>;

/// One row as a JSON object, in the order of the columns: the "original bytes" of rows that never were text.
/// Numbers that JSON lacks are the strings `NaN`, `Infinity`, `-Infinity`; times are RFC 3339; bytes are hexadecimal.
pub fn row_json(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (i, (field, column)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json(&mut out, field.name().as_str());
        out.push(b':');
        write_value(&mut out, column, row);
    }
    out.push(b'}');
    out
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("writing to memory does not fail");
}

fn write_value(out: &mut Vec<u8>, column: &ArrayRef, row: usize) {
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match column.data_type() {
        DataType::Boolean => write_json(out, &column.as_boolean().value(row)),
        DataType::Utf8 => write_json(out, column.as_string::<i32>().value(row)),
        DataType::Int64 => write_json(out, &column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => write_json(out, &column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => write_float(out, column.as_primitive::<Float64Type>().value(row)),
        // Through text, so that 0.1f32 is written as 0.1 and not with the digits of its f64 neighbour.
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            write_float(out, value.to_string().parse().unwrap_or(f64::from(value)));
        }
        other => {
            let text = ArrayFormatter::try_new(column, &FormatOptions::new().with_display_error(true))
                .map(|f| f.value(row).to_string())
                .unwrap_or_else(|e| e.to_string());
            if other.is_integer() { out.extend_from_slice(text.as_bytes()) } else { write_json(out, &text) }
        }
    }
}

fn write_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        write_json(out, &value);
    } else if value.is_nan() {
        write_json(out, "NaN");
    } else {
        write_json(out, if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Float64Array, Int8Array};

    #[test]
    fn a_table_row_holds_position_reason_and_bytes() {
        let letter = DeadLetter {
            kind: DeadLetterKind::Late,
            reason: "3s behind".into(),
            source: "tx".into(),
            partition: 2,
            offset: 7,
            event_time: Some(86_400_000_000 * 3 + 5),
            original: vec![0xff, 0x00],
        };
        let blind = DeadLetter { kind: DeadLetterKind::Undecodable, event_time: None, ..letter.clone() };
        let beyond = DeadLetter { event_time: Some(i64::MAX), ..letter.clone() };
        let batch = dead_letter_batch(&[letter.clone(), blind.clone(), beyond], 9, 4);
        assert!(batch.column(0).is_null(2), "a time that no calendar has");
        assert_eq!(batch.schema(), dead_letter_schema());
        assert_eq!(
            String::from_utf8(row_json(&batch, 0)).unwrap(),
            r#"{"event_time":"1970-01-04T00:00:00.000005Z","event_date":"1970-01-04","_tick":9,"_source":"tx","_partition":2,"_offset":7,"_job_version":4,"kind":"late","reason":"3s behind","original":"ff00"}"#
        );
        assert!(batch.column(0).is_null(1));
        assert_eq!(letter.table("rejected"), DEAD_LETTERS);
        assert_eq!(blind.table("rejected"), "rejected");
    }

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY])) as ArrayRef),
            ("b", Arc::new(Float32Array::from(vec![0.1, 1.5]))),
            ("c", Arc::new(Int8Array::from(vec![None, Some(-3)]))),
        ])
        .unwrap();
        assert_eq!(row_json(&batch, 0), br#"{"a":"NaN","b":0.1,"c":null}"#);
        assert_eq!(row_json(&batch, 1), br#"{"a":"-Infinity","b":1.5,"c":-3}"#);
    }

    #[test]
    fn kinds_have_distinct_names() {
        let names: std::collections::BTreeSet<_> = DeadLetterKind::ALL.iter().map(|k| k.as_str()).collect();
        assert_eq!(names.len(), DeadLetterKind::ALL.len());
    }
}

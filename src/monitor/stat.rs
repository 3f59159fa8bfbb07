//! A statistic as it is told: one row of the tables `stats/…`, of a statistics topic, of the metrics endpoint.
//!
//! A statistic belongs to a window of event time, and may be told again when labels arrive or are corrected: then its
//! `revision` is one more, and the row with the highest revision is what is known now. Whoever reads a table takes, for
//! each `(model, version, route, segment, window_start, subject, metric)`, the row of the highest revision.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, SchemaRef};

use crate::base::{EventTime, Tick};
use crate::ops::system::{SystemRow, UTC, system_columns, table_schema, utc};

/// Which table a statistic goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatKind {
    /// How predictions compare with labels: `stats/accuracy`.
    Accuracy,
    /// How columns, predictions and labels compare with a reference, and change detectors: `stats/drift`.
    Drift,
    /// Nulls, ranges, categories, freshness, volume: `stats/quality`.
    Quality,
    /// How the job runs: latency, errors, processor time, memory, disk, brokers: `stats/operation`. Measured on the wall
    /// clock, so a replay does not repeat it.
    Operation,
}

impl StatKind {
    /// All kinds.
    pub const ALL: [StatKind; 4] = [StatKind::Accuracy, StatKind::Drift, StatKind::Quality, StatKind::Operation];

    /// Name of the table.
    pub fn table(self) -> &'static str {
        match self {
            StatKind::Accuracy => "stats/accuracy",
            StatKind::Drift => "stats/drift",
            StatKind::Quality => "stats/quality",
            StatKind::Operation => "stats/operation",
        }
    }

    /// Whether a replay of the same events tells the same rows.
    pub fn is_exact(self) -> bool {
        self != StatKind::Operation
    }
}

/// One statistic of one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// Which table it goes to.
    pub kind: StatKind,
    /// The model.
    pub model: String,
    /// Its version; empty where all versions are meant.
    pub version: String,
    /// The route that the prediction took; empty where there is one.
    pub route: String,
    /// `column=value`; empty for all rows.
    pub segment: String,
    /// First moment of the window, microseconds UTC.
    pub window_start: EventTime,
    /// First moment after the window.
    pub window_end: EventTime,
    /// What it is of: a column for drift and quality, a class for accuracy by class; empty for the model as a whole.
    pub subject: String,
    /// Its name, such as `auc` or `psi`.
    pub metric: String,
    /// Its value; `None` where it is not defined, such as an AUC of one class.
    pub value: Option<f64>,
    /// How far the value may be from the exact one; `None` where it is exact but for the last bits of a float.
    pub bound: Option<f64>,
    /// Rows behind it.
    pub rows: u64,
    /// Beyond this it is an alarm by itself, where it has such a threshold.
    pub threshold: Option<f64>,
    /// Whether it is beyond it.
    pub alarm: Option<bool>,
    /// Counts from 1 each time this statistic of this window is told.
    pub revision: u32,
    /// What was known by this time, microseconds UTC, went into it.
    pub as_of: EventTime,
    /// Whether nothing more can change it.
    pub complete: bool,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = [
        ("model", DataType::Utf8),
        ("model_version", DataType::Utf8),
        ("route", DataType::Utf8),
        ("segment", DataType::Utf8),
        ("window_start", utc()),
        ("window_end", utc()),
        ("subject", DataType::Utf8),
        ("metric", DataType::Utf8),
        ("value", DataType::Float64),
        ("bound", DataType::Float64),
        ("rows", DataType::Int64),
        ("threshold", DataType::Float64),
        ("alarm", DataType::Boolean),
        ("revision", DataType::Int32),
        ("as_of", utc()),
        ("complete", DataType::Boolean),
    ];
    table_schema(fields)
});

/// Columns of statistics, those that every table has in front: `event_time` is the start of the window, `_source` the
/// monitor, `_offset` the revision.
pub fn stat_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Statistics as rows of [`stat_schema`], in the order given.
pub fn stat_batch(stats: &[Stat], tick: Tick, job_version: u32) -> RecordBatch {
    let time = |of: fn(&Stat) -> EventTime| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(stats.iter().map(of)).with_timezone(UTC))
    };
    let text = |of: fn(&Stat) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(stats.iter().map(of))) };
    let float = |of: fn(&Stat) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(stats.iter().map(of))) };
    let places = stats.iter().map(|s| SystemRow {
        time: Some(s.window_start),
        tick,
        source: format!("monitors.{}", s.model),
        partition: 0,
        offset: i64::from(s.revision),
    });
    let mut columns = system_columns(places, job_version);
    let own: Vec<ArrayRef> = vec![
        text(|s| &s.model),
        text(|s| &s.version),
        text(|s| &s.route),
        text(|s| &s.segment),
        time(|s| s.window_start),
        time(|s| s.window_end),
        text(|s| &s.subject),
        text(|s| &s.metric),
        float(|s| s.value.filter(|v| v.is_finite())),
        float(|s| s.bound),
        Arc::new(Int64Array::from_iter_values(stats.iter().map(|s| s.rows.cast_signed()))),
        float(|s| s.threshold),
        Arc::new(BooleanArray::from_iter(stats.iter().map(|s| s.alarm))),
        Arc::new(Int32Array::from_iter_values(stats.iter().map(|s| s.revision.cast_signed()))),
        time(|s| s.as_of),
        Arc::new(BooleanArray::from_iter(stats.iter().map(|s| Some(s.complete)))),
    ];
    columns.extend(own);
    RecordBatch::try_new(stat_schema(), columns).expect("columns are built from this very schema")
}

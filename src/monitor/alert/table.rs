//! Alerts as rows of the table `stats/alerts`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, SchemaRef};

use super::Alert;
use crate::base::{EventTime, Tick};
use crate::ops::system::{SystemRow, UTC, system_columns, table_schema, utc};

/// Name of the table.
pub const TABLE: &str = "stats/alerts";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = [
        ("name", DataType::Utf8),
        ("state", DataType::Utf8),
        ("severity", DataType::Utf8),
        ("model", DataType::Utf8),
        ("model_version", DataType::Utf8),
        ("route", DataType::Utf8),
        ("segment", DataType::Utf8),
        ("subject", DataType::Utf8),
        ("metric", DataType::Utf8),
        ("value", DataType::Float64),
        ("threshold", DataType::Float64),
        ("condition", DataType::Utf8),
        ("rows", DataType::Int64),
        ("revision", DataType::Int32),
        ("window_start", utc()),
        ("window_end", utc()),
        ("since", utc()),
        ("message", DataType::Utf8),
        ("labels", DataType::Utf8),
        ("runbook", DataType::Utf8),
        ("fingerprint", DataType::Utf8),
        ("id", DataType::Utf8),
    ];
    table_schema(fields)
});

/// Columns of alerts, those that every table has in front: `event_time` is when what is told was known, `_source` the monitor,
/// `_offset` counts within the tick. `labels` is a JSON object.
pub fn alert_schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Alerts as rows of [`alert_schema`], in the order given; the first has the number `first` in its tick.
pub fn alert_batch<'a>(
    alerts: impl IntoIterator<Item = &'a Alert>,
    tick: Tick,
    job_version: u32,
    first: usize,
) -> RecordBatch {
    let alerts: Vec<&Alert> = alerts.into_iter().collect();
    let time = |of: fn(&Alert) -> EventTime| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(alerts.iter().map(|a| of(a))).with_timezone(UTC))
    };
    let text =
        |of: fn(&Alert) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(alerts.iter().map(|a| of(a)))) };
    let owned = |of: fn(&Alert) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(alerts.iter().map(|a| of(a))))
    };
    let float =
        |of: fn(&Alert) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(alerts.iter().map(|a| of(a)))) };
    let places = alerts.iter().zip(first..).map(|(a, number)| SystemRow {
        time: Some(a.at),
        tick,
        source: format!("monitors.{}", a.monitor),
        partition: 0,
        offset: number as i64,
    });
    let mut columns = system_columns(places, job_version);
    let own: Vec<ArrayRef> = vec![
        text(|a| &a.name),
        text(|a| a.state.as_str()),
        text(|a| &a.severity),
        text(|a| &a.model),
        text(|a| &a.version),
        text(|a| &a.route),
        text(|a| &a.segment),
        text(|a| &a.subject),
        text(|a| &a.metric),
        float(|a| a.value),
        float(|a| a.threshold),
        text(|a| &a.condition),
        Arc::new(Int64Array::from_iter_values(alerts.iter().map(|a| a.rows.cast_signed()))),
        Arc::new(Int32Array::from_iter_values(alerts.iter().map(|a| a.revision.cast_signed()))),
        time(|a| a.window_start),
        time(|a| a.window_end),
        time(|a| a.since),
        text(|a| &a.message),
        owned(|a| {
            let labels = a.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
            serde_json::Value::Object(labels.collect()).to_string()
        }),
        Arc::new(StringArray::from_iter(alerts.iter().map(|a| a.runbook.as_deref()))),
        text(|a| &a.fingerprint),
        owned(Alert::id),
    ];
    columns.extend(own);
    RecordBatch::try_new(alert_schema(), columns).expect("columns are built from this very schema")
}

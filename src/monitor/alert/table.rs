//! Alerts as rows of the table `stats/alerts`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::Alert;
use crate::base::{DAY, EventTime, Tick};

/// Name of the table.
pub const TABLE: &str = "stats/alerts";

const UTC: &str = "UTC";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    let fields = [
        ("event_time", time()),
        ("event_date", DataType::Date32),
        ("_tick", DataType::Int64),
        ("_source", DataType::Utf8),
        ("_partition", DataType::Int32),
        ("_offset", DataType::Int64),
        ("_job_version", DataType::Int32),
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
        ("window_start", time()),
        ("window_end", time()),
        ("since", time()),
        ("message", DataType::Utf8),
        ("labels", DataType::Utf8),
        ("runbook", DataType::Utf8),
        ("fingerprint", DataType::Utf8),
        ("id", DataType::Utf8),
    ];
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
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
    let columns: Vec<ArrayRef> = vec![
        time(|a| a.at),
        Arc::new(Date32Array::from_iter_values(
            alerts.iter().map(|a| i32::try_from(a.at.div_euclid(DAY)).unwrap_or(0)),
        )),
        Arc::new(Int64Array::from_value(tick.cast_signed(), alerts.len())),
        owned(|a| format!("monitors.{}", a.monitor)),
        Arc::new(Int32Array::from_value(0, alerts.len())),
        Arc::new(Int64Array::from_iter_values((first..).take(alerts.len()).map(|n| n as i64))),
        Arc::new(Int32Array::from_value(job_version.cast_signed(), alerts.len())),
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
    RecordBatch::try_new(alert_schema(), columns).expect("columns are built from this very schema")
}

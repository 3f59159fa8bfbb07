//! The columns that every table begins with, and their values for rows that are made here rather than read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Builder, Int32Array, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::base::{DAY, EventTime, Tick};

/// The zone of times in tables.
pub const UTC: &str = "UTC";

/// Names of the columns that every table begins with.
///
/// | column | type | what |
/// |---|---|---|
/// | `event_time` | timestamp (µs, UTC) | event time |
/// | `event_date` | date | its date, the partition column |
/// | `_tick` | long | tick that released the row |
/// | `_source` | string | source the event came from |
/// | `_partition` | integer | partition of the source |
/// | `_offset` | long | offset within the partition |
/// | `_job_version` | integer | version of the job that wrote it |
pub const SYSTEM_COLUMNS: [&str; 7] =
    ["event_time", "event_date", "_tick", "_source", "_partition", "_offset", "_job_version"];

/// The fields of [`SYSTEM_COLUMNS`]. All are nullable by type, as Delta readers agree best on such tables; none but
/// `event_time` of dead letters is ever null.
pub fn system_fields() -> [Field; 7] {
    let types =
        [utc(), DataType::Date32, DataType::Int64, DataType::Utf8, DataType::Int32, DataType::Int64, DataType::Int32];
    let mut types = types.into_iter();
    SYSTEM_COLUMNS.map(|name| Field::new(name, types.next().expect("seven types"), true))
}

/// The schema of a table: [`system_fields`], then `fields`, nullable too.
pub fn table_schema<'a>(fields: impl IntoIterator<Item = (&'a str, DataType)>) -> SchemaRef {
    let own = fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true));
    Arc::new(Schema::new(system_fields().into_iter().chain(own).collect::<Vec<_>>()))
}

/// Microseconds in UTC: the one timestamp type of tables.
pub fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// What a row has in [`SYSTEM_COLUMNS`], the job's version apart.
#[derive(Clone, Copy, Debug)]
pub struct SystemRow<S> {
    /// Event time; the date is 1970-01-01 where there is none.
    pub time: Option<EventTime>,
    /// Tick.
    pub tick: Tick,
    /// Who made it.
    pub source: S,
    /// Partition.
    pub partition: u16,
    /// Offset.
    pub offset: i64,
}

/// The arrays of [`SYSTEM_COLUMNS`] for some rows.
pub fn system_columns<S: AsRef<str>>(rows: impl Iterator<Item = SystemRow<S>>, job_version: u32) -> Vec<ArrayRef> {
    let mut times = TimestampMicrosecondBuilder::new();
    let (mut dates, mut ticks) = (Date32Builder::new(), Int64Builder::new());
    let (mut sources, mut partitions, mut offsets) = (StringBuilder::new(), Int32Builder::new(), Int64Builder::new());
    let mut count = 0;
    for row in rows {
        times.append_option(row.time);
        dates.append_value(row.time.map_or(0, |time| i32::try_from(time.div_euclid(DAY)).unwrap_or(0)));
        ticks.append_value(row.tick.cast_signed());
        sources.append_value(row.source);
        partitions.append_value(i32::from(row.partition));
        offsets.append_value(row.offset);
        count += 1;
    }
    vec![
        Arc::new(times.finish().with_timezone(UTC)),
        Arc::new(dates.finish()),
        Arc::new(ticks.finish()),
        Arc::new(sources.finish()),
        Arc::new(partitions.finish()),
        Arc::new(offsets.finish()),
        Arc::new(Int32Array::from_value(job_version.cast_signed(), count)),
    ]
}

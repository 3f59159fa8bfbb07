//! Statistics from the rows that they are told in.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::AlertError;
use crate::monitor::{Stat, StatKind};

/// The statistics in rows of [`crate::monitor::stat_schema`] that are of one kind.
///
/// # Errors
/// When the rows are none.
pub fn stats_of(kind: StatKind, batch: &RecordBatch) -> Result<Vec<Stat>, AlertError> {
    fn column<'a, T: ArrowPrimitiveType>(
        batch: &'a RecordBatch,
        name: &'static str,
    ) -> Result<&'a arrow::array::PrimitiveArray<T>, AlertError> {
        batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<T>()).ok_or(AlertError::Column(name))
    }
    let text = |name: &'static str| {
        batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or(AlertError::Column(name))
    };
    let bits = |name: &'static str| {
        batch.column_by_name(name).and_then(|c| c.as_boolean_opt()).ok_or(AlertError::Column(name))
    };
    let (model, version, route) = (text("model")?, text("model_version")?, text("route")?);
    let (segment, subject, metric) = (text("segment")?, text("subject")?, text("metric")?);
    let start = column::<TimestampMicrosecondType>(batch, "window_start")?;
    let end = column::<TimestampMicrosecondType>(batch, "window_end")?;
    let as_of = column::<TimestampMicrosecondType>(batch, "as_of")?;
    let (value, bound) = (column::<Float64Type>(batch, "value")?, column::<Float64Type>(batch, "bound")?);
    let (threshold, rows) = (column::<Float64Type>(batch, "threshold")?, column::<Int64Type>(batch, "rows")?);
    let (revision, alarm) = (column::<Int32Type>(batch, "revision")?, bits("alarm")?);
    let complete = bits("complete")?;
    let float = |c: &arrow::array::PrimitiveArray<Float64Type>, row| c.is_valid(row).then(|| c.value(row));
    Ok((0..batch.num_rows())
        .map(|row| Stat {
            kind,
            model: model.value(row).to_owned(),
            version: version.value(row).to_owned(),
            route: route.value(row).to_owned(),
            segment: segment.value(row).to_owned(),
            window_start: start.value(row),
            window_end: end.value(row),
            subject: subject.value(row).to_owned(),
            metric: metric.value(row).to_owned(),
            value: float(value, row),
            bound: float(bound, row),
            rows: rows.value(row).cast_unsigned(),
            threshold: float(threshold, row),
            alarm: alarm.is_valid(row).then(|| alarm.value(row)),
            revision: revision.value(row).cast_unsigned(),
            as_of: as_of.value(row),
            complete: complete.value(row),
        })
        .collect())
}

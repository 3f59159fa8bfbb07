//! Batches for tests.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};

/// Rows at these `(_time, _ord)` without other columns.
pub(crate) fn rows(at: &[(i64, u64)]) -> RecordBatch {
    RecordBatch::try_from_iter(system(at)).unwrap()
}

/// Rows at these `(_time, _ord)` with columns of several kinds, all of them functions of `_ord`, most with nulls: 2 `key`
/// (`Int64`, never null), 3 `value` (`Float64`), 4 `name` (`Utf8`), 5 `small` (`Int32`), 6 `flag` (`Boolean`).
pub(crate) fn rows_with_strings(at: &[(i64, u64)]) -> RecordBatch {
    let ords = || at.iter().map(|(_, ord)| *ord);
    let mut columns = system(at);
    columns.push(("key", Arc::new(ords().map(|o| Some((o % 97) as i64)).collect::<Int64Array>())));
    columns.push(("value", Arc::new(ords().map(|o| (o % 5 != 0).then_some(o as f64 * 0.5)).collect::<Float64Array>())));
    columns.push((
        "name",
        Arc::new(ords().map(|o| (o % 7 != 0).then(|| format!("n{}", o % 11))).collect::<StringArray>()),
    ));
    columns.push(("small", Arc::new(ords().map(|o| (o % 3 != 0).then_some(o as i32)).collect::<Int32Array>())));
    columns.push(("flag", Arc::new(ords().map(|o| (o % 4 != 0).then_some(o % 2 == 0)).collect::<BooleanArray>())));
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().enumerate().map(|(i, (name, array))| (name, array, i > 1)),
    )
    .unwrap()
}

fn system(at: &[(i64, u64)]) -> Vec<(&'static str, ArrayRef)> {
    let times: TimestampMicrosecondArray = at.iter().map(|(time, _)| Some(*time)).collect();
    let ords: UInt64Array = at.iter().map(|(_, ord)| Some(*ord)).collect();
    vec![("_time", Arc::new(times.with_timezone("UTC"))), ("_ord", Arc::new(ords))]
}

//! Tables written by Tidemill, read by the Python readers that analysts use: `deltalake` (Arrow and pandas), Polars, and
//! plain Parquet readers over the files. Needs a Python with those packages, named by `TIDEMILL_PYTHON`; without it the
//! test says that it was skipped.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use tidemill::base::{Ord64, Position};
use tidemill::store::offline::{
    CompactOptions, Outcome, TableCommitter, TableSpec, TableWriter, VacuumOptions, WriterOptions, compact, table_path,
    vacuum,
};

use crate::support::python;

const DAY: i64 = 86_400_000_000;
const APRIL: i64 = 17_622 * DAY;

/// A batch with a column of every type that tables hold.
fn batch(rows: std::ops::Range<u64>) -> RecordBatch {
    let some = |i: u64| i % 11 != 3;
    let of = |i: u64| (i * 7919) % 1009;
    let column = |name: &'static str, array: ArrayRef| (name, array, true);
    let times = rows.clone().map(|i| APRIL + i as i64 * 100_000_007);
    RecordBatch::try_from_iter_with_nullable([
        column("_time", Arc::new(TimestampMicrosecondArray::from_iter_values(times.clone()).with_timezone("UTC"))),
        column(
            "_ord",
            Arc::new(UInt64Array::from_iter_values(
                rows.clone().map(|offset| Ord64::from(Position { source: 0, partition: 0, offset }).0),
            )),
        ),
        column("card", Arc::new(StringArray::from_iter_values(rows.clone().map(|i| format!("card {}", of(i)))))),
        column(
            "amount",
            Arc::new(Float64Array::from_iter(rows.clone().map(|i| some(i).then_some(of(i) as f64 / 8.0)))),
        ),
        column(
            "small",
            Arc::new(Float32Array::from_iter(rows.clone().map(|i| some(i + 1).then_some(of(i) as f32 / 4.0)))),
        ),
        column(
            "count",
            Arc::new(Int64Array::from_iter(rows.clone().map(|i| some(i + 2).then_some(of(i) as i64 - 500)))),
        ),
        column("number", Arc::new(Int32Array::from_iter(rows.clone().map(|i| some(i + 3).then_some(of(i) as i32))))),
        column("wide", Arc::new(UInt32Array::from_iter_values(rows.clone().map(|i| u32::MAX - of(i) as u32)))),
        column("flag", Arc::new(BooleanArray::from_iter(rows.clone().map(|i| some(i + 4).then_some(i % 2 == 0))))),
        column("day", Arc::new(Date32Array::from_iter_values(rows.clone().map(|i| of(i) as i32)))),
        column("seen", Arc::new(TimestampMicrosecondArray::from_iter_values(times))),
    ])
    .unwrap()
}

/// Writes 40,000 rows over 47 days in 13 epochs and tells what a reader must find.
fn write(root: &Path) -> serde_json::Value {
    let first = batch(0..1);
    let schema = first.schema();
    let columns = schema.fields()[2..].iter().map(|f| (f.name().clone(), f.name().clone(), f.data_type().clone()));
    let spec = TableSpec::new("feature_sets/inputs", columns, &["card"]).unwrap();
    let options = WriterOptions { sources: vec!["tx".into()], ..WriterOptions::default() };
    let mut writer = TableWriter::new(root, &spec, options).unwrap();
    let mut committer = TableCommitter::open(root, &spec, "python test").unwrap();
    let (total, epochs) = (40_000u64, 13);
    for epoch in 0..epochs {
        let rows = total * epoch / epochs..total * (epoch + 1) / epochs;
        writer.append(epoch, &batch(rows)).unwrap();
        assert!(matches!(committer.commit(epoch, &writer.flush().unwrap()).unwrap(), Outcome::Committed { .. }));
    }
    let all = batch(0..total);
    let mut dates = std::collections::BTreeMap::new();
    for i in 0..total as i64 {
        let day = (APRIL + i * 100_000_007) / DAY;
        let date = arrow::temporal_conversions::date32_to_datetime(day as i32).unwrap().format("%Y-%m-%d").to_string();
        *dates.entry(date).or_insert(0) += 1;
    }
    let of = |i: u64| (i * 7919) % 1009;
    let sum = |keep: u64, value: &dyn Fn(u64) -> f64| -> f64 {
        (0..total).filter(|i| (i + keep) % 11 != 3).map(|i| value(of(i))).sum()
    };
    let nulls: serde_json::Map<String, serde_json::Value> =
        ["amount", "small", "count", "number", "flag", "event_time"]
            .iter()
            .map(|name| (name.to_string(), all.column_by_name(name).map_or(0, |c| c.null_count()).into()))
            .collect();
    serde_json::json!({
        "rows": total,
        "columns": spec.schema().fields().iter().map(|f| f.name()).collect::<Vec<_>>(),
        "sums": {
            "amount": sum(0, &|v| v as f64 / 8.0),
            "count": sum(2, &|v| v as f64 - 500.0),
            "number": sum(3, &|v| v as f64),
            "wide": (0..total).map(|i| (u32::MAX - of(i) as u32) as f64).sum::<f64>(),
            "_offset": (total * (total - 1) / 2) as f64,
        },
        "nulls": nulls,
        "dates": dates,
        "application": "python test",
        "epoch": epochs - 1,
    })
}

#[test]
fn python_readers_agree() {
    let Some(python) = python("our Delta tables in deltalake, pandas, polars and pyarrow") else { return };
    let root = tempfile::tempdir().unwrap();
    let expected = write(root.path());
    let expected_path = root.path().join("expected.json");
    std::fs::write(&expected_path, expected.to_string()).unwrap();
    agree(&python, root.path(), &expected_path);

    // And once more when its files were merged and the old ones deleted.
    let go_on: &dyn Fn() -> bool = &|| true;
    let name = "feature_sets/inputs";
    let merged = compact(root.path(), name, &CompactOptions::default(), go_on).unwrap();
    assert!(merged.files_before > merged.files_after && merged.files_after > 0, "{merged:?}");
    let at_once = VacuumOptions { retention: Duration::ZERO, ..VacuumOptions::default() };
    assert_eq!(vacuum(root.path(), name, &at_once, go_on).unwrap().files, merged.files_before);
    agree(&python, root.path(), &expected_path);
}

fn agree(python: &Path, root: &Path, expected: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_delta.py");
    let output = Command::new(python)
        .arg(script)
        .arg(table_path(root, "feature_sets/inputs"))
        .arg(expected)
        .output()
        .unwrap_or_else(|e| panic!("{} does not start: {e}", python.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(out.lines().count(), 7, "seven readers: {out}");
}

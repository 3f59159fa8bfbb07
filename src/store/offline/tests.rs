//! Tests of writer, committer and reader together, on temporary directories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;
use crate::base::{Ord64, Position};
use crate::store::StoreError;

mod by_date;
mod outbox;
mod upkeep;

const DAY: i64 = 86_400_000_000;
const APRIL: i64 = 17_622 * DAY; // 2018-04-01

/// One row: time, customer, offset, amount.
type Row = (i64, Option<i64>, u64, Option<f64>);

fn spec() -> TableSpec {
    let columns = [
        ("customer_id".to_string(), "customer_id".to_string(), DataType::Int64),
        ("customer.avg_amount_1d".to_string(), "customer.avg_amount_1d".to_string(), DataType::Float64),
        ("country".to_string(), "country".to_string(), DataType::Utf8),
    ];
    TableSpec::new("features/customer", columns, &["customer_id"]).unwrap()
}

fn options() -> WriterOptions {
    WriterOptions { job_version: 3, sources: vec!["tx".into(), "labels".into()], ..WriterOptions::default() }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let ord = |offset| Ord64::from(Position { source: 0, partition: 2, offset }).0;
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.0)).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_time", Arc::new(times)),
        ("_ord", Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| ord(r.2))))),
        (
            "country",
            Arc::new(StringArray::from_iter(rows.iter().map(|r| (r.2 % 3 > 0).then(|| format!("c{}", r.2 % 3))))),
        ),
        ("customer_id", Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1)))),
        ("customer.avg_amount_1d", Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.3)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn write(root: &Path, rows: &[Row]) -> Vec<Part> {
    let mut writer = TableWriter::new(root, &spec(), options()).unwrap();
    writer.append(7, &batch(rows)).unwrap();
    writer.flush().unwrap()
}

/// Offsets in the table, with how often each occurs.
fn offsets(root: &Path) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for batch in read_table(&table_path(root, "features/customer"), Some(&["_offset"]), None).unwrap() {
        for offset in batch.column(0).as_primitive::<Int64Type>().values() {
            *found.entry(*offset).or_default() += 1;
        }
    }
    found
}

#[test]
fn a_table_reads_back_as_written() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..100)
        .map(|i| (APRIL + i as i64 * DAY / 40, Some(i as i64 % 7), i, (i % 5 > 0).then_some(i as f64 / 3.0)))
        .collect();
    let mut writer = TableWriter::new(root.path(), &spec(), options()).unwrap();
    writer.append(7, &batch(&rows[..60])).unwrap();
    writer.append(8, &batch(&rows[60..])).unwrap();
    assert_eq!(writer.rows_buffered(), 100);
    let parts = writer.flush().unwrap();
    assert_eq!(
        parts.iter().map(|p| p.event_date.as_str()).collect::<Vec<_>>(),
        ["2018-04-01", "2018-04-02", "2018-04-03"]
    );
    assert_eq!(parts.iter().map(|p| p.rows).sum::<u64>(), 100);

    let mut committer = TableCommitter::open(root.path(), &spec(), "job/features/customer").unwrap();
    assert_eq!(committer.newest_epoch(), None);
    assert_eq!(committer.commit(0, &parts).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(committer.newest_epoch(), Some(0));

    let table = TableReader::open(&table_path(root.path(), "features/customer"), None).unwrap();
    assert_eq!(table.schema().as_ref(), spec().schema().as_ref());
    let all = concat_batches(table.schema(), &table.read(None).unwrap()).unwrap();
    assert_eq!(all.num_rows(), 100);
    let column = |name: &str| all.column_by_name(name).unwrap().clone();
    for row in 0..100 {
        let offset = column("_offset").as_primitive::<Int64Type>().value(row);
        let (time, customer, _, amount) = rows[offset as usize];
        assert_eq!(column("event_time").as_primitive::<TimestampMicrosecondType>().value(row), time);
        assert_eq!(column("customer_id").as_primitive::<Int64Type>().value(row), customer.unwrap());
        let found = column("customer__avg_amount_1d");
        let found = found.as_primitive::<Float64Type>();
        assert_eq!(found.is_valid(row).then(|| found.value(row)), amount);
        assert_eq!(column("_tick").as_primitive::<Int64Type>().value(row), if offset < 60 { 7 } else { 8 });
        assert_eq!(column("_source").as_string::<i32>().value(row), "tx");
        let date = column("event_date").as_primitive::<arrow::datatypes::Date32Type>().value(row);
        assert_eq!(i64::from(date), time / DAY);
    }
    assert_eq!(table.version(), 1);
    assert!(
        TableReader::open(&table_path(root.path(), "features/customer"), Some(0))
            .unwrap()
            .read(None)
            .unwrap()
            .is_empty()
    );
    let error = table.read(Some(&["nonsense"])).unwrap_err().to_string();
    assert!(error.contains("no column `nonsense`") && error.contains("customer_id"), "{error}");
}

#[test]
fn files_are_sorted_by_entity_and_time_and_plain_readers_see_them() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> =
        (0..50).map(|i| (APRIL + (i as i64 * 7919) % 1000, Some((i as i64 * 31) % 5), i, None)).collect();
    let parts = write(root.path(), &rows);
    let [part] = parts.as_slice() else { panic!("one date, one part: {parts:?}") };
    let path = table_path(root.path(), "features/customer").join(&part.path);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), part.size);
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    let mut keys = Vec::new();
    for batch in &batches {
        let times = batch.column_by_name("event_time").unwrap().as_primitive::<TimestampMicrosecondType>();
        let customers = batch.column_by_name("customer_id").unwrap().as_primitive::<Int64Type>();
        keys.extend(customers.values().iter().copied().zip(times.values().iter().copied()));
    }
    assert_eq!(keys.len(), 50);
    assert!(keys.is_sorted(), "{keys:?}");
    let stats: serde_json::Value = serde_json::from_str(&part.stats).unwrap();
    assert_eq!(stats["numRecords"], 50);
    assert_eq!(stats["maxValues"]["customer_id"], 4);
    assert_eq!(stats["minValues"]["event_time"], "2018-04-01T00:00:00Z");
    assert!(stats["maxValues"].get("customer__avg_amount_1d").is_none(), "the log stays short: {stats}");
}

#[test]
fn an_epoch_is_committed_once() {
    let root = tempfile::tempdir().unwrap();
    let parts = write(root.path(), &[(APRIL, Some(1), 0, None)]);
    let open = || TableCommitter::open(root.path(), &spec(), "job").unwrap();
    let (mut first, mut second) = (open(), open());
    assert_eq!(first.commit(4, &parts).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(first.commit(4, &parts).unwrap(), Outcome::AlreadyCommitted);
    assert_eq!(first.commit(3, &parts).unwrap(), Outcome::AlreadyCommitted);
    // The second has an old snapshot: it loses the create, looks, and finds the epoch.
    assert_eq!(second.newest_epoch(), None);
    assert_eq!(second.commit(4, &parts).unwrap(), Outcome::AlreadyCommitted);
    assert_eq!(open().newest_epoch(), Some(4));
    assert_eq!(second.commit(5, &[]).unwrap(), Outcome::Empty);
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1)]));
}

#[test]
fn committers_of_other_applications_do_not_disturb() {
    let root = tempfile::tempdir().unwrap();
    let threads: Vec<_> = (0..3u64)
        .map(|writer| {
            let root = root.path().to_path_buf();
            std::thread::spawn(move || {
                let mut committer = TableCommitter::open(&root, &spec(), format!("job{writer}")).unwrap();
                for epoch in 0..8 {
                    let parts = write(&root, &[(APRIL, Some(1), writer * 100 + epoch, None)]);
                    let outcome = committer.commit(epoch, &parts).unwrap();
                    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let found = offsets(root.path());
    assert_eq!(found.len(), 24);
    assert!(found.values().all(|count| *count == 1), "{found:?}");
    // 24 commits passed two checkpoints: the table opens from one.
    let log = table_path(root.path(), "features/customer/_delta_log");
    assert!(
        std::fs::read_dir(log)
            .unwrap()
            .flatten()
            .any(|e| { e.file_name().to_string_lossy().contains("checkpoint.parquet") })
    );
}

/// What a process killed while it created the table leaves behind is no obstacle, and no reader sees it.
#[test]
fn a_killed_creation_is_taken_up_again() {
    let root = tempfile::tempdir().unwrap();
    let table = table_path(root.path(), "features/customer");
    std::fs::create_dir_all(table.join("_delta_log")).unwrap();
    std::fs::write(table.join(".0123.tmp"), "{\"protocol\":").unwrap();
    assert!(matches!(TableReader::open(&table, None), Err(StoreError::NoTable(_))));
    let mut committer = TableCommitter::open(root.path(), &spec(), "job").unwrap();
    committer.commit(0, &write(root.path(), &[(APRIL, Some(1), 0, None)])).unwrap();
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1)]));
    let hidden = |directory: &Path| {
        let names = std::fs::read_dir(directory).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(hidden(&table), [".0123.tmp"], "nothing of ours stays");
    assert!(hidden(&table.join("_delta_log")).is_empty());
}

#[test]
fn parts_without_a_commit_are_harmless_and_may_be_committed_later() {
    let root = tempfile::tempdir().unwrap();
    let mut committer = TableCommitter::open(root.path(), &spec(), "job").unwrap();
    // The process dies between parts and commit; its parts survive in a manifest.
    let manifest = serde_json::to_string(&write(root.path(), &[(APRIL, Some(1), 0, None)])).unwrap();
    let orphans = write(root.path(), &[(APRIL, Some(1), 1, None)]);
    assert_eq!(orphans.len(), 1);
    assert!(offsets(root.path()).is_empty());
    let parts: Vec<Part> = serde_json::from_str(&manifest).unwrap();
    assert_eq!(committer.commit(0, &parts).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(offsets(root.path()), BTreeMap::from([(0, 1)]));
}

#[test]
fn columns_are_added_and_never_changed() {
    let root = tempfile::tempdir().unwrap();
    let parts = write(root.path(), &[(APRIL, Some(1), 0, Some(1.5))]);
    TableCommitter::open(root.path(), &spec(), "job").unwrap().commit(0, &parts).unwrap();

    let wider = |extra: DataType| {
        let mut columns: Vec<_> =
            spec().columns().iter().map(|c| (c.name.clone(), c.engine.clone(), c.data_type.clone())).collect();
        columns.push(("extra".into(), "customer_id".into(), extra));
        TableSpec::new("features/customer", columns, &["customer_id"]).unwrap()
    };
    let mut committer = TableCommitter::open(root.path(), &wider(DataType::Int64), "job").unwrap();
    let mut writer = TableWriter::new(root.path(), &wider(DataType::Int64), options()).unwrap();
    writer.append(8, &batch(&[(APRIL, Some(9), 1, None)])).unwrap();
    assert!(matches!(committer.commit(1, &writer.flush().unwrap()).unwrap(), Outcome::Committed { .. }));
    // The older job still writes: its rows have no such column.
    let parts = write(root.path(), &[(APRIL, Some(1), 2, None)]);
    TableCommitter::open(root.path(), &spec(), "job").unwrap().commit(2, &parts).unwrap();

    let table = TableReader::open(&table_path(root.path(), "features/customer"), None).unwrap();
    let all = concat_batches(table.schema(), &table.read(None).unwrap()).unwrap();
    let extra = all.column_by_name("extra").unwrap().as_primitive::<Int64Type>();
    assert_eq!(all.num_rows(), 3);
    assert_eq!(extra.iter().flatten().collect::<Vec<_>>(), [9]);

    let Err(StoreError::Schema { reason, .. }) = TableCommitter::open(root.path(), &wider(DataType::Utf8), "job")
    else {
        panic!("a column changed its type");
    };
    assert!(reason.contains("`extra` is Int64 there and Utf8 in the job"), "{reason}");
}

#[test]
fn rows_in_table_form_may_lack_a_time() {
    let root = tempfile::tempdir().unwrap();
    let columns = [("kind".to_string(), "kind".to_string(), DataType::Utf8)];
    let spec = TableSpec::new("dead_letters", columns, &[]).unwrap();
    let rows: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampMicrosecondArray::from(vec![None, Some(APRIL)]).with_timezone("UTC"))),
        ("_tick", Arc::new(Int64Array::from(vec![1, 1]))),
        ("_source", Arc::new(StringArray::from(vec!["tx", "labels"]))),
        ("_partition", Arc::new(arrow::array::Int32Array::from(vec![0, 0]))),
        ("_offset", Arc::new(Int64Array::from(vec![5, 6]))),
        ("_job_version", Arc::new(arrow::array::Int32Array::from(vec![1, 1]))),
        ("kind", Arc::new(StringArray::from(vec!["undecodable", "late"]))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(rows.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut writer = TableWriter::new(root.path(), &spec, options()).unwrap();
    writer.append_rows(&rows).unwrap();
    let parts = writer.flush().unwrap();
    assert_eq!(parts.iter().map(|p| p.event_date.as_str()).collect::<Vec<_>>(), ["1970-01-01", "2018-04-01"]);
    TableCommitter::open(root.path(), &spec, "job").unwrap().commit(0, &parts).unwrap();
    let read = read_table(&table_path(root.path(), "dead_letters"), Some(&["kind", "event_time"]), None).unwrap();
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[test]
fn wrong_rows_and_places_are_named() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = TableWriter::new(root.path(), &spec(), options()).unwrap();
    let narrow = batch(&[(APRIL, Some(1), 0, None)]).project(&[0, 1, 2]).unwrap();
    let error = writer.append(0, &narrow).unwrap_err().to_string();
    assert!(error.contains("column `customer_id` is missing"), "{error}");
    let error = read_table(root.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("there is no delta table in"), "{error}");
}

#[test]
fn long_dates_are_split_and_large_buffers_written_early() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..25).map(|i| (APRIL + i as i64, Some(i as i64 % 3), i, None)).collect();
    let mut writer = TableWriter::new(root.path(), &spec(), WriterOptions { rows_max: 10, ..options() }).unwrap();
    writer.append(0, &batch(&rows)).unwrap();
    assert_eq!(writer.rows_buffered(), 0, "the buffer is bounded");
    let parts = writer.flush().unwrap();
    assert_eq!(parts.iter().map(|p| p.rows).collect::<Vec<_>>(), [10, 10, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Twin: filter all rows, take the newest.
    #[test]
    fn as_of_reads_equal_a_scan(
        rows in prop::collection::vec((0..4 * DAY, prop::option::weighted(0.9, 0..4i64)), 1..60),
        at in -DAY..5 * DAY,
        ttl in prop::option::of(0..3 * DAY),
        key in prop::option::weighted(0.9, 0..4i64),
        epochs in 1..4usize,
    ) {
        let root = tempfile::tempdir().unwrap();
        let rows: Vec<Row> = rows.iter().enumerate()
            .map(|(i, (time, key))| (APRIL + time / 1000 * 1000, *key, i as u64, Some(i as f64))).collect();
        let mut committer = TableCommitter::open(root.path(), &spec(), "job").unwrap();
        for (epoch, chunk) in rows.chunks(rows.len().div_ceil(epochs)).enumerate() {
            committer.commit(epoch as u64, &write(root.path(), chunk)).unwrap();
        }
        let table = TableReader::open(&table_path(root.path(), "features/customer"), None).unwrap();
        let at = APRIL + at;
        let entity = [("customer_id".to_string(), Arc::new(Int64Array::from(vec![key])) as ArrayRef)];
        let found = latest_as_of(&table, &entity, at, ttl).unwrap();
        let expected = rows.iter()
            .filter(|r| r.1 == key && r.0 <= at && ttl.is_none_or(|ttl| r.0 >= at - ttl))
            .max_by_key(|r| (r.0, r.2));
        prop_assert_eq!(found.as_ref().map(|f| f.event_time), expected.map(|r| r.0));
        if let (Some(found), Some(expected)) = (&found, expected) {
            let amount = found.row.column_by_name("customer__avg_amount_1d").unwrap();
            prop_assert_eq!(amount.as_primitive::<Float64Type>().value(0), expected.3.unwrap());
            prop_assert_eq!(found.row.schema(), table.schema().clone());
        }
    }
}

/// 20 floats, key and time, sorted and encoded. Prints the rate; `TIDEMILL_BENCH_ROWS=4000000` for a figure to quote.
#[test]
fn write_rate() {
    let total: usize = std::env::var("TIDEMILL_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let features: Vec<String> = (0..20).map(|i| format!("f{i}")).collect();
    let columns = std::iter::once(("card_id".to_string(), "card_id".to_string(), DataType::Int64))
        .chain(features.iter().map(|f| (f.clone(), f.clone(), DataType::Float64)));
    let spec = TableSpec::new("features/card", columns, &["card_id"]).unwrap();
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        random >> 33
    };
    let batches: Vec<RecordBatch> = (0..total)
        .step_by(8192)
        .map(|start| {
            let rows = start..(start + 8192).min(total);
            // Sums of cents, means and the like: half of the columns round, half with full mantissas.
            let mut columns: Vec<(String, ArrayRef)> = vec![
                (
                    "_time".into(),
                    Arc::new(
                        TimestampMicrosecondArray::from_iter_values(rows.clone().map(|i| APRIL + i as i64 * 26_000))
                            .with_timezone("UTC"),
                    ),
                ),
                ("_ord".into(), Arc::new(UInt64Array::from_iter_values(rows.clone().map(|i| i as u64)))),
                (
                    "card_id".into(),
                    Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| (next() % 1_000_000) as i64))),
                ),
            ];
            for (i, feature) in features.iter().enumerate() {
                let values = rows.clone().map(|_| {
                    let cents = (next() % 100_000) as f64;
                    if i % 2 == 0 { cents / 100.0 } else { cents / (1 + next() % 50) as f64 }
                });
                columns.push((feature.clone(), Arc::new(Float64Array::from_iter_values(values))));
            }
            RecordBatch::try_from_iter(columns).unwrap()
        })
        .collect();
    let root = tempfile::tempdir().unwrap();
    let mut writer = TableWriter::new(root.path(), &spec, options()).unwrap();
    // Nanoseconds of this thread on a processor: what others do at the same time does not count.
    let busy = || -> Option<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let (started, before) = (std::time::Instant::now(), busy());
    for batch in &batches {
        writer.append(0, batch).unwrap();
    }
    let parts = writer.flush().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let busy = busy().zip(before).map_or(f64::NAN, |(after, before)| (after - before) / 1e9);
    let bytes: u64 = parts.iter().map(|p| p.size).sum();
    println!(
        "{:.2} M rows/s of wall time, {:.2} M rows/s of processor time, {:.1} bytes per row, {} parts",
        total as f64 / seconds / 1e6,
        total as f64 / busy / 1e6,
        bytes as f64 / total as f64,
        parts.len()
    );
    assert_eq!(parts.iter().map(|p| p.rows).sum::<u64>(), total as u64);
}

//! Parquet sources.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field};

use super::kit::{Dir, Outcome, Plan, data};
use crate::ingest::{ReaderOptions, SourceReader};
use crate::plan::expr::time_type;
use crate::plan::model::FileFormat;

fn fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", time_type(), true),
        Field::new("amount", DataType::Float64, true),
        Field::new("country", DataType::Utf8, true),
    ]
}

/// Rows one second apart from 2020 on.
fn rows(n: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 5] = [
        ("unused", Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("text {i}"))))),
        ("amount", Arc::new(Float64Array::from_iter_values((0..n).map(|i| i as f64 / 4.0)))),
        ("id", Arc::new(Int64Array::from_iter_values(0..n))),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values((0..n).map(|i| 1_577_836_800_000 + i * 1000)))),
        ("country", Arc::new(StringArray::from_iter((0..n).map(|i| (i % 3 > 0).then_some("FR"))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn plan(path: &Path) -> Plan {
    Plan::new(FileFormat::Parquet, &[path], fields(), "ts")
}

#[test]
fn columns_come_by_name_in_the_engines_types_with_time_and_position() {
    let dir = Dir::new();
    let path = dir.parquet("a.parquet", &rows(5), 2);
    let outcome = plan(&path).read(3);
    assert_eq!(outcome.batch.schema(), plan(&path).0.stream_schema);
    assert_eq!(outcome.column("_time")[4], "2020-01-01T00:00:04Z");
    assert_eq!(outcome.column("amount"), ["0.0", "0.25", "0.5", "0.75", "1.0"]);
    assert_eq!(outcome.column("country"), ["", "FR", "FR", "", "FR"]);
    assert_eq!(outcome.offsets(), [0, 1, 2, 3, 4]);
    assert_eq!(outcome.watermark, 1_577_836_804_000_000);
    assert!(outcome.dead.is_empty() && outcome.counts.accepted == 5);
}

#[test]
fn any_cut_and_any_resumption_gives_the_same_rows() {
    let dir = Dir::new();
    let path = dir.parquet("a.parquet", &rows(20_000), 9_000);
    let whole = plan(&path).read(usize::MAX);
    assert_eq!(whole.batch.num_rows(), 20_000);
    for rows_max in [777, 8_192, 9_000] {
        assert_eq!(plan(&path).read(rows_max).batch, whole.batch);
    }
    for from in [1, 8_191, 8_192, 8_999, 9_000, 17_300, 19_999, 20_000] {
        let options = ReaderOptions { resume: Some(vec![from]), ..ReaderOptions::default() };
        let mut reader = SourceReader::open(&plan(&path).0, options).unwrap();
        let rest = reader.read(0, usize::MAX).unwrap();
        assert_eq!(rest.map_or(0, |r| r.batch.num_rows()), 20_000 - from as usize);
        assert_eq!(reader.next_offset(0), 20_000);
    }
    let options = ReaderOptions { resume: Some(vec![8_500]), ..ReaderOptions::default() };
    let rest = SourceReader::open(&plan(&path).0, options).unwrap().read_all(100);
    assert_eq!(rest.batch, whole.batch.slice(8_500, 11_500));
}

/// Overwrites bytes in the middle of a column of a row group.
fn damage(path: &Path, group: usize, column: usize) {
    let metadata = ArrowReaderMetadata::load(&std::fs::File::open(path).unwrap(), Default::default()).unwrap();
    let (start, length) = metadata.metadata().row_group(group).column(column).byte_range();
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    // From the first page header on, so that no decoder can take it for data.
    file.seek(SeekFrom::Start(start)).unwrap();
    file.write_all(&vec![0xff; length as usize]).unwrap();
}

#[test]
fn a_damaged_row_group_is_one_dead_letter_and_reading_goes_on() {
    let dir = Dir::new();
    let path = dir.parquet("a.parquet", &rows(30_000), 10_000);
    damage(&path, 1, 2);
    let check = |outcome: Outcome| {
        assert_eq!(outcome.batch.num_rows(), 20_000);
        assert_eq!(outcome.offsets()[9_999..10_001], [9_999, 20_000]);
        let letter = &outcome.dead[0];
        assert_eq!((outcome.dead.len(), letter.kind.as_str(), letter.offset), (1, "corrupt_block", 10_000));
        assert!(
            letter.reason.contains("row group 1 of") && letter.reason.contains("rows 10000 to 19999"),
            "{}",
            letter.reason
        );
        assert_eq!((outcome.counts.read, outcome.counts.lost), (30_000, 9_999));
        outcome.batch
    };
    let whole = check(plan(&path).read(usize::MAX));
    for rows_max in [1_000, 8_192, 12_345] {
        assert_eq!(check(plan(&path).read(rows_max)), whole);
    }
    for (from, rows) in [(10_000, 10_000), (10_001, 10_000), (19_999, 10_000), (5_000, 15_000), (20_001, 9_999)] {
        let options = ReaderOptions { resume: Some(vec![from]), ..ReaderOptions::default() };
        let rest = SourceReader::open(&plan(&path).0, options).unwrap().read_all(1_000);
        assert_eq!(rest.batch, whole.slice(20_000 - rows, rows));
        assert_eq!(rest.dead.len(), usize::from(from <= 10_000), "{from}");
    }
}

#[test]
fn a_file_that_is_damaged_as_a_whole_is_an_error_that_names_it() {
    let dir = Dir::new();
    let path = dir.parquet("a.parquet", &rows(100), 100);
    let bytes = std::fs::read(&path).unwrap();
    for (name, bytes) in [("cut", &bytes[..bytes.len() / 2]), ("empty", &[]), ("text", b"id,ts\n1,2\n")] {
        let path = dir.text(name, bytes);
        let error = plan(&path).open().err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("not a whole Parquet file"), "{error}");
    }
    let error = plan(Path::new("/nowhere/a.parquet")).open().err().unwrap().to_string();
    assert!(error.contains("cannot open /nowhere/a.parquet"), "{error}");
    let other = Plan::new(
        FileFormat::Parquet,
        &[&path],
        vec![Field::new("ts", DataType::Utf8, true), Field::new("amuont", DataType::Float64, true)],
        "cast(ts as timestamp)",
    );
    let error = other.open().err().unwrap().to_string();
    assert!(error.contains("its column `ts` is Timestamp"), "{error}");
}

#[test]
fn the_card_transactions_read_clean() {
    let Some(path) = data("fraud/transactions.parquet") else {
        return;
    };
    let fields = vec![
        Field::new("TRANSACTION_ID", DataType::Int32, true),
        Field::new("TX_DATETIME", time_type(), true),
        Field::new("CUSTOMER_ID", DataType::Int32, true),
        Field::new("TERMINAL_ID", DataType::Int32, true),
        Field::new("TX_AMOUNT", DataType::Float64, true),
    ];
    let plan = Plan::new(FileFormat::Parquet, &[&path], fields, "TX_DATETIME");
    let outcome = plan.read(100_000);
    assert_eq!(outcome.counts.accepted, 1_466_282);
    assert!(outcome.dead.is_empty());
    let start = std::time::Instant::now();
    let mut reader = plan.open().unwrap();
    while reader.read(0, 65_536).unwrap().is_some() {}
    println!("{:.1} M rows/s", 1.466_282 / start.elapsed().as_secs_f64());
}

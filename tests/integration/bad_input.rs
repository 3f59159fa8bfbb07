//! Nothing that a file holds stops a job: each kind of bad row becomes a dead letter with its bytes, its position and the
//! reason, and the rows around it get the features that they would have had without it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use crate::support::rows::{assert_same_rows, without};
use crate::support::{Job, Lake};

/// Rows that fail a check of the row itself go to the table that the source names, the others here.
const REJECTED: &str = "tx_rejected";
const DEAD: &str = "dead_letters";

const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "tx_id", "type": "long"},
  {"name": "ts", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
  {"name": "card", "type": ["null", "long"]},
  {"name": "amount", "type": "double"},
  {"name": "units", "type": ["null", "int"]},
  {"name": "country", "type": ["null", "string"]}
]}"#;

fn job(dir: &Path, events: &str) -> Job {
    fs::write(dir.join("tx.avsc"), SCHEMA).expect("a file");
    let text = format!(
        r#"
job: bad_input
version: 1
sources:
  tx:
    file: {{path: "{dir}/{events}"}}
    schema: "{dir}/tx.avsc"
    where: "units is null or 10 / units > 0"
    id: tx_id
    event_time: ts
    disorder: 10s
    dedup: 1h
    validate: {{amount: {{min: 0}}, country: {{in: [FR, DE]}}}}
    on_invalid: {{dead_letter: {REJECTED}}}
features:
  card:
    from: tx
    entity: [card]
    aggregates:
      n: {{count: "*", over: 1h}}
      total: {{sum: amount, over: 1h}}
sinks:
  offline: {{delta: {{uri: "${{LAKE}}"}}}}
"#,
        dir = dir.display()
    );
    let file = dir.join("job.yaml");
    fs::write(&file, text).expect("a file");
    Job::new(file)
}

/// A bad line and what must become of it.
struct Bad {
    line: Vec<u8>,
    table: &'static str,
    kind: &'static str,
    /// What the reason must mention.
    reason: &'static str,
}

fn bad(line: impl Into<Vec<u8>>, kind: &'static str, reason: &'static str) -> Bad {
    let table = if matches!(kind, "late" | "duplicate") { DEAD } else { REJECTED };
    Bad { line: line.into(), table, kind, reason }
}

/// Good lines `0..GOOD`, one second apart.
const GOOD: usize = 40;

/// Writes good lines with the bad ones spread between them from the twentieth on; returns the offset of each bad line.
fn spread(path: &Path, header: Option<&str>, good: impl Fn(usize) -> String, bad: &[Bad]) -> Vec<u64> {
    let mut bytes = Vec::new();
    if let Some(header) = header {
        bytes.extend_from_slice(header.as_bytes());
        bytes.push(b'\n');
    }
    let (mut offset, mut offsets) = (0, Vec::new());
    let mut waiting = bad.iter();
    for i in 0..GOOD {
        bytes.extend_from_slice(good(i).as_bytes());
        bytes.push(b'\n');
        offset += 1;
        if i >= 20
            && let Some(bad) = waiting.next()
        {
            bytes.extend_from_slice(&bad.line);
            bytes.push(b'\n');
            offsets.push(offset);
            offset += 1;
        }
    }
    assert_eq!(waiting.count(), 0, "more bad lines than places");
    fs::write(path, bytes).expect("a file");
    offsets
}

/// Asserts that each bad line is in its table once, with its bytes, and that no other letter was written.
fn assert_letters(lake: &Lake, bad: &[Bad], offsets: &[u64]) {
    let mut expected_count = [(REJECTED, 0), (DEAD, 0)];
    for (bad, &offset) in bad.iter().zip(offsets) {
        let shown = String::from_utf8_lossy(&bad.line[..bad.line.len().min(100)]).into_owned();
        let letters = letters(lake, bad.table);
        let letter = letters.iter().find(|l| l.offset == offset as i64).unwrap_or_else(|| {
            let found: Vec<_> = letters.iter().map(|l| (l.offset, &l.kind)).collect();
            panic!("no letter of offset {offset} in {}: `{shown}`; there are {found:?}", bad.table)
        });
        assert_eq!(letter.kind, bad.kind, "`{shown}`: {}", letter.reason);
        assert!(letter.reason.contains(bad.reason), "`{shown}`: the reason is `{}`", letter.reason);
        if bad.kind == "too_large" {
            assert!(!letter.original.is_empty() && bad.line.starts_with(&letter.original), "the beginning is kept");
        } else {
            assert_eq!(String::from_utf8_lossy(&letter.original), String::from_utf8_lossy(&bad.line));
            assert_eq!(letter.original, bad.line);
        }
        assert_eq!((letter.source.as_str(), letter.partition), ("tx", 0));
        expected_count.iter_mut().filter(|(t, _)| *t == bad.table).for_each(|(_, n)| *n += 1);
    }
    for (table, expected) in expected_count {
        assert_eq!(lake.count(table), expected, "letters in {table}");
    }
    assert_eq!(lake.summary.dead_letters, bad.len() as u64, "counted");
}

struct Letter {
    source: String,
    partition: i32,
    offset: i64,
    kind: String,
    reason: String,
    original: Vec<u8>,
}

fn letters(lake: &Lake, table: &str) -> Vec<Letter> {
    if lake.count(table) == 0 {
        return Vec::new();
    }
    let t = lake.table(table, None);
    let column = |name: &str| t.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")).clone();
    let text = |name: &str, row: usize| column(name).as_string::<i32>().value(row).to_owned();
    (0..t.num_rows())
        .map(|row| Letter {
            source: text("_source", row),
            partition: column("_partition").as_primitive::<Int32Type>().value(row),
            offset: column("_offset").as_primitive::<Int64Type>().value(row),
            kind: text("kind", row),
            reason: text("reason", row),
            original: column("original").as_binary::<i32>().value(row).to_owned(),
        })
        .collect()
}

/// Runs the good lines alone and asserts that they got the same features beside the bad ones.
fn assert_unharmed(clean: &Lake, lake: &Lake) {
    let columns = |lake: &Lake| without(&lake.table("features/card", None), &["_tick", "_offset"]);
    let expected = columns(clean);
    assert_eq!(expected.num_rows(), GOOD);
    assert_same_rows("features/card", &expected, &columns(lake));
}

fn ndjson_line(i: usize) -> String {
    let second = i % 60;
    // A field that the schema does not know is nothing bad.
    format!(
        r#"{{"tx_id":{i},"ts":"2026-01-05T00:00:{second:02}Z","card":{card},"amount":{i}.25,"colour":"red"}}"#,
        card = i % 3
    )
}

/// A line like the good ones of second 30 with some fields replaced.
fn odd(id: usize, fields: &str) -> String {
    format!(r#"{{"tx_id":{id},"ts":"2026-01-05T00:00:30Z","card":1,"amount":1.5{fields}}}"#)
}

#[test]
fn ndjson() {
    let with =
        |ts: &str, card: &str, amount: &str| format!(r#"{{"tx_id":900,"ts":{ts},"card":{card},"amount":{amount}}}"#);
    let now = r#""2026-01-05T00:00:30Z""#;
    let all = [
        bad(r#"{"tx_id": 900, "ts":"#, "undecodable", ""),
        bad(b"\xff\xfe\x00garbage".to_vec(), "undecodable", ""),
        bad("[1, 2, 3]", "undecodable", ""),
        bad("null", "undecodable", ""),
        bad(format!(r#"{{"tx_id":900,"pad":"{}"}}"#, "x".repeat(1 << 20)), "too_large", ""),
        bad(with(now, "1", r#""a lot""#), "wrong_type", "amount"),
        bad(with(now, r#"{"number":1}"#, "1.5"), "wrong_type", "card"),
        bad(r#"{"tx_id":900,"ts":"2026-01-05T00:00:30Z","card":1}"#, "missing_field", "amount"),
        bad(odd(900, r#","units":0"#), "expression", ""),
        bad(with("null", "1", "1.5"), "no_event_time", ""),
        bad(with(r#""1731-01-05T00:00:30Z""#, "1", "1.5"), "time_out_of_range", ""),
        bad(with(r#""2731-01-05T00:00:30Z""#, "1", "1.5"), "time_out_of_range", ""),
        bad(with(now, "1", "4398046511104"), "out_of_range", "amount"),
        bad(with(now, "1", "-0.5"), "invalid", "amount"),
        bad(odd(900, r#","country":"XX""#), "invalid", "country"),
        bad(with(now, "null", "1.5"), "no_entity", "card"),
        bad(with(r#""2026-01-04T00:00:00Z""#, "1", "1.5"), "late", ""),
        bad(ndjson_line(37), "duplicate", "same id"),
    ];
    let dir = TempDir::new().expect("a folder");
    let offsets = spread(&dir.path().join("bad.ndjson"), None, ndjson_line, &all);
    spread(&dir.path().join("good.ndjson"), None, ndjson_line, &[]);
    let clean = job(dir.path(), "good.ndjson").run();
    for workers in [1, 3] {
        let lake = job(dir.path(), "bad.ndjson").workers(workers).run();
        assert_letters(&lake, &all, &offsets);
        assert_unharmed(&clean, &lake);
    }
}

#[test]
fn csv() {
    let good = |i: usize| format!("{i},2026-01-05T00:00:{:02}Z,{},{i}.25,,", i % 60, i % 3);
    let all = [
        bad("900,2026-01-05T00:00:30Z,1", "undecodable", ""),
        bad("900,2026-01-05T00:00:30Z,1,1.5,,,more,fields", "undecodable", ""),
        bad("900,2026-01-05T00:00:30Z,1,a lot,,", "wrong_type", "amount"),
        bad("900,2026-01-05T00:00:30Z,1,,,", "missing_field", "amount"),
        bad("900,2026-01-05T00:00:30Z,1,inf,,", "not_finite", "amount"),
        bad("900,2026-01-05T00:00:30Z,1,-inf,,", "not_finite", "amount"),
        bad("900,2026-01-05T00:00:30Z,1,1.5,0,", "expression", ""),
        bad("900,,1,1.5,,", "no_event_time", ""),
        bad("900,2026-01-05T00:00:30Z,,1.5,,", "no_entity", "card"),
        bad("900,2026-01-04T00:00:30Z,1,1.5,,", "late", ""),
    ];
    let header = Some("tx_id,ts,card,amount,units,country");
    let dir = TempDir::new().expect("a folder");
    let offsets = spread(&dir.path().join("bad.csv"), header, good, &all);
    spread(&dir.path().join("good.csv"), header, good, &[]);
    let clean = job(dir.path(), "good.csv").run();
    let lake = job(dir.path(), "bad.csv").workers(2).run();
    assert_letters(&lake, &all, &offsets);
    assert_unharmed(&clean, &lake);
}

/// Rows of Parquet are not text: their letters hold the row as JSON.
#[test]
fn parquet_rows() {
    let dir = TempDir::new().expect("a folder");
    let mut amounts: Vec<f64> = (0..GOOD).map(|i| i as f64 + 0.25).collect();
    write_parquet(&dir.path().join("good.parquet"), &amounts, GOOD);
    for (row, amount) in [(20, f64::INFINITY), (21, f64::NEG_INFINITY), (22, -1.0), (23, 1e15), (24, f64::NAN)] {
        amounts[row] = amount;
    }
    write_parquet(&dir.path().join("bad.parquet"), &amounts, GOOD);
    let lake = job(dir.path(), "bad.parquet").run();
    let found: Vec<_> = letters(&lake, REJECTED).into_iter().map(|l| (l.offset, l.kind, l.original)).collect();
    let kinds = ["not_finite", "not_finite", "invalid", "out_of_range"];
    for (row, kind) in (20..).zip(kinds) {
        let (_, _, original) = found
            .iter()
            .find(|l| (l.0, l.1.as_str()) == (row, kind))
            .unwrap_or_else(|| panic!("{row} {kind}: {found:?}"));
        let json: serde_json::Value = serde_json::from_slice(original).expect("JSON");
        assert_eq!(json["tx_id"], row);
    }
    assert_eq!(found.len(), kinds.len());
    // NaN is a missing value, not a bad row: it is counted and not summed.
    assert_eq!(lake.count("features/card"), GOOD - kinds.len());
}

/// A damaged stretch of a file costs its rows, not the job.
#[test]
fn parquet_damage() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("events.parquet");
    let amounts: Vec<f64> = (0..GOOD).map(|i| i as f64 + 0.25).collect();
    write_parquet(&path, &amounts, 10);
    let mut bytes = fs::read(&path).expect("the file");
    // The second of four row groups: its pages lie a quarter into the data, before the footer.
    let file = fs::File::open(&path).expect("the file");
    let metadata = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer");
    let column = metadata.row_group(1).column(0);
    let (start, length) = column.byte_range();
    bytes[start as usize..(start + length) as usize].fill(0xA5);
    fs::write(&path, bytes).expect("the file");

    let lake = job(dir.path(), "events.parquet").run();
    let letters = letters(&lake, REJECTED);
    assert_eq!(letters.len(), 1, "{:?}", letters.iter().map(|l| (&l.kind, &l.reason)).collect::<Vec<_>>());
    assert_eq!((letters[0].kind.as_str(), letters[0].offset), ("corrupt_block", 10), "{}", letters[0].reason);
    assert!(letters[0].reason.contains("events.parquet"), "the file is named: {}", letters[0].reason);
    assert_eq!(lake.count("features/card"), GOOD - 10);
}

fn write_parquet(path: &Path, amounts: &[f64], row_group: usize) {
    let n = amounts.len() as i64;
    let start = 1_767_571_200_000; // 2026-01-05T00:00:00Z
    let columns: [(&str, ArrayRef); 6] = [
        ("tx_id", Arc::new(Int64Array::from_iter_values(0..n))),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values((0..n).map(|i| start + i * 1000)))),
        ("card", Arc::new(Int64Array::from_iter_values((0..n).map(|i| i % 3)))),
        ("amount", Arc::new(Float64Array::from(amounts.to_vec()))),
        ("units", Arc::new(arrow::array::Int32Array::from(vec![None::<i32>; n as usize]))),
        ("country", Arc::new(StringArray::from(vec![None::<&str>; n as usize]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).set_dictionary_enabled(false).build();
    let file = fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
}

//! Every kind of bad input that files can bring: what is turned away, where it goes, and that reading goes on.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field};

use super::kit::{Dir, Outcome, Plan};
use crate::ingest::decode::normalise::UNIT_KEY;
use crate::ingest::{DEAD_LETTERS, DeadLetterKind, ReaderOptions, SourceReader};
use crate::plan::expr::time_type;
use crate::plan::model::{FileFormat, OnLate};

const SECOND: i64 = 1_000_000;

fn fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", time_type(), true).with_metadata([(UNIT_KEY.into(), "ms".into())].into()),
        Field::new("card", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
    ]
}

fn json(dir: &Dir, lines: &[&str]) -> Plan {
    let path = dir.text("tx.ndjson", lines.join("\n"));
    Plan::new(FileFormat::Ndjson, &[&path], fields(), "ts")
}

fn csv(dir: &Dir, lines: &[&str]) -> Plan {
    let path = dir.text("tx.csv", lines.join("\n"));
    Plan::new(FileFormat::Csv, &[&path], fields(), "ts")
}

/// A line with these values.
fn line(id: i64, ts: i64, amount: &str) -> String {
    format!(r#"{{"id":{id},"ts":{ts},"card":"c{id}","amount":{amount}}}"#)
}

/// Reads at several cuts and sees that they agree.
fn read(plan: &Plan) -> Outcome {
    let whole = plan.read(usize::MAX);
    for rows_max in [1, 2, 3] {
        let cut = plan.read(rows_max);
        assert_eq!((&cut.batch, &cut.dead, &cut.counts), (&whole.batch, &whole.dead, &whole.counts));
    }
    let counts = &whole.counts;
    let dead: u64 = counts.dead.values().sum();
    let sum = counts.accepted + counts.filtered + counts.late_dropped + counts.blank + counts.lost + dead;
    assert_eq!(counts.read, sum, "{counts:?}");
    whole
}

#[test]
fn bytes_that_are_no_rows_keep_their_bytes_and_position() {
    let dir = Dir::new();
    let path = dir.text(
        "tx.ndjson",
        [line(1, 1000, "1").as_bytes(), b"\nnot json\n\n\xff\xfe{}\n{\"id\":2,\n", line(3, 2000, "3").as_bytes()]
            .concat(),
    );
    let outcome = read(&Plan::new(FileFormat::Ndjson, &[&path], fields(), "ts"));
    assert_eq!(outcome.column("id"), ["1", "3"]);
    assert_eq!(outcome.offsets(), [0, 5]);
    assert_eq!(outcome.counts.blank, 1);
    assert!(outcome.dead.iter().all(|l| l.kind == DeadLetterKind::Undecodable && l.table("rejected") == "rejected"));
    let found: Vec<_> = outcome.dead.iter().map(|l| (l.offset, l.original.as_slice(), l.reason.as_str())).collect();
    assert_eq!(
        found,
        [
            (1, &b"not json"[..], "not JSON: expected an object at byte 0, found 'n'"),
            (3, b"\xff\xfe{}", "byte 0 is not UTF-8"),
            (4, b"{\"id\":2,", "not JSON: expected a string at byte 8, found the end of the line"),
        ]
    );
    assert_eq!(
        (outcome.dead[0].source.as_ref(), outcome.dead[0].partition, outcome.dead[0].event_time),
        ("tx", 0, None)
    );
}

#[test]
fn wrong_types_missing_fields_and_extra_fields() {
    let dir = Dir::new();
    let outcome = read(&json(
        &dir,
        &[
            r#"{"id":"1","ts":1000,"card":"c","amount":1}"#,
            r#"{"id":2,"ts":1000,"card":7,"amount":1}"#,
            r#"{"id":3,"ts":1000,"card":"c","amount":{"value":1}}"#,
            r#"{"ts":1000,"card":"c","amount":1}"#,
            r#"{"id":null,"ts":1000,"card":"c","amount":1}"#,
            r#"{"id":6,"ts":1000,"extra":[{"deep":[]}],"amount":1}"#,
            r#"{"id":7,"ts":true}"#,
        ],
    ));
    assert_eq!((outcome.column("id"), outcome.column("card")), (vec!["6".to_owned()], vec![String::new()]));
    let found: Vec<_> = outcome.dead.iter().map(|l| (l.kind.as_str(), l.offset, l.reason.as_str())).collect();
    assert_eq!(
        found,
        [
            ("wrong_type", 0, "field `id` is the text \"1\", expected a whole number in 64 bits"),
            ("wrong_type", 1, "field `card` is 7, expected a text"),
            ("wrong_type", 2, "field `amount` is a list or an object, expected a number"),
            ("missing_field", 3, "field `id` is absent, the schema requires a value"),
            ("missing_field", 4, "field `id` is null, the schema requires a value"),
            (
                "wrong_type",
                6,
                "field `ts` is true, expected a time, such as 2018-04-01T00:00:31Z or a whole number of milliseconds"
            ),
        ]
    );
}

#[test]
fn a_huge_line_is_told_by_its_beginning() {
    let dir = Dir::new();
    let huge = format!(r#"{{"id":1,"card":"{}"}}"#, "x".repeat(2 << 20));
    let outcome = read(&json(&dir, &[&huge, &line(2, 1000, "2")]));
    assert_eq!(outcome.column("id"), ["2"]);
    let letter = &outcome.dead[0];
    assert_eq!((letter.kind, letter.offset, letter.original.len()), (DeadLetterKind::TooLarge, 0, 4_096));
    assert!(letter.reason.starts_with(&format!("{} bytes;", huge.len())), "{}", letter.reason);
}

#[test]
fn ragged_csv_lines_and_values_of_the_wrong_type() {
    let dir = Dir::new();
    let outcome = read(&csv(
        &dir,
        &[
            "amount,id,more,ts,card",
            "1.5,1,x,1000,\"a, \"\"b\"\"\"",
            "1.5,2,x,1000",
            "1.5,3,x,1000,c,d",
            "abc,4,x,1000,c",
            "",
            "NaN,5,x,1970-01-01T00:00:02Z,",
            ",6,x,3000,\"\"",
            "1,,x,3000,c",
            "1,8,\"x\"y,3000,c",
            "1,9,x,4000,c",
        ],
    ));
    assert_eq!(outcome.column("id"), ["1", "5", "6", "9"]);
    assert_eq!(outcome.column("card"), ["a, \"b\"", "", "", "c"]);
    assert_eq!(outcome.column("amount"), ["1.5", "NaN", "", "1.0"]);
    let card = outcome.batch.column_by_name("card").unwrap();
    assert!(card.is_null(1) && !card.is_null(2), "an unquoted empty field is null, a quoted one is empty text");
    assert_eq!(
        outcome.letters(),
        [
            ("undecodable", 1, "1.5,2,x,1000".into()),
            ("undecodable", 2, "1.5,3,x,1000,c,d".into()),
            ("wrong_type", 3, "abc,4,x,1000,c".into()),
            ("missing_field", 7, "1,,x,3000,c".into()),
            ("undecodable", 8, "1,8,\"x\"y,3000,c".into()),
        ]
    );
    assert_eq!(outcome.dead[0].reason, "4 fields, the header has 5");
}

#[test]
fn a_csv_header_that_does_not_serve_is_an_error_of_the_file() {
    let dir = Dir::new();
    for (header, what) in [
        ("", "it has no header"),
        ("ts,card,amount", "its header has no field `id`"),
        ("id,ts,ts", "its header has the field `ts` twice"),
        ("\"id", "its header is not a record"),
    ] {
        let path = dir.text("tx.csv", header);
        let error = Plan::new(FileFormat::Csv, &[&path], fields(), "ts").open().err().unwrap().to_string();
        assert!(error.contains(what) && error.contains("tx.csv"), "{error}");
    }
    // A field that may be null may be missing altogether.
    let outcome = read(&csv(&dir, &["id,ts", "1,1000"]));
    assert_eq!(outcome.column("amount"), [""]);
}

#[test]
fn numbers_beyond_sums_go_and_nan_stays() {
    let dir = Dir::new();
    let lines: Vec<String> =
        ["1", "NaN", "Infinity", "-Infinity", "1e999", "4398046511104", "-4398046511103.9", "null"]
            .iter()
            .enumerate()
            .map(|(i, amount)| line(i as i64, 1000, amount))
            .collect();
    let outcome = read(&json(&dir, &lines.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(outcome.column("amount"), ["1.0", "NaN", "-4398046511103.9", ""]);
    let kinds: Vec<_> = outcome.dead.iter().map(|l| (l.kind.as_str(), l.offset)).collect();
    assert_eq!(kinds, [("not_finite", 2), ("not_finite", 3), ("not_finite", 4), ("out_of_range", 5)]);
    assert_eq!(outcome.dead[3].event_time, Some(1_000_000));
}

#[test]
fn times_nobody_can_mean() {
    let dir = Dir::new();
    let outcome = read(&json(
        &dir,
        &[
            r#"{"id":0,"ts":1000}"#,
            r#"{"id":1,"ts":null}"#,
            r#"{"id":2}"#,
            r#"{"id":3,"ts":9223372036854775807}"#,
            r#"{"id":4,"ts":"2200-01-01T00:00:00Z"}"#,
            r#"{"id":5,"ts":"1899-12-31T23:59:59.999Z"}"#,
            r#"{"id":6,"ts":"9999-01-01"}"#,
            r#"{"id":7,"ts":2000}"#,
        ],
    ));
    // None of them moves the watermark, else row 7 would be late.
    assert_eq!(outcome.column("id"), ["0", "7"]);
    assert_eq!(outcome.watermark, 2 * SECOND);
    let kinds: Vec<_> = outcome.dead.iter().map(|l| (l.kind.as_str(), l.offset)).collect();
    let range = "time_out_of_range";
    assert_eq!(kinds, [("no_event_time", 1), ("no_event_time", 2), (range, 3), (range, 4), (range, 5), (range, 6)]);
    assert_eq!(outcome.dead[3].reason, "event time 2200-01-01T00:00:00Z is not within 1900 to 2199");
}

#[test]
fn late_rows_go_by_the_sources_choice() {
    let dir = Dir::new();
    let lines: Vec<String> =
        [10, 12, 7, 9, 20, 11, 30].iter().enumerate().map(|(i, s)| line(i as i64, s * 1000, "1")).collect();
    let plan = || json(&dir, &lines.iter().map(String::as_str).collect::<Vec<_>>()).disorder(3 * SECOND);
    let outcome = read(&plan());
    assert_eq!(outcome.column("id"), ["0", "1", "3", "4", "6"]);
    assert_eq!(outcome.letters(), [("late", 2, lines[2].clone()), ("late", 5, lines[5].clone())], "{:?}", outcome.dead);
    assert_eq!(
        outcome.dead[0].reason,
        "event time 1970-01-01T00:00:07Z is 2s behind the partition's watermark 1970-01-01T00:00:09Z (disorder 3s)"
    );
    assert_eq!((outcome.dead[0].event_time, outcome.dead[0].table("rejected")), (Some(7 * SECOND), DEAD_LETTERS));
    let dropped = read(&plan().on_late(OnLate::Drop));
    assert_eq!((dropped.batch, dropped.counts.late_dropped, dropped.dead.len()), (outcome.batch, 2, 0));
}

#[test]
fn where_takes_rows_out_silently_and_its_failures_do_not() {
    let dir = Dir::new();
    let plan = json(
        &dir,
        &[
            r#"{"id":0,"ts":1000,"card":"5"}"#,
            r#"{"id":1,"ts":null,"card":"50"}"#,
            r#"{"id":2,"ts":9000,"card":null}"#,
            r#"{"id":3,"ts":1000,"card":"five"}"#,
            r#"{"id":4,"ts":2000,"card":"6"}"#,
        ],
    );
    let outcome = read(&plan.filter("cast(card as bigint) < 10"));
    // Row 1 has no time and row 2 would raise the watermark: neither is there at all.
    assert_eq!(outcome.column("id"), ["0", "4"]);
    assert_eq!(outcome.counts.filtered, 2);
    assert_eq!(outcome.letters(), [("expression", 3, r#"{"id":3,"ts":1000,"card":"five"}"#.into())]);
    assert!(outcome.dead[0].reason.starts_with("`where` failed"), "{}", outcome.dead[0].reason);
}

#[test]
fn expressions_that_fail_on_a_row_cost_that_row() {
    let dir = Dir::new();
    let lines = [
        r#"{"id":0,"ts":1000,"card":"1000000","amount":2}"#,
        r#"{"id":1,"ts":1000,"card":"soon","amount":2}"#,
        r#"{"id":2,"ts":1000,"card":"2000000","amount":0}"#,
        r#"{"id":3,"ts":1000,"card":"3000000","amount":4}"#,
    ];
    let path = dir.text("tx.ndjson", lines.join("\n"));
    let plan = Plan::new(FileFormat::Ndjson, &[&path], fields(), "to_timestamp_micros(cast(card as bigint))")
        .derive("v.ratio", "8 / amount")
        .derive("v.whole", "12 / cast(amount as bigint)");
    let outcome = read(&plan);
    assert_eq!(outcome.column("_time"), ["1970-01-01T00:00:01Z", "1970-01-01T00:00:03Z"]);
    assert_eq!(
        (outcome.column("v.ratio"), outcome.column("v.whole")),
        (vec!["4.0".into(), "2.0".into()], vec!["6".into(), "3".into()])
    );
    let found: Vec<_> = outcome.dead.iter().map(|l| (l.kind.as_str(), l.offset)).collect();
    assert_eq!(found, [("expression", 1), ("expression", 2)]);
    assert!(outcome.dead[0].reason.starts_with("`event_time` failed"), "{}", outcome.dead[0].reason);
    assert!(outcome.dead[1].reason.starts_with("derived column `v.whole` failed"), "{}", outcome.dead[1].reason);

    let infinite = read(&Plan::new(FileFormat::Ndjson, &[&path], fields(), "ts").derive("v.ratio", "8 / amount"));
    assert_eq!(infinite.letters()[0].0, "not_finite");
    assert_eq!(infinite.dead[0].reason, "`v.ratio` is infinite");
}

#[test]
fn rules_say_what_they_refuse() {
    let dir = Dir::new();
    let plan = json(
        &dir,
        &[
            r#"{"id":0,"ts":1000,"card":"FR","amount":0}"#,
            r#"{"id":1,"ts":1000,"card":"FR","amount":-0.01}"#,
            r#"{"id":2,"ts":1000,"card":"FR","amount":100.5}"#,
            r#"{"id":3,"ts":1000,"card":"XX","amount":1}"#,
            r#"{"id":4,"ts":1000,"card":null,"amount":null}"#,
            r#"{"id":5,"ts":99000,"card":"FR","amount":NaN}"#,
            r#"{"id":8,"ts":1000,"card":"XX","amount":-1}"#,
            r#"{"id":10,"ts":1000,"card":"DE","amount":1}"#,
        ],
    )
    .rule("amount", |r| {
        r.min = Some(0.0);
        r.max = Some(100.0);
        r.required = true;
    })
    .rule("card", |r| r.allowed = Some(vec!["FR".into(), "DE".into()]))
    .rule("id", |r| r.max = Some(9.5));
    let outcome = read(&plan);
    assert_eq!(outcome.column("id"), ["0"]);
    let reasons: Vec<_> = outcome.dead.iter().map(|l| l.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "`amount` is -0.01, below 0",
            "`amount` is 100.5, above 100",
            "`card` is XX, which `in` does not list",
            "`amount` is required and null",
            "`amount` is required and null",
            "`amount` is -1.0, below 0",
            "`id` is 10, above 9",
        ]
    );
    assert!(outcome.dead.iter().all(|l| l.kind == DeadLetterKind::Invalid));
    assert_eq!(outcome.watermark, SECOND, "a refused row is not believed in its time");
}

#[test]
fn a_row_without_its_entity_is_nobodys() {
    let dir = Dir::new();
    let plan =
        json(&dir, &[r#"{"id":0,"ts":1000,"card":"a"}"#, r#"{"id":1,"ts":1000}"#, r#"{"id":2,"ts":1000,"card":""}"#]);
    let options = ReaderOptions { keys: vec![2], ..ReaderOptions::default() };
    let outcome = SourceReader::open(&plan.0, options).unwrap().read_all(10);
    assert_eq!(outcome.column("id"), ["0", "2"]);
    assert_eq!(outcome.letters(), [("no_entity", 1, r#"{"id":1,"ts":1000}"#.into())]);
    assert_eq!(outcome.dead[0].reason, "key `card` is null");
}

#[test]
fn duplicates_within_the_horizon_are_removed() {
    let dir = Dir::new();
    let lines: Vec<String> =
        [(1, 10), (2, 11), (1, 14), (1, 16), (2, 11), (1, 21)].iter().map(|(id, s)| line(*id, s * 1000, "1")).collect();
    let plan = json(&dir, &lines.iter().map(String::as_str).collect::<Vec<_>>()).disorder(60 * SECOND);
    let outcome = read(&plan.dedup("id", 5 * SECOND));
    assert_eq!(outcome.offsets(), [0, 1, 3]);
    assert_eq!(
        outcome.letters(),
        [("duplicate", 2, lines[2].clone()), ("duplicate", 4, lines[4].clone()), ("duplicate", 5, lines[5].clone())]
    );
    assert_eq!(outcome.dead[0].reason, "a row with the same id and event time 1970-01-01T00:00:10Z was kept");
}

#[test]
fn duplicates_over_files_are_removed_whatever_is_read_first() {
    let dir = Dir::new();
    let file = |name: &str, rows: &[(i64, i64)]| -> PathBuf {
        let lines: Vec<String> = rows.iter().map(|(id, s)| line(*id, s * 1000, "1")).collect();
        dir.text(name, lines.join("\n"))
    };
    // Aligned, the files are read a a b a b b …, by watermark.
    let a = file("a.ndjson", &[(1, 0), (2, 10), (3, 20), (9, 40)]);
    let b = file("b.ndjson", &[(4, 5), (3, 19), (1, 6), (2, 30)]);
    let plan = Plan::new(FileFormat::Ndjson, &[&a, &b], fields(), "ts").disorder(100 * SECOND).dedup("id", 15 * SECOND);
    let outcome = |first: usize, rows_max: usize| {
        let mut reader = plan.open().unwrap();
        let mut kept = [Vec::new(), Vec::new()];
        for partition in [first, 1 - first] {
            while let Some(decoded) = reader.read(partition, rows_max).unwrap() {
                let ids: &Int64Array = decoded.batch.column(2).as_any().downcast_ref().unwrap();
                kept[partition].extend(ids.values().iter().copied());
            }
        }
        kept
    };
    let expected = outcome(0, 100);
    assert_eq!(expected.iter().flatten().filter(|id| **id == 1).count(), 1);
    assert_eq!(expected.iter().flatten().filter(|id| **id == 3).count(), 1);
    assert_eq!(expected.iter().flatten().filter(|id| **id == 2).count(), 2);
    for rows_max in [1, 2, 3, 100] {
        assert_eq!(outcome(0, rows_max), expected);
        assert_eq!(outcome(1, rows_max), expected);
    }
}

#[test]
fn ids_that_cannot_be_compared_are_refused() {
    let dir = Dir::new();
    let error = json(&dir, &[]).dedup("amount", 1).open().err().unwrap().to_string();
    assert!(error.contains("`dedup` cannot compare ids of type Float64, as in `amount`"), "{error}");
}

#[test]
fn columns_without_bytes_are_told_as_json() {
    let dir = Dir::new();
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(5), Some(6), None, Some(7)]))),
        ("card", Arc::new(StringArray::from(vec![Some("a\"b"), None, Some("c"), Some("d")]))),
        ("amount", Arc::new(Float64Array::from(vec![f64::INFINITY, 1.0, 2.5, 3.0]))),
    ];
    let path = dir.parquet("tx.parquet", &RecordBatch::try_from_iter(columns).unwrap(), 2);
    let outcome = read(&Plan::new(FileFormat::Parquet, &[&path], fields(), "ts"));
    assert_eq!(outcome.column("id"), ["4"]);
    let ts = "1970-01-01T00:00:00.00000";
    assert_eq!(
        outcome.letters(),
        [
            ("not_finite", 0, format!(r#"{{"id":1,"ts":"{ts}5Z","card":"a\"b","amount":"Infinity"}}"#)),
            ("missing_field", 1, format!(r#"{{"id":null,"ts":"{ts}6Z","card":null,"amount":1.0}}"#)),
            ("no_event_time", 2, r#"{"id":3,"ts":null,"card":"c","amount":2.5}"#.into()),
        ]
    );
}

#[test]
fn resuming_a_text_file_goes_to_the_record() {
    let dir = Dir::new();
    let csv_plan = csv(&dir, &["id,ts,card", "1,1000,\"a\nb\"", "2,2000,", "", "4,3000,x"]);
    for (from, expected) in [(0, vec!["1", "2", "4"]), (1, vec!["2", "4"]), (2, vec!["4"]), (3, vec!["4"])] {
        let options = ReaderOptions { resume: Some(vec![from]), ..ReaderOptions::default() };
        assert_eq!(SourceReader::open(&csv_plan.0, options).unwrap().read_all(2).column("id"), expected);
    }
    let options = ReaderOptions { resume: Some(vec![0, 0]), ..ReaderOptions::default() };
    let error = SourceReader::open(&csv_plan.0, options).err().unwrap().to_string();
    assert!(error.contains("it had 2 partitions and now has 1"), "{error}");
}

//! `tidemill dataset` on the tables of whole jobs: what it finds is what a computation by hand finds, again and again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::{format_time, parse_time};
use tidemill::bench::labels::identity;
use tidemill::train::data::Column;
use tidemill::train::set;

use crate::support::rows::read_parquet;
use crate::support::{root, table_in};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const EVENTS: i64 = 400;

/// An event: its time, its card, its inputs.
fn event(id: i64) -> (i64, i64, f64, Option<f64>) {
    let start = parse_time("2026-01-01").expect("a time");
    let odd = 0.1 * id as f64 + 1e-9 / (id + 1) as f64;
    (start + id * 36 * 60_000_000, id % 7, odd, (id % 5 > 0).then_some(-odd / 3.0))
}

/// Label rows in the order of their times: early, late, corrected, withdrawn, doubled, and of nothing.
fn labels() -> Vec<(i64, i64, Option<f64>)> {
    let mut rows = Vec::new();
    for id in 0..EVENTS {
        let time = event(id).0;
        let truth = f64::from(u8::from(id % 3 == 0));
        if id % 17 == 5 {
            continue;
        }
        let first = time + DAY + (id % 5) * 6 * HOUR;
        rows.push((first, id, Some(truth)));
        if id % 7 == 0 {
            rows.push((time + 3 * DAY, id, Some(1.0 - truth)));
        }
        if id % 11 == 0 {
            rows.push((time + 4 * DAY, id, None));
        }
        if id % 13 == 0 {
            rows.push((first, id, Some(truth)));
        }
        if id % 19 == 0 {
            rows.push((time + DAY, 10_000 + id, Some(1.0)));
        }
    }
    rows.sort_by_key(|row| row.0);
    rows
}

/// A job over files with a model that gives out what it is given, run by the program.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Bed {
        let bed = Bed { dir: TempDir::new().expect("a folder") };
        let time = r#"{"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#;
        let record = |fields: &str| {
            format!(
                r#"{{"type": "record", "name": "r", "fields": [{{"name": "id", "type": "long"}}, {time}, {fields}]}}"#
            )
        };
        bed.write(
            "event.avsc",
            &record(r#"{"name": "card", "type": "long"}, {"name": "s0", "type": "double"}, {"name": "s1", "type": ["null", "double"]}"#),
        );
        bed.write("label.avsc", &record(r#"{"name": "truth", "type": ["null", "double"]}"#));
        let mut text = String::from("id,at,card,s0,s1\n");
        for id in 0..EVENTS {
            let (time, card, s0, s1) = event(id);
            let s1 = s1.map(|s1| s1.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{id},{},{card},{s0},{s1}", format_time(time));
        }
        bed.write("events.csv", &text);
        let mut text = String::from("id,at,truth\n");
        for (time, id, value) in labels() {
            let value = value.map(|value| value.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{id},{},{value}", format_time(time));
        }
        bed.write("labels.csv", &text);
        fs::write(bed.path("model.onnx"), identity(3)).expect("a model");
        let at = |name: &str| bed.path(name).display().to_string();
        let job = format!(
            "job: sets\nversion: 1\ntick: {{rows: 50}}\ncheckpoint: {{rows: 100}}\nsources:\n  \
             tx: {{file: {{path: '{}'}}, schema: '{}', id: id, event_time: at, disorder: 0s}}\n  \
             known: {{file: {{path: '{}'}}, schema: '{}', event_time: at, disorder: 0s}}\n\
             features:\n  card: {{from: tx, entity: [card], ttl: 1d, aggregates: {{total: {{sum: s0, over: 2d}}}}}}\n\
             feature_sets:\n  inputs: {{on: tx, take: [s0, s1, card.*]}}\n\
             models:\n  m: {{versions: {{champion: '{}'}}, inputs: inputs, outputs: {{p: 'y[0]'}}}}\n\
             labels:\n  m: {{from: known, prediction: id, value: truth, within: 30d}}\n\
             sinks:\n  offline: {{delta: {{uri: \"${{LAKE}}\"}}}}\n",
            at("events.csv"),
            at("event.avsc"),
            at("labels.csv"),
            at("label.avsc"),
            at("model.onnx"),
        );
        bed.write("job.yaml", &job);
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Runs a command of the program on the job; its exit code, what it printed and what it said.
    fn command(&self, name: &str, more: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg(name).arg(self.path("job.yaml")).args(more).current_dir(root());
        command.env("LAKE", self.path("lake")).env_remove("TIDEMILL_LOG").stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }

    fn well(&self, name: &str, more: &[&str]) -> String {
        let (code, out, err) = self.command(name, more);
        assert_eq!(code, 0, "{name} {more:?}: {err}");
        out
    }

    fn run(&self, state: &str) {
        self.well("run", &["--until-end", "--workers", "2", "--state", &self.text(state)]);
    }

    /// Makes a set; what the program says of it.
    fn set(&self, out: &str, more: &[&str]) -> Value {
        let out = self.text(out);
        let args: Vec<&str> = ["--json", "--out", &out].into_iter().chain(more.iter().copied()).collect();
        let printed: Value = serde_json::from_str(&self.well("dataset", &args)).expect("json");
        printed["set"].clone()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file")
    }
}

fn floats(batch: &RecordBatch, name: &str) -> Vec<Option<u64>> {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    column.as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)).collect()
}

fn integers(batch: &RecordBatch, name: &str) -> Vec<i64> {
    batch
        .column_by_name(name)
        .unwrap_or_else(|| panic!("no column {name}"))
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn times(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    column.as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

/// The rows of a set by hand: id, time, label, when it was known.
fn expected(from: i64, cut_off: i64, delay: i64) -> Vec<(i64, i64, f64, i64)> {
    let mut rows = Vec::new();
    for id in 0..EVENTS {
        let time = event(id).0;
        if time < from || time + delay > cut_off {
            continue;
        }
        // The last that was known: rows of one time are in the order of their coming.
        let known = labels().into_iter().rfind(|(at, of, _)| *of == id && *at <= cut_off);
        if let Some((at, _, Some(value))) = known {
            rows.push((id, time, value, at));
        }
    }
    rows
}

fn found(set: &RecordBatch) -> Vec<(i64, i64, f64, i64)> {
    let (ids, at, known) = (integers(set, "id"), times(set, "event_time"), times(set, "known_at"));
    let labels = set.column_by_name("label").expect("labels").as_primitive::<Float64Type>().values().to_vec();
    (0..set.num_rows()).map(|i| (ids[i], at[i], labels[i], known[i])).collect()
}

#[test]
fn a_set_of_a_job_holds_what_was_known_and_can_be_made_again() {
    let bed = Bed::new();
    bed.run("state");
    let lake = bed.path("lake");

    // Every label row as it arrived.
    let kept = table_in(&lake, "labels/m", None);
    let mut rows: Vec<_> = (0..kept.num_rows())
        .map(|i| {
            (
                times(&kept, "known_at")[i],
                integers(&kept, "_offset")[i],
                integers(&kept, "id")[i],
                floats(&kept, "value")[i],
            )
        })
        .collect();
    rows.sort_unstable();
    let arrived: Vec<_> =
        labels().into_iter().zip(0..).map(|((at, id, v), n)| (at, n, id, v.map(f64::to_bits))).collect();
    assert_eq!(rows, arrived);
    assert_eq!(times(&kept, "known_at"), times(&kept, "event_time"));
    assert!(integers(&kept, "_tick").iter().max() > integers(&kept, "_tick").iter().min());
    // A replay makes the same of them.
    let report: Value =
        serde_json::from_str(&bed.well("prove", &["--json", "--state", &bed.text("state")])).expect("json");
    let proven = report["runs"][0]["tables"].as_array().expect("tables");
    let proven = proven.iter().find(|table| table["table"] == "labels/m").expect("the table is proven");
    assert_eq!(proven["rows"].as_u64(), Some(labels().len() as u64));
    assert!(bed.well("check", &[]).contains("table labels/m: id, value, known_at"));

    // All rows, a cut-off in the middle, a window; each against a computation by hand.
    let start = event(0).0;
    let end = labels().last().expect("labels").0;
    let middle = start + 5 * DAY + 7 * HOUR;
    let (text, from) = (format_time(middle), format_time(start + 2 * DAY));
    let whole = bed.set("whole.parquet", &[]);
    assert_eq!(found(&read_parquet(&bed.path("whole.parquet"))), expected(i64::MIN, end, 0));
    assert_eq!(whole["query"]["labelled"]["window"]["to"], format_time(end));
    let cut = bed.set("cut.parquet", &["--model", "m", "--to", &text, "--label-delay", "2d"]);
    let by_hand = expected(i64::MIN, middle, 2 * DAY);
    assert_eq!(found(&read_parquet(&bed.path("cut.parquet"))), by_hand);
    assert!(by_hand.len() > 80 && by_hand.len() < 130, "{}", by_hand.len());
    let later = labels().iter().filter(|row| row.0 > middle).count() as u64;
    assert_eq!(cut["counts"]["not_known_yet"].as_u64(), Some(later));
    // What was true at the cut-off is not what is true now.
    let now: BTreeMap<i64, f64> = expected(i64::MIN, end, 0).into_iter().map(|row| (row.0, row.2)).collect();
    assert!(by_hand.iter().any(|row| now.get(&row.0).is_some_and(|label| *label != row.2)));
    assert!(by_hand.iter().any(|row| !now.contains_key(&row.0)));
    bed.set("window.parquet", &["--from", &from, "--to", &text]);
    assert_eq!(found(&read_parquet(&bed.path("window.parquet"))), expected(start + 2 * DAY, middle, 0));
    bed.set("last.parquet", &["--last", "3d", "--to", &text, "--label-delay", "1d"]);
    assert_eq!(found(&read_parquet(&bed.path("last.parquet"))), expected(middle - 4 * DAY + 1, middle, DAY));

    // The features are those that were logged, to the bit.
    let set = read_parquet(&bed.path("cut.parquet"));
    let logged = table_in(&lake, "feature_sets/inputs", None);
    let place: BTreeMap<i64, usize> = integers(&logged, "id").into_iter().zip(0..).collect();
    for name in ["s0", "s1", "card__total_2d"] {
        let (of, all) = (floats(&set, name), floats(&logged, name));
        for (row, id) in integers(&set, "id").into_iter().enumerate() {
            assert_eq!(of[row], all[place[&id]], "{name} of {id}");
        }
    }
    assert_eq!(floats(&set, "s1")[0], event(by_hand[0].0).3.map(f64::to_bits));
    assert_eq!(integers(&set, "card"), by_hand.iter().map(|row| row.0 % 7).collect::<Vec<_>>());

    // In memory, as learners have it.
    let learned = set::read(&bed.path("cut.parquet"), None).expect("a set");
    assert_eq!(learned.inputs.names, ["s0", "s1", "card__total_2d"]);
    assert_eq!(learned.labels, by_hand.iter().map(|row| row.2).collect::<Vec<_>>());
    assert_eq!(learned.times, by_hand.iter().map(|row| row.1).collect::<Vec<_>>());
    assert_eq!(learned.known, by_hand.iter().map(|row| row.3).collect::<Vec<_>>());
    let Column::Number(s1) = &learned.inputs.columns[1] else { panic!("numbers") };
    for (value, row) in s1.iter().zip(&by_hand) {
        assert!(event(row.0).3.map_or(value.is_nan(), |s1| (s1 as f32).to_bits() == value.to_bits()));
    }
    assert_eq!(learned.extra[0].0, "card");
    assert_eq!(learned.extra[0].1[3], (by_hand[3].0 % 7).to_string());

    // More rows come, files are merged: by version, by time and by its manifest the set is what it was.
    let first = bed.bytes("cut.parquet");
    let tables = cut["tables"].as_array().expect("tables");
    let versions: Vec<String> =
        tables.iter().map(|t| format!("{}={}", t["table"].as_str().expect("a name"), t["version"])).collect();
    let committed = tables.iter().filter_map(|t| t["committed"].as_str()).max().expect("a time").to_owned();
    std::thread::sleep(std::time::Duration::from_millis(20));
    bed.run("another_state");
    bed.well("maintain", &["--vacuum-older-than", "7d"]);
    let window = ["--to", &text, "--label-delay", "2d", "--at"];
    let with = |at: &str| -> Vec<String> { window.iter().copied().chain([at]).map(str::to_owned).collect() };
    for (name, at) in [("by_version.parquet", versions.join(",")), ("by_time.parquet", committed)] {
        let args = with(&at);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let again = bed.set(name, &args);
        assert_eq!(again["tables"], cut["tables"], "{name}");
        assert!(bed.bytes(name) == first, "{name}");
    }
    let again = bed.set("again.parquet", &["--again", &bed.text("cut.json"), "--memory", "20000"]);
    assert_eq!(again, cut);
    assert!(bed.bytes("again.parquet") == first && bed.bytes("again.json") == bed.bytes("cut.json"));
    // Now every row is there twice, written by two runs: still one for each prediction.
    let newest = bed.set("newest.parquet", &["--to", &text, "--label-delay", "2d"]);
    assert_ne!(newest["tables"], cut["tables"]);
    assert_eq!(found(&read_parquet(&bed.path("newest.parquet"))), by_hand);

    // A manifest that does not fit is found out.
    let altered = fs::read_to_string(bed.path("cut.json"))
        .expect("a manifest")
        .replace("\"label_delay\": \"2d\"", "\"label_delay\": \"1d\"");
    bed.write("altered.json", &altered);
    let (code, _, err) =
        bed.command("dataset", &["--again", &bed.text("altered.json"), "--out", &bed.text("x.parquet")]);
    assert!(code == 1 && err.contains("is not what the manifest says"), "{code} {err}");
}

#[test]
fn entities_of_a_job_have_what_its_views_held() {
    let bed = Bed::new();
    bed.run("state");
    let start = event(0).0;
    // At the events' own times, a little before, a day and more after, and of cards that nobody has seen.
    let mut probes: Vec<(i64, i64)> = Vec::new();
    for id in (0..EVENTS).step_by(3) {
        let (time, card, ..) = event(id);
        probes.extend([(time, card), (time - 1, card), (time + 5 * HOUR, card), (time, card + 7)]);
    }
    probes.push((start + 30 * DAY, 1));
    let rows = RecordBatch::try_from_iter([
        ("card", Arc::new(Int64Array::from_iter_values(probes.iter().map(|p| p.1))) as ArrayRef),
        ("asked_at", Arc::new(TimestampMicrosecondArray::from_iter_values(probes.iter().map(|p| p.0)))),
        ("number", Arc::new(Int64Array::from_iter_values(0..probes.len() as i64))),
    ])
    .expect("columns");
    let file = fs::File::create(bed.path("entities.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("rows");
    writer.close().expect("a file");

    bed.set("out.parquet", &["--entities", &bed.text("entities.parquet")]);
    let set = read_parquet(&bed.path("out.parquet"));
    let view = table_in(&bed.path("lake"), "features/card", None);
    let (cards, at, total) = (integers(&view, "card"), times(&view, "event_time"), floats(&view, "total_2d"));
    let by_hand = |(time, card): (i64, i64)| {
        let rows = (0..view.num_rows()).filter(|&i| cards[i] == card && at[i] <= time && time - at[i] <= DAY);
        rows.max_by_key(|&i| at[i]).and_then(|i| total[i])
    };
    let numbers = integers(&set, "number");
    let expected: Vec<_> = numbers.iter().map(|&n| by_hand(probes[n as usize])).collect();
    assert_eq!(floats(&set, "card__total_2d"), expected);
    assert!(
        expected.iter().filter(|v| v.is_none()).count() > 100 && expected.iter().filter(|v| v.is_some()).count() > 300
    );
    let mut order: Vec<i64> = (0..probes.len() as i64).collect();
    order.sort_by_key(|&n| (probes[n as usize].0, n));
    assert_eq!(numbers, order);
    // A view by its name is the same columns.
    bed.set("view.parquet", &["--entities", &bed.text("entities.parquet"), "--view", "card"]);
    assert!(bed.bytes("view.parquet") == bed.bytes("out.parquet"));
    // There are no labels to learn from, unless a column is one.
    let error = set::read(&bed.path("out.parquet"), None).expect_err("no labels").to_string();
    assert!(error.contains("there are no labels"), "{error}");
    let learned = set::read(&bed.path("out.parquet"), Some("number")).expect("a set");
    assert_eq!((learned.rows(), learned.inputs.names), (probes.len(), vec!["card__total_2d".to_owned()]));
}

#[test]
fn what_cannot_be_made_is_said_in_words() {
    let bed = Bed::new();
    let out = bed.text("out.parquet");
    let refused = |more: &[&str], code: i32, words: &str| {
        let args: Vec<&str> = ["--out", &out].into_iter().chain(more.iter().copied()).collect();
        let (ended, printed, said) = bed.command("dataset", &args);
        assert_eq!((ended, printed.as_str()), (code, ""), "{more:?}: {said}");
        assert!(said.contains(words), "{more:?}: {said}");
        assert!(!bed.path("out.parquet").exists() && !bed.path("out.json").exists());
    };
    refused(&[], 1, "there is no delta table in");
    bed.run("state");
    refused(&["--model", "nix"], 2, "the job has no model `nix`; it has m");
    refused(&["--at", "9999"], 2, "has no version 9999; its newest is");
    refused(&["--at", "labels/m=1"], 2, "no version is given for table feature_sets/inputs; given are labels/m=1");
    refused(&["--at", "soon"], 2, "names no version");
    refused(&["--to", "2020-01-01", "--from", "2021-01-01"], 2, "no event is at or after 2021-01-01");
    refused(&["--last", "7 days"], 2, "is not a duration");
    refused(&["--last", "1d", "--from", "2021-01-01"], 2, "cannot be used with");
    refused(&["--entities", &bed.text("none.parquet")], 1, "none.parquet");
    refused(&["--entities", &bed.text("events.csv")], 1, "events.csv");
    refused(&["--entities", &bed.text("events.csv"), "--view", "nix"], 2, "no feature view `nix`; it has card");
    refused(&["--again", &bed.text("events.csv")], 2, "is no manifest of a set");
    refused(&["--set", "sinks.offline.tables=[predictions/m]"], 2, "does not keep table labels/m");
    let beside = bed.text("out.json");
    let (code, _, err) = bed.command("dataset", &["--out", &beside]);
    assert!(code == 2 && err.contains("name the output"), "{err}");
    // A window without rows is a set without rows, which says so.
    let empty = bed.set("empty.parquet", &["--to", "2026-01-01T00:00:01Z"]);
    assert_eq!(empty["rows"], 0);
    assert_eq!(read_parquet(&bed.path("empty.parquet")).num_rows(), 0);
}

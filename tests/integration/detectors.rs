//! Change detectors on streams with known changes: the table of the data's README, and each finding of River's.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use tidemill::monitor::detect::Detector;
use tidemill::plan::model::DetectorPlan;

use crate::support::rows::{ids, read_parquet};
use crate::support::{golden_data, root};

/// An alarm up to this long after a change has ended counts for it.
const REACH: i64 = 4_000;

/// Kind, changes, found, mean delay in steps, false alarms; with River 0.26.1's defaults, from the data's README.
type Row = (&'static str, usize, usize, Option<i64>, usize);
const ADWIN: [Row; 8] = [
    ("abrupt_down", 10, 10, Some(272), 0),
    ("abrupt_up", 10, 10, Some(353), 0),
    ("abrupt_up_large", 10, 10, Some(125), 0),
    ("abrupt_up_small", 10, 10, Some(1221), 0),
    ("gradual_2000", 10, 10, Some(1051), 0),
    ("gradual_5000", 10, 10, Some(1844), 0),
    ("stationary", 0, 0, None, 0),
    ("two_changes", 20, 20, Some(387), 0),
];
const DDM: [Row; 8] = [
    ("abrupt_down", 10, 0, None, 5),
    ("abrupt_up", 10, 6, Some(640), 5),
    ("abrupt_up_large", 10, 9, Some(645), 5),
    ("abrupt_up_small", 10, 6, Some(2117), 6),
    ("gradual_2000", 10, 9, Some(1820), 2),
    ("gradual_5000", 10, 9, Some(3466), 10),
    ("stationary", 0, 0, None, 2),
    ("two_changes", 20, 7, Some(989), 2),
];
const PAGE_HINKLEY: [Row; 8] = [
    ("abrupt_down", 10, 10, Some(233), 5),
    ("abrupt_up", 10, 10, Some(317), 4),
    ("abrupt_up_large", 10, 10, Some(156), 8),
    ("abrupt_up_small", 10, 10, Some(927), 7),
    ("gradual_2000", 10, 10, Some(757), 4),
    ("gradual_5000", 10, 10, Some(1293), 3),
    ("stationary", 0, 0, None, 9),
    ("two_changes", 20, 20, Some(331), 3),
];

struct Stream {
    kind: String,
    errors: Vec<f64>,
    /// Where each begins and ends.
    changes: Vec<(i64, i64)>,
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<String> {
    let column = cast(batch.column_by_name(name).expect("a column"), &DataType::Utf8).expect("texts");
    column.as_string::<i32>().iter().map(|text| text.expect("a text").to_owned()).collect()
}

/// The streams by their numbers.
fn streams(rows: &RecordBatch, changes: &RecordBatch) -> BTreeMap<i64, Stream> {
    let mut streams: BTreeMap<i64, Stream> = BTreeMap::new();
    let errors = cast(rows.column_by_name("error").expect("a column"), &DataType::Int64).expect("numbers");
    let errors = errors.as_primitive::<Int64Type>().values();
    for ((number, kind), error) in ids(rows, "stream").into_iter().zip(texts(rows, "kind")).zip(errors) {
        let new = || Stream { kind, errors: Vec::new(), changes: Vec::new() };
        streams.entry(number).or_insert_with(new).errors.push(*error as f64);
    }
    let known = arrow::compute::is_not_null(changes.column_by_name("change_start").expect("a column")).expect("a mask");
    let changes = filter_record_batch(changes, &known).expect("rows");
    let spans = ids(&changes, "change_start").into_iter().zip(ids(&changes, "change_end"));
    for (number, span) in ids(&changes, "stream").into_iter().zip(spans) {
        streams.get_mut(&number).expect("a stream").changes.push(span);
    }
    streams
}

fn alarms(name: &str, errors: &[f64]) -> Vec<i64> {
    let mut detector = Detector::new(&DetectorPlan::named(name).expect("a detector"));
    let found = errors.iter().enumerate().filter(|(_, error)| detector.update(**error).is_some_and(|f| f.change));
    found.map(|(at, _)| at as i64).collect()
}

/// Changes, found ones, sum of their delays, false alarms.
fn score(stream: &Stream, alarms: &[i64]) -> (usize, usize, i64, usize) {
    let (mut found, mut delays, mut counted) = (0, 0, 0);
    for (i, (start, end)) in stream.changes.iter().enumerate() {
        let next = stream.changes.get(i + 1).map_or(i64::MAX, |next| next.0);
        let near: Vec<i64> = alarms.iter().copied().filter(|a| (*start..next.min(end + REACH)).contains(a)).collect();
        counted += near.len();
        if let Some(first) = near.first() {
            found += 1;
            delays += first - start;
        }
    }
    (stream.changes.len(), found, delays, alarms.len() - counted)
}

#[test]
fn changes_are_found_as_the_reference_finds_them() {
    let Some(data) = golden_data("drift_known") else { return };
    let rows = read_parquet(&data.join("error_streams.parquet"));
    let streams = streams(&rows, &read_parquet(&data.join("error_streams_changes.parquet")));
    assert_eq!(streams.len(), 80);
    let golden = std::fs::read_to_string(root().join("tests/golden/stats/detect.json")).expect("a committed file");
    let golden: Value = serde_json::from_str(&golden).expect("JSON");
    for (name, table) in [("adwin", ADWIN), ("ddm", DDM), ("page_hinkley", PAGE_HINKLEY)] {
        let mut kinds: BTreeMap<&str, (usize, usize, i64, usize)> = BTreeMap::new();
        for river in golden["drift_known"].as_array().expect("streams") {
            let stream = &streams[&river["stream"].as_i64().expect("a number")];
            let alarms = alarms(name, &stream.errors);
            let expected: Vec<i64> = river[name].as_array().expect("alarms").iter().filter_map(Value::as_i64).collect();
            assert_eq!(alarms, expected, "{name} on stream {}", river["stream"]);
            let (changes, found, delays, wrong) = score(stream, &alarms);
            let sum = kinds.entry(&stream.kind).or_default();
            *sum = (sum.0 + changes, sum.1 + found, sum.2 + delays, sum.3 + wrong);
        }
        let mean =
            |found: usize, delays: i64| (found > 0).then(|| (delays as f64 / found as f64).round_ties_even() as i64);
        let found: Vec<_> = kinds.into_iter().map(|(kind, (n, f, d, w))| (kind, n, f, mean(f, d), w)).collect();
        assert_eq!(found, table, "{name}");
    }
}

//! Statistics of predictions and labels, from jobs whose model gives out the scores that it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tidemill::base::{FAILPOINTS, format_time};
use tidemill::bench::labels;
use tidemill::store::offline::{TableReader, table_path};

use crate::support::{Job, golden_data, root, table_in};

const HOUR: i64 = 3_600_000_000;

/// A row of `stats/accuracy`.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    segment: String,
    window: i64,
    subject: String,
    metric: String,
    value: Option<f64>,
    rows: i64,
    revision: i32,
    as_of: i64,
    complete: bool,
}

fn told(table: &RecordBatch) -> Vec<Told> {
    let column = |name: &str| table.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")).clone();
    let text = |name: &str| -> Vec<String> {
        column(name).as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
    };
    let time = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let (segments, subjects, metrics) = (text("segment"), text("subject"), text("metric"));
    let (windows, as_of) = (time("window_start"), time("as_of"));
    let values: Vec<Option<f64>> = column("value").as_primitive::<Float64Type>().iter().collect();
    let rows = column("rows").as_primitive::<Int64Type>().values().to_vec();
    let revisions = column("revision").as_primitive::<Int32Type>().values().to_vec();
    let complete = column("complete");
    let complete = complete.as_boolean();
    let mut told: Vec<Told> = (0..table.num_rows())
        .map(|i| Told {
            segment: segments[i].clone(),
            window: windows[i],
            subject: subjects[i].clone(),
            metric: metrics[i].clone(),
            value: values[i],
            rows: rows[i],
            revision: revisions[i],
            as_of: as_of[i],
            complete: complete.value(i),
        })
        .collect();
    let key = |t: &Told| (t.segment.clone(), t.window, t.metric.clone(), t.subject.clone(), t.revision);
    told.sort_by_key(key);
    let unique: BTreeSet<_> = told.iter().map(key).collect();
    assert_eq!(unique.len(), told.len(), "a revision is told once");
    told
}

/// What is known at the end: of each statistic the last revision.
fn last(told: &[Told]) -> BTreeMap<(String, i64, String, String), Told> {
    told.iter().map(|t| ((t.segment.clone(), t.window, t.metric.clone(), t.subject.clone()), t.clone())).collect()
}

/// A folder with a model, events with scores, labels and the job that brings them together.
struct Bed {
    dir: TempDir,
}

struct Event {
    id: i64,
    time: i64,
    card: i64,
    kind: &'static str,
    scores: Vec<f64>,
}

struct Label {
    id: i64,
    time: i64,
    value: Option<f64>,
}

impl Bed {
    fn new(events: &[Event], labels: &[Label], within: &str, monitor: &str) -> Bed {
        let bed = Bed { dir: TempDir::new().expect("a folder") };
        let width = events[0].scores.len();
        let scores: Vec<String> = (0..width).map(|i| format!("s{i}")).collect();
        let fields: Vec<String> = scores.iter().map(|s| format!(r#"{{"name": "{s}", "type": "double"}}"#)).collect();
        let time = r#"{"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}"#;
        bed.write(
            "event.avsc",
            format!(
                r#"{{"type": "record", "name": "e", "fields": [{{"name": "id", "type": "long"}}, {time},
                {{"name": "card", "type": "int"}}, {{"name": "kind", "type": "string"}}, {}]}}"#,
                fields.join(", ")
            ),
        );
        bed.write(
            "label.avsc",
            format!(
                r#"{{"type": "record", "name": "l", "fields": [{{"name": "id", "type": "long"}}, {time},
                {{"name": "truth", "type": ["null", "double"]}}]}}"#
            ),
        );
        let mut text = format!("id,at,card,kind,{}\n", scores.join(","));
        for e in events {
            let scores: Vec<String> = e.scores.iter().map(f64::to_string).collect();
            let _ = writeln!(text, "{},{},{},{},{}", e.id, format_time(e.time), e.card, e.kind, scores.join(","));
        }
        bed.write("events.csv", text);
        let mut text = String::from("id,at,truth\n");
        for l in labels {
            let value = l.value.map(|value| value.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{},{},{value}", l.id, format_time(l.time));
        }
        bed.write("labels.csv", text);
        fs::write(bed.path("model.onnx"), labels::identity(width as u8)).expect("a model");
        let outputs: Vec<String> = (0..width).map(|i| format!("p{i}: 'y[{i}]'")).collect();
        bed.write(
            "job.yaml",
            format!(
                "job: accuracy\nversion: 1\nsources:\n  tx: {{file: {{path: '{}'}}, schema: '{}', id: id, event_time: at, \
                 disorder: 0s}}\n  known: {{file: {{path: '{}'}}, schema: '{}', event_time: at, disorder: 0s}}\n\
                 feature_sets:\n  inputs: {{on: tx, take: [{}]}}\nmodels:\n  m: {{versions: {{champion: '{}'}}, \
                 inputs: inputs, outputs: {{{}}}}}\nlabels:\n  m: {{from: known, prediction: id, value: truth, within: {within}}}\n\
                 monitors:\n  m: {{{monitor}}}\nsinks:\n  offline: {{delta: {{uri: \"${{LAKE}}\"}}}}\n",
                bed.path("events.csv").display(),
                bed.path("event.avsc").display(),
                bed.path("labels.csv").display(),
                bed.path("label.avsc").display(),
                scores.join(", "),
                bed.path("model.onnx").display(),
                outputs.join(", "),
            ),
        );
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: String) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn run(&self, workers: usize, tick: usize) -> Vec<Told> {
        let job = Job::new(self.path("job.yaml")).workers(workers).set("tick.rows", &tick.to_string());
        told(&job.run().table("stats/accuracy", None))
    }
}

fn parquet(path: &Path) -> Vec<RecordBatch> {
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    reader.expect("a Parquet file").map(|batch| batch.expect("rows")).collect()
}

/// A column of all batches as floats or whole numbers, whichever holds them exactly.
fn numbers(batches: &[RecordBatch], name: &str, as_type: &DataType) -> Vec<RecordBatch> {
    let one = |batch: &RecordBatch| {
        let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        RecordBatch::try_from_iter([(name, cast(column, as_type).expect("numbers"))]).expect("a column")
    };
    batches.iter().map(one).collect()
}

fn floats(batches: &[RecordBatch], name: &str) -> Vec<f64> {
    let columns = numbers(batches, name, &DataType::Float64);
    columns.iter().flat_map(|b| b.column(0).as_primitive::<Float64Type>().values().to_vec()).collect()
}

fn integers(batches: &[RecordBatch], name: &str) -> Vec<i64> {
    let columns = numbers(batches, name, &DataType::Int64);
    columns.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn the_handbooks_figures_come_out_of_the_stream() {
    let Some(data) = golden_data("fraud") else { return };
    let (scores, all) = (parquet(&data.join("reference_scores.parquet")), parquet(&data.join("transactions.parquet")));
    let score_of: BTreeMap<i64, f64> =
        integers(&scores, "TRANSACTION_ID").into_iter().zip(floats(&scores, "score_lr")).collect();
    let ids = integers(&all, "TRANSACTION_ID");
    let (seconds, cards, frauds) =
        (integers(&all, "TX_TIME_SECONDS"), integers(&all, "CUSTOMER_ID"), integers(&all, "TX_FRAUD"));
    // 2018-04-01.
    let start = 1_522_540_800;
    let (mut events, mut labels) = (Vec::new(), Vec::new());
    for (i, id) in ids.into_iter().enumerate() {
        let Some(score) = score_of.get(&id) else { continue };
        let time = (start + seconds[i]) * 1_000_000;
        events.push(Event { id, time, card: cards[i], kind: "tx", scores: vec![*score] });
        labels.push(Label { id, time: time + 7 * 24 * HOUR, value: Some(frauds[i] as f64) });
    }
    assert_eq!(events.len(), 58_264);
    let card = "task: binary, card_precision: {by: card, k: 100, exclude_found: 7d}";
    let by_day = Bed::new(&events, &labels, "30d", card).run(2, 10_000);
    let found: Vec<f64> =
        last(&by_day).into_values().filter(|t| t.metric == "card_precision").filter_map(|t| t.value).collect();
    assert_eq!(found.len(), 7);
    let mean = found.iter().sum::<f64>() / 7.0;
    assert!((mean - 0.2914).abs() < 5e-5, "card precision at 100: {mean}");
    // Windows begin at multiples of their length since 1970-01-01; the first of the seven days is 17,751, a multiple of 61.
    let bed = Bed::new(
        &events,
        &labels,
        "30d",
        "task: binary, window: 61d, refresh: 61d, accuracy: [auc, average_precision]",
    );
    let whole = last(&bed.run(3, 50_000));
    let value = |metric: &str| -> f64 {
        let found: Vec<&Told> = whole.values().filter(|t| t.metric == metric).collect();
        assert_eq!(found.len(), 1, "{metric} of one window: {found:?}");
        assert!(found[0].complete && found[0].rows == 58_264, "{found:?}");
        found[0].value.expect("a value")
    };
    let (auc, average_precision) = (value("auc"), value("average_precision"));
    println!("streamed: AUC {auc:.6}, average precision {average_precision:.6}, card precision at 100 {mean:.6}");
    assert!((auc - 0.8703).abs() < 5e-5, "{auc}");
    assert!((average_precision - 0.6055).abs() < 5e-5, "{average_precision}");
}

/// What is told of one window and segment by the definition: at each boundary from the window's end on, what is known.
struct Twin<'a> {
    events: &'a [Event],
    labels: &'a [Label],
    window: i64,
    refresh: i64,
    within: i64,
}

impl Twin<'_> {
    fn boundary(&self, time: i64) -> i64 {
        time + (self.refresh - time.rem_euclid(self.refresh)) % self.refresh
    }

    /// Metric and value, of what is known at a boundary.
    fn known(&self, start: i64, kind: Option<&str>, boundary: i64) -> Vec<(&'static str, Option<f64>, i64)> {
        let mine = self
            .events
            .iter()
            .filter(|e| (start..start + self.window).contains(&e.time) && kind.is_none_or(|kind| e.kind == kind));
        let (mut predictions, mut matched) = (0, Vec::new());
        for event in mine {
            predictions += 1;
            let known = self
                .labels
                .iter()
                .filter(|l| l.id == event.id && (l.time - event.time).abs() <= self.within && l.time <= boundary);
            // Of equal times the one that stands further down in the file.
            if let Some(Label { value: Some(value), .. }) = known.max_by_key(|l| l.time) {
                matched.push((event.scores[0], *value > 0.0));
            }
        }
        let count = matched.len() as f64;
        let mut told = vec![
            ("predictions", Some(f64::from(predictions)), i64::from(predictions)),
            ("unmatched", Some(f64::from(predictions) - count), i64::from(predictions)),
        ];
        if !matched.is_empty() {
            let right = matched.iter().filter(|(score, positive)| (*score >= 0.5) == *positive).count() as f64;
            told.push(("accuracy", Some(right / count), matched.len() as i64));
            let of = |positive: bool| matched.iter().filter(move |m| m.1 == positive).map(|m| m.0);
            let pairs = of(true).flat_map(|p| of(false).map(move |n| (p, n)));
            let (mut halves, mut all) = (0u32, 0u32);
            pairs.for_each(|(p, n)| {
                all += 2;
                halves += if p > n { 2 } else { u32::from(p == n) };
            });
            told.push(("auc", (all > 0).then(|| f64::from(halves) / f64::from(all)), matched.len() as i64));
        }
        told
    }

    fn told(&self, kinds: &[&str]) -> Vec<Told> {
        let mut told = Vec::new();
        let starts: BTreeSet<i64> = self.events.iter().map(|e| e.time - e.time.rem_euclid(self.window)).collect();
        for start in starts {
            let complete = self.boundary(start + self.window - 1 + self.within);
            for kind in std::iter::once(None).chain(kinds.iter().map(|kind| Some(*kind))) {
                let mut before: BTreeMap<&str, (Option<f64>, i64, i32)> = BTreeMap::new();
                let mut boundary = start + self.window;
                while boundary <= complete {
                    let mut known = self.known(start, kind, boundary);
                    if known[0].2 == 0 {
                        break;
                    }
                    for metric in
                        before.keys().filter(|m| known.iter().all(|k| k.0 != **m)).copied().collect::<Vec<_>>()
                    {
                        known.push((metric, None, 0));
                    }
                    for (metric, value, rows) in known {
                        let last = before.get(metric).copied();
                        if boundary < complete && last.is_some_and(|last| (last.0, last.1) == (value, rows)) {
                            continue;
                        }
                        let revision = last.map_or(0, |last| last.2) + 1;
                        before.insert(metric, (value, rows, revision));
                        told.push(Told {
                            segment: kind.map(|kind| format!("kind={kind}")).unwrap_or_default(),
                            window: start,
                            subject: String::new(),
                            metric: metric.to_owned(),
                            value,
                            rows,
                            revision,
                            as_of: boundary,
                            complete: boundary == complete,
                        });
                    }
                    boundary += self.refresh;
                }
            }
        }
        told.sort_by_key(|t| (t.segment.clone(), t.window, t.metric.clone(), t.subject.clone(), t.revision));
        told
    }
}

/// Events of four days, and labels that come early, late, twice, corrected, withdrawn, and too late.
fn traffic() -> (Vec<Event>, Vec<Label>) {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut events, mut labels) = (Vec::new(), Vec::new());
    let start = 1_767_225_600_000_000;
    for id in 0..300 {
        let time = start + random(96 * 60) as i64 * 60_000_000;
        let score = random(100) as f64 / 100.0;
        events.push(Event {
            id,
            time,
            card: random(20) as i64,
            kind: ["a", "b", "c"][random(3) as usize],
            scores: vec![score],
        });
        for _ in 0..[0, 1, 1, 1, 2, 3][random(6) as usize] {
            let value = [Some(1.0), Some(0.0), Some(0.0), None][random(4) as usize];
            // No two labels of an id have one time: files are read by time.
            labels.push(Label { id, time: time + random(80 * 3_600) as i64 * 1_000_000 - 4 * HOUR + id, value });
        }
    }
    events.sort_by_key(|e| e.time);
    labels.sort_by_key(|l| l.time);
    labels.dedup_by_key(|l| (l.id, l.time));
    (events, labels)
}

const MONITOR: &str = "task: binary, window: 1d, refresh: 6h, segments: [kind], accuracy: [accuracy, auc]";

fn compared(told: &[Told]) -> Vec<Told> {
    let metrics = ["predictions", "unmatched", "accuracy", "auc"];
    told.iter().filter(|t| metrics.contains(&t.metric.as_str())).cloned().collect()
}

#[test]
fn each_revision_is_what_was_known_whatever_the_ticks_and_workers() {
    let (events, labels) = traffic();
    let twin = Twin { events: &events, labels: &labels, window: 24 * HOUR, refresh: 6 * HOUR, within: 50 * HOUR };
    let expected = twin.told(&["a", "b", "c"]);
    assert!(expected.iter().any(|t| t.revision > 5), "labels change what was told");
    let bed = Bed::new(&events, &labels, "50h", MONITOR);
    let first = bed.run(1, 1_000);
    assert_eq!(compared(&first), expected);
    assert!(first.iter().any(|t| t.metric == "labels_late") && first.iter().any(|t| t.metric == "labels_orphan"));
    for (workers, tick) in [(3, 1_000), (1, 17), (3, 40), (2, 1)] {
        assert_eq!(bed.run(workers, tick), first, "{workers} workers, ticks of {tick} rows");
    }
}

/// Runs a bed's job as a process with a state directory, to its end or to its death at a failpoint.
fn start(bed: &Bed, place: &Path, workers: usize, failpoints: &str, sets: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("run").arg(bed.path("job.yaml")).args(["--until-end", "--json", "--workers", &workers.to_string()]);
    command.arg("--state").arg(place.join("state"));
    sets.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command.current_dir(root()).env(FAILPOINTS, failpoints).env("LAKE", place.join("lake"));
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_job_killed_again_and_again_tells_what_it_would_have_told() {
    let (events, labels) = traffic();
    let bed =
        Bed::new(&events, &labels, "50h", &format!("{MONITOR}, card_precision: {{by: card, k: 5, exclude_found: 2d}}"));
    let expected = bed.run(1, 1_000);
    assert!(expected.iter().any(|t| t.metric == "card_precision" && t.revision > 2));
    let sets = ["tick.rows=3", "checkpoint.rows=12"];
    let place = TempDir::new().expect("a folder");
    let deaths =
        ["checkpoint.staged=kill@2", "checkpoint.committed=kill", "delta.moved=kill@2", "checkpoint.published=kill"];
    for (number, death) in deaths.into_iter().enumerate() {
        let (ended, said) = start(&bed, place.path(), [1, 3, 2][number % 3], death, &sets);
        assert!(!ended && said.contains("failpoint"), "{death}: {said}");
    }
    let (ended, said) = start(&bed, place.path(), 3, "", &sets);
    assert!(ended, "{said}");
    assert_eq!(told(&table_in(&place.path().join("lake"), "stats/accuracy", None)), expected);
    // Another start finds nothing to tell.
    assert!(start(&bed, place.path(), 1, "", &sets).0);
    assert_eq!(told(&table_in(&place.path().join("lake"), "stats/accuracy", None)), expected);
}

#[test]
fn a_label_corrected_weeks_later_changes_its_own_window_and_nothing_else() {
    let start_of = 1_767_225_600_000_000;
    let (mut events, mut labels) = (Vec::new(), Vec::new());
    // Forty days with ten payments each; labels come the day after.
    for id in 0..400 {
        let time = start_of + (id / 10) * 24 * HOUR + (id % 10) * HOUR;
        events.push(Event {
            id,
            time,
            card: id % 3,
            kind: ["a", "b"][id as usize % 2],
            scores: vec![(id % 10) as f64 / 10.0],
        });
        labels.push(Label { id, time: time + 24 * HOUR, value: Some(f64::from(u8::from(id % 10 > 6))) });
    }
    let calm = Bed::new(&events, &labels, "30d", MONITOR).run(1, 20);
    // What was no fraud on the third day is found to be one three weeks later.
    let corrected = 22;
    let at = start_of + 24 * 24 * HOUR + HOUR;
    labels.push(Label { id: corrected, time: at, value: Some(1.0) });
    labels.sort_by_key(|label| label.time);
    let bed = Bed::new(&events, &labels, "30d", MONITOR);
    let place = TempDir::new().expect("a folder");
    let (ended, said) = start(&bed, place.path(), 2, "", &["tick.rows=20", "checkpoint.rows=20"]);
    assert!(ended, "{said}");
    let told_now = told(&table_in(&place.path().join("lake"), "stats/accuracy", None));
    let window = start_of + 2 * 24 * HOUR;
    let elsewhere = |told: &[Told]| -> Vec<Told> {
        told.iter().filter(|t| t.window != window || t.segment == "kind=b").cloned().collect()
    };
    assert_eq!(elsewhere(&told_now), elsewhere(&calm));
    let auc = |told: &[Told]| -> Vec<Told> {
        let mine = told.iter().filter(|t| t.window == window && t.segment == "kind=a" && t.metric == "auc");
        mine.cloned().collect()
    };
    let (before, after) = (auc(&calm), auc(&told_now));
    let (last_before, told_then) = (&before[before.len() - 2], &after[after.len() - 2]);
    assert_eq!((after.len(), told_then.revision), (before.len() + 1, last_before.revision + 1));
    assert_eq!(told_then.as_of, start_of + 24 * 24 * HOUR + 6 * HOUR);
    assert_ne!(told_then.value, last_before.value);
    // The table's history: the version that brought the correction brought it to this window, and those before it have the
    // old value.
    let directory = table_path(&place.path().join("lake"), "stats/accuracy");
    let newest = TableReader::open(&directory, None).expect("a table").version();
    let mut changes = 0;
    for version in 1..=newest {
        let read = |version| {
            let batches = TableReader::open(&directory, Some(version)).and_then(|table| table.read(None));
            batches.expect("a version").iter().flat_map(told).collect::<Vec<Told>>()
        };
        let (old, new) = (read(version - 1), read(version));
        let added: Vec<Told> = new.into_iter().filter(|t| !old.contains(t)).collect();
        let of_it: Vec<&Told> = added.iter().filter(|t| t.window == window && t.as_of == told_then.as_of).collect();
        if of_it.is_empty() {
            continue;
        }
        changes += 1;
        assert!(of_it.iter().all(|t| t.segment != "kind=b"), "{of_it:?}");
        assert!(old.iter().all(|t| t.window != window || t.as_of < told_then.as_of));
    }
    assert_eq!(changes, 1);
}

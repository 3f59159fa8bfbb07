//! Drift and quality told by a job: what the rows of its tables say, whatever the workers, ticks and deaths.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::monitor::drift::count::{Counter, Kind, Missing};
use tidemill::monitor::drift::grid::Grid;
use tidemill::monitor::drift::histogram::Histogram;
use tidemill::monitor::drift::measure::{Metric, measure};
use tidemill::monitor::drift::reference::Reference;

use crate::batch;
use crate::support::rows::{assert_same_rows, values, without};
use crate::support::{Job, Lake, root, table_in};

const DAY: f64 = 86_400e6;
const METRICS: [Metric; 5] = [Metric::Psi, Metric::Ks, Metric::Js, Metric::Wasserstein, Metric::ShiftSd];
/// The label, whose windows are told again as labels come.
const LABEL: &str = "is_fraud";
const WATCHED: [&str; 4] = ["amount", "customer__nb_tx_1d", "customer__avg_amount_7d", "terminal__risk_7d"];

/// The card fraud job with a monitor.
fn job_file(dir: &Path, monitor: &str) -> PathBuf {
    let text = std::fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("the job");
    let model = root().join("models/card_fraud.onnx");
    let text = text.replace("models/card_fraud.onnx", &model.display().to_string());
    // Its own monitor is another one.
    let text = text.split("\nmonitors:").next().unwrap_or(&text);
    let path = dir.join("job.yaml");
    std::fs::write(&path, format!("{text}\nmonitors:\n  fraud:\n{monitor}")).expect("it is written");
    path
}

const SETS: [(&str, &str); 4] = [
    ("sources.tx.generator.rate", "max"),
    ("sources.tx.generator.duration", "8d"),
    ("sources.fraud_labels.generator.duration", "8d"),
    ("checkpoint.rows", "5000"),
];

fn job(file: &Path) -> Job {
    SETS.iter().fold(Job::new(file), |job, (key, value)| job.set(key, value))
}

fn monitor(reference: &str) -> String {
    format!(
        "    drift: {{features: [psi, ks, js, wasserstein, shift_sd], prediction: [psi, ks], label: [js, shift_sd], \
         columns: [{}], prediction_reference: {{past: 2d}}, label_reference: {{past: 2d}}, reference: {reference}}}\n    \
         quality: [nulls, range, missing, freshness, volume]\n",
        WATCHED.join(", ")
    )
}

/// Told values by window (in days), subject and metric; each is told once.
fn told(table: &RecordBatch) -> BTreeMap<(i64, String, String), Option<f64>> {
    let text = |name: &str| cast(table.column_by_name(name).expect("a column"), &DataType::Utf8).expect("a text");
    let (subjects, metrics) = (text("subject"), text("metric"));
    let (subjects, metrics) = (subjects.as_string::<i32>(), metrics.as_string::<i32>());
    let starts = values(table, "window_start");
    let mut told = BTreeMap::new();
    for (row, value) in values(table, "value").into_iter().enumerate() {
        if subjects.value(row) == LABEL {
            continue;
        }
        let day = (starts[row].expect("a window") / DAY) as i64;
        let key = (day, subjects.value(row).to_owned(), metrics.value(row).to_owned());
        assert_eq!(values(table, "revision")[row], Some(1.0), "{key:?}");
        assert!(told.insert(key.clone(), value).is_none(), "{key:?} is told twice");
    }
    told
}

/// Rows by day of their time.
fn by_day(table: &RecordBatch) -> BTreeMap<i64, RecordBatch> {
    let days: Vec<i64> = values(table, "event_time").iter().map(|t| (t.expect("a time") / DAY) as i64).collect();
    let mut all: Vec<i64> = days.clone();
    all.sort_unstable();
    all.dedup();
    let of = |day: i64| {
        let keep: BooleanArray = days.iter().map(|d| Some(*d == day)).collect();
        (day, filter_record_batch(table, &keep).expect("rows"))
    };
    all.into_iter().map(of).collect()
}

fn column(rows: &RecordBatch, name: &str) -> ArrayRef {
    Arc::clone(rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}")))
}

fn counted(kind: &Kind, column: &ArrayRef) -> Histogram {
    let mut counter = Counter::new(kind);
    counter.count(column, &mut Missing::new(column.len())).expect("it is counted");
    counter.take()
}

fn assert_told(told: Option<f64>, expected: Option<f64>, what: &str) {
    assert_eq!(told.map(f64::to_bits), expected.map(f64::to_bits), "{what}: {told:?} {expected:?}");
}

#[test]
fn windows_are_what_their_rows_say() {
    let dir = TempDir::new().expect("a folder");
    let file = job_file(dir.path(), &monitor("{past: 2d}"));
    let lake = job(&file).run();
    let (drift, quality) = (told(&lake.table("stats/drift", None)), told(&lake.table("stats/quality", None)));
    let days = by_day(&lake.table("predictions/fraud", None));
    assert!(days.len() >= 8, "{} days", days.len());
    let first = *days.keys().next().expect("a day");
    let mut compared = 0;
    for (day, rows) in &days {
        for name in WATCHED.iter().chain(&["score"]) {
            let kind = Kind::Numeric(Arc::new(Grid::fixed()));
            let window = counted(&kind, &column(rows, name));
            let mut before = counted(&kind, &column(&days[&first].slice(0, 0), name));
            for earlier in days.range(day - 2..*day).map(|(_, rows)| rows) {
                before.add(&counted(&kind, &column(earlier, name)));
            }
            let Kind::Numeric(grid) = &kind else { panic!("numbers") };
            let reference = Reference::of_windows(&before, Some(grid), 10).filter(|_| *day >= first + 2);
            let metrics = if *name == "score" { &METRICS[..2] } else { &METRICS };
            for metric in metrics {
                let expected = reference.as_ref().and_then(|r| measure(*metric, r, &window)).map(|m| m.value);
                let key = (*day, (*name).to_owned(), metric.name().to_owned());
                assert_told(drift[&key], expected, &format!("{key:?}"));
                compared += usize::from(expected.is_some());
            }
            let nulls = quality[&(*day, (*name).to_owned(), "null_share".to_owned())];
            assert_told(nulls, Some(window.missing() as f64 / rows.num_rows() as f64), "nulls");
        }
        let newest = values(rows, "event_time").into_iter().flatten().fold(0.0, f64::max);
        let of = |metric: &str| quality[&(*day, String::new(), metric.to_owned())];
        assert_eq!(of("volume"), Some(rows.num_rows() as f64));
        assert_eq!(of("freshness_seconds"), Some(((*day + 1) as f64 * DAY - newest) / 1e6));
        assert_eq!(of("volume_ratio").is_some(), *day > first);
    }
    assert!(compared > 100, "{compared}");
    // Labels come a day later; those of all days but the last are known at the end.
    let mut labelled = BTreeMap::new();
    let table = lake.table("stats/drift", None);
    let subjects = cast(table.column_by_name("subject").expect("a column"), &DataType::Utf8).expect("a text");
    let of_label: BooleanArray = subjects.as_string::<i32>().iter().map(|s| Some(s == Some(LABEL))).collect();
    let told = filter_record_batch(&table, &of_label).expect("rows");
    let columns = ["window_start", "rows", "revision", "value"].map(|name| values(&told, name));
    for row in 0..told.num_rows() {
        let [start, rows, revision, value] = columns.each_ref().map(|column| column[row]);
        let day = (start.expect("a window") / DAY) as i64;
        let last = labelled.entry(day).or_insert((revision, rows, value));
        *last = if last.0 < revision { (revision, rows, value) } else { *last };
    }
    for (day, rows) in days.iter().filter(|(day, _)| **day < first + 6) {
        let (_, told, value) = labelled[day];
        assert_eq!(told, Some(rows.num_rows() as f64), "labels of day {day}");
        assert_eq!(value.is_some(), *day >= first + 2, "day {day}");
    }
}

#[test]
fn a_file_is_a_reference() {
    let dir = TempDir::new().expect("a folder");
    let lake = job(&job_file(dir.path(), &monitor("{past: 2d}"))).run();
    let rows = lake.table("predictions/fraud", None);
    let training = dir.path().join("training.parquet");
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&training).expect("a file"), rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("it is written");
    writer.close().expect("it is written");
    let reference = format!("{{file: \"{}\", where: \"event_time < timestamp '2026-01-08'\"}}", training.display());
    let again = job(&job_file(dir.path(), &monitor(&reference))).workers(2).run();
    let told = told(&again.table("stats/drift", None));
    let days = by_day(&rows);
    let earlier: BooleanArray =
        values(&rows, "event_time").iter().map(|t| Some(t.expect("a time") < 20_461.0 * DAY)).collect();
    let training = filter_record_batch(&rows, &earlier).expect("rows");
    assert!(training.num_rows() > 0 && training.num_rows() < rows.num_rows());
    for name in WATCHED {
        let reference = Reference::of_column(&column(&training, name), false, 10).expect("values");
        for (day, rows) in &days {
            let window = counted(&reference.kind(), &column(rows, name));
            for metric in METRICS {
                let expected = measure(metric, &reference, &window).map(|m| m.value);
                let key = (*day, name.to_owned(), metric.name().to_owned());
                assert_told(told[&key], expected, &format!("{key:?}"));
            }
        }
    }
    // A table that the job wrote is one, too.
    let table = root().join("no_such_table");
    let missing = job_file(dir.path(), &monitor(&format!("{{delta: {{uri: \"{}\"}}}}", table.display())));
    let env = |_: &str| Some(dir.path().display().to_string());
    let (plan, _) = tidemill::engine::load(&missing, &[], &env).expect("it compiles");
    let faults = tidemill::engine::check(&plan).expect_err("there is no such table").to_string();
    assert!(faults.contains("monitors.fraud.drift") && faults.contains("no_such_table"), "{faults}");
}

#[test]
fn workers_and_ticks_change_no_statistic() {
    let dir = TempDir::new().expect("a folder");
    let file = job_file(dir.path(), &monitor("{between: [2026-01-06, 2026-01-08]}"));
    let tables = |lake: &Lake| ["stats/drift", "stats/quality"].map(|t| without(&lake.table(t, None), &["_tick"]));
    let base = tables(&job(&file).run());
    let valued = values(&base[0], "value").iter().flatten().count();
    assert!(valued > 50, "{valued}");
    for (workers, rows) in [(3, "65536"), (1, "311"), (2, "1999")] {
        let found = tables(&job(&file).workers(workers).set("tick.rows", rows).run());
        for (base, found) in base.iter().zip(&found) {
            assert_same_rows(&format!("{workers} workers, ticks of {rows} rows"), base, found);
        }
    }
}

#[test]
fn a_killed_job_tells_what_it_would_have_told() {
    let dir = TempDir::new().expect("a folder");
    let file = job_file(dir.path(), &monitor("{past: 2d}"));
    let run = |place: &str, workers: &str, failpoints: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg("run").arg(&file).args(["--until-end", "--json", "--workers", workers]);
        command.arg("--state").arg(dir.path().join(place).join("state"));
        SETS.iter().chain(&[("tick.rows", "500"), ("checkpoint.rows", "1000")]).for_each(|(key, value)| {
            command.args(["--set", &format!("{key}={value}")]);
        });
        let command = command.env(FAILPOINTS, failpoints).env("LAKE", dir.path().join(place).join("lake"));
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let tables = |place: &str| {
        let lake = dir.path().join(place).join("lake/card_fraud");
        ["stats/drift", "stats/quality"].map(|table| without(&table_in(&lake, table, None), &["_tick"]))
    };
    let (status, said) = run("whole", "1", "");
    assert!(status.success(), "{said}");
    for (workers, deaths) in [["1", "3", "2"], ["3", "1", "2"]].iter().enumerate() {
        let place = format!("killed{workers}");
        for (worker, death) in deaths.iter().zip(["checkpoint.committed=kill@3", "checkpoint.staged=kill@2"]) {
            let (status, said) = run(&place, worker, death);
            assert!(status.code().is_none() && said.contains("failpoint"), "{death}: {status}: {said}");
        }
        let (status, said) = run(&place, deaths[2], "");
        assert!(status.success(), "{said}");
        for (expected, found) in tables("whole").iter().zip(&tables(&place)) {
            assert_same_rows(&place, expected, found);
        }
    }
}

/// Train, register, promote, run: windows are held against the rows that the champion was fitted on, as they were logged.
#[test]
fn a_training_set_is_a_reference() {
    let dir = TempDir::new().expect("a folder");
    let (lake, queue, registry) = (dir.path().join("lake"), dir.path().join("queue"), dir.path().join("registry"));
    batch::days(&lake, 8);
    let done = |command: &mut Command| {
        let (code, out, err) = batch::run(command);
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let file = root().join("dataflows/card_fraud_retrain.yaml").display().to_string();
    let mut train = batch::tidemill(&["train", &file, "--json", "--queue"]);
    train.arg(&queue).args(["--of-set", &format!("registry.uri={}", registry.display())]);
    for set in
        ["fit.fit.tune.trials=1", "fit.fit.learner.gbdt.trees=5", "evaluate.evaluate.promote_if=auc_challenger > 0.2"]
    {
        train.args(["--set", &format!("steps.{set}")]);
    }
    done(train.env("LAKE", &lake));
    let models = |arguments: &[&str]| {
        let mut command = batch::tidemill(&["models"]);
        command.args(arguments).arg("--registry").arg(&registry);
        done(&mut command)
    };
    models(&["promote", "fraud@challenger", "--why", "the first"]);

    // What the profile must have counted, from the set and the fit's own account of itself.
    let out = |step: &str, file: &str| queue.join(format!("card_fraud_retrain-1/steps/{step}/out/{file}"));
    let fit: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out("fit", "fit.json")).expect("a fit")).expect("JSON");
    let (end, start) = (fit["span"]["end"].as_i64().expect("a time"), fit["span"]["start"].as_i64().expect("a time"));
    let set = File::open(out("set", "set.parquet")).expect("a set");
    let set: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(set)
        .expect("Parquet")
        .build()
        .expect("rows")
        .map(|b| b.expect("rows"))
        .collect();
    let set = concat_batches(&set[0].schema(), &set).expect("rows");
    let (times, known) = (values(&set, "event_time"), values(&set, "known_at"));
    let fitted: BooleanArray = (0..set.num_rows())
        .map(|row| Some(times[row] < Some(end as f64) && known[row] <= Some(start as f64)))
        .collect();
    let fitted = filter_record_batch(&set, &fitted).expect("rows");
    assert_eq!(Some(fitted.num_rows() as u64), fit["data"]["rows"].as_u64());
    assert!(fitted.num_rows() > 100 && fitted.num_rows() < set.num_rows());

    let monitor = monitor("training").replace("label_reference: {past: 2d}, ", "");
    let job_of = |monitor: &str| {
        let file = job_file(dir.path(), monitor);
        let text = std::fs::read_to_string(&file).expect("the job");
        let model = format!("versions: {{champion: {}}}", root().join("models/card_fraud.onnx").display());
        assert!(text.contains(&model), "{text}");
        let text = text.replace(&model, "registry: fraud@champion");
        std::fs::write(&file, format!("{text}registry: {{uri: '{}'}}\n", registry.display())).expect("a file");
        file
    };
    let lake = job(&job_of(&monitor)).workers(2).run();
    let drift = lake.table("stats/drift", None);
    let told = told(&drift);
    let days = by_day(&lake.table("predictions/fraud", None));
    let kind = Kind::Numeric(Arc::new(Grid::fixed()));
    let Kind::Numeric(grid) = &kind else { panic!("numbers") };
    for name in WATCHED {
        let counts = counted(&kind, &column(&fitted, name));
        let reference = Reference::of_windows(&counts, Some(grid), 10).expect("values");
        for (day, rows) in &days {
            let window = counted(&kind, &column(rows, name));
            for metric in METRICS {
                let expected = measure(metric, &reference, &window).map(|m| m.value);
                assert!(expected.is_some(), "{name} {metric:?}");
                let key = (*day, name.to_owned(), metric.name().to_owned());
                assert_told(told[&key], expected, &format!("{key:?}"));
            }
        }
    }
    // Labels are held against those of the set.
    let subjects = cast(&column(&drift, "subject"), &DataType::Utf8).expect("texts");
    let of_labels: BooleanArray = subjects.as_string::<i32>().iter().map(|s| Some(s == Some(LABEL))).collect();
    let of_labels = filter_record_batch(&drift, &of_labels).expect("rows");
    assert!(values(&of_labels, "value").iter().flatten().count() >= 8, "{}", of_labels.num_rows());

    // What is wrong is told before the first row.
    let fault = |monitor: &str| {
        let env = |_: &str| Some(dir.path().display().to_string());
        let (plan, _) = tidemill::engine::load(&job_of(monitor), &[], &env).expect("it compiles");
        tidemill::engine::check(&plan).map(drop).map_err(|faults| faults.to_string())
    };
    assert_eq!(fault(&monitor), Ok(()));
    let missing = fault(&monitor.replace("columns:", "names: {amount: amounts}, columns:")).expect_err("no column");
    assert!(missing.contains("fraud@1") && missing.contains("no column `amounts`"), "{missing}");
    let model = root().join("models/card_fraud.onnx").display().to_string();
    models(&["register", "--name", "fraud", "--file", &model, "--alias", "champion", "--why", "without its set"]);
    let without = fault(&monitor).expect_err("nobody knows what it was fitted on");
    assert!(
        without.contains("fraud@2 was registered without its training set") && without.contains("--set"),
        "{without}"
    );
    let set = out("set", "set.parquet").display().to_string();
    models(&[
        "register", "--name", "fraud", "--file", &model, "--alias", "champion", "--set", &set, "--why", "with it",
    ]);
    assert_eq!(fault(&monitor), Ok(()));
    let shown = models(&["show", "fraud@champion"]);
    assert!(shown.contains("labels/fraud") && shown.contains("training.json"), "{shown}");
}

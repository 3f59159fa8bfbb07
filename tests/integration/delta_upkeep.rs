//! Delta tables through kill -9: publication from an outbox, compaction and vacuum, each killed or frozen at its failpoints
//! in a process of its own; upkeep by the command and by a running job.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Int64Type};
use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::engine::StopHandle;
use tidemill::store::offline::{
    CompactOptions, Outcome, Part, TableCommitter, TableSpec, TableWriter, VacuumOptions, WriterOptions, compact,
    read_table, table_path, vacuum,
};

use crate::support::rows::{assert_same_rows, without};
use crate::support::{Job, root, table_in};

const TABLE: &str = "features/card";
const APPLICATION: &str = "job/a/features/card";
const APRIL: i64 = 1_522_540_800_000_000;
/// What the child process does, and where.
const TASK: &str = "TIDEMILL_TEST_TASK";
const PLACE: &str = "TIDEMILL_TEST_PLACE";
const GO_ON: &dyn Fn() -> bool = &|| true;

fn spec() -> TableSpec {
    TableSpec::new(TABLE, [("card".to_owned(), "card".to_owned(), DataType::Int64)], &["card"]).unwrap()
}

/// Rows with these offsets, over three dates.
fn stage(root: &Path, offsets: std::ops::Range<u64>) -> Vec<Part> {
    let outbox = Some("a".to_owned());
    let options = WriterOptions { sources: vec!["tx".into()], outbox, ..WriterOptions::default() };
    let mut writer = TableWriter::new(root, &spec(), options).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "_time",
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    offsets.clone().map(|i| APRIL + (i % 3) as i64 * 86_400_000_000 + i as i64),
                )
                .with_timezone("UTC"),
            ),
        ),
        ("_ord", Arc::new(UInt64Array::from_iter_values(offsets.clone()))),
        ("card", Arc::new(Int64Array::from_iter_values(offsets.map(|i| i as i64 % 7)))),
    ];
    writer.append(0, &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    writer.flush().unwrap()
}

fn offsets(root: &Path) -> BTreeMap<i64, usize> {
    let mut found = BTreeMap::new();
    for batch in read_table(&table_path(root, TABLE), Some(&["_offset"]), None).unwrap() {
        for offset in batch.column(0).as_primitive::<Int64Type>().values() {
            *found.entry(*offset).or_default() += 1;
        }
    }
    found
}

fn once(offsets: std::ops::Range<i64>) -> BTreeMap<i64, usize> {
    offsets.map(|offset| (offset, 1)).collect()
}

/// Parquet files below a directory.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    glob::glob(&format!("{}/**/part-*.parquet", directory.display())).unwrap().map(Result::unwrap).collect()
}

fn version(root: &Path) -> u64 {
    TableCommitter::open(root, &spec(), APPLICATION).unwrap().version()
}

/// A task of [`child`] in a process of its own, with a failpoint set.
fn start(task: &str, place: &Path, failpoint: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "delta_upkeep::child", "--ignored", "--nocapture"]);
    command.env(TASK, task).env(PLACE, place).env(FAILPOINTS, failpoint).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

fn task(task: &str, place: &Path, failpoint: &str) -> ExitStatus {
    start(task, place, failpoint).wait().unwrap()
}

fn killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

/// No test: what the processes do that others kill.
#[test]
#[ignore = "the body of processes that other tests start and kill"]
fn child() {
    let (Ok(task), Some(place)) = (std::env::var(TASK), std::env::var_os(PLACE).map(PathBuf::from)) else { return };
    match task.as_str() {
        "publish" => {
            let manifest = std::fs::read_to_string(place.join("manifest.json")).unwrap();
            let epochs: Vec<Vec<Part>> = serde_json::from_str(&manifest).unwrap();
            let mut committer = TableCommitter::open(&place, &spec(), APPLICATION).unwrap();
            for (epoch, parts) in epochs.iter().enumerate() {
                assert_ne!(committer.commit(epoch as u64, parts).unwrap(), Outcome::Empty);
            }
        }
        "compact" => drop(compact(&place, TABLE, &CompactOptions::default(), GO_ON).unwrap()),
        "vacuum" => drop(vacuum(&place, TABLE, &at_once(), GO_ON).unwrap()),
        other => panic!("no task `{other}`"),
    }
}

fn at_once() -> VacuumOptions {
    VacuumOptions { retention: Duration::ZERO, ..VacuumOptions::default() }
}

/// Three epochs of 30 rows, staged, and the manifest that names their parts.
fn staged() -> (TempDir, Vec<Vec<Part>>) {
    let dir = TempDir::new().unwrap();
    let epochs: Vec<Vec<Part>> = (0..3).map(|epoch| stage(dir.path(), epoch * 30..epoch * 30 + 30)).collect();
    std::fs::write(dir.path().join("manifest.json"), serde_json::to_string(&epochs).unwrap()).unwrap();
    (dir, epochs)
}

/// All three epochs once, each file where it belongs, the outbox empty.
fn published(place: &Path, epochs: &[Vec<Part>]) {
    assert_eq!(offsets(place), once(0..90));
    assert_eq!(version(place), 3);
    let expected: BTreeSet<PathBuf> =
        epochs.iter().flatten().map(|part| table_path(place, TABLE).join(&part.path)).collect();
    assert_eq!(files(&table_path(place, TABLE)), expected);
    assert!(files(&place.join("_outbox")).is_empty());
}

#[test]
fn a_publication_killed_anywhere_is_taken_up() {
    for place in ["delta.moved", "delta.committed"] {
        for visit in 1..=3 {
            let (dir, epochs) = staged();
            assert!(killed(task("publish", dir.path(), &format!("{place}=kill@{visit}"))), "{place} {visit}");
            let told = offsets(dir.path());
            let rows = 30 * if place == "delta.moved" { visit - 1 } else { visit };
            assert_eq!(told, once(0..rows), "{place} {visit}");
            // Killed again on the way back, then not.
            assert!(killed(task("publish", dir.path(), &format!("{place}=kill"))) || visit == 3);
            assert!(task("publish", dir.path(), "").success());
            published(dir.path(), &epochs);
            assert!(task("publish", dir.path(), "").success(), "there is nothing left to do");
            published(dir.path(), &epochs);
        }
    }
}

/// A publisher is frozen; its successor publishes all, appends, compacts and vacuums; then the first one wakes.
#[test]
fn a_frozen_publisher_wakes_and_changes_nothing() {
    for (place, visit) in [("delta.moved", 1), ("delta.moved", 3), ("delta.committed", 1), ("delta.committed", 2)] {
        for tidied in [false, true] {
            let (dir, epochs) = staged();
            let mut zombie = start("publish", dir.path(), &format!("{place}=stop@{visit}"));
            wait_stopped(&zombie);
            assert!(task("publish", dir.path(), "").success());
            let mut expected = once(0..90);
            if tidied {
                let mut committer = TableCommitter::open(dir.path(), &spec(), APPLICATION).unwrap();
                committer.commit(3, &stage(dir.path(), 90..120)).unwrap();
                expected.extend(once(90..120));
                assert!(task("compact", dir.path(), "").success());
                assert!(task("vacuum", dir.path(), "").success());
                assert_eq!(files(&table_path(dir.path(), TABLE)).len(), 3, "one file a date");
            }
            let before = version(dir.path());
            resume(&zombie);
            assert!(zombie.wait().unwrap().success(), "{place} {visit}");
            assert_eq!(version(dir.path()), before, "the zombie committed");
            assert_eq!(offsets(dir.path()), expected, "{place} {visit} {tidied}");
            match tidied {
                false => published(dir.path(), &epochs),
                true => assert!(files(&dir.path().join("_outbox")).is_empty()),
            }
        }
    }
}

fn state(child: &Child) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    text.rsplit(") ").next()?.split(' ').next().map(str::to_owned)
}

fn wait_stopped(child: &Child) {
    let until = Instant::now() + Duration::from_secs(60);
    while state(child).as_deref() != Some("T") {
        assert!(Instant::now() < until, "the process did not come to its failpoint: {:?}", state(child));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn resume(child: &Child) {
    let status = Command::new("kill").args(["-CONT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_compaction_killed_or_frozen_leaves_the_table_right() {
    for visit in 1..=3 {
        let (dir, _) = staged();
        let place = dir.path();
        assert!(task("publish", place, "").success());
        assert!(killed(task("compact", place, &format!("delta.compacted=kill@{visit}"))));
        assert_eq!(offsets(place), once(0..90));
        assert_eq!(version(place), 3 + visit - 1, "each date is a commit");
        assert!(task("compact", place, "").success());
        assert_eq!((offsets(place), version(place)), (once(0..90), 6));
        // Nine small files, three merged, and one that a killed compaction left.
        assert_eq!(files(&table_path(place, TABLE)).len(), 13);
        assert!(task("vacuum", place, "").success());
        assert_eq!(files(&table_path(place, TABLE)).len(), 4, "one that no commit names is kept for a day");
        assert_eq!(offsets(place), once(0..90));
    }
    // Frozen with its file written, while another one compacts and vacuums.
    let (dir, _) = staged();
    let place = dir.path();
    assert!(task("publish", place, "").success());
    let mut zombie = start("compact", place, "delta.compacted=stop");
    wait_stopped(&zombie);
    assert!(task("compact", place, "").success());
    assert!(task("vacuum", place, "").success());
    resume(&zombie);
    assert!(zombie.wait().unwrap().success());
    assert_eq!((offsets(place), version(place)), (once(0..90), 6));
}

#[test]
fn a_vacuum_killed_anywhere_is_finished_by_the_next() {
    for visit in [1, 4, 9] {
        let (dir, _) = staged();
        let place = dir.path();
        assert!(task("publish", place, "").success() && task("compact", place, "").success());
        assert_eq!(files(&table_path(place, TABLE)).len(), 12);
        assert!(killed(task("vacuum", place, &format!("delta.vacuum=kill@{visit}"))));
        assert_eq!(files(&table_path(place, TABLE)).len(), 12 - (visit - 1), "killed before it deletes");
        assert_eq!(offsets(place), once(0..90));
        assert!(task("vacuum", place, "").success());
        assert_eq!(files(&table_path(place, TABLE)).len(), 3);
        assert_eq!((offsets(place), version(place)), (once(0..90), 6));
    }
}

/// The card fraud job over two days of generated traffic.
fn card_fraud() -> Job {
    Job::new("dataflows/card_fraud.yaml")
        .set("sources.tx.generator.rate", "max")
        .set("sources.tx.generator.duration", "2d")
        .set("sources.fraud_labels.generator.duration", "2d")
        .set("checkpoint.rows", "300")
}

fn tidemill(arguments: &[&str], lake: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(root()).env_remove("TIDEMILL_LOG").env("LAKE", lake).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_tidies_a_jobs_tables() {
    let dir = TempDir::new().unwrap();
    let (job, lake) = ("dataflows/card_fraud.yaml", dir.path().join("lake"));
    let tables = lake.join("card_fraud");
    let day = ["sources.tx.generator.rate=max", "sources.tx.generator.duration=2d"];
    let mut run = vec!["run", job, "--until-end", "--set", "sources.fraud_labels.generator.duration=2d"];
    day.iter().for_each(|set| run.extend(["--set", set]));
    // Each start of the job is an application of its own and leaves its files.
    for _ in 0..4 {
        let (code, out, err) = tidemill(&run, &lake);
        assert_eq!(code, 0, "{out}{err}");
    }

    let answers = || {
        let ids = ["customer_id=1", "customer_id=2", "customer_id=3"];
        let of = |id| {
            tidemill(
                &["features", "get", "customer", id, "--job", job, "--json", "--as-of", "2026-01-06T12:00:00Z"],
                &lake,
            )
        };
        ids.map(of).map(|(code, out, err)| if code == 0 { out } else { panic!("{err}") })
    };
    let rows = || ["features/customer", "predictions/fraud"].map(|name| table_in(&tables, name, None));
    let (before, answered) = (rows(), answers());
    let maintain = |extra: &[&str]| -> Value {
        let (code, out, err) = tidemill(&[&["maintain", job, "--json"], extra].concat(), &lake);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        serde_json::from_str(&out).unwrap()
    };
    let of = |told: &Value, table: &str| -> Value {
        let tables = told["tables"].as_array().unwrap();
        tables.iter().find(|t| t["table"] == table).unwrap_or_else(|| panic!("no {table} in {told}")).clone()
    };
    let planned = of(&maintain(&["--dry-run"]), "features/customer");
    let files_before = planned["before"]["files"].as_u64().unwrap();
    assert!(files_before >= 8 && planned["compacted"]["files_before"] == files_before, "{planned}");
    assert_eq!(planned["before"], planned["after"], "a dry run");

    let only = maintain(&["--table", "features/customer", "--compact-below", "1MiB", "--vacuum-older-than", "1h"]);
    assert_eq!(only["tables"].as_array().unwrap().len(), 1);
    let done = of(&only, "features/customer");
    assert!(done["after"]["files"].as_u64().unwrap() <= 4, "{done}");
    assert_eq!((&done["before"], &done["vacuumed"]["files"]), (&planned["before"], &0.into()));
    let (code, out, err) = tidemill(&["maintain", job, "--vacuum-older-than", "0s"], &lake);
    assert_eq!((code, err.as_str()), (0, ""));
    let line = out.lines().find(|line| line.starts_with("features/customer")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[9], files_before.to_string(), "the replaced files are deleted: {out}");
    for (table, before) in ["features/customer", "predictions/fraud"].iter().zip(&before) {
        assert_same_rows(table, before, &table_in(&tables, table, None));
    }
    assert_eq!(answers(), answered);
    let again = maintain(&["--vacuum-older-than", "0s"]);
    for table in again["tables"].as_array().unwrap() {
        assert_eq!((&table["compacted"]["files_before"], &table["vacuumed"]["files"]), (&0.into(), &0.into()));
    }

    for wrong in [
        &["maintain", job, "--table", "features/nobody"][..],
        &["maintain", job, "--compact-below", "big"],
        &["maintain", job, "--vacuum-older-than", "7"],
        &["maintain", "dataflows/none.yaml"],
    ] {
        let (code, out, err) = tidemill(wrong, &lake);
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?}: {err}");
    }
    let nowhere = dir.path().join("nowhere");
    let (code, out, _) = tidemill(&["maintain", job], &nowhere);
    assert_eq!((code, out.as_str()), (0, "the job has written no tables yet\n"));
    let (code, _, err) = tidemill(&["maintain", job, "--table", "features/customer"], &nowhere);
    assert_eq!(code, 1);
    assert!(err.contains("there is no delta table in"), "{err}");
}

/// A job with `maintain` merges files while it commits, and leaves the rows of a job without.
#[test]
fn a_running_job_tidies_its_tables() {
    const TABLES: [&str; 2] = ["features/customer", "predictions/fraud"];
    let plain = card_fraud().run();
    let lake = TempDir::new().unwrap();
    let merges = |table: &str| {
        let entries =
            std::fs::read_dir(table_path(lake.path(), table).join("_delta_log")).into_iter().flatten().flatten();
        let text = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        text.filter(|text| text.contains("\"operation\":\"OPTIMIZE\"")).count()
    };
    let stop = StopHandle::new();
    let tidy = std::thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(60);
            // All rows are in the tables, and some were merged.
            let count = |table: &str| match table_path(lake.path(), table).join("_delta_log").exists() {
                true => read_table(&table_path(lake.path(), table), Some(&["_offset"]), None)
                    .map_or(0, |batches| batches.iter().map(RecordBatch::num_rows).sum()),
                false => 0,
            };
            while Instant::now() < until
                && !TABLES.iter().all(|table| merges(table) > 0 && count(table) == plain.count(table))
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            stop.stop();
        });
        // Paced, so that there are commits to merge.
        let rate = plain.count("predictions/fraud") as f64 / 5.0;
        card_fraud()
            .set("sources.tx.generator.rate", &rate.max(1.0).to_string())
            .set("sinks.offline.delta.uri", lake.path().to_str().unwrap())
            .set("checkpoint.interval", "100ms")
            .set("sinks.offline.maintain", "{every: 1s, compact_below: 1MiB, vacuum_after: 1h}")
            .stay(stop.clone())
            .run()
    });
    for table in TABLES {
        assert!(merges(table) > 0, "{table} was never compacted");
        let [before, after] = [&plain, &tidy].map(|lake| without(&lake.table(table, None), &["_tick"]));
        assert_same_rows(table, &before, &after);
    }
}

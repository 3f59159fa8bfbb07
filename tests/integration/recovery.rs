//! Jobs that are killed and go on: what they leave equals what an undisturbed run leaves, row for row and value for value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::store::lookup::get_online;
use tidemill::store::online::OnlineReader;

use crate::support::rows::{assert_same_rows, ids};
use crate::support::{root, table_in};

/// Tables of `dataflows/card_fraud.yaml`.
const TABLES: [&str; 5] =
    ["features/customer", "features/terminal", "feature_sets/fraud_inputs", "predictions/fraud", "labels/fraud"];

/// A folder with a job's state, tables and online values, over several runs.
struct Place {
    dir: TempDir,
    sets: Vec<String>,
}

impl Place {
    /// A week of card traffic in small ticks, with an epoch whenever the one before is through.
    fn new() -> Place {
        let sets = [
            "sources.tx.generator.rate=max",
            "sources.tx.generator.duration=7d",
            "sources.fraud_labels.generator.duration=7d",
            "tick.rows=500",
            "checkpoint.rows=500",
        ];
        Place { dir: TempDir::new().expect("a temporary folder"), sets: sets.map(str::to_owned).to_vec() }
    }

    fn set(mut self, set: &str) -> Place {
        self.sets.push(set.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A run to the end of the input. Returns how it ended and what it said.
    fn run(&self, failpoints: &str, workers: usize, more: &[&str]) -> (ExitStatus, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["run", "dataflows/card_fraud.yaml", "--until-end", "--json", "--workers", &workers.to_string()]);
        command.arg("--state").arg(self.path("state"));
        self.sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        let command = command.args(more).current_dir(root()).env(FAILPOINTS, failpoints).env("LAKE", self.path("lake"));
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A run that must come to its end.
    fn finish(&self, workers: usize) {
        let (status, said) = self.run("", workers, &[]);
        assert!(status.success(), "{said}");
    }

    /// A run that must be killed at a failpoint.
    fn killed(&self, failpoint: &str, workers: usize) {
        let (status, said) = self.run(failpoint, workers, &[]);
        assert!(status.code().is_none() && said.contains("failpoint"), "{failpoint}: {status}: {said}");
    }

    fn table(&self, name: &str) -> RecordBatch {
        table_in(&self.path("lake/card_fraud"), name, None)
    }

    /// The online values of some customers.
    fn online(&self) -> BTreeMap<i64, String> {
        let mut customers = ids(&self.table("features/customer"), "customer_id");
        customers.sort_unstable();
        customers.dedup();
        let reader = OnlineReader::open(&self.path("lake/card_fraud_online")).expect("a store");
        let value = |customer: i64| {
            let key = [("customer_id".to_owned(), customer.to_string())];
            let row = get_online(&reader, "customer", &key).expect("an answer");
            // When its last event was is told as a bound where its windows have run empty, which depends on when it was told.
            let empty = row.features.iter().any(|feature| feature.name == "nb_tx_7d" && feature.value == 0);
            let event_time = row.event_time.filter(|_| !empty);
            (customer, format!("{:?} {event_time:?} {:?}", row.status, row.features))
        };
        customers.into_iter().step_by(7).map(value).collect()
    }
}

/// What an undisturbed run leaves.
fn reference() -> &'static Place {
    static REFERENCE: std::sync::OnceLock<Place> = std::sync::OnceLock::new();
    REFERENCE.get_or_init(|| {
        let place = Place::new();
        place.finish(1);
        place
    })
}

fn assert_same(found: &Place) {
    let reference = reference();
    for table in TABLES {
        assert_same_rows(table, &reference.table(table), &found.table(table));
    }
    // A store is open once at a time, and tests run side by side.
    static EXPECTED: std::sync::OnceLock<BTreeMap<i64, String>> = std::sync::OnceLock::new();
    let (expected, found) = (EXPECTED.get_or_init(|| reference.online()), found.online());
    for (customer, value) in expected {
        assert_eq!(Some(value), found.get(customer), "customer {customer}");
    }
}

#[test]
fn a_job_killed_anywhere_leaves_what_it_would_have_left() {
    // Where an epoch is complete, committed, half published, published; where a restart has claimed, and has published.
    let deaths = [
        "checkpoint.staged=kill@2",
        "checkpoint.committed=kill@2",
        "delta.moved=kill@3",
        "delta.committed=kill@3",
        "checkpoint.published=kill@2",
        "restore.claimed=kill",
        "restore.published=kill",
    ];
    let place = Place::new();
    for (number, death) in deaths.into_iter().enumerate() {
        place.killed(death, [1, 3, 2][number % 3]);
    }
    place.finish(3);
    assert_same(&place);
    // Another start finds nothing to do.
    place.finish(1);
    assert_same(&place);
}

#[test]
fn before_the_first_checkpoint_the_tick_log_is_enough() {
    let place = Place::new().set("checkpoint.rows=1000000000");
    place.killed("checkpoint.staged=kill", 1);
    place.finish(2);
    assert_same(&place);
}

#[test]
fn damaged_parts_are_passed_by_and_what_was_published_is_not_published_again() {
    let place = Place::new();
    place.killed("checkpoint.published=kill@4", 2);
    let epochs = files(&place.path("state/epochs"));
    let epoch = epochs.last().and_then(|path| path.file_stem()).expect("epochs").to_string_lossy().into_owned();
    let parts = files(&place.path("state/parts"));
    let newest = parts.iter().find(|part| part.to_string_lossy().contains(&format!("-{epoch}-"))).expect("its part");
    let mut bytes = std::fs::read(newest).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).expect("it is written");
    let (status, said) = place.run("", 3, &[]);
    assert!(status.success(), "{said}");
    assert!(said.contains("not published again"), "{said}");
    assert_same(&place);
}

#[test]
fn an_online_store_that_was_lost_while_the_job_was_down_is_filled_again() {
    // Late, so that most customers have no payment after it.
    let mut place = Place::new();
    let epochs = files(&reference().path("state/epochs"))
        .last()
        .and_then(|path| path.file_stem()?.to_str()?.parse::<u64>().ok());
    let mut visit = epochs.expect("epochs").saturating_sub(1);
    while place.run(&format!("checkpoint.published=kill@{visit}"), 1, &[]).0.success() {
        // A busy machine has fewer epochs.
        visit -= 1;
        place = Place::new();
    }
    std::fs::remove_dir_all(place.path("lake/card_fraud_online")).expect("it is removed");
    place.finish(2);
    assert_same(&place);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

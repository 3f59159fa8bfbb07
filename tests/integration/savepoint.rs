//! Jobs that are stopped, moved, changed, set back and found damaged: what goes on, what is refused, and what is said before.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::store::offline::table_path;

use crate::kafka_source;
use crate::support::kafka::{Broker, topic};
use crate::support::rows::{assert_same_rows, without};
use crate::support::{root, table_in};

/// Tables of `dataflows/card_fraud.yaml`.
const TABLES: [&str; 5] =
    ["features/customer", "features/terminal", "feature_sets/fraud_inputs", "predictions/fraud", "labels/fraud"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a job's file, state and tables, over several runs.
pub struct Place {
    dir: TempDir,
    sets: Vec<String>,
    env: Vec<(String, String)>,
}

/// How a run ended, and what it said.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
    pub printed: String,
}

impl Ended {
    /// Asserts that it ended well.
    pub fn well(self) -> Ended {
        assert!(self.status.success(), "{}: {}", self.status, self.said);
        self
    }

    fn killed(self) -> Ended {
        assert!(self.status.code().is_none() && self.said.contains("failpoint"), "{}: {}", self.status, self.said);
        self
    }

    pub fn refused(self, words: &[&str]) -> Ended {
        assert_eq!(self.status.code(), Some(1), "{}", self.said);
        self.says(words)
    }

    pub fn says(self, words: &[&str]) -> Ended {
        for word in words {
            assert!(self.said.contains(word), "no `{word}` in: {}", self.said);
        }
        self
    }
}

impl Place {
    /// Four days of card traffic in small ticks, with an epoch whenever the one before is through.
    pub fn new() -> Place {
        let sets = [
            "sources.tx.generator.rate=max",
            "sources.tx.generator.duration=4d",
            "sources.fraud_labels.generator.duration=4d",
            "tick.rows=500",
            "checkpoint.rows=500",
        ];
        let dir = TempDir::new().expect("a temporary folder");
        let place = Place { dir, sets: sets.map(str::to_owned).to_vec(), env: Vec::new() };
        std::fs::write(place.path("job.yaml"), original()).expect("a file");
        place
    }

    pub fn set(mut self, set: &str) -> Place {
        self.sets.push(set.to_owned());
        self
    }

    /// Replaces what was set of the same key.
    pub fn reset(&mut self, set: &str) {
        let key = set.split_once('=').expect("an assignment").0;
        self.sets.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != key));
        self.sets.push(set.to_owned());
    }

    pub fn env(mut self, name: &str, value: &str) -> Place {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes the job's file anew.
    fn rewrite(&self, text: &str) {
        std::fs::write(self.path("job.yaml"), text).expect("a file");
    }

    pub fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.arg(name).arg(self.path("job.yaml"));
        self.sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        command.args(more).current_dir(root()).env("LAKE", self.path("lake")).env_remove(FAILPOINTS);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// The job with its state in `state`.
    pub fn job(&self, state: &str, workers: usize, more: &[&str]) -> Command {
        let state = self.text(state);
        let mut args = vec!["--until-end", "--json", "--state", &state];
        let workers = workers.to_string();
        args.extend(["--workers", &workers]);
        args.extend(more);
        self.command("run", &args)
    }

    /// A run to the end of the input.
    pub fn run(&self, workers: usize, more: &[&str]) -> Ended {
        ended(self.job("state", workers, more))
    }

    pub fn run_in(&self, state: &str, workers: usize, more: &[&str]) -> Ended {
        ended(self.job(state, workers, more))
    }

    /// A run that comes to a failpoint.
    pub fn run_to(&self, failpoint: &str, state: &str, workers: usize, more: &[&str]) -> Ended {
        let mut command = self.job(state, workers, more);
        command.env(FAILPOINTS, failpoint);
        ended(command).killed()
    }

    /// A run that is asked to stop when so many epochs more are committed.
    fn stopped(&self, epochs: u64, workers: usize, more: &[&str]) -> Ended {
        let before = newest(&self.path("state"));
        let child = spawn(self.job("state", workers, more));
        let deadline = Instant::now() + PATIENCE;
        while newest(&self.path("state")) < before + 1 + epochs && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        terminate(&child);
        finished(child).well().says(&["stopping"])
    }

    fn check(&self, from: &Path, more: &[&str]) -> Ended {
        let from = from.display().to_string();
        let mut args = vec!["--from", &from];
        args.extend(more);
        ended(self.command("check", &args))
    }

    pub fn table(&self, name: &str) -> RecordBatch {
        table_in(&self.path("lake/card_fraud"), name, None)
    }

    /// Asserts that the tables are those of an undisturbed run, however it was cut.
    pub fn assert_same(&self) {
        for table in TABLES {
            self.assert_same_table(table);
        }
    }

    fn assert_same_table(&self, table: &str) {
        let uncut = |batch: RecordBatch| without(&batch, &["_tick"]);
        assert_same_rows(table, &uncut(reference().table(table)), &uncut(self.table(table)));
    }
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { status: output.status, said: text(&output.stderr), printed: text(&output.stdout) }
}

pub fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: a signal to a child that was not waited for, so that its number is nobody else's.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

pub fn finished(child: Child) -> Ended {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { status: output.status, said: text(&output.stderr), printed: text(&output.stdout) }
}

/// The card-fraud job's file.
fn original() -> String {
    let text = std::fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("the job");
    text.replace("models/card_fraud.onnx", &root().join("models/card_fraud.onnx").display().to_string())
}

/// The job without terminals, labels and scores.
fn customers_only() -> String {
    let text = original();
    let part = |from: &str, to: &str| {
        let from = text.find(from).unwrap_or_else(|| panic!("no {from}"));
        let to = if to.is_empty() { text.len() } else { text.find(to).unwrap_or_else(|| panic!("no {to}")) };
        text[from..to].to_owned()
    };
    let mut less = text.clone();
    for gone in
        [part("  fraud_labels:\n", "streams:"), part("streams:", "features:\n"), part("  terminal:\n", "feature_sets:")]
    {
        less = less.replace(&gone, "");
    }
    less = less.replace(&part("models:\n", ""), "").replace(", terminal.*", "");
    less
}

/// What an undisturbed run leaves.
fn reference() -> &'static Place {
    static REFERENCE: std::sync::OnceLock<Place> = std::sync::OnceLock::new();
    REFERENCE.get_or_init(|| {
        let place = Place::new();
        place.run(1, &[]).well();
        place
    })
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files
        .retain(|file| file.is_file() && !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    files.sort();
    files
}

/// Numbers and files of the epochs in a state directory.
fn manifests(state: &Path) -> Vec<(u64, PathBuf)> {
    let is_epoch = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"epoch\": {\n"));
    let number = |path: &PathBuf| path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("a number");
    let entries = files(&state.join("epochs")).into_iter().filter(|path| is_epoch(path));
    entries.map(|path| (number(&path), path)).collect()
}

/// The newest entry of a state's log.
fn newest(state: &Path) -> u64 {
    manifests(state).last().map_or(0, |(number, _)| *number)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("it is there");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("it is written");
}

#[test]
fn a_job_that_is_stopped_goes_on_with_other_workers_and_another_interval() {
    let mut place = Place::new();
    // A day passes in a second; epochs are closed by the clock.
    place.reset("sources.tx.generator.rate=4000");
    place.reset("checkpoint.rows=1000000000");
    place.reset("checkpoint.interval=200ms");
    place.stopped(2, 1, &[]);
    let (_, last) = manifests(&place.path("state")).pop().expect("epochs");
    assert!(std::fs::read_to_string(last).expect("a manifest").contains("\"last\": true"));
    place.reset("checkpoint.interval=50ms");
    place.stopped(3, 3, &[]).says(&["is loaded; nothing is behind it in the tick log"]);
    place.run(2, &[]).well();
    place.assert_same();
    // Once more there is nothing to do, and it says so.
    place.run(1, &[]).well().says(&["input had ended", "nothing is left to be read"]);
    place.assert_same();
}

#[test]
fn a_savepoint_is_complete_and_begins_a_new_life() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    let savepoint = place.text("saved");
    place.stopped(2, 2, &["--savepoint", &savepoint]);
    std::fs::remove_dir_all(place.path("state")).expect("it was there");
    place.reset("sources.tx.generator.rate=max");
    // A second one is not written over it, and this is said at once.
    place.run_in("other", 1, &["--savepoint", &savepoint]).refused(&["holds a savepoint already"]);
    assert!(!place.path("other").join("epochs").exists());
    let from = ["--from", savepoint.as_str()];
    place
        .run_to("checkpoint.committed=kill@2", "new", 3, &from)
        .says(&["the savepoint that the job began with is loaded"]);
    // A supervisor runs the same command again.
    place.run_in("new", 2, &from).well().says(&["is loaded"]);
    place.assert_same();
    place.run_in("new", 1, &from).well().says(&["nothing is left to be read"]);
    place.assert_same();
    // The state of one life is no place for another.
    std::fs::remove_dir_all(place.path("lake")).expect("it was there");
    let mut other = place;
    other.reset("checkpoint.rows=1000");
    let before = files(&other.path("new/epochs"));
    let elsewhere = other.text("elsewhere");
    other.run_in("new", 1, &["--from", &elsewhere]).refused(&["did not begin with", "leave --from out"]);
    assert_eq!(files(&other.path("new/epochs")), before);
}

#[test]
fn a_state_directory_may_begin_a_new_life() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    place.stopped(2, 2, &[]);
    place.reset("sources.tx.generator.rate=max");
    let state = place.text("state");
    let copy = Place { dir: TempDir::new().expect("a folder"), sets: place.sets.clone(), env: Vec::new() };
    copy_all(place.dir.path(), copy.dir.path());
    let ended = place.run_in("new", 3, &["--from", &state]).well();
    assert!(!ended.said.contains("did not end"), "{}", ended.said);
    place.assert_same();
    // Of one that was killed it is said that something may be missing.
    copy.run_to("checkpoint.committed=kill@2", "state", 1, &[]);
    let state = copy.text("state");
    copy.run_in("new", 1, &["--from", &state]).well().says(&["did not end with epoch", "has not published"]);
}

#[test]
fn before_its_first_epoch_a_new_life_goes_on_from_its_savepoint_and_the_tick_log() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    let savepoint = place.text("saved");
    place.stopped(2, 1, &["--savepoint", &savepoint]);
    place.reset("sources.tx.generator.rate=max");
    place.reset("checkpoint.rows=1000000000");
    place.reset("checkpoint.interval=1h");
    let from = ["--from", savepoint.as_str()];
    place.run_to("checkpoint.staged=kill", "new", 2, &from);
    let again = place.run_in("new", 3, &from).well();
    again.says(&["ticks behind the savepoint that the job began with are replayed"]);
    place.assert_same();
}

#[test]
fn an_older_epoch_is_gone_back_to_without_publishing_twice() {
    let place = Place::new().set("checkpoint.keep=100");
    place.run(2, &[]).well();
    let epochs = manifests(&place.path("state"));
    assert!(epochs.len() > 6, "{} epochs", epochs.len());
    place.run(1, &["--from-epoch", "99999"]).refused(&["there is no epoch 99999"]);
    let middle = epochs[epochs.len() / 2].0.to_string();
    let said = format!("epoch {middle} is loaded instead of");
    place.run(3, &["--from-epoch", &middle]).well().says(&[&said, "not published again"]);
    place.assert_same();
    place.run(1, &[]).well();
    place.assert_same();
}

#[test]
fn a_job_that_is_stopped_while_it_replays_goes_on() {
    let place = Place::new().set("checkpoint.interval=1h");
    let mut place = place;
    place.reset("checkpoint.rows=1000000000");
    place.run_to("checkpoint.staged=kill", "state", 1, &[]);
    for workers in [2, 1] {
        let mut child = spawn(place.job("state", workers, &[]));
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        while !said.contains("are replayed") {
            assert_ne!(errors.read_line(&mut said).expect("a line"), 0, "{said}");
        }
        terminate(&child);
        errors.read_to_string(&mut said).expect("the rest");
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{status}: {said}");
        assert!(manifests(&place.path("state")).is_empty(), "no epoch has ended");
    }
    place.run(3, &[]).well();
    place.assert_same();
}

#[test]
fn a_view_that_is_added_begins_empty_and_one_that_is_changed_must_be_let_go() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    place.stopped(2, 2, &[]);
    place.reset("sources.tx.generator.rate=max");
    let state = place.path("state");
    place.check(&state, &[]).well();

    // It adds least of all, so that payments visit it first, on the workers of another key than before.
    let extra =
        "  extra: {from: tx, entity: [terminal_id, customer_id], aggregates: {seen: {count: \"*\", over: lifetime}}}\n";
    place.rewrite(&original().replace("feature_sets:\n", &format!("{extra}\nfeature_sets:\n")));
    let check = place.check(&state, &[]).well();
    assert!(check.printed.contains("begins without state: ") && check.printed.contains("extra"), "{}", check.printed);
    assert!(!check.printed.contains("loses the state"), "{}", check.printed);
    let check: serde_json::Value =
        serde_json::from_str(&place.check(&state, &["--json"]).well().printed).expect("JSON");
    let list = |what: &str| check["changes"][what].to_string();
    assert!(list("gained").contains("view extra") && list("kept").contains("view customer"), "{check}");
    assert_eq!(list("lost"), "[]");
    place.run_to("checkpoint.published=kill@2", "state", 3, &[]).says(&["begins without state: view extra"]);
    place.run(1, &[]).well();
    place.assert_same();
    let (extra, all) = (place.table("features/extra").num_rows(), reference().table("features/customer").num_rows());
    assert!(extra > 0 && extra < all, "{extra} of {all} rows are newer than the view");
}

#[test]
fn what_would_be_lost_is_named_and_must_be_allowed() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    place.stopped(2, 2, &[]);
    place.reset("sources.tx.generator.rate=max");
    let state = place.path("state");
    // One view with another meaning.
    place.rewrite(&original().replace("max_amount: {max: amount, over: 7d}", "max_amount: {max: amount, over: 6d}"));
    let before = files(&state.join("epochs"));
    place.run(1, &[]).refused(&["loses the state of: view customer: it was", "--allow-drop"]);
    assert_eq!(files(&state.join("epochs")), before, "nothing was claimed");
    let check = place.check(&state, &[]).refused(&["state would be lost"]);
    assert!(check.printed.contains("loses the state of: view customer"), "{}", check.printed);
    // Without terminals, labels and scores; and without the settings of a source that is no more.
    place.rewrite(&customers_only());
    place.sets.retain(|set| !set.starts_with("sources.fraud_labels"));
    let check = place.check(&state, &["--json"]).refused(&["state would be lost"]);
    let changes: serde_json::Value = serde_json::from_str(&check.printed).expect("JSON");
    for lost in ["source fraud_labels", "view terminal"] {
        assert!(changes["changes"]["lost"].to_string().contains(lost), "{changes}");
    }
    place.run(3, &[]).refused(&["source fraud_labels", "view terminal", "--allow-drop"]);
    assert_eq!(files(&state.join("epochs")), before, "nothing was claimed");
    // Its rows are published, so that nothing waits for its tables.
    place
        .run_to("checkpoint.published=kill@2", "state", 3, &["--allow-drop"])
        .says(&["loses the state of: view terminal"]);
    place.run(2, &["--allow-drop"]).well();
    place.assert_same_table("features/customer");
}

#[test]
fn sources_and_views_that_come_back_begin_empty_and_models_may_change() {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    let labels = place.sets.iter().position(|set| set.starts_with("sources.fraud_labels")).expect("labels");
    let labels = place.sets.remove(labels);
    place.rewrite(&customers_only());
    place.stopped(2, 1, &[]);
    place.sets.push(labels);
    let model = place.path("another.onnx");
    std::fs::copy(root().join("models/card_fraud.onnx"), &model).expect("a copy");
    place.rewrite(&original());
    place.reset("sources.tx.generator.rate=max");
    place.run_to("checkpoint.published=kill@2", "state", 2, &[]).says(&["begins without state: ", "view terminal"]);
    place.sets.push(format!("models.fraud.versions.champion={}", model.display()));
    place.run(3, &[]).well();
    place.assert_same_table("features/customer");
    assert!(place.table("predictions/fraud").num_rows() > 0);
}

#[test]
fn rows_that_wait_for_a_table_that_is_gone_are_not_forgotten() {
    let mut place = Place::new();
    place.run_to("checkpoint.committed=kill@4", "state", 2, &[]);
    place.rewrite(&customers_only());
    let labels = place.sets.iter().position(|set| set.starts_with("sources.fraud_labels")).expect("labels");
    let labels = place.sets.remove(labels);
    place.run(1, &["--allow-drop"]).refused(&["staged rows of table", "run the job once as it was"]);
    place.sets.push(labels);
    place.rewrite(&original());
    place.run(1, &[]).well();
    place.assert_same();
}

#[test]
fn a_damaged_manifest_is_refused_and_passed_by_on_demand() {
    let place = Place::new();
    place.run_to("checkpoint.published=kill@4", "state", 2, &[]);
    let state = place.path("state");
    let (number, manifest) = manifests(&state).pop().expect("epochs");
    let whole = std::fs::read(&manifest).expect("a manifest");
    flip(&manifest, whole.len() / 2);
    let before = files(&state.join("epochs"));
    let said = format!("epoch {number} cannot be loaded");
    place.run(1, &[]).refused(&[&said, "--allow-replay"]);
    assert_eq!(files(&state.join("epochs")), before, "nothing was claimed");
    // Put back from a copy it is as if nothing had been.
    let damaged = std::fs::read(&manifest).expect("it is there");
    std::fs::write(&manifest, &whole).expect("it is written");
    let copy = Place { dir: TempDir::new().expect("a folder"), sets: place.sets.clone(), env: Vec::new() };
    copy_all(place.dir.path(), copy.dir.path());
    copy.run(3, &[]).well();
    copy.assert_same();
    // Else rows come twice, and none is missing.
    std::fs::write(&manifest, damaged).expect("it is written");
    place.run(3, &["--allow-replay"]).well().says(&["instead of epoch", "published"]);
    for table in TABLES {
        let (expected, found) = (reference().table(table).num_rows(), place.table(table).num_rows());
        assert!(found >= expected, "{table}: {found} of {expected} rows");
    }
}

#[test]
fn without_its_tick_log_a_damaged_part_is_refused() {
    let place = Place::new();
    place.run_to("checkpoint.published=kill@4", "state", 1, &[]);
    let state = place.path("state");
    let epoch = newest(&state);
    let part =
        files(&state.join("parts")).into_iter().find(|part| part.to_string_lossy().contains(&format!("-{epoch:020}-")));
    flip(&part.expect("its part"), 100);
    for log in files(&state).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log")) {
        std::fs::remove_file(log).expect("it was there");
    }
    let said = format!("epoch {epoch} cannot be loaded");
    place.run(2, &[]).refused(&[&said, "--allow-replay"]);
    place.run(2, &["--allow-replay"]).well().says(&["read again in new cuts", "published again"]);
    for table in TABLES {
        assert!(place.table(table).num_rows() >= reference().table(table).num_rows(), "{table}");
    }
}

#[test]
fn a_tick_log_that_is_lost_or_damaged_behind_a_whole_epoch_costs_no_row() {
    let logs = |place: &Place| {
        let mut logs = files(&place.path("state"));
        logs.retain(|file| file.extension().is_some_and(|e| e == "log"));
        logs
    };
    let lost = Place::new();
    lost.run_to("checkpoint.published=kill@4", "state", 2, &[]);
    logs(&lost).iter().for_each(|log| std::fs::remove_file(log).expect("it was there"));
    lost.run(1, &[]).well().says(&["nothing is behind it in the tick log"]);
    lost.assert_same();

    let damaged = Place::new();
    damaged.run_to("checkpoint.published=kill@4", "state", 2, &[]);
    flip(logs(&damaged).last().expect("a log"), 0);
    let before = files(&damaged.path("state/epochs"));
    damaged.run(1, &[]).refused(&["is damaged at byte 0", "--allow-replay"]);
    assert_eq!(files(&damaged.path("state/epochs")), before, "nothing was claimed");
    damaged.run(3, &["--allow-replay"]).well().says(&["is damaged at byte 0", "passed by", "is loaded"]);
    damaged.assert_same();
    damaged.run(1, &[]).well();
    damaged.assert_same();
}

#[test]
fn a_long_run_keeps_little() {
    let place = Place::new().set("checkpoint.keep=2").set("checkpoint.keep_ticks=1ms");
    // What dead processes leave: a part that no manifest names.
    let state = place.path("state");
    place.run_to("checkpoint.staged=kill@2", "state", 1, &[]);
    let dead = files(&state.join("parts"));
    let named: Vec<String> =
        manifests(&state).iter().map(|(_, path)| std::fs::read_to_string(path).expect("a manifest")).collect();
    let is_named = |part: &PathBuf, manifests: &[String]| {
        manifests.iter().any(|text| text.contains(part.file_name().and_then(|n| n.to_str()).expect("a name")))
    };
    let dead: Vec<&PathBuf> = dead.iter().filter(|part| !is_named(part, &named)).collect();
    assert!(!dead.is_empty(), "the epoch that was not committed has a part");
    // Each start has a file of the tick log to itself.
    place.run_to("checkpoint.published=kill@3", "state", 2, &[]);
    place.run(1, &[]).well();
    assert!(dead.iter().all(|part| !part.exists()), "parts of dead processes are removed");
    let kept = manifests(&state);
    assert_eq!(kept.len(), 2);
    let named: Vec<String> = kept.iter().map(|(_, path)| std::fs::read_to_string(path).expect("a manifest")).collect();
    let parts = files(&state.join("parts"));
    assert!(!parts.is_empty() && parts.iter().all(|part| is_named(part, &named)), "{parts:?}");
    let segments = files(&state).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    let first = segments.map(|file| file.file_name().expect("a name").to_string_lossy().into_owned()).next();
    assert!(first.as_ref().is_some_and(|name| !name.starts_with("ticks-00000000000000000000")), "{first:?}");
    place.assert_same();
}

/// A job that counts by card what is in a topic, and publishes it to another.
pub fn on_kafka(place: &mut Place, broker: &Broker, from: &str, to: Option<&str>) {
    std::fs::write(place.path("tx.avsc"), kafka_source::SCHEMA).expect("a file");
    place.sets.clear();
    let to =
        to.map_or(String::new(), |to| format!(", to: {{kafka: {{brokers: \"{}\", topic: {to}}}}}", broker.address()));
    place.rewrite(&format!(
        r#"
job: on_kafka
sources:
  tx:
    kafka: {{brokers: "{address}", topic: {from}, start: earliest, group: none}}
    schema: "{dir}/tx.avsc"
    id: id
    event_time: ts
features:
  card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: lifetime}}}}{to}}}
sinks:
  offline: {{delta: {{uri: "${{LAKE:-./lake}}/on_kafka"}}}}
"#,
        address = broker.address(),
        dir = place.dir.path().display(),
    ));
}

#[test]
fn a_topic_that_was_read_to_its_end_is_not_silently_read_no_more() {
    let Some(broker) = Broker::start() else { return };
    let (mut place, from) = (Place::new(), topic("ended"));
    broker.create_topic(&from, 2);
    let events = |ids: std::ops::Range<i64>| ids.map(|id| kafka_source::event((id % 2) as i32, id, id * 10));
    broker.produce(&from, events(0..100));
    on_kafka(&mut place, broker, &from, None);
    place.run(1, &[]).well();
    place.run(2, &[]).well().says(&["nothing is left to be read"]);
    broker.produce(&from, events(100..110));
    place.run(2, &[]).refused(&[
        "source `tx`: partition 0 has messages from offset 50 on",
        "without --until-end",
        "SIGTERM",
    ]);
    let rows = table_in(&place.path("lake/on_kafka"), "features/card", None).num_rows();
    assert_eq!(rows, 100);
}

#[test]
fn a_topic_may_be_added_and_taken_away_when_nothing_waits_for_it() {
    let Some(broker) = Broker::start() else { return };
    let (mut place, from, to) = (Place::new(), topic("changed"), topic("changed-to"));
    [&from, &to].into_iter().for_each(|name| broker.create_topic(name, 2));
    let events = |ids: std::ops::Range<i64>| ids.map(|id| kafka_source::event((id % 2) as i32, id, id * 10));
    let stopped = |place: &Place, rows: usize| {
        // Live: it reads what is there and waits for more.
        let state = place.text("state");
        let child = spawn(place.command("run", &["--json", "--state", &state]));
        let (deadline, table) = (Instant::now() + PATIENCE, table_path(&place.path("lake/on_kafka"), "features/card"));
        let count = || {
            let read = tidemill::store::offline::read_table(&table, None, None).unwrap_or_default();
            read.iter().map(RecordBatch::num_rows).sum::<usize>()
        };
        while count() < rows && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        terminate(&child);
        finished(child).well();
        assert_eq!(count(), rows);
    };
    place.sets.clear();
    broker.produce(&from, events(0..100));
    on_kafka(&mut place, broker, &from, None);
    place.sets.push("checkpoint.interval=200ms".to_owned());
    stopped(&place, 100);
    on_kafka(&mut place, broker, &from, Some(&to));
    place.sets.push("checkpoint.interval=200ms".to_owned());
    broker.produce(&from, events(100..150));
    stopped(&place, 150);
    assert_eq!(broker.consume(&to).len(), 50);
    on_kafka(&mut place, broker, &from, None);
    broker.produce(&from, events(150..170));
    place.sets.push("checkpoint.interval=200ms".to_owned());
    stopped(&place, 170);
    assert_eq!(broker.consume(&to).len(), 50);
}

/// Copies a folder with everything in it but the socket that a process which was killed has left.
fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_all(&path, &target)
        } else if path.is_file() {
            std::fs::copy(&path, &target).map(|_| ()).expect("copied")
        }
    }
}

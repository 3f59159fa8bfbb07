//! `tidemill prove`: what jobs recorded is proven, whatever became of their processes, and what is not so is found.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parquet::arrow::ArrowWriter;
use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;

use crate::kafka_source::{Setting, event};
use crate::support::kafka::{Broker, Record, topic};
use crate::support::redis::Redis;
use crate::support::rows::read_parquet;
use crate::support::{golden_data, root};

/// A job with a state directory and tables of its own, run as its users run it.
struct Place {
    dir: TempDir,
    job: String,
    sets: Vec<String>,
    data: Option<PathBuf>,
}

impl Place {
    fn new(job: impl Into<String>, sets: &[&str]) -> Place {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Place { dir: TempDir::new().expect("a folder"), job: job.into(), sets, data: None }
    }

    /// Card traffic of three days in small ticks and many epochs.
    fn cards() -> Place {
        Place::new(
            "dataflows/card_fraud.yaml",
            &[
                "sources.tx.generator.rate=max",
                "sources.tx.generator.duration=3d",
                "sources.fraud_labels.generator.duration=3d",
                "tick.rows=500",
                "checkpoint.rows=1500",
            ],
        )
    }

    fn data(mut self, data: &Path) -> Place {
        self.data = Some(data.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args([name, &self.job]).arg("--state").arg(self.path("state"));
        self.sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        command.env("LAKE", self.path("lake")).current_dir(root()).stdin(Stdio::null());
        command.envs(self.data.as_ref().map(|data| ("DATA", data)));
        command
    }

    /// Runs the job to the end of its input, or to its death at a failpoint.
    fn run(&self, workers: usize, failpoints: &str) {
        self.start(workers, failpoints, &["--until-end"]);
    }

    fn start(&self, workers: usize, failpoints: &str, more: &[&str]) {
        let mut command = self.command("run");
        command.args(more).args(["--json", "--workers", &workers.to_string()]).env(FAILPOINTS, failpoints);
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        match failpoints {
            "" => assert!(output.status.success(), "{said}"),
            _ => assert!(output.status.code().is_none() && said.contains("failpoint"), "{failpoints}: {said}"),
        }
    }

    /// Proves; returns the exit code, the report and what was said.
    fn prove(&self, arguments: &[&str]) -> (i32, Value, String) {
        let output = self.command("prove").args(["--json"]).args(arguments).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let left = files(&self.path("state"));
        assert!(!left.iter().any(|name| name.contains("prove")), "a proof leaves {left:?}");
        (output.status.code().unwrap_or(-1), report, said)
    }

    fn proven(&self, arguments: &[&str]) -> Value {
        let (code, report, said) = self.prove(arguments);
        assert_eq!((code, &report["proven"]), (0, &Value::Bool(true)), "{said}\n{report:#}");
        report
    }

    fn refused(&self, arguments: &[&str], words: &[&str]) -> String {
        let (code, report, said) = self.prove(arguments);
        assert_eq!(code, 1, "{said}\n{report:#}");
        words.iter().for_each(|word| assert!(said.contains(word), "no `{word}` in: {said}"));
        said
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten();
    names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Rows proven of a table in a run of a report.
fn rows(report: &Value, run: usize, table: &str) -> u64 {
    let tables = report["runs"][run]["tables"].as_array().expect("tables");
    let found = tables.iter().find(|t| t["table"] == table).unwrap_or_else(|| panic!("no {table}: {report:#}"));
    found["rows"].as_u64().expect("a number")
}

#[test]
fn a_job_that_was_killed_again_and_again_is_proven() {
    let place = Place::cards();
    place.run(1, "checkpoint.committed=kill@2");
    place.run(3, "delta.moved=kill@5");
    // Committed and not all published: what is proven ends before.
    let report = place.proven(&["--workers", "2"]);
    assert!(report["unpublished_epoch"].is_u64(), "{report:#}");
    let before = rows(&report, 0, "predictions/fraud");
    let running = place.prove(&["--online"]);
    assert!(running.0 == 1 && running.2.contains("run it again"), "{}", running.2);
    place.run(2, "");
    let report = place.proven(&["--workers", "1,3", "--online", "--chaos", "4", "--seed", "11"]);
    for run in 0..3 {
        let all = rows(&report, run, "predictions/fraud");
        assert!(all > before && before > 0, "{report:#}");
        assert_eq!(rows(&report, run, "feature_sets/fraud_inputs"), all);
        assert!(rows(&report, run, "features/terminal") > 0);
    }
    assert!(report["runs"][0]["online"]["keys"].as_u64().expect("keys") > 1_000, "{report:#}");
    let starts = report["runs"][2]["chaos"]["starts"].as_array().expect("starts");
    assert!(starts.iter().any(|start| start["killed"] == true), "{report:#}");
    assert_eq!(report["unpublished_epoch"], Value::Null);
}

#[test]
fn one_unit_in_the_last_place_is_found() {
    let place = Place::cards();
    place.run(2, "");
    let said =
        place.refused(&["--workers", "2", "--inject-ulp"], &["differs", "customer_id=", "tick ", "column ", "0x"]);
    let bits = |word: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_else(|| panic!("{said}"));
        let hex = line.split("(0x").nth(1).and_then(|rest| rest.split(')').next()).expect("bits");
        u64::from_str_radix(hex, 16).expect("bits")
    };
    assert_eq!(bits("recorded").abs_diff(bits("replayed")), 1, "{said}");
    place.proven(&["--workers", "2"]);
    // Behind the range nothing is looked at, and in it it is.
    let report =
        place.proven(&["--workers", "1", "--since", "2026-01-06T00:00:00Z", "--until", "2026-01-07T00:00:00Z"]);
    let day = rows(&report, 0, "predictions/fraud");
    assert!(day > 0 && day * 2 < rows(&place.proven(&["--workers", "1"]), 0, "predictions/fraud"), "{report:#}");
    place.refused(&["--inject-ulp", "--since", "2026-01-06T00:00:00Z"], &["at 2026-01-06"]);
    place.refused(&["--since", "2030-01-01T00:00:00Z"], &["nothing is proven"]);
}

#[test]
fn from_an_epoch_on() {
    let mut place = Place::cards();
    // How many epochs there are is a matter of pace; the first one has most rows behind it in any case.
    place.sets.push("checkpoint.keep=100".into());
    place.run(3, "");
    let (_, _, said) = place.prove(&["--from-epoch", "99999"]);
    let kept = said.rsplit("there are: ").next().expect("a list").trim().to_owned();
    let oldest = kept.split(", ").next().expect("an epoch");
    let report = place.proven(&["--workers", "2", "--from-epoch", oldest, "--chaos", "2", "--seed", "3"]);
    let all = rows(&place.proven(&["--workers", "1"]), 0, "predictions/fraud");
    for run in [0, 1] {
        let some = rows(&report, run, "predictions/fraud");
        assert!(some > 0 && some < all, "{some} of {all}: {report:#}");
    }
    let older =
        report["runs"][0]["tables"].as_array().expect("tables").iter().map(|t| t["older"].as_u64().unwrap_or(0));
    assert!(older.max() > Some(0), "{report:#}");
    place.refused(&["--inject-ulp", "--from-epoch", oldest], &["differs"]);
}

#[test]
fn rows_of_another_run_are_named() {
    let place = Place::cards();
    place.run(1, "");
    // The same job once more, without its state, into the same tables: every row is there twice.
    let mut again = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    again.args(["run", &place.job, "--until-end", "--json"]).current_dir(root()).env("LAKE", place.path("lake"));
    place.sets.iter().filter(|set| !set.starts_with("checkpoint")).for_each(|set| {
        again.args(["--set", set]);
    });
    assert!(again.output().expect("the program starts").status.success());
    place.refused(&["--workers", "1"], &["more than once", "features/customer"]);
    let report = place.proven(&["--workers", "1", "--allow-foreign"]);
    let customers = &report["runs"][0]["tables"][0];
    assert_eq!((&customers["table"], &customers["rows"]), (&"features/customer".into(), &customers["foreign"]));
}

#[test]
fn what_cannot_be_proven_is_said() {
    let place = Place::cards();
    place.refused(&[], &["there is no state", "--state"]);
    place.run(1, "checkpoint.committed=kill@1");
    place.refused(&[], &["run the job again"]);
    place.run(1, "");
    place.refused(&["--set", "version=2"], &["version 1", "version 2"]);
    place.refused(&["--set", "features.customer.aggregates.max_amount.over=3d"], &["another job", "customer"]);
    let missing = place.prove(&["--workers", "0"]);
    assert_eq!(missing.0, 2);
    let (code, _, said) = place.prove(&["--since", "2026-01-07T00:00:00Z", "--until", "2026-01-06T00:00:00Z"]);
    assert!(code == 2 && said.contains("--since must be before"), "{said}");
}

#[test]
fn the_handbook_is_proven_from_files() {
    let Some(data) = golden_data("fraud") else { return };
    let early = "where=TX_DATETIME < timestamp '2018-04-20'";
    let (tx, labels) = (format!("sources.tx.{early}"), format!("sources.labels.{early}"));
    let place =
        Place::new("dataflows/fraud_handbook.yaml", &[&tx, &labels, "tick.rows=5000", "checkpoint.rows=300000"]);
    let place = place.data(&data);
    place.run(2, "checkpoint.published=kill@2");
    place.run(1, "");
    let report = place.proven(&["--workers", "1,3"]);
    assert!(rows(&report, 1, "predictions/fraud") > 100_000, "{report:#}");
    place.refused(&["--inject-ulp", "--workers", "2"], &["TRANSACTION_ID=", "TERMINAL_ID="]);
}

#[test]
fn flights_are_proven_from_files_that_must_be_what_they_were() {
    let Some(data) = golden_data("flights") else { return };
    let copy = TempDir::new().expect("a folder");
    for file in ["flights.parquet", "weather.parquet"] {
        std::fs::copy(data.join(file), copy.path().join(file)).expect("a copy");
    }
    let place =
        Place::new("dataflows/flight_delay.yaml", &["tick.rows=10000", "checkpoint.rows=200000"]).data(copy.path());
    place.run(3, "");
    let report = place.proven(&["--workers", "2", "--chaos", "2", "--seed", "5"]);
    assert_eq!(rows(&report, 0, "feature_sets/flight_inputs"), 122_639);
    let path = copy.path().join("weather.parquet");
    let weather = read_parquet(&path);
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, weather.schema(), None).expect("a writer");
    writer.write(&weather.slice(1, weather.num_rows() - 1)).expect("rows");
    writer.close().expect("a file");
    place.refused(&[], &["weather", "put the file back"]);
}

#[test]
fn values_in_redis_are_proven() {
    let Some(redis) = Redis::start("a proof of values in Redis") else { return };
    let url = format!("sinks.online.redis.url={}", redis.url());
    let mut place = Place::cards();
    place.sets.push(url);
    place.run(2, "checkpoint.staged=kill@2");
    place.run(1, "");
    // A start that finds nothing to do leaves the clock as it was.
    place.run(3, "");
    let report = place.proven(&["--workers", "2", "--online"]);
    assert!(report["runs"][0]["online"]["keys"].as_u64().expect("keys") > 1_000, "{report:#}");
    // One value of one row is another: the last byte of a row is its last value's.
    let script = "for _, key in ipairs(redis.call('KEYS', '*customer*')) do \
                  if redis.call('TYPE', key).ok == 'string' then \
                  return redis.call('SETRANGE', key, redis.call('STRLEN', key) - 1, 'A') end end";
    assert!(redis.ask::<i64>(&["EVAL", script, "0"]) > 0);
    place.refused(&["--online", "--workers", "1"], &["online customer", "customer_id=", "column "]);
}

/// A process that does not outlive its test.
struct Live(Child);

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A job on a topic that is fed, killed, stopped and gone on with, and that grows while it is proven.
#[test]
fn a_job_on_topics_is_proven() {
    let Some(broker) = Broker::start() else { return };
    let (input, output) = (topic("prove-in"), topic("prove-out"));
    broker.create_topic(&input, 3);
    broker.create_topic(&output, 1);
    let setting = Setting::new(&broker.address(), &input, ", group: provers", "", "tick: {rows: 50}");
    let text = std::fs::read_to_string(&setting.file).expect("the job");
    let to =
        format!("take: [id, amount, card.*], to: {{kafka: {{brokers: \"{}\", topic: {output}}}}}", broker.address());
    std::fs::write(&setting.file, text.replace("take: [id, amount, card.*]", &to)).expect("it is written");
    let mut place = Place::new(setting.file.display().to_string(), &["checkpoint.rows=200"]);
    place.sets.push(format!("sinks.online.embedded.path={}", place.path("online").display()));
    let feed = |ids: std::ops::Range<i64>| {
        broker.produce(&input, ids.clone().map(|id| event((id % 3) as i32, id, id * 1_000)));
        broker.produce(&input, [Record::to(1, format!("no event {}", ids.start))]);
    };
    feed(0..900);
    // At the end of its topics a job is at its end, so these do not look for it.
    place.start(1, "checkpoint.committed=kill@2", &[]);
    place.start(3, "delta.moved=kill@2", &[]);
    // It stays, and is proven while it runs.
    let mut live = Live(place.command("run").args(["--workers", "2"]).spawn().expect("the program starts"));
    feed(900..1_500);
    let deadline = Instant::now() + Duration::from_secs(60);
    let rows_proven = |report: &Value| rows(report, 0, "feature_sets/rows");
    let report = loop {
        let report = place.proven(&["--workers", "2"]);
        if rows_proven(&report) > 1_200 {
            break report;
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(Instant::now() < deadline, "the job does not go on: {report:#}");
    };
    assert!(rows(&report, 0, "dead_letters") > 0, "{report:#}");
    let term = Command::new("kill").args(["-TERM", &live.0.id().to_string()]).status().expect("kill");
    assert!(term.success() && live.0.wait().expect("it ends").success());
    feed(1_500..2_000);
    place.run(1, "");
    let state = || (broker.consume(&output).len(), broker.committed("provers", &input));
    let before = state();
    let report = place.proven(&["--workers", "1,2,3", "--online", "--chaos", "3", "--seed", "4"]);
    for run in 0..4 {
        assert_eq!(rows(&report, run, "feature_sets/rows"), 2_000);
        assert_eq!(rows(&report, run, "dead_letters"), 3);
    }
    assert_eq!(report["runs"][0]["online"]["keys"], 3);
    place.refused(&["--inject-ulp"], &["id=", "column amount"]);
    assert_eq!(state(), before, "a proof publishes nothing and commits no offsets");
    broker.expire(&input, 2, 5);
    place.refused(&[], &[&input, "offset"]);
}

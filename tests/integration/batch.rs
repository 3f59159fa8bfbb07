//! Batch dataflows as their users start them: the queue, kills, limits, and the whole way from a job's tables to a registered
//! challenger.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::root;

pub fn tidemill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(root()).env_remove("TIDEMILL_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end; returns exit code (none for a signal), standard output, standard error.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new(file: &str) -> Place {
        let dir = TempDir::new().expect("a folder");
        fs::write(dir.path().join("b.yaml"), file).expect("a file");
        Place { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn train(&self, arguments: &[&str]) -> Command {
        let queue = self.path("queue").display().to_string();
        let mut command = tidemill(&["train", "--queue", &queue]);
        command.args(arguments);
        command
    }

    fn file(&self) -> String {
        self.path("b.yaml").display().to_string()
    }

    fn summary(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let (code, out, err) = run(self.train(arguments).arg("--json"));
        (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
    }

    fn list(&self) -> Value {
        let (code, out, err) = run(self.train(&["--list"]).arg("--json"));
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).expect("JSON")
    }
}

fn step<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let steps = summary["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name} in {summary}"))
}

#[test]
fn steps_run_side_by_side_and_hand_on_what_they_leave() {
    let place = Place::new(
        r#"
batch: b
limits: {threads: 3, parallel: 2}
steps:
  sum: {command: {run: [sh, -c, "cat $TIDEMILL_SET > $TIDEMILL_OUT; echo $TIDEMILL_THREADS >> $TIDEMILL_OUT"], in: one, out: sum.txt}, needs: [two]}
  one: {command: {run: [sh, -c, "echo said; sleep 0.5; echo 1 > $TIDEMILL_OUT"], out: one.txt}}
  two: {command: {run: [sh, -c, "sleep 0.5; test $GREETING = hello"], env: {GREETING: hello}}}
"#,
    );
    let (code, out, err) = run(&mut tidemill(&["check", &place.file()]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("step sum: command") && out.contains("after one, two"), "{out}");
    let (code, summary, err) = place.summary(&[&place.file()]);
    assert_eq!((code, &summary["state"]), (Some(0), &Value::from("done")), "{err}");
    let sum = step(&summary, "sum");
    let directory = PathBuf::from(sum["directory"].as_str().expect("a path"));
    assert_eq!(fs::read_to_string(directory.join("sum.txt")).expect("the output"), "1\n3\n");
    assert_eq!(sum["inputs"][0]["what"], "one/one.txt");
    assert_eq!(sum["inputs"][0]["sha256"], step(&summary, "one")["outputs"][0]["sha256"]);
    let log = fs::read_to_string(step(&summary, "one")["log"].as_str().expect("a path")).expect("a log");
    assert!(log.contains("said"), "{log}");
    let jobs = place.list();
    assert_eq!((&jobs[0]["id"], &jobs[0]["state"]), (&Value::from("b-1"), &Value::from("done")));
    let (code, _, err) = run(&mut place.train(&["--resume", "b-1"]));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("is done already"), "{err}");
}

/// Killed at each of many moments and resumed, each step that was done is done once, and all comes to the same.
#[test]
fn a_job_that_is_killed_anywhere_goes_on() {
    let text = r#"
batch: b
limits: {threads: 1, parallel: 1}
steps:
  a: {command: {run: [sh, -c, "echo a >> $MARKS; echo 1 > $TIDEMILL_OUT"], out: a.txt, env: {MARKS: MARKS_FILE}}}
  b: {command: {run: [sh, -c, "echo b >> $MARKS; cat $TIDEMILL_SET > $TIDEMILL_OUT"], in: a, out: b.txt, env: {MARKS: MARKS_FILE}}}
"#;
    for point in [
        "batch.submitted=kill",
        "batch.journal=kill@2",
        "batch.journaled=kill@3",
        "batch.journaled=kill@4",
        "batch.produced=kill",
        "batch.kept=kill",
        "batch.journaled=kill@5",
        "batch.produced=kill@2",
    ] {
        let place = Place::new("");
        let marks = place.path("marks");
        fs::write(place.path("b.yaml"), text.replace("MARKS_FILE", &marks.display().to_string())).expect("a file");
        let (code, _, err) = run(place.train(&[&place.file()]).env("TIDEMILL_FAILPOINTS", point));
        assert_eq!(code, None, "{point}: {err}");
        let job = &place.list()[0];
        assert_eq!(job["state"], "queued", "{point}: {job}");
        let done_before: Vec<String> = fs::read_to_string(place.path("queue/b-1/journal"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.get(9..)?).ok())
            .filter(|entry| entry["state"] == "done")
            .map(|entry| entry["step"].as_str().unwrap_or_default().to_owned())
            .collect();
        let (code, summary, err) = place.summary(&["--resume", "b-1"]);
        assert_eq!((code, &summary["state"]), (Some(0), &Value::from("done")), "{point}: {err}");
        let marks = fs::read_to_string(&marks).expect("marks");
        for name in ["a", "b"] {
            let times = marks.lines().filter(|line| *line == name).count();
            let reused = step(&summary, name)["reused"] == true;
            assert_eq!(reused, done_before.iter().any(|done| done == name), "{point}: {name}");
            assert!(times == 1 || (times == 2 && !reused), "{point}: {name} ran {times} times");
        }
    }
}

#[test]
fn outputs_that_were_changed_are_made_again() {
    let place = Place::new(
        r#"
batch: b
steps:
  a: {command: {run: [sh, -c, "echo 1 > $TIDEMILL_OUT"], out: a.txt}}
  b: {command: {run: [sh, -c, "test -e GATE"], in: a}}
"#,
    );
    let gate = place.path("gate");
    let text = fs::read_to_string(place.path("b.yaml")).expect("the file");
    fs::write(place.path("b.yaml"), text.replace("GATE", &gate.display().to_string())).expect("a file");
    let (code, summary, err) = place.summary(&[&place.file()]);
    assert_eq!((code, &summary["state"]), (Some(1), &Value::from("failed")));
    assert!(err.contains("--resume b-1` tries again what failed"), "{err}");
    fs::write(place.path("queue/b-1/steps/a/out/a.txt"), "2").expect("a change");
    fs::write(&gate, "").expect("a file");
    let (code, summary, _) = place.summary(&["--resume", "b-1"]);
    assert_eq!((code, &step(&summary, "a")["reused"]), (Some(0), &Value::from(false)));
    assert_eq!(fs::read_to_string(place.path("queue/b-1/steps/a/out/a.txt")).expect("the output"), "1\n");
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_all_that_it_started() {
    let place = Place::new(
        r#"
batch: b
steps:
  slow: {command: {run: [sh, -c, "sleep 7171 & sleep 7172"], timeout: 1s}, retries: 1, backoff: 100ms}
  after: {command: {run: ["true"]}, needs: [slow]}
  other: {command: {run: ["true"]}}
"#,
    );
    let began = Instant::now();
    let (code, summary, err) = place.summary(&[&place.file()]);
    assert_eq!(code, Some(1), "{err}");
    assert!(began.elapsed() < Duration::from_secs(60));
    let slow = step(&summary, "slow");
    assert_eq!(
        (&slow["state"], &slow["why"]),
        (&Value::from("failed"), &Value::from("it took longer than 1s and was ended"))
    );
    assert_eq!(step(&summary, "after")["why"], "`slow` failed");
    assert_eq!(step(&summary, "other")["state"], "done");
    let log = fs::read_to_string(slow["log"].as_str().expect("a path")).expect("a log");
    assert_eq!(log.matches("--- attempt").count(), 2, "{log}");
    for pid in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(pid.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.starts_with("sleep 717"), "{line} is still there");
    }
}

#[test]
fn a_step_that_takes_too_much_memory_is_ended() {
    let place = Place::new(
        r#"
batch: b
limits: {memory: 100MiB}
steps:
  big: {command: {run: [sh, -c, "head -c 400000000 /dev/zero | tail -c 390000000 | sleep 60"]}, retries: 3}
"#,
    );
    let (code, summary, err) = place.summary(&[&place.file()]);
    assert_eq!(code, Some(1), "{err}");
    let why = step(&summary, "big")["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("more than limits.memory (100MiB)"), "{why}");
    let log = fs::read_to_string(place.path("queue/b-1/steps/big/log.txt")).expect("a log");
    assert_eq!(log.matches("--- attempt").count(), 1, "it would be too large again: {log}");
}

#[test]
fn one_runs_a_job_and_anybody_cancels_it() {
    let place = Place::new("batch: b\nsteps: {a: {command: {run: [sleep, \"600\"]}}}");
    let (code, out, _) = run(&mut place.train(&[&place.file(), "--submit"]));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("job b-1 is queued in "), "{out}");
    let mut first =
        place.train(&["--resume", "b-1"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs");
    let until = Instant::now() + Duration::from_secs(60);
    while place.list()[0]["state"] != "running" {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, _, err) = run(&mut place.train(&["--resume", "b-1"]));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("is run by another process"), "{err}");
    let (code, out, err) = run(&mut place.train(&["--cancel", "b-1"]));
    assert_eq!((code, out.as_str()), (Some(0), "job b-1 is cancelled\n"), "{err}");
    assert_eq!(first.wait().expect("it ends").code(), Some(1));
    assert_eq!(place.list()[0]["state"], "cancelled");
    let (code, _, err) = run(&mut place.train(&["--cancel", "b-1"]));
    assert_eq!(code, Some(2), "{err}");
    let (code, _, err) = run(&mut place.train(&["--resume", "b-2"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("has no job `b-2`; it has b-1"), "{err}");
}

#[test]
fn bad_files_are_two_with_every_fault() {
    let place = Place::new(
        "batch: b\nsteps:\n  a: {command: {run: [ls]}, needs: [b], retrys: 2}\n  b: {command: {run: [ls]}, needs: [a]}\n  c: {command: {run: [ls], in: d}}\n",
    );
    for command in [&["check", &place.file()][..], &["train", &place.file()]] {
        let (code, _, err) = run(&mut tidemill(command));
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("b.yaml:3:41: error: steps.a.retrys: unknown key `retrys`"), "{err}");
        assert!(err.contains("did you mean `retries`?") && err.contains("there is no step `d`"), "{err}");
        assert!(err.contains("steps wait for each other: a → b → a"), "{err}");
    }
    fs::write(
        place.path("b.yaml"),
        "batch: b\nsteps:\n  a: {command: {run: [ls]}, needs: [b]}\n  b: {command: {run: [ls]}, needs: [a]}\n",
    )
    .expect("a file");
    let (code, _, err) = run(&mut tidemill(&["check", &place.file()]));
    assert_eq!(code, Some(2));
    assert!(err.contains("steps wait for each other: a → b → a"), "{err}");
}

/// Days of the job's traffic, with labels.
pub fn days(lake: &Path, days: u32) {
    let length = format!("{days}d");
    let mut command = tidemill(&["run", "dataflows/card_fraud.yaml", "--until-end"]);
    for key in ["rate=max", "customers=300", "terminals=600"] {
        command.arg("--set").arg(format!("sources.tx.generator.{key}"));
        if !key.starts_with("rate") {
            command.arg("--set").arg(format!("sources.fraud_labels.generator.{key}"));
        }
    }
    for source in ["tx", "fraud_labels"] {
        command.arg("--set").arg(format!("sources.{source}.generator.duration={length}"));
    }
    command.arg("--set").arg(format!("registry.uri={}", lake.join("registry").display()));
    let (code, _, err) = run(command.env("LAKE", lake));
    assert_eq!(code, Some(0), "{err}");
}

/// From the job's tables to a registered challenger, killed during the fit and resumed: the same model, bit for bit, as without.
#[test]
fn the_whole_way_to_a_challenger_through_a_kill_during_the_fit() {
    let place = Place::new("");
    let lake = place.path("lake");
    days(&lake, 12);
    let file = root().join("dataflows/card_fraud_retrain.yaml").display().to_string();
    let registry = |name: &str| format!("registry.uri={}", place.path(name).display());
    let train = |queue: &str, registry_name: &str| {
        let mut command = tidemill(&["train", &file, "--json", "--queue"]);
        command.arg(place.path(queue)).args(["--of-set", &registry(registry_name)]);
        command.args(["--set", "steps.fit.fit.tune.trials=2", "--set", "steps.fit.fit.learner.gbdt.trees=25"]);
        command.args(["--set", "steps.evaluate.evaluate.promote_if=auc_challenger > 0.5"]);
        command.args(["--set", "steps.set.dataset.last=30d"]);
        command.env("LAKE", &lake);
        command
    };
    let (code, out, err) = run(&mut train("whole", "registry-whole"));
    assert_eq!(code, Some(0), "{err}");
    let whole: Value = serde_json::from_str(&out).expect("JSON");
    let (set, fit) = (step(&whole, "set"), step(&whole, "fit"));
    let tables: Vec<&str> =
        set["inputs"].as_array().expect("inputs").iter().filter_map(|input| input["what"].as_str()).collect();
    assert!(tables.contains(&"labels/fraud") && tables.contains(&"feature_sets/fraud_inputs"), "{tables:?}");
    assert!(set["inputs"].as_array().expect("inputs").iter().all(|input| input["version"].is_u64()), "{set}");
    let metrics = &step(&whole, "evaluate")["facts"]["metrics"];
    assert!(metrics["auc"]["challenger"].as_f64() > Some(0.6), "{metrics}");
    assert!(metrics["auc"]["champion"].as_f64() > Some(0.5), "{metrics}");
    assert_eq!(step(&whole, "register")["facts"]["version"], 1);

    // Killed while it tunes, and again in the middle of the last fit, runner and all.
    let queue = place.path("killed");
    let steps = queue.join("card_fraud_retrain-1/steps/fit");
    let resume = || {
        let mut command = tidemill(&["train", "--json", "--resume", "card_fraud_retrain-1", "--queue"]);
        command.arg(&queue).env("LAKE", &lake);
        command
    };
    let tried = || -> Vec<String> {
        let mut files = fs::read_dir(&steps).expect("the step").map(|entry| entry.expect("an entry").path());
        let journal = files.find(|path| path.extension().is_some_and(|e| e == "journal")).expect("a journal");
        fs::read_to_string(journal).expect("text").lines().map(str::to_owned).collect()
    };
    let mut before = Vec::new();
    for (mut command, point, visit) in
        [(train("killed", "registry-killed"), "train.trial", 1), (resume(), "batch.fit.round", 12)]
    {
        command.env("TIDEMILL_FAILPOINTS", format!("{point}=sleep:600000@{visit}"));
        let mut runner = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let log = || fs::read_to_string(steps.join("log.txt")).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(300);
        while !log().contains(&format!("failpoint {point}")) {
            assert!(Instant::now() < until, "{point} is not reached");
            assert_eq!(runner.try_wait().expect("a process"), None, "it ended: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        runner.kill().expect("it is killed");
        runner.wait().expect("it ends");
        let now = tried();
        assert!(now.len() > before.len() && now.starts_with(&before), "{before:?}\n{now:?}");
        before = now;
    }
    let (code, out, err) = run(&mut resume());
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(tried(), before, "what was tried is not tried again");
    let resumed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(step(&resumed, "set")["reused"], true);
    assert_eq!(step(&resumed, "fit")["reused"], false);
    let model = |summary: &Value| {
        let outputs = step(summary, "fit")["outputs"].as_array().expect("outputs").clone();
        outputs.into_iter().find(|output| output["name"] == "model").expect("a model")["sha256"].clone()
    };
    assert_eq!(model(&resumed), model(&whole), "{}", fit["facts"]);
    let (code, out, err) =
        run(tidemill(&["models", "show", "fraud@challenger", "--registry"]).arg(place.path("registry-killed")));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("auc") && out.contains("labels/fraud"), "{out}");
}

/// A running job starts its retraining by itself, once per time.
#[test]
fn a_running_job_starts_its_retraining() {
    let place = Place::new("batch: b\nsteps: {a: {command: {run: [\"true\"]}}}");
    let start = |name: &str, on: &str, failpoints: &str| {
        let retrain = format!("retrain={{fraud: {{on: [{on}], cool_down: 12h, job: {}}}}}", place.file());
        let mut command = tidemill(&["run", "dataflows/card_fraud.yaml", "--until-end", "--set", &retrain, "--state"]);
        command.arg(place.path(name)).env("LAKE", place.path(&format!("{name}-lake")));
        command.env("TIDEMILL_FAILPOINTS", failpoints).args(["--set", "tick.rows=40"]);
        for source in ["tx", "fraud_labels"] {
            for value in ["duration=5d", "rate=max", "customers=100", "terminals=200"] {
                command.arg("--set").arg(format!("sources.{source}.generator.{value}"));
            }
        }
        run(&mut command)
    };
    // What asked for each, in order.
    let causes = |name: &str| -> Vec<String> {
        let queue = place.path(name).join("queue");
        let (code, out, err) = run(tidemill(&["train", "--list", "--json", "--queue"]).arg(queue));
        assert_eq!(code, Some(0), "{err}");
        let jobs: Value = serde_json::from_str(&out).expect("JSON");
        let mut jobs = jobs.as_array().expect("jobs").clone();
        let ends = ["done", "queued", "cancelled"];
        assert!(jobs.iter().all(|job| ends.contains(&job["state"].as_str().unwrap_or_default())), "{jobs:?}");
        jobs.sort_by_key(|job| job["id"].as_str().map(str::to_owned));
        jobs.iter().map(|job| job["request"]["cause"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (name, on, expected) in [
        ("every", "{every: 2d}", &["every 2d at 2026-01-07T", "every 2d at 2026-01-09T"][..]),
        (
            "cron",
            "{cron: \"30 6 * * *\"}",
            // In front of the first tick of each day that passes half past six.
            &[
                "30 6 * * * at 2026-01-06T",
                "30 6 * * * at 2026-01-07T",
                "30 6 * * * at 2026-01-08T",
                "30 6 * * * at 2026-01-09T",
                "30 6 * * * at 2026-01-10T",
            ],
        ),
        ("labels", "{labels: 400}", &["400 labels at 2026-01-07T", "400 labels at 2026-01-09T"]),
    ] {
        // Killed when it has asked for the first: asked for again by the replay, it is there once.
        let (code, _, err) = start(name, on, "retrain.asked=kill");
        assert_eq!(code, None, "{name}: {err}");
        let (code, _, err) = start(name, on, "");
        assert_eq!(code, Some(0), "{name}: {err}");
        let told = causes(name);
        assert_eq!(told.len(), expected.len(), "{name}: {told:?}");
        assert!(told.iter().zip(expected).all(|(cause, part)| cause.contains(part)), "{name}: {told:?}");
    }
}

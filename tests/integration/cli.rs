//! The program as its users start it: what it prints where, and its exit codes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::root;

fn tidemill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(root()).env_remove("TIDEMILL_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end; returns exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

#[test]
fn help_is_the_reference() {
    let (code, out, _) = run(&mut tidemill(&["--help"]));
    assert_eq!(code, 0);
    for command in ["demo", "run", "check", "features", "dataset", "maintain", "prove", "bench", "completions"] {
        assert!(out.contains(&format!("\n  {command}")), "{out}");
    }
    assert!(out.contains("Exit codes: 0 done, 1 a check or job failed, 2 usage or bad file."), "{out}");
}

#[test]
fn wrong_arguments_are_two() {
    for arguments in [
        &["run"][..],
        &["run", "no/such.yaml"],
        &["run", "dataflows"],
        &["run", "dataflows/card_fraud.yaml", "--workers", "0"],
        &["run", "dataflows/card_fraud.yaml", "--set", "nothing"],
        &["fly"],
        &["check", "dataflows/card_fraud.yaml", "--log", "=loud="],
        &["features", "get", "customer", "customer_id", "--online", "nowhere"],
    ] {
        let (code, out, err) = run(&mut tidemill(arguments));
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert_eq!(out, "", "{arguments:?}");
        assert!(err.contains("error"), "{arguments:?}: {err}");
    }
}

#[test]
fn check_prints_the_plan() {
    let (code, out, err) = run(&mut tidemill(&["check", "dataflows/card_fraud.yaml"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for word in ["card_fraud", "fraud_labels", "labelled_tx", "customer_id", "terminal", "fraud_inputs"] {
        assert!(out.contains(word), "no {word} in:\n{out}");
    }
    let (code, out, _) = run(&mut tidemill(&["check", "dataflows/card_fraud.yaml", "--json"]));
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &document["ok"]), (0, &Value::Bool(true)));
}

#[test]
fn every_fault_of_a_bad_file_at_once() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("bad.yaml");
    let good = fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("the job");
    let bad = good.replace("entity: [customer_id]", "entty: [customer_id]").replace("max: amount", "max: amont");
    assert_ne!(good, bad);
    fs::write(&file, bad).expect("a file");
    for command in ["check", "run"] {
        let (code, out, err) = run(&mut tidemill(&[command, &file.display().to_string()]));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("entty") && err.contains("`entity`"), "the nearest key is named: {err}");
        assert!(err.contains("amont") && err.contains("`amount`"), "the nearest column is named: {err}");
        let placed = err.lines().filter(|l| l.starts_with(&format!("{}:", file.display()))).count();
        assert!(placed >= 2, "each with its place: {err}");
    }
    let (code, out, _) = run(&mut tidemill(&["check", &file.display().to_string(), "--json"]));
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &document["ok"]), (2, &Value::Bool(false)));
    assert!(document["faults"].as_array().expect("faults").iter().all(|f| f["line"].as_u64() > Some(0)), "{out}");
}

/// A day of generated traffic into `lake`.
fn day<'a>(lake: &'a Path, extra: &[&'a str]) -> Command {
    let mut command = tidemill(&["run", "dataflows/card_fraud.yaml"]);
    for set in [
        "sources.tx.generator.rate=max",
        "sources.tx.generator.duration=2d",
        "sources.fraud_labels.generator.duration=2d",
    ] {
        command.args(["--set", set]);
    }
    command.args(extra).env("LAKE", lake);
    command
}

#[test]
fn a_run_and_what_it_leaves() {
    let dir = TempDir::new().expect("a folder");
    let lake = dir.path().join("lake");
    let (code, out, err) = run(&mut day(&lake, &["--until-end", "--json", "--workers", "2"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let summary: Value = serde_json::from_str(&out).expect("JSON");
    assert!(summary["rows_read"].as_u64() > Some(1000), "{out}");
    assert_eq!(summary["workers"], 2);

    let get = |extra: &[&str]| {
        let mut command =
            tidemill(&["features", "get", "customer", "customer_id=1", "--job", "dataflows/card_fraud.yaml"]);
        command.args(extra).env("LAKE", &lake);
        run(&mut command)
    };
    let (code, out, err) = get(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("nb_tx_7d"), "{out}");
    let (code, out, err) = get(&["--json", "--as-of", "2026-01-06T12:00:00Z"]);
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert!(out.contains("nb_tx_7d"), "{answer}");

    let (code, out, err) = run(&mut day(&dir.path().join("other"), &["--until-end"]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("card_fraud: done in ") && out.contains("rows read"), "{out}");
}

#[test]
fn a_job_that_cannot_write_is_one() {
    let dir = TempDir::new().expect("a folder");
    let lake = dir.path().join("lake");
    fs::write(&lake, "a file where a folder should be").expect("a file");
    let (code, out, err) = run(&mut day(&lake, &["--until-end"]));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.starts_with("error: ") && err.contains(&lake.display().to_string()), "{err}");
    assert_eq!(err.lines().count(), 1, "told once: {err}");
}

/// An endless job ends cleanly when it is interrupted, with a summary of what it did.
#[test]
#[cfg(unix)]
fn an_interrupt_ends_a_job_cleanly() {
    let dir = TempDir::new().expect("a folder");
    let mut command = tidemill(&["run", "dataflows/card_fraud.yaml", "--json"]);
    command.env("LAKE", dir.path().join("lake")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
    let code = child.wait().expect("it ends").code();
    let first = BufReader::new(child.stderr.take().expect("piped")).lines().next().expect("a line").expect("text");
    assert!(first.starts_with("stopping"), "{first}");
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_reader(child.stdout.take().expect("piped")).expect("JSON");
    assert!(summary["rows_read"].as_u64() > Some(0), "{summary}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let mut child =
        tidemill(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(&mut tidemill(&["completions", shell]));
        assert_eq!(code, 0);
        assert!(out.contains("until-end"), "{shell}");
    }
}

//! `tidemill experiments`: sizes, and what rollouts have decided, from the table that jobs write.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tidemill::rollout::record::{Figures, Record, TABLE, record_batch};

use crate::support::lake;
use crate::support::root;

fn experiments(args: &[&str], lake: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("experiments").args(args).env("LAKE", lake).output().expect("tidemill starts")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn sizes() {
    let size = |args: &[&str]| experiments(&[&["size"], args].concat(), Path::new(""));
    let found: Value =
        serde_json::from_str(&said(&size(&["--baseline", "0.05", "--effect", "0.01", "--json"]))).expect("JSON");
    // As statsmodels says.
    assert_eq!(found["fixed"]["champion"], 8_158);
    assert_eq!(found["fixed"]["challenger"], 8_158);
    let expected = found["sequential_expected"]["challenger"].as_u64().expect("a number");
    assert!((7_000..8_158).contains(&expected), "{found}");
    assert!(found["sequential_at_most"]["challenger"].as_u64() > Some(8_158));
    let text = said(&size(&["--sd", "0.4", "--effect", "-0.02", "--share", "5"]));
    assert!(text.contains("one look at the end") && text.contains("finds it in 80 %"), "{text}");
    for (args, expected) in [
        (&["--baseline", "0.05", "--effect", "0"][..], "without end"),
        (&["--baseline", "0.05", "--effect", "-0.06"], "no rate"),
        (&["--baseline", "1.5", "--effect", "0.1"], "not between"),
        (&["--baseline", "0.5", "--effect", "0.1", "--alpha", "0.9"], "not between"),
        (&["--effect", "0.1"], "--baseline"),
    ] {
        let (code, text) = refused(&size(args));
        assert!(code == Some(2) && text.contains(expected), "{args:?}: {text}");
    }
}

fn record(tick: u64, rollout: &str, sequence: Option<u64>, action: &str, phase: &str) -> Record {
    Record {
        at: lake::START + tick as i64 * lake::SECOND,
        tick,
        model: "fraud".into(),
        rollout: rollout.into(),
        sequence,
        action: action.into(),
        phase: phase.into(),
        champion: "1".into(),
        challenger: "2".into(),
        share: 25.0,
        figures: Figures {
            lift: Some(-0.0125),
            low: Some(-0.02),
            high: Some(-0.005),
            p_value: Some(0.003),
            rows: [75_000, 25_000],
            labelled: [70_000, 23_000],
            losses: [Some(0.3), Some(0.2875)],
            error_rate: Some(0.0),
            ..Figures::default()
        },
        by: "controller".into(),
        why: "the challenger is fit".into(),
    }
}

#[test]
fn decisions_are_shown_from_the_table() {
    let dir = TempDir::new().expect("a folder");
    let text = fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("a job");
    let models = root().join("models").display().to_string();
    let job = dir.path().join("job.yaml");
    fs::write(&job, text.replace("models/card", &format!("{models}/card"))).expect("a file");
    let job = job.display().to_string();
    let show = |args: &[&str]| experiments(&[&["show", &job], args].concat(), dir.path());

    let (code, text) = refused(&show(&[]));
    assert!(code == Some(1) && text.contains("there is no table"), "{text}");

    let records = [
        record(3, "7", None, "begin", "shadow"),
        record(5, "7", Some(1), "step", "canary"),
        record(9, "7", Some(2), "promote", "promoted"),
        record(12, "8", None, "begin", "shadow"),
    ];
    let batches: Vec<_> = records.chunks(2).map(|records| record_batch(records, 1).expect("rows")).collect();
    lake::write(&dir.path().join("card_fraud"), TABLE, &batches);

    let shown: Value = serde_json::from_str(&said(&show(&["--json"]))).expect("JSON");
    let told = |at: usize, key: &str| shown[at][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (told(0, "rollout"), told(0, "phase"), told(1, "phase")),
        ("7".into(), "promoted".into(), "shadow".into())
    );
    let decisions = shown[0]["decisions"].as_array().expect("decisions");
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions[2]["figures"]["p_value"], 0.003);
    let one = said(&show(&["fraud", "--rollout", "8"]));
    assert!(one.contains("rollout 8") && !one.contains("rollout 7"), "{one}");
    let (code, text) = refused(&show(&["fruad"]));
    assert!(code == Some(2) && text.contains("did you mean `fraud`"), "{text}");
}

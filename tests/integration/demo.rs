//! The stories of the demo, as one who watches sees them: what is decided, and why.

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::format_time;

fn tidemill(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let output = command.args(arguments).env_remove("TIDEMILL_LOG").stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Plays a story to its end; what was decided, in order: action, version, why.
fn play(story: &str) -> (TempDir, Vec<(String, String, String)>) {
    let dir = TempDir::new().expect("a folder");
    let lake = dir.path().display().to_string();
    // As many events a second as a slow machine can take; what is to be seen does not depend on it.
    let (code, out, err) =
        tidemill(&["demo", story, "--lake", &lake, "--exit-after", "400", "--set", "sources.tx.generator.rate=6000"]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    let tables = dir.path().join("demo/card_fraud").display().to_string();
    let job = dir.path().join("demo/card_fraud.yaml").display().to_string();
    let offline = format!("sinks.offline.delta.uri={tables}");
    let registry = format!("registry.uri={}", dir.path().join("demo/registry").display());
    let (code, shown, err) = tidemill(&["experiments", "show", &job, "--json", "--set", &offline, "--set", &registry]);
    assert_eq!(code, Some(0), "{err}\n{out}");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let mut decisions = Vec::new();
    collect(&shown, &mut decisions);
    assert!(!decisions.is_empty(), "{shown:#}\n{out}");
    (dir, decisions)
}

/// All objects with an action, wherever they stand.
fn collect(value: &Value, into: &mut Vec<(String, String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(fields) => {
            if let (Some(action), Some(why)) = (fields.get("action"), fields.get("why")) {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let challenger = fields.get("challenger").map(text).unwrap_or_default();
                into.push((text(action), challenger, text(why)));
            }
            fields.values().for_each(|value| collect(value, into));
        }
        _ => {}
    }
}

fn history(dir: &TempDir) -> String {
    let registry = dir.path().join("demo/registry").display().to_string();
    let (code, out, err) = tidemill(&["models", "history", "fraud", "--registry", &registry]);
    assert_eq!(code, Some(0), "{err}");
    out
}

/// The world changes, the alarm fires, a new model is trained, compared in shadow, tried on some customers, and promoted.
#[test]
fn a_model_that_the_world_has_left_behind_is_replaced() {
    let (dir, decisions) = play("--drift");
    let actions: Vec<&str> = decisions.iter().map(|(action, ..)| action.as_str()).collect();
    let promoted = actions.iter().position(|action| action.contains("promote")).expect("one is promoted");
    // Where retraining is slow beside the stream, a newer challenger may have taken the place of one before.
    let first = actions[..promoted].iter().rposition(|action| action.contains("begin")).expect("its rollout begins");
    let steps = actions[first..promoted].iter().filter(|action| action.contains("step")).count();
    assert_eq!(steps, 3, "out of shadow to 25 per cent, to 50, and to all: {decisions:#?}");
    let (_, _, why) = &decisions[first];
    assert!(why.contains("alert "), "an alarm has started it: {why}");
    let fit = |(_, _, why): &(String, String, String)| why.contains("log_loss") && why.contains("difference -");
    assert!(decisions[first + 1..=promoted].iter().all(fit), "each with its numbers: {decisions:#?}");
    assert!(decisions[..first].iter().all(|(action, ..)| !action.contains("promote")), "{decisions:#?}");
    let history = history(&dir);
    assert!(history.contains("champion from 1 to "), "{history}");
    // The alarm was there before the retraining, and the drift before the alarm.
    let drift = format_time(tidemill::base::parse_time("2026-01-14T00:00:00Z").expect("a time"));
    let asked = history.split("alert ").nth(1).and_then(|rest| rest.split(" at ").nth(1)).unwrap_or_default();
    assert!(asked > drift.as_str(), "{asked}: {history}");
}

/// A model trained on shuffled labels comes past all judgement, and is taken back.
#[test]
fn a_challenger_that_learned_nonsense_is_taken_back() {
    let (dir, decisions) = play("--broken-challenger");
    let last = decisions.last().expect("a decision");
    assert!(last.0.contains("roll_back") && last.2.contains("the challenger is worse: log_loss"), "{decisions:#?}");
    assert!(decisions.iter().all(|(action, ..)| !action.contains("step") && !action.contains("promote")));
    let history = history(&dir);
    assert!(history.contains("challenger taken from 2") && !history.contains("champion from"), "{history}");
}

//! How challengers come in: `retrain.<model>.rollout`.

use super::*;
use crate::plan::model::{GuardPlan, Loss, OnTimeout, RolloutPlan, SHARE_ALL, Strategy};

const HEAD: &str = r#"
job: j
sources:
  tx: {generator: {stream: transactions, duration: 1d}, id: tx_id, event_time: ts}
  labels: {generator: {stream: labels, duration: 1d}, id: tx_id, event_time: known_at}
feature_sets: {s: {on: tx, take: [amount, mcc]}}
sinks: {offline: {delta: {uri: lake}}}
models: {fraud: {versions: {champion: m.onnx}, inputs: s, outputs: {score: "p[1]"}}}
"#;
const LABELS: &str = "labels: {fraud: {from: labels, prediction: tx_id, value: is_fraud, within: 1d}}\n";
const MONITOR: &str = "monitors: {fraud: {}}\n";

const HOUR: i64 = 3_600_000_000;

fn compiled(parts: &str, rollout: &str) -> Result<(Plan, Vec<crate::base::Fault>), Faults> {
    let text = format!("{HEAD}{parts}retrain: {{fraud: {{rollout: {rollout}}}}}\n");
    compile("j", &text, Path::new(""), &[], &env, &Stub)
}

fn rollout(text: &str) -> RolloutPlan {
    let (plan, warnings) = compiled(&format!("{LABELS}{MONITOR}"), text).unwrap_or_else(|f| panic!("{text}: {f}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    plan.rollouts[0].1.clone()
}

#[test]
fn what_is_left_out() {
    let plan = rollout("{}");
    let expected = RolloutPlan {
        shadow: 0,
        strategy: Strategy::Canary { steps: vec![500, 2_500, 5_000, SHARE_ALL], hold: HOUR },
        by: None,
        metric: Loss::LogLoss,
        alpha: 0.05,
        margin: 0.0,
        min_rows: 1_000,
        expect_rows: 20_000,
        max: 30 * 24 * HOUR,
        on_timeout: OnTimeout::RollBack,
        guard: GuardPlan { latency_p99_ms: None, error_rate: None, score_shift_sd: None, sample_ratio_alpha: 0.001 },
    };
    assert_eq!(plan, expected);
    // It goes into the command that begins a rollout.
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RolloutPlan>(&text).unwrap(), expected);
}

#[test]
fn all_that_may_be_written() {
    let plan = rollout(
        "{shadow: 2h, ab: 12.5, by: customer_id, metric: brier, alpha: 0.1, margin: 0.002, promote_if: not_inferior, \
         min_rows: 200, expect_rows: 5000, max: 10d, on_timeout: hold, \
         guard: {latency_p99_ms: 20, error_rate: 0.01, score_shift_sd: 0.5, sample_ratio_alpha: 0}}",
    );
    assert_eq!((plan.shadow, plan.strategy), (2 * HOUR, Strategy::Ab { share: 1_250 }));
    let by = plan.by.unwrap();
    assert_eq!((by.column.as_str(), by.text), ("customer_id", false));
    assert_eq!((plan.metric, plan.alpha, plan.margin), (Loss::Brier, 0.1, 0.002));
    assert_eq!((plan.min_rows, plan.expect_rows, plan.max), (200, 5_000, 240 * HOUR));
    assert_eq!(plan.on_timeout, OnTimeout::Hold);
    let guard = GuardPlan {
        latency_p99_ms: Some(20.0),
        error_rate: Some(0.01),
        score_shift_sd: Some(0.5),
        sample_ratio_alpha: 0.0,
    };
    assert_eq!(plan.guard, guard);
    let blue = rollout("{shadow: 1h, blue_green: true, keep: 2h}");
    assert_eq!(blue.strategy, Strategy::BlueGreen { keep: 2 * HOUR });
    let canary = rollout("{canary: [0.5, 20], hold: 10m}");
    assert_eq!(canary.strategy, Strategy::Canary { steps: vec![50, 2_000], hold: HOUR / 6 });
}

#[test]
fn what_makes_no_sense_is_refused() {
    let all = format!("{LABELS}{MONITOR}");
    let cases = [
        (all.as_str(), "{canary: [5], ab: 50}", "two ways"),
        (&all, "{ab: 50, hold: 1h}", "belongs to `canary`"),
        (&all, "{keep: 1h}", "belongs to `blue_green`"),
        (&all, "{ab: 100}", "no rows to compare with"),
        (&all, "{canary: [100]}", "nothing to compare with"),
        (&all, "{canary: [25, 5]}", "no larger"),
        (&all, "{canary: [0.001]}", "no share"),
        (&all, "{canary: [101]}", "no share"),
        (&all, "{canary: []}", "empty"),
        (&all, "{hold: 0s}", "longer than nothing"),
        (&all, "{metric: squared_error}", "no loss of this model's task"),
        (&all, "{alpha: 0.7}", "below one half"),
        (&all, "{margin: -1}", "less than nothing"),
        (&all, "{margin: 0.1, promote_if: superior}", "has no margin"),
        (&all, "{promote_if: not_inferior}", "to be superior"),
        (&all, "{min_rows: 500, expect_rows: 100}", "more are to be expected"),
        (&all, "{by: nobody}", "nobody"),
        (&all, "{guard: {error_rate: 1}}", "share of rows"),
        (&all, "{guard: {latency_p99_ms: 0}}", "more than 0"),
        (&all, "{guard: {sample_ratio_alpha: 0.6}}", "below one half"),
        (&all, "{blue_green: true, guard: {score_shift_sd: 1}}", "champion's scores"),
        (&all, "{canry: [5]}", "did you mean `canary`"),
        (MONITOR, "{}", "which version is better"),
        (MONITOR, "{blue_green: true, alpha: 0.1}", "no losses"),
        (LABELS, "{}", "monitor"),
    ];
    for (parts, text, expected) in cases {
        let faults = compiled(parts, text).err().unwrap_or_else(|| panic!("{text} was taken")).to_string();
        assert!(faults.contains(expected), "{text}: {faults}");
    }
    let (_, warnings) = compiled(&all, "{blue_green: true}").unwrap();
    assert!(warnings[0].what.contains("nothing but guards"), "{warnings:?}");
    assert!(compiled(MONITOR, "{blue_green: true}").is_ok(), "guards alone need no labels");
}

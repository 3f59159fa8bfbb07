use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::base::DAY;
use crate::plan::tests::{Stub, env, root};

fn read(text: &str, sets: &[(&str, &str)]) -> Result<(BatchPlan, Vec<Fault>), Faults> {
    let sets: Vec<(String, String)> = sets.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let reading = Reading { sets: &sets, job_sets: &[], env: &env, catalog: &Stub };
    compile("b.yaml", text, &root().join("dataflows"), &reading)
}

const WHOLE: &str = r#"
batch: retrain
of: card_fraud.yaml
with: {sinks.offline.delta.uri: /elsewhere}
model: fraud
limits: {threads: 4, memory: 2GiB, parallel: 2}
steps:
  evaluate: {evaluate: {model: fit, on: set, promote_if: "auc_challenger > 0.5", slices: [country]}}
  set: {dataset: {last: 30d, label_delay: 1d, at: 2026-02-01}, retries: 2, backoff: 1s}
  fit:
    fit:
      from: set
      learner: {gbdt: {trees: 50, rate: 0.2}}
      split: {test: 7d, gap: 1d}
      tune: {method: tpe, trials: 8, space: {rate: {log: [0.01, 0.3]}, leaves: [15, 31]}, folds: {folds: 2, train: 14d}}
    timeout: 1h
  outside: {command: {run: [python3, "train.py", "${LAKE}"], in: set, out: model.onnx, timeout: 10m}, timeout: 20m, needs: [fit]}
  register: {register: {from: fit, after: evaluate, alias: challenger}}
  rollout: {rollout: {from: register, wait: 2h}}
"#;

#[test]
fn a_whole_file() {
    let (plan, warnings) = read(WHOLE, &[("limits.threads", "3")]).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(warnings, []);
    let job = plan.job.as_ref().unwrap();
    assert_eq!(job.plan.offline.as_ref().unwrap().uri, "/elsewhere");
    assert_eq!((plan.model, plan.seed), (Some(0), 42));
    assert_eq!(plan.limits, Limits { threads: Some(3), memory: Some(2 << 30), parallel: Some(2) });
    let needs: Vec<(&str, &[usize])> = plan.steps.iter().map(|s| (s.name.as_str(), s.needs.as_slice())).collect();
    let expected: [(&str, &[usize]); 6] = [
        ("evaluate", &[1, 2]),
        ("set", &[]),
        ("fit", &[1]),
        ("outside", &[1, 2]),
        ("register", &[0, 2]),
        ("rollout", &[4]),
    ];
    assert_eq!(needs, expected);
    let StepKind::Dataset(set) = &plan.steps[1].kind else { panic!() };
    assert_eq!((set.last, set.label_delay, set.at.as_str()), (Some(30 * DAY), Some(DAY), "2026-02-01"));
    assert_eq!((plan.steps[1].retries, plan.steps[1].backoff), (2, 1_000_000));
    let StepKind::Fit(fit) = &plan.steps[2].kind else { panic!() };
    assert_eq!(fit.learner, json!({"gbdt": {"trees": 50, "rate": 0.2}}));
    assert_eq!(fit.split, json!({"test": "7d", "gap": "1d"}));
    let tune = fit.tune.as_ref().unwrap();
    assert_eq!(tune.options["space"], json!({"rate": {"log": [0.01, 0.3]}, "leaves": [15, 31]}));
    assert_eq!((&tune.folds, fit.tells), (&Some(json!({"folds": 2, "train": "14d"})), Tells::Classes(2)));
    let StepKind::Evaluate(evaluate) = &plan.steps[0].kind else { panic!() };
    assert_eq!(evaluate.options, json!({"promote_if": "auc_challenger > 0.5", "slices": ["country"]}));
    let StepKind::Command(command) = &plan.steps[3].kind else { panic!() };
    assert_eq!(command.run, ["python3", "train.py", "/lake"]);
    assert_eq!(plan.steps[3].timeout, Some(600_000_000), "the shorter of the two");
    let described = plan.describe();
    for told in [
        "of job card_fraud",
        "3 threads, 2GiB of memory, 2 steps side by side",
        "step fit: fit\n  gbdt ",
        "the model of fit as challenger if evaluate passed",
        "tried again 2 times, after 1s and growing pauses",
        "tuned: {",
    ] {
        assert!(described.contains(told), "{told} is not in {described}");
    }
}

#[test]
fn a_step_is_the_same_work_when_its_words_are() {
    let definitions = |text: &str, sets: &[(&str, &str)]| {
        let (plan, _) = read(text, sets).unwrap_or_else(|f| panic!("{f}"));
        plan.steps.into_iter().map(|step| step.definition).collect::<Vec<_>>()
    };
    let before = definitions(WHOLE, &[]);
    let unchanged = [("limits.threads", "1"), ("steps.fit.timeout", "2h"), ("steps.set.retries", "9")];
    assert_eq!(definitions(WHOLE, &unchanged), before);
    let changed = |sets: &[(&str, &str)]| {
        let after = definitions(WHOLE, sets);
        before.iter().zip(&after).filter(|(a, b)| a != b).count()
    };
    assert_eq!(changed(&[("steps.fit.fit.learner.gbdt.trees", "60")]), 1);
    assert_eq!(changed(&[("seed", "7")]), 6);
    assert_eq!(changed(&[("with", "{sinks.offline.delta.uri: /third}")]), 6);
}

#[test]
fn commands_need_no_job() {
    let (plan, _) = read("batch: b\nsteps: {a: {command: {run: [ls]}}}", &[]).unwrap();
    assert!(plan.job.is_none() && plan.steps[0].needs.is_empty());
    let faults = read("batch: b\nsteps: {a: {dataset: {}}}", &[]).unwrap_err();
    assert!(faults.list[0].what.contains("the file names none"), "{faults}");
}

#[test]
fn cycles_are_named_once() {
    let step = |needs: &str| format!("{{command: {{run: [ls]}}, needs: [{needs}]}}");
    let text = |steps: &[(&str, &str)]| {
        let lines: String = steps.iter().map(|(name, needs)| format!("  {name}: {}\n", step(needs))).collect();
        format!("batch: b\nsteps:\n{lines}")
    };
    let whats = |steps: &[(&str, &str)]| {
        read(&text(steps), &[]).unwrap_err().list.into_iter().map(|f| f.what).collect::<Vec<_>>()
    };
    assert_eq!(whats(&[("a", "c"), ("b", "a"), ("c", "b"), ("d", "a")]), ["steps wait for each other: a → c → b → a"]);
    assert_eq!(whats(&[("x", ""), ("y", "y, x")]), ["`y` waits for itself"]);
    assert_eq!(
        whats(&[("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]),
        ["steps wait for each other: a → b → a", "steps wait for each other: c → d → c"]
    );
}

#[test]
fn shipped_batches_compile() {
    let names: Vec<PathBuf> = std::fs::read_dir(root().join("dataflows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_batch(&std::fs::read_to_string(path).unwrap_or_default()))
        .collect();
    for path in names {
        let reading = Reading { sets: &[], job_sets: &[], env: &env, catalog: &Stub };
        let (_, warnings) = load(&path, &reading).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(warnings, []);
    }
}

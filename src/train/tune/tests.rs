use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use serde_json::json;

use super::*;
use crate::base::{DAY, SplitMix64};
use crate::train::metrics::Judged;
use crate::train::split::{PrequentialOptions, prequential};

/// Rows over ten weeks whose label hangs on `x` and, less, on `y`.
fn rows() -> Set {
    let mut random = SplitMix64::new(1);
    let rows = 1400;
    let mut column = || (0..rows).map(|_| random.unit() as f32).collect::<Vec<f32>>();
    let (x, y) = (column(), column());
    let labels: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f64::from(u8::from(x + 0.3 * y > 0.9))).collect();
    let times: Vec<i64> = (0..rows as i64).map(|row| row * DAY / 20).collect();
    Set {
        inputs: Matrix { names: vec!["x".into(), "y".into()], columns: vec![Column::Number(x), Column::Number(y)] },
        labels,
        weights: None,
        known: times.iter().map(|time| time + 7 * DAY).collect(),
        times,
        extra: vec![("card".into(), (0..rows).map(|row| format!("c{}", row % 50)).collect())],
    }
}

fn folds(count: u32) -> Vec<FoldSet> {
    let set = rows();
    let options = PrequentialOptions { folds: count, ..PrequentialOptions::default() };
    FoldSet::of(&set, &prequential(&set, Task::Binary, &options).unwrap())
}

/// A function of the inputs that settings make better or worse: `x` plus `b` times `y`, with noise that `depth` lessens.
struct Weighted {
    b: f64,
    noise: f64,
}

impl Predict for Weighted {
    fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
        let number = |at: usize, row: usize| match &inputs.columns[at] {
            Column::Number(values) => f64::from(values[row]),
            Column::Category { .. } => 0.0,
        };
        let mut random = SplitMix64::new(9);
        let score = |row| (number(0, row) + self.b * number(1, row) + self.noise * random.unit()) / 3.0;
        Ok(vec![(0..inputs.rows()).map(score).map(|score| score.clamp(0.0, 1.0)).collect()])
    }
}

fn weighted(params: &Value, set: &Set, _: Option<&Set>, _: &Budget<'_>) -> Result<Box<dyn Predict>, TrainError> {
    let b = params["b"].as_f64().ok_or_else(|| TrainError::asked("b is missing", ""))?;
    let depth = params["depth"].as_f64().unwrap_or(10.0);
    if params["kind"] == "broken" {
        return Err(TrainError::asked("it is broken", ""));
    }
    let noise = 2.0 / depth + 30.0 / set.rows() as f64;
    Ok(Box::new(Weighted { b, noise }))
}

fn options(method: TuneMethod, space: Value) -> TuneOptions {
    let space = space.as_object().unwrap().clone();
    TuneOptions { method, space, trials: Some(20), also: vec!["average_precision".into()], ..TuneOptions::default() }
}

struct Case<'a> {
    threads: usize,
    journal: Option<PathBuf>,
    progress: Option<&'a (dyn Fn(TuneProgress) + Sync)>,
}

const ALONE: Case<'_> = Case { threads: 1, journal: None, progress: None };

fn run(options: &TuneOptions, folds: &[FoldSet], case: &Case<'_>, fit: &FitWith<'_>) -> Result<Table, TrainError> {
    let tuning = Tuning {
        options,
        task: Task::Binary,
        base: &json!({"kept": 1}),
        folds,
        threads: case.threads,
        made_by: "",
        journal: case.journal.as_deref(),
        stop: &AtomicBool::new(false),
        progress: case.progress,
    };
    tune(&tuning, fit)
}

fn space() -> Value {
    json!({"b": {"range": [-1.0, 1.0]}, "depth": {"int": [1, 30]}})
}

#[test]
fn a_grid_tries_all() {
    let grid = json!({"b": [0.0, 0.3, 0.9], "depth": {"int": [1, 21], "points": 3}});
    let mut options = TuneOptions { trials: None, ..options(TuneMethod::Grid, grid) };
    let folds = folds(3);
    let table = run(&options, &folds, &ALONE, &weighted).unwrap();
    assert_eq!(table.trials.len(), 9);
    let best = table.best().unwrap();
    assert_eq!((&best.params["b"], &best.params["depth"], &best.params["kept"]), (&json!(0.3), &json!(21), &json!(1)));
    assert_eq!(best.folds.len(), 3);
    assert!(best.mean == table.trials.iter().filter_map(|t| t.mean).reduce(f64::max) && best.sd.is_some());
    assert_eq!(best.mean_of("auc"), best.mean);
    // Every statistic is what the model by itself has on the fold's test.
    let model = weighted(&best.params, &folds[1].train, None, &budget()).unwrap();
    let scores = model.predict(&folds[1].test.inputs).unwrap();
    let judged = Judged::new(Task::Binary, &scores, &folds[1].test.labels, 0.5).unwrap();
    assert_eq!(best.folds[1].get("average_precision").copied(), judged.value(Metric::AveragePrecision));
    options.trials = Some(5);
    let fault = run(&options, &folds, &ALONE, &weighted).unwrap_err().to_string();
    assert!(fault.contains("the grid has 9 points, more than the 5 trials"), "{fault}");
}

fn budget() -> Budget<'static> {
    static GO: AtomicBool = AtomicBool::new(false);
    Budget { threads: 1, seed: 0, stop: &GO }
}

#[test]
fn the_same_on_any_number_of_threads() {
    let folds = folds(2);
    let halving = HalvingOptions { of: "depth".into(), from: 2.0, to: 18.0, keep: 3 };
    let by_rows = HalvingOptions { of: "rows".into(), from: 0.25, to: 1.0, keep: 2 };
    let only = json!({"b": {"range": [-1.0, 1.0]}});
    for options in [
        options(TuneMethod::Random, space()),
        options(TuneMethod::Tpe, space()),
        TuneOptions { halving: Some(halving), ..options(TuneMethod::Halving, only) },
        TuneOptions { halving: Some(by_rows), ..options(TuneMethod::Halving, space()) },
    ] {
        let of = |threads, options: &TuneOptions| {
            run(options, &folds, &Case { threads, ..ALONE }, &weighted).unwrap().without_times()
        };
        let one = of(1, &options);
        assert_eq!(one, of(5, &options), "{:?}", options.method);
        let other = of(1, &TuneOptions { seed: 1, ..options.clone() });
        assert_ne!(one.trials, other.trials, "{:?}", options.method);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), one);
    }
}

#[test]
fn halving_gives_the_best_more() {
    let halving = HalvingOptions { of: "depth".into(), from: 2.0, to: 18.0, keep: 3 };
    let options =
        TuneOptions { halving: Some(halving), ..options(TuneMethod::Halving, json!({"b": {"range": [-1, 1]}})) };
    let table = run(&options, &folds(2), &ALONE, &weighted).unwrap();
    let of = |round| table.trials.iter().filter(|trial| trial.round == round).collect::<Vec<_>>();
    assert_eq!([of(0).len(), of(1).len(), of(2).len()], [20, 6, 2]);
    for (round, depth) in [(0, 2), (1, 6), (2, 18)] {
        assert!(of(round).iter().all(|trial| trial.params["depth"] == depth && trial.budget == Some(f64::from(depth))));
    }
    // Those that go on are the best of the round before.
    let least = of(1).iter().map(|trial| of(0)[trial.number as usize].mean.unwrap()).fold(1.0, f64::min);
    let left = of(0).iter().filter(|trial| trial.mean.unwrap() > least).count();
    assert!(left < 6, "{left} trials of the first round were better than one that went on");
    assert_eq!(table.best().unwrap().round, 2);
    assert!((table.best().unwrap().params["b"].as_f64().unwrap() - 0.3).abs() < 0.3);
}

/// Result of a known function on the way to its greatest value, as the area under a curve cannot be steered so well.
fn best_of(method: TuneMethod, seed: u64, of: &(dyn Fn(&Value) -> f64 + Sync), space: &Value) -> f64 {
    /// Scores whose mean squared error against labels of 0 is the value.
    struct Level(f64);
    impl Predict for Level {
        fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
            Ok(vec![vec![self.0.sqrt(); inputs.rows()]])
        }
    }
    let set = Set {
        inputs: Matrix { names: vec!["x".into()], columns: vec![Column::Number(vec![0.0; 2])] },
        labels: vec![0.0; 2],
        weights: None,
        times: vec![0; 2],
        known: vec![0; 2],
        extra: Vec::new(),
    };
    let span = Span { from: 0, end: 1, start: 1, stop: 2 };
    let folds = [FoldSet { train: set.clone(), test: set, span }];
    let options = TuneOptions {
        method,
        seed,
        trials: Some(60),
        metric: Some("mse".into()),
        space: space.as_object().unwrap().clone(),
        ..TuneOptions::default()
    };
    let fit =
        |params: &Value, _: &Set, _: Option<&Set>, _: &Budget<'_>| Ok(Box::new(Level(of(params))) as Box<dyn Predict>);
    let tuning = Tuning {
        options: &options,
        task: Task::Regression,
        base: &json!({}),
        folds: &folds,
        threads: 1,
        made_by: "",
        journal: None,
        stop: &AtomicBool::new(false),
        progress: None,
    };
    let table = tune(&tuning, &fit).unwrap();
    assert_eq!(table.trials.len(), 60);
    table.best().unwrap().mean.unwrap()
}

#[test]
fn tpe_beats_random() {
    let number = |params: &Value, name: &str| params[name].as_f64().unwrap();
    // Branin and Hoo's, whose least value is 0.3979, and a bowl over five settings of all kinds.
    let branin = |params: &Value| {
        let (x, y) = (number(params, "x"), number(params, "y"));
        let pi = std::f64::consts::PI;
        let bent = y - 5.1 / (4.0 * pi * pi) * x * x + 5.0 / pi * x - 6.0;
        bent * bent + 10.0 * (1.0 - 1.0 / (8.0 * pi)) * x.cos() + 10.0
    };
    let bowl = |params: &Value| {
        let far = (number(params, "rate") / 0.05).ln().powi(2) + (number(params, "leaves") / 40.0).ln().powi(2);
        let kind = if params["kind"] == "b" { 0.0 } else { 1.0 };
        far + kind + (number(params, "share") - 0.7).powi(2) * 4.0 + (number(params, "depth") - 6.0).powi(2) / 20.0
    };
    let plane = json!({"x": {"range": [-5, 10]}, "y": {"range": [0, 15]}});
    let kinds = json!({
        "rate": {"log": [0.001, 1.0]}, "leaves": {"int_log": [4, 400]}, "kind": ["a", "b", "c", "d"],
        "share": {"range": [0.0, 1.0]}, "depth": {"int": [1, 16]},
    });
    for (name, of, space) in [("branin", &branin as &(dyn Fn(&Value) -> f64 + Sync), &plane), ("bowl", &bowl, &kinds)] {
        let seeds = 0..20u64;
        let pairs: Vec<(f64, f64)> = seeds
            .map(|seed| (best_of(TuneMethod::Tpe, seed, of, space), best_of(TuneMethod::Random, seed, of, space)))
            .collect();
        let wins = pairs.iter().filter(|(tpe, random)| tpe < random).count();
        let middle = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[10]
        };
        let (tpe, random) = (middle(|pair| pair.0), middle(|pair| pair.1));
        println!(
            "{name}: the median of the best of 60 is {tpe:.4} by TPE and {random:.4} at random; TPE wins {wins} of 20"
        );
        assert!(wins >= 14 && tpe < 0.7 * random, "{name}: {tpe} {random} {wins}");
    }
}

#[test]
fn a_small_space_is_tried_once() {
    let options = options(TuneMethod::Tpe, json!({"b": [0.1, 0.2, 0.3], "depth": {"int": [3, 5]}}));
    for method in [TuneMethod::Tpe, TuneMethod::Random] {
        let table = run(&TuneOptions { method, ..options.clone() }, &folds(1), &ALONE, &weighted).unwrap();
        let points: std::collections::HashSet<String> = table.trials.iter().map(|t| t.params.to_string()).collect();
        assert_eq!((table.trials.len(), points.len()), (9, 9), "{method:?}");
    }
}

#[test]
fn a_tuning_that_was_killed_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folds = folds(2);
    for (name, options) in [
        ("tpe", options(TuneMethod::Tpe, space())),
        (
            "halving",
            TuneOptions {
                halving: Some(HalvingOptions { of: "rows".into(), from: 0.25, to: 1.0, keep: 2 }),
                ..options(TuneMethod::Halving, space())
            },
        ),
    ] {
        let whole = run(&options, &folds, &ALONE, &weighted).unwrap().without_times();
        let journal = folder.path().join(format!("{name}/journal.jsonl"));
        // Each life does some fits and is stopped, as a kill would, with a torn line at the end.
        let mut fits = 0;
        for life in 0.. {
            let (stop, begun, ended) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
            let fit = |params: &Value, set: &Set, valid: Option<&Set>, budget: &Budget<'_>| {
                if begun.fetch_add(1, Ordering::Relaxed) >= 6 {
                    stop.store(true, Ordering::Relaxed);
                    return Err(TrainError::Stopped);
                }
                let fitted = weighted(params, set, valid, budget);
                ended.fetch_add(1, Ordering::Relaxed);
                fitted
            };
            let tuning = Tuning {
                options: &options,
                task: Task::Binary,
                base: &json!({"kept": 1}),
                folds: &folds,
                threads: 1 + life % 3,
                made_by: "",
                journal: Some(&journal),
                stop: &stop,
                progress: None,
            };
            let told = tune(&tuning, &fit);
            fits += ended.load(Ordering::Relaxed);
            match told {
                Ok(table) => {
                    assert_eq!(table.without_times(), whole, "{name}");
                    assert!(life >= 5, "{name} took {life} lives");
                    break;
                }
                Err(TrainError::Stopped) => {
                    let mut bytes = std::fs::read(&journal).unwrap();
                    bytes.extend_from_slice(b"{\"trial\":3,\"rou");
                    std::fs::write(&journal, bytes).unwrap();
                }
                Err(fault) => panic!("{fault}"),
            }
        }
        // Nothing was fitted twice.
        assert_eq!(fits, whole.trials.len() * 2, "{name}");
        // A finished tuning is told without a fit.
        let none = |_: &Value, _: &Set, _: Option<&Set>, _: &Budget<'_>| Err(TrainError::asked("no fit", ""));
        let case = Case { threads: 2, journal: Some(journal.clone()), progress: None };
        assert_eq!(run(&options, &folds, &case, &none).unwrap().without_times(), whole);
        // Another tuning does not go on with it.
        let other = TuneOptions { seed: 5, ..options.clone() };
        let fault = run(&other, &folds, &case, &weighted).unwrap_err().to_string();
        assert!(fault.contains("it is of another tuning"), "{fault}");
        let mut moved = folds.clone();
        moved[0].train.labels[0] = 1.0 - moved[0].train.labels[0];
        assert!(run(&options, &moved, &case, &weighted).unwrap_err().to_string().contains("rows differ"));
    }
    let odd = folder.path().join("odd.jsonl");
    std::fs::write(&odd, "a text\n").unwrap();
    let case = Case { threads: 1, journal: Some(odd), progress: None };
    let fault = run(&options(TuneMethod::Random, space()), &folds, &case, &weighted).unwrap_err().to_string();
    assert!(fault.contains("odd.jsonl: its first line is not a tuning's"), "{fault}");
}

#[test]
fn trials_that_fail_are_told() {
    let kinds = json!({"b": [0.1, 0.3], "kind": ["broken", "whole"]});
    let options = TuneOptions { trials: None, ..options(TuneMethod::Grid, kinds) };
    let table = run(&options, &folds(1), &ALONE, &weighted).unwrap();
    assert_eq!(table.trials.iter().filter(|trial| trial.failed.as_deref() == Some("it is broken")).count(), 2);
    assert_eq!(table.best().unwrap().params["kind"], "whole");
    let text = table.text(10);
    assert_eq!(text.lines().count(), 5);
    assert!(
        text.lines().nth(1).unwrap().contains("whole") && text.lines().last().unwrap().ends_with("it is broken"),
        "{text}"
    );
    let broken = TuneOptions { space: json!({"kind": "broken", "b": 1}).as_object().unwrap().clone(), ..options };
    let fault = run(&broken, &folds(1), &ALONE, &weighted).unwrap_err().to_string();
    assert!(fault.contains("all 1 trials failed; the first: it is broken"), "{fault}");
}

#[test]
fn progress_is_told() {
    let told = Mutex::new(Vec::new());
    let progress = |progress: TuneProgress| told.lock().unwrap().push(progress);
    let case = Case { progress: Some(&progress), ..ALONE };
    run(&options(TuneMethod::Tpe, space()), &folds(2), &case, &weighted).unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!((told.len(), told[39].done, told[39].total, told[39].seconds_left), (40, 40, 40, Some(0.0)));
    assert!(told[0].best.is_none() && told[39].best > Some(0.5) && told[5].seconds_left > Some(0.0));
}

#[test]
fn cards_and_early_stopping() {
    let cards = CardOptions { by: "card".into(), k: 5, every: "1d".into() };
    let options = TuneOptions {
        cards: Some(cards),
        metric: Some("card_precision_5".into()),
        valid: 0.2,
        trials: Some(4),
        ..options(TuneMethod::Random, space())
    };
    let folds = folds(1);
    let rows = folds[0].train.rows();
    let fit = |params: &Value, set: &Set, valid: Option<&Set>, budget: &Budget<'_>| {
        let valid = valid.unwrap();
        assert_eq!(set.rows() + valid.rows(), rows);
        assert!(set.times.iter().max() < valid.times.iter().min() && valid.rows() == rows / 5);
        weighted(params, set, Some(valid), budget)
    };
    let table = run(&options, &folds, &ALONE, &fit).unwrap();
    assert!(table.more_is_better && table.best().unwrap().mean.unwrap() > 0.3, "{:?}", table.best());
    assert!(table.best().unwrap().folds[0].contains_key("average_precision"));
}

#[test]
fn faults_are_named() {
    let check = |change: &dyn Fn(&mut TuneOptions)| {
        let mut options = options(TuneMethod::Tpe, space());
        change(&mut options);
        options.check(Task::Binary).map_err(|fault| fault.to_string()).unwrap_err()
    };
    for (fault, expected) in [
        (check(&|o| o.metric = Some("aucc".into())), "did you mean `auc`?"),
        (check(&|o| o.trials = Some(0)), "trials is 0"),
        (check(&|o| o.batch = 0), "batch is 0"),
        (check(&|o| o.valid = 1.0), "valid is 1"),
        (check(&|o| o.method = TuneMethod::Halving), "method halving lacks `halving`"),
        (
            check(&|o| o.halving = Some(HalvingOptions { of: "trees".into(), from: 1.0, to: 9.0, keep: 3 })),
            "but the method is another",
        ),
        (
            check(&|o| {
                o.method = TuneMethod::Halving;
                o.halving = Some(HalvingOptions { of: "depth".into(), from: 1.0, to: 9.0, keep: 3 });
            }),
            "space.depth: depth is what halving gives more of",
        ),
    ] {
        assert!(fault.contains(expected), "{fault}");
    }
    let learner: Learner = serde_json::from_value(json!({"gbdt": {"trees": 5}})).unwrap();
    let options = options(TuneMethod::Tpe, json!({"leafs": {"int": [2, 9]}}));
    let fault = check_names(&options, &learner).unwrap_err().to_string();
    assert!(fault.contains("space: gbdt has no setting `leafs`; did you mean `leaves`?"), "{fault}");
    let learner = learner_of(&learner, &json!({"leaves": 7, "rate": 0.2})).unwrap();
    assert!(matches!(learner, Learner::Gbdt(gbdt) if gbdt.leaves == 7 && gbdt.rate == 0.2 && gbdt.trees == 100));
}

use std::path::Path;

use serde_json::Value;

use super::*;
use crate::base::{DAY, SplitMix64};
use crate::train::data::{Column, Matrix};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/train/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn close(ours: Option<f64>, expected: &Value, tolerance: f64, what: &str) {
    match (ours, expected.as_f64()) {
        (Some(ours), Some(expected)) => {
            assert!((ours - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {ours} for {expected}");
        }
        (ours, expected) => assert_eq!(ours, expected, "{what}"),
    }
}

#[test]
fn statistics_are_those_of_scikit_learn() {
    let mut compared = 0;
    for case in golden()["cases"].as_array().unwrap() {
        let scores: Vec<Vec<f64>> = case["scores"].as_array().unwrap().iter().map(floats).collect();
        let task = match case["task"].as_str().unwrap() {
            "binary" => Task::Binary,
            "classes" => Task::Classes(scores.len() as u32),
            _ => Task::Regression,
        };
        let labels = floats(&case["labels"]);
        let times: Vec<u32> = case["times"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect();
        let judged = Judged::new(task, &scores, &labels, case["threshold"].as_f64().unwrap()).unwrap();
        for metric in metrics_of(task) {
            let what = format!("{} of {}", metric.name(), case["name"]);
            close(judged.value(metric), &case["expected"][metric.name()], 1e-9, &what);
            close(
                judged.resampled(metric, &times),
                &case["resampled"][metric.name()],
                1e-9,
                &format!("{what}, resampled"),
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 6 * 9 + 12 + 2 * 5);
}

#[test]
fn delong_is_what_all_pairs_say() {
    for case in golden()["delong"].as_array().unwrap() {
        let (a, b, labels) = (floats(&case["challenger"]), floats(&case["champion"]), floats(&case["labels"]));
        for (name, variance) in [
            ("challenger", delong_variance(&a, None, &labels)),
            ("champion", delong_variance(&b, None, &labels)),
            ("difference", delong_variance(&a, Some(&b), &labels)),
        ] {
            close(variance, &case["variance"][name], 1e-12, name);
        }
    }
}

/// Rows with a champion and a challenger whose scores have more noise the greater `noise`.
fn rows(seed: u64, rows: usize, noise: f64) -> (Set, Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut random = SplitMix64::new(seed);
    let labels: Vec<f64> = (0..rows).map(|_| f64::from(u8::from(random.unit() < 0.3))).collect();
    let mut scores = |noise: f64| -> Vec<Vec<f64>> {
        let score = |label: &f64| (0.35 + 0.2 * label + noise * (random.unit() + random.unit() - 1.0)).clamp(0.0, 1.0);
        vec![labels.iter().map(score).collect()]
    };
    let (champion, challenger) = (scores(0.3), scores(noise));
    let number: Vec<f32> = (0..rows).map(|row| if row % 50 == 0 { f32::NAN } else { (row % 97) as f32 }).collect();
    let set = Set {
        inputs: Matrix { names: vec!["amount".into()], columns: vec![Column::Number(number)] },
        labels,
        weights: None,
        times: (0..rows as i64).map(|row| row * DAY / 100).collect(),
        known: (0..rows as i64).map(|row| row * DAY / 100 + DAY).collect(),
        extra: vec![
            ("country".into(), (0..rows).map(|row| ["at", "be", "ch"][row % 7 % 3].to_owned()).collect()),
            ("customer".into(), (0..rows).map(|row| format!("c{}", row / 4 % 200)).collect()),
        ],
    };
    (set, challenger, champion)
}

fn judged(seed: u64, noise: f64, options: &EvaluateOptions, threads: usize) -> Evaluation {
    let (set, challenger, champion) = rows(seed, 1500, noise);
    evaluate(&set, Task::Binary, &challenger, Some(&champion), options, threads).unwrap()
}

fn difference(evaluation: &Evaluation, metric: &str) -> Told {
    evaluation.metrics.iter().find(|found| found.metric == metric).unwrap().difference.unwrap()
}

#[test]
fn intervals_hold_what_is_true() {
    // Both models are equally good, so nineteen of twenty intervals of the difference hold 0.
    let options = EvaluateOptions { repeats: 100, ..EvaluateOptions::default() };
    let (mut held, mut width) = ([0; 3], [0.0; 3]);
    const TRIALS: usize = 60;
    for seed in 0..TRIALS as u64 {
        let (set, challenger, champion) = rows(seed, 700, 0.3);
        let found = evaluate(&set, Task::Binary, &challenger, Some(&champion), &options, 2).unwrap();
        for (i, metric) in ["auc", "average_precision", "log_loss"].into_iter().enumerate() {
            let told = difference(&found, metric);
            held[i] += u32::from(told.low.unwrap() <= 0.0 && 0.0 <= told.high.unwrap());
            width[i] += (told.high.unwrap() - told.low.unwrap()) / TRIALS as f64;
        }
    }
    // Binomial(60, 0.95): fewer than 50 happen once in a thousand.
    assert!(held.iter().all(|held| (50..=60).contains(held)), "{held:?} of {TRIALS}");
    assert!(held.iter().any(|held| *held < 60), "intervals that hold everything say nothing");
    // Of two areas of .8 with 210 positives; the bootstrap of the precision is of like size.
    assert!((0.03..0.12).contains(&width[0]) && (0.03..0.22).contains(&width[1]), "{width:?}");
}

#[test]
fn the_bootstrap_agrees_with_the_formulas() {
    // Each customer one row: drawing customers is drawing rows, and that is what DeLong reckons with.
    let (mut set, challenger, champion) = rows(11, 1500, 0.25);
    set.extra.push(("row".into(), (0..1500).map(|row| row.to_string()).collect()));
    let formulas = EvaluateOptions::default();
    let drawn = EvaluateOptions { by: Some("row".into()), repeats: 4000, ..EvaluateOptions::default() };
    let of = |options| evaluate(&set, Task::Binary, &challenger, Some(&champion), options, 2).unwrap();
    let (formulas, drawn) = (of(&formulas), of(&drawn));
    for metric in ["auc", "log_loss", "brier", "accuracy"] {
        let (a, b) = (difference(&formulas, metric), difference(&drawn, metric));
        let width = |told: &Told| told.high.unwrap() - told.low.unwrap();
        assert_eq!(a.value, b.value);
        assert!((width(&a) / width(&b) - 1.0).abs() < 0.1, "{metric}: {a:?} {b:?}");
        assert!((a.low.unwrap() - b.low.unwrap()).abs() < 0.15 * width(&a), "{metric}: {a:?} {b:?}");
    }
    assert_eq!(drawn.metrics.iter().find(|found| found.metric == "auc").unwrap().method, Method::Bootstrap);
}

#[test]
fn rows_of_an_entity_are_drawn_together() {
    // Every row four times: the interval of rows drawn one by one is half as wide as it should be.
    let (set, challenger, champion) = rows(5, 500, 0.25);
    let four: Vec<u32> = (0..2000).map(|at| at / 4).collect();
    let take = |scores: &[Vec<f64>]| vec![four.iter().map(|row| scores[0][*row as usize]).collect::<Vec<f64>>()];
    let mut many = set.take(&four);
    many.extra.push(("twin".into(), four.iter().map(u32::to_string).collect()));
    let width = |set: &Set, challenger: &[Vec<f64>], champion: &[Vec<f64>], by: Option<&str>| {
        let options = EvaluateOptions { by: by.map(str::to_owned), repeats: 500, ..EvaluateOptions::default() };
        let found = evaluate(set, Task::Binary, challenger, Some(champion), &options, 2).unwrap();
        let told = difference(&found, "average_precision");
        told.high.unwrap() - told.low.unwrap()
    };
    let once = width(&set, &challenger, &champion, None);
    let alone = width(&many, &take(&challenger), &take(&champion), None);
    let together = width(&many, &take(&challenger), &take(&champion), Some("twin"));
    assert!((alone / once - 0.5).abs() < 0.1 && (together / once - 1.0).abs() < 0.15, "{once} {alone} {together}");
}

#[test]
fn the_same_on_any_number_of_threads() {
    let options = EvaluateOptions {
        slices: vec!["country".into(), "amount".into()],
        cards: Some(CardOptions { by: "customer".into(), k: 20, every: "1d".into() }),
        promote_if: Some("auc_challenger >= auc_champion and card_precision_20_difference > -1".into()),
        repeats: 50,
        ..EvaluateOptions::default()
    };
    let one = judged(3, 0.2, &options, 1);
    assert_eq!(one, judged(3, 0.2, &options, 3));
    assert_ne!(one, judged(3, 0.2, &EvaluateOptions { seed: 1, ..options.clone() }, 1));
    let verdict = one.verdict.clone().unwrap();
    assert_eq!((verdict.holds, verdict.missing.len()), (Some(true), 0), "{verdict:?}");
    // What is kept is read again.
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), one);
}

#[test]
fn slices_part_the_rows() {
    let slices = ["country", "customer", "amount"].map(str::to_owned).to_vec();
    let found = judged(3, 0.2, &EvaluateOptions { slices, repeats: 0, ..EvaluateOptions::default() }, 1);
    let of = |column: &str| found.slices.iter().filter(|slice| slice.column == column).collect::<Vec<_>>();
    for column in ["country", "customer", "amount"] {
        assert_eq!(of(column).iter().map(|slice| slice.rows).sum::<u64>(), 1500, "{column}");
        assert_eq!(of(column).iter().filter_map(|slice| slice.positives).sum::<u64>(), found.positives.unwrap());
    }
    let names = |column: &str| of(column).iter().map(|slice| slice.value.clone()).collect::<Vec<_>>();
    assert_eq!(names("country"), ["at", "be", "ch"]);
    assert_eq!(names("amount"), ["≤ 23", "23 – 46.5", "46.5 – 71.75", "> 71.75", "(missing)"]);
    assert_eq!((names("customer").len(), names("customer")[11].as_str()), (12, "(189 others)"));
    let auc = &of("country")[0].metrics.iter().find(|found| found.metric == "auc").unwrap().clone();
    assert!(auc.method == Method::Delong && auc.difference.unwrap().low.unwrap() < auc.difference.unwrap().value);
    assert!(found.metrics.iter().find(|m| m.metric == "f1").unwrap().difference.unwrap().low.is_none());
}

#[test]
fn without_a_champion_nothing_is_compared() {
    let (set, challenger, _) = rows(3, 300, 0.2);
    let options = EvaluateOptions { promote_if: Some("auc_challenger >= auc_champion".into()), ..Default::default() };
    let found = evaluate(&set, Task::Binary, &challenger, None, &options, 1).unwrap();
    let verdict = found.verdict.unwrap();
    assert_eq!((verdict.holds, verdict.missing), (None, vec!["auc_champion".to_owned()]));
    assert!(found.metrics.iter().all(|metric| metric.champion.is_none() && metric.difference.is_none()));
    assert!(found.champion_calibration.is_empty() && !found.calibration.is_empty());
}

#[test]
fn faults_are_told_at_the_check() {
    let check = |options: EvaluateOptions, task| options.check(task).unwrap_err().to_string();
    let default = EvaluateOptions::default;
    for (options, task, expected) in [
        (EvaluateOptions { metrics: Some(vec!["acu".into()]), ..default() }, Task::Binary, "did you mean `auc`?"),
        (
            EvaluateOptions { metrics: Some(vec!["auc".into()]), ..default() },
            Task::Regression,
            "`auc` is no statistic of a regression model; there are mse, rmse, mae, r2, mape",
        ),
        (
            EvaluateOptions { promote_if: Some("rmse_challenger < rmse_champ".into()), ..default() },
            Task::Regression,
            "did you mean `rmse_champion`?",
        ),
        (
            // A statistic that is not computed cannot be asked for.
            EvaluateOptions {
                metrics: Some(vec!["auc".into()]),
                promote_if: Some("f1_challenger > 0.1".into()),
                ..default()
            },
            Task::Binary,
            "`f1_challenger` is no name here",
        ),
        (EvaluateOptions { promote_if: Some("positives > 3".into()), ..default() }, Task::Regression, "no name here"),
        (EvaluateOptions { confidence: 95.0, ..default() }, Task::Binary, "confidence is 95"),
    ] {
        let fault = check(options, task);
        assert!(fault.contains(expected), "{fault}");
    }
    let (set, challenger, _) = rows(3, 300, 0.2);
    let of = |options: &EvaluateOptions, scores: &[Vec<f64>]| {
        evaluate(&set, Task::Binary, scores, None, options, 1).unwrap_err().to_string()
    };
    let near = of(&EvaluateOptions { slices: vec!["contry".into()], ..default() }, &challenger);
    assert!(near.contains("did you mean `country`?"), "{near}");
    let short = of(&default(), &[challenger[0][..5].to_vec()]);
    assert!(short.contains("5 scores for 300 labels"), "{short}");
    let nan = of(&default(), &[vec![f64::NAN; 300]]);
    assert!(nan.contains("the score of row 0 is no number"), "{nan}");
}

#[test]
fn calibration_has_bins_of_like_size() {
    let found = judged(3, 0.2, &EvaluateOptions { repeats: 0, ..EvaluateOptions::default() }, 1);
    assert_eq!(found.calibration.iter().map(|bin| bin.rows).sum::<u64>(), 1500);
    assert!(found.calibration.windows(2).all(|pair| pair[0].score < pair[1].score));
    assert!(found.calibration.iter().all(|bin| bin.low <= bin.share && bin.share <= bin.high && bin.rows >= 100));
}

//! Preparation against a naive twin, and fitted pipelines of every learner through export and check.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::check::check;
use super::data::{Column, MISSING, Matrix, Set, Task};
use super::forest::Forest;
use super::gbdt::Gbdt;
use super::handbook;
use super::learner::{Learner, Options};
use super::linear::LinearRegression;
use super::logistic::Logistic;
use super::model::{Ensemble, Fitted, Node, Split};
use super::onnx::export;
use super::pipeline::Pipeline;
use super::prepare::{Encode, Impute, Prepare, PrepareColumn, Scale, Step};
use super::tree::DecisionTree;
use crate::base::EventTime;

fn numbers(values: &[f32]) -> Column {
    Column::Number(values.to_vec())
}

fn category(texts: &[Option<&str>]) -> Column {
    let mut levels: Vec<String> = Vec::new();
    let mut code = |text: &str| {
        levels.iter().position(|l| l == text).unwrap_or_else(|| {
            levels.push(text.to_string());
            levels.len() - 1
        }) as u32
    };
    let codes = texts.iter().map(|t| t.map_or(MISSING, &mut code)).collect();
    Column::Category { codes, levels }
}

fn matrix(columns: Vec<(&str, Column)>) -> Matrix {
    let (names, columns) = columns.into_iter().map(|(n, c)| (n.to_string(), c)).unzip();
    Matrix { names, columns }
}

fn values(matrix: &Matrix, name: &str) -> Vec<f32> {
    let at = matrix.names.iter().position(|n| n == name).unwrap_or_else(|| panic!("{name} in {:?}", matrix.names));
    match &matrix.columns[at] {
        Column::Number(v) => v.clone(),
        Column::Category { .. } => panic!("{name} is a category"),
    }
}

fn logistic() -> Learner {
    Learner::Logistic(Logistic::default())
}

fn gbdt() -> Learner {
    Learner::Gbdt(Gbdt::default())
}

proptest! {
    /// What is fitted on the training rows does to other rows what the book's formula does.
    #[test]
    fn numbers_are_filled_and_scaled_as_the_book_says(
        train in prop::collection::vec(prop::option::weighted(0.8, -100.0f32..100.0), 3..40),
        other in prop::collection::vec(prop::option::weighted(0.8, -300.0f32..300.0), 1..20),
        impute in prop::sample::select(vec![Impute::None, Impute::Mean, Impute::Median, Impute::Constant(7.5)]),
        scale in prop::sample::select(vec![Scale::None, Scale::Standard, Scale::MinMax]),
    ) {
        let mut train = train;
        train[0] = Some(1.5);
        let column = |rows: &[Option<f32>]| numbers(&rows.iter().map(|v| v.unwrap_or(f32::NAN)).collect::<Vec<_>>());
        let prepare = Prepare { impute: Some(impute), scale: Some(scale), ..Prepare::default() };
        let recipe = prepare.fit(&matrix(vec![("x", column(&train))]), &logistic()).expect("fits");
        let told = recipe.apply(&matrix(vec![("other", column(&other)), ("x", column(&other))])).expect("applies");
        prop_assert_eq!(&told.names, &["x"]);

        let present: Vec<f64> = train.iter().flatten().map(|v| f64::from(*v)).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let fill = match impute {
            Impute::None => None,
            Impute::Mean => Some(mean(&present)),
            Impute::Median => {
                let mut sorted = present.clone();
                sorted.sort_by(f64::total_cmp);
                let half = sorted.len() / 2;
                Some(if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 })
            }
            Impute::Constant(c) => Some(c),
        };
        let filled: Vec<f64> = train.iter().filter_map(|v| v.map(f64::from).or(fill)).collect();
        let (offset, spread) = match scale {
            Scale::None => (0.0, 1.0),
            Scale::Standard => {
                let m = mean(&filled);
                (m, mean(&filled.iter().map(|v| (v - m) * (v - m)).collect::<Vec<_>>()).sqrt())
            }
            Scale::MinMax => {
                let low = filled.iter().copied().fold(f64::INFINITY, f64::min);
                (low, filled.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low)
            }
        };
        // A spread that is but rounding makes the formula rounding, too.
        prop_assume!(spread > 1e-3 || spread == 0.0);
        let spread = if spread == 0.0 { 1.0 } else { spread };
        for (told, given) in values(&told, "x").iter().zip(&other) {
            match given.map(f64::from).or(fill) {
                None => prop_assert!(told.is_nan()),
                Some(v) => {
                    let wanted = (v - offset) / spread;
                    prop_assert!((f64::from(*told) - wanted).abs() < 1e-4 * (1.0 + wanted.abs()).max(1.0 / spread), "{told} {wanted}");
                }
            }
        }
    }
}

#[test]
fn categories_by_every_encoding() {
    let train = category(&[Some("b"), Some("a"), None, Some("b"), Some("c"), Some("c"), Some("")]);
    let other = matrix(vec![("k", category(&[Some("c"), Some("new"), None, Some("a"), Some("b"), Some("")]))]);
    let recipe =
        |learner: Learner, prepare: Prepare| prepare.fit(&matrix(vec![("k", train.clone())]), &learner).expect("fits");

    let ones = recipe(logistic(), Prepare::default()).apply(&other).expect("applies");
    assert_eq!(ones.names, ["k=a", "k=b", "k=c"]);
    assert_eq!(values(&ones, "k=a"), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(values(&ones, "k=c"), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);

    // The two most frequent only.
    let two = recipe(logistic(), Prepare { levels: Some(2), ..Prepare::default() });
    assert_eq!(two.columns[0].step, Step::OneHot(vec!["b".into(), "c".into()]));

    let ordinal = Prepare { encode: Some(Encode::Ordinal), ..Prepare::default() };
    let places = values(&recipe(gbdt(), ordinal.clone()).apply(&other).expect("applies"), "k");
    assert_eq!(places[0], 2.0);
    assert!(places[1].is_nan() && places[2].is_nan() && places[5].is_nan());
    assert_eq!(places[3..5], [0.0, 1.0]);
    // For a linear model gaps are filled and places scaled like numbers.
    let places = values(&recipe(logistic(), ordinal).apply(&other).expect("applies"), "k");
    assert!(places.iter().all(|p| p.is_finite()) && places[1] == places[2]);

    let native = recipe(gbdt(), Prepare::default()).apply(&other).expect("applies");
    let levels = ["a", "b", "c"].map(String::from).to_vec();
    assert_eq!(native.columns[0], Column::Category { codes: vec![2, MISSING, MISSING, 0, 1, MISSING], levels });
}

#[test]
fn settings_that_do_not_suit_are_refused() {
    let inputs = matrix(vec![
        ("x", numbers(&[1.0, 2.0])),
        ("k", category(&[Some("a"), None])),
        ("gone", numbers(&[f32::NAN; 2])),
    ]);
    let with = |name: &str, own: PrepareColumn| Prepare {
        columns: BTreeMap::from([(name.into(), own)]),
        ..Prepare::default()
    };
    let refused = |prepare: Prepare, learner: Learner| prepare.fit(&inputs, &learner).expect_err("refused").to_string();
    assert!(refused(Prepare::default(), logistic()).contains("gone has no value in any training row"));
    assert!(Prepare::default().fit(&inputs, &gbdt()).is_ok());
    assert!(refused(with("y", PrepareColumn::default()), gbdt()).contains("y is no input"));
    let encode = PrepareColumn { encode: Some(Encode::OneHot), ..PrepareColumn::default() };
    assert!(refused(with("x", encode), gbdt()).contains("x is a number"));
    let impute = PrepareColumn { impute: Some(Impute::Mean), ..PrepareColumn::default() };
    assert!(refused(with("k", impute), gbdt()).contains("k is a category"));
    let native = PrepareColumn { encode: Some(Encode::Native), ..PrepareColumn::default() };
    assert!(refused(with("k", native), logistic()).contains("logistic takes numbers"));
    let none = PrepareColumn { levels: Some(0), ..PrepareColumn::default() };
    assert!(refused(with("k", none), gbdt()).contains("levels"));
    let constant = PrepareColumn { impute: Some(Impute::Constant(1e300)), ..PrepareColumn::default() };
    assert!(refused(with("x", constant), gbdt()).contains("finite"));
    let recipe = Prepare::default().fit(&inputs, &gbdt()).expect("fits");
    let wrong = |m: Matrix| recipe.apply(&m).expect_err("refused").to_string();
    assert!(wrong(matrix(vec![("x", numbers(&[1.0]))])).contains("input k has no column"));
    assert!(wrong(matrix(vec![("x", category(&[None]))])).contains("x holds categories"));
    assert!(wrong(matrix(vec![("x", numbers(&[1.0])), ("k", numbers(&[1.0]))])).contains("k holds numbers"));
    assert!(wrong(matrix(vec![("x", numbers(&[1.0])), ("k", category(&[None, None]))])).contains("k has 2 rows"));
}

#[test]
fn settings_read_as_they_are_written() {
    let text = r#"{"impute": "median", "scale": "min_max", "columns": {"x": {"impute": {"constant": -1}}, "k": {"encode": "one_hot", "levels": 9}}}"#;
    let prepare: Prepare = serde_json::from_str(text).expect("reads");
    assert_eq!((prepare.impute, prepare.scale), (Some(Impute::Median), Some(Scale::MinMax)));
    assert_eq!(prepare.columns["x"].impute, Some(Impute::Constant(-1.0)));
    assert_eq!(prepare.columns["k"].encode, Some(Encode::OneHot));
    assert!(serde_json::from_str::<Prepare>(r#"{"imputation": "mean"}"#).is_err());
}

/// Numbers and categories with gaps, and labels that depend on both.
fn made(rows: usize, task: Task) -> Set {
    let mut state = 11u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let (mut x, mut y, mut k, mut labels) = (vec![], vec![], vec![], vec![]);
    let names: Vec<String> = (0..12).map(|i| format!("shop {i}")).collect();
    for _ in 0..rows {
        let a = next(2000) as f32 / 7.0 - 140.0;
        let (b, code) = (next(50) as f32 / 10.0, next(13) as usize);
        let z = a / 60.0 + if code % 3 == 0 { 1.5 } else { -0.5 } + if next(5) == 0 { 1.0 } else { 0.0 };
        x.push(if next(8) == 0 { f32::NAN } else { a });
        y.push(b);
        k.push(names.get(code).map(String::as_str));
        labels.push(match task {
            Task::Binary => f64::from(u8::from(z > 0.4)),
            Task::Classes(n) => f64::from((z.abs() as u32).min(n - 1)),
            Task::Regression => f64::from(z + b),
        });
    }
    let inputs = matrix(vec![("x", numbers(&x)), ("y", numbers(&y)), ("shop", category(&k))]);
    let times = vec![EventTime::default(); rows];
    Set { inputs, labels, weights: None, known: times.clone(), times, extra: Vec::new() }
}

#[test]
fn every_learner_through_export_and_check() {
    let small = Gbdt { trees: 12, leaves: 8, min_rows: 5, ..Gbdt::default() };
    let forest = Forest { trees: 6, depth: Some(6), ..Forest::default() };
    let tree = DecisionTree { depth: Some(4), ..DecisionTree::default() };
    let ordinal = Prepare { encode: Some(Encode::Ordinal), ..Prepare::default() };
    let ones = Prepare { encode: Some(Encode::OneHot), impute: Some(Impute::Median), ..Prepare::default() };
    for (learner, tasks) in [
        (Learner::Gbdt(small), vec![Task::Binary, Task::Classes(3), Task::Regression]),
        (Learner::Forest(forest), vec![Task::Binary, Task::Classes(3), Task::Regression]),
        (Learner::Tree(tree), vec![Task::Binary, Task::Classes(3), Task::Regression]),
        (logistic(), vec![Task::Binary, Task::Classes(3)]),
        (Learner::Linear(LinearRegression::default()), vec![Task::Regression]),
    ] {
        for task in tasks {
            let set = made(500, task);
            for (prepare, name) in
                [(Prepare::default(), "default"), (ordinal.clone(), "ordinal"), (ones.clone(), "one_hot")]
            {
                let what = format!("{} {task:?} {name}", learner.name());
                let fitted = Pipeline::fit(&prepare, &learner, &set, task, None, &Options::default());
                let pipeline = fitted.unwrap_or_else(|e| panic!("{what}: {e}"));
                let onnx = export(&pipeline).unwrap_or_else(|e| panic!("{what}: {e}"));
                let checked = check(&pipeline, &onnx, &set.inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(checked.max_difference < 1e-7 && checked.refused == 0, "{what} {checked:?}");
                // The learner's own sums, in double precision, are the same to single precision.
                let single = pipeline.predict(&set.inputs).expect("predicts");
                let outputs = pipeline.outputs(&set.inputs).expect("predicts");
                assert_eq!(outputs.last(), Some(&single.values_of(single.width - 1)));
                let double = pipeline.fitted.predict(&pipeline.prepare.apply(&set.inputs).expect("applies"));
                assert_eq!(outputs.len(), double.len());
                for row in 0..set.rows() {
                    for (output, double) in double.iter().rev().enumerate() {
                        let single = f64::from(single.row(row)[single.width - 1 - output]);
                        assert!((single - double[row]).abs() < 1e-5, "{what} row {row}: {single} {}", double[row]);
                    }
                }
                let text = serde_json::to_string(&pipeline).expect("json");
                assert_eq!(serde_json::from_str::<Pipeline>(&text).expect("reads"), pipeline, "{what}");
            }
        }
    }
}

/// Every number beside a threshold, with every other one and every category.
fn everywhere(ensemble: &Ensemble, shops: &[String]) -> Matrix {
    let mut beside = [vec![f32::NAN, 0.0], vec![f32::NAN, 0.0]];
    for node in ensemble.trees.iter().flat_map(|t| &t.nodes) {
        if let Node::Branch { column, split: Split::AtMost(t), .. } = node {
            beside[*column as usize].extend([*t, t.next_up(), t.next_down()]);
        }
    }
    let (mut x, mut y, mut codes) = (vec![], vec![], vec![]);
    for a in &beside[0] {
        for b in &beside[1] {
            for code in (0..shops.len() as u32).chain([MISSING]) {
                x.push(*a);
                y.push(*b);
                codes.push(code);
            }
        }
    }
    matrix(vec![("x", numbers(&x)), ("y", numbers(&y)), ("shop", Column::Category { codes, levels: shops.to_vec() })])
}

/// Moves each threshold in turn to the next number, takes a category out of each set, sends each gap the other way, changes each leaf: the check sees every change that
/// any row can see, with three rows of the set to begin with.
#[test]
fn the_check_sees_every_question() {
    let set = made(400, Task::Binary);
    let learner = Learner::Gbdt(Gbdt { trees: 4, leaves: 8, min_rows: 3, ..Gbdt::default() });
    let pipeline =
        Pipeline::fit(&Prepare::default(), &learner, &set, Task::Binary, None, &Options::default()).expect("fits");
    let Fitted::Ensemble(ensemble) = &pipeline.fitted else { panic!("trees") };
    let Step::Native(shops) = &pipeline.prepare.columns[2].step else { panic!("a category") };
    let everywhere = everywhere(ensemble, shops);
    let told = pipeline.predict(&everywhere).expect("predicts");
    let (mut seen, mut unseen) = (0, 0);
    for (t, tree) in ensemble.trees.iter().enumerate() {
        for (n, change) in (0..tree.nodes.len()).flat_map(|n| [(n, false), (n, true)]) {
            let mut wrong = pipeline.clone();
            let Fitted::Ensemble(changed) = &mut wrong.fitted else { continue };
            match (&mut changed.trees[t].nodes[n], change) {
                (Node::Branch { missing_left, .. }, true) => *missing_left = !*missing_left,
                (Node::Branch { split: Split::AtMost(threshold), .. }, _) => *threshold = threshold.next_up(),
                (Node::Branch { split: Split::In(set), .. }, _) => drop(set.remove(0)),
                (Node::Leaf { values }, false) => values[0] += 1e-3,
                (Node::Leaf { .. }, true) => continue,
            }
            let visible = wrong.predict(&everywhere).expect("predicts") != told;
            let found = check(&pipeline, &export(&wrong).expect("exports"), &set.inputs.take(&[0, 1, 2]));
            assert_eq!(found.is_err(), visible, "tree {t} node {n} gap {change}: {found:?} {:?}", tree.nodes);
            *(if visible { &mut seen } else { &mut unseen }) += 1;
        }
    }
    println!("{seen} changes seen, {unseen} that no row can see");
    assert!(seen > 30 && seen > 5 * unseen, "{seen} {unseen}");
}

#[test]
fn the_handbooks_trees_are_scored_as_they_were_fitted() {
    let Some(folder) = handbook::folder("the handbook's trees through export") else { return };
    let (train, test) = handbook::sets(&folder, handbook::BASELINE);
    let options = Options { threads: 2, ..Options::default() };
    for (learner, trees) in [
        (Learner::Tree(DecisionTree { depth: Some(2), ..DecisionTree::default() }), 1),
        (Learner::Gbdt(Gbdt { trees: 20, ..Gbdt::default() }), 20),
        (Learner::Forest(Forest { trees: 5, ..Forest::default() }), 5),
    ] {
        let pipeline =
            Pipeline::fit(&Prepare::default(), &learner, &train, Task::Binary, None, &options).expect("fits");
        let Fitted::Ensemble(ensemble) = &pipeline.fitted else { panic!("trees") };
        assert_eq!(ensemble.trees.len(), trees);
        let onnx = export(&pipeline).expect("exports");
        let checked = check(&pipeline, &onnx, &test.inputs).expect("agrees");
        let told = pipeline.predict(&test.inputs).expect("predicts").values_of(1);
        let (auc, precision) = handbook::auc_and_precision(&test.labels, &told);
        println!(
            "{}: AUC {auc:.4}, average precision {precision:.4}, {} bytes, {checked:?}",
            learner.name(),
            onnx.len()
        );
        assert!(checked.max_difference < 1e-7 && checked.refused == 0 && auc > 0.75, "{checked:?} {auc}");
    }
}

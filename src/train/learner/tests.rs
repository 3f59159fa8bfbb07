//! Fits as a caller sees them: quality, repetition, threads, limits, and what is refused.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::base::SplitMix64;
use crate::train::model::{Ensemble, Node};

/// Rows whose labels follow from numbers, a level and whether one is missing, with noise.
fn set(rows: usize, seed: u64, task: Task) -> Set {
    let mut random = SplitMix64::new(seed);
    let mut numbers = vec![Vec::new(); 9];
    let (mut codes, mut labels) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for _ in 0..rows {
        let mut x: [f32; 9] = std::array::from_fn(|_| (random.unit() * 4.0 - 2.0) as f32);
        let level = random.below(12) as u32;
        let mut z =
            f64::from(x[0] * x[1]) + f64::from(x[2]).sin() * 2.0 + if level.is_multiple_of(3) { 1.5 } else { -0.5 };
        if random.unit() < 0.15 {
            x[3] = f32::NAN;
            z += 2.0;
        }
        labels.push(match task {
            Task::Binary => f64::from(u8::from(random.unit() < 1.0 / (1.0 + (-2.0 * z).exp()))),
            Task::Classes(n) => (z + 2.0 + random.unit()).clamp(0.0, f64::from(n) - 1.0).floor(),
            Task::Regression => z + 0.1 * random.unit(),
        });
        numbers.iter_mut().zip(x).for_each(|(column, x)| column.push(x));
        codes.push(if random.unit() < 0.05 { MISSING } else { level });
    }
    let mut columns: Vec<Column> = numbers.into_iter().map(Column::Number).collect();
    columns.push(Column::Category { codes, levels: (0..12).map(|level| format!("l{level}")).collect() });
    let names = (0..columns.len()).map(|index| format!("c{index}")).collect();
    Set {
        inputs: Matrix { names, columns },
        labels,
        weights: None,
        times: vec![0; rows],
        known: vec![0; rows],
        extra: Vec::new(),
    }
}

fn options(threads: usize, seed: u64) -> Options<'static> {
    Options { threads, seed, progress: None }
}

fn ensemble(learner: &Learner, set: &Set, task: Task, options: &Options) -> Ensemble {
    match fit(learner, set, task, None, options) {
        Ok(Fitted::Ensemble(ensemble)) => ensemble,
        other => panic!("no trees: {other:?}"),
    }
}

fn read(text: &str) -> Learner {
    serde_json::from_str(text).expect(text)
}

/// Share of squared error, or of wrong answers by the likeliest class, that a constant leaves and the model does not.
fn skill(model: &Fitted, set: &Set, task: Task) -> f64 {
    let told = model.predict(&set.inputs);
    let mean = set.labels.iter().sum::<f64>() / set.rows() as f64;
    let (mut error, mut constant) = (0.0, 0.0);
    for (row, label) in set.labels.iter().enumerate() {
        match task {
            Task::Classes(_) => {
                let likeliest = (0..told.len()).max_by(|a, b| told[*a][row].total_cmp(&told[*b][row]));
                error += f64::from(u8::from(likeliest != Some(*label as usize)));
                constant += 0.6;
                let total: f64 = told.iter().map(|told| told[row]).sum();
                assert!((total - 1.0).abs() < 1e-9);
            }
            _ => {
                error += (told[0][row] - label).powi(2);
                constant += (mean - label).powi(2);
            }
        }
    }
    1.0 - error / constant
}

#[test]
fn every_learner_of_trees_learns_every_task() {
    let tasks = [(Task::Binary, 0.45), (Task::Classes(4), 0.6), (Task::Regression, 0.9)];
    for (task, wanted) in tasks {
        let (train, test) = (set(2500, 1, task), set(1500, 2, task));
        for (text, less) in [
            (r#"{"gbdt": {}}"#, 0.0),
            (r#"{"gbdt": {"row_share": 0.7, "column_share": 0.6}}"#, 0.02),
            (r#"{"forest": {"trees": 30, "min_rows": 3, "columns": {"share": 0.5}}}"#, 0.12),
            (r#"{"forest": {"trees": 30, "min_rows": 3, "bins": 64, "columns": "all"}}"#, 0.12),
            (r#"{"tree": {"min_rows": 20}}"#, 0.22),
        ] {
            let model = fit(&read(text), &train, task, None, &options(2, 5)).expect(text);
            let skill = skill(&model, &test, task);
            assert!(skill > wanted - less, "{task:?} {text}: {skill}");
        }
    }
}

#[test]
fn threads_are_not_seen_in_a_model() {
    // As many rows as are worth several threads.
    for task in [Task::Binary, Task::Classes(3), Task::Regression] {
        let mut set = set(26_000, 3, task);
        set.weights = Some((0..set.rows()).map(|row| 0.5 + (row % 7) as f64).collect());
        for text in [
            r#"{"gbdt": {"trees": 2}}"#,
            r#"{"gbdt": {"trees": 2, "row_share": 0.8, "column_share": 0.5}}"#,
            r#"{"forest": {"trees": 2, "depth": 6}}"#,
            r#"{"tree": {"depth": 6}}"#,
        ] {
            let learner = read(text);
            let one = ensemble(&learner, &set, task, &options(1, 7));
            assert!(one.trees.iter().any(|tree| tree.nodes.len() > 30), "{text}");
            for threads in [2, 5] {
                let many = ensemble(&learner, &set, task, &options(threads, 7));
                assert!(one == many, "{task:?} {text} differs on {threads} threads");
            }
        }
    }
}

#[test]
fn what_is_drawn_follows_from_the_seed() {
    let set = set(800, 4, Task::Binary);
    for (text, drawn) in [
        (r#"{"gbdt": {"trees": 3}}"#, false),
        (r#"{"gbdt": {"trees": 3, "row_share": 0.5}}"#, true),
        (r#"{"gbdt": {"trees": 3, "column_share": 0.5}}"#, true),
        (r#"{"forest": {"trees": 3}}"#, true),
        (r#"{"tree": {}}"#, false),
    ] {
        let [a, b, c] = [1, 1, 2].map(|seed| ensemble(&read(text), &set, Task::Binary, &options(1, seed)));
        assert_eq!(a, b, "{text}");
        assert_eq!(a != c, drawn, "{text}");
    }
}

#[test]
fn the_order_of_rows_is_not_seen_in_a_boosted_model() {
    let set = set(3000, 11, Task::Binary);
    let back: Vec<u32> = (0..3000).rev().collect();
    let learner = read(r#"{"gbdt": {"trees": 20}}"#);
    let a = ensemble(&learner, &set, Task::Binary, &options(1, 0));
    let b = ensemble(&learner, &set.take(&back), Task::Binary, &options(1, 0));
    assert_eq!(a, b);
}

#[test]
fn boosting_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best() {
    for task in [Task::Binary, Task::Classes(3), Task::Regression] {
        let (train, valid) = (set(600, 5, task), set(2000, 6, task));
        let learner = read(r#"{"gbdt": {"trees": 400, "rate": 0.3, "stop_after": 5}}"#);
        let losses = std::sync::Mutex::new(Vec::new());
        let told = |progress: Progress| {
            losses.lock().expect("a lock").push(progress.loss.expect("a loss"));
            Continue::Yes
        };
        let options = Options { threads: 1, seed: 0, progress: Some(&told) };
        let Ok(Fitted::Ensemble(model)) = fit(&learner, &train, task, Some(&valid), &options) else {
            panic!("no model")
        };
        let losses = losses.into_inner().expect("a lock");
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let best = losses.iter().position(|loss| *loss == least).expect("a least");
        let outputs = model.base.len();
        assert!(best > 3 && losses.len() == best + 5, "{best} of {}", losses.len());
        assert_eq!(model.trees.len(), best * outputs);
        // The loss that was told is that of the model that is kept, computed from what it tells.
        let told = model.predict(&valid.inputs);
        let loss = |row: usize| match task {
            Task::Binary if valid.labels[row] == 1.0 => -told[0][row].ln(),
            Task::Binary => -(1.0 - told[0][row]).ln(),
            Task::Classes(_) => -told[valid.labels[row] as usize][row].ln(),
            Task::Regression => (told[0][row] - valid.labels[row]).powi(2),
        };
        let mean = (0..valid.rows()).map(loss).sum::<f64>() / valid.rows() as f64;
        assert!((mean - least).abs() < 1e-9, "{mean} {least}");
    }
}

#[test]
fn a_fit_can_be_stopped() {
    let set = set(500, 5, Task::Binary);
    for text in [r#"{"gbdt": {}}"#, r#"{"forest": {}}"#, r#"{"tree": {}}"#] {
        for threads in [1, 3] {
            let asked = AtomicU32::new(0);
            let told = |progress: Progress| {
                asked.fetch_add(1, Relaxed);
                if progress.done >= progress.total.min(4) { Continue::No } else { Continue::Yes }
            };
            let options = Options { threads, seed: 0, progress: Some(&told) };
            let result = fit(&read(text), &set, Task::Binary, None, &options);
            assert!(matches!(result, Err(TrainError::Stopped)), "{text}: {result:?}");
            assert!(asked.into_inner() < 10, "{text} went on");
        }
    }
}

#[test]
fn leaves_keep_their_limits() {
    let set = set(3000, 8, Task::Binary);
    let count = |model: &Ensemble| {
        let leaves = |tree: &crate::train::model::Tree| {
            tree.nodes.iter().filter(|node| matches!(node, Node::Leaf { .. })).count()
        };
        model.trees.iter().map(leaves).max().expect("trees")
    };
    let of = |text: &str| ensemble(&read(text), &set, Task::Binary, &options(1, 0));
    assert_eq!(count(&of(r#"{"gbdt": {"trees": 3, "leaves": 9}}"#)), 9);
    assert_eq!(count(&of(r#"{"gbdt": {"trees": 3, "depth": 2}}"#)), 4);
    assert_eq!(count(&of(r#"{"gbdt": {"trees": 3, "min_rows": 1400}}"#)), 2);
    assert_eq!(count(&of(r#"{"gbdt": {"trees": 3, "min_gain": 1e9}}"#)), 1);
    assert_eq!(count(&of(r#"{"gbdt": {"trees": 3, "min_hessian": 300.0}}"#)), 2);
    assert_eq!(count(&of(r#"{"forest": {"trees": 3, "depth": 3}}"#)), 8);
    assert_eq!(count(&of(r#"{"tree": {"min_split": 3000, "min_rows": 1}}"#)), 2);
}

#[test]
fn a_constant_column_and_one_without_values_do_no_harm() {
    for task in [Task::Binary, Task::Classes(3), Task::Regression] {
        let mut set = set(300, 8, task);
        set.inputs.columns[0] = Column::Number(vec![3.0; 300]);
        set.inputs.columns[1] = Column::Number(vec![f32::NAN; 300]);
        set.inputs.columns[2] =
            Column::Number((0..300).map(|row| [f32::INFINITY, f32::NEG_INFINITY][row % 2]).collect());
        set.inputs.columns[9] = Column::Category { codes: vec![MISSING; 300], levels: Vec::new() };
        for text in [r#"{"gbdt": {"trees": 4, "min_rows": 2}}"#, r#"{"forest": {"trees": 4}}"#, r#"{"tree": {}}"#] {
            let model = ensemble(&read(text), &set, task, &options(2, 0));
            let asked = model.trees.iter().flat_map(|tree| &tree.nodes).filter_map(|node| match node {
                Node::Branch { column, .. } => Some(*column),
                Node::Leaf { .. } => None,
            });
            let asked: std::collections::BTreeSet<u32> = asked.collect();
            assert!(
                !asked.contains(&0) && !asked.contains(&1) && !asked.contains(&9) && asked.contains(&3),
                "{asked:?}"
            );
            assert!(model.predict(&set.inputs).iter().flatten().all(|told| told.is_finite()));
            let text = serde_json::to_string(&model).expect("JSON");
            assert_eq!(serde_json::from_str::<Ensemble>(&text).expect("JSON"), model);
        }
    }
}

#[test]
fn a_single_row_or_label_without_weight_is_refused_or_learnt() {
    let one = set(1, 1, Task::Regression);
    for text in [r#"{"gbdt": {}}"#, r#"{"forest": {"trees": 2}}"#, r#"{"tree": {}}"#] {
        let told = fit(&read(text), &one, Task::Regression, None, &options(1, 0)).expect(text).predict(&one.inputs);
        assert!((told[0][0] - one.labels[0]).abs() < 1e-9, "{text}");
    }
}

#[test]
fn what_cannot_be_learnt_from_is_refused_in_words() {
    let good = set(50, 1, Task::Binary);
    let refuse = |change: &dyn Fn(&mut Set), task: Task, words: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = fit(&read(r#"{"tree": {}}"#), &bad, task, None, &options(1, 0)).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refuse(&|set| *set = set.take(&[]), Task::Binary, "no rows");
    refuse(&|set| set.inputs.columns.clear(), Task::Binary, "no rows or no inputs");
    refuse(&|set| set.inputs.names.truncate(2), Task::Binary, "2 names for 10 columns");
    refuse(&|set| set.inputs.columns[4] = Column::Number(vec![0.0; 3]), Task::Binary, "column c4 has 3 rows");
    refuse(&|set| set.labels[7] = 0.5, Task::Binary, "the label of row 7 is 0.5, not a whole number from 0 to 1");
    refuse(&|set| set.labels[7] = f64::NAN, Task::Regression, "the label of row 7 is NaN, not a finite number");
    refuse(&|set| set.labels.fill(1.0), Task::Binary, "no row is labelled 0");
    refuse(&|_| {}, Task::Classes(3), "no row is labelled 2");
    refuse(&|_| {}, Task::Classes(1), "at least 2");
    refuse(&|set| set.weights = Some(vec![1.0; 3]), Task::Binary, "3 weights for 50 rows");
    refuse(&|set| set.weights = Some(vec![-1.0; 50]), Task::Binary, "the weight of row 0 is -1");
    refuse(&|set| set.weights = Some(vec![0.0; 50]), Task::Binary, "all weights are 0");
    let codes = |set: &mut Set| set.inputs.columns[9] = Column::Category { codes: vec![7; 50], levels: Vec::new() };
    refuse(&codes, Task::Binary, "column c9 has code 7 of 0 levels");
    let mut other = good.clone();
    other.inputs.names[0] = "x".to_owned();
    let error = fit(&read(r#"{"gbdt": {}}"#), &good, Task::Binary, Some(&other), &options(1, 0));
    assert!(error.expect_err("other columns").to_string().contains("other columns or levels"));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (text, words) in [
        (r#"{"gbdt": {"trees": 0}}"#, "gbdt.trees: 0 is not from 1"),
        (r#"{"gbdt": {"rate": 0.0}}"#, "gbdt.rate"),
        (r#"{"gbdt": {"rate": 1.5}}"#, "gbdt.rate"),
        (r#"{"gbdt": {"leaves": 1}}"#, "gbdt.leaves"),
        (r#"{"gbdt": {"depth": 0}}"#, "gbdt.depth"),
        (r#"{"gbdt": {"min_rows": 0}}"#, "gbdt.min_rows"),
        (r#"{"gbdt": {"min_hessian": -1.0}}"#, "gbdt.min_hessian"),
        (r#"{"gbdt": {"min_gain": -1.0}}"#, "gbdt.min_gain"),
        (r#"{"gbdt": {"l2": -1.0}}"#, "gbdt.l2"),
        (r#"{"gbdt": {"bins": 256}}"#, "gbdt.bins"),
        (r#"{"gbdt": {"row_share": 0.0}}"#, "gbdt.row_share"),
        (r#"{"gbdt": {"column_share": 1.1}}"#, "gbdt.column_share"),
        (r#"{"gbdt": {"category_smooth": -1.0}}"#, "gbdt.category_smooth"),
        (r#"{"gbdt": {"category_l2": -1.0}}"#, "gbdt.category_l2"),
        (r#"{"gbdt": {"stop_after": 0}}"#, "gbdt.stop_after"),
        (r#"{"gbdt": {"stop_after": 5}}"#, "no validation set"),
        (r#"{"forest": {"trees": 0}}"#, "forest.trees"),
        (r#"{"forest": {"depth": 0}}"#, "forest.depth"),
        (r#"{"forest": {"min_split": 1}}"#, "forest.min_split"),
        (r#"{"forest": {"min_rows": 0}}"#, "forest.min_rows"),
        (r#"{"forest": {"bins": 1}}"#, "forest.bins"),
        (r#"{"forest": {"columns": {"share": 0.0}}}"#, "forest.columns"),
        (r#"{"forest": {"columns": {"count": 0}}}"#, "forest.columns"),
        (r#"{"tree": {"depth": 0}}"#, "tree.depth"),
        (r#"{"tree": {"min_split": 0}}"#, "tree.min_split"),
        (r#"{"tree": {"min_rows": 0}}"#, "tree.min_rows"),
    ] {
        let set = set(50, 1, Task::Binary);
        let error = fit(&read(text), &set, Task::Binary, None, &options(1, 0)).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(serde_json::from_str::<Learner>(r#"{"gbdt": {"treees": 5}}"#).is_err());
    assert!(serde_json::from_str::<Learner>(r#"{"bush": {}}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rows_side_by_side_come_to_the_leaves_they_come_to_alone(
        rows in 1usize..300,
        seed in any::<u64>(),
        task in prop_oneof![Just(Task::Binary), Just(Task::Classes(3)), Just(Task::Regression)],
        text in prop_oneof![
            Just(r#"{"gbdt": {"trees": 4, "min_rows": 1, "category_l2": 0.0}}"#),
            Just(r#"{"forest": {"trees": 4}}"#),
            Just(r#"{"tree": {}}"#),
        ],
        numbers in any::<bool>(),
    ) {
        let (mut train, mut other) = (set(400, seed, task), set(rows, seed ^ 1, task));
        if numbers {
            for set in [&mut train, &mut other] {
                set.inputs.columns.pop();
                set.inputs.names.pop();
            }
        }
        if let Column::Number(values) = &mut other.inputs.columns[0] {
            values.iter_mut().step_by(3).for_each(|x| *x = f32::NAN);
            values.iter_mut().skip(1).step_by(7).for_each(|x| *x = f32::INFINITY);
            values.iter_mut().skip(2).step_by(7).for_each(|x| *x = f32::NEG_INFINITY);
        }
        let model = ensemble(&read(text), &train, task, &options(1, seed));
        for inputs in [&train.inputs, &other.inputs] {
            let mut sums: Vec<Vec<f64>> = model.base.iter().map(|base| vec![*base; inputs.rows()]).collect();
            for tree in &model.trees {
                let first = tree.first_output as usize;
                for (output, sums) in sums[first..first + tree.outputs as usize].iter_mut().enumerate() {
                    sums.iter_mut().enumerate().for_each(|(row, sum)| *sum += tree.leaf(inputs, row)[output]);
                }
            }
            model.link.apply(&mut sums);
            prop_assert_eq!(model.predict(inputs), sums);
        }
        // A column that is not there is missing everywhere.
        let mut fewer = other.inputs.clone();
        fewer.columns.pop();
        let mut absent = other.inputs.clone();
        let last = absent.columns.len() - 1;
        absent.columns[last] = match &absent.columns[last] {
            Column::Number(values) => Column::Number(vec![f32::NAN; values.len()]),
            Column::Category { codes, levels } => {
                Column::Category { codes: vec![MISSING; codes.len()], levels: levels.clone() }
            }
        };
        prop_assert_eq!(model.predict(&fewer), model.predict(&absent));
    }
}

//! Exported pipelines of every kind against themselves, in our scorer and in onnxruntime.

use std::process::Command;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::base::EventTime;
use crate::train::check::check;
use crate::train::data::{Column, MISSING, Matrix, Set};
use crate::train::learner::{Learner, Options};
use crate::train::linear::LinearRegression;
use crate::train::logistic::Logistic;
use crate::train::model::{Ensemble, Linear, Node, Split, Tree};
use crate::train::prepare::{Encode, Impute, Prepare, PrepareColumn, RecipeColumn, Scale};

/// Numbers that look random and are the same for a seed.
pub(super) struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    /// From −1 to 1.
    fn unit(&mut self) -> f64 {
        f64::from(self.next()) / f64::from(1u32 << 30) - 1.0
    }
}

const COUNTRIES: [&str; 6] = ["de", "fr", "gb", "it", "pl", "ÖS t"];

/// Two numbers, two categories, gaps in each of them.
fn rows(noise: &mut Noise, rows: usize) -> Matrix {
    let mut number = |scale: f64, gaps: usize| {
        let value = |n: &mut Noise| if gaps > 0 && n.below(gaps) == 0 { f32::NAN } else { (n.unit() * scale) as f32 };
        Column::Number((0..rows).map(|_| value(noise)).collect())
    };
    let (amount, age) = (number(100.0, 9), number(3.0, 0));
    let mut category = |levels: usize, gaps: usize| {
        let code = |n: &mut Noise| if n.below(gaps) == 0 { MISSING } else { n.below(levels) as u32 };
        let codes = (0..rows).map(|_| code(noise)).collect();
        Column::Category { codes, levels: COUNTRIES[..levels].iter().map(ToString::to_string).collect() }
    };
    let (country, device) = (category(6, 11), category(3, 20));
    let names = ["amount", "age", "country", "device"].map(String::from).to_vec();
    Matrix { names, columns: vec![amount, age, country, device] }
}

/// Only the numbers.
fn numbers(mut inputs: Matrix) -> Matrix {
    inputs.names.truncate(2);
    inputs.columns.truncate(2);
    inputs
}

/// A tree that asks what a learner could ask of the columns.
fn tree(
    noise: &mut Noise,
    prepared: &Matrix,
    first_output: u32,
    outputs: u32,
    leaf: &mut dyn FnMut(&mut Noise) -> f64,
) -> Tree {
    let mut nodes = vec![Node::Leaf { values: vec![] }];
    let mut open = vec![(0usize, 0)];
    while let Some((at, depth)) = open.pop() {
        if depth == 4 || (depth > 0 && noise.below(4) == 0) {
            nodes[at] = Node::Leaf { values: (0..outputs).map(|_| leaf(noise)).collect() };
            continue;
        }
        let column = noise.below(prepared.columns.len());
        let split = match &prepared.columns[column] {
            Column::Number(values) => Split::AtMost(match noise.below(12) {
                0 => f32::INFINITY,
                _ => Some(values[noise.below(values.len())]).filter(|v| !v.is_nan()).unwrap_or(0.25),
            }),
            Column::Category { levels, .. } => {
                Split::In((0..levels.len() as u32).filter(|_| noise.below(2) == 0).collect())
            }
        };
        let left = nodes.len() as u32;
        let missing_left = noise.below(2) == 0;
        nodes[at] = Node::Branch { column: column as u32, split, missing_left, left, right: left + 1, gain: 1.0 };
        nodes.extend([Node::Leaf { values: vec![] }, Node::Leaf { values: vec![] }]);
        open.extend([(left as usize, depth + 1), (left as usize + 1, depth + 1)]);
    }
    Tree { nodes, first_output, outputs }
}

/// The kinds of model that learners make.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Boosted(Task),
    Averaged(Task),
    Weighted(Task),
}

const KINDS: [Kind; 10] = [
    Kind::Boosted(Task::Binary),
    Kind::Boosted(Task::Classes(2)),
    Kind::Boosted(Task::Classes(3)),
    Kind::Boosted(Task::Regression),
    Kind::Averaged(Task::Binary),
    Kind::Averaged(Task::Classes(4)),
    Kind::Averaged(Task::Regression),
    Kind::Weighted(Task::Binary),
    Kind::Weighted(Task::Classes(3)),
    Kind::Weighted(Task::Regression),
];

fn sums_of(task: Task) -> u32 {
    match task {
        Task::Binary | Task::Regression => 1,
        Task::Classes(n) => n,
    }
}

fn fitted(noise: &mut Noise, kind: Kind, trees: usize, prepared: &Matrix) -> Fitted {
    match kind {
        Kind::Boosted(task) => {
            let sums = sums_of(task);
            let link = match task {
                Task::Binary => Link::Logistic,
                Task::Classes(_) => Link::Softmax,
                Task::Regression => Link::Identity,
            };
            let base = (0..sums).map(|_| noise.unit()).collect();
            let trees =
                (0..trees as u32).map(|i| tree(noise, prepared, i % sums, 1, &mut |n| n.unit() * 0.4)).collect();
            Fitted::Ensemble(Ensemble { base, trees, link })
        }
        Kind::Averaged(task) => {
            let sums = sums_of(task);
            let link = if task == Task::Regression { Link::Identity } else { Link::Probability };
            let share = 1.0 / trees.max(1) as f64;
            let mut leaf = |n: &mut Noise| f64::from(n.below(3) as u32) / 2.0 * share / f64::from(sums);
            let trees = (0..trees).map(|_| tree(noise, prepared, 0, sums, &mut leaf)).collect();
            Fitted::Ensemble(Ensemble { base: vec![0.0; sums as usize], trees, link })
        }
        Kind::Weighted(task) => {
            let link = match task {
                Task::Binary => Link::Logistic,
                Task::Classes(_) => Link::Softmax,
                Task::Regression => Link::Identity,
            };
            let sums = sums_of(task);
            let weights = (0..sums).map(|_| prepared.columns.iter().map(|_| noise.unit()).collect()).collect();
            let intercepts = (0..sums).map(|_| noise.unit()).collect();
            Fitted::Linear(Linear { weights, intercepts, link })
        }
    }
}

fn pipeline(noise: &mut Noise, kind: Kind, trees: usize, inputs: &Matrix) -> Pipeline {
    let task = match kind {
        Kind::Boosted(task) | Kind::Averaged(task) | Kind::Weighted(task) => task,
    };
    let learner = match kind {
        Kind::Weighted(Task::Regression) => Learner::Linear(LinearRegression::default()),
        Kind::Weighted(_) => Learner::Logistic(Logistic::default()),
        _ => Learner::Gbdt(Default::default()),
    };
    let own = |noise: &mut Noise, number: bool| PrepareColumn {
        impute: [None, Some(Impute::Median), Some(Impute::Constant(-1.5))][if number { noise.below(3) } else { 0 }],
        scale: [None, Some(Scale::MinMax), Some(Scale::Standard)][if number { noise.below(3) } else { 0 }],
        encode: [None, Some(Encode::OneHot), Some(Encode::Ordinal)][if number { 0 } else { noise.below(3) }],
        levels: None,
    };
    let numbers = |column: &Column| matches!(column, Column::Number(_));
    let columns = inputs.names.iter().zip(&inputs.columns).map(|(n, c)| (n.clone(), own(noise, numbers(c)))).collect();
    let prepare = Prepare { levels: Some(5), columns, ..Prepare::default() };
    let prepare = prepare.fit(inputs, &learner).expect("prepares");
    let prepared = prepare.apply(inputs).expect("applies");
    Pipeline { fitted: fitted(noise, kind, trees, &prepared), prepare, task }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The scorer gives what the pipeline gives, beside thresholds, too, and for gaps and categories that no row had.
    #[test]
    fn exported_models_score_as_the_pipeline_does(seed in any::<u64>(), kind in prop::sample::select(KINDS.to_vec()), plain in any::<bool>(), trees in 0usize..6) {
        let mut noise = Noise(seed);
        let mut inputs = rows(&mut noise, 150);
        // Without trees nothing is asked of a category, and a model must have an input.
        if plain || trees == 0 {
            inputs = numbers(inputs);
        }
        let pipeline = pipeline(&mut noise, kind, trees, &inputs);
        let onnx = export(&pipeline).expect("exports");
        prop_assert_eq!(&onnx, &export(&pipeline).expect("exports"));
        let unseen = if plain || trees == 0 { numbers(rows(&mut noise, 300)) } else { rows(&mut noise, 300) };
        let checked = check(&pipeline, &onnx, &unseen);
        prop_assert!(checked.is_ok(), "{kind:?} {}", checked.expect_err("fails"));
        prop_assert!(checked.expect("checked").max_difference < 1e-7);
    }
}

#[test]
fn the_check_finds_a_model_that_is_another() {
    let mut noise = Noise(5);
    let inputs = rows(&mut noise, 200);
    for kind in KINDS {
        let right = pipeline(&mut noise, kind, 8, &inputs);
        let mut wrong = right.clone();
        match &mut wrong.fitted {
            Fitted::Linear(linear) => linear.weights[0][1] += 1e-4,
            Fitted::Ensemble(ensemble) => {
                // One threshold, a unit in the last place, of a question that rows come to.
                let plain = |column: u32| {
                    let step = &right.prepare.columns[right.prepare.sources()[column as usize]].step;
                    matches!(step, Step::Number(fill) if fill.scale.is_none())
                };
                let threshold = ensemble.trees.iter_mut().find_map(|tree| match &mut tree.nodes[0] {
                    Node::Branch { split: Split::AtMost(t), column, .. } if t.is_finite() && plain(*column) => Some(t),
                    _ => None,
                });
                let Some(threshold) = threshold else { continue };
                *threshold = threshold.next_up();
            }
        }
        let error = check(&right, &export(&wrong).expect("exports"), &inputs).expect_err("differs").to_string();
        assert!(error.contains("where the fitted model gives"), "{kind:?} {error}");
    }
}

#[test]
fn rows_that_nothing_fills_are_refused_by_both() {
    let mut noise = Noise(6);
    let inputs = numbers(rows(&mut noise, 100));
    let gaps = |m: &Matrix| match &m.columns[0] {
        Column::Number(v) => v.iter().filter(|v| v.is_nan()).count() as u64,
        Column::Category { .. } => 0,
    };
    let keep = |name: &str| RecipeColumn { name: name.into(), step: Step::Number(Fill { fill: None, scale: None }) };
    let prepare = Recipe { columns: vec![keep("amount"), keep("age")] };
    let linear = Linear { weights: vec![vec![0.01, 0.5]], intercepts: vec![0.1], link: Link::Logistic };
    let pipeline = Pipeline { prepare, fitted: Fitted::Linear(linear), task: Task::Binary };
    let checked = check(&pipeline, &export(&pipeline).expect("exports"), &inputs).expect("agrees");
    // Two probes more take a value away.
    assert!(gaps(&inputs) > 3 && checked.refused == gaps(&inputs) + 2, "{checked:?}");
}

#[test]
fn columns_are_bound_by_name_in_any_order() {
    use arrow::array::{ArrayRef, AsArray, Float32Array};
    use arrow::datatypes::{DataType, Float32Type};
    let keep = |name: &str| RecipeColumn { name: name.into(), step: Step::Number(Fill { fill: None, scale: None }) };
    let prepare = Recipe { columns: vec![keep("a"), keep("b")] };
    let linear = Linear { weights: vec![vec![1.0, 10.0]], intercepts: vec![0.5], link: Link::Identity };
    let pipeline = Pipeline { prepare, fitted: Fitted::Linear(linear), task: Task::Regression };
    let model = crate::score::Model::from_bytes("m.onnx".into(), &export(&pipeline).expect("exports")).expect("loads");
    assert_eq!(model.columns(), Some(&["a".to_string(), "b".into()][..]));
    let outputs = [crate::plan::model::ModelOutput { name: "y".into(), tensor: VARIABLE.into(), element: None }];
    let column = |v: f32| -> ArrayRef { std::sync::Arc::new(Float32Array::from(vec![v])) };
    for (names, values) in [(["a", "b"], [2.0, 3.0]), (["b", "a"], [3.0, 2.0])] {
        let bound = model.bind(&names.map(|n| (n, DataType::Float32)), &outputs).expect("binds");
        let scores = bound.scorer().expect("starts").score(&values.map(column)).expect("scores");
        assert_eq!(scores.columns[0].as_primitive::<Float32Type>().value(0), 32.5);
    }
    let faults = model.bind(&[("a", DataType::Float32), ("bb", DataType::Float32)], &outputs).err().expect("refused");
    assert!(faults.len() == 2 && faults[0].contains("takes b") && faults[1].contains("did you mean b"), "{faults:?}");
}

#[test]
fn what_does_not_hang_together_is_refused() {
    let mut noise = Noise(7);
    let inputs = rows(&mut noise, 100);
    let good = pipeline(&mut noise, Kind::Boosted(Task::Binary), 3, &inputs);
    let refused = |change: &dyn Fn(&mut Pipeline)| {
        let mut bad = good.clone();
        change(&mut bad);
        export(&bad).expect_err("refused").to_string()
    };
    let trees = |p: &mut Pipeline, change: &dyn Fn(&mut Vec<Tree>)| match &mut p.fitted {
        Fitted::Ensemble(e) => change(&mut e.trees),
        Fitted::Linear(_) => {}
    };
    let root = |change: fn(&mut Node)| move |p: &mut Pipeline| trees(p, &|t| change(&mut t[1].nodes[0]));
    let cyclic = root(|n| {
        if let Node::Branch { left, .. } = n {
            *left = 0
        }
    });
    assert!(refused(&cyclic).contains("tree 1 leads from node 0 to 0"));
    let twice = root(|n| {
        if let Node::Branch { left, right, .. } = n {
            *left = *right
        }
    });
    assert!(refused(&twice).contains("tree 1 comes to node"));
    let column = root(|n| {
        if let Node::Branch { column, .. } = n {
            *column = 99
        }
    });
    assert!(refused(&column).contains("input 99"));
    let empty = root(|n| *n = Node::Leaf { values: vec![] });
    assert!(refused(&empty).contains("tree 1"));
    assert!(refused(&|p| p.task = Task::Regression).contains("does not tell"));
    assert!(refused(&|p| p.prepare.columns[2].name = "label".into()).contains("label"));
    assert!(refused(&|p| p.prepare.columns.clear()).contains("input"));
}

/// Runs `tests/python/check_export.py` on files, where there is a Python.
fn python(folder: &std::path::Path) -> bool {
    let Some(python) = std::env::var_os("TIDEMILL_PYTHON").filter(|p| !p.is_empty()) else {
        println!("skipped: exported models in onnxruntime: TIDEMILL_PYTHON names no Python (tests/all makes one)");
        return false;
    };
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check_export.py");
    let done = Command::new(python).arg(script).arg(folder).output().expect("starts");
    println!("{}", String::from_utf8_lossy(&done.stdout));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    true
}

#[test]
fn onnxruntime_gives_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let mut wanted = Vec::new();
    let mut noise = Noise(8);
    for plain in [true, false] {
        for (i, kind) in KINDS.into_iter().enumerate() {
            let mut inputs = rows(&mut noise, 400);
            if plain {
                inputs = numbers(inputs);
            }
            let pipeline = pipeline(&mut noise, kind, 12, &inputs);
            let name = format!("{}{i}", if plain { "numbers" } else { "mixed" });
            std::fs::write(folder.path().join(format!("{name}.onnx")), export(&pipeline).expect("exports"))
                .expect("writes");
            let columns: Vec<serde_json::Value> = inputs
                .columns
                .iter()
                .map(|c| match c {
                    Column::Number(v) => serde_json::json!(v),
                    Column::Category { codes, levels } => {
                        let text = |c: &u32| if *c == MISSING { "" } else { levels[*c as usize].as_str() };
                        serde_json::json!(codes.iter().map(text).collect::<Vec<_>>())
                    }
                })
                .collect();
            let task = pipeline.task;
            let output = if task == Task::Regression { VARIABLE } else { PROBABILITIES };
            let ask = serde_json::json!({"names": inputs.names, "columns": columns, "output": output});
            std::fs::write(folder.path().join(format!("{name}.json")), ask.to_string()).expect("writes");
            wanted.push((name, kind, pipeline.predict(&inputs).expect("predicts")));
        }
    }
    if !python(folder.path()) {
        return;
    }
    let mut worst: f64 = 0.0;
    for (name, kind, told) in wanted {
        let file = std::fs::read_to_string(folder.path().join(format!("{name}.out.json"))).expect("an answer");
        let answer: serde_json::Value = serde_json::from_str(&file).expect("json");
        let values: Vec<f64> =
            answer["values"].as_array().expect("values").iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
        assert_eq!(values.len(), told.values.len(), "{name}");
        for (i, (theirs, ours)) in values.iter().zip(&told.values).enumerate() {
            let ours = f64::from(*ours);
            let off = if ours.is_nan() && theirs.is_nan() { 0.0 } else { (theirs - ours).abs() / ours.abs().max(1.0) };
            assert!(off < 2e-6, "{name} {kind:?} row {}: {theirs} and {ours}", i / told.width);
            worst = worst.max(off);
        }
        if let Some(labels) = answer["labels"].as_array() {
            for (row, label) in labels.iter().enumerate() {
                let own = told.row(row);
                let label = label.as_u64().expect("a label") as usize;
                assert!(
                    own.iter().all(|p| p.is_nan() || *p <= own[label] + 1e-6),
                    "{name} row {row}: label {label} of {own:?}"
                );
            }
        }
    }
    println!("onnxruntime: off by at most {worst:e}");
}

#[test]
fn files_say_what_they_are() {
    let mut noise = Noise(9);
    let inputs = rows(&mut noise, 50);
    let mixed = export(&pipeline(&mut noise, Kind::Boosted(Task::Binary), 4, &inputs)).expect("exports");
    let model = tract_onnx::pb::ModelProto::decode(&*mixed).expect("decodes");
    assert_eq!((model.ir_version, model.producer_name.as_str()), (8, "tidemill"));
    let opsets: Vec<(&str, i64)> = model.opset_import.iter().map(|o| (o.domain.as_str(), o.version)).collect();
    assert_eq!(opsets, [("", 17), ("ai.onnx.ml", 3)]);
    let graph = model.graph.expect("a graph");
    let names: Vec<&str> = graph.input.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["amount", "age", "country", "device"]);
    let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, [LABEL, PROBABILITIES]);
}

/// A set with labels that the columns tell of.
fn set(inputs: Matrix, task: Task) -> Set {
    let rows = inputs.rows();
    let value = |row: usize| match (&inputs.columns[1], inputs.columns.get(2)) {
        (Column::Number(v), Some(Column::Category { codes, .. })) => {
            v[row] + if codes[row] % 2 == 0 { 1.0 } else { -1.0 }
        }
        (Column::Number(v), _) => v[row],
        _ => 0.0,
    };
    let label = |row: usize| match task {
        Task::Regression => f64::from(value(row)),
        Task::Binary => f64::from(u8::from(value(row) > 0.2)),
        Task::Classes(n) => f64::from((value(row).abs() as u32).min(n - 1)),
    };
    let labels = (0..rows).map(label).collect();
    let times = vec![EventTime::default(); rows];
    Set { inputs, labels, weights: None, known: times.clone(), times, extra: Vec::new() }
}

#[test]
fn fitted_linear_pipelines_pass_the_check() {
    let mut noise = Noise(10);
    for (task, learner) in [
        (Task::Binary, Learner::Logistic(Logistic::default())),
        (Task::Classes(3), Learner::Logistic(Logistic { l1_ratio: 0.5, ..Logistic::default() })),
        (Task::Regression, Learner::Linear(LinearRegression { alpha: 0.01, ..LinearRegression::default() })),
    ] {
        let set = set(rows(&mut noise, 600), task);
        let pipeline =
            Pipeline::fit(&Prepare::default(), &learner, &set, task, None, &Options::default()).expect("fits");
        let checked = check(&pipeline, &export(&pipeline).expect("exports"), &set.inputs).expect("agrees");
        assert!(checked.rows == 600 && checked.probes > 5 && checked.refused == 0, "{checked:?}");
        let text = serde_json::to_string(&pipeline).expect("json");
        assert_eq!(serde_json::from_str::<Pipeline>(&text).expect("reads"), pipeline);
    }
}

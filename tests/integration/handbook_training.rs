//! The handbook's table by our own means, end to end: the stream makes features and tables, the tables make a set, learners are
//! fitted and exported, and the exported files score the book's test set.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use tempfile::TempDir;
use tidemill::plan::model::ModelOutput;
use tidemill::score::Model;

use crate::support::rows::{ids, read_parquet, values};
use crate::support::{golden_data, root};

const ID: &str = "TRANSACTION_ID";

/// Learner, how it is told, published AUC and average precision of D = 2018-07-25, and how far off they may be. What is drawn at
/// random is drawn otherwise than in the book.
const LEARNERS: [(&str, &str, f64, f64, f64); 4] = [
    ("regression", "{logistic: {}}", 0.871, 0.606, 0.01),
    ("tree", "{tree: {depth: 2}}", 0.763, 0.496, 0.001),
    ("forest", "{forest: {}}", 0.867, 0.658, 0.02),
    ("boosted", "{gbdt: {trees: 100, rate: 0.1, leaves: 15, l2: 10, min_hessian: 1}}", 0.862, 0.639, f64::INFINITY),
];

fn tidemill(arguments: &[String], data: &Path, lake: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(arguments)
        .current_dir(root())
        .env("DATA", data)
        .env("LAKE", lake)
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}\n{err}");
    out.into_owned()
}

#[test]
fn the_published_models_come_out_of_stream_tables_and_fits() {
    let Some(data) = golden_data("fraud") else { return };
    let dir = TempDir::new().expect("a folder");
    let lake = dir.path().join("lake");
    let sets = [
        // Windows reach back 37 days before the training week.
        "sources.tx.where=TX_DATETIME >= timestamp '2018-06-17' and TX_DATETIME < timestamp '2018-08-15'",
        "sources.labels.where=TX_DATETIME >= timestamp '2018-06-17' and TX_DATETIME < timestamp '2018-08-15'",
        "labels={fraud: {from: labels, prediction: TRANSACTION_ID, value: TX_FRAUD, within: 8d}}",
        "sinks.offline.delta.uri=LAKE",
        "sinks.offline.tables=[feature_sets/fraud_inputs, labels/fraud]",
    ]
    .map(|set| set.replace("LAKE", &lake.display().to_string()));
    let mut run: Vec<String> =
        ["run", "dataflows/fraud_handbook.yaml", "--until-end", "--workers", "2"].map(Into::into).into();
    run.extend(sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    tidemill(&run, &data, &lake);

    let mut text = format!(
        "batch: handbook\nof: {}\nmodel: fraud\nseed: 1\nlimits: {{threads: 2, parallel: 2}}\nwith:\n",
        root().join("dataflows/fraud_handbook.yaml").display()
    );
    for set in &sets {
        let (key, value) = set.split_once('=').expect("key=value");
        text += &format!("  {key}: \"{value}\"\n");
    }
    text += "steps:\n  set: {dataset: {last: 21d, to: \"2018-08-22\", label_delay: 7d}}\n";
    for (name, learner, ..) in LEARNERS {
        text += &format!(
            "  {name}: {{fit: {{from: set, learner: {learner}, classes: 2, split: {{train: 7d, gap: 7d, test: 7d, until: \"2018-08-15\"}}}}}}\n"
        );
    }
    let file = dir.path().join("handbook.yaml");
    std::fs::write(&file, text).expect("a file");
    let queue = dir.path().join("queue");
    let train = ["train", &file.display().to_string(), "--queue", &queue.display().to_string()].map(str::to_owned);
    tidemill(&train, &data, &lake);

    let steps = queue.join("handbook-1/steps");
    let set = read_parquet(&steps.join("set/out/set.parquet"));
    let published = read_parquet(&data.join("reference_scores.parquet"));
    let tested: Vec<i64> = ids(&published, ID);
    let truth: HashMap<i64, bool> =
        ids(&set, ID).into_iter().zip(values(&set, "label")).map(|(id, label)| (id, label == Some(1.0))).collect();
    for (name, learner, auc, precision, off) in LEARNERS {
        let scores: HashMap<i64, f64> =
            ids(&set, ID).into_iter().zip(score(&steps.join(name).join("out/model.onnx"), &set)).collect();
        let mut ranked: Vec<(f64, bool)> = tested.iter().map(|id| (scores[id], truth[id])).collect();
        assert_eq!(ranked.len(), 58_264, "the book's test set");
        let (found_auc, found_precision) = figures(&mut ranked);
        println!("{name} {learner}: AUC {found_auc:.4} AP {found_precision:.4}, published {auc} and {precision}");
        if off.is_finite() {
            assert!((found_auc - auc).abs() <= 0.01_f64.min(off), "{name}: AUC {found_auc}, published {auc}");
            assert!((found_precision - precision).abs() <= off, "{name}: AP {found_precision}, published {precision}");
        } else {
            assert!(found_auc >= auc && found_precision >= precision, "{name}: {found_auc} and {found_precision}");
        }
    }
}

/// The probability of label 1 that a file tells of a set's rows.
fn score(file: &Path, set: &RecordBatch) -> Vec<f64> {
    let model = Model::load(file).expect("a model");
    let schema = set.schema();
    let names: Vec<String> = model.columns().expect("its columns are named").to_vec();
    let columns: Vec<(&str, DataType)> = names
        .iter()
        .map(|name| (name.as_str(), schema.field_with_name(name).expect("an input").data_type().clone()))
        .collect();
    let output = ModelOutput { name: "score".into(), tensor: "probabilities".into(), element: Some(1) };
    let bound = model.bind(&columns, &[output]).expect("it fits the set");
    let mut scorer = bound.scorer().expect("a scorer");
    let inputs: Vec<ArrayRef> = names.iter().map(|name| set.column_by_name(name).expect("an input").clone()).collect();
    let scores = scorer.score(&inputs).expect("scores");
    assert!(scores.failed.is_empty());
    let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
        "score",
        scores.columns[0].data_type().clone(),
        true,
    )]);
    let batch = RecordBatch::try_new(schema.into(), vec![scores.columns[0].clone()]).expect("a column");
    values(&batch, "score").into_iter().map(|value| value.expect("a score")).collect()
}

/// Area under the ROC curve and average precision, by counting over equal scores.
fn figures(rows: &mut [(f64, bool)]) -> (f64, f64) {
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = rows.iter().filter(|row| row.1).count() as f64;
    let negatives = rows.len() as f64 - positives;
    let (mut above, mut seen, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for equal in rows.chunk_by(|a, b| a.0 == b.0) {
        let here = equal.iter().filter(|row| row.1).count() as f64;
        let others = equal.len() as f64 - here;
        area += others * (above + here / 2.0);
        seen += equal.len() as f64;
        above += here;
        precision += here * above / seen;
    }
    (area / (positives * negatives), precision / positives)
}

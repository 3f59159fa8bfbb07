//! Every model of `tests/golden/models` gives onnxruntime's outputs: labels exactly, numbers to 1e-6 (relative above 1).
//!
//! `tests/python/make_models.py` makes the models and says in `manifest.json` which of them onnxruntime itself computes less exactly.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::plan::model::ModelOutput;
use tidemill::score::{Bound, Model, ScoreError};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

struct Case {
    name: String,
    inputs: String,
    tolerance: f64,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).expect("the manifest is committed");
    let list: serde_json::Value = serde_json::from_str(&text).expect("the manifest is JSON");
    let text = |v: &serde_json::Value, key: &str| v[key].as_str().expect("a string").to_string();
    list.as_array()
        .expect("a list")
        .iter()
        .map(|v| Case {
            name: text(v, "name"),
            inputs: text(v, "inputs"),
            tolerance: v["tolerance"].as_f64().unwrap_or(1e-6),
        })
        .collect()
}

fn read(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file").build().expect("readable");
    let batches: Vec<RecordBatch> = reader.map(|b| b.expect("decodable")).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

/// Every value of every output that onnxruntime gave, as a declared output.
fn outputs(expected: &Schema) -> Vec<ModelOutput> {
    expected
        .fields()
        .iter()
        .map(|f| {
            let (tensor, element) = f.name().rsplit_once('.').expect("<tensor>.<element>");
            ModelOutput {
                name: f.name().clone(),
                tensor: tensor.into(),
                element: Some(element.parse().expect("a number")),
            }
        })
        .collect()
}

fn bind(case: &Case, input: &RecordBatch, expected: &RecordBatch) -> Result<Arc<Bound>, String> {
    let model = Model::load(folder().join(format!("{}.onnx", case.name))).map_err(|e| e.to_string())?;
    let schema = input.schema();
    let columns: Vec<(&str, DataType)> =
        schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    model.bind(&columns, &outputs(&expected.schema())).map_err(|e| e.join("; "))
}

/// How far two numbers are apart, relative above 1; NaN and equal infinities are no distance.
fn distance(ours: f64, theirs: f64) -> f64 {
    if ours == theirs || (ours.is_nan() && theirs.is_nan()) {
        return 0.0;
    }
    let d = (ours - theirs).abs() / theirs.abs().max(1.0);
    if d.is_nan() { f64::INFINITY } else { d }
}

fn compare(case: &Case) -> Result<(), String> {
    let input = read(&folder().join(format!("inputs_{}.parquet", case.inputs)));
    let expected = read(&folder().join(format!("{}.parquet", case.name)));
    let bound = bind(case, &input, &expected)?;
    let mut scorer = bound.scorer().map_err(|e| e.to_string())?;
    let scores = scorer.score(input.columns()).map_err(|e| e.to_string())?;
    for ((name, data_type), (ours, theirs)) in bound.outputs().iter().zip(scores.columns.iter().zip(expected.columns()))
    {
        if ours.data_type() != data_type {
            return Err(format!("{name}: announced {data_type}, gave {}", ours.data_type()));
        }
        let number = |t: &DataType| t.is_floating();
        if number(ours.data_type()) != number(theirs.data_type()) {
            return Err(format!("{name}: {} instead of {}", ours.data_type(), theirs.data_type()));
        }
        if number(theirs.data_type()) {
            let wide = |a: &ArrayRef| cast(a, &DataType::Float64).expect("numbers");
            let (ours, theirs) = (wide(ours), wide(theirs));
            let (ours, theirs) = (ours.as_primitive::<Float64Type>(), theirs.as_primitive::<Float64Type>());
            for row in 0..theirs.len() {
                // A score that is no number fails the row.
                let failed = scores.failed.iter().any(|(r, _)| *r == row);
                if failed {
                    let any_bad = expected.columns().iter().any(|c| {
                        c.data_type().is_floating() && !wide(c).as_primitive::<Float64Type>().value(row).is_finite()
                    });
                    if !any_bad {
                        return Err(format!("row {row} failed: {:?}", scores.failed));
                    }
                    continue;
                }
                let d = distance(ours.value(row), theirs.value(row));
                if d > case.tolerance {
                    return Err(format!(
                        "{name}, row {row}: {} instead of {} ({d:.1e} apart)",
                        ours.value(row),
                        theirs.value(row)
                    ));
                }
            }
        } else {
            let text = |a: &ArrayRef| cast(a, &DataType::Utf8).expect("text");
            let (ours, theirs) = (text(ours), text(theirs));
            for row in (0..theirs.len()).filter(|r| !scores.failed.iter().any(|(f, _)| f == r)) {
                let (a, b) = (ours.as_string::<i32>().value(row), theirs.as_string::<i32>().value(row));
                if a != b {
                    return Err(format!("{name}, row {row}: {a:?} instead of {b:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Models that are refused, and what the refusal must name.
const REFUSED: [(&str, &str); 1] = [("knn", "Scan")];

#[test]
fn every_model_agrees_with_onnxruntime() {
    let only = std::env::var("TIDEMILL_MODELS").ok();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in cases() {
        if only.as_ref().is_some_and(|o| !case.name.contains(o)) || REFUSED.iter().any(|(name, _)| *name == case.name) {
            continue;
        }
        seen += 1;
        if let Err(why) = compare(&case) {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {seen} models differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 0);
}

#[test]
fn operators_that_nobody_has_are_named() {
    for (name, operator) in REFUSED {
        let error = Model::load(folder().join(format!("{name}.onnx"))).expect_err("refused");
        assert!(matches!(error, ScoreError::UnknownOperators { .. }), "{error}");
        assert!(error.to_string().contains(operator), "{error}");
    }
}

/// A row's scores have the same bits alone, in any batch, and at any place in it.
#[test]
fn scores_do_not_depend_on_the_batch() {
    for case in cases() {
        if REFUSED.iter().any(|(name, _)| *name == case.name) {
            continue;
        }
        let input = read(&folder().join(format!("inputs_{}.parquet", case.inputs)));
        let expected = read(&folder().join(format!("{}.parquet", case.name)));
        let Ok(bound) = bind(&case, &input, &expected) else {
            continue;
        };
        let mut scorer = bound.scorer().expect("starts");
        let whole = scorer.score(input.columns()).expect("scores");
        for size in [1, 2, 3, 7, 8, 9, 33] {
            let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); whole.columns.len()];
            let mut failed = Vec::new();
            let mut first = 0;
            while first < input.num_rows() {
                let part = input.slice(first, size.min(input.num_rows() - first));
                let scores = scorer.score(part.columns()).expect("scores");
                failed.extend(scores.failed.into_iter().map(|(row, why)| (row + first, why)));
                parts.iter_mut().zip(scores.columns).for_each(|(p, c)| p.push(c));
                first += size;
            }
            for (whole, parts) in whole.columns.iter().zip(parts) {
                let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
                assert_eq!(&concat(&parts).expect("one type"), whole, "{} in batches of {size}", case.name);
            }
            assert_eq!(failed, whole.failed, "{} in batches of {size}", case.name);
        }
    }
}

//! Loading, binding and scoring through the public interface.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float32Type};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto, type_proto,
};

use super::*;
use crate::plan::model::ModelOutput;

fn golden(name: &str) -> Model {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(format!("{name}.onnx"));
    Model::load(path).expect("loads")
}

fn output(tensor: &str, element: Option<usize>) -> Vec<ModelOutput> {
    vec![ModelOutput { name: "score".into(), tensor: tensor.into(), element }]
}

fn eight() -> Vec<(&'static str, DataType)> {
    ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().map(|n| (n, DataType::Float64)).collect()
}

fn value(name: &str, elem_type: i32, dims: &[Option<i64>]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = dims.iter().map(|d| Dimension { value: d.map(Value::DimValue), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

fn node(domain: &str, op: &str, input: &[&str], output: &[&str]) -> NodeProto {
    let names = |l: &[&str]| l.iter().map(ToString::to_string).collect();
    NodeProto {
        domain: domain.into(),
        op_type: op.into(),
        name: format!("{op}_1"),
        input: names(input),
        output: names(output),
        ..Default::default()
    }
}

fn model(
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
) -> Result<Model, ScoreError> {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let graph = GraphProto { name: "g".into(), node: nodes, input: inputs, output: outputs, ..Default::default() };
    let proto = ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 12), opset("ai.onnx.ml", 3)],
        graph: Some(graph),
        ..Default::default()
    };
    Model::from_bytes("test.onnx".into(), &proto.encode_to_vec())
}

fn refused(nodes: Vec<NodeProto>) -> String {
    let x = || vec![value("X", 1, &[None, Some(3)])];
    model(nodes, x(), vec![value("Y", 1, &[None, Some(3)])]).expect_err("refused").to_string()
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let unknown = refused(vec![node("", "NoSuchOp", &["X"], &["t"]), node("com.acme", "Magic", &["t"], &["Y"])]);
    assert!(unknown.contains("NoSuchOp") && unknown.contains("com.acme.Magic"), "{unknown}");
    let dangling = refused(vec![node("", "Relu", &["Z"], &["Y"])]);
    assert!(dangling.contains("Relu") && dangling.contains("\"Z\""), "{dangling}");
    let missing = refused(vec![node("", "Relu", &["X"], &["T"])]);
    assert!(missing.contains("output \"Y\""), "{missing}");
    let malformed = refused(vec![node("ai.onnx.ml", "Scaler", &["X"], &["Y"])]);
    assert!(malformed.contains("Scaler_1") && malformed.contains("offset"), "{malformed}");
    let conv = refused(vec![node("", "Conv", &["X", "X"], &["t"]), node("ai.onnx.ml", "Binarizer", &["t"], &["Y"])]);
    assert!(conv.contains("Conv") && conv.contains("Binarizer"), "{conv}");
    assert!(matches!(Model::from_bytes("x".into(), b"not a model"), Err(ScoreError::Malformed { .. })));
    assert!(matches!(Model::load("/nowhere/model.onnx"), Err(ScoreError::Read { .. })));
}

#[test]
fn a_model_that_mixes_rows_is_refused() {
    let mut mean = node("", "ReduceMean", &["X"], &["m"]);
    mean.attribute = vec![AttributeProto { name: "axes".into(), ints: vec![0], r#type: 7, ..Default::default() }];
    let error = refused(vec![mean, node("", "Sub", &["X", "m"], &["Y"])]);
    assert!(error.contains("mixes the rows"), "{error}");
    let mut scalar = node("", "ReduceSum", &["X"], &["Y"]);
    scalar.attribute = vec![AttributeProto { name: "keepdims".into(), i: 0, r#type: 2, ..Default::default() }];
    let error = refused(vec![scalar]);
    assert!(error.contains("mixes the rows"), "{error}");
}

#[test]
fn inputs_and_outputs_are_known_after_loading() {
    let model = golden("lr_zipmap");
    assert_eq!(model.inputs(), [TensorInfo { name: "X".into(), element: Element::Float, dims: Some(vec![8]) }]);
    // A ZipMap's output is the tensor that went in.
    let wide: Vec<(Element, Option<usize>)> = model.outputs().iter().map(|o| (o.element, o.width())).collect();
    assert_eq!(wide, [(Element::Int64, Some(1)), (Element::Float, Some(2))]);
    assert_eq!(model.hash().len(), 64);
    assert_eq!(model.hash(), golden("lr_zipmap").hash());
    assert_ne!(model.hash(), golden("lr_binary").hash());
}

#[test]
fn every_clash_of_columns_is_told_at_once() {
    let model = golden("lr_binary");
    let mut columns = eight();
    columns[2].1 = DataType::Utf8;
    columns.pop();
    let wanted = [
        ModelOutput { name: "score".into(), tensor: "probability".into(), element: Some(1) },
        ModelOutput { name: "wide".into(), tensor: "probabilities".into(), element: None },
        ModelOutput { name: "far".into(), tensor: "probabilities".into(), element: Some(2) },
    ];
    let faults = model.bind(&columns, &wanted).err().expect("refused");
    assert_eq!(
        faults,
        [
            "the model's input X float [N, 8] takes 8 values per row, and there are 7 columns",
            "column c is Utf8, which the model's input X float [N, 8] cannot take",
            "output score reads probability, which the model does not give; it gives label int64 [N], probabilities float [N, 2]; did you mean probabilities?",
            "output wide reads probabilities, which has 2 values per row; say which, as in probabilities[1]",
            "output far reads probabilities[2], and probabilities float [N, 2] has 2 values per row",
        ]
    );
}

#[test]
fn inputs_by_name_are_checked_both_ways() {
    let model = golden("columns_onehot");
    let columns = [("amount", DataType::Float64), ("ages", DataType::Int32), ("city", DataType::Int64)];
    let faults = model.bind(&columns, &output("probabilities", Some(1))).err().expect("refused");
    assert_eq!(
        faults,
        [
            "the model's input age int64 [N, 1] has no column of its name; did you mean ages?",
            "column city is Int64, which the model's input city string [N, 1] cannot take",
            "column ages is no input of the model; did you mean age?",
        ]
    );
}

#[test]
fn columns_may_come_in_any_number_type() {
    let bound = golden("columns_onehot")
        .bind(
            &[("city", DataType::Utf8), ("age", DataType::Int64), ("amount", DataType::Float64)],
            &output("probabilities", Some(1)),
        )
        .expect("binds");
    let cities: ArrayRef = Arc::new(StringArray::from(vec![Some("paris"), Some("nowhere"), None]));
    let ages: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(1)]));
    let amounts: ArrayRef = Arc::new(Float64Array::from(vec![10.0, 20.0, 30.0]));
    let scores = bound.scorer().expect("starts").score(&[cities, ages, amounts]).expect("scores");
    assert_eq!(scores.columns[0].null_count(), 2);
    assert!(scores.columns[0].is_valid(0));
    assert_eq!(
        scores.failed,
        [
            (1, "column age is null, and the model takes int64 there".to_string()),
            (2, "column city is null, and the model takes string there".to_string()),
        ]
    );
}

#[test]
fn nulls_are_missing_values_to_trees_and_failures_to_linear_models() {
    let column = |v: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(v)) };
    let columns: Vec<ArrayRef> =
        (0..8).map(|i| column(vec![Some(f64::from(i)), if i == 3 { None } else { Some(0.5) }])).collect();
    let trees = golden("lightgbm_missing");
    let bound = trees.bind(&eight(), &output("probabilities", Some(1))).expect("binds");
    let scores = bound.scorer().expect("starts").score(&columns).expect("scores");
    assert!(scores.failed.is_empty());

    let bound = golden("lr_binary").bind(&eight(), &output("probabilities", Some(1))).expect("binds");
    let scores = bound.scorer().expect("starts").score(&columns).expect("scores");
    assert_eq!(scores.failed, [(1, "score is NaN".to_string())]);
    assert!(scores.columns[0].is_valid(0) && scores.columns[0].is_null(1));
}

#[test]
fn a_row_that_a_kernel_refuses_fails_alone() {
    let bound = golden("onehot_words")
        .bind(
            &[("w0", DataType::Utf8), ("w1", DataType::Utf8)],
            &[ModelOutput { name: "nice".into(), tensor: "B".into(), element: Some(0) }],
        )
        .expect("binds");
    let words = |v: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(v)) };
    let mut scorer = bound.scorer().expect("starts");
    let scores =
        scorer.score(&[words(vec!["nice", "x", "paris"]), words(vec!["nice", "strange", "other"])]).expect("scores");
    let nice = scores.columns[0].as_primitive::<Float32Type>();
    assert_eq!((nice.value(0), nice.is_null(1), nice.value(2)), (1.0, true, 0.0));
    assert_eq!(scores.failed.len(), 1);
    assert!(scores.failed[0].1.contains("unknown category strange"), "{}", scores.failed[0].1);
    // The scorer goes on.
    assert!(scorer.score(&[words(vec!["nice"]), words(vec!["nice"])]).expect("scores").failed.is_empty());
}

#[test]
fn an_open_width_is_settled_by_the_columns() {
    let model = model(
        vec![node("", "Sigmoid", &["X"], &["Y"])],
        vec![value("X", 1, &[None, None])],
        vec![value("Y", 1, &[None, None])],
    )
    .expect("loads");
    assert_eq!(model.outputs()[0].width(), None);
    let bound =
        model.bind(&[("a", DataType::Float32), ("b", DataType::Float32)], &output("Y", Some(1))).expect("binds");
    let column = |v: f32| -> ArrayRef { Arc::new(Float32Array::from(vec![v])) };
    let scores = bound.scorer().expect("starts").score(&[column(0.0), column(f32::INFINITY)]).expect("scores");
    assert_eq!(scores.columns[0].as_primitive::<Float32Type>().value(0), 1.0);
    assert!(model.bind(&[("a", DataType::Float32)], &output("Y", Some(1))).is_err());
}

#[test]
fn a_model_of_one_row_is_run_row_by_row() {
    let model = model(
        vec![node("", "Flatten", &["X"], &["Y"])],
        vec![value("X", 1, &[Some(1), Some(2)])],
        vec![value("Y", 1, &[Some(1), Some(2)])],
    )
    .expect("loads");
    let bound =
        model.bind(&[("a", DataType::Float32), ("b", DataType::Float32)], &output("Y", Some(1))).expect("binds");
    let column = |v: &[f32]| -> ArrayRef { Arc::new(Float32Array::from(v.to_vec())) };
    let scores = bound
        .scorer()
        .expect("starts")
        .score(&[column(&[1.0, 2.0, 3.0]), column(&[4.0, f32::NAN, 6.0])])
        .expect("scores");
    assert_eq!(scores.columns[0].as_primitive::<Float32Type>().values()[..1], [4.0]);
    assert_eq!(scores.failed, [(1, "score is NaN".to_string())]);
}

#[test]
fn empty_batches_and_wrong_columns() {
    let bound = golden("lr_binary").bind(&eight(), &output("probabilities", Some(1))).expect("binds");
    let mut scorer = bound.scorer().expect("starts");
    let column = |n: usize| -> ArrayRef { Arc::new(Float64Array::from(vec![0.0; n])) };
    let scores = scorer.score(&vec![column(0); 8]).expect("scores");
    assert_eq!((scores.columns[0].len(), scores.failed.len()), (0, 0));
    assert!(scorer.score(&vec![column(1); 7]).is_err());
    let mut uneven = vec![column(2); 8];
    uneven[3] = column(1);
    assert!(scorer.score(&uneven).is_err());
}

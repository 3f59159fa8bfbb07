//! The models of `bench score`: made from a seed, written as ONNX, and computed by a plain loop beside.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto, tensor_shape_proto, type_proto,
};

use crate::base::SplitMix64;

/// Inputs of every model.
pub const INPUTS: usize = 20;

/// A model of the bench.
pub trait BenchModel {
    /// Its name.
    fn name(&self) -> &'static str;
    /// The model as an ONNX file.
    fn encode(&self) -> Vec<u8>;
    /// Output and element that hold the score.
    fn output(&self) -> (&'static str, usize);
    /// The same score by a plain loop, one row after the other, from columns of equal length.
    fn plain(&self, columns: &[&[f32]], out: &mut [f32]);
}

/// The models of the bench.
pub fn all() -> Vec<Box<dyn BenchModel>> {
    vec![Box::new(Trees::new(100, 6)), Box::new(Mlp::new(&[INPUTS, 64, 32, 1])), Box::new(Logistic::new())]
}

/// Rows to score, each input roughly uniform in (−2, 2).
pub fn rows(n: usize) -> Vec<[f32; INPUTS]> {
    let mut noise = Noise(SplitMix64::new(0x5eed));
    (0..n).map(|_| std::array::from_fn(|_| 4.0 * noise.unit() - 2.0)).collect()
}

/// Made-up weights.
struct Noise(SplitMix64);

impl Noise {
    /// In [0, 1).
    fn unit(&mut self) -> f32 {
        (self.0.word() >> 40) as f32 / (1u32 << 24) as f32
    }

    fn weight(&mut self, scale: f32) -> f32 {
        (2.0 * self.unit() - 1.0) * scale
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Full binary trees, a boosted classifier with one margin.
struct Trees {
    depth: usize,
    /// Per tree, in heap order.
    splits: Vec<Vec<(usize, f32)>>,
    leaves: Vec<Vec<f32>>,
}

impl Trees {
    fn new(trees: usize, depth: usize) -> Trees {
        let mut noise = Noise(SplitMix64::new(1));
        let inner = (1 << depth) - 1;
        let splits = (0..trees)
            .map(|_| (0..inner).map(|_| (noise.0.below(INPUTS as u64) as usize, noise.weight(1.5))).collect())
            .collect();
        let leaves = (0..trees).map(|_| (0..1 << depth).map(|_| noise.weight(0.1)).collect()).collect();
        Trees { depth, splits, leaves }
    }
}

impl BenchModel for Trees {
    fn name(&self) -> &'static str {
        "trees"
    }

    fn output(&self) -> (&'static str, usize) {
        ("probabilities", 1)
    }

    fn encode(&self) -> Vec<u8> {
        let inner = (1i64 << self.depth) - 1;
        let nodes = (1i64 << (self.depth + 1)) - 1;
        let trees = 0..self.splits.len();
        let each = |f: &dyn Fn(usize, i64) -> i64| -> Vec<i64> {
            trees.clone().flat_map(|t| (0..nodes).map(move |n| (t, n))).map(|(t, n)| f(t, n)).collect()
        };
        let child = |n: i64, side: i64| if n < inner { 2 * n + side } else { 0 };
        let values: Vec<f32> = trees
            .clone()
            .flat_map(|t| (0..nodes as usize).map(move |n| self.splits[t].get(n).map_or(0.0, |s| s.1)))
            .collect();
        let leaves = |f: &dyn Fn(usize, i64) -> i64| -> Vec<i64> {
            trees.clone().flat_map(|t| (inner..nodes).map(move |n| (t, n))).map(|(t, n)| f(t, n)).collect()
        };
        let attributes = vec![
            ints("nodes_treeids", each(&|t, _| t as i64)),
            ints("nodes_nodeids", each(&|_, n| n)),
            ints("nodes_featureids", each(&|t, n| self.splits[t].get(n as usize).map_or(0, |s| s.0 as i64))),
            ints("nodes_truenodeids", each(&|_, n| child(n, 1))),
            ints("nodes_falsenodeids", each(&|_, n| child(n, 2))),
            ints("nodes_missing_value_tracks_true", each(&|_, _| 0)),
            floats("nodes_values", values),
            texts("nodes_modes", each(&|_, n| n).into_iter().map(|n| if n < inner { "BRANCH_LEQ" } else { "LEAF" })),
            ints("class_treeids", leaves(&|t, _| t as i64)),
            ints("class_nodeids", leaves(&|_, n| n)),
            ints("class_ids", leaves(&|_, _| 0)),
            floats("class_weights", self.leaves.concat()),
            ints("classlabels_int64s", vec![0, 1]),
            text("post_transform", "LOGISTIC"),
        ];
        model(
            vec![node("ai.onnx.ml", "TreeEnsembleClassifier", &["X"], &["label", "probabilities"], attributes)],
            vec![],
            &[("label", 7, &[]), ("probabilities", 1, &[2])],
        )
    }

    fn plain(&self, columns: &[&[f32]], out: &mut [f32]) {
        let inner = (1 << self.depth) - 1;
        for (row, out) in out.iter_mut().enumerate() {
            let x: [f32; INPUTS] = std::array::from_fn(|i| columns[i][row]);
            let mut sum = 0.0;
            for (splits, leaves) in self.splits.iter().zip(&self.leaves) {
                let mut at = 0;
                while at < inner {
                    let (feature, threshold) = splits[at];
                    at = if x[feature] <= threshold { 2 * at + 1 } else { 2 * at + 2 };
                }
                sum += leaves[at - inner];
            }
            *out = logistic(sum);
        }
    }
}

/// A multi-layer perceptron: rectifiers between the layers, a sigmoid at the end.
struct Mlp {
    /// Per layer: inputs, outputs, weights by input and output, biases.
    layers: Vec<(usize, usize, Vec<f32>, Vec<f32>)>,
}

impl Mlp {
    fn new(sizes: &[usize]) -> Mlp {
        let mut noise = Noise(SplitMix64::new(2));
        let layer = |w: &[usize]| {
            let scale = (2.0 / w[0] as f32).sqrt();
            let weights = (0..w[0] * w[1]).map(|_| noise.weight(scale)).collect();
            (w[0], w[1], weights, (0..w[1]).map(|_| noise.weight(0.1)).collect())
        };
        Mlp { layers: sizes.windows(2).map(layer).collect() }
    }
}

impl BenchModel for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn output(&self) -> (&'static str, usize) {
        ("score", 0)
    }

    fn encode(&self) -> Vec<u8> {
        let mut nodes = Vec::new();
        let mut tensors = Vec::new();
        let mut from = "X".to_string();
        for (i, (inputs, outputs, weights, biases)) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            let (w, b, sum) = (format!("w{i}"), format!("b{i}"), format!("s{i}"));
            let to = if last { "score".to_string() } else { format!("a{i}") };
            tensors.push(tensor(&w, &[*inputs, *outputs], weights));
            tensors.push(tensor(&b, &[*outputs], biases));
            nodes.push(node("", "Gemm", &[&from, &w, &b], &[&sum], vec![]));
            nodes.push(node("", if last { "Sigmoid" } else { "Relu" }, &[&sum], &[&to], vec![]));
            from = to;
        }
        model(nodes, tensors, &[("score", 1, &[1])])
    }

    fn plain(&self, columns: &[&[f32]], out: &mut [f32]) {
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for (row, out) in out.iter_mut().enumerate() {
            x.clear();
            x.extend(columns.iter().map(|c| c[row]));
            for (i, (_, outputs, weights, biases)) in self.layers.iter().enumerate() {
                y.clear();
                y.extend_from_slice(biases);
                for (v, w) in x.iter().zip(weights.chunks_exact(*outputs)) {
                    y.iter_mut().zip(w).for_each(|(y, w)| *y += v * w);
                }
                if i + 1 < self.layers.len() {
                    y.iter_mut().for_each(|y| *y = y.max(0.0));
                }
                std::mem::swap(&mut x, &mut y);
            }
            *out = logistic(x[0]);
        }
    }
}

/// A logistic regression.
struct Logistic {
    weights: Vec<f32>,
    bias: f32,
}

impl Logistic {
    fn new() -> Logistic {
        let mut noise = Noise(SplitMix64::new(3));
        Logistic { weights: (0..INPUTS).map(|_| noise.weight(0.5)).collect(), bias: 0.1 }
    }
}

impl BenchModel for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
    }

    fn output(&self) -> (&'static str, usize) {
        ("score", 0)
    }

    fn encode(&self) -> Vec<u8> {
        let tensors = vec![tensor("w", &[INPUTS, 1], &self.weights), tensor("b", &[1], &[self.bias])];
        let nodes = vec![
            node("", "Gemm", &["X", "w", "b"], &["margin"], vec![]),
            node("", "Sigmoid", &["margin"], &["score"], vec![]),
        ];
        model(nodes, tensors, &[("score", 1, &[1])])
    }

    fn plain(&self, columns: &[&[f32]], out: &mut [f32]) {
        for (row, out) in out.iter_mut().enumerate() {
            let margin = columns.iter().zip(&self.weights).fold(0.0, |s, (c, w)| s + c[row] * w);
            *out = logistic(margin + self.bias);
        }
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..Default::default() }
}

fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto { floats, ..attribute(name, AttributeType::Floats) }
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: s.into(), ..attribute(name, AttributeType::String) }
}

fn texts(name: &str, texts: impl Iterator<Item = &'static str>) -> AttributeProto {
    AttributeProto {
        strings: texts.map(|s| s.as_bytes().to_vec()).collect(),
        ..attribute(name, AttributeType::Strings)
    }
}

fn node(domain: &str, op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    NodeProto {
        domain: domain.into(),
        op_type: op.into(),
        name: format!("{}_{}", op.to_lowercase(), outputs[0]),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..Default::default()
    }
}

fn tensor(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: tensor_proto::DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn value(name: &str, elem_type: i32, rest: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let rows = Dimension { value: Some(Value::DimParam("N".into())), ..Default::default() };
    let rest = rest.iter().map(|&n| Dimension { value: Some(Value::DimValue(n)), ..Default::default() });
    let shape = TensorShapeProto { dim: std::iter::once(rows).chain(rest).collect() };
    let tensor = type_proto::Tensor { elem_type, shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>, outputs: &[(&str, i32, &[i64])]) -> Vec<u8> {
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let graph = GraphProto {
        name: "bench".into(),
        node,
        initializer,
        input: vec![value("X", 1, &[INPUTS as i64])],
        output: outputs.iter().map(|(n, t, d)| value(n, *t, d)).collect(),
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![opset("", 17), opset("ai.onnx.ml", 3)],
        graph: Some(graph),
        ..Default::default()
    };
    model.encode_to_vec()
}

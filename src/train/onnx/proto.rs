//! ONNX's messages, made shortly.

use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};

/// The domain of the operators of classical models.
pub(super) const ML: &str = "ai.onnx.ml";

/// What begins the names of values between nodes.
const INNER: &str = "_tidemill_";

/// Element types by ONNX's numbers.
#[derive(Clone, Copy)]
pub(super) enum Element {
    Float = 1,
    Int64 = 7,
    Text = 8,
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..Default::default() }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i, ..attribute(name, AttributeType::Int) }
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f, ..attribute(name, AttributeType::Float) }
}

pub(super) fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: s.into(), ..attribute(name, AttributeType::String) }
}

pub(super) fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { ints, ..attribute(name, AttributeType::Ints) }
}

pub(super) fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto { floats, ..attribute(name, AttributeType::Floats) }
}

pub(super) fn texts<S: AsRef<str>>(name: &str, texts: &[S]) -> AttributeProto {
    let strings = texts.iter().map(|t| t.as_ref().as_bytes().to_vec()).collect();
    AttributeProto { strings, ..attribute(name, AttributeType::Strings) }
}

/// Whether a name may be that of a value between nodes.
pub(super) fn is_inner(name: &str) -> bool {
    name.starts_with(INNER)
}

/// A graph in the making.
pub(super) struct Graph {
    graph: GraphProto,
    made: usize,
}

impl Graph {
    pub(super) fn new(name: &str) -> Graph {
        Graph { graph: GraphProto { name: name.into(), ..Default::default() }, made: 0 }
    }

    fn name(&mut self, of: &str) -> String {
        self.made += 1;
        format!("{INNER}{of}_{}", self.made)
    }

    /// An input of `width` values per row.
    pub(super) fn input(&mut self, name: &str, element: Element, width: i64) {
        self.graph.input.push(value(name, element, &[width]));
    }

    pub(super) fn has_input(&self, name: &str) -> bool {
        self.graph.input.iter().any(|i| i.name == name)
    }

    /// A constant of floats.
    pub(super) fn floats(&mut self, dims: &[i64], float_data: Vec<f32>) -> String {
        let name = self.name("floats");
        let data_type = Element::Float as i32;
        let tensor = TensorProto { name: name.clone(), dims: dims.into(), data_type, float_data, ..Default::default() };
        self.graph.initializer.push(tensor);
        name
    }

    /// A constant list of integers.
    pub(super) fn ints(&mut self, int64_data: Vec<i64>) -> String {
        let name = self.name("ints");
        let (dims, data_type) = (vec![int64_data.len() as i64], Element::Int64 as i32);
        let tensor = TensorProto { name: name.clone(), dims, data_type, int64_data, ..Default::default() };
        self.graph.initializer.push(tensor);
        name
    }

    /// A node with one output, whose name it gives.
    pub(super) fn node(&mut self, domain: &str, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.name(op);
        self.graph.node.push(NodeProto {
            name: output.clone(),
            op_type: op.into(),
            domain: domain.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.clone()],
            attribute,
            ..Default::default()
        });
        output
    }

    /// Makes a node's output one of the model's, by its name there.
    pub(super) fn output(&mut self, from: &str, name: &str, element: Element, dims: &[i64]) {
        for node in &mut self.graph.node {
            let names = node.input.iter_mut().chain(&mut node.output);
            names.filter(|n| *n == from).for_each(|n| *n = name.to_string());
        }
        self.graph.output.push(value(name, element, dims));
    }

    pub(super) fn into_model(self, metadata: Vec<(&str, String)>) -> ModelProto {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.into(), value };
        ModelProto {
            ir_version: 8,
            opset_import: vec![opset("", 17), opset(ML, 3)],
            producer_name: "tidemill".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            metadata_props: metadata.into_iter().map(entry).collect(),
            ..Default::default()
        }
    }
}

/// A tensor of rows with these dimensions each.
fn value(name: &str, element: Element, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let rows = Dimension { value: Some(Value::DimParam("N".into())), ..Default::default() };
    let fixed = dims.iter().map(|d| Dimension { value: Some(Value::DimValue(*d)), ..Default::default() });
    let dim = std::iter::once(rows).chain(fixed).collect();
    let tensor = type_proto::Tensor { elem_type: element as i32, shape: Some(TensorShapeProto { dim }) };
    let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() });
    ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

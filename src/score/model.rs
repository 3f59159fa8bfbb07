//! A model file: its hash, its inputs and outputs, and what runs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use tract_onnx::prelude::Framework;

use super::error::ScoreError;
use super::graph::{Fault, Graph, label};
use super::neural::{self, Neural};
use super::proto::Opsets;
use super::scorer::Engine;
use super::tensor::{Data, Kind, Tensor};

/// Element type of a model's input or output, by ONNX's names. Integers of every width count as `int64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// Any integer type.
    Int64,
    /// `bool`.
    Bool,
    /// `string`.
    String,
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Kind::from(*self).name())
    }
}

impl From<Kind> for Element {
    fn from(kind: Kind) -> Element {
        match kind {
            Kind::F32 => Element::Float,
            Kind::F64 => Element::Double,
            Kind::I64 => Element::Int64,
            Kind::Bool => Element::Bool,
            Kind::Text => Element::String,
        }
    }
}

impl From<Element> for Kind {
    fn from(element: Element) -> Kind {
        match element {
            Element::Float => Kind::F32,
            Element::Double => Kind::F64,
            Element::Int64 => Kind::I64,
            Element::Bool => Kind::Bool,
            Element::String => Kind::Text,
        }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the model.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Dimensions after the rows; `None` where the model leaves one open. An empty list is one value per row.
    pub dims: Option<Vec<usize>>,
}

impl TensorInfo {
    /// Values per row; `None` where the model leaves that open.
    pub fn width(&self) -> Option<usize> {
        self.dims.as_ref().map(|d| d.iter().product())
    }
}

impl std::fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} [N", self.name, self.element)?;
        match &self.dims {
            Some(dims) => dims.iter().try_for_each(|d| write!(f, ", {d}"))?,
            None => write!(f, ", ?")?,
        }
        write!(f, "]")
    }
}

/// Key of a model's metadata: a JSON list of the names of the columns that its only input is made of, in order.
pub const COLUMNS: &str = "tidemill.columns";

/// Key of a model's metadata, with an empty value: a text that is null comes to the model as an empty one. Without it the row fails.
pub const MISSING_TEXT: &str = "tidemill.missing_text";

/// A loaded model. Cheap to clone; threads share it.
#[derive(Clone)]
pub struct Model {
    path: PathBuf,
    hash: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    /// ONNX's codes of the element types of inputs and outputs, as the file says them; 0 for what is no tensor.
    codes: Arc<(Vec<i32>, Vec<i32>)>,
    /// What the columns of its only input are called, where the file says so.
    pub(super) columns: Option<Vec<String>>,
    /// Whether it takes an empty text for a missing one.
    pub(super) missing_text: bool,
    /// The model takes one row at a time.
    pub(super) single_rows: bool,
    pub(super) engine: Engine,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("path", &self.path)
            .field("hash", &self.hash)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish()
    }
}

impl Model {
    /// Reads and compiles an ONNX file.
    ///
    /// # Errors
    /// The file cannot be read or is no ONNX model; it uses operators that have no kernel, all of which the error names; a node is malformed; or a
    /// trial on a few rows shows that the model mixes the rows of a batch.
    pub fn load(path: impl AsRef<Path>) -> Result<Model, ScoreError> {
        let path = path.as_ref().to_path_buf();
        let bytes = std::fs::read(&path).map_err(|source| ScoreError::Read { path: path.clone(), source })?;
        Model::from_bytes(path, &bytes)
    }

    /// Compiles the contents of an ONNX file; `path` is for messages.
    ///
    /// # Errors
    /// As for [`Model::load`].
    pub fn from_bytes(path: PathBuf, bytes: &[u8]) -> Result<Model, ScoreError> {
        let malformed = |why: String| ScoreError::Malformed { path: path.clone(), why };
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &*bytes).map_err(|e| malformed(format!("{e:#}")))?;
        let graph = proto.graph.as_ref().ok_or_else(|| malformed("it has no graph".into()))?;
        if !proto.functions.is_empty() {
            return Err(malformed("it defines functions of its own; export it with them inlined".into()));
        }
        let given = |name: &str| graph.initializer.iter().any(|t| t.name == name);
        let declared: Vec<Declared> = graph
            .input
            .iter()
            .filter(|i| !given(&i.name))
            .map(declared)
            .collect::<Result<_, _>>()
            .map_err(malformed)?;
        if declared.is_empty() || graph.output.is_empty() {
            return Err(malformed("it has no inputs or no outputs".into()));
        }
        let single_rows = declared.iter().any(|d| d.rows == Some(1));
        if let Some(d) = declared.iter().find(|d| d.rows.is_some_and(|n| n != 1)) {
            return Err(malformed(format!(
                "input {:?} takes batches of exactly {} rows; export it with a free first dimension",
                d.info.name,
                d.rows.unwrap_or(0)
            )));
        }
        let inputs: Vec<TensorInfo> = declared.into_iter().map(|d| d.info).collect();
        let engine = compile(&path, &proto, graph, &inputs, single_rows)?;
        let outputs = graph
            .output
            .iter()
            .map(|o| {
                // A ZipMap's output is declared as dictionaries; here it is the tensor that went into it.
                let found = declared_output(o);
                TensorInfo { name: o.name.clone(), element: found.0.into(), dims: found.1 }
            })
            .collect();
        let metadata = |key: &str| proto.metadata_props.iter().find(|p| p.key == key).map(|p| p.value.as_str());
        let columns = metadata(COLUMNS)
            .map(|names| serde_json::from_str(names).map_err(|e| malformed(format!("its metadata {COLUMNS}: {e}"))))
            .transpose()?;
        let missing_text = metadata(MISSING_TEXT).is_some();
        let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        let code = |info: &ValueInfoProto| match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
            Some(type_proto::Value::TensorType(t)) => t.elem_type,
            _ => 0,
        };
        let fed = graph.input.iter().filter(|i| !given(&i.name));
        let codes = Arc::new((fed.map(code).collect(), graph.output.iter().map(code).collect()));
        let mut model = Model { path, hash, inputs, outputs, codes, columns, missing_text, single_rows, engine };
        model.try_out()?;
        Ok(model)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's bytes, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The inputs, in the model's order.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// ONNX's codes of the element types of inputs and outputs, as the file says them; 0 for what is no tensor there.
    pub(crate) fn codes(&self) -> (&[i32], &[i32]) {
        (&self.codes.0, &self.codes.1)
    }

    /// Names of the columns that the only input is made of, in order, where the file tells them ([`COLUMNS`]).
    pub fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// The outputs, in the model's order.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The model with its open input widths settled for `columns` columns: all of them for an only input, else one for each. Without open widths, the same model.
    ///
    /// # Errors
    /// As for [`Model::load`] where the model turns out to mix rows.
    pub fn with_columns(&self, columns: usize) -> Result<Model, ScoreError> {
        let mut model = self.clone();
        if model.inputs.iter().all(|i| i.dims.is_some()) {
            return Ok(model);
        }
        let width = if model.inputs.len() == 1 { columns } else { 1 };
        model.inputs.iter_mut().for_each(|i| {
            i.dims.get_or_insert_with(|| vec![width]);
        });
        model.try_out()?;
        Ok(model)
    }

    /// Scores a few made-up rows together and one by one: learns the outputs' types and widths, and refuses a model for which the two differ.
    ///
    /// Models with open input widths, and such as fail on made-up values (an unknown category, say), keep what they declare.
    fn try_out(&mut self) -> Result<(), ScoreError> {
        const ROWS: usize = 5;
        let Some(rows) = self.inputs.iter().map(|i| made_up(i, ROWS)).collect::<Option<Vec<Tensor>>>() else {
            return Ok(());
        };
        let wanted: Vec<usize> = (0..self.outputs.len()).collect();
        let Ok(mut run) = self.engine.start(&wanted) else {
            return Ok(());
        };
        let mut singles = Vec::new();
        for row in 0..ROWS {
            let one: Vec<Tensor> = rows.iter().map(|x| row_of(x, row)).collect();
            match run.run(&one, 1) {
                Ok(outputs) => singles.push(outputs),
                Err(_) => return Ok(()),
            }
        }
        for (o, info) in self.outputs.iter_mut().enumerate() {
            let one = &singles[0][o];
            if one.dims.first() == Some(&1) {
                info.element = one.kind().into();
                info.dims = Some(one.dims[1..].to_vec());
            }
        }
        if self.single_rows {
            return Ok(());
        }
        let mixes = |why: String| ScoreError::MixesRows { path: self.path.clone(), why };
        let together = run.run(&rows, ROWS).map_err(mixes)?;
        for (o, info) in self.outputs.iter().enumerate() {
            if together[o].dims.first() != Some(&ROWS) {
                return Err(mixes(format!(
                    "output {:?} has the shape {:?} for {ROWS} rows",
                    info.name, together[o].dims
                )));
            }
            if (0..ROWS).any(|row| !same_bits(&row_of(&together[o], row), &singles[row][o])) {
                return Err(mixes(format!("output {:?} of a row differs with the batch it is in", info.name)));
            }
        }
        Ok(())
    }
}

struct Declared {
    info: TensorInfo,
    rows: Option<usize>,
}

fn declared(input: &ValueInfoProto) -> Result<Declared, String> {
    let name = &input.name;
    let Some(type_proto::Value::TensorType(t)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(format!("input {name:?} is not a tensor"));
    };
    let kind = Kind::of_onnx(t.elem_type)
        .ok_or_else(|| format!("input {name:?} has element type {}, which is not supported", t.elem_type))?;
    let dims = shape(t);
    let rows = dims.as_ref().and_then(|d| d.first().copied().flatten());
    let rest = dims.and_then(|d| d.into_iter().skip(1).collect::<Option<Vec<usize>>>());
    Ok(Declared { info: TensorInfo { name: name.clone(), element: kind.into(), dims: rest }, rows })
}

fn declared_output(output: &ValueInfoProto) -> (Kind, Option<Vec<usize>>) {
    match output.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(t)) => {
            let rest = shape(t).and_then(|d| d.into_iter().skip(1).collect());
            (Kind::of_onnx(t.elem_type).unwrap_or(Kind::F32), rest)
        }
        _ => (Kind::F32, None),
    }
}

/// Dimensions, open ones `None`; `None` where there is no shape at all.
fn shape(t: &type_proto::Tensor) -> Option<Vec<Option<usize>>> {
    let dims = &t.shape.as_ref()?.dim;
    Some(
        dims.iter()
            .map(|d| match d.value {
                Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok().filter(|&n| n > 0),
                _ => None,
            })
            .collect(),
    )
}

/// Finds what runs the graph: our kernels if they know every operator, else the neural engine if it does.
fn compile(
    path: &Path,
    proto: &ModelProto,
    graph: &GraphProto,
    inputs: &[TensorInfo],
    single_rows: bool,
) -> Result<Engine, ScoreError> {
    let opsets = Opsets::of(proto);
    let nodes = || graph.node.iter();
    let plain = |domain: &str| matches!(domain, "" | "ai.onnx");
    let ours = |n: &&tract_onnx::pb::NodeProto| {
        super::kernels::known(n) && n.attribute.iter().all(|a| a.g.is_none() && a.graphs.is_empty())
    };
    let lacking: Vec<_> = nodes().filter(|n| !ours(n)).collect();
    if lacking.is_empty() {
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        return Graph::compile(graph, &names, opsets).map(|g| Engine::Own(Arc::new(g))).map_err(|fault| match fault {
            Fault::Node { node, why } => ScoreError::Node { path: path.into(), node, why },
            Fault::Graph(why) => ScoreError::Malformed { path: path.into(), why },
        });
    }
    let neural = |n: &&tract_onnx::pb::NodeProto| plain(&n.domain) && neural::has(&n.op_type);
    let nobodys: Vec<String> = lacking.iter().filter(|n| !neural(n)).map(|n| label(n)).collect();
    let unknown = |operators: String| ScoreError::UnknownOperators { path: path.into(), operators };
    if !nobodys.is_empty() {
        return Err(unknown(nobodys.join(", ")));
    }
    let apart: Vec<String> = nodes().filter(|n| !neural(n)).map(label).collect();
    if !apart.is_empty() {
        let lacking: Vec<String> = lacking.iter().map(|n| label(n)).collect();
        return Err(unknown(format!("{} (in one graph with {})", lacking.join(", "), apart.join(", "))));
    }
    let shapes = inputs
        .iter()
        .map(|i| {
            i.dims.clone().map(|d| (i.element.into(), d)).ok_or_else(|| format!("input {:?} has an open width", i.name))
        })
        .collect::<Result<Vec<_>, _>>();
    shapes
        .and_then(|shapes| Neural::compile(proto, &shapes, if single_rows { 1 } else { neural::BLOCK }))
        .map(|n| Engine::Neural(Arc::new(n)))
        .map_err(|why| ScoreError::Malformed {
            path: path.into(),
            why: format!("the neural engine cannot take it: {why}"),
        })
}

/// Rows to try a model on, the same ones every time.
fn made_up(input: &TensorInfo, rows: usize) -> Option<Tensor> {
    let mut dims = vec![rows];
    dims.extend(input.dims.as_ref()?);
    let n: usize = dims.iter().product();
    let noise = |i: usize| {
        (i as u32).wrapping_mul(2654435761).wrapping_add(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b) >> 8
    };
    let float = |i: usize| f64::from(noise(i)) / f64::from(1 << 22) - 2.0;
    let data = match input.element {
        Element::Float => Data::F32((0..n).map(|i| float(i) as f32).collect()),
        Element::Double => Data::F64((0..n).map(float).collect()),
        Element::Int64 => Data::I64((0..n).map(|i| i64::from(noise(i) % 4)).collect()),
        Element::Bool => Data::Bool((0..n).map(|i| noise(i) % 2 == 1).collect()),
        Element::String => Data::Text((0..n).map(|i| format!("{}", noise(i) % 4)).collect()),
    };
    Some(Tensor::new(dims, data))
}

fn row_of(x: &Tensor, row: usize) -> Tensor {
    let w = x.width();
    let range = row * w..(row + 1) * w;
    let mut dims = x.dims.clone();
    dims[0] = 1;
    let data = match &x.data {
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::I64(v) => Data::I64(v[range].to_vec()),
        Data::Bool(v) => Data::Bool(v[range].to_vec()),
        Data::Text(v) => Data::Text(v[range].to_vec()),
    };
    Tensor::new(dims, data)
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    a.dims == b.dims
        && match (&a.data, &b.data) {
            (Data::F32(a), Data::F32(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
            (Data::F64(a), Data::F64(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
            (a, b) => a == b,
        }
}

//! The operators: one kernel each, found by domain and name.

mod category;
mod convert;
mod elementwise;
mod gemm;
mod linear;
mod prepare;
mod reduce;
mod shape;
mod svm;

use tract_onnx::pb::NodeProto;

use super::proto::{Attributes, Opsets};
use super::tensor::Tensor;
use super::tree::{TreeKernel, Work};

/// One node of a graph, ready to run.
///
/// A kernel keeps no state between runs and computes each row of its batch alike, wherever in the batch it stands.
pub(crate) trait Kernel: Send + Sync {
    /// Computes the outputs. The error says what is wrong with the values, for the dead letter of the row.
    fn run(&self, args: Args, outputs: &mut [Tensor], scratch: &mut Scratch) -> Result<(), String>;
}

/// A kernel's inputs: places in the scorer's slots.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    pub(crate) slots: &'a [Tensor],
    pub(crate) places: &'a [Option<usize>],
    /// Which outputs anybody reads, as bits.
    pub(crate) wanted: u64,
}

impl<'a> Args<'a> {
    /// Number of inputs, absent ones included.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether anybody reads an output.
    pub(crate) fn wants(&self, output: usize) -> bool {
        self.wanted >> output.min(63) & 1 == 1
    }

    /// An input that may be absent.
    pub(crate) fn opt(&self, i: usize) -> Option<&'a Tensor> {
        self.places.get(i).copied().flatten().map(|p| &self.slots[p])
    }

    /// An input that must be there.
    pub(crate) fn get(&self, i: usize) -> Result<&'a Tensor, String> {
        self.opt(i).ok_or_else(|| format!("lacks its input {i}"))
    }
}

/// Buffers of one thread that kernels use between entry and exit.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) tree32: Work<f32>,
    pub(crate) tree64: Work<f64>,
    pub(crate) floats: Vec<f32>,
}

/// What a kernel is made from.
#[derive(Clone, Copy)]
pub(crate) struct Recipe<'a> {
    pub(crate) node: &'a NodeProto,
    pub(crate) opsets: Opsets,
    /// Inputs whose values are known now.
    pub(crate) constants: &'a [Option<&'a Tensor>],
}

impl<'a> Recipe<'a> {
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.node)
    }

    pub(crate) fn constant(&self, i: usize) -> Option<&'a Tensor> {
        self.constants.get(i).copied().flatten()
    }
}

type Made = Result<Box<dyn Kernel>, String>;

/// Boxes a kernel, for makers that may fail.
fn made<K: Kernel + 'static>(kernel: K) -> Made {
    Ok(Box::new(kernel))
}

/// The kernel of a node; `None` where no kernel of ours computes the operator.
pub(crate) fn make(recipe: Recipe) -> Option<Made> {
    let a = recipe.attributes();
    let name = recipe.node.op_type.as_str();
    match recipe.node.domain.as_str() {
        "ai.onnx.ml" => Some(match name {
            "TreeEnsembleClassifier" => TreeKernel::classifier(a).and_then(made),
            "TreeEnsembleRegressor" => TreeKernel::regressor(a).and_then(made),
            "TreeEnsemble" => TreeKernel::ensemble(a).and_then(made),
            "LinearClassifier" => linear::Classifier::new(a).and_then(made),
            "LinearRegressor" => linear::Regressor::new(a).and_then(made),
            "SVMClassifier" => svm::Classifier::new(a).and_then(made),
            "SVMRegressor" => svm::Regressor::new(a).and_then(made),
            "Scaler" => prepare::Scaler::new(a).and_then(made),
            "Normalizer" => prepare::Normalizer::new(a).and_then(made),
            "Imputer" => prepare::Imputer::new(a).and_then(made),
            "Binarizer" => made(prepare::Binarizer::new(a)),
            "FeatureVectorizer" => made(prepare::FeatureVectorizer::new(a)),
            "ArrayFeatureExtractor" => made(prepare::ArrayFeatureExtractor),
            "OneHotEncoder" => category::OneHot::new(a).and_then(made),
            "LabelEncoder" => category::LabelEncoder::make(a, recipe.opsets.ml),
            "CategoryMapper" => category::mapper(a),
            // Probabilities stay a tensor here: an output column is picked by position.
            "ZipMap" => made(shape::Copy),
            _ => return None,
        }),
        "" | "ai.onnx" => linear::make(name, recipe)
            .or_else(|| elementwise::make(name, recipe))
            .or_else(|| convert::make(name, recipe))
            .or_else(|| reduce::make(name, recipe))
            .or_else(|| shape::make(name, recipe)),
        _ => None,
    }
}

/// Operators of ai.onnx.ml that [`make`] knows.
const ML: [&str; 16] = [
    "ArrayFeatureExtractor",
    "Binarizer",
    "CategoryMapper",
    "FeatureVectorizer",
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "OneHotEncoder",
    "SVMClassifier",
    "SVMRegressor",
    "Scaler",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
];

/// Whether a kernel of ours computes a node's operator, right or wrong as its attributes may be.
pub(crate) fn known(node: &NodeProto) -> bool {
    match node.domain.as_str() {
        // Not by trying: a forest is costly to make.
        "ai.onnx.ml" => node.op_type == "ZipMap" || ML.contains(&node.op_type.as_str()),
        _ => make(Recipe { node, opsets: Opsets { plain: 17, ml: 3 }, constants: &[] }).is_some(),
    }
}

/// An axis given from either end, as an index; `rank` itself is allowed where `end` says so.
pub(crate) fn axis_of(axis: i64, rank: usize, end: bool) -> Result<usize, String> {
    let i = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(i)
        .ok()
        .filter(|&i| i < rank + end as usize)
        .ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}

/// Sizes before, at and after an axis.
pub(crate) fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    (dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product())
}

//! A request for scores, however it came, and what a model makes of it.

use std::time::Duration;

use super::datatype::{Datatype, widen};
use super::error::InferError;
use crate::score::tensor::{Data, Kind, Tensor};
use crate::score::{Model, TensorInfo};

/// A tensor as a client gives it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<usize>,
    pub data: Data,
}

/// An output that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub name: String,
    /// Whether it comes as bytes.
    pub binary: bool,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub id: String,
    pub inputs: Vec<Given>,
    /// None for all of them.
    pub outputs: Option<Vec<Wanted>>,
    /// Whether outputs come as bytes where the request does not say it of each.
    pub binary: bool,
    /// How long the client would wait.
    pub patience: Option<Duration>,
}

/// Longest list of dimensions.
const RANK_MAX: usize = 16;

/// Dimensions as messages say them, checked, and how many values they have.
pub(super) fn shape(name: &str, dims: &[i64]) -> Result<(Vec<usize>, usize), InferError> {
    let wrong = |why: &str| InferError::Invalid(format!("input {name:?} has the shape {dims:?}, {why}"));
    if dims.len() > RANK_MAX {
        return Err(InferError::Invalid(format!(
            "input {name:?} has {} dimensions; {RANK_MAX} are possible",
            dims.len()
        )));
    }
    let sizes: Vec<usize> = dims
        .iter()
        .map(|d| usize::try_from(*d).map_err(|_| wrong("and no dimension can be negative")))
        .collect::<Result<_, _>>()?;
    let count = sizes.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= isize::MAX as usize / 64);
    count.map(|count| (sizes.clone(), count)).ok_or_else(|| wrong("which are more values than a message can hold"))
}

/// The protocol's types of a model's inputs and outputs.
pub(super) fn datatypes(model: &Model) -> (Vec<Datatype>, Vec<Datatype>) {
    let of = |infos: &[TensorInfo], codes: &[i32]| -> Vec<Datatype> {
        infos.iter().zip(codes).map(|(info, code)| Datatype::declared(*code, Kind::from(info.element))).collect()
    };
    let (inputs, outputs) = model.codes();
    (of(model.inputs(), inputs), of(model.outputs(), outputs))
}

/// A request's inputs as a model takes them, in its order.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub tensors: Vec<Tensor>,
    pub rows: usize,
    pub bytes: usize,
}

/// Checks a request against a model.
///
/// # Errors
/// The first thing that does not fit, by name, with what would.
pub(super) fn prepare(
    name: &str,
    model: &Model,
    request: Request,
) -> Result<(Prepared, Option<Vec<Wanted>>), InferError> {
    let invalid = |why: String| Err(InferError::Invalid(why));
    let (types, _) = datatypes(model);
    let mut tensors: Vec<Option<Tensor>> = vec![None; model.inputs().len()];
    let mut rows = None;
    for given in request.inputs {
        let Some(at) = model.inputs().iter().position(|i| i.name == given.name) else {
            let all: Vec<&str> = model.inputs().iter().map(|i| i.name.as_str()).collect();
            return invalid(format!("model {name:?} has no input {:?}; it has {}", given.name, all.join(", ")));
        };
        let (info, datatype) = (&model.inputs()[at], types[at]);
        if tensors[at].is_some() {
            return invalid(format!("input {:?} is there twice", given.name));
        }
        if !given.datatype.widens_to(datatype) {
            let given_type = given.datatype.name();
            return invalid(format!(
                "input {:?} is {given_type}, and model {name:?} takes {} there",
                given.name,
                datatype.name()
            ));
        }
        let fits = match (given.shape.split_first(), &info.dims) {
            (Some((_, rest)), Some(dims)) => rest == dims,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !fits {
            let wanted: Vec<String> =
                metadata_shape(info).iter().map(|d| if *d < 0 { "N".to_owned() } else { d.to_string() }).collect();
            return invalid(format!(
                "input {:?} has the shape {:?}, and model {name:?} takes [{}]",
                given.name,
                given.shape,
                wanted.join(", ")
            ));
        }
        let n = given.shape.first().copied().unwrap_or(0);
        if n == 0 {
            return invalid(format!("input {:?} has the shape {:?}, which is no rows", given.name, given.shape));
        }
        if *rows.get_or_insert(n) != n {
            return invalid(format!(
                "input {:?} has {n} rows, and another input has {}",
                given.name,
                rows.unwrap_or(0)
            ));
        }
        tensors[at] = Some(Tensor::new(given.shape, widen(given.data, datatype.kind())));
    }
    let missing: Vec<&str> =
        model.inputs().iter().zip(&tensors).filter(|(_, t)| t.is_none()).map(|(i, _)| i.name.as_str()).collect();
    if !missing.is_empty() {
        return invalid(format!("model {name:?} needs {} too", missing.join(", ")));
    }
    let tensors: Vec<Tensor> = tensors.into_iter().flatten().collect();
    for (at, wanted) in request.outputs.iter().flatten().enumerate() {
        if request.outputs.iter().flatten().take(at).any(|before| before.name == wanted.name) {
            return invalid(format!("output {:?} is asked for twice", wanted.name));
        }
        if !model.outputs().iter().any(|o| o.name == wanted.name) {
            let all: Vec<&str> = model.outputs().iter().map(|o| o.name.as_str()).collect();
            return invalid(format!("model {name:?} has no output {:?}; it has {}", wanted.name, all.join(", ")));
        }
    }
    let bytes = tensors.iter().map(size).sum();
    Ok((Prepared { tensors, rows: rows.unwrap_or(0), bytes }, request.outputs))
}

/// About how many bytes of memory a tensor takes.
pub(super) fn size(tensor: &Tensor) -> usize {
    64 + match &tensor.data {
        Data::F32(v) => 4 * v.len(),
        Data::F64(v) => 8 * v.len(),
        Data::I64(v) => 8 * v.len(),
        Data::Bool(v) => v.len(),
        Data::Text(v) => v.iter().map(|t| t.len() + 24).sum(),
    }
}

/// Dimensions as metadata tells them, −1 for what is open.
pub(super) fn metadata_shape(info: &TensorInfo) -> Vec<i64> {
    let rest = match &info.dims {
        Some(dims) => dims.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect(),
        None => vec![-1],
    };
    std::iter::once(-1).chain(rest).collect()
}

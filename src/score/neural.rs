//! Graphs with operators that only the neural engine (tract) has: convolutions, recurrences and the like.
//!
//! tract chooses its matrix kernels by the shape of the batch, and with the kernel the order of a sum may change. So it always sees the same shape:
//! blocks of [`BLOCK`] rows, the last one filled up with zeros. A row's result then depends on no other row.

use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::tensor::{Data, Kind, Tensor};

/// Rows of a run.
pub(crate) const BLOCK: usize = 8;

/// Whether tract has an operator of ai.onnx.
pub(crate) fn has(operator: &str) -> bool {
    static REGISTER: std::sync::LazyLock<tract_onnx::Onnx> = std::sync::LazyLock::new(tract_onnx::onnx);
    REGISTER.op_register.0.contains_key(operator)
}

/// A compiled neural graph.
pub(crate) struct Neural {
    plan: Arc<TypedSimplePlan>,
    /// Rows of a run: [`BLOCK`], or 1 where the model itself says so.
    pub(crate) block: usize,
}

impl Neural {
    /// Compiles a model; each input has the given type and, after the rows, dimensions.
    pub(crate) fn compile(model: &ModelProto, inputs: &[(Kind, Vec<usize>)], block: usize) -> Result<Neural, String> {
        let mut graph = tract_onnx::onnx()
            .with_ignore_output_shapes(true)
            .model_for_proto_model(model)
            .map_err(|e| format!("{e:#}"))?;
        for (i, (kind, dims)) in inputs.iter().enumerate() {
            let kind = match kind {
                Kind::F32 => f32::datum_type(),
                Kind::F64 => f64::datum_type(),
                Kind::I64 => i64::datum_type(),
                Kind::Bool => bool::datum_type(),
                Kind::Text => return Err("takes text, which the neural engine cannot".into()),
            };
            let shape: Vec<usize> = std::iter::once(block).chain(dims.iter().copied()).collect();
            graph.set_input_fact(i, InferenceFact::dt_shape(kind, shape)).map_err(|e| format!("{e:#}"))?;
        }
        let plan = graph.into_optimized().and_then(|g| g.into_runnable()).map_err(|e| format!("{e:#}"))?;
        Ok(Neural { plan, block })
    }

    /// A state to run it on one thread.
    pub(crate) fn spawn(&self) -> Result<TypedSimpleState, String> {
        self.plan.spawn().map_err(|e| format!("{e:#}"))
    }
}

/// Runs `rows` rows in blocks; the outputs are those of the model, with their rows first.
pub(crate) fn run(
    state: &mut TypedSimpleState,
    block: usize,
    rows: usize,
    inputs: &[Tensor],
    outputs: &mut [Tensor],
) -> Result<(), String> {
    let mut first = 0;
    while first < rows || first == 0 {
        let taken = block.min(rows - first);
        let fed: TVec<TValue> =
            inputs.iter().map(|x| part(x, first, taken, block).map(TValue::from)).collect::<Result<_, _>>()?;
        let given = state.run(fed).map_err(|e| format!("{e:#}"))?;
        for (out, value) in outputs.iter_mut().zip(&given) {
            store(out, value, first, taken, block, rows)?;
        }
        first += block;
    }
    Ok(())
}

fn part(x: &Tensor, first: usize, taken: usize, block: usize) -> Result<tract_onnx::prelude::Tensor, String> {
    let width = x.width();
    let mut shape = x.dims.clone();
    shape[0] = block;
    macro_rules! cut {
        ($v:expr, $zero:expr) => {{
            let mut rows = vec![$zero; block * width];
            rows[..taken * width].copy_from_slice(&$v[first * width..(first + taken) * width]);
            tract_onnx::prelude::Tensor::from_shape(&shape, &rows).map_err(|e| format!("{e:#}"))
        }};
    }
    match &x.data {
        Data::F32(v) => cut!(v, 0.0f32),
        Data::F64(v) => cut!(v, 0.0f64),
        Data::I64(v) => cut!(v, 0i64),
        Data::Bool(v) => cut!(v, false),
        Data::Text(_) => Err("takes text, which the neural engine cannot".into()),
    }
}

fn store(
    out: &mut Tensor,
    value: &TValue,
    first: usize,
    taken: usize,
    block: usize,
    rows: usize,
) -> Result<(), String> {
    let shape = value.shape();
    if shape.first() != Some(&block) {
        return Err(format!("gave the shape {shape:?} for {block} rows"));
    }
    let width: usize = shape[1..].iter().product();
    let mut dims = shape.to_vec();
    dims[0] = rows;
    macro_rules! paste {
        ($t:ty, $set:ident) => {{
            let view = value.to_plain_array_view::<$t>().map_err(|e| format!("{e:#}"))?;
            let to = &mut out.$set(&dims)[first * width..(first + taken) * width];
            to.iter_mut().zip(view.iter()).for_each(|(o, v)| *o = *v);
        }};
    }
    match value.datum_type() {
        t if t == f32::datum_type() => paste!(f32, set_f32),
        t if t == f64::datum_type() => paste!(f64, set_f64),
        t if t == i64::datum_type() => paste!(i64, set_i64),
        t if t == bool::datum_type() => paste!(bool, set_bool),
        t => return Err(format!("gave {t:?}, which is not supported")),
    }
    Ok(())
}

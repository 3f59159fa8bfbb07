//! Scoring of batches: Arrow columns in, score columns out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::bind::{Binding, Bound};
use super::error::ScoreError;
use super::graph::{Graph, Machine};
use super::neural::{self, Neural};
use super::tensor::{Data, Kind, Tensor};

/// What runs a model.
#[derive(Clone)]
pub(super) enum Engine {
    Own(Arc<Graph>),
    Neural(Arc<Neural>),
}

impl Engine {
    /// Makes ready to compute some outputs on one thread.
    pub(super) fn start(&self, outputs: &[usize]) -> Result<Running, String> {
        Ok(match self {
            Engine::Own(graph) => Running::Own(Machine::new(graph.clone(), outputs), outputs.to_vec()),
            Engine::Neural(neural) => Running::Neural {
                state: Box::new(neural.spawn()?),
                block: neural.block,
                inputs: Vec::new(),
                outputs: Vec::new(),
                wanted: outputs.to_vec(),
            },
        })
    }
}

/// An engine at work on one thread.
pub(super) enum Running {
    Own(Machine, Vec<usize>),
    Neural {
        state: Box<tract_onnx::prelude::TypedSimpleState>,
        block: usize,
        inputs: Vec<Tensor>,
        outputs: Vec<Tensor>,
        wanted: Vec<usize>,
    },
}

impl Running {
    /// The tensor of an input, to be filled before [`Self::go`].
    fn input(&mut self, i: usize) -> &mut Tensor {
        match self {
            Running::Own(machine, _) => machine.input(i),
            Running::Neural { inputs, .. } => {
                if inputs.len() <= i {
                    inputs.resize_with(i + 1, Tensor::default);
                }
                &mut inputs[i]
            }
        }
    }

    fn go(&mut self, rows: usize) -> Result<(), String> {
        match self {
            Running::Own(machine, _) => machine.run(),
            Running::Neural {
                state,
                block,
                inputs,
                outputs,
                wanted,
            } => {
                outputs.resize_with(wanted.iter().max().map_or(0, |m| m + 1), Tensor::default);
                neural::run(state, *block, rows, inputs, outputs)
            }
        }
    }

    /// An output, by its number in the model.
    fn output(&self, i: usize) -> &Tensor {
        match self {
            Running::Own(machine, _) => machine.output(i),
            Running::Neural { outputs, .. } => &outputs[i],
        }
    }

    /// Runs given inputs and copies the outputs asked for.
    pub(super) fn run(&mut self, inputs: &[Tensor], rows: usize) -> Result<Vec<Tensor>, String> {
        for (i, x) in inputs.iter().enumerate() {
            self.input(i).copy(x, &x.dims);
        }
        self.go(rows)?;
        let wanted = match self {
            Running::Own(_, wanted) | Running::Neural { wanted, .. } => wanted.clone(),
        };
        Ok(wanted.iter().map(|&o| self.output(o).clone()).collect())
    }
}

/// Scores of a batch.
#[derive(Clone, Debug)]
pub struct Scores {
    /// One column per declared output, in their order, of the batch's length and of the types that [`Bound::outputs`] tells. Null where the row failed.
    pub columns: Vec<ArrayRef>,
    /// Rows that could not be scored, in order, and why: their output is not a finite number, an input that may not be null is, or a kernel
    /// refused a value (an unknown category, say).
    pub failed: Vec<(usize, String)>,
}

/// Scores batches on one thread. Keeps its buffers from batch to batch.
pub struct Scorer {
    bound: Arc<Bound>,
    running: Running,
    /// Values of the declared outputs, gathered over the runs of a batch.
    gathered: Vec<Tensor>,
}

impl Scorer {
    pub(super) fn new(bound: Arc<Bound>) -> Result<Scorer, ScoreError> {
        let wanted: Vec<usize> = bound.picks.iter().map(|p| p.output).collect();
        let running = bound.model.engine.start(&wanted).map_err(|why| ScoreError::Malformed {
            path: bound.model.path().into(),
            why,
        })?;
        let gathered = vec![Tensor::default(); bound.picks.len()];
        Ok(Scorer {
            bound,
            running,
            gathered,
        })
    }

    /// Scores a batch: the bound columns, in their order, of equal length.
    ///
    /// A null in a float column is NaN to the model: tree models send it their way for missing values, linear ones make the row fail. What
    /// concerns single rows is in [`Scores::failed`].
    ///
    /// # Errors
    /// Columns that are not the bound ones: a defect of the caller.
    pub fn score(&mut self, columns: &[ArrayRef]) -> Result<Scores, ScoreError> {
        let rows = columns.first().map_or(0, |c| c.len());
        self.check(columns, rows)?;
        let mut failed = vec![];
        let bound = self.bound.clone();
        for (gathered, pick) in self.gathered.iter_mut().zip(&bound.picks) {
            blank(gathered, pick.kind, rows);
        }
        if bound.model.single_rows {
            for row in 0..rows {
                self.run(columns, row, 1, &mut failed);
            }
        } else if rows > 0 {
            self.run(columns, 0, rows, &mut failed);
        }
        for (column, array) in bound.columns.iter().zip(columns) {
            if array.null_count() > 0 && !matches!(column.kind, Kind::F32 | Kind::F64) {
                let nulls = (0..rows).filter(|&row| array.is_null(row));
                failed.extend(nulls.map(|row| {
                    (
                        row,
                        format!(
                            "column {} is null, and the model takes {} there",
                            column.name,
                            column.kind.name()
                        ),
                    )
                }));
            }
        }
        for (values, pick) in self.gathered.iter().zip(&bound.picks) {
            let mut bad = |row: usize, v: f64| failed.push((row, format!("{} is {v}", pick.name)));
            match &values.data {
                Data::F32(v) if v.iter().any(|v| !v.is_finite()) => {
                    v.iter()
                        .enumerate()
                        .filter(|(_, v)| !v.is_finite())
                        .for_each(|(row, v)| bad(row, (*v).into()));
                }
                Data::F64(v) => v
                    .iter()
                    .enumerate()
                    .filter(|(_, v)| !v.is_finite())
                    .for_each(|(row, v)| bad(row, *v)),
                _ => {}
            }
        }
        // One reason per row is enough: the first found.
        failed.sort_by_key(|(row, _)| *row);
        failed.dedup_by_key(|(row, _)| *row);
        let nulls = (!failed.is_empty()).then(|| {
            let mut valid = vec![true; rows];
            failed.iter().for_each(|(row, _)| valid[*row] = false);
            NullBuffer::from(valid)
        });
        let columns = self.gathered.iter_mut().map(|t| column(t, nulls.clone())).collect();
        Ok(Scores { columns, failed })
    }

    fn check(&self, columns: &[ArrayRef], rows: usize) -> Result<(), ScoreError> {
        let bound = &self.bound.columns;
        let fits = columns.len() == bound.len()
            && columns
                .iter()
                .zip(bound)
                .all(|(c, b)| *c.data_type() == b.data_type && c.len() == rows);
        if fits {
            return Ok(());
        }
        let types: Vec<String> = columns
            .iter()
            .map(|c| format!("{} × {}", c.len(), c.data_type()))
            .collect();
        let wanted: Vec<String> = bound.iter().map(|b| b.data_type.to_string()).collect();
        Err(ScoreError::Columns {
            why: format!(
                "columns [{}] where it was bound to [{}]",
                types.join(", "),
                wanted.join(", ")
            ),
        })
    }

    /// Scores some rows; where they fail together, one by one, so that the rows that can be scored are.
    fn run(&mut self, columns: &[ArrayRef], first: usize, rows: usize, failed: &mut Vec<(usize, String)>) {
        let Err(why) = self.try_run(columns, first, rows) else {
            return;
        };
        if rows == 1 {
            failed.push((first, why));
            return;
        }
        for row in first..first + rows {
            if let Err(why) = self.try_run(columns, row, 1) {
                failed.push((row, why));
            }
        }
    }

    fn try_run(&mut self, columns: &[ArrayRef], first: usize, rows: usize) -> Result<(), String> {
        match &self.bound.binding {
            Binding::Matrix { dims } => {
                let kind = self.bound.columns[0].kind;
                let mut shape = vec![rows];
                shape.extend(dims);
                let to = self.running.input(0);
                for (i, column) in columns.iter().enumerate() {
                    fill(to, kind, &shape, i, columns.len(), column, first, rows);
                }
            }
            Binding::Columns(inputs) => {
                for (input, (column, dims)) in inputs.iter().enumerate() {
                    let mut shape = vec![rows];
                    shape.extend(dims);
                    fill(
                        self.running.input(input),
                        self.bound.columns[*column].kind,
                        &shape,
                        0,
                        1,
                        &columns[*column],
                        first,
                        rows,
                    );
                }
            }
        }
        self.running.go(rows)?;
        for (gathered, pick) in self.gathered.iter_mut().zip(&self.bound.picks) {
            gather(self.running.output(pick.output), pick.element, gathered, first, rows)
                .map_err(|why| format!("output {} {why}", pick.tensor))?;
        }
        Ok(())
    }
}

/// A column of rows without results yet.
fn blank(t: &mut Tensor, kind: Kind, rows: usize) {
    match kind {
        Kind::F32 => t.set_f32(&[rows]).fill(0.0),
        Kind::F64 => t.set_f64(&[rows]).fill(0.0),
        Kind::I64 => t.set_i64(&[rows]).fill(0),
        Kind::Bool => t.set_bool(&[rows]).fill(false),
        Kind::Text => t.set_text(&[rows]).fill(String::new()),
    }
}

/// Takes one element per row out of an output.
fn gather(from: &Tensor, element: usize, to: &mut Tensor, first: usize, rows: usize) -> Result<(), String> {
    let width = from.width();
    if from.dims.first() != Some(&rows) || element >= width {
        return Err(format!(
            "has the shape {:?} for {rows} rows, and element {element} was asked for",
            from.dims
        ));
    }
    macro_rules! take {
        ($from:expr, $to:expr) => {
            $from
                .chunks_exact(width)
                .zip(&mut $to[first..first + rows])
                .for_each(|(f, t)| t.clone_from(&f[element]))
        };
    }
    match (&from.data, &mut to.data) {
        (Data::F32(f), Data::F32(t)) => take!(f, t),
        (Data::F64(f), Data::F64(t)) => take!(f, t),
        (Data::I64(f), Data::I64(t)) => take!(f, t),
        (Data::Bool(f), Data::Bool(t)) => take!(f, t),
        (Data::Text(f), Data::Text(t)) => take!(f, t),
        (f, _) => {
            return Err(format!(
                "turned out to hold {} values",
                Tensor::new(vec![], f.clone()).kind().name()
            ));
        }
    }
    Ok(())
}

/// The gathered values as an Arrow column; the allocation goes with it.
fn column(t: &mut Tensor, nulls: Option<NullBuffer>) -> ArrayRef {
    match std::mem::replace(&mut t.data, Data::F32(Vec::new())) {
        Data::F32(v) => Arc::new(Float32Array::new(v.into(), nulls)),
        Data::F64(v) => Arc::new(Float64Array::new(v.into(), nulls)),
        Data::I64(v) => Arc::new(Int64Array::new(v.into(), nulls)),
        Data::Bool(v) => Arc::new(BooleanArray::new(v.into(), nulls)),
        Data::Text(v) => match nulls {
            None => Arc::new(StringArray::from_iter_values(v)),
            Some(n) => Arc::new(StringArray::from_iter(
                v.into_iter().enumerate().map(|(i, s)| n.is_valid(i).then_some(s)),
            )),
        },
    }
}

/// Writes a column's rows into a tensor, at place `at` of every `stride` values.
#[allow(clippy::too_many_arguments, reason = "one strided copy")]
fn fill(
    to: &mut Tensor,
    kind: Kind,
    shape: &[usize],
    at: usize,
    stride: usize,
    from: &ArrayRef,
    first: usize,
    rows: usize,
) {
    match kind {
        Kind::F32 => {
            let to = to.set_f32(shape);
            numbers(from, first, rows, |i, v: Option<Number>| {
                to[i * stride + at] = v.map_or(f32::NAN, Number::f32)
            });
        }
        Kind::F64 => {
            let to = to.set_f64(shape);
            numbers(from, first, rows, |i, v: Option<Number>| {
                to[i * stride + at] = v.map_or(f64::NAN, Number::f64)
            });
        }
        Kind::I64 => {
            let to = to.set_i64(shape);
            numbers(from, first, rows, |i, v: Option<Number>| {
                to[i * stride + at] = v.map_or(0, Number::i64)
            });
        }
        Kind::Bool => {
            let to = to.set_bool(shape);
            numbers(from, first, rows, |i, v: Option<Number>| {
                to[i * stride + at] = v.is_some_and(|v| v.i64() != 0)
            });
        }
        Kind::Text => {
            let to = to.set_text(shape);
            let mut put = |i: usize, s: Option<&str>| {
                let place = &mut to[i * stride + at];
                place.clear();
                place.push_str(s.unwrap_or(""));
            };
            match from.data_type() {
                DataType::Utf8 => {
                    let a = from.as_string::<i32>();
                    (0..rows).for_each(|i| put(i, a.is_valid(first + i).then(|| a.value(first + i))));
                }
                DataType::LargeUtf8 => {
                    let a = from.as_string::<i64>();
                    (0..rows).for_each(|i| put(i, a.is_valid(first + i).then(|| a.value(first + i))));
                }
                _ => {
                    let a = from.as_string_view();
                    (0..rows).for_each(|i| put(i, a.is_valid(first + i).then(|| a.value(first + i))));
                }
            }
        }
    }
}

/// A number out of a column, on its way to the model's type.
#[derive(Clone, Copy)]
enum Number {
    Float(f64),
    Single(f32),
    Int(i64),
}

impl Number {
    #[inline(always)]
    fn f32(self) -> f32 {
        match self {
            Number::Float(v) => v as f32,
            Number::Single(v) => v,
            Number::Int(v) => v as f32,
        }
    }

    #[inline(always)]
    fn f64(self) -> f64 {
        match self {
            Number::Float(v) => v,
            Number::Single(v) => v.into(),
            Number::Int(v) => v as f64,
        }
    }

    #[inline(always)]
    fn i64(self) -> i64 {
        match self {
            Number::Float(v) => v as i64,
            Number::Single(v) => v as i64,
            Number::Int(v) => v,
        }
    }
}

/// Calls `f(row, value)` for rows of a number column, with `None` for null.
#[inline(always)]
fn numbers(from: &ArrayRef, first: usize, rows: usize, mut f: impl FnMut(usize, Option<Number>)) {
    #[inline(always)]
    fn each<T: ArrowPrimitiveType>(
        from: &ArrayRef,
        first: usize,
        rows: usize,
        mut f: impl FnMut(usize, Option<Number>),
        number: impl Fn(T::Native) -> Number,
    ) {
        let array = from.as_primitive::<T>();
        let values = &array.values()[first..first + rows];
        match array.nulls().filter(|n| n.null_count() > 0) {
            None => values.iter().enumerate().for_each(|(i, v)| f(i, Some(number(*v)))),
            Some(nulls) => values
                .iter()
                .enumerate()
                .for_each(|(i, v)| f(i, nulls.is_valid(first + i).then(|| number(*v)))),
        }
    }
    match from.data_type() {
        DataType::Float64 => each::<Float64Type>(from, first, rows, f, Number::Float),
        DataType::Float32 => each::<Float32Type>(from, first, rows, f, Number::Single),
        DataType::Float16 => each::<Float16Type>(from, first, rows, f, |v| Number::Single(v.into())),
        DataType::Int64 => each::<Int64Type>(from, first, rows, f, Number::Int),
        DataType::Int32 => each::<Int32Type>(from, first, rows, f, |v| Number::Int(v.into())),
        DataType::Int16 => each::<Int16Type>(from, first, rows, f, |v| Number::Int(v.into())),
        DataType::Int8 => each::<Int8Type>(from, first, rows, f, |v| Number::Int(v.into())),
        // Beyond 2^63 a float stands in; such values lose bits in the model's floats anyhow.
        DataType::UInt64 => each::<UInt64Type>(from, first, rows, f, |v| {
            i64::try_from(v).map_or(Number::Float(v as f64), Number::Int)
        }),
        DataType::UInt32 => each::<UInt32Type>(from, first, rows, f, |v| Number::Int(v.into())),
        DataType::UInt16 => each::<UInt16Type>(from, first, rows, f, |v| Number::Int(v.into())),
        DataType::UInt8 => each::<UInt8Type>(from, first, rows, f, |v| Number::Int(v.into())),
        _ => {
            let array = from.as_boolean();
            (0..rows).for_each(|i| {
                f(
                    i,
                    array
                        .is_valid(first + i)
                        .then(|| Number::Int(array.value(first + i).into())),
                )
            });
        }
    }
}

//! Scoring of batches: Arrow columns in, score columns out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray};
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
    pub(super) fn input(&mut self, i: usize) -> &mut Tensor {
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

    pub(super) fn go(&mut self, rows: usize) -> Result<(), String> {
        match self {
            Running::Own(machine, _) => machine.run(),
            Running::Neural { state, block, inputs, outputs, wanted } => {
                outputs.resize_with(wanted.iter().max().map_or(0, |m| m + 1), Tensor::default);
                neural::run(state, *block, rows, inputs, outputs)
            }
        }
    }

    /// An output, by its number in the model.
    pub(super) fn output(&self, i: usize) -> &Tensor {
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
    shape: Vec<usize>,
}

impl Scorer {
    pub(super) fn new(bound: Arc<Bound>) -> Result<Scorer, ScoreError> {
        let wanted: Vec<usize> = bound.picks.iter().map(|p| p.output).collect();
        let running = bound
            .model
            .engine
            .start(&wanted)
            .map_err(|why| ScoreError::Malformed { path: bound.model.path().into(), why })?;
        let gathered = vec![Tensor::default(); bound.picks.len()];
        Ok(Scorer { bound, running, gathered, shape: Vec::new() })
    }

    /// Scores a batch: the bound columns, in their order, of equal length.
    ///
    /// A null in a float column is NaN to the model: tree models send it their way for missing values, linear ones make the row fail. A null text is
    /// empty to a model that says so ([`super::MISSING_TEXT`]), and makes the row fail otherwise. What
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
            let takes_nulls = match column.kind {
                Kind::F32 | Kind::F64 => true,
                Kind::Text => bound.model.missing_text,
                Kind::I64 | Kind::Bool => false,
            };
            if array.null_count() > 0 && !takes_nulls {
                let nulls = (0..rows).filter(|&row| array.is_null(row));
                failed.extend(nulls.map(|row| {
                    (row, format!("column {} is null, and the model takes {} there", column.name, column.kind.name()))
                }));
            }
        }
        for (values, pick) in self.gathered.iter().zip(&bound.picks) {
            let mut bad = |row: usize, v: f64| failed.push((row, format!("{} is {v}", pick.name)));
            match &values.data {
                Data::F32(v) if v.iter().any(|v| !v.is_finite()) => {
                    v.iter().enumerate().filter(|(_, v)| !v.is_finite()).for_each(|(row, v)| bad(row, (*v).into()));
                }
                Data::F64(v) => v.iter().enumerate().filter(|(_, v)| !v.is_finite()).for_each(|(row, v)| bad(row, *v)),
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
            && columns.iter().zip(bound).all(|(c, b)| *c.data_type() == b.data_type && c.len() == rows);
        if fits {
            return Ok(());
        }
        let types: Vec<String> = columns.iter().map(|c| format!("{} × {}", c.len(), c.data_type())).collect();
        let wanted: Vec<String> = bound.iter().map(|b| b.data_type.to_string()).collect();
        Err(ScoreError::Columns {
            why: format!("columns [{}] where it was bound to [{}]", types.join(", "), wanted.join(", ")),
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
        self.shape.clear();
        self.shape.push(rows);
        match &self.bound.binding {
            Binding::Matrix { order, dims } => {
                self.shape.extend(dims);
                let columns: Vec<&ArrayRef> = order.iter().map(|&i| &columns[i]).collect();
                fill(self.running.input(0), self.bound.columns[0].kind, &self.shape, &columns, first, rows);
            }
            Binding::Columns(inputs) => {
                for (input, (column, dims)) in inputs.iter().enumerate() {
                    self.shape.truncate(1);
                    self.shape.extend(dims);
                    fill(
                        self.running.input(input),
                        self.bound.columns[*column].kind,
                        &self.shape,
                        &[&columns[*column]],
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
        return Err(format!("has the shape {:?} for {rows} rows, and element {element} was asked for", from.dims));
    }
    macro_rules! take {
        ($from:expr, $to:expr) => {
            $from.chunks_exact(width).zip(&mut $to[first..first + rows]).for_each(|(f, t)| t.clone_from(&f[element]))
        };
    }
    match (&from.data, &mut to.data) {
        (Data::F32(f), Data::F32(t)) => take!(f, t),
        (Data::F64(f), Data::F64(t)) => take!(f, t),
        (Data::I64(f), Data::I64(t)) => take!(f, t),
        (Data::Bool(f), Data::Bool(t)) => take!(f, t),
        (Data::Text(f), Data::Text(t)) => take!(f, t),
        (f, _) => {
            return Err(format!("turned out to hold {} values", Tensor::new(vec![], f.clone()).kind().name()));
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
            Some(n) => {
                Arc::new(StringArray::from_iter(v.into_iter().enumerate().map(|(i, s)| n.is_valid(i).then_some(s))))
            }
        },
    }
}

/// Rows of a matrix written at a time, so that what 20 columns write to stays in the first-level cache.
const FILL_ROWS: usize = 64;

/// Writes columns side by side into a tensor of this shape.
fn fill(to: &mut Tensor, kind: Kind, shape: &[usize], columns: &[&ArrayRef], first: usize, rows: usize) {
    match kind {
        Kind::F32 => fill_numbers(to.set_f32(shape), columns, first, rows),
        Kind::F64 => fill_numbers(to.set_f64(shape), columns, first, rows),
        Kind::I64 => fill_numbers(to.set_i64(shape), columns, first, rows),
        Kind::Bool => fill_numbers(to.set_bool(shape), columns, first, rows),
        Kind::Text => fill_text(to.set_text(shape), columns, first, rows),
    }
}

fn fill_text(to: &mut [String], columns: &[&ArrayRef], first: usize, rows: usize) {
    for (at, column) in columns.iter().enumerate() {
        let mut put = |i: usize, s: Option<&str>| s.unwrap_or("").clone_into(&mut to[i * columns.len() + at]);
        macro_rules! each {
            ($array:expr) => {{
                let a = $array;
                (0..rows).for_each(|i| put(i, a.is_valid(first + i).then(|| a.value(first + i))));
            }};
        }
        match column.data_type() {
            DataType::Utf8 => each!(column.as_string::<i32>()),
            DataType::LargeUtf8 => each!(column.as_string::<i64>()),
            _ => each!(column.as_string_view()),
        }
    }
}

/// A number that models take.
trait Number: Copy {
    const NULL: Self;
    fn of_int(v: i64) -> Self;
    fn of_float(v: f64) -> Self;
}

impl Number for f32 {
    const NULL: f32 = f32::NAN;
    fn of_int(v: i64) -> f32 {
        v as f32
    }
    fn of_float(v: f64) -> f32 {
        v as f32
    }
}

impl Number for f64 {
    const NULL: f64 = f64::NAN;
    fn of_int(v: i64) -> f64 {
        v as f64
    }
    fn of_float(v: f64) -> f64 {
        v
    }
}

impl Number for i64 {
    const NULL: i64 = 0;
    fn of_int(v: i64) -> i64 {
        v
    }
    fn of_float(v: f64) -> i64 {
        v as i64
    }
}

impl Number for bool {
    const NULL: bool = false;
    fn of_int(v: i64) -> bool {
        v != 0
    }
    fn of_float(v: f64) -> bool {
        v != 0.0
    }
}

/// Writes number columns side by side, a null as [`Number::NULL`].
fn fill_numbers<O: Number>(to: &mut [O], columns: &[&ArrayRef], first: usize, rows: usize) {
    let stride = columns.len();
    for from in (0..rows).step_by(FILL_ROWS) {
        let n = FILL_ROWS.min(rows - from);
        for (at, column) in columns.iter().enumerate() {
            fill_column(&mut to[from * stride + at..], stride, column, first + from, n);
        }
    }
}

/// Writes rows of a number column to every `stride`-th place.
fn fill_column<O: Number>(to: &mut [O], stride: usize, from: &ArrayRef, first: usize, rows: usize) {
    macro_rules! each {
        ($t:ty, $f:expr) => {{
            let array = from.as_primitive::<$t>();
            let values = &array.values()[first..first + rows];
            let places = to.iter_mut().step_by(stride);
            match array.nulls().filter(|n| n.null_count() > 0) {
                None => values.iter().zip(places).for_each(|(v, o)| *o = $f(*v)),
                Some(nulls) => {
                    let valid = |i: usize| nulls.is_valid(first + i);
                    values
                        .iter()
                        .zip(places)
                        .enumerate()
                        .for_each(|(i, (v, o))| *o = if valid(i) { $f(*v) } else { O::NULL });
                }
            }
        }};
    }
    macro_rules! whole {
        ($t:ty) => {
            each!($t, |v| O::of_int(i64::from(v)))
        };
    }
    match from.data_type() {
        DataType::Float64 => each!(Float64Type, |v: f64| O::of_float(v)),
        DataType::Float32 => each!(Float32Type, |v: f32| O::of_float(v.into())),
        DataType::Float16 => each!(Float16Type, |v| O::of_float(f64::from(v))),
        DataType::Int64 => whole!(Int64Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int8 => whole!(Int8Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt8 => whole!(UInt8Type),
        // Beyond 2^63 a float stands in; such values lose bits in the model's floats anyhow.
        DataType::UInt64 => each!(UInt64Type, |v: u64| i64::try_from(v).map_or(O::of_float(v as f64), O::of_int)),
        _ => {
            let array = from.as_boolean();
            for (i, o) in to.iter_mut().step_by(stride).take(rows).enumerate() {
                *o = if array.is_valid(first + i) { O::of_int(array.value(first + i).into()) } else { O::NULL };
            }
        }
    }
}

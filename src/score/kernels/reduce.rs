//! Operators over an axis: the reductions, ArgMax, ArgMin, Softmax, LogSoftmax.
//!
//! Sums are in double precision and index order, so they are the same for every batch.

use super::elementwise::walk;
use super::{Args, Kernel, Made, Recipe, Scratch, around, axis_of, made};
use crate::score::math;
use crate::score::tensor::{Data, Tensor};

pub(super) fn make(name: &str, recipe: Recipe) -> Option<Made> {
    let a = recipe.attributes();
    if let Some(op) = reduction(name) {
        return Some(made(Reduce {
            op,
            axes: a.ints("axes").to_vec(),
            keep: a.int("keepdims").unwrap_or(1) != 0,
            none_is_noop: a.int("noop_with_empty_axes").unwrap_or(0) != 0,
        }));
    }
    let extreme = |largest| {
        made(ArgExtreme {
            largest,
            axis: a.int("axis").unwrap_or(0),
            keep: a.int("keepdims").unwrap_or(1) != 0,
            last: a.int("select_last_index").unwrap_or(0) != 0,
        })
    };
    // Until version 13 softmax flattened all axes from the given one on.
    let flatten = recipe.opsets.plain < 13;
    let softmax = |log| made(Softmax { log, flatten, axis: a.int("axis").unwrap_or(if flatten { 1 } else { -1 }) });
    match name {
        "ArgMax" => Some(extreme(true)),
        "ArgMin" => Some(extreme(false)),
        "Softmax" => Some(softmax(false)),
        "LogSoftmax" => Some(softmax(true)),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

fn reduction(name: &str) -> Option<Reduction> {
    Some(match name {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceLogSum" => Reduction::LogSum,
        "ReduceLogSumExp" => Reduction::LogSumExp,
        _ => return None,
    })
}

impl Reduction {
    fn fold(self, values: impl Iterator<Item = f64> + Clone) -> f64 {
        let count = || values.clone().count() as f64;
        // NaN anywhere is NaN.
        let extreme = |start: f64, better: fn(f64, f64) -> bool| {
            values.clone().fold(start, |m, v| if m.is_nan() || !(better(v, m) || v.is_nan()) { m } else { v })
        };
        match self {
            Reduction::Sum => values.sum(),
            Reduction::Mean => values.clone().sum::<f64>() / count(),
            Reduction::Max => extreme(f64::NEG_INFINITY, |v, m| v > m),
            Reduction::Min => extreme(f64::INFINITY, |v, m| v < m),
            Reduction::Prod => values.product(),
            Reduction::L1 => values.map(f64::abs).sum(),
            Reduction::L2 => values.map(|v| v * v).sum::<f64>().sqrt(),
            Reduction::SumSquare => values.map(|v| v * v).sum(),
            Reduction::LogSum => values.sum::<f64>().ln(),
            Reduction::LogSumExp => {
                let top = extreme(f64::NEG_INFINITY, |v, m| v > m);
                if top.is_infinite() { top } else { values.map(|v| math::exp64(v - top)).sum::<f64>().ln() + top }
            }
        }
    }
}

struct Reduce {
    op: Reduction,
    axes: Vec<i64>,
    keep: bool,
    none_is_noop: bool,
}

impl Kernel for Reduce {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axes = args.opt(1).and_then(Tensor::i64s).unwrap_or(&self.axes);
        let rank = x.dims.len();
        let mut reduced = vec![axes.is_empty() && !self.none_is_noop; rank];
        for &axis in axes {
            reduced[axis_of(axis, rank, false)?] = true;
        }
        let mut strides = vec![1; rank];
        for i in (1..rank).rev() {
            strides[i - 1] = strides[i] * x.dims[i];
        }
        let pick =
            |want: bool, of: &[usize]| (0..rank).filter(|&i| reduced[i] == want).map(|i| of[i]).collect::<Vec<_>>();
        let inner: Vec<usize> = walk(pick(true, &x.dims), pick(true, &strides)).collect();
        let outer = walk(pick(false, &x.dims), pick(false, &strides));
        let dims: Vec<usize> = match self.keep {
            true => (0..rank).map(|i| if reduced[i] { 1 } else { x.dims[i] }).collect(),
            false => pick(false, &x.dims),
        };
        match &x.data {
            Data::F32(v) => {
                for (o, at) in outputs[0].set_f32(&dims).iter_mut().zip(outer) {
                    *o = self.op.fold(inner.iter().map(|i| f64::from(v[at + i]))) as f32;
                }
            }
            Data::F64(v) => {
                for (o, at) in outputs[0].set_f64(&dims).iter_mut().zip(outer) {
                    *o = self.op.fold(inner.iter().map(|i| v[at + i]));
                }
            }
            Data::I64(v) => {
                for (o, at) in outputs[0].set_i64(&dims).iter_mut().zip(outer) {
                    let values = inner.iter().map(|i| v[at + i]);
                    *o = match self.op {
                        Reduction::Sum => values.fold(0, i64::wrapping_add),
                        Reduction::Prod => values.fold(1, i64::wrapping_mul),
                        Reduction::Max => values.max().unwrap_or(i64::MIN),
                        Reduction::Min => values.min().unwrap_or(i64::MAX),
                        _ => return Err("is not supported on integers".into()),
                    };
                }
            }
            _ => return Err(format!("reduces numbers, not {}", x.kind().name())),
        }
        Ok(())
    }
}

struct ArgExtreme {
    largest: bool,
    axis: i64,
    keep: bool,
    last: bool,
}

impl Kernel for ArgExtreme {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axis = axis_of(self.axis, x.dims.len(), false)?;
        let (_, n, after) = around(&x.dims, axis);
        let mut dims = x.dims.clone();
        match self.keep {
            true => dims[axis] = 1,
            false => {
                dims.remove(axis);
            }
        }
        let out = outputs[0].set_i64(&dims);
        fn best<T: PartialOrd>(n: usize, value: impl Fn(usize) -> T, largest: bool, last: bool) -> i64 {
            (1..n).fold(0, |best, i| {
                let (new, held) = (value(i), value(best));
                let better = if largest { new > held } else { new < held };
                if better || (last && new == held) { i } else { best }
            }) as i64
        }
        macro_rules! search {
            ($v:expr) => {
                for (i, o) in out.iter_mut().enumerate() {
                    let start = i / after * n * after + i % after;
                    *o = best(n, |k| $v[start + k * after], self.largest, self.last);
                }
            };
        }
        match &x.data {
            Data::F32(v) => search!(v),
            Data::F64(v) => search!(v),
            Data::I64(v) => search!(v),
            _ => return Err(format!("compares numbers, not {}", x.kind().name())),
        }
        Ok(())
    }
}

struct Softmax {
    log: bool,
    flatten: bool,
    axis: i64,
}

impl Kernel for Softmax {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axis = axis_of(self.axis, x.dims.len(), false)?;
        let (before, n, after) = match self.flatten {
            true => (x.dims[..axis].iter().product(), x.dims[axis..].iter().product(), 1),
            false => around(&x.dims, axis),
        };
        let mut line = vec![0.0f64; n];
        let mut each = |get: &dyn Fn(usize) -> f64, set: &mut dyn FnMut(usize, f64)| {
            for i in 0..before * after {
                let start = i / after * n * after + i % after;
                (0..n).for_each(|k| line[k] = get(start + k * after));
                let top = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = line.iter().map(|v| math::exp64(v - top)).sum();
                let log_sum = sum.ln();
                for (k, v) in line.iter().enumerate() {
                    let y = if self.log { v - top - log_sum } else { math::exp64(v - top) / sum };
                    set(start + k * after, y);
                }
            }
        };
        match &x.data {
            Data::F32(v) => {
                let out = outputs[0].set_f32(&x.dims);
                each(&|i| v[i].into(), &mut |i, y| out[i] = y as f32);
            }
            Data::F64(v) => {
                let out = outputs[0].set_f64(&x.dims);
                each(&|i| v[i], &mut |i, y| out[i] = y);
            }
            _ => return Err(format!("takes floats, not {}", x.kind().name())),
        }
        Ok(())
    }
}

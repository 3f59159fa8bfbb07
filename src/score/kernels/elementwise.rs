//! Operators of one element at a time: functions, arithmetic with broadcasting, comparisons, choices.

use super::{Args, Kernel, Made, Recipe, Scratch, axis_of, made};
use crate::score::math;
use crate::score::tensor::{Data, Kind, Tensor};

pub(super) fn make(name: &str, recipe: Recipe) -> Option<Made> {
    function(name, recipe)
        .map(made)
        .or_else(|| arithmetic(name).map(|op| made(Arithmetic(op))))
        .or_else(|| comparison(name).map(|op| made(Comparison(op))))
        .or_else(|| logic(name).map(|op| made(Logic(op))))
        .or_else(|| match name {
            "Not" => Some(made(Not)),
            "IsNaN" => Some(made(IsNan)),
            "Where" => Some(made(Where)),
            "Clip" => Some(made(Clip::new(recipe))),
            "BatchNormalization" => {
                Some(made(BatchNorm { epsilon: recipe.attributes().float("epsilon").unwrap_or(1e-5) }))
            }
            _ => None,
        })
}

/// A function of one number.
enum Function {
    Abs,
    Neg,
    Floor,
    Ceil,
    Round,
    Sign,
    Sqrt,
    Reciprocal,
    Exp,
    Log,
    Sigmoid,
    Tanh,
    Erf,
    Relu,
    Softplus,
    Softsign,
    LeakyRelu(f32),
    Elu(f32),
    Selu(f32, f32),
    HardSigmoid(f32, f32),
}

fn function(name: &str, recipe: Recipe) -> Option<Function> {
    let a = recipe.attributes();
    let alpha = |default| a.float("alpha").unwrap_or(default);
    Some(match name {
        "Abs" => Function::Abs,
        "Neg" => Function::Neg,
        "Floor" => Function::Floor,
        "Ceil" => Function::Ceil,
        "Round" => Function::Round,
        "Sign" => Function::Sign,
        "Sqrt" => Function::Sqrt,
        "Reciprocal" => Function::Reciprocal,
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Sigmoid" => Function::Sigmoid,
        "Tanh" => Function::Tanh,
        "Erf" => Function::Erf,
        "Relu" => Function::Relu,
        "Softplus" => Function::Softplus,
        "Softsign" => Function::Softsign,
        "LeakyRelu" => Function::LeakyRelu(alpha(0.01)),
        "Elu" => Function::Elu(alpha(1.0)),
        "Selu" => Function::Selu(alpha(1.673_263_2), a.float("gamma").unwrap_or(1.050_701)),
        "HardSigmoid" => Function::HardSigmoid(alpha(0.2), a.float("beta").unwrap_or(0.5)),
        _ => return None,
    })
}

impl Kernel for Function {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        match &x.data {
            Data::F32(v) => {
                let out = outputs[0].set_f32(&x.dims);
                macro_rules! each {
                    ($f:expr) => {{
                        let f = $f;
                        map_f32(v, out, f)
                    }};
                }
                match *self {
                    Function::Abs => each!(f32::abs),
                    Function::Neg => each!(|v: f32| -v),
                    Function::Floor => each!(f32::floor),
                    Function::Ceil => each!(f32::ceil),
                    Function::Round => each!(f32::round_ties_even),
                    Function::Sign => each!(|v: f32| if v == 0.0 { 0.0 } else { v.signum() }),
                    Function::Sqrt => each!(f32::sqrt),
                    Function::Reciprocal => each!(|v: f32| 1.0 / v),
                    Function::Exp => each!(math::exp),
                    Function::Log => each!(math::ln),
                    Function::Sigmoid => each!(math::logistic),
                    Function::Tanh => each!(math::tanh),
                    Function::Erf => each!(math::erf),
                    // NaN stays NaN, unlike with `max`.
                    Function::Relu => each!(|v: f32| if v < 0.0 { 0.0 } else { v }),
                    Function::Softplus => each!(|v: f32| {
                        let tail = math::ln(1.0 + math::exp(-v.abs()));
                        if v > 0.0 { v + tail } else { tail }
                    }),
                    Function::Softsign => each!(|v: f32| v / (1.0 + v.abs())),
                    Function::LeakyRelu(alpha) => each!(|v: f32| if v < 0.0 { alpha * v } else { v }),
                    Function::Elu(alpha) => each!(|v: f32| if v < 0.0 { alpha * math::exp_m1(v) } else { v }),
                    Function::Selu(alpha, gamma) => {
                        each!(|v: f32| gamma * if v < 0.0 { alpha * math::exp_m1(v) } else { v })
                    }
                    Function::HardSigmoid(alpha, beta) => each!(|v: f32| (alpha * v + beta).clamp(0.0, 1.0)),
                }
            }
            Data::F64(v) => {
                let f: fn(f64) -> f64 = match self {
                    Function::Abs => f64::abs,
                    Function::Neg => |v| -v,
                    Function::Floor => f64::floor,
                    Function::Ceil => f64::ceil,
                    Function::Round => f64::round_ties_even,
                    Function::Sign => |v| if v == 0.0 { 0.0 } else { v.signum() },
                    Function::Sqrt => f64::sqrt,
                    Function::Reciprocal => |v| 1.0 / v,
                    Function::Exp => math::exp64,
                    Function::Log => f64::ln,
                    Function::Sigmoid => |v| 1.0 / (1.0 + math::exp64(-v)),
                    Function::Tanh => f64::tanh,
                    Function::Relu => |v| if v < 0.0 { 0.0 } else { v },
                    _ => return Err("is not supported on doubles".into()),
                };
                v.iter().zip(outputs[0].set_f64(&x.dims)).for_each(|(v, o)| *o = f(*v));
            }
            Data::I64(v) => {
                let f: fn(i64) -> i64 = match self {
                    Function::Abs => i64::wrapping_abs,
                    Function::Neg => i64::wrapping_neg,
                    Function::Sign => i64::signum,
                    Function::Relu => |v| v.max(0),
                    _ => return Err("is not supported on integers".into()),
                };
                v.iter().zip(outputs[0].set_i64(&x.dims)).for_each(|(v, o)| *o = f(*v));
            }
            _ => return Err(format!("takes numbers, not {}", x.kind().name())),
        }
        Ok(())
    }
}

/// Applies a function with the widest vectors there are; the results are the same with all of them.
fn map_f32(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
    #[inline(always)]
    fn plain(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
        x.iter().zip(out).for_each(|(v, o)| *o = f(*v));
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
            plain(x, out, f);
        }
        if x.len() >= 8 && std::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(x, out, f) };
        }
    }
    plain(x, out, f);
}

/// The shape that two shapes have together.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("joins shapes {a:?} and {b:?}")),
        })
        .collect()
}

/// Steps through a tensor of `dims` when it is read with the shape `out`.
fn strides(dims: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for (i, &d) in dims.iter().enumerate().rev() {
        strides[i + out.len() - dims.len()] = if d == 1 { 0 } else { step };
        step *= d;
    }
    strides
}

/// Source offsets of every element of `out`, in order.
pub(super) fn offsets(dims: &[usize], out: &[usize]) -> impl Iterator<Item = usize> {
    let strides = strides(dims, out);
    walk(out.to_vec(), strides)
}

/// Offsets met when indices run through `dims`, the last fastest.
pub(super) fn walk(dims: Vec<usize>, strides: Vec<usize>) -> impl Iterator<Item = usize> {
    let total: usize = dims.iter().product();
    let mut index = vec![0; dims.len()];
    let mut at = 0;
    (0..total).map(move |_| {
        let here = at;
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            at -= strides[axis] * dims[axis];
            index[axis] = 0;
        }
        here
    })
}

/// `out = f(a, b)` with broadcasting. The shapes that occur (equal, a scalar, one row for all) are loops the compiler can vectorise.
fn zip_with<A, B, O>(a: (&[usize], &[A]), b: (&[usize], &[B]), dims: &[usize], out: &mut [O], f: impl Fn(&A, &B) -> O) {
    let ((a_dims, a), (b_dims, b)) = (a, b);
    let row = |d: &[usize]| d.len() <= dims.len() && d.iter().product::<usize>() == dims.last().copied().unwrap_or(1);
    if a.len() == out.len() && b.len() == out.len() {
        a.iter().zip(b).zip(out).for_each(|((a, b), o)| *o = f(a, b));
    } else if a.len() == out.len() && b.len() == 1 {
        a.iter().zip(out).for_each(|(a, o)| *o = f(a, &b[0]));
    } else if a.len() == 1 && b.len() == out.len() {
        b.iter().zip(out).for_each(|(b, o)| *o = f(&a[0], b));
    } else if a.len() == out.len() && b_dims.last() == dims.last() && row(b_dims) && !b.is_empty() {
        for (a, o) in a.chunks_exact(b.len()).zip(out.chunks_exact_mut(b.len())) {
            a.iter().zip(b).zip(o).for_each(|((a, b), o)| *o = f(a, b));
        }
    } else {
        for ((o, i), j) in out.iter_mut().zip(offsets(a_dims, dims)).zip(offsets(b_dims, dims)) {
            *o = f(&a[i], &b[j]);
        }
    }
}

/// Arithmetic on two numbers, or on a list of them from left to right.
#[derive(Clone, Copy, PartialEq)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    /// The sum over the number of inputs.
    Mean,
    PRelu,
}

fn arithmetic(name: &str) -> Option<Op> {
    Some(match name {
        "Add" | "Sum" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        "Div" => Op::Div,
        "Pow" => Op::Pow,
        "Max" => Op::Max,
        "Min" => Op::Min,
        "Mean" => Op::Mean,
        "PRelu" => Op::PRelu,
        _ => return None,
    })
}

struct Arithmetic(Op);

impl Kernel for Arithmetic {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let out = &mut outputs[0];
        let first = args.get(0)?;
        match args.len() {
            1 => out.copy(first, &first.dims),
            n => {
                self.join(first, args.get(1)?, out)?;
                for i in 2..n {
                    let so_far = std::mem::take(out);
                    self.join(&so_far, args.get(i)?, out)?;
                }
            }
        }
        if self.0 == Op::Mean {
            let n = args.len() as f32;
            match &mut out.data {
                Data::F32(v) => v.iter_mut().for_each(|v| *v /= n),
                Data::F64(v) => v.iter_mut().for_each(|v| *v /= f64::from(n)),
                _ => return Err("averages floats only".into()),
            }
        }
        Ok(())
    }
}

impl Arithmetic {
    fn join(&self, a: &Tensor, b: &Tensor, out: &mut Tensor) -> Result<(), String> {
        let dims = broadcast(&a.dims, &b.dims)?;
        macro_rules! floats {
            ($x:expr, $y:expr, $set:ident, $t:ty, $pow:expr) => {{
                let out = out.$set(&dims);
                let (a, b) = ((a.dims.as_slice(), $x.as_slice()), (b.dims.as_slice(), $y.as_slice()));
                match self.0 {
                    Op::Add | Op::Mean => zip_with(a, b, &dims, out, |x: &$t, y: &$t| x + y),
                    Op::Sub => zip_with(a, b, &dims, out, |x: &$t, y: &$t| x - y),
                    Op::Mul => zip_with(a, b, &dims, out, |x: &$t, y: &$t| x * y),
                    Op::Div => zip_with(a, b, &dims, out, |x: &$t, y: &$t| x / y),
                    Op::Pow => zip_with(a, b, &dims, out, $pow),
                    // NaN on either side is NaN, unlike with `max`.
                    Op::Max => zip_with(a, b, &dims, out, |x: &$t, y: &$t| if x.is_nan() || *x > *y { *x } else { *y }),
                    Op::Min => zip_with(a, b, &dims, out, |x: &$t, y: &$t| if x.is_nan() || *x < *y { *x } else { *y }),
                    Op::PRelu => zip_with(a, b, &dims, out, |x: &$t, y: &$t| if *x < 0.0 { x * y } else { *x }),
                }
            }};
        }
        match (&a.data, &b.data) {
            (Data::F32(x), Data::F32(y)) => floats!(x, y, set_f32, f32, |x: &f32, y: &f32| match *y {
                2.0 => x * x,
                y => math::pow(*x, y),
            }),
            (Data::F64(x), Data::F64(y)) => floats!(x, y, set_f64, f64, |x: &f64, y: &f64| match *y {
                2.0 => x * x,
                y => x.powf(y),
            }),
            (Data::I64(x), Data::I64(y)) => {
                if self.0 == Op::Div && y.contains(&0) {
                    return Err("divides an integer by zero".into());
                }
                let f: fn(&i64, &i64) -> i64 = match self.0 {
                    Op::Add => |x, y| x.wrapping_add(*y),
                    Op::Sub => |x, y| x.wrapping_sub(*y),
                    Op::Mul => |x, y| x.wrapping_mul(*y),
                    Op::Div => |x, y| x.wrapping_div(*y),
                    Op::Pow => |x, y| u32::try_from(*y).map_or(0, |y| x.wrapping_pow(y)),
                    Op::Max => |x, y| *x.max(y),
                    Op::Min => |x, y| *x.min(y),
                    Op::Mean | Op::PRelu => return Err("takes floats, not integers".into()),
                };
                zip_with((&a.dims, x), (&b.dims, y), &dims, out.set_i64(&dims), f);
            }
            // Pow alone may have an exponent of another type.
            _ if self.0 == Op::Pow => {
                let exponent = b.to_f32().ok_or("takes numbers, not text")?.into_owned();
                let exponent = match a.kind() {
                    Kind::F32 => Data::F32(exponent),
                    Kind::F64 => Data::F64(exponent.into_iter().map(f64::from).collect()),
                    Kind::I64 => Data::I64(exponent.into_iter().map(|x| x as i64).collect()),
                    _ => return Err("takes numbers".into()),
                };
                return self.join(a, &Tensor::new(b.dims.clone(), exponent), out);
            }
            _ => return Err(format!("joins {} and {}", a.kind().name(), b.kind().name())),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

fn comparison(name: &str) -> Option<Order> {
    Some(match name {
        "Equal" => Order::Equal,
        "Greater" => Order::Greater,
        "GreaterOrEqual" => Order::GreaterOrEqual,
        "Less" => Order::Less,
        "LessOrEqual" => Order::LessOrEqual,
        _ => return None,
    })
}

struct Comparison(Order);

impl Kernel for Comparison {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (a, b) = (args.get(0)?, args.get(1)?);
        let dims = broadcast(&a.dims, &b.dims)?;
        let out = outputs[0].set_bool(&dims);
        fn compare<T: PartialOrd>(order: Order) -> fn(&T, &T) -> bool {
            match order {
                Order::Equal => |x, y| x == y,
                Order::Greater => |x, y| x > y,
                Order::GreaterOrEqual => |x, y| x >= y,
                Order::Less => |x, y| x < y,
                Order::LessOrEqual => |x, y| x <= y,
            }
        }
        match (&a.data, &b.data) {
            (Data::F32(x), Data::F32(y)) => zip_with((&a.dims, x), (&b.dims, y), &dims, out, compare(self.0)),
            (Data::F64(x), Data::F64(y)) => zip_with((&a.dims, x), (&b.dims, y), &dims, out, compare(self.0)),
            (Data::I64(x), Data::I64(y)) => zip_with((&a.dims, x), (&b.dims, y), &dims, out, compare(self.0)),
            (Data::Bool(x), Data::Bool(y)) => zip_with((&a.dims, x), (&b.dims, y), &dims, out, compare(self.0)),
            (Data::Text(x), Data::Text(y)) => zip_with((&a.dims, x), (&b.dims, y), &dims, out, compare(self.0)),
            _ => return Err(format!("compares {} with {}", a.kind().name(), b.kind().name())),
        }
        Ok(())
    }
}

fn logic(name: &str) -> Option<fn(&bool, &bool) -> bool> {
    Some(match name {
        "And" => |x, y| *x && *y,
        "Or" => |x, y| *x || *y,
        "Xor" => |x, y| x != y,
        _ => return None,
    })
}

struct Logic(fn(&bool, &bool) -> bool);

impl Kernel for Logic {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (a, b) = (args.get(0)?, args.get(1)?);
        let dims = broadcast(&a.dims, &b.dims)?;
        let (Some(x), Some(y)) = (a.bools(), b.bools()) else {
            return Err("takes booleans".into());
        };
        zip_with((&a.dims, x), (&b.dims, y), &dims, outputs[0].set_bool(&dims), self.0);
        Ok(())
    }
}

struct Not;

impl Kernel for Not {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let v = x.bools().ok_or("takes booleans")?;
        v.iter().zip(outputs[0].set_bool(&x.dims)).for_each(|(v, o)| *o = !v);
        Ok(())
    }
}

struct IsNan;

impl Kernel for IsNan {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let out = outputs[0].set_bool(&x.dims);
        match &x.data {
            Data::F32(v) => v.iter().zip(out).for_each(|(v, o)| *o = v.is_nan()),
            Data::F64(v) => v.iter().zip(out).for_each(|(v, o)| *o = v.is_nan()),
            _ => return Err("takes floats".into()),
        }
        Ok(())
    }
}

/// `Where(condition, x, y)`.
struct Where;

impl Kernel for Where {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (c, x, y) = (args.get(0)?, args.get(1)?, args.get(2)?);
        let dims = broadcast(&c.dims, &broadcast(&x.dims, &y.dims)?)?;
        let condition = c.bools().ok_or("chooses by something that is not boolean")?;
        macro_rules! choose {
            ($x:expr, $y:expr, $set:ident) => {{
                let places = offsets(&c.dims, &dims).zip(offsets(&x.dims, &dims)).zip(offsets(&y.dims, &dims));
                for (o, ((c, i), j)) in outputs[0].$set(&dims).iter_mut().zip(places) {
                    o.clone_from(if condition[c] { &$x[i] } else { &$y[j] });
                }
            }};
        }
        match (&x.data, &y.data) {
            (Data::F32(a), Data::F32(b)) => choose!(a, b, set_f32),
            (Data::F64(a), Data::F64(b)) => choose!(a, b, set_f64),
            (Data::I64(a), Data::I64(b)) => choose!(a, b, set_i64),
            (Data::Bool(a), Data::Bool(b)) => choose!(a, b, set_bool),
            (Data::Text(a), Data::Text(b)) => choose!(a, b, set_text),
            _ => return Err(format!("chooses between {} and {}", x.kind().name(), y.kind().name())),
        }
        Ok(())
    }
}

/// `Clip`, its bounds as attributes (before version 11) or inputs.
struct Clip {
    low: f32,
    high: f32,
}

impl Clip {
    fn new(recipe: Recipe) -> Clip {
        let a = recipe.attributes();
        Clip { low: a.float("min").unwrap_or(f32::MIN), high: a.float("max").unwrap_or(f32::MAX) }
    }
}

impl Kernel for Clip {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        macro_rules! clip {
            ($v:expr, $get:ident, $set:ident, $low:expr, $high:expr) => {{
                let bound = |i| args.opt(i).and_then(Tensor::$get).and_then(|v| v.first().copied());
                let (low, high) = (bound(1).unwrap_or($low), bound(2).unwrap_or($high));
                for (v, o) in $v.iter().zip(outputs[0].$set(&x.dims)) {
                    *o = if *v < low { low } else { *v };
                    *o = if *o > high { high } else { *o };
                }
            }};
        }
        match &x.data {
            Data::F32(v) => clip!(v, f32s, set_f32, self.low, self.high),
            Data::F64(v) => clip!(v, f64s, set_f64, f64::MIN, f64::MAX),
            Data::I64(v) => clip!(v, i64s, set_i64, i64::MIN, i64::MAX),
            _ => return Err(format!("clips numbers, not {}", x.kind().name())),
        }
        Ok(())
    }
}

/// `BatchNormalization` as trained: per channel a factor and an offset.
struct BatchNorm {
    epsilon: f32,
}

impl Kernel for BatchNorm {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let floats = |i: usize| args.get(i).and_then(|t| t.f32s().ok_or_else(|| "takes floats".to_string()));
        let (v, scale, bias, mean, var) = (floats(0)?, floats(1)?, floats(2)?, floats(3)?, floats(4)?);
        let channels = x.dims[axis_of(1, x.dims.len(), false)?];
        if [scale, bias, mean, var].iter().any(|p| p.len() != channels) {
            return Err(format!("normalises {channels} channels with parameters for {}", scale.len()));
        }
        let inner: usize = x.dims[2..].iter().product();
        for (i, (v, o)) in v.iter().zip(outputs[0].set_f32(&x.dims)).enumerate() {
            let c = i / inner.max(1) % channels;
            let factor = scale[c] / (var[c] + self.epsilon).sqrt();
            *o = v * factor + (bias[c] - mean[c] * factor);
        }
        Ok(())
    }
}

//! Operators that move values about: Reshape, Concat, Gather, Slice, Transpose and the like.

use super::elementwise::{broadcast, offsets, walk};
use super::{Args, Kernel, Made, Recipe, Scratch, around, axis_of, made};
use crate::score::tensor::{Data, Kind, Tensor};

pub(super) fn make(name: &str, recipe: Recipe) -> Option<Made> {
    let a = recipe.attributes();
    Some(match name {
        "Identity" => made(Copy),
        "Dropout" => made(Copy),
        "Constant" => constant(recipe).and_then(|value| made(Constant(value))),
        "ConstantOfShape" => a
            .tensor("value")
            .and_then(|v| made(ConstantOfShape(v.unwrap_or(Tensor::new(vec![1], Data::F32(vec![0.0])))))),
        "Shape" => made(ShapeOf { start: a.int("start").unwrap_or(0), end: a.int("end").unwrap_or(i64::MAX) }),
        "Reshape" => {
            made(Reshape { zero_is_zero: a.int("allowzero").unwrap_or(0) != 0, shape: a.ints("shape").to_vec() })
        }
        "Flatten" => made(Flatten { axis: a.int("axis").unwrap_or(1) }),
        "Squeeze" => made(Squeeze { axes: a.ints("axes").to_vec() }),
        "Unsqueeze" => made(Unsqueeze { axes: a.ints("axes").to_vec() }),
        "Concat" => made(Concat { axis: a.int("axis").unwrap_or(1) }),
        "Transpose" => made(Transpose { order: a.ints("perm").to_vec() }),
        "Gather" => made(Gather { axis: a.int("axis").unwrap_or(0) }),
        "Slice" => made(Slice {
            starts: a.ints("starts").to_vec(),
            ends: a.ints("ends").to_vec(),
            axes: a.ints("axes").to_vec(),
        }),
        "Split" => made(Split { axis: a.int("axis").unwrap_or(0), parts: a.ints("split").to_vec() }),
        "Expand" => made(Expand),
        _ => return None,
    })
}

/// `out[i] = x[places[i]]` for every element type.
fn pick(x: &Tensor, dims: &[usize], places: impl Iterator<Item = usize>, out: &mut Tensor) {
    macro_rules! go {
        ($v:expr, $set:ident) => {
            out.$set(dims).iter_mut().zip(places).for_each(|(o, i)| o.clone_from(&$v[i]))
        };
    }
    match &x.data {
        Data::F32(v) => go!(v, set_f32),
        Data::F64(v) => go!(v, set_f64),
        Data::I64(v) => go!(v, set_i64),
        Data::Bool(v) => go!(v, set_bool),
        Data::Text(v) => go!(v, set_text),
    }
}

/// Integers from an input, or, in older versions, an attribute.
fn ints<'a>(args: Args<'a>, i: usize, attribute: &'a [i64]) -> Result<&'a [i64], String> {
    match args.opt(i) {
        Some(t) => t.i64s().ok_or_else(|| format!("has an input {i} that is not int64")),
        None => Ok(attribute),
    }
}

/// Hands its input on: Identity, Dropout, and ZipMap, whose dictionaries nobody needs here.
pub(super) struct Copy;

impl Kernel for Copy {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        outputs[0].copy(x, &x.dims);
        Ok(())
    }
}

fn constant(recipe: Recipe) -> Result<Tensor, String> {
    let a = recipe.attributes();
    if let Some(t) = a.tensor("value")? {
        return Ok(t);
    }
    let list = |n: usize, data| Ok(Tensor::new(vec![n], data));
    match (a.float("value_float"), a.int("value_int"), a.text("value_string").transpose()?) {
        (Some(v), ..) => return Ok(Tensor::new(vec![], Data::F32(vec![v]))),
        (_, Some(v), _) => return Ok(Tensor::new(vec![], Data::I64(vec![v]))),
        (.., Some(v)) => return Ok(Tensor::new(vec![], Data::Text(vec![v.into()]))),
        _ => {}
    }
    let (floats, whole, texts) = (a.floats("value_floats"), a.ints("value_ints"), a.texts("value_strings")?);
    match () {
        _ if !floats.is_empty() => list(floats.len(), Data::F32(floats.to_vec())),
        _ if !whole.is_empty() => list(whole.len(), Data::I64(whole.to_vec())),
        _ if !texts.is_empty() => list(texts.len(), Data::Text(texts)),
        _ => Err("has no value".into()),
    }
}

struct Constant(Tensor);

impl Kernel for Constant {
    fn run(&self, _: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        outputs[0].copy(&self.0, &self.0.dims);
        Ok(())
    }
}

struct ConstantOfShape(Tensor);

impl Kernel for ConstantOfShape {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let dims = sizes(ints(args, 0, &[])?)?;
        let total: usize = dims.iter().product();
        if self.0.len() != 1 || total > 1 << 28 {
            return Err(format!("fills the shape {dims:?}"));
        }
        pick(&self.0, &dims, std::iter::repeat_n(0, total), &mut outputs[0]);
        Ok(())
    }
}

fn sizes(dims: &[i64]) -> Result<Vec<usize>, String> {
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| format!("has the dimension {d}"))).collect()
}

struct ShapeOf {
    start: i64,
    end: i64,
}

impl Kernel for ShapeOf {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let dims = &args.get(0)?.dims;
        let rank = dims.len() as i64;
        let bound = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
        let part = dims.get(bound(self.start)..bound(self.end)).unwrap_or(&[]);
        part.iter().zip(outputs[0].set_i64(&[part.len()])).for_each(|(d, o)| *o = *d as i64);
        Ok(())
    }
}

struct Reshape {
    zero_is_zero: bool,
    shape: Vec<i64>,
}

impl Kernel for Reshape {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let shape = ints(args, 1, &self.shape)?;
        let mut dims = Vec::with_capacity(shape.len());
        let mut free = None;
        for (i, &d) in shape.iter().enumerate() {
            dims.push(match d {
                -1 => {
                    free = Some(i);
                    1
                }
                0 if !self.zero_is_zero => *x.dims.get(i).ok_or("keeps a dimension that is not there")?,
                d => usize::try_from(d).map_err(|_| format!("has the dimension {d}"))?,
            });
        }
        let known: usize = dims.iter().product();
        if let (Some(i), true) = (free, known > 0) {
            dims[i] = x.len() / known;
        }
        if dims.iter().product::<usize>() != x.len() {
            return Err(format!("makes {shape:?} of the shape {:?}", x.dims));
        }
        outputs[0].copy(x, &dims);
        Ok(())
    }
}

struct Flatten {
    axis: i64,
}

impl Kernel for Flatten {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axis = axis_of(self.axis, x.dims.len(), true)?;
        outputs[0].copy(x, &[x.dims[..axis].iter().product(), x.dims[axis..].iter().product()]);
        Ok(())
    }
}

struct Squeeze {
    axes: Vec<i64>,
}

impl Kernel for Squeeze {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axes = ints(args, 1, &self.axes)?;
        let rank = x.dims.len();
        let gone: Vec<usize> = match axes {
            // Without axes every dimension of 1 goes; not the rows', or a batch of one would come out different.
            [] => (1..rank).filter(|&i| x.dims[i] == 1).collect(),
            axes => axes.iter().map(|&a| axis_of(a, rank, false)).collect::<Result<_, _>>()?,
        };
        if let Some(&i) = gone.iter().find(|&&i| x.dims[i] != 1) {
            return Err(format!("squeezes axis {i}, which has {} elements", x.dims[i]));
        }
        let dims: Vec<usize> = (0..rank).filter(|i| !gone.contains(i)).map(|i| x.dims[i]).collect();
        outputs[0].copy(x, &dims);
        Ok(())
    }
}

struct Unsqueeze {
    axes: Vec<i64>,
}

impl Kernel for Unsqueeze {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axes = ints(args, 1, &self.axes)?;
        let rank = x.dims.len() + axes.len();
        let new: Vec<usize> = axes.iter().map(|&a| axis_of(a, rank, false)).collect::<Result<_, _>>()?;
        let mut old = x.dims.iter().copied();
        let dims: Vec<usize> = (0..rank).map(|i| if new.contains(&i) { 1 } else { old.next().unwrap_or(1) }).collect();
        outputs[0].copy(x, &dims);
        Ok(())
    }
}

struct Concat {
    axis: i64,
}

impl Kernel for Concat {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let first = args.get(0)?;
        let axis = axis_of(self.axis, first.dims.len(), false)?;
        let (before, _, after) = around(&first.dims, axis);
        let mut dims = first.dims.clone();
        dims[axis] = 0;
        for i in 0..args.len() {
            let x = args.get(i)?;
            let fits = x.dims.len() == dims.len() && (0..dims.len()).all(|d| d == axis || x.dims[d] == dims[d]);
            if !fits || x.kind() != first.kind() {
                return Err(format!(
                    "joins {} {:?} and {} {:?}",
                    first.kind().name(),
                    first.dims,
                    x.kind().name(),
                    x.dims
                ));
            }
            dims[axis] += x.dims[axis];
        }
        let whole = dims[axis] * after;
        macro_rules! join {
            ($get:ident, $set:ident) => {{
                let out = outputs[0].$set(&dims);
                let mut at = 0;
                for i in 0..args.len() {
                    let x = args.get(i)?;
                    let part = x.dims[axis] * after;
                    let values = x.$get().unwrap_or(&[]);
                    for b in 0..before {
                        out[b * whole + at..][..part].clone_from_slice(&values[b * part..][..part]);
                    }
                    at += part;
                }
            }};
        }
        match first.kind() {
            Kind::F32 => join!(f32s, set_f32),
            Kind::F64 => join!(f64s, set_f64),
            Kind::I64 => join!(i64s, set_i64),
            Kind::Bool => join!(bools, set_bool),
            Kind::Text => join!(texts, set_text),
        }
        Ok(())
    }
}

struct Transpose {
    order: Vec<i64>,
}

impl Kernel for Transpose {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let rank = x.dims.len();
        let order: Vec<usize> = match self.order.is_empty() {
            true => (0..rank).rev().collect(),
            false => self.order.iter().map(|&a| axis_of(a, rank, false)).collect::<Result<_, _>>()?,
        };
        if order.len() != rank {
            return Err(format!("orders {} axes of {rank}", order.len()));
        }
        let mut strides = vec![1; rank];
        for i in (1..rank).rev() {
            strides[i - 1] = strides[i] * x.dims[i];
        }
        let dims: Vec<usize> = order.iter().map(|&i| x.dims[i]).collect();
        let places = walk(dims.clone(), order.iter().map(|&i| strides[i]).collect());
        pick(x, &dims, places, &mut outputs[0]);
        Ok(())
    }
}

struct Gather {
    axis: i64,
}

impl Kernel for Gather {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (x, at) = (args.get(0)?, args.get(1)?);
        let axis = axis_of(self.axis, x.dims.len(), false)?;
        let (before, n, after) = around(&x.dims, axis);
        let indices: Vec<usize> = at
            .i64s()
            .ok_or("takes int64 indices")?
            .iter()
            .map(|&i| axis_of(i, n, false))
            .collect::<Result<_, _>>()
            .map_err(|_| format!("reads past {n} elements"))?;
        let mut dims = x.dims[..axis].to_vec();
        dims.extend(&at.dims);
        dims.extend(&x.dims[axis + 1..]);
        let indices = &indices;
        let places = (0..before)
            .flat_map(move |b| indices.iter().flat_map(move |&i| (0..after).map(move |k| (b * n + i) * after + k)));
        pick(x, &dims, places, &mut outputs[0]);
        Ok(())
    }
}

struct Slice {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<i64>,
}

impl Kernel for Slice {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let (starts, ends) = (ints(args, 1, &self.starts)?, ints(args, 2, &self.ends)?);
        let (axes, steps) = (ints(args, 3, &self.axes)?, ints(args, 4, &[])?);
        if ends.len() != starts.len()
            || (!axes.is_empty() && axes.len() != starts.len())
            || (!steps.is_empty() && steps.len() != starts.len())
        {
            return Err("has starts, ends, axes and steps of unlike lengths".into());
        }
        // Per axis the indices taken, in order.
        let mut taken: Vec<Vec<usize>> = x.dims.iter().map(|&d| (0..d).collect()).collect();
        for i in 0..starts.len() {
            let axis = axis_of(axes.get(i).copied().unwrap_or(i as i64), x.dims.len(), false)?;
            let n = x.dims[axis] as i64;
            let step = steps.get(i).copied().unwrap_or(1);
            let wrap = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
            taken[axis] = match step {
                0 => return Err("steps by 0".into()),
                1.. => {
                    let (from, to) = (wrap(starts[i]).clamp(0, n), wrap(ends[i]).clamp(0, n));
                    (from..to).step_by(step as usize).map(|k| k as usize).collect()
                }
                _ => {
                    let (from, to) = (wrap(starts[i]).clamp(-1, n - 1), wrap(ends[i]).clamp(-1, n - 1));
                    (to + 1..from + 1).rev().step_by(step.unsigned_abs() as usize).map(|k| k as usize).collect()
                }
            };
        }
        let dims: Vec<usize> = taken.iter().map(Vec::len).collect();
        let mut places = vec![0usize];
        for (axis, indices) in taken.iter().enumerate() {
            places = places.iter().flat_map(|p| indices.iter().map(move |i| p * x.dims[axis] + i)).collect();
        }
        pick(x, &dims, places.into_iter(), &mut outputs[0]);
        Ok(())
    }
}

struct Split {
    axis: i64,
    parts: Vec<i64>,
}

impl Kernel for Split {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let axis = axis_of(self.axis, x.dims.len(), false)?;
        let (before, n, after) = around(&x.dims, axis);
        let parts = match ints(args, 1, &self.parts)? {
            [] => {
                let each = n.div_ceil(outputs.len());
                (0..outputs.len()).map(|i| each.min(n.saturating_sub(i * each))).collect()
            }
            parts => sizes(parts)?,
        };
        if parts.len() != outputs.len() || parts.iter().sum::<usize>() != n {
            return Err(format!("splits {n} elements into {parts:?}"));
        }
        let mut start = 0;
        for (&part, out) in parts.iter().zip(outputs) {
            let mut dims = x.dims.clone();
            dims[axis] = part;
            let places = (0..before).flat_map(|b| (0..part * after).map(move |k| (b * n + start) * after + k));
            pick(x, &dims, places, out);
            start += part;
        }
        Ok(())
    }
}

struct Expand;

impl Kernel for Expand {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let dims = broadcast(&x.dims, &sizes(ints(args, 1, &[])?)?)?;
        if dims.iter().product::<usize>() > 1 << 28 {
            return Err(format!("expands to {dims:?}"));
        }
        pick(x, &dims, offsets(&x.dims, &dims), &mut outputs[0]);
        Ok(())
    }
}

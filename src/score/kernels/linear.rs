//! LinearClassifier, LinearRegressor, Gemm and MatMul.

use super::elementwise::{broadcast, offsets};
use super::gemm::{Packed, multiply_f64};
use super::{Args, Kernel, Made, Recipe, Scratch, made};
use crate::score::post::{Choice, Labels, Post, Second, probit};
use crate::score::proto::Attributes;
use crate::score::tensor::{Data, Tensor};

/// Coefficients of `n` outputs, packed.
fn coefficients(a: Attributes, n: usize) -> Result<Packed, String> {
    let w = a.floats("coefficients");
    if n == 0 || w.is_empty() || !w.len().is_multiple_of(n) {
        return Err(format!("has {} coefficients for {n} outputs", w.len()));
    }
    let k = w.len() / n;
    Ok(Packed::new(k, n, |i, j| w[j * k + i]))
}

fn project(packed: &Packed, bias: Option<&[f32]>, x: &Tensor, dims: &[usize], out: &mut Tensor) -> Result<(), String> {
    let (rows, width) = x.rows();
    if width != packed.inner() {
        return Err(format!("has {width} inputs where its coefficients are for {}", packed.inner()));
    }
    let x = x.to_f32().ok_or("takes numbers, not text")?;
    packed.multiply(&x, rows, bias, out.set_f32(dims));
    Ok(())
}

/// `LinearClassifier`.
pub(super) struct Classifier {
    packed: Packed,
    intercepts: Vec<f32>,
    labels: Labels,
    post: Post,
}

impl Classifier {
    pub(super) fn new(a: Attributes) -> Result<Classifier, String> {
        let labels = Labels::of(a, "classlabels_ints", "classlabels_strings")?;
        let intercepts = a.floats("intercepts").to_vec();
        // The number of scores is that of the intercepts; without any, of the labels.
        let n = if intercepts.is_empty() { labels.len() } else { intercepts.len() };
        if n > 1 && labels.len() < n {
            return Err(format!("has {n} scores and {} labels", labels.len()));
        }
        let intercepts = if intercepts.is_empty() { vec![0.0; n] } else { intercepts };
        Ok(Classifier { packed: coefficients(a, n)?, intercepts, labels, post: Post::of(a)? })
    }
}

impl Kernel for Classifier {
    fn run(&self, args: Args, outputs: &mut [Tensor], scratch: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let rows = x.rows().0;
        let n = self.packed.columns();
        let both = n == 1 && self.labels.len() == 2;
        let mut raw = Tensor::new(Vec::new(), Data::F32(std::mem::take(&mut scratch.floats)));
        let done = project(&self.packed, Some(&self.intercepts), x, &[rows, n], &mut raw);
        let Data::F32(raw) = raw.data else { unreachable!("set to floats") };
        if done.is_ok() {
            self.finish(&raw, rows, both, args, outputs);
        }
        scratch.floats = raw;
        done
    }
}

impl Classifier {
    fn finish(&self, raw: &[f32], rows: usize, both: bool, args: Args, outputs: &mut [Tensor]) {
        let n = self.packed.columns();
        self.labels.write_to(outputs.first_mut().filter(|_| args.wants(0)), rows, |row| {
            let scores = &raw[row * n..(row + 1) * n];
            match n {
                1 if both => Choice::Class((scores[0] > 0.0) as usize),
                1 => Choice::Unnamed(scores[0] > 0.0),
                _ => Choice::Class((1..n).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })),
            }
        });
        if let [_, scores, ..] = outputs {
            if n == 1 {
                let width = 1 + both as usize;
                for (&raw, out) in raw.iter().zip(scores.set_f32(&[rows, width]).chunks_exact_mut(width)) {
                    // onnxruntime takes the one score for a probability, whatever the transform.
                    let second = if both { Second::Complement } else { Second::Absent };
                    second.spread(self.post, raw, out);
                }
            } else {
                let out = scores.set_f32(&[rows, n]);
                out.copy_from_slice(raw);
                out.chunks_exact_mut(n).for_each(|row| self.post.apply(row));
            }
        }
    }
}

/// `LinearRegressor`.
pub(super) struct Regressor {
    packed: Packed,
    intercepts: Option<Vec<f32>>,
    post: Post,
}

impl Regressor {
    pub(super) fn new(a: Attributes) -> Result<Regressor, String> {
        let targets = usize::try_from(a.int("targets").unwrap_or(1)).map_err(|_| "has a negative number of targets")?;
        let intercepts = Some(a.floats("intercepts").to_vec()).filter(|b| b.len() == targets);
        Ok(Regressor { packed: coefficients(a, targets)?, intercepts, post: Post::of(a)? })
    }
}

impl Kernel for Regressor {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let rows = x.rows().0;
        let n = self.packed.columns();
        project(&self.packed, self.intercepts.as_deref(), x, &[rows, n], &mut outputs[0])?;
        let out = outputs[0].set_f32(&[rows, n]);
        match (n, self.post) {
            // One target knows no other transform.
            (1, Post::Probit) => out.iter_mut().for_each(|y| *y = probit(*y)),
            (1, _) => {}
            (_, post) => out.chunks_exact_mut(n).for_each(|row| post.apply(row)),
        }
        Ok(())
    }
}

pub(super) fn make(name: &str, recipe: Recipe) -> Option<Made> {
    match name {
        "MatMul" => Some(made(MatMul { packed: recipe.constant(1).and_then(pack) })),
        "Gemm" => Some(Gemm::new(recipe).and_then(made)),
        _ => None,
    }
}

/// A constant matrix on the right, packed.
fn pack(w: &Tensor) -> Option<Packed> {
    match (w.dims.as_slice(), &w.data) {
        (&[k, n], Data::F32(w)) => Some(Packed::new(k, n, |i, j| w[i * n + j])),
        (&[k], Data::F32(w)) => Some(Packed::new(k, 1, |i, _| w[i])),
        _ => None,
    }
}

/// `MatMul` with a matrix or vector on the right.
struct MatMul {
    packed: Option<Packed>,
}

impl Kernel for MatMul {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (x, w) = (args.get(0)?, args.get(1)?);
        let [.., k] = x.dims[..] else {
            return Err("takes no scalar".into());
        };
        let (inner, columns) = match w.dims[..] {
            [inner, n] => (inner, Some(n)),
            [inner] => (inner, None),
            _ => {
                return Err(format!("has a right side of {} dimensions; only matrices are supported", w.dims.len()));
            }
        };
        if inner != k {
            return Err(format!("multiplies rows of {k} with columns of {inner}"));
        }
        let mut dims = x.dims[..x.dims.len() - 1].to_vec();
        let rows = dims.iter().product();
        dims.extend(columns);
        match (&x.data, &w.data) {
            (Data::F64(x), Data::F64(w)) => multiply_f64(x, w, k, columns.unwrap_or(1), outputs[0].set_f64(&dims)),
            (Data::F32(x), _) => {
                let packed_now;
                let packed = match &self.packed {
                    Some(packed) => packed,
                    None => {
                        packed_now = pack(w).ok_or("has sides of unlike types")?;
                        &packed_now
                    }
                };
                packed.multiply(x, rows, None, outputs[0].set_f32(&dims));
            }
            _ => return Err(format!("multiplies {} with {}", x.kind().name(), w.kind().name())),
        }
        Ok(())
    }
}

/// `Gemm` with constant weights: `alpha · A · B + beta · C`.
struct Gemm {
    packed: Packed,
    alpha: f32,
    beta: f32,
    /// `beta · C`, where C is constant and one row for all.
    bias: Option<Vec<f32>>,
}

impl Gemm {
    fn new(recipe: Recipe) -> Result<Gemm, String> {
        let a = recipe.attributes();
        if a.int("transA").unwrap_or(0) != 0 {
            return Err("transposes its left side, which mixes rows".into());
        }
        let w = recipe.constant(1).ok_or("has weights that are not constant")?;
        let (&[d0, d1], Data::F32(values)) = (w.dims.as_slice(), &w.data) else {
            return Err("has weights that are no matrix of floats".into());
        };
        let packed = match a.int("transB").unwrap_or(0) {
            0 => Packed::new(d0, d1, |k, n| values[k * d1 + n]),
            _ => Packed::new(d1, d0, |k, n| values[n * d1 + k]),
        };
        let beta = a.float("beta").unwrap_or(1.0);
        let n = packed.columns();
        let bias = recipe.constant(2).and_then(Tensor::f32s).and_then(|c| match c.len() {
            1 => Some(vec![beta * c[0]; n]),
            len if len == n => Some(c.iter().map(|v| beta * v).collect()),
            _ => None,
        });
        Ok(Gemm { packed, alpha: a.float("alpha").unwrap_or(1.0), beta, bias })
    }
}

impl Kernel for Gemm {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let [rows, _] = x.dims[..] else {
            return Err(format!("takes a matrix, not {} dimensions", x.dims.len()));
        };
        let n = self.packed.columns();
        let late = args.opt(2).filter(|_| self.bias.is_none());
        if self.alpha == 1.0 && late.is_none() {
            return project(&self.packed, self.bias.as_deref(), x, &[rows, n], &mut outputs[0]);
        }
        project(&self.packed, None, x, &[rows, n], &mut outputs[0])?;
        let out = outputs[0].set_f32(&[rows, n]);
        out.iter_mut().for_each(|y| *y *= self.alpha);
        if let Some(c) = late {
            let values = c.f32s().ok_or("adds something that is not floats")?;
            if broadcast(&c.dims, &[rows, n])? != [rows, n] {
                return Err(format!("adds the shape {:?} to [{rows}, {n}]", c.dims));
            }
            out.iter_mut().zip(offsets(&c.dims, &[rows, n])).for_each(|(y, i)| *y += self.beta * values[i]);
        }
        if let Some(b) = &self.bias {
            out.chunks_exact_mut(n.max(1)).for_each(|row| row.iter_mut().zip(b).for_each(|(y, b)| *y += b));
        }
        Ok(())
    }
}

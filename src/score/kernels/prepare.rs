//! Preparation of inputs: Scaler, Normalizer, Imputer, Binarizer, FeatureVectorizer, ArrayFeatureExtractor.

use super::{Args, Kernel, Scratch};
use crate::score::proto::Attributes;
use crate::score::tensor::{Data, Tensor};

/// One value per column: from a list of one, or of as many as there are columns.
fn per_column<T: Copy>(what: &str, list: &[T], width: usize) -> Result<impl Fn(usize) -> T, String> {
    if list.len() != 1 && list.len() != width {
        return Err(format!("has {} {what} for {width} columns", list.len()));
    }
    let one = list.len() == 1;
    Ok(move |i: usize| if one { list[0] } else { list[i] })
}

/// `Scaler`: `(x − offset) · scale`.
pub(super) struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub(super) fn new(a: Attributes) -> Result<Scaler, String> {
        let (offset, scale) = (a.floats("offset").to_vec(), a.floats("scale").to_vec());
        if offset.is_empty() || scale.is_empty() {
            return Err("has no offset or no scale".into());
        }
        Ok(Scaler { offset, scale })
    }
}

impl Kernel for Scaler {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let width = x.rows().1;
        let offset = per_column("offsets", &self.offset, width)?;
        let scale = per_column("scales", &self.scale, width)?;
        let out = outputs[0].set_f32(&x.dims);
        if width == 0 {
            return Ok(());
        }
        match &x.data {
            // Doubles are scaled as such; only the result is single.
            Data::F64(x) => {
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    for (i, (x, out)) in x.iter().zip(out).enumerate() {
                        *out = ((x - f64::from(offset(i))) * f64::from(scale(i))) as f32;
                    }
                }
            }
            _ => {
                let x = x.to_f32().ok_or("takes numbers, not text")?;
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    for (i, (x, out)) in x.iter().zip(out).enumerate() {
                        *out = (x - offset(i)) * scale(i);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `Normalizer`: each row over its norm.
pub(super) enum Normalizer {
    Max,
    L1,
    L2,
}

impl Normalizer {
    pub(super) fn new(a: Attributes) -> Result<Normalizer, String> {
        match a.text("norm").transpose()? {
            None | Some("MAX") => Ok(Normalizer::Max),
            Some("L1") => Ok(Normalizer::L1),
            Some("L2") => Ok(Normalizer::L2),
            Some(other) => Err(format!("norm {other:?} is unknown")),
        }
    }
}

impl Kernel for Normalizer {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let width = x.rows().1.max(1);
        let values = x.to_f32().ok_or("takes numbers, not text")?;
        let out = outputs[0].set_f32(&x.dims);
        for (x, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            match self {
                Normalizer::Max => {
                    // The largest value, not the largest magnitude.
                    let top = x.iter().copied().fold(f32::MIN, f32::max);
                    x.iter().zip(out).for_each(|(x, o)| *o = if top == 0.0 { *x } else { x / top });
                }
                Normalizer::L1 => {
                    let sum = x.iter().fold(0.0f32, |s, v| s + v.abs());
                    x.iter().zip(out).for_each(|(x, o)| *o = if sum == 0.0 { *x } else { x / sum });
                }
                Normalizer::L2 => {
                    // By squares, signs kept: what the reference does, with its rounding.
                    let sum = x.iter().fold(0.0f32, |s, v| s + v * v);
                    x.iter().zip(out).for_each(|(x, o)| {
                        *o = if sum == 0.0 { *x } else { (x * x / sum).sqrt().copysign(*x) };
                    });
                }
            }
        }
        Ok(())
    }
}

/// `Imputer`: one value, NaN perhaps, is replaced.
pub(super) struct Imputer {
    floats: Vec<f32>,
    replaced_float: f32,
    ints: Vec<i64>,
    replaced_int: i64,
}

impl Imputer {
    pub(super) fn new(a: Attributes) -> Result<Imputer, String> {
        let (floats, ints) = (a.floats("imputed_value_floats").to_vec(), a.ints("imputed_value_int64s").to_vec());
        if floats.is_empty() == ints.is_empty() {
            return Err("needs either imputed_value_floats or imputed_value_int64s".into());
        }
        Ok(Imputer {
            floats,
            replaced_float: a.float("replaced_value_float").unwrap_or(0.0),
            ints,
            replaced_int: a.int("replaced_value_int64").unwrap_or(0),
        })
    }
}

impl Kernel for Imputer {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let width = x.rows().1;
        match &x.data {
            Data::I64(values) => {
                let imputed = per_column("imputed values", &self.ints, width)?;
                let out = outputs[0].set_i64(&x.dims);
                for (i, (v, out)) in values.iter().zip(out).enumerate() {
                    *out = if *v == self.replaced_int { imputed(i % width) } else { *v };
                }
            }
            _ => {
                let imputed = per_column("imputed values", &self.floats, width)?;
                let values = x.to_f32().ok_or("takes numbers, not text")?;
                let out = outputs[0].set_f32(&x.dims);
                let nan = self.replaced_float.is_nan();
                for (i, (v, out)) in values.iter().zip(out).enumerate() {
                    let replace = if nan { v.is_nan() } else { *v == self.replaced_float };
                    *out = if replace { imputed(i % width) } else { *v };
                }
            }
        }
        Ok(())
    }
}

/// `Binarizer`: 1 above the threshold, else 0.
pub(super) struct Binarizer {
    threshold: f32,
}

impl Binarizer {
    pub(super) fn new(a: Attributes) -> Binarizer {
        Binarizer { threshold: a.float("threshold").unwrap_or(0.0) }
    }
}

impl Kernel for Binarizer {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let values = x.to_f32().ok_or("takes numbers, not text")?;
        let out = outputs[0].set_f32(&x.dims);
        values.iter().zip(out).for_each(|(v, o)| *o = (*v > self.threshold) as u8 as f32);
        Ok(())
    }
}

/// `FeatureVectorizer`: columns of several inputs side by side, as floats; short inputs are filled up with zeros.
pub(super) struct FeatureVectorizer {
    widths: Vec<i64>,
}

impl FeatureVectorizer {
    pub(super) fn new(a: Attributes) -> FeatureVectorizer {
        FeatureVectorizer { widths: a.ints("inputdimensions").to_vec() }
    }
}

impl Kernel for FeatureVectorizer {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let rows = args.get(0)?.rows().0;
        let total = self.widths.iter().sum::<i64>().max(0) as usize;
        let out = outputs[0].set_f32(&[rows, total]);
        out.fill(0.0);
        let mut at = 0;
        for i in 0..args.len() {
            let x = args.get(i)?;
            let (n, width) = x.rows();
            let place = self.widths.get(i).copied().unwrap_or(0).max(0) as usize;
            if n != rows {
                return Err(format!("joins inputs of {rows} and {n} rows"));
            }
            let values = x.to_f32().ok_or("takes numbers, not text")?;
            let taken = width.min(place);
            for (row, x) in values.chunks_exact(width.max(1)).enumerate() {
                out[row * total + at..][..taken].copy_from_slice(&x[..taken]);
            }
            at += place;
        }
        Ok(())
    }
}

/// `ArrayFeatureExtractor`: elements of the last axis.
pub(super) struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let (x, at) = (args.get(0)?, args.get(1)?);
        let at = at.i64s().ok_or("takes int64 indices")?;
        let width = x.dims.last().copied().unwrap_or(1);
        if let Some(&bad) = at.iter().find(|&&i| i < 0 || i as usize >= width) {
            return Err(format!("extracts element {bad} of {width}"));
        }
        let mut dims = x.dims.clone();
        match dims.len() {
            // A vector comes out as one row.
            0 | 1 => dims = vec![1, at.len()],
            n => dims[n - 1] = at.len(),
        }
        macro_rules! extract {
            ($x:expr, $set:ident) => {{
                let out = outputs[0].$set(&dims);
                for (x, out) in $x.chunks_exact(width.max(1)).zip(out.chunks_exact_mut(at.len().max(1))) {
                    at.iter().zip(out).for_each(|(&i, o)| o.clone_from(&x[i as usize]));
                }
            }};
        }
        match &x.data {
            Data::F32(x) => extract!(x, set_f32),
            Data::F64(x) => extract!(x, set_f64),
            Data::I64(x) => extract!(x, set_i64),
            Data::Bool(x) => extract!(x, set_bool),
            Data::Text(x) => extract!(x, set_text),
        }
        Ok(())
    }
}

//! Changes of type: Cast, CastLike.

use super::{Args, Kernel, Made, Recipe, Scratch, made};
use crate::score::tensor::{Data, Kind, Tensor};

pub(super) fn make(name: &str, recipe: Recipe) -> Option<Made> {
    match name {
        "Cast" => {
            let code = recipe.attributes().int("to").unwrap_or(1) as i32;
            Some(match Kind::of_onnx(code) {
                Some(to) => made(Cast { to, bits: bits(code) }),
                None => Err(format!("casts to element type {code}, which is not supported")),
            })
        }
        _ => None,
    }
}

/// Integers narrower than 64 bits wrap, as C's do.
#[derive(Clone, Copy)]
enum Bits {
    All,
    Signed(u32),
    Unsigned(u32),
}

fn bits(code: i32) -> Bits {
    match code {
        2 => Bits::Unsigned(8),
        3 => Bits::Signed(8),
        4 => Bits::Unsigned(16),
        5 => Bits::Signed(16),
        6 => Bits::Signed(32),
        12 => Bits::Unsigned(32),
        _ => Bits::All,
    }
}

struct Cast {
    to: Kind,
    bits: Bits,
}

impl Cast {
    fn wrap(&self, x: i64) -> i64 {
        match self.bits {
            Bits::All => x,
            Bits::Signed(n) => x << (64 - n) >> (64 - n),
            Bits::Unsigned(n) => x & ((1 << n) - 1),
        }
    }
}

impl Kernel for Cast {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let out = &mut outputs[0];
        macro_rules! each {
            ($v:expr, $set:ident, $f:expr) => {
                $v.iter().zip(out.$set(&x.dims)).for_each(|(v, o)| *o = $f(*v))
            };
        }
        match (&x.data, self.to) {
            (Data::F32(_), Kind::F32)
            | (Data::F64(_), Kind::F64)
            | (Data::Bool(_), Kind::Bool)
            | (Data::Text(_), Kind::Text) => {
                out.copy(x, &x.dims);
            }
            (Data::F64(v), Kind::F32) => each!(v, set_f32, |v: f64| v as f32),
            (Data::I64(v), Kind::F32) => each!(v, set_f32, |v: i64| v as f32),
            (Data::Bool(v), Kind::F32) => each!(v, set_f32, |v: bool| v as u8 as f32),
            (Data::F32(v), Kind::F64) => each!(v, set_f64, f64::from),
            (Data::I64(v), Kind::F64) => each!(v, set_f64, |v: i64| v as f64),
            (Data::Bool(v), Kind::F64) => each!(v, set_f64, |v: bool| v as u8 as f64),
            (Data::F32(v), Kind::I64) => each!(v, set_i64, |v: f32| self.wrap(v as i64)),
            (Data::F64(v), Kind::I64) => each!(v, set_i64, |v: f64| self.wrap(v as i64)),
            (Data::I64(v), Kind::I64) => each!(v, set_i64, |v: i64| self.wrap(v)),
            (Data::Bool(v), Kind::I64) => each!(v, set_i64, |v: bool| v as i64),
            (Data::F32(v), Kind::Bool) => each!(v, set_bool, |v: f32| v != 0.0),
            (Data::F64(v), Kind::Bool) => each!(v, set_bool, |v: f64| v != 0.0),
            (Data::I64(v), Kind::Bool) => each!(v, set_bool, |v: i64| v != 0),
            (Data::I64(v), Kind::Text) => v.iter().zip(out.set_text(&x.dims)).for_each(|(v, o)| *o = v.to_string()),
            (Data::Text(v), to @ (Kind::F32 | Kind::F64 | Kind::I64)) => {
                let parsed: Vec<f64> = v
                    .iter()
                    .map(|s| s.trim().parse().map_err(|_| format!("takes {s:?} for a number")))
                    .collect::<Result<_, _>>()?;
                match to {
                    Kind::F32 => parsed.iter().zip(out.set_f32(&x.dims)).for_each(|(v, o)| *o = *v as f32),
                    Kind::F64 => parsed.iter().zip(out.set_f64(&x.dims)).for_each(|(v, o)| *o = *v),
                    _ => parsed.iter().zip(out.set_i64(&x.dims)).for_each(|(v, o)| *o = self.wrap(*v as i64)),
                }
            }
            (_, to) => {
                return Err(format!("casts {} to {}, which is not supported", x.kind().name(), to.name()));
            }
        }
        Ok(())
    }
}

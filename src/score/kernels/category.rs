//! Categories: OneHotEncoder, LabelEncoder, CategoryMapper.

use std::collections::HashMap;

use super::{Args, Kernel, Made, Scratch, made};
use crate::score::proto::Attributes;
use crate::score::tensor::{Data, Kind, Tensor};

/// `OneHotEncoder`: a new last axis with a one at the category.
pub(super) struct OneHot {
    count: usize,
    ints: HashMap<i64, usize>,
    texts: HashMap<String, usize>,
    /// Unknown categories are all zeros; else they are an error.
    zeros: bool,
}

impl OneHot {
    pub(super) fn new(a: Attributes) -> Result<OneHot, String> {
        let (ints, texts) = (a.ints("cats_int64s"), a.texts("cats_strings")?);
        if ints.is_empty() == texts.is_empty() {
            return Err("needs either cats_int64s or cats_strings".into());
        }
        Ok(OneHot {
            count: ints.len().max(texts.len()),
            ints: ints.iter().enumerate().map(|(i, &c)| (c, i)).collect(),
            texts: texts.into_iter().enumerate().map(|(i, c)| (c, i)).collect(),
            zeros: a.int("zeros").unwrap_or(1) != 0,
        })
    }
}

impl Kernel for OneHot {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let mut dims = x.dims.clone();
        dims.push(self.count);
        let out = outputs[0].set_f32(&dims);
        out.fill(0.0);
        let mut set = |i: usize, found: Option<&usize>, value: &dyn std::fmt::Display| match found {
            Some(&c) => {
                out[i * self.count + c] = 1.0;
                Ok(())
            }
            None if self.zeros => Ok(()),
            None => Err(format!("met the unknown category {value}")),
        };
        match &x.data {
            Data::Text(x) => x.iter().enumerate().try_for_each(|(i, v)| set(i, self.texts.get(v), v)),
            Data::I64(x) => x.iter().enumerate().try_for_each(|(i, v)| set(i, self.ints.get(v), v)),
            _ => {
                let x = x.to_f32().ok_or("takes numbers or text")?;
                x.iter().enumerate().try_for_each(|(i, v)| set(i, self.ints.get(&(*v as i64)), v))
            }
        }
    }
}

/// A float as a key: 0 and −0 alike, and all NaN alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FloatKey(u64);

impl From<f64> for FloatKey {
    fn from(x: f64) -> FloatKey {
        FloatKey(match x {
            x if x.is_nan() => f64::NAN.to_bits(),
            0.0 => 0,
            x => x.to_bits(),
        })
    }
}

/// The table of float keys. Before version 4 a NaN key met no NaN.
fn index_floats(keys: impl IntoIterator<Item = f64>, opset: i64) -> HashMap<FloatKey, usize> {
    let mut index = index(keys.into_iter().map(FloatKey::from));
    if opset < 4 {
        index.remove(&f64::NAN.into());
    }
    index
}

/// Where each key is in the list of values.
enum Keys {
    Ints(HashMap<i64, usize>),
    Floats(HashMap<FloatKey, usize>),
    Texts(HashMap<String, usize>),
}

/// The values that keys stand for, the default last.
enum Values {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Texts(Vec<String>),
}

/// `LabelEncoder`: a table from keys to values.
pub(super) struct LabelEncoder {
    keys: Keys,
    values: Values,
}

/// Of equal keys the last counts.
fn index<K: std::hash::Hash + Eq>(keys: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    keys.into_iter().enumerate().map(|(i, k)| (k, i)).collect()
}

impl LabelEncoder {
    pub(super) fn make(a: Attributes, opset: i64) -> Made {
        if opset < 2 || a.has("classes_strings") {
            return made(ClassIndex {
                indices: index(a.texts("classes_strings")?),
                classes: a.texts("classes_strings")?,
                default_int: a.int("default_int64").unwrap_or(-1),
                default_text: a.text("default_string").transpose()?.unwrap_or("_Unused").to_string(),
            });
        }
        let key_tensor = a.tensor("keys_tensor")?;
        let (n, keys) = match key_tensor.map(|t| t.data) {
            Some(Data::I64(v)) => (v.len(), Keys::Ints(index(v))),
            Some(Data::F32(v)) => (v.len(), Keys::Floats(index_floats(v.into_iter().map(f64::from), opset))),
            Some(Data::F64(v)) => (v.len(), Keys::Floats(index_floats(v, opset))),
            Some(Data::Text(v)) => (v.len(), Keys::Texts(index(v))),
            Some(Data::Bool(_)) => return Err("has boolean keys".into()),
            None if a.has("keys_int64s") => {
                (a.ints("keys_int64s").len(), Keys::Ints(index(a.ints("keys_int64s").iter().copied())))
            }
            None if a.has("keys_floats") => {
                let keys = a.floats("keys_floats");
                (keys.len(), Keys::Floats(index_floats(keys.iter().map(|&x| x.into()), opset)))
            }
            None => {
                let keys = a.texts("keys_strings")?;
                (keys.len(), Keys::Texts(index(keys)))
            }
        };
        let default = a.tensor("default_tensor")?.map(|t| t.data);
        let (m, values) = match a.tensor("values_tensor")?.map(|t| t.data) {
            Some(Data::I64(mut v)) => {
                let n = v.len();
                v.push(if let Some(Data::I64(d)) = &default { d[0] } else { -1 });
                (n, Values::Ints(v))
            }
            Some(Data::F32(mut v)) => {
                let n = v.len();
                v.push(if let Some(Data::F32(d)) = &default { d[0] } else { -0.0 });
                (n, Values::Floats(v))
            }
            Some(Data::F64(mut v)) => {
                let n = v.len();
                v.push(if let Some(Data::F64(d)) = &default { d[0] } else { -0.0 });
                (n, Values::Doubles(v))
            }
            Some(Data::Text(mut v)) => {
                let n = v.len();
                v.push(if let Some(Data::Text(d)) = &default { d[0].clone() } else { "_Unused".into() });
                (n, Values::Texts(v))
            }
            Some(Data::Bool(_)) => return Err("has boolean values".into()),
            None if a.has("values_int64s") => {
                let mut v = a.ints("values_int64s").to_vec();
                v.push(a.int("default_int64").unwrap_or(-1));
                (v.len() - 1, Values::Ints(v))
            }
            None if a.has("values_floats") => {
                let mut v = a.floats("values_floats").to_vec();
                v.push(a.float("default_float").unwrap_or(-0.0));
                (v.len() - 1, Values::Floats(v))
            }
            None => {
                let mut v = a.texts("values_strings")?;
                v.push(a.text("default_string").transpose()?.unwrap_or("_Unused").into());
                (v.len() - 1, Values::Texts(v))
            }
        };
        if n != m {
            return Err(format!("has {n} keys and {m} values"));
        }
        made(LabelEncoder { keys, values })
    }
}

impl Kernel for LabelEncoder {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        let wrong = |want: Kind| format!("has {} keys and was given {}", want.name(), x.kind().name());
        let found: Vec<Option<usize>> = match (&self.keys, &x.data) {
            (Keys::Ints(keys), Data::I64(x)) => x.iter().map(|v| keys.get(v).copied()).collect(),
            (Keys::Floats(keys), Data::F32(x)) => x.iter().map(|&v| keys.get(&f64::from(v).into()).copied()).collect(),
            (Keys::Floats(keys), Data::F64(x)) => x.iter().map(|&v| keys.get(&v.into()).copied()).collect(),
            (Keys::Texts(keys), Data::Text(x)) => x.iter().map(|v| keys.get(v).copied()).collect(),
            (Keys::Ints(_), _) => return Err(wrong(Kind::I64)),
            (Keys::Floats(_), _) => return Err(wrong(Kind::F32)),
            (Keys::Texts(_), _) => return Err(wrong(Kind::Text)),
        };
        macro_rules! look_up {
            ($values:expr, $set:ident) => {{
                let out = outputs[0].$set(&x.dims);
                found.iter().zip(out).for_each(|(i, o)| o.clone_from(&$values[i.unwrap_or($values.len() - 1)]));
            }};
        }
        match &self.values {
            Values::Ints(v) => look_up!(v, set_i64),
            Values::Floats(v) => look_up!(v, set_f32),
            Values::Doubles(v) => look_up!(v, set_f64),
            Values::Texts(v) => look_up!(v, set_text),
        }
        Ok(())
    }
}

/// The first form of `LabelEncoder`: text to its place in a list, and back.
struct ClassIndex {
    indices: HashMap<String, usize>,
    classes: Vec<String>,
    default_int: i64,
    default_text: String,
}

impl Kernel for ClassIndex {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        match &x.data {
            Data::Text(v) => {
                let out = outputs[0].set_i64(&x.dims);
                v.iter().zip(out).for_each(|(v, o)| *o = self.indices.get(v).map_or(self.default_int, |&i| i as i64));
            }
            Data::I64(v) => {
                let out = outputs[0].set_text(&x.dims);
                for (v, o) in v.iter().zip(out) {
                    o.clone_from(
                        usize::try_from(*v).ok().and_then(|i| self.classes.get(i)).unwrap_or(&self.default_text),
                    );
                }
            }
            _ => return Err(format!("takes text or int64, not {}", x.kind().name())),
        }
        Ok(())
    }
}

/// `CategoryMapper`: text to integers or back.
pub(super) fn mapper(a: Attributes) -> Made {
    let (texts, ints) = (a.texts("cats_strings")?, a.ints("cats_int64s").to_vec());
    if texts.len() != ints.len() {
        return Err(format!("has {} strings and {} integers", texts.len(), ints.len()));
    }
    made(Mapper {
        to_int: texts.iter().cloned().zip(ints.iter().copied()).collect(),
        to_text: ints.into_iter().zip(texts).collect(),
        default_int: a.int("default_int64").unwrap_or(-1),
        default_text: a.text("default_string").transpose()?.unwrap_or("_Unused").to_string(),
    })
}

struct Mapper {
    to_int: HashMap<String, i64>,
    to_text: HashMap<i64, String>,
    default_int: i64,
    default_text: String,
}

impl Kernel for Mapper {
    fn run(&self, args: Args, outputs: &mut [Tensor], _: &mut Scratch) -> Result<(), String> {
        let x = args.get(0)?;
        match &x.data {
            Data::Text(v) => {
                let out = outputs[0].set_i64(&x.dims);
                v.iter().zip(out).for_each(|(v, o)| *o = self.to_int.get(v).copied().unwrap_or(self.default_int));
            }
            Data::I64(v) => {
                let out = outputs[0].set_text(&x.dims);
                v.iter().zip(out).for_each(|(v, o)| o.clone_from(self.to_text.get(v).unwrap_or(&self.default_text)));
            }
            _ => return Err(format!("takes text or int64, not {}", x.kind().name())),
        }
        Ok(())
    }
}

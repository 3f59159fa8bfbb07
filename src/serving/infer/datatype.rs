//! Element types of the protocol, and tensors to and from its bytes, its JSON and its typed lists.

use arrow::datatypes::{ArrowPrimitiveType, Float16Type};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::score::tensor::{Data, Kind, Tensor};

/// A half-precision number.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Element type, by the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

use Datatype::{Bool, Bytes, Fp16, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};

/// Name, ONNX's code, bytes of a value (0 where it varies), and the number that a model's configuration has for it.
const TABLE: [(Datatype, &str, i32, usize, i32); 13] = [
    (Bool, "BOOL", 9, 1, 1),
    (Uint8, "UINT8", 2, 1, 2),
    (Uint16, "UINT16", 4, 2, 3),
    (Uint32, "UINT32", 12, 4, 4),
    (Uint64, "UINT64", 13, 8, 5),
    (Int8, "INT8", 3, 1, 6),
    (Int16, "INT16", 5, 2, 7),
    (Int32, "INT32", 6, 4, 8),
    (Int64, "INT64", 7, 8, 9),
    (Fp16, "FP16", 10, 2, 10),
    (Fp32, "FP32", 1, 4, 11),
    (Fp64, "FP64", 11, 8, 12),
    (Bytes, "BYTES", 8, 0, 13),
];

impl Datatype {
    fn row(self) -> &'static (Datatype, &'static str, i32, usize, i32) {
        // The table is in the order of the declaration.
        &TABLE[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of a value; `None` for texts.
    pub fn size(self) -> Option<usize> {
        Some(self.row().3).filter(|size| *size > 0)
    }

    /// As a model's configuration says it: number and name.
    pub fn configured(self) -> (i32, String) {
        let name = if self == Bytes { "STRING" } else { self.name() };
        (self.row().4, format!("TYPE_{name}"))
    }

    pub fn parse(name: &str) -> Result<Datatype, String> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0).ok_or_else(|| {
            let all: Vec<&str> = TABLE.iter().map(|row| row.1).collect();
            format!("datatype {name:?} is not one of {}", all.join(", "))
        })
    }

    /// The type of a tensor of this kind that its file declares with this code.
    pub fn declared(code: i32, kind: Kind) -> Datatype {
        let row = TABLE.iter().find(|row| row.2 == code).map(|row| row.0);
        row.filter(|datatype| datatype.kind() == kind && *datatype != Fp16).unwrap_or(match kind {
            Kind::F32 => Fp32,
            Kind::F64 => Fp64,
            Kind::I64 => Int64,
            Kind::Bool => Bool,
            Kind::Text => Bytes,
        })
    }

    /// How values of it are held.
    pub fn kind(self) -> Kind {
        match self {
            Bool => Kind::Bool,
            Fp16 | Fp32 => Kind::F32,
            Fp64 => Kind::F64,
            Bytes => Kind::Text,
            _ => Kind::I64,
        }
    }

    /// Bits of a whole number, and whether it has a sign.
    fn whole(self) -> Option<(u32, bool)> {
        let signed = matches!(self, Int8 | Int16 | Int32 | Int64);
        (self.kind() == Kind::I64).then(|| (8 * self.row().3 as u32, signed))
    }

    /// Smallest and largest whole number.
    fn range(self) -> Option<(i128, i128)> {
        self.whole().map(|(bits, signed)| match signed {
            true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            false => (0, (1i128 << bits) - 1),
        })
    }

    /// Whether every value of this type is one of `to`, so that nothing is lost on the way.
    pub fn widens_to(self, to: Datatype) -> bool {
        match (self.whole(), to) {
            _ if self == to => true,
            (Some((bits, _)), Fp32) => bits <= 16,
            (Some((bits, _)), Fp64) => bits <= 32,
            (Some(_), to) => match (self.range(), to.range()) {
                (Some(a), Some(b)) => b.0 <= a.0 && a.1 <= b.1,
                _ => false,
            },
            (None, to) => matches!((self, to), (Fp16, Fp32 | Fp64) | (Fp32, Fp64)),
        }
    }
}

/// Values as a kind that holds them all.
pub(super) fn widen(data: Data, to: Kind) -> Data {
    match (data, to) {
        (Data::I64(v), Kind::F32) => Data::F32(v.into_iter().map(|x| x as f32).collect()),
        (Data::I64(v), Kind::F64) => Data::F64(v.into_iter().map(|x| x as f64).collect()),
        (Data::F32(v), Kind::F64) => Data::F64(v.into_iter().map(f64::from).collect()),
        (data, _) => data,
    }
}

/// Values from the protocol's bytes: little-endian and without gaps, texts with their length in four bytes before each.
pub(super) fn from_raw(datatype: Datatype, raw: &[u8], count: usize) -> Result<Data, String> {
    if let Some(size) = datatype.size() {
        let wanted = count.checked_mul(size);
        if wanted != Some(raw.len()) {
            return Err(format!(
                "has {} bytes, and {count} values of {} are {}",
                raw.len(),
                datatype.name(),
                wanted.map_or("too many to count".to_owned(), |n| n.to_string())
            ));
        }
    }
    macro_rules! values {
        ($t:ty, $n:expr, $f:expr) => {
            raw.chunks_exact($n)
                .map(|b| {
                    let mut bytes = [0u8; $n];
                    bytes.copy_from_slice(b);
                    $f(<$t>::from_le_bytes(bytes))
                })
                .collect()
        };
    }
    Ok(match datatype {
        Bool => Data::Bool(raw.iter().map(|b| *b != 0).collect()),
        Uint8 => Data::I64(raw.iter().map(|b| i64::from(*b)).collect()),
        Uint16 => Data::I64(values!(u16, 2, i64::from)),
        Uint32 => Data::I64(values!(u32, 4, i64::from)),
        Int8 => Data::I64(values!(i8, 1, i64::from)),
        Int16 => Data::I64(values!(i16, 2, i64::from)),
        Int32 => Data::I64(values!(i32, 4, i64::from)),
        Int64 => Data::I64(values!(i64, 8, |x| x)),
        Fp32 => Data::F32(values!(f32, 4, |x| x)),
        Fp64 => Data::F64(values!(f64, 8, |x| x)),
        Fp16 => Data::F32(values!(u16, 2, |x| Half::from_bits(x).to_f32())),
        Uint64 => {
            let all: Vec<u64> = values!(u64, 8, |x| x);
            Data::I64(all.into_iter().map(held).collect::<Result<_, _>>()?)
        }
        Bytes => Data::Text(texts(raw, count)?),
    })
}

/// Models here hold whole numbers in 64 bits with a sign.
fn held(x: u64) -> Result<i64, String> {
    i64::try_from(x).map_err(|_| format!("holds {x}, and whole numbers may be at most {}", i64::MAX))
}

fn texts(mut raw: &[u8], count: usize) -> Result<Vec<String>, String> {
    let mut found = Vec::with_capacity(count.min(raw.len() / 4));
    while !raw.is_empty() {
        let Some((length, rest)) = raw.split_first_chunk::<4>() else {
            return Err(format!("ends within the length of value {}", found.len()));
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > rest.len() {
            return Err(format!(
                "ends within value {}: {length} bytes are announced, {} are there",
                found.len(),
                rest.len()
            ));
        }
        found.push(text(&rest[..length], found.len())?);
        raw = &rest[length..];
    }
    if found.len() != count {
        return Err(format!("has {} values where its shape has {count}", found.len()));
    }
    Ok(found)
}

/// A text of a model; they take no other bytes.
pub(super) fn text(bytes: &[u8], at: usize) -> Result<String, String> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| format!("holds bytes in value {at} that are no UTF-8 text"))
}

/// Whole numbers from a typed list, which may be wider than the datatype.
pub(super) fn whole_numbers(datatype: Datatype, values: impl Iterator<Item = i128>) -> Result<Data, String> {
    let Some((low, high)) = datatype.range() else {
        return Err(format!("has whole numbers where its datatype is {}", datatype.name()));
    };
    values
        .map(|x| match x >= low && x <= high {
            true => i64::try_from(x).map_err(|_| format!("holds {x}, and whole numbers may be at most {}", i64::MAX)),
            false => Err(format!("holds {x}, which is no {}", datatype.name())),
        })
        .collect::<Result<_, _>>()
        .map(Data::I64)
}

/// Writes values as the protocol's bytes.
pub(super) fn to_raw(datatype: Datatype, data: &Data, out: &mut Vec<u8>) {
    match data {
        Data::F32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::F64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::Bool(v) => out.extend(v.iter().map(|x| u8::from(*x))),
        Data::Text(v) => v.iter().for_each(|x| {
            // A longer text than four bytes can say would have no place in a message.
            out.extend_from_slice(&u32::try_from(x.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(x.as_bytes());
        }),
        // Two's complement: the low bytes are the number in whatever width.
        Data::I64(v) => {
            let size = datatype.size().unwrap_or(8);
            v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()[..size]));
        }
    }
}

/// A value in JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
}

/// The values of a tensor in JSON, flat, however deep they were nested.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scalars(pub Vec<Scalar>);

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalars, D::Error> {
        let mut all = Vec::new();
        deserializer.deserialize_seq(Flat(&mut all))?;
        Ok(Scalars(all))
    }
}

/// Puts a list's values, and those of lists in it, behind others.
struct Flat<'a>(&'a mut Vec<Scalar>);

impl<'de> serde::de::DeserializeSeed<'de> for Flat<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("numbers, truth values, texts, or lists of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Flat(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        self.0.push(Scalar::Bool(v));
        Ok(())
    }

    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        self.0.push(Scalar::Whole(v.into()));
        Ok(())
    }

    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        self.0.push(Scalar::Whole(v.into()));
        Ok(())
    }

    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        self.0.push(Scalar::Float(v));
        Ok(())
    }

    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        self.0.push(Scalar::Text(v.to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push(Scalar::Null);
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("a tensor's data holds no objects"))
    }
}

/// Values from JSON. A missing float is NaN; NaN and the infinities may be written as texts, for JSON has no numbers for them.
pub(super) fn from_json(datatype: Datatype, values: Scalars, count: usize) -> Result<Data, String> {
    if values.0.len() != count {
        return Err(format!("has {} values where its shape has {count}", values.0.len()));
    }
    let float = |v: &Scalar| match v {
        Scalar::Null => Ok(f64::NAN),
        Scalar::Whole(x) => Ok(*x as f64),
        Scalar::Float(x) => Ok(*x),
        Scalar::Text(t) => match t.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            _ => Err(format!("holds the text {t:?}, which is no {}", datatype.name())),
        },
        Scalar::Bool(x) => Err(format!("holds {x}, which is no {}", datatype.name())),
    };
    let wrong = |v: &Scalar| format!("holds {}, which is no {}", v.shown(), datatype.name());
    let values = values.0;
    Ok(match datatype.kind() {
        Kind::F32 => Data::F32(values.iter().map(|v| float(v).map(|x| x as f32)).collect::<Result<_, _>>()?),
        Kind::F64 => Data::F64(values.iter().map(float).collect::<Result<_, _>>()?),
        Kind::Bool => Data::Bool(
            values
                .iter()
                .map(|v| match v {
                    Scalar::Bool(x) => Ok(*x),
                    Scalar::Whole(x @ (0 | 1)) => Ok(*x == 1),
                    v => Err(wrong(v)),
                })
                .collect::<Result<_, _>>()?,
        ),
        Kind::Text => Data::Text(
            values
                .into_iter()
                .map(|v| match v {
                    Scalar::Text(t) => Ok(t),
                    v => Err(wrong(&v)),
                })
                .collect::<Result<_, _>>()?,
        ),
        Kind::I64 => {
            let whole = values.iter().map(|v| match v {
                Scalar::Whole(x) => Ok(*x),
                v => Err(wrong(v)),
            });
            whole_numbers(datatype, whole.collect::<Result<Vec<_>, _>>()?.into_iter())?
        }
    })
}

impl Scalar {
    fn shown(&self) -> String {
        match self {
            Scalar::Null => "null".to_owned(),
            Scalar::Bool(x) => x.to_string(),
            Scalar::Whole(x) => x.to_string(),
            Scalar::Float(x) => x.to_string(),
            Scalar::Text(x) => format!("the text {x:?}"),
        }
    }
}

/// A tensor's values as a flat list in JSON.
pub(super) struct InJson<'a>(pub &'a Tensor);

impl Serialize for InJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        macro_rules! floats {
            ($v:expr) => {
                for x in $v {
                    // NaN becomes null.
                    match x.is_infinite() {
                        true if *x > 0.0 => list.serialize_element("Infinity")?,
                        true => list.serialize_element("-Infinity")?,
                        false => list.serialize_element(x)?,
                    }
                }
            };
        }
        match &self.0.data {
            Data::F32(v) => floats!(v),
            Data::F64(v) => floats!(v),
            Data::I64(v) => v.iter().try_for_each(|x| list.serialize_element(x))?,
            Data::Bool(v) => v.iter().try_for_each(|x| list.serialize_element(x))?,
            Data::Text(v) => v.iter().try_for_each(|x| list.serialize_element(x))?,
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(Datatype::parse(row.1), Ok(row.0));
            assert_eq!(row.4 as usize, i + 1);
        }
        assert!(Datatype::parse("BF16").is_err());
    }

    #[test]
    fn only_what_loses_nothing_widens() {
        for (from, to) in
            [(Fp16, Fp32), (Fp32, Fp64), (Int8, Int64), (Uint8, Int16), (Uint32, Int64), (Int16, Fp32), (Int32, Fp64)]
        {
            assert!(from.widens_to(to), "{from:?} to {to:?}");
            assert!(!to.widens_to(from), "{to:?} to {from:?}");
        }
        for (from, to) in
            [(Int32, Fp32), (Int64, Fp64), (Uint64, Int64), (Bool, Uint8), (Bytes, Fp32), (Int8, Uint8), (Fp32, Bool)]
        {
            assert!(!from.widens_to(to), "{from:?} to {to:?}");
        }
    }

    #[test]
    fn wrong_bytes_are_told() {
        for (datatype, raw, count, part) in [
            (Fp32, &[0u8; 7][..], 2, "has 7 bytes, and 2 values of FP32 are 8"),
            (Fp64, &[][..], usize::MAX, "too many to count"),
            (Bytes, &[1, 0, 0][..], 1, "ends within the length of value 0"),
            (Bytes, &[9, 0, 0, 0, b'a'][..], 1, "9 bytes are announced, 1 are there"),
            (Bytes, &[1, 0, 0, 0, b'a'][..], 2, "has 1 values where its shape has 2"),
            (Bytes, &[1, 0, 0, 0, 0xff][..], 1, "no UTF-8"),
            (Uint64, &[0xff; 8][..], 1, "18446744073709551615"),
        ] {
            let why = from_raw(datatype, raw, count).expect_err(part);
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn json_values_are_checked() {
        let given = |text: &str, datatype, count| {
            let values: Scalars = serde_json::from_str(text).map_err(|e| e.to_string())?;
            from_json(datatype, values, count)
        };
        assert_eq!(given("[[1, 2], [3, -4]]", Int8, 4), Ok(Data::I64(vec![1, 2, 3, -4])));
        assert_eq!(given("[true, 0]", Bool, 2), Ok(Data::Bool(vec![true, false])));
        let Ok(Data::F32(floats)) = given(r#"[1, 0.5, null, "Infinity"]"#, Fp32, 4) else { panic!("they are floats") };
        assert!(floats[..2] == [1.0, 0.5] && floats[2].is_nan() && floats[3] == f32::INFINITY);
        for (text, datatype) in
            [("[300]", Uint8), ("[1.5]", Int32), (r#"["x"]"#, Fp32), ("[1]", Bytes), ("[2]", Bool), ("[{}]", Fp32)]
        {
            assert!(given(text, datatype, 1).is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever the bytes are, they are values or an error; and values come back as the same bytes.
        #[test]
        fn bytes_round_trip(which in 0usize..TABLE.len(), raw in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..20) {
            let datatype = TABLE[which].0;
            if let Ok(data) = from_raw(datatype, &raw, count) {
                let mut again = Vec::new();
                match datatype {
                    Bool | Fp16 => return Ok(()),
                    _ => to_raw(datatype, &data, &mut again),
                }
                prop_assert_eq!(again, raw);
            }
        }

        #[test]
        fn texts_round_trip(all in prop::collection::vec(".{0,12}", 0..8)) {
            let data = Data::Text(all.clone());
            let mut raw = Vec::new();
            to_raw(Bytes, &data, &mut raw);
            prop_assert_eq!(from_raw(Bytes, &raw, all.len()), Ok(data));
        }
    }
}

//! From the checked tree to the typed configuration: a serde deserializer over [`Node`].
//!
//! The tree has passed [`super::validate`], so an error here is a defect of the schema, not of the file.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::yaml::{Data, Kind, Node, Scalar};

/// Why a tree that passed validation does not fit the types.
pub(super) type Mismatch = de::value::Error;

/// Reads a typed value.
pub(super) fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Mismatch> {
    T::deserialize(node)
}

impl Node {
    fn scalar(&self) -> Result<&Scalar, Mismatch> {
        match &self.data {
            Data::Scalar(scalar) => Ok(scalar),
            _ => Err(de::Error::custom(format!("expected one value, found {}", self.described()))),
        }
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, Mismatch> {
        let text = &self.scalar()?.text;
        text.parse().map_err(|_| de::Error::custom(format!("`{text}` is out of range")))
    }
}

/// Implements a number's method by parsing the text, which keeps all of its digits.
macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            visitor.$visit(self.number()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.data {
            Data::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Data::Map(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(|(k, v)| (k.text.as_str(), v))))
            }
            Data::Broken => visitor.visit_unit(),
            Data::Scalar(scalar) => match scalar.kind() {
                Kind::Null => visitor.visit_unit(),
                Kind::Bool(b) => visitor.visit_bool(b),
                Kind::Int(i) => visitor.visit_i64(i),
                Kind::Float(f) => visitor.visit_f64(f),
                Kind::Text => visitor.visit_str(&scalar.text),
            },
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_str(&self.scalar()?.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_str(visitor)
    }

    numbers! {
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_f32 visit_f32 deserialize_f64 visit_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_enum(self.scalar()?.text.as_str().into_deserializer())
    }

    forward_to_deserialize_any! {
        bool i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for &Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

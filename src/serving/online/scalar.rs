//! Values of a request, as JSON has them, and what they are as keys.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base::parse_time;
use crate::ops::key::KeyBuilder;
use crate::store::online::ColumnType;

/// A value that was sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Something that is no single value: what, in words.
    Other(&'static str),
}

/// Text that borrows where it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// Names with values, in the order in which they were sent.
#[derive(Debug)]
pub struct Columns<'a>(pub Vec<(Text<'a>, Vec<Scalar<'a>>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Take<'a> {
            type Value = Scalar<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, v: bool) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Bool(v))
            }

            fn visit_i64<E>(self, v: i64) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Int(v))
            }

            fn visit_u64<E>(self, v: u64) -> Result<Scalar<'a>, E> {
                Ok(i64::try_from(v).map_or(Scalar::UInt(v), Scalar::Int))
            }

            fn visit_f64<E>(self, v: f64) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Float(v))
            }

            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Text(Cow::Borrowed(v)))
            }

            fn visit_str<E>(self, v: &str) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Text(Cow::Owned(v.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Scalar<'a>, E> {
                Ok(Scalar::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'a>, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("a list"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'a>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("an object"))
            }
        }
        deserializer.deserialize_any(Take(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Take<'a> {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }

            fn visit_str<E>(self, v: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
        }
        deserializer.deserialize_str(Take(std::marker::PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Columns<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Take<'a> {
            type Value = Columns<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of lists")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns<'a>, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Take(std::marker::PhantomData))
    }
}

impl<'a> Scalar<'a> {
    /// A value that was written as text where nothing says of what type it is.
    pub fn of_text(text: &'a str, column_type: Option<ColumnType>) -> Scalar<'a> {
        let parsed = match column_type {
            Some(ColumnType::Boolean) => text.parse().ok().map(Scalar::Bool),
            Some(ColumnType::Float32 | ColumnType::Float64) => text.parse().ok().map(Scalar::Float),
            _ => None,
        };
        parsed.unwrap_or(Scalar::Text(Cow::Borrowed(text)))
    }

    /// As JSON, behind what is in `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let written = match self {
            Scalar::Null | Scalar::Other(_) => serde_json::to_writer(out, &()),
            Scalar::Bool(v) => serde_json::to_writer(out, v),
            Scalar::Int(v) => serde_json::to_writer(out, v),
            Scalar::UInt(v) => serde_json::to_writer(out, v),
            Scalar::Float(v) => serde_json::to_writer(out, v),
            Scalar::Text(v) => serde_json::to_writer(out, v),
        };
        // Memory takes everything.
        debug_assert!(written.is_ok());
    }

    fn shown(&self) -> String {
        let mut text = Vec::new();
        match self {
            Scalar::Other(what) => (*what).to_owned(),
            value => {
                value.write(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        }
    }

    /// A whole number, also where it was sent as text or as a float without a fraction, as pandas does beside nulls.
    fn whole(&self) -> Option<i128> {
        match self {
            Scalar::Int(v) => Some(i128::from(*v)),
            Scalar::UInt(v) => Some(i128::from(*v)),
            // Beyond 2^53 a float no longer says which number was meant.
            Scalar::Float(v) if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 => Some(*v as i128),
            Scalar::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Appends the value to a key as a column of this type has it. Must not be null.
    ///
    /// # Errors
    /// A sentence, where it is no value of that type.
    pub fn key(&self, column: &str, column_type: ColumnType, keys: &mut KeyBuilder) -> Result<(), String> {
        use ColumnType as T;
        let range: Option<(i128, i128)> = match column_type {
            T::Int8 => Some((i8::MIN.into(), i8::MAX.into())),
            T::Int16 => Some((i16::MIN.into(), i16::MAX.into())),
            T::Int32 => Some((i32::MIN.into(), i32::MAX.into())),
            T::Int64 => Some((i64::MIN.into(), i64::MAX.into())),
            T::UInt8 => Some((0, u8::MAX.into())),
            T::UInt16 => Some((0, u16::MAX.into())),
            T::UInt32 => Some((0, u32::MAX.into())),
            T::UInt64 => Some((0, u64::MAX.into())),
            _ => None,
        };
        let wrong = |wanted: &str| format!("`{column}` is {wanted}, and {} is none", self.shown());
        if let Some((least, most)) = range {
            let value = self.whole().ok_or_else(|| wrong("a whole number"))?;
            if !(least..=most).contains(&value) {
                return Err(wrong(&format!("a whole number from {least} to {most}")));
            }
            // Above 2^63 the word wraps, as it does where columns are encoded.
            keys.integer(value as u64 as i64);
            return Ok(());
        }
        match (column_type, self) {
            (T::Text, Scalar::Text(text)) => keys.bytes(text.as_bytes()),
            (T::Text, Scalar::Int(_) | Scalar::UInt(_) | Scalar::Bool(_)) => keys.bytes(self.shown().as_bytes()),
            (T::Text, _) => return Err(wrong("text")),
            (T::Boolean, Scalar::Bool(value)) => keys.boolean(*value),
            (T::Boolean, _) => return Err(wrong("true or false")),
            (T::Float32 | T::Float64, Scalar::Int(value)) => keys.float(*value as f64),
            (T::Float32, Scalar::Float(value)) => keys.float(f64::from(*value as f32)),
            (T::Float64, Scalar::Float(value)) => keys.float(*value),
            (T::Float32 | T::Float64, _) => return Err(wrong("a number")),
            (T::Timestamp, Scalar::Text(text)) => {
                keys.integer(parse_time(text).map_err(|_| wrong("a time, such as \"2018-04-01T00:00:31Z\""))?);
            }
            (T::Timestamp, _) => return Err(wrong("a time, such as \"2018-04-01T00:00:31Z\"")),
            (T::Date, Scalar::Text(text)) => {
                let midnight = parse_time(text).ok().filter(|time| time.rem_euclid(86_400_000_000) == 0);
                keys.integer(midnight.ok_or_else(|| wrong("a date, such as \"2018-04-01\""))? / 86_400_000_000);
            }
            (T::Date, _) => return Err(wrong("a date, such as \"2018-04-01\"")),
            _ => return Err(wrong("of a type that cannot be sent")),
        }
        Ok(())
    }
}

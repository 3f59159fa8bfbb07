//! Feast's names and types for a plan's views: what its Redis layout and an exported repository share.
//!
//! Source: Feast 0.67, `type_map.py`, `infra/key_encoding_utils.py` and `infra/online_stores/helpers.py`.

mod repository;

use arrow::datatypes::{DataType, SchemaRef};

pub use repository::{DEFINITIONS, Online, Repository, SETTINGS, repository};

use super::model::{Plan, StreamRef, ViewPlan};

/// A value type of Feast's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Feast's")]
pub enum FeastType {
    Bytes,
    String,
    Int32,
    Int64,
    Double,
    Float,
    Bool,
    /// Whole seconds since 1970 UTC.
    UnixTimestamp,
}

impl FeastType {
    /// The type that holds a feature of an Arrow type; `None` when there is none that holds each of its values (times are
    /// kept to the second).
    pub fn of_feature(data_type: &DataType) -> Option<FeastType> {
        Some(match data_type {
            DataType::Boolean => FeastType::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => FeastType::Int32,
            DataType::Int64 | DataType::UInt32 => FeastType::Int64,
            DataType::Float16 | DataType::Float32 => FeastType::Float,
            DataType::Float64 => FeastType::Double,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => FeastType::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                FeastType::Bytes
            }
            DataType::Date32 | DataType::Timestamp(_, _) => FeastType::UnixTimestamp,
            DataType::Dictionary(_, values) => return FeastType::of_feature(values),
            _ => return None,
        })
    }

    /// The type of an entity column of an Arrow type; `None` when Feast's keys hold no such values, or not all of them.
    pub fn of_key(data_type: &DataType) -> Option<FeastType> {
        match data_type {
            DataType::Timestamp(_, _) => None,
            other => FeastType::of_feature(other)
                .filter(|t| !matches!(t, FeastType::Bool | FeastType::Float | FeastType::Double)),
        }
    }

    /// The number in `feast.types.ValueType`.
    pub fn number(self) -> u32 {
        match self {
            FeastType::Bytes => 1,
            FeastType::String => 2,
            FeastType::Int32 => 3,
            FeastType::Int64 => 4,
            FeastType::Double => 5,
            FeastType::Float => 6,
            FeastType::Bool => 7,
            FeastType::UnixTimestamp => 8,
        }
    }

    /// The name in Python's `feast.ValueType`.
    pub fn value_type(self) -> &'static str {
        match self {
            FeastType::Bytes => "BYTES",
            FeastType::String => "STRING",
            FeastType::Int32 => "INT32",
            FeastType::Int64 => "INT64",
            FeastType::Double => "DOUBLE",
            FeastType::Float => "FLOAT",
            FeastType::Bool => "BOOL",
            FeastType::UnixTimestamp => "UNIX_TIMESTAMP",
        }
    }

    /// The name in Python's `feast.types`.
    pub fn field_type(self) -> &'static str {
        match self {
            FeastType::Bytes => "Bytes",
            FeastType::String => "String",
            FeastType::Int32 => "Int32",
            FeastType::Int64 => "Int64",
            FeastType::Double => "Float64",
            FeastType::Float => "Float32",
            FeastType::Bool => "Bool",
            FeastType::UnixTimestamp => "UnixTimestamp",
        }
    }
}

/// Whether Feast takes a text as a project's name: letters, digits and underscores, no underscore in front.
pub fn is_project(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The field of an entity's hash that holds a feature: MurmurHash3 (x86, 32 bits, seed 0) of `view:feature`, little-endian.
pub fn field_of(view: &str, feature: &str) -> [u8; 4] {
    murmur3(format!("{view}:{feature}").as_bytes()).to_le_bytes()
}

/// MurmurHash3 by Austin Appleby (public domain), the 32-bit variant for x86, seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = 0u32;
    let (blocks, rest) = bytes.as_chunks::<4>();
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash ^= mix(u32::from_le_bytes(last));
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The columns of the stream that a view reads.
pub fn stream_of<'a>(plan: &'a Plan, view: &ViewPlan) -> &'a SchemaRef {
    match view.stream {
        StreamRef::Source(source) => &plan.sources[source].stream_schema,
        StreamRef::Join(join) => &plan.joins[join].schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields that Feast 0.67 wrote.
    #[test]
    fn fields_are_feasts() {
        let hex = |feature: &str| field_of("user_tx", feature).map(|b| format!("{b:02x}")).concat();
        assert_eq!(["cnt_1h", "sum_1h", "last_c", "l3"].map(hex), ["d4471ec9", "1d460ed7", "e4da19d7", "15d0fe61"]);
        // Of the reference implementation, for each length of the rest.
        let hashes = ["", "a", "ab", "abc", "abcd"].map(|text| murmur3(text.as_bytes()));
        assert_eq!(hashes, [0, 0x3c25_69b2, 0x9bbf_d75f, 0xb3dd_93fa, 0x43ed_676a]);
    }

    #[test]
    fn projects() {
        assert_eq!(["fraud", "f_1", "", "_f", "f-1", "é"].map(is_project), [true, true, false, false, false, false]);
    }
}

//! Entity keys in bytes and their hashes: the one encoding that routing, keyed state and the online store share.
//!
//! A key is the values of a view's entity columns. A key of one integer column is a *word*: its value as `i64`, hashed
//! by [`hash_u64`]. Every other key, and a null in a one-column key, is hashed by [`hash_bytes`] of its canonical bytes.
//!
//! **Canonical bytes.** Per column one tag, then the value: `0` null; `1` integer, date, time or timestamp, eight bytes
//! big-endian of the value as `i64` with the sign bit flipped; `2` text or bytes, its length in four bytes little-endian
//! and then the bytes; `3` boolean, one byte; `4` float, eight bytes little-endian of the `f64`, where −0.0 is 0.0 and
//! all NaN are one; `5` decimal, sixteen bytes little-endian. Hence equal values are equal bytes whatever the width of
//! their column: the customer 7 of an `Int32` spine is the customer 7 of an `Int64` label stream. No key is a prefix of
//! another. The encoding is part of the snapshot format: it must be the same in every build.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

use crate::base::{hash_bytes, hash_u64, hash_words};

/// Why columns cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A column's type has no canonical bytes.
    #[error("a column of type {0} cannot be an entity key; use integers, text, booleans, dates or timestamps")]
    Unsupported(DataType),
}

/// Whether a column of this type can be part of a key.
pub fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_supported(values),
        DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => true,
        other => is_text(other) || is_integer(other) || is_temporal(other),
    }
}

/// Whether keys of these column types are words: one column of integers.
pub fn is_word(types: &[DataType]) -> bool {
    matches!(types, [one] if is_integer(one))
}

/// The hash of every row's key, appended to `out`.
///
/// # Errors
/// When a column's type is not supported; `out` is then unchanged.
pub fn hashes(columns: &[ArrayRef], out: &mut Vec<u64>) -> Result<(), KeyError> {
    match columns {
        [column] if is_integer(column.data_type()) => {
            let start = out.len();
            words(column, out);
            if column.null_count() == 0 {
                hash_words(&mut out[start..]);
            } else {
                let null = hash_bytes(&[TAG_NULL]);
                for (i, word) in out[start..].iter_mut().enumerate() {
                    *word = if column.is_null(i) { null } else { hash_u64(*word) };
                }
            }
        }
        _ => {
            let keys = encode(columns)?;
            out.extend((0..keys.len()).map(|row| hash_bytes(keys.get(row))));
        }
    }
    Ok(())
}

/// The values of an integer column as words, `value as i64 as u64`, appended to `out`; what a null yields is unspecified.
///
/// # Panics
/// When the column is not of integers, see [`is_word`].
pub fn words(column: &ArrayRef, out: &mut Vec<u64>) {
    match column.data_type() {
        DataType::Int64 => out.extend(column.as_primitive::<Int64Type>().values().iter().map(|v| *v as u64)),
        DataType::UInt64 => out.extend_from_slice(column.as_primitive::<UInt64Type>().values()),
        _ => each_i64(column, |values| out.extend(values.map(|v| v as u64))),
    }
}

/// Canonical bytes of the keys of a batch, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedKeys {
    bytes: Vec<u8>,
    /// Where each row's bytes begin, and one more: where the last row's end.
    offsets: Vec<usize>,
}

impl EncodedKeys {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a row.
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The rows of several batches, one batch after the other.
    pub fn concat(parts: &[EncodedKeys]) -> EncodedKeys {
        let mut all = EncodedKeys { bytes: Vec::new(), offsets: vec![0] };
        for part in parts {
            let start = all.bytes.len();
            all.bytes.extend_from_slice(&part.bytes);
            all.offsets.extend(part.offsets.iter().skip(1).map(|end| start + end));
        }
        all
    }

    /// Bytes that the keys take.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.offsets.capacity() * size_of::<usize>()
    }

    /// The keys in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.offsets.windows(2).map(|w| &self.bytes[w[0]..w[1]])
    }
}

/// Makes canonical bytes value by value, for those who have no columns: the same bytes as [`encode`] makes.
#[derive(Clone, Debug)]
pub struct KeyBuilder(EncodedKeys);

impl KeyBuilder {
    /// For so many keys.
    pub fn with_capacity(rows: usize) -> KeyBuilder {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        KeyBuilder(EncodedKeys { bytes: Vec::with_capacity(rows * 16), offsets })
    }

    /// A null.
    pub fn null(&mut self) {
        self.0.bytes.push(TAG_NULL);
    }

    /// A whole number, a date, or a time in the unit of its column.
    pub fn integer(&mut self, value: i64) {
        self.0.bytes.push(TAG_INTEGER);
        self.0.bytes.extend_from_slice(&(value.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    }

    /// Text or bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.0.bytes.push(TAG_BYTES);
        self.0.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.bytes.extend_from_slice(value);
    }

    /// A truth value.
    pub fn boolean(&mut self, value: bool) {
        self.0.bytes.extend_from_slice(&[TAG_BOOLEAN, u8::from(value)]);
    }

    /// A float.
    pub fn float(&mut self, value: f64) {
        self.0.bytes.push(TAG_FLOAT);
        self.0.bytes.extend_from_slice(&canonical_float(value).to_le_bytes());
    }

    /// A key in its canonical bytes.
    pub fn whole(&mut self, key: &[u8]) {
        self.0.bytes.extend_from_slice(key);
        self.end();
    }

    /// Ends a key.
    pub fn end(&mut self) {
        self.0.offsets.push(self.0.bytes.len());
    }

    /// The keys that were ended.
    pub fn finish(self) -> EncodedKeys {
        self.0
    }
}

/// A value of a key, from its canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// A null.
    Null,
    /// An integer, date, time or timestamp, in the unit of its column.
    Integer(i64),
    /// Text or bytes.
    Bytes(&'a [u8]),
    /// A boolean.
    Boolean(bool),
    /// A float.
    Float(f64),
    /// A decimal, unscaled.
    Decimal(i128),
}

/// The values of a key, from its canonical bytes; `None` when they are none.
pub fn parts(mut key: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    while let Some(tag) = key.split_off_first() {
        parts.push(match *tag {
            TAG_NULL => Part::Null,
            TAG_INTEGER => {
                let word = u64::from_be_bytes(key.split_off(..8)?.try_into().ok()?) ^ (1 << 63);
                Part::Integer(word.cast_signed())
            }
            TAG_BYTES => {
                let length = u32::from_le_bytes(key.split_off(..4)?.try_into().ok()?);
                Part::Bytes(key.split_off(..usize::try_from(length).ok()?)?)
            }
            TAG_BOOLEAN => Part::Boolean(*key.split_off_first()? != 0),
            TAG_FLOAT => Part::Float(f64::from_le_bytes(key.split_off(..8)?.try_into().ok()?)),
            TAG_DECIMAL => Part::Decimal(i128::from_le_bytes(key.split_off(..16)?.try_into().ok()?)),
            _ => return None,
        });
    }
    Some(parts)
}

/// A key's values in words, from its canonical bytes; what cannot be read is shown in hexadecimal. Times are numbers.
pub fn show(mut key: &[u8]) -> Vec<String> {
    let mut values = Vec::new();
    while let Some((tag, rest)) = key.split_first() {
        let (value, after) = match (*tag, rest) {
            (TAG_NULL, rest) => ("null".to_owned(), rest),
            (TAG_INTEGER, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let word = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) ^ (1 << 63);
                (word.cast_signed().to_string(), rest)
            }
            (TAG_BYTES, [a, b, c, d, rest @ ..]) => {
                let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                let (text, rest) = rest.split_at(length.min(rest.len()));
                (String::from_utf8_lossy(text).into_owned(), rest)
            }
            (TAG_BOOLEAN, [bit, rest @ ..]) => ((*bit != 0).to_string(), rest),
            (TAG_FLOAT, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string(), rest)
            }
            (TAG_DECIMAL, rest) if rest.len() >= 16 => {
                let (bytes, rest) = rest.split_at(16);
                let unscaled = bytes.iter().rev().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
                (format!("{} unscaled", unscaled.cast_signed()), rest)
            }
            (_, rest) => (rest.iter().map(|byte| format!("{byte:02x}")).collect(), &[][..]),
        };
        values.push(value);
        key = after;
    }
    values
}

/// Canonical bytes of every row's key, of any supported types (words included).
///
/// # Errors
/// When a column's type is not supported.
pub fn encode(columns: &[ArrayRef]) -> Result<EncodedKeys, KeyError> {
    let columns: Vec<ArrayRef> = columns.iter().map(plain).collect::<Result<_, _>>()?;
    let rows = columns.first().map_or(0, |c| c.len());
    let mut sizes = vec![0usize; rows + 1];
    columns.iter().for_each(|column| add_sizes(column, &mut sizes[1..]));
    for row in 0..rows {
        sizes[row + 1] += sizes[row];
    }
    let offsets = sizes;
    let mut bytes = vec![0; offsets[rows]];
    let mut ends = offsets[..rows].to_vec();
    columns.iter().for_each(|column| write(column, &mut bytes, &mut ends));
    Ok(EncodedKeys { bytes, offsets })
}

const TAG_NULL: u8 = 0;
const TAG_INTEGER: u8 = 1;
const TAG_BYTES: u8 = 2;
const TAG_BOOLEAN: u8 = 3;
const TAG_FLOAT: u8 = 4;
const TAG_DECIMAL: u8 = 5;

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer()
}

fn is_temporal(data_type: &DataType) -> bool {
    data_type.is_temporal() && !matches!(data_type, DataType::Interval(_))
}

fn is_text(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// The column in one of the few types that the rest of this file tells apart.
fn plain(column: &ArrayRef) -> Result<ArrayRef, KeyError> {
    let unsupported = || KeyError::Unsupported(column.data_type().clone());
    let to = match column.data_type() {
        DataType::Dictionary(_, values) if is_supported(values) => {
            return plain(&cast(column, values).map_err(|_| unsupported())?);
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::LargeUtf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::LargeBinary
        }
        DataType::Float32 => DataType::Float64,
        other if is_supported(other) => return Ok(ArrayRef::clone(column)),
        _ => return Err(unsupported()),
    };
    if column.data_type() == &to { Ok(ArrayRef::clone(column)) } else { cast(column, &to).map_err(|_| unsupported()) }
}

fn add_sizes(column: &ArrayRef, sizes: &mut [usize]) {
    let fixed = match column.data_type() {
        DataType::LargeUtf8 => {
            return add_lengths(column, column.as_string::<i64>().offsets(), sizes);
        }
        DataType::LargeBinary => {
            return add_lengths(column, column.as_binary::<i64>().offsets(), sizes);
        }
        DataType::Boolean => 1,
        DataType::Decimal128(..) => 16,
        _ => 8,
    };
    for (row, size) in sizes.iter_mut().enumerate() {
        *size += if column.is_null(row) { 1 } else { 1 + fixed };
    }
}

fn add_lengths(column: &ArrayRef, offsets: &[i64], sizes: &mut [usize]) {
    for (row, (size, ends)) in sizes.iter_mut().zip(offsets.windows(2)).enumerate() {
        *size += if column.is_null(row) { 1 } else { 5 + (ends[1] - ends[0]) as usize };
    }
}

/// Writes the column's values where each row's bytes end so far.
fn write(column: &ArrayRef, bytes: &mut [u8], ends: &mut [usize]) {
    let mut put = |row: usize, tag: u8, value: &[&[u8]]| {
        let end = &mut ends[row];
        bytes[*end] = tag;
        *end += 1;
        for part in value {
            bytes[*end..*end + part.len()].copy_from_slice(part);
            *end += part.len();
        }
    };
    let mut put_bytes = |row: usize, value: Option<&[u8]>| match value {
        None => put(row, TAG_NULL, &[]),
        Some(value) => put(row, TAG_BYTES, &[&(value.len() as u32).to_le_bytes(), value]),
    };
    match column.data_type() {
        DataType::LargeUtf8 => {
            column.as_string::<i64>().iter().enumerate().for_each(|(i, v)| put_bytes(i, v.map(str::as_bytes)))
        }
        DataType::LargeBinary => column.as_binary::<i64>().iter().enumerate().for_each(|(i, v)| put_bytes(i, v)),
        DataType::Boolean => {
            let values: &BooleanArray = column.as_boolean();
            for (row, value) in values.iter().enumerate() {
                match value {
                    None => put(row, TAG_NULL, &[]),
                    Some(value) => put(row, TAG_BOOLEAN, &[&[u8::from(value)]]),
                }
            }
        }
        DataType::Float64 => {
            for (row, value) in column.as_primitive::<Float64Type>().iter().enumerate() {
                match value {
                    None => put(row, TAG_NULL, &[]),
                    Some(value) => put(row, TAG_FLOAT, &[&canonical_float(value).to_le_bytes()]),
                }
            }
        }
        DataType::Decimal128(..) => {
            for (row, value) in column.as_primitive::<Decimal128Type>().iter().enumerate() {
                match value {
                    None => put(row, TAG_NULL, &[]),
                    Some(value) => put(row, TAG_DECIMAL, &[&value.to_le_bytes()]),
                }
            }
        }
        _ => each_i64(column, |values| {
            for (row, value) in values.enumerate() {
                if column.is_null(row) {
                    put(row, TAG_NULL, &[]);
                } else {
                    put(row, TAG_INTEGER, &[&((value as u64) ^ (1 << 63)).to_be_bytes()]);
                }
            }
        }),
    }
}

fn canonical_float(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// Hands the values of an integer or temporal column to `f` as `i64`; nulls come as whatever lies there.
fn each_i64(column: &ArrayRef, f: impl FnOnce(&mut dyn Iterator<Item = i64>)) {
    fn values<'a, P: ArrowPrimitiveType>(
        column: &'a ArrayRef,
        widen: impl Fn(P::Native) -> i64 + 'a,
    ) -> Box<dyn Iterator<Item = i64> + 'a> {
        let array: &PrimitiveArray<P> = column.as_primitive();
        Box::new(array.values().iter().map(move |v| widen(*v)))
    }
    let mut iterator = match column.data_type() {
        DataType::Int8 => values::<Int8Type>(column, i64::from),
        DataType::Int16 => values::<Int16Type>(column, i64::from),
        DataType::Int32 => values::<Int32Type>(column, i64::from),
        DataType::Int64 => values::<Int64Type>(column, |v| v),
        DataType::UInt8 => values::<UInt8Type>(column, i64::from),
        DataType::UInt16 => values::<UInt16Type>(column, i64::from),
        DataType::UInt32 => values::<UInt32Type>(column, i64::from),
        DataType::UInt64 => values::<UInt64Type>(column, |v| v as i64),
        DataType::Date32 => values::<Date32Type>(column, i64::from),
        DataType::Date64 => values::<Date64Type>(column, |v| v),
        DataType::Time32(TimeUnit::Second) => values::<Time32SecondType>(column, i64::from),
        DataType::Time32(_) => values::<Time32MillisecondType>(column, i64::from),
        DataType::Time64(TimeUnit::Microsecond) => values::<Time64MicrosecondType>(column, |v| v),
        DataType::Time64(_) => values::<Time64NanosecondType>(column, |v| v),
        DataType::Timestamp(TimeUnit::Second, _) => values::<TimestampSecondType>(column, |v| v),
        DataType::Timestamp(TimeUnit::Millisecond, _) => values::<TimestampMillisecondType>(column, |v| v),
        DataType::Timestamp(TimeUnit::Microsecond, _) => values::<TimestampMicrosecondType>(column, |v| v),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => values::<TimestampNanosecondType>(column, |v| v),
        DataType::Duration(TimeUnit::Second) => values::<DurationSecondType>(column, |v| v),
        DataType::Duration(TimeUnit::Millisecond) => values::<DurationMillisecondType>(column, |v| v),
        DataType::Duration(TimeUnit::Microsecond) => values::<DurationMicrosecondType>(column, |v| v),
        DataType::Duration(TimeUnit::Nanosecond) => values::<DurationNanosecondType>(column, |v| v),
        other => unreachable!("{other} is neither an integer nor a time"),
    };
    f(&mut *iterator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray, StringViewArray, UInt64Array,
    };
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::slice::from_ref;
    use std::sync::Arc;

    fn hash(columns: &[ArrayRef]) -> Vec<u64> {
        let mut out = Vec::new();
        hashes(columns, &mut out).unwrap();
        out
    }

    #[test]
    fn keys_in_words() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(-7), None])),
            Arc::new(StringArray::from(vec!["DE", ""])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(Float64Array::from(vec![0.5, -2.0])),
            Arc::new(arrow::array::Decimal128Array::from(vec![-12, 7])),
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
        ];
        let keys = encode(&columns).unwrap();
        assert_eq!(show(keys.get(0)), ["-7", "DE", "true", "0.5", "-12 unscaled", "-9223372036854775808"]);
        assert_eq!(show(keys.get(1)), ["null", "", "false", "-2", "7 unscaled", "9223372036854775807"]);
        assert_eq!(show(&[9, 255]), ["ff"]);
        (0..keys.get(0).len()).for_each(|cut| drop(show(&keys.get(0)[..cut])));
    }

    #[test]
    fn bytes_and_hashes_are_pinned() {
        // Snapshots and the online store depend on these.
        let keys = encode(&[
            Arc::new(Int64Array::from(vec![Some(-1), None])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some("ab"), Some("")])),
            Arc::new(BooleanArray::from(vec![true, false])),
        ])
        .unwrap();
        assert_eq!(keys.get(0), b"\x01\x7f\xff\xff\xff\xff\xff\xff\xff\x02\x02\0\0\0ab\x03\x01");
        assert_eq!(keys.get(1), b"\0\x02\0\0\0\0\x03\0");
        let words: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(-1), None]));
        assert_eq!(hash(&[words]), vec![hash_u64(0), hash_u64(u64::MAX), hash_bytes(&[0])]);
    }

    #[test]
    fn the_width_of_a_column_does_not_matter() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![-5, 0, 7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![-5, 0, 7]));
        assert_eq!(hash(from_ref(&narrow)), hash(from_ref(&wide)));
        assert_eq!(encode(&[narrow]), encode(&[wide]));
        let text = vec!["fr", "a rather long country name", ""];
        let plain: ArrayRef = Arc::new(StringArray::from(text.clone()));
        let view: ArrayRef = Arc::new(StringViewArray::from(text.clone()));
        let dictionary: ArrayRef = Arc::new(text.into_iter().collect::<DictionaryArray<Int32Type>>());
        assert_eq!(encode(from_ref(&plain)), encode(&[view]));
        assert_eq!(hash(&[plain]), hash(&[dictionary]));
    }

    #[test]
    fn floats_that_are_equal_have_equal_bytes() {
        let keys = encode(&[Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN])) as ArrayRef]).unwrap();
        assert_eq!(keys.get(0), keys.get(1));
        assert_eq!(keys.get(2), keys.get(3));
    }

    #[test]
    fn unsigned_words_keep_all_bits() {
        let column: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
        assert_eq!(hash(&[column]), vec![hash_u64(u64::MAX), hash_u64(1)]);
    }

    #[test]
    fn lists_are_refused() {
        let list: ArrayRef =
            Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None]));
        assert!(!is_supported(list.data_type()));
        assert!(encode(&[list]).unwrap_err().to_string().contains("cannot be an entity key"));
    }

    proptest! {
        /// Two rows have the same bytes exactly when they have the same values, and no key is a prefix of another.
        #[test]
        fn bytes_are_equal_exactly_when_values_are(
            rows in prop::collection::vec((prop::option::of("[ab]{0,2}"), prop::option::of(-2i64..2), any::<Option<bool>>()), 1..40),
        ) {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|r| r.0.clone()).collect::<StringArray>()),
                Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|r| r.2).collect::<BooleanArray>()),
            ];
            let keys = encode(&columns).unwrap();
            prop_assert_eq!(keys.len(), rows.len());
            let mut seen = HashMap::new();
            for (row, key) in rows.iter().zip(keys.iter()) {
                prop_assert_eq!(*seen.entry(key.to_vec()).or_insert(row), row);
                for other in seen.keys() {
                    prop_assert!(other.len() == key.len() || !(other.starts_with(key) || key.starts_with(other)));
                }
            }
            prop_assert_eq!(seen.len(), rows.iter().collect::<std::collections::HashSet<_>>().len());
        }
    }
}

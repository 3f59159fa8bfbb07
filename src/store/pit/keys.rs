//! Keys as dense numbers: which rows of a table are of a key that somebody asked for.

use std::hash::BuildHasherDefault;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type};
use hashbrown::HashMap;

use crate::base::hash_u64;
use crate::ops::key;
use crate::store::StoreError;

/// The number of a key that nobody asked for, and of keys with a null: these are never equal to anything.
pub(super) const NO_GROUP: u32 = u32::MAX;

/// Keys that were asked for, numbered in the order of their coming.
pub(super) struct KeyIndex {
    types: Vec<DataType>,
    groups: Groups,
}

enum Groups {
    /// One column of integers that fit `i64`.
    Words(HashMap<i64, u32, BuildHasherDefault<WordHasher>>),
    /// Anything else, by its canonical bytes.
    Bytes(HashMap<Box<[u8]>, u32>),
}

/// The hash that routes entities, for integers.
#[derive(Default)]
pub(super) struct WordHasher(u64);

impl std::hash::Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = hash_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_i64(&mut self, value: i64) {
        self.0 = hash_u64(value as u64);
    }
}

impl KeyIndex {
    /// For keys of columns of these types, which are a table's.
    ///
    /// # Errors
    /// [`StoreError::Request`] for a type that cannot be a key.
    pub fn new(types: Vec<DataType>) -> Result<Self, StoreError> {
        if let Some(wrong) = types.iter().find(|t| !key::is_supported(t)) {
            return Err(StoreError::Request(key::KeyError::Unsupported(wrong.clone()).to_string()));
        }
        let groups = match &types[..] {
            [one] if one.is_integer() && *one != DataType::UInt64 => Groups::Words(HashMap::default()),
            _ => Groups::Bytes(HashMap::default()),
        };
        Ok(KeyIndex { types, groups })
    }

    /// Keys so far.
    pub fn len(&self) -> usize {
        match &self.groups {
            Groups::Words(map) => map.len(),
            Groups::Bytes(map) => map.len(),
        }
    }

    /// Numbers of the keys of some rows, new ones for those that are not known; [`NO_GROUP`] where a column is null.
    pub fn number(&mut self, columns: &[ArrayRef]) -> Result<Vec<u32>, StoreError> {
        let columns = self.fitting(columns)?;
        let valid = valid(&columns);
        let next = self.len() as u32;
        let mut next = next..;
        // Fewer rows than `u32::MAX` are ever joined at once, so the numbers last.
        let mut fresh = || next.next().unwrap_or(NO_GROUP);
        Ok(match &mut self.groups {
            Groups::Words(map) => {
                let words = words(&columns[0])?;
                let words = words.as_primitive::<Int64Type>();
                let number = |(row, word): (usize, &i64)| match valid(row) {
                    true => *map.entry(*word).or_insert_with(&mut fresh),
                    false => NO_GROUP,
                };
                words.values().iter().enumerate().map(number).collect()
            }
            Groups::Bytes(map) => {
                let keys = encode(&columns)?;
                let number = |(row, key): (usize, &[u8])| match valid(row) {
                    true => *map.entry_ref(key).or_insert_with(&mut fresh),
                    false => NO_GROUP,
                };
                keys.iter().enumerate().map(number).collect()
            }
        })
    }

    /// Numbers of the keys of some rows; [`NO_GROUP`] where nobody asked for them. `found` is overwritten.
    pub fn find(&self, columns: &[ArrayRef], found: &mut Vec<u32>) -> Result<(), StoreError> {
        let columns = self.fitting(columns)?;
        let valid = valid(&columns);
        found.clear();
        match &self.groups {
            Groups::Words(map) => {
                let words = words(&columns[0])?;
                let words = words.as_primitive::<Int64Type>();
                // Files are sorted by entity: rows of one key are neighbours.
                let mut last: Option<(i64, u32)> = None;
                found.extend(words.values().iter().enumerate().map(|(row, word)| match last {
                    _ if !valid(row) => NO_GROUP,
                    Some((known, group)) if known == *word => group,
                    _ => {
                        let group = map.get(word).copied().unwrap_or(NO_GROUP);
                        last = Some((*word, group));
                        group
                    }
                }));
            }
            Groups::Bytes(map) => {
                let keys = encode(&columns)?;
                let find = |(row, key): (usize, &[u8])| match valid(row) {
                    true => map.get(key).copied().unwrap_or(NO_GROUP),
                    false => NO_GROUP,
                };
                found.extend(keys.iter().enumerate().map(find));
            }
        }
        Ok(())
    }

    /// Columns of the keys' own types. A value that these do not hold becomes null: no row has it.
    fn fitting(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, StoreError> {
        let cast = |(column, to): (&ArrayRef, &DataType)| match column.data_type() == to {
            true => Ok(column.clone()),
            false => {
                let safe = CastOptions { safe: true, ..CastOptions::default() };
                cast_with_options(column, to, &safe).map_err(StoreError::arrow("a key"))
            }
        };
        columns.iter().zip(&self.types).map(cast).collect()
    }
}

/// Whether keys of these types may be equal: integers of any width, or values of one kind.
pub(super) fn comparable(a: &DataType, b: &DataType) -> bool {
    use DataType::*;
    let kind = |t: &DataType| -> Option<u8> {
        Some(match t {
            t if t.is_integer() => 1,
            Decimal128(_, 0) => 1,
            Utf8 | LargeUtf8 | Utf8View => 2,
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => 3,
            Boolean => 4,
            Float16 | Float32 | Float64 => 5,
            Date32 | Date64 => 6,
            Timestamp(..) => 7,
            _ => return None,
        })
    };
    let plain = |t: &DataType| match t {
        Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    let (a, b) = (plain(a), plain(b));
    a == b || kind(&a).is_some_and(|a| kind(&b) == Some(a))
}

fn valid(columns: &[ArrayRef]) -> impl Fn(usize) -> bool + use<> {
    let nulls: Vec<_> = columns.iter().filter_map(|column| column.logical_nulls()).collect();
    move |row| nulls.iter().all(|nulls| nulls.is_valid(row))
}

fn words(column: &ArrayRef) -> Result<ArrayRef, StoreError> {
    arrow::compute::cast(column, &DataType::Int64).map_err(StoreError::arrow("a key"))
}

fn encode(columns: &[ArrayRef]) -> Result<key::EncodedKeys, StoreError> {
    key::encode(columns).map_err(|error| StoreError::Request(error.to_string()))
}

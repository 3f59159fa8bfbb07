//! Packed rows: one byte string per entity and view.
//!
//! ```text
//! u8 format (1) | u32 schema | u64 generation | u64 tick | i64 event_time | i64 valid_until | i64 refreshed_at
//! | null bits, one per column, set = present, in whole bytes | the present values in column order
//! ```
//! Numbers are little-endian in their own width; text and bytes carry their length as `u32`. A null takes no room.

use std::sync::Arc;

use arrow::array::NullBufferBuilder;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanBuilder, PrimitiveArray, StringBuilder,
};
use arrow::buffer::{MutableBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, ToByteSlice, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::Stamp;
use crate::base::EventTime;

const FORMAT: u8 = 1;
/// Bytes before the null bits.
const HEADER_BYTES: usize = 1 + 4 + 5 * 8;

/// Types that the online store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ColumnType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Text,
    Bytes,
    Date,
    /// Microseconds, UTC.
    Timestamp,
}

impl ColumnType {
    /// The type that holds values of an Arrow type: views, large and dictionary types by their values, timestamps of any
    /// unit. `None` for nested types, decimals, times of day and the like.
    pub fn of(data_type: &DataType) -> Option<ColumnType> {
        use ColumnType::*;
        Some(match data_type {
            DataType::Boolean => Boolean,
            DataType::Int8 => Int8,
            DataType::Int16 => Int16,
            DataType::Int32 => Int32,
            DataType::Int64 => Int64,
            DataType::UInt8 => UInt8,
            DataType::UInt16 => UInt16,
            DataType::UInt32 => UInt32,
            DataType::UInt64 => UInt64,
            DataType::Float16 | DataType::Float32 => Float32,
            DataType::Float64 => Float64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Bytes,
            DataType::Date32 => Date,
            DataType::Timestamp(_, _) => Timestamp,
            DataType::Dictionary(_, values) => return ColumnType::of(values),
            _ => return None,
        })
    }

    /// The Arrow type that values are read back as.
    pub fn data_type(self) -> DataType {
        use ColumnType::*;
        match self {
            Boolean => DataType::Boolean,
            Int8 => DataType::Int8,
            Int16 => DataType::Int16,
            Int32 => DataType::Int32,
            Int64 => DataType::Int64,
            UInt8 => DataType::UInt8,
            UInt16 => DataType::UInt16,
            UInt32 => DataType::UInt32,
            UInt64 => DataType::UInt64,
            Float32 => DataType::Float32,
            Float64 => DataType::Float64,
            Text => DataType::Utf8,
            Bytes => DataType::Binary,
            Date => DataType::Date32,
            Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// What stands before the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the schema that the values follow.
    pub schema: u32,
    /// When the row was written.
    pub stamp: Stamp,
    /// Event time of the entity's last event.
    pub event_time: EventTime,
    /// Until when the value holds, on the job's clock.
    pub valid_until: EventTime,
    /// The job's clock when the row was written.
    pub refreshed_at: EventTime,
}

impl Header {
    /// Reads the header of a packed row; `None` when it is none of this format.
    pub fn read(row: &[u8]) -> Option<Header> {
        let header = row.get(..HEADER_BYTES).filter(|header| header[0] == FORMAT)?;
        let word = |i: usize| u64::from_le_bytes(header[5 + 8 * i..13 + 8 * i].try_into().expect("eight bytes"));
        Some(Header {
            schema: u32::from_le_bytes(header[1..5].try_into().expect("four bytes")),
            stamp: Stamp { generation: word(0), tick: word(1) },
            event_time: word(2) as i64,
            valid_until: word(3) as i64,
            refreshed_at: word(4) as i64,
        })
    }

    fn write(&self, row: &mut [u8]) {
        row[0] = FORMAT;
        row[1..5].copy_from_slice(&self.schema.to_le_bytes());
        let words = [
            self.stamp.generation,
            self.stamp.tick,
            self.event_time as u64,
            self.valid_until as u64,
            self.refreshed_at as u64,
        ];
        for (i, word) in words.into_iter().enumerate() {
            row[5 + 8 * i..13 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Packed rows, one after the other.
#[derive(Clone, Debug, Default)]
pub struct PackedRows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl PackedRows {
    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// Packs columns (of types that [`ColumnType`] names) into rows; `header` gives each row's header.
///
/// # Errors
/// When a column cannot be cast to its type.
pub fn pack(
    types: &[ColumnType],
    columns: &[ArrayRef],
    rows: usize,
    header: impl Fn(usize) -> Header,
) -> Result<PackedRows, ArrowError> {
    let columns: Vec<ArrayRef> = types
        .iter()
        .zip(columns)
        .map(|(to, column)| {
            let to = to.data_type();
            if *column.data_type() == to { Ok(column.clone()) } else { cast(column, &to) }
        })
        .collect::<Result<_, _>>()?;
    let bits = columns.len().div_ceil(8);
    let mut sizes = vec![HEADER_BYTES + bits; rows];
    for (column, column_type) in columns.iter().zip(types) {
        add_sizes(column, *column_type, &mut sizes);
    }
    let mut end = 0;
    let ends: Vec<usize> = sizes
        .iter()
        .map(|size| {
            end += size;
            end
        })
        .collect();
    let mut packer = Packer { bytes: vec![0; end], starts: Vec::with_capacity(rows), at: Vec::with_capacity(rows) };
    for (row, size) in sizes.iter().enumerate() {
        let start = ends[row] - size;
        header(row).write(&mut packer.bytes[start..start + HEADER_BYTES]);
        packer.starts.push(start);
        packer.at.push(start + HEADER_BYTES + bits);
    }
    for (i, (column, column_type)) in columns.iter().zip(types).enumerate() {
        packer.column(i, column, *column_type);
    }
    Ok(PackedRows { bytes: packer.bytes, ends })
}

/// Calls `$body` with the Arrow primitive type of a fixed-width column type, or `$other` for the rest.
macro_rules! by_width {
    ($column_type:expr, $p:ident => $body:expr, $other:expr) => {
        match $column_type {
            ColumnType::Int8 => {
                type $p = Int8Type;
                $body
            }
            ColumnType::Int16 => {
                type $p = Int16Type;
                $body
            }
            ColumnType::Int32 => {
                type $p = Int32Type;
                $body
            }
            ColumnType::Int64 => {
                type $p = Int64Type;
                $body
            }
            ColumnType::UInt8 => {
                type $p = UInt8Type;
                $body
            }
            ColumnType::UInt16 => {
                type $p = UInt16Type;
                $body
            }
            ColumnType::UInt32 => {
                type $p = UInt32Type;
                $body
            }
            ColumnType::UInt64 => {
                type $p = UInt64Type;
                $body
            }
            ColumnType::Float32 => {
                type $p = Float32Type;
                $body
            }
            ColumnType::Float64 => {
                type $p = Float64Type;
                $body
            }
            ColumnType::Date => {
                type $p = Date32Type;
                $body
            }
            ColumnType::Timestamp => {
                type $p = TimestampMicrosecondType;
                $body
            }
            ColumnType::Boolean | ColumnType::Text | ColumnType::Bytes => $other,
        }
    };
}

fn add_sizes(column: &ArrayRef, column_type: ColumnType, sizes: &mut [usize]) {
    let width = by_width!(column_type, P => size_of::<<P as ArrowPrimitiveType>::Native>(), 0);
    match column_type {
        ColumnType::Text => {
            for (size, value) in sizes.iter_mut().zip(column.as_string::<i32>()) {
                *size += value.map_or(0, |value| 4 + value.len());
            }
        }
        ColumnType::Bytes => {
            for (size, value) in sizes.iter_mut().zip(column.as_binary::<i32>()) {
                *size += value.map_or(0, |value| 4 + value.len());
            }
        }
        _ => {
            let width = width.max(1);
            for (row, size) in sizes.iter_mut().enumerate() {
                *size += if column.is_valid(row) { width } else { 0 };
            }
        }
    }
}

struct Packer {
    bytes: Vec<u8>,
    /// Where each row begins.
    starts: Vec<usize>,
    /// Where each row's next value goes.
    at: Vec<usize>,
}

impl Packer {
    fn column(&mut self, i: usize, column: &ArrayRef, column_type: ColumnType) {
        by_width!(column_type, P => self.fixed::<P>(i, column.as_primitive()), match column_type {
            ColumnType::Boolean => {
                for (row, value) in column.as_boolean().iter().enumerate() {
                    if let Some(value) = value {
                        self.put(i, row, &[&[u8::from(value)]]);
                    }
                }
            }
            ColumnType::Text => {
                for (row, value) in column.as_string::<i32>().iter().enumerate() {
                    if let Some(value) = value {
                        self.put(i, row, &[&(value.len() as u32).to_le_bytes(), value.as_bytes()]);
                    }
                }
            }
            _ => {
                for (row, value) in column.as_binary::<i32>().iter().enumerate() {
                    if let Some(value) = value {
                        self.put(i, row, &[&(value.len() as u32).to_le_bytes(), value]);
                    }
                }
            }
        })
    }

    fn fixed<P: ArrowPrimitiveType>(&mut self, i: usize, column: &PrimitiveArray<P>) {
        // The targets are little-endian machines, where a native value's bytes are its packed bytes.
        const { assert!(cfg!(target_endian = "little")) };
        for (row, value) in column.values().iter().enumerate() {
            if column.is_valid(row) {
                self.put(i, row, &[value.to_byte_slice()]);
            }
        }
    }

    #[inline]
    fn put(&mut self, i: usize, row: usize, value: &[&[u8]]) {
        self.bytes[self.starts[row] + HEADER_BYTES + i / 8] |= 1 << (i % 8);
        for piece in value {
            let at = self.at[row];
            self.bytes[at..at + piece.len()].copy_from_slice(piece);
            self.at[row] = at + piece.len();
        }
    }
}

/// Reads packed rows back into columns; an absent row is a row of nulls. All rows must follow the schema of `types`.
///
/// # Errors
/// What does not fit, when the bytes are not a row of these types.
pub fn unpack(types: &[ColumnType], rows: &[Option<&[u8]>]) -> Result<Vec<ArrayRef>, String> {
    let mut cursors = rows
        .iter()
        .map(|row| row.map(|row| Cursor::new(row, types.len())).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    let columns = types
        .iter()
        .enumerate()
        .map(|(i, column_type)| unpack_column(i, *column_type, &mut cursors))
        .collect::<Result<Vec<_>, _>>()?;
    match cursors.iter().flatten().all(|cursor| cursor.rest.is_empty()) {
        true => Ok(columns),
        false => Err("a row is longer than its columns".into()),
    }
}

/// Calls `f` with the bytes of each column's value in a packed row, in the order of `types`; `None` for a null. Numbers and
/// truth values are in their own width, little-endian; text and bytes without their length.
///
/// # Errors
/// What does not fit, when the bytes are not a row of these types.
pub fn walk<'a>(types: &[ColumnType], row: &'a [u8], mut f: impl FnMut(usize, Option<&'a [u8]>)) -> Result<(), String> {
    let mut cursor = Cursor::new(row, types.len())?;
    for (i, column_type) in types.iter().enumerate() {
        let value = match column_type {
            ColumnType::Text | ColumnType::Bytes => cursor.take_counted(i)?,
            other => cursor.take(i, by_width!(other, P => size_of::<<P as ArrowPrimitiveType>::Native>(), 1))?,
        };
        f(i, value);
    }
    if cursor.rest.is_empty() { Ok(()) } else { Err("a row is longer than its columns".into()) }
}

struct Cursor<'a> {
    present: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn new(row: &'a [u8], columns: usize) -> Result<Self, String> {
        Header::read(row).ok_or("a row has an unknown format")?;
        let mut rest = &row[HEADER_BYTES..];
        let present = rest.split_off(..columns.div_ceil(8)).ok_or("a row ends within its null bits")?;
        Ok(Cursor { present, rest })
    }

    /// The next `bytes` bytes, if column `i` is present.
    fn take(&mut self, i: usize, bytes: usize) -> Result<Option<&'a [u8]>, String> {
        if self.present[i / 8] >> (i % 8) & 1 == 0 {
            return Ok(None);
        }
        self.rest.split_off(..bytes).map(Some).ok_or_else(|| format!("a row ends within column {i}"))
    }

    fn take_counted(&mut self, i: usize) -> Result<Option<&'a [u8]>, String> {
        let Some(length) = self.take(i, 4)? else {
            return Ok(None);
        };
        self.take(i, u32::from_le_bytes(length.try_into().expect("four bytes")) as usize)
    }
}

fn unpack_column(i: usize, column_type: ColumnType, rows: &mut [Option<Cursor<'_>>]) -> Result<ArrayRef, String> {
    by_width!(column_type, P => unpack_fixed::<P>(i, column_type, rows), match column_type {
        ColumnType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(rows.len());
            for row in rows {
                builder.append_option(row.as_mut().map_or(Ok(None), |row| row.take(i, 1))?.map(|value| value[0] != 0));
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnType::Text => {
            let mut builder = StringBuilder::new();
            for row in rows {
                let value = row.as_mut().map_or(Ok(None), |row| row.take_counted(i))?;
                let value = value.map(std::str::from_utf8).transpose().map_err(|e| format!("column {i}: {e}"))?;
                builder.append_option(value);
            }
            Ok(Arc::new(builder.finish()))
        }
        _ => {
            let mut builder = BinaryBuilder::new();
            for row in rows {
                builder.append_option(row.as_mut().map_or(Ok(None), |row| row.take_counted(i))?);
            }
            Ok(Arc::new(builder.finish()))
        }
    })
}

fn unpack_fixed<P: ArrowPrimitiveType>(
    i: usize,
    column_type: ColumnType,
    rows: &mut [Option<Cursor<'_>>],
) -> Result<ArrayRef, String> {
    let width = size_of::<P::Native>();
    let mut values = MutableBuffer::from_len_zeroed(rows.len() * width);
    let mut present = NullBufferBuilder::new(rows.len());
    for (row, slot) in rows.iter_mut().zip(values.as_slice_mut().chunks_exact_mut(width)) {
        let value = row.as_mut().map_or(Ok(None), |row| row.take(i, width))?;
        present.append(value.is_some());
        if let Some(value) = value {
            slot.copy_from_slice(value);
        }
    }
    let values = ScalarBuffer::<P::Native>::new(values.into(), 0, rows.len());
    Ok(Arc::new(PrimitiveArray::<P>::new(values, present.finish()).with_data_type(column_type.data_type())))
}

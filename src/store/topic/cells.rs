//! The columns of a batch by type: the types that tables hold.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType,
};

use super::json;

/// A column.
pub(super) enum Cell<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<TimestampMicrosecondType>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, usize),
}

impl<'a> Cell<'a> {
    pub fn new(column: &'a ArrayRef) -> Result<Self, String> {
        Ok(match column.data_type() {
            DataType::Boolean => Cell::Boolean(column.as_boolean()),
            DataType::Int8 => Cell::Int8(column.as_primitive()),
            DataType::Int16 => Cell::Int16(column.as_primitive()),
            DataType::Int32 => Cell::Int32(column.as_primitive()),
            DataType::Int64 => Cell::Int64(column.as_primitive()),
            DataType::Float32 => Cell::Float32(column.as_primitive()),
            DataType::Float64 => Cell::Float64(column.as_primitive()),
            DataType::Utf8 => Cell::Text(column.as_string()),
            DataType::Binary => Cell::Bytes(column.as_binary()),
            DataType::Date32 => Cell::Date(column.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Cell::Time(column.as_primitive()),
            DataType::Decimal128(_, scale) if *scale >= 0 => {
                Cell::Decimal(column.as_primitive(), usize::from(scale.unsigned_abs()))
            }
            other => return Err(format!("a column of type {other} has no form in messages")),
        })
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Cell::Boolean(a) => a.is_null(row),
            Cell::Int8(a) => a.is_null(row),
            Cell::Int16(a) => a.is_null(row),
            Cell::Int32(a) => a.is_null(row),
            Cell::Int64(a) => a.is_null(row),
            Cell::Float32(a) => a.is_null(row),
            Cell::Float64(a) => a.is_null(row),
            Cell::Text(a) => a.is_null(row),
            Cell::Bytes(a) => a.is_null(row),
            Cell::Date(a) => a.is_null(row),
            Cell::Time(a) => a.is_null(row),
            Cell::Decimal(a, _) => a.is_null(row),
        }
    }

    /// Text and bytes as they are, all else as JSON without quotes; nothing for null.
    pub fn write_raw(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            _ if self.is_null(row) => {}
            Cell::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
            Cell::Bytes(a) => out.extend_from_slice(a.value(row)),
            _ => {
                let start = out.len();
                json::write_cell(self, row, out);
                if out.get(start) == Some(&b'"') {
                    out.remove(start);
                    out.pop();
                }
            }
        }
    }
}

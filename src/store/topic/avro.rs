//! Rows as Avro datums (Avro 1.11, "Binary Encoding"), and their schema.

use arrow::datatypes::{DataType, Schema};
use serde_json::{Value, json};

use super::cells::Cell;

/// The writer's schema of rows with the columns of `schema`: a record `name` in `namespace`. Characters that Avro's names do
/// not have become `_`.
///
/// # Errors
/// A sentence, when two columns would have one name, or a column's type is none of a table's.
pub fn avro_schema(namespace: &str, name: &str, schema: &Schema) -> Result<String, String> {
    let mut fields: Vec<Value> = Vec::new();
    for field in schema.fields() {
        let name = avro_name(field.name());
        if fields.iter().any(|f| f["name"] == name) {
            return Err(format!("two columns would be named `{name}` in Avro; rename one of them"));
        }
        let data_type = avro_type(field.data_type())
            .ok_or_else(|| format!("column `{}` of type {} has no form in Avro", field.name(), field.data_type()))?;
        fields.push(match field.is_nullable() {
            true => json!({"name": name, "type": ["null", data_type], "default": null}),
            false => json!({"name": name, "type": data_type}),
        });
    }
    let namespace: Vec<String> = namespace.split('.').map(avro_name).collect();
    Ok(json!({"type": "record", "name": avro_name(name), "namespace": namespace.join("."), "fields": fields})
        .to_string())
}

fn avro_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() { format!("_{name}") } else { name }
}

fn avro_type(data_type: &DataType) -> Option<Value> {
    Some(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("bytes"),
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Timestamp(_, _) => json!({"type": "long", "logicalType": "timestamp-micros"}),
        DataType::Decimal128(precision, scale) => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        _ => return None,
    })
}

/// Writes a row: each field that may be null as a branch of its union and, unless null, its value.
pub(super) fn write_row(cells: &[Cell<'_>], nullable: &[bool], row: usize, out: &mut Vec<u8>) {
    for (cell, nullable) in cells.iter().zip(nullable) {
        if *nullable {
            if cell.is_null(row) {
                out.push(0);
                continue;
            }
            out.push(2);
        }
        match cell {
            Cell::Boolean(a) => out.push(u8::from(a.value(row))),
            Cell::Int8(a) => long(i64::from(a.value(row)), out),
            Cell::Int16(a) => long(i64::from(a.value(row)), out),
            Cell::Int32(a) => long(i64::from(a.value(row)), out),
            Cell::Int64(a) => long(a.value(row), out),
            Cell::Float32(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Cell::Float64(a) => out.extend_from_slice(&a.value(row).to_le_bytes()),
            Cell::Text(a) => bytes(a.value(row).as_bytes(), out),
            Cell::Bytes(a) => bytes(a.value(row), out),
            Cell::Date(a) => long(i64::from(a.value(row)), out),
            Cell::Time(a) => long(a.value(row), out),
            Cell::Decimal(a, _) => decimal(a.value(row), out),
        }
    }
}

/// Zigzag, then seven bits a byte, the lowest first.
fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// Two's complement, big-endian, as short as it goes.
fn decimal(value: i128, out: &mut Vec<u8>) {
    let all = value.to_be_bytes();
    let filler = if value < 0 { 0xff } else { 0 };
    let mut start = 0;
    while start < all.len() - 1 && all[start] == filler && (all[start + 1] ^ filler) & 0x80 == 0 {
        start += 1;
    }
    bytes(&all[start..], out);
}

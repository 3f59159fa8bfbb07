//! Event schemas: Avro `.avsc` records of primitive fields, as Arrow schemas.
//!
//! A field is nullable when its type is a union with `null`. What Avro says beyond Arrow's types goes into the fields'
//! metadata: the unit of integers that stand for times, the default of an absent field, the symbols of an enumeration.
//! Doc strings and aliases are ignored, and so are logical types that we do not know, as Avro's specification (1.12, "Logical
//! Types") asks.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use super::decode::normalise::{DEFAULT_KEY, SYMBOLS_KEY, UNIT_KEY};
use crate::plan::expr::time_type;

/// Reads an `.avsc` file.
///
/// # Errors
/// Every fault of the file, one sentence per line.
pub fn read_avsc(path: &Path) -> Result<SchemaRef, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    parse_avsc(&text).map_err(|faults| {
        let faults = faults.into_iter().map(|fault| format!("{}: {fault}", path.display()));
        faults.collect::<Vec<_>>().join("\n")
    })
}

/// Reads the text of an `.avsc` file.
///
/// # Errors
/// Every fault.
pub fn parse_avsc(text: &str) -> Result<SchemaRef, Vec<String>> {
    let schema: Value = serde_json::from_str(text).map_err(|e| vec![format!("not JSON: {e}")])?;
    if schema.get("type").and_then(Value::as_str) != Some("record") {
        return Err(vec![
            "an event schema is a record: write {\"type\": \"record\", \"name\": …, \"fields\": […]}".into(),
        ]);
    }
    let Some(fields) = schema.get("fields").and_then(Value::as_array).filter(|fields| !fields.is_empty()) else {
        return Err(vec!["the record has no `fields`".into()]);
    };
    let (mut made, mut faults): (Vec<Field>, Vec<String>) = (Vec::new(), Vec::new());
    for (i, json) in fields.iter().enumerate() {
        match field(json) {
            Ok(field) if made.iter().any(|f| f.name() == field.name()) => {
                faults.push(format!("field `{}` is there twice", field.name()));
            }
            Ok(field) => made.push(field),
            Err(what) => {
                let name = json.get("name").and_then(Value::as_str);
                faults
                    .push(name.map_or_else(|| format!("field {}: {what}", i + 1), |n| format!("field `{n}`: {what}")));
            }
        }
    }
    if faults.is_empty() { Ok(Arc::new(Schema::new(made))) } else { Err(faults) }
}

/// A type with what goes into the field's metadata.
struct Typed {
    data_type: DataType,
    metadata: Vec<(&'static str, String)>,
}

fn field(json: &Value) -> Result<Field, String> {
    let name = json.get("name").and_then(Value::as_str).ok_or("it has no `name`")?;
    let given = json.get("type").ok_or("it has no `type`")?;
    let (nullable, given) = match given {
        Value::Array(union) => {
            let mut others = union.iter().filter(|t| *t != "null");
            let (Some(other), None) = (others.next(), others.next()) else {
                return Err("a union is of `null` and one other type".into());
            };
            (others.count() + 1 < union.len(), other)
        }
        Value::String(null) if null == "null" => return Err("its type is `null`, so it holds nothing".into()),
        given => (false, given),
    };
    let Typed { data_type, metadata } = typed(given)?;
    let mut metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    match json.get("default") {
        None | Some(Value::Null) => {}
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
            metadata.insert(DEFAULT_KEY.into(), value.to_string());
        }
        Some(other) => return Err(format!("its default {other} is not a value of its type")),
    }
    Ok(Field::new(name, data_type, nullable).with_metadata(metadata))
}

fn typed(given: &Value) -> Result<Typed, String> {
    let plain = |data_type| Ok(Typed { data_type, metadata: Vec::new() });
    let time = |unit: &str| Ok(Typed { data_type: time_type(), metadata: vec![(UNIT_KEY, unit.to_owned())] });
    let name = match given {
        Value::String(name) => name,
        // {"type": {"type": "long", …}} nests.
        Value::Object(object) => match object.get("type") {
            Some(Value::String(name)) => name,
            Some(inner @ Value::Object(_)) => return typed(inner),
            _ => return Err(format!("{given} is not a type")),
        },
        _ => return Err(format!("{given} is not a type")),
    };
    let logical = given.get("logicalType").and_then(Value::as_str);
    match (name.as_str(), logical) {
        ("bytes" | "fixed", Some("decimal")) => {
            Err("decimals are not built yet; write the amount as a `double`, or as a `long` in the smallest unit"
                .into())
        }
        ("long", Some("timestamp-millis" | "local-timestamp-millis")) => time("ms"),
        ("long", Some("timestamp-micros" | "local-timestamp-micros")) => time("us"),
        ("long", Some("timestamp-nanos" | "local-timestamp-nanos")) => time("ns"),
        ("int", Some("date")) => plain(DataType::Date32),
        ("boolean", _) => plain(DataType::Boolean),
        ("int", _) => plain(DataType::Int32),
        ("long", _) => plain(DataType::Int64),
        ("float", _) => plain(DataType::Float32),
        ("double", _) => plain(DataType::Float64),
        ("string", _) => plain(DataType::Utf8),
        ("enum", _) => match given.get("symbols") {
            Some(Value::Array(symbols)) if symbols.iter().all(Value::is_string) && !symbols.is_empty() => {
                let symbols = (SYMBOLS_KEY, given["symbols"].to_string());
                Ok(Typed { data_type: DataType::Utf8, metadata: vec![symbols] })
            }
            _ => Err("the enum has no `symbols`".into()),
        },
        ("bytes" | "fixed" | "array" | "map" | "record", _) => Err(format!(
            "fields of type `{name}` are not built yet; an event's fields are boolean, int, long, float, double, string or \
             enum, with the logical types timestamp-millis, timestamp-micros, timestamp-nanos and date"
        )),
        _ => {
            let known = ["boolean", "int", "long", "float", "double", "string", "enum"];
            let near = crate::plan::nearest(name, known.into_iter());
            Err(format!("`{name}` is not a type; did you mean `{}`?", near.unwrap_or("string")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_get_arrow_types_and_what_avro_says_beyond_them() {
        let schema = parse_avsc(
            r#"{"type": "record", "name": "tx", "namespace": "cards", "doc": "…", "fields": [
                {"name": "id", "type": "long"},
                {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                {"name": "seen", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}], "default": null},
                {"name": "amount", "type": ["double", "null"]},
                {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                {"name": "currency", "type": {"type": "enum", "name": "c", "symbols": ["EUR", "USD"]}, "default": "EUR"},
                {"name": "card", "type": {"type": "string", "logicalType": "uuid"}},
                {"name": "online", "type": "boolean", "default": false},
                {"name": "n", "type": "int"}, {"name": "f", "type": "float"}
            ]}"#,
        )
        .unwrap();
        let types: Vec<_> = schema.fields().iter().map(|f| (f.data_type().clone(), f.is_nullable())).collect();
        assert_eq!(
            types,
            [
                (DataType::Int64, false),
                (time_type(), false),
                (time_type(), true),
                (DataType::Float64, true),
                (DataType::Date32, false),
                (DataType::Utf8, false),
                (DataType::Utf8, false),
                (DataType::Boolean, false),
                (DataType::Int32, false),
                (DataType::Float32, false),
            ]
        );
        assert_eq!(schema.field(1).metadata()[UNIT_KEY], "ms");
        assert_eq!(schema.field(2).metadata()[UNIT_KEY], "us");
        assert_eq!(schema.field(5).metadata()[SYMBOLS_KEY], r#"["EUR","USD"]"#);
        assert_eq!(schema.field(5).metadata()[DEFAULT_KEY], r#""EUR""#);
        assert_eq!(schema.field(7).metadata()[DEFAULT_KEY], "false");
    }

    #[test]
    fn every_fault_is_told() {
        let faults = parse_avsc(
            r#"{"type": "record", "name": "tx", "fields": [
                {"name": "a", "type": "lnog"},
                {"name": "b", "type": ["null", "int", "string"]},
                {"name": "c", "type": {"type": "bytes", "logicalType": "decimal"}},
                {"name": "d", "type": {"type": "array", "items": "int"}},
                {"type": "int"},
                {"name": "e"}, {"name": "f", "type": "int"}, {"name": "f", "type": "int"},
                {"name": "g", "type": "null"}, {"name": "h", "type": "int", "default": []}, {"name": "i", "type": 5}
            ]}"#,
        )
        .unwrap_err();
        let starts = [
            "field `a`: `lnog` is not a type; did you mean `long`?",
            "field `b`: a union",
            "field `c`: decimals",
            "field `d`: fields of type `array`",
            "field 5: it has no `name`",
            "field `e`: it has no `type`",
            "field `f` is there twice",
            "field `g`: its type is `null`",
            "field `h`: its default",
            "field `i`: 5 is not",
        ];
        assert_eq!(faults.len(), starts.len(), "{faults:#?}");
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault}");
        }
        for text in ["", "[]", r#"{"type":"enum"}"#, r#"{"type":"record","fields":[]}"#] {
            assert_eq!(parse_avsc(text).unwrap_err().len(), 1);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        assert!(read_avsc(Path::new("/nowhere/x.avsc")).unwrap_err().starts_with("cannot read /nowhere/x.avsc"));
    }
}

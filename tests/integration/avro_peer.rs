//! Avro messages hold for us what they hold for fastavro, over schemas that differ as schemas come to differ over time.

use std::process::Command;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use serde_json::{Value, json};
use tidemill::ingest::{message_decoder, parse_avsc};
use tidemill::plan::model::{AvroFormat, AvroWriter, MessageFormat};

use super::support::{full, python, root};

#[test]
fn fastavro_reads_the_same() {
    let Some(python) = python("Avro messages and resolution of schemas beside fastavro") else { return };
    let (cases, seed) = if full() { ("20000", "2") } else { ("2000", "1") };
    println!("cases {cases}, seed {seed}");
    let out = Command::new(python).arg(root().join("tests/python/avro_peer.py")).args([cases, seed]).output();
    let out = out.expect("python starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (mut rows, mut refused) = (0, 0);
    for line in String::from_utf8(out.stdout).expect("text").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let (declared, writer) = (case["declared"].to_string(), case["writer"].to_string());
        let payloads: Vec<Vec<u8>> = list(&case["payloads"]).iter().map(|hex| bytes(hex.as_str().unwrap())).collect();
        let schema = parse_avsc(&declared).unwrap_or_else(|faults| panic!("{faults:?}: {declared}"));
        let format =
            AvroFormat { declared: declared.as_str().into(), writer: AvroWriter::Schema(writer.as_str().into()) };
        let mut found: Vec<Value> = vec![Value::Null; payloads.len()];
        // Schemas that never resolve refuse every message.
        if let Ok(mut decoder) = message_decoder("peer", &MessageFormat::Avro(format), &schema) {
            let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            let messages = decoder.decode(&payloads).expect("no registry is asked");
            for (row, index) in messages.row_of.iter().enumerate() {
                found[*index as usize] = messages.rows.columns().iter().map(|column| shown(column, row)).collect();
            }
        }
        for (index, (found, expected)) in found.iter().zip(list(&case["values"])).enumerate() {
            assert_eq!(found, expected, "message {index}\ndeclared {declared}\nwriter {writer}");
            if expected.is_null() { refused += 1 } else { rows += 1 }
        }
    }
    println!("{rows} messages agree, {refused} are refused by both");
    assert!(rows > 5_000 && refused > 500, "{rows} rows, {refused} refused: the cases test too little");
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal")).collect()
}

fn shown(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let real = |value: f64| json!(format!("{:016x}", value.to_bits()));
    match column.data_type() {
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Date32 => json!(column.as_primitive::<Date32Type>().value(row)),
        DataType::Float32 => real(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Timestamp(..) => json!(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        other => panic!("no event has {other}"),
    }
}

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType,
};
use proptest::prelude::*;

use crate::ingest::tests::kit::http;
use crate::ingest::{IngestError, MessageDecoder, Messages, message_decoder, parse_avsc};
use crate::plan::model::{AvroFormat, AvroWriter, MessageFormat, RegistryPlan};

/// Avro's encoding, as plainly as the specification writes it down.
#[derive(Clone, Default)]
struct Out(Vec<u8>);

impl Out {
    fn long(mut self, value: i64) -> Out {
        let mut bits = ((value << 1) ^ (value >> 63)) as u64;
        while bits >= 0x80 {
            self.0.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        self.0.push(bits as u8);
        self
    }

    fn text(mut self, text: impl AsRef<[u8]>) -> Out {
        self = self.long(text.as_ref().len() as i64);
        self.raw(text)
    }

    fn double(self, value: f64) -> Out {
        self.raw(value.to_le_bytes())
    }

    fn float(self, value: f32) -> Out {
        self.raw(value.to_le_bytes())
    }

    fn raw(mut self, bytes: impl AsRef<[u8]>) -> Out {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }
}

fn out() -> Out {
    Out::default()
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"tx","fields":[{fields}]}}"#)
}

fn decoder(declared: &str, writer: &str) -> Result<Box<dyn MessageDecoder>, IngestError> {
    let schema = parse_avsc(declared).unwrap();
    let format = AvroFormat { declared: declared.into(), writer: AvroWriter::Schema(writer.into()) };
    message_decoder("tx", &MessageFormat::Avro(format), &schema)
}

fn decode(declared: &str, writer: &str, payloads: &[Vec<u8>]) -> Messages {
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    decoder(declared, writer).unwrap().decode(&payloads).unwrap()
}

fn reasons(found: &Messages) -> Vec<(usize, &'static str, &str)> {
    found.refused.iter().map(|r| (r.index, r.kind.as_str(), r.reason.as_str())).collect()
}

fn text(column: &ArrayRef, row: usize) -> String {
    let format = arrow::util::display::FormatOptions::new().with_null("null");
    arrow::util::display::ArrayFormatter::try_new(column, &format).unwrap().value(row).to_string()
}

fn row(batch: &RecordBatch, row: usize) -> Vec<String> {
    batch.columns().iter().map(|column| text(column, row)).collect()
}

const ALL: &str = r#"
    {"name":"b","type":"boolean"}, {"name":"i","type":"int"}, {"name":"l","type":"long"},
    {"name":"f","type":"float"}, {"name":"d","type":"double"}, {"name":"s","type":"string"},
    {"name":"e","type":{"type":"enum","name":"Cur","symbols":["EUR","USD"]}},
    {"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"us","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"ns","type":{"type":"long","logicalType":"timestamp-nanos"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"n","type":["null","long"]}, {"name":"m","type":["string","null"]}"#;

fn all(n: i64) -> Out {
    let o = out().raw([1]).long(-7).long(i64::MIN).float(1.5).double(-0.0).text("é").long(1);
    o.long(-1).long(5).long(-1).long(-3).long(1).long(n).long(0).text("x")
}

#[test]
fn every_type_of_an_event_schema() {
    let declared = record(ALL);
    let nulls = out().raw([0]).long(7).long(i64::MAX).float(f32::NAN).double(f64::INFINITY).text("").long(0);
    let nulls = nulls.long(i64::MAX).long(0).long(1999).long(0).long(0).long(1);
    let found = decode(&declared, &declared, &[all(9).0, nulls.0]);
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let batch = &found.rows;
    assert_eq!(
        row(batch, 0),
        [
            "true",
            "-7",
            "-9223372036854775808",
            "1.5",
            "-0.0",
            "é",
            "USD",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00.000005Z",
            "1969-12-31T23:59:59.999999Z",
            "1969-12-29",
            "9",
            "x"
        ]
    );
    assert!(batch.column(3).as_primitive::<Float32Type>().value(1).is_nan());
    assert_eq!(batch.column(7).as_primitive::<TimestampMicrosecondType>().value(1), i64::MAX, "times saturate");
    assert_eq!(batch.column(9).as_primitive::<TimestampMicrosecondType>().value(1), 1);
    assert!(batch.column(11).is_null(1) && batch.column(12).is_null(1));
    assert_eq!(found.row_of, [0, 1]);
}

#[test]
fn damaged_messages_are_refused_one_by_one() {
    let declared = record(ALL);
    let good = all(9).0;
    let mut payloads = vec![good.clone()];
    payloads.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
    payloads.push([&good[..], &[0]].concat());
    payloads.push(good.clone());
    let found = decode(&declared, &declared, &payloads);
    assert_eq!(found.row_of, [0, good.len() as u32 + 2], "{:?}", reasons(&found));
    assert_eq!(row(&found.rows, 0), row(&found.rows, 1), "nothing of the refused ones is left");
    assert!(found.refused.iter().all(|r| r.kind.as_str() == "undecodable"));
    assert_eq!(found.refused[0].reason, "not Avro: field `b` ends too early, at byte 0");
    let last = &found.refused.last().unwrap().reason;
    assert_eq!(*last, format!("not Avro: the record ends at byte {}, 1 more follow", good.len()));
}

#[test]
fn every_fault_says_what_and_where() {
    let declared = record(
        r#"{"name":"s","type":"string"},{"name":"n","type":["null","boolean"]},{"name":"i","type":"int"},
           {"name":"e","type":{"type":"enum","name":"Cur","symbols":["EUR"]}}"#,
    );
    let writer = record(
        r#"{"name":"s","type":"bytes"},{"name":"n","type":["null","boolean"]},{"name":"i","type":["null","int","string"]},
           {"name":"e","type":{"type":"enum","name":"Cur","symbols":["EUR","YEN"]}}"#,
    );
    let good = out().text("a").long(0).long(1).long(5).long(0).0;
    let (negative, huge) = (out().long(-1).0, out().long(i64::MAX).0);
    let cases = [
        (out().raw(&negative), "undecodable", "not Avro: field `s` has a negative length, at byte 1"),
        (out().raw(&huge), "undecodable", "not Avro: field `s` ends too early, at byte 10"),
        (out().raw([0xff; 12]), "undecodable", "not Avro: field `s` is a number of more than 64 bits, at byte 0"),
        (
            out().text(b"\xff").long(0).long(1).long(5).long(0),
            "undecodable",
            "not Avro: field `s` is not UTF-8, at byte 2",
        ),
        (
            out().text("a").long(2),
            "undecodable",
            "not Avro: field `n` is of branch 2, which its union does not have, at byte 3",
        ),
        (
            out().text("a").long(-1),
            "undecodable",
            "not Avro: field `n` is of branch -1, which its union does not have, at byte 3",
        ),
        (
            out().text("a").long(1).raw([2]),
            "undecodable",
            "not Avro: field `n` is 2, where a boolean is 0 or 1, at byte 4",
        ),
        (out().text("a").long(0).long(0), "missing_field", "field `i` is null, the schema requires a value"),
        (
            out().text("a").long(0).long(2).text("5"),
            "wrong_type",
            "field `i` is of a type that does not become the declared one",
        ),
        (
            out().text("a").long(0).long(1).long(1 << 31),
            "undecodable",
            "not Avro: field `i` is 2147483648, which is no int, at byte 9",
        ),
        (
            out().text("a").long(0).long(1).long(5).long(1),
            "wrong_type",
            "field `e` is \"YEN\", expected one of the schema's symbols",
        ),
        (
            out().text("a").long(0).long(1).long(5).long(2),
            "undecodable",
            "not Avro: field `e` is symbol 2, which its enum does not have, at byte 6",
        ),
    ];
    let payloads: Vec<Vec<u8>> = cases.iter().flat_map(|(bad, ..)| [good.clone(), bad.0.clone()]).collect();
    let found = decode(&declared, &writer, &payloads);
    assert_eq!(found.rows.num_rows(), cases.len(), "neighbours are rows");
    let expected: Vec<_> = cases.iter().zip(0..).map(|((_, kind, reason), i)| (2 * i + 1, *kind, *reason)).collect();
    assert_eq!(reasons(&found), expected);
}

#[test]
fn schemas_resolve_by_the_rules() {
    let declared = record(
        r#"{"name":"d","type":"double"}, {"name":"renamed","aliases":["old"],"type":"long"},
           {"name":"added","type":"string","default":"x"}, {"name":"maybe","type":["null","int"],"default":null},
           {"name":"f","type":"float"}, {"name":"e","type":{"type":"enum","name":"New","aliases":["Old"],
           "symbols":["A","OTHER"],"default":"OTHER"}}, {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},
           {"name":"s","type":["null","string"]}, {"name":"since","type":{"type":"long","logicalType":"timestamp-millis"},"default":7}"#,
    );
    let writer = record(
        r#"{"name":"gone","type":{"type":"array","items":["null",{"type":"map","values":{"type":"fixed","name":"F","size":2}}]}},
           {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}, {"name":"d","type":"long"},
           {"name":"old","type":["int","long"]}, {"name":"f","type":"long"},
           {"name":"e","type":{"type":"enum","name":"ns.Old","symbols":["B","A"]}}, {"name":"s","type":"bytes"},
           {"name":"self","type":["null","tx"]}"#,
    );
    let map = |o: Out| o.long(1).long(1).text("k").raw([1, 2]).long(0);
    // A block of two items, a block with its size in front, the end.
    let gone = map(out().long(2).long(0)).long(-1).long(1).long(0).long(0);
    let message = |e: i64| gone.clone().long(5).long(1 << 53).long(0).long(-3).long((1 << 24) + 1).long(e).text("t");
    let found = decode(&declared, &writer, &[message(1).long(0).0, message(0).long(0).0, message(0).long(1).0]);
    let whole = message(0).long(1).0.len();
    let reason = format!("not Avro: field `self` ends too early, at byte {whole}");
    assert_eq!(reasons(&found), [(2, "undecodable", reason.as_str())]);
    let expected = [
        "9007199254740992.0",
        "-3",
        "x",
        "null",
        "16777216.0",
        "A",
        "1970-01-01T00:00:00.005Z",
        "t",
        "1970-01-01T00:00:00.007Z",
    ];
    assert_eq!(row(&found.rows, 0), expected);
    assert_eq!(row(&found.rows, 1)[5], "OTHER");
}

#[test]
fn schemas_that_do_not_resolve_are_told() {
    let date = r#"{"name":"a","type":{"type":"int","logicalType":"date"}}"#;
    let time = r#"{"name":"a","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
    let int = r#"{"name":"a","type":"int"}"#;
    let of = |symbol: &str| format!(r#"{{"name":"a","type":{{"type":"enum","name":"{symbol}","symbols":["A"]}}}}"#);
    for (declared, writer, what) in [
        (int, r#"{"name":"a","type":"long"}"#, "is long in messages, which does not become the declared int"),
        (int, r#"{"name":"a","type":["null","string"]}"#, "a union of null, string in messages"),
        (int, r#"{"name":"b","type":"int"}"#, "field `a` is not in messages and has no default"),
        (time, date, "is date in messages, which does not become the declared timestamp"),
        (&of("X"), &of("Y"), "the enum `Y` in messages, which does not become the declared enum `X`"),
        (r#"{"name":"a","type":"string"}"#, &of("Y"), "the enum `Y` in messages"),
        (r#"{"name":"a","type":"boolean"}"#, int, "declared boolean"),
    ] {
        let error = decoder(&record(declared), &record(writer)).err().expect(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    let other = record(int).replace("\"tx\"", "\"cards.payment\"");
    let error = decoder(&record(int), &other).err().unwrap().to_string();
    assert!(error.contains("messages are of the record `cards.payment`, not `tx`"), "{error}");
    let aliased = record(int).replace("\"fields\"", r#""aliases":["payment"],"fields""#);
    assert!(decoder(&aliased, &other).is_ok());
}

#[test]
fn what_nests_or_repeats_without_end_ends() {
    let declared = record(r#"{"name":"a","type":"int"}"#);
    let writer = record(
        r#"{"name":"a","type":"int"}, {"name":"none","type":{"type":"array","items":"null"}}, {"name":"self","type":["null","tx"]}"#,
    );
    let many = out().long(1).long(i64::MAX).long(0);
    let deep = (0..100).fold(out(), |o, _| o.long(1).long(0).long(1));
    let endless = record(r#"{"name":"a","type":"int"}, {"name":"self","type":"tx"}"#);
    let found = decode(&declared, &writer, &[many.clone().long(0).0, deep.0]);
    assert_eq!(found.row_of, [0]);
    assert!(found.refused[0].reason.contains("nests deeper than 64 levels"), "{}", found.refused[0].reason);
    let doubling: Vec<String> = (0..60)
        .map(|i| {
            let next = if i == 59 { "null".into() } else { format!("R{}", i + 1) };
            format!(r#"{{"name":"f{i}","type":{{"type":"record","name":"R{i}","fields":[{{"name":"a","type":"{next}"}},{{"name":"b","type":"{next}"}}]}}}}"#)
        })
        .rev()
        .collect();
    let doubling = record(&format!(r#"{},{{"name":"a","type":"int"}}"#, doubling.join(",")));
    assert_eq!(decode(&declared, &doubling, &[vec![2]]).row_of, [0]);
    let found = decode(&declared, &endless, &[vec![2; 1000]]);
    assert!(found.refused[0].reason.contains("nests deeper"), "{}", found.refused[0].reason);
}

#[test]
fn a_part_of_the_columns_is_read() {
    let declared = record(ALL);
    let whole = parse_avsc(&declared).unwrap();
    let part = Arc::new(whole.project(&[12, 2]).unwrap());
    let part = Arc::new(Schema::new(part.fields().iter().rev().cloned().collect::<Vec<_>>()));
    let format =
        AvroFormat { declared: declared.as_str().into(), writer: AvroWriter::Schema(declared.as_str().into()) };
    let mut decoder = message_decoder("tx", &MessageFormat::Avro(format), &part).unwrap();
    let found = decoder.decode(&[&all(1).0]).unwrap();
    assert_eq!(row(&found.rows, 0), ["-9223372036854775808", "x"]);
}

/// A column of the model: how it is declared, how it is written, what comes out.
#[derive(Clone, Debug)]
enum Value {
    Int(i32),
    Long(i64),
    Double(f64),
    Text(String),
    Day(i32),
    Maybe(Option<i64>),
}

impl Value {
    fn declared(&self, i: usize) -> String {
        let declared = match self {
            Value::Int(_) => "\"int\"",
            Value::Long(_) => "\"long\"",
            Value::Double(_) => "\"double\"",
            Value::Text(_) => "\"string\"",
            Value::Day(_) => r#"{"type":"int","logicalType":"date"}"#,
            Value::Maybe(_) => r#"["null","long"]"#,
        };
        format!(r#"{{"name":"c{i}","type":{declared}}}"#)
    }

    fn write(&self, o: Out) -> Out {
        match self {
            Value::Int(v) | Value::Day(v) => o.long((*v).into()),
            Value::Long(v) => o.long(*v),
            Value::Double(v) => o.double(*v),
            Value::Text(v) => o.text(v),
            Value::Maybe(None) => o.long(0),
            Value::Maybe(Some(v)) => o.long(1).long(*v),
        }
    }

    fn is(&self, column: &ArrayRef, row: usize) -> bool {
        match self {
            Value::Int(v) => column.as_primitive::<Int32Type>().value(row) == *v,
            Value::Long(v) => column.as_primitive::<Int64Type>().value(row) == *v,
            Value::Double(v) => column.as_primitive::<Float64Type>().value(row).to_bits() == v.to_bits(),
            Value::Text(v) => column.as_string::<i32>().value(row) == v,
            Value::Day(v) => column.as_primitive::<Date32Type>().value(row) == *v,
            Value::Maybe(None) => column.is_null(row) && *column.data_type() == DataType::Int64,
            Value::Maybe(Some(v)) => column.is_valid(row) && column.as_primitive::<Int64Type>().value(row) == *v,
        }
    }
}

fn value(kind: u8) -> BoxedStrategy<Value> {
    match kind {
        0 => any::<i32>().prop_map(Value::Int).boxed(),
        1 => (any::<i64>(), 0u32..64).prop_map(|(v, shift)| Value::Long(v >> shift)).boxed(),
        2 => any::<u64>().prop_map(|bits| Value::Double(f64::from_bits(bits))).boxed(),
        3 => "\\PC{0,12}".prop_map(Value::Text).boxed(),
        4 => any::<i32>().prop_map(Value::Day).boxed(),
        _ => any::<Option<i64>>().prop_map(Value::Maybe).boxed(),
    }
}

fn table() -> impl Strategy<Value = Vec<Vec<Value>>> {
    prop::collection::vec(0u8..6, 1..8).prop_flat_map(|kinds| {
        let row: Vec<_> = kinds.into_iter().map(value).collect();
        prop::collection::vec(row, 1..20)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(rows in table(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let fields: Vec<String> = rows[0].iter().enumerate().map(|(i, v)| v.declared(i)).collect();
        let declared = record(&fields.join(","));
        let clean: Vec<Vec<u8>> = rows.iter().map(|row| row.iter().fold(out(), |o, v| v.write(o)).0).collect();
        let found = decode(&declared, &declared, &clean);
        prop_assert!(found.refused.is_empty(), "{:?}", found.refused);
        let mut payloads = clean.clone();
        for (row, at, byte) in damage {
            let payload = row.get_mut(&mut payloads);
            if !payload.is_empty() {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
        }
        // A damaged message is a row or refused; the others are rows as they were.
        let found = decode(&declared, &declared, &payloads);
        prop_assert_eq!(found.row_of.len() + found.refused.len(), payloads.len());
        for (row, index) in found.row_of.iter().enumerate() {
            let index = *index as usize;
            if payloads[index] == clean[index] {
                for (value, column) in rows[index].iter().zip(found.rows.columns()) {
                    prop_assert!(value.is(column, row), "row {} is not {:?}", index, value);
                }
            }
        }
        prop_assert!(found.refused.iter().all(|r| payloads[r.index] != clean[r.index]));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let writer = record(
            r#"{"name":"x","type":{"type":"array","items":["null","tx",{"type":"map","values":"string"}]}},
               {"name":"a","type":["null","long","string"]}, {"name":"s","type":"string"}"#,
        );
        let declared = record(r#"{"name":"a","type":["null","long"]}, {"name":"s","type":"string"}"#);
        let found = decode(&declared, &writer, &[bytes]);
        prop_assert_eq!(found.row_of.len() + found.refused.len(), 1);
    }
}

fn framed(id: u32, record: &Out) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), &record.0].concat()
}

#[test]
fn frames_name_their_schema_and_an_unknown_one_costs_its_messages_alone() {
    let declared = record(r#"{"name":"a","type":"long"},{"name":"k","type":"string","default":"none"}"#);
    let v1 = record(r#"{"name":"a","type":"int"}"#);
    let v2 = record(r#"{"name":"k","type":"string"},{"name":"a","type":"long"}"#);
    let other = record(r#"{"name":"a","type":"string"}"#);
    let answer = |schema: &str| (200, serde_json::json!({ "schema": schema }).to_string());
    let (url, asked) = http(vec![
        answer(&v1),
        (500, String::new()),
        answer(&v2),
        (404, r#"{"error_code":40403,"message":"Schema 9 not found"}"#.into()),
        answer(&other),
        (200, r#"{"schema":"{}","schemaType":"JSON"}"#.into()),
    ]);
    let plan = RegistryPlan { url, credentials: None, timeout: Some(5_000_000), ca: None };
    let format = AvroFormat { declared: declared.as_str().into(), writer: AvroWriter::Registry(plan) };
    let schema = parse_avsc(&declared).unwrap();
    let mut decoder = message_decoder("tx", &MessageFormat::Avro(format), &schema).unwrap();
    let payloads = [
        framed(1, &out().long(5)),
        framed(2, &out().text("x").long(6)),
        framed(9, &out().long(5)),
        framed(3, &out().text("x")),
        framed(4, &out().text("x")),
        framed(1, &out().long(7)),
        vec![0, 0, 0],
        vec![1, 0, 0, 0, 1, 0],
        vec![],
        framed(1, &out().long(7).long(7)),
    ];
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    for turn in 0..2 {
        let found = decoder.decode(&payloads).unwrap();
        assert_eq!(found.row_of, [0, 1, 5]);
        assert_eq!(row(&found.rows, 0), ["5", "none"]);
        assert_eq!(row(&found.rows, 1), ["6", "x"]);
        let kinds: Vec<_> = found.refused.iter().map(|r| (r.index, r.kind.as_str())).collect();
        let undecodable = [6, 7, 8, 9].map(|i| (i, "undecodable"));
        assert_eq!(kinds, [&[2, 3, 4].map(|i| (i, "schema"))[..], &undecodable[..]].concat());
        assert_eq!(found.refused[0].reason, "unknown schema id 9");
        assert!(found.refused[1].reason.starts_with("schema id 3: field `a` is string in messages"));
        assert!(found.refused[2].reason.contains("a schema of JSON"));
        // An answer of 500 was tried again; nothing is asked twice in a minute.
        assert_eq!(asked.load(Ordering::SeqCst), 6, "turn {turn}");
    }
    // A registry that is away delays the source and loses nothing.
    let error = decoder.decode(&[payloads[0], &framed(77, &out().long(1))]).unwrap_err();
    assert!(error.retryable() && error.to_string().contains("out of reach"), "{error}");
    assert_eq!(decoder.decode(&[payloads[0]]).unwrap().rows.num_rows(), 1);
}

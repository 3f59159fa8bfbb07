use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn encoded(batch: &RecordBatch, encoding: Encoding) -> Vec<Vec<u8>> {
    let encoder = RowEncoder::new("rows", encoding);
    let rows = encoder.bind(batch).unwrap();
    let one = |row| {
        let mut out = Vec::new();
        rows.write(row, &mut out);
        out
    };
    (0..batch.num_rows()).map(one).collect()
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    encoded(batch, Encoding::Json).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

fn times(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

/// One row of every type, one of nulls, one of extremes.
fn all_types() -> RecordBatch {
    let decimal = Decimal128Array::from(vec![Some(-1_234_005), None, Some(99_999_999_999_999_999_999)]);
    batch(vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("i8", Arc::new(Int8Array::from(vec![Some(-1), None, Some(i8::MIN)]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(300), None, Some(i16::MAX)]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(-70_000), None, Some(i32::MIN)]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(63), None, Some(i64::MIN)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::NAN)]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::NEG_INFINITY)]))),
        ("text", Arc::new(StringArray::from(vec![Some("a\"\n\u{1f3b2}"), None, Some("")]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b"")]))),
        ("date", Arc::new(Date32Array::from(vec![Some(0), None, Some(-719_528)]))),
        ("time", times(vec![Some(1_767_571_200_000_001), None, Some(-1)])),
        ("dec", Arc::new(decimal.with_precision_and_scale(20, 3).unwrap())),
    ])
}

#[test]
fn json_is_exact() {
    let expected = [
        concat!(
            r#"{"b":true,"i8":-1,"i16":300,"i32":-70000,"i64":63,"f32":0.1,"f64":0.1,"text":"a\"\n🎲","bytes":"/wA=","#,
            r#""date":"1970-01-01","time":"2026-01-05T00:00:00.000001Z","dec":-1234.005}"#
        ),
        concat!(
            r#"{"b":null,"i8":null,"i16":null,"i32":null,"i64":null,"f32":null,"f64":null,"text":null,"bytes":null,"#,
            r#""date":null,"time":null,"dec":null}"#
        ),
        concat!(
            r#"{"b":false,"i8":-128,"i16":32767,"i32":-2147483648,"i64":-9223372036854775808,"f32":"NaN","#,
            r#""f64":"-Infinity","text":"","bytes":"","date":"0000-01-01","time":"1969-12-31T23:59:59.999999Z","#,
            r#""dec":99999999999999999.999}"#
        ),
    ];
    assert_eq!(texts(&all_types()), expected);
    let small = Decimal128Array::from(vec![5, -5, 0]).with_precision_and_scale(20, 3).unwrap();
    assert_eq!(texts(&batch(vec![("d", Arc::new(small))])), [r#"{"d":0.005}"#, r#"{"d":-0.005}"#, r#"{"d":0.000}"#]);
}

#[test]
fn bytes_of_every_length_are_padded() {
    let column = BinaryArray::from_vec(vec![b"", b"f", b"fo", b"foo", b"foob", b"fooba", b"foobar"]);
    let found = texts(&batch(vec![("x", Arc::new(column))]));
    // RFC 4648 §10.
    let expected = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
    assert_eq!(found, expected.map(|text| format!(r#"{{"x":"{text}"}}"#)));
}

#[test]
fn keys_are_the_text_of_a_column_or_a_list_of_several() {
    let rows = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)])) as ArrayRef),
        ("who", Arc::new(StringArray::from(vec![Some("a\"b"), None, None]))),
        ("at", times(vec![Some(0), None, Some(1)])),
        ("raw", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")]))),
    ]);
    let encoder = RowEncoder::new("rows", Encoding::Json);
    let bound = encoder.bind(&rows).unwrap();
    let key = |columns: &[usize], row| {
        let mut out = Vec::new();
        KeyEncoder::new(columns.to_vec()).write(&bound, row, &mut out).then_some(out)
    };
    assert_eq!(key(&[0], 0), Some(b"7".to_vec()));
    assert_eq!(key(&[0], 1), None);
    assert_eq!(key(&[0], 2), Some(b"-1".to_vec()));
    assert_eq!(key(&[1], 0), Some(b"a\"b".to_vec()));
    assert_eq!(key(&[2], 0), Some(b"1970-01-01T00:00:00.000000Z".to_vec()));
    assert_eq!(key(&[3], 0), Some(b"\x00\xff".to_vec()));
    assert_eq!(key(&[0, 1], 0), Some(br#"[7,"a\"b"]"#.to_vec()));
    assert_eq!(key(&[0, 1], 2), Some(b"[-1,null]".to_vec()), "one null of two is a value");
    assert_eq!(key(&[0, 1], 1), None);
    assert_eq!(key(&[], 0), None);
}

#[test]
fn original_bytes_pass_as_they_are() {
    let rows = batch(vec![("original", Arc::new(BinaryArray::from(vec![Some(&b"\xff{\x00"[..]), None])) as ArrayRef)]);
    assert_eq!(encoded(&rows, Encoding::Column("original".into())), [b"\xff{\x00".to_vec(), Vec::new()]);
    let absent = RowEncoder::new("topic t", Encoding::Column("nothing".into())).bind(&rows).err().unwrap();
    assert!(absent.to_string().contains("topic t") && absent.to_string().contains("`nothing`"), "{absent}");
}

/// What an independent reader makes of messages framed with schema id 7.
fn read_avro(schema: &str, messages: &[Vec<u8>]) -> RecordBatch {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(7), AvroSchema::new(schema.to_owned())).unwrap();
    let mut decoder =
        ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(1024).build_decoder().unwrap();
    for message in messages {
        assert_eq!(decoder.decode(message).unwrap(), message.len(), "a message is one datum");
    }
    decoder.flush().unwrap().expect("rows")
}

const FRAME: [u8; 5] = [0, 0, 0, 0, 7];

#[test]
fn avro_is_read_back() {
    let rows = all_types();
    let schema = avro_schema("tidemill.job", "predictions_fraud", rows.schema_ref()).unwrap();
    let read = read_avro(&schema, &encoded(&rows, Encoding::Avro(FRAME.to_vec())));
    assert_eq!(read.num_columns(), rows.num_columns());
    for (found, expected) in read.columns().iter().zip(rows.columns()) {
        let found = arrow::compute::cast(found, expected.data_type()).unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
}

#[test]
fn avro_schemas_have_names_that_avro_knows() {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = avro_schema("tidemill.a-b", "features_1", &Schema::new(vec![field("größe"), field("1st")])).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["namespace"], "tidemill.a_b");
    assert_eq!(schema["fields"][0], json!({"name": "gr__e", "type": ["null", "long"], "default": null}));
    assert_eq!(schema["fields"][1]["name"], "_1st");
    let twice = avro_schema("a", "b", &Schema::new(vec![field("a-b"), field("a b")])).unwrap_err();
    assert!(twice.contains("`a_b`"), "{twice}");
}

proptest! {
    #[test]
    fn numbers_and_texts_read_back_as_they_were(
        floats in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..20),
        singles in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 1..20),
        word in any::<i64>(), text in any::<String>(), decimal in any::<i128>(), time in any::<i64>(),
    ) {
        let rows = floats.len().min(singles.len());
        let decimal = decimal / 10;
        let columns = batch(vec![
            ("f64", Arc::new(Float64Array::from(floats[..rows].to_vec())) as ArrayRef),
            ("f32", Arc::new(Float32Array::from(singles[..rows].to_vec()))),
            ("i64", Arc::new(Int64Array::from(vec![word; rows]))),
            ("text", Arc::new(StringArray::from(vec![text.clone(); rows]))),
            ("time", times(vec![Some(time); rows])),
            ("dec", Arc::new(Decimal128Array::from(vec![decimal; rows]).with_precision_and_scale(38, 0).unwrap())),
        ]);
        for (row, line) in texts(&columns).iter().enumerate() {
            let value: HashMap<String, Value> = serde_json::from_str(line).unwrap();
            prop_assert_eq!(&value["text"], &json!(text));
            prop_assert_eq!(&value["i64"], &json!(word));
            for (name, expected) in [("f64", floats[row]), ("f32", f64::from(singles[row]))] {
                let found = match (&value[name], name) {
                    (Value::String(s), _) if s == "NaN" => f64::NAN,
                    (Value::String(s), _) if s == "Infinity" => f64::INFINITY,
                    (Value::String(s), _) if s == "-Infinity" => f64::NEG_INFINITY,
                    (found, "f32") => f64::from(found.to_string().parse::<f32>().unwrap()),
                    (found, _) => found.as_f64().unwrap(),
                };
                prop_assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{} {}", name, line);
            }
            let digits = format!(r#""dec":{decimal}}}"#);
            prop_assert!(line.ends_with(&digits), "{line}");
            if let Some(read) = crate::base::parse_time(value["time"].as_str().unwrap()).ok().filter(|_| time.unsigned_abs() < 9_000_000_000_000_000) {
                prop_assert_eq!(read, time);
            }
        }
        let schema = avro_schema("a", "b", columns.schema_ref()).unwrap();
        let read = read_avro(&schema, &encoded(&columns, Encoding::Avro(FRAME.to_vec())));
        let bits = |batch: &RecordBatch| -> Vec<u64> {
            batch.column(0).as_primitive::<arrow::datatypes::Float64Type>().values().iter().map(|v| v.to_bits()).collect()
        };
        prop_assert_eq!(bits(&read), bits(&columns));
        let decimals = arrow::compute::cast(read.column(5), &DataType::Decimal128(38, 0)).unwrap();
        prop_assert_eq!(decimals.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), decimal);
        prop_assert_eq!(read.column(2).as_primitive::<arrow::datatypes::Int64Type>().value(0), word);
    }
}

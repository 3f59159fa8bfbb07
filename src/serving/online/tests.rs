//! Keys that are made of JSON are those that columns are encoded to; requests are read as JSON says.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, UInt64Array};
use proptest::prelude::*;

use super::scalar::{Columns, Scalar};
use crate::ops::key::{self, KeyBuilder};
use crate::store::online::ColumnType;

/// A value as JSON, and the column of one row that holds it.
fn value() -> impl Strategy<Value = (String, ColumnType, ArrayRef)> {
    let int = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
    prop_oneof![
        any::<i64>().prop_map(move |n| (n.to_string(), ColumnType::Int64, int(n))),
        any::<i64>().prop_map(move |n| (format!("\"{n}\""), ColumnType::Int64, int(n))),
        any::<i32>().prop_map(move |n| (format!("{n}.0"), ColumnType::Int64, int(n.into()))),
        any::<i32>().prop_map(|n| (n.to_string(), ColumnType::Int32, Arc::new(Int32Array::from(vec![n])) as ArrayRef)),
        any::<u64>().prop_map(|n| (
            n.to_string(),
            ColumnType::UInt64,
            Arc::new(UInt64Array::from(vec![n])) as ArrayRef
        )),
        any::<String>().prop_map(|s| {
            let json = serde_json::to_string(&s).expect("text is JSON");
            (json, ColumnType::Text, Arc::new(StringArray::from(vec![s])) as ArrayRef)
        }),
        any::<bool>()
            .prop_map(|b| { (b.to_string(), ColumnType::Boolean, Arc::new(BooleanArray::from(vec![b])) as ArrayRef) }),
        any::<i32>().prop_map(|n| {
            let float = f64::from(n) / 4.0;
            (format!("{float:?}"), ColumnType::Float64, Arc::new(Float64Array::from(vec![float])) as ArrayRef)
        }),
    ]
}

proptest! {
    #[test]
    fn keys_of_a_request_are_those_of_columns(values in prop::collection::vec(value(), 1..4)) {
        let columns: Vec<ArrayRef> = values.iter().map(|(.., column)| Arc::clone(column)).collect();
        let expected = key::encode(&columns).expect("keys");
        let texts: Vec<&str> = values.iter().map(|(text, ..)| text.as_str()).collect();
        let json = format!("[{}]", texts.join(","));
        let scalars: Vec<Scalar<'_>> = serde_json::from_str(&json).expect("values");
        let mut keys = KeyBuilder::with_capacity(1);
        for (scalar, (_, column_type, _)) in scalars.iter().zip(&values) {
            scalar.key("k", *column_type, &mut keys).expect("a value of its type");
        }
        keys.end();
        prop_assert_eq!(keys.finish(), expected);
    }

    /// What is read of entities is what a reader of any JSON finds, and what is written is what was read.
    #[test]
    fn entities_are_read_and_written_as_they_are(columns in prop::collection::btree_map(".{0,8}", prop::collection::vec(
        prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<u64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ], 0..5), 0..4)) {
        let json = serde_json::to_string(&columns).expect("JSON");
        let read: Columns<'_> = serde_json::from_str(&json).expect("entities");
        prop_assert_eq!(read.0.len(), columns.len());
        for (name, values) in &read.0 {
            let written: Vec<serde_json::Value> = values.iter().map(|value| {
                let mut out = Vec::new();
                value.write(&mut out);
                serde_json::from_slice(&out).expect("JSON")
            }).collect();
            prop_assert_eq!(Some(&written), columns.get(name.0.as_ref()));
        }
    }
}

#[test]
fn what_is_no_value_of_a_column_is_refused() {
    let refused = |json: &str, column_type: ColumnType| {
        let scalar: Scalar<'_> = serde_json::from_str(json).expect("a value");
        scalar.key("k", column_type, &mut KeyBuilder::with_capacity(1)).expect_err(json)
    };
    for (json, column_type, words) in [
        ("2147483648", ColumnType::Int32, "a whole number from -2147483648 to 2147483647, and 2147483648 is none"),
        ("-1", ColumnType::UInt64, "from 0 to 18446744073709551615"),
        ("1.5", ColumnType::Int64, "`k` is a whole number, and 1.5 is none"),
        ("1e300", ColumnType::Int64, "a whole number"),
        ("\"1 2\"", ColumnType::Int64, "and \"1 2\" is none"),
        ("true", ColumnType::Int64, "and true is none"),
        ("1.5", ColumnType::Text, "`k` is text"),
        ("1", ColumnType::Boolean, "true or false"),
        ("\"x\"", ColumnType::Float64, "a number"),
        ("1", ColumnType::Timestamp, "a time, such as"),
        ("\"2018-04-01T01:00:00Z\"", ColumnType::Date, "a date, such as"),
        ("[1]", ColumnType::Text, "a list is none"),
        ("{\"a\": 1}", ColumnType::Int64, "an object is none"),
    ] {
        let found = refused(json, column_type);
        assert!(found.contains(words), "{json}: {found}");
    }
}

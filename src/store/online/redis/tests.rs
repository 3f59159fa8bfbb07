//! What needs no server: bytes that must be the same in every build. The rest is in `tests/integration/redis_store.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;

use super::{fingerprint, row_key};
use crate::ops::key;
use crate::store::online::value::{Header, pack};
use crate::store::online::{ColumnSchema, ColumnType, Stamp, ViewSchema};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The expected bytes were made with Python's `struct` and `xxhash` from the format's description.
#[test]
fn the_layout_is_pinned() {
    let column = |name: &str, data_type| ColumnSchema::new(name, &data_type).expect("a type that is held");
    let schema = ViewSchema {
        view: "customer".into(),
        entity: vec![column("id", DataType::Int64)],
        columns: vec![column("n", DataType::Int64), column("x", DataType::Float64), column("c", DataType::Utf8)],
        ttl: Some(1),
        job: "fraud".into(),
        job_version: 9,
    };
    assert_eq!(fingerprint(&schema), 0xa6e0_db3a, "neither ttl nor the job's name and version are part of it");

    let ids: ArrayRef = Arc::new(Int64Array::from(vec![42]));
    let keys = key::encode(&[ids]).expect("a key");
    let key = row_key("fraud", "customer", keys.get(0));
    assert_eq!(hex(&key), "66726175643a637573746f6d65723a01800000000000002a");

    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(Float64Array::from(vec![None])),
        Arc::new(StringArray::from(vec!["FR"])),
    ];
    let types = [ColumnType::Int64, ColumnType::Float64, ColumnType::Text];
    let header = Header {
        schema: fingerprint(&schema),
        stamp: Stamp { generation: 2, tick: 300 },
        event_time: 1_522_584_000_000_000,
        valid_until: 1_522_587_600_000_000,
        refreshed_at: 1_522_584_000_500_000,
    };
    let rows = pack(&types, &columns, 1, |_| header).expect("a row");
    let row = rows.iter().next().expect("one row");
    let expected = concat!(
        "01",               // format
        "3adbe0a6",         // fingerprint
        "0200000000000000", // generation
        "2c01000000000000", // tick
        "00f07536c8680500", // event time
        "0094090dc9680500", // valid until
        "20917d36c8680500", // refreshed at
        "05",               // n and c are present
        "0700000000000000", // n
        "020000004652",     // c
    );
    assert_eq!(hex(row), expected);
}

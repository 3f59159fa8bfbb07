//! Tests of the online store, its codec, its socket, and lookups.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int16Array,
    Int64Array, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use proptest::prelude::*;

use super::value::{Header, pack, unpack};
use super::*;
use crate::plan::model::Clock;
use crate::store::StoreError;
use crate::store::lookup::{Status, get_online};

const HOUR: i64 = 3_600_000_000;
const NOON: i64 = 1_522_584_000_000_000; // 2018-04-01T12:00:00Z

fn column(name: &str, data_type: &DataType) -> ColumnSchema {
    ColumnSchema::new(name, data_type).unwrap()
}

fn schema() -> ViewSchema {
    ViewSchema {
        view: "customer".into(),
        entity: vec![column("customer_id", &DataType::Int64), column("country", &DataType::Utf8)],
        columns: vec![column("nb_tx_1d", &DataType::Int64), column("avg_amount_1d", &DataType::Float64)],
        ttl: Some(48 * HOUR),
        job: "card_fraud".into(),
        job_version: 1,
    }
}

fn keys(customers: &[i64]) -> Vec<ArrayRef> {
    let country = StringArray::from(vec!["FR"; customers.len()]);
    vec![Arc::new(Int64Array::from(customers.to_vec())), Arc::new(country)]
}

/// Rows whose count is `count` and whose mean is absent for odd customers.
fn rows(customers: &[i64], count: i64) -> OnlineRows {
    let mean = Float64Array::from_iter(customers.iter().map(|c| (c % 2 == 0).then_some(*c as f64 / 4.0)));
    OnlineRows {
        keys: keys(customers),
        event_time: vec![NOON; customers.len()],
        valid_until: vec![NOON + HOUR; customers.len()],
        values: vec![Arc::new(Int64Array::from_value(count, customers.len())), Arc::new(mean)],
    }
}

fn stamp(generation: u64, tick: u64) -> Stamp {
    Stamp { generation, tick }
}

fn counts(reader: &OnlineReader, customers: &[i64]) -> Vec<Option<i64>> {
    let found = reader.read("customer", &keys(customers)).unwrap();
    found.values.column(0).as_primitive::<Int64Type>().iter().collect()
}

fn entity(customer: &str) -> Vec<(String, String)> {
    vec![("country".into(), "FR".into()), ("customer_id".into(), customer.into())]
}

#[test]
fn the_newest_row_of_an_entity_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let view = store.define(&schema()).unwrap();
    assert_eq!(store.put(&view, stamp(1, 5), &rows(&[1, 2, 3], 10)).unwrap(), 3);
    assert_eq!(store.put(&view, stamp(1, 6), &rows(&[2], 11)).unwrap(), 1);
    store.remove(&view, stamp(1, 6), &keys(&[3])).unwrap();
    assert_eq!(counts(&store.reader(), &[1, 2, 3, 4]), [Some(10), Some(11), None, None]);
    assert_eq!(store.newest(), stamp(1, 6));
    let mut twice = rows(&[8, 8], 1);
    twice.values[0] = Arc::new(Int64Array::from(vec![1, 2]));
    store.put(&view, stamp(1, 7), &twice).unwrap();
    assert_eq!(counts(&store.reader(), &[8]), [Some(2)]);

    let wrong = OnlineRows { values: vec![], ..rows(&[1], 1) };
    assert!(matches!(store.put(&view, stamp(1, 7), &wrong), Err(StoreError::Shape { .. })));
}

#[test]
fn replayed_ticks_do_not_overwrite_newer_values() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
        let view = store.define(&schema()).unwrap();
        store.put(&view, stamp(1, 5), &rows(&[1], 5)).unwrap();
        store.put(&view, stamp(1, 9), &rows(&[2], 9)).unwrap();
        store.flush().unwrap();
    }
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let view = store.define(&schema()).unwrap();
    assert_eq!(store.put(&view, stamp(1, 7), &rows(&[1, 2, 3], 7)).unwrap(), 2, "entity 2 has tick 9");
    assert_eq!(counts(&store.reader(), &[1, 2, 3]), [Some(7), Some(9), Some(7)]);
    assert_eq!(store.put(&view, stamp(1, 9), &rows(&[2], 9)).unwrap(), 1, "the same tick again changes nothing");
    assert_eq!(store.put(&view, stamp(2, 1), &rows(&[2], 1)).unwrap(), 1, "a later generation always wins");
    assert_eq!(counts(&store.reader(), &[2]), [Some(1)]);
}

#[test]
fn a_view_may_change_its_columns() {
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let first = store.define(&schema()).unwrap();
    store.put(&first, stamp(1, 1), &rows(&[1, 2], 3)).unwrap();
    let wider = ViewSchema {
        columns: vec![
            column("last_mcc", &DataType::Utf8),
            column("avg_amount_1d", &DataType::Float64),
            column("nb_tx_1d", &DataType::Float64),
        ],
        job_version: 2,
        ..schema()
    };
    let second = store.define(&wider).unwrap();
    let new = OnlineRows {
        values: vec![
            Arc::new(StringArray::from(vec!["5411"])),
            Arc::new(Float64Array::from(vec![1.5])),
            Arc::new(Float64Array::from(vec![8.0])),
        ],
        ..rows(&[7], 0)
    };
    store.put(&second, stamp(2, 1), &new).unwrap();
    let check = |store: &OnlineStore| {
        let found = store.reader().read("customer", &keys(&[2, 7, 5, 1])).unwrap();
        assert_eq!(found.schema, wider);
        let counts: Vec<_> = found.values.column(2).as_primitive::<Float64Type>().iter().collect();
        assert_eq!(counts, [Some(3.0), Some(8.0), None, Some(3.0)]);
        let last: Vec<_> = found.values.column(0).as_string::<i32>().iter().collect();
        assert_eq!(last, [None, Some("5411"), None, None]);
        assert_eq!(found.states.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    };
    check(&store);
    drop((first, second, store));
    check(&OnlineStore::open(directory.path(), Clock::Event).unwrap());
}

/// The same answers in the job's process, through its socket, and from the store of a stopped job.
#[test]
fn readers_of_running_and_stopped_jobs_agree() {
    let directory = tempfile::tempdir().unwrap();
    let fill = |path: &Path| {
        let store = OnlineStore::open(path, Clock::Event).unwrap();
        let view = store.define(&schema()).unwrap();
        store.set_now(NOON);
        let crowd: Vec<i64> = (0..500).collect();
        store.put(&view, stamp(1, 5), &rows(&crowd, 10)).unwrap();
        store.set_now(NOON + HOUR / 2);
        store.set_now(i64::MAX);
        store.flush().unwrap();
        store
    };
    let ask = |reader: &OnlineReader| {
        assert_eq!(reader.views().unwrap(), ["customer"]);
        assert!(reader.read("nonsense", &keys(&[1])).unwrap_err().to_string().contains("it has customer"));
        let crowd: Vec<i64> = (0..1000).collect();
        let all = reader.read("customer", &keys(&crowd)).unwrap();
        assert_eq!(all.states.iter().flatten().count(), 500);
        (get_online(reader, "customer", &entity("4")).unwrap(), all.values)
    };
    let store = fill(directory.path());
    let guard = store.serve().unwrap();
    let here = ask(&store.reader());
    let remote = OnlineReader::open(directory.path()).unwrap();
    assert!(remote.is_remote());
    let through = ask(&remote);
    assert_eq!(here, through);
    drop(guard);
    assert!(remote.views().is_err(), "the job hung up");
    assert!(matches!(OnlineReader::open(directory.path()), Err(StoreError::Locked { .. })));
    drop(store);
    let stopped = OnlineReader::open(directory.path()).unwrap();
    assert!(!stopped.is_remote());
    assert_eq!(ask(&stopped), here);
    assert_eq!(here.0.now, Some(NOON + HOUR / 2));
    let error = OnlineReader::open(&directory.path().join("elsewhere")).err().unwrap().to_string();
    assert!(error.contains("there is no online store"), "{error}");
}

#[test]
fn a_socket_left_by_a_killed_job_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    store.define(&schema()).unwrap();
    std::mem::forget(std::os::unix::net::UnixListener::bind(directory.path().join("reader.sock")));
    drop(store);
    std::fs::write(directory.path().join("socket"), "/nonexistent/reader.sock").unwrap();
    assert!(!OnlineReader::open(directory.path()).unwrap().is_remote());
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let _guard = store.serve().unwrap();
    assert!(OnlineReader::open(directory.path()).unwrap().is_remote());
}

#[test]
fn a_socket_that_someone_removed_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let guard = store.serve().unwrap();
    std::fs::remove_file(directory.path().join("reader.sock")).unwrap();
    drop(guard);
}

#[test]
fn sockets_of_long_paths_and_nonsense_requests() {
    use std::io::{BufRead, BufReader, Write};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d".repeat(120));
    let store = OnlineStore::open(&path, Clock::Wall).unwrap();
    store.define(&schema()).unwrap();
    let _guard = store.serve().unwrap();
    let socket = std::fs::read_to_string(path.join("socket")).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for (request, answer) in [
        ("nonsense\n", "not a request"),
        (r#"{"op":"read","view":"customer","keys":["0x"]}"#, "not hexadecimal"),
        (r#"{"op":"read","view":"customer","keys":[]}"#, "schemas"),
        (r#"{"op":"drop"}"#, "not a request"),
        (r#"{"op":"views"}"#, r#""views":["customer"]"#),
    ] {
        writeln!(stream, "{}", request.trim_end()).unwrap();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(answer), "{request}: {line}");
    }
}

#[test]
fn lookups_tell_age_and_absence() {
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let view = store.define(&schema()).unwrap();
    store.put(&view, stamp(1, 5), &rows(&[1, 2], 10)).unwrap();
    let reader = store.reader();
    let get = |customer: &str| get_online(&reader, "customer", &entity(customer)).unwrap();

    let unknown_time = get("2");
    assert_eq!((unknown_time.status, unknown_time.stale, unknown_time.now), (Status::Present, false, None));
    store.set_now(NOON + HOUR);
    let fresh = get("2");
    assert_eq!((fresh.status, fresh.stale, fresh.valid_until), (Status::Present, false, Some(NOON + HOUR)));
    assert_eq!(fresh.entity, [("customer_id".into(), "2".into()), ("country".to_string(), "FR".to_string())]);
    assert_eq!(
        serde_json::to_string(&fresh).unwrap(),
        r#"{"view":"customer","entity":{"customer_id":"2","country":"FR"},"status":"PRESENT","event_time":"2018-04-01T12:00:00Z","valid_until":"2018-04-01T13:00:00Z","now":"2018-04-01T13:00:00Z","stale":false,"features":{"nb_tx_1d":10,"avg_amount_1d":0.5},"statuses":{"nb_tx_1d":"PRESENT","avg_amount_1d":"PRESENT"}}"#
    );
    let absent = get("1");
    assert_eq!(absent.features[1].status, Status::NullValue);
    store.set_now(NOON + HOUR + 1);
    assert!(get("2").stale);
    assert!(get("2").to_string().contains("(stale)"), "{}", get("2"));
    store.set_now(NOON + 48 * HOUR + 1);
    let old = get("2");
    assert_eq!((old.status, old.features[0].status), (Status::OutsideMaxAge, Status::OutsideMaxAge));
    assert!(old.features[0].value.is_null());
    assert_eq!(get("99").status, Status::NotFound);
    assert_eq!(get("99").to_string(), "customer customer_id=99 country=FR: not found\n");

    for (pairs, message) in [
        (vec![("customer_id", "1")], "`country` must be given once"),
        (vec![("customer_id", "x"), ("country", "FR")], "`x` is no value of `customer_id`"),
        (vec![("customer_id", "1"), ("country", "FR"), ("city", "Paris")], "`city` is no key column"),
    ] {
        let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let error = get_online(&reader, "customer", &pairs).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("customer_id=… country=…"), "{error}");
    }
}

proptest! {
    /// Packing and unpacking gives the same columns, whatever is null.
    #[test]
    fn packed_rows_round_trip(
        rows in prop::collection::vec(
            (prop::option::of(any::<i64>()), prop::option::of(any::<f64>()), prop::option::of(".{0,9}"), prop::option::of(any::<bool>())),
            0..30,
        ),
        schema in any::<u32>(),
        generation in any::<u64>(),
        valid_until in any::<i64>(),
    ) {
        let numbers = || rows.iter().map(|r| r.0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(numbers().collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.1).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|r| r.2.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| r.3).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| r.1.map(|x| x as f32)).collect::<Float32Array>()),
            Arc::new(numbers().map(|n| n.map(|n| n as i16)).collect::<Int16Array>()),
            Arc::new(numbers().map(|n| n.map(|n| n as u64)).collect::<UInt64Array>()),
            Arc::new(numbers().map(|n| n.map(|n| n as i32)).collect::<Date32Array>()),
            Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            Arc::new(rows.iter().map(|r| r.2.clone().map(String::into_bytes)).collect::<BinaryArray>()),
        ];
        let types: Vec<ColumnType> = columns.iter().map(|c| ColumnType::of(c.data_type()).unwrap()).collect();
        let header = |row: usize| Header {
            schema, stamp: stamp(generation, row as u64), event_time: -(row as i64), valid_until, refreshed_at: 3,
        };
        let packed = pack(&types, &columns, rows.len(), header).unwrap();
        let bytes: Vec<Option<&[u8]>> = packed.iter().map(Some).collect();
        prop_assert_eq!(bytes.len(), rows.len());
        for (row, bytes) in bytes.iter().enumerate() {
            prop_assert_eq!(Header::read(bytes.unwrap()), Some(header(row)));
        }
        let read = unpack(&types, &bytes).unwrap();
        for (read, written) in read.iter().zip(&columns) {
            prop_assert_eq!(read.to_data(), written.to_data());
        }
    }

    /// Damaged bytes are an error or other values, never a panic.
    #[test]
    fn damaged_rows_do_not_panic(noise in prop::collection::vec(any::<u8>(), 0..120), cut in 0..80usize, flip in 0..80usize) {
        let types = [ColumnType::Text, ColumnType::Int64, ColumnType::Boolean, ColumnType::Bytes];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["abc"])), Arc::new(Int64Array::from(vec![5])),
            Arc::new(BooleanArray::from(vec![true])), Arc::new(BinaryArray::from(vec![&b"xy"[..]])),
        ];
        let header = |_| Header { schema: 0, stamp: stamp(0, 0), event_time: 0, valid_until: 0, refreshed_at: 0 };
        let packed = pack(&types, &columns, 1, header).unwrap();
        let mut row = packed.iter().next().unwrap().to_vec();
        prop_assert!(unpack(&types, &[Some(&row)]).is_ok());
        prop_assert!(unpack(&types, &[Some(&row[..cut.min(row.len() - 1)])]).is_err());
        let flip = flip.min(row.len() - 1);
        row[flip] ^= 1 << (cut % 8);
        let _ = unpack(&types, &[Some(&row)]);
        let _ = unpack(&types, &[Some(&noise)]);
    }
}

/// One view of 20 floats. Prints the rates; `TIDEMILL_BENCH_ROWS=1000000` for figures to quote.
#[test]
fn write_and_read_rates() {
    let total: usize = std::env::var("TIDEMILL_BENCH_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let directory = tempfile::tempdir().unwrap();
    let store = OnlineStore::open(directory.path(), Clock::Event).unwrap();
    let features = (0..20).map(|i| column(&format!("f{i}"), &DataType::Float64)).collect();
    let schema = ViewSchema { entity: vec![column("card", &DataType::Int64)], columns: features, ..schema() };
    let view = store.define(&schema).unwrap();
    let started = std::time::Instant::now();
    for (tick, start) in (0..total).step_by(8192).enumerate() {
        let n = 8192.min(total - start);
        let card = |i: usize| ((start + i) as i64).wrapping_mul(7919) % total as i64;
        let rows = OnlineRows {
            keys: vec![Arc::new(Int64Array::from_iter_values((0..n).map(card)))],
            event_time: vec![NOON; n],
            valid_until: vec![NOON; n],
            values: (0..20)
                .map(|f| Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i * f) as f64))) as ArrayRef)
                .collect(),
        };
        assert_eq!(store.put(&view, stamp(1, tick as u64), &rows).unwrap(), n);
    }
    store.flush().unwrap();
    let written = started.elapsed().as_secs_f64();
    let reader = store.reader();
    let started = std::time::Instant::now();
    let reads = total.min(20_000);
    for i in 0..reads {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![(i as i64 * 31) % total as i64]));
        assert!(reader.read("customer", &[key]).unwrap().states[0].is_some());
    }
    let read = started.elapsed().as_secs_f64();
    println!("{:.2} M rows/s written, {:.1} us per read", total as f64 / written / 1e6, read / reads as f64 * 1e6);
}

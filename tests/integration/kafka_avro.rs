//! Topics of Avro messages, plain and with schemas of a registry: what JSON messages of the same events give, bit for bit.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tidemill::engine::{self, RunOptions, RunSummary, StopHandle};
use tidemill::store::offline::{read_table, table_path};

use super::registry::Server;
use super::support::kafka::{Broker, Record, topic};
use super::support::rows::assert_same_rows;

const DECLARED: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "card", "type": "long"},
  {"name": "amount", "type": ["null", "double"], "default": null},
  {"name": "country", "type": "string", "default": "FR"}
]}"#;

/// What a later producer writes: another order, a smaller type, a field more and one less.
const LATER: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "card", "type": "int"},
  {"name": "note", "type": ["null", "string"]},
  {"name": "amount", "type": "double"},
  {"name": "id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}}
]}"#;

/// 2026-01-01T00:00:00Z in milliseconds.
const START: i64 = 1_767_225_600_000;

const EVENTS: i64 = 3_000;

fn long(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

fn amount(id: i64) -> Option<f64> {
    (id % 7 != 0).then_some(id as f64 * 0.37)
}

/// Whether an event was written by the later producer, which knows neither null amounts nor countries.
fn is_later(id: i64) -> bool {
    id % 3 == 0 && amount(id).is_some()
}

fn country(id: i64) -> &'static str {
    if is_later(id) { "FR" } else { ["DE", "IT"][(id % 2) as usize] }
}

fn json(id: i64) -> Vec<u8> {
    let amount = amount(id).map_or("null".to_owned(), |a| format!("{a:?}"));
    let (ts, card, country) = (START + id, id % 11, country(id));
    format!(r#"{{"id":{id},"ts":{ts},"card":{card},"amount":{amount},"country":"{country}"}}"#).into_bytes()
}

fn avro(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    [id, START + id, id % 11].into_iter().for_each(|value| long(&mut out, value));
    match amount(id) {
        None => long(&mut out, 0),
        Some(amount) => {
            long(&mut out, 1);
            out.extend(amount.to_le_bytes());
        }
    }
    long(&mut out, 2);
    out.extend(country(id).as_bytes());
    out
}

fn later(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    long(&mut out, id % 11);
    out.extend([2, 2, b'x']);
    out.extend(amount(id).expect("an amount").to_le_bytes());
    long(&mut out, id);
    long(&mut out, (START + id) * 1_000);
    out
}

fn framed(schema: u32, record: Vec<u8>) -> Vec<u8> {
    [&[0][..], &schema.to_be_bytes(), &record].concat()
}

fn run(dir: &Path, broker: &Broker, topic: &str, format: &str, lake: &str, options: RunOptions) -> RunSummary {
    fs::write(dir.join("tx.avsc"), DECLARED).expect("a file");
    let text = format!(
        r#"
job: avro
sources:
  tx:
    kafka: {{brokers: "{}", topic: {topic}, {format}}}
    schema: "{}/tx.avsc"
    id: id
    event_time: ts
order: event_time
features:
  card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: 1h}}, spent: {{sum: amount, over: 1h}}}}}}
feature_sets:
  rows: {{on: tx, take: [id, amount, country, card.*]}}
sinks:
  offline: {{delta: {{uri: "{}"}}}}
checkpoint: {{interval: 200ms}}
"#,
        broker.address(),
        dir.display(),
        dir.join(lake).display(),
    );
    let file = dir.join(format!("{lake}.yaml"));
    fs::write(&file, text).expect("a file");
    let (plan, _) = engine::load(&file, &[], &|_: &str| None).unwrap_or_else(|faults| panic!("{faults}"));
    engine::run(plan, options).unwrap_or_else(|error| panic!("{error}"))
}

fn table(dir: &Path, lake: &str, name: &str) -> RecordBatch {
    let batches = read_table(&table_path(&dir.join(lake), name), None, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

fn to_end() -> RunOptions {
    RunOptions { workers: 2, until_end: true, ..RunOptions::default() }
}

#[test]
fn avro_gives_what_json_gives() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a folder");
    let send = |name: &str, message: &dyn Fn(i64) -> Vec<u8>| {
        let name = topic(name);
        broker.create_topic(&name, 3);
        broker.produce(&name, (0..EVENTS).map(|id| Record::to((id % 3) as i32, message(id))));
        name
    };
    let name = send("json", &json);
    run(dir.path(), broker, &name, "format: json", "json", to_end());
    let expected = table(dir.path(), "json", "feature_sets/rows");
    assert_eq!(expected.num_rows() as i64, EVENTS);

    let name = send("avro", &avro);
    let summary = run(dir.path(), broker, &name, "format: avro", "avro", to_end());
    assert_eq!(summary.dead_letters, 0);
    assert_same_rows("plain Avro", &expected, &table(dir.path(), "avro", "feature_sets/rows"));

    let Some(server) = Server::start() else { return };
    let registry = server.registry();
    let first = registry.register("tx-value", DECLARED).expect("registered");
    let second = registry.register("tx-value", LATER).expect("registered");
    let name = send("framed", &|id| if is_later(id) { framed(second, later(id)) } else { framed(first, avro(id)) });
    broker.produce(&name, [Record::to(0, framed(777, avro(0))), Record::to(1, framed(first, vec![2, 2]))]);
    let format = format!("format: avro, registry: {{url: \"{}\"}}", server.open);
    let summary = run(dir.path(), broker, &name, &format, "framed", to_end());
    assert_same_rows("schemas of a registry", &expected, &table(dir.path(), "framed", "feature_sets/rows"));
    assert_eq!(summary.dead_letters, 2);
    let dead = table(dir.path(), "framed", "dead_letters");
    let column = |name: &str| dead.column_by_name(name).expect("a column").as_string::<i32>().clone();
    let (kinds, reasons) = (column("kind"), column("reason"));
    let mut letters: Vec<_> = kinds.iter().zip(reasons.iter()).collect();
    letters.sort_unstable();
    assert_eq!(
        letters,
        [
            (Some("schema"), Some("unknown schema id 777")),
            (Some("undecodable"), Some("not Avro: field `card` ends too early, at byte 2")),
        ]
    );
}

/// A registry that answers every request with one schema.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let body = serde_json::json!({ "schema": DECLARED }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all([head, body].concat().as_bytes());
        }
    });
}

#[test]
fn a_registry_that_is_away_delays_and_loses_nothing() {
    let Some(broker) = Broker::start() else { return };
    let dir = TempDir::new().expect("a folder");
    let name = topic("waiting");
    broker.create_topic(&name, 2);
    broker.produce(&name, (0..100).map(|id| Record::to((id % 2) as i32, framed(5, avro(id)))));
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let (seen, stop) = (Arc::new(AtomicU64::new(0)), StopHandle::new());
    let (path, tapped, stopped) = (dir.path().to_owned(), seen.clone(), stop.clone());
    let job = std::thread::spawn(move || {
        let tap: engine::Tap = Arc::new(move |_, batch| {
            tapped.fetch_add(batch.num_rows() as u64, Ordering::SeqCst);
        });
        let options = RunOptions { stop: stopped, tap: Some(tap), ..RunOptions::default() };
        let format = format!("format: avro, registry: {{url: \"http://{address}\"}}");
        // Rows leave when the watermark has passed them; a stop releases those before it.
        run(&path, broker, &name, &format, "live", options)
    });
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!job.is_finished() && seen.load(Ordering::SeqCst) == 0, "the source waits");
    serve(TcpListener::bind(address).expect("the port is still free"));
    let begin = Instant::now();
    while seen.load(Ordering::SeqCst) < 90 {
        assert!(begin.elapsed() < Duration::from_secs(40), "{} rows", seen.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.stop();
    let summary = job.join().expect("no panic");
    assert_eq!((summary.rows_read, summary.dead_letters), (100, 0), "nothing is lost");
    let ids = table(dir.path(), "live", "feature_sets/rows");
    let ids = ids.column_by_name("id").expect("ids").as_primitive::<Int64Type>().clone();
    let mut ids: Vec<i64> = ids.values().to_vec();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() >= 90 && ids.len() as u64 <= 100, "each once: {}", ids.len());
}

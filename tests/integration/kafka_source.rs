//! Jobs on live topics: what is read when, what is late, what is turned away, and what happens when brokers go away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use rdkafka::producer::Producer;
use tempfile::TempDir;
use tidemill::engine::{self, EngineError, RunOptions, RunSummary, StopHandle};
use tidemill::store::offline::{read_table, table_path};

use crate::support::kafka::{Broker, Record, send, topic};
use crate::support::rows::{assert_same_rows, same_rows};

pub const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "card", "type": "long"},
  {"name": "amount", "type": "double"}
]}"#;

/// 2026-01-01T00:00:00Z in milliseconds.
const START: i64 = 1_767_225_600_000;

/// An event as a message; its card is its id modulo 3.
pub fn event(partition: i32, id: i64, after_ms: i64) -> Record {
    let value = format!(r#"{{"id":{id},"ts":{},"card":{},"amount":1.5}}"#, START + after_ms, id % 3);
    Record::to(partition, value)
}

/// A job that counts by card, with settings of the source (at `kafka`, and beside it) and of the job.
pub struct Setting {
    pub dir: TempDir,
    pub file: PathBuf,
}

impl Setting {
    pub fn new(address: &str, topic: &str, kafka: &str, source: &str, job: &str) -> Setting {
        let dir = TempDir::new().expect("a folder");
        fs::write(dir.path().join("tx.avsc"), SCHEMA).expect("a file");
        let text = format!(
            r#"
job: on_kafka
sources:
  tx:
    kafka: {{brokers: "{address}", topic: {topic}, discover_every: 200ms{kafka}}}
    schema: "{dir}/tx.avsc"
    id: id
    event_time: ts
    {source}
features:
  card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: lifetime}}, ids: {{sum: id, over: 1d}}}}}}
feature_sets:
  rows: {{on: tx, take: [id, amount, card.*]}}
sinks:
  offline: {{delta: {{uri: "${{LAKE}}"}}}}
checkpoint: {{interval: 200ms}}
{job}
"#,
            dir = dir.path().display(),
        );
        let file = dir.path().join("job.yaml");
        fs::write(&file, text).expect("a file");
        Setting { dir, file }
    }

    pub fn options(&self) -> RunOptions {
        RunOptions { workers: 1, ..RunOptions::default() }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Runs in this thread, with tables in a folder of this name.
    pub fn run(&self, lake: &str, options: RunOptions) -> Result<RunSummary, EngineError> {
        let lake = self.dir.path().join(lake).display().to_string();
        let env = move |name: &str| (name == "LAKE").then(|| lake.clone());
        let (plan, _) = engine::load(&self.file, &[], &env).unwrap_or_else(|faults| panic!("{faults}"));
        engine::run(plan, options)
    }

    fn table(&self, lake: &str, name: &str) -> RecordBatch {
        let batches = read_table(&table_path(&self.dir.path().join(lake), name), None, None)
            .unwrap_or_else(|error| panic!("table {name}: {error}"));
        arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema")
    }

    /// Runs in a thread of its own until stopped, with tables in `live`.
    pub fn live(self, options: RunOptions) -> Live {
        let setting = Arc::new(self);
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), StopHandle::new());
        let (theirs, taps) = (Arc::clone(&setting), Arc::clone(&seen));
        let options = RunOptions {
            stop: stop.clone(),
            tap: Some(Arc::new(move |info, batch| {
                let mut seen = taps.lock().expect("no panics");
                seen.ids.extend(batch.column_by_name("id").expect("a column").as_primitive::<Int64Type>().values());
                seen.watermark = info.watermark;
            })),
            ..options
        };
        let thread = std::thread::spawn(move || theirs.run("live", options));
        Live { setting, seen, stop, thread: Some(thread) }
    }
}

#[derive(Default)]
struct Seen {
    ids: Vec<i64>,
    watermark: i64,
}

pub struct Live {
    setting: Arc<Setting>,
    seen: Arc<Mutex<Seen>>,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<RunSummary, EngineError>>>,
}

impl Live {
    /// Waits until so many rows have come to the end of the graph; returns how long that took.
    pub fn wait_for(&self, rows: usize) -> Duration {
        let begin = Instant::now();
        while self.seen.lock().expect("no panics").ids.len() < rows {
            let ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            let seen = || self.seen.lock().expect("no panics").ids.len();
            assert!(!ended, "the job ended after {} rows", seen());
            assert!(begin.elapsed() < Duration::from_secs(40), "{} rows of {rows}", seen());
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }

    fn ids(&self) -> Vec<i64> {
        let mut ids = self.seen.lock().expect("no panics").ids.clone();
        ids.sort_unstable();
        ids
    }

    pub fn stop(&mut self) -> RunSummary {
        self.stop.stop();
        self.thread.take().expect("stopped once").join().expect("no panic").unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_message_reaches_the_graph_within_a_tick() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("prompt");
    broker.create_topic(&name, 3);
    let mut live = Setting::new(&broker.address(), &name, "", "", "").live(RunOptions::default());
    broker.produce(&name, [event(0, 0, 0)]);
    live.wait_for(1);
    let producer = broker.producer(&[("linger.ms", "0")]);
    let mut waits = Vec::new();
    for id in 1..=30 {
        let begin = Instant::now();
        send(&producer, &name, [event((id % 3) as i32, id, id)]);
        live.wait_for(id as usize + 1);
        waits.push(begin.elapsed());
    }
    waits.sort();
    println!("within {:?}, {:?}, {:?}", waits[0], waits[15], waits[29]);
    // A tick of 20 ms and the way there and back; any wait of librdkafka's (100 ms and more) would show in half of them.
    assert!(waits[15] < Duration::from_millis(80), "median {:?} of {waits:?}", waits[15]);
    let summary = live.stop();
    assert_eq!((summary.rows_read, summary.dead_letters), (31, 0));
    assert_eq!(live.setting.table("live", "feature_sets/rows").num_rows(), 31, "what was read was committed");
}

#[test]
fn rows_that_are_turned_away_keep_their_bytes_and_position() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("bad");
    broker.create_topic(&name, 2);
    let huge = format!(r#"{{"id":1,"ts":{START},"card":1,"amount":1.0,"note":"{}"}}"#, "x".repeat(1 << 20));
    let late = event(1, 8, -60_000);
    let late_bytes = late.value.clone().expect("a value");
    let negative = format!(r#"{{"id":6,"ts":{START},"card":1,"amount":-1.0}}"#);
    let bad_header = Record { headers: vec![("trace".into(), vec![0xff])], ..event(1, 9, 5) };
    let good = Record {
        key: Some(b"k1".to_vec()),
        headers: vec![("trace".into(), b"a".to_vec()), ("trace".into(), b"b".to_vec())],
        timestamp_ms: Some(START + 77),
        ..event(0, 10, 5)
    };
    let records = [
        event(1, 0, 0),
        Record::to(1, b"\xff\xfenot json".to_vec()),
        Record::to(1, r#"{"id":"x","ts":1,"card":1,"amount":1}"#),
        Record::to(1, huge.clone()),
        Record { partition: Some(1), ..Record::default() },
        Record::to(1, negative.clone()),
        late,
        bad_header.clone(),
        good,
    ];
    broker.produce(&name, records);
    let kafka = ", key: its_key, timestamp: sent, headers: {trace_id: trace}";
    let source =
        "validate: {amount: {min: 0}}\n    disorder: 10s\n    where: \"trace_id is null or trace_id <> 'zzz'\"";
    let setting = Setting::new(&broker.address(), &name, kafka, source, "order: event_time");
    let text = fs::read_to_string(&setting.file).expect("a file");
    fs::write(&setting.file, text.replace("take: [id,", "take: [id, its_key, sent, trace_id,")).expect("a file");
    let summary =
        setting.run("lake", RunOptions { until_end: true, ..setting.options() }).unwrap_or_else(|e| panic!("{e}"));

    let counts = &summary.sources[0].counts;
    assert_eq!((counts.read, counts.accepted, counts.blank), (9, 2, 1), "a tombstone is counted and skipped");
    let dead = setting.table("lake", "dead_letters");
    let text =
        |name: &str, row: usize| dead.column_by_name(name).expect("a column").as_string::<i32>().value(row).to_owned();
    let partitions = dead.column_by_name("_partition").expect("a column").as_primitive::<Int32Type>();
    let offsets = dead.column_by_name("_offset").expect("a column").as_primitive::<Int64Type>();
    let originals = dead.column_by_name("original").expect("a column").as_binary::<i32>();
    let mut letters: Vec<_> = (0..dead.num_rows())
        .map(|row| (partitions.value(row), offsets.value(row), text("kind", row), originals.value(row).to_vec()))
        .collect();
    letters.sort();
    let expected: Vec<(i32, i64, String, Vec<u8>)> = vec![
        (1, 1, "undecodable".into(), b"\xff\xfenot json".to_vec()),
        (1, 2, "wrong_type".into(), br#"{"id":"x","ts":1,"card":1,"amount":1}"#.to_vec()),
        (1, 3, "too_large".into(), huge.as_bytes()[..4_096].to_vec()),
        (1, 5, "invalid".into(), negative.into_bytes()),
        (1, 6, "late".into(), late_bytes),
        (1, 7, "wrong_type".into(), bad_header.value.expect("a value")),
    ];
    assert_eq!(letters, expected);

    let rows = setting.table("lake", "feature_sets/rows");
    let row =
        rows.column_by_name("id").expect("ids").as_primitive::<Int64Type>().values().iter().position(|id| *id == 10);
    let row = row.expect("the row with everything");
    let text = |name: &str| rows.column_by_name(name).expect("a column").as_string::<i32>();
    assert_eq!((text("its_key").value(row), text("trace_id").value(row)), ("k1", "b"), "the last header counts");
    let sent = arrow::compute::cast(rows.column_by_name("sent").expect("a column"), &DataType::Int64).expect("numbers");
    assert_eq!(sent.as_primitive::<Int64Type>().value(row), (START + 77) * 1_000);
    assert!(text("its_key").is_null(1 - row) && text("trace_id").is_null(1 - row));
}

#[test]
fn partitions_that_appear_are_read_and_replayed() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("growing");
    broker.create_topic(&name, 1);
    broker.produce(&name, (0..50).map(|id| event(0, id, id)));
    let setting = Setting::new(&broker.address(), &name, "", "disorder: 1h", "");
    let state = setting.state();
    let mut live = setting.live(RunOptions { state_dir: Some(state.clone()), ..RunOptions::default() });
    live.wait_for(50);
    broker.add_partitions(&name, 3);
    broker.produce(&name, (50..100).map(|id| event((id % 3) as i32, id, id)));
    live.wait_for(100);
    live.stop();
    assert_eq!(live.ids(), (0..100).collect::<Vec<i64>>());
    // In order of arrival the tick log decides, also when partitions entered.
    let recorded = live.setting.table("live", "feature_sets/rows");
    for workers in [1, 3] {
        let lake = format!("replayed by {workers}");
        let options = RunOptions { workers, replay: Some(state.clone()), until_end: true, ..RunOptions::default() };
        live.setting.run(&lake, options).unwrap_or_else(|e| panic!("{e}"));
        assert_same_rows(&lake, &recorded, &live.setting.table(&lake, "feature_sets/rows"));
    }
    let fresh = RunOptions { until_end: true, ..RunOptions::default() };
    live.setting.run("fresh", fresh).unwrap_or_else(|e| panic!("{e}"));
    assert!(!same_rows(&recorded, &live.setting.table("fresh", "feature_sets/rows")), "other cuts, other ticks");

    // What the log goes on from is gone.
    broker.expire(&name, 0, 20);
    let options = RunOptions { replay: Some(state), until_end: true, ..RunOptions::default() };
    let error = live.setting.run("gone", options).expect_err("offsets that have expired").to_string();
    for word in ["`tx`", "offset 0 ", "partition 0 ", &name, "it holds offsets 20 to "] {
        assert!(error.contains(word), "no {word} in: {error}");
    }
}

#[test]
fn silence_lets_the_watermark_go_on() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("silent");
    broker.create_topic(&name, 2);
    let source = "disorder: 100ms\n    idle_after: 1s";
    let mut live = Setting::new(&broker.address(), &name, "", source, "order: event_time").live(RunOptions::default());
    // Partition 1 is silent, so the rows of partition 0 wait for a second; the last of them for the wall clock.
    broker.produce(&name, (0..10).map(|id| event(0, id, id * 1_000)));
    live.wait_for(10);
    assert!(live.seen.lock().expect("no panics").watermark > (START + 9_000) * 1_000);
    // What comes from behind what was let go is late; what comes from before it is not.
    broker.produce(&name, [event(1, 10, 0), event(1, 11, 3_600_000), event(0, 12, 3_600_000)]);
    live.wait_for(12);
    let summary = live.stop();
    assert_eq!(live.ids(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]);
    assert_eq!(summary.dead_letters, 1);
}

#[test]
fn without_silence_the_watermark_is_held() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("held");
    broker.create_topic(&name, 2);
    let source = "idle_after: 1h";
    let mut live = Setting::new(&broker.address(), &name, "", source, "order: event_time").live(RunOptions::default());
    broker.produce(&name, (0..10).map(|id| event(0, id, id)));
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(live.ids(), [0; 0], "partition 1 may still bring something");
    broker.produce(&name, [event(1, 10, 5)]);
    live.wait_for(5);
    live.stop();
    assert_eq!(live.ids(), [0, 1, 2, 3, 4]);
}

#[test]
fn brokers_that_go_away_lose_nothing() {
    let Some(mut broker) = Broker::own() else { return };
    let name = topic("outage");
    broker.create_topic(&name, 3);
    let make = |ids: std::ops::Range<i64>| ids.map(|id| event((id % 3) as i32, id, id)).collect::<Vec<_>>();
    broker.produce(&name, make(0..300));
    // An outage longer than `idle_after` is no silence: no row may be late after it.
    let source = "disorder: 0s\n    idle_after: 2s";
    let mut live = Setting::new(&broker.address(), &name, "", source, "").live(RunOptions::default());
    live.wait_for(300);
    broker.stop();
    std::thread::sleep(Duration::from_secs(3));
    broker.start_again();
    broker.produce(&name, make(300..600));
    live.wait_for(600);
    broker.freeze();
    std::thread::sleep(Duration::from_secs(4));
    broker.thaw();
    broker.produce(&name, make(600..900));
    live.wait_for(900);
    let summary = live.stop();
    assert_eq!(live.ids(), (0..900).collect::<Vec<i64>>());
    assert_eq!((summary.rows_read, summary.dead_letters), (900, 0));
}

#[test]
fn what_a_transaction_took_back_is_not_read() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("transactions");
    broker.create_topic(&name, 1);
    let producer = broker.producer(&[("transactional.id", &name), ("linger.ms", "0")]);
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).expect("transactions");
    let transact = |ids: std::ops::Range<i64>, commit: bool| {
        producer.begin_transaction().expect("a transaction");
        send(&producer, &name, ids.map(|id| event(0, id, id)));
        producer.flush(patience).expect("the broker takes them");
        match commit {
            true => producer.commit_transaction(patience).expect("a commit"),
            false => producer.abort_transaction(patience).expect("an abort"),
        }
    };
    transact(0..5, true);
    transact(5..10, false);
    transact(10..15, true);
    transact(15..20, false);
    let kept: Vec<i64> = (0..5).chain(10..15).collect();
    let setting = Setting::new(&broker.address(), &name, "", "", "");
    // Up to the end, which is a marker behind rows that were taken back.
    setting.run("lake", RunOptions { until_end: true, ..RunOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
    let rows = setting.table("lake", "feature_sets/rows");
    let mut ids = rows.column_by_name("id").expect("ids").as_primitive::<Int64Type>().values().to_vec();
    ids.sort_unstable();
    assert_eq!(ids, kept);
    let mut live = setting.live(RunOptions::default());
    live.wait_for(kept.len());
    transact(20..22, false);
    transact(22..25, true);
    live.wait_for(kept.len() + 3);
    live.stop();
    assert_eq!(live.ids(), kept.into_iter().chain(22..25).collect::<Vec<_>>());
}

#[test]
fn a_topic_is_begun_where_the_file_says() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("start");
    broker.create_topic(&name, 2);
    let sent = |id: i64| Record { timestamp_ms: Some(START + id * 1_000), ..event((id % 2) as i32, id, id) };
    broker.produce(&name, (0..20).map(sent));
    for (start, expected) in [("earliest", 0..20), ("2026-01-01T00:00:07Z", 7..20), ("2027-01-01", 20..20)] {
        let setting = Setting::new(&broker.address(), &name, &format!(", start: {start}"), "", "");
        let summary = setting
            .run("lake", RunOptions { until_end: true, ..RunOptions::default() })
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(summary.rows_read, (expected.end - expected.start) as u64, "{start}");
    }
    let mut live = Setting::new(&broker.address(), &name, ", start: latest", "", "").live(RunOptions::default());
    std::thread::sleep(Duration::from_secs(1));
    broker.produce(&name, (20..25).map(sent));
    live.wait_for(5);
    live.stop();
    assert_eq!(live.ids(), [20, 21, 22, 23, 24]);
}

#[test]
fn what_is_not_there_is_named() {
    let Some(broker) = Broker::start() else { return };
    let missing = Setting::new(&broker.address(), "nowhere", "", "", "");
    let error = missing.run("lake", RunOptions::default()).expect_err("no such topic").to_string();
    assert!(error.contains("there is no topic `nowhere`") && error.contains(&broker.address()), "{error}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let error = Setting::new(&unused.to_string(), "t", "", "", "").run("lake", RunOptions::default());
    let error = error.expect_err("no broker").to_string();
    assert!(error.contains(&format!("the brokers at {unused} do not answer")), "{error}");

    let secret = ", properties: {client.id: \"${file:/no/such/secret}\"}";
    let setting = Setting::new(&broker.address(), "nowhere", secret, "", "");
    let error = setting.run("lake", RunOptions::default()).expect_err("no such secret").to_string();
    assert!(error.contains("property `client.id`: the file /no/such/secret"), "{error}");
}

#[test]
fn a_live_job_ends_with_what_it_has_read_when_it_is_told_to() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("signal");
    broker.create_topic(&name, 3);
    broker.produce(&name, (0..100).map(|id| event((id % 3) as i32, id, id)));
    let setting = Setting::new(&broker.address(), &name, "", "", "");
    let (lake, state) = (setting.dir.path().join("lake"), setting.state());
    let process = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["run", "--json", "--workers", "2", "--state"])
        .arg(&state)
        .arg(&setting.file)
        .env("LAKE", &lake)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let begin = Instant::now();
    let logged = || -> u64 {
        let read = tidemill::ingest::ticks::read(&state).map(|log| log.records).unwrap_or_default();
        read.last().map_or(0, |record| record.offsets.iter().flatten().sum())
    };
    while logged() < 100 {
        assert!(begin.elapsed() < Duration::from_secs(40), "the job does not read");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = std::process::Command::new("kill").arg("-TERM").arg(process.id().to_string()).status();
    assert!(told.expect("kill runs").success());
    let output = process.wait_with_output().expect("the program ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    let summary: serde_json::Value = serde_json::from_str(&out).expect("a summary");
    assert_eq!(summary["rows_read"], 100, "{summary}");
    assert_eq!(setting.table("lake", "feature_sets/rows").num_rows(), 100);
}

/// Rows of one message id within a partition are removed, and those of a topic read to its end are the same by any cut.
#[test]
fn duplicates_are_found_within_a_partition() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("duplicates");
    broker.create_topic(&name, 2);
    broker.produce(&name, [event(0, 1, 0), event(0, 1, 5), event(1, 2, 0), event(0, 3, 10), event(1, 2, 1)]);
    let setting = Setting::new(&broker.address(), &name, "", "dedup: 1h", "");
    let summary =
        setting.run("lake", RunOptions { until_end: true, ..RunOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((summary.rows_read, summary.dead_letters), (5, 2));
}

#[test]
fn secrets_are_not_printed() {
    let dir = TempDir::new().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("tx.avsc"), SCHEMA).expect("a file");
    fs::write(path("secret"), "hunter2\n").expect("a file");
    let job = format!(
        r#"
job: secrets
sources:
  tx:
    kafka:
      brokers: "127.0.0.1:1"
      topic: t
      properties: {{client.id: "${{file:{0}/secret}}", fetch.min.bytes: "${{env:FETCH_SECRET}}"}}
    schema: "{0}/tx.avsc"
    event_time: ts
features: {{card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: 1d}}}}}}}}
sinks: {{offline: {{delta: {{uri: "{0}/lake"}}}}}}
"#,
        dir.path().display()
    );
    fs::write(path("job.yaml"), job).expect("a file");
    let run = |command: &str| tidemill(command, &path("job.yaml"));
    let (code, text) = run("check");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("client.id = ***") && !text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
    let (code, text) = run("run");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("fetch.min.bytes") && !text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
}

fn tidemill(command: &str, job: &Path) -> (i32, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .arg(command)
        .arg(job)
        .env("FETCH_SECRET", "s3cr3t")
        .env("TIDEMILL_LOG", "debug")
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("no signal"), String::from_utf8_lossy(&text).into_owned())
}

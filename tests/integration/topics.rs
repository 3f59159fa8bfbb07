//! Topics as sinks, on a real broker: what a plain consumer reads is what the tables hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::kafka::{Broker, Record, topic};
use crate::support::{Job, full, root};

/// A job on generated traffic: scores by the model of the repository, dead letters by a strict check.
fn job(dir: &TempDir, broker: &str, names: &Names, seconds: u32) -> Job {
    let file = dir.path().join("job.yaml");
    let text = format!(
        r#"job: topics
version: 3
order: event_time
sources:
  tx:
    generator: {{stream: transactions, seed: 7, customers: 300, terminals: 600, start: "2026-01-05", duration: {seconds}s}}
    id: tx_id
    event_time: ts
    validate: {{amount: {{max: 200}}}}
    on_invalid: {{dead_letter: tx_rejected}}
features:
  customer:
    from: tx
    entity: [customer_id]
    aggregates:
      nb_tx: {{count: "*", over: [1h, 1d]}}
      avg_amount: {{mean: amount, over: 1d}}
    post:
      ratio: "amount / nullif(avg_amount_1d - amount, 0)"
    to: {{kafka: {{brokers: "{broker}", topic: "{features}", key: customer_id}}}}
  terminal:
    from: tx
    entity: [terminal_id]
    aggregates:
      nb_tx: {{count: "*", over: 1d}}
feature_sets:
  inputs:
    on: tx
    take: [amount, customer.*, terminal.*]
    to:
      kafka: {{brokers: "{broker}", topic: "{sets}", format: avro, key: [terminal_id, customer_id]}}
      delivery: at_least_once
sinks:
  offline: {{delta: {{uri: "${{LAKE}}"}}}}
  dead_letters: {{kafka: {{brokers: "{broker}", topic: "{dead}", properties: {{compression.type: zstd}}}}}}
"#,
        features = names.features,
        sets = names.sets,
        dead = names.dead,
    );
    std::fs::write(&file, text).expect("a file in a temporary folder");
    Job::new(file)
}

struct Names {
    features: String,
    sets: String,
    dead: String,
}

fn names(broker: &Broker) -> Names {
    let names = Names { features: topic("features"), sets: topic("sets"), dead: topic("dead") };
    for name in [&names.features, &names.sets, &names.dead] {
        broker.create_topic(name, 3);
    }
    names
}

fn header<'a>(message: &'a OwnedMessage, name: &str) -> &'a str {
    let headers = message.headers().expect("headers");
    let found = headers.iter().find(|h| h.key == name).unwrap_or_else(|| panic!("no header {name}"));
    std::str::from_utf8(found.value.expect("a value")).expect("text")
}

fn json(message: &OwnedMessage) -> Value {
    serde_json::from_slice(message.payload().expect("a payload")).expect("JSON")
}

/// A table's row in the JSON that a topic should hold, by names and with independent formatting.
fn row_values(table: &RecordBatch, row: usize) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (field, column) in table.schema().fields().iter().zip(table.columns()) {
        if field.name() == "event_date" {
            continue;
        }
        let text = arrow::util::display::array_value_to_string(column, row).expect("a text");
        let value = if arrow::array::Array::is_null(column, row) {
            Value::Null
        } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            let micros = times.value(row);
            assert!(text.starts_with("20"), "{text}");
            Value::from(format!("{}.{:06}Z", &text[..19], micros.rem_euclid(1_000_000)))
        } else if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
            Value::from(floats.value(row))
        } else if let Ok(number) = text.parse::<i64>() {
            Value::from(number)
        } else {
            Value::from(text)
        };
        values.insert(field.name().clone(), value);
    }
    values
}

fn by_offset(rows: impl Iterator<Item = BTreeMap<String, Value>>) -> BTreeMap<i64, BTreeMap<String, Value>> {
    rows.map(|row| (row["_offset"].as_i64().expect("an offset"), row)).collect()
}

fn table_rows(table: &RecordBatch) -> BTreeMap<i64, BTreeMap<String, Value>> {
    by_offset((0..table.num_rows()).map(|row| row_values(table, row)))
}

#[test]
fn topics_hold_the_rows_of_the_tables() {
    let Some(broker) = Broker::start() else { return };
    for workers in [1, 3] {
        let names = names(broker);
        let dir = TempDir::new().expect("a temporary folder");
        let state = dir.path().join("state");
        let lake = job(&dir, &broker.address(), &names, 200_000).workers(workers).state(&state).run();

        let messages = broker.consume(&names.features);
        let table = lake.table("features/customer", None);
        assert!(table.num_rows() > 500, "{} rows are too few to show anything", table.num_rows());
        assert_eq!(messages.len(), table.num_rows());
        let found = by_offset(messages.iter().map(|m| serde_json::from_value(json(m)).expect("an object")));
        assert_eq!(found, table_rows(&table), "at {workers} workers");
        let mut last: BTreeMap<Vec<u8>, (i32, i64)> = BTreeMap::new();
        for message in &messages {
            let row = json(message);
            let key = message.key().expect("a key");
            assert_eq!(key, row["customer_id"].to_string().as_bytes());
            assert_eq!(header(message, "tidemill.job"), "topics");
            assert_eq!(header(message, "tidemill.tick"), row["_tick"].to_string());
            header(message, "tidemill.epoch").parse::<u64>().expect("a number");
            // Rows of one key are in one partition and in the order of their events.
            let offset = row["_offset"].as_i64().expect("an offset");
            if let Some((partition, before)) = last.insert(key.to_vec(), (message.partition(), offset)) {
                assert_eq!(partition, message.partition());
                assert!(before < offset, "{before} stands before {offset} at {workers} workers");
            }
        }
        assert!(messages.iter().map(Message::partition).collect::<BTreeSet<_>>().len() == 3);

        let dead = broker.consume(&names.dead);
        let letters = lake.table("tx_rejected", None);
        assert!(letters.num_rows() > 3);
        assert_eq!(dead.len(), letters.num_rows());
        let originals = letters.column_by_name("original").expect("a column").as_binary::<i32>();
        let reasons = letters.column_by_name("reason").expect("a column").as_string::<i32>();
        let offsets = letters.column_by_name("_offset").expect("a column").as_primitive::<Int64Type>();
        let expected: BTreeMap<String, (&[u8], &str)> = (0..letters.num_rows())
            .map(|row| (offsets.value(row).to_string(), (originals.value(row), reasons.value(row))))
            .collect();
        for letter in &dead {
            let (original, reason) = expected[header(letter, "tidemill.offset")];
            assert_eq!(letter.payload().expect("the original"), original);
            assert_eq!(header(letter, "tidemill.reason"), reason);
            assert_eq!(header(letter, "tidemill.kind"), "invalid");
            assert_eq!((header(letter, "tidemill.source"), header(letter, "tidemill.partition")), ("tx", "0"));
            assert!(header(letter, "tidemill.event_time").starts_with("2026-01-"));
            assert_eq!(letter.key(), None);
        }
        let turned_away: Vec<_> =
            lake.summary.turned_away.iter().map(|t| (t.source.as_str(), t.partition, t.kind, t.rows)).collect();
        assert_eq!(turned_away, [("tx", 0, "invalid", letters.num_rows() as u64)]);

        let sets = broker.consume(&names.sets);
        assert_eq!(sets.len(), table.num_rows());
        let delivered: Vec<_> = lake.summary.topics.iter().map(|t| (t.rows.as_str(), t.delivered)).collect();
        let rows = table.num_rows() as u64;
        assert_eq!(
            delivered,
            [("features/customer", rows), ("feature_sets/inputs", rows), ("dead letters", letters.num_rows() as u64)]
        );
    }
}

#[test]
fn every_kind_of_letter_reaches_the_topic_and_its_table() {
    let Some(broker) = Broker::start() else { return };
    let (events, dead) = (topic("events"), topic("letters"));
    broker.create_topic(&events, 2);
    broker.create_topic(&dead, 2);
    let dir = TempDir::new().expect("a temporary folder");
    let schema = r#"{"type": "record", "name": "Tx", "fields": [{"name": "id", "type": "long"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}, {"name": "card", "type": "long"},
        {"name": "amount", "type": ["null", "double"], "default": null}]}"#;
    std::fs::write(dir.path().join("tx.avsc"), schema).expect("a file");
    // The handbook's logistic regression takes fifteen numbers and has no way around a missing one.
    let posts: String = (1..14).map(|i| format!("p{i}: \"amount * {i}.0\", ")).collect();
    let text = format!(
        r#"job: letters
order: event_time
sources:
  tx:
    kafka: {{brokers: "{broker}", topic: {events}}}
    schema: "{dir}/tx.avsc"
    id: id
    event_time: ts
    disorder: 1s
    validate: {{amount: {{max: 1000}}}}
    on_invalid: {{dead_letter: rejected}}
features:
  card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: 1h}}}}, post: {{{posts}}}}}
feature_sets:
  inputs: {{on: tx, take: [amount, card.*]}}
models:
  fraud: {{versions: {{champion: "{root}/models/fraud_handbook.onnx"}}, inputs: inputs, outputs: {{score: "probabilities[1]"}}}}
sinks:
  offline: {{delta: {{uri: "${{LAKE}}"}}}}
  dead_letters: {{kafka: {{brokers: "{broker}", topic: {dead}}}}}
"#,
        broker = broker.address(),
        dir = dir.path().display(),
        root = root().display(),
    );
    let file = dir.path().join("job.yaml");
    std::fs::write(&file, text).expect("a file in a temporary folder");

    let event = |id: i64, second: i64, amount: &str| {
        format!(r#"{{"id":{id},"ts":{},"card":1,"amount":{amount}}}"#, 1_767_225_600_000 + 1000 * second)
    };
    let bad: [(i32, String, &str, &str); 5] = [
        (0, "no JSON".to_owned(), "undecodable", "rejected"),
        (1, r#"{"id":"x","ts":0,"card":1}"#.to_owned(), "wrong_type", "rejected"),
        (0, event(3, 12, "1001.0"), "invalid", "rejected"),
        (1, event(4, 5, "1.0"), "late", "dead_letters"),
        (0, event(5, 13, "null"), "unscored", "dead_letters"),
    ];
    for partition in [0, 1] {
        broker.produce(&events, [Record::to(partition, event(100 + i64::from(partition), 11, "2.0"))]);
    }
    broker.produce(&events, bad.iter().map(|(partition, value, ..)| Record::to(*partition, value.clone())));
    let lake = Job::new(file).run();

    assert_eq!(lake.count("predictions/fraud"), 2);
    let letters = broker.consume(&dead);
    assert_eq!(letters.len(), bad.len());
    for (partition, value, kind, table) in &bad {
        let letter =
            letters.iter().find(|l| header(l, "tidemill.kind") == *kind).unwrap_or_else(|| panic!("no {kind}"));
        assert_eq!(header(letter, "tidemill.partition"), partition.to_string());
        assert!(!header(letter, "tidemill.reason").is_empty());
        let rows = lake.table(table, None);
        let kinds = rows.column_by_name("kind").expect("a column").as_string::<i32>();
        let row = (0..rows.num_rows()).find(|row| kinds.value(*row) == *kind).unwrap_or_else(|| panic!("no {kind}"));
        let original = rows.column_by_name("original").expect("a column").as_binary::<i32>().value(row);
        assert_eq!(letter.payload().expect("the original"), original, "{kind}");
        // What passed the checks is told as the row that it became.
        if *kind != "unscored" {
            assert_eq!(original, value.as_bytes(), "{kind}");
        }
        let counted = lake.summary.turned_away.iter().find(|t| t.kind == *kind).expect("a count");
        assert_eq!((counted.source.as_str(), i32::from(counted.partition), counted.rows), ("tx", *partition, 1));
    }
}

#[test]
fn avro_in_a_topic_is_read_by_the_schema_that_check_prints() {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let Some(broker) = Broker::start() else { return };
    let names = names(broker);
    let dir = TempDir::new().expect("a temporary folder");
    let job = job(&dir, &broker.address(), &names, 30_000);
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .arg("check")
        .arg(dir.path().join("job.yaml"))
        .env("LAKE", dir.path().join("lake"))
        .output()
        .expect("tidemill starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let about = format!("Avro schema of topic {} (feature_sets/inputs)\n", names.sets);
    let (_, schema) = text.split_once(&about).unwrap_or_else(|| panic!("no schema in {text}"));
    let lake = job.run();

    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let schema = AvroSchema::new(schema.lines().next().expect("a line").to_owned());
    store.set(Fingerprint::Id(1), schema).expect("a schema");
    let mut decoder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_batch_size(1 << 16)
        .build_decoder()
        .expect("a decoder");
    for message in broker.consume(&names.sets) {
        let mut framed = vec![0, 0, 0, 0, 1];
        framed.extend_from_slice(message.payload().expect("a payload"));
        assert_eq!(decoder.decode(&framed).expect("a datum"), framed.len());
    }
    let read = decoder.flush().expect("rows").expect("rows");
    assert_eq!(table_rows(&read), table_rows(&lake.table("feature_sets/inputs", None)));
}

#[test]
fn kcat_reads_what_we_write() {
    let Some(broker) = Broker::start() else { return };
    if Command::new("kcat").arg("-V").output().is_err() {
        println!("skipped: what kcat reads of our topics: there is no kcat");
        return;
    }
    let names = names(broker);
    let dir = TempDir::new().expect("a temporary folder");
    let lake = job(&dir, &broker.address(), &names, 30_000).run();
    let output = Command::new("kcat")
        .args(["-C", "-b", &broker.address(), "-t", &names.features, "-e", "-q", "-f", "%k|%h|%s\n"])
        .output()
        .expect("kcat starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), lake.count("features/customer"));
    for line in text.lines() {
        let mut parts = line.splitn(3, '|');
        let mut part = || parts.next().expect("three parts");
        let (key, headers, value) = (part(), part(), part());
        let value: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(key, value["customer_id"].to_string());
        let tick = format!("tidemill.job=topics,tidemill.tick={},tidemill.epoch=", value["_tick"]);
        assert!(headers.starts_with(&tick), "{headers}");
    }
}

/// The lines that a job's process leaves on standard error.
struct Running {
    child: std::process::Child,
    log: PathBuf,
}

impl Running {
    fn start(dir: &TempDir, arguments: &[&str]) -> Running {
        let log = dir.path().join("log");
        let errors = std::fs::File::create(&log).expect("a file in a temporary folder");
        let child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .arg("run")
            .arg(dir.path().join("job.yaml"))
            .args(arguments)
            .env("LAKE", dir.path().join("lake"))
            .stdout(std::process::Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("tidemill starts");
        Running { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn interrupt(&self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
    }

    fn ends_within(&mut self, patience: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("a process") {
                return status;
            }
            assert!(Instant::now() < deadline, "the job does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_broker_that_is_away_for_a_while_costs_nothing() {
    let Some(broker) = Broker::own() else { return };
    let names = names(&broker);
    let dir = TempDir::new().expect("a temporary folder");
    job(&dir, &broker.address(), &names, 2_000_000);
    // A queue that is full at once, so that the input has to pause.
    let small = "features.customer.to.kafka.properties={queue.buffering.max.messages: \"500\"}";
    let mut running =
        Running::start(&dir, &["--until-end", "--set", "sources.tx.generator.rate=1000", "--set", small, "--json"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while broker.consume(&names.features).is_empty() {
        assert!(Instant::now() < deadline, "nothing arrives: {}", running.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    broker.freeze();
    std::thread::sleep(Duration::from_secs(if full() { 60 } else { 9 }));
    assert!(running.child.try_wait().expect("a process").is_none(), "the job ended: {}", running.log());
    broker.thaw();
    let status = running.ends_within(Duration::from_secs(90));
    assert!(status.success(), "{}", running.log());
    let log = running.log();
    // Three producers, since their settings differ. What each says alternates, and ends with the broker being there; a second
    // round is the broker that drops its connections as it wakes, a third that it named no brokers before it did.
    let mut told: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
    for line in log.lines() {
        let away = line.contains("kafka does not answer");
        if away || line.contains("kafka answers again") {
            let whose = line.split_once("whose=").unwrap_or_else(|| panic!("nobody's: {line}")).1;
            told.entry(whose.split(" brokers=").next().expect("a first part")).or_default().push(away);
        }
    }
    assert!((1..=3).contains(&told.len()), "{log}");
    for (whose, news) in told {
        let rounds = news.chunks(2);
        assert!(
            rounds.len() <= 3 && rounds.into_iter().all(|round| round == [true, false]),
            "{whose}: {news:?}\n{log}"
        );
    }
    let offsets: Vec<i64> =
        broker.consume(&names.features).iter().map(|m| json(m)["_offset"].as_i64().expect("an offset")).collect();
    let distinct: BTreeSet<i64> = offsets.iter().copied().collect();
    assert_eq!(distinct.len(), offsets.len(), "the producer is idempotent: nothing is there twice");
    let table = tidemill::store::offline::read_table(&dir.path().join("lake/features/customer"), None, None)
        .expect("the table")
        .iter()
        .map(RecordBatch::num_rows)
        .sum::<usize>();
    assert_eq!(offsets.len(), table);
}

/// An epoch is not complete before the brokers have its messages: a start after a kill sends those that they lack.
#[test]
fn a_kill_while_the_broker_is_away_loses_nothing() {
    let Some(broker) = Broker::own() else { return };
    let names = names(&broker);
    let dir = TempDir::new().expect("a temporary folder");
    job(&dir, &broker.address(), &names, 1_000_000);
    let state = dir.path().join("state");
    let state = state.to_str().expect("a path that is text");
    let common = ["--until-end", "--json", "--state", state, "--set", "checkpoint.interval=100ms"];
    let once = ["features.customer.to.delivery=at_least_once", "sinks.dead_letters.delivery=at_least_once"];
    let arguments = |rate: &'static str| {
        let mut all = common.to_vec();
        for set in once.into_iter().chain([rate]) {
            all.extend(["--set", set]);
        }
        all
    };
    let mut running = Running::start(&dir, &arguments("sources.tx.generator.rate=1000"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while broker.consume(&names.features).is_empty() {
        assert!(Instant::now() < deadline, "nothing arrives: {}", running.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    broker.freeze();
    std::thread::sleep(Duration::from_secs(3));
    running.child.kill().expect("a process");
    let _ = running.child.wait();
    broker.thaw();
    let mut running = Running::start(&dir, &arguments("sources.tx.generator.rate=max"));
    let status = running.ends_within(Duration::from_secs(90));
    assert!(status.success(), "{}", running.log());
    let sent: BTreeSet<i64> =
        broker.consume(&names.features).iter().map(|m| json(m)["_offset"].as_i64().expect("an offset")).collect();
    let tables = tidemill::store::offline::read_table(&dir.path().join("lake/features/customer"), None, None);
    let offsets = tables.expect("the table").into_iter().flat_map(|rows| {
        let offsets = rows.column_by_name("_offset").expect("a column").as_primitive::<Int64Type>().clone();
        (0..offsets.len()).map(|row| offsets.value(row)).collect::<Vec<_>>()
    });
    let kept: BTreeSet<i64> = offsets.collect();
    assert!(kept.len() > 1000);
    assert_eq!(kept.difference(&sent).count(), 0, "rows that the table has and the topic lacks");
}

#[test]
fn a_job_that_is_stopped_without_its_broker_says_what_is_missing() {
    let Some(mut broker) = Broker::own() else { return };
    let names = names(&broker);
    let dir = TempDir::new().expect("a temporary folder");
    job(&dir, &broker.address(), &names, 20_000_000);
    broker.stop();
    let mut running = Running::start(&dir, &["--set", "sources.tx.generator.rate=500"]);
    std::thread::sleep(Duration::from_secs(2));
    running.interrupt();
    let status = running.ends_within(Duration::from_secs(40));
    let log = running.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("not delivered:") && log.contains(&format!("to `{}`", names.features)), "{log}");

    // A second interrupt does not wait.
    let mut running = Running::start(&dir, &["--set", "sources.tx.generator.rate=500"]);
    std::thread::sleep(Duration::from_secs(2));
    running.interrupt();
    std::thread::sleep(Duration::from_millis(300));
    running.interrupt();
    assert_eq!(running.ends_within(Duration::from_secs(3)).code(), Some(130), "{}", running.log());
}

#[test]
fn a_topic_that_is_not_there_ends_the_job() {
    let Some(broker) = Broker::start() else { return };
    let mut names = names(broker);
    names.sets = topic("nowhere");
    let dir = TempDir::new().expect("a temporary folder");
    job(&dir, &broker.address(), &names, 30_000);
    let soon = "feature_sets.inputs.to.kafka.properties={topic.metadata.propagation.max.ms: \"1000\"}";
    let mut running = Running::start(&dir, &["--until-end", "--set", soon]);
    let status = running.ends_within(Duration::from_secs(40));
    let log = running.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("topic `{}`", names.sets)) && log.contains("Unknown topic"), "{log}");
}

#[test]
fn messages_name_the_schema_that_a_registry_holds() {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let Some(broker) = Broker::start() else { return };
    let Some(server) = crate::registry::Server::start() else { return };
    let names = names(broker);
    let dir = TempDir::new().expect("a temporary folder");
    let url = format!("{{url: \"{}\"}}", server.open);
    let lake = job(&dir, &broker.address(), &names, 30_000).set("feature_sets.inputs.to.kafka.registry", &url).run();

    let messages = broker.consume(&names.sets);
    let first = messages[0].payload().expect("a payload");
    let id = u32::from_be_bytes(first[1..5].try_into().expect("four bytes"));
    let registered = server.registry().latest(&format!("{}-value", names.sets)).expect("an answer").expect("a schema");
    assert_eq!((first[0], id), (0, registered.id));
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), AvroSchema::new(registered.text)).expect("a schema");
    let mut decoder = ReaderBuilder::new().with_writer_schema_store(store).with_batch_size(1 << 16).build_decoder();
    let decoder = decoder.as_mut().expect("a decoder");
    for message in &messages {
        let payload = message.payload().expect("a payload");
        assert_eq!(decoder.decode(payload).expect("a datum"), payload.len());
    }
    let read = decoder.flush().expect("rows").expect("rows");
    assert_eq!(table_rows(&read), table_rows(&lake.table("feature_sets/inputs", None)));
}

//! `tidemill generate` against a real broker.

use std::process::{Command, Output};

use rdkafka::Message;
use rdkafka::message::OwnedMessage;
use serde_json::Value;

use crate::support::kafka::{Broker, topic};

fn generate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemill")).arg("generate").args(arguments).output().expect("tidemill starts")
}

fn sent(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn rows(messages: &[OwnedMessage]) -> Vec<Value> {
    let mut rows: Vec<Value> =
        messages.iter().map(|m| serde_json::from_slice(m.payload().expect("a payload")).expect("JSON")).collect();
    rows.sort_by_key(|row| row["tx_id"].as_i64());
    rows
}

fn time(row: &Value, column: &str) -> i64 {
    tidemill::base::parse_time(row[column].as_str().expect("a time")).expect("a time")
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_micros() as i64
}

#[test]
fn live_traffic_is_paced_and_its_labels_follow() {
    let Some(broker) = Broker::start() else { return };
    let (payments, labels) = (topic("payments"), topic("labels"));
    let before = now();
    let output = generate(&[
        "--brokers",
        &broker.address(),
        "--transactions-topic",
        &payments,
        "--labels-topic",
        &labels,
        "--create-topics",
        "--partitions",
        "2",
        "--rate",
        "400",
        "--duration",
        "2s",
        "--label-delay",
        "1s",
        "--json",
    ]);
    let after = now();
    let report = sent(&output);
    let messages = broker.consume(&payments);
    assert_eq!(report["transactions"], messages.len());
    assert!((700..=800).contains(&messages.len()), "{} payments in two seconds at 400 per second", messages.len());
    for message in &messages {
        let row: Value = serde_json::from_slice(message.payload().expect("a payload")).expect("JSON");
        assert_eq!(message.key().expect("a key"), row["customer_id"].to_string().as_bytes());
        let ts = time(&row, "ts");
        assert!(before <= ts && ts <= after, "{row}");
    }
    let found = rows(&messages);
    assert!(found.windows(2).all(|pair| time(&pair[1], "ts") - time(&pair[0], "ts") == 2_500), "evenly spaced");
    let labels = broker.consume(&labels);
    assert_eq!(report["labels"], labels.len());
    assert!((280..=420).contains(&labels.len()), "{} labels known a second later", labels.len());
    let late: Vec<i64> = rows(&labels)
        .iter()
        .zip(&found)
        .map(|(label, payment)| {
            assert_eq!(label["tx_id"], payment["tx_id"]);
            time(label, "known_at") - time(payment, "ts")
        })
        .collect();
    assert!(late.iter().all(|late| *late == 1_000_000), "{late:?}");
}

#[test]
fn a_world_of_its_own_times_is_the_generators() {
    use tidemill::ingest::generator::{Generator, schema};
    use tidemill::plan::model::{GeneratorConnector, GeneratorStream, Rate};
    let Some(broker) = Broker::start() else { return };
    let (payments, labels) = (topic("payments"), topic("labels"));
    let arguments = |extra: &[&'static str]| {
        let mut all: Vec<String> =
            ["--brokers", &broker.address(), "--transactions-topic", &payments, "--labels-topic"]
                .map(str::to_owned)
                .to_vec();
        all.push(labels.clone());
        let fixed = "--create-topics --times world --rate max --events 3000 --seed 5 --customers 100 --terminals 50 --start 2026-01-05 --label-delay 1d --json";
        all.extend(fixed.split(' ').chain(extra.iter().copied()).map(str::to_owned));
        all
    };
    let run = |extra: &[&'static str]| {
        let all = arguments(extra);
        generate(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(sent(&run(&["--all-labels"]))["labels"], 3_000);
    let start = tidemill::base::parse_time("2026-01-05").expect("a time");
    let world = GeneratorConnector {
        stream: GeneratorStream::Labels,
        seed: 5,
        customers: 100,
        terminals: 50,
        start,
        duration: None,
        label_delay: 86_400_000_000,
        drift_after: None,
        rate: Rate::Max,
    };
    for (stream, name) in [(GeneratorStream::Transactions, &payments), (GeneratorStream::Labels, &labels)] {
        let mut generator =
            Generator::new(&GeneratorConnector { stream, ..world.clone() }, &schema(stream)).expect("a world");
        let expected = generator.read(3_000).expect("rows");
        let found = rows(&broker.consume(name));
        assert_eq!(found.len(), 3_000);
        for (row, found) in found.iter().enumerate() {
            for (field, column) in expected.schema().fields().iter().zip(expected.columns()) {
                let text = arrow::util::display::array_value_to_string(column, row).expect("a text");
                match &found[field.name()] {
                    Value::String(s) if s.ends_with('Z') => {
                        assert_eq!(tidemill::base::parse_time(s), tidemill::base::parse_time(&text));
                    }
                    Value::String(s) => assert_eq!(*s, text),
                    number => assert_eq!(number.as_f64(), text.parse().ok(), "{field}"),
                }
            }
        }
    }
}

#[test]
fn what_is_missing_is_said() {
    let nobody = generate(&["--brokers", "127.0.0.1:9", "--events", "1"]);
    let text = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text.starts_with("error: no broker answers at 127.0.0.1:9"), "{text}");
    let speed = generate(&["--speed", "2"]);
    assert_eq!(speed.status.code(), Some(2), "{}", String::from_utf8_lossy(&speed.stderr));
    let Some(broker) = Broker::start() else { return };
    let absent = topic("absent");
    let missing = generate(&["--brokers", &broker.address(), "--transactions-topic", &absent, "--no-labels"]);
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text.contains(&format!("there is no topic `{absent}`")) && text.contains("--create-topics"), "{text}");
}

//! The golden jobs with their events in topics of three partitions give the same bytes as from files.
//!
//! Partitions and offsets are other positions than lines of a file, and ticks are cut elsewhere: `_partition`, `_offset` and
//! `_tick` differ, and nothing else does. Rows of one entity are in one partition, as producers with keys write them, so
//! that equal times keep their order.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::json::LineDelimitedWriter;
use std::sync::Arc;
use tempfile::TempDir;

use crate::support::kafka::{Broker, Record, send, topic};
use crate::support::rows::{assert_same_rows, read_parquet, without};
use crate::support::{Job, full, golden_data, root};

const PARTITIONS: usize = 3;

/// What differs between a topic and a file.
const POSITION: [&str; 3] = ["_tick", "_partition", "_offset"];

#[test]
fn flights_from_topics_equal_those_from_files() {
    let (Some(data), Some(broker)) = (golden_data("flights"), Broker::start()) else { return };
    let (dir, flights, weather) = (TempDir::new().expect("a folder"), topic("flights"), topic("weather"));
    publish(broker, &flights, &read_parquet(&data.join("flights.parquet")), "origin", dir.path());
    publish(broker, &weather, &read_parquet(&data.join("weather.parquet")), "origin", dir.path());
    let job =
        on_kafka("flight_delay", broker, dir.path(), &[("flights.parquet", &flights), ("weather.parquet", &weather)]);
    let table = "feature_sets/flight_inputs";
    let files = Job::new("dataflows/flight_delay.yaml").env("DATA", &data).run().table(table, None);
    assert_eq!(files.num_rows(), 122_639, "one row per flight that has a schedule");
    for workers in [1, 3] {
        let lake = job.clone().workers(workers).run();
        let found = lake.table(table, None);
        assert_same_rows(&format!("{workers} workers"), &without(&files, &POSITION), &without(&found, &POSITION));
        assert_eq!(distinct(&found, "_partition"), [0, 1, 2], "all partitions were read");
        assert_eq!(lake.summary.dead_letters, 0);
    }
}

#[test]
fn the_handbook_from_topics_equals_that_from_files() {
    let (Some(data), Some(broker)) = (golden_data("fraud"), Broker::start()) else { return };
    // Long enough for the windows of 1 and 7 days behind a delay of 7; everything when the long suites are asked for.
    let days = if full() { i32::MAX } else { 24 };
    let (dir, name) = (TempDir::new().expect("a folder"), topic("transactions"));
    let rows = read_parquet(&data.join("transactions.parquet"));
    let ages = cast(rows.column_by_name("TX_TIME_DAYS").expect("a column"), &DataType::Int64).expect("numbers");
    let early = ages.as_primitive::<Int64Type>().values().iter().take_while(|day| **day < i64::from(days)).count();
    publish(broker, &name, &rows.slice(0, early), "CUSTOMER_ID", dir.path());
    let job = on_kafka("fraud_handbook", broker, dir.path(), &[("transactions*.parquet", &name)]);
    let slice = |source: &str| (format!("sources.{source}.where"), format!("TX_TIME_DAYS < {days}"));
    let table = "predictions/fraud";
    let mut files = Job::new("dataflows/fraud_handbook.yaml").env("DATA", &data);
    for (source, columns) in [
        ("tx", "[TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT, TX_TIME_DAYS]"),
        ("labels", "[TRANSACTION_ID, TX_DATETIME, TX_FRAUD, TX_TIME_DAYS]"),
    ] {
        let (key, condition) = slice(source);
        files = files.set(&key, &condition).set(&format!("sources.{source}.columns"), columns);
    }
    let files = files.run().table(table, None);
    assert_eq!(files.num_rows(), early);
    for workers in [1, 3] {
        let found = job.clone().workers(workers).run().table(table, None);
        assert_same_rows(&format!("{workers} workers"), &without(&files, &POSITION), &without(&found, &POSITION));
    }
}

/// The job of the repository with each source's file replaced by the topic that has its rows, in order of event time.
fn on_kafka(job: &str, broker: &Broker, dir: &Path, topics: &[(&str, &str)]) -> Job {
    let mut text = fs::read_to_string(root().join(format!("dataflows/{job}.yaml"))).expect("a job");
    for (file, topic) in topics {
        let file = format!("file: {{path: \"${{DATA}}/{file}\"}}");
        assert!(text.contains(&file), "{job} reads no {file}");
        let kafka = format!("kafka: {{brokers: \"{}\", topic: {topic}}}", broker.address());
        text = text.replace(&file, &format!("{kafka}\n    schema: \"{}/{topic}.avsc\"", dir.display()));
    }
    text.push_str("\norder: event_time\n");
    let file = dir.join("job.yaml");
    fs::write(&file, text).expect("a file");
    Job::new(file)
}

/// Writes rows as JSON to a topic of three partitions, by a key, and their Avro schema to a file of the topic's name.
fn publish(broker: &Broker, topic: &str, rows: &RecordBatch, key: &str, dir: &Path) {
    fs::write(dir.join(format!("{topic}.avsc")), avsc(&rows.schema())).expect("a file");
    broker.create_topic(topic, PARTITIONS);
    let mut lines = Vec::new();
    LineDelimitedWriter::new(&mut lines).write(rows).expect("rows as JSON");
    let keys = cast(rows.column_by_name(key).expect("the key"), &DataType::Utf8).expect("text");
    let keys = keys.as_string::<i32>();
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    // Keys are numbered as they come, so that three airports are three partitions.
    let mut numbers: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let producer = broker.producer(&[]);
    let records = lines.enumerate().map(|(row, line)| {
        let next = numbers.len();
        let number = *numbers.entry(keys.value(row)).or_insert(next);
        Record {
            key: Some(keys.value(row).as_bytes().to_vec()),
            ..Record::to(i32::try_from(number % PARTITIONS).expect("few"), line)
        }
    });
    send(&producer, topic, records);
    rdkafka::producer::Producer::flush(&producer, std::time::Duration::from_secs(60))
        .expect("the broker takes the rows");
}

/// An Avro schema for rows of a Parquet file.
fn avsc(schema: &SchemaRef) -> String {
    let fields: Vec<serde_json::Value> = schema.fields().iter().map(|field| avro_field(field)).collect();
    serde_json::json!({"type": "record", "name": "row", "fields": fields}).to_string()
}

fn avro_field(field: &Field) -> serde_json::Value {
    let data_type = match field.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => serde_json::json!("int"),
        DataType::Int64 => serde_json::json!("long"),
        DataType::Float64 => serde_json::json!("double"),
        DataType::Utf8 | DataType::Dictionary(..) => serde_json::json!("string"),
        DataType::Date32 => serde_json::json!({"type": "int", "logicalType": "date"}),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            serde_json::json!({"type": "long", "logicalType": "timestamp-millis"})
        }
        other => panic!("{}: {other}", field.name()),
    };
    serde_json::json!({"name": field.name(), "type": ["null", data_type]})
}

fn distinct(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = cast(batch.column_by_name(column).expect("a column"), &DataType::Int64).expect("numbers");
    let values: std::collections::BTreeSet<i64> = column.as_primitive::<Int64Type>().values().iter().copied().collect();
    values.into_iter().collect()
}

#[test]
fn schemas_of_parquet_files_become_avro() {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int8, true)]));
    assert_eq!(avsc(&schema), r#"{"fields":[{"name":"n","type":["null","int"]}],"name":"row","type":"record"}"#);
}

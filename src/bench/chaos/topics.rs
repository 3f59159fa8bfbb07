//! The job's topics: made, filled with what the generator makes, read as a consumer reads them, removed.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::job;
use crate::base::format_time;
use crate::ingest::generator::{Generator, schema};
use crate::kafka::client_config;
use crate::plan::model::Connector;

/// Partitions of each topic but that of labels.
const PARTITIONS: i32 = 2;
/// How long things that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names of a job's topics.
#[derive(Clone, Debug)]
pub struct Names {
    /// Read: transactions.
    pub tx: String,
    /// Read: labels.
    pub labels: String,
    /// Written: features.
    pub features: String,
    /// Written: scores.
    pub scores: String,
    /// Written: what was published.
    pub ledger: String,
}

impl Names {
    /// Names that begin with `base`.
    pub fn new(base: &str) -> Names {
        let name = |end: &str| format!("{base}-{end}");
        Names {
            tx: name("tx"),
            labels: name("labels"),
            features: name("features"),
            scores: name("scores"),
            ledger: name("ledger"),
        }
    }

    /// The same input, and output of their own.
    pub fn with_output(&self, base: &str) -> Names {
        let Names { features, scores, .. } = Names::new(base);
        Names { features, scores, ..self.clone() }
    }
}

/// Does not log that a partition's end is reached.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}

/// Topics that are removed at the end.
pub struct Topics {
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    made: Vec<String>,
}

impl Topics {
    /// Connects.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn connect(brokers: &str) -> anyhow::Result<Topics> {
        let admin: AdminClient<DefaultClientContext> = client_config(brokers, &[], &[], &[])?.create()?;
        admin.inner().fetch_metadata(None, Duration::from_secs(10)).map_err(|error| {
            anyhow!("no broker answers at {brokers} ({error}); start one, or name another with --kafka HOST:PORT")
        })?;
        Ok(Topics { brokers: brokers.to_owned(), admin, made: Vec::new() })
    }

    /// Makes topics.
    ///
    /// # Errors
    /// When a broker refuses.
    pub fn make(&mut self, names: &[(&str, i32)]) -> anyhow::Result<()> {
        let wanted: Vec<_> =
            names.iter().map(|(n, count)| NewTopic::new(n, *count, TopicReplication::Fixed(-1))).collect();
        for made in runtime()?.block_on(self.admin.create_topics(&wanted, &AdminOptions::new()))? {
            made.map_err(|(name, error)| anyhow!("cannot make the topic {name}: {error}"))?;
        }
        self.made.extend(names.iter().map(|(name, _)| (*name).to_owned()));
        let deadline = Instant::now() + PATIENCE;
        while !self.are_led(names)? {
            ensure!(Instant::now() < deadline, "the topics have no leaders within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Makes the topics that a job writes.
    ///
    /// # Errors
    /// When a broker refuses.
    pub fn make_output(&mut self, names: &Names) -> anyhow::Result<()> {
        self.make(&[(&names.features, PARTITIONS), (&names.scores, PARTITIONS)])
    }

    /// Makes the topics that a job reads, and fills them with what the job in `dir` generates.
    ///
    /// # Errors
    /// When the brokers do not take it.
    pub fn make_input(&mut self, names: &Names, dir: &Path) -> anyhow::Result<()> {
        self.make(&[(&names.tx, PARTITIONS), (&names.labels, 1)])?;
        // The job makes it.
        self.made.push(names.ledger.clone());
        let producer: BaseProducer = client_config(&self.brokers, &[], &[("linger.ms", "5")], &[])?.create()?;
        for source in &job::plan(dir)?.sources {
            let Connector::Generator(connector) = &source.connector else { bail!("the job has a generator") };
            let mut generator = Generator::new(connector, &schema(connector.stream))?;
            let topic = if source.name.as_str() == "tx" { &names.tx } else { &names.labels };
            while let Some(rows) = generator.read(1000) {
                send(&producer, topic, &rows)?;
            }
        }
        producer.flush(PATIENCE).context("the brokers do not take the events")
    }

    fn are_led(&self, names: &[(&str, i32)]) -> anyhow::Result<bool> {
        let metadata = self.admin.inner().fetch_metadata(None, PATIENCE)?;
        Ok(names.iter().all(|(name, count)| {
            let topic = metadata.topics().iter().find(|topic| topic.name() == *name);
            topic.is_some_and(|t| {
                t.partitions().len() == *count as usize
                    && t.partitions().iter().all(|p| p.error().is_none() && p.leader() >= 0)
            })
        }))
    }

    /// The values of all committed messages of a topic.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn read(&self, topic: &str) -> anyhow::Result<Vec<Vec<u8>>> {
        let settings = [
            ("group.id", "tidemill-bench"),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("fetch.wait.max.ms", "20"),
        ];
        let consumer: BaseConsumer<Quiet> =
            client_config(&self.brokers, &[], &settings, &[])?.create_with_context(Quiet)?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let (mut values, mut ended) = (Vec::new(), 0);
        let deadline = Instant::now() + PATIENCE;
        while ended < PARTITIONS {
            ensure!(Instant::now() < deadline, "topic {topic} cannot be read to its end");
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => values.push(message.payload().unwrap_or_default().to_vec()),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => bail!("topic {topic}: {error}"),
                None => {}
            }
        }
        Ok(values)
    }

    /// Removes the topics that a job wrote.
    pub fn remove_output(&mut self, names: &Names) {
        self.remove(&[names.features.as_str(), names.scores.as_str()]);
    }

    fn remove(&mut self, names: &[&str]) {
        if let Ok(runtime) = runtime() {
            // Topics that stay are a nuisance, not a failure.
            let _ = runtime.block_on(self.admin.delete_topics(names, &AdminOptions::new()));
        }
        self.made.retain(|made| !names.contains(&made.as_str()));
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let made = std::mem::take(&mut self.made);
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        self.remove(&names);
    }
}

/// Sends rows as JSON, each customer's to one partition.
fn send(producer: &BaseProducer, topic: &str, rows: &RecordBatch) -> anyhow::Result<()> {
    let schema = rows.schema();
    let customers = rows.column_by_name("customer_id").map(AsArray::as_primitive::<Int64Type>);
    for row in 0..rows.num_rows() {
        let mut text = String::from("{");
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            let comma = if text.len() > 1 { "," } else { "" };
            match field.data_type() {
                DataType::Int64 => {
                    write!(text, "{comma}\"{}\":{}", field.name(), column.as_primitive::<Int64Type>().value(row))?;
                }
                DataType::Int32 => {
                    write!(text, "{comma}\"{}\":{}", field.name(), column.as_primitive::<Int32Type>().value(row))?;
                }
                DataType::Float64 => {
                    write!(text, "{comma}\"{}\":{:?}", field.name(), column.as_primitive::<Float64Type>().value(row))?;
                }
                DataType::Timestamp(..) => {
                    let time = column.as_primitive::<TimestampMicrosecondType>().value(row);
                    write!(text, "{comma}\"{}\":\"{}\"", field.name(), format_time(time))?;
                }
                // The job reads no texts.
                _ => {}
            }
        }
        text.push('}');
        let partition = customers.map_or(0, |c| (c.value(row) % i64::from(PARTITIONS)) as i32);
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(text.as_bytes());
        while let Err((error, back)) = producer.send(record) {
            ensure!(
                error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                "cannot send to {topic}: {error}"
            );
            producer.poll(Duration::from_millis(5));
            record = back;
        }
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?)
}

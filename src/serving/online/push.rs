//! `POST /push`: rows for a source on Kafka. They are produced to its topic and go through the job like any other event, so
//! both stores get what follows from them; the answer comes when the brokers have them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::Online;
use super::features::FeastError;
use crate::ingest::RequestReader;
use crate::kafka::{Bootstrap, Connection, Context, client_config};
use crate::plan::model::{Connector, KafkaConnector, MessageFormat, SourcePlan};

/// The brokers must have the rows by then.
const PATIENCE: Duration = Duration::from_secs(10);
const DEFAULTS: &[(&str, &str)] = &[("linger.ms", "1"), ("partitioner", "murmur2_random")];
/// A row that was answered with an error must not arrive much later.
const FIXED: &[(&str, &str)] = &[("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "8000")];

/// Feast's request.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct PushRequest {
    /// Name of a source on Kafka.
    pub push_source_name: String,
    /// The rows, column by column, all of one length.
    pub df: Map<String, Value>,
    /// `online` or `online_and_offline`: both stores get what follows from the rows in any case.
    #[serde(default)]
    pub to: Option<String>,
}

/// Producers by job and source.
#[derive(Default)]
pub struct Producers(Mutex<HashMap<(String, usize), Arc<Sender>>>);

/// A producer to the topic of a source.
struct Sender {
    producer: Arc<BaseProducer<Reports>>,
    topic: String,
    reader: RequestReader,
    closing: Arc<AtomicBool>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
    }
}

struct Reports(Context);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), String>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, told: Self::DeliveryOpaque) {
        match result {
            Ok(_) => self.0.0.back(),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) => {
                self.0.0.lost("a row was not acknowledged in time");
            }
            Err(_) => {}
        }
        let outcome = result.as_ref().map(|_| ()).map_err(|(error, _)| error.to_string());
        // Whoever asked may have gone.
        let _ = told.send(outcome);
    }
}

impl Sender {
    fn open(source: &SourcePlan, kafka: &KafkaConnector) -> Result<Sender, String> {
        let config =
            client_config(&kafka.brokers, &kafka.properties.0, DEFAULTS, FIXED).map_err(|error| error.to_string())?;
        let connection = Connection::new(format!("push to source `{}`", source.name), kafka.brokers.as_str());
        let producer: BaseProducer<Reports> =
            config.create_with_context(Reports(Context(connection.clone()))).map_err(|error| error.to_string())?;
        let producer = Arc::new(producer);
        let closing = Arc::new(AtomicBool::new(false));
        let (polled, stop) = (Arc::clone(&producer), Arc::clone(&closing));
        let poller = std::thread::Builder::new().name("tidemill-push".to_owned());
        let spawned = poller.spawn(move || {
            let bootstrap = Bootstrap::default();
            while !stop.load(Ordering::Acquire) || polled.in_flight_count() > 0 {
                polled.poll(Duration::from_millis(100));
                connection.tend(&bootstrap, polled.client());
            }
        });
        spawned.map_err(|error| error.to_string())?;
        let reader = RequestReader::new(source, Vec::new(), |_| true).map_err(|error| error.to_string())?;
        Ok(Sender { producer, topic: kafka.topic.clone(), reader, closing })
    }

    /// Hands rows to the producer and waits until the brokers have them.
    async fn send(&self, rows: Vec<(Option<Vec<u8>>, Vec<u8>)>) -> Result<(), String> {
        let mut waiting = Vec::with_capacity(rows.len());
        for (key, payload) in &rows {
            let (told, hear) = oneshot::channel();
            let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(told)).payload(payload);
            if let Some(key) = key {
                record = record.key(key);
            }
            loop {
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err((error, _)) => return Err(error.to_string()),
                }
            }
            waiting.push(hear);
        }
        for hear in waiting {
            hear.await.map_err(|_| "the producer was closed".to_owned())??;
        }
        Ok(())
    }
}

impl Producers {
    fn get(&self, job: &str, index: usize, source: &SourcePlan, kafka: &KafkaConnector) -> Result<Arc<Sender>, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = open.get(&(job.to_owned(), index)) {
            return Ok(Arc::clone(sender));
        }
        let sender = Arc::new(Sender::open(source, kafka)?);
        open.insert((job.to_owned(), index), Arc::clone(&sender));
        Ok(sender)
    }
}

/// Answers a request.
pub async fn answer(State(online): State<Arc<Online>>, body: Bytes) -> Response {
    match push(&online, &body).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => error.into_response(),
    }
}

async fn push(online: &Online, body: &[u8]) -> Result<(), FeastError> {
    let request: PushRequest = serde_json::from_slice(body)
        .map_err(|error| FeastError::bad(format!("the request cannot be read: {error}")))?;
    match request.to.as_deref() {
        None | Some("online" | "online_and_offline") => {}
        Some("offline") => {
            return Err(FeastError::unprocessable(
                "`to`: `offline` alone is not possible: a pushed row is an event, and both stores get what follows from it; write `online_and_offline`",
            ));
        }
        Some(other) => {
            return Err(FeastError::bad(format!("`to`: `{other}` is neither `online` nor `online_and_offline`")));
        }
    }
    let catalogue = online.catalogue();
    let at = catalogue.source(&request.push_source_name);
    let at = at.map_err(|what| FeastError::absent("PushSourceNotFoundException", what))?;
    let (job, name) = (&catalogue.jobs[at.job], &request.push_source_name);
    let source = &job.plan.sources[at.index];
    let Connector::Kafka(kafka) = &source.connector else {
        return Err(FeastError::unprocessable(format!(
            "source `{name}` is not on Kafka, so nothing can be pushed to it; give it a topic with `kafka: {{…}}`"
        )));
    };
    if !matches!(kafka.format, MessageFormat::Json) {
        return Err(FeastError::unprocessable(format!(
            "source `{name}` reads Avro, and pushing Avro is not built yet; use `format: json`, or produce to topic `{}` yourself",
            kafka.topic
        )));
    }
    let rows = rows(request.df, online.options.rows_max)?;
    let sender = online.producers.get(&job.name, at.index, source, kafka).map_err(FeastError::unavailable)?;
    let texts: Vec<Vec<u8>> = rows.iter().map(|row| serde_json::to_vec(row).unwrap_or_default()).collect();
    let payloads: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let read = sender.reader.read(&payloads).map_err(|error| FeastError::unprocessable(error.to_string()))?;
    if let Some((row, why)) = read.refused.first() {
        let others = read.refused.len() - 1;
        let others = if others > 0 { format!(" ({others} others are refused too)") } else { String::new() };
        return Err(FeastError::unprocessable(format!(
            "row {row} would be turned away by source `{name}`: {why}{others}; nothing was pushed"
        )));
    }
    let key = |row: &Map<String, Value>| match row.get(kafka.key.as_ref()?)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(other.to_string().into_bytes()),
    };
    let keyed = rows.iter().map(key).collect::<Vec<_>>().into_iter().zip(texts).collect();
    let brokers = &kafka.brokers;
    match tokio::time::timeout(PATIENCE, sender.send(keyed)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(what)) => Err(FeastError::unavailable(format!("topic `{}` on {brokers}: {what}", kafka.topic))),
        Err(_) => Err(FeastError::unavailable(format!(
            "topic `{}` on {brokers}: no acknowledgement within {} s; rows may or may not be there",
            kafka.topic,
            PATIENCE.as_secs()
        ))),
    }
}

/// Columns as rows.
fn rows(columns: Map<String, Value>, rows_max: usize) -> Result<Vec<Map<String, Value>>, FeastError> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut first: Option<String> = None;
    for (name, values) in columns {
        let Value::Array(values) = values else {
            return Err(FeastError::bad(format!("`df`: `{name}` is no list of values")));
        };
        if values.len() > rows_max {
            return Err(FeastError::bad(format!("{} rows in one request; {rows_max} are the most", values.len())));
        }
        match &first {
            None => {
                rows = vec![Map::new(); values.len()];
                first = Some(name.clone());
            }
            Some(first) if values.len() != rows.len() => {
                let (own, others) = (values.len(), rows.len());
                return Err(FeastError::bad(format!("`df` has {others} values of `{first}` and {own} of `{name}`")));
            }
            Some(_) => {}
        }
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(name.clone(), value);
        }
    }
    if rows.is_empty() { Err(FeastError::bad("`df` has no rows")) } else { Ok(rows) }
}

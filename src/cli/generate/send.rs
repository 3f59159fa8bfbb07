//! Sends a schedule's payments and labels.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use super::schedule::Schedule;
use super::{Format, GenerateArgs, Sent, generator};
use crate::base::{EventTime, format_time, wall_clock};
use crate::cli::failure::usage;
use crate::cli::output::grouped;
use crate::engine::StopHandle;
use crate::ingest::generator::Generator;
use crate::kafka::{Connection, Context as Client, client_config};
use crate::plan::model::{GeneratorConnector, GeneratorStream};
use crate::store::topic::{Encoding, KeyEncoder, Publisher, RowEncoder};

/// Rows made at once.
const CHUNK: usize = 1_024;
/// How long a broker may take to say which topics there are.
const PATIENCE: Duration = Duration::from_secs(10);
/// No sleep is longer, so that an interrupt is noticed.
const NAP: Duration = Duration::from_millis(50);
/// How often the line of progress is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How long brokers may take nothing after an interrupt.
const GRACE: Duration = Duration::from_secs(10);

/// Sends everything, and waits until the brokers have it.
pub fn send(
    args: &GenerateArgs,
    world: &GeneratorConnector,
    mut schedule: Schedule,
    stop: &StopHandle,
) -> anyhow::Result<Sent> {
    let labels = (!args.no_labels).then_some(&args.labels_topic);
    let topics: Vec<String> = std::iter::once(&args.transactions_topic).chain(labels).cloned().collect();
    let mut transactions = Feed::new(0, generator(world)?, args.format, 2);
    let mut findings = Feed::new(
        1,
        generator(&GeneratorConnector { stream: GeneratorStream::Labels, ..world.clone() })?,
        args.format,
        0,
    );
    prepare_topics(args, &topics)?;
    // Small batches are filled a little longer than a sink's: throughput counts here.
    let mut properties = vec![("linger.ms".to_owned(), "2".to_owned())];
    properties.extend(args.properties.iter().cloned());
    let publisher = Publisher::open(&args.brokers, &properties, &topics)?;
    let bar = progress_line();
    let (wall, started) = (Instant::now(), wall_clock());
    let mut behind = Duration::ZERO;
    let mut drawn = Instant::now();
    let asked = StopAsked { stop, publisher: &publisher, seen: std::cell::Cell::new((0, None)) };

    while !schedule.is_over(wall.elapsed()) && !stop.is_stopped() {
        let elapsed = wall.elapsed();
        transactions.fill(CHUNK, |ahead, world| schedule.time(ahead, world, elapsed, started))?;
        let Some((world, time)) = transactions.next() else { bail!("the generated world has come to its end") };
        let due = schedule.due(world, elapsed);
        if due > elapsed {
            std::thread::sleep((due - elapsed).min(nap(&schedule, elapsed, started)));
        } else {
            behind = behind.max(elapsed - due);
            transactions.send(&publisher, &|| asked.give_up())?;
            schedule.take(time);
        }
        let clock = if labels.is_some() { schedule.clock(wall.elapsed(), started) } else { EventTime::MAX };
        send_labels(&mut schedule, &mut findings, clock, labels.is_some(), &|findings| {
            findings.send(&publisher, &|| asked.give_up())
        })?;
        if drawn.elapsed() >= REDRAW {
            drawn = Instant::now();
            bar.set_message(progress(&schedule, &publisher, wall.elapsed(), started));
        }
    }
    if args.all_labels {
        send_labels(&mut schedule, &mut findings, EventTime::MAX, true, &|findings| {
            findings.send(&publisher, &|| asked.give_up())
        })?;
    }
    publisher.flush(&|| asked.give_up())?;
    bar.finish_and_clear();
    let seconds = wall.elapsed().as_secs_f64();
    let delivered = publisher.deliveries();
    let transactions = delivered[0].delivered;
    Ok(Sent {
        transactions,
        labels: delivered.get(1).map_or(0, |d| d.delivered),
        seconds,
        per_second: transactions as f64 / seconds,
        longest_behind_ms: behind.as_secs_f64() * 1e3,
    })
}

/// Sends the labels that are known by `clock`, or drops them where none are `wanted`.
fn send_labels(
    schedule: &mut Schedule,
    findings: &mut Feed,
    clock: EventTime,
    wanted: bool,
    send: &dyn Fn(&mut Feed) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while schedule.labels().next().is_some_and(|known| known <= clock) {
        if wanted {
            // Labels are in their payments' order, so the next row is the one that is due.
            let known: Vec<EventTime> = schedule.labels().take(CHUNK).collect();
            findings.fill(known.len(), |ahead, _| known[ahead as usize])?;
            send(findings)?;
        }
        schedule.take_label(clock);
    }
    Ok(())
}

/// How long to sleep at most: until the next label, or until it is time to look for an interrupt.
fn nap(schedule: &Schedule, elapsed: Duration, started: EventTime) -> Duration {
    let Some(known) = schedule.labels().next() else { return NAP };
    let left = known.saturating_sub(schedule.clock(elapsed, started));
    Duration::from_micros(left.max(500).unsigned_abs()).min(NAP)
}

/// Whether an interrupt was followed by a time in which the brokers took nothing.
struct StopAsked<'a> {
    stop: &'a StopHandle,
    publisher: &'a Publisher,
    seen: std::cell::Cell<(u64, Option<Instant>)>,
}

impl StopAsked<'_> {
    fn give_up(&self) -> bool {
        if !self.stop.is_stopped() {
            return false;
        }
        let (delivered, since) = self.seen.get();
        let now = self.publisher.delivered();
        let since = since.filter(|_| now == delivered).unwrap_or_else(Instant::now);
        self.seen.set((now, Some(since)));
        since.elapsed() > GRACE
    }
}

/// One stream of the generator on its way to a topic: some rows ahead, encoded.
struct Feed {
    slot: usize,
    generator: Generator,
    encoder: RowEncoder,
    key: KeyEncoder,
    /// Keys and payloads, one after the other.
    bytes: Vec<u8>,
    rows: VecDeque<Encoded>,
}

/// A row: its world's time, the time that it says, and where its key and payload are.
struct Encoded {
    world: EventTime,
    time: EventTime,
    key: Range<usize>,
    payload: Range<usize>,
}

impl Feed {
    fn new(slot: usize, generator: Generator, format: Format, key: usize) -> Feed {
        let encoding = match format {
            Format::Json => Encoding::Json,
            Format::Avro => Encoding::Avro(Vec::new()),
        };
        Feed {
            slot,
            generator,
            encoder: RowEncoder::new("generated traffic", encoding),
            key: KeyEncoder::new(vec![key]),
            bytes: Vec::new(),
            rows: VecDeque::new(),
        }
    }

    /// Makes up to `rows` rows when none is left; `time` tells what time each says, by its number and its world's time.
    fn fill(&mut self, rows: usize, time: impl Fn(u64, EventTime) -> EventTime) -> anyhow::Result<()> {
        if !self.rows.is_empty() {
            return Ok(());
        }
        let Some(batch) = self.generator.read(rows) else { return Ok(()) };
        let worlds = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let times: Vec<EventTime> = worlds.values().iter().zip(0..).map(|(world, ahead)| time(ahead, *world)).collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[1] = Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"));
        let stamped = RecordBatch::try_new(batch.schema(), columns)?;
        let encoded = self.encoder.bind(&stamped)?;
        self.bytes.clear();
        for (row, time) in times.into_iter().enumerate() {
            let start = self.bytes.len();
            self.key.write(&encoded, row, &mut self.bytes);
            let middle = self.bytes.len();
            encoded.write(row, &mut self.bytes);
            let (key, payload) = (start..middle, middle..self.bytes.len());
            self.rows.push_back(Encoded { world: worlds.value(row), time, key, payload });
        }
        Ok(())
    }

    /// The next row's own time and the time that it says.
    fn next(&self) -> Option<(EventTime, EventTime)> {
        self.rows.front().map(|row| (row.world, row.time))
    }

    /// Sends the next row.
    fn send(&mut self, publisher: &Publisher, give_up: &dyn Fn() -> bool) -> anyhow::Result<()> {
        if let Some(row) = self.rows.pop_front() {
            let (key, payload) = (&self.bytes[row.key], &self.bytes[row.payload]);
            publisher.send(self.slot, Some(key), payload, &[], give_up)?;
        }
        Ok(())
    }
}

/// Makes sure that the brokers are there, and the topics.
fn prepare_topics(args: &GenerateArgs, topics: &[String]) -> anyhow::Result<()> {
    let brokers = &args.brokers;
    let config = client_config(brokers, &[], &[], &[]);
    let config = match args.properties.is_empty() {
        true => config,
        // Settings of the connection serve here too; those of producers alone are no fault of an admin client.
        false => client_config(brokers, &args.properties, &[], &[]),
    };
    let client = Client(Connection::new("generate", brokers.as_str()));
    let admin: AdminClient<Client> = config.map_err(|e| usage(e.to_string()))?.create_with_context(client)?;
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).map_err(|error| {
        anyhow!("no broker answers at {brokers} ({error}); start one, or name another with --brokers HOST:PORT")
    })?;
    let missing: Vec<&str> =
        topics.iter().filter(|t| !metadata.topics().iter().any(|m| m.name() == *t)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !args.create_topics {
        let list = missing.join("` and `");
        bail!("there is no topic `{list}` at {brokers}; make it, or let it be made with --create-topics");
    }
    let wanted: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|name| NewTopic::new(name, i32::from(args.partitions), TopicReplication::Fixed(-1)))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("cannot start an async runtime")?;
    let made =
        runtime.block_on(admin.create_topics(&wanted, &AdminOptions::new().operation_timeout(Some(PATIENCE))))?;
    for outcome in made {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => bail!("cannot make the topic `{name}` at {brokers}: {error}"),
        }
    }
    Ok(())
}

/// A line on a terminal; nothing elsewhere.
fn progress_line() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.with_style(ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn progress(schedule: &Schedule, publisher: &Publisher, elapsed: Duration, started: EventTime) -> String {
    let rate = schedule.sent() as f64 / elapsed.as_secs_f64().max(1e-9);
    let delivered = publisher.deliveries();
    let waiting: u64 = delivered.iter().map(|d| d.sent - d.delivered.min(d.sent)).sum();
    let mut text = format!("{} payments, {} per second", grouped(schedule.sent()), grouped(rate as u64));
    if let Some(labels) = delivered.get(1) {
        text.push_str(&format!(", {} labels", grouped(labels.sent)));
    }
    text.push_str(&format!(", clock {}", format_time(schedule.clock(elapsed, started) / 1_000_000 * 1_000_000)));
    if waiting > 1_000 {
        text.push_str(&format!(", {} wait for the brokers", grouped(waiting)));
    }
    text
}

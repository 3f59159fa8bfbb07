//! `bench end_to_end --kafka`: topic → windows per card and per merchant → a logistic model → topic, under an open loop.
//!
//! Every event has a moment at which it is due, whatever became of those before it; its latency runs from that moment to
//! the arrival of its prediction at a plain consumer, so a stall counts for all events that it delays. The job is a process
//! of its own, with a tick log, as a user would run it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::Serialize;
use serde_json::Value;

use super::end_to_end::{Scratch, features};
use super::end_to_end_baseline::MODEL;
use crate::base::{format_time, wall_clock};
use crate::kafka::client_config;

/// Between the search for the limit and the measurement.
const CALM: Duration = Duration::from_secs(10);

/// Partitions of both topics.
const PARTITIONS: i32 = 4;
/// The rate at which the search begins, in events per second.
const FIRST_RATE: f64 = 1_000.0;
/// The doubling ends at the latest here.
const LAST_RATE: f64 = 2_000_000.0;
/// Cards and merchants of the traffic.
const CARDS: u64 = 50_000;
const MERCHANTS: u64 = 5_000;
/// The load generator sleeps so long at least, in microseconds: what is due meanwhile is late, and counted as that.
const NAP_MIN: i64 = 500;
/// How long things that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A rate is sustained where half of the events of the step's second half have their prediction within this time: a stall
/// passes, a backlog that grows by more than a few hundredths of the rate does not.
const SUSTAINED: Duration = Duration::from_millis(200);
/// The search ends when the lowest rate that was not sustained is at most so many times the highest that was.
const CLOSE: f64 = 1.1;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program itself.
    pub program: PathBuf,
    /// Brokers.
    pub brokers: String,
    /// Worker threads of the job.
    pub workers: u16,
    /// How long the figures are taken.
    pub seconds: f64,
    /// Events per second; without it half of the highest rate that is sustained.
    pub rate: Option<f64>,
    /// Changes to the job's file.
    pub sets: Vec<(String, String)>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The highest rate that was sustained, in events per second; none where a rate was given.
    pub saturation: Option<f64>,
    /// Whether the brokers were what gave in above it: most of the latency was there before they acknowledged the events.
    pub brokers_saturated: bool,
    /// Events per second offered while measuring.
    pub rate: f64,
    /// Seconds of it.
    pub seconds: f64,
    /// Worker threads of the job.
    pub workers: usize,
    /// Predictions measured.
    pub predictions: u64,
    /// From the moment at which an event was due until its prediction was there.
    pub latency_ms: Quantiles,
    /// ... until the broker acknowledged the event.
    pub produced_ms: Quantiles,
    /// ... until the prediction was handed to the job's producer, by its millisecond timestamp.
    pub published_ms: Quantiles,
    /// From there until the consumer had it.
    pub consumed_ms: Quantiles,
    /// In the job that is measured, from its start: from the cut of an event's tick to its score.
    pub cut_to_score_ms: Option<CutToScore>,
    /// CPU time of the job's process per event, where the system tells it.
    pub cpu_us_per_event: Option<f64>,
    /// CPU time per event of this process, which makes the events and counts the predictions.
    pub bench_cpu_us_per_event: Option<f64>,
    /// The steps of the search.
    pub steps: Vec<Step>,
}

/// A rate that was tried.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// Events per second offered.
    pub rate: f64,
    /// Half of the predictions of the second half were there after this many milliseconds.
    pub p50_ms: f64,
    /// ... and half of its events were acknowledged.
    pub produced_p50_ms: f64,
}

impl Step {
    fn sustained(&self) -> bool {
        self.p50_ms <= SUSTAINED.as_secs_f64() * 1e3
    }
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Half were faster.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1000 were faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// What the job says of itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CutToScore {
    /// Half were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
}

impl Quantiles {
    fn of(micros: impl Iterator<Item = i64>) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)?;
        for value in micros {
            histogram.saturating_record(value.max(1).unsigned_abs());
        }
        let ms = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
        Ok(Quantiles { p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max: histogram.max() as f64 / 1e3 })
    }
}

/// The job as a user would write it.
fn job(options: &Options, dir: &Path, topics: &Topics) -> String {
    format!(
        r#"job: bench_kafka
version: 1
order: arrival
sources:
  tx:
    kafka: {{brokers: "{brokers}", topic: {input}, format: json}}
    schema: "{dir}/tx.avsc"
    id: txn_id
    event_time: ts
    disorder: 5s
    idle_after: 1s
{features}models:
  fraud:
    versions: {{champion: "{dir}/fraud.onnx"}}
    inputs: inputs
    outputs: {{score: "probabilities[1]"}}
    to: {{kafka: {{brokers: "{brokers}", topic: {output}, key: card_id}}, delivery: at_least_once}}
"#,
        brokers = options.brokers,
        input = topics.input,
        output = topics.output,
        dir = dir.display(),
        features = features(),
    )
}

const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "txn_id", "type": "long"},
  {"name": "card_id", "type": "long"},
  {"name": "merchant_id", "type": "long"},
  {"name": "amount", "type": "double"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}}
]}"#;

/// Measures.
///
/// # Errors
/// When the brokers do not answer, or the job fails or does not keep up with the lowest rate.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(options.seconds >= 0.5, "--seconds {} is too short to measure anything", options.seconds);
    let clock = Clock::start();
    let steps = match options.rate {
        Some(_) => Vec::new(),
        None => search(options, &mut Setup::make(options, "search", clock)?)?,
    };
    let sustained = steps.iter().filter(|step| step.sustained()).map(|step| step.rate).reduce(f64::max);
    let saturated = steps.iter().filter(|step| !step.sustained()).min_by(|a, b| a.rate.total_cmp(&b.rate));
    let rate = match (options.rate, sustained, saturated) {
        (Some(rate), ..) => rate,
        (None, Some(rate), Some(_)) => rate / 2.0,
        (None, _, None) => bail!("the job keeps up with {LAST_RATE} events per second; give a --rate"),
        (None, None, _) => bail!("the job does not keep up with {FIRST_RATE} events per second"),
    };
    // With a job and topics of their own the figures are those of the rate, whatever was tried before it.
    let mut setup = Setup::make(options, "measure", clock)?;
    if options.rate.is_none() {
        // The brokers clean up after what the search has left.
        setup.offer(FIRST_RATE, CALM)?;
    }
    // The new rate settles before it is measured.
    setup.offer(rate, Duration::from_secs_f64(options.seconds / 4.0))?;
    setup.forget()?;
    let (cpu, own) = (setup.process.cpu_micros(), cpu_micros("self"));
    let sent = setup.offer(rate, Duration::from_secs_f64(options.seconds))?;
    let per_event = |before: Option<f64>, after: Option<f64>| Some((after? - before?) / sent.max(1) as f64);
    let (cpu, own) = (per_event(cpu, setup.process.cpu_micros()), per_event(own, cpu_micros("self")));
    let arrivals = setup.consumer.take();
    let produced = setup.load.acknowledged()?;
    let summary = setup.process.stop()?;
    let cut = |q: &str| summary["latency_ms"][q].as_f64();
    Ok(Report {
        saturation: sustained,
        brokers_saturated: saturated.is_some_and(|step| step.produced_p50_ms > step.p50_ms / 2.0),
        rate,
        seconds: options.seconds,
        workers: usize::from(options.workers),
        predictions: arrivals.len() as u64,
        latency_ms: Quantiles::of(arrivals.iter().map(|a| a.arrived - a.due))?,
        produced_ms: Quantiles::of(produced.into_iter().map(|(_, took)| took))?,
        published_ms: Quantiles::of(arrivals.iter().map(|a| a.published - a.due))?,
        consumed_ms: Quantiles::of(arrivals.iter().map(|a| a.arrived - a.published))?,
        cut_to_score_ms: cut("p50").zip(cut("p99")).map(|(p50, p99)| CutToScore { p50, p99 }),
        cpu_us_per_event: cpu,
        bench_cpu_us_per_event: own,
        steps,
    })
}

/// A job between two topics of its own, with its load and who counts its predictions. What is dropped leaves nothing.
struct Setup {
    load: Load,
    consumer: Arrivals,
    process: JobProcess,
    // Dropped behind what uses them.
    _topics: Topics,
    _dir: Scratch,
}

impl Setup {
    /// Starts it and sends a little until predictions come: topics are found, the model is loaded, connections stand.
    fn make(options: &Options, name: &str, clock: Clock) -> anyhow::Result<Setup> {
        let dir = Scratch::new(&format!("kafka-{name}"))?;
        let topics = Topics::make(&options.brokers, name)?;
        std::fs::write(dir.0.join("fraud.onnx"), MODEL)?;
        std::fs::write(dir.0.join("tx.avsc"), SCHEMA)?;
        std::fs::write(dir.0.join("job.yaml"), job(options, &dir.0, &topics))?;
        let consumer = Arrivals::start(&options.brokers, &topics.output, clock)?;
        let process = JobProcess::start(options, &dir.0)?;
        let load = Load::new(&options.brokers, &topics.input, clock)?;
        let mut setup = Setup { load, consumer, process, _topics: topics, _dir: dir };
        let deadline = Instant::now() + PATIENCE;
        while setup.consumer.count() == 0 {
            setup.load.offer(200.0, Duration::from_millis(250))?;
            setup.process.check()?;
            ensure!(Instant::now() < deadline, "no prediction came within {PATIENCE:?}");
        }
        setup.offer(FIRST_RATE, Duration::from_secs(1))?;
        Ok(setup)
    }

    /// Offers events at `rate` for `length` and waits for all their predictions; returns how many.
    fn offer(&mut self, rate: f64, length: Duration) -> anyhow::Result<u64> {
        let sent = self.load.offer(rate, length)?;
        self.consumer.drain(&self.load, &mut self.process)?;
        Ok(sent)
    }

    /// Lets go of what was measured so far.
    fn forget(&self) -> anyhow::Result<()> {
        self.consumer.take();
        self.load.acknowledged().map(drop)
    }
}

/// Doubles the rate until it is no longer sustained, and closes in on the limit between the last two.
fn search(options: &Options, setup: &mut Setup) -> anyhow::Result<Vec<Step>> {
    let (mut steps, mut rate, mut low, mut high) = (Vec::new(), FIRST_RATE, None::<f64>, None::<f64>);
    loop {
        // The limit is looked at for longer than what is far from it.
        let seconds = if high.is_some() { options.seconds / 2.0 } else { options.seconds / 4.0 };
        let step = attempt(rate, Duration::from_secs_f64(seconds), setup)?;
        steps.push(step);
        let known = if step.sustained() { &mut low } else { &mut high };
        *known = Some(rate);
        rate = match (low, high) {
            (Some(low), Some(high)) if high > low * CLOSE => (low * high).sqrt(),
            (Some(low), None) if low * 2.0 <= LAST_RATE => low * 2.0,
            _ => return Ok(steps),
        };
    }
}

/// Offers a rate for some time and waits for what became of it.
fn attempt(rate: f64, length: Duration, setup: &mut Setup) -> anyhow::Result<Step> {
    setup.forget()?;
    // What is due before may still have to do with the rate of the step before.
    let half = setup.load.clock.now() + length.as_micros() as i64 / 2;
    setup.offer(rate, length)?;
    let late =
        |all: Vec<(i64, i64)>| Quantiles::of(all.into_iter().filter(|(due, _)| *due >= half).map(|(_, took)| took));
    let arrivals = setup.consumer.take().iter().map(|a| (a.due, a.arrived - a.due)).collect();
    Ok(Step { rate, p50_ms: late(arrivals)?.p50, produced_p50_ms: late(setup.load.acknowledged()?)?.p50 })
}

/// Microseconds since the start, by a clock that does not jump, and the wall clock's time of the start.
#[derive(Clone, Copy)]
struct Clock {
    started: Instant,
    wall: i64,
}

impl Clock {
    fn start() -> Self {
        Clock { started: Instant::now(), wall: wall_clock() }
    }

    /// In wall-clock microseconds since 1970.
    fn now(self) -> i64 {
        self.wall + i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX / 2)
    }
}

/// The open loop.
struct Load {
    producer: ThreadedProducer<Acknowledged>,
    topic: String,
    clock: Clock,
    sent: u64,
    draw: u64,
    /// The latest second and its text.
    second: (i64, String),
    key: Vec<u8>,
}

/// Hears when events are acknowledged.
struct Acknowledged {
    clock: Clock,
    /// When an event was due, by the wall clock, and how long it took from there.
    latencies: Mutex<Vec<(i64, i64)>>,
    failed: AtomicU64,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        match result {
            Ok(_) => {
                let due = self.clock.wall + due as i64;
                let took = (due, self.clock.now() - due);
                self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Load {
    fn new(brokers: &str, topic: &str, clock: Clock) -> anyhow::Result<Load> {
        // As by default in librdkafka, and in Java's client since 4.0; without it the brokers are the limit. It counts as latency.
        let settings = [("linger.ms", "5"), ("acks", "all"), ("queue.buffering.max.messages", "1000000")];
        let config = client_config(brokers, &[], &settings, &[])?;
        let context = Acknowledged { clock, latencies: Mutex::default(), failed: AtomicU64::new(0) };
        let producer = config.create_with_context(context)?;
        Ok(Load {
            producer,
            topic: topic.to_owned(),
            clock,
            sent: 0,
            draw: 1,
            second: (i64::MIN, String::new()),
            key: Vec::new(),
        })
    }

    /// Offers events at `rate` for `length`; returns how many.
    fn offer(&mut self, rate: f64, length: Duration) -> anyhow::Result<u64> {
        let events = (rate * length.as_secs_f64()).ceil() as u64;
        let begin = self.clock.now();
        let mut payload = Vec::with_capacity(160);
        let mut next = 0;
        while next < events {
            let due = begin + (next as f64 / rate * 1e6) as i64;
            let now = self.clock.now();
            if due > now {
                std::thread::sleep(Duration::from_micros((due - now).clamp(NAP_MIN, 2_000).unsigned_abs()));
                continue;
            }
            self.send(due, &mut payload)?;
            next += 1;
        }
        self.sent += events;
        Ok(events)
    }

    fn send(&mut self, due: i64, payload: &mut Vec<u8>) -> anyhow::Result<()> {
        use std::io::Write;
        let mut draw = || {
            self.draw ^= self.draw << 13;
            self.draw ^= self.draw >> 7;
            self.draw ^= self.draw << 17;
            self.draw
        };
        let (card, merchant, cents) = (draw() % CARDS, draw() % MERCHANTS, draw() % 20_000);
        let (second, micros) = (due.div_euclid(1_000_000), due.rem_euclid(1_000_000));
        if self.second.0 != second {
            self.second = (second, format_time(second * 1_000_000).trim_end_matches('Z').to_owned());
        }
        payload.clear();
        write!(
            payload,
            r#"{{"txn_id":{due},"card_id":{card},"merchant_id":{merchant},"amount":{}.{:02},"ts":"{}.{micros:06}Z"}}"#,
            cents / 100,
            cents % 100,
            self.second.1
        )?;
        self.key.clear();
        write!(self.key, "{card}")?;
        let opaque = usize::try_from(due - self.clock.wall)?;
        let mut record = BaseRecord::with_opaque_to(&self.topic, opaque).key(&self.key).payload(payload.as_slice());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(anyhow!("cannot send: {error}")),
            }
        }
    }

    /// When the events since the last call were due, and the time from there until they were acknowledged.
    fn acknowledged(&self) -> anyhow::Result<Vec<(i64, i64)>> {
        self.producer.flush(PATIENCE).context("the brokers do not take the events")?;
        let context = self.producer.context();
        let failed = context.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} events were not taken by the brokers");
        Ok(std::mem::take(&mut *context.latencies.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A prediction that arrived: times in microseconds since 1970.
#[derive(Clone, Copy)]
struct Arrival {
    due: i64,
    published: i64,
    arrived: i64,
}

/// The consumer of the predictions.
struct Arrivals {
    list: Arc<Mutex<Vec<Arrival>>>,
    total: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Arrivals {
    fn start(brokers: &str, topic: &str, clock: Clock) -> anyhow::Result<Arrivals> {
        let settings = [("group.id", "tidemill-bench"), ("enable.auto.commit", "false"), ("fetch.wait.max.ms", "500")];
        let consumer: BaseConsumer = client_config(brokers, &[], &settings, &[])?.create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let mut arrivals = Arrivals { list: Arc::default(), total: Arc::default(), stop: Arc::default(), thread: None };
        let (list, total, stop) = (Arc::clone(&arrivals.list), Arc::clone(&arrivals.total), Arc::clone(&arrivals.stop));
        let read = move || {
            while !stop.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let arrived = clock.now();
                let Some(due) = message.payload().and_then(due_of) else { continue };
                let published = message.timestamp().to_millis().unwrap_or(0) * 1_000;
                list.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { due, published, arrived });
                total.fetch_add(1, Ordering::Release);
            }
        };
        arrivals.thread = Some(std::thread::Builder::new().name("bench-arrivals".to_owned()).spawn(read)?);
        Ok(arrivals)
    }

    fn count(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is a prediction for every event.
    fn drain(&self, load: &Load, process: &mut JobProcess) -> anyhow::Result<()> {
        let (mut deadline, mut seen) = (Instant::now() + PATIENCE, self.count());
        while self.count() < load.sent {
            std::thread::sleep(Duration::from_millis(5));
            process.check()?;
            if self.count() > seen {
                (deadline, seen) = (Instant::now() + PATIENCE, self.count());
            }
            ensure!(Instant::now() < deadline, "{} of {} predictions came", self.count(), load.sent);
        }
        Ok(())
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends without a result, and a panic of it has been reported.
            let _ = thread.join();
        }
    }
}

/// When the event of a prediction was due: its id.
fn due_of(payload: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\"txn_id\":";
    let at = payload.windows(NAME.len()).position(|w| w == NAME)? + NAME.len();
    let digits = payload[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&payload[at..at + digits]).ok()?.parse().ok()
}

/// The job's process.
struct JobProcess {
    child: Child,
    log: PathBuf,
}

impl JobProcess {
    fn start(options: &Options, dir: &Path) -> anyhow::Result<JobProcess> {
        let log = dir.join("log");
        let mut command = Command::new(&options.program);
        command.arg("run").arg(dir.join("job.yaml")).args(["--json", "--state"]).arg(dir.join("state"));
        command.args(["--workers", &options.workers.to_string()]);
        for (key, value) in &options.sets {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(dir.join("summary"))?)
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("cannot start the job")?;
        Ok(JobProcess { child, log })
    }

    /// Fails when the job has ended by itself.
    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the job has ended ({status}): {}", log.trim());
        }
        Ok(())
    }

    fn cpu_micros(&self) -> Option<f64> {
        cpu_micros(&self.child.id().to_string())
    }

    /// Interrupts the job and returns its summary.
    fn stop(&mut self) -> anyhow::Result<Value> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().context("cannot run kill")?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the job does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        let summary = std::fs::read_to_string(self.log.with_file_name("summary"))?;
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        serde_json::from_str(&summary).with_context(|| format!("the job left no summary: {}", log().trim()))
    }
}

/// CPU time of a process so far, in microseconds, where `/proc` tells it.
fn cpu_micros(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // User and system time, the 14th and 15th field, in hundredths of a second on every Linux.
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks * 1e4)
}

impl Drop for JobProcess {
    fn drop(&mut self) {
        // Usually it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two topics of a run, removed at its end.
struct Topics {
    admin: AdminClient<DefaultClientContext>,
    input: String,
    output: String,
}

impl Topics {
    fn make(brokers: &str, name: &str) -> anyhow::Result<Topics> {
        let admin: AdminClient<DefaultClientContext> = client_config(brokers, &[], &[], &[])?.create()?;
        admin.inner().fetch_metadata(None, Duration::from_secs(10)).map_err(|error| {
            anyhow!("no broker answers at {brokers} ({error}); start one, or name another with --brokers HOST:PORT")
        })?;
        let name = |end: &str| format!("tidemill-bench-{}-{name}-{end}", std::process::id());
        let topics = Topics { admin, input: name("in"), output: name("out") };
        // What is deleted goes at once: neither is it written to the disk nor does it take its place in memory.
        let new = |name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1)).set("file.delete.delay.ms", "0");
        let wanted = [new(topics.input.as_str()), new(topics.output.as_str())];
        for made in runtime()?.block_on(topics.admin.create_topics(&wanted, &AdminOptions::new()))? {
            made.map_err(|(name, error)| anyhow!("cannot make the topic {name}: {error}"))?;
        }
        let deadline = Instant::now() + PATIENCE;
        while !topics.are_led()? {
            ensure!(Instant::now() < deadline, "the topics have no leaders within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(topics)
    }

    /// Whether every partition has a leader: made is not yet ready.
    fn are_led(&self) -> anyhow::Result<bool> {
        let metadata = self.admin.inner().fetch_metadata(None, PATIENCE)?;
        let led = |name: &str| {
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            topic.is_some_and(|t| {
                t.partitions().len() == PARTITIONS as usize
                    && t.partitions().iter().all(|p| p.error().is_none() && p.leader() >= 0)
            })
        };
        Ok(led(&self.input) && led(&self.output))
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        if let Ok(runtime) = runtime() {
            // Topics that stay are a nuisance, not a failure of the measurement.
            let topics = [self.input.as_str(), self.output.as_str()];
            let _ = runtime.block_on(self.admin.delete_topics(&topics, &AdminOptions::new()));
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?)
}

//! `bench labels`: what statistics of predictions and labels cost a job, and how long a restart takes while a million
//! predictions wait for their labels.
//!
//! 1. The job of `bench end_to_end` with labels that come two days later, run with and without its monitor, in turn.
//! 2. A job whose model gives out what it takes in, over 45 days without labels but for one in a hundred; killed with
//!    `kill -9` when so many predictions wait, and restarted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use super::end_to_end::{DISORDER_S, Scratch, TABLE, features};
use super::end_to_end_baseline as baseline;
use super::recovery::{Job, number, unix_ms};
use super::w1_data::W1Data;
use crate::engine::{self, RunOptions};

/// Rows of a tick while the restart is measured.
const TICK_ROWS: u64 = 10_000;
/// Rows of an epoch then.
const EPOCH_ROWS: u64 = 100_000;
/// Seconds until the predictions wait.
const WAITING_S: u64 = 10;
/// A label comes after so long.
const DELAY_MS: i64 = 2 * 86_400_000;
/// First event of the restart's job: 2026-01-01T00:00:00Z, in milliseconds.
const START_MS: i64 = 1_767_225_600_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program itself.
    pub program: PathBuf,
    /// Events of the job whose throughput is measured.
    pub events: u64,
    /// Predictions that wait when the job is killed.
    pub waiting: u64,
    /// Worker threads.
    pub workers: u16,
    /// Times each side runs, in turn; the loss is the median of the pairs.
    pub runs: usize,
    /// Bins in which scores are counted; none counts each score for itself.
    pub bins: Option<u32>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events per run.
    pub events: u64,
    /// Worker threads.
    pub workers: u16,
    /// Without the monitor, median of million events per second.
    pub plain_m_events_per_s: f64,
    /// With it.
    pub monitored_m_events_per_s: f64,
    /// Lost, median of the pairs.
    pub loss_percent: f64,
    /// Of each pair.
    pub losses_percent: Vec<f64>,
    /// Processor time that the monitor adds, median of the pairs: others on the machine disturb it less.
    pub processor_time_added_percent: f64,
    /// Predictions that waited when the job was killed.
    pub waiting: u64,
    /// Bytes of the snapshot.
    pub state_bytes: u64,
    /// From the new process's start until the state is loaded.
    pub loaded_ms: f64,
    /// Ticks replayed.
    pub replayed_ticks: u64,
    /// From the new process's start until they are through the graph, and the graph of statistics is as it was.
    pub caught_up_ms: f64,
}

/// Measures.
///
/// # Errors
/// When a job fails, or ends before it could be measured.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let dir = Scratch::new("labels")?;
    let pairs = cost(options, &dir.0)?;
    let millions = options.events as f64 / 1e6;
    let losses: Vec<f64> = pairs.iter().map(|(plain, monitored)| 100.0 * (1.0 - plain.0 / monitored.0)).collect();
    let added = pairs.iter().map(|(plain, monitored)| 100.0 * (monitored.1 / plain.1 - 1.0)).collect();
    let (state_bytes, loaded_ms, replayed_ticks, caught_up_ms) = restart(options, &dir.0)?;
    Ok(Report {
        events: options.events,
        workers: options.workers,
        plain_m_events_per_s: millions / median(pairs.iter().map(|pair| pair.0.0).collect()),
        monitored_m_events_per_s: millions / median(pairs.iter().map(|pair| pair.1.0).collect()),
        loss_percent: median(losses.clone()),
        losses_percent: losses,
        processor_time_added_percent: median(added),
        waiting: options.waiting,
        state_bytes,
        loaded_ms,
        replayed_ticks,
        caught_up_ms,
    })
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    list.get(list.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The monitor, as a user would write it.
fn monitor(bins: Option<u32>) -> String {
    let scores = bins.map_or(String::new(), |bins| format!(", scores: {{bins: {bins}}}"));
    format!("monitors:\n  fraud: {{task: binary{scores}}}\n")
}

/// Seconds by the clock and of processor time.
type Seconds = (f64, f64);

/// Processor time of this process so far, in seconds.
fn processor_seconds() -> f64 {
    // SAFETY: all zero is a valid value of this plain record, and the call writes nothing else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// What it takes without the monitor and with it.
fn cost(options: &Options, dir: &Path) -> anyhow::Result<Vec<(Seconds, Seconds)>> {
    let (input, known, model) = (dir.join("tx.parquet"), dir.join("labels.parquet"), dir.join("fraud.onnx"));
    let data = W1Data {
        events: options.events as usize,
        cards: 100_000,
        span_ms: 10 * 86_400_000,
        disorder_ms: DISORDER_S * 1_000,
        ..W1Data::default()
    };
    data.write(&input)?;
    fs::write(&model, baseline::MODEL)?;
    let mut labels = Vec::new();
    for batch in data.batches() {
        labels.push(labels_of(&batch)?);
    }
    write(&known, &labels)?;
    let job = |turn: usize, monitor: &str| {
        let lake = dir.join(format!("lake-{turn}-{}", monitor.len()));
        let text = format!(
            r#"job: bench_labels
version: 1
order: event_time
checkpoint: {{interval: 1h, rows: 1000000}}
sources:
  tx:
    file: {{path: "{input}", format: parquet, rate: max}}
    id: txn_id
    event_time: ts
    disorder: {DISORDER_S}s
  known:
    file: {{path: "{known}", format: parquet, rate: max}}
    event_time: known_at
    disorder: {DISORDER_S}s
{features}sinks:
  offline: {{delta: {{uri: "{lake}"}}, tables: [{TABLE}, stats/accuracy]}}
models:
  fraud:
    versions: {{champion: "{model}"}}
    inputs: inputs
    outputs: {{score: "probabilities[1]"}}
labels:
  fraud: {{from: known, prediction: txn_id, value: is_fraud, within: 7d}}
{monitor}"#,
            input = input.display(),
            known = known.display(),
            lake = lake.display(),
            model = model.display(),
            features = features(),
        );
        let text = if monitor.is_empty() { text.replace(", stats/accuracy", "") } else { text };
        let (plan, _) = engine::load_text("bench labels", &text, &[], &|_| None)?;
        let options = RunOptions { workers: usize::from(options.workers), until_end: true, ..RunOptions::default() };
        let before = processor_seconds();
        let seconds = engine::run(plan, options)?.seconds;
        let took = (seconds, processor_seconds() - before);
        fs::remove_dir_all(&lake)?;
        anyhow::Ok(took)
    };
    let monitor = monitor(options.bins);
    (0..options.runs.max(1)).map(|turn| Ok((job(turn, "")?, job(turn, &monitor)?))).collect()
}

/// A label for every event, two days later; one in ten is positive, and those of large amounts more often.
fn labels_of(events: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let ids = events.column(0).as_primitive::<Int64Type>();
    let amounts = events.column(3).as_primitive::<Float64Type>().values();
    let times = events.column(4).as_primitive::<TimestampMillisecondType>().values();
    let positive = |(id, amount): (&i64, &f64)| {
        i32::from((id.wrapping_mul(2_654_435_761) as u32).is_multiple_of(10) || *amount > 500.0)
    };
    let columns: [(&str, ArrayRef); 3] = [
        ("txn_id", Arc::new(ids.clone())),
        ("known_at", Arc::new(TimestampMillisecondArray::from_iter_values(times.iter().map(|time| time + DELAY_MS)))),
        ("is_fraud", Arc::new(Int32Array::from_iter_values(ids.values().iter().zip(amounts).map(positive)))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn write(path: &Path, batches: &[RecordBatch]) -> anyhow::Result<()> {
    let schema = batches.first().context("no rows")?.schema();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    Ok(())
}

/// Bytes of the snapshot, milliseconds until it was loaded, ticks replayed, milliseconds until they were through.
fn restart(options: &Options, dir: &Path) -> anyhow::Result<(u64, f64, u64, f64)> {
    let events = options.waiting + options.waiting / 20;
    let (input, known, model) = (dir.join("events.parquet"), dir.join("few.parquet"), dir.join("identity.onnx"));
    let time = |id: u64| START_MS + (id as f64 / events as f64 * 45.0 * 86_400_000.0) as i64;
    let score = |id: u64| (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64;
    let rows = |ids: &[u64], delay: i64, value: &str| -> anyhow::Result<RecordBatch> {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id.cast_signed())))),
            ("at", Arc::new(TimestampMillisecondArray::from_iter_values(ids.iter().map(|id| time(*id) + delay)))),
            (value, Arc::new(Float64Array::from_iter_values(ids.iter().map(|id| score(*id))))),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    };
    let all: Vec<u64> = (0..events).collect();
    let few: Vec<u64> = (0..events).step_by(100).collect();
    write(&input, &all.chunks(65_536).map(|ids| rows(ids, 0, "score")).collect::<anyhow::Result<Vec<_>>>()?)?;
    write(&known, &[rows(&few, DELAY_MS, "truth")?])?;
    fs::write(&model, identity(1))?;
    let job = format!(
        r#"job: bench_labels_restart
version: 1
order: event_time
tick: {{rows: {TICK_ROWS}}}
checkpoint: {{interval: 1h, rows: {EPOCH_ROWS}}}
sources:
  tx: {{file: {{path: "{input}", format: parquet}}, id: id, event_time: at, disorder: 0s}}
  known: {{file: {{path: "{known}", format: parquet}}, event_time: at, disorder: 0s}}
feature_sets:
  inputs: {{on: tx, take: [score]}}
sinks:
  offline: {{delta: {{uri: "{lake}"}}, tables: [stats/accuracy]}}
models:
  fraud: {{versions: {{champion: "{model}"}}, inputs: inputs, outputs: {{p: "y"}}}}
labels:
  fraud: {{from: known, prediction: id, value: truth, within: 45d}}
{monitor}"#,
        input = input.display(),
        known = known.display(),
        lake = dir.join("lake").display(),
        model = model.display(),
        monitor = monitor(options.bins),
    );
    fs::write(dir.join("restart.yaml"), job)?;
    let state = dir.join("state");
    let start = |what: &str, sets: &[String]| -> anyhow::Result<Job> {
        let mut command = Command::new(&options.program);
        command.arg("run").arg(dir.join("restart.yaml")).args(["--json", "--until-end", "--state"]).arg(&state);
        command.args(["--workers", &options.workers.to_string()]).stdin(Stdio::null());
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        Job::spawn(command, what, dir)
    };
    // Slow enough for checkpoints to keep up, so that it is the state that is loaded and not the input that is read again.
    let rate = options.waiting / WAITING_S;
    let ticks = options.waiting / TICK_ROWS;
    let paced = [format!("sources.tx.file.rate={rate}"), "tick.interval=1h".to_owned()];
    start("killed", &paced)?.reads(&state, ticks)?.kill()?;
    let spawned = unix_ms();
    let summary = start("restarted", &[])?.end()?;
    ensure!(number(&summary, "/recovery/state_bytes")? > 0.0, "the job had saved nothing when it was killed");
    let process = (number(&summary, "/recovery/began_unix_ms")? - spawned).max(0.0);
    let of = |name: &str| number(&summary, &format!("/recovery/{name}"));
    Ok((
        of("state_bytes")? as u64,
        process + of("loaded_ms")?,
        of("replayed_ticks")? as u64,
        process + of("caught_up_ms")?,
    ))
}

/// An ONNX file whose output `y` is its input `x`, rows of `width` doubles: its scores are columns of the input.
///
/// # Panics
/// When `width` is more than 127.
pub fn identity(width: u8) -> Vec<u8> {
    // Protobuf by hand: a field with a length, which is given two bytes, and a small number.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, (bytes.len() & 0x7f) as u8 | 0x80, (bytes.len() >> 7) as u8];
        out.extend_from_slice(bytes);
        out
    }
    fn small(field: u8, value: u8) -> Vec<u8> {
        assert!(value < 128, "one byte is enough");
        vec![field << 3, value]
    }
    let shape = [field(1, &field(2, b"N")), field(1, &small(1, width))].concat();
    let tensor = [small(1, 11), field(2, &shape)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [field(1, &node), field(2, b"identity"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    [small(1, 8), field(7, &graph), field(8, &[field(1, b""), small(2, 17)].concat())].concat()
}

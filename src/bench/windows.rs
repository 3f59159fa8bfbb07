//! `bench windows` (W1): trailing windows per card and per merchant over a disordered stream, beside a hand-written loop.
//!
//! The job is compiled from text by the same compiler as any dataflow file; nothing in the engine knows this workload. The
//! baseline decodes the same Parquet file, puts the rows in order and computes the same columns in one thread.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use super::checksum::Checksum;
use super::w1_data::W1Data;
use super::windows_baseline;
use crate::engine::{self, RunOptions, RunSummary, Tap};
use crate::ops::order::merge_sorted;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Events to make up, unless `input` is given.
    pub events: u64,
    /// Tiles of 1/60 of each window instead of exact windows.
    pub tiled: bool,
    /// Worker threads.
    pub workers: usize,
    /// Events to read instead.
    pub input: Option<PathBuf>,
    /// Where to write every row's features.
    pub out: Option<PathBuf>,
    /// Times each side runs, in turn; the figures are medians.
    pub runs: usize,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events per run.
    pub events: u64,
    /// Whether windows were kept as tiles.
    pub tiled: bool,
    /// Worker threads of the engine.
    pub workers: usize,
    /// Engine, median wall seconds.
    pub engine_seconds: f64,
    /// Engine, million events per second.
    pub engine_m_events_per_s: f64,
    /// Hand-written loop, median wall seconds.
    pub baseline_seconds: f64,
    /// Hand-written loop, million events per second.
    pub baseline_m_events_per_s: f64,
    /// Engine time over baseline time, median of the pairs.
    pub ratio: f64,
    /// Keys of the engine's views at the end.
    pub keys: u64,
    /// Bytes of view state per key.
    pub bytes_per_key: f64,
    /// Longest time between two ticks leaving the last view, in milliseconds.
    pub longest_stall_ms: f64,
    /// Whether both sides computed the same bits; not known for given data.
    pub same_results: Option<bool>,
}

/// Names of the output columns, in order.
const OUTPUTS: [&str; 14] = [
    "card_count_1h",
    "card_count_24h",
    "card_sum_1h",
    "card_sum_24h",
    "card_mean_1h",
    "card_mean_24h",
    "card_min_1h",
    "card_min_24h",
    "card_max_1h",
    "card_max_24h",
    "card_stddev_1h",
    "card_stddev_24h",
    "merchant_count_1h",
    "merchant_mean_1h",
];

/// The job as a user would write it.
pub fn job(input: &Path, event_time: &str, disorder_us: i64, tiled: bool) -> String {
    let resolution = if tiled { ", resolution: 1/60" } else { "" };
    format!(
        r#"job: bench_windows
version: 1
order: event_time
sources:
  tx:
    file: {{path: "{path}", format: parquet, rate: max}}
    id: txn_id
    event_time: {event_time}
    disorder: {disorder_us}us
features:
  card:
    from: tx
    entity: [card_id]
    aggregates:
      count: {{count: "*", over: [1h, 24h]{resolution}}}
      sum: {{sum: amount, over: [1h, 24h]{resolution}}}
      mean: {{mean: amount, over: [1h, 24h]{resolution}}}
      min: {{min: amount, over: [1h, 24h]{resolution}}}
      max: {{max: amount, over: [1h, 24h]{resolution}}}
      stddev: {{stddev: amount, over: [1h, 24h]{resolution}}}
  merchant:
    from: tx
    entity: [merchant_id]
    aggregates:
      count: {{count: "*", over: [1h]{resolution}}}
      mean: {{mean: amount, over: [1h]{resolution}}}
feature_sets:
  w1: {{on: tx, take: [txn_id, card.*, merchant.*]}}
"#,
        path = input.display()
    )
}

/// Measures, or computes the features of given data.
///
/// # Errors
/// When files cannot be read or written, or the input lacks a column.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let input = match &options.input {
        Some(input) => input.clone(),
        None => made_up(options.events)?,
    };
    let shape = InputShape::read(&input)?;
    let text = job(&input, shape.event_time, shape.disorder_us, options.tiled);
    let compile =
        || engine::load_text("bench windows", &text, &[], &|_| None).map(|(plan, _)| plan).map_err(anyhow::Error::from);
    if let Some(out) = &options.out {
        let rows = Collected::default();
        let summary = engine::run(compile()?, run_options(options.workers, Some(rows.tap())))?;
        rows.write(out)?;
        return Ok(report(options, &summary, vec![(summary.seconds, f64::NAN)], None));
    }
    // The baseline knows the shape of made-up data alone.
    let with_baseline = options.input.is_none();
    let mut pairs = Vec::new();
    let mut last = None;
    let mut same_results = true;
    for _ in 0..options.runs.max(1) {
        let values = Summed::default();
        let summary = engine::run(compile()?, run_options(options.workers, Some(values.tap())))?;
        let mut baseline_seconds = f64::NAN;
        if with_baseline {
            let baseline = windows_baseline::run(&input, options.tiled)?;
            same_results &= values.value() == baseline.checksum && summary.rows_read == baseline.events;
            baseline_seconds = baseline.seconds;
        }
        pairs.push((summary.seconds, baseline_seconds));
        last = Some(summary);
    }
    let Some(summary) = last else { bail!("no run was made") };
    Ok(report(options, &summary, pairs, with_baseline.then_some(same_results)))
}

/// A file of made-up events, kept between runs.
fn made_up(events: u64) -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join("tidemill-bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(format!("w1-{events}.parquet"));
    if !path.exists() {
        let unfinished = dir.join(format!("w1-{events}-{}.part", std::process::id()));
        W1Data { events: events as usize, ..W1Data::default() }.write(&unfinished)?;
        std::fs::rename(&unfinished, &path)?;
    }
    Ok(path)
}

fn report(options: &Options, summary: &RunSummary, pairs: Vec<(f64, f64)>, same_results: Option<bool>) -> Report {
    let events = summary.rows_read;
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let engine_seconds = median(pairs.iter().map(|p| p.0).collect());
    let baseline_seconds = median(pairs.iter().map(|p| p.1).collect());
    Report {
        events,
        tiled: options.tiled,
        workers: options.workers,
        engine_seconds,
        engine_m_events_per_s: events as f64 / engine_seconds / 1e6,
        baseline_seconds,
        baseline_m_events_per_s: events as f64 / baseline_seconds / 1e6,
        ratio: median(pairs.iter().map(|p| p.0 / p.1).collect()),
        keys: summary.keys,
        bytes_per_key: summary.state_bytes as f64 / summary.keys.max(1) as f64,
        longest_stall_ms: summary.longest_stall_ms,
        same_results,
    }
}

fn run_options(workers: usize, tap: Option<Tap>) -> RunOptions {
    RunOptions { workers, until_end: true, tap, ..RunOptions::default() }
}

/// What of the input's shape the job's text depends on.
struct InputShape {
    event_time: &'static str,
    disorder_us: i64,
}

impl InputShape {
    /// Reads the columns' names and types, and how far behind the newest event any event comes.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .with_context(|| format!("{} is not a Parquet file", path.display()))?;
        let schema = Arc::clone(builder.schema());
        for name in ["txn_id", "card_id", "merchant_id", "amount", "ts"] {
            ensure!(
                schema.index_of(name).is_ok(),
                "{} has no column `{name}`; it needs txn_id, card_id, merchant_id, amount and ts",
                path.display()
            );
        }
        let ts = schema.index_of("ts")?;
        let is_time = matches!(schema.field(ts).data_type(), DataType::Timestamp(..));
        let mask = parquet::arrow::ProjectionMask::roots(builder.parquet_schema(), [ts]);
        let (mut newest, mut disorder) = (i64::MIN, 0);
        for batch in builder.with_projection(mask).build()? {
            let batch = batch?;
            let column = if is_time {
                cast(batch.column(0), &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))?
            } else {
                Arc::clone(batch.column(0))
            };
            let scale = if is_time { 1 } else { 1_000 };
            let values = cast(&column, &DataType::Int64)?;
            for ts in values.as_primitive::<Int64Type>().iter().flatten() {
                newest = newest.max(ts);
                disorder = disorder.max((newest - ts) * scale);
            }
        }
        let event_time = if is_time { "ts" } else { "to_timestamp_millis(ts)" };
        Ok(InputShape { event_time, disorder_us: disorder })
    }
}

/// The output columns in the order in which the baseline sums them.
const SUMMED: [&str; 14] = [
    "card.count_1h",
    "card.sum_1h",
    "card.mean_1h",
    "card.min_1h",
    "card.max_1h",
    "card.stddev_1h",
    "card.count_24h",
    "card.sum_24h",
    "card.mean_24h",
    "card.min_24h",
    "card.max_24h",
    "card.stddev_24h",
    "merchant.count_1h",
    "merchant.mean_1h",
];

/// Sums every output value as it comes, in whatever order.
#[derive(Clone, Default)]
struct Summed(Arc<Mutex<Checksum>>);

impl Summed {
    fn tap(&self) -> Tap {
        let total = Arc::clone(&self.0);
        Arc::new(move |_, batch| {
            let sum = sum(batch);
            total.lock().unwrap_or_else(PoisonError::into_inner).join(sum);
        })
    }

    fn value(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value()
    }
}

fn sum(batch: &RecordBatch) -> Checksum {
    let mut sum = Checksum::default();
    let columns =
        |names: &[&str]| -> Vec<_> { names.iter().filter_map(|name| batch.column_by_name(name)).map(words).collect() };
    if let [ids] = &columns(&["txn_id"])[..] {
        let columns = columns(&SUMMED);
        sum.add(ids, &columns.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    }
    sum
}

/// The 64-bit words of a column, nulls as 0.
fn words(column: &ArrayRef) -> Cow<'_, [u64]> {
    // Both kinds of column are one buffer of words.
    let words = match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().values().inner().typed_data::<u64>(),
        _ => column.as_primitive::<Int64Type>().values().inner().typed_data::<u64>(),
    };
    match column.nulls() {
        None => Cow::Borrowed(words),
        Some(nulls) => words.iter().zip(nulls).map(|(word, valid)| if valid { *word } else { 0 }).collect(),
    }
}

/// All output rows.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<RecordBatch>>>);

impl Collected {
    fn tap(&self) -> Tap {
        let rows = Arc::clone(&self.0);
        Arc::new(move |_, batch| rows.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone()))
    }

    /// All rows in event-time order.
    fn in_order(&self) -> anyhow::Result<RecordBatch> {
        let batches = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        merge_sorted(batches).context("the input has no rows")
    }

    /// Writes the rows in event-time order.
    fn write(self, out: &Path) -> anyhow::Result<()> {
        let all = self.in_order()?;
        let mut fields =
            vec![Field::new("txn_id", all.column_by_name("txn_id").context("no txn_id")?.data_type().clone(), true)];
        let mut columns = vec![Arc::clone(all.column_by_name("txn_id").context("no txn_id")?)];
        for name in OUTPUTS {
            let engine = name.replacen('_', ".", 1);
            let column = all.column_by_name(&engine).with_context(|| format!("no column {engine}"))?;
            fields.push(Field::new(name, column.data_type().clone(), column.null_count() > 0));
            columns.push(Arc::clone(column));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let file = File::create(out).with_context(|| format!("cannot create {}", out.display()))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties))?;
        writer.write(&rows)?;
        writer.close()?;
        Ok(())
    }
}

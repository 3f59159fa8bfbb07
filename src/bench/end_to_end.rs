//! `bench end_to_end`: Parquet → windows per card and per merchant → a logistic model → a Delta table of predictions.
//!
//! The job is compiled from text by the same compiler as any dataflow file. The baseline does the same in one thread:
//! decodes the same file, puts the rows in order, keeps each window as a queue with running sums in cents, scores by a
//! loop over the coefficients, and hands rows to the same table writer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow::array::AsArray;
use arrow::compute::sum;
use serde::Serialize;

use super::end_to_end_baseline as baseline;
use super::w1_data::W1Data;
use crate::engine::{self, RunOptions};
use crate::store::offline::{read_table, table_path};

/// The table that both sides write.
pub const TABLE: &str = "predictions/fraud";
/// Rows of input between two commits, on both sides.
pub const COMMIT_ROWS: usize = 1_000_000;
/// Windows of both views, in hours.
pub const WINDOWS_H: [i64; 3] = [1, 24, 168];
/// How far behind the newest event an event may come, in seconds.
pub const DISORDER_S: i64 = 5;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Events to make up.
    pub events: u64,
    /// Worker threads.
    pub workers: usize,
    /// Times each side runs, in turn; the figures are of the median pair.
    pub runs: usize,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events per run.
    pub events: u64,
    /// Worker threads of the engine.
    pub workers: usize,
    /// Engine, wall seconds from the first read to the last commit.
    pub engine_seconds: f64,
    /// Engine, million events per second.
    pub engine_m_events_per_s: f64,
    /// Hand-written loop, wall seconds.
    pub baseline_seconds: f64,
    /// Hand-written loop, million events per second.
    pub baseline_m_events_per_s: f64,
    /// Engine time over baseline time.
    pub ratio: f64,
    /// Whether both tables hold as many rows, with scores of the same sum to 1e-6 of it.
    pub same_results: bool,
}

/// The data: ten days of payments by card and merchant.
pub(super) fn data(events: u64) -> W1Data {
    W1Data {
        events: events as usize,
        cards: 100_000,
        span_ms: 10 * 86_400_000,
        disorder_ms: DISORDER_S * 1_000,
        ..W1Data::default()
    }
}

/// The job as a user would write it.
pub(super) fn job(input: &Path, lake: &Path, model: &Path) -> String {
    format!(
        r#"job: bench_end_to_end
version: 1
order: event_time
checkpoint: {{interval: 1h, rows: {COMMIT_ROWS}}}
sources:
  tx:
    file: {{path: "{input}", format: parquet, rate: max}}
    id: txn_id
    event_time: ts
    disorder: {DISORDER_S}s
{features}sinks:
  offline: {{delta: {{uri: "{lake}"}}, tables: [{TABLE}]}}
models:
  fraud:
    versions: {{champion: "{model}"}}
    inputs: inputs
    outputs: {{score: "probabilities[1]"}}
"#,
        input = input.display(),
        lake = lake.display(),
        model = model.display(),
        features = features(),
    )
}

/// The features of payments in `tx` that the model takes, as part of a job's file.
pub(super) fn features() -> String {
    let over = WINDOWS_H.map(|h| format!("{h}h")).join(", ");
    let view = |name: &str| {
        let columns = WINDOWS_H.map(|h| format!("{name}.nb_tx_{h}h, {name}.avg_amount_{h}h"));
        columns.join(", ")
    };
    format!(
        r#"features:
  card:
    from: tx
    entity: [card_id]
    derive:
      weekend: "case when extract(dow from ts) in (0, 6) then 1 else 0 end"
      night: "case when extract(hour from ts) <= 6 then 1 else 0 end"
    aggregates:
      nb_tx: {{count: "*", over: [{over}]}}
      avg_amount: {{mean: amount, over: [{over}]}}
  merchant:
    from: tx
    entity: [merchant_id]
    aggregates:
      nb_tx: {{count: "*", over: [{over}]}}
      avg_amount: {{mean: amount, over: [{over}]}}
feature_sets:
  inputs: {{on: tx, take: [amount, card.weekend, card.night, {card}, {merchant}]}}
"#,
        card = view("card"),
        merchant = view("merchant"),
    )
}

/// Measures.
///
/// # Errors
/// When the data cannot be made, or a table cannot be written or read.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let dir = Scratch::new("end-to-end")?;
    let input = dir.0.join("tx.parquet");
    data(options.events).write(&input).with_context(|| format!("cannot write {}", input.display()))?;
    let model = dir.0.join("fraud.onnx");
    std::fs::write(&model, baseline::MODEL).with_context(|| format!("cannot write {}", model.display()))?;

    let mut pairs = Vec::new();
    let mut same_results = true;
    for turn in 0..options.runs.max(1) {
        let lake = dir.0.join(format!("engine-{turn}"));
        let (plan, _) = engine::load_text("bench end_to_end", &job(&input, &lake, &model), &[], &|_| None)?;
        let summary =
            engine::run(plan, RunOptions { workers: options.workers, until_end: true, ..RunOptions::default() })?;
        let by_hand = dir.0.join(format!("baseline-{turn}"));
        let started = Instant::now();
        baseline::run(&input, &by_hand)?;
        pairs.push((summary.seconds, started.elapsed().as_secs_f64()));
        let (found, expected) = (totals(&lake)?, totals(&by_hand)?);
        ensure!(expected.0 == options.events, "the baseline wrote {} of {} rows", expected.0, options.events);
        same_results &= found.0 == expected.0 && (found.1 - expected.1).abs() <= 1e-6 * expected.1.abs();
    }
    pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
    let (engine_seconds, baseline_seconds) = pairs[pairs.len() / 2];
    Ok(Report {
        events: options.events,
        workers: options.workers,
        engine_seconds,
        engine_m_events_per_s: options.events as f64 / engine_seconds / 1e6,
        baseline_seconds,
        baseline_m_events_per_s: options.events as f64 / baseline_seconds / 1e6,
        ratio: engine_seconds / baseline_seconds,
        same_results,
    })
}

/// Number of rows and sum of scores of a side's table.
fn totals(lake: &Path) -> anyhow::Result<(u64, f64)> {
    let batches = read_table(&table_path(lake, TABLE), Some(&["score"]), None)?;
    let mut total = (0, 0.0);
    for batch in &batches {
        let scores = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Float64)?;
        let scores = scores.as_primitive::<arrow::datatypes::Float64Type>();
        total.0 += batch.num_rows() as u64;
        total.1 += sum(scores).unwrap_or(0.0);
    }
    Ok(total)
}

/// A folder for the run's files, removed at its end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    /// A folder whose name begins with that of the benchmark.
    pub(super) fn new(bench: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidemill-bench-{bench}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

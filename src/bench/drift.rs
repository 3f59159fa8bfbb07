//! `bench drift`: what the statistics of drift cost, by themselves and inside of a job that scores.
//!
//! By itself: rows of 20 columns are held against a reference by all statistics, on one thread; `benches/drift_peers.py` has
//! Evidently and SciPy do the same with the same rows (`--keep`). The index of a value's cell is measured beside a binary
//! search of the same edges.
//!
//! In a job: the job of `bench end_to_end`, with 15 features and a score, runs with and without a monitor, in turn.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Schema};
use parquet::arrow::ArrowWriter;
use serde::Serialize;

use super::end_to_end::{self, Scratch, TABLE};
use super::end_to_end_baseline as baseline;
use crate::base::hash_u64;
use crate::engine::{self, RunOptions};
use crate::monitor::drift::alarm::{Rule, is_alarm, threshold};
use crate::monitor::drift::count::{Counter, Missing};
use crate::monitor::drift::grid::Grid;
use crate::monitor::drift::measure::{Metric, measure};
use crate::monitor::drift::reference::Reference;
use crate::store::offline::{read_table, table_path};

/// Columns of the rows.
const COLUMNS: usize = 20;
/// Rows counted at a time, as a large tick has them.
const BATCH: usize = 65_536;
/// Statistics of each column.
const METRICS: [Metric; 9] = [
    Metric::Psi,
    Metric::PsiEvidently,
    Metric::Ks,
    Metric::KsP,
    Metric::ChiSquare,
    Metric::Js,
    Metric::Wasserstein,
    Metric::ShiftSd,
    Metric::Missing,
];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows of the window.
    pub rows: usize,
    /// Rows of the reference.
    pub reference: usize,
    /// Events of the job; none to leave it out.
    pub job_events: Option<u64>,
    /// Worker threads of the job.
    pub workers: usize,
    /// Times each is measured; figures are medians.
    pub runs: usize,
    /// Where to leave the rows as Parquet.
    pub keep: Option<PathBuf>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Rows of the window, and of the reference.
    pub rows: usize,
    /// Rows of the reference.
    pub reference_rows: usize,
    /// Columns.
    pub columns: usize,
    /// Processor seconds to make the reference: sorting, cells, counts.
    pub reference_seconds: f64,
    /// Seconds to count the window's rows.
    pub count_seconds: f64,
    /// Seconds to compute all statistics with their thresholds.
    pub statistics_seconds: f64,
    /// Count and statistics: what a window costs once there is a reference.
    pub window_seconds: f64,
    /// All three.
    pub total_seconds: f64,
    /// Nanoseconds to count one value.
    pub count_ns_per_value: f64,
    /// Nanoseconds to find a value's cell.
    pub index_ns_per_value: f64,
    /// The same by a binary search of the same edges.
    pub binary_search_ns_per_value: f64,
    /// The statistics of the first columns.
    pub values: Vec<(usize, &'static str, f64)>,
    /// Statistics that are alarms.
    pub alarms: usize,
    /// The job with and without a monitor.
    pub job: Option<JobReport>,
}

/// What a monitor costs a job.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// Events.
    pub events: u64,
    /// Worker threads.
    pub workers: usize,
    /// Seconds without.
    pub plain_seconds: f64,
    /// Seconds with.
    pub monitored_seconds: f64,
    /// Throughput lost, of each pair of runs.
    pub losses_percent: Vec<f64>,
    /// The median of these.
    pub loss_percent: f64,
    /// Processor seconds without.
    pub plain_cpu_seconds: f64,
    /// Processor seconds with.
    pub monitored_cpu_seconds: f64,
    /// Throughput per processor lost, of each pair.
    pub cpu_losses_percent: Vec<f64>,
    /// The median of these.
    pub cpu_loss_percent: f64,
    /// Processor nanoseconds more per event, median of the pairs.
    pub cpu_ns_per_event: f64,
    /// Rows of statistics that were told.
    pub statistics: usize,
}

/// Measures.
///
/// # Errors
/// When a file cannot be written, or the job fails.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let (reference, window) = (columns(options.reference, 1, 0.0), columns(options.rows, 2, 0.05));
    if let Some(keep) = &options.keep {
        std::fs::create_dir_all(keep).with_context(|| format!("cannot make {}", keep.display()))?;
        write(&keep.join("reference.parquet"), &reference)?;
        write(&keep.join("current.parquet"), &window)?;
    }
    let mut figures = Vec::new();
    let mut values = Vec::new();
    let mut alarms = 0;
    for _ in 0..options.runs.max(1) {
        let started = cpu_seconds();
        let references = reference.iter().map(|c| Reference::of_column(c, false, 10)).collect::<Result<Vec<_>, _>>()?;
        let made = cpu_seconds() - started;
        let started = cpu_seconds();
        let mut counters: Vec<Counter> = references.iter().map(|r| Counter::new(&r.kind())).collect();
        for from in (0..options.rows).step_by(BATCH) {
            let rows = BATCH.min(options.rows - from);
            let mut missing = Missing::new(rows);
            for (counter, column) in counters.iter_mut().zip(&window) {
                counter.count(&column.slice(from, rows), &mut missing)?;
            }
        }
        let counts: Vec<_> = counters.iter_mut().map(Counter::take).collect();
        let counted = cpu_seconds() - started;
        let started = cpu_seconds();
        (values, alarms) = (Vec::new(), 0);
        let rule = Rule::Calibrated(0.01);
        for (index, (reference, counts)) in references.iter().zip(&counts).enumerate() {
            for metric in METRICS {
                let Some(measured) = measure(metric, reference, counts) else { continue };
                let limit = threshold(rule, metric, &measured, reference, counts.present(), counts.missing());
                alarms += usize::from(limit.is_some_and(|limit| is_alarm(rule, metric, measured.value, limit)));
                values.push((index, metric.name(), measured.value));
            }
        }
        figures.push((made, counted, cpu_seconds() - started));
    }
    figures.sort_by(|a, b| (a.0 + a.1 + a.2).total_cmp(&(b.0 + b.1 + b.2)));
    let (made, counted, measured) = figures[figures.len() / 2];
    let (index, search) = index_and_search(&reference, &window)?;
    let job = options.job_events.map(|events| job(events, options)).transpose()?;
    Ok(Report {
        rows: options.rows,
        reference_rows: options.reference,
        columns: COLUMNS,
        reference_seconds: made,
        count_seconds: counted,
        statistics_seconds: measured,
        window_seconds: counted + measured,
        total_seconds: made + counted + measured,
        count_ns_per_value: counted * 1e9 / (options.rows * COLUMNS) as f64,
        index_ns_per_value: index,
        binary_search_ns_per_value: search,
        values,
        alarms,
        job,
    })
}

/// Twenty columns: normal and lognormal ones, counts, and one with missing values; `shift` moves every second one.
fn columns(rows: usize, seed: u64, shift: f64) -> Vec<ArrayRef> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (hash_u64(state) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut columns: Vec<ArrayRef> = Vec::new();
    for index in 0..COLUMNS {
        let shift = if index % 2 == 0 { shift } else { 0.0 };
        let values = (0..rows).map(|_| {
            let normal = (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos() + shift;
            match index {
                0..12 => Some(normal * (1.0 + index as f64)),
                12..16 => Some((0.8 * normal + 3.0).exp()),
                16..19 => Some((normal.abs() * 4.0 * (index - 14) as f64).floor()),
                _ => (uniform() >= 0.03).then_some(normal),
            }
        });
        columns.push(Arc::new(values.collect::<Float64Array>()));
    }
    columns
}

fn write(path: &Path, columns: &[ArrayRef]) -> anyhow::Result<()> {
    let named = columns.iter().enumerate().map(|(index, column)| (format!("f{index}"), Arc::clone(column)));
    write_batch(path, &RecordBatch::try_from_iter(named)?)
}

fn write_batch(path: &Path, batch: &RecordBatch) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

/// Nanoseconds to find a value's cell by the index and by a binary search.
fn index_and_search(reference: &[ArrayRef], window: &[ArrayRef]) -> anyhow::Result<(f64, f64)> {
    let (mut index, mut search, mut values) = (0.0, 0.0, 0);
    for (reference, window) in reference.iter().zip(window) {
        let made = Reference::of_column(reference, false, 10)?;
        let Reference::Numeric(made) = &made else { continue };
        let Grid::Reference(edges) = &*made.grid else { continue };
        let window = window.as_primitive::<Float64Type>().values();
        let mut cells = vec![0u32; 4096];
        let (mut a, mut b) = (0u64, 0u64);
        let started = cpu_seconds();
        for chunk in window.chunks(4096) {
            edges.cells(chunk, &mut cells);
            a += cells[..chunk.len()].iter().map(|cell| u64::from(*cell)).sum::<u64>();
        }
        index += cpu_seconds() - started;
        let started = cpu_seconds();
        for x in window {
            b += edges.edges().partition_point(|edge| edge < x) as u64;
        }
        search += cpu_seconds() - started;
        ensure!(a == b, "the index and the search disagree");
        values += window.len();
    }
    Ok((index * 1e9 / values as f64, search * 1e9 / values as f64))
}

/// The job with and without a monitor, in turn.
fn job(events: u64, options: &Options) -> anyhow::Result<JobReport> {
    let dir = Scratch::new("drift")?;
    let input = dir.0.join("tx.parquet");
    end_to_end::data(events).write(&input).with_context(|| format!("cannot write {}", input.display()))?;
    let model = dir.0.join("fraud.onnx");
    std::fs::write(&model, baseline::MODEL).with_context(|| format!("cannot write {}", model.display()))?;
    let reference = dir.0.join("reference.parquet");
    let run = |lake: &Path, monitored: bool| -> anyhow::Result<Cost> {
        let mut text = end_to_end::job(&input, lake, &model);
        if monitored {
            text =
                text.replace(&format!("tables: [{TABLE}]"), &format!("tables: [{TABLE}, stats/drift, stats/quality]"));
            text.push_str(&monitors(&reference));
        }
        let (plan, _) = engine::load_text("bench drift", &text, &[], &|_| None)?;
        let options = RunOptions { workers: options.workers, until_end: true, ..RunOptions::default() };
        let before = cpu_seconds();
        let seconds = engine::run(plan, options)?.seconds;
        Ok(Cost { seconds, cpu_seconds: cpu_seconds() - before })
    };
    let mut pairs = Vec::new();
    let mut statistics = 0;
    // The first run is what the reference is taken from; it warms up, and does not count.
    let first = dir.0.join("first");
    run(&first, false)?;
    let rows = read_table(&table_path(&first, TABLE), None, None)?;
    let schema: Arc<Schema> = rows.first().context("the job wrote no rows")?.schema();
    let rows = concat_batches(&schema, &rows)?;
    write_batch(&reference, &rows.slice(0, rows.num_rows().min(options.reference)))?;
    drop(rows);
    for turn in 0..options.runs.max(1) {
        let lake = |side: &str| dir.0.join(format!("{side}-{turn}"));
        let (plain, monitored) = (lake("plain"), lake("monitored"));
        // Whoever comes second finds the caches warm: they take turns.
        let pair = if turn % 2 == 0 {
            let first = run(&plain, false)?;
            (first, run(&monitored, true)?)
        } else {
            let first = run(&monitored, true)?;
            (run(&plain, false)?, first)
        };
        let told = |table: &str| -> anyhow::Result<usize> {
            let batches = read_table(&table_path(&monitored, table), Some(&["metric"]), None)?;
            Ok(batches.iter().map(|batch| batch.num_rows()).sum())
        };
        statistics = told("stats/drift")? + told("stats/quality")?;
        pairs.push(pair);
        for lake in [plain, monitored] {
            let _ = std::fs::remove_dir_all(lake);
        }
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let loss = |of: fn(&Cost) -> f64| {
        let losses = pairs.iter().map(move |(plain, monitored)| (1.0 - of(plain) / of(monitored)) * 100.0);
        losses.collect::<Vec<f64>>()
    };
    let (losses_percent, cpu_losses_percent) = (loss(|cost| cost.seconds), loss(|cost| cost.cpu_seconds));
    let more = pairs.iter().map(|(plain, monitored)| monitored.cpu_seconds - plain.cpu_seconds);
    Ok(JobReport {
        events,
        workers: options.workers,
        plain_seconds: median(pairs.iter().map(|pair| pair.0.seconds).collect()),
        monitored_seconds: median(pairs.iter().map(|pair| pair.1.seconds).collect()),
        loss_percent: median(losses_percent.clone()),
        losses_percent,
        plain_cpu_seconds: median(pairs.iter().map(|pair| pair.0.cpu_seconds).collect()),
        monitored_cpu_seconds: median(pairs.iter().map(|pair| pair.1.cpu_seconds).collect()),
        cpu_loss_percent: median(cpu_losses_percent.clone()),
        cpu_losses_percent,
        cpu_ns_per_event: median(more.collect()) * 1e9 / events as f64,
        statistics,
    })
}

/// What a run took.
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
}

/// Processor time of this process so far: what others do on the machine is not in it.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the place it is given and to nothing else; a place that it leaves alone is zero.
    unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
    }
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn monitors(reference: &Path) -> String {
    format!(
        "monitors:\n  fraud:\n    drift: {{features: [psi, ks, js, wasserstein, missing], prediction: [psi, ks, shift_sd], \
         reference: {{file: \"{}\"}}}}\n    quality: [nulls, range, missing, freshness, volume]\n",
        reference.display()
    )
}

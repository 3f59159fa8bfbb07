//! `bench fit`: how long boosted trees take to fit on one thread and on two, how good they are, and what memory they take.
//!
//! Rows are made up, with missing values, or read; `benches/fit_peers.py` fits scikit-learn's and LightGBM's boosted trees to the same
//! rows (`--keep`). Times are the best of some runs, each number of threads in turn.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use crate::base::SplitMix64;
use crate::train::data::{Column, Matrix, Set, Task};
use crate::train::learner::{Learner, Options as Fit, fit};
use crate::train::model::Fitted;

/// Columns of made-up rows.
const COLUMNS: usize = 20;
/// The column of labels in files.
const LABEL: &str = "label";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows to make up; a fifth as many more are for judging the model.
    pub rows: usize,
    /// A directory with `train.parquet` and `test.parquet` to read instead: a column `label` of 0 and 1, all others inputs.
    pub input: Option<PathBuf>,
    /// The learner.
    pub learner: Learner,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Fits by each number of threads.
    pub runs: usize,
    /// Where to leave the rows as Parquet.
    pub keep: Option<PathBuf>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The learner's name.
    pub learner: &'static str,
    /// Rows that were fitted.
    pub rows: usize,
    /// Rows that the model is judged by.
    pub test_rows: usize,
    /// Inputs.
    pub columns: usize,
    /// By number of threads.
    pub fits: Vec<Times>,
    /// Whether all fits gave the same model, bit for bit.
    pub same_model: bool,
    /// Area under the ROC curve on the test rows.
    pub auc: f64,
    /// Average precision there.
    pub average_precision: f64,
    /// Microseconds to predict a row, on one thread.
    pub predict_us_per_row: f64,
    /// Memory that the first fit took at its peak, where the system tells.
    pub peak_bytes: Option<u64>,
}

/// Times of a fit, the best of some.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// Threads.
    pub threads: usize,
    /// Seconds.
    pub seconds: f64,
    /// Processor seconds.
    pub cpu_seconds: f64,
}

/// Measures.
///
/// # Errors
/// When a file cannot be read or written, or nothing can be learnt from the rows.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let (train, test) = match &options.input {
        Some(folder) => (read(&folder.join("train.parquet"))?, read(&folder.join("test.parquet"))?),
        None => (made_up(options.rows, 1), made_up((options.rows / 5).max(100), 2)),
    };
    if let Some(keep) = &options.keep {
        std::fs::create_dir_all(keep).with_context(|| format!("cannot make {}", keep.display()))?;
        write(&keep.join("train.parquet"), &train)?;
        write(&keep.join("test.parquet"), &test)?;
    }
    let mut fits: Vec<Times> = options
        .threads
        .iter()
        .map(|threads| Times { threads: *threads, seconds: f64::INFINITY, cpu_seconds: f64::INFINITY })
        .collect();
    let mut model: Option<Fitted> = None;
    let (mut same_model, mut peak_bytes) = (true, None);
    for _ in 0..options.runs.max(1) {
        for times in &mut fits {
            let held = if model.is_none() { start_of_peak() } else { None };
            let (started, cpu) = (Instant::now(), cpu_seconds());
            let how = Fit { threads: times.threads, seed: 1, progress: None };
            let fitted = fit(&options.learner, &train, Task::Binary, None, &how)?;
            times.seconds = times.seconds.min(started.elapsed().as_secs_f64());
            times.cpu_seconds = times.cpu_seconds.min(cpu_seconds() - cpu);
            match &model {
                Some(model) => same_model &= *model == fitted,
                None => {
                    peak_bytes = held.and_then(|held| Some(status("VmHWM")?.saturating_sub(held)));
                    model = Some(fitted);
                }
            }
        }
    }
    let model = model.context("no number of threads was given")?;
    let cpu = cpu_seconds();
    let told = model.predict(&test.inputs);
    let predicted = cpu_seconds() - cpu;
    let scores = told.first().context("the model tells nothing")?;
    let (auc, average_precision) = auc_and_precision(&test.labels, scores);
    Ok(Report {
        learner: options.learner.name(),
        rows: train.rows(),
        test_rows: test.rows(),
        columns: train.inputs.columns.len(),
        fits,
        same_model,
        auc,
        average_precision,
        predict_us_per_row: predicted * 1e6 / test.rows() as f64,
        peak_bytes,
    })
}

/// Rows of normal, lognormal and counted columns, some of them with missing values, and labels that follow from ten of them.
fn made_up(rows: usize, seed: u64) -> Set {
    let mut random = SplitMix64::new(seed);
    let mut columns = vec![Vec::new(); COLUMNS];
    let mut labels = Vec::with_capacity(rows);
    for _ in 0..rows {
        let mut x: [f64; COLUMNS] = std::array::from_fn(|_| {
            (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
        });
        for (index, x) in x.iter_mut().enumerate() {
            *x = match index {
                10..14 => x.exp(),
                14..17 => (x.abs() * 4.0).floor(),
                _ => *x,
            };
        }
        let z = x[0] * x[1] + (2.0 * x[2]).sin() + 0.5 * x[3] - 0.3 * x[4] * x[4]
            + if x[14] > 3.0 { 0.6 * x[5] } else { 0.0 }
            + 0.4 * x[10].ln()
            + if x[7] > 0.0 { 0.3 * x[6] } else { 0.0 };
        labels.push(f64::from(u8::from(random.unit() < 1.0 / (1.0 + (1.0 - z).exp()))));
        for index in [3, 8, 17, 18, 19] {
            if random.unit() < 0.1 {
                x[index] = f64::NAN;
            }
        }
        columns.iter_mut().zip(x).for_each(|(column, x)| column.push(x as f32));
    }
    let names = (0..COLUMNS).map(|index| format!("f{index}")).collect();
    set(Matrix { names, columns: columns.into_iter().map(Column::Number).collect() }, labels)
}

fn set(inputs: Matrix, labels: Vec<f64>) -> Set {
    Set { inputs, labels, weights: None, times: Vec::new(), known: Vec::new(), extra: Vec::new() }
}

fn write(path: &Path, set: &Set) -> anyhow::Result<()> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (name, column) in set.inputs.names.iter().zip(&set.inputs.columns) {
        let Column::Number(values) = column else { continue };
        let values: Float32Array = values.iter().map(|x| (!x.is_nan()).then_some(*x)).collect();
        columns.push((name.clone(), Arc::new(values)));
    }
    columns.push((LABEL.to_owned(), Arc::new(set.labels.iter().map(|y| Some(*y as f32)).collect::<Float32Array>())));
    let batch = RecordBatch::try_from_iter(columns)?;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Set> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    let schema = batches.first().with_context(|| format!("{} has no rows", path.display()))?.schema();
    let all = concat_batches(&schema, &batches)?;
    let (mut inputs, mut labels) = (Matrix::default(), None);
    for (field, column) in schema.fields().iter().zip(all.columns()) {
        let column = cast(column, &DataType::Float32)
            .with_context(|| format!("{}: column {} holds no numbers", path.display(), field.name()))?;
        let values = column.as_primitive::<Float32Type>().iter().map(|x| x.unwrap_or(f32::NAN));
        if field.name() == LABEL {
            labels = Some(values.map(f64::from).collect());
        } else {
            inputs.names.push(field.name().clone());
            inputs.columns.push(Column::Number(values.collect()));
        }
    }
    let labels = labels.with_context(|| format!("{} has no column `{LABEL}`", path.display()))?;
    ensure!(!inputs.columns.is_empty(), "{} has no column besides `{LABEL}`", path.display());
    Ok(set(inputs, labels))
}

/// Area under the ROC curve and average precision by steps; equal scores count as one step.
fn auc_and_precision(labels: &[f64], scores: &[f64]) -> (f64, f64) {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let positives: f64 = labels.iter().sum();
    let (mut hits, mut seen, mut area, mut precision) = (0.0, 0.0, 0.0, 0.0);
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let new: f64 = group.iter().map(|row| labels[*row]).sum();
        area += (group.len() as f64 - new) * (hits + new / 2.0);
        hits += new;
        seen += group.len() as f64;
        precision += new / positives * hits / seen;
    }
    (area / (positives * (labels.len() as f64 - positives)), precision)
}

/// Forgets the highest memory so far; what is held now. Nothing where the system does not tell.
fn start_of_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    status("VmRSS")
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the place it is given and to nothing else; a place that it leaves alone is zero.
    unsafe {
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
    }
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

//! `bench score`: rows per second of three models at several batch sizes, each beside a plain loop of the same arithmetic in the same run; and
//! scoring of a file with any model.
//!
//! The models are written as ONNX and loaded like any other; Arrow columns go in and a score column comes out, on one thread.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::{Array, ArrayRef, AsArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::score_models::{self, BenchModel, INPUTS};
use crate::plan::model::ModelOutput;
use crate::score::files::every_output;
use crate::score::{Model, Scorer};

/// Batch sizes measured.
const BATCHES: [usize; 3] = [1, 64, 1024];

/// Rows that the batches are cut from.
const POOL: usize = 16 * 1024;

/// Turns that model and loop take; the figures are medians.
const TURNS: usize = 5;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time for each model and batch size.
    pub seconds: f64,
    /// Where to leave the models and the rows (`<model>.onnx`, `rows.parquet`), for others to score.
    pub keep: Option<PathBuf>,
}

/// One model at one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// `trees`, `mlp` or `logistic`.
    pub model: String,
    /// Rows per call.
    pub batch: usize,
    /// Rows per second through the scorer.
    pub rows_per_second: f64,
    /// Rows per second through the plain loop.
    pub baseline_rows_per_second: f64,
    /// The first over the second.
    pub ratio: f64,
    /// Largest difference between a score and the loop's.
    pub largest_difference: f64,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One line per model and batch size.
    pub lines: Vec<Line>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:>7}{:>14}{:>14}{:>8}", "model", "batch", "rows/s", "plain loop", "ratio")?;
        for l in &self.lines {
            writeln!(
                f,
                "{:<10}{:>7}{:>14.0}{:>14.0}{:>8.2}",
                l.model, l.batch, l.rows_per_second, l.baseline_rows_per_second, l.ratio
            )?;
        }
        Ok(())
    }
}

/// Measures the three models.
///
/// # Errors
/// The models cannot be written or loaded, or disagree with the plain loops.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let folder = match &options.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            Some(folder.as_path())
        }
        None => None,
    };
    let rows = score_models::rows(POOL);
    let columns: Vec<ArrayRef> =
        (0..INPUTS).map(|i| Arc::new(Float32Array::from_iter_values(rows.iter().map(|r| r[i]))) as ArrayRef).collect();
    if let Some(folder) = folder {
        let fields: Vec<Field> = (0..INPUTS).map(|i| Field::new(format!("x{i}"), DataType::Float32, false)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.clone())?;
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(folder.join("rows.parquet"))?, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
    }
    let mut lines = Vec::new();
    for model in score_models::all() {
        let bytes = model.encode();
        if let Some(folder) = folder {
            let path = folder.join(format!("{}.onnx", model.name()));
            std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        for batch in BATCHES {
            lines.push(measure(model.as_ref(), &bytes, &columns, batch, options.seconds)?);
        }
    }
    Ok(Report { lines })
}

fn measure(
    model: &dyn BenchModel,
    bytes: &[u8],
    columns: &[ArrayRef],
    batch: usize,
    seconds: f64,
) -> anyhow::Result<Line> {
    let loaded = Model::from_bytes(format!("{}.onnx", model.name()).into(), bytes)?;
    let names: Vec<String> = (0..INPUTS).map(|i| format!("x{i}")).collect();
    let typed: Vec<(&str, DataType)> = names.iter().map(|n| (n.as_str(), DataType::Float32)).collect();
    let (tensor, element) = model.output();
    let wanted = [ModelOutput { name: "score".into(), tensor: tensor.into(), element: Some(element) }];
    let bound = loaded.bind(&typed, &wanted).map_err(|faults| anyhow::anyhow!(faults.join("; ")))?;
    let mut scorer = bound.scorer()?;
    let batches: Vec<Vec<ArrayRef>> =
        (0..POOL / batch).map(|b| columns.iter().map(|c| c.slice(b * batch, batch)).collect()).collect();

    let largest_difference = agree(model, &mut scorer, &batches)?;
    let turn = Duration::from_secs_f64(seconds / (2 * TURNS) as f64);
    let mut out = vec![0.0f32; batch];
    let (mut ours, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let a = rate(turn, batch, &batches, |b| {
            let scores = scorer.score(b)?;
            std::hint::black_box(&scores);
            Ok(())
        })?;
        let b = rate(turn, batch, &batches, |b| {
            let views: Vec<&[f32]> = b.iter().map(|c| c.as_primitive::<Float32Type>().values().as_ref()).collect();
            model.plain(&views, &mut out);
            std::hint::black_box(&out);
            Ok(())
        })?;
        ours.push(a);
        plain.push(b);
        ratios.push(a / b);
    }
    Ok(Line {
        model: model.name().into(),
        batch,
        rows_per_second: median(&mut ours),
        baseline_rows_per_second: median(&mut plain),
        ratio: median(&mut ratios),
        largest_difference,
    })
}

/// Scores every batch both ways and tells how far the scores are apart.
fn agree(model: &dyn BenchModel, scorer: &mut Scorer, batches: &[Vec<ArrayRef>]) -> anyhow::Result<f64> {
    let mut largest = 0.0f64;
    for columns in batches {
        let scores = scorer.score(columns)?;
        let ours = scores.columns[0].as_primitive::<Float32Type>();
        let views: Vec<&[f32]> = columns.iter().map(|c| c.as_primitive::<Float32Type>().values().as_ref()).collect();
        let mut plain = vec![0.0f32; ours.len()];
        model.plain(&views, &mut plain);
        ensure!(scores.failed.is_empty(), "{}: {:?}", model.name(), scores.failed);
        largest = ours.values().iter().zip(&plain).fold(largest, |m, (a, b)| m.max(f64::from((a - b).abs())));
    }
    ensure!(largest <= 1e-5, "{} differs by {largest:e} from the plain loop", model.name());
    Ok(largest)
}

fn rate(
    time: Duration,
    batch: usize,
    batches: &[Vec<ArrayRef>],
    mut f: impl FnMut(&[ArrayRef]) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    // Looking at the clock once per few hundred rows keeps it out of the figures.
    let calls = (256 / batch).max(1);
    let start = Instant::now();
    let mut done = 0;
    loop {
        for _ in 0..calls {
            f(&batches[done % batches.len()])?;
            done += 1;
        }
        let spent = start.elapsed();
        if spent >= time {
            return Ok((done * batch) as f64 / spent.as_secs_f64());
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What [`score_file`] did.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// SHA-256 of the model.
    pub model_hash: String,
    /// Rows scored.
    pub rows: usize,
    /// Rows that could not be scored; their scores are null.
    pub failed: usize,
    /// Wall seconds in the scorer.
    pub seconds: f64,
    /// Rows per second in the scorer.
    pub rows_per_second: f64,
    /// Columns of the result.
    pub columns: Vec<String>,
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rows, {} failed, {:.0} rows/s; columns {}",
            self.rows,
            self.failed,
            self.rows_per_second,
            self.columns.join(", ")
        )
    }
}

/// Scores every row of a Parquet file: its columns, in their order, are the model's inputs. Writes one column per value of each output: `<output>` where it
/// has one value per row, else `<output>.<element>`.
///
/// # Errors
/// The files cannot be read or written, or the columns do not fit the model.
pub fn score_file(model: &Path, input: &Path, out: Option<&Path>) -> anyhow::Result<FileReport> {
    let open = || -> anyhow::Result<_> {
        let file = std::fs::File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
        ParquetRecordBatchReaderBuilder::try_new(file).with_context(|| format!("cannot read {}", input.display()))
    };
    let reader = open()?.with_batch_size(8192);
    let schema = reader.schema().clone();
    let typed: Vec<(&str, DataType)> =
        schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    let model = Model::load(model)?.with_columns(typed.len())?;
    let wanted = every_output(&model).map_err(anyhow::Error::msg)?;
    let bound = model.bind(&typed, &wanted).map_err(|faults| {
        anyhow::anyhow!("{} does not fit {}: {}", model.path().display(), input.display(), faults.join("; "))
    })?;
    let fields: Vec<Field> = bound.outputs().into_iter().map(|(name, t)| Field::new(name, t, true)).collect();
    let columns = fields.iter().map(|f| f.name().clone()).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut writer = match out {
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some(ArrowWriter::try_new(file, schema.clone(), None)?)
        }
        None => None,
    };
    let mut scorer = bound.scorer()?;
    let (mut rows, mut failed, mut spent) = (0, 0, Duration::ZERO);
    for batch in reader.build()? {
        let batch = batch.with_context(|| format!("cannot read {}", input.display()))?;
        let start = Instant::now();
        let scores = scorer.score(batch.columns())?;
        spent += start.elapsed();
        rows += batch.num_rows();
        failed += scores.failed.len();
        if let Some(writer) = &mut writer {
            writer.write(&RecordBatch::try_new(schema.clone(), scores.columns)?)?;
        }
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    let seconds = spent.as_secs_f64();
    Ok(FileReport {
        model_hash: model.hash().into(),
        rows,
        failed,
        seconds,
        rows_per_second: rows as f64 / seconds.max(1e-9),
        columns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_agree_with_their_loops_and_score_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = run(&Options { seconds: 0.01, keep: Some(folder.path().into()) }).expect("runs");
        assert_eq!(report.lines.len(), 9);
        for name in ["trees", "mlp", "logistic"] {
            let out = folder.path().join("scores.parquet");
            let report = score_file(
                &folder.path().join(format!("{name}.onnx")),
                &folder.path().join("rows.parquet"),
                Some(&out),
            )
            .expect("scores");
            assert_eq!((report.rows, report.failed), (POOL, 0));
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&out).expect("there"))
                .expect("Parquet")
                .build()
                .expect("readable");
            assert_eq!(reader.map(|b| b.expect("decodable").num_rows()).sum::<usize>(), POOL);
        }
    }
}

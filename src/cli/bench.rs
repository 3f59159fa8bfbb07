//! `tidemill bench NAME`: the reproducible benchmarks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Windows by card and by merchant over a stream of transactions.
    ///
    /// Per event count, sum, mean, smallest, largest and standard deviation per card over 1 h and 24 h, and count and
    /// mean per merchant over 1 h, beside a hand-written loop of the same work in the same run.
    Windows(WindowsArgs),
    /// Trees, a small neural network and a logistic regression, at batches of 1, 64 and 1024 rows.
    Score(ScoreArgs),
    /// Parquet to features to scores to Delta tables.
    EndToEnd(EndToEndArgs),
}

/// Arguments of `bench windows`.
#[derive(Args, Debug)]
pub struct WindowsArgs {
    /// Number of events to make up.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, conflicts_with = "input")]
    events: u64,
    /// Keep windows as tiles of 1/60 of their length instead of exactly.
    #[arg(long)]
    tiled: bool,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Read these events instead (`txn_id, card_id, merchant_id, amount, ts`), in event-time order.
    #[arg(long, value_name = "FILE.parquet")]
    input: Option<PathBuf>,
    /// Write every row's features to this file.
    #[arg(long, value_name = "FILE.parquet")]
    out: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench score`.
#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// Measure each model and batch size for this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Score rows of a file with this model instead.
    #[arg(long, value_name = "MODEL.onnx", requires = "input")]
    model: Option<PathBuf>,
    /// The rows: all columns, in their order, are the model's inputs.
    #[arg(long, value_name = "ROWS.parquet", requires = "model")]
    input: Option<PathBuf>,
    /// Write the scores to this file.
    #[arg(long, value_name = "SCORES.parquet", requires = "model")]
    out: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench end_to_end`.
#[derive(Args, Debug)]
pub struct EndToEndArgs {
    /// Number of events to make up.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark and prints its figures.
pub fn run(command: BenchCommand) -> anyhow::Result<()> {
    let _ = command;
    anyhow::bail!("benchmarks are not linked yet")
}

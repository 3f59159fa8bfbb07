//! `tidemill bench NAME`: the reproducible benchmarks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{columns, grouped, print, print_json};
use crate::bench::{end_to_end, score, windows};

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
    /// Measure this many times; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
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
    /// Leave the models and the rows in this folder, for other programs to score.
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    keep: Option<PathBuf>,
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
    /// Measure this many times; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark and prints its figures.
pub fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Windows(args) => {
            let report = windows::run(&windows::Options {
                events: args.events,
                tiled: args.tiled,
                workers: args.workers.into(),
                input: args.input,
                out: args.out,
                runs: args.runs,
            })?;
            if args.json {
                print_json(&report)
            } else {
                print(&windows_text(&report))
            }
        }
        BenchCommand::EndToEnd(args) => {
            let options = end_to_end::Options {
                events: args.events,
                workers: args.workers.into(),
                runs: args.runs,
            };
            let report = end_to_end::run(&options)?;
            if args.json {
                print_json(&report)
            } else {
                print(&end_to_end_text(&report))
            }
        }
        BenchCommand::Score(args) => score_command(args),
    }
}

fn score_command(args: ScoreArgs) -> anyhow::Result<()> {
    if let (Some(model), Some(input)) = (&args.model, &args.input) {
        let report = score::score_file(model, input, args.out.as_deref())?;
        return if args.json {
            print_json(&report)
        } else {
            print(&report.to_string())
        };
    }
    let report = score::run(&score::Options {
        seconds: args.seconds,
        keep: args.keep,
    })?;
    if args.json {
        print_json(&report)
    } else {
        print(&report.to_string())
    }
}

fn windows_text(report: &windows::Report) -> String {
    let kind = if report.tiled {
        "tiles of 1/60 of each window"
    } else {
        "exact windows"
    };
    let mut rows = vec![
        vec![
            "engine".to_owned(),
            seconds(report.engine_seconds),
            rate(report.engine_m_events_per_s),
        ],
        vec![
            "hand-written loop".to_owned(),
            seconds(report.baseline_seconds),
            rate(report.baseline_m_events_per_s),
        ],
    ];
    if report.same_results.is_none() {
        rows.pop();
    }
    let mut text = format!(
        "W1, {} events, {kind}, {} worker(s), medians\n{}",
        grouped(report.events),
        report.workers,
        columns(&rows, &[])
    );
    if let Some(same) = report.same_results {
        let same = if same { "the same bits" } else { "DIFFERENT VALUES" };
        text.push_str(&format!("ratio {:.2}, {same} from both\n", report.ratio));
    }
    text.push_str(&format!(
        "{} keys at {:.0} bytes; longest batch {:.1} ms\n",
        grouped(report.keys),
        report.bytes_per_key,
        report.longest_stall_ms
    ));
    text
}

fn end_to_end_text(report: &end_to_end::Report) -> String {
    let rows = vec![
        vec![
            "engine".to_owned(),
            seconds(report.engine_seconds),
            rate(report.engine_m_events_per_s),
        ],
        vec![
            "hand-written loop".to_owned(),
            seconds(report.baseline_seconds),
            rate(report.baseline_m_events_per_s),
        ],
    ];
    let same = if report.same_results {
        "the same rows and scores"
    } else {
        "DIFFERENT RESULTS"
    };
    format!(
        "Parquet to Delta, {} events, {} worker(s), medians\n{}ratio {:.2}, {same} from both\n",
        grouped(report.events),
        report.workers,
        columns(&rows, &[]),
        report.ratio
    )
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

fn rate(rate: f64) -> String {
    format!("{rate:.2} M events/s")
}

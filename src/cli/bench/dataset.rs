//! `tidemill bench dataset`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;

use crate::bench::dataset::{self, Options, Report};
use crate::cli::output::{bytes, columns, grouped, print, print_json};

/// Arguments of `bench dataset`.
#[derive(Args, Debug)]
pub struct DatasetArgs {
    /// Rows of entities.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    labels: u64,
    /// Rows of features.
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    features: u64,
    /// Run each side this often; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Leave the table, the entities and the set in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Only join what is in this directory: the process whose memory is measured.
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "keep")]
    only: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(args: DatasetArgs) -> anyhow::Result<()> {
    if let Some(dir) = &args.only {
        return print_json(&dataset::join(dir)?);
    }
    let report = dataset::run(&Options {
        program: std::env::current_exe().context("cannot find the program itself")?,
        labels: args.labels,
        features: args.features,
        runs: args.runs,
        keep: args.keep,
    })?;
    if args.json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    }
    ensure!(report.same_results, "the join and the hand-written one found different rows");
    Ok(())
}

fn text(report: &Report) -> String {
    let rows = [
        vec!["tidemill".to_owned(), format!("{:.2} s", report.seconds), format!("peak {}", bytes(report.peak_bytes))],
        vec![
            "hand-written".to_owned(),
            format!("{:.2} s", report.baseline_seconds),
            "all in memory, nothing written".to_owned(),
        ],
    ];
    format!(
        "{} rows as of a time, {} found, among {} rows of features in {} files\n{}",
        grouped(report.labels),
        grouped(report.found),
        grouped(report.features),
        grouped(report.files as u64),
        columns(&rows, &[1])
    )
}

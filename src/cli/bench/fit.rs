//! `tidemill bench fit`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::show;
use crate::bench::fit::{self, Options, Report};
use crate::cli::output::{bytes, columns, grouped};
use crate::train::learner::Learner;

/// Arguments of `bench fit`.
#[derive(Args, Debug)]
pub struct FitArgs {
    /// Rows to make up; a fifth as many more are for judging the model.
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(100..))]
    rows: u32,
    /// Read train.parquet and test.parquet of this directory instead: a column `label` of 0 and 1, all others are inputs.
    #[arg(long, value_name = "DIR", conflicts_with = "rows")]
    input: Option<PathBuf>,
    /// The learner, as JSON.
    #[arg(long, value_name = "LEARNER", default_value = r#"{"gbdt": {}}"#, value_parser = learner)]
    learner: Learner,
    /// Numbers of threads, separated by commas.
    #[arg(long, value_name = "N,…", default_value = "1,2", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Fit so often on each number of threads, in turn; the figures are the best.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Leave the rows in this directory: train.parquet and test.parquet.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn learner(text: &str) -> Result<Learner, String> {
    let learner: Learner = serde_json::from_str(text).map_err(|error| error.to_string())?;
    learner.check().map_err(|error| error.to_string())?;
    Ok(learner)
}

/// Measures and prints the figures.
pub(super) fn run(args: FitArgs) -> anyhow::Result<()> {
    let report = fit::run(&Options {
        rows: args.rows as usize,
        input: args.input,
        learner: args.learner,
        threads: args.threads.into_iter().map(usize::from).collect(),
        runs: args.runs,
        keep: args.keep,
    })?;
    show(&report, args.json, text)?;
    ensure!(report.same_model, "the same rows and seed gave models that differ");
    Ok(())
}

fn text(report: &Report) -> String {
    let fits: Vec<Vec<String>> = report
        .fits
        .iter()
        .map(|fit| {
            let times = [format!("{:.2} s", fit.seconds), format!("{:.2} s of processors", fit.cpu_seconds)];
            std::iter::once(format!("{} threads", fit.threads)).chain(times).collect()
        })
        .collect();
    let peak = report.peak_bytes.map_or_else(String::new, |peak| format!("; {} at the peak", bytes(peak)));
    let same = if report.same_model { "the same model each time" } else { "models that differ" };
    format!(
        "{} on {} rows of {} columns: {same}{peak}\n{}\
         on {} other rows: AUC {:.4}, average precision {:.4}; {:.2} µs to predict one\n",
        report.learner,
        grouped(report.rows as u64),
        report.columns,
        columns(&fits, &[1, 2]),
        grouped(report.test_rows as u64),
        report.auc,
        report.average_precision,
        report.predict_us_per_row,
    )
}

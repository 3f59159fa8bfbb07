//! `tidemill run JOB.yaml`: one job in the foreground.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;

use super::job::JobArgs;
use super::output::{bytes, columns, grouped, print, print_json};
use super::progress::Progress;
use crate::engine::{self, Observer, RunOptions, RunSummary, StopHandle};

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// End at the end of finite sources; without it the job stays and answers readers until it is stopped.
    #[arg(long)]
    until_end: bool,
    /// Keep the tick log in this directory.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a job until it ends, fails, or is interrupted.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    let plan = args.job.load_and_warn()?;
    let stop = StopHandle::new();
    stop_on_interrupt(stop.clone())?;
    let observer = Arc::new(Observer::new(&plan));
    let options = RunOptions {
        workers: usize::from(args.workers),
        until_end: args.until_end,
        state_dir: args.state,
        observer: Some(Arc::clone(&observer)),
        stop,
        tap: None,
    };
    let progress = Progress::watch(&plan, &observer);
    let result = engine::run(plan, options);
    progress.finish();
    let summary = result?;
    if args.json {
        print_json(&summary)
    } else {
        print(&text(&summary))
    }
}

/// The first interrupt asks the job to finish what it has read; the second ends the process.
pub fn stop_on_interrupt(stop: StopHandle) -> anyhow::Result<()> {
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping: finishing what was read (interrupt again to end at once)");
        stop.stop();
    })
    .context("cannot listen for interrupts")
}

fn text(summary: &RunSummary) -> String {
    let rate = summary.rows_read as f64 / summary.seconds.max(1e-9);
    let mut rows = vec![
        vec![
            "rows read".to_owned(),
            format!("{} ({} per second)", grouped(summary.rows_read), grouped(rate as u64)),
        ],
        vec!["rows scored".to_owned(), grouped(summary.rows_scored)],
        vec!["dead letters".to_owned(), grouped(summary.dead_letters)],
        vec!["ticks".to_owned(), grouped(summary.ticks)],
        vec![
            "state".to_owned(),
            format!("{} keys, {}", grouped(summary.keys), bytes(summary.state_bytes)),
        ],
    ];
    if let Some(clock) = &summary.clock {
        rows.push(vec!["clock".to_owned(), clock.clone()]);
    }
    let workers = if summary.workers == 1 {
        "1 worker".to_owned()
    } else {
        format!("{} workers", summary.workers)
    };
    format!(
        "{}: done in {:.1} s on {workers}\n{}",
        summary.job,
        summary.seconds,
        indent(&columns(&rows, &[]))
    )
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

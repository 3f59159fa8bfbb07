//! `tidemill run JOB.yaml`: one job in the foreground.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;

use super::job::JobArgs;
use super::metrics::MetricsArgs;
use super::output::{bytes, columns, grouped, print, print_json, workers};
use super::progress::Progress;
use crate::base::parse_bytes;
use crate::batch;
use crate::engine::{
    self, Observer, RestartOptions, Retrainer, RunOptions, RunSummary, StopHandle, Telemetry, TopicSummary, TurnedAway,
};
use crate::plan::model::Plan;
use crate::telemetry::log_to_file;

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// End at the end of finite sources, and of topics as it is now; without it the job stays until it is stopped.
    #[arg(long)]
    until_end: bool,
    /// Save the job's state here, and go on from what is saved: the tick log, snapshots and outboxes. One job has one
    /// directory; a second process that is given it takes the job over.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    restart: RestartArgs,
    /// When the job ends, or is stopped, write a savepoint to this directory, or to an address such as s3://bucket/path.
    #[arg(long, value_name = "PLACE", requires = "state")]
    savepoint: Option<String>,
    /// Directory of jobs that retraining is queued in. Default: `queue` in the state directory, else in the current one.
    #[arg(long, value_name = "DIR", env = "TIDEMILL_QUEUE")]
    queue: Option<PathBuf>,
    #[command(flatten)]
    metrics: MetricsArgs,
    /// Write what goes to standard error to this file, from now on and whatever becomes of who started the job.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Begin that file anew when it has so many bytes; the one before is kept as FILE.1.
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = parse_bytes, requires = "log_file")]
    log_bytes: u64,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// What is done with state that is found.
#[derive(Args, Clone, Debug, Default)]
struct RestartArgs {
    /// Begin with this savepoint, or with the newest epoch of another state directory; --state must be new.
    #[arg(long, value_name = "SAVEPOINT", requires = "state")]
    from: Option<String>,
    /// Go back to this epoch. What was published since is not published again; the input behind it is replayed as the tick
    /// log says.
    #[arg(long, value_name = "N", requires = "state", conflicts_with = "from")]
    from_epoch: Option<u64>,
    /// Where state is damaged and the tick log does not reach back to what can be loaded: read the input behind it again all
    /// the same. Rows since then are published twice.
    #[arg(long, requires = "state")]
    allow_replay: bool,
    /// Drop the state of views, joins and sources that the job has no more, or has with another meaning.
    #[arg(long, requires = "state")]
    allow_drop: bool,
}

impl RestartArgs {
    fn options(&self) -> RestartOptions {
        RestartOptions {
            from: self.from.clone(),
            epoch: self.from_epoch,
            allow_replay: self.allow_replay,
            allow_drop: self.allow_drop,
        }
    }
}

/// Runs a job until it ends, fails, or is interrupted.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.log_file {
        log_to_file(path, args.log_bytes).with_context(|| format!("--log-file {}", path.display()))?;
    }
    let plan = args.job.load_and_warn(args.state.as_deref())?;
    let stop = StopHandle::new();
    stop_on_interrupt(stop.clone())?;
    let observer = Arc::new(Observer::new(&plan));
    let served = args.metrics.serve(&plan, args.state.as_deref())?;
    let telemetry = served.as_ref().map(|served| Arc::clone(&served.telemetry));
    // Whoever steers the job by the socket in its state directory reads its metrics there.
    let telemetry = telemetry.or_else(|| args.state.as_deref().map(|dir| Telemetry::new(&plan, Some(dir))));
    let sets = args.job.sets.sets.clone();
    let retrainer = retrainer(&plan, sets, args.queue, args.state.as_deref())?;
    let options = RunOptions {
        workers: usize::from(args.workers),
        until_end: args.until_end,
        state_dir: args.state,
        restart: args.restart.options(),
        savepoint: args.savepoint,
        notice: Some(Arc::new(|text: &str| eprintln!("{}", text.trim_end()))),
        observer: Some(Arc::clone(&observer)),
        telemetry,
        control: true,
        stop,
        retrain: retrainer,
        ..RunOptions::default()
    };
    let progress = Progress::watch(&plan, &observer, args.until_end);
    let result = engine::run(plan, options);
    progress.finish();
    drop(served);
    let summary = result?;
    if args.json { print_json(&summary) } else { print(&text(&summary)) }
}

/// Who runs what retraining a job asks for, if it asks for any.
pub fn retrainer(
    plan: &Plan,
    sets: Vec<(String, String)>,
    queue: Option<PathBuf>,
    state: Option<&Path>,
) -> anyhow::Result<Option<Arc<dyn Retrainer>>> {
    if plan.retrains.iter().all(|retrain| retrain.on.is_empty()) {
        return Ok(None);
    }
    let queue = queue.unwrap_or_else(|| state.unwrap_or(Path::new("")).join("queue"));
    Ok(Some(Arc::new(batch::Retrainer::start(plan, sets, &queue)?)))
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
    let facts = [
        ("rows read", format!("{} ({} per second)", grouped(summary.rows_read), grouped(rate as u64))),
        ("rows scored", grouped(summary.rows_scored)),
        ("dead letters", grouped(summary.dead_letters)),
        ("state", format!("{} keys, {}", grouped(summary.keys), bytes(summary.state_bytes))),
        ("clock", summary.clock.clone().unwrap_or_else(|| "no events".to_owned())),
    ];
    let facts: Vec<Vec<String>> = facts.map(|(name, value)| vec![name.to_owned(), value]).into();
    let names = ["source", "read", "accepted", "filtered", "late", "dead letters"].map(str::to_owned);
    let mut sources = vec![names.to_vec()];
    for source in &summary.sources {
        let counts = &source.counts;
        let dead = counts.dead.values().sum();
        let numbers = [counts.read, counts.accepted, counts.filtered, counts.late_dropped, dead];
        sources.push(std::iter::once(source.name.clone()).chain(numbers.map(grouped)).collect());
    }
    let mut more = String::new();
    if !summary.turned_away.is_empty() {
        let mut table = vec![["dead letters of", "partition", "kind", "rows"].map(str::to_owned).to_vec()];
        let row = |t: &TurnedAway| vec![t.source.clone(), t.partition.to_string(), t.kind.to_owned(), grouped(t.rows)];
        table.extend(summary.turned_away.iter().map(row));
        more.push_str(&format!("\n{}", indent(&columns(&table, &[1, 3]))));
    }
    if !summary.topics.is_empty() {
        let mut table = vec![["topic", "rows of", "delivered"].map(str::to_owned).to_vec()];
        let row = |t: &TopicSummary| vec![t.topic.clone(), t.rows.clone(), grouped(t.delivered)];
        table.extend(summary.topics.iter().map(row));
        more.push_str(&format!("\n{}", indent(&columns(&table, &[2]))));
    }
    format!(
        "{}: done in {:.1} s on {}\n{}\n{}{more}",
        summary.job,
        summary.seconds,
        workers(summary.workers),
        indent(&columns(&facts, &[])),
        indent(&columns(&sources, &[1, 2, 3, 4, 5]))
    )
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

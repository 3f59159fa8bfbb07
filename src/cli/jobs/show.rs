//! What looks at jobs.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::change::Which;
use super::client::ServerArgs;
use crate::cli::output::{bytes, columns, grouped, print, print_json, workers};
use crate::control::model::{Event, Job, JobState, Log, Savepoint};
use crate::engine::status::JobStatus;

/// Arguments of `jobs`.
#[derive(Args, Debug)]
pub struct JobsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print the jobs as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `job`.
#[derive(Args, Debug)]
pub struct JobArgs {
    #[command(flatten)]
    which: Which,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// The newest so many lines.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tail: u32,
    /// Go on printing what comes, until the job is at rest.
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
}

/// Lists the jobs.
pub fn jobs(args: JobsArgs) -> anyhow::Result<()> {
    let jobs: Vec<Job> = args.server.client()?.get("/api/v1/jobs")?;
    if args.json {
        return print_json(&jobs);
    }
    if jobs.is_empty() {
        return print("no jobs\n");
    }
    let mut table = vec![["id", "state", "version", "workers", "restarts", "updated", ""].map(str::to_owned).to_vec()];
    for job in jobs {
        let numbers = [job.version, u64::from(job.workers), job.restarts].map(grouped);
        let mut row = vec![job.id, job.state.name().to_owned()];
        row.extend(numbers);
        row.extend([job.updated, job.error.map(|error| shortened(&error)).unwrap_or_default()]);
        table.push(row);
    }
    print(&columns(&table, &[2, 3, 4]))
}

/// A job in one line.
pub fn one(job: &Job) -> String {
    let error = job.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    format!("{}  {}  version {}{error}", job.id, job.state.name(), job.version)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Shows a job.
pub fn job(args: JobArgs) -> anyhow::Result<()> {
    let (client, which) = (args.which.server.client()?, args.which);
    let job: Job = client.get(&which.path(""))?;
    let history: Vec<Event> = client.get(&which.path("/history?limit=10"))?;
    let savepoints: Vec<Savepoint> = client.get(&which.path("/savepoints"))?;
    // A process that does not answer is shown by its absence; the rest is worth seeing all the same.
    let status: Option<JobStatus> = match job.pid {
        Some(_) => client.get(&which.path("/status")).ok(),
        None => None,
    };
    if which.json {
        return print_json(&json!({"job": job, "status": status, "savepoints": savepoints, "history": history}));
    }
    let mut facts = vec![
        ("state", job.state.name().to_owned()),
        ("version", grouped(job.version)),
        ("runs on", workers(usize::from(job.workers))),
        ("created", job.created.clone()),
        ("updated", job.updated.clone()),
        ("restarts", grouped(job.restarts)),
    ];
    facts.extend(job.pid.map(|pid| ("process", format!("{pid}, since {}", job.started.clone().unwrap_or_default()))));
    facts.extend(job.error.clone().map(|error| ("error", error)));
    if let Some(status) = &status {
        facts.push(("clock", status.clock.clone().unwrap_or_else(|| "no events".to_owned())));
        facts.push(("rows read", grouped(status.rows_read)));
        facts.push(("rows scored", grouped(status.rows_scored)));
        facts.push(("dead letters", grouped(status.dead_letters)));
        facts.push(("state", format!("{} keys, {}", grouped(status.keys), bytes(status.state_bytes))));
        if let Some(newest) = status.checkpoints.first() {
            facts.push(("checkpoint", format!("epoch {}, {}, {}", newest.epoch, newest.at, bytes(newest.bytes_total))));
        }
    }
    let facts: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let mut text = format!("{}\n{}", job.id, indent(&columns(&facts, &[])));
    if let Some(status) = &status {
        let mut table = vec![["source", "read", "per second", "late", "dead letters"].map(str::to_owned).to_vec()];
        for source in &status.sources {
            let numbers = [source.read, source.rate as u64, source.late, source.dead].map(grouped);
            table.push(std::iter::once(source.name.clone()).chain(numbers).collect());
        }
        text.push_str(&format!("\n{}", indent(&columns(&table, &[1, 2, 3, 4]))));
    }
    if !savepoints.is_empty() {
        let row = |one: &Savepoint| {
            let state = format!("{:?}", one.state).to_lowercase();
            vec![one.trigger.clone(), state, one.asked.clone(), one.error.clone().unwrap_or(one.place.clone())]
        };
        let mut table = vec![["savepoint", "state", "asked", "place"].map(str::to_owned).to_vec()];
        table.extend(savepoints.iter().map(row));
        text.push_str(&format!("\n{}", indent(&columns(&table, &[]))));
    }
    let row = |event: &Event| {
        [&event.at, &event.who, &event.what, &event.outcome, &shortened(event.detail.trim())]
            .map(String::clone)
            .to_vec()
    };
    let table: Vec<Vec<String>> = history.iter().map(row).collect();
    text.push_str(&format!("\n{}", indent(&columns(&table, &[]))));
    print(&text)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Prints a job's log.
pub fn logs(args: LogsArgs) -> anyhow::Result<()> {
    let (client, which) = (args.which.server.client()?, args.which);
    let mut log: Log = client.get(&which.path(&format!("/logs?tail={}", args.tail)))?;
    if which.json {
        return print_json(&log);
    }
    let text = |log: &Log| log.lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    print(&text(&log))?;
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(Duration::from_millis(500));
        log = client.get(&which.path(&format!("/logs?tail=1&after={}", log.next)))?;
        print(&text(&log))?;
        if log.lines.is_empty() {
            let job: Job = client.get(&which.path(""))?;
            if job.state == JobState::Failed {
                bail!("{} has failed: {}", job.id, job.error.unwrap_or_default());
            }
            if job.state.at_rest() {
                return Ok(());
            }
        }
    }
}

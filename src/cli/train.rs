//! `tidemill train`: batch dataflows, run as jobs of a queue.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{tally, usage};
use super::job::{SetArgs, assignment};
use super::output::{bytes, columns, print, print_json};
use crate::base::{Faults, format_time, wall_clock};
use crate::batch::worker::{AttemptOf, work};
use crate::batch::{self, Progress, Queue, Request, RunOptions, Standing, StepSummary, Summary};
use crate::plan::batch::is_batch as is_batch_text;

/// How long a job that is cancelled has to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);
/// A job that ends sooner is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// The batch dataflow's file.
    #[arg(value_name = "JOB.yaml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    sets: SetArgs,
    /// Set a value of the file of the job that the batch dataflow is of, such as `--of-set sinks.offline.delta.uri=/tmp/lake`;
    /// repeatable.
    #[arg(long = "of-set", value_name = "PATH.TO.KEY=VALUE", value_parser = assignment)]
    of_sets: Vec<(String, String)>,
    /// Directory of jobs.
    #[arg(long, value_name = "DIR", env = "TIDEMILL_QUEUE", default_value = "queue")]
    queue: PathBuf,
    /// Submit the file and do not run it; --resume does.
    #[arg(long, requires = "file")]
    submit: bool,
    /// Run a job of the queue: one that waits, was killed, failed, or was cancelled. Steps that are done are not done again.
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "list", "cancel"])]
    resume: Option<String>,
    /// List the jobs of the queue.
    #[arg(long, conflicts_with_all = ["file", "cancel"])]
    list: bool,
    /// End a job, whoever runs it.
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    cancel: Option<String>,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
    /// Carry out one attempt of this step: what the runner starts.
    #[arg(long, hide = true, requires = "resume")]
    step: Option<String>,
    #[arg(long, hide = true, requires = "step", default_value_t = 1)]
    threads: usize,
    #[arg(long, hide = true, requires = "step", default_value = "")]
    definition: String,
}

/// Whether a file is of a batch dataflow; not where it cannot be read.
pub fn is_batch(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| is_batch_text(&text))
}

/// Submits and runs a batch dataflow, or does something else with the queue.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let queue = Queue::new(&args.queue)?;
    if let (Some(step), Some(id)) = (&args.step, &args.resume) {
        let (id, step) = (id.clone(), step.clone());
        return Ok(work(&queue, &AttemptOf { id, step, threads: args.threads, definition: args.definition })?);
    }
    if args.list {
        return list(&queue, args.json);
    }
    if let Some(id) = &args.cancel {
        queue.cancel(id, CANCEL_PATIENCE).map_err(user)?;
        return print(&format!("job {id} is cancelled\n"));
    }
    let id = match (&args.resume, &args.file) {
        (Some(id), _) => id.clone(),
        (None, Some(file)) => submit(&queue, file, &args)?,
        (None, None) => return Err(usage("name a batch dataflow's file, or --resume, --list or --cancel")),
    };
    if args.submit {
        return match args.json {
            true => print_json(&queue.job(&id)?),
            false => print(&format!("job {id} is queued in {}\n", queue.root().display())),
        };
    }
    let summary = carry_out(&queue, &id)?;
    match args.json {
        true => print_json(&summary)?,
        false => print(&text(&summary))?,
    }
    verdict(&summary, &args.queue)
}

fn submit(queue: &Queue, file: &Path, args: &TrainArgs) -> anyhow::Result<String> {
    if !file.is_file() {
        let why = if file.is_dir() { "is a directory; name the file in it" } else { "does not exist" };
        return Err(usage(format!("{} {why}", file.display())));
    }
    if !is_batch(file) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("job:")) {
            let file = file.display();
            return Err(usage(format!(
                "{file} is the file of a job, not of a batch dataflow; `tidemill run {file}` runs it"
            )));
        }
    }
    let (plan, list) = batch::load(file, &args.sets.sets, &args.of_sets)?;
    if !list.is_empty() {
        let warnings = Faults { file: file.display().to_string(), list };
        eprintln!("{warnings}{}", tally(&warnings));
    }
    let request = Request {
        batch: plan.name,
        file: std::path::absolute(file).context("the current directory is not known")?,
        sets: args.sets.sets.clone(),
        job_sets: args.of_sets.clone(),
        model: None,
        cause: "by hand".to_owned(),
        submitted: format_time(wall_clock()),
    };
    Ok(queue.submit(&request, None)?.id)
}

fn carry_out(queue: &Queue, id: &str) -> anyhow::Result<Summary> {
    let stopped = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stopped);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for interrupts")?;
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let mut shown = Shown::new(id);
    let options = RunOptions {
        program,
        stopped: &|| stopped.load(Ordering::Relaxed),
        watch: &mut |progress| shown.show(progress),
    };
    let outcome = batch::run(queue, id, options);
    shown.finish();
    outcome.map_err(user)
}

/// What the user did wrong is told as such.
fn user(error: batch::BatchError) -> anyhow::Error {
    match error {
        batch::BatchError::File(faults) => faults.into(),
        error if error.blame() == crate::base::Blame::User => usage(error.to_string()),
        error => error.into(),
    }
}

fn verdict(summary: &Summary, queue: &Path) -> anyhow::Result<()> {
    let id = &summary.id;
    let again = match queue == Path::new("queue") {
        true => format!("tidemill train --resume {id}"),
        false => format!("tidemill train --queue {} --resume {id}", queue.display()),
    };
    match summary.state {
        "done" => Ok(()),
        "failed" => {
            let failed: Vec<&StepSummary> = summary.steps.iter().filter(|step| step.state == "failed").collect();
            let first = failed.first().map_or(String::new(), |step| {
                let why = step.why.as_deref().unwrap_or_default();
                format!(": step `{}`: {why} (log: {})", step.name, step.log.display())
            });
            Err(anyhow::anyhow!("job {id} failed{first}; `{again}` tries again what failed"))
        }
        state => Err(anyhow::anyhow!("job {id} was {state}; `{again}` goes on")),
    }
}

fn list(queue: &Queue, json: bool) -> anyhow::Result<()> {
    let jobs = queue.list()?;
    if json {
        return print_json(&jobs);
    }
    if jobs.is_empty() {
        return print(&format!("no jobs in {}\n", queue.root().display()));
    }
    let mut rows = vec![["job", "state", "since", "batch", "cause", ""].map(str::to_owned).to_vec()];
    for job in jobs {
        let state = match (job.status.state, job.interrupted) {
            (Standing::Queued, true) => "queued (was interrupted)".to_owned(),
            (state, _) => state.word().to_owned(),
        };
        let why = job.status.why.unwrap_or_default();
        rows.push(vec![job.id, state, job.status.since, job.request.batch, job.request.cause, why]);
    }
    print(&columns(&rows, &[]))
}

/// Progress for people: a bar where standard error is a terminal, else a line per change.
struct Shown {
    began: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
    id: String,
    states: Vec<(&'static str, Option<u32>)>,
}

impl Shown {
    fn new(id: &str) -> Shown {
        let terminal = std::io::stderr().is_terminal();
        Shown { began: Instant::now(), terminal, bar: None, id: id.to_owned(), states: Vec::new() }
    }

    fn show(&mut self, progress: &Progress) {
        if self.terminal {
            return self.draw(progress);
        }
        let states: Vec<_> = progress.steps.iter().map(|step| (step.state, step.attempt)).collect();
        for (index, (step, state)) in progress.steps.iter().zip(&states).enumerate() {
            let was = self.states.get(index);
            if was != Some(state) && !(was.is_none() && step.state == "queued") {
                let attempt = step.attempt.filter(|n| *n > 1).map_or(String::new(), |n| format!(", attempt {n}"));
                let text = if step.text.is_empty() { String::new() } else { format!(": {}", step.text) };
                eprintln!("{}: {} {}{attempt}{text}", self.id, step.name, step.state);
            }
        }
        self.states = states;
    }

    fn draw(&mut self, progress: &Progress) {
        if self.began.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let template = "{msg} {wide_bar} {percent}%; {prefix}";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1000).with_style(style).with_message(self.id.clone())
        });
        let part = |step: &batch::StepProgress| match step.state {
            "queued" | "retrying" => 0.0,
            "running" => step.fraction.unwrap_or(0.0),
            _ => 1.0,
        };
        let done: f64 = progress.steps.iter().map(part).sum::<f64>() / progress.total.max(1) as f64;
        bar.set_position((done * 1000.0) as u64);
        let running: Vec<String> = progress
            .steps
            .iter()
            .filter(|step| step.state == "running")
            .map(|step| if step.text.is_empty() { step.name.clone() } else { format!("{}: {}", step.name, step.text) })
            .collect();
        let left = progress.seconds_left.map_or(String::new(), |s| format!(", {} left", length(s)));
        bar.set_prefix(format!("{} of {} steps{left}; {}", progress.over, progress.total, running.join(", ")));
    }

    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `4 s`, `3 min`.
fn length(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

fn text(summary: &Summary) -> String {
    let mut rows = vec![["step", "state", "took", "", ""].map(str::to_owned).to_vec()];
    for step in &summary.steps {
        let took = step.seconds.map_or(String::new(), |s| format!("{s:.1} s"));
        let state = if step.reused { format!("{} before", step.state) } else { step.state.to_owned() };
        let left: Vec<String> =
            step.outputs.iter().map(|output| format!("{} ({})", output.file, bytes(output.bytes))).collect();
        let said = step.facts["summary"].as_str().unwrap_or_default().to_owned();
        rows.push(vec![step.name.clone(), state, took, said, left.join(", ")]);
    }
    let whys: String = summary
        .steps
        .iter()
        .filter_map(|step| Some(format!("  {} {}: {}\n", step.name, step.state, step.why.as_ref()?)))
        .collect();
    let table: String = columns(&rows, &[2]).lines().map(|line| format!("  {line}\n")).collect();
    let (id, state, directory) = (&summary.id, summary.state, summary.directory.display());
    format!("{id}: {state} in {:.1} s\n{table}{whys}  in {directory}\n", summary.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_well() {
        assert_eq!([4.2, 89.0, 170.0, 9_000.0].map(length), ["4 s", "89 s", "3 min", "2.5 h"]);
    }
}

//! What changes jobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::client::{Client, ServerArgs, fault, segment};
use super::show::one;
use crate::base::Faults;
use crate::cli::failure::{tally, usage};
use crate::cli::job::assignment;
use crate::cli::output::{print, print_json};
use crate::control::model::{
    FileFault, Job, JobState, RestartRequest, Savepoint, SavepointRequest, SavepointState, StopMode, StopRequest,
    Submission, Upgrade, UpgradeRequest,
};

/// How often a job is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// A job at a server.
#[derive(Args, Debug)]
pub struct Which {
    /// The job's id, as `tidemill jobs` lists it.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Print what the server answers, as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Which {
    /// Path of something of the job.
    pub fn path(&self, what: &str) -> String {
        format!("/api/v1/jobs/{}{what}", segment(&self.id))
    }
}

/// What goes with a file.
#[derive(Args, Debug)]
struct FileArgs {
    /// What `${NAME}` in the file stands for; repeatable. A secret is best given as a reference that the server looks up:
    /// `'PASSWORD=${env:PASSWORD}'` or `'PASSWORD=${file:/run/secrets/password}'`.
    #[arg(long = "value", value_name = "NAME=VALUE", value_parser = assignment)]
    values: Vec<(String, String)>,
    /// Set a value of the file, such as `--set sinks.offline.delta.uri=/lake`; repeatable.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE", value_parser = assignment)]
    sets: Vec<(String, String)>,
    /// Drop state that the job has no use for.
    #[arg(long)]
    allow_drop: bool,
}

/// Arguments of `submit`.
#[derive(Args, Debug)]
pub struct SubmitArgs {
    /// The job's dataflow file. Its text is sent; what it names is the server's.
    #[arg(value_name = "JOB.yaml")]
    file: PathBuf,
    #[command(flatten)]
    with: FileArgs,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Begin with this savepoint, at a place that the server can read.
    #[arg(long, value_name = "SAVEPOINT")]
    from: Option<String>,
    /// Finish at the end of finite sources, and of topics as they are at the start.
    #[arg(long)]
    until_end: bool,
    /// Do not wait until the job runs.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print the job as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `stop`.
#[derive(Args, Debug)]
pub struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// How it stops.
    #[arg(long, value_enum, default_value_t = Mode::Checkpoint)]
    mode: Mode,
    /// Copy its state to this place, a directory or an address that the server can write to.
    #[arg(long, value_name = "PLACE")]
    savepoint: Option<String>,
    /// Do not wait until it has stopped.
    #[arg(long)]
    no_wait: bool,
}

/// How a job is stopped.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Finish what was read, save all state.
    Checkpoint,
    /// Let rows that wait and open windows come out first, as if the input had ended.
    Drain,
    /// Save nothing; a start goes on from the newest checkpoint.
    Now,
}

impl From<Mode> for StopMode {
    fn from(mode: Mode) -> StopMode {
        match mode {
            Mode::Checkpoint => StopMode::Checkpoint,
            Mode::Drain => StopMode::Drain,
            Mode::Now => StopMode::Now,
        }
    }
}

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct StartArgs {
    #[command(flatten)]
    which: Which,
    /// Do not wait until it runs.
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `restart`.
#[derive(Args, Debug)]
pub struct RestartArgs {
    #[command(flatten)]
    which: Which,
    /// How it is stopped before: checkpoint or now.
    #[arg(long, value_enum, default_value_t = Mode::Checkpoint)]
    mode: Mode,
    /// Do not wait until it runs again.
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    #[command(flatten)]
    which: Which,
    /// The file to go on with. Values, assignments and workers stay as they are unless they are given anew.
    #[arg(value_name = "JOB.yaml")]
    file: PathBuf,
    #[command(flatten)]
    with: FileArgs,
    /// Worker threads from now on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Only say what would change in the plan and in the state. Ends with 1 if state would be lost.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the new file runs.
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `savepoint`.
#[derive(Args, Debug)]
pub struct SavepointArgs {
    #[command(flatten)]
    which: Which,
    /// A name for it: the same name twice is one savepoint.
    #[arg(long, value_name = "NAME")]
    trigger: Option<String>,
    /// A new directory, or an address such as s3://bucket/path, that the server can write to. Default: one of the job's own.
    #[arg(long, value_name = "PLACE")]
    place: Option<String>,
    /// Do not wait until it is written.
    #[arg(long)]
    no_wait: bool,
}

/// Arguments of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// Though it runs: end it at once.
    #[arg(long)]
    force: bool,
}

/// Submits a job.
pub fn submit(args: SubmitArgs) -> anyhow::Result<()> {
    let client = args.server.client()?;
    let submission = Submission {
        file: text(&args.file)?,
        values: args.with.values.into_iter().collect(),
        set: args.with.sets.into_iter().collect(),
        workers: args.workers,
        from: args.from,
        until_end: args.until_end,
        allow_drop: args.with.allow_drop,
    };
    let job: Job = client.ask("POST", "/api/v1/jobs", Some(&submission), &args.file.display().to_string())?;
    let job = match args.no_wait {
        true => job,
        false => until_runs(&client, job)?,
    };
    if args.json { print_json(&job) } else { print(&format!("{}\n", one(&job))) }
}

/// Stops a job.
pub fn stop(args: StopArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let savepoints = format!("{}/savepoints", args.which.path(""));
    let before: Vec<Savepoint> = client.get(&savepoints)?;
    let wanted = args.savepoint.is_some();
    let request = StopRequest { mode: args.mode.into(), savepoint: args.savepoint };
    let mut job: Job = client.ask("POST", &args.which.path("/stop"), Some(&request), "")?;
    let mut saved = None;
    if !args.no_wait {
        job = until(&client, job, |job| job.state.at_rest())?;
        if wanted {
            saved = Some(savepoint_of_stop(&client, &savepoints, before.len())?);
        }
    }
    if args.which.json {
        print_json(&job)?;
    } else {
        let place = saved.map_or_else(String::new, |one| format!("savepoint: {}\n", one.place));
        print(&format!("{}\n{place}", one(&job)))?;
    }
    match job.error {
        Some(error) if !args.no_wait => bail!("{}: {error}", job.id),
        _ => Ok(()),
    }
}

/// The savepoint that a stop made: it is there soon after the job has come to rest, or before.
fn savepoint_of_stop(client: &Client, path: &str, before: usize) -> anyhow::Result<Savepoint> {
    loop {
        let savepoints: Vec<Savepoint> = client.get(path)?;
        match savepoints.get(before) {
            Some(one) if one.state == SavepointState::Done => return Ok(one.clone()),
            Some(one) if one.state == SavepointState::Failed => {
                bail!("the job has stopped, and no savepoint was written: {}", one.error.clone().unwrap_or_default())
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// Starts a job.
pub fn start(args: StartArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let job: Job = client.ask("POST", &args.which.path("/start"), None::<&()>, "")?;
    tell_of_start(&client, job, args.no_wait, args.which.json)
}

/// Restarts a job.
pub fn restart(args: RestartArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let request = RestartRequest { mode: args.mode.into() };
    let job: Job = client.ask("POST", &args.which.path("/restart"), Some(&request), "")?;
    tell_of_start(&client, job, args.no_wait, args.which.json)
}

fn tell_of_start(client: &Client, job: Job, no_wait: bool, json: bool) -> anyhow::Result<()> {
    let job = if no_wait { job } else { until_runs(client, job)? };
    if json { print_json(&job) } else { print(&format!("{}\n", one(&job))) }
}

/// Goes over to another file.
pub fn upgrade(args: UpgradeArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let given = |list: Vec<(String, String)>| (!list.is_empty()).then(|| list.into_iter().collect::<BTreeMap<_, _>>());
    let request = UpgradeRequest {
        file: text(&args.file)?,
        values: given(args.with.values),
        set: given(args.with.sets),
        workers: args.workers,
        allow_drop: args.with.allow_drop,
    };
    let path = args.which.path(if args.dry_run { "/file?dry_run=true" } else { "/file" });
    let file = args.file.display().to_string();
    let mut upgrade: Upgrade = client.ask("PUT", &path, Some(&request), &file)?;
    let (version, was) = (upgrade.version, upgrade.job.version);
    if !args.dry_run && !args.no_wait {
        upgrade.job =
            until(&client, upgrade.job.clone(), |job| job.doing.is_none() && job.state != JobState::Starting)?;
    }
    if args.which.json {
        print_json(&upgrade)?;
    } else {
        warn(&file, &upgrade.warnings);
        print(&text_of(&upgrade))?;
    }
    if args.dry_run && upgrade.needs_allow_drop && !request.allow_drop {
        bail!("state would be lost; put back what is missing, or upgrade with --allow-drop");
    }
    if !args.dry_run && !args.no_wait && upgrade.job.version != version {
        bail!("{}", upgrade.job.error.unwrap_or_else(|| format!("the job is at version {was} still")));
    }
    Ok(())
}

fn text_of(upgrade: &Upgrade) -> String {
    let mut out = String::new();
    for line in &upgrade.plan {
        out.push_str(line);
        out.push('\n');
    }
    if upgrade.plan.is_empty() {
        out.push_str("the plan stays as it is\n");
    }
    match &upgrade.changes {
        Some(changes) => out.push_str(&format!("\nthe job\n{}", changes.text)),
        None => out.push_str("\nthe job has saved no state yet\n"),
    }
    match upgrade.dry_run {
        true => out.push_str(&format!("\nit would be version {}; nothing was done\n", upgrade.version)),
        false => out.push_str(&format!("\n{}\n", one(&upgrade.job))),
    }
    out
}

/// Makes a savepoint.
pub fn savepoint(args: SavepointArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let request = SavepointRequest { trigger: args.trigger, place: args.place };
    let mut savepoint: Savepoint = client.ask("POST", &args.which.path("/savepoints"), Some(&request), "")?;
    let path = args.which.path(&format!("/savepoints/{}", segment(&savepoint.trigger)));
    while !args.no_wait && savepoint.state == SavepointState::Running {
        std::thread::sleep(LOOK);
        savepoint = client.get(&path)?;
    }
    if args.which.json {
        print_json(&savepoint)?;
    } else if savepoint.state != SavepointState::Failed {
        print(&format!("{}\n", savepoint.place))?;
    }
    match savepoint.state {
        SavepointState::Failed => bail!("no savepoint was written: {}", savepoint.error.unwrap_or_default()),
        _ => Ok(()),
    }
}

/// Deletes a job.
pub fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    let client = args.which.server.client()?;
    let path = args.which.path(if args.force { "?force=true" } else { "" });
    let job: Job = client.ask("DELETE", &path, None::<&()>, "")?;
    if args.which.json { print_json(&job) } else { print(&format!("{} is deleted\n", job.id)) }
}

/// Waits until a job runs, has finished, or has failed, which is an error.
fn until_runs(client: &Client, job: Job) -> anyhow::Result<Job> {
    let runs = |job: &Job| job.doing.is_none() && (job.state == JobState::Running || job.state.at_rest());
    let job = until(client, job, runs)?;
    match job.state {
        JobState::Failed => bail!("{} has failed: {}", job.id, job.error.unwrap_or_default()),
        _ => Ok(job),
    }
}

fn until(client: &Client, mut job: Job, done: impl Fn(&Job) -> bool) -> anyhow::Result<Job> {
    let path = format!("/api/v1/jobs/{}", segment(&job.id));
    while !done(&job) {
        std::thread::sleep(LOOK);
        job = client.get(&path)?;
    }
    Ok(job)
}

fn warn(file: &str, warnings: &[FileFault]) {
    if !warnings.is_empty() {
        let faults = Faults { file: file.to_owned(), list: warnings.iter().cloned().map(fault).collect() };
        eprintln!("{faults}{}", tally(&faults));
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    if !file.is_file() {
        let why = if file.is_dir() { "is a directory; name the job's file in it" } else { "does not exist" };
        return Err(usage(format!("{} {why}", file.display())));
    }
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

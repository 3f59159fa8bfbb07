//! `tidemill prove JOB.yaml`: replays what a job recorded and compares every row.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::failure::usage;
use super::job::JobArgs;
use super::output::{columns, grouped, print, print_json};
use super::progress::Progress;
use super::run::stop_on_interrupt;
use crate::base::{any_seed, parse_time};
use crate::engine::prove::{
    Chaos, Launch, Proof, ProofRun, ProveOptions, Range, Watch, prove, replay_into, state_of_replay,
};
use crate::engine::{Observer, StopHandle};
use crate::plan::model::Plan;

/// Arguments of `prove`.
#[derive(Args, Debug)]
pub struct ProveArgs {
    #[command(flatten)]
    job: JobArgs,
    /// The job's state directory, as given to `run`: its tick log says how the events were cut, its newest epoch up to where
    /// the tables are complete. The job may run meanwhile.
    #[arg(long, value_name = "DIR", required_unless_present = "replay_into")]
    state: Option<PathBuf>,
    /// Worker counts; the replay runs with each in turn.
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "1,2",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    workers: Vec<u16>,
    /// Replay once more as processes that are killed so often, at random places and times, and go on at other worker counts.
    #[arg(long, value_name = "KILLS", num_args = 0..=1, default_missing_value = "5")]
    chaos: Option<usize>,
    /// What decides over the places and times of --chaos; it is printed, and the same seed makes the same choices. Default:
    /// another one each time.
    #[arg(long, value_name = "N", requires = "chaos")]
    seed: Option<u64>,
    /// Compare the online store too: every entity's values, whether it is there, and whether it is stale, as of the job's
    /// clock. The job must have been stopped, or have come to its end.
    #[arg(long)]
    online: bool,
    /// Change one value of the replay by one unit in the last place: the proof must then fail. For those who want to see that
    /// it can.
    #[arg(long)]
    inject_ulp: bool,
    /// Begin with the state of this epoch instead of with the first event; rows before it are not compared. Without it, and
    /// where the tick log does not reach back to the first event, the oldest epoch that is kept is taken.
    #[arg(long, value_name = "N")]
    from_epoch: Option<u64>,
    /// Compare rows from this event time on. The replay begins where it would.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Compare rows before this event time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Rows that the tick log does not cover, or that are in a table twice, were written by another run. Count them; without
    /// this they are an error. Rows that differ from the replay are an error in any case.
    #[arg(long)]
    allow_foreign: bool,
    /// Where the replay writes its tables, which need as much room as the job's; they are removed in the end. Default: the
    /// state directory. Nothing else is written: no messages, no offsets, no table, no online value.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Replay over a folder that another process has prepared, for --chaos.
    #[arg(long, value_name = "DIR", hide = true)]
    replay_into: Option<PathBuf>,
}

/// Proves, or says what differs.
pub fn run(args: ProveArgs) -> anyhow::Result<()> {
    let time = |text: &Option<String>, flag: &str| {
        text.as_deref().map(parse_time).transpose().map_err(|what| usage(format!("{flag}: {what}")))
    };
    let range = Range { since: time(&args.since, "--since")?, until: time(&args.until, "--until")? };
    if range.since.zip(range.until).is_some_and(|(since, until)| since >= until) {
        return Err(usage("--since must be before --until"));
    }
    if let Some(place) = &args.replay_into {
        let plan = args.job.load_with_state(Some(&state_of_replay(place)))?.plan;
        return Ok(replay_into(&plan, place, args.workers.first().map_or(1, |workers| usize::from(*workers)))?);
    }
    let plan = args.job.load_and_warn(args.state.as_deref())?;
    let Some(state) = args.state.clone() else { return Err(usage("give --state DIR, as it was given to run")) };
    let stop = StopHandle::new();
    stop_on_interrupt(stop.clone())?;
    let chaos = args.chaos.map(|kills| {
        Ok::<_, anyhow::Error>(Chaos { kills, seed: args.seed.unwrap_or_else(any_seed), launch: launch(&args)? })
    });
    let options = ProveOptions {
        state,
        workers: args.workers.iter().map(|workers| usize::from(*workers)).collect(),
        from_epoch: args.from_epoch,
        range,
        online: args.online,
        chaos: chaos.transpose()?,
        inject_ulp: args.inject_ulp,
        allow_foreign: args.allow_foreign,
        scratch: args.scratch,
        stop,
        watch: Some(watch()),
    };
    if let Some(chaos) = &options.chaos {
        eprintln!("chaos: {} kills, --seed {}", chaos.kills, chaos.seed);
    }
    let proof = prove(&plan, &options)?;
    if args.json {
        print_json(&proof)?
    } else {
        print(&text(&proof))?
    }
    match first_difference(&proof) {
        None => Ok(()),
        Some(what) => bail!("the replay differs from what was recorded: {what}"),
    }
}

/// How this program is started to be killed.
fn launch(args: &ProveArgs) -> anyhow::Result<Launch> {
    let program = std::env::current_exe().context("cannot find this program's own file, which --chaos starts")?;
    let (file, sets) = (args.job.file.clone(), args.job.sets.sets.clone());
    Ok(Arc::new(move |place: &Path, workers: usize| {
        let mut command = Command::new(&program);
        command.arg("prove").arg(&file).arg("--replay-into").arg(place).args(["--workers", &workers.to_string()]);
        for (key, value) in &sets {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }))
}

fn watch() -> Watch {
    Arc::new(|plan: &Plan| {
        let observer = Arc::new(Observer::new(plan));
        let progress = Progress::watch(plan, &observer, true);
        (Some(observer), Box::new(Watched(Some(progress))) as Box<dyn Any>)
    })
}

/// A bar that is taken away with the value.
struct Watched(Option<Progress>);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(progress) = self.0.take() {
            progress.finish();
        }
    }
}

fn first_difference(proof: &Proof) -> Option<String> {
    let run = proof.runs.iter().find(|run| !run.differences.is_empty())?;
    Some(format!("{} ({})", run.differences.first()?, name(run)))
}

fn name(run: &ProofRun) -> String {
    let counts: Vec<String> = run.workers.iter().map(ToString::to_string).collect();
    match (&run.chaos, counts.as_slice()) {
        (Some(kills), _) => {
            format!("{} kills, seed {}, {} workers", kills.killed(), kills.seed, counts.join(", then "))
        }
        (None, [one]) if one == "1" => "1 worker".to_owned(),
        (None, _) => format!("{} workers", counts.join(", ")),
    }
}

/// For people: what was proven, a table per replay.
fn text(proof: &Proof) -> String {
    let verdict = if proof.proven { "the same in every bit" } else { "DIFFERENT" };
    let mut text = format!(
        "{}: {verdict}\n  ticks {} to {} (epoch {}), from {}, in {:.1} s\n",
        proof.job, proof.first_tick, proof.last_tick, proof.epoch, proof.from, proof.seconds
    );
    if let Some(epoch) = proof.unpublished_epoch {
        text.push_str(&format!("  epoch {epoch} is committed and not in the tables yet, so it is not compared\n"));
    }
    for run in &proof.runs {
        text.push_str(&format!("  {}: replayed in {:.1} s", name(run), run.replay_seconds));
        if let Some(rows) = run.rows_read {
            let rate = rows as f64 / run.replay_seconds.max(1e-9);
            text.push_str(&format!(" ({} rows read, {} per second)", grouped(rows), grouped(rate as u64)));
        }
        text.push_str(&format!(", compared in {:.1} s\n", run.compare_seconds));
        let mut rows = vec![["table", "rows proven", "values", "scores"].map(str::to_owned).to_vec()];
        for table in &run.tables {
            let mut row = vec![table.table.clone()];
            row.extend([table.rows, table.values, table.scores].map(grouped));
            let mut notes = Vec::new();
            let mut note = |count: u64, what: &str| {
                if count > 0 {
                    notes.push(format!("{} {what}", grouped(count)));
                }
            };
            note(table.differing, "DIFFER");
            note(table.older, "older than the first tick");
            note(table.later, "of later epochs");
            note(table.foreign, "of other runs");
            row.push(notes.join(", "));
            rows.push(row);
        }
        text.extend(columns(&rows, &[1, 2, 3]).lines().map(|line| format!("    {line}\n")));
        if let Some(online) = &run.online {
            let (keys, values) = (grouped(online.keys), grouped(online.values));
            text.push_str(&format!("    online: {keys} entities, {values} values\n"));
            if online.let_go > 0 {
                let let_go = grouped(online.let_go);
                text.push_str(&format!("    {let_go} more had run empty and were not written again after a loss\n"));
            }
        }
        for difference in run.differences.iter().skip(1) {
            text.push_str(&format!("    {}\n", difference.to_string().replace('\n', "\n    ")));
        }
    }
    text
}

//! The command line: arguments, printing, exit codes. What a command does is in the rooms to the left.
//!
//! Exit codes: 0 done, 1 a check or job failed, 2 usage or bad file. Results go to standard output, everything else
//! (progress, warnings, the one error) to standard error.

mod bench;
mod check;
mod dataset;
mod demo;
mod experiments;
mod failure;
mod feast;
mod features;
mod generate;
mod job;
mod jobs;
mod live;
mod maintain;
mod metrics;
mod models;
mod output;
mod progress;
mod prove;
mod report;
mod run;
mod score;
mod serve;
mod serve_infer;
mod serve_online;
mod train;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Streaming features, in-graph model scores and the tables that prove them, in one program.
///
/// A job is a YAML file: sources of events, windows over them by entity, models that score the rows, and the tables
/// that keep what was computed. Try it without one: `tidemill demo`.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as `tidemill::engine=debug`.
    #[arg(long, global = true, env = "TIDEMILL_LOG", default_value = "warn", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a check or job failed, 2 usage or bad file.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the card fraud job on generated traffic and watch it live.
    ///
    /// Computes features, scores payments and compares the scores with the labels that arrive later. Needs nothing; leaves
    /// Delta tables behind and prints the commands that look at them.
    Demo(demo::DemoArgs),
    /// Run one job in the foreground.
    Run(run::RunArgs),
    /// Serve jobs, features and predictions over HTTP: submit, see, change.
    ///
    /// HTTP/1.1 and HTTP/2 on one port, with TLS or without; what there is, is in /openapi.json. Ends in peace when it is
    /// interrupted.
    Serve(serve::ServeArgs),
    /// Validate a job's file and print its plan: sources, operators, columns with types, state bound.
    Check(check::CheckArgs),
    /// Replay the events that a job has recorded and compare every row with the tables, bit for bit.
    ///
    /// Reads the sources again, cut as the tick log in the job's state directory says, runs the same plan with its sinks
    /// elsewhere, and holds all feature vectors, scores and dead letters of the committed epochs against what was stored. Ends
    /// with 1 at the first difference, naming entity, tick, column and both values.
    Prove(prove::ProveArgs),
    /// Write a page on how a job's models do: accuracy, drift, data quality, alerts, latency.
    ///
    /// One HTML file from the job's tables, without scripts and without a request to anywhere: to be opened, sent, printed,
    /// kept. The job may be running.
    Report(report::ReportArgs),
    /// Keep a job's tables tidy: merge small files, delete what no reader needs any more.
    ///
    /// May run while the job does, and may be killed at any moment: the tables stay right. Rows, answers as of a time and
    /// the job's place in the tables do not change.
    Maintain(maintain::MaintainArgs),
    /// Run a batch dataflow: make a training set, fit, judge and register a model.
    ///
    /// The file is submitted to a queue, a directory of jobs, and run at once. A job that was killed, or failed, goes on where
    /// it was with --resume: steps that are done are not done again.
    Train(train::TrainArgs),
    /// Read features.
    #[command(subcommand)]
    Features(features::FeaturesCommand),
    /// What Feast's SDK needs to read a job's features.
    #[command(subcommand)]
    Feast(feast::FeastCommand),
    /// Comparisons of model versions: plan them, and see what rollouts have found.
    #[command(subcommand)]
    Experiments(experiments::ExperimentsCommand),
    /// Keep models in a registry: versions, aliases, and a history of who did what and why.
    ///
    /// A job scores with what is registered when its file says `registry: NAME@champion`. The registry is a directory or a
    /// place in an object store; there is no server.
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Make a training set: labels or entities with the features that were known at each one's time.
    ///
    /// From the job's tables, which may be written meanwhile. Sorted Parquet with a manifest beside it that names each table's
    /// version, by which the same bytes can be made again: `--again`.
    Dataset(dataset::DatasetArgs),
    /// Score rows of Parquet files with a model.
    ///
    /// The scores are those that a job gives the same rows, to the bit. Each output holds the columns that pass through, the scores, and the
    /// model's version and hash, in the order of the input.
    #[command(after_help = score::EXAMPLE)]
    Score(score::ScoreArgs),
    /// Send generated card traffic and its fraud labels to Kafka topics, at a given pace.
    ///
    /// Open loop: each payment has its moment on the schedule, whether or not the brokers keep up. Labels follow when they
    /// become known in event time.
    Generate(generate::GenerateArgs),
    /// Submit a job to a server, which runs it and keeps it running.
    Submit(jobs::SubmitArgs),
    /// List the jobs of a server.
    Jobs(jobs::JobsArgs),
    /// Show a job of a server: how it is, its savepoints, its history.
    Job(jobs::JobArgs),
    /// Stop a job of a server; it can be started again and goes on where it was.
    Stop(jobs::StopArgs),
    /// Start a job of a server that was stopped or has failed.
    Start(jobs::StartArgs),
    /// Stop a job of a server and start it again.
    Restart(jobs::RestartArgs),
    /// Print the log of a job of a server.
    Logs(jobs::LogsArgs),
    /// Have a job of a server go on with another file, keeping its state.
    ///
    /// Says what changes in the plan and in the state. The job stops with a savepoint and goes on with the new file; if that
    /// does not come to run, it goes back to the old one.
    Upgrade(jobs::UpgradeArgs),
    /// Make a savepoint of a job of a server, which runs on.
    Savepoint(jobs::SavepointArgs),
    /// Delete a job of a server with its files, state and log. Its tables stay.
    Delete(jobs::DeleteArgs),
    /// Run a benchmark beside a hand-written loop of the same work.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Print a completion script for a shell.
    ///
    /// For bash: `tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the program: reads the arguments, does the command, prints the error if there is one.
pub fn main() -> ExitCode {
    keep_freed_memory();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// Has each of the allocator's pools keep some megabytes of what was freed, as it would by itself once large blocks were
/// freed. With less, the messages of a fetch are given back to the system and asked for again, page by page, many times a second.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers of the allocator, before there are other threads. A refusal leaves the defaults.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 8 << 20);
    }
}

impl Cli {
    fn run(self) -> anyhow::Result<()> {
        start_log(&self.log)?;
        match self.command {
            Command::Demo(args) => demo::run(args),
            Command::Run(args) => run::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Check(args) => check::run(args),
            Command::Prove(args) => prove::run(args),
            Command::Report(args) => report::run(args),
            Command::Maintain(args) => maintain::run(args),
            Command::Train(args) => train::run(args),
            Command::Features(command) => features::run(command),
            Command::Feast(command) => feast::run(command),
            Command::Models(command) => models::run(command),
            Command::Dataset(args) => dataset::run(args),
            Command::Experiments(command) => experiments::run(command),
            Command::Score(args) => score::run(args),
            Command::Generate(args) => generate::run(args),
            Command::Submit(args) => jobs::submit(args),
            Command::Jobs(args) => jobs::jobs(args),
            Command::Job(args) => jobs::job(args),
            Command::Stop(args) => jobs::stop(args),
            Command::Start(args) => jobs::start(args),
            Command::Restart(args) => jobs::restart(args),
            Command::Logs(args) => jobs::logs(args),
            Command::Upgrade(args) => jobs::upgrade(args),
            Command::Savepoint(args) => jobs::savepoint(args),
            Command::Delete(args) => jobs::delete(args),
            Command::Bench(command) => bench::run(command),
            Command::Completions { shell } => completions(shell),
        }
    }
}

fn start_log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| failure::usage(format!("--log {filter}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidemill", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_is_explained() {
        fn walk(command: &clap::Command, missing: &mut Vec<String>) {
            if command.get_about().is_none() {
                missing.push(command.get_name().to_owned());
            }
            for argument in command.get_arguments() {
                if argument.get_help().is_none() && !argument.is_hide_set() {
                    missing.push(format!("{} {}", command.get_name(), argument.get_id()));
                }
            }
            command.get_subcommands().for_each(|c| walk(c, missing));
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), &mut missing);
        assert!(missing.is_empty(), "no help for {missing:?}: `--help` is the reference");
    }
}

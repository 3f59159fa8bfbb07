//! `tidemill experiments`: how many rows a comparison of two versions takes, and what rollouts have found.

mod show;
mod size;

use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum ExperimentsCommand {
    /// How many rows with labels it takes to tell two versions apart.
    ///
    /// With one look at the end, and with a look after every row, as rollouts do: most of these end earlier, some later.
    Size(size::SizeArgs),
    /// What a job's rollouts have decided, and why: lift, interval and p-value that allow peeking, guards.
    ///
    /// Read from the table `stats/rollout`; the job may be running.
    Show(show::ShowArgs),
}

/// Does it.
pub fn run(command: ExperimentsCommand) -> anyhow::Result<()> {
    match command {
        ExperimentsCommand::Size(args) => size::run(&args),
        ExperimentsCommand::Show(args) => show::run(&args),
    }
}

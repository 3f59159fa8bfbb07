//! `tidemill bench rollouts`.

use clap::Args;

use crate::bench::rollouts;
use crate::cli::output::{print, print_json};

/// Arguments of `bench rollouts`.
#[derive(Args, Debug)]
pub struct RolloutsArgs {
    /// Rollouts of each kind.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    rollouts: u64,
    /// Seed of all of them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads; without it as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Simulates.
pub fn run(args: &RolloutsArgs) -> anyhow::Result<()> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or_else(cores, usize::from);
    let report = rollouts::run(&rollouts::Options { rollouts: args.rollouts, seed: args.seed, threads });
    match args.json {
        true => print_json(&report)?,
        false => print(&format!("{report}\n"))?,
    }
    anyhow::ensure!(report.promise_kept, "more false promotions than alpha allows");
    Ok(())
}

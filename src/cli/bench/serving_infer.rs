//! `tidemill bench serving_infer`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::bench::serving_infer::{Options, run as measure};
use crate::cli::output::{print, print_json};

/// Arguments of `bench serving_infer`.
#[derive(Args, Debug)]
pub struct ServingInferArgs {
    /// The model: trees, mlp or logistic, as in `bench score`.
    #[arg(long, value_name = "NAME", default_value = "trees")]
    model: String,
    /// Measure each server and number of connections for this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Turns that the servers take; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// Another server that answers the same requests.
    #[arg(long, value_name = "HOST:PORT", requires = "peer_pid")]
    peer: Option<SocketAddr>,
    /// Its process, for its processor time.
    #[arg(long, value_name = "PID", requires = "peer")]
    peer_pid: Option<u32>,
    /// Leave the model in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(args: ServingInferArgs) -> anyhow::Result<()> {
    let report = measure(&Options {
        program: std::env::current_exe().context("cannot find the program itself")?,
        model: args.model,
        seconds: args.seconds,
        turns: args.turns,
        peer: args.peer.zip(args.peer_pid),
        keep: args.keep,
    })?;
    if args.json { print_json(&report) } else { print(&report.to_string()) }
}

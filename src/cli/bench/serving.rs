//! `tidemill bench serving`.

use anyhow::Context;
use clap::Args;

use super::show;
use crate::bench::serving::{self, Case, Options, Report};
use crate::cli::output::{columns, grouped};

/// Arguments of `bench serving`.
#[derive(Args, Debug)]
pub struct ServingArgs {
    /// The server: `redis://[user[:password]@]host[:port][/database]`. Keys go under a prefix of their own and are removed.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Number of entities.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    entities: u32,
    /// Seconds that each loop runs.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Connections that ask at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Requests per second of the open loop. Default: half of what the closed loop got.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Ask this server too: its view `customer`, keyed by customer_id, has the features s_1d to s_20d. benches/serving_peers.py
    /// starts Feast's so.
    #[arg(long, value_name = "URL", requires = "peer_pid")]
    peer: Option<String>,
    /// Process id of that server, for its processor time.
    #[arg(long, value_name = "PID", requires = "peer")]
    peer_pid: Option<u32>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints the figures.
pub(super) fn run(args: ServingArgs) -> anyhow::Result<()> {
    let report = serving::run(&Options {
        program: std::env::current_exe().context("cannot find the program itself")?,
        redis: args.redis,
        entities: args.entities as usize,
        seconds: args.seconds,
        connections: usize::from(args.connections),
        rate: args.rate,
        peer: args.peer.zip(args.peer_pid),
    })?;
    show(&report, args.json, text)
}

fn text(report: &Report) -> String {
    let line = |case: &Case| {
        let Case { server, rows, closed, open, open_rate } = case;
        vec![
            format!("{server}, {rows} × {}", report.columns),
            format!("{:.0}/s", closed.requests_per_s),
            format!("{:.1} µs of the server's processor, {:.1} of ours", closed.server_cpu_us, closed.client_cpu_us),
            format!("at {open_rate:.0}/s:"),
            format!("p50 {} µs", open.p50_us),
            format!("p99 {} µs", open.p99_us),
            format!("p99.9 {} µs", open.p999_us),
        ]
    };
    let lines: Vec<Vec<String>> = report.cases.iter().map(line).collect();
    let ratios = report.per_core_ratio.iter().map(|(rows, ratio)| {
        format!("{rows} × {}: {ratio:.1} times the peer's requests per processor second\n", report.columns)
    });
    format!(
        "features over HTTP, {} entities in Redis, {} connections\n{}{}",
        grouped(report.entities as u64),
        report.connections,
        columns(&lines, &[1, 4, 5, 6]),
        ratios.collect::<String>(),
    )
}

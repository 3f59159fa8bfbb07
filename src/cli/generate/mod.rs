//! `tidemill generate`: the built-in generator's card traffic and its fraud labels, sent to Kafka topics.

mod schedule;
mod send;

use std::time::Duration;

use anyhow::Context;
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::failure::usage;
use super::job::assignment;
use super::output::{columns, grouped, print, print_json};
use super::run::stop_on_interrupt;
use crate::base::{EventTime, Micros, parse_duration, parse_time};
use crate::engine::StopHandle;
use crate::ingest::generator::{Generator, schema};
use crate::plan::model::{GeneratorConnector, GeneratorStream, Rate};
use schedule::{Pace, Schedule};

/// A minute.
const MINUTE: Micros = 60_000_000;

/// Arguments of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// Brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT", env = "KAFKA", default_value = "localhost:9092")]
    brokers: String,
    /// Topic of the payments, keyed by customer_id.
    #[arg(long, value_name = "TOPIC", default_value = "transactions")]
    transactions_topic: String,
    /// Topic of the fraud labels, keyed by tx_id.
    #[arg(long, value_name = "TOPIC", default_value = "fraud_labels")]
    labels_topic: String,
    /// Send no labels.
    #[arg(long, conflicts_with_all = ["labels_topic", "all_labels"])]
    no_labels: bool,
    /// Make the topics that are not there.
    #[arg(long)]
    create_topics: bool,
    /// Partitions of topics that are made.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    partitions: u16,
    /// How messages are encoded: by the schemas of `schemas/transaction.avsc` and `schemas/fraud_label.avsc`.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Payments per second, or `max`. Default 1000.
    #[arg(long, value_name = "N", value_parser = rate, conflicts_with = "speed")]
    rate: Option<Rate>,
    /// Seconds of event time per second: the world's own rate of payments follows. With `--times world`.
    #[arg(long, value_name = "N", value_parser = speed)]
    speed: Option<f64>,
    /// What event times say: `now`, the moment on the schedule; `world`, the generated world's own times, which pass as
    /// fast as `--rate` or `--speed` makes them.
    #[arg(long, value_enum, default_value_t = Times::Now)]
    times: Times,
    /// End after this many payments.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// End after this time, such as 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Micros>,
    /// Seed of the world and its traffic.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Customers of the world.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    customers: u32,
    /// Terminals of the world.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    terminals: u32,
    /// First event time, with `--times world`. Default 2026-01-01.
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<EventTime>,
    /// Event time from a payment until its label is known. Default 1m; 7d with `--times world`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    label_delay: Option<Micros>,
    /// Event time from the start until fraudsters change their ways. Default: never.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drift_after: Option<Micros>,
    /// Send at the end the labels that are not known yet.
    #[arg(long)]
    all_labels: bool,
    /// A setting of librdkafka's producer, such as `compression.type=zstd`; repeatable.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = assignment)]
    properties: Vec<(String, String)>,
    /// Print what was sent as JSON.
    #[arg(long)]
    json: bool,
}

/// How messages are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object.
    Json,
    /// One Avro datum, without a container.
    Avro,
}

/// What event times say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Times {
    /// The moment on the schedule.
    Now,
    /// The generated world's own times.
    World,
}

/// What was sent.
#[derive(Clone, Debug, Serialize)]
struct Sent {
    /// Payments that the brokers acknowledged.
    transactions: u64,
    /// Labels that the brokers acknowledged.
    labels: u64,
    /// Wall time, in seconds.
    seconds: f64,
    /// Payments per second.
    per_second: f64,
    /// How far the sending was behind its schedule at most, in milliseconds.
    longest_behind_ms: f64,
}

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate::Max),
        _ => match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate)),
            _ => Err("write max, or payments per second such as 1000".to_owned()),
        },
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| speed.is_finite() && *speed > 0.0);
    speed.ok_or_else(|| "write seconds of event time per second, such as 1 or 3600".to_owned())
}

fn duration(text: &str) -> Result<Micros, String> {
    parse_duration(text)
}

fn time(text: &str) -> Result<EventTime, String> {
    parse_time(text)
}

/// Sends until all is sent, or an interrupt.
pub fn run(args: GenerateArgs) -> anyhow::Result<()> {
    let (world, schedule) = plan(&args)?;
    let stop = StopHandle::new();
    stop_on_interrupt(stop.clone())?;
    let sent = send::send(&args, &world, schedule, &stop)?;
    if args.json { print_json(&sent) } else { print(&text(&args, &sent)) }
}

/// The world and the schedule that the arguments ask for.
fn plan(args: &GenerateArgs) -> anyhow::Result<(GeneratorConnector, Schedule)> {
    let pace = match (args.speed, args.rate.unwrap_or(Rate::PerSecond(1_000.0))) {
        (Some(_), _) if args.times == Times::Now => {
            return Err(usage("--speed is for the world's own times: add --times world, or give a --rate"));
        }
        (Some(speed), _) => Pace::Speed(speed),
        (None, Rate::PerSecond(rate)) => Pace::Rate(rate),
        (None, _) => Pace::Max,
    };
    if args.start.is_some() && args.times == Times::Now {
        return Err(usage("--start is for the world's own times: add --times world"));
    }
    let mut world = GeneratorConnector {
        stream: GeneratorStream::Transactions,
        seed: args.seed,
        customers: args.customers,
        terminals: args.terminals,
        // 2026-01-01T00:00:00Z, as in a dataflow file.
        start: args.start.unwrap_or(1_767_225_600_000_000),
        duration: None,
        label_delay: 0,
        drift_after: None,
        rate: Rate::Max,
    };
    world.drift_after = match (args.drift_after, args.times, pace) {
        (None, ..) => None,
        (Some(after), Times::World, _) => Some(after),
        // The schedule's clock reaches the payment of that moment; the world's own clock tells when that is there.
        (Some(after), Times::Now, Pace::Rate(rate)) => {
            let mut ahead = generator(&world)?;
            ahead.seek((after as f64 / 1e6 * rate) as u64);
            let time = ahead.read(1).map(|row| row.column(1).as_primitive::<TimestampMicrosecondType>().value(0));
            time.map(|time| time - world.start)
        }
        (Some(_), Times::Now, _) => {
            return Err(usage("--drift-after needs a --rate in numbers, or --times world"));
        }
    };
    let label_delay = args.label_delay.unwrap_or(match args.times {
        Times::Now => MINUTE,
        Times::World => 7 * 24 * 60 * MINUTE,
    });
    let duration = args.duration.map(|d| Duration::from_micros(d.unsigned_abs()));
    let schedule = Schedule::new(pace, args.times == Times::Now, label_delay, args.events, duration);
    Ok((world, schedule))
}

fn generator(world: &GeneratorConnector) -> anyhow::Result<Generator> {
    Generator::new(world, &schema(world.stream)).context("no traffic can be made")
}

fn text(args: &GenerateArgs, sent: &Sent) -> String {
    let mut rows = vec![vec![
        args.transactions_topic.clone(),
        format!("{} payments", grouped(sent.transactions)),
        format!("{} per second", grouped(sent.per_second as u64)),
    ]];
    if !args.no_labels {
        rows.push(vec![args.labels_topic.clone(), format!("{} labels", grouped(sent.labels)), String::new()]);
    }
    let behind = match sent.longest_behind_ms {
        ms if ms >= 100.0 => format!("; behind the schedule by {ms:.0} ms at most"),
        _ => String::new(),
    };
    format!("sent to {} in {:.1} s{behind}\n{}", args.brokers, sent.seconds, columns(&rows, &[1, 2]))
}

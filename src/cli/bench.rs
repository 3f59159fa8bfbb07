//! `tidemill bench NAME`: the reproducible benchmarks.

mod dataset;
mod fit;
mod rollouts;
mod serving;
mod serving_infer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{bytes, columns, grouped, print, print_json, workers};
use crate::base::parse_duration;
use crate::bench::{
    chaos, checkpoints, decode, detectors, drift, end_to_end, end_to_end_kafka, labels, online, recovery, score,
    windows,
};

/// The benchmarks.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum BenchCommand {
    /// Windows by card and by merchant over a stream of transactions.
    ///
    /// Per event count, sum, mean, smallest, largest and standard deviation per card over 1 h and 24 h, and count and
    /// mean per merchant over 1 h, beside a hand-written loop of the same work in the same run.
    Windows(WindowsArgs),
    /// Trees, a small neural network and a logistic regression, at batches of 1, 64 and 1024 rows.
    Score(ScoreArgs),
    /// JSON and Avro messages to columns.
    ///
    /// With the schema known only at run time, beside decoders written for this one schema, on one thread.
    Decode(DecodeArgs),
    /// Change detectors over a stream of errors, on one thread.
    Detectors(DetectorsArgs),
    /// Training sets: 200 k entities held against 5 M rows of features.
    ///
    /// Time and peak of memory of a point-in-time join, beside a hand-written one of the same files that holds them all;
    /// benches/dataset_peer.py has DuckDB do the same with the files that --keep leaves.
    Dataset(dataset::DatasetArgs),
    /// Statistics of drift: 20 columns held against a reference, and what a monitor costs a job.
    ///
    /// All statistics of 1 M rows against 100 k on one thread; benches/drift_peers.py has Evidently and SciPy do the same
    /// with the rows that --keep leaves. Then the job of `bench end_to_end` with and without a monitor, in turn.
    Drift(DriftArgs),
    /// Boosted trees: time to fit on one thread and on two, quality, memory.
    ///
    /// On made-up rows of 20 columns with missing values, or on rows of files; benches/fit_peers.py has scikit-learn and LightGBM
    /// fit the same rows.
    Fit(fit::FitArgs),
    /// Parquet to features to scores to Delta tables; with --kafka from topic to topic.
    ///
    /// With --kafka an open loop offers events at a fixed rate, whether or not the job keeps up, and a consumer of the
    /// predictions measures each one's latency from the moment at which its event was due. The rate is doubled until the
    /// job falls behind, the highest rate that it sustains is closed in on to a tenth, and at half of it the figures are taken,
    /// with a job and topics that are new.
    ///
    /// Brokers with a small heap collect garbage every few seconds, and each time is in the 99th percentile: give them the
    /// settings that Kafka's documentation has for the JVM before you quote figures.
    EndToEnd(EndToEndArgs),
    /// Feature values into Redis, beside plain pipelined MSET of the same bytes.
    Online(OnlineArgs),
    /// Features of entities over HTTP: 1 × 20 and 100 × 20, with the cache and without, beside another server if one is given.
    Serving(serving::ServingArgs),
    /// Scores over HTTP by the Open Inference Protocol: requests per second and latency at 1, 16 and 64 connections.
    ///
    /// Each request by itself, in batches, and from kept answers; benches/infer_peers.py puts onnxruntime behind plain Python servers beside.
    ServingInfer(serving_infer::ServingInferArgs),
    /// What checkpoints cost, and how long a restart takes after kill -9.
    ///
    /// The job of `bench windows` over events in which all cards stay alive, run as processes of this program: at full speed with
    /// and without checkpoints, in turn; killed at full speed and at a steady rate, and restarted; and what its ticks wait
    /// for the tick log.
    Recovery(RecoveryArgs),
    /// What statistics of predictions and labels cost, and how long a restart takes while predictions wait for labels.
    ///
    /// The job of `bench end_to_end` with labels, run with and without its monitor, in turn; and a job that is killed with
    /// kill -9 while a million predictions of 45 days wait for their labels.
    Labels(LabelsArgs),
    /// Simulated rollouts, looked at after every row, beside a z-test at every look and one with one look.
    ///
    /// Where both versions are equal whatever is promoted is a mistake; where the challenger is better or worse, how many rows
    /// it takes. Ends with 1 when there are more false promotions than alpha allows.
    Rollouts(rollouts::RolloutsArgs),
    /// Jobs that are killed, stopped, woken and robbed at random; they must leave what an undisturbed run leaves.
    ///
    /// Each schedule is a small job that is started again and again: killed at a failpoint or at any time, stopped and
    /// woken after another has taken over, met by flipped bits and torn files, at a changing number of workers. Then its
    /// tables, topics and online values are compared with those of a run without faults. Ends with 1 at the first
    /// difference.
    Chaos(ChaosArgs),
}

/// Arguments of `bench windows`.
#[derive(Args, Debug)]
pub struct WindowsArgs {
    /// Number of events to make up.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, conflicts_with = "input")]
    events: u64,
    /// Keep windows as tiles of 1/60 of their length instead of exactly.
    #[arg(long)]
    tiled: bool,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Read these events instead (`txn_id, card_id, merchant_id, amount, ts`), in event-time order.
    #[arg(long, value_name = "FILE.parquet")]
    input: Option<PathBuf>,
    /// Write every row's features to this file.
    #[arg(long, value_name = "FILE.parquet")]
    out: Option<PathBuf>,
    /// Measure instead what checkpoints of one view's state cost, with a freeze every so many rows (on one worker).
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["input", "out", "workers"])]
    checkpoint_every: Option<u64>,
    /// Run each side this often, in turn; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench score`.
#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// Measure each model and batch size for this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Score rows of a file with this model instead.
    #[arg(long, value_name = "MODEL.onnx", requires = "input")]
    model: Option<PathBuf>,
    /// The rows: all columns, in their order, are the model's inputs.
    #[arg(long, value_name = "ROWS.parquet", requires = "model")]
    input: Option<PathBuf>,
    /// Write the scores to this file.
    #[arg(long, value_name = "SCORES.parquet", requires = "model")]
    out: Option<PathBuf>,
    /// Leave the models and the rows in this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    keep: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench decode`.
#[derive(Args, Debug)]
pub struct DecodeArgs {
    /// Measure each format for this long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench detectors`.
#[derive(Args, Debug)]
pub struct DetectorsArgs {
    /// Length of the stream.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    errors: u64,
    /// Write the stream here, a byte for each error.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench end_to_end`.
#[derive(Args, Debug)]
pub struct EndToEndArgs {
    /// Number of events to make up.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Run each side this often, in turn; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Measure the latency from topic to topic.
    #[arg(long, conflicts_with_all = ["events", "runs"])]
    kafka: bool,
    /// With --kafka, brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092", requires = "kafka")]
    brokers: String,
    /// With --kafka, measure for this long; each step of the search takes a quarter of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, requires = "kafka")]
    seconds: f64,
    /// With --kafka, offer this many events per second and search for no limit.
    #[arg(long, value_name = "N", requires = "kafka")]
    rate: Option<f64>,
    /// With --kafka, set a value of the job's file, such as `--set tick.interval=5ms`; repeatable.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE", value_parser = super::job::assignment, requires = "kafka")]
    sets: Vec<(String, String)>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench drift`.
#[derive(Args, Debug)]
pub struct DriftArgs {
    /// Rows of the window.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Rows of the reference.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    reference: u32,
    /// Events of the job that runs with and without a monitor; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    job_events: u64,
    /// Worker threads of the job.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Run each side this often, in turn; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Leave the rows in this directory: reference.parquet and current.parquet.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench online`.
#[derive(Args, Debug)]
pub struct OnlineArgs {
    /// The server: `redis://[user[:password]@]host[:port][/database]`. Keys go under a prefix of their own and are removed.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Number of entities.
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..))]
    entities: u32,
    /// Run each side this often, in turn; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench labels`.
#[derive(Args, Debug)]
pub struct LabelsArgs {
    /// Number of events of the job whose throughput is measured.
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Number of predictions that wait when the job is killed.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(200_000..))]
    waiting: u64,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Run each side this often, in turn; the loss is the median of the pairs.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Count scores in this many bins instead of each for itself.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=100_000))]
    bins: Option<u32>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench recovery`.
#[derive(Args, Debug)]
pub struct RecoveryArgs {
    /// Number of events to make up. At full speed they must last for some checkpoints.
    #[arg(long, value_name = "N", default_value_t = 30_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Number of cards, all of which have state at any time.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Time between checkpoints, such as 10s.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = interval)]
    interval: Duration,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Run each side of the throughput this often, in turn; the loss is the median of the pairs.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `bench chaos`.
#[derive(Args, Debug)]
pub struct ChaosArgs {
    /// Number of schedules.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,
    /// What the schedules are drawn from; without it from the clock.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only the schedule of this number.
    #[arg(long, value_name = "K", conflicts_with = "schedules")]
    only: Option<u64>,
    /// Also jobs from topics to topics; brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Also jobs with online values in Redis. Keys go under prefixes of their own and are removed.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Print the summary as JSON; what is done goes to standard error.
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let micros = parse_duration(text).ok().filter(|micros| *micros >= 1_000);
    let micros = micros.ok_or("write a duration of 1ms or more, such as 10s")?;
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// Runs a benchmark and prints its figures.
pub fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Windows(args) if args.checkpoint_every.is_some() => {
            let every = args.checkpoint_every.unwrap_or(args.events);
            let options = checkpoints::Options { events: args.events, every, tiled: args.tiled, runs: args.runs };
            show(&checkpoints::run(&options)?, args.json, checkpoints_text)
        }
        BenchCommand::Windows(args) => {
            let report = windows::run(&windows::Options {
                events: args.events,
                tiled: args.tiled,
                workers: usize::from(args.workers),
                input: args.input,
                out: args.out,
                runs: args.runs,
            })?;
            show(&report, args.json, windows_text)?;
            agree(report.same_results.unwrap_or(true))
        }
        BenchCommand::Score(args) => match (&args.model, &args.input) {
            (Some(model), Some(input)) => {
                show(&score::score_file(model, input, args.out.as_deref())?, args.json, |report| format!("{report}\n"))
            }
            _ => {
                let report = score::run(&score::Options { seconds: args.seconds, keep: args.keep })?;
                show(&report, args.json, ToString::to_string)
            }
        },
        BenchCommand::EndToEnd(args) if args.kafka => {
            let report = end_to_end_kafka::run(&end_to_end_kafka::Options {
                program: std::env::current_exe().context("cannot find the program itself")?,
                brokers: args.brokers,
                workers: args.workers,
                seconds: args.seconds,
                rate: args.rate,
                sets: args.sets,
            })?;
            show(&report, args.json, kafka_text)
        }
        BenchCommand::Decode(args) => {
            let report = decode::run(&decode::Options { seconds: args.seconds })?;
            show(&report, args.json, ToString::to_string)
        }
        BenchCommand::Detectors(args) => {
            let report = detectors::run(&detectors::Options { errors: args.errors, keep: args.keep })?;
            show(&report, args.json, ToString::to_string)
        }
        BenchCommand::Fit(args) => fit::run(args),
        BenchCommand::Serving(args) => serving::run(args),
        BenchCommand::ServingInfer(args) => serving_infer::run(args),
        BenchCommand::Dataset(args) => dataset::run(args),
        BenchCommand::Rollouts(args) => rollouts::run(&args),
        BenchCommand::Drift(args) => {
            let report = drift::run(&drift::Options {
                rows: args.rows as usize,
                reference: args.reference as usize,
                job_events: Some(args.job_events).filter(|events| *events > 0),
                workers: usize::from(args.workers),
                runs: args.runs,
                keep: args.keep,
            })?;
            show(&report, args.json, drift_text)
        }
        BenchCommand::EndToEnd(args) => {
            let workers = usize::from(args.workers);
            let report = end_to_end::run(&end_to_end::Options { events: args.events, workers, runs: args.runs })?;
            show(&report, args.json, end_to_end_text)?;
            agree(report.same_results)
        }
        BenchCommand::Chaos(args) => {
            let seed = args.seed.unwrap_or_else(crate::base::any_seed);
            let options = chaos::Options {
                program: std::env::current_exe().context("cannot find the program itself")?,
                schedules: args.schedules,
                seed,
                only: args.only,
                servers: chaos::Servers { brokers: args.kafka, redis: args.redis },
            };
            let report = chaos::run(&options, &|line| eprintln!("{line}"))?;
            show(&report, args.json, chaos_text)?;
            match report.failure {
                None => Ok(()),
                Some(failed) => bail!(
                    "schedule {} of seed {seed} was not survived; to repeat it: --seed {seed} --only {}",
                    failed.number,
                    failed.number
                ),
            }
        }
        BenchCommand::Online(args) => {
            let (redis, entities) = (args.redis, args.entities as usize);
            let report = online::run(&online::Options { redis, entities, runs: args.runs })?;
            show(&report, args.json, online_text)
        }
        BenchCommand::Labels(args) => {
            let report = labels::run(&labels::Options {
                program: std::env::current_exe().context("cannot find the program itself")?,
                events: args.events,
                waiting: args.waiting,
                workers: args.workers,
                runs: args.runs,
                bins: args.bins,
            })?;
            show(&report, args.json, labels_text)
        }
        BenchCommand::Recovery(args) => {
            let report = recovery::run(&recovery::Options {
                program: std::env::current_exe().context("cannot find the program itself")?,
                events: args.events,
                keys: args.keys,
                interval: args.interval,
                workers: args.workers,
                runs: args.runs,
            })?;
            show(&report, args.json, recovery_text)
        }
    }
}

fn show<R: Serialize>(report: &R, json: bool, text: impl Fn(&R) -> String) -> anyhow::Result<()> {
    if json { print_json(report) } else { print(&text(report)) }
}

/// A benchmark whose sides disagree measured nothing.
fn agree(same_results: bool) -> anyhow::Result<()> {
    ensure!(same_results, "the engine and the hand-written loop computed different values");
    Ok(())
}

fn windows_text(report: &windows::Report) -> String {
    let kind = if report.tiled { "tiles of 1/60 of each window" } else { "exact windows" };
    let mut sides = vec![side("engine", report.engine_seconds, report.engine_m_events_per_s)];
    if report.same_results.is_some() {
        sides.push(side("hand-written loop", report.baseline_seconds, report.baseline_m_events_per_s));
    }
    let ratio = match report.same_results {
        Some(_) => format!("engine / loop {:.2}; ", report.ratio),
        None => String::new(),
    };
    format!(
        "{} events, {kind}, {}\n{}{ratio}{} keys of {:.0} bytes; longest stall {:.1} ms\n",
        grouped(report.events),
        workers(report.workers),
        columns(&sides, &[1, 2]),
        grouped(report.keys),
        report.bytes_per_key,
        report.longest_stall_ms,
    )
}

fn checkpoints_text(report: &checkpoints::Report) -> String {
    let side = |name: &str, rate: f64, loss: Option<f64>| {
        let loss = loss.map_or_else(String::new, |loss| format!("{loss:.1} % lost"));
        vec![name.to_owned(), format!("{rate:.2} M events/s"), loss]
    };
    let sides = [
        side("without checkpoints", report.plain_m_events_per_s, None),
        side("changes tracked", report.tracked_m_events_per_s, Some(report.tracked_loss_percent)),
        side("and frozen", report.checkpointed_m_events_per_s, Some(report.checkpointed_loss_percent)),
    ];
    format!(
        "{} events of the card view, {} freezes of {} bytes, a whole one of {}\n{}\
         longest freeze {:.3} ms, slice {:.1} ms, tick {:.1} ms ({:.1} ms without)\n\
         {} keys of {:.0} bytes: {:.1} bytes written per key, {:.1} per row\n\
         written in {:.0} ns per key, {:.1} per row; taken in in {:.0} ns per key\n",
        grouped(report.events),
        report.freezes,
        grouped(report.freeze_bytes as u64),
        grouped(report.whole_bytes as u64),
        columns(&sides, &[1, 2]),
        report.freeze_ms_max,
        report.slice_ms_max,
        report.tick_ms_max,
        report.plain_tick_ms_max,
        grouped(report.keys as u64),
        report.memory_bytes_per_key,
        report.bytes_per_key,
        report.bytes_per_entry,
        report.write_ns_per_key,
        report.write_ns_per_entry,
        report.import_ns_per_key,
    )
}

fn end_to_end_text(report: &end_to_end::Report) -> String {
    let sides = [
        side("engine", report.engine_seconds, report.engine_m_events_per_s),
        side("hand-written loop", report.baseline_seconds, report.baseline_m_events_per_s),
    ];
    format!(
        "{} events from Parquet to scored rows in a Delta table, {}\n{}engine / loop {:.2}\n",
        grouped(report.events),
        workers(report.workers),
        columns(&sides, &[1, 2]),
        report.ratio,
    )
}

fn drift_text(report: &drift::Report) -> String {
    let line = |name: &str, seconds: f64| vec![name.to_owned(), format!("{:.1} ms", seconds * 1e3)];
    let lines = [
        line("reference", report.reference_seconds),
        line("count", report.count_seconds),
        line("statistics", report.statistics_seconds),
        line("all", report.total_seconds),
    ];
    let mut text = format!(
        "{} rows of {} columns against {}, one thread; {} statistics, {} alarms\n{}\
         {:.1} ns to count a value, {:.1} to find its cell; {:.1} by binary search\n",
        grouped(report.rows as u64),
        report.columns,
        grouped(report.reference_rows as u64),
        report.values.len(),
        report.alarms,
        columns(&lines, &[1]),
        report.count_ns_per_value,
        report.index_ns_per_value,
        report.binary_search_ns_per_value,
    );
    if let Some(job) = &report.job {
        let list = |losses: &[f64]| losses.iter().map(|loss| format!("{loss:.1}")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "a job of {} events, {}: {:.2} s without a monitor, {:.2} with: {:.1} % lost (pairs: {})\n\
             processor time {:.2} s without, {:.2} with: {:.1} % lost (pairs: {}), {:.0} ns per event\n",
            grouped(job.events),
            workers(job.workers),
            job.plain_seconds,
            job.monitored_seconds,
            job.loss_percent,
            list(&job.losses_percent),
            job.plain_cpu_seconds,
            job.monitored_cpu_seconds,
            job.cpu_loss_percent,
            list(&job.cpu_losses_percent),
            job.cpu_ns_per_event,
        ));
    }
    text
}

fn online_text(report: &online::Report) -> String {
    let side = |name: &str, rate: f64| vec![name.to_owned(), format!("{rate:.2} M entities/s")];
    let sides = [
        side("engine", report.engine_m_per_s),
        side("engine, each row compared", report.compared_m_per_s),
        side("plain MSET", report.plain_m_per_s),
        side("engine, Feast's layout", report.feast_m_per_s),
        side("engine, Feast's layout, each row compared", report.feast_compared_m_per_s),
        side("plain HSET", report.plain_hset_m_per_s),
    ];
    format!(
        "{} entities of {} columns, {} bytes, into Redis\n{}engine / plain {:.2}, in Feast's layout {:.2}\n",
        grouped(report.entities as u64),
        report.columns,
        report.row_bytes,
        columns(&sides, &[1]),
        report.ratio,
        report.feast_ratio,
    )
}

fn labels_text(report: &labels::Report) -> String {
    format!(
        "{} events, {}\n\
         {:.3} M events/s without the monitor, {:.3} with it: {:.1} % lost (pairs: {}), {:.1} % more processor time\n\
         killed while {} predictions waited: loaded {} after {:.0} ms, caught up with {} ticks after {:.0} ms\n",
        grouped(report.events),
        workers(usize::from(report.workers)),
        report.plain_m_events_per_s,
        report.monitored_m_events_per_s,
        report.loss_percent,
        report.losses_percent.iter().map(|loss| format!("{loss:.1}")).collect::<Vec<_>>().join(", "),
        report.processor_time_added_percent,
        grouped(report.waiting),
        bytes(report.state_bytes),
        report.loaded_ms,
        grouped(report.replayed_ticks),
        report.caught_up_ms,
    )
}

fn recovery_text(report: &recovery::Report) -> String {
    let t = &report.throughput;
    let mut text = format!(
        "{} events, {} keys, {}, a checkpoint every {:.1} s\n\
         {:.3} M events/s without state, {:.3} with {} checkpoints: {:.1} % lost (pairs: {})\n\
         all state takes {}, a snapshot at full speed {}\n\
         rows waited for a snapshot at most {:.1} ms (freeze {:.1}, slice {:.1}, tick {:.1} with frozen keys and {:.1} without)\n",
        grouped(report.events),
        grouped(report.keys),
        workers(usize::from(report.workers)),
        report.interval_s,
        t.plain_m_events_per_s,
        t.checkpointed_m_events_per_s,
        t.checkpoints,
        t.loss_percent,
        t.losses_percent.iter().map(|loss| format!("{loss:.1}")).collect::<Vec<_>>().join(", "),
        bytes(t.bytes_whole),
        t.bytes_incremental.map_or_else(|| "-".to_owned(), |b| bytes(b as u64)),
        t.longest_pause_ms,
        t.longest_freeze_ms,
        t.longest_slice_ms,
        t.longest_tick_frozen_ms,
        t.longest_tick_ms,
    );
    for restart in [&report.killed_at_full_speed, &report.killed_at_steady_rate] {
        let rate =
            restart.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{} events/s", grouped(rate.into())));
        text.push_str(&format!(
            "killed at {rate}: loaded {} after {:.0} ms (read in {:.0}), caught up with {} ticks after {:.0} ms\n",
            bytes(restart.state_bytes),
            restart.loaded_ms,
            restart.read_ms,
            grouped(restart.replayed_ticks),
            restart.caught_up_ms,
        ));
    }
    for steady in &report.steady {
        let sizes: Vec<String> = steady.bytes.iter().map(|b| bytes(*b)).collect();
        text.push_str(&format!(
            "at {} events/s a checkpoint has {}; rows waited at most {:.1} ms\n",
            grouped(steady.rate.into()),
            sizes.join(", "),
            steady.longest_pause_ms,
        ));
    }
    for (place, waits) in [("on the disk", report.tick_log_disk_ms), ("in memory", report.tick_log_memory_ms)] {
        if let Some(w) = waits {
            text.push_str(&format!(
                "tick log {place}: durable after p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n",
                w.p50, w.p99, w.max
            ));
        }
    }
    text
}

fn chaos_text(report: &chaos::Report) -> String {
    let faults: Vec<Vec<String>> =
        report.faults.iter().map(|(kind, n)| vec![(*kind).to_owned(), grouped(*n)]).collect();
    let failure = report.failure.as_ref().map_or_else(String::new, |failed| {
        format!(
            "not survived: {}: {}\n{}\nleft in {}\n",
            failed.number,
            failed.schedule,
            failed.what,
            failed.directory.display()
        )
    });
    format!(
        "{} of {} schedules survived, seed {}: {} starts in {:.0} s\n{}{} faults did not come about\n{failure}",
        report.survived,
        report.schedules,
        report.seed,
        report.starts,
        report.seconds,
        columns(&faults, &[1]),
        report.missed,
    )
}

fn kafka_text(report: &end_to_end_kafka::Report) -> String {
    let saturation = match report.saturation {
        Some(rate) if report.brokers_saturated => {
            format!(
                "{} events/s sustained (more was too much for the brokers, not for the job); ",
                grouped(rate as u64)
            )
        }
        Some(rate) => format!("{} events/s sustained; ", grouped(rate as u64)),
        None => String::new(),
    };
    let mut rows = vec![["latency, ms", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec()];
    let stages = [
        ("from due to the consumer", &report.latency_ms),
        ("  until the broker acknowledged the event", &report.produced_ms),
        ("  until the prediction was published", &report.published_ms),
        ("  from there to the consumer", &report.consumed_ms),
    ];
    for (name, q) in stages {
        let figures = [q.p50, q.p90, q.p99, q.p999, q.max].map(|ms| format!("{ms:.1}"));
        rows.push(std::iter::once(name.to_owned()).chain(figures).collect());
    }
    let cut = report.cut_to_score_ms.map_or_else(String::new, |l| {
        format!("in the job, from a tick's cut to the score: p50 {:.1} ms, p99 {:.1} ms\n", l.p50, l.p99)
    });
    let own = report.bench_cpu_us_per_event;
    let cpu = report.cpu_us_per_event.zip(own).map_or_else(String::new, |(job, own)| {
        format!("CPU of the job {job:.1} µs per event; of load generator and consumer {own:.1} µs\n")
    });
    format!(
        "{saturation}{} events/s offered for {:.0} s, {}: {} predictions\n{}{cut}{cpu}",
        grouped(report.rate as u64),
        report.seconds,
        workers(report.workers),
        grouped(report.predictions),
        columns(&rows, &[1, 2, 3, 4, 5]),
    )
}

fn side(name: &str, seconds: f64, m_events_per_s: f64) -> Vec<String> {
    vec![name.to_owned(), format!("{seconds:.2} s"), format!("{m_events_per_s:.2} M events/s")]
}

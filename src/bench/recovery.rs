//! `bench recovery`: what checkpoints cost a job, and how long a restart takes after `kill -9`.
//!
//! The job is that of `bench windows` over events in which all keys stay alive: two of five events go round the cards, the
//! others are drawn as those of W1. It runs as processes of this program, as a user would run it:
//!
//! 1. at full speed without state and with it, in turn: the throughput that checkpoints cost;
//! 2. at full speed again, killed at two thirds; restarted at a steady rate, until it has caught up and committed some epochs;
//! 3. at a steady rate, killed between two checkpoints, and restarted at a lower one;
//! 4. at a steady rate with its state on the disk, and in memory where the system offers it: what the tick log costs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use serde::Serialize;
use serde_json::Value;

use super::end_to_end::Scratch;
use super::w1_data::{self, W1Data};
use super::windows;
use crate::ingest::ticks;

/// Events per key and day; see [`data`].
const EVENTS_PER_KEY: f64 = 3.33;
/// Of five events so many go round the cards.
const ROUND: usize = 2;
/// Steady rates, in events per second: while the first restart is measured, and after it.
const RATES: [u32; 2] = [20_000, 2_000];
/// How long things that must happen may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// A file system in memory, where there is one.
const MEMORY: &str = "/dev/shm";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program itself.
    pub program: PathBuf,
    /// Events at full speed.
    pub events: u64,
    /// Cards.
    pub keys: u64,
    /// Time between checkpoints.
    pub interval: Duration,
    /// Worker threads.
    pub workers: u16,
    /// Times the sides of the throughput run, in turn; the loss is the median of the pairs.
    pub runs: usize,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events at full speed.
    pub events: u64,
    /// Cards.
    pub cards: u64,
    /// Worker threads.
    pub workers: u16,
    /// Time between checkpoints, in seconds.
    pub interval_s: f64,
    /// Keys of all views at the end of a run.
    pub keys: u64,
    /// Bytes of view state in memory at the end of a run.
    pub memory_bytes: u64,
    /// Full speed.
    pub throughput: Throughput,
    /// Killed at full speed.
    pub killed_at_full_speed: Restart,
    /// Killed at a steady rate.
    pub killed_at_steady_rate: Restart,
    /// Checkpoints at steady rates.
    pub steady: Vec<Steady>,
    /// The tick log in the temporary directory.
    pub tick_log_disk_ms: Option<Waits>,
    /// The tick log in memory; none where the system offers no such directory.
    pub tick_log_memory_ms: Option<Waits>,
}

/// What checkpoints cost at full speed.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// Without state, median.
    pub plain_m_events_per_s: f64,
    /// With a state directory and checkpoints, median.
    pub checkpointed_m_events_per_s: f64,
    /// Lost, median of the pairs.
    pub loss_percent: f64,
    /// Of each pair.
    pub losses_percent: Vec<f64>,
    /// Checkpoints per run.
    pub checkpoints: u64,
    /// Bytes of a whole snapshot.
    pub bytes_whole: u64,
    /// Bytes of an incremental one at full speed; none when there was none.
    pub bytes_incremental: Option<f64>,
    /// The longest that rows of a view waited for a snapshot, over all runs.
    pub longest_pause_ms: f64,
    /// The longest freeze.
    pub longest_freeze_ms: f64,
    /// The longest slice.
    pub longest_slice_ms: f64,
    /// The longest tick of a view while keys were frozen.
    pub longest_tick_frozen_ms: f64,
    /// The longest tick of a view otherwise.
    pub longest_tick_ms: f64,
}

/// A restart after `kill -9`.
#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    /// Events per second before; none is as many as the job took.
    pub rate: Option<u32>,
    /// Bytes of the snapshot.
    pub state_bytes: u64,
    /// From the new process's start until the job begins.
    pub process_ms: f64,
    /// From there until the snapshot is read.
    pub read_ms: f64,
    /// From the new process's start until the state is loaded.
    pub loaded_ms: f64,
    /// Ticks to replay.
    pub replayed_ticks: u64,
    /// From the new process's start until they are through the graph.
    pub caught_up_ms: f64,
}

/// Checkpoints at a steady rate.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    /// Events per second.
    pub rate: u32,
    /// Bytes of each incremental snapshot of a whole interval at this rate.
    pub bytes: Vec<u64>,
    /// Their mean per event.
    pub bytes_per_event: Option<f64>,
    /// The longest that rows of a view waited for a snapshot.
    pub longest_pause_ms: f64,
}

/// From a tick's entry in the tick log until it was durable.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Waits {
    /// Half of the ticks waited less.
    pub p50: f64,
    /// 99 of 100 waited less.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// W1 with all cards alive: a day of event time holds a third more than three events per card, and two of five events go
/// round the cards, so each card has one at least every 18 hours.
fn data(options: &Options) -> W1Data {
    let per_day = EVENTS_PER_KEY * options.keys as f64;
    let span_ms = (options.events as f64 / per_day * 86_400_000.0) as i64;
    W1Data { events: options.events as usize, cards: options.keys as usize, span_ms, ..W1Data::default() }
}

/// The batch with some of its events going round the cards.
fn around(batch: &RecordBatch, cards: usize) -> Result<RecordBatch, ArrowError> {
    let ids = batch.column(0).as_primitive::<Int64Type>().values();
    let drawn = batch.column(1).as_primitive::<Int64Type>().values();
    let card = |(id, drawn): (&i64, &i64)| match (*id as usize / 5, *id as usize % 5) {
        (five, at) if at < ROUND => ((five * ROUND + at) as u128 * 1_000_003 % cards as u128) as i64,
        _ => *drawn,
    };
    let mut columns = batch.columns().to_vec();
    columns[1] = Arc::new(ids.iter().zip(drawn).map(card).collect::<Int64Array>()) as ArrayRef;
    RecordBatch::try_new(batch.schema(), columns)
}

/// Measures.
///
/// # Errors
/// When the job fails, or ends before it could be measured.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(
        options.keys > 0 && !options.keys.is_multiple_of(1_000_003),
        "--keys must be 1 or more, and no multiple of 1000003"
    );
    let dir = Scratch::new("recovery")?;
    let input = dir.0.join("tx.parquet");
    let data = data(options);
    w1_data::write(&input, data.batches().map(|batch| around(&batch, data.cards)))?;
    let job = windows::job(&input, "ts", data.disorder_ms * 1_000, false);
    fs::write(dir.0.join("job.yaml"), job)?;
    let bench = Bench { options, dir: &dir.0 };

    let (mut pairs, mut with_state) = (Vec::new(), Vec::new());
    for turn in 0..options.runs.max(1) {
        let plain = bench.start("plain", None, None)?.end()?;
        let state = dir.0.join(format!("state-{turn}"));
        let saved = bench.start("checkpointed", Some(&state), None)?.end()?;
        fs::remove_dir_all(&state)?;
        let pair = (number(&plain, "/seconds")?, number(&saved, "/seconds")?);
        ensure!(number(&plain, "/rows_read")? == options.events as f64, "the job read other rows than there are");
        pairs.push(pair);
        with_state.push(saved);
    }
    let throughput = throughput(options, &pairs, &with_state)?;
    let last = with_state.last().context("no run was made")?;
    let count = number(last, "/ticks")? as u64;

    let state = dir.0.join("state");
    let job = bench.start("killed at full speed", Some(&state), None)?;
    job.reads(&state, count * 2 / 3)?.kill()?;
    let (fast, slow) = (RATES[0], RATES[1]);
    let spawned = unix_ms();
    let first = bench.start("restarted", Some(&state), Some(fast))?.commits(&state, 4)?.interrupt()?;
    let killed_at_full_speed = restart(None, spawned, &first)?;

    let job = bench.start("killed at a steady rate", Some(&state), Some(fast))?.commits(&state, 2)?;
    job.run_for(options.interval.mul_f64(0.9))?.kill()?;
    let spawned = unix_ms();
    let second = bench.start("restarted again", Some(&state), Some(slow))?.commits(&state, 4)?.interrupt()?;
    let killed_at_steady_rate = restart(Some(fast), spawned, &second)?;
    fs::remove_dir_all(&state)?;

    Ok(Report {
        events: options.events,
        cards: options.keys,
        workers: options.workers,
        interval_s: options.interval.as_secs_f64(),
        keys: number(last, "/keys")? as u64,
        memory_bytes: number(last, "/state_bytes")? as u64,
        throughput,
        killed_at_full_speed,
        killed_at_steady_rate,
        steady: vec![steady(options, fast, &first)?, steady(options, slow, &second)?],
        tick_log_disk_ms: bench.tick_log(&dir.0)?,
        tick_log_memory_ms: match Path::new(MEMORY).is_dir() {
            true => {
                let memory = Memory(Path::new(MEMORY).join(format!("tidemill-bench-recovery-{}", std::process::id())));
                bench.tick_log(&memory.0)?
            }
            false => None,
        },
    })
}

/// A directory in memory, removed at the end.
struct Memory(PathBuf);

impl Drop for Memory {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn throughput(options: &Options, pairs: &[(f64, f64)], with_state: &[Value]) -> anyhow::Result<Throughput> {
    let millions = options.events as f64 / 1e6;
    let losses: Vec<f64> = pairs.iter().map(|(plain, saved)| 100.0 * (1.0 - plain / saved)).collect();
    let of = |name: &str| -> anyhow::Result<Vec<f64>> {
        with_state.iter().map(|summary| number(summary, &format!("/checkpoints/{name}"))).collect()
    };
    let longest = |name: &str| anyhow::Ok(of(name)?.into_iter().fold(0.0, f64::max));
    let last = with_state.last().context("no run was made")?;
    Ok(Throughput {
        plain_m_events_per_s: millions / median(pairs.iter().map(|p| p.0).collect()),
        checkpointed_m_events_per_s: millions / median(pairs.iter().map(|p| p.1).collect()),
        loss_percent: median(losses.clone()),
        losses_percent: losses,
        checkpoints: number(last, "/checkpoints/count")? as u64,
        bytes_whole: longest("bytes_whole")? as u64,
        bytes_incremental: last.pointer("/checkpoints/bytes_incremental_mean").and_then(Value::as_f64),
        longest_pause_ms: longest("longest_pause_ms")?,
        longest_freeze_ms: longest("longest_freeze_ms")?,
        longest_slice_ms: longest("longest_slice_ms")?,
        longest_tick_frozen_ms: longest("longest_tick_frozen_ms")?,
        longest_tick_ms: longest("longest_tick_ms")?,
    })
}

fn restart(rate: Option<u32>, spawned: f64, summary: &Value) -> anyhow::Result<Restart> {
    let of = |name: &str| number(summary, &format!("/recovery/{name}"));
    let process_ms = (of("began_unix_ms")? - spawned).max(0.0);
    Ok(Restart {
        rate,
        state_bytes: of("state_bytes")? as u64,
        process_ms,
        read_ms: of("read_ms")?,
        loaded_ms: process_ms + of("loaded_ms")?,
        replayed_ticks: of("replayed_ticks")? as u64,
        caught_up_ms: process_ms + of("caught_up_ms")?,
    })
}

/// Of the snapshots after a restart the first ones hold what was replayed, and the last less than an interval.
fn steady(options: &Options, rate: u32, summary: &Value) -> anyhow::Result<Steady> {
    let recent = summary.pointer("/checkpoints/recent").and_then(Value::as_array).context("no epoch was committed")?;
    let replayed = number(summary, "/recovery/replayed_through")? as u64;
    let behind = |pair: &&[Value]| pair[0]["tick"].as_u64().is_some_and(|tick| tick >= replayed);
    let whole_intervals = recent.get(..recent.len().saturating_sub(1)).unwrap_or_default().windows(2).filter(behind);
    let incremental = whole_intervals.map(|pair| &pair[1]).filter(|size| size["whole"] == false);
    let bytes: Vec<u64> = incremental.filter_map(|size| size["bytes"].as_u64()).collect();
    let per_interval = f64::from(rate) * options.interval.as_secs_f64();
    let mean = bytes.iter().sum::<u64>() as f64 / bytes.len() as f64;
    Ok(Steady {
        rate,
        bytes_per_event: (!bytes.is_empty()).then_some(mean / per_interval),
        bytes,
        longest_pause_ms: number(summary, "/checkpoints/longest_pause_ms")?,
    })
}

pub(super) fn number(summary: &Value, pointer: &str) -> anyhow::Result<f64> {
    summary.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("the job's summary has no {pointer}"))
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_by(f64::total_cmp);
    let middle = list.len() / 2;
    if list.len().is_multiple_of(2) { (list[middle - 1] + list[middle]) / 2.0 } else { list[middle] }
}

pub(super) fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

/// The number of the newest epoch in a state directory; 0 when there is none.
fn newest_epoch(state: &Path) -> anyhow::Result<u64> {
    let Ok(entries) = fs::read_dir(state.join("epochs")) else { return Ok(0) };
    let mut newest = 0;
    for entry in entries {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".json"));
        newest = newest.max(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
    }
    Ok(newest)
}

struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
}

impl Bench<'_> {
    fn start(&self, what: &str, state: Option<&Path>, rate: Option<u32>) -> anyhow::Result<Job> {
        let mut command = Command::new(&self.options.program);
        command.arg("run").arg(self.dir.join("job.yaml")).args(["--json", "--until-end"]);
        command.args(["--workers", &self.options.workers.to_string()]);
        if let Some(rate) = rate {
            command.arg("--set").arg(format!("sources.tx.file.rate={rate}"));
        }
        if let Some(state) = state {
            let interval = format!("checkpoint.interval={}ms", self.options.interval.as_millis());
            command.arg("--state").arg(state).args(["--set", &interval]);
        }
        Job::spawn(command, what, self.dir)
    }

    /// What ticks wait for the log in a directory, at a steady rate.
    fn tick_log(&self, dir: &Path) -> anyhow::Result<Option<Waits>> {
        let state = dir.join("tick-log");
        let job = self.start("tick log", Some(&state), Some(RATES[0]))?;
        let summary = job.run_for(self.options.interval.min(Duration::from_secs(10)))?.interrupt()?;
        fs::remove_dir_all(&state)?;
        let of = |name: &str| number(&summary, &format!("/checkpoints/durable_ms/{name}"));
        Ok(Some(Waits { p50: of("p50")?, p99: of("p99")?, max: of("max")? }))
    }
}

/// The job's process.
pub(super) struct Job {
    child: Child,
    what: String,
    summary: PathBuf,
    log: PathBuf,
}

impl Job {
    /// Starts it; what it prints goes to files in a directory.
    pub(super) fn spawn(mut command: Command, what: &str, dir: &Path) -> anyhow::Result<Job> {
        let (summary, log) = (dir.join("summary"), dir.join("log"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&summary)?)
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start the job")?;
        Ok(Job { child, what: what.to_owned(), summary, log })
    }

    /// Waits for its end and returns its summary.
    pub(super) fn end(mut self) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the job ({}) does not end", self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&self.summary)?;
        serde_json::from_str(&text).with_context(|| format!("the job ({}) left no summary: {}", self.what, self.said()))
    }

    /// Lets it run for so long.
    fn run_for(mut self, time: Duration) -> anyhow::Result<Self> {
        std::thread::sleep(time);
        self.must_run()?;
        Ok(self)
    }

    /// Lets it run until its tick log has so many ticks and an epoch is committed: time would tell nothing on a machine that others use.
    pub(super) fn reads(mut self, state: &Path, count: u64) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        // While the job makes it, a log may not be readable.
        while ticks::read(state).map_or(0, |log| log.next) < count || newest_epoch(state)? == 0 {
            ensure!(Instant::now() < deadline, "the job ({}) does not come to tick {count}", self.what);
            self.must_run()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    /// Lets it run until it has committed so many epochs more.
    fn commits(mut self, state: &Path, epochs: u64) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let (mut newest, mut count) = (newest_epoch(state)?, 0);
        // The claim of the new start is an entry, too.
        while count < epochs + 1 {
            ensure!(Instant::now() < deadline, "the job ({}) commits nothing", self.what);
            self.must_run()?;
            std::thread::sleep(Duration::from_millis(5));
            let now = newest_epoch(state)?;
            count += now.saturating_sub(newest);
            newest = now;
        }
        Ok(self)
    }

    fn must_run(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the job ({}) ended too early ({status}); give more --events, or a shorter --interval: {}",
                self.what,
                self.said()
            );
        }
        Ok(())
    }

    fn interrupt(self) -> anyhow::Result<Value> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().context("cannot run kill")?;
        self.end()
    }

    /// `kill -9`.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Usually it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_card_stays_alive() {
        let options = Options {
            program: PathBuf::new(),
            events: 100_000,
            keys: 10_000,
            interval: Duration::from_secs(1),
            workers: 1,
            runs: 1,
        };
        let data = data(&options);
        let mut seen = vec![0i64; 10_000];
        let mut longest = 0;
        for batch in data.batches() {
            let batch = around(&batch, data.cards).expect("it has the columns");
            let cards = batch.column(1).as_primitive::<Int64Type>().values();
            let ids = batch.column(0).as_primitive::<Int64Type>().values();
            for (id, card) in ids.iter().zip(cards) {
                longest = longest.max(id - seen[*card as usize]);
                seen[*card as usize] = *id;
            }
        }
        let day = (EVENTS_PER_KEY * 10_000.0) as i64;
        assert!(longest < day * 4 / 5, "{longest} events between two of a card, {day} a day");
        assert!(seen.iter().all(|last| *last > 100_000 - day));
    }
}

//! `bench windows --checkpoint-every ROWS`: what checkpoints of a view's state cost it, at full load on one core.
//!
//! The card view of W1 is fed ticks of rows, three times in turn: without checkpoints, with changes tracked and nothing
//! frozen, and with a freeze every so many rows that is written a slice per tick; each writes a tenth of the slots anew. All
//! days of the data fall in the widest window, so keys only come and none goes. Afterwards the whole state is written and
//! taken in again at a stretch. Times are the processor's, where the system tells them, so that a busy machine does not count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
};
use serde::Serialize;

use super::w1_data::W1Data;
use crate::base::{Micros, SLOTS, SlotRange};
use crate::features::view::{ViewOptions, ViewState};
use crate::plan::model::{AggregateFunction as F, AggregatePlan, Order, StreamRef, ViewPlan, Window};

/// Rows of a tick.
const TICK: usize = 8_192;
/// Bytes written per tick.
const SLICE_BYTES: usize = 256 << 10;
/// A slot is written anew by one of so many freezes.
const TURN: u16 = 10;
const HOUR: Micros = 3_600_000_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows per run.
    pub events: u64,
    /// Rows between freezes.
    pub every: u64,
    /// Tiles of 1/60 of each window instead of exact windows.
    pub tiled: bool,
    /// Times each side runs, in turn; rates are medians.
    pub runs: usize,
}

/// The figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Rows per run.
    pub events: u64,
    /// Without checkpoints.
    pub plain_m_events_per_s: f64,
    /// Changes tracked and nothing frozen.
    pub tracked_m_events_per_s: f64,
    /// With freezes.
    pub checkpointed_m_events_per_s: f64,
    /// Throughput lost to tracking, median of the pairs.
    pub tracked_loss_percent: f64,
    /// Throughput lost to tracking and freezes, median of the pairs.
    pub checkpointed_loss_percent: f64,
    /// Freezes per run.
    pub freezes: usize,
    /// Bytes of a freeze, on average.
    pub freeze_bytes: f64,
    /// Bytes of all keys at the end.
    pub whole_bytes: f64,
    /// Longest freeze.
    pub freeze_ms_max: f64,
    /// Longest slice.
    pub slice_ms_max: f64,
    /// Longest tick without checkpoints: a batch and its sweep.
    pub plain_tick_ms_max: f64,
    /// Longest tick with them: freeze and slice included.
    pub tick_ms_max: f64,
    /// Keys at the end.
    pub keys: usize,
    /// Memory per key.
    pub memory_bytes_per_key: f64,
    /// Bytes of a whole freeze per key.
    pub bytes_per_key: f64,
    /// Bytes of a whole freeze per row that it holds.
    pub bytes_per_entry: f64,
    /// Writing the whole state at a stretch, per key.
    pub write_ns_per_key: f64,
    /// And per row.
    pub write_ns_per_entry: f64,
    /// Taking it in, per key.
    pub import_ns_per_key: f64,
}

/// Measures.
///
/// # Errors
/// When the state refuses what it is fed, or what is taken in is not what was written.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let plan = plan(options.tiled);
    let ticks = ticks(options.events as usize)?;
    let (mut report, mut rates) = (Report { events: options.events, ..Report::default() }, Vec::new());
    for _ in 0..options.runs.max(1) {
        let new = |checkpoints| state(&plan, checkpoints);
        let plain = feed(&mut new(false)?, &ticks, None, &mut report)?;
        let tracked = feed(&mut new(true)?, &ticks, None, &mut report)?;
        let mut state = new(true)?;
        report.freezes = 0;
        let checkpointed = feed(&mut state, &ticks, Some(options), &mut report)?;
        rates.push((plain, tracked, checkpointed));
        whole(&mut state, &plan, &mut report)?;
    }
    let median = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
        let mut list: Vec<f64> = rates.iter().map(of).collect();
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let millions = options.events as f64 / 1e6;
    report.plain_m_events_per_s = millions / median(&|r| r.0);
    report.tracked_m_events_per_s = millions / median(&|r| r.1);
    report.checkpointed_m_events_per_s = millions / median(&|r| r.2);
    report.tracked_loss_percent = 100.0 * (1.0 - 1.0 / median(&|r| r.1 / r.0));
    report.checkpointed_loss_percent = 100.0 * (1.0 - 1.0 / median(&|r| r.2 / r.0));
    Ok(report)
}

/// Feeds all ticks; returns the seconds that it took.
fn feed(
    state: &mut ViewState,
    ticks: &[(RecordBatch, i64)],
    options: Option<&Options>,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let started = Clock::start();
    let (mut since, mut freezes, mut bytes, mut anew) = (0, 0, 0, SlotRange::NONE);
    for (batch, end) in ticks {
        let tick = Clock::start();
        state.apply_own(batch)?;
        state.advance(*end);
        since += batch.num_rows() as u64;
        if let Some(options) = options {
            if since >= options.every && !state.frozen() {
                since = 0;
                let freeze = Clock::start();
                anew = SlotRange::new(anew.end() % SLOTS as u16, (SLOTS as u16).div_ceil(TURN));
                state.freeze(anew)?;
                raise(&mut report.freeze_ms_max, freeze.elapsed());
                freezes += 1;
            }
            if state.frozen() {
                let slice = Clock::start();
                let slots = state.write_frozen(SLICE_BYTES);
                raise(&mut report.slice_ms_max, slice.elapsed());
                bytes += slots.iter().map(|s| s.1.len()).sum::<usize>();
            }
            raise(&mut report.tick_ms_max, tick.elapsed());
        } else {
            raise(&mut report.plain_tick_ms_max, tick.elapsed());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    while state.frozen() {
        state.write_frozen(usize::MAX);
    }
    if options.is_some() {
        (report.freezes, report.freeze_bytes) = (freezes, bytes as f64 / freezes.max(1) as f64);
    }
    Ok(seconds)
}

/// Writes the whole state at a stretch and takes it in.
fn whole(state: &mut ViewState, plan: &ViewPlan, report: &mut Report) -> anyhow::Result<()> {
    let (keys, entries) = (state.keys(), report.events as f64);
    let started = Clock::start();
    state.freeze(SlotRange::ALL)?;
    let slots = state.write_frozen(usize::MAX);
    let write = started.elapsed().as_nanos() as f64;
    let bytes = slots.iter().map(|s| s.1.len()).sum::<usize>() as f64;
    let mut restored = self::state(plan, true)?;
    let started = Clock::start();
    for (slot, bytes) in slots.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        restored.import(*slot, bytes)?;
    }
    report.import_ns_per_key = started.elapsed().as_nanos() as f64 / keys as f64;
    ensure!(restored.keys() == keys, "of {keys} keys {} were taken in", restored.keys());
    (report.keys, report.whole_bytes) = (keys, bytes);
    report.memory_bytes_per_key = state.memory_bytes() as f64 / keys as f64;
    report.bytes_per_key = bytes / keys as f64;
    report.bytes_per_entry = bytes / entries;
    report.write_ns_per_key = write / keys as f64;
    report.write_ns_per_entry = write / entries;
    Ok(())
}

/// Time spent by this thread.
struct Clock {
    wall: Instant,
    processor: Option<Duration>,
}

impl Clock {
    fn start() -> Self {
        Clock { wall: Instant::now(), processor: processor_time() }
    }

    fn elapsed(&self) -> Duration {
        match (self.processor, processor_time()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.wall.elapsed(),
        }
    }
}

#[cfg(target_os = "linux")]
fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the one structure that it is given.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (done == 0).then(|| Duration::new(seconds, nanos))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Option<Duration> {
    None
}

fn raise(max: &mut f64, time: Duration) {
    *max = max.max(time.as_secs_f64() * 1e3);
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("_time", time, false),
        Field::new("_ord", DataType::UInt64, false),
        Field::new("card_id", DataType::Int64, false),
        Field::new("amount", DataType::Float64, false),
    ]))
}

fn state(plan: &ViewPlan, checkpoints: bool) -> anyhow::Result<ViewState> {
    let options = ViewOptions { order: Order::EventTime, refresh: false, revise_within: None, checkpoints };
    Ok(ViewState::new(plan, &schema(), options)?)
}

/// The card view of W1.
fn plan(tiled: bool) -> ViewPlan {
    let functions = [F::Count, F::Sum, F::Mean, F::Min, F::Max, F::Stddev];
    let aggregates = functions.iter().flat_map(|function| {
        [HOUR, 24 * HOUR].map(|width| AggregatePlan {
            name: format!("card.{function:?}_{width}"),
            function: *function,
            input: (*function != F::Count).then_some(3),
            input_type: (*function != F::Count).then_some(DataType::Float64),
            window: Window::Trailing(width),
            resolution: tiled.then_some(width / 60),
            output_type: if *function == F::Count { DataType::Int64 } else { DataType::Float64 },
            default: None,
        })
    });
    ViewPlan {
        name: "card".into(),
        stream: StreamRef::Source(0),
        entity: vec![2],
        entity_names: vec!["card_id".into()],
        delay: 0,
        include_current: true,
        aggregates: aggregates.collect(),
        derived: Vec::new(),
        post: Vec::new(),
        ttl: None,
        disorder: 0,
    }
}

/// The rows in ticks, each with the time of its last row.
fn ticks(events: usize) -> anyhow::Result<Vec<(RecordBatch, i64)>> {
    let data = W1Data { events, span_ms: 86_000_000, disorder_ms: 1, ..W1Data::default() };
    let mut ticks = Vec::new();
    for batch in data.batches() {
        let times = batch.column(4).as_primitive::<TimestampMillisecondType>();
        let times: TimestampMicrosecondArray = times.unary(|ms| ms * 1000);
        let ords: UInt64Array = batch.column(0).as_primitive::<Int64Type>().unary(|id| id as u64);
        let columns = vec![
            Arc::new(times.with_timezone("UTC")) as _,
            Arc::new(ords) as _,
            Arc::clone(batch.column(1)),
            Arc::clone(batch.column(3)),
        ];
        let batch = RecordBatch::try_new(schema(), columns)?;
        for from in (0..batch.num_rows()).step_by(TICK) {
            let tick = batch.slice(from, TICK.min(batch.num_rows() - from));
            let last = tick.column(0).as_primitive::<TimestampMicrosecondType>();
            let end = last.values().last().copied().unwrap_or_default();
            ticks.push((tick, end));
        }
    }
    Ok(ticks)
}

//! Values on their way to Redis: the writing threads' work, and writing all values again when the server lost them.
//!
//! While the job runs, its stages see a loss at their next tick and send all values again in the stream. After its last
//! tick a stage leaves its values here, where the writing threads, and later the waiting job, find them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::EngineError;
use super::graph::StoreIdentity;
use super::online_sink::{Request, told};
use super::shared::Shared;
use crate::base::{EventTime, Tick};
use crate::ops::control::TickInfo;
use crate::store::online::{RedisRows, RedisStore, RedisWriter, Stamp};

/// How often a job that has read everything looks whether the server still has its values.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All values of a view on one worker, as of the job's last tick, in batches of bounded size.
pub type AllValues = Box<dyn FnMut(&mut dyn FnMut(RecordBatch) -> bool) -> Result<(), EngineError> + Send>;

/// The values that stages left at their last tick.
#[derive(Default)]
pub struct Left(Mutex<Vec<LeftView>>);

struct LeftView {
    view: usize,
    /// Losses that the stage has made up for.
    losses: u64,
    tick: Tick,
    now: EventTime,
    values: AllValues,
}

impl Left {
    /// Leaves the values of `view` as of its last tick, of which the stage has made up for `losses`.
    pub fn leave(&self, view: usize, last: &TickInfo, losses: u64, values: AllValues) {
        let (tick, now) = (last.tick, last.now);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(LeftView { view, losses, tick, now, values });
    }
}

/// A writing thread's work. `views[i]` is the view of input `i`.
pub fn writer(
    shared: Arc<Shared>,
    store: &RedisStore,
    worker: usize,
    views: Vec<usize>,
) -> impl FnMut(Request) -> Option<Tick> + use<> {
    let generation = store.generation();
    let losses = store.losses();
    let mut writer = store.writer(worker.to_string());
    let store = store.clone();
    move |request| {
        if shared.failed() || !shared.wait_durable(request.tick) {
            return None;
        }
        let stamp = Stamp { generation, tick: request.tick };
        let now = Some(request.now).filter(|now| *now != EventTime::MIN);
        let rows: Vec<(usize, &RecordBatch)> =
            request.rows.iter().map(|(input, batch)| (views[*input], batch)).collect();
        let give_up = || shared.failed();
        let written = put(&mut writer, stamp, now, &rows, &give_up).and_then(|written| match written {
            Some(_) if request.last => settle(&shared.left, &mut writer, generation, &losses, &give_up),
            other => Ok(other),
        });
        match written {
            Ok(Some(_)) => {
                let (life, losses) = store.life();
                told(&shared, request.ends, StoreIdentity { generation, life }, losses);
                Some(request.tick)
            }
            Ok(None) => None,
            Err(error) => {
                shared.fail(error);
                None
            }
        }
    }
}

fn put(
    writer: &mut RedisWriter,
    stamp: Stamp,
    now: Option<EventTime>,
    rows: &[(usize, &RecordBatch)],
    give_up: &dyn Fn() -> bool,
) -> Result<Option<u64>, EngineError> {
    let rows: Vec<RedisRows<'_>> = rows.iter().map(|(view, batch)| columns(*view, batch)).collect();
    Ok(writer.put(stamp, now, &rows, give_up)?)
}

/// A batch of [`online_schema`](super::stage::online_schema).
fn columns(view: usize, batch: &RecordBatch) -> RedisRows<'_> {
    let keys = batch.column(0).as_binary::<i32>();
    RedisRows {
        view,
        keys: (0..keys.len()).map(|row| keys.value(row)).collect(),
        event_time: batch.column(1).as_primitive::<Int64Type>().values(),
        valid_until: batch.column(2).as_primitive::<Int64Type>().values(),
        values: &batch.columns()[3..],
    }
}

/// Writes what stages left until the server has it all. `None` when given up.
fn settle(
    left: &Left,
    writer: &mut RedisWriter,
    generation: u64,
    losses: &AtomicU64,
    give_up: &dyn Fn() -> bool,
) -> Result<Option<u64>, EngineError> {
    loop {
        let seen = losses.load(Ordering::Acquire);
        let mut left = left.0.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = left.iter().map(|view| view.now).max();
        for LeftView { view, losses, tick, now, values } in left.iter_mut().filter(|view| view.losses < seen) {
            let stamp = Stamp { generation, tick: *tick };
            let mut outcome = Ok(Some(0));
            values(&mut |batch| {
                outcome = put(writer, stamp, Some(*now), &[(*view, &batch)], give_up);
                matches!(outcome, Ok(Some(_)))
            })?;
            if !matches!(outcome, Ok(Some(_))) {
                return outcome;
            }
            *losses = seen;
        }
        drop(left);
        // An empty write finds out whether the connection still leads to the server that has the values.
        if put(writer, Stamp { generation, tick: 0 }, clock, &[], give_up)?.is_none() {
            return Ok(None);
        }
        if losses.load(Ordering::Acquire) == seen {
            return Ok(Some(0));
        }
    }
}

/// Keeps the values of a job that has read everything in Redis until `stopped`.
///
/// # Errors
/// What time does not mend.
pub fn keep(shared: &Shared, store: &RedisStore, stopped: &dyn Fn() -> bool) -> Result<(), EngineError> {
    let mut writer = store.writer("keeper");
    let losses = store.losses();
    while !stopped() {
        if settle(&shared.left, &mut writer, store.generation(), &losses, stopped)?.is_none() {
            return Ok(());
        }
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !stopped() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

//! The tick log: where worker 0 cut each tick, so that a restart and a proof cut alike.
//!
//! The log is a directory of segments `ticks-<first tick>-<generation>.log`, of which each start of a job writes its own; one of
//! a later generation makes void what earlier ones have from its first tick on. A segment begins with eight bytes that name the format,
//! then holds records, each a length and a CRC-32 (four bytes each, little-endian) and that many bytes of JSON. Ticks are
//! dense: a record's tick is one more than that of the record before.
//!
//! [`TickLog::append`] hands a record to the log's own thread, which writes and syncs whatever has gathered since its last
//! sync (group commit) and then advances [`Durable::ticks`]; no output may leave before its tick is below that. A write
//! that fails, on a full disk say, ends the log: nothing more becomes durable and every later call returns the error.
//!
//! A crash leaves at most a torn tail: records of the last segment that were never durable. Reading stops before the
//! first of them. A broken record in an earlier segment of the same generation is damage, since a segment is synced before
//! the next begins; in one of an earlier generation it means that the ticks up to the later start are lost.
//!
//! What no restart needs any more is [removed](remove_before) from the front, by whole segments, so that a log may
//! begin with any tick.

mod segments;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use self::segments::{Disk, Segments};
use crate::base::{Blame, EventTime, Tick};

/// Where one tick was cut, and what steered it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// The tick.
    pub tick: Tick,
    /// Rows with an event time before this are complete with this tick.
    pub watermark: EventTime,
    /// For each source, for each of its partitions: the offset of the next row, which is not in this tick.
    pub offsets: Vec<Vec<u64>>,
    /// Partitions of topics whose first tick this is, as `(source, partition, first offset)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entered: Vec<(u32, u32, u64)>,
    /// Partitions, as `(source, partition)`, that held no watermark back because they were silent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<(u32, u32)>,
    /// Commands that take effect with this tick, in order, each as its own room writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Whether the tick is its epoch's last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub epoch_end: bool,
}

/// Why the tick log cannot be written or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TickLogError {
    /// A file or directory of the log failed; a full disk among others.
    #[error("tick log {}: cannot {action}: {source}; every tick below {durable} is safe: mend the disk and restart", path.display())]
    Io {
        /// What was attempted, such as `append`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Ticks below this had become durable.
        durable: Tick,
        /// What the operating system says.
        source: Arc<std::io::Error>,
    },
    /// A record that had been durable cannot be read.
    #[error("tick log {} is damaged at byte {at}: {what}; restore the file from a copy or restart from a savepoint", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the broken record begins.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// Ticks that are asked for are not in the log.
    #[error("tick log {}: it begins with tick {first}, and ticks from {from} on are needed; restore its files from a copy, or restart from a newer checkpoint", path.display())]
    Gone {
        /// The directory.
        path: PathBuf,
        /// The first tick that is needed.
        from: Tick,
        /// The first tick that is there.
        first: Tick,
    },
    /// Ticks must follow one another.
    #[error("tick {got} was to be logged where {expected} comes next; this is a defect of tidemill")]
    Gap {
        /// The tick that comes next.
        expected: Tick,
        /// The tick that came.
        got: Tick,
    },
}

impl TickLogError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            TickLogError::Io { .. } | TickLogError::Damaged { .. } | TickLogError::Gone { .. } => Blame::Outside,
            TickLogError::Gap { .. } => Blame::Ours,
        }
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickLogContents {
    /// The records, in order.
    pub records: Vec<TickRecord>,
    /// The tick that comes next.
    pub next: Tick,
    /// The tail that a crash tore, if any; its records had not been durable.
    pub torn: Option<TornTail>,
}

/// Bytes at the end of the last segment that are no whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where the tail begins.
    pub at: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Reads a log. A directory that holds none, or is not there, has no records.
///
/// # Errors
/// When a file cannot be read, and when a record is broken that is not part of a torn tail.
pub fn read(dir: &Path) -> Result<TickLogContents, TickLogError> {
    segments::read(dir, None)
}

/// Reads the records of a log from tick `from` on, and of the files only those that may hold them. Of a directory that holds
/// no log, `from` comes next. A log that ends before `from` is not an error: then [`TickLogContents::next`] is below it.
///
/// # Errors
/// As [`read`], and when the log begins behind `from`.
pub fn read_from(dir: &Path, from: Tick) -> Result<TickLogContents, TickLogError> {
    segments::read(dir, Some(from))
}

/// Removes the segments of a log all of whose ticks are below `tick` and to which nothing was written since `idle_since`, save
/// the last segment, and returns how many. The oldest goes first, so that a crash leaves a log that only begins earlier. The
/// log may be written meanwhile.
///
/// # Errors
/// When the directory cannot be read or written; the log itself goes on.
pub fn remove_before(dir: &Path, tick: Tick, idle_since: SystemTime) -> Result<usize, TickLogError> {
    segments::remove_before(dir, tick, idle_since)
}

/// What has become of the log, for those who wait for it; cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Durable(Arc<Shared>);

impl Durable {
    /// All ticks below this are durable.
    pub fn ticks(&self) -> Tick {
        self.0.durable.load(Ordering::Acquire)
    }

    /// Waits until `tick` is durable.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn wait(&self, tick: Tick) -> Result<(), TickLogError> {
        if self.ticks() > tick {
            return Ok(());
        }
        let mut state = self.0.lock();
        while state.failure.is_none() && self.ticks() <= tick {
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }

    /// How long records waited to become durable; none before the first of them.
    pub fn delays(&self) -> Option<Delays> {
        let state = self.0.lock();
        let histogram = state.delays.as_ref().filter(|delays| !delays.is_empty())?;
        let at = |quantile: f64| Duration::from_micros(histogram.value_at_quantile(quantile));
        Some(Delays { p50: at(0.5), p99: at(0.99), max: Duration::from_micros(histogram.max()) })
    }
}

/// How long records waited to become durable, from [`TickLog::append`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// Half of them waited less.
    pub p50: Duration,
    /// 99 of 100 waited less.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// Longest delay told apart, in microseconds.
const DELAY_MAX: u64 = 60_000_000;

/// Shared with the log's thread.
struct Shared {
    durable: AtomicU64,
    state: Mutex<State>,
    /// There is something to write, or the log closes.
    work: Condvar,
    /// Something has become durable, or the log has failed.
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole records, encoded, that wait to be written.
    pending: Vec<u8>,
    /// The first tick in `pending`.
    pending_from: Tick,
    /// When they came.
    pending_since: Vec<Instant>,
    delays: Option<Histogram<u64>>,
    /// The tick that comes next.
    next: Tick,
    failure: Option<TickLogError>,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("durable", &self.durable).finish_non_exhaustive()
    }
}

/// The writing end of a tick log. Dropping it writes what is pending.
#[derive(Debug)]
pub struct TickLog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TickLog {
    /// Goes on with the log of a directory behind its last whole record, or with tick `from` where there is none so late, and
    /// returns the records from tick `from` on. `generation` is higher than that of every start before: it names segments of
    /// its own, so that a process that was frozen and wakes writes nothing that is ever read.
    ///
    /// # Errors
    /// As [`read_from`], and when the directory cannot be written.
    pub fn take_over(dir: &Path, generation: u64, from: Tick) -> Result<(TickLog, TickLogContents), TickLogError> {
        Self::after(dir, generation, from, read_from(dir, from)?)
    }

    /// As [`TickLog::take_over`], where what the log has from tick `from` on is to be forgotten.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn begin_anew(dir: &Path, generation: u64, from: Tick) -> Result<(TickLog, TickLogContents), TickLogError> {
        Self::after(dir, generation, from, TickLogContents { next: from, ..TickLogContents::default() })
    }

    fn after(
        dir: &Path,
        generation: u64,
        from: Tick,
        contents: TickLogContents,
    ) -> Result<(TickLog, TickLogContents), TickLogError> {
        segments::remove_void(dir)?;
        let next = contents.next.max(from);
        Ok((Self::start(Box::new(Segments::begin(dir, generation)?), next)?, contents))
    }

    fn start(disk: Box<dyn Disk>, next: Tick) -> Result<TickLog, TickLogError> {
        let path = disk.path();
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(next),
            state: Mutex::new(State { next, delays: Histogram::new_with_max(DELAY_MAX, 3).ok(), ..State::default() }),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("tick-log".into()).spawn(move || write_until_closed(&theirs, disk));
        let error =
            |source| TickLogError::Io { action: "start its thread", path, durable: next, source: Arc::new(source) };
        Ok(TickLog { shared, thread: Some(thread.map_err(error)?) })
    }

    /// Takes a record in; it is durable once [`Durable::ticks`] is above its tick. Does not wait for the disk.
    ///
    /// # Errors
    /// When the log has failed, or when the record's tick is not the next one.
    pub fn append(&mut self, record: &TickRecord) -> Result<(), TickLogError> {
        let mut state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if record.tick != state.next {
            return Err(TickLogError::Gap { expected: state.next, got: record.tick });
        }
        if state.pending.is_empty() {
            state.pending_from = record.tick;
        }
        segments::encode(record, &mut state.pending);
        state.pending_since.push(Instant::now());
        state.next += 1;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Waits until all records so far are durable.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn sync(&self) -> Result<(), TickLogError> {
        let mut state = self.shared.lock();
        while state.failure.is_none() && self.shared.durable.load(Ordering::Acquire) < state.next {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }

    /// All ticks below this are durable.
    pub fn durable(&self) -> Tick {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// A handle for those who wait for ticks to become durable.
    pub fn handle(&self) -> Durable {
        Durable(Arc::clone(&self.shared))
    }

    /// Writes what is pending and ends the log.
    ///
    /// # Errors
    /// When the log has failed.
    pub fn close(mut self) -> Result<(), TickLogError> {
        self.stop();
        self.shared.lock().failure.clone().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic short of a defect, and then its panic has been reported.
            let _ = thread.join();
        }
    }
}

impl Drop for TickLog {
    fn drop(&mut self) {
        self.stop();
    }
}

fn write_until_closed(shared: &Shared, mut disk: Box<dyn Disk>) {
    let (mut writing, mut since) = (Vec::new(), Vec::new());
    loop {
        let mut state = shared.lock();
        while state.pending.is_empty() && !state.closing {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.pending.is_empty() {
            return;
        }
        writing.clear();
        since.clear();
        std::mem::swap(&mut writing, &mut state.pending);
        std::mem::swap(&mut since, &mut state.pending_since);
        let (from, next) = (state.pending_from, state.next);
        drop(state);

        let written = disk.append(from, &writing);
        let mut state = shared.lock();
        match written {
            Ok(()) => {
                shared.durable.store(next, Ordering::Release);
                if let Some(delays) = &mut state.delays {
                    since.drain(..).for_each(|at: Instant| delays.saturating_record(at.elapsed().as_micros() as u64));
                }
            }
            Err(source) => {
                let (path, durable) = (disk.path(), shared.durable.load(Ordering::Acquire));
                let failure = TickLogError::Io { action: "append", path, durable, source: Arc::new(source) };
                tracing::error!(error = %failure, "the tick log has failed");
                state.failure = Some(failure);
            }
        }
        shared.done.notify_all();
        if state.failure.is_some() {
            return;
        }
    }
}

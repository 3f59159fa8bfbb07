//! Reads all partitions of all sources aligned in event time and cuts the input into ticks.
//!
//! The partition whose watermark is lowest is read next, so no partition runs ahead of the others by more than one
//! chunk, and the reorder buffers downstream hold no more than that. Unpaced finite input is cut by size alone: the cuts
//! are then a function of the files and the settings, not of the machine's speed. Paced input is also cut by time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::ticks::TickRecord;
use super::{Counts, DeadLetter, IngestError, SourceReader};
use crate::base::{Epoch, EventTime, Micros, Tick};
use crate::ops::control::TickInfo;
use crate::plan::model::{Connector, Plan, Rate, TickPolicy};

/// Rows read from one partition at once when others must be kept aligned with it.
const CHUNK_ROWS: usize = 8_192;

/// The input of one tick.
#[derive(Debug)]
pub struct Cut {
    /// What every operator hears about the tick.
    pub info: TickInfo,
    /// Next offset per source and partition after the tick.
    pub offsets: Vec<Vec<u64>>,
    /// Batches with the index of their source, in the order read.
    pub batches: Vec<(usize, RecordBatch)>,
    /// Rows turned away.
    pub dead: Vec<DeadLetter>,
    /// Raw rows read.
    pub rows: u64,
}

/// What [`Aligned::next`] found.
#[derive(Debug)]
pub enum Next {
    /// A tick's input.
    Cut(Box<Cut>),
    /// Nothing is due; ask again after this long.
    Wait(Duration),
    /// All sources have ended and the last tick has been cut.
    End,
}

/// When epochs close: the first tick after either bound.
#[derive(Clone, Copy, Debug)]
pub struct EpochPolicy {
    /// Wall time per epoch; not used where all input is finite and unpaced.
    pub interval: Duration,
    /// Rows per epoch.
    pub rows: u64,
}

/// One partition of one source.
struct Lane {
    source: usize,
    partition: usize,
    watermark: EventTime,
    /// Distance from the watermark to the newest event time seen.
    disorder: Micros,
    next_offset: u64,
    done: bool,
}

/// How fast a source may be read, on the wall clock.
enum Pace {
    Max,
    PerSecond { rate: f64, started: Option<Instant>, emitted: f64 },
    RealTime { started: Option<(Instant, EventTime)> },
}

/// Aligned reader of all sources of a job.
pub struct Aligned {
    names: Vec<String>,
    readers: Vec<SourceReader>,
    lanes: Vec<Lane>,
    paces: Vec<Pace>,
    policy: TickPolicy,
    epochs: EpochPolicy,
    paced: bool,
    tick: Tick,
    epoch: Epoch,
    epoch_rows: u64,
    epoch_since: Option<Instant>,
    watermark: EventTime,
    newest: EventTime,
    open: Option<OpenTick>,
    /// Recorded ticks to cut by, where the input is replayed.
    recorded: Option<VecDeque<TickRecord>>,
    ended: bool,
    counts: Vec<Counts>,
}

/// A tick that is being filled.
struct OpenTick {
    since: Instant,
    batches: Vec<(usize, RecordBatch)>,
    dead: Vec<DeadLetter>,
    rows: u64,
    bytes: usize,
}

impl Aligned {
    /// Prepares to read `readers`, one per source of `plan`, from their current positions.
    pub fn new(plan: &Plan, readers: Vec<SourceReader>, epochs: EpochPolicy) -> Self {
        let lanes = readers
            .iter()
            .enumerate()
            .flat_map(|(source, reader)| {
                (0..reader.partitions()).map(move |partition| Lane {
                    source,
                    partition,
                    watermark: EventTime::MIN,
                    disorder: plan.sources[source].disorder,
                    next_offset: reader.next_offset(partition),
                    done: false,
                })
            })
            .collect();
        let paces: Vec<Pace> = plan
            .sources
            .iter()
            .map(|source| {
                let rate = match &source.connector {
                    Connector::File(file) => file.rate,
                    Connector::Generator(generator) => generator.rate,
                };
                match rate {
                    Rate::Max => Pace::Max,
                    Rate::RealTime => Pace::RealTime { started: None },
                    Rate::PerSecond(rate) => Pace::PerSecond { rate, started: None, emitted: 0.0 },
                }
            })
            .collect();
        Aligned {
            paced: paces.iter().any(|pace| !matches!(pace, Pace::Max)),
            counts: vec![Counts::default(); readers.len()],
            names: plan.sources.iter().map(|s| s.name.clone()).collect(),
            readers,
            lanes,
            paces,
            policy: plan.ticks,
            epochs,
            tick: 0,
            epoch: 0,
            epoch_rows: 0,
            epoch_since: None,
            watermark: EventTime::MIN,
            newest: EventTime::MIN,
            open: None,
            recorded: None,
            ended: false,
        }
    }

    /// Rows read, filtered, late and rejected so far, per source.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }

    /// Reads until a tick is full or due.
    ///
    /// # Errors
    /// When a source cannot be read at all; bad rows are dead letters in the cut.
    pub fn next(&mut self, now: Instant) -> Result<Next, IngestError> {
        if self.ended {
            return Ok(Next::End);
        }
        if let Some(records) = &mut self.recorded {
            let Some(record) = records.pop_front() else { return Ok(Next::End) };
            let last = records.is_empty();
            return self.replay(record, last, now);
        }
        loop {
            let rows_left = match &self.open {
                Some(open) if self.is_full(open) => return Ok(self.cut(now, false)),
                Some(open) if self.is_due(open, now) => return Ok(self.cut(now, false)),
                Some(open) => self.policy.rows_max - open.rows as usize,
                None => self.policy.rows_max,
            };
            let Some(lane) = self.lowest_lane() else {
                return Ok(self.cut(now, true));
            };
            let source = self.lanes[lane].source;
            let allowed = self.paces[source].allowed(now, self.lanes[lane].watermark);
            if allowed == 0 {
                let wait = match &self.open {
                    Some(open) => self.interval().saturating_sub(now - open.since),
                    None => self.interval(),
                };
                return Ok(Next::Wait(wait.clamp(Duration::from_micros(200), Duration::from_millis(20))));
            }
            let alone = self.lanes.iter().filter(|lane| !lane.done).count() == 1;
            let chunk = if alone { rows_left } else { rows_left.min(CHUNK_ROWS) };
            self.read(lane, chunk.min(allowed), now)?;
        }
    }

    /// Cuts from here on by recorded ticks, which begin at the readers' positions; the last of them ends the input.
    pub fn follow(&mut self, records: Vec<TickRecord>) {
        self.recorded = Some(records.into());
    }

    /// Reads exactly the input of a recorded tick.
    fn replay(&mut self, record: TickRecord, last: bool, now: Instant) -> Result<Next, IngestError> {
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let until = record.offsets.get(lane.source).and_then(|o| o.get(lane.partition)).copied().unwrap_or(0);
            while self.lanes[index].next_offset < until {
                let before = self.lanes[index].next_offset;
                self.read(index, (until - before) as usize, now)?;
                let lane = &self.lanes[index];
                if lane.next_offset == before {
                    return Err(IngestError::source(
                        &self.names[lane.source],
                        format!(
                            "partition {} ends at offset {before}, but the tick log goes on to {until}; give the files that the log was written from",
                            lane.partition
                        ),
                    ));
                }
            }
        }
        Ok(self.emit(now, last, record.watermark, record.epoch_end))
    }

    /// Closes the input now: what has been read is cut as the last tick. Rows that the watermark has not reached are not
    /// complete, since other partitions stand before them: they are released no more.
    pub fn stop(&mut self, now: Instant) -> Next {
        if self.ended { Next::End } else { self.cut(now, true) }
    }

    /// Next offsets per source and partition.
    fn offsets(&self) -> Vec<Vec<u64>> {
        let mut offsets: Vec<Vec<u64>> = vec![Vec::new(); self.readers.len()];
        for lane in &self.lanes {
            offsets[lane.source].push(lane.next_offset);
        }
        offsets
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(self.policy.interval.max(0) as u64)
    }

    fn is_full(&self, open: &OpenTick) -> bool {
        open.rows as usize >= self.policy.rows_max || open.bytes >= self.policy.bytes_max
    }

    fn is_due(&self, open: &OpenTick, now: Instant) -> bool {
        self.paced && open.rows > 0 && now.saturating_duration_since(open.since) >= self.interval()
    }

    /// The unfinished lane with the lowest watermark; ties go to the first source and partition.
    fn lowest_lane(&self) -> Option<usize> {
        (0..self.lanes.len()).filter(|&i| !self.lanes[i].done).min_by_key(|&i| self.lanes[i].watermark)
    }

    fn read(&mut self, index: usize, rows: usize, now: Instant) -> Result<(), IngestError> {
        let lane = &mut self.lanes[index];
        let Some(decoded) = self.readers[lane.source].read(lane.partition, rows)? else {
            lane.done = true;
            return Ok(());
        };
        lane.watermark = lane.watermark.max(decoded.watermark);
        lane.next_offset = decoded.next_offset;
        let newest = match decoded.watermark {
            EventTime::MIN => EventTime::MIN,
            watermark => watermark.saturating_add(lane.disorder),
        };
        self.newest = self.newest.max(newest);
        self.paces[lane.source].consumed(decoded.rows_read, newest, now);
        self.counts[lane.source].add(&decoded.counts);
        let open = self.open.get_or_insert_with(|| OpenTick::new(now));
        open.rows += decoded.rows_read;
        open.bytes += decoded.bytes;
        open.dead.extend(decoded.dead);
        if decoded.batch.num_rows() > 0 {
            open.batches.push((lane.source, decoded.batch));
        }
        Ok(())
    }

    /// Closes the open tick where the policy says so.
    fn cut(&mut self, now: Instant, last: bool) -> Next {
        let lowest = self.lanes.iter().filter(|lane| !lane.done).map(|lane| lane.watermark).min();
        // Watermarks never go back; when all partitions have ended, everything is complete.
        let watermark = self.watermark.max(lowest.unwrap_or(EventTime::MAX));
        self.epoch_rows += self.open.as_ref().map_or(0, |open| open.rows);
        let since = *self.epoch_since.get_or_insert(now);
        let epoch_end =
            last || self.epoch_rows >= self.epochs.rows || (self.paced && now - since >= self.epochs.interval);
        if epoch_end {
            self.epoch_rows = 0;
            self.epoch_since = None;
        }
        self.emit(now, last, watermark, epoch_end)
    }

    fn emit(&mut self, now: Instant, last: bool, watermark: EventTime, epoch_end: bool) -> Next {
        let open = self.open.take().unwrap_or_else(|| OpenTick::new(now));
        let previous_watermark = std::mem::replace(&mut self.watermark, watermark);
        let info = TickInfo {
            tick: self.tick,
            watermark: self.watermark,
            previous_watermark,
            now: self.watermark.min(self.newest),
            epoch: self.epoch,
            epoch_end,
            last,
        };
        self.tick += 1;
        self.epoch += u64::from(epoch_end);
        self.ended = last;
        Next::Cut(Box::new(Cut {
            info,
            offsets: self.offsets(),
            batches: open.batches,
            dead: open.dead,
            rows: open.rows,
        }))
    }
}

impl OpenTick {
    fn new(since: Instant) -> Self {
        OpenTick { since, batches: Vec::new(), dead: Vec::new(), rows: 0, bytes: 0 }
    }
}

impl Pace {
    /// Rows that may be read now from a partition whose watermark is `watermark`.
    fn allowed(&mut self, now: Instant, watermark: EventTime) -> usize {
        match self {
            Pace::Max => usize::MAX,
            Pace::PerSecond { rate, started, emitted } => {
                let started = *started.get_or_insert(now);
                let due = now.saturating_duration_since(started).as_secs_f64() * *rate - *emitted;
                due.max(0.0) as usize
            }
            // Small steps keep the reader within a few rows of the event time that the wall clock has reached.
            Pace::RealTime { started } => match started {
                None => 1,
                Some((wall, event)) => {
                    let reached = event.saturating_add(now.saturating_duration_since(*wall).as_micros() as i64);
                    if watermark <= reached { 16 } else { 0 }
                }
            },
        }
    }

    fn consumed(&mut self, rows: u64, newest: EventTime, now: Instant) {
        match self {
            Pace::Max => {}
            Pace::PerSecond { emitted, .. } => *emitted += rows as f64,
            Pace::RealTime { started } => {
                if started.is_none() && newest != EventTime::MIN {
                    *started = Some((now, newest));
                }
            }
        }
    }
}

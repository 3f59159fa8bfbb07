//! Reads all partitions of all sources aligned in event time and cuts the input into ticks.
//!
//! The partition whose watermark is lowest is read next, so no partition runs ahead of the others by more than one
//! chunk, and the reorder buffers downstream hold no more than that. Unpaced finite input is cut by size alone: the cuts
//! are then a function of the files and the settings, not of the machine's speed. Paced input is also cut by time.
//!
//! **Live partitions** may have nothing at the moment. One that is behind and waits for its broker holds the others back,
//! one that has been read to its end does not. With `order: event_time` what is read ahead of the watermark waits downstream, so
//! beyond a bound only the partitions that hold the watermark are read. A live partition that is silent for long enough
//! stops holding it (`silence`), and what it brings later from behind the watermark is late. Once a live tick has rows and all
//! that was there is read, nothing more is read until it may be cut: what gathers meanwhile is decoded all at once.

mod pace;
mod replay;
mod silence;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use self::pace::Pace;
pub use self::replay::Afterwards;
use self::replay::Following;
use self::silence::Progress;
pub use self::state::{AlignedState, PartitionState, SourceState};
use super::ticks::TickRecord;
use super::{Counts, DeadLetter, DedupDelta, IngestError, Polled, ReaderOptions, Reading, SourceReader, TopicWatch};
use crate::base::{Epoch, EventTime, Micros, Tick};
use crate::ops::control::TickInfo;
use crate::plan::model::{Order, Plan, TickPolicy};

/// Rows read from one partition at once when others must be kept aligned with it; few in tests, so that they take turns.
const CHUNK_ROWS: usize = if cfg!(test) { 16 } else { 8_192 };

/// Decoded bytes that may wait for a watermark that stands still before only those who hold it are read.
const AHEAD_BYTES_MAX: usize = 128 << 20;

/// Silence moves the watermark on this often.
const SILENT_TICK: Duration = Duration::from_millis(500);

/// The input of one tick.
#[derive(Debug)]
pub struct Cut {
    /// What every operator hears about the tick.
    pub info: TickInfo,
    /// Next offset per source and partition after the tick.
    pub offsets: Vec<Vec<u64>>,
    /// Partitions whose first tick this is, as `(source, partition, first offset)`.
    pub entered: Vec<(u32, u32, u64)>,
    /// Partitions, as `(source, partition)`, that held no watermark back because they were silent.
    pub idle: Vec<(u32, u32)>,
    /// Commands that take effect with the tick, in order: those of its record; whoever sends a new tick puts them there.
    pub commands: Vec<String>,
    /// Batches with the index of their source, in the order read.
    pub batches: Vec<(usize, RecordBatch)>,
    /// Rows turned away.
    pub dead: Vec<DeadLetter>,
    /// Raw rows read.
    pub rows: u64,
    /// The tick was cut by a record of a tick log, which need not be written again.
    pub replayed: bool,
    /// Where the sources stand after the tick, at an epoch's end where states are kept.
    pub state: Option<Box<AlignedState>>,
    /// Beside `state`: the ids that duplicates are found by, those since the last state or all of them.
    pub dedup: Vec<DedupDelta>,
}

impl Cut {
    /// What the tick log says of the tick.
    pub fn record(&self) -> TickRecord {
        TickRecord {
            tick: self.info.tick,
            watermark: self.info.watermark,
            offsets: self.offsets.clone(),
            entered: self.entered.clone(),
            idle: self.idle.clone(),
            commands: self.commands.clone(),
            epoch_end: self.info.epoch_end,
        }
    }
}

/// Bounds of the time until the reader is asked again.
const WAIT_MIN: Duration = Duration::from_micros(200);
const WAIT_MAX: Duration = Duration::from_millis(20);

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
    /// Wall time per epoch; not used where all input is finite and unpaced, unless `timed`.
    pub interval: Duration,
    /// Rows per epoch.
    pub rows: u64,
    /// Epochs close by wall time whatever the input, as those of jobs with checkpoints do.
    pub timed: bool,
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
    /// How long a live partition may be silent before it no longer counts; none for ever, and for those that end.
    idle_after: Option<Duration>,
    /// Newest event time seen.
    newest: EventTime,
    /// When rows last came, or the partition was entered.
    heard: Instant,
    /// Everything that is there by now has been read.
    caught_up: bool,
    /// Had nothing in this round of asking.
    dry: bool,
    /// What became of its rows.
    counts: Counts,
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
    /// Some source has partitions without end.
    live: bool,
    /// Disorder and longest silence by source.
    sources: Vec<(Micros, Option<Duration>)>,
    order: Order,
    /// Bytes read since the watermark moved.
    ahead: usize,
    last_cut: Option<Instant>,
    /// Longest silence without a tick; none for ever.
    beat: Option<Duration>,
    /// Nothing is under way behind the sources.
    idle: bool,
    /// Partitions that wait for their first tick.
    entered: Vec<(u32, u32, u64)>,
    tick: Tick,
    epoch: Epoch,
    epoch_rows: u64,
    epoch_since: Option<Instant>,
    watermark: EventTime,
    newest: EventTime,
    open: Option<OpenTick>,
    /// When it was last looked, all that was there had been read.
    all_read: bool,
    /// Recorded ticks to cut by, where the input is replayed.
    following: Option<Following>,
    ended: bool,
    counts: Vec<Counts>,
    /// Ends of epochs come with the reader's state.
    keep_states: bool,
    /// Epochs do not close now.
    hold_epochs: bool,
    /// The epoch is to be closed as soon as it may.
    close_epoch: bool,
    /// Time spent reading and decoding, by source.
    worked: Vec<Duration>,
    /// The next state holds all ids.
    whole: bool,
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
    /// Opens the sources of `plan` at their beginning.
    ///
    /// # Errors
    /// When a source cannot be opened.
    pub fn begin(plan: &Plan, reading: Reading, epochs: EpochPolicy) -> Result<Self, IngestError> {
        let open =
            |(index, source)| SourceReader::open(source, ReaderOptions { reading, ..ReaderOptions::of(plan, index) });
        let readers = plan.sources.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Self::new(plan, readers, epochs))
    }

    /// Prepares to read `readers`, one per source of `plan`, from their current positions.
    pub fn new(plan: &Plan, readers: Vec<SourceReader>, epochs: EpochPolicy) -> Self {
        let mut aligned = Self::without_lanes(plan, readers, epochs);
        let now = Instant::now();
        for source in 0..aligned.readers.len() {
            (0..aligned.readers[source].partitions()).for_each(|partition| aligned.add_lane(source, partition, now));
        }
        aligned
    }

    fn without_lanes(plan: &Plan, readers: Vec<SourceReader>, epochs: EpochPolicy) -> Self {
        let paces = paces(plan);
        let live = readers.iter().any(SourceReader::is_live);
        let idle_after = |source: usize| {
            let idle = plan.sources[source].idle_after.filter(|_| readers[source].is_live());
            idle.map(|idle| Duration::from_micros(idle.unsigned_abs()))
        };
        let sources = (0..readers.len()).map(|s| (plan.sources[s].disorder, idle_after(s))).collect();
        Aligned {
            paced: live || paces.iter().any(|pace| !matches!(pace, Pace::Max)),
            live,
            sources,
            order: plan.order,
            ahead: 0,
            last_cut: None,
            beat: None,
            idle: false,
            entered: Vec::new(),
            counts: vec![Counts::default(); readers.len()],
            names: plan.sources.iter().map(|s| s.name.clone()).collect(),
            readers,
            lanes: Vec::new(),
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
            all_read: false,
            following: None,
            ended: false,
            keep_states: false,
            hold_epochs: false,
            close_epoch: false,
            worked: vec![Duration::ZERO; plan.sources.len()],
            whole: false,
        }
    }

    /// Has `wake` called, from another thread, when a live partition that had nothing has something.
    pub fn wake_with(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        for reader in &self.readers {
            let wake = Arc::clone(&wake);
            reader.wake_with(Box::new(move || wake()));
        }
    }

    /// Looks at the sources' topics from outside.
    pub fn topic_watches(&self) -> Vec<TopicWatch> {
        self.readers.iter().filter_map(SourceReader::topic_watch).collect()
    }

    /// Cuts a tick at least this often while live sources are silent, for those who do something with every tick.
    pub fn beat_every(&mut self, beat: Duration) {
        self.beat = Some(beat);
    }

    /// Rows read, filtered, late and rejected so far, per source.
    pub fn counts(&self) -> &[Counts] {
        &self.counts
    }

    /// Numbers the next epoch.
    pub fn begin_with_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Has epochs not close, except at the end of the input, while `hold`.
    pub fn hold_epochs(&mut self, hold: bool) {
        self.hold_epochs = hold;
    }

    /// Has the epoch close with the next tick that may close one.
    pub fn close_epoch(&mut self) {
        self.close_epoch = true;
    }

    /// Time spent reading and decoding, by source.
    pub fn worked(&self) -> &[Duration] {
        &self.worked
    }

    /// The partitions as they stand.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView> {
        let holds = || self.lanes.iter().filter(|lane| !lane.done && !self.is_silent(lane));
        let is_ahead = self.live && self.order == Order::EventTime && self.ahead > AHEAD_BYTES_MAX;
        let lowest = holds().map(|lane| lane.watermark).min().filter(|_| is_ahead);
        self.lanes.iter().map(move |lane| LaneView {
            source: lane.source,
            partition: lane.partition,
            next_offset: lane.next_offset,
            watermark: lane.watermark,
            idle: !lane.done && self.is_silent(lane),
            paused: !lane.done && lowest.is_some_and(|lowest| lowest < lane.watermark),
            ended: lane.done,
        })
    }

    /// Tells whether nothing is under way behind the sources. Then live rows do not wait until their tick is due: it is cut
    /// when nothing more is there to be read, though no sooner after the last cut than a quarter of the interval.
    pub fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Reads until a tick is full or due.
    ///
    /// # Errors
    /// When a source cannot be read at all; bad rows are dead letters in the cut.
    pub fn next(&mut self, now: Instant) -> Result<Next, IngestError> {
        if self.ended {
            return Ok(Next::End);
        }
        if let Some(next) = self.follow_on(now)? {
            return Ok(next);
        }
        let gathered = self.is_gathering();
        if let Some(wait) = self.until_cut(now).filter(|wait| gathered && !wait.is_zero()) {
            return Ok(Next::Wait(wait.clamp(WAIT_MIN, WAIT_MAX)));
        }
        self.all_read = false;
        if self.open.is_none() {
            self.discover(now)?;
        }
        let entered = now;
        self.lanes.iter_mut().for_each(|lane| lane.dry = false);
        loop {
            // What is live does not wait for a long round to end.
            let now = if self.live { Instant::now() } else { now };
            let rows_left = match &self.open {
                Some(open) if self.is_full(open) => return Ok(self.cut(now, false)),
                // What has gathered goes with the tick that is due.
                Some(open) if self.is_due(open, now) && (!gathered || now > entered + self.interval()) => {
                    return Ok(self.cut(now, false));
                }
                Some(open) => self.policy.rows_max - open.rows as usize,
                None => self.policy.rows_max,
            };
            let (lane, allowed) = match self.pick(now) {
                Pick::Lane(lane, allowed) => (lane, allowed),
                Pick::Ended => return Ok(self.cut(now, true)),
                Pick::Wait if self.is_due_without_rows(now) => return Ok(self.cut(now, false)),
                Pick::Wait => {
                    self.all_read = self.lanes.iter().all(|lane| lane.done || (lane.dry && lane.caught_up));
                    let wait = match (self.until_cut(now), &self.open) {
                        (Some(wait), _) if wait.is_zero() => return Ok(self.cut(now, false)),
                        (Some(wait), _) => wait,
                        (None, Some(open)) => self.until_due(open, now),
                        (None, None) => self.interval(),
                    };
                    return Ok(Next::Wait(wait.clamp(WAIT_MIN, WAIT_MAX)));
                }
            };
            let alone = self.lanes.iter().filter(|lane| !lane.done).count() == 1;
            let chunk = if alone { rows_left } else { rows_left.min(CHUNK_ROWS) };
            self.read(lane, chunk.min(allowed), None, now)?;
        }
    }

    /// The lane to read next: the unfinished one with the lowest watermark; ties go to the first source and partition.
    fn pick(&mut self, now: Instant) -> Pick {
        loop {
            let open = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.done);
            let Some((index, watermark)) = open
                .clone()
                .filter(|(_, lane)| !lane.dry)
                .min_by_key(|(_, lane)| lane.watermark)
                .map(|(index, lane)| (index, lane.watermark))
            else {
                return if open.count() == 0 { Pick::Ended } else { Pick::Wait };
            };
            // Rows that are on their way from a partition further behind come first.
            let behind = |lane: &Lane| lane.dry && !lane.caught_up && lane.watermark < watermark;
            if self.lanes.iter().any(|lane| !lane.done && behind(lane)) {
                return Pick::Wait;
            }
            if self.live && self.order == Order::EventTime && self.ahead > AHEAD_BYTES_MAX {
                let holds = self.lanes.iter().filter(|lane| !lane.done && !self.is_silent(lane));
                if holds.map(|lane| lane.watermark).min().is_some_and(|lowest| lowest < watermark) {
                    return Pick::Wait;
                }
            }
            match self.paces[self.lanes[index].source].allowed(now, watermark) {
                0 if self.live => {
                    self.lanes[index].dry = true;
                    self.lanes[index].caught_up = true;
                }
                0 => return Pick::Wait,
                allowed => return Pick::Lane(index, allowed),
            }
        }
    }

    /// Enters the partitions of topics that are new.
    fn discover(&mut self, now: Instant) -> Result<(), IngestError> {
        for source in 0..self.readers.len() {
            for partition in self.readers[source].discover()? {
                self.enter(source, partition, now);
            }
        }
        Ok(())
    }

    /// A partition of a topic becomes a lane, behind whose beginning is what the watermark has passed.
    fn enter(&mut self, source: usize, partition: usize, now: Instant) {
        self.entered.push((source as u32, partition as u32, self.readers[source].next_offset(partition)));
        self.add_lane(source, partition, now);
        if self.watermark != EventTime::MIN {
            self.readers[source].raise_watermark(partition, self.watermark);
        }
    }

    fn add_lane(&mut self, source: usize, partition: usize, now: Instant) {
        let (disorder, idle_after) = self.sources[source];
        self.lanes.push(Lane {
            source,
            partition,
            watermark: EventTime::MIN,
            disorder,
            next_offset: self.readers[source].next_offset(partition),
            done: false,
            idle_after,
            newest: EventTime::MIN,
            heard: now,
            caught_up: false,
            dry: false,
            counts: Counts::default(),
        });
    }

    /// Closes the input now: what has been read is cut as the last tick. Rows that the watermark has not reached are not
    /// complete, since other partitions stand before them: they are released no more. While recorded ticks are followed
    /// after which the input goes on, there is no last tick, since all of theirs are in the log: it ends as it is.
    pub fn stop(&mut self, now: Instant) -> Next {
        if self.must_follow() {
            self.ended = true;
        }
        if self.ended { Next::End } else { self.cut(now, true) }
    }

    /// Closes the input now, and has time go to its end: as where all input has ended, everything is complete, and nothing can
    /// be read behind it. Recorded ticks that are followed come first.
    ///
    /// # Errors
    /// When a source cannot be read at all, of recorded ticks.
    pub fn drain(&mut self, now: Instant) -> Result<Next, IngestError> {
        if self.ended {
            return Ok(Next::End);
        }
        if let Some(next) = self.follow_on(now)? {
            return Ok(next);
        }
        let close = Close { last: true, watermark: EventTime::MAX, epoch_end: true, replayed: false };
        Ok(self.emit(now, close, &[]))
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

    /// Time until an open tick is due.
    fn until_due(&self, open: &OpenTick, now: Instant) -> Duration {
        self.interval().saturating_sub(now.saturating_duration_since(open.since))
    }

    /// Whether a live tick waits to be cut though all that was there is read. New rows need not be told of meanwhile.
    pub fn is_gathering(&self) -> bool {
        self.all_read && self.live && self.open.as_ref().is_some_and(|open| open.rows > 0)
    }

    /// Time until a live tick that has rows may be cut. Sooner, where that nothing is under way is told in between.
    fn until_cut(&self, now: Instant) -> Option<Duration> {
        let due = self.until_due(self.open.as_ref().filter(|open| self.live && open.rows > 0)?, now);
        Some(if self.idle { due.min(self.until_early(now)) } else { due })
    }

    /// Time until a tick may be cut before it is due.
    fn until_early(&self, now: Instant) -> Duration {
        let since = self.last_cut.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        (self.interval() / 4).saturating_sub(since)
    }

    /// Whether a tick is due although nothing has been read: silence moves the watermark, or an epoch is to be closed.
    fn is_due_without_rows(&self, now: Instant) -> bool {
        if !self.live || self.open.is_some() {
            return false;
        }
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let epoch_due = self.epoch_rows > 0 && since(self.epoch_since) >= self.epochs.interval;
        let epoch_open = !self.hold_epochs && (epoch_due || self.close_epoch);
        let beat = self.beat.is_some_and(|beat| since(self.last_cut) >= beat);
        epoch_open || beat || (since(self.last_cut) >= SILENT_TICK && self.progress().watermark > self.watermark)
    }

    fn read(&mut self, index: usize, rows: usize, until: Option<u64>, now: Instant) -> Result<(), IngestError> {
        let lane = &mut self.lanes[index];
        let started = Instant::now();
        let polled = self.readers[lane.source].poll(lane.partition, rows, until);
        self.worked[lane.source] += started.elapsed();
        let decoded = match polled? {
            Polled::Rows(decoded) => *decoded,
            Polled::Nothing { caught_up } => {
                (lane.dry, lane.caught_up) = (true, caught_up);
                return Ok(());
            }
            Polled::End => {
                lane.done = true;
                return Ok(());
            }
        };
        (lane.heard, lane.caught_up) = (now, false);
        lane.watermark = lane.watermark.max(decoded.watermark);
        lane.next_offset = decoded.next_offset;
        let newest = match decoded.watermark {
            EventTime::MIN => EventTime::MIN,
            watermark => watermark.saturating_add(lane.disorder),
        };
        lane.newest = lane.newest.max(newest);
        self.newest = self.newest.max(newest);
        self.paces[lane.source].consumed(decoded.rows_read, newest, now);
        self.counts[lane.source].add(&decoded.counts);
        lane.counts.add(&decoded.counts);
        self.ahead += decoded.bytes;
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
        let Progress { watermark, clock, idle } = self.progress();
        // Watermarks never go back.
        let watermark = self.watermark.max(watermark);
        if let Some(clock) = clock {
            self.newest = self.newest.max(clock);
        }
        let rows = self.epoch_rows + self.open.as_ref().map_or(0, |open| open.rows);
        let since = self.epoch_since.unwrap_or(now);
        let timed = self.paced || self.epochs.timed;
        let due = rows >= self.epochs.rows || (timed && now.saturating_duration_since(since) >= self.epochs.interval);
        let epoch_end = last || ((due || self.close_epoch) && !self.hold_epochs);
        self.emit(now, Close { last, watermark, epoch_end, replayed: false }, &idle)
    }

    fn emit(&mut self, now: Instant, close: Close, idle: &[usize]) -> Next {
        let Close { last, watermark, epoch_end, replayed } = close;
        let open = self.open.take().unwrap_or_else(|| OpenTick::new(now));
        self.epoch_since.get_or_insert(now);
        self.epoch_rows += open.rows;
        if epoch_end {
            self.close_epoch = false;
            self.epoch_rows = 0;
            self.epoch_since = None;
        }
        let previous_watermark = std::mem::replace(&mut self.watermark, watermark);
        if watermark > previous_watermark {
            self.ahead = 0;
        }
        self.last_cut = Some(now);
        for &index in idle {
            // What has been let go of is let go of: its rows from before are late, in every replay alike.
            let lane = &mut self.lanes[index];
            lane.watermark = lane.watermark.max(watermark);
            self.readers[lane.source].raise_watermark(lane.partition, watermark);
        }
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
        let (state, dedup) = match self.keep_states && epoch_end {
            true => (Some(Box::new(self.state(info.tick))), self.take_ids()),
            false => (None, Vec::new()),
        };
        let place = |&index: &usize| (self.lanes[index].source as u32, self.lanes[index].partition as u32);
        Next::Cut(Box::new(Cut {
            info,
            offsets: self.offsets(),
            entered: std::mem::take(&mut self.entered),
            idle: idle.iter().map(place).collect(),
            commands: Vec::new(),
            batches: open.batches,
            dead: open.dead,
            rows: open.rows,
            replayed,
            state,
            dedup,
        }))
    }
}

/// How a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Its source, by index.
    pub source: usize,
    /// Its number in the source.
    pub partition: usize,
    /// Offset of the first row that was not read.
    pub next_offset: u64,
    /// What it holds the job's watermark at; `i64::MIN` before its first row.
    pub watermark: EventTime,
    /// It is silent and holds nothing back.
    pub idle: bool,
    /// It is not read because it is too far ahead of others in event time.
    pub paused: bool,
    /// Its end has been read.
    pub ended: bool,
}

/// How a tick is closed.
struct Close {
    last: bool,
    watermark: EventTime,
    epoch_end: bool,
    replayed: bool,
}

fn paces(plan: &Plan) -> Vec<Pace> {
    plan.sources.iter().map(|source| Pace::of(&source.connector)).collect()
}

/// What [`Aligned::pick`] decided.
enum Pick {
    /// Read this lane, by so many rows at most.
    Lane(usize, usize),
    /// Nothing can be read now.
    Wait,
    /// All lanes have ended.
    Ended,
}

impl OpenTick {
    fn new(since: Instant) -> Self {
        OpenTick { since, batches: Vec::new(), dead: Vec::new(), rows: 0, bytes: 0 }
    }
}

//! The reader's state at an epoch's end: what a restart needs to go on as if nothing had been.
//!
//! The reader is some ticks ahead of the graph, so the state is taken with the cut that it belongs to. It is JSON with
//! named sources; ids for finding duplicates, which may be many, go beside it as bytes.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Aligned, EpochPolicy};
use crate::base::{Epoch, EventTime, Micros, Tick, wall_clock};
use crate::ingest::{
    AheadState, Counts, DedupDelta, FileState, IngestError, Polled, ReaderOptions, Reading, SourceReader,
};
use crate::plan::model::{Connector, Plan, SourcePlan};

/// The version of [`AlignedState`] that this program writes and reads.
const VERSION: u32 = 1;

/// Where the sources stand after a tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignedState {
    /// Version of this form.
    pub version: u32,
    /// The last tick that is in the state, its epoch's last.
    pub tick: Tick,
    /// The epoch that would have come next.
    pub next_epoch: Epoch,
    /// Rows with an event time before this are complete; `i64::MAX` when all input had ended.
    pub watermark: EventTime,
    /// The newest event time seen, or that silence has moved the job's clock to.
    pub newest: EventTime,
    /// Bytes read since the watermark moved.
    pub ahead_bytes: u64,
    /// The sources, in the order of the dataflow file.
    pub sources: Vec<SourceState>,
}

/// Where one source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceState {
    /// Name of the source.
    pub name: String,
    /// Its partitions, in their order.
    pub partitions: Vec<PartitionState>,
    /// How far duplicates over several partitions are decided, by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<AheadState>,
}

/// Where one partition stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionState {
    /// Its place among the partitions of all sources, which decides ties.
    pub lane: u32,
    /// Offset of the first row that was not read.
    pub next_offset: u64,
    /// What it holds the job's watermark at.
    pub watermark: EventTime,
    /// Rows before this are late.
    pub late_before: EventTime,
    /// Newest event time seen.
    pub newest: EventTime,
    /// Its end has been read.
    pub done: bool,
    /// Wall time at which rows last came, in microseconds; of live partitions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<EventTime>,
    /// What became of its rows, dead letters by kind among it.
    pub counts: Counts,
    /// The file that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileState>,
}

impl AlignedState {
    /// Whether all input had ended: a job that resumes has nothing more to read.
    pub fn ended(&self) -> bool {
        self.watermark == EventTime::MAX
    }

    /// Whether the job was drained: time went to its end before the input did. Nothing can be read behind it.
    pub fn drained(&self) -> bool {
        self.ended() && self.sources.iter().flat_map(|source| &source.partitions).any(|partition| !partition.done)
    }

    /// A source's state.
    pub fn source(&self, name: &str) -> Option<&SourceState> {
        self.sources.iter().find(|source| source.name == name)
    }
}

impl SourceState {
    /// What became of its rows.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.partitions.iter().for_each(|partition| counts.add(&partition.counts));
        counts
    }
}

impl Aligned {
    /// Has every cut that ends an epoch carry the reader's state. Ids for finding duplicates are those since the state
    /// before, or since the call; a job that begins must call it before it reads.
    pub fn keep_states(&mut self, keep: bool) {
        self.keep_states = keep;
        self.readers.iter_mut().for_each(|reader| reader.keep_ids(keep));
    }

    /// Has the next state hold all ids rather than those since the state before.
    pub fn next_state_whole(&mut self) {
        self.whole = true;
    }

    /// The state after a tick.
    pub(super) fn state(&self, tick: Tick) -> AlignedState {
        let (wall, now) = (wall_clock(), Instant::now());
        let sources = self.readers.iter().zip(&self.names).map(|(reader, name)| SourceState {
            name: name.clone(),
            partitions: Vec::with_capacity(reader.partitions()),
            ahead: reader.ahead(),
        });
        let mut sources: Vec<SourceState> = sources.collect();
        // Partitions of a source are entered in their order.
        for (number, lane) in self.lanes.iter().enumerate() {
            let reader = &self.readers[lane.source];
            sources[lane.source].partitions.push(PartitionState {
                lane: number as u32,
                next_offset: lane.next_offset,
                watermark: lane.watermark,
                late_before: reader.watermark(lane.partition),
                newest: lane.newest,
                done: lane.done,
                heard: lane.idle_after.map(|_| wall - now.saturating_duration_since(lane.heard).as_micros() as Micros),
                counts: lane.counts.clone(),
                file: reader.file(lane.partition).cloned(),
            });
        }
        AlignedState {
            version: VERSION,
            tick,
            next_epoch: self.epoch,
            watermark: self.watermark,
            newest: self.newest,
            ahead_bytes: self.ahead as u64,
            sources,
        }
    }

    /// The ids that belong to the state.
    pub(super) fn take_ids(&mut self) -> Vec<DedupDelta> {
        let whole = std::mem::take(&mut self.whole);
        self.readers.iter_mut().flat_map(|reader| reader.take_ids(whole)).collect()
    }

    /// Opens the sources of `plan` where `state` says that they stand, and goes on from there with epoch `epoch`. `dedup`
    /// are the ids saved up to the state: the last whole ones first, then those that came after, in their order.
    ///
    /// A source that the state does not know is read from its beginning, where rows before the state's watermark are late.
    ///
    /// # Errors
    /// When a source cannot be opened; when the state has a source that the plan has not; when a file is not there, is not
    /// at its place among the files, or has another length; when ids are damaged.
    pub fn resume(
        plan: &Plan,
        reading: Reading,
        epochs: EpochPolicy,
        epoch: Epoch,
        state: &AlignedState,
        dedup: impl IntoIterator<Item = DedupDelta>,
    ) -> Result<Aligned, IngestError> {
        check(plan, state)?;
        let mut readers = Vec::with_capacity(plan.sources.len());
        for (index, source) in plan.sources.iter().enumerate() {
            let mut options = ReaderOptions { reading, ..ReaderOptions::of(plan, index) };
            if let Some(saved) = state.source(&source.name) {
                same_files(source, saved)?;
                options.resume = Some(saved.partitions.iter().map(|partition| partition.next_offset).collect());
                options.ahead.clone_from(&saved.ahead);
            }
            readers.push(SourceReader::open(source, options)?);
        }
        let mut aligned = Self::without_lanes(plan, readers, epochs);
        (aligned.tick, aligned.epoch) = (state.tick + 1, epoch);
        (aligned.watermark, aligned.newest) = (state.watermark, state.newest);
        aligned.ahead = state.ahead_bytes as usize;
        aligned.ended = state.ended();
        aligned.restore_lanes(plan, state)?;
        for delta in dedup {
            let source = aligned.names.iter().position(|name| *name == delta.source).ok_or_else(|| {
                IngestError::Checkpoint { what: format!("there are ids of source `{}`, which is none", delta.source) }
            })?;
            aligned.readers[source].load_ids(&delta)?;
        }
        Ok(aligned)
    }

    /// Whether the sources of `plan` are those that `state` is of.
    ///
    /// # Errors
    /// When they are not: a source is missing, or a file is gone or has another length.
    pub fn same_input(plan: &Plan, state: &AlignedState) -> Result<(), IngestError> {
        check(plan, state)?;
        let mut sources = plan.sources.iter().filter_map(|source| Some((source, state.source(&source.name)?)));
        sources.try_for_each(|(source, saved)| same_files(source, saved))
    }

    /// Whether all input had ended when the state was saved that this goes on from: there is nothing to be read.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Has one more tick cut, without rows, where all input [has ended](Aligned::has_ended): so that operators tell again what
    /// was lost of what they had told.
    pub fn once_more(&mut self) {
        if self.lanes.iter().all(|lane| lane.done) {
            self.ended = false;
        }
    }

    /// Where a topic has messages that nobody reads, in words, when the input [has ended](Aligned::has_ended). Waits for slow
    /// brokers, so long at most. Nothing can be read behind it.
    ///
    /// # Errors
    /// When a topic cannot be read at all.
    pub fn unread(&mut self, patience: Duration) -> Result<Option<String>, IngestError> {
        let deadline = Instant::now() + patience;
        for (reader, name) in self.readers.iter_mut().zip(&self.names).filter(|(reader, _)| reader.is_topic()) {
            reader.discover()?;
            for partition in 0..reader.partitions() {
                let next = reader.next_offset(partition);
                loop {
                    match reader.poll(partition, 1, None)? {
                        Polled::Rows(_) => {
                            return Ok(Some(format!(
                                "source `{name}`: partition {partition} has messages from offset {next} on that were not read"
                            )));
                        }
                        Polled::Nothing { caught_up: false } if Instant::now() < deadline => {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        Polled::Nothing { .. } | Polled::End => break,
                    }
                }
            }
        }
        Ok(None)
    }

    fn restore_lanes(&mut self, plan: &Plan, state: &AlignedState) -> Result<(), IngestError> {
        let (wall, now) = (wall_clock(), Instant::now());
        let mut places: Vec<(usize, usize, &PartitionState)> = Vec::new();
        for (source, name) in plan.sources.iter().map(|source| &source.name).enumerate() {
            let partitions = state.source(name).map(|saved| saved.partitions.as_slice()).unwrap_or_default();
            places.extend(partitions.iter().enumerate().map(|(number, partition)| (source, number, partition)));
        }
        places.sort_by_key(|(_, _, partition)| partition.lane);
        for (source, number, saved) in places {
            let reader = &mut self.readers[source];
            if reader.partitions() == number {
                reader.enter(saved.next_offset)?;
            }
            reader.raise_watermark(number, saved.late_before);
            // The end of a topic that is now read live was that of another way of reading it.
            let reopened = saved.done && reader.is_live();
            if reopened {
                reader.raise_watermark(number, state.watermark);
            }
            self.add_lane(source, number, now);
            self.counts[source].add(&saved.counts);
            if let Some(lane) = self.lanes.last_mut() {
                lane.watermark = saved.watermark;
                lane.newest = saved.newest;
                lane.done = saved.done && !reopened;
                lane.counts = saved.counts.clone();
                let silent = saved.heard.map_or(0, |heard| wall.saturating_sub(heard).max(0));
                let silent = Duration::from_micros(silent.unsigned_abs());
                lane.heard = now.checked_sub(silent).unwrap_or(now);
            }
        }
        // Sources that the state does not know; a new topic's partitions are discovered.
        for (source, name) in plan.sources.iter().map(|source| &source.name).enumerate() {
            if state.source(name).is_none() {
                for partition in 0..self.readers[source].partitions() {
                    self.add_lane(source, partition, now);
                    self.readers[source].raise_watermark(partition, state.watermark);
                }
            }
        }
        Ok(())
    }
}

fn check(plan: &Plan, state: &AlignedState) -> Result<(), IngestError> {
    let refuse = |what: String| Err(IngestError::Checkpoint { what });
    if state.version != VERSION {
        return refuse(format!("they are of version {}; this program reads version {VERSION}", state.version));
    }
    for saved in &state.sources {
        let name = &saved.name;
        if !plan.sources.iter().any(|source| source.name == *name) {
            return refuse(format!("they have source `{name}`, which the dataflow file has not; put it back"));
        }
        if state.sources.iter().filter(|source| source.name == *name).count() > 1 {
            return refuse(format!("they have source `{name}` twice"));
        }
        if !saved.partitions.is_sorted_by(|a, b| a.lane < b.lane) {
            return refuse(format!("the partitions of source `{name}` are not in their order"));
        }
    }
    Ok(())
}

/// Files are recognised by their names and lengths, in their order.
fn same_files(plan: &SourcePlan, saved: &SourceState) -> Result<(), IngestError> {
    let Connector::File(connector) = &plan.connector else { return Ok(()) };
    let (had, has) = (saved.partitions.len(), connector.files.len());
    let name = |path: &std::path::PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refuse = |what: String| Err(IngestError::source(&plan.name, what));
    for (number, partition) in saved.partitions.iter().enumerate() {
        let Some(file) = &partition.file else {
            return refuse("it was no file; put its connector back".into());
        };
        match connector.files.get(number) {
            Some(path) if name(path) == file.name => {
                let error = |error| IngestError::Open { source_name: plan.name.clone(), path: path.clone(), error };
                let bytes = std::fs::metadata(path).map_err(error)?.len();
                if bytes != file.bytes {
                    return refuse(format!(
                        "{} had {} bytes and now has {bytes}; put the file back as it was",
                        path.display(),
                        file.bytes
                    ));
                }
            }
            _ if !connector.files.iter().any(|path| name(path) == file.name) => {
                let what = format!(
                    "it had {had} partitions and now has {has}; put the files back: `{}` is not there",
                    file.name
                );
                return refuse(what);
            }
            _ => {
                return refuse(format!(
                    "it had {had} partitions and now has {has}; put the files back: `{}` was its partition {number} and is no more, since others have come before it",
                    file.name
                ));
            }
        }
    }
    Ok(())
}

//! Finds the duplicates of a source of several partitions ahead of its reader.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Id, Kept, ids};
use crate::base::{EventTime, Micros};
use crate::ingest::IngestError;
use crate::ingest::checks::{Checked, Checks};
use crate::ingest::file::RawReader;
use crate::ingest::lateness::Lateness;

/// Raw rows that the look-ahead decodes at a time; few in tests, so that it stands anywhere.
const AHEAD_ROWS: usize = if cfg!(test) { 16 } else { 8_192 };

/// How far the look-ahead for duplicates has decided about a partition's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AheadState {
    /// Offset of the first row about which nothing is decided.
    pub next_offset: u64,
    /// The partition's watermark as of just before that row.
    pub watermark: EventTime,
    /// Rows before it that are duplicates and were not read yet: offset, and time of the row that was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<(u64, EventTime)>,
}

/// A duplicate: its offset and the time of the row that was kept.
pub(crate) type Duplicate = (u64, EventTime);

/// Finds the duplicates of a source of several partitions: reads ahead of the reader, in the order of the alignment.
///
/// It has readers of its own, so that nothing of what the reader hands on depends on how far ahead this has been.
pub(crate) struct Scout {
    checks: Arc<Checks>,
    id: usize,
    kept: Kept,
    partitions: Vec<Ahead>,
    source: String,
}

struct Ahead {
    raw: Box<dyn RawReader>,
    lateness: Lateness,
    /// Offset of the first raw row that is not decoded.
    next_offset: u64,
    ended: bool,
    /// Decoded rows that are not decided, in their order.
    pending: VecDeque<Pending>,
    /// Duplicates found and not yet asked for, in the order of their offsets.
    duplicates: VecDeque<Duplicate>,
}

struct Pending {
    /// The partition's watermark as of just before the row.
    before: EventTime,
    offset: u64,
    time: EventTime,
    id: Id,
}

impl Scout {
    pub(crate) fn new(
        source: &str,
        checks: Arc<Checks>,
        id: usize,
        horizon: Micros,
        partitions: Vec<(Box<dyn RawReader>, Lateness, u64)>,
    ) -> Scout {
        let partitions = partitions.into_iter().map(|(raw, lateness, next_offset)| Ahead {
            raw,
            lateness,
            next_offset,
            ended: false,
            pending: VecDeque::new(),
            duplicates: VecDeque::new(),
        });
        Scout { checks, id, kept: Kept::new(horizon), partitions: partitions.collect(), source: source.into() }
    }

    /// The ids of kept rows.
    pub(crate) fn kept(&mut self) -> &mut Kept {
        &mut self.kept
    }

    /// How far it has decided, by partition. Rows that are decoded and not decided will be decoded anew.
    pub(crate) fn state(&self) -> Vec<AheadState> {
        let state = |ahead: &Ahead| {
            let undecided = ahead.pending.front().map(|row| (row.offset, row.before));
            let (next_offset, watermark) = undecided.unwrap_or((ahead.next_offset, ahead.lateness.watermark()));
            AheadState { next_offset, watermark, duplicates: ahead.duplicates.iter().copied().collect() }
        };
        self.partitions.iter().map(state).collect()
    }

    /// Goes on from a state, given that it was made with readers at the state's offsets.
    pub(crate) fn restore(&mut self, state: &[AheadState]) {
        for (ahead, state) in self.partitions.iter_mut().zip(state) {
            ahead.lateness.raise(state.watermark);
            ahead.duplicates = state.duplicates.iter().copied().collect();
        }
    }

    /// Forgets the ids that no undecided row can duplicate.
    pub(crate) fn forget(&mut self) {
        if let Some(low) = self.low() {
            self.kept.advance(low);
        }
    }

    /// The duplicates of a partition below offset `until` that were not returned before.
    pub(crate) fn duplicates(&mut self, partition: usize, until: u64) -> Result<Vec<Duplicate>, IngestError> {
        while self.partitions[partition].next_offset < until && !self.partitions[partition].ended {
            self.decode(partition)?;
        }
        let wanted = self.partitions[partition].pending.iter().take_while(|row| row.offset < until).last();
        if let Some(target) = wanted.map(|row| (row.before, partition)) {
            for other in 0..self.partitions.len() {
                // Whatever an undecoded row is, its watermark is the partition's.
                while !self.partitions[other].ended && (self.partitions[other].lateness.watermark(), other) < target {
                    self.decode(other)?;
                }
            }
            self.decide(partition, until);
        }
        let found = &mut self.partitions[partition].duplicates;
        let count = found.partition_point(|(offset, _)| *offset < until);
        Ok(found.drain(..count).collect())
    }

    fn decode(&mut self, partition: usize) -> Result<(), IngestError> {
        let ahead = &mut self.partitions[partition];
        let Some(mut chunk) = ahead.raw.read(AHEAD_ROWS)? else {
            ahead.ended = true;
            return Ok(());
        };
        ahead.next_offset = chunk.next_offset;
        let mut lateness = ahead.lateness;
        let internal = |e| IngestError::internal(&self.source, e);
        let Checked { rows, .. } =
            self.checks.run(&mut chunk, partition as u16, &mut ahead.lateness).map_err(internal)?;
        let ids = ids(rows.batch.column(self.id)).map_err(internal)?;
        for (row, id) in ids.into_iter().enumerate() {
            let Some(time) = rows.time(row) else { continue };
            let (before, offset) = (lateness.watermark(), chunk.offsets.get(rows.place(row)));
            lateness.observe(&[time]);
            ahead.pending.push_back(Pending { before, offset, time, id });
        }
        Ok(())
    }

    /// Decides rows in the order of the alignment until those of `partition` below `until` are decided.
    fn decide(&mut self, partition: usize, until: u64) {
        let fronts = self.partitions.iter().enumerate();
        let fronts = fronts.filter_map(|(p, ahead)| ahead.pending.front().map(|row| Reverse((row.before, p))));
        let mut heap: BinaryHeap<_> = fronts.collect();
        while let Some(Reverse((_, p))) = heap.pop() {
            let ahead = &mut self.partitions[p];
            let Some(row) = ahead.pending.pop_front() else { continue };
            if let Some(kept) = self.kept.offer(row.id, row.time) {
                ahead.duplicates.push_back((row.offset, kept));
            }
            let next = ahead.pending.front();
            // No further: behind the last row that is wanted, others may lack rows that are not decoded yet.
            if p == partition && next.is_none_or(|next| next.offset >= until) {
                break;
            }
            if let Some(next) = next {
                heap.push(Reverse((next.before, p)));
            }
        }
        self.forget();
    }

    /// A row not yet decided is at or after its own partition's watermark as of just before it.
    fn low(&self) -> Option<EventTime> {
        let low = self.partitions.iter().filter_map(|ahead| match ahead.pending.front() {
            Some(row) => Some(row.before),
            None if ahead.ended => None,
            None => Some(ahead.lateness.watermark()),
        });
        low.min()
    }
}

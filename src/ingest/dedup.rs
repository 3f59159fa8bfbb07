//! Duplicates: a row is one when a row of the same id was kept whose event time is within the horizon, before or after.
//!
//! *Kept* is asked in one order that depends on no cut into reads: always the partition with the lowest watermark goes on, by
//! one row, the first such partition where several are equal; that is the order in which aligned sources are read.
//! Duplicates do not extend the horizon, only kept rows count. Rows without an id are never duplicates.
//!
//! State: the ids of kept rows, by generations of event time as long as the horizon. A generation holds at most one row per
//! id, so a row is compared with at most three. A generation is dropped, whole, when the watermark has passed it by the
//! horizon: the state is bounded by the ids of twice the horizon plus the disorder.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::IngestError;
use super::checks::{Checked, Checks};
use super::file::RawReader;
use super::lateness::Lateness;
use crate::base::{EventTime, Micros};

/// Raw rows that the look-ahead decodes at a time.
const AHEAD_ROWS: usize = 8_192;

/// The ids of kept rows.
#[derive(Debug)]
pub(crate) struct Kept {
    horizon: Micros,
    words: Generations<u64>,
    texts: Generations<Box<str>>,
}

#[derive(Debug)]
struct Generations<K>(BTreeMap<i64, HashMap<K, EventTime>>);

/// An id in a form that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Id {
    None,
    Word(u64),
    Text(Box<str>),
}

impl Kept {
    pub(crate) fn new(horizon: Micros) -> Kept {
        Kept { horizon, words: Generations(BTreeMap::new()), texts: Generations(BTreeMap::new()) }
    }

    /// Keeps a row, or returns the time of the kept row that it duplicates.
    pub(crate) fn offer(&mut self, id: Id, time: EventTime) -> Option<EventTime> {
        match id {
            Id::None => None,
            Id::Word(word) => self.words.offer(word, time, self.horizon),
            Id::Text(text) => self.texts.offer(text, time, self.horizon),
        }
    }

    /// Forgets what rows at or after `watermark` cannot duplicate.
    pub(crate) fn advance(&mut self, watermark: EventTime) {
        self.words.advance(watermark, self.horizon);
        self.texts.advance(watermark, self.horizon);
    }

    /// Number of ids held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let (words, texts) = (self.words.0.values(), self.texts.0.values());
        words.map(HashMap::len).sum::<usize>() + texts.map(HashMap::len).sum::<usize>()
    }
}

impl<K: Hash + Eq> Generations<K> {
    /// Times of one generation differ by less than `width`, hence by no more than the horizon.
    fn width(horizon: Micros) -> Micros {
        horizon.saturating_add(1)
    }

    fn offer(&mut self, key: K, time: EventTime, horizon: Micros) -> Option<EventTime> {
        let generation = time.div_euclid(Self::width(horizon));
        for near in generation - 1..=generation + 1 {
            let found = self.0.get(&near).and_then(|ids| ids.get(&key));
            if let Some(kept) = found.filter(|kept| kept.abs_diff(time) <= horizon.unsigned_abs()) {
                return Some(*kept);
            }
        }
        self.0.entry(generation).or_default().insert(key, time);
        None
    }

    fn advance(&mut self, watermark: EventTime, horizon: Micros) {
        let past = watermark.saturating_sub(horizon);
        while let Some(first) = self.0.first_entry() {
            let end = (first.key() + 1).saturating_mul(Self::width(horizon));
            if end > past {
                return;
            }
            first.remove();
        }
    }
}

/// Whether a column can be an `id`.
pub(crate) fn can_be_id(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Timestamp(_, _) | DataType::Date32) || data_type.is_integer()
}

/// The ids in a column for which [`can_be_id`] holds.
pub(crate) fn ids(column: &ArrayRef) -> Result<Vec<Id>, ArrowError> {
    let valid = |row: usize, id: Id| if column.is_valid(row) { id } else { Id::None };
    Ok(match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            (0..texts.len()).map(|row| valid(row, Id::Text(texts.value(row).into()))).collect()
        }
        DataType::UInt64 => {
            let words = column.as_primitive::<UInt64Type>().values();
            words.iter().enumerate().map(|(row, word)| valid(row, Id::Word(*word))).collect()
        }
        other => {
            // Dates are days in 32 bits, which only widen by way of their numbers.
            let plain = if *other == DataType::Date32 { cast(column, &DataType::Int32)? } else { column.clone() };
            let words = cast(&plain, &DataType::Int64)?;
            let words = words.as_primitive::<Int64Type>().values();
            words.iter().enumerate().map(|(row, word)| valid(row, Id::Word(word.cast_unsigned()))).collect()
        }
    })
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

    pub(crate) fn raise(&mut self, partition: usize, watermark: EventTime) {
        self.partitions[partition].lateness.raise(watermark);
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
            let Some(row) = ahead.pending.front() else { continue };
            if p == partition && row.offset >= until {
                break;
            }
            let Some(row) = ahead.pending.pop_front() else { continue };
            if let Some(kept) = self.kept.offer(row.id, row.time) {
                ahead.duplicates.push_back((row.offset, kept));
            }
            match ahead.pending.front() {
                Some(next) => heap.push(Reverse((next.before, p))),
                // The rest of that partition comes later in the order than anything wanted now, by what was decoded.
                None if p == partition => break,
                None => {}
            }
        }
        // A row not yet decided is at or after its own partition's watermark as of just before it.
        let low = self.partitions.iter().filter_map(|ahead| match ahead.pending.front() {
            Some(row) => Some(row.before),
            None if ahead.ended => None,
            None => Some(ahead.lateness.watermark()),
        });
        if let Some(low) = low.min() {
            self.kept.advance(low);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int32Array, StringArray};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_definition(
            rows in prop::collection::vec((0u64..4, -30i64..30), 0..80),
            horizon in 0i64..12,
            text in any::<bool>(),
        ) {
            let mut kept = Kept::new(horizon);
            let mut naive: Vec<(u64, i64)> = Vec::new();
            for (id, time) in rows {
                let found = naive.iter().any(|(i, t)| *i == id && (t - time).abs() <= horizon);
                let key = if text { Id::Text(id.to_string().into()) } else { Id::Word(id) };
                prop_assert_eq!(kept.offer(key, time).is_some(), found);
                if !found {
                    naive.push((id, time));
                }
            }
        }

        #[test]
        fn forgetting_changes_nothing_for_rows_in_time(
            rows in prop::collection::vec((0u64..4, 0i64..10), 0..80),
            horizon in 0i64..12,
        ) {
            let (mut kept, mut forgetful) = (Kept::new(horizon), Kept::new(horizon));
            for (step, (id, early)) in rows.into_iter().enumerate() {
                let watermark = step as i64 * 3;
                prop_assert_eq!(kept.offer(Id::Word(id), watermark + early), forgetful.offer(Id::Word(id), watermark + early));
                forgetful.advance(watermark);
            }
            prop_assert!(forgetful.len() <= 4 * 4 + 10);
        }
    }

    #[test]
    fn the_ends_of_the_horizon() {
        let mut kept = Kept::new(10);
        assert_eq!(kept.offer(Id::Word(1), 100), None);
        assert_eq!(kept.offer(Id::Word(1), 110), Some(100));
        assert_eq!(kept.offer(Id::Word(1), 90), Some(100));
        assert_eq!(kept.offer(Id::Word(1), 111), None);
        assert_eq!(kept.offer(Id::None, 111), None);
        assert_eq!(kept.offer(Id::None, 111), None);
        kept.advance(1_000);
        assert_eq!(kept.len(), 0);
        let mut forever = Kept::new(i64::MAX);
        assert_eq!(
            (forever.offer(Id::Word(1), i64::MIN / 2), forever.offer(Id::Word(1), 5)),
            (None, Some(i64::MIN / 2))
        );
    }

    #[test]
    fn ids_of_every_type() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(-1), None]));
        assert_eq!(ids(&ints).unwrap(), [Id::Word(u64::MAX), Id::None]);
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![7]));
        assert_eq!(ids(&dates).unwrap(), [Id::Word(7)]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None]));
        assert_eq!(ids(&texts).unwrap(), [Id::Text("".into()), Id::None]);
    }
}

//! Rows on their way through the checks: a batch that remembers where each row stood in the raw chunk.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{filter, filter_record_batch};
use arrow::error::ArrowError;

use super::dead_letter::{DeadLetter, DeadLetterKind};
use super::decode::{Offsets, RawChunk};
use crate::base::{EventTime, Ord64, Position};

/// A row that a check turned away: its place in the batch, and why.
#[derive(Debug, PartialEq)]
pub(crate) struct Bad {
    pub row: usize,
    pub kind: DeadLetterKind,
    pub reason: String,
}

/// The rows that are still in the running.
pub(crate) struct Rows {
    /// Their columns: the source's, then the derived ones once they are computed.
    pub batch: RecordBatch,
    /// Their event times, once they are known; never null.
    pub times: Option<TimestampMicrosecondArray>,
    /// Their places in the raw chunk; `None` while no row has been taken out.
    places: Option<Vec<u32>>,
}

impl Rows {
    pub(crate) fn new(batch: RecordBatch) -> Rows {
        Rows { batch, times: None, places: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The place of a row in the raw chunk.
    pub(crate) fn place(&self, row: usize) -> usize {
        self.places.as_ref().map_or(row, |places| places[row] as usize)
    }

    pub(crate) fn time(&self, row: usize) -> Option<EventTime> {
        self.times.as_ref().map(|times| times.value(row))
    }

    /// Keeps the rows whose bit is set.
    pub(crate) fn keep(&mut self, bits: BooleanBuffer) -> Result<(), ArrowError> {
        let places = match &self.places {
            None => bits.set_indices().map(|row| row as u32).collect(),
            Some(places) => bits.set_indices().map(|row| places[row]).collect(),
        };
        self.places = Some(places);
        let mask = BooleanArray::new(bits, None);
        self.batch = filter_record_batch(&self.batch, &mask)?;
        if let Some(times) = &self.times {
            let times: ArrayRef = filter(times, &mask)?;
            self.times = Some(TimestampMicrosecondArray::from(times.to_data()));
        }
        Ok(())
    }

    /// Takes the bad rows out and writes their letters. `bad` is in the order of the rows; of several findings on one row
    /// the first counts.
    pub(crate) fn reject(&mut self, bad: Vec<Bad>, chunk: &RawChunk, letters: &mut Letters) -> Result<(), ArrowError> {
        if bad.is_empty() {
            return Ok(());
        }
        let mut keep = vec![true; self.len()];
        for Bad { row, kind, reason } in bad {
            if std::mem::replace(&mut keep[row], false) {
                let place = self.place(row);
                letters.push(kind, reason, chunk.offsets.get(place), self.time(row), chunk.original(place));
            }
        }
        self.keep(BooleanBuffer::from(keep))
    }

    /// The `_ord` column.
    pub(crate) fn ords(&self, offsets: &Offsets, source: u8, partition: u16) -> UInt64Array {
        let ord = |offset| Ord64::from(Position { source, partition, offset }).0;
        match (offsets, &self.places) {
            (Offsets::From(first), None) => {
                let first = ord(*first);
                UInt64Array::from_iter_values(first..first + self.len() as u64)
            }
            _ => UInt64Array::from_iter_values((0..self.len()).map(|row| ord(offsets.get(self.place(row))))),
        }
    }
}

/// Collects the dead letters of one read of one partition.
pub(crate) struct Letters {
    pub source: Arc<str>,
    pub partition: u16,
    pub list: Vec<DeadLetter>,
}

impl Letters {
    pub(crate) fn push(
        &mut self,
        kind: DeadLetterKind,
        reason: String,
        offset: u64,
        event_time: Option<EventTime>,
        original: Vec<u8>,
    ) {
        let (source, partition) = (self.source.clone(), self.partition);
        self.list.push(DeadLetter { kind, reason, source, partition, offset, event_time, original });
    }
}

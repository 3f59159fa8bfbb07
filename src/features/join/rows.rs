//! Rows of one side of a join, kept column by column in chunks and dropped chunk by chunk.
//!
//! A row keeps its address from the time it comes until its chunk is dropped. Small batches share a chunk, so that a
//! stream of small ticks does not turn into many small arrays.

use std::collections::VecDeque;

use arrow::array::RecordBatch;

use crate::base::EventTime;
use crate::ops::key::EncodedKeys;
use crate::ops::{ords, times};

/// Rows at which a chunk takes no more; few in tests, so that chunks come and go in them.
pub(super) const CHUNK_ROWS: usize = if cfg!(test) { 16 } else { 8192 };

/// Address of a row: the number of its chunk, then its row within the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address(u64);

impl Address {
    /// No row.
    pub const NONE: Address = Address(u64::MAX);
    /// Of the first row of all.
    pub const FIRST: Address = Address(0);

    fn new(chunk: usize, row: usize) -> Self {
        Address((chunk as u64) << 32 | row as u64)
    }

    fn chunk(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn row(self) -> usize {
        self.0 as u32 as usize
    }

    /// The address `rows` further in the same batch.
    pub fn plus(self, rows: usize) -> Self {
        Address(self.0 + rows as u64)
    }
}

/// Several batches, numbered through.
#[derive(Debug)]
pub(super) struct Chunk {
    batches: Vec<RecordBatch>,
    /// The first row of each batch.
    starts: Vec<usize>,
    /// Canonical keys of each batch, where keys are not words.
    keys: Vec<EncodedKeys>,
    /// Whether a row has met a row of the other side.
    matched: Vec<bool>,
    max_time: EventTime,
    /// Its time has passed; only its keys are still read, while the index forgets its rows.
    expired: bool,
}

impl Chunk {
    fn new() -> Self {
        Chunk {
            batches: Vec::new(),
            starts: Vec::new(),
            keys: Vec::new(),
            matched: Vec::new(),
            max_time: EventTime::MIN,
            expired: false,
        }
    }

    fn locate(&self, row: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }

    /// Number of rows that met no row of the other side.
    pub fn unmatched(&self) -> usize {
        self.matched.iter().filter(|m| !**m).count()
    }

    /// Its batches, each with the address of its first row.
    pub fn batches(&self, number: usize) -> impl Iterator<Item = (Address, &RecordBatch)> {
        self.starts.iter().map(move |start| Address::new(number, *start)).zip(&self.batches)
    }
}

/// The rows of one side.
#[derive(Debug)]
pub(super) struct Rows {
    chunks: VecDeque<Option<Chunk>>,
    /// Number of the first of `chunks`.
    first: usize,
    /// No chunk's latest row is before this.
    oldest: EventTime,
    rows: usize,
}

impl Rows {
    /// No rows.
    pub fn new() -> Self {
        Rows { chunks: VecDeque::new(), first: 0, oldest: EventTime::MAX, rows: 0 }
    }

    /// Keeps a batch, which has rows, with its canonical keys where keys are not words and what is known of each row's
    /// meetings; returns the address of its first row.
    pub fn push(&mut self, batch: RecordBatch, keys: Option<EncodedKeys>, matched: Vec<bool>) -> Address {
        let max_time = times(&batch).iter().copied().fold(EventTime::MIN, EventTime::max);
        let open = |chunk: &Option<Chunk>| chunk.as_ref().is_some_and(|c| c.matched.len() < CHUNK_ROWS && !c.expired);
        if !self.chunks.back().is_some_and(open) {
            self.chunks.push_back(Some(Chunk::new()));
            self.oldest = self.oldest.min(max_time);
        }
        let number = self.first + self.chunks.len() - 1;
        let chunk = self.chunks.back_mut().and_then(Option::as_mut).expect("an open chunk is there");
        let address = Address::new(number, chunk.matched.len());
        self.rows += batch.num_rows();
        chunk.max_time = chunk.max_time.max(max_time);
        chunk.starts.push(chunk.matched.len());
        chunk.matched.extend(matched);
        chunk.batches.push(batch);
        chunk.keys.extend(keys);
        if chunk.matched.len() >= CHUNK_ROWS && chunk.batches.len() > 1 {
            chunk.unite();
        }
        address
    }

    /// The address of the row that comes next.
    pub fn end(&self) -> Address {
        let (last, behind) = (self.chunks.back().and_then(Option::as_ref), self.first + self.chunks.len());
        last.map_or(Address::new(behind, 0), |chunk| Address::new(behind - 1, chunk.matched.len()))
    }

    /// The batches from an address on, each with whether its rows have met one of the other side.
    pub fn pieces(&self, from: Address) -> impl Iterator<Item = (RecordBatch, &[bool])> {
        let chunks = self.chunks.iter().enumerate().skip(from.chunk().saturating_sub(self.first));
        chunks.filter_map(|(i, chunk)| Some((self.first + i, chunk.as_ref()?))).flat_map(move |(number, chunk)| {
            let skipped = if number == from.chunk() { from.row() } else { 0 };
            chunk.starts.iter().zip(&chunk.batches).filter_map(move |(start, batch)| {
                let end = start + batch.num_rows();
                let start = *start.max(&skipped);
                let rows = end.checked_sub(start).filter(|rows| *rows > 0)?;
                Some((batch.slice(batch.num_rows() - rows, rows), &chunk.matched[start..end]))
            })
        })
    }

    /// Number of rows kept.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// A row that is kept and whose time has not passed.
    pub fn get(&self, at: Address) -> Option<(&RecordBatch, usize)> {
        let chunk = self.chunk(at).filter(|chunk| !chunk.expired)?;
        let (batch, row) = chunk.locate(at.row());
        Some((&chunk.batches[batch], row))
    }

    /// `(_time, _ord)` of a row that is kept and whose time has not passed.
    pub fn order(&self, at: Address) -> Option<(EventTime, u64)> {
        self.get(at).map(|(batch, row)| (times(batch)[row], ords(batch)[row]))
    }

    /// Canonical key of a row that is kept, be its time passed or not.
    pub fn key(&self, at: Address) -> Option<&[u8]> {
        let chunk = self.chunk(at)?;
        let (batch, row) = chunk.locate(at.row());
        Some(chunk.keys[batch].get(row))
    }

    /// Notes that a row has met a row of the other side; says whether it had before.
    pub fn set_matched(&mut self, at: Address) -> bool {
        let chunk = at.chunk().checked_sub(self.first).and_then(|i| self.chunks.get_mut(i)).and_then(Option::as_mut);
        chunk.is_some_and(|chunk| std::mem::replace(&mut chunk.matched[at.row()], true))
    }

    /// Whether a kept row has met a row of the other side.
    pub fn is_matched(&self, at: Address) -> bool {
        self.chunk(at).is_some_and(|chunk| chunk.matched[at.row()])
    }

    /// Marks the chunks whose last row is before `time` as expired and returns their numbers. Nothing reads their rows from
    /// then on; [`Rows::remove`] must follow once the index has forgotten them.
    pub fn expire(&mut self, time: EventTime) -> Vec<usize> {
        if time <= self.oldest {
            return Vec::new();
        }
        let (mut expired, mut oldest) = (Vec::new(), EventTime::MAX);
        for (i, chunk) in self.chunks.iter_mut().enumerate() {
            match chunk {
                Some(chunk) if chunk.max_time < time => {
                    chunk.expired = true;
                    expired.push(self.first + i);
                }
                Some(chunk) => oldest = oldest.min(chunk.max_time),
                None => {}
            }
        }
        self.oldest = oldest;
        expired
    }

    /// A chunk by its number.
    pub fn chunk_numbered(&self, number: usize) -> Option<&Chunk> {
        self.chunks.get(number.checked_sub(self.first)?)?.as_ref()
    }

    /// Drops an expired chunk.
    pub fn remove(&mut self, number: usize) {
        if let Some(chunk) = self.chunks[number - self.first].take() {
            self.rows -= chunk.matched.len();
        }
        while let Some(None) = self.chunks.front() {
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    /// Bytes of the rows and what belongs to them.
    pub fn memory_bytes(&self) -> usize {
        let chunk_bytes = |chunk: &Chunk| {
            let keys: usize = chunk.keys.iter().map(EncodedKeys::memory_bytes).sum();
            chunk.batches.iter().map(crate::ops::slice_bytes).sum::<usize>() + keys + chunk.matched.capacity()
        };
        self.chunks.iter().flatten().map(chunk_bytes).sum()
    }

    fn chunk(&self, at: Address) -> Option<&Chunk> {
        if at == Address::NONE { None } else { self.chunk_numbered(at.chunk()) }
    }
}

impl Chunk {
    /// Makes one batch of several; no address changes.
    fn unite(&mut self) {
        let schema = self.batches[0].schema();
        let united = arrow::compute::concat_batches(&schema, &self.batches);
        self.batches = vec![united.expect("the batches of a stream have one schema")];
        self.starts = vec![0];
        if !self.keys.is_empty() {
            self.keys = vec![EncodedKeys::concat(&self.keys)];
        }
    }
}

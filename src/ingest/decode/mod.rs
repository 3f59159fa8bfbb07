//! From bytes to columns: what every format's decoder hands to the checks.

pub(crate) mod avro;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod json;
pub(crate) mod message;
pub(crate) mod normalise;

use std::ops::Range;

use arrow::array::RecordBatch;

use super::dead_letter::{DeadLetterKind, row_json};

/// Raw rows of one partition, decoded and not yet checked.
#[derive(Debug)]
pub(crate) struct RawChunk {
    /// The decoded rows, in the source's schema.
    pub batch: RecordBatch,
    /// Where each row of `batch` stood.
    pub offsets: Offsets,
    /// What each row of `batch` looked like.
    pub originals: Originals,
    /// Rows that are not in `batch` because they could not be decoded.
    pub failed: Vec<Failure>,
    /// Blank lines: they have an offset and are no rows.
    pub blank: u64,
    /// Raw rows consumed: decoded, failed, blank and lost ones.
    pub rows: u64,
    /// Offset of the first row that is not consumed.
    pub next_offset: u64,
}

/// A row, or a stretch of rows, that could not be decoded.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub offset: u64,
    pub kind: DeadLetterKind,
    pub reason: String,
    pub original: Vec<u8>,
}

/// Offsets of the rows of a batch.
#[derive(Debug, PartialEq)]
pub(crate) enum Offsets {
    /// Dense from here: nothing was left out.
    From(u64),
    /// One by one.
    List(Vec<u64>),
}

impl Offsets {
    pub(crate) fn get(&self, row: usize) -> u64 {
        match self {
            Offsets::From(first) => first + row as u64,
            Offsets::List(list) => list[row],
        }
    }
}

/// The bytes that the rows of a batch were decoded from.
#[derive(Debug)]
pub(crate) enum Originals {
    /// There never were any: the row is written as JSON when somebody asks.
    Columns,
    /// Lines of text, by row of the batch.
    Lines { data: Vec<u8>, ranges: Vec<Range<usize>> },
}

impl RawChunk {
    /// The bytes of a row of `batch`, for a dead letter.
    pub(crate) fn original(&self, row: usize) -> Vec<u8> {
        match &self.originals {
            Originals::Columns => row_json(&self.batch, row),
            Originals::Lines { data, ranges } => data[ranges[row].clone()].to_vec(),
        }
    }
}

//! The container that streams of rows carry: one Arrow record batch, or picked rows of one.
//!
//! Between threads of a process a batch moves by reference. Between processes it travels as an Arrow IPC stream behind
//! its length, padded to eight bytes, since timely wants every container aligned to words.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

use super::columns::collect;
use super::wide::Word;
use crate::base::EventTime;

/// Rows that move together through the dataflow; timely counts them one by one.
///
/// On its way to another worker a part of a record batch is the whole batch with the numbers of the rows that are meant: who
/// takes them in puts them where they belong, and they are copied once. The default batch has no rows and no columns; timely
/// makes it when it takes a batch out of its place.
#[derive(Clone, Debug)]
pub struct Batch {
    rows: RecordBatch,
    pick: Pick,
}

/// Rows of a record batch, in order.
#[derive(Clone, Debug)]
pub(super) enum Pick {
    /// All of them.
    All,
    /// Those at these indices.
    Rows(Vec<u32>),
}

impl Batch {
    /// Some rows of a batch.
    pub(super) fn picked(rows: RecordBatch, pick: Pick) -> Self {
        Batch { rows, pick }
    }

    /// Number of rows.
    #[inline]
    pub fn num_rows(&self) -> usize {
        match &self.pick {
            Pick::All => self.rows.num_rows(),
            Pick::Rows(picked) => picked.len(),
        }
    }

    /// The rows by themselves: a copy where they are a part of a batch.
    pub fn into_rows(self) -> RecordBatch {
        match self.pick {
            Pick::All => self.rows,
            Pick::Rows(_) => collect(&[self]),
        }
    }

    /// The batch that the rows are of.
    pub(super) fn backing(&self) -> &RecordBatch {
        &self.rows
    }

    /// Which rows of it they are.
    pub(super) fn pick(&self) -> &Pick {
        &self.pick
    }

    /// The number that a row has in the backing.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> usize {
        match &self.pick {
            Pick::All => row,
            Pick::Rows(picked) => picked[row] as usize,
        }
    }

    /// Calls `each` with the rows' values of a whole column of the backing, in order.
    #[inline(always)]
    pub(super) fn each<W: Copy>(&self, column: &[W], mut each: impl FnMut(W)) {
        match &self.pick {
            Pick::All => column.iter().for_each(|value| each(*value)),
            Pick::Rows(picked) => picked.iter().for_each(|row| each(column[*row as usize])),
        }
    }

    /// Appends the rows' values of a whole column of the backing, in order.
    pub(super) fn append<W: Word>(&self, column: &[W], out: &mut Vec<W>) {
        match &self.pick {
            Pick::All => out.extend_from_slice(column),
            Pick::Rows(picked) => W::append(column, picked, out),
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        static NO_COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::empty()));
        Batch::from(RecordBatch::new_empty(Arc::clone(&NO_COLUMNS)))
    }
}

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        Batch { rows, pick: Pick::All }
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.clone().into_rows() == other.clone().into_rows()
    }
}

impl Accountable for Batch {
    #[inline]
    fn record_count(&self) -> i64 {
        self.num_rows() as i64
    }
}

/// Event times of a batch inside the engine, its column 0, in microseconds.
///
/// # Panics
/// When column 0 is not `Timestamp(Microsecond)`: such a batch is a defect of the engine, never of data.
#[inline]
pub fn times(rows: &RecordBatch) -> &[EventTime] {
    rows.column(0).as_primitive::<TimestampMicrosecondType>().values()
}

/// Positions of a batch inside the engine, its column 1, each an [`Ord64`](crate::base::Ord64).
///
/// # Panics
/// When column 1 is not `UInt64`: such a batch is a defect of the engine, never of data.
#[inline]
pub fn ords(rows: &RecordBatch) -> &[u64] {
    rows.column(1).as_primitive::<UInt64Type>().values()
}

/// Writes rows with their schema as one Arrow IPC stream.
pub fn encode_rows(rows: &RecordBatch) -> Vec<u8> {
    let write = || -> Result<Vec<u8>, ArrowError> {
        let mut writer =
            StreamWriter::try_new(Vec::with_capacity(rows.get_array_memory_size() + 1024), rows.schema_ref())?;
        writer.write(rows)?;
        writer.into_inner()
    };
    write().expect("an Arrow batch in memory always encodes as IPC")
}

/// Reads what [`encode_rows`] wrote.
///
/// # Errors
/// When the bytes are not an Arrow IPC stream of exactly one batch.
pub fn decode_rows(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    let rows = reader.next().ok_or_else(|| ArrowError::IpcError("the stream holds no batch".into()))??;
    match reader.next() {
        None => Ok(rows),
        Some(_) => Err(ArrowError::IpcError("the stream holds more than one batch".into())),
    }
}

/// Bytes of the length that precedes the stream.
const PREFIX: usize = 8;

/// The batch that `length_in_bytes` has encoded and `into_bytes` is about to ask for. Timely calls the two in succession
/// on one thread, so one place per thread is enough; the address tells whether it is the batch asked for.
struct Encoded {
    batch: *const Batch,
    bytes: Vec<u8>,
}

thread_local! {
    static ENCODED: RefCell<Option<Encoded>> = const { RefCell::new(None) };
}

impl Batch {
    fn encode(&self) -> Vec<u8> {
        encode_rows(&self.clone().into_rows())
    }

    fn take_encoded(&self) -> Vec<u8> {
        match ENCODED.take() {
            Some(encoded) if std::ptr::eq(encoded.batch, self) => encoded.bytes,
            _ => self.encode(),
        }
    }
}

impl ContainerBytes for Batch {
    fn from_bytes(bytes: Bytes) -> Self {
        let (prefix, rest) = bytes.split_at(PREFIX);
        let length = u64::from_le_bytes(prefix.try_into().expect("the prefix has eight bytes")) as usize;
        // A peer of the same build sent these bytes; if they are broken, so is the cluster.
        Batch::from(decode_rows(&rest[..length]).expect("a peer worker sent bytes that are not a batch"))
    }

    fn length_in_bytes(&self) -> usize {
        let bytes = self.encode();
        let length = PREFIX + bytes.len().next_multiple_of(8);
        ENCODED.set(Some(Encoded { batch: self, bytes }));
        length
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let bytes = self.take_encoded();
        let padding = bytes.len().next_multiple_of(8) - bytes.len();
        writer
            .write_all(&(bytes.len() as u64).to_le_bytes())
            .and_then(|()| writer.write_all(&bytes))
            .and_then(|()| writer.write_all(&[0; 8][..padding]))
            .expect("timely reserved the bytes that `length_in_bytes` asked for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::{rows, rows_with_strings};
    use timely::bytes::arc::BytesMut;

    fn through_bytes(batch: &Batch) -> Batch {
        let length = batch.length_in_bytes();
        assert_eq!(length % 8, 0);
        let mut wire = Vec::new();
        batch.into_bytes(&mut wire);
        assert_eq!(wire.len(), length);
        Batch::from_bytes(BytesMut::from(wire).freeze())
    }

    #[test]
    fn batches_survive_the_wire() {
        for n in [0, 1, 7, 1000] {
            let batch = Batch::from(rows_with_strings(&(0..n).map(|i| (i, i as u64)).collect::<Vec<_>>()));
            assert_eq!(through_bytes(&batch), batch);
            // A slice must not bring its neighbours along.
            let slice = Batch::from(batch.rows.slice(n as usize / 3, n as usize / 2));
            assert_eq!(through_bytes(&slice), slice);
            let pick = Pick::Rows((0..n as u32).step_by(3).collect());
            let picked = Batch::picked(batch.rows.clone(), pick);
            assert_eq!(through_bytes(&picked), picked);
        }
    }

    #[test]
    fn the_cached_encoding_is_never_another_batch() {
        let (a, b) = (Batch::from(rows(&[(1, 1)])), Batch::from(rows(&[(2, 2), (3, 3)])));
        let _ = a.length_in_bytes();
        let mut wire = Vec::new();
        b.into_bytes(&mut wire);
        assert_eq!(Batch::from_bytes(BytesMut::from(wire).freeze()), b);
    }

    #[test]
    fn broken_bytes_are_an_error() {
        let bytes = encode_rows(&rows(&[(1, 1)]));
        assert!(decode_rows(&bytes[..bytes.len() / 2]).is_err());
        assert!(decode_rows(b"").is_err());
    }

    #[test]
    fn counts_rows() {
        assert_eq!(Batch::default().record_count(), 0);
        assert!(Batch::default().is_empty());
        assert_eq!(Batch::from(rows(&[(1, 1), (1, 2)])).record_count(), 2);
    }
}

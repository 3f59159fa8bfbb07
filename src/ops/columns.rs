//! Moving rows between batches column by column: the copies that ordering and routing share.
//!
//! Columns of a fixed width of 1, 2, 4 or 8 bytes, which is what features are made of, are moved as words whatever they
//! mean; all others go through Arrow's own kernels.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::array::{BooleanBufferBuilder, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{ArrowNativeType, DataType};

use super::batch::{Batch, Pick};
use super::origins::{Origin, Origins};
use super::wide::Word;

const SAME_TYPES: &str = "the batches of a stream have one schema";

/// Gathers rows of `sources` into one batch.
///
/// # Panics
/// When `origins` are those of other sources.
pub(super) fn gather(sources: &[Batch], origins: &Origins) -> RecordBatch {
    let schema = sources[0].backing().schema();
    let columns = (0..schema.fields().len())
        .map(|c| match fixed_width(sources[0].backing().column(c).data_type()) {
            Some(1) => gather_words::<u8>(sources, c, origins),
            Some(2) => gather_words::<u16>(sources, c, origins),
            Some(4) => gather_words::<u32>(sources, c, origins),
            Some(8) => gather_words::<u64>(sources, c, origins),
            _ => {
                let parts: Vec<&dyn Array> = sources.iter().map(|s| s.backing().column(c).as_ref()).collect();
                let place = |origin: &Origin| (origin.source as usize, origin.row as usize);
                let places: Vec<(usize, usize)> = origins.list().iter().map(place).collect();
                interleave(&parts, &places).expect(SAME_TYPES)
            }
        })
        .collect();
    RecordBatch::try_new(schema, columns).expect(SAME_TYPES)
}

/// Copies the rows of each source, one source after the other, into one batch of its own memory.
pub(crate) fn collect(sources: &[Batch]) -> RecordBatch {
    let schema = sources[0].backing().schema();
    let columns = (0..schema.fields().len())
        .map(|c| match fixed_width(sources[0].backing().column(c).data_type()) {
            Some(1) => collect_words::<u8>(sources, c),
            Some(2) => collect_words::<u16>(sources, c),
            Some(4) => collect_words::<u32>(sources, c),
            Some(8) => collect_words::<u64>(sources, c),
            _ => collect_any(sources, c),
        })
        .collect();
    RecordBatch::try_new(schema, columns).expect(SAME_TYPES)
}

/// A copy of a batch that holds on to no larger buffer.
pub(crate) fn compact(rows: &RecordBatch) -> RecordBatch {
    let all = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    let columns = rows.columns().iter().map(|c| take(c, &all, None).expect("indices are within the batch")).collect();
    RecordBatch::try_new(rows.schema(), columns).expect(SAME_TYPES)
}

/// Bytes that the rows of a batch take, without what else their buffers hold.
pub fn slice_bytes(rows: &RecordBatch) -> usize {
    rows.columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()))
        .sum()
}

fn fixed_width(data_type: &DataType) -> Option<usize> {
    data_type.primitive_width().filter(|w| *w <= 8)
}

fn array_of<W: ArrowNativeType>(data_type: &DataType, values: Vec<W>, nulls: Option<NullBuffer>) -> ArrayRef {
    let data =
        ArrayData::builder(data_type.clone()).len(values.len()).add_buffer(Buffer::from_vec(values)).nulls(nulls);
    make_array(data.build().expect("a buffer of as many values as rows"))
}

/// A column's words.
fn words<W: ArrowNativeType>(source: &Batch, column: usize) -> ScalarBuffer<W> {
    let data = source.backing().column(column).to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

fn gather_words<W: Word + ArrowNativeType>(sources: &[Batch], column: usize, origins: &Origins) -> ArrayRef {
    let parts: Vec<ScalarBuffer<W>> = sources.iter().map(|source| words(source, column)).collect();
    let values = origins.gather(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>());
    array_of(sources[0].backing().column(column).data_type(), values, gather_nulls(sources, column, origins))
}

fn gather_nulls(sources: &[Batch], column: usize, origins: &Origins) -> Option<NullBuffer> {
    let nulls: Vec<_> = sources.iter().map(|source| source.backing().column(column).nulls()).collect();
    if nulls.iter().flatten().all(|nulls| nulls.null_count() == 0) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(origins.len());
    let is_valid = |origin: &Origin| nulls[origin.source as usize].is_none_or(|n| n.is_valid(origin.row as usize));
    origins.list().iter().for_each(|origin| valid.append(is_valid(origin)));
    Some(NullBuffer::new(valid.finish()))
}

fn collect_words<W: Word + ArrowNativeType>(sources: &[Batch], column: usize) -> ArrayRef {
    let total = sources.iter().map(Batch::num_rows).sum();
    let mut values: Vec<W> = Vec::with_capacity(total);
    for source in sources {
        source.append(&words::<W>(source, column), &mut values);
    }
    array_of(sources[0].backing().column(column).data_type(), values, collect_nulls(sources, column, total))
}

fn collect_nulls(sources: &[Batch], column: usize, total: usize) -> Option<NullBuffer> {
    if sources.iter().all(|s| s.backing().column(column).null_count() == 0) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(total);
    for source in sources {
        match (source.backing().column(column).nulls(), source.pick()) {
            (None, _) => valid.append_n(source.num_rows(), true),
            (Some(nulls), Pick::All) => valid.append_buffer(nulls.inner()),
            (Some(nulls), Pick::Rows(rows)) => {
                valid.append_buffer(&BooleanBuffer::collect_bool(rows.len(), |i| nulls.is_valid(rows[i] as usize)));
            }
        }
    }
    Some(NullBuffer::new(valid.finish()))
}

fn collect_any(sources: &[Batch], column: usize) -> ArrayRef {
    let parts: Vec<ArrayRef> = sources
        .iter()
        .map(|source| match source.pick() {
            Pick::All => Arc::clone(source.backing().column(column)),
            Pick::Rows(rows) => take(source.backing().column(column), &UInt32Array::from(rows.clone()), None)
                .expect("indices are within the batch"),
        })
        .collect();
    match &parts[..] {
        [one] => Arc::clone(one),
        many => concat(&many.iter().map(|p| p.as_ref()).collect::<Vec<_>>()).expect(SAME_TYPES),
    }
}

//! Moving rows between batches column by column: the copies that ordering and routing share.
//!
//! Columns of a fixed width of 1, 2, 4 or 8 bytes, which is what features are made of, are moved as words whatever they
//! mean; all others go through Arrow's own kernels.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::array::{BooleanBufferBuilder, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{ArrowNativeType, DataType};

const SAME_TYPES: &str = "the batches of a stream have one schema";

/// Scatters the rows of `sources`, numbered through from 0, into one batch: row `i` goes to `places[i]`.
/// `places` is a permutation of `0..total`, where `total` is the number of rows of all sources.
pub(crate) fn scatter(sources: &[RecordBatch], places: &[u32]) -> RecordBatch {
    let schema = sources[0].schema();
    let mut origins = None;
    let columns = (0..schema.fields().len())
        .map(|c| {
            let parts: Vec<&ArrayRef> = sources.iter().map(|s| s.column(c)).collect();
            match fixed_width(parts[0].data_type()) {
                Some(1) => scatter_words::<u8>(&parts, places),
                Some(2) => scatter_words::<u16>(&parts, places),
                Some(4) => scatter_words::<u32>(&parts, places),
                Some(8) => scatter_words::<u64>(&parts, places),
                _ => {
                    let origins = origins.get_or_insert_with(|| origins_of(sources, places));
                    let parts: Vec<&dyn Array> = parts.iter().map(|p| p.as_ref()).collect();
                    interleave(&parts, origins).expect(SAME_TYPES)
                }
            }
        })
        .collect();
    RecordBatch::try_new(schema, columns).expect(SAME_TYPES)
}

/// Rows of a batch, in order.
#[derive(Debug)]
pub(crate) enum Pick {
    /// All of them.
    All,
    /// Those at these indices.
    Rows(Vec<u32>),
}

/// Copies the picked rows of each source, one source after the other, into one batch of its own memory.
pub(crate) fn collect(sources: &[(RecordBatch, Pick)]) -> RecordBatch {
    let schema = sources[0].0.schema();
    let columns = (0..schema.fields().len())
        .map(|c| match fixed_width(sources[0].0.column(c).data_type()) {
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

fn scatter_words<W: ArrowNativeType>(parts: &[&ArrayRef], places: &[u32]) -> ArrayRef {
    let mut values = vec![W::default(); places.len()];
    let mut at = 0;
    for part in parts {
        let data = part.to_data();
        let source = &data.buffer::<W>(0)[..data.len()];
        for (value, place) in source.iter().zip(&places[at..]) {
            values[*place as usize] = *value;
        }
        at += source.len();
    }
    array_of(parts[0].data_type(), values, scatter_nulls(parts, places))
}

fn scatter_nulls(parts: &[&ArrayRef], places: &[u32]) -> Option<NullBuffer> {
    if parts.iter().all(|p| p.null_count() == 0) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(places.len());
    valid.append_n(places.len(), true);
    let mut at = 0;
    for part in parts {
        if let Some(nulls) = part.nulls() {
            for i in (0..part.len()).filter(|i| nulls.is_null(*i)) {
                valid.set_bit(places[at + i] as usize, false);
            }
        }
        at += part.len();
    }
    Some(NullBuffer::new(valid.finish()))
}

/// For each place of the output, the source and the row within it.
fn origins_of(sources: &[RecordBatch], places: &[u32]) -> Vec<(usize, usize)> {
    let mut origins = vec![(0, 0); places.len()];
    let mut places = places.iter();
    for (s, source) in sources.iter().enumerate() {
        for (row, place) in (0..source.num_rows()).zip(&mut places) {
            origins[*place as usize] = (s, row);
        }
    }
    origins
}

fn picked(source: &(RecordBatch, Pick)) -> usize {
    match &source.1 {
        Pick::All => source.0.num_rows(),
        Pick::Rows(rows) => rows.len(),
    }
}

fn collect_words<W: ArrowNativeType>(sources: &[(RecordBatch, Pick)], column: usize) -> ArrayRef {
    let total = sources.iter().map(picked).sum();
    let mut values: Vec<W> = Vec::with_capacity(total);
    for (batch, pick) in sources {
        let data = batch.column(column).to_data();
        let source = &data.buffer::<W>(0)[..data.len()];
        match pick {
            Pick::All => values.extend_from_slice(source),
            Pick::Rows(rows) => values.extend(rows.iter().map(|row| source[*row as usize])),
        }
    }
    array_of(sources[0].0.column(column).data_type(), values, collect_nulls(sources, column, total))
}

fn collect_nulls(sources: &[(RecordBatch, Pick)], column: usize, total: usize) -> Option<NullBuffer> {
    if sources.iter().all(|(batch, _)| batch.column(column).null_count() == 0) {
        return None;
    }
    let mut valid = BooleanBufferBuilder::new(total);
    for source in sources {
        match (source.0.column(column).nulls(), &source.1) {
            (None, _) => valid.append_n(picked(source), true),
            (Some(nulls), Pick::All) => valid.append_buffer(nulls.inner()),
            (Some(nulls), Pick::Rows(rows)) => {
                valid.append_buffer(&BooleanBuffer::collect_bool(rows.len(), |i| nulls.is_valid(rows[i] as usize)));
            }
        }
    }
    Some(NullBuffer::new(valid.finish()))
}

fn collect_any(sources: &[(RecordBatch, Pick)], column: usize) -> ArrayRef {
    let parts: Vec<ArrayRef> = sources
        .iter()
        .map(|(batch, pick)| match pick {
            Pick::All => Arc::clone(batch.column(column)),
            Pick::Rows(rows) => take(batch.column(column), &UInt32Array::from(rows.clone()), None)
                .expect("indices are within the batch"),
        })
        .collect();
    match &parts[..] {
        [one] => Arc::clone(one),
        many => concat(&many.iter().map(|p| p.as_ref()).collect::<Vec<_>>()).expect(SAME_TYPES),
    }
}

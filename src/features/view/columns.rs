//! Between Arrow columns and words: entries read row by row, answers gathered column by column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array, Int32Array, Int64Array, PrimitiveArray,
    StringBuilder, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;

use super::ViewError;
use super::keys::Texts;
use super::layout::{Kind, Layout, NULL_FLOAT, NULL_NARROW, NULL_TEXT, Output, Source};
use super::value::Raw;
use crate::base::prefetch;
use crate::features::numeric::{self, Accumulator, Moments, float_of_key};

/// A column's values in one of `Float64`, `Int64`, `UInt64`, `LargeBinary`-like, as its kind wants.
pub(super) fn plain(column: &ArrayRef, kind: Kind) -> Result<ArrayRef, ViewError> {
    let reinterpret = |column: &ArrayRef, to: DataType| -> Result<ArrayRef, ViewError> {
        let data = column.to_data().into_builder().data_type(to).build()?;
        Ok(arrow::array::make_array(data))
    };
    let column = match column.data_type() {
        DataType::Dictionary(_, values) => cast(column, values)?,
        _ => ArrayRef::clone(column),
    };
    Ok(match kind {
        Kind::Float if column.data_type() == &DataType::Float64 => column,
        Kind::Float => cast(&column, &DataType::Float64)?,
        Kind::Unsigned => column,
        Kind::Wide => reinterpret(&column, DataType::Int64)?,
        Kind::Narrow => match column.data_type() {
            DataType::Date32 | DataType::Time32(_) => cast(&reinterpret(&column, DataType::Int32)?, &DataType::Int64)?,
            DataType::Boolean => {
                let values: &BooleanArray = column.as_boolean();
                Arc::new(values.iter().map(|v| v.map(i64::from)).collect::<Int64Array>())
            }
            _ => cast(&column, &DataType::Int64)?,
        },
        Kind::Bytes => match column.data_type() {
            DataType::Binary => column,
            DataType::LargeBinary | DataType::BinaryView => cast(&column, &DataType::Binary)?,
            DataType::Utf8 => cast(&column, &DataType::Binary)?,
            _ => cast(&cast(&column, &DataType::Utf8)?, &DataType::Binary)?,
        },
    })
}

/// The time column of a batch.
pub(super) fn times(batch: &RecordBatch, column: usize) -> Result<&ScalarBuffer<i64>, ViewError> {
    batch
        .columns()
        .get(column)
        .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
        .filter(|c| c.null_count() == 0)
        .map(PrimitiveArray::values)
        .ok_or_else(|| ViewError::Batch { what: format!("column {column} is not a time without nulls") })
}

/// The position column of a batch.
pub(super) fn ords(batch: &RecordBatch, column: usize) -> Result<&ScalarBuffer<u64>, ViewError> {
    batch
        .columns()
        .get(column)
        .and_then(|c| c.as_primitive_opt::<UInt64Type>())
        .filter(|c| c.null_count() == 0)
        .map(PrimitiveArray::values)
        .ok_or_else(|| ViewError::Batch { what: format!("column {column} is not a position without nulls") })
}

/// The rows of a batch as entries, one after another in `entries`. Texts are acquired.
pub(super) fn read_entries(
    layout: &Layout,
    batch: &RecordBatch,
    times: &[i64],
    ords: &[u64],
    texts: &mut Texts,
    entries: &mut Vec<u64>,
) -> Result<(), ViewError> {
    let stride = layout.stride;
    let columns = layout
        .inputs
        .iter()
        .map(|input| {
            let column = batch
                .columns()
                .get(input.column)
                .ok_or_else(|| ViewError::Batch { what: format!("there is no column {}", input.column) })?;
            let found = match column.data_type() {
                DataType::Dictionary(_, values) => values.as_ref(),
                other => other,
            };
            if found != &input.data_type {
                let what = format!("column {} is {found}, not {}", input.column, input.data_type);
                return Err(ViewError::Batch { what });
            }
            plain(column, input.kind)
        })
        .collect::<Result<Vec<_>, _>>()?;
    entries.clear();
    if layout.solo.is_some()
        && let [column] = &columns[..]
        && column.null_count() == 0
    {
        let values = column.as_primitive::<Float64Type>().values();
        entries.extend(times.iter().zip(values).flat_map(|(time, value)| [*time as u64, float_word(*value)]));
        return Ok(());
    }
    entries.resize(times.len() * stride, 0);
    for (entry, time) in entries.chunks_exact_mut(stride).zip(times) {
        entry[0] = *time as u64;
    }
    if let Some(at) = layout.ord {
        for (entry, ord) in entries.chunks_exact_mut(stride).zip(ords) {
            entry[at] = *ord;
        }
    }
    for (input, column) in layout.inputs.iter().zip(&columns) {
        let at = input.word;
        let rows = entries.chunks_exact_mut(stride);
        match input.kind {
            Kind::Float => {
                for (entry, value) in rows.zip(column.as_primitive::<Float64Type>().values()) {
                    entry[at] = float_word(*value);
                }
            }
            Kind::Narrow | Kind::Wide => {
                for (entry, value) in rows.zip(column.as_primitive::<Int64Type>().values()) {
                    entry[at] = *value as u64;
                }
            }
            Kind::Unsigned => {
                for (entry, value) in rows.zip(column.as_primitive::<UInt64Type>().values()) {
                    entry[at] = *value;
                }
            }
            Kind::Bytes => {
                let column = column.as_binary::<i32>();
                for (row, entry) in rows.enumerate() {
                    entry[at] = if column.is_null(row) { NULL_TEXT } else { texts.acquire(column.value(row)) };
                }
            }
        }
        if let Some(nulls) = column.nulls().filter(|n| n.null_count() > 0 && input.kind != Kind::Bytes) {
            for (entry, valid) in entries.chunks_exact_mut(stride).zip(nulls) {
                if !valid {
                    match (input.kind, layout.mask) {
                        (Kind::Float, _) => entry[at] = NULL_FLOAT,
                        (Kind::Narrow, _) => entry[at] = NULL_NARROW,
                        (_, Some(mask)) => {
                            entry[mask] |= input.mask;
                            // One null is one entry, whatever lay under it.
                            entry[at] = 0;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

/// Adding zero turns −0.0 into 0.0.
#[inline(always)]
fn float_word(value: f64) -> u64 {
    if value.is_nan() { NULL_FLOAT } else { (value + 0.0).to_bits() }
}

/// A default as the word (or text) in which an output is gathered. The error says that it does not fit.
pub(super) fn word_of_scalar(value: &ScalarValue, output: &Output) -> Result<Result<u64, Vec<u8>>, ()> {
    let array = value.cast_to(&output.data_type).and_then(|v| v.to_array()).map_err(|_| ())?;
    if array.is_null(0) {
        return Err(());
    }
    let floats = matches!(output.source, Source::Mean { .. } | Source::Variance { .. })
        || (matches!(output.source, Source::Sum { .. }) && output.data_type.is_floating());
    let kind = match output.source {
        _ if floats => Kind::Float,
        Source::Rows { .. } | Source::Count { .. } | Source::Sum { .. } => Kind::Wide,
        _ => output.kind,
    };
    let input = if matches!(output.source, Source::Min { .. } | Source::Max { .. } | Source::Last { .. }) {
        cast(&array, &output.input_type).map_err(|_| ())?
    } else if floats {
        cast(&array, &DataType::Float64).map_err(|_| ())?
    } else {
        cast(&array, &DataType::Int64).map_err(|_| ())?
    };
    let column = plain(&input, kind).map_err(|_| ())?;
    if column.is_null(0) {
        return Err(());
    }
    Ok(match kind {
        Kind::Float => Ok((column.as_primitive::<Float64Type>().value(0) + 0.0).to_bits()),
        Kind::Narrow | Kind::Wide => Ok(column.as_primitive::<Int64Type>().value(0) as u64),
        Kind::Unsigned => Ok(column.as_primitive::<UInt64Type>().value(0)),
        Kind::Bytes => Err(column.as_binary::<i32>().value(0).to_vec()),
    })
}

/// Rows gathered before answers are finished: their raw results stay in the processor's nearest caches.
pub(super) const BLOCK: usize = numeric::LANES;

/// Answers of rows, gathered column by column.
pub(super) struct Answers {
    rows: Vec<u64>,
    sums: Vec<Accumulator>,
    extrema: Vec<(i64, i64)>,
    lasts: Vec<(u64, u8)>,
    gathered: usize,
    /// Per pair that extrema are asked of: whether each gathered row has inputs.
    present: Vec<bool>,
    columns: Vec<Gathered>,
    groups: Vec<Group>,
    /// Outputs that belong to no group.
    single: Vec<usize>,
    moments: Box<Moments>,
}

/// Outputs made of the sums of one pair of floats, finished together.
struct Group {
    pair: usize,
    /// Whether squares are needed.
    squares: bool,
    outputs: Vec<usize>,
}

/// The groups of a layout, and the outputs that belong to none.
fn groups(layout: &Layout) -> (Vec<Group>, Vec<usize>) {
    let (mut groups, mut single) = (Vec::<Group>::new(), Vec::new());
    for (at, output) in layout.outputs.iter().enumerate() {
        let (pair, squares) = match output.source {
            Source::Sum { pair } | Source::Mean { pair } => (pair, false),
            Source::Variance { pair, sample: false, .. } => (pair, true),
            _ => {
                single.push(at);
                continue;
            }
        };
        if output.kind != Kind::Float {
            single.push(at);
            continue;
        }
        match groups.iter_mut().find(|g| g.pair == pair) {
            Some(group) => {
                group.squares |= squares;
                group.outputs.push(at);
            }
            None => groups.push(Group { pair, squares, outputs: vec![at] }),
        }
    }
    (groups, single)
}

/// One output column under construction.
#[derive(Default)]
struct Gathered {
    words: Vec<u64>,
    /// Rows that are null, rising.
    nulls: Vec<u32>,
    texts: Vec<Option<Box<[u8]>>>,
}

impl Answers {
    pub(super) fn new(layout: &Layout) -> Self {
        let (groups, single) = groups(layout);
        Answers {
            groups,
            single,
            moments: Box::default(),
            rows: vec![0; BLOCK * layout.windows.len()],
            sums: vec![Accumulator::ZERO; BLOCK * layout.pairs.len()],
            extrema: vec![(0, 0); BLOCK * layout.extrema.len()],
            lasts: vec![(0, 0); BLOCK * layout.lasts.len()],
            gathered: 0,
            present: vec![false; layout.pairs.len()],
            columns: layout.outputs.iter().map(|_| Gathered::default()).collect(),
        }
    }

    /// Makes room for the answers of a batch.
    pub(super) fn begin(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.words = Vec::with_capacity(rows);
        }
    }

    /// The next row's raw results; call [`Self::done`] when they are filled in.
    #[inline(always)]
    pub(super) fn row(&mut self, layout: &Layout) -> Raw<'_> {
        #[inline(always)]
        fn part<T>(all: &mut [T], row: usize, width: usize) -> &mut [T] {
            debug_assert!(row < BLOCK && all.len() == BLOCK * width);
            // SAFETY: every list has room for a block of rows, and `done` keeps the row below that.
            unsafe { all.get_unchecked_mut(row * width..(row + 1) * width) }
        }
        let row = self.gathered;
        Raw {
            rows: part(&mut self.rows, row, layout.windows.len()),
            sums: part(&mut self.sums, row, layout.pairs.len()),
            extrema: part(&mut self.extrema, row, layout.extrema.len()),
            lasts: part(&mut self.lasts, row, layout.lasts.len()),
        }
    }

    /// A row is filled in.
    #[inline(always)]
    pub(super) fn done(&mut self, layout: &Layout, texts: &Texts) {
        self.gathered += 1;
        if self.gathered == BLOCK {
            self.finish_block(layout, texts);
        }
    }

    /// Has the next row be this one of the batch. All rows of a block, in any order, come before [`Self::through`] its last.
    #[inline(always)]
    pub(super) fn at(&mut self, row: usize) {
        self.gathered = row % BLOCK;
    }

    /// The batch's rows up to this one are filled in.
    #[inline(always)]
    pub(super) fn through(&mut self, row: usize, layout: &Layout, texts: &Texts) {
        self.at(row);
        self.done(layout, texts);
    }

    fn finish_block(&mut self, layout: &Layout, texts: &Texts) {
        let rows = std::mem::take(&mut self.gathered);
        let pairs = layout.pairs.len();
        for output in &layout.outputs {
            if let Source::Min { pair, .. } | Source::Max { pair, .. } = output.source {
                let sums = self.sums[pair..].iter().step_by(pairs).take(rows);
                self.present[pair] = sums.fold(true, |all, sums| all & (sums.count() != 0));
            }
        }
        for group in &self.groups {
            let sums = &self.sums[..rows * pairs];
            if numeric::moments(sums, group.pair, pairs, group.squares, &mut self.moments) {
                for at in &group.outputs {
                    let values = match layout.outputs[*at].source {
                        Source::Sum { .. } => &self.moments.sum,
                        Source::Mean { .. } => &self.moments.mean,
                        Source::Variance { root: true, .. } => &self.moments.stddev,
                        _ => &self.moments.variance,
                    };
                    self.columns[*at].words.extend(values[..rows].iter().map(|v| v.to_bits()));
                }
            } else {
                for at in &group.outputs {
                    let mut column = std::mem::take(&mut self.columns[*at]);
                    self.finish_one(layout, texts, *at, rows, &mut column);
                    self.columns[*at] = column;
                }
            }
        }
        for i in 0..self.single.len() {
            let at = self.single[i];
            let mut column = std::mem::take(&mut self.columns[at]);
            self.finish_one(layout, texts, at, rows, &mut column);
            self.columns[at] = column;
        }
        self.columns.iter().for_each(Gathered::prefetch);
    }

    /// Finishes one output row by row.
    fn finish_one(&self, layout: &Layout, texts: &Texts, at: usize, rows: usize, column: &mut Gathered) {
        let output = &layout.outputs[at];
        if self.copy_present(layout, output, rows, &mut column.words) {
            return;
        }
        let (pairs, windows) = (layout.pairs.len(), layout.windows.len());
        let sums = |pair: usize| self.sums[pair..].iter().step_by(pairs.max(1)).take(rows);
        let scale = output.kind.scale();
        let default = output.default;
        match output.source {
            Source::Rows { window } => {
                let counts = self.rows[window..].iter().step_by(windows).take(rows);
                column.gather(rows, counts.map(|n| if *n == 0 { default } else { Some(*n) }));
            }
            Source::Count { pair } => {
                column.gather(rows, sums(pair).map(|a| if a.count() == 0 { default } else { Some(a.count()) }));
            }
            Source::Sum { pair } if output.data_type.is_integer() => column.gather(
                rows,
                sums(pair).map(|a| match a.count() {
                    0 => default,
                    _ => numeric::sum_i64(a).map(|s| s as u64),
                }),
            ),
            Source::Sum { pair } => column.gather(
                rows,
                sums(pair).map(|a| match a.count() {
                    0 => default,
                    _ => numeric::sum(a, scale).map(f64::to_bits),
                }),
            ),
            Source::Mean { pair } => column.gather(
                rows,
                sums(pair).map(|a| match a.count() {
                    0 => default,
                    _ => numeric::mean(a, scale).map(f64::to_bits),
                }),
            ),
            Source::Variance { pair, sample, root } => column.gather(
                rows,
                sums(pair).map(|a| {
                    let variance = || numeric::variance(a, scale, sample);
                    match a.count() {
                        0 => default,
                        _ if root => variance().map(|v| v.sqrt().to_bits()),
                        _ => variance().map(f64::to_bits),
                    }
                }),
            ),
            Source::Min { extrema, pair } | Source::Max { extrema, pair } => {
                let max = matches!(output.source, Source::Max { .. });
                let found = self.extrema[extrema..].iter().step_by(layout.extrema.len()).take(rows);
                column.gather(
                    rows,
                    sums(pair).zip(found).map(|(a, e)| {
                        let key = if max { e.1 } else { e.0 };
                        match (a.count(), output.kind) {
                            (0, _) => default,
                            (_, Kind::Float) => Some(float_of_key(key).to_bits()),
                            (_, Kind::Unsigned) => Some(key as u64 ^ 1 << 63),
                            _ => Some(key as u64),
                        }
                    }),
                );
            }
            Source::Last { last } => {
                let found = self.lasts[last..].iter().step_by(layout.lasts.len()).take(rows);
                if output.kind == Kind::Bytes {
                    column.texts.extend(found.map(|(word, state)| match state {
                        0 => output.default_text.as_deref().map(Into::into),
                        1 => None,
                        _ => Some(texts.get(*word).into()),
                    }));
                } else {
                    column.gather(
                        rows,
                        found.map(|(word, state)| match state {
                            0 => default,
                            1 => None,
                            _ => Some(*word),
                        }),
                    );
                }
            }
        }
    }

    /// Appends counts, smallest and largest values, when every row has some; `false` when the rows need to be looked at.
    fn copy_present(&self, layout: &Layout, output: &Output, rows: usize, words: &mut Vec<u64>) -> bool {
        let start = words.len();
        match output.source {
            Source::Rows { window } => {
                words.extend(self.rows[window..].chunks(layout.windows.len()).take(rows).map(|row| row[0]));
                let present = words[start..].iter().fold(true, |present, rows| present & (*rows != 0));
                if !present {
                    words.truncate(start);
                }
                present
            }
            Source::Min { extrema, pair } | Source::Max { extrema, pair } if self.present[pair] => {
                let max = matches!(output.source, Source::Max { .. });
                let found = self.extrema[extrema..].chunks(layout.extrema.len()).take(rows);
                let found = found.map(|row| if max { row[0].1 } else { row[0].0 });
                match output.kind {
                    Kind::Float => words.extend(found.map(|key| float_of_key(key).to_bits())),
                    Kind::Unsigned => words.extend(found.map(|key| key as u64 ^ 1 << 63)),
                    _ => words.extend(found.map(|key| key as u64)),
                }
                true
            }
            _ => false,
        }
    }

    /// The answers of all rows since [`Self::begin`].
    pub(super) fn finish(&mut self, layout: &Layout, texts: &Texts) -> Result<Vec<ArrayRef>, ViewError> {
        if self.gathered > 0 {
            self.finish_block(layout, texts);
        }
        layout.outputs.iter().zip(&mut self.columns).map(|(output, column)| column.finish(output)).collect()
    }
}

impl Gathered {
    /// Asks for the place of the next block: the columns of a large batch are long out of the nearest caches by then, and a
    /// block's writes would all wait for them at once.
    fn prefetch(&self) {
        let next = self.words.as_ptr_range().end;
        (0..BLOCK).step_by(8).for_each(|word| prefetch(next.wrapping_add(word)));
    }

    #[inline(always)]
    fn gather(&mut self, rows: usize, values: impl Iterator<Item = Option<u64>>) {
        let start = self.words.len();
        self.words.resize(start + rows, 0);
        for (row, (word, value)) in self.words[start..].iter_mut().zip(values).enumerate() {
            match value {
                Some(value) => *word = value,
                None => self.nulls.push((start + row) as u32),
            }
        }
    }

    fn finish(&mut self, output: &Output) -> Result<ArrayRef, ViewError> {
        let words = std::mem::take(&mut self.words);
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; words.len()];
            self.nulls.drain(..).for_each(|row| valid[row as usize] = false);
            NullBuffer::new(BooleanBuffer::from(valid))
        });
        let to = &output.data_type;
        if matches!(output.source, Source::Last { .. }) && output.kind == Kind::Bytes {
            return text_array(std::mem::take(&mut self.texts), to);
        }
        let floats = matches!(output.source, Source::Mean { .. } | Source::Variance { .. })
            || (matches!(output.source, Source::Sum { .. }) && !to.is_integer())
            || (matches!(output.source, Source::Min { .. } | Source::Max { .. } | Source::Last { .. })
                && output.kind == Kind::Float);
        // The words are the values' bits, so the buffer is used as it is.
        let buffer = arrow::buffer::Buffer::from_vec(words);
        let array: ArrayRef = if floats {
            Arc::new(Float64Array::new(buffer.into(), nulls))
        } else if output.kind == Kind::Unsigned
            && matches!(output.source, Source::Min { .. } | Source::Max { .. } | Source::Last { .. })
        {
            Arc::new(UInt64Array::new(buffer.into(), nulls))
        } else {
            Arc::new(Int64Array::new(buffer.into(), nulls))
        };
        restore(array, to)
    }
}

/// From `Float64`, `Int64` or `UInt64` to the output's own type.
fn restore(array: ArrayRef, to: &DataType) -> Result<ArrayRef, ViewError> {
    if array.data_type() == to {
        return Ok(array);
    }
    let reinterpret = |array: ArrayRef| -> Result<ArrayRef, ViewError> {
        Ok(arrow::array::make_array(array.to_data().into_builder().data_type(to.clone()).build()?))
    };
    match to {
        DataType::Timestamp(..) | DataType::Date64 | DataType::Time64(_) | DataType::Duration(_) => reinterpret(array),
        DataType::Date32 | DataType::Time32(_) => {
            let narrow: Int32Array = array.as_primitive::<Int64Type>().unary::<_, Int32Type>(|v| v as i32);
            reinterpret(Arc::new(narrow))
        }
        _ => Ok(cast(&array, to)?),
    }
}

fn text_array(texts: Vec<Option<Box<[u8]>>>, to: &DataType) -> Result<ArrayRef, ViewError> {
    let array: ArrayRef = match to {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let mut builder = BinaryBuilder::new();
            texts.iter().for_each(|t| builder.append_option(t.as_deref()));
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = StringBuilder::new();
            // The bytes came from a text column, so they are text.
            texts.iter().for_each(|t| builder.append_option(t.as_deref().and_then(|t| std::str::from_utf8(t).ok())));
            Arc::new(builder.finish())
        }
    };
    if array.data_type() == to { Ok(array) } else { Ok(cast(&array, to)?) }
}

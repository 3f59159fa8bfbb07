//! Raw results of rows turned into columns of answers.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Float64Array, Int32Array, Int64Array, StringBuilder, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};

use super::ViewError;
use super::keys::Texts;
use super::layout::{Kind, Layout, Level, Output, Source};
use super::value::Raw;
use crate::features::numeric::{self, Accumulator, Block, float_of_key};

/// Rows gathered before answers are finished: their raw results stay in the processor's nearest caches.
const BLOCK: usize = Block::ROWS;

/// Answers of rows, gathered column by column.
pub(super) struct Answers {
    rows: Vec<u64>,
    sums: Vec<Accumulator>,
    extrema: Vec<(i64, i64)>,
    lasts: Vec<(u64, u8)>,
    gathered: usize,
    columns: Vec<Gathered>,
    block: Block,
    floats: [f64; BLOCK],
    words: [u64; BLOCK],
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
        Answers {
            rows: vec![0; BLOCK * layout.windows.len()],
            sums: vec![Accumulator::ZERO; BLOCK * layout.pairs.len()],
            extrema: vec![(0, 0); BLOCK * layout.extrema.len()],
            lasts: vec![(0, 0); BLOCK * layout.lasts.len()],
            gathered: 0,
            columns: layout.outputs.iter().map(|_| Gathered::default()).collect(),
            block: Block::default(),
            floats: [0.0; BLOCK],
            words: [0; BLOCK],
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
            &mut all[row * width..(row + 1) * width]
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

    fn finish_block(&mut self, layout: &Layout, texts: &Texts) {
        let rows = std::mem::take(&mut self.gathered);
        let all = u64::MAX >> (BLOCK - rows);
        let mut loaded = usize::MAX;
        let (block, floats, words) = (&mut self.block, &mut self.floats, &mut self.words);
        for (output, column) in layout.outputs.iter().zip(&mut self.columns) {
            let (default, pairs) = (output.default, layout.pairs.len());
            if let Some(pair) = output.source.pair()
                && pair != loaded
            {
                let level = layout.pairs[pair].level;
                let sums = self.sums[pair..].iter().step_by(pairs).take(rows);
                block.load(sums, output.kind.scale(), level >= Level::Sum, level >= Level::Squares);
                loaded = pair;
            }
            let there = match output.source {
                Source::Rows { window } => {
                    let mut there = 0;
                    for (row, n) in self.rows[window..].iter().step_by(layout.windows.len()).take(rows).enumerate() {
                        words[row] = *n;
                        there |= u64::from(*n != 0) << row;
                    }
                    column.gather(&words[..rows], there, all & !there, default);
                    continue;
                }
                Source::Count { pair } => {
                    let sums = self.sums[pair..].iter().step_by(pairs).take(rows);
                    sums.zip(&mut *words).for_each(|(a, word)| *word = a.count());
                    block.counted()
                }
                Source::Sum { pair } if output.data_type.is_integer() => {
                    let mut there = 0;
                    for (row, a) in self.sums[pair..].iter().step_by(pairs).take(rows).enumerate() {
                        let sum = numeric::sum_i64(a);
                        words[row] = sum.unwrap_or(0) as u64;
                        there |= u64::from(sum.is_some()) << row;
                    }
                    there
                }
                Source::Sum { .. } => {
                    let there = block.sums(floats);
                    bits(floats, words);
                    there
                }
                Source::Mean { .. } => {
                    let there = block.means(floats);
                    bits(floats, words);
                    there
                }
                Source::Variance { sample, root, .. } => {
                    let there = block.variances(sample, root, floats);
                    bits(floats, words);
                    there
                }
                Source::Min { extrema, .. } | Source::Max { extrema, .. } => {
                    let max = matches!(output.source, Source::Max { .. });
                    let found = self.extrema[extrema..].iter().step_by(layout.extrema.len()).take(rows);
                    for (word, e) in words.iter_mut().zip(found) {
                        let key = if max { e.1 } else { e.0 };
                        *word = match output.kind {
                            Kind::Float => float_of_key(key).to_bits(),
                            Kind::Unsigned => key as u64 ^ 1 << 63,
                            _ => key as u64,
                        };
                    }
                    block.counted()
                }
                Source::Last { last } => {
                    let found = self.lasts[last..].iter().step_by(layout.lasts.len()).take(rows);
                    if output.kind == Kind::Bytes {
                        column.texts.extend(found.map(|(word, state)| match state {
                            0 => output.default_text.as_deref().map(Into::into),
                            1 => None,
                            _ => Some(texts.get(*word).into()),
                        }));
                        continue;
                    }
                    let (mut there, mut none) = (0, 0);
                    for (row, (word, state)) in found.enumerate() {
                        words[row] = *word;
                        none |= u64::from(*state == 0) << row;
                        there |= u64::from(*state == 2) << row;
                    }
                    column.gather(&words[..rows], there, none, default);
                    continue;
                }
            };
            column.gather(&words[..rows], there & all, all & !block.counted(), default);
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

/// The bits of floats.
#[inline(always)]
fn bits(floats: &[f64; BLOCK], words: &mut [u64; BLOCK]) {
    for (word, float) in words.iter_mut().zip(floats) {
        *word = float.to_bits();
    }
}

impl Gathered {
    /// Takes in the values of rows: those that are `there`, the default for `none` (nothing in the window), else null.
    #[inline(always)]
    fn gather(&mut self, values: &[u64], there: u64, none: u64, default: Option<u64>) {
        let start = self.words.len();
        self.words.extend_from_slice(values);
        if there.count_ones() as usize != values.len() {
            self.fill_gaps(start, there, none, default);
        }
    }

    #[inline(never)]
    fn fill_gaps(&mut self, start: usize, there: u64, none: u64, default: Option<u64>) {
        for row in start..self.words.len() {
            let bit = 1 << (row - start);
            if there & bit == 0 {
                let default = default.filter(|_| none & bit != 0);
                self.words[row] = default.unwrap_or(0);
                if default.is_none() {
                    self.nulls.push(row as u32);
                }
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

//! Counts the values of columns into cells, a chunk of a column at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::grid::{CHUNK_ROWS, Edges, Grid, ROUND, fixed_cell, fixed_rest};
use super::histogram::{Categories, Histogram, Numeric};

/// Values whose cells are found before they are counted.
const BLOCK: usize = 512;
/// Beyond this, sums are clamped; so are values that are this many times the reference's largest.
const SUM_MAX: f64 = 79_228_162_514_264_337_593_543_950_336.0;
/// Units that a chunk's 64-bit sums have room for.
const IN_DENSE: f64 = 35_184_372_088_832.0;
/// Fixed cells in one page.
const PAGE: usize = 256;

/// How a column is counted.
#[derive(Clone, Debug)]
pub enum Kind {
    /// By cells.
    Numeric(Arc<Grid>),
    /// By category.
    Categories,
    /// Only whether there is one.
    Nulls,
}

/// Counts a column's values until they are [taken](Counter::take).
pub struct Counter {
    counting: Counting,
}

enum Counting {
    Reference { grid: Arc<Grid>, dense: Box<Dense>, pending: u64, spilled: Numeric },
    Fixed { pages: Box<Pages>, pending: u64, spilled: Numeric },
    Categories { interned: HashMap<Box<str>, u32>, counts: Vec<u64>, nulls: u64, cache: Box<[u32; 256]> },
    Nulls { nulls: i64, others: i64 },
}

/// Cells of a reference, in a table without a bounds check.
struct Dense {
    cells: [(u64, i64); 1024],
}

/// Fixed cells that have values, by pages.
struct Pages {
    index: [u16; 4096],
    pages: Vec<[(u64, u64); PAGE]>,
}

impl Counter {
    /// Counts nothing yet.
    pub fn new(kind: &Kind) -> Counter {
        let counting = match kind {
            Kind::Numeric(grid) => match **grid {
                Grid::Reference(_) => Counting::Reference {
                    grid: Arc::clone(grid),
                    dense: Box::new(Dense { cells: [(0, 0); 1024] }),
                    pending: 0,
                    spilled: Numeric::default(),
                },
                Grid::Fixed => Counting::Fixed {
                    pages: Box::new(Pages { index: [u16::MAX; 4096], pages: Vec::new() }),
                    pending: 0,
                    spilled: Numeric::default(),
                },
            },
            Kind::Categories => Counting::Categories {
                interned: HashMap::new(),
                counts: Vec::new(),
                nulls: 0,
                cache: Box::new([u32::MAX; 256]),
            },
            Kind::Nulls => Counting::Nulls { nulls: 0, others: 0 },
        };
        Counter { counting }
    }

    /// Counts the values of a column. `missing` hears of the rows that have none.
    ///
    /// # Errors
    /// When the column's type is neither a number nor a category.
    pub fn count(&mut self, column: &ArrayRef, missing: &mut Missing) -> Result<(), ArrowError> {
        match &mut self.counting {
            Counting::Reference { grid, dense, pending, spilled } => {
                let Grid::Reference(edges) = &**grid else { return Ok(()) };
                let values = Numbers::of(column)?;
                missing.nulls(column.nulls());
                for from in (0..column.len()).step_by(CHUNK_ROWS as usize) {
                    let rows = (column.len() - from).min(CHUNK_ROWS as usize);
                    if *pending + rows as u64 > CHUNK_ROWS {
                        dense.spill(edges, spilled);
                        *pending = 0;
                    }
                    *pending += rows as u64;
                    let nulls = column.nulls().map(|nulls| nulls.slice(from, rows));
                    count_reference(edges, dense, spilled, &values, nulls, (from, rows), missing);
                }
            }
            Counting::Fixed { pages, pending, spilled } => {
                let values = numbers(column)?;
                missing.nulls(values.nulls());
                *pending += values.len() as u64;
                // Sums of so many rests fit 64 bits.
                if *pending >= 1 << 18 {
                    pages.spill(spilled);
                    *pending = values.len() as u64;
                }
                for (row, x) in values.values().iter().enumerate() {
                    if values.is_null(row) {
                        spilled.nulls += 1;
                    } else if x.is_finite() {
                        pages.count(*x);
                    } else {
                        spilled.not_finite += 1;
                        missing.row(row);
                    }
                }
            }
            Counting::Categories { interned, counts, nulls, cache } => {
                missing.nulls(column.nulls());
                *nulls += count_categories(column, interned, counts, cache)?;
            }
            Counting::Nulls { nulls, others } => {
                missing.nulls(column.nulls());
                let mut count = column.null_count();
                if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
                    for (row, x) in floats.values().iter().enumerate() {
                        if !x.is_finite() && floats.is_valid(row) {
                            count += 1;
                            missing.row(row);
                        }
                    }
                }
                *nulls += count as i64;
                *others += (column.len() - count) as i64;
            }
        }
        Ok(())
    }

    /// What was counted since the last time; nothing when nothing was.
    pub fn take(&mut self) -> Histogram {
        match &mut self.counting {
            Counting::Reference { grid, dense, pending, spilled } => {
                if let Grid::Reference(edges) = &**grid {
                    dense.spill(edges, spilled);
                }
                *pending = 0;
                Histogram::Numeric(std::mem::take(spilled))
            }
            Counting::Fixed { pages, pending, spilled } => {
                pages.spill(spilled);
                *pending = 0;
                Histogram::Numeric(std::mem::take(spilled))
            }
            Counting::Categories { interned, counts, nulls, .. } => {
                let mut all = Categories { nulls: std::mem::take(nulls).cast_signed(), ..Categories::default() };
                for (name, index) in interned.iter() {
                    let count = std::mem::take(&mut counts[*index as usize]);
                    all.add_category(name, count.cast_signed());
                }
                // Names that come once each are not kept for ever.
                if interned.len() > super::histogram::CATEGORIES_MAX {
                    *self = Counter::new(&Kind::Categories);
                }
                Histogram::Categories(all)
            }
            Counting::Nulls { nulls, others } => {
                let (nulls, others) = (std::mem::take(nulls), std::mem::take(others));
                Histogram::Categories(Categories { nulls, others, ..Categories::default() })
            }
        }
    }
}

/// Rows that lack a value in some column.
#[derive(Debug, Default)]
pub struct Missing {
    rows: usize,
    words: Vec<u64>,
}

impl Missing {
    /// For a batch of so many rows.
    pub fn new(rows: usize) -> Missing {
        Missing { rows, words: Vec::new() }
    }

    fn row(&mut self, row: usize) {
        self.words.resize(self.rows.div_ceil(64), 0);
        self.words[row / 64] |= 1 << (row % 64);
    }

    fn nulls(&mut self, nulls: Option<&NullBuffer>) {
        let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else { return };
        self.words.resize(self.rows.div_ceil(64), 0);
        let chunks = nulls.inner().bit_chunks();
        for (word, valid) in self.words.iter_mut().zip(chunks.iter_padded()) {
            *word |= !valid;
        }
        if let Some(last) = self.words.last_mut().filter(|_| !self.rows.is_multiple_of(64)) {
            *last &= (1 << (self.rows % 64)) - 1;
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Adds a value to a numeric column's state, or takes it away again.
pub fn add_value(histogram: &mut Numeric, grid: &Grid, x: f64, sign: i64) {
    if !x.is_finite() {
        histogram.not_finite += sign;
        return;
    }
    let cell = grid.cell(x);
    let units = match grid {
        Grid::Fixed => i128::from(fixed_rest(x)),
        Grid::Reference(edges) => {
            if cell == 0 || cell as usize == edges.edges().len() {
                histogram.widen(x, x);
            }
            (x * edges.scale()).round_ties_even().clamp(-SUM_MAX, SUM_MAX) as i128
        }
    };
    histogram.add_cell(cell, sign, i128::from(sign) * units);
}

/// A column as floats.
pub fn numbers(column: &ArrayRef) -> Result<Float64Array, ArrowError> {
    match column.data_type() {
        DataType::Float64 => Ok(column.as_primitive().clone()),
        DataType::Boolean | DataType::Decimal128(..) => Ok(cast(column, &DataType::Float64)?.as_primitive().clone()),
        other if other.is_numeric() => Ok(cast(column, &DataType::Float64)?.as_primitive().clone()),
        other => Err(ArrowError::CastError(format!("a column of type {other} is no number"))),
    }
}

/// Values of a column, as floats whenever they are looked at.
enum Numbers {
    Floats(Float64Array),
    Words(Int64Array),
}

impl Numbers {
    fn of(column: &ArrayRef) -> Result<Numbers, ArrowError> {
        match column.as_primitive_opt::<Int64Type>() {
            Some(words) => Ok(Numbers::Words(words.clone())),
            None => numbers(column).map(Numbers::Floats),
        }
    }

    /// Some of the values, which `room` has room for.
    #[inline(always)]
    fn block<'a>(&'a self, from: usize, rows: usize, room: &'a mut [f64; BLOCK]) -> &'a [f64] {
        match self {
            Numbers::Floats(floats) => &floats.values()[from..from + rows],
            Numbers::Words(words) => {
                let room = &mut room[..rows];
                room.iter_mut().zip(&words.values()[from..from + rows]).for_each(|(place, word)| *place = *word as f64);
                room
            }
        }
    }
}

#[inline(never)]
fn count_reference(
    edges: &Edges,
    dense: &mut Dense,
    spilled: &mut Numeric,
    values: &Numbers,
    nulls: Option<NullBuffer>,
    (from, rows): (usize, usize),
    missing: &mut Missing,
) {
    let last = edges.edges().len() as u32;
    let scale = edges.scale();
    let (mut cells, mut sums, mut room) = ([0u32; BLOCK], [0i64; BLOCK], [0.0; BLOCK]);
    let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
    for start in (0..rows).step_by(BLOCK) {
        let values = values.block(from + start, BLOCK.min(rows - start), &mut room);
        edges.cells(values, &mut cells);
        for (sum, x) in sums.iter_mut().zip(values) {
            *sum = ((*x * scale + ROUND).to_bits().wrapping_sub(ROUND.to_bits())).cast_signed();
        }
        if let Some(nulls) = &nulls {
            for (row, cell) in cells[..values.len()].iter_mut().enumerate() {
                if nulls.is_null(start + row) {
                    *cell = u32::MAX;
                }
            }
        }
        for (row, ((x, cell), units)) in values.iter().zip(cells).zip(sums).enumerate() {
            // The lowest cell is below the reference or NaN, the highest above; neither is usual.
            if cell.wrapping_sub(1) < last - 1 {
                let (count, sum) = &mut dense.cells[cell as usize & 1023];
                *count += 1;
                *sum += units;
            } else if cell == u32::MAX {
                spilled.nulls += 1;
            } else if x.is_finite() {
                spilled.widen(*x, *x);
                let units = (x * scale).round_ties_even().clamp(-SUM_MAX, SUM_MAX);
                if units.abs() <= IN_DENSE {
                    let (count, sum) = &mut dense.cells[cell as usize & 1023];
                    *count += 1;
                    *sum += units as i64;
                } else {
                    spilled.add_cell(cell, 1, units as i128);
                }
            } else {
                spilled.not_finite += 1;
                missing.row(from + start + row);
            }
        }
    }
}

impl Dense {
    fn spill(&mut self, edges: &Edges, into: &mut Numeric) {
        for (index, cell) in self.cells[..=edges.edges().len()].iter_mut().enumerate() {
            let (count, sum) = std::mem::take(cell);
            if count > 0 {
                into.add_cell(index as u32, count.cast_signed(), i128::from(sum));
            }
        }
    }
}

impl Pages {
    #[inline(always)]
    fn count(&mut self, x: f64) {
        let cell = fixed_cell(x) as usize;
        let mut page = self.index[(cell / PAGE) & 4095];
        if page == u16::MAX {
            page = self.pages.len() as u16;
            self.index[(cell / PAGE) & 4095] = page;
            self.pages.push([(0, 0); PAGE]);
        }
        let (count, sum) = &mut self.pages[page as usize][cell % PAGE];
        *count += 1;
        *sum += fixed_rest(x);
    }

    fn spill(&mut self, into: &mut Numeric) {
        for (high, page) in self.index.iter().enumerate().filter(|(_, page)| **page != u16::MAX) {
            for (low, cell) in self.pages[*page as usize].iter_mut().enumerate() {
                let (count, sum) = std::mem::take(cell);
                if count > 0 {
                    into.add_cell((high * PAGE + low) as u32, count.cast_signed(), i128::from(sum));
                }
            }
        }
    }
}

/// Counts categories; returns the rows without one.
fn count_categories(
    column: &ArrayRef,
    interned: &mut HashMap<Box<str>, u32>,
    counts: &mut Vec<u64>,
    cache: &mut [u32; 256],
) -> Result<u64, ArrowError> {
    let mut intern = |name: &str, counts: &mut Vec<u64>| match interned.get(name) {
        Some(index) => *index,
        None => {
            counts.push(0);
            let index = counts.len() as u32 - 1;
            interned.insert(name.into(), index);
            index
        }
    };
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            let valid = values.len() - values.null_count();
            let yes = values.true_count();
            for (name, count) in [("true", yes), ("false", valid - yes)] {
                if count > 0 {
                    let index = intern(name, counts);
                    counts[index as usize] += count as u64;
                }
            }
        }
        DataType::Dictionary(key, _) if **key == DataType::Int32 => {
            let values = column.as_dictionary::<Int32Type>();
            let names = cast(values.values(), &DataType::Utf8)?;
            let names = names.as_string::<i32>();
            let mut by_key = vec![0u64; names.len()];
            for key in values.keys().iter().flatten() {
                by_key[key as usize] += 1;
            }
            for (key, count) in by_key.into_iter().enumerate().filter(|(_, count)| *count > 0) {
                let index = intern(names.value(key), counts);
                counts[index as usize] += count;
            }
        }
        _ => {
            let names = match column.data_type() {
                DataType::Utf8 => column.clone(),
                _ => cast(column, &DataType::Utf8)?,
            };
            let names = names.as_string::<i32>();
            // The cell of the last name of each hash: most rows have one of few names.
            let mut told: Vec<Option<&str>> = vec![None; 256];
            for name in names.iter().flatten() {
                let bytes = name.as_bytes();
                let mut word = [0u8; 8];
                let head = bytes.len().min(8);
                word[..head].copy_from_slice(&bytes[..head]);
                let hash = (u64::from_le_bytes(word) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
                let at = hash as usize & 255;
                if told[at] != Some(name) {
                    cache[at] = intern(name, counts);
                    told[at] = Some(name);
                }
                counts[cache[at] as usize] += 1;
            }
        }
    }
    Ok(column.null_count() as u64)
}

//! The state of one column in one window: how many values each cell has and what they sum to, how many were missing.
//!
//! Counts and sums are integers, so that adding and taking away commute and undo each other: the state of a window is the
//! same in whatever order, by whichever workers and in however many pieces its rows were counted, and a row that is
//! withdrawn leaves nothing behind.

use std::collections::BTreeMap;

use super::grid::Grid;

/// Categories of a column that are told apart in a window: the first in the order of their text. Which those are does not
/// depend on the order of rows.
pub const CATEGORIES_MAX: usize = 4096;

/// The state of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Histogram {
    /// Of a numeric column.
    Numeric(Numeric),
    /// Of a column of categories.
    Categories(Categories),
}

/// Count and sum of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Values.
    pub count: i64,
    /// Their sum, in units that the grid knows.
    pub sum: i128,
}

/// The state of a numeric column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numeric {
    /// Missing values.
    pub nulls: i64,
    /// Values that are no finite number.
    pub not_finite: i64,
    /// The cells that have values.
    pub cells: BTreeMap<u32, Cell>,
    /// Smallest and largest value outside of the reference. What was taken away stays in them until nothing is outside.
    pub outside: Option<(f64, f64)>,
}

/// The state of a column of categories.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Categories {
    /// Missing values.
    pub nulls: i64,
    /// Values of further categories.
    pub others: i64,
    /// Values by category.
    pub counts: BTreeMap<Box<str>, i64>,
}

impl Histogram {
    /// Missing values; numbers that are not finite are such, too.
    pub fn missing(&self) -> u64 {
        match self {
            Histogram::Numeric(n) => (n.nulls + n.not_finite).max(0) as u64,
            Histogram::Categories(c) => c.nulls.max(0) as u64,
        }
    }

    /// Values that are there.
    pub fn present(&self) -> u64 {
        let count = match self {
            Histogram::Numeric(n) => n.cells.values().map(|c| c.count).sum::<i64>(),
            Histogram::Categories(c) => c.counts.values().sum::<i64>() + c.others,
        };
        count.max(0) as u64
    }

    /// Adds another of the same column; one of another kind of column changes nothing.
    pub fn add(&mut self, other: &Histogram) {
        self.merge(other, 1);
    }

    /// Undoes [`Histogram::add`].
    pub fn subtract(&mut self, other: &Histogram) {
        self.merge(other, -1);
    }

    fn merge(&mut self, other: &Histogram, sign: i64) {
        match (self, other) {
            (Histogram::Numeric(a), Histogram::Numeric(b)) => a.merge(b, sign),
            (Histogram::Categories(a), Histogram::Categories(b)) => a.merge(b, sign),
            _ => {}
        }
    }
}

impl Numeric {
    fn merge(&mut self, other: &Numeric, sign: i64) {
        self.nulls += sign * other.nulls;
        self.not_finite += sign * other.not_finite;
        for (index, add) in &other.cells {
            self.add_cell(*index, sign * add.count, i128::from(sign) * add.sum);
        }
        if let Some((low, high)) = other.outside.filter(|_| sign > 0) {
            self.widen(low, high);
        }
    }

    pub(super) fn widen(&mut self, low: f64, high: f64) {
        let (a, b) = self.outside.unwrap_or((low, high));
        self.outside = Some((a.min(low), b.max(high)));
    }

    pub(super) fn add_cell(&mut self, index: u32, count: i64, sum: i128) {
        let cell = self.cells.entry(index).or_default();
        cell.count += count;
        cell.sum += sum;
        if *cell == Cell::default() {
            self.cells.remove(&index);
        }
    }

    /// Sum of all values.
    pub fn sum(&self, grid: &Grid) -> f64 {
        self.cells.iter().map(|(i, c)| grid.value_of(*i, c.count, c.sum)).sum()
    }
}

impl Categories {
    fn merge(&mut self, other: &Categories, sign: i64) {
        self.nulls += sign * other.nulls;
        self.others += sign * other.others;
        for (name, count) in &other.counts {
            self.add_category(name, sign * count);
        }
    }

    pub(super) fn add_category(&mut self, name: &str, count: i64) {
        match self.counts.get_mut(name) {
            Some(held) => {
                *held += count;
                if *held == 0 {
                    self.counts.remove(name);
                }
                return;
            }
            None if count == 0 => return,
            None => {}
        }
        if self.counts.len() >= CATEGORIES_MAX {
            match self.counts.last_key_value() {
                Some((last, _)) if name < &**last => {
                    if let Some((_, gone)) = self.counts.pop_last() {
                        self.others += gone;
                    }
                }
                _ => {
                    self.others += count;
                    return;
                }
            }
        }
        self.counts.insert(name.into(), count);
    }
}

/// Bytes of a histogram, for snapshots and for the way to the worker that adds it up.
pub mod codec {
    use super::*;

    /// Appends a histogram.
    pub fn write(histogram: &Histogram, out: &mut Vec<u8>) {
        match histogram {
            Histogram::Numeric(n) => {
                out.push(0);
                put(out, n.nulls);
                put(out, n.not_finite);
                put(out, n.cells.len() as i64);
                let (low, high) = n.outside.unwrap_or((f64::NAN, f64::NAN));
                out.extend_from_slice(&low.to_le_bytes());
                out.extend_from_slice(&high.to_le_bytes());
                let mut before = 0;
                for (index, cell) in &n.cells {
                    put(out, i64::from(index - before));
                    before = *index;
                    put(out, cell.count);
                    put(out, cell.sum as i64);
                    put(out, (cell.sum >> 64) as i64);
                }
            }
            Histogram::Categories(c) => {
                out.push(1);
                put(out, c.nulls);
                put(out, c.others);
                put(out, c.counts.len() as i64);
                for (name, count) in &c.counts {
                    text(out, name);
                    put(out, *count);
                }
            }
        }
    }

    /// Appends a number in as few bytes as it needs.
    pub fn put(out: &mut Vec<u8>, number: i64) {
        let mut word = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while word >= 0x80 {
            out.push(word as u8 | 0x80);
            word >>= 7;
        }
        out.push(word as u8);
    }

    /// Appends a text.
    pub fn text(out: &mut Vec<u8>, text: &str) {
        put(out, text.len() as i64);
        out.extend_from_slice(text.as_bytes());
    }

    /// Reads what was written here.
    pub struct Reader<'a>(pub &'a [u8]);

    impl<'a> Reader<'a> {
        /// A number.
        pub fn number(&mut self) -> Option<i64> {
            let mut word = 0u64;
            for shift in (0..64).step_by(7) {
                let (byte, rest) = self.0.split_first()?;
                self.0 = rest;
                word |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    return Some((word >> 1).cast_signed() ^ -(word & 1).cast_signed());
                }
            }
            None
        }

        /// A text.
        pub fn text(&mut self) -> Option<&'a str> {
            let length = usize::try_from(self.number()?).ok()?;
            let (text, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            std::str::from_utf8(text).ok()
        }

        /// A float.
        pub fn float(&mut self) -> Option<f64> {
            let (bytes, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            Some(f64::from_le_bytes(*bytes))
        }

        /// A histogram.
        pub fn histogram(&mut self) -> Option<Histogram> {
            let (kind, rest) = self.0.split_first()?;
            self.0 = rest;
            let (nulls, second, count) = (self.number()?, self.number()?, self.number()?);
            if *kind == 0 {
                let (low, high) = (self.float()?, self.float()?);
                let outside = (!low.is_nan()).then_some((low, high));
                let mut numeric = Numeric { nulls, not_finite: second, outside, ..Numeric::default() };
                let mut index = 0u32;
                for _ in 0..count {
                    index = index.checked_add(u32::try_from(self.number()?).ok()?)?;
                    let (count, low, high) = (self.number()?, self.number()?, self.number()?);
                    let sum = i128::from(high) << 64 | i128::from(low.cast_unsigned());
                    numeric.cells.insert(index, Cell { count, sum });
                }
                return Some(Histogram::Numeric(numeric));
            }
            let mut categories = Categories { nulls, others: second, ..Categories::default() };
            for _ in 0..count {
                let name = self.text()?.into();
                categories.counts.insert(name, self.number()?);
            }
            Some(Histogram::Categories(categories))
        }
    }
}

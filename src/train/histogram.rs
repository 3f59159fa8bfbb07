//! Histograms of gradients in fixed point, and the best split that one shows.
//!
//! A row's first and second derivative are rounded to integers once per tree, and everything after is sums of integers: the same
//! in any order, on any number of threads, and when one child's histogram is taken from its parent's and its sibling's. The
//! number of rows rides in the low bits of the second sum, so that a cell is two words and one addition of the vector unit.

use super::bins::{Bins, MISSING_BIN, REST_BIN};

/// Bins of a histogram: all that a byte can name.
pub(super) const CELLS: usize = 256;

/// A row of the tree that grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Item {
    /// Which row it is.
    pub row: u32,
    /// Its first derivative, in units of [`Units::gradient`].
    pub gradient: i32,
    /// Its second derivative, in units of [`Units::hessian`].
    pub hessian: u32,
}

/// What the integers stand for, and how they are packed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Units {
    /// Value of one step of the first derivative.
    pub gradient: f64,
    /// Value of one step of the second.
    pub hessian: f64,
    /// Low bits of [`Sums::packed`] that hold the number of rows.
    pub count_bits: u32,
}

impl Units {
    /// Units for a tree of `rows` rows whose derivatives are at most these in size: powers of two, so that scaling is exact.
    pub fn new(rows: usize, gradient_max: f64, hessian_max: f64) -> Units {
        let count_bits = usize::BITS - rows.leading_zeros();
        // Sums of hessians stay below 2^62 with the count beneath them, those of gradients anyhow.
        let hessian_bits = 30.min(62 - 2 * count_bits as i32);
        let unit = |most: f64, bits: i32| {
            let exponent = if most > 0.0 { most.log2().floor() as i32 + 1 } else { 0 };
            2f64.powi(exponent - bits)
        };
        Units { gradient: unit(gradient_max, 30), hessian: unit(hessian_max, hessian_bits), count_bits }
    }
}

/// Sums over some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub(super) struct Sums {
    /// Of first derivatives.
    pub gradient: i64,
    /// Of second derivatives, above the number of rows.
    pub packed: i64,
}

impl Sums {
    #[inline(always)]
    pub fn add(&mut self, other: Sums) {
        self.gradient += other.gradient;
        self.packed += other.packed;
    }

    #[inline(always)]
    pub fn minus(self, other: Sums) -> Sums {
        Sums { gradient: self.gradient - other.gradient, packed: self.packed - other.packed }
    }

    /// Rows.
    #[inline(always)]
    pub fn count(self, units: &Units) -> i64 {
        self.packed & ((1 << units.count_bits) - 1)
    }

    #[inline(always)]
    pub fn gradient(self, units: &Units) -> f64 {
        self.gradient as f64 * units.gradient
    }

    #[inline(always)]
    pub fn hessian(self, units: &Units) -> f64 {
        (self.packed >> units.count_bits) as f64 * units.hessian
    }

    /// The sums of some rows.
    pub fn of(items: &[Item], units: &Units) -> Sums {
        let mut sums = Sums::default();
        for item in items {
            sums.add(item.sums(units));
        }
        sums
    }
}

impl Item {
    #[inline(always)]
    fn sums(self, units: &Units) -> Sums {
        Sums { gradient: self.gradient.into(), packed: (i64::from(self.hessian) << units.count_bits) + 1 }
    }
}

/// One column's histogram.
pub(super) type Histogram = [Sums; CELLS];

/// Adds rows to the histograms of `W` columns whose bins lie row by row in `bins`.
fn add<const W: usize>(histograms: &mut [Histogram], bins: &[u8], items: &[Item], units: &Units) {
    let (bins, _) = bins.as_chunks::<W>();
    let Some(histograms) = histograms.first_chunk_mut::<W>() else { return };
    for item in items {
        let sums = item.sums(units);
        let row = &bins[item.row as usize];
        for (histogram, bin) in histograms.iter_mut().zip(row) {
            histogram[usize::from(*bin)].add(sums);
        }
    }
}

/// Columns that [`build`] takes at once: their histograms stay in the first-level cache.
pub(super) const WIDTH_MAX: usize = 10;

/// Adds rows to the histograms of the columns whose bins lie row by row in `bins`, as many as there are histograms.
pub(super) fn build(histograms: &mut [Histogram], bins: &[u8], items: &[Item], units: &Units) {
    match histograms.len() {
        1 => add::<1>(histograms, bins, items, units),
        2 => add::<2>(histograms, bins, items, units),
        3 => add::<3>(histograms, bins, items, units),
        4 => add::<4>(histograms, bins, items, units),
        5 => add::<5>(histograms, bins, items, units),
        6 => add::<6>(histograms, bins, items, units),
        7 => add::<7>(histograms, bins, items, units),
        8 => add::<8>(histograms, bins, items, units),
        9 => add::<9>(histograms, bins, items, units),
        _ => add::<WIDTH_MAX>(histograms, bins, items, units),
    }
}

/// What a split must keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub min_rows: i64,
    pub min_hessian: f64,
    pub min_gain: f64,
    pub l2: f64,
    pub category_smooth: f64,
    pub category_l2: f64,
}

/// Bins that go left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Those up to this one.
    AtMost(u8),
    /// Those whose bits are set.
    In([u64; 4]),
}

/// A split of one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub gain: f64,
    pub column: u32,
    pub cut: Cut,
    pub missing_left: bool,
    /// Sums of the rows that go left.
    pub left: Sums,
}

impl Found {
    /// Whether a bin's rows go left.
    pub fn goes_left(&self, bin: u8) -> bool {
        match self.cut {
            _ if bin == MISSING_BIN => self.missing_left,
            Cut::AtMost(last) => bin <= last,
            Cut::In(bits) => bits[usize::from(bin >> 6)] >> (bin & 63) & 1 == 1,
        }
    }
}

/// G² / (H + λ): twice what the loss falls by when the rows have the best value of their own.
#[inline(always)]
fn score(gradient: f64, hessian: f64, l2: f64) -> f64 {
    gradient * gradient / (hessian + l2)
}

struct Search<'a> {
    units: &'a Units,
    rules: &'a Rules,
    total: Sums,
    l2: f64,
    best: f64,
}

impl Search<'_> {
    /// The score of a split with these sums on its left, if it is allowed and the best so far.
    #[inline(always)]
    fn better(&mut self, left: Sums) -> bool {
        let right = self.total.minus(left);
        if left.count(self.units) < self.rules.min_rows || right.count(self.units) < self.rules.min_rows {
            return false;
        }
        let (hl, hr) = (left.hessian(self.units), right.hessian(self.units));
        if hl < self.rules.min_hessian || hr < self.rules.min_hessian {
            return false;
        }
        let score = score(left.gradient(self.units), hl, self.l2) + score(right.gradient(self.units), hr, self.l2);
        // Also false where both sums of second derivatives are nothing, which makes it NaN.
        let better = score > self.best;
        if better {
            self.best = score;
        }
        better
    }
}

/// The split of a column that gains most; of equal ones the first in the order of bins, missing values to the right first.
pub(super) fn best(
    histogram: &Histogram,
    bins: &Bins,
    column: u32,
    total: Sums,
    units: &Units,
    rules: &Rules,
) -> Option<Found> {
    let parent = score(total.gradient(units), total.hessian(units), rules.l2);
    let floor = parent + rules.min_gain + 1e-12 * parent;
    let mut search = Search { units, rules, total, l2: rules.l2, best: floor };
    let absent = histogram[usize::from(MISSING_BIN)];
    let some_absent = absent.count(units) > 0;
    let mut found = None;
    match bins {
        Bins::Number { edges, infinite, .. } => {
            let mut left = Sums::default();
            let rows = total.count(units);
            for (bin, cell) in histogram[..edges.len()].iter().enumerate() {
                left.add(*cell);
                if search.better(left) {
                    found = Some((Cut::AtMost(bin as u8), false, left));
                }
                if some_absent {
                    let mut with = left;
                    with.add(absent);
                    if search.better(with) {
                        found = Some((Cut::AtMost(bin as u8), true, with));
                    }
                }
                if rows - left.count(units) < rules.min_rows {
                    break;
                }
            }
            // Missing values against all others.
            if some_absent && !infinite && search.better(total.minus(absent)) {
                found = Some((Cut::AtMost(edges.len() as u8), false, total.minus(absent)));
            }
        }
        Bins::Category { code, .. } => {
            search.l2 += rules.category_l2;
            let rest = histogram[usize::from(REST_BIN)];
            let mut order: Vec<(f64, u8)> = (0..code.len())
                .filter(|bin| histogram[*bin].count(units) > 0)
                .map(|bin| {
                    let cell = histogram[bin];
                    (cell.gradient(units) / (cell.hessian(units) + rules.category_smooth), bin as u8)
                })
                .collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let others = rest.count(units) > 0;
            // With a rest that cannot go left, a set and its complement are two splits.
            for backwards in [false, true] {
                if backwards && !others {
                    break;
                }
                let (mut left, mut bits) = (Sums::default(), [0u64; 4]);
                for index in 0..order.len() {
                    let at = if backwards { order.len() - 1 - index } else { index };
                    let bin = order[at].1;
                    left.add(histogram[usize::from(bin)]);
                    bits[usize::from(bin >> 6)] |= 1 << (bin & 63);
                    if search.better(left) {
                        found = Some((Cut::In(bits), false, left));
                    }
                    if some_absent {
                        let mut with = left;
                        with.add(absent);
                        if search.better(with) {
                            found = Some((Cut::In(bits), true, with));
                        }
                    }
                }
            }
        }
    }
    let (cut, mut missing_left, left) = found?;
    if !some_absent {
        // None was seen here: one that comes later goes with the many.
        missing_left = 2 * left.count(units) >= total.count(units);
    }
    Some(Found { gain: search.best - parent, column, cut, missing_left, left })
}

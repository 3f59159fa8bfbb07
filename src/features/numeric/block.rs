//! Results of several accumulators at once, in short loops of one kind of step each.

use super::finish::{count_f64, mean_of, parts, spread, variance_of};
use super::fixed::{Accumulator, Scale};

/// The makings of up to [`Block::ROWS`] results. Every result is the bits that the function for one gives.
#[derive(Clone, Debug)]
pub struct Block {
    scale: Scale,
    /// Bit per row: something was added.
    counted: u64,
    /// Bit per row: something was added and the sums are in range.
    sound: u64,
    /// Bit per row: two or more were added and the sums are in range.
    several: u64,
    counts: [f64; Block::ROWS],
    high: [f64; Block::ROWS],
    low: [f64; Block::ROWS],
    spread: [f64; Block::ROWS],
}

impl Default for Block {
    fn default() -> Self {
        let zeros = [0.0; Block::ROWS];
        let (counts, high, low, spread) = (zeros, zeros, zeros, zeros);
        Block { scale: Scale::One, counted: 0, sound: 0, several: 0, counts, high, low, spread }
    }
}

impl Block {
    /// Rows of a block: one per bit of a mask.
    pub const ROWS: usize = 64;

    /// Takes in accumulators: with `sums` for sums and means, with `squares` for variances.
    #[inline(always)]
    pub fn load<'a>(
        &mut self,
        accumulators: impl Iterator<Item = &'a Accumulator>,
        scale: Scale,
        sums: bool,
        squares: bool,
    ) {
        self.scale = scale;
        (self.counted, self.sound, self.several) = (0, 0, 0);
        for (row, a) in accumulators.take(Self::ROWS).enumerate() {
            let sound = a.in_range();
            self.counted |= u64::from(a.count != 0) << row;
            self.sound |= u64::from(a.count != 0 && sound) << row;
            self.several |= u64::from(a.count > 1 && sound) << row;
            self.counts[row] = count_f64(a);
            if sums {
                (self.high[row], self.low[row]) = parts(a.sum, scale);
            }
            if squares {
                self.spread[row] = spread(a);
            }
        }
    }

    /// Rows in which something was added, as bits.
    #[inline(always)]
    pub fn counted(&self) -> u64 {
        self.counted
    }

    /// [`sum`](super::sum) of each row, and the rows that have one.
    #[inline(always)]
    pub fn sums(&self, out: &mut [f64; Self::ROWS]) -> u64 {
        *out = self.high;
        self.sound
    }

    /// [`mean`](super::mean) of each row, and the rows that have one.
    #[inline(always)]
    pub fn means(&self, out: &mut [f64; Self::ROWS]) -> u64 {
        for (row, out) in out.iter_mut().enumerate() {
            *out = mean_of(self.high[row], self.low[row], self.counts[row]);
        }
        self.sound
    }

    /// [`variance`](super::variance) of each row, or its root, and the rows that have one.
    #[inline(always)]
    pub fn variances(&self, sample: bool, root: bool, out: &mut [f64; Self::ROWS]) -> u64 {
        for (row, out) in out.iter_mut().enumerate() {
            let variance = variance_of(self.spread[row], self.counts[row], self.scale, sample);
            *out = if root { variance.sqrt() } else { variance };
        }
        if sample { self.several } else { self.sound }
    }
}

//! ADWIN: a window that is kept as long as its mean has not changed.
//!
//! A. Bifet and R. Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007, in the variant and with the
//! defaults of River 0.26.1. The window is a list of levels; a bucket of level `i` holds the sum of 2^i numbers and the sum of
//! their squared deviations. A level that has one bucket too many merges its two oldest into one of the next level. Every
//! `clock` numbers each border between buckets is tried as a cut into an older part of `n0` numbers and a newer of `n1`: the
//! means differ when they are further apart than
//!
//! ```text
//! ε = sqrt(2 m v δ') + 2/3 m δ',   m = 1/(n0 − l + 1) + 1/(n1 − l + 1),   δ' = ln(2 ln(n) / δ)
//! ```
//!
//! with `v` the variance in the window, `l` the least length of a part. Then the oldest bucket goes, and all cuts are tried anew.

use super::bytes::{Damaged, Reader, put_f64, put_u64};
use crate::plan::model::AdwinPlan;

/// Levels beyond which a window could not be counted.
const LEVELS_MAX: u64 = 63;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    sum: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
}

/// See the module's description.
#[derive(Clone, Debug, PartialEq)]
pub struct Adwin {
    plan: AdwinPlan,
    /// Buckets of 2^i numbers, oldest first; none is empty but the first at the beginning.
    levels: Vec<Vec<Bucket>>,
    width: u64,
    sum: f64,
    squares: f64,
    seen: u64,
    changed: bool,
}

impl Adwin {
    /// A window of nothing.
    pub fn new(plan: AdwinPlan) -> Adwin {
        Adwin { plan, levels: vec![Vec::new()], width: 0, sum: 0.0, squares: 0.0, seen: 0, changed: false }
    }

    /// Takes a number, and says whether the mean has changed.
    pub fn update(&mut self, x: f64) -> bool {
        if self.changed {
            *self = Adwin::new(self.plan);
        }
        self.insert(x);
        self.seen += 1;
        if self.seen.is_multiple_of(self.plan.clock) && self.width > self.plan.grace_period {
            while self.differs() {
                self.changed = true;
                self.forget();
            }
        }
        self.changed
    }

    /// Numbers in the window.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        if self.width == 0 { 0.0 } else { self.sum / self.width as f64 }
    }

    /// Their variance.
    pub fn variance(&self) -> f64 {
        if self.width == 0 { 0.0 } else { self.squares / self.width as f64 }
    }

    /// Buckets held.
    pub fn buckets(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }

    fn insert(&mut self, x: f64) {
        let before = self.width as f64;
        self.width += 1;
        if self.width > 1 {
            let off = x - self.sum / before;
            self.squares += before * off * off / self.width as f64;
        }
        self.sum += x;
        self.levels[0].push(Bucket { sum: x, squares: 0.0 });
        let mut level = 0;
        while self.levels[level].len() > self.plan.max_buckets as usize {
            let (a, b) = (self.levels[level][0], self.levels[level][1]);
            self.levels[level].drain(..2);
            let n = (1u64 << level) as f64;
            let apart = a.sum / n - b.sum / n;
            let merged = Bucket { sum: a.sum + b.sum, squares: a.squares + b.squares + n * 0.5 * apart * apart };
            level += 1;
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(merged);
        }
    }

    /// Drops the oldest bucket.
    fn forget(&mut self) {
        let last = self.levels.len() - 1;
        let oldest = self.levels[last].remove(0);
        if self.levels[last].is_empty() && last > 0 {
            self.levels.pop();
        }
        let count = 1u64 << last;
        self.width -= count;
        self.sum -= oldest.sum;
        let (n, rest) = (count as f64, self.width as f64);
        let apart = oldest.sum / n - self.sum / rest;
        self.squares -= oldest.squares + n * rest * apart * apart / (n + rest);
    }

    /// Whether some cut tells two means apart.
    fn differs(&self) -> bool {
        let least = self.plan.min_window_length as f64;
        let width = self.width as f64;
        // All but the parts' lengths is the same for every cut.
        let confidence = (2.0 * width.ln() / self.plan.delta).ln();
        let (spread, shift) = (self.squares / width, 2.0 / 3.0 * confidence);
        let (mut n0, mut n1, mut sum0, mut sum1) = (0.0, width, 0.0, self.sum);
        for (level, buckets) in self.levels.iter().enumerate().rev() {
            let n = (1u64 << level) as f64;
            for bucket in buckets {
                n0 += n;
                n1 -= n;
                sum0 += bucket.sum;
                sum1 -= bucket.sum;
                if n1 < least {
                    return false;
                }
                if n0 < least {
                    continue;
                }
                let m = 1.0 / (n0 - least + 1.0) + 1.0 / (n1 - least + 1.0);
                let bound = (2.0 * m * spread * confidence).sqrt() + shift * m;
                if (sum0 / n0 - sum1 / n1).abs() > bound {
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        for number in [self.width, self.seen, self.levels.len() as u64] {
            put_u64(out, number);
        }
        put_f64(out, self.sum);
        put_f64(out, self.squares);
        out.push(u8::from(self.changed));
        for level in &self.levels {
            put_u64(out, level.len() as u64);
            for bucket in level {
                put_f64(out, bucket.sum);
                put_f64(out, bucket.squares);
            }
        }
    }

    pub(super) fn load(plan: AdwinPlan, bytes: &mut Reader<'_>) -> Result<Adwin, Damaged> {
        let (width, seen, levels) = (bytes.u64()?, bytes.u64()?, bytes.u64()?);
        let (sum, squares, changed) = (bytes.f64()?, bytes.f64()?, bytes.bool()?);
        if levels == 0 || levels > LEVELS_MAX {
            return Err(Damaged("a window has no levels, or too many"));
        }
        let mut adwin = Adwin { plan, levels: Vec::new(), width, sum, squares, seen, changed };
        let mut counted = 0u64;
        for level in 0..levels {
            let count = bytes.u64()?;
            if count > plan.max_buckets || (count == 0 && levels > 1) {
                return Err(Damaged("a level has no buckets, or too many"));
            }
            let buckets = (0..count).map(|_| Ok(Bucket { sum: bytes.f64()?, squares: bytes.f64()? }));
            adwin.levels.push(buckets.collect::<Result<_, _>>()?);
            counted = counted.saturating_add(count.saturating_mul(1 << level));
        }
        if counted == width { Ok(adwin) } else { Err(Damaged("a window is not as long as its buckets")) }
    }
}

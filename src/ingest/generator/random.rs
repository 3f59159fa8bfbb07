//! Seeded random numbers that do not depend on how they are asked for: every block of traffic and every inhabitant of the
//! world has a sequence of its own, named by (seed, purpose, index).
//!
//! Only integer arithmetic and the four exact floating-point operations touch a draw, so that a seed gives the same bytes
//! on every machine; what needs a transcendental function goes through a table whose entries are rounded ([`Quantiles`]).

use crate::base::hash_u64;

/// What a sequence is for; equal indices of different purposes are independent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Terminal = 1,
    Customer = 2,
    Reach = 3,
    Block = 4,
    TerminalCampaign = 5,
    CustomerCampaign = 6,
    CardTesting = 7,
}

/// One sequence of random words: SplitMix64 (Steele, Lea, Flood 2014) over the crate's 64-bit mixer.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The sequence of (seed, purpose, index).
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Random {
        Random { state: hash_u64(hash_u64(hash_u64(seed).wrapping_add(purpose as u64)).wrapping_add(index)) }
    }

    /// The next 64 random bits.
    #[inline(always)]
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash_u64(self.state)
    }

    /// Uniform in `0..n`.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        scale(high(self.word()), n)
    }

    /// Uniform in `[low, high)`.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.word() >> 11) as f64 * (1.0 / (1u64 << 53) as f64))
    }
}

/// The upper half of a word.
#[inline(always)]
pub(super) fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The lower half of a word.
#[inline(always)]
pub(super) fn low(word: u64) -> u32 {
    word as u32
}

/// Maps 32 random bits onto `0..n` (multiply and shift; a bias below n / 2^32).
#[inline(always)]
pub(super) fn scale(bits: u32, n: u32) -> u32 {
    ((u64::from(bits) * u64::from(n)) >> 32) as u32
}

/// The threshold below which 32 random bits fall with probability `p`.
pub(super) const fn chance(p: f64) -> u32 {
    (p * (1u64 << 32) as f64) as u32
}

const CELLS_LOG2: u32 = 11;
const CELLS: usize = 1 << CELLS_LOG2;

/// Quantiles of a distribution at equal steps of probability, interpolated linearly: a draw costs one lookup.
#[derive(Clone, Debug)]
pub(super) struct Quantiles {
    table: Vec<f64>,
}

impl Quantiles {
    /// The log-normal distribution of mean 1 whose logarithm has standard deviation `sigma`, cut at four deviations.
    ///
    /// The normal distribution function is summed by the trapezoid rule and inverted by interpolation. Entries are rounded
    /// to multiples of 2^-20, so that the last bits of the platform's `exp` do not reach the traffic.
    pub fn log_normal(sigma: f64) -> Quantiles {
        const STEPS: usize = 4096;
        const CUT: f64 = 4.0;
        let z = |i: usize| -CUT + 2.0 * CUT * i as f64 / STEPS as f64;
        let density = |z: f64| (-0.5 * z * z).exp();
        let mut below = vec![0.0; STEPS + 1];
        for i in 1..=STEPS {
            below[i] = below[i - 1] + 0.5 * (density(z(i - 1)) + density(z(i)));
        }
        let total = below[STEPS];
        let mut table = Vec::with_capacity(CELLS + 1);
        let mut i = 0;
        for cell in 0..=CELLS {
            let wanted = total * cell as f64 / CELLS as f64;
            while i + 1 < STEPS && below[i + 1] < wanted {
                i += 1;
            }
            let part = ((wanted - below[i]) / (below[i + 1] - below[i])).clamp(0.0, 1.0);
            let z = z(i) + part * (z(i + 1) - z(i));
            let value = (sigma * z - 0.5 * sigma * sigma).exp();
            table.push((value * f64::from(1u32 << 20)).round() / f64::from(1u32 << 20));
        }
        Quantiles { table }
    }

    /// The value below which a share `bits / 2^32` of the distribution lies.
    #[inline(always)]
    pub fn at(&self, bits: u32) -> f64 {
        let cell = (bits >> (32 - CELLS_LOG2)) as usize;
        let part = f64::from(bits & ((1 << (32 - CELLS_LOG2)) - 1)) * (1.0 / f64::from(1u32 << (32 - CELLS_LOG2)));
        let (from, to) = (self.table[cell], self.table[cell + 1]);
        from + (to - from) * part
    }
}

/// Walker's alias method (Vose 1991): draws an index with the given weight in constant time.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    /// Per index: its own share of its cell in 2^-32, and who has the rest.
    cells: Vec<(u32, u32)>,
}

impl Alias {
    /// Weights are whole numbers so that the table does not depend on the order of summation.
    pub fn new(weights: &[u32]) -> Alias {
        let n = weights.len() as u128;
        let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        // Shares in units of total / n, exactly: a cell is full at `total`.
        let mut share: Vec<u128> = weights.iter().map(|w| u128::from(*w) * n).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..weights.len() as u32).partition(|i| share[*i as usize] < total);
        let mut cells: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        while let (Some(from), Some(to)) = (small.pop(), large.last().copied()) {
            cells[from as usize] = (((share[from as usize] << 32) / total) as u32, to);
            share[to as usize] -= total - share[from as usize];
            if share[to as usize] < total {
                large.pop();
                small.push(to);
            }
        }
        Alias { cells }
    }

    /// The index that 64 random bits draw.
    #[inline(always)]
    pub fn pick(&self, word: u64) -> u32 {
        let index = scale(high(word), self.cells.len() as u32);
        let (own, other) = self.cells[index as usize];
        if low(word) < own { index } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_draws_by_weight() {
        let weights = [0, 1, 2, 3, 10, 84];
        let alias = Alias::new(&weights);
        let mut random = Random::new(1, Purpose::Block, 0);
        let mut seen = [0u32; 6];
        for _ in 0..1_000_000 {
            seen[alias.pick(random.word()) as usize] += 1;
        }
        for (seen, weight) in seen.iter().zip(weights) {
            let expected = f64::from(weight) * 10_000.0;
            assert!((f64::from(*seen) - expected).abs() <= 5.0 * expected.sqrt(), "{seen} for {expected}");
        }
    }

    #[test]
    fn log_normal_has_its_moments() {
        let sigma = 0.47;
        let quantiles = Quantiles::log_normal(sigma);
        assert!((quantiles.at(1 << 31) - (-0.5 * sigma * sigma).exp()).abs() < 1e-4, "median");
        let n = 1_000_000u32;
        let values = (0..n).map(|i| quantiles.at(i * 4294));
        let mean = values.clone().sum::<f64>() / f64::from(n);
        let square = values.map(|v| v * v).sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.005, "mean {mean}");
        let expected = (sigma * sigma).exp() - 1.0;
        assert!(((square - mean * mean) / expected - 1.0).abs() < 0.05, "variance {}", square - mean * mean);
    }

    #[test]
    fn sequences_are_apart() {
        let mut random = Random::new(7, Purpose::Block, 3);
        let first = random.word();
        assert_eq!(first, Random::new(7, Purpose::Block, 3).word());
        assert_ne!(first, Random::new(7, Purpose::Block, 4).word());
        assert_ne!(first, Random::new(7, Purpose::Customer, 3).word());
        assert_ne!(first, Random::new(8, Purpose::Block, 3).word());
    }
}

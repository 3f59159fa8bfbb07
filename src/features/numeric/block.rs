//! The roundings of [`super::finish`], many rows at a time: the same operations in the same order, so the same bits.
//!
//! What is integer work goes row by row into arrays; what is floating point then runs over the arrays, where the compiler
//! makes vectors of it. No operation is fused or reordered on the way, so every processor gives the same.

use super::finish::{UNIT_32, UNIT_64, exact_product, exact_sum, leading, spread};
use super::fixed::{Accumulator, Scale};

/// Most rows of a block.
pub const LANES: usize = 64;

/// Results of a block's rows.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Sums.
    pub sum: [f64; LANES],
    /// Means.
    pub mean: [f64; LANES],
    /// Population variances.
    pub variance: [f64; LANES],
    /// Standard deviations of the population.
    pub stddev: [f64; LANES],
}

impl Default for Moments {
    fn default() -> Self {
        Moments { sum: [0.0; LANES], mean: [0.0; LANES], variance: [0.0; LANES], stddev: [0.0; LANES] }
    }
}

/// Sum, mean and, if `squares`, variance and standard deviation of the floats in `sums[first]`, `sums[first + step]`, …,
/// at most [`LANES`] of them. `false`, and nothing of use in `out`, when a row has no inputs or is not of common size:
/// then they have to be finished one by one.
pub fn moments(sums: &[Accumulator], first: usize, step: usize, squares: bool, out: &mut Moments) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("bmi1") && has!("bmi2") && has!("lzcnt") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { moments_avx512(sums, first, step, squares, out) };
        }
    }
    moments_any(sums, first, step, squares, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,bmi1,bmi2,lzcnt")]
fn moments_avx512(sums: &[Accumulator], first: usize, step: usize, squares: bool, out: &mut Moments) -> bool {
    moments_any(sums, first, step, squares, out)
}

#[inline(always)]
fn moments_any(sums: &[Accumulator], first: usize, step: usize, squares: bool, out: &mut Moments) -> bool {
    let mut whole = [0i64; LANES];
    let mut upper = [0i64; LANES];
    let mut lower = [0i64; LANES];
    let mut count = [1i64; LANES];
    let mut odd = false;
    for (lane, a) in sums[first..].iter().step_by(step).take(LANES).enumerate() {
        whole[lane] = (a.sum >> 64) as i64;
        upper[lane] = (a.sum as u64 >> 32) as i64;
        lower[lane] = i64::from(a.sum as u32);
        count[lane] = a.count as i64;
        // Beyond 2^31 rows or a sum of 2^42 the shortcuts below do not hold.
        odd |= a.count.wrapping_sub(1) >= (1 << 31) - 1 || !a.in_range() || whole[lane].unsigned_abs() >= 1 << 42;
    }
    if odd {
        return false;
    }
    for lane in 0..LANES {
        let (near, error) = exact_sum(whole[lane] as f64, upper[lane] as f64 * UNIT_32);
        let (high, low) = exact_sum(near, error + lower[lane] as f64 * UNIT_64);
        let n = count[lane] as f64;
        let inverse = 1.0 / n;
        let near = high * inverse;
        let (product, error) = exact_product(near, n);
        out.sum[lane] = high;
        out.mean[lane] = near + (((high - product) - error) + low) * inverse;
    }
    if !squares {
        return true;
    }
    let mut digits = [0i64; LANES];
    let mut unit = [0u64; LANES];
    for (lane, a) in sums[first..].iter().step_by(step).take(LANES).enumerate() {
        (digits[lane], unit[lane]) = leading(&spread(a));
    }
    for lane in 0..LANES {
        let numerator = digits[lane] as f64 * f64::from_bits(unit[lane]);
        // Below 2^62, so the product is exact, and so is its conversion's rounding.
        let denominator = (count[lane] * count[lane]) as f64;
        out.variance[lane] = numerator / denominator * Scale::Fraction.unit_squared();
    }
    for lane in 0..LANES {
        out.stddev[lane] = out.variance[lane].sqrt();
    }
    true
}

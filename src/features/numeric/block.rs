//! The roundings of [`super::finish`], many rows at a time: the same operations in the same order, so the same bits.
//!
//! What is integer work goes row by row into arrays; what is floating point then runs over the arrays, where the compiler
//! makes vectors of it. Nothing is reordered on the way, and fused only where the result is exact, so every processor gives the
//! same.

use super::finish::{UNIT_32, UNIT_64, exact_product, exact_sum, limbs_to_f64, spread};
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
    /// What they are made of, word by word: sums, counts, squares. Beyond a block's rows it is an earlier block's.
    words: [[u64; LANES]; 6],
}

impl Default for Moments {
    fn default() -> Self {
        let zeros = [0.0; LANES];
        Moments { sum: zeros, mean: zeros, variance: zeros, stddev: zeros, words: [[0; LANES]; 6] }
    }
}

/// Sum, mean and, if `squares`, variance and standard deviation of the floats in `sums[first]`, `sums[first + step]`, …,
/// at most [`LANES`] of them. `false`, and nothing of use in `out`, when a row has no inputs or is not of common size:
/// then they have to be finished one by one.
pub fn moments(sums: &[Accumulator], first: usize, step: usize, squares: bool, out: &mut Moments) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f")
            && has!("avx512dq")
            && has!("avx512vl")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("fma")
        {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { moments_avx512(sums, first, step, squares, out) };
        }
    }
    moments_any::<false>(sums, first, step, squares, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,bmi1,bmi2,lzcnt,fma")]
fn moments_avx512(sums: &[Accumulator], first: usize, step: usize, squares: bool, out: &mut Moments) -> bool {
    moments_any::<true>(sums, first, step, squares, out)
}

/// `FUSED`: the processor has a fused multiply-add, which gives a product's error as it is, for less.
#[inline(always)]
fn moments_any<const FUSED: bool>(
    sums: &[Accumulator],
    first: usize,
    step: usize,
    squares: bool,
    out: &mut Moments,
) -> bool {
    let rows = || sums[first..].iter().step_by(step).take(LANES);
    let words = &mut out.words;
    let (mut odd, mut large) = (false, 0);
    for (lane, a) in rows().enumerate() {
        words[0][lane] = (a.sum >> 64) as u64;
        words[1][lane] = a.sum as u64;
        words[2][lane] = a.count;
        // Beyond 2^31 rows or a sum of 2^42 the shortcuts below do not hold.
        odd |= a.count.wrapping_sub(1) >= (1 << 31) - 1 || !a.in_range();
        odd |= ((a.sum >> 64) as i64).unsigned_abs() >= 1 << 42;
        if squares {
            words[3][lane] = a.squares[0] as u64;
            words[4][lane] = (a.squares[0] >> 64) as u64;
            words[5][lane] = a.squares[1] as u64;
            large |= a.squares[1] >> 64;
        }
    }
    if odd {
        return false;
    }
    if !squares {
        for lane in 0..LANES {
            let words = std::array::from_fn(|word| out.words[word][lane]);
            (out.sum[lane], _, out.mean[lane]) = mean::<FUSED>(words);
        }
        return true;
    }
    let mut unsure = [0u64; LANES];
    for (lane, unsure) in unsure.iter_mut().enumerate() {
        let words = std::array::from_fn(|word| out.words[word][lane]);
        let (high, low, mean) = mean::<FUSED>(words);
        let n = lower(words[2]);
        let (least, most) = numerator::<FUSED>(words, (high, low));
        // One row has no spread.
        let one = words[2] == 1;
        *unsure = u64::from((least != most) & !one);
        (out.sum[lane], out.mean[lane]) = (high, mean);
        out.variance[lane] = if one { 0.0 } else { most } / (n * n);
        out.stddev[lane] = out.variance[lane].sqrt();
    }
    let unsure = |lane: usize| unsure[lane] != 0 || large != 0;
    if (0..LANES).any(unsure) {
        for (lane, a) in rows().enumerate().filter(|(lane, _)| unsure(*lane)) {
            let n = lower(a.count);
            out.variance[lane] = limbs_to_f64(&spread(a)) * Scale::Fraction.unit_squared() / (n * n);
            out.stddev[lane] = out.variance[lane].sqrt();
        }
    }
    true
}

/// A sum as two floats, and the mean.
#[inline(always)]
fn mean<const FUSED: bool>([whole, fraction, count, ..]: [u64; 6]) -> (f64, f64, f64) {
    let (near, error) = exact_sum(signed(whole), upper(fraction) * UNIT_32);
    let (high, low) = exact_sum(near, error + lower(fraction) * UNIT_64);
    let n = lower(count);
    let inverse = 1.0 / n;
    let near = high * inverse;
    let (product, error) = product::<FUSED>(near, n);
    (high, low, near + (((high - product) - error) + low) * inverse)
}

/// The floats between which `n·S2 − S1²` is when it is rounded to the nearest, for `S2` below 2^64: as a rule they are one.
///
/// It is had in pairs of floats, to within 2^-100 of `n·S2` when the roundings of all steps are added up, and 2^-116·n for the
/// last of 128 binary digits; the floats are those of four times and sixteen times as far.
#[inline(always)]
fn numerator<const FUSED: bool>([_, _, count, s0, s1, s2]: [u64; 6], (near, far): (f64, f64)) -> (f64, f64) {
    const RELATIVE: f64 = UNIT_64 * UNIT_32 / 4.0;
    const ABSOLUTE: f64 = UNIT_64 * UNIT_32 / 65_536.0;
    // S2 = high + low.
    let (high, e0) = exact_sum(upper(s2) * 4_294_967_296.0, lower(s2));
    let (high, e1) = exact_sum(high, upper(s1) * UNIT_32);
    let (high, e2) = exact_sum(high, lower(s1) * UNIT_64);
    let last = upper(s0) * (UNIT_64 * UNIT_32) + lower(s0) * (UNIT_64 * UNIT_64);
    let low = last + e2 + e1 + e0;
    // n·S2 = p + p_low, S1² = q + q_low.
    let n = lower(count);
    let (p, error) = product::<FUSED>(n, high);
    let p_low = error + n * low;
    let (q, error) = product::<FUSED>(near, near);
    let q_low = error + 2.0 * near * far;
    let (difference, error) = exact_sum(p, -q);
    let low = error + (p_low - q_low);
    let slack = p * RELATIVE + n * ABSOLUTE;
    (difference + (low - slack), difference + (low + slack))
}

#[inline(always)]
fn product<const FUSED: bool>(a: f64, b: f64) -> (f64, f64) {
    if FUSED {
        let product = a * b;
        return (product, a.mul_add(b, -product));
    }
    exact_product(a, b)
}

/// The bits of 2^52: what is added to its digits is added to the number.
const DIGITS: u64 = (1023 + 52) << 52;

/// The upper half of a word.
#[inline(always)]
fn upper(word: u64) -> f64 {
    f64::from_bits(DIGITS | word >> 32) - f64::from_bits(DIGITS)
}

/// The lower half of a word.
#[inline(always)]
fn lower(word: u64) -> f64 {
    f64::from_bits(DIGITS | word & 0xffff_ffff) - f64::from_bits(DIGITS)
}

/// A signed word of magnitude below 2^51.
#[inline(always)]
fn signed(word: u64) -> f64 {
    const MIDDLE: u64 = 1 << 51;
    f64::from_bits(DIGITS | word.wrapping_add(MIDDLE)) - f64::from_bits(DIGITS | MIDDLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixed::{quantise, square};
    use super::*;

    fn words_of(a: &Accumulator) -> [u64; 6] {
        let [low, high] = a.squares;
        [(a.sum >> 64) as u64, a.sum as u64, a.count, low as u64, (low >> 64) as u64, high as u64]
    }

    proptest! {
        /// Where nearly all of `n·S2` is taken away again, what is left shows the errors of all steps.
        #[test]
        fn the_numerator_is_between_its_bounds(
            middle in prop_oneof![-3e9..3e9f64, -100.0..100.0f64],
            spread in prop_oneof![Just(0.0), 1e-9..1e-3f64, 1.0..100.0f64],
            steps in prop::collection::vec(-1.0..1.0f64, 1..300),
        ) {
            let mut a = Accumulator::ZERO;
            for step in steps {
                let m = quantise(middle + step * spread).unwrap();
                a.add_with_square(m, square(m));
            }
            prop_assume!(a.squares[1] >> 64 == 0);
            let exact = limbs_to_f64(&super::spread(&a)) * Scale::Fraction.unit_squared();
            let words = words_of(&a);
            let (high, low, _) = mean::<false>(words);
            let (least, most) = numerator::<false>(words, (high, low));
            prop_assert!(least <= exact && exact <= most, "{least:e} {exact:e} {most:e}");
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("fma") {
                prop_assert_eq!(numerator::<true>(words, (high, low)), (least, most));
            }
        }
    }
}

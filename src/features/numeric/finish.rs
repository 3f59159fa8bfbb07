//! From exact integers to floats: the only roundings there are.

use super::fixed::{Accumulator, Scale};

/// The sum, correctly rounded. `None` when nothing was added or the sum is out of range.
#[inline(always)]
pub fn sum(a: &Accumulator, scale: Scale) -> Option<f64> {
    (a.count != 0 && a.in_range()).then(|| parts(a.sum, scale).0)
}

/// The sum of integers. `None` when nothing was added or the sum does not fit.
#[inline(always)]
pub fn sum_i64(a: &Accumulator) -> Option<i64> {
    if a.count != 0 && a.in_range() { i64::try_from(a.sum).ok() } else { None }
}

/// The mean. `None` when nothing was added or the sum is out of range.
#[inline(always)]
pub fn mean(a: &Accumulator, scale: Scale) -> Option<f64> {
    (a.count != 0 && a.in_range()).then(|| {
        let (high, low) = parts(a.sum, scale);
        let n = a.count as i64 as f64;
        let inverse = 1.0 / n;
        let near = high * inverse;
        // One Newton step on the exact remainder: high + low − near·n, the product in two parts.
        let (product, error) = exact_product(near, n);
        near + (((high - product) - error) + low) * inverse
    })
}

/// The variance: population, or of a sample. `None` when nothing (or less than two for a sample) was added or the sums are
/// out of range.
#[inline(always)]
pub fn variance(a: &Accumulator, scale: Scale, sample: bool) -> Option<f64> {
    if a.count <= u64::from(sample) || !a.in_range() {
        return None;
    }
    let n = a.count;
    let numerator = limbs_to_f64(&spread(a));
    let other = if sample { n - 1 } else { n };
    let denominator = if n < 1 << 31 { (n * other) as i64 as f64 } else { (u128::from(n) * u128::from(other)) as f64 };
    Some(numerator / denominator * scale.unit_squared())
}

/// The standard deviation: the root of [`variance`].
#[inline(always)]
pub fn stddev(a: &Accumulator, scale: Scale, sample: bool) -> Option<f64> {
    variance(a, scale, sample).map(f64::sqrt)
}

pub(super) const UNIT_32: f64 = 1.0 / 4_294_967_296.0;
pub(super) const UNIT_64: f64 = UNIT_32 * UNIT_32;

/// A sum as its nearest float and the rest, itself rounded to 53 bits.
#[inline(always)]
fn parts(sum: i128, scale: Scale) -> (f64, f64) {
    let whole = (sum >> 64) as i64;
    // Below 2^42 the whole part and the two halves of the fraction add up without loss: the conversions are exact, the
    // first addition's error is a multiple of 2^-32 below 2^-11, and what the last digits add to it fits beside it.
    if scale == Scale::Fraction && whole.unsigned_abs() < 1 << 42 {
        let upper = (sum as u64 >> 32) as i64 as f64 * UNIT_32;
        let lower = i64::from(sum as u32) as f64 * UNIT_64;
        let (near, error) = exact_sum(whole as f64, upper);
        return exact_sum(near, error + lower);
    }
    wide_parts(sum, scale)
}

/// [`parts`] of any sum.
#[inline(never)]
fn wide_parts(sum: i128, scale: Scale) -> (f64, f64) {
    let magnitude = sum.unsigned_abs();
    if magnitude == 0 {
        return (0.0, 0.0);
    }
    let zeros = magnitude.leading_zeros();
    let aligned = magnitude << zeros;
    let (top, bottom) = ((aligned >> 64) as u64, aligned as u64);
    // 53 leading bits; then the next 53 with all that follow folded into the last: their sum rounds as the whole does.
    let next = (top & 0x7ff) << 42 | bottom >> 22 | u64::from(bottom & ((1 << 22) - 1) != 0);
    let unit = f64::from_bits(u64::from(1023 + 22 - zeros) << 52) * scale.unit() * if sum < 0 { -1.0 } else { 1.0 };
    exact_sum((top >> 11) as f64 * (unit * 9_007_199_254_740_992.0), next as f64 * unit)
}

/// `a + b` rounded, and its exact error.
/// Source: D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
#[inline(always)]
pub(super) fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a·b` rounded and its exact error, without a fused multiply-add so that every processor gives the same.
/// Source: T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
#[inline(always)]
pub(super) fn exact_product(a: f64, b: f64) -> (f64, f64) {
    const SPLITTER: f64 = 134_217_729.0;
    let halves = |x: f64| {
        let c = SPLITTER * x;
        let high = c - (c - x);
        (high, x - high)
    };
    let ((a1, a2), (b1, b2)) = (halves(a), halves(b));
    let product = a * b;
    (product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2)
}

/// `n·S2 − S1²`, which is never negative, in 320 bits.
#[inline(always)]
pub(super) fn spread(a: &Accumulator) -> [u64; 5] {
    let n = u128::from(a.count);
    let [low, high] = a.squares;
    // n·S2, limb by limb: a limb times n plus a carry is below 2^128.
    let p0 = n * u128::from(low as u64);
    let p1 = n * (low >> 64) + (p0 >> 64);
    let p2 = n * u128::from(high as u64) + (p1 >> 64);
    let p3 = n * (high >> 64) + (p2 >> 64);
    let [q0, q1] = super::square(a.sum);
    let (d0, b0) = (p0 as u64).overflowing_sub(q0 as u64);
    let (d1, b1) = borrow(p1 as u64, (q0 >> 64) as u64, b0);
    let (d2, b2) = borrow(p2 as u64, q1 as u64, b1);
    let (d3, b3) = borrow(p3 as u64, (q1 >> 64) as u64, b2);
    [d0, d1, d2, d3, ((p3 >> 64) as u64).wrapping_sub(u64::from(b3))]
}

#[inline(always)]
fn borrow(a: u64, b: u64, in_: bool) -> (u64, bool) {
    let (d, b1) = a.overflowing_sub(b);
    let (d, b2) = d.overflowing_sub(u64::from(in_));
    (d, b1 | b2)
}

/// The nearest float, half to even.
#[inline(always)]
pub(super) fn limbs_to_f64(limbs: &[u64; 5]) -> f64 {
    let (digits, unit) = leading(limbs);
    digits as f64 * f64::from_bits(unit)
}

/// The leading 63 bits, the last of which also stands for all that follow, and the bits of the float that one of them is
/// worth: the digits' nearest float times that is the number's.
#[inline(always)]
fn leading(limbs: &[u64; 5]) -> (i64, u64) {
    let [bottom, low, high, ..] = *limbs;
    if limbs[4] | limbs[3] == 0 && high != 0 {
        let zeros = high.leading_zeros();
        let pair = (u128::from(high) << 64 | u128::from(low)) << zeros;
        return digits(pair, bottom, 128 - zeros);
    }
    leading_of_any(limbs)
}

/// [`leading`] of any number.
#[inline(never)]
fn leading_of_any(limbs: &[u64; 5]) -> (i64, u64) {
    let mut top = 4;
    while top > 0 && limbs[top] == 0 {
        top -= 1;
    }
    let zeros = limbs[top].leading_zeros();
    if limbs[top] == 0 {
        return (0, 1.0f64.to_bits());
    }
    if top == 0 {
        return digits(u128::from(limbs[0]) << 64 << zeros, 0, 0u32.wrapping_sub(zeros));
    }
    let pair = (u128::from(limbs[top]) << 64 | u128::from(limbs[top - 1])) << zeros;
    let below = limbs[..top - 1].iter().fold(0, |any, limb| any | limb);
    digits(pair, below, 64 * top as u32 - zeros)
}

/// Of a number `pair / 2^64 · 2^exponent` with its top bit set, and anything below it.
#[inline(always)]
fn digits(pair: u128, below: u64, exponent: u32) -> (i64, u64) {
    let top = (pair >> 64) as u64;
    // One bit is dropped to have a signed integer, and kept with what follows: bit 0 lies below the rounding point.
    let rest = (top & 1) | pair as u64 | below;
    let digits = (top >> 1 | u64::from(rest != 0)) as i64;
    (digits, u64::from(1023u32.wrapping_add(1).wrapping_add(exponent)) << 52)
}

//! Exact, order-free numbers: sums kept as integers, rounded once on the way out.
//!
//! **Inputs.** A float `x` stands for the integer `round(x · 2^64)` (half to even): every `f64` of magnitude 2^-12 and
//! above is represented exactly, smaller ones to within 2^-65. Floats from 2^42 on, and infinities, are *beyond range*: they
//! are counted, and make sums null for as long as they are in the window. −0.0 is 0.0; NaN is null. Integers stand for
//! themselves.
//!
//! **Sums.** `S1 = Σm` is kept in 128 bits plus a count of wraps, `S2 = Σm²` in 256 bits. Integer sums do not depend on the
//! order of additions and undo exactly, so a running window, a scan and a fold of tiles are the same bits.
//!
//! **Results.** sum = S1, mean = S1 / n, variance = (n·S2 − S1²) / n², its numerator exact in 320 bits, so that no
//! cancellation is left for floating point. Sum is correctly rounded; mean is, but for a near-tie within 2^-50 ulp;
//! variance is within 1.5 ulp and its root within 1.25.

mod block;
mod finish;
mod fixed;
mod order;

pub use block::{LANES, Moments, moments};
pub use finish::{mean, stddev, sum, sum_i64, variance};
pub use fixed::{Accumulator, FLOAT_LIMIT, Scale, quantise, square};
pub use order::{float_key, float_of_key};

#[cfg(test)]
mod tests;

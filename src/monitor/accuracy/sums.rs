//! Sums of floats that are exact, so that what was added can be taken away again and order does not matter.
//!
//! A float is a whole number of 53 bits times a power of two. Powers are grouped by 32; within a group the whole numbers
//! are added as 128-bit integers, which leaves room for 2^43 of them. Groups that come to nothing are dropped: equal
//! multisets are equal sums, bit for bit.

use differential_dataflow::difference::{IsZero, Multiply};
use serde::{Deserialize, Serialize};

/// An exact sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExactSum(Vec<(i16, i128)>);

/// Bits of a group of exponents.
const GROUP: i32 = 32;

impl ExactSum {
    /// Adds a float `times` times. What is not finite is no number and adds nothing.
    pub fn add(&mut self, value: f64, times: i64) {
        let bits = value.to_bits();
        let raw = (bits >> 52 & 0x7ff) as i32;
        if value == 0.0 || raw == 0x7ff || times == 0 {
            return;
        }
        let fraction = (bits & ((1 << 52) - 1)) as i128;
        let (mantissa, exponent) = if raw == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raw - 1075) };
        let signed = if value < 0.0 { -mantissa } else { mantissa };
        let group = exponent.div_euclid(GROUP) as i16;
        self.put(group, (signed << exponent.rem_euclid(GROUP)) * i128::from(times));
    }

    /// Adds the exact product of two floats `times` times, short of underflow.
    pub fn add_product(&mut self, a: f64, b: f64, times: i64) {
        let high = a * b;
        if high.is_finite() {
            self.add(high, times);
            self.add(a.mul_add(b, -high), times);
        }
    }

    fn put(&mut self, group: i16, value: i128) {
        match self.0.binary_search_by_key(&group, |part| part.0) {
            Ok(at) => {
                self.0[at].1 += value;
                if self.0[at].1 == 0 {
                    self.0.remove(at);
                }
            }
            Err(at) => self.0.insert(at, (group, value)),
        }
    }

    /// Adds another sum.
    pub fn add_sum(&mut self, other: &ExactSum) {
        other.0.iter().for_each(|(group, value)| self.put(*group, *value));
    }

    /// The sum in two floats, of which the second is what the first lacks.
    pub fn get(&self) -> Twofold {
        let scaled = |value: f64, exponent: i32| {
            let half = exponent / 2;
            value * 2f64.powi(half) * 2f64.powi(exponent - half)
        };
        self.0.iter().rev().fold(Twofold::default(), |sum, (group, value)| {
            let exponent = i32::from(*group) * GROUP;
            let high = *value as f64;
            let low = (*value - high as i128) as f64;
            sum + Twofold::of(scaled(high, exponent)) + Twofold::of(scaled(low, exponent))
        })
    }
}

/// A number in two floats: some 106 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Twofold(f64, f64);

impl Twofold {
    /// A float as it is.
    pub fn of(value: f64) -> Twofold {
        Twofold(value, 0.0)
    }

    /// The nearest float.
    pub fn value(self) -> f64 {
        self.0 + self.1
    }
}

impl std::ops::Add for Twofold {
    type Output = Twofold;

    /// Source: Knuth's two-sum (The Art of Computer Programming 2, 4.2.2, theorem B).
    fn add(self, other: Twofold) -> Twofold {
        let sum = self.0 + other.0;
        let back = sum - self.0;
        let lost = (self.0 - (sum - back)) + (other.0 - back) + self.1 + other.1;
        let high = sum + lost;
        Twofold(high, lost - (high - sum))
    }
}

impl std::ops::Sub for Twofold {
    type Output = Twofold;

    fn sub(self, other: Twofold) -> Twofold {
        self + Twofold(-other.0, -other.1)
    }
}

impl std::ops::Mul for Twofold {
    type Output = Twofold;

    fn mul(self, other: Twofold) -> Twofold {
        let high = self.0 * other.0;
        let low = self.0.mul_add(other.0, -high) + self.0 * other.1 + self.1 * other.0;
        Twofold(high, 0.0) + Twofold(low, 0.0)
    }
}

/// Several exact sums that go together.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sums(Vec<ExactSum>);

impl Sums {
    /// The sum at a place.
    pub fn at(&mut self, place: usize) -> &mut ExactSum {
        if self.0.len() <= place {
            self.0.resize_with(place + 1, ExactSum::default);
        }
        &mut self.0[place]
    }

    /// What the sum at a place comes to.
    pub fn get(&self, place: usize) -> Twofold {
        self.0.get(place).map_or(Twofold::default(), ExactSum::get)
    }

    /// Adds others place by place.
    pub fn add(&mut self, other: &Sums) {
        other.0.iter().enumerate().for_each(|(place, sum)| self.at(place).add_sum(sum));
        self.settle();
    }

    /// Sums that came to nothing are as if they had not been.
    pub fn settle(&mut self) {
        while self.0.last().is_some_and(|sum| sum.0.is_empty()) {
            self.0.pop();
        }
    }
}

impl IsZero for Sums {
    fn is_zero(&self) -> bool {
        self.0.iter().all(|sum| sum.0.is_empty())
    }
}

impl Multiply<i64> for Sums {
    type Output = Sums;

    fn multiply(mut self, times: &i64) -> Sums {
        self.0.iter_mut().flat_map(|sum| &mut sum.0).for_each(|(_, value)| *value *= i128::from(*times));
        self.0.iter_mut().for_each(|sum| sum.0.retain(|(_, value)| *value != 0));
        self.settle();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In whatever order, with whatever was there for a while: the same bits, and the true sum.
        #[test]
        fn sums_are_exact(
            mut values in prop::collection::vec(prop_oneof![any::<i32>().prop_map(f64::from), -1e-3..1e3, prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO], 1..40),
            passing in prop::collection::vec(prop::num::f64::NORMAL, 0..10),
        ) {
            let mut first = ExactSum::default();
            values.iter().for_each(|v| first.add(*v, 1));
            values.reverse();
            let mut second = ExactSum::default();
            passing.iter().for_each(|v| second.add(*v, 3));
            values.iter().for_each(|v| second.add(*v, 1));
            passing.iter().for_each(|v| second.add(*v, -3));
            prop_assert_eq!(&first, &second);
            values.iter().for_each(|v| second.add(*v, -1));
            prop_assert_eq!(second, ExactSum::default());
        }

        #[test]
        fn small_numbers_add_up(values in prop::collection::vec(-1_000_000i64..1_000_000, 1..50)) {
            let mut sum = ExactSum::default();
            values.iter().for_each(|v| sum.add(*v as f64 / 1024.0, 1));
            prop_assert_eq!(sum.get().value(), values.iter().sum::<i64>() as f64 / 1024.0);
        }
    }

    #[test]
    fn what_a_float_forgets_is_kept() {
        let mut sum = ExactSum::default();
        [1e300, 1.0, 1e-300, -1e300].iter().for_each(|v| sum.add(*v, 1));
        assert_eq!(sum.get().value(), 1.0);
        sum.add(1.0, -1);
        assert_eq!(sum.get().value(), 1e-300);
        let mut product = ExactSum::default();
        product.add_product(1e8 + 1.0, 1e8 + 1.0, 1);
        product.add(1e16, -1);
        assert_eq!(product.get().value(), 2e8 + 1.0);
    }

    #[test]
    fn sums_go_together() {
        let mut sums = Sums::default();
        sums.at(2).add(0.1, 1);
        let minus = sums.clone().multiply(&-1);
        sums.add(&minus);
        assert!(sums.is_zero() && sums == Sums::default());
    }
}

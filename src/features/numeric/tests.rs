use proptest::prelude::*;

use super::*;

/// Schoolbook integers of 32-bit digits, least first: slow, and independent of the code under test.
#[derive(Clone, Debug, PartialEq)]
struct Big(Vec<u32>);

impl Big {
    fn of(mut x: u128) -> Big {
        let mut digits = Vec::new();
        while x > 0 {
            digits.push(x as u32);
            x >>= 32;
        }
        Big(digits)
    }

    fn trim(mut self) -> Big {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    fn times(&self, other: &Big) -> Big {
        let mut out = vec![0u64; self.0.len() + other.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.0.iter().enumerate() {
                let x = out[i + j] + u64::from(*a) * u64::from(*b) + carry;
                out[i + j] = x & 0xffff_ffff;
                carry = x >> 32;
            }
            out[i + other.0.len()] += carry;
        }
        Big(out.into_iter().map(|d| d as u32).collect()).trim()
    }

    fn plus(&self, other: &Big) -> Big {
        let mut out = Vec::new();
        let mut carry = 0;
        for i in 0..=self.0.len().max(other.0.len()) {
            let x = u64::from(*self.0.get(i).unwrap_or(&0)) + u64::from(*other.0.get(i).unwrap_or(&0)) + carry;
            out.push(x as u32);
            carry = x >> 32;
        }
        Big(out).trim()
    }

    fn minus(&self, other: &Big) -> Big {
        let mut out = Vec::new();
        let mut borrow = 0i64;
        for i in 0..self.0.len() {
            let x = i64::from(self.0[i]) - i64::from(*other.0.get(i).unwrap_or(&0)) - borrow;
            borrow = i64::from(x < 0);
            out.push(x as u32);
        }
        assert_eq!(borrow, 0);
        Big(out).trim()
    }

    /// Within a relative 2^-60 or so.
    fn to_f64_parts(&self) -> (f64, i32) {
        let n = self.0.len();
        let digit = |i: usize| if i < n { u128::from(self.0[n - 1 - i]) } else { 0 };
        let top = digit(0) << 96 | digit(1) << 64 | digit(2) << 32 | digit(3);
        (top as f64, 32 * (n as i32 - 4))
    }
}

fn accumulate(values: &[f64]) -> Accumulator {
    let mut a = Accumulator::ZERO;
    for m in values.iter().map(|x| quantise(*x)) {
        match m {
            Some(m) => a.add_with_square(m, square(m)),
            None => a.add_beyond(),
        }
    }
    a
}

fn ulps(a: f64, b: f64) -> u64 {
    a.to_bits().abs_diff(b.to_bits())
}

fn values() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-1_000_000i64..1_000_000).prop_map(|cents| cents as f64 / 100.0),
        -4.0e12..4.0e12,
        -1.0e-3..1.0e-3,
        Just(0.0),
        (1.0e9..1.000_001e9),
    ]
}

#[test]
fn quantising_rounds_half_to_even() {
    let unit = 2f64.powi(-64);
    let cases = [
        (0.0, 0),
        (-0.0, 0),
        (unit, 1),
        (-unit, -1),
        (unit * 0.5, 0),
        (unit * 1.5, 2),
        (unit * 2.5, 2),
        (unit * -2.5, -2),
        (unit * 0.75, 1),
        (f64::MIN_POSITIVE, 0),
        (f64::from_bits(1), 0),
        (1.0, 1 << 64),
        (-3.25, -(13 << 62)),
    ];
    for (x, m) in cases {
        assert_eq!(quantise(x), Some(m), "{x:e}");
    }
    assert_eq!(quantise(FLOAT_LIMIT), None);
    assert_eq!(quantise(-FLOAT_LIMIT), None);
    assert_eq!(quantise(f64::INFINITY), None);
    assert_eq!(quantise(f64::NAN), None);
    assert!(quantise(FLOAT_LIMIT.next_down()).is_some());
}

#[test]
fn sums_out_of_range_are_null_and_come_back() {
    let mut a = accumulate(&[1.5]);
    a.add_beyond();
    assert_eq!(
        (sum(&a, Scale::Fraction), mean(&a, Scale::Fraction), stddev(&a, Scale::Fraction, false)),
        (None, None, None)
    );
    a.remove_beyond();
    assert_eq!(sum(&a, Scale::Fraction), Some(1.5));
    let big = quantise(FLOAT_LIMIT.next_down()).unwrap();
    let mut a = Accumulator::ZERO;
    for _ in 0..1 << 22 {
        a.add(big);
    }
    assert!(!a.in_range());
    assert_eq!(mean(&a, Scale::Fraction), None);
    for _ in 0..(1 << 22) - 1 {
        a.remove(big);
    }
    assert_eq!(mean(&a, Scale::Fraction), Some(FLOAT_LIMIT.next_down()));
}

#[test]
fn integers_sum_exactly_up_to_their_range() {
    let mut a = Accumulator::ZERO;
    a.add_with_square(i128::from(i64::MAX), square(i128::from(i64::MAX)));
    assert_eq!(sum_i64(&a), Some(i64::MAX));
    a.add_with_square(1, square(1));
    assert_eq!(sum_i64(&a), None);
    assert_eq!(sum(&a, Scale::One), Some(9_223_372_036_854_775_808.0));
}

#[test]
fn a_constant_has_no_variance_however_large() {
    let a = accumulate(&[1_234_567_890.123; 1000]);
    assert_eq!(variance(&a, Scale::Fraction, false), Some(0.0));
    assert_eq!(mean(&a, Scale::Fraction), Some(1_234_567_890.123));
}

proptest! {
    #[test]
    fn floats_from_2_to_the_minus_12_are_exact(x in -4.0e12..4.0e12f64) {
        prop_assume!(x.abs() >= 2f64.powi(-12));
        // The shift back is exact as well, so equality is meant.
        let m = quantise(x).unwrap();
        let back = (m >> 64) as f64 + (m as u64) as f64 / 2f64.powi(64);
        prop_assert!((back - x).abs() <= x.abs() * 2f64.powi(-52));
        let mut a = Accumulator::ZERO;
        a.add(m);
        prop_assert_eq!(sum(&a, Scale::Fraction), Some(x));
        prop_assert_eq!(mean(&a, Scale::Fraction), Some(x));
    }

    #[test]
    fn keys_keep_the_order_of_floats(a in any::<f64>(), b in any::<f64>()) {
        prop_assume!(!a.is_nan() && !b.is_nan() && (a != 0.0 || b != 0.0));
        prop_assert_eq!(float_key(a).cmp(&float_key(b)), a.partial_cmp(&b).unwrap());
        prop_assert_eq!(float_of_key(float_key(a)).to_bits(), a.to_bits());
    }

    #[test]
    fn order_and_history_leave_no_trace(
        mut values in prop::collection::vec(values(), 1..40),
        before in prop::collection::vec(values(), 0..40),
        seed in any::<u64>(),
    ) {
        let once = accumulate(&values);
        let mut other = accumulate(&before);
        let mut state = seed;
        for i in (1..values.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            values.swap(i, (state >> 33) as usize % (i + 1));
        }
        let (left, right) = values.split_at(values.len() / 2);
        for x in left {
            let m = quantise(*x).unwrap();
            other.add_with_square(m, square(m));
        }
        for x in &before {
            let m = quantise(*x).unwrap();
            other.remove_with_square(m, square(m));
        }
        other.merge(&accumulate(right));
        prop_assert_eq!(once, other);
        other.unmerge(&accumulate(right));
        prop_assert_eq!(other, accumulate(left));
        prop_assert_eq!(Accumulator::from_words(once.to_words()), once);
    }

    /// n·S2 − S1² by schoolbook arithmetic, and the mean's and the sum's distance from the exact quotient.
    #[test]
    fn results_are_what_exact_arithmetic_gives(values in prop::collection::vec(values(), 1..60)) {
        let a = accumulate(&values);
        let ms: Vec<i128> = values.iter().map(|x| quantise(*x).unwrap()).collect();
        let total: i128 = ms.iter().sum();
        let n = values.len() as u128;
        let squares = ms.iter().fold(Big(vec![]), |s, m| s.plus(&Big::of(m.unsigned_abs()).times(&Big::of(m.unsigned_abs()))));
        let numerator = Big::of(n).times(&squares).minus(&Big::of(total.unsigned_abs()).times(&Big::of(total.unsigned_abs())));
        let (digits, shift) = numerator.to_f64_parts();
        let expected = digits * 2f64.powi(shift - 128) / (n * n) as f64;
        let got = variance(&a, Scale::Fraction, false).unwrap();
        prop_assert!(ulps(got, expected) <= 2, "variance {got:e}, not {expected:e}");
        prop_assert!(ulps(stddev(&a, Scale::Fraction, false).unwrap(), expected.sqrt()) <= 2);
        let sample = variance(&a, Scale::Fraction, true);
        prop_assert_eq!(sample.is_some(), n > 1);
        if let Some(sample) = sample {
            prop_assert!(ulps(sample, expected * n as f64 / (n - 1) as f64) <= 4);
        }
        prop_assert_eq!(sum(&a, Scale::Fraction), Some(total as f64 * 2f64.powi(-64)));
        // |mean·n − total| ≤ half an ulp of the mean, times n: in exact integers of unit 2^-64 · 2^-k.
        let mean = mean(&a, Scale::Fraction).unwrap();
        if mean.abs() > 2f64.powi(-10) {
            let m = quantise(mean).unwrap();
            let ulp = quantise(mean.abs().next_up()).unwrap() - m.abs();
            let error = (m * n as i128 - total).unsigned_abs();
            prop_assert!(2 * error <= ulp as u128 * n, "mean {mean:e}: {error} of {ulp}");
        }
    }

    #[test]
    fn squares_are_right(m in any::<i128>()) {
        let m = m >> 1;
        let [low, high] = square(m);
        let expected = Big::of(m.unsigned_abs()).times(&Big::of(m.unsigned_abs()));
        let got = [low as u32, (low >> 32) as u32, (low >> 64) as u32, (low >> 96) as u32,
                   high as u32, (high >> 32) as u32, (high >> 64) as u32, (high >> 96) as u32];
        prop_assert_eq!(Big(got.to_vec()).trim(), expected);
    }
}

proptest! {
    #[test]
    fn a_block_is_finished_as_its_rows_are(
        rows in prop::collection::vec(prop::collection::vec(prop_oneof![
            -1e3f64..1e3, 1e-9f64..1e-6, -1e11f64..1e11, Just(0.0), Just(4.25), Just(1e13), 1e9..1.000_001e9f64
        ], 0..12), 1..=LANES),
        copies in 1usize..3,
        common in any::<bool>(),
    ) {
        let mut sums = Vec::new();
        for values in &rows {
            let values: Vec<f64> =
                if common { values.iter().map(|x| x.clamp(-1e9, 1e9)).chain([1.5]).collect() } else { values.clone() };
            sums.extend(std::iter::repeat_n(Accumulator::ZERO, copies - 1));
            sums.push(accumulate(&values));
        }
        let mut block = Moments::default();
        let done = moments(&sums, copies - 1, copies, true, &mut block);
        prop_assert!(done || !common);
        for (row, a) in sums.iter().skip(copies - 1).step_by(copies).enumerate() {
            if !done {
                break;
            }
            let bits = |x: Option<f64>| x.map(f64::to_bits);
            prop_assert_eq!(Some(block.sum[row].to_bits()), bits(sum(a, Scale::Fraction)));
            prop_assert_eq!(Some(block.mean[row].to_bits()), bits(mean(a, Scale::Fraction)));
            prop_assert_eq!(Some(block.variance[row].to_bits()), bits(variance(a, Scale::Fraction, false)));
            prop_assert_eq!(Some(block.stddev[row].to_bits()), bits(stddev(a, Scale::Fraction, false)));
        }
    }
}

#[test]
fn a_block_leaves_alone_what_its_rows_round_otherwise() {
    let half = 2_199_023_255_552.0;
    let mut block = Moments::default();
    for (values, common) in [([-half, -half + 0.25], false), ([-half, -half + 1.25], true), ([half, half], false)] {
        let a = accumulate(&values);
        assert_eq!(moments(&[a], 0, 1, true, &mut block), common, "{values:?}");
        if common {
            assert_eq!(Some(block.sum[0]), sum(&a, Scale::Fraction));
            assert_eq!(Some(block.mean[0]), mean(&a, Scale::Fraction));
        }
    }
}

//! Elementary functions that give the same bits on every machine, and that the compiler can vectorise.
//!
//! The C library's `expf` differs between versions and processors. Here everything is a fixed sequence of IEEE additions and multiplications in double
//! precision (no fused multiply-add), rounded once to single precision at the end.

use std::f64::consts::{LN_2, LOG2_E};

/// `exp(x) − 1` and the power of two it was reduced by: `exp(x) = 2^n · (1 + p)`.
///
/// `x` is reduced to `x = n·ln 2 + r`, |r| ≤ 0.35, and `exp(r) − 1` is its Taylor polynomial of degree 11, whose
/// remainder, below 0.35¹²/12! ≈ 1e-14, vanishes in single precision.
#[inline(always)]
fn reduced(x: f64) -> (f64, f64) {
    // Adding and subtracting 1.5·2^52 rounds to the nearest integer without a library call.
    const SHIFT: f64 = 6755399441055744.0;
    let n = (x * LOG2_E + SHIFT) - SHIFT;
    let r = x - n * LN_2;
    let mut p = 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    (p * r, f64::from_bits((((n + 1023.0 + SHIFT).to_bits()) & 0x7ff) << 52))
}

/// `exp(x)` in double precision, for |x| ≤ 700; beyond, 0 or infinity. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp64(x: f64) -> f64 {
    let bounded = x.clamp(-700.0, 700.0);
    let (p, scale) = reduced(bounded);
    let y = scale + scale * p;
    if x > 700.0 {
        f64::INFINITY
    } else if x < -700.0 {
        0.0
    } else {
        y
    }
}

/// `exp(x)`, within half a unit in the last place and a hair.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp64(x.into()) as f32
}

/// `exp(x) − 1` without cancellation near 0.
#[inline(always)]
pub(crate) fn exp_m1(x: f32) -> f32 {
    let wide: f64 = x.into();
    let (p, scale) = reduced(wide.clamp(-700.0, 700.0));
    let y = scale * p + (scale - 1.0);
    if wide > 700.0 { f32::INFINITY } else { y as f32 }
}

/// The logistic function `1 / (1 + exp(−x))`.
#[inline(always)]
pub(crate) fn logistic(x: f32) -> f32 {
    (1.0 / (1.0 + exp64(-f64::from(x)))) as f32
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // tanh x = (e^2x − 1) / (e^2x + 1); beyond ±20 it is ±1 in single precision.
    let (p, scale) = reduced((2.0 * f64::from(x)).clamp(-40.0, 40.0));
    let m = scale * p + (scale - 1.0);
    (m / (m + 2.0)) as f32
}

/// The natural logarithm. Computed in double precision: the C library's last bit there does not reach single precision.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// `x` to the power `y`.
#[inline(always)]
pub(crate) fn pow(x: f32, y: f32) -> f32 {
    f64::from(x).powf(y.into()) as f32
}

/// The error function: Abramowitz and Stegun 7.1.5's series below 3, 7.1.14's continued fraction above, both in double precision.
pub(crate) fn erf(x: f32) -> f32 {
    let a = f64::from(x).abs();
    let y = if a < 3.0 {
        let (mut term, mut sum, mut k) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() && k < 100.0 {
            k += 1.0;
            term *= -a * a / k;
            sum += term / (2.0 * k + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else if a < 6.0 {
        let mut fraction = a;
        for k in (1..=60).rev() {
            fraction = a + f64::from(k) / 2.0 / fraction;
        }
        1.0 - exp64(-a * a) / fraction / std::f64::consts::PI.sqrt()
    } else if a.is_nan() {
        return x;
    } else {
        1.0
    };
    y.copysign(x.into()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(a: f32, b: f64) -> f64 {
        let rounded = b as f32;
        if a == rounded || (a.is_nan() && rounded.is_nan()) {
            return 0.0;
        }
        let unit = f64::from(rounded.abs().next_up() - rounded.abs()).max(f64::from(f32::from_bits(1)));
        ((f64::from(a) - b) / unit).abs()
    }

    #[test]
    fn agree_with_the_library_to_a_unit_in_the_last_place() {
        let mut x = -110.0f32;
        while x < 110.0 {
            let wide = f64::from(x);
            assert!(ulps(exp(x), wide.exp()) <= 0.51, "exp {x}");
            assert!(ulps(exp_m1(x), wide.exp_m1()) <= 0.51, "exp_m1 {x}");
            assert!(ulps(tanh(x), wide.tanh()) <= 0.51, "tanh {x}");
            assert!(ulps(logistic(x), 1.0 / (1.0 + (-wide).exp())) <= 0.51, "logistic {x}");
            x += 0.0173;
        }
        for x in [1e-8f32, -3e-6, 0.0, -0.0, 1e-30] {
            assert!(ulps(tanh(x), f64::from(x)) <= 1.0, "tanh {x}");
            assert!(ulps(exp_m1(x), f64::from(x).exp_m1()) <= 0.51, "exp_m1 {x}");
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(
            exp(f32::NAN).is_nan()
                && tanh(f32::NAN).is_nan()
                && logistic(f32::NAN).is_nan()
                && exp_m1(f32::NAN).is_nan()
        );
        assert_eq!(logistic(f32::INFINITY), 1.0);
        assert_eq!(logistic(f32::NEG_INFINITY), 0.0);
        assert_eq!((tanh(f32::INFINITY), tanh(-1e9)), (1.0, -1.0));
        assert_eq!((exp_m1(f32::INFINITY), exp_m1(-1e9)), (f32::INFINITY, -1.0));
    }

    #[test]
    fn erf_at_known_points() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.5204998778),
            (1.0, 0.8427007929),
            (2.0, 0.9953222650),
            (2.999, 0.9999777823),
            (3.5, 0.9999992569),
            (9.0, 1.0),
        ] {
            assert!((f64::from(erf(x)) - y).abs() < 1e-7, "erf {x} = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f32::NAN).is_nan());
    }
}

//! Intervals and p-values that hold at every look, however often one looks and whenever one stops.
//!
//! The estimate of a mean, or of a difference of means, is treated as a Gaussian walk whose clock is `n`, the rows of
//! information behind it. Mixed over a normal prior of precision `1 / ρ²` the likelihood ratio is a martingale, so it passes
//! `1 / α` with a probability of at most `α` at whatever time (Ville). Solved for the mean this is the confidence sequence
//!
//! `estimate ± se · sqrt((1 + 1/x) · ln((1 + x) / α²))`, `x = n ρ²`,
//!
//! which is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
//! theory and asymptotic confidence sequences", 2021, theorem 2.2; its dual, the mixture sequential probability ratio test
//! (mSPRT; Robbins 1970; Johari, Pekelis and Walsh, "Always valid inference", 2015), has the p-value
//!
//! `sqrt(1 + x) · exp(−z² x / (2 (1 + x)))`.
//!
//! The p-value is at most `α` exactly when the interval leaves the hypothesis out. It is that of this look, not the smallest of
//! all looks so far, which would hold too: labels may be corrected, and what no longer stands must not count.

/// How a sequence is tuned: it holds for any choice, and is narrowest about where it was tuned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence {
    rho2: f64,
    alpha: f64,
}

impl Sequence {
    /// A sequence that errs with a probability of `alpha`, both sides together, and is narrowest, for as many rows, at `rows`
    /// rows of information.
    ///
    /// The width's derivative is zero where `x = ln((1 + x) / α²)`.
    pub fn tuned(alpha: f64, rows: f64) -> Sequence {
        let base = -2.0 * alpha.ln();
        let mut x = base;
        // Newton's steps; from here the fifth changes nothing.
        for _ in 0..6 {
            x -= (x - base - x.ln_1p()) * (1.0 + x) / x;
        }
        Sequence { rho2: x / rows.max(1.0), alpha }
    }

    /// How many standard errors the interval reaches to each side at `rows` rows of information.
    pub fn reach(&self, rows: f64) -> f64 {
        let x = rows * self.rho2;
        if x <= 0.0 {
            return f64::INFINITY;
        }
        ((1.0 + 1.0 / x) * (x.ln_1p() - 2.0 * self.alpha.ln())).sqrt()
    }

    /// The p-value of an estimate that is `z` standard errors away from the hypothesis.
    pub fn p_value(&self, z: f64, rows: f64) -> f64 {
        let x = rows * self.rho2;
        (0.5 * x.ln_1p() - 0.5 * z * z * x / (1.0 + x)).exp().min(1.0)
    }
}

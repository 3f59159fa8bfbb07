//! Tests with one look, at a number of rows that is fixed before: what sequential tests are measured by.

use statrs::function::erf::{erfc, erfc_inv};

use super::compare::Difference;

/// Probability that a standard normal variable is above `z`.
pub fn above(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// The value that a standard normal variable is above with probability `p`.
pub fn quantile_above(p: f64) -> f64 {
    std::f64::consts::SQRT_2 * erfc_inv(2.0 * p)
}

/// The two-sided p-value of the hypothesis that the true difference is `margin`; it holds for one look.
pub fn p_value(difference: &Difference, margin: f64) -> Option<f64> {
    (difference.error > 0.0).then(|| (2.0 * above((difference.lift - margin).abs() / difference.error)).min(1.0))
}

/// A comparison of two means that is planned: per version, the variance of a row's loss where nothing differs and where
/// the effect is real, the effect, and the challenger's share of the rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Difference of the means.
    pub effect: f64,
    /// Variance of a row where both versions are equal.
    pub variance_equal: f64,
    /// Variances of champion and challenger where they differ.
    pub variances: [f64; 2],
    /// The challenger's share.
    pub share: f64,
}

impl Design {
    /// Of a rate, such as the share of wrong predictions.
    pub fn rate(baseline: f64, effect: f64, share: f64) -> Design {
        let other = baseline + effect;
        let mean = (1.0 - share) * baseline + share * other;
        let of = |rate: f64| rate * (1.0 - rate);
        Design { effect, variance_equal: of(mean), variances: [of(baseline), of(other)], share }
    }

    /// Of a mean whose rows have this standard deviation.
    pub fn mean(deviation: f64, effect: f64, share: f64) -> Design {
        let variance = deviation * deviation;
        Design { effect, variance_equal: variance, variances: [variance; 2], share }
    }

    /// Variance of the difference of means times the rows of both versions, where they differ.
    pub fn spread(&self) -> f64 {
        self.variances[0] / (1.0 - self.share) + self.variances[1] / self.share
    }

    /// Rows of both versions with which a two-sided z-test at `alpha` finds the effect with probability `power`.
    /// Source: Fleiss, Levin and Paik, "Statistical methods for rates and proportions", 4.2.
    pub fn rows(&self, alpha: f64, power: f64) -> f64 {
        let equal = (self.variance_equal * (1.0 / (1.0 - self.share) + 1.0 / self.share)).sqrt();
        let reach = quantile_above(alpha / 2.0) * equal + quantile_above(1.0 - power) * self.spread().sqrt();
        (reach / self.effect).powi(2)
    }

    /// Probability with which that test finds the effect, on its own side, with so many rows of both versions.
    pub fn power(&self, alpha: f64, rows: f64) -> f64 {
        let equal = (self.variance_equal * (1.0 / (1.0 - self.share) + 1.0 / self.share)).sqrt();
        above((quantile_above(alpha / 2.0) * equal - self.effect.abs() * rows.sqrt()) / self.spread().sqrt())
    }
}

//! From which value on a statistic is an alarm.
//!
//! **Calibrated** thresholds ask what the statistic does when nothing has changed: reference and window are samples of `m` and
//! `n` rows of one distribution, and the threshold is exceeded with the stated probability. With 1/N = 1/n + 1/m:
//!
//! - `psi`, `kl` and `js`² are, to second order, N⁻¹ times 1, 1/2 and 1/8 of the chi-square statistic of the 2 × k table, which has
//!   k − 1 degrees of freedom: psi = Σ (q − p) ln(q/p) ≈ Σ (q − p)²/p, kl ≈ ½ Σ (q − p)²/p, jsd ≈ ⅛ Σ (q − p)²/p.
//! - `ks` has Kolmogorov's distribution; ties make alarms rarer than stated.
//! - `wasserstein` times √N has the distribution of ∫|B(F(x))| dx, a Brownian bridge on the reference's distribution: a gamma
//!   distribution with its exact mean and variance is taken.
//! - `shift_sd` times √N is standard normal; both sides count.
//! - `missing` has Fisher's exact test of one side: only a rise is an alarm.
//!
//! **Evidently's** thresholds are fixed: 0.1 for distances, 0.05 for p-values. What they do when nothing has changed depends on the
//! number of rows: with 100 rows and ten bins PSI alone exceeds 0.1 in four windows of ten.

use super::distribution::{
    chi_square_quantile, fisher_critical, gamma_quantile, harmonic, kolmogorov_quantile, normal_quantile,
};
use super::measure::{Measured, Metric};
use super::reference::Reference;

/// Evidently's threshold of distances.
const DISTANCE: f64 = 0.1;
/// Evidently's threshold of p-values.
const P_VALUE: f64 = 0.05;
/// Standard deviation below which Evidently does not go.
const SD_MIN: f64 = 0.001;

/// Where thresholds come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// From the number of rows: alarms without cause have this probability for each statistic and window.
    Calibrated(f64),
    /// Evidently's defaults.
    Evidently,
}

/// The threshold of a statistic of a window with `rows` values and `missing` more without; `None` where there is none.
pub fn threshold(rule: Rule, metric: Metric, measured: &Measured, reference: &Reference, rows: u64, missing: u64) -> Option<f64> {
    let (m, m_missing) = reference.rows();
    let size = harmonic(rows, m);
    match (rule, metric) {
        (_, _) if size == 0.0 && metric != Metric::Missing => None,
        (Rule::Calibrated(tail), Metric::KsP | Metric::ChiSquareP | Metric::ChiSquareEvidentlyP) => Some(tail),
        (Rule::Evidently, Metric::KsP | Metric::ChiSquareP | Metric::ChiSquareEvidentlyP) => Some(P_VALUE),
        (Rule::Calibrated(tail), Metric::Ks) => Some(kolmogorov_quantile(tail, rows, m)),
        (Rule::Evidently, Metric::Ks) => Some(kolmogorov_quantile(P_VALUE, rows, m)),
        (Rule::Evidently, Metric::ChiSquare) => chi_square(measured, P_VALUE),
        (Rule::Evidently, Metric::ShiftSd | Metric::Missing) => None,
        (Rule::Evidently, _) => Some(DISTANCE),
        (Rule::Calibrated(tail), Metric::ChiSquare) => chi_square(measured, tail),
        (Rule::Calibrated(tail), Metric::Psi | Metric::PsiEvidently) => Some(chi_square(measured, tail)? / size),
        (Rule::Calibrated(tail), Metric::Kl) => Some(chi_square(measured, tail)? / (2.0 * size)),
        (Rule::Calibrated(tail), Metric::Js) => Some((chi_square(measured, tail)? / (8.0 * size)).sqrt()),
        (Rule::Calibrated(tail), Metric::Wasserstein) => match reference {
            Reference::Numeric(reference) => {
                let (mean, variance) = reference.wasserstein;
                Some(gamma_quantile(tail, mean, variance) / size.sqrt() / reference.sd.max(SD_MIN))
            }
            Reference::Categories(_) => None,
        },
        (Rule::Calibrated(tail), Metric::ShiftSd) => Some(normal_quantile(tail / 2.0) / size.sqrt()),
        (Rule::Calibrated(tail), Metric::Missing) => {
            let all = rows + missing;
            let critical = fisher_critical(tail, m_missing, all, m + m_missing);
            (all > 0).then(|| (critical as f64 - 1.0) / all as f64)
        }
    }
}

fn chi_square(measured: &Measured, tail: f64) -> Option<f64> {
    // What is in one group cannot differ.
    (measured.degrees >= 1.0).then(|| chi_square_quantile(tail, measured.degrees))
}

/// Whether a value is an alarm by a threshold.
pub fn is_alarm(rule: Rule, metric: Metric, value: f64, threshold: f64) -> bool {
    match metric {
        // As Evidently has it, p-values of KS at the threshold are alarms.
        Metric::KsP if rule == Rule::Evidently => value <= threshold,
        Metric::KsP | Metric::ChiSquareP | Metric::ChiSquareEvidentlyP => value < threshold,
        Metric::ShiftSd => value.abs() > threshold,
        _ if rule == Rule::Evidently => value >= threshold,
        _ => value > threshold,
    }
}

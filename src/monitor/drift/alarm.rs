//! From which value on a statistic is an alarm.
//!
//! **Calibrated** thresholds ask what the statistic does when nothing has changed: reference and window are samples of `m` and
//! `n` rows of one distribution, and the threshold is exceeded with the stated probability. With 1/N = 1/n + 1/m:
//!
//! - `psi`, `kl` and `js`² are, to second order, N⁻¹ times 1, 1/2 and 1/8 of the chi-square statistic of the 2 × k table, which has
//!   k − 1 degrees of freedom: psi = Σ (q − p) ln(q/p) ≈ Σ (q − p)²/p, kl ≈ ½ Σ (q − p)²/p, jsd ≈ ⅛ Σ (q − p)²/p. Their terms of third and
//!   fourth order raise mean and variance, and the quantile of chi-square is moved and stretched accordingly (Read and
//!   Cressie 1988). Where a bin is expected to have fewer than five rows, an empty one decides and no expansion holds: then both
//!   samples are drawn some thousand times from what they have in common, always by the same numbers, and the threshold is
//!   what so many of the draws exceed.
//! - `psi_evidently` of a numeric column with many values has no such threshold: its bins follow the extremes of both samples, of
//!   which each is nearly alone in its bin, so that without any drift a heavy tail exceeds every expansion in four windows of ten.
//! - `ks` has Kolmogorov's distribution; ties make alarms rarer than stated.
//! - `wasserstein` times √N has the distribution of ∫|B(F(x))| dx, a Brownian bridge on the reference's distribution, of which the mean
//!   and variance are computed: see [`bridge_quantile`].
//! - `shift_sd` times √N is standard normal; both sides count.
//! - `missing` has Fisher's exact test of one side: only a rise is an alarm.
//!
//! **Evidently's** thresholds are fixed: 0.1 for distances, 0.05 for p-values. What they do when nothing has changed depends on the
//! number of rows: with 100 rows and ten bins PSI alone exceeds 0.1 in four windows of ten.

use super::distribution::{
    bridge_quantile, chi_square_quantile, fisher_critical, harmonic, kolmogorov_quantile, normal_quantile,
};
use super::measure::{Measured, Metric, value_of_counts};
use super::random::Random;
use super::reference::Reference;

/// Evidently's threshold of distances.
const DISTANCE: f64 = 0.1;
/// Evidently's threshold of p-values.
const P_VALUE: f64 = 0.05;
/// Standard deviation below which Evidently does not go.
const SD_MIN: f64 = 0.001;

/// Rows below which a bin is too small for an expansion.
const FEW: f64 = 5.0;

/// Where thresholds come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// From the number of rows: alarms without cause have this probability for each statistic and window.
    Calibrated(f64),
    /// Evidently's defaults.
    Evidently,
}

/// The threshold of a statistic of a window with `rows` values and `missing` more without; `None` where there is none.
pub fn threshold(
    rule: Rule,
    metric: Metric,
    measured: &Measured,
    reference: &Reference,
    rows: u64,
    missing: u64,
) -> Option<f64> {
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
        (Rule::Calibrated(_), Metric::PsiEvidently) if reference.has_many_values() => None,
        (Rule::Calibrated(tail), Metric::Psi | Metric::PsiEvidently | Metric::Kl | Metric::Js) => {
            by_counts(metric, measured, tail, size)
        }
        (Rule::Calibrated(tail), Metric::Wasserstein) => match reference {
            Reference::Numeric(reference) => {
                let (mean, variance) = reference.wasserstein;
                Some(bridge_quantile(tail, mean, variance) / size.sqrt() / reference.sd.max(SD_MIN))
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

/// Groups that have values.
fn groups(measured: &Measured) -> f64 {
    measured.counts.iter().filter(|(p, q)| p + q > 0.0).count() as f64
}

fn chi_square(measured: &Measured, tail: f64) -> Option<f64> {
    let degrees = groups(measured) - 1.0;
    // What is in one group cannot differ.
    (degrees >= 1.0).then(|| chi_square_quantile(tail, degrees))
}

fn by_counts(metric: Metric, measured: &Measured, tail: f64, size: f64) -> Option<f64> {
    let chi_square = chi_square(measured, tail)?;
    let (n, m) = measured.counts.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.1, sum.1 + pair.0));
    let shares = || measured.counts.iter().map(|(p, q)| (p + q) / (n + m)).filter(|share| *share > 0.0);
    if shares().any(|share| share * n.min(m) < FEW) {
        return drawn(metric, &measured.counts, tail, n, m);
    }
    // The statistic is Σ n p (δ² + a δ³ + b δ⁴) for q = p (1 + δ), times the last.
    let (a, b, unit) = match metric {
        Metric::Kl => (-2.0 / 3.0, 0.5, 0.5),
        Metric::Js => (-0.5, 7.0 / 24.0, 0.125),
        _ => (-0.5, 1.0 / 3.0, 1.0),
    };
    let (k, s) = (groups(measured), shares().map(|share| 1.0 / share).sum::<f64>());
    let smaller = n.min(m);
    let mean = (k - 1.0) + (a * (2.0 - 3.0 * k + s) + 3.0 * b * (1.0 - 2.0 * k + s)) / smaller;
    let more = (2.0 - 2.0 * k - k * k + s)
        + 3.0 * a * (8.0 - 12.0 * k - 2.0 * k * k + 6.0 * s)
        + 3.0 * a * a * (4.0 - 6.0 * k - 3.0 * k * k + 5.0 * s)
        + 12.0 * b * (2.0 - 4.0 * k + 2.0 * s);
    let stretch = (1.0 + more / smaller / (2.0 * (k - 1.0))).max(1.0).sqrt();
    let value = unit * (mean + (chi_square - (k - 1.0)) * stretch) / size;
    Some(if metric == Metric::Js { value.sqrt() } else { value })
}

/// What a statistic exceeds with this probability when both samples are drawn from their common shares.
fn drawn(metric: Metric, counts: &[(f64, f64)], tail: f64, n: f64, m: f64) -> Option<f64> {
    let draws = (10.0 / tail).clamp(1000.0, 20_000.0) as usize;
    let mut random = Random(0x7469_6465_6d69_6c6c);
    let shares: Vec<f64> = counts.iter().map(|(p, q)| (p + q) / (n + m)).collect();
    let mut values = Vec::with_capacity(draws);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..draws {
        random.multinomial(m, &shares, &mut a);
        random.multinomial(n, &shares, &mut b);
        // As in the samples themselves, what nobody has is no group.
        let pairs = a.iter().zip(&b).map(|(p, q)| (*p, *q)).filter(|(p, q)| p + q > 0.0);
        values.push(value_of_counts(metric, pairs.collect())?);
    }
    values.sort_unstable_by(f64::total_cmp);
    let at = ((1.0 - tail) * (draws + 1) as f64).ceil() as usize;
    values.get(at.saturating_sub(1).min(draws - 1)).copied()
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

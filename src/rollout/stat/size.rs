//! How many rows an experiment needs: with one look at the end, and with a look after every row.

use super::fixed::Design;
use super::passage::Passage;
use super::sequence::Sequence;

/// Steps of the grid: more change the fourth digit.
const STEPS: usize = 600;

/// Rows of both versions together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// With one look, at the end.
    pub fixed: f64,
    /// With a look after every row: half of the experiments have decided by then.
    pub median: f64,
    /// They have decided by then with the probability `power`.
    pub most: f64,
    /// The mean of those that stop at `most` at the latest.
    pub mean: f64,
    /// How many experiments have decided by the number of rows of the fixed test.
    pub power_at_fixed: f64,
}

/// The size of an experiment. `expect` tunes the sequence, as `expect_rows` of a rollout; without it, to the fixed size.
/// `None` where the effect is so small that the sequence would take beyond reason.
pub fn size(design: &Design, alpha: f64, power: f64, expect: Option<f64>) -> Option<Size> {
    let fixed = design.rows(alpha, power);
    let information = design.share * (1.0 - design.share);
    let sequence = Sequence::tuned(alpha, expect.unwrap_or(fixed) * information);
    // As `two_sample` does: the smaller version's variance is at least the larger's.
    let mut taken = *design;
    taken.variances[usize::from(design.share <= 0.5)] = design.variances[0].max(design.variances[1]);
    let drift = design.effect.abs() / taken.spread().sqrt();
    // Estimate over its error is a walk over the root of its clock, the rows.
    let upper = |rows: f64| sequence.reach(rows * information) * rows.sqrt();
    let passage = Passage::of(upper, drift, fixed / 1_000.0, fixed * 100.0, STEPS);
    let most = passage.quantile(power)?;
    Some(Size {
        fixed,
        median: passage.quantile(0.5)?,
        most,
        mean: passage.mean_until(most),
        power_at_fixed: passage.by(fixed),
    })
}

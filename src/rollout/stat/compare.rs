//! Two versions compared by a loss of each row: row by row in shadow, by means where each row has one version.

use serde::{Deserialize, Serialize};

use super::moments::{Moments, Sample};
use super::sequence::Sequence;

/// A difference of mean losses, challenger less champion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The estimate; below 0 the challenger is better.
    pub lift: f64,
    /// Its standard error.
    pub error: f64,
    /// Rows of information: the clock of a [`Sequence`].
    pub information: f64,
    /// Mean losses of champion and challenger that differ by `lift`.
    pub losses: [f64; 2],
    /// Rows of champion and challenger.
    pub rows: [i64; 2],
}

impl Difference {
    /// The interval that holds at every look; `None` where nothing varies yet.
    pub fn interval(&self, sequence: &Sequence) -> Option<(f64, f64)> {
        let reach = sequence.reach(self.information) * self.error;
        (self.error > 0.0 && reach.is_finite()).then_some((self.lift - reach, self.lift + reach))
    }

    /// The p-value, at every look, of the hypothesis that the true difference is `margin`.
    pub fn p_value(&self, sequence: &Sequence, margin: f64) -> Option<f64> {
        (self.error > 0.0).then(|| sequence.p_value((self.lift - margin) / self.error, self.information))
    }
}

/// The difference of means of champion and challenger, from strata in each of which shares were the same.
///
/// Rows of different strata are never compared: while a canary grows, traffic changes too, and the challenger's rows are the
/// later ones. A stratum of `n0` and `n1` rows has the weight `n0 n1 / (n0 + n1)`, the information in its difference; weights
/// depend on counts alone. A stratum in which one version has fewer than two rows adds nothing.
///
/// The smaller version's variance is taken as at least the larger's. Losses are skewed: most rows lose little and few a lot. A small
/// share that has met none of the few yet has a low mean *and* a low variance, and would be promoted for it.
pub fn two_sample<'a>(strata: impl Iterator<Item = &'a [Sample; 2]>) -> Option<Difference> {
    let mut sum = Difference { lift: 0.0, error: 0.0, information: 0.0, losses: [0.0; 2], rows: [0; 2] };
    for [champion, challenger] in strata {
        let (Some((m0, v0)), Some((m1, v1))) = (champion.mean(), challenger.mean()) else { continue };
        let (n0, n1) = (champion.rows() as f64, challenger.rows() as f64);
        let weight = n0 * n1 / (n0 + n1);
        sum.information += weight;
        let (of_row0, of_row1) = (v0 * n0, v1 * n1);
        let most = of_row0.max(of_row1);
        sum.error += weight
            * weight
            * match n0 < n1 {
                true => most / n0 + of_row1 / n1,
                false => of_row0 / n0 + most / n1,
            };
        sum.losses[0] += weight * m0;
        sum.losses[1] += weight * m1;
        sum.rows[0] += champion.rows();
        sum.rows[1] += challenger.rows();
    }
    (sum.information > 0.0).then(|| {
        let losses = sum.losses.map(|loss| loss / sum.information);
        Difference { lift: losses[1] - losses[0], error: sum.error.sqrt() / sum.information, losses, ..sum }
    })
}

/// Rows that both versions have scored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairs {
    differences: Sample,
    champion: Moments,
    challenger: Moments,
}

impl Pairs {
    /// Adds a row's losses `times` times.
    pub fn add(&mut self, champion: f64, challenger: f64, group: Option<u16>, times: i64) {
        if champion.is_finite() && challenger.is_finite() {
            self.differences.add(challenger - champion, group, times);
            self.champion.add(champion, times);
            self.challenger.add(challenger, times);
        }
    }

    /// Rows.
    pub fn rows(&self) -> i64 {
        self.differences.rows()
    }

    /// The mean of the rows' differences.
    pub fn difference(&self) -> Option<Difference> {
        let (lift, variance) = self.differences.mean()?;
        let rows = self.differences.rows();
        Some(Difference {
            lift,
            error: variance.sqrt(),
            information: rows as f64,
            losses: [self.champion.mean()?, self.challenger.mean()?],
            rows: [rows, rows],
        })
    }
}

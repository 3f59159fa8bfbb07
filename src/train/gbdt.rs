//! Gradient-boosted trees.

use serde::{Deserialize, Serialize};

use super::data::{Set, Task};
use super::error::TrainError;
use super::learner::Options;
use super::model::Ensemble;

/// Settings of gradient-boosted trees. The defaults suit most sets; more trees at a lower rate suit the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gbdt {
    /// Rounds at most; one tree each, or one per class.
    pub trees: u32,
    /// What part of each tree's answer is added.
    pub rate: f64,
    /// Leaves of a tree at most.
    pub leaves: u32,
    /// Questions from root to leaf at most; none for no limit but that of the leaves.
    pub depth: Option<u32>,
    /// Rows that a leaf has at least.
    pub min_rows: u32,
    /// Sum of second derivatives that a leaf has at least.
    pub min_hessian: f64,
    /// Gain that a split has at least.
    pub min_gain: f64,
    /// L2 penalty on the values of leaves.
    pub l2: f64,
    /// Bins of a column at most, from 2 to 255; missing values have one of their own.
    pub bins: u32,
    /// Share of the rows that each tree sees.
    pub row_share: f64,
    /// Share of the columns that each tree sees.
    pub column_share: f64,
    /// Added to a category's second derivatives when categories are put in order.
    pub category_smooth: f64,
    /// L2 penalty on splits by category, beside `l2`.
    pub category_l2: f64,
    /// Stop when the loss on the validation set has not fallen for so many rounds, and keep the best.
    pub stop_after: Option<u32>,
}

impl Default for Gbdt {
    fn default() -> Self {
        Gbdt {
            trees: 100,
            rate: 0.1,
            leaves: 31,
            depth: None,
            min_rows: 20,
            min_hessian: 1e-3,
            min_gain: 0.0,
            l2: 0.0,
            bins: 255,
            row_share: 1.0,
            column_share: 1.0,
            category_smooth: 10.0,
            category_l2: 10.0,
            stop_after: None,
        }
    }
}

impl Gbdt {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |setting, why: String| Err(TrainError::Setting { learner: "gbdt", setting, why });
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let amount = |x: f64| x >= 0.0 && x.is_finite();
        match self {
            s if !(1..=100_000).contains(&s.trees) => fail("trees", format!("{} is not from 1 to 100000", s.trees)),
            s if !share(s.rate) => fail("rate", format!("{} is not above 0 and at most 1", s.rate)),
            s if !(2..=65_536).contains(&s.leaves) => fail("leaves", format!("{} is not from 2 to 65536", s.leaves)),
            s if s.depth == Some(0) => fail("depth", "0 asks nothing; leave it out, or write 1 or more".to_owned()),
            s if s.min_rows == 0 => fail("min_rows", "0 would allow empty leaves; write 1 or more".to_owned()),
            s if !amount(s.min_hessian) => fail("min_hessian", format!("{} is not at least 0", s.min_hessian)),
            s if !amount(s.min_gain) => fail("min_gain", format!("{} is not at least 0", s.min_gain)),
            s if !amount(s.l2) => fail("l2", format!("{} is not at least 0", s.l2)),
            s if !(2..=255).contains(&s.bins) => fail("bins", format!("{} is not from 2 to 255", s.bins)),
            s if !share(s.row_share) => fail("row_share", format!("{} is not above 0 and at most 1", s.row_share)),
            s if !share(s.column_share) => {
                fail("column_share", format!("{} is not above 0 and at most 1", s.column_share))
            }
            s if !amount(s.category_smooth) => {
                fail("category_smooth", format!("{} is not at least 0", s.category_smooth))
            }
            s if !amount(s.category_l2) => fail("category_l2", format!("{} is not at least 0", s.category_l2)),
            s if s.stop_after == Some(0) => {
                fail("stop_after", "0 would stop before the first tree; leave it out, or write 1 or more".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Fits.
    ///
    /// # Errors
    /// As [`super::learner::fit`].
    pub fn fit(
        &self,
        _set: &Set,
        _task: Task,
        _valid: Option<&Set>,
        _options: &Options,
    ) -> Result<Ensemble, TrainError> {
        Err(TrainError::Stopped)
    }
}

//! Random forests: trees over rows drawn with replacement, each node choosing among a few columns drawn for it.

use serde::{Deserialize, Serialize};

use super::data::{Set, Task};
use super::error::TrainError;
use super::learner::Options;
use super::model::Ensemble;
use super::tree::Criterion;

/// Settings of a random forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forest {
    /// Trees.
    pub trees: u32,
    /// Columns drawn for each node.
    pub columns: Columns,
    /// Questions from root to leaf at most; none for no limit.
    pub depth: Option<u32>,
    /// Rows that a node must have to be split.
    pub min_split: u32,
    /// Rows that a leaf has at least.
    pub min_rows: u32,
    /// What a split of classes is judged by; numbers are judged by their variance.
    pub criterion: Criterion,
    /// Whether rows are drawn with replacement for each tree; otherwise each sees all.
    pub bootstrap: bool,
    /// Bins of a column at most; none for a threshold between any two values.
    pub bins: Option<u32>,
}

/// How many columns a node of a forest chooses among.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// The square root of their number.
    Sqrt,
    /// All of them.
    All,
    /// This share of them.
    Share(f64),
    /// So many.
    Count(u32),
}

impl Default for Forest {
    fn default() -> Self {
        Forest {
            trees: 100,
            columns: Columns::Sqrt,
            depth: None,
            min_split: 2,
            min_rows: 1,
            criterion: Criterion::Gini,
            bootstrap: true,
            bins: None,
        }
    }
}

impl Forest {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |setting, why: String| Err(TrainError::Setting { learner: "forest", setting, why });
        match self {
            s if !(1..=100_000).contains(&s.trees) => fail("trees", format!("{} is not from 1 to 100000", s.trees)),
            s if s.depth == Some(0) => fail("depth", "0 asks nothing; leave it out, or write 1 or more".to_owned()),
            s if s.min_split < 2 => fail("min_split", format!("{} cannot be split; write 2 or more", s.min_split)),
            s if s.min_rows == 0 => fail("min_rows", "0 would allow empty leaves; write 1 or more".to_owned()),
            s if s.bins.is_some_and(|bins| bins < 2) => {
                fail("bins", "one bin cannot be split; leave it out for all values, or write 2 or more".to_owned())
            }
            Forest { columns: Columns::Share(share), .. } if !(*share > 0.0 && *share <= 1.0) => {
                fail("columns", format!("a share of {share} is not above 0 and at most 1"))
            }
            Forest { columns: Columns::Count(0), .. } => {
                fail("columns", "a node must choose among at least 1".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Fits.
    ///
    /// # Errors
    /// As [`super::learner::fit`].
    pub fn fit(&self, _set: &Set, _task: Task, _options: &Options) -> Result<Ensemble, TrainError> {
        Err(TrainError::Stopped)
    }
}

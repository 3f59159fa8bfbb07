//! One decision tree (CART) with thresholds between any two values.

use serde::{Deserialize, Serialize};

use super::cart::{Field, Rules, Target};
use super::data::{Set, Task};
use super::error::TrainError;
use super::learner::{Options, Progress};
use super::model::{Ensemble, Link, Tree};
use super::rank::rank_all;
use crate::base::SplitMix64;

/// What a split of classes is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The chance that two rows of a node have different labels.
    Gini,
    /// The entropy of the labels of a node.
    Entropy,
}

/// Settings of a decision tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionTree {
    /// Questions from root to leaf at most; none for no limit.
    pub depth: Option<u32>,
    /// Rows that a node must have to be split.
    pub min_split: u32,
    /// Rows that a leaf has at least.
    pub min_rows: u32,
    /// What a split of classes is judged by; numbers are judged by their variance.
    pub criterion: Criterion,
}

impl Default for DecisionTree {
    fn default() -> Self {
        DecisionTree { depth: None, min_split: 2, min_rows: 1, criterion: Criterion::Gini }
    }
}

impl DecisionTree {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |setting, why: String| Err(TrainError::Setting { learner: "tree", setting, why });
        match self {
            s if s.depth == Some(0) => fail("depth", "0 asks nothing; leave it out, or write 1 or more".to_owned()),
            s if s.min_split < 2 => fail("min_split", format!("{} cannot be split; write 2 or more", s.min_split)),
            s if s.min_rows == 0 => fail("min_rows", "0 would allow empty leaves; write 1 or more".to_owned()),
            _ => Ok(()),
        }
    }

    /// Fits.
    ///
    /// # Errors
    /// As [`super::learner::fit`].
    pub fn fit(&self, set: &Set, task: Task, options: &Options) -> Result<Ensemble, TrainError> {
        self.check()?;
        options.tell(Progress { done: 0, total: 1, loss: None })?;
        let threads = options.threads.max(1);
        let columns = rank_all(&set.inputs, None, threads);
        let target = Target::new(set, task);
        let rules = Rules {
            depth: self.depth.unwrap_or(u32::MAX),
            min_split: self.min_split,
            min_rows: self.min_rows,
            criterion: self.criterion,
            columns: columns.len(),
            binary: task == Task::Binary,
        };
        let field = Field { columns: &columns, target: &target, rules, threads };
        let nodes = field.grow(&vec![1; set.rows()], &mut SplitMix64::new(options.seed), 1.0);
        options.tell(Progress { done: 1, total: 1, loss: None })?;
        let outputs = outputs(task);
        Ok(Ensemble {
            base: vec![0.0; outputs as usize],
            trees: vec![Tree { nodes, first_output: 0, outputs }],
            link: link(task),
        })
    }
}

/// Values of a leaf.
pub(super) fn outputs(task: Task) -> u32 {
    match task {
        Task::Binary | Task::Regression => 1,
        Task::Classes(n) => n,
    }
}

/// Leaves hold what is told.
pub(super) fn link(task: Task) -> Link {
    match task {
        Task::Binary | Task::Classes(_) => Link::Probability,
        Task::Regression => Link::Identity,
    }
}

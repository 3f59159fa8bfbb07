//! Random forests: trees over rows drawn with replacement, each node choosing among a few columns drawn for it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::cart::{Field, Rules, Target};
use super::data::{Set, Task};
use super::error::TrainError;
use super::learner::{Options, Progress};
use super::model::{Ensemble, Node, Tree};
use super::parallel::each;
use super::rank::rank_all;
use super::tree::{Criterion, link, outputs};
use crate::base::SplitMix64;

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
    pub fn fit(&self, set: &Set, task: Task, options: &Options) -> Result<Ensemble, TrainError> {
        self.check()?;
        let threads = options.threads.max(1);
        options.tell(Progress { done: 0, total: self.trees, loss: None })?;
        let columns = rank_all(&set.inputs, self.bins, threads);
        let target = Target::new(set, task);
        let count = columns.len();
        let tried = match self.columns {
            Columns::Sqrt => (count as f64).sqrt() as usize,
            Columns::All => count,
            Columns::Share(share) => (count as f64 * share) as usize,
            Columns::Count(n) => n as usize,
        };
        let rules = Rules {
            depth: self.depth.unwrap_or(u32::MAX),
            min_split: self.min_split,
            min_rows: self.min_rows,
            criterion: self.criterion,
            columns: tried.clamp(1, count),
            binary: task == Task::Binary,
        };
        let field = Field { columns: &columns, target: &target, rules, threads: 1 };
        let mut random = SplitMix64::new(options.seed);
        let mut trees: Vec<(u64, Vec<Node>)> = (0..self.trees).map(|_| (random.word(), Vec::new())).collect();
        let rows = set.rows();
        let (done, stopped) = (AtomicU32::new(0), AtomicBool::new(false));
        each(threads, &mut trees, |(seed, nodes)| {
            if stopped.load(Relaxed) {
                return;
            }
            let mut random = SplitMix64::new(*seed);
            let times = if self.bootstrap { draw(rows, &target.weights, &mut random) } else { vec![1; rows] };
            *nodes = field.grow(&times, &mut random, self.trees.into());
            let done = done.fetch_add(1, Relaxed) + 1;
            if options.tell(Progress { done, total: self.trees, loss: None }).is_err() {
                stopped.store(true, Relaxed);
            }
        });
        if stopped.load(Relaxed) {
            return Err(TrainError::Stopped);
        }
        let outputs = outputs(task);
        Ok(Ensemble {
            base: vec![0.0; outputs as usize],
            trees: trees.into_iter().map(|(_, nodes)| Tree { nodes, first_output: 0, outputs }).collect(),
            link: link(task),
        })
    }
}

/// How often each row is drawn when as many as there are are drawn with replacement; again where none of them weighs anything.
fn draw(rows: usize, weights: &[i64], random: &mut SplitMix64) -> Vec<u32> {
    loop {
        let mut times = vec![0; rows];
        for _ in 0..rows {
            times[random.below(rows as u64) as usize] += 1;
        }
        if times.iter().zip(weights).any(|(times, weight)| *times > 0 && *weight > 0) {
            return times;
        }
    }
}

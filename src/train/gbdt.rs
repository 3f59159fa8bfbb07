//! Gradient-boosted trees.

use serde::{Deserialize, Serialize};

use super::data::{Set, Task};
use super::error::TrainError;
use super::grow::{Grower, Limits};
use super::histogram::{Item, Rules};
use super::learner::{Options, Progress};
use super::loss::{Loss, Watch};
use super::model::{Ensemble, Link, Node, Tree};
use crate::base::SplitMix64;

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
    /// Bins of a column of numbers at most, from 2 to 255; missing values have one of their own. Of a category the 254 most
    /// frequent levels have one each.
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
    pub fn fit(&self, set: &Set, task: Task, valid: Option<&Set>, options: &Options) -> Result<Ensemble, TrainError> {
        self.check()?;
        if self.stop_after.is_some() && valid.is_none() {
            return Err(TrainError::Setting {
                learner: "gbdt",
                setting: "stop_after",
                why: "there is no validation set to look at; leave it out, or set rows apart".to_owned(),
            });
        }
        let threads = options.threads.max(1);
        let rows = set.rows();
        let mut grower = Grower::new(&set.inputs, self.bins as usize, threads);
        let mut loss = Loss::new(set, task, threads);
        let rules = Rules {
            min_rows: self.min_rows.into(),
            min_hessian: self.min_hessian,
            min_gain: self.min_gain,
            l2: self.l2,
            category_smooth: self.category_smooth,
            category_l2: self.category_l2,
        };
        let limits = Limits { leaves: self.leaves as usize, depth: self.depth.unwrap_or(u32::MAX) };
        let mut watch = valid.map(|valid| Watch::new(valid, task, &loss.base()));
        let mut random = SplitMix64::new(options.seed);
        let mut items = vec![Item::default(); rows];
        let mut chosen = vec![true; grower.width()];
        let mut trees: Vec<Tree> = Vec::new();
        let link = match task {
            Task::Binary => Link::Logistic,
            Task::Classes(_) => Link::Softmax,
            Task::Regression => Link::Identity,
        };
        options.tell(Progress { done: 0, total: self.trees, loss: watch.as_ref().map(|watch| watch.loss()) })?;
        for round in 0..self.trees {
            loss.prepare();
            let new = trees.len();
            for output in 0..loss.outputs() {
                if self.column_share < 1.0 {
                    choose(&mut chosen, self.column_share, &mut random);
                }
                items.resize(rows, Item::default());
                let units = loss.derive(output, &mut items);
                if self.row_share < 1.0 {
                    items.retain(|_| random.unit() < self.row_share);
                }
                let grown = grower.grow(&mut items, &chosen, &units, &rules, limits);
                let mut nodes = grown.nodes;
                let mut parts = Vec::with_capacity(grown.leaves.len());
                for (node, range, sums) in grown.leaves {
                    let hessian = sums.hessian(&units) + self.l2;
                    let value = if hessian > 0.0 { -self.rate * sums.gradient(&units) / hessian } else { 0.0 };
                    nodes[node] = Node::Leaf { values: vec![value] };
                    parts.push((range, value));
                }
                let mut tree = Tree { nodes, first_output: 0, outputs: 1 };
                if self.row_share < 1.0 {
                    loss.add_tree(output, &tree, &set.inputs);
                } else {
                    loss.add(output, &items, &mut parts);
                }
                tree.first_output = output as u32;
                trees.push(tree);
            }
            if let Some(watch) = &mut watch {
                watch.add(&trees[new..]);
                if watch.stops(round + 1, self.stop_after) {
                    break;
                }
            }
            let loss = watch.as_ref().map(|watch| watch.loss());
            options.tell(Progress { done: round + 1, total: self.trees, loss })?;
        }
        if let (Some(watch), Some(_)) = (&watch, self.stop_after) {
            trees.truncate(watch.best_round() as usize * loss.outputs());
        }
        Ok(Ensemble { base: loss.base(), trees, link })
    }
}

/// Draws a share of the columns, at least one.
fn choose(chosen: &mut [bool], share: f64, random: &mut SplitMix64) {
    let count = ((chosen.len() as f64 * share).round() as usize).max(1);
    let mut order: Vec<usize> = (0..chosen.len()).collect();
    for index in 0..count {
        let other = index + random.below((order.len() - index) as u64) as usize;
        order.swap(index, other);
    }
    chosen.fill(false);
    for column in &order[..count] {
        chosen[*column] = true;
    }
}

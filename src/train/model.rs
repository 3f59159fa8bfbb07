//! What learners make: trees and linear models, before they are exported.

use serde::{Deserialize, Serialize};

/// Turns a model's sums into what it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The sum itself.
    Identity,
    /// The logistic function of one sum: the probability of label 1.
    Logistic,
    /// The softmax over one sum per class.
    Softmax,
    /// Sums that are probabilities already, one per class (one for binary: that of label 1): averaged leaves.
    Probability,
}

/// Which way a row goes at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Left where the value is at most this.
    AtMost(f32),
    /// Left where the code is in this set, sorted.
    In(Vec<u32>),
}

/// A node of a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Asks one input.
    Branch {
        /// Index of the input.
        column: u32,
        /// The question.
        split: Split,
        /// Where a missing value goes.
        missing_left: bool,
        /// Index of the node for yes.
        left: u32,
        /// Index of the node for no.
        right: u32,
        /// What the split gained in the learner's measure.
        gain: f64,
    },
    /// Tells.
    Leaf {
        /// One value per output of the tree: [`Tree::outputs`] of them.
        values: Vec<f64>,
    },
}

/// A tree; node 0 is the root, children come after their parents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The first of the model's sums that its leaves add to.
    pub first_output: u32,
    /// How many values its leaves hold.
    pub outputs: u32,
}

/// Trees whose leaves are summed: boosted ones, a forest (leaves divided by the number of trees), one tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Added to the sums; one per sum.
    pub base: Vec<f64>,
    /// The trees.
    pub trees: Vec<Tree>,
    /// From sums to what is told.
    pub link: Link,
}

/// Weighted sums of numeric inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Per sum, per input.
    pub weights: Vec<Vec<f64>>,
    /// Per sum.
    pub intercepts: Vec<f64>,
    /// From sums to what is told.
    pub link: Link,
}

/// A model that was fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitted {
    /// Trees.
    Ensemble(Ensemble),
    /// Weights.
    Linear(Linear),
}

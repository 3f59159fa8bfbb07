//! The sums of a model: trees as one TreeEnsembleRegressor, weights as one LinearRegressor.
//!
//! **Splits by categories.** A question "is it one of these" becomes a column of 0 (yes) and 1 (no) of its own, looked up in a table by the
//! category's place (LabelEncoder, then Gather), and the node asks whether that is at most ½. The table's last row is for a missing or unknown
//! category. So no node needs more than `BRANCH_LEQ`, no subtree is copied, and questions asked twice are one column.

use std::collections::HashMap;

use super::proto::{self, Graph};
use super::{floats, ints, text, texts};
use crate::train::data::MISSING;
use crate::train::error::TrainError;
use crate::train::learner::data;
use crate::train::model::{Ensemble, Fitted, Linear, Node, Split, Tree};
use crate::train::prepare::{Recipe, Step};

/// Where prepared columns are found in the matrix that the sums are made of, and which sets of categories are asked for.
pub(super) struct Sets {
    /// Per prepared column the place of the first of its columns.
    places: Vec<usize>,
    width: usize,
    /// Per prepared column its sets, each with where a missing value counts; none for a number.
    sets: Vec<Option<Vec<(Vec<u32>, bool)>>>,
    /// Of each input the prepared column, where it stays a category.
    native: HashMap<usize, usize>,
}

impl Sets {
    /// Goes through a model's questions.
    ///
    /// # Errors
    /// The model does not hang together, or asks for what its columns cannot tell.
    pub(super) fn of(fitted: &Fitted, recipe: &Recipe) -> Result<Sets, TrainError> {
        let mut sets: Vec<Option<Vec<(Vec<u32>, bool)>>> = Vec::new();
        let mut native = HashMap::new();
        for (source, column) in recipe.sources().into_iter().map(|s| (s, &recipe.columns[s])) {
            if matches!(column.step, Step::Native(_)) {
                native.insert(source, sets.len());
                sets.push(Some(Vec::new()));
            } else {
                sets.push(None);
            }
        }
        let levels: Vec<usize> = recipe
            .sources()
            .into_iter()
            .map(|s| if let Step::Native(levels) = &recipe.columns[s].step { levels.len() } else { 0 })
            .collect();
        if let Fitted::Ensemble(ensemble) = fitted {
            for (number, tree) in ensemble.trees.iter().enumerate() {
                check_tree(tree, number, ensemble.base.len())?;
                for node in &tree.nodes {
                    let Node::Branch { column, split, missing_left, .. } = node else { continue };
                    let own = sets.get_mut(*column as usize);
                    match (own, split) {
                        (Some(None), Split::AtMost(t)) if !t.is_nan() => {}
                        (Some(Some(own)), Split::In(set)) => {
                            if let Some(code) = set.iter().find(|c| **c as usize >= levels[*column as usize]) {
                                return Err(data(format!(
                                    "tree {number} asks for category {code} of input {column}, which has fewer"
                                )));
                            }
                            if !own.iter().any(|(s, m)| s == set && m == missing_left) {
                                own.push((set.clone(), *missing_left));
                            }
                        }
                        _ => {
                            let why = format!("tree {number} asks {split:?} of input {column}, which cannot tell");
                            return Err(data(why));
                        }
                    }
                }
            }
        }
        let mut places = Vec::with_capacity(sets.len());
        let mut width = 0;
        for sets in &sets {
            places.push(width);
            width += sets.as_ref().map_or(1, Vec::len);
        }
        Ok(Sets { places, width, sets, native })
    }

    /// Columns of the matrix.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// How many columns an input that stays a category takes.
    pub(super) fn count(&self, input: usize) -> usize {
        self.asked(input).len()
    }

    fn asked(&self, input: usize) -> &[(Vec<u32>, bool)] {
        self.native.get(&input).and_then(|column| self.sets[*column].as_deref()).unwrap_or(&[])
    }

    /// The columns of an input that stays a category; nothing where no set of it is asked for.
    pub(super) fn members(&self, graph: &mut Graph, input: usize, name: &str, levels: &[String]) -> Option<String> {
        let sets = self.asked(input);
        if sets.is_empty() {
            return None;
        }
        let codes = ints("values_int64s", (0..levels.len() as i64).collect());
        let attributes = vec![texts("keys_strings", levels), codes, proto::int("default_int64", levels.len() as i64)];
        let code = graph.node(proto::ML, "LabelEncoder", &[name], attributes);
        let flat = graph.ints(vec![-1]);
        let code = graph.node("", "Reshape", &[&code, &flat], vec![]);
        let side = |left: bool| if left { 0.0 } else { 1.0 };
        let rows = (0..levels.len() as u32).chain([MISSING]);
        let cells = rows.flat_map(|code| {
            sets.iter().map(move |(set, missing_left)| match code {
                MISSING => side(*missing_left),
                code => side(set.binary_search(&code).is_ok()),
            })
        });
        let table = graph.floats(&[levels.len() as i64 + 1, sets.len() as i64], cells.collect());
        Some(graph.node("", "Gather", &[&table, &code], vec![proto::int("axis", 0)]))
    }

    /// A question as a place in the matrix and the most that means left.
    fn question(&self, column: u32, split: &Split, missing_left: bool) -> (usize, f32) {
        let place = self.places[column as usize];
        match split {
            Split::AtMost(threshold) => (place, *threshold),
            Split::In(set) => {
                let mut sets = self.sets[column as usize].iter().flatten();
                let at = sets.position(|(s, m)| s == set && *m == missing_left);
                (place + at.unwrap_or(0), 0.5)
            }
        }
    }
}

/// Whether every way through a tree ends at a leaf with as many values as there should be.
fn check_tree(tree: &Tree, number: usize, sums: usize) -> Result<(), TrainError> {
    let wrong = |why: String| Err(data(format!("tree {number} {why}")));
    let (first, outputs) = (tree.first_output as usize, tree.outputs as usize);
    if tree.nodes.is_empty() || outputs == 0 || first + outputs > sums {
        return wrong(format!("gives sums {first} and on, {outputs} of them, of {sums}"));
    }
    let mut parents = vec![0u32; tree.nodes.len()];
    for (at, node) in tree.nodes.iter().enumerate() {
        match node {
            Node::Branch { left, right, .. } => {
                for child in [*left as usize, *right as usize] {
                    if child <= at || child >= tree.nodes.len() {
                        return wrong(format!("leads from node {at} to {child}"));
                    }
                    parents[child] += 1;
                }
            }
            Node::Leaf { values } if values.len() != outputs => {
                return wrong(format!("has a leaf of {} values where it gives {outputs}", values.len()));
            }
            Node::Leaf { .. } => {}
        }
    }
    match parents.iter().skip(1).position(|p| *p != 1) {
        Some(at) => wrong(format!("comes to node {} from {} nodes", at + 1, parents[at + 1])),
        None => Ok(()),
    }
}

/// The sums of trees, `[N, sums]`.
pub(super) fn ensemble(graph: &mut Graph, x: &str, ensemble: &Ensemble, sets: &Sets) -> String {
    let mut lists = Lists::default();
    for (number, tree) in ensemble.trees.iter().enumerate() {
        lists.tree(number as i64, tree, sets);
    }
    if ensemble.trees.is_empty() {
        // The operator needs a tree.
        let leaf = Node::Leaf { values: vec![0.0] };
        lists.tree(0, &Tree { nodes: vec![leaf], first_output: 0, outputs: 1 }, sets);
    }
    let base: Vec<f32> = ensemble.base.iter().map(|b| *b as f32).collect();
    let mut attributes = lists.attributes();
    attributes.extend([
        proto::int("n_targets", base.len() as i64),
        text("aggregate_function", "SUM"),
        text("post_transform", "NONE"),
    ]);
    if base.len() == 1 {
        attributes.push(floats("base_values", base));
        return graph.node(proto::ML, "TreeEnsembleRegressor", &[x], attributes);
    }
    // Runtimes drop the base of a sum that no leaf of a row's adds to.
    let sums = graph.node(proto::ML, "TreeEnsembleRegressor", &[x], attributes);
    let base = graph.floats(&[base.len() as i64], base);
    graph.node("", "Add", &[&sums, &base], vec![])
}

/// The sums of weights, `[N, sums]`.
pub(super) fn linear(graph: &mut Graph, x: &str, linear: &Linear, width: usize) -> Result<String, TrainError> {
    let sums = linear.weights.len();
    if sums == 0 || linear.intercepts.len() != sums || linear.weights.iter().any(|w| w.len() != width) {
        return Err(data(format!("a linear model of {sums} sums has not one intercept and {width} weights for each")));
    }
    let attributes = vec![
        floats("coefficients", linear.weights.iter().flatten().map(|w| *w as f32).collect()),
        floats("intercepts", linear.intercepts.iter().map(|b| *b as f32).collect()),
        proto::int("targets", sums as i64),
        text("post_transform", "NONE"),
    ];
    Ok(graph.node(proto::ML, "LinearRegressor", &[x], attributes))
}

/// The operator's parallel lists.
#[derive(Default)]
struct Lists {
    trees: Vec<i64>,
    ids: Vec<i64>,
    modes: Vec<&'static str>,
    features: Vec<i64>,
    values: Vec<f32>,
    on_true: Vec<i64>,
    on_false: Vec<i64>,
    missing: Vec<i64>,
    target_trees: Vec<i64>,
    target_nodes: Vec<i64>,
    target_ids: Vec<i64>,
    target_weights: Vec<f32>,
}

impl Lists {
    fn tree(&mut self, number: i64, tree: &Tree, sets: &Sets) {
        for (id, node) in tree.nodes.iter().enumerate() {
            let (mode, (feature, value), on_true, on_false, missing) = match node {
                Node::Branch { column, split, missing_left, left, right, .. } => {
                    ("BRANCH_LEQ", sets.question(*column, split, *missing_left), *left, *right, *missing_left)
                }
                Node::Leaf { values } => {
                    for (output, value) in values.iter().enumerate() {
                        self.target_trees.push(number);
                        self.target_nodes.push(id as i64);
                        self.target_ids.push(i64::from(tree.first_output) + output as i64);
                        self.target_weights.push(*value as f32);
                    }
                    ("LEAF", (0, 0.0), 0, 0, false)
                }
            };
            self.trees.push(number);
            self.ids.push(id as i64);
            self.modes.push(mode);
            self.features.push(feature as i64);
            self.values.push(value);
            self.on_true.push(on_true.into());
            self.on_false.push(on_false.into());
            self.missing.push(missing.into());
        }
    }

    fn attributes(self) -> Vec<tract_onnx::pb::AttributeProto> {
        vec![
            ints("nodes_treeids", self.trees),
            ints("nodes_nodeids", self.ids),
            texts("nodes_modes", &self.modes),
            ints("nodes_featureids", self.features),
            floats("nodes_values", self.values),
            ints("nodes_truenodeids", self.on_true),
            ints("nodes_falsenodeids", self.on_false),
            ints("nodes_missing_value_tracks_true", self.missing),
            ints("target_treeids", self.target_trees),
            ints("target_nodeids", self.target_nodes),
            ints("target_ids", self.target_ids),
            floats("target_weights", self.target_weights),
        ]
    }
}

//! One form for the trees of all three operators, checked: every child exists, every node is reached once, every weight has a target.

use std::collections::HashMap;

use crate::score::proto::Attributes;
use crate::score::tensor::{Data, Tensor};

/// How a split compares the input with its threshold; true goes to `on_true`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// The input is one of these.
    Member(Vec<f64>),
}

/// An inner node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    pub(super) test: Test,
    pub(super) feature: usize,
    pub(super) threshold: f64,
    /// A missing (NaN) input counts as true.
    pub(super) missing_is_true: bool,
    pub(super) on_true: usize,
    pub(super) on_false: usize,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Split(Split),
    /// Adds these weights, (target, weight).
    Leaf(Vec<(usize, f64)>),
}

/// Trees over one array of nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<usize>,
    pub(super) targets: usize,
    /// One more than the highest feature read.
    pub(super) inputs: usize,
    /// All weights, inner nodes' included, are of one target.
    pub(super) one_id: bool,
    /// No weight is negative.
    pub(super) all_positive: bool,
}

fn same_length(lists: &[(&str, usize)]) -> Result<(), String> {
    let (first, n) = lists[0];
    match lists.iter().find(|(_, m)| *m != n) {
        Some((other, m)) => Err(format!("{first} has {n} entries and {other} {m}")),
        None => Ok(()),
    }
}

fn feature(id: i64) -> Result<usize, String> {
    usize::try_from(id).map_err(|_| format!("a split reads feature {id}"))
}

impl Forest {
    /// From the parallel lists of TreeEnsembleClassifier (`role` "class") and TreeEnsembleRegressor ("target").
    pub(super) fn of_lists(a: Attributes, role: &str, targets: usize) -> Result<Forest, String> {
        let trees = a.ints("nodes_treeids");
        let ids = a.ints("nodes_nodeids");
        let modes = a.texts("nodes_modes")?;
        let features = a.ints("nodes_featureids");
        let values = a.floats_or_tensor("nodes_values")?;
        let on_true = a.ints("nodes_truenodeids");
        let on_false = a.ints("nodes_falsenodeids");
        let missing = a.ints("nodes_missing_value_tracks_true");
        same_length(&[
            ("nodes_treeids", trees.len()),
            ("nodes_nodeids", ids.len()),
            ("nodes_modes", modes.len()),
            ("nodes_featureids", features.len()),
            ("nodes_values", values.len()),
            ("nodes_truenodeids", on_true.len()),
            ("nodes_falsenodeids", on_false.len()),
        ])?;

        let mut place = HashMap::with_capacity(ids.len());
        let mut roots = Vec::new();
        for (i, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
            if place.insert(key, i).is_some() {
                return Err(format!("node {} of tree {} is given twice", key.1, key.0));
            }
            if i == 0 || trees[i - 1] != trees[i] {
                roots.push(i);
            }
        }
        let find = |tree: i64, id: i64| place.get(&(tree, id)).copied().ok_or(format!("tree {tree} has no node {id}"));
        let mut nodes = Vec::with_capacity(ids.len());
        for (i, mode) in modes.iter().enumerate() {
            let test = match mode.as_str() {
                "LEAF" => {
                    nodes.push(Node::Leaf(Vec::new()));
                    continue;
                }
                "BRANCH_LEQ" => Test::Leq,
                "BRANCH_LT" => Test::Lt,
                "BRANCH_GTE" => Test::Gte,
                "BRANCH_GT" => Test::Gt,
                "BRANCH_EQ" => Test::Eq,
                "BRANCH_NEQ" => Test::Neq,
                other => return Err(format!("nodes_modes {other:?} is unknown")),
            };
            nodes.push(Node::Split(Split {
                test,
                feature: feature(features[i])?,
                threshold: values[i],
                missing_is_true: missing.get(i) == Some(&1),
                on_true: find(trees[i], on_true[i])?,
                on_false: find(trees[i], on_false[i])?,
            }));
        }

        let weight_trees = a.ints(&format!("{role}_treeids"));
        let weight_nodes = a.ints(&format!("{role}_nodeids"));
        let weight_ids = a.ints(&format!("{role}_ids"));
        let weights = a.floats_or_tensor(&format!("{role}_weights"))?;
        same_length(&[
            (&format!("{role}_treeids"), weight_trees.len()),
            (&format!("{role}_nodeids"), weight_nodes.len()),
            (&format!("{role}_ids"), weight_ids.len()),
            (&format!("{role}_weights"), weights.len()),
        ])?;
        for (i, &weight) in weights.iter().enumerate() {
            let target = usize::try_from(weight_ids[i]).ok().filter(|&t| t < targets);
            let target = target.ok_or(format!("{role}_ids holds {} where there are {targets}", weight_ids[i]))?;
            // Exporters give weights to inner nodes too; onnxruntime never reads those.
            if let Node::Leaf(w) = &mut nodes[find(weight_trees[i], weight_nodes[i])?] {
                w.push((target, weight));
            }
        }
        let mut forest = Forest::checked(nodes, roots, targets)?;
        forest.one_id = weight_ids.windows(2).all(|w| w[0] == w[1]);
        forest.all_positive = weights.iter().all(|&w| w >= 0.0);
        Ok(forest)
    }

    /// From the arrays of ai.onnx.ml 5's TreeEnsemble.
    pub(super) fn of_arrays(a: Attributes) -> Result<Forest, String> {
        let targets = a.int("n_targets").unwrap_or(1);
        let targets = usize::try_from(targets).ok().filter(|&t| t > 0).ok_or(format!("n_targets is {targets}"))?;
        let features = a.ints("nodes_featureids");
        let modes = match a.tensor("nodes_modes")? {
            Some(Tensor { data: Data::I64(v), .. }) => v,
            _ => return Err("nodes_modes is not a tensor of bytes".into()),
        };
        let floats = |name: &str| match a.tensor(name)? {
            Some(Tensor { data: Data::F32(v), .. }) => Ok(v.into_iter().map(f64::from).collect()),
            Some(Tensor { data: Data::F64(v), .. }) => Ok(v),
            Some(t) => Err(format!("{name} holds {}", t.kind().name())),
            None => Ok(Vec::new()),
        };
        let splits: Vec<f64> = floats("nodes_splits")?;
        let (on_true, true_leafs) = (a.ints("nodes_truenodeids"), a.ints("nodes_trueleafs"));
        let (on_false, false_leafs) = (a.ints("nodes_falsenodeids"), a.ints("nodes_falseleafs"));
        let missing = a.ints("nodes_missing_value_tracks_true");
        same_length(&[
            ("nodes_featureids", features.len()),
            ("nodes_modes", modes.len()),
            ("nodes_splits", splits.len()),
            ("nodes_truenodeids", on_true.len()),
            ("nodes_trueleafs", true_leafs.len()),
            ("nodes_falsenodeids", on_false.len()),
            ("nodes_falseleafs", false_leafs.len()),
        ])?;
        let leaf_targets = a.ints("leaf_targetids");
        let leaf_weights: Vec<f64> = floats("leaf_weights")?;
        same_length(&[("leaf_targetids", leaf_targets.len()), ("leaf_weights", leaf_weights.len())])?;

        let n = features.len();
        let mut nodes = Vec::with_capacity(n + leaf_weights.len());
        let members: Vec<f64> = floats("membership_values")?;
        let mut sets = members.split(|v| v.is_nan());
        let child = |id: i64, leaf: i64| {
            let (offset, limit) = if leaf != 0 { (n, leaf_weights.len()) } else { (0, n) };
            let inside = usize::try_from(id).ok().filter(|&i| i < limit);
            inside.map(|i| i + offset).ok_or(format!("a split leads to node {id}, which does not exist"))
        };
        for i in 0..n {
            let test = match modes[i] {
                0 => Test::Leq,
                1 => Test::Lt,
                2 => Test::Gte,
                3 => Test::Gt,
                4 => Test::Eq,
                5 => Test::Neq,
                6 => Test::Member(sets.next().ok_or("membership_values has too few sets")?.to_vec()),
                other => return Err(format!("nodes_modes {other} is unknown")),
            };
            nodes.push(Node::Split(Split {
                test,
                feature: feature(features[i])?,
                threshold: splits[i],
                missing_is_true: missing.get(i) == Some(&1),
                on_true: child(on_true[i], true_leafs[i])?,
                on_false: child(on_false[i], false_leafs[i])?,
            }));
        }
        for (&target, &weight) in leaf_targets.iter().zip(&leaf_weights) {
            let known = usize::try_from(target).ok().filter(|&t| t < targets);
            nodes.push(Node::Leaf(vec![(
                known.ok_or(format!("leaf_targetids holds {target} where there are {targets}"))?,
                weight,
            )]));
        }
        let roots: Vec<usize> = a
            .ints("tree_roots")
            .iter()
            .map(|&r| {
                usize::try_from(r)
                    .ok()
                    .filter(|&r| r < n)
                    .ok_or(format!("tree_roots names node {r}, which does not exist"))
            })
            .collect::<Result<_, _>>()?;
        Forest::checked(nodes, roots, targets)
    }

    /// Refuses trees that come back to a node. In the newer form leaves, and only they, may be shared.
    fn checked(nodes: Vec<Node>, roots: Vec<usize>, targets: usize) -> Result<Forest, String> {
        if roots.is_empty() {
            return Err("has no trees".into());
        }
        let mut seen = vec![false; nodes.len()];
        let mut inputs = 0;
        let mut path = Vec::new();
        for &root in &roots {
            path.push(root);
            while let Some(i) = path.pop() {
                if let Node::Split(s) = &nodes[i] {
                    if std::mem::replace(&mut seen[i], true) {
                        return Err(format!("node {i} is reached twice"));
                    }
                    inputs = inputs.max(s.feature + 1);
                    path.extend([s.on_true, s.on_false]);
                }
            }
        }
        Ok(Forest { nodes, roots, targets, inputs, one_id: false, all_positive: false })
    }
}

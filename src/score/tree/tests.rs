//! The laid-out trees against a walk of the forest as it is written.

use proptest::prelude::*;

use super::finish::Aggregate;
use super::flat::{Flat, Real};
use super::forest::{Forest, Node, Split, Test};

/// Values that meet thresholds exactly, just miss them, or are special.
const VALUES: [f64; 12] =
    [0.0, -0.0, 1.0, -1.0, 0.5, 1.0e-45, -1.0e-45, 3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::NAN];

fn holds(split: &Split, x: f64) -> bool {
    if x.is_nan() {
        // An unequal test holds for a missing input, whichever way missing inputs go.
        return split.missing_is_true || split.test == Test::Neq;
    }
    match &split.test {
        Test::Leq => x <= split.threshold,
        Test::Lt => x < split.threshold,
        Test::Gte => x >= split.threshold,
        Test::Gt => x > split.threshold,
        Test::Eq => x == split.threshold,
        Test::Neq => x != split.threshold,
        Test::Member(values) => values.contains(&x),
    }
}

fn leaf_of<'a>(forest: &'a Forest, root: usize, row: &[f64]) -> &'a [(usize, f64)] {
    let mut at = root;
    loop {
        match &forest.nodes[at] {
            Node::Leaf(weights) => return weights,
            Node::Split(s) => at = if holds(s, row[s.feature]) { s.on_true } else { s.on_false },
        }
    }
}

/// Sums and seen flags of one row, in tree order.
fn naive<T: Real>(forest: &Forest, row: &[f64], aggregate: Aggregate) -> (Vec<T>, Vec<bool>) {
    let mut sums = vec![T::default(); forest.targets];
    let mut seen = vec![false; forest.targets];
    for &root in &forest.roots {
        for &(target, weight) in leaf_of(forest, root, row) {
            let weight = T::of_f64(weight);
            let first = !std::mem::replace(&mut seen[target], true);
            if aggregate.adds() {
                sums[target] = sums[target] + weight;
            } else if first || aggregate.prefers(weight, sums[target]) {
                sums[target] = weight;
            }
        }
    }
    (sums, seen)
}

/// Grows a tree from a stream of decisions; returns its root.
fn grow(nodes: &mut Vec<Node>, choices: &mut impl Iterator<Item = u32>, depth: usize, shape: &Shape) -> usize {
    let mut next = || choices.next().unwrap_or(0) as usize;
    let at = nodes.len();
    if depth == 0 || next() % 8 == 0 {
        let weights = match shape.single {
            true => vec![(0, VALUES[next() % 6] + next() as f64 % 7.0)],
            false => (0..next() % 3).map(|_| (next() % shape.targets, next() as f64 % 5.0 - 2.0)).collect(),
        };
        nodes.push(Node::Leaf(weights));
        return at;
    }
    let test = match next() % 7 {
        0 => Test::Leq,
        1 => Test::Lt,
        2 => Test::Gte,
        3 => Test::Gt,
        4 => Test::Eq,
        5 => Test::Neq,
        _ => Test::Member((0..next() % 4).map(|_| VALUES[next() % 10]).collect()),
    };
    let (feature, threshold, missing_is_true) = (next() % shape.inputs, VALUES[next() % 11], next() % 2 == 0);
    nodes.push(Node::Leaf(vec![]));
    // Lopsided trees too: one side may stop early.
    let lean = next() % 3;
    let on_true = grow(nodes, choices, if lean == 1 { 0 } else { depth - 1 }, shape);
    let on_false = grow(nodes, choices, if lean == 2 { 0 } else { depth - 1 }, shape);
    nodes[at] = Node::Split(Split { test, feature, threshold, missing_is_true, on_true, on_false });
    at
}

struct Shape {
    inputs: usize,
    targets: usize,
    single: bool,
}

fn forest(choices: Vec<u32>, trees: usize, depth: usize, shape: &Shape) -> Forest {
    let mut nodes = Vec::new();
    let mut choices = choices.into_iter();
    let roots = (0..trees).map(|_| grow(&mut nodes, &mut choices, depth, shape)).collect();
    Forest { nodes, roots, targets: shape.targets, inputs: shape.inputs, one_id: false, all_positive: false }
}

fn check<T: Real + std::fmt::Debug>(forest: &Forest, rows: &[Vec<f64>], aggregate: Aggregate) {
    let flat = Flat::<T>::new(forest).expect("lays out");
    let width = forest.inputs + 1;
    let x: Vec<T> = rows.iter().flat_map(|r| r.iter().map(|&v| T::of_f64(v)).chain([T::NAN])).collect();
    let (mut sums, mut seen) =
        (vec![T::default(); rows.len() * forest.targets], vec![false; rows.len() * forest.targets]);
    let mut block = Vec::new();
    if let Some(target) = flat.one_target() {
        let mut only = vec![T::default(); rows.len()];
        match aggregate.adds() {
            true => flat.sum(&x, rows.len(), width, &mut block, &mut only),
            false => flat.pick(&x, rows.len(), width, &mut block, &mut only, aggregate),
        }
        for (i, v) in only.into_iter().enumerate() {
            sums[i * forest.targets + target] = v;
            seen[i * forest.targets + target] = true;
        }
    } else {
        flat.sum_targets(&x, rows.len(), width, &mut block, &mut sums, &mut seen, aggregate);
    }
    for (i, row) in rows.iter().enumerate() {
        // Thresholds and inputs are rounded to the precision first, as a model's attributes are.
        let row: Vec<f64> = row.iter().map(|&v| T::of_f64(v).to_f64()).collect();
        let (s, h) = naive::<T>(&rounded::<T>(forest), &row, aggregate);
        let range = i * forest.targets..(i + 1) * forest.targets;
        let bits = |v: &[T]| v.iter().map(|v| v.to_f64().to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&sums[range.clone()]), bits(&s), "row {i} {row:?}");
        assert_eq!(&seen[range], &h[..], "row {i}");
    }
}

fn rounded<T: Real>(forest: &Forest) -> Forest {
    let mut forest = forest.clone();
    for node in &mut forest.nodes {
        if let Node::Split(s) = node {
            s.threshold = T::of_f64(s.threshold).to_f64();
            if let Test::Member(values) = &mut s.test {
                values.iter_mut().for_each(|v| *v = T::of_f64(*v).to_f64());
            }
        }
    }
    forest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn laid_out_trees_walk_as_written(
        choices in prop::collection::vec(any::<u32>(), 0..2000),
        trees in 1usize..20,
        depth in 0usize..9,
        inputs in 1usize..6,
        targets in 1usize..4,
        single in any::<bool>(),
        picks in prop::collection::vec(prop::collection::vec(0usize..VALUES.len(), 6), 1..40),
        aggregate in prop::sample::select(vec![Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max]),
    ) {
        let forest = forest(choices, trees, depth, &Shape { inputs, targets, single });
        let rows: Vec<Vec<f64>> = picks.iter().map(|p| p[..inputs].iter().map(|&i| VALUES[i]).collect()).collect();
        check::<f32>(&forest, &rows, aggregate);
        check::<f64>(&forest, &rows, aggregate);
    }
}

#[test]
fn many_inputs_and_long_chains() {
    // More columns than the narrow layout can number, and a tree that is one long chain.
    for (inputs, depth) in [(3000, 5), (2, 5000)] {
        let mut nodes = Vec::new();
        for i in 0..depth {
            nodes.push(Node::Split(Split {
                test: Test::Leq,
                feature: (i * 997) % inputs,
                threshold: -(i as f64),
                missing_is_true: i % 2 == 0,
                on_true: nodes.len() + 2,
                on_false: nodes.len() + 1,
            }));
            nodes.push(Node::Leaf(vec![(0, i as f64)]));
        }
        nodes.push(Node::Leaf(vec![(0, -1.0)]));
        let forest = Forest { nodes, roots: vec![0], targets: 1, inputs, one_id: true, all_positive: false };
        let rows: Vec<Vec<f64>> = (0..11)
            .map(|r| (0..inputs).map(|i| if (i + r) % 5 == 0 { f64::NAN } else { -((i * r) as f64) * 700.0 }).collect())
            .collect();
        check::<f32>(&forest, &rows, Aggregate::Sum);
        check::<f64>(&forest, &rows, Aggregate::Sum);
    }
}

#[test]
fn one_leaf_is_a_tree() {
    let forest = Forest {
        nodes: vec![Node::Leaf(vec![(0, 2.5)])],
        roots: vec![0],
        targets: 1,
        inputs: 0,
        one_id: true,
        all_positive: true,
    };
    check::<f32>(&forest, &vec![vec![]; 9], Aggregate::Sum);
}

#[test]
fn every_test_at_every_edge() {
    let sets = [vec![], vec![1.0], vec![f64::INFINITY, 0.0], vec![f64::NEG_INFINITY, 1.0]];
    let plain = [Test::Leq, Test::Lt, Test::Gte, Test::Gt, Test::Eq, Test::Neq];
    for test in plain.into_iter().chain(sets.map(Test::Member)) {
        for threshold in VALUES {
            for missing_is_true in [false, true] {
                let split =
                    Split { test: test.clone(), feature: 0, threshold, missing_is_true, on_true: 1, on_false: 2 };
                let nodes = vec![Node::Split(split), Node::Leaf(vec![(0, 1.0)]), Node::Leaf(vec![(0, 0.0)])];
                let forest = Forest { nodes, roots: vec![0], targets: 1, inputs: 1, one_id: true, all_positive: true };
                let rows: Vec<Vec<f64>> = VALUES.iter().map(|&v| vec![v]).collect();
                check::<f32>(&forest, &rows, Aggregate::Sum);
                check::<f64>(&forest, &rows, Aggregate::Sum);
            }
        }
    }
}

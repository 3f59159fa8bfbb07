//! The grower beside one that tries every threshold and every set on raw values.

use proptest::prelude::*;

use super::*;
use crate::train::bins::between;
use crate::train::data::{Column, MISSING, Matrix};
use crate::train::learner::{Learner, Options, fit};
use crate::train::model::{Fitted, Tree};
use crate::train::rank::rank_all;
use crate::train::tree::DecisionTree;

const LEVELS: u32 = 5;

fn set(rows: usize, seed: u64, missing: f64, task: Task) -> Set {
    let mut random = SplitMix64::new(seed);
    let mut columns = Vec::new();
    for column in 0..3 {
        let values = (0..rows).map(|_| match random.unit() {
            x if x < missing => f32::NAN,
            _ if column == 0 => random.below(4) as f32,
            _ => (random.unit() * 8.0) as f32 - 4.0,
        });
        columns.push(Column::Number(values.collect()));
    }
    let codes = (0..rows).map(|_| if random.unit() < missing { MISSING } else { random.below(LEVELS.into()) as u32 });
    columns.push(Column::Category { codes: codes.collect(), levels: (0..LEVELS).map(|l| l.to_string()).collect() });
    let labels = (0..rows).map(|_| match task {
        Task::Binary => random.below(2) as f64,
        Task::Classes(n) => random.below(n.into()) as f64,
        Task::Regression => random.below(1 << 20) as f64 / 1024.0,
    });
    let labels = labels.collect();
    let names = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let inputs = Matrix { names, columns };
    Set { inputs, labels, weights: None, times: vec![0; rows], known: vec![0; rows], extra: Vec::new() }
}

fn goes_left(inputs: &Matrix, column: usize, split: &Split, missing_left: bool, row: u32) -> bool {
    let tree = Tree {
        nodes: vec![
            Node::Branch { column: column as u32, split: split.clone(), missing_left, left: 1, right: 2, gain: 0.0 },
            Node::Leaf { values: vec![1.0] },
            Node::Leaf { values: vec![0.0] },
        ],
        first_output: 0,
        outputs: 1,
    };
    tree.leaf(inputs, row as usize)[0] == 1.0
}

/// n × impurity.
fn impurity(set: &Set, task: Task, criterion: Criterion, rows: &[u32]) -> f64 {
    let n = rows.len() as f64;
    let labels: Vec<f64> = rows.iter().map(|row| set.labels[*row as usize]).collect();
    if task == Task::Regression {
        let mean = labels.iter().sum::<f64>() / n;
        return labels.iter().map(|y| (y - mean).powi(2)).sum();
    }
    let classes: std::collections::BTreeSet<u64> = labels.iter().map(|label| *label as u64).collect();
    let shares = classes.iter().map(|class| labels.iter().filter(|label| **label as u64 == *class).count() as f64 / n);
    match criterion {
        Criterion::Gini => n * (1.0 - shares.map(|p| p * p).sum::<f64>()),
        Criterion::Entropy => -n * shares.map(|p| p * p.ln()).sum::<f64>(),
    }
}

/// The greatest fall of impurity that any split of the rows brings; none where no split is allowed.
fn best(set: &Set, task: Task, rules: &Rules, rows: &[u32]) -> Option<f64> {
    let whole = impurity(set, task, rules.criterion, rows);
    let mut best: Option<f64> = None;
    for (column, input) in set.inputs.columns.iter().enumerate() {
        let splits: Vec<Split> = match input {
            Column::Number(values) => {
                let mut seen: Vec<f32> = rows.iter().map(|r| values[*r as usize]).filter(|x| !x.is_nan()).collect();
                seen.sort_by(f32::total_cmp);
                seen.dedup();
                let inner = seen.windows(2).map(|pair| between(pair[0], pair[1]));
                inner.chain([f32::MAX]).map(Split::AtMost).collect()
            }
            Column::Category { .. } => (1..1u32 << LEVELS)
                .map(|bits| Split::In((0..LEVELS).filter(|level| bits >> level & 1 == 1).collect()))
                .collect(),
        };
        for (split, missing_left) in splits.iter().flat_map(|split| [(split, false), (split, true)]) {
            let (left, right): (Vec<u32>, Vec<u32>) =
                rows.iter().partition(|row| goes_left(&set.inputs, column, split, missing_left, **row));
            if left.len().min(right.len()) < rules.min_rows as usize {
                continue;
            }
            let both = impurity(set, task, rules.criterion, &left) + impurity(set, task, rules.criterion, &right);
            if best.is_none_or(|best| whole - both > best) {
                best = Some(whole - both);
            }
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_split_is_the_best_there_is(
        rows in 2usize..70,
        seed in any::<u64>(),
        missing in prop_oneof![Just(0.0), Just(0.3)],
        task in prop_oneof![Just(Task::Binary), Just(Task::Regression), Just(Task::Classes(2))],
        criterion in prop_oneof![Just(Criterion::Gini), Just(Criterion::Entropy)],
        min_rows in 1u32..5,
        depth in 1u32..5,
        threads in 1usize..3,
    ) {
        let mut set = set(rows, seed, missing, task);
        if min_rows > 1 {
            // Of sets with few rows on one side, the best one need not be an end of the order.
            set.inputs.columns.pop();
            set.inputs.names.pop();
        }
        check(&set, task, criterion, min_rows, depth, threads)?;
    }

    #[test]
    fn of_many_classes_every_threshold_is_the_best(
        rows in 2usize..70, seed in any::<u64>(), missing in prop_oneof![Just(0.0), Just(0.3)],
        criterion in prop_oneof![Just(Criterion::Gini), Just(Criterion::Entropy)],
    ) {
        // Orders of levels are a heuristic for many classes: numbers only.
        let mut set = set(rows, seed, missing, Task::Classes(4));
        set.inputs.columns.pop();
        set.inputs.names.pop();
        check(&set, Task::Classes(4), criterion, 1, 4, 1)?;
    }
}

fn check(
    set: &Set,
    task: Task,
    criterion: Criterion,
    min_rows: u32,
    depth: u32,
    threads: usize,
) -> Result<(), TestCaseError> {
    let columns = rank_all(&set.inputs, None, 1);
    let target = Target::new(set, task);
    let binary = task == Task::Binary;
    let rules = Rules { depth, min_split: 2, min_rows, criterion, columns: columns.len(), binary };
    let field = Field { columns: &columns, target: &target, rules, threads };
    let nodes = field.grow(&vec![1; set.rows()], &mut SplitMix64::new(1), 1.0);
    let mut waiting = vec![(0usize, (0..set.rows() as u32).collect::<Vec<u32>>(), 0)];
    while let Some((node, rows, level)) = waiting.pop() {
        let first = set.labels[rows[0] as usize];
        let pure = rows.iter().all(|row| set.labels[*row as usize] == first);
        let best = best(set, task, &rules, &rows).filter(|_| !pure && level < depth && rows.len() >= 2);
        match &nodes[node] {
            Node::Branch { column, split, missing_left, left, right, gain } => {
                let best = best.ok_or_else(|| TestCaseError::fail(format!("node {node} is split")))?;
                let (yes, no): (Vec<u32>, Vec<u32>) =
                    rows.iter().partition(|row| goes_left(&set.inputs, *column as usize, split, *missing_left, **row));
                let both = impurity(set, task, criterion, &yes) + impurity(set, task, criterion, &no);
                let fall = impurity(set, task, criterion, &rows) - both;
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs()));
                prop_assert!(close(fall, best), "node {}: {} of {}", node, fall, best);
                prop_assert!(close(*gain, fall), "node {}: told {} for {}", node, gain, fall);
                waiting.push((*left as usize, yes, level + 1));
                waiting.push((*right as usize, no, level + 1));
            }
            Node::Leaf { values } => {
                prop_assert!(best.is_none(), "leaf {} could be split", node);
                let n = rows.len() as f64;
                let share = |class: f64| rows.iter().filter(|r| set.labels[**r as usize] == class).count() as f64 / n;
                let wanted: Vec<f64> = match task {
                    Task::Binary => vec![share(1.0)],
                    Task::Classes(k) => (0..k).map(|class| share(class.into())).collect(),
                    Task::Regression => vec![rows.iter().map(|r| set.labels[*r as usize]).sum::<f64>() / n],
                };
                prop_assert_eq!(values.len(), wanted.len());
                prop_assert!(
                    values.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-7),
                    "{:?} {:?}",
                    values,
                    wanted
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_whole_weight_is_as_good_as_so_many_rows() {
    for task in [Task::Binary, Task::Classes(3), Task::Regression] {
        let mut weighted = set(300, 9, 0.1, task);
        let mut random = SplitMix64::new(4);
        let weights: Vec<u32> = (0..300).map(|_| random.below(4) as u32).collect();
        let repeated: Vec<u32> = (0..300).flat_map(|row| vec![row; weights[row as usize] as usize]).collect();
        let repeated = weighted.take(&repeated);
        weighted.weights = Some(weights.iter().map(|weight| f64::from(*weight)).collect());
        let learner = Learner::Tree(DecisionTree { depth: Some(4), ..DecisionTree::default() });
        let [a, b] = [&weighted, &repeated].map(|set| match fit(&learner, set, task, None, &Options::default()) {
            Ok(Fitted::Ensemble(ensemble)) => ensemble,
            other => panic!("no trees: {other:?}"),
        });
        let (a, b) = (a.predict(&weighted.inputs), b.predict(&weighted.inputs));
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() < 1e-6, "{task:?}: {a} {b}");
        }
    }
}

#[test]
fn ranks_in_bins_are_split_where_bins_end() {
    let values: Vec<f32> = (0..1000).map(|x| x as f32).collect();
    let ranked = Ranked::of(&Column::Number(values), Some(10));
    assert_eq!(ranked.ranks, 10);
    assert!((0..9).all(|rank| ranked.threshold(rank, rank + 1) == (rank as f32 + 1.0) * 100.0 - 0.5));
    assert!((0..1000).all(|row| ranked.rank[row] == row as u32 / 100));
}

//! The grower beside one that tries every split on raw values and counts with wide integers.

use proptest::prelude::*;

use super::*;
use crate::base::SplitMix64;
use crate::train::bins::REST_BIN;
use crate::train::data::{Column, MISSING};
use crate::train::histogram::Found;

const LEVELS: u32 = 7;

fn matrix(rows: usize, seed: u64, missing: f64) -> Matrix {
    let mut random = SplitMix64::new(seed);
    let mut columns = Vec::new();
    for column in 0..4 {
        let values = (0..rows).map(|_| match random.unit() {
            x if x < missing => f32::NAN,
            _ if column == 0 => random.below(5) as f32,
            _ => (random.unit() * 8.0) as f32 - 4.0,
        });
        columns.push(Column::Number(values.collect()));
    }
    let codes = (0..rows).map(|_| if random.unit() < missing { MISSING } else { random.below(LEVELS.into()) as u32 });
    columns.push(Column::Category { codes: codes.collect(), levels: (0..LEVELS).map(|l| l.to_string()).collect() });
    Matrix { names: (0..columns.len()).map(|index| format!("c{index}")).collect(), columns }
}

fn items(rows: usize, seed: u64) -> Vec<Item> {
    let mut random = SplitMix64::new(seed ^ 77);
    let item = |row| Item { row, gradient: random.below(2001) as i32 - 1000, hessian: random.below(1000) as u32 };
    (0..rows as u32).map(item).collect()
}

/// A row's way, by raw values.
fn goes_left(inputs: &Matrix, column: usize, split: &Split, missing_left: bool, row: u32) -> bool {
    match (&inputs.columns[column], split) {
        (Column::Number(values), _) if values[row as usize].is_nan() => missing_left,
        (Column::Number(values), Split::AtMost(threshold)) => values[row as usize] <= *threshold,
        (Column::Category { codes, .. }, _) if codes[row as usize] == MISSING => missing_left,
        (Column::Category { codes, .. }, Split::In(set)) => set.contains(&codes[row as usize]),
        _ => unreachable!("a split of another kind"),
    }
}

#[derive(Default, Clone, Copy)]
struct Wide {
    gradient: i128,
    hessian: i128,
    count: i64,
}

fn wide<'a>(items: impl Iterator<Item = &'a Item>) -> Wide {
    items.fold(Wide::default(), |sum, item| Wide {
        gradient: sum.gradient + i128::from(item.gradient),
        hessian: sum.hessian + i128::from(item.hessian),
        count: sum.count + 1,
    })
}

struct Naive<'a> {
    inputs: &'a Matrix,
    bins: &'a [Bins],
    units: &'a Units,
    rules: &'a Rules,
}

impl Naive<'_> {
    fn score(&self, sums: Wide, l2: f64) -> f64 {
        let (g, h) = (sums.gradient as f64 * self.units.gradient, sums.hessian as f64 * self.units.hessian);
        g * g / (h + l2)
    }

    /// Every split there is, the first of the best ones; with all subsets of levels if so.
    fn best(&self, items: &[Item], all_sets: bool) -> Option<(f64, usize, Split, bool)> {
        let total = wide(items.iter());
        let parent = self.score(total, self.rules.l2);
        let mut best: Option<(f64, usize, Split, bool)> = None;
        for (column, input) in self.inputs.columns.iter().enumerate() {
            let absent = |row: u32| match input {
                Column::Number(values) => values[row as usize].is_nan(),
                Column::Category { codes, .. } => codes[row as usize] == MISSING,
            };
            let some_absent = items.iter().any(|item| absent(item.row));
            let (splits, l2) = match (&self.bins[column], input) {
                (Bins::Number { edges, .. }, _) => {
                    let all = edges.iter().copied().chain(some_absent.then_some(f32::MAX));
                    (all.map(Split::AtMost).collect::<Vec<_>>(), self.rules.l2)
                }
                (Bins::Category { .. }, Column::Category { codes, .. }) => {
                    let sum = |level: u32| wide(items.iter().filter(|item| codes[item.row as usize] == level));
                    let mut order: Vec<(f64, u32)> = (0..LEVELS)
                        .filter(|level| sum(*level).count > 0)
                        .map(|level| {
                            let sum = sum(level);
                            let h = sum.hessian as f64 * self.units.hessian + self.rules.category_smooth;
                            (sum.gradient as f64 * self.units.gradient / h, level)
                        })
                        .collect();
                    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    let set = |mut codes: Vec<u32>| {
                        codes.sort_unstable();
                        Split::In(codes)
                    };
                    let sets: Vec<Split> = if all_sets {
                        (1..1u32 << LEVELS)
                            .map(|bits| set((0..LEVELS).filter(|level| bits >> level & 1 == 1).collect()))
                            .collect()
                    } else {
                        let ends = 1..=order.len();
                        ends.map(|end| set(order[..end].iter().map(|(_, level)| *level).collect())).collect()
                    };
                    (sets, self.rules.l2 + self.rules.category_l2)
                }
                _ => unreachable!("bins of another kind"),
            };
            for split in splits {
                for missing_left in [false, true] {
                    if missing_left && (!some_absent || split == Split::AtMost(f32::MAX)) {
                        continue;
                    }
                    let side = |left: bool| {
                        wide(
                            items
                                .iter()
                                .filter(|i| goes_left(self.inputs, column, &split, missing_left, i.row) == left),
                        )
                    };
                    let (left, right) = (side(true), side(false));
                    let enough = |s: Wide| {
                        s.count >= self.rules.min_rows
                            && s.hessian as f64 * self.units.hessian >= self.rules.min_hessian
                    };
                    if !enough(left) || !enough(right) {
                        continue;
                    }
                    let score = self.score(left, l2) + self.score(right, l2);
                    let floor = parent + self.rules.min_gain + 1e-12 * parent;
                    if score > best.as_ref().map_or(floor, |best| best.0) {
                        let way = if some_absent { missing_left } else { 2 * left.count >= total.count };
                        best = Some((score, column, split.clone(), way));
                    }
                }
            }
        }
        best.map(|(score, column, split, way)| (score - parent, column, split, way))
    }
}

fn naive(naive: &Naive, items: &[Item], limits: Limits) -> Vec<Node> {
    let mut nodes = vec![Node::Leaf { values: Vec::new() }];
    let mut leaves = vec![(0usize, items.to_vec(), 0u32)];
    while leaves.len() < limits.leaves {
        let mut best: Option<(usize, (f64, usize, Split, bool))> = None;
        for (index, (_, items, depth)) in leaves.iter().enumerate() {
            let Some(found) = naive.best(items, false).filter(|_| *depth < limits.depth) else { continue };
            if best.as_ref().is_none_or(|best| found.0 > best.1.0) {
                best = Some((index, found));
            }
        }
        let Some((index, (gain, column, split, missing_left))) = best else { break };
        let (node, items, depth) = leaves[index].clone();
        let (yes, no): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| goes_left(naive.inputs, column, &split, missing_left, item.row));
        let left = nodes.len();
        nodes.extend([Node::Leaf { values: Vec::new() }, Node::Leaf { values: Vec::new() }]);
        nodes[node] = Node::Branch {
            column: column as u32,
            split,
            missing_left,
            left: left as u32,
            right: left as u32 + 1,
            gain,
        };
        leaves[index] = (left, yes, depth + 1);
        leaves.push((left + 1, no, depth + 1));
    }
    nodes
}

fn rules(min_rows: i64, l2: f64) -> Rules {
    Rules { min_rows, min_hessian: 1e-3, min_gain: 0.0, l2, category_smooth: 2.0, category_l2: 1.0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_tree_is_that_of_trying_every_split(
        rows in 2usize..160,
        seed in any::<u64>(),
        missing in prop_oneof![Just(0.0), Just(0.2), Just(0.7)],
        most in 2usize..40,
        leaves in 2usize..12,
        depth in 1u32..6,
        min_rows in 1i64..9,
        l2 in prop_oneof![Just(0.0), Just(3.0)],
        threads in 1usize..4,
    ) {
        let inputs = matrix(rows, seed, missing);
        let mut items = items(rows, seed);
        let units = Units { gradient: 0.25, hessian: 0.125, count_bits: 8 };
        let rules = rules(min_rows, l2);
        let limits = Limits { leaves, depth };
        let mut grower = Grower::new(&inputs, most, threads);
        let slow = naive(&Naive { inputs: &inputs, bins: &grower.bins, units: &units, rules: &rules }, &items, limits);
        let grown = grower.grow(&mut items, &[true; 5], &units, &rules, limits);
        prop_assert_eq!(&grown.nodes, &slow);
        // Leaves hold the rows that walk to them, and their sums.
        for (node, range, sums) in &grown.leaves {
            let leaf = matches!(grown.nodes[*node], Node::Leaf { .. });
            prop_assert!(leaf);
            let sum = wide(items[range.clone()].iter());
            prop_assert_eq!(i128::from(sums.gradient), sum.gradient);
            prop_assert_eq!(sums.count(&units), sum.count);
            prop_assert_eq!(sums.hessian(&units), sum.hessian as f64 * units.hessian);
        }
        let mut rows_seen: Vec<u32> = items.iter().map(|item| item.row).collect();
        rows_seen.sort_unstable();
        prop_assert_eq!(rows_seen, (0..rows as u32).collect::<Vec<_>>());
        // A second tree in the same room is the same tree.
        prop_assert_eq!(grower.grow(&mut items, &[true; 5], &units, &rules, limits).nodes, grown.nodes);
    }

    #[test]
    fn levels_in_order_hold_the_best_of_all_sets(rows in 10usize..120, seed in any::<u64>()) {
        let mut inputs = matrix(rows, seed, 0.0);
        inputs.columns.drain(..4);
        let mut items = items(rows, seed);
        items.iter_mut().for_each(|item| item.hessian += 1);
        let units = Units { gradient: 1.0, hessian: 1.0, count_bits: 8 };
        let rules = Rules { category_smooth: 0.0, category_l2: 0.0, ..rules(1, 0.0) };
        let mut grower = Grower::new(&inputs, 255, 1);
        let grown = grower.grow(&mut items, &[true], &units, &rules, Limits { leaves: 2, depth: 1 });
        let slow = Naive { inputs: &inputs, bins: &grower.bins, units: &units, rules: &rules }.best(&items, true);
        match (&grown.nodes[0], slow) {
            (Node::Branch { gain, .. }, Some((best, ..))) => prop_assert!((gain - best).abs() <= 1e-9 * best.abs()),
            (Node::Leaf { .. }, None) => {}
            (node, slow) => prop_assert!(false, "{:?} beside {:?}", node, slow),
        }
    }
}

#[test]
fn only_chosen_columns_are_asked() {
    let inputs = matrix(500, 3, 0.1);
    let mut grower = Grower::new(&inputs, 50, 2);
    let units = Units { gradient: 1.0, hessian: 1.0, count_bits: 10 };
    let chosen = [false, false, true, false, true];
    let grown = grower.grow(&mut items(500, 3), &chosen, &units, &rules(1, 0.0), Limits { leaves: 20, depth: 9 });
    let asked: Vec<u32> = grown
        .nodes
        .iter()
        .filter_map(|node| match node {
            Node::Branch { column, .. } => Some(*column),
            Node::Leaf { .. } => None,
        })
        .collect();
    assert_eq!(asked.len(), 19);
    assert!(asked.iter().all(|column| chosen[*column as usize]) && asked.contains(&2) && asked.contains(&4));
}

#[test]
fn rare_levels_go_where_unseen_ones_go() {
    // 300 levels, of which the 254 frequent ones have bins; rare ones pull as hard as one can, and still go right.
    let mut codes: Vec<u32> = (0..300).flat_map(|level| vec![level; if level < 254 { 4 } else { 1 }]).collect();
    codes.push(7);
    let rows = codes.len();
    let mut items = items(rows, 1);
    for (item, code) in items.iter_mut().zip(&codes) {
        (item.gradient, item.hessian) = (if *code >= 254 || *code % 2 == 0 { -50 } else { 50 }, 10);
    }
    let levels = (0..300).map(|level| level.to_string()).collect();
    let inputs =
        Matrix { names: vec!["c".to_owned()], columns: vec![Column::Category { codes: codes.clone(), levels }] };
    let units = Units { gradient: 1.0, hessian: 1.0, count_bits: 11 };
    let mut grower = Grower::new(&inputs, 255, 1);
    let grown = grower.grow(&mut items, &[true], &units, &rules(1, 0.0), Limits { leaves: 2, depth: 1 });
    let Node::Branch { split: Split::In(set), .. } = &grown.nodes[0] else { panic!("no split: {:?}", grown.nodes) };
    assert_eq!(*set, (0..254).filter(|level| level % 2 == 1).collect::<Vec<_>>());
    let [(_, left, _), _] = &grown.leaves[..] else { panic!("not two leaves") };
    assert!(items[left.clone()].iter().all(|item| set.contains(&codes[item.row as usize])));
}

#[test]
fn a_cut_of_numbers_and_one_of_sets_send_bins_alike() {
    let sums = Sums::default();
    let cut = |cut| Found { gain: 0.0, column: 0, cut, missing_left: true, left: sums };
    let some = cut(Cut::In([0b101, 0, 0, 1 << 61]));
    let left: Vec<u8> = (0..=255).filter(|bin| some.goes_left(*bin)).collect();
    assert_eq!(left, [0, 2, 253, 255]);
    assert!(!some.goes_left(REST_BIN) && cut(Cut::AtMost(3)).goes_left(3) && !cut(Cut::AtMost(3)).goes_left(4));
}

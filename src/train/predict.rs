//! What a fitted model tells of the rows of a matrix.

use super::data::{Column, MISSING, Matrix};
use super::model::{Ensemble, Fitted, Linear, Link, Node, Split, Tree};
use crate::score::math::exp64;

impl Fitted {
    /// What the model tells, one vector per output: the probability of label 1 (binary), a probability per class, or a
    /// number. Columns are taken by their place; one that is not there counts as missing.
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        match self {
            Fitted::Ensemble(ensemble) => ensemble.predict(inputs),
            Fitted::Linear(linear) => linear.predict(inputs),
        }
    }
}

impl Ensemble {
    /// As [`Fitted::predict`].
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        let mut sums: Vec<Vec<f64>> = self.base.iter().map(|base| vec![*base; inputs.rows()]).collect();
        let mut slices: Vec<&mut [f64]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
        Walker::new(&self.trees, inputs).add(0, &mut slices);
        self.link.apply(&mut sums);
        sums
    }
}

/// Rows that walk side by side.
const LANES: usize = 8;
/// Rows whose inputs are laid out at a time.
const BLOCK: usize = 128;

/// A node laid out for the walk: children lie side by side, and a leaf is its own child for every value.
#[derive(Clone, Copy)]
struct Step {
    /// Left where the value is not above; of a category the index of its set, as bits.
    threshold: f32,
    /// Where the value of a lane lies in the block.
    offset: u32,
    /// The left child.
    child: u32,
    /// 1 where a missing value goes right.
    missing_right: u32,
}

struct Laid {
    steps: std::ops::Range<usize>,
    depth: usize,
    categories: bool,
    first_output: usize,
    outputs: usize,
}

/// Trees laid out for the walk over a matrix, eight rows side by side and no branch to foretell.
pub(super) struct Walker<'a> {
    inputs: Vec<Option<&'a Column>>,
    steps: Vec<Step>,
    /// Where each leaf's values lie.
    leaf: Vec<u32>,
    values: Vec<f64>,
    trees: Vec<Laid>,
    /// Codes of each set, as bits.
    sets: Vec<Vec<u64>>,
}

impl<'a> Walker<'a> {
    pub fn new(trees: &[Tree], inputs: &'a Matrix) -> Walker<'a> {
        let mut walker = Walker {
            inputs: Vec::new(),
            steps: Vec::new(),
            leaf: Vec::new(),
            values: Vec::new(),
            trees: Vec::with_capacity(trees.len()),
            sets: Vec::new(),
        };
        for tree in trees {
            walker.lay_out(tree, inputs);
        }
        walker
    }

    fn lay_out(&mut self, tree: &Tree, inputs: &'a Matrix) {
        let start = self.steps.len();
        let mut categories = false;
        // Index of the node, its place, its depth; a pair of children is given its place when their parent is laid out.
        let mut waiting = std::collections::VecDeque::from([(0usize, 0usize)]);
        let mut depth = 0;
        let mut next = 1;
        while let Some((node, level)) = waiting.pop_front() {
            depth = depth.max(level);
            let at = (self.steps.len() - start) as u32;
            match &tree.nodes[node] {
                Node::Leaf { values } => {
                    self.leaf.push(self.values.len() as u32);
                    self.values.extend(values);
                    self.steps.push(Step { threshold: f32::INFINITY, offset: 0, child: at, missing_right: 0 });
                }
                Node::Branch { column, split, missing_left, left, right, .. } => {
                    let column = *column as usize;
                    if self.inputs.len() <= column {
                        self.inputs.resize(column + 1, None);
                    }
                    let given = inputs.columns.get(column);
                    let threshold = match split {
                        Split::AtMost(threshold) => {
                            self.inputs[column] = given.filter(|given| matches!(given, Column::Number(_)));
                            *threshold
                        }
                        Split::In(codes) => {
                            self.inputs[column] = given.filter(|given| matches!(given, Column::Category { .. }));
                            categories = true;
                            let mut bits = vec![0; codes.last().map_or(0, |last| *last as usize / 64 + 1)];
                            codes.iter().for_each(|code| bits[*code as usize / 64] |= 1u64 << (code % 64));
                            self.sets.push(bits);
                            f32::from_bits(self.sets.len() as u32 - 1)
                        }
                    };
                    self.leaf.push(if matches!(split, Split::In(_)) { 1 } else { 0 });
                    self.steps.push(Step {
                        threshold,
                        offset: (column * LANES) as u32,
                        child: next,
                        missing_right: u32::from(!missing_left),
                    });
                    next += 2;
                    waiting.extend([(*left as usize, level + 1), (*right as usize, level + 1)]);
                }
            }
        }
        self.trees.push(Laid {
            steps: start..self.steps.len(),
            depth,
            categories,
            first_output: tree.first_output as usize,
            outputs: tree.outputs as usize,
        });
    }

    /// Adds the trees' values to the sums of the rows from `start` on, one slice per sum, as many rows as these have.
    pub fn add(&self, start: usize, sums: &mut [&mut [f64]]) {
        self.add_as(start, sums, |value| value);
    }

    /// As [`Self::add`] to sums of another precision, which the values are rounded to first.
    pub fn add_as<T: Copy + std::ops::AddAssign>(&self, start: usize, sums: &mut [&mut [T]], of: impl Fn(f64) -> T) {
        let rows = sums.first().map_or(0, |sums| sums.len());
        let stride = self.inputs.len().max(1) * LANES;
        let mut block = vec![f32::NAN; BLOCK / LANES * stride];
        for first in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - first);
            for (column, input) in self.inputs.iter().enumerate() {
                let range = start + first..start + first + count;
                match input {
                    Some(Column::Number(values)) => fill(&mut block, stride, column, values[range].iter().copied()),
                    // As bits, a missing code is a NaN.
                    Some(Column::Category { codes, .. }) => {
                        fill(&mut block, stride, column, codes[range].iter().map(|code| f32::from_bits(*code)));
                    }
                    None => {}
                }
            }
            for tree in &self.trees {
                let steps = &self.steps[tree.steps.clone()];
                let leaf = &self.leaf[tree.steps.clone()];
                for (group, block) in block.chunks_exact(stride).take(count.div_ceil(LANES)).enumerate() {
                    let ends = if tree.categories {
                        self.walk_sets(steps, leaf, block)
                    } else {
                        walk(steps, tree.depth, block)
                    };
                    let from = first + group * LANES;
                    let lanes = LANES.min(rows - from);
                    for output in 0..tree.outputs {
                        let sums = &mut sums[tree.first_output + output][from..from + lanes];
                        for (sum, end) in sums.iter_mut().zip(ends) {
                            *sum += of(self.values[leaf[end as usize] as usize + output]);
                        }
                    }
                }
            }
        }
    }

    /// The walk where some nodes ask for a set.
    fn walk_sets(&self, steps: &[Step], set: &[u32], block: &[f32]) -> [u32; LANES] {
        std::array::from_fn(|lane| {
            let mut at = 0u32;
            loop {
                let step = steps[at as usize];
                if step.child == at {
                    return at;
                }
                let value = block[step.offset as usize + lane];
                let right = if value.is_nan() {
                    step.missing_right
                } else if set[at as usize] == 1 {
                    let (bits, code) = (&self.sets[step.threshold.to_bits() as usize], value.to_bits());
                    u32::from(bits.get(code as usize / 64).is_none_or(|word| word >> (code % 64) & 1 == 0))
                } else {
                    u32::from(value > step.threshold)
                };
                at = step.child + right;
            }
        })
    }
}

fn fill(block: &mut [f32], stride: usize, column: usize, values: impl Iterator<Item = f32>) {
    let lanes = block.chunks_exact_mut(stride).flat_map(|group| &mut group[column * LANES..(column + 1) * LANES]);
    for (lane, value) in lanes.zip(values) {
        *lane = value;
    }
}

/// Nodes that eight rows end at.
fn walk(steps: &[Step], depth: usize, block: &[f32]) -> [u32; LANES] {
    let mut at = [0u32; LANES];
    let mut left = depth;
    while left > 0 {
        let before = at;
        for _ in 0..left.min(4) {
            for (lane, at) in at.iter_mut().enumerate() {
                let step = &steps[*at as usize];
                let value = block[step.offset as usize + lane];
                *at = step.child + (u32::from(value > step.threshold) | u32::from(value.is_nan()) & step.missing_right);
            }
        }
        if at == before {
            break;
        }
        left -= left.min(4);
    }
    at
}

/// The softmax over columns of sums, in place.
pub(super) fn softmax(sums: &mut [&mut [f64]]) {
    let rows = sums.first().map_or(0, |sum| sum.len());
    for row in 0..rows {
        let most = sums.iter().map(|sum| sum[row]).fold(f64::NEG_INFINITY, f64::max);
        let mut total = 0.0;
        for sum in sums.iter_mut() {
            sum[row] = exp64(sum[row] - most);
            total += sum[row];
        }
        for sum in sums.iter_mut() {
            sum[row] /= total;
        }
    }
}

impl Tree {
    /// The values of the leaf that a row comes to: the walk as it is defined, for tests and single rows.
    pub fn leaf(&self, inputs: &Matrix, row: usize) -> &[f64] {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf { values } => return values,
                Node::Branch { column, split, missing_left, left, right, .. } => {
                    let yes = match (inputs.columns.get(*column as usize), split) {
                        (Some(Column::Number(values)), Split::AtMost(_)) if values[row].is_nan() => *missing_left,
                        (Some(Column::Number(values)), Split::AtMost(threshold)) => values[row] <= *threshold,
                        (Some(Column::Category { codes, .. }), Split::In(_)) if codes[row] == MISSING => *missing_left,
                        (Some(Column::Category { codes, .. }), Split::In(set)) => {
                            set.binary_search(&codes[row]).is_ok()
                        }
                        _ => *missing_left,
                    };
                    at = if yes { *left } else { *right } as usize;
                }
            }
        }
    }
}

impl Linear {
    /// As [`Fitted::predict`]; a row with a missing value or a category gives NaN.
    pub fn predict(&self, inputs: &Matrix) -> Vec<Vec<f64>> {
        let rows = inputs.rows();
        let mut sums: Vec<Vec<f64>> = self.intercepts.iter().map(|intercept| vec![*intercept; rows]).collect();
        for (sums, weights) in sums.iter_mut().zip(&self.weights) {
            for (index, weight) in weights.iter().enumerate() {
                match inputs.columns.get(index) {
                    Some(Column::Number(values)) => {
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += weight * f64::from(*value);
                        }
                    }
                    _ => sums.fill(f64::NAN),
                }
            }
        }
        self.link.apply(&mut sums);
        sums
    }
}

impl Link {
    /// Turns sums, one vector per sum, into what the model tells.
    pub fn apply(self, sums: &mut [Vec<f64>]) {
        match self {
            Link::Identity | Link::Probability => {}
            Link::Logistic => {
                for sum in sums.iter_mut().flatten() {
                    *sum = 1.0 / (1.0 + exp64(-*sum));
                }
            }
            Link::Softmax => {
                let mut slices: Vec<&mut [f64]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
                softmax(&mut slices);
            }
        }
    }
}

//! Trees laid out for the walk, and the walk: every node is `x[i] <= t`, every step the same few instructions without a branch.
//!
//! **One comparison for all.** A block of rows holds each input x beside −x, so that with the neighbouring floating-point number every test becomes
//! `v <= t` on one of the two: `x < t` is `x <= pred(t)`, `x >= t` is `−x <= −t`, and so on. A missing (NaN) input fails every comparison;
//! where it is to count as true, the opposite test is written and the children change places. `x == t` is two nodes, membership two per value.
//!
//! **A step.** Children lie side by side, so `next = child + (v <= t)`. A leaf compares the block's NaN column, fails, and so stays where it is:
//! trees of unequal depth can be walked in lockstep. Eight walks run interleaved, eight rows in one tree or, for single rows, one row in
//! eight trees, so that their memory latencies overlap.

use std::collections::HashMap;

use super::finish::Aggregate;
use super::forest::{Forest, Node as Source, Test};

/// Rows, or trees, walked side by side.
const LANES: usize = 8;

/// Bytes of inputs that a block of rows may take, to stay in the first-level cache with a tree.
const BLOCK_BYTES: usize = 24 << 10;

/// A precision in which trees are evaluated.
pub(crate) trait Real:
    Copy + Default + PartialOrd + std::ops::Add<Output = Self> + std::ops::Neg<Output = Self> + Send + Sync + 'static
{
    const NAN: Self;
    const INFINITY: Self;
    fn of_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The next smaller number; NaN, which nothing is at or below, for −∞.
    fn below(self) -> Self;
    fn divided(self, by: usize) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const NAN: $t = <$t>::NAN;
            const INFINITY: $t = <$t>::INFINITY;
            fn of_f64(x: f64) -> $t {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn below(self) -> $t {
                if self == <$t>::NEG_INFINITY { <$t>::NAN } else { self.next_down() }
            }
            fn divided(self, by: usize) -> $t {
                self / by as $t
            }
        }
    };
}
real!(f32);
real!(f64);

/// Where a node looks and leads: `LANES` × the block column of its input, and the node of its false child, relative to the tree.
pub(super) trait Link: Copy + Send + Sync {
    const COLUMN_BITS: u32;
    const CHILD_BITS: u32;
    fn new(column: usize, child: usize) -> Self;
    fn offset(self) -> usize;
    fn child(self) -> usize;
}

macro_rules! link {
    ($t:ty, $column_bits:expr) => {
        impl Link for $t {
            const COLUMN_BITS: u32 = $column_bits;
            const CHILD_BITS: u32 = <$t>::BITS - $column_bits;
            #[inline(always)]
            fn new(column: usize, child: usize) -> $t {
                (child as $t) << Self::COLUMN_BITS | (column * LANES) as $t
            }
            #[inline(always)]
            fn offset(self) -> usize {
                (self & ((1 << Self::COLUMN_BITS) - 1)) as usize
            }
            #[inline(always)]
            fn child(self) -> usize {
                (self >> Self::COLUMN_BITS) as usize
            }
        }
    };
}
link!(u32, 14);
link!(u64, 32);

/// A node of a laid-out tree. A leaf's `value` is its weight where the trees have one target.
#[derive(Clone, Copy, Debug)]
struct Node<T, L> {
    value: T,
    link: L,
}

/// A tree's place in the array of nodes.
#[derive(Clone, Copy, Debug)]
struct Tree {
    start: usize,
    /// Steps to the nearest leaf: no walk ends before.
    least: usize,
    /// Steps to the farthest leaf: every walk has ended then.
    most: usize,
}

struct Layout<T, L> {
    nodes: Vec<Node<T, L>>,
    trees: Vec<Tree>,
    /// Leaf of each node that is one, for forests of several targets.
    leaf: Vec<u32>,
}

enum AnyLayout<T> {
    Narrow(Layout<T, u32>),
    Wide(Layout<T, u64>),
}

/// A forest ready for the walk.
pub(super) struct Flat<T> {
    layout: AnyLayout<T>,
    /// Inputs read.
    inputs: usize,
    /// Whether any node compares −x.
    negated: bool,
    /// The target of every leaf's one weight, if so.
    one_target: Option<usize>,
    targets: usize,
    /// Start of each leaf's weights, and their end.
    spans: Vec<u32>,
    weights: Vec<(u32, T)>,
}

/// A place in the tree still to be laid out.
#[derive(Clone)]
enum Todo<T> {
    Node(usize),
    Compare(Box<Compare<T>>),
}

/// `v <= threshold` on x or −x.
#[derive(Clone)]
struct Compare<T> {
    feature: usize,
    negate: bool,
    threshold: T,
    on_false: Todo<T>,
    on_true: Todo<T>,
}

/// The comparison for one of the four orderings, on a missing input taking the branch asked for.
fn ordering<T: Real>(
    test: &Test,
    feature: usize,
    t: T,
    missing_is_true: bool,
    on_true: Todo<T>,
    on_false: Todo<T>,
) -> Todo<T> {
    let (negate, threshold) = match (test, missing_is_true) {
        (Test::Leq, false) => (false, t),
        (Test::Lt, false) => (false, t.below()),
        (Test::Gte, false) => (true, -t),
        (Test::Gt, false) => (true, (-t).below()),
        // The opposite test: it sends a missing input, which fails it, to the true side.
        (Test::Leq, true) => (true, (-t).below()),
        (Test::Lt, true) => (true, -t),
        (Test::Gte, true) => (false, t.below()),
        (Test::Gt, true) => (false, t),
        (Test::Eq | Test::Neq | Test::Member(_), _) => unreachable!("not an ordering"),
    };
    let (on_true, on_false) = if missing_is_true { (on_false, on_true) } else { (on_true, on_false) };
    Todo::Compare(Box::new(Compare { feature, negate, threshold, on_false, on_true }))
}

/// `x == t` as `x <= t` and `x >= t`.
fn equality<T: Real>(feature: usize, t: T, missing_is_true: bool, on_true: Todo<T>, on_false: Todo<T>) -> Todo<T> {
    let second = ordering(&Test::Gte, feature, t, missing_is_true, on_true, on_false.clone());
    ordering(&Test::Leq, feature, t, missing_is_true, second, on_false)
}

/// A test that no number passes: every number is at or below infinity, a missing input is not.
fn impossible<T: Real>(feature: usize, missing_is_true: bool, on_true: Todo<T>, on_false: Todo<T>) -> Todo<T> {
    let on_missing = if missing_is_true { on_true } else { on_false.clone() };
    ordering(&Test::Leq, feature, T::INFINITY, false, on_false, on_missing)
}

fn lower<T: Real>(forest: &Forest, i: usize) -> Option<Todo<T>> {
    let Source::Split(s) = &forest.nodes[i] else {
        return None;
    };
    let (on_true, on_false) = (Todo::Node(s.on_true), Todo::Node(s.on_false));
    let t = T::of_f64(s.threshold);
    Some(match &s.test {
        Test::Neq if s.threshold.is_nan() => impossible(s.feature, false, on_false, on_true),
        Test::Leq | Test::Lt | Test::Gte | Test::Gt | Test::Eq if s.threshold.is_nan() => {
            impossible(s.feature, s.missing_is_true, on_true, on_false)
        }
        Test::Eq => equality(s.feature, t, s.missing_is_true, on_true, on_false),
        // A missing input is unlike every number.
        Test::Neq => equality(s.feature, t, false, on_false, on_true),
        Test::Member(values) => {
            let none = match values.is_empty() {
                true => impossible(s.feature, s.missing_is_true, on_true.clone(), on_false),
                false => on_false,
            };
            values
                .iter()
                .rev()
                .fold(none, |rest, &v| equality(s.feature, T::of_f64(v), s.missing_is_true, on_true.clone(), rest))
        }
        test => ordering(test, s.feature, t, s.missing_is_true, on_true, on_false),
    })
}

/// Least and most steps from each node to a leaf. Children of a node come back before it on the explicit stack: trees may be deep.
fn steps(forest: &Forest) -> Vec<(usize, usize)> {
    let mut known = vec![(0, 0); forest.nodes.len()];
    for &root in &forest.roots {
        let mut stack = vec![(root, false)];
        while let Some((i, ready)) = stack.pop() {
            let Source::Split(s) = &forest.nodes[i] else { continue };
            if !ready {
                stack.extend([(i, true), (s.on_true, false), (s.on_false, false)]);
                continue;
            }
            let (least, most) = match &s.test {
                Test::Eq | Test::Neq => (1, 2),
                Test::Member(values) => (1, 2 * values.len().max(1)),
                _ => (1, 1),
            };
            let (a, b) = (known[s.on_true], known[s.on_false]);
            known[i] = (least + a.0.min(b.0), most + a.1.max(b.1));
        }
    }
    known
}

impl<T: Real, L: Link> Layout<T, L> {
    fn new(forest: &Forest, leaf_ids: &HashMap<usize, u32>, one_target: bool) -> Option<Layout<T, L>> {
        let depths = steps(forest);
        let mut layout = Layout { nodes: Vec::new(), trees: Vec::new(), leaf: Vec::new() };
        let columns = 1 + 2 * forest.inputs;
        if columns * LANES >= 1 << L::COLUMN_BITS {
            return None;
        }
        let blank = Node { value: T::NAN, link: L::new(0, 0) };
        for &root in &forest.roots {
            let start = layout.nodes.len();
            let mut laid = HashMap::new();
            let mut queue = std::collections::VecDeque::from([(start, Todo::Node(root))]);
            layout.nodes.push(blank);
            while let Some((at, todo)) = queue.pop_front() {
                let (source, compare) = match todo {
                    Todo::Compare(c) => (None, c),
                    Todo::Node(i) => {
                        if let Some(&node) = laid.get(&i) {
                            layout.nodes[at] = node;
                            continue;
                        }
                        match lower::<T>(forest, i) {
                            Some(Todo::Compare(c)) => (Some(i), c),
                            _ => {
                                layout.nodes[at] = leaf_node(forest, i, at - start, one_target);
                                layout.leaf.resize(layout.nodes.len().max(at + 1), 0);
                                layout.leaf[at] = leaf_ids[&i];
                                continue;
                            }
                        }
                    }
                };
                let child = layout.nodes.len();
                if (child - start) as u64 >= 1 << L::CHILD_BITS {
                    return None;
                }
                let column = 1 + compare.feature + if compare.negate { forest.inputs } else { 0 };
                layout.nodes[at] = Node { value: compare.threshold, link: L::new(column, child - start) };
                if let Some(i) = source {
                    laid.insert(i, layout.nodes[at]);
                }
                layout.nodes.extend([blank, blank]);
                queue.push_back((child, compare.on_false));
                queue.push_back((child + 1, compare.on_true));
            }
            let (least, most) = depths[root];
            layout.trees.push(Tree { start, least, most });
        }
        layout.leaf.resize(layout.nodes.len(), 0);
        Some(layout)
    }

    /// Walks one group of rows through one tree and gives each lane's leaf, as an index into the nodes.
    ///
    /// SAFETY: `group` must point at [`LANES`] × (columns of the block) values, the columns at which this layout's nodes look. Children lie in
    /// the tree by construction.
    #[inline(always)]
    unsafe fn walk_rows(&self, tree: Tree, group: *const T) -> [usize; LANES] {
        // SAFETY: `start` is the place of the tree's root.
        let nodes = unsafe { self.nodes.as_ptr().add(tree.start) };
        let mut at = [0usize; LANES];
        let step = |at: &mut [usize; LANES]| {
            for (lane, at) in at.iter_mut().enumerate() {
                // SAFETY: as above.
                unsafe {
                    let node = *nodes.add(*at);
                    let v = *group.add(node.link.offset() + lane);
                    *at = node.link.child() + (v <= node.value) as usize;
                }
            }
        };
        for _ in 0..tree.least {
            step(&mut at);
        }
        finish(&mut at, tree.most - tree.least, step);
        at.map(|at| tree.start + at)
    }

    /// Walks one row, lane 0 of `group`, through several trees.
    ///
    /// SAFETY: as for [`Self::walk_rows`].
    #[inline(always)]
    unsafe fn walk_trees(&self, trees: &[Tree; LANES], group: *const T) -> [usize; LANES] {
        let mut at = trees.map(|t| t.start);
        let least = trees.iter().map(|t| t.least).min().unwrap_or(0);
        let most = trees.iter().map(|t| t.most).max().unwrap_or(0);
        let step = |at: &mut [usize; LANES]| {
            for (lane, at) in at.iter_mut().enumerate() {
                // SAFETY: as above.
                unsafe {
                    let node = *self.nodes.as_ptr().add(*at);
                    let v = *group.add(node.link.offset());
                    *at = trees[lane].start + node.link.child() + (v <= node.value) as usize;
                }
            }
        };
        for _ in 0..least {
            step(&mut at);
        }
        finish(&mut at, most - least, step);
        at
    }
}

/// Takes up to `left` steps more, two between one look and the next whether any walk is still under way.
#[inline(always)]
fn finish(at: &mut [usize; LANES], left: usize, step: impl Fn(&mut [usize; LANES])) {
    let mut left = left;
    while left > 0 {
        step(at);
        let before = *at;
        step(at);
        let moved = at.iter().zip(before).fold(0, |moved, (a, b)| moved | (a ^ b));
        if moved == 0 {
            break;
        }
        left = left.saturating_sub(2);
    }
}

fn leaf_node<T: Real, L: Link>(forest: &Forest, i: usize, at: usize, one_target: bool) -> Node<T, L> {
    let value = match &forest.nodes[i] {
        Source::Leaf(w) if one_target => T::of_f64(w[0].1),
        _ => T::NAN,
    };
    Node { value, link: L::new(0, at) }
}

impl<T: Real> Flat<T> {
    /// Lays a forest out.
    pub(super) fn new(forest: &Forest) -> Result<Flat<T>, String> {
        let mut spans = vec![0];
        let mut weights = Vec::new();
        let mut leaf_ids = HashMap::new();
        let mut only: Option<usize> = None;
        let mut single = true;
        for (i, node) in forest.nodes.iter().enumerate() {
            let Source::Leaf(w) = node else { continue };
            leaf_ids.insert(i, leaf_ids.len() as u32);
            weights.extend(w.iter().map(|&(target, weight)| (target as u32, T::of_f64(weight))));
            spans.push(weights.len() as u32);
            single &= w.len() == 1 && *only.get_or_insert(w[0].0) == w[0].0;
        }
        let one_target = only.filter(|_| single);
        let negated = true;
        let layout = match Layout::new(forest, &leaf_ids, one_target.is_some()) {
            Some(narrow) => AnyLayout::Narrow(narrow),
            None => AnyLayout::Wide(Layout::new(forest, &leaf_ids, one_target.is_some()).ok_or("is too large")?),
        };
        Ok(Flat { layout, inputs: forest.inputs, negated, one_target, targets: forest.targets, spans, weights })
    }

    /// The target that every leaf weighs once, if there is one: then [`Self::sum`] and [`Self::pick`] do.
    pub(super) fn one_target(&self) -> Option<usize> {
        self.one_target
    }

    /// Adds each row's leaf weights to `sums`, in the order of the trees.
    pub(super) fn sum(&self, x: &[T], rows: usize, width: usize, block: &mut Vec<T>, sums: &mut [T]) {
        self.visit(x, rows, width, block, |row, value, _| sums[row] = sums[row] + value);
    }

    /// The smallest or largest of each row's leaf weights.
    pub(super) fn pick(
        &self,
        x: &[T],
        rows: usize,
        width: usize,
        block: &mut Vec<T>,
        sums: &mut [T],
        aggregate: Aggregate,
    ) {
        let mut seen = vec![false; rows];
        self.visit(x, rows, width, block, |row, value, _| {
            if !std::mem::replace(&mut seen[row], true) || aggregate.prefers(value, sums[row]) {
                sums[row] = value;
            }
        });
    }

    /// Folds each row's leaf weights into `sums[row][target]` and notes in `seen` which targets had any.
    #[allow(clippy::too_many_arguments, reason = "buffers of one thread, handed in to be kept")]
    pub(super) fn sum_targets(
        &self,
        x: &[T],
        rows: usize,
        width: usize,
        block: &mut Vec<T>,
        sums: &mut [T],
        seen: &mut [bool],
        aggregate: Aggregate,
    ) {
        let leaf: &[u32] = match &self.layout {
            AnyLayout::Narrow(l) => &l.leaf,
            AnyLayout::Wide(l) => &l.leaf,
        };
        self.visit(x, rows, width, block, |row, _, at| {
            let id = leaf[at] as usize;
            for &(target, weight) in &self.weights[self.spans[id] as usize..self.spans[id + 1] as usize] {
                let i = row * self.targets + target as usize;
                let first = !std::mem::replace(&mut seen[i], true);
                if aggregate.adds() {
                    sums[i] = sums[i] + weight;
                } else if first || aggregate.prefers(weight, sums[i]) {
                    sums[i] = weight;
                }
            }
        });
    }

    fn visit(&self, x: &[T], rows: usize, width: usize, block: &mut Vec<T>, f: impl FnMut(usize, T, usize)) {
        match &self.layout {
            AnyLayout::Narrow(l) => self.visit_layout(l, x, rows, width, block, f),
            AnyLayout::Wide(l) => self.visit_layout(l, x, rows, width, block, f),
        }
    }

    /// Calls `f(row, leaf value, leaf node)` for every row and tree; for each row the trees come in order.
    fn visit_layout<L: Link>(
        &self,
        layout: &Layout<T, L>,
        x: &[T],
        rows: usize,
        width: usize,
        block: &mut Vec<T>,
        mut f: impl FnMut(usize, T, usize),
    ) {
        assert!(x.len() >= rows * width && width >= self.inputs);
        let columns = 1 + self.inputs * (1 + self.negated as usize);
        let stride = columns * LANES;
        let groups_max = (BLOCK_BYTES / (stride * size_of::<T>())).clamp(1, 64);
        let mut first = 0;
        while first < rows {
            let left = rows - first;
            // Two rows and fewer leave most lanes of a group idle: they walk several trees each instead.
            if left <= 2 {
                self.fill(&x[first * width..], 1, width, 1, block);
                self.visit_row(layout, first, block, &mut f);
                first += 1;
                continue;
            }
            let groups = left.div_ceil(LANES).min(groups_max);
            let groups = if left % LANES <= 2 && left > LANES { groups.min(left / LANES) } else { groups };
            let taken = left.min(groups * LANES);
            self.fill(&x[first * width..], taken, width, groups, block);
            for &tree in &layout.trees {
                for group in 0..groups {
                    // SAFETY: `fill` made the block `groups` × `stride` long, and `stride` covers the columns of this forest.
                    let at = unsafe { layout.walk_rows(tree, block.as_ptr().add(group * stride)) };
                    let row = group * LANES;
                    for (lane, &at) in at.iter().enumerate().take(taken - row) {
                        f(first + row + lane, layout.nodes[at].value, at);
                    }
                }
            }
            first += taken;
        }
    }

    fn visit_row<L: Link>(&self, layout: &Layout<T, L>, row: usize, block: &[T], f: &mut impl FnMut(usize, T, usize)) {
        let (chunks, rest) = layout.trees.as_chunks::<LANES>();
        for trees in chunks {
            // SAFETY: `fill` made the block one group long.
            for at in unsafe { layout.walk_trees(trees, block.as_ptr()) } {
                f(row, layout.nodes[at].value, at);
            }
        }
        if let Some(&last) = rest.last() {
            let mut trees = [last; LANES];
            trees[..rest.len()].copy_from_slice(rest);
            // SAFETY: as above.
            let at = unsafe { layout.walk_trees(&trees, block.as_ptr()) };
            for &at in &at[..rest.len()] {
                f(row, layout.nodes[at].value, at);
            }
        }
    }

    /// Lays rows into the block: groups of [`LANES`] rows, in each the columns NaN, x, −x, in each column the rows side by side.
    fn fill(&self, x: &[T], rows: usize, width: usize, groups: usize, block: &mut Vec<T>) {
        let columns = 1 + self.inputs * (1 + self.negated as usize);
        let stride = columns * LANES;
        block.resize(groups * stride, T::NAN);
        for (g, group) in block.chunks_exact_mut(stride).enumerate() {
            group[..LANES].fill(T::NAN);
            for lane in 0..LANES.min(rows - g * LANES) {
                let row = &x[(g * LANES + lane) * width..][..self.inputs];
                let (plain, negative) = group[LANES..].split_at_mut(self.inputs * LANES);
                for (i, &v) in row.iter().enumerate() {
                    plain[i * LANES + lane] = v;
                    negative[i * LANES + lane] = -v;
                }
            }
        }
    }
}

//! Grows one classification or regression tree (CART): at each node the threshold between two neighbouring values, or the set of
//! levels, after which the labels are least mixed. Source: L. Breiman et al., "Classification and Regression Trees", 1984.
//!
//! **Measure.** For sums s_k of the weights of each label and w = Σ s_k: Gini Σ s_k² / w, entropy Σ s_k ln(s_k / w), variance
//! (Σ w y)² / w. The gain of a split is the measure of its sides less that of the node. Sums are of integers: weights and numbers
//! are rounded to steps of a power of two (whole weights and labels need no rounding), so no order of rows is seen in a tree.
//!
//! **Search.** Rows are counted by rank where a node has many for a column's ranks, and sorted by it where it has few. Levels of a
//! category are put in the order of each label's share, which for two labels and for numbers finds the best of all sets.

use super::data::{Set, Task};
use super::model::{Node, Split};
use super::parallel::each;
use super::rank::{MISSING_RANK, Ranked};
use super::tree::Criterion;
use crate::base::SplitMix64;

/// Fewer values than this are looked at faster than a thread is woken.
const VALUES_PER_THREAD: usize = 50_000;

/// What rows are counted by.
#[derive(Clone, Debug)]
enum Labels {
    /// The label, below the number of labels.
    Class(Vec<u8>),
    /// The same where a byte does not hold it.
    ManyClass(Vec<u32>),
    /// Weight × number, in steps.
    Number(Vec<i64>),
}

/// Labels and weights in fixed point.
#[derive(Clone, Debug)]
pub(super) struct Target {
    labels: Labels,
    /// Weight of each row in steps; what is drawn with replacement weighs a multiple.
    pub weights: Vec<i64>,
    /// Sums of a tally: rows, then the weight of each label, or the weight and the sum of numbers.
    stride: usize,
    /// Added to means of numbers.
    center: f64,
    /// Value of one step of a mean.
    unit: f64,
}

impl Target {
    /// Labels of a set that was checked.
    pub fn new(set: &Set, task: Task) -> Target {
        let rows = set.rows();
        let count_bits = (usize::BITS - rows.leading_zeros()) as i32;
        let steps =
            |most: f64, bits: i32| 2f64.powi(bits - if most > 0.0 { most.log2().floor() as i32 + 1 } else { 0 });
        let weights: Vec<i64> = match &set.weights {
            None => vec![1; rows],
            Some(weights) => {
                let most = weights.iter().copied().fold(0.0, f64::max);
                // Room for the number of rows, and for how often one is drawn.
                let scale = steps(most, 30.min(56 - count_bits));
                weights.iter().map(|weight| (weight * scale).round() as i64).collect()
            }
        };
        let (labels, classes) = match task {
            Task::Binary => (Labels::Class(set.labels.iter().map(|label| *label as u8).collect()), 2),
            Task::Classes(n) if n <= 256 => (Labels::Class(set.labels.iter().map(|label| *label as u8).collect()), n),
            Task::Classes(n) => (Labels::ManyClass(set.labels.iter().map(|label| *label as u32).collect()), n),
            Task::Regression => {
                let total: f64 = weights.iter().map(|weight| *weight as f64).sum();
                let center =
                    set.labels.iter().zip(&weights).map(|(label, weight)| label * *weight as f64).sum::<f64>() / total;
                let sizes = set.labels.iter().zip(&weights).map(|(y, w)| (*w as f64 * (y - center)).abs());
                let scale = steps(sizes.fold(0.0, f64::max), 56 - count_bits);
                let products = set.labels.iter().zip(&weights);
                let products = products.map(|(y, w)| (*w as f64 * (y - center) * scale).round() as i64).collect();
                return Target { labels: Labels::Number(products), weights, stride: 3, center, unit: 1.0 / scale };
            }
        };
        Target { labels, weights, stride: 1 + classes as usize, center: 0.0, unit: 1.0 }
    }

    #[inline(always)]
    fn add(&self, tally: &mut [i64], row: usize, times: i64) {
        tally[0] += 1;
        match &self.labels {
            Labels::Class(class) => tally[1 + usize::from(class[row])] += self.weights[row] * times,
            Labels::ManyClass(class) => tally[1 + class[row] as usize] += self.weights[row] * times,
            Labels::Number(products) => {
                tally[1] += self.weights[row] * times;
                tally[2] += products[row] * times;
            }
        }
    }

    fn alike(&self, a: usize, b: usize) -> bool {
        match &self.labels {
            Labels::Class(class) => class[a] == class[b],
            Labels::ManyClass(class) => class[a] == class[b],
            // Equal numbers of unequal weight: products are compared crosswise.
            Labels::Number(products) => {
                let (wa, wb) = (i128::from(self.weights[a]), i128::from(self.weights[b]));
                i128::from(products[a]) * wb == i128::from(products[b]) * wa
            }
        }
    }

    /// What a leaf with this tally tells.
    fn values(&self, tally: &[i64], binary: bool) -> Vec<f64> {
        if let Labels::Number(_) = self.labels {
            return vec![self.center + tally[2] as f64 * self.unit / tally[1] as f64];
        }
        let total = tally[1..].iter().sum::<i64>() as f64;
        let shares = tally[1..].iter().map(|sum| *sum as f64 / total);
        if binary { shares.skip(1).collect() } else { shares.collect() }
    }
}

/// How a tree is to grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub depth: u32,
    pub min_split: u32,
    pub min_rows: u32,
    pub criterion: Criterion,
    /// Columns that a node chooses among.
    pub columns: usize,
    /// Whether the label is one of two, of which only the second is told.
    pub binary: bool,
}

/// A set as trees are grown on it.
pub(super) struct Field<'a> {
    pub columns: &'a [Ranked],
    pub target: &'a Target,
    pub rules: Rules,
    pub threads: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Cut {
    AtMost {
        rank: u32,
        next: u32,
    },
    In(Vec<u32>),
    /// All that are not missing.
    Present,
}

#[derive(Clone, Debug, PartialEq)]
struct Found {
    gain: f64,
    column: usize,
    cut: Cut,
    missing_left: bool,
}

/// Room to count in.
#[derive(Default)]
struct Scratch {
    dense: Vec<i64>,
    keys: Vec<u64>,
    ranks: Vec<u32>,
    tallies: Vec<i64>,
}

impl Field<'_> {
    /// Grows a tree on the rows that are drawn, `times[row]` times each; its nodes, with what each leaf tells divided by `among`.
    pub fn grow(&self, times: &[u32], random: &mut SplitMix64, among: f64) -> Vec<Node> {
        match self.target.stride {
            3 => self.grow_tree::<3>(times, random, among),
            _ => self.grow_tree::<0>(times, random, among),
        }
    }

    fn grow_tree<const N: usize>(&self, times: &[u32], random: &mut SplitMix64, among: f64) -> Vec<Node> {
        let weights = &self.target.weights;
        let mut rows: Vec<u32> =
            (0..times.len() as u32).filter(|row| times[*row as usize] > 0 && weights[*row as usize] > 0).collect();
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        let mut scratch: Vec<Scratch> = Vec::new();
        let mut spare = Vec::with_capacity(rows.len());
        let mut nodes = vec![Node::Leaf { values: Vec::new() }];
        let mut waiting = vec![(0usize, 0usize, rows.len(), 0u32)];
        while let Some((node, start, end, depth)) = waiting.pop() {
            let inside = &rows[start..end];
            let mut tally = vec![0; self.target.stride];
            inside.iter().for_each(|row| self.target.add(&mut tally, *row as usize, times[*row as usize].into()));
            let may = depth < self.rules.depth
                && inside.len() >= (self.rules.min_split as usize).max(2 * self.rules.min_rows as usize)
                && inside.iter().any(|row| !self.target.alike(*row as usize, inside[0] as usize));
            let found =
                if may { self.choose::<N>(inside, times, &tally, &mut order, random, &mut scratch) } else { None };
            let Some(found) = found else {
                let values = self.target.values(&tally, self.rules.binary);
                nodes[node] = Node::Leaf { values: values.iter().map(|value| value / among).collect() };
                continue;
            };
            spare.clear();
            let column = &self.columns[found.column];
            let mut kept = start;
            for index in start..end {
                let row = rows[index];
                if goes_left(&found, column.rank[row as usize]) {
                    rows[kept] = row;
                    kept += 1;
                } else {
                    spare.push(row);
                }
            }
            rows[kept..end].copy_from_slice(&spare);
            let left = nodes.len();
            nodes.extend([Node::Leaf { values: Vec::new() }, Node::Leaf { values: Vec::new() }]);
            let split = match found.cut {
                Cut::AtMost { rank, next } => Split::AtMost(column.threshold(rank, next)),
                Cut::Present => Split::AtMost(f32::MAX),
                Cut::In(codes) => Split::In(codes),
            };
            nodes[node] = Node::Branch {
                column: found.column as u32,
                split,
                missing_left: found.missing_left,
                left: left as u32,
                right: left as u32 + 1,
                gain: found.gain,
            };
            waiting.push((left + 1, kept, end, depth + 1));
            waiting.push((left, start, kept, depth + 1));
        }
        nodes
    }

    /// The best split among columns drawn for the node; more are drawn while none of them can be split.
    fn choose<const N: usize>(
        &self,
        rows: &[u32],
        times: &[u32],
        total: &[i64],
        order: &mut [usize],
        random: &mut SplitMix64,
        scratch: &mut Vec<Scratch>,
    ) -> Option<Found> {
        let all = order.len();
        if self.rules.columns >= all {
            order.sort_unstable();
        }
        let mut found: Option<Found> = None;
        let mut done = 0;
        while done < all && (done < self.rules.columns || found.is_none()) {
            let next = if done == 0 { self.rules.columns.min(all) } else { done + 1 };
            if self.rules.columns < all {
                for index in done..next {
                    order.swap(index, index + random.below((all - index) as u64) as usize);
                }
            }
            scratch.resize_with(scratch.len().max(next - done), Scratch::default);
            let mut looks: Vec<(usize, &mut Scratch, Option<Found>)> =
                order[done..next].iter().zip(scratch.iter_mut()).map(|(column, room)| (*column, room, None)).collect();
            let threads = self.threads.min(1 + rows.len() * looks.len() / VALUES_PER_THREAD);
            each(threads, &mut looks, |(column, room, found)| {
                *found = self.best::<N>(*column, rows, times, total, room);
            });
            for (_, _, other) in looks {
                if let Some(other) = other
                    && found.as_ref().is_none_or(|found| {
                        other.gain > found.gain || (other.gain == found.gain && other.column < found.column)
                    })
                {
                    found = Some(other);
                }
            }
            done = next;
        }
        found
    }

    /// The best split of a column; of equal ones the lowest.
    fn best<const N: usize>(
        &self,
        column: usize,
        rows: &[u32],
        times: &[u32],
        total: &[i64],
        room: &mut Scratch,
    ) -> Option<Found> {
        let stride = if N > 0 { N } else { self.target.stride };
        let ranked = &self.columns[column];
        self.count::<N>(ranked, rows, times, room);
        let mut groups = room.ranks.len();
        let mut absent = vec![0; stride];
        if room.ranks.last() == Some(&MISSING_RANK) {
            groups -= 1;
            absent.copy_from_slice(&room.tallies[groups * stride..]);
        }
        let sides = if N > 0 { [Vec::new(), Vec::new()] } else { [vec![0; stride], vec![0; stride]] };
        let mut search = Search::<N> { field: self, total, absent: &absent, sides, found: None };
        let tally = |group: usize| &room.tallies[group * stride..(group + 1) * stride];
        if ranked.is_category() {
            // One order for two labels and for numbers, one per label for more.
            let orders = if stride == 3 { 1 } else { stride - 1 };
            for label in 0..orders {
                let share = |group: usize| {
                    let tally = tally(group);
                    if stride == 3 { self.mean(tally) } else { tally[1 + label] as f64 / weight(self, tally) }
                };
                let mut order: Vec<(f64, usize)> = (0..groups).map(|group| (share(group), group)).collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let mut left = vec![0; stride];
                for (index, (_, group)) in order.iter().enumerate() {
                    add::<N>(&mut left, tally(*group));
                    // All levels on one side: the others are those that are missing.
                    if let Some((gain, missing_left)) = search.better(&left) {
                        let mut codes: Vec<u32> = order[..=index].iter().map(|(_, group)| room.ranks[*group]).collect();
                        codes.sort_unstable();
                        search.found = Some(Found { gain, column, cut: Cut::In(codes), missing_left });
                    }
                }
            }
        } else {
            let mut left = vec![0; stride];
            for group in 0..groups {
                add::<N>(&mut left, tally(group));
                if group + 1 == groups && !ranked.is_finite() {
                    break;
                }
                if let Some((gain, missing_left)) = search.better(&left) {
                    let cut = match room.ranks[..groups].get(group + 1) {
                        Some(next) => Cut::AtMost { rank: room.ranks[group], next: *next },
                        None => Cut::Present,
                    };
                    search.found = Some(Found { gain, column, cut, missing_left });
                }
            }
        }
        let mut found = search.found?;
        found.gain -= self.measure::<N>(total);
        Some(found)
    }

    /// Tallies of the rows by rank, in the order of ranks; only ranks that occur.
    fn count<const N: usize>(&self, ranked: &Ranked, rows: &[u32], times: &[u32], room: &mut Scratch) {
        let stride = if N > 0 { N } else { self.target.stride };
        room.ranks.clear();
        room.tallies.clear();
        // Counting touches every rank, sorting every row several times.
        if ranked.ranks <= 4 * rows.len() && ranked.ranks * stride <= 1 << 21 {
            room.dense.clear();
            room.dense.resize((ranked.ranks + 1) * stride, 0);
            for row in rows {
                let rank = (ranked.rank[*row as usize] as usize).min(ranked.ranks);
                let tally = &mut room.dense[rank * stride..(rank + 1) * stride];
                self.target.add(tally, *row as usize, times[*row as usize].into());
            }
            for (rank, tally) in room.dense.chunks_exact(stride).enumerate() {
                if tally[0] > 0 {
                    room.ranks.push(if rank == ranked.ranks { MISSING_RANK } else { rank as u32 });
                    room.tallies.extend_from_slice(tally);
                }
            }
            return;
        }
        room.keys.clear();
        room.keys.extend(rows.iter().map(|row| u64::from(ranked.rank[*row as usize]) << 32 | u64::from(*row)));
        room.keys.sort_unstable();
        for key in &room.keys {
            let (rank, row) = ((key >> 32) as u32, *key as u32 as usize);
            if room.ranks.last() != Some(&rank) {
                room.ranks.push(rank);
                room.tallies.resize(room.tallies.len() + stride, 0);
            }
            let last = room.tallies.len() - stride;
            self.target.add(&mut room.tallies[last..], row, times[row].into());
        }
    }

    fn mean(&self, tally: &[i64]) -> f64 {
        match self.target.labels {
            Labels::Number(_) => tally[2] as f64 / tally[1] as f64,
            _ => tally[2] as f64 / (tally[1] + tally[2]) as f64,
        }
    }

    #[inline(always)]
    fn measure<const N: usize>(&self, tally: &[i64]) -> f64 {
        let tally = if N > 0 { &tally[..N] } else { tally };
        if let Labels::Number(_) = self.target.labels {
            let sum = tally[2] as f64 * self.target.unit;
            return sum * sum / tally[1] as f64;
        }
        let total = weight(self, tally);
        match self.rules.criterion {
            Criterion::Gini => tally[1..].iter().map(|sum| *sum as f64 * *sum as f64).sum::<f64>() / total,
            Criterion::Entropy => {
                let parts = tally[1..].iter().filter(|sum| **sum > 0);
                parts.map(|sum| *sum as f64 * (*sum as f64 / total).ln()).sum()
            }
        }
    }
}

#[inline(always)]
fn weight(field: &Field, tally: &[i64]) -> f64 {
    match field.target.labels {
        Labels::Number(_) => tally[1] as f64,
        _ => tally[1..].iter().sum::<i64>() as f64,
    }
}

#[inline(always)]
fn add<const N: usize>(to: &mut [i64], other: &[i64]) {
    let length = if N > 0 { N } else { to.len() };
    for (to, other) in to[..length].iter_mut().zip(&other[..length]) {
        *to += other;
    }
}

fn goes_left(found: &Found, rank: u32) -> bool {
    if rank == MISSING_RANK {
        return found.missing_left;
    }
    match &found.cut {
        Cut::AtMost { rank: last, .. } => rank <= *last,
        Cut::In(codes) => codes.binary_search(&rank).is_ok(),
        Cut::Present => true,
    }
}

struct Search<'a, const N: usize> {
    field: &'a Field<'a>,
    total: &'a [i64],
    absent: &'a [i64],
    /// Room for the tallies of both sides where their length is not known beforehand.
    sides: [Vec<i64>; 2],
    /// With the measure of both sides instead of the gain.
    found: Option<Found>,
}

impl<const N: usize> Search<'_, N> {
    /// The measure of a split, with missing values to the right or to the left, if it is allowed and better than what was found.
    #[inline(always)]
    fn better(&mut self, left: &[i64]) -> Option<(f64, bool)> {
        let best = self.found.as_ref().map(|found| found.gain);
        let apart = self.measure(left, false).filter(|gain| best.is_none_or(|best| *gain > best));
        if self.absent[0] == 0 {
            // None was seen here: one that comes later goes with the many.
            return apart.map(|gain| (gain, 2 * left[0] >= self.total[0]));
        }
        let joined = self.measure(left, true).filter(|gain| best.is_none_or(|best| *gain > best));
        match (apart, joined) {
            (Some(apart), Some(joined)) if joined > apart => Some((joined, true)),
            (None, Some(joined)) => Some((joined, true)),
            (apart, _) => apart.map(|gain| (gain, false)),
        }
    }

    #[inline(always)]
    fn measure(&mut self, left: &[i64], with_absent: bool) -> Option<f64> {
        if N > 0 {
            let mut sides = [[0i64; N]; 2];
            for index in 0..N {
                sides[0][index] = left[index] + if with_absent { self.absent[index] } else { 0 };
                sides[1][index] = self.total[index] - sides[0][index];
            }
            return self.sides(&sides[0], &sides[1]);
        }
        let mut sides = std::mem::take(&mut self.sides);
        let [one, other] = &mut sides;
        for ((one, other), (sums, total)) in
            one.iter_mut().zip(other.iter_mut()).zip(left.iter().zip(self.absent).zip(self.total))
        {
            *one = sums.0 + if with_absent { *sums.1 } else { 0 };
            *other = total - *one;
        }
        let measure = self.sides(one, other);
        self.sides = sides;
        measure
    }

    #[inline(always)]
    fn sides(&self, left: &[i64], right: &[i64]) -> Option<f64> {
        let least = i64::from(self.field.rules.min_rows);
        (left[0] >= least && right[0] >= least).then(|| self.field.measure::<N>(left) + self.field.measure::<N>(right))
    }
}

#[cfg(test)]
mod tests;

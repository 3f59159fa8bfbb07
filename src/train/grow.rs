//! Grows one boosted tree over binned columns, best leaf first.
//!
//! Of a node's two children the one with fewer rows is counted; the other's histograms are the parent's less its sibling's.
//! Columns are divided among threads in groups that fit the first-level cache; as all sums are of integers, neither the
//! groups nor the threads are seen in the tree.

use super::bins::{Bins, bin_all};
use super::data::Matrix;
use super::histogram::{CELLS, Cut, Found, Histogram, Item, Rules, Sums, Units, WIDTH_MAX, best, build};
use super::model::{Node, Split};
use super::parallel::each;

/// Fewer values than this are counted faster than a thread is woken.
const VALUES_PER_THREAD: usize = 100_000;

/// Some columns, and their histograms of all leaves.
struct Group {
    /// The first column.
    first: usize,
    /// Columns.
    width: usize,
    /// Their bins, row by row.
    bins: Vec<u8>,
    /// Per slot: the histograms of one leaf.
    slots: Vec<Vec<Histogram>>,
    /// Best splits of the leaves last looked at.
    found: [Option<Found>; 2],
}

/// Binned columns with room to grow trees over them.
pub(super) struct Grower {
    bins: Vec<Bins>,
    /// Bins of each column.
    columns: Vec<Vec<u8>>,
    groups: Vec<Group>,
    threads: usize,
    spare: Vec<Item>,
}

/// Limits of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub leaves: usize,
    pub depth: u32,
}

/// A leaf of the tree that grows.
struct Leaf {
    start: usize,
    end: usize,
    slot: usize,
    node: usize,
    depth: u32,
    sums: Sums,
    found: Option<Found>,
}

/// A tree that has grown: its leaves' values are to be set.
pub(super) struct Grown {
    pub nodes: Vec<Node>,
    /// Node, range of items and sums of each leaf.
    pub leaves: Vec<(usize, std::ops::Range<usize>, Sums)>,
}

impl Grower {
    /// Bins the columns.
    pub fn new(inputs: &Matrix, most: usize, threads: usize) -> Grower {
        let (bins, columns) = bin_all(&inputs.columns, most, threads);
        Self::of_bins(bins, columns, threads)
    }

    fn of_bins(bins: Vec<Bins>, columns: Vec<Vec<u8>>, threads: usize) -> Grower {
        let count = columns.len();
        let rows = columns.first().map_or(0, Vec::len);
        // As many groups as share evenly among the threads.
        let least = count.div_ceil(WIDTH_MAX);
        let groups = least.next_multiple_of(threads.clamp(1, count.max(1))).min(count);
        let mut groups: Vec<Group> = (0..groups)
            .map(|group| {
                let (first, end) = (group * count / groups, (group + 1) * count / groups);
                Group { first, width: end - first, bins: Vec::new(), slots: Vec::new(), found: [None; 2] }
            })
            .collect();
        each(threads, &mut groups, |group| {
            group.bins = vec![0; rows * group.width];
            // By blocks, so that what is written stays in the cache.
            for block in (0..rows).step_by(4096) {
                let end = rows.min(block + 4096);
                for (offset, column) in columns[group.first..group.first + group.width].iter().enumerate() {
                    let out = group.bins[block * group.width..end * group.width].iter_mut();
                    for (out, bin) in out.skip(offset).step_by(group.width).zip(&column[block..end]) {
                        *out = *bin;
                    }
                }
            }
        });
        Grower { bins, columns, groups, threads, spare: Vec::new() }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Grows a tree over `items`, which are put in the order of its leaves; `chosen` says which columns it may ask.
    pub fn grow(&mut self, items: &mut [Item], chosen: &[bool], units: &Units, rules: &Rules, limits: Limits) -> Grown {
        self.spare.resize(items.len(), Item::default());
        let mut nodes = vec![Node::Leaf { values: Vec::new() }];
        let root =
            Leaf { start: 0, end: items.len(), slot: 0, node: 0, depth: 0, sums: Sums::of(items, units), found: None };
        let mut leaves = vec![root];
        let [first, _] = self.look(items, chosen, units, rules, &leaves[0], None);
        leaves[0].found = first.filter(|_| limits.depth > 0);
        let mut slots = 1;
        while leaves.len() < limits.leaves {
            // Of equal ones the oldest: `max_by` would take the last.
            let best = leaves.iter().enumerate().filter_map(|(index, leaf)| Some((leaf.found?.gain, index)));
            let Some((_, index)) = best.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { break };
            let Some(found) = leaves[index].found.take() else { break };
            let leaf = &leaves[index];
            let (node, start, end, depth) = (leaf.node, leaf.start, leaf.end, leaf.depth + 1);
            let middle = start + self.divide(&mut items[start..end], start, &found);
            let (left, right) = (nodes.len(), nodes.len() + 1);
            nodes.extend([Node::Leaf { values: Vec::new() }, Node::Leaf { values: Vec::new() }]);
            nodes[node] = Node::Branch {
                column: found.column,
                split: self.split(&found),
                missing_left: found.missing_left,
                left: left as u32,
                right: right as u32,
                gain: found.gain,
            };
            let rest = leaf.sums.minus(found.left);
            let (old, new) = (leaf.slot, slots);
            slots += 1;
            // The larger child takes over its parent's histograms.
            let left_is_small = middle - start <= end - middle;
            let (left_slot, right_slot) = if left_is_small { (new, old) } else { (old, new) };
            let mut pair = [
                Leaf { start, end: middle, slot: left_slot, node: left, depth, sums: found.left, found: None },
                Leaf { start: middle, end, slot: right_slot, node: right, depth, sums: rest, found: None },
            ];
            if leaves.len() + 1 < limits.leaves && depth < limits.depth {
                let (small, large) = if left_is_small { (0, 1) } else { (1, 0) };
                let found = self.look(items, chosen, units, rules, &pair[small], Some(&pair[large]));
                [pair[small].found, pair[large].found] = found;
            }
            let [left, right] = pair;
            leaves[index] = left;
            leaves.push(right);
        }
        let leaves = leaves.into_iter().map(|leaf| (leaf.node, leaf.start..leaf.end, leaf.sums)).collect();
        Grown { nodes, leaves }
    }

    /// Counts the rows of a leaf, takes them from its larger sibling's histograms, which are still their parent's, and finds the best splits.
    fn look(
        &mut self,
        items: &[Item],
        chosen: &[bool],
        units: &Units,
        rules: &Rules,
        small: &Leaf,
        large: Option<&Leaf>,
    ) -> [Option<Found>; 2] {
        let enough = |leaf: &Leaf| leaf.sums.count(units) >= 2 * rules.min_rows;
        if !large.map_or(enough(small), enough) {
            return [None; 2];
        }
        let items = &items[small.start..small.end];
        let threads = self.threads.min(1 + items.len() * self.columns.len() / VALUES_PER_THREAD);
        let bins = &self.bins;
        each(threads, &mut self.groups, |group| {
            group.found = [None; 2];
            let columns = group.first..group.first + group.width;
            if !chosen[columns.clone()].contains(&true) {
                return;
            }
            let size = small.slot.max(large.map_or(0, |large| large.slot)) + 1;
            while group.slots.len() < size {
                group.slots.push(vec![[Sums::default(); CELLS]; group.width]);
            }
            let mut counted = std::mem::take(&mut group.slots[small.slot]);
            counted.as_flattened_mut().fill(Sums::default());
            build(&mut counted, &group.bins, items, units);
            let mut found = [None; 2];
            for (offset, column) in columns.enumerate() {
                if let Some(large) = large {
                    let rest = &mut group.slots[large.slot][offset];
                    for (rest, cell) in rest.iter_mut().zip(&counted[offset]) {
                        *rest = rest.minus(*cell);
                    }
                }
                if !chosen[column] {
                    continue;
                }
                if enough(small) {
                    let one = best(&counted[offset], &bins[column], column as u32, small.sums, units, rules);
                    keep(&mut found[0], one);
                }
                if let Some(large) = large {
                    let rest = &group.slots[large.slot][offset];
                    keep(&mut found[1], best(rest, &bins[column], column as u32, large.sums, units, rules));
                }
            }
            group.slots[small.slot] = counted;
            group.found = found;
        });
        let mut found = [None; 2];
        for group in &self.groups {
            keep(&mut found[0], group.found[0]);
            keep(&mut found[1], group.found[1]);
        }
        found
    }

    /// Puts the rows that go left before those that go right; how many go left.
    fn divide(&mut self, items: &mut [Item], start: usize, found: &Found) -> usize {
        let column = &self.columns[found.column as usize];
        let table: [bool; CELLS] = std::array::from_fn(|bin| found.goes_left(bin as u8));
        let spare = &mut self.spare[start..start + items.len()];
        let threads = self.threads.min(1 + items.len() * 8 / VALUES_PER_THREAD);
        let size = items.len().div_ceil(threads).max(1);
        let mut parts: Vec<_> =
            items.chunks_mut(size).zip(spare.chunks_mut(size)).map(|(items, spare)| (items, spare, 0)).collect();
        each(threads, &mut parts, |(items, spare, left)| *left = divide_part(items, spare, column, &table));
        let lefts: Vec<usize> = parts.iter().map(|part| part.2).collect();
        // Lefts of one part and rights of those before it change places.
        let mut middle = 0;
        for (part, left) in lefts.iter().enumerate() {
            let from = part * size;
            items[middle..from + left].rotate_right(*left);
            middle += left;
        }
        middle
    }

    /// A split as it is asked of raw values.
    fn split(&self, found: &Found) -> Split {
        match (&self.bins[found.column as usize], found.cut) {
            (Bins::Number { edges, .. }, Cut::AtMost(bin)) => {
                // Above the last edge is no number: missing values against all others.
                Split::AtMost(edges.get(usize::from(bin)).copied().unwrap_or(f32::MAX))
            }
            (Bins::Category { code, .. }, _) => {
                let codes = code.iter().enumerate().filter(|(bin, _)| found.goes_left(*bin as u8));
                Split::In(codes.map(|(_, code)| *code).collect())
            }
            (Bins::Number { .. }, Cut::In(_)) => Split::AtMost(f32::MAX),
        }
    }
}

/// The better of two; of equal ones the first.
fn keep(found: &mut Option<Found>, other: Option<Found>) {
    if let Some(other) = other
        && found.is_none_or(|found| other.gain > found.gain)
    {
        *found = Some(other);
    }
}

/// Both ways are written at every step and one of them kept: no branch to foretell.
fn divide_part(items: &mut [Item], spare: &mut [Item], column: &[u8], table: &[bool; CELLS]) -> usize {
    let (mut left, mut right) = (0, 0);
    for index in 0..items.len() {
        let item = items[index];
        let goes_left = usize::from(table[usize::from(column[item.row as usize])]);
        items[left] = item;
        spare[right] = item;
        left += goes_left;
        right += 1 - goes_left;
    }
    items[left..].copy_from_slice(&spare[..right]);
    left
}

#[cfg(test)]
mod tests;

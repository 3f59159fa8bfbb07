//! Sorts the rows of several batches by `(_time, _ord)`, fast when they are nearly in order.
//!
//! A row becomes one word: its time since the earliest row above its number among all rows. The words are spread over
//! buckets of equal lengths of time, rather more of them than rows, and then sorted within their buckets, which costs a few
//! nanoseconds per row where a comparison sort costs tens; a bucket that came out full is sorted by comparison, so no
//! distribution of times costs more than that. Rows at the same time are in the order of their numbers, that is, as
//! they came; where that is not the order of `_ord`, it is repaired in place.

use arrow::array::RecordBatch;

use super::super::batch::{Batch, Pick};
use super::super::columns::{collect, gather};
use super::super::{ords, times};
use crate::base::EventTime;

/// Longest bucket that insertion sort gets.
const BUCKET_MAX: u32 = 24;
/// Most buckets: their counts should stay in the cache.
const BUCKETS_MAX: usize = 1 << 18;
/// Most sorted batches that are merged two by two.
const RUNS_MAX: usize = 8;

/// Rows in order.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// All rows, by `(_time, _ord)`.
    pub rows: RecordBatch,
    /// How many of them, from the first, are before the watermark.
    pub due: usize,
}

/// How much of their order rows have as they come.
#[derive(Clone, Copy)]
enum Runs {
    /// They are in order, one source after the other.
    One,
    /// Each source's are, and there are few sources.
    OneEach,
    /// Not so.
    Many,
}

/// Sorts batches; keeps its buffers from one call to the next.
#[derive(Debug, Default)]
pub(crate) struct Sorter {
    /// Of all rows, as they come.
    times: Vec<EventTime>,
    ords: Vec<u64>,
    spread: Vec<u64>,
    words: Vec<u64>,
    counts: Vec<u32>,
    order: Vec<u32>,
}

impl Sorter {
    /// Sorts the rows of `sources` (at least one row altogether, all of one schema) and says how many are before `watermark`.
    pub fn sort(&mut self, sources: &[Batch], watermark: EventTime) -> Sorted {
        let due = |rows: &RecordBatch| times(rows).partition_point(|t| *t < watermark);
        if let [only] = sources
            && let Pick::All = only.pick()
            && in_order(times(only.backing()), ords(only.backing()))
        {
            let rows = only.backing().clone();
            return Sorted { due: due(&rows), rows };
        }
        let sorted = match self.take_in(sources) {
            Runs::One => {
                let rows = collect(sources);
                Sorted { due: due(&rows), rows }
            }
            runs => {
                let due = self.place(sources, runs, watermark);
                Sorted { rows: gather(sources, &self.order), due }
            }
        };
        self.shrink();
        sorted
    }

    /// Bytes that the buffers hold between calls.
    pub fn memory_bytes(&self) -> usize {
        8 * (self.times.capacity() + self.ords.capacity() + self.spread.capacity() + self.words.capacity())
            + 4 * (self.counts.capacity() + self.order.capacity())
    }

    /// Takes in when and where the rows are, and tells how much of their order is there already.
    fn take_in(&mut self, sources: &[Batch]) -> Runs {
        self.times.clear();
        self.ords.clear();
        let (mut each, mut all) = (true, true);
        for source in sources {
            let start = self.times.len();
            source.append(times(source.backing()), &mut self.times);
            source.append(ords(source.backing()), &mut self.ords);
            each = each && in_order(&self.times[start..], &self.ords[start..]);
            // With the last row before, if there is one.
            let seam = start.saturating_sub(1)..self.times.len().min(start + 1);
            all = all && each && in_order(&self.times[seam.clone()], &self.ords[seam]);
        }
        match (all, each) {
            (true, _) => Runs::One,
            (_, true) if sources.len() <= RUNS_MAX => Runs::OneEach,
            _ => Runs::Many,
        }
    }

    /// Fills `order` with the numbers of the rows taken in, in their order, and returns the number of rows before the watermark.
    fn place(&mut self, sources: &[Batch], runs: Runs, watermark: EventTime) -> usize {
        let rows = self.times.len();
        let ends = (EventTime::MAX, EventTime::MIN);
        let (first, last) = self.times.iter().fold(ends, |(first, last), time| (first.min(*time), last.max(*time)));
        let range = last.wrapping_sub(first) as u64;
        let number_bits = bits(rows as u64 - 1);
        if bits(range) + number_bits > 64 {
            return self.place_by_comparison(watermark);
        }
        let word = |(time, number): (&EventTime, u64)| (time.wrapping_sub(first) as u64) << number_bits | number;
        let words = self.times.iter().zip(0..).map(word);
        self.spread.clear();
        if let Runs::Many = runs {
            let width = bits(range << number_bits | (rows as u64 - 1));
            let buckets = (rows + rows / 2).next_power_of_two().clamp(2, BUCKETS_MAX);
            let shift = width.saturating_sub(buckets.trailing_zeros());
            self.counts.clear();
            self.counts.resize(buckets, 0);
            self.spread.extend(words.inspect(|word| self.counts[(word >> shift) as usize] += 1));
            self.sort_by_bucket(shift);
        } else {
            self.spread.extend(words);
            self.merge_runs(sources);
        }
        if !self.take_numbers(number_bits) {
            self.repair_ties(number_bits);
            self.take_numbers(number_bits);
        }
        if watermark <= first {
            0
        } else if watermark > last {
            rows
        } else {
            let before = watermark.wrapping_sub(first) as u64;
            self.words.partition_point(|word| word >> number_bits < before)
        }
    }

    /// Sorts the words by merging the sources', which are sorted.
    fn merge_runs(&mut self, sources: &[Batch]) {
        let mut lengths: Vec<usize> = sources.iter().map(Batch::num_rows).collect();
        while lengths.len() > 1 {
            self.words.resize(self.spread.len(), 0);
            let (mut rest, mut room) = (&self.spread[..], &mut self.words[..]);
            for pair in lengths.chunks(2) {
                let (left, others) = rest.split_at(pair[0]);
                let (right, others) = others.split_at(pair.get(1).copied().unwrap_or(0));
                let (both, free) = room.split_at_mut(left.len() + right.len());
                merge(left, right, both);
                (rest, room) = (others, free);
            }
            std::mem::swap(&mut self.words, &mut self.spread);
            lengths = lengths.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        std::mem::swap(&mut self.words, &mut self.spread);
    }

    /// Sorts the words by their bits above `shift`, by which they are counted, and then where they are nearly in place.
    fn sort_by_bucket(&mut self, shift: u32) {
        let (rows, counts) = (self.spread.len(), &mut self.counts[..]);
        let (mut start, mut fullest) = (0, 0);
        for count in counts.iter_mut() {
            fullest = fullest.max(*count);
            start += std::mem::replace(count, start);
        }
        self.words.resize(rows, 0);
        for word in &self.spread {
            let end = &mut counts[(word >> shift) as usize];
            self.words[*end as usize] = *word;
            *end += 1;
        }
        if fullest <= BUCKET_MAX {
            // No row is further from its place than its bucket is long.
            insertion_sort(&mut self.words);
        } else {
            let mut start = 0;
            for end in counts {
                let bucket = &mut self.words[start as usize..*end as usize];
                if bucket.len() <= BUCKET_MAX as usize {
                    insertion_sort(bucket);
                } else {
                    bucket.sort_unstable();
                }
                start = *end;
            }
        }
    }

    /// Fills `order` from the sorted words; false when rows of one time are not in the order of `_ord`.
    fn take_numbers(&mut self, number_bits: u32) -> bool {
        let mask = (1u64 << number_bits) - 1;
        self.order.clear();
        self.order.extend(self.words.iter().map(|word| (word & mask) as u32));
        self.words.windows(2).all(|pair| {
            let ord = |word: u64| self.ords[(word & mask) as usize];
            (pair[0] ^ pair[1]) >> number_bits != 0 || ord(pair[0]) <= ord(pair[1])
        })
    }

    /// Puts rows of one time into the order of `_ord`.
    fn repair_ties(&mut self, number_bits: u32) {
        let (mask, ords) = ((1u64 << number_bits) - 1, &self.ords);
        for ties in self.words.chunk_by_mut(|a, b| (a ^ b) >> number_bits == 0) {
            ties.sort_unstable_by_key(|word| (ords[(word & mask) as usize], *word));
        }
    }

    /// The same by sorting triples, for times too far apart to share a word with the row's number.
    fn place_by_comparison(&mut self, watermark: EventTime) -> usize {
        let keys = self.times.iter().zip(&self.ords).zip(0u32..);
        let mut keys: Vec<(EventTime, u64, u32)> = keys.map(|((time, ord), number)| (*time, *ord, number)).collect();
        keys.sort_unstable();
        self.order.clear();
        self.order.extend(keys.iter().map(|key| key.2));
        keys.partition_point(|key| key.0 < watermark)
    }

    /// Gives memory back after an unusually large call.
    fn shrink(&mut self) {
        const KEPT: usize = 1 << 18;
        // What is left in them is written over, and need not be cleared for it.
        for words in [&mut self.words, &mut self.spread, &mut self.ords] {
            words.truncate(KEPT);
            words.shrink_to(KEPT);
        }
        self.times.truncate(KEPT);
        self.times.shrink_to(KEPT);
        self.order.truncate(KEPT);
        self.order.shrink_to(KEPT);
    }
}

/// Whether rows are in the order of `(_time, _ord)`.
fn in_order(times: &[EventTime], ords: &[u64]) -> bool {
    times.windows(2).zip(ords.windows(2)).all(|(t, o)| t[0] < t[1] || (t[0] == t[1] && o[0] <= o[1]))
}

/// Merges two sorted runs; which of them is next is anybody's guess, so there is no branch on it.
fn merge(left: &[u64], right: &[u64], out: &mut [u64]) {
    let (mut l, mut r) = (0, 0);
    for (done, word) in out.iter_mut().enumerate() {
        let (Some(a), Some(b)) = (left.get(l), right.get(r)) else {
            out[done..].copy_from_slice(if l < left.len() { &left[l..] } else { &right[r..] });
            return;
        };
        let takes_left = a < b;
        *word = if takes_left { *a } else { *b };
        l += usize::from(takes_left);
        r += usize::from(!takes_left);
    }
}

#[inline]
fn insertion_sort(words: &mut [u64]) {
    for end in 1..words.len() {
        let word = words[end];
        let mut at = end;
        while at > 0 && words[at - 1] > word {
            words[at] = words[at - 1];
            at -= 1;
        }
        words[at] = word;
    }
}

fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

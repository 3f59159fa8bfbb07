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
use super::super::origins::Origins;
use super::super::{ords, times};
use crate::base::EventTime;

/// Longest bucket that insertion sort gets.
const BUCKET_MAX: u32 = 24;
/// Most buckets: their counts should stay in the cache.
const BUCKETS_MAX: usize = 1 << 18;
/// Most sorted batches that are merged two by two.
const RUNS_MAX: usize = 8;

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
    /// The rows of `sources` (at least one row altogether, all of one schema) by `(_time, _ord)`.
    pub fn sort(&mut self, sources: &[Batch]) -> RecordBatch {
        if let [only] = sources
            && let Pick::All = only.pick()
            && in_order(times(only.backing()), |row| ords(only.backing())[row])
        {
            return only.backing().clone();
        }
        let sorted = match self.take_in(sources) {
            Runs::One => collect(sources),
            Runs::OneEach => gather(sources, &Origins::merged(sources, &mut self.times)),
            Runs::Many => {
                self.place(sources);
                gather(sources, &Origins::ordered(sources, &self.order))
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

    /// Takes in when the rows are, and tells how much of their order is there already.
    fn take_in(&mut self, sources: &[Batch]) -> Runs {
        self.times.clear();
        let (mut each, mut all) = (true, true);
        let mut last = None;
        for source in sources.iter().filter(|source| source.num_rows() > 0) {
            let start = self.times.len();
            source.append(times(source.backing()), &mut self.times);
            let ord = |row: usize| ords(source.backing())[source.row(row)];
            each = each && in_order(&self.times[start..], ord);
            all = all && each && last.is_none_or(|last| last <= (self.times[start], ord(0)));
            last = self.times.last().map(|time| (*time, ord(source.num_rows() - 1)));
        }
        match (all, each) {
            (true, _) => Runs::One,
            (_, true) if sources.len() <= RUNS_MAX => Runs::OneEach,
            _ => Runs::Many,
        }
    }

    /// Fills `order` with the numbers of the rows taken in, in their order.
    fn place(&mut self, sources: &[Batch]) {
        self.ords.clear();
        sources.iter().for_each(|source| source.append(ords(source.backing()), &mut self.ords));
        let rows = self.times.len();
        let ends = (EventTime::MAX, EventTime::MIN);
        let (first, last) = self.times.iter().fold(ends, |(first, last), time| (first.min(*time), last.max(*time)));
        let range = last.wrapping_sub(first) as u64;
        let number_bits = bits(rows as u64 - 1);
        if bits(range) + number_bits > 64 {
            return self.place_by_comparison();
        }
        let word = |(time, number): (&EventTime, u64)| (time.wrapping_sub(first) as u64) << number_bits | number;
        let words = self.times.iter().zip(0..).map(word);
        let width = bits(range << number_bits | (rows as u64 - 1));
        let buckets = (rows + rows / 2).next_power_of_two().clamp(2, BUCKETS_MAX);
        let shift = width.saturating_sub(buckets.trailing_zeros());
        self.counts.clear();
        self.counts.resize(buckets, 0);
        self.spread.clear();
        self.spread.extend(words.inspect(|word| self.counts[(word >> shift) as usize] += 1));
        self.sort_by_bucket(shift);
        if !self.take_numbers(number_bits) {
            self.repair_ties(number_bits);
            self.take_numbers(number_bits);
        }
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
    fn place_by_comparison(&mut self) {
        let keys = self.times.iter().zip(&self.ords).zip(0u32..);
        let mut keys: Vec<(EventTime, u64, u32)> = keys.map(|((time, ord), number)| (*time, *ord, number)).collect();
        keys.sort_unstable();
        self.order.clear();
        self.order.extend(keys.iter().map(|key| key.2));
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
fn in_order(times: &[EventTime], ord: impl Fn(usize) -> u64) -> bool {
    let pairs = || times.windows(2);
    // Without a way out, so that several are looked at at once.
    pairs().fold(true, |sorted, pair| sorted & (pair[0] <= pair[1]))
        && pairs().zip(0..).all(|(pair, row)| pair[0] != pair[1] || ord(row) <= ord(row + 1))
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

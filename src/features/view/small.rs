//! A compact record: a sparse key's rows one after another in one block, scanned for every question.
//!
//! Words: key, state, (time of the next refresh), (lifetime sums of rows let go), entries from the oldest.

use super::layout::{Layout, Level};
use super::snapshot::Stamp;
use super::value::{Any, NO_EXTREMA, Raw, Shape, add, last_of, sort_key, term, widen};
use crate::features::numeric::Accumulator;

const COUNT: u64 = 0xffff;
/// The key changed since the last refresh.
pub(super) const DIRTY: u64 = 1 << 16;
/// Where the stamp of checkpoints is in the state word.
const STAMP_SHIFT: u32 = 17;
const STAMP: u64 = 0xf << STAMP_SHIFT;
/// The state word of a block that is not in use.
pub(super) const FREE: u64 = u64::MAX;

/// Number of entries.
#[inline(always)]
pub(super) fn count(record: &[u64]) -> usize {
    (record[1] & COUNT) as usize
}

#[inline(always)]
fn set_count(record: &mut [u64], count: usize) {
    record[1] = record[1] & !COUNT | count as u64;
}

/// What checkpoints know of the record.
#[inline(always)]
pub(super) fn stamp(record: &[u64]) -> Stamp {
    ((record[1] & STAMP) >> STAMP_SHIFT) as Stamp
}

#[inline(always)]
pub(super) fn set_stamp(record: &mut [u64], stamp: Stamp) {
    record[1] = record[1] & !STAMP | u64::from(stamp) << STAMP_SHIFT;
}

/// Whether the key changed since the last refresh, and the time of the next; where there is refresh.
#[inline(always)]
pub(super) fn told(layout: &Layout, record: &[u64]) -> (bool, i64) {
    (record[1] & DIRTY != 0, if layout.refresh { record[2] as i64 } else { i64::MAX })
}

/// Sets what [`told`] says, where there is refresh.
pub(super) fn set_told(record: &mut [u64], dirty: bool, due: i64) {
    record[1] = record[1] & !DIRTY | if dirty { DIRTY } else { 0 };
    record[2] = due as u64;
}

/// Gives an empty record its entries, from the oldest.
pub(super) fn fill(layout: &Layout, record: &mut [u64], entries: &[u64]) {
    record[layout.entries_at..layout.entries_at + entries.len()].copy_from_slice(entries);
    set_count(record, entries.len() / layout.stride);
}

/// Makes a block the empty record of a key.
#[inline(always)]
pub(super) fn init(layout: &Layout, record: &mut [u64], key: u64) {
    record[0] = key;
    record[1] = 0;
    if layout.entries_at > 2 {
        record[2..layout.entries_at].fill(0);
        if layout.refresh {
            record[2] = i64::MAX as u64;
        }
        for i in 0..layout.life_extrema.len() {
            set_base_extrema(layout, record, i, NO_EXTREMA);
        }
    }
}

/// The entries' words.
#[inline(always)]
pub(super) fn entries<'a>(layout: &Layout, record: &'a [u64]) -> &'a [u64] {
    &record[layout.entries_at..layout.entries_at + count(record) * layout.stride]
}

/// Most entries that a block of this many words holds.
#[inline(always)]
pub(super) fn capacity(layout: &Layout, words: usize) -> usize {
    (words - layout.entries_at) / layout.stride
}

/// Time of the newest entry.
#[inline(always)]
pub(super) fn newest(layout: &Layout, record: &[u64]) -> Option<i64> {
    let count = count(record);
    (count > 0).then(|| record[layout.entries_at + (count - 1) * layout.stride] as i64)
}

/// Inserts an entry in order; `false` when the block is full.
#[inline(always)]
pub(super) fn insert<S: Shape>(layout: &Layout, record: &mut [u64], entry: &[u64]) -> bool {
    let (stride, count) = (S::stride(layout), count(record));
    let end = layout.entries_at + count * stride;
    if end + stride > record.len() {
        return false;
    }
    let mut at = end;
    while at > layout.entries_at && layout.is_after::<S>(&record[at - stride..at], entry) {
        at -= stride;
    }
    if at < end {
        record.copy_within(at..end, at + stride);
    }
    record[at..at + stride].copy_from_slice(entry);
    record[1] += 1;
    true
}

/// How many of the oldest entries no question from `head` on can need.
pub(super) fn expired(layout: &Layout, record: &[u64], head: i64) -> usize {
    let cutoff = head.saturating_sub(layout.keep);
    let entries = entries(layout, record);
    let times = || entries.iter().step_by(layout.stride).map(|t| *t as i64);
    let old = times().take_while(|t| *t <= cutoff).count();
    if !layout.keep_last {
        return old;
    }
    let settled = times().take_while(|t| *t <= head.saturating_sub(layout.slack)).count();
    old.min(settled.saturating_sub(1))
}

/// Lets the oldest `gone` entries go, into the lifetime sums if there are any. Texts are released by `release`.
pub(super) fn drop_front(layout: &Layout, record: &mut [u64], gone: usize, mut release: impl FnMut(&[u64])) {
    if gone == 0 {
        return;
    }
    let (stride, at) = (layout.stride, layout.entries_at);
    for i in 0..gone {
        let (base, entry) = record.split_at_mut(at);
        let entry = &entry[i * stride..(i + 1) * stride];
        absorb(layout, base, entry);
        if layout.texts {
            release(entry);
        }
    }
    let left = count(record) - gone;
    record.copy_within(at + gone * stride..at + (gone + left) * stride, at);
    set_count(record, left);
}

fn absorb(layout: &Layout, base: &mut [u64], entry: &[u64]) {
    if !layout.forever {
        return;
    }
    base[layout.base_at] += 1;
    for (i, pair) in layout.life_pairs.iter().enumerate() {
        let pair = layout.pairs[*pair];
        let mut sums = base_sums(layout, base, i);
        add::<Any>(&mut sums, pair.level, term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level));
        set_base_sums(layout, base, i, sums);
    }
    for (i, extrema) in layout.life_extrema.iter().enumerate() {
        let input = &layout.inputs[layout.extrema[*extrema].input];
        if let Some(key) = sort_key::<Any>(layout, input, entry) {
            let mut found = base_extrema(layout, base, i);
            widen(&mut found, key);
            set_base_extrema(layout, base, i, found);
        }
    }
}

/// Rows let go into the lifetime sums.
pub(super) fn base_rows(layout: &Layout, record: &[u64]) -> u64 {
    if layout.forever { record[layout.base_at] } else { 0 }
}

pub(super) fn set_base_rows(layout: &Layout, record: &mut [u64], rows: u64) {
    if layout.forever {
        record[layout.base_at] = rows;
    }
}

/// Lifetime sums of rows let go, by place among the lifetime pairs.
pub(super) fn base_sums(layout: &Layout, record: &[u64], i: usize) -> Accumulator {
    let at = layout.base_at + 1 + i * Accumulator::WORDS;
    let mut words = [0; Accumulator::WORDS];
    words.copy_from_slice(&record[at..at + Accumulator::WORDS]);
    Accumulator::from_words(words)
}

pub(super) fn set_base_sums(layout: &Layout, record: &mut [u64], i: usize, sums: Accumulator) {
    let at = layout.base_at + 1 + i * Accumulator::WORDS;
    record[at..at + Accumulator::WORDS].copy_from_slice(&sums.to_words());
}

/// Lifetime extrema of rows let go, by place among the lifetime extrema.
pub(super) fn base_extrema(layout: &Layout, record: &[u64], i: usize) -> (i64, i64) {
    let at = layout.base_at + 1 + layout.life_pairs.len() * Accumulator::WORDS + 2 * i;
    (record[at] as i64, record[at + 1] as i64)
}

pub(super) fn set_base_extrema(layout: &Layout, record: &mut [u64], i: usize, extrema: (i64, i64)) {
    let at = layout.base_at + 1 + layout.life_pairs.len() * Accumulator::WORDS + 2 * i;
    record[at] = extrema.0 as u64;
    record[at + 1] = extrema.1 as u64;
}

/// Answers for the windows that end at `head`.
#[inline(always)]
pub(super) fn query<S: Shape>(
    layout: &Layout,
    record: &[u64],
    head: i64,
    bounds: &[i64],
    scratch: &mut ScanScratch,
    out: &mut Raw<'_>,
) {
    let stride = S::stride(layout);
    let entries = &record[layout.entries_at..layout.entries_at + count(record) * stride];
    let mut end = entries.len();
    while end > 0 && entries[end - stride] as i64 > head {
        end -= stride;
    }
    if S::KIND.is_some() {
        query_float::<S>(layout, &entries[..end], bounds, out);
    } else {
        query_chains(layout, &entries[..end], bounds, scratch, out);
    }
    if layout.forever {
        add_base(layout, record, out);
    }
}

/// One chain of windows over one float.
#[inline(always)]
fn query_float<S: Shape>(layout: &Layout, entries: &[u64], bounds: &[i64], out: &mut Raw<'_>) {
    let input = &layout.inputs[0];
    let mut sums = Accumulator::ZERO;
    let mut extrema = NO_EXTREMA;
    let widens = !layout.extrema.is_empty();
    let mut at = entries.len();
    for &w in &layout.chains[0].windows {
        let window = &layout.windows[w];
        while at >= 2 && entries[at - 2] as i64 > bounds[w] {
            let entry = &entries[at - 2..at];
            at -= 2;
            add::<S>(&mut sums, Level::Squares, term::<S>(layout, input, entry, Level::Squares));
            if widens && let Some(key) = sort_key::<S>(layout, input, entry) {
                widen(&mut extrema, key);
            }
        }
        out.rows[w] = ((entries.len() - at) / 2) as u64;
        for p in &window.pairs {
            out.sums[*p] = sums;
        }
        for e in &window.extrema {
            out.extrema[*e] = extrema;
        }
    }
}

fn query_chains(layout: &Layout, entries: &[u64], bounds: &[i64], scratch: &mut ScanScratch, out: &mut Raw<'_>) {
    let (stride, end) = (layout.stride, entries.len());
    for chain in &layout.chains {
        let sums = &mut scratch.sums[..chain.inputs.len()];
        let extrema = &mut scratch.extrema[..chain.inputs.len()];
        sums.fill(Accumulator::ZERO);
        extrema.fill(NO_EXTREMA);
        let mut at = end;
        for &w in &chain.windows {
            let window = &layout.windows[w];
            while at > 0 && entries[at - stride] as i64 > bounds[w] {
                let entry = &entries[at - stride..at];
                at -= stride;
                for (i, (input, level, wants_extrema)) in chain.inputs.iter().enumerate() {
                    let input = &layout.inputs[*input];
                    add::<Any>(&mut sums[i], *level, term::<Any>(layout, input, entry, *level));
                    if *wants_extrema && let Some(key) = sort_key::<Any>(layout, input, entry) {
                        widen(&mut extrema[i], key);
                    }
                }
            }
            out.rows[w] = ((end - at) / stride) as u64;
            let place = |input: usize| chain.inputs.iter().position(|i| i.0 == input).unwrap_or(0);
            for p in &window.pairs {
                out.sums[*p] = sums[place(layout.pairs[*p].input)];
            }
            for e in &window.extrema {
                out.extrema[*e] = extrema[place(layout.extrema[*e].input)];
            }
            for l in &window.lasts {
                let input = &layout.inputs[layout.lasts[*l].1];
                out.lasts[*l] = if end > at { last_of(layout, input, &entries[end - stride..end]) } else { (0, 0) };
            }
        }
    }
}

fn add_base(layout: &Layout, record: &[u64], out: &mut Raw<'_>) {
    for (w, _) in layout.windows.iter().enumerate().filter(|(_, w)| w.width.is_none()) {
        out.rows[w] += base_rows(layout, record);
    }
    for (i, pair) in layout.life_pairs.iter().enumerate() {
        out.sums[*pair].merge(&base_sums(layout, record, i));
    }
    for (i, extrema) in layout.life_extrema.iter().enumerate() {
        let base = base_extrema(layout, record, i);
        let found = &mut out.extrema[*extrema];
        *found = (found.0.min(base.0), found.1.max(base.1));
    }
}

/// Room for the sums of one scan.
#[derive(Default)]
pub(super) struct ScanScratch {
    pub(super) sums: Vec<Accumulator>,
    pub(super) extrema: Vec<(i64, i64)>,
}

impl ScanScratch {
    pub(super) fn new(layout: &Layout) -> Self {
        let inputs = layout.inputs.len();
        ScanScratch { sums: vec![Accumulator::ZERO; inputs], extrema: vec![NO_EXTREMA; inputs] }
    }
}

/// The next head after `head` at which an answer changes by itself.
pub(super) fn next_change(layout: &Layout, record: &[u64], head: i64, bounds: &[i64]) -> i64 {
    let mut next = i64::MAX;
    for time in entries(layout, record).iter().step_by(layout.stride).map(|t| *t as i64) {
        if time > head {
            return next.min(time);
        }
        for (window, bound) in layout.windows.iter().zip(bounds) {
            if time > *bound {
                next = next.min(window.leaves(time));
            }
        }
    }
    next
}

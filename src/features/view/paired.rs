//! The commonest view in one pass: rows in order, one float, a few exact windows that each keep its sums, and its smallest
//! and largest values for all of them or for none.
//!
//! The same as taking the row in, moving the windows on and answering, one after another; but the number of windows is known
//! to the compiler, each sum is loaded once, changed in registers, and stored both where it lives and where the answer goes.

use super::columns::Answers;
use super::dense::Dense;
use super::index::Handle;
use super::keys::Keys;
use super::lane::Lanes;
use super::layout::{Layout, Level};
use super::slab::Slab;
use super::small;
use super::state::{BLOCK_MASK, CLASS_SHIFT, DENSE, ViewState, ask};
use super::value::{NO_EXTREMA, Raw, Shape, add, remove, sort_key, term, widen};
use crate::features::numeric::Accumulator;

/// What is asked of a view's rows in every pass over a batch.
#[derive(Clone, Copy)]
pub(super) struct Pairs<const W: usize> {
    /// Widths of the windows.
    widths: [i64; W],
    /// Whether some window's start is rounded.
    rounded: bool,
    /// The windows from the narrowest.
    order: [usize; W],
    /// Whether smallest and largest values are asked for.
    extrema: bool,
}

impl<const W: usize> Pairs<W> {
    /// The windows of a layout; none if it is no such view of `W` windows.
    pub(super) fn of(layout: &Layout) -> Option<Self> {
        if !layout.paired || W == 0 || layout.windows.len() != W {
            return None;
        }
        let mut widths = [0; W];
        let mut order = [0; W];
        let rounded = layout.windows.iter().any(|window| window.grain.is_some());
        for (w, window) in layout.windows.iter().enumerate() {
            widths[w] = window.width?;
        }
        order.copy_from_slice(layout.chains.first()?.windows.get(..W)?);
        Some(Pairs { widths, rounded, order, extrema: !layout.wedges.is_empty() })
    }

    #[inline(always)]
    fn bounds(&self, time: i64) -> [i64; W] {
        // One comparison in place of one for each window.
        if time >= 0 {
            return self.widths.map(|width| time.wrapping_sub(width));
        }
        self.widths.map(|width| time.saturating_sub(width))
    }
}

/// Room for one row's answers.
pub(super) struct Out<'a, const W: usize> {
    pub(super) rows: &'a mut [u64; W],
    pub(super) sums: &'a mut [Accumulator; W],
    pub(super) extrema: &'a mut [(i64, i64)],
}

#[inline(always)]
fn out<'a, const W: usize>(raw: Raw<'a>) -> Out<'a, W> {
    let (Some(rows), Some(sums)) = (raw.rows.first_chunk_mut(), raw.sums.first_chunk_mut()) else {
        unreachable!("a paired layout has a pair of sums for each of its windows");
    };
    Out { rows, sums, extrema: raw.extrema }
}

impl ViewState {
    /// Takes in the batch's row number `row`, whose key's record is `handle`, and answers it.
    #[inline(always)]
    #[expect(clippy::too_many_arguments)]
    pub(super) fn pairs_row<S: Shape, const W: usize>(
        &mut self,
        pairs: &Pairs<W>,
        lanes: &mut Lanes<W>,
        row: usize,
        (mut handle, time): (Handle, i64),
        keys: &Keys,
        entries: &[u64],
        answers: &mut Answers,
    ) {
        let entry = &entries[row * 2..row * 2 + 2];
        if handle >> CLASS_SHIFT == DENSE
            && let Some(dense) = &mut self.dense[(handle & BLOCK_MASK) as usize]
            && dense.lane != 0
        {
            if lanes.follows(dense, time) {
                if !lanes.takes(dense, time) {
                    self.bounds.set(&self.layout, time);
                    lanes.cross(&self.layout, dense, time, &self.bounds);
                }
                lanes.take::<S>(&self.layout, dense, entry, out(answers.row(&self.layout)));
                return;
            }
            lanes.close(&self.layout, dense);
        }
        let bounds = if pairs.rounded {
            self.bounds.set(&self.layout, time);
            std::array::from_fn(|w| self.bounds.list[w])
        } else {
            pairs.bounds(time)
        };
        let Self { layout, dense, chunks, .. } = self;
        if handle >> CLASS_SHIFT == DENSE
            && let block = handle & BLOCK_MASK
            && let Some(dense) = &mut dense[block as usize]
            && let held = layout.of(dense)
            && dense.steps(held, time)
        {
            if layout.refresh {
                dense.mark(&mut self.refresh);
            }
            let mut raw = answers.row(layout);
            if !held.paired {
                dense.step::<S>(held, chunks, entry, &bounds, &mut raw);
                // A key that comes twice in a batch comes again.
                if held.laned && dense.lane == 0 && std::mem::replace(&mut dense.batch, self.batch) == self.batch {
                    lanes.open(dense, block);
                }
                return;
            }
            dense.step_pairs::<S, W>(held, chunks, entry, pairs, &bounds, out(raw));
            if dense.outgrows_rows() {
                self.tile(block, keys.hashes[row]);
            }
            return;
        }
        handle = self.insert_at::<S>(keys.hashes[row], handle, entry, time);
        let Self { layout, small, dense, chunks, texts, .. } = self;
        let mut raw = answers.row(layout);
        let class = handle >> CLASS_SHIFT;
        if class != DENSE {
            let record = small[class as usize].get(handle & BLOCK_MASK);
            query_pairs::<S, W>(layout, record, time, pairs, &bounds, out(raw));
        } else if let Some(dense) = &mut dense[(handle & BLOCK_MASK) as usize] {
            ask::<S>(layout, dense, chunks, texts, time, &bounds, &mut raw);
        }
    }
}

impl Dense {
    #[inline(always)]
    fn step_pairs<S: Shape, const W: usize>(
        &mut self,
        layout: &Layout,
        pool: &mut Slab,
        entry: &[u64],
        pairs: &Pairs<W>,
        bounds: &[i64; W],
        out: Out<'_, W>,
    ) {
        let (input, level, time) = (&layout.inputs[0], layout.inputs[0].level, entry[0] as i64);
        let new = term::<S>(layout, input, entry, level);
        self.head = time;
        self.newest = time;
        self.absorbed += 1;
        self.queue.push::<S>(layout, pool, entry);
        self.waiting += 1;
        let (kept, inside, end) = (self.sums.array_mut::<W>(), self.inside.array_mut::<W>(), self.waiting);
        let mut left = false;
        for w in 0..W {
            let mut sums = kept[w];
            add::<S>(&mut sums, level, new);
            let mut cursor = inside[w];
            // The new row is inside every window, so this ends before the queue does.
            loop {
                let entry = self.queue.read::<S>(layout, pool, &mut cursor);
                if entry[0] as i64 > bounds[w] {
                    break;
                }
                remove::<S>(&mut sums, level, term::<S>(layout, input, entry, level));
                left |= cursor.step::<S>(layout);
            }
            inside[w] = cursor;
            out.rows[w] = end - cursor.at;
            kept[w] = sums;
            out.sums[w] = sums;
        }
        if left {
            self.forget_rows(layout, pool);
        }
        if pairs.extrema {
            let key = sort_key::<S>(layout, input, entry);
            let widest = pairs.order[W - 1];
            let (wedges, guesses) = (self.wedges.array_mut::<2>(), self.guesses.array_mut::<W>());
            if let Some(key) = key {
                wedges[0].push(time, key);
                wedges[1].push(time, !key);
            }
            for (w, (found, guess)) in out.extrema.iter_mut().zip(guesses).enumerate() {
                if w == widest {
                    let [min, max] = &mut *wedges;
                    min.expire(bounds[w]);
                    max.expire(bounds[w]);
                    *found = (min.front().unwrap_or(i64::MAX), !max.front().unwrap_or(i64::MAX));
                } else {
                    found.0 = wedges[0].after_guess(bounds[w], &mut guess.0).unwrap_or(i64::MAX);
                    found.1 = !wedges[1].after_guess(bounds[w], &mut guess.1).unwrap_or(i64::MAX);
                }
            }
        }
    }
}

/// Answers of a compact record: one scan from its newest row.
#[inline(always)]
fn query_pairs<S: Shape, const W: usize>(
    layout: &Layout,
    record: &[u64],
    head: i64,
    pairs: &Pairs<W>,
    bounds: &[i64; W],
    out: Out<'_, W>,
) {
    let input = &layout.inputs[0];
    let entries = &record[layout.entries_at..layout.entries_at + small::count(record) * 2];
    let mut sums = Accumulator::ZERO;
    let mut extrema = NO_EXTREMA;
    let mut rows = 0;
    let mut older = entries.as_chunks::<2>().0.iter().rev().skip_while(|entry| entry[0] as i64 > head).peekable();
    for w in pairs.order {
        while let Some(entry) = older.next_if(|entry| entry[0] as i64 > bounds[w]) {
            rows += 1;
            add::<S>(&mut sums, Level::Squares, term::<S>(layout, input, entry, Level::Squares));
            if let Some(key) = sort_key::<S>(layout, input, entry) {
                widen(&mut extrema, key);
            }
        }
        out.rows[w] = rows;
        out.sums[w] = sums;
        if let Some(out) = out.extrema.get_mut(w) {
            *out = extrema;
        }
    }
}

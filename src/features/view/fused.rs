//! A dense record's common case in one pass: a row in order, of one float, asked for at its own time.
//!
//! The same as taking the row in, moving the windows on and answering, one after another; but each sum is loaded once,
//! changed in registers, and stored both where it lives and where the answer goes.

use super::dense::Dense;
use super::layout::Layout;
use super::slab::Slab;
use super::value::{Raw, Shape, Term, add, remove, sort_key, term};
use crate::features::numeric::Accumulator;

impl Dense {
    /// Whether [`Self::step`] may take this row.
    #[inline(always)]
    pub(super) fn steps(&self, layout: &Layout, time: i64) -> bool {
        layout.fused && time >= self.head && self.waiting == self.queue.end
    }

    /// Takes in a row and answers for the windows that end at its time.
    #[inline(always)]
    pub(super) fn step<S: Shape>(
        &mut self,
        layout: &Layout,
        pool: &mut Slab,
        entry: &[u64],
        bounds: &[i64],
        out: &mut Raw<'_>,
    ) {
        let time = entry[0] as i64;
        let input = &layout.inputs[0];
        let level = input.level;
        let term = term::<S>(layout, input, entry, level);
        self.head = time;
        self.newest = time;
        self.absorbed += 1;
        if layout.keep_dense.is_some() {
            self.queue.push::<S>(layout, pool, entry);
            self.waiting += 1;
            self.step_rows::<S>(layout, pool, term, bounds, out);
        }
        if !layout.tracks.is_empty() {
            self.step_tiles::<S>(layout, time, term, bounds, out);
        }
        if !self.wedges.is_empty() {
            self.step_wedges::<S>(layout, time, sort_key::<S>(layout, input, entry), bounds, out);
        }
        if layout.keep_dense.is_some() {
            self.forget_rows(layout, pool);
        }
    }

    #[inline(always)]
    fn step_rows<S: Shape>(&mut self, layout: &Layout, pool: &Slab, new: Term, bounds: &[i64], out: &mut Raw<'_>) {
        let (input, level) = (&layout.inputs[0], layout.inputs[0].level);
        for (i, w) in layout.exact.iter().enumerate() {
            let pair = layout.windows[*w].pairs.first().copied();
            let mut sums = pair.map_or(Accumulator::ZERO, |p| self.sums[p]);
            add::<S>(&mut sums, level, new);
            let mut cursor = self.inside[i];
            loop {
                let entry = self.queue.read::<S>(layout, pool, &mut cursor);
                if entry[0] as i64 > bounds[*w] {
                    break;
                }
                remove::<S>(&mut sums, level, term::<S>(layout, input, entry, level));
                cursor.step::<S>(layout);
            }
            self.inside[i] = cursor;
            out.rows[*w] = self.waiting - cursor.at;
            if let Some(p) = pair {
                self.sums[p] = sums;
                out.sums[p] = sums;
            }
        }
    }

    #[inline(always)]
    fn step_tiles<S: Shape>(&mut self, layout: &Layout, time: i64, new: Term, bounds: &[i64], out: &mut Raw<'_>) {
        let level = layout.inputs[0].level;
        for (track, tiles) in layout.tracks.iter().zip(&mut self.tiles) {
            let tile = tiles.at(track, time);
            tiles.heads[tile].1 += 1;
            // A track keeps the sums of its only input, or none.
            if !track.inputs.is_empty() {
                add::<S>(&mut tiles.sums[tile], level, new);
            }
            for (i, w) in track.windows.iter().enumerate() {
                let pair = layout.windows[*w].pairs.first().copied();
                let mut sums = pair.map_or(Accumulator::ZERO, |p| self.sums[p]);
                add::<S>(&mut sums, level, new);
                let (mut first, mut rows) = tiles.inside[i];
                rows += 1;
                while tiles.heads[first].0 <= bounds[*w] {
                    rows -= tiles.heads[first].1;
                    if pair.is_some() {
                        sums.unmerge(&tiles.sums[first]);
                    }
                    first += 1;
                }
                tiles.inside[i] = (first, rows);
                out.rows[*w] = rows;
                if let Some(p) = pair {
                    self.sums[p] = sums;
                    out.sums[p] = sums;
                }
            }
            tiles.evict(track, time.saturating_sub(track.reach));
        }
    }

    #[inline(always)]
    fn step_wedges<S: Shape>(
        &mut self,
        layout: &Layout,
        time: i64,
        key: Option<i64>,
        bounds: &[i64],
        out: &mut Raw<'_>,
    ) {
        for (spec, wedge) in layout.wedges.iter().zip(self.wedges.iter_mut()) {
            if let Some(key) = key {
                let at = spec.track.map_or(time, |track| self.tiles[track].heads.last().map_or(time, |head| head.0));
                wedge.push(at, if spec.max { !key } else { key });
            }
            wedge.expire(time.saturating_sub(spec.reach));
        }
        for ((e, out), guess) in layout.extrema.iter().zip(&mut *out.extrema).zip(self.guesses.iter_mut()) {
            if e.front {
                if let Some(w) = e.min {
                    out.0 = self.wedges[w].front().unwrap_or(i64::MAX);
                }
                if let Some(w) = e.max {
                    out.1 = !self.wedges[w].front().unwrap_or(i64::MAX);
                }
                continue;
            }
            let bound = bounds[e.window];
            if let Some(w) = e.min {
                out.0 = self.wedges[w].after_guess(bound, &mut guess.0).unwrap_or(i64::MAX);
            }
            if let Some(w) = e.max {
                out.1 = !self.wedges[w].after_guess(bound, &mut guess.1).unwrap_or(i64::MAX);
            }
        }
    }
}

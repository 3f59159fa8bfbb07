//! Questions to a busy key that end anywhere, behind its head or after it; they change nothing.

use super::dense::Dense;
use super::layout::Layout;
use super::slab::Slab;
use super::value::{Any, NO_EXTREMA, Raw, add, remove, sort_key, term, widen};
use crate::features::numeric::Accumulator;

impl Dense {
    /// Answers for windows that end anywhere, behind the head or after it, and changes nothing.
    pub(super) fn peek(&self, layout: &Layout, pool: &Slab, head: i64, bounds: &[i64], out: &mut Raw<'_>) {
        let queue = &self.queue;
        let mut end = self.waiting;
        while end < queue.end && queue.time(layout, pool, end) <= head {
            end += 1;
        }
        while end > queue.first && queue.time(layout, pool, end - 1) > head {
            end -= 1;
        }
        out.sums.copy_from_slice(&self.sums);
        for (i, w) in layout.exact.iter().enumerate() {
            self.peek_exact(layout, pool, i, end, bounds[*w], out);
        }
        for t in 0..layout.tracks.len() {
            if head >= self.head || layout.slack == 0 {
                self.peek_tiles(layout, pool, t, end, bounds, out);
            } else {
                self.peek_tiles_behind(layout, pool, t, end, head, bounds, out);
            }
        }
    }

    fn peek_exact(&self, layout: &Layout, pool: &Slab, i: usize, end: u64, bound: i64, out: &mut Raw<'_>) {
        let queue = &self.queue;
        let window = &layout.windows[layout.exact[i]];
        let apply = |sums: &mut [Accumulator], at: u64, plus: bool| {
            let entry = queue.get(layout, pool, at);
            for p in &window.pairs {
                let pair = layout.pairs[*p];
                let term = term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level);
                if plus {
                    add::<Any>(&mut sums[*p], pair.level, term)
                } else {
                    remove::<Any>(&mut sums[*p], pair.level, term)
                }
            }
        };
        let lifetime = window.width.is_none();
        let inside = if lifetime { queue.first } else { self.inside[i].at };
        for at in self.waiting..end {
            apply(out.sums, at, true);
        }
        for at in end.max(inside)..self.waiting {
            apply(out.sums, at, false);
        }
        let mut first = inside.min(end);
        if !lifetime {
            while first < end && queue.time(layout, pool, first) <= bound {
                apply(out.sums, first, false);
                first += 1;
            }
            while first > queue.first && queue.time(layout, pool, first - 1) > bound {
                first -= 1;
                apply(out.sums, first, true);
            }
        }
        let w = layout.exact[i];
        out.rows[w] = if lifetime { self.absorbed + end - self.waiting } else { end - first };
        for l in &window.lasts {
            out.lasts[*l] = self.last(layout, pool, end, layout.lasts[*l].1, bound);
        }
        for e in &window.extrema {
            let spec = layout.extrema[*e];
            let input = &layout.inputs[spec.input];
            let mut found = spec.life.map_or(NO_EXTREMA, |life| self.base[life]);
            let mut scan_from = first;
            if spec.life.is_none() && end >= self.waiting {
                // The wedges answer up to the head; what waits is looked at.
                let kept = |wedge: Option<usize>| wedge.and_then(|w| self.wedges[w].after(bound));
                found = (kept(spec.min).map_or(i64::MAX, |f| f.1), kept(spec.max).map_or(i64::MIN, |f| !f.1));
                scan_from = self.waiting.max(first);
            } else if spec.life.is_none() {
                // Behind the head: the wedges' answer holds if it lies in the window.
                let last = (end > first).then(|| queue.time(layout, pool, end - 1));
                let kept = |wedge: Option<usize>| match wedge {
                    None => Some(None),
                    Some(w) => self.wedges[w].after(bound).filter(|f| Some(f.0) <= last).map(Some),
                };
                if let (Some(min), Some(max)) = (kept(spec.min), kept(spec.max)) {
                    found = (min.map_or(i64::MAX, |f| f.1), max.map_or(i64::MIN, |f| !f.1));
                    scan_from = end;
                }
            }
            for at in scan_from..end {
                if let Some(key) = sort_key::<Any>(layout, input, queue.get(layout, pool, at)) {
                    widen(&mut found, key);
                }
            }
            out.extrema[*e] = found;
        }
    }

    /// Tiles, at the head or after it.
    fn peek_tiles(&self, layout: &Layout, pool: &Slab, t: usize, end: u64, bounds: &[i64], out: &mut Raw<'_>) {
        let (track, tiles) = (&layout.tracks[t], &self.tiles[t]);
        for (i, w) in track.windows.iter().enumerate() {
            let window = &layout.windows[*w];
            let (mut first, mut rows) = tiles.inside[i];
            while let Some(head) = tiles.heads.get(first)
                && head.0 <= bounds[*w]
            {
                for p in &window.pairs {
                    out.sums[*p].unmerge(&tiles.sums[first * track.inputs.len() + track.place(layout.pairs[*p].input)]);
                }
                rows -= head.1;
                first += 1;
            }
            let mut found: Vec<(i64, i64)> = Vec::new();
            for e in &window.extrema {
                let spec = layout.extrema[*e];
                let kept = |wedge: Option<usize>| wedge.and_then(|x| self.wedges[x].after(bounds[*w]));
                found.push((kept(spec.min).map_or(i64::MAX, |f| f.1), kept(spec.max).map_or(i64::MIN, |f| !f.1)));
            }
            for at in self.waiting..end.max(self.waiting) {
                let entry = self.queue.get(layout, pool, at);
                if entry[0] as i64 <= bounds[*w] {
                    continue;
                }
                rows += 1;
                for p in &window.pairs {
                    let pair = layout.pairs[*p];
                    add::<Any>(
                        &mut out.sums[*p],
                        pair.level,
                        term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level),
                    );
                }
                for (e, found) in window.extrema.iter().zip(&mut found) {
                    if let Some(key) = sort_key::<Any>(layout, &layout.inputs[layout.extrema[*e].input], entry) {
                        widen(found, key);
                    }
                }
            }
            out.rows[*w] = rows;
            for (e, found) in window.extrema.iter().zip(found) {
                out.extrema[*e] = found;
            }
        }
    }

    /// Tiles, behind the head: whole tiles are folded, the one that the question cuts is read row by row.
    #[expect(clippy::too_many_arguments, reason = "one question's whole context, on a hot path")]
    fn peek_tiles_behind(
        &self,
        layout: &Layout,
        pool: &Slab,
        t: usize,
        end: u64,
        head: i64,
        bounds: &[i64],
        out: &mut Raw<'_>,
    ) {
        let (track, tiles) = (&layout.tracks[t], &self.tiles[t]);
        let cut = head.div_euclid(track.grain) * track.grain;
        for w in &track.windows {
            let window = &layout.windows[*w];
            window.pairs.iter().for_each(|p| out.sums[*p] = Accumulator::ZERO);
            window.extrema.iter().for_each(|e| out.extrema[*e] = NO_EXTREMA);
            let mut rows = 0;
            for (at, tile) in tiles.heads.iter().enumerate().filter(|(_, h)| h.0 > bounds[*w] && h.0 < cut) {
                rows += tile.1;
                for p in &window.pairs {
                    out.sums[*p].merge(&tiles.sums[at * track.inputs.len() + track.place(layout.pairs[*p].input)]);
                }
                for e in &window.extrema {
                    let place = track.extrema.iter().position(|i| *i == layout.extrema[*e].input).unwrap_or(0);
                    let (min, max) = tiles.extrema[at * track.extrema.len() + place];
                    let found = &mut out.extrema[*e];
                    *found = (found.0.min(min), found.1.max(max));
                }
            }
            let mut at = end;
            while at > self.queue.first {
                at -= 1;
                let entry = self.queue.get(layout, pool, at);
                let time = entry[0] as i64;
                if time < cut || time <= bounds[*w] {
                    break;
                }
                rows += 1;
                for p in &window.pairs {
                    let pair = layout.pairs[*p];
                    add::<Any>(
                        &mut out.sums[*p],
                        pair.level,
                        term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level),
                    );
                }
                for e in &window.extrema {
                    if let Some(key) = sort_key::<Any>(layout, &layout.inputs[layout.extrema[*e].input], entry) {
                        widen(&mut out.extrema[*e], key);
                    }
                }
            }
            out.rows[*w] = rows;
        }
    }
}

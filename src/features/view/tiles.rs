//! Tiles: the sums of all rows in `[k·grain, (k+1)·grain)`, kept in place of the rows.

use super::inline::Inline;
use super::layout::{Layout, Track};
use super::strip::Strip;
use super::value::{Any, NO_EXTREMA, Shape, add, sort_key, term, widen};
use crate::base::prefetch;
use crate::features::numeric::Accumulator;

/// The tiles of one grain of a dense record, and how far each window reaches into them.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    /// (start, rows), in order of start; empty tiles are not there.
    pub(super) heads: Strip<(i64, u64)>,
    /// Sums, one per input of the track, tile by tile.
    pub(super) sums: Strip<Accumulator>,
    /// Extrema, one per input that keeps them, tile by tile.
    pub(super) extrema: Strip<(i64, i64)>,
    /// Per window: first tile inside, and rows inside.
    pub(super) inside: Inline<(usize, u64), 1>,
}

impl Tiles {
    pub(super) fn new(track: &Track) -> Self {
        Tiles {
            heads: Strip::default(),
            sums: Strip::default(),
            extrema: Strip::default(),
            inside: Inline::of(&(0, 0), track.windows.len()),
        }
    }

    /// The tile that holds `time`, made if it is not there; and whether it is the newest.
    #[inline(always)]
    pub(super) fn at(&mut self, track: &Track, time: i64) -> usize {
        if let Some(&(start, _)) = self.heads.last()
            && time >= start
            && time - start < track.grain
        {
            return self.heads.len() - 1;
        }
        self.make(track, time.div_euclid(track.grain) * track.grain)
    }

    /// Whether a row belongs into a tile that is not the newest, or that some window has left.
    #[inline(always)]
    pub(super) fn is_behind(&self, track: &Track, time: i64) -> bool {
        self.heads.last().is_some_and(|(start, _)| {
            time < *start
                || (time - start < track.grain && self.inside.iter().any(|(first, _)| *first == self.heads.len()))
        })
    }

    fn make(&mut self, track: &Track, start: i64) -> usize {
        if self.heads.last().is_none_or(|head| head.0 < start) {
            self.heads.push((start, 0));
            track.inputs.iter().for_each(|_| self.sums.push(Accumulator::ZERO));
            track.extrema.iter().for_each(|_| self.extrema.push(NO_EXTREMA));
            return self.heads.len() - 1;
        }
        self.make_behind(track, start)
    }

    #[cold]
    fn make_behind(&mut self, track: &Track, start: i64) -> usize {
        let at = self.heads.partition_point(|head| head.0 < start);
        if self.heads.get(at).is_some_and(|head| head.0 == start) {
            return at;
        }
        self.heads.insert(at, (start, 0));
        for i in 0..track.inputs.len() {
            self.sums.insert(at * track.inputs.len() + i, Accumulator::ZERO);
        }
        for i in 0..track.extrema.len() {
            self.extrema.insert(at * track.extrema.len() + i, NO_EXTREMA);
        }
        for (first, _) in self.inside.iter_mut() {
            *first += usize::from(at < *first);
        }
        at
    }

    /// Adds an entry to a tile. The windows' own sums are the record's business.
    #[inline(always)]
    pub(super) fn add<S: Shape>(&mut self, layout: &Layout, track: &Track, tile: usize, entry: &[u64]) {
        self.heads[tile].1 += 1;
        for (i, (input, level)) in track.inputs.iter().enumerate() {
            let term = term::<S>(layout, &layout.inputs[*input], entry, *level);
            add::<S>(&mut self.sums[tile * track.inputs.len() + i], *level, term);
        }
        for (i, input) in track.extrema.iter().enumerate() {
            if let Some(key) = sort_key::<Any>(layout, &layout.inputs[*input], entry) {
                widen(&mut self.extrema[tile * track.extrema.len() + i], key);
            }
        }
        for (first, rows) in self.inside.iter_mut() {
            *rows += u64::from(tile >= *first);
        }
    }

    /// Moves the windows' first tiles on, taking what leaves out of `sums`.
    #[inline(always)]
    pub(super) fn leave(&mut self, layout: &Layout, track: &Track, bounds: &[i64], sums: &mut [Accumulator]) {
        for (i, w) in track.windows.iter().enumerate() {
            let (first, rows) = &mut self.inside[i];
            while let Some(head) = self.heads.get(*first)
                && head.0 <= bounds[*w]
            {
                for p in &layout.windows[*w].pairs {
                    let place = track.place(layout.pairs[*p].input);
                    sums[*p].unmerge(&self.sums[*first * track.inputs.len() + place]);
                }
                *rows -= head.1;
                *first += 1;
            }
        }
    }

    /// Forgets the tiles that start at or before `cutoff` and that no window holds.
    #[inline(always)]
    pub(super) fn evict(&mut self, track: &Track, cutoff: i64) {
        while let Some(head) = self.heads.first()
            && head.0 <= cutoff
            && self.inside.iter().all(|(first, _)| *first > 0)
        {
            self.heads.leave(1);
            self.sums.leave(track.inputs.len());
            self.extrema.leave(track.extrema.len());
            for (first, _) in self.inside.iter_mut() {
                *first -= 1;
            }
        }
    }

    /// Asks for the oldest and the newest tile.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        if let (Some(front), Some(back)) = (self.heads.first(), self.heads.last()) {
            prefetch(front);
            prefetch(back);
        }
        if let (Some(front), Some(back)) = (self.sums.first(), self.sums.last()) {
            prefetch(front);
            prefetch(back);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.heads.bytes() + self.sums.bytes() + self.extrema.bytes()
    }
}

impl Track {
    /// Place of an input among the track's.
    #[inline(always)]
    pub(super) fn place(&self, input: usize) -> usize {
        self.inputs.iter().position(|i| i.0 == input).unwrap_or(0)
    }
}

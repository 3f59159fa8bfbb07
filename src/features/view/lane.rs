//! Busy keys in tiles, from one edge of a tile to the next.
//!
//! Between two edges a row changes the newest tile of a track and no other, and no window's start moves: each window's sums
//! grow by the row, and that is all. A lane holds what such rows need, a few cache lines that one key's rows share in the
//! course of a batch. A track gets what its lane took when the first row comes that is beyond the track's edge, and all of
//! them when one comes out of order, and at the end of the batch. So outside a batch there are no lanes, and nobody else knows
//! of them.

use super::dense::Dense;
use super::layout::{Layout, Track};
use super::paired::Out;
use super::state::Bounds;
use super::value::{NO_EXTREMA, Shape, add, sort_key, term, widen};
use crate::base::{LargeBox, prefetch};
use crate::features::numeric::Accumulator;

/// The lanes of a batch.
pub(super) struct Lanes<const W: usize> {
    lanes: Vec<Lane<W>>,
    /// The records that they are of.
    blocks: Vec<u32>,
}

/// What rows of one key need until an edge. There are no more tracks than windows, and a window's only sums have its number.
#[repr(C, align(64))]
struct Lane<const W: usize> {
    /// Rows before this time are before every track's edge.
    until: i64,
    /// Time of the newest row.
    head: i64,
    /// Rows taken.
    rows: u64,
    /// The edge of each track.
    edges: [i64; W],
    /// Smallest and largest value of the rows that each track is still to be given.
    own: [(i64, i64); W],
    /// Rows in each window.
    inside: [u64; W],
    /// Smallest and largest value in each window.
    extrema: [(i64, i64); W],
    sums: [Accumulator; W],
}

impl<const W: usize> Lanes<W> {
    pub(super) fn new() -> Self {
        Lanes { lanes: Vec::new(), blocks: Vec::new() }
    }

    /// Whether a record has a lane that takes a row at this time as it is.
    #[inline(always)]
    pub(super) fn takes(&self, dense: &Dense, time: i64) -> bool {
        dense.lane != 0 && {
            let lane = &self.lanes[dense.lane as usize - 1];
            lane.head <= time && time < lane.until
        }
    }

    /// Whether a record's lane can be moved on to this time.
    #[inline(always)]
    pub(super) fn follows(&self, dense: &Dense, time: i64) -> bool {
        self.lanes[dense.lane as usize - 1].head <= time
    }

    /// Takes a row into a record's lane, and answers it.
    #[inline(always)]
    pub(super) fn take<S: Shape>(&mut self, layout: &Layout, dense: &Dense, entry: &[u64], out: Out<'_, W>) {
        let lane = &mut self.lanes[dense.lane as usize - 1];
        let (input, level) = (&layout.inputs[0], layout.inputs[0].level);
        let new = term::<S>(layout, input, entry, level);
        lane.head = entry[0] as i64;
        lane.rows += 1;
        for w in 0..W {
            lane.inside[w] += 1;
            out.rows[w] = lane.inside[w];
            let mut sums = lane.sums[w];
            add::<S>(&mut sums, level, new);
            lane.sums[w] = sums;
            out.sums[w] = sums;
        }
        if !layout.wedges.is_empty()
            && let Some(key) = sort_key::<S>(layout, input, entry)
        {
            lane.own.iter_mut().for_each(|own| widen(own, key));
            lane.extrema.iter_mut().for_each(|extrema| widen(extrema, key));
        }
        for (out, extrema) in out.extrema.iter_mut().zip(&lane.extrema) {
            *out = *extrema;
        }
    }

    /// Opens a lane of a record.
    pub(super) fn open(&mut self, dense: &mut Dense, block: u32) {
        self.lanes.push(Lane {
            until: i64::MIN,
            head: dense.head,
            rows: 0,
            edges: [i64::MIN; W],
            own: [NO_EXTREMA; W],
            inside: [0; W],
            extrema: [NO_EXTREMA; W],
            sums: [Accumulator::ZERO; W],
        });
        self.blocks.push(block);
        dense.lane = self.lanes.len() as u32;
    }

    /// Moves a record's lane on to a time, with the bounds of the windows that end then.
    #[inline(never)]
    pub(super) fn cross(&mut self, layout: &Layout, dense: &mut Dense, time: i64, bounds: &Bounds) {
        let lane = &mut self.lanes[dense.lane as usize - 1];
        lane.until = i64::MAX;
        for (t, track) in layout.tracks.iter().enumerate() {
            if time >= lane.edges[t] {
                if lane.edges[t] > i64::MIN {
                    lane.give(layout, dense, t, track);
                }
                lane.enter(layout, dense, t, track, time, bounds);
            }
            lane.until = lane.until.min(lane.edges[t]);
        }
    }

    /// Gives a record all that its lane took; the lane takes nothing more before it is moved on.
    pub(super) fn close(&mut self, layout: &Layout, dense: &mut Dense) {
        let lane = &mut self.lanes[dense.lane as usize - 1];
        for (t, track) in layout.tracks.iter().enumerate() {
            if std::mem::replace(&mut lane.edges[t], i64::MIN) > i64::MIN {
                lane.give(layout, dense, t, track);
            }
        }
        lane.until = i64::MIN;
        dense.head = dense.head.max(lane.head);
        dense.newest = dense.newest.max(lane.head);
        dense.absorbed += std::mem::take(&mut lane.rows);
    }

    /// Closes all lanes: the batch is over.
    pub(super) fn close_all(mut self, layout: &Layout, records: &mut [Option<LargeBox<Dense>>]) {
        for block in std::mem::take(&mut self.blocks) {
            if let Some(dense) = &mut records[block as usize]
                && dense.lane != 0
            {
                self.close(layout, dense);
                dense.lane = 0;
            }
        }
    }

    /// Asks for a record's lane.
    #[inline(always)]
    pub(super) fn prefetch(&self, dense: &Dense) {
        let at = self.lanes.as_ptr().wrapping_add(dense.lane as usize).wrapping_sub(1).cast::<u8>();
        (0..size_of::<Lane<W>>().div_ceil(64)).for_each(|line| prefetch(at.wrapping_add(line * 64)));
    }
}

impl<const W: usize> Lane<W> {
    /// Gives a track's newest tile the rows that came since the lane entered it.
    #[inline(always)]
    fn give(&mut self, layout: &Layout, dense: &mut Dense, t: usize, track: &Track) {
        let tiles = &mut dense.tiles[t];
        let mut taken = Accumulator::ZERO;
        let mut rows = 0;
        for (w, inside) in track.windows.iter().zip(tiles.inside.iter_mut()) {
            rows = self.inside[*w] - inside.1;
            inside.1 = self.inside[*w];
            taken = self.sums[*w];
            taken.unmerge(&dense.sums[*w]);
            dense.sums[*w] = self.sums[*w];
        }
        let Some(head) = tiles.heads.last_mut() else { return };
        head.1 += rows;
        let start = head.0;
        if !track.inputs.is_empty()
            && let Some(sums) = tiles.sums.last_mut()
        {
            sums.merge(&taken);
        }
        let own = std::mem::replace(&mut self.own[t], NO_EXTREMA);
        if own != NO_EXTREMA {
            for w in &track.wedges {
                let value = if layout.wedges[*w].max { !own.1 } else { own.0 };
                dense.wedges[*w].push(start, value);
            }
        }
    }

    /// Enters a track's tile of a time, which its windows have moved on to.
    #[inline(always)]
    fn enter(&mut self, layout: &Layout, dense: &mut Dense, t: usize, track: &Track, time: i64, bounds: &Bounds) {
        let tiles = &mut dense.tiles[t];
        let tile = tiles.at(track, time);
        self.edges[t] = tiles.heads[tile].0.saturating_add(track.grain);
        for (w, (first, rows)) in track.windows.iter().zip(tiles.inside.iter_mut()) {
            let mut sums = dense.sums[*w];
            while let Some(head) = tiles.heads.get(*first)
                && head.0 <= bounds.list[*w]
            {
                if let Some(gone) = tiles.sums.get(*first) {
                    sums.unmerge(gone);
                }
                *rows -= head.1;
                *first += 1;
            }
            dense.sums[*w] = sums;
            self.sums[*w] = sums;
            self.inside[*w] = *rows;
            self.edges[t] = self.edges[t].min(bounds.until(*w));
        }
        tiles.evict(track, time.saturating_sub(track.reach));
        for w in &track.wedges {
            dense.wedges[*w].expire(time.saturating_sub(layout.wedges[*w].reach));
        }
        for w in &track.windows {
            if let Some(e) = layout.extrema.get(*w) {
                let guess = &mut dense.guesses[*w];
                let bound = bounds.list[*w];
                let min = e.min.and_then(|wedge| dense.wedges[wedge].after_guess(bound, &mut guess.0));
                let max = e.max.and_then(|wedge| dense.wedges[wedge].after_guess(bound, &mut guess.1));
                self.extrema[*w] = (min.unwrap_or(i64::MAX), max.map_or(i64::MIN, |max| !max));
            }
        }
        self.own[t] = NO_EXTREMA;
    }
}

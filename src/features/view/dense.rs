//! The record of a busy key: rows in a chunked queue and running sums per window, or tiles.
//!
//! Rows up to the *head* are absorbed into the sums; rows after it wait (a delayed view's newest rows). A window's sums
//! stand for the rows from its own first row to the head. Integer sums undo exactly, so the head only ever moves on, and a
//! question or a row behind it is answered or taken in by stepping back.

use super::inline::Inline;
use super::layout::Layout;
use super::slab::Slab;
use super::snapshot::Stamp;
use super::strip::Strip;
use super::tiles::Tiles;
use super::value::{Any, NO_EXTREMA, Raw, Shape, Term, add, last_of, remove, sort_key, term, widen};
use super::wedge::Wedge;
use crate::base::prefetch;
use crate::features::numeric::Accumulator;

/// log2 of the entries of a chunk.
const CHUNK_LOG2: u32 = 5;

/// Words of a chunk.
pub(super) fn chunk_words(layout: &Layout) -> usize {
    layout.stride << CHUNK_LOG2
}

/// Entries by number: the first ever is 0, and numbers only grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) first: u64,
    pub(super) end: u64,
    /// Chunk number of the first of `chunks`.
    base: u64,
    chunks: Strip<u32>,
    /// Where the next entry goes; 0 when that is a new chunk, or not known.
    tail: usize,
}

/// A place in a queue that remembers its address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Number of the entry.
    pub(super) at: u64,
    /// Where it is; 0 when that is not known. Chunks do not move, and a queue keeps those that its cursors are in.
    entry: usize,
}

impl Cursor {
    /// Moves on to the next entry; tells whether that is in another chunk.
    #[inline(always)]
    pub(super) fn step<S: Shape>(&mut self, layout: &Layout) -> bool {
        self.at += 1;
        let next = self.entry + S::stride(layout) * size_of::<u64>();
        let leaves = self.at & ((1 << CHUNK_LOG2) - 1) == 0;
        self.entry = if leaves || self.entry == 0 { 0 } else { next };
        leaves
    }

    #[inline(always)]
    fn set(&mut self, at: u64) {
        *self = Cursor { at, entry: 0 };
    }

    /// Asks for the entry and for the line that the next ones are in.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self.entry as *const u64);
        prefetch((self.entry + 48) as *const u64);
    }
}

impl Queue {
    #[inline(always)]
    fn place<S: Shape>(&self, layout: &Layout, at: u64) -> (u32, usize) {
        let chunk = self.chunks[((at >> CHUNK_LOG2) - self.base) as usize];
        (chunk, (at & ((1 << CHUNK_LOG2) - 1)) as usize * S::stride(layout))
    }

    #[inline(always)]
    pub(super) fn get<'a>(&self, layout: &Layout, pool: &'a Slab, at: u64) -> &'a [u64] {
        let (chunk, word) = self.place::<Any>(layout, at);
        &pool.get(chunk)[word..word + layout.stride]
    }

    /// The entries from one number to another, chunk by chunk.
    pub(super) fn parts<'a>(
        &'a self,
        layout: &'a Layout,
        pool: &'a Slab,
        from: u64,
        end: u64,
    ) -> impl Iterator<Item = &'a [u64]> + Clone {
        let mut at = from;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (chunk, word) = self.place::<Any>(layout, at);
            if let Some(next) = self.chunks.get((at >> CHUNK_LOG2) as usize + 1 - self.base as usize) {
                pool.prefetch(*next, pool.lines());
            }
            let rows = ((1 << CHUNK_LOG2) - (at & ((1 << CHUNK_LOG2) - 1))).min(end - at);
            at += rows;
            Some(&pool.get(chunk)[word..word + rows as usize * layout.stride])
        })
    }

    #[inline(always)]
    pub(super) fn time(&self, layout: &Layout, pool: &Slab, at: u64) -> i64 {
        let (chunk, word) = self.place::<Any>(layout, at);
        pool.get(chunk)[word] as i64
    }

    /// The entry at a cursor, which must not be at the end.
    #[inline(always)]
    pub(super) fn read<'a, S: Shape>(&self, layout: &Layout, pool: &'a Slab, cursor: &mut Cursor) -> &'a [u64] {
        debug_assert!(self.first <= cursor.at && cursor.at < self.end);
        if cursor.entry == 0 {
            let (chunk, word) = self.place::<S>(layout, cursor.at);
            // SAFETY: the chunk has room for 32 entries of `stride` words.
            cursor.entry = unsafe { pool.at(chunk).add(word) }.as_ptr().expose_provenance();
        }
        let at = std::ptr::with_exposed_provenance::<u64>(cursor.entry);
        // SAFETY: a cursor is at an entry of a chunk that the queue holds, whose address `pool.at` gave out for good.
        unsafe { std::slice::from_raw_parts(at, S::stride(layout)) }
    }

    #[inline(always)]
    fn put(&self, layout: &Layout, pool: &mut Slab, at: u64, entry: &[u64]) {
        let (chunk, word) = self.place::<Any>(layout, at);
        pool.get_mut(chunk)[word..word + layout.stride].copy_from_slice(entry);
    }

    #[inline(always)]
    pub(super) fn push<S: Shape>(&mut self, layout: &Layout, pool: &mut Slab, entry: &[u64]) {
        let stride = S::stride(layout);
        let entry = &entry[..stride];
        if self.tail == 0 {
            self.find_tail::<S>(layout, pool);
        }
        let at = std::ptr::with_exposed_provenance_mut::<u64>(self.tail);
        // SAFETY: the tail is the place of the entry numbered `end`, in the newest chunk, which the pool is borrowed for.
        unsafe { std::slice::from_raw_parts_mut(at, stride) }.copy_from_slice(entry);
        self.end += 1;
        let next = self.tail + stride * size_of::<u64>();
        self.tail = if self.end & ((1 << CHUNK_LOG2) - 1) == 0 { 0 } else { next };
    }

    #[inline(never)]
    fn find_tail<S: Shape>(&mut self, layout: &Layout, pool: &mut Slab) {
        let within = (self.end & ((1 << CHUNK_LOG2) - 1)) as usize;
        if within == 0 || self.chunks.is_empty() {
            self.chunks.push(pool.alloc());
        }
        if let Some(newest) = self.chunks.last() {
            // SAFETY: the chunk has room for 32 entries of `stride` words.
            self.tail = unsafe { pool.at(*newest).add(within * S::stride(layout)) }.as_ptr().expose_provenance();
        }
    }

    /// Asks for the place of the next entry.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self.tail as *const u64);
    }

    /// Inserts in order; returns the new entry's number. `last` is the time of the newest entry.
    #[inline(always)]
    fn insert<S: Shape>(&mut self, layout: &Layout, pool: &mut Slab, entry: &[u64], last: i64) -> u64 {
        self.push::<S>(layout, pool, entry);
        if self.end - self.first == 1 || last < entry[0] as i64 {
            return self.end - 1;
        }
        self.sink(layout, pool, entry)
    }

    /// Moves the last entry to where it belongs.
    #[inline(never)]
    fn sink(&mut self, layout: &Layout, pool: &mut Slab, entry: &[u64]) -> u64 {
        let mut at = self.end - 1;
        while at > self.first && layout.is_after::<Any>(self.get(layout, pool, at - 1), entry) {
            let (from, to) = (self.place::<Any>(layout, at - 1), self.place::<Any>(layout, at));
            for i in 0..layout.stride {
                let word = pool.get(from.0)[from.1 + i];
                pool.get_mut(to.0)[to.1 + i] = word;
            }
            at -= 1;
        }
        if at + 1 < self.end {
            self.put(layout, pool, at, entry);
        }
        at
    }

    #[inline(always)]
    fn drop_to(&mut self, pool: &mut Slab, first: u64) {
        self.first = first;
        while self.base < first >> CHUNK_LOG2 {
            if let Some(chunk) = self.chunks.first() {
                pool.release(*chunk);
                self.chunks.leave(1);
            }
            self.base += 1;
        }
    }

    pub(super) fn clear(&mut self, pool: &mut Slab) {
        self.chunks.iter().for_each(|chunk| pool.release(*chunk));
        self.chunks.clear();
        self.first = self.end;
        self.base = self.end >> CHUNK_LOG2;
        self.tail = 0;
    }

    /// Lets go of the entries before `first`, and of those from `end` on.
    pub(super) fn cut(&mut self, pool: &mut Slab, first: u64, end: u64) {
        self.drop_to(pool, first);
        let chunks = (end.div_ceil(1 << CHUNK_LOG2) - self.base) as usize;
        self.chunks.iter().skip(chunks).for_each(|chunk| pool.release(*chunk));
        self.chunks.truncate(chunks);
        self.end = end;
        self.tail = 0;
    }

    /// First entry after (time, ord), among those from `first`.
    pub(super) fn search(&self, layout: &Layout, pool: &Slab, time: i64, ord: u64) -> u64 {
        let (mut low, mut high) = (self.first, self.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.get(layout, pool, middle);
            if (entry[0] as i64, layout.ord.map_or(0, |o| entry[o])) < (time, ord) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A busy key's state; what every row touches comes first.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Dense {
    /// Running sums per pair.
    pub(super) sums: Inline<Accumulator, 2>,
    pub(super) key: u64,
    /// Number of its lane in the batch, from 1; 0 for none.
    pub(super) lane: u32,
    /// The batch of its newest row, where there are lanes.
    pub(super) batch: u32,
    /// Rows up to this time are absorbed.
    pub(super) head: i64,
    /// Time of the newest row ever.
    pub(super) newest: i64,
    /// Number of the first row that waits.
    pub(super) waiting: u64,
    /// Rows ever absorbed.
    pub(super) absorbed: u64,
    /// First row inside, per exact window.
    pub(super) inside: Inline<Cursor, 2>,
    pub(super) queue: Queue,
    pub(super) wedges: Inline<Wedge, 2>,
    /// Where the answers of each extrema's wedges were last found.
    pub(super) guesses: Inline<(u32, u32), 2>,
    pub(super) tiles: Vec<Tiles>,
    /// What checkpoints know of the record.
    pub(super) stamp: Stamp,
    pub(super) dirty: bool,
    /// Its windows are served by rows, though the view has tiles for them: see [`Layout::of`].
    pub(super) by_rows: bool,
    /// A freeze is still to write rows of it: none may go.
    pub(super) held: bool,
    /// Rows up to this number are as the last checkpoint wrote them.
    pub(super) written: u64,
    /// Time of the next refresh.
    pub(super) due: i64,
    /// Extrema of all rows absorbed, per lifetime extrema; and of those no longer in the queue.
    pub(super) life: Vec<(i64, i64)>,
    pub(super) base: Vec<(i64, i64)>,
}

impl Dense {
    pub(super) fn new(layout: &Layout, key: u64) -> Self {
        Dense {
            key,
            lane: 0,
            batch: 0,
            stamp: 0,
            dirty: false,
            by_rows: false,
            held: false,
            written: 0,
            due: i64::MAX,
            head: i64::MIN,
            newest: i64::MIN,
            absorbed: 0,
            queue: Queue::default(),
            waiting: 0,
            inside: Inline::of(&Cursor::default(), layout.exact.len()),
            sums: Inline::of(&Accumulator::ZERO, layout.pairs.len()),
            wedges: Inline::of(&Wedge::default(), layout.wedges.len()),
            guesses: Inline::of(&(0, 0), layout.extrema.len()),
            tiles: layout.tracks.iter().map(Tiles::new).collect(),
            life: vec![NO_EXTREMA; layout.life_extrema.len()],
            base: vec![NO_EXTREMA; layout.life_extrema.len()],
        }
    }

    /// An empty record whose first row will have this number; it has no key yet.
    pub(super) fn starting(layout: &Layout, first: u64) -> Self {
        let mut dense = Dense::new(layout, 0);
        dense.queue = Queue { first, end: first, base: first >> CHUNK_LOG2, ..Queue::default() };
        dense.inside.iter_mut().for_each(|cursor| cursor.set(first));
        dense.waiting = first;
        dense
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Dense>()
            + self.queue.chunks.bytes()
            + self.inside.len().saturating_sub(2) * size_of::<Cursor>()
            + self.sums.len().saturating_sub(2) * size_of::<Accumulator>()
            + self.wedges.len().saturating_sub(2) * size_of::<Wedge>()
            + self.wedges.iter().map(Wedge::bytes).sum::<usize>()
            + self.tiles.iter().map(|t| size_of::<Tiles>() + t.bytes()).sum::<usize>()
            + self.life.len() * 32
    }

    /// Takes in a row. `head`: no later question ends before it.
    #[inline(always)]
    pub(super) fn insert<S: Shape>(&mut self, layout: &Layout, pool: &mut Slab, entry: &[u64], head: i64) {
        self.advance::<S>(layout, pool, head);
        let last = self.newest;
        self.newest = last.max(entry[0] as i64);
        if entry[0] as i64 > self.head {
            let at = self.queue.insert::<S>(layout, pool, entry, last);
            self.written = self.written.min(at);
            return;
        }
        let at = if layout.keep_dense.is_some() {
            let at = self.queue.insert::<S>(layout, pool, entry, last);
            self.written = self.written.min(at);
            self.waiting += 1;
            at
        } else {
            // No row is kept behind the head, so numbers need not count this one.
            u64::MAX
        };
        let time = entry[0] as i64;
        let behind = self.tiles.iter().zip(&layout.tracks).any(|(tiles, track)| tiles.is_behind(track, time));
        if at >= self.waiting.saturating_sub(1) && !behind {
            self.absorb::<S>(layout, entry);
        } else {
            self.absorb_behind(layout, entry, at);
        }
    }

    /// Adds a row to all sums, as the newest of those absorbed.
    #[inline(always)]
    fn absorb<S: Shape>(&mut self, layout: &Layout, entry: &[u64]) {
        let time = entry[0] as i64;
        self.absorbed += 1;
        for (track, tiles) in layout.tracks.iter().zip(&mut self.tiles) {
            let tile = tiles.at(track, time);
            tiles.add::<S>(layout, track, tile, entry);
        }
        for input in &layout.inputs {
            let term = term::<S>(layout, input, entry, input.level);
            if let Term::Null = term {
                continue;
            }
            for p in &input.pairs {
                add::<S>(&mut self.sums[*p], layout.pairs[*p].level, term);
            }
            if input.wedges.is_empty() && input.life_extrema.is_empty() {
                continue;
            }
            if let Some(key) = sort_key::<S>(layout, input, entry) {
                for w in &input.wedges {
                    let spec = &layout.wedges[*w];
                    let time = match spec.track {
                        None => time,
                        Some(track) => self.tiles[track].heads.last().map_or(time, |head| head.0),
                    };
                    self.wedges[*w].push(time, if spec.max { !key } else { key });
                }
                for e in &input.life_extrema {
                    widen(&mut self.life[*e], key);
                    if layout.keep_dense.is_none() {
                        widen(&mut self.base[*e], key);
                    }
                }
            }
        }
    }

    /// Adds row number `at` to the sums of the windows that hold it.
    #[cold]
    fn absorb_behind(&mut self, layout: &Layout, entry: &[u64], at: u64) {
        let time = entry[0] as i64;
        self.absorbed += 1;
        let mut holds = vec![true; layout.windows.len()];
        for (i, inside) in self.inside.iter_mut().enumerate() {
            let w = layout.exact[i];
            if at < inside.at && layout.windows[w].width.is_some() {
                inside.set(inside.at + 1);
                holds[w] = false;
            }
        }
        let mut starts = vec![0; layout.tracks.len()];
        for (t, (track, tiles)) in layout.tracks.iter().zip(&mut self.tiles).enumerate() {
            let tile = tiles.at(track, time);
            tiles.add::<Any>(layout, track, tile, entry);
            starts[t] = tiles.heads[tile].0;
            for (i, w) in track.windows.iter().enumerate() {
                holds[*w] = tile >= tiles.inside[i].0;
            }
        }
        for input in &layout.inputs {
            let term = term::<Any>(layout, input, entry, input.level);
            for p in &input.pairs {
                if holds[layout.pairs[*p].window] {
                    add::<Any>(&mut self.sums[*p], layout.pairs[*p].level, term);
                }
            }
            if let Some(key) = sort_key::<Any>(layout, input, entry) {
                for w in &input.wedges {
                    let spec = &layout.wedges[*w];
                    let time = spec.track.map_or(time, |track| starts[track]);
                    self.wedges[*w].insert(time, if spec.max { !key } else { key });
                }
                for e in &input.life_extrema {
                    widen(&mut self.life[*e], key);
                    if layout.keep_dense.is_none() {
                        widen(&mut self.base[*e], key);
                    }
                }
            }
        }
    }

    /// Moves the head on and absorbs what waited for it.
    #[inline(always)]
    pub(super) fn advance<S: Shape>(&mut self, layout: &Layout, pool: &mut Slab, head: i64) {
        if head <= self.head {
            return;
        }
        self.head = head;
        while self.waiting < self.queue.end && self.queue.time(layout, pool, self.waiting) <= head {
            let entry = self.queue.get(layout, pool, self.waiting);
            self.waiting += 1;
            self.absorb::<S>(layout, entry);
        }
        if layout.keep_dense.is_none() && self.queue.first < self.waiting {
            self.queue.drop_to(pool, self.waiting);
        }
    }

    /// Absorbs the rows before number `waiting`, as of a later head with these bounds.
    pub(super) fn catch_up(&mut self, layout: &Layout, pool: &Slab, waiting: u64, head: i64, bounds: &[i64]) {
        while self.waiting < waiting {
            let entry = self.queue.get(layout, pool, self.waiting);
            self.waiting += 1;
            self.absorb::<Any>(layout, entry);
        }
        self.head = head;
        self.leave::<Any>(layout, pool, bounds);
        for (spec, wedge) in layout.wedges.iter().zip(self.wedges.iter_mut()) {
            wedge.expire(head.saturating_sub(layout.slack).saturating_sub(spec.reach));
        }
    }

    /// Moves the windows' first rows on to the bounds of the head.
    #[inline(always)]
    pub(super) fn leave<S: Shape>(&mut self, layout: &Layout, pool: &Slab, bounds: &[i64]) {
        for (i, w) in layout.exact.iter().enumerate() {
            let window = &layout.windows[*w];
            if window.width.is_none() {
                continue;
            }
            let bound = bounds[*w];
            let mut cursor = self.inside[i];
            let from = cursor.at;
            while cursor.at < self.waiting {
                let entry = self.queue.read::<S>(layout, pool, &mut cursor);
                if entry[0] as i64 > bound {
                    break;
                }
                // After a long pause all rows may be gone: then there is no need to take them out one by one.
                if cursor.at == from + 8 && self.queue.time(layout, pool, self.waiting - 1) <= bound {
                    window.pairs.iter().for_each(|p| self.sums[*p] = Accumulator::ZERO);
                    cursor.set(self.waiting);
                    break;
                }
                for p in &window.pairs {
                    let pair = layout.pairs[*p];
                    let term = term::<S>(layout, &layout.inputs[pair.input], entry, pair.level);
                    remove::<S>(&mut self.sums[*p], pair.level, term);
                }
                cursor.step::<S>(layout);
            }
            self.inside[i] = cursor;
        }
        for (track, tiles) in layout.tracks.iter().zip(&mut self.tiles) {
            tiles.leave(layout, track, bounds, &mut self.sums);
        }
    }

    /// Lets go of rows, tiles and extrema that no question from the head on can need. The windows must have moved on.
    #[inline(always)]
    pub(super) fn evict(&mut self, layout: &Layout, pool: &mut Slab, release: impl FnMut(&[u64])) {
        for (spec, wedge) in layout.wedges.iter().zip(self.wedges.iter_mut()) {
            wedge.expire(self.head.saturating_sub(layout.slack).saturating_sub(spec.reach));
        }
        for (track, tiles) in layout.tracks.iter().zip(&mut self.tiles) {
            tiles.evict(track, self.head.saturating_sub(layout.slack).saturating_sub(track.reach));
        }
        let Some(keep) = layout.keep_dense else { return };
        if layout.plain {
            return self.forget_rows(layout, pool);
        }
        self.evict_slowly(layout, pool, self.head.saturating_sub(keep), release);
    }

    /// Lets go of the rows that every window has left: in order and of trailing windows only, they have left for good.
    #[inline(always)]
    pub(super) fn forget_rows(&mut self, layout: &Layout, pool: &mut Slab) {
        debug_assert!(layout.plain);
        let first = self.inside.iter().map(|c| c.at).min().unwrap_or(self.waiting);
        if first >> CHUNK_LOG2 != self.queue.first >> CHUNK_LOG2 && !self.held {
            self.queue.drop_to(pool, first);
        }
    }

    fn evict_slowly(&mut self, layout: &Layout, pool: &mut Slab, cutoff: i64, mut release: impl FnMut(&[u64])) {
        if self.held {
            return;
        }
        let settled = self.head.saturating_sub(layout.slack);
        let trailing = |i: usize| layout.windows[layout.exact[i]].width.is_some();
        while self.queue.first < self.waiting {
            let first = self.queue.first;
            // As a rule a window has it, and it need not be looked at: it is far from what is in the cache.
            if self.inside.iter().enumerate().any(|(i, inside)| inside.at <= first && trailing(i)) {
                return;
            }
            let entry = self.queue.get(layout, pool, first);
            if entry[0] as i64 > cutoff
                || (layout.keep_last
                    && (first + 1 == self.waiting || self.queue.time(layout, pool, first + 1) > settled))
            {
                return;
            }
            for (e, base) in layout.life_extrema.iter().zip(&mut self.base) {
                if let Some(key) = sort_key::<Any>(layout, &layout.inputs[layout.extrema[*e].input], entry) {
                    widen(base, key);
                }
            }
            if layout.texts {
                release(entry);
            }
            self.queue.drop_to(pool, first + 1);
        }
    }

    /// Answers for the windows that end at the head, to whose bounds the windows have moved.
    #[inline(always)]
    pub(super) fn answer(&self, layout: &Layout, pool: &Slab, bounds: &[i64], out: &mut Raw<'_>) {
        for (i, w) in layout.exact.iter().enumerate() {
            let window = &layout.windows[*w];
            out.rows[*w] = if window.width.is_some() { self.waiting - self.inside[i].at } else { self.absorbed };
            for l in &window.lasts {
                out.lasts[*l] = self.last(layout, pool, self.waiting, layout.lasts[*l].1, bounds[*w]);
            }
        }
        for (track, tiles) in layout.tracks.iter().zip(&self.tiles) {
            for (w, (_, rows)) in track.windows.iter().zip(tiles.inside.iter()) {
                out.rows[*w] = *rows;
            }
        }
        out.sums.copy_from_slice(&self.sums);
        self.answer_extrema(layout, bounds, out);
    }

    #[inline(always)]
    pub(super) fn answer_extrema(&self, layout: &Layout, bounds: &[i64], out: &mut Raw<'_>) {
        for (e, out) in layout.extrema.iter().zip(&mut *out.extrema) {
            if let Some(life) = e.life {
                *out = self.life[life];
                continue;
            }
            let found = |wedge: Option<usize>| wedge.and_then(|w| self.wedges[w].after(bounds[e.window]));
            *out = (found(e.min).map_or(i64::MAX, |f| f.1), found(e.max).map_or(i64::MIN, |f| !f.1));
        }
    }

    pub(super) fn last(&self, layout: &Layout, pool: &Slab, end: u64, input: usize, bound: i64) -> (u64, u8) {
        if end == self.queue.first {
            return (0, 0);
        }
        let entry = self.queue.get(layout, pool, end - 1);
        if entry[0] as i64 > bound { last_of(layout, &layout.inputs[input], entry) } else { (0, 0) }
    }

    /// Gives a row new inputs; `false` when the row is not there any more.
    pub(super) fn revise(
        &mut self,
        layout: &Layout,
        pool: &mut Slab,
        entry: &[u64],
        mut release: impl FnMut(&[u64]),
    ) -> bool {
        let ord = layout.ord.map_or(0, |o| entry[o]);
        let at = self.queue.search(layout, pool, entry[0] as i64, ord);
        if at == self.queue.end {
            return false;
        }
        let old = self.queue.get(layout, pool, at).to_vec();
        if old[0] != entry[0] || layout.ord.is_some_and(|o| old[o] != ord) {
            return false;
        }
        if layout.texts {
            release(&old);
        }
        self.queue.put(layout, pool, at, entry);
        self.written = self.written.min(at);
        if at >= self.waiting {
            return true;
        }
        for (i, w) in layout.exact.iter().enumerate() {
            let window = &layout.windows[*w];
            if window.width.is_some() && at < self.inside[i].at {
                continue;
            }
            for p in &window.pairs {
                let pair = layout.pairs[*p];
                let input = &layout.inputs[pair.input];
                remove::<Any>(&mut self.sums[*p], pair.level, term::<Any>(layout, input, &old, pair.level));
                add::<Any>(&mut self.sums[*p], pair.level, term::<Any>(layout, input, entry, pair.level));
            }
        }
        let time = entry[0] as i64;
        for (w, spec) in layout.wedges.iter().enumerate() {
            let input = &layout.inputs[spec.input];
            let key = |e: &[u64]| sort_key::<Any>(layout, input, e).map(|key| if spec.max { !key } else { key });
            let (before, after) = (key(&old), key(entry));
            if before == after {
                continue;
            }
            if before.is_some_and(|key| self.wedges[w].contains(time, key)) {
                self.wedges[w].clear();
                for at in self.queue.first..self.waiting {
                    let entry = self.queue.get(layout, pool, at);
                    if let Some(value) = key(entry) {
                        self.wedges[w].push(entry[0] as i64, value);
                    }
                }
            } else if let Some(value) = after {
                self.wedges[w].insert(time, value);
            }
        }
        for (i, e) in layout.life_extrema.iter().enumerate() {
            self.life[i] = self.base[i];
            let input = &layout.inputs[layout.extrema[*e].input];
            for at in self.queue.first..self.waiting {
                if let Some(key) = sort_key::<Any>(layout, input, self.queue.get(layout, pool, at)) {
                    widen(&mut self.life[i], key);
                }
            }
        }
        true
    }

    /// The next head after `head` at which an answer changes by itself.
    pub(super) fn next_change(&self, layout: &Layout, pool: &Slab, head: i64, bounds: &[i64]) -> i64 {
        let queue = &self.queue;
        let mut next = i64::MAX;
        let time = |at: u64| queue.time(layout, pool, at);
        let after = |bound: i64| {
            let (mut low, mut high) = (queue.first, queue.end);
            while low < high {
                let middle = low + (high - low) / 2;
                if time(middle) <= bound { low = middle + 1 } else { high = middle }
            }
            low
        };
        let waiting = after(head);
        if waiting < queue.end {
            next = next.min(time(waiting));
        }
        for w in &layout.exact {
            let first = after(bounds[*w]);
            if first < waiting {
                next = next.min(layout.windows[*w].leaves(time(first)));
            }
        }
        for (track, tiles) in layout.tracks.iter().zip(&self.tiles) {
            for w in &track.windows {
                let first = tiles.heads.partition_point(|h| h.0 <= bounds[*w]);
                if let Some(tile) = tiles.heads.get(first) {
                    next = next.min(layout.windows[*w].leaves(tile.0));
                }
                // Rows that the head has not met are in no tile yet.
                let first = after(bounds[*w]).max(self.waiting);
                if first < waiting {
                    next = next.min(layout.windows[*w].leaves(time(first)));
                }
            }
        }
        next
    }
}

impl Dense {
    /// Number of the first row that is still needed: without lifetime sums, rows before every window are not.
    pub(super) fn first_needed(&self, layout: &Layout) -> u64 {
        let inside = self.inside.iter().map(|c| c.at).min().filter(|_| layout.plain);
        inside.unwrap_or(self.queue.first).max(self.queue.first)
    }

    /// Rows still needed.
    pub(super) fn rows_needed(&self, layout: &Layout) -> usize {
        (self.queue.end - self.first_needed(layout)) as usize
    }

    /// Lifetime sums of the rows that the queue no longer holds.
    pub(super) fn base_sums(&self, layout: &Layout, pool: &Slab) -> Vec<Accumulator> {
        layout
            .life_pairs
            .iter()
            .map(|p| {
                let pair = layout.pairs[*p];
                let mut sums = self.sums[*p];
                for at in self.queue.first..self.waiting {
                    let entry = self.queue.get(layout, pool, at);
                    remove::<Any>(
                        &mut sums,
                        pair.level,
                        term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level),
                    );
                }
                sums
            })
            .collect()
    }

    /// Asks for the record itself.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        let at = std::ptr::from_ref(self).cast::<u8>();
        for line in 0..std::mem::offset_of!(Dense, dirty).div_ceil(64) {
            prefetch(at.wrapping_add(line * 64));
        }
    }

    /// Asks for what the next row will touch: the queue's end, each window's first rows, the ends of wedges and tiles.
    #[inline(always)]
    pub(super) fn prefetch_inside(&self) {
        self.queue.prefetch();
        self.inside.iter().for_each(Cursor::prefetch);
        for wedge in self.wedges.iter() {
            wedge.prefetch();
        }
        for tiles in &self.tiles {
            tiles.prefetch();
        }
    }
}

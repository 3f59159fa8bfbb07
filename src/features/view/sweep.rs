//! Dropping keys with nothing left, and shrinking those with little, a few records per call.

use super::index::Handle;
use super::small::{self, FREE};
use super::state::{Bounds, ViewState, release};
use super::value::Any;
use crate::base::EventTime;

/// Records looked at per call at most, so that no call stalls.
const RECORDS_MAX: usize = 4096;
/// A dense record with no more rows than this becomes compact again.
const THIN: usize = 12;

/// How far the sweep has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    /// Class (one past the compact ones is the dense), and block.
    class: usize,
    block: u32,
    /// Watermark of the last call.
    last: Option<EventTime>,
    /// Records owed, in fractions of a record.
    owed: f64,
}

impl Sweep {
    /// Watermark of the last call.
    pub(super) fn watermark(&self) -> Option<EventTime> {
        self.last
    }
}

impl ViewState {
    /// Tells that no row or question before `watermark` will come, and sweeps a part of the keys: all of them about twice
    /// in the span of the widest window. Answers do not depend on it.
    pub fn advance(&mut self, watermark: EventTime) {
        let span = (self.layout.keep.saturating_add(self.layout.delay)).max(1) as f64;
        let step = self.sweep.last.map_or(0, |last| watermark.saturating_sub(last).max(0));
        self.sweep.last = Some(self.sweep.last.map_or(watermark, |last| last.max(watermark)));
        let blocks = self.small.iter().map(|s| s.blocks() as usize).sum::<usize>() + self.dense.len();
        self.sweep.owed = (self.sweep.owed + 2.0 * blocks as f64 * step as f64 / span).min(blocks as f64);
        let budget = (self.sweep.owed as usize).min(RECORDS_MAX);
        self.sweep.owed -= budget as f64;
        self.sweep_records(watermark, budget);
        self.texts.settle();
    }

    fn sweep_records(&mut self, watermark: EventTime, budget: usize) {
        let head = watermark.saturating_sub(self.layout.delay);
        let mut bounds = Bounds::new(&self.layout);
        bounds.set(&self.layout, head);
        // Keys to drop are first gathered, so that their places in the index are asked for all at once.
        let mut drops = Vec::new();
        for _ in 0..budget {
            let Sweep { class, block, .. } = self.sweep;
            let end = self.small.get(class).map_or(self.dense.len() as u32, |s| s.blocks());
            if block >= end {
                self.sweep.class = if class < self.small.len() { class + 1 } else { 0 };
                self.sweep.block = 0;
                continue;
            }
            self.sweep.block += 1;
            if class < self.small.len() {
                if self.sweep_small(class, block, head) {
                    let key = self.small[class].get(block)[0];
                    let hash = self.hash_of(key);
                    self.index.prefetch(hash);
                    drops.push((class, block, key, hash));
                }
            } else {
                self.sweep_dense(block, head, &bounds);
            }
        }
        for (class, block, key, hash) in drops {
            self.drop_small(class, block, key, hash);
        }
    }

    /// Lets go of a compact record's old rows; whether nothing is left.
    #[inline(always)]
    fn sweep_small(&mut self, class: usize, block: u32, head: i64) -> bool {
        let Self { layout, small, .. } = self;
        let record = small[class].get(block);
        if record[1] == FREE {
            return false;
        }
        let count = small::count(record);
        let cutoff = head.saturating_sub(layout.keep);
        let time = |row: usize| record[layout.entries_at + row * layout.stride] as i64;
        if count > 0 && time(if class == 0 { count - 1 } else { 0 }) > cutoff {
            return false;
        }
        self.shrink_small(class, block, head)
    }

    #[inline(never)]
    fn shrink_small(&mut self, class: usize, block: u32, head: i64) -> bool {
        self.keep(Self::handle(Some(class), block));
        let Self { layout, small, texts, .. } = self;
        let record = small[class].get_mut(block);
        // Only rows from the watermark on may still come, and with them heads from here on.
        let gone = small::expired(layout, record, head);
        small::drop_front(layout, record, gone, |entry| release(layout, texts, entry));
        let count = small::count(record);
        let idle = !layout.refresh || (record[1] & small::DIRTY == 0 && record[2] as i64 == i64::MAX);
        let key = record[0];
        if count == 0 && !layout.forever && idle {
            return true;
        }
        if class > 0 && gone > 0 && count * 2 <= small::capacity(layout, 8 * small[class - 1].lines()) {
            let handle = Self::handle(Some(class), block);
            let new = self.resize(handle, class as u32 - 1);
            let hash = self.hash_of(key);
            self.index.replace(hash, handle, new);
        }
        false
    }

    fn drop_small(&mut self, class: usize, block: u32, key: u64, hash: u64) {
        let handle = Self::handle(Some(class), block);
        self.note_gone(handle, key, hash);
        self.index.remove(hash, handle);
        self.small[class].get_mut(block)[1] = FREE;
        self.small[class].release(block);
        if !self.words {
            self.names.release(key);
        }
    }

    fn sweep_dense(&mut self, block: u32, head: i64, bounds: &Bounds) {
        let handle = Self::handle(None, block);
        self.keep(handle);
        let Self { layout, dense, chunks, texts, .. } = self;
        let Some(record) = &mut dense[block as usize] else {
            return;
        };
        // A later sweep comes by when its rows may go.
        if record.held {
            return;
        }
        let held = layout.of(record);
        if head > record.head {
            record.advance::<Any>(held, chunks, head);
            record.leave::<Any>(held, chunks, &bounds.list);
            record.evict(held, chunks, |entry| release(held, texts, entry));
        }
        let (key, rows) = (record.key, record.rows_needed(held));
        let tiled = !held.tracks.is_empty();
        let idle = !layout.refresh || (!record.dirty && record.due == i64::MAX);
        let tiles = record.tiles.iter().any(|t| !t.heads.is_empty());
        if rows == 0 && !tiles && !layout.forever && idle {
            record.queue.clear(chunks);
            let hash = self.hash_of(key);
            self.note_gone(handle, key, hash);
            self.dense[block as usize] = None;
            self.dense_free.push(block);
            self.index.remove(hash, handle);
            if !self.words {
                self.names.release(key);
            }
        } else if !tiled && rows <= THIN {
            self.thin(block, handle);
        }
    }

    /// Makes a dense record compact.
    fn thin(&mut self, block: u32, handle: Handle) {
        let Self { layout, small, dense, chunks, .. } = self;
        let Some(mut record) = dense[block as usize].take() else {
            return;
        };
        self.dense_free.push(block);
        let from = record.first_needed(layout.of(&record));
        let rows = (record.queue.end - from) as usize;
        let class = small
            .iter()
            .position(|s| small::capacity(layout, 8 * s.lines()) >= (rows + 1).max(2))
            .unwrap_or(small.len() - 1);
        let new = small[class].alloc();
        let words = small[class].get_mut(new);
        small::init(layout, words, record.key);
        small::set_stamp(words, record.stamp);
        if record.dirty {
            words[1] |= small::DIRTY;
        }
        if layout.refresh {
            words[2] = record.due as u64;
        }
        if layout.forever {
            // The base holds what the queue does not: all absorbed rows less those still queued.
            let queued = record.waiting - record.queue.first;
            small::set_base_rows(layout, words, record.absorbed - queued);
            for (i, sums) in record.base_sums(layout.of(&record), chunks).into_iter().enumerate() {
                small::set_base_sums(layout, words, i, sums);
            }
            for (i, extrema) in record.base.iter().enumerate() {
                small::set_base_extrema(layout, words, i, *extrema);
            }
        }
        for at in from..record.queue.end {
            small::insert::<Any>(layout, words, record.queue.get(layout, chunks, at));
        }
        record.queue.clear(chunks);
        let hash = self.hash_of(record.key);
        self.index.replace(hash, handle, Self::handle(Some(class), new));
    }
}

//! A view over its spine's own stream: each row changes its key's record and asks it, rows ahead are asked of memory.

use super::columns::Answers;
use super::index::Handle;
use super::keys::{Key, Keys};
use super::small::{self, FREE};
use super::state::{BLOCK_MASK, CLASS_SHIFT, DENSE, ViewState, ask};
use super::value::Shape;

/// Rows between asking for a key's bucket and using its record.
pub(super) const AHEAD_BUCKET: usize = 40;
/// Rows between asking for a key's record and using it.
pub(super) const AHEAD_RECORD: usize = 20;
/// Rows between asking for what a busy key's record points to and using it.
pub(super) const AHEAD_INSIDE: usize = 8;
/// Handles remembered between asking for a record and using it; a power of two.
pub(super) const AHEAD_RING: usize = 32;
pub(super) const NO_HANDLE: Handle = Handle::MAX;

impl ViewState {
    /// Feeds the rows of a batch and gathers their answers.
    pub(super) fn run_own<S: Shape>(&mut self, times: &[i64], keys: &Keys, entries: &[u64], answers: &mut Answers) {
        let stride = S::stride(&self.layout);
        let insert_first = self.layout.include_current || self.layout.delay > 0;
        // Handles found when asking ahead; they may be out of date by the time of use.
        let mut ahead = [NO_HANDLE; AHEAD_RING];
        for (row, time) in times.iter().enumerate() {
            if let Some(hash) = keys.hashes.get(row + AHEAD_BUCKET) {
                self.index.prefetch(*hash);
            }
            if let Some(hash) = keys.hashes.get(row + AHEAD_RECORD) {
                ahead[(row + AHEAD_RECORD) % AHEAD_RING] = self.prefetch_record(*hash);
            }
            self.prefetch_inside(ahead[(row + AHEAD_INSIDE) % AHEAD_RING]);
            let entry = &entries[row * stride..(row + 1) * stride];
            if keys.is_none(row) {
                answers.row(&self.layout).clear();
                answers.done(&self.layout, &self.texts);
                self.release_texts(entry);
                continue;
            }
            let (key, hash) = (keys.get(row), keys.hashes[row]);
            let head = time.saturating_sub(self.layout.delay);
            let guess = ahead[row % AHEAD_RING];
            let mut handle = if self.is_current(guess, key) { guess } else { self.find_or_make(key, hash) };
            self.bounds.set(&self.layout, head);
            if S::KIND.is_some()
                && handle >> CLASS_SHIFT == DENSE
                && let Some(dense) = &mut self.dense[(handle & BLOCK_MASK) as usize]
                && dense.steps(&self.layout, *time)
            {
                if self.layout.refresh {
                    dense.mark(&mut self.refresh);
                }
                let mut raw = answers.row(&self.layout);
                dense.step::<S>(&self.layout, &mut self.chunks, entry, &self.bounds.list, &mut raw);
                answers.done(&self.layout, &self.texts);
                continue;
            }
            if insert_first {
                handle = self.insert_at::<S>(hash, handle, entry, head);
            }
            let Self { layout, small, dense, chunks, texts, scan, bounds, .. } = self;
            let mut raw = answers.row(layout);
            let class = handle >> CLASS_SHIFT;
            if class != DENSE {
                let record = small[class as usize].get(handle & BLOCK_MASK);
                small::query::<S>(layout, record, head, &bounds.list, scan, &mut raw);
            } else if let Some(dense) = &mut dense[(handle & BLOCK_MASK) as usize] {
                ask::<S>(layout, dense, chunks, texts, head, &bounds.list, &mut raw);
            }
            answers.done(&self.layout, &self.texts);
            if !insert_first {
                self.insert_at::<S>(hash, handle, entry, head);
            }
        }
    }

    /// Whether a handle found some rows ago still is this key's.
    #[inline(always)]
    fn is_current(&self, handle: Handle, key: Key<'_>) -> bool {
        if handle == NO_HANDLE {
            return false;
        }
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let there = if class != DENSE {
            self.small[class as usize].get(block)[1] != FREE
        } else {
            self.dense[block as usize].is_some()
        };
        there && self.is_key(handle, key)
    }

    /// Asks for a key's record; returns its handle, if a look at the index alone tells.
    #[inline(always)]
    pub(super) fn prefetch_record(&self, hash: u64) -> Handle {
        let Some(handle) = self.index.guess(hash) else {
            return NO_HANDLE;
        };
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        if class != DENSE {
            self.small[class as usize].prefetch(block, 1 << class.min(2));
        } else if let Some(dense) = &self.dense[block as usize] {
            dense.prefetch();
        }
        handle
    }

    /// Asks for what a busy key's record points to.
    #[inline(always)]
    fn prefetch_inside(&self, handle: Handle) {
        if handle != NO_HANDLE
            && handle >> CLASS_SHIFT == DENSE
            && let Some(dense) = &self.dense[(handle & BLOCK_MASK) as usize]
        {
            dense.prefetch_inside();
        }
    }
}

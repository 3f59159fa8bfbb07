//! A view over its spine's own stream: each row changes its key's record and asks it, rows ahead are asked of memory.

use super::columns::Answers;
use super::index::Handle;
use super::keys::{Key, Keys};
use super::lane::Lanes;
use super::paired::Pairs;
use super::small::{self, FREE};
use super::state::{BLOCK_MASK, CLASS_SHIFT, DENSE, ViewState, ask};
use super::value::Shape;

/// Rows of a turn.
const ROWS: usize = 16;
/// Rows between asking for a key's bucket and using its record.
pub(super) const AHEAD_BUCKET: usize = 64;
/// Rows between asking for a key's record and using it.
pub(super) const AHEAD_RECORD: usize = 32;
/// Rows between asking for what a busy key's record points to and using it.
const AHEAD_INSIDE: usize = 16;
/// Handles remembered between asking for a record and using it; a power of two.
const AHEAD_RING: usize = 64;
const NO_HANDLE: Handle = Handle::MAX;

impl ViewState {
    /// Feeds the rows of a batch and gathers their answers, a few rows at a time: memory is asked for what later rows will
    /// touch in loops of their own. `W` is the number of windows of a paired layout, and 0 of others.
    pub(super) fn run_own<S: Shape, const W: usize>(
        &mut self,
        times: &[i64],
        keys: &Keys,
        entries: &[u64],
        answers: &mut Answers,
    ) {
        let pairs = Pairs::<W>::of(self.layout.rows());
        let mut lanes = Lanes::<W>::new();
        self.batch = self.batch.wrapping_add(1);
        // Handles found when asking ahead; they may be out of date by the time of use.
        let mut ahead = [NO_HANDLE; AHEAD_RING];
        let hashes = &keys.hashes[..];
        let part = |from: usize, rows: usize| from.min(hashes.len())..(from + rows).min(hashes.len());
        hashes[part(0, AHEAD_BUCKET)].iter().for_each(|hash| self.index.prefetch(*hash));
        for row in part(0, AHEAD_RECORD) {
            ahead[row % AHEAD_RING] = self.prefetch_record(hashes[row]);
        }
        for first in (0..hashes.len()).step_by(ROWS) {
            hashes[part(first + AHEAD_BUCKET, ROWS)].iter().for_each(|hash| self.index.prefetch(*hash));
            for row in part(first + AHEAD_RECORD, ROWS) {
                ahead[row % AHEAD_RING] = self.prefetch_record(hashes[row]);
            }
            for row in part(first + AHEAD_INSIDE, ROWS) {
                self.prefetch_inside(ahead[row % AHEAD_RING], &lanes);
            }
            for row in part(first, ROWS) {
                let guess = ahead[row % AHEAD_RING];
                self.own_row::<S, W>(pairs.as_ref(), &mut lanes, row, guess, times[row], keys, entries, answers);
            }
        }
        lanes.close_all(&self.layout, &mut self.dense);
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments)]
    fn own_row<S: Shape, const W: usize>(
        &mut self,
        pairs: Option<&Pairs<W>>,
        lanes: &mut Lanes<W>,
        row: usize,
        guess: Handle,
        time: i64,
        keys: &Keys,
        entries: &[u64],
        answers: &mut Answers,
    ) {
        let stride = S::stride(&self.layout);
        let insert_first = self.layout.include_current || self.layout.delay > 0;
        let entry = &entries[row * stride..(row + 1) * stride];
        if keys.is_none(row) {
            answers.row(&self.layout).clear();
            answers.done(&self.layout, &self.texts);
            self.release_texts(entry);
            return;
        }
        let (key, hash) = (keys.get(row), keys.hashes[row]);
        let head = time.saturating_sub(self.layout.delay);
        let mut handle = if self.is_current(guess, key) { guess } else { self.find_or_make(key, hash) };
        self.touch(handle, hash);
        if W > 0
            && let Some(pairs) = pairs
        {
            return self.pairs_row::<S, W>(pairs, lanes, row, (handle, time), keys, entries, answers);
        }
        self.bounds.set(&self.layout, head);
        if S::KIND.is_some()
            && handle >> CLASS_SHIFT == DENSE
            && let block = handle & BLOCK_MASK
            && let Some(dense) = &mut self.dense[block as usize]
            && let held = self.layout.of(dense)
            && dense.steps(held, time)
        {
            if self.layout.refresh {
                dense.mark(&mut self.refresh);
            }
            let mut raw = answers.row(&self.layout);
            dense.step::<S>(held, &mut self.chunks, entry, &self.bounds.list, &mut raw);
            if dense.outgrows_rows() {
                self.tile(block, hash);
            }
            answers.done(&self.layout, &self.texts);
            return;
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
        self.prefetch_handle(handle);
        handle
    }

    /// Asks for a record.
    #[inline(always)]
    pub(super) fn prefetch_handle(&self, handle: Handle) {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        if class != DENSE {
            self.small[class as usize].prefetch(block, 1 << class.min(3));
        } else if let Some(dense) = &self.dense[block as usize] {
            dense.prefetch();
        }
    }

    /// Asks for what a busy key's record points to.
    #[inline(always)]
    fn prefetch_inside<const W: usize>(&self, handle: Handle, lanes: &Lanes<W>) {
        if handle != NO_HANDLE
            && handle >> CLASS_SHIFT == DENSE
            && let Some(dense) = &self.dense[(handle & BLOCK_MASK) as usize]
        {
            if dense.lane != 0 { lanes.prefetch(dense) } else { dense.prefetch_inside() }
        }
    }
}

//! A view over its spine's own stream: each row changes its key's record and asks it, rows ahead are asked of memory.

use std::ops::Range;

use super::columns::{Answers, BLOCK};
use super::index::Handle;
use super::keys::{Key, Keys};
use super::lane::Lanes;
use super::paired::Pairs;
use super::small::{self, FREE};
use super::state::{BLOCK_MASK, CLASS_SHIFT, DENSE, ViewState, ask};
use super::value::Shape;

/// Rows of a turn; turns do not straddle blocks of answers.
const ROWS: usize = 16;
const _: () = assert!(BLOCK.is_multiple_of(ROWS));
/// Rows between asking for a key's bucket and using its record.
pub(super) const AHEAD_BUCKET: usize = 64;
/// Rows between asking for a key's record and using it. What it points to is asked for a turn later, a turn before it is used.
pub(super) const AHEAD_RECORD: usize = 2 * ROWS;
/// Handles remembered between asking for a record and using it; a power of two.
const AHEAD_RING: usize = 64;
const NO_HANDLE: Handle = Handle::MAX;

/// The rows of a turn by what their keys' records are.
///
/// A row then mostly goes the way of the row before it, which the processor guesses rightly. Rows of one key stay in their
/// order: their records were asked for together, so they are of one kind. Between keys any order gives the same answers.
#[derive(Default)]
struct Turn {
    laned: List,
    busy: List,
    other: List,
}

/// Some rows of a turn.
#[derive(Default)]
struct List {
    rows: [u8; ROWS],
    len: usize,
}

impl List {
    /// Adds a row if it belongs here, without a branch.
    #[inline(always)]
    fn add(&mut self, row: usize, belongs: bool) {
        self.rows[self.len % ROWS] = row as u8;
        self.len += usize::from(belongs);
    }

    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.rows[..self.len].iter().map(|row| usize::from(*row))
    }
}

impl Turn {
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.laned.rows().chain(self.busy.rows()).chain(self.other.rows())
    }
}

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
        let mut next = self.turn(part(0, ROWS), &ahead, &lanes);
        for first in (0..hashes.len()).step_by(ROWS) {
            hashes[part(first + AHEAD_BUCKET, ROWS)].iter().for_each(|hash| self.index.prefetch(*hash));
            for row in part(first + AHEAD_RECORD, ROWS) {
                ahead[row % AHEAD_RING] = self.prefetch_record(hashes[row]);
            }
            let turn = std::mem::replace(&mut next, self.turn(part(first + ROWS, ROWS), &ahead, &lanes));
            for row in turn.rows() {
                let row = first + row;
                let guess = ahead[row % AHEAD_RING];
                answers.at(row);
                self.own_row::<S, W>(pairs.as_ref(), &mut lanes, row, guess, times[row], keys, entries, answers);
            }
            answers.through(part(first, ROWS).end - 1, &self.layout, &self.texts);
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

    /// Sorts the rows of a turn, and asks for what busy keys' records point to.
    #[inline(always)]
    fn turn<const W: usize>(&self, rows: Range<usize>, ahead: &[Handle; AHEAD_RING], lanes: &Lanes<W>) -> Turn {
        let handle = |at: usize| ahead[(rows.start + at) % AHEAD_RING];
        let record = |at: usize| self.dense[(handle(at) & BLOCK_MASK) as usize].as_ref();
        let (mut turn, mut dense) = (Turn::default(), List::default());
        for at in 0..rows.len() {
            let is_dense = (handle(at) != NO_HANDLE) & (handle(at) >> CLASS_SHIFT == DENSE);
            dense.add(at, is_dense);
            turn.other.add(at, !is_dense);
        }
        for at in dense.rows() {
            let laned = record(at).is_some_and(|dense| dense.lane != 0);
            turn.laned.add(at, laned);
            turn.busy.add(at, !laned);
        }
        turn.laned.rows().filter_map(record).for_each(|dense| lanes.prefetch(dense));
        turn.busy.rows().filter_map(record).for_each(|dense| dense.prefetch_inside());
        turn
    }
}

//! Fixed-size blocks of words in segments that never move, so that growth costs one small allocation at a time.

use std::ptr::NonNull;

use crate::base::{Large, LargeVec, prefetch};

/// Eight words on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// log2 of the bytes of a segment.
const SEGMENT_BYTES_LOG2: u32 = 17;

/// A pool of blocks, all of one size, each a whole number of cache lines.
pub(super) struct Slab {
    /// Words of a block, a multiple of 8.
    words: usize,
    /// log2 of the blocks in a segment.
    shift: u32,
    /// Of lists of one length and capacity; taken apart on drop.
    segments: Vec<NonNull<Line>>,
    free: Vec<u32>,
    next: u32,
}

// SAFETY: the segments are plain words that the pool alone owns.
unsafe impl Send for Slab {}
// SAFETY: as above; changing them needs a unique borrow.
unsafe impl Sync for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        let lines = self.segment_lines();
        for segment in self.segments.drain(..) {
            // SAFETY: it came from a list of this length and capacity.
            drop(unsafe { LargeVec::from_raw_parts_in(segment.as_ptr(), lines, lines, Large) });
        }
    }
}

impl Slab {
    /// A pool of blocks of at least `words` words.
    pub(super) fn new(words: usize) -> Self {
        let words = words.next_multiple_of(8);
        let shift = SEGMENT_BYTES_LOG2.saturating_sub((words * 8).next_power_of_two().trailing_zeros());
        Slab { words, shift, segments: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// A block; its words are what they were.
    pub(super) fn alloc(&mut self) -> u32 {
        if let Some(id) = self.free.pop() {
            return id;
        }
        let id = self.next;
        if (id >> self.shift) as usize == self.segments.len() {
            let lines = self.segment_lines();
            let mut segment = LargeVec::with_capacity_in(lines, Large);
            segment.resize(lines, Line([0; 8]));
            let (segment, _, capacity, _) = segment.into_raw_parts_with_alloc();
            debug_assert_eq!(capacity, lines);
            self.segments.extend(NonNull::new(segment));
        }
        self.next += 1;
        id
    }

    fn segment_lines(&self) -> usize {
        (self.words / 8) << self.shift
    }

    /// Takes a block back.
    pub(super) fn release(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Number of blocks ever made; ids are below it.
    pub(super) fn blocks(&self) -> u32 {
        self.next
    }

    /// Cache lines of a block.
    pub(super) fn lines(&self) -> usize {
        self.words / 8
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        (self.segments.len() << self.shift) * self.words * 8
    }

    /// Bytes of the blocks in use.
    pub(super) fn bytes_used(&self) -> usize {
        (self.next as usize - self.free.len()) * self.words * 8
    }

    /// The first word of a block. It stays where it is until the pool is dropped.
    #[inline(always)]
    pub(super) fn at(&self, id: u32) -> NonNull<u64> {
        let line = (id & ((1 << self.shift) - 1)) as usize * (self.words / 8);
        let segment = self.segments[(id >> self.shift) as usize];
        // SAFETY: a segment holds `1 << shift` blocks of `words` words.
        unsafe { segment.add(line) }.cast()
    }

    /// A block's words.
    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> &[u64] {
        // SAFETY: a `Line` is eight words without padding, so a block is `words` words; nobody else can change them while
        // the pool is borrowed.
        unsafe { std::slice::from_raw_parts(self.at(id).as_ptr(), self.words) }
    }

    /// A block's words.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut [u64] {
        // SAFETY: as in `get`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.at(id).as_ptr(), self.words) }
    }

    /// Asks for a block's first `lines` cache lines.
    #[inline(always)]
    pub(super) fn prefetch(&self, id: u32, lines: usize) {
        let at = self.at(id).as_ptr();
        (0..lines).for_each(|line| prefetch(at.wrapping_add(8 * line)));
    }
}

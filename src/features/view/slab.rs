//! Fixed-size blocks of words in segments that never move, so that growth costs one small allocation at a time.

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
    segments: Vec<Box<[Line]>>,
    free: Vec<u32>,
    next: u32,
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
            let lines = (self.words / 8) << self.shift;
            self.segments.push(vec![Line([0; 8]); lines].into_boxed_slice());
        }
        self.next += 1;
        id
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

    #[inline(always)]
    fn place(&self, id: u32) -> (usize, usize) {
        ((id >> self.shift) as usize, (id & ((1 << self.shift) - 1)) as usize * (self.words / 8))
    }

    /// A block's words.
    #[inline(always)]
    pub(super) fn get(&self, id: u32) -> &[u64] {
        let (segment, line) = self.place(id);
        flat(&self.segments[segment][line..line + self.words / 8])
    }

    /// A block's words.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut [u64] {
        let (segment, line) = self.place(id);
        let words = self.words / 8;
        flat_mut(&mut self.segments[segment][line..line + words])
    }

    /// Asks for a block's first `lines` cache lines.
    #[inline(always)]
    pub(super) fn prefetch(&self, id: u32, lines: usize) {
        let (segment, line) = self.place(id);
        for line in &self.segments[segment][line..line + lines] {
            prefetch(line);
        }
    }
}

impl Slab {
    /// Asks for the cache line of a block's word.
    #[inline(always)]
    pub(super) fn prefetch_word(&self, id: u32, word: usize) {
        let (segment, line) = self.place(id);
        if let Some(line) = self.segments.get(segment).and_then(|s| s.get(line + word / 8)) {
            prefetch(line);
        }
    }
}

#[inline(always)]
fn flat(lines: &[Line]) -> &[u64] {
    // SAFETY: a `Line` is eight words without padding (64 bytes, aligned to 64), so the lines are `8 · len` words.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 8) }
}

#[inline(always)]
fn flat_mut(lines: &mut [Line]) -> &mut [u64] {
    // SAFETY: as in `flat`; the borrow is unique.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 8) }
}

/// Asks the processor for the cache line of a value that will be needed soon.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on any value, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

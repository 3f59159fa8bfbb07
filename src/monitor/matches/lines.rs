//! Lines of the cache, each with the places of a few rows.

use super::store::Address;
use crate::base::want_large_pages;

/// Places in a line.
pub(super) const PLACES: usize = 5;

/// A line of the cache: so many places, each behind a tag, which is not zero. Behind 0 there is none.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line {
    pub tags: [u32; PLACES],
    pub len: u32,
    pub places: [Address; PLACES],
}

impl Line {
    /// Whether it has no room left.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.tags[PLACES - 1] != 0
    }

    /// Bits of the places that are behind a tag. Without a branch: which they are is hard to foretell.
    #[inline(always)]
    pub fn behind(&self, tag: u32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: four of the five tags are read; what reads them is part of every such processor.
        let first = unsafe {
            use std::arch::x86_64::*;
            let tags = _mm_loadu_si128(self.tags.as_ptr().cast());
            let same = _mm_cmpeq_epi32(tags, _mm_set1_epi32(tag.cast_signed()));
            _mm_movemask_ps(_mm_castsi128_ps(same)).cast_unsigned()
        };
        #[cfg(not(target_arch = "x86_64"))]
        let first = (0..PLACES - 1).fold(0, |bits, place| bits | u32::from(self.tags[place] == tag) << place);
        first | u32::from(self.tags[PLACES - 1] == tag) << (PLACES - 1)
    }
}

/// So many lines without places.
pub(super) fn lines(len: usize) -> Vec<Line> {
    let mut lines = Vec::with_capacity(len);
    want_large_pages(&lines);
    lines.resize(len, Line { tags: [0; PLACES], len: 0, places: [0; PLACES] });
    lines
}

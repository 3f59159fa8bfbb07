//! A queue in one piece of memory: it grows at its end and is let go of at its front.

use std::ops::{Deref, DerefMut};

use crate::base::{Large, LargeVec};

/// Items in order; those let go of stay in front of the others until their room is needed.
#[derive(Clone, Debug)]
pub(super) struct Strip<T> {
    items: LargeVec<T>,
    first: usize,
}

impl<T> Default for Strip<T> {
    fn default() -> Self {
        Strip { items: LargeVec::new_in(Large), first: 0 }
    }
}

impl<T> Deref for Strip<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        debug_assert!(self.first <= self.items.len());
        // SAFETY: nothing lets go of more items than there are.
        unsafe { self.items.get_unchecked(self.first..) }
    }
}

impl<T> DerefMut for Strip<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        debug_assert!(self.first <= self.items.len());
        // SAFETY: as in `deref`.
        unsafe { self.items.get_unchecked_mut(self.first..) }
    }
}

impl<T: Copy> Strip<T> {
    #[inline(always)]
    pub(super) fn push(&mut self, item: T) {
        if self.items.len() == self.items.capacity() {
            self.compact();
        }
        self.items.push(item);
    }

    /// Makes room in place of the items let go of, if they are a good part.
    #[cold]
    fn compact(&mut self) {
        if self.first * 2 > self.items.len() {
            self.items.copy_within(self.first.., 0);
            self.items.truncate(self.items.len() - self.first);
            self.first = 0;
        }
    }

    /// Puts an item before the one at a place.
    pub(super) fn insert(&mut self, at: usize, item: T) {
        self.items.insert(self.first + at, item);
    }

    /// Keeps the first so many.
    #[inline(always)]
    pub(super) fn truncate(&mut self, len: usize) {
        self.items.truncate(self.first + len);
    }

    /// Takes a part out.
    pub(super) fn remove(&mut self, from: usize, to: usize) {
        self.items.drain(self.first + from..self.first + to);
    }

    /// Lets go of the first so many, of as many as there are.
    #[inline(always)]
    pub(super) fn leave(&mut self, gone: usize) {
        self.first = (self.first + gone).min(self.items.len());
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.first = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }

    /// The place after the last item, for asking memory.
    #[inline(always)]
    pub(super) fn end(&self) -> *const T {
        self.as_ptr_range().end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_queue(steps in prop::collection::vec((0u8..20, any::<u32>()), 1..300)) {
            let (mut strip, mut twin) = (Strip::default(), VecDeque::new());
            for (kind, number) in steps {
                let at = number as usize % (twin.len() + 1);
                match kind {
                    0..12 => {
                        strip.push(number);
                        twin.push_back(number);
                    }
                    12..16 => {
                        strip.leave(at);
                        twin.drain(..at);
                    }
                    16 => {
                        strip.insert(at, number);
                        twin.insert(at, number);
                    }
                    17 => {
                        strip.truncate(at);
                        twin.truncate(at);
                    }
                    18 => {
                        strip.remove(at / 2, at);
                        twin.drain(at / 2..at);
                    }
                    _ => {
                        strip.clear();
                        twin.clear();
                    }
                }
                prop_assert!(strip.iter().eq(&twin));
            }
            prop_assert!(strip.bytes() < 4 * 4 * 300);
        }
    }
}

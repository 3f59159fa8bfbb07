//! A short list kept where its owner is, so that looking at it costs no second trip to memory.

use std::ops::{Deref, DerefMut};

/// A list of fixed length, in place up to `N` items.
#[derive(Clone, Debug)]
pub(super) struct Inline<T, const N: usize> {
    few: [T; N],
    /// All items when there are more than `N`.
    many: Box<[T]>,
    len: u32,
}

impl<T: Clone, const N: usize> Inline<T, N> {
    /// A list of copies of one item.
    pub(super) fn of(item: &T, len: usize) -> Self {
        let many = if len > N { vec![item.clone(); len].into() } else { Box::default() };
        Inline { few: std::array::from_fn(|_| item.clone()), many, len: len as u32 }
    }
}

impl<T, const N: usize> Inline<T, N> {
    /// A list that is known to have `W` items.
    ///
    /// # Panics
    /// When it has fewer.
    #[inline(always)]
    pub(super) fn array_mut<const W: usize>(&mut self) -> &mut [T; W] {
        let items = if W <= N { self.few.first_chunk_mut() } else { self.many.first_chunk_mut() };
        items.expect("the list has as many items as it was made with")
    }
}

impl<T, const N: usize> Deref for Inline<T, N> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        if self.len as usize <= N { &self.few[..self.len as usize] } else { &self.many }
    }
}

impl<T, const N: usize> DerefMut for Inline<T, N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        if self.len as usize <= N { &mut self.few[..self.len as usize] } else { &mut self.many }
    }
}

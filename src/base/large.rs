//! Large pages of memory.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use allocator_api2::alloc::{AllocError, Allocator, Global, Layout};

/// Bytes of a large page.
const LARGE: usize = 2 << 20;

/// Memory in large pages for what is held for long and looked at here and there, as the state of many keys: finding a small page
/// often costs more than what is in it. All that is allocated so shares the pages, and what is given back is used again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Large;

/// A list in [`Large`] memory.
pub type LargeVec<T> = allocator_api2::vec::Vec<T, Large>;

/// A value in [`Large`] memory.
pub type LargeBox<T> = allocator_api2::boxed::Box<T, Large>;

/// Pieces are of so many bytes at most; larger ones are the system's own.
const PIECE_MAX: usize = 256 << 10;
/// Pieces up to here are multiples of [`PIECE_STEP`]; above, there are four sizes up to the double of each.
const PIECE_STEPS_MAX: usize = 1024;
const PIECE_STEP: usize = 64;
/// Number of the first class of more than a step, and of the first above the steps.
const STEPS: usize = 2;
const ABOVE: usize = STEPS + PIECE_STEPS_MAX / PIECE_STEP;
const CLASSES: usize = ABOVE + 4 * (PIECE_MAX / PIECE_STEPS_MAX).ilog2() as usize;

/// The class of pieces that hold so many bytes, of an alignment that all pieces have.
fn class_of(layout: Layout) -> Option<usize> {
    let bytes = layout.size();
    if layout.align() > PIECE_STEP || bytes > PIECE_MAX {
        return None;
    }
    Some(match bytes {
        _ if layout.align() <= 16 && bytes <= 16 => 0,
        _ if layout.align() <= 32 && bytes <= 32 => 1,
        ..=PIECE_STEPS_MAX => STEPS + bytes.div_ceil(PIECE_STEP).max(1) - 1,
        _ => {
            let below = bytes.next_power_of_two() / 2;
            let quarters = (bytes - below).div_ceil(below / 4);
            ABOVE + 4 * (below / PIECE_STEPS_MAX).ilog2() as usize + quarters - 1
        }
    })
}

/// Bytes of the pieces of a class.
fn bytes_of(class: usize) -> usize {
    match class {
        0 => 16,
        1 => 32,
        STEPS..ABOVE => (class - STEPS + 1) * PIECE_STEP,
        _ => {
            let below = PIECE_STEPS_MAX << ((class - ABOVE) / 4);
            below + ((class - ABOVE) % 4 + 1) * (below / 4)
        }
    }
}

/// Free pieces: each holds the address of the next.
struct Pool {
    free: [Option<NonNull<Free>>; CLASSES],
    /// What is left of the newest page.
    rest: Option<NonNull<u8>>,
    left: usize,
}

struct Free {
    next: Option<NonNull<Free>>,
}

// SAFETY: the pool alone owns its free pieces.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: [None; CLASSES], rest: None, left: 0 });

impl Pool {
    fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        if let Some(piece) = self.free[class] {
            // SAFETY: a free piece is the pool's own, and was written when it was given back.
            self.free[class] = unsafe { piece.as_ref().next };
            return Some(piece.cast());
        }
        let bytes = bytes_of(class);
        // Pieces of a step and more begin at a multiple of it.
        let skip = if bytes >= PIECE_STEP { self.left % PIECE_STEP } else { self.left % bytes };
        if self.left < bytes + skip {
            self.add_page()?;
            return self.take(class);
        }
        let rest = self.rest?;
        self.left -= skip + bytes;
        // SAFETY: the rest of the page has `skip + bytes` bytes and more.
        unsafe {
            self.rest = Some(rest.add(skip + bytes));
            Some(rest.add(skip))
        }
    }

    fn add_page(&mut self) -> Option<()> {
        // What is left of the last page becomes pieces, the largest first.
        for class in (0..CLASSES).rev() {
            let bytes = bytes_of(class);
            while self.left >= bytes && self.left.is_multiple_of(bytes.min(PIECE_STEP)) {
                let piece = self.rest?;
                self.left -= bytes;
                // SAFETY: it is the first part of what is left.
                unsafe {
                    self.rest = Some(piece.add(bytes));
                    self.give(piece, class);
                }
            }
        }
        let layout = Layout::from_size_align(LARGE, LARGE).ok()?;
        // SAFETY: the size is not zero.
        let page = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        advise(page.as_ptr().addr(), page.as_ptr().addr() + LARGE);
        (self.rest, self.left) = (Some(page), LARGE);
        Some(())
    }

    /// # Safety
    /// The piece is of this class, and nobody uses it any more.
    unsafe fn give(&mut self, piece: NonNull<u8>, class: usize) {
        let piece = piece.cast::<Free>();
        // SAFETY: the smallest piece has room for an address, and is aligned for it.
        unsafe { piece.write(Free { next: self.free[class] }) };
        self.free[class] = Some(piece);
    }
}

// SAFETY: a piece belongs to one owner from `take` to `give`, stays where it is, and has the size and alignment asked for: those of
// its class, to which the layout alone leads.
unsafe impl Allocator for Large {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match class_of(layout) {
            Some(class) if layout.size() > 0 => {
                let piece = POOL.lock().unwrap_or_else(PoisonError::into_inner).take(class).ok_or(AllocError)?;
                Ok(NonNull::slice_from_raw_parts(piece, layout.size()))
            }
            _ => Global.allocate(layout),
        }
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        match class_of(layout) {
            // SAFETY: the caller gives back what `allocate` gave for this layout.
            Some(class) if layout.size() > 0 => unsafe {
                POOL.lock().unwrap_or_else(PoisonError::into_inner).give(ptr, class);
            },
            // SAFETY: as for `allocate`, which went the same way.
            _ => unsafe { Global.deallocate(ptr, layout) },
        }
    }
}

/// Tells the system that large pages are wanted between two addresses.
fn advise(from: usize, to: usize) {
    let (first, last) = (from.next_multiple_of(LARGE), to - to % LARGE);
    #[cfg(target_os = "linux")]
    if first < last {
        // SAFETY: the caller's memory lies around the range, and the advice changes no value.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(first), last - first, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (first, last);
}

/// Tells the system that large pages are wanted for a list that has room for much and has not been filled yet: memory that is
/// looked at here and there costs more for the pages to be found than for what is in them, and each page that is written for
/// the first time stops whoever writes. A system that has none does as it always does.
pub fn want_large_pages<T>(list: &Vec<T>) {
    let from = list.as_ptr().addr();
    let to = from + list.capacity() * size_of::<T>();
    advise(from, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_order_and_hold_what_they_are_for() {
        for bytes in (0..5000).chain([PIECE_MAX - 1, PIECE_MAX]) {
            for align in [1, 8, 16, 32, 64] {
                let class = class_of(Layout::from_size_align(bytes, align).unwrap()).unwrap();
                assert!(bytes_of(class) >= bytes && bytes_of(class).is_multiple_of(align), "{bytes} {align}");
                assert!(class == 0 || bytes_of(class - 1) < bytes || !bytes_of(class - 1).is_multiple_of(align));
            }
        }
        assert_eq!(class_of(Layout::from_size_align(PIECE_MAX, 1).unwrap()), Some(CLASSES - 1));
        assert_eq!(class_of(Layout::from_size_align(PIECE_MAX + 1, 1).unwrap()), None);
        assert_eq!(class_of(Layout::from_size_align(1, 128).unwrap()), None);
    }

    #[test]
    fn pieces_do_not_meet() {
        let mut random = crate::base::SplitMix64::new(1);
        let mut held: Vec<(LargeVec<u8>, u8)> = Vec::new();
        let mut lines: Vec<LargeBox<[Line; 3]>> = Vec::new();
        for round in 0..60_000 {
            // Often of a few bytes, now and then of many.
            let most = 1 << random.below(15);
            let bytes = random.below(most) as usize + 1;
            let mark = round as u8;
            let mut list = LargeVec::with_capacity_in(bytes, Large);
            list.resize(bytes, mark);
            held.push((list, mark));
            let (list, mark) = match random.below(3) {
                0 => continue,
                _ => held.swap_remove(random.below(held.len() as u64) as usize),
            };
            assert!(list.iter().all(|byte| *byte == mark));
            lines.push(LargeBox::new_in([Line([mark; 64]); 3], Large));
            if lines.len() > 100 {
                let line = lines.swap_remove(random.below(100) as usize);
                assert!(std::ptr::from_ref(&*line).addr().is_multiple_of(64));
                assert!(line.iter().flat_map(|line| line.0).all(|byte| byte == line[0].0[0]));
            }
        }
        assert!(held.iter().all(|(list, mark)| list.iter().all(|byte| byte == mark)));
    }

    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([u8; 64]);

    #[test]
    fn values_stay() {
        for count in [0, 10, LARGE / 8, LARGE] {
            let mut list: Vec<u64> = Vec::with_capacity(count);
            want_large_pages(&list);
            list.extend(0..count as u64);
            want_large_pages(&list);
            assert!(list.iter().copied().eq(0..count as u64));
        }
    }
}

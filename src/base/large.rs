//! Large pages of memory.

/// Bytes of a large page.
const LARGE: usize = 2 << 20;

/// Tells the system that large pages are wanted for a list that has room for much and has not been filled yet: memory that is
/// looked at here and there costs more for the pages to be found than for what is in them, and each page that is written for
/// the first time stops whoever writes. A system that has none does as it always does.
pub fn want_large_pages<T>(list: &Vec<T>) {
    let from = list.as_ptr().addr();
    let to = from + list.capacity() * size_of::<T>();
    let (first, last) = (from.next_multiple_of(LARGE), to - to % LARGE);
    #[cfg(target_os = "linux")]
    if first < last {
        // SAFETY: the range lies inside of the list's own memory, and the advice changes no value.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(first), last - first, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (first, last);
}

#[cfg(test)]
mod tests {
    use super::*;

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

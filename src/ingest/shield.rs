//! Keeps a decoder's panic on foreign bytes from ending the job.
//!
//! The engine aborts the process when one of its threads panics, because a panic there is a defect of ours. A third-party
//! decoder that panics on a damaged page is bad data instead. The engine's panic hook asks [`is_shielded`] and stays quiet.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a decoder whose panic is caught and reported as bad data.
pub fn is_shielded() -> bool {
    SHIELDED.with(Cell::get)
}

/// Calls a decoder; its panic becomes an error. What `call` borrows must not be used again after an error.
pub(crate) fn shielded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let before = SHIELDED.with(|s| s.replace(true));
    let result = catch_unwind(AssertUnwindSafe(call));
    SHIELDED.with(|s| s.set(before));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the decoder gave up".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_an_error_and_the_flag_falls_back() {
        assert_eq!(shielded(is_shielded), Ok(true));
        assert_eq!(shielded(|| -> () { panic!("page {}", 3) }), Err("page 3".into()));
        assert!(!is_shielded());
    }
}

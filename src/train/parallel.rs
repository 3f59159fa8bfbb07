//! Work shared among threads that live as long as the call.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs `run` on every item, on up to `threads` threads, the calling one among them. Which thread takes which item is left to
/// chance: a result must not depend on it.
pub(super) fn each<T: Send>(threads: usize, items: &mut [T], run: impl Fn(&mut T) + Sync) {
    let threads = threads.min(items.len());
    if threads <= 1 {
        items.iter_mut().for_each(run);
        return;
    }
    let queue = Mutex::new(items.iter_mut());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(item) = next() {
            run(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // A thread that the system refuses is done without: the others take its items.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

//! Work shared among threads.
//!
//! Boosting hands out thousands of small pieces of work a second, each worth less than it takes to start a thread: a [`Crew`]
//! keeps its threads for a whole fit. A helper that wakes late finds the work done and is not waited for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How often a helper looks for work, some microseconds long, before it sleeps.
const LOOKS: usize = 200;

/// The calling thread and its helpers.
pub(super) struct Crew<'a> {
    shared: &'a Shared,
    helpers: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is work, or no more of it.
    call: Condvar,
    /// No helper is at work.
    done: Condvar,
    /// [`State::number`], to be looked at without the lock.
    number: AtomicU64,
}

#[derive(Default)]
struct State {
    work: Option<Work>,
    /// Of the last work that was handed out.
    number: u64,
    /// Helpers at work.
    busy: usize,
    /// Helpers asleep.
    asleep: usize,
    over: bool,
}

/// What all threads run until nothing is left of it.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn() + Sync));

// SAFETY: what it points at is `Sync`, and outlives its use by a helper: see `Crew::each`.
unsafe impl Send for Work {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            for _ in 0..LOOKS {
                if self.number.load(Relaxed) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
            let mut state = self.lock();
            let work = loop {
                match state.work {
                    _ if state.over => return,
                    Some(work) if state.number != seen => break work,
                    _ => {
                        state.asleep += 1;
                        state = self.call.wait(state).unwrap_or_else(PoisonError::into_inner);
                        state.asleep -= 1;
                    }
                }
            };
            seen = state.number;
            state.busy += 1;
            drop(state);
            let _done = Done(self);
            // SAFETY: this helper is counted as busy, and `Crew::each` keeps the work alive until none is.
            unsafe { (*work.0)() };
        }
    }
}

/// A helper has done its part, were it by a panic.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 {
            self.0.done.notify_all();
        }
    }
}

/// Takes the work back, and waits for helpers that are at it.
struct TakeBack<'a>(&'a Shared);

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.work = None;
        while state.busy > 0 {
            state = self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Sends the helpers home.
struct Close<'a>(&'a Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.number.fetch_add(1, Relaxed);
        self.0.call.notify_all();
    }
}

/// Runs something with up to `threads` threads at hand, the calling one among them.
pub(super) fn with_crew<R>(threads: usize, run: impl FnOnce(&Crew) -> R) -> R {
    let shared = Shared::default();
    thread::scope(|scope| {
        // A thread that the system refuses is done without: the others take its work.
        let hired = |_: &usize| thread::Builder::new().spawn_scoped(scope, || shared.help()).is_ok();
        let helpers = (1..threads).filter(hired).count();
        let _close = Close(&shared);
        run(&Crew { shared: &shared, helpers })
    })
}

impl Crew<'_> {
    /// Threads, the calling one among them.
    pub fn threads(&self) -> usize {
        self.helpers + 1
    }

    /// Runs `run` on every item, on all threads if it is worth their while. Which thread takes which item is left to chance: a
    /// result must not depend on it.
    pub fn each<T: Send>(&self, worth: bool, items: &mut [T], run: impl Fn(&mut T) + Sync) {
        if !worth || self.helpers == 0 || items.len() < 2 {
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
        let some: &(dyn Fn() + Sync) = &work;
        // SAFETY: only the lifetime changes. `take_back` is dropped before `work` is, also by a panic; from then on no helper can find
        // the work, and none is at it.
        let some = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(some) };
        let take_back = TakeBack(self.shared);
        let mut state = self.shared.lock();
        state.work = Some(Work(some));
        state.number += 1;
        self.shared.number.store(state.number, Relaxed);
        if state.asleep > 0 {
            self.shared.call.notify_all();
        }
        drop(state);
        work();
        drop(take_back);
    }
}

/// Runs `run` on every item, on up to `threads` threads that live as long as the call.
pub(super) fn each<T: Send>(threads: usize, items: &mut [T], run: impl Fn(&mut T) + Sync) {
    with_crew(threads.min(items.len()), |crew| crew.each(true, items, run));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_taken_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            with_crew(threads, |crew| {
                assert_eq!(crew.threads(), threads);
                for round in 0..500 {
                    let mut items = vec![0u32; round % 17];
                    crew.each(round % 5 > 0, &mut items, |item| *item += 1);
                    assert!(items.iter().all(|item| *item == 1), "{items:?}");
                }
            });
        }
    }

    #[test]
    fn all_threads_work_at_once() {
        with_crew(3, |crew| {
            let barrier = std::sync::Barrier::new(3);
            // None of the three gets past the barrier before all have come.
            crew.each(true, &mut [(); 3], |()| {
                barrier.wait();
            });
        });
    }

    #[test]
    fn a_panic_in_one_thread_ends_the_call() {
        for guilty in 0..4 {
            let caught = std::panic::catch_unwind(|| {
                let mut items: Vec<usize> = (0..4).collect();
                each(3, &mut items, |item| assert!(*item != guilty, "guilty"));
            });
            assert!(caught.is_err());
        }
    }
}

//! A circuit breaker: a store that fails again and again is left alone for a while, then tried by one request at a time.
//!
//! Closed, every request goes through. After [`FAILURES`] failures in a row it opens: requests are turned away without a
//! try. After a pause, which doubles with each probe that fails, one request goes through as a probe; if it succeeds the
//! breaker closes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that open it.
pub const FAILURES: u32 = 3;
/// First and longest pause before a probe.
const PAUSE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Go through.
    Go,
    /// Go through; others wait for how it fares.
    Probe,
    /// Turn away.
    Refused,
}

/// How the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests go through.
    Closed,
    /// Requests are turned away.
    Open,
    /// A probe is under way.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        pause: Duration,
    },
    /// A probe that never tells how it fared, since its client hung up, counts as failed by then.
    HalfOpen {
        patience: Instant,
        pause: Duration,
    },
}

/// A circuit breaker. The time is handed in.
#[derive(Debug)]
pub struct Breaker(Mutex<State>);

impl Default for Breaker {
    fn default() -> Self {
        Breaker(Mutex::new(State::Closed { failures: 0 }))
    }
}

impl Breaker {
    /// What a request may do now. A probe must be followed by [`succeeded`](Self::succeeded) or [`failed`](Self::failed).
    pub fn ask(&self, now: Instant) -> Permit {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Permit::Go,
            State::Open { until, pause } | State::HalfOpen { patience: until, pause } if now >= until => {
                *state = State::HalfOpen { patience: now + PAUSE[1], pause };
                Permit::Probe
            }
            _ => Permit::Refused,
        }
    }

    /// A request that went through succeeded.
    pub fn succeeded(&self) {
        let mut state = self.state();
        // A straggler from before says nothing of how the store is now, but a probe does.
        if !matches!(*state, State::Open { .. }) {
            *state = State::Closed { failures: 0 };
        }
    }

    /// A request that went through failed. Tells whether that opened the breaker.
    pub fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        let next = match *state {
            State::Closed { failures } if failures + 1 < FAILURES => State::Closed { failures: failures + 1 },
            State::Closed { .. } => State::Open { until: now + PAUSE[0], pause: PAUSE[0] },
            State::HalfOpen { pause, .. } => {
                let pause = (pause * 2).min(PAUSE[1]);
                State::Open { until: now + pause, pause }
            }
            open @ State::Open { .. } => open,
        };
        let opened = matches!(*state, State::Closed { .. }) && matches!(next, State::Open { .. });
        *state = next;
        opened
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        match *self.state() {
            State::Closed { .. } => Standing::Closed,
            State::Open { .. } => Standing::Open,
            State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_probe() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            assert!(!breaker.failed(start));
            assert!(!breaker.failed(start));
            breaker.succeeded();
        }
        assert_eq!([breaker.failed(start), breaker.failed(start), breaker.failed(start)], [false, false, true]);
        assert_eq!(breaker.standing(), Standing::Open);
        assert_eq!(breaker.ask(after(start, 499)), Permit::Refused);
        breaker.succeeded();
        assert_eq!(breaker.standing(), Standing::Open, "a straggler closes nothing");
        assert_eq!(breaker.ask(after(start, 500)), Permit::Probe);
        assert_eq!(breaker.ask(after(start, 501)), Permit::Refused, "one probe at a time");
        breaker.succeeded();
        assert_eq!((breaker.standing(), breaker.ask(start)), (Standing::Closed, Permit::Go));
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        (0..FAILURES).for_each(|_| drop(breaker.failed(start)));
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let from = now;
            while breaker.ask(now) != Permit::Probe {
                now += Duration::from_millis(100);
            }
            pauses.push(now.duration_since(from).as_millis());
            assert!(!breaker.failed(now), "it was open");
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn a_probe_that_is_never_heard_of_is_followed_by_another() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        (0..FAILURES).for_each(|_| drop(breaker.failed(start)));
        assert_eq!(breaker.ask(after(start, 500)), Permit::Probe);
        assert_eq!(breaker.ask(after(start, 10_499)), Permit::Refused);
        assert_eq!(breaker.ask(after(start, 10_500)), Permit::Probe);
    }
}

//! Which steps run when: the states of a job's steps, and what follows from each.
//!
//! A step starts when all that it needs is done, a place is free (`parallel`) and a thread is. Threads that are free are shared
//! out evenly among the steps that start at one moment, each gets one at least. A step that fails waits for its next attempt
//! with growing pauses; one that has none left fails, and all that needs it is skipped. Whatever does not need it goes on.
//!
//! Knows nothing of processes, files and clocks.

use crate::base::{EventTime, Micros};

/// Longest pause between two attempts.
const PAUSE_MAX: Micros = 600_000_000;

/// How a step is in the way of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Name of the step.
    pub name: String,
    /// The steps, by index, that must be done before.
    pub needs: Vec<usize>,
    /// Attempts after the first.
    pub retries: u32,
    /// Pause before the second attempt; doubles from one to the next.
    pub backoff: Micros,
}

/// How a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its turn has not come.
    Queued,
    /// Under way.
    Running {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Its share of the threads.
        threads: usize,
    },
    /// Failed, and tried again.
    Retrying {
        /// Number of the attempt that comes.
        attempt: u32,
        /// Not before this, by the wall clock.
        at: EventTime,
        /// Why the last one failed.
        why: String,
    },
    /// Done: its outputs are there.
    Done,
    /// Failed for good.
    Failed {
        /// Why.
        why: String,
    },
    /// Not run, and will not be.
    Skipped {
        /// Why.
        why: String,
    },
}

impl State {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running { .. } => "running",
            State::Retrying { .. } => "retrying",
            State::Done => "done",
            State::Failed { .. } => "failed",
            State::Skipped { .. } => "skipped",
        }
    }

    /// Whether nothing follows.
    pub fn is_over(&self) -> bool {
        matches!(self, State::Done | State::Failed { .. } | State::Skipped { .. })
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its outputs are there.
    Done,
    /// There was nothing to do, and so there is nothing for those that need it.
    Skipped(String),
    /// It failed; another attempt may help.
    Failed(String),
    /// It failed, and would fail again.
    Hopeless(String),
}

/// A step that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The step.
    pub step: usize,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Its share of the threads.
    pub threads: usize,
}

/// The steps of one job.
#[derive(Clone, Debug)]
pub struct Schedule {
    rules: Vec<Rule>,
    states: Vec<State>,
    /// The attempt that comes next, by step.
    next: Vec<u32>,
    threads: usize,
    parallel: usize,
}

impl Schedule {
    /// Steps whose turn has not come. The rules have no cycle.
    pub fn new(rules: Vec<Rule>, threads: usize, parallel: usize) -> Schedule {
        let (states, next) = (vec![State::Queued; rules.len()], vec![1; rules.len()]);
        Schedule { rules, states, next, threads: threads.max(1), parallel: parallel.max(1) }
    }

    /// How each step stands.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Goes on from how a step was left: what was under way starts over with the same attempt.
    pub fn restore(&mut self, step: usize, left: State) {
        self.next[step] = match &left {
            State::Running { attempt, .. } | State::Retrying { attempt, .. } => *attempt,
            _ => 1,
        };
        self.states[step] = match left {
            State::Running { .. } => State::Queued,
            other => other,
        };
    }

    /// The steps that start now, in the order of the file; they count as running from here on.
    pub fn start(&mut self, now: EventTime) -> Vec<Start> {
        let running = |states: &[State]| {
            let shares = states.iter().filter_map(|state| match state {
                State::Running { threads, .. } => Some(*threads),
                _ => None,
            });
            shares.fold((0, 0), |(count, sum), share| (count + 1, sum + share))
        };
        let (count, taken) = running(&self.states);
        let free = self.threads.saturating_sub(taken);
        let places = self.parallel.saturating_sub(count).min(free);
        let ready: Vec<usize> = (0..self.rules.len()).filter(|&step| self.is_ready(step, now)).take(places).collect();
        let mut left = free;
        let mut starts = Vec::with_capacity(ready.len());
        for (i, &step) in ready.iter().enumerate() {
            let threads = left.div_ceil(ready.len() - i);
            left -= threads;
            let attempt = self.next[step];
            self.states[step] = State::Running { attempt, threads };
            starts.push(Start { step, attempt, threads });
        }
        starts
    }

    fn is_ready(&self, step: usize, now: EventTime) -> bool {
        let due = match &self.states[step] {
            State::Queued => true,
            State::Retrying { at, .. } => *at <= now,
            _ => false,
        };
        due && self.rules[step].needs.iter().all(|&needed| self.states[needed] == State::Done)
    }

    /// Notes how the attempt of a running step ended; the steps whose state this changes, itself first.
    pub fn finished(&mut self, step: usize, ended: Ended, now: EventTime) -> Vec<usize> {
        let attempt = self.next[step];
        let rule = &self.rules[step];
        self.states[step] = match ended {
            Ended::Done => State::Done,
            Ended::Skipped(why) => State::Skipped { why },
            Ended::Failed(why) if attempt <= rule.retries => {
                let doublings = (attempt - 1).min(20);
                let pause = rule.backoff.saturating_mul(1 << doublings).min(PAUSE_MAX.max(rule.backoff));
                self.next[step] = attempt + 1;
                State::Retrying { attempt: attempt + 1, at: now.saturating_add(pause), why }
            }
            Ended::Failed(why) | Ended::Hopeless(why) => State::Failed { why },
        };
        let mut changed = vec![step];
        changed.extend(self.skip_what_cannot_be());
        changed
    }

    /// Skips steps that need what failed or was skipped; returns them.
    pub fn skip_what_cannot_be(&mut self) -> Vec<usize> {
        let mut skipped = Vec::new();
        loop {
            let found = (0..self.rules.len()).find_map(|step| {
                if self.states[step].is_over() || matches!(self.states[step], State::Running { .. }) {
                    return None;
                }
                let broken = self.rules[step]
                    .needs
                    .iter()
                    .find(|&&needed| matches!(self.states[needed], State::Failed { .. } | State::Skipped { .. }))?;
                let name = &self.rules[*broken].name;
                Some((step, format!("`{name}` {}", how(&self.states[*broken]))))
            });
            let Some((step, why)) = found else { return skipped };
            self.states[step] = State::Skipped { why };
            skipped.push(step);
        }
    }

    /// When the next attempt is due, if any step waits for one.
    pub fn wakes(&self) -> Option<EventTime> {
        let due = self.states.iter().filter_map(|state| match state {
            State::Retrying { at, .. } => Some(*at),
            _ => None,
        });
        due.min()
    }

    /// Whether every step is over.
    pub fn is_over(&self) -> bool {
        self.states.iter().all(State::is_over)
    }

    /// Whether some step failed for good.
    pub fn has_failed(&self) -> bool {
        self.states.iter().any(|state| matches!(state, State::Failed { .. }))
    }
}

fn how(state: &State) -> &'static str {
    match state {
        State::Skipped { .. } => "was skipped",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, needs: &[usize], retries: u32) -> Rule {
        Rule { name: name.into(), needs: needs.to_vec(), retries, backoff: 1_000_000 }
    }

    #[test]
    fn threads_are_shared_and_places_bounded() {
        let mut schedule = Schedule::new(vec![rule("a", &[], 0), rule("b", &[], 0), rule("c", &[], 0)], 5, 2);
        let started = schedule.start(0);
        assert_eq!(started.iter().map(|s| (s.step, s.threads)).collect::<Vec<_>>(), [(0, 3), (1, 2)]);
        assert_eq!(schedule.start(0), []);
        schedule.finished(0, Ended::Done, 0);
        assert_eq!(schedule.start(0), [Start { step: 2, attempt: 1, threads: 3 }]);
    }

    #[test]
    fn failures_wait_longer_each_time_and_skip_what_needs_them() {
        let rules = vec![rule("a", &[], 2), rule("b", &[0], 0), rule("c", &[1], 0), rule("d", &[], 0)];
        let mut schedule = Schedule::new(rules, 1, 1);
        for (attempt, pause) in [(1, 1_000_000), (2, 2_000_000)] {
            assert_eq!(schedule.start(0), [Start { step: 0, attempt, threads: 1 }]);
            assert_eq!(schedule.finished(0, Ended::Failed("no".into()), -pause), [0]);
            assert_eq!(schedule.wakes(), Some(0));
        }
        assert_eq!(schedule.start(0), [Start { step: 0, attempt: 3, threads: 1 }]);
        assert_eq!(schedule.finished(0, Ended::Failed("no".into()), 0), [0, 1, 2]);
        assert_eq!(schedule.states()[2], State::Skipped { why: "`b` was skipped".into() });
        assert!(!schedule.is_over() && schedule.has_failed());
        assert_eq!(schedule.start(0), [Start { step: 3, attempt: 1, threads: 1 }]);
        schedule.finished(3, Ended::Done, 0);
        assert!(schedule.is_over());
    }

    #[test]
    fn what_is_hopeless_is_not_tried_again() {
        let mut schedule = Schedule::new(vec![rule("a", &[], 5)], 1, 1);
        schedule.start(0);
        schedule.finished(0, Ended::Hopeless("too large".into()), 0);
        assert_eq!(schedule.states(), [State::Failed { why: "too large".into() }]);
    }
}

//! Runs the steps of one job to the end, or until somebody wants it to stop: the schedule, kept on disk by the journal, and
//! whoever carries out attempts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::BatchError;
use super::journal::{Change, Journal, Record};
use super::schedule::{Ended, Rule, Schedule, Start, State};
use crate::base::EventTime;

/// Longest wait between two looks at who wants what.
const LOOK: Duration = Duration::from_millis(100);

/// Carries out attempts of steps.
pub trait Executor {
    /// Whether the outputs of a step that is done are there and whole, and follow from what the step is told today.
    fn is_sound(&self, step: usize, record: &Record, done: &BTreeMap<usize, Record>) -> bool;

    /// Begins an attempt; `done` are the records of the steps that are done.
    ///
    /// # Errors
    /// When it cannot be begun for a reason that is none of the step's.
    fn begin(&mut self, start: Start, done: &BTreeMap<usize, Record>) -> Result<(), BatchError>;

    /// Waits until an attempt ends, but no longer than `wait`. A record comes with [`Ended::Done`].
    ///
    /// # Errors
    /// When its outputs cannot be kept.
    fn wait(&mut self, wait: Duration) -> Result<Option<(usize, Ended, Option<Record>)>, BatchError>;

    /// Ends all attempts that are under way.
    fn stop(&mut self);

    /// The wall clock.
    fn now(&self) -> EventTime;
}

/// Why a job's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All steps are done or skipped.
    Done,
    /// A step failed.
    Failed,
    /// Somebody wants it to end.
    Cancelled,
    /// The process is to end; the next goes on.
    Interrupted,
}

/// One job under way.
pub struct Runner<'a, E> {
    rules: Vec<Rule>,
    schedule: Schedule,
    journal: &'a mut Journal,
    executor: &'a mut E,
    done: BTreeMap<usize, Record>,
}

impl<'a, E: Executor> Runner<'a, E> {
    /// Goes on from the journal. What is done and sound is not done again; what was under way starts over. What had failed
    /// is tried again if `again`.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn new(
        rules: Vec<Rule>,
        limits: (usize, usize),
        again: bool,
        journal: &'a mut Journal,
        executor: &'a mut E,
    ) -> Result<Self, BatchError> {
        let schedule = Schedule::new(rules.clone(), limits.0, limits.1);
        let mut runner = Runner { rules, schedule, journal, executor, done: BTreeMap::new() };
        for step in in_order(&runner.rules) {
            runner.restore(step, again)?;
        }
        for step in runner.schedule.skip_what_cannot_be() {
            runner.note(step, None)?;
        }
        Ok(runner)
    }

    fn restore(&mut self, step: usize, again: bool) -> Result<(), BatchError> {
        let rule = &self.rules[step];
        let last = self.journal.last(&rule.name);
        let left = match last.map(Change::state) {
            None => State::Queued,
            Some(State::Done) => {
                let record = self.journal.record(&rule.name).cloned().unwrap_or_default();
                let sound = rule.needs.iter().all(|needed| self.done.contains_key(needed))
                    && self.executor.is_sound(step, &record, &self.done);
                if sound {
                    self.done.insert(step, record);
                    State::Done
                } else {
                    State::Queued
                }
            }
            Some(State::Failed { .. } | State::Skipped { .. } | State::Retrying { .. }) if again => State::Queued,
            // What was skipped for the sake of another step follows from that one.
            Some(State::Skipped { .. }) if rule.needs.iter().any(|needed| !self.done.contains_key(needed)) => {
                State::Queued
            }
            Some(left) => left,
        };
        self.schedule.restore(step, left);
        let now = &self.schedule.states()[step];
        let was = self.journal.last(&self.rules[step].name).map(Change::state);
        if was.as_ref() != Some(now) {
            self.note(step, None)?;
        }
        Ok(())
    }

    /// How the steps stand.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// What the steps that are done have left.
    pub fn records(&self) -> &BTreeMap<usize, Record> {
        &self.done
    }

    /// Runs until every step is over, or `watch`, which sees how things stand some times a second, wants it to stop.
    ///
    /// # Errors
    /// When the journal or outputs cannot be written. The steps that are done are safe then.
    pub fn run(&mut self, watch: &mut dyn FnMut(&Schedule) -> Option<Verdict>) -> Result<Verdict, BatchError> {
        let outcome = self.work(watch);
        // Whatever is still under way is nobody's any more.
        self.executor.stop();
        outcome
    }

    fn work(&mut self, watch: &mut dyn FnMut(&Schedule) -> Option<Verdict>) -> Result<Verdict, BatchError> {
        while !self.schedule.is_over() {
            if let Some(verdict) = watch(&self.schedule) {
                return Ok(verdict);
            }
            for start in self.schedule.start(self.executor.now()) {
                // On disk before the attempt has effects.
                self.note(start.step, None)?;
                self.executor.begin(start, &self.done)?;
            }
            let until = self.schedule.wakes().map(|at| at.saturating_sub(self.executor.now()).max(1_000));
            let wait = until.map_or(LOOK, |micros| LOOK.min(Duration::from_micros(micros.unsigned_abs())));
            if let Some((step, ended, record)) = self.executor.wait(wait)? {
                let changed = self.schedule.finished(step, ended, self.executor.now());
                for (i, step) in changed.into_iter().enumerate() {
                    self.note(step, record.clone().filter(|_| i == 0))?;
                }
            }
        }
        // Once more: how it ended.
        watch(&self.schedule);
        Ok(if self.schedule.has_failed() { Verdict::Failed } else { Verdict::Done })
    }

    fn note(&mut self, step: usize, record: Option<Record>) -> Result<(), BatchError> {
        let state = &self.schedule.states()[step];
        let change = Change::to(state, record.or_else(|| self.done.get(&step).cloned()));
        if let Change::Done(record) = &change {
            self.done.insert(step, record.clone());
        }
        self.journal.note(&self.rules[step].name, change)
    }
}

/// The steps, each after all that it needs.
pub fn in_order(rules: &[Rule]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(rules.len());
    let mut placed = vec![false; rules.len()];
    while let Some(step) = (0..rules.len()).find(|&s| !placed[s] && rules[s].needs.iter().all(|&n| placed[n])) {
        placed[step] = true;
        order.push(step);
    }
    order
}

//! When each payment and each label is due, and what time it says. Knows nothing of clocks and brokers: the time since the
//! start comes in, so that it can be tested.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::{EventTime, Micros};

/// What sets the pace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the brokers take it.
    Max,
    /// Payments per second.
    Rate(f64),
    /// Seconds of event time per second.
    Speed(f64),
}

/// The schedule of one run.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    /// Whether event times are moments on the schedule, instead of the world's own.
    live: bool,
    label_delay: Micros,
    events: Option<u64>,
    duration: Option<Duration>,
    /// Payments sent.
    sent: u64,
    /// Event time of the first payment.
    first: Option<EventTime>,
    /// Event time of the last payment sent.
    last: EventTime,
    /// When the labels of payments sent become known, in the payments' order.
    labels: VecDeque<EventTime>,
}

impl Schedule {
    /// A schedule that ends after `events` payments or after `duration`, whichever comes first.
    pub fn new(pace: Pace, live: bool, label_delay: Micros, events: Option<u64>, duration: Option<Duration>) -> Self {
        Schedule {
            pace,
            live,
            label_delay,
            events,
            duration,
            sent: 0,
            first: None,
            last: EventTime::MIN,
            labels: VecDeque::new(),
        }
    }

    /// Payments sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether no payment is left to be sent.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.events.is_some_and(|events| self.sent >= events) || self.duration.is_some_and(|d| elapsed >= d)
    }

    /// When the next payment is due, whose own time is `world`; at once where nothing sets a pace.
    pub fn due(&self, world: EventTime, elapsed: Duration) -> Duration {
        let seconds = match self.pace {
            Pace::Max => return elapsed,
            Pace::Rate(rate) => self.sent as f64 / rate,
            Pace::Speed(speed) => (world - self.first.unwrap_or(world)) as f64 / 1e6 / speed,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The event time that the payment says which comes `ahead` payments after the next and whose own time is `world`.
    /// `started` is the wall clock's time of the start.
    pub fn time(&self, ahead: u64, world: EventTime, elapsed: Duration, started: EventTime) -> EventTime {
        match (self.live, self.pace) {
            (false, _) => world,
            (true, Pace::Rate(rate)) => started + ((self.sent + ahead) as f64 / rate * 1e6).round() as i64,
            (true, _) => started + micros(elapsed),
        }
    }

    /// Takes the next payment, which says `time`, as sent.
    pub fn take(&mut self, time: EventTime) {
        self.first.get_or_insert(time);
        self.last = self.last.max(time);
        self.labels.push_back(time.saturating_add(self.label_delay));
        self.sent += 1;
    }

    /// The clock in event time.
    pub fn clock(&self, elapsed: Duration, started: EventTime) -> EventTime {
        match (self.live, self.pace, self.first) {
            (true, ..) => started + micros(elapsed),
            (false, Pace::Speed(speed), Some(first)) => {
                first.saturating_add((elapsed.as_micros() as f64 * speed) as i64)
            }
            (false, ..) => self.last,
        }
    }

    /// Takes the next label as sent if it is known by `clock`.
    pub fn take_label(&mut self, clock: EventTime) -> bool {
        self.labels.pop_front_if(|known| *known <= clock).is_some()
    }

    /// When the next labels become known.
    pub fn labels(&self) -> impl Iterator<Item = EventTime> {
        self.labels.iter().copied()
    }
}

fn micros(duration: Duration) -> Micros {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const AT: i64 = 1_800_000_000 * SECOND;

    fn secs(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    fn take_known(schedule: &mut Schedule, clock: i64) -> usize {
        std::iter::from_fn(|| schedule.take_label(clock).then_some(())).count()
    }

    #[test]
    fn a_rate_spaces_payments_evenly_whatever_their_own_times() {
        let mut schedule = Schedule::new(Pace::Rate(4.0), true, 10 * SECOND, Some(6), None);
        assert_eq!(schedule.time(5, 5_001, secs(100.0), AT), AT + 5 * SECOND / 4);
        for (i, world) in [7, 7, 900, 901, 5_000, 5_001].into_iter().enumerate() {
            assert!(!schedule.is_over(secs(0.0)));
            let due = schedule.due(world, secs(100.0));
            assert_eq!(due, secs(i as f64 / 4.0), "late sending moves nothing");
            let time = schedule.time(0, world, secs(100.0), AT);
            assert_eq!(time, AT + i as i64 * SECOND / 4);
            schedule.take(time);
        }
        assert!(schedule.is_over(secs(0.0)));
        assert_eq!(schedule.clock(secs(10.3), AT), AT + 10_300_000);
        assert_eq!(take_known(&mut schedule, AT + 10_300_000), 2);
        assert_eq!(schedule.labels().next(), Some(AT + 10_500_000));
    }

    #[test]
    fn a_speed_keeps_the_worlds_own_gaps() {
        let mut schedule = Schedule::new(Pace::Speed(60.0), false, 120 * SECOND, None, Some(secs(5.0)));
        assert_eq!(schedule.due(AT, secs(0.0)), secs(0.0), "the first is due at once");
        assert_eq!(schedule.time(0, AT, secs(0.0), 5), AT);
        schedule.take(AT);
        assert_eq!(schedule.due(AT + 90 * SECOND, secs(0.0)), secs(1.5));
        schedule.take(AT + 90 * SECOND);
        assert_eq!(schedule.clock(secs(2.0), 5), AT + 120 * SECOND);
        assert_eq!(take_known(&mut schedule, AT + 120 * SECOND), 1);
        assert!(!schedule.is_over(secs(4.9)) && schedule.is_over(secs(5.0)));
    }

    #[test]
    fn without_a_pace_labels_follow_the_payments_clock() {
        let mut schedule = Schedule::new(Pace::Max, false, SECOND, None, None);
        assert_eq!(schedule.due(AT, secs(3.0)), secs(3.0));
        schedule.take(AT);
        let clock = schedule.clock(secs(9.0), 5);
        assert_eq!(take_known(&mut schedule, clock), 0);
        schedule.take(AT + SECOND);
        let clock = schedule.clock(secs(9.0), 5);
        assert_eq!(take_known(&mut schedule, clock), 1);
    }
}

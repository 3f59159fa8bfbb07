//! When events happen: a weekly pattern of hourly intensities, and the time at which the n-th event is due.
//!
//! Let λ(t) be the intensity in events per microsecond and Λ(t) its integral. A Poisson process of intensity λ is a unit
//! process seen through Λ⁻¹, so the generator places events on the axis of *progress* (expected events since the start)
//! and maps them to time. Progress is counted in whole 2^-20ths of an event: no error accumulates, however long the run.

use crate::base::{EventTime, Micros};

/// Units of progress per event.
pub(super) const UNITS_PER_EVENT: u64 = 1 << 20;

pub(super) const HOUR: Micros = 3_600_000_000;
pub(super) const DAY: Micros = 24 * HOUR;
const WEEK: Micros = 7 * DAY;
const CELLS: usize = 168;

/// Intensity by hour of the day, in percent of the mean hour, before scaling.
const HOURS: [u64; 24] =
    [25, 15, 10, 10, 15, 30, 60, 100, 140, 160, 170, 190, 210, 190, 160, 150, 160, 190, 220, 200, 150, 110, 70, 40];

/// Intensity by day of the week in percent; 1970-01-01, where the count of weeks begins, was a Thursday.
const DAYS: [u64; 7] = [100, 110, 120, 80, 95, 95, 100];

/// The last hour of the night: 00:00 to 06:59 UTC.
pub(super) const NIGHT_UNTIL_HOUR: i64 = 6;

/// A weekly pattern, anchored to UTC.
#[derive(Clone, Debug)]
struct Pattern {
    /// Progress since the week began at each hour, and at its end.
    progress: Vec<u64>,
    /// Microseconds per unit of progress, by hour of the week.
    slope: Vec<f64>,
}

impl Pattern {
    /// `per_week`: expected units a week; `night`: factor on the intensity of night hours.
    fn new(per_week: u64, night: u64) -> Pattern {
        let weight = |cell: usize| {
            let hour = cell % 24;
            DAYS[cell / 24] * HOURS[hour] * if hour as i64 <= NIGHT_UNTIL_HOUR { night } else { 1 }
        };
        let total: u64 = (0..CELLS).map(weight).sum();
        let mut progress = vec![0; CELLS + 1];
        let mut sum = 0;
        for cell in 0..CELLS {
            sum += weight(cell);
            progress[cell + 1] = (u128::from(per_week) * u128::from(sum) / u128::from(total)) as u64;
        }
        let slope = progress.windows(2).map(|w| HOUR as f64 / (w[1] - w[0]) as f64).collect();
        Pattern { progress, slope }
    }

    fn per_week(&self) -> u64 {
        self.progress[CELLS]
    }

    /// Units since 1970-01-01 at `time`, rounded down.
    fn at(&self, time: EventTime) -> i128 {
        let into = time.rem_euclid(WEEK);
        let cell = (into / HOUR) as usize;
        let width = u128::from(self.progress[cell + 1] - self.progress[cell]);
        let part = (into % HOUR) as u128 * width / HOUR as u128;
        i128::from(time.div_euclid(WEEK)) * i128::from(self.per_week()) + i128::from(self.progress[cell]) + part as i128
    }
}

/// A place on a pattern that only moves forward.
#[derive(Clone, Debug)]
struct Cursor {
    /// When the week began.
    week: EventTime,
    /// Progress of `week`, in units after the pattern's origin.
    base: u64,
    cell: usize,
}

/// The expected course of a stream of events: one pattern, and another after a drift.
#[derive(Clone, Debug)]
pub(super) struct Calendar {
    patterns: [Pattern; 2],
    start: EventTime,
    drift: Option<EventTime>,
    /// Progress at the drift; `u64::MAX` without one.
    drift_progress: u64,
}

impl Calendar {
    /// `per_day`: expected events a day in units, on average over a week; the drift multiplies the intensity of the night by
    /// `night_after` and keeps the weekly total.
    pub fn new(per_day: u64, start: EventTime, drift: Option<EventTime>, night_after: u64) -> Calendar {
        // An hour of the night must still hold a unit, else time would not move.
        let per_week = (per_day * 7).max(1 << 20);
        let patterns = [Pattern::new(per_week, 1), Pattern::new(per_week, night_after)];
        let drift_progress = drift.map_or(u64::MAX, |d| {
            u64::try_from(patterns[0].at(d.max(start)) - patterns[0].at(start)).unwrap_or(u64::MAX)
        });
        Calendar { patterns, start, drift, drift_progress }
    }

    /// Whether distributions have drifted at `time`.
    #[inline]
    pub fn drifted(&self, time: EventTime) -> bool {
        self.drift.is_some_and(|d| time >= d)
    }

    /// Progress between the start and `time`, rounded down.
    pub fn progress(&self, time: EventTime) -> u64 {
        let (pattern, origin, base) = match self.drift {
            Some(drift) if time >= drift => (&self.patterns[1], drift.max(self.start), self.drift_progress),
            _ => (&self.patterns[0], self.start, 0),
        };
        u64::try_from((pattern.at(time) - pattern.at(origin)).max(0)).unwrap_or(u64::MAX).saturating_add(base)
    }

    /// Replaces every element of `progress` (rising) by its event time, rounded down to a millisecond.
    pub fn times(&self, progress: &[u64], times: &mut Vec<EventTime>) {
        let split = progress.partition_point(|p| *p < self.drift_progress);
        let drift = self.drift.unwrap_or(EventTime::MAX).max(self.start);
        self.times_on(&self.patterns[0], self.start, 0, drift, &progress[..split], times);
        self.times_on(&self.patterns[1], drift, self.drift_progress, EventTime::MAX, &progress[split..], times);
    }

    fn times_on(
        &self,
        pattern: &Pattern,
        origin: EventTime,
        base: u64,
        end: EventTime,
        progress: &[u64],
        times: &mut Vec<EventTime>,
    ) {
        let Some(first) = progress.first() else { return };
        let place = pattern.at(origin) + i128::from(first - base);
        let weeks = place.div_euclid(i128::from(pattern.per_week()));
        let into = place.rem_euclid(i128::from(pattern.per_week())) as u64;
        let mut cursor = Cursor { week: weeks as i64 * WEEK, base: first.wrapping_sub(into), cell: 0 };
        for progress in progress {
            let mut into = progress.wrapping_sub(cursor.base);
            while into >= pattern.per_week() {
                into -= pattern.per_week();
                cursor =
                    Cursor { week: cursor.week + WEEK, base: cursor.base.wrapping_add(pattern.per_week()), cell: 0 };
            }
            while into >= pattern.progress[cursor.cell + 1] {
                cursor.cell += 1;
            }
            let part = (into - pattern.progress[cursor.cell]) as f64 * pattern.slope[cursor.cell];
            let time = cursor.week + cursor.cell as i64 * HOUR + (part as i64).min(HOUR - 1);
            // Rounding may not carry a row over the start, nor over the drift that it precedes.
            times.push(floor_ms(time).max(origin).min(end - 1));
        }
    }
}

fn floor_ms(time: EventTime) -> EventTime {
    time.div_euclid(1_000) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: EventTime = 1_700_000_123_456_789;

    proptest! {
        #[test]
        fn progress_and_time_are_inverse(
            per_day in 1u64..1 << 45,
            start in -1i64 << 50..1 << 52,
            drift in proptest::option::of(0..30 * DAY),
            mut after in prop::collection::vec(0..60 * DAY, 1..50),
        ) {
            let calendar = Calendar::new(per_day, start, drift.map(|d| start + d), 4);
            after.sort_unstable();
            let progress: Vec<u64> = after.iter().map(|a| calendar.progress(start + a)).collect();
            prop_assert!(progress.is_sorted());
            let mut times = Vec::new();
            calendar.times(&progress, &mut times);
            prop_assert!(times.is_sorted());
            // A unit of progress is at most this long.
            let slack = 2_000 + (20.0 * WEEK as f64 / (per_day * 7).max(1 << 20) as f64) as i64;
            for (time, after) in times.iter().zip(&after) {
                prop_assert!((time - start - after).abs() <= slack, "{} for {after}", time - start);
            }
        }
    }

    #[test]
    fn night_grows_with_the_drift_and_the_week_does_not() {
        let per_day = 1000 * UNITS_PER_EVENT;
        let calendar = Calendar::new(per_day, START, Some(START + 7 * DAY), 4);
        let weeks: Vec<u64> = (0..3).map(|w| calendar.progress(START + w * WEEK)).collect();
        for pair in weeks.windows(2) {
            assert!((pair[1] - pair[0]).abs_diff(7 * per_day) < 1000);
        }
        let share = |week: i64| {
            let midnight = START.div_euclid(DAY) * DAY + (1 + week * 7) * DAY;
            let at = |time| calendar.progress(time);
            (at(midnight + 7 * HOUR) - at(midnight)) as f64 / (at(midnight + DAY) - at(midnight)) as f64
        };
        assert!(share(0) < 0.08 && share(1) > 0.2, "{} {}", share(0), share(1));
    }
}

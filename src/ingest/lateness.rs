//! Lateness: which rows are behind their partition's watermark.
//!
//! The watermark of a partition is W = (highest event time seen) − disorder, and says that rows with time < W are complete.
//! A row is late when its time is below W as of just before the row. So which rows are late depends on the order of the
//! partition's rows alone, on no cut into reads or ticks.

use crate::base::{EventTime, Micros};

/// What a partition has seen of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    disorder: Micros,
    watermark: EventTime,
}

impl Lateness {
    /// A partition that has seen nothing.
    pub fn new(disorder: Micros) -> Lateness {
        Lateness { disorder, watermark: EventTime::MIN }
    }

    /// W: rows with time below it are complete. `i64::MIN` before the first row.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Raises W to `watermark`, as when a job resumes.
    pub fn raise(&mut self, watermark: EventTime) {
        self.watermark = self.watermark.max(watermark);
    }

    /// Takes note of rows in their order; returns each late row with W as of just before it.
    pub fn observe(&mut self, times: &[EventTime]) -> Vec<(usize, EventTime)> {
        let (before, mut late) = (self.watermark, false);
        // Rows are rarely late: one pass without a branch finds out, a second one says which.
        for time in times {
            late |= *time < self.watermark;
            self.watermark = self.watermark.max(time.saturating_sub(self.disorder));
        }
        if !late {
            return Vec::new();
        }
        let mut watermark = before;
        let mut found = Vec::new();
        for (row, time) in times.iter().enumerate() {
            if *time < watermark {
                found.push((row, watermark));
            }
            watermark = watermark.max(time.saturating_sub(self.disorder));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_definition_whatever_the_cuts(
            times in prop::collection::vec(-50i64..50, 0..60),
            disorder in 0i64..30,
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            let expected: Vec<(usize, i64)> = (0..times.len())
                .filter_map(|i| times[..i].iter().max().map(|m| (i, m - disorder)))
                .filter(|(i, w)| times[*i] < *w)
                .collect();
            let (mut lateness, mut found, mut from) = (Lateness::new(disorder), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if from == times.len() {
                    break;
                }
                let to = (from + cut).min(times.len());
                found.extend(lateness.observe(&times[from..to]).into_iter().map(|(i, w)| (from + i, w)));
                from = to;
            }
            prop_assert_eq!(found, expected);
            let highest = times.iter().max().map_or(i64::MIN, |m| m - disorder);
            prop_assert_eq!(lateness.watermark(), highest);
        }
    }

    #[test]
    fn the_ends_of_time_do_not_wrap() {
        let mut lateness = Lateness::new(i64::MAX);
        assert!(lateness.observe(&[i64::MIN, i64::MAX, i64::MIN]).iter().all(|(row, w)| *row == 2 && *w == 0));
    }
}

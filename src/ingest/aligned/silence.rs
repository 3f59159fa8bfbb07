//! Silence: live partitions that stop holding the watermark, and time that goes on when all of them are silent.
//!
//! A partition is silent when it had been read to its end for `idle_after` at the moment at which its brokers were asked a
//! question that they then answered, and had answered all the while: brokers that are away make no silence. The watermark is
//! the lowest of those that are not silent. When all are, it goes on at the pace of the wall clock: W = e + (a − t) − disorder,
//! for the newest event time e, the moment t at which rows last came, and that moment a, yet never past the wall clock
//! itself less the disorder.

use std::time::Instant;

use super::{Aligned, Lane};
use crate::base::{EventTime, Micros, wall_clock};

/// How far event time has come.
pub(super) struct Progress {
    /// The lowest watermark of the lanes that count; all is complete when there are none.
    pub watermark: EventTime,
    /// The job's clock, where silence moves it.
    pub clock: Option<EventTime>,
    /// The silent lanes.
    pub idle: Vec<usize>,
}

impl Aligned {
    /// How far event time has come.
    pub(super) fn progress(&self) -> Progress {
        let (mut lowest, mut idle) = (None, Vec::new());
        for (index, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| !lane.done) {
            if self.is_silent(lane) {
                idle.push(index);
            } else {
                lowest = Some(lowest.map_or(lane.watermark, |lowest: EventTime| lowest.min(lane.watermark)));
            }
        }
        match lowest {
            Some(watermark) => Progress { watermark, clock: None, idle },
            None if idle.is_empty() => Progress { watermark: EventTime::MAX, clock: None, idle },
            None => {
                let lanes = || idle.iter().map(|&index| &self.lanes[index]);
                let newest = lanes().map(|lane| lane.newest).max().unwrap_or(EventTime::MIN);
                let heard = lanes().map(|lane| lane.heard).max().unwrap_or_else(Instant::now);
                let disorder = lanes().map(|lane| lane.disorder).max().unwrap_or_default();
                let asked = idle.iter().filter_map(|&index| self.readers[self.lanes[index].source].answering());
                let asked = asked.map(|(_, asked)| asked).min().unwrap_or(heard);
                let silent = asked.saturating_duration_since(heard).as_micros() as Micros;
                let clock = silent_clock(newest, silent, wall_clock());
                let watermark = clock.map_or(self.watermark, |clock| clock.saturating_sub(disorder));
                Progress { watermark, clock, idle }
            }
        }
    }

    /// Whether a lane has been silent for long enough.
    pub(super) fn is_silent(&self, lane: &Lane) -> bool {
        let Some(idle_after) = lane.idle_after.filter(|_| lane.caught_up) else { return false };
        self.readers[lane.source]
            .answering()
            .is_some_and(|(first, last)| last.saturating_duration_since(first.max(lane.heard)) >= idle_after)
    }
}

/// The event time that a silent job has come to; none where no event has come at all.
fn silent_clock(newest: EventTime, silent: Micros, wall: EventTime) -> Option<EventTime> {
    // Events from the future hold the clock where they are.
    (newest != EventTime::MIN).then(|| newest.saturating_add(silent).min(wall.max(newest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_job_goes_on_at_the_pace_of_the_wall_clock() {
        assert_eq!(silent_clock(EventTime::MIN, 5, 1_000), None, "nothing is known of time yet");
        assert_eq!(silent_clock(100, 5, 1_000), Some(105));
        assert_eq!(silent_clock(998, 5, 1_000), Some(1_000), "never past the wall clock");
        assert_eq!(silent_clock(2_000, 5, 1_000), Some(2_000), "events from the future");
    }
}

//! Cutting by recorded ticks, to prove what a run did or to go on where it died.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Aligned, Close, Lane, Next};
use crate::base::EventTime;
use crate::base::Micros;
use crate::ingest::IngestError;
use crate::ingest::ticks::TickRecord;

/// What comes after the last recorded tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// The input ends with it.
    End,
    /// The input goes on, cut anew.
    GoOn,
}

/// Recorded ticks that are still to come.
pub(super) struct Following {
    records: VecDeque<TickRecord>,
    afterwards: Afterwards,
}

impl Aligned {
    /// Cuts from here on by recorded ticks, which begin with the next tick and at the readers' positions.
    pub fn follow(&mut self, records: Vec<TickRecord>, afterwards: Afterwards) {
        self.following = Some(Following { records: records.into(), afterwards });
    }

    /// Whether ticks of a log are to come behind which the input goes on.
    pub(super) fn must_follow(&self) -> bool {
        self.following.as_ref().is_some_and(|f| f.afterwards == Afterwards::GoOn && !f.records.is_empty())
    }

    /// The next recorded tick; none where the input is cut anew.
    pub(super) fn follow_on(&mut self, now: Instant) -> Result<Option<Next>, IngestError> {
        let Some(following) = &mut self.following else { return Ok(None) };
        let Some(record) = following.records.pop_front() else {
            if following.afterwards == Afterwards::End {
                return Ok(Some(Next::End));
            }
            self.following = None;
            // Paces count from where they begin to hold anything back.
            self.paces.iter_mut().for_each(super::Pace::restart);
            return Ok(None);
        };
        let last = following.records.is_empty()
            && match following.afterwards {
                Afterwards::End => true,
                // Only the end of all input completes all times.
                Afterwards::GoOn => record.watermark == EventTime::MAX && record.epoch_end,
            };
        self.replay(record, last, now).map(Some)
    }

    /// Reads exactly the input of a recorded tick.
    fn replay(&mut self, mut record: TickRecord, last: bool, now: Instant) -> Result<Next, IngestError> {
        if record.tick != self.tick {
            let (got, next) = (record.tick, self.tick);
            let what =
                format!("the tick log goes on with tick {got} where {next} comes next; give the log of this very run");
            return Err(IngestError::Checkpoint { what });
        }
        for (source, partition, offset) in std::mem::take(&mut record.entered) {
            let (source, partition) = (source as usize, partition as usize);
            if self.readers.get(source).is_none_or(|reader| reader.partitions() != partition) {
                let name = self.names.get(source).map_or("?", String::as_str);
                let what = "the tick log is of another job; give the dataflow file that it was written with";
                return Err(IngestError::source(name, what));
            }
            self.readers[source].enter(offset)?;
            self.enter(source, partition, now);
        }
        for index in 0..self.lanes.len() {
            let lane = &self.lanes[index];
            let until = record.offsets.get(lane.source).and_then(|o| o.get(lane.partition)).copied().unwrap_or(0);
            while self.lanes[index].next_offset < until {
                let before = self.lanes[index].next_offset;
                self.lanes[index].dry = false;
                self.read(index, (until - before) as usize, Some(until), now)?;
                let lane = &self.lanes[index];
                if lane.dry {
                    // On its way from the broker.
                    if let Some(following) = &mut self.following {
                        following.records.push_front(record);
                    }
                    return Ok(Next::Wait(Duration::from_millis(1)));
                }
                if lane.next_offset == before {
                    return Err(IngestError::source(
                        &self.names[lane.source],
                        format!(
                            "partition {} ends at offset {before}, but the tick log goes on to {until}; give the files that the log was written from",
                            lane.partition
                        ),
                    ));
                }
            }
        }
        let silent = |lane: &Lane| record.idle.contains(&(lane.source as u32, lane.partition as u32));
        let idle: Vec<usize> = (0..self.lanes.len()).filter(|&i| silent(&self.lanes[i])).collect();
        if !idle.is_empty()
            && record.watermark != EventTime::MIN
            && self.lanes.iter().all(|lane| lane.done || silent(lane))
        {
            self.all_silent(&idle, record.watermark, now);
        }
        let (watermark, epoch_end) = (record.watermark, record.epoch_end);
        let mut next = self.emit(now, Close { last, watermark, epoch_end, replayed: true }, &idle);
        if let Next::Cut(cut) = &mut next {
            cut.commands = record.commands;
        }
        Ok(next)
    }

    /// Silence had moved the watermark to where it was recorded: the job's clock goes on from there.
    fn all_silent(&mut self, idle: &[usize], watermark: EventTime, now: Instant) {
        let disorder = idle.iter().map(|&index| self.lanes[index].disorder).max().unwrap_or_default();
        let clock = watermark.saturating_add(disorder);
        self.newest = self.newest.max(clock);
        for &index in idle {
            let lane = &mut self.lanes[index];
            let since = now.saturating_duration_since(lane.heard).as_micros() as Micros;
            if lane.newest.saturating_add(since) < clock {
                (lane.newest, lane.heard) = (clock, now);
            }
        }
    }
}

//! The as-of join's core: for each probe (a key and a time) the latest row of its key at or before the time.
//!
//! Rows may be offered in any order, by several threads to a [`Best`] of their own each. A row that is offered is held
//! against one probe only: the earliest one of its key that is not before it. What a later probe of the key sees is the
//! newest of what was found for it and for those before it, so one pass over the probes at the end tells all. The memory is
//! that of the probes, however many rows are offered.

use super::keys::{KeyIndex, NO_GROUP};
use crate::base::EventTime;

/// Where a row is: its file, its number in there.
pub(super) type At = (u32, u32);

const NOWHERE: At = (u32::MAX, u32::MAX);

/// What is asked for, by key and time.
pub(super) struct Probes {
    /// The keys, by group.
    pub index: KeyIndex,
    /// Where the places of a group begin; one more than groups.
    starts: Vec<u32>,
    /// Times of the places, ascending within each group.
    times: Vec<EventTime>,
    /// The probe of each place.
    rows: Vec<u32>,
    /// Probes, those without a key or a time too.
    count: usize,
}

impl Probes {
    /// Probes of the keys that `index` has numbered as `groups`, at `times`; a probe without a key or a time finds nothing.
    pub fn new(index: KeyIndex, groups: &[u32], times: &[Option<EventTime>]) -> Probes {
        let mut starts = vec![0u32; index.len() + 1];
        let known = || {
            let rows = groups.iter().zip(times).zip(0u32..);
            rows.filter(|((group, _), _)| **group != NO_GROUP)
                .filter_map(|((group, time), row)| time.map(|time| (*group as usize, time, row)))
        };
        for (group, ..) in known() {
            starts[group + 1] += 1;
        }
        for group in 0..index.len() {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut places = vec![(0, 0u32); starts.last().map_or(0, |n| *n as usize)];
        for (group, time, row) in known() {
            places[next[group] as usize] = (time, row);
            next[group] += 1;
        }
        for group in starts.windows(2) {
            places[group[0] as usize..group[1] as usize].sort_unstable();
        }
        let (times, rows) = places.into_iter().unzip();
        Probes { index, starts, times, rows, count: groups.len() }
    }

    /// The earliest and the latest time asked for.
    pub fn span(&self) -> Option<(EventTime, EventTime)> {
        Some((self.times.iter().copied().min()?, self.times.iter().copied().max()?))
    }

    /// An empty answer.
    pub fn best(&self) -> Best {
        Best { times: vec![EventTime::MIN; self.times.len()], at: vec![NOWHERE; self.times.len()], ties: Vec::new() }
    }
}

/// The newest rows that were offered so far.
pub(super) struct Best {
    times: Vec<EventTime>,
    at: Vec<At>,
    /// Further rows of the same time: place, time, where.
    ties: Vec<(u32, EventTime, At)>,
}

impl Best {
    /// Offers a row of `group` at `time`.
    #[inline]
    pub fn offer(&mut self, probes: &Probes, group: u32, time: EventTime, at: At) {
        let (start, end) = (probes.starts[group as usize] as usize, probes.starts[group as usize + 1] as usize);
        let place = start + probes.times[start..end].partition_point(|asked| *asked < time);
        if place == end {
            return;
        }
        if self.at[place] == NOWHERE || time > self.times[place] {
            (self.times[place], self.at[place]) = (time, at);
        } else if time == self.times[place] {
            self.ties.push((place as u32, time, at));
        }
    }

    /// Takes in what another thread was offered.
    pub fn merge(&mut self, other: Best) {
        for (place, (time, at)) in other.times.into_iter().zip(other.at).enumerate() {
            if at == NOWHERE {
                continue;
            }
            if self.at[place] == NOWHERE || time > self.times[place] {
                (self.times[place], self.at[place]) = (time, at);
            } else if time == self.times[place] {
                self.ties.push((place as u32, time, at));
            }
        }
        self.ties.extend(other.ties);
    }

    /// What each probe finds. `oldest` tells of a probe's time which row is too old to count.
    pub fn finish(mut self, probes: &Probes, oldest: impl Fn(EventTime) -> EventTime) -> Found {
        self.ties.retain(|(place, time, _)| *time == self.times[*place as usize]);
        self.ties.sort_unstable();
        self.ties.dedup();
        let mut found = Found { of: vec![None; probes.count], sets: Vec::new() };
        let mut ties = self.ties.into_iter().peekable();
        for group in probes.starts.windows(2) {
            // The set of rows that the newest probe so far sees, and their time.
            let mut newest: Option<(EventTime, u32)> = None;
            for place in group[0]..group[1] {
                let at = place as usize;
                let mut tied = Vec::new();
                while let Some((_, _, row)) = ties.next_if(|(of, ..)| *of == place) {
                    tied.push(row);
                }
                if self.at[at] != NOWHERE && newest.is_none_or(|(time, _)| time < self.times[at]) {
                    newest = Some((self.times[at], found.sets.len() as u32));
                    tied.retain(|row| *row != self.at[at]);
                    found.sets.push((self.at[at], tied.into_boxed_slice()));
                }
                let asked = probes.times[at];
                found.of[probes.rows[at] as usize] =
                    newest.filter(|(time, _)| *time >= oldest(asked)).map(|(_, set)| set);
            }
        }
        found
    }
}

/// What probes have found.
pub(super) struct Found {
    /// Per probe the number of a set of rows, if it has found any.
    pub of: Vec<Option<u32>>,
    /// Rows of one key and time: one, and those that it has to be chosen from.
    pub sets: Vec<(At, Box<[At]>)>,
}

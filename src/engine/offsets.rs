//! Tells the brokers how far topics have been read, so that tools that show lag show it. Nothing here is ever read back.
//!
//! What is committed is where the newest tick ends that is through the graph: its rows have left the last operator, and its
//! record in the tick log is durable. A thread of each source commits, with a client of its own, at most once a second: a
//! coordinator that does not answer holds up neither the worker nor the reader, and newer offsets take the place of those
//! that wait. A commit that fails costs a warning, once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::EngineError;
use crate::base::Tick;
use crate::ingest::ticks::Durable;
use crate::ingest::{GroupOffsets, IngestError};
use crate::ops::control::TickInfo;
use crate::plan::model::{Connector, Plan};

/// Shortest time between two commits.
const PAUSE: Duration = Duration::from_secs(1);

/// A commit that failed is tried again after this long when there is nothing newer.
const RETRY: Duration = Duration::from_secs(5);

/// Brokers forget the offsets of a group that does not commit for some days, and a topic may be silent for longer.
const RENEW: Duration = Duration::from_secs(3_600);

/// How long the end of a job waits for the last commit.
const GRACE: Duration = Duration::from_secs(5);

/// The sources that commit offsets.
#[derive(Default)]
pub struct Offsets {
    sources: Vec<Committer>,
}

struct Committer {
    source: usize,
    name: String,
    slot: Arc<Slot>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Next offsets by partition, and the tick that they end.
type Place = (Tick, Vec<u64>);

/// Through here offsets reach the thread.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// To be committed.
    newest: Option<Place>,
    /// To be committed when the job has ended well.
    last: Option<Place>,
    /// There will be no more.
    closed: bool,
    warned: bool,
}

impl Offsets {
    /// Starts a thread for each source of `plan` whose offsets are wanted. `log` says which ticks are durable.
    ///
    /// # Errors
    /// When a client cannot be configured, or a thread not be started.
    pub fn start(plan: &Plan, log: Option<&Durable>) -> Result<Offsets, EngineError> {
        let mut offsets = Offsets::default();
        for (source, plan) in plan.sources.iter().enumerate() {
            let Connector::Kafka(connector) = &plan.connector else { continue };
            let Some(group) = &connector.group else { continue };
            let client = GroupOffsets::open(plan, connector, group)?;
            let slot = Arc::new(Slot::default());
            let (theirs, log) = (Arc::clone(&slot), log.cloned());
            let commit = move |next: &[u64]| match next {
                [] => {
                    client.serve();
                    Ok(())
                }
                next => client.commit(next),
            };
            let thread = std::thread::Builder::new().name("kafka-offsets".to_owned());
            let thread = thread.spawn(move || work(&theirs, log.as_ref(), PAUSE, commit));
            let failed =
                |e: std::io::Error| IngestError::source(&plan.name, format!("a thread cannot be started: {e}"));
            let thread = Mutex::new(Some(thread.map_err(failed)?));
            offsets.sources.push(Committer { source, name: plan.name.clone(), slot, thread });
        }
        Ok(offsets)
    }

    /// Commits where the last tick ends and waits for that, though not for ever. For a job that has ended well.
    pub fn finish(&self) {
        for committer in &self.sources {
            let mut state = committer.slot.lock();
            state.newest = state.last.take().or(state.newest.take());
            drop(state);
            committer.slot.close();
        }
        let deadline = Instant::now() + GRACE;
        for committer in &self.sources {
            let thread = committer.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(thread) = thread else { continue };
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                // Its panic, a defect, has been reported.
                let _ = thread.join();
            } else if !std::mem::replace(&mut committer.slot.lock().warned, true) {
                tracing::warn!(
                    source = committer.name,
                    "kafka has not answered the last commit of offsets within 5 s; the lag that it shows is too large"
                );
            }
        }
    }

    fn hand_over(&self, tick: Tick, mut offsets: Vec<Vec<u64>>, last: bool) {
        for committer in &self.sources {
            let place = (tick, offsets.get_mut(committer.source).map(std::mem::take).unwrap_or_default());
            let mut state = committer.slot.lock();
            if last {
                state.last = Some(place);
            } else if state.newest.replace(place).is_none() {
                drop(state);
                committer.slot.changed.notify_one();
            }
        }
    }
}

impl Drop for Offsets {
    fn drop(&mut self) {
        // Not waited for: after a failure nothing is to be told but that.
        self.sources.iter().for_each(|committer| committer.slot.close());
    }
}

/// Ticks that are in the graph.
#[derive(Default)]
pub struct Underway {
    ticks: VecDeque<(Tick, Vec<Vec<u64>>)>,
}

impl Underway {
    /// Takes note of a tick that was sent, and of the next offsets by source and partition after it.
    pub fn sent(&mut self, offsets: &Offsets, info: &TickInfo, next: Vec<Vec<u64>>) {
        if offsets.sources.is_empty() {
            return;
        }
        if info.last {
            offsets.hand_over(info.tick, next, true);
        } else {
            self.ticks.push_back((info.tick, next));
        }
    }

    /// Hands over where the newest tick ends that is through.
    pub fn through(&mut self, offsets: &Offsets, is_through: impl Fn(Tick) -> bool) {
        let mut newest = None;
        while self.ticks.front().is_some_and(|(tick, _)| is_through(*tick)) {
            newest = self.ticks.pop_front();
        }
        if let Some((tick, next)) = newest {
            offsets.hand_over(tick, next, false);
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Takes what is there from `earliest` on, or nothing at `latest`; and whether there will be no more.
    fn take(&self, earliest: Instant, latest: Instant) -> (Option<Place>, bool) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let until = if state.newest.is_some() { earliest } else { latest };
            if state.closed || now >= until {
                return (state.newest.take(), state.closed);
            }
            state = self.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread's work. `commit` commits next offsets by partition; no offsets are no commit, only a time to look after the client.
fn work(
    slot: &Slot,
    log: Option<&Durable>,
    pause: Duration,
    mut commit: impl FnMut(&[u64]) -> Result<(), IngestError>,
) {
    let (mut wanted, mut committed) = (Vec::new(), Vec::new());
    let mut tried = Instant::now();
    let mut renew = tried + RENEW;
    // The first does not wait: whoever starts a job looks for it.
    let mut earliest = tried;
    loop {
        let (news, closed) = slot.take(earliest, tried + RETRY);
        if let Some((tick, next)) = news {
            // A log that has failed ends the job.
            if log.is_some_and(|log| log.wait(tick).is_err()) {
                return;
            }
            wanted = next;
        }
        tried = Instant::now();
        if wanted != committed || (tried >= renew && !closed) {
            earliest = tried + pause;
            match commit(&wanted) {
                Ok(()) => {
                    committed.clone_from(&wanted);
                    renew = tried + RENEW;
                }
                Err(error) if std::mem::replace(&mut slot.lock().warned, true) => {
                    tracing::debug!(%error, "offsets");
                }
                Err(error) => tracing::warn!("{error}; the job goes on"),
            }
        } else {
            // Of no offsets nothing is committed.
            let _ = commit(&[]);
        }
        if closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committer(source: usize) -> Committer {
        Committer { source, name: "s".to_owned(), slot: Arc::default(), thread: Mutex::default() }
    }

    fn info(tick: Tick, last: bool) -> TickInfo {
        TickInfo { tick, watermark: 0, previous_watermark: 0, now: 0, epoch: 0, epoch_end: last, last }
    }

    #[test]
    fn what_is_handed_over_is_through_and_the_newest() {
        let offsets = Offsets { sources: vec![committer(1)] };
        let newest = || offsets.sources[0].slot.lock().newest.take();
        let mut underway = Underway::default();
        for tick in 0..5 {
            underway.sent(&offsets, &info(tick, false), vec![vec![], vec![tick * 10, 7]]);
        }
        underway.through(&offsets, |_| false);
        assert_eq!(newest(), None);
        underway.through(&offsets, |tick| tick < 3);
        assert_eq!(newest(), Some((2, vec![20, 7])));
        underway.through(&offsets, |tick| tick < 3);
        assert_eq!(newest(), None);
        // The last tick waits for the end of the job, and is not told of when that is a failure.
        underway.sent(&offsets, &info(5, true), vec![vec![], vec![50, 7]]);
        underway.through(&offsets, |_| true);
        assert_eq!(newest(), Some((4, vec![40, 7])));
        offsets.finish();
        assert_eq!(newest(), Some((5, vec![50, 7])));
        assert!(offsets.sources[0].slot.lock().closed);
    }

    #[test]
    fn commits_are_apart_and_the_last_comes_at_once() {
        let slot = Arc::new(Slot::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (theirs, told) = (Arc::clone(&slot), Arc::clone(&seen));
        let pause = Duration::from_millis(200);
        let thread = std::thread::spawn(move || {
            work(&theirs, None, pause, |next| {
                if !next.is_empty() {
                    told.lock().unwrap().push((Instant::now(), next.to_vec()));
                }
                // The first is refused.
                let refused = told.lock().unwrap().len() == 1;
                if refused { Err(IngestError::source("s", "refused")) } else { Ok(()) }
            });
        });
        let begin = Instant::now();
        let mut next = 0;
        while begin.elapsed() < Duration::from_millis(900) {
            next += 1;
            slot.lock().newest = Some((next, vec![next]));
            slot.changed.notify_one();
            std::thread::sleep(Duration::from_millis(1));
        }
        // The same again is no news.
        while slot.lock().newest.is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = seen.lock().unwrap().len();
        slot.lock().newest = Some((next + 1, vec![next]));
        std::thread::sleep(pause * 2);
        assert_eq!(seen.lock().unwrap().len(), before);
        slot.lock().newest = Some((next + 2, vec![next + 1]));
        slot.close();
        thread.join().unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.last().map(|(_, next)| next.clone()), Some(vec![next + 1]));
        assert!((3..=6).contains(&before), "{before} commits");
        let apart = seen[..before].windows(2).map(|pair| pair[1].0 - pair[0].0).min().unwrap();
        assert!(apart >= pause - Duration::from_millis(5), "{apart:?}");
        assert!(slot.lock().warned);
    }
}

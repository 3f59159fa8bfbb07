//! Commits epochs: gathers what operators, sources and sinks report, creates the manifest, has the sinks publish, removes
//! what nobody needs any more.
//!
//! An epoch is complete when everything that is expected has been reported: the cut of its last tick, one part per worker,
//! and one answer per sink and worker. Nothing is ever concluded from silence. Epochs are committed in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::StateError;
use super::decide::garbage;
use super::manifest::{self, Entry, Manifest};
use super::part::{self, PartRef};
use super::store::Store;
use crate::base::{Epoch, EventTime, Tick, failpoint, wall_clock};

/// Deltas smaller than this are not worth a new base.
const DELTA_BYTES_MIN: u64 = 1 << 20;
/// Snapshots whose sizes are remembered one by one.
const RECENT: usize = 64;

/// The last tick of an epoch, as it was cut.
#[derive(Clone, Debug)]
pub struct CutReport {
    /// The epoch.
    pub epoch: Epoch,
    /// Its last tick.
    pub tick: Tick,
    /// The watermark with it.
    pub watermark: EventTime,
    /// The job's clock with it.
    pub now: EventTime,
    /// Whether no tick follows.
    pub last: bool,
    /// What the sources need to go on.
    pub reader: Value,
}

/// What is reported of an epoch.
#[derive(Debug)]
pub enum Report {
    /// Its last tick was cut.
    Cut(Box<CutReport>),
    /// A part of the snapshot is durable.
    Part {
        /// The epoch.
        epoch: Epoch,
        /// The part.
        part: PartRef,
    },
    /// A part of a sink has staged its rows, or has none.
    Staged {
        /// The epoch.
        epoch: Epoch,
        /// The sink.
        sink: String,
        /// What it needs to publish them.
        value: Option<Value>,
    },
}

/// Where reports are sent.
#[derive(Clone)]
pub struct Reporter(Sender<Report>);

impl Reporter {
    /// Sends a report.
    pub fn send(&self, report: Report) {
        // The coordinator ends early only when it failed, and then the job does.
        let _ = self.0.send(report);
    }
}

/// What the coordinator needs from those around it. Each call may take its time.
pub trait Hooks: Send + Sync {
    /// Waits until a tick is durable in the tick log; false ends the coordinator.
    fn wait_durable(&self, tick: Tick) -> bool;
    /// Publishes what the sinks staged; idempotent. False ends the coordinator.
    fn publish(&self, epoch: Epoch, outboxes: &BTreeMap<String, Vec<Value>>) -> bool;
    /// Ticks before this one are needed by no kept epoch.
    fn forget_before(&self, tick: Tick);
    /// An epoch's manifest is there.
    fn committed(&self, committed: &Committed) {
        let _ = committed;
    }
    /// An epoch is published, so long after its last tick was cut.
    fn published(&self, epoch: Epoch, took: Duration) {
        let _ = (epoch, took);
    }

    /// The coordinator, or a snapshot's writer, has failed.
    fn failed(&self, error: StateError);
}

/// Where manifests go, and what every one of them says.
pub struct Log {
    /// The state.
    pub store: Store,
    /// Number of our claim.
    pub generation: u64,
    /// Epochs to keep.
    pub keep: usize,
    /// Every manifest says this of the job; the rest is filled in.
    pub template: Manifest,
    /// Parts that the loaded state consists of.
    pub chain: Vec<PartRef>,
    /// The log as it was when we took over.
    pub entries: BTreeMap<u64, manifest::Seen>,
}

/// What makes an epoch complete.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The number of the first epoch.
    pub first: Epoch,
    /// Snapshot parts.
    pub parts: usize,
    /// Answers by sink.
    pub sinks: BTreeMap<String, usize>,
}

/// An epoch whose manifest is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The epoch and what was written for it.
    pub size: SnapshotSize,
    /// The claim under which it was written.
    pub generation: u64,
    /// Bytes of all that it builds on, its own among them.
    pub bytes_total: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// How far the coordinator has come.
#[derive(Debug, Default)]
pub struct Progress {
    cut: AtomicU64,
    committed: AtomicU64,
    /// The number of the next epoch to be published.
    next: AtomicU64,
    /// Epochs from which on nothing is removed, by who asked for it.
    pins: Mutex<BTreeMap<u64, Epoch>>,
    pins_made: AtomicU64,
    whole: AtomicBool,
    written: Mutex<Written>,
}

/// Size of a committed snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotSize {
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch's last tick.
    pub tick: Tick,
    /// Bytes of its parts, without those of epochs before that it builds on.
    pub bytes: u64,
    /// Whether it builds on none.
    pub whole: bool,
}

/// What was committed so far.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Snapshots.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whole ones.
    pub whole_count: u64,
    /// Their bytes.
    pub whole_bytes: u64,
    /// Bytes of the last whole one.
    pub whole_last: u64,
    /// The latest.
    pub recent: VecDeque<SnapshotSize>,
}

impl Written {
    fn add(&mut self, size: SnapshotSize) {
        self.count += 1;
        self.bytes += size.bytes;
        if size.whole {
            self.whole_count += 1;
            self.whole_bytes += size.bytes;
            self.whole_last = size.bytes;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(size);
    }
}

impl Progress {
    /// Notes that an epoch's last tick is on its way.
    pub fn begin(&self) {
        self.cut.fetch_add(1, Ordering::AcqRel);
    }

    /// Epochs that were cut and are not published.
    pub fn outstanding(&self) -> u64 {
        self.cut.load(Ordering::Acquire).saturating_sub(self.committed.load(Ordering::Acquire))
    }

    /// The number of the next epoch to be published: those before are.
    pub fn next(&self) -> Epoch {
        self.next.load(Ordering::Acquire)
    }

    /// Keeps what is, and what will be, committed from the next epoch on, until the pin is dropped; earlier epochs that are kept
    /// now stay too.
    pub fn pin(self: &Arc<Self>) -> Pin {
        let number = self.pins_made.fetch_add(1, Ordering::Relaxed);
        // The newest that is published may be the one that is wanted.
        let floor = self.next().saturating_sub(1);
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).insert(number, floor);
        Pin { progress: Arc::clone(self), number }
    }

    /// The first epoch that is pinned.
    fn pinned(&self) -> Option<Epoch> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }

    /// What was committed so far.
    pub fn written(&self) -> Written {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the next snapshot is to be whole.
    pub fn wants_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Notes that a whole snapshot is on its way.
    pub fn whole_begun(&self) {
        self.whole.store(false, Ordering::Release);
    }

    /// Makes the next snapshot whole.
    pub fn want_whole(&self) {
        self.whole.store(true, Ordering::Release);
    }
}

/// Keeps epochs from being removed; see [`Progress::pin`].
#[derive(Debug)]
pub struct Pin {
    progress: Arc<Progress>,
    number: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.progress.pins.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The coordinator's thread.
pub struct Coordinator {
    reports: Option<Sender<Report>>,
    thread: Option<JoinHandle<()>>,
}

impl Coordinator {
    /// Starts it. Without `log` epochs are published as soon as they are complete, and nothing can be restored.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        log: Option<Log>,
        expected: Expected,
        progress: Arc<Progress>,
        hooks: Arc<dyn Hooks>,
    ) -> std::io::Result<(Coordinator, Reporter)> {
        let (reports, inbox) = channel();
        progress.next.store(expected.first, Ordering::Release);
        let thread = std::thread::Builder::new().name("tidemill-commit".to_owned()).spawn(move || {
            let next = expected.first;
            let log = log.map(Logging::new);
            if let Some(log) = &log {
                log.sweep();
            }
            let mut run = Run { log, expected, next, open: BTreeMap::new(), progress, hooks };
            run.receive(&inbox);
        })?;
        Ok((Coordinator { reports: Some(reports.clone()), thread: Some(thread) }, Reporter(reports)))
    }

    /// Waits until everything reported is dealt with. All reporters must have been dropped.
    pub fn finish(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.reports = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, short of a defect there is none, has been reported.
            let _ = thread.join();
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.join();
    }
}

/// An epoch that is not complete.
#[derive(Default)]
struct Open {
    cut: Option<CutReport>,
    since: Option<Instant>,
    parts: Vec<PartRef>,
    staged: BTreeMap<String, (usize, Vec<Value>)>,
}

struct Run {
    log: Option<Logging>,
    expected: Expected,
    next: Epoch,
    open: BTreeMap<Epoch, Open>,
    progress: Arc<Progress>,
    hooks: Arc<dyn Hooks>,
}

impl Run {
    fn receive(&mut self, inbox: &Receiver<Report>) {
        for report in inbox {
            self.take(report);
            while let Some(open) = self.open.remove(&self.next) {
                if !self.is_complete(&open) {
                    self.open.insert(self.next, open);
                    break;
                }
                let since = open.since;
                match self.commit(open) {
                    Ok(true) => {
                        since.iter().for_each(|since| self.hooks.published(self.next, since.elapsed()));
                        self.next += 1;
                        self.progress.next.store(self.next, Ordering::Release);
                        self.progress.committed.fetch_add(1, Ordering::AcqRel);
                    }
                    Ok(false) => return,
                    Err(error) => return self.hooks.failed(error),
                }
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Cut(cut) => {
                let epoch = cut.epoch;
                let open = self.open.entry(epoch).or_default();
                (open.cut, open.since) = (Some(*cut), Some(Instant::now()));
            }
            Report::Part { epoch, part } => self.open.entry(epoch).or_default().parts.push(part),
            Report::Staged { epoch, sink, value } => {
                let staged = self.open.entry(epoch).or_default().staged.entry(sink).or_default();
                staged.0 += 1;
                staged.1.extend(value);
            }
        }
    }

    fn is_complete(&self, open: &Open) -> bool {
        let parts = if self.log.is_some() { self.expected.parts } else { 0 };
        let answers = |sink: &String| open.staged.get(sink).map_or(0, |(count, _)| *count);
        open.cut.is_some()
            && open.parts.len() == parts
            && self.expected.sinks.iter().all(|(sink, count)| answers(sink) == *count)
    }

    fn commit(&mut self, open: Open) -> Result<bool, StateError> {
        let Open { cut: Some(cut), mut parts, staged, .. } = open else { return Ok(true) };
        // By name, so that a manifest does not depend on who was first.
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        let outboxes: BTreeMap<String, Vec<Value>> = staged
            .into_iter()
            .map(|(sink, (_, values))| (sink, values))
            .filter(|(_, values)| !values.is_empty())
            .collect();
        if !self.hooks.wait_durable(cut.tick) {
            return Ok(false);
        }
        let epoch = cut.epoch;
        if let Some(log) = &mut self.log {
            failpoint("checkpoint.staged");
            let bytes = parts.iter().map(|part| part.bytes).sum();
            let size = SnapshotSize { epoch, tick: cut.tick, bytes, whole: parts.iter().all(|part| part.whole) };
            let at_ms = log.append(&cut, parts, &outboxes)?;
            self.progress.written.lock().unwrap_or_else(PoisonError::into_inner).add(size);
            let bytes_total = log.log.chain.iter().map(|part| part.bytes).sum();
            self.hooks.committed(&Committed { size, generation: log.log.generation, bytes_total, at_ms });
            failpoint("checkpoint.committed");
        }
        if !self.hooks.publish(epoch, &outboxes) {
            return Ok(false);
        }
        failpoint("checkpoint.published");
        if let Some(log) = &mut self.log {
            if log.wants_whole() {
                self.progress.want_whole();
            }
            // Whoever copies an epoch has asked before its number was known.
            let kept = self.progress.pinned().map_or(epoch, |pinned| pinned.min(epoch));
            if let Some(tick) = log.clean(kept) {
                self.hooks.forget_before(tick);
            }
        }
        Ok(true)
    }
}

/// The log and what is known of it.
struct Logging {
    log: Log,
    claims: BTreeSet<u64>,
    /// Per kept epoch: its last tick and the parts that it needs.
    epochs: BTreeMap<Epoch, (Tick, BTreeSet<String>)>,
}

impl Logging {
    fn new(log: Log) -> Logging {
        let (mut claims, mut epochs) = (BTreeSet::from([log.generation]), BTreeMap::new());
        for (number, seen) in &log.entries {
            match seen {
                manifest::Seen::Whole(Entry::Claim(_)) => {
                    claims.insert(*number);
                }
                manifest::Seen::Whole(Entry::Epoch(manifest)) => {
                    epochs.insert(*number, (manifest.tick, part_names(manifest)));
                }
                // Kept for whoever looks into it, until it is old.
                manifest::Seen::Damaged(_) => {
                    epochs.insert(*number, (0, BTreeSet::new()));
                }
            }
        }
        Logging { log, claims, epochs }
    }

    /// Removes the parts of processes that died before they were named by a manifest. Best effort: the next start tries again.
    fn sweep(&self) {
        // What a damaged manifest names is needed when it is put back.
        if self.log.entries.values().any(|seen| matches!(seen, manifest::Seen::Damaged(_))) {
            return;
        }
        let store = &self.log.store;
        let kept = |name: &str| self.epochs.values().any(|(_, parts)| parts.contains(name));
        let swept = part::list(store).and_then(|parts| {
            let dead = |(generation, _): &&(u64, String)| *generation < self.log.generation;
            for (_, name) in parts.iter().filter(dead).filter(|(_, name)| !kept(name)) {
                store.remove(name)?;
            }
            store.remove_unfinished(part::FOLDER)?;
            store.remove_unfinished(manifest::FOLDER)
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "what dead processes left is not removed");
        }
    }

    /// Commits an epoch; tells when, in milliseconds since 1970.
    fn append(
        &mut self,
        cut: &CutReport,
        parts: Vec<PartRef>,
        outboxes: &BTreeMap<String, Vec<Value>>,
    ) -> Result<i64, StateError> {
        if !parts.is_empty() && parts.iter().all(|part| part.whole) {
            self.log.chain.clear();
        }
        self.log.chain.extend(parts);
        let manifest = Manifest {
            generation: self.log.generation,
            tick: cut.tick,
            watermark: cut.watermark,
            now: cut.now,
            committed_ms: wall_clock() / 1_000,
            parts: self.log.chain.clone(),
            reader: cut.reader.clone(),
            outboxes: outboxes.clone(),
            last: cut.last,
            ..self.log.template.clone()
        };
        let committed_ms = manifest.committed_ms;
        self.epochs.insert(cut.epoch, (cut.tick, part_names(&manifest)));
        if manifest::append(&self.log.store, cut.epoch, &Entry::Epoch(Box::new(manifest)))? {
            Ok(committed_ms)
        } else {
            Err(StateError::Superseded { place: self.log.store.place(), number: cut.epoch })
        }
    }

    /// Whether the deltas have outgrown their base.
    fn wants_whole(&self) -> bool {
        let sum = |whole| self.log.chain.iter().filter(|p| p.whole == whole).map(|p| p.bytes).sum::<u64>();
        sum(false) > sum(true).max(DELTA_BYTES_MIN)
    }

    /// Removes what is not needed; returns the tick from which on the tick log is. Best effort: what cannot be removed now is
    /// removed after another restart.
    fn clean(&mut self, published: Epoch) -> Option<Tick> {
        let numbers = self.epochs.keys().copied().collect();
        let old = garbage(&self.claims, &numbers, self.log.keep, published);
        let mut names = BTreeSet::new();
        for number in &old {
            if let Err(error) = manifest::remove(&self.log.store, *number) {
                tracing::warn!(%error, "an old epoch is not removed");
                return None;
            }
            self.claims.remove(number);
            names.extend(self.epochs.remove(number).map(|(_, parts)| parts).unwrap_or_default());
        }
        for name in names {
            if self.epochs.values().all(|(_, needed)| !needed.contains(&name))
                && let Err(error) = self.log.store.remove(&name)
            {
                tracing::warn!(%error, "an old part is not removed");
            }
        }
        let oldest = self.epochs.values().map(|(tick, _)| *tick).min();
        oldest.map(|tick| tick + 1).filter(|_| !old.is_empty())
    }
}

fn part_names(manifest: &Manifest) -> BTreeSet<String> {
    manifest.parts.iter().map(|part| part.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_stays_from_the_newest_published_epoch_on() {
        let progress = Arc::new(Progress::default());
        assert_eq!(progress.pinned(), None);
        progress.next.store(7, Ordering::Release);
        let first = progress.pin();
        progress.next.store(9, Ordering::Release);
        let second = progress.pin();
        assert_eq!(progress.pinned(), Some(6));
        drop(first);
        assert_eq!(progress.pinned(), Some(8));
        drop(second);
        assert_eq!(progress.pinned(), None);
    }
}

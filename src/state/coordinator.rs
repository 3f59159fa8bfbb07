//! Commits epochs: gathers what operators, sources and sinks report, creates the manifest, has the sinks publish, removes
//! what nobody needs any more.
//!
//! An epoch is complete when everything that is expected has been reported: the cut of its last tick, one part per worker,
//! and one answer per sink and worker. Nothing is ever concluded from silence. Epochs are committed in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::base::{Epoch, EventTime, SLOTS, SlotRange, Tick, failpoint, wall_clock};

/// State smaller than this is written anew no faster than if it were as large: its deltas cost nothing.
const STATE_BYTES_MIN: u64 = 1 << 20;
/// Slots that each epoch writes anew at least, so that a manifest names the parts of a bounded number of epochs.
const ANEW_MIN: u16 = 4;
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
    anew: Mutex<Anew>,
    written: Mutex<Written>,
}

/// Which slots are written anew next: in turn, some with each epoch, and what changed of all others.
#[derive(Debug, Default)]
struct Anew {
    next: u16,
    /// How many are due.
    due: u16,
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
    /// Bytes that a whole one takes, by those of each slot when it was last written anew.
    pub whole_now: u64,
    /// The latest.
    pub recent: VecDeque<SnapshotSize>,
}

impl Written {
    fn add(&mut self, size: SnapshotSize, whole_now: u64) {
        self.whole_now = whole_now;
        self.count += 1;
        self.bytes += size.bytes;
        if size.whole {
            self.whole_count += 1;
            self.whole_bytes += size.bytes;
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

    /// The slots that the next snapshot is to write anew.
    pub fn anew(&self) -> SlotRange {
        let anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        SlotRange::new(anew.next, anew.due)
    }

    /// Notes that a snapshot is on its way which writes the slots of [`Self::anew`] anew.
    pub fn anew_begun(&self, slots: SlotRange) {
        let mut anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        anew.due = anew.due.saturating_sub(slots.len());
        anew.next = slots.end() % SLOTS as u16;
    }

    /// Makes so many more slots due.
    fn owe(&self, slots: u16) {
        let mut anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        anew.due = anew.due.saturating_add(slots).min(SLOTS as u16);
    }

    /// Makes the first snapshot whole.
    pub fn want_whole(&self) {
        self.owe(SLOTS as u16);
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
            let whole_now = log.whole_bytes();
            self.progress.written.lock().unwrap_or_else(PoisonError::into_inner).add(size, whole_now);
            let bytes_total = log.log.chain.iter().map(|part| part.bytes).sum();
            self.hooks.committed(&Committed { size, generation: log.log.generation, bytes_total, at_ms });
            failpoint("checkpoint.committed");
        }
        if !self.hooks.publish(epoch, &outboxes) {
            return Ok(false);
        }
        failpoint("checkpoint.published");
        if let Some(log) = &mut self.log {
            self.progress.owe(log.due(epoch));
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
        self.log.chain.extend(parts);
        let first = first_needed(&self.log.chain);
        self.log.chain.retain(|part| part.epoch >= first);
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

    /// Bytes that all state takes: what the chain's epochs wrote anew, for as many slots as there are.
    fn whole_bytes(&self) -> u64 {
        let slots: BTreeMap<Epoch, SlotRange> = self.log.chain.iter().map(|part| (part.epoch, part.anew())).collect();
        let slots: u64 = slots.values().map(|slots| u64::from(slots.len())).sum();
        let bytes: u64 = self.log.chain.iter().map(PartRef::anew_bytes).sum();
        (bytes as f64 * SLOTS as f64 / slots.max(1) as f64) as u64
    }

    /// How many slots are to be written anew for what an epoch wrote besides: as much of all state as that is.
    fn due(&self, epoch: Epoch) -> u16 {
        let own = self.log.chain.iter().filter(|part| part.epoch == epoch);
        let delta: u64 = own.map(|part| part.bytes.saturating_sub(part.anew_bytes())).sum();
        let share = delta as f64 / self.whole_bytes().max(STATE_BYTES_MIN) as f64;
        ((SLOTS as f64 * share).ceil() as u16).clamp(ANEW_MIN, SLOTS as u16)
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

/// The first epoch of a chain that is needed: every slot was written anew in it or later, and what goes with the first slot.
fn first_needed(chain: &[PartRef]) -> Epoch {
    let by_epoch: BTreeMap<Epoch, SlotRange> = chain.iter().map(|part| (part.epoch, part.anew())).collect();
    let (mut lacking, mut seen) = (SLOTS, vec![false; SLOTS]);
    for (epoch, anew) in by_epoch.into_iter().rev() {
        for slot in anew.slots() {
            lacking -= usize::from(!std::mem::replace(&mut seen[slot], true));
        }
        if lacking == 0 {
            return epoch;
        }
    }
    0
}

fn part_names(manifest: &Manifest) -> BTreeSet<String> {
    manifest.parts.iter().map(|part| part.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(epoch: Epoch, from: u16, count: u16, (anew_bytes, bytes): (u64, u64)) -> PartRef {
        let anew = SlotRange::new(from, count);
        let (name, operators) = (format!("parts/{epoch}"), BTreeMap::new());
        PartRef { name, bytes, crc32: 0, epoch, whole: anew.is_all(), anew, anew_bytes, operators }
    }

    #[test]
    fn a_chain_begins_where_every_slot_was_written_anew() {
        let none = (0, 0);
        assert_eq!(first_needed(&[]), 0);
        assert_eq!(first_needed(&[part(3, 0, 1024, none), part(4, 0, 0, none), part(5, 0, 100, none)]), 3);
        let turns = [part(3, 0, 1024, none), part(4, 0, 500, none), part(5, 500, 500, none), part(6, 1000, 24, none)];
        assert_eq!(first_needed(&turns), 4);
        assert_eq!(first_needed(&turns[..3]), 3);
        // A start begins with the first slot again.
        let again = [part(5, 500, 524, none), part(7, 0, 300, none), part(8, 300, 300, none), part(9, 600, 424, none)];
        assert_eq!(first_needed(&again[1..]), 7);
        assert_eq!((first_needed(&again[..3]), first_needed(&turns[1..3])), (5, 0), "some were never");
        // Whole ones of an earlier version do not name their slots.
        let old = PartRef { anew: SlotRange::NONE, whole: true, ..part(2, 0, 0, (0, 70)) };
        assert_eq!(first_needed(&[old.clone(), part(3, 0, 9, none)]), 2);
        assert_eq!((old.anew(), old.anew_bytes()), (SlotRange::ALL, 70));
    }

    #[test]
    fn slots_come_in_turn_as_many_as_are_due() {
        let progress = Progress::default();
        assert!(progress.anew().is_empty());
        progress.want_whole();
        assert!(progress.anew().is_all());
        progress.anew_begun(SlotRange::ALL);
        assert!(progress.anew().is_empty());
        progress.owe(1000);
        progress.owe(20);
        assert_eq!(progress.anew(), SlotRange::new(0, 1020));
        progress.anew_begun(progress.anew());
        progress.owe(100);
        assert_eq!(progress.anew(), SlotRange::new(1020, 4), "a turn ends with the last slot");
        progress.anew_begun(progress.anew());
        assert_eq!(progress.anew(), SlotRange::new(0, 96));
    }

    #[test]
    fn what_is_written_anew_is_as_much_as_what_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().display().to_string()).expect("it opens");
        let template = Manifest::empty();
        let log = |chain: Vec<PartRef>| Log {
            store: store.clone(),
            generation: 0,
            keep: 1,
            template: template.clone(),
            chain,
            entries: BTreeMap::new(),
        };
        let mib = 1 << 20;
        let logging = Logging::new(log(vec![
            part(1, 0, 1024, (64 * mib, 64 * mib)),
            part(2, 0, 256, (32 * mib, 40 * mib)),
            part(3, 256, 0, (0, 0)),
        ]));
        // 96 MiB for 1,280 slots.
        assert_eq!(logging.whole_bytes(), 96 * mib * 1024 / 1280);
        assert_eq!(logging.due(2), (8.0f64 / 76.8 * 1024.0).ceil() as u16);
        assert_eq!((logging.due(1), logging.due(3)), (ANEW_MIN, ANEW_MIN), "an idle job's turn comes to its end, too");
        assert_eq!(Logging::new(log(vec![part(1, 0, 1024, (7, 8 * mib))])).due(1), 1024);
    }

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

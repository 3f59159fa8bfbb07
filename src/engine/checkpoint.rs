//! What the graph knows of checkpoints: where operators hand their state over, what they are restored from, and which ticks
//! were published before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::EngineError;
use super::figures::{Figures, Recovered};
use crate::base::{Epoch, EventTime, SLOTS, SlotRange, Tick};
use crate::ops::control::TickInfo;
use crate::ops::exchange::Placement;
use crate::state::{
    Encode, Hooks, Loaded, Mode, OperatorSnapshots, Progress, Report, Reporter, SlotBytes, Snapshots, Store,
};

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Checkpoints of a running job.
pub struct Checkpoints {
    /// How far epochs have come.
    pub progress: Arc<Progress>,
    /// What they cost.
    pub figures: Figures,
    reporter: Mutex<Option<Reporter>>,
    /// One writer per worker; none without a state directory.
    snapshots: Vec<Mutex<Option<Snapshots>>>,
    /// What operators are restored from, until the graph is built.
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// Which worker has which slots, by the name of the state.
    placements: Mutex<BTreeMap<String, Arc<Placement>>>,
    /// Workers that have not built their graph.
    building: AtomicUsize,
    /// Slots that are written anew by epochs on their way.
    anew: Mutex<BTreeMap<Epoch, SlotRange>>,
    /// Rows of ticks up to this one are not published again.
    pub suppress_through: Option<Tick>,
    /// Online values are written from this tick on: those before it are replayed, and what they wrote is newer already.
    pub online_from: Tick,
    /// The online store lacks values that were written before the state was saved.
    pub online_lost: bool,
    /// Losses of the online store that the stages had made up for when they saved, by epoch; the least of them.
    made_up: Mutex<BTreeMap<Epoch, u64>>,
    /// The first tick of this start.
    pub first_tick: Tick,
    /// The watermark of the state that operators are restored from.
    pub watermark: Option<EventTime>,
}

/// Where snapshots are written.
pub struct Target {
    /// The state.
    pub store: Store,
    /// Number of our claim.
    pub generation: u64,
    /// Worker threads.
    pub workers: usize,
    /// Who is told of failures.
    pub hooks: Arc<dyn Hooks>,
}

/// What a start goes on from.
#[derive(Default)]
pub struct Resumed {
    /// State to restore.
    pub loaded: Option<Loaded>,
    /// See [`Checkpoints::suppress_through`].
    pub suppress_through: Option<Tick>,
    /// See [`Checkpoints::online_from`].
    pub online_from: Tick,
    /// See [`Checkpoints::online_lost`].
    pub online_lost: bool,
    /// See [`Checkpoints::first_tick`].
    pub first_tick: Tick,
    /// See [`Checkpoints::watermark`].
    pub watermark: Option<EventTime>,
    /// What is known of it.
    pub recovered: Option<Recovered>,
}

impl Checkpoints {
    /// Starts the writers, where there is somewhere to write, for a start that began at `began`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        began: Instant,
        target: Option<Target>,
        resumed: Resumed,
        progress: Arc<Progress>,
        reporter: Reporter,
    ) -> Result<Checkpoints, EngineError> {
        let mut snapshots = Vec::new();
        let workers = target.as_ref().map_or(0, |target| target.workers);
        if let Some(Target { store, generation, workers, hooks }) = target {
            for worker in 0..workers {
                let writer = Snapshots::start(store.clone(), generation, worker, reporter.clone(), Arc::clone(&hooks));
                let writer = writer.map_err(|error| {
                    EngineError::Workers(format!("a snapshot thread could not be started: {error}"))
                })?;
                snapshots.push(Mutex::new(Some(writer)));
            }
        }
        let Resumed { loaded, suppress_through, online_from, online_lost, first_tick, watermark, recovered } = resumed;
        Ok(Checkpoints {
            progress,
            figures: Figures::new(began, recovered),
            reporter: Mutex::new(Some(reporter)),
            snapshots,
            loaded: Mutex::new(loaded.map(Arc::new)),
            placements: Mutex::default(),
            building: AtomicUsize::new(workers),
            anew: Mutex::default(),
            suppress_through,
            online_from,
            online_lost,
            made_up: Mutex::default(),
            first_tick,
            watermark,
        })
    }

    /// Whether state is saved.
    pub fn enabled(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Registers the stateful operator `name` on a worker.
    pub fn operator(&self, worker: usize, name: &str) -> Option<Saver> {
        let snapshots = self.snapshots.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshots = snapshots.as_ref().and_then(|snapshots| snapshots.operator(name))?;
        Some(Saver { snapshots, writing: None, gathered: Vec::new(), gathered_bytes: 0, mode: Mode::Change })
    }

    /// Hands the saved entries of `name` that a worker owns to `import`, oldest first; those of slot 0 when it has none by key.
    ///
    /// # Errors
    /// What `import` says.
    pub fn restore(
        &self,
        name: &str,
        place: (usize, usize),
        import: impl FnMut(u16, &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.restore_placed(name, place, &Placement::even(place.1), import)
    }

    /// As [`Self::restore`], for state whose slots are placed.
    ///
    /// # Errors
    /// What `import` says.
    pub fn restore_placed(
        &self,
        name: &str,
        (worker, workers): (usize, usize),
        placement: &Placement,
        mut import: impl FnMut(u16, &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let Some(loaded) = self.loaded() else { return Ok(()) };
        loaded.entries(name).try_for_each(|(slot, bytes)| {
            let owners = placement.workers(workers, || weights(&loaded, name));
            let own = owners.get(usize::from(slot)).is_some_and(|owner| *owner as usize == worker);
            if own { import(slot, bytes) } else { Ok(()) }
        })
    }

    /// Which worker has which slots of the state `name` and of what comes to it, for all workers alike: by the bytes that were
    /// saved of each slot, and where nothing was, by the first rows.
    pub fn placement(&self, name: &str, workers: usize) -> Arc<Placement> {
        let mut placements = self.placements.lock().unwrap_or_else(PoisonError::into_inner);
        let placement = Arc::clone(placements.entry(name.to_owned()).or_default());
        if let Some(loaded) = self.loaded().filter(|loaded| loaded.entries(name).next().is_some()) {
            placement.workers(workers, || weights(&loaded, name));
        }
        placement
    }

    fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands all saved entries of `name` to `import`, on whatever worker, oldest first: of state that all workers have alike.
    ///
    /// # Errors
    /// What `import` says.
    pub fn restore_alike(
        &self,
        name: &str,
        mut import: impl FnMut(&[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.loaded().map_or(Ok(()), |loaded| loaded.entries(name).try_for_each(|(_, bytes)| import(bytes)))
    }

    /// Notes that a worker has built its graph; after the last one what was loaded is let go of.
    pub fn built(&self) {
        if self.building.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.figures.loaded();
        }
    }

    fn reporter(&self) -> Option<Reporter> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes, before workers hear of it, that an epoch's last tick is on its way, and which slots its snapshot writes anew.
    pub fn begin(&self, epoch: Epoch, slots: SlotRange) {
        self.progress.begin();
        let mut anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody asks after one that is published: all its parts were there.
        *anew = anew.split_off(&(epoch + 1).saturating_sub(self.progress.outstanding()));
        anew.insert(epoch, slots);
    }

    /// The slots that the snapshot of an epoch writes anew, not only what changed of them. State that is not written slot by
    /// slot is written anew with the first slot.
    pub fn anew(&self, epoch: Epoch) -> SlotRange {
        let anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        anew.get(&epoch).copied().unwrap_or_default()
    }

    /// Reports to the coordinator.
    pub fn report(&self, report: Report) {
        if let Some(reporter) = self.reporter() {
            reporter.send(report);
        }
    }

    /// Notes how many losses of the online store a stage had made up for when it saved.
    pub fn note_made_up(&self, epoch: Epoch, losses: u64) {
        let mut made_up = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        let least = made_up.entry(epoch).or_insert(losses);
        *least = losses.min(*least);
        // An epoch is told of before many more begin.
        while made_up.len() > 16 {
            made_up.pop_first();
        }
    }

    /// Whether the online store, which has had so many losses, has all that the state says was told by an epoch's end.
    pub fn has_been_told(&self, epoch: Epoch, losses: u64) -> bool {
        let made_up = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        made_up.get(&epoch).is_none_or(|made_up| losses <= *made_up)
    }

    /// Whether the rows of a tick are to be published.
    pub fn publishes(&self, tick: Tick) -> bool {
        self.suppress_through.is_none_or(|through| tick > through)
    }

    /// Ends the writers; everything that was handed over is reported on return.
    pub fn close(&self) {
        for snapshots in &self.snapshots {
            snapshots.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The bytes that were saved of each slot.
fn weights(loaded: &Loaded, name: &str) -> Box<[u64; SLOTS]> {
    let mut weights = Box::new([0; SLOTS]);
    for (slot, bytes) in loaded.entries(name) {
        if let Some(weight) = weights.get_mut(usize::from(slot)) {
            *weight += bytes.len() as u64;
        }
    }
    weights
}

/// An operator's way to save its state.
pub struct Saver {
    snapshots: OperatorSnapshots,
    /// The epoch that is being written in slices, and the slots that it writes anew.
    writing: Option<(Epoch, SlotRange)>,
    /// Slices on their way to a chunk, and its mode.
    gathered: Vec<SlotBytes>,
    gathered_bytes: usize,
    mode: Mode,
}

impl Saver {
    /// Saves what is turned into bytes elsewhere, all at once: all that there is, where `anew` has the first slot.
    pub fn save_later(&self, info: &TickInfo, mode: Mode, anew: SlotRange, encode: Encode) {
        let mode = if mode == Mode::Change && anew.is_first() { Mode::Whole } else { mode };
        self.snapshots.later(info.epoch, mode, encode);
        self.snapshots.done(info.epoch, anew);
    }

    /// Begins to save in slices, the slots `anew` all of them.
    pub fn begin(&mut self, epoch: Epoch, anew: SlotRange) {
        self.writing = Some((epoch, anew));
    }

    /// Whether slices are to be written.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether the writing thread keeps up.
    pub fn ready(&self) -> bool {
        self.snapshots.ready()
    }

    /// Saves a slice; with `last` the epoch is done.
    pub fn slice(&mut self, entries: Vec<SlotBytes>, last: bool) {
        let Some((epoch, anew)) = self.writing else { return };
        for (slot, bytes) in entries {
            let mode = if anew.contains(usize::from(slot)) { Mode::Slots } else { Mode::Change };
            if mode != self.mode || self.gathered_bytes >= CHUNK_BYTES {
                self.hand_over(epoch);
                self.mode = mode;
            }
            self.gathered_bytes += bytes.len();
            self.gathered.push((slot, bytes));
        }
        if last {
            self.hand_over(epoch);
            self.snapshots.done(epoch, anew);
            self.writing = None;
        }
    }

    fn hand_over(&mut self, epoch: Epoch) {
        self.gathered_bytes = 0;
        if !self.gathered.is_empty() {
            self.snapshots.chunk(epoch, self.mode, std::mem::take(&mut self.gathered));
        }
    }
}

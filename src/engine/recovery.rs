//! Where a start goes on from: the state directory, what is loaded of it, and the ticks to replay.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EngineError;
use super::checkpoint::Resumed;
use super::figures::Recovered;
use super::graph::{Resources, StoreIdentity};
use super::operators::{Changes, operators};
use super::publish::{ONLINE, Staged};
use super::run::RunOptions;
use super::shared::instance_id;
use super::source::READER_IDS;
use crate::base::{Epoch, Tick};
use crate::ingest::aligned::{Afterwards, Aligned, AlignedState, EpochPolicy};
use crate::ingest::ticks::{self, TickLog, TickLogError, TickRecord};
use crate::ingest::{DedupDelta, IngestError, Reading};
use crate::plan::chain::Chain;
use crate::plan::model::Plan;
use crate::state::manifest::Manifest;
use crate::state::{self, Found, Loaded, Log, Opened, StateError, Store};
use crate::store::StoreError;

/// How long brokers are asked whether they have more than had been read.
const UNREAD_WAIT: Duration = Duration::from_secs(10);

/// How a start treats the state that it finds.
#[derive(Clone, Debug, Default)]
pub struct RestartOptions {
    /// Begin a new life of the job with this savepoint, or with the newest epoch of another state directory.
    pub from: Option<String>,
    /// Load this epoch instead of the newest.
    pub epoch: Option<Epoch>,
    /// Read the input again in new cuts where it cannot be replayed exactly.
    pub allow_replay: bool,
    /// Drop the state of operators that the job has no more.
    pub allow_drop: bool,
}

/// Called with what a start is about to do with the state that it found, before it does it.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// State that was taken over.
pub struct Recovery {
    /// Where snapshots lie.
    pub store: Store,
    /// What was found and decided.
    pub opened: Opened,
    /// What the manifests of this start say of the job.
    template: Manifest,
    /// The tick log, open behind its last record.
    tick_log: TickLog,
    /// The first tick of this start.
    first_tick: Tick,
    /// The last tick to be replayed, if there is one.
    last_record: Option<Tick>,
    /// Ticks to be replayed, until the reader has them.
    records: Vec<TickRecord>,
    /// The next manifest may go on from the loaded parts; else the next snapshot is whole.
    self_contained: bool,
}

/// State that was taken over, for a job that runs.
pub struct Parts {
    /// Where epochs are committed.
    pub log: Log,
    /// What operators are restored from.
    pub loaded: Option<Loaded>,
    /// What sinks may lack.
    pub staged: Vec<Staged>,
    /// The tick log, open behind its last record.
    pub tick_log: TickLog,
}

impl Recovery {
    /// Takes over the state in `dir`.
    ///
    /// # Errors
    /// When the state cannot be taken over as wished, and when that would lose more than was allowed.
    pub fn open(dir: &Path, plan: &Plan, chains: &[Chain], options: &RunOptions) -> Result<Recovery, EngineError> {
        std::fs::create_dir_all(dir).map_err(|error| EngineError::StateDir { path: dir.to_owned(), error })?;
        let store = Store::open(&plan.checkpoint.place(dir))?;
        let restart = &options.restart;
        let wish =
            state::decide::Wish { epoch: restart.epoch, allow_replay: restart.allow_replay, ..Default::default() };
        let planned = operators(plan, chains);
        let tell = |text: &str| {
            if let Some(notice) = &options.notice {
                notice(text);
            }
        };
        let consent = |found: &Found<'_>| {
            if !found.fresh || restart.from.is_some() {
                tell(&found.choice.condition);
            }
            let Some(loaded) = found.loaded else { return Ok(()) };
            // What cannot be read is refused where the sources are opened.
            let sources = saved_sources(&loaded.manifest).ok();
            let drained = sources.as_ref().is_some_and(AlignedState::drained);
            if drained && found.fresh {
                return Err(StateError::Refused(
                    "the savepoint is of a job that was drained: its clock went to the end and all windows were completed, so that nothing can be read behind it; take a savepoint before a job is drained, and go on from that one".to_owned(),
                ));
            }
            if drained {
                tell(&format!(
                    "the job was drained with tick {} and is finished: what it had staged is published, and nothing is read; to read what its sources have brought since give it a --state of its own, or begin with a savepoint that was taken before",
                    loaded.manifest.tick
                ));
            } else if sources.as_ref().is_some_and(AlignedState::ended) {
                tell(&format!(
                    "the job's input had ended with tick {}: nothing is left to be read",
                    loaded.manifest.tick
                ));
            }
            // The manifest of a savepoint has nothing staged.
            if found.fresh && !loaded.manifest.last && !loaded.manifest.outboxes.is_empty() {
                tell(&format!(
                    "the job there did not end with epoch {}: what it staged with it and has not published is not published by this one; end that job well first, and do not run both",
                    loaded.epoch
                ));
            }
            let changes = changes(plan, &loaded.manifest, sources.as_ref(), &planned);
            if !changes.lost.is_empty() && !restart.allow_drop {
                return Err(StateError::Refused(format!(
                    "the job has changed, and state would be lost:\n{}put back what is missing, or accept the loss with --allow-drop",
                    changes.text()
                )));
            }
            if !changes.gained.is_empty() || !changes.lost.is_empty() {
                tell(&changes.text());
            }
            Ok(())
        };
        let process = instance_id();
        let ticks = |from: Tick| match tick_range(dir, from) {
            Err(error @ TickLogError::Damaged { .. }) if restart.allow_replay => {
                tell(&format!("{error}; it is passed by, as if it were not there"));
                Ok(0..0)
            }
            Err(error @ TickLogError::Damaged { .. }) => Err(StateError::Refused(format!(
                "{error}, or accept with --allow-replay that the input behind the newest epoch is read again in new cuts, and that topics with `delivery: at_least_once` get rows again"
            ))),
            range => range.map_err(|error| StateError::Refused(error.to_string())),
        };
        let opened = state::open(&store, &plan.job, &process, wish, restart.from.as_deref(), &ticks, &consent)?;
        let first_tick = opened.loaded.as_ref().map_or(0, |loaded| loaded.manifest.tick + 1);
        let (tick_log, contents) = match TickLog::take_over(dir, opened.generation, first_tick) {
            Err(TickLogError::Gone { .. } | TickLogError::Damaged { .. }) if restart.allow_replay => {
                TickLog::begin_anew(dir, opened.generation, first_tick)?
            }
            taken => taken?,
        };
        let records = contents.records;
        let template = Manifest {
            generation: opened.generation,
            job: plan.job.clone(),
            job_version: plan.version,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            tick: 0,
            watermark: 0,
            now: 0,
            committed_ms: 0,
            workers: options.workers.max(1),
            operators: planned,
            parts: Vec::new(),
            reader: serde_json::Value::Null,
            outboxes: BTreeMap::new(),
            last: false,
        };
        // Parts of a savepoint lie elsewhere; what is dropped must not come back.
        let same = opened.loaded.as_ref().is_some_and(|loaded| {
            opened.choice.load == Some(loaded.epoch) && loaded.manifest.operators == template.operators
        });
        let last_record = records.last().map(|record| record.tick);
        Ok(Recovery { store, opened, template, tick_log, first_tick, last_record, records, self_contained: same })
    }

    /// The sources, where the loaded state and the tick log say that they stand.
    ///
    /// # Errors
    /// When they cannot go on from there.
    pub fn reader(&mut self, plan: &Plan, reading: Reading, epochs: EpochPolicy) -> Result<Aligned, EngineError> {
        let epoch = self.opened.generation + 1;
        let mut aligned = match &self.opened.loaded {
            Some(loaded) => resumed(plan, reading, epochs, epoch, loaded)?,
            None => {
                // A topic's first partitions were entered in the tick log, where there is one.
                let mut aligned = Aligned::begin(plan, reading, epochs)?;
                aligned.begin_with_epoch(epoch);
                aligned
            }
        };
        if aligned.has_ended()
            && !self.drained()
            && reading != Reading::Replay
            && let Some(what) = aligned.unread(UNREAD_WAIT)?
        {
            return Err(StateError::Refused(format!(
                "{what}, and the job's input had ended: all its windows were completed then, and what came later cannot be added. To read a topic in portions run the job without --until-end, and stop it by SIGTERM; to read what came since, give it a --state of its own"
            ))
            .into());
        }
        aligned.keep_states(true);
        let records = std::mem::take(&mut self.records);
        match reading {
            Reading::Replay => aligned.follow(records, Afterwards::End),
            Reading::Live | Reading::UntilEnd if records.is_empty() => {}
            Reading::Live | Reading::UntilEnd => aligned.follow(records, Afterwards::GoOn),
        }
        Ok(aligned)
    }

    /// Whether the job was drained: it is finished, and what it had staged is published.
    pub fn drained(&self) -> bool {
        let loaded = self.opened.loaded.as_ref();
        loaded.and_then(|loaded| saved_sources(&loaded.manifest).ok()).is_some_and(|sources| sources.drained())
    }

    /// What the graph goes on from, for a start that began at `began`.
    pub fn resumed(&self, began: Instant, resources: &Resources) -> Resumed {
        let first_tick = self.first_tick;
        let loaded = self.opened.loaded.as_ref();
        Resumed {
            suppress_through: self.opened.choice.suppress_through,
            online_lost: self.online_lost(resources),
            online_from: self.last_record.unwrap_or(first_tick),
            first_tick,
            watermark: loaded.map(|loaded| loaded.manifest.watermark),
            recovered: loaded.map(|loaded| Recovered {
                epoch: loaded.epoch,
                bytes: loaded.manifest.parts.iter().map(|part| part.bytes).sum(),
                read: began.elapsed(),
                first: first_tick,
                end: self.last_record.map_or(first_tick, |tick| tick + 1),
            }),
            loaded: None,
        }
    }

    /// Whether the online store lacks values that the loaded state takes as told.
    fn online_lost(&self, resources: &Resources) -> bool {
        let Some(loaded) = &self.opened.loaded else { return false };
        let Some(opened) = &resources.online else { return false };
        let told: Vec<StoreIdentity> = loaded
            .manifest
            .outboxes
            .get(ONLINE)
            .into_iter()
            .flatten()
            .filter_map(|value| serde_json::from_value(value.clone()).ok())
            .collect();
        // Every worker has told of its own.
        told.len() != loaded.manifest.workers || !told.iter().all(|told| opened.has(told))
    }

    /// What the running job needs; `keep` epochs are kept.
    pub fn into_parts(self, keep: usize) -> Parts {
        let Recovery { store, opened, template, tick_log, self_contained, .. } = self;
        let loaded = opened.loaded.as_ref().filter(|_| self_contained);
        let log = Log {
            store,
            generation: opened.generation,
            keep,
            template,
            chain: loaded.map(|loaded| loaded.manifest.parts.clone()).unwrap_or_default(),
            entries: opened.entries,
        };
        Parts { log, loaded: opened.loaded, staged: opened.staged, tick_log }
    }
}

/// The error of a job that claimed `generation`: that another process has taken over, where one has. It clears away what we
/// had staged, so that we may stumble over that before we lose the log.
pub fn explained(error: EngineError, store: &Store, generation: u64) -> EngineError {
    if matches!(
        error,
        EngineError::State(StateError::Superseded { .. }) | EngineError::Store(StoreError::TakenOver { .. })
    ) {
        return error;
    }
    match state::manifest::newer_claim(store, generation) {
        Ok(Some(number)) => {
            tracing::info!(%error, "the first that went wrong after another process had taken over");
            StateError::Superseded { place: store.place(), number }.into()
        }
        _ => error,
    }
}

fn resumed(
    plan: &Plan,
    reading: Reading,
    epochs: EpochPolicy,
    epoch: Epoch,
    loaded: &Loaded,
) -> Result<Aligned, EngineError> {
    let mut state = saved_sources(&loaded.manifest)?;
    // What was dropped was consented to.
    state.sources.retain(|saved| plan.sources.iter().any(|source| source.name == saved.name));
    let mut ids = Vec::new();
    for (_, bytes) in loaded.entries(READER_IDS) {
        ids.extend(DedupDelta::decode(bytes).map_err(|what| IngestError::Checkpoint { what })?);
    }
    ids.retain(|delta| plan.sources.iter().any(|source| source.name == delta.source));
    Ok(Aligned::resume(plan, reading, epochs, epoch, &state, ids)?)
}

/// Where the sources stood when a manifest was written.
///
/// # Errors
/// When the manifest does not say so in words of this program.
pub fn saved_sources(manifest: &Manifest) -> Result<AlignedState, IngestError> {
    serde_json::from_value(manifest.reader.clone()).map_err(|error| IngestError::Checkpoint { what: error.to_string() })
}

/// What a job keeps, gains and loses of saved state: operators, and sources that the plan has not.
fn changes(
    plan: &Plan,
    saved: &Manifest,
    sources: Option<&AlignedState>,
    planned: &BTreeMap<String, String>,
) -> Changes {
    let mut changes = Changes::between(&saved.operators, planned);
    let sources = sources.into_iter().flat_map(|state| &state.sources);
    let gone = sources.filter(|saved| !plan.sources.iter().any(|source| source.name == saved.name));
    changes.lost.extend(gone.map(|saved| (format!("source {}", saved.name), "the job has it no more".to_owned())));
    changes
}

/// The ticks from `from` on that a directory's tick log holds.
fn tick_range(dir: &Path, from: Tick) -> Result<Range<Tick>, TickLogError> {
    // A log may be long, and a restart needs its end.
    let contents = match ticks::read_from(dir, from) {
        Ok(contents) => return Ok(from.min(contents.next)..contents.next),
        Err(TickLogError::Gone { .. }) => ticks::read(dir)?,
        Err(error) => return Err(error),
    };
    let first = contents.records.first().map_or(0, |record| record.tick);
    Ok(first..contents.records.last().map_or(first, |record| record.tick + 1))
}

/// What a job keeps, gains and loses when it goes on from a savepoint.
///
/// # Errors
/// When the savepoint cannot be read or is another job's.
pub fn compare(plan: &Plan, savepoint: &str) -> Result<Changes, EngineError> {
    changes_from(plan, savepoint, &state::open_savepoint(savepoint)?.manifest)
}

/// [`compare`] by what the savepoint says of itself: its parts, which may be large, are neither read nor checked.
///
/// # Errors
/// As [`compare`], but for damage of the parts.
pub fn compare_outline(plan: &Plan, savepoint: &str) -> Result<Changes, EngineError> {
    changes_from(plan, savepoint, &state::savepoint_manifest(savepoint)?)
}

fn changes_from(plan: &Plan, savepoint: &str, manifest: &Manifest) -> Result<Changes, EngineError> {
    if manifest.job != plan.job {
        let (theirs, ours) = (&manifest.job, &plan.job);
        return Err(StateError::Refused(format!("{savepoint} is of job `{theirs}`, not of `{ours}`")).into());
    }
    let chains = crate::plan::chain::chains(plan);
    let sources = saved_sources(manifest).ok();
    Ok(changes(plan, manifest, sources.as_ref(), &operators(plan, &chains)))
}

/// Copies the newest epoch of a job's state to `target`.
///
/// # Errors
/// When there is none or it cannot be copied.
pub fn save(plan: &Plan, dir: &Path, target: &str) -> Result<Epoch, EngineError> {
    Ok(state::copy_savepoint(&Store::open(&plan.checkpoint.place(dir))?, target)?)
}

/// What is saved of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whether the job's input had ended with it: nothing is left to be read.
    pub ended: bool,
}

/// What the state directory of a job holds; none before its first epoch.
///
/// # Errors
/// When the state cannot be read.
pub fn saved(plan: &Plan, dir: &Path) -> Result<Option<Saved>, EngineError> {
    let place = plan.checkpoint.place(dir);
    if plan.checkpoint.uri.is_none() && !dir.is_dir() {
        return Ok(None);
    }
    let entries = state::manifest::read(&Store::open(&place)?)?;
    let newest = state::manifest::epochs(&entries).next_back();
    Ok(newest.map(|(epoch, manifest)| {
        let ended = saved_sources(manifest).is_ok_and(|sources| sources.ended());
        Saved { epoch, ended }
    }))
}

//! Taking state over: read the log, choose, load, claim.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::StateError;
use super::decide::{Choice, Committed, Wish, choose};
use super::manifest::{self, Claim, Entry, Manifest, Seen};
use super::part::{Mode, Part};
use super::store::Store;
use crate::base::{Epoch, SLOTS, Tick, failpoint};

/// The manifest of a savepoint, beside its parts.
const SAVEPOINT: &str = "savepoint.json";
/// Starts that may come between reading the log and claiming it.
const CLAIMS_MAX: usize = 20;

/// State that was loaded.
pub struct Loaded {
    /// Its epoch.
    pub epoch: Epoch,
    /// What it says.
    pub manifest: Manifest,
    parts: Vec<Part>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(store: &Store, epoch: Epoch, manifest: Manifest) -> Result<Loaded, StateError> {
        let parts = manifest.parts.iter().map(|part| Part::read(store, part)).collect::<Result<_, _>>()?;
        Ok(Loaded { epoch, manifest, parts })
    }

    /// The entries of an operator that hold, oldest first.
    pub fn entries<'a>(&'a self, operator: &'a str) -> impl Iterator<Item = (u16, &'a [u8])> {
        let newest = self.parts.iter().map(|part| part.epoch).max().unwrap_or_default();
        // The epoch from which on what was written of a slot holds; parts are oldest first.
        let mut since = vec![0; SLOTS];
        for part in &self.parts {
            for (mode, entries) in part.chunks(operator) {
                match mode {
                    Mode::Change | Mode::Replace => {}
                    Mode::Whole => since.fill(part.epoch),
                    Mode::Slots => {
                        for (slot, _) in entries {
                            if let Some(since) = since.get_mut(usize::from(slot)) {
                                *since = part.epoch;
                            }
                        }
                    }
                }
            }
        }
        let mut held = Vec::new();
        for part in &self.parts {
            for (mode, entries) in part.chunks(operator) {
                held.extend(entries.filter(|(slot, bytes)| match mode {
                    Mode::Replace => part.epoch == newest,
                    // Nothing was in the slot.
                    Mode::Slots if bytes.is_empty() => false,
                    _ => since.get(usize::from(*slot)).is_none_or(|since| *since <= part.epoch),
                }));
            }
        }
        held.into_iter()
    }
}

/// State that was taken over.
#[derive(Debug)]
pub struct Opened {
    /// Number of the claim.
    pub generation: u64,
    /// Names the job's life in tables and topics.
    pub instance: String,
    /// What was loaded, if there was anything.
    pub loaded: Option<Loaded>,
    /// What was decided.
    pub choice: Choice,
    /// What the epochs of the log staged, by epoch: the sinks may lack some of it.
    pub staged: Vec<(Epoch, BTreeMap<String, Vec<Value>>)>,
    /// The log as it was.
    pub entries: BTreeMap<u64, Seen>,
}

/// What a start is about to do.
#[derive(Debug)]
pub struct Found<'a> {
    /// Nobody has had this state before.
    pub fresh: bool,
    /// The state that would be loaded.
    pub loaded: Option<&'a Loaded>,
    /// What would be done with it.
    pub choice: &'a Choice,
}

/// Which ticks from one on the tick log holds.
pub type Ticks<'a> = &'a dyn Fn(Tick) -> Result<Range<Tick>, StateError>;

/// Takes over the state in `store` for the job `job`. `process` is a name that no other start has; `savepoint` is what a
/// new life begins with; `ticks` reads which ticks the tick log holds from one on, and is asked after the log was read;
/// `consent` is told what would be done, and may refuse it, before anything is claimed.
///
/// # Errors
/// When the state is another job's, cannot be loaded as wished, or other processes claim it all the time.
pub fn open(
    store: &Store,
    job: &str,
    process: &str,
    wish: Wish,
    savepoint: Option<&str>,
    ticks: Ticks<'_>,
    consent: &dyn Fn(&Found<'_>) -> Result<(), StateError>,
) -> Result<Opened, StateError> {
    for _ in 0..CLAIMS_MAX {
        let entries = manifest::read(store)?;
        let life = life(&entries);
        if let (Some(asked), Some((_, first))) = (savepoint, &life)
            && first.as_deref() != Some(asked)
        {
            return Err(StateError::Refused(format!(
                "{} holds the state of a job that did not begin with {asked}; leave --from out to go on with it, or give --state an empty directory",
                store.place()
            )));
        }
        let beginning = life.as_ref().map_or(savepoint, |(_, first)| first.as_deref());
        let (choice, loaded) = load(store, &entries, wish, beginning, ticks)?;
        if let Some(other) = loaded.as_ref().map(|l| &l.manifest.job).filter(|other| *other != job) {
            return Err(StateError::Refused(format!(
                "{} holds the state of job `{other}`, not of `{job}`; give the job its own --state",
                store.place()
            )));
        }
        consent(&Found { fresh: entries.is_empty(), loaded: loaded.as_ref(), choice: &choice })?;
        let number = entries.last_key_value().map_or(0, |(last, _)| last + 1);
        let instance = life.as_ref().map_or_else(|| process.to_owned(), |(instance, _)| instance.clone());
        let claim = Claim {
            instance: instance.clone(),
            process: process.to_owned(),
            loaded: loaded.as_ref().map(|loaded| loaded.epoch),
            savepoint: life.map_or_else(|| savepoint.map(str::to_owned), |(_, first)| first),
            suppress_through: choice.suppress_through,
            anew: choice.anew,
        };
        failpoint("restore.read");
        if !manifest::append(store, number, &Entry::Claim(claim))? {
            continue;
        }
        failpoint("restore.claimed");
        let staged = |number: &Epoch| match entries.get(number) {
            Some(Seen::Whole(Entry::Epoch(manifest))) => Some((*number, manifest.outboxes.clone())),
            _ => None,
        };
        let staged = choice.publish.iter().filter_map(staged).collect();
        return Ok(Opened { generation: number, instance, loaded, choice, staged, entries });
    }
    Err(StateError::Refused(format!(
        "other processes take over the state in {} again and again; run the job once",
        store.place()
    )))
}

/// Instance and savepoint of the job's life, as the newest claim says.
fn life(entries: &BTreeMap<u64, Seen>) -> Option<(String, Option<String>)> {
    manifest::claims(entries).next_back().map(|(_, claim)| (claim.instance.clone(), claim.savepoint.clone()))
}

fn load(
    store: &Store,
    entries: &BTreeMap<u64, Seen>,
    wish: Wish,
    beginning: Option<&str>,
    ticks: Ticks<'_>,
) -> Result<(Choice, Option<Loaded>), StateError> {
    for (number, seen) in entries {
        if let Seen::Damaged(what) = seen {
            tracing::warn!(entry = manifest::name(*number), what, "an entry of the state's log is damaged");
        }
    }
    let anew = manifest::claims(entries).rfind(|(_, claim)| claim.anew);
    let anew_since = anew.map_or(0, |(number, _)| number);
    let since = manifest::claims(entries).filter(|(number, _)| *number >= anew_since);
    let published = since.filter_map(|(_, claim)| claim.suppress_through).max();
    let wish = Wish { published, anew_since, ..wish };
    let mut damaged = BTreeSet::new();
    loop {
        let committed: BTreeMap<Epoch, Committed> = entries
            .iter()
            .filter_map(|(number, seen)| match seen {
                Seen::Whole(Entry::Claim(_)) => None,
                Seen::Whole(Entry::Epoch(manifest)) => {
                    let loadable = !damaged.contains(number);
                    Some((*number, Committed { tick: Some(manifest.tick), loadable }))
                }
                Seen::Damaged(_) => Some((*number, Committed { tick: None, loadable: false })),
            })
            .collect();
        let oldest = committed.values().filter(|epoch| epoch.loadable).filter_map(|epoch| epoch.tick).min();
        // The savepoint may be gone as soon as there are epochs.
        let savepoint = beginning.filter(|_| oldest.is_none()).map(open_savepoint).transpose()?;
        let begin = savepoint.as_ref().map_or(0, |savepoint| savepoint.manifest.tick + 1);
        let ticks = ticks(oldest.map_or(begin, |tick| tick + 1))?;
        let choice = choose(&committed, &ticks, Wish { begin, ..wish }).map_err(StateError::Refused)?;
        let Some(number) = choice.load else { return Ok((choice, savepoint)) };
        let Some(Seen::Whole(Entry::Epoch(manifest))) = entries.get(&number) else { return Ok((choice, None)) };
        match Loaded::read(store, number, (**manifest).clone()) {
            Ok(loaded) => return Ok((choice, Some(loaded))),
            Err(error @ StateError::Damaged { .. }) => {
                tracing::warn!(%error, epoch = number, "an epoch cannot be loaded; the one before it is tried");
                damaged.insert(number);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Loads a savepoint, or the newest epoch of a state directory.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn open_savepoint(uri: &str) -> Result<Loaded, StateError> {
    let (store, manifest) = find_savepoint(uri)?;
    let epoch = manifest.parts.iter().map(|part| part.epoch).max().unwrap_or_default();
    Loaded::read(&store, epoch, manifest)
}

/// What a savepoint, or the newest epoch of a state directory, says of itself; its parts are not read.
///
/// # Errors
/// When there is none, or what it says is damaged.
pub fn savepoint_manifest(uri: &str) -> Result<Manifest, StateError> {
    Ok(find_savepoint(uri)?.1)
}

fn find_savepoint(uri: &str) -> Result<(Store, Manifest), StateError> {
    let store = Store::open(uri)?;
    let manifest = match store.read(SAVEPOINT)? {
        Some(bytes) => match Entry::decode(&bytes).map_err(|what| store.damaged(SAVEPOINT, what))? {
            Entry::Epoch(manifest) => *manifest,
            Entry::Claim(_) => return Err(store.damaged(SAVEPOINT, "it is a claim and no manifest")),
        },
        None => {
            let entries = manifest::read(&store)?;
            let none = || StateError::Refused(format!("{uri} is no savepoint: it has no {SAVEPOINT} and no epochs"));
            manifest::epochs(&entries).next_back().map(|(_, manifest)| manifest.clone()).ok_or_else(none)?
        }
    };
    Ok((store, manifest))
}

/// Refuses a place that a savepoint cannot be written to, before there is one to be written.
///
/// # Errors
/// When it cannot be read or made, and when it holds a savepoint already.
pub fn check_savepoint_target(target: &str) -> Result<(), StateError> {
    let target = Store::open(target)?;
    if target.read(SAVEPOINT)?.is_some() {
        return Err(StateError::Refused(format!(
            "{} holds a savepoint already; give --savepoint another place, or remove that one",
            target.place()
        )));
    }
    Ok(())
}

/// What a savepoint says; `None` where there is none.
///
/// # Errors
/// When the place cannot be read, or what lies there is damaged.
pub fn read_savepoint(place: &str) -> Result<Option<Manifest>, StateError> {
    let store = Store::open(place)?;
    let Some(bytes) = store.read(SAVEPOINT)? else { return Ok(None) };
    match Entry::decode(&bytes).map_err(|what| store.damaged(SAVEPOINT, what))? {
        Entry::Epoch(manifest) => Ok(Some(*manifest)),
        Entry::Claim(_) => Err(store.damaged(SAVEPOINT, "it is a claim and no manifest")),
    }
}

/// An epoch of a state, or the newest, with its manifest.
///
/// # Errors
/// When there is none, or the log cannot be read.
pub fn committed(store: &Store, epoch: Option<Epoch>) -> Result<(Epoch, Manifest), StateError> {
    let entries = manifest::read(store)?;
    let found = manifest::epochs(&entries).rfind(|(number, _)| epoch.is_none_or(|wanted| wanted == *number));
    match (found, epoch) {
        (Some((number, manifest)), _) => Ok((number, manifest.clone())),
        (None, Some(wanted)) => Err(StateError::Refused(format!("{} has no epoch {wanted}", store.place()))),
        (None, None) => Err(StateError::Refused(format!("{} has no epoch yet that could be saved", store.place()))),
    }
}

/// Copies the newest epoch of a state to `target`, complete in itself: later epochs do not change it.
///
/// # Errors
/// When there is none, or a file cannot be copied.
pub fn copy_savepoint(store: &Store, target: &str) -> Result<Epoch, StateError> {
    copy_epoch(store, None, target)
}

/// As [`copy_savepoint`], of an epoch that is kept.
///
/// # Errors
/// As [`copy_savepoint`].
pub fn copy_epoch(store: &Store, epoch: Option<Epoch>, target: &str) -> Result<Epoch, StateError> {
    let (number, manifest) = committed(store, epoch)?;
    check_savepoint_target(target)?;
    let target = Store::open(target)?;
    for part in &manifest.parts {
        let bytes = store.read(&part.name)?.ok_or_else(|| store.damaged(&part.name, "it is missing"))?;
        let mut copy = target.writer(&part.name)?;
        copy.write(&bytes)?;
        copy.finish()?;
    }
    // What was staged is published by now, and is not the savepoint's to publish.
    let saved = Manifest { outboxes: BTreeMap::new(), ..manifest };
    let encoded = Entry::Epoch(Box::new(saved)).encode();
    failpoint("savepoint.parts");
    target.create(SAVEPOINT, &encoded.map_err(|e| target.damaged(SAVEPOINT, e.to_string()))?)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::part::{PartWriter, SlotBytes};
    use super::*;

    /// What an epoch writes: whether all of it anew, slots that it writes anew, slots that changed, whether by two workers.
    type Wrote = (bool, BTreeSet<u16>, BTreeSet<u16>, bool);

    fn epochs() -> impl Strategy<Value = Vec<Wrote>> {
        let slots = || prop::collection::btree_set(0u16..8, 0..5);
        prop::collection::vec((prop::bool::weighted(0.2), slots(), slots(), any::<bool>()), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_was_written_anew_makes_what_was_before_it_void(epochs in epochs()) {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().display().to_string()).expect("it opens");
            let (mut parts, mut expected) = (Vec::new(), BTreeMap::<u16, Vec<Vec<u8>>>::new());
            for (epoch, (whole, anew, changed, two)) in epochs.iter().enumerate() {
                let epoch = epoch as u64 + 3;
                let bytes = |slot: u16| vec![epoch as u8, slot as u8];
                let (mut slots, mut whole_entries) = (Vec::<SlotBytes>::new(), Vec::<SlotBytes>::new());
                if *whole {
                    expected.clear();
                }
                for slot in anew {
                    // An even one has nothing in it any more.
                    let now = if slot % 2 == 0 { Vec::new() } else { bytes(*slot) };
                    expected.insert(*slot, if now.is_empty() { Vec::new() } else { vec![now.clone()] });
                    slots.push((*slot, now));
                }
                for slot in changed.difference(anew) {
                    expected.entry(*slot).or_default().push(bytes(*slot));
                    whole_entries.push((*slot, bytes(*slot)));
                }
                for worker in 0..=u16::from(*two) {
                    let own = |all: &[SlotBytes]| -> Vec<SlotBytes> {
                        all.iter().filter(|(slot, _)| !*two || slot / 4 == worker).cloned().collect()
                    };
                    let mut part = PartWriter::begin(&store, &format!("parts/{epoch}-{worker}")).expect("it begins");
                    let mode = if *whole { Mode::Whole } else { Mode::Change };
                    part.chunk("a", mode, &own(&whole_entries)).expect("it is written");
                    part.chunk("a", Mode::Slots, &own(&slots)).expect("it is written");
                    part.chunk("b", Mode::Replace, &[(worker, bytes(worker))]).expect("it is written");
                    parts.push(part.finish(epoch, crate::base::SlotRange::NONE).expect("it is finished"));
                }
            }
            let parts: Vec<Part> = parts.iter().map(|part| Part::read(&store, part).expect("it is whole")).collect();
            let newest = epochs.len() as u64 + 2;
            let loaded = Loaded { epoch: newest, manifest: Manifest::empty(), parts };
            let mut found = BTreeMap::<u16, Vec<Vec<u8>>>::new();
            loaded.entries("a").for_each(|(slot, bytes)| found.entry(slot).or_default().push(bytes.to_vec()));
            expected.retain(|_, all| !all.is_empty());
            prop_assert_eq!(found, expected);
            let replaced: Vec<&[u8]> = loaded.entries("b").map(|(_, bytes)| bytes).collect();
            let workers = if epochs[epochs.len() - 1].3 { 2 } else { 1 };
            let expected: Vec<Vec<u8>> = (0..workers).map(|worker| vec![newest as u8, worker]).collect();
            prop_assert_eq!(replaced, expected);
        }
    }
}

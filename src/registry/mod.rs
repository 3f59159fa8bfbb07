//! The registry of models: numbered versions, aliases, and an append-only history of who did what and why.
//!
//! It lies in a directory or an object store, with no server. `artifacts/<hash>` holds files by the SHA-256 of their
//! content. `entries/…/<n>.json` is the **history**: each entry created if absent, no number used twice, none ever changed.
//! All else follows from the entries in order; `snapshots/<n>.json` only says it faster.
//!
//! Whoever wants to do something reads the newest entries, decides on them, and creates the next number. Whoever finds that
//! number taken reads what the other did and decides again: so no writer can lose another's work, and a move of an alias
//! that expected it elsewhere is a [conflict](RegistryError::Conflict). Artifacts are there before the entry that names
//! them, so a process may die anywhere. A deed under a [key](By::key) is done once, however often it is asked for.

mod artifacts;
mod catalogue;
mod entry;
mod error;
mod log;
mod model;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use artifacts::Artifacts;
use catalogue::Catalogue;
use entry::Damage;

pub use crate::base::{ModelRef, Selector};
pub use entry::{By, Entry, Event};
pub use error::RegistryError;
pub use model::{
    Artifact, CHALLENGER, CHAMPION, Content, Field, ModelInfo, Moved, Previous, Registration, Signature, Version,
    VersionNumber,
};

use crate::base::{check_alias, check_model_name, failpoint};
use crate::state::Store;

/// Longest key.
const KEY_MAX: usize = 500;

/// A registry of models, open. Threads may share it; other processes may use the same place.
///
/// Every call reads what others have done since, at the price of one request where they have done nothing. Calls block: on
/// an object store they must not be made on a thread that drives futures.
pub struct Registry {
    store: Store,
    artifacts: Artifacts,
    catalogue: Mutex<Catalogue>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.place()).finish()
    }
}

impl Registry {
    /// Opens the registry in a directory, which is made where it is not there, or at an address of an object store
    /// (`s3://`, `gs://`, `az://`), whose credentials come from the environment.
    ///
    /// # Errors
    /// When the place cannot be used. Damaged entries are told by the calls that depend on them.
    pub fn open(uri: &str) -> Result<Registry, RegistryError> {
        Self::open_with(uri, artifacts::cache())
    }

    /// As [`open`](Self::open), for a registry that is there: a directory that is not is an error, and is not made.
    ///
    /// # Errors
    /// As for `open`.
    pub fn existing(uri: &str) -> Result<Registry, RegistryError> {
        match local(uri) {
            Some(path) if !path.is_dir() => Err(RegistryError::Absent { place: uri.to_owned() }),
            _ => Self::open(uri),
        }
    }

    /// As [`open`](Self::open), with a directory for copies of artifacts that lie in an object store.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_with(uri: &str, cache: PathBuf) -> Result<Registry, RegistryError> {
        let store = Store::open(uri)?;
        let artifacts = Artifacts::of(store.clone(), uri, cache);
        let catalogue = log::load(&store)?;
        Ok(Registry { store, artifacts, catalogue: Mutex::new(catalogue) })
    }

    /// A file of this machine that holds the artifact of this hash, as [`artifact`](Self::artifact) gives it, without reading
    /// anything else of the registry; nothing at all where there is a copy.
    ///
    /// # Errors
    /// As for `artifact`.
    pub fn fetch(uri: &str, hash: &str) -> Result<PathBuf, RegistryError> {
        match local(uri) {
            Some(path) if !path.is_dir() => return Err(RegistryError::Absent { place: uri.to_owned() }),
            Some(_) => {}
            None => {
                if let Some(copy) = artifacts::copy(&artifacts::cache(), hash) {
                    return Ok(copy);
                }
            }
        }
        Artifacts::of(Store::open(uri)?, uri, artifacts::cache()).path(hash)
    }

    /// Directory or address, for messages.
    pub fn place(&self) -> String {
        self.store.place()
    }

    /// The models, by name.
    ///
    /// # Errors
    /// When the registry cannot be read, or an entry is damaged.
    pub fn models(&self) -> Result<Vec<ModelInfo>, RegistryError> {
        self.sound().map(|catalogue| catalogue.models())
    }

    /// A model.
    ///
    /// # Errors
    /// When there is none of this name; else as for [`models`](Self::models).
    pub fn model(&self, name: &str) -> Result<ModelInfo, RegistryError> {
        self.sound()?.model(&self.place(), name)
    }

    /// A version of a model.
    ///
    /// # Errors
    /// When there is none; else as for [`models`](Self::models).
    pub fn version(&self, name: &str, selector: &Selector) -> Result<Version, RegistryError> {
        self.sound()?.version(&self.place(), name, selector)
    }

    /// Registers a version: its files first, then the entry that makes it one. Returns its number.
    ///
    /// # Errors
    /// When something of it cannot be kept; else as for [`models`](Self::models).
    pub fn register(&self, registration: Registration) -> Result<VersionNumber, RegistryError> {
        check_model_name(&registration.name).map_err(RegistryError::Refused)?;
        registration.alias.as_deref().map_or(Ok(()), check_alias).map_err(RegistryError::Refused)?;
        entry::check_metrics(&registration.metrics).map_err(RegistryError::Refused)?;
        let artifact = self.artifacts.put(&registration.model)?;
        let mut files = std::collections::BTreeMap::new();
        for (name, content) in &registration.files {
            files.insert(name.clone(), self.artifacts.put(content)?);
        }
        failpoint("registry.artifact");
        let hash = artifact.hash.clone();
        let same = |event: &Event| matches!(event, Event::Registered { version, .. } if version.artifact.hash == hash);
        let entry = self.append(&registration.name, &registration.by, &same, &|catalogue| {
            let number = catalogue.next_version(&registration.name);
            let version = Version {
                number,
                artifact: artifact.clone(),
                signature: registration.signature.clone(),
                metrics: registration.metrics.clone(),
                params: registration.params.clone(),
                data: registration.data.clone(),
                tags: registration.tags.clone(),
                files: files.clone(),
                who: registration.by.who.clone(),
                why: registration.by.why.clone(),
                at: crate::base::wall_clock(),
            };
            let alias = registration.alias.clone();
            let from = alias.as_deref().and_then(|alias| catalogue.alias(&registration.name, alias));
            Ok(Event::Registered { version: Box::new(version), alias, from })
        })?;
        match entry.event {
            Event::Registered { version, .. } => Ok(version.number),
            other => Err(RegistryError::Refused(format!("a registration became `{other}`"))),
        }
    }

    /// Gives an alias to a version, taking it from another, if it is where it is believed to be.
    ///
    /// # Errors
    /// [`Conflict`](RegistryError::Conflict) when it is elsewhere; when there is no such model or version; else as for
    /// [`models`](Self::models).
    pub fn set_alias(
        &self,
        name: &str,
        alias: &str,
        number: VersionNumber,
        expected: Previous,
        by: &By,
    ) -> Result<Moved, RegistryError> {
        check_alias(alias).map_err(RegistryError::Refused)?;
        let same = |event: &Event| match event {
            Event::AliasMoved { alias: moved, to, back: false, .. } => moved == alias && *to == number,
            _ => false,
        };
        let entry = self
            .append(name, by, &same, &|catalogue| catalogue.moving(&self.place(), (name, alias), number, expected))?;
        moved(entry)
    }

    /// Takes an alias away, if it is where it is believed to be. Returns the entry's number.
    ///
    /// # Errors
    /// As for [`set_alias`](Self::set_alias), and when there is no such alias.
    pub fn remove_alias(&self, name: &str, alias: &str, expected: Previous, by: &By) -> Result<u64, RegistryError> {
        let same = |event: &Event| matches!(event, Event::AliasRemoved { alias: removed, .. } if removed == alias);
        let entry =
            self.append(name, by, &same, &|catalogue| catalogue.removing(&self.place(), (name, alias), expected))?;
        Ok(entry.number)
    }

    /// Gives the champion's place back to the version that had it before. Once more leads back further.
    ///
    /// # Errors
    /// [`NoPrevious`](RegistryError::NoPrevious) when no other version had it; else as for [`set_alias`](Self::set_alias).
    pub fn rollback(&self, name: &str, expected: Previous, by: &By) -> Result<Moved, RegistryError> {
        let same = |event: &Event| matches!(event, Event::AliasMoved { alias, back: true, .. } if alias == CHAMPION);
        let entry =
            self.append(name, by, &same, &|catalogue| catalogue.going_back(&self.place(), (name, CHAMPION), expected))?;
        moved(entry)
    }

    /// Notes something about a model, or one of its versions: `kind` says what, such as `decision`, `request` or `note`, and
    /// `by` the rest. Returns the entry's number.
    ///
    /// # Errors
    /// When there is no such model or version; else as for [`models`](Self::models).
    pub fn note(&self, name: &str, version: Option<VersionNumber>, kind: &str, by: &By) -> Result<u64, RegistryError> {
        let same = |event: &Event| matches!(event, Event::Noted { kind: noted, .. } if noted == kind);
        let entry = self.append(name, by, &same, &|catalogue| catalogue.noting(&self.place(), name, version, kind))?;
        Ok(entry.number)
    }

    /// What was done to a model, oldest first.
    ///
    /// # Errors
    /// When there is no such model; else as for [`models`](Self::models).
    pub fn history(&self, name: &str) -> Result<Vec<Entry>, RegistryError> {
        let numbers = self.sound()?.entries(&self.place(), name)?;
        numbers.into_iter().map(|number| self.entry(number)).collect()
    }

    /// The entries behind number `since`, of all models, oldest first. What was given up is not among them.
    ///
    /// # Errors
    /// When the registry cannot be read, or one of them is damaged.
    pub fn entries_since(&self, since: u64) -> Result<Vec<Entry>, RegistryError> {
        let (through, passed) = {
            let catalogue = self.fresh()?;
            if let Some((number, damage)) = catalogue.damaged.range(since + 1..).next() {
                return Err(self.damaged_entry(*number, damage));
            }
            (catalogue.through, catalogue.passed.clone())
        };
        (since + 1..=through).filter(|number| !passed.contains(number)).map(|number| self.entry(number)).collect()
    }

    /// Reads the entries behind number `since` as they come.
    pub fn follow(&self, since: u64) -> Follower<'_> {
        Follower { registry: self, since }
    }

    /// The number of the newest entry; 0 where there is none.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn newest(&self) -> Result<u64, RegistryError> {
        self.fresh().map(|catalogue| catalogue.through)
    }

    /// A file of this machine that holds the artifact of this hash: in the registry itself where that is a directory, else a
    /// copy. Its bytes were checked.
    ///
    /// # Errors
    /// When it is missing, damaged or cannot be read.
    pub fn artifact(&self, hash: &str) -> Result<PathBuf, RegistryError> {
        self.artifacts.path(hash)
    }

    /// Entries that cannot be read, by object, with what is wrong with each.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn damaged(&self) -> Result<Vec<(u64, String)>, RegistryError> {
        let catalogue = self.fresh()?;
        Ok(catalogue
            .damaged
            .iter()
            .map(|(number, damage)| (*number, format!("{} {}", entry::name(*number), damage.what)))
            .collect())
    }

    /// Gives up an entry that cannot be read and cannot be put back: what it did is undone. Version numbers leave a gap, so
    /// that none is used twice. Returns the entry's number.
    ///
    /// # Errors
    /// When that entry is not damaged, or is of a later version of the program; when the registry cannot be written.
    pub fn pass_over(&self, lost: u64, by: &By) -> Result<u64, RegistryError> {
        let mut catalogue = self.fresh()?;
        loop {
            match catalogue.damaged.get(&lost) {
                Some(damage) if damage.newer => return Err(self.damaged_entry(lost, damage)),
                Some(_) => {}
                None => {
                    let what = format!("entry {lost} of registry {} is not damaged", self.place());
                    return Err(RegistryError::Refused(what));
                }
            }
            let entry = Entry::new(catalogue.through + 1, "", Event::PassedOver { entry: lost }, by);
            if log::create(&self.store, &entry)? {
                catalogue.apply(&entry);
                return Ok(entry.number);
            }
            log::refresh(&self.store, &mut catalogue)?;
        }
    }

    /// Does what `decide` makes of the newest state, once.
    fn append(
        &self,
        name: &str,
        by: &By,
        same: &dyn Fn(&Event) -> bool,
        decide: &dyn Fn(&Catalogue) -> Result<Event, RegistryError>,
    ) -> Result<Entry, RegistryError> {
        if by.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_MAX) {
            return Err(RegistryError::Refused(format!("a key has 1 to {KEY_MAX} characters")));
        }
        let mut catalogue = self.sound()?;
        loop {
            if let Some(key) = &by.key
                && let Some(number) = catalogue.keyed(key)
            {
                let entry = self.entry(number)?;
                if entry.model == name && same(&entry.event) {
                    return Ok(entry);
                }
                let did = format!("{}: {}", entry.model, entry.event);
                return Err(RegistryError::KeyUsed { key: key.clone(), entry: number, did });
            }
            let event = decide(&catalogue)?;
            let entry = Entry::new(catalogue.through + 1, name, event, by);
            if log::create(&self.store, &entry)? {
                failpoint("registry.entry");
                catalogue.apply(&entry);
                if entry.number.is_multiple_of(log::EVERY) {
                    log::save(&self.store, &catalogue);
                }
                return Ok(entry);
            }
            // Somebody was faster: what they did may change what is to be done.
            log::refresh(&self.store, &mut catalogue)?;
            self.refuse_damaged(&catalogue)?;
        }
    }

    fn entry(&self, number: u64) -> Result<Entry, RegistryError> {
        match log::read(&self.store, number)? {
            Some(Ok(entry)) => Ok(entry),
            Some(Err(damage)) => Err(self.damaged_entry(number, &damage)),
            None => Err(self.damaged_entry(number, &Damage::of("is missing"))),
        }
    }

    /// The state with what others have done since.
    fn fresh(&self) -> Result<MutexGuard<'_, Catalogue>, RegistryError> {
        let mut catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        log::refresh(&self.store, &mut catalogue)?;
        Ok(catalogue)
    }

    /// As [`fresh`](Self::fresh), refused where it is not known what an entry did.
    fn sound(&self) -> Result<MutexGuard<'_, Catalogue>, RegistryError> {
        let catalogue = self.fresh()?;
        self.refuse_damaged(&catalogue)?;
        Ok(catalogue)
    }

    fn refuse_damaged(&self, catalogue: &Catalogue) -> Result<(), RegistryError> {
        match catalogue.damaged.first_key_value() {
            Some((number, damage)) => Err(self.damaged_entry(*number, damage)),
            None => Ok(()),
        }
    }

    fn damaged_entry(&self, number: u64, damage: &Damage) -> RegistryError {
        RegistryError::Damaged {
            place: self.place(),
            name: entry::name(number),
            what: damage.what.clone(),
            mend: match damage.newer {
                true => "a later version of tidemill wrote it: use that one here".to_owned(),
                false => format!(
                    "put it back from a copy of the registry, or give up what it did with `tidemill models mend --entry {number}`"
                ),
            },
        }
    }
}

/// Reads entries as they come.
#[derive(Debug)]
pub struct Follower<'a> {
    registry: &'a Registry,
    since: u64,
}

impl Follower<'_> {
    /// What has come since the last call. After an error the same entries are tried again.
    ///
    /// # Errors
    /// As for [`Registry::entries_since`].
    pub fn poll(&mut self) -> Result<Vec<Entry>, RegistryError> {
        let entries = self.registry.entries_since(self.since)?;
        self.since = entries.last().map_or(self.since, |entry| entry.number);
        Ok(entries)
    }

    /// The last entry that was read.
    pub fn since(&self) -> u64 {
        self.since
    }
}

fn moved(entry: Entry) -> Result<Moved, RegistryError> {
    match entry.event {
        Event::AliasMoved { from, to, .. } => Ok(Moved { from, to, entry: entry.number }),
        other => Err(RegistryError::Refused(format!("a move became `{other}`"))),
    }
}

/// The directory of a registry that is one.
fn local(uri: &str) -> Option<PathBuf> {
    match uri.split_once("://") {
        None => Some(Path::new(uri).to_owned()),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

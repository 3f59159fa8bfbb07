//! The history on disk: numbered entries, each created if absent, and snapshots of what they come to.

use std::collections::BTreeMap;

use super::catalogue::Catalogue;
use super::entry::{self, Damage, Entry, Event};
use super::error::RegistryError;
use crate::state::Store;

/// Folder of the snapshots.
const SNAPSHOTS: &str = "snapshots";

/// Entries between two snapshots.
pub(super) const EVERY: u64 = 32;

/// Snapshots that are kept.
const KEPT: usize = 2;

/// Reads what is new since a catalogue was made.
pub(super) fn refresh(store: &Store, catalogue: &mut Catalogue) -> Result<(), RegistryError> {
    while let Some(read) = read(store, catalogue.through + 1)? {
        take(catalogue, catalogue.through + 1, Some(read));
    }
    Ok(())
}

fn take(catalogue: &mut Catalogue, number: u64, read: Option<Result<Entry, Damage>>) {
    match read {
        // What was given up stays so, though somebody has put it back.
        Some(Ok(_)) if catalogue.passed.contains(&number) => catalogue.through = number,
        Some(Ok(entry)) => catalogue.apply(&entry),
        Some(Err(damage)) => catalogue.apply_damaged(number, damage),
        None => catalogue.apply_damaged(number, Damage::of("is missing")),
    }
}

/// The entry of a number; none where nothing is there yet.
pub(super) fn read(store: &Store, number: u64) -> Result<Option<Result<Entry, Damage>>, RegistryError> {
    Ok(store.read(&entry::name(number))?.map(|bytes| Entry::decode(number, &bytes)))
}

/// The newest snapshot and what came after it.
pub(super) fn load(store: &Store) -> Result<Catalogue, RegistryError> {
    let mut catalogue = newest(store)?;
    let mut found = BTreeMap::new();
    let mut at = catalogue.through + 1;
    loop {
        let listed = store.list(&entry::folder(at))?;
        if listed.is_empty() {
            break;
        }
        for object in listed {
            if let Some(number) = entry::number_of(&object.name).filter(|number| *number > catalogue.through)
                && let Some(read) = read(store, number)?
            {
                found.insert(number, read);
            }
        }
        at = entry::next_folder(at);
    }
    // Before all others, that an entry which was given up counts for nobody.
    for read in found.values().flatten() {
        if let Event::PassedOver { entry } = &read.event {
            catalogue.passed.insert(*entry);
        }
    }
    let last = found.keys().next_back().copied().unwrap_or(catalogue.through);
    for number in catalogue.through + 1..=last {
        take(&mut catalogue, number, found.remove(&number));
    }
    // Some may have come while the rest was read.
    refresh(store, &mut catalogue)?;
    Ok(catalogue)
}

fn newest(store: &Store) -> Result<Catalogue, RegistryError> {
    for object in store.list(SNAPSHOTS)?.iter().rev() {
        let Some(bytes) = store.read(&object.name)? else { continue };
        match entry::unwrap::<Catalogue>(&bytes) {
            Ok(catalogue) if Some(catalogue.through) == entry::number_of(&object.name) => return Ok(catalogue),
            Ok(_) => {
                tracing::warn!(place = store.place(), name = object.name, "a snapshot of the registry is another's")
            }
            Err(Damage { what, .. }) => {
                tracing::warn!(
                    place = store.place(),
                    name = object.name,
                    what,
                    "a snapshot of the registry is passed by"
                )
            }
        }
    }
    Ok(Catalogue::default())
}

/// Writes a snapshot, and removes those that it replaces. Best effort: without it the next start reads more entries.
pub(super) fn save(store: &Store, catalogue: &Catalogue) {
    let name = |number: u64| format!("{SNAPSHOTS}/{number:020}.json");
    let saved = || -> Result<(), RegistryError> {
        let bytes = entry::wrap(catalogue).map_err(|error| RegistryError::Refused(error.to_string()))?;
        let mine = name(catalogue.through);
        if !store.create(&mine, &bytes)? && store.read(&mine)?.as_deref() != Some(&bytes) {
            // Damaged, or made by another version of the program.
            store.remove(&mine)?;
            store.create(&mine, &bytes)?;
        }
        let listed = store.list(SNAPSHOTS)?;
        for old in listed.iter().rev().skip(KEPT) {
            store.remove(&old.name)?;
        }
        for folder in [SNAPSHOTS, super::artifacts::FOLDER, &entry::folder(catalogue.through)] {
            store.remove_unfinished(folder)?;
        }
        Ok(())
    };
    if let Err(error) = saved() {
        tracing::debug!(%error, "no snapshot of the registry is written");
    }
}

/// Creates an entry: false when its number is taken.
pub(super) fn create(store: &Store, entry: &Entry) -> Result<bool, RegistryError> {
    let bytes =
        entry.encode().map_err(|error| RegistryError::Refused(format!("the entry cannot be written: {error}")))?;
    if bytes.len() > entry::BYTES_MAX {
        return Err(RegistryError::Refused(format!(
            "the entry would be {} bytes long, and {} are allowed; keep what is large in a file of a version",
            bytes.len(),
            entry::BYTES_MAX
        )));
    }
    Ok(store.create(&entry::name(entry.number), &bytes)?)
}

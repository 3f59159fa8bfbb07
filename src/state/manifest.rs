//! The entries of the numbered log: claims and manifests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StateError;
use super::part::PartRef;
use super::store::Store;
use crate::base::{Epoch, EventTime, Tick};

/// Version of the entries' form.
const FORMAT: u32 = 1;
/// Folder of the log.
pub(super) const FOLDER: &str = "epochs";

/// One entry. Its number is a generation for a claim and an epoch for a manifest; no number is used twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A process has taken the state over.
    Claim(Claim),
    /// An epoch is committed.
    Epoch(Box<Manifest>),
}

/// A process has taken the state over: from here on only it commits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Names the job's life, from its first start on, in the tables' transactions and the topics' ledger.
    pub instance: String,
    /// A name that no other start has.
    pub process: String,
    /// The epoch that was loaded, if any.
    pub loaded: Option<Epoch>,
    /// The savepoint that the job's life began with, if any.
    pub savepoint: Option<String>,
    /// Ticks up to this one were published by an earlier process and are not published again, where older state was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_through: Option<Tick>,
    /// The input behind the loaded state is read again in new cuts, and published again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
}

/// A committed epoch: all that a restart needs, and what has to be published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The claim under which it was written.
    pub generation: u64,
    /// Name of the job.
    pub job: String,
    /// Version of the job.
    pub job_version: u32,
    /// Version of the program.
    pub program: String,
    /// The epoch's last tick.
    pub tick: Tick,
    /// The watermark with that tick.
    pub watermark: EventTime,
    /// The job's clock with that tick.
    pub now: EventTime,
    /// Wall-clock milliseconds since 1970, for people.
    pub committed_ms: i64,
    /// Worker threads that wrote it.
    pub workers: usize,
    /// Stateful operators: name and fingerprint of what their state means.
    pub operators: BTreeMap<String, String>,
    /// Parts of the snapshot, oldest first.
    pub parts: Vec<PartRef>,
    /// What the sources need to go on: positions, watermarks.
    pub reader: Value,
    /// What was staged to be published, by sink.
    pub outboxes: BTreeMap<String, Vec<Value>>,
    /// Whether the job ended here: it was stopped, or its input had ended.
    pub last: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    crc32: u32,
    entry: Value,
}

impl Entry {
    /// The entry as it is stored.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let entry = serde_json::to_value(self)?;
        let crc32 = crc32fast::hash(&serde_json::to_vec(&entry)?);
        serde_json::to_vec_pretty(&Written { format: FORMAT, crc32, entry })
    }

    /// Reads an entry and checks it.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Entry, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|e| format!("it is no entry: {e}"))?;
        if written.format != FORMAT {
            return Err(format!("it is of format {}, this program reads {FORMAT}", written.format));
        }
        let body = serde_json::to_vec(&written.entry).map_err(|e| e.to_string())?;
        if crc32fast::hash(&body) != written.crc32 {
            return Err("its checksum does not match".to_owned());
        }
        serde_json::from_value(written.entry).map_err(|e| format!("it is no entry: {e}"))
    }
}

/// An entry as it was found.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It is whole.
    Whole(Entry),
    /// It cannot be read, for this reason.
    Damaged(String),
}

/// Reads the whole log, by number.
///
/// # Errors
/// When it cannot be listed or read; damaged entries are told as such.
pub fn read(store: &Store) -> Result<BTreeMap<u64, Seen>, StateError> {
    let mut entries = BTreeMap::new();
    for listed in store.list(FOLDER)? {
        let Some(number) = number(&listed.name) else { continue };
        // Gone since it was listed: it was old.
        let Some(bytes) = store.read(&listed.name)? else { continue };
        let seen = Entry::decode(&bytes).map_or_else(Seen::Damaged, Seen::Whole);
        entries.insert(number, seen);
    }
    Ok(entries)
}

/// The claims of a log, oldest first.
pub fn claims(entries: &BTreeMap<u64, Seen>) -> impl DoubleEndedIterator<Item = (u64, &Claim)> {
    entries.iter().filter_map(|(number, seen)| match seen {
        Seen::Whole(Entry::Claim(claim)) => Some((*number, claim)),
        _ => None,
    })
}

/// The epochs of a log whose manifests are whole, oldest first.
pub fn epochs(entries: &BTreeMap<u64, Seen>) -> impl DoubleEndedIterator<Item = (Epoch, &Manifest)> {
    entries.iter().filter_map(|(number, seen)| match seen {
        Seen::Whole(Entry::Epoch(manifest)) => Some((*number, &**manifest)),
        _ => None,
    })
}

/// Appends an entry: false when the number is taken, or later numbers are; then another process has taken over.
///
/// # Errors
/// When the outcome cannot be found out.
pub fn append(store: &Store, number: u64, entry: &Entry) -> Result<bool, StateError> {
    let name = name(number);
    let encoded = entry.encode().map_err(|e| store.damaged(&name, e.to_string()))?;
    if !store.create(&name, &encoded)? {
        return Ok(false);
    }
    // The number may be free because it was cleaned away long after a successor had taken it.
    let listed = store.list(FOLDER)?;
    Ok(listed.iter().filter_map(|l| self::number(&l.name)).all(|later| later <= number))
}

/// The newest claim, if it is newer than `generation`.
///
/// # Errors
/// When the log cannot be read.
pub fn newer_claim(store: &Store, generation: u64) -> Result<Option<u64>, StateError> {
    let newest = claims(&read(store)?).next_back().map(|(number, _)| number);
    Ok(newest.filter(|number| *number > generation))
}

/// Removes an entry.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(store: &Store, entry: u64) -> Result<(), StateError> {
    store.remove(&name(entry))
}

/// Name of an entry's object.
pub fn name(number: u64) -> String {
    format!("{FOLDER}/{number:020}.json")
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
impl Manifest {
    /// One that says nothing.
    pub(crate) fn empty() -> Manifest {
        Manifest {
            generation: 0,
            job: String::new(),
            job_version: 1,
            program: String::new(),
            tick: 0,
            watermark: 0,
            now: 0,
            committed_ms: 0,
            workers: 1,
            operators: BTreeMap::new(),
            parts: Vec::new(),
            reader: Value::Null,
            outboxes: BTreeMap::new(),
            last: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Entry {
        Entry::Claim(Claim {
            instance: "i".into(),
            process: "p".into(),
            loaded: Some(3),
            savepoint: None,
            suppress_through: None,
            anew: false,
        })
    }

    #[test]
    fn entries_come_back_and_damage_is_seen() {
        let bytes = claim().encode().expect("it is JSON");
        assert_eq!(Entry::decode(&bytes), Ok(claim()));
        let text = String::from_utf8(bytes).expect("it is text");
        let other = text.replace("\"loaded\": 3", "\"loaded\": 4");
        assert_ne!(other, text);
        assert!(Entry::decode(other.as_bytes()).is_err_and(|e| e.contains("checksum")));
        assert!(Entry::decode(&text.as_bytes()[..text.len() / 2]).is_err());
        let newer = text.replace("\"format\": 1", "\"format\": 2");
        assert!(Entry::decode(newer.as_bytes()).is_err_and(|e| e.contains("format 2")));
    }

    #[test]
    fn a_number_that_was_cleaned_away_is_not_free() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().display().to_string()).expect("it opens");
        assert!(append(&store, 1, &claim()).expect("it is written"));
        assert!(!append(&store, 1, &claim()).expect("it is taken"));
        assert!(append(&store, 2, &claim()).expect("it is written"));
        remove(&store, 1).expect("it is removed");
        assert!(!append(&store, 1, &claim()).expect("a later number is there"));
        let seen = read(&store).expect("it is read");
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(newer_claim(&store, 1).expect("it is read"), Some(2));
        assert_eq!(newer_claim(&store, 2).expect("it is read"), None);
    }
}

//! The entries of the history: what was done to a model, by whom and why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::Version;
use crate::base::{EventTime, wall_clock};

/// Version of the entries' form.
const FORMAT: u32 = 1;

/// Bytes of an entry; what is larger belongs into a file of a version.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// Entries of one folder.
const FOLDER_ENTRIES: u64 = 1_000;

/// Who does something and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct By {
    /// A person or a job.
    pub who: String,
    /// The reason.
    pub why: String,
    /// Names the deed, such as the id of a decision: what was done under a key is not done again.
    pub key: Option<String>,
    /// What the reason rests on; null for nothing.
    pub numbers: Value,
}

impl By {
    /// Somebody, with a reason.
    pub fn new(who: impl Into<String>, why: impl Into<String>) -> By {
        By { who: who.into(), why: why.into(), key: None, numbers: Value::Null }
    }

    /// Under a key.
    pub fn key(self, key: impl Into<String>) -> By {
        By { key: Some(key.into()), ..self }
    }

    /// With numbers.
    pub fn numbers(self, numbers: Value) -> By {
        By { numbers, ..self }
    }
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1, in the order in which things were done.
    pub number: u64,
    /// The model.
    pub model: String,
    /// What was done.
    pub event: Event,
    /// By whom.
    pub who: String,
    /// The reason.
    pub why: String,
    /// Wall-clock time.
    pub at: EventTime,
    /// Names the deed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the reason rests on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub numbers: Value,
    /// No two entries have the same: whoever finds it knows that the entry is its own.
    pub id: String,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A version was registered, and may have been given an alias.
    Registered {
        /// The version.
        version: Box<Version>,
        /// The alias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alias: Option<String>,
        /// The version that had the alias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
    },
    /// An alias was given to a version, or moved from another.
    AliasMoved {
        /// The alias.
        alias: String,
        /// The version that had it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
        /// The version that has it.
        to: u32,
        /// Whether that was a step back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
    },
    /// An alias was taken away.
    AliasRemoved {
        /// The alias.
        alias: String,
        /// The version that had it.
        from: u32,
    },
    /// Something was noted: a decision with its numbers, a request to those who follow, a remark.
    Noted {
        /// What kind of note: `decision`, `request`, `note`.
        kind: String,
        /// The version that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
    },
    /// An entry that is damaged was given up.
    PassedOver {
        /// Its number.
        entry: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = |f: &mut fmt::Formatter<'_>, alias: &str, from: &Option<u32>, to: u32| match from {
            Some(from) if *from == to => write!(f, "{alias} stays at {to}"),
            Some(from) => write!(f, "{alias} from {from} to {to}"),
            None => write!(f, "{alias} to {to}"),
        };
        match self {
            Event::Registered { version, alias, from } => {
                write!(f, "registered version {}", version.number)?;
                alias.iter().try_for_each(|alias| {
                    f.write_str(", ")?;
                    moved(f, alias, from, version.number)
                })
            }
            Event::AliasMoved { alias, from, to, back } => {
                moved(f, alias, from, *to)?;
                if *back { f.write_str(" (back)") } else { Ok(()) }
            }
            Event::AliasRemoved { alias, from } => write!(f, "{alias} taken from {from}"),
            Event::Noted { kind, version } => {
                f.write_str(kind)?;
                version.iter().try_for_each(|version| write!(f, " on version {version}"))
            }
            Event::PassedOver { entry } => write!(f, "gave up entry {entry}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    crc32: u32,
    entry: Value,
}

impl Entry {
    pub(super) fn new(number: u64, model: &str, event: Event, by: &By) -> Entry {
        let By { who, why, key, numbers } = by.clone();
        Entry { number, model: model.to_owned(), event, who, why, at: wall_clock(), key, numbers, id: unique() }
    }

    /// The entry as it is stored.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(&written(self)?)
    }

    /// Reads entry `number` and checks it.
    pub(super) fn decode(number: u64, bytes: &[u8]) -> Result<Entry, Damage> {
        let entry: Entry = unwrap(bytes)?;
        match entry.number == number {
            true => Ok(entry),
            false => Err(Damage::of(format!("is that of number {}", entry.number))),
        }
    }
}

/// What is wrong with an object, to be said behind its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Damage {
    pub what: String,
    /// It is whole, and a later version of the program wrote it.
    pub newer: bool,
}

impl Damage {
    pub fn of(what: impl Into<String>) -> Damage {
        Damage { what: what.into(), newer: false }
    }
}

fn written<T: Serialize>(value: &T) -> Result<Written, serde_json::Error> {
    let entry = serde_json::to_value(value)?;
    Ok(Written { format: FORMAT, crc32: checksum(FORMAT, &entry)?, entry })
}

/// Of the format as well: what seems to be of a later one must not be a bit that has turned.
pub(super) fn checksum(format: u32, entry: &Value) -> Result<u32, serde_json::Error> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&format.to_le_bytes());
    hasher.update(&serde_json::to_vec(entry)?);
    Ok(hasher.finalize())
}

/// Checks and reads what [`Entry::encode`] or [`wrap`] wrote.
pub(super) fn unwrap<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let damaged = |error: serde_json::Error| Damage::of(format!("is damaged: {error}"));
    let written: Written = serde_json::from_slice(bytes).map_err(damaged)?;
    if checksum(written.format, &written.entry).map_err(damaged)? != written.crc32 {
        return Err(Damage::of("is damaged: its checksum does not match"));
    }
    let newer = |what: String| Damage { what, newer: true };
    if written.format != FORMAT {
        return Err(newer(format!("is of format {}, and this program reads {FORMAT}", written.format)));
    }
    serde_json::from_value(written.entry).map_err(|error| newer(format!("is not understood by this program: {error}")))
}

/// Wraps a snapshot as an entry is.
pub(super) fn wrap<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&written(value)?)
}

/// The folder of an entry: as many are listed at once as one holds.
pub(super) fn folder(number: u64) -> String {
    format!("entries/{:010}", number / FOLDER_ENTRIES)
}

/// The first entry of the folder behind that of `number`.
pub(super) fn next_folder(number: u64) -> u64 {
    (number / FOLDER_ENTRIES + 1) * FOLDER_ENTRIES
}

/// The object of an entry.
pub(super) fn name(number: u64) -> String {
    format!("{}/{number:020}.json", folder(number))
}

/// The number of an entry's or a snapshot's object.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once('/')?.1.strip_suffix(".json")?.parse().ok()
}

fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{count:x}-{:x}", wall_clock(), std::process::id(), crate::base::any_seed())
}

/// Values that are kept beside a version must be told apart and finite.
pub(super) fn check_metrics(metrics: &BTreeMap<String, f64>) -> Result<(), String> {
    match metrics.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, value)) => Err(format!("metric `{name}` is {value}; a metric is a finite number")),
        None => Ok(()),
    }
}

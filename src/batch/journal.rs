//! What became of a job's steps, on disk: an append-only log that is synced entry by entry.
//!
//! A line is the CRC-32 of the rest in eight hexadecimal digits, a space, and JSON. A process that dies while it writes leaves
//! a line that is torn: the last one, which is cut off. Anything else that does not read is damage, and is told.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BatchError;
use super::disk::sync_directory;
use super::schedule::State;
use crate::base::{EventTime, failpoint, format_time, parse_time, wall_clock};

/// A file that a step left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it is, such as `set` or `model`.
    pub name: String,
    /// Its path in the step's directory of outputs.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// What a step has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// A table, a file, an output of another step.
    pub what: String,
    /// Version of the Delta table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// SHA-256 of the file, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a step that is done leaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of what the step was told to do and of what it was given.
    pub definition: String,
    /// What it has read.
    pub inputs: Vec<Input>,
    /// What it left.
    pub outputs: Vec<Output>,
    /// What it tells: rows, metrics, decisions.
    pub facts: Value,
    /// How long the attempt took, in seconds.
    pub seconds: f64,
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Change {
    /// Its turn has not come; also: it starts over.
    Queued,
    /// An attempt begins.
    Running {
        /// Its number, from 1.
        attempt: u32,
        /// Its share of the threads.
        threads: usize,
    },
    /// An attempt failed, another follows.
    Retrying {
        /// Number of the attempt that follows.
        attempt: u32,
        /// Not before this, by the wall clock.
        until: String,
        /// Why.
        why: String,
    },
    /// Done.
    Done(Record),
    /// Failed for good.
    Failed {
        /// Why.
        why: String,
    },
    /// Not run.
    Skipped {
        /// Why.
        why: String,
    },
}

impl Change {
    /// The change that leads to a state; `record` is that of a step that is done.
    pub fn to(state: &State, record: Option<Record>) -> Change {
        match state.clone() {
            State::Queued => Change::Queued,
            State::Running { attempt, threads } => Change::Running { attempt, threads },
            State::Retrying { attempt, at, why } => Change::Retrying { attempt, until: format_time(at), why },
            State::Done => Change::Done(record.unwrap_or_default()),
            State::Failed { why } => Change::Failed { why },
            State::Skipped { why } => Change::Skipped { why },
        }
    }

    /// The state that it leads to.
    pub fn state(&self) -> State {
        match self.clone() {
            Change::Queued => State::Queued,
            Change::Running { attempt, threads } => State::Running { attempt, threads },
            Change::Retrying { attempt, until, why } => {
                State::Retrying { attempt, at: parse_time(&until).unwrap_or(EventTime::MIN), why }
            }
            Change::Done(_) => State::Done,
            Change::Failed { why } => State::Failed { why },
            Change::Skipped { why } => State::Skipped { why },
        }
    }
}

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the wall clock.
    pub at: String,
    /// The step.
    pub step: String,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

/// A journal open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// How each step was left.
    last: BTreeMap<String, Entry>,
}

impl Journal {
    /// Opens a journal, or begins one; what a dying process left torn is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged.
    pub fn open(path: &Path) -> Result<Journal, BatchError> {
        let fresh = !path.exists();
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(BatchError::disk("open", path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(BatchError::disk("read", path))?;
        let (entries, sound) = parse(path, &text)?;
        if sound < text.len() {
            file.set_len(sound as u64).and_then(|()| file.sync_all()).map_err(BatchError::disk("mend", path))?;
        }
        file.seek(SeekFrom::Start(sound as u64)).map_err(BatchError::disk("read", path))?;
        if fresh {
            sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        }
        let last = entries.into_iter().map(|entry| (entry.step.clone(), entry)).collect();
        Ok(Journal { path: path.to_owned(), file, last })
    }

    /// The entries of a journal that another process may be writing; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(path: &Path) -> Result<Vec<Entry>, BatchError> {
        match std::fs::read(path) {
            Ok(text) => Ok(parse(path, &text)?.0),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(BatchError::disk("read", path)(e)),
        }
    }

    /// How a step was left, if it has begun.
    pub fn last(&self, step: &str) -> Option<&Change> {
        self.last.get(step).map(|entry| &entry.change)
    }

    /// What a step that is done has left.
    pub fn record(&self, step: &str) -> Option<&Record> {
        match self.last(step) {
            Some(Change::Done(record)) => Some(record),
            _ => None,
        }
    }

    /// Notes what happened to a step; it is on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, step: &str, change: Change) -> Result<(), BatchError> {
        failpoint("batch.journal");
        let entry = Entry { at: format_time(wall_clock()), step: step.to_owned(), change };
        let line = line(&entry).map_err(|e| BatchError::damaged(&self.path, e.to_string()))?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(BatchError::disk("write", &self.path))?;
        self.last.insert(entry.step.clone(), entry);
        failpoint("batch.journaled");
        Ok(())
    }
}

fn line(entry: &Entry) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_string(entry)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

/// The entries, and how many bytes of the text are sound.
fn parse(path: &Path, text: &[u8]) -> Result<(Vec<Entry>, usize), BatchError> {
    let (mut entries, mut sound) = (Vec::new(), 0);
    let mut number = 0;
    while let Some(length) = text[sound..].iter().position(|b| *b == b'\n') {
        number += 1;
        let end = sound + length + 1;
        match one(&text[sound..end - 1]) {
            Some(entry) => entries.push(entry),
            // A disk may have written the end of the last line and not its beginning.
            None if end == text.len() => break,
            None => return Err(BatchError::damaged(path, format!("line {number} does not fit its checksum"))),
        }
        sound = end;
    }
    Ok((entries, sound))
}

fn one(line: &[u8]) -> Option<Entry> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32fast::hash(json) == sum).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = Change> {
        let output = |n: u64| Output { name: "set".into(), file: "a b.parquet".into(), bytes: n, sha256: "00".into() };
        prop_oneof![
            Just(Change::Queued),
            (1..9u32, 1..9usize).prop_map(|(attempt, threads)| Change::Running { attempt, threads }),
            (0..4_000_000_000_000_000i64, "\\PC{0,20}").prop_map(|(at, why)| Change::Retrying {
                attempt: 2,
                until: format_time(at),
                why
            }),
            (any::<u64>(), any::<f64>().prop_filter("JSON has no other", |x| x.is_finite())).prop_map(
                move |(n, seconds)| Change::Done(Record {
                    definition: "d".into(),
                    inputs: vec![Input { what: "labels/fraud".into(), version: Some(n), sha256: None }],
                    outputs: vec![output(n)],
                    facts: serde_json::json!({"rows": n}),
                    seconds,
                })
            ),
            "\\PC{0,20}".prop_map(|why| Change::Failed { why }),
            "\\PC{0,20}".prop_map(|why| Change::Skipped { why }),
        ]
    }

    proptest! {
        /// Cut anywhere, a journal gives back the entries that were whole, and can be written on.
        #[test]
        fn torn_journals_go_on(changes in prop::collection::vec(change(), 1..6), cut in 0.0..1.0f64) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            let mut journal = Journal::open(&path).unwrap();
            let mut ends = vec![0];
            for change in &changes {
                journal.note("fit", change.clone()).unwrap();
                ends.push(std::fs::metadata(&path).unwrap().len());
            }
            drop(journal);
            let whole = std::fs::read(&path).unwrap();
            let cut = (whole.len() as f64 * cut) as usize;
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
            let mut journal = Journal::open(&path).unwrap();
            prop_assert_eq!(journal.last("fit"), kept.checked_sub(1).map(|i| &changes[i]));
            journal.note("fit", Change::Queued).unwrap();
            let entries = Journal::read(&path).unwrap();
            let read: Vec<&Change> = entries.iter().map(|e| &e.change).collect();
            let expected: Vec<&Change> = changes[..kept].iter().chain([&Change::Queued]).collect();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn damage_in_the_middle_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.note("a", Change::Queued).unwrap();
        journal.note("b", Change::Queued).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1 does not fit its checksum"), "{error}");
    }

    #[test]
    fn changes_and_states_say_the_same() {
        for state in [
            State::Queued,
            State::Running { attempt: 2, threads: 3 },
            State::Retrying { attempt: 2, at: 1_700_000_000_123_456, why: "x".into() },
            State::Done,
            State::Failed { why: "x".into() },
            State::Skipped { why: "x".into() },
        ] {
            assert_eq!(Change::to(&state, None).state(), state);
        }
    }
}

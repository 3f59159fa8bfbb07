//! What is done of a tuning, one line of JSON for each fit, so that one that was killed goes on where it was.
//!
//! The first line holds a fingerprint of all that the results follow from: options, settings, folds and their rows. A line is
//! written whole and flushed to the disk before the next fit's result is; the last may be torn, and is then dropped.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TrainError, Values};
use crate::base::failpoint;

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    tidemill_tuning: u32,
    fingerprint: String,
}

const VERSION: u32 = 1;

/// Which fit: trial, round of halving, fold.
pub(super) type Place = (u32, u32, u32);

/// What a fit came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub trial: u32,
    pub round: u32,
    pub fold: u32,
    /// The settings, to see that it is the same trial.
    pub params: Value,
    /// Statistics, or why there are none.
    pub outcome: Result<Values, String>,
    /// How long it took.
    pub seconds: f64,
}

impl Entry {
    pub fn place(&self) -> Place {
        (self.trial, self.round, self.fold)
    }
}

/// A journal that is open, and what was in it.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    done: HashMap<Place, Entry>,
}

impl Journal {
    /// Opens a journal or begins one.
    pub fn open(path: &Path, fingerprint: &str) -> Result<Journal, TrainError> {
        let outside = |fault: std::io::Error| TrainError::Journal {
            path: path.to_owned(),
            why: fault.to_string(),
            outside: true,
        };
        let wrong = |why: String| TrainError::Journal { path: path.to_owned(), why, outside: false };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(outside)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(outside)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(outside)?;
        // What stands behind the last line's end was being written when the process died.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole])
            .map_err(|_| wrong("it is no text; name another file, or delete it".to_owned()))?;
        let mut lines = text.lines().enumerate();
        let mut done = HashMap::new();
        match lines.next() {
            None => {
                file.set_len(0).map_err(outside)?;
                file.seek(SeekFrom::Start(0)).map_err(outside)?;
                let head = Head { tidemill_tuning: VERSION, fingerprint: fingerprint.to_owned() };
                write(&mut file, &head).map_err(outside)?;
            }
            Some((_, line)) => {
                let head: Head = serde_json::from_str(line).map_err(|_| {
                    wrong("its first line is not a tuning's; name another file, or delete it".to_owned())
                })?;
                if head.tidemill_tuning != VERSION {
                    return Err(wrong(format!(
                        "it is of version {}, this program writes {VERSION}; delete it to tune anew",
                        head.tidemill_tuning
                    )));
                }
                if head.fingerprint != fingerprint {
                    return Err(wrong(
                        "it is of another tuning: options, settings, folds or rows differ; delete it to tune anew, or name another file".to_owned(),
                    ));
                }
                for (at, line) in lines {
                    let entry: Entry = serde_json::from_str(line).map_err(|fault| {
                        wrong(format!("line {} is no result: {fault}; delete the file to tune anew", at + 1))
                    })?;
                    done.insert(entry.place(), entry);
                }
                file.set_len(whole as u64).map_err(outside)?;
                file.seek(SeekFrom::End(0)).map_err(outside)?;
            }
        }
        Ok(Journal { path: path.to_owned(), file: Mutex::new(file), done })
    }

    /// What a fit came to in an earlier life.
    pub fn find(&self, place: Place, params: &Value) -> Result<Option<&Entry>, TrainError> {
        match self.done.get(&place) {
            Some(entry) if entry.params != *params => Err(TrainError::Journal {
                path: self.path.clone(),
                why: format!(
                    "trial {} has other settings there than it has now, so another version of the program wrote it; delete it to tune anew",
                    place.0
                ),
                outside: false,
            }),
            found => Ok(found),
        }
    }

    /// Writes what a fit came to.
    pub fn append(&self, entry: &Entry) -> Result<(), TrainError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = write(&mut file, entry).map_err(|fault| TrainError::Journal {
            path: self.path.clone(),
            why: fault.to_string(),
            outside: true,
        });
        failpoint("train.trial");
        written
    }
}

fn write(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_data()
}

//! Scores of rows in Parquet files: files in, files out, row group by row group on several threads.
//!
//! Of each row group a thread reads the columns that are needed, scores them, and encodes the result; encoded groups are put into the output
//! in the order of the input. Only a few groups are on their way at a time, so memory is bounded by threads and the size of encoded groups, whatever the files'
//! length. An output is written beside its place and renamed when it is whole; it says what it was made of, so that who
//! starts again does not do again what is done.

mod error;
mod plan;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::model::Model;
use crate::plan::model::ModelOutput;

pub use error::FilesError;
pub use plan::every_output;
pub use run::run;

/// Column of an output that holds the version of the model.
pub const VERSION: &str = "model_version";
/// Column of an output that holds the SHA-256 of the model.
pub const HASH: &str = "model_hash";
/// Column of an output that says why a row has no score.
pub const REASON: &str = "reason";

/// A file to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Its name beneath the output's directory.
    pub name: PathBuf,
}

/// A column of a file that becomes one of the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// As the model calls it: an input, or one of the columns that its only input is made of.
    pub name: String,
    /// As the file calls it.
    pub column: String,
}

/// Which columns of the files are written beside the scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// These.
    Only(Vec<String>),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model.
    pub model: Model,
    /// What its version is called in the outputs.
    pub version: String,
    /// Columns that are the model's inputs, in the model's order where it names none. Empty: by the model's own names, or all columns of a
    /// file in their order where they are just as many as the model takes.
    pub columns: Vec<Mapped>,
    /// Score columns. Empty: [`every_output`].
    pub outputs: Vec<ModelOutput>,
    /// Columns that pass through.
    pub keep: Keep,
    /// Directory of the outputs, made where it is not there.
    pub out: PathBuf,
    /// Threads.
    pub threads: usize,
    /// Replace outputs that are there already and were made otherwise.
    pub replace: bool,
}

/// How far it has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Rows of all files, once their footers are read.
    pub rows: AtomicU64,
    /// Rows that are done.
    pub done: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// Asks it to end soon. Files that are whole by then stay.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of the model.
    pub model_version: String,
    /// SHA-256 of the model.
    pub model_hash: String,
    /// Files written.
    pub files: usize,
    /// Files that were there already, made of the same input by the same model.
    pub skipped: usize,
    /// Rows written.
    pub rows: u64,
    /// Rows without a score.
    pub failed: u64,
    /// Score columns.
    pub scores: Vec<String>,
}

//! Point-in-time joins of the offline tables: training sets, written as sorted Parquet with a manifest beside.
//!
//! [`build`] makes one of two sets. [`Rows::Labelled`]: the latest label of each prediction, as it was known at a cut-off,
//! with the features that were logged when the prediction was made. [`Rows::Entities`]: rows of a file, each an entity and
//! a time, with the latest row of feature views at or before the time and within their ttl, never after.
//!
//! **What bounds the memory.** Tables are streamed, never held. Rows of the set are made in chunks that fit
//! [`Query::memory_bytes`]: for each chunk keys and times of the table are read once and held against the chunk's, and the
//! columns of those rows that count are fetched after. Several chunks are sorted runs on disk that are merged at the end.
//!
//! **Again, bit for bit.** The rows of a set follow from the tables' versions and the query alone, in an order of their own,
//! so the files do too: compaction, later rows, threads and chunks change nothing. The [`Manifest`] names all of it.

mod asof;
mod choose;
mod entities;
mod keys;
mod labelled;
mod manifest;
mod output;
mod query;
mod run;
mod table;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use manifest::{ColumnNote, Counts, InputFile, Manifest, Role, TableVersion, manifest_path, read_roles};
pub use query::{Asked, Entities, LABEL_TABLE_COLUMNS, Labelled, Query, Rows, View, ViewColumn, Window};

use super::StoreError;

/// How far a set has come; shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    of: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// Rows read so far, and rows to read as far as is known.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// Has the work end early, with an error that says so.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end early.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn expect(&self, rows: u64) {
        self.of.fetch_add(rows, Ordering::Relaxed);
    }

    fn add(&self, rows: u64) -> Result<(), StoreError> {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        match self.is_stopped() {
            true => Err(StoreError::Request("stopped before the set was written; nothing was left".into())),
            false => Ok(()),
        }
    }
}

/// Makes a set: writes `out` and, beside it, its manifest ([`manifest_path`]). Files of these names are replaced once the
/// new ones are complete.
///
/// # Errors
/// [`StoreError::Request`] for what cannot be asked of these tables; [`StoreError::NoTable`] when one is not there; else from
/// reading and writing.
pub fn build(query: &Query, out: &Path) -> Result<Manifest, StoreError> {
    build_watched(query, out, &Progress::default())
}

/// [`build`], watched and stopped through `progress`.
///
/// # Errors
/// As [`build`].
pub fn build_watched(query: &Query, out: &Path, progress: &Progress) -> Result<Manifest, StoreError> {
    match out.extension() {
        Some(extension) if !extension.eq_ignore_ascii_case("json") => {}
        _ => {
            let what = format!("name the output NAME.parquet: `{}` would be its own manifest", out.display());
            return Err(StoreError::Request(what));
        }
    }
    let manifest = match &query.rows {
        Rows::Labelled(labelled) => labelled::build(query, labelled, out, progress)?,
        Rows::Entities(entities) => entities::build(query, entities, out, progress)?,
    };
    manifest.write(&manifest_path(out))?;
    Ok(manifest)
}

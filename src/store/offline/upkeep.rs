//! Upkeep of a table: compaction, then vacuum, and what they made of it.

use std::path::Path;

use serde::Serialize;

use super::compact::{CompactOptions, Compacted, compact};
use super::reader::TableReader;
use super::spec::table_path;
use super::vacuum::{VacuumOptions, Vacuumed, vacuum};
use crate::store::StoreError;

/// What is done to a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpkeepOptions {
    /// Merging small files.
    pub compact: CompactOptions,
    /// Deleting old ones.
    pub vacuum: VacuumOptions,
}

/// Live files of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was done to a table, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Upkeep {
    /// The table.
    pub table: String,
    /// Live files before.
    pub before: Extent,
    /// Live files after; in a dry run as they are.
    pub after: Extent,
    /// What was merged.
    pub compacted: Compacted,
    /// What was deleted.
    pub vacuumed: Vacuumed,
}

/// Compacts and vacuums the table `name` below `root`, the offline store's directory. `go_on` is asked often; once it says
/// no the upkeep ends early, with what it has done so far.
///
/// # Errors
/// As [`compact`] and [`vacuum`].
pub fn keep_up(
    root: &Path,
    name: &str,
    options: &UpkeepOptions,
    go_on: &dyn Fn() -> bool,
) -> Result<Upkeep, StoreError> {
    let before = extent(root, name)?;
    let compacted = compact(root, name, &options.compact, go_on)?;
    let vacuumed = vacuum(root, name, &options.vacuum, go_on)?;
    Ok(Upkeep { table: name.to_owned(), before, after: extent(root, name)?, compacted, vacuumed })
}

fn extent(root: &Path, name: &str) -> Result<Extent, StoreError> {
    let files = TableReader::open(&table_path(root, name), None)?.files()?;
    Ok(Extent { files: files.len() as u64, bytes: files.iter().map(|file| file.size.max(0) as u64).sum() })
}

//! Outboxes: parts that wait, outside of any table, for the manifest that names them.
//!
//! `<root>/_outbox/<instance>/<table>/event_date=…/part-….parquet`, in the offline store's own directory, so that a part
//! enters its table without being copied.
//!
//! **Publication** gives a staged file a second name in its table (a hard link), commits, and takes the first name away.
//! Until the commit is on disk the file is in the outbox, whatever else goes on: a vacuum spares what an outbox names, and
//! whoever takes over publishes again from there. Done twice, or by two processes at once, it ends the same: names are
//! unique, the second link finds the first, and the log takes the epoch once.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::part::{Part, Place, sync_directory};
use super::spec::table_path;
use crate::base::Epoch;
use crate::store::StoreError;

/// Directory of all outboxes below the offline store's. Readers of tables pass over names with an underscore.
const OUTBOXES: &str = "_outbox";
/// Directories that are forced to disk at the same time.
const SYNCS_AT_ONCE: usize = 8;

/// Where the parts of a table wait in the outbox of `instance`.
pub(super) fn place(root: &Path, instance: &str, table: &str) -> Result<Place, StoreError> {
    let staged = format!("{}/{table}", below(instance)?);
    Ok(Place { directory: table_path(root, &staged), staged: Some(staged) })
}

fn below(instance: &str) -> Result<String, StoreError> {
    if instance.is_empty() || instance.starts_with('.') || instance.contains(['/', '\\', '\0']) {
        return Err(StoreError::Request(format!("`{instance}` cannot name an outbox: it is no plain file name")));
    }
    Ok(format!("{OUTBOXES}/{instance}"))
}

/// Gives staged files their names in the table in `directory`, and forces these to disk. Files that are there already are
/// left alone; parts that were written into the table must be there, for the log must not name what is not.
pub(super) fn enter(root: &Path, directory: &Path, epoch: Epoch, parts: &[Part]) -> Result<(), StoreError> {
    let mut dates: BTreeSet<PathBuf> = BTreeSet::new();
    let mut new_date = false;
    let lost = |what: String| StoreError::LostPart { table: directory.to_path_buf(), epoch, what };
    for part in parts {
        let to = table_path(directory, &part.path);
        let Some(staged) = &part.staged else {
            match to.exists() {
                true => continue,
                false => return Err(lost(format!("{} is gone", to.display()))),
            }
        };
        let from = table_path(root, staged);
        let date = to.parent().unwrap_or(directory);
        if !dates.contains(date) {
            if !date.is_dir() {
                fs::create_dir_all(date).map_err(StoreError::io("create", date))?;
                new_date = true;
            }
            dates.insert(date.to_path_buf());
        }
        match fs::hard_link(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            // Another one published it and has taken the first name away.
            Err(e) if e.kind() == ErrorKind::NotFound && to.exists() => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(lost(format!("neither {} nor {} is there", from.display(), to.display())));
            }
            Err(e) => return Err(StoreError::io("publish", &from)(e)),
        }
    }
    if new_date {
        dates.insert(directory.to_path_buf());
    }
    sync_all(&dates.into_iter().collect::<Vec<_>>())
}

/// Forces directories to disk, several at once: disks put flushes that come together into one.
fn sync_all(directories: &[PathBuf]) -> Result<(), StoreError> {
    let some = |some: &[PathBuf]| some.iter().try_for_each(|directory| sync_directory(directory));
    let each = directories.len().div_ceil(SYNCS_AT_ONCE).max(1);
    let mut chunks = directories.chunks(each);
    let first = chunks.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = chunks.map(|chunk| scope.spawn(move || some(chunk))).collect();
        let own = some(first);
        others.into_iter().fold(own, |ended, thread| ended.and(thread.join().expect("a sync does not panic")))
    })
}

/// Takes away the staged names of parts whose epoch is in the table.
pub(super) fn leave(root: &Path, parts: &[Part]) {
    for staged in parts.iter().filter_map(|part| part.staged.as_ref()) {
        let path = table_path(root, staged);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a published file stays in the outbox; it does no harm");
            }
            _ => {}
        }
    }
}

/// Name of the outbox of one start of the job `instance`. Each start has its own, so that one that was stopped before it
/// cleared away what others had left cannot take what a later one stages.
pub fn outbox_name(instance: &str, generation: u64) -> String {
    format!("{instance}.{generation}")
}

/// Removes the outboxes of all starts of `instance` before `generation`, when everything that was committed is published.
///
/// # Errors
/// [`StoreError::Io`] when a directory cannot be listed or removed.
pub fn discard_outboxes_before(root: &Path, instance: &str, generation: u64) -> Result<(), StoreError> {
    for (name, path, _) in entries(&root.join(OUTBOXES))? {
        let of_start = name.strip_prefix(instance).and_then(|rest| rest.strip_prefix('.')?.parse::<u64>().ok());
        if of_start.is_some_and(|start| start < generation) {
            match fs::remove_dir_all(&path) {
                // One that still writes there is behind.
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                    return Err(StoreError::io("remove", &path)(e));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Parts of a table that wait in any outbox, by [`Part::path`].
pub(super) fn waiting(root: &Path, table: &str) -> Result<HashSet<String>, StoreError> {
    let mut found = HashSet::new();
    for (_, instance, _) in entries(&root.join(OUTBOXES))? {
        for (date, directory, _) in entries(&table_path(&instance, table))? {
            found.extend(entries(&directory)?.into_iter().map(|(file, ..)| format!("{date}/{file}")));
        }
    }
    Ok(found)
}

/// Names in a directory, with their paths and whether they are directories. None in one that is not there.
pub(super) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf, bool)>, StoreError> {
    let wrong = || StoreError::io("list", directory);
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(wrong()(e)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(wrong())?;
        // One that goes away while it is looked at is no concern.
        if let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) {
            found.push((name, entry.path(), kind.is_dir()));
        }
    }
    Ok(found)
}

//! Vacuum: deletes files that no version of a table within the retention needs, and the log's entries that no reader needs.
//!
//! **Which data files.** A file stays when it is live, when the log removed it within the retention, when its last change is
//! within the retention (a writer may be about to commit it), or when an outbox holds it. The three looks are taken in an
//! order that loses no file on its way from one to the next: first the listing, then the outboxes, then the log. A part that
//! is published between the first and the last look is live in the last.
//!
//! **Which log entries.** Those before a checkpoint that is itself before all versions of the log retention, so that every
//! version of that time can still be read, and never those that the newest checkpoint needs.
//!
//! A crash in between leaves files that are deleted next time.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use delta_kernel::KernelResult;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel::schema::{DataType, StructField, StructType};
use serde::Serialize;
use url::Url;

use super::outbox::{entries, waiting};
use super::part::now_ms;
use super::reader::TableReader;
use super::spec::table_path;
use crate::base::failpoint;
use crate::store::StoreError;

/// How long removed files are told in checkpoints, unless the table says otherwise.
const TOLD_IN_CHECKPOINTS: Duration = Duration::from_secs(7 * 86_400);

/// What is deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct VacuumOptions {
    /// Removed files, and files that no commit names, are deleted after this long. Longer than the longest query.
    pub retention: Duration,
    /// Files that no commit has ever named are kept this long, or for `retention` if that is longer: a writer may be about to
    /// commit them. Much longer than the time between commits; files in an outbox are kept in any case.
    pub uncommitted: Duration,
    /// Entries of the log are deleted after this long, unless the table's property `delta.logRetentionDuration` asks for
    /// longer or `delta.enableExpiredLogCleanup` is false. Not before `retention`.
    pub log_retention: Duration,
    /// Say what would be deleted and delete nothing.
    pub dry_run: bool,
}

impl Default for VacuumOptions {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        VacuumOptions { retention: 7 * day, uncommitted: day, log_retention: 30 * day, dry_run: false }
    }
}

/// What a vacuum deleted, or would delete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vacuumed {
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of the log, checkpoints among them.
    pub log_files: u64,
}

/// Vacuums the table `name` below `root`, the offline store's directory. `go_on` is asked often; once it says no the vacuum
/// ends early, with what it has done so far.
///
/// # Errors
/// [`StoreError::NoTable`] when there is no such table; [`StoreError::Delta`] when its log cannot be read;
/// [`StoreError::Io`] when a directory cannot be listed or a file not deleted.
pub fn vacuum(
    root: &Path,
    name: &str,
    options: &VacuumOptions,
    go_on: &dyn Fn() -> bool,
) -> Result<Vacuumed, StoreError> {
    let directory = table_path(root, name);
    let log = directory.join("_delta_log");
    // The order of these three matters, see above.
    let mut listed = Vec::new();
    list(&directory, "", &mut listed)?;
    let waiting = waiting(root, name)?;
    let table = TableReader::open(&directory, None)?;
    let wrong = || StoreError::delta(directory.display().to_string());

    let now = now_ms();
    let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let home = fs::canonicalize(&directory).map_err(StoreError::io("open", &directory))?;
    let place = Url::from_directory_path(&home).ok();
    let local = |path: &str| place.as_ref()?.join(path).ok()?.to_file_path().ok();
    let live: HashSet<PathBuf> =
        table.files()?.iter().map(|file| table.file_path(file)).collect::<Result<_, StoreError>>()?;
    let (mut removed, mut recent) = (HashSet::new(), HashSet::new());
    let mut note = |path: &str, at: i64| {
        if let Some(path) = local(path) {
            if at > before(options.retention) {
                recent.insert(path.clone());
            }
            removed.insert(path);
        }
    };
    removals(&table, &mut note).map_err(wrong())?;
    let told = table.snapshot.table_properties().deleted_file_retention_duration.unwrap_or(TOLD_IN_CHECKPOINTS);
    if options.retention > told {
        removals_by_entry(&log, before(options.retention), &mut note)?;
    }

    let mut sum = Vacuumed::default();
    for file in listed {
        let path = home.join(&file.below);
        let known = removed.contains(&path);
        let least = if known { options.retention } else { options.retention.max(options.uncommitted) };
        let keep = live.contains(&path) || recent.contains(&path) || waiting.contains(&file.below);
        if keep || file.modified_ms > before(least) {
            continue;
        }
        if !go_on() {
            return Ok(sum);
        }
        sum.files += 1;
        sum.bytes += file.bytes;
        delete(&path, options.dry_run)?;
    }

    let properties = table.snapshot.table_properties();
    if properties.enable_expired_log_cleanup != Some(false) {
        let asked = properties.log_retention_duration.unwrap_or_default();
        let keep = options.log_retention.max(options.retention).max(asked);
        let checkpoint = table.snapshot.log_segment().checkpoint_version;
        for path in outdated(&log, checkpoint, before(keep))? {
            if !go_on() {
                return Ok(sum);
            }
            sum.log_files += 1;
            delete(&path, options.dry_run)?;
        }
    }
    Ok(sum)
}

fn delete(path: &Path, dry_run: bool) -> Result<(), StoreError> {
    if dry_run {
        return Ok(());
    }
    failpoint("delta.vacuum");
    match fs::remove_file(path) {
        // Another vacuum was quicker.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::io("delete", path)),
    }
}

/// A file in a table's directory.
struct Listed {
    /// Path below the table's directory.
    below: String,
    bytes: u64,
    modified_ms: i64,
}

/// Data files, finished or abandoned by a writer that died, below a directory. What begins with an underscore is none.
fn list(directory: &Path, below: &str, found: &mut Vec<Listed>) -> Result<(), StoreError> {
    for (name, path, is_directory) in entries(directory)? {
        let inner = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if name.starts_with('_') {
            continue;
        }
        if is_directory {
            // A table within a table's directory is another table.
            if !name.starts_with('.') && !path.join("_delta_log").exists() {
                list(&path, &inner, found)?;
            }
            continue;
        }
        let abandoned = name.starts_with('.') && name.ends_with(".tmp");
        if !abandoned && (name.starts_with('.') || !name.ends_with(".parquet")) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(data) => found.push(Listed { below: inner, bytes: data.len(), modified_ms: modified_ms(&data) }),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io("inspect", &path)(e)),
        }
    }
    Ok(())
}

/// When a file was changed last; one whose time cannot be told is as good as new.
fn modified_ms(data: &fs::Metadata) -> i64 {
    let since = data.modified().unwrap_or_else(|_| SystemTime::now()).duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// Tells `note` path and time of all removals that the log from its newest checkpoint on holds.
fn removals(table: &TableReader, note: &mut dyn FnMut(&str, i64)) -> KernelResult<()> {
    let remove = StructType::try_new([
        StructField::nullable("path", DataType::STRING),
        StructField::nullable("deletionTimestamp", DataType::LONG),
    ])?;
    let schema = Arc::new(StructType::try_new([StructField::nullable("remove", remove)])?);
    for actions in table.snapshot.log_segment().read_actions(table.engine.as_ref(), schema)? {
        let batch = actions?.actions.try_into_record_batch()?;
        let Some(remove) = batch.column_by_name("remove").and_then(|c| c.as_struct_opt()) else { continue };
        let paths = remove.column_by_name("path").and_then(|c| c.as_string_opt::<i32>());
        let times = remove.column_by_name("deletionTimestamp").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(paths), Some(times)) = (paths, times) else { continue };
        for row in (0..batch.num_rows()).filter(|row| remove.is_valid(*row) && paths.is_valid(*row)) {
            // A removal without a time is from before times were written.
            note(paths.value(row), if times.is_valid(row) { times.value(row) } else { 0 });
        }
    }
    Ok(())
}

/// Like [`removals`], from the log's entries since `since` one by one: checkpoints forget removals earlier than a long
/// retention does.
fn removals_by_entry(log: &Path, since: i64, note: &mut dyn FnMut(&str, i64)) -> Result<(), StoreError> {
    for (name, path, _) in entries(log)? {
        if version(&name).is_none() || !name.ends_with(".json") {
            continue;
        }
        let wrong = || StoreError::io("read", &path);
        if fs::metadata(&path).map_or(true, |data| modified_ms(&data) < since) {
            continue;
        }
        for line in BufReader::new(fs::File::open(&path).map_err(wrong())?).lines() {
            let line = line.map_err(wrong())?;
            if !line.contains("\"remove\"") {
                continue;
            }
            // What was removed and cannot be told might be deleted too early.
            let action: serde_json::Value = serde_json::from_str(&line).map_err(|e| wrong()(e.into()))?;
            if let Some(path) = action["remove"]["path"].as_str() {
                note(path, action["remove"]["deletionTimestamp"].as_i64().unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// The version that a file of the log belongs to, the last of them where it spans several.
fn version(name: &str) -> Option<u64> {
    let number = |text: &str| (text.len() == 20).then(|| text.parse::<u64>().ok()).flatten();
    let mut parts = name.split('.');
    let first = number(parts.next()?)?;
    Some(parts.next().and_then(number).unwrap_or(first))
}

/// Files of the log that may go, oldest first: all before the newest checkpoint that no entry of after `cutoff` precedes.
/// `newest` is the version of the newest checkpoint, which a reader needs.
fn outdated(log: &Path, newest: Option<u64>, cutoff: i64) -> Result<Vec<PathBuf>, StoreError> {
    let Some(newest) = newest else { return Ok(Vec::new()) };
    let mut files: Vec<(u64, String, PathBuf)> = Vec::new();
    for (name, path, is_directory) in entries(log)? {
        if let Some(version) = version(&name).filter(|_| !is_directory) {
            files.push((version, name, path));
        }
    }
    files.sort();
    // The oldest version that must stay readable.
    let mut wanted = newest;
    for (version, name, path) in &files {
        let fresh = || fs::metadata(path).map_or(true, |data| modified_ms(&data) > cutoff);
        if *version < wanted && name.len() == 25 && name.ends_with(".json") && fresh() {
            wanted = *version;
            break;
        }
    }
    // A checkpoint of one file is whole when it is there; those of several are left to who writes them.
    let whole = |name: &str| name.ends_with(".checkpoint.parquet");
    let base =
        files.iter().filter(|(version, name, _)| *version <= wanted && whole(name)).map(|(version, ..)| *version);
    let Some(base) = base.max() else { return Ok(Vec::new()) };
    Ok(files.into_iter().filter(|(version, ..)| *version < base).map(|(.., path)| path).collect())
}

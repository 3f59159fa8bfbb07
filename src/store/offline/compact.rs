//! Compaction: the small files of an event date become few large ones, sorted as all files of the table are.
//!
//! A commit every ten seconds leaves thousands of files a day. Compaction merges them, one group of files at a time, and
//! swaps the group for its merged file in one Delta transaction of removals and one addition that says `dataChange: false`:
//! the table's rows, its transaction ids and every older version stay as they are. Nothing is deleted, so readers of older
//! versions go on; [`vacuum`](super::vacuum()) deletes later.
//!
//! An append that comes between is no obstacle: the same merged file is offered to the next version as long as all files
//! that it stands for are live there. If they are not, or the table's columns have changed, somebody else was at work: the
//! merged file is left for the vacuum and the table is looked at anew.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::{ArrowEngineData, EngineDataArrowExt};
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{Engine, KernelError, KernelResult, SnapshotRef};
use serde::Serialize;

use super::adds::{add_files, stats_fields};
use super::merge::Merge;
use super::part::{Layout, Part, PartWriter, Place, ROW_GROUP_ROWS, now_ms, publish};
use super::reader::{TableReader, partition_date};
use super::spec::{DATE_COLUMN, table_path};
use super::table::{Attempts, ENGINE_INFO, GivenUp, checkpointed};
use crate::base::failpoint;
use crate::ops::system::SYSTEM_COLUMNS;
use crate::store::StoreError;

/// Files that are merged at once: bounds what is open and held in memory.
const FILES_MAX: usize = 256;
/// Rounds over a table: more than [`FILES_MAX`] tiny files of a date take a second one, and so does another compaction that
/// was quicker.
const ROUNDS_MAX: usize = 8;

/// What is compacted.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactOptions {
    /// Files of this many bytes and more are left as they are.
    pub below_bytes: u64,
    /// Files are merged into ones of at most about this many bytes.
    pub target_bytes: u64,
    /// Fewer files than this are not worth a rewrite; at least 2.
    pub files_min: usize,
    /// Leave dates alone that a file was written for within this time.
    pub settled: Duration,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
}

impl Default for CompactOptions {
    fn default() -> Self {
        CompactOptions {
            below_bytes: 32 << 20,
            target_bytes: 128 << 20,
            files_min: 2,
            settled: Duration::ZERO,
            dry_run: false,
        }
    }
}

/// What a compaction did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Files of the table that were replaced, and their bytes.
    pub files_before: u64,
    /// Bytes of these.
    pub bytes_before: u64,
    /// Files that stand in their place; as planned in a dry run.
    pub files_after: u64,
    /// Bytes of these; 0 in a dry run, where nobody knows.
    pub bytes_after: u64,
    /// Rows that were rewritten; 0 in a dry run.
    pub rows: u64,
}

/// Compacts the table `name` below `root`, the offline store's directory. `go_on` is asked often; once it says no the
/// compaction ends early, with what it has done so far.
///
/// # Errors
/// [`StoreError::NoTable`] when there is no such table; [`StoreError::Schema`] when it is none of Tidemill's;
/// [`StoreError::Contended`] when the log could not be extended in many attempts; else from reading and writing.
pub fn compact(
    root: &Path,
    name: &str,
    options: &CompactOptions,
    go_on: &dyn Fn() -> bool,
) -> Result<Compacted, StoreError> {
    let directory = table_path(root, name);
    let mut sum = Compacted::default();
    for _ in 0..ROUNDS_MAX {
        let mut table = Table::open(&directory)?;
        let groups = groups(&table.files, options, now_ms());
        if groups.is_empty() || !go_on() {
            break;
        }
        let mut overtaken = false;
        // Files that come meanwhile are for the next time: a fast writer would be run after for ever.
        let unfinished = groups.iter().any(|group| group.len() == FILES_MAX);
        for group in groups {
            if options.dry_run {
                sum.files_before += group.len() as u64;
                sum.bytes_before += group.iter().map(|file| table.files[*file].size.max(0) as u64).sum::<u64>();
                sum.files_after += 1;
                continue;
            }
            let files: Vec<ScanFile> = group.iter().map(|file| table.files[*file].clone()).collect();
            let part = match table.rewrite(&files, go_on) {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(sum),
                // Another compaction and a vacuum after it may have taken the files away.
                Err(error) => match table.still_live(&files)? {
                    true => return Err(error),
                    false => {
                        overtaken = true;
                        break;
                    }
                },
            };
            failpoint("delta.compacted");
            if !table.swap(&files, &part)? {
                overtaken = true;
                break;
            }
            sum.files_before += files.len() as u64;
            sum.bytes_before += files.iter().map(|file| file.size.max(0) as u64).sum::<u64>();
            sum.files_after += 1;
            sum.bytes_after += part.size;
            sum.rows += part.rows;
        }
        if options.dry_run || !(overtaken || unfinished) {
            break;
        }
    }
    Ok(sum)
}

/// Which files are merged with which: indexes into `files`.
fn groups(files: &[ScanFile], options: &CompactOptions, now_ms: i64) -> Vec<Vec<usize>> {
    let settled_ms = i64::try_from(options.settled.as_millis()).unwrap_or(i64::MAX);
    let target = options.target_bytes.max(options.below_bytes);
    let mut dates: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        if let Some(date) = partition_date(file) {
            dates.entry(date).or_default().push(index);
        }
    }
    let mut groups = Vec::new();
    for mut date in dates.into_values() {
        let newest = date.iter().map(|file| files[*file].modification_time).max().unwrap_or(0);
        if settled_ms > 0 && newest > now_ms.saturating_sub(settled_ms) {
            continue;
        }
        date.retain(|file| (files[*file].size.max(0) as u64) < options.below_bytes);
        date.sort_by_key(|file| (files[*file].modification_time, &files[*file].path));
        let (mut group, mut bytes) = (Vec::new(), 0u64);
        let mut close = |group: &mut Vec<usize>| {
            let group = std::mem::take(group);
            if group.len() >= options.files_min.max(2) {
                groups.push(group);
            }
        };
        for file in date {
            let size = files[file].size.max(0) as u64;
            if group.len() == FILES_MAX || bytes.saturating_add(size) > target {
                close(&mut group);
                bytes = 0;
            }
            group.push(file);
            bytes += size;
        }
        close(&mut group);
    }
    groups
}

/// A table that is being compacted.
struct Table {
    name: String,
    reader: TableReader,
    /// Columns of the table when it was opened, which merged files have.
    schema: SchemaRef,
    /// Live files that may be merged.
    files: Vec<ScanFile>,
    layout: Layout,
}

impl Table {
    fn open(directory: &Path) -> Result<Self, StoreError> {
        let name = directory.display().to_string();
        let reader = TableReader::open(directory, None)?;
        let mut files = reader.files()?;
        let layout = layout(&name, &reader, &files)?;
        files.retain(|file| !file.dv_info.has_vector());
        Ok(Table { name, schema: reader.schema.clone(), reader, files, layout })
    }

    /// Merges files into one that no commit names yet; none when there is no time left.
    fn rewrite(&self, files: &[ScanFile], go_on: &dyn Fn() -> bool) -> Result<Option<Part>, StoreError> {
        let date = files.first().and_then(partition_date).unwrap_or_default();
        let place = Place { directory: self.reader.directory.clone(), staged: None };
        let writer = PartWriter::new(place, self.layout.clone(), 0)?;
        let paths = files.iter().map(|file| self.reader.file_path(file)).collect::<Result<Vec<PathBuf>, _>>()?;
        let schema = &self.layout.schema;
        let order = self.layout.sort_by.iter().map(String::as_str).chain([SYSTEM_COLUMNS[0]]);
        let keys = order.filter_map(|name| schema.index_of(name).ok()).collect();
        let batch_rows = (ROW_GROUP_ROWS / files.len().max(1)).clamp(256, 8192);
        let mut merge = Merge::open(&paths, schema.clone(), keys, batch_rows)?;
        let mut part = writer.begin(date)?;
        while let Some(rows) = merge.next(ROW_GROUP_ROWS)? {
            part.row_group(&rows)?;
            if !go_on() {
                return Ok(None);
            }
        }
        Ok(publish(&self.reader.directory, vec![part.finish()?])?.pop())
    }

    /// Commits `part` in place of `files`. False when it no longer stands for rows of the table.
    fn swap(&mut self, files: &[ScanFile], part: &Part) -> Result<bool, StoreError> {
        let stats = stats_fields(&self.layout.schema, self.layout.stats.iter().map(String::as_str));
        let adds = add_files(std::slice::from_ref(part), &stats).map_err(StoreError::arrow(self.name.as_str()))?;
        let sources: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let mut attempts = Attempts::default();
        let mut live = self.reader.files()?;
        loop {
            if !whole(&live, files) || self.reader.schema != self.schema {
                return Ok(false);
            }
            let given_up =
                |GivenUp { attempts, reason }| StoreError::Upkeep { table: self.name.clone(), attempts, reason };
            if let Some(done) = attempts.ended(self.attempt(&sources, &adds)).map_err(given_up)? {
                match done.post_commit_snapshot() {
                    Some(snapshot) => self.reader.snapshot = snapshot.clone(),
                    None => self.reload()?,
                }
                let snapshot = self.reader.snapshot.clone();
                self.reader.snapshot = checkpointed(snapshot, self.reader.engine.as_ref(), &self.name);
                return Ok(true);
            }
            self.reload()?;
            live = self.reader.files()?;
            if live.iter().any(|file| file.path == part.path) {
                return Ok(true);
            }
        }
    }

    /// Whether all of `files` are live in the newest version.
    fn still_live(&mut self, files: &[ScanFile]) -> Result<bool, StoreError> {
        self.reload()?;
        Ok(whole(&self.reader.files()?, files))
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        self.reader = TableReader::open(&self.reader.directory, None)?;
        Ok(())
    }

    fn attempt(&self, sources: &HashSet<&str>, adds: &RecordBatch) -> KernelResult<CommitResult> {
        let engine = self.reader.engine.as_ref();
        let mut transaction = self
            .reader
            .snapshot
            .clone()
            .update_table(UpdateTableOperation::Optimize, ENGINE_INFO, false)
            .build(engine, Box::new(FileSystemCommitter::new()))?;
        for removal in removals(&self.reader.snapshot, engine, sources)? {
            transaction.remove_files(removal);
        }
        transaction.add_files(Box::new(ArrowEngineData::new(adds.clone())));
        transaction.commit(engine)
    }
}

/// Whether all of `files` are among the live ones, with all of their rows.
fn whole(live: &[ScanFile], files: &[ScanFile]) -> bool {
    let live: HashSet<&str> =
        live.iter().filter(|file| !file.dv_info.has_vector()).map(|file| file.path.as_str()).collect();
    files.iter().all(|file| live.contains(file.path.as_str()))
}

/// The log's own words on the files `sources`, which is how the Delta library wants removals told.
fn removals(
    snapshot: &SnapshotRef,
    engine: &dyn Engine,
    sources: &HashSet<&str>,
) -> KernelResult<Vec<FilteredEngineData>> {
    let scan = snapshot.clone().scan_builder().build()?;
    let mut removals = Vec::new();
    for metadata in scan.scan_metadata(engine)? {
        let (data, live) = metadata?.scan_files.into_parts();
        let batch = data.try_into_record_batch()?;
        let Some(paths) = batch.column_by_name("path").and_then(|column| column.as_string_opt::<i32>()) else {
            return Err(KernelError::generic("the log's files have no column `path`"));
        };
        let selected: Vec<bool> = (0..batch.num_rows())
            .map(|row| live.get(row).copied().unwrap_or(true) && sources.contains(paths.value(row)))
            .collect();
        if selected.contains(&true) {
            removals.push(FilteredEngineData::try_new(Box::new(ArrowEngineData::new(batch)), selected)?);
        }
    }
    Ok(removals)
}

/// How the files of a table look, as the table itself tells.
fn layout(name: &str, reader: &TableReader, files: &[ScanFile]) -> Result<Layout, StoreError> {
    let fault = |reason: String| StoreError::Schema { table: name.to_owned(), reason };
    let date = SYSTEM_COLUMNS[DATE_COLUMN];
    let configuration = reader.snapshot.table_configuration();
    if configuration.logical_partition_columns() != [date] {
        return Err(fault("it is not partitioned by [event_date], as tables that jobs write are".into()));
    }
    let without_vectors: Vec<ScanFile> = files.iter().filter(|f| !f.dv_info.has_vector()).cloned().collect();
    if !reader.plain(&without_vectors) {
        return Err(fault("it maps column names to others in its files, which tables that jobs write do not".into()));
    }
    let fields: Vec<_> = reader.schema.fields().iter().filter(|f| f.name() != date).cloned().collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let (time, tick) = (SYSTEM_COLUMNS[0], SYSTEM_COLUMNS[2]);
    let named = reader.snapshot.table_properties().data_skipping_stats_columns.iter().flatten();
    let mut stats: Vec<String> = named
        .filter_map(|column| match column.path() {
            [column] => schema.field_with_name(column).ok().map(|_| column.clone()),
            _ => None,
        })
        .collect();
    if stats.is_empty() {
        stats.extend([time, tick].iter().filter(|n| schema.field_with_name(n).is_ok()).map(|n| n.to_string()));
    }
    if !stats.iter().any(|column| column == time) {
        return Err(fault("it keeps no statistics of `event_time`, as tables that jobs write do".into()));
    }
    // Statistics are kept of event time, tick, and what the table is sorted by.
    let sort_by = stats.iter().filter(|column| *column != time && *column != tick).cloned().collect();
    Ok(Layout { table: name.to_owned(), schema, sort_by, stats })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn file(date: u8, size: i64, modified: i64, number: usize) -> ScanFile {
        ScanFile {
            path: format!("event_date=2018-04-{date:02}/part-{number}.parquet"),
            size,
            modification_time: modified,
            stats: None,
            dv_info: Default::default(),
            transform: None,
            partition_values: HashMap::from([("event_date".to_owned(), format!("2018-04-{date:02}"))]),
        }
    }

    proptest! {
        #[test]
        fn groups_are_small_files_of_one_date_within_the_target(
            sizes in prop::collection::vec((1..4u8, 0..200i64, 0..1000i64), 0..600),
            below in 0..150u64, target in 1..400u64, least in 0..5usize, settled in 0..800u64,
        ) {
            let files: Vec<ScanFile> =
                sizes.iter().enumerate().map(|(i, (date, size, modified))| file(*date, *size, *modified, i)).collect();
            let options = CompactOptions {
                below_bytes: below, target_bytes: target, files_min: least,
                settled: Duration::from_millis(settled), dry_run: false,
            };
            let found = groups(&files, &options, 1000);
            let mut seen = HashSet::new();
            let fresh = |date: &Option<&str>| {
                let of = files.iter().filter(|f| partition_date(f) == *date).map(|f| f.modification_time).max();
                settled > 0 && of.is_some_and(|newest| newest > 1000 - settled as i64)
            };
            for group in &found {
                let dates: HashSet<_> = group.iter().map(|f| partition_date(&files[*f])).collect();
                prop_assert_eq!(dates.len(), 1);
                prop_assert!(!dates.iter().any(fresh));
                prop_assert!(group.len() >= least.max(2) && group.len() <= FILES_MAX);
                let bytes: i64 = group.iter().map(|f| files[*f].size).sum();
                prop_assert!(bytes as u64 <= target.max(below));
                for file in group {
                    prop_assert!((files[*file].size as u64) < below);
                    prop_assert!(seen.insert(*file), "a file is in two groups");
                }
            }
            // What fits into one file becomes one.
            for date in ["2018-04-01", "2018-04-02", "2018-04-03"] {
                let small: Vec<usize> = (0..files.len())
                    .filter(|f| partition_date(&files[*f]) == Some(date) && (files[*f].size as u64) < below)
                    .collect();
                let bytes: i64 = small.iter().map(|f| files[*f].size).sum();
                let one = bytes as u64 <= target.max(below) && (least.max(2)..=FILES_MAX).contains(&small.len());
                if one && !fresh(&Some(date)) {
                    prop_assert!(found.iter().any(|group| group.iter().copied().collect::<HashSet<_>>() == small.iter().copied().collect()));
                }
            }
        }
    }
}

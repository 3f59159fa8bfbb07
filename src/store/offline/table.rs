//! Delta tables as such: found, created, widened, checkpointed.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use delta_kernel::schema::StructType;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, CommittedTransaction, UpdateTableOperation};
use delta_kernel::{Engine, KernelResult, Snapshot, SnapshotRef, Version};
use url::Url;

use super::spec::{DATE_COLUMN, TableSpec};
use crate::ops::system::SYSTEM_COLUMNS;
use crate::store::StoreError;

/// Who wrote a commit.
pub(super) const ENGINE_INFO: &str = concat!("tidemill/", env!("CARGO_PKG_VERSION"));
/// A checkpoint every this many versions keeps reopening at a few milliseconds.
const CHECKPOINT_INTERVAL: Version = 10;
/// Attempts at one commit.
pub(super) const ATTEMPTS_MAX: u32 = 50;
/// Attempts that fail otherwise than by losing to another writer.
const FAILURES_MAX: u32 = 6;

/// Attempts at one commit. Losing to other writers costs little; failures of the store wait longer each time.
#[derive(Default)]
pub(super) struct Attempts {
    made: u32,
    failures: u32,
}

/// A commit was tried often enough.
pub(super) struct GivenUp {
    /// How often.
    pub attempts: u32,
    /// Outcome of the last attempt.
    pub reason: String,
}

impl Attempts {
    /// Takes in how an attempt ended: the commit if it is one. If not there is to be another, on a new snapshot, after a look
    /// into it: the outcome of one that failed is unknown.
    pub fn ended(&mut self, outcome: KernelResult<CommitResult>) -> Result<Option<CommittedTransaction>, GivenUp> {
        self.made += 1;
        let reason = match outcome {
            Ok(CommitResult::Committed(done)) => return Ok(Some(done)),
            Ok(CommitResult::Conflicted(lost)) => format!("another writer took version {}", lost.conflict_version()),
            Ok(CommitResult::Retryable(failed)) => {
                self.failures += 1;
                failed.error.to_string()
            }
            Err(error) => {
                self.failures += 1;
                error.to_string()
            }
        };
        if self.failures >= FAILURES_MAX || self.made >= ATTEMPTS_MAX {
            return Err(GivenUp { attempts: self.made, reason });
        }
        if self.failures > 0 {
            std::thread::sleep(Duration::from_millis(25 << self.failures));
        }
        Ok(None)
    }
}

/// The table's address, from its directory, which must exist.
pub(super) fn table_url(directory: &Path) -> Result<Url, StoreError> {
    let absolute = fs::canonicalize(directory).map_err(StoreError::io("open", directory))?;
    Url::from_directory_path(&absolute)
        .map_err(|()| StoreError::Request(format!("`{}` is not a local path", directory.display())))
}

/// Whether a directory holds a Delta log with at least one entry.
pub(super) fn has_log(directory: &Path) -> Result<bool, StoreError> {
    let log = directory.join("_delta_log");
    match fs::read_dir(&log) {
        Ok(entries) => Ok(entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("list", &log)(e)),
    }
}

pub(super) fn load(url: &Url, engine: &dyn Engine) -> KernelResult<SnapshotRef> {
    Snapshot::builder_for(url).build(engine)
}

pub(super) fn create(url: &Url, spec: &TableSpec, engine: &dyn Engine) -> KernelResult<SnapshotRef> {
    let schema: StructType = spec.schema().as_ref().try_into_kernel()?;
    let result = create_table(url, Arc::new(schema), ENGINE_INFO, false)
        .with_data_layout(DataLayout::partitioned([SYSTEM_COLUMNS[DATE_COLUMN]]))
        .with_table_properties([("delta.dataSkippingStatsColumns", stats_property(spec))])
        .build(engine, Box::new(FileSystemCommitter::new()))?
        .commit(engine)?;
    match result {
        CommitResult::Committed(done) => match done.post_commit_snapshot() {
            Some(snapshot) => Ok(snapshot.clone()),
            None => load(url, engine),
        },
        _ => load(url, engine),
    }
}

/// Column names in the property are parsed: back-quotes keep odd ones whole.
fn stats_property(spec: &TableSpec) -> String {
    let quoted = |name: &str| match name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => name.to_string(),
        false => format!("`{}`", name.replace('`', "``")),
    };
    spec.stats_columns().into_iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// Checks a table against the declaration and adds the columns that it lacks. `None`: another writer was quicker, look again.
pub(super) fn evolve(
    snapshot: SnapshotRef,
    spec: &TableSpec,
    engine: &dyn Engine,
    table: &str,
) -> Result<Option<SnapshotRef>, StoreError> {
    let fault = |reason: String| StoreError::Schema { table: table.to_string(), reason };
    let existing: Schema = snapshot.schema().as_ref().try_into_arrow().map_err(StoreError::arrow(table))?;
    let partitions = snapshot.table_configuration().logical_partition_columns();
    if partitions != [SYSTEM_COLUMNS[DATE_COLUMN]] {
        return Err(fault(format!(
            "it is partitioned by [{}], not by [event_date]; give the job a directory of its own",
            partitions.join(", ")
        )));
    }
    let mut missing = Vec::new();
    for field in spec.schema().fields() {
        match existing.fields().iter().find(|f| f.name().eq_ignore_ascii_case(field.name())) {
            Some(found) if found.name() != field.name() => {
                return Err(fault(format!(
                    "its column `{}` differs from the job's `{}` in case only; rename the job's",
                    found.name(),
                    field.name()
                )));
            }
            Some(found) if found.data_type() != field.data_type() => {
                return Err(fault(format!(
                    "column `{}` is {} there and {} in the job; rename the column, cast it, or give the job another directory",
                    field.name(),
                    found.data_type(),
                    field.data_type()
                )));
            }
            Some(_) => {}
            None => missing.push(field),
        }
    }
    if missing.is_empty() {
        return Ok(Some(snapshot));
    }
    let wrong = || StoreError::delta(table);
    let mut change = snapshot.update_table(UpdateTableOperation::AlterTable, ENGINE_INFO, false);
    for field in missing {
        change = change.add_column(field.as_ref().try_into_kernel().map_err(StoreError::arrow(table))?);
    }
    let result =
        change.build(engine, Box::new(FileSystemCommitter::new())).and_then(|t| t.commit(engine)).map_err(wrong())?;
    match result {
        CommitResult::Committed(done) => Ok(done.post_commit_snapshot().cloned()),
        CommitResult::Conflicted(_) => Ok(None),
        CommitResult::Retryable(failed) => Err(wrong()(failed.error)),
    }
}

/// A checkpoint where one is due. It is best effort: without one, reopening reads more of the log.
pub(super) fn checkpointed(snapshot: SnapshotRef, engine: &dyn Engine, table: &str) -> SnapshotRef {
    if !snapshot.version().is_multiple_of(CHECKPOINT_INTERVAL) {
        return snapshot;
    }
    match snapshot.checkpoint(engine, None) {
        Ok((_, snapshot)) => snapshot,
        Err(error) => {
            tracing::warn!(table, %error, "checkpoint failed; the table stays readable");
            snapshot
        }
    }
}

//! Makes the parts of an epoch visible in one Delta commit, once.
//!
//! **Once.** Every commit carries `txn (application, epoch)`. The Delta library does not look at those ids itself, so the
//! committer does: it knows the newest epoch of its application as of the snapshot it builds on, and the log's
//! create-if-absent refuses a commit on any older snapshot. After a conflict or an error, whose outcome is unknown, it
//! loads a new snapshot and looks before it tries again. Files of a lost attempt are added again under the next version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::schema::StructType;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{Engine, KernelError, KernelResult, Snapshot, SnapshotRef, Version};
use url::Url;

use super::kernel::engine;
use super::part::{Part, sync_directory};
use super::spec::{DATE_COLUMN, SYSTEM_COLUMNS, TableSpec, table_path};
use crate::base::Epoch;
use crate::store::StoreError;

const ENGINE_INFO: &str = concat!("tidemill/", env!("CARGO_PKG_VERSION"));
/// A checkpoint every this many versions keeps reopening at a few milliseconds.
const CHECKPOINT_INTERVAL: Version = 10;
/// Attempts at one commit. Losing to other writers costs little; failures of the store wait longer each time.
const ATTEMPTS_MAX: u32 = 50;
const FAILURES_MAX: u32 = 6;

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The epoch's rows became visible with this version of the table.
    Committed {
        /// Version of the table.
        version: u64,
    },
    /// The epoch, or a later one of the same application, is in the table; nothing was changed.
    AlreadyCommitted,
    /// There were no rows; nothing was changed.
    Empty,
}

/// Commits epochs to one table. One at a time per application; other applications may write the same table.
pub struct TableCommitter {
    table: String,
    application: String,
    engine: Arc<dyn Engine>,
    snapshot: SnapshotRef,
    /// Newest epoch of the application in `snapshot`.
    newest: Option<Epoch>,
    /// Structure of the statistics that parts carry as JSON.
    stats: Fields,
}

impl TableCommitter {
    /// Opens the table `spec` below `root` for `application` (a name that no other writer of the table uses: job instance
    /// and table). Creates the table if it is absent, partitioned by `event_date`; adds columns that it lacks.
    ///
    /// # Errors
    /// [`StoreError::Schema`] when a column has another type in the table, or the table is partitioned otherwise;
    /// [`StoreError::Delta`] and [`StoreError::Io`] from below.
    pub fn open(root: &Path, spec: &TableSpec, application: impl Into<String>) -> Result<Self, StoreError> {
        let directory = table_path(root, spec.name());
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        let table = directory.display().to_string();
        let engine = engine()?;
        let url = table_url(&directory)?;
        let mut snapshot = None;
        for _ in 0..ATTEMPTS_MAX {
            let current = match has_log(&directory)? {
                true => load(&url, engine.as_ref()).map_err(StoreError::delta(&table))?,
                false => match create(&url, spec, engine.as_ref()) {
                    Ok(created) => created,
                    // Another committer was quicker: load what it made.
                    Err(_) if has_log(&directory)? => continue,
                    Err(e) => return Err(StoreError::delta(&table)(e)),
                },
            };
            match evolve(current, spec, engine.as_ref(), &table)? {
                Some(fitting) => {
                    snapshot = Some(fitting);
                    break;
                }
                None => continue,
            }
        }
        let snapshot = snapshot.ok_or_else(|| StoreError::Contended {
            table: table.clone(),
            epoch: 0,
            attempts: ATTEMPTS_MAX,
            reason: "other writers kept changing its schema".into(),
        })?;
        sync_parents(root, &directory)?;
        let application = application.into();
        let newest = newest_epoch(&snapshot, &application, engine.as_ref()).map_err(StoreError::delta(&table))?;
        Ok(TableCommitter { table, application, engine, snapshot, newest, stats: stats_fields(spec) })
    }

    /// Newest epoch of the application in the table.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.newest
    }

    /// Version of the table that was seen last.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Commits the parts of `epoch`, all or none. Epochs of an application must come in order, as the table remembers the
    /// newest only; an epoch without parts changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Contended`] when the log could not be extended in many attempts; the epoch may be tried again then.
    /// [`StoreError::Delta`] when the table cannot be read.
    pub fn commit(&mut self, epoch: Epoch, parts: &[Part]) -> Result<Outcome, StoreError> {
        if parts.is_empty() {
            return Ok(Outcome::Empty);
        }
        let adds = add_files(parts, &self.stats).map_err(StoreError::arrow(self.table.as_str()))?;
        let (mut failures, mut reason) = (0, String::new());
        for attempt in 1..=ATTEMPTS_MAX {
            if self.newest.is_some_and(|newest| newest >= epoch) {
                return Ok(Outcome::AlreadyCommitted);
            }
            match self.attempt(epoch, &adds) {
                Ok(CommitResult::Committed(done)) => {
                    let version = done.commit_version();
                    self.newest = Some(epoch);
                    match done.post_commit_snapshot() {
                        Some(snapshot) => self.snapshot = snapshot.clone(),
                        None => self.reload()?,
                    }
                    self.checkpoint();
                    return Ok(Outcome::Committed { version });
                }
                Ok(CommitResult::Conflicted(lost)) => {
                    reason = format!("another writer took version {}", lost.conflict_version());
                }
                Ok(CommitResult::Retryable(failed)) => {
                    failures += 1;
                    reason = failed.error.to_string();
                }
                Err(error) => {
                    failures += 1;
                    reason = error.to_string();
                }
            }
            if failures >= FAILURES_MAX {
                return Err(self.contended(epoch, attempt, reason));
            }
            if failures > 0 {
                std::thread::sleep(Duration::from_millis(25 << failures));
            }
            self.reload()?;
        }
        Err(self.contended(epoch, ATTEMPTS_MAX, reason))
    }

    fn attempt(&self, epoch: Epoch, adds: &RecordBatch) -> KernelResult<CommitResult> {
        let mut transaction = self
            .snapshot
            .clone()
            .update_table(UpdateTableOperation::StreamingUpdate, ENGINE_INFO, true)
            .with_transaction_id(self.application.as_str(), epoch as i64)
            .with_blind_append()
            .build(self.engine.as_ref(), Box::new(FileSystemCommitter::new()))?;
        transaction.add_files(Box::new(ArrowEngineData::new(adds.clone())));
        transaction.commit(self.engine.as_ref())
    }

    /// Loads the newest snapshot and looks at what it says of the application.
    fn reload(&mut self) -> Result<(), StoreError> {
        let wrong = || StoreError::delta(&self.table);
        self.snapshot = Snapshot::builder_from(self.snapshot.clone()).build(self.engine.as_ref()).map_err(wrong())?;
        self.newest = newest_epoch(&self.snapshot, &self.application, self.engine.as_ref()).map_err(wrong())?;
        Ok(())
    }

    /// Checkpoints are best effort: without one, reopening reads more of the log.
    fn checkpoint(&mut self) {
        if !self.snapshot.version().is_multiple_of(CHECKPOINT_INTERVAL) {
            return;
        }
        match self.snapshot.checkpoint(self.engine.as_ref(), None) {
            Ok((_, snapshot)) => self.snapshot = snapshot,
            Err(error) => {
                tracing::warn!(table = self.table, %error, "checkpoint failed; the table stays readable")
            }
        }
    }

    fn contended(&self, epoch: Epoch, attempts: u32, reason: String) -> StoreError {
        StoreError::Contended { table: self.table.clone(), epoch, attempts, reason }
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

fn load(url: &Url, engine: &dyn Engine) -> KernelResult<SnapshotRef> {
    Snapshot::builder_for(url).build(engine)
}

fn create(url: &Url, spec: &TableSpec, engine: &dyn Engine) -> KernelResult<SnapshotRef> {
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
fn evolve(
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

fn newest_epoch(snapshot: &SnapshotRef, application: &str, engine: &dyn Engine) -> KernelResult<Option<Epoch>> {
    let version = snapshot.get_app_id_version(application, engine)?;
    version
        .map(|v| Epoch::try_from(v).map_err(|_| KernelError::generic(format!("transaction version {v} is negative"))))
        .transpose()
}

/// Forces the names of the table's directory and of those above it, up to the store's root, to disk.
fn sync_parents(root: &Path, directory: &Path) -> Result<(), StoreError> {
    let mut at: PathBuf = directory.to_path_buf();
    loop {
        sync_directory(&at)?;
        if at == root || !at.pop() || at.as_os_str().is_empty() {
            return Ok(());
        }
    }
}

/// Arrow structure of [`Part::stats`].
fn stats_fields(spec: &TableSpec) -> Fields {
    let columns: Vec<&Field> =
        spec.stats_columns().into_iter().filter_map(|name| spec.schema().field_with_name(name).ok()).collect();
    let nested = |of: &dyn Fn(&Field) -> DataType| {
        DataType::Struct(columns.iter().map(|f| Field::new(f.name(), of(f), true)).collect::<Fields>())
    };
    let values = nested(&|f| f.data_type().clone());
    Fields::from(vec![
        Field::new("numRecords", DataType::Int64, true),
        Field::new("nullCount", nested(&|_| DataType::Int64), true),
        Field::new("minValues", values.clone(), true),
        Field::new("maxValues", values, true),
        Field::new("tightBounds", DataType::Boolean, true),
    ])
}

/// The parts as the Delta library wants them told.
fn add_files(parts: &[Part], stats: &Fields) -> Result<RecordBatch, arrow::error::ArrowError> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut partitions = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for part in parts {
        partitions.keys().append_value(SYSTEM_COLUMNS[DATE_COLUMN]);
        partitions.values().append_value(&part.event_date);
        partitions.append(true)?;
    }
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(stats.clone())))
        .with_batch_size(parts.len())
        .build_decoder()?;
    let lines: String = parts.iter().flat_map(|part| [part.stats.as_str(), "\n"]).collect();
    let mut rest = lines.as_bytes();
    while !rest.is_empty() {
        let read = decoder.decode(rest)?;
        rest = &rest[read..];
        if read == 0 {
            break;
        }
    }
    let stats = decoder.flush()?.filter(|batch| batch.num_rows() == parts.len()).ok_or_else(|| {
        arrow::error::ArrowError::JsonError(format!("statistics of {} parts were expected", parts.len()))
    })?;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("path", Arc::new(StringArray::from_iter_values(parts.iter().map(|p| &p.path)))),
        ("partitionValues", Arc::new(partitions.finish())),
        ("size", Arc::new(Int64Array::from_iter_values(parts.iter().map(|p| p.size as i64)))),
        ("modificationTime", Arc::new(Int64Array::from_iter_values(parts.iter().map(|p| p.modified_ms)))),
        ("stats", Arc::new(arrow::array::StructArray::from(stats))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), *name == "stats")).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

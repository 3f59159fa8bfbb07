//! Makes the parts of an epoch visible in one Delta commit, once.
//!
//! **Once.** Every commit carries `txn (application, epoch)`. The Delta library does not look at those ids itself, so the
//! committer does: it knows the newest epoch of its application as of the snapshot it builds on, and the log's
//! create-if-absent refuses a commit on any older snapshot. After a conflict or an error, whose outcome is unknown, it
//! loads a new snapshot and looks before it tries again. Files of a lost attempt are added again under the next version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Fields;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{Engine, KernelError, KernelResult, Snapshot, SnapshotRef};

use super::adds::{add_files, stats_fields};
use super::kernel::engine;
use super::outbox;
use super::part::{Part, sync_parents};
use super::spec::{TableSpec, table_path};
use super::table::{
    ATTEMPTS_MAX, Attempts, ENGINE_INFO, GivenUp, checkpointed, create, evolve, has_log, load, table_url,
};
use crate::base::{Epoch, failpoint};
use crate::store::StoreError;

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
    /// The offline store's directory and the table's.
    root: PathBuf,
    directory: PathBuf,
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
        Ok(TableCommitter {
            table,
            root: root.to_path_buf(),
            directory,
            application,
            engine,
            snapshot,
            newest,
            stats: stats_fields(spec.schema(), spec.stats_columns()),
        })
    }

    /// Newest epoch of the application in the table.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.newest
    }

    /// Version of the table that was seen last.
    pub fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// Commits the parts of `epoch`, all or none; staged ones enter the table first. Epochs of an application must come in
    /// order, gaps allowed, as the table remembers the newest only; an epoch without parts changes nothing. May be tried
    /// again after any end, by this process or another, also while another does the same: the epoch is committed once.
    ///
    /// # Errors
    /// [`StoreError::Contended`] when the log could not be extended in many attempts; the epoch may be tried again then.
    /// [`StoreError::LostPart`] when a part's file is neither in its outbox nor in the table; [`StoreError::Delta`] when the
    /// table cannot be read.
    pub fn commit(&mut self, epoch: Epoch, parts: &[Part]) -> Result<Outcome, StoreError> {
        if parts.is_empty() {
            return Ok(Outcome::Empty);
        }
        let outcome = self.commit_once(epoch, parts)?;
        outbox::leave(&self.root, parts);
        if let Outcome::Committed { .. } = outcome {
            self.snapshot = checkpointed(self.snapshot.clone(), self.engine.as_ref(), &self.table);
        }
        Ok(outcome)
    }

    fn commit_once(&mut self, epoch: Epoch, parts: &[Part]) -> Result<Outcome, StoreError> {
        if self.has(epoch) {
            return Ok(Outcome::AlreadyCommitted);
        }
        if let Err(error) = outbox::enter(&self.root, &self.directory, epoch, parts) {
            // Whoever committed the epoch since this snapshot may have moved the files, and others removed them since.
            if matches!(error, StoreError::LostPart { .. }) {
                self.reload()?;
                if self.has(epoch) {
                    return Ok(Outcome::AlreadyCommitted);
                }
            }
            return Err(error);
        }
        failpoint("delta.moved");
        let adds = add_files(parts, &self.stats).map_err(StoreError::arrow(self.table.as_str()))?;
        let mut attempts = Attempts::default();
        loop {
            if self.has(epoch) {
                return Ok(Outcome::AlreadyCommitted);
            }
            let contended = |GivenUp { attempts, reason }| StoreError::Contended {
                table: self.table.clone(),
                epoch,
                attempts,
                reason,
            };
            if let Some(done) = attempts.ended(self.attempt(epoch, &adds)).map_err(contended)? {
                failpoint("delta.committed");
                let version = done.commit_version();
                self.newest = Some(epoch);
                match done.post_commit_snapshot() {
                    Some(snapshot) => self.snapshot = snapshot.clone(),
                    None => self.reload()?,
                }
                return Ok(Outcome::Committed { version });
            }
            self.reload()?;
        }
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

    /// Whether the epoch, or a later one, was in the table as of the snapshot.
    fn has(&self, epoch: Epoch) -> bool {
        self.newest.is_some_and(|newest| newest >= epoch)
    }
}

/// The newest epoch of an application, as of a snapshot.
pub(super) fn newest_epoch(
    snapshot: &SnapshotRef,
    application: &str,
    engine: &dyn Engine,
) -> KernelResult<Option<Epoch>> {
    let version = snapshot.get_app_id_version(application, engine)?;
    version
        .map(|v| Epoch::try_from(v).map_err(|_| KernelError::generic(format!("transaction version {v} is negative"))))
        .transpose()
}

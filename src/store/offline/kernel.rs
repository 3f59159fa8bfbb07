//! The Delta library's engine with a log that survives power loss.
//!
//! The library's own file writer makes a log entry visible before its bytes are forced to disk, so that a power cut can
//! leave an empty log file and with it an unreadable table. Here a file of the log is written under a hidden name outside of
//! the log, forced to disk, linked to its name (create-if-absent) or renamed over it, and the directory forced to disk.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use delta_kernel::engine::arrow_utils::to_json_bytes;
use delta_kernel::object_store::local::LocalFileSystem;
use delta_kernel::schema::SchemaRef;
use delta_kernel::{
    CancellationTokenRef, Engine, EngineData, EvaluationHandler, FileDataReadResultIterator, FileMeta, FileSize,
    FilteredEngineData, JsonHandler, KernelError, KernelResult, KernelResultIterator, KernelResultIteratorStatic,
    ParquetFooter, ParquetHandler, PredicateRef, StorageHandler,
};
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use url::Url;

use super::part::unique;
use crate::net;
use crate::store::StoreError;

/// Rows per batch when tables are read.
const READ_BATCH_ROWS: usize = 1 << 15;
/// Files read ahead.
const READ_AHEAD_FILES: usize = 4;

/// The process's engine for local tables; it owns two threads.
pub(super) fn engine() -> Result<Arc<dyn Engine>, StoreError> {
    static ENGINE: OnceLock<Arc<LocalEngine>> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    // Checkpoints block inside of asynchronous code: the library asks for the multi-thread executor.
    let executor = TokioMultiThreadExecutor::new_owned_runtime(Some(2), None).map_err(StoreError::delta("(engine)"))?;
    // It makes clients of its own where a table's log names an address.
    net::provide();
    let size = |n| std::num::NonZero::new(n).expect("a positive constant");
    let inner: Arc<dyn Engine> = Arc::new(
        DefaultEngineBuilder::new(Arc::new(LocalFileSystem::new()))
            .with_batch_size(size(READ_BATCH_ROWS))
            .with_buffer_size(size(READ_AHEAD_FILES))
            .with_task_executor(Arc::new(executor))
            .build(),
    );
    let engine = LocalEngine {
        json: Arc::new(DurableJson(inner.json_handler())),
        parquet: Arc::new(DurableParquet(inner.parquet_handler())),
        inner,
    };
    Ok(ENGINE.get_or_init(|| Arc::new(engine)).clone())
}

struct LocalEngine {
    inner: Arc<dyn Engine>,
    json: Arc<DurableJson>,
    parquet: Arc<DurableParquet>,
}

impl Engine for LocalEngine {
    fn evaluation_handler(&self) -> Arc<dyn EvaluationHandler> {
        self.inner.evaluation_handler()
    }

    fn storage_handler(&self) -> Arc<dyn StorageHandler> {
        self.inner.storage_handler()
    }

    fn json_handler(&self) -> Arc<dyn JsonHandler> {
        self.json.clone()
    }

    fn parquet_handler(&self) -> Arc<dyn ParquetHandler> {
        self.parquet.clone()
    }
}

/// Commits and the pointer to the last checkpoint.
struct DurableJson(Arc<dyn JsonHandler>);

impl JsonHandler for DurableJson {
    fn parse_json(&self, json: Box<dyn EngineData>, schema: SchemaRef) -> KernelResult<Box<dyn EngineData>> {
        self.0.parse_json(json, schema)
    }

    fn read_json_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        self.0.read_json_files(files, schema, predicate)
    }

    fn read_json_files_with_cancellation(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
        token: Option<CancellationTokenRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        self.0.read_json_files_with_cancellation(files, schema, predicate, token)
    }

    fn write_json_file(
        &self,
        url: &Url,
        data: KernelResultIterator<'_, FilteredEngineData>,
        overwrite: bool,
    ) -> KernelResult<FileSize> {
        let bytes = to_json_bytes(data)?;
        let path = local_path(url)?;
        let hidden = hidden_beside(&path)?;
        let written = fs::File::create_new(&hidden)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .map_err(KernelError::from)
            .and_then(|()| take_name(&hidden, &path, overwrite));
        // A link leaves the hidden name behind, a failure a useless file; both are cleared as well as may be.
        let _ = fs::remove_file(&hidden);
        written.map(|()| bytes.len() as FileSize)
    }
}

/// Checkpoints.
struct DurableParquet(Arc<dyn ParquetHandler>);

impl ParquetHandler for DurableParquet {
    fn read_parquet_files(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        self.0.read_parquet_files(files, schema, predicate)
    }

    fn read_parquet_files_with_cancellation(
        &self,
        files: &[FileMeta],
        schema: SchemaRef,
        predicate: Option<PredicateRef>,
        token: Option<CancellationTokenRef>,
    ) -> KernelResult<FileDataReadResultIterator> {
        self.0.read_parquet_files_with_cancellation(files, schema, predicate, token)
    }

    fn write_parquet_file(
        &self,
        location: Url,
        data: KernelResultIteratorStatic<Box<dyn EngineData>>,
    ) -> KernelResult<FileSize> {
        let path = local_path(&location)?;
        let hidden = hidden_beside(&path)?;
        let url = Url::from_file_path(&hidden)
            .map_err(|()| KernelError::generic(format!("`{}` is not an absolute path", hidden.display())))?;
        let written = self.0.write_parquet_file(url, data).and_then(|size| {
            fs::File::open(&hidden)?.sync_all()?;
            take_name(&hidden, &path, true)?;
            Ok(size)
        });
        if written.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        written
    }

    fn read_parquet_footer(&self, file: &FileMeta) -> KernelResult<ParquetFooter> {
        self.0.read_parquet_footer(file)
    }
}

/// Gives a file that is on disk its name, atomically, and forces that to disk.
fn take_name(hidden: &Path, path: &Path, overwrite: bool) -> KernelResult<()> {
    if overwrite {
        fs::rename(hidden, path)?;
    } else {
        fs::hard_link(hidden, path).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => KernelError::FileAlreadyExists(path.display().to_string()),
            _ => e.into(),
        })?;
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

fn local_path(url: &Url) -> KernelResult<PathBuf> {
    url.to_file_path().map_err(|()| KernelError::generic(format!("`{url}` is not a local path")))
}

/// A name in the table's directory that no reader takes for a file of the table. Not within the log's directory: one that
/// a killed process left there would make the library believe in a table that has no first commit.
fn hidden_beside(path: &Path) -> KernelResult<PathBuf> {
    let no_place = || KernelError::generic(format!("`{}` is not in the log of a table", path.display()));
    let directory = path.parent().ok_or_else(no_place)?;
    fs::create_dir_all(directory)?;
    Ok(directory.parent().ok_or_else(no_place)?.join(format!(".{}.tmp", unique())))
}

//! Where state lies: a local directory or an object store, behind the few calls that recovery needs.
//!
//! Every call is durable on return. A local directory is written here and not by the object-store library, whose local
//! files are visible before they are on disk: a power cut could leave an empty manifest under a number that is taken.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, MultipartUpload, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::runtime::Runtime;

use super::StateError;

/// Bytes of one piece of a multipart upload; S3 takes none below 5 MiB but the last.
const PIECE_BYTES: usize = 8 << 20;

/// An object store that has answered once is waited for so long when it is away.
const PATIENCE: Duration = Duration::from_secs(600);

/// Between attempts that the object-store library does not repeat.
const PAUSE: Duration = Duration::from_secs(1);

/// Folder that is listed to see whether a store answers.
const PROBED: &str = "epochs";

/// A file that is not finished after this long never will be.
const UNFINISHED: Duration = Duration::from_secs(3_600);

/// A directory of recovery state.
#[derive(Clone)]
pub struct Store(Arc<Backend>);

enum Backend {
    Local(PathBuf),
    Remote { uri: String, objects: Box<dyn ObjectStore>, root: ObjectPath, runtime: Runtime },
}

/// An object and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name below the store, such as `parts/…`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.place()).finish()
    }
}

impl Store {
    /// Opens the state at a path, or at an address that the object-store library knows (`s3://`, `gs://`, `az://`), whose
    /// credentials come from the environment as that library reads them.
    ///
    /// # Errors
    /// When the address is not understood or the directory cannot be made.
    pub fn open(uri: &str) -> Result<Store, StateError> {
        let refused = |why: String| StateError::Place { uri: uri.to_owned(), why };
        let local = match uri.split_once("://") {
            None => Some(PathBuf::from(uri)),
            Some(("file", path)) => Some(PathBuf::from(path)),
            Some(_) => None,
        };
        if let Some(path) = local {
            fs::create_dir_all(&path).map_err(|error| refused(error.to_string()))?;
            return Ok(Store(Arc::new(Backend::Local(path))));
        }
        let remote = |retry| remote(uri, retry).map_err(|error| refused(error.to_string()));
        let (brief, root) = remote(RetryConfig::default())?;
        let (objects, _) = remote(patient())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tidemill-objects")
            .enable_all()
            .build()
            .map_err(|error| refused(error.to_string()))?;
        // A wrong address, or credentials that are no good, are told of at once.
        let answer = runtime.block_on(brief.list_with_delimiter(Some(&object_path(&root, PROBED))));
        answer.map_err(|error| StateError::Store {
            place: uri.to_owned(),
            action: "list",
            name: PROBED.to_owned(),
            source: error.into(),
        })?;
        Ok(Store(Arc::new(Backend::Remote { uri: uri.to_owned(), objects, root, runtime })))
    }

    /// Directory or address, for messages.
    pub fn place(&self) -> String {
        match &*self.0 {
            Backend::Local(path) => path.display().to_string(),
            Backend::Remote { uri, .. } => uri.clone(),
        }
    }

    /// Creates an object if there is none of this name: false when there is.
    ///
    /// # Errors
    /// When the outcome cannot be found out.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StateError> {
        match &*self.0 {
            Backend::Local(root) => {
                create_file(&root.join(name), bytes).map_err(|error| self.fault("create", name, error))
            }
            Backend::Remote { objects, root, runtime, .. } => {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                let path = object_path(root, name);
                let payload = PutPayload::from(bytes.to_vec());
                let deadline = Instant::now() + PATIENCE;
                loop {
                    let error = match runtime.block_on(objects.put_opts(&path, payload.clone(), options.clone())) {
                        Ok(_) => return Ok(true),
                        Err(error) => error,
                    };
                    // The answer may have been lost, and a repeated request have met our own object.
                    match self.read(name) {
                        Ok(Some(found)) => return Ok(found == bytes),
                        // The line broke before the object was there; that nobody repeats for us.
                        Ok(None) if is_passing(&error) && Instant::now() < deadline => std::thread::sleep(PAUSE),
                        _ => return Err(self.fault("create", name, error)),
                    }
                }
            }
        }
    }

    /// The bytes of an object; none when there is no such object.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        match &*self.0 {
            Backend::Local(root) => match fs::read(root.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.fault("read", name, error)),
            },
            Backend::Remote { objects, root, runtime, .. } => {
                let path = object_path(root, name);
                let read = runtime.block_on(async { objects.get(&path).await?.bytes().await });
                match read {
                    Ok(bytes) => Ok(Some(bytes.to_vec())),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.fault("read", name, error)),
                }
            }
        }
    }

    /// The objects of a folder, by name.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, StateError> {
        let mut listed = match &*self.0 {
            Backend::Local(root) => {
                list_folder(&root.join(folder), folder).map_err(|error| self.fault("list", folder, error))?
            }
            Backend::Remote { objects, root, runtime, .. } => {
                let path = object_path(root, folder);
                let found = runtime.block_on(objects.list_with_delimiter(Some(&path)));
                let found = found.map_err(|error| self.fault("list", folder, error))?;
                let entry = |meta: object_store::ObjectMeta| {
                    let file = meta.location.filename().unwrap_or_default();
                    Listed { name: format!("{folder}/{file}"), bytes: meta.size }
                };
                found.objects.into_iter().map(entry).collect()
            }
        };
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        match &*self.0 {
            Backend::Local(root) => match fs::remove_file(root.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(self.fault("remove", name, error)),
                _ => Ok(()),
            },
            Backend::Remote { objects, root, runtime, .. } => {
                match runtime.block_on(objects.delete(&object_path(root, name))) {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(self.fault("remove", name, error)),
                }
            }
        }
    }

    /// Begins a large object, of a name that nobody else uses. It is there once `finish` has returned.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn writer(&self, name: &str) -> Result<ObjectWriter, StateError> {
        let kind = match &*self.0 {
            Backend::Local(root) => {
                let path = root.join(name);
                let begun = hidden_file(&path).map_err(|error| self.fault("write", name, error))?;
                Kind::Local { path, hidden: begun.0, file: BufWriter::with_capacity(1 << 20, begun.1) }
            }
            Backend::Remote { .. } => Kind::Remote { upload: None, piece: Vec::new() },
        };
        Ok(ObjectWriter { store: self.clone(), name: name.to_owned(), kind, finished: false })
    }

    /// Removes files that were begun long ago in a folder and never finished. In an object store there are none to be seen;
    /// unfinished uploads end there by the bucket's own rules.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a file not be removed.
    pub fn remove_unfinished(&self, folder: &str) -> Result<(), StateError> {
        let Backend::Local(root) = &*self.0 else { return Ok(()) };
        let path = root.join(folder);
        remove_hidden(&path, SystemTime::now() - UNFINISHED).map_err(|error| self.fault("clear", folder, error))
    }

    fn fault(
        &self,
        action: &'static str,
        name: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StateError {
        StateError::Store { place: self.place(), action, name: name.to_owned(), source: source.into() }
    }

    pub(super) fn damaged(&self, name: &str, what: impl Into<String>) -> StateError {
        StateError::Damaged { place: self.place(), name: name.to_owned(), what: what.into() }
    }
}

/// A large object on its way. Dropped before it is finished, it leaves nothing.
pub struct ObjectWriter {
    store: Store,
    name: String,
    kind: Kind,
    finished: bool,
}

enum Kind {
    Local {
        path: PathBuf,
        hidden: PathBuf,
        file: BufWriter<File>,
    },
    /// Begun with the second piece: small objects are one request.
    Remote {
        upload: Option<Box<dyn MultipartUpload>>,
        piece: Vec<u8>,
    },
}

impl ObjectWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// When the store takes no more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        match &mut self.kind {
            Kind::Local { file, .. } => {
                file.write_all(bytes).map_err(|error| self.store.fault("write", &self.name, error))
            }
            Kind::Remote { upload, piece } => {
                piece.extend_from_slice(bytes);
                if piece.len() < PIECE_BYTES {
                    return Ok(());
                }
                let full = std::mem::take(piece);
                send_piece(&self.store, &self.name, upload, full)
            }
        }
    }

    /// Makes the object visible, whole and durable.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn finish(mut self) -> Result<(), StateError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        match &mut self.kind {
            Kind::Local { path, hidden, file } => {
                let finished = file.flush().and_then(|()| {
                    file.get_ref().sync_all()?;
                    fs::rename(&*hidden, &*path)?;
                    sync_parent(path)
                });
                finished.map_err(|error| store.fault("write", &name, error))?;
            }
            Kind::Remote { upload, piece } => {
                let last = std::mem::take(piece);
                if upload.is_some() && !last.is_empty() {
                    send_piece(&store, &name, upload, last.clone())?;
                }
                if let Backend::Remote { objects, root, runtime, .. } = &*store.0 {
                    let done = match upload {
                        Some(upload) => runtime.block_on(upload.complete()),
                        None => runtime.block_on(objects.put(&object_path(root, &name), PutPayload::from(last))),
                    };
                    done.map_err(|error| store.fault("write", &name, error))?;
                }
            }
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Best effort: what stays behind has no name that anybody asks for.
        match &mut self.kind {
            Kind::Local { hidden, .. } => {
                let _ = fs::remove_file(hidden);
            }
            Kind::Remote { upload, .. } => {
                if let (Backend::Remote { runtime, .. }, Some(upload)) = (&*self.store.0, upload) {
                    let _ = runtime.block_on(upload.abort());
                }
            }
        }
    }
}

/// An object store as its address and the environment say.
fn remote(uri: &str, retry: RetryConfig) -> Result<(Box<dyn ObjectStore>, ObjectPath), object_store::Error> {
    let unknown = |error: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
        store: "address",
        source: error,
    };
    let url = url::Url::parse(uri).map_err(|error| unknown(error.into()))?;
    let (scheme, root) = ObjectStoreScheme::parse(&url).map_err(|error| unknown(error.into()))?;
    let objects: Box<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => Box::new(AmazonS3Builder::from_env().with_url(uri).with_retry(retry).build()?),
        ObjectStoreScheme::GoogleCloudStorage => {
            Box::new(GoogleCloudStorageBuilder::from_env().with_url(uri).with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            Box::new(MicrosoftAzureBuilder::from_env().with_url(uri).with_retry(retry).build()?)
        }
        _ => return Err(unknown(format!("state is not kept at addresses of `{}`", url.scheme()).into())),
    };
    Ok((objects, root))
}

/// A store that is away is waited for, while the epoch that is to be saved stays open.
fn patient() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: usize::MAX, retry_timeout: PATIENCE }
}

/// Whether the store, or the way to it, may be better in a while.
fn is_passing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. })
}

fn send_piece(
    store: &Store,
    name: &str,
    upload: &mut Option<Box<dyn MultipartUpload>>,
    piece: Vec<u8>,
) -> Result<(), StateError> {
    let Backend::Remote { objects, root, runtime, .. } = &*store.0 else { return Ok(()) };
    let sent = runtime.block_on(async {
        let upload = match upload {
            Some(begun) => begun,
            None => upload.insert(objects.put_multipart(&object_path(root, name)).await?),
        };
        upload.put_part(PutPayload::from(piece)).await
    });
    sent.map_err(|error| store.fault("write", name, error))
}

fn object_path(root: &ObjectPath, name: &str) -> ObjectPath {
    name.split('/').filter(|part| !part.is_empty()).fold(root.clone(), |path, part| path.join(part))
}

/// A file of a name that no reader asks for, beside `path`.
fn hidden_file(path: &Path) -> std::io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let hidden = parent.join(format!(".{file}.{process}-{count}.tmp"));
    // A file of this name is a dead process's.
    let opened = File::create(&hidden)?;
    Ok((hidden, opened))
}

fn create_file(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let (hidden, mut file) = hidden_file(path)?;
    let linked = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&hidden, path));
    // A link leaves the hidden name behind, a failure a useless file.
    let _ = fs::remove_file(&hidden);
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_hidden(folder: &Path, before: SystemTime) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        // A file may go while the folder is listed.
        let Ok(written) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        if file.starts_with('.') && file.ends_with(".tmp") && written < before {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn list_folder(path: &Path, folder: &str) -> std::io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut listed = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        // A file may go while the folder is listed.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() && !file.starts_with('.') {
            listed.push(Listed { name: format!("{folder}/{file}"), bytes: metadata.len() });
        }
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().display().to_string()).expect("it opens");
        assert!(store.create("epochs/1", b"mine").expect("it is written"));
        assert!(!store.create("epochs/1", b"yours").expect("it is there"));
        assert_eq!(store.read("epochs/1").expect("it is read").as_deref(), Some(&b"mine"[..]));
        assert_eq!(store.read("epochs/2").expect("there is none"), None);
        let mut writer = store.writer("parts/a").expect("it begins");
        writer.write(b"12").expect("it is written");
        assert!(store.list("parts").expect("it is listed").is_empty(), "nothing is visible before the end");
        writer.write(b"3").expect("it is written");
        writer.finish().expect("it is finished");
        drop(store.writer("parts/b").expect("it begins"));
        assert_eq!(store.list("parts").expect("it is listed"), [Listed { name: "parts/a".into(), bytes: 3 }]);
        store.remove("parts/a").expect("it is removed");
        store.remove("parts/a").expect("it is removed already");
        assert!(fs::read_dir(dir.path().join("parts")).expect("it is there").next().is_none(), "no hidden file stays");
    }

    #[test]
    fn files_that_nobody_finishes_are_removed_when_they_are_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().display().to_string()).expect("it opens");
        let begun = ["old", "new"].map(|name| store.writer(&format!("parts/{name}")).expect("it begins"));
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir.path().join("parts")).expect("it is there").map(|e| e.expect("a file").path()).collect();
        files.sort();
        let old = files.iter().find(|file| file.to_string_lossy().contains(".old.")).expect("it is hidden");
        let opened = File::options().write(true).open(old).expect("it opens");
        opened.set_modified(SystemTime::now() - UNFINISHED - UNFINISHED).expect("it is old");
        store.remove_unfinished("parts").expect("it is listed");
        assert_eq!(files.iter().map(|file| file.exists()).filter(|exists| *exists).count(), 1);
        assert!(!old.exists());
        store.remove_unfinished("none").expect("there is nothing");
        drop(begun);
    }

    #[test]
    fn places_that_cannot_be() {
        assert!(Store::open("/dev/null/x").is_err());
        let error = Store::open("s4://bucket/x").expect_err("nobody knows s4").to_string();
        assert!(error.contains("s4://bucket/x") && error.contains("give a directory"), "{error}");
    }
}

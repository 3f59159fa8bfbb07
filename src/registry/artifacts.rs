//! Files by the hash of their content: written once, checked whenever they are read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::error::RegistryError;
use super::model::{Artifact, Content};
use crate::state::Store;

/// Folder of the artifacts.
pub(super) const FOLDER: &str = "artifacts";

/// Artifacts of a registry.
pub(super) struct Artifacts {
    store: Store,
    /// The folder itself where the registry is a directory; else where copies are kept.
    here: Here,
}

/// Where artifacts are files of this machine.
enum Here {
    /// They lie there.
    Folder(PathBuf),
    /// They are copied there.
    Cache(PathBuf),
}

impl Artifacts {
    pub fn of(store: Store, uri: &str, cache: PathBuf) -> Artifacts {
        let here = match super::local(uri) {
            Some(path) => Here::Folder(std::path::absolute(&path).unwrap_or(path).join(FOLDER)),
            None => Here::Cache(cache),
        };
        Artifacts { store, here }
    }

    /// Keeps bytes, if they are not kept already; a damaged copy of them is mended.
    pub fn put(&self, content: &Content) -> Result<Artifact, RegistryError> {
        let read;
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::File(path) => {
                read = fs::read(path)
                    .map_err(|error| RegistryError::Refused(format!("cannot read {}: {error}", path.display())))?;
                &read
            }
        };
        let artifact = Artifact { hash: sha256(bytes), bytes: bytes.len() as u64 };
        let name = name(&artifact.hash);
        match self.store.read(&name)? {
            Some(found) if found == *bytes => return Ok(artifact),
            Some(_) => self.store.remove(&name)?,
            None => {}
        }
        // Whoever is faster writes the same.
        self.store.create(&name, bytes)?;
        Ok(artifact)
    }

    /// A file of this machine that holds the bytes of this hash.
    pub fn path(&self, hash: &str) -> Result<PathBuf, RegistryError> {
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(RegistryError::Refused(format!("`{hash}` is no hash of an artifact: 64 hexadecimal digits")));
        }
        match &self.here {
            Here::Folder(folder) => {
                let path = folder.join(hash);
                self.check(hash, self.store.read(&name(hash))?).map(|_| path)
            }
            Here::Cache(folder) => {
                let path = folder.join(hash);
                if let Some(copy) = copy(folder, hash) {
                    return Ok(copy);
                }
                let bytes = self.check(hash, self.store.read(&name(hash))?)?;
                write(&path, &bytes).map_err(|error| RegistryError::Store {
                    place: self.store.place(),
                    action: "copy to",
                    name: path.display().to_string(),
                    source: error.into(),
                })?;
                Ok(path)
            }
        }
    }

    fn check(&self, hash: &str, bytes: Option<Vec<u8>>) -> Result<Vec<u8>, RegistryError> {
        let what = match bytes {
            Some(bytes) if sha256(&bytes) == hash => return Ok(bytes),
            Some(_) => "is damaged: its bytes are not those of its name",
            None => "is missing",
        };
        Err(RegistryError::Damaged {
            place: self.store.place(),
            name: name(hash),
            what: what.to_owned(),
            mend: "put it back from a copy, or register the same file again, which mends it".to_owned(),
        })
    }
}

/// Where copies of artifacts are kept that lie in object stores.
pub(super) fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    caches.unwrap_or_else(std::env::temp_dir).join("tidemill").join("models")
}

/// A copy that is there, and whole.
pub(super) fn copy(cache: &Path, hash: &str) -> Option<PathBuf> {
    let path = cache.join(hash);
    fs::read(&path).is_ok_and(|bytes| sha256(&bytes) == hash).then_some(path)
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn name(hash: &str) -> String {
    format!("{FOLDER}/{hash}")
}

/// Writes a copy that is seen whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let hidden = folder.join(format!(".{process}-{count}.tmp"));
    let written = fs::write(&hidden, bytes).and_then(|()| fs::rename(&hidden, path));
    if written.is_err() {
        // What stays behind has no name that anybody asks for.
        let _ = fs::remove_file(&hidden);
    }
    written
}

//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::BatchError;

/// Puts a file in its place at once: whoever reads it finds the old or the new, also after a crash.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), BatchError> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(BatchError::disk("write", path))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes what was created, renamed or removed in a directory last.
pub fn sync_directory(directory: &Path) -> Result<(), BatchError> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(BatchError::disk("sync", directory))
}

/// Writes a value as JSON, as [`replace`] does.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), BatchError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| BatchError::damaged(path, e.to_string()))?;
    replace(path, &bytes)
}

/// Reads a value; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BatchError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| BatchError::damaged(path, e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(BatchError::disk("read", path)(e)),
    }
}

/// Takes a directory away, if it is there.
pub fn remove_tree(path: &Path) -> Result<(), BatchError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(BatchError::disk("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Length and SHA-256 (hex) of a file.
pub fn hash_file(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer, mut length) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((length, hex(&hasher.finalize())));
        }
        hasher.update(&buffer[..n]);
        length += n as u64;
    }
}

/// SHA-256 (hex) of a text.
pub fn hash_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

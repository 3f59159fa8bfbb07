//! Standard error into a file of bounded size.
//!
//! All that a process says on standard error, a panic's last words included, goes to a file. When it is long enough it gets
//! another name and a new one is begun. The process does so itself: no pipe and nobody else is needed, so that it goes on
//! when whoever started it is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the length is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Sends standard error to `path` from now on. When the file has `bytes_max` bytes, it becomes `path.1` in the place of the
/// one before, and a new one is begun.
///
/// # Errors
/// When the file cannot be opened.
pub fn log_to_file(path: &Path, bytes_max: u64) -> io::Result<()> {
    redirect(path)?;
    let path = path.to_owned();
    std::thread::Builder::new().name("log-file".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            // One that somebody took away is begun anew too.
            let length = std::fs::metadata(&path).map(|file| file.len());
            if length.as_ref().is_ok_and(|length| *length < bytes_max) {
                continue;
            }
            if length.is_ok() && std::fs::rename(&path, older(&path)).is_err() {
                continue;
            }
            // There is nobody to tell; the next look tries again.
            let _ = redirect(&path);
        }
    })?;
    Ok(())
}

/// Name of the file that was full.
pub fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn redirect(path: &Path) -> io::Result<()> {
    let file: File = OpenOptions::new().create(true).append(true).open(path)?;
    // SAFETY: both descriptors are open; the second is replaced in one step.
    match unsafe { libc::dup2(file.as_raw_fd(), 2) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

//! Where a running job can be reached: a Unix socket that only the owner may open, and `control.json` that says where it is.
//!
//! Each process has a socket of its own name, so that one that was frozen and wakes takes nothing from its successor. The
//! socket lies in the state directory or, where that path is too long for a socket, in the system's temporary directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use axum::Router;

use super::ControlFile;
use crate::telemetry::ServerThread;

/// The file in the state directory that says where the socket is.
pub const CONTROL_FILE: &str = "control.json";
/// Begins the names of sockets, and ends them.
const SOCKET: (&str, &str) = ("control-", ".sock");
/// Longest path of a Unix socket on every system.
const SOCKET_PATH_MAX: usize = 100;

/// A socket that is open; closed and removed when it is dropped.
pub struct Door {
    server: Option<ServerThread>,
    socket: PathBuf,
    pointer: PathBuf,
}

impl Door {
    /// Opens the socket of this process and has `control.json` say so, in the place of what an earlier process left.
    ///
    /// # Errors
    /// When the state directory cannot be written, or no socket be made.
    pub fn open(
        dir: &Path,
        (started, generation): (&str, u64),
        router: Router,
        beside: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<Door> {
        let dir = fs::canonicalize(dir)?;
        clear(&dir);
        let (socket, listener) = bind(&dir, &format!("{generation}-{}", std::process::id()))?;
        listener.set_nonblocking(true)?;
        let listener = move || tokio::net::UnixListener::from_std(listener);
        let server = ServerThread::start("control", listener, router, beside)?;
        let pointer = dir.join(CONTROL_FILE);
        let door = Door { server: Some(server), socket, pointer };
        let told = ControlFile {
            socket: door.socket.display().to_string(),
            pid: std::process::id(),
            started: started.to_owned(),
            generation,
        };
        let hidden = dir.join(format!(".{CONTROL_FILE}.{}.tmp", std::process::id()));
        let mut file = File::create(&hidden)?;
        file.write_all(&serde_json::to_vec_pretty(&told)?)?;
        file.sync_all()?;
        fs::rename(&hidden, &door.pointer)?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.server.take());
        // A successor has put its own there.
        if control_file(&self.pointer).is_some_and(|told| Path::new(&told.socket) == self.socket) {
            let _ = fs::remove_file(&self.pointer);
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// Where the process of a job can be reached, as `control.json` in its state directory says; `None` where none has it open. The
/// process may be gone all the same, if it was killed.
pub fn find_control(state_dir: &Path) -> Option<ControlFile> {
    control_file(&state_dir.join(CONTROL_FILE))
}

fn control_file(path: &Path) -> Option<ControlFile> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A socket that only the owner may open, in `dir` if there can be one.
fn bind(dir: &Path, name: &str) -> io::Result<(PathBuf, UnixListener)> {
    let bind = |path: PathBuf| {
        // A file of this name is left from a process that is gone: our claim and our number are ours.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok((path, listener))
    };
    let path = dir.join(format!("{}{name}{}", SOCKET.0, SOCKET.1));
    // There are file systems, too, that have no sockets.
    if path.as_os_str().len() <= SOCKET_PATH_MAX
        && let Ok(bound) = bind(path)
    {
        return Ok(bound);
    }
    let hash = xxhash_rust::xxh3::xxh3_64(dir.as_os_str().as_bytes());
    bind(std::env::temp_dir().join(format!("tidemill-{hash:016x}-{name}{}", SOCKET.1)))
}

/// Removes the sockets of processes that are gone: nobody answers there.
fn clear(dir: &Path) {
    let is_socket = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with(SOCKET.0) && name.ends_with(SOCKET.1)
    };
    let there = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let there = there.filter(|path| path.file_name().is_some_and(is_socket));
    let named = find_control(dir).map(|told| PathBuf::from(told.socket));
    for socket in there.chain(named) {
        let is_dead = UnixStream::connect(&socket).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if is_dead {
            let _ = fs::remove_file(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(dir: &Path, generation: u64) -> Door {
        Door::open(dir, ("2026-01-05T00:00:00Z", generation), Router::new(), std::future::pending()).expect("a door")
    }

    #[test]
    fn each_process_closes_its_own_door() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = door(dir.path(), 1);
        let mode = fs::metadata(&first.socket).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = door(dir.path(), 4);
        let told = || find_control(dir.path());
        assert_eq!(told().map(|told| told.generation), Some(4));
        assert!(UnixStream::connect(&first.socket).is_ok(), "it lives");
        drop(first);
        assert_eq!(told().map(|told| told.pid), Some(std::process::id()), "the successor's stays");
        let socket = second.socket.clone();
        drop(second);
        assert_eq!((told(), socket.exists()), (None, false));
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let dead = dir.path().join("control-1-1.sock");
        drop(UnixListener::bind(&dead).expect("a socket"));
        assert!(dead.exists());
        fs::write(dir.path().join(CONTROL_FILE), "{").expect("written");
        let door = door(dir.path(), 9);
        assert!(!dead.exists());
        assert_eq!(find_control(dir.path()).map(|told| told.generation), Some(9));
        drop(door);
    }

    #[test]
    fn a_long_path_has_its_socket_elsewhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = dir.path().join("x".repeat(120));
        fs::create_dir(&long).expect("a folder");
        let door = door(&long, 1);
        let told = find_control(&long).expect("it is told");
        assert!(UnixStream::connect(&told.socket).is_ok() && told.socket.len() <= SOCKET_PATH_MAX, "{}", told.socket);
        drop(door);
        assert!(!Path::new(&told.socket).exists());
    }
}

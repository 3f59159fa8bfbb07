//! The server's side of a job's control socket: HTTP/1.1, a connection for each request.
//!
//! A job may be frozen or busy. So no call waits longer than it is told to, connecting included, and none reads more than it
//! should.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::parse;

use crate::engine::status::ControlFile;

/// Bytes of an answer that are read at most.
const ANSWER_MAX: u64 = 64 << 20;

/// Why a job did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// It cannot be reached, or does not answer in time.
    #[error("the job's process does not answer: {0}")]
    Away(io::Error),
    /// It answered with an error.
    #[error("{detail}")]
    Refused {
        /// Status code.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// What it answered is not understood.
    #[error("the job's process gave an answer that is not understood: {0}")]
    Garbled(String),
}

/// A job's control socket.
#[derive(Clone, Debug)]
pub struct Talk {
    socket: PathBuf,
    patience: Duration,
}

impl Talk {
    /// The socket of a job with this state directory, if it is that of process `pid`: what a former process left is not it.
    pub fn of(state: &Path, pid: u32) -> Option<Talk> {
        let text = std::fs::read(state.join("control.json")).ok()?;
        let file: ControlFile = serde_json::from_slice(&text).ok()?;
        let socket = state.join(file.socket);
        (file.pid == pid).then_some(Talk { socket, patience: Duration::from_secs(5) })
    }

    /// The same with another patience.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Talk {
        self.patience = patience;
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    /// See [`TalkError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, TalkError> {
        decode(&self.request("GET", path, &[])?)
    }

    /// `GET path`, as text.
    ///
    /// # Errors
    /// See [`TalkError`].
    pub fn text(&self, path: &str) -> Result<String, TalkError> {
        String::from_utf8(self.request("GET", path, &[])?).map_err(|error| TalkError::Garbled(error.to_string()))
    }

    /// `POST path` with a body; what is answered is left aside.
    ///
    /// # Errors
    /// See [`TalkError`].
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<(), TalkError> {
        let body = serde_json::to_vec(body).map_err(|error| TalkError::Garbled(error.to_string()))?;
        self.request("POST", path, &body).map(|_| ())
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, TalkError> {
        let (status, answer) = self.exchange(method, path, body).map_err(TalkError::Away)?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let problem: Option<crate::http::Problem> = serde_json::from_slice(&answer).ok();
        let detail = problem.map_or_else(|| String::from_utf8_lossy(&answer).trim().to_owned(), |p| p.detail);
        Err(TalkError::Refused { status, detail })
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let until = Instant::now() + self.patience;
        let mut stream = connect(&self.socket)?;
        let left = || {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
        };
        stream.set_write_timeout(Some(left()?))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: job\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            stream.set_read_timeout(Some(left()?))?;
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => answer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
                Err(error) => return Err(error),
            }
            if answer.len() as u64 > ANSWER_MAX {
                return Err(io::Error::other("the answer is too long"));
            }
        }
        parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is cut short or no HTTP"))
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TalkError> {
    serde_json::from_slice(bytes).map_err(|error| TalkError::Garbled(error.to_string()))
}

/// Connects without waiting: the queue of a process that is frozen may be full, and then `connect` would wait for ever.
fn connect(path: &Path) -> io::Result<UnixStream> {
    // SAFETY: all bytes zero are a valid address structure.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket's path is too long"));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: makes a descriptor, which is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    use std::os::fd::AsRawFd;
    // SAFETY: sets flags of a descriptor that is ours.
    unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    let length = std::mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is a whole structure of that length, and ends in a zero.
    let done = unsafe { libc::connect(stream.as_raw_fd(), (&raw const address).cast(), length) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_process_that_is_frozen_is_not_waited_for() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let file = ControlFile { socket: socket.display().to_string(), pid: 7, started: String::new(), generation: 1 };
        std::fs::write(dir.path().join("control.json"), serde_json::to_vec(&file).expect("JSON")).expect("a file");
        assert!(Talk::of(dir.path(), 8).is_none(), "another process");
        let talk = Talk::of(dir.path(), 7).expect("a socket").patient(Duration::from_millis(20));
        // Nobody accepts. When the queue is full connecting fails, which takes no time either.
        for _ in 0..5000 {
            match talk.clone().patient(Duration::from_millis(1)).get::<serde_json::Value>("/v1/status") {
                Err(TalkError::Away(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(TalkError::Away(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        drop(listener);
        assert!(matches!(talk.get::<serde_json::Value>("/v1/status"), Err(TalkError::Away(_))));
    }
}

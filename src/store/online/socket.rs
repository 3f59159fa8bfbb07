//! The local socket over which the process that has an online store open answers others.
//!
//! One JSON object per line and direction:
//!
//! ```text
//! → {"op":"views"}                                    ← {"views":["customer","terminal"]}
//! → {"op":"read","view":"customer","keys":["0180…"]}  ← {"schemas":[…],"now":1522540800000000,"rows":["01…",null]}
//!                                                     ← {"error":"…"}
//! ```
//! Keys are canonical bytes and rows are packed rows, both in hexadecimal. The socket lies in the store's directory, or,
//! where that path is too long for a socket, in the system's temporary directory; the file `socket` in the store's
//! directory says where. Only the owner of the store may connect.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ViewSchema;
use super::store::OnlineStore;
use crate::base::EventTime;
use crate::store::StoreError;

/// File in the store's directory that holds the socket's path.
const POINTER: &str = "socket";
/// Longest path of a Unix socket on every system.
const SOCKET_PATH_MAX: usize = 100;
/// Longest request; a key of 64 KiB, the longest that the store takes, is 128 KiB of digits.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
const CONNECTIONS_MAX: usize = 256;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    Views,
    Read { view: String, keys: Vec<String> },
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Response {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<ViewSchema>,
    #[serde(default)]
    pub now: Option<EventTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Option<String>>,
}

/// Keeps a store's socket open; closes it, and every connection, when dropped.
pub struct SocketGuard {
    path: PathBuf,
    pointer: PathBuf,
    shared: Arc<Connections>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Connections {
    stopping: AtomicBool,
    open: Mutex<HashMap<u64, Open>>,
}

/// A connection, to hang up on, and the thread that answers it.
type Open = (UnixStream, Option<JoinHandle<()>>);

pub(super) fn serve(store: OnlineStore) -> Result<SocketGuard, StoreError> {
    let directory = fs::canonicalize(store.path()).map_err(StoreError::io("open", store.path()))?;
    let mut path = directory.join("reader.sock");
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let hash = xxhash_rust::xxh3::xxh3_64(directory.as_os_str().as_bytes());
        path = std::env::temp_dir().join(format!("tidemill-{hash:016x}.sock"));
    }
    // The store's lock is ours: a socket that is still there belongs to no one.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(StoreError::io("bind", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(StoreError::io("protect", &path))?;
    let pointer = directory.join(POINTER);
    fs::write(&pointer, path.as_os_str().as_bytes()).map_err(StoreError::io("write", &pointer))?;

    let shared = Arc::new(Connections::default());
    let acceptor = {
        let shared = shared.clone();
        std::thread::Builder::new().name("online-socket".into()).spawn(move || accept(&listener, &store, &shared))
    };
    let acceptor = acceptor.map_err(StoreError::io("serve", &path))?;
    Ok(SocketGuard { path, pointer, shared, acceptor: Some(acceptor) })
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A connection wakes the acceptor, which then sees the flag. Where someone removed the socket nothing can wake
        // it, nor can anyone reach it: it is left alone.
        let woken = UnixStream::connect(&self.path).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            let _ = acceptor.join();
        }
        let open = std::mem::take(&mut *self.shared.open.lock().expect("no panics while held"));
        for (stream, thread) in open.into_values() {
            let _ = stream.shutdown(Shutdown::Both);
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.pointer);
    }
}

fn accept(listener: &UnixListener, store: &OnlineStore, shared: &Arc<Connections>) {
    for (id, stream) in (0u64..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Out of file handles, most likely: others may close theirs.
                tracing::warn!(%error, "online store: a reader could not connect");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let mut open = shared.open.lock().expect("no panics while held");
        let (Ok(kept), true) = (stream.try_clone(), open.len() < CONNECTIONS_MAX) else {
            let _ = answer(&stream, &failed("too many readers at once; try again later".into()));
            continue;
        };
        open.insert(id, (kept, None));
        let (store, connections) = (store.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("online-reader".into()).spawn(move || {
            converse(&stream, &store);
            connections.open.lock().expect("no panics while held").remove(&id);
        });
        match thread {
            Ok(thread) => {
                if let Some(entry) = open.get_mut(&id) {
                    entry.1 = Some(thread);
                }
            }
            Err(_) => drop(open.remove(&id)),
        }
    }
}

/// Answers one reader until it hangs up.
fn converse(stream: &UnixStream, store: &OnlineStore) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let whole = line.last() == Some(&b'\n');
        let response = match whole {
            true => respond(&line, store),
            false => failed(format!("a request is longer than {REQUEST_BYTES_MAX} bytes or ends early")),
        };
        if answer(stream, &response).is_err() || !whole {
            return;
        }
    }
}

fn respond(line: &[u8], store: &OnlineStore) -> Response {
    match serde_json::from_slice(line) {
        Err(error) => failed(format!("not a request: {error}")),
        Ok(Request::Views) => Response { views: store.view_names(), ..Response::default() },
        Ok(Request::Read { view, keys }) => {
            let schemas = store.schemas(&view);
            if schemas.is_empty() {
                // The reader words the answer, from the views there are.
                return Response { views: store.view_names(), ..Response::default() };
            }
            let keys = keys.iter().map(|key| unhex(key)).collect::<Option<Vec<_>>>();
            let rows = match keys {
                Some(keys) => store.rows(&view, &keys).map_err(|e| e.to_string()),
                None => Err("a key is not hexadecimal".into()),
            };
            match rows {
                Ok(rows) => Response {
                    schemas,
                    now: store.now(),
                    rows: rows.into_iter().map(|row| row.map(|row| hex(&row))).collect(),
                    ..Response::default()
                },
                Err(error) => failed(error),
            }
        }
    }
}

fn failed(error: String) -> Response {
    Response { error: Some(error), ..Response::default() }
}

fn answer(mut stream: &UnixStream, response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A connection to the process that has a store open.
pub(super) struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects, or `None` when no process answers for the store.
    pub fn connect(store: &Path) -> Option<Client> {
        let pointer = fs::read(store.join(POINTER)).ok()?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&pointer));
        let stream = UnixStream::connect(&path).ok()?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT)).ok()?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT)).ok()?;
        Some(Client { path, stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, StoreError> {
        let wrong = StoreError::io("ask over", &self.path);
        let mut line = serde_json::to_vec(request).expect("a request is plain data");
        line.push(b'\n');
        let mut answer = Vec::new();
        let exchanged = self
            .stream
            .get_mut()
            .write_all(&line)
            .and_then(|()| self.stream.read_until(b'\n', &mut answer))
            .and_then(|_| serde_json::from_slice::<Response>(&answer).map_err(std::io::Error::from));
        let response = exchanged.map_err(wrong)?;
        match response.error {
            Some(error) => Err(StoreError::Request(error)),
            None => Ok(response),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS[usize::from(nibble)] as char;
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits =
        text.as_bytes().iter().map(|c| (*c as char).to_digit(16).map(|d| d as u8)).collect::<Option<Vec<_>>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

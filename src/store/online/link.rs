//! Packed rows for those who answer many requests: what a link to a store gives, and the link to an embedded one.
//!
//! The store of a job that is stopped is opened directly, and answers others over its socket meanwhile; a job that starts
//! says that it wants the store, and it is let go within a tenth of a second.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::reader::OnlineReader;
use super::socket::{Client, SocketGuard};
use super::store::OnlineStore;
use super::{ColumnType, ViewSchema};
use crate::base::EventTime;
use crate::ops::key::EncodedKeys;
use crate::store::StoreError;

/// Connections to the process that has the store open, kept for later.
const CONNECTIONS_KEPT: usize = 8;
/// How often an open store's directory is looked at for a job that wants it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Rows that are asked for: a view and its entities.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Name of the view.
    pub view: Arc<str>,
    /// The entities.
    pub keys: EncodedKeys,
}

/// The forms that rows of a view may have.
#[derive(Clone, Debug)]
pub struct Layouts {
    /// By the number that rows name them by; the last is the one that is written.
    pub all: Vec<(u32, ViewSchema)>,
    /// Types of the columns of each.
    pub types: Vec<Vec<ColumnType>>,
}

impl Layouts {
    pub(super) fn new(all: Vec<(u32, ViewSchema)>) -> Layouts {
        let types = all.iter().map(|(_, schema)| schema.columns.iter().map(|c| c.column_type).collect()).collect();
        Layouts { all, types }
    }

    /// Place of a layout by its number.
    pub fn place(&self, number: u32) -> Option<usize> {
        self.all.iter().rposition(|(known, _)| *known == number)
    }

    /// What is written now; `None` where nothing is declared.
    pub fn newest(&self) -> Option<&ViewSchema> {
        self.all.last().map(|(_, schema)| schema)
    }
}

/// What was found for an [`Ask`].
#[derive(Clone, Debug)]
pub struct Packed {
    /// The forms that rows may have.
    pub layouts: Arc<Layouts>,
    /// The job's clock; `None` when an event-time job has not said it yet.
    pub now: Option<EventTime>,
    /// Packed rows, one for each key; `None` where there is none.
    pub rows: Vec<Option<Vec<u8>>>,
}

/// A link to an embedded store. Calls block.
#[derive(Clone)]
pub struct EmbeddedLink(Arc<Inner>);

struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<OnlineReader>>,
    here: Mutex<Option<Here>>,
}

/// The store, open in this process. The socket closes before the store does.
struct Here {
    _socket: SocketGuard,
    store: OnlineStore,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedLink {
    /// A link to the store in directory `path`, which need not be there yet.
    pub fn new(path: &Path) -> EmbeddedLink {
        EmbeddedLink(Arc::new(Inner { path: path.to_path_buf(), idle: Mutex::default(), here: Mutex::default() }))
    }

    /// Reads rows. Blocks.
    ///
    /// # Errors
    /// As [`OnlineReader::open`] and [`OnlineReader::read`].
    pub fn fetch(&self, asks: &[Ask]) -> Result<Vec<Packed>, StoreError> {
        // A connection that was kept may lead to a process that has ended since: the second try connects anew.
        match self.try_fetch(asks) {
            Err(StoreError::Io { .. }) => {
                lock(&self.0.idle).clear();
                self.try_fetch(asks)
            }
            outcome => outcome,
        }
    }

    fn try_fetch(&self, asks: &[Ask]) -> Result<Vec<Packed>, StoreError> {
        let reader = self.reader()?;
        let mut found = Vec::with_capacity(asks.len());
        for ask in asks {
            let keys: Vec<Vec<u8>> = ask.keys.iter().map(<[u8]>::to_vec).collect();
            let (schemas, now, rows) = reader.packed(&ask.view, &keys)?;
            found.push(Packed { layouts: Arc::new(Layouts::new(schemas)), now, rows });
        }
        let mut idle = lock(&self.0.idle);
        if reader.is_remote() && idle.len() < CONNECTIONS_KEPT {
            idle.push(reader);
        }
        Ok(found)
    }

    fn reader(&self) -> Result<OnlineReader, StoreError> {
        let inner = &self.0;
        if let Some(reader) = lock(&inner.idle).pop() {
            return Ok(reader);
        }
        if !inner.path.join("db").is_dir() {
            return Err(StoreError::Request(format!(
                "there is no online store in {}; run the job that fills it",
                inner.path.display()
            )));
        }
        let mut here = lock(&inner.here);
        if let Some(open) = &*here {
            if !OnlineStore::is_wanted(&inner.path) {
                return Ok(open.store.reader());
            }
            *here = None;
        }
        if let Some(client) = Client::connect(&inner.path) {
            return Ok(OnlineReader::through(client));
        }
        if OnlineStore::is_wanted(&inner.path) {
            return Err(StoreError::Locked { path: inner.path.clone() });
        }
        let store = match OnlineStore::try_open(&inner.path, None) {
            Ok(store) => store,
            // The job may just have opened its socket.
            Err(StoreError::Locked { path }) => {
                return Client::connect(&path).map(OnlineReader::through).ok_or(StoreError::Locked { path });
            }
            Err(error) => return Err(error),
        };
        let socket = store.serve()?;
        let reader = store.reader();
        *here = Some(Here { _socket: socket, store });
        let watched = Arc::downgrade(inner);
        let watcher = std::thread::Builder::new().name("online-lease".into()).spawn(move || watch(&watched));
        if watcher.is_err() {
            // Nobody would let go of it.
            *here = None;
        }
        Ok(reader)
    }
}

/// Lets go of the store when a job wants it.
fn watch(inner: &Weak<Inner>) {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(inner) = inner.upgrade() else { return };
        let mut here = lock(&inner.here);
        if here.is_none() || OnlineStore::is_wanted(&inner.path) {
            *here = None;
            return;
        }
    }
}

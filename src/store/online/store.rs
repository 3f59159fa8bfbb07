//! The store itself: an LSM tree in one directory, open in one process.

use std::collections::HashMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::reader::OnlineReader;
use super::socket::{SocketGuard, serve};
use super::value::{ColumnType, Header, pack};
use super::{OnlineRows, Stamp, ViewSchema, unique_name};
use crate::base::{EventTime, failpoint, wall_clock};
use crate::ops::key;
use crate::plan::model::Clock;
use crate::store::StoreError;

/// Rows per write batch: the store's journal is locked for one batch at a time.
const BATCH_ROWS: usize = 4096;
/// How long opening waits for another process to let go of the directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Begins the name of a database that is being made.
const UNFINISHED: &str = ".db-";
/// What the store's name lies under.
const LIFE: &str = "life";
/// Lies in the store's directory while a job waits for whoever has it open.
const WANTED: &str = "wanted";
/// A job does not wait longer; what is older was left by one that was killed.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// "Now" of an event-time job that has not said it yet.
const NO_TIME: EventTime = EventTime::MIN;

/// The embedded online store, open for writing and reading. Clones share it; threads may write different entities at once.
#[derive(Clone)]
pub struct OnlineStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    database: Database,
    meta: Keyspace,
    clock: Clock,
    /// Names the database; empty for one that nobody has opened for writing since databases have names.
    life: String,
    now: AtomicI64,
    /// Newest stamp of any row as of opening: a write with a newer stamp needs no look at what is there.
    newest_before: Stamp,
    newest: Mutex<Stamp>,
    /// Schemas by view and number; the last is the one that is written.
    schemas: RwLock<HashMap<String, Vec<ViewSchema>>>,
    views: Mutex<HashMap<String, Keyspace>>,
}

/// A view that may be written; see [`OnlineStore::define`].
#[derive(Clone)]
pub struct View {
    name: String,
    schema: u32,
    key_columns: usize,
    types: Vec<ColumnType>,
    rows: Keyspace,
}

impl OnlineStore {
    /// Opens the store in directory `path`, which is created if absent. `clock` is the job's; readers of a store whose
    /// job has stopped judge by the clock it was last opened with. Waits up to five seconds for another process to let go.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open; [`StoreError::Online`], [`StoreError::Damaged`] and
    /// [`StoreError::Io`] when it cannot be read.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
        if !path.join("db").exists() {
            Self::create(path)?;
        }
        let patience = Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::try_open(path, Some(clock)) {
                Err(StoreError::Locked { .. }) if Instant::now() < patience => {
                    // A server that only reads for others lets go.
                    let _ = fs::write(path.join(WANTED), b"");
                    std::thread::sleep(Duration::from_millis(50));
                }
                outcome => {
                    let _ = fs::remove_file(path.join(WANTED));
                    let store = outcome?;
                    Self::clear(path)?;
                    return Ok(store);
                }
            }
        }
    }

    /// Whether a job waits for the store in directory `path`.
    pub(super) fn is_wanted(path: &Path) -> bool {
        let written = fs::metadata(path.join(WANTED)).and_then(|file| file.modified());
        written.is_ok_and(|at| at.elapsed().unwrap_or_default() < WANTED_FOR)
    }

    /// Makes an empty database under another name first: a process that is killed in the middle leaves one that cannot be opened.
    fn create(path: &Path) -> Result<(), StoreError> {
        let unfinished = path.join(format!("{UNFINISHED}{}.new", std::process::id()));
        let wrong = |source| StoreError::Online { path: path.to_path_buf(), source };
        let make = || {
            remove(&unfinished)?;
            let database = Database::builder(&unfinished).worker_threads(1).open().map_err(wrong)?;
            let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(wrong)?;
            meta.insert(LIFE, unique_name()).map_err(wrong)?;
            database.persist(PersistMode::SyncAll).map_err(wrong)
        };
        let target = path.join("db");
        let made = make().and_then(|()| {
            failpoint("online.created");
            fs::rename(&unfinished, &target).map_err(StoreError::io("rename", &target))
        });
        match made {
            // Another process was quicker, and may have cleared ours away.
            Err(_) if target.exists() => remove(&unfinished),
            made => made,
        }
    }

    /// Removes what processes left that were killed while they made a database.
    fn clear(path: &Path) -> Result<(), StoreError> {
        for entry in fs::read_dir(path).map_err(StoreError::io("read", path))? {
            let entry = entry.map_err(StoreError::io("read", path))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Opens the store if no other process has it open; without a clock it takes the one it finds.
    pub(super) fn try_open(path: &Path, clock: Option<Clock>) -> Result<Self, StoreError> {
        let wrong = |source| match source {
            fjall::Error::Locked => StoreError::Locked { path: path.to_path_buf() },
            source => StoreError::Online { path: path.to_path_buf(), source },
        };
        let database = Database::builder(path.join("db")).worker_threads(2).open().map_err(wrong)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(wrong)?;
        let damaged = |reason: String| StoreError::Damaged { path: path.to_path_buf(), reason };

        let state = meta.get("state").map_err(wrong)?;
        let state = state.map(|bytes| State::read(&bytes).ok_or_else(|| damaged("its state is not 25 bytes".into())));
        let state = state.transpose()?.unwrap_or_default();
        let life = match meta.get(LIFE).map_err(wrong)? {
            Some(name) => String::from_utf8(name.to_vec()).map_err(|e| damaged(format!("its name: {e}")))?,
            None if clock.is_none() => String::new(),
            None => {
                let name = unique_name();
                meta.insert(LIFE, name.as_str()).map_err(wrong)?;
                database.persist(PersistMode::SyncAll).map_err(wrong)?;
                name
            }
        };
        let mut schemas: HashMap<String, Vec<ViewSchema>> = HashMap::new();
        for entry in meta.prefix("schema/") {
            let (_, value) = entry.into_inner().map_err(wrong)?;
            let schema: ViewSchema = serde_json::from_slice(&value).map_err(|e| damaged(format!("a schema: {e}")))?;
            schemas.entry(schema.view.clone()).or_default().push(schema);
        }
        let store = Shared {
            path: path.to_path_buf(),
            database,
            meta,
            clock: clock.unwrap_or(state.clock),
            life,
            // A job that starts says its own "now"; that of its last life may lie ahead of it.
            now: AtomicI64::new(if clock.is_some() { NO_TIME } else { state.now }),
            newest_before: state.newest,
            newest: Mutex::new(state.newest),
            schemas: RwLock::new(schemas),
            views: Mutex::new(HashMap::new()),
        };
        Ok(OnlineStore { shared: Arc::new(store) })
    }

    /// Declares a view, which may then be written. A view may change its columns from one version of a job to the next:
    /// rows of older versions stay readable, by name.
    ///
    /// # Errors
    /// [`StoreError::Online`] from writing the declaration.
    pub fn define(&self, schema: &ViewSchema) -> Result<View, StoreError> {
        let rows = self.keyspace(&schema.view)?;
        let mut schemas = self.shared.schemas.write().expect("no panics while held");
        let known = schemas.entry(schema.view.clone()).or_default();
        if known.last() != Some(schema) {
            let name = format!("schema/{}/{:08}", schema.view, known.len());
            let text = serde_json::to_vec(schema).expect("a schema is plain data");
            self.shared.meta.insert(name, text).map_err(|source| self.wrong(source))?;
            known.push(schema.clone());
        }
        Ok(View {
            name: schema.view.clone(),
            schema: known.len() as u32 - 1,
            key_columns: schema.entity.len(),
            types: schema.columns.iter().map(|c| c.column_type).collect(),
            rows,
        })
    }

    /// Writes rows of a view, in place of older ones of the same entities (of one entity in `rows` the last counts);
    /// returns how many entities were written. Rows with an older stamp than what the store holds from an earlier life
    /// of the job are skipped. Within one life, the rows of one entity must come in the order of their stamps, as they
    /// do from the worker that owns the entity.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when the columns are not those of the view; [`StoreError::Online`] from writing.
    pub fn put(&self, view: &View, stamp: Stamp, rows: &OnlineRows) -> Result<usize, StoreError> {
        let lengths = rows.keys.iter().map(|c| c.len());
        if rows.keys.len() != view.key_columns || lengths.into_iter().any(|length| length != rows.event_time.len()) {
            return Err(StoreError::Shape {
                what: format!("view {}", view.name),
                reason: format!(
                    "{} key columns over {} rows, not {}",
                    rows.keys.len(),
                    rows.event_time.len(),
                    view.key_columns
                ),
            });
        }
        let keys = encode(&view.name, &rows.keys)?;
        self.put_encoded(
            view,
            stamp,
            &keys.iter().collect::<Vec<_>>(),
            &rows.event_time,
            &rows.valid_until,
            &rows.values,
        )
    }

    /// [`put`](Self::put) for entities whose keys are in their [canonical bytes](crate::ops::key) already.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_encoded(
        &self,
        view: &View,
        stamp: Stamp,
        keys: &[&[u8]],
        event_time: &[EventTime],
        valid_until: &[EventTime],
        values: &[ArrayRef],
    ) -> Result<usize, StoreError> {
        let count = event_time.len();
        if values.len() != view.types.len()
            || valid_until.len() != count
            || values.iter().any(|column| column.len() != count)
        {
            return Err(StoreError::Shape {
                what: format!("view {}", view.name),
                reason: format!("{} feature columns over {count} rows, not {}", values.len(), view.types.len()),
            });
        }
        let refreshed_at = self.now().unwrap_or(NO_TIME);
        let header = |row: usize| Header {
            schema: view.schema,
            stamp,
            event_time: event_time[row],
            valid_until: valid_until[row],
            refreshed_at,
        };
        let packed =
            pack(&view.types, values, count, header).map_err(StoreError::arrow(format!("view {}", view.name)))?;
        self.write(view, stamp, keys.iter().copied().zip(packed.iter().map(Some)))
    }

    /// Removes entities of a view, as of `stamp`; returns how many rows were written over.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn remove(&self, view: &View, stamp: Stamp, keys: &[ArrayRef]) -> Result<usize, StoreError> {
        let keys = encode(&view.name, keys)?;
        self.write(view, stamp, keys.iter().map(|key| (key, None)))
    }

    fn write<'k, 'r>(
        &self,
        view: &View,
        stamp: Stamp,
        rows: impl Iterator<Item = (&'k [u8], Option<&'r [u8]>)>,
    ) -> Result<usize, StoreError> {
        let shared = &self.shared;
        // Within this life the owner of an entity writes in order; only what an earlier life left must be compared.
        let compare = stamp <= shared.newest_before;
        let mut rows = rows.peekable();
        let mut written = 0;
        while rows.peek().is_some() {
            // A batch has one sequence number, so that of two rows of one entity in it either might win: keep the last.
            let chunk: HashMap<&[u8], Option<&[u8]>> = rows.by_ref().take(BATCH_ROWS).collect();
            let mut batch = shared.database.batch();
            for (key, row) in chunk {
                if compare {
                    let held = view.rows.get(key).map_err(|source| self.wrong(source))?;
                    if held.is_some_and(|held| Header::read(&held).is_some_and(|held| held.stamp > stamp)) {
                        continue;
                    }
                }
                match row {
                    Some(row) => batch.insert(&view.rows, key, row),
                    None => batch.remove(&view.rows, key),
                }
                written += 1;
            }
            let newest = {
                let mut newest = shared.newest.lock().expect("no panics while held");
                *newest = stamp.max(*newest);
                *newest
            };
            batch.insert(&shared.meta, "state", self.state(newest).bytes());
            failpoint("online.put");
            batch.commit().map_err(|source| self.wrong(source))?;
        }
        Ok(written)
    }

    /// The newest stamp in the store. A job that starts afresh takes the next generation, a restored one a later
    /// generation by its own count: rows with older stamps than those in the store are skipped.
    pub fn newest(&self) -> Stamp {
        *self.shared.newest.lock().expect("no panics while held")
    }

    /// Names this very database: one that is made in the place of another has another name.
    pub fn life(&self) -> &str {
        &self.shared.life
    }

    /// Tells the store the job's "now", its watermark; ignored by wall-clock jobs. It only moves forward; the
    /// end of all input (`i64::MAX`) is no time and is ignored, so that a finished job's values stay as of its last event.
    pub fn set_now(&self, now: EventTime) {
        if now < EventTime::MAX {
            self.shared.now.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The job's "now"; `None` when an event-time job has not said it yet.
    pub fn now(&self) -> Option<EventTime> {
        match self.shared.clock {
            Clock::Wall => Some(wall_clock()),
            Clock::Event => Some(self.shared.now.load(Ordering::Relaxed)).filter(|now| *now != NO_TIME),
        }
    }

    /// Forces everything written so far, and "now", to disk.
    ///
    /// # Errors
    /// [`StoreError::Online`] from the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        let newest = *self.shared.newest.lock().expect("no panics while held");
        self.shared
            .meta
            .insert("state", self.state(newest).bytes())
            .and_then(|()| self.shared.database.persist(PersistMode::SyncAll))
            .map_err(|source| self.wrong(source))
    }

    /// Answers readers in other processes over a Unix socket, on threads of its own, until the guard is dropped.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the socket cannot be made.
    pub fn serve(&self) -> Result<SocketGuard, StoreError> {
        serve(self.clone())
    }

    /// A reader in this process.
    pub fn reader(&self) -> OnlineReader {
        OnlineReader::here(self.clone())
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The views declared, each with its schemas from the oldest, by name.
    pub(super) fn schemas(&self, view: &str) -> Vec<ViewSchema> {
        self.shared.schemas.read().expect("no panics while held").get(view).cloned().unwrap_or_default()
    }

    /// Names of the views declared, sorted.
    pub(super) fn view_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.shared.schemas.read().expect("no panics while held").keys().cloned().collect();
        names.sort();
        names
    }

    /// Up to `count` keys of a view's rows, in the order of their canonical bytes, behind `after`.
    ///
    /// # Errors
    /// [`StoreError::Online`] from reading.
    pub(super) fn keys_after(
        &self,
        view: &str,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = self.keyspace(view)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = rows.range::<&[u8], _>((from, Bound::Unbounded));
        let key = |entry: fjall::Guard| entry.key().map(|key| key.to_vec()).map_err(|source| self.wrong(source));
        range.take(count).map(key).collect()
    }

    /// Packed rows of entities.
    pub(super) fn rows(&self, view: &str, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let rows = self.keyspace(view)?;
        keys.iter()
            .map(|key| rows.get(key).map(|row| row.map(|row| row.to_vec())).map_err(|source| self.wrong(source)))
            .collect()
    }

    fn keyspace(&self, view: &str) -> Result<Keyspace, StoreError> {
        let mut views = self.shared.views.lock().expect("no panics while held");
        if let Some(rows) = views.get(view) {
            return Ok(rows.clone());
        }
        let rows = self
            .shared
            .database
            .keyspace(&format!("view.{view}"), KeyspaceCreateOptions::default)
            .map_err(|source| self.wrong(source))?;
        views.insert(view.to_string(), rows.clone());
        Ok(rows)
    }

    fn state(&self, newest: Stamp) -> State {
        State { newest, now: self.shared.now.load(Ordering::Relaxed), clock: self.shared.clock }
    }

    fn wrong(&self, source: fjall::Error) -> StoreError {
        StoreError::Online { path: self.shared.path.clone(), source }
    }
}

/// Removes a directory that may be there.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Canonical bytes of keys.
pub(super) fn encode(view: &str, keys: &[ArrayRef]) -> Result<key::EncodedKeys, StoreError> {
    key::encode(keys).map_err(|e| StoreError::Shape { what: format!("view {view}"), reason: e.to_string() })
}

/// What the store remembers beside schemas and rows.
struct State {
    newest: Stamp,
    now: EventTime,
    clock: Clock,
}

impl Default for State {
    fn default() -> Self {
        State { newest: Stamp { generation: 0, tick: 0 }, now: NO_TIME, clock: Clock::Event }
    }
}

impl State {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25);
        bytes.extend_from_slice(&self.newest.generation.to_le_bytes());
        bytes.extend_from_slice(&self.newest.tick.to_le_bytes());
        bytes.extend_from_slice(&self.now.to_le_bytes());
        bytes.push(u8::from(self.clock == Clock::Wall));
        bytes
    }

    fn read(bytes: &[u8]) -> Option<State> {
        let bytes: &[u8; 25] = bytes.try_into().ok()?;
        let word = |i: usize| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().expect("eight bytes"));
        Some(State {
            newest: Stamp { generation: word(0), tick: word(1) },
            now: word(2) as EventTime,
            clock: if bytes[24] == 0 { Clock::Event } else { Clock::Wall },
        })
    }
}

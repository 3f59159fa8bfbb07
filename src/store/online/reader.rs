//! Reads the online store, in this process or through the one that has it open.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{Field, Schema};

use super::ViewSchema;
use super::redis::RedisReader;
use super::socket::{Client, Request, hex, unhex};
use super::store::{OnlineStore, encode};
use super::value::{ColumnType, Header, unpack};
use crate::base::EventTime;
use crate::plan::model::{OnlinePlace, RedisPlan};
use crate::store::StoreError;

/// Reads rows by entity; of its own thread or shared.
pub struct OnlineReader {
    way: Way,
}

enum Way {
    Here(OnlineStore),
    Through(Mutex<Client>),
    Redis(Box<Mutex<RedisReader>>),
}

/// What was found, one entry per key asked for.
#[derive(Clone, Debug)]
pub struct ReadRows {
    /// The view as its job declares it now.
    pub schema: ViewSchema,
    /// The job's clock; `None` when an event-time job has not said it yet.
    pub now: Option<EventTime>,
    /// When the rows were written and until when they hold; `None` where there is no row.
    pub states: Vec<Option<RowState>>,
    /// The feature columns of [`ViewSchema::columns`]; nulls where there is no row.
    pub values: RecordBatch,
}

/// How old a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowState {
    /// Event time of the entity's last event.
    pub event_time: EventTime,
    /// Until when, on the job's clock, the value holds; `i64::MAX` for ever.
    pub valid_until: EventTime,
    /// The job's clock when the row was written; `None` when it had none yet.
    pub refreshed_at: Option<EventTime>,
}

impl OnlineReader {
    /// Opens the store in directory `path`: through the process that has it open, or, when the job is stopped, directly.
    ///
    /// # Errors
    /// [`StoreError::Request`] when there is no store; [`StoreError::Locked`] when a process has it open and does not
    /// answer; [`StoreError::Online`] and [`StoreError::Damaged`] when it cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.join("db").is_dir() {
            return Err(StoreError::Request(format!(
                "there is no online store in {}; run the job that fills it, or correct the path",
                path.display()
            )));
        }
        if let Some(client) = Client::connect(path) {
            return Ok(OnlineReader { way: Way::Through(Mutex::new(client)) });
        }
        match OnlineStore::try_open(path, None) {
            Ok(store) => Ok(OnlineReader::here(store)),
            // The job may just have opened its socket.
            Err(StoreError::Locked { path }) => match Client::connect(&path) {
                Some(client) => Ok(OnlineReader { way: Way::Through(Mutex::new(client)) }),
                None => Err(StoreError::Locked { path }),
            },
            Err(error) => Err(error),
        }
    }

    /// Connects to Redis, where a job's values can be read whether it runs or not.
    ///
    /// # Errors
    /// [`StoreError::Redis`] when the server cannot be reached or refuses the password.
    pub fn redis(plan: &RedisPlan) -> Result<Self, StoreError> {
        Ok(OnlineReader { way: Way::Redis(Box::new(Mutex::new(RedisReader::open(plan)?))) })
    }

    /// Opens the store of a job.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`redis`](Self::redis).
    pub fn of(place: &OnlinePlace) -> Result<Self, StoreError> {
        match place {
            OnlinePlace::Embedded(path) => Self::open(path),
            OnlinePlace::Redis(plan) => Self::redis(plan),
        }
    }

    pub(super) fn here(store: OnlineStore) -> Self {
        OnlineReader { way: Way::Here(store) }
    }

    /// Whether another process answers.
    pub fn is_remote(&self) -> bool {
        !matches!(self.way, Way::Here(_))
    }

    /// Names of the views in the store, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the process that has the store open hangs up.
    pub fn views(&self) -> Result<Vec<String>, StoreError> {
        match &self.way {
            Way::Here(store) => Ok(store.view_names()),
            Way::Through(client) => Ok(client.lock().expect("no panics while held").ask(&Request::Views)?.views),
            Way::Redis(reader) => Ok(reader.lock().expect("no panics while held").fetch("", &[])?.views),
        }
    }

    /// The view as its job declares it now.
    ///
    /// # Errors
    /// [`StoreError::Request`] when there is no such view; otherwise as [`read`](Self::read).
    pub fn schema(&self, view: &str) -> Result<ViewSchema, StoreError> {
        let (schemas, _, _) = self.fetch(view, &[])?;
        Ok(newest(&schemas).clone())
    }

    /// Reads the rows of entities: `keys` holds one column per entity column of the view, in order, of its type or one
    /// that has the same canonical bytes.
    ///
    /// # Errors
    /// [`StoreError::Request`] when there is no such view; [`StoreError::Shape`] when the keys are not its keys;
    /// [`StoreError::Damaged`] when rows make no sense; [`StoreError::Online`] and [`StoreError::Io`] from below.
    pub fn read(&self, view: &str, keys: &[ArrayRef]) -> Result<ReadRows, StoreError> {
        let encoded: Vec<Vec<u8>> = encode(view, keys)?.iter().map(<[u8]>::to_vec).collect();
        let found = self.read_encoded(view, &encoded)?;
        if keys.len() != found.schema.entity.len() {
            return Err(StoreError::Shape {
                what: format!("view {view}"),
                reason: format!("{} key columns instead of {}", keys.len(), found.schema.entity.len()),
            });
        }
        Ok(found)
    }

    /// Up to `count` keys of a view's rows, in the order of their [canonical bytes](crate::ops::key), behind `after`; none
    /// where the store is not open in this process, which cannot list them then.
    ///
    /// # Errors
    /// [`StoreError::Online`] from reading.
    pub fn keys_after(
        &self,
        view: &str,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        match &self.way {
            Way::Here(store) => store.keys_after(view, after, count).map(Some),
            Way::Through(_) | Way::Redis(_) => Ok(None),
        }
    }

    /// [`read`](Self::read) by keys that are in their [canonical bytes](crate::ops::key) already.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_encoded(&self, view: &str, keys: &[Vec<u8>]) -> Result<ReadRows, StoreError> {
        let (schemas, now, rows) = self.fetch(view, keys)?;
        let schema = newest(&schemas).clone();
        let headers: Vec<Option<Header>> =
            rows.iter().map(|row| row.as_deref().map(|row| self.header(row)).transpose()).collect::<Result<_, _>>()?;
        let states = headers.iter().map(|header| {
            header.map(|h| RowState {
                event_time: h.event_time,
                valid_until: h.valid_until,
                refreshed_at: Some(h.refreshed_at).filter(|t| *t != EventTime::MIN),
            })
        });
        let values = self.columns(&schemas, &headers, &rows)?;
        Ok(ReadRows { now, states: states.collect(), values, schema })
    }

    /// As [`read_encoded`](Self::read_encoded), rows as they are stored.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn packed(&self, view: &str, keys: &[Vec<u8>]) -> Result<Fetched, StoreError> {
        self.fetch(view, keys)
    }

    /// Reads through the process that has the store open.
    pub(super) fn through(client: Client) -> Self {
        OnlineReader { way: Way::Through(Mutex::new(client)) }
    }

    fn fetch(&self, view: &str, keys: &[Vec<u8>]) -> Result<Fetched, StoreError> {
        let (schemas, now, rows, views) = match &self.way {
            Way::Here(store) => {
                let schemas = store.schemas(view);
                let rows = if schemas.is_empty() { Vec::new() } else { store.rows(view, keys)? };
                (numbered(schemas), store.now(), rows, store.view_names())
            }
            Way::Redis(reader) => {
                let found = reader.lock().expect("no panics while held").fetch(view, keys)?;
                (found.schemas, found.now, found.rows, found.views)
            }
            Way::Through(client) => {
                let keys = keys.iter().map(|key| hex(key)).collect();
                let request = Request::Read { view: view.into(), keys };
                let answer = client.lock().expect("no panics while held").ask(&request)?;
                let rows = answer.rows.into_iter().map(|row| match row {
                    Some(text) => unhex(&text).map(Some).ok_or_else(|| self.damaged("a row is not hexadecimal")),
                    None => Ok(None),
                });
                (numbered(answer.schemas), answer.now, rows.collect::<Result<_, _>>()?, answer.views)
            }
        };
        if schemas.is_empty() {
            return Err(StoreError::Request(format!(
                "the online store has no view `{view}`; it has {}",
                if views.is_empty() { "none yet".into() } else { views.join(", ") }
            )));
        }
        Ok((schemas, now, rows))
    }

    fn header(&self, row: &[u8]) -> Result<Header, StoreError> {
        Header::read(row).ok_or_else(|| self.damaged("a row has an unknown format"))
    }

    /// The newest schema's columns of rows that may follow older ones.
    fn columns(
        &self,
        schemas: &[(u32, ViewSchema)],
        headers: &[Option<Header>],
        rows: &[Option<Vec<u8>>],
    ) -> Result<RecordBatch, StoreError> {
        let to = newest(schemas);
        let last = schemas.last().map(|(number, _)| *number);
        let bytes: Vec<Option<&[u8]>> = rows.iter().map(Option::as_deref).collect();
        let current = headers.iter().flatten().all(|header| Some(header.schema) == last);
        let columns = if current {
            unpack(&types(to), &bytes).map_err(|reason| self.damaged(&reason))?
        } else {
            self.columns_by_schema(schemas, headers, &bytes)?
        };
        let fields = to.columns.iter().map(|c| Field::new(&c.name, c.column_type.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(StoreError::arrow(format!("view {}", to.view)))
    }

    /// Unpacks rows schema by schema, takes the newest schema's columns by name, and puts the rows in their order again.
    fn columns_by_schema(
        &self,
        schemas: &[(u32, ViewSchema)],
        headers: &[Option<Header>],
        rows: &[Option<&[u8]>],
    ) -> Result<Vec<ArrayRef>, StoreError> {
        let to = newest(schemas);
        let place = |number: u32| schemas.iter().position(|(n, _)| *n == number).unwrap_or(schemas.len());
        let places: Vec<usize> =
            headers.iter().map(|header| header.map_or(schemas.len() - 1, |header| place(header.schema))).collect();
        let number_of = |row: usize| places[row];
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| number_of(*row));
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); to.columns.len()];
        for group in order.chunk_by(|a, b| number_of(*a) == number_of(*b)) {
            let (_, from) =
                schemas.get(number_of(group[0])).ok_or_else(|| self.damaged("a row follows an unknown schema"))?;
            let group: Vec<Option<&[u8]>> = group.iter().map(|row| rows[*row]).collect();
            let columns = unpack(&types(from), &group).map_err(|reason| self.damaged(&reason))?;
            for (wanted, pieces) in to.columns.iter().zip(&mut pieces) {
                let wanted_type = wanted.column_type.data_type();
                let found = from.columns.iter().position(|c| c.name == wanted.name);
                // A column whose type changed beyond a cast is, like a new one, not known of older rows.
                let column = found.and_then(|i| cast(&columns[i], &wanted_type).ok());
                pieces.push(column.unwrap_or_else(|| new_null_array(&wanted_type, group.len())));
            }
        }
        let mut places = vec![0u64; rows.len()];
        for (place, row) in order.iter().enumerate() {
            places[*row] = place as u64;
        }
        let places = UInt64Array::from(places);
        pieces
            .iter()
            .map(|pieces| {
                let pieces: Vec<&dyn arrow::array::Array> = pieces.iter().map(AsRef::as_ref).collect();
                take(&concat(&pieces)?, &places, None)
            })
            .collect::<Result<_, _>>()
            .map_err(StoreError::arrow(format!("view {}", to.view)))
    }

    fn damaged(&self, reason: &str) -> StoreError {
        let path = match &self.way {
            Way::Redis(reader) => return reader.lock().expect("no panics while held").damaged(reason.into()),
            Way::Here(store) => store.path().to_path_buf(),
            Way::Through(_) => "(of the running job)".into(),
        };
        StoreError::Damaged { path, reason: reason.into() }
    }
}

/// The schemas that rows may follow, with their numbers; the job's clock; packed rows.
pub(super) type Fetched = (Vec<(u32, ViewSchema)>, Option<EventTime>, Vec<Option<Vec<u8>>>);

/// Schemas with the numbers by which rows name them in an embedded store.
fn numbered(schemas: Vec<ViewSchema>) -> Vec<(u32, ViewSchema)> {
    (0..).zip(schemas).collect()
}

fn newest(schemas: &[(u32, ViewSchema)]) -> &ViewSchema {
    &schemas.last().expect("a view is declared before it is read").1
}

fn types(schema: &ViewSchema) -> Vec<ColumnType> {
    schema.columns.iter().map(|c| c.column_type).collect()
}

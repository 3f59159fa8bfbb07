//! Reading a job's values without blocking, for those who answer many requests: one connection, many requests on the way.
//!
//! What the job says of itself, its clock and the layouts of its rows, is read again when it is older than
//! [`DESCRIBED_FOR`], in the round trip of the rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Value};

use super::FORMAT;
use super::client::{Endpoint, Trouble, answer, trouble};
use super::reader::schemas;
use crate::base::{EventTime, wall_clock};
use crate::plan::model::RedisPlan;
use crate::store::StoreError;
use crate::store::online::link::{Ask, Layouts, Packed};
use crate::store::online::value::Header;

/// How old the job's description, and so an event-time job's clock, may be.
const DESCRIBED_FOR: Duration = Duration::from_millis(100);

/// A link to the values of a job in Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisLink(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    prefix: String,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Held while connecting, so that one task does.
    connecting: tokio::sync::Mutex<()>,
    described: Mutex<Option<Described>>,
}

/// What the job says of itself.
#[derive(Clone)]
struct Described {
    at: Instant,
    /// The fields that change rarely, to see whether they did.
    lasting: u64,
    wall: bool,
    now: Option<EventTime>,
    views: Arc<HashMap<String, Arc<Layouts>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisLink {
    /// A link; connects when it is first used.
    ///
    /// # Errors
    /// [`StoreError::Redis`] when the plan's references cannot be resolved.
    pub fn new(plan: &RedisPlan) -> Result<RedisLink, StoreError> {
        Ok(RedisLink(Arc::new(Inner {
            endpoint: Endpoint::new(plan)?,
            prefix: plan.prefix.clone(),
            connection: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            described: Mutex::default(),
        })))
    }

    /// The server as it may be shown, and the prefix of the job's keys.
    pub fn address(&self) -> String {
        format!("{}, prefix {}", self.0.endpoint.address(), self.0.prefix)
    }

    /// Reads rows, those of all views in one command.
    ///
    /// # Errors
    /// [`StoreError::Redis`] when the server cannot be reached or does not answer within `patience`; [`StoreError::Request`]
    /// when the job or a view is not there; [`StoreError::RedisDamaged`] when what is there makes no sense.
    pub async fn fetch(&self, asks: &[Ask], patience: Duration) -> Result<Vec<Packed>, StoreError> {
        match tokio::time::timeout(patience, self.fetch_anew(asks, patience)).await {
            Ok(found) => found,
            Err(_) => {
                // Its later answers would be thrown away one by one; and whoever is at its other end may be gone.
                *lock(&self.0.connection) = None;
                let what = format!("no answer within {} ms", patience.as_millis());
                Err(self.0.endpoint.wrong(Trouble { what, passing: true }))
            }
        }
    }

    async fn fetch_anew(&self, asks: &[Ask], patience: Duration) -> Result<Vec<Packed>, StoreError> {
        let mut connection = self.connection(patience).await?;
        let command = self.command(asks);
        let known = lock(&self.0.described).clone().filter(|described| described.at.elapsed() < DESCRIBED_FOR);
        let (described, rows) = match known {
            Some(described) => (described, self.sent(connection.send_packed_command(&command).await)?),
            None => self.describe_and(&mut connection, &command).await?,
        };
        let found = self.found(asks, &described, rows)?;
        let unknown = |packed: &Packed| {
            let headers = packed.rows.iter().flatten().map(|row| Header::read(row));
            headers.flatten().any(|header| packed.layouts.place(header.schema).is_none())
        };
        if !found.iter().any(unknown) {
            return Ok(found);
        }
        // A row of a layout that was declared since.
        let (described, rows) = self.describe_and(&mut connection, &command).await?;
        self.found(asks, &described, rows)
    }

    /// One `MGET` of all rows.
    fn command(&self, asks: &[Ask]) -> Cmd {
        let mut command = redis::cmd("MGET");
        let mut key = Vec::with_capacity(128);
        for ask in asks {
            key.clear();
            key.extend_from_slice(self.0.prefix.as_bytes());
            key.push(b':');
            key.extend_from_slice(ask.view.as_bytes());
            key.push(b':');
            let start = key.len();
            for entity in ask.keys.iter() {
                key.truncate(start);
                key.extend_from_slice(entity);
                command.arg(&key[..]);
            }
        }
        command
    }

    async fn describe_and(
        &self,
        connection: &mut MultiplexedConnection,
        command: &Cmd,
    ) -> Result<(Described, Value), StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(&self.0.prefix).add_command(command.clone());
        let mut answers = connection.send_packed_commands(&pipeline, 0, 2).await.map_err(|e| self.failed(&e))?;
        let rows = answers.pop().unwrap_or(Value::Nil);
        let job = self.sent(Ok(answers.pop().unwrap_or(Value::Nil)))?;
        let job: HashMap<String, String> =
            FromRedisValue::from_redis_value(job).map_err(|error| self.damaged(error.to_string()))?;
        let described = self.described(&job)?;
        *lock(&self.0.described) = Some(described.clone());
        Ok((described, self.sent(Ok(rows))?))
    }

    fn described(&self, job: &HashMap<String, String>) -> Result<Described, StoreError> {
        if job.is_empty() {
            return Err(StoreError::Request(format!(
                "there is no online store in {}; run the job that fills it, or correct the URL or the prefix",
                self.address()
            )));
        }
        if job.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(self.damaged("its layout is of another version of tidemill".into()));
        }
        let lasting = job.iter().filter(|(field, _)| field.starts_with("view:") || field.starts_with("layout:"));
        // Independent of the order in which they come.
        let lasting = lasting.fold(0u64, |sum, (field, text)| {
            let both =
                crate::base::hash_bytes(field.as_bytes()) ^ crate::base::hash_bytes(text.as_bytes()).rotate_left(1);
            sum.wrapping_add(both)
        });
        let before = lock(&self.0.described).clone().filter(|described| described.lasting == lasting);
        let views = match before {
            Some(described) => described.views,
            None => {
                let views = job.iter().filter_map(|(field, json)| Some((field.strip_prefix("view:")?, json)));
                let layouts = views.map(|(view, json)| {
                    let all = schemas(view, json, job).map_err(|what| self.damaged(what))?;
                    Ok((view.to_owned(), Arc::new(Layouts::new(all))))
                });
                Arc::new(layouts.collect::<Result<_, StoreError>>()?)
            }
        };
        let wall = job.get("clock").map(String::as_str) == Some("wall");
        let now = job.get("now").and_then(|now| now.parse().ok());
        Ok(Described { at: Instant::now(), lasting, wall, now, views })
    }

    fn found(&self, asks: &[Ask], described: &Described, rows: Value) -> Result<Vec<Packed>, StoreError> {
        let Value::Array(rows) = rows else {
            return Err(self.damaged("MGET was not answered with a list".into()));
        };
        let mut rows = rows.into_iter();
        let now = if described.wall { Some(wall_clock()) } else { described.now };
        asks.iter()
            .map(|ask| {
                let Some(layouts) = described.views.get(&*ask.view) else {
                    let mut names: Vec<&str> = described.views.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    let names = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
                    return Err(StoreError::Request(format!(
                        "the online store has no view `{}`; it has {names}",
                        ask.view
                    )));
                };
                let rows = rows.by_ref().take(ask.keys.len()).map(|row| match row {
                    Value::BulkString(row) => Ok(Some(row)),
                    Value::Nil => Ok(None),
                    _ => Err(self.damaged("a row is no string".into())),
                });
                let rows: Vec<Option<Vec<u8>>> = rows.collect::<Result<_, _>>()?;
                if rows.len() != ask.keys.len() {
                    return Err(self.damaged("MGET gave fewer rows than were asked for".into()));
                }
                Ok(Packed { layouts: Arc::clone(layouts), now, rows })
            })
            .collect()
    }

    async fn connection(&self, patience: Duration) -> Result<MultiplexedConnection, StoreError> {
        if let Some(connection) = &*lock(&self.0.connection) {
            return Ok(connection.clone());
        }
        let _alone = self.0.connecting.lock().await;
        if let Some(connection) = &*lock(&self.0.connection) {
            return Ok(connection.clone());
        }
        let connection = self.0.endpoint.connect_async(patience).await.map_err(|e| self.failed(&e))?;
        *lock(&self.0.connection) = Some(connection.clone());
        Ok(connection)
    }

    fn sent(&self, outcome: Result<Value, RedisError>) -> Result<Value, StoreError> {
        outcome.and_then(answer).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &RedisError) -> StoreError {
        if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
            *lock(&self.0.connection) = None;
        }
        self.0.endpoint.wrong(trouble(error))
    }

    fn damaged(&self, reason: String) -> StoreError {
        StoreError::RedisDamaged { address: self.address(), reason }
    }
}

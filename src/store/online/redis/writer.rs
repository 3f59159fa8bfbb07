//! Writing: a job's generation, its writers, and what they do while the server is away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::ArrayRef;
use redis::{Cmd, Connection, FromRedisValue, RedisError};

use super::client::{CLUSTER, Endpoint, Trouble, answer, info_field, trouble};
use super::feast::FeastView;
use super::script::{FORGOTTEN, JOIN, MINE, PUT, PUT_FEAST, SUPERSEDED};
use super::{FORMAT, Layout, fingerprint};
use crate::base::{EventTime, failpoint};
use crate::plan::model::{Clock, RedisLayout, RedisPlan};
use crate::store::StoreError;
use crate::store::online::value::{ColumnType, Header, pack};
use crate::store::online::{Stamp, ViewSchema, unique_name};

/// Rows per call at most: a script keeps the server from others, and Lua's stack holds some thousand values.
const CALL_ROWS: usize = 512;
/// The same in Feast's layout, where the server takes much longer over a row.
const FEAST_CALL_ROWS: usize = 128;
/// Bytes per call at which no further row is added.
const CALL_BYTES: usize = 1 << 20;
/// Calls that may be without an answer.
const CALLS_AHEAD: usize = 8;
/// Waits between attempts: from, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A job's place in Redis, claimed for this start of the job. Clones share it.
#[derive(Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

/// Which start of a job this is, where its state counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Names the life of the job's state.
    pub instance: String,
    /// Of two starts the one with the higher number has the state.
    pub number: u64,
}

struct Shared {
    endpoint: Endpoint,
    prefix: String,
    clock: Clock,
    job: String,
    layout: RedisLayout,
    rank: Option<Rank>,
    views: Vec<View>,
    generation: u64,
    put_sha: String,
    /// Changes together with `losses`.
    life: Mutex<String>,
    losses: Arc<AtomicU64>,
    away: AtomicBool,
    superseded: AtomicBool,
}

struct View {
    schema: ViewSchema,
    fingerprint: u32,
    types: Vec<ColumnType>,
    key_start: Vec<u8>,
    feast: Option<FeastView>,
}

/// Rows of a view to write, column-wise; all members have one entry per row.
#[derive(Clone, Debug)]
pub struct RedisRows<'a> {
    /// The view, by its place among those that the store was opened with.
    pub view: usize,
    /// The entities' [canonical bytes](crate::ops::key).
    pub keys: Vec<&'a [u8]>,
    /// Event time of each entity's last event.
    pub event_time: &'a [EventTime],
    /// Until when, on the job's clock, each value holds; `i64::MAX` for ever.
    pub valid_until: &'a [EventTime],
    /// Feature columns, in the order of [`ViewSchema::columns`].
    pub values: &'a [ArrayRef],
}

/// A connection that has joined the job's generation.
struct Link {
    connection: Connection,
}

/// One of the threads that write a job's values. The rows of one entity must all come from one writer.
pub struct RedisWriter {
    store: RedisStore,
    name: String,
    link: Option<Link>,
}

impl RedisStore {
    /// Finds out whether the server can be used, and changes nothing there.
    ///
    /// # Errors
    /// [`StoreError::Redis`] when the server cannot be reached, refuses the password or lacks what is needed.
    pub fn reach(plan: &RedisPlan) -> Result<(), StoreError> {
        let endpoint = Endpoint::new(plan)?;
        greet(&endpoint).map(|_| ()).map_err(|trouble| endpoint.wrong(trouble))
    }

    /// Connects and claims a generation of the job for the writing of `views`: that of its rank among the starts of its
    /// instance; without one the next.
    ///
    /// # Errors
    /// As [`reach`](Self::reach).
    pub fn open(plan: &RedisPlan, clock: Clock, views: &[ViewSchema], rank: Option<Rank>) -> Result<Self, StoreError> {
        let endpoint = Endpoint::new(plan)?;
        let mut shared = Shared {
            endpoint,
            prefix: plan.prefix.clone(),
            clock,
            job: views.first().map(|view| view.job.clone()).unwrap_or_default(),
            layout: plan.layout.clone(),
            views: views.iter().map(|schema| View::new(plan, schema)).collect::<Result<_, _>>()?,
            rank,
            generation: 0,
            put_sha: String::new(),
            life: Mutex::default(),
            losses: Arc::default(),
            away: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
        };
        let (_, joined) = shared.connect(None).map_err(|trouble| shared.endpoint.wrong(trouble))?;
        shared.generation = joined.generation;
        shared.put_sha = joined.put_sha;
        shared.life = Mutex::new(joined.life);
        Ok(RedisStore { shared: Arc::new(shared) })
    }

    /// The generation that this start of the job writes.
    pub fn generation(&self) -> u64 {
        self.shared.generation
    }

    /// Names the life of the values, which ends when the server loses them or may have lost some, and how many
    /// [losses](Self::losses) came before it.
    ///
    /// What was written since a life began, and before it was asked for here, is there as long as the server is in that life.
    pub fn life(&self) -> (String, u64) {
        let life = self.shared.life.lock().unwrap_or_else(PoisonError::into_inner);
        (life.clone(), self.shared.losses.load(Ordering::Acquire))
    }

    /// The address, as it may be shown.
    pub fn address(&self) -> &str {
        self.shared.endpoint.address()
    }

    /// How often the server was found to have lost its values, or to have restarted and perhaps lost some, since the
    /// start: when this grows, every value must be written again.
    pub fn losses(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.losses)
    }

    /// A writer; `name` is its own within the job. It connects when it first writes.
    pub fn writer(&self, name: impl Into<String>) -> RedisWriter {
        RedisWriter { store: self.clone(), name: name.into(), link: None }
    }
}

impl View {
    fn new(plan: &RedisPlan, schema: &ViewSchema) -> Result<View, StoreError> {
        Ok(View {
            fingerprint: fingerprint(schema),
            types: schema.columns.iter().map(|c| c.column_type).collect(),
            key_start: super::row_key(&plan.prefix, &schema.view, b""),
            feast: super::feast_view(&plan.layout, schema)?,
            schema: schema.clone(),
        })
    }
}

/// What joining a generation told.
struct Joined {
    generation: u64,
    life: String,
    put_sha: String,
}

impl Shared {
    /// Connects and joins `generation`, or claims the next.
    fn connect(&self, generation: Option<u64>) -> Result<(Link, Joined), Trouble> {
        let wrong = |error: RedisError| trouble(&error);
        let (mut connection, info) = greet(&self.endpoint)?;
        let load = |script: &str| redis::cmd("SCRIPT").arg("LOAD").arg(script).take();
        let put = match self.layout {
            RedisLayout::Native => PUT,
            RedisLayout::Feast { .. } => PUT_FEAST,
        };
        let put_sha: String = load(put).query(&mut connection).map_err(wrong)?;
        let mut join = redis::cmd("EVAL");
        join.arg(JOIN).arg(1).arg(&self.prefix).arg(generation.map_or_else(String::new, |g| g.to_string()));
        let run_id = info_field(&info, "run_id").unwrap_or_default();
        join.arg(first_generation()).arg(run_id).arg(unique_name());
        let (instance, number) = self.rank.as_ref().map_or(("", 0), |rank| (rank.instance.as_str(), rank.number));
        join.arg(instance).arg(number);
        self.describe(&mut join);
        let (generation, life): (u64, String) = join.query(&mut connection).map_err(|error| match error.code() {
            Some("TWOLAYOUTS") => Trouble {
                what: format!(
                    "two layouts have one fingerprint ({}); rename a column of the view, or give another `prefix`",
                    error.detail().unwrap_or_default()
                ),
                passing: false,
            },
            _ => trouble(&error),
        })?;
        Ok((Link { connection }, Joined { generation, life, put_sha }))
    }

    /// What the job says of itself, as arguments of [`JOIN`].
    fn describe(&self, join: &mut Cmd) {
        let clock = match self.clock {
            Clock::Event => "event",
            Clock::Wall => "wall",
        };
        join.arg("format").arg(FORMAT).arg("job").arg(&self.job).arg("clock").arg(clock);
        join.arg("layout").arg(super::layout_name(&self.layout));
        for View { schema, .. } in &self.views {
            let json = serde_json::to_string(schema).expect("a schema is plain data");
            join.arg(format!("view:{}", schema.view)).arg(json);
        }
        join.arg("layouts");
        for View { schema, fingerprint, .. } in &self.views {
            join.arg(format!("layout:{}:{fingerprint:08x}", schema.view)).arg(Layout::of(schema).json());
        }
    }

    /// Connects for a writer and finds out whether the server still has what was written.
    fn rejoin(&self) -> Result<Link, Trouble> {
        let (link, joined) = self.connect(Some(self.generation))?;
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if *life != joined.life {
            let server = |life: &str| life.split(':').next().map(str::to_owned);
            let restarted = server(&life) != server(&joined.life);
            *life = joined.life;
            self.losses.fetch_add(1, Ordering::Release);
            tracing::warn!(
                address = self.endpoint.address(),
                "redis {}: all current values are written again",
                if restarted { "has restarted" } else { "has lost the job's keys" }
            );
            failpoint("online.lost");
        }
        Ok(link)
    }

    fn note_away(&self, what: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            let address = self.endpoint.address();
            tracing::warn!(address, "redis is away, input pauses until it is back: {what}");
        }
    }

    fn note_back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::warn!(address = self.endpoint.address(), "redis is back");
        }
    }

    fn note_superseded(&self) {
        if !self.superseded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                address = self.endpoint.address(),
                "a later start of the job writes under the prefix `{}`: values of this one no longer replace its own; stop one of the two, or give it another prefix",
                self.prefix
            );
        }
    }
}

/// Connects, and asks who answers.
fn greet(endpoint: &Endpoint) -> Result<(Connection, String), Trouble> {
    let wrong = |error: RedisError| trouble(&error);
    let mut connection = endpoint.connect().map_err(wrong)?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection).map_err(wrong)?;
    if info_field(&info, "redis_mode") == Some("cluster") {
        return Err(Trouble { what: CLUSTER.into(), passing: false });
    }
    Ok((connection, info))
}

impl RedisWriter {
    /// Writes the values of one tick and the job's clock (`None` before it has one), in place of older ones. While the
    /// server is away it goes on trying until `give_up` holds. Tells how many rows were not refused as older; `None` when
    /// it gave up.
    ///
    /// # Errors
    /// [`StoreError::Redis`] for what time does not mend; [`StoreError::Shape`] and [`StoreError::Arrow`] when the rows are
    /// not those of their view.
    pub fn put(
        &mut self,
        stamp: Stamp,
        now: Option<EventTime>,
        rows: &[RedisRows<'_>],
        give_up: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let calls = self.calls(stamp, now, rows)?;
        let mut wait = BACKOFF.0;
        loop {
            match self.attempt(&calls) {
                Ok(written) => {
                    self.store.shared.note_back();
                    return Ok(Some(written));
                }
                Err(trouble) if trouble.passing => {
                    self.link = None;
                    self.store.shared.note_away(&trouble.what);
                    let until = Instant::now() + wait;
                    while Instant::now() < until {
                        if give_up() {
                            return Ok(None);
                        }
                        std::thread::sleep(Duration::from_millis(20).min(wait));
                    }
                    wait = (wait * 2).min(BACKOFF.1);
                }
                Err(trouble) => return Err(self.store.shared.endpoint.wrong(trouble)),
            }
        }
    }

    /// Sends all calls and reads all answers, some calls ahead.
    fn attempt(&mut self, calls: &[Vec<u8>]) -> Result<u64, Trouble> {
        let shared = &self.store.shared;
        // What a server forgot between two calls it may forget again: a few rounds, then it counts as away.
        for _ in 0..3 {
            if self.link.is_none() {
                self.link = Some(shared.rejoin()?);
            }
            let Some(link) = &mut self.link else { continue };
            let (state, written) = link.send(calls).map_err(|error| trouble(&error))?;
            match state {
                FORGOTTEN => self.link = None,
                state => {
                    if state == SUPERSEDED {
                        shared.note_superseded();
                    }
                    return Ok(written);
                }
            }
        }
        Err(Trouble { what: "it loses the job's keys again and again".into(), passing: true })
    }

    /// The calls that write rows, each in Redis's protocol.
    fn calls(&self, stamp: Stamp, now: Option<EventTime>, rows: &[RedisRows<'_>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let shared = &self.store.shared;
        let mut calls: Vec<Vec<u8>> = Vec::new();
        let head = |now: &str| {
            let mut call = Vec::new();
            for text in ["EVALSHA", &shared.put_sha, "1", &shared.prefix, &stamp.generation.to_string(), &self.name] {
                argument(&mut call, text.as_bytes());
            }
            argument(&mut call, stamp.tick.to_string().as_bytes());
            argument(&mut call, now.as_bytes());
            call
        };
        let plain_head = head("");
        for rows in rows {
            let view = &shared.views[rows.view];
            let count = rows.keys.len();
            let lengths = [rows.event_time.len(), rows.valid_until.len()];
            if rows.values.len() != view.types.len()
                || lengths.iter().any(|length| *length != count)
                || rows.values.iter().any(|column| column.len() != count)
            {
                return Err(StoreError::Shape {
                    what: format!("view {}", view.schema.view),
                    reason: format!(
                        "{} feature columns over {count} rows, not {}",
                        rows.values.len(),
                        view.types.len()
                    ),
                });
            }
            let header = |row: usize| Header {
                schema: view.fingerprint,
                stamp,
                event_time: rows.event_time[row],
                valid_until: rows.valid_until[row],
                refreshed_at: now.unwrap_or(EventTime::MIN),
            };
            if let Some(feast) = &view.feast {
                let values = feast
                    .arguments(rows.values, count, header)
                    .map_err(StoreError::arrow(format!("view {}", view.schema.view)))?;
                let mut fields = Vec::new();
                argument(&mut fields, feast.fields().len().to_string().as_bytes());
                feast.fields().iter().for_each(|field| argument(&mut fields, field));
                let width = feast.fields().len();
                let send = |held: usize, body: &[u8]| {
                    let head = [&plain_head[..], &fields].concat();
                    call(&head, HEAD_ARGUMENTS + 1 + width + held * (width + 1), body)
                };
                let (mut body, mut held) = (Vec::new(), 0);
                for (row, key) in rows.keys.iter().enumerate() {
                    // Feast's keys hold no nulls: there is no way to ask for such an entity.
                    let Some(key) = feast.key(key) else { continue };
                    argument(&mut body, &key);
                    values.write(row, &mut body);
                    held += 1;
                    if held == FEAST_CALL_ROWS || body.len() >= CALL_BYTES {
                        calls.push(send(held, &body));
                        (body, held) = (Vec::with_capacity(body.len()), 0);
                    }
                }
                if held > 0 {
                    calls.push(send(held, &body));
                }
                continue;
            }
            let packed = pack(&view.types, rows.values, count, header)
                .map_err(StoreError::arrow(format!("view {}", view.schema.view)))?;
            let (mut body, mut held) = (Vec::new(), 0);
            for (key, row) in rows.keys.iter().zip(packed.iter()) {
                length(&mut body, view.key_start.len() + key.len());
                body.extend_from_slice(&view.key_start);
                body.extend_from_slice(key);
                body.extend_from_slice(b"\r\n");
                argument(&mut body, row);
                held += 1;
                if held == CALL_ROWS || body.len() >= CALL_BYTES {
                    calls.push(call(&plain_head, HEAD_ARGUMENTS + 2 * held, &body));
                    (body, held) = (Vec::with_capacity(body.len()), 0);
                }
            }
            if held > 0 {
                calls.push(call(&plain_head, HEAD_ARGUMENTS + 2 * held, &body));
            }
        }
        // The clock moves when all rows that it holds for are there.
        let now = now.map_or_else(String::new, |now| now.to_string());
        let mut head = head(&now);
        let fields: &[u8] = match shared.layout {
            RedisLayout::Native => &[],
            RedisLayout::Feast { .. } => b"$1\r\n0\r\n",
        };
        head.extend_from_slice(fields);
        calls.push(call(&head, HEAD_ARGUMENTS + usize::from(!fields.is_empty()), &[]));
        Ok(calls)
    }
}

impl Link {
    /// The worst state and the rows written.
    fn send(&mut self, calls: &[Vec<u8>]) -> Result<(i64, u64), RedisError> {
        let (mut worst, mut total) = (MINE, 0);
        let mut take = |connection: &mut Connection| {
            let (state, written) = <(i64, u64)>::from_redis_value(answer(connection.recv_response()?)?)?;
            worst = worst.max(state);
            total += written;
            Ok::<_, RedisError>(())
        };
        for (sent, call) in calls.iter().enumerate() {
            failpoint("online.put");
            self.connection.send_packed_command(call)?;
            if sent >= CALLS_AHEAD {
                take(&mut self.connection)?;
            }
        }
        for _ in 0..calls.len().min(CALLS_AHEAD) {
            take(&mut self.connection)?;
        }
        Ok((worst, total))
    }
}

/// Wall-clock milliseconds since 1970. Counted from there, generations grow also when the server forgets what it had counted,
/// and a process that was stopped before that does not seem newer when it wakes.
fn first_generation() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |since| since.as_millis().try_into().unwrap_or(1))
}

/// Arguments before the rows of a call.
const HEAD_ARGUMENTS: usize = 8;

fn call(head: &[u8], arguments: usize, body: &[u8]) -> Vec<u8> {
    [format!("*{arguments}\r\n").as_bytes(), head, body].concat()
}

fn length(out: &mut Vec<u8>, bytes: usize) {
    out.push(b'$');
    out.extend_from_slice(bytes.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends an argument in Redis's protocol.
pub(super) fn argument(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

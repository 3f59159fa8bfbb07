//! `bench online`: feature values into Redis, beside plain `MSET` of the same bytes by the Redis client alone.
//!
//! Every side writes each entity once per run, 65,536 at a time. The engine's sides pack columns into rows and compare
//! generation and tick; the plain side is handed packed rows and sends them, 500 pairs in each command and eight commands
//! ahead.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use serde::Serialize;

use crate::base::SecretText;
use crate::ops::key::{self, EncodedKeys};
use crate::plan::RedisAddress;
use crate::plan::model::{Clock, RedisPlan};
use crate::store::online::redis::row_key;
use crate::store::online::value::{Header, pack};
use crate::store::online::{ColumnSchema, ColumnType, RedisRows, RedisStore, RedisWriter, Stamp, ViewSchema};

/// Feature columns, all `f64`.
const COLUMNS: usize = 20;
/// Entities in one batch.
const BATCH: usize = 65_536;
/// Pairs in one plain command, and plain commands ahead.
const PLAIN: (usize, usize) = (500, 8);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server, as in a dataflow file. Keys are written under a prefix of their own and removed afterwards.
    pub redis: String,
    /// Entities per run.
    pub entities: usize,
    /// Times each side runs, in turn; the figures are medians.
    pub runs: usize,
}

/// The figures, in million entities per second.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Entities per run.
    pub entities: usize,
    /// Feature columns.
    pub columns: usize,
    /// Bytes of a packed row.
    pub row_bytes: usize,
    /// The engine's writer in the order of ticks, packing included.
    pub engine_m_per_s: f64,
    /// The same where each row must be compared with what is there.
    pub compared_m_per_s: f64,
    /// Plain `MSET` of packed rows.
    pub plain_m_per_s: f64,
    /// Engine over plain.
    pub ratio: f64,
}

struct Batch {
    keys: EncodedKeys,
    times: Vec<i64>,
    values: Vec<ArrayRef>,
}

fn batches(entities: usize) -> anyhow::Result<Vec<Batch>> {
    (0..entities)
        .step_by(BATCH)
        .map(|start| {
            let ids: Vec<i64> = (start..entities.min(start + BATCH)).map(|id| id as i64).collect();
            let values = (0..COLUMNS)
                .map(|c| {
                    Arc::new(Float64Array::from_iter_values(ids.iter().map(|id| (id * 7 + c as i64) as f64 / 3.0)))
                })
                .map(|column| column as ArrayRef)
                .collect();
            let times = ids.clone();
            Ok(Batch { keys: key::encode(&[Arc::new(Int64Array::from(ids)) as ArrayRef])?, times, values })
        })
        .collect()
}

fn write(writer: &mut RedisWriter, stamp: Stamp, batch: &Batch) -> anyhow::Result<()> {
    let rows = RedisRows {
        view: 0,
        keys: batch.keys.iter().collect(),
        event_time: &batch.times,
        valid_until: &batch.times,
        values: &batch.values,
    };
    let written = writer.put(stamp, Some(0), &[rows], &|| true)?.context("redis went away")?;
    ensure!(written == batch.times.len() as u64, "of {} rows {written} were written", batch.times.len());
    Ok(())
}

/// Packed rows and their keys: what the plain side sends.
fn plain_pairs(batch: &Batch, prefix: &str) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let header = |row: usize| Header {
        schema: 0,
        stamp: Stamp { generation: 0, tick: 0 },
        event_time: batch.times[row],
        valid_until: batch.times[row],
        refreshed_at: 0,
    };
    let packed = pack(&[ColumnType::Float64; COLUMNS], &batch.values, batch.times.len(), header)?;
    let keys = batch.keys.iter().map(|key| row_key(prefix, "v", key));
    Ok(keys.zip(packed.iter().map(<[u8]>::to_vec)).collect())
}

fn plain(connection: &mut redis::Connection, pairs: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
    for group in pairs.chunks(PLAIN.0 * PLAIN.1) {
        let mut pipeline = redis::pipe();
        for command in group.chunks(PLAIN.0) {
            pipeline.cmd("MSET");
            for (key, row) in command {
                pipeline.arg(key).arg(row);
            }
            pipeline.ignore();
        }
        pipeline.exec(connection)?;
    }
    Ok(())
}

/// Measures.
///
/// # Errors
/// When the server cannot be reached or refuses something.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let url = SecretText::parse(&options.redis).map_err(anyhow::Error::msg)?;
    let address = RedisAddress::resolve(&url).map_err(anyhow::Error::msg)?;
    // Prefixes that no other run has: every run finds its keys absent, as after a start.
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let prefix = format!("tidemill-bench-{nanos:x}");
    let place = RedisPlan { url, shown: address.to_string(), prefix: prefix.clone() };
    let column = |name: String, data_type| ColumnSchema::new(name, &data_type).context("a type that is held");
    let schema = ViewSchema {
        view: "v".into(),
        entity: vec![column("id".into(), DataType::Int64)?],
        columns: (0..COLUMNS).map(|c| column(format!("f{c}"), DataType::Float64)).collect::<Result<_, _>>()?,
        ttl: None,
        job: "bench".into(),
        job_version: 1,
    };
    let batches = batches(options.entities)?;
    let plain_batches = batches.iter().map(|batch| plain_pairs(batch, &prefix)).collect::<Result<Vec<_>, _>>()?;
    let row_bytes = plain_batches.first().and_then(|pairs| pairs.first()).map_or(0, |(_, row)| row.len());
    let mut connection = plain_connection(&address)?;
    let [mut engine, mut compared, mut bare] = [const { Vec::new() }; 3];
    for _ in 0..options.runs.max(1) {
        // Every side writes over rows that are there: the first only fills.
        for (side, seconds) in [None, Some(&mut engine), Some(&mut compared), Some(&mut bare)].into_iter().enumerate() {
            let store = RedisStore::open(&place, Clock::Event, std::slice::from_ref(&schema), None)?;
            let stamp = |tick: u64| Stamp { generation: store.generation(), tick };
            let mut writer = store.writer("0");
            if side == 2 {
                // A writer that has been at a later tick must look at every row.
                writer.put(stamp(1 << 40), None, &[], &|| true)?;
            }
            let started = Instant::now();
            for (tick, (batch, pairs)) in (1..).zip(batches.iter().zip(&plain_batches)) {
                match side {
                    3 => plain(&mut connection, pairs)?,
                    _ => write(&mut writer, stamp(tick), batch)?,
                }
            }
            if let Some(seconds) = seconds {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
    }
    for pairs in &plain_batches {
        for pairs in pairs.chunks(PLAIN.0) {
            let mut unlink = redis::cmd("UNLINK");
            for (key, _) in pairs {
                unlink.arg(key);
            }
            unlink.exec(&mut connection)?;
        }
    }
    redis::cmd("UNLINK").arg(&prefix).exec(&mut connection)?;
    let rate = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        options.entities as f64 / seconds[seconds.len() / 2] / 1e6
    };
    let (engine_m_per_s, compared_m_per_s, plain_m_per_s) = (rate(&mut engine), rate(&mut compared), rate(&mut bare));
    Ok(Report {
        entities: options.entities,
        columns: COLUMNS,
        row_bytes,
        engine_m_per_s,
        compared_m_per_s,
        plain_m_per_s,
        ratio: engine_m_per_s / plain_m_per_s,
    })
}

pub(super) fn plain_connection(address: &RedisAddress) -> anyhow::Result<redis::Connection> {
    use redis::IntoConnectionInfo;
    let mut settings = redis::RedisConnectionInfo::default().set_db(address.database.into());
    if let Some(username) = &address.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &address.password {
        settings = settings.set_password(password);
    }
    let info = redis::ConnectionAddr::Tcp(address.host.clone(), address.port).into_connection_info()?;
    Ok(redis::Client::open(info.set_redis_settings(settings))?.get_connection()?)
}

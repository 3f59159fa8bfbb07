//! `bench online`: feature values into Redis, beside plain `MSET` of the same bytes by the Redis client alone; and in Feast's
//! layout, beside a plain pipeline of `HSET`.
//!
//! Every side writes each entity once per run, 65,536 at a time. The engine's sides pack columns into rows and compare
//! generation and tick; the plain sides are handed packed rows, or keys and values, and send them: 500 pairs in each `MSET`
//! and eight commands ahead, or 500 `HSET` at a time of the fields that Feast's own writer sends.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use serde::Serialize;

use crate::base::SecretText;
use crate::ops::key::{self, EncodedKeys};
use crate::plan::RedisAddress;
use crate::plan::model::{Clock, RedisLayout, RedisPlan};
use crate::store::online::redis::feast::FeastView;
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
    /// The engine's writer in Feast's layout, in the order of ticks.
    pub feast_m_per_s: f64,
    /// The same where each row must be compared with what is there.
    pub feast_compared_m_per_s: f64,
    /// A plain pipeline of `HSET` of the same keys, fields and values.
    pub plain_hset_m_per_s: f64,
    /// Engine over plain in Feast's layout.
    pub feast_ratio: f64,
}

/// An entity's key and its values, in the order of the fields.
type Hash = (Vec<u8>, Vec<Vec<u8>>);

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

/// Keys and values as Feast's own writer sends them: the features and the event time.
fn plain_hashes(batch: &Batch, view: &FeastView) -> anyhow::Result<Vec<Hash>> {
    let columns: Vec<&Float64Array> = batch.values.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
    let hash = |(row, key): (usize, &[u8])| {
        let value = |column: &&Float64Array| [&[0x29][..], &column.value(row).to_le_bytes()].concat();
        let values = columns.iter().map(value).chain([vec![0x08, 0xb4, 0xbb, 0x83, 0xd8, 0x06]]).collect();
        Some((view.key(key)?, values))
    };
    batch.keys.iter().enumerate().map(hash).collect::<Option<_>>().context("keys without nulls")
}

fn plain_hset(connection: &mut redis::Connection, fields: &[Vec<u8>], hashes: &[Hash]) -> anyhow::Result<()> {
    for group in hashes.chunks(PLAIN.0) {
        let mut pipeline = redis::pipe();
        for (key, values) in group {
            pipeline.cmd("HSET").arg(key);
            for (field, value) in fields.iter().zip(values) {
                pipeline.arg(field).arg(value);
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
    let place =
        RedisPlan { url, shown: address.to_string(), prefix: prefix.clone(), layout: RedisLayout::Native, ca: None };
    let project = prefix.replace('-', "_");
    let feast_place = RedisPlan {
        prefix: format!("{prefix}-feast"),
        layout: RedisLayout::Feast { project: project.clone() },
        ..place.clone()
    };
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
    let view = FeastView::new(&schema, &project).context("types that Feast has")?;
    let hashes = batches.iter().map(|batch| plain_hashes(batch, &view)).collect::<Result<Vec<_>, _>>()?;
    let mut seconds = [const { Vec::new() }; 6];
    for run in 0..options.runs.max(1) {
        // Every side writes over rows that are there: what comes before the first run only fills.
        for side in if run == 0 { vec![0, 3, 0, 1, 2, 3, 4, 5] } else { (0..6).collect() } {
            let place = if side < 3 { &place } else { &feast_place };
            let store = RedisStore::open(place, Clock::Event, std::slice::from_ref(&schema), None)?;
            let stamp = |tick: u64| Stamp { generation: store.generation(), tick };
            let mut writer = store.writer("0");
            if side % 3 == 1 {
                // A writer that has been at a later tick must look at every row.
                writer.put(stamp(1 << 40), None, &[], &|| true)?;
            }
            let started = Instant::now();
            for (tick, (batch, (pairs, hashes))) in (1..).zip(batches.iter().zip(plain_batches.iter().zip(&hashes))) {
                match side {
                    2 => plain(&mut connection, pairs)?,
                    5 => plain_hset(&mut connection, view.fields(), hashes)?,
                    _ => write(&mut writer, stamp(tick), batch)?,
                }
            }
            seconds[side].push(started.elapsed().as_secs_f64());
        }
    }
    let pairs = plain_batches.iter().flatten().map(|(key, _)| key);
    let keys: Vec<&Vec<u8>> = pairs.chain(hashes.iter().flatten().map(|(key, _)| key)).collect();
    for keys in keys.chunks(PLAIN.0) {
        redis::cmd("UNLINK").arg(keys).exec(&mut connection)?;
    }
    redis::cmd("UNLINK").arg(&prefix).arg(&feast_place.prefix).exec(&mut connection)?;
    let [engine_m_per_s, compared_m_per_s, plain_m_per_s, feast_m_per_s, feast_compared_m_per_s, plain_hset_m_per_s] =
        seconds.map(|mut seconds| {
            // The sides that fill come first and are not of the runs.
            let mut seconds = seconds.split_off(seconds.len() - options.runs.max(1));
            seconds.sort_by(f64::total_cmp);
            options.entities as f64 / seconds[seconds.len() / 2] / 1e6
        });
    Ok(Report {
        entities: options.entities,
        columns: COLUMNS,
        row_bytes,
        engine_m_per_s,
        compared_m_per_s,
        plain_m_per_s,
        ratio: engine_m_per_s / plain_m_per_s,
        feast_m_per_s,
        feast_compared_m_per_s,
        plain_hset_m_per_s,
        feast_ratio: feast_m_per_s / plain_hset_m_per_s,
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

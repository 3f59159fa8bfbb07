//! Reading a job's values, whether it runs or not.

use std::collections::HashMap;

use redis::{Connection, RedisError};

use super::client::{Endpoint, trouble};
use super::{FORMAT, Layout, fingerprint, row_key};
use crate::base::{EventTime, wall_clock};
use crate::plan::model::RedisPlan;
use crate::store::StoreError;
use crate::store::online::ViewSchema;

/// A connection for reading.
pub struct RedisReader {
    endpoint: Endpoint,
    prefix: String,
    connection: Connection,
}

/// What is known of a view, and rows of it.
pub struct RedisFound {
    /// The layouts that rows may follow, by fingerprint; the last is the one that is written.
    pub schemas: Vec<(u32, ViewSchema)>,
    pub now: Option<EventTime>,
    pub rows: Vec<Option<Vec<u8>>>,
    /// Names of all views, sorted.
    pub views: Vec<String>,
}

impl RedisReader {
    pub fn open(plan: &RedisPlan) -> Result<Self, StoreError> {
        let endpoint = Endpoint::new(plan)?;
        let connection = endpoint.connect().map_err(|error| endpoint.wrong(trouble(&error)))?;
        Ok(RedisReader { endpoint, prefix: plan.prefix.clone(), connection })
    }

    pub fn address(&self) -> String {
        format!("{}, prefix {}", self.endpoint.address(), self.prefix)
    }

    /// Reads rows of `view`; `schemas` is empty when there is no such view.
    pub fn fetch(&mut self, view: &str, keys: &[Vec<u8>]) -> Result<RedisFound, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(&self.prefix);
        if !keys.is_empty() {
            pipeline.cmd("MGET");
            for key in keys {
                pipeline.arg(row_key(&self.prefix, view, key));
            }
        }
        type Rows = Vec<Option<Vec<u8>>>;
        let asked: Result<(HashMap<String, String>, Rows), RedisError> = match keys {
            [] => pipeline.query(&mut self.connection).map(|(job,)| (job, Vec::new())),
            _ => pipeline.query(&mut self.connection),
        };
        let (job, rows) = asked.map_err(|error| self.endpoint.wrong(trouble(&error)))?;
        if job.is_empty() {
            return Err(StoreError::Request(format!(
                "there is no online store in {}; run the job that fills it, or correct the URL or the prefix",
                self.address()
            )));
        }
        if job.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(self.damaged("its layout is of another version of tidemill".into()));
        }
        let now = match job.get("clock").map(String::as_str) {
            Some("wall") => Some(wall_clock()),
            _ => job.get("now").and_then(|now| now.parse().ok()),
        };
        let mut views: Vec<String> =
            job.keys().filter_map(|field| field.strip_prefix("view:")).map(str::to_owned).collect();
        views.sort_unstable();
        let schemas = match job.get(&format!("view:{view}")) {
            None => Vec::new(),
            Some(json) => schemas(view, json, &job).map_err(|what| self.damaged(what))?,
        };
        Ok(RedisFound { schemas, now, rows, views })
    }

    pub fn damaged(&self, reason: String) -> StoreError {
        StoreError::RedisDamaged { address: self.address(), reason }
    }
}

/// The layouts that rows of a view may follow, by fingerprint, from the hash that describes the job; the last is the one that is
/// written.
///
/// # Errors
/// What cannot be read.
pub(super) fn schemas(
    view: &str,
    current: &str,
    job: &HashMap<String, String>,
) -> Result<Vec<(u32, ViewSchema)>, String> {
    let wrong = |what: &str, error: serde_json::Error| format!("the {what} of view {view}: {error}");
    let current: ViewSchema = serde_json::from_str(current).map_err(|e| wrong("schema", e))?;
    let newest = fingerprint(&current);
    let mut schemas = Vec::new();
    let start = format!("layout:{view}:");
    for (field, json) in job {
        let Some(number) = field.strip_prefix(&start).and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
            continue;
        };
        if number != newest {
            let Layout { entity, columns } = serde_json::from_str(json).map_err(|e| wrong("layout", e))?;
            schemas.push((number, ViewSchema { entity, columns, ..current.clone() }));
        }
    }
    schemas.push((newest, current));
    Ok(schemas)
}

//! The online store: the newest value of every entity and view, embedded in the job's process or in Redis ([`redis`]).
//! What follows is the embedded one, on local disk, with readers in other processes.
//!
//! **Layout.** One key space per view. Key: the entity's canonical bytes ([`crate::ops::key`]). Value: one packed row
//! (see [`value`]), which begins with the stamp (generation, tick) of its writing. A row replaces another only if its
//! stamp is not older, so that a replayed tick never overwrites a newer value, and writing a row twice changes nothing.
//!
//! **One process at a time.** The store locks its directory. The process that has it open answers others over a Unix
//! socket in the same directory ([`OnlineStore::serve`]); [`OnlineReader::open`] finds out which way to go.
//!
//! **Now.** Freshness is judged by the job's clock: the watermark of an event-time job, which the job hands over with
//! [`OnlineStore::set_now`] and which is kept beside the rows, or the wall clock.

mod link;
mod reader;
pub mod redis;
mod socket;
mod store;
#[cfg(test)]
mod tests;
pub mod value;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

pub use link::{Ask, EmbeddedLink, Layouts, Packed};
pub use reader::{OnlineReader, ReadRows, RowState};
pub use redis::{Rank, RedisLink, RedisRows, RedisStore, RedisWriter};
pub use socket::SocketGuard;
pub use store::{OnlineStore, View};
pub use value::ColumnType;

use crate::base::{EventTime, Micros, Tick};

/// What the online store keeps of a view, and how its rows are judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewSchema {
    /// Name of the view.
    pub view: String,
    /// Entity key columns, in the order of the key.
    pub entity: Vec<ColumnSchema>,
    /// Feature columns, without the view's name: `nb_tx_7d`.
    pub columns: Vec<ColumnSchema>,
    /// A value older than this, in microseconds, is not served.
    pub ttl: Option<Micros>,
    /// Name of the job that writes it.
    pub job: String,
    /// Version of that job.
    pub job_version: u32,
}

/// Name and type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSchema {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

impl ColumnSchema {
    /// A column of an Arrow type; `None` when the online store does not hold such values.
    pub fn new(name: impl Into<String>, data_type: &DataType) -> Option<Self> {
        Some(ColumnSchema { name: name.into(), column_type: ColumnType::of(data_type)? })
    }
}

/// A name that no other call gives, in this process or another.
fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{nanos:x}-{:x}-{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// When a row was written; rows of one entity are ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Generation of the job: grows with every restart.
    pub generation: u64,
    /// Tick of the writing.
    pub tick: Tick,
}

/// Rows to write, column-wise; all members have one entry per row.
#[derive(Clone, Debug)]
pub struct OnlineRows {
    /// Entity key columns, in the order of [`ViewSchema::entity`].
    pub keys: Vec<ArrayRef>,
    /// Event time of the entity's last event, microseconds.
    pub event_time: Vec<EventTime>,
    /// Until when, on the job's clock, the value holds; `i64::MAX` for ever.
    pub valid_until: Vec<EventTime>,
    /// Feature columns, in the order of [`ViewSchema::columns`].
    pub values: Vec<ArrayRef>,
}

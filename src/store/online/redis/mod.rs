//! The online store in Redis, in the native layout: one packed value per entity and view.
//!
//! **Keys.** `PREFIX:VIEW:ENTITY` holds a packed row, where `ENTITY` is the entity's canonical bytes
//! ([`crate::ops::key`]), not text. `PREFIX` alone is a hash that describes the job:
//!
//! | field | value |
//! |---|---|
//! | `format` | `1`, the version of this layout |
//! | `job` | name of the job |
//! | `generation` | the newest start of the job, counted up by each start, from the milliseconds since 1970 of the first |
//! | `start` | number and instance of that start, where the job's state counts its starts |
//! | `life` | names the life of the values: the server's run id, and what nobody else has called one |
//! | `clock` | `event` or `wall`: what "now" is |
//! | `now` | an event-time job's clock, microseconds; absent until it has one |
//! | `tick:WRITER` | the newest tick that a writer of this generation has written |
//! | `view:VIEW` | JSON of the [`ViewSchema`] that is written now |
//! | `layout:VIEW:FINGERPRINT` | JSON `{"entity":[…],"columns":[…]}` of each layout that rows may follow |
//!
//! **Values** are the packed rows of [`super::value`]; the header's `schema` is the [`fingerprint`] of the layout, so that
//! rows of several versions of a job may lie side by side.
//!
//! **Order.** A row replaces another only if its stamp (generation, tick) is not older. Rows go by script, some hundred in
//! each call. The script compares row by row, unless the hash shows that there is nothing to compare: the writer is of the
//! newest generation and at its newest tick, and rows of one entity have one writer in a generation, so whatever is there
//! is older. A call that hung in a connection given up, or that comes from an earlier start of the job, fails that test and
//! is compared.
//!
//! **Losses.** A server that restarted (another run id) or was emptied (no `life`) may have lost values: whoever joins next
//! names a new life, the store counts it, and whoever holds the state writes all values again. What was written in a life is
//! there as long as the hash names it, so a process that remembers in which life it told its values needs no other mark, and
//! one that joined and died before it wrote them again has made nothing good. Nothing here expires: ages are judged by readers, by
//! the job's clock. Keys that Redis evicts are not noticed, so the server's policy must be `noeviction`.

mod client;
mod link;
mod reader;
mod script;
#[cfg(test)]
mod tests;
mod writer;

use serde::{Deserialize, Serialize};

pub use link::RedisLink;
pub(super) use reader::RedisReader;
pub use writer::{Rank, RedisRows, RedisStore, RedisWriter};

use super::{ColumnSchema, ViewSchema};
use crate::base::hash_bytes;

/// Version of the layout of keys.
const FORMAT: &str = "1";

/// The part of a view's schema that its packed rows follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    entity: Vec<ColumnSchema>,
    columns: Vec<ColumnSchema>,
}

impl Layout {
    fn of(schema: &ViewSchema) -> Layout {
        Layout { entity: schema.entity.clone(), columns: schema.columns.clone() }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("a layout is plain data")
    }
}

/// Names the layout of a view's packed rows: the low 32 bits of the hash of its JSON. Two layouts of one view with one
/// fingerprint are refused when the second is declared.
pub fn fingerprint(schema: &ViewSchema) -> u32 {
    hash_bytes(Layout::of(schema).json().as_bytes()) as u32
}

/// The key of an entity's row.
pub fn row_key(prefix: &str, view: &str, entity: &[u8]) -> Vec<u8> {
    [prefix.as_bytes(), b":", view.as_bytes(), b":", entity].concat()
}

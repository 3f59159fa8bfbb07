//! Online and offline feature values: Delta tables, the embedded online store, point-in-time reads of both, and topics.
//!
//! * [`offline`] writes Delta tables (parts by any worker, one commit per table and epoch by one of them) and reads them
//!   back through the Delta log.
//! * [`online`] keeps the newest value of every entity in an embedded store and serves it to other processes over a
//!   local socket.
//! * [`topic`] encodes rows of tables as messages and publishes them to Kafka.
//! * [`pit`] joins labels or entities with what the tables had of them at a time: training sets, as Parquet.
//! * [`lookup`] is what `tidemill features get` asks: one entity's features now, or as of a past time.
//!
//! **Invariants.** Nothing here is recovery state: losing a store loses history, never correctness of what the engine
//! computes next. A table is changed by its log alone; a file that no commit names is harmless. Data files of tables are
//! deleted by [`offline::vacuum()`] alone.

mod error;
pub mod lookup;
pub mod offline;
pub mod online;
pub mod pit;
pub mod topic;

pub use error::StoreError;

//! Delta tables on zstd Parquet, sorted within files by entity and time, partitioned by event date.
//!
//! The way of a row: [`TableWriter`] (one per worker and table) buffers batches and writes *parts*, finished Parquet files
//! that no reader of the table sees yet; [`TableCommitter`] (one per table, anywhere) makes the parts of an epoch visible
//! in one Delta commit that carries `txn (application, epoch)`, so that an epoch is committed once, however often it is
//! tried. [`read_table`] reads through the Delta log.
//!
//! Jobs with checkpoints stage parts in an outbox outside of the table ([`WriterOptions::outbox`]), so that nothing enters a
//! table before the manifest that names it; the commit brings them in. [`discard_outboxes_before`] clears what no
//! manifest names.
//!
//! [`compact()`] makes few large files of many small ones, [`vacuum()`] deletes what no reader needs any more; both may be
//! killed anywhere and leave the table right.
//!
//! **Durability.** A part is on disk before [`TableWriter::flush`] returns it; a commit is on disk before
//! [`TableCommitter::commit`] says so.

mod adds;
mod at;
mod by_date;
mod committer;
mod compact;
mod kernel;
mod merge;
mod outbox;
mod part;
mod reader;
mod rows;
mod sort;
mod spec;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod vacuum;
mod writer;

pub(in crate::store) use at::DataFile;
pub use committer::{Outcome, TableCommitter};
pub use compact::{CompactOptions, Compacted, compact};
pub(in crate::store) use merge::Merge;
pub use outbox::{discard_outboxes_before, outbox_name};
pub use part::Part;
pub(in crate::store) use part::{ROW_GROUP_ROWS, properties, sync_directory, unique};
pub use reader::{Latest, TableReader, latest_as_of, read_table};
pub use rows::RowForm;
pub use spec::{TableColumn, TableSpec, table_path};
pub use upkeep::{Extent, Upkeep, UpkeepOptions, keep_up};
pub use vacuum::{VacuumOptions, Vacuumed, vacuum};
pub use writer::{TableWriter, WriterOptions};

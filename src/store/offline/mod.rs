//! Delta tables on zstd Parquet, sorted within files by entity and time, partitioned by event date.
//!
//! The way of a row: [`TableWriter`] (one per worker and table) buffers batches and writes *parts*, finished Parquet files
//! that no reader of the table sees yet; [`TableCommitter`] (one per table, anywhere) makes the parts of an epoch visible
//! in one Delta commit that carries `txn (application, epoch)`, so that an epoch is committed once, however often it is
//! tried. [`read_table`] reads through the Delta log.
//!
//! **Durability.** A part is on disk before [`TableWriter::flush`] returns it; a commit is on disk before
//! [`TableCommitter::commit`] says so.

mod committer;
mod kernel;
mod part;
mod reader;
mod rows;
mod sort;
mod spec;
#[cfg(test)]
mod tests;
mod writer;

pub use committer::{Outcome, TableCommitter};
pub use part::Part;
pub use reader::{Latest, TableReader, latest_as_of, read_table};
pub use rows::RowForm;
pub use spec::{SYSTEM_COLUMNS, TableColumn, TableSpec, system_fields, table_path};
pub use writer::{TableWriter, WriterOptions};

//! Sources, decoding, checks, dead letters.
//!
//! Bottom-up: `file` cuts a file into raw rows, `kafka` fetches messages, `decode` turns them into columns, [`SourceReader`] sends them through the
//! checks (`checks` lists them in their order) and hands on batches of the plan's stream schema with [`DeadLetter`]s beside
//! them. Nothing that a row contains stops a source; what concerns a whole file is an [`IngestError`].

pub mod aligned;
mod avsc;
mod catalog;
mod checks;
mod dead_letter;
mod decode;
mod dedup;
mod error;
mod file;
pub mod generator;
mod kafka;
mod lateness;
mod reader;
mod registry;
mod request;
mod rows;
mod shield;
#[cfg(test)]
mod tests;
pub mod ticks;
mod validate;

pub use avsc::{parse_avsc, read_avsc};
pub use catalog::FileCatalog;
pub use checks::Counts;
pub use dead_letter::{
    DEAD_LETTERS, DeadLetter, DeadLetterKind, KindCounts, dead_letter_batch, dead_letter_schema, row_json,
};
pub use decode::message::{MessageDecoder, Messages, Refused, message_decoder};
pub use dedup::{AheadState, DedupDelta};
pub use error::IngestError;
pub use file::paths::expand;
pub use kafka::{GroupOffsets, Reading, TopicWatch};
pub use lateness::Lateness;
pub use reader::{Decoded, FileState, Polled, ReaderOptions, SourceReader};
pub use registry::{LatestSchema, RegisteredSchema, Registry, RegistryError, RegistryOptions};
pub use request::{RequestReader, RequestRows};
pub use shield::is_shielded;
pub use validate::{NUMBER_END, TIME_END, TIME_MIN};

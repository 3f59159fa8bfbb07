//! Domain-free timely operators and containers.
//!
//! Bottom-up: [`Batch`] is the container that every stream of rows carries; [`key`] says what an entity key is in bytes
//! and which hash it has; [`control`] holds the record that opens and closes a tick on every worker; [`exchange`] moves
//! rows to the worker that owns their key slot; [`order`] puts rows back into event-time order; [`system`] has the columns that
//! every table begins with.

mod batch;
mod columns;
pub mod control;
pub mod exchange;
pub mod key;
pub mod order;
mod origins;
mod slots;
pub mod system;
mod wide;

pub use batch::{Batch, decode_rows, encode_rows, ords, times};
pub use columns::slice_bytes;
pub use slots::{by_slot, encode_rows_tightly, load_rows, save_rows, split_by_slot};

#[cfg(test)]
pub(crate) mod tests;

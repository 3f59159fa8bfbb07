//! The outbox: an epoch's messages in a file, until the epoch is committed and they may be published.
//!
//! An [`OutboxWriter`] takes a worker's messages in the order in which they are to stand in the topics and leaves one file
//! per epoch, an [`OutboxPart`], which the epoch's manifest names. An [`OutboxReader`] gives back those of one slot.
//!
//! **Slots.** Messages are spread over a fixed number of slots, each published by transactions of its own, by
//! [`slot_of_key`] or [`slot_of_row`]: whatever the number of workers, a message is in the same slot.
//!
//! **Order.** The messages of a slot come back in the order appended. Those of one key are in one slot, and within an epoch
//! one worker appends them all, tick by tick: rows are routed to the worker of their key where the plan allows it. So the
//! parts of an epoch may be read one after the other, in any order of the workers: a key's messages keep their order.
//!
//! **Format.** Little-endian. `TMOUTBX1`, blocks, an index, and a tail of 16 bytes: the index's length and CRC-32, `TMOUTEND`.
//! The index has 22 bytes per block: slot (2), messages (4), offset (8), length (4), CRC-32 (4). Blocks lie one after the
//! other without gaps. A message: flags (1: bit 0 has a key, bit 1 has the headers of the message before it in the block), topic (2),
//! lengths (4 each) of key, headers and payload, those that there are; then headers, key, payload. Headers: their number (2),
//! and for each the lengths of name (2) and value (4), name, value.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reader::{OutboxHeaders, OutboxMessage, OutboxReader};
pub use writer::OutboxWriter;

use crate::base::{hash_bytes, hash_u64};

const MAGIC: &[u8; 8] = b"TMOUTBX1";
const END: &[u8; 8] = b"TMOUTEND";
const ENTRY_BYTES: usize = 22;
const TAIL_BYTES: usize = 16;

/// A message has a key.
const KEYED: u8 = 1;
/// A message has the headers of the one before it.
const SAME_HEADERS: u8 = 2;

/// A finished outbox file, as manifests name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxPart {
    /// Whose publisher publishes it.
    pub application: String,
    /// The file, relative to the outbox's directory.
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// CRC-32 of the whole file.
    pub crc32: u32,
    /// Messages in all slots.
    pub messages: u64,
    /// Names of the topics; messages name them by number.
    pub topics: Vec<String>,
    /// Messages in each slot.
    pub slots: Vec<u64>,
}

/// The slot of a message with a key, of `slots`.
pub fn slot_of_key(key: &[u8], slots: u16) -> u16 {
    (hash_bytes(key) % u64::from(slots.max(1))) as u16
}

/// The slot of a message without a key, by what tells its row from others at any number of workers.
pub fn slot_of_row(row: u64, slots: u16) -> u16 {
    (hash_u64(row) % u64::from(slots.max(1))) as u16
}

/// One block in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    slot: u16,
    messages: u32,
    offset: u64,
    length: u32,
    crc32: u32,
}

impl Block {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.messages.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.crc32.to_le_bytes());
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Block {
        let mut cursor = Cursor::new(bytes);
        // The entry's length is fixed: nothing can be missing.
        Block {
            slot: cursor.u16().unwrap_or_default(),
            messages: cursor.u32().unwrap_or_default(),
            offset: cursor.u64().unwrap_or_default(),
            length: cursor.u32().unwrap_or_default(),
            crc32: cursor.u32().unwrap_or_default(),
        }
    }
}

/// Reads numbers and slices; `None` where the bytes end too soon.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let slice = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Name of a finished file.
fn file_name(epoch: u64, name: &str) -> PathBuf {
    Path::new(&format!("{epoch:020}-{name}.outbox")).to_path_buf()
}

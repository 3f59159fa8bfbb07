//! Rows by key slot, as batches and as bytes that outlive the process.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::batch::{Batch, Pick};
use super::columns::collect;
use super::decode_rows;
use super::key::{self, KeyError};
use crate::base::{SLOTS, slot_of};

/// The rows of `batches`, which have one schema, by the slot of their key: slots in order, without those that have no rows,
/// rows in the order given. Without key columns all are of slot 0.
///
/// # Errors
/// When a key column's type cannot be a key.
pub fn split_by_slot(batches: &[RecordBatch], key_columns: &[usize]) -> Result<Vec<(u16, RecordBatch)>, KeyError> {
    let mut slots: Vec<Vec<Batch>> = (0..SLOTS).map(|_| Vec::new()).collect();
    let mut hashes = Vec::new();
    for rows in batches.iter().filter(|rows| rows.num_rows() > 0) {
        if key_columns.is_empty() {
            slots[0].push(Batch::from(rows.clone()));
            continue;
        }
        let columns: Vec<_> = key_columns.iter().map(|c| rows.column(*c).clone()).collect();
        hashes.clear();
        key::hashes(&columns, &mut hashes)?;
        let mut picked = vec![Vec::new(); SLOTS];
        hashes.iter().enumerate().for_each(|(row, hash)| picked[slot_of(*hash)].push(row as u32));
        for (slot, picked) in picked.into_iter().enumerate().filter(|(_, picked)| !picked.is_empty()) {
            slots[slot].push(Batch::picked(rows.clone(), Pick::Rows(picked)));
        }
    }
    let filled = slots.into_iter().zip(0u16..).filter(|(parts, _)| !parts.is_empty());
    Ok(filled.map(|(parts, slot)| (slot, collect(&parts))).collect())
}

/// As [`split_by_slot`], each slot's rows as bytes for [`load_rows`]. Does not need the thread that owns the rows.
///
/// # Errors
/// When a key column's type cannot be a key.
pub fn by_slot(batches: &[RecordBatch], key_columns: &[usize]) -> Result<Vec<(u16, Vec<u8>)>, KeyError> {
    let slots = split_by_slot(batches, key_columns)?;
    Ok(slots.into_iter().map(|(slot, rows)| (slot, save_rows(&rows))).collect())
}

/// Rows as one Arrow IPC stream behind its CRC-32: Arrow's reader may panic on bytes that are damaged.
pub fn save_rows(rows: &RecordBatch) -> Vec<u8> {
    let body = encode_rows_tightly(rows);
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// As [`encode_rows`](super::encode_rows), with buffers padded to 8 bytes and not to 64: a slot's rows are often few.
/// [`decode_rows`] reads both.
pub fn encode_rows_tightly(rows: &RecordBatch) -> Vec<u8> {
    let write = || -> Result<Vec<u8>, ArrowError> {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), rows.schema_ref(), options)?;
        writer.write(rows)?;
        writer.into_inner()
    };
    write().expect("an Arrow batch in memory always encodes as IPC")
}

/// Reads what [`save_rows`] wrote.
///
/// # Errors
/// When the bytes are not such rows.
pub fn load_rows(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let wrong = |what: &str| ArrowError::IpcError(what.to_owned());
    let (crc, body) = bytes.split_first_chunk::<4>().ok_or_else(|| wrong("the rows are cut short"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(wrong("the rows are damaged: the checksum does not match"));
    }
    decode_rows(body)
}

//! Checkpoints of a view's state: what changed since the last one, frozen at once and written a slice at a time.
//!
//! **Stamps.** Each record has a stamp of two bits. The stamp of what changes in this epoch alternates between 1 and 2 from
//! freeze to freeze, that of what is written and unchanged between 0 and 3, slot by slot, when a freeze writes the slot anew; so a
//! freeze changes a few numbers, and every record with any other stamp is *pending*: to be written as it was at the freeze. The
//! first thing that is about to change a pending record writes it; the rest is written slot by slot. Of a busy key of which
//! nothing but rows is written, the first change notes the numbers instead: its rows stay until its slot's turn, and are written
//! then; a row that comes among them has those behind it copied first. Two more bits say
//! whether rows changed or only what the online store was told, and that no freeze has written the record yet.
//!
//! **Bytes.** A slot's bytes (see [`codec`]) hold its items in any order; an item replaces what is known of its key. What
//! answers can depend on is written: rows, tiles, lifetime sums, the timers of online values. Running sums and wedges over
//! rows are made anew. Of a busy key that only got new rows these alone are written.

mod codec;
mod freeze;
mod import;
#[cfg(test)]
mod tests;

pub(super) use freeze::{Changes, Stamp};

use super::layout::Layout;
use crate::base::hash_bytes;

/// A key that is no more.
const GONE: u8 = 0;
/// The whole of a sparse key.
const SMALL: u8 = 1;
/// The whole of a busy key.
const DENSE: u8 = 2;
/// Rows of a busy key from one on; those before are known.
const MORE: u8 = 3;
/// Only what the online store was told of a key.
const TOLD: u8 = 4;
/// The whole of a busy key that is held by rows though its view has tiles.
const BY_ROWS: u8 = 5;
const FORM: u8 = 7;
/// The online store has not been told of the key's last change.
const DIRTY: u8 = 1 << 3;
/// A time is set at which the key's values change by themselves.
const DUE: u8 = 1 << 4;
/// Where the number of the item's unit of time is.
const UNIT_SHIFT: u8 = 5;
/// Units in which times of rows are told.
const UNITS: [i64; 3] = [1, 1_000, 1_000_000];

/// A number that differs between views whose snapshots cannot be exchanged.
pub(super) fn fingerprint(layout: &Layout, words: bool) -> u64 {
    let inputs: Vec<_> = layout.inputs.iter().map(|i| (i.kind, i.data_type.to_string(), i.word)).collect();
    let windows: Vec<_> = layout.windows.iter().map(|w| (w.width, w.grain)).collect();
    let pairs: Vec<_> = layout.pairs.iter().map(|p| (p.window, p.input, p.level)).collect();
    let extrema: Vec<_> = layout.extrema.iter().map(|e| (e.window, e.input, e.min, e.max)).collect();
    let shape = (inputs, windows, pairs, extrema, &layout.lasts, layout.delay, layout.keep, layout.keep_dense);
    hash_bytes(format!("{shape:?} {:?} {words}", layout.ord).as_bytes())
}

//! From key to record: one small open-addressing table per key slot, so that each grows alone and quickly.
//!
//! A bucket is one word: the low 32 bits of the key's hash, and the record's handle. The home of a hash in its table is
//! its lowest bits, so a table grows without looking at records.

use crate::base::{Large, LargeVec, SLOTS, prefetch, slot_of};

/// Where a record is: its size class in the top four bits, its block below.
pub(super) type Handle = u32;

const EMPTY: u64 = u64::MAX;

struct Table {
    /// A power of two of buckets, or none.
    buckets: LargeVec<u64>,
    len: u32,
}

/// The tables of all slots.
pub(super) struct Index {
    tables: Vec<Table>,
    len: usize,
}

/// A bucket found or made.
#[derive(Clone, Copy)]
pub(super) struct Bucket {
    slot: u32,
    at: u32,
}

impl Index {
    pub(super) fn new() -> Self {
        Index { tables: (0..SLOTS).map(|_| Table::default()).collect(), len: 0 }
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.tables.iter().map(|t| t.buckets.capacity() * 8).sum::<usize>() + self.tables.len() * size_of::<Table>()
    }

    /// Asks for the home bucket of a hash.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        let table = &self.tables[slot_of(hash)];
        prefetch(table.buckets.as_ptr().wrapping_add(hash as usize & table.buckets.len().wrapping_sub(1)));
    }

    /// The handle of the first bucket with this hash, without a look at the record.
    #[inline(always)]
    pub(super) fn guess(&self, hash: u64) -> Option<Handle> {
        let table = &self.tables[slot_of(hash)];
        if table.buckets.is_empty() {
            return None;
        }
        let mask = table.buckets.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let bucket = table.buckets[at];
            if bucket == EMPTY {
                return None;
            }
            if bucket >> 32 == hash & 0xffff_ffff {
                return Some(bucket as u32);
            }
            at = (at + 1) & mask;
        }
    }

    /// The bucket of the record that `is_it`, if there is one.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(Handle) -> bool) -> Option<(Bucket, Handle)> {
        let slot = slot_of(hash);
        let table = &self.tables[slot];
        if table.buckets.is_empty() {
            return None;
        }
        let mask = table.buckets.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let bucket = table.buckets[at];
            if bucket == EMPTY {
                return None;
            }
            if bucket >> 32 == hash & 0xffff_ffff && is_it(bucket as u32) {
                return Some((Bucket { slot: slot as u32, at: at as u32 }, bucket as u32));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a record whose key is not there yet.
    pub(super) fn insert(&mut self, hash: u64, handle: Handle) {
        let slot = slot_of(hash);
        let table = &mut self.tables[slot];
        if (table.len as usize + 1) * 4 > table.buckets.len() * 3 {
            table.grow();
        }
        table.len += 1;
        self.len += 1;
        table.place((hash & 0xffff_ffff) << 32 | u64::from(handle));
    }

    /// Points the bucket of a record at another.
    pub(super) fn replace(&mut self, hash: u64, old: Handle, new: Handle) {
        if let Some((bucket, _)) = self.find(hash, |handle| handle == old) {
            let word = &mut self.tables[bucket.slot as usize].buckets[bucket.at as usize];
            *word = *word & !0xffff_ffff | u64::from(new);
        }
    }

    /// Removes the bucket of a record.
    pub(super) fn remove(&mut self, hash: u64, handle: Handle) {
        let Some((bucket, _)) = self.find(hash, |found| found == handle) else {
            return;
        };
        let table = &mut self.tables[bucket.slot as usize];
        let mask = table.buckets.len() - 1;
        let mut hole = bucket.at as usize;
        let mut at = hole;
        // Backward shift: a later bucket of the run moves into the hole unless that would put it before its home.
        loop {
            at = (at + 1) & mask;
            let word = table.buckets[at];
            if word == EMPTY {
                break;
            }
            let home = (word >> 32) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                table.buckets[hole] = word;
                hole = at;
            }
        }
        table.buckets[hole] = EMPTY;
        table.len -= 1;
        self.len -= 1;
        if table.len == 0 {
            table.buckets = LargeVec::new_in(Large);
        }
    }

    /// The handles of a slot.
    pub(super) fn slot(&self, slot: usize) -> impl Iterator<Item = Handle> {
        self.tables[slot].buckets.iter().filter(|bucket| **bucket != EMPTY).map(|bucket| *bucket as u32)
    }
}

fn emptied(capacity: usize) -> LargeVec<u64> {
    let mut buckets = LargeVec::with_capacity_in(capacity, Large);
    buckets.resize(capacity, EMPTY);
    buckets
}

impl Default for Table {
    fn default() -> Self {
        Table { buckets: emptied(0), len: 0 }
    }
}

impl Table {
    fn grow(&mut self) {
        let capacity = (self.buckets.len() * 2).max(8);
        let old = std::mem::replace(&mut self.buckets, emptied(capacity));
        for word in old.into_iter().filter(|word| *word != EMPTY) {
            self.place(word);
        }
    }

    fn place(&mut self, word: u64) {
        let mask = self.buckets.len() - 1;
        let mut at = (word >> 32) as usize & mask;
        while self.buckets[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.buckets[at] = word;
    }
}

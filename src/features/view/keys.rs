//! Entity keys of a batch, and the bytes of keys and texts that do not fit a word.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder};
use arrow::datatypes::DataType;

use super::ViewError;
use crate::base::{hash_bytes, hash_u64, hash_words};
use crate::ops::key::{self, EncodedKeys};

/// The keys of a batch.
#[derive(Default)]
pub(super) struct Keys {
    /// Hash per row.
    pub(super) hashes: Vec<u64>,
    /// The key itself where keys are words.
    words: Vec<u64>,
    bytes: Option<EncodedKeys>,
    /// Rows that have no entity: a null among its columns.
    none: Option<arrow::buffer::BooleanBuffer>,
}

/// One key.
#[derive(Clone, Copy)]
pub(super) enum Key<'a> {
    Word(u64),
    Bytes(&'a [u8]),
}

impl Key<'_> {
    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        match self {
            Key::Word(word) => hash_u64(word),
            Key::Bytes(bytes) => hash_bytes(bytes),
        }
    }
}

impl Keys {
    /// Reads the keys of a batch; the buffers of an earlier batch are used again.
    pub(super) fn read(&mut self, columns: &[ArrayRef], words: bool) -> Result<(), ViewError> {
        self.hashes.clear();
        self.words.clear();
        self.bytes = None;
        self.none = None;
        if words {
            key::words(&columns[0], &mut self.words);
            self.hashes.extend_from_slice(&self.words);
            hash_words(&mut self.hashes);
        } else {
            let bytes = key::encode(columns)?;
            self.hashes.extend(bytes.iter().map(hash_bytes));
            self.bytes = Some(bytes);
        }
        if columns.iter().any(|c| c.null_count() > 0) {
            let rows = self.hashes.len();
            let mut none = BooleanBufferBuilder::new(rows);
            (0..rows).for_each(|row| none.append(columns.iter().any(|c| c.is_null(row))));
            self.none = Some(none.finish());
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> Key<'_> {
        match &self.bytes {
            None => Key::Word(self.words[row]),
            Some(bytes) => Key::Bytes(bytes.get(row)),
        }
    }

    /// Whether a row has no entity.
    #[inline(always)]
    pub(super) fn is_none(&self, row: usize) -> bool {
        self.none.as_ref().is_some_and(|none| none.value(row))
    }
}

/// Whether keys of these types are words, or an error when they cannot be keys.
pub(super) fn are_words(types: &[DataType]) -> Result<bool, ViewError> {
    match types.iter().find(|t| !key::is_supported(t)) {
        Some(bad) => Err(key::KeyError::Unsupported(bad.clone()).into()),
        None => Ok(key::is_word(types)),
    }
}

/// Canonical bytes of a word key.
pub(super) fn bytes_of_word(word: u64) -> [u8; 9] {
    // The canonical encoding of an integer in `ops::key`: its tag, then big-endian with the sign bit flipped.
    let mut bytes = [1; 9];
    bytes[1..].copy_from_slice(&(word ^ 1 << 63).to_be_bytes());
    bytes
}

/// Byte strings by number.
#[derive(Default)]
pub(super) struct Names {
    list: Vec<Box<[u8]>>,
    free: Vec<u64>,
    bytes: usize,
}

impl Names {
    pub(super) fn add(&mut self, name: &[u8]) -> u64 {
        self.bytes += name.len();
        match self.free.pop() {
            Some(id) => {
                self.list[id as usize] = name.into();
                id
            }
            None => {
                self.list.push(name.into());
                self.list.len() as u64 - 1
            }
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, id: u64) -> &[u8] {
        &self.list[id as usize]
    }

    pub(super) fn release(&mut self, id: u64) {
        self.bytes -= self.list[id as usize].len();
        self.list[id as usize] = Box::default();
        self.free.push(id);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.list.capacity() * size_of::<Box<[u8]>>()
    }
}

/// Texts that entries refer to, each kept once and counted.
#[derive(Default)]
pub(super) struct Texts {
    ids: HashMap<Box<[u8]>, u64>,
    names: Names,
    uses: Vec<u32>,
    /// Released in this batch; a number is not given anew before the batch's answers are out.
    released: Vec<u64>,
}

impl Texts {
    /// The number of a text, with one more use.
    pub(super) fn acquire(&mut self, text: &[u8]) -> u64 {
        if let Some(id) = self.ids.get(text) {
            self.uses[*id as usize] += 1;
            return *id;
        }
        let id = self.names.add(text);
        self.ids.insert(text.into(), id);
        if id as usize == self.uses.len() {
            self.uses.push(0);
        }
        self.uses[id as usize] = 1;
        id
    }

    pub(super) fn get(&self, id: u64) -> &[u8] {
        self.names.get(id)
    }

    /// Takes one use back at the next [`Self::settle`].
    pub(super) fn release(&mut self, id: u64) {
        self.released.push(id);
    }

    /// Forgets texts that have no use left.
    pub(super) fn settle(&mut self) {
        for id in std::mem::take(&mut self.released) {
            let uses = &mut self.uses[id as usize];
            *uses -= 1;
            if *uses == 0 {
                self.ids.remove(self.names.get(id));
                self.names.release(id);
            }
        }
    }

    /// Number of texts in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn bytes(&self) -> usize {
        2 * self.names.bytes() + self.ids.capacity() * 32 + self.uses.capacity() * 4
    }
}

//! A key slot's state as bytes, to move between workers and to survive them.
//!
//! Little-endian words: a version, a fingerprint of the view's shape, the number of keys, then each key with its form. Only
//! what answers can depend on is written: rows, tiles, lifetime sums. Running sums and wedges over rows are made anew.

use super::ViewError;
use super::dense::Dense;
use super::index::Handle;
use super::keys::Key;
use super::layout::{Kind, Layout, NULL_TEXT};
use super::small;
use super::state::{Bounds, ViewState, release};
use super::value::{Any, Term, sort_key, term, widen};
use crate::base::{hash_bytes, slot_of};
use crate::features::numeric::Accumulator;

const VERSION: u64 = 1;
const SMALL: u64 = 0;
const DENSE: u64 = 1;

impl ViewState {
    /// The keys of a slot, `0..SLOTS`, as bytes; the state keeps them.
    pub fn export_slot(&self, slot: usize) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        let mut handles: Vec<Handle> = self.index.slot(slot).collect();
        // By key, so that the bytes do not depend on where records lie.
        handles.sort_by_key(|a| self.key_bytes(*a));
        out.word(VERSION);
        out.word(fingerprint(&self.layout, self.words));
        out.word(handles.len() as u64);
        for handle in handles {
            out.bytes(&self.key_bytes(handle));
            match Self::place(handle) {
                (Some(class), block) => self.export_small(self.small[class].get(block), &mut out),
                (None, block) => {
                    if let Some(dense) = &self.dense[block as usize] {
                        self.export_dense(dense, &mut out);
                    }
                }
            }
        }
        out.0
    }

    /// Forgets the keys of a slot, which another worker owns from now on.
    pub fn clear_slot(&mut self, slot: usize) {
        let handles: Vec<Handle> = self.index.slot(slot).collect();
        handles.into_iter().for_each(|handle| self.remove(handle));
        self.texts.settle();
    }

    /// Takes in the keys of a slot that [`Self::export_slot`] wrote. Keys already here are replaced.
    ///
    /// # Errors
    /// When the bytes are damaged or of a view of another shape. Keys read before the damage stay.
    pub fn import_slot(&mut self, bytes: &[u8]) -> Result<(), ViewError> {
        let mut input = Reader { bytes };
        if input.word()? != VERSION {
            return Err(bad("it is of another version"));
        }
        if input.word()? != fingerprint(&self.layout, self.words) {
            return Err(bad("its view had other inputs or windows"));
        }
        for _ in 0..input.word()? {
            let key = input.bytes()?.to_vec();
            let word = if self.words {
                Some(u64::from_le_bytes(key.as_slice().try_into().map_err(|_| bad("a key is not a word"))?))
            } else {
                None
            };
            let key = word.map_or(Key::Bytes(&key), Key::Word);
            let hash = key.hash();
            if let Some(handle) = self.find(key, hash) {
                self.remove(handle);
            }
            match input.word()? {
                SMALL => self.import_small(key, hash, &mut input)?,
                DENSE => self.import_dense(key, hash, &mut input)?,
                other => return Err(bad(&format!("there is no form {other} of a key"))),
            }
        }
        self.texts.settle();
        if input.bytes.is_empty() { Ok(()) } else { Err(bad("bytes are left over")) }
    }

    fn key_bytes(&self, handle: Handle) -> Vec<u8> {
        let word = self.key_word(handle);
        if self.words { word.to_le_bytes().to_vec() } else { self.names.get(word).to_vec() }
    }

    fn remove(&mut self, handle: Handle) {
        let key = self.key_word(handle);
        let hash = self.hash_of(key);
        debug_assert!(slot_of(hash) < crate::base::SLOTS);
        self.index.remove(hash, handle);
        let Self { layout, small, dense, chunks, texts, .. } = self;
        match Self::place(handle) {
            (Some(class), block) => {
                let record = small[class].get_mut(block);
                small::entries(layout, record).chunks_exact(layout.stride).for_each(|e| release(layout, texts, e));
                record[1] = small::FREE;
                small[class].release(block);
            }
            (None, block) => {
                if let Some(mut dense) = dense[block as usize].take() {
                    for at in dense.queue.first..dense.queue.end {
                        release(layout, texts, dense.queue.get(layout, chunks, at));
                    }
                    dense.queue.clear(chunks);
                    self.dense_free.push(block);
                }
            }
        }
        if !self.words {
            self.names.release(key);
        }
    }

    fn export_entry(&self, entry: &[u64], out: &mut Writer) {
        entry.iter().for_each(|word| out.word(*word));
        for input in self.layout.inputs.iter().filter(|i| i.kind == Kind::Bytes) {
            if entry[input.word] != NULL_TEXT {
                out.bytes(self.texts.get(entry[input.word]));
            }
        }
    }

    fn import_entry(&mut self, input: &mut Reader<'_>) -> Result<Vec<u64>, ViewError> {
        let mut entry = (0..self.layout.stride).map(|_| input.word()).collect::<Result<Vec<_>, _>>()?;
        for i in self.layout.inputs.iter().filter(|i| i.kind == Kind::Bytes) {
            if entry[i.word] != NULL_TEXT {
                entry[i.word] = self.texts.acquire(input.bytes()?);
            }
        }
        Ok(entry)
    }

    fn export_small(&self, record: &[u64], out: &mut Writer) {
        let layout = &self.layout;
        out.word(SMALL);
        // Lifetime sums follow the head words as they are.
        record[layout.base_at..layout.entries_at].iter().for_each(|word| out.word(*word));
        out.word(small::count(record) as u64);
        for entry in small::entries(layout, record).chunks_exact(layout.stride) {
            self.export_entry(entry, out);
        }
    }

    fn import_small(&mut self, key: Key<'_>, hash: u64, input: &mut Reader<'_>) -> Result<(), ViewError> {
        let base =
            (self.layout.base_at..self.layout.entries_at).map(|_| input.word()).collect::<Result<Vec<_>, _>>()?;
        let mut handle = self.find_or_make(key, hash);
        if let (Some(class), block) = Self::place(handle) {
            let (from, to) = (self.layout.base_at, self.layout.entries_at);
            self.small[class].get_mut(block)[from..to].copy_from_slice(&base);
        }
        for _ in 0..input.word()? {
            let entry = self.import_entry(input)?;
            // Before every head, so that nothing is absorbed or let go yet.
            handle = self.insert_at::<Any>(hash, handle, &entry, i64::MIN);
        }
        self.mark_imported(handle);
        Ok(())
    }

    /// What was told of a key elsewhere is not known here: tell it again.
    fn mark_imported(&mut self, handle: Handle) {
        match Self::place(handle) {
            (Some(class), block) => super::state::mark(&mut self.refresh, self.small[class].get_mut(block)),
            (None, block) => {
                if let Some(dense) = &mut self.dense[block as usize] {
                    dense.mark(&mut self.refresh);
                }
            }
        }
    }

    fn export_dense(&self, dense: &Dense, out: &mut Writer) {
        let layout = &self.layout;
        out.word(DENSE);
        out.word(dense.head as u64);
        out.word(dense.newest as u64);
        out.word(dense.absorbed);
        let first = dense.first_needed(layout);
        out.word(dense.waiting - first);
        out.word(dense.queue.end - first);
        for at in first..dense.queue.end {
            self.export_entry(dense.queue.get(layout, &self.chunks, at), out);
        }
        dense.base_sums(layout, &self.chunks).iter().for_each(|sums| out.sums(sums));
        dense.base.iter().for_each(|e| out.pair(*e));
        for tiles in &dense.tiles {
            out.word(tiles.heads.len() as u64);
            tiles.heads.iter().for_each(|h| out.pair((h.0, h.1 as i64)));
            tiles.sums.iter().for_each(|sums| out.sums(sums));
            tiles.extrema.iter().for_each(|e| out.pair(*e));
        }
        for (_, wedge) in layout.wedges.iter().zip(dense.wedges.iter()).filter(|(spec, _)| spec.track.is_some()) {
            out.word(wedge.items().len() as u64);
            wedge.items().for_each(|item| out.pair(item));
        }
    }

    fn import_dense(&mut self, key: Key<'_>, hash: u64, input: &mut Reader<'_>) -> Result<(), ViewError> {
        let mut dense = Dense::new(&self.layout, 0);
        dense.head = input.word()? as i64;
        dense.newest = input.word()? as i64;
        dense.absorbed = input.word()?;
        let (waiting, rows) = (input.word()?, input.word()?);
        if waiting > rows {
            return Err(bad("more rows wait than there are"));
        }
        for _ in 0..rows {
            let entry = self.import_entry(input)?;
            dense.queue.push::<Any>(&self.layout, &mut self.chunks, &entry);
        }
        dense.waiting = waiting;
        let layout = &self.layout;
        let read: Result<(), ViewError> = (|| {
            for pair in &layout.life_pairs {
                dense.sums[*pair] = input.sums()?;
            }
            for e in 0..layout.life_extrema.len() {
                dense.base[e] = input.pair()?;
                dense.life[e] = dense.base[e];
            }
            for (tiles, track) in dense.tiles.iter_mut().zip(&layout.tracks) {
                let count = input.count(16)?;
                for _ in 0..count {
                    let (start, rows) = input.pair()?;
                    tiles.heads.push_back((start, rows as u64));
                }
                for _ in 0..count * track.inputs.len() {
                    tiles.sums.push_back(input.sums()?);
                }
                for _ in 0..count * track.extrema.len() {
                    tiles.extrema.push_back(input.pair()?);
                }
            }
            for (_, wedge) in layout.wedges.iter().zip(dense.wedges.iter_mut()).filter(|(spec, _)| spec.track.is_some())
            {
                for _ in 0..input.count(16)? {
                    let (time, value) = input.pair()?;
                    wedge.push(time, value);
                }
            }
            Ok(())
        })();
        if let Err(error) = read {
            dense.queue.clear(&mut self.chunks);
            return Err(error);
        }
        dense.rebuild(layout, &self.chunks);
        let mut bounds = Bounds::new(layout);
        bounds.set(layout, dense.head);
        dense.leave::<Any>(layout, &self.chunks, &bounds.list);
        dense.key = match key {
            Key::Word(word) => word,
            Key::Bytes(bytes) => self.names.add(bytes),
        };
        let handle = self.add_dense(dense);
        self.index.insert(hash, handle);
        self.mark_imported(handle);
        Ok(())
    }
}

impl Dense {
    /// Makes running sums and wedges from the rows in the queue and from the tiles; lifetime sums hold their base.
    fn rebuild(&mut self, layout: &Layout, pool: &super::slab::Slab) {
        for at in self.queue.first..self.waiting {
            let entry = self.queue.get(layout, pool, at);
            for w in &layout.exact {
                for p in &layout.windows[*w].pairs {
                    let pair = layout.pairs[*p];
                    let term: Term = term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level);
                    super::value::add::<Any>(&mut self.sums[*p], pair.level, term);
                }
            }
            for (spec, wedge) in
                layout.wedges.iter().zip(self.wedges.iter_mut()).filter(|(spec, _)| spec.track.is_none())
            {
                if let Some(key) = sort_key::<Any>(layout, &layout.inputs[spec.input], entry) {
                    wedge.push(entry[0] as i64, if spec.max { !key } else { key });
                }
            }
            for (i, e) in layout.life_extrema.iter().enumerate() {
                if let Some(key) = sort_key::<Any>(layout, &layout.inputs[layout.extrema[*e].input], entry) {
                    widen(&mut self.life[i], key);
                }
            }
        }
        for (tiles, track) in self.tiles.iter_mut().zip(&layout.tracks) {
            for (i, w) in track.windows.iter().enumerate() {
                tiles.inside[i] = (0, tiles.heads.iter().map(|h| h.1).sum());
                for p in &layout.windows[*w].pairs {
                    let place = track.place(layout.pairs[*p].input);
                    for sums in tiles.sums.iter().skip(place).step_by(track.inputs.len().max(1)) {
                        self.sums[*p].merge(sums);
                    }
                }
            }
        }
    }
}

fn bad(what: &str) -> ViewError {
    ViewError::Snapshot { what: what.to_owned() }
}

/// A number that differs between views whose snapshots cannot be exchanged.
fn fingerprint(layout: &Layout, words: bool) -> u64 {
    let inputs: Vec<_> = layout.inputs.iter().map(|i| (i.kind, i.data_type.to_string(), i.word)).collect();
    let windows: Vec<_> = layout.windows.iter().map(|w| (w.width, w.grain)).collect();
    let pairs: Vec<_> = layout.pairs.iter().map(|p| (p.window, p.input, p.level)).collect();
    let extrema: Vec<_> = layout.extrema.iter().map(|e| (e.window, e.input, e.min, e.max)).collect();
    let shape = (inputs, windows, pairs, extrema, &layout.lasts, layout.delay, layout.keep, layout.keep_dense);
    hash_bytes(format!("{shape:?} {:?} {words}", layout.ord).as_bytes())
}

struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn pair(&mut self, pair: (i64, i64)) {
        self.word(pair.0 as u64);
        self.word(pair.1 as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn sums(&mut self, sums: &Accumulator) {
        sums.to_words().into_iter().for_each(|word| self.word(word));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ViewError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| bad("it ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u64, ViewError> {
        Ok(self.take(8)?.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn pair(&mut self) -> Result<(i64, i64), ViewError> {
        Ok((self.word()? as i64, self.word()? as i64))
    }

    fn bytes(&mut self) -> Result<&'a [u8], ViewError> {
        let length = self.word()?;
        self.take(usize::try_from(length).map_err(|_| bad("a length is too large"))?)
    }

    /// A count of things of at least `size` bytes each.
    fn count(&mut self, size: usize) -> Result<usize, ViewError> {
        let count = self.word()?;
        if count > (self.bytes.len() / size) as u64 {
            return Err(bad("a count is larger than what follows"));
        }
        Ok(count as usize)
    }

    fn sums(&mut self) -> Result<Accumulator, ViewError> {
        let mut words = [0; Accumulator::WORDS];
        for word in &mut words {
            *word = self.word()?;
        }
        Ok(Accumulator::from_words(words))
    }
}

//! Taking in what a freeze wrote.

use super::super::ViewError;
use super::super::dense::Dense;
use super::super::index::Handle;
use super::super::keys::Key;
use super::super::layout::{Kind, Layout, NULL_TEXT};
use super::super::slab::Slab;
use super::super::small;
use super::super::state::{Bounds, ViewState, release};
use super::super::value::{Any, add, sort_key, term, widen};
use super::codec::{Reader, bad};
use super::freeze::{Rows, entry_bytes_min};
use super::{BY_ROWS, DENSE, DIRTY, DUE, FORM, GONE, MORE, SMALL, TOLD, UNIT_SHIFT, UNITS};
use crate::base::{Large, LargeBox, slot_of};
use crate::features::numeric::Accumulator;

/// Numbers of rows and their sums stay below this, so that nothing overflows that is made of a damaged one.
const COUNT_MAX: u64 = 1 << 48;

impl ViewState {
    /// Takes in one slot's bytes of [`Self::write_frozen`]: those of the last freeze that wrote it anew first (or of the first
    /// freeze of all), then those of the later ones in their order. A key in a later one replaces the key, adds rows to it or removes it.
    /// The state may be another worker's or another run's, of a view of the same shape; keys taken in count as written and
    /// unchanged, so that the next freeze need not write them anew.
    ///
    /// What the online store was told comes with the keys: a key is told again when it changed or its time comes. Where
    /// the bytes come from a run without an online store, all are told.
    ///
    /// # Errors
    /// When the bytes are damaged, of another slot, of a view of another shape, or of a freeze that adds to one that was
    /// not taken in. Keys read before the fault stay; the state must not be used any more. When frozen keys are still to
    /// be written nothing is taken in.
    pub fn import(&mut self, slot: u16, bytes: &[u8]) -> Result<(), ViewError> {
        if self.frozen() {
            let what = "a slot cannot be taken in while frozen keys are still to be written".to_owned();
            return Err(ViewError::Freeze { what });
        }
        let mut input = Reader::open(bytes, self.changes.fingerprint())?;
        let mut result = Ok(());
        while result.is_ok() && !input.is_empty() {
            result = self.import_item(usize::from(slot), &mut input);
        }
        self.texts.settle();
        result
    }

    fn import_item(&mut self, slot: usize, input: &mut Reader<'_>) -> Result<(), ViewError> {
        let tag = input.byte()?;
        let unit = UNITS.get(usize::from(tag >> UNIT_SHIFT)).copied().ok_or_else(|| bad("there is no such unit"))?;
        let key = if self.words { Key::Word(input.signed()? as u64) } else { Key::Bytes(input.text()?) };
        let hash = key.hash();
        if slot_of(hash) != slot {
            return Err(bad("a key is of another slot"));
        }
        let due = if tag & DUE != 0 { input.time()? } else { i64::MAX };
        let found = self.find(key, hash);
        let form = tag & FORM;
        if let (GONE | SMALL | DENSE | BY_ROWS, Some(handle)) = (form, found) {
            self.remove(handle, hash);
        }
        let handle = match (form, found) {
            (GONE, _) => return Ok(()),
            (SMALL, _) => self.import_small(key, hash, unit, input)?,
            (DENSE, _) => self.import_dense(key, hash, unit, false, input)?,
            (BY_ROWS, _) if self.layout.by_rows.is_some() => self.import_dense(key, hash, unit, true, input)?,
            (MORE, Some(handle)) => self.import_more(handle, unit, input)?,
            (TOLD, Some(handle)) => handle,
            (MORE | TOLD, None) => return Err(bad("it adds to a key that no earlier one holds")),
            (other, _) => return Err(bad(&format!("there is no form {other} of a key"))),
        };
        self.set_stamp(handle, self.changes.clean(slot));
        self.set_told(handle, tag & DIRTY != 0 || !input.refreshed, due);
        Ok(())
    }

    /// Sets what the online store was told of a key, where there is one.
    fn set_told(&mut self, handle: Handle, dirty: bool, due: i64) {
        let key = self.key_word(handle);
        let Some(refresh) = &mut self.refresh else { return };
        if dirty {
            refresh.dirty.push(key);
        }
        if due != i64::MAX {
            refresh.set_timer(due, key);
        }
        match Self::place(handle) {
            (Some(class), block) => small::set_told(self.small[class].get_mut(block), dirty, due),
            (None, block) => {
                if let Some(dense) = &mut self.dense[block as usize] {
                    dense.dirty = dirty;
                    dense.due = due;
                }
            }
        }
    }

    fn remove(&mut self, handle: Handle, hash: u64) {
        let key = self.key_word(handle);
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

    /// The rows that come next, one after another.
    fn import_entries(&mut self, unit: i64, count: usize, input: &mut Reader<'_>) -> Result<Vec<u64>, ViewError> {
        let stride = self.layout.stride;
        let mut entries = vec![0; count * stride];
        let mut rows = Rows { unit, time: input.origin(), ord: 0 };
        for at in 0..count {
            if let Err(error) = self.import_entry(&mut rows, input, &mut entries[at * stride..(at + 1) * stride]) {
                entries.chunks_exact(stride).take(at).for_each(|entry| release(&self.layout, &mut self.texts, entry));
                return Err(error);
            }
        }
        Ok(entries)
    }

    #[inline(always)]
    fn import_entry(&mut self, rows: &mut Rows, input: &mut Reader<'_>, entry: &mut [u64]) -> Result<(), ViewError> {
        let Self { layout, texts, .. } = self;
        rows.time = rows.time.wrapping_add(input.signed()?.wrapping_mul(rows.unit));
        entry[0] = rows.time as u64;
        if let Some(ord) = layout.ord {
            rows.ord = rows.ord.wrapping_add(input.signed()? as u64);
            entry[ord] = rows.ord;
        }
        if let Some(mask) = layout.mask {
            entry[mask] = input.number()?;
        }
        for i in &layout.inputs {
            if i.kind != Kind::Bytes {
                entry[i.word] = match i.kind {
                    Kind::Float => input.float()?,
                    Kind::Narrow => input.narrow()? as u64,
                    Kind::Wide => input.signed()? as u64,
                    _ => input.number()?,
                };
            }
        }
        // Texts come last, for then no number read can leave them acquired in vain.
        for i in layout.inputs.iter().filter(|i| i.kind == Kind::Bytes) {
            entry[i.word] = match input.optional_text() {
                Ok(Some(text)) => texts.acquire(text),
                Ok(None) => NULL_TEXT,
                Err(error) => {
                    let earlier = layout.inputs.iter().filter(|e| e.kind == Kind::Bytes && e.word < i.word);
                    earlier.filter(|e| entry[e.word] != NULL_TEXT).for_each(|e| texts.release(entry[e.word]));
                    return Err(error);
                }
            };
        }
        Ok(())
    }

    fn add_name(&mut self, key: Key<'_>) -> u64 {
        match key {
            Key::Word(word) => word,
            Key::Bytes(bytes) => self.names.add(bytes),
        }
    }

    fn import_small(
        &mut self,
        key: Key<'_>,
        hash: u64,
        unit: i64,
        input: &mut Reader<'_>,
    ) -> Result<Handle, ViewError> {
        let (mut base_rows, mut sums, mut extrema) = (0, Vec::new(), Vec::new());
        if self.layout.forever {
            base_rows = input.below(COUNT_MAX)?;
            for _ in 0..self.layout.life_pairs.len() {
                sums.push(read_sums(input)?);
            }
            for _ in 0..self.layout.life_extrema.len() {
                extrema.push(input.pair()?);
            }
        }
        let count = input.count(entry_bytes_min(&self.layout))?;
        let class = self.small.iter().position(|s| small::capacity(&self.layout, 8 * s.lines()) >= count.max(1));
        let class = class.ok_or_else(|| bad("a sparse key has too many rows"))?;
        let entries = self.import_entries(unit, count, input)?;
        let word = self.add_name(key);
        let Self { layout, small, .. } = self;
        let block = small[class].alloc();
        let record = small[class].get_mut(block);
        small::init(layout, record, word);
        small::set_base_rows(layout, record, base_rows);
        sums.into_iter().enumerate().for_each(|(i, s)| small::set_base_sums(layout, record, i, s));
        extrema.into_iter().enumerate().for_each(|(i, e)| small::set_base_extrema(layout, record, i, e));
        small::fill(layout, record, &entries);
        let handle = Self::handle(Some(class), block);
        self.index.insert(hash, handle);
        Ok(handle)
    }

    fn import_dense(
        &mut self,
        key: Key<'_>,
        hash: u64,
        unit: i64,
        by_rows: bool,
        input: &mut Reader<'_>,
    ) -> Result<Handle, ViewError> {
        let head = Head::read(input)?;
        let (mut dense, entries) = self.read_dense(&head, head.first, unit, by_rows, input)?;
        for entry in entries.chunks_exact(self.layout.stride) {
            dense.queue.push::<Any>(&self.layout, &mut self.chunks, entry);
        }
        dense.key = self.add_name(key);
        self.finish_dense(&mut dense);
        let handle = self.add_dense(dense);
        self.index.insert(hash, handle);
        Ok(handle)
    }

    /// Adds rows to a busy key.
    fn import_more(&mut self, handle: Handle, unit: i64, input: &mut Reader<'_>) -> Result<Handle, ViewError> {
        let head = Head::read(input)?;
        let known = head.first.saturating_add(input.below(COUNT_MAX)?);
        let fits = |dense: &Dense| dense.queue.first <= head.first && known <= dense.queue.end;
        let (block, by_rows) = match Self::place(handle) {
            (None, block) => match self.dense[block as usize].as_deref().filter(|dense| fits(dense)) {
                Some(dense) => (block, dense.by_rows),
                None => return Err(bad("it adds rows to a key whose earlier rows are not there")),
            },
            _ => return Err(bad("it adds rows to a key whose earlier rows are not there")),
        };
        let (mut new, entries) = self.read_dense(&head, known, unit, by_rows, input)?;
        let Self { layout, dense, chunks, texts, .. } = self;
        let Some(old) = &mut dense[block as usize] else { return Ok(handle) };
        let layout = layout.of(old);
        // Rows after all others are added to the sums there are, which is cheap however many rows there were before.
        let adds = layout.tracks.is_empty()
            && layout.keep_dense.is_some()
            && known == old.queue.end
            && old.waiting <= new.waiting
            && old.head <= new.head;
        let gone = (old.queue.first..head.first).chain(known..old.queue.end);
        if adds {
            for entry in entries.chunks_exact(layout.stride) {
                old.queue.push::<Any>(layout, chunks, entry);
            }
            let mut bounds = Bounds::new(layout);
            bounds.set(layout, new.head);
            old.catch_up(layout, chunks, new.waiting, new.head, &bounds.list);
            let trailing = |i: usize| layout.windows[layout.exact[i]].width.is_some();
            if old.inside.iter().enumerate().any(|(i, cursor)| cursor.at < head.first && trailing(i)) {
                return Err(bad("rows are missing that a window holds"));
            }
            gone.for_each(|at| release(layout, texts, old.queue.get(layout, chunks, at)));
            let end = old.queue.end;
            old.queue.cut(chunks, head.first, end);
            (old.newest, old.absorbed, old.written) = (new.newest, new.absorbed, end);
            old.base = new.base;
        } else {
            gone.for_each(|at| release(layout, texts, old.queue.get(layout, chunks, at)));
            new.key = old.key;
            new.queue = std::mem::take(&mut old.queue);
            new.queue.cut(chunks, head.first, known);
            for entry in entries.chunks_exact(layout.stride) {
                new.queue.push::<Any>(layout, chunks, entry);
            }
            self.finish_dense(&mut new);
            self.dense[block as usize] = Some(LargeBox::new_in(new, Large));
        }
        Ok(handle)
    }

    /// What is written of a busy key but for its rows, and its rows from number `from`.
    fn read_dense(
        &mut self,
        head: &Head,
        from: u64,
        unit: i64,
        by_rows: bool,
        input: &mut Reader<'_>,
    ) -> Result<(Dense, Vec<u64>), ViewError> {
        let count = input.count(entry_bytes_min(&self.layout))?;
        let waiting = input.below(COUNT_MAX)?;
        let end = from + count as u64;
        if waiting > end - head.first {
            return Err(bad("more rows wait than there are"));
        }
        let entries = self.import_entries(unit, count, input)?;
        let layout = if by_rows { self.layout.rows() } else { &self.layout };
        let mut dense = Dense::starting(layout, head.first);
        dense.by_rows = by_rows;
        dense.head = head.head;
        dense.newest = head.newest;
        dense.absorbed = head.absorbed;
        dense.waiting = end - waiting;
        let read = self.read_sums(&mut dense, input);
        if let Err(error) = read {
            let stride = self.layout.stride;
            entries.chunks_exact(stride).for_each(|entry| release(&self.layout, &mut self.texts, entry));
            return Err(error);
        }
        Ok((dense, entries))
    }

    fn read_sums(&self, dense: &mut Dense, input: &mut Reader<'_>) -> Result<(), ViewError> {
        let layout = self.layout.of(dense);
        for pair in &layout.life_pairs {
            dense.sums[*pair] = read_sums(input)?;
        }
        for e in 0..layout.life_extrema.len() {
            dense.base[e] = input.pair()?;
            dense.life[e] = dense.base[e];
        }
        for (tiles, track) in dense.tiles.iter_mut().zip(&layout.tracks) {
            let count = input.count(2 + track.inputs.len() * Accumulator::WORDS + 2 * track.extrema.len())?;
            let mut number = 0i64;
            for at in 0..count {
                let step = input.signed()?;
                if at > 0 && step <= 0 {
                    return Err(bad("tiles are out of order"));
                }
                let next = number.checked_add(step).and_then(|n| Some((n, n.checked_mul(track.grain)?)));
                let (next, start) = next.ok_or_else(|| bad("a tile is beyond all time"))?;
                number = next;
                tiles.heads.push((start, input.below(COUNT_MAX)?));
            }
            for _ in 0..count * track.inputs.len() {
                tiles.sums.push(read_sums(input)?);
            }
            for _ in 0..count * track.extrema.len() {
                tiles.extrema.push(input.pair()?);
            }
        }
        for (_, wedge) in layout.wedges.iter().zip(dense.wedges.iter_mut()).filter(|(spec, _)| spec.track.is_some()) {
            for _ in 0..input.count(2)? {
                let time = input.time()?;
                wedge.push(time, input.signed()?);
            }
        }
        Ok(())
    }

    /// Makes what is not written of a busy key.
    fn finish_dense(&self, dense: &mut Dense) {
        let layout = self.layout.of(dense);
        dense.rebuild(layout, &self.chunks);
        let mut bounds = Bounds::new(layout);
        bounds.set(layout, dense.head);
        dense.leave::<Any>(layout, &self.chunks, &bounds.list);
        dense.written = dense.queue.end;
    }
}

/// The numbers at the beginning of a busy key.
struct Head {
    head: i64,
    newest: i64,
    absorbed: u64,
    first: u64,
}

impl Head {
    fn read(input: &mut Reader<'_>) -> Result<Self, ViewError> {
        Ok(Head {
            head: input.time()?,
            newest: input.time()?,
            absorbed: input.below(COUNT_MAX)?,
            first: input.below(COUNT_MAX)?,
        })
    }
}

fn read_sums(input: &mut Reader<'_>) -> Result<Accumulator, ViewError> {
    let sums = input.sums()?;
    if sums.count() >= COUNT_MAX {
        return Err(bad("a count is larger than can be"));
    }
    Ok(sums)
}

impl Dense {
    /// Makes running sums and wedges from the rows in the queue and from the tiles; lifetime sums hold their base.
    fn rebuild(&mut self, layout: &Layout, pool: &Slab) {
        for at in self.queue.first..self.waiting {
            let entry = self.queue.get(layout, pool, at);
            for w in &layout.exact {
                for p in &layout.windows[*w].pairs {
                    let pair = layout.pairs[*p];
                    let term = term::<Any>(layout, &layout.inputs[pair.input], entry, pair.level);
                    add::<Any>(&mut self.sums[*p], pair.level, term);
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

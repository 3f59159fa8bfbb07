//! What changed since the last freeze, and the writing of what is frozen.

use std::collections::BTreeSet;

use super::super::ViewError;
use super::super::dense::Dense;
use super::super::index::Handle;
use super::super::keys::Key;
use super::super::layout::{Kind, Layout, NULL_TEXT};
use super::super::slab::Slab;
use super::super::small;
use super::super::state::ViewState;
use super::codec::Writer;
use super::{BY_ROWS, DENSE, DIRTY, DUE, GONE, MORE, SMALL, TOLD, UNIT_SHIFT, UNITS};
use crate::base::{SLOTS, SlotRange, slot_of};

/// What is known of a record's changes: the stamp of its epoch and two flags.
pub(in super::super) type Stamp = u8;

/// The bits that say in which epoch a record changed.
const EPOCH: Stamp = 3;
/// Its rows changed in that epoch, not only what the online store was told.
const ROWS: Stamp = 4;
/// No freeze has written it yet.
const NEW: Stamp = 8;

/// Keys written between asking for a key's bucket and using it.
const AHEAD_BUCKET: usize = 32;
/// Keys written between asking for a record and using it.
const AHEAD_RECORD: usize = 16;

/// Changes of a view's keys since the last freeze, and what is frozen.
pub(in super::super) struct Changes {
    /// Whether changes are tracked at all.
    on: bool,
    /// Stamp of what changes in this epoch.
    current: Stamp,
    /// Stamp of what is written and unchanged, by slot.
    clean: Vec<Stamp>,
    /// Changes of this epoch by slot.
    since: Vec<Slot>,
    /// Changes up to the freeze by slot; between freezes empty, kept for its memory.
    before: Vec<Slot>,
    /// What is written of each slot and not given out.
    out: Vec<Writer>,
    /// Busy keys by slot that have changed since the freeze and are still to be written.
    held: Vec<Vec<Held>>,
    frozen: Option<Frozen>,
    fingerprint: u64,
}

/// How far the writing of a freeze has come.
#[derive(Clone, Copy)]
struct Frozen {
    /// Of these slots all keys, not only those that changed.
    anew: SlotRange,
    /// The next slot to write.
    next: usize,
    /// What times are told from.
    origin: i64,
}

/// What is written of a busy key but for the bytes of its rows, as of one moment.
#[derive(Clone, Copy)]
struct Numbers {
    told: (bool, i64),
    head: i64,
    newest: i64,
    absorbed: u64,
    /// The first row that is needed, the first to write, the first that waits, and the end.
    first: u64,
    from: u64,
    waiting: u64,
    end: u64,
}

/// A busy key as a freeze found it.
struct Held {
    block: u32,
    numbers: Numbers,
    tail: Tail,
}

/// Rows before which others have come since the freeze, as they were.
struct Tail {
    /// The number of the first; those before it are where they were.
    from: u64,
    entries: Vec<u64>,
}

impl Tail {
    /// No row has come before another.
    fn none(numbers: &Numbers) -> Self {
        Tail { from: numbers.end, entries: Vec::new() }
    }
}

/// A slot's changes in one epoch.
#[derive(Default)]
struct Slot {
    /// Key words of records that changed or were made. Some may be gone again.
    keys: Vec<u64>,
    gone: Gone,
}

/// Keys that were written once and are no more; one that is made again leaves.
#[derive(Default)]
struct Gone {
    words: BTreeSet<u64>,
    names: BTreeSet<Box<[u8]>>,
}

impl Gone {
    fn is_empty(&self) -> bool {
        self.words.is_empty() && self.names.is_empty()
    }
}

impl Changes {
    /// Tracks changes of a view with this fingerprint, or nothing.
    pub(in super::super) fn new(on: bool, fingerprint: u64) -> Self {
        let slots = || if on { (0..SLOTS).map(|_| Slot::default()).collect() } else { Vec::new() };
        Changes {
            on,
            current: u8::from(on),
            clean: vec![0; SLOTS],
            since: slots(),
            before: slots(),
            out: if on { (0..SLOTS).map(|_| Writer::default()).collect() } else { Vec::new() },
            held: if on { (0..SLOTS).map(|_| Vec::new()).collect() } else { Vec::new() },
            frozen: None,
            fingerprint,
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Stamp of a record of a slot that is written and unchanged.
    pub(super) fn clean(&self, slot: usize) -> Stamp {
        self.clean[slot]
    }

    /// Whether a record of a slot must be written before it changes.
    #[inline(always)]
    fn is_pending(&self, stamp: Stamp, slot: usize) -> bool {
        let epoch = stamp & EPOCH;
        epoch != self.current && epoch != self.clean[slot]
    }

    /// Whether all keys of a slot are frozen, not only those that changed.
    fn is_anew(&self, slot: usize) -> bool {
        self.frozen.is_some_and(|frozen| frozen.anew.contains(slot))
    }

    /// The stamp of a key made now.
    pub(in super::super) fn made(&mut self, key: Key<'_>, hash: u64) -> Stamp {
        if !self.on {
            return 0;
        }
        let slot = slot_of(hash);
        let gone = &mut self.since[slot].gone;
        if !gone.is_empty() {
            match key {
                Key::Word(word) => gone.words.remove(&word),
                Key::Bytes(bytes) => gone.names.remove(bytes),
            };
        }
        self.clean[slot] | NEW
    }

    /// Bytes held.
    pub(in super::super) fn bytes(&self) -> usize {
        let slots = self.since.iter().chain(&self.before);
        slots.map(|s| s.keys.capacity() * 8 + s.gone.words.len() * 16 + s.gone.names.len() * 64).sum::<usize>()
            + self.out.iter().map(|w| w.bytes.capacity()).sum::<usize>()
            + self.held.iter().map(|h| h.capacity() * size_of::<Held>()).sum::<usize>()
    }

    /// A row is about to come among those of a busy key that are still to be written: keeps a copy of those behind it.
    #[inline(never)]
    pub(in super::super) fn keep_tail(
        &mut self,
        slot: usize,
        block: u32,
        dense: &Dense,
        layout: &Layout,
        chunks: &Slab,
        entry: &[u64],
    ) {
        let Some(Held { numbers, tail, .. }) = self.held[slot].iter_mut().find(|held| held.block == block) else {
            return;
        };
        let ord = layout.ord.map_or(0, |ord| entry[ord]);
        let at = dense.queue.search(layout, chunks, entry[0] as i64, ord).max(numbers.from);
        if at < tail.from {
            let more = dense.queue.parts(layout, chunks, at, tail.from).flatten().copied();
            tail.entries.splice(..0, more);
            tail.from = at;
        }
    }
}

impl ViewState {
    /// Freezes the state as of now: all keys of the slots `anew`, and of the others those that changed since the last freeze:
    /// inserted into, revised, created, removed, told to the online store. Before the first freeze that is all keys, too. This
    /// takes no longer for many keys than for few. What is frozen is written by [`Self::write_frozen`], as it is now, whatever is
    /// applied in between. A key that is applied to before its turn is written first, at the cost of that application; of a
    /// busy key of trailing exact windows only some numbers are noted, however many rows it has.
    /// What is written of the other slots adds to the freeze before: when its bytes were lost all must be written anew.
    ///
    /// # Errors
    /// When keys of the freeze before are still to be written: mixed, neither could be restored. And when the state was
    /// made without [`checkpoints`](super::super::ViewOptions::checkpoints).
    pub fn freeze(&mut self, anew: SlotRange) -> Result<(), ViewError> {
        let fail = |what: &str| Err(ViewError::Freeze { what: what.to_owned() });
        if !self.changes.on {
            return fail("the state was made without checkpoints, so it does not know what changed");
        }
        if self.changes.frozen.is_some() {
            return fail("keys of the freeze before are still to be written");
        }
        let changes = &mut self.changes;
        std::mem::swap(&mut changes.since, &mut changes.before);
        changes.current ^= EPOCH;
        changes.clean[anew.slots()].iter_mut().for_each(|clean| *clean ^= EPOCH);
        // Times of rows are near the watermark, and whole seconds as a rule when it is one.
        let watermark = self.sweep.watermark().unwrap_or(0);
        let origin = watermark - watermark % UNITS[UNITS.len() - 1];
        changes.frozen = Some(Frozen { anew, next: 0, origin });
        Ok(())
    }

    /// Whether something frozen is still to be written.
    pub fn frozen(&self) -> bool {
        self.changes.frozen.is_some()
    }

    /// What part of the key slots of what is frozen is written; all of them when nothing is.
    pub fn frozen_written(&self) -> f64 {
        self.changes.frozen.map_or(1.0, |frozen| frozen.next as f64 / SLOTS as f64)
    }

    /// Writes what is frozen, as it was at the freeze, until about `bytes` bytes are out: whole slots, at least one that
    /// has something to write. Returns bytes by slot, slots ascending; each slot comes once per freeze, or not at all when
    /// nothing of it was frozen. A slot that is written anew comes also when nothing is in it, without a byte: what earlier
    /// freezes wrote of it is void. Empty when nothing is left to write.
    pub fn write_frozen(&mut self, bytes: usize) -> Vec<(u16, Vec<u8>)> {
        let (mut slots, mut written) = (Vec::new(), 0);
        while let Some(Frozen { anew, next, .. }) = self.changes.frozen {
            if next == SLOTS {
                self.changes.frozen = None;
                break;
            }
            if written > 0 && written >= bytes {
                break;
            }
            self.write_slot(next);
            if let Some(frozen) = &mut self.changes.frozen {
                frozen.next += 1;
            }
            let out = &mut self.changes.out[next];
            if !out.bytes.is_empty() {
                let sealed = out.seal();
                written += sealed.len();
                slots.push((next as u16, sealed));
            } else if anew.contains(next) {
                slots.push((next as u16, Vec::new()));
            }
        }
        slots
    }

    /// Notes that a record's rows are about to change.
    #[inline(always)]
    pub(in super::super) fn touch(&mut self, handle: Handle, hash: u64) {
        if self.changes.on && self.stamp(handle) & (EPOCH | ROWS) != self.changes.current | ROWS {
            self.change(handle, hash, ROWS);
        }
    }

    /// Notes that what the online store was told of a record is about to change.
    pub(in super::super) fn touch_told(&mut self, handle: Handle, hash: u64) {
        if self.changes.on {
            self.change(handle, hash, 0);
        }
    }

    /// [`Self::touch_told`] for a record that is to be told again: one that is not written yet will be written so.
    pub(in super::super) fn touch_untold(&mut self, handle: Handle) {
        if !self.changes.on {
            return;
        }
        let hash = self.hash_of(self.key_word(handle));
        if !self.changes.is_pending(self.stamp(handle), slot_of(hash)) {
            self.change(handle, hash, 0);
        }
    }

    /// Writes a pending record that a question or a sweep is about to let go of rows of; it does not count as changed, for
    /// whoever restores it lets go of them, too.
    #[inline(always)]
    pub(in super::super) fn keep(&mut self, handle: Handle) {
        if self.changes.frozen.is_none() {
            return;
        }
        let slot = slot_of(self.hash_of(self.key_word(handle)));
        if self.changes.is_pending(self.stamp(handle), slot) {
            self.save_pending(handle, slot);
        }
    }

    /// Notes that a key is about to be forgotten.
    pub(in super::super) fn note_gone(&mut self, handle: Handle, key: u64, hash: u64) {
        if !self.changes.on || self.stamp(handle) & NEW != 0 {
            return;
        }
        let gone = &mut self.changes.since[slot_of(hash)].gone;
        if self.words {
            gone.words.insert(key);
        } else {
            gone.names.insert(self.names.get(key).into());
        }
    }

    #[inline(never)]
    fn change(&mut self, handle: Handle, hash: u64, rows: Stamp) {
        let slot = slot_of(hash);
        if self.changes.is_pending(self.stamp(handle), slot) {
            self.save_pending(handle, slot);
        }
        let stamp = self.stamp(handle);
        if stamp & EPOCH != self.changes.current {
            let key = self.key_word(handle);
            self.changes.since[slot].keys.push(key);
        }
        self.set_stamp(handle, stamp & (NEW | ROWS) | rows | self.changes.current);
    }

    #[inline(always)]
    fn stamp(&self, handle: Handle) -> Stamp {
        match Self::place(handle) {
            (Some(class), block) => small::stamp(self.small[class].get(block)),
            (None, block) => self.dense[block as usize].as_ref().map_or(0, |d| d.stamp),
        }
    }

    pub(super) fn set_stamp(&mut self, handle: Handle, stamp: Stamp) {
        match Self::place(handle) {
            (Some(class), block) => small::set_stamp(self.small[class].get_mut(block), stamp),
            (None, block) => {
                if let Some(dense) = &mut self.dense[block as usize] {
                    dense.stamp = stamp;
                }
            }
        }
    }

    /// Writes a pending record that is about to change, or sees to it that it can be written later as it is now.
    fn save_pending(&mut self, handle: Handle, slot: usize) {
        if !self.hold(handle, slot) {
            self.write_pending(handle, slot);
        }
    }

    /// Notes the numbers of a pending busy key, whose rows are then kept until they are written: false where rows may change.
    fn hold(&mut self, handle: Handle, slot: usize) -> bool {
        let (anew, stamp) = (self.changes.is_anew(slot), self.stamp(handle));
        let (None, block) = Self::place(handle) else { return false };
        let Some(dense) = self.dense[block as usize].as_deref_mut().filter(|_| anew || stamp & (ROWS | NEW) != 0)
        else {
            return false;
        };
        let layout = self.layout.of(dense);
        if !layout.settled {
            return false;
        }
        let numbers = dense.numbers(layout, anew || stamp & NEW != 0);
        dense.held = true;
        dense.written = dense.queue.end;
        self.changes.held[slot].push(Held { block, numbers, tail: Tail::none(&numbers) });
        self.set_stamp(handle, self.changes.clean(slot));
        true
    }

    /// Writes the busy keys of a slot that have changed since the freeze.
    pub(in super::super) fn write_held(&mut self, slot: usize) {
        let mut held = std::mem::take(&mut self.changes.held[slot]);
        if held.is_empty() {
            return;
        }
        let mut out = self.open(slot);
        for Held { block, numbers, tail } in held.drain(..) {
            if let Some(dense) = &self.dense[block as usize] {
                self.write_dense(dense, &numbers, &tail, &mut out);
            }
            if let Some(dense) = &mut self.dense[block as usize] {
                dense.held = false;
            }
        }
        self.changes.out[slot] = out;
        self.changes.held[slot] = held;
    }

    /// Writes the records of a slot that are still pending, and the keys that are no more.
    fn write_slot(&mut self, slot: usize) {
        self.write_held(slot);
        let mut before = std::mem::take(&mut self.changes.before[slot]);
        if self.changes.is_anew(slot) {
            let handles: Vec<Handle> = self.index.slot(slot).collect();
            for (i, handle) in handles.iter().enumerate() {
                if let Some(next) = handles.get(i + AHEAD_RECORD) {
                    self.prefetch_handle(*next);
                }
                if self.changes.is_pending(self.stamp(*handle), slot) {
                    self.write_pending(*handle, slot);
                }
            }
        } else {
            self.write_gone(slot, &before.gone);
            let keys = &before.keys;
            let hash = |key: u64| self.hash_of(key);
            let hashes: Vec<u64> = keys.iter().map(|key| hash(*key)).collect();
            for (i, key) in keys.iter().enumerate() {
                if let Some(next) = hashes.get(i + AHEAD_BUCKET) {
                    self.index.prefetch(*next);
                }
                if let Some(next) = hashes.get(i + AHEAD_RECORD) {
                    let _ = self.prefetch_record(*next);
                }
                let found = self.index.find(hashes[i], |handle| self.key_word(handle) == *key);
                // Gone, or its number given to another key, maybe of another slot, or written when it changed again.
                if let Some((_, handle)) = found.filter(|_| slot_of(hashes[i]) == slot)
                    && self.changes.is_pending(self.stamp(handle), slot)
                {
                    self.write_pending(handle, slot);
                }
            }
        }
        before.keys.clear();
        before.gone = Gone::default();
        self.changes.before[slot] = before;
    }

    fn write_gone(&mut self, slot: usize, gone: &Gone) {
        if gone.is_empty() {
            return;
        }
        let mut out = self.open(slot);
        for word in &gone.words {
            out.byte(GONE);
            out.signed(*word as i64);
        }
        for name in &gone.names {
            out.byte(GONE);
            out.text(name);
        }
        self.changes.out[slot] = out;
    }

    /// A slot's bytes, to be put back.
    fn open(&mut self, slot: usize) -> Writer {
        let mut out = std::mem::take(&mut self.changes.out[slot]);
        if out.bytes.is_empty() {
            let origin = self.changes.frozen.map_or(0, |frozen| frozen.origin);
            out.begin(self.changes.fingerprint, self.layout.refresh, origin);
        }
        out
    }

    /// Writes a pending record, which is clean then.
    #[inline(never)]
    fn write_pending(&mut self, handle: Handle, slot: usize) {
        let (anew, stamp) = (self.changes.is_anew(slot), self.stamp(handle));
        let mut out = self.open(slot);
        match Self::place(handle) {
            (Some(class), block) => {
                let record = self.small[class].get(block);
                let told = small::told(&self.layout, record);
                if anew || stamp & (ROWS | NEW) != 0 {
                    self.write_small(record, told, &mut out);
                } else {
                    self.write_head(TOLD, record[0], told, 0, &mut out);
                }
            }
            (None, block) => {
                if let Some(dense) = &self.dense[block as usize] {
                    if anew || stamp & (ROWS | NEW) != 0 {
                        let numbers = dense.numbers(self.layout.of(dense), anew || stamp & NEW != 0);
                        self.write_dense(dense, &numbers, &Tail::none(&numbers), &mut out);
                    } else {
                        self.write_head(TOLD, dense.key, (dense.dirty, dense.due), 0, &mut out);
                    }
                }
                if let Some(dense) = &mut self.dense[block as usize] {
                    dense.written = dense.queue.end;
                }
            }
        }
        self.changes.out[slot] = out;
        self.set_stamp(handle, self.changes.clean(slot));
    }

    /// An item's form, key and what the online store was told.
    #[inline(always)]
    fn write_head(&self, form: u8, key: u64, (dirty, due): (bool, i64), unit: usize, out: &mut Writer) {
        let timed = due != i64::MAX;
        out.byte(form | if dirty { DIRTY } else { 0 } | if timed { DUE } else { 0 } | (unit as u8) << UNIT_SHIFT);
        if self.words {
            out.signed(key as i64);
        } else {
            out.text(self.names.get(key));
        }
        if timed {
            out.time(due);
        }
    }

    fn write_small(&self, record: &[u64], told: (bool, i64), out: &mut Writer) {
        let layout = &self.layout;
        let entries = small::entries(layout, record);
        let unit = unit_of(entries.iter().step_by(layout.stride).map(|time| *time as i64), out.origin);
        self.write_head(SMALL, record[0], told, unit, out);
        if layout.forever {
            out.number(small::base_rows(layout, record));
            (0..layout.life_pairs.len()).for_each(|i| out.sums(&small::base_sums(layout, record, i)));
            (0..layout.life_extrema.len()).for_each(|i| out.pair(small::base_extrema(layout, record, i)));
        }
        out.number(small::count(record) as u64);
        let mut rows = Rows { unit: UNITS[unit], time: out.origin, ord: 0 };
        entries.chunks_exact(layout.stride).for_each(|entry| self.write_entry(entry, &mut rows, out));
    }

    /// Writes a busy key as of its numbers. Its rows up to the tail and all else of it must be as they were then.
    fn write_dense(&self, dense: &Dense, numbers: &Numbers, tail: &Tail, out: &mut Writer) {
        let layout = self.layout.of(dense);
        let Numbers { told, head, newest, absorbed, first, from, waiting, end } = *numbers;
        let parts = dense.queue.parts(layout, &self.chunks, from, tail.from);
        let parts = parts.chain(std::iter::once(&tail.entries[..]));
        let times = parts.clone().flat_map(|part| part.iter().step_by(layout.stride).map(|time| *time as i64));
        let unit = unit_of(times, out.origin);
        let form = match from == first {
            true if dense.by_rows => BY_ROWS,
            true => DENSE,
            false => MORE,
        };
        self.write_head(form, dense.key, told, unit, out);
        out.time(head);
        out.time(newest);
        out.number(absorbed);
        out.number(first);
        if form == MORE {
            out.number(from - first);
        }
        out.number(end - from);
        out.number(end - waiting);
        let mut rows = Rows { unit: UNITS[unit], time: out.origin, ord: 0 };
        for part in parts {
            part.chunks_exact(layout.stride).for_each(|entry| self.write_entry(entry, &mut rows, out));
        }
        dense.base_sums(layout, &self.chunks).iter().for_each(|sums| out.sums(sums));
        dense.base.iter().for_each(|e| out.pair(*e));
        for (tiles, track) in dense.tiles.iter().zip(&layout.tracks) {
            out.number(tiles.heads.len() as u64);
            let mut last = 0;
            for (start, rows) in tiles.heads.iter() {
                let number = start.div_euclid(track.grain);
                out.signed(number.wrapping_sub(last));
                out.number(*rows);
                last = number;
            }
            tiles.sums.iter().for_each(|sums| out.sums(sums));
            tiles.extrema.iter().for_each(|e| out.pair(*e));
        }
        for (_, wedge) in layout.wedges.iter().zip(dense.wedges.iter()).filter(|(spec, _)| spec.track.is_some()) {
            out.number(wedge.items().len() as u64);
            for (time, value) in wedge.items() {
                out.time(time);
                out.signed(value);
            }
        }
    }

    #[inline(always)]
    fn write_entry(&self, entry: &[u64], rows: &mut Rows, out: &mut Writer) {
        let layout = &self.layout;
        let time = entry[0] as i64;
        out.signed(time.wrapping_sub(rows.time) / rows.unit);
        rows.time = time;
        if let Some(ord) = layout.ord {
            out.signed(entry[ord].wrapping_sub(rows.ord) as i64);
            rows.ord = entry[ord];
        }
        if let Some(mask) = layout.mask {
            out.number(entry[mask]);
        }
        for input in &layout.inputs {
            let word = entry[input.word];
            match input.kind {
                Kind::Float => out.float(word),
                Kind::Narrow => out.narrow(word as i64),
                Kind::Wide => out.signed(word as i64),
                Kind::Unsigned => out.number(word),
                Kind::Bytes => {}
            }
        }
        if layout.texts {
            for input in layout.inputs.iter().filter(|i| i.kind == Kind::Bytes) {
                let word = entry[input.word];
                out.optional_text((word != NULL_TEXT).then(|| self.texts.get(word)));
            }
        }
    }
}

impl Dense {
    /// What is written of it but for the bytes of its rows: of `all` rows, or of those that no freeze has written.
    fn numbers(&self, layout: &Layout, all: bool) -> Numbers {
        let (first, end) = (self.first_needed(layout), self.queue.end);
        let known = self.written.min(end);
        Numbers {
            told: (self.dirty, self.due),
            head: self.head,
            newest: self.newest,
            absorbed: self.absorbed,
            first,
            from: if all || known <= first { first } else { known },
            waiting: self.waiting,
            end,
        }
    }
}

/// The row written or read last.
pub(super) struct Rows {
    /// Times are multiples of it from the origin.
    pub(super) unit: i64,
    pub(super) time: i64,
    pub(super) ord: u64,
}

/// Number of the largest unit of which all times are multiples from the origin.
fn unit_of(times: impl Iterator<Item = i64> + Clone, origin: i64) -> usize {
    let told = |time: i64| time.checked_sub(origin).filter(|t| t.unsigned_abs() < 1 << 62);
    let fits = |unit: i64| times.clone().all(|time| told(time).is_some_and(|t| t % unit == 0));
    UNITS.iter().skip(1).take_while(|unit| fits(**unit)).count()
}

/// The smallest number of bytes that [`ViewState::write_frozen`] makes of an entry.
pub(super) fn entry_bytes_min(layout: &Layout) -> usize {
    1 + usize::from(layout.ord.is_some()) + usize::from(layout.mask.is_some()) + layout.inputs.len()
}

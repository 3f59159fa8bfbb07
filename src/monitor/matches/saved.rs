//! Predictions and labels in a checkpoint: what changed since the one before, by key slot.
//!
//! The worker's thread only [freezes](Matches::freeze): it copies the rows that changed. They are put into slots and texts
//! are numbered by [`MatchesFrozen::encode`] on whatever thread. A slot's bytes are a version; the number of texts, each
//! behind its length; the rows; and a CRC-32 of all of it. A row begins with a byte that tells predictions from labels, its
//! flags and its id; a later row of the same id and `_ord` stands for an earlier one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::store::{Address, LABEL, Waiting, address, flag, hash_of, place};
use super::{GroupOf, Key, Kind, Matches, MatchesError, Widths};
use crate::base::{EventTime, slot_of};

const VERSION: u8 = 1;
const PREDICTION: u8 = 0;
const LONE: u8 = 1;

/// Flags that are saved.
const SAVED: u8 = !flag::DIRTY;

/// Rows that changed, or all rows, at a freeze.
#[derive(Debug)]
pub struct MatchesFrozen {
    widths: Widths,
    names: Vec<Arc<str>>,
    /// Slot and end of each row's bytes.
    rows: Vec<(u16, usize)>,
    bytes: Vec<u8>,
}

impl Matches {
    /// Takes a copy of the rows that changed since the last freeze, or with `whole` of all rows.
    pub fn freeze(&mut self, whole: bool) -> MatchesFrozen {
        self.prune();
        let mut frozen =
            MatchesFrozen { widths: self.widths, names: self.names.all(), rows: Vec::new(), bytes: Vec::new() };
        let dirty = self.dirty.as_mut().map(std::mem::take);
        for at in dirty.iter().flatten() {
            let (number, row) = place(*at);
            if let Some(window) = self.all.get_mut(number) {
                let l = &mut window.labels.flags;
                let flags = if at & LABEL == 0 { &mut window.predictions.rows[row].flags } else { &mut l[row] };
                *flags &= SAVED;
            }
        }
        match dirty.filter(|_| !whole) {
            Some(dirty) => dirty.iter().for_each(|at| self.put(*at, &mut frozen)),
            None => {
                for number in self.by_start.values() {
                    let Some(window) = self.all.get(*number) else { continue };
                    (0..window.predictions.rows.len()).for_each(|row| self.put(address(*number, row), &mut frozen));
                    let kept = (0..window.labels.keys.len()).filter(|row| window.labels.flags[*row] & flag::DEAD == 0);
                    kept.for_each(|row| self.put(address(*number, row) | LABEL, &mut frozen));
                }
            }
        }
        frozen
    }

    /// Forgets earlier labels once a later one was told.
    fn prune(&mut self) {
        let (all, windows, passed) = (&mut self.all, &self.windows, self.passed);
        self.earlier.retain(|at, _| {
            let (number, row) = place(*at);
            let Some(window) = all.get_mut(number) else { return false };
            let p = &mut window.predictions;
            let kept = windows.told(window.start, p.rows[row].time.max(p.rows[row].label_time)) > passed;
            if !kept {
                p.rows[row].flags &= !flag::EARLIER;
            }
            kept
        });
    }

    fn put(&self, at: Address, to: &mut MatchesFrozen) {
        let (number, row) = place(at);
        let Some(window) = self.all.get(number) else { return };
        let bytes = &mut to.bytes;
        let key = if at & LABEL == 0 {
            let (p, seen) = (&window.predictions, self.prediction(window, row));
            let flags = p.rows[row].flags & SAVED;
            bytes.extend_from_slice(&[PREDICTION, flags]);
            bytes.extend_from_slice(&p.rows[row].key.to_le_bytes());
            bytes.extend_from_slice(&seen.time.to_le_bytes());
            bytes.extend_from_slice(&seen.ord.to_le_bytes());
            bytes.extend_from_slice(&seen.version.to_le_bytes());
            seen.segments.iter().for_each(|segment| bytes.extend_from_slice(&segment.to_le_bytes()));
            match seen.group {
                GroupOf::None => {}
                GroupOf::Number(number) => bytes.extend_from_slice(&number.to_le_bytes()),
                GroupOf::Text(text) => {
                    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
            seen.scores.iter().for_each(|score| bytes.extend_from_slice(&score.to_le_bytes()));
            if flags & flag::SEEN != 0 {
                bytes.extend_from_slice(&p.rows[row].label.to_le_bytes());
                bytes.extend_from_slice(&p.rows[row].label_time.to_le_bytes());
                bytes.extend_from_slice(&p.rows[row].label_ord.to_le_bytes());
            }
            if flags & flag::LATE != 0 {
                bytes.extend_from_slice(&self.late.get(&at).copied().unwrap_or(seen.time).to_le_bytes());
            }
            if flags & flag::EARLIER != 0 {
                let earlier = self.earlier.get(&at).map(Vec::as_slice).unwrap_or_default();
                bytes.extend_from_slice(&(earlier.len() as u32).to_le_bytes());
                for (due, value) in earlier {
                    bytes.extend_from_slice(&due.to_le_bytes());
                    bytes.push(u8::from(value.is_some()));
                    bytes.extend_from_slice(&value.unwrap_or_default().to_le_bytes());
                }
            }
            p.rows[row].key
        } else {
            let l = &window.labels;
            bytes.extend_from_slice(&[LONE, l.flags[row] & SAVED]);
            bytes.extend_from_slice(&l.keys[row].to_le_bytes());
            bytes.extend_from_slice(&l.times[row].to_le_bytes());
            bytes.extend_from_slice(&l.ords[row].to_le_bytes());
            bytes.extend_from_slice(&l.values[row].to_le_bytes());
            l.keys[row]
        };
        to.rows.push((slot_of(hash_of(key)) as u16, to.bytes.len()));
    }

    /// Takes in a slot's bytes of one freeze: those of the last whole one first, then those that came after it, in their
    /// order; slots in any order. [`Matches::restored`] must follow the last.
    ///
    /// # Errors
    /// When the bytes are not of such a freeze of rows as wide.
    pub fn import(&mut self, slot: u16, bytes: &[u8]) -> Result<(), MatchesError> {
        let error = |what: &str| MatchesError { slot, what: what.to_owned() };
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| error("it is cut short"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(error("the checksum does not match"));
        }
        let mut bytes = Reader(body);
        match bytes.byte() {
            Some(VERSION) => {}
            _ => return Err(error("it is of another version")),
        }
        self.read(&mut bytes).ok_or_else(|| error("its rows are those of another monitor"))
    }

    fn read(&mut self, bytes: &mut Reader) -> Option<()> {
        let mut names = Vec::new();
        for _ in 0..bytes.u32()? {
            let length = bytes.u32()? as usize;
            names.push(self.names.number(std::str::from_utf8(bytes.take(length)?).ok()?));
        }
        while !bytes.0.is_empty() {
            match bytes.byte()? {
                PREDICTION => self.read_prediction(bytes, &names)?,
                LONE => self.read_label(bytes)?,
                _ => return None,
            }
        }
        Some(())
    }

    fn read_prediction(&mut self, bytes: &mut Reader, names: &[u32]) -> Option<()> {
        let (flags, key) = (bytes.byte()? & SAVED, bytes.u128()?);
        let (time, ord) = (bytes.i64()?, bytes.u64()?);
        let name = |bytes: &mut Reader| names.get(bytes.u32()? as usize).copied();
        let version = name(bytes)?;
        let segments = (0..self.widths.segments).map(|_| name(bytes)).collect::<Option<Vec<u32>>>()?;
        let (mut whole, mut text) = (None, None);
        match self.widths.group {
            None => {}
            Some(Kind::Number) => whole = Some(bytes.i64()?),
            Some(Kind::Text) => {
                let length = bytes.u32()? as usize;
                text = Some(std::str::from_utf8(bytes.take(length)?).ok()?);
            }
        }
        let scores = (0..self.widths.scores).map(|_| bytes.f64()).collect::<Option<Vec<f64>>>()?;
        let label =
            if flags & flag::SEEN != 0 { (bytes.f64()?, bytes.i64()?, bytes.u64()?) } else { Default::default() };
        let late = if flags & flag::LATE != 0 { Some(bytes.i64()?) } else { None };
        let mut earlier = Vec::new();
        if flags & flag::EARLIER != 0 {
            for _ in 0..bytes.u32()? {
                let (due, some, value) = (bytes.i64()?, bytes.byte()? != 0, bytes.f64()?);
                earlier.push((due, some.then_some(value)));
            }
        }
        let number = self.window(time);
        // Nothing changes without an id: such a row comes once.
        let has_id = flags & flag::NO_ID == 0;
        let saved = if has_id { self.saved_at(key, number, ord, 0) } else { None };
        let at = match saved {
            Some(at) => at,
            None => {
                let p = &mut self.all.get_mut(number)?.predictions;
                let at = address(number, p.rows.len());
                p.rows.push(Waiting { key, time, ord, version, label: 0.0, label_time: 0, label_ord: 0, flags: 0 });
                p.scores.extend(scores);
                p.segments.extend(segments);
                p.groups.extend(whole.or_else(|| text.map(|text| self.texts.take(text))));
                self.rows += 1;
                if has_id {
                    self.insert(key, at);
                }
                at
            }
        };
        let row = place(at).1;
        let p = &mut self.all.get_mut(number)?.predictions;
        (p.rows[row].label, p.rows[row].label_time, p.rows[row].label_ord) = label;
        p.rows[row].flags = flags;
        self.late.extend(late.map(|late| (at, late)));
        if earlier.is_empty() {
            self.earlier.remove(&at);
        } else {
            self.earlier.insert(at, earlier);
        }
        Some(())
    }

    fn read_label(&mut self, bytes: &mut Reader) -> Option<()> {
        let (flags, key) = (bytes.byte()? & SAVED, bytes.u128()?);
        let (time, ord, value) = (bytes.i64()?, bytes.u64()?, bytes.f64()?);
        let number = self.window(time);
        let at = match self.saved_at(key, number, ord, LABEL) {
            Some(at) => at,
            // It came and went between two freezes.
            None if flags & flag::DEAD != 0 => return Some(()),
            None => {
                let l = &mut self.all.get_mut(number)?.labels;
                let at = address(number, l.keys.len()) | LABEL;
                l.keys.push(key);
                l.times.push(time);
                l.ords.push(ord);
                l.values.push(value);
                l.flags.push(0);
                self.insert(key, at);
                at
            }
        };
        self.all.get_mut(number)?.labels.flags[place(at).1] = flags;
        Some(())
    }

    /// A row that was imported before.
    fn saved_at(&mut self, key: Key, number: usize, ord: u64, kind: Address) -> Option<Address> {
        self.find(key);
        let window = self.all.get(number)?;
        let ord_at = |row: usize| match kind {
            0 => window.predictions.rows[row].ord,
            _ => window.labels.ords[row],
        };
        let same = |at: &Address| at & LABEL == kind && place(*at).0 == number && ord_at(place(*at).1) == ord;
        self.found.iter().copied().find(same)
    }

    /// All is imported, as it was at this watermark.
    pub fn restored(&mut self, watermark: EventTime) {
        let mut waiting = Vec::new();
        let numbers: Vec<usize> = self.by_start.values().copied().collect();
        for number in numbers {
            let Some(window) = self.all.get(number) else { continue };
            for (row, flags) in window.labels.flags.iter().enumerate() {
                let at = address(number, row) | LABEL;
                let given_up = window.labels.times[row].saturating_add(self.windows.within) < watermark;
                if flags & flag::DEAD != 0 || given_up {
                    self.index.remove(window.labels.keys[row], at);
                } else {
                    waiting.push((window.labels.times[row], window.labels.ords[row], at));
                }
            }
        }
        waiting.sort_unstable();
        self.waiting = waiting.into();
        self.watermark = watermark;
        self.passed = self.windows.passed(watermark);
        // Windows that were complete by then may still be in parts of the state that nothing has replaced.
        while let Some((start, number)) = self.by_start.first_key_value().map(|(start, number)| (*start, *number))
            && self.windows.complete(start) <= self.passed
        {
            self.by_start.remove(&start);
            self.forget(number);
        }
        if let Some(dirty) = &mut self.dirty {
            dirty.clear();
        }
    }
}

impl MatchesFrozen {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows as bytes by key slot, for [`Matches::import`]; slots in order, without those that have nothing.
    pub fn encode(self) -> Vec<(u16, Vec<u8>)> {
        let starts = std::iter::once(0).chain(self.rows.iter().map(|(_, end)| *end));
        let mut rows: Vec<(u16, usize, usize)> =
            self.rows.iter().zip(starts).map(|((slot, end), start)| (*slot, start, *end)).collect();
        // Stable: rows of a slot stay in their order.
        rows.sort_by_key(|row| row.0);
        rows.chunk_by(|a, b| a.0 == b.0).map(|rows| (rows[0].0, self.slot(rows))).collect()
    }

    fn slot(&self, rows: &[(u16, usize, usize)]) -> Vec<u8> {
        let mut texts: Vec<u32> = Vec::new();
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut number = |text: u32| {
            *numbers.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() as u32 - 1
            })
        };
        let mut body = Vec::with_capacity(rows.iter().map(|(_, start, end)| end - start).sum());
        for (_, start, end) in rows {
            let first = body.len();
            body.extend_from_slice(&self.bytes[*start..*end]);
            let row = &mut body[first..];
            if row[0] != PREDICTION {
                continue;
            }
            // Kind, flags, id, time and position stand before the numbers of texts.
            let mut at = 2 + 16 + 8 + 8;
            for _ in 0..=self.widths.segments {
                if let Some(text) = row.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    *text = number(u32::from_le_bytes(*text)).to_le_bytes();
                }
                at += 4;
            }
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&(texts.len() as u32).to_le_bytes());
        for text in texts {
            let text = &self.names[text as usize];
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&body);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }
}

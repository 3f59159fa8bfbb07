//! The label join's rows in a checkpoint: what came since the one before, by key slot, and what has met since.
//!
//! The worker's thread only [freezes](LabelJoin::freeze): it takes hold of batches that never change and copies one flag per
//! row. All else, hashing, splitting and encoding, is done by [`JoinFrozen::encode`] on whatever thread. A slot's bytes
//! are a version, then the left rows and the right rows, each as an Arrow IPC stream behind its length with a column that
//! says whether the row had met one of the other side, then the `_ord`s of rows saved earlier that have met one since, left
//! and right, each behind their number, and a CRC-32 of all of it.
//!
//! What is imported waits until the join is used next: then rows that have expired meanwhile are left out, and the others
//! are laid down by time, so that they are let go again as they expire.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};

use super::rows::{Address, CHUNK_ROWS, Rows};
use super::{JoinError, KEPT_ID, LabelJoin, entry_of};
use crate::base::{EventTime, seal, slot_of, unseal};
use crate::ops::{decode_rows, encode_rows_tightly, ords, split_by_slot, times};

const VERSION: u8 = 1;
const MATCHED_COLUMN: &str = "_matched";

/// What has changed since the last freeze.
#[derive(Debug)]
pub(super) struct Changes {
    left: Mark,
    right: Mark,
}

/// Of one side.
#[derive(Debug)]
struct Mark {
    /// Rows from here on are new.
    end: Address,
    /// Rows before it that have met one of the other side since: their slot and `_ord`.
    met: Vec<(u16, u64)>,
}

impl Changes {
    pub(super) fn new() -> Self {
        let mark = || Mark { end: Address::FIRST, met: Vec::new() };
        Changes { left: mark(), right: mark() }
    }

    /// A row with this hash has met one of the other side for the first time.
    pub(super) fn met(&mut self, is_left: bool, at: Address, hash: u64, ord: u64) {
        let mark = if is_left { &mut self.left } else { &mut self.right };
        if at < mark.end {
            mark.met.push((slot_of(hash) as u16, ord));
        }
    }
}

/// What a join held at a freeze, or what came since the one before.
#[derive(Debug)]
pub struct JoinFrozen {
    name: String,
    /// Rows before this have expired.
    horizon: EventTime,
    left: FrozenSide,
    right: FrozenSide,
}

#[derive(Debug)]
struct FrozenSide {
    /// Batches with what is known of each row's meetings.
    pieces: Vec<(RecordBatch, Vec<bool>)>,
    met: Vec<(u16, u64)>,
    id: usize,
}

/// Slots that were imported and not yet laid down.
#[derive(Debug, Default)]
pub(super) struct Staged {
    left: StagedSide,
    right: StagedSide,
}

#[derive(Debug, Default)]
struct StagedSide {
    pieces: Vec<(RecordBatch, Vec<bool>)>,
    met: HashSet<u64>,
}

impl LabelJoin {
    /// Takes hold of the rows that came since the last freeze and of what has met since, or with `whole` of all rows. Costs
    /// a flag per row; no row is copied.
    ///
    /// A join that was not told to track changes freezes all rows each time.
    ///
    /// # Panics
    /// When rows that expired without a match were not taken: they would be in no checkpoint and in no table.
    pub fn freeze(&mut self, whole: bool) -> JoinFrozen {
        assert!(self.unmatched.is_empty(), "unmatched rows are taken in every tick, before the join is frozen");
        self.lay_down(EventTime::MIN);
        let mut side = |is_left: bool| {
            let (rows, id) = if is_left { (&self.left, self.left_on) } else { (&self.right, KEPT_ID) };
            let mark = self.changes.as_mut().map(|c| if is_left { &mut c.left } else { &mut c.right });
            let (mut from, mut met) = (Address::FIRST, Vec::new());
            if let Some(mark) = mark {
                let since = std::mem::replace(mark, Mark { end: rows.end(), met: Vec::new() });
                if !whole {
                    (from, met) = (since.end, since.met);
                }
            }
            FrozenSide { pieces: rows.since(from), met, id }
        };
        let (left, right) = (side(true), side(false));
        JoinFrozen { name: self.name.clone(), horizon: self.horizon, left, right }
    }

    /// Takes in a slot's bytes of one freeze: those of the last whole one first, then those that came after it, in their
    /// order; slots in any order. Then [`LabelJoin::advance`] with the watermark of the last freeze leaves out what has
    /// expired by then, which was told as unmatched before.
    ///
    /// # Errors
    /// When the bytes are not of such a freeze of a join of the same plan; the join is then unchanged.
    pub fn import(&mut self, slot: u16, bytes: &[u8]) -> Result<(), JoinError> {
        let error = |what: String| JoinError::Slot { join: self.name.clone(), slot, what };
        let (left, right) = read_slot(bytes).map_err(error)?;
        let left_types = self.schema.fields().iter().take(self.left_columns).map(|f| f.data_type().clone());
        let right_types = self.kept.fields().iter().map(|f| f.data_type().clone());
        fits(&left, &left_types.collect::<Vec<_>>()).map_err(error)?;
        fits(&right, &right_types.collect::<Vec<_>>()).map_err(error)?;
        for (staged, part) in [(&mut self.staged.left, left), (&mut self.staged.right, right)] {
            staged.pieces.extend(part.pieces);
            staged.met.extend(part.met);
        }
        Ok(())
    }

    /// Lays down the rows that were imported, save those before `horizon`.
    pub(super) fn lay_down(&mut self, horizon: EventTime) {
        if self.staged.left.pieces.is_empty() && self.staged.right.pieces.is_empty() {
            return;
        }
        let Staged { left, right } = std::mem::take(&mut self.staged);
        self.lay_down_side(left, true, horizon);
        let first = self.due.len();
        for (at, (time, ord)) in self.lay_down_side(right, false, horizon) {
            self.due.push_back((time, ord, at));
        }
        if first < self.due.len() {
            self.due.make_contiguous().sort_unstable();
        }
        if let Some(changes) = &mut self.changes {
            // What was imported is saved already.
            (changes.left.end, changes.right.end) = (self.left.end(), self.right.end());
        }
    }

    /// Returns where the rows lie and their places in time.
    fn lay_down_side(
        &mut self,
        staged: StagedSide,
        is_left: bool,
        horizon: EventTime,
    ) -> Vec<(Address, (EventTime, u64))> {
        let StagedSide { pieces, met } = staged;
        // In the order of arrival: the piece, the row in it, and its place in time.
        let mut rows: Vec<(usize, usize, (EventTime, u64))> = Vec::new();
        for (number, (batch, _)) in pieces.iter().enumerate() {
            let order = times(batch).iter().copied().zip(ords(batch).iter().copied()).enumerate();
            rows.extend(order.filter(|(_, at)| at.0 >= horizon).map(|(row, at)| (number, row, at)));
        }
        let mut by_time: Vec<u32> = (0..rows.len() as u32).collect();
        by_time.sort_unstable_by_key(|i| rows[*i as usize].2);
        let batches: Vec<&RecordBatch> = pieces.iter().map(|(batch, _)| batch).collect();
        let id = if is_left { self.left_on } else { KEPT_ID };
        // Where each row lies and its hash; none without an id.
        let mut laid: Vec<(Address, Option<u64>)> = vec![(Address::NONE, None); rows.len()];
        for chunk in by_time.chunks(CHUNK_ROWS) {
            let places: Vec<(usize, usize)> =
                chunk.iter().map(|i| (rows[*i as usize].0, rows[*i as usize].1)).collect();
            let batch = interleave_record_batch(&batches, &places).expect("imported batches have one schema");
            let matched = chunk.iter().map(|i| {
                let (piece, row, (_, ord)) = rows[*i as usize];
                pieces[piece].1[row] || met.contains(&ord)
            });
            let matched = matched.collect();
            let ids = ArrayRef::clone(batch.column(id));
            let (hashes, keys) = self.hash(&ids);
            let kept = if is_left { &mut self.left } else { &mut self.right };
            let first = kept.push(batch, keys, matched);
            for (n, i) in chunk.iter().enumerate() {
                laid[*i as usize] = (first.plus(n), ids.is_valid(n).then_some(hashes[n]));
            }
        }
        // The index must be as if the rows had come one by one.
        for ((at, hash), (_, _, order)) in laid.iter().zip(&rows) {
            let Some(hash) = hash else { continue };
            let kept = if is_left { &self.left } else { &self.right };
            let key = (!self.words).then(|| kept.key(*at)).flatten();
            let entry = entry_of(&mut self.index, (&self.left, &self.right), *hash, key);
            if is_left {
                entry.left.push(*at);
            } else if self.right.order(entry.right).is_none_or(|known| known <= *order) {
                entry.right = *at;
            }
        }
        laid.into_iter().zip(rows).map(|((at, _), (_, _, order))| (at, order)).collect()
    }
}

impl Rows {
    /// The batches from an address on, each with what is known of its rows' meetings.
    fn since(&self, from: Address) -> Vec<(RecordBatch, Vec<bool>)> {
        self.pieces(from).map(|(batch, matched)| (batch, matched.to_vec())).collect()
    }
}

impl JoinFrozen {
    /// The frozen rows as bytes by key slot, for [`LabelJoin::import`]; slots in order, without those that have nothing.
    ///
    /// # Errors
    /// When an id's type cannot be a key, which [`LabelJoin::new`] has ruled out.
    pub fn encode(self) -> Result<Vec<(u16, Vec<u8>)>, JoinError> {
        let error = |source| JoinError::Key { join: self.name.clone(), source };
        let mut sides = Vec::with_capacity(2);
        for side in [&self.left, &self.right] {
            let batches: Vec<RecordBatch> =
                side.pieces.iter().filter_map(|(rows, matched)| with_flags(rows, matched, self.horizon)).collect();
            let rows = split_by_slot(&batches, &[side.id]).map_err(error)?;
            let mut met: HashMap<u16, Vec<u64>> = HashMap::new();
            side.met.iter().for_each(|(slot, ord)| met.entry(*slot).or_default().push(*ord));
            sides.push((rows.into_iter().collect::<HashMap<u16, RecordBatch>>(), met));
        }
        let slots = sides.iter().flat_map(|(rows, met)| rows.keys().chain(met.keys()));
        let mut slots: Vec<u16> = slots.copied().collect();
        slots.sort_unstable();
        slots.dedup();
        let encoded = slots.into_iter().map(|slot| {
            let mut bytes = vec![VERSION];
            for (rows, _) in &sides {
                let part = rows.get(&slot).map(encode_rows_tightly).unwrap_or_default();
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(&part);
            }
            for (_, met) in &sides {
                let met = met.get(&slot).map(Vec::as_slice).unwrap_or_default();
                bytes.extend_from_slice(&(met.len() as u64).to_le_bytes());
                met.iter().for_each(|ord| bytes.extend_from_slice(&ord.to_le_bytes()));
            }
            seal(&mut bytes);
            (slot, bytes)
        });
        Ok(encoded.collect())
    }

    /// Number of left and of right rows taken hold of.
    pub fn rows(&self) -> (usize, usize) {
        let count = |side: &FrozenSide| side.pieces.iter().map(|(batch, _)| batch.num_rows()).sum();
        (count(&self.left), count(&self.right))
    }
}

/// The rows that have not expired, with their flags as a column behind the others.
fn with_flags(rows: &RecordBatch, matched: &[bool], horizon: EventTime) -> Option<RecordBatch> {
    let mut fields = rows.schema_ref().fields().to_vec();
    fields.push(Arc::new(Field::new(MATCHED_COLUMN, DataType::Boolean, false)));
    let flags: ArrayRef = Arc::new(BooleanArray::from(matched.to_vec()));
    let columns = rows.columns().iter().cloned().chain([flags]).collect();
    let all = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a flag for every row");
    let alive = BooleanArray::from(times(rows).iter().map(|time| *time >= horizon).collect::<Vec<_>>());
    if alive.true_count() == rows.num_rows() {
        return Some(all);
    }
    let alive = filter_record_batch(&all, &alive).expect("a flag for every row");
    Some(alive).filter(|rows| rows.num_rows() > 0)
}

/// One side of a slot.
#[derive(Default)]
struct Part {
    pieces: Vec<(RecordBatch, Vec<bool>)>,
    met: Vec<u64>,
}

fn read_slot(bytes: &[u8]) -> Result<(Part, Part), String> {
    const SHORT: &str = "it is cut short";
    let mut rest = unseal(bytes, VERSION)?;
    let take = |rest: &mut &[u8], unit: usize| {
        let (count, behind) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(unit));
        let (taken, behind) = length.and_then(|length| behind.split_at_checked(length)).ok_or(SHORT)?;
        *rest = behind;
        Ok::<_, String>(taken.to_vec())
    };
    let mut parts = [Part::default(), Part::default()];
    for part in &mut parts {
        let rows = take(&mut rest, 1)?;
        if rows.is_empty() {
            continue;
        }
        let mut rows = decode_rows(&rows).map_err(|e| e.to_string())?;
        if rows.num_columns() < 3 {
            return Err("its rows lack columns".into());
        }
        let matched = rows.remove_column(rows.num_columns() - 1);
        let matched = matched.as_boolean_opt().ok_or("its rows lack flags")?.iter().map(|m| m == Some(true)).collect();
        part.pieces.push((rows, matched));
    }
    for part in &mut parts {
        let met = take(&mut rest, 8)?;
        part.met = met.chunks_exact(8).filter_map(|ord| Some(u64::from_le_bytes(ord.try_into().ok()?))).collect();
    }
    let [left, right] = parts;
    if rest.is_empty() { Ok((left, right)) } else { Err("bytes are left over".into()) }
}

fn fits(part: &Part, types: &[DataType]) -> Result<(), String> {
    let fits = |rows: &RecordBatch| {
        let columns = rows.columns();
        columns.len() == types.len()
            && columns.iter().zip(types).all(|(column, data_type)| column.data_type() == data_type)
            && columns[..2].iter().all(|column| column.null_count() == 0)
    };
    match part.pieces.iter().all(|(rows, _)| fits(rows)) {
        true => Ok(()),
        false => Err("its columns are those of another join".into()),
    }
}

/// What is kept of right rows: `_time`, `_ord`, id, and the columns that the join carries.
pub(super) fn kept_schema(right: &SchemaRef, columns: &[usize]) -> SchemaRef {
    Arc::new(right.project(columns).expect("the plan names columns of the right stream"))
}

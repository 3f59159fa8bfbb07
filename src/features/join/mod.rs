//! Label join: a left join, in the left row's event time, of facts that become known later.
//!
//! A left row enters the joined stream at its own time, with the right side's columns if the right row with its id is
//! known by then and null otherwise. A right row that comes later *revises* the left rows with its id at its own time. So
//! at any time t the joined stream is: each left row up to t, with the latest right row up to t that has its id and is
//! within `within` of it, before or after; latest by `(_time, _ord)`. Left rows that share an id are rows of their own.
//!
//! **Input order.** In event-time order: no row of a call is before the watermark of the call before. In order of
//! arrival the same holds with one exception: when right rows of one id come out of order, the one that comes first wins
//! if it is the later one, and the other is not seen in between.
//! **Late rows** do not come here. **State:** left and right rows for `within` after their time, and an index of their
//! ids by key slot. A right row that has met nothing is told of as soon as the watermark has passed it by `within`, whatever
//! is kept together with it. **A checkpoint** holds what came and what met since the one before, by slot; see [`JoinFrozen`].

mod rows;
mod saved;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use hashbrown::{HashMap, HashTable};

pub use self::saved::JoinFrozen;

use self::rows::{Address, Rows};
use self::saved::{Changes, Staged, kept_schema};
use crate::base::{EventTime, Micros, SLOTS, slot_of};
use crate::ops::key::{self, EncodedKeys, KeyError};
use crate::ops::{ords, times};
use crate::plan::model::JoinPlan;

/// Event time of the left row that an update is about; it follows the join's own columns.
pub const TARGET_TIME_COLUMN: &str = "_target_time";
/// `_ord` of the left row that an update is about.
pub const TARGET_ORD_COLUMN: &str = "_target_ord";
/// Whether an update revises a left row that is already in the stream, rather than inserts it.
pub const REVISE_COLUMN: &str = "_revise";

/// Why a join cannot be made or a slot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The id's type has no canonical bytes.
    #[error("the id of join `{join}`: {source}")]
    Key {
        /// Name of the join.
        join: String,
        /// What is wrong with the type.
        source: KeyError,
    },
    /// Bytes that are no saved slot of the join.
    #[error("saved slot {slot} of join `{join}` cannot be read: {what}; restore from an older checkpoint")]
    Slot {
        /// Name of the join.
        join: String,
        /// The slot.
        slot: u16,
        /// What is wrong with the bytes.
        what: String,
    },
}

/// What became of the rows so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Left rows taken in.
    pub left: u64,
    /// Right rows taken in.
    pub right: u64,
    /// Left rows that met at least one right row.
    pub labelled: u64,
    /// Right rows that a later right row of the same id had already outdone when they came.
    pub superseded: u64,
    /// Left rows whose time passed without a right row.
    pub unlabelled: u64,
    /// Right rows whose time passed without a left row (too late, too early, or of no known id).
    pub unmatched: u64,
}

/// The rows of one id.
#[derive(Debug)]
struct Entry {
    hash: u64,
    left: Lefts,
    /// The latest right row.
    right: Address,
}

/// The left rows of one id, nearly always one.
#[derive(Debug)]
enum Lefts {
    None,
    One(Address),
    #[expect(clippy::box_collection, reason = "keeps an entry at 32 bytes, and ids that repeat are few")]
    Many(Box<VecDeque<Address>>),
}

/// An update on its way out.
#[derive(Clone, Copy, Debug)]
struct Update {
    time: EventTime,
    ord: u64,
    target: (EventTime, u64),
    left: Address,
    right: Address,
    revise: bool,
}

/// The core of the label join.
#[derive(Debug)]
pub struct LabelJoin {
    name: String,
    schema: SchemaRef,
    left_columns: usize,
    left_on: usize,
    right_on: usize,
    right_columns: Vec<usize>,
    within: Micros,
    /// Ids are words: equal hashes are equal ids.
    words: bool,
    index: Vec<HashTable<Entry>>,
    left: Rows,
    right: Rows,
    counts: JoinCounts,
    /// Schema of the kept right rows.
    kept: SchemaRef,
    /// The kept right rows by time, to be looked at when they expire.
    due: VecDeque<(EventTime, u64, Address)>,
    /// Right rows that expired without a left row and were not asked for yet.
    unmatched: Vec<RecordBatch>,
    /// Rows before this have expired.
    horizon: EventTime,
    /// What has changed since the last freeze, where that is asked for.
    changes: Option<Changes>,
    /// Imported rows that are not laid down yet.
    staged: Staged,
}

/// One side's input: its rows' hashes and keys, and where they are kept.
struct Side<'a> {
    times: &'a [EventTime],
    ords: &'a [u64],
    hashes: Vec<u64>,
    ids: ArrayRef,
    keys: Option<EncodedKeys>,
    first: Address,
}

impl LabelJoin {
    /// A join without rows. `right` is the schema of the right source's stream; with `tracked`, changes are noted for
    /// checkpoints that hold what is new.
    ///
    /// # Errors
    /// When an id's type cannot be a key.
    pub fn new(plan: &JoinPlan, right: &SchemaRef, tracked: bool) -> Result<Self, JoinError> {
        let (left_type, right_type) =
            (plan.schema.field(plan.left_on).data_type(), right.field(plan.right_on).data_type());
        for data_type in [left_type, right_type] {
            if !key::is_supported(data_type) {
                let source = KeyError::Unsupported(data_type.clone());
                return Err(JoinError::Key { join: plan.name.clone(), source });
            }
        }
        Ok(LabelJoin {
            name: plan.name.clone(),
            schema: update_schema(plan),
            left_columns: plan.schema.fields().len() - plan.right_columns.len(),
            left_on: plan.left_on,
            right_on: plan.right_on,
            right_columns: plan.right_columns.clone(),
            within: plan.within,
            words: key::is_word(std::slice::from_ref(left_type)) && key::is_word(std::slice::from_ref(right_type)),
            index: (0..SLOTS).map(|_| HashTable::new()).collect(),
            left: Rows::new(),
            right: Rows::new(),
            counts: JoinCounts::default(),
            kept: kept_schema(right, &kept_columns(plan)),
            due: VecDeque::new(),
            unmatched: Vec::new(),
            horizon: EventTime::MIN,
            changes: tracked.then(Changes::new),
            staged: Staged::default(),
        })
    }

    /// Columns of the updates: those of [`JoinPlan::schema`], then [`TARGET_TIME_COLUMN`], [`TARGET_ORD_COLUMN`] and
    /// [`REVISE_COLUMN`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes in rows of both sides, each sorted by `(_time, _ord)`, and returns the updates in the order of `(_time, _ord)`,
    /// several of one right row in the order in which their targets came. `_time` and `_ord` say where in the stream an
    /// update takes effect: an insert's are those of the left row, a revision's those of the later of its two rows.
    pub fn apply(&mut self, left: Option<&RecordBatch>, right: Option<&RecordBatch>) -> Option<RecordBatch> {
        self.lay_down(EventTime::MIN);
        let filled = |rows: &&RecordBatch| rows.num_rows() > 0;
        let left = left.filter(filled).map(|rows| self.keep_left(rows));
        let right_rows = right.filter(filled).map(|rows| self.project_right(rows));
        let right = right.filter(filled).zip(right_rows.as_ref()).map(|(rows, kept)| self.keep_right(rows, kept));
        let updates = self.merge(left.as_ref(), right.as_ref());
        (!updates.is_empty()).then(|| self.gather(&updates))
    }

    /// Forgets rows that no row at or after the watermark can match.
    pub fn advance(&mut self, watermark: EventTime) {
        let horizon = watermark.saturating_sub(self.within);
        self.lay_down(horizon);
        self.horizon = self.horizon.max(horizon);
        let mut lone = Vec::new();
        while let Some((_, _, at)) = self.due.pop_front_if(|(time, ..)| *time < horizon) {
            if !self.right.is_matched(at) {
                lone.push(at);
            }
        }
        if !lone.is_empty() {
            self.counts.unmatched += lone.len() as u64;
            let rows = Sources::of(&self.right, lone.iter().copied());
            let columns = self.kept.fields().iter().enumerate().map(|(c, field)| rows.column(c, field.data_type()));
            let rows = RecordBatch::try_new(Arc::clone(&self.kept), columns.collect());
            self.unmatched.push(rows.expect("columns as in the kept batches"));
        }
        for number in self.left.expire(horizon) {
            self.counts.unlabelled += self.forget(number, true);
        }
        for number in self.right.expire(horizon) {
            self.forget(number, false);
        }
    }

    /// Right rows that have expired without a left row since the last call, in the order of `(_time, _ord)`: `_time`,
    /// `_ord`, the id, and the columns that the join carries.
    pub fn take_unmatched(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.unmatched)
    }

    /// What became of the rows so far; a join that was imported begins at zero.
    pub fn counts(&self) -> JoinCounts {
        self.counts
    }

    /// Number of left and of right rows kept.
    pub fn kept(&self) -> (usize, usize) {
        (self.left.len(), self.right.len())
    }

    /// Bytes that rows and index take.
    pub fn memory_bytes(&self) -> usize {
        let index: usize = self.index.iter().map(HashTable::allocation_size).sum();
        let due = self.due.capacity() * size_of::<(EventTime, u64, Address)>();
        index + due + self.left.memory_bytes() + self.right.memory_bytes()
    }

    fn keep_left<'a>(&mut self, rows: &'a RecordBatch) -> Side<'a> {
        self.counts.left += rows.num_rows() as u64;
        let ids = ArrayRef::clone(rows.column(self.left_on));
        let (hashes, keys) = self.hash(&ids);
        let first = self.left.push(rows.clone(), keys.clone(), vec![false; rows.num_rows()]);
        Side { times: times(rows), ords: ords(rows), hashes, ids, keys, first }
    }

    fn keep_right<'a>(&mut self, rows: &'a RecordBatch, kept: &RecordBatch) -> Side<'a> {
        self.counts.right += rows.num_rows() as u64;
        let ids = ArrayRef::clone(rows.column(self.right_on));
        let (hashes, keys) = self.hash(&ids);
        let first = self.right.push(kept.clone(), keys.clone(), vec![false; rows.num_rows()]);
        for (row, (time, ord)) in times(rows).iter().zip(ords(rows)).enumerate() {
            let due = (*time, *ord, first.plus(row));
            if self.due.back().is_none_or(|last| *last <= due) {
                self.due.push_back(due);
            } else {
                // Out of order by no more than the disorder, hence near the end.
                let place = self.due.partition_point(|earlier| *earlier <= due);
                self.due.insert(place, due);
            }
        }
        Side { times: times(rows), ords: ords(rows), hashes, ids, keys, first }
    }

    fn project_right(&self, rows: &RecordBatch) -> RecordBatch {
        let columns: Vec<usize> = [0, 1, self.right_on].into_iter().chain(self.right_columns.iter().copied()).collect();
        rows.project(&columns).expect("the plan names columns of the right stream")
    }

    fn hash(&self, ids: &ArrayRef) -> (Vec<u64>, Option<EncodedKeys>) {
        let (ids, mut hashes) = (std::slice::from_ref(ids), Vec::with_capacity(ids.len()));
        key::hashes(ids, &mut hashes).expect("`new` has checked the types of ids");
        let keys = (!self.words).then(|| key::encode(ids).expect("`new` has checked the types of ids"));
        (hashes, keys)
    }

    /// Walks both sides in the order of `(_time, _ord)`.
    fn merge(&mut self, left: Option<&Side>, right: Option<&Side>) -> Vec<Update> {
        let mut updates = Vec::with_capacity(left.map_or(0, Side::len) + right.map_or(0, Side::len));
        let (mut l, mut r) = (0, 0);
        loop {
            let next_left = left.and_then(|side| side.order(l));
            let next_right = right.and_then(|side| side.order(r));
            match (next_left, next_right, left, right) {
                (Some(a), b, Some(side), _) if b.is_none_or(|b| a <= b) => {
                    self.apply_left(side, l, &mut updates);
                    l += 1;
                }
                (_, Some(_), _, Some(side)) => {
                    self.apply_right(side, r, &mut updates);
                    r += 1;
                }
                _ => break,
            }
        }
        // Stable: of two revisions at one place the second is of the later right row.
        let order = |u: &Update| (u.time, u.ord);
        if !updates.is_sorted_by_key(order) {
            updates.sort_by_key(order);
        }
        updates
    }

    fn apply_left(&mut self, side: &Side, row: usize, updates: &mut Vec<Update>) {
        let (at, target) = (side.first.plus(row), (side.times[row], side.ords[row]));
        let mut insert =
            Update { time: target.0, ord: target.1, target, left: at, right: Address::NONE, revise: false };
        if !side.ids.is_null(row) {
            let entry = entry_of(&mut self.index, (&self.left, &self.right), side.hashes[row], side.key(row));
            entry.left.push(at);
            let right = entry.right;
            if let Some(known) = self.right.order(right).filter(|known| near(*known, target, self.within)) {
                if !self.right.set_matched(right)
                    && let Some(changes) = &mut self.changes
                {
                    changes.met(false, right, side.hashes[row], known.1);
                }
                self.counts.labelled += u64::from(!self.left.set_matched(at));
                if known <= target {
                    insert.right = right;
                } else {
                    updates.push(Update { time: known.0, ord: known.1, right, revise: true, ..insert });
                }
            }
        }
        updates.push(insert);
    }

    fn apply_right(&mut self, side: &Side, row: usize, updates: &mut Vec<Update>) {
        if side.ids.is_null(row) {
            return;
        }
        let (at, order) = (side.first.plus(row), (side.times[row], side.ords[row]));
        let entry = entry_of(&mut self.index, (&self.left, &self.right), side.hashes[row], side.key(row));
        if self.right.order(entry.right).is_some_and(|known| known > order) {
            self.counts.superseded += 1;
            // So that it does not count as unmatched when its time has passed.
            self.right.set_matched(at);
            return;
        }
        entry.right = at;
        for left in entry.left.iter() {
            let Some(target) = self.left.order(left).filter(|target| near(order, *target, self.within)) else {
                continue;
            };
            self.right.set_matched(at);
            if !self.left.set_matched(left) {
                self.counts.labelled += 1;
                if let Some(changes) = &mut self.changes {
                    changes.met(true, left, side.hashes[row], target.1);
                }
            }
            let (time, ord) = order.max(target);
            updates.push(Update { time, ord, target, left, right: at, revise: true });
        }
    }

    /// Takes the rows of an expired chunk out of the index, then drops it; returns how many of them had met nothing.
    fn forget(&mut self, number: usize, is_left: bool) -> u64 {
        let (rows, id) = if is_left { (&self.left, self.left_on) } else { (&self.right, KEPT_ID) };
        let Some(chunk) = rows.chunk_numbered(number) else {
            return 0;
        };
        let unmatched = chunk.unmatched() as u64;
        for (_, batch) in chunk.batches(number) {
            let ids = ArrayRef::clone(batch.column(id));
            let (hashes, keys) = self.hash(&ids);
            for (row, hash) in hashes.into_iter().enumerate().filter(|(row, _)| !ids.is_null(*row)) {
                let (left, right) = (&self.left, &self.right);
                let key = keys.as_ref().map(|keys| keys.get(row));
                let table = &mut self.index[slot_of(hash)];
                let Ok(mut found) = table.find_entry(table_hash(hash), |e| e.is(hash, key, left, right)) else {
                    continue;
                };
                let entry = found.get_mut();
                entry.left.drop_front(|at| left.get(at).is_none());
                if entry.left.is_empty() && right.get(entry.right).is_none() {
                    found.remove();
                }
            }
        }
        for table in &mut self.index {
            if table.capacity() > 64 && table.len() * 8 < table.capacity() {
                table.shrink_to(table.len() * 2, |e| table_hash(e.hash));
            }
        }
        if is_left {
            self.left.remove(number)
        } else {
            self.right.remove(number)
        }
        unmatched
    }

    /// The columns of the updates.
    fn gather(&self, updates: &[Update]) -> RecordBatch {
        let schema = &self.schema;
        let left = Sources::of(&self.left, updates.iter().map(|u| u.left));
        let right = Sources::of(&self.right, updates.iter().map(|u| u.right));
        let utc = |values: Vec<EventTime>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        columns.push(utc(updates.iter().map(|u| u.time).collect()));
        columns.push(Arc::new(UInt64Array::from_iter_values(updates.iter().map(|u| u.ord))));
        columns.extend((2..self.left_columns).map(|c| left.column(c, schema.field(c).data_type())));
        let rights = 0..self.right_columns.len();
        columns.extend(rights.map(|c| right.column(KEPT_ID + 1 + c, schema.field(self.left_columns + c).data_type())));
        columns.push(utc(updates.iter().map(|u| u.target.0).collect()));
        columns.push(Arc::new(UInt64Array::from_iter_values(updates.iter().map(|u| u.target.1))));
        columns.push(Arc::new(BooleanArray::from_iter(updates.iter().map(|u| Some(u.revise)))));
        RecordBatch::try_new(Arc::clone(schema), columns).expect("the plan types the join's columns as its sources do")
    }
}

/// Where the id is among the kept columns of a right row.
const KEPT_ID: usize = 2;

/// The columns of a right row that are kept: `_time`, `_ord`, the id, and those that the join carries.
fn kept_columns(plan: &JoinPlan) -> Vec<usize> {
    [0, 1, plan.right_on].into_iter().chain(plan.right_columns.iter().copied()).collect()
}

/// Whether a right and a left row are close enough in time.
fn near(right: (EventTime, u64), left: (EventTime, u64), within: Micros) -> bool {
    right.0.saturating_sub(left.0) <= within && left.0.saturating_sub(right.0) <= within
}

/// What a slot's table takes for a hash: within a slot the highest bits, by which the table tells entries apart, are equal.
fn table_hash(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The entry of an id, made if there is none.
fn entry_of<'a>(
    index: &'a mut [HashTable<Entry>],
    (left, right): (&Rows, &Rows),
    hash: u64,
    key: Option<&[u8]>,
) -> &'a mut Entry {
    index[slot_of(hash)]
        .entry(table_hash(hash), |e| e.is(hash, key, left, right), |e| table_hash(e.hash))
        .or_insert_with(|| Entry { hash, left: Lefts::None, right: Address::NONE })
        .into_mut()
}

impl Entry {
    fn is(&self, hash: u64, key: Option<&[u8]>, left: &Rows, right: &Rows) -> bool {
        self.hash == hash
            && key.is_none_or(|key| {
                let mut own = self.left.iter().rev().filter_map(|at| left.key(at)).chain(right.key(self.right));
                own.next() == Some(key)
            })
    }
}

impl Lefts {
    fn push(&mut self, at: Address) {
        match self {
            Lefts::None => *self = Lefts::One(at),
            Lefts::One(first) => *self = Lefts::Many(Box::new(VecDeque::from([*first, at]))),
            Lefts::Many(all) => all.push_back(at),
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = Address> {
        let (one, many) = match self {
            Lefts::None => (None, None),
            Lefts::One(at) => (Some(*at), None),
            Lefts::Many(all) => (None, Some(all.iter().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn is_empty(&self) -> bool {
        match self {
            Lefts::None => true,
            Lefts::One(_) => false,
            Lefts::Many(all) => all.is_empty(),
        }
    }

    /// Drops rows from the front for as long as they are gone.
    fn drop_front(&mut self, gone: impl Fn(Address) -> bool) {
        match self {
            Lefts::One(at) if gone(*at) => *self = Lefts::None,
            Lefts::Many(all) => {
                while all.front().is_some_and(|at| gone(*at)) {
                    all.pop_front();
                }
            }
            _ => {}
        }
    }
}

impl Side<'_> {
    fn key(&self, row: usize) -> Option<&[u8]> {
        self.keys.as_ref().map(|keys| keys.get(row))
    }

    fn len(&self) -> usize {
        self.times.len()
    }

    fn order(&self, row: usize) -> Option<(EventTime, u64)> {
        (row < self.len()).then(|| (self.times[row], self.ords[row]))
    }
}

/// Kept rows to gather.
struct Sources<'a> {
    /// The batches that hold them; `None` stands for a lone null.
    batches: Vec<Option<&'a RecordBatch>>,
    /// For each row, its batch and the row within.
    rows: Vec<(usize, usize)>,
    /// Whether the rows are some of one batch, in a row.
    contiguous: bool,
}

impl<'a> Sources<'a> {
    fn of(kept: &'a Rows, addresses: impl Iterator<Item = Address>) -> Self {
        let (mut batches, mut numbers) = (Vec::<Option<&RecordBatch>>::new(), HashMap::new());
        let mut last = None;
        let rows: Vec<(usize, usize)> = addresses
            .map(|at| {
                let (batch, row) = kept.get(at).map_or((None, 0), |(batch, row)| (Some(batch), row));
                let batch_address = batch.map(std::ptr::from_ref);
                let number = match last {
                    Some((address, number)) if address == batch_address => number,
                    _ => *numbers.entry(batch_address).or_insert_with(|| {
                        batches.push(batch);
                        batches.len() - 1
                    }),
                };
                last = Some((batch_address, number));
                (number, row)
            })
            .collect();
        let contiguous = batches.len() == 1 && batches[0].is_some() && rows.windows(2).all(|w| w[0].1 + 1 == w[1].1);
        Sources { batches, rows, contiguous }
    }

    fn column(&self, column: usize, data_type: &DataType) -> ArrayRef {
        match &self.batches[..] {
            [None] => return new_null_array(data_type, self.rows.len()),
            [Some(batch)] if self.contiguous => return batch.column(column).slice(self.rows[0].1, self.rows.len()),
            _ => {}
        }
        let absent = new_null_array(data_type, 1);
        let part = |batch: &Option<&'a RecordBatch>| batch.map_or(&absent, |batch| batch.column(column)).as_ref();
        let parts: Vec<&dyn Array> = self.batches.iter().map(part).collect();
        interleave(&parts, &self.rows).expect("the batches of a stream have one schema")
    }
}

/// The schema of a join's updates.
pub fn update_schema(plan: &JoinPlan) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let left_columns = plan.schema.fields().len() - plan.right_columns.len();
    let field = |(c, field): (usize, &Arc<Field>)| match c < left_columns {
        true => Arc::clone(field),
        false => Arc::new(field.as_ref().clone().with_nullable(true)),
    };
    let mut fields: Vec<Arc<Field>> = plan.schema.fields().iter().enumerate().map(field).collect();
    fields.push(Arc::new(Field::new(TARGET_TIME_COLUMN, time, false)));
    fields.push(Arc::new(Field::new(TARGET_ORD_COLUMN, DataType::UInt64, false)));
    fields.push(Arc::new(Field::new(REVISE_COLUMN, DataType::Boolean, false)));
    Arc::new(Schema::new(fields))
}

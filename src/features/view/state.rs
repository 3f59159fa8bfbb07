//! The state of a view and the two ways to feed it.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;

use super::ViewError;
use super::columns::{Answers, ords, read_entries, times};
use super::dense::{Dense, chunk_words};
use super::index::{Handle, Index};
use super::keys::{Key, Keys, Names, Texts, are_words};
use super::layout::{Kind, Layout, Level, NULL_TEXT};
use super::own::{AHEAD_BUCKET, AHEAD_RECORD};
use super::refresh::Refresh;
use super::slab::Slab;
use super::small::{self, DIRTY, FREE, ScanScratch};
use super::snapshot::{Changes, fingerprint};
use super::value::{Any, FloatSquares, FloatSum, Raw, Shape};
use crate::base::{EventTime, Large, LargeBox, Micros, slot_of};
use crate::plan::model::{Order, ViewPlan};

/// Class number of dense records in a handle.
pub(super) const DENSE: u32 = 15;
pub(super) const CLASS_SHIFT: u32 = 28;
pub(super) const BLOCK_MASK: u32 = (1 << CLASS_SHIFT) - 1;
/// A compact record of the largest class holds at least this many entries.
const SMALL_ENTRIES: usize = 24;

/// A busy key is held by rows up to this many, and in tiles beyond where its view has them.
const ROWS_MAX: u64 = if cfg!(test) { 70 } else { 1024 };

/// How a view is run, beyond what its plan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewOptions {
    /// Order in which rows come.
    pub order: Order,
    /// Whether [`ViewState::refresh`] will be asked.
    pub refresh: bool,
    /// For join streams: how long after a row its revision may come (the join's `within`). `None`: rows are not revised.
    pub revise_within: Option<Micros>,
    /// Whether [`ViewState::freeze`] will be asked: changes of keys are tracked for it.
    pub checkpoints: bool,
}

/// A batch of updates for [`ViewState::apply_merged`], in order of (`_time`, `_ord`).
#[derive(Clone, Copy, Debug)]
pub struct Updates<'a> {
    /// Rows of the view's stream. Plain rows are inserted at their `_time`.
    pub batch: &'a RecordBatch,
    /// For join streams.
    pub revisions: Option<Revisions>,
    /// Whether each update also yields a row of answers, as of its time.
    pub answers: bool,
}

/// Columns of an update batch that say which rows are revisions: such a row gives new inputs to the row at (target time,
/// target position) of the same entity, from its own `_time` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revisions {
    /// `Timestamp(µs, UTC)`: time of the row itself, for insertions and revisions alike.
    pub target_time: usize,
    /// `UInt64`: position of the row itself.
    pub target_ord: usize,
    /// `Boolean`: a revision, not an insertion.
    pub revise: usize,
}

/// Answers of [`ViewState::apply_merged`]: one array per aggregate of the plan, in its order.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// One row per question.
    pub questions: Vec<ArrayRef>,
    /// One row per update, if they were asked for.
    pub updates: Option<Vec<ArrayRef>>,
}

/// How far the counting of busy records' bytes has come.
#[derive(Default)]
struct Counted {
    next: usize,
    bytes: usize,
    /// All of them, when they were counted last.
    last: usize,
}

/// The state of one view on one worker.
pub struct ViewState {
    pub(super) layout: Layout,
    pub(super) words: bool,
    entity: Vec<usize>,
    pub(super) index: Index,
    /// Compact records by size class.
    pub(super) small: Vec<Slab>,
    pub(super) dense: Vec<Option<LargeBox<Dense>>>,
    pub(super) dense_free: Vec<u32>,
    counted: Counted,
    /// Number of the batch that is being taken in.
    pub(super) batch: u32,
    /// Chunks of the dense records' queues.
    pub(super) chunks: Slab,
    pub(super) names: Names,
    pub(super) texts: Texts,
    pub(super) refresh: Option<Refresh>,
    pub(super) sweep: super::sweep::Sweep,
    pub(super) changes: Changes,
    pub(super) missed_revisions: u64,
    pub(super) scan: ScanScratch,
    pub(super) bounds: Bounds,
    keys: Keys,
    question_keys: Keys,
    entries: Vec<u64>,
    answers: Option<Answers>,
    question_answers: Option<Answers>,
}

/// The bounds of the windows at a head; most heads round to the same tile as the one before.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) list: Vec<i64>,
    /// Widths of the windows, when all are trailing and none is rounded.
    widths: Vec<i64>,
    /// Per window with a grain: heads from the first to before the second have the bound.
    same: Vec<(i64, i64)>,
}

impl Bounds {
    pub(super) fn new(layout: &Layout) -> Self {
        let windows = layout.windows.len();
        let widths = layout.windows.iter().map(|w| w.width.filter(|_| w.grain.is_none())).collect::<Option<Vec<_>>>();
        Bounds { widths: widths.unwrap_or_default(), list: vec![i64::MIN; windows], same: vec![(0, 0); windows] }
    }

    /// The head from which on a window with a grain has another bound than the one set.
    #[inline(always)]
    pub(super) fn until(&self, window: usize) -> i64 {
        self.same[window].1
    }

    #[inline(always)]
    pub(super) fn set(&mut self, layout: &Layout, head: i64) {
        if !self.widths.is_empty() {
            for (bound, width) in self.list.iter_mut().zip(&self.widths) {
                *bound = head.saturating_sub(*width);
            }
            return;
        }
        for (i, window) in layout.windows.iter().enumerate() {
            match (window.width, window.grain) {
                (None, _) => {}
                (Some(width), None) => self.list[i] = head.saturating_sub(width),
                (Some(width), Some(grain)) => {
                    let (from, to) = self.same[i];
                    if head < from || head >= to {
                        self.list[i] = window.bound(head);
                        let start = (self.list[i].saturating_add(1)).saturating_add(width);
                        self.same[i] = (start, start.saturating_add(grain));
                    }
                }
            }
        }
    }
}

impl ViewState {
    /// An empty state of a view whose stream has this schema (`_time` and `_ord` first).
    ///
    /// # Errors
    /// When the plan asks for what this room does not compute, or does not fit the schema.
    pub fn new(plan: &ViewPlan, schema: &Schema, options: ViewOptions) -> Result<Self, ViewError> {
        let layout = Layout::new(plan, schema, options.order, options.refresh, options.revise_within)?;
        let types = plan
            .entity
            .iter()
            .map(|column| {
                schema.fields().get(*column).map(|f| f.data_type().clone()).ok_or_else(|| ViewError::Column {
                    view: plan.name.clone(),
                    what: format!("entity column {column}"),
                })
            })
            .collect::<Result<Vec<DataType>, _>>()?;
        if layout.inputs.iter().filter(|i| matches!(i.kind, Kind::Wide | Kind::Unsigned)).count() > 64 {
            let what = "more than 64 inputs of 64-bit integers or times".to_owned();
            return Err(ViewError::Column { view: plan.name.clone(), what });
        }
        let mut small = Vec::new();
        let mut words = (layout.entries_at + layout.stride).next_power_of_two().max(8);
        loop {
            small.push(Slab::new(words));
            if small::capacity(&layout, words) >= SMALL_ENTRIES || small.len() == DENSE as usize {
                break;
            }
            words *= 2;
        }
        let words = are_words(&types)?;
        Ok(ViewState {
            words,
            changes: Changes::new(options.checkpoints, fingerprint(&layout, words)),
            entity: plan.entity.clone(),
            index: Index::new(),
            small,
            dense: Vec::new(),
            dense_free: Vec::new(),
            counted: Counted::default(),
            batch: 0,
            chunks: Slab::new(chunk_words(&layout)),
            names: Names::default(),
            texts: Texts::default(),
            refresh: options.refresh.then(Refresh::default),
            sweep: super::sweep::Sweep::default(),
            missed_revisions: 0,
            scan: ScanScratch::new(&layout),
            bounds: Bounds::new(&layout),
            keys: Keys::default(),
            question_keys: Keys::default(),
            entries: Vec::new(),
            answers: Some(Answers::new(&layout)),
            question_answers: Some(Answers::new(&layout)),
            layout,
        })
    }

    /// Feeds rows that are updates and questions at once: a view over its spine's own stream. `batch` has the columns of
    /// the view's stream at their places (more may follow), sorted by (`_time`, `_ord`). Returns one array per aggregate.
    ///
    /// # Errors
    /// When the batch does not have the columns of the plan; nothing is applied then.
    pub fn apply_own(&mut self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, ViewError> {
        let times = times(batch, 0)?;
        let mut keys = std::mem::take(&mut self.keys);
        let mut entries = std::mem::take(&mut self.entries);
        let read = self.read(
            batch,
            &self.entity_columns(batch, &self.entity)?,
            times,
            ords(batch, 1)?,
            &mut keys,
            &mut entries,
        );
        let mut answers = self.answers.take().unwrap_or_else(|| Answers::new(&self.layout));
        let result = match read {
            Ok(()) => {
                answers.begin(times.len());
                let rows = self.layout.rows();
                let windows = if rows.paired { rows.windows.len() } else { 0 };
                match (self.layout.solo, windows) {
                    (Some(Level::Sum), 1) => self.run_own::<FloatSum, 1>(times, &keys, &entries, &mut answers),
                    (Some(Level::Sum), 2) => self.run_own::<FloatSum, 2>(times, &keys, &entries, &mut answers),
                    (Some(Level::Sum), 3) => self.run_own::<FloatSum, 3>(times, &keys, &entries, &mut answers),
                    (Some(Level::Sum), _) => self.run_own::<FloatSum, 0>(times, &keys, &entries, &mut answers),
                    (Some(Level::Squares), 1) => self.run_own::<FloatSquares, 1>(times, &keys, &entries, &mut answers),
                    (Some(Level::Squares), 2) => self.run_own::<FloatSquares, 2>(times, &keys, &entries, &mut answers),
                    (Some(Level::Squares), 3) => self.run_own::<FloatSquares, 3>(times, &keys, &entries, &mut answers),
                    (Some(Level::Squares), _) => self.run_own::<FloatSquares, 0>(times, &keys, &entries, &mut answers),
                    _ => self.run_own::<Any, 0>(times, &keys, &entries, &mut answers),
                }
                let result = answers.finish(&self.layout, &self.texts);
                self.texts.settle();
                result
            }
            Err(error) => Err(error),
        };
        self.keys = keys;
        self.entries = entries;
        self.answers = Some(answers);
        result
    }

    /// Feeds updates and questions of two streams, both sorted by (`_time`, `_ord`); at equal time updates come first.
    /// `entity` are the columns of the question batch that hold the view's entity, in the plan's order.
    ///
    /// # Errors
    /// When a batch does not have the columns of the plan; nothing is applied then.
    pub fn apply_merged(
        &mut self,
        updates: Option<Updates<'_>>,
        questions: Option<(&RecordBatch, &[usize])>,
    ) -> Result<Merged, ViewError> {
        let none: &[i64] = &[];
        let mut keys = std::mem::take(&mut self.keys);
        let mut question_keys = std::mem::take(&mut self.question_keys);
        let mut entries = std::mem::take(&mut self.entries);
        let question_times = match questions {
            Some((batch, entity)) => {
                question_keys.read(&self.entity_columns(batch, entity)?, self.words)?;
                &times(batch, 0)?[..]
            }
            None => none,
        };
        let (mut due, mut revise) = (none, None);
        if let Some(updates) = updates {
            let batch = updates.batch;
            due = &times(batch, 0)?[..];
            let (own, ord) = match updates.revisions {
                Some(columns) => {
                    let flags = batch.columns().get(columns.revise).and_then(|c| c.as_boolean_opt());
                    let what = || format!("column {} does not say which rows are revisions", columns.revise);
                    revise = Some(flags.ok_or_else(|| ViewError::Batch { what: what() })?);
                    (times(batch, columns.target_time)?, ords(batch, columns.target_ord)?)
                }
                None => (times(batch, 0)?, ords(batch, 1)?),
            };
            let columns = self.entity_columns(batch, &self.entity)?;
            self.read(batch, &columns, own, ord, &mut keys, &mut entries)?;
        }
        let mut update_answers =
            updates.filter(|u| u.answers).map(|_| self.answers.take().unwrap_or_else(|| Answers::new(&self.layout)));
        let mut answers = self.question_answers.take().unwrap_or_else(|| Answers::new(&self.layout));
        answers.begin(question_times.len());
        if let Some(a) = &mut update_answers {
            a.begin(due.len());
        }
        let stride = self.layout.stride;
        let (mut update, mut question) = (0, 0);
        while update < due.len() || question < question_times.len() {
            if update < due.len() && (question == question_times.len() || due[update] <= question_times[question]) {
                if let Some(next) = keys.hashes.get(update + AHEAD_BUCKET) {
                    self.index.prefetch(*next);
                }
                if let Some(next) = keys.hashes.get(update + AHEAD_RECORD) {
                    let _ = self.prefetch_record(*next);
                }
                let entry = &entries[update * stride..(update + 1) * stride];
                if keys.is_none(update) {
                    self.release_texts(entry);
                } else {
                    let key = keys.get(update);
                    if revise.is_some_and(|r| r.is_valid(update) && r.value(update)) {
                        self.revise(key, keys.hashes[update], entry);
                    } else {
                        self.insert(key, keys.hashes[update], entry);
                    }
                }
                if let Some(answers) = &mut update_answers {
                    let key = (!keys.is_none(update)).then(|| (keys.get(update), keys.hashes[update]));
                    self.answer(key, due[update], answers);
                }
                update += 1;
            } else {
                if let Some(next) = question_keys.hashes.get(question + AHEAD_BUCKET) {
                    self.index.prefetch(*next);
                }
                if let Some(next) = question_keys.hashes.get(question + AHEAD_RECORD) {
                    let _ = self.prefetch_record(*next);
                }
                let key = (!question_keys.is_none(question))
                    .then(|| (question_keys.get(question), question_keys.hashes[question]));
                self.answer(key, question_times[question], &mut answers);
                question += 1;
            }
        }
        let merged = Merged {
            questions: answers.finish(&self.layout, &self.texts)?,
            updates: match &mut update_answers {
                Some(answers) => Some(answers.finish(&self.layout, &self.texts)?),
                None => None,
            },
        };
        self.texts.settle();
        self.keys = keys;
        self.question_keys = question_keys;
        self.entries = entries;
        self.question_answers = Some(answers);
        if update_answers.is_some() {
            self.answers = update_answers;
        }
        Ok(merged)
    }

    /// Number of keys that have state.
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// Revisions that found no row any more: it had left every window.
    pub fn missed_revisions(&self) -> u64 {
        self.missed_revisions
    }

    /// Bytes held: records, queues, index, names.
    pub fn memory_bytes(&self) -> usize {
        self.dense.iter().flatten().map(|d| d.bytes()).sum::<usize>() + self.pooled_bytes()
    }

    /// As [`Self::memory_bytes`], but for the busy records as they were when they were counted: so many with each call.
    pub fn count_bytes(&mut self, records: usize) -> usize {
        let Counted { next, bytes, last } = &mut self.counted;
        let end = (*next + records).min(self.dense.len());
        *bytes += self.dense[*next..end].iter().flatten().map(|d| d.bytes()).sum::<usize>();
        *next = end;
        if end == self.dense.len() {
            *last = *bytes;
            (*next, *bytes) = (0, 0);
        }
        (*last).max(*bytes) + self.pooled_bytes()
    }

    fn pooled_bytes(&self) -> usize {
        self.small.iter().map(Slab::bytes).sum::<usize>()
            + self.chunks.bytes()
            + self.index.bytes()
            + self.names.bytes()
            + self.texts.bytes()
            + self.changes.bytes()
    }

    /// Sparse keys, and the bytes of their records and of their share of the index.
    pub fn sparse_keys(&self) -> (usize, usize) {
        let busy = self.dense.len() - self.dense_free.len();
        let sparse = self.keys() - busy;
        let share = self.index.bytes() * sparse / self.keys().max(1);
        (sparse, self.small.iter().map(Slab::bytes_used).sum::<usize>() + share)
    }

    fn entity_columns(&self, batch: &RecordBatch, entity: &[usize]) -> Result<Vec<ArrayRef>, ViewError> {
        entity
            .iter()
            .map(|column| {
                let what = || format!("there is no entity column {column}");
                batch.columns().get(*column).cloned().ok_or_else(|| ViewError::Batch { what: what() })
            })
            .collect()
    }

    fn read(
        &mut self,
        batch: &RecordBatch,
        entity: &[ArrayRef],
        times: &[i64],
        ords: &[u64],
        keys: &mut Keys,
        entries: &mut Vec<u64>,
    ) -> Result<(), ViewError> {
        keys.read(entity, self.words)?;
        read_entries(&self.layout, batch, times, ords, &mut self.texts, entries)
    }

    /// Answers one question of a key at an event time.
    fn answer(&mut self, key: Option<(Key<'_>, u64)>, time: EventTime, answers: &mut Answers) {
        let head = time.saturating_sub(self.layout.delay);
        let found = key.and_then(|(key, hash)| self.find(key, hash));
        // A question to a busy key lets go of rows.
        if let Some(handle) = found.filter(|handle| handle >> CLASS_SHIFT == DENSE) {
            self.keep(handle);
        }
        self.bounds.set(&self.layout, head);
        let Self { layout, small, dense, chunks, texts, scan, bounds, .. } = self;
        let mut raw = answers.row(layout);
        match found {
            None => raw.clear(),
            Some(handle) if handle >> CLASS_SHIFT != DENSE => {
                let record = small[(handle >> CLASS_SHIFT) as usize].get(handle & BLOCK_MASK);
                small::query::<Any>(layout, record, head, &bounds.list, scan, &mut raw);
            }
            Some(handle) => {
                if let Some(dense) = &mut dense[(handle & BLOCK_MASK) as usize] {
                    ask::<Any>(layout, dense, chunks, texts, head, &bounds.list, &mut raw);
                }
            }
        }
        answers.done(&self.layout, &self.texts);
    }

    #[inline(always)]
    pub(super) fn find(&self, key: Key<'_>, hash: u64) -> Option<Handle> {
        self.index.find(hash, |handle| self.is_key(handle, key)).map(|(_, handle)| handle)
    }

    #[inline(always)]
    pub(super) fn is_key(&self, handle: Handle, key: Key<'_>) -> bool {
        let held = self.key_word(handle);
        match key {
            Key::Word(word) => held == word,
            Key::Bytes(bytes) => self.names.get(held) == bytes,
        }
    }

    /// The key word of a record: the key itself, or the number of its name.
    #[inline(always)]
    pub(super) fn key_word(&self, handle: Handle) -> u64 {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        if class != DENSE {
            self.small[class as usize].get(block)[0]
        } else {
            self.dense[block as usize].as_ref().map_or(0, |d| d.key)
        }
    }

    /// The hash of a record's key.
    pub(super) fn hash_of(&self, key_word: u64) -> u64 {
        if self.words { Key::Word(key_word).hash() } else { Key::Bytes(self.names.get(key_word)).hash() }
    }

    #[inline(always)]
    pub(super) fn find_or_make(&mut self, key: Key<'_>, hash: u64) -> Handle {
        match self.find(key, hash) {
            Some(found) => found,
            None => self.make(key, hash),
        }
    }

    #[inline(never)]
    fn make(&mut self, key: Key<'_>, hash: u64) -> Handle {
        let word = match key {
            Key::Word(word) => word,
            Key::Bytes(bytes) => self.names.add(bytes),
        };
        let block = self.small[0].alloc();
        let record = self.small[0].get_mut(block);
        small::init(&self.layout, record, word);
        small::set_stamp(record, self.changes.made(key, hash));
        self.index.insert(hash, block);
        block
    }

    fn insert(&mut self, key: Key<'_>, hash: u64, entry: &[u64]) {
        let handle = self.find_or_make(key, hash);
        self.touch(handle, hash);
        let head = (entry[0] as i64).saturating_sub(self.layout.delay);
        let handle = self.insert_at::<Any>(hash, handle, entry, head);
        // A key that is only added to must move on, too, now and then.
        if handle >> CLASS_SHIFT == DENSE
            && let Some(dense) = &mut self.dense[(handle & BLOCK_MASK) as usize]
            && dense.queue.end.is_multiple_of(64)
        {
            let layout = self.layout.of(dense);
            self.bounds.set(layout, dense.head);
            dense.leave::<Any>(layout, &self.chunks, &self.bounds.list);
            let texts = &mut self.texts;
            dense.evict(layout, &mut self.chunks, |entry| release(layout, texts, entry));
        }
    }

    /// Adds a row to a record; no later question ends before `head`. Returns the record's new handle.
    #[inline(always)]
    pub(super) fn insert_at<S: Shape>(&mut self, hash: u64, handle: Handle, entry: &[u64], head: i64) -> Handle {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let Self { layout, small, dense, chunks, changes, .. } = self;
        if class != DENSE {
            let record = small[class as usize].get_mut(block);
            if layout.refresh {
                mark(&mut self.refresh, record);
            }
            if small::insert::<S>(layout, record, entry) {
                return handle;
            }
            return self.insert_in_full(hash, handle, entry, head);
        }
        if let Some(dense) = dense[block as usize].as_deref_mut() {
            dense.mark(&mut self.refresh);
            if dense.held && entry[0] as i64 <= dense.newest {
                changes.keep_tail(slot_of(hash), block, dense, layout.of(dense), chunks, entry);
            }
            dense.insert::<S>(layout.of(dense), chunks, entry, head);
            if dense.outgrows_rows() {
                self.tile(block, hash);
            }
        }
        handle
    }

    /// Adds a row to a full compact record: old rows go first, else the record grows, else it becomes dense.
    #[inline(never)]
    fn insert_in_full(&mut self, hash: u64, handle: Handle, entry: &[u64], head: i64) -> Handle {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let Self { layout, small, texts, .. } = self;
        let record = small[class as usize].get_mut(block);
        let newest = small::newest(layout, record).unwrap_or(i64::MIN).saturating_sub(layout.delay);
        let gone = small::expired(layout, record, newest.max(head.min((entry[0] as i64).saturating_sub(layout.delay))));
        if gone > 0 {
            small::drop_front(layout, record, gone, |entry| release(layout, texts, entry));
            small::insert::<Any>(layout, record, entry);
            return handle;
        }
        let new = if (class as usize) + 1 < small.len() {
            self.resize(handle, class + 1)
        } else {
            self.thicken(handle, head)
        };
        self.index.replace(hash, handle, new);
        if new >> CLASS_SHIFT == DENSE {
            if let Some(dense) = self.dense[(new & BLOCK_MASK) as usize].as_deref_mut() {
                dense.insert::<Any>(self.layout.of(dense), &mut self.chunks, entry, head);
            }
        } else {
            small::insert::<Any>(
                &self.layout,
                self.small[(new >> CLASS_SHIFT) as usize].get_mut(new & BLOCK_MASK),
                entry,
            );
        }
        new
    }

    /// Moves a compact record to a block of another class; returns its new handle.
    pub(super) fn resize(&mut self, handle: Handle, to: u32) -> Handle {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let new = self.small[to as usize].alloc();
        let (low, high) = self.small.split_at_mut(class.max(to) as usize);
        let (from, into) =
            if class < to { (&mut low[class as usize], &mut high[0]) } else { (&mut high[0], &mut low[to as usize]) };
        let record = from.get_mut(block);
        let used = self.layout.entries_at + small::count(record) * self.layout.stride;
        into.get_mut(new)[..used].copy_from_slice(&record[..used]);
        record[1] = FREE;
        from.release(block);
        to << CLASS_SHIFT | new
    }

    /// Makes a compact record dense; returns its new handle.
    fn thicken(&mut self, handle: Handle, head: i64) -> Handle {
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let Self { layout, small, chunks, .. } = self;
        let record = small[class as usize].get_mut(block);
        let by_rows = layout.by_rows.is_some();
        let layout = layout.rows();
        let mut dense = Dense::new(layout, record[0]);
        dense.by_rows = by_rows;
        dense.stamp = small::stamp(record);
        (dense.dirty, dense.due) = small::told(layout, record);
        if layout.forever {
            dense.absorbed = small::base_rows(layout, record);
            for (i, pair) in layout.life_pairs.iter().enumerate() {
                dense.sums[*pair] = small::base_sums(layout, record, i);
            }
            for i in 0..layout.life_extrema.len() {
                dense.base[i] = small::base_extrema(layout, record, i);
                dense.life[i] = dense.base[i];
            }
        }
        for entry in small::entries(layout, record).chunks_exact(layout.stride) {
            dense.newest = entry[0] as i64;
            dense.queue.push::<Any>(layout, chunks, entry);
        }
        dense.advance::<Any>(layout, chunks, head);
        record[1] = FREE;
        small[class as usize].release(block);
        self.add_dense(dense)
    }

    /// Puts a busy key's rows into tiles.
    #[inline(never)]
    pub(super) fn tile(&mut self, block: u32, hash: u64) {
        if self.dense[block as usize].as_ref().is_some_and(|dense| dense.held) {
            self.write_held(slot_of(hash));
        }
        let Self { layout, dense, chunks, .. } = self;
        let Some(old) = &mut dense[block as usize] else { return };
        let rows = layout.of(old);
        let mut new = Dense::new(layout, old.key);
        (new.stamp, new.dirty, new.due, new.newest) = (old.stamp, old.dirty, old.due, old.newest);
        let entries: Vec<u64> =
            old.queue.parts(rows, chunks, old.first_needed(rows), old.queue.end).flatten().copied().collect();
        for entry in entries.chunks_exact(layout.stride) {
            new.queue.push::<Any>(layout, chunks, entry);
        }
        new.advance::<Any>(layout, chunks, old.head);
        new.absorbed = old.absorbed;
        old.queue.clear(chunks);
        **old = new;
    }

    pub(super) fn add_dense(&mut self, dense: Dense) -> Handle {
        let dense = Some(LargeBox::new_in(dense, Large));
        let block = match self.dense_free.pop() {
            Some(block) => {
                self.dense[block as usize] = dense;
                block
            }
            None => {
                self.dense.push(dense);
                self.dense.len() as u32 - 1
            }
        };
        DENSE << CLASS_SHIFT | block
    }

    /// Gives a row new inputs.
    fn revise(&mut self, key: Key<'_>, hash: u64, entry: &[u64]) {
        let Some(handle) = self.find(key, hash) else {
            self.missed_revisions += 1;
            return self.release_texts(entry);
        };
        self.touch(handle, hash);
        let (class, block) = (handle >> CLASS_SHIFT, handle & BLOCK_MASK);
        let Self { layout, small, dense, chunks, texts, refresh, .. } = self;
        let found = if class != DENSE {
            let record = small[class as usize].get_mut(block);
            let (at, end) = (layout.entries_at, layout.entries_at + small::count(record) * layout.stride);
            let place = (at..end)
                .step_by(layout.stride)
                .find(|at| record[*at] == entry[0] && layout.ord.is_none_or(|ord| record[*at + ord] == entry[ord]));
            if let Some(place) = place {
                let old = &mut record[place..place + layout.stride];
                release(layout, texts, old);
                old.copy_from_slice(entry);
                mark(refresh, record);
            }
            place.is_some()
        } else {
            dense[block as usize].as_deref_mut().is_some_and(|dense| {
                let found = dense.revise(layout.of(dense), chunks, entry, |old| release(layout, texts, old));
                if found {
                    dense.mark(refresh);
                }
                found
            })
        };
        if !found {
            self.missed_revisions += 1;
            self.release_texts(entry);
        }
    }

    pub(super) fn release_texts(&mut self, entry: &[u64]) {
        release(&self.layout, &mut self.texts, entry);
    }

    /// Splits a handle into class (or none for dense) and block.
    pub(super) fn place(handle: Handle) -> (Option<usize>, u32) {
        let class = handle >> CLASS_SHIFT;
        ((class != DENSE).then_some(class as usize), handle & BLOCK_MASK)
    }

    /// The handle of a block.
    pub(super) fn handle(class: Option<usize>, block: u32) -> Handle {
        class.map_or(DENSE, |c| c as u32) << CLASS_SHIFT | block
    }
}

/// Asks a dense record at a head: moving on with it, or looking back.
#[inline(always)]
pub(super) fn ask<S: Shape>(
    layout: &Layout,
    dense: &mut Dense,
    chunks: &mut Slab,
    texts: &mut Texts,
    head: i64,
    bounds: &[i64],
    raw: &mut Raw<'_>,
) {
    let layout = layout.of(dense);
    if head < dense.head {
        return dense.peek(layout, chunks, head, bounds, raw);
    }
    dense.advance::<S>(layout, chunks, head);
    dense.leave::<S>(layout, chunks, bounds);
    dense.evict(layout, chunks, |entry| release(layout, texts, entry));
    dense.answer(layout, chunks, bounds, raw);
}

/// Takes back an entry's uses of texts.
#[inline(always)]
pub(super) fn release(layout: &Layout, texts: &mut Texts, entry: &[u64]) {
    if layout.texts {
        for input in layout.inputs.iter().filter(|i| i.kind == Kind::Bytes) {
            if entry[input.word] != NULL_TEXT {
                texts.release(entry[input.word]);
            }
        }
    }
}

impl Dense {
    /// Whether it has more rows than are kept where tiles would do.
    #[inline(always)]
    pub(super) fn outgrows_rows(&self) -> bool {
        self.by_rows && self.queue.end - self.queue.first > ROWS_MAX
    }

    /// Notes that a dense record changed, where refresh is on.
    #[inline(always)]
    pub(super) fn mark(&mut self, refresh: &mut Option<Refresh>) {
        if let Some(refresh) = refresh
            && !std::mem::replace(&mut self.dirty, true)
        {
            refresh.dirty.push(self.key);
        }
    }
}

/// Notes that a compact record changed, where refresh is on.
#[inline(always)]
pub(super) fn mark(refresh: &mut Option<Refresh>, record: &mut [u64]) {
    if let Some(refresh) = refresh
        && record[1] & DIRTY == 0
    {
        record[1] |= DIRTY;
        refresh.dirty.push(record[0]);
    }
}

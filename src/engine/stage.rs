//! Feature views and label joins as operators.
//!
//! A stage receives the spine's rows and, where its view reads another stream, that stream's updates; both on the worker
//! that owns the entity's slot. When a tick is complete it merges them by (time, position), updates before spine rows at
//! one time, and answers each spine row with its columns. State: that of [`ViewState`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use timely::dataflow::Scope;

use super::EngineError;
use super::checkpoint::Saver;
use super::figures::Usual;
use super::letters::letters;
use super::online_redis::AllValues;
use super::shared::Shared;
use super::status::flow::Node;
use super::ticked::{Control, Port, Rows, Slice, TickLogic, per_tick};
use crate::base::{EventTime, Micros, Tick, format_duration};
use crate::features::join::LabelJoin;
use crate::features::view::{Merged, Refreshed, Revisions, Updates, ViewOptions, ViewState};
use crate::ingest::DeadLetterKind;
use crate::ops::Batch;
use crate::ops::control::TickInfo;
use crate::ops::exchange::Placement;
use crate::ops::order::merge_sorted;
use crate::plan::chain::{schema_after, update_schema, value_fields};
use crate::plan::model::{JoinPlan, NamedExpr, SourcePlan, StreamRef, ViewPlan};
use crate::state::Mode;

/// Keys in one batch for the online store.
const REFRESH_ROWS: usize = 65_536;

/// How long a slice of a snapshot takes, or one key slot where that takes longer: a tick passes the worker in several steps,
/// and each of them may meet a slice of each view.
const SLICE: Duration = Duration::from_micros(250);
/// The writing of a snapshot is spread over this part of the time since the one before, and over no more than [`SPREAD_MAX`]:
/// done at once it would take a core from rows that are due.
const SPREAD: u32 = 10;
/// See [`SPREAD`].
const SPREAD_MAX: Duration = Duration::from_secs(1);
/// How long the writing waits when the thread that takes the slices does not keep up.
const ROOM_WAIT: Duration = Duration::from_millis(2);
/// Busy keys whose bytes are counted at once: each is far from what is in the cache.
const COUNTED: usize = 4_096;
/// Bytes of a slice between two looks at the clock.
const SLICE_BYTES: usize = 16 << 10;

/// Which view a stage computes, and for whom.
pub struct StageInput {
    /// The view, by index.
    pub view: usize,
    /// Columns of the spine's rows at this point.
    pub schema: SchemaRef,
    /// The spine's entity columns, as indices into `schema`.
    pub key: Vec<usize>,
    /// Whether the view's own as-of-event rows are wanted.
    pub side: bool,
    /// Whether online values are wanted.
    pub online: bool,
    /// Counts how often the online store lost its values, if it may.
    pub losses: Option<Arc<AtomicU64>>,
    /// Names the state in snapshots.
    pub name: String,
    /// Which worker has which keys.
    pub placement: Arc<Placement>,
}

/// What leaves a stage.
pub struct StageOutput<'s> {
    /// The spine's rows with the view's columns.
    pub rows: Rows<'s>,
    /// The view's own as-of-event rows.
    pub side_rows: Option<Rows<'s>>,
    /// Values for the online store.
    pub online: Option<Rows<'s>>,
}

/// Adds the stage of a view to the graph.
pub fn view_stage<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    input: &StageInput,
    rows: Port<'s>,
    updates: Option<Port<'s>>,
) -> StageOutput<'s> {
    let plan = &shared.plan;
    let view = &plan.views[input.view];
    let own = updates.is_none();
    let mut core = match StageCore::new(shared, input, own) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    if let Some(core) = &mut core {
        core.node = control.node();
    }
    if let Some(core) = &mut core
        && let Err(error) = core.restore(input, (scope.index(), scope.peers()))
    {
        shared.fail(error);
    }
    let logic = Box::new(ViewLogic { core, shared: Arc::clone(shared), view: input.view, own });
    let ports = std::iter::once(rows).chain(updates).collect();
    let name = format!("view {}", view.name);
    let mut outputs = per_tick(scope, &name, control.telling(1), ports, 3, logic).into_iter();
    let mut next = || outputs.next().expect("three outputs");
    let (rows, side_rows, online) = (next(), next(), next());
    StageOutput { rows, side_rows: input.side.then_some(side_rows), online: input.online.then_some(online) }
}

/// A stage between its ticks.
struct ViewLogic {
    core: Option<StageCore>,
    shared: Arc<Shared>,
    view: usize,
    own: bool,
}

impl TickLogic for ViewLogic {
    fn tick(&mut self, info: &TickInfo, mut inputs: Vec<Vec<Batch>>, out: &mut [Vec<RecordBatch>]) {
        let Some(core) = &mut self.core else { return };
        if self.shared.failed() {
            return;
        }
        let updates = if self.own { None } else { inputs.pop().and_then(merge_sorted) };
        let rows = inputs.pop().and_then(merge_sorted);
        if let Err(error) = core.tick(info, rows, updates, out).and_then(|()| core.save(info)) {
            self.shared.fail(error);
        }
        if info.last
            && let Some(core) = self.core.take()
        {
            core.leave(info, self.view);
        }
    }

    fn slice(&mut self) -> Slice {
        self.core.as_mut().map_or(Slice::Done, StageCore::slice)
    }
}

/// A view's state and what is done with its values; knows nothing of timely.
struct StageCore {
    shared: Arc<Shared>,
    state: ViewState,
    own: bool,
    side: bool,
    entity: Vec<usize>,
    revisions: Option<Revisions>,
    post: Vec<NamedExpr>,
    schema: SchemaRef,
    /// Columns of the view's own as-of-event rows.
    side_schema: SchemaRef,
    side_columns: usize,
    online: Option<Online>,
    /// Where the state is saved, if it is.
    saver: Option<Saver>,
    /// When the latest snapshot was taken.
    frozen_at: Instant,
    /// How long its writing may take.
    spread: Duration,
    usual: Usual,
    accounted: (u64, u64),
    node: Option<Arc<Node>>,
}

/// When and in what form the online store is told of changed values.
struct Online {
    refresh: Micros,
    last: Option<EventTime>,
    /// Counts how often the store lost its values, if it may.
    losses: Option<Arc<AtomicU64>>,
    /// Losses for which all values were sent again, or are being sent.
    seen: u64,
    /// Whether they are being sent, a slice at each tick.
    resending: bool,
    schema: SchemaRef,
}

impl Online {
    /// The next values to send, and whether there are more.
    fn values(&self, state: &mut ViewState, now: EventTime) -> Result<(Option<RecordBatch>, bool), EngineError> {
        let Refreshed { keys, values, event_times, valid_until, more } = state.refresh(now, REFRESH_ROWS)?;
        if keys.is_empty() {
            return Ok((None, more));
        }
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(keys), Arc::new(Int64Array::from(event_times)), Arc::new(Int64Array::from(valid_until))];
        columns.extend(values);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(EngineError::arrow)?;
        Ok((Some(batch), more))
    }
}

impl StageCore {
    fn new(shared: &Arc<Shared>, input: &StageInput, own: bool) -> Result<Self, EngineError> {
        let plan = &shared.plan;
        let view: &ViewPlan = &plan.views[input.view];
        let update_schema = update_schema(plan, view);
        let (revisions, revise_within) = match view.stream {
            StreamRef::Source(_) => (None, None),
            // A label join's updates have three more columns at their end.
            StreamRef::Join(join) => {
                let at = update_schema.fields().len();
                let revisions = Revisions { target_time: at, target_ord: at + 1, revise: at + 2 };
                (Some(revisions), Some(plan.joins[join].within))
            }
        };
        let online = plan.online.as_ref().filter(|_| input.online).map(|o| Online {
            refresh: o.refresh,
            last: None,
            losses: input.losses.clone(),
            // Losses since the store was opened count, also those before there was a stage.
            seen: 0,
            resending: false,
            schema: online_schema(view),
        });
        let checkpoints = shared.checkpoints.enabled();
        let options = ViewOptions { order: plan.order, refresh: online.is_some(), revise_within, checkpoints };
        let state = ViewState::new(view, &update_schema, options)?;
        let fields = update_schema.fields().iter().cloned();
        let aggregates = value_fields(view).into_iter().take(view.aggregates.len());
        Ok(StageCore {
            shared: Arc::clone(shared),
            state,
            own,
            side: input.side,
            entity: input.key.clone(),
            revisions,
            post: view.post.clone(),
            schema: schema_after(&input.schema, view),
            side_schema: Arc::new(Schema::new(fields.chain(aggregates).collect::<Vec<_>>())),
            side_columns: update_schema.fields().len(),
            online,
            saver: None,
            frozen_at: Instant::now(),
            spread: Duration::ZERO,
            usual: Usual::default(),
            accounted: (0, 0),
            node: None,
        })
    }

    /// Registers the state under its name, and takes in what was saved of it.
    fn restore(&mut self, input: &StageInput, place: (usize, usize)) -> Result<(), EngineError> {
        let StageInput { name, placement, .. } = input;
        self.saver = self.shared.checkpoints.operator(place.0, name);
        let shared = Arc::clone(&self.shared);
        let import = |slot, bytes: &[u8]| Ok(self.state.import(slot, bytes)?);
        shared.checkpoints.restore_placed(name, place, placement, import)?;
        if let Some(online) = self.online.as_mut().filter(|_| shared.checkpoints.online_lost) {
            self.state.mark_all();
            online.resending = true;
        }
        Ok(())
    }

    /// At an epoch's end: freezes the state, to be written in slices while later ticks change it.
    fn save(&mut self, info: &TickInfo) -> Result<(), EngineError> {
        if !info.epoch_end || self.saver.is_none() {
            return Ok(());
        }
        let started = Instant::now();
        // What is left of the epoch before has to be out first; epochs are rarely so short.
        while self.write(usize::MAX) {}
        if let Some(online) = &self.online {
            self.shared.checkpoints.note_made_up(info.epoch, online.seen);
        }
        let anew = self.shared.checkpoints.anew(info.epoch);
        self.state.freeze(anew)?;
        self.spread = (started.duration_since(self.frozen_at) / SPREAD).min(SPREAD_MAX);
        self.frozen_at = started;
        if let Some(saver) = &mut self.saver {
            saver.begin(info.epoch, anew);
        }
        // After the last tick nobody waits.
        if !info.last {
            self.shared.checkpoints.figures.freeze(started.elapsed());
        }
        while info.last && self.write(usize::MAX) {}
        Ok(())
    }

    /// Writes a slice of what is frozen, and tells whether there is more.
    fn write(&mut self, bytes: usize) -> bool {
        let Some(saver) = self.saver.as_mut().filter(|saver| saver.is_writing()) else { return false };
        let entries = self.state.write_frozen(bytes);
        let more = self.state.frozen();
        saver.slice(entries, !more);
        more
    }

    fn slice(&mut self) -> Slice {
        let Some(saver) = self.saver.as_ref().filter(|saver| saver.is_writing()) else { return Slice::Done };
        if !saver.ready() {
            return Slice::After(ROOM_WAIT);
        }
        let early = self.early();
        if !early.is_zero() {
            return Slice::After(early);
        }
        let started = Instant::now();
        let mut more = true;
        while more && started.elapsed() < SLICE {
            more = self.write(SLICE_BYTES);
        }
        self.shared.checkpoints.figures.slice(started.elapsed());
        if more { Slice::After(self.early()) } else { Slice::Done }
    }

    /// How far the writing is ahead of its time.
    fn early(&self) -> Duration {
        early(self.spread, self.state.frozen_written(), self.frozen_at.elapsed())
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        rows: Option<RecordBatch>,
        updates: Option<RecordBatch>,
        out: &mut [Vec<RecordBatch>],
    ) -> Result<(), EngineError> {
        let started = Instant::now();
        let frozen = self.state.frozen();
        let values = if self.own {
            match &rows {
                Some(rows) => self.state.apply_own(rows)?,
                None => Vec::new(),
            }
        } else {
            let applied = self.state.apply_merged(
                updates.as_ref().map(|batch| Updates { batch, revisions: self.revisions, answers: self.side }),
                rows.as_ref().map(|rows| (rows, &self.entity[..])),
            )?;
            let Merged { questions, updates: answers } = applied;
            if let (Some(updates), Some(answers)) = (&updates, answers) {
                out[1].push(self.side_batch(updates, answers)?);
            }
            questions
        };
        if info.last || info.tick.is_multiple_of(64) {
            self.account(info.last);
        }
        // When all sources have ended the watermark is past everything, but the clock stands where it stood: values are
        // read, and refreshed below, as of the clock.
        self.state.advance(info.watermark.min(info.now));
        let took = started.elapsed();
        self.shared.note_work(took);
        let count = |batch: &Option<RecordBatch>| batch.as_ref().map_or(0, RecordBatch::num_rows);
        self.shared.checkpoints.figures.tick(took, count(&rows) + count(&updates), frozen, &mut self.usual);
        if let Some(rows) = rows {
            out[0].push(self.widen(&rows, values)?);
        }
        self.refresh(info, out)
    }

    /// The rows with the view's aggregates and post columns.
    fn widen(&self, rows: &RecordBatch, values: Vec<ArrayRef>) -> Result<RecordBatch, EngineError> {
        let mut columns = rows.columns().to_vec();
        columns.extend(values);
        if self.post.is_empty() {
            return RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(EngineError::arrow);
        }
        let before_post = self.schema.project(&(0..columns.len()).collect::<Vec<_>>()).map_err(EngineError::arrow)?;
        let wide = RecordBatch::try_new(Arc::new(before_post), columns).map_err(EngineError::arrow)?;
        let mut columns = wide.columns().to_vec();
        for post in &self.post {
            // A row for which the expression fails has no value there; it is still scored and stored.
            let evaluated = post.expr.evaluate_rows(&wide);
            let (column, _failed) = evaluated.map_err(|error| EngineError::defect(error.to_string()))?;
            columns.push(cast(&column, &post.expr.data_type).map_err(EngineError::arrow)?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(EngineError::arrow)
    }

    /// The view's own rows: each event of its stream with the features as of it. A revision is no event.
    fn side_batch(&self, updates: &RecordBatch, answers: Vec<ArrayRef>) -> Result<RecordBatch, EngineError> {
        let mut columns = updates.columns()[..self.side_columns].to_vec();
        columns.extend(answers);
        let all = RecordBatch::try_new(Arc::clone(&self.side_schema), columns).map_err(EngineError::arrow)?;
        match self.revisions {
            None => Ok(all),
            Some(revisions) => {
                let revised = updates.column(revisions.revise).as_boolean();
                let events = not(revised).map_err(EngineError::arrow)?;
                filter_record_batch(&all, &events).map_err(EngineError::arrow)
            }
        }
    }

    /// Sends online values that changed, or slid, since the last refresh; all of them when the store lost them.
    fn refresh(&mut self, info: &TickInfo, out: &mut [Vec<RecordBatch>]) -> Result<(), EngineError> {
        let Some(online) = &mut self.online else { return Ok(()) };
        if info.now == EventTime::MIN || info.tick < self.shared.checkpoints.online_from {
            return Ok(());
        }
        let losses = online.losses.as_ref().map_or(0, |losses| losses.load(Ordering::Acquire));
        if losses > online.seen {
            self.state.mark_all();
            online.seen = losses;
            online.resending = true;
        }
        let due = online.last.is_none_or(|last| info.now >= last.saturating_add(online.refresh));
        if !(due || info.last || online.resending) {
            return Ok(());
        }
        online.last = Some(info.now);
        loop {
            let (batch, more) = online.values(&mut self.state, info.now)?;
            out[2].extend(batch);
            if !more {
                online.resending = false;
                return Ok(());
            }
            // A slice per tick: the store, not the memory, takes up what it lost.
            if online.resending && !info.last {
                return Ok(());
            }
        }
    }

    /// At the last tick: leaves the values to those who look after a store that may lose them.
    fn leave(self, info: &TickInfo, view: usize) {
        let StageCore { shared, mut state, online: Some(online), .. } = self else { return };
        if online.losses.is_none() || info.now == EventTime::MIN {
            return;
        }
        let (now, seen) = (info.now, online.seen);
        let values: AllValues = Box::new(move |send| {
            state.mark_all();
            loop {
                let (batch, more) = online.values(&mut state, now)?;
                if !batch.is_none_or(&mut *send) || !more {
                    return Ok(());
                }
            }
        });
        shared.left.leave(view, info, seen, values);
    }

    /// Tells the job how many keys and bytes the view holds.
    fn account(&mut self, exactly: bool) {
        let bytes = if exactly { self.state.memory_bytes() } else { self.state.count_bytes(COUNTED) };
        let now = (self.state.keys() as u64, bytes as u64);
        let change = |total: &std::sync::atomic::AtomicU64, before: u64, now: u64| {
            total.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        change(&self.shared.keys, self.accounted.0, now.0);
        change(&self.shared.state_bytes, self.accounted.1, now.1);
        if let Some(node) = &self.node {
            node.holds(self.accounted, now);
        }
        self.accounted = now;
    }
}

/// How long after `since` it is time for more, when this part of what takes so long is done.
fn early(spread: Duration, done: f64, since: Duration) -> Duration {
    spread.mul_f64(done).saturating_sub(since)
}

/// Columns of the batches for the online store: key, event time, validity, then the aggregates.
pub fn online_schema(view: &ViewPlan) -> SchemaRef {
    let head = [("_key", DataType::Binary), ("_event_time", DataType::Int64), ("_valid_until", DataType::Int64)];
    let mut fields: Vec<Arc<Field>> = head.map(|(name, ty)| Arc::new(Field::new(name, ty, false))).to_vec();
    fields.extend(value_fields(view).into_iter().take(view.aggregates.len()));
    Arc::new(Schema::new(fields))
}

/// Names the state of a view in snapshots. A view that several spines read has a state for each; the first has the plain name.
pub fn view_name(view: &ViewPlan, spine: Option<&SourcePlan>) -> String {
    match spine {
        None => format!("view {}", view.name),
        Some(spine) => format!("view {} for {}", view.name, spine.name),
    }
}

/// Names the state of a join in snapshots.
pub fn join_name(join: &JoinPlan) -> String {
    format!("join {}", join.name)
}

/// Adds a label join to the graph. Its updates leave in order at the tick that brought them; right rows that no left row
/// has met within the join's bound leave as dead letters.
pub fn join_stage<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    join: usize,
    left: Port<'s>,
    right: Port<'s>,
) -> (Rows<'s>, Rows<'s>) {
    let plan = &shared.plan.joins[join];
    let right_schema = &shared.plan.sources[plan.right].stream_schema;
    let fault = |error| EngineError::Plan(format!("streams.{}: {error}", plan.name));
    let mut core = match LabelJoin::new(plan, right_schema, shared.checkpoints.enabled()) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(fault(error));
            None
        }
    };
    let name = join_name(plan);
    let saver = shared.checkpoints.operator(scope.index(), &name);
    if let Some(core) = &mut core {
        let place = (scope.index(), scope.peers());
        let restored = shared.checkpoints.restore(&name, place, |slot, bytes| core.import(slot, bytes).map_err(fault));
        if let Err(error) = restored {
            shared.fail(error);
        }
        if let Some(watermark) = shared.checkpoints.watermark {
            // What had expired by then was told of then.
            core.advance(watermark);
        }
    }
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        let Some(core) = &mut core else { return };
        let right = inputs.pop().and_then(merge_sorted);
        let left = inputs.pop().and_then(merge_sorted);
        out[0].extend(core.apply(left.as_ref(), right.as_ref()));
        core.advance(info.watermark);
        for rows in core.take_unmatched() {
            let plan = &shared.plan;
            let reason = format!(
                "no row of `{}` with this id came within {}",
                plan.sources[plan.joins[join].left].name,
                format_duration(plan.joins[join].within)
            );
            let reasons: Vec<(usize, String)> = (0..rows.num_rows()).map(|row| (row, reason.clone())).collect();
            out[1].push(letters(DeadLetterKind::UnknownId, &reasons, &rows, info, &shared));
        }
        if info.epoch_end
            && let Some(saver) = &saver
        {
            let anew = shared.checkpoints.anew(info.epoch);
            let frozen = core.freeze(anew.is_first());
            let encode = Box::new(move || frozen.encode().map_err(|error| error.to_string()));
            saver.save_later(info, Mode::Change, anew, encode);
        }
    });
    let mut outputs = per_tick(scope, &name, control.telling(1), vec![left, right], 2, logic);
    let dead = outputs.pop().expect("two outputs");
    let rows = outputs.pop().expect("two outputs");
    (rows, dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_wait_until_it_is_time_for_them() {
        let ms = Duration::from_millis;
        assert_eq!(early(ms(1_000), 0.25, ms(100)), ms(150));
        assert_eq!(early(ms(1_000), 0.25, ms(250)), Duration::ZERO);
        assert_eq!(early(ms(1_000), 0.25, ms(900)), Duration::ZERO);
        assert_eq!(early(Duration::ZERO, 0.5, Duration::ZERO), Duration::ZERO);
    }
}

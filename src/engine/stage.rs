//! Feature views and label joins as operators.
//!
//! A stage receives the spine's rows and, where its view reads another stream, that stream's updates; both on the worker
//! that owns the entity's slot. When a tick is complete it merges them by (time, position), updates before spine rows at
//! one time, and answers each spine row with its columns. State: that of [`ViewState`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use timely::dataflow::Scope;

use super::EngineError;
use super::chain::{schema_after, update_schema, value_fields};
use super::letters::letters;
use super::online_redis::AllValues;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows, per_tick};
use crate::base::{EventTime, Micros, Tick, format_duration};
use crate::features::join::LabelJoin;
use crate::features::view::{Merged, Refreshed, Revisions, Updates, ViewOptions, ViewState};
use crate::ingest::DeadLetterKind;
use crate::ops::Batch;
use crate::ops::control::TickInfo;
use crate::ops::order::merge_sorted;
use crate::plan::model::{NamedExpr, StreamRef, ViewPlan, Window};

/// Keys in one batch for the online store.
const REFRESH_ROWS: usize = 65_536;

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
    let (for_logic, view_index) = (Arc::clone(shared), input.view);
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<Batch>>, out: &mut [Vec<Batch>]| {
        let Some(running) = &mut core else { return };
        if for_logic.failed() {
            return;
        }
        let updates = if own { None } else { inputs.pop().and_then(merged) };
        let rows = inputs.pop().and_then(merged);
        if let Err(error) = running.tick(info, rows, updates, out) {
            for_logic.fail(error);
        }
        if info.last
            && let Some(core) = core.take()
        {
            core.leave(info, view_index);
        }
    });
    let ports = std::iter::once(rows).chain(updates).collect();
    let name = format!("view {}", view.name);
    let mut outputs = per_tick(scope, &name, control, ports, 3, logic).into_iter();
    let mut next = || outputs.next().expect("three outputs");
    let (rows, side_rows, online) = (next(), next(), next());
    StageOutput { rows, side_rows: input.side.then_some(side_rows), online: input.online.then_some(online) }
}

fn merged(batches: Vec<Batch>) -> Option<RecordBatch> {
    let batches: Vec<RecordBatch> = batches.into_iter().map(|batch| batch.0).collect();
    merge_sorted(&batches)
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
    accounted: (u64, u64),
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
    /// A key without rows had its last event at least this long ago.
    reach: Micros,
    schema: SchemaRef,
}

impl Online {
    /// The next values to send, and whether there are more.
    fn values(&self, state: &mut ViewState, now: EventTime) -> Result<(Option<RecordBatch>, bool), EngineError> {
        let Refreshed { keys, values, event_times, valid_until, more } = state.refresh(now, REFRESH_ROWS)?;
        if keys.is_empty() {
            return Ok((None, more));
        }
        let gone = now.saturating_sub(self.reach);
        let event_times = event_times.into_iter().map(|time| time.unwrap_or(gone));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(keys),
            Arc::new(Int64Array::from_iter_values(event_times)),
            Arc::new(Int64Array::from(valid_until)),
        ];
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
            seen: input.losses.as_ref().map_or(0, |losses| losses.load(Ordering::Acquire)),
            resending: false,
            reach: reach(view),
            schema: online_schema(view),
        });
        let options = ViewOptions { order: plan.order, refresh: online.is_some(), revise_within };
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
            accounted: (0, 0),
        })
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        rows: Option<RecordBatch>,
        updates: Option<RecordBatch>,
        out: &mut [Vec<Batch>],
    ) -> Result<(), EngineError> {
        let started = Instant::now();
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
                out[1].push(Batch(self.side_batch(updates, answers)?));
            }
            questions
        };
        if info.last || info.tick.is_multiple_of(64) {
            self.account();
        }
        // When all sources have ended the watermark is past everything, but the clock stands where it stood: values are
        // read, and refreshed below, as of the clock.
        self.state.advance(info.watermark.min(info.now));
        self.shared.note_work(started.elapsed());
        if let Some(rows) = rows {
            out[0].push(Batch(self.widen(&rows, values)?));
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
    fn refresh(&mut self, info: &TickInfo, out: &mut [Vec<Batch>]) -> Result<(), EngineError> {
        let Some(online) = &mut self.online else { return Ok(()) };
        if info.now == EventTime::MIN {
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
            out[2].extend(batch.map(Batch));
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
    fn account(&mut self) {
        let now = (self.state.keys() as u64, self.state.memory_bytes() as u64);
        let change = |total: &std::sync::atomic::AtomicU64, before: u64, now: u64| {
            total.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        change(&self.shared.keys, self.accounted.0, now.0);
        change(&self.shared.state_bytes, self.accounted.1, now.1);
        self.accounted = now;
    }
}

/// How far back a view's widest window reaches.
fn reach(view: &ViewPlan) -> Micros {
    let widest = view.aggregates.iter().map(|a| match a.window {
        Window::Trailing(width) => width,
        Window::Lifetime => 0,
    });
    view.delay.saturating_add(widest.max().unwrap_or(0))
}

/// Columns of the batches for the online store: key, event time, validity, then the aggregates.
pub fn online_schema(view: &ViewPlan) -> SchemaRef {
    let head = [("_key", DataType::Binary), ("_event_time", DataType::Int64), ("_valid_until", DataType::Int64)];
    let mut fields: Vec<Arc<Field>> = head.map(|(name, ty)| Arc::new(Field::new(name, ty, false))).to_vec();
    fields.extend(value_fields(view).into_iter().take(view.aggregates.len()));
    Arc::new(Schema::new(fields))
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
    let mut core = match LabelJoin::new(plan, &shared.plan.sources[plan.right].stream_schema) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(EngineError::Plan(format!("streams.{}: {error}", plan.name)));
            None
        }
    };
    let name = format!("join {}", plan.name);
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<Batch>>, out: &mut [Vec<Batch>]| {
        let Some(core) = &mut core else { return };
        let right = inputs.pop().and_then(merged);
        let left = inputs.pop().and_then(merged);
        out[0].extend(core.apply(left.as_ref(), right.as_ref()).map(Batch));
        core.advance(info.watermark);
        for rows in core.take_unmatched() {
            let plan = &shared.plan;
            let reason = format!(
                "no row of `{}` with this id came within {}",
                plan.sources[plan.joins[join].left].name,
                format_duration(plan.joins[join].within)
            );
            let reasons: Vec<(usize, String)> = (0..rows.num_rows()).map(|row| (row, reason.clone())).collect();
            out[1].push(Batch(letters(DeadLetterKind::UnknownId, &reasons, &rows, info, &shared)));
        }
    });
    let mut outputs = per_tick(scope, &name, control, vec![left, right], 2, logic);
    let dead = outputs.pop().expect("two outputs");
    let rows = outputs.pop().expect("two outputs");
    (rows, dead)
}

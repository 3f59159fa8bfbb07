//! Drift and quality as operators: rows are counted where they are, their parts added up on the worker that owns the
//! monitor, and windows told of there.
//!
//! What moves between workers is histograms, once a window and once an epoch, and never a row. Counts are integers, so a
//! window's state does not depend on which worker had which rows.
//!
//! Differential dataflow would keep per cell and time what is kept here per cell: scored rows are never withdrawn, a window is
//! complete when it is told, and nothing but the worker's own addition is left to do. So the counting is plain.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use timely::dataflow::Scope;

use super::training::{self, Champion};
use super::{Statistics, name};
use crate::base::{Tick, format_duration, slot_of};
use crate::engine::EngineError;
use crate::engine::shared::Shared;
use crate::engine::ticked::{Control, Port, Rows, per_tick};
use crate::ingest::DeadLetterKind;
use crate::monitor::drift::windows::{Local, Part, Watch, Windows};
use crate::monitor::{Stat, StatKind, stat_batch};
use crate::ops::control::TickInfo;
use crate::ops::key;
use crate::plan::model::{DriftColumn, DriftPlan, MonitorPlan, Plan, ReferencePlan};
use crate::state::Mode;

/// Name of the operator that keeps a monitor's windows, which names their state, too.
pub fn windows_name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {} windows", plan.models[monitor.model].name)
}

/// What the state of a monitor's windows depends on.
pub fn windows_meaning(monitor: &MonitorPlan) -> Option<String> {
    let drift = monitor.drift.as_ref()?;
    let columns: Vec<String> = drift.columns.iter().map(|column| column_meaning(drift, column)).collect();
    Some(format!("{} in windows of {}", columns.join(", "), format_duration(drift.window)))
}

/// What the counts of a column depend on.
pub(super) fn column_meaning(drift: &DriftPlan, column: &DriftColumn) -> String {
    let kind = if column.categories { "categories" } else { "numbers" };
    let against = match column.reference.map(|index| &drift.references[index]) {
        None => "nothing".to_owned(),
        Some(ReferencePlan::Past(_)) => "windows before".to_owned(),
        Some(ReferencePlan::Training) => "training sets".to_owned(),
        Some(reference) => format!("{reference:?} in {} bins", drift.bins),
    };
    let name = if column.engine.is_empty() { &column.name } else { &column.engine };
    format!("{name} ({kind} against {against})")
}

/// Attaches drift and quality of a monitor to scored rows and to dead letters, of which the duplicates are counted.
pub fn drift<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    watch: &Arc<Watch>,
    (scored, dead): (Rows<'s>, Option<Rows<'s>>),
    commands: Option<Rows<'s>>,
) -> Vec<Statistics<'s>> {
    let parts = count(scope, shared, control, monitor, watch, scored, dead);
    let plan = &shared.plan;
    let operator = windows_name(plan, &plan.monitors[monitor]);
    let mut windows = Windows::new(Arc::clone(watch));
    let saver = shared.checkpoints.operator(scope.index(), &operator);
    let place = (scope.index(), scope.peers());
    let restored = shared.checkpoints.restore(&operator, place, |_, bytes| {
        windows.import(bytes).map_err(|error| EngineError::Plan(error.to_string()))
    });
    if let Err(error) = restored {
        shared.fail(error);
    }
    let slot = slot(&watch.model);
    // The parts of a monitor go to one worker; the others have nothing to tell or to save.
    let owner = crate::base::worker_of_slot(usize::from(slot), place.1) == place.0;
    let mut champion = match champion_of(shared, monitor, owner) {
        Ok(champion) => champion,
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    champion.iter().for_each(|champion| champion.refer(|profile| windows.refer(profile)));
    let ports = std::iter::once(Port::keyed(parts, vec![0])).chain(commands.map(Port::local)).collect();
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        if shared.failed() {
            return;
        }
        let commands = inputs.split_off(1).pop().unwrap_or_default();
        if let Some(champion) = &mut champion {
            match champion.follow(&commands) {
                Ok(true) => champion.refer(|profile| windows.refer(profile)),
                Ok(false) => {}
                Err(error) => return shared.fail(error),
            }
        }
        for batch in inputs.into_iter().flatten() {
            for bytes in batch.column(1).as_binary::<i32>().iter().flatten() {
                match Part::decode(bytes) {
                    Some(part) => windows.add(part),
                    None => shared.fail(EngineError::defect("a part of a window cannot be read")),
                }
            }
        }
        let told = windows.tell(info.watermark);
        for (kind, out) in [StatKind::Drift, StatKind::Quality].into_iter().zip(out) {
            let stats: Vec<Stat> = told.iter().filter(|stat| stat.kind == kind).cloned().collect();
            if !stats.is_empty() {
                out.push(stat_batch(&stats, info.tick, shared.plan.version));
            }
        }
        if info.epoch_end
            && let Some(saver) = &saver
        {
            let anew = shared.checkpoints.anew(info.epoch);
            // An epoch is complete when all workers have saved, those too that have nothing.
            let records = if owner { windows.save(anew.is_first()) } else { Vec::new() };
            let encode = Box::new(move || Ok(records.into_iter().map(|record| (slot, record)).collect()));
            saver.save_later(info, Mode::Change, anew, encode);
        }
    });
    let outputs = per_tick(scope, &operator, control.inside().telling(2), ports, 2, logic);
    let kinds = [StatKind::Drift, StatKind::Quality];
    outputs.into_iter().zip(kinds).map(|(rows, kind)| Statistics { monitor, kind, rows }).collect()
}

/// Who knows which training set windows are held against, on the worker that tells of them.
pub(super) fn champion_of(shared: &Arc<Shared>, monitor: usize, owner: bool) -> Result<Option<Champion>, EngineError> {
    let plan = &shared.plan.monitors[monitor];
    (owner && training::is_wanted(plan)).then(|| Champion::new(shared, plan.model)).transpose()
}

/// Parts on their way to the owner of a monitor; nothing when there are none.
pub(super) fn addressed(model: &str, parts: &[Vec<u8>]) -> Result<Option<RecordBatch>, EngineError> {
    if parts.is_empty() {
        return Ok(None);
    }
    let schema =
        Schema::new(vec![Field::new("monitor", DataType::Utf8, false), Field::new("part", DataType::Binary, false)]);
    let names = StringArray::from_iter_values(parts.iter().map(|_| model));
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(BinaryArray::from_iter_values(parts))];
    RecordBatch::try_new(Arc::new(schema), columns).map(Some).map_err(EngineError::arrow)
}

/// The slot whose owner keeps a monitor's windows.
pub(super) fn slot(model: &str) -> u16 {
    let mut hashes = Vec::new();
    let column: ArrayRef = Arc::new(StringArray::from_iter_values([model]));
    // Text is a key.
    let _ = key::hashes(&[column], &mut hashes);
    slot_of(hashes.first().copied().unwrap_or(0)) as u16
}

/// Counts rows where they are. Parts leave when a window may have ended, and at an epoch's end, so that nothing is kept here.
fn count<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    watch: &Arc<Watch>,
    scored: Rows<'s>,
    dead: Option<Rows<'s>>,
) -> Rows<'s> {
    let plan = Arc::clone(&shared.plan);
    let operator = format!("{} count", name(&plan, &plan.monitors[monitor]));
    let drift = plan.monitors[monitor].drift.clone();
    let columns: Vec<String> = drift.iter().flat_map(|d| &d.columns).map(|column| column.engine.clone()).collect();
    let spine = drift.map(|d| plan.sources[d.spine].name.clone()).unwrap_or_default();
    let mut local = Local::new(Arc::clone(watch));
    let (watch, shared) = (Arc::clone(watch), Arc::clone(shared));
    let logic = Box::new(move |info: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        let mut inputs = inputs.into_iter();
        for batch in inputs.next().into_iter().flatten() {
            let found: Result<Vec<usize>, _> = columns.iter().map(|name| batch.schema().index_of(name)).collect();
            let counted = found.and_then(|found| local.count(&batch, &found));
            if let Err(error) = counted {
                shared.fail(EngineError::arrow(error));
            }
        }
        for batch in inputs.next().into_iter().flatten() {
            if let Err(error) = count_duplicates(&mut local, &batch, &spine) {
                shared.fail(error);
            }
        }
        let passed = watch.start_of(info.watermark) > watch.start_of(info.previous_watermark);
        if passed || info.epoch_end || info.last {
            let parts: Vec<Vec<u8>> = local.take(info.watermark).iter().map(Part::encode).collect();
            match addressed(&watch.model, &parts) {
                Ok(batch) => out[0].extend(batch),
                Err(error) => shared.fail(error),
            }
        }
    });
    let ports = std::iter::once(scored).chain(dead).map(Port::local).collect();
    let mut outputs = per_tick(scope, &operator, control.clone(), ports, 1, logic);
    outputs.pop().expect("one output")
}

/// Counts the duplicates of the spine among dead letters.
fn count_duplicates(local: &mut Local, batch: &RecordBatch, spine: &str) -> Result<(), EngineError> {
    let column =
        |name: &str| batch.column_by_name(name).ok_or_else(|| EngineError::defect(format!("no column {name}")));
    let text = |name: &str| cast(column(name)?, &DataType::Utf8).map_err(EngineError::arrow);
    let (kinds, sources) = (text("kind")?, text("_source")?);
    let (kinds, sources) = (kinds.as_string::<i32>(), sources.as_string::<i32>());
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = cast(column("event_time")?, &time).map_err(EngineError::arrow)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let duplicate = DeadLetterKind::Duplicate.as_str();
    let is_ours = |row: &usize| kinds.value(*row) == duplicate && sources.value(*row) == spine && times.is_valid(*row);
    local.duplicates((0..batch.num_rows()).filter(is_ours).map(|row| times.value(row)));
    Ok(())
}

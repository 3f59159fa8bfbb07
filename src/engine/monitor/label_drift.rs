//! Drift of labels as operators: changes of the stream of matches are added up where they are, and windows told of on the
//! worker that owns the monitor.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int8Type, TimestampMicrosecondType};
use timely::dataflow::Scope;

use super::Statistics;
use super::drift::{addressed, champion_of, column_meaning, slot};
use crate::base::{Tick, format_duration, worker_of_slot};
use crate::engine::EngineError;
use crate::engine::shared::Shared;
use crate::engine::ticked::{Control, Port, Rows, per_tick};
use crate::monitor::drift::labels::{LabelWatch, LabelWindows, LocalLabels};
use crate::monitor::{StatKind, stat_batch};
use crate::ops::control::TickInfo;
use crate::ops::times;
use crate::plan::model::{MonitorPlan, Plan};
use crate::state::Mode;

/// Name of the operator that keeps the windows of labels, which names their state, too.
pub fn name(plan: &Plan, monitor: &MonitorPlan) -> String {
    format!("monitor {} label windows", plan.models[monitor.model].name)
}

/// What the state of the windows of labels depends on; nothing where labels are not watched.
pub fn meaning(plan: &Plan, monitor: &MonitorPlan) -> Option<String> {
    let drift = monitor.drift.as_ref()?;
    let label = drift.label.as_ref()?;
    let labels = &plan.labels[monitor.labels?];
    Some(format!(
        "{} in windows of {} told every {}, within {}",
        column_meaning(drift, label),
        format_duration(drift.window),
        format_duration(monitor.refresh),
        format_duration(labels.within)
    ))
}

/// Attaches the drift of labels to the stream of matches.
pub fn label_drift<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    monitor: usize,
    watch: &Arc<LabelWatch>,
    matches: Rows<'s>,
    commands: Option<Rows<'s>>,
) -> Statistics<'s> {
    let operator = name(&shared.plan, &shared.plan.monitors[monitor]);
    let parts = count(scope, shared, control, &operator, watch, matches);
    let mut windows = LabelWindows::new(Arc::clone(watch));
    let place = (scope.index(), scope.peers());
    let saver = shared.checkpoints.operator(place.0, &operator);
    let restored = shared.checkpoints.restore(&operator, place, |_, bytes| {
        windows.import(bytes).map_err(|error| EngineError::Plan(error.to_string()))
    });
    if let Err(error) = restored {
        shared.fail(error);
    }
    let slot = slot(&watch.model);
    let owner = worker_of_slot(usize::from(slot), place.1) == place.0;
    let mut champion = match champion_of(shared, monitor, owner) {
        Ok(champion) => champion,
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    champion.iter().for_each(|champion| champion.refer(|profile| windows.refer(profile).into_iter().collect()));
    let ports = std::iter::once(Port::keyed(parts, vec![0])).chain(commands.map(Port::local)).collect();
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        let commands = inputs.split_off(1).pop().unwrap_or_default();
        if let Some(champion) = &mut champion {
            match champion.follow(&commands) {
                Ok(true) => champion.refer(|profile| windows.refer(profile).into_iter().collect()),
                Ok(false) => {}
                Err(error) => return shared.fail(error),
            }
        }
        for batch in inputs.into_iter().flatten() {
            for bytes in batch.column(1).as_binary::<i32>().iter().flatten() {
                if !windows.add(bytes) {
                    shared.fail(EngineError::defect("changes of labels cannot be read"));
                }
            }
        }
        let told = windows.tell(info.watermark);
        if !told.is_empty() {
            out[0].push(stat_batch(&told, info.tick, shared.plan.version));
        }
        if info.epoch_end
            && let Some(saver) = &saver
        {
            // An epoch is complete when all workers have saved, those too that have nothing.
            let records = if owner { vec![(slot, windows.save())] } else { Vec::new() };
            let anew = shared.checkpoints.anew(info.epoch);
            saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(records)));
        }
    });
    let mut outputs = per_tick(scope, &operator, control.inside().telling(1), ports, 1, logic);
    Statistics { monitor, kind: StatKind::Drift, rows: outputs.pop().expect("one output") }
}

/// Adds the changes of each tick up where they are.
fn count<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    operator: &str,
    watch: &Arc<LabelWatch>,
    matches: Rows<'s>,
) -> Rows<'s> {
    let mut local = LocalLabels::new(Arc::clone(watch));
    let (watch, shared) = (Arc::clone(watch), Arc::clone(shared));
    let logic = Box::new(move |_: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        for batch in inputs.into_iter().flatten() {
            let column = |name: &str| {
                let found = batch.column_by_name(name);
                found.ok_or_else(|| EngineError::defect(format!("matches have no column {name}")))
            };
            let (due, diff, label) = match (column("due"), column("diff"), column("label")) {
                (Ok(due), Ok(diff), Ok(label)) => (due, diff, label),
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return shared.fail(error),
            };
            let due = due.as_primitive::<TimestampMicrosecondType>().values();
            let diff = diff.as_primitive::<Int8Type>().values();
            let label = label.as_primitive::<Float64Type>().values();
            for (((time, due), diff), label) in times(&batch).iter().zip(due).zip(diff).zip(label) {
                local.change(*time, *due, *label, i64::from(*diff));
            }
        }
        match addressed(&watch.model, &local.take()) {
            Ok(batch) => out[0].extend(batch),
            Err(error) => shared.fail(error),
        }
    });
    let name = format!("{operator} count");
    let mut outputs = per_tick(scope, &name, control.inside(), vec![Port::local(matches)], 1, logic);
    outputs.pop().expect("one output")
}

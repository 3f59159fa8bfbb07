//! Decides about versions that come in: the [`Controller`] of a model's rollout as an operator.
//!
//! All of it happens on the first worker: what was routed and what labels say come there from all, sorted, so that a decision
//! does not depend on the number of workers. A decision takes effect when its command comes back with a tick; then it becomes
//! a row of the table and a deed for the registry. **State**, in slot 0: the routes, the controller, the decision on its way,
//! and deeds that the registry has not been told. After a restart the decision on its way is proposed again: if the tick log
//! has its command already, that one counts.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int8Type, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;

use super::super::EngineError;
use super::super::checkpoint::Saver;
use super::super::shared::Shared;
use super::super::source::commands_of;
use super::super::ticked::{Control, Port, Rows, per_tick};
use super::pilot::{Deed, What};
use super::tally::{Assigned, Tally};
use super::{control_name, is_rolled_out, policy};
use crate::base::{EventTime, Tick, failpoint};
use crate::ops::control::TickInfo;
use crate::ops::{ords, times};
use crate::plan::model::Order as RowOrder;
use crate::rollout::loss::loss;
use crate::rollout::order::{Do, Order};
use crate::rollout::record::Figures;
use crate::rollout::routes::{Effect, Routes, Underway};
use crate::rollout::{Arm, Controller, Outcome, Phase, Record, VersionRef, record_batch};
use crate::state::Mode;

/// Attaches the controllers of all models whose versions are rolled out. `tallies` and `matches` are by model. Returns what was
/// done, as rows of [`record_schema`](crate::rollout::record_schema); nothing where no versions are.
pub fn controllers<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    commands: &Rows<'s>,
    tallies: Vec<Rows<'s>>,
    matches: Vec<Option<Rows<'s>>>,
) -> Option<Rows<'s>> {
    let mut done = Vec::new();
    for (model, (tallies, matches)) in tallies.into_iter().zip(matches).enumerate() {
        if !is_rolled_out(&shared.plan, model) {
            continue;
        }
        let name = control_name(&shared.plan, model);
        let core = ControlCore::new(shared, model, scope.index());
        let mut core = core.map_err(|error| shared.fail(error)).ok();
        let labelled = matches.is_some();
        let ports = [Port::local(commands.clone()), Port::first(tallies)];
        let ports = ports.into_iter().chain(matches.map(Port::first)).collect();
        let shared = Arc::clone(shared);
        let logic =
            Box::new(move |info: &TickInfo, mut inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
                let Some(core) = core.as_mut().filter(|_| !shared.failed()) else { return };
                let matches = if labelled { inputs.pop() } else { None }.unwrap_or_default();
                let tallies = inputs.pop().unwrap_or_default();
                let commands = inputs.pop().unwrap_or_default();
                match core.tick(info, &commands, &tallies, matches) {
                    Ok(rows) => out[0].extend(rows),
                    Err(error) => shared.fail(error),
                }
            });
        let mut outputs = per_tick(scope, &name, control.clone(), ports, 1, logic);
        done.push(outputs.pop().expect("one output"));
    }
    (!done.is_empty()).then(|| scope.concatenate(done))
}

/// A decision on its way to a tick.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Decided {
    order: Order,
    figures: Figures,
}

/// What is saved beside the controller.
#[derive(Serialize, Deserialize)]
struct Saved {
    routes: Routes,
    decided: Option<Decided>,
    waiting: Vec<Record>,
    deeds: Vec<Deed>,
}

/// The controller of a model between ticks; knows nothing of timely.
struct ControlCore {
    shared: Arc<Shared>,
    model: usize,
    /// Outputs that are held against labels, and the score from which on one score predicts the positive class.
    outputs: (usize, f64),
    routes: Routes,
    controller: Option<Controller>,
    decided: Option<Decided>,
    /// What was done before the job's clock went.
    waiting: Vec<Record>,
    saver: Option<Saver>,
    /// Whether this is the worker that decides.
    first: bool,
}

impl ControlCore {
    fn new(shared: &Arc<Shared>, model: usize, worker: usize) -> Result<ControlCore, EngineError> {
        let plan = &shared.plan;
        let name = control_name(plan, model);
        let monitor = plan.monitors.iter().find(|monitor| monitor.model == model);
        let outputs = monitor.map_or(0, |monitor| monitor.prediction.len());
        let threshold = monitor.and_then(|m| m.accuracy.as_ref()).map_or(0.5, |accuracy| accuracy.threshold);
        let mut core = ControlCore {
            shared: Arc::clone(shared),
            model,
            outputs: (outputs, threshold),
            routes: Routes::default(),
            controller: None,
            decided: None,
            waiting: Vec::new(),
            saver: shared.checkpoints.operator(worker, &name),
            first: worker == 0,
        };
        if core.first {
            shared.checkpoints.restore_alike(&name, |bytes| core.import(&name, bytes))?;
            core.tell_pilot();
        }
        Ok(core)
    }

    fn import(&mut self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let damaged = |what: String| EngineError::Plan(format!("the saved state of `{name}` cannot be read: {what}"));
        let short = || damaged("it is too short".to_owned());
        let (length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (saved, controller) = rest.split_at_checked(length).ok_or_else(short)?;
        let Saved { routes, decided, waiting, deeds } =
            serde_json::from_slice(saved).map_err(|error| damaged(error.to_string()))?;
        (self.routes, self.decided, self.waiting) = (routes, decided, waiting);
        self.controller = match controller {
            [] => None,
            bytes => Some(Controller::decode(bytes).map_err(|error| damaged(error.to_string()))?),
        };
        // Its command may be in no tick; if it is in one that is replayed, that one counts.
        self.decided.iter().for_each(|decided| self.shared.rollouts.propose(&decided.order));
        // They are in a manifest, and so durable.
        deeds.into_iter().for_each(|deed| self.shared.rollouts.tell(Deed { tick: None, ..deed }));
        Ok(())
    }

    fn export(&self) -> Result<Vec<u8>, EngineError> {
        let deeds = self.shared.rollouts.untold(&self.name());
        let (routes, decided, waiting) = (self.routes.clone(), self.decided.clone(), self.waiting.clone());
        let saved = Saved { routes, decided, waiting, deeds };
        let saved = serde_json::to_vec(&saved).map_err(|error| EngineError::defect(error.to_string()))?;
        let mut bytes = (saved.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&saved);
        bytes.extend(self.controller.as_ref().map(Controller::encode).unwrap_or_default());
        Ok(bytes)
    }

    /// The model, by the job's name for it.
    fn name(&self) -> String {
        self.shared.plan.models[self.model].name.clone()
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        commands: &[RecordBatch],
        tallies: &[RecordBatch],
        matches: Vec<RecordBatch>,
    ) -> Result<Option<RecordBatch>, EngineError> {
        if !self.first {
            if info.epoch_end
                && let Some(saver) = &self.saver
            {
                let anew = self.shared.checkpoints.anew(info.epoch);
                saver.save_later(info, Mode::Replace, anew, Box::new(|| Ok(Vec::new())));
            }
            return Ok(None);
        }
        let mut done = std::mem::take(&mut self.waiting);
        for text in commands_of(commands) {
            let order = Order::decode(text).map_err(EngineError::Plan)?;
            if order.model == self.name() {
                self.carry_out(&order, info, &mut done);
            }
        }
        self.observe(info, tallies, matches)?;
        self.decide(info);
        if info.now == EventTime::MIN {
            self.waiting = std::mem::take(&mut done);
        }
        done.iter_mut().filter(|done| done.at == EventTime::MIN).for_each(|done| done.at = info.now);
        if info.epoch_end
            && let Some(saver) = &self.saver
        {
            let entries = vec![(0, self.export()?)];
            let anew = self.shared.checkpoints.anew(info.epoch);
            saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(entries)));
        }
        if done.is_empty() {
            return Ok(None);
        }
        let version = self.shared.plan.version;
        record_batch(&done, version).map(Some).map_err(EngineError::arrow)
    }

    /// Carries out a command: the decider's part of it.
    fn carry_out(&mut self, order: &Order, info: &TickInfo, done: &mut Vec<Record>) {
        let before = self.controller.as_ref().map(|controller| Figures::from(&controller.numbers()));
        let decided = self.decided.take_if(|decided| decided.order.key() == order.key());
        let figures = decided.map(|decided| decided.figures).or(before).unwrap_or_default();
        let effect = self.routes.apply(order);
        if let (Do::Act(action), Some(controller)) = (&order.action, &mut self.controller)
            && (order.id.is_empty() || controller.id() == order.id)
        {
            // Also one that comes too late: its number is used.
            controller.command(action, order.seq, share_from(&self.shared.plan.order, info));
        }
        let (name, mut switched) = (order.action.name(), false);
        let mut note = |core: &ControlCore, action: &str, what: What, of: &Underway, seq: Option<u64>, why: &str| {
            let phase = match &what {
                What::Promoted { .. } => Phase::Promoted,
                What::RolledBack { .. } => Phase::RolledBack,
                What::Noted => of.phase(),
            };
            let row = Record {
                at: info.now,
                tick: info.tick,
                model: core.name(),
                rollout: of.id.clone(),
                sequence: seq,
                action: action.to_owned(),
                phase: phase.name().to_owned(),
                champion: core.shown(core.routes.champion.as_ref()),
                challenger: core.shown(Some(&of.challenger)),
                share: f64::from(phase.share()) / 100.0,
                figures: if action == "begin" { Figures::default() } else { figures },
                by: if order.by.is_empty() { "controller".to_owned() } else { order.by.clone() },
                why: why.to_owned(),
            };
            core.tell(order, info.tick, action, what, of, &row);
            done.push(row);
        };
        match effect {
            Effect::None | Effect::Pinned => return,
            Effect::Began(over) => {
                let replaced = "another challenger has taken its place";
                over.iter().for_each(|o| {
                    note(self, "roll_back", What::RolledBack { challenger: o.challenger.number }, o, None, replaced)
                });
                self.controller = None;
                if let Some(begun) = self.routes.rollout.clone() {
                    self.begin(info);
                    note(self, name, What::Noted, &begun, None, &order.why);
                }
            }
            Effect::Stepped | Effect::Decisions => {
                failpoint("rollout.step");
                if let Some(underway) = self.routes.rollout.clone() {
                    note(self, name, What::Noted, &underway, order.seq, &order.why);
                }
            }
            Effect::Promoted(over, was) => {
                let what = What::Promoted { from: was.map(|was| was.number), to: over.challenger.number };
                note(self, "promote", what, &over, order.seq, &order.why);
            }
            Effect::RolledBack(over) => {
                let what = What::RolledBack { challenger: over.challenger.number };
                note(self, "roll_back", what, &over, order.seq, &order.why);
            }
            Effect::Switched(_, over) => {
                let ended = "somebody has chosen another champion";
                over.iter().for_each(|o| {
                    note(self, "roll_back", What::RolledBack { challenger: o.challenger.number }, o, None, ended)
                });
                switched = true;
            }
        }
        if switched {
            // The registry, or the job's file, has said so.
            done.push(Record {
                at: info.now,
                tick: info.tick,
                model: self.name(),
                rollout: String::new(),
                sequence: None,
                action: "switch".to_owned(),
                phase: String::new(),
                champion: self.shown(self.routes.champion.as_ref()),
                challenger: String::new(),
                share: 0.0,
                figures: Figures::default(),
                by: if order.by.is_empty() { "the job's file".to_owned() } else { order.by.clone() },
                why: order.why.clone(),
            });
        }
        if self.routes.rollout.is_none() {
            (self.controller, self.decided) = (None, None);
        }
        self.tell_pilot();
    }

    /// Makes the controller of the rollout under way, once the job's clock goes.
    fn begin(&mut self, info: &TickInfo) {
        if info.now == EventTime::MIN || self.controller.is_some() {
            return;
        }
        if let Some(underway) = &self.routes.rollout {
            let at = share_from(&self.shared.plan.order, info);
            self.controller = Some(Controller::new(underway.policy.as_ref().clone(), underway.id.clone(), at));
        }
    }

    fn observe(
        &mut self,
        info: &TickInfo,
        tallies: &[RecordBatch],
        matches: Vec<RecordBatch>,
    ) -> Result<(), EngineError> {
        self.begin(info);
        let Some(controller) = &mut self.controller else { return Ok(()) };
        let serial = self.routes.serial;
        let tally = Tally::of(tallies).map_err(EngineError::defect)?;
        if tally.serial == serial {
            for (arm, tally) in [Arm::Champion, Arm::Challenger].into_iter().zip(&tally.arms) {
                controller.assigned(arm, tally.rows, &tally.scores, tally.errors);
            }
            tally.groups.iter().for_each(|(group, rows)| controller.assigned_group(*group, *rows));
        }
        let Some(first) = matches.first() else { return Ok(()) };
        let rows = concat_batches(&first.schema(), &matches).map_err(EngineError::arrow)?;
        let lacks = |name: &str| EngineError::defect(format!("matches have no column {name}"));
        let float = |name: &str| -> Result<&Float64Array, EngineError> {
            let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float64Type>());
            column.ok_or_else(|| lacks(name))
        };
        let due = rows.column_by_name("due").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let (times, due) = (times(&rows), due.ok_or_else(|| lacks("due"))?.values());
        let diffs = rows.column_by_name("diff").and_then(|c| c.as_primitive_opt::<Int8Type>());
        let diffs = diffs.ok_or_else(|| lacks("diff"))?;
        let (arms, groups, labels) = (float("arm")?, float("group")?, float("label")?);
        let named = |prefix: &str| -> Result<Vec<&Float64Array>, EngineError> {
            (0..self.outputs.0).map(|output| float(&format!("{prefix}_{output}"))).collect()
        };
        let (scores, shadow) = (named("score")?, named("shadow")?);
        let ords = ords(&rows);
        // Those of one prediction come from one worker, in their order.
        let mut places: Vec<usize> = (0..rows.num_rows()).collect();
        places.sort_by_key(|row| (due[*row], ords[*row]));
        let metric = controller.policy().metric;
        for row in places {
            let Some(assigned) = Assigned::of(arms.value(row)).filter(|assigned| assigned.serial == serial) else {
                continue;
            };
            let of = |columns: &[&Float64Array]| -> Option<f64> {
                let scores: Vec<f64> = columns.iter().map(|column| column.value(row)).collect();
                loss(metric, &scores, labels.value(row), self.outputs.1)
            };
            let Some(loss) = of(&scores) else { continue };
            let outcome = Outcome {
                time: times[row],
                due: due[row],
                arm: if assigned.challenger { Arm::Challenger } else { Arm::Champion },
                loss,
                shadow_loss: of(&shadow),
                retract: diffs.value(row) < 0,
            };
            let group = groups.value(row);
            controller.observe_in(&outcome, (!group.is_nan()).then_some(group as u16));
        }
        Ok(())
    }

    fn decide(&mut self, info: &TickInfo) {
        let Some(controller) = &mut self.controller else { return };
        let Some(decision) = controller.decide(info.now) else { return };
        failpoint("rollout.decided");
        let order = Order {
            model: self.shared.plan.models[self.model].name.clone(),
            id: controller.id().to_owned(),
            seq: Some(decision.seq),
            entry: None,
            by: String::new(),
            why: decision.why,
            action: Do::Act(decision.action),
        };
        self.shared.rollouts.propose(&order);
        self.decided = Some(Decided { order, figures: Figures::from(&decision.numbers) });
    }

    fn shown(&self, version: Option<&VersionRef>) -> String {
        version.map_or(String::new(), |version| self.shared.rollouts.versions.shown(self.model, version))
    }

    /// Has the registry told of what was done.
    fn tell(&self, order: &Order, tick: Tick, action: &str, what: What, of: &Underway, row: &Record) {
        let plan = &self.shared.plan;
        let numbers = serde_json::json!({
            "rollout": of.id, "sequence": order.seq, "action": action, "phase": row.phase,
            "champion": row.champion, "challenger": row.challenger, "share": row.share,
            "tick": tick, "numbers": row.figures,
        });
        self.shared.rollouts.tell(Deed {
            key: format!("{}{}/{action}", super::own_prefix(plan), order.key()),
            tick: Some(tick),
            model: self.name(),
            name: self.shared.rollouts.versions.name(self.model).to_owned(),
            version: u32::try_from(of.challenger.number).unwrap_or_default(),
            what,
            why: if row.why.is_empty() { format!("{action} by {}", row.by) } else { row.why.clone() },
            numbers,
        });
    }

    /// Tells the pilot what to watch.
    fn tell_pilot(&self) {
        let limit = policy(&self.shared.plan, self.model).and(self.routes.rollout.as_ref()).and_then(|underway| {
            let limit = underway.policy.guard.latency_p99_ms?;
            Some((underway.id.clone(), self.shown(Some(&underway.challenger)), limit))
        });
        self.shared.rollouts.watch(self.model, limit);
    }
}

/// The time from which rows fall under what a tick has changed.
///
/// Rows that are released by event time are none of them before the watermark of the tick before; rows that are applied as they
/// come are about the job's clock.
fn share_from(order: &RowOrder, info: &TickInfo) -> EventTime {
    match (order, info.previous_watermark) {
        (RowOrder::Arrival, _) | (_, EventTime::MIN) => info.now,
        (RowOrder::EventTime, previous) => previous.min(info.now),
    }
}

/// Has one start decide and save, and the next take it over.
#[cfg(test)]
pub(super) fn resumed(shared: &Arc<Shared>, next: &Arc<Shared>, order: Order) -> Result<(), EngineError> {
    let mut core = ControlCore::new(shared, 0, 0)?;
    core.decided = Some(Decided { order, figures: Figures::default() });
    let bytes = core.export()?;
    ControlCore::new(next, 0, 0)?.import("rollout fraud", &bytes)
}

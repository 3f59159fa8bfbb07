//! The alerts of a job as an operator: the core of [`Machine`] fed with the statistics of all monitors.
//!
//! Statistics come to the worker that owns their model's name. State: what goes on, and what receivers have not taken yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;

use super::super::EngineError;
use super::super::shared::Shared;
use super::super::status::AlertStatus;
use super::super::ticked::{Control, Port, Rows, per_tick};
use super::super::topic_sink::GRACE;
use super::Statistics;
use super::detect::slot_of_text;
use super::receivers::{Courier, Outgoing, Receiver};
use crate::base::{Tick, format_time};
use crate::monitor::alert::{Alert, Machine, Rule, State, alert_batch};
use crate::monitor::{StatKind, stat_schema, stats_of};
use crate::ops::control::TickInfo;
use crate::plan::model::{Condition, MetricTable, Plan, ReceiverWay};
use crate::state::{Mode, SlotBytes};

/// Name of the operator, which is that of its state.
pub const NAME: &str = "alerts";
/// What the state depends on, in words: rules come and go by their names.
pub const MEANING: &str = "alerts by monitor, rule and series";

/// Whether a plan has alerts.
pub fn wanted(plan: &Plan) -> bool {
    plan.monitors.iter().any(|monitor| !monitor.alerts.is_empty())
}

/// Whether a replay of the same events makes the same alerts: not where a rule is about the job's operation.
pub fn is_exact(plan: &Plan) -> bool {
    let rules = plan.monitors.iter().flat_map(|monitor| &monitor.alerts);
    rules.into_iter().all(|rule| match &rule.condition {
        Condition::Compare { table, .. } => !matches!(table, MetricTable::Serving | MetricTable::Engine),
        Condition::Drift { .. } | Condition::Change { .. } => true,
    })
}

/// Alerts on their way to tables and topics, as rows of [`crate::monitor::alert::alert_schema`].
pub struct Alerts<'s> {
    /// All, for the table.
    pub rows: Rows<'s>,
    /// Those for a receiver that is a topic, by its name.
    pub topics: Vec<(String, Rows<'s>)>,
}

/// Attaches the operator to the statistics of all monitors; `None` without rules.
pub fn alerts<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    receivers: &[Receiver],
    control: Control<'s>,
    statistics: &[Statistics<'s>],
) -> Option<Alerts<'s>> {
    let plan = &shared.plan;
    if !wanted(plan) {
        return None;
    }
    let topics: Vec<String> =
        plan.receivers.iter().filter(|r| r.way == ReceiverWay::Topic).map(|r| r.name.clone()).collect();
    let model = stat_schema().index_of("model").map_or_else(|_| Vec::new(), |column| vec![column]);
    let ports = StatKind::ALL
        .iter()
        .map(|kind| {
            let rows: Vec<Rows<'s>> = statistics.iter().filter(|s| s.kind == *kind).map(|s| s.rows.clone()).collect();
            Port::keyed(scope.concatenate(rows), model.clone())
        })
        .collect();
    let mut core = match AlertCore::new(shared, receivers, (scope.index(), scope.peers()), topics.clone()) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let saver = shared.checkpoints.operator(scope.index(), NAME);
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        let Some(running) = core.as_mut().filter(|_| !shared.failed()) else { return };
        if let Err(error) = running.tick(info, inputs, out) {
            shared.fail(error);
        }
        if info.last {
            // What is told now need not be told again by the next start.
            running.courier.flush(GRACE);
        }
        if info.epoch_end
            && let Some(saver) = &saver
        {
            let entries = running.export();
            let anew = shared.checkpoints.anew(info.epoch);
            saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(entries)));
        }
        if info.last {
            core = None;
        }
    });
    let mut outputs = per_tick(scope, NAME, control, ports, 1 + topics.len(), logic).into_iter();
    let rows = outputs.next().expect("the table's output");
    Some(Alerts { rows, topics: topics.into_iter().zip(outputs).collect() })
}

/// Models of one slot, and receivers with what they have not taken.
type InSlot = (Vec<String>, Vec<(String, Alert)>);

/// The alerts between their ticks; knows nothing of timely.
struct AlertCore {
    machine: Machine,
    courier: Courier,
    topics: Vec<String>,
    version: u32,
    /// Who tells those who watch.
    shared: Option<Arc<Shared>>,
    worker: usize,
}

impl AlertCore {
    fn new(
        shared: &Arc<Shared>,
        receivers: &[Receiver],
        place: (usize, usize),
        topics: Vec<String>,
    ) -> Result<AlertCore, EngineError> {
        let plan = &shared.plan;
        let machine = Machine::new(&plan.job, Rule::all(plan));
        let courier = Courier::start(shared, receivers, place.0)?;
        let mut core = AlertCore { machine, courier, topics, version: plan.version, shared: None, worker: place.0 };
        let mut waiting = Vec::new();
        shared.checkpoints.restore(NAME, place, |_, bytes| {
            waiting.extend(core.import(bytes)?);
            Ok(())
        })?;
        core.shared = Some(Arc::clone(shared));
        for alert in core.machine.firing() {
            core.show(alert);
            core.courier.goes_on(alert);
        }
        core.show_judged();
        // They are in a manifest, and so durable.
        waiting.into_iter().for_each(|outgoing| core.courier.tell_one(None, outgoing));
        Ok(core)
    }

    fn tick(
        &mut self,
        info: &TickInfo,
        inputs: Vec<Vec<RecordBatch>>,
        out: &mut [Vec<RecordBatch>],
    ) -> Result<(), EngineError> {
        let mut stats = Vec::new();
        for (kind, batches) in StatKind::ALL.into_iter().zip(inputs) {
            for batch in batches {
                stats.extend(stats_of(kind, &batch).map_err(EngineError::defect)?);
            }
        }
        let (mut alerts, news) = (Vec::new(), !stats.is_empty());
        self.machine.tick(&mut stats, info.now, &mut alerts);
        alerts.iter().for_each(|alert| self.courier.tell(Some(info.tick), alert));
        alerts.iter().for_each(|alert| self.show(alert));
        if news || !alerts.is_empty() {
            self.show_judged();
        }
        // A reminder is no news.
        let news: Vec<&Alert> = alerts.iter().filter(|alert| alert.repeat == 0).collect();
        if !news.is_empty() {
            out[0].push(alert_batch(news.iter().copied(), info.tick, self.version, 0));
        }
        for (topic, out) in self.topics.iter().zip(&mut out[1..]) {
            let theirs: Vec<&Alert> = news.iter().copied().filter(|alert| alert.to.contains(topic)).collect();
            if !theirs.is_empty() {
                out.push(alert_batch(theirs, info.tick, self.version, 0));
            }
        }
        Ok(())
    }

    /// Shows which measures of accuracy are in alarm, where somebody asks for metrics.
    fn show_judged(&self) {
        let shared = self.shared.as_ref().filter(|shared| shared.meters.board.is_open());
        if let Some(shared) = shared {
            shared.meters.board.judge(self.worker, self.machine.judges(StatKind::Accuracy));
        }
    }

    /// Shows an alert while it fires.
    fn show(&self, alert: &Alert) {
        let Some(shared) = &self.shared else { return };
        let firing = (alert.state == State::Firing).then(|| AlertStatus {
            name: alert.name.clone(),
            severity: alert.severity.clone(),
            state: "firing".to_owned(),
            since: format_time(alert.since),
            text: alert.message.clone(),
        });
        shared.meters.alert(&alert.fingerprint, firing);
    }

    /// The state by slot: the length of what the machine saves, that, and what waits.
    fn export(&mut self) -> Vec<SlotBytes> {
        let mut slots: BTreeMap<u16, InSlot> = BTreeMap::new();
        for model in self.machine.models() {
            slots.entry(slot_of_text(model)).or_default().0.push(model.to_owned());
        }
        for Outgoing { receiver, alert } in self.courier.waiting() {
            let waiting = &mut slots.entry(slot_of_text(&alert.model)).or_default().1;
            waiting.push((receiver.clone(), alert.clone()));
        }
        let encode = |(slot, (models, waiting)): (u16, InSlot)| {
            let machine = self.machine.save(|model| models.iter().any(|m| m == model)).unwrap_or_default();
            let mut bytes = (machine.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(&machine);
            // Texts and finite numbers always become JSON.
            bytes.extend_from_slice(&serde_json::to_vec(&waiting).unwrap_or_default());
            (slot, bytes)
        };
        slots.into_iter().map(encode).collect()
    }

    fn import(&mut self, bytes: &[u8]) -> Result<Vec<Outgoing>, EngineError> {
        let damaged = |what: String| EngineError::Plan(format!("the saved state of `{NAME}` cannot be read: {what}"));
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("it is too short".into()))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (machine, waiting) = rest.split_at_checked(length).ok_or_else(|| damaged("it is too short".into()))?;
        if !machine.is_empty() {
            self.machine.load(machine).map_err(|error| damaged(error.to_string()))?;
        }
        let waiting: Vec<(String, Alert)> = serde_json::from_slice(waiting).map_err(|e| damaged(e.to_string()))?;
        Ok(waiting.into_iter().map(|(receiver, alert)| Outgoing { receiver, alert }).collect())
    }
}

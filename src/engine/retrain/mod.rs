//! Retraining by the running job: an operator that sees alerts, the clock and labels, and asks for a batch dataflow when its
//! model's triggers say so.
//!
//! What is asked for follows from the ticks alone, and is asked once its tick is durable, under a key that a replay makes again:
//! so it is started once, whatever fails. What has not been taken yet is part of the operator's state. Whoever takes it works off
//! the graph's threads, in processes of its own; nothing in the graph waits for it.

mod core;
mod courier;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;

use self::core::{Core, News};
use self::courier::Courier;
use super::EngineError;
use super::monitor::detect::slot_of_text;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows, per_tick};
use crate::base::{EventTime, Tick, format_time, worker_of_slot};
use crate::ops::control::TickInfo;
use crate::plan::model::{Plan, Trigger};
use crate::state::{Mode, SlotBytes};

/// Name of the operator, which is that of its state.
pub const NAME: &str = "retrain";
/// What the state depends on, in words: triggers come and go.
pub const MEANING: &str = "retraining by model";

/// A retraining that the job asks for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    /// Name of the model.
    pub model: String,
    /// What started it, in words.
    pub cause: String,
    /// When, on the job's clock.
    pub at: EventTime,
    /// Counts the model's retrainings, from 1.
    pub number: u64,
}

impl Asked {
    /// Names it: the same after a replay, another in another life of the job.
    pub fn key(&self, job: &str, instance: &str) -> String {
        format!("{job}-{}-{}-{instance}-{}", self.model, format_time(self.at), self.number)
    }
}

/// Takes what the job asks for.
pub trait Retrainer: Send + Sync {
    /// Queues a retraining, unless one was queued under that key. Does not wait for it.
    ///
    /// # Errors
    /// Why it cannot be queued now; it is asked for again.
    fn ask(&self, asked: &Asked, key: &str) -> Result<(), String>;
}

/// Who takes what a job asks for, and the name of the job's life.
#[derive(Clone)]
pub struct Retraining {
    /// Who.
    pub retrainer: Arc<dyn Retrainer>,
    /// The same after a restart from saved state.
    pub instance: String,
}

/// Whether a job asks for anything.
pub fn wanted(plan: &Plan) -> bool {
    plan.retrains.iter().any(|retrain| !retrain.on.is_empty())
}

/// Attaches the operator, where the job asks for anything; `alerts` are rows of [`crate::monitor::alert::alert_schema`], `sources`
/// the rows of all sources.
pub fn retrain<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    taker: Option<&Retraining>,
    control: &Control<'s>,
    alerts: Option<&Rows<'s>>,
    sources: &[Rows<'s>],
) {
    let plan = &shared.plan;
    if !wanted(plan) {
        return;
    }
    let counted = counted(scope, plan, control, sources);
    let by_model = crate::monitor::alert::alert_schema().index_of("model").map_or_else(|_| Vec::new(), |i| vec![i]);
    let alerts = alerts.cloned().unwrap_or_else(|| scope.concatenate(Vec::new()));
    let ports = vec![Port::keyed(alerts, by_model), Port::keyed(counted, vec![0])];
    let place = (scope.index(), scope.peers());
    let mut operator = match Operator::new(shared, taker, place) {
        Ok(operator) => Some(operator),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let saver = shared.checkpoints.operator(scope.index(), NAME);
    let shared = Arc::clone(shared);
    let logic = Box::new(move |info: &TickInfo, inputs: Vec<Vec<RecordBatch>>, _: &mut [Vec<RecordBatch>]| {
        let Some(running) = operator.as_mut().filter(|_| !shared.failed()) else { return };
        running.tick(info, &inputs);
        if info.epoch_end
            && let Some(saver) = &saver
        {
            let entries = running.export();
            let anew = shared.checkpoints.anew(info.epoch);
            saver.save_later(info, Mode::Replace, anew, Box::new(move || Ok(entries)));
        }
        if info.last {
            // The courier finishes before its thread does.
            operator = None;
        }
    });
    per_tick(scope, NAME, control.clone(), ports, 0, logic);
}

/// Labels by model and tick, where a trigger counts them: the model's name, and how many.
fn counted<'s>(scope: Scope<'s, Tick>, plan: &Plan, control: &Control<'s>, sources: &[Rows<'s>]) -> Rows<'s> {
    let fields = [("model", DataType::Utf8), ("labels", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields.map(|(name, ty)| Field::new(name, ty, false)).to_vec()));
    let mut all = Vec::new();
    for retrain in &plan.retrains {
        let counts = retrain.on.iter().any(|trigger| matches!(trigger, Trigger::Labels(_)));
        let labels = plan.labels.iter().find(|labels| labels.model == retrain.model).filter(|_| counts);
        let Some(rows) = labels.and_then(|labels| sources.get(labels.from)) else { continue };
        let (model, schema) = (plan.models[retrain.model].name.clone(), Arc::clone(&schema));
        let logic = Box::new(move |_: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
            let rows: usize = inputs.iter().flatten().map(|batch| batch.num_rows()).sum();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values([&model])),
                Arc::new(Int64Array::from_iter_values([rows as i64])),
            ];
            if rows > 0
                && let Ok(batch) = RecordBatch::try_new(Arc::clone(&schema), columns)
            {
                out[0].push(batch);
            }
        });
        all.extend(per_tick(scope, "count labels", control.clone(), vec![Port::local(rows.clone())], 1, logic));
    }
    scope.concatenate(all)
}

/// What has not been taken yet is saved beside the core's state.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Saved {
    core: BTreeMap<String, self::core::Seen>,
    waiting: Vec<Asked>,
}

struct Operator {
    core: Core,
    courier: Option<Courier>,
}

impl Operator {
    fn new(shared: &Arc<Shared>, taker: Option<&Retraining>, place: (usize, usize)) -> Result<Operator, EngineError> {
        let own = |model: &str| worker_of_slot(usize::from(slot_of_text(model)), place.1) == place.0;
        let mut core = Core::new(&shared.plan, own);
        let mut waiting = Vec::new();
        shared.checkpoints.restore(NAME, place, |_, bytes| {
            let damaged = |e| EngineError::Plan(format!("the saved state of `{NAME}` cannot be read: {e}"));
            let saved: Saved = serde_json::from_slice(bytes).map_err(damaged)?;
            core.restore(saved.core);
            waiting.extend(saved.waiting);
            Ok(())
        })?;
        let courier = match taker {
            Some(taker) if core.has_models() => Some(Courier::start(shared, taker, place.0)?),
            _ => None,
        };
        let mut operator = Operator { core, courier };
        if let Some(courier) = &mut operator.courier {
            // They are in a manifest, and so durable.
            waiting.into_iter().for_each(|asked| courier.ask(None, asked));
        }
        Ok(operator)
    }

    fn tick(&mut self, info: &TickInfo, inputs: &[Vec<RecordBatch>]) {
        let mut news = News::default();
        for batch in inputs.first().into_iter().flatten() {
            let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            let columns = (text("model"), text("name"), text("state"), text("fingerprint"));
            let (Some(monitor), Some(name), Some(state), Some(fingerprint)) = columns else { continue };
            for row in 0..batch.num_rows() {
                let firing = state.value(row) == "firing";
                news.alert(monitor.value(row), name.value(row), fingerprint.value(row), firing);
            }
        }
        for batch in inputs.get(1).into_iter().flatten() {
            let models = batch.column(0).as_string_opt::<i32>();
            let counts = batch.column(1).as_primitive_opt::<Int64Type>();
            let (Some(models), Some(counts)) = (models, counts) else { continue };
            for row in 0..batch.num_rows() {
                news.labels(models.value(row), counts.value(row).unsigned_abs());
            }
        }
        for asked in self.core.tick(info.now, news) {
            tracing::info!(
                model = asked.model,
                cause = asked.cause,
                number = asked.number,
                "a retraining is asked for"
            );
            if let Some(courier) = &mut self.courier {
                courier.ask(Some(info.tick), asked);
            }
        }
    }

    fn export(&mut self) -> Vec<SlotBytes> {
        let mut slots: BTreeMap<u16, Saved> = BTreeMap::new();
        for (model, seen) in self.core.seen() {
            slots.entry(slot_of_text(model)).or_default().core.insert(model.clone(), seen.clone());
        }
        for asked in self.courier.iter_mut().flat_map(Courier::waiting) {
            slots.entry(slot_of_text(&asked.model)).or_default().waiting.push(asked.clone());
        }
        // Texts and whole numbers always become JSON.
        slots.into_iter().map(|(slot, saved)| (slot, serde_json::to_vec(&saved).unwrap_or_default())).collect()
    }
}

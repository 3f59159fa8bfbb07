//! Versions of models that take each other's place while a job runs.
//!
//! A [command](crate::rollout::order) waits in `steering` until a tick takes it into its record, and comes with that tick to
//! all workers. There `finish` scores rows by the [routes](crate::rollout::routes) that follow from the commands so far, with
//! models from `versions`. `control`, on the first worker, is fed with what was routed ([`tally`]) and with the labels that
//! came, decides, and proposes commands. `pilot`, a thread of its own, follows the registry, watches latency, and tells the
//! registry of what was done once that is durable.

mod control;
mod pilot;
mod steering;
pub mod tally;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::DataType;

pub use self::control::controllers;
pub use self::pilot::Pilot;
pub use self::steering::Steering;
pub use self::versions::Versions;

use self::pilot::{Deed, own as own_prefix};
use super::EngineError;
use super::checkpoint::Checkpoints;
use crate::base::failpoint;
use crate::ingest::aligned::Cut;
use crate::plan::model::{Plan, RolloutPlan};
use crate::rollout::order::{Do, Order};
use crate::rollout::routes::Routes;
use crate::telemetry::Histogram;

/// Engine column of scored rows: how a row came to its version.
pub const ROUTE: &str = "_route";
/// Engine column of scored rows: the version that scored in shadow.
pub const SHADOW_VERSION: &str = "_shadow_version";
/// Engine column of scored rows: which rollout and version, as [`tally::Assigned`] says.
pub const ARM: &str = "_arm";
/// Engine column of scored rows: which of the groups, into which keys are divided, the row's key is in.
pub const GROUP: &str = "_group";

/// Ticks are wanted this often while a version may come in and the input is silent: an order waits for the next.
pub const BEAT: Duration = Duration::from_secs(1);

const SHADOW: &str = "_shadow_";

/// Engine column of scored rows: an output of the version in shadow.
pub fn shadow_of(output: &str) -> String {
    format!("{SHADOW}{output}")
}

/// Whether an engine column holds what a version in shadow says.
pub fn is_shadow(column: &str) -> bool {
    column.starts_with(SHADOW)
}

/// How challengers of a model come in; nothing where none do.
pub fn policy(plan: &Plan, model: usize) -> Option<&RolloutPlan> {
    plan.rollouts.iter().find(|(of, _)| *of == model).map(|(_, policy)| policy)
}

/// Whether versions of a model are rolled out; else it scores with the version that the job began with.
pub fn is_rolled_out(plan: &Plan, model: usize) -> bool {
    policy(plan, model).is_some()
}

/// Whether versions of any model are rolled out.
pub fn wanted(plan: &Plan) -> bool {
    (0..plan.models.len()).any(|model| is_rolled_out(plan, model))
}

/// Name of the operator that scores by routes, which is that of its state.
pub fn routes_name(plan: &Plan, model: usize) -> String {
    format!("routes {}", plan.models[model].name)
}

/// Name of the operator that decides, which is that of its state.
pub fn control_name(plan: &Plan, model: usize) -> String {
    format!("rollout {}", plan.models[model].name)
}

/// The stateful operators, with what their state means.
pub fn operators(plan: &Plan) -> impl Iterator<Item = (String, String)> {
    let rolled_out = (0..plan.models.len()).filter(|model| is_rolled_out(plan, *model));
    rolled_out.flat_map(|model| {
        let name = &plan.models[model].name;
        let routes = (routes_name(plan, model), format!("which version of {name} scores which rows"));
        let control = (control_name(plan, model), format!("what was seen of versions of {name} that come in"));
        [routes, control]
    })
}

/// Columns of a table of predictions that tell of versions, behind the model's outputs: name, engine column, type.
pub fn columns(outputs: &[(String, DataType)]) -> Vec<(String, String, DataType)> {
    let fixed = [("route", ROUTE), ("shadow_version", SHADOW_VERSION)];
    let fixed = fixed.map(|(name, engine)| (name.to_owned(), engine.to_owned(), DataType::Utf8));
    let shadow = outputs.iter().map(|(name, ty)| (format!("shadow_{name}"), shadow_of(name), ty.clone()));
    fixed.into_iter().chain(shadow).collect()
}

/// The routes of a model as they were saved, if they were.
///
/// # Errors
/// When they cannot be read.
pub fn saved_routes(checkpoints: &Checkpoints, name: &str) -> Result<Option<Routes>, EngineError> {
    let mut saved = None;
    checkpoints.restore_alike(name, |bytes| {
        let damaged = |error| EngineError::Plan(format!("the saved state of `{name}` cannot be read: {error}"));
        saved = Some(serde_json::from_slice(bytes).map_err(damaged)?);
        Ok(())
    })?;
    Ok(saved)
}

/// Bounds of the time that a version takes for a batch, in seconds.
const BATCH_BOUNDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// What a version has done since the job started.
pub struct VersionMeter {
    /// Rows scored.
    pub rows: AtomicU64,
    /// Rows that it could not score.
    pub errors: AtomicU64,
    /// How long batches took.
    pub seconds: Histogram,
    /// How long the batch took that a row was in, in microseconds, a value for each row.
    latency: Mutex<hdrhistogram::Histogram<u64>>,
}

/// Longest batch that is told apart, in microseconds.
const LATENCY_MAX: u64 = 60_000_000;

impl VersionMeter {
    fn new() -> Option<VersionMeter> {
        Some(VersionMeter {
            rows: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            seconds: Histogram::new(BATCH_BOUNDS),
            latency: Mutex::new(hdrhistogram::Histogram::new_with_max(LATENCY_MAX, 2).ok()?),
        })
    }

    /// The 99th percentile of rows' latency in milliseconds, and of how many rows.
    pub fn latency_p99_ms(&self) -> (f64, u64) {
        let latency = lock(&self.latency);
        (latency.value_at_quantile(0.99) as f64 / 1e3, latency.len())
    }
}

/// Meters by model and version.
type Meters = BTreeMap<(usize, String), Arc<VersionMeter>>;

/// What all workers share of the rollouts of a job.
pub struct Rollouts {
    /// Commands that wait for a tick.
    pub steering: Steering,
    /// Models.
    pub versions: Versions,
    /// Whether this run decides anything: a replay for a proof does what is recorded.
    pub live: bool,
    /// The last entries of the registry's history that were followed, by the models' names.
    followed: Mutex<BTreeMap<String, u64>>,
    /// What the registry is to be told, in order.
    deeds: Mutex<Vec<Deed>>,
    meters: Mutex<Meters>,
    /// Latency that is guarded, by model.
    watched: Mutex<BTreeMap<usize, (String, String, f64)>>,
}

impl Rollouts {
    /// For a run that is about to start.
    pub fn new(versions: Versions, live: bool) -> Rollouts {
        Rollouts {
            steering: Steering::default(),
            versions,
            live,
            followed: Mutex::default(),
            deeds: Mutex::default(),
            meters: Mutex::default(),
            watched: Mutex::default(),
        }
    }

    /// Gives a tick that was cut anew the commands that wait for one, and takes note of those of a replayed tick.
    pub fn steer(&self, cut: &mut Cut) {
        if !cut.replayed {
            cut.commands = self.steering.take();
            if !cut.commands.is_empty() {
                failpoint("rollout.taken");
            }
            return;
        }
        // What is none of ours is told of where it is carried out.
        for order in cut.commands.iter().filter_map(|text| Order::decode(text).ok()) {
            if let Some(entry) = order.entry {
                let mut followed = lock(&self.followed);
                let last = followed.entry(order.model.clone()).or_default();
                // The champion that was pinned says from where on the registry is followed, whatever this start has proposed.
                *last = if matches!(order.action, Do::Pin { .. }) { entry } else { entry.max(*last) };
            }
            self.steering.brought([order.key()]);
        }
    }

    /// Has the next tick carry out an order; nothing in a replay.
    pub fn propose(&self, order: &Order) {
        if !self.live {
            return;
        }
        match order.encode() {
            Ok(text) => drop(self.steering.propose(&order.key(), text)),
            Err(error) => tracing::error!(%error, "an order that cannot be written is dropped"),
        }
    }

    /// The meter of a version.
    pub fn meter(&self, model: usize, version: &str) -> Option<Arc<VersionMeter>> {
        let mut meters = lock(&self.meters);
        if let Some(meter) = meters.get(&(model, version.to_owned())) {
            return Some(Arc::clone(meter));
        }
        let meter = Arc::new(VersionMeter::new()?);
        meters.insert((model, version.to_owned()), Arc::clone(&meter));
        Some(meter)
    }

    /// The meters of a model's versions.
    pub fn meters(&self, model: usize) -> Vec<(String, Arc<VersionMeter>)> {
        let meters = lock(&self.meters);
        meters
            .iter()
            .filter(|((of, _), _)| *of == model)
            .map(|((_, v), meter)| (v.clone(), Arc::clone(meter)))
            .collect()
    }
}

/// Counts a batch.
pub fn count(meter: &VersionMeter, rows: usize, errors: usize, took: Duration) {
    meter.rows.fetch_add((rows - errors) as u64, Relaxed);
    if errors > 0 {
        meter.errors.fetch_add(errors as u64, Relaxed);
    }
    meter.seconds.record(took);
    let micros = (took.as_micros() as u64).clamp(1, LATENCY_MAX);
    // A value within the bounds is always counted.
    let _ = lock(&meter.latency).record_n(micros, rows as u64);
}

/// A panic elsewhere ends the process; what lies here is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

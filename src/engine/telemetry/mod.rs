//! What a running job tells those who watch it from outside: as metrics, and as alertable statistics.
//!
//! Layers, bottom-up: [`Meters`], what is counted for them while the job runs, per batch or per tick; `board`, the newest
//! statistics of monitors by series; `collect`, all of it as metrics when somebody asks; [`Telemetry`], which outlives a run
//! and says whether it is well.

mod board;
mod collect;
mod meters;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::RecordBatch;
use timely::dataflow::Scope;

pub use board::Board;
pub use meters::Meters;

use super::graph::Resources;
use super::monitor::Statistics;
use super::shared::Shared;
use super::ticked::{Control, Port, per_tick};
use crate::base::Tick;
use crate::monitor::stats_of;
use crate::plan::model::{OnlinePlace, Plan};
use crate::telemetry::process::Process;
use crate::telemetry::{Health, Registry};

/// Tells of a job in metrics: to be made before it runs, given to [`RunOptions`](super::RunOptions), and served.
pub struct Telemetry {
    registry: Arc<Registry>,
    run: Arc<Run>,
}

/// The run that is told of.
#[derive(Default)]
struct Run {
    attached: Mutex<Option<Attached>>,
}

#[derive(Clone)]
struct Attached {
    shared: Weak<Shared>,
    resources: Weak<Resources>,
}

impl Telemetry {
    /// For a job whose state is kept in `state_dir`, if it is kept.
    pub fn new(plan: &Plan, state_dir: Option<&Path>) -> Arc<Telemetry> {
        let telemetry = Telemetry { registry: Arc::default(), run: Arc::default() };
        telemetry.registry.register(Arc::new(Process::new(data_paths(plan, state_dir))));
        telemetry.registry.register(Arc::clone(&telemetry.run) as _);
        Arc::new(telemetry)
    }

    /// What is told.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// How the job is: live unless it has failed, ready while its graph takes rows in or answers readers.
    pub fn health(&self) -> Arc<dyn Health> {
        Arc::clone(&self.run) as _
    }

    /// Tells of this run from now on.
    pub(super) fn attach(&self, shared: &Arc<Shared>, resources: &Arc<Resources>) {
        let attached = Attached { shared: Arc::downgrade(shared), resources: Arc::downgrade(resources) };
        *self.run.attached.lock().unwrap_or_else(PoisonError::into_inner) = Some(attached);
        shared.meters.board.open();
    }
}

impl Run {
    fn attached(&self) -> Option<Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.attached()?.shared.upgrade()
    }
}

impl Health for Run {
    fn live(&self) -> Result<(), String> {
        match self.shared() {
            Some(shared) if shared.failed() => Err("the job has failed".to_owned()),
            _ => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), String> {
        self.live()?;
        let Some(attached) = self.attached() else { return Err("the job is starting".to_owned()) };
        let Some(shared) = attached.shared.upgrade() else { return Err("the job has ended".to_owned()) };
        if shared.stopping() {
            return Err("the job is ending".to_owned());
        }
        match shared.meters.is_built() {
            true => Ok(()),
            false => Err("the job is starting".to_owned()),
        }
    }
}

/// Directories on this machine that a job writes to.
pub(super) fn data_paths(plan: &Plan, state_dir: Option<&Path>) -> Vec<PathBuf> {
    let tables = plan.offline.as_ref().map(|offline| PathBuf::from(&offline.uri));
    let online = plan.online.as_ref().and_then(|online| match &online.store {
        OnlinePlace::Embedded(path) => Some(path.clone()),
        OnlinePlace::Redis(_) => None,
    });
    state_dir.map(Path::to_path_buf).into_iter().chain(tables).chain(online).collect()
}

/// Puts statistics on the board as they leave their monitors, where somebody asks for metrics.
pub(super) fn publish<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: &Control<'s>,
    statistics: &[Statistics<'s>],
) {
    if statistics.is_empty() || !shared.meters.board.is_open() {
        return;
    }
    let kinds: Vec<_> = statistics.iter().map(|one| one.kind).collect();
    let ports = statistics.iter().map(|one| Port::local(one.rows.clone())).collect();
    let shared = Arc::clone(shared);
    let logic = Box::new(move |_: &_, inputs: Vec<Vec<RecordBatch>>, _: &mut [Vec<RecordBatch>]| {
        for (kind, batches) in kinds.iter().zip(inputs) {
            for batch in batches {
                match stats_of(*kind, &batch) {
                    Ok(stats) => stats.iter().for_each(|stat| shared.meters.board.publish(stat)),
                    Err(error) => tracing::error!(table = kind.table(), error, "a statistic is not shown as a metric"),
                }
            }
        }
    });
    per_tick(scope, "metrics of statistics", control.clone(), ports, 0, logic);
}

//! Training sets as references: what a version of a model was fitted on, and which version is the champion.
//!
//! A version that was registered with its training set has the set's [`Profile`] beside it in the registry, which never
//! changes. Which version is the champion follows from the commands of the ticks and from the routes that were saved with the
//! epoch, so a replay holds the same windows against the same sets.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::engine::EngineError;
use crate::engine::rollout::{self, saved_routes};
use crate::engine::shared::Shared;
use crate::engine::source::commands_of;
use crate::engine::training::registered;
use crate::monitor::drift::profile::{Profile, ProfileError};
use crate::plan::model::{ModelPlan, MonitorPlan, ReferencePlan};
use crate::registry::Registry;
use crate::rollout::VersionRef;
use crate::rollout::order::Order;
use crate::rollout::routes::Routes;

/// The training set of the version that the job's file names.
///
/// # Errors
/// As for [`registered`].
pub(super) fn of_plan(uri: &str, model: &ModelPlan) -> Result<(String, Profile), String> {
    let registered_as = model.registered.as_ref();
    let registered_as = registered_as.ok_or_else(|| format!("model `{}` is of no registry", model.name))?;
    let (name, number) = (&registered_as.reference.name, registered_as.number);
    let registry = Registry::existing(uri).map_err(|error| error.to_string())?;
    Ok((format!("the training set of {name}@{number}"), registered(&registry, name, number)?))
}

/// Whether anything that a monitor watches is held against training sets.
pub fn is_wanted(monitor: &MonitorPlan) -> bool {
    monitor.drift.as_ref().is_some_and(|drift| drift.references.contains(&ReferencePlan::Training))
}

/// Follows which version of a model is the champion, on the worker that tells of its windows.
pub(super) struct Champion {
    shared: Arc<Shared>,
    model: usize,
    routes: Routes,
}

impl Champion {
    /// As of what was saved.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn new(shared: &Arc<Shared>, model: usize) -> Result<Champion, EngineError> {
        let name = rollout::routes_name(&shared.plan, model);
        let routes = match rollout::is_rolled_out(&shared.plan, model) {
            true => saved_routes(&shared.checkpoints, &name)?.unwrap_or_default(),
            false => Routes::default(),
        };
        Ok(Champion { shared: Arc::clone(shared), model, routes })
    }

    fn version(&self) -> VersionRef {
        let first = || self.shared.rollouts.versions.first(self.model);
        self.routes.champion.clone().unwrap_or_else(first)
    }

    /// Carries out the commands of a tick. Returns whether another version is the champion.
    ///
    /// # Errors
    /// When a command cannot be read.
    pub fn follow(&mut self, commands: &[RecordBatch]) -> Result<bool, EngineError> {
        let was = self.version();
        for text in commands_of(commands) {
            let order = Order::decode(text).map_err(EngineError::Plan)?;
            if order.model == self.shared.plan.models[self.model].name {
                self.routes.apply(&order);
            }
        }
        Ok(self.version() != was)
    }

    /// Hands the champion's training set over; where it cannot be had the log says why, and the job goes on without.
    pub fn refer(&self, refer: impl FnOnce(Option<&Profile>) -> Vec<ProfileError>) {
        let (version, model) = (self.version(), &self.shared.plan.models[self.model].name);
        let found = self.shared.rollouts.versions.training(self.model, &version);
        if let Err(what) = &found {
            tracing::warn!(model, version = version.number, what, "drift has no values: there is no training set");
        }
        for what in refer(found.ok().as_deref()) {
            tracing::warn!(model, version = version.number, %what, "drift has no value: the training set lacks a column");
        }
    }
}

//! Versions of models, loaded once for all workers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::EngineError;
use super::super::graph::bind_file;
use super::super::training;
use super::lock;
use crate::monitor::drift::profile::Profile;
use crate::plan::model::Plan;
use crate::registry::Registry;
use crate::rollout::VersionRef;
use crate::score::Bound;

/// Models that are loaded, and where others come from.
pub struct Versions {
    plan: Arc<Plan>,
    /// The versions that the job's file names, by model.
    first: Vec<Arc<Bound>>,
    /// By model and hash. A version that was in use may be again, by hand: there are few.
    loaded: Mutex<HashMap<(usize, String), Arc<Bound>>>,
    registry: Mutex<Option<Arc<Registry>>>,
    /// What versions were fitted on, by model and number.
    training: Mutex<HashMap<(usize, u64), Arc<Profile>>>,
}

impl Versions {
    /// `first` are the versions that the job's file names.
    pub fn new(plan: &Arc<Plan>, first: &[Arc<Bound>]) -> Versions {
        let by_hash =
            first.iter().enumerate().map(|(m, bound)| ((m, bound.model().hash().to_owned()), Arc::clone(bound)));
        Versions {
            plan: Arc::clone(plan),
            first: first.to_vec(),
            loaded: Mutex::new(by_hash.collect()),
            registry: Mutex::default(),
            training: Mutex::default(),
        }
    }

    /// The registry of the job, opened when somebody first needs it.
    ///
    /// # Errors
    /// When there is none where the job's file says.
    pub fn registry(&self) -> Result<Arc<Registry>, EngineError> {
        let mut open = lock(&self.registry);
        if let Some(registry) = &*open {
            return Ok(Arc::clone(registry));
        }
        let registry = Arc::new(Registry::existing(&self.plan.registry)?);
        *open = Some(Arc::clone(&registry));
        Ok(registry)
    }

    /// Name of a model in the registry.
    pub fn name(&self, model: usize) -> &str {
        let model = &self.plan.models[model];
        model.registered.as_ref().map_or(&model.name, |registered| &registered.reference.name)
    }

    /// The version that the job's file names.
    pub fn first(&self, model: usize) -> VersionRef {
        let number = self.plan.models[model].registered.as_ref().map_or(0, |registered| u64::from(registered.number));
        VersionRef { number, hash: self.first[model].model().hash().to_owned() }
    }

    /// What rows have in their column of versions.
    pub fn shown(&self, model: usize, version: &VersionRef) -> String {
        match version.number {
            0 => self.plan.models[model].version.clone(),
            number => number.to_string(),
        }
    }

    /// What a version was fitted on.
    ///
    /// # Errors
    /// Why that is not known, and how to mend it.
    pub fn training(&self, model: usize, version: &VersionRef) -> Result<Arc<Profile>, String> {
        let key = (model, version.number);
        if let Some(profile) = lock(&self.training).get(&key) {
            return Ok(Arc::clone(profile));
        }
        let number = u32::try_from(version.number).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| "the version is of no registry".to_owned())?;
        let registry = self.registry().map_err(|error| error.to_string())?;
        let profile = Arc::new(training::registered(&registry, self.name(model), number)?);
        lock(&self.training).insert(key, Arc::clone(&profile));
        Ok(profile)
    }

    /// A version, loaded unless it is already. The registry is asked for the file of that very hash.
    ///
    /// # Errors
    /// When the file is not to be had, or does not fit the model's inputs and outputs.
    pub fn get(&self, model: usize, version: &VersionRef) -> Result<Arc<Bound>, EngineError> {
        let key = (model, version.hash.clone());
        if let Some(bound) = lock(&self.loaded).get(&key) {
            return Ok(Arc::clone(bound));
        }
        if version.number == 0 {
            // The job's file names it, and may be given a better one.
            return Ok(Arc::clone(&self.first[model]));
        }
        let path = self.registry()?.artifact(&version.hash)?;
        let plan = &self.plan.models[model];
        let bound = bind_file(&self.plan, plan, &path)?;
        let (has, wants) = (bound.outputs(), self.first[model].outputs());
        if has != wants {
            let types = |of: &[(String, arrow::datatypes::DataType)]| {
                of.iter().map(|(name, ty)| format!("{name} {ty}")).collect::<Vec<_>>().join(", ")
            };
            return Err(EngineError::Plan(format!(
                "version {} of model `{}` gives {}, and the version that the job began with {}; export it with outputs of the same types",
                version.number,
                plan.name,
                types(&has),
                types(&wants)
            )));
        }
        lock(&self.loaded).insert(key, Arc::clone(&bound));
        Ok(bound)
    }
}

//! Which version of a model scores, and the scorers of the versions in use.
//!
//! Without being asked for another, it is the version that the job scores with: that of its file; where it is registered, the
//! one that the job's state began with; where versions are rolled out, the registry's champion, to which the job moves the
//! alias when a version has won. The registry is asked again every [`LOOK_EVERY`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use crate::base::Selector;
use crate::plan::model::{ModelPlan, Plan};
use crate::registry::{CHAMPION, Registry, RegistryError};
use crate::score::{Bound, Model, Scorer, Scores};

/// How often the registry is asked who the champion is.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Scorers of one version that are kept for later.
const SCORERS_KEPT: usize = 16;

/// A version, loaded.
pub struct Version {
    /// As rows have it in their column `model_version`.
    pub name: String,
    /// SHA-256 (hex) of its file.
    pub hash: String,
    bound: Arc<Bound>,
    idle: Mutex<Vec<Scorer>>,
}

/// A version before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    name: String,
    path: PathBuf,
}

/// Why a version cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// There is none of this name.
    #[error("{0}")]
    Absent(String),
    /// It cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// The versions of a job's model.
pub struct Versions {
    plan: Arc<Plan>,
    model: usize,
    state_dir: Option<PathBuf>,
    /// By name and path.
    loaded: Mutex<HashMap<(String, PathBuf), Arc<Version>>>,
    champion: Mutex<Option<(Instant, Arc<Version>)>>,
}

impl Version {
    /// Names and types of the score columns.
    pub fn outputs(&self) -> Vec<(String, DataType)> {
        self.bound.outputs()
    }

    /// Scores a batch: the model's columns, in their order.
    ///
    /// # Errors
    /// A sentence: a defect of ours.
    pub fn score(&self, columns: &[ArrayRef]) -> Result<Scores, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scorer = match idle {
            Some(scorer) => scorer,
            None => self.bound.scorer().map_err(|error| error.to_string())?,
        };
        let scores = scorer.score(columns).map_err(|error| error.to_string())?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < SCORERS_KEPT {
            idle.push(scorer);
        }
        Ok(scores)
    }
}

impl Versions {
    /// Of a model of a job.
    pub fn new(plan: Arc<Plan>, model: usize, state_dir: Option<PathBuf>) -> Versions {
        Versions { plan, model, state_dir, loaded: Mutex::default(), champion: Mutex::default() }
    }

    fn described(&self) -> &ModelPlan {
        &self.plan.models[self.model]
    }

    /// The version that the job scores with, or the one that is asked for.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub async fn get(self: &Arc<Self>, wanted: Option<&str>) -> Result<Arc<Version>, VersionError> {
        let wanted = wanted.map(str::to_owned);
        if wanted.is_none() {
            let held = self.champion.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some((at, version)) = held {
                if at.elapsed() >= LOOK_EVERY {
                    // Marked at once, so that one request has it looked up and none waits.
                    let marked = (Instant::now(), Arc::clone(&version));
                    *self.champion.lock().unwrap_or_else(PoisonError::into_inner) = Some(marked);
                    let own = Arc::clone(self);
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = own.find(None) {
                            let model = &own.described().name;
                            tracing::warn!(%model, %error, "the champion cannot be looked up; the one known goes on");
                        }
                    });
                }
                return Ok(version);
            }
        }
        let own = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || own.find(wanted.as_deref())).await;
        found.unwrap_or_else(|error| Err(VersionError::Unusable(error.to_string())))
    }

    fn find(&self, wanted: Option<&str>) -> Result<Arc<Version>, VersionError> {
        let named = match wanted {
            Some(wanted) => self.asked(wanted)?,
            None => self.own()?,
        };
        let version = self.load(named)?;
        if wanted.is_none() {
            let now = Some((Instant::now(), Arc::clone(&version)));
            *self.champion.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Ok(version)
    }

    /// What the job scores with.
    fn own(&self) -> Result<Named, VersionError> {
        let model = self.described();
        let Some(registered) = &model.registered else {
            return Ok(Named { name: model.version.clone(), path: model.path.clone() });
        };
        if self.plan.rollouts.iter().any(|(of, _)| *of == self.model) {
            return self.registered(&registered.reference.name, &Selector::Alias(CHAMPION.to_owned()));
        }
        match self.state_dir.as_deref().and_then(|dir| pinned(dir, &model.name)) {
            Some((number, hash)) if hash != registered.hash => {
                let path = Registry::fetch(&self.plan.registry, &hash).map_err(|error| unusable(&error))?;
                Ok(Named { name: number.to_string(), path })
            }
            _ => Ok(Named { name: model.version.clone(), path: model.path.clone() }),
        }
    }

    fn asked(&self, wanted: &str) -> Result<Named, VersionError> {
        let model = self.described();
        match &model.registered {
            None if wanted == model.version => Ok(Named { name: model.version.clone(), path: model.path.clone() }),
            None => Err(VersionError::Absent(format!(
                "model `{}` has the version `{}` alone, for it is not registered",
                model.name, model.version
            ))),
            Some(registered) => {
                let selector = match wanted.parse() {
                    Ok(number) => Selector::Number(number),
                    Err(_) => Selector::Alias(wanted.to_owned()),
                };
                self.registered(&registered.reference.name, &selector)
            }
        }
    }

    fn registered(&self, name: &str, selector: &Selector) -> Result<Named, VersionError> {
        let registry = Registry::existing(&self.plan.registry).map_err(|error| unusable(&error))?;
        let version = registry.version(name, selector).map_err(|error| VersionError::Absent(error.to_string()))?;
        let path = registry.artifact(&version.artifact.hash).map_err(|error| unusable(&error))?;
        Ok(Named { name: version.number.to_string(), path })
    }

    fn load(&self, named: Named) -> Result<Arc<Version>, VersionError> {
        let key = (named.name.clone(), named.path.clone());
        if let Some(version) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(version));
        }
        let model = self.described();
        let columns = &self.plan.sets[model.inputs].columns;
        let columns: Vec<(&str, DataType)> = columns.iter().map(|c| (c.name.as_str(), c.data_type.clone())).collect();
        let loaded = Model::load(&named.path).map_err(|error| VersionError::Unusable(error.to_string()))?;
        let bound = loaded.bind(&columns, &model.outputs).map_err(|problems| {
            let (model, path) = (&model.name, named.path.display());
            VersionError::Unusable(format!("model `{model}` ({path}): {}", problems.join("; ")))
        })?;
        let hash = bound.model().hash().to_owned();
        let version = Arc::new(Version { name: named.name, hash, bound, idle: Mutex::default() });
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(loaded.entry(key).or_insert(version)))
    }
}

fn unusable(error: &RegistryError) -> VersionError {
    VersionError::Unusable(error.to_string())
}

/// The registered version that a job's state began with, from the file in its state directory: number and hash.
fn pinned(state_dir: &Path, model: &str) -> Option<(u64, String)> {
    let bytes = std::fs::read(state_dir.join("models.json")).ok()?;
    let pins: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let pin = pins.get("models")?.get(model)?;
    Some((pin.get("number")?.as_u64()?, pin.get("hash")?.as_str()?.to_owned()))
}

//! The service itself, whatever protocol asks for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::cache::{self, Cache};
use super::datatype::Datatype;
use super::error::InferError;
use super::models::{Models, Version};
use super::options::Options;
use super::pool::Pool;
use super::request::{Request, Wanted, datatypes, metadata_shape, prepare};
use super::stats::{Stats, Told};
use crate::score::TensorInfo;
use crate::score::tensor::Tensor;
use crate::serving::Jobs;

/// Name of the server in its metadata.
pub(super) const NAME: &str = "tidemill";
/// Extensions of the protocol that are there.
pub(super) const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "model_configuration", "statistics"];
/// What runs the models, as metadata says it.
pub(super) const PLATFORM: &str = "tidemill_onnx";

/// Scores for requests: models, queues, threads, kept answers.
pub struct Infer {
    pub(super) options: Options,
    pub(super) models: Models,
    pub(super) pool: Pool,
    cache: Mutex<Cache>,
}

/// An input or output as metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TensorMetadata {
    pub name: String,
    pub datatype: &'static str,
    pub shape: Vec<i64>,
}

/// A model as metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Metadata {
    pub name: String,
    pub versions: Vec<String>,
    pub platform: &'static str,
    pub inputs: Vec<TensorMetadata>,
    pub outputs: Vec<TensorMetadata>,
}

/// An input or output as a configuration tells it: dimensions after the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TensorConfig {
    pub name: String,
    pub datatype: (i32, String),
    pub dims: Vec<i64>,
}

/// An answer: the outputs that were asked for.
pub(super) struct Inferred {
    pub version: Arc<Version>,
    pub id: String,
    pub outputs: Vec<Output>,
}

/// An output.
pub(super) struct Output {
    pub name: String,
    pub datatype: Datatype,
    pub tensor: Tensor,
    pub binary: bool,
}

/// A version as the repository's index tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Indexed {
    pub name: String,
    pub version: String,
    pub state: &'static str,
    pub reason: String,
}

impl Infer {
    /// Starts threads, and begins to look after the models of these jobs and of the options' registry.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(jobs: Arc<dyn Jobs>, options: Options) -> std::io::Result<Arc<Infer>> {
        let pool = Pool::start(options.threads, options.queue_bytes)?;
        let cache = Mutex::new(Cache::new(options.cache_bytes));
        Ok(Arc::new(Infer { models: Models::start(jobs, options.clone())?, pool, cache, options }))
    }

    /// Whether it is known which models there are.
    pub fn ready(&self) -> bool {
        self.models.ready()
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Scores a request.
    pub(super) async fn infer(&self, name: &str, version: &str, request: Request) -> Result<Inferred, InferError> {
        let arrived = Instant::now();
        let version = self.models.version(name, version).await?;
        let answer = self.answer(&version, request, arrived).await;
        version.stats.request(arrived.elapsed(), answer.is_ok());
        answer
    }

    async fn answer(&self, version: &Arc<Version>, request: Request, arrived: Instant) -> Result<Inferred, InferError> {
        let settings = &version.settings;
        let limit = request.patience.map_or(settings.timeout, |patience| patience.min(settings.timeout));
        let (id, binary) = (request.id.clone(), request.binary);
        let (prepared, wanted) = prepare(&version.name, &version.model, request)?;
        let looked = settings.cache_ttl.map(|ttl| {
            let begun = Instant::now();
            let key = cache::key(version.model.hash(), &prepared.tensors);
            let found = self.cache().get(&key, ttl, begun);
            version.stats.cache(begun.elapsed(), found.is_some());
            (key, found)
        });
        let outputs = match looked {
            Some((_, Some(found))) => found,
            looked => {
                let answer = self.pool.offer(version.clone(), prepared)?;
                let left = limit.saturating_sub(arrived.elapsed());
                let outputs = match tokio::time::timeout(left, answer).await {
                    Ok(Ok(answer)) => Arc::new(answer?),
                    Ok(Err(_)) => return Err(InferError::Unavailable("the server is ending".to_owned())),
                    Err(_) => {
                        return Err(InferError::Late(format!(
                            "model {:?} has not answered within {limit:?}",
                            version.name
                        )));
                    }
                };
                if let Some((key, _)) = looked {
                    self.cache().put(key, outputs.clone(), Instant::now());
                }
                outputs
            }
        };
        let outputs = pick(version, outputs, wanted, binary);
        Ok(Inferred { version: version.clone(), id, outputs })
    }

    pub(super) async fn metadata(&self, name: &str, version: &str) -> Result<Metadata, InferError> {
        let loaded = self.models.version(name, version).await?;
        let catalogue = self.models.catalogue().await?;
        let (inputs, outputs) = datatypes(&loaded.model);
        let tensors = |infos: &[TensorInfo], types: &[Datatype]| {
            let tensor = |(info, datatype): (&TensorInfo, &Datatype)| TensorMetadata {
                name: info.name.clone(),
                datatype: datatype.name(),
                shape: metadata_shape(info),
            };
            infos.iter().zip(types).map(tensor).collect()
        };
        let versions = match version {
            "" => self.models.entry(&catalogue, name)?.labels(),
            _ => vec![loaded.label.clone()],
        };
        Ok(Metadata {
            name: name.to_owned(),
            versions,
            platform: PLATFORM,
            inputs: tensors(loaded.model.inputs(), &inputs),
            outputs: tensors(loaded.model.outputs(), &outputs),
        })
    }

    /// A version with inputs and outputs as its configuration tells them.
    pub(super) async fn config(
        &self,
        name: &str,
        version: &str,
    ) -> Result<(Arc<Version>, Vec<TensorConfig>, Vec<TensorConfig>), InferError> {
        let loaded = self.models.version(name, version).await?;
        let (inputs, outputs) = datatypes(&loaded.model);
        let tensors = |infos: &[TensorInfo], types: &[Datatype]| {
            let tensor = |(info, datatype): (&TensorInfo, &Datatype)| TensorConfig {
                name: info.name.clone(),
                datatype: datatype.configured(),
                dims: metadata_shape(info).split_off(1),
            };
            infos.iter().zip(types).map(tensor).collect()
        };
        let (inputs, outputs) = (tensors(loaded.model.inputs(), &inputs), tensors(loaded.model.outputs(), &outputs));
        Ok((loaded, inputs, outputs))
    }

    /// Counters of a version, of all versions of a model, or with an empty name of all models that were asked for.
    pub(super) async fn statistics(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Vec<(String, String, Told)>, InferError> {
        let told = |(name, label): (String, String), stats: Arc<Stats>| (name, label, stats.told());
        if name.is_empty() {
            return Ok(self.models.stats().into_iter().map(|(id, stats)| told(id, stats)).collect());
        }
        let catalogue = self.models.catalogue().await?;
        let entry = self.models.entry(&catalogue, name)?;
        if version.is_empty() {
            let used = self.models.stats().into_iter().filter(|((of, _), _)| of == name);
            let mut all: Vec<_> = used.map(|(id, stats)| told(id, stats)).collect();
            if let (true, Some(label)) = (all.is_empty(), &entry.default) {
                all.push(told((name.to_owned(), label.clone()), Arc::default()));
            }
            return Ok(all);
        }
        let found = entry.find(version).map(|(label, _)| label.to_owned());
        let label = found.ok_or_else(|| InferError::NotFound(format!("model {name:?} has no version {version:?}")))?;
        let stats = self.models.stats_of(name, &label);
        Ok(vec![told((name.to_owned(), label), stats)])
    }

    /// All versions of all models; only those that can be asked for, if `ready`.
    pub(super) async fn index(&self, ready: bool) -> Result<Vec<Indexed>, InferError> {
        let catalogue = self.models.catalogue().await?;
        let mut all = Vec::new();
        for (name, entry) in &catalogue.models {
            if let Some(reason) = &entry.reason {
                all.push(Indexed {
                    name: name.clone(),
                    version: String::new(),
                    state: "UNAVAILABLE",
                    reason: reason.clone(),
                });
            }
            for label in entry.labels() {
                let Some(source) = entry.versions.get(&label) else { continue };
                let (state, reason) = match self.models.state(name, &label, source) {
                    Ok(()) => ("READY", String::new()),
                    Err(reason) => ("UNAVAILABLE", reason),
                };
                all.push(Indexed { name: name.clone(), version: label, state, reason });
            }
        }
        all.retain(|indexed| !ready || indexed.state == "READY");
        Ok(all)
    }
}

fn pick(version: &Version, outputs: Arc<Vec<Tensor>>, wanted: Option<Vec<Wanted>>, binary: bool) -> Vec<Output> {
    let (_, types) = datatypes(&version.model);
    let infos = version.model.outputs();
    let wanted =
        wanted.unwrap_or_else(|| infos.iter().map(|info| Wanted { name: info.name.clone(), binary }).collect());
    let mut outputs = Arc::try_unwrap(outputs).unwrap_or_else(|shared| (*shared).clone());
    let mut left: Vec<Option<Tensor>> = outputs.drain(..).map(Some).collect();
    let output = |Wanted { name, binary }: Wanted| {
        let at = infos.iter().position(|info| info.name == name)?;
        let tensor = left.get_mut(at)?.take()?;
        // What a model gives decides where its file says something else.
        let datatype = if types[at].kind() == tensor.kind() { types[at] } else { Datatype::declared(0, tensor.kind()) };
        Some(Output { name, datatype, tensor, binary })
    };
    wanted.into_iter().filter_map(output).collect()
}

//! Models that are loaded: on demand, once for each content, and ahead of the first request when an alias moves.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::catalogue::{Catalogue, Entry, Maker, Place, Source};
use super::error::InferError;
use super::options::{Options, Settings};
use super::stats::Stats;
use crate::registry::Registry;
use crate::score::Model;
use crate::serving::Jobs;

/// A version of a model, loaded.
pub(super) struct Version {
    /// Name under which it is served.
    pub name: String,
    /// Its number, or `champion`.
    pub label: String,
    pub model: Model,
    pub settings: Settings,
    pub stats: Arc<Stats>,
    /// Number of its queue.
    pub lane: u64,
    /// Its requests are not scored together.
    pub alone: bool,
    used: AtomicU64,
}

/// Name and label.
type Id = (String, String);

/// What came of loading a version.
enum Slot {
    Loaded(Arc<Version>),
    /// Of this content; it is not tried again until that changes.
    Failed(String, InferError),
}

#[derive(Default)]
struct Loaded {
    slots: HashMap<Id, Slot>,
    /// Kept when a version is unloaded.
    stats: BTreeMap<Id, Arc<Stats>>,
    /// One load at a time for each version.
    loading: HashMap<Id, Arc<tokio::sync::Mutex<()>>>,
    lanes: u64,
}

struct Inner {
    options: Options,
    catalogue: watch::Sender<Option<Arc<Catalogue>>>,
    loaded: Mutex<Loaded>,
    clock: AtomicU64,
}

/// Models, and the thread that looks after them.
pub(super) struct Models {
    inner: Arc<Inner>,
    /// Dropped with this, which ends the thread.
    _end: Sender<()>,
}

impl Models {
    /// Begins to look after the models of these jobs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(jobs: Arc<dyn Jobs>, options: Options) -> std::io::Result<Models> {
        let (refresh, registry) = (options.refresh, options.registry.clone());
        let inner = Arc::new(Inner {
            options,
            catalogue: watch::Sender::new(None),
            loaded: Mutex::default(),
            clock: AtomicU64::new(0),
        });
        let (end, ended) = channel::<()>();
        let weak: Weak<Inner> = Arc::downgrade(&inner);
        std::thread::Builder::new().name("infer-models".to_owned()).spawn(move || {
            let mut maker = Maker::new(registry);
            loop {
                let Some(inner) = weak.upgrade() else { return };
                inner.refresh(&mut maker, &*jobs);
                drop(inner);
                if ended.recv_timeout(refresh) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Models { inner, _end: end })
    }

    /// Whether it is known which models there are.
    pub fn ready(&self) -> bool {
        self.inner.catalogue.borrow().is_some()
    }

    /// The catalogue; waits for the first one.
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, InferError> {
        let mut watched = self.inner.catalogue.subscribe();
        let found = watched.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|catalogue| catalogue.clone());
        found.ok_or_else(|| InferError::Unavailable("the server is ending".to_owned()))
    }

    /// A model of the catalogue.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn entry<'a>(&self, catalogue: &'a Catalogue, name: &str) -> Result<&'a Entry, InferError> {
        catalogue.models.get(name).ok_or_else(|| {
            let names: Vec<&str> = catalogue.models.keys().map(String::as_str).take(20).collect();
            let has =
                if names.is_empty() { "none is served".to_owned() } else { format!("there are {}", names.join(", ")) };
            InferError::NotFound(format!("there is no model {name:?}; {has}"))
        })
    }

    /// A version, loaded; the default one where none is named.
    ///
    /// # Errors
    /// When there is none, or it cannot be loaded.
    pub async fn version(&self, name: &str, version: &str) -> Result<Arc<Version>, InferError> {
        let catalogue = self.catalogue().await?;
        let entry = self.entry(&catalogue, name)?;
        if let Some(reason) = &entry.reason {
            return Err(InferError::Unavailable(format!("model {name:?} cannot be had: {reason}")));
        }
        let Some((label, source)) = entry.find(version) else {
            let all: Vec<&str> = entry.versions.keys().chain(entry.aliases.keys()).map(String::as_str).collect();
            return Err(InferError::NotFound(match version {
                "" => format!("model {name:?} has no version"),
                _ => format!("model {name:?} has no version {version:?}; it has {}", all.join(", ")),
            }));
        };
        if let Some(found) = self.inner.found(name, label, source) {
            return found;
        }
        let id = (name.to_owned(), label.to_owned());
        let turn = self.inner.loaded().loading.entry(id.clone()).or_default().clone();
        let _turn = turn.lock().await;
        // Who waited for another that loaded it finds it.
        if let Some(found) = self.inner.found(name, label, source) {
            return found;
        }
        let (inner, source) = (self.inner.clone(), source.clone());
        let loaded = tokio::task::spawn_blocking(move || inner.load(id, &source)).await;
        loaded.unwrap_or_else(|_| {
            Err(InferError::Internal(format!("model {name:?} could not be loaded; this is a defect")))
        })
    }

    /// What is known of a version without loading it: whether it is there, and if not why.
    pub fn state(&self, name: &str, label: &str, source: &Source) -> Result<(), String> {
        match self.inner.found(name, label, source) {
            Some(Err(error)) => Err(error.to_string()),
            _ => source.hash.clone().map(|_| ()),
        }
    }

    /// Counters by name and label.
    pub fn stats(&self) -> Vec<(Id, Arc<Stats>)> {
        self.inner.loaded().stats.iter().map(|(id, stats)| (id.clone(), stats.clone())).collect()
    }

    /// Counters of a version; made where there are none.
    pub fn stats_of(&self, name: &str, label: &str) -> Arc<Stats> {
        self.inner.loaded().stats.entry((name.to_owned(), label.to_owned())).or_default().clone()
    }
}

impl Inner {
    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of loading this content as this version.
    fn found(&self, name: &str, label: &str, source: &Source) -> Option<Result<Arc<Version>, InferError>> {
        let hash = source.hash.as_ref().ok()?;
        let loaded = self.loaded();
        // A tuple of texts cannot be looked up by borrowed ones; names are short.
        match loaded.slots.get(&(name.to_owned(), label.to_owned()))? {
            Slot::Loaded(version) if version.model.hash() == hash => {
                version.used.store(self.clock.fetch_add(1, Relaxed), Relaxed);
                Some(Ok(version.clone()))
            }
            Slot::Failed(of, error) if of == hash => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Loads a version; blocks.
    fn load(&self, id: Id, source: &Source) -> Result<Arc<Version>, InferError> {
        let (name, label) = &id;
        let unavailable =
            |why: String| InferError::Unavailable(format!("version {label} of model {name:?} cannot be loaded: {why}"));
        let hash = source.hash.clone().map_err(unavailable)?;
        let same = |slot: &Slot| match slot {
            Slot::Loaded(version) if version.model.hash() == hash => Some(version.model.clone()),
            _ => None,
        };
        let known = self.loaded().slots.values().find_map(same);
        let model = match known {
            Some(model) => Ok(model),
            None => read(source, &hash),
        };
        let mut loaded = self.loaded();
        let model = match model {
            Ok(model) => model,
            Err((why, lasting)) => {
                let error = unavailable(why);
                if lasting {
                    loaded.slots.insert(id, Slot::Failed(hash, error.clone()));
                }
                return Err(error);
            }
        };
        loaded.lanes += 1;
        let version = Arc::new(Version {
            settings: self.options.of(name).clone(),
            stats: loaded.stats.entry(id.clone()).or_default().clone(),
            lane: loaded.lanes,
            alone: model.inputs().iter().any(|input| input.dims.is_none()),
            used: AtomicU64::new(self.clock.fetch_add(1, Relaxed)),
            name: name.clone(),
            label: label.clone(),
            model,
        });
        loaded.slots.insert(id.clone(), Slot::Loaded(version.clone()));
        loaded.loading.remove(&id);
        let used = |slot: &Slot| match slot {
            Slot::Loaded(version) => version.used.load(Relaxed),
            Slot::Failed(..) => 0,
        };
        while loaded.slots.len() > self.options.loaded.max(1) {
            let oldest = loaded.slots.iter().filter(|(other, _)| **other != id).min_by_key(|(_, slot)| used(slot));
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            loaded.slots.remove(&oldest);
        }
        Ok(version)
    }

    /// Finds out which models there are. A version that takes the place of a loaded one is loaded before anybody asks for it.
    fn refresh(&self, maker: &mut Maker, jobs: &dyn Jobs) {
        let last = self.catalogue.borrow().clone().unwrap_or_default();
        let Some(next) = maker.make(&jobs.list(), &last) else { return };
        for (name, entry) in &next.models {
            let (Some(was), Some((label, source))) = (last.models.get(name), entry.find("")) else { continue };
            let Some((old, old_source)) = was.find("") else { continue };
            let moved = (old, &old_source.hash) != (label, &source.hash);
            let in_use = matches!(self.found(name, old, old_source), Some(Ok(_)));
            if moved && in_use && self.found(name, label, source).is_none() {
                match self.load((name.clone(), label.to_owned()), source) {
                    Ok(_) => tracing::info!(model = name, version = label, "scores from now on"),
                    Err(error) => {
                        tracing::error!(model = name, version = label, %error, "the champion cannot be loaded")
                    }
                }
            }
        }
        self.loaded()
            .slots
            .retain(|(name, label), _| next.models.get(name).is_some_and(|entry| entry.versions.contains_key(label)));
        self.catalogue.send_replace(Some(Arc::new(next)));
    }
}

/// Reads a version's file; an error comes with whether the content is at fault, so that trying again is in vain.
fn read(source: &Source, hash: &str) -> Result<Model, (String, bool)> {
    let path: PathBuf = match &source.place {
        Place::File(path) => path.clone(),
        Place::Registry(uri) => Registry::fetch(uri, hash).map_err(|error| (error.to_string(), false))?,
    };
    let bytes = std::fs::read(&path).map_err(|error| (format!("cannot read {}: {error}", path.display()), false))?;
    let model = Model::from_bytes(path, &bytes).map_err(|error| (error.to_string(), true))?;
    match model.hash() == hash {
        true => Ok(model),
        false => Err((format!("{} has changed just now", model.path().display()), false)),
    }
}

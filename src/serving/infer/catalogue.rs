//! Which models and versions there are: those of the served jobs, and those of a registry.
//!
//! What is here is made anew when something changed: the list of jobs, a registry's history, a file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::plan::model::{ModelPlan, Plan};
use crate::registry::{CHAMPION, ModelInfo, Registry, RegistryError, Selector};
use crate::serving::ServedJob;

/// Where a version's file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that a job names.
    File(PathBuf),
    /// An artifact of the registry at this address.
    Registry(String),
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub place: Place,
    /// SHA-256 of the ONNX file, or why it is not known.
    pub hash: Result<String, String>,
}

/// A model and its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// By number, or `champion` for a job's file.
    pub versions: BTreeMap<String, Source>,
    /// Names that versions have besides.
    pub aliases: BTreeMap<String, String>,
    /// The version that scores for those who name none.
    pub default: Option<String>,
    /// Why there is nothing of it, if there is nothing.
    pub reason: Option<String>,
}

impl Entry {
    /// The version of this name, number or alias; the default one for an empty name.
    pub fn find(&self, version: &str) -> Option<(&str, &Source)> {
        let label = match version {
            "" => self.default.as_deref()?,
            name => self.aliases.get(name).map_or(name, String::as_str),
        };
        self.versions.get_key_value(label).map(|(label, source)| (label.as_str(), source))
    }

    /// Labels in order: numbers by their size.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.versions.keys().cloned().collect();
        labels.sort_by_key(|label| (label.parse::<u64>().unwrap_or(u64::MAX), label.clone()));
        labels
    }
}

/// All models at a moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalogue {
    pub models: BTreeMap<String, Entry>,
}

/// What a catalogue was made of; as long as it is the same, so is the catalogue.
#[derive(PartialEq)]
struct Marks {
    registries: BTreeMap<String, Option<u64>>,
    files: BTreeMap<PathBuf, Option<(u64, SystemTime)>>,
}

/// Makes catalogues.
pub(super) struct Maker {
    registry: Option<String>,
    open: HashMap<String, Registry>,
    jobs: Option<Arc<[ServedJob]>>,
    marks: Option<Marks>,
    hashes: HashMap<PathBuf, ((u64, SystemTime), String)>,
}

/// Longest ONNX file that is read.
const FILE_MAX: u64 = 4 << 30;

impl Maker {
    /// For jobs, and for all models of a registry if one is given.
    pub fn new(registry: Option<String>) -> Maker {
        Maker { registry, open: HashMap::new(), jobs: None, marks: None, hashes: HashMap::new() }
    }

    /// The catalogue, if it is another than the last one. Blocks on the registries.
    pub fn make(&mut self, jobs: &Arc<[ServedJob]>, last: &Catalogue) -> Option<Catalogue> {
        let marks = self.marks(jobs);
        let same_jobs = self.jobs.as_ref().is_some_and(|known| Arc::ptr_eq(known, jobs));
        // A registry that does not answer is asked again, and what was known of it stays.
        let all_answer = marks.registries.values().all(Option::is_some);
        if same_jobs && all_answer && self.marks.as_ref() == Some(&marks) {
            return None;
        }
        let mut models = BTreeMap::new();
        for job in jobs.iter() {
            for (index, model) in job.plan.models.iter().enumerate() {
                let shared = jobs.iter().filter(|j| j.plan.models.iter().any(|m| m.name == model.name)).count() > 1;
                let name = if shared { format!("{}.{}", job.job, model.name) } else { model.name.clone() };
                let entry = self.of_job(job, index, model);
                models.insert(name.clone(), kept(entry, last.models.get(&name)));
            }
        }
        if let Some(uri) = self.registry.clone() {
            match self.registry(&uri).and_then(|registry| registry.models()) {
                Ok(found) => {
                    for info in found {
                        let entry = registered(&info, &uri, champion(&info));
                        models.entry(info.name).or_insert(entry);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the registry of models does not answer; what was known of it stays");
                    let known = last
                        .models
                        .iter()
                        .filter(|(_, e)| e.versions.values().any(|s| s.place == Place::Registry(uri.clone())));
                    for (name, entry) in known {
                        models.entry(name.clone()).or_insert_with(|| entry.clone());
                    }
                }
            }
        }
        (self.jobs, self.marks) = (Some(jobs.clone()), Some(marks));
        Some(Catalogue { models })
    }

    fn marks(&mut self, jobs: &[ServedJob]) -> Marks {
        let plans = || jobs.iter().flat_map(|job| job.plan.models.iter().map(move |model| (job, model)));
        let of_jobs = plans().filter(|(_, model)| model.registered.is_some()).map(|(job, _)| job.plan.registry.clone());
        let uris: Vec<String> = of_jobs.chain(self.registry.clone()).collect();
        let registries =
            uris.into_iter().map(|uri| (uri.clone(), self.registry(&uri).and_then(|r| r.newest()).ok())).collect();
        let own = plans().filter(|(_, model)| model.registered.is_none()).map(|(_, model)| model.path.clone());
        let pins = jobs.iter().filter_map(|job| job.state_dir.as_ref().map(|dir| dir.join(PINS)));
        Marks { registries, files: own.chain(pins).map(|path| (path.clone(), stat(&path))).collect() }
    }

    fn registry(&mut self, uri: &str) -> Result<&Registry, RegistryError> {
        if !self.open.contains_key(uri) {
            self.open.insert(uri.to_owned(), Registry::existing(uri)?);
        }
        self.open.get(uri).ok_or_else(|| RegistryError::Absent { place: uri.to_owned() })
    }

    fn of_job(&mut self, job: &ServedJob, index: usize, model: &ModelPlan) -> Entry {
        let Some(pinned) = &model.registered else {
            let source = Source { place: Place::File(model.path.clone()), hash: self.hash(&model.path) };
            let label = CHAMPION.to_owned();
            return Entry { versions: [(label.clone(), source)].into(), default: Some(label), ..Entry::default() };
        };
        let plan = &job.plan;
        let info = self.registry(&plan.registry).and_then(|registry| registry.model(&pinned.reference.name));
        match info {
            Ok(info) => registered(&info, &plan.registry, of_job(job, plan, index, model, &info)),
            Err(error) => Entry { reason: Some(error.to_string()), ..Entry::default() },
        }
    }

    /// SHA-256 of a file, read again when its length or time changed.
    fn hash(&mut self, path: &Path) -> Result<String, String> {
        let stat = stat(path).ok_or_else(|| format!("cannot read {}", path.display()))?;
        if let Some((at, hash)) = self.hashes.get(path)
            && *at == stat
        {
            return Ok(hash.clone());
        }
        if stat.0 > FILE_MAX {
            return Err(format!("{} has {} bytes, which is too long for a model", path.display(), stat.0));
        }
        let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        self.hashes.insert(path.to_owned(), (stat, hash.clone()));
        Ok(hash)
    }
}

/// What was known of a model whose registry does not answer.
fn kept(entry: Entry, last: Option<&Entry>) -> Entry {
    match last {
        Some(last) if entry.reason.is_some() && !last.versions.is_empty() => last.clone(),
        _ => entry,
    }
}

fn stat(path: &Path) -> Option<(u64, SystemTime)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.len(), found.modified().ok()?))
}

/// The champion, or the newest version where there is none.
fn champion(info: &ModelInfo) -> Option<u32> {
    info.aliases.get(CHAMPION).copied().or_else(|| info.versions.last().map(|version| version.number))
}

fn registered(info: &ModelInfo, uri: &str, default: Option<u32>) -> Entry {
    let source = |hash: &str| Source { place: Place::Registry(uri.to_owned()), hash: Ok(hash.to_owned()) };
    let mut aliases: BTreeMap<String, String> =
        info.aliases.iter().map(|(alias, number)| (alias.clone(), number.to_string())).collect();
    if let Some(newest) = info.versions.last() {
        aliases.insert(Selector::Latest.to_string(), newest.number.to_string());
    }
    Entry {
        versions: info.versions.iter().map(|v| (v.number.to_string(), source(&v.artifact.hash))).collect(),
        aliases,
        default: default.map(|number| number.to_string()),
        reason: None,
    }
}

/// Name of the file of a state directory that says with which registered versions its job began.
const PINS: &str = "models.json";

#[derive(Deserialize)]
struct Pins {
    models: BTreeMap<String, Pin>,
}

#[derive(Deserialize)]
struct Pin {
    reference: crate::base::ModelRef,
    number: u32,
}

/// The version with which a job scores. One that rolls out challengers goes where the registry's champion goes; another
/// stays with the version that its state began with; one that never ran begins with what its file names.
fn of_job(job: &ServedJob, plan: &Plan, index: usize, model: &ModelPlan, info: &ModelInfo) -> Option<u32> {
    let registered = model.registered.as_ref()?;
    let reference = &registered.reference;
    if plan.rollouts.iter().any(|(of, _)| *of == index)
        && let Some(champion) = info.aliases.get(CHAMPION)
    {
        return Some(*champion);
    }
    let pins = job.state_dir.as_ref().and_then(|dir| std::fs::read(dir.join(PINS)).ok());
    let pins = pins.and_then(|bytes| serde_json::from_slice::<Pins>(&bytes).ok());
    let pin = pins.and_then(|mut pins| pins.models.remove(&model.name)).filter(|pin| pin.reference == *reference);
    let named = match &reference.version {
        Selector::Number(number) => Some(*number),
        Selector::Alias(alias) => info.aliases.get(alias).copied(),
        Selector::Latest => info.versions.last().map(|version| version.number),
    };
    pin.map(|pin| pin.number).or(named).or(Some(registered.number))
}

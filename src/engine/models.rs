//! Which registered versions a job scores with, from its first start on.
//!
//! The job's file names a version, often by an alias, and aliases move. So the state directory remembers in `models.json`
//! what they were when the job began: a restart replays ticks with the version that scored them, and a proof finds the same
//! scores, whoever is the champion by then. Another reference in the job's file is a change of the job, and is looked up anew.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::EngineError;
use crate::base::ModelRef;
use crate::plan::RegisteredFile;
use crate::plan::model::Plan;
use crate::registry::{Registry, RegistryError};
use crate::state::Store;

/// Name of the file in a state directory.
const FILE: &str = "models.json";

/// Version of its form.
const FORMAT: u32 = 1;

/// A version as a job began with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    /// What the job's file named.
    reference: ModelRef,
    /// Number of the version that it was.
    number: u32,
    /// SHA-256 (hex) of its file.
    hash: String,
}

/// What a state directory remembers, by the job's names of its models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pins {
    format: u32,
    models: BTreeMap<String, Pin>,
}

impl Pins {
    /// What a state directory remembers; nothing where it is new.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn read(dir: &Path) -> Result<Pins, EngineError> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Pins::decode(&bytes, &path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Pins::default()),
            Err(error) => Err(damaged(&path.display().to_string(), &error.to_string())),
        }
    }

    /// As [`read`](Self::read), from where the job's snapshots lie when the directory has nothing: the machine may be new.
    fn find(dir: &Path, plan: &Plan) -> Result<Pins, EngineError> {
        let pins = Pins::read(dir)?;
        if !pins.models.is_empty() || plan.checkpoint.uri.is_none() {
            return Ok(pins);
        }
        let store = Store::open(&plan.checkpoint.place(dir))?;
        let found = store.read(FILE)?.map(|bytes| Pins::decode(&bytes, &format!("{}/{FILE}", store.place())));
        Ok(found.transpose()?.unwrap_or_default())
    }

    fn decode(bytes: &[u8], name: &str) -> Result<Pins, EngineError> {
        let pins: Pins = serde_json::from_slice(bytes).map_err(|error| damaged(name, &error.to_string()))?;
        match pins.format {
            FORMAT => Ok(pins),
            other => Err(damaged(name, &format!("it is of format {other}, this program reads {FORMAT}"))),
        }
    }

    /// What a plan scores with.
    pub fn of(plan: &Plan) -> Pins {
        let pin = |model: &crate::plan::model::ModelPlan| {
            let registered = model.registered.clone()?;
            let pin = Pin { reference: registered.reference, number: registered.number, hash: registered.hash };
            Some((model.name.clone(), pin))
        };
        Pins { format: FORMAT, models: plan.models.iter().filter_map(pin).collect() }
    }

    /// Remembers it in a state directory, and where the job's snapshots lie if that is elsewhere; durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path, snapshots: Option<&Store>) -> Result<(), EngineError> {
        if self.models.is_empty() {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| EngineError::defect(error.to_string()))?;
        let here = Store::open(&dir.display().to_string())?;
        for store in snapshots.filter(|store| store.place() != here.place()).into_iter().chain([&here]) {
            if store.read(FILE)?.as_ref() != Some(&bytes) {
                let mut writer = store.writer(FILE)?;
                writer.write(&bytes)?;
                writer.finish()?;
            }
        }
        Ok(())
    }

    fn get(&self, model: &str, reference: &ModelRef) -> Option<&Pin> {
        self.models.get(model).filter(|pin| pin.reference == *reference)
    }

    /// The version that `model` scores with.
    ///
    /// # Errors
    /// What is wrong with the registry or with what is asked of it.
    pub fn resolve(&self, model: &str, uri: &str, reference: &ModelRef) -> Result<RegisteredFile, RegistryError> {
        if let Some(Pin { number, hash, .. }) = self.get(model, reference) {
            let path = Registry::fetch(uri, hash)?;
            return Ok(RegisteredFile { number: *number, hash: hash.clone(), path });
        }
        let registry = Registry::existing(uri)?;
        let version = registry.version(&reference.name, &reference.version)?;
        let path = registry.artifact(&version.artifact.hash)?;
        Ok(RegisteredFile { number: version.number, hash: version.artifact.hash, path })
    }

    /// The plan with the versions that are remembered, and for each that its file would have replaced by now, a sentence.
    ///
    /// # Errors
    /// When a file of a model cannot be had.
    pub fn apply(&self, mut plan: Plan) -> Result<(Plan, Vec<String>), EngineError> {
        let mut told = Vec::new();
        for model in &mut plan.models {
            let Some(registered) = &mut model.registered else { continue };
            let Some(pin) = self.get(&model.name, &registered.reference) else {
                if let Some(was) = self.models.get(&model.name) {
                    told.push(format!(
                        "model {}: version {} ({}) instead of version {} ({}), as the job's file says now",
                        model.name, registered.number, registered.reference, was.number, was.reference
                    ));
                }
                continue;
            };
            if registered.hash != pin.hash {
                model.path = Registry::fetch(&plan.registry, &pin.hash)?;
            }
            (registered.number, registered.hash) = (pin.number, pin.hash.clone());
            model.version = pin.number.to_string();
            // No more than a hint: it is not worth waiting for an object store that may be away.
            let now = (!plan.registry.contains("://"))
                .then(|| Registry::existing(&plan.registry))
                .and_then(Result::ok)
                .and_then(|registry| registry.version(&registered.reference.name, &registered.reference.version).ok());
            if let Some(now) = now.filter(|now| now.number != pin.number) {
                told.push(format!(
                    "model {} goes on with version {}, with which this state began; {} is version {} by now",
                    model.name, pin.number, registered.reference, now.number
                ));
            }
        }
        Ok((plan, told))
    }
}

fn damaged(name: &str, what: &str) -> EngineError {
    EngineError::Plan(format!(
        "{name} is damaged ({what}): it says which registered versions the job scores with; put it back from a copy, or remove it to begin with what the job's file names"
    ))
}

/// A plan with what the state directory of its run or replay remembers.
///
/// # Errors
/// As for [`Pins::read`] and [`Pins::apply`].
pub(super) fn pinned(plan: Plan, dir: Option<&Path>, tell: &dyn Fn(&str)) -> Result<Plan, EngineError> {
    let Some(dir) = dir.filter(|_| plan.models.iter().any(|model| model.registered.is_some())) else {
        return Ok(plan);
    };
    let (plan, told) = Pins::find(dir, &plan)?.apply(plan)?;
    told.iter().for_each(|text| tell(text));
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(number: u32, reference: &str) -> Pins {
        let reference = reference.parse().expect("a reference");
        let pin = Pin { reference, number, hash: "ab".repeat(32) };
        Pins { format: FORMAT, models: BTreeMap::from([("fraud".to_owned(), pin)]) }
    }

    #[test]
    fn what_a_state_directory_remembers() {
        let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        assert_eq!(Pins::read(dir.path()).expect("nothing is there"), Pins::default());
        let store = Store::open(&other.path().display().to_string()).expect("it opens");
        pins(3, "fraud@champion").write(dir.path(), Some(&store)).expect("it is written");
        assert_eq!(Pins::read(dir.path()).expect("it is read"), pins(3, "fraud@champion"));
        assert_eq!(Pins::read(other.path()).expect("it is read"), pins(3, "fraud@champion"));
        pins(4, "fraud@4").write(dir.path(), None).expect("it is written");
        assert_eq!(Pins::read(dir.path()).expect("it is read"), pins(4, "fraud@4"));
        let file = dir.path().join(FILE);
        for damage in ["", "{", "{\"format\": 2, \"models\": {}}", "{\"format\": 1, \"models\": {\"fraud\": 3}}"] {
            std::fs::write(&file, damage).expect("it is written");
            let error = Pins::read(dir.path()).expect_err("it is damaged").to_string();
            assert!(error.contains(FILE) && error.contains("put it back"), "{error}");
        }
    }

    #[test]
    fn a_version_is_remembered_for_its_reference_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let uri = dir.path().display().to_string();
        let reference: ModelRef = "fraud@champion".parse().expect("a reference");
        // What is remembered is not there any more; what the file names now never was.
        let gone = pins(3, "fraud@champion").resolve("fraud", &uri, &reference).expect_err("it is gone").to_string();
        assert!(gone.contains("artifacts/abab") && gone.contains("is missing"), "{gone}");
        let never = pins(3, "fraud@3").resolve("fraud", &uri, &reference).expect_err("there is none").to_string();
        assert!(never.contains("has no model `fraud`"), "{never}");
    }
}

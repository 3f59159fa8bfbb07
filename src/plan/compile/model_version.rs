//! Which version of a model scores: a file, or a registered one.

use std::path::PathBuf;

use super::Compiler;
use crate::base::ModelRef;
use crate::plan::catalog::locate;
use crate::plan::config::{JobConfig, ModelConfig};
use crate::plan::faults::Path;
use crate::plan::model::RegisteredPlan;
use crate::plan::registry::uri_of;
use crate::plan::yaml::Data;

/// The version that a model names.
pub(super) struct ModelVersion {
    pub version: String,
    pub file: PathBuf,
    pub registered: Option<RegisteredPlan>,
    /// Where the file says so.
    pub at: Path,
    /// What messages about it begin with.
    pub said: String,
}

impl Compiler<'_> {
    pub(super) fn model_version(&mut self, job: &JobConfig, name: &str, config: &ModelConfig) -> Option<ModelVersion> {
        let path = Path::of(&["models", name]);
        let versions = self.tree.get("models").and_then(|m| m.get(name)).and_then(|m| m.get("versions"));
        let (written, empty) = match versions.map(|node| &node.data) {
            Some(Data::Map(entries)) => (true, entries.is_empty()),
            other => (other.is_some(), false),
        };
        if let Some(text) = &config.registry {
            if !written {
                return self.registered_version(job, name, &text.0);
            }
            let what = "a model comes from `versions` or from `registry`, and both are given";
            let mend = "keep `registry` to score with a registered version, `versions` to score with a file";
            self.error_at_key(&path.key("registry"), what, mend);
        }
        let at = path.key("versions");
        match config.versions.0.as_slice() {
            [] if !written && !self.has(name, "registry") => {
                let what = "the model names nothing that it scores with";
                self.error_at_key(&path, what, "add `versions: {champion: FILE.onnx}`, or `registry: NAME@champion`");
                None
            }
            [] => {
                // A version that was cut away has its own fault.
                if empty {
                    self.error(&at, "the model has no version", "add `champion: FILE.onnx`");
                }
                None
            }
            [(version, file), others @ ..] => {
                if let Some((second, _)) = others.first() {
                    let what = "a second version of a model is not built yet";
                    let mend = "name one version; several are kept in a registry: `registry: NAME@champion`";
                    self.error_at_key(&at.key(second), what, mend);
                }
                Some(ModelVersion {
                    version: version.clone(),
                    file: PathBuf::from(locate(&file.0, self.directory)),
                    registered: None,
                    at: at.key(version),
                    said: String::new(),
                })
            }
        }
    }

    fn has(&self, model: &str, key: &str) -> bool {
        self.tree.get("models").and_then(|m| m.get(model)).is_some_and(|m| m.get(key).is_some())
    }

    fn registered_version(&mut self, job: &JobConfig, name: &str, text: &str) -> Option<ModelVersion> {
        let at = Path::of(&["models", name, "registry"]);
        let reference: ModelRef = match text.parse() {
            Ok(reference) => reference,
            Err(what) => {
                self.error(&at, what, "write NAME@ALIAS, NAME@NUMBER or NAME@latest");
                return None;
            }
        };
        let uri = uri_of(job.registry.as_ref(), self.directory);
        match self.catalog.registered(name, &uri, &reference) {
            Ok(found) => Some(ModelVersion {
                version: found.number.to_string(),
                file: found.path,
                said: format!("version {} of `{}`: ", found.number, reference.name),
                registered: Some(RegisteredPlan { reference, number: found.number, hash: found.hash }),
                at,
            }),
            Err(what) => {
                self.error(&at, what, "");
                None
            }
        }
    }
}

//! Loads a dataflow file and holds it against what it names.

use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef};

use super::graph::bind;
use super::models::Pins;
use super::monitor::reference::watch;
use super::tables::{table_names, tables};
use super::topics;
use crate::base::{Fault, Faults, ModelRef, Severity};
use crate::ingest::FileCatalog;
use crate::plan;
use crate::plan::chain::chains;
use crate::plan::model::{ModelOutput, Plan};
use crate::plan::{Catalog, RegisteredFile, SourceSpec};
use crate::score::Model;

/// Reads and compiles the dataflow file at `path`, with `key=value` pairs set in it and `${VAR}` looked up by `env`.
/// Returns the plan and its warnings.
///
/// # Errors
/// Every fault of the file at once.
pub fn load(
    path: &Path,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Plan, Vec<Fault>), Faults> {
    load_with_state(path, sets, env, None)
}

/// [`load`] for a job whose state is in a directory: its registered models are those that it began with.
///
/// # Errors
/// Every fault of the file at once; what the directory remembers of models, if it is damaged.
pub fn load_with_state(
    path: &Path,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    state: Option<&Path>,
) -> Result<(Plan, Vec<Fault>), Faults> {
    let pins = state.map_or_else(|| Ok(Pins::default()), Pins::read).map_err(|error| {
        let list = vec![fault("models", error.to_string(), "")];
        Faults { file: path.display().to_string(), list }
    })?;
    plan::load(path, sets, env, &JobCatalog { pins })
}

/// [`load`] for a text; `name` is what faults call it. Relative paths count from the current directory.
///
/// # Errors
/// Every fault of the text at once.
pub fn load_text(
    name: &str,
    text: &str,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Plan, Vec<Fault>), Faults> {
    let here = Path::new("");
    plan::compile(name, text, here, sets, env, &JobCatalog { pins: Pins::default() })
}

/// The files, schemas and models of this machine.
#[derive(Default)]
pub struct JobCatalog {
    /// Registered versions that the job began with.
    pins: Pins,
}

impl Catalog for JobCatalog {
    fn event_schema(&self, source: &str, spec: &SourceSpec) -> Result<(SchemaRef, Vec<PathBuf>), String> {
        FileCatalog.event_schema(source, spec)
    }

    fn check_model(&self, path: &Path, inputs: &[(String, DataType)], outputs: &[ModelOutput]) -> Vec<String> {
        let columns: Vec<(&str, DataType)> = inputs.iter().map(|(name, ty)| (name.as_str(), ty.clone())).collect();
        match Model::load(path) {
            Ok(model) => model.bind(&columns, outputs).err().unwrap_or_default(),
            Err(error) => vec![error.to_string()],
        }
    }

    fn registered(&self, model: &str, uri: &str, reference: &ModelRef) -> Result<RegisteredFile, String> {
        self.pins.resolve(model, uri, reference).map_err(|error| error.to_string())
    }

    fn avro_fault(&self, declared: &str, writer: &str) -> Option<String> {
        FileCatalog.avro_fault(declared, writer)
    }

    fn kafka_setting_fault(&self, name: &str, text: &str) -> Option<String> {
        FileCatalog.kafka_setting_fault(name, text)
    }
}

/// Holds a plan against the tables that it names and describes it.
///
/// # Errors
/// Every table that cannot be.
pub fn check(plan: &Plan) -> Result<String, Faults> {
    let mut list = Vec::new();
    let mut outputs = Vec::new();
    for model in &plan.models {
        match bind(plan, model) {
            Ok(bound) => outputs.push(bound.outputs()),
            Err(error) => {
                outputs.push(Vec::new());
                list.push(fault(&format!("models.{}", model.name), error.to_string(), ""));
            }
        }
    }
    for monitor in &plan.monitors {
        if let Err(error) = watch(plan, monitor) {
            let path = format!("monitors.{}.drift", plan.models[monitor.model].name);
            let what = error.to_string();
            list.push(fault(&path, what.strip_prefix(&format!("{path}: ")).unwrap_or(&what).to_owned(), ""));
        }
    }
    if let Some(offline) = &plan.offline {
        let names = table_names(plan);
        for table in offline.tables.iter().flatten().filter(|table| !names.contains(table)) {
            list.push(fault(
                "sinks.offline.tables",
                format!("the job has no table `{table}`"),
                &format!("it has {}", names.join(", ")),
            ));
        }
        if let Err(error) = tables(plan, &chains(plan), &outputs) {
            list.push(fault("sinks.offline", error.to_string(), ""));
        }
    }
    let chains = chains(plan);
    let mut schemas = String::new();
    for topic in &plan.topics {
        match topics::resolve(plan, &chains, &outputs, topic) {
            Ok(resolved) => {
                schemas.extend(resolved.schema.map(|schema| {
                    format!("\nAvro schema of topic {} ({})\n{schema}\n", topic.topic, topic.rows.name())
                }))
            }
            // What a model's own fault takes away is not missed twice.
            Err(_) if !list.is_empty() => {}
            Err((key, what)) => list.push(fault(&format!("{}.kafka.{key}", topic.rows.path()), what, "")),
        }
    }
    if list.is_empty() { Ok(plan.describe() + &schemas) } else { Err(Faults { file: plan.job.clone(), list }) }
}

fn fault(path: &str, what: String, mend: &str) -> Fault {
    Fault { severity: Severity::Error, line: 0, column: 0, path: path.to_owned(), what, mend: mend.to_owned() }
}

//! Loads a dataflow file and holds it against what it names.

use std::path::Path;

use super::chain::chains;
use super::graph::bind;
use super::tables::{table_names, tables};
use crate::base::{Fault, Faults, Severity};
use crate::ingest::catalog::FileCatalog;
use crate::plan;
use crate::plan::model::Plan;

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
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Faults {
        file: name.clone(),
        list: vec![fault("", format!("cannot be read: {error}"), "give the path of a dataflow file")],
    })?;
    load_text(&name, &text, sets, env)
}

/// [`load`] for a file already read; `name` is what faults call it, and relative paths are looked up beside it too.
///
/// # Errors
/// Every fault of the text at once.
pub fn load_text(
    name: &str,
    text: &str,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Plan, Vec<Fault>), Faults> {
    plan::load(name, text, sets, env, &FileCatalog::default())
}

/// Holds a plan against the models that it names and describes what it does.
///
/// # Errors
/// Every model that cannot be loaded or does not fit its feature set, and every table that cannot be.
pub fn check(plan: &Plan) -> Result<String, Faults> {
    let mut list = Vec::new();
    let mut outputs = Vec::new();
    for model in &plan.models {
        match bind(plan, model) {
            Ok(bound) => outputs.push(bound.output_columns()),
            Err(error) => {
                outputs.push(Vec::new());
                list.push(fault(&format!("models.{}", model.name), error.to_string(), ""));
            }
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
    if list.is_empty() { Ok(plan.describe()) } else { Err(Faults { file: plan.job.clone(), list }) }
}

fn fault(path: &str, what: String, mend: &str) -> Fault {
    Fault { severity: Severity::Error, line: 0, column: 0, path: path.to_owned(), what, mend: mend.to_owned() }
}

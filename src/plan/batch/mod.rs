//! The batch dataflow file: its grammar, its faults, the compiled batch dataflow.
//!
//! It is read as the job's file is: the same strictness, the same places, all faults at once.

mod compile;
mod config;
mod describe;
mod model;

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

pub use model::{
    BatchPlan, CommandPlan, DatasetPlan, EvaluatePlan, FitPlan, JobOf, Limits, RegisterPlan, RolloutStep, StepKind,
    StepPlan, Tells, TunePlan,
};

use super::catalog::Catalog;
use super::faults::{self, Collector};
use super::schema::schema_of;
use super::validate::Root;
use super::yaml::{Data, Scalar};
use super::{decode, expand, fingerprint, validate, yaml};
use crate::base::{Fault, Faults};

/// What is put in the place of keys that must be there, so that the rest of a file gets its faults too.
fn stand_ins() -> Vec<(&'static str, Data)> {
    vec![("batch", Data::Scalar(Scalar { text: "batch".into(), plain: true })), ("steps", Data::Map(Vec::new()))]
}

/// The schema (draft 2020-12), as committed in `schemas/batch.schema.json`.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schema_of::<config::BatchConfig>("Tidemill batch dataflow"))
}

/// The schema's text, as committed.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Whether a text is that of a batch dataflow, not of a job.
pub fn is_batch(text: &str) -> bool {
    let tree = yaml::parse(text, &mut Collector::default());
    tree.is_some_and(|tree| tree.get("batch").is_some() && tree.get("job").is_none())
}

/// What a batch dataflow is read with.
pub struct Reading<'a> {
    /// Changes of its file, as `--set`.
    pub sets: &'a [(String, String)],
    /// Changes of the job's file, after those that the batch dataflow names itself.
    pub job_sets: &'a [(String, String)],
    /// Looks up the variables of `${VAR}`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Knows the outside world.
    pub catalog: &'a dyn Catalog,
}

/// Reads and compiles the batch dataflow at `path`: the plan and the warnings about it.
///
/// # Errors
/// Every fault of the file (and the warnings), in the order of the file.
pub fn load(path: &Path, reading: &Reading<'_>) -> Result<(BatchPlan, Vec<Fault>), Faults> {
    let file = path.display().to_string();
    let text = super::read(path)?;
    compile(&file, &text, path.parent().unwrap_or(Path::new("")), reading)
}

/// Like [`load`], for a text that stands in `directory` under the name `file`.
///
/// # Errors
/// As [`load`].
pub fn compile(
    file: &str,
    text: &str,
    directory: &Path,
    reading: &Reading<'_>,
) -> Result<(BatchPlan, Vec<Fault>), Faults> {
    let mut faults = Collector::default();
    let plan = stages(text, directory, reading, &mut faults);
    let fatal = faults.fatal();
    match plan {
        Some(plan) if !fatal => Ok((plan, faults.sorted())),
        _ => Err(Faults { file: file.to_string(), list: faults.sorted() }),
    }
}

fn stages(text: &str, directory: &Path, reading: &Reading<'_>, faults: &mut Collector) -> Option<BatchPlan> {
    let mut tree = yaml::parse(text, faults)?;
    for (key, value) in reading.sets {
        expand::set(&mut tree, key, value, faults);
    }
    expand::expand(&mut tree, reading.env, &faults::Path::root(), faults);
    let schema = schema();
    let root = Root { name: "BatchConfig", stand_ins };
    let sound = validate::Validator { schema, faults, root }.check(&tree, schema, &faults::Path::root())?;
    let config: config::BatchConfig = match decode::decode(&sound) {
        Ok(config) => config,
        Err(e) => {
            let what = format!("the file passed its checks and could not be read: {e}");
            faults.error(&tree.place, &faults::Path::root(), what, "this is a defect of tidemill; please report it");
            return None;
        }
    };
    let (env, catalog, job_sets) = (reading.env, reading.catalog, reading.job_sets);
    let mut compiler = compile::Compiler { tree: &tree, directory, env, catalog, job_sets, job_model: None, faults };
    compiler.compile(&config, fingerprint(&tree))
}

#[cfg(test)]
mod tests;

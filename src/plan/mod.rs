//! The dataflow file: types, expressions, validation, and the compiled plan.
//!
//! [`load`] reads a file, [`compile()`] a text. Text becomes a tree in which every value knows its place (`yaml`); variables
//! and `--set` are put in (`expand`); the tree is held against the schema that the typed configuration generates
//! (`validate`, `schema`, `config`), decoded (`decode`), and compiled with the help of a [`Catalog`] (`compile`). Each step
//! hands on what is sound, so that all faults of a file are reported at once.

pub mod batch;
pub mod catalog;
pub mod chain;
mod compile;
mod config;
mod decode;
mod describe;
mod describe_drift;
mod expand;
pub mod expr;
mod faults;
pub mod feast;
pub mod model;
mod redis_url;
mod registry;
mod schema;
#[cfg(test)]
mod tests;
mod validate;
mod values;
mod yaml;

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use catalog::{BatchPart, Catalog, ConnectorSpec, RegisteredFile, SourceSpec, format_of};
pub use redis_url::RedisAddress;
pub use registry::registry_of;
pub use schema::{schema, schema_text};

use crate::base::{Fault, Faults};
use faults::Collector;
use model::Plan;
use yaml::{Data, Node};

/// Reads and compiles the dataflow file at `path`: the plan and the warnings about it.
///
/// `sets` are assignments from the command line (path of keys, value), applied in order; `env` looks up the variables of
/// `${VAR}`. Relative paths in the file start at the current directory, else at the file's directory.
///
/// # Errors
/// Every fault of the file (and the warnings), in the order of the file.
pub fn load(
    path: &Path,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    catalog: &dyn Catalog,
) -> Result<(Plan, Vec<Fault>), Faults> {
    let file = path.display().to_string();
    let text = read(path)?;
    compile(&file, &text, path.parent().unwrap_or(Path::new("")), sets, env, catalog)
}

/// The text of a file.
fn read(path: &Path) -> Result<String, Faults> {
    std::fs::read_to_string(path).map_err(|e| {
        let mut faults = Collector::default();
        faults.error(&yaml::Place::default(), &faults::Path::root(), format!("the file cannot be read: {e}"), "");
        Faults { file: path.display().to_string(), list: faults.sorted() }
    })
}

/// Like [`load`], for a text that stands in `directory` under the name `file`.
///
/// # Errors
/// As [`load`].
pub fn compile(
    file: &str,
    text: &str,
    directory: &Path,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    catalog: &dyn Catalog,
) -> Result<(Plan, Vec<Fault>), Faults> {
    let mut faults = Collector::default();
    let plan = stages(text, directory, sets, env, catalog, &mut faults);
    let fatal = faults.fatal();
    match plan {
        Some(plan) if !fatal => Ok((plan, faults.sorted())),
        _ => Err(Faults { file: file.to_string(), list: faults.sorted() }),
    }
}

fn stages(
    text: &str,
    directory: &Path,
    sets: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    catalog: &dyn Catalog,
    faults: &mut Collector,
) -> Option<Plan> {
    let mut tree = yaml::parse(text, faults)?;
    for (key, value) in sets {
        expand::set(&mut tree, key, value, faults);
    }
    // Afterwards, so that an assignment can stand in for a variable that is not set.
    expand::expand(&mut tree, env, &faults::Path::root(), faults);
    let schema = schema::schema();
    let mut validator = validate::Validator { schema, faults, root: validate::Root::job() };
    let sound = validator.check(&tree, schema, &faults::Path::root())?;
    let config: config::JobConfig = match decode::decode(&sound) {
        Ok(config) => config,
        Err(e) => {
            let root = faults::Path::root();
            let what = format!("the file passed its checks and could not be read: {e}");
            faults.error(&tree.place, &root, what, "this is a defect of tidemill; please report it");
            return None;
        }
    };
    let mut compiler = compile::Compiler { tree: &tree, job: &config.job.0, directory, catalog, faults };
    compiler.compile(&config, fingerprint(&tree))
}

/// SHA-256 (hex) of the tree, whatever the file's layout and comments.
fn fingerprint(tree: &Node) -> String {
    let mut canonical = String::new();
    write_canonical(tree, &mut canonical);
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(canonical.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn write_canonical(node: &Node, out: &mut String) {
    match &node.data {
        Data::Scalar(scalar) => {
            let _ = write!(out, "{:?}", scalar.text);
        }
        Data::List(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Data::Map(entries) => {
            out.push('{');
            for (key, value) in entries {
                let _ = write!(out, "{:?}:", key.text);
                write_canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Data::Broken => out.push('!'),
    }
}

/// The candidate that `name` was most likely meant to be, if any is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = name.to_lowercase();
    candidates
        .map(|c| (strsim::damerau_levenshtein(&folded, &c.to_lowercase()), c))
        // One slip in short names, about a third of the letters in long ones.
        .filter(|(distance, c)| *distance <= (name.chars().count().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

//! Where a job's file says that registered models are kept.

use std::path::Path;

use super::catalog::locate;
use super::config::ModelRegistryConfig;
use super::expand::{self, Env};
use super::faults::{self, Collector};
use super::yaml::Place;
use super::{decode, schema, validate, yaml};
use crate::base::Faults;

/// Where registered models are kept, when nobody says so.
const REGISTRY: &str = "./registry";

/// Directory or address of the registry that a file names, or that there is when it names none.
pub(super) fn uri_of(config: Option<&ModelRegistryConfig>, directory: &Path) -> String {
    let uri = config.map_or(REGISTRY, |registry| registry.uri.0.as_str());
    match uri.contains("://") {
        true => uri.to_owned(),
        false => locate(uri, directory),
    }
}

/// Where the dataflow file at `path` says that registered models are kept. The rest of the file may be wrong, and what it names
/// need not be there: this is for those who put the first model into the registry.
///
/// # Errors
/// What keeps the file from being read, and what is wrong with its `registry`.
pub fn registry_of(path: &Path, sets: &[(String, String)], env: Env) -> Result<String, Faults> {
    let file = path.display().to_string();
    let mut faults = Collector::default();
    let uri = std::fs::read_to_string(path)
        .map_err(|error| {
            faults.error(&Place::default(), &faults::Path::root(), format!("the file cannot be read: {error}"), "");
        })
        .ok()
        .and_then(|text| find(&text, path.parent().unwrap_or(Path::new("")), sets, env, &mut faults));
    let fatal = faults.fatal();
    uri.filter(|_| !fatal).ok_or_else(|| Faults { file, list: faults.sorted() })
}

fn find(text: &str, directory: &Path, sets: &[(String, String)], env: Env, faults: &mut Collector) -> Option<String> {
    let mut tree = yaml::parse(text, faults)?;
    for (key, value) in sets {
        expand::set(&mut tree, key, value, faults);
    }
    let Some(node) = tree.get("registry") else { return Some(uri_of(None, directory)) };
    let (mut node, at) = (node.clone(), faults::Path::of(&["registry"]));
    expand::expand(&mut node, env, &at, faults);
    let schema = schema::schema();
    let mut validator = validate::Validator { schema, faults, root: validate::Root::job() };
    let sound = validator.check(&node, &schema["$defs"]["ModelRegistryConfig"], &at)?;
    let config = decode::decode(&sound).ok()?;
    Some(uri_of(Some(&config), directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, sets: &[(&str, &str)]) -> Result<String, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("job.yaml");
        std::fs::write(&file, text).expect("it is written");
        let sets: Vec<_> = sets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let env = |name: &str| (name == "LAKE").then(|| "/lake".to_owned());
        registry_of(&file, &sets, &env).map_err(|faults| faults.to_string())
    }

    #[test]
    fn the_rest_of_the_file_may_be_wrong() {
        let uri = |text: &str| read(text, &[]).expect("it is there");
        assert_eq!(
            uri("registry: {uri: \"${LAKE:-./lake}/registry\"}\nsources: {x: {file: {path: \"${NONE}\"}}}"),
            "/lake/registry"
        );
        assert_eq!(uri("job: x\nmodels: 3"), "./registry");
        assert_eq!(uri("registry: {uri: \"s3://bucket/models\"}"), "s3://bucket/models");
        let set = read("job: x", &[("registry.uri", "/there")]);
        assert_eq!(set, Ok("/there".to_owned()));
        for (text, part) in [
            ("registry: {url: x}", "did you mean `uri`?"),
            ("registry: {uri: \"${NONE}/x\"}", "NONE"),
            ("registry: [", ""),
        ] {
            let told = read(text, &[]).expect_err("it is refused");
            assert!(told.contains(part), "{told}");
        }
        assert!(registry_of(Path::new("/no/such/file"), &[], &|_| None).is_err());
    }
}

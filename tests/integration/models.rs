//! `tidemill models`, and jobs that score with what is registered.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use arrow::array::AsArray;
use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;

use crate::support::s3::S3;
use crate::support::{root, table_in};

/// A registry, and a job that scores with its `fraud@champion`.
struct Place {
    dir: TempDir,
    registry: String,
    env: Vec<(String, String)>,
}

/// How a command ended: exit code (none when it was killed), standard output, standard error.
struct Ended(Option<i32>, String, String);

impl Ended {
    fn of(output: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ended(output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn well(self) -> Ended {
        assert_eq!(self.0, Some(0), "{}{}", self.1, self.2);
        self
    }

    fn fails(self, code: i32, words: &[&str]) -> Ended {
        assert_eq!(self.0, Some(code), "{}{}", self.1, self.2);
        assert!(words.iter().all(|word| self.2.contains(word)), "not all of {words:?} in: {}", self.2);
        self
    }

    fn says(self, words: &[&str]) -> Ended {
        assert!(words.iter().all(|word| self.2.contains(word)), "not all of {words:?} in: {}", self.2);
        self
    }

    fn prints(self, words: &[&str]) -> Ended {
        assert!(words.iter().all(|word| self.1.contains(word)), "not all of {words:?} in: {}", self.1);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.1).unwrap_or_else(|error| panic!("{error}: {}", self.1))
    }
}

/// The models of the repository: both take the fifteen columns of the job's feature set.
const FIRST: &str = "models/card_fraud.onnx";
const SECOND: &str = "models/fraud_handbook.onnx";

impl Place {
    fn new() -> Place {
        let dir = TempDir::new().expect("a folder");
        let registry = dir.path().join("registry").display().to_string();
        Place::at(dir, registry)
    }

    fn at(dir: TempDir, registry: String) -> Place {
        let text = std::fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("a job");
        let place = Place { dir, registry, env: Vec::new() };
        let text = text.replace("versions: {champion: models/card_fraud.onnx}", "registry: fraud@champion");
        let text = format!("registry: {{uri: \"{}\"}}\n{text}", place.registry);
        std::fs::write(place.path("job.yaml"), text).expect("it is written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).current_dir(root()).stdin(Stdio::null());
        command.env("LAKE", self.path("lake")).env("XDG_CACHE_HOME", self.path("cache")).env("USER", "ada");
        command.env_remove("TIDEMILL_REGISTRY").env_remove(FAILPOINTS);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn models(&self, args: &[&str]) -> Ended {
        let mut all = vec!["models"];
        all.extend(args);
        all.extend(["--registry", &self.registry]);
        Ended::of(self.command(&all).output().expect("it starts"))
    }

    /// A command on the job, over two days of traffic in small epochs.
    fn job(&self, name: &str, state: &str, more: &[&str], failpoints: &str) -> Ended {
        let (file, state) = (self.path("job.yaml").display().to_string(), self.path(state).display().to_string());
        let mut all = vec![name, &file];
        if name != "check" {
            all.extend(["--state", &state]);
        }
        for set in [
            "sources.tx.generator.rate=max",
            "sources.tx.generator.duration=2d",
            "sources.fraud_labels.generator.duration=2d",
            "tick.rows=500",
            "checkpoint.rows=1500",
        ] {
            all.extend(["--set", set]);
        }
        all.extend(more);
        let output = self.command(&all).env(FAILPOINTS, failpoints).output().expect("it starts");
        let ended = Ended::of(output);
        if !failpoints.is_empty() {
            assert!(ended.0.is_none() && ended.2.contains("failpoint"), "{failpoints}: {}", ended.2);
        }
        ended
    }

    fn run(&self, state: &str, failpoints: &str) -> Ended {
        self.job("run", state, &["--until-end", "--workers", "2"], failpoints)
    }

    /// The versions and hashes that predictions name, with their number.
    fn scored(&self) -> Vec<(String, String)> {
        let columns = ["model_version", "model_hash"];
        let rows = table_in(&self.path("lake").join("card_fraud"), "predictions/fraud", Some(&columns));
        let text = |i: usize| rows.column(i).as_string::<i32>().iter().map(|t| t.expect("a text").to_owned()).collect();
        let (versions, hashes): (Vec<String>, Vec<String>) = (text(0), text(1));
        let mut all: Vec<(String, String)> = versions.into_iter().zip(hashes).collect();
        all.sort();
        all.dedup();
        all
    }
}

fn hash(file: &str) -> String {
    use sha2::Digest;
    let bytes = std::fs::read(root().join(file)).expect("a file");
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn two_versions(place: &Place) {
    let args =
        ["register", "--name", "fraud", "--alias", "champion", "--metric", "auc=0.86", "--data", "labels/fraud=3"];
    place.models(&[&args[..], &["--file", FIRST]].concat()).well().prints(&["fraud version 1", "input float [N, 15]"]);
    let args = ["register", "--name", "fraud", "--alias", "challenger", "--metric", "auc=0.87", "--file", SECOND];
    place.models(&args).well().prints(&["fraud version 2", "is     challenger"]);
}

#[test]
fn a_job_scores_with_the_champion_that_it_began_with() {
    let place = Place::new();
    place
        .job("check", "", &[], "")
        .fails(2, &["models.fraud.registry", "there is no registry of models in", "begins one"]);
    two_versions(&place);
    place.job("check", "", &[], "").well().prints(&["model fraud version 1 (fraud@champion of registry "]);
    // At the first epoch: the second may hold all that is left.
    place.run("state", "checkpoint.committed=kill@1");
    place.models(&["promote", "fraud@challenger"]).well().prints(&["champion of fraud: version 1 → 2"]);
    place.job("check", "", &[], "").well().prints(&["model fraud version 2 (fraud@champion of registry "]);

    // Ticks are replayed and the rest is scored with the version that had begun.
    place.run("state", "checkpoint.published=kill@1").says(&["goes on with version 1", "is version 2 by now"]);
    // Nor is the alias needed for that.
    place.models(&["alias", "fraud", "champion", "--remove"]).well();
    place.run("state", "").well();
    assert_eq!(place.scored(), [("1".to_owned(), hash(FIRST))]);
    place.job("prove", "state", &["--workers", "1", "--chaos", "1"], "").well();
    place.job("check", "", &[], "").fails(2, &["models.fraud.registry", "has no alias `champion`"]);

    // Another reference is a change of the job; another state is another life of it.
    let file = place.path("job.yaml");
    let text = std::fs::read_to_string(&file).expect("the job").replace("fraud@champion", "fraud@latest");
    std::fs::write(&file, text).expect("it is written");
    place.run("state", "").well().says(&["version 2 (fraud@latest) instead of version 1 (fraud@champion)"]);
    std::fs::remove_dir_all(place.path("lake")).expect("it was there");
    place.run("new", "").well();
    assert_eq!(place.scored(), [("2".to_owned(), hash(SECOND))]);
}

#[test]
fn a_job_that_moves_to_another_machine_keeps_its_version() {
    let place = Place::new();
    two_versions(&place);
    let uri = format!("checkpoint.uri={}", place.path("snapshots").display());
    let more = ["--until-end", "--workers", "2", "--set", &uri];
    place.job("run", "state", &more, "checkpoint.committed=kill@2");
    place.models(&["promote", "fraud@challenger"]).well();
    std::fs::remove_dir_all(place.path("state")).expect("it was there");
    place.job("run", "elsewhere", &more, "").well().says(&["is loaded", "goes on with version 1"]);
    assert_eq!(place.scored(), [("1".to_owned(), hash(FIRST))]);
    // A copy that is damaged is named.
    std::fs::write(place.path("elsewhere/models.json"), "{}").expect("it is written");
    place.job("run", "elsewhere", &more, "").fails(2, &["elsewhere/models.json is damaged", "put it back"]);
}

#[test]
fn what_does_not_fit_is_found_by_check() {
    let place = Place::new();
    two_versions(&place);
    let take = "feature_sets.fraud_inputs.take=[amount, customer.*]";
    place
        .job("check", "", &["--set", take], "")
        .fails(2, &["models.fraud.registry: version 1 of `fraud`", "takes 15 values"]);
    let outputs = "models.fraud.outputs={score: \"probability[1]\"}";
    place.job("check", "", &["--set", outputs], "").fails(2, &["version 1 of `fraud`", "probabilities"]);
    for (reference, word) in
        [("fruad@champion", "did you mean `fraud`?"), ("fraud@9", "its newest is 2"), ("fraud@x", "no alias `x`")]
    {
        let set = format!("models.fraud.registry={reference}");
        place.job("check", "", &["--set", &set], "").fails(2, &["models.fraud.registry", word]);
    }
    place.run("state", "").well();
    // A file that is not what was registered scores nothing, also where it has become another since it was looked up.
    let lake = place.path("lake").display().to_string();
    let env = |name: &str| (name == "LAKE").then(|| lake.clone());
    let (plan, _) = tidemill::engine::load(&place.path("job.yaml"), &[], &env).expect("it compiles");
    let artifact = Path::new(&place.registry).join("artifacts").join(hash(FIRST));
    std::fs::copy(root().join(SECOND), &artifact).expect("it is written");
    let faults = tidemill::engine::check(&plan).expect_err("it is another file").to_string();
    assert!(faults.contains("is not the file that was registered as version 1"), "{faults}");
    place.job("check", "", &[], "").fails(2, &["artifacts/", "is damaged", "register the same file again"]);
    place.run("state", "").fails(2, &["is damaged"]);
    place.models(&["mend"]).fails(1, &["is damaged in one place"]).prints(&["fraud version 1, its model"]);
    place.models(&["register", "--name", "fraud", "--file", FIRST]).well().prints(&["version 1 is the same file"]);
    place.models(&["mend"]).well().prints(&["are whole"]);
    place.run("state", "").well();
}

#[test]
fn models_are_registered_shown_and_moved() {
    let place = Place::new();
    place.models(&["list"]).fails(2, &["there is no registry of models in"]);
    place
        .models(&["register", "--name", "fraud", "--file", "README.md"])
        .fails(2, &["README.md is not a usable ONNX model"]);
    place.models(&["register", "--name", "fraud", "--file", "none.onnx"]).fails(2, &["cannot read none.onnx"]);
    place.models(&["register", "--name", "a b", "--file", FIRST]).fails(2, &["no name of models"]);
    place
        .models(&["register", "--name", "fraud", "--file", FIRST, "--metric", "auc=high"])
        .fails(2, &["no finite number"]);
    assert!(!Path::new(&place.registry).exists(), "nothing was made");
    two_versions(&place);
    place.models(&["list"]).well().prints(&["fraud         2       2         1           2"]);
    place.models(&["show", "fraud"]).well().prints(&["champion is version 1", "auc=0.87"]);
    let shown = place.models(&["show", "fraud@champion", "--json"]).well().json();
    assert_eq!((&shown["version"]["number"], &shown["version"]["data"]["labels/fraud"]), (&1.into(), &3.into()));
    assert_eq!(shown["version"]["who"], "ada");
    assert_eq!(
        std::fs::read(shown["path"].as_str().expect("a path")).expect("a file"),
        std::fs::read(root().join(FIRST)).expect("a file")
    );

    place
        .models(&["promote", "fraud@2", "--expect", "2"])
        .fails(1, &["is at version 1, and was expected to be at version 2"]);
    let promote = ["promote", "fraud@2", "--why", "better", "--key", "decision 7", "--json"];
    let first = place.models(&promote).well().json();
    assert_eq!((&first["from"], &first["to"]), (&1.into(), &2.into()));
    assert!(first["changes"].as_array().expect("a list").contains(&"metric auc: 0.86 → 0.87".into()), "{first}");
    assert_eq!(place.models(&promote).well().json()["entry"], first["entry"], "it is done once");
    place.models(&["show", "fraud@challenger"]).fails(2, &["has no alias `challenger`"]);
    place.models(&["hold", "fraud"]).fails(2, &["has no challenger"]);
    place.models(&["rollback", "fraud"]).well().prints(&["champion of fraud: version 2 → 1"]);
    place.models(&["rollback", "fraud"]).fails(1, &["has been at no other version than 1"]);
    place.models(&["alias", "fraud", "stable", "--version", "champion"]).well().prints(&["stable of fraud: version 1"]);
    place.models(&["alias", "fraud", "7", "--version", "1"]).fails(2, &["cannot be an alias"]);
    place.models(&["alias", "fraud", "stable"]).fails(2, &["--version", "--remove"]);
    place.models(&["alias", "fraud", "stable", "--remove"]).well();
    let history = place.models(&["history", "fraud", "--json"]).well().json();
    assert_eq!(history.as_array().expect("entries").len(), 7);
    assert_eq!(history[2]["event"]["alias_moved"]["to"], 2);
    place.models(&["history", "fraud", "--last", "2"]).well().prints(&["stable taken from 1"]);

    place.models(&["alias", "fraud", "challenger", "--version", "latest"]).well();
    place.models(&["hold", "fraud", "--why", "a holiday"]).well().prints(&["fraud version 2 are asked to hold"]);
    let request = place.models(&["history", "fraud", "--last", "1", "--json"]).well().json();
    assert_eq!(
        (&request[0]["numbers"]["do"], &request[0]["event"]["noted"]["kind"]),
        (&"hold".into(), &"request".into())
    );
    place.models(&["resume", "fraud"]).well().prints(&["asked to resume"]);

    // A model that takes something else is no champion of the same jobs.
    let other = "tests/golden/models/tree_regressor.onnx";
    place.models(&["register", "--name", "fraud", "--file", other]).well();
    place.models(&["promote", "fraud@latest"]).fails(1, &["takes or gives something else", "--force"]);
    place.models(&["promote", "fraud@latest", "--force"]).well().prints(&["signature: "]);

    // The job's file says where, whatever else it says; so does the environment.
    let job = place.path("job.yaml").display().to_string();
    let by_job = place.command(&["models", "list", "--job", &job]).output().expect("it starts");
    Ended::of(by_job).well().prints(&["fraud"]);
    let mut by_variable = place.command(&["models", "list"]);
    Ended::of(by_variable.env("TIDEMILL_REGISTRY", &place.registry).output().expect("it starts"))
        .well()
        .prints(&["fraud"]);
    let both = place.command(&["models", "list", "--job", &job, "--registry", "x"]).output().expect("it starts");
    Ended::of(both).fails(2, &["cannot be used with"]);
}

#[test]
fn of_many_who_promote_at_once_one_does() {
    let place = Place::new();
    two_versions(&place);
    let promote = |i: usize| -> Child {
        let (why, args) =
            (format!("by {i}"), ["models", "promote", "fraud@2", "--expect", "1", "--registry", &place.registry]);
        let mut command = place.command(&[&args[..], &["--why", &why]].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let children: Vec<Child> = (0..5).map(promote).collect();
    let ended: Vec<Ended> =
        children.into_iter().map(|child| Ended::of(child.wait_with_output().expect("it ends"))).collect();
    assert_eq!(ended.iter().filter(|ended| ended.0 == Some(0)).count(), 1);
    ended.into_iter().filter(|ended| ended.0 != Some(0)).for_each(|ended| {
        ended.fails(1, &["is at version 2, and was expected to be at version 1"]);
    });
}

#[test]
fn damaged_entries_are_named_and_given_up() {
    let place = Place::new();
    two_versions(&place);
    let entry = Path::new(&place.registry).join("entries/0000000000/00000000000000000002.json");
    let text = std::fs::read_to_string(&entry).expect("an entry");
    std::fs::write(&entry, text.replace("0.87", "0.99")).expect("it is written");
    let name = "entries/0000000000/00000000000000000002.json is damaged";
    place.models(&["list"]).fails(1, &[name, "models mend --entry 2"]);
    place.job("check", "", &[], "").fails(2, &["models.fraud.registry", name]);
    place.models(&["mend"]).fails(1, &["is damaged in one place"]).prints(&[name]);
    place.models(&["mend", "--entry", "1"]).fails(2, &["is not damaged"]);
    place.models(&["mend", "--entry", "2", "--why", "the disk"]).well().prints(&["entry 2 is given up"]);
    place.models(&["list"]).well();
    place.models(&["register", "--name", "fraud", "--file", SECOND]).well().prints(&["fraud version 3"]);
}

#[test]
fn a_registry_in_an_object_store() {
    let Some(s3) = S3::start("a registry in an object store") else { return };
    let dir = TempDir::new().expect("a folder");
    let mut place = Place::at(dir, "s3://state/models".to_owned());
    place.env = s3.env();
    place.models(&["list"]).well().prints(&["has no models yet"]);
    two_versions(&place);
    place.models(&["promote", "fraud@2"]).well();
    place.models(&["promote", "fraud@1", "--expect", "1"]).fails(1, &["is at version 2"]);
    place.models(&["rollback", "fraud"]).well();
    place.models(&["mend"]).well().prints(&["5 entries and 2 versions are whole"]);
    place
        .job("check", "", &[], "")
        .well()
        .prints(&["model fraud version 1 (fraud@champion of registry s3://state/models)"]);
    place.run("state", "checkpoint.committed=kill@2");
    place.models(&["promote", "fraud@2"]).well();
    // What a job began with it goes on with, though the registry be away.
    s3.cut(true);
    place.run("state", "").well();
    s3.cut(false);
    assert_eq!(place.scored(), [("1".to_owned(), hash(FIRST))]);
    let copies: Vec<_> = std::fs::read_dir(place.path("cache/tidemill/models")).expect("copies").flatten().collect();
    std::fs::write(copies[0].path(), "x").expect("it is written");
    place.job("check", "", &[], "").well();
}

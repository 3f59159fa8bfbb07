//! The container files, as far as they can be checked without a container engine: what they name is there, what they run
//! is understood.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};

use crate::support::root;

/// A YAML file of one document without anchors, as JSON; every scalar is a text.
pub fn yaml(path: &Path) -> Value {
    let mut documents = documents(path);
    assert_eq!(documents.len(), 1, "{}", path.display());
    documents.remove(0)
}

/// All documents of a YAML file without anchors.
pub fn documents(path: &Path) -> Vec<Value> {
    fn put(stack: &mut [(Value, Option<String>)], value: Value) -> Option<Value> {
        match stack.last_mut() {
            None => return Some(value),
            Some((Value::Array(list), _)) => list.push(value),
            Some((Value::Object(map), key)) => match (key.take(), value) {
                (Some(key), value) => assert!(map.insert(key.clone(), value).is_none(), "`{key}` is given twice"),
                (None, Value::String(text)) => *key = Some(text),
                (None, other) => panic!("{other} as a key"),
            },
            Some((other, _)) => panic!("{other} holds nothing"),
        }
        None
    }
    let text = std::fs::read_to_string(path).expect("a file");
    let mut stack: Vec<(Value, Option<String>)> = Vec::new();
    let mut roots = Vec::new();
    for event in Parser::new_from_str(&text) {
        let done = match event.expect("YAML").0 {
            Event::MappingStart(..) => {
                stack.push((Value::Object(Map::new()), None));
                None
            }
            Event::SequenceStart(..) => {
                stack.push((Value::Array(Vec::new()), None));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let (value, _) = stack.pop().expect("it was opened");
                put(&mut stack, value)
            }
            Event::Scalar(text, ..) => put(&mut stack, Value::String(text.into_owned())),
            _ => None,
        };
        roots.extend(done);
    }
    roots
}

fn compose() -> Value {
    yaml(&root().join("docker/compose.yaml"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|item| item.as_str().expect("a text")).collect()
}

fn services(compose: &Value) -> BTreeMap<&str, &Map<String, Value>> {
    let services = compose["services"].as_object().expect("services");
    services.iter().map(|(name, service)| (name.as_str(), service.as_object().expect("a service"))).collect()
}

#[test]
fn compose_names_only_what_is_there() {
    let compose = compose();
    let known = ["name", "services", "volumes", "networks", "secrets", "configs"];
    assert!(compose.as_object().expect("a mapping").keys().all(|key| known.contains(&key.as_str())));
    let services = services(&compose);
    let volumes = compose["volumes"].as_object().expect("volumes");
    let built: Vec<&str> =
        services.values().filter(|s| s.contains_key("build")).filter_map(|s| s["image"].as_str()).collect();
    for (name, service) in &services {
        let keys = [
            "image",
            "build",
            "environment",
            "volumes",
            "ports",
            "healthcheck",
            "depends_on",
            "entrypoint",
            "command",
            "restart",
            "stop_grace_period",
        ];
        let unknown: Vec<&String> = service.keys().filter(|key| !keys.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let image = service["image"].as_str().expect("an image");
        assert!(built.contains(&image) || image.contains(':'), "{name}: {image} has no version");
        if let Some(build) = service.get("build") {
            let context = root().join("docker").join(build["context"].as_str().expect("a context"));
            assert!(context.join(build["dockerfile"].as_str().expect("a file")).is_file(), "{name}");
        }
        for port in service.get("ports").map(texts).unwrap_or_default() {
            assert!(port.starts_with("127.0.0.1:"), "{name}: port {port} is open to others");
        }
        for volume in service.get("volumes").map(texts).unwrap_or_default() {
            let (volume, place) = volume.split_once(':').expect("a volume and a place");
            // A folder of ours is only read.
            let ours = volume.strip_prefix("./").is_some_and(|folder| root().join("docker").join(folder).is_dir());
            assert!(volumes.contains_key(volume) || ours && place.ends_with(":ro"), "{name}: volume {volume}");
            assert!(place.starts_with('/'), "{name}: volume {volume}");
        }
        for (other, how) in service.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
            let other = services.get(other.as_str()).unwrap_or_else(|| panic!("{name} waits for {other}"));
            match how["condition"].as_str() {
                Some("service_healthy") => assert!(other.contains_key("healthcheck"), "{name}"),
                Some("service_started" | "service_completed_successfully") => {}
                other => panic!("{name}: condition {other:?}"),
            }
        }
        if let Some(check) = service.get("healthcheck") {
            assert_eq!(texts(&check["test"])[0], "CMD", "{name}");
        }
    }
    for service in ["kafka", "redis", "tidemill", "serve", "prometheus"] {
        assert!(services[service].contains_key("healthcheck"), "{service}");
    }
}

/// Runs the program; the error if it is refused. Files that containers have mounted are ours.
pub fn accepted(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let ours = arguments.iter().map(|argument| argument.replace("/etc/tidemill/", "docker/jobs/"));
    let output = command.args(ours).current_dir(root()).env("LAKE", "lake").output().expect("the program starts");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("tidemill {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn every_command_of_compose_is_understood() {
    let compose = compose();
    let mut seen = Vec::new();
    for (name, service) in services(&compose) {
        if service["image"] != "tidemill" {
            continue;
        }
        let command = texts(&service["command"]);
        seen.push(command[0]);
        // Help is printed only after the arguments before it are taken.
        accepted(&[&command[..], &["--help"]].concat()).unwrap_or_else(|error| panic!("{name}: {error}"));
        if command[0] == "run" {
            accepted(&["check", command[1]]).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        if let Some(check) = service.get("healthcheck") {
            let check = texts(&check["test"]);
            if check[1] != "tidemill" {
                assert_eq!((name, check[1]), ("serve", "bash"));
                continue;
            }
            accepted(&[&check[2..], &["--help"]].concat()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["generate", "run", "serve"]);
    assert!(accepted(&["run", "dataflows/card_fraud.yaml", "--sett", "a=b", "--help"]).is_err(), "a slip is refused");
}

#[test]
fn the_containers_job_is_the_one_of_the_examples() {
    let theirs = yaml(&root().join("docker/jobs/card_fraud.yaml"));
    let ours = yaml(&root().join("dataflows/card_fraud.yaml"));
    for section in ["job", "version", "clock", "order", "streams", "features", "feature_sets", "labels", "monitors"] {
        assert_eq!(theirs[section], ours[section], "{section}");
    }
    for path in
        ["/sources/tx/validate", "/sources/tx/on_invalid", "/sources/fraud_labels/columns", "/models/fraud/outputs"]
    {
        assert_eq!(theirs.pointer(path), ours.pointer(path), "{path}");
    }
}

/// The instructions of a Dockerfile, continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.fold(String::new(), |text, line| match line.trim_end().strip_suffix('\\') {
        Some(line) => text + line + " ",
        None => text + line + "\n",
    });
    let words = joined.lines().filter_map(|line| line.trim().split_once(' '));
    words.map(|(word, rest)| (word.to_owned(), rest.trim().to_owned())).collect()
}

#[test]
fn the_dockerfile_copies_what_is_there() {
    let text = std::fs::read_to_string(root().join("docker/Dockerfile")).expect("a Dockerfile");
    let ignore = std::fs::read_to_string(root().join("docker/Dockerfile.dockerignore")).expect("its ignore file");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let mut stages: Vec<String> = Vec::new();
    let instructions = instructions(&text);
    for (word, rest) in &instructions {
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word.as_str() {
            "FROM" => {
                assert!(words[0].contains(':'), "{} has no version", words[0]);
                stages.extend(words.get(2).map(|name| (*name).to_owned()));
            }
            "COPY" => match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.iter().any(|s| s == stage), "no stage {stage}"),
                None => {
                    for source in &words[..words.len() - 1] {
                        assert!(root().join(source).exists(), "COPY {source}: it is not there");
                        assert!(ignore.lines().any(|line| line == format!("!{source}")), "{source} is left out");
                    }
                }
            },
            "RUN" => {
                for feature in rest.split("--features ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
                    assert!(manifest.contains(&format!("\n{feature} = [")), "there is no feature {feature}");
                }
            }
            "WORKDIR" | "USER" | "ENV" | "VOLUME" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD" => {}
            other => panic!("{other} {rest}"),
        }
    }
    let last = |word: &str| instructions.iter().rev().find(|(w, _)| w == word).map(|(_, rest)| rest.as_str());
    assert_eq!(last("USER"), Some("tidemill"), "it does not run as root");
    assert_eq!(last("ENTRYPOINT"), Some(r#"["tidemill"]"#));
    assert!(last("HEALTHCHECK").is_some());
}

/// Compose's own judgement, where it is installed; it needs no engine for it.
#[test]
fn compose_accepts_its_file() {
    let file = root().join("docker/compose.yaml");
    let ways: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let there = |way: &&&[&str]| {
        Command::new(way[0]).args(&way[1..]).arg("version").output().is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(there) else {
        println!(
            "skipped: docker/compose.yaml by Compose itself: neither `docker compose` nor docker-compose is there"
        );
        return;
    };
    let mut command = Command::new(way[0]);
    let output = command.args(&way[1..]).arg("-f").arg(&file).args(["config", "--quiet"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! The Kubernetes manifests, as far as they can be checked without a cluster: Kubernetes' own types take them, what they name
//! is there, what they run is understood.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::docker::{accepted, documents, yaml};
use crate::support::root;

const FILES: [&str; 3] = ["namespace.yaml", "job.yaml", "serving.yaml"];

fn manifests() -> Vec<Value> {
    FILES.iter().flat_map(|file| documents(&root().join("docker/kubernetes").join(file))).collect()
}

fn kustomization() -> Value {
    yaml(&root().join("docker/kustomization.yaml"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> Vec<&'a Value> {
    manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
}

/// What runs pods.
fn workloads(manifests: &[Value]) -> Vec<&Value> {
    [of_kind(manifests, "StatefulSet"), of_kind(manifests, "Deployment")].concat()
}

/// Whether a selector chooses pods with these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn kubernetes_own_types_take_the_manifests() {
    let Some(go) = std::env::var_os("TIDEMILL_GO").filter(|go| !go.is_empty()) else {
        println!("skipped: manifests by Kubernetes' own types: TIDEMILL_GO names no Go (tests/all looks for one)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("manifests");
    let mut build = Command::new(go);
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(root().join("tests/kubernetes"));
    let built = build.output().expect("go starts");
    if !built.status.success() {
        let why = String::from_utf8_lossy(&built.stderr).lines().next().unwrap_or("").to_owned();
        println!("skipped: manifests by Kubernetes' own types: {why}");
        return;
    }
    let check = |files: &[std::path::PathBuf]| {
        let output = Command::new(&program).args(files).output().expect("it starts");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    let files = FILES.map(|file| root().join("docker/kubernetes").join(file));
    let told = check(&files).unwrap_or_else(|error| panic!("{error}"));
    for wanted in [
        "StatefulSet card-fraud",
        "Deployment tidemill",
        "HorizontalPodAutoscaler tidemill",
        "PodDisruptionBudget jobs",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
    let slip = folder.path().join("slip.yaml");
    let text = std::fs::read_to_string(&files[1]).expect("a file").replace("readinessProbe", "readynessProbe");
    std::fs::write(&slip, text).expect("a file");
    assert!(check(&[slip]).expect_err("a slip").contains("readynessProbe"));
    // What kubectl makes of all of it, where it is there.
    let built = Command::new("kubectl").arg("kustomize").arg(root().join("docker")).output();
    let Ok(built) = built.as_ref().map(|output| (output.status.success(), output)) else {
        println!("skipped: manifests put together: there is no kubectl");
        return;
    };
    assert!(built.0, "{}", String::from_utf8_lossy(&built.1.stderr));
    let all = folder.path().join("all.yaml");
    std::fs::write(&all, &built.1.stdout).expect("a file");
    let told = check(std::slice::from_ref(&all)).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains("ConfigMap tidemill-places-") && told.contains("ConfigMap tidemill-card-fraud-"), "{told}");
    // The generated names have taken the place of those in the manifests.
    let all = std::fs::read_to_string(all).expect("a file");
    assert!(!all.contains("name: tidemill-places\n") && !all.contains("name: tidemill-card-fraud\n"));
}

#[test]
fn selectors_choose_the_pods_that_they_are_meant_for() {
    let manifests = manifests();
    let workloads = workloads(&manifests);
    assert_eq!(workloads.len(), 2);
    for workload in &workloads {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert!(selects(&workload["spec"]["selector"]["matchLabels"], labels), "{workload}");
        assert_eq!(
            workloads
                .iter()
                .filter(|other| selects(
                    &workload["spec"]["selector"]["matchLabels"],
                    &other["spec"]["template"]["metadata"]["labels"]
                ))
                .count(),
            1,
            "no workload takes another's pods"
        );
        let budgets = of_kind(&manifests, "PodDisruptionBudget");
        assert_eq!(budgets.iter().filter(|b| selects(&b["spec"]["selector"]["matchLabels"], labels)).count(), 1);
        let services: Vec<&Value> =
            of_kind(&manifests, "Service").into_iter().filter(|s| selects(&s["spec"]["selector"], labels)).collect();
        assert_eq!(services.len(), 1);
        let ports: Vec<&str> = list(&workload["spec"]["template"]["spec"]["containers"][0]["ports"])
            .iter()
            .map(|port| text(&port["name"]))
            .collect();
        for port in list(&services[0]["spec"]["ports"]) {
            assert!(ports.contains(&text(&port["targetPort"])), "{port}");
        }
        if let Some(service) = workload["spec"]["serviceName"].as_str() {
            assert_eq!(services[0]["metadata"]["name"], service);
        }
    }
    let scaler = of_kind(&manifests, "HorizontalPodAutoscaler")[0];
    let target = &scaler["spec"]["scaleTargetRef"];
    assert!(workloads.iter().any(|w| w["kind"] == target["kind"] && w["metadata"]["name"] == target["name"]));
}

#[test]
fn every_command_of_the_manifests_is_understood() {
    let manifests = manifests();
    for workload in workloads(&manifests) {
        let pod = &workload["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let arguments: Vec<&str> = list(&container["args"]).iter().map(text).collect();
        accepted(&[&arguments[..], &["--help"]].concat()).unwrap_or_else(|error| panic!("{error}"));
        let after = |name: &str| arguments.iter().position(|a| *a == name).map(|at| arguments[at + 1]);
        // It listens where its port is, and is asked for what it answers.
        let port = after("--listen").or(after("--metrics")).expect("an address").rsplit(':').next().expect("a port");
        assert_eq!(container["ports"][0]["containerPort"], port);
        for (probe, path) in [("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")] {
            let asked = &container[probe]["httpGet"];
            assert_eq!((text(&asked["path"]), &asked["port"]), (path, &container["ports"][0]["name"]), "{probe}");
            assert_eq!(asked["scheme"] == "HTTPS", after("--tls-cert").is_some(), "{probe}");
        }
        // It has time to end in peace.
        let seconds = |name: &str| after(name).map_or(0, |t| t.trim_end_matches('s').parse::<u64>().expect("seconds"));
        let grace: u64 = text(&pod["terminationGracePeriodSeconds"]).parse().expect("seconds");
        assert!(grace > seconds("--drain") + seconds("--drain-delay"), "{grace}");
        // Nothing runs as root or writes where it should not.
        assert_eq!(pod["securityContext"]["runAsNonRoot"], "true");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], "true");
    }
}

#[test]
fn what_the_manifests_name_is_there() {
    let manifests = manifests();
    let kustomization = kustomization();
    let resources: Vec<&str> = list(&kustomization["resources"]).iter().map(text).collect();
    assert_eq!(resources, FILES.map(|file| format!("kubernetes/{file}")));
    // Config maps and their keys; secrets are made by hand, as the docs say.
    let mut maps: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for map in list(&kustomization["configMapGenerator"]) {
        let keys = maps.entry(text(&map["name"])).or_default();
        for file in list(&map["files"]) {
            assert!(root().join("docker").join(text(file)).is_file(), "{file}");
            keys.extend(text(file).rsplit('/').next());
        }
        keys.extend(list(&map["literals"]).iter().filter_map(|literal| text(literal).split('=').next()));
    }
    let guide = std::fs::read_to_string(root().join("docs/deployment.md")).expect("a page");
    let job = std::fs::read_to_string(root().join("docker/jobs/card_fraud.yaml")).expect("a job");
    for place in &maps["tidemill-places"] {
        assert!(job.contains(&format!("${{{place}:-")), "the job does not ask for {place}");
    }
    for workload in workloads(&manifests) {
        let pod = &workload["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let claims = list(&workload["spec"]["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]);
        let volumes: Vec<&Value> = list(&pod["volumes"]).iter().map(|volume| &volume["name"]).chain(claims).collect();
        let mut mounted = Vec::new();
        for mount in list(&container["volumeMounts"]) {
            assert!(volumes.contains(&&mount["name"]), "{mount}");
            mounted.push(text(&mount["mountPath"]));
        }
        assert_eq!(mounted.len(), volumes.len(), "each volume is used");
        for argument in list(&container["args"]).iter().map(text).filter(|argument| argument.starts_with('/')) {
            assert!(mounted.iter().any(|place| argument.starts_with(place)), "{argument} is in no volume");
        }
        for from in list(&container["envFrom"]) {
            assert!(maps.contains_key(text(&from["configMapRef"]["name"])), "{from}");
        }
        let mut secrets: Vec<&str> =
            list(&pod["volumes"]).iter().filter_map(|v| v["secret"]["secretName"].as_str()).collect();
        for variable in list(&container["env"]) {
            secrets.push(text(&variable["valueFrom"]["secretKeyRef"]["name"]));
            // A slip in a name would be a server that asks for no token.
            assert_eq!(variable["name"], "TIDEMILL_METRICS_TOKEN");
        }
        assert!(!secrets.is_empty());
        for secret in secrets {
            assert!(guide.contains(&format!(" {secret} --")), "docs/deployment.md does not say how {secret} is made");
        }
    }
}

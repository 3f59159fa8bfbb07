//! Scores by the Open Inference Protocol, asked by Triton's own client, and held against onnxruntime.

use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tidemill::registry::{By, CHAMPION, Content, Registration, Registry, Signature};

use crate::support::serve::{serve_in, until};
use crate::support::{python, root};

/// A registry in `dir/registry` with these models, and the list of them that the client reads.
fn models(dir: &Path, names: &[(&str, Option<&str>, f64)]) {
    let registry = Registry::open(&dir.join("registry").display().to_string()).expect("a registry");
    let golden = root().join("tests/golden/models");
    let mut list = Vec::new();
    for (name, inputs, tolerance) in names {
        let file = match inputs {
            Some(_) => golden.join(format!("{name}.onnx")),
            None => root().join(format!("models/{name}.onnx")),
        };
        let mut registration =
            Registration::new(*name, Content::File(file.clone()), Signature::default(), By::new("test", "a test"));
        registration.alias = Some(CHAMPION.to_owned());
        registry.register(registration).expect("it is registered");
        let inputs = inputs.map(|inputs| golden.join(format!("inputs_{inputs}.parquet")));
        list.push(serde_json::json!({"name": name, "file": file, "inputs": inputs, "tolerance": tolerance}));
    }
    std::fs::write(dir.join("models.json"), serde_json::to_vec(&list).expect("JSON")).expect("written");
}

const MODELS: &[(&str, Option<&str>, f64)] = &[
    ("card_fraud", None, 5e-6),
    ("fraud_handbook", None, 5e-6),
    ("flight_delay", None, 5e-6),
    ("forest_binary", Some("plain"), 1e-6),
    ("hist_missing", Some("missing"), 1e-6),
    ("lr_zipmap", Some("plain"), 1e-6),
    ("columns_onehot", Some("mixed"), 1e-6),
    ("label_words_to_int", Some("words"), 1e-6),
    ("tree_double", Some("plain64"), 1e-6),
    ("torch_mlp", Some("plain"), 1e-6),
];

/// Fails unless Triton's client is there; says so where there is no Python at all.
fn tritonclient() -> Option<std::path::PathBuf> {
    let python = python("asking for scores with tritonclient")?;
    let has = Command::new(&python).args(["-c", "import tritonclient.http, tritonclient.grpc, onnxruntime"]).output();
    if !has.is_ok_and(|done| done.status.success()) {
        println!("skipped: asking for scores with tritonclient: it is not in TIDEMILL_PYTHON (tests/all installs it)");
        return None;
    }
    Some(python)
}

fn client(python: &Path, arguments: &[&str]) {
    let done = Command::new(python)
        .arg(root().join("tests/python/infer_peer.py"))
        .args(arguments)
        .output()
        .expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert!(text(&done.stdout).contains("values of"), "it compared nothing: {}", text(&done.stdout));
}

#[test]
fn tritons_client_gets_onnxruntimes_scores() {
    let Some(python) = tritonclient() else { return };
    let dir = TempDir::new().expect("a folder");
    models(dir.path(), MODELS);
    let server = serve_in(
        dir,
        &["--registry", "DIR/registry", "--infer", "cache=1h", "--infer-model", "card_fraud:batch=1,cache=off"],
    );
    let list = server.dir.path().join("models.json").display().to_string();
    client(&python, &[&server.address.to_string(), &list]);
    let (status, metrics) = server.ask("GET /metrics", &[]);
    assert_eq!(status, 200);
    for name in [
        "tidemill_infer_requests_total{model=\"card_fraud\",version=\"1\",outcome=\"success\"}",
        "tidemill_infer_latency_seconds{model=\"card_fraud\",version=\"1\",quantile=\"0.99\"}",
        "tidemill_infer_cache_lookups_total{model=\"torch_mlp\",version=\"1\",outcome=\"hit\"}",
        "tidemill_infer_seconds_bucket{model=\"card_fraud\",version=\"1\",le=\"0.01\"}",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "no {name} in {metrics}");
    }
}

#[test]
fn tokens_hold_for_both_protocols() {
    let Some(python) = tritonclient() else { return };
    let dir = TempDir::new().expect("a folder");
    models(dir.path(), &MODELS[3..4]);
    let entry = |token: &str, scope: &str| {
        let hash: String = Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect();
        format!("  - {{name: {scope}, sha256: {hash}, scopes: [{scope}]}}\n")
    };
    let (strong, weak) = ("a-token-for-scores-0123456789", "a-token-for-features-0123456789");
    let tokens = format!("tokens:\n{}{}", entry(strong, "predict"), entry(weak, "read_features"));
    std::fs::write(dir.path().join("tokens.yaml"), tokens).expect("a file");
    let server = serve_in(dir, &["--registry", "DIR/registry", "--tokens", "DIR/tokens.yaml"]);
    let list = server.dir.path().join("models.json").display().to_string();
    client(&python, &[&server.address.to_string(), &list, strong, weak]);
}

/// Bytes that are no request, on both protocols' paths: each has an answer, and the server lives.
#[test]
fn damaged_requests_are_answered() {
    let dir = TempDir::new().expect("a folder");
    models(dir.path(), &MODELS[3..4]);
    let mut server = serve_in(dir, &["--registry", "DIR/registry", "--max-body", "1MiB"]);
    until("the model is there", || server.ask("GET /v2/models/forest_binary/ready", &[]).0 == 200);
    let mut random = tidemill::base::SplitMix64::new(tidemill::base::any_seed());
    for round in 0..200 {
        let path = match round % 4 {
            0 => "/inference.GRPCInferenceService/ModelInfer",
            1 => "/inference.GRPCInferenceService/NoSuch",
            _ => "/v2/models/forest_binary/infer",
        };
        let body: Vec<u8> = (0..random.below(300)).map(|_| random.word() as u8).collect();
        let header = random.below(400);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nInference-Header-Content-Length: {header}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = server.raw(&[head.as_bytes(), &body].concat());
        let answer = String::from_utf8_lossy(&answer);
        let wanted = if round % 4 < 2 { "HTTP/1.1 200" } else { "HTTP/1.1 400" };
        // gRPC's errors are trailers of a 200.
        assert!(answer.starts_with(wanted), "{path}: {answer}");
    }
    let head = "POST /v2/models/forest_binary/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 9000000\r\n\r\n";
    assert!(String::from_utf8_lossy(&server.raw(head.as_bytes())).starts_with("HTTP/1.1 413"));
    server.assert_alive("damaged requests");
}

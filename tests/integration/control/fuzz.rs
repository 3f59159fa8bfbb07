//! The API under a fuzzer that reads nothing but its OpenAPI document.

use std::path::PathBuf;
use std::process::Command;

use super::server::{Server, endless};
use crate::support::{full, root};

/// A Python with schemathesis, made once and kept in the target directory; nothing after saying why not.
fn schemathesis() -> Option<PathBuf> {
    let what = "the API under a schema-driven fuzzer";
    let python = crate::support::python(what)?;
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = venv.join("bin/schemathesis");
    if program.is_file() {
        return Some(program);
    }
    let requirements = root().join("tests/python/requirements-api.txt");
    let made = Command::new(&python).args(["-m", "venv", "--clear"]).arg(&venv).output().expect("Python runs");
    let installed = made.status.success().then(|| {
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
        pip.output().expect("pip runs")
    });
    match installed {
        Some(output) if output.status.success() && program.is_file() => Some(program),
        output => {
            let why = output.unwrap_or(made);
            let why = String::from_utf8_lossy(&why.stderr).lines().last().unwrap_or_default().to_owned();
            println!("skipped: {what}: tests/python/requirements-api.txt cannot be installed: {why}");
            let _ = std::fs::remove_dir_all(&venv);
            None
        }
    }
}

#[test]
fn every_answer_is_in_the_schema_whatever_is_asked() {
    let Some(program) = schemathesis() else { return };
    let server = Server::started();
    // Something to look at under ids that the fuzzer is told of.
    let id = server.submit(&endless("fuzzed"));
    server.until_state(&id, "RUNNING");
    server.until_progress(&id);
    server.post(&format!("/api/v1/jobs/{id}/savepoints"), serde_json::json!({"trigger": "known"}));
    let examples = if full() { 200 } else { 10 };
    let fuzz = |more: &[&str], config: &str| {
        let path = server.path("schemathesis.toml");
        std::fs::write(&path, config).expect("a file");
        let mut command = Command::new(&program);
        command.arg("--config-file").arg(&path).arg("run").arg(format!("{}/openapi.json", server.url()));
        let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,unsupported_method";
        command.args(["--checks", checks, "--max-examples", &examples.to_string()]);
        command.args(["--phases", "examples,coverage,fuzzing", "--seed", "7", "--request-timeout", "60"]);
        command.args(["--suppress-health-check", "all", "--no-color"]).args(more);
        let output = command.current_dir(server.path("")).output().expect("the fuzzer runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\nthe server: {}", server.said());
        let passed = said.lines().find(|line| line.contains("generated,")).unwrap_or_default().trim().to_owned();
        println!("{more:?}: {passed}");
        assert!(passed.contains("passed"), "{said}");
    };
    let jobs = ["--include-path-regex", "^/api/v1/(jobs|check)"];
    fuzz(&jobs, "");
    // A job that is there; a deletion would leave nothing to look at.
    let known = format!("[parameters]\n\"path.id\" = \"{id}\"\n\"path.trigger\" = \"known\"\n");
    fuzz(&[&jobs[..], &["--exclude-method", "DELETE"]].concat(), &known);
    // The server is still of use.
    server.get("/api/v1/jobs");
}

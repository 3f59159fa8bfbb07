//! Jobs in peace, over the API and over the command line.

use std::fs;

use serde_json::{Value, json};

use super::server::{Server, endless, finite, reference};
use crate::support::rows::{assert_same_rows, without};
use crate::support::{http, table_in};

#[test]
fn a_job_is_submitted_watched_stopped_and_deleted_from_a_terminal() {
    let server = Server::started();
    let path = server.path("job.yaml");
    fs::write(&path, endless("walk")).expect("a file");
    let (file, lake) = (path.display().to_string(), format!("LAKE={}", server.path("lake").display()));

    let (code, out, err) = server.cli(&["submit", &file, "--value", &lake]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("walk-1  RUNNING"), "{out}");
    let (code, out, _) = server.cli(&["jobs"]);
    assert!(code == 0 && out.contains("walk-1") && out.contains("RUNNING"), "{out}");
    server.until_progress("walk-1");
    let (code, out, err) = server.cli(&["job", "walk-1"]);
    assert!(code == 0 && out.contains("rows read") && out.contains("checkpoint"), "{out}{err}");
    let (_, out, _) = server.cli(&["job", "walk-1", "--json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(told["status"]["job"], "walk");
    assert!(told["job"]["pid"].is_u64() && told["history"][0]["what"] == "submit", "{told}");
    let (code, out, _) = server.cli(&["logs", "walk-1"]);
    assert!(code == 0 && out.contains("start of walk-1 version 1"), "{out}");

    let text = |path: &str| {
        http(super::server::PATIENCE)
            .get(format!("{}{path}", server.url()))
            .send()
            .expect("an answer")
            .text()
            .expect("text")
    };
    let metrics = text("/metrics");
    assert!(metrics.contains("tidemill_jobs{state=\"RUNNING\"} 1"), "{metrics}");
    assert!(metrics.contains("tidemill_job_running{job=\"walk-1\"} 1"), "{metrics}");
    let metrics = text("/api/v1/jobs/walk-1/metrics");
    assert!(metrics.contains("tidemill_") && metrics.contains("walk"), "{metrics}");

    // What writes to the same tables is refused while this one runs.
    let (code, _, err) = server.cli(&["submit", &file, "--value", &lake]);
    assert!(code == 1 && err.contains("walk-1 writes to") && err.contains("sinks.offline.delta.uri"), "{err}");

    let place = server.path("saved").display().to_string();
    let (code, out, err) = server.cli(&["stop", "walk-1", "--savepoint", &place]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("STOPPED") && out.contains(&place), "{out}");
    assert!(fs::read_dir(&place).expect("a savepoint").count() > 0);
    let (code, _, err) = server.cli(&["stop", "walk-1", "--savepoint", &place]);
    assert!(code != 0 && err.contains("holds a savepoint already"), "{err}");

    let (code, out, err) = server.cli(&["start", "walk-1"]);
    assert!(code == 0 && out.contains("RUNNING"), "{out}{err}");
    let pid = server.job("walk-1")["pid"].clone();
    let (code, out, err) = server.cli(&["restart", "walk-1"]);
    assert!(code == 0 && out.contains("RUNNING"), "{out}{err}");
    assert_ne!(server.job("walk-1")["pid"], pid);
    let (code, _, err) = server.cli(&["delete", "walk-1"]);
    assert!(code == 1 && err.contains("stop it first"), "{err}");
    let (code, out, err) = server.cli(&["delete", "walk-1", "--force"]);
    assert!(code == 0 && out == "walk-1 is deleted\n", "{out}{err}");
    let (code, _, err) = server.cli(&["job", "walk-1"]);
    assert!(code == 1 && err.contains("there is no job `walk-1`"), "{err}");
    assert!(server.processes().is_empty() && !server.data().join("jobs/walk-1").exists());
    let kept = fs::read_to_string(server.data().join("deleted/walk-1.ndjson")).expect("its history");
    assert!(kept.contains("\"what\":\"delete\""), "{kept}");

    // From the savepoint, under a new number: numbers are not used again.
    let (code, out, err) = server.cli(&["submit", &file, "--value", &lake, "--from", &place]);
    assert!(code == 0 && out.starts_with("walk-2  RUNNING"), "{out}{err}");
    assert_eq!(server.job("walk-2")["restarts"], 0);
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_a_mend() {
    let mut server = Server::started();
    let bad =
        endless("bad").replace("entity: [customer_id]", "entty: [customer_id]").replace("sum: amount", "sum: amont");
    let (status, problem) = server.ask("POST", "/api/v1/jobs", Some(&server.submission(&bad)));
    assert_eq!(status, 422, "{problem}");
    let faults = problem["faults"].as_array().expect("faults");
    let fault = |word: &str| {
        let found = faults.iter().find(|fault| fault["what"].as_str().is_some_and(|what| what.contains(word)));
        found.unwrap_or_else(|| panic!("no {word}: {problem}")).clone()
    };
    assert!(fault("entty")["line"] == 13 && fault("entty")["mend"].as_str().unwrap().contains("`entity`"), "{problem}");
    assert!(fault("amont")["column"].as_u64() > Some(0), "{problem}");
    assert_eq!(server.get("/api/v1/jobs"), json!([]));

    // The same from a terminal: all faults, and the exit code of a bad file.
    let path = server.path("bad.yaml");
    fs::write(&path, bad).expect("a file");
    let lake = format!("LAKE={}", server.path("lake").display());
    let (code, _, err) = server.cli(&["submit", &path.display().to_string(), "--value", &lake]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("bad.yaml:13:") && err.contains("did you mean"), "{err}");

    for (body, status) in [
        (json!({"file": endless("x")}), 422),
        (json!({"file": ""}), 422),
        (json!({"file": endless("x"), "values": {"LD_PRELOAD": "x"}}), 422),
        (json!({"file": endless("x"), "workers": 0}), 422),
        (json!({"file": endless("x"), "nonsense": 1}), 422),
        (json!([1, 2]), 422),
        (json!({"file": 1}), 422),
    ] {
        let (got, problem) = server.ask("POST", "/api/v1/jobs", Some(&body));
        assert_eq!(got, status, "{body}: {problem}");
        assert!(!problem["detail"].as_str().expect("a sentence").is_empty());
    }
    for path in ["/api/v1/jobs/none", "/api/v1/jobs/..%2f..", "/api/v1/jobs/none/status", "/api/v1/jobs/%ff"] {
        let (status, problem) = server.ask("GET", path, None);
        assert!(matches!(status, 400 | 404), "{path}: {status} {problem}");
    }
    // A valid file, without being run.
    let (status, told) = server.ask("POST", "/api/v1/check", Some(&server.submission(&endless("good"))));
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["name"], &told["summary"]["views"]), (&json!("good"), &json!(["customer"])));

    server.kill();
    let (code, _, err) = server.cli(&["jobs"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot be reached") && err.contains("tidemill serve"), "{err}");
}

#[test]
fn a_finite_job_finishes_with_all_of_its_rows() {
    let server = Server::started();
    let mut submission = server.submission(&finite("whole", "max"));
    submission["until_end"] = json!(true);
    let id = server.submit_as(submission);
    let job = server.until_state(&id, "FINISHED");
    assert_eq!((&job["restarts"], &job["desired"]), (&json!(0), &json!("stopped")), "{job}");
    assert_complete(&server, "whole");
    assert_eq!(server.deeds(&id), ["submit done", "finish done"]);
}

/// Asserts that the tables of a finite job are those of an undisturbed run, however it was cut.
pub fn assert_complete(server: &Server, name: &str) {
    let dir = server.path("reference");
    fs::create_dir_all(&dir).expect("a folder");
    reference(&dir, name, &finite(name, "max"));
    let uncut = |folder: &std::path::Path| {
        without(&table_in(&folder.join(name), "feature_sets/inputs", None), &["_tick", "_job_version"])
    };
    assert_same_rows(name, &uncut(&dir), &uncut(&server.path("lake")));
}

#[test]
fn secrets_are_kept_as_references_and_never_shown() {
    let server = Server::started().env("NOT_SHOWN", "x");
    let text = endless("quiet")
        .replace("  offline:", "  online: {redis: {url: \"redis://user:hunter2@127.0.0.1:1\"}}\n  offline:");
    let mut submission = server.submission(&text);
    submission["values"]["KAFKA_PASSWORD"] = json!("letmein");
    submission["values"]["OTHER"] = json!("${env:NOT_SHOWN}");
    submission["set"] = json!({"sinks.online.redis.url": "redis://:opensesame@127.0.0.1:1"});
    let id = server.submit_as(submission);
    let mut shown = String::new();
    for what in ["", "/file", "/plan", "/history", "/logs"] {
        shown.push_str(&server.ask("GET", &format!("/api/v1/jobs/{id}{what}"), None).1.to_string());
    }
    for secret in ["hunter2", "letmein", "opensesame"] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
    assert!(shown.contains("${env:NOT_SHOWN}") && shown.contains("***"), "{shown}");
    // Others on the machine do not get at the files.
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(server.data().join("jobs").join(&id)).expect("a folder").permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn a_savepoint_of_a_trigger_is_made_once() {
    let mut server = Server::started();
    let id = server.submit(&endless("saved"));
    server.until_state(&id, "RUNNING");
    server.until_progress(&id);
    let path = format!("/api/v1/jobs/{id}/savepoints");
    let done = |server: &Server, trigger: &str| {
        let path = format!("{path}/{trigger}");
        let until = std::time::Instant::now() + super::server::PATIENCE;
        loop {
            let savepoint = server.get(&path);
            if savepoint["state"] != "running" {
                assert_eq!(savepoint["state"], "done", "{savepoint}");
                return savepoint;
            }
            assert!(std::time::Instant::now() < until, "{savepoint}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    server.post(&path, json!({"trigger": "nightly"}));
    let first = done(&server, "nightly");
    server.until_progress(&id);
    assert_eq!(server.post(&path, json!({"trigger": "nightly"})), first, "the same, though the job has gone on");
    let (status, problem) = server.ask("POST", &path, Some(&json!({"trigger": "nightly", "place": "/elsewhere"})));
    assert_eq!(status, 409, "{problem}");
    let (status, _) = server.ask("POST", &path, Some(&json!({"trigger": "../x"})));
    assert_eq!(status, 422);
    // Asked for, and the server dies: done by the next.
    server.post(&path, json!({"trigger": "second"}));
    server.kill();
    server.start();
    let second = done(&server, "second");
    assert!(second["epoch"].as_u64() > first["epoch"].as_u64(), "{first} {second}");
    // Of a job that does not run.
    server.post(&format!("/api/v1/jobs/{id}/stop"), json!({}));
    server.until_state(&id, "STOPPED");
    let third = server.path("third").display().to_string();
    server.post(&path, json!({"trigger": "third", "place": third}));
    let third = done(&server, "third");
    assert!(third["epoch"].as_u64() > second["epoch"].as_u64(), "{second} {third}");
    assert_eq!(server.job(&id)["savepoints"], 3);
    // Without a name each is another one.
    let (one, two) = (server.post(&path, json!({})), server.post(&path, json!({})));
    assert_ne!(one["trigger"], two["trigger"]);
}

#[test]
fn a_drained_job_has_finished_and_one_that_stops_now_saves_nothing() {
    let server = Server::started();
    let id = server.submit(&endless("drained"));
    server.until_state(&id, "RUNNING");
    server.until_progress(&id);
    server.post(&format!("/api/v1/jobs/{id}/stop"), json!({"mode": "drain"}));
    let job = server.until(&id, "its end", |job| job["state"] == "FINISHED" || job["state"] == "STOPPED");
    assert_eq!(job["state"], "FINISHED", "{job}");
    let id = server.submit(&endless("now"));
    server.until_state(&id, "RUNNING");
    let (status, problem) =
        server.ask("POST", &format!("/api/v1/jobs/{id}/stop"), Some(&json!({"mode": "now", "savepoint": "/x"})));
    assert_eq!(status, 422, "{problem}");
    server.post(&format!("/api/v1/jobs/{id}/stop"), json!({"mode": "now"}));
    let job = server.until_state(&id, "STOPPED");
    assert!(job.get("error").is_none() && job.get("pid").is_none(), "{job}");
}

//! Jobs and servers that die: nobody else is disturbed, and what was wanted comes to be.

use serde_json::{Value, json};

use super::jobs::assert_complete;
use super::server::{Server, endless, finite};

#[test]
fn a_hundred_submissions_and_cancellations_disturb_nobody() {
    let server = Server::started();
    let mut bystander = server.submission(&finite("bystander", "1000"));
    bystander["until_end"] = json!(true);
    let bystander = server.submit_as(bystander);
    let file = endless("brief");
    for round in 0..100 {
        let id = server.submit(&file);
        assert_eq!(id, format!("brief-{}", round + 1));
        let path = format!("/api/v1/jobs/{id}");
        match round % 4 {
            // At whatever it is doing by then.
            0 => drop(server.post(&format!("{path}/stop"), json!({"mode": "now"}))),
            1 => drop(server.post(&format!("{path}/stop"), json!({}))),
            2 => {
                server.until(&id, "a process", |job| job["pid"].is_u64());
                drop(server.post(&format!("{path}/stop"), json!({"mode": "now"})));
            }
            _ => {
                let (status, job) = server.ask("DELETE", &format!("{path}?force=true"), None);
                assert_eq!(status, 200, "{job}");
                let until = std::time::Instant::now() + super::server::PATIENCE;
                while server.ask("GET", &path, None).0 != 404 {
                    assert!(std::time::Instant::now() < until, "{id} is not deleted");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                continue;
            }
        }
        server.until(&id, "its rest", |job| job["state"] == "STOPPED");
        let (status, job) = server.ask("DELETE", &path, None);
        assert_eq!(status, 200, "{job}");
    }
    let job = server.until_state(&bystander, "FINISHED");
    assert_eq!(job["restarts"], 0, "{job}");
    assert_complete(&server, "bystander");
    assert_eq!(server.get("/api/v1/jobs").as_array().map(Vec::len), Some(1));
    assert_eq!(server.processes(), [], "all processes are gone");
}

#[test]
fn a_job_that_panics_and_one_that_never_stops_disturb_nobody() {
    let server = Server::new()
        .env("TIDEMILL_FAILPOINTS_OF_panics", "checkpoint.staged=panic")
        .env("TIDEMILL_FAILPOINTS_OF_frozen", "checkpoint.published=stop")
        .arg("--stop-timeout=2s")
        .arg("--deaths=3");
    let mut server = server;
    server.start();
    let mut bystander = server.submission(&finite("bystander", "2000"));
    bystander["until_end"] = json!(true);
    let bystander = server.submit_as(bystander);
    let (panics, frozen) = (server.submit(&endless("panics")), server.submit(&endless("frozen")));

    let job = server.until_state(&panics, "FAILED");
    let error = job["error"].as_str().expect("a reason");
    assert!(error.contains("died 3 times") && error.contains("failpoint checkpoint.staged"), "{error}");
    assert_eq!(job["restarts"], 3, "{job}");
    let deeds = server.deeds(&panics);
    assert!(deeds[1].starts_with("die restarting in") && deeds.last().unwrap() == "fail failed", "{deeds:?}");
    // It stays so until somebody starts it, and then dies again.
    server.post(&format!("/api/v1/jobs/{panics}/start"), json!({}));
    server.until(&panics, "another death", |job| job["restarts"].as_u64() > Some(0));
    server.post(&format!("/api/v1/jobs/{panics}/stop"), json!({}));
    server.until_state(&panics, "STOPPED");

    // A frozen process does not answer; the server does, at once, that it does not.
    let pid = server.job(&frozen)["pid"].as_u64().expect("a process");
    let until = std::time::Instant::now() + super::server::PATIENCE;
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T ")) {
        assert!(std::time::Instant::now() < until, "it does not freeze");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (status, problem) = server.ask("GET", &format!("/api/v1/jobs/{frozen}/status"), None);
    assert_eq!(status, 503, "{problem}");
    server.post(&format!("/api/v1/jobs/{frozen}/stop"), json!({}));
    let job = server.until_state(&frozen, "STOPPED");
    assert!(job["error"].as_str().is_some_and(|error| error.contains("did not stop in time")), "{job}");

    let job = server.until_state(&bystander, "FINISHED");
    assert_eq!(job["restarts"], 0, "{job}");
    assert_complete(&server, "bystander");
}

#[test]
fn a_job_that_is_killed_is_started_again_and_loses_nothing() {
    let server = Server::started();
    let mut submission = server.submission(&finite("killed", "2500"));
    submission["until_end"] = json!(true);
    let id = server.submit_as(submission);
    for _ in 0..2 {
        server.until_state(&id, "RUNNING");
        server.until_progress(&id);
        let before = server.job(&id);
        let pid = before["pid"].as_i64().expect("a process");
        // SAFETY: a signal to a process that this test's server has started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        server.until(&id, "another process", |job| job["pid"].is_i64() && job["pid"] != before["pid"]);
    }
    let job = server.until_state(&id, "FINISHED");
    assert_eq!(job["restarts"], 2, "{job}");
    assert_complete(&server, "killed");
}

#[test]
fn a_file_that_cannot_run_fails_with_its_fault() {
    let server = Server::started();
    // Right when it is submitted, and wrong when it is run.
    let (schema, data) = (server.path("t.avsc"), server.path("t.ndjson"));
    let fields = r#"{"type": "record", "name": "t", "fields": [{"name": "id", "type": "long"}, {"name": "ts", "type": "long"}]}"#;
    std::fs::write(&schema, fields).expect("a file");
    std::fs::write(&data, "{\"id\": 1, \"ts\": 1700000000}\n").expect("a file");
    let text = format!(
        "job: gone\nversion: 1\nsources:\n  tx:\n    file: {{path: {}, format: ndjson}}\n    schema: {}\n    id: id\n    event_time: to_timestamp_seconds(ts)\nfeatures:\n  v:\n    from: tx\n    entity: [id]\n    aggregates: {{n: {{count: \"*\", over: 1d}}}}\nfeature_sets: {{s: {{on: tx, take: [v.*]}}}}\nsinks: {{offline: {{delta: {{uri: \"${{LAKE}}/gone\"}}}}}}\n",
        data.display(),
        schema.display()
    );
    let id = server.submit(&text);
    server.until_state(&id, "RUNNING");
    server.post(&format!("/api/v1/jobs/{id}/stop"), json!({}));
    server.until_state(&id, "STOPPED");
    std::fs::remove_file(&schema).expect("removed");
    server.post(&format!("/api/v1/jobs/{id}/start"), json!({}));
    let job = server.until_state(&id, "FAILED");
    let error = job["error"].as_str().expect("a reason");
    assert!(error.contains("exit code") && error.contains("t.avsc"), "{error}");
}

#[test]
fn a_server_that_is_killed_finds_its_jobs_and_one_that_ends_leaves_them() {
    let mut server = Server::started();
    let (one, two) = (server.submit(&endless("one")), server.submit(&endless("two")));
    server.until_state(&one, "RUNNING");
    server.until_state(&two, "RUNNING");
    let before = [server.job(&one)["pid"].clone(), server.job(&two)["pid"].clone()];
    server.kill();
    // One dies while nobody looks.
    // SAFETY: a signal to a process that this test's server has started.
    unsafe { libc::kill(before[1].as_i64().expect("a process") as i32, libc::SIGKILL) };
    server.start();
    let job = server.until_state(&one, "RUNNING");
    assert_eq!((&job["pid"], &job["restarts"]), (&before[0], &json!(0)), "the same process: {job}");
    let job = server.until(&two, "another process", |job| job["pid"].is_i64() && job["state"] == "RUNNING");
    assert_ne!(job["pid"], before[1]);
    assert!(server.deeds(&one).contains(&"adopt done".to_owned()));
    server.until_progress(&one);

    // Nobody else gets at the directory meanwhile.
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"));
    other.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(server.data());
    let said = other.output().expect("it starts");
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("another server uses"));

    let pid = server.job(&one)["pid"].clone();
    server.terminate();
    assert_eq!(server.processes().len(), 2, "jobs outlive the server");
    server.start();
    assert_eq!(server.until_state(&one, "RUNNING")["pid"], pid);
    // An adopted process is stopped as well as one of its own.
    server.post(&format!("/api/v1/jobs/{one}/stop"), json!({}));
    let job = server.until_state(&one, "STOPPED");
    assert!(job.get("error").is_none(), "{job}");
    assert_eq!(server.processes().len(), 1);
}

/// A server is killed at each step of submitting, starting, stopping and deleting, and the next one brings the rest about.
#[test]
fn whichever_step_a_server_dies_at_the_next_one_goes_on() {
    for failpoint in ["control.submit", "control.submitted", "control.start", "control.started"] {
        let mut server = Server::new();
        assert!(server.start_with(&format!("{failpoint}=kill")));
        // The answer may be cut off.
        let _ = server.try_ask("POST", "/api/v1/jobs", Some(&server.submission(&endless("step"))));
        server.wait_killed();
        server.start();
        if failpoint == "control.submit" {
            assert_eq!(server.get("/api/v1/jobs"), json!([]), "it was not taken in");
            assert!(!server.data().join("jobs/step-1").exists());
            continue;
        }
        server.until_state("step-1", "RUNNING");
        assert_eq!(server.processes().len(), 1, "{failpoint}: one process, not two");
        if failpoint == "control.started" {
            assert!(server.deeds("step-1").contains(&"adopt done".to_owned()), "{:?}", server.deeds("step-1"));
        }
    }
    let stop = ("/stop", json!({}));
    let save = ("/stop", json!({"savepoint": "PLACE"}));
    let delete = ("?force=true", Value::Null);
    for (failpoint, (path, body)) in [
        ("control.stop", stop.clone()),
        ("control.dead", stop.clone()),
        ("control.stopped", stop),
        ("control.saved", save),
        ("control.delete", delete),
    ] {
        let mut server = Server::new();
        assert!(server.start_with(&format!("{failpoint}=kill")));
        let id = server.submit(&endless("step"));
        server.until_state(&id, "RUNNING");
        server.until_progress(&id);
        let mut body = body;
        if body.get("savepoint").is_some() {
            body["savepoint"] = json!(server.path("saved").display().to_string());
        }
        let path = format!("/api/v1/jobs/{id}{path}");
        let _ = match body.is_null() {
            true => server.try_ask("DELETE", &path, None),
            false => server.try_ask("POST", &path, Some(&body)),
        };
        server.wait_killed();
        server.start();
        if failpoint == "control.delete" {
            let until = std::time::Instant::now() + super::server::PATIENCE;
            while server.get("/api/v1/jobs") != json!([]) {
                assert!(std::time::Instant::now() < until, "{failpoint}");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert_eq!(server.processes(), []);
            continue;
        }
        let job = server.until_state(&id, "STOPPED");
        assert!(job.get("error").is_none(), "{failpoint}: {job}");
        assert_eq!(server.processes(), [], "{failpoint}");
        if failpoint == "control.saved" {
            let savepoints = server.get(&format!("/api/v1/jobs/{id}/savepoints"));
            assert_eq!(savepoints[0]["state"], "done", "{savepoints}");
            assert_eq!(savepoints.as_array().map(Vec::len), Some(1), "{savepoints}");
        }
    }
}

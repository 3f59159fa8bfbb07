//! Jobs that go on with another file.

use serde_json::{Value, json};

use super::jobs::assert_complete;
use super::server::{Server, endless, finite};

/// The file with another view.
fn with_daily(text: &str) -> String {
    let view = "  daily:\n    from: tx\n    entity: [customer_id]\n    aggregates: {nb: {count: \"*\", over: 1d}}\nfeature_sets:\n  second: {on: tx, take: [daily.*]}\n";
    text.replace("feature_sets:\n", view).replace("version: 1", "version: 2")
}

fn upgrade(server: &Server, id: &str, text: &str, query: &str) -> (u16, Value) {
    server.ask("PUT", &format!("/api/v1/jobs/{id}/file{query}"), Some(&json!({"file": text})))
}

#[test]
fn an_upgrade_keeps_what_was_counted() {
    let server = Server::started();
    let text = finite("counts", "2000");
    let mut submission = server.submission(&text);
    submission["until_end"] = json!(true);
    let id = server.submit_as(submission);
    server.until_state(&id, "RUNNING");
    server.until_progress(&id);
    let new = with_daily(&text);

    let (status, told) = upgrade(&server, &id, &new, "?dry_run=true");
    assert_eq!(status, 200, "{told}");
    let list = |name: &str| told["changes"][name].to_string();
    assert!(list("kept").contains("customer") && list("gained").contains("daily"), "{told}");
    assert_eq!((told["changes"]["lost"].clone(), told["needs_allow_drop"].clone()), (json!([]), json!(false)));
    assert!(told["plan"].as_array().expect("lines").iter().any(|line| line.as_str().unwrap().contains("+")), "{told}");
    assert_eq!(server.job(&id)["version"], 1, "nothing was done");

    let path = server.path("new.yaml");
    std::fs::write(&path, &new).expect("a file");
    let (code, out, err) = server.cli(&["upgrade", &id, &path.display().to_string()]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("keeps the state of: ") && out.contains("version 2"), "{out}");
    let job = server.until(&id, "the new file", |job| job["version"] == 2 && job.get("doing").is_none());
    assert_eq!((&job["restarts"], job.get("error")), (&json!(0), None), "{job}");
    let savepoints = server.get(&format!("/api/v1/jobs/{id}/savepoints"));
    assert_eq!((&savepoints[0]["trigger"], &savepoints[0]["state"]), (&json!("upgrade-2"), &json!("done")));
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/file"))["versions"], json!([1, 2]));
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/file?version=1"))["file"], json!(text));

    server.until_state(&id, "FINISHED");
    // Each count of seven days spans the upgrade: all rows are those of a run that was never stopped.
    assert_complete(&server, "counts");
    let rows = crate::support::table_in(&server.path("lake/counts"), "feature_sets/second", None).num_rows();
    assert!(rows > 0);
    let deeds = server.deeds(&id);
    for deed in ["upgrade asked", "stop done", "savepoint done", "upgrade done", "finish done"] {
        assert!(deeds.iter().any(|one| one == deed), "no {deed}: {deeds:?}");
    }
}

#[test]
fn an_upgrade_that_would_lose_state_is_refused_and_one_that_does_not_run_goes_back() {
    let server = Server::started();
    let text = with_daily(&endless("fickle"));
    let id = server.submit(&text);
    server.until_state(&id, "RUNNING");
    server.until_progress(&id);
    let pid = server.job(&id)["pid"].clone();

    // Another meaning, and a view less.
    let changed = text.replace("over: 1d}}\nfeature_sets", "over: 2d}}\nfeature_sets");
    assert_ne!(changed, text);
    let (status, problem) = upgrade(&server, &id, &changed, "");
    assert_eq!(status, 409, "{problem}");
    let lost = &problem["changes"]["lost"][0];
    assert!(lost["operator"].as_str().is_some_and(|name| name.contains("daily")), "{problem}");
    assert_eq!(lost["changed"], true, "{problem}");
    let (_, told) = upgrade(&server, &id, &endless("fickle"), "?dry_run=true");
    assert_eq!((&told["needs_allow_drop"], &told["changes"]["lost"][0]["changed"]), (&json!(true), &json!(false)));
    let path = server.path("less.yaml");
    std::fs::write(&path, endless("fickle")).expect("a file");
    let (code, out, err) = server.cli(&["upgrade", &id, &path.display().to_string(), "--dry-run"]);
    assert!(code == 1 && out.contains("loses the state of") && err.contains("--allow-drop"), "{out}{err}");
    let (status, _) = upgrade(&server, &id, &text.replace("job: fickle", "job: other"), "");
    assert_eq!(status, 422);
    let (status, problem) = upgrade(&server, &id, &text.replace("entity:", "entty:"), "");
    assert!(status == 422 && problem["faults"][0]["mend"].as_str().unwrap().contains("entity"), "{problem}");
    assert_eq!((&server.job(&id)["pid"], &server.job(&id)["version"]), (&pid, &json!(1)), "it was left alone");

    // Right as a file, and not to be run: its tables cannot be written.
    let unwritable = text.replace("${LAKE}/fickle", "/proc/nowhere/fickle");
    let (status, told) = upgrade(&server, &id, &unwritable, "");
    assert_eq!(status, 202, "{told}");
    let job = server.until(&id, "the old file", |job| {
        job["version"] == 1 && job.get("doing").is_none() && job["state"] == "RUNNING" && job["pid"] != pid
    });
    let error = job["error"].as_str().expect("a reason");
    assert!(error.contains("the upgrade to version 2 failed") && error.contains("/proc/nowhere"), "{error}");
    server.until_progress(&id);
    assert!(server.deeds(&id).contains(&"upgrade failed".to_owned()));

    // What is given up is dropped.
    let body = json!({"file": endless("fickle"), "allow_drop": true, "workers": 2});
    let (status, told) = server.ask("PUT", &format!("/api/v1/jobs/{id}/file"), Some(&body));
    assert_eq!(status, 202, "{told}");
    let job = server.until(&id, "the new file", |job| job["version"] == 3 && job.get("doing").is_none());
    assert_eq!((&job["workers"], job.get("error")), (&json!(2), None), "{job}");
    server.until_progress(&id);
}

#[test]
fn an_upgrade_goes_on_though_the_server_dies() {
    for failpoint in ["control.upgrading", "control.stop", "control.saved", "control.upgrade", "control.upgraded"] {
        let mut server = Server::new();
        assert!(server.start_with(&format!("{failpoint}=kill")));
        let id = server.submit(&endless("moved"));
        server.until_state(&id, "RUNNING");
        server.until_progress(&id);
        let new = json!({"file": with_daily(&endless("moved"))});
        let _ = server.try_ask("PUT", &format!("/api/v1/jobs/{id}/file"), Some(&new));
        server.wait_killed();
        server.start();
        let job = server.until(&id, "the new file", |job| job["version"] == 2 && job.get("doing").is_none());
        assert_eq!((&job["state"], job.get("error")), (&json!("RUNNING"), None), "{failpoint}: {job}");
        assert_eq!(server.processes().len(), 1, "{failpoint}");
        let savepoints = server.get(&format!("/api/v1/jobs/{id}/savepoints"));
        let savepoints = savepoints.as_array().expect("a list");
        assert!(savepoints.len() == 1 && savepoints[0]["state"] == "done", "{failpoint}: {savepoints:?}");
    }
}

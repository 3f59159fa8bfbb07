//! Jobs that are watched and steered by the socket in their state directory: what they tell is what their tables and their
//! summary say, they end as they are told to, and a savepoint that is taken while they run is one, whatever dies meanwhile.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;
use tidemill::engine::status::{
    JobState, JobStatus, LetterStatus, NodeKind, NodeStatus, SavepointState, SavepointStatus, find_control, savepoint,
};

use crate::kafka_source;
use crate::savepoint::{Ended, Place, finished, on_kafka, spawn};
use crate::support::kafka::{Broker, topic};
use crate::support::root;
use crate::support::rows::{assert_same_rows, without};

const PATIENCE: Duration = Duration::from_secs(90);
const TABLES: [&str; 5] =
    ["features/customer", "features/terminal", "feature_sets/fraud_inputs", "predictions/fraud", "labels/fraud"];

/// A running job, by its socket. Killed when it is dropped.
struct Job {
    child: Option<Child>,
    socket: String,
}

impl Job {
    /// Starts a job with its state in `state`, and waits until it can be reached.
    fn start(command: Command, state: &Path) -> Job {
        let child = spawn(command);
        let id = child.id();
        let mut job = Job { child: Some(child), socket: String::new() };
        let begin = Instant::now();
        loop {
            if let Some(told) = find_control(state).filter(|told| told.pid == id) {
                job.socket = told.socket;
                return job;
            }
            let gone = job.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(gone.is_none(), "it ended: {}", job.finish().said);
            assert!(begin.elapsed() < PATIENCE, "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One request; nothing where nobody answers any more.
    fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_ask(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask("POST", path, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    fn status(&self) -> JobStatus {
        self.get("/v1/status")
    }

    /// Waits for a status.
    fn wait_for(&self, what: &str, is_there: impl Fn(&JobStatus) -> bool) -> JobStatus {
        let begin = Instant::now();
        loop {
            let status = self.status();
            if is_there(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what}: {status:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&self, mode: &str) {
        assert_eq!(self.post("/v1/stop", &json!({"mode": mode})), (202, json!({"mode": mode})));
    }

    /// Asks for a savepoint.
    fn save(&self, trigger: &str, place: &Path) -> (u16, Value) {
        self.post("/v1/savepoints", &json!({"trigger": trigger, "place": place}))
    }

    /// Waits until a savepoint is on its way no more.
    fn saved(&self, trigger: &str) -> SavepointStatus {
        let begin = Instant::now();
        loop {
            let told: SavepointStatus = self.get(&format!("/v1/savepoints/{trigger}"));
            if told.state != SavepointState::Running {
                return told;
            }
            assert!(begin.elapsed() < PATIENCE, "{told:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn finish(mut self) -> Ended {
        finished(self.child.take().expect("it is finished once"))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has ended already where all went well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A day passes in a second; small ticks, and an epoch whenever the one before is through.
fn paced() -> Place {
    let mut place = Place::new();
    place.reset("sources.tx.generator.rate=4000");
    place
}

/// A job that reads on until it is stopped.
fn live(place: &Place) -> Command {
    place.command("run", &["--json", "--state", &place.text("state"), "--workers", "2"])
}

fn node<'a>(status: &'a JobStatus, id: &str) -> &'a NodeStatus {
    let found = status.graph.nodes.iter().find(|node| node.id == id);
    found.unwrap_or_else(|| panic!("no {id} among {:?}", status.graph.nodes.iter().map(|n| &n.id).collect::<Vec<_>>()))
}

#[test]
fn what_a_job_tells_is_what_its_summary_and_its_tables_say() {
    let place = Place::new();
    let job = Job::start(live(&place), &place.path("state"));
    let mode = std::fs::metadata(&job.socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the owner alone");
    let told = job.wait_for("end of the input", |status| {
        status.input_ended && status.ticks_in_flight == 0 && status.epochs_outstanding == 0
    });
    assert_eq!((told.state, told.job.as_str(), told.workers), (JobState::Running, "card_fraud", 2));
    assert_eq!(job.ask("GET", "/ready", "").0, 200);
    let metrics = job.ask("GET", "/metrics", "");
    assert!(metrics.1.contains(&format!("tidemill_rows_read_total{{source=\"tx\"}} {}", told.sources[0].read)));
    let letters: Vec<LetterStatus> = job.get("/v1/letters?limit=3");
    assert!(letters.is_empty() && told.dead_letters == 0);
    // Asking for what there is not.
    assert_eq!(job.ask("GET", "/v1/nothing", "").0, 404);
    assert_eq!(job.ask("DELETE", "/v1/status", "").0, 405);
    assert_eq!(job.ask("GET", "/v1/letters?limit=many", "").0, 400);
    assert_eq!(job.ask("POST", "/v1/stop", "{").0, 400);
    assert_eq!(job.ask("POST", "/v1/stop", r#"{"mode":"gently"}"#).0, 422);
    let (status, problem) = job.post("/v1/stop", &json!({"mode": "now", "soon": true}));
    assert_eq!((status, &problem["type"]), (422, &json!("unprocessable_entity")), "{problem}");
    job.stop("checkpoint");
    let ended = job.finish().well();
    assert!(find_control(&place.path("state")).is_none(), "it is removed at the end");
    let summary: Value = serde_json::from_str(&ended.printed).expect("a summary");

    for (field, value) in [
        ("rows_read", told.rows_read),
        ("rows_scored", told.rows_scored),
        ("ticks", told.ticks),
        ("keys", told.keys),
        ("state_bytes", told.state_bytes),
        ("dead_letters", told.dead_letters),
    ] {
        assert_eq!(summary[field], json!(value), "{field}");
    }
    for (source, summary) in told.sources.iter().zip(summary["sources"].as_array().expect("sources")) {
        assert_eq!(
            json!([source.name, source.read, source.accepted]),
            json!([summary["name"], summary["read"], summary["accepted"]])
        );
        assert_eq!(source.partitions.iter().map(|p| p.next_offset).sum::<u64>(), source.read, "{source:?}");
        assert!(source.partitions.iter().all(|partition| partition.ended && !partition.idle && !partition.paused));
    }
    let clock = told.clock.as_deref().expect("a clock");
    // The last tick releases what was read ahead: how far the job had come is the clock before it.
    assert!(summary["clock"].as_str().is_some_and(|end| clock <= end), "{clock}");

    // The graph: everything that was sent was taken, and is in the tables.
    let tables = TABLES.map(|table| (table, place.table(table).num_rows() as u64));
    for (table, rows) in tables {
        let sink = node(&told, &format!("sink:table/{table}"));
        assert_eq!((sink.rows_in, sink.rows_out, sink.queued), (rows, rows, 0), "{table}");
    }
    let (tx, labels) = (&told.sources[0], &told.sources[1]);
    let flows = |id: &str| (node(&told, id).rows_in, node(&told, id).rows_out);
    assert_eq!(flows("source:tx"), (tx.read, tx.accepted));
    assert_eq!(flows("source:fraud_labels"), (labels.read, labels.accepted));
    assert_eq!(flows("join:labelled_tx").0, tx.accepted + labels.accepted);
    assert_eq!(flows("view:customer"), (tx.accepted, tx.accepted));
    assert_eq!(flows("view:terminal").0, tx.accepted + flows("join:labelled_tx").1);
    assert_eq!(flows("set:fraud_inputs"), (tx.accepted, tx.accepted));
    assert_eq!(flows("model:fraud"), (tx.accepted, told.models[0].scored));
    assert_eq!(flows("monitor:fraud").0, tx.accepted + labels.accepted);
    let statistics: u64 = ["accuracy", "drift", "quality", "operation"]
        .map(|kind| flows(&format!("sink:table/stats/{kind}")).1)
        .iter()
        .sum();
    assert!(statistics > 0);
    assert_eq!(flows("monitor:fraud").1, statistics);
    assert!(flows("sink:online").0 > 0);
    assert_eq!(flows("sink:online").0, flows("sink:online").1);
    assert!(told.graph.nodes.iter().all(|node| node.queued == 0), "{:#?}", told.graph.nodes);
    let views: Vec<&NodeStatus> = told.graph.nodes.iter().filter(|node| node.kind == NodeKind::View).collect();
    assert_eq!(views.iter().filter_map(|view| view.keys).sum::<u64>(), told.keys);
    assert_eq!(views.iter().filter_map(|view| view.state_bytes).sum::<u64>(), told.state_bytes);
    let edges: Vec<String> = told.graph.edges.iter().map(|edge| format!("{} > {}", edge.from, edge.to)).collect();
    for edge in [
        "source:tx > view:terminal",
        "source:tx > join:labelled_tx",
        "source:fraud_labels > join:labelled_tx",
        "join:labelled_tx > view:terminal",
        "view:terminal > view:customer",
        "view:customer > set:fraud_inputs",
        "set:fraud_inputs > model:fraud",
        "model:fraud > monitor:fraud",
        "source:fraud_labels > monitor:fraud",
        "model:fraud > sink:table/predictions/fraud",
        "view:customer > sink:table/features/customer",
        "monitor:fraud > sink:table/stats/accuracy",
        "view:customer > sink:online",
        "source:tx > sink:table/dead_letters",
    ] {
        assert!(edges.iter().any(|there| there == edge), "no {edge} among {edges:#?}");
    }
    let known = |id: &String| told.graph.nodes.iter().any(|node| node.id == *id);
    assert!(told.graph.edges.iter().all(|edge| known(&edge.from) && known(&edge.to)), "{edges:#?}");

    // Checkpoints, as the summary has them.
    let recent = summary["checkpoints"]["recent"].as_array().expect("checkpoints");
    assert!(!recent.is_empty() && told.checkpoints.len() >= recent.len().min(64));
    for (one, told) in recent.iter().rev().zip(&told.checkpoints) {
        assert_eq!(*one, json!({"epoch": told.epoch, "tick": told.tick, "bytes": told.bytes, "whole": told.whole}));
        assert!(told.published && told.took_ms.is_some_and(|took| took > 0.0) && told.bytes_total >= told.bytes);
        assert_eq!(told.generation, 0, "the first claim");
    }
    let model = &told.models[0];
    assert_eq!((model.scored, model.unscored), (told.rows_scored, 0));
    assert_eq!(json!(model.routes), json!([{"version": "champion", "role": "champion", "share": 1.0}]));
}

#[test]
fn a_running_job_tells_how_fast_it_is_and_what_it_went_on_from() {
    let place = paced();
    // An embedded store is open once, and would keep the third process out.
    let text = std::fs::read_to_string(place.path("job.yaml")).expect("a job");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("online:"));
    std::fs::write(place.path("job.yaml"), lines.collect::<Vec<_>>().join("\n")).expect("a file");
    let job = Job::start(place.job("state", 1, &[]), &place.path("state"));
    let told = job.wait_for("rows", |status| status.rows_scored > 2_000 && status.checkpoints.len() > 2);
    assert_eq!((told.state, told.generation, told.stopping), (JobState::Running, 0, None));
    assert!(told.sources[0].rate > 100.0 && node(&told, "view:customer").rate_in > 100.0, "{told:#?}");
    assert!(told.graph.nodes.iter().all(|node| (0.0..=1.0).contains(&node.busy)), "{told:#?}");
    assert!(node(&told, "view:customer").busy > 0.0 && node(&told, "source:tx").busy > 0.0, "{told:#?}");
    assert!((0.0..=1.0).contains(&told.backpressure), "{}", told.backpressure);
    let latency = told.models[0].latency_ms.expect("rows were scored");
    assert!(latency.p50 > 0.0 && latency.p50 <= latency.p90 && latency.p90 <= latency.p99, "{latency:?}");
    // Rows that wait for the watermark are where they wait.
    let waits = &told.sources[0].partitions[0];
    assert!(waits.watermark.is_some() && !waits.ended, "{waits:?}");
    drop(job);
    assert!(find_control(&place.path("state")).is_some(), "a process that is killed cleans nothing up");
    let epochs: Vec<u64> = told.checkpoints.iter().map(|one| one.epoch).collect();

    // The next one takes its place, and tells of the checkpoints whose manifests are kept.
    let job = Job::start(place.job("state", 1, &[]), &place.path("state"));
    let again = job.wait_for("history", |status| status.checkpoints.iter().any(|one| one.took_ms.is_none()));
    assert!(again.generation > told.generation && again.fingerprint == told.fingerprint);
    let old: Vec<_> = again.checkpoints.iter().filter(|one| one.generation == told.generation).collect();
    assert!(old.iter().all(|one| one.published && one.bytes > 0));
    assert!(old.iter().any(|one| epochs.contains(&one.epoch)) || old.iter().all(|one| one.epoch > epochs[0]));
    assert!(again.checkpoints.is_sorted_by(|a, b| a.epoch > b.epoch), "{:?}", again.checkpoints);
    // A third takes the job over while it runs.
    let third = Job::start(place.job("state", 1, &[]), &place.path("state"));
    assert_ne!(third.socket, job.socket);
    job.finish().refused(&["taken over"]);
    let told = find_control(&place.path("state")).expect("it is the third's");
    assert_eq!(told.socket, third.socket);
    assert_eq!(third.status().generation, told.generation);
    third.finish().well();
    assert!(find_control(&place.path("state")).is_none());
    place.assert_same();
}

#[test]
fn a_job_ends_as_it_is_told() {
    // At once: nothing is saved, and nothing is lost.
    let place = paced();
    let job = Job::start(place.job("state", 2, &[]), &place.path("state"));
    job.wait_for("rows", |status| status.rows_scored > 1_000 && !status.checkpoints.is_empty());
    job.stop("now");
    let ended = job.finish().well();
    let summary: Value = serde_json::from_str(&ended.printed).expect("a summary");
    assert_eq!(summary["stopped"], json!("now"));
    assert!(!newest_manifest(&place).contains("\"last\": true"));
    // With a checkpoint.
    let job = Job::start(place.job("state", 1, &[]), &place.path("state"));
    job.wait_for("rows", |status| status.rows_scored > 1_000);
    job.stop("checkpoint");
    let ended = job.finish().well();
    let summary: Value = serde_json::from_str(&ended.printed).expect("a summary");
    assert_eq!(summary["stopped"], json!("checkpoint"));
    assert!(newest_manifest(&place).contains("\"last\": true"));
    place.run(3, &[]).well();
    place.assert_same();
}

fn newest_manifest(place: &Place) -> String {
    let mut files: Vec<_> =
        std::fs::read_dir(place.path("state/epochs")).expect("a log").flatten().map(|e| e.path()).collect();
    files.sort();
    std::fs::read_to_string(files.last().expect("entries")).expect("an entry")
}

#[test]
fn a_job_that_is_drained_is_finished() {
    // Rows wait for two days of event time, which is longer than the job runs.
    let place = paced().set("sources.tx.disorder=2d").set("sources.fraud_labels.disorder=2d");
    let job = Job::start(live(&place), &place.path("state"));
    let told = job.wait_for("rows that wait", |status| status.sources.iter().any(|source| source.accepted > 4_000));
    let waiting = node(&told, "view:terminal");
    assert!(waiting.queued > 1_000 && waiting.rows_in + waiting.queued <= told.sources[0].accepted, "{waiting:?}");
    let saved = place.path("before");
    assert_eq!(job.save("before", &saved).0, 202);
    assert_eq!(job.saved("before").state, SavepointState::Done);
    job.stop("drain");
    let ended = job.finish().well();
    let summary: Value = serde_json::from_str(&ended.printed).expect("a summary");
    assert_eq!(summary["stopped"], json!("drain"));
    let accepted = summary["sources"][0]["accepted"].as_u64().expect("a count");
    let rows = || TABLES[..4].iter().map(|table| place.table(table).num_rows() as u64).collect::<Vec<_>>();
    let before = rows();
    assert_eq!((before[0], before[2], before[3]), (accepted, accepted, accepted), "what waited has come out");
    // Another start publishes what may be lacking, says what is the matter, and ends, though nothing tells it to.
    let ended = finished(spawn(live(&place))).well();
    let again = ended.says(&["the job was drained with tick", "is finished"]);
    let again: Value = serde_json::from_str(&again.printed).expect("a summary");
    assert_eq!((again["ticks"].clone(), rows()), (json!(0), before));
    // Nor does a new life begin with it; with what was saved before it does.
    let (state, saved) = (place.text("state"), saved.display().to_string());
    place.run_in("new", 1, &["--from", &state]).refused(&["drained", "take a savepoint before"]);
    assert!(!place.path("new/epochs").exists(), "nothing was claimed");
    place.run_in("newer", 1, &["--from", &saved]).well();
}

/// The rows of a table that came with ticks behind one, without their ticks.
fn behind(table: &RecordBatch, tick: i64) -> RecordBatch {
    let ticks = cast(table.column_by_name("_tick").expect("ticks"), &DataType::Int64).expect("numbers");
    let later: BooleanArray = ticks.as_primitive::<Int64Type>().iter().map(|at| at.map(|at| at > tick)).collect();
    without(&filter_record_batch(table, &later).expect("a filter"), &["_tick"])
}

/// The last tick of a savepoint.
fn tick_of(saved: &Path) -> i64 {
    let text = std::fs::read_to_string(saved.join("savepoint.json")).expect("a savepoint");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["entry"]["epoch"]["tick"].as_i64().expect("a tick")
}

/// Goes on from a savepoint with new tables: they hold what the old ones hold behind it, bit for bit.
fn assert_goes_on(place: &Place, saved: &Path, workers: usize) {
    let new = TempDir::new().expect("a folder");
    let mut command = place.job("state of its own", workers, &["--from", &saved.display().to_string()]);
    command.env("LAKE", new.path().join("lake")).env_remove(FAILPOINTS);
    finished(spawn(command)).well();
    for table in TABLES {
        let expected = behind(&place.table(table), tick_of(saved));
        let found = crate::support::table_in(&new.path().join("lake/card_fraud"), table, None);
        assert!(expected.num_rows() > 0, "{table}: nothing is behind the savepoint");
        assert_same_rows(table, &expected, &without(&found, &["_tick"]));
    }
    std::fs::remove_dir_all(place.path("state of its own")).expect("it was there");
}

#[test]
fn a_savepoint_of_a_running_job_is_one_and_disturbs_nothing() {
    let place = paced().set("checkpoint.keep=1");
    let job = Job::start(place.job("state", 2, &[]), &place.path("state"));
    let before = job.wait_for("rows", |status| status.rows_scored > 1_000);
    let (first, second) = (place.path("first"), place.path("second"));
    let (status, told) = job.save("nightly-1", &first);
    assert_eq!((status, &told["trigger"], &told["place"]), (202, &json!("nightly-1"), &json!(first)));
    // Asked again it is the same; the trigger is taken for anything else, and so is the place.
    assert_eq!(job.save("nightly-1", &first).0, 202);
    assert_eq!(job.save("nightly-1", &second).0, 409);
    assert_eq!(job.save("../nightly", &second).0, 422);
    let done = job.saved("nightly-1");
    assert_eq!((done.state, done.error), (SavepointState::Done, None));
    assert!(done.epoch.is_some_and(|epoch| epoch >= before.checkpoints.first().map_or(0, |one| one.epoch)));
    assert_eq!(job.save("nightly-2", &first).0, 422, "there is one already");
    assert_eq!(job.ask("GET", "/v1/savepoints/none", "").0, 404);
    // It goes on meanwhile.
    job.wait_for("more rows", |status| status.rows_scored > before.rows_scored + 500);
    assert_eq!(job.save("nightly-3", &second).0, 202);
    let told: SavepointStatus = job.saved("nightly-3");
    assert!(told.epoch > done.epoch, "{told:?}");
    let all: Vec<SavepointStatus> = job.get("/v1/savepoints");
    assert_eq!(all.iter().map(|one| one.trigger.as_str()).collect::<Vec<_>>(), ["nightly-3", "nightly-1"]);
    job.finish().well();
    place.assert_same();
    assert_eq!(savepoint(&place.path("state"), "nightly-3").expect("it is read"), Some(told), "whether it runs or not");
    assert_goes_on(&place, &first, 3);
    assert_goes_on(&place, &second, 1);
}

#[test]
fn a_savepoint_whose_process_dies_is_taken_by_the_next() {
    // Where it is written down, its epoch is there, its parts are copied, it is complete; and where another epoch dies meanwhile.
    let deaths = [
        "savepoint.recorded=kill",
        "savepoint.copying=kill",
        "savepoint.parts=kill",
        "savepoint.copied=kill",
        "checkpoint.staged=kill@9",
        "checkpoint.committed=kill@9",
    ];
    for (number, death) in deaths.into_iter().enumerate() {
        let place = paced();
        let saved = place.path("saved");
        let mut command = place.job("state", 1 + number % 2, &[]);
        command.env(FAILPOINTS, death);
        let job = Job::start(command, &place.path("state"));
        let body = json!({"trigger": "t", "place": saved}).to_string();
        let begin = Instant::now();
        // It may die before it answers.
        while job.try_ask("GET", "/v1/status", "").is_some_and(|(_, told)| {
            serde_json::from_str::<JobStatus>(&told).is_ok_and(|status| status.checkpoints.len() < 2)
        }) && begin.elapsed() < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = job.try_ask("POST", "/v1/savepoints", &body);
        let ended = job.finish();
        assert!(ended.status.code().is_none() && ended.said.contains("failpoint"), "{death}: {}", ended.said);
        let record = savepoint(&place.path("state"), "t").expect("it is read");
        if number < 4 {
            assert_eq!(record.map(|one| one.state), Some(SavepointState::Running), "{death}");
        }
        let job = Job::start(place.job("state", 2, &[]), &place.path("state"));
        let (status, told) = job.save("t", &saved);
        assert_eq!(status, 202, "{death}: {told}");
        let told = job.saved("t");
        assert_eq!((told.state, told.error.clone()), (SavepointState::Done, None), "{death}");
        job.finish().well();
        place.assert_same();
        assert_goes_on(&place, &saved, 2);
    }
}

#[test]
fn a_savepoint_that_fails_says_why() {
    let place = paced();
    let job = Job::start(place.job("state", 1, &[]), &place.path("state"));
    job.wait_for("rows", |status| status.rows_scored > 500);
    let file = place.path("a file");
    std::fs::write(&file, "x").expect("a file");
    assert_eq!(job.save("t", &file.join("below")).0, 422);
    assert_eq!(job.post("/v1/savepoints", &json!({"trigger": "t", "place": "s4://nowhere/x"})).0, 422);
    assert_eq!(job.ask("GET", "/v1/savepoints/t", "").0, 404, "what is refused is not taken on");
    job.stop("now");
    job.finish().well();
}

#[test]
fn the_newest_dead_letters_are_shown_with_their_bytes() {
    let dir = TempDir::new().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("tx.avsc"), kafka_source::SCHEMA).expect("a file");
    let good = |id: i64| format!(r#"{{"id":{id},"ts":{},"card":1,"amount":1.5}}"#, 1_767_225_600_000 + id);
    let lines: Vec<String> = (0..300).map(|id| if id % 3 == 0 { format!("{{bad {id} é") } else { good(id) }).collect();
    std::fs::write(path("tx.json"), lines.join("\n")).expect("a file");
    let job = format!(
        r#"
job: letters
sources:
  tx: {{file: {{path: "{0}/tx.json"}}, schema: "{0}/tx.avsc", id: id, event_time: ts}}
features:
  card: {{from: tx, entity: [card], aggregates: {{n: {{count: "*", over: 1d}}}}}}
sinks: {{offline: {{delta: {{uri: "{0}/lake"}}}}}}
"#,
        dir.path().display()
    );
    std::fs::write(path("job.yaml"), job).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("run").arg(path("job.yaml")).args(["--json", "--state"]).arg(path("state")).current_dir(root());
    command.stdin(Stdio::null());
    let job = Job::start(command, &path("state"));
    let told = job.wait_for("end of the input", |status| status.input_ended && status.epochs_outstanding == 0);
    assert_eq!((told.dead_letters, told.sources[0].dead), (100, 100));
    let letters: Vec<LetterStatus> = job.get("/v1/letters?limit=2");
    let offsets: Vec<u64> = letters.iter().map(|letter| letter.offset).collect();
    assert_eq!(offsets, [297, 294], "the newest first");
    let newest = &letters[0];
    assert_eq!((newest.source.as_str(), newest.kind.as_str(), newest.partition), ("tx", "undecodable", 0));
    assert_eq!((newest.text.as_deref(), newest.bytes), (Some("{bad 297 é"), 11));
    assert_eq!(newest.bytes_base64, "e2JhZCAyOTcgw6k=");
    assert!(!newest.reason.is_empty());
    assert_eq!(job.get::<Vec<LetterStatus>>("/v1/letters?limit=1000").len(), 100);
    assert_eq!(node(&told, "sink:table/dead_letters").rows_out, 100);
    job.stop("checkpoint");
    job.finish().well();
    let table = crate::support::table_in(&path("lake"), "dead_letters", None);
    assert_eq!(table.num_rows(), 100);
}

#[test]
fn partitions_of_a_topic_are_told_and_a_topic_can_be_drained() {
    let Some(broker) = Broker::start() else { return };
    let (mut place, from) = (Place::new(), topic("watched"));
    broker.create_topic(&from, 2);
    let events = |ids: std::ops::Range<i64>| ids.map(|id| kafka_source::event((id % 2) as i32, id, id * 10));
    broker.produce(&from, events(0..100));
    on_kafka(&mut place, broker, &from, None);
    let place = place.set("checkpoint.interval=200ms").set("sources.tx.disorder=1h").set("order=event_time");
    let job = Job::start(live(&place), &place.path("state"));
    let told = job.wait_for("rows", |status| {
        status.sources.iter().any(|source| source.read == 100 && source.partitions.iter().all(|p| p.lag == Some(0)))
    });
    let source = &told.sources[0];
    assert_eq!((source.kind.as_str(), source.up, source.partitions.len()), ("kafka", Some(true), 2));
    for partition in &source.partitions {
        assert_eq!((partition.next_offset, partition.ended, partition.paused), (50, false, false), "{partition:?}");
        assert!(partition.watermark.is_some(), "{partition:?}");
    }
    assert_eq!((told.state, told.input_ended), (JobState::Running, false));
    assert_eq!(node(&told, "view:card").queued, 100, "all of them wait for the watermark");
    // With nothing to be read an epoch can be closed all the same.
    let saved = place.path("saved");
    assert_eq!(job.save("quiet", &saved).0, 202);
    assert_eq!(job.saved("quiet").state, SavepointState::Done);
    job.stop("drain");
    job.finish().well();
    let rows = || crate::support::table_in(&place.path("lake/on_kafka"), "features/card", None).num_rows();
    assert_eq!(rows(), 100, "what waited has come out");
    // What comes now is not read by this job any more, and that is said.
    broker.produce(&from, events(100..110));
    finished(spawn(live(&place))).well().says(&["the job was drained", "a --state of its own"]);
    assert_eq!(rows(), 100);
    // The savepoint from before goes on: its rows wait in it.
    let new = place.path("new lake");
    let mut command = place.job("new", 1, &["--from", &saved.display().to_string()]);
    finished(spawn({
        command.env("LAKE", &new);
        command
    }))
    .well();
    assert_eq!(crate::support::table_in(&new.join("on_kafka"), "features/card", None).num_rows(), 110);
}

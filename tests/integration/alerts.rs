//! Detectors and alerts in whole jobs: what the tables and topics hold, and what receivers get, also through kills.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use rdkafka::Message;
use serde_json::Value;
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;

use crate::report::without_monitors;
use crate::support::kafka::{Broker, topic};
use crate::support::tls::{Certificates, terminate};
use crate::support::{Job, root, table_in};

/// Columns that say how the job was cut and run, and nothing of the alert.
const OF_THE_RUN: [&str; 2] = ["_tick", "_offset"];

/// A receiver that takes everything after it has answered 503 so many times; the bodies in the order in which they came.
struct Pager {
    address: String,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Pager {
    fn start(mut failures: usize) -> Pager {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Ok(read) = stream.try_clone() else { continue };
                let (mut reader, mut length) = (BufReader::new(read), 0);
                let mut line = String::new();
                let mut whole = false;
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                    whole = line.trim_end().is_empty();
                    if whole {
                        break;
                    }
                    if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().expect("a number");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                // Whoever sends may be killed at any byte.
                if !whole || reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let status = if failures > 0 { "503 Away" } else { "200 OK" };
                if failures == 0 {
                    seen.lock().expect("no panic").push(serde_json::from_slice(&body).expect("JSON"));
                }
                failures = failures.saturating_sub(1);
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Pager { address, taken }
    }

    fn ids(&self) -> Vec<String> {
        let taken = self.taken.lock().expect("no panic");
        taken.iter().map(|body| body["id"].as_str().expect("an id").to_owned()).collect()
    }
}

/// `dataflows/card_fraud.yaml` over days in which the fraudsters change their ways, with detectors and alerts.
fn job(dir: &TempDir, notify: &str) -> PathBuf {
    let text = std::fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("a job of the repository");
    let mut text = without_monitors(&text).to_owned();
    text.push_str(&format!(
        r#"
monitors:
  fraud:
    window: 1d
    segments: [country]
    detectors: [adwin, {{page_hinkley: {{threshold: 5}}}}, ddm]
    alerts:
      - {{name: changed, when: change, clear: 12h, severity: critical, message: "{{metric}} of {{model}}: {{value}}"}}
      - {{name: errors, when: prequential_error_fading > 0.001, clear: "< 0.0005", for: 2 windows, to: [pager]}}
      - {{name: auc, when: auc < 0.999, segment: country=*, min_rows: 20, severity: info, to: [pager]}}
notify:
  pager: {{webhook: {{url: "${{PAGER}}"}}}}
{notify}
"#
    ));
    let file = dir.path().join("job.yaml");
    std::fs::write(&file, text).expect("a file in a temporary folder");
    file
}

/// Changes that make the job finite, fast and eventful.
const SETS: [(&str, &str); 8] = [
    ("sources.tx.generator.rate", "max"),
    ("sources.tx.generator.duration", "9d"),
    ("sources.tx.generator.drift_after", "4d"),
    ("sources.fraud_labels.generator.duration", "9d"),
    ("sources.fraud_labels.generator.drift_after", "4d"),
    ("sources.tx.generator.customers", "600"),
    ("sources.fraud_labels.generator.customers", "600"),
    ("tick.rows", "700"),
];

fn ready(file: PathBuf, pager: &Pager) -> Job {
    let job = SETS.into_iter().fold(Job::new(file), |job, (key, value)| job.set(key, value));
    job.env("PAGER", &pager.address)
}

fn rows(table: &RecordBatch) -> Vec<BTreeMap<String, String>> {
    let schema = table.schema();
    let text = |row: usize, column: usize| array_value_to_string(table.column(column), row).expect("a text");
    let columns =
        || schema.fields().iter().map(|f| f.name()).enumerate().filter(|(_, n)| !OF_THE_RUN.contains(&n.as_str()));
    let mut rows: Vec<BTreeMap<String, String>> =
        (0..table.num_rows()).map(|row| columns().map(|(i, name)| (name.clone(), text(row, i))).collect()).collect();
    rows.sort();
    rows
}

fn ids(table: &RecordBatch) -> BTreeSet<String> {
    rows(table).iter().map(|row| row["id"].clone()).collect()
}

#[test]
fn alerts_are_the_same_at_any_number_of_workers_and_all_are_delivered() {
    let mut before = None;
    for workers in [1, 3] {
        let dir = TempDir::new().expect("a temporary folder");
        let pager = Pager::start(3);
        let lake = ready(job(&dir, ""), &pager).workers(workers).run();
        let (alerts, drift) = (lake.table("stats/alerts", None), lake.table("stats/drift", None));
        let (told, found) = (rows(&alerts), rows(&drift));
        let count = |name: &str, state: &str| told.iter().filter(|r| r["name"] == name && r["state"] == state).count();
        assert!(count("changed", "firing") >= 1 && count("changed", "resolved") >= 1, "{told:#?}");
        assert!(count("errors", "firing") >= 1, "{told:#?}");
        assert!(
            count("auc", "firing") >= 2
                && told.iter().all(|r| r["name"] != "auc" || r["segment"].starts_with("country="))
        );
        assert!(found.iter().any(|r| r["metric"] == "page_hinkley" && r["alarm"] == "true"), "{found:#?}");
        assert!(found.iter().filter(|r| r["metric"] == "prequential_error").count() >= 7);
        // Each was taken once, in the end.
        assert_eq!(pager.ids().into_iter().collect::<BTreeSet<_>>(), ids(&alerts));
        assert_eq!(pager.ids().len(), alerts.num_rows());
        let pager = lake.summary.alerts.iter().find(|r| r.receiver == "pager").expect("a summary");
        assert_eq!((pager.delivered, pager.dropped, pager.failed), (alerts.num_rows() as u64, 0, 3));
        let log = lake.summary.alerts.iter().find(|r| r.receiver == "log").expect("a summary");
        assert_eq!(log.delivered as usize, count("changed", "firing") + count("changed", "resolved"));
        let found = found.into_iter().filter(|r| r["subject"] == "error").collect::<Vec<_>>();
        match &before {
            None => before = Some((told, found)),
            Some(before) => assert_eq!(*before, (told, found), "at {workers} workers"),
        }
    }
}

/// A receiver behind TLS, with the authority named in the job's file, and as one of the system's.
#[test]
fn alerts_go_over_https() {
    let Some(made) = Certificates::new("alerts over HTTPS") else { return };
    for named in [true, false] {
        let dir = TempDir::new().expect("a temporary folder");
        let mut pager = Pager::start(1);
        let port = terminate(&made.server(), pager.address.trim_start_matches("http://").parse().expect("an address"));
        pager.address = format!("https://localhost:{port}/topsecret");
        let file = job(&dir, "");
        let text = std::fs::read_to_string(&file).expect("the job");
        std::fs::copy(made.ca(), dir.path().join("ca.pem")).expect("a copy");
        // Relative to the file.
        let trusting = text.replace("url: \"${PAGER}\"", "url: \"${PAGER}\", ca: ca.pem");
        assert_ne!(trusting, text);
        std::fs::write(&file, if named { &trusting } else { &text }).expect("a file");
        let trusted = if named { dir.path().join("none.pem") } else { made.ca() };
        let mut command = run_command(&file, &dir, &pager, 1);
        let output = command.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("topsecret"), "{said}");
        let alerts = table_in(&dir.path().join("lake/card_fraud"), "stats/alerts", None);
        let told: BTreeSet<String> =
            rows(&alerts).iter().filter(|row| row["name"] != "changed").map(|row| row["id"].clone()).collect();
        assert!(!told.is_empty() && pager.ids().into_iter().collect::<BTreeSet<_>>().is_superset(&told), "{said}");
    }
}

fn run_command(file: &Path, dir: &TempDir, pager: &Pager, workers: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("run").arg(file).args(["--until-end", "--json", "--workers", &workers.to_string()]);
    command.arg("--state").arg(dir.path().join("state"));
    for (key, value) in SETS.into_iter().chain([("checkpoint.rows", "700")]) {
        command.args(["--set", &format!("{key}={value}")]);
    }
    command.current_dir(root()).env("LAKE", dir.path().join("lake")).env("PAGER", &pager.address);
    command.stdin(Stdio::null());
    command
}

/// A run of the program; whether it was killed.
fn process(file: &Path, dir: &TempDir, pager: &Pager, failpoints: &str, workers: usize) -> bool {
    let mut command = run_command(file, dir, pager, workers);
    let output = command.env(FAILPOINTS, failpoints).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let killed = output.status.code().is_none() && said.contains("failpoint");
    assert!(killed || output.status.success(), "{}: {said}", output.status);
    killed
}

#[test]
fn kills_neither_lose_an_alert_nor_make_one() {
    let reference = {
        let (dir, pager) = (TempDir::new().expect("a temporary folder"), Pager::start(0));
        let lake = ready(job(&dir, ""), &pager).run();
        rows(&lake.table("stats/alerts", None))
    };
    let (dir, pager) = (TempDir::new().expect("a temporary folder"), Pager::start(0));
    let file = job(&dir, "");
    // Before the first is sent, after it is taken and before that is known, and the same later and around checkpoints.
    let deaths = [
        "alerts.deliver=kill",
        "alerts.delivered=kill",
        "checkpoint.committed=kill@3",
        "alerts.deliver=kill@3",
        "alerts.delivered=kill@2",
        "checkpoint.published=kill@4",
    ];
    let killed = deaths
        .iter()
        .zip([1, 2, 3].into_iter().cycle())
        .map(|(d, w)| process(&file, &dir, &pager, d, w))
        .filter(|k| *k)
        .count();
    assert!(killed >= 3, "{killed} kills are too few to show anything");
    while process(&file, &dir, &pager, "", 2) {}
    let alerts = table_in(&dir.path().join("lake/card_fraud"), "stats/alerts", None);
    assert_eq!(rows(&alerts), reference);
    assert_eq!(
        pager.ids().into_iter().collect::<BTreeSet<_>>(),
        ids(&alerts),
        "no id that the table lacks, none that nobody got"
    );
    // Another start tells nobody of anything.
    let told = pager.ids().len();
    assert!(!process(&file, &dir, &pager, "", 1));
    assert_eq!(pager.ids().len(), told);
}

#[test]
fn a_topic_holds_the_alerts_that_are_for_it() {
    let Some(broker) = Broker::start() else { return };
    let name = topic("alerts");
    broker.create_topic(&name, 2);
    let dir = TempDir::new().expect("a temporary folder");
    let notify =
        format!("  topic: {{kafka: {{brokers: \"{}\", topic: \"{name}\", key: fingerprint}}}}\n", broker.address());
    let pager = Pager::start(0);
    let state = dir.path().join("state");
    let lake = ready(job(&dir, &notify), &pager).workers(2).state(&state).run();
    let messages = broker.consume(&name);
    let expected: BTreeSet<String> = rows(&lake.table("stats/alerts", None))
        .iter()
        .filter(|r| r["name"] == "changed")
        .map(|r| r["id"].clone())
        .collect();
    assert!(!expected.is_empty());
    let found: Vec<Value> =
        messages.iter().map(|m| serde_json::from_slice(m.payload().expect("a payload")).expect("JSON")).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found.iter().map(|v| v["id"].as_str().expect("an id").to_owned()).collect::<BTreeSet<_>>(), expected);
    assert!(messages.iter().zip(&found).all(|(m, v)| m.key() == v["fingerprint"].as_str().map(str::as_bytes)));
    assert!(
        found
            .iter()
            .all(|v| v["severity"] == "critical" && v["message"].as_str().is_some_and(|m| m.contains(" of fraud: ")))
    );
    let told = lake.summary.topics.iter().find(|t| t.rows == "alerts").expect("a summary");
    assert_eq!(told.delivered as usize, expected.len());
}

/// The process is too large, by a rule that always holds.
#[test]
fn the_job_itself_can_be_watched() {
    let (dir, pager) = (TempDir::new().expect("a temporary folder"), Pager::start(0));
    let file = job(&dir, "");
    let text = std::fs::read_to_string(&file).expect("a file");
    let rule = "    alerts:\n      - {name: large, when: memory_bytes > 1kB, to: [pager]}\n";
    std::fs::write(
        &file,
        text.replace("    window: 1d\n", "    window: 1d\n    latency: {every: 1s}\n").replace("    alerts:\n", rule),
    )
    .expect("a file");
    let lake = ready(file, &pager).run();
    let alerts = rows(&lake.table("stats/alerts", None));
    let large: Vec<_> = alerts.iter().filter(|r| r["name"] == "large").collect();
    assert!(
        !large.is_empty() && large.iter().all(|r| r["metric"] == "memory_bytes" && r["subject"] == "engine"),
        "{alerts:#?}"
    );
    assert_eq!(large.iter().filter(|r| r["state"] == "firing").count(), 1, "{large:#?}");
    assert_eq!(pager.ids().into_iter().collect::<BTreeSet<_>>().len(), alerts.len());
}

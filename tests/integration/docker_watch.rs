//! Rules, dashboards and Alertmanager's file: read by the programs they are for, and held against what Tidemill really tells.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::docker::{documents, yaml};
use crate::support::free_port;
use crate::support::kafka::{Broker, Record, topic};
use crate::support::redis::Redis;
use crate::support::root;
use crate::support::serve::{serve_with, until};

fn docker() -> PathBuf {
    root().join("docker")
}

/// Runs a checker on a file; `None` after saying that it is not there.
fn checked(program: &str, arguments: &[&str], file: &Path) -> Option<Result<String, String>> {
    let Ok(output) = Command::new(program).args(arguments).arg(file).output() else {
        println!("skipped: {} by {program}: it is not there", file.display());
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Some(if output.status.success() { Ok(text) } else { Err(text) })
}

#[test]
fn promtool_and_amtool_accept_our_files() {
    let place = docker();
    let cases: [(&str, &[&str], &str); 5] = [
        ("promtool", &["check", "rules"], "prometheus/rules/recording.yml"),
        ("promtool", &["check", "rules"], "prometheus/rules/alerts.yml"),
        ("promtool", &["check", "config"], "prometheus/prometheus.yml"),
        ("promtool", &["test", "rules"], "prometheus/rules_test.yml"),
        ("amtool", &["check-config"], "alertmanager/alertmanager.yml"),
    ];
    for (program, arguments, file) in cases {
        let told = checked(program, arguments, &place.join(file));
        assert!(!matches!(&told, Some(Err(_))), "{file}: {told:?}");
    }
    // The tests of the rules can fail.
    let dir = TempDir::new().expect("a folder");
    std::fs::create_dir(dir.path().join("rules")).expect("a folder");
    for file in ["recording.yml", "alerts.yml"] {
        let text = std::fs::read_to_string(place.join("prometheus/rules").join(file)).expect("a file");
        let text = text.replace("ratio5m > 0.01", "ratio5m > 0.2");
        std::fs::write(dir.path().join("rules").join(file), text).expect("a file");
    }
    let tests = dir.path().join("rules_test.yml");
    std::fs::copy(place.join("prometheus/rules_test.yml"), &tests).expect("copied");
    let told = checked("promtool", &["test", "rules"], &tests);
    assert!(!matches!(&told, Some(Ok(_))), "{told:?}");
}

/// All expressions of a dashboard or rules file.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| expressions(item, found)),
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "expr" || key == "definition" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        _ => {}
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = docker().join("grafana/dashboards");
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("JSON"))
    };
    files.map(read).collect()
}

fn rules() -> Vec<Value> {
    ["recording.yml", "alerts.yml"]
        .iter()
        .flat_map(|file| documents(&docker().join("prometheus/rules").join(file)))
        .collect()
}

/// The names of metrics in an expression: ours, and those of the process.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = |word: &&str| {
        word.contains(':') && !word.starts_with(':')
            || ["tidemill_", "ml_", "process_"].iter().any(|prefix| word.starts_with(prefix))
    };
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn dashboards_are_whole() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 3);
    let mut uids = BTreeSet::new();
    for (name, board) in &dashboards {
        assert!(uids.insert(board["uid"].as_str().expect("an id").to_owned()), "{name}");
        let panels = board["panels"].as_array().expect("panels");
        let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}");
        let mut taken = BTreeSet::new();
        for panel in panels {
            let title = panel["title"].as_str().expect("a title");
            assert_eq!(panel["datasource"]["uid"], "prometheus", "{name}: {title}");
            assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {title}");
            assert!(!panel["targets"].as_array().expect("targets").is_empty(), "{name}: {title}");
            let at = &panel["gridPos"];
            let number = |key: &str| at[key].as_u64().expect("a number");
            for x in number("x")..number("x") + number("w") {
                for y in number("y")..number("y") + number("h") {
                    assert!(x < 24 && taken.insert((x, y)), "{name}: {title} lies on another");
                }
            }
        }
        let mut found = Vec::new();
        expressions(&board["panels"], &mut found);
        for used in found.iter().flat_map(|e| e.split("\"$").skip(1)).filter_map(|rest| rest.split('"').next()) {
            let there = board["templating"]["list"].as_array().expect("variables").iter().any(|v| v["name"] == used);
            assert!(there, "{name}: no variable {used}");
        }
    }
    let sources = yaml(&docker().join("grafana/provisioning/datasources/prometheus.yaml"));
    assert_eq!(sources["datasources"][0]["uid"], "prometheus");
    let providers = yaml(&docker().join("grafana/provisioning/dashboards/tidemill.yaml"));
    let place = providers["providers"][0]["options"]["path"].as_str().expect("a path");
    let compose = std::fs::read_to_string(docker().join("compose.yaml")).expect("a file");
    assert!(compose.contains(&format!("./grafana/dashboards:{place}:ro")));
}

#[test]
fn every_name_with_a_colon_is_recorded() {
    let mut used = Vec::new();
    dashboards().iter().for_each(|(_, board)| expressions(board, &mut used));
    let mut recorded = BTreeSet::new();
    for file in rules() {
        expressions(&file, &mut used);
        for rule in
            file["groups"].as_array().expect("groups").iter().flat_map(|g| g["rules"].as_array().expect("rules"))
        {
            recorded.extend(rule["record"].as_str().map(str::to_owned));
        }
    }
    let used: BTreeSet<String> = used.iter().flat_map(|e| names(e)).filter(|name| name.contains(':')).collect();
    assert_eq!(used.difference(&recorded).collect::<Vec<_>>(), Vec::<&String>::new(), "they are used and not recorded");
}

/// A process that is ended with the value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of an answer over HTTP/1.0, which has neither chunks nor compression.
fn get(address: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let _ = stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

fn query(prometheus: &str, expression: &str) -> Value {
    let encoded: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    serde_json::from_str(&get(prometheus, &format!("/api/v1/query?query={encoded}"))).unwrap_or(Value::Null)
}

/// The job of the containers on a broker and a Redis; the address of its metrics.
fn start_job(dir: &TempDir, broker: &Broker, redis: &Redis) -> (Ended, Ended, String) {
    let (payments, labels, predictions) = (topic("watched-tx"), topic("watched-labels"), topic("watched-out"));
    for name in [&payments, &labels, &predictions] {
        broker.create_topic(name, 1);
    }
    let mut job = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    job.args(["run", "docker/jobs/card_fraud.yaml", "--metrics", "127.0.0.1:0", "--state"])
        .arg(dir.path().join("state"));
    for set in [
        format!("sources.tx.kafka.topic={payments}"),
        format!("sources.fraud_labels.kafka.topic={labels}"),
        format!("models.fraud.to.kafka.topic={predictions}"),
        "checkpoint.interval=1s".to_owned(),
    ] {
        job.args(["--set", &set]);
    }
    job.env("KAFKA", broker.address())
        .env("REDIS", redis.url())
        .env("LAKE", dir.path().join("lake"))
        .current_dir(root());
    let mut job =
        Ended(job.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut said = BufReader::new(job.0.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let address = said.by_ref().find_map(|line| {
        let url = line.strip_prefix("metrics: http://")?;
        Some(url.trim_end_matches("/metrics").to_owned())
    });
    let address = address.expect("it serves metrics");
    std::thread::spawn(move || said.for_each(drop));
    let mut traffic = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    traffic.args([
        "generate",
        "--brokers",
        &broker.address(),
        "--transactions-topic",
        &payments,
        "--labels-topic",
        &labels,
    ]);
    // One of the payments is none.
    broker.produce(&payments, [Record::to(0, "no JSON")]);
    // Some hours in a second, for as long as the test takes.
    traffic.args(["--times", "world", "--speed", "28800", "--label-delay", "1d"]);
    traffic.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    (job, Ended(traffic.spawn().expect("it starts")), address)
}

/// Metrics that a healthy process does not tell: their panels and alerts are for what goes wrong or is not used here.
const NOT_HERE: [&str; 2] = [
    // It speaks no TLS here; tests/integration/serve_tls.rs has it.
    "tidemill_http_certificate_ends_seconds",
    // Late rows become dead letters in this job.
    "tidemill_rows_late_dropped_total",
];

#[test]
fn a_real_prometheus_scrapes_what_rules_and_dashboards_ask_for() {
    let what = "Prometheus on our metrics";
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!("skipped: {what}: there is no prometheus; install the package prometheus");
        return;
    }
    let Some(broker) = Broker::start() else { return };
    let Some(redis) = Redis::start(what) else { return };
    let dir = TempDir::new().expect("a folder");
    let (_job, _traffic, job) = start_job(&dir, broker, &redis);
    let (kafka, store) = (broker.address(), redis.url());
    let places = [("KAFKA", kafka.as_str()), ("REDIS", store.as_str())];
    let folder = TempDir::new().expect("a folder");
    let server = serve_with(folder, &["--online", "docker/jobs/card_fraud.yaml"], &places);
    let port = free_port();
    let own = format!("127.0.0.1:{port}");

    // Our file, with addresses of here, and in a hurry.
    let config = std::fs::read_to_string(docker().join("prometheus/prometheus.yml")).expect("a file");
    let mut here = config.clone();
    for (there, address) in [
        ("tidemill:9464", job.clone()),
        ("serve:7070", server.address.to_string()),
        ("localhost:9090", own.clone()),
        ("alertmanager:9093", format!("127.0.0.1:{}", free_port())),
        ("scrape_interval: 5s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
    ] {
        assert_eq!(here.matches(there).count(), 1, "{there}");
        here = here.replace(there, &address);
    }
    std::fs::write(dir.path().join("prometheus.yml"), here).expect("a file");
    std::fs::create_dir(dir.path().join("rules")).expect("a folder");
    for file in ["recording.yml", "alerts.yml"] {
        std::fs::copy(docker().join("prometheus/rules").join(file), dir.path().join("rules").join(file))
            .expect("copied");
    }
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()));
    prometheus.arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()));
    prometheus.arg(format!("--web.listen-address={own}"));
    let prometheus = prometheus.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let _prometheus = Ended(prometheus);

    let json = |path: &str| serde_json::from_str::<Value>(&get(&own, path)).unwrap_or(Value::Null);
    until("both are scraped", || {
        let targets = json("/api/v1/targets");
        let up = |job: &str| {
            targets["data"]["activeTargets"]
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t["labels"]["job"] == job && t["health"] == "up"))
        };
        up("tidemill-job") && up("tidemill-serve")
    });
    until("all rules were evaluated and are well", || {
        let rules = json("/api/v1/rules");
        let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<&Value> = groups.iter().filter_map(|g| g["rules"].as_array()).flatten().collect();
        rules.iter().for_each(|rule| assert_ne!(rule["health"], "err", "{rule}"));
        rules.len() == 30 && rules.iter().all(|rule| rule["health"] == "ok")
    });

    // Names that rules and dashboards use, without those that rules record.
    let mut used = Vec::new();
    dashboards().iter().for_each(|(_, board)| expressions(board, &mut used));
    let queries = used.clone();
    rules().iter().for_each(|file| expressions(file, &mut used));
    let mut wanted: BTreeSet<String> = used.iter().flat_map(|e| names(e)).filter(|name| !name.contains(':')).collect();
    assert!(wanted.len() > 40, "{wanted:?}");
    wanted.retain(|name| !NOT_HERE.contains(&name.as_str()));
    // Statistics come when the first windows end and their labels are known.
    let mut missing = wanted.clone();
    let told = |address: &str| get(address, "/metrics");
    until("every metric of rules and dashboards is told", || {
        let body = r#"{"features": ["customer:nb_tx_1d"], "entities": {"customer_id": [1]}}"#;
        let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(server.ask("POST /get-online-features", &["Content-Type: application/json", &length]).0, 200);
        let text = told(&job) + &told(&server.address.to_string());
        missing.retain(|name| {
            !text.lines().any(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])))
        });
        if !missing.is_empty() {
            eprintln!("still missing: {missing:?}");
        }
        missing.is_empty()
    });
    // What panels ask has an answer; that of those that need no failure has values.
    let mut empty = Vec::new();
    until("panels have data", || {
        empty.clear();
        for query_text in queries.iter().filter(|text| !text.starts_with("label_values")) {
            let asked = query_text.replace("\"$instance\"", "\".*\"").replace("\"$model\"", "\".*\"");
            let answer = query(&own, &asked);
            assert_ne!(answer["status"], "error", "{asked}: {answer}");
            if answer["data"]["result"].as_array().is_none_or(Vec::is_empty) {
                empty.push(query_text.clone());
            }
        }
        empty.retain(|query| !query.contains("[45]") && !NOT_HERE.iter().any(|name| query.contains(name)));
        if !empty.is_empty() {
            eprintln!("still without data: {empty:?}");
        }
        empty.is_empty()
    });
    let down = query(&own, "ALERTS{alertname=\"TidemillDown\"}");
    assert_eq!(down["data"]["result"].as_array().map(Vec::len), Some(0), "{down}");
}

//! What a running job tells in metrics: another's parser reads it, the counts are the job's, and what is sampled by the wall
//! clock is no part of a proof.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use tempfile::TempDir;
use tidemill::bench::labels;
use tidemill::engine::{RunOptions, Telemetry, load};
use tidemill::monitor::{Stat, StatKind};
use tidemill::store::offline::read_table;

use crate::kafka_source::{Setting, event};
use crate::report::without_monitors;
use crate::support::kafka::{Broker, topic};
use crate::support::{python, root};

const PATIENCE: Duration = Duration::from_secs(60);

/// The card fraud job with a monitor, as a process whose metrics are served.
struct Served {
    dir: TempDir,
    child: Child,
    address: String,
}

impl Served {
    fn start(more: &[&str]) -> Served {
        let dir = TempDir::new().expect("a folder");
        let mut command = command(&dir, "run");
        command.args(["--metrics", "127.0.0.1:0", "--set", "sources.tx.generator.rate=4000"]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tidemill starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.starts_with("metrics: ") {
            line.clear();
            assert!(said.read_line(&mut line).expect("text") > 0, "it ended without serving metrics");
        }
        let address = line.trim().trim_start_matches("metrics: http://").trim_end_matches("/metrics").to_owned();
        // What else is said is read, so that nobody waits for it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Served { dir, child, address }
    }

    fn get(&self, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// Waits until a sample is at least so large.
    fn wait_for(&self, sample: &str, least: f64) -> BTreeMap<String, f64> {
        let begin = Instant::now();
        loop {
            let samples = samples(&self.get("/metrics", "text/plain").1);
            if samples.get(sample).is_some_and(|value| *value >= least) {
                return samples;
            }
            assert!(begin.elapsed() < PATIENCE, "{sample} is {:?}", samples.get(sample));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has the job finish; returns its summary.
    fn stop(&mut self) -> serde_json::Value {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
        let mut text = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        assert!(self.child.wait().expect("an end").success());
        serde_json::from_str(&text).expect("a summary")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &TempDir, name: &str) -> Command {
    let job = dir.path().join("job.yaml");
    let text = std::fs::read_to_string(root().join("dataflows/card_fraud.yaml")).expect("a job");
    let models = root().join("models/card_fraud.onnx").display().to_string();
    let text = without_monitors(&text).replace("models/card_fraud.onnx", &models);
    let alerts = "[{name: told, when: predictions > 0, severity: info}, {name: never, when: coverage > 2}]";
    let monitor = "latency: {p99_ms: 60000, p50_ms: 0.001, every: 1s}";
    let monitor = format!("monitors: {{fraud: {{window: 1h, {monitor}, alerts: {alerts}}}}}");
    std::fs::write(&job, format!("{text}\n{monitor}\ncheckpoint: {{interval: 500ms}}\n")).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg(name).arg(job).arg("--state").arg(dir.path().join("state")).arg("--json");
    command.env("LAKE", dir.path().join("lake")).stdin(Stdio::null());
    command
}

/// Values by name with labels, as they are written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, v)| (name.to_owned(), v.parse().expect(v))).collect()
}

const PREDICTIONS: &str = "ml_predictions_total{model=\"fraud\",version=\"champion\"}";
const READ: &str = "tidemill_rows_read_total{source=\"tx\"}";

#[test]
fn a_running_job_tells_of_itself() {
    let mut job = Served::start(&[]);
    let first = job.wait_for(PREDICTIONS, 2_000.0);
    assert_eq!(job.get("/ready", "*/*"), (200, "ok\n".to_owned()));
    assert_eq!(job.get("/health", "*/*").0, 200);
    let second = job.wait_for("tidemill_epochs_published_total", first["tidemill_epochs_published_total"] + 2.0);
    for (name, value) in &first {
        let counts = ["_total", "_bucket", "_count"]
            .iter()
            .any(|part| name.split('{').next().is_some_and(|n| n.ends_with(part)));
        assert!(!counts || second.get(name).is_some_and(|later| later >= value), "{name} has fallen from {value}");
    }
    // Rows are read before they are scored, and latencies noted behind the counts that are told before them.
    assert!(second[READ] >= second[PREDICTIONS] - 100.0 && second[PREDICTIONS] > first[PREDICTIONS]);
    let latencies = second["ml_prediction_latency_seconds_count{model=\"fraud\",version=\"champion\"}"];
    assert!(latencies >= second[PREDICTIONS] && latencies <= second[PREDICTIONS] + 4_000.0, "{latencies}");
    assert_eq!(second["ml_errors_total{model=\"fraud\",version=\"champion\",kind=\"unscored\"}"], 0.0);
    for name in [
        "tidemill_watermark_seconds",
        "tidemill_watermark_lag_seconds",
        "tidemill_ticks_total",
        "tidemill_tick_seconds_count",
        "tidemill_checkpoint_duration_seconds_sum",
        "tidemill_checkpoint_bytes_total",
        "tidemill_state_bytes",
        "tidemill_state_keys",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(second.get(name).is_some_and(|value| *value > 0.0), "{name} is {:?}", second.get(name));
    }
    assert!(second.keys().any(|name| name.starts_with("tidemill_disk_free_bytes{path=")));
    // A median of a microsecond is out of reach, a minute is not.
    let alarm =
        |metric: &str| format!("ml_operation_alarm{{model=\"fraud\",version=\"champion\",metric=\"{metric}\"}}");
    let third = job.wait_for(&alarm("latency_p50_ms"), 1.0);
    assert_eq!(third[&alarm("latency_p99_ms")], 0.0);
    // Of accuracy the job's own alerts say what is wrong.
    let alarm =
        |metric: &str| format!("ml_model_accuracy_alarm{{model=\"fraud\",version=\"champion\",metric=\"{metric}\"}}");
    let judged = job.wait_for(&alarm("predictions"), 1.0);
    assert_eq!(judged.get(&alarm("coverage")), Some(&0.0));
    assert!(!judged.contains_key(&alarm("unmatched")), "no alert judges it");
    another_reads(&job);

    let summary = job.stop();
    assert!(summary["rows_scored"].as_f64() >= Some(third[PREDICTIONS]));
    assert!(TcpStream::connect(&job.address).is_err(), "nobody listens when the job has ended");
    // Samples are in their table ...
    let lake = job.dir.path().join("lake/card_fraud");
    let told = tidemill::report::newest(&lake, StatKind::Operation).expect("a table");
    let of = |metric: &str| told.iter().filter(|stat| stat.metric == metric).collect::<Vec<&Stat>>();
    assert!(of("latency_p99_ms").len() >= 2 && of("cpu_cores").iter().all(|stat| stat.subject == "engine"));
    let scored: u64 = of("predictions_per_s").iter().map(|stat| stat.rows).sum();
    assert!(scored as f64 <= summary["rows_scored"].as_f64().expect("a number") && scored > 0);
    assert!(of("latency_p50_ms").iter().all(|stat| stat.alarm == Some(true) && stat.threshold == Some(0.001)));
    // ... and a proof, in which they would differ, does not look at them.
    let proof = command(&job.dir, "prove").args(["--workers", "1"]).output().expect("tidemill starts");
    let said = String::from_utf8_lossy(&proof.stderr);
    assert!(proof.status.success(), "{said}");
    let proof: serde_json::Value = serde_json::from_slice(&proof.stdout).expect("a proof");
    let tables = proof["runs"][0]["tables"].as_array().expect("tables");
    let names: Vec<&str> = tables.iter().filter_map(|table| table["table"].as_str()).collect();
    assert!(names.contains(&"predictions/fraud") && !names.contains(&"stats/operation"), "{names:?}");
}

/// Python's client, by those who made Prometheus' formats, reads what is told in both.
fn another_reads(job: &Served) {
    let Some(python) = python("reading metrics by another's parser") else { return };
    let script = "
import sys
try:
    from prometheus_client.parser import text_string_to_metric_families as classic
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
except ImportError:
    print('absent'); sys.exit()
read = classic if sys.argv[1] == 'classic' else strict
for family in read(sys.stdin.read()):
    for sample in family.samples:
        print(family.type, family.unit or '-', sample.name, len(sample.labels), sample.value)
";
    for (which, accept) in [("classic", "text/plain"), ("strict", "application/openmetrics-text; version=1.0.0")] {
        let (code, text) = job.get("/metrics", accept);
        assert_eq!(code, 200);
        let mut parser = Command::new(&python)
            .args(["-c", script, which])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        parser.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        let output = parser.wait_with_output().expect("an end");
        assert!(output.status.success(), "{which}:\n{text}");
        let read = String::from_utf8_lossy(&output.stdout);
        if read.trim() == "absent" {
            println!("skipped: reading metrics by another's parser: no prometheus_client in TIDEMILL_PYTHON");
            return;
        }
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(read.lines().count(), samples, "{which}");
        assert!(read.lines().any(|line| line.starts_with("counter - ml_predictions_total 2 ")), "{read}");
        let unit = if which == "strict" { "seconds" } else { "-" };
        let bucket = format!("histogram {unit} ml_prediction_latency_seconds_bucket 3 ");
        assert!(read.lines().any(|line| line.starts_with(&bucket)), "{read}");
    }
}

#[test]
fn an_address_that_strangers_reach_is_refused_and_a_taken_one_is_named() {
    let dir = TempDir::new().expect("a folder");
    let said = |more: &[&str]| {
        let output = command(&dir, "run").args(more).output().expect("tidemill starts");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(&["--metrics", "0.0.0.0:0"]);
    assert!(text.contains("TIDEMILL_METRICS_TOKEN") && text.contains("--metrics-open"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let text = said(&["--metrics", &address]);
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert!(!dir.path().join("lake").exists(), "nothing has begun");
}

/// A job with a model and a monitor on a topic.
fn watched(broker: &Broker, name: &str) -> Setting {
    let setting = Setting::new(&broker.address(), name, "", "", "MODELS");
    let model = setting.dir.path().join("model.onnx");
    std::fs::write(&model, labels::identity(4)).expect("a model");
    let models = format!(
        "models: {{m: {{versions: {{champion: '{}'}}, inputs: rows, outputs: {{score: 'y[0]'}}}}}}\nmonitors: {{m: {{latency: {{every: 1s}}}}}}",
        model.display()
    );
    let text = std::fs::read_to_string(&setting.file).expect("a job").replace("MODELS", &models);
    std::fs::write(&setting.file, text).expect("a job");
    setting
}

#[test]
fn brokers_that_go_away_are_told_and_so_is_what_waits_on_them() {
    let Some(mut broker) = Broker::own() else { return };
    let name = topic("metrics");
    broker.create_topic(&name, 2);
    broker.produce(&name, (0..100).map(|id| event((id % 2) as i32, id, id)));
    let setting = watched(&broker, &name);
    let (plan, _) = load(&setting.file, &[], &|_| Some("x".into())).unwrap_or_else(|faults| panic!("{faults}"));
    let telemetry = Telemetry::new(&plan, None);
    let registry = telemetry.registry();
    assert!(telemetry.health().ready().is_err_and(|why| why.contains("starting")));
    let (health, lake) = (telemetry.health(), setting.dir.path().join("live"));
    let options = RunOptions { telemetry: Some(telemetry), state_dir: Some(setting.state()), ..RunOptions::default() };
    let mut live = setting.live(options);
    live.wait_for(100);
    assert_eq!(health.ready(), Ok(()));
    let sum = |family: &str| registry.gather().numbers(family).iter().map(|(_, value)| value).sum::<f64>();
    let wait = |family: &str, wanted: f64| {
        let begin = Instant::now();
        while sum(family) != wanted {
            assert!(begin.elapsed() < PATIENCE, "{family} is {}, not {wanted}", sum(family));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("tidemill_kafka_lag", 0.0);
    wait("tidemill_next_offset", 100.0);
    assert_eq!(registry.gather().numbers("tidemill_kafka_lag").len(), 2, "one for each partition");
    assert_eq!(sum("tidemill_kafka_broker_up"), 1.0);
    broker.stop();
    wait("tidemill_kafka_broker_up", 0.0);
    // Nothing is read, and yet samples are taken: at least one of a span in which nobody answered.
    std::thread::sleep(Duration::from_millis(2_500));
    broker.start_again();
    wait("tidemill_kafka_broker_up", 1.0);
    std::thread::sleep(Duration::from_millis(1_500));
    live.stop();
    // A thread that is about to end may still hold the run.
    assert!(health.ready().is_err_and(|why| why.contains("the job has ended") || why.contains("the job is ending")));
    let batches = read_table(&lake.join("stats/operation"), Some(&["metric", "value"]), None).expect("a table");
    let mut up = Vec::new();
    for batch in &batches {
        let values = batch.column(1).as_primitive::<Float64Type>();
        let metrics = batch.column(0).as_string::<i32>().iter();
        up.extend(
            metrics.zip(values).filter(|(metric, _)| *metric == Some("brokers_up")).filter_map(|(_, value)| value),
        );
    }
    assert!(up.contains(&0.0) && up.contains(&1.0), "{up:?}");
}

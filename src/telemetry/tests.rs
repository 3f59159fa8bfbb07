use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::*;

const ROWS: Description = Description {
    name: "tidemill_rows_total",
    kind: Kind::Counter,
    unit: "",
    help: "Rows \"read\",\nby C:\\ and source.",
};
const LAG: Description =
    Description { name: "tidemill_lag_seconds", kind: Kind::Gauge, unit: "seconds", help: "How far behind." };
const TOOK: Description =
    Description { name: "tidemill_took_seconds", kind: Kind::Histogram, unit: "seconds", help: "How long it took." };
const WHAT: Description = Description { name: "tidemill_job_info", kind: Kind::Info, unit: "", help: "What runs." };

fn example() -> Metrics {
    let histogram = Histogram::new(&[0.5, 1.0, 2.5]);
    for ms in [200, 500, 501, 2000, 9000] {
        histogram.record(Duration::from_millis(ms));
    }
    let mut metrics = Metrics::default();
    metrics.add(&ROWS, &[("source", "a\"b\\c\nd"), ("partition", "")], 3.0);
    metrics.add(&ROWS, &[("source", "é")], 1e15);
    metrics.add(&LAG, &[], -0.25);
    metrics.add(&LAG, &[("of", "x")], f64::NAN);
    metrics.add(&LAG, &[("of", "y")], f64::NEG_INFINITY);
    metrics.add_histogram(&TOOK, &[("model", "m")], histogram.buckets());
    metrics.add(&WHAT, &[("name", "fraud")], 1.0);
    metrics
}

#[test]
fn the_classic_format() {
    let expected = r#"# HELP tidemill_job_info What runs.
# TYPE tidemill_job_info gauge
tidemill_job_info{name="fraud"} 1
# HELP tidemill_lag_seconds How far behind.
# TYPE tidemill_lag_seconds gauge
tidemill_lag_seconds -0.25
tidemill_lag_seconds{of="x"} NaN
tidemill_lag_seconds{of="y"} -Inf
# HELP tidemill_rows_total Rows "read",\nby C:\\ and source.
# TYPE tidemill_rows_total counter
tidemill_rows_total{source="a\"b\\c\nd"} 3
tidemill_rows_total{source="é"} 1000000000000000.0
# HELP tidemill_took_seconds How long it took.
# TYPE tidemill_took_seconds histogram
tidemill_took_seconds_bucket{model="m",le="0.5"} 2
tidemill_took_seconds_bucket{model="m",le="1.0"} 3
tidemill_took_seconds_bucket{model="m",le="2.5"} 4
tidemill_took_seconds_bucket{model="m",le="+Inf"} 5
tidemill_took_seconds_sum{model="m"} 12.201
tidemill_took_seconds_count{model="m"} 5
"#;
    assert_eq!(example().text(Format::Prometheus), expected);
}

#[test]
fn openmetrics_names_families_units_and_the_end() {
    let text = example().text(Format::OpenMetrics);
    for line in [
        "# TYPE tidemill_job info",
        "tidemill_job_info{name=\"fraud\"} 1",
        "# UNIT tidemill_lag_seconds seconds",
        "# HELP tidemill_rows Rows \\\"read\\\",\\nby C:\\\\ and source.",
        "# TYPE tidemill_rows counter",
        "tidemill_rows_total{source=\"é\"} 1000000000000000.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n") && !text.contains("UNIT tidemill_rows"), "{text}");
}

#[test]
fn a_format_is_what_was_asked_for() {
    use Format::{OpenMetrics, Prometheus};
    // What Prometheus 2 and 3 send.
    let two = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, format) in [
        ("", Prometheus),
        ("*/*", Prometheus),
        ("text/plain", Prometheus),
        ("text/html, */*;q=0.8", Prometheus),
        (two, OpenMetrics),
        (three, OpenMetrics),
        ("application/openmetrics-text", OpenMetrics),
        ("application/openmetrics-text; version=\"1.0.0\"; q=0.2, text/plain; q=0.9", Prometheus),
        ("application/openmetrics-text; version=2.0.0", Prometheus),
        ("application/openmetrics-text;q=0", Prometheus),
        ("application/openmetrics-text;q=no", Prometheus),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}

#[test]
fn a_histogram_counts_every_value_once() {
    let histogram = Histogram::new(&[0.001, 0.1]);
    for us in [0, 999, 1_000, 1_001, 99_999, 100_000, 100_001, 5_000_000] {
        histogram.record(Duration::from_micros(us));
    }
    let buckets = histogram.buckets();
    assert_eq!((buckets.cumulative, buckets.count), (vec![(0.001, 3), (0.1, 6)], 8));
    assert!((buckets.sum - 5.303).abs() < 1e-9);
}

#[test]
fn a_process_tells_of_itself() {
    let registry = Registry::default();
    let here = std::env::current_dir().unwrap();
    registry.register(Arc::new(process::Process::new([here.join("not/there/yet")])));
    let metrics = registry.gather();
    let one = |name: &str| metrics.numbers(name).first().map_or(-1.0, |(_, value)| *value);
    let before = process::cpu_seconds().unwrap();
    assert!(before > 0.0 && one("process_cpu_seconds_total") <= before);
    assert!(one("process_resident_memory_bytes") > 1e6);
    assert!(one("process_open_fds") >= 3.0 && one("process_max_fds") > one("process_open_fds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..600.0).contains(&(now - one("process_start_time_seconds"))));
    let (labels, free) = metrics.numbers("tidemill_disk_free_bytes")[0];
    assert!(labels[0].1.ends_with("not/there/yet") && free > 0.0);
}

struct State(Result<(), String>);

impl Health for State {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.0.clone()
    }
}

struct Example;

impl Collector for Example {
    fn collect(&self, metrics: &mut Metrics) {
        *metrics = example();
    }
}

fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{request}Host: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

fn start(token: Option<Token>, state: Result<(), String>) -> MetricsServer {
    let registry = Arc::new(Registry::default());
    registry.register(Arc::new(Example));
    let options = ServerOptions { address: "127.0.0.1:0".parse().unwrap(), token, open: false };
    MetricsServer::start(options, registry, Arc::new(State(state))).unwrap()
}

#[test]
fn it_answers_over_http() {
    let server = start(None, Err("the graph is being built".to_owned()));
    let at = server.address();
    let (code, head, body) = ask(at, "GET /metrics HTTP/1.1\r\n");
    assert_eq!((code, body.as_str()), (200, example().text(Format::Prometheus).as_str()));
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let (_, head, body) = ask(at, "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n");
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && body.ends_with("# EOF\n"), "{head}");
    assert_eq!(ask(at, "GET /health HTTP/1.1\r\n").0, 200);
    let (code, _, body) = ask(at, "GET /ready HTTP/1.1\r\n");
    assert_eq!((code, body.as_str()), (503, "the graph is being built\n"));
    assert_eq!(
        (ask(at, "GET /x HTTP/1.1\r\n").0, ask(at, "DELETE /metrics HTTP/1.1\r\nContent-Length: 0\r\n").0),
        (404, 405)
    );
    // An open connection that says nothing does not keep it.
    let idle = TcpStream::connect(at).unwrap();
    drop(server);
    drop(idle);
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let server = start(Token::new("secret"), Ok(()));
    let at = server.address();
    let (code, head, body) = ask(at, "GET /metrics HTTP/1.1\r\n");
    assert!(code == 401 && head.contains("www-authenticate: bearer") && !body.contains("rows"), "{head}");
    for wrong in ["secre", "secret2", "Secret", ""] {
        assert_eq!(ask(at, &format!("GET /metrics HTTP/1.1\r\nAuthorization: Bearer {wrong}\r\n")).0, 401, "{wrong}");
    }
    assert_eq!(ask(at, "GET /metrics HTTP/1.1\r\nAuthorization: Bearer secret\r\n").0, 200);
    assert_eq!(ask(at, "GET /ready HTTP/1.1\r\n").0, 200);
    assert_eq!((format!("{:?}", Token::new("secret")), Token::new("")), ("Some(***)".to_owned(), None));
}

#[test]
fn strangers_are_not_let_in_by_accident() {
    let start = |address: &str, open| {
        let options = ServerOptions { address: address.parse().unwrap(), token: None, open };
        MetricsServer::start(options, Arc::default(), Arc::new(State(Ok(()))))
    };
    let error = start("0.0.0.0:0", false).unwrap_err().to_string();
    assert!(error.contains("TIDEMILL_METRICS_TOKEN") && error.contains("--metrics-open"), "{error}");
    let server = start("0.0.0.0:0", true).unwrap();
    let error = start(&format!("127.0.0.1:{}", server.address().port()), false).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on 127.0.0.1:"), "{error}");
}

//! The server as clients meet it, with routes of the test's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use axum::routing::{get, post};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::telemetry::{Format, Health, Registry};

struct Well;

impl Health for Well {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

fn operation(method: Method, path: &'static str, id: &'static str, scope: Scope) -> Operation {
    Operation {
        method: method.clone(),
        path,
        id,
        tag: "test",
        summary: "A route.",
        scope: Some(scope),
        parameters: Vec::new(),
        request: None,
        responses: vec![(200, "Done.", None)],
        problems: Vec::new(),
        changes: method == Method::POST,
    }
}

/// A server whose slow change waits for the test to let it end.
struct Server {
    runtime: Runtime,
    server: Option<HttpServer>,
    registry: Arc<Registry>,
    audit: Arc<AuditLog>,
    begun: Receiver<()>,
    go_on: Sender<()>,
    _dir: TempDir,
}

fn start(tokens: Option<&str>, change: impl FnOnce(&mut ServerOptions)) -> Server {
    let dir = TempDir::new().expect("a folder");
    let audit = Arc::new(AuditLog::new(dir.path().join("audit.ndjson")));
    let (began, begun) = channel();
    let (go_on, wait) = channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let slow = move || {
        let (began, wait) = (began.clone(), Arc::clone(&wait));
        async move {
            began.send(()).expect("the test listens");
            tokio::task::spawn_blocking(move || wait.lock().expect("a lock").recv().is_ok()).await.expect("told");
            "done"
        }
    };
    let api = Api::default()
        .with(operation(Method::GET, "/features", "features", Scope::ReadFeatures), get(|| async { "1" }))
        .with(
            operation(Method::GET, "/large", "large", Scope::ReadFeatures),
            get(|| async { Bytes::from(vec![b'x'; 64 << 20]) }),
        )
        .with(
            operation(Method::POST, "/jobs", "submit", Scope::Submit),
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .with(operation(Method::POST, "/slow", "slow", Scope::Submit), post(slow))
        .with(
            operation(Method::GET, "/panic", "panic", Scope::ReadFeatures),
            get(|| async { if json!(1).is_number() { panic!("on purpose") } else { "" } }),
        )
        .and(audit_api(Arc::clone(&audit)));
    let path = dir.path().join("tokens.yaml");
    if let Some(tokens) = tokens {
        std::fs::write(&path, tokens).expect("a file");
    }
    let mut options = ServerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        open: false,
        tokens: tokens.map(|_| path),
        tls: None,
        limits: Limits::default(),
        anonymous: None,
        audit: Some(Arc::clone(&audit)),
    };
    change(&mut options);
    let registry = Arc::new(Registry::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let server = runtime.block_on(HttpServer::start(options, api, Arc::clone(&registry), Arc::new(Well)));
    let server = Some(server.unwrap_or_else(|error| panic!("{error}")));
    Server { runtime, server, registry, audit, begun, go_on, _dir: dir }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.as_ref().expect("it runs").address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        stream
    }

    /// The whole answer to some bytes, up to the end of the connection.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        // A reset after an answer is an end too.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn ask(&self, line: &str, headers: &[&str], body: &str) -> (u16, String) {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let answer = self.raw(
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
                .as_bytes(),
        );
        (status(&answer), answer)
    }

    fn metric(&self, line: &str) -> bool {
        self.registry.gather().text(Format::Prometheus).lines().any(|l| l == line)
    }

    /// Waits until something holds; fails if it never does.
    fn until(&self, what: impl Fn(&Server) -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(120);
        while !what(self) {
            assert!(std::time::Instant::now() < end, "{}", self.registry.gather().text(Format::Prometheus));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn token(name: &str, scope: &str, more: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(format!("token-of-{name}")).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("- {{name: {name}, sha256: {digest}, scopes: [{scope}]{more}}}\n")
}

fn tokens() -> String {
    let reader = token("reader", "read_features", "");
    let limited = token("limited", "read_features", ", rate: 0.001, burst: 2");
    format!("tokens:\n{reader}{limited}{}{}", token("submitter", "submit", ""), token("root", "admin", ""))
}

#[test]
fn each_caller_may_do_what_its_token_says() {
    let server = start(Some(&tokens()), |_| {});
    let ask = |line: &str, name: &str| {
        let header = format!("Authorization: Bearer token-of-{name}");
        server.ask(line, &[&header], "")
    };
    for (line, name, expected) in [
        ("GET /features", "reader", 200),
        ("GET /features", "root", 200),
        ("GET /features", "submitter", 403),
        ("GET /features", "nobody", 401),
        ("POST /jobs", "submitter", 200),
        ("POST /jobs", "reader", 403),
        ("GET /api/v1/audit", "submitter", 403),
        ("GET /metrics", "reader", 200),
        ("GET /nothing", "reader", 404),
        ("DELETE /jobs", "reader", 405),
        ("GET /health", "nobody", 200),
        ("GET /openapi.json", "nobody", 200),
    ] {
        let (status, answer) = ask(line, name);
        assert_eq!(status, expected, "{line} by {name}: {answer}");
        assert_eq!(
            status >= 400,
            answer.contains("content-type: application/problem+json"),
            "{line} by {name}: {answer}"
        );
    }
    let (status, answer) = server.ask("GET /features", &[], "");
    assert!(status == 401 && answer.contains("www-authenticate: Bearer"), "{answer}");
    for line in [
        r#"tidemill_http_requests_total{operation="features",status="200"} 2"#,
        r#"tidemill_http_requests_total{operation="submit",status="403"} 1"#,
        r#"tidemill_http_requests_total{status="404"} 1"#,
        r#"tidemill_http_refused_total{reason="token"} 2"#,
        r#"tidemill_http_refused_total{reason="scope"} 3"#,
    ] {
        assert!(server.metric(line), "{line}\n{}", server.registry.gather().text(Format::Prometheus));
    }
}

#[test]
fn a_caller_that_asks_too_often_is_told_to_wait() {
    let rate = Rate { per_second: 0.001, burst: 3 };
    let server = start(Some(&tokens()), |options| options.anonymous = Some(rate));
    let ask = |name: &str| server.ask("GET /features", &[&format!("Authorization: Bearer token-of-{name}")], "");
    let limited: Vec<u16> = (0..3).map(|_| ask("limited").0).collect();
    assert_eq!(limited, [200, 200, 429]);
    let (_, answer) = ask("limited");
    assert!(answer.to_lowercase().contains("retry-after: 1000\r\n"), "{answer}");
    let unknown: Vec<u16> = (0..4).map(|_| ask("nobody").0).collect();
    assert_eq!(unknown, [401, 401, 401, 429], "guessing is slow");
    assert_eq!(server.ask("GET /health", &[], "").0, 429, "it is the same address");
    assert_eq!(ask("reader").0, 200, "others go on");
}

#[test]
fn without_tokens_no_page_of_another_site_can_ask() {
    let server = start(None, |_| {});
    let ask = |line: &str, headers: &[&str]| server.ask(line, headers, "").0;
    assert_eq!(ask("POST /jobs", &[]), 200);
    assert_eq!(ask("POST /jobs", &["Origin: https://evil.example"]), 403);
    assert_eq!(ask("GET /features", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]), 403);
    let rebound = server.raw(b"GET /features HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&rebound), 403, "{rebound}");
    let nameless = server.raw(b"GET /features HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&nameless), 400, "{nameless}");
}

#[test]
fn what_changes_is_written_down_and_goes_on_though_its_client_goes() {
    let server = start(Some(&tokens()), |_| {});
    let submitter = "Authorization: Bearer token-of-submitter";
    assert_eq!(server.ask("POST /jobs?secret=1", &[submitter], "hello").0, 200);
    assert_eq!(server.ask("POST /jobs", &["Authorization: Bearer token-of-reader"], "").0, 403);
    assert_eq!(server.ask("POST /jobs", &["Authorization: Bearer token-of-nobody"], "").0, 401, "and leaves no trace");
    let mut gone = server.connect();
    gone.write_all(format!("POST /slow HTTP/1.1\r\nHost: localhost\r\n{submitter}\r\n\r\n").as_bytes()).expect("sent");
    server.begun.recv().expect("it begins");
    drop(gone);
    server.until(|s| s.metric("tidemill_http_connections 0"));
    server.go_on.send(()).expect("it waits");
    server.until(|s| s.audit.newest(9).expect("read").len() == 3);
    let entries = server.audit.newest(9).expect("read");
    let told: Vec<_> =
        entries.iter().map(|e| (e.caller.as_str(), e.operation.as_str(), e.path.as_str(), e.status)).collect();
    assert_eq!(
        told,
        [
            ("submitter", "slow", "/slow", 200),
            ("reader", "submit", "/jobs", 403),
            ("submitter", "submit", "/jobs", 200),
        ]
    );
    let (_, answer) = server.ask("GET /api/v1/audit?limit=1", &["Authorization: Bearer token-of-root"], "");
    assert!(answer.contains(r#""operation":"slow""#) && !answer.contains("submit\""), "{answer}");
    for bad in ["limit=0", "limit=x", "last=1"] {
        let line = format!("GET /api/v1/audit?{bad}");
        assert_eq!(server.ask(&line, &["Authorization: Bearer token-of-root"], "").0, 400, "{bad}");
    }
    let text = std::fs::read_to_string(server.audit.path()).expect("the log");
    assert!(!text.contains("token-of") && !text.contains("secret"), "{text}");
}

#[test]
fn a_panic_ends_one_request() {
    let server = start(None, |_| {});
    let (status, answer) = server.ask("GET /panic", &[], "");
    assert!(status == 500 && answer.contains("application/problem+json"), "{answer}");
    assert_eq!(server.ask("GET /features", &[], "").0, 200);
}

#[test]
fn bodies_have_limits_of_length_and_time() {
    let server = start(None, |options| {
        options.limits.body_bytes = 1000;
        options.limits.stall = Duration::from_millis(100);
        options.limits.request = Duration::from_secs(20);
    });
    assert_eq!(server.ask("POST /jobs", &[], &"x".repeat(1000)).0, 200);
    assert_eq!(server.ask("POST /jobs", &[], &"x".repeat(1001)).0, 413);
    // It says how long it is and sends nothing; or does not say it.
    let told = server.raw(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(status(&told), 413, "{told}");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let chunked = format!("POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    let answer = server.raw(chunked.as_bytes());
    assert!(status(&answer) == 413 && answer.contains("longer than 1000 bytes"), "{answer}");
    let slow = server.raw(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(status(&slow) == 408 && slow.contains("connection: close"), "{slow}");
    assert!(server.metric(r#"tidemill_http_refused_total{reason="large_body"} 3"#));
    assert!(server.metric(r#"tidemill_http_refused_total{reason="slow_body"} 1"#));
}

#[test]
fn a_handler_that_takes_too_long_is_not_waited_for() {
    let server = start(None, |options| options.limits.request = Duration::from_millis(50));
    let (status, answer) = server.ask("POST /slow", &[], "");
    assert!(status == 503 && answer.contains("0.05 s"), "{answer}");
    server.go_on.send(()).expect("it still goes on");
    server.until(|s| s.audit.newest(1).expect("read").len() == 1);
}

#[test]
fn who_is_slow_is_cut_off_and_who_is_idle_is_not() {
    let server = start(None, |options| {
        options.limits.head = Duration::from_millis(100);
        options.limits.stall = Duration::from_millis(200);
        options.limits.idle = Duration::from_secs(600);
    });
    let idle = server.connect();
    assert_eq!(server.raw(b"GET /features HTTP/1.1\r\nHost: loc"), "", "half a head");
    assert_eq!(server.raw(b"PRI * HTTP/2.0\r\n\r\n"), "", "half a preface");
    let mut reader = server.connect();
    reader.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    server.until(|s| s.metric(r#"tidemill_http_refused_total{reason="slow_reader"} 1"#));
    assert!(server.metric(r#"tidemill_http_refused_total{reason="slow_head"} 2"#));
    server.until(|s| s.metric("tidemill_http_connections 1") && s.metric("tidemill_http_requests_in_flight 0"));
    drop(reader);
    // The idle one is still there, and good.
    let mut idle = idle;
    idle.write_all(b"GET /features HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    idle.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with("\r\n\r\n1"), "{answer}");
    let server = start(None, |options| options.limits.idle = Duration::from_millis(50));
    let mut idle = server.connect();
    assert_eq!(idle.read(&mut [0; 10]).expect("closed in peace"), 0);
}

#[test]
fn who_leaves_answers_where_they_are_over_http2_is_cut_off() {
    let server = start(None, |options| {
        options.limits.stall = Duration::from_millis(200);
        options.limits.idle = Duration::from_secs(600);
    });
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head, payload].concat()
    };
    let headers = |path: &[u8]| [b"\x82\x86\x44", &[path.len() as u8][..], path, b"\x41\x09localhost"].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Streams have windows of no bytes: the server may send heads, and nothing else.
    let none = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut stream = server.connect();
    stream.write_all(&[preface, none, frame(1, 5, 1, &headers(b"/large"))].concat()).expect("sent");
    server.until(|s| s.metric(r#"tidemill_http_requests_total{operation="large",status="200"} 1"#));
    server.until(|s| s.metric(r#"tidemill_http_refused_total{reason="slow_reader"} 1"#));
    server.until(|s| s.metric("tidemill_http_connections 0") && s.metric("tidemill_http_requests_in_flight 0"));
}

#[test]
fn connections_too_many_are_refused() {
    let server = start(None, |options| options.limits.connections = 2);
    let held = [server.connect(), server.connect()];
    server.until(|s| s.metric("tidemill_http_connections 2"));
    assert_eq!(status(&server.raw(b"")), 503);
    drop(held);
    server.until(|s| s.metric("tidemill_http_connections 0"));
    assert_eq!(server.ask("GET /features", &[], "").0, 200);
}

#[test]
fn what_has_begun_is_finished_when_the_server_stops() {
    let mut server = start(None, |options| {
        options.limits.drain = Duration::from_secs(60);
        options.limits.drain_delay = Duration::from_secs(1);
    });
    let mut busy = server.connect();
    busy.write_all(b"POST /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    server.begun.recv().expect("it begins");
    let mut waits = server.connect();
    let mut ready = |expected: u16| {
        waits.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = [0; 4096];
        let length = waits.read(&mut answer).expect("an answer");
        assert_eq!(status(&String::from_utf8_lossy(&answer[..length])), expected);
    };
    ready(200);
    let address = server.server.as_ref().expect("it runs").address();
    let stopping = server.server.take().expect("it runs").stop();
    let stopping = server.runtime.spawn(stopping);
    server.until(|s| s.metric("tidemill_http_draining 1"));
    ready(503);
    // New connections are refused once the delay is over; the slow change is still going on.
    while TcpStream::connect(address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!stopping.is_finished());
    server.go_on.send(()).expect("it waits");
    let mut answer = String::new();
    busy.read_to_string(&mut answer).expect("an answer");
    assert!(status(&answer) == 200 && answer.ends_with("done"), "{answer}");
    assert_eq!(server.runtime.block_on(stopping).expect("it stops"), 0);
}

#[test]
fn what_does_not_end_is_cut_off_when_the_time_is_over() {
    let mut server = start(None, |options| options.limits.drain = Duration::from_millis(100));
    let mut busy = server.connect();
    busy.write_all(b"POST /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    server.begun.recv().expect("it begins");
    let stopping = server.server.take().expect("it runs").stop();
    assert_eq!(server.runtime.block_on(stopping), 1);
    assert_eq!(busy.read(&mut [0; 10]).unwrap_or(0), 0);
    server.go_on.send(()).expect("it still goes on");
}

#[test]
fn a_server_that_others_reach_needs_tokens() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begin = |tokens: Option<&Path>, open| {
        let options = ServerOptions {
            listen: ([0, 0, 0, 0], 0).into(),
            open,
            tokens: tokens.map(Path::to_owned),
            tls: None,
            limits: Limits::default(),
            anonymous: None,
            audit: None,
        };
        runtime.block_on(HttpServer::start(options, Api::default(), Arc::default(), Arc::new(Well))).map(drop)
    };
    let refused = begin(None, false).expect_err("it is open to all").to_string();
    assert!(refused.contains("--tokens") && refused.contains("--open"), "{refused}");
    begin(None, true).expect("it was asked for");
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("tokens.yaml");
    std::fs::write(&path, tokens()).expect("a file");
    begin(Some(&path), false).expect("it has tokens");
    std::fs::write(&path, "tokens: [{name: a, certificate: a, scopes: [admin]}]").expect("a file");
    assert!(begin(Some(&path), false).expect_err("nobody could come").to_string().contains("--client-ca"));
}

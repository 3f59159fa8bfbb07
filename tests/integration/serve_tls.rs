//! `tidemill serve` with TLS and client certificates, which the openssl program makes, as curl meets it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::serve::{Served, serve_in, until};

fn there(program: &str) -> bool {
    let found = Command::new(program).arg(if program == "curl" { "--version" } else { "version" }).output().is_ok();
    if !found {
        println!("skipped: TLS of the server: there is no {program}");
    }
    found
}

fn openssl(dir: &Path, arguments: &str) -> String {
    let output =
        Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()).output().expect("it starts");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &format!("req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
    );
}

/// A certificate of an authority's, with alternative names if there are any.
fn certificate(dir: &Path, authority: &str, name: &str, alternative: &str) {
    openssl(dir, &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
    let more = match alternative {
        "" => String::new(),
        names => {
            std::fs::write(dir.join("names"), format!("subjectAltName={names}\n")).expect("a file");
            "-extfile names".to_owned()
        }
    };
    // Version 3, which rustls asks for, comes with extensions alone.
    let more = if more.is_empty() {
        std::fs::write(dir.join("basic"), "basicConstraints=CA:FALSE\n").expect("a file");
        "-extfile basic".to_owned()
    } else {
        more
    };
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 {more} -out {name}.pem"
        ),
    );
}

const TOKENS: &str = "tokens:
- {name: scorer, certificate: scorer.example.com, scopes: [read_features]}
- {name: by_uri, certificate: spiffe://example.com/app, scopes: [predict]}
- {name: operator, token: '${file:DIR/operator}', scopes: [admin]}
";

fn start(more: &[&str]) -> Served {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path();
    authority(path, "root");
    authority(path, "stranger");
    certificate(path, "root", "server", "DNS:localhost,IP:127.0.0.1");
    certificate(path, "root", "scorer.example.com", "");
    certificate(path, "root", "app", "URI:spiffe://example.com/app");
    // Its common name is one that the file has; its alternative names say that it is somebody else.
    std::fs::create_dir(path.join("other")).expect("a folder");
    for file in ["root.pem", "root.key"] {
        std::fs::copy(path.join(file), path.join("other").join(file)).expect("copied");
    }
    certificate(&path.join("other"), "root", "scorer.example.com", "DNS:other.example.com");
    certificate(path, "stranger", "intruder", "DNS:scorer.example.com");
    std::fs::write(path.join("operator"), "token-of-the-operator\n").expect("a file");
    std::fs::write(path.join("tokens.yaml"), TOKENS.replace("DIR", &path.display().to_string())).expect("a file");
    let files = ["--tls-cert", "DIR/server.pem", "--tls-key", "DIR/server.key", "--client-ca", "DIR/root.pem"];
    serve_in(dir, &[&files[..], &["--tokens", "DIR/tokens.yaml"], more].concat())
}

/// Status and version of HTTP that curl got, or its failure.
fn curl(server: &Served, path: &str, arguments: &[&str]) -> Result<String, i32> {
    let mut command = Command::new("curl");
    command.current_dir(server.dir.path()).args(["-s", "-o", "answer", "-w", "%{http_code} %{http_version}"]);
    command.args(["--cacert", "root.pem"]).args(arguments);
    let output = command.arg(format!("https://localhost:{}{path}", server.address.port())).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(output.status.code().unwrap_or(-1)),
    }
}

fn shows(name: &str) -> [String; 4] {
    ["--cert".to_owned(), format!("{name}.pem"), "--key".to_owned(), format!("{name}.key")]
}

#[test]
fn certificates_and_tokens_say_who_asks() {
    if !there("openssl") || !there("curl") {
        return;
    }
    let server = start(&[]);
    let ask = |path: &str, more: &[&str]| curl(&server, path, more);
    assert_eq!(ask("/health", &[]).as_deref(), Ok("200 2"));
    assert_eq!(ask("/health", &["--http1.1"]).as_deref(), Ok("200 1.1"));
    assert!(ask("/health", &["--tls-max", "1.1"]).is_err());
    assert_eq!(ask("/metrics", &[]).as_deref(), Ok("401 2"));
    assert_eq!(ask("/metrics", &["-H", "Authorization: Bearer token-of-the-operator"]).as_deref(), Ok("200 2"));
    let with = |name: &str, path: &str| curl(&server, path, &shows(name).each_ref().map(String::as_str));
    assert_eq!(with("scorer.example.com", "/metrics").as_deref(), Ok("200 2"));
    assert_eq!(with("scorer.example.com", "/api/v1/audit").as_deref(), Ok("403 2"));
    assert_eq!(with("app", "/metrics").as_deref(), Ok("403 2"), "it is known by its URI");
    assert_eq!(with("other/scorer.example.com", "/metrics").as_deref(), Ok("401 2"), "it has other names");
    assert_eq!(with("server", "/metrics").as_deref(), Ok("401 2"), "it is in no entry");
    assert!(with("intruder", "/health").is_err(), "nobody vouches for it");
    // Plain HTTP to the port is no request.
    assert!(server.ask("GET /health", &[]).0 != 200);
    let operator = ["-H", "Authorization: Bearer token-of-the-operator"];
    ask("/metrics", &operator).expect("metrics");
    let metrics = std::fs::read_to_string(server.dir.path().join("answer")).expect("a file");
    let ends = metrics.lines().find_map(|line| line.strip_prefix("tidemill_http_certificate_ends_seconds "));
    let ends: f64 = ends.expect("a line").parse().expect("a number");
    let told = openssl(server.dir.path(), "x509 -in server.pem -noout -checkend 2505600");
    assert!(told.contains("will not expire") && ends > 1.7e9, "{ends} {told}");
}

#[test]
fn a_certificate_may_be_asked_of_everybody() {
    if !there("openssl") || !there("curl") {
        return;
    }
    let server = start(&["--client-cert-required"]);
    assert!(curl(&server, "/health", &[]).is_err());
    assert_eq!(curl(&server, "/health", &shows("app").each_ref().map(String::as_str)).as_deref(), Ok("200 2"));
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    if !there("openssl") || !there("curl") {
        return;
    }
    let server = start(&["--log", "error"]);
    let dir = server.dir.path().to_owned();
    let serial = || {
        let shown = Command::new("openssl")
            .args(["s_client", "-connect", &server.address.to_string(), "-servername", "localhost"])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("it starts");
        std::fs::write(dir.join("shown.pem"), &shown.stdout).expect("a file");
        openssl(&dir, "x509 -in shown.pem -noout -serial")
    };
    assert_eq!(serial(), openssl(&dir, "x509 -in server.pem -noout -serial"));
    let before = serial();
    // Half of the change: the key does not fit, and all stays as it was.
    std::fs::copy(dir.join("server.pem"), dir.join("old.pem")).expect("copied");
    std::fs::copy(dir.join("stranger.pem"), dir.join("server.pem")).expect("copied");
    until("the bad pair is refused", || server.told().contains("server.key"));
    assert_eq!(serial(), before);
    certificate(&dir, "root", "server", "DNS:localhost");
    until("the new one is shown", || serial() != before);
    assert_eq!(serial(), openssl(&dir, "x509 -in server.pem -noout -serial"));
    assert_eq!(curl(&server, "/health", &[]).as_deref(), Ok("200 2"));
}

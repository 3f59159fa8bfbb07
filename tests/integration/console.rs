//! The console in a real browser, before a real server with a real job.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::registry::{By, Content, Registration, Registry, Signature};

use crate::support::browser::{Browser, chromium};
use crate::support::http;

const SCHEMA: &str = r#"{"type": "record", "name": "Tx", "fields": [
  {"name": "tx_id", "type": "long"},
  {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "card", "type": "long"},
  {"name": "amount", "type": "double"}
]}"#;

/// What somebody sends who wants the console to run it.
const EVIL: &str =
    r#"{"tx_id": "</pre><script>window.injected = 1</script><img src=x onerror='window.injected = 1'>"}"#;

/// A server with a job that has read its events.
struct Server {
    child: Child,
    url: String,
    job: String,
    dir: TempDir,
}

impl Server {
    fn start(tokens: Option<&str>) -> Server {
        let dir = TempDir::new().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
        if let Some(tokens) = tokens {
            let path = dir.path().join("tokens.yaml");
            fs::write(&path, tokens).expect("a file");
            command.arg("--tokens").arg(path);
        }
        let mut child =
            command.current_dir(dir.path()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a server");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let url = lines.find_map(|line| line.ok()?.strip_prefix("serving: ").map(str::to_owned)).expect("an address");
        // Whoever writes to a closed pipe ends.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, url, job: String::new(), dir }
    }

    fn with_job(mut self) -> Server {
        let file = job_file(self.dir.path());
        let body = json!({"file": file, "values": {"LAKE": self.dir.path().join("lake")}, "workers": 1});
        let job = self.ask("POST", "/api/v1/jobs", Some(body)).1;
        self.job = job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
        let path = format!("/api/v1/jobs/{}/status", self.job);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, told) = self.ask("GET", &path, None);
            if status == 200 && told["rows_read"] == json!(42) && told["dead_letters"] == json!(2) {
                return self;
            }
            assert!(Instant::now() < until, "the job does not come to the end of its input: {status} {told}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = http(Duration::from_secs(60)).request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().expect("an answer");
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().expect("text")).unwrap_or(Value::Null))
    }

    fn page(&self, hash: &str) -> String {
        format!("{}/#/{}", self.url, hash.replace("JOB", &self.job))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.job.is_empty() {
            // Processes of jobs outlive their server.
            self.ask("POST", &format!("/api/v1/jobs/{}/stop", self.job), Some(json!({"mode": "now"})));
            let until = Instant::now() + Duration::from_secs(20);
            let path = format!("/api/v1/jobs/{}", self.job);
            while self.ask("GET", &path, None).1["pid"].is_number() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Forty good events of four cards, one that nobody can read, and one that somebody made with malice.
fn job_file(dir: &Path) -> String {
    fs::write(dir.join("tx.avsc"), SCHEMA).expect("a file");
    let mut events: Vec<u8> = Vec::new();
    for n in 0..40 {
        let line = format!(
            "{{\"tx_id\": {n}, \"ts\": {}, \"card\": {}, \"amount\": {n}.5}}\n",
            1_700_000_000_000i64 + n * 1000,
            n % 4
        );
        events.extend(line.as_bytes());
    }
    events.extend(EVIL.as_bytes());
    events.extend(b"\n\xff\xfe\x00 not text\n");
    fs::write(dir.join("events.ndjson"), events).expect("a file");
    format!(
        r#"
job: payments
version: 1
sources:
  tx:
    file: {{path: "{dir}/events.ndjson"}}
    schema: "{dir}/tx.avsc"
    id: tx_id
    event_time: ts
features:
  card:
    from: tx
    entity: [card]
    aggregates:
      n: {{count: "*", over: 1h}}
      total: {{sum: amount, over: 1h}}
    ttl: 10d
feature_sets:
  inputs: {{on: tx, take: [amount, card.*]}}
sinks:
  online: {{embedded: {{path: "${{LAKE}}/online"}}}}
  offline: {{delta: {{uri: "${{LAKE}}/tables"}}}}
"#,
        dir = dir.display()
    )
}

#[test]
fn a_browser_shows_a_job_and_runs_nothing_that_came_with_its_events() {
    let Some(program) = chromium("the console in a browser") else { return };
    let server = Server::start(None).with_job();
    let mut browser = Browser::start(&program);
    browser.size(1280, 900);

    // The list of jobs leads to the graph of one.
    browser.open(&server.page("jobs"));
    browser.wait("document.querySelector('main .row-link')?.innerText.includes('payments')");
    browser.wait("document.querySelector('main tbody').innerText.includes('running')");
    browser.eval("document.querySelector('main .row-link').click()");
    browser.wait("document.querySelectorAll('svg .node').length >= 4");
    let names = "[...document.querySelectorAll('svg .node')].map(node => node.dataset.id).join(' ')";
    let names = browser.eval(names);
    for wanted in ["source:tx", "view:card", "set:inputs", "sink:online"] {
        assert!(names.as_str().is_some_and(|names| names.contains(wanted)), "no {wanted} among {names}");
    }
    // A node tells more when it is chosen by the keyboard.
    browser.eval("document.querySelector('[data-id=\"view:card\"]').focus()");
    browser.key("Enter");
    browser.wait("document.querySelector('.side-panel')?.innerText.includes('Keys\\n4')");

    // Dead letters are shown as they came, and nothing in them runs.
    browser.open(&server.page("jobs/JOB/letters"));
    browser.wait("document.querySelectorAll('.letters > li').length === 2");
    browser.eval("document.querySelectorAll('.letters summary').forEach(summary => summary.click())");
    browser.wait("[...document.querySelectorAll('.letter-text')].some(pre => pre.textContent.includes('<script>window.injected'))");
    browser.wait("[...document.querySelectorAll('.letter-text')].some(pre => pre.textContent.includes('ff fe 00 20'))");
    assert_eq!(browser.eval("typeof window.injected"), json!("undefined"), "what came with an event ran");
    assert_eq!(browser.eval("document.querySelectorAll('main script, main img').length"), json!(0));
    // It does run where it is read as HTML: the policy of the page is what is left then.
    browser.eval(&format!("document.querySelector('main').insertAdjacentHTML('beforeend', {})", json!(EVIL)));
    browser.eval("new Promise(done => setTimeout(done, 500))");
    assert_eq!(browser.eval("typeof window.injected"), json!("undefined"), "the policy lets inline script run");
    // What that made is not counted below.
    browser.problems(&server.url);

    // The live value of an entity, from an address that can be kept.
    browser.open(&server.page("features"));
    browser.wait("document.querySelectorAll('main tbody tr').length >= 4");
    browser.open(&server.page("features/JOB/card?key=card%3D2"));
    browser.wait("document.querySelector('main tbody')?.innerText.includes('205')");
    let values = browser
        .eval("[...document.querySelectorAll('main tbody tr')].map(row => row.innerText.split('\\t')[1]).join(' ')");
    // Events 2, 6, … 38 of card 2: ten, and 2.5 + 6.5 + … + 38.5 = 205.
    assert_eq!(values, json!("10 205"));
    browser.open(&server.page("features/JOB/card?key=card%3D77"));
    browser.wait("document.querySelector('main').innerText.includes('not known')");

    // Every page, light and dark, wide and narrow: no error, nothing asked of others, nothing beyond the edge.
    let pages = "jobs jobs?new jobs/JOB/graph jobs/JOB/sources jobs/JOB/checkpoints jobs/JOB/letters jobs/JOB/quality \
                 jobs/JOB/rollouts jobs/JOB/logs jobs/JOB/file jobs/JOB/events features features/JOB/card models trainings \
                 alerts server keys nothing";
    for (width, dark) in [(1280, false), (360, true)] {
        browser.size(width, 780);
        browser.dark(dark);
        for page in pages.split_whitespace() {
            browser.open(&server.page(page));
            browser.wait("document.querySelector('main h1') && !document.querySelector('.loading')");
            let beyond = browser.eval("Math.max(0, document.documentElement.scrollWidth - innerWidth)");
            assert_eq!(beyond, json!(0), "{page} is wider than {width} pixels");
            assert_eq!(browser.eval("document.querySelectorAll('.trouble').length"), json!(0), "{page}");
            let unnamed = "[...document.querySelectorAll('button, a[href], input, select, textarea')].filter(one => \
                !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length || one.getAttribute('title'))).length";
            assert_eq!(browser.eval(unnamed), json!(0), "{page}: controls without a name");
        }
        let light =
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)";
        let light = browser.eval(light).as_f64().expect("a number");
        assert_eq!(light < 300.0, dark, "background {light}");
        assert_eq!(browser.problems(&server.url), Vec::<String>::new());
    }

    // Keys: to another page, and to the other theme.
    browser.open(&server.page("jobs"));
    browser.wait("document.querySelector('main h1')");
    browser.key("g");
    browser.key("f");
    browser.wait("location.hash === '#/features'");
    browser.key(".");
    browser.wait("document.documentElement.dataset.theme === 'light'");

    // What is done in the console is done.
    browser.open(&server.page("jobs/JOB/graph"));
    browser.wait("[...document.querySelectorAll('.head .button')].some(one => one.innerText === 'Stop')");
    browser.eval("[...document.querySelectorAll('.head .button')].find(one => one.innerText === 'Stop').click()");
    browser.wait("document.querySelector('dialog[open]') !== null");
    browser.eval("document.querySelector('dialog [type=submit]').click()");
    browser.wait("document.querySelector('h1').innerText.includes('stopped')");
    // The dead letters of a job that is stopped are those of its tables.
    let letters = server.ask("GET", &format!("/api/v1/jobs/{}/dead-letters", server.job), None).1;
    assert_eq!(letters["from"], "tables", "{letters}");
    assert_eq!(letters["letters"].as_array().map(Vec::len), Some(2), "{letters}");
    let row = server.ask("GET", &format!("/api/v1/jobs/{}/features/card/value?key=card%3D2", server.job), None).1;
    assert_eq!(row["features"]["n_1h"], json!(10), "{row}");
}

#[test]
fn versions_are_promoted_and_taken_back_over_http() {
    let mut server = Server::start(None);
    let place = server.dir.path().join("registry").display().to_string();
    let registry = Registry::open(&place).expect("a registry");
    for (bytes, alias) in [(b"one", "champion"), (b"two", "challenger")] {
        let by = By::new("a test", "to see");
        let mut registration = Registration::new("m", Content::Bytes(bytes.to_vec()), Signature::default(), by);
        registration.alias = Some(alias.to_owned());
        registry.register(registration).expect("registered");
    }
    let file = format!("{}registry: {{uri: '{place}'}}\n", job_file(server.dir.path()));
    let body = json!({"file": file, "values": {"LAKE": server.dir.path().join("lake")}});
    let job = server.ask("POST", "/api/v1/jobs", Some(body)).1;
    server.job = job["id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
    let models = server.ask("GET", "/api/v1/models", None).1;
    assert_eq!(models["models"][0]["aliases"], json!({"champion": 1, "challenger": 2}), "{models}");
    let deed = |what: &str, body: Value| server.ask("POST", &format!("/api/v1/models/m/{what}"), Some(body)).0;
    assert_eq!(deed("hold", json!({"why": "a look"})), 200);
    assert_eq!(deed("promote", json!({"version": 2, "expect": 7})), 409);
    assert_eq!(deed("promote", json!({"version": 9})), 404);
    assert_eq!(deed("promote", json!({})), 422);
    assert_eq!(deed("promote", json!({"version": 2, "expect": 1, "why": "it is better"})), 200);
    // It was the challenger, and is so no more.
    assert_eq!(deed("resume", json!({})), 409);
    let model = server.ask("GET", "/api/v1/models/m", None).1;
    assert_eq!(model["aliases"], json!({"champion": 2}));
    assert_eq!(deed("rollback", json!({"version": 1})), 422);
    assert_eq!(deed("rollback", json!({})), 200);
    let model = server.ask("GET", "/api/v1/models/m", None).1;
    assert_eq!(model["aliases"], json!({"champion": 1}));
    let moved = |entry: &&Value| entry["what"] == "champion from 1 to 2" && entry["why"] == "it is better";
    assert!(model["history"].as_array().is_some_and(|history| history.iter().filter(moved).count() == 1), "{model}");
    assert_eq!(server.ask("GET", "/api/v1/models/none", None).0, 404);
}

#[test]
fn a_token_is_asked_for_and_kept_in_the_tab() {
    let Some(program) = chromium("the console's tokens in a browser") else { return };
    // The tokens `reader-reader-reader` and `admin-admin-admin-admin`.
    let tokens = "tokens:\n\
        - {name: reader, scopes: [read_features], sha256: 'READER'}\n\
        - {name: boss, scopes: [admin], sha256: 'BOSS'}\n";
    let tokens =
        tokens.replace("READER", &sha256("reader-reader-reader")).replace("BOSS", &sha256("admin-admin-admin-admin"));
    let server = Server::start(Some(&tokens));
    let mut browser = Browser::start(&program);
    browser.open(&server.page("jobs"));
    browser.wait("document.querySelector('form.token') !== null");
    let enter = |browser: &mut Browser, token: &str| {
        browser.eval(&format!("document.getElementById('token').value = {}", json!(token)));
        browser.eval("document.querySelector('form.token').requestSubmit()");
    };
    enter(&mut browser, "wrong-wrong-wrong-wrong");
    browser.wait("document.querySelector('main h1').innerText.includes('not accepted')");
    enter(&mut browser, "reader-reader-reader");
    browser.wait("document.querySelector('main').innerText.includes('No job has been submitted')");
    assert_eq!(browser.eval("localStorage.getItem('tidemill.token')"), Value::Null);
    // A reload keeps it; the audit log is for others.
    browser.open(&server.page("server"));
    browser.wait("document.querySelector('main').innerText.includes('reader')");
    browser.wait("document.querySelector('main').innerText.includes('needs the scope')");
    assert_eq!(browser.eval("document.querySelector('main').innerText.includes('boss')"), json!(false));
    browser.eval("[...document.querySelectorAll('button')].find(one => one.innerText === 'Forget it').click()");
    browser.wait("document.querySelector('form.token') !== null");
    enter(&mut browser, "admin-admin-admin-admin");
    browser.wait("document.querySelector('main').innerText.includes('boss')");
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

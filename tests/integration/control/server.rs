//! A server of jobs in a folder of its own, that may be killed and started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill::base::FAILPOINTS;

use crate::support::{http, root};

/// How long anything is waited for; a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A server's folder, and the server while it runs.
pub struct Server {
    dir: TempDir,
    child: Option<Child>,
    url: String,
    env: BTreeMap<String, String>,
    args: Vec<String>,
}

/// A small job on generated payments: counts by customer.
pub fn file(name: &str, rate: &str, duration: &str) -> String {
    format!(
        r#"job: {name}
version: 1
clock: event
order: event_time
sources:
  tx:
    generator: {{stream: transactions, seed: 42, customers: 2000, terminals: 4000, start: "2026-01-05", rate: {rate}{duration}}}
    id: tx_id
    event_time: ts
features:
  customer:
    from: tx
    entity: [customer_id]
    aggregates:
      nb_tx: {{count: "*", over: [1h, 7d]}}
      sum_amount: {{sum: amount, over: 7d}}
feature_sets:
  inputs: {{on: tx, take: [amount, customer.*]}}
sinks:
  offline: {{delta: {{uri: "${{LAKE}}/{name}"}}}}
tick: {{rows: 500}}
checkpoint: {{interval: 500ms}}
"#
    )
}

/// One that goes on for ever, slowly.
pub fn endless(name: &str) -> String {
    file(name, "500", "")
}

/// One that ends, after some 43,000 payments in twelve days of its own time.
pub fn finite(name: &str, rate: &str) -> String {
    file(name, rate, ", duration: 12d")
}

impl Server {
    /// One that is not started.
    pub fn new() -> Server {
        let dir = TempDir::new().expect("a folder");
        Server { dir, child: None, url: String::new(), env: BTreeMap::new(), args: Vec::new() }
    }

    /// One that runs.
    pub fn started() -> Server {
        let mut server = Server::new();
        server.start();
        server
    }

    pub fn env(mut self, name: &str, value: &str) -> Server {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn arg(mut self, arg: &str) -> Server {
        self.args.push(arg.to_owned());
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Directory of the server's own.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts it, and waits until it serves.
    pub fn start(&mut self) {
        assert!(self.start_with(""), "the server: {}", self.said());
    }

    /// Starts it with failpoints; false when it has ended before it served.
    pub fn start_with(&mut self, failpoints: &str) -> bool {
        let log = self.path("server.log");
        let _ = std::fs::remove_file(&log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(self.data()).args(&self.args);
        // What is asked for by a relative path lies in a place of its own.
        command.current_dir(self.dir.path()).env_remove("TIDEMILL_LOG").env(FAILPOINTS, failpoints).envs(&self.env);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).expect("a file"));
        self.child = Some(command.spawn().expect("the program starts"));
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            if let Some(url) = said.lines().find_map(|line| line.strip_prefix("serving: ")) {
                self.url = url.trim().trim_end_matches('/').to_owned();
                return true;
            }
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_some());
            if ended {
                self.child = None;
                return false;
            }
            assert!(Instant::now() < until, "the server does not serve: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// Waits until a failpoint has killed it.
    pub fn wait_killed(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        let until = Instant::now() + PATIENCE;
        while child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < until, "the failpoint was not reached");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = None;
    }

    /// Ends it as a service manager does.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process id");
        // SAFETY: a signal to a child that was not waited for, so that its number is nobody else's.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        assert!(child.wait().expect("ended").success(), "{}", self.said());
    }

    /// Asks the API; status and answer. Nothing when the server has gone.
    pub fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = http(PATIENCE).request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().ok()?;
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method_path}: {text}", method_path = path));
        Some((status, value))
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.try_ask(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}: {}", self.said()))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask("GET", path, None);
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.ask("POST", path, Some(&body));
        assert!((200..300).contains(&status), "{path}: {status} {value}");
        value
    }

    /// What a file is submitted with.
    pub fn submission(&self, file: &str) -> Value {
        json!({"file": file, "values": {"LAKE": self.path("lake").display().to_string()}})
    }

    /// Submits a job; its id.
    pub fn submit(&self, file: &str) -> String {
        self.submit_as(self.submission(file))
    }

    pub fn submit_as(&self, submission: Value) -> String {
        let job = self.post("/api/v1/jobs", submission);
        job["id"].as_str().expect("an id").to_owned()
    }

    pub fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{id}"))
    }

    /// Waits until a job is as wanted.
    pub fn until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let job = self.job(id);
            if wanted(&job) {
                return job;
            }
            if Instant::now() >= until {
                let log = self.ask("GET", &format!("/api/v1/jobs/{id}/logs?tail=30"), None).1;
                panic!("{what} does not come: {job:#}\nits log: {log:#}\nthe server: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, state, |job| job["state"] == state && job.get("doing").is_none())
    }

    /// Waits until a running job has committed an epoch that it had not when it was asked first.
    pub fn until_progress(&self, id: &str) {
        let newest = || self.try_ask("GET", &format!("/api/v1/jobs/{id}/status"), None);
        let epoch = |answer: Option<(u16, Value)>| match answer {
            Some((200, status)) => status["checkpoints"][0]["epoch"].as_u64(),
            _ => None,
        };
        let (begin, until) = (epoch(newest()), Instant::now() + PATIENCE);
        while epoch(newest()) <= begin {
            assert!(Instant::now() < until, "no new epoch of {id}: {:#}", self.job(id));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What was done with a job: `what outcome`.
    pub fn deeds(&self, id: &str) -> Vec<String> {
        let history = self.get(&format!("/api/v1/jobs/{id}/history"));
        let text =
            |event: &Value| format!("{} {}", event["what"].as_str().unwrap(), event["outcome"].as_str().unwrap());
        history.as_array().expect("a list").iter().map(text).collect()
    }

    /// Runs the program with the server as its server: exit code, standard output, standard error.
    pub fn cli(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(arguments).current_dir(root()).env("TIDEMILL_SERVER", &self.url).env_remove("TIDEMILL_LOG");
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (status.code().expect("no signal"), text(stdout), text(stderr))
    }

    /// Processes that run jobs of this server, by the directory of their job.
    pub fn processes(&self) -> Vec<(PathBuf, u32)> {
        let data = self.data().canonicalize().unwrap_or_else(|_| self.data());
        let mut found = Vec::new();
        for pid in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = pid.file_name().to_str().and_then(|pid| pid.parse::<u32>().ok()) else { continue };
            let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
            let job = environment.split(|b| *b == 0).find_map(|one| one.strip_prefix(b"TIDEMILL_JOB="));
            let Some(job) = job.map(|job| PathBuf::from(String::from_utf8_lossy(job).into_owned())) else { continue };
            let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
            if job.starts_with(&data) && !zombie {
                found.push((job, pid));
            }
        }
        found
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (_, pid) in self.processes() {
            // SAFETY: a signal to a process that carries this test's folder.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.said());
        }
    }
}

/// Runs a file to its end without a server; the tables are in `lake/<name>`.
pub fn reference(dir: &Path, name: &str, text: &str) {
    let path = dir.join(format!("{name}.yaml"));
    std::fs::write(&path, text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("run").arg(&path).args(["--until-end", "--set", "sources.tx.generator.rate=max"]);
    let output = command.current_dir(root()).env("LAKE", dir).env_remove(FAILPOINTS).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! A running `tidemill serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for what must come; nothing is timed by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server of the real program; killed when it is dropped.
pub struct Served {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub dir: TempDir,
    told: Arc<Mutex<String>>,
}

/// Starts `tidemill serve` on a free port with more arguments; `DIR` in them is its data directory.
pub fn serve(arguments: &[&str]) -> Served {
    serve_in(TempDir::new().expect("a folder"), arguments)
}

/// As [`serve`], in a directory that has files already.
pub fn serve_in(dir: TempDir, arguments: &[&str]) -> Served {
    let place = dir.path().display().to_string();
    let arguments = arguments.iter().map(|argument| argument.replace("DIR", &place));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", &place]).args(arguments);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut first = String::new();
    let url = loop {
        let line = lines.next().unwrap_or_else(|| panic!("it does not serve: {first}"));
        match line.split_once("serving: ") {
            Some((_, url)) => break url.to_owned(),
            None => first += &format!("{line}\n"),
        }
    };
    let address = url.rsplit('/').next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{url}"));
    let told = Arc::new(Mutex::new(first));
    let more = Arc::clone(&told);
    std::thread::spawn(move || lines.for_each(|line| more.lock().expect("a lock").push_str(&format!("{line}\n"))));
    Served { child, address, dir, told }
}

impl Served {
    /// A connection; reads fail after [`PATIENCE`].
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// The whole answer to some bytes, up to the end of the connection; a reset is an end.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        let mut answer = Vec::new();
        // It may be refused while it is still being sent.
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// Status and whole answer of a request without a body.
    pub fn ask(&self, line: &str, headers: &[&str]) -> (u16, String) {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        let answer = String::from_utf8_lossy(&self.raw(request.as_bytes())).into_owned();
        (status(&answer), answer)
    }

    /// A metric's value, with the headers that the server asks for.
    pub fn metric(&self, name: &str, headers: &[&str]) -> f64 {
        let (_, text) = self.ask("GET /metrics", headers);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Its memory in RAM, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).expect("an id");
        // SAFETY: it signals a child of ours that was not waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    }

    /// How it ended.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it was started")
    }

    /// What it has said.
    pub fn told(&self) -> String {
        self.told.lock().expect("a lock").clone()
    }

    /// Fails unless it is alive and answers.
    pub fn assert_alive(&mut self, after: &str) {
        assert!(self.child.try_wait().expect("it was started").is_none(), "it ended after {after}: {}", self.told());
        assert_eq!(self.ask("GET /health", &[]).0, 200, "after {after}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The status in an answer; 0 if there is none.
pub fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Waits until something holds; fails if it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

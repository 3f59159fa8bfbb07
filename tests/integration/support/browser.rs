//! A headless Chromium, driven by its DevTools protocol over a pair of pipes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    /// Events that have come and were not looked at.
    events: VecDeque<Value>,
    _profile: TempDir,
}

/// The browser's program: `$TIDEMILL_CHROMIUM`, else one that is installed; nothing after saying what is skipped.
pub fn chromium(what: &str) -> Option<PathBuf> {
    let named = std::env::var_os("TIDEMILL_CHROMIUM").filter(|path| !path.is_empty()).map(PathBuf::from);
    let installed = || {
        let names = ["chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file()))
    };
    let found = named.or_else(installed);
    if found.is_none() {
        println!("skipped: {what}: there is no chromium (TIDEMILL_CHROMIUM names one; tests/all installs it)");
    }
    found
}

impl Browser {
    /// Starts the browser with an empty page.
    pub fn start(program: &PathBuf) -> Browser {
        let profile = TempDir::new().expect("a folder");
        let (their_in, to) = pipe();
        let (from, their_out) = pipe();
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (read, write) = (their_in.as_raw_fd(), their_out.as_raw_fd());
        // SAFETY: between fork and exec it makes system calls that may be made there. The browser reads commands from
        // descriptor 3 and writes to 4; one of ours may be 3 or 4 itself, so both are moved out of the way first.
        unsafe {
            command.pre_exec(move || {
                let (read, write) = (libc::fcntl(read, libc::F_DUPFD, 10), libc::fcntl(write, libc::F_DUPFD, 10));
                if read < 0 || write < 0 || libc::dup2(read, 3) < 0 || libc::dup2(write, 4) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("chromium starts");
        drop((their_in, their_out));
        let (sender, receiver) = channel();
        let mut from = File::from(from);
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            let mut piece = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                rest.extend_from_slice(&piece[..n]);
                while let Some(end) = rest.iter().position(|byte| *byte == 0) {
                    let message: Vec<u8> = rest.drain(..=end).collect();
                    let message = serde_json::from_slice(&message[..end]).expect("messages of chromium are JSON");
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let (to, events) = (File::from(to), VecDeque::new());
        let mut browser = Browser { child, to, from: receiver, session: None, next: 0, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).expect("JSON");
        bytes.push(0);
        self.to.write_all(&bytes).expect("chromium listens");
        let until = Instant::now() + PATIENCE;
        loop {
            match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(mut answer) if answer["id"] == json!(id) => {
                    assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return answer["result"].take();
                }
                Ok(event) => self.events.push_back(event),
                Err(RecvTimeoutError::Timeout) => panic!("chromium does not answer {method}"),
                Err(RecvTimeoutError::Disconnected) => panic!("chromium has ended"),
            }
        }
    }

    /// The value of an expression in the page; a promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until an expression is true; one that fails, since what it asks for is not there yet, is not.
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        let tried = format!("(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()");
        while self.eval(&tried) != json!(true) {
            if Instant::now() > until {
                let text = self.eval("document.body ? document.body.innerText : ''");
                panic!(
                    "never true: {expression}\nthe page says: {}\nproblems: {:?}",
                    text.as_str().unwrap_or_default(),
                    self.problems("")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Opens an address anew.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.call("Page.navigate", json!({"url": url}));
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The size of the page, in CSS pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// Whether the system prefers dark colours.
    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let params = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.call("Emulation.setEmulatedMedia", params);
    }

    /// Presses a key.
    pub fn key(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        self.call("Input.dispatchKeyEvent", json!({"type": "keyDown", "key": key, "text": text}));
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key}));
    }

    /// Errors of the page and requests outside of `origin`, since this was asked last.
    pub fn problems(&mut self, origin: &str) -> Vec<String> {
        // What has come by now is before this call's answer.
        self.call("Runtime.evaluate", json!({"expression": "0"}));
        let mut found = Vec::new();
        for event in self.events.drain(..) {
            let params = &event["params"];
            let url = params["request"]["url"].as_str().unwrap_or_default();
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => found.push(format!("exception: {}", params["exceptionDetails"])),
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    found.push(format!("log: {}", params["entry"]))
                }
                "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "warning" => {
                    found.push(format!("console: {}", params["args"]));
                }
                "Network.requestWillBeSent" if !url.starts_with(origin) && !url.starts_with("about:") => {
                    found.push(format!("a request to {url}"));
                }
                _ => {}
            }
        }
        found
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().expect("a pipe");
    (read.into(), write.into())
}

//! An S3-compatible object store for tests: moto, a server in Python, on loopback, behind a line that can be cut.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::python;

/// Serves until its standard input closes, which happens at the latest when the test's process is gone.
const SERVER: &str = r#"
import sys, boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id="id",
             aws_secret_access_key="secret").create_bucket(Bucket="state")
print(port, flush=True)
sys.stdin.read()
"#;

/// A server with the bucket `state`.
pub struct S3 {
    server: Child,
    line: Arc<Line>,
    port: u16,
}

/// Between the job and the server.
#[derive(Default)]
struct Line {
    cut: AtomicBool,
    refused: AtomicU64,
    carried: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl S3 {
    /// Starts a server; nothing after saying what is skipped where there is none.
    pub fn start(what: &str) -> Option<S3> {
        let python = python(what)?;
        let found = Command::new(&python).args(["-c", "import moto.server, boto3"]).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            println!("skipped: {what}: TIDEMILL_PYTHON has no moto (tests/all installs it)");
            return None;
        }
        let mut command = Command::new(python);
        command.args(["-c", SERVER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().expect("Python starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let behind = line.trim().parse().expect("a port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let line = Arc::new(Line::default());
        let theirs = Arc::clone(&line);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|from| theirs.connect(from, behind)));
        Some(S3 { server, line, port })
    }

    /// What a job needs in its environment.
    pub fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Cuts the line, also under requests that are on their way, or mends it.
    pub fn cut(&self, cut: bool) {
        self.line.cut.store(cut, Ordering::SeqCst);
        if cut {
            for stream in self.line.open.lock().expect("no panic").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Connections that met a cut line.
    pub fn refused(&self) -> u64 {
        self.line.refused.load(Ordering::SeqCst)
    }

    /// Bytes that went to the server.
    pub fn carried(&self) -> u64 {
        self.line.carried.load(Ordering::SeqCst)
    }
}

impl Line {
    fn connect(self: &Arc<Line>, from: TcpStream, port: u16) {
        if self.cut.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let Ok(to) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let both = [from.try_clone(), to.try_clone()].into_iter().flatten();
        self.open.lock().expect("no panic").extend(both);
        let (from_back, to_back) = (from.try_clone().expect("a stream"), to.try_clone().expect("a stream"));
        let line = Arc::clone(self);
        std::thread::spawn(move || carry(from, to, &line.carried));
        std::thread::spawn(move || carry(to_back, from_back, &AtomicU64::new(0)));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, carried: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
        && to.write_all(&buffer[..count]).is_ok()
    {
        carried.fetch_add(count as u64, Ordering::SeqCst);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.server.stdin = None;
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

//! A Redis server of a test's own.

use super::free_port;
use super::tls::Certificates;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Starts the server in the background, tells its process id, and kills it when the test lets go of standard input, by
/// its end or by its death. It ends when the server is gone: one that holds much lets go of its port late.
const WATCHED: &str =
    r#""$@" </dev/null >/dev/null 2>&1 & pid=$!; echo $pid; read -r _; exec 2>/dev/null; kill -9 $pid; wait $pid"#;

/// A server on loopback that keeps nothing on disk; killed when dropped.
pub struct Redis {
    program: PathBuf,
    dir: TempDir,
    port: u16,
    password: Option<String>,
    /// Certificate, key, and the authority that has signed it, where it speaks TLS.
    tls: Option<[PathBuf; 3]>,
    life: Option<Life>,
}

struct Life {
    shell: Child,
    pid: u32,
}

impl Redis {
    /// Starts a server on a free port; nothing after saying what is skipped where there is none. The program is
    /// `$TIDEMILL_REDIS`, else `redis-server` on the path.
    pub fn start(what: &str) -> Option<Redis> {
        Redis::start_with(what, None)
    }

    /// The same, speaking TLS and nothing else.
    pub fn start_tls(what: &str, made: &Certificates) -> Option<Redis> {
        let (certificate, key) = made.server();
        Redis::start_with(what, Some([certificate, key, made.ca()]))
    }

    fn start_with(what: &str, tls: Option<[PathBuf; 3]>) -> Option<Redis> {
        let program = std::env::var_os("TIDEMILL_REDIS").filter(|path| !path.is_empty());
        let program = program.map_or_else(|| PathBuf::from("redis-server"), PathBuf::from);
        let found = Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success());
        if !found {
            println!(
                "skipped: {what}: there is no redis-server on the path or in TIDEMILL_REDIS (tests/all installs one)"
            );
            return None;
        }
        // It stops at the first option that it does not know.
        let asked = Command::new(&program).args(["--tls-port", "0", "--no-such-option", "1"]).output();
        let speaks = asked.is_ok_and(|output| {
            !String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains(">>> 'tls-port")
        });
        if tls.is_some() && !speaks {
            println!("skipped: {what}: this redis-server is built without TLS");
            return None;
        }
        let dir = TempDir::new().expect("a temporary folder");
        // Another process may take the port before the server does: then another is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut redis = Redis {
                program: program.clone(),
                dir: TempDir::new_in(dir.path()).expect("a folder"),
                port,
                password: None,
                tls: tls.clone(),
                life: None,
            };
            if redis.live() {
                redis.dir = dir;
                return Some(redis);
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts a life of the server; whether it answers.
    fn live(&mut self) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHED, "sh"]).arg(&self.program);
        match &self.tls {
            None => drop(command.arg("--port").arg(self.port.to_string())),
            Some([certificate, key, ca]) => {
                command.args(["--port", "0", "--tls-auth-clients", "no", "--tls-port", &self.port.to_string()]);
                command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
                command.arg("--tls-ca-cert-file").arg(ca);
            }
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(self.dir.path());
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let pid = line.trim().parse().expect("a process id");
        self.life = Some(Life { shell, pid });
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            // Another server may have been there before.
            let ours = self.try_ask::<String>(&["INFO", "server"]);
            if ours.is_ok_and(|info| info.contains(&format!("process_id:{pid}\r\n"))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://…` or `rediss://…`, with the password if there is one.
    pub fn url(&self) -> String {
        let who = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{who}127.0.0.1:{}/0", self.port)
    }

    /// Asks for a password from now on.
    pub fn require(&mut self, password: &str) {
        self.ask::<()>(&["CONFIG", "SET", "requirepass", password]);
        self.password = Some(password.to_owned());
    }

    /// One command.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn try_ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let client = match &self.tls {
            None => redis::Client::open(self.url())?,
            Some([.., ca]) => {
                let root_cert = Some(std::fs::read(ca).expect("a file"));
                redis::Client::build_with_tls(self.url(), redis::TlsCertificates { client_tls: None, root_cert })?
            }
        };
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        command.iter().fold(&mut redis::Cmd::new(), |cmd, arg| cmd.arg(*arg)).query(&mut connection)
    }

    /// Stops the process without ending it, as a machine that hangs.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.life.as_ref().expect("alive").pid.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Kills the server: what it held is lost.
    pub fn kill(&mut self) {
        if let Some(mut life) = self.life.take() {
            // The shell kills the server when its standard input closes, and ends.
            drop(life.shell.stdin.take());
            let _ = life.shell.wait();
        }
    }

    /// Starts it again, empty, on the same port.
    pub fn start_again(&mut self) {
        self.kill();
        assert!(self.live(), "the server starts again on port {}", self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

//! `bench serving_infer`: scores over HTTP by the Open Inference Protocol, from a server in a process of its own, with batches and kept answers and
//! without; beside another server that answers the same requests, if one is given.
//!
//! A closed loop: each connection asks again when it has its answer. Requests are one row of 20 numbers as bytes, made beforehand.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::end_to_end::Scratch;
use super::score_models::{self, INPUTS};
use crate::registry::{By, CHAMPION, Content, Registration, Registry, Signature};

/// Connections of the loops.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Requests that are made beforehand; with the cache on, each comes often.
const BODIES: usize = 500;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// This program, which serves.
    pub program: PathBuf,
    /// `trees`, `mlp` or `logistic`.
    pub model: String,
    /// How long each loop runs, all turns together.
    pub seconds: f64,
    /// Turns that the servers take; the figures are those of the median by requests per second.
    pub turns: usize,
    /// Another server that answers `/v2/models/<model>/infer`, and its process.
    pub peer: Option<(SocketAddr, u32)>,
    /// Where to leave the model (`<model>.onnx`), for another server to load.
    pub keep: Option<PathBuf>,
}

/// One server at one number of connections.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// `alone` (each request by itself), `batches`, `kept answers`, or `peer`.
    pub server: String,
    /// Connections.
    pub connections: usize,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Latency in microseconds.
    pub p50_us: u64,
    /// Latency in microseconds.
    pub p99_us: u64,
    /// Processor time of the server for a request, in microseconds.
    pub server_cpu_us: f64,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model.
    pub model: String,
    /// One line for each server and number of connections.
    pub lines: Vec<Line>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["server", "connections", "requests/s", "p50 us", "p99 us", "CPU us/request"];
        writeln!(f, "{:<14}{:>12}{:>12}{:>9}{:>9}{:>16}", head[0], head[1], head[2], head[3], head[4], head[5])?;
        for l in &self.lines {
            let Line { server, connections, requests_per_s, p50_us, p99_us, server_cpu_us } = l;
            writeln!(
                f,
                "{server:<14}{connections:>12}{requests_per_s:>12.0}{p50_us:>9}{p99_us:>9}{server_cpu_us:>16.0}"
            )?;
        }
        Ok(())
    }
}

/// Measures.
///
/// # Errors
/// When a server cannot be started or reached, or answers otherwise than it should.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let dir = Scratch::new("serving-infer")?;
    let all = score_models::all();
    let Some(model) = all.iter().find(|model| model.name() == options.model) else {
        bail!(
            "there is no model {}; there are {}",
            options.model,
            all.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ")
        );
    };
    let place = dir.0.join("registry").display().to_string();
    let content = Content::Bytes(model.encode());
    if let Some(keep) = &options.keep {
        std::fs::create_dir_all(keep).with_context(|| format!("cannot make {}", keep.display()))?;
        let path = keep.join(format!("{}.onnx", model.name()));
        std::fs::write(&path, model.encode()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut registration = Registration::new(model.name(), content, Signature::default(), By::new("bench", "a bench"));
    registration.alias = Some(CHAMPION.to_owned());
    Registry::open(&place)?.register(registration)?;

    let requests = requests(model.name());
    let servers = [("alone", "batch=1"), ("batches", "batch=256"), ("kept answers", "batch=256,cache=1h")]
        .map(|(name, settings)| Server::start(options, &dir.0, &place, settings).map(|server| (name, server)));
    let servers: Vec<(&str, Server)> = servers.into_iter().collect::<anyhow::Result<_>>()?;
    let mut targets: Vec<(&str, SocketAddr, u32)> =
        servers.iter().map(|(name, server)| (*name, server.address, server.child.id())).collect();
    targets.extend(options.peer.map(|(address, pid)| ("peer", address, pid)));
    let turn = Duration::from_secs_f64(options.seconds / options.turns.max(1) as f64);
    let mut lines = Vec::new();
    for connections in CONNECTIONS {
        let mut turns: Vec<Vec<Line>> = vec![Vec::new(); targets.len()];
        // They take turns, so that a machine that slows down slows down all.
        for _ in 0..options.turns.max(1) {
            for ((name, address, pid), turns) in targets.iter().zip(&mut turns) {
                turns.push(measure(name, *address, *pid, connections, turn, &requests)?);
            }
        }
        for mut turns in turns {
            turns.sort_by(|a, b| a.requests_per_s.total_cmp(&b.requests_per_s));
            lines.push(turns.swap_remove(turns.len() / 2));
        }
    }
    Ok(Report { model: model.name().to_owned(), lines })
}

/// Whole requests, ready to be sent.
fn requests(model: &str) -> Vec<Vec<u8>> {
    let json = format!(
        r#"{{"inputs":[{{"name":"X","shape":[1,{INPUTS}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        4 * INPUTS
    );
    let head = format!(
        "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: {}\r\nContent-Length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + 4 * INPUTS
    );
    let request = |row: [f32; INPUTS]| {
        let mut request = head.clone().into_bytes();
        row.iter().for_each(|x| request.extend(x.to_le_bytes()));
        request
    };
    score_models::rows(BODIES).into_iter().map(request).collect()
}

/// A server of ours; killed when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(options: &Options, dir: &std::path::Path, registry: &str, settings: &str) -> anyhow::Result<Server> {
        let data = dir.join(settings.replace(['=', ','], "-"));
        let mut child = Command::new(&options.program)
            .args(["serve", "--listen", "127.0.0.1:0", "--registry", registry, "--infer", settings, "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", options.program.display()))?;
        let Some(stderr) = child.stderr.take() else { bail!("the server has no standard error") };
        let mut lines = BufReader::new(stderr).lines();
        let mut told = String::new();
        let address = loop {
            let Some(line) = lines.next() else { bail!("the server does not serve: {told}") };
            let line = line.context("the server's standard error")?;
            match line.split_once("serving: ").and_then(|(_, url)| url.rsplit('/').next()?.parse().ok()) {
                Some(address) => break address,
                None => told = line,
            }
        };
        Ok(Server { child, address })
    }
}

fn measure(
    name: &str,
    address: SocketAddr,
    pid: u32,
    connections: usize,
    time: Duration,
    requests: &[Vec<u8>],
) -> anyhow::Result<Line> {
    let barrier = Barrier::new(connections + 1);
    let mut cpu = 0.0;
    let mut spent = Duration::ZERO;
    let all: Vec<anyhow::Result<Vec<u64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let begun = connect(address, requests);
                    barrier.wait();
                    begun.and_then(|mut connection| ask(&mut connection, requests, number * 37, time))
                })
            })
            .collect();
        barrier.wait();
        let (before, start) = (cpu_seconds(pid), Instant::now());
        let all = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked"))))
            .collect();
        spent = start.elapsed();
        cpu = cpu_seconds(pid) - before;
        all
    });
    let mut latencies = Vec::new();
    for part in all {
        latencies.extend(part.with_context(|| format!("{name} at {address}"))?);
    }
    ensure!(!latencies.is_empty(), "{name} answered nothing within {time:?}");
    latencies.sort_unstable();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    Ok(Line {
        server: name.to_owned(),
        connections,
        requests_per_s: latencies.len() as f64 / spent.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        server_cpu_us: cpu * 1e6 / latencies.len() as f64,
    })
}

/// A connection on which one request was answered already, so that nothing is loaded while it is measured.
fn connect(address: SocketAddr, requests: &[Vec<u8>]) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut connection = (stream, Vec::with_capacity(4096));
    one(&mut connection, &requests[0])?;
    Ok(connection)
}

fn ask(
    connection: &mut (TcpStream, Vec<u8>),
    requests: &[Vec<u8>],
    first: usize,
    time: Duration,
) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    let start = Instant::now();
    let mut next = first;
    while start.elapsed() < time {
        let begun = Instant::now();
        one(connection, &requests[next % requests.len()])?;
        latencies.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        next += 1;
    }
    Ok(latencies)
}

/// Sends a request and reads its answer to the end.
fn one((stream, buffer): &mut (TcpStream, Vec<u8>), request: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request)?;
    buffer.clear();
    let mut chunk = [0u8; 4096];
    loop {
        let n = stream.read(&mut chunk)?;
        ensure!(n > 0, "the connection was closed");
        buffer.extend_from_slice(&chunk[..n]);
        let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end]).context("the answer's head")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "it answered {head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let length = length.context("the answer does not say how long it is")?;
        if buffer.len() >= end + 4 + length {
            return Ok(());
        }
    }
}

/// Processor time of a process so far, user and system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th fields after it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    // SAFETY: it reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if per_second > 0 { ticks / per_second as f64 } else { 0.0 }
}

//! `bench serving`: features of entities over HTTP, from Redis, by a server in a process of its own; beside another server that
//! answers the same requests, if one is given.
//!
//! In a **closed loop** each connection asks again when it has its answer: that gives requests per second and the processor
//! time of one request. In an **open loop** requests are due at a fixed rate, and latency counts from when one was due, so that a
//! server that stalls is not asked less for it. Requests are made beforehand; what is sent and read costs the load
//! generator little, and is counted apart.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::{SecretText, SplitMix64, wall_clock};
use crate::ops::key;
use crate::plan::RedisAddress;
use crate::plan::model::{Clock, RedisLayout, RedisPlan};
use crate::store::online::redis::row_key;
use crate::store::online::{ColumnSchema, RedisRows, RedisStore, Stamp, ViewSchema};
use crate::telemetry::process::cpu_seconds;

/// Feature columns, all `f64`: `s_1d` to `s_20d`.
pub const COLUMNS: usize = 20;
/// Entities in one request of each kind.
const ROWS: [usize; 2] = [1, 100];
/// Requests that are made beforehand.
const BODIES: usize = 500;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// This program, which serves.
    pub program: PathBuf,
    /// The Redis server. Keys are written under a prefix of their own and removed afterwards.
    pub redis: String,
    /// Entities; the keys are 0 and up.
    pub entities: usize,
    /// How long each loop runs.
    pub seconds: f64,
    /// Connections of the closed loop, and most of the open one.
    pub connections: usize,
    /// Requests per second of the open loop; else half of what the closed loop got.
    pub rate: Option<f64>,
    /// Another server that answers `/get-online-features` for view `customer` with the same features, and its process.
    pub peer: Option<(String, u32)>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Entities.
    pub entities: usize,
    /// Feature columns.
    pub columns: usize,
    /// Connections.
    pub connections: usize,
    /// One for each server, kind of request and state of the cache.
    pub cases: Vec<Case>,
    /// By rows in a request: how many times the peer's requests per processor second ours are, without a cache.
    pub per_core_ratio: Vec<(usize, f64)>,
}

/// One server asked one kind of request.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// `tidemill`, `tidemill, cached` or `peer`.
    pub server: String,
    /// Entities in a request.
    pub rows: usize,
    /// Closed loop.
    pub closed: Loop,
    /// Open loop.
    pub open: Loop,
    /// Rate of the open loop.
    pub open_rate: f64,
}

/// What a loop showed.
#[derive(Clone, Debug, Serialize)]
pub struct Loop {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Latency in microseconds.
    pub p50_us: u64,
    /// Latency in microseconds.
    pub p99_us: u64,
    /// Latency in microseconds.
    pub p999_us: u64,
    /// Processor time of the server for a request, in microseconds, user and system.
    pub server_cpu_us: f64,
    /// Processor time of the load generator for a request, in microseconds.
    pub client_cpu_us: f64,
}

/// A server under test.
struct Target {
    address: String,
    pid: u32,
}

/// Measures.
///
/// # Errors
/// When a server cannot be reached or answers otherwise than it should.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let prefix = format!("tidemill_bench_{nanos:x}");
    let dir = std::env::temp_dir().join(&prefix);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fill(options, &prefix)?;
    let job = dir.join("job.yaml");
    std::fs::write(&job, job_file(&options.redis, &prefix)).context("the job's file")?;
    let measured = measure(options, &job, &dir);
    empty(options, &prefix)?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    let cases = measured?;
    let closed = |server: &str, rows: usize| {
        let case = cases.iter().find(|case| case.server == server && case.rows == rows)?;
        (case.closed.server_cpu_us > 0.0).then_some(case.closed.server_cpu_us)
    };
    let ratio = |rows: usize| Some((rows, closed("peer", rows)? / closed("tidemill", rows)?));
    let per_core_ratio = ROWS.into_iter().filter_map(ratio).collect();
    Ok(Report { entities: options.entities, columns: COLUMNS, connections: options.connections, cases, per_core_ratio })
}

fn measure(options: &Options, job: &std::path::Path, dir: &std::path::Path) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for cached in [false, true] {
        let server = Server::start(options, job, dir, cached)?;
        for rows in ROWS {
            let name = if cached { "tidemill, cached" } else { "tidemill" };
            cases.push(case(options, name, rows, &server.target)?);
        }
    }
    if let Some((address, pid)) = &options.peer {
        let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let target = Target { address, pid: *pid };
        for rows in ROWS {
            cases.push(case(options, "peer", rows, &target)?);
        }
    }
    Ok(cases)
}

fn case(options: &Options, server: &str, rows: usize, target: &Target) -> anyhow::Result<Case> {
    let requests = Arc::new(requests(options, rows, &target.address));
    // Connections, caches and code paths are warm before anything counts.
    drive(options, target, &requests, None, (options.seconds / 5.0).min(1.0))?;
    let closed = drive(options, target, &requests, None, options.seconds)?;
    let open_rate = options.rate.unwrap_or(closed.requests_per_s / 2.0).max(1.0);
    let open = drive(options, target, &requests, Some(open_rate), options.seconds)?;
    Ok(Case { server: server.to_owned(), rows, closed, open, open_rate })
}

/// Requests for random entities.
fn requests(options: &Options, rows: usize, host: &str) -> Vec<Vec<u8>> {
    let features: Vec<String> = (1..=COLUMNS).map(|n| format!("customer:s_{n}d")).collect();
    let mut random = SplitMix64::new(rows as u64);
    let request = |_| {
        let ids: Vec<u64> = (0..rows).map(|_| random.below(options.entities as u64)).collect();
        let body = serde_json::json!({"features": features, "entities": {"customer_id": ids}}).to_string();
        let length = body.len();
        format!(
            "POST /get-online-features HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    (0..BODIES).map(request).collect()
}

/// Asks for so many seconds, at a rate or as fast as answers come.
fn drive(
    options: &Options,
    target: &Target,
    requests: &Arc<Vec<Vec<u8>>>,
    rate: Option<f64>,
    seconds: f64,
) -> anyhow::Result<Loop> {
    let before = (cpu_of(target.pid), cpu_seconds().unwrap_or_default());
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for connection in 0..options.connections {
        let mut stream = Connection::open(&target.address)?;
        let (requests, connections) = (Arc::clone(requests), options.connections);
        // A thread each: a runtime's timer is a millisecond late.
        tasks.push(std::thread::spawn(move || {
            let mut latency = Histogram::<u64>::new_with_max(60_000_000, 3)?;
            for n in 0u64.. {
                let due = match rate {
                    None => Instant::now(),
                    // Each connection has its share of the schedule.
                    Some(rate) => {
                        let place = n * connections as u64 + connection as u64;
                        let due = started + Duration::from_secs_f64(place as f64 / rate);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        due
                    }
                };
                if due >= until {
                    break;
                }
                let request = &requests[(n as usize * connections + connection) % requests.len()];
                stream.ask(request)?;
                latency.saturating_record(due.elapsed().as_micros() as u64);
            }
            Ok::<_, anyhow::Error>(latency)
        }));
    }
    let mut latency = Histogram::<u64>::new_with_max(60_000_000, 3)?;
    for task in tasks {
        let part = task.join().map_err(|_| anyhow::anyhow!("a connection's thread ended with a panic"))?;
        latency.add(&part?)?;
    }
    let took = started.elapsed().as_secs_f64();
    let server = cpu_of(target.pid) - before.0;
    let client = cpu_seconds().unwrap_or_default() - before.1;
    let requests = latency.len();
    ensure!(requests > 0, "no request was answered within {seconds} s");
    let each = |seconds: f64| seconds * 1e6 / requests as f64;
    Ok(Loop {
        requests,
        requests_per_s: requests as f64 / took,
        p50_us: latency.value_at_quantile(0.5),
        p99_us: latency.value_at_quantile(0.99),
        p999_us: latency.value_at_quantile(0.999),
        server_cpu_us: each(server),
        client_cpu_us: each(client),
    })
}

/// A connection that is kept open.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; 256 * 1024] })
    }

    /// Sends a request and reads its answer, of which only the head is looked at.
    fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(read > 0, "the server hung up");
            filled += read;
            let Some(head) = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else {
                ensure!(filled < self.buffer.len(), "the head of an answer is too long");
                continue;
            };
            let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
            if !text.starts_with("http/1.1 200") {
                let body = String::from_utf8_lossy(&self.buffer[head..filled]);
                bail!("the server answered {}: {}", text.lines().next().unwrap_or_default(), body.trim());
            }
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.context("an answer without a length")?.trim().parse()?;
            let mut missing = (head + 4 + length).saturating_sub(filled);
            while missing > 0 {
                let end = missing.min(self.buffer.len());
                let read = self.stream.read(&mut self.buffer[..end])?;
                ensure!(read > 0, "the server hung up");
                missing -= read;
            }
            return Ok(());
        }
    }
}

/// The server, as a process of this program.
struct Server {
    child: Child,
    target: Target,
}

impl Server {
    fn start(options: &Options, job: &std::path::Path, dir: &std::path::Path, cached: bool) -> anyhow::Result<Server> {
        let mut command = Command::new(&options.program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.join("data")).arg("--online").arg(job);
        command.args(["--feature-cache-ttl", if cached { "60s" } else { "0s" }]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said = child.stderr.take().context("the server's words")?;
        let pid = child.id();
        let mut server = Server { child, target: Target { address: String::new(), pid } };
        let mut words = String::new();
        for line in BufReader::new(said).lines() {
            let line = line?;
            if let Some(url) = line.strip_prefix("serving: http://") {
                server.target.address = url.trim_end_matches('/').to_owned();
                return Ok(server);
            }
            words = words + &line + "\n";
        }
        bail!("the server did not start: {words}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of a process and its descendants so far, in seconds; 0 where the system does not tell.
fn cpu_of(pid: u32) -> f64 {
    // SAFETY: it looks a number up.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        processes.push((id, number(1) as u32, (number(11) + number(12)) / per_second));
    }
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(processes.iter().filter(|(_, of, _)| *of == parent).map(|(id, ..)| *id));
        at += 1;
    }
    processes.iter().filter(|(id, ..)| family.contains(id)).map(|(.., seconds)| seconds).sum()
}

/// A job whose view has the columns; it is never run.
fn job_file(redis: &str, prefix: &str) -> String {
    let windows: Vec<String> = (1..=COLUMNS).map(|n| format!("{n}d")).collect();
    format!(
        "job: serving\nversion: 1\nsources:\n  tx:\n    generator: {{stream: transactions, seed: 1, customers: 10, terminals: 10, start: \"2026-01-05\", rate: max, duration: 1d}}\n    id: tx_id\n    event_time: ts\nfeatures:\n  customer:\n    from: tx\n    entity: [customer_id]\n    aggregates: {{s: {{sum: amount, over: [{}]}}}}\nsinks:\n  online: {{redis: {{url: {}, prefix: {prefix}}}, refresh: 1s}}\n",
        windows.join(", "),
        serde_json::Value::from(redis),
    )
}

fn place(options: &Options, prefix: &str) -> anyhow::Result<RedisPlan> {
    let url = SecretText::parse(&options.redis).map_err(anyhow::Error::msg)?;
    let shown = RedisAddress::resolve(&url).map_err(anyhow::Error::msg)?.to_string();
    Ok(RedisPlan { url, shown, prefix: prefix.to_owned(), layout: RedisLayout::Native, ca: None })
}

/// The value of a feature of an entity, so that a peer can be given the same.
pub fn value(entity: usize, column: usize) -> f64 {
    (entity * 7 + column) as f64 / 3.0
}

/// Writes the entities' values as a job would.
fn fill(options: &Options, prefix: &str) -> anyhow::Result<()> {
    let column = |name: String, data_type| ColumnSchema::new(name, &data_type).context("a type that is held");
    let schema = ViewSchema {
        view: "customer".into(),
        entity: vec![column("customer_id".into(), DataType::Int64)?],
        columns: (1..=COLUMNS).map(|n| column(format!("s_{n}d"), DataType::Float64)).collect::<Result<_, _>>()?,
        ttl: None,
        job: "serving".into(),
        job_version: 1,
    };
    let store = RedisStore::open(&place(options, prefix)?, Clock::Event, &[schema], None)?;
    let ids = Int64Array::from_iter_values(0..options.entities as i64);
    let keys = key::encode(&[Arc::new(ids) as ArrayRef])?;
    let now = wall_clock();
    let values: Vec<ArrayRef> = (0..COLUMNS)
        .map(|c| Arc::new(Float64Array::from_iter_values((0..options.entities).map(|id| value(id, c)))) as ArrayRef)
        .collect();
    let times = vec![now; options.entities];
    let for_ever = vec![i64::MAX; options.entities];
    let rows =
        RedisRows { view: 0, keys: keys.iter().collect(), event_time: &times, valid_until: &for_ever, values: &values };
    let stamp = Stamp { generation: store.generation(), tick: 1 };
    store.writer("0").put(stamp, Some(now), &[rows], &|| true)?.context("redis went away")?;
    Ok(())
}

/// Removes what [`fill`] wrote.
fn empty(options: &Options, prefix: &str) -> anyhow::Result<()> {
    let url = SecretText::parse(&options.redis).map_err(anyhow::Error::msg)?;
    let address = RedisAddress::resolve(&url).map_err(anyhow::Error::msg)?;
    let mut connection = super::online::plain_connection(&address)?;
    let keys = key::encode(&[Arc::new(Int64Array::from_iter_values(0..options.entities as i64)) as ArrayRef])?;
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| row_key(prefix, "customer", key)).collect();
    for some in keys.chunks(500) {
        let mut unlink = redis::cmd("UNLINK");
        for key in some {
            unlink.arg(key);
        }
        unlink.exec(&mut connection)?;
    }
    redis::cmd("UNLINK").arg(prefix).exec(&mut connection)?;
    Ok(())
}

//! Running a job and looking at what it left.

pub mod browser;
pub mod kafka;
pub mod lake;
pub mod redis;
pub mod rows;
pub mod s3;
pub mod serve;
#[path = "../../../src/net/kit.rs"]
pub mod tls;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tidemill::engine::{self, RunOptions, RunSummary, StopHandle};
use tidemill::plan::model::OnlinePlace;
use tidemill::store::offline::{read_table, table_path};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A client of what is served here.
pub fn http(timeout: Duration) -> reqwest::blocking::Client {
    // The library has no cryptography of its own, and wants some for clients that never need it.
    tidemill::net::provide();
    reqwest::blocking::Client::builder().timeout(timeout).no_proxy().build().expect("a client")
}

/// A port that nobody listens on, and that the system gives to no connection: a server that starts again finds it free.
pub fn free_port() -> u16 {
    // Below what Linux gives to connections, and above what packaged servers listen on.
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other processes begin elsewhere.
    let first = (std::process::id() % 60 * 200) as u16;
    for _ in PORTS {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {} and {}", PORTS.start, PORTS.end);
}

/// A folder of the golden data, or nothing after saying why the test is skipped.
///
/// The data is `$TIDEMILL_DATA`, else `../shared/data` beside the repository; it is no part of the repository.
pub fn golden_data(folder: &str) -> Option<PathBuf> {
    let base = std::env::var_os("TIDEMILL_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let path = base.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: golden tests on `{folder}`: no such folder in TIDEMILL_DATA or ../shared/data");
    None
}

/// The mapping of our column names to those of a golden file, such as `handbook_columns`.
pub fn golden_columns(name: &str) -> BTreeMap<String, String> {
    let path = root().join(format!("tests/golden/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("a mapping of names")
}

/// The Python that has `tests/python/requirements.txt`, as `tests/all` makes it; nothing after saying what is skipped.
pub fn python(what: &str) -> Option<PathBuf> {
    let python = std::env::var_os("TIDEMILL_PYTHON").filter(|path| !path.is_empty()).map(PathBuf::from);
    if python.is_none() {
        println!("skipped: {what}: TIDEMILL_PYTHON names no Python (tests/all makes one)");
    }
    python
}

/// Whether `tests/all --full` asks for the long suites.
pub fn full() -> bool {
    std::env::var_os("TIDEMILL_TESTS").is_some_and(|v| v == "full")
}

/// One job to be run: its file, what `${…}` stands for, changes by `--set`, and how it runs.
#[derive(Clone)]
pub struct Job {
    file: PathBuf,
    env: Vec<(String, String)>,
    sets: Vec<(String, String)>,
    workers: usize,
    state: Option<PathBuf>,
    replay: Option<PathBuf>,
    stay: Option<StopHandle>,
}

impl Job {
    /// A job of the repository, such as `dataflows/fraud_handbook.yaml`, or of a test's own folder.
    pub fn new(file: impl AsRef<Path>) -> Self {
        Job {
            file: root().join(file),
            env: Vec::new(),
            sets: Vec::new(),
            workers: 1,
            state: None,
            replay: None,
            stay: None,
        }
    }

    /// What `${name}` stands for.
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().display().to_string()));
        self
    }

    /// As `--set key=value`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sets.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As `--workers N`.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// As `--state DIR`: keeps the tick log there.
    pub fn state(mut self, dir: &Path) -> Self {
        self.state = Some(dir.to_owned());
        self
    }

    /// Cuts the input by the tick log in this folder.
    pub fn replay(mut self, dir: &Path) -> Self {
        self.replay = Some(dir.to_owned());
        self
    }

    /// Without `--until-end`: the job stays until it is stopped.
    pub fn stay(mut self, stop: StopHandle) -> Self {
        self.stay = Some(stop);
        self
    }

    /// Where the job keeps its online values.
    pub fn online(&self) -> OnlinePlace {
        let env = |name: &str| (name == "LAKE").then(|| "lake".to_owned());
        let (plan, _) = engine::load(&self.file, &self.sets, &env).unwrap_or_else(|faults| panic!("{faults}"));
        plan.online.expect("an online sink").store
    }

    /// Runs the job to its end, with its tables in a folder of their own.
    pub fn run(self) -> Lake {
        let dir = TempDir::new().expect("a temporary folder");
        let lake = dir.path().join("lake");
        let env = |name: &str| match name {
            "LAKE" => Some(lake.display().to_string()),
            _ => self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()),
        };
        let (plan, warnings) = engine::load(&self.file, &self.sets, &env).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(warnings.is_empty(), "{warnings:?}");
        engine::check(&plan).unwrap_or_else(|faults| panic!("{faults}"));
        let online = plan.online.as_ref().map(|o| o.store.clone());
        let tables = plan.offline.as_ref().map(|o| PathBuf::from(&o.uri)).expect("the job writes tables");
        let options = RunOptions {
            workers: self.workers,
            until_end: self.stay.is_none(),
            stop: self.stay.unwrap_or_default(),
            state_dir: self.state,
            replay: self.replay,
            ..RunOptions::default()
        };
        let summary = engine::run(plan, options).unwrap_or_else(|error| panic!("{error}"));
        Lake { _dir: dir, tables, online, summary }
    }
}

/// The rows of a table below a directory in one batch, in no order; all columns unless some are named.
pub fn table_in(directory: &Path, name: &str, columns: Option<&[&str]>) -> RecordBatch {
    let batches =
        read_table(&table_path(directory, name), columns, None).unwrap_or_else(|error| panic!("table {name}: {error}"));
    let schema = batches.first().unwrap_or_else(|| panic!("table {name} has no rows")).schema();
    concat_batches(&schema, &batches).expect("parts of one table have one schema")
}

/// What a run left behind; removed with the value.
pub struct Lake {
    _dir: TempDir,
    tables: PathBuf,
    /// The online store, if the job has one.
    pub online: Option<OnlinePlace>,
    /// What the run reported.
    pub summary: RunSummary,
}

impl Lake {
    /// A table's rows in one batch, in no order; all columns unless some are named.
    pub fn table(&self, name: &str, columns: Option<&[&str]>) -> RecordBatch {
        table_in(&self.tables, name, columns)
    }

    /// Number of rows of a table; none when it was never written.
    pub fn count(&self, name: &str) -> usize {
        let path = table_path(&self.tables, name);
        if !path.exists() {
            return 0;
        }
        read_table(&path, None, None)
            .unwrap_or_else(|e| panic!("table {name}: {e}"))
            .iter()
            .map(RecordBatch::num_rows)
            .sum()
    }
}

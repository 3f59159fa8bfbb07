//! `bench dataset`: a point-in-time join of many feature rows with few rows of entities and times.
//!
//! The table has rows of customers over sixty days, in files as a job leaves them; the entities are at random times of the
//! same customers. The join runs in a process of its own, so that its peak of memory is seen, and beside it a hand-written
//! one that holds the whole table: both must find the same bits. `benches/dataset_peer.py` has DuckDB do the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::end_to_end::Scratch;
use crate::base::{DAY, ORD_COLUMN, Ord64, Position, TIME_COLUMN, hash_u64, parse_time};
use crate::store::offline::{TableCommitter, TableSpec, TableWriter, WriterOptions, read_table, table_path};
use crate::store::pit::{self, Asked, Entities, Query, Rows, View, ViewColumn};

/// The table.
const TABLE: &str = "features/customer";
/// Columns of features.
const FEATURES: usize = 10;
/// Days that the rows span.
const DAYS: u64 = 60;
/// Rows of a commit: each leaves a file in each of its dates.
const COMMIT_ROWS: u64 = 50_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// This program.
    pub program: PathBuf,
    /// Rows of entities.
    pub labels: u64,
    /// Rows of features.
    pub features: u64,
    /// Times each side runs; figures are medians.
    pub runs: usize,
    /// Where to leave the files.
    pub keep: Option<PathBuf>,
}

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Rows of entities.
    pub labels: u64,
    /// Rows of features.
    pub features: u64,
    /// Files of the table.
    pub files: usize,
    /// Seconds of the join, from the first read to the set's last byte on disk.
    pub seconds: f64,
    /// Most memory that its process had, in bytes.
    pub peak_bytes: u64,
    /// Seconds of the hand-written join, without writing anything.
    pub baseline_seconds: f64,
    /// Rows of entities that found a row of features.
    pub found: u64,
    /// Whether both found the same bits.
    pub same_results: bool,
}

/// One join, in a process of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Seconds.
    pub seconds: f64,
    /// Most memory that the process had, in bytes; 0 where the system does not say.
    pub peak_bytes: u64,
    /// Rows of the set.
    pub rows: u64,
}

/// Measures.
///
/// # Errors
/// When a file cannot be written, or a join fails.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let scratch = Scratch::new("dataset")?;
    let dir = options.keep.clone().unwrap_or_else(|| scratch.0.clone());
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let files = make_table(&dir.join("lake"), options.features)?;
    make_entities(&dir.join("entities.parquet"), options.labels, customers(options.features))?;
    let mut joins = Vec::new();
    let mut baselines = Vec::new();
    let mut same_results = true;
    let mut found = 0;
    for _ in 0..options.runs.max(1) {
        let output = Command::new(&options.program).args(["bench", "dataset", "--json", "--only"]).arg(&dir).output();
        let output = output.context("cannot start the join")?;
        if !output.status.success() {
            bail!("the join failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let joined: Joined = serde_json::from_slice(&output.stdout).context("the join's figures")?;
        ensure!(joined.rows == options.labels, "{} rows of {} came out", joined.rows, options.labels);
        joins.push(joined);
        let started = Instant::now();
        let expected = by_hand(&dir)?;
        baselines.push(started.elapsed().as_secs_f64());
        same_results &= same(&dir.join("set.parquet"), &expected)?;
        found = expected.iter().filter(|row| row.is_some()).count() as u64;
    }
    joins.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    baselines.sort_by(f64::total_cmp);
    let joined = &joins[joins.len() / 2];
    Ok(Report {
        labels: options.labels,
        features: options.features,
        files,
        seconds: joined.seconds,
        peak_bytes: joins.iter().map(|joined| joined.peak_bytes).max().unwrap_or(0),
        baseline_seconds: baselines[baselines.len() / 2],
        found,
        same_results,
    })
}

/// Joins the files that another process has made in `dir`.
///
/// # Errors
/// When they are not there.
pub fn join(dir: &Path) -> anyhow::Result<Joined> {
    let feature = |index: usize| ViewColumn { column: format!("f{index}"), name: format!("customer__f{index}") };
    let view = View {
        table: TABLE.to_owned(),
        keys: vec!["customer_id".to_owned()],
        columns: (0..FEATURES).map(feature).collect(),
        ttl: None,
    };
    let entities = Entities { file: dir.join("entities.parquet"), time: Some("at".to_owned()), views: vec![view] };
    let query = Query {
        job: "bench".to_owned(),
        lake: dir.join("lake"),
        rows: Rows::Entities(entities),
        at: Asked::Newest,
        memory_bytes: Query::MEMORY_BYTES,
    };
    let started = Instant::now();
    let set = pit::build(&query, &dir.join("set.parquet"))?;
    Ok(Joined { seconds: started.elapsed().as_secs_f64(), peak_bytes: peak_bytes(), rows: set.rows })
}

/// The most memory that this process has had, where the system says.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A customer has about a hundred rows.
fn customers(features: u64) -> u64 {
    (features / 100).max(1)
}

fn start() -> anyhow::Result<i64> {
    parse_time("2026-01-01").map_err(anyhow::Error::msg)
}

/// Writes the table in commits, as a job does; the number of its files.
fn make_table(lake: &Path, features: u64) -> anyhow::Result<usize> {
    if lake.exists() {
        fs::remove_dir_all(lake).with_context(|| format!("cannot replace {}", lake.display()))?;
    }
    let names: Vec<String> = (0..FEATURES).map(|index| format!("f{index}")).collect();
    let columns = std::iter::once(("customer_id".to_owned(), DataType::Int64))
        .chain(names.iter().map(|name| (name.clone(), DataType::Float64)))
        .map(|(name, data_type)| (name.clone(), name, data_type));
    let spec = TableSpec::new(TABLE, columns, &["customer_id"])?;
    let options = WriterOptions { job_version: 1, sources: vec!["tx".to_owned()], ..WriterOptions::default() };
    let mut writer = TableWriter::new(lake, &spec, options)?;
    let mut committer = TableCommitter::open(lake, &spec, "bench")?;
    let (start, step) = (start()?, (DAYS as i64 * DAY) / features.max(1) as i64);
    let customers = customers(features);
    let mut files = 0;
    for (epoch, first) in (1..).zip((0..features).step_by(COMMIT_ROWS as usize)) {
        let rows = first..features.min(first + COMMIT_ROWS);
        let time = rows.clone().map(|row| start + row as i64 * step);
        let ord = |row| Ord64::from(Position { source: 0, partition: 0, offset: row }).0;
        let customer = |row: u64| (hash_u64(row ^ 0xc0ff_ee00) % customers) as i64;
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            (TIME_COLUMN, Arc::new(TimestampMicrosecondArray::from_iter_values(time).with_timezone("UTC"))),
            (ORD_COLUMN, Arc::new(UInt64Array::from_iter_values(rows.clone().map(ord)))),
            ("customer_id", Arc::new(Int64Array::from_iter_values(rows.clone().map(customer)))),
        ];
        for (index, name) in (0u64..).zip(&names) {
            // Sums of cents and counts, as features are: some compress well, some do not.
            let value = move |row: u64| {
                let random = hash_u64(row.wrapping_mul(31).wrapping_add(index << 48));
                if index % 2 == 0 { (random % 100_000) as f64 / 100.0 } else { (random % 50) as f64 }
            };
            columns.push((name, Arc::new(Float64Array::from_iter_values(rows.clone().map(value)))));
        }
        writer.append(epoch, &RecordBatch::try_from_iter(columns)?)?;
        let parts = writer.flush()?;
        files += parts.len();
        committer.commit(epoch, &parts)?;
    }
    Ok(files)
}

fn make_entities(path: &Path, labels: u64, customers: u64) -> anyhow::Result<()> {
    let start = start()?;
    let customer = |row: u64| (hash_u64(row ^ 0xbeef) % customers) as i64;
    let at = |row: u64| start + (hash_u64(row ^ 0x5eed) % (DAYS * DAY.unsigned_abs())) as i64;
    let batch = RecordBatch::try_from_iter([
        ("row", Arc::new(Int64Array::from_iter_values(0..labels as i64)) as ArrayRef),
        ("customer_id", Arc::new(Int64Array::from_iter_values((0..labels).map(customer)))),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values((0..labels).map(at)).with_timezone("UTC"))),
    ])?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn read_parquet(path: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?.collect::<Result<_, _>>()?)
}

/// The bits of the features of each row of entities: the whole table in memory, by customer and time.
fn by_hand(dir: &Path) -> anyhow::Result<Vec<Option<[u64; FEATURES]>>> {
    let batches = read_table(&table_path(&dir.join("lake"), TABLE), None, None)?;
    let mut rows: Vec<(i64, i64, u32, u32)> = Vec::new();
    let mut features = Vec::new();
    for (number, batch) in (0u32..).zip(&batches) {
        let (Some(customers), Some(times)) = (batch.column_by_name("customer_id"), batch.column_by_name("event_time"))
        else {
            bail!("the table has other columns")
        };
        let customers = customers.as_primitive::<Int64Type>().values();
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        rows.extend(customers.iter().zip(times).zip(0u32..).map(|((c, t), row)| (*c, *t, number, row)));
        let of =
            |index: usize| batch.column_by_name(&format!("f{index}")).map(|c| c.as_primitive::<Float64Type>().clone());
        features.push((0..FEATURES).map(of).collect::<Option<Vec<_>>>().context("the table has other columns")?);
    }
    rows.sort_unstable();
    let mut found = Vec::new();
    for batch in read_parquet(&dir.join("entities.parquet"))? {
        let customers = batch.column(1).as_primitive::<Int64Type>().values();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>().values();
        for (customer, time) in customers.iter().zip(times) {
            let behind = rows.partition_point(|row| (row.0, row.1) <= (*customer, *time));
            let row = behind.checked_sub(1).map(|at| rows[at]).filter(|row| row.0 == *customer);
            found.push(row.map(|(_, _, batch, row)| {
                std::array::from_fn(|index| features[batch as usize][index].value(row as usize).to_bits())
            }));
        }
    }
    Ok(found)
}

fn same(set: &Path, expected: &[Option<[u64; FEATURES]>]) -> anyhow::Result<bool> {
    let mut last = (i64::MIN, -1);
    for batch in read_parquet(set)? {
        let rows = batch.column(0).as_primitive::<Int64Type>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let place = (times.value(row), rows.value(row));
            if place <= last {
                return Ok(false);
            }
            last = place;
            let Some(expected) = expected.get(rows.value(row) as usize) else { return Ok(false) };
            for index in 0..FEATURES {
                let column = batch.column(3 + index);
                let value = column.as_primitive::<Float64Type>().value(row).to_bits();
                if (!column.is_null(row)).then_some(value) != expected.map(|values| values[index]) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

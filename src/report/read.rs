//! Statistics, alerts and counts of predictions, from Delta tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};

use super::{ReportError, ReportOptions};
use crate::base::{DAY, EventTime};
use crate::monitor::{History, Stat, StatKind, stats_of};
use crate::plan::model::Plan;
use crate::plan::nearest;
use crate::store::StoreError;
use crate::store::offline::{TableReader, table_path};

/// Table of alerts.
const ALERTS: &str = "stats/alerts";
/// All that was read.
pub(super) struct Input {
    /// Directory of the tables.
    pub root: PathBuf,
    /// The models to tell of, by name.
    pub models: Vec<String>,
    /// Statistics by kind.
    pub statistics: BTreeMap<StatKind, History>,
    /// Alerts in the order of their time.
    pub alerts: Vec<AlertRow>,
    /// Predictions by model, version and day.
    pub predictions: BTreeMap<String, BTreeMap<(String, EventTime), u64>>,
    /// Tables that were read: name, version.
    pub tables: Vec<(String, u64)>,
}

/// A row of the table of alerts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AlertRow {
    pub at: EventTime,
    pub since: EventTime,
    pub name: String,
    pub state: String,
    pub severity: String,
    pub model: String,
    pub segment: String,
    pub subject: String,
    pub metric: String,
    pub message: String,
    pub fingerprint: String,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
}

/// Which windows.
#[derive(Clone, Copy, Default)]
struct Range {
    from: Option<EventTime>,
    to: Option<EventTime>,
}

impl Range {
    fn has(self, time: EventTime) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    /// Whether some moment of a day may be in it; of what is no date, everything may be.
    fn may_have(self, date: &str) -> bool {
        let Ok(start) = crate::base::parse_time(date) else { return true };
        self.from.is_none_or(|from| start + DAY > from) && self.to.is_none_or(|to| start < to)
    }
}

/// Statistics of one kind as they were told, from the tables below `root`; nothing where there is no such table.
///
/// # Errors
/// When the table cannot be read.
pub fn history(root: &Path, kind: StatKind) -> Result<History, ReportError> {
    let Some(table) = open(root, kind.table())? else { return Ok(History::default()) };
    statistics(&table, kind, Range::default())
}

/// The newest revision of each statistic and window of one kind, from the tables below `root`.
///
/// # Errors
/// When the table cannot be read.
pub fn newest(root: &Path, kind: StatKind) -> Result<Vec<Stat>, ReportError> {
    let history = history(root, kind)?;
    Ok(history.series().flat_map(|(_, windows)| windows.values().map(|told| told.newest.clone())).collect())
}

pub(super) fn read(plan: &Plan, options: &ReportOptions) -> Result<Input, ReportError> {
    let root = match (&options.tables, &plan.offline) {
        (Some(tables), _) => tables.clone(),
        (None, Some(offline)) => PathBuf::from(&offline.uri),
        (None, None) => return Err(ReportError::NoSink(plan.job.clone())),
    };
    if !root.is_dir() {
        return Err(ReportError::NoDirectory(root.display().to_string()));
    }
    let models = models(plan, options)?;
    let range = Range { from: options.from, to: options.to };
    let mut input = Input {
        models,
        statistics: BTreeMap::new(),
        alerts: Vec::new(),
        predictions: BTreeMap::new(),
        tables: Vec::new(),
        root,
    };
    for kind in StatKind::ALL {
        let Some(table) = open(&input.root, kind.table())? else { continue };
        input.tables.push((kind.table().to_owned(), table.version()));
        input.statistics.insert(kind, statistics(&table, kind, range)?);
    }
    if input.tables.is_empty() {
        let names: Vec<&str> = StatKind::ALL.iter().map(|kind| kind.table()).collect();
        return Err(ReportError::NoStatistics(input.root.display().to_string(), names.join(", ")));
    }
    if let Some(table) = open(&input.root, ALERTS)? {
        input.tables.push((ALERTS.to_owned(), table.version()));
        input.alerts = alerts(&table, range)?;
    }
    for model in &input.models {
        let name = format!("predictions/{model}");
        let Some(table) = open(&input.root, &name)? else { continue };
        input.predictions.insert(model.clone(), predictions(&table, &name, range)?);
        input.tables.push((name, table.version()));
    }
    Ok(input)
}

/// The models to tell of: the one that is asked for, else all that are monitored.
fn models(plan: &Plan, options: &ReportOptions) -> Result<Vec<String>, ReportError> {
    let monitored: Vec<&str> = plan.monitors.iter().map(|m| plan.models[m.model].name.as_str()).collect();
    let list = || match monitored[..] {
        [] => format!("job `{}` watches no model: it has no `monitors`", plan.job),
        _ => format!("job `{}` watches {}", plan.job, monitored.join(", ")),
    };
    match &options.model {
        Some(model) if monitored.contains(&model.as_str()) => Ok(vec![model.clone()]),
        Some(model) if plan.models.iter().any(|m| m.name == *model) => {
            Err(ReportError::Model(format!("model `{model}` is not watched; {}", list())))
        }
        Some(model) => {
            let mend = nearest(model, monitored.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
            let mend = mend.unwrap_or_else(|| format!("; {}", list()));
            Err(ReportError::Model(format!("there is no model `{model}`{mend}")))
        }
        None if monitored.is_empty() => Err(ReportError::Model(format!("{}, so there is nothing to report", list()))),
        None => Ok(monitored.into_iter().map(str::to_owned).collect()),
    }
}

fn open(root: &Path, name: &str) -> Result<Option<TableReader>, ReportError> {
    match TableReader::open(&table_path(root, name), None) {
        Ok(table) => Ok(Some(table)),
        Err(StoreError::NoTable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn statistics(table: &TableReader, kind: StatKind, range: Range) -> Result<History, ReportError> {
    let mut history = History::default();
    for batch in batches(table, range)? {
        let stats = stats_of(kind, &batch).map_err(foreign(kind.table()))?;
        history.extend(stats.into_iter().filter(|stat| range.has(stat.window_start)));
    }
    Ok(history)
}

/// The rows of dates that may be in a range.
fn batches(table: &TableReader, range: Range) -> Result<Vec<RecordBatch>, ReportError> {
    if range.from.is_none() && range.to.is_none() {
        return Ok(table.read(None)?);
    }
    let dates = table.dates()?.into_iter().filter(|date| range.may_have(date));
    let mut batches = Vec::new();
    for date in dates {
        batches.extend(table.read_date(&date)?);
    }
    Ok(batches)
}

fn foreign(table: &str) -> impl Fn(String) -> ReportError + '_ {
    move |reason| ReportError::Foreign { table: table.to_owned(), reason }
}

/// A column as another type.
fn column(batch: &RecordBatch, name: &str, ty: &DataType) -> Result<ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))?;
    cast(column, ty).map_err(|error| format!("column `{name}`: {error}"))
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn alerts(table: &TableReader, range: Range) -> Result<Vec<AlertRow>, ReportError> {
    let mut rows = Vec::new();
    for batch in batches(table, range)? {
        alert_rows(&batch, &mut rows).map_err(foreign(ALERTS))?;
    }
    rows.retain(|row| range.has(row.at));
    rows.sort_by(|a, b| (a.at, &a.name, &a.fingerprint, &a.state).cmp(&(b.at, &b.name, &b.fingerprint, &b.state)));
    Ok(rows)
}

fn alert_rows(batch: &RecordBatch, rows: &mut Vec<AlertRow>) -> Result<(), String> {
    let text = |name: &str| column(batch, name, &DataType::Utf8);
    let names = ["name", "state", "severity", "model", "segment", "subject", "metric", "message", "fingerprint"];
    let texts = names.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let (at, since) = (column(batch, "event_time", &utc())?, column(batch, "since", &utc())?);
    let (value, threshold) =
        (column(batch, "value", &DataType::Float64)?, column(batch, "threshold", &DataType::Float64)?);
    let float =
        |column: &ArrayRef, row: usize| column.is_valid(row).then(|| column.as_primitive::<Float64Type>().value(row));
    let time = |column: &ArrayRef, row: usize| {
        column.is_valid(row).then(|| column.as_primitive::<TimestampMicrosecondType>().value(row))
    };
    for row in 0..batch.num_rows() {
        let at = time(&at, row).ok_or("an alert has no time")?;
        let mut texts = texts.iter().map(|column| match column.is_valid(row) {
            true => column.as_string::<i32>().value(row).to_owned(),
            false => String::new(),
        });
        let mut next = || texts.next().unwrap_or_default();
        rows.push(AlertRow {
            at,
            since: time(&since, row).unwrap_or(at),
            name: next(),
            state: next(),
            severity: next(),
            model: next(),
            segment: next(),
            subject: next(),
            metric: next(),
            message: next(),
            fingerprint: next(),
            value: float(&value, row),
            threshold: float(&threshold, row),
        });
    }
    Ok(())
}

/// Predictions by version and day.
fn predictions(
    table: &TableReader,
    name: &str,
    range: Range,
) -> Result<BTreeMap<(String, EventTime), u64>, ReportError> {
    let mut counts = BTreeMap::new();
    for batch in table.read(Some(&["event_time", "model_version"]))? {
        let times = column(&batch, "event_time", &utc()).map_err(foreign(name))?;
        let versions = column(&batch, "model_version", &DataType::Utf8).map_err(foreign(name))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let versions = versions.as_string::<i32>();
        let mut last: Option<(&str, EventTime, u64)> = None;
        let mut flush = |run: Option<(&str, EventTime, u64)>| {
            if let Some((version, day, rows)) = run {
                *counts.entry((version.to_owned(), day)).or_default() += rows;
            }
        };
        for (time, version) in times.iter().zip(versions) {
            let (Some(time), version) = (time, version.unwrap_or_default()) else { continue };
            if !range.has(time) {
                continue;
            }
            let day = time.div_euclid(DAY) * DAY;
            match &mut last {
                Some((v, d, rows)) if *v == version && *d == day => *rows += 1,
                _ => flush(last.replace((version, day, 1))),
            }
        }
        flush(last);
    }
    Ok(counts)
}

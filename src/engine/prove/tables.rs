//! The tables of a replay held against the recorded ones, date by date.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use serde::Serialize;

use super::compare::{Compared, RowDifference, aligned, compare, union};
use super::recorded::{Recorded, RecordedTable, open};
use super::show::{Difference, integer, show, text};
use super::{DIFFERENCES_MAX, ProveOptions};
use crate::base::format_time;
use crate::engine::EngineError;
use crate::monitor::StatKind;
use crate::ops::system::SYSTEM_COLUMNS;
use crate::plan::model::Plan;
use crate::store::offline::TableReader;

/// What names a row.
const KEY: [&str; 3] = ["_source", "_partition", "_offset"];
/// What names a statistic: it is of a window and not of an event.
const STATISTIC: [&str; 8] =
    ["model", "model_version", "route", "segment", "window_start", "subject", "metric", "revision"];
/// What names an alert.
const ALERT: [&str; 3] = ["_source", "_tick", "_offset"];
/// Monitors' tables, and the sources that their rows name.
const MONITORS: (&str, &str) = ("stats/", "monitors.");

/// What names a row of a table.
fn key_of(table: &str) -> &'static [&'static str] {
    match StatKind::ALL.iter().any(|kind| kind.table() == table) {
        true => &STATISTIC,
        false if table.starts_with(MONITORS.0) => &ALERT,
        false => &KEY,
    }
}

/// What was found of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableProof {
    /// Its name.
    pub table: String,
    /// Rows that are the same in every bit.
    pub rows: u64,
    /// Values in them, system columns apart.
    pub values: u64,
    /// Scores among these.
    pub scores: u64,
    /// Recorded rows from before the first tick that was replayed.
    pub older: u64,
    /// Recorded rows from behind the last.
    pub later: u64,
    /// Recorded rows that the tick log does not cover, or that are there twice.
    pub foreign: u64,
    /// Rows that differ.
    pub differing: u64,
}

/// A comparison of tables.
pub struct Comparison<'a> {
    /// The job's plan.
    pub plan: &'a Plan,
    /// What was recorded.
    pub recorded: &'a Recorded,
    /// Range and what is allowed.
    pub options: &'a ProveOptions,
}

impl Comparison<'_> {
    /// Compares all tables with those of the replay below `lake`; ends with the first date that differs.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn tables(&self, lake: &Path) -> Result<(Vec<TableProof>, Vec<Difference>), EngineError> {
        let (mut proofs, mut differences) = (Vec::new(), Vec::new());
        for table in &self.recorded.tables {
            let replayed = open(lake, &table.name)?;
            proofs.push(self.table(table, replayed.as_ref(), &mut differences)?);
            if !differences.is_empty() || self.options.stop.is_stopped() {
                break;
            }
        }
        Ok((proofs, differences))
    }

    fn table(
        &self,
        table: &RecordedTable,
        replayed: Option<&TableReader>,
        differences: &mut Vec<Difference>,
    ) -> Result<TableProof, EngineError> {
        let mut proof = TableProof { table: table.name.clone(), ..TableProof::default() };
        let mut dates = BTreeSet::new();
        for reader in [table.reader.as_ref(), replayed].into_iter().flatten() {
            dates.extend(reader.dates()?);
        }
        let schema = match (&table.reader, replayed) {
            (Some(recorded), Some(replayed)) => union(replayed.schema(), recorded.schema())
                .map_err(|what| EngineError::Unprovable(format!("table {}: {what}", table.name)))?,
            (Some(one), None) => one.schema().clone(),
            (None, Some(one)) => one.schema().clone(),
            (None, None) => return Ok(proof),
        };
        for date in dates {
            if self.options.stop.is_stopped() {
                return Ok(proof);
            }
            let read = |reader: Option<&TableReader>| -> Result<RecordBatch, EngineError> {
                let batches = reader.map(|reader| reader.read_date(&date)).transpose()?.unwrap_or_default();
                let batches: Vec<RecordBatch> = batches
                    .iter()
                    .map(|batch| aligned(batch, &schema))
                    .collect::<Result<_, _>>()
                    .map_err(unlike(table))?;
                concat_batches(&schema, &batches).map_err(unlike(table))
            };
            let recorded =
                self.in_ticks(read(table.reader.as_ref())?, &mut proof, differences).map_err(unlike(table))?;
            let replayed = self.in_range(read(replayed)?).map_err(unlike(table))?;
            let compared = compare(&recorded, &replayed, key_of(&table.name)).map_err(unlike(table))?;
            self.count(&mut proof, &recorded, &compared);
            self.judge(&mut proof, &recorded, &replayed, &compared, differences);
            if !differences.is_empty() {
                break;
            }
        }
        Ok(proof)
    }

    fn count(&self, proof: &mut TableProof, batch: &RecordBatch, compared: &Compared) {
        proof.rows += compared.same;
        proof.values += compared.same * (batch.num_columns() - SYSTEM_COLUMNS.len()) as u64;
        let model = proof.table.strip_prefix("predictions/");
        let model = model.and_then(|name| self.plan.models.iter().find(|model| model.name == name));
        proof.scores += compared.same * model.map_or(0, |model| model.outputs.len() as u64);
    }

    /// The recorded rows of the ticks that were replayed, within the range; others are counted.
    fn in_ticks(
        &self,
        batch: RecordBatch,
        proof: &mut TableProof,
        differences: &mut Vec<Difference>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let batch = self.in_range(batch)?;
        let ticks = match batch.column_by_name("_tick") {
            Some(ticks) => cast(ticks, &DataType::Int64)?,
            None => return Ok(batch),
        };
        let ticks = ticks.as_primitive::<Int64Type>();
        let (first, last) = (self.recorded.first_tick().cast_signed(), self.recorded.last_tick().cast_signed());
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let tick = ticks.value(row);
            keep.push((first..=last).contains(&tick));
            if tick < first {
                proof.older += 1;
            } else if tick > last && tick < self.recorded.log_end.cast_signed() {
                proof.later += 1;
            } else if tick > last {
                self.foreign(proof, "foreign", &batch, row, differences);
            }
        }
        filter_record_batch(&batch, &BooleanArray::from(keep))
    }

    fn in_range(&self, batch: RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let range = self.options.range;
        let Some(times) = batch.column_by_name("event_time").filter(|_| !range.is_whole()) else { return Ok(batch) };
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let keep: BooleanArray = times.iter().map(|time| Some(range.has(time))).collect();
        filter_record_batch(&batch, &keep)
    }

    /// A row that another run must have written.
    fn foreign(
        &self,
        proof: &mut TableProof,
        kind: &'static str,
        batch: &RecordBatch,
        row: usize,
        differences: &mut Vec<Difference>,
    ) {
        proof.foreign += 1;
        if !self.options.allow_foreign && differences.len() < DIFFERENCES_MAX {
            differences.push(self.difference(&proof.table, kind, batch, row));
        }
    }

    fn judge(
        &self,
        proof: &mut TableProof,
        recorded: &RecordBatch,
        replayed: &RecordBatch,
        compared: &Compared,
        differences: &mut Vec<Difference>,
    ) {
        let mut found: Vec<(i64, Difference)> = Vec::new();
        for difference in &compared.differences {
            let one = match *difference {
                RowDifference::Value { recorded: here, replayed: there, column } => Difference {
                    column: Some(recorded.schema().field(column).name().clone()),
                    recorded: Some(show(recorded.column(column), here)),
                    replayed: Some(show(replayed.column(column), there)),
                    ..self.difference(&proof.table, "value", recorded, here)
                },
                RowDifference::Missing { replayed: there } => self.difference(&proof.table, "missing", replayed, there),
                RowDifference::Doubled { recorded: here } => {
                    self.foreign(proof, "doubled", recorded, here, differences);
                    continue;
                }
                RowDifference::Extra { recorded: here } if !self.covers(recorded, here) => {
                    self.foreign(proof, "foreign", recorded, here, differences);
                    continue;
                }
                RowDifference::Extra { recorded: here } => self.difference(&proof.table, "extra", recorded, here),
            };
            proof.differing += 1;
            found.push((one.tick.unwrap_or(i64::MAX), one));
            if found.len() > 2 * DIFFERENCES_MAX {
                first_of(&mut found);
            }
        }
        first_of(&mut found);
        let room = DIFFERENCES_MAX.saturating_sub(differences.len());
        differences.extend(found.into_iter().take(room).map(|(_, difference)| difference));
    }

    /// Whether the ticks that were replayed hold a row's event.
    fn covers(&self, batch: &RecordBatch, row: usize) -> bool {
        let source = text(batch, "_source", row);
        // Monitors tell of windows: what they told in ticks that were replayed, they tell again.
        if source.as_ref().is_some_and(|source| source.starts_with(MONITORS.1)) {
            return true;
        }
        let source = source.and_then(|name| self.plan.sources.iter().position(|source| source.name == name));
        let partition = integer(batch, "_partition", row).and_then(|number| usize::try_from(number).ok());
        let offset = integer(batch, "_offset", row).and_then(|number| u64::try_from(number).ok());
        match (source, partition, offset) {
            (Some(source), Some(partition), Some(offset)) => offset < self.recorded.covered(source, partition),
            _ => false,
        }
    }

    fn difference(&self, table: &str, kind: &'static str, batch: &RecordBatch, row: usize) -> Difference {
        let ids = self.plan.sources.iter().filter_map(|source| Some(source.schema.field(source.id?).name()));
        let mut names: Vec<&String> = ids.chain(self.plan.views.iter().flat_map(|view| &view.entity_names)).collect();
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.as_str()));
        let entity =
            names.into_iter().filter_map(|name| Some((name.clone(), show(batch.column_by_name(name)?, row).value)));
        let part = |name: &str| integer(batch, name, row).map_or("?".to_owned(), |number| number.to_string());
        let source = text(batch, "_source", row).unwrap_or_else(|| "?".to_owned());
        let times = batch.column_by_name("event_time").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        Difference {
            kind,
            table: table.to_owned(),
            entity: entity.collect(),
            tick: integer(batch, "_tick", row),
            position: Some(format!("{source} partition {} offset {}", part("_partition"), part("_offset"))),
            event_time: times.filter(|times| times.is_valid(row)).map(|times| format_time(times.value(row))),
            column: None,
            recorded: None,
            replayed: None,
        }
    }
}

/// Keeps the first few, in the order of their ticks.
fn first_of(found: &mut Vec<(i64, Difference)>) {
    found.sort_by_key(|(tick, _)| *tick);
    found.truncate(DIFFERENCES_MAX);
}

fn unlike(table: &RecordedTable) -> impl Fn(arrow::error::ArrowError) -> EngineError + '_ {
    move |error| EngineError::Unprovable(format!("table {} cannot be compared: {error}", table.name))
}

//! The checks that every row of every source passes through, in one order.
//!
//! 1. the format's decoder: `undecodable`, `too_large`, `wrong_type`, `missing_field`, `corrupt_block`;
//! 2. `where`: a row for which it is false or null is not there at all, is counted and leaves no letter; one for which it
//!    fails is `expression`;
//! 3. `event_time`: `expression`, `no_event_time`, `time_out_of_range`;
//! 4. nulls in fields that the schema requires: `missing_field`;
//! 5. infinite and very large numbers: `not_finite`, `out_of_range`; NaN passes and counts as null from here on;
//! 6. the rules of `validate`: `invalid`;
//! 7. entity and join keys: `no_entity`;
//! 8. derived columns: `expression`, `not_finite`, `out_of_range`;
//! 9. lateness: `late`;
//! 10. duplicates: `duplicate`.
//!
//! A row leaves at the first check that it fails. Only rows that pass checks 1 to 8 move the watermark, so a row that is
//! not believed is not believed in its time either.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::dead_letter::{DeadLetterKind, KindCounts};
use super::decode::RawChunk;
use super::lateness::Lateness;
use super::rows::{Bad, Letters, Rows};
use super::validate::{self, Rules};
use crate::base::{EventTime, Micros, format_duration, format_time};
use crate::plan::expr::Expr;
use crate::plan::model::{NamedExpr, OnLate, SourcePlan};

/// What became of raw rows. Every raw row is counted once:
/// `read = accepted + filtered + late_dropped + blank + lost + Σ dead`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Raw rows read.
    pub read: u64,
    /// Rows that went on.
    pub accepted: u64,
    /// Rows that `where` took out.
    pub filtered: u64,
    /// Late rows dropped because of `on_late: drop`.
    pub late_dropped: u64,
    /// Blank lines.
    pub blank: u64,
    /// Rows lost in damaged stretches of files, less one for each stretch, whose dead letter counts as one.
    pub lost: u64,
    /// Dead letters by kind.
    pub dead: KindCounts,
}

impl Counts {
    /// Adds another reading's counts.
    pub fn add(&mut self, other: &Counts) {
        self.read += other.read;
        self.accepted += other.accepted;
        self.filtered += other.filtered;
        self.late_dropped += other.late_dropped;
        self.blank += other.blank;
        self.lost += other.lost;
        for (kind, n) in &other.dead {
            *self.dead.entry(*kind).or_default() += n;
        }
    }
}

/// Rows that passed every check but that for duplicates.
pub(crate) struct Checked {
    pub rows: Rows,
    pub letters: Letters,
    pub filtered: u64,
    pub late_dropped: u64,
}

/// The checks of one source.
pub(crate) struct Checks {
    source: Arc<str>,
    schema: SchemaRef,
    filter: Option<Expr>,
    event_time: Expr,
    rules: Rules,
    keys: Vec<usize>,
    derived: Vec<NamedExpr>,
    disorder: Micros,
    on_late: OnLate,
    /// The schema with derived columns after it; nothing promised about nulls.
    wide: SchemaRef,
}

impl Checks {
    /// `keys` are columns of `plan.schema`.
    ///
    /// # Errors
    /// A sentence, when a rule does not fit its column.
    pub(crate) fn new(plan: &SourcePlan, keys: Vec<usize>) -> Result<Checks, String> {
        let derived = plan.derived.iter();
        let derived = derived.map(|d| arrow::datatypes::Field::new(&d.name, d.expr.data_type.clone(), true));
        let fields = plan.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).chain(derived);
        Ok(Checks {
            source: plan.name.as_str().into(),
            schema: plan.schema.clone(),
            filter: plan.filter.clone(),
            event_time: plan.event_time.clone(),
            rules: Rules::new(&plan.rules, &plan.schema)?,
            keys,
            derived: plan.derived.clone(),
            disorder: plan.disorder,
            on_late: plan.on_late,
            wide: Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>())),
        })
    }

    /// Checks 2 to 9.
    ///
    /// # Errors
    /// Only for defects: Arrow refusing what fits by construction.
    pub(crate) fn run(
        &self,
        chunk: &mut RawChunk,
        partition: u16,
        lateness: &mut Lateness,
    ) -> Result<Checked, ArrowError> {
        let mut letters = Letters { source: self.source.clone(), partition, list: Vec::new() };
        for failure in chunk.failed.drain(..) {
            letters.push(failure.kind, failure.reason, failure.offset, None, failure.original);
        }
        let mut rows = Rows::new(chunk.batch.clone());
        let filtered = self.filter(&mut rows, chunk, &mut letters)?;
        self.tell_time(&mut rows, chunk, &mut letters)?;
        rows.reject(validate::required(&rows.batch, &self.schema), chunk, &mut letters)?;
        rows.reject(validate::numbers(&rows.batch, 0), chunk, &mut letters)?;
        rows.reject(self.rules.check(&rows.batch), chunk, &mut letters)?;
        rows.reject(validate::keys(&rows.batch, &self.keys), chunk, &mut letters)?;
        self.derive(&mut rows, chunk, &mut letters)?;
        let late_dropped = self.late(&mut rows, chunk, &mut letters, lateness)?;
        Ok(Checked { rows, letters, filtered, late_dropped })
    }

    fn filter(&self, rows: &mut Rows, chunk: &RawChunk, letters: &mut Letters) -> Result<u64, ArrowError> {
        let Some(filter) = &self.filter else {
            return Ok(0);
        };
        let (mask, failed) = evaluate(filter, &rows.batch)?;
        let mask = mask.as_boolean_opt().ok_or_else(|| misfit(filter, "a truth value"))?;
        let truth = match mask.nulls() {
            Some(nulls) => mask.values() & nulls.inner(),
            None => mask.values().clone(),
        };
        if truth.count_set_bits() == truth.len() {
            return Ok(0);
        }
        // Failed rows are null in the mask; they stay until their letters are written.
        let bad: Vec<usize> = failed.iter().map(|(row, _)| *row).collect();
        for (row, reason) in failed {
            let place = rows.place(row);
            let (offset, original) = (chunk.offsets.get(place), chunk.original(place));
            letters.push(DeadLetterKind::Expression, format!("`where` failed: {reason}"), offset, None, original);
        }
        let out = truth.len() - truth.count_set_bits() - bad.len();
        rows.keep(truth)?;
        Ok(out as u64)
    }

    fn tell_time(&self, rows: &mut Rows, chunk: &RawChunk, letters: &mut Letters) -> Result<(), ArrowError> {
        let (mut times, failed) = evaluate(&self.event_time, &rows.batch)?;
        let failed: Vec<Bad> = failed
            .into_iter()
            .map(|(row, reason)| Bad {
                row,
                kind: DeadLetterKind::Expression,
                reason: format!("`event_time` failed: {reason}"),
            })
            .collect();
        if times.null_count() > 0 {
            let nulls = (0..times.len()).filter(|row| times.is_null(*row)).map(|row| Bad {
                row,
                kind: DeadLetterKind::NoEventTime,
                reason: format!("event time `{}` is null", self.event_time.text),
            });
            // A row that failed is null too: the failure, told first, is what counts.
            let mut bad: Vec<Bad> = failed.into_iter().chain(nulls).collect();
            bad.sort_by_key(|b| b.row);
            let valid = times.nulls().map_or_else(|| BooleanBuffer::new_set(times.len()), |n| n.inner().clone());
            rows.reject(bad, chunk, letters)?;
            times = arrow::compute::filter(&times, &BooleanArray::new(valid, None))?;
        }
        let times = times
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| misfit(&self.event_time, "a time in microseconds"))?;
        // Known from here on, so that letters carry them; without a buffer of nulls, since there are none.
        rows.times = Some(TimestampMicrosecondArray::new(times.values().clone(), None));
        let outside = validate::time_range(times.values());
        rows.reject(outside, chunk, letters)
    }

    fn derive(&self, rows: &mut Rows, chunk: &RawChunk, letters: &mut Letters) -> Result<(), ArrowError> {
        if self.derived.is_empty() {
            return Ok(());
        }
        let mut columns = rows.batch.columns().to_vec();
        let mut bad = Vec::new();
        for derived in &self.derived {
            let (column, failed) = evaluate(&derived.expr, &rows.batch)?;
            bad.extend(failed.into_iter().map(|(row, reason)| Bad {
                row,
                kind: DeadLetterKind::Expression,
                reason: format!("derived column `{}` failed: {reason}", derived.name),
            }));
            columns.push(column);
        }
        bad.sort_by_key(|b| b.row);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        rows.batch = RecordBatch::try_new_with_options(self.wide.clone(), columns, &options)?;
        rows.reject(bad, chunk, letters)?;
        let bad = validate::numbers(&rows.batch, self.schema.fields().len());
        rows.reject(bad, chunk, letters)
    }

    fn late(
        &self,
        rows: &mut Rows,
        chunk: &RawChunk,
        letters: &mut Letters,
        lateness: &mut Lateness,
    ) -> Result<u64, ArrowError> {
        let Some(times) = rows.times.clone() else {
            return Ok(0);
        };
        let late = lateness.observe(times.values());
        if late.is_empty() {
            return Ok(0);
        }
        if self.on_late == OnLate::Drop {
            let mut keep = vec![true; rows.len()];
            late.iter().for_each(|(row, _)| keep[*row] = false);
            rows.keep(BooleanBuffer::from(keep))?;
            return Ok(late.len() as u64);
        }
        let bad = late.into_iter().map(|(row, watermark)| Bad {
            row,
            kind: DeadLetterKind::Late,
            reason: self.late_reason(times.value(row), watermark),
        });
        rows.reject(bad.collect(), chunk, letters)?;
        Ok(0)
    }

    fn late_reason(&self, time: EventTime, watermark: EventTime) -> String {
        format!(
            "event time {} is {} behind the partition's watermark {} (disorder {})",
            format_time(time),
            format_duration(watermark.saturating_sub(time)),
            format_time(watermark),
            format_duration(self.disorder)
        )
    }

    /// The rows as a batch of the stream, with time and position before them.
    ///
    /// # Errors
    /// Only for defects.
    pub(crate) fn emit(
        &self,
        rows: Rows,
        chunk: &RawChunk,
        stream: &SchemaRef,
        source: u8,
        partition: u16,
    ) -> Result<RecordBatch, ArrowError> {
        let ords = rows.ords(&chunk.offsets, source, partition);
        let times = rows.times.unwrap_or_else(|| TimestampMicrosecondArray::from(Vec::<i64>::new()));
        let times = times.with_timezone(super::decode::normalise::UTC.clone());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(2 + rows.batch.num_columns());
        columns.push(Arc::new(times));
        columns.push(Arc::new(ords));
        columns.extend(rows.batch.columns().iter().cloned());
        RecordBatch::try_new(stream.clone(), columns)
    }
}

/// Counts letters by kind.
pub(crate) fn count_kinds(letters: &Letters) -> KindCounts {
    letters.list.iter().fold(BTreeMap::new(), |mut counts, letter| {
        *counts.entry(letter.kind).or_default() += 1;
        counts
    })
}

/// Evaluates an expression; rows that fail are null and named.
fn evaluate(expr: &Expr, batch: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, String)>), ArrowError> {
    match expr.evaluate(batch) {
        Ok(column) => Ok((column, Vec::new())),
        Err(_) => expr.evaluate_rows(batch).map_err(|e| ArrowError::ComputeError(e.to_string())),
    }
}

fn misfit(expr: &Expr, wanted: &str) -> ArrowError {
    let found: &DataType = &expr.data_type;
    ArrowError::ComputeError(format!("`{}` is {found}, expected {wanted}", expr.text))
}

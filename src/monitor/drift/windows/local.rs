//! Rows counted on the worker that has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;

use super::Watch;
use crate::base::EventTime;
use crate::monitor::drift::count::{Counter, Missing};
use crate::monitor::drift::histogram::{Histogram, codec};
use crate::ops::times;
use crate::plan::model::ColumnRole;

/// Runs of rows of one window in a batch that are counted as they stand; with more, rows are sorted first.
const RUNS_MAX: usize = 8;

/// A part of a window's rows, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The window.
    pub start: EventTime,
    /// Rows.
    pub rows: u64,
    /// Of these, rows that lack a value of some feature.
    pub missing: u64,
    /// Duplicates, which are no rows.
    pub duplicates: u64,
    /// Time of the newest row.
    pub newest: EventTime,
    /// By column.
    pub columns: Vec<Histogram>,
}

impl Part {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        codec::put(&mut out, self.start);
        codec::put(&mut out, self.rows.cast_signed());
        codec::put(&mut out, self.missing.cast_signed());
        codec::put(&mut out, self.duplicates.cast_signed());
        codec::put(&mut out, self.newest);
        codec::put(&mut out, self.columns.len() as i64);
        for column in &self.columns {
            codec::write(column, &mut out);
        }
        out
    }

    /// What [`Part::encode`] wrote; `None` when it did not.
    pub fn decode(bytes: &[u8]) -> Option<Part> {
        Part::read(&mut codec::Reader(bytes))
    }

    pub(super) fn read(reader: &mut codec::Reader<'_>) -> Option<Part> {
        let (start, rows, missing) = (reader.number()?, reader.number()?, reader.number()?);
        let (duplicates, newest, count) = (reader.number()?, reader.number()?, reader.number()?);
        let columns = (0..count).map(|_| reader.histogram()).collect::<Option<Vec<_>>>()?;
        let [rows, missing, duplicates] = [rows, missing, duplicates].map(i64::cast_unsigned);
        Some(Part { start, rows, missing, duplicates, newest, columns })
    }
}

/// Counts rows by window until they are taken.
pub struct Local {
    watch: Arc<Watch>,
    windows: BTreeMap<EventTime, Counted>,
}

struct Counted {
    rows: u64,
    missing: u64,
    duplicates: u64,
    newest: EventTime,
    counters: Vec<Counter>,
}

impl Local {
    /// Has counted nothing.
    pub fn new(watch: Arc<Watch>) -> Local {
        Local { watch, windows: BTreeMap::new() }
    }

    /// Counts the rows of a batch; `columns` are where the watched columns are in it.
    ///
    /// # Errors
    /// When a column has another type than planned.
    pub fn count(&mut self, batch: &RecordBatch, columns: &[usize]) -> Result<(), ArrowError> {
        let times = times(batch);
        let columns: Vec<ArrayRef> = columns.iter().map(|index| Arc::clone(batch.column(*index))).collect();
        let mut runs: Vec<(EventTime, usize, usize)> = Vec::new();
        for (row, time) in times.iter().enumerate() {
            match runs.last_mut() {
                // Cheap for rows of the same window as the row before.
                Some((start, _, end)) if *time >= *start && *time - *start < self.watch.window => *end = row + 1,
                _ => runs.push((self.watch.start_of(*time), row, row + 1)),
            }
        }
        if runs.len() <= RUNS_MAX {
            for (start, from, to) in runs {
                let slices: Vec<ArrayRef> = columns.iter().map(|column| column.slice(from, to - from)).collect();
                self.count_rows(start, &times[from..to], &slices)?;
            }
            return Ok(());
        }
        let mut rows: BTreeMap<EventTime, Vec<u32>> = BTreeMap::new();
        for (start, from, to) in runs {
            rows.entry(start).or_default().extend(from as u32..to as u32);
        }
        for (start, rows) in rows {
            let own: Vec<EventTime> = rows.iter().map(|row| times[*row as usize]).collect();
            let rows = UInt32Array::from(rows);
            let taken = columns.iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            self.count_rows(start, &own, &taken)?;
        }
        Ok(())
    }

    fn count_rows(&mut self, start: EventTime, times: &[EventTime], columns: &[ArrayRef]) -> Result<(), ArrowError> {
        let window = window(&self.watch, &mut self.windows, start);
        window.rows += times.len() as u64;
        window.newest = times.iter().fold(window.newest, |newest, time| newest.max(*time));
        let (mut missing, mut other) = (Missing::new(times.len()), Missing::new(times.len()));
        let watched = self.watch.columns.iter().zip(&mut window.counters).zip(columns);
        for ((watched, counter), column) in watched {
            let missing = if watched.role == ColumnRole::Feature { &mut missing } else { &mut other };
            counter.count(column, missing)?;
        }
        window.missing += missing.count();
        Ok(())
    }

    /// Counts duplicates, by their times.
    pub fn duplicates(&mut self, times: impl Iterator<Item = EventTime>) {
        for time in times {
            let start = self.watch.start_of(time);
            window(&self.watch, &mut self.windows, start).duplicates += 1;
        }
    }

    /// What was counted since the last time. Windows that end by `watermark` are not expected to be seen again.
    pub fn take(&mut self, watermark: EventTime) -> Vec<Part> {
        let mut parts = Vec::new();
        for (start, window) in &mut self.windows {
            if window.rows == 0 && window.duplicates == 0 {
                continue;
            }
            parts.push(Part {
                start: *start,
                rows: std::mem::take(&mut window.rows),
                missing: std::mem::take(&mut window.missing),
                duplicates: std::mem::take(&mut window.duplicates),
                newest: std::mem::replace(&mut window.newest, EventTime::MIN),
                columns: window.counters.iter_mut().map(Counter::take).collect(),
            });
        }
        let length = self.watch.window;
        self.windows.retain(|start, _| start.saturating_add(length) > watermark);
        parts
    }
}

fn window<'a>(watch: &Watch, windows: &'a mut BTreeMap<EventTime, Counted>, start: EventTime) -> &'a mut Counted {
    windows.entry(start).or_insert_with(|| Counted {
        rows: 0,
        missing: 0,
        duplicates: 0,
        newest: EventTime::MIN,
        counters: watch.columns.iter().map(|column| Counter::new(&column.kind())).collect(),
    })
}

//! `bench end_to_end` by hand: one thread, no generality.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType};
use hashbrown::HashMap;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tract_onnx::prelude::Framework;

use super::end_to_end::{COMMIT_ROWS, DISORDER_S, TABLE, WINDOWS_H};
use crate::base::{EventTime, ORD_COLUMN, Ord64, Position, TIME_COLUMN};
use crate::store::offline::{TableCommitter, TableSpec, TableWriter, WriterOptions};

/// The model: a scaler and a logistic regression of 15 inputs.
pub const MODEL: &[u8] = include_bytes!("../../models/fraud_handbook.onnx");

/// Rows are handed to the writer in batches of this many.
const BATCH: usize = 8_192;
const INPUTS: usize = 3 + 4 * WINDOWS_H.len();
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// A row of the input, its time in microseconds.
#[derive(Clone, Copy)]
struct Row {
    time: EventTime,
    offset: u64,
    txn: i64,
    card: i64,
    merchant: i64,
    amount: f64,
}

/// Reads, computes, scores and writes.
///
/// # Errors
/// When the file cannot be read or the table cannot be written.
pub fn run(input: &Path, lake: &Path) -> anyhow::Result<()> {
    let model = Logistic::read()?;
    let mut sink = Sink::open(lake)?;
    let mut cards: HashMap<i64, Windows> = HashMap::new();
    let mut merchants: HashMap<i64, Windows> = HashMap::new();
    let file = File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH).build()?;
    let (mut waiting, mut newest, mut offset) = (Vec::new(), EventTime::MIN, 0);
    for batch in reader {
        let batch = batch?;
        newest = newest.max(decode(&batch, offset, &mut waiting));
        offset += batch.num_rows() as u64;
        let watermark = newest - DISORDER_S * 1_000_000;
        waiting.sort_unstable_by_key(|r: &Row| (r.time, r.offset));
        let ready = waiting.partition_point(|r| r.time < watermark);
        for row in waiting.drain(..ready) {
            step(&row, &mut cards, &mut merchants, &model, &mut sink)?;
        }
    }
    for row in waiting.drain(..) {
        step(&row, &mut cards, &mut merchants, &model, &mut sink)?;
    }
    sink.close()
}

fn step(
    row: &Row,
    cards: &mut HashMap<i64, Windows>,
    merchants: &mut HashMap<i64, Windows>,
    model: &Logistic,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    let days = row.time.div_euclid(DAY);
    let mut inputs = [0.0; INPUTS];
    inputs[0] = row.amount;
    // 1970-01-01 was a Thursday.
    inputs[1] = f64::from(u8::from((days + 4).rem_euclid(7) % 6 == 0));
    inputs[2] = f64::from(u8::from(row.time.rem_euclid(DAY) / HOUR <= 6));
    let half = 2 * WINDOWS_H.len();
    cards.entry(row.card).or_default().push(row, &mut inputs[3..3 + half]);
    merchants.entry(row.merchant).or_default().push(row, &mut inputs[3 + half..]);
    sink.push(row, &inputs, model.score(&inputs))
}

fn decode(batch: &RecordBatch, first: u64, rows: &mut Vec<Row>) -> EventTime {
    let ints = |i: usize| batch.column(i).as_primitive::<Int64Type>().values();
    let (txns, card_ids, merchant_ids) = (ints(0), ints(1), ints(2));
    let amounts = batch.column(3).as_primitive::<Float64Type>().values();
    let times = batch.column(4).as_primitive::<TimestampMillisecondType>().values();
    let mut newest = EventTime::MIN;
    for i in 0..batch.num_rows() {
        let time = times[i] * 1_000;
        newest = newest.max(time);
        let offset = first + i as u64;
        rows.push(Row { time, offset, txn: txns[i], card: card_ids[i], merchant: merchant_ids[i], amount: amounts[i] });
    }
    newest
}

/// The events of one key over the longest window, and for each window where it begins and what it holds.
#[derive(Default)]
struct Windows {
    events: VecDeque<(EventTime, i64)>,
    /// Number of events dropped from the front so far.
    dropped: usize,
    starts: [usize; WINDOWS_H.len()],
    cents: [i64; WINDOWS_H.len()],
}

impl Windows {
    /// Adds an event and writes count and mean of each window, the event included.
    fn push(&mut self, row: &Row, out: &mut [f64]) {
        let cents = (row.amount * 100.0).round() as i64;
        self.events.push_back((row.time, cents));
        for (w, hours) in WINDOWS_H.into_iter().enumerate() {
            self.cents[w] += cents;
            while let Some((time, old)) = self.events.get(self.starts[w] - self.dropped)
                && *time <= row.time - hours * HOUR
            {
                self.cents[w] -= old;
                self.starts[w] += 1;
            }
            let count = (self.dropped + self.events.len() - self.starts[w]) as f64;
            out[2 * w] = count;
            out[2 * w + 1] = self.cents[w] as f64 / 100.0 / count;
        }
        let unused = self.starts[WINDOWS_H.len() - 1] - self.dropped;
        self.events.drain(..unused);
        self.dropped += unused;
    }
}

/// A scaler and a logistic regression.
struct Logistic {
    offset: Vec<f32>,
    scale: Vec<f32>,
    coefficients: Vec<f32>,
    intercept: f32,
}

impl Logistic {
    fn read() -> anyhow::Result<Self> {
        let model = tract_onnx::onnx().proto_model_for_read(&mut &*MODEL)?;
        let graph = model.graph.context("the model has no graph")?;
        let floats = |op: &str, name: &str| {
            let node = graph.node.iter().find(|n| n.op_type == op).with_context(|| format!("no {op}"))?;
            let attribute = node.attribute.iter().find(|a| a.name == name);
            attribute.map(|a| a.floats.clone()).with_context(|| format!("{op} has no {name}"))
        };
        let coefficients = floats("LinearClassifier", "coefficients")?;
        ensure!(coefficients.len() == 2 * INPUTS, "the model has {} inputs", coefficients.len() / 2);
        Ok(Logistic {
            offset: floats("Scaler", "offset")?,
            scale: floats("Scaler", "scale")?,
            coefficients: coefficients[INPUTS..].to_vec(),
            intercept: floats("LinearClassifier", "intercepts")?[1],
        })
    }

    fn score(&self, inputs: &[f64; INPUTS]) -> f32 {
        let mut sum = self.intercept;
        for (i, input) in inputs.iter().enumerate() {
            sum += (*input as f32 - self.offset[i]) * self.scale[i] * self.coefficients[i];
        }
        1.0 / (1.0 + (-sum).exp())
    }
}

/// Rows on their way to the table.
struct Sink {
    writer: TableWriter,
    committer: TableCommitter,
    spec: TableSpec,
    columns: Columns,
    since_commit: usize,
    epoch: u64,
}

#[derive(Default)]
struct Columns {
    times: Vec<EventTime>,
    ords: Vec<u64>,
    keys: [Vec<i64>; 3],
    inputs: [Vec<f64>; INPUTS],
    scores: Vec<f32>,
}

/// Columns that the table holds beside the inputs: keys, then what names the model.
const KEYS: [&str; 3] = ["txn_id", "card_id", "merchant_id"];
const NAMES: [(&str, &str); 3] = [
    ("model", "fraud"),
    ("model_version", "champion"),
    ("model_hash", "0000000000000000000000000000000000000000000000000000000000000000"),
];

impl Sink {
    fn open(lake: &Path) -> anyhow::Result<Self> {
        let named = |name: &str, data_type: DataType| (name.to_owned(), name.to_owned(), data_type);
        let mut columns: Vec<_> = KEYS.map(|name| named(name, DataType::Int64)).into();
        columns.extend((0..INPUTS).map(|i| named(&input_name(i), input_type(i))));
        columns.extend(NAMES.map(|(name, _)| named(name, DataType::Utf8)));
        columns.push(named("score", DataType::Float32));
        let spec = TableSpec::new(TABLE, columns, &["card_id"])?;
        let options = WriterOptions { sources: vec!["tx".to_owned()], ..WriterOptions::default() };
        Ok(Sink {
            writer: TableWriter::new(lake, &spec, options)?,
            committer: TableCommitter::open(lake, &spec, "baseline")?,
            spec,
            columns: Columns::default(),
            since_commit: 0,
            epoch: 0,
        })
    }

    fn push(&mut self, row: &Row, inputs: &[f64; INPUTS], score: f32) -> anyhow::Result<()> {
        let columns = &mut self.columns;
        columns.times.push(row.time);
        columns.ords.push(Ord64::from(Position { source: 0, partition: 0, offset: row.offset }).0);
        for (column, key) in columns.keys.iter_mut().zip([row.txn, row.card, row.merchant]) {
            column.push(key);
        }
        for (column, input) in columns.inputs.iter_mut().zip(inputs) {
            column.push(*input);
        }
        columns.scores.push(score);
        if columns.times.len() == BATCH { self.append() } else { Ok(()) }
    }

    fn append(&mut self) -> anyhow::Result<()> {
        let columns = std::mem::take(&mut self.columns);
        let rows = columns.times.len();
        let mut list: Vec<(String, ArrayRef)> = vec![
            (TIME_COLUMN.to_owned(), Arc::new(TimestampMicrosecondArray::from(columns.times).with_timezone("UTC"))),
            (ORD_COLUMN.to_owned(), Arc::new(UInt64Array::from(columns.ords))),
        ];
        for (name, key) in KEYS.iter().zip(columns.keys) {
            list.push(((*name).to_owned(), Arc::new(Int64Array::from(key))));
        }
        for (i, values) in columns.inputs.into_iter().enumerate() {
            let column: ArrayRef = match input_type(i) {
                DataType::Int64 => Arc::new(Int64Array::from_iter_values(values.into_iter().map(|v| v as i64))),
                _ => Arc::new(Float64Array::from(values)),
            };
            list.push((input_name(i), column));
        }
        for (name, value) in NAMES {
            list.push((name.to_owned(), Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))));
        }
        list.push(("score".to_owned(), Arc::new(Float32Array::from(columns.scores))));
        self.writer.append(self.epoch, &RecordBatch::try_from_iter(list)?)?;
        self.since_commit += rows;
        if self.since_commit >= COMMIT_ROWS { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let parts = self.writer.flush()?;
        self.committer.commit(self.epoch, &parts).with_context(|| format!("cannot commit to {}", self.spec.name()))?;
        self.epoch += 1;
        self.since_commit = 0;
        Ok(())
    }

    fn close(mut self) -> anyhow::Result<()> {
        self.append()?;
        self.commit()
    }
}

fn input_name(i: usize) -> String {
    format!("input_{i}")
}

/// The amount and the averages have fractions; flags and counts do not.
fn input_type(i: usize) -> DataType {
    if i == 0 || (i > 3 && (i - 3) % 2 == 1) { DataType::Float64 } else { DataType::Int64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_slide() {
        let row = |hours: i64, amount: f64| Row { time: hours * HOUR, offset: 0, txn: 0, card: 0, merchant: 0, amount };
        let mut windows = Windows::default();
        let mut out = [0.0; 2 * WINDOWS_H.len()];
        windows.push(&row(0, 1.0), &mut out);
        windows.push(&row(1, 2.0), &mut out);
        // The first event is exactly one hour old: outside (t - 1h, t].
        assert_eq!(out, [1.0, 2.0, 2.0, 1.5, 2.0, 1.5]);
        windows.push(&row(168, 6.0), &mut out);
        assert_eq!(out, [1.0, 6.0, 1.0, 6.0, 2.0, 4.0]);
        assert_eq!(windows.events.len(), 2);
    }

    #[test]
    fn the_model_is_read() {
        let model = Logistic::read().unwrap();
        let average: [f64; INPUTS] = std::array::from_fn(|i| f64::from(model.offset[i]));
        // At the mean of every input only the intercept is left.
        assert!((model.score(&average) - 1.0 / (1.0 + (-model.intercept).exp())).abs() < 1e-7);
        assert!(model.score(&average) < 0.01);
    }
}

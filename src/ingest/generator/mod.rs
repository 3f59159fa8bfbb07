//! The built-in generator: an endless, seeded world of card traffic with frauds, late labels and a drift on demand.
//!
//! A world follows from `seed`, `customers`, `terminals`, `start` and `drift_after` alone; the sources that name the same
//! five see the same world. Every row can be computed from its offset, so a reader may begin anywhere, read in pieces of any
//! size, and always gets the same bytes.
//!
//! Layers: `random` (draws), `calendar` (when), `world` (who), `traffic` (what), and this file, which makes Arrow
//! batches of it.

mod calendar;
mod random;
#[cfg(test)]
mod tests;
mod traffic;
mod world;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use thiserror::Error;

use crate::plan::model::{GeneratorConnector, GeneratorStream};
use traffic::{BLOCK_ROWS, Block, Traffic};
use world::{CATEGORIES, COUNTRIES};

/// Customers or terminals of a world at most.
pub const INHABITANTS_MAX: u32 = 10_000_000;

/// Why a generator cannot be made; always the fault of the file that asks for it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GeneratorError {
    /// A world needs people and places.
    #[error("generator: `{what}` is {value}; write a number from 1 to {INHABITANTS_MAX}")]
    Inhabitants {
        /// `customers` or `terminals`.
        what: &'static str,
        /// As given.
        value: u32,
    },
    /// A time that cannot be.
    #[error("generator: `{what}` is negative; write a duration such as 7d")]
    Negative {
        /// Name of the setting.
        what: &'static str,
    },
    /// A column that the stream does not have.
    #[error("generator: the {stream} have no column `{name}`; they have {have}")]
    Column {
        /// As asked for.
        name: String,
        /// Which stream.
        stream: &'static str,
        /// The columns that there are.
        have: String,
    },
    /// A column of another type than the stream's.
    #[error("generator: column `{name}` is {is}, not {asked}")]
    Type {
        /// The column.
        name: String,
        /// Its type.
        is: DataType,
        /// The type asked for.
        asked: DataType,
    },
}

/// All columns of a stream, none of them ever null.
///
/// `transactions`: `tx_id` (Int64, the offset), `ts` (Timestamp µs UTC), `customer_id`, `terminal_id` (Int64), `amount`
/// (Float64, euros with two decimals), `mcc` and `country` of the terminal (Utf8).
///
/// `labels`, one per transaction: `tx_id` (Int64), `known_at` (Timestamp µs UTC), `is_fraud` (Int32, 0 or 1), `scenario` (Int32, 0
/// genuine, 1 large amount, 2 compromised terminal, 3 compromised card, 4 card testing; a diagnosis, never a feature).
pub fn schema(stream: GeneratorStream) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = match stream {
        GeneratorStream::Transactions => vec![
            ("tx_id", DataType::Int64),
            ("ts", time()),
            ("customer_id", DataType::Int64),
            ("terminal_id", DataType::Int64),
            ("amount", DataType::Float64),
            ("mcc", DataType::Utf8),
            ("country", DataType::Utf8),
        ],
        GeneratorStream::Labels => vec![
            ("tx_id", DataType::Int64),
            ("known_at", time()),
            ("is_fraud", DataType::Int32),
            ("scenario", DataType::Int32),
        ],
    };
    Arc::new(Schema::new(fields.into_iter().map(|(name, t)| Field::new(name, t, false)).collect::<Vec<_>>()))
}

/// Reads one stream of a generated world, in order of event time.
#[derive(Debug)]
pub struct Generator {
    stream: GeneratorStream,
    label_delay: i64,
    schema: SchemaRef,
    columns: Vec<Column>,
    traffic: Traffic,
    block: Block,
    /// Index of the block in `block`.
    filled: Option<u64>,
    /// The rows of the batch being made.
    rows: Block,
    offset: u64,
    end: Option<u64>,
}

/// What a column is made of.
#[derive(Clone, Copy, Debug)]
enum Column {
    TxId,
    Time,
    Customer,
    Terminal,
    Amount,
    Category,
    Country,
    IsFraud,
    Scenario,
}

impl Generator {
    /// Opens a stream at offset 0. `columns` are the columns wanted, by name and in this order, with the types of
    /// [`schema`] (nullability is as asked for).
    ///
    /// Building a world of a million customers takes about a second and 150 MB.
    ///
    /// # Errors
    /// When the settings describe no world, or a column is not the stream's.
    pub fn new(connector: &GeneratorConnector, columns: &SchemaRef) -> Result<Generator, GeneratorError> {
        for (what, value) in [("customers", connector.customers), ("terminals", connector.terminals)] {
            if !(1..=INHABITANTS_MAX).contains(&value) {
                return Err(GeneratorError::Inhabitants { what, value });
            }
        }
        let durations = [
            ("duration", connector.duration),
            ("label_delay", Some(connector.label_delay)),
            ("drift_after", connector.drift_after),
        ];
        for (what, value) in durations {
            if value.is_some_and(|v| v < 0) {
                return Err(GeneratorError::Negative { what });
            }
        }
        let made = columns.fields().iter().map(|field| column(connector.stream, field)).collect::<Result<_, _>>()?;
        let mut traffic = Traffic::new(connector);
        let mut block = Block::default();
        let end = connector.duration.and_then(|d| traffic.rows_before(connector.start.saturating_add(d), &mut block));
        Ok(Generator {
            stream: connector.stream,
            label_delay: connector.label_delay,
            schema: columns.clone(),
            columns: made,
            traffic,
            block,
            filled: None,
            rows: Block::default(),
            offset: 0,
            end,
        })
    }

    /// Schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Number of rows of the stream; `None` without end (or past 2^40 rows, which no offset reaches).
    pub fn rows_total(&self) -> Option<u64> {
        self.end
    }

    /// Offset of the next row: the number of rows before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes to an offset, in constant time; past the end, reading ends there.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The next rows: `rows_max` of them, fewer only at the end of the stream, `None` when nothing is left.
    pub fn read(&mut self, rows_max: usize) -> Option<RecordBatch> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.offset));
        if left == 0 {
            return None;
        }
        let first = self.offset;
        let end = first.saturating_add(left.min(rows_max as u64));
        self.rows.clear();
        while self.offset < end {
            let index = self.offset / BLOCK_ROWS;
            let from = self.offset % BLOCK_ROWS;
            let to = (from + end - self.offset).min(BLOCK_ROWS);
            if self.filled != Some(index) {
                self.traffic.fill(index, &mut self.block);
                self.filled = Some(index);
            }
            self.rows.append(&self.block, from as usize..to as usize);
            self.offset += to - from;
        }
        let arrays = self.columns.iter().map(|column| self.array(*column, first)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some((end - first) as usize));
        // The arrays were made for this schema, of equal lengths and without nulls.
        Some(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).expect("arrays of the schema"))
    }

    /// A column of `self.rows`, whose first row has offset `first`.
    fn array(&self, column: Column, first: u64) -> ArrayRef {
        let rows = &self.rows;
        let terminal = |id: &u32| self.traffic.world.terminals[*id as usize];
        let delay = match self.stream {
            GeneratorStream::Transactions => 0,
            GeneratorStream::Labels => self.label_delay,
        };
        match column {
            Column::TxId => {
                Arc::new(Int64Array::from_iter_values(first as i64..first as i64 + rows.times.len() as i64))
            }
            Column::Time => {
                let times = rows.times.iter().map(|t| t.saturating_add(delay));
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            Column::Customer => Arc::new(Int64Array::from_iter_values(rows.customers.iter().map(|c| i64::from(*c)))),
            Column::Terminal => Arc::new(Int64Array::from_iter_values(rows.terminals.iter().map(|t| i64::from(*t)))),
            // Whole cents over a hundred is the double nearest to the decimal.
            Column::Amount => {
                Arc::new(Float64Array::from_iter_values(rows.cents.iter().map(|c| f64::from(*c) / 100.0)))
            }
            Column::Category => codes(rows.terminals.iter().map(|t| CATEGORIES[terminal(t).category as usize].0)),
            Column::Country => codes(rows.terminals.iter().map(|t| COUNTRIES[terminal(t).country as usize].1)),
            Column::IsFraud => Arc::new(Int32Array::from_iter_values(rows.scenarios.iter().map(|s| i32::from(*s > 0)))),
            Column::Scenario => Arc::new(Int32Array::from_iter_values(rows.scenarios.iter().map(|s| i32::from(*s)))),
        }
    }
}

fn codes<'a>(codes: impl ExactSizeIterator<Item = &'a str>) -> ArrayRef {
    let rows = codes.len();
    let mut builder = StringBuilder::with_capacity(rows, rows * 4);
    codes.for_each(|code| builder.append_value(code));
    Arc::new(builder.finish())
}

/// What a wanted column is made of.
fn column(stream: GeneratorStream, field: &Field) -> Result<Column, GeneratorError> {
    let all = schema(stream);
    let known = all.field_with_name(field.name()).map_err(|_| GeneratorError::Column {
        name: field.name().clone(),
        stream: match stream {
            GeneratorStream::Transactions => "transactions",
            GeneratorStream::Labels => "labels",
        },
        have: all.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", "),
    })?;
    if known.data_type() != field.data_type() {
        let (is, asked) = (known.data_type().clone(), field.data_type().clone());
        return Err(GeneratorError::Type { name: field.name().clone(), is, asked });
    }
    Ok(match field.name().as_str() {
        "tx_id" => Column::TxId,
        "customer_id" => Column::Customer,
        "terminal_id" => Column::Terminal,
        "amount" => Column::Amount,
        "mcc" => Column::Category,
        "country" => Column::Country,
        "is_fraud" => Column::IsFraud,
        "scenario" => Column::Scenario,
        _ => Column::Time,
    })
}

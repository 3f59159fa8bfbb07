//! Topics: rows of tables as messages, and the producer that publishes them.
//!
//! A [`RowEncoder`] turns a row into bytes, JSON or Avro; a [`KeyEncoder`] its key columns into the message's key; a
//! [`Publisher`] hands both to librdkafka and counts what the brokers acknowledge. None knows of timely.
//!
//! That is at least once. For exactly once an [`outbox`] keeps an epoch's messages until the epoch is committed, and
//! [`transactions`] publish them.
//!
//! **JSON.** One object per message, the columns in the table's order, null as `null`. Numbers are exact: a float has the
//! fewest digits that read back to the same bits, a decimal all its digits. NaN and the infinities, which JSON lacks, are
//! the strings `"NaN"`, `"Infinity"`, `"-Infinity"`. Times are RFC 3339 in UTC with six digits of microseconds, dates
//! `YYYY-MM-DD`, bytes base64 with padding.
//!
//! **Avro.** One datum per message, without a container; [`avro_schema`] is its writer's schema. A column that may be null is a
//! union of null and its type.
//!
//! **Keys.** One key column: its text as it stands (numbers in decimal, times as in JSON, bytes raw). Several: a JSON array of
//! them. A row whose key columns are all null has no key.

mod avro;
mod cells;
mod json;
pub mod outbox;
mod publisher;
#[cfg(test)]
mod tests;
pub mod transactions;

use arrow::array::RecordBatch;

pub use avro::avro_schema;
pub use publisher::{Delivery, Messages, Publisher};

use super::StoreError;
use cells::Cell;

/// How a row becomes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object.
    Json,
    /// One Avro datum behind these bytes, such as the frame that names its schema; often none.
    Avro(Vec<u8>),
    /// The bytes of one column as they are; null is an empty message.
    Column(String),
}

/// Turns rows into the bytes of messages.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    what: String,
    encoding: Encoding,
}

impl RowEncoder {
    /// An encoder; `what` is what errors call the rows.
    pub fn new(what: impl Into<String>, encoding: Encoding) -> Self {
        RowEncoder { what: what.into(), encoding }
    }

    /// Prepares the rows of a batch.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when a column has a type that tables do not hold, or is not there.
    pub fn bind<'a>(&self, batch: &'a RecordBatch) -> Result<EncodedRows<'a>, StoreError> {
        let shape = |reason: String| StoreError::Shape { what: self.what.clone(), reason };
        let cells = batch.columns().iter().map(Cell::new).collect::<Result<Vec<_>, _>>().map_err(shape)?;
        let kind = match &self.encoding {
            Encoding::Json => Kind::Json(json::heads(batch.schema_ref())),
            Encoding::Avro(frame) => Kind::Avro(frame.clone(), nullable(batch)),
            Encoding::Column(name) => {
                let column = batch.schema_ref().index_of(name);
                Kind::Column(column.map_err(|_| shape(format!("column `{name}` is missing")))?)
            }
        };
        Ok(EncodedRows { cells, kind })
    }
}

fn nullable(batch: &RecordBatch) -> Vec<bool> {
    batch.schema_ref().fields().iter().map(|field| field.is_nullable()).collect()
}

enum Kind {
    Json(Vec<Vec<u8>>),
    Avro(Vec<u8>, Vec<bool>),
    Column(usize),
}

/// The rows of a batch, ready to be written one by one.
pub struct EncodedRows<'a> {
    cells: Vec<Cell<'a>>,
    kind: Kind,
}

impl EncodedRows<'_> {
    /// Appends the bytes of a row.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::Json(heads) => json::write_row(heads, &self.cells, row, out),
            Kind::Avro(frame, nullable) => {
                out.extend_from_slice(frame);
                avro::write_row(&self.cells, nullable, row, out);
            }
            Kind::Column(column) => self.cells[*column].write_raw(row, out),
        }
    }
}

/// Turns key columns into the keys of messages.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    columns: Vec<usize>,
}

impl KeyEncoder {
    /// Keys of these columns, by number; none for messages without keys.
    pub fn new(columns: Vec<usize>) -> Self {
        KeyEncoder { columns }
    }

    /// Appends the key of a row; false when it has none.
    pub fn write(&self, rows: &EncodedRows<'_>, row: usize, out: &mut Vec<u8>) -> bool {
        let cell = |column: usize| &rows.cells[column];
        if self.columns.iter().all(|&column| cell(column).is_null(row)) {
            return false;
        }
        match self.columns.as_slice() {
            [column] => cell(*column).write_raw(row, out),
            several => {
                out.push(b'[');
                for (i, &column) in several.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json::write_cell(cell(column), row, out);
                }
                out.push(b']');
            }
        }
        true
    }
}

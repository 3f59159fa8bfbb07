//! What a job has left, and whether two jobs have left the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;

use super::job::{CUSTOMERS, TERMINALS};
use crate::base::EventTime;
use crate::store::offline::{read_table, table_path};
use crate::store::online::OnlineReader;

/// Tables of the job.
const TABLES: [&str; 6] = [
    "features/customer",
    "features/terminal",
    "feature_sets/fraud_inputs",
    "predictions/fraud",
    "labels/fraud",
    "tx_rejected",
];
/// The column that follows from how the input was cut.
const TICK: &str = "_tick";

/// What a job has left.
#[derive(Debug, Default)]
pub struct Outcome {
    tables: BTreeMap<&'static str, Rows>,
    topics: BTreeMap<String, Vec<String>>,
    online: Vec<Known>,
}

/// Rows in an order of their own.
#[derive(Debug)]
struct Rows {
    encoded: Vec<(Vec<u8>, usize)>,
    batch: RecordBatch,
}

/// The online value of an entity.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    entity: String,
    /// Event time and values in words; none for an unknown entity.
    value: Option<(EventTime, String)>,
    /// Whether its windows hold no rows.
    empty: bool,
}

impl Outcome {
    /// Reads the tables below `lake`, without their ticks where the input's cuts are not the same every time.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(lake: &Path, ticks: bool) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        for table in TABLES {
            let batches = read_table(&table_path(lake, table), None, None)?;
            let schema = batches.first().with_context(|| format!("table {table} is empty"))?.schema();
            let batch = concat_batches(&schema, &batches)?;
            let keep = |name: &str| ticks || name != TICK;
            let columns: Vec<usize> = (0..batch.num_columns()).filter(|&i| keep(schema.field(i).name())).collect();
            outcome.tables.insert(table, Rows::new(batch.project(&columns)?)?);
        }
        Ok(outcome)
    }

    /// Adds the messages of a topic, without their ticks.
    ///
    /// # Errors
    /// When a message is no JSON object.
    pub fn add_topic(&mut self, topic: &str, messages: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let text = |message: Vec<u8>| {
            let mut row: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&message)?;
            row.remove(TICK);
            anyhow::Ok(serde_json::to_string(&row)?)
        };
        let mut texts = messages.into_iter().map(text).collect::<anyhow::Result<Vec<_>>>()?;
        texts.sort_unstable();
        self.topics.insert(topic.to_owned(), texts);
        Ok(())
    }

    /// Adds the online values of every entity.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn add_online(&mut self, reader: &OnlineReader) -> anyhow::Result<()> {
        for (view, count) in [("customer", CUSTOMERS), ("terminal", TERMINALS)] {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
            let found = reader.read(view, &[keys])?;
            for (row, state) in found.states.iter().enumerate() {
                let (mut words, mut empty) = (String::new(), true);
                for (field, column) in found.values.schema().fields().iter().zip(found.values.columns()) {
                    words += &format!("{}={} ", field.name(), array_value_to_string(column, row)?);
                    if let Some(counts) = column.as_primitive_opt::<Int64Type>().filter(|c| c.is_valid(row)) {
                        empty &= counts.value(row) == 0;
                    }
                }
                let value = state.map(|state| (state.event_time, words));
                self.online.push(Known { entity: format!("{view} {row}"), value, empty });
            }
        }
        Ok(())
    }

    /// Fails at the first difference. Where online values were lost (`lost`) entities whose windows have run empty may have
    /// become unknown: the state has let them go.
    ///
    /// # Errors
    /// The difference.
    pub fn same(&self, found: &Outcome, lost: bool) -> anyhow::Result<()> {
        for (table, rows) in &self.tables {
            let found = found.tables.get(table).with_context(|| format!("there is no table {table}"))?;
            rows.same(found).with_context(|| format!("table {table}"))?;
        }
        for ((topic, expected), (_, found)) in self.topics.iter().zip(&found.topics) {
            let differs = expected.iter().zip(found).find(|(expected, found)| expected != found);
            if let Some((expected, found)) = differs {
                bail!("topic of {topic}: the first messages that differ are\n{expected}\n{found}");
            }
            ensure!(expected.len() == found.len(), "topic of {topic}: {} messages and {}", expected.len(), found.len());
        }
        ensure!(found.topics.is_empty() || found.topics.len() == self.topics.len(), "not all topics were read");
        for (expected, found) in self.online.iter().zip(&found.online) {
            let same = match (&expected.value, &found.value) {
                // When its last event was is told as a bound, which depends on when it was told.
                (Some((_, expected_words)), Some((_, words))) if expected.empty => expected_words == words,
                (Some(_), None) => lost && expected.empty,
                (expected, found) => expected == found,
            };
            ensure!(same, "online values:\n{expected:?}\n{found:?}");
        }
        Ok(())
    }

    /// Rows, messages and online values that there are.
    pub fn sizes(&self) -> [usize; 3] {
        let rows = self.tables.values().map(|rows| rows.encoded.len()).sum();
        let messages = self.topics.values().map(Vec::len).sum();
        [rows, messages, self.online.iter().filter(|known| known.value.is_some()).count()]
    }
}

impl Rows {
    fn new(batch: RecordBatch) -> anyhow::Result<Rows> {
        let fields = batch.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let encoded = RowConverter::new(fields)?.convert_columns(batch.columns())?;
        let mut encoded: Vec<(Vec<u8>, usize)> =
            encoded.iter().enumerate().map(|(row, bytes)| (bytes.as_ref().to_vec(), row)).collect();
        encoded.sort_unstable();
        Ok(Rows { encoded, batch })
    }

    fn same(&self, found: &Rows) -> anyhow::Result<()> {
        let columns = |rows: &Rows| -> Vec<String> {
            rows.batch.schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
        };
        ensure!(columns(self) == columns(found), "columns are {:?} and {:?}", columns(self), columns(found));
        let differs = self.encoded.iter().zip(&found.encoded).find(|(expected, found)| expected.0 != found.0);
        let counts = format!("of {} rows and {}", self.encoded.len(), found.encoded.len());
        if let Some(((_, left), (_, right))) = differs {
            bail!("{counts} the first that differ are\n{}\n{}", self.words(*left)?, found.words(*right)?);
        }
        ensure!(self.encoded.len() == found.encoded.len(), "{counts} the shorter is the beginning of the longer");
        Ok(())
    }

    fn words(&self, row: usize) -> anyhow::Result<String> {
        let mut words = String::new();
        for (field, column) in self.batch.schema().fields().iter().zip(self.batch.columns()) {
            words += &format!("{}={} ", field.name(), array_value_to_string(column, row)?);
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(values: &[f64], messages: &[&str], empty: bool, online: Option<i64>) -> Outcome {
        let column: ArrayRef = Arc::new(arrow::array::Float64Array::from(values.to_vec()));
        let batch = RecordBatch::try_from_iter([("x", column)]).expect("a batch");
        let mut outcome = Outcome::default();
        outcome.tables.insert("predictions/fraud", Rows::new(batch).expect("rows"));
        let messages = messages.iter().map(|m| m.as_bytes().to_vec()).collect();
        outcome.add_topic("predictions", messages).expect("JSON");
        let value = online.map(|value| (value, format!("n={value}")));
        outcome.online.push(Known { entity: "customer 1".into(), value, empty });
        outcome
    }

    #[test]
    fn what_differs_is_found() {
        let messages = [r#"{"id":1,"_tick":4}"#, r#"{"id":2,"_tick":5}"#];
        let base = outcome(&[1.0, 2.0], &messages, false, Some(3));
        let again = outcome(&[2.0, 1.0], &[messages[1], r#"{"_tick":9,"id":1}"#], false, Some(3));
        base.same(&again, false).expect("order and ticks of messages do not count");
        for other in [
            outcome(&[1.0, 2.0f64.next_up()], &messages, false, Some(3)),
            outcome(&[1.0, 2.0, 2.0], &messages, false, Some(3)),
            outcome(&[1.0], &messages, false, Some(3)),
            outcome(&[1.0, 2.0], &messages[..1], false, Some(3)),
            outcome(&[1.0, 2.0], &[messages[0], messages[0]], false, Some(3)),
            outcome(&[1.0, 2.0], &messages, false, Some(4)),
            outcome(&[1.0, 2.0], &messages, false, None),
        ] {
            for lost in [false, true] {
                assert!(base.same(&other, lost).is_err() && other.same(&base, lost).is_err(), "{other:?}");
            }
        }
        let (old, gone) = (outcome(&[1.0], &[], true, Some(3)), outcome(&[1.0], &[], true, None));
        assert!(old.same(&gone, true).is_ok() && old.same(&gone, false).is_err());
    }
}

//! Rows of a request, read and checked as rows of their source: the same decoder, the same checks, the same derived columns.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::checks::Checks;
use super::decode::message::{MessageDecoder, message_decoder};
use super::decode::{Offsets, Originals, RawChunk};
use super::{IngestError, Lateness};
use crate::plan::model::{MessageFormat, OnLate, SourcePlan};

/// Reads rows of requests. Threads may share it.
pub struct RequestReader {
    source: String,
    schema: SchemaRef,
    stream: SchemaRef,
    checks: Checks,
    idle: Mutex<Vec<Box<dyn MessageDecoder>>>,
}

/// Rows of a request.
#[derive(Debug)]
pub struct RequestRows {
    /// The rows that passed, with the columns of the source's stream.
    pub rows: RecordBatch,
    /// Of each of them its place in the request.
    pub row_of: Vec<usize>,
    /// Places of the other rows, in order, and why.
    pub refused: Vec<(usize, String)>,
}

impl RequestReader {
    /// For rows of a source. `keys` are columns of the plan's schema that must not be null; fields that `needed` does not
    /// name may be left out.
    ///
    /// # Errors
    /// When the plan's schema or rules do not fit each other.
    pub fn new(plan: &SourcePlan, keys: Vec<usize>, needed: impl Fn(&str) -> bool) -> Result<Self, IngestError> {
        let relaxed = |field: &Arc<Field>| {
            let nullable = field.is_nullable() || !needed(field.name());
            field.as_ref().clone().with_nullable(nullable)
        };
        let schema = Schema::new(plan.schema.fields().iter().map(relaxed).collect::<Vec<_>>());
        let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
        let stream = Schema::new(plan.stream_schema.fields().iter().map(nullable).collect::<Vec<_>>());
        // A request is about now: nothing in it is late.
        let plan = SourcePlan { schema: Arc::new(schema), on_late: OnLate::DeadLetter, ..plan.clone() };
        let checks = Checks::new(&plan, keys).map_err(|what| IngestError::source(&plan.name, what))?;
        let reader = RequestReader {
            source: plan.name.clone(),
            schema: plan.schema.clone(),
            stream: Arc::new(stream),
            checks,
            idle: Mutex::default(),
        };
        // What the decoder would refuse is told now, not with the first request.
        let decoder = reader.decoder()?;
        reader.give_back(decoder);
        Ok(reader)
    }

    /// Reads rows, each a JSON object.
    ///
    /// # Errors
    /// For defects alone; what is wrong with a row is in [`RequestRows::refused`].
    pub fn read(&self, rows: &[&[u8]]) -> Result<RequestRows, IngestError> {
        let mut decoder = self.decoder()?;
        let decoded = decoder.decode(rows)?;
        self.give_back(decoder);
        let mut refused: Vec<(usize, String)> =
            decoded.refused.into_iter().map(|refused| (refused.index, refused.reason)).collect();
        let count = decoded.rows.num_rows() as u64;
        let mut chunk = RawChunk {
            batch: decoded.rows,
            offsets: Offsets::From(0),
            originals: Originals::Columns,
            failed: Vec::new(),
            blank: 0,
            rows: count,
            next_offset: count,
        };
        let defect = |error: arrow::error::ArrowError| IngestError::internal(&self.source, error);
        let checked = self.checks.run(&mut chunk, 0, &mut Lateness::new(i64::MAX)).map_err(defect)?;
        for letter in checked.letters.list {
            let place = usize::try_from(letter.offset).unwrap_or(usize::MAX);
            refused.extend(decoded.row_of.get(place).map(|row| (*row as usize, letter.reason)));
        }
        let row_of: Vec<usize> =
            (0..checked.rows.len()).map(|row| decoded.row_of[checked.rows.place(row)] as usize).collect();
        // What is neither here nor there was taken out by `where`, which writes no letters.
        let mut known = vec![false; rows.len()];
        row_of.iter().chain(refused.iter().map(|(row, _)| row)).for_each(|row| known[*row] = true);
        let filtered = (0..rows.len()).filter(|row| !known[*row]);
        refused.extend(filtered.map(|row| (row, format!("`where` of source {} is not true of it", self.source))));
        refused.sort_by_key(|(row, _)| *row);
        let rows = self.checks.emit(checked.rows, &chunk, &self.stream, 0, 0).map_err(defect)?;
        Ok(RequestRows { rows, row_of, refused })
    }

    fn decoder(&self) -> Result<Box<dyn MessageDecoder>, IngestError> {
        match self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(decoder) => Ok(decoder),
            None => message_decoder(&self.source, &MessageFormat::Json, &self.schema),
        }
    }

    fn give_back(&self, decoder: Box<dyn MessageDecoder>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
    }
}

//! Dead letters of rows that a model could not score.

use arrow::array::RecordBatch;

use crate::base::{Ord64, Position};
use crate::ingest::{DeadLetter, DeadLetterKind, dead_letter_batch, row_json};
use crate::ops::control::TickInfo;
use crate::ops::{ords, times};
use crate::plan::model::Plan;

/// The letters of `failed` rows `(row of batch, reason)`, in the form of the dead-letter table. The original is the row
/// with its features as JSON, since the source's bytes did decode.
pub fn letters(failed: &[(usize, String)], batch: &RecordBatch, info: &TickInfo, plan: &Plan) -> RecordBatch {
    let letters: Vec<DeadLetter> = failed
        .iter()
        .map(|(row, reason)| {
            let position = Position::from(Ord64(ords(batch)[*row]));
            DeadLetter {
                kind: DeadLetterKind::Unscored,
                reason: reason.clone(),
                source: plan.sources[usize::from(position.source)].name.as_str().into(),
                partition: position.partition,
                offset: position.offset,
                event_time: Some(times(batch)[*row]),
                original: row_json(batch, *row),
            }
        })
        .collect();
    dead_letter_batch(&letters, info.tick, plan.version)
}

//! Dead letters of rows that were turned away inside the graph: not scored, or without a partner.

use arrow::array::RecordBatch;

use super::shared::Shared;
use crate::base::{Ord64, Position};
use crate::ingest::{DeadLetter, DeadLetterKind, dead_letter_batch, row_json};
use crate::ops::control::TickInfo;
use crate::ops::{ords, times};

/// Notes and returns the letters of `rows` `(row of batch, reason)`, in the form of the dead-letter table. The original is the row as JSON,
/// since the source's bytes did decode.
pub fn letters(
    kind: DeadLetterKind,
    rows: &[(usize, String)],
    batch: &RecordBatch,
    info: &TickInfo,
    shared: &Shared,
) -> RecordBatch {
    let plan = &shared.plan;
    let letters: Vec<DeadLetter> = rows
        .iter()
        .map(|(row, reason)| {
            let position = Position::from(Ord64(ords(batch)[*row]));
            DeadLetter {
                kind,
                reason: reason.clone(),
                source: plan.sources[usize::from(position.source)].name.as_str().into(),
                partition: position.partition,
                offset: position.offset,
                event_time: Some(times(batch)[*row]),
                original: row_json(batch, *row),
            }
        })
        .collect();
    shared.note_dead_letters(&letters);
    dead_letter_batch(&letters, info.tick, plan.version)
}

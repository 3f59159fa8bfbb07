//! The end of a chain: model scores are added to the rows, and rows that cannot be scored leave as dead letters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use timely::dataflow::Scope;

use super::EngineError;
use super::letters::letters;
use super::shared::Shared;
use super::tables::MODEL_COLUMNS;
use super::ticked::{Control, Port, Rows, per_tick};
use crate::base::Tick;
use crate::ingest::DeadLetterKind;
use crate::ops::Batch;
use crate::score::{Bound, Scorer};

/// Scores the rows of `rows` by one model. Returns the scored rows, with the model's columns at the end, and the dead
/// letters.
pub fn score<'s>(
    scope: Scope<'s, Tick>,
    control: Control<'s>,
    rows: Rows<'s>,
    shared: Arc<Shared>,
    model: usize,
    bound: &Arc<Bound>,
) -> (Rows<'s>, Rows<'s>) {
    let mut core = match ScoreCore::new(&shared, model, bound) {
        Ok(core) => Some(core),
        Err(error) => {
            shared.fail(error);
            None
        }
    };
    let name = format!("score {}", shared.plan.models[model].name);
    let logic = Box::new(move |info: &_, mut inputs: Vec<Vec<Batch>>, out: &mut [Vec<Batch>]| {
        let Some(core) = &mut core else { return };
        for Batch(batch) in inputs.remove(0) {
            match core.score(info, &batch) {
                Ok((scored, dead)) => {
                    shared.rows_scored.fetch_add(scored.num_rows() as u64, Ordering::Relaxed);
                    shared.meters.scored(model, scored.num_rows(), dead.as_ref().map_or(0, |dead| dead.num_rows()));
                    if let Some(observer) = &shared.observer {
                        observer.on_scored(model, info, &scored);
                    }
                    out[0].push(Batch(scored));
                    if let Some(dead) = dead {
                        out[1].push(Batch(dead));
                    }
                }
                Err(error) => shared.fail(error),
            }
        }
    });
    let mut outputs = per_tick(scope, &name, control, vec![Port::local(rows)], 2, logic);
    let dead = outputs.pop().expect("two outputs");
    let scored = outputs.pop().expect("two outputs");
    (scored, dead)
}

/// Scores batches by one model; knows nothing of timely.
struct ScoreCore {
    scorer: Scorer,
    shared: Arc<Shared>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    labels: [String; 3],
}

impl ScoreCore {
    fn new(shared: &Arc<Shared>, model: usize, bound: &Arc<Bound>) -> Result<Self, EngineError> {
        let plan = &shared.plan;
        let model = &plan.models[model];
        Ok(ScoreCore {
            scorer: bound.scorer()?,
            outputs: bound.outputs().into_iter().map(|(name, _)| name).collect(),
            inputs: plan.sets[model.inputs].columns.iter().map(|c| c.engine.clone()).collect(),
            labels: [model.name.clone(), model.version.clone(), bound.model().hash().to_owned()],
            shared: Arc::clone(shared),
        })
    }

    fn score(
        &mut self,
        info: &crate::ops::control::TickInfo,
        batch: &RecordBatch,
    ) -> Result<(RecordBatch, Option<RecordBatch>), EngineError> {
        let inputs: Vec<ArrayRef> = self
            .inputs
            .iter()
            .map(|name| {
                batch
                    .column_by_name(name)
                    .map(Arc::clone)
                    .ok_or_else(|| EngineError::defect(format!("no column {name}")))
            })
            .collect::<Result<_, _>>()?;
        let scores = self.scorer.score(&inputs).map_err(EngineError::Score)?;
        let rows = batch.num_rows();
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for (name, value) in MODEL_COLUMNS.iter().zip(&self.labels) {
            fields.push(Arc::new(Field::new(*name, DataType::Utf8, true)));
            columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows))));
        }
        for (name, column) in self.outputs.iter().zip(scores.columns) {
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        }
        let wide = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(EngineError::arrow)?;
        if scores.failed.is_empty() {
            return Ok((wide, None));
        }
        let dead = letters(DeadLetterKind::Unscored, &scores.failed, batch, info, &self.shared);
        let mut keep = vec![true; rows];
        for (row, _) in &scores.failed {
            keep[*row] = false;
        }
        let kept = filter_record_batch(&wide, &BooleanArray::from(keep)).map_err(EngineError::arrow)?;
        Ok((kept, Some(dead)))
    }
}

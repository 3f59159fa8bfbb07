//! Label rows on their way to their table: each as it arrived, in the tick in which it was read.
//!
//! Nothing is held, so nothing is saved: corrected, withdrawn and doubled labels are rows of their own, and whoever reads the
//! table says as of when.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use timely::dataflow::Scope;

use super::EngineError;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows, per_tick};
use crate::base::{ORD_COLUMN, TIME_COLUMN, Tick};
use crate::ops::control::TickInfo;
use crate::plan::model::LabelPlan;
use crate::store::pit::LABEL_TABLE_COLUMNS;

/// Rows of a label source in the form of the table `labels/<model>`.
pub fn label_rows<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    labels: usize,
    rows: Rows<'s>,
) -> Rows<'s> {
    let plan = Arc::clone(&shared.plan);
    let name = format!("labels of {}", plan.models[plan.labels[labels].model].name);
    let shared = Arc::clone(shared);
    let logic = Box::new(move |_: &TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
        for batch in inputs.into_iter().flatten() {
            match table_rows(&plan.labels[labels], &batch) {
                Ok(rows) => out[0].push(rows),
                Err(error) => shared.fail(error),
            }
        }
    });
    let mut outputs = per_tick(scope, &name, control, vec![Port::local(rows)], 1, logic);
    outputs.pop().expect("one output")
}

fn table_rows(labels: &LabelPlan, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
    let missing = |name: &str| EngineError::defect(format!("label rows have no column {name}"));
    let column = |name: &str| batch.column_by_name(name).cloned().ok_or_else(|| missing(name));
    let value = cast(batch.column(labels.value), &DataType::Float64).map_err(EngineError::arrow)?;
    let (time, id) = (column(TIME_COLUMN)?, batch.column(labels.id).clone());
    let names = [TIME_COLUMN, ORD_COLUMN].into_iter().chain(LABEL_TABLE_COLUMNS);
    let columns: Vec<ArrayRef> = vec![time.clone(), column(ORD_COLUMN)?, id, value, time];
    let fields = names.zip(&columns).map(|(name, column)| Field::new(name, column.data_type().clone(), true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).map_err(EngineError::arrow)
}

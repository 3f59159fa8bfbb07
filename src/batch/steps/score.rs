//! Scores of models on a set, through the room that scores streams: what is judged is what would be published.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::batch::error::StepError;
use crate::plan::model::ModelOutput;
use crate::score::{Bound, Model};
use crate::train::data::{Column, MISSING, Matrix};
use crate::train::error::TrainError;
use crate::train::tune::Predict;

/// Rows scored at a time.
const BATCH: usize = 8192;

/// A model bound to the columns of a set.
pub(super) struct Scored(Arc<Bound>);

impl Scored {
    /// Loads a model; `outputs` are what is told of it, in order.
    pub fn load(path: &Path, inputs: &Matrix, outputs: &[ModelOutput]) -> Result<Scored, StepError> {
        let model = Model::load(path).map_err(StepError::hopeless)?;
        let columns: Vec<(&str, DataType)> =
            inputs.names.iter().zip(&inputs.columns).map(|(name, column)| (name.as_str(), data_type(column))).collect();
        let bound = model.bind(&columns, outputs).map_err(|problems| StepError::hopeless(problems.join("; ")))?;
        Ok(Scored(bound))
    }
}

impl Predict for Scored {
    fn predict(&self, inputs: &Matrix) -> Result<Vec<Vec<f64>>, TrainError> {
        let wrong = |why: String| TrainError::Data { why };
        let mut scorer = self.0.scorer().map_err(|error| wrong(error.to_string()))?;
        let columns: Vec<ArrayRef> = inputs.columns.iter().map(array).collect();
        let mut told: Vec<Vec<f64>> = vec![Vec::with_capacity(inputs.rows()); self.0.outputs().len()];
        for first in (0..inputs.rows()).step_by(BATCH) {
            let rows = BATCH.min(inputs.rows() - first);
            let batch: Vec<ArrayRef> = columns.iter().map(|column| column.slice(first, rows)).collect();
            let scores = scorer.score(&batch).map_err(|error| wrong(error.to_string()))?;
            if let Some((row, why)) = scores.failed.first() {
                return Err(wrong(format!("row {} cannot be scored: {why}", first + row)));
            }
            for (told, column) in told.iter_mut().zip(&scores.columns) {
                let column = cast(column, &DataType::Float64).map_err(|error| wrong(error.to_string()))?;
                let values = arrow::array::AsArray::as_primitive::<Float64Type>(column.as_ref());
                told.extend((0..rows).map(|row| if values.is_valid(row) { values.value(row) } else { f64::NAN }));
            }
        }
        Ok(told)
    }
}

fn data_type(column: &Column) -> DataType {
    match column {
        Column::Number(_) => DataType::Float32,
        Column::Category { .. } => DataType::Utf8,
    }
}

/// Values as a stream has them: gaps are nulls.
fn array(column: &Column) -> ArrayRef {
    match column {
        Column::Number(v) => Arc::new(v.iter().map(|v| Some(*v).filter(|v| !v.is_nan())).collect::<Float32Array>()),
        Column::Category { codes, levels } => {
            let text = |code: &u32| Some(*code).filter(|c| *c != MISSING).map(|c| levels[c as usize].as_str());
            Arc::new(codes.iter().map(text).collect::<StringArray>())
        }
    }
}

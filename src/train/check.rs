//! An exported model held against the pipeline it was made of, row by row, through the room that scores streams.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, StringArray};
use arrow::datatypes::{DataType, Float32Type};

use super::data::{Column, MISSING, Matrix, Task};
use super::error::TrainError;
use super::onnx::{PROBABILITIES, VARIABLE};
use super::pipeline::Pipeline;
use super::probe::probes;
use crate::plan::model::ModelOutput;
use crate::score::{Model, Scorer};

/// How far a score may be from the pipeline's, relative to it where it is above 1. Both are sums in single precision in one order.
pub const TOLERANCE: f64 = 1e-6;

/// Rows scored at a time.
const BATCH: usize = 4096;

/// How an exported model compares.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Checked {
    /// SHA-256 of the file.
    pub hash: String,
    /// Rows of the set that were compared.
    pub rows: u64,
    /// Rows made for it: values at thresholds and the numbers next to them, gaps, categories never seen.
    pub probes: u64,
    /// Rows that both refuse, because an input is missing that nothing fills.
    pub refused: u64,
    /// The largest difference of any value, relative where values are above 1.
    pub max_difference: f64,
}

/// Loads an exported model and scores rows with it, those given and others on purpose beside every threshold.
///
/// # Errors
/// The file cannot be loaded or bound; it refuses a row that the pipeline tells of, or the other way round; a value is farther off than [`TOLERANCE`].
pub fn check(pipeline: &Pipeline, onnx: &[u8], inputs: &Matrix) -> Result<Checked, TrainError> {
    let model = Model::from_bytes("the exported model".into(), onnx).map_err(|e| export(e.to_string()))?;
    let inputs = chosen(pipeline, inputs)?;
    let columns: Vec<(&str, DataType)> =
        inputs.names.iter().zip(&inputs.columns).map(|(name, column)| (name.as_str(), data_type(column))).collect();
    let tensor = if pipeline.task == Task::Regression { VARIABLE } else { PROBABILITIES };
    let outputs: Vec<ModelOutput> = (0..pipeline.width())
        .map(|i| ModelOutput { name: format!("{tensor}[{i}]"), tensor: tensor.into(), element: Some(i) })
        .collect();
    let bound = model.bind(&columns, &outputs).map_err(|faults| export(faults.join("; ")))?;
    let mut scorer = bound.scorer().map_err(|e| export(e.to_string()))?;
    let mut checked = Checked { hash: model.hash().into(), rows: 0, probes: 0, refused: 0, max_difference: 0.0 };
    compare(pipeline, &mut scorer, &inputs, &mut checked)?;
    checked.rows = inputs.rows() as u64;
    let probes = probes(pipeline, &inputs);
    compare(pipeline, &mut scorer, &probes, &mut checked)?;
    checked.probes = probes.rows() as u64;
    Ok(checked)
}

fn export(why: String) -> TrainError {
    TrainError::Export { why }
}

/// The columns that the pipeline takes.
fn chosen(pipeline: &Pipeline, inputs: &Matrix) -> Result<Matrix, TrainError> {
    let mut chosen = Matrix::default();
    for column in &pipeline.prepare.columns {
        let place = inputs.names.iter().position(|n| *n == column.name);
        let Some(place) = place else {
            return Err(super::learner::data(format!("the model's input {} has no column of its name", column.name)));
        };
        chosen.names.push(column.name.clone());
        chosen.columns.push(inputs.columns[place].clone());
    }
    Ok(chosen)
}

fn data_type(column: &Column) -> DataType {
    match column {
        Column::Number(_) => DataType::Float32,
        Column::Category { .. } => DataType::Utf8,
    }
}

/// Values as a stream has them: gaps are nulls.
fn arrays(inputs: &Matrix) -> Vec<ArrayRef> {
    let array = |column: &Column| -> ArrayRef {
        match column {
            Column::Number(v) => Arc::new(v.iter().map(|v| Some(*v).filter(|v| !v.is_nan())).collect::<Float32Array>()),
            Column::Category { codes, levels } => {
                let text = |code: &u32| Some(*code).filter(|c| *c != MISSING).map(|c| levels[c as usize].as_str());
                Arc::new(codes.iter().map(text).collect::<StringArray>())
            }
        }
    };
    inputs.columns.iter().map(array).collect()
}

fn compare(pipeline: &Pipeline, scorer: &mut Scorer, inputs: &Matrix, checked: &mut Checked) -> Result<(), TrainError> {
    let told = pipeline.predict(inputs)?;
    let columns = arrays(inputs);
    for first in (0..inputs.rows()).step_by(BATCH) {
        let rows = BATCH.min(inputs.rows() - first);
        let batch: Vec<ArrayRef> = columns.iter().map(|c| c.slice(first, rows)).collect();
        let scores = scorer.score(&batch).map_err(|e| export(e.to_string()))?;
        for (class, scored) in scores.columns.iter().enumerate() {
            let scored = scored.as_primitive_opt::<Float32Type>();
            let scored = scored.ok_or_else(|| export(format!("output {class} is not of floats")))?;
            for row in 0..rows {
                let wanted = told.row(first + row)[class];
                let score = scored.is_valid(row).then(|| scored.value(row));
                let off = match score {
                    None if wanted.is_finite() => {
                        let why = scores.failed.iter().find(|(r, _)| *r == row).map_or("", |(_, why)| why.as_str());
                        return Err(differs(inputs, first + row, "nothing", wanted, why));
                    }
                    None => {
                        checked.refused += u64::from(class == 0);
                        continue;
                    }
                    Some(score) => f64::from(score - wanted).abs() / f64::from(wanted).abs().max(1.0),
                };
                if off.is_nan() || off > TOLERANCE {
                    let score = score.map_or(String::new(), |s| s.to_string());
                    return Err(differs(inputs, first + row, &score, wanted, &format!("class {class}")));
                }
                checked.max_difference = checked.max_difference.max(off);
            }
        }
    }
    Ok(())
}

fn differs(inputs: &Matrix, row: usize, score: &str, wanted: f32, more: &str) -> TrainError {
    let value = |(name, column): (&String, &Column)| match column {
        Column::Number(values) => format!("{name}: {}", values[row]),
        Column::Category { codes, .. } if codes[row] == MISSING => format!("{name}: null"),
        Column::Category { codes, levels } => format!("{name}: {}", levels[codes[row] as usize]),
    };
    let values: Vec<String> = inputs.names.iter().zip(&inputs.columns).map(value).collect();
    export(format!("it gives {score} where the fitted model gives {wanted} ({more}) for {{{}}}", values.join(", ")))
}

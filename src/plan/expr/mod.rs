//! SQL scalar expressions, typed once and evaluated over Arrow batches.
//!
//! The language is DataFusion's: its parser, its types and coercions, its functions. Three things differ on purpose:
//! column names keep their case; whatever depends on the clock or on chance is refused; integer arithmetic that overflows
//! is an error of that row, never a silent wrap. Integer division truncates, as in PostgreSQL.
//!
//! Results are one of the engine's types (see [`engine_type`]): text is `Utf8`, time is `Timestamp(Microsecond, "UTC")`.

mod compile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_physical_expr::PhysicalExpr;
use thiserror::Error;

pub(super) use compile::{Resolution, Scope, check_syntax};

/// A typed scalar expression over engine columns.
#[derive(Clone, Debug)]
pub struct Expr {
    /// The text as written.
    pub text: String,
    /// Engine columns read, in the order of the physical expression's input schema.
    pub inputs: Vec<String>,
    /// Result type.
    pub data_type: DataType,
    pub(super) physical: Arc<dyn PhysicalExpr>,
    /// The typed logical form, so that a later expression can read this one's result by name.
    logical: datafusion_expr::Expr,
    schema: SchemaRef,
}

/// Why an expression cannot be compiled or evaluated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExprError {
    /// The text is no SQL expression.
    #[error("`{text}` is not an expression: {message}")]
    Syntax {
        /// The expression.
        text: String,
        /// The parser's words.
        message: String,
    },
    /// A name that is no column here.
    #[error("{}", unknown_message(.names))]
    Unknown {
        /// Each unknown name with the nearest known one.
        names: Vec<(String, Option<String>)>,
    },
    /// A name that could mean two columns.
    #[error("`{name}` could be {}", .choices.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// What to write instead.
        choices: Vec<String>,
    },
    /// Something that SQL has and a scalar expression here has not.
    #[error("{what}")]
    Unsupported {
        /// What it is.
        what: String,
        /// How to mend it.
        mend: String,
    },
    /// A name that stands for an expression with a fault of its own.
    #[error("`{name}` has a fault of its own")]
    Broken {
        /// The name.
        name: String,
    },
    /// Types or functions that do not fit.
    #[error("`{text}`: {message}")]
    Type {
        /// The expression.
        text: String,
        /// What does not fit.
        message: String,
    },
    /// A batch that lacks an input or has it in another type: a defect of the caller.
    #[error("`{text}` reads `{column}`: {message}")]
    Input {
        /// The expression.
        text: String,
        /// The engine column.
        column: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that the expression has no result for: a failed cast, an overflow, a division by zero.
    #[error("`{text}`: {message}")]
    Evaluation {
        /// The expression.
        text: String,
        /// The arithmetic's words.
        message: String,
    },
}

fn unknown_message(names: &[(String, Option<String>)]) -> String {
    let list: Vec<String> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
    match list.len() {
        1 => format!("{} is not a column here", list[0]),
        _ => format!("{} are not columns here", list.join(", ")),
    }
}

impl ExprError {
    /// How to mend it; empty when that is plain from the error.
    pub fn mend(&self) -> String {
        match self {
            ExprError::Unknown { names } => {
                let near: Vec<String> =
                    names.iter().filter_map(|(_, near)| near.as_ref().map(|n| format!("`{n}`"))).collect();
                if near.is_empty() { String::new() } else { format!("did you mean {}?", near.join(", ")) }
            }
            ExprError::Ambiguous { choices, .. } => format!("write {}", choices.join(" or ")),
            ExprError::Unsupported { mend, .. } => mend.clone(),
            _ => String::new(),
        }
    }
}

/// Type of event time inside the engine: `Timestamp(Microsecond, "UTC")`.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type in which the engine holds a column of type `outside`: every timestamp (zoneless ones are read as UTC) as
/// `Timestamp(Microsecond, "UTC")`, all text as `Utf8`, dictionaries as their values, decimals as `Float64`.
/// `None` for types that the engine has no use for (nested, binary, time of day, intervals).
pub fn engine_type(outside: &DataType) -> Option<DataType> {
    Some(match outside {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => outside.clone(),
        DataType::Float16 => DataType::Float32,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Timestamp(..) | DataType::Date64 => time_type(),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            DataType::Float64
        }
        DataType::Dictionary(_, values) => return engine_type(values),
        _ => return None,
    })
}

impl Expr {
    /// Compiles `text` over a scope of (name as written, engine column, type); the types must be engine types.
    ///
    /// # Errors
    /// [`ExprError`], with the nearest names for unknown columns.
    pub fn compile(text: &str, scope: &[(&str, &str, DataType)]) -> Result<Expr, ExprError> {
        let mut names = Scope::default();
        for (visible, engine, data_type) in scope {
            names.column(visible, engine, data_type.clone());
        }
        names.compile(text)
    }

    /// Evaluates over a batch; the result has the batch's length and [`Expr::data_type`].
    ///
    /// # Errors
    /// [`ExprError::Input`] when the batch lacks a column, [`ExprError::Evaluation`] when any row has no result;
    /// [`Expr::evaluate_rows`] tells which.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, ExprError> {
        self.evaluate_inputs(&self.project(batch)?)
    }

    /// Evaluates over a batch; a row that has no result is null and is named with the reason.
    ///
    /// # Errors
    /// [`ExprError::Input`] when the batch lacks a column.
    pub fn evaluate_rows(&self, batch: &RecordBatch) -> Result<(ArrayRef, Vec<(usize, String)>), ExprError> {
        let inputs = self.project(batch)?;
        if let Ok(values) = self.evaluate_inputs(&inputs) {
            return Ok((values, Vec::new()));
        }
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        self.isolate(&inputs, 0, &mut parts, &mut failed);
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let values = concat(&parts).map_err(|e| self.failure(&e))?;
        Ok((values, failed))
    }

    /// Halves until the rows that fail stand alone: the cost is logarithmic in the batch per failing row.
    fn isolate(
        &self,
        inputs: &RecordBatch,
        first: usize,
        parts: &mut Vec<ArrayRef>,
        failed: &mut Vec<(usize, String)>,
    ) {
        let rows = inputs.num_rows();
        match self.evaluate_inputs(inputs) {
            Ok(values) => parts.push(values),
            Err(error) if rows == 1 => {
                parts.push(new_null_array(&self.data_type, 1));
                failed.push((first, error.to_string()));
            }
            Err(_) => {
                let half = rows / 2;
                self.isolate(&inputs.slice(0, half), first, parts, failed);
                self.isolate(&inputs.slice(half, rows - half), first + half, parts, failed);
            }
        }
    }

    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch, ExprError> {
        let mut columns = Vec::with_capacity(self.inputs.len());
        for (name, field) in self.inputs.iter().zip(self.schema.fields()) {
            let problem = |message: String| ExprError::Input { text: self.text.clone(), column: name.clone(), message };
            let column = batch.column_by_name(name).ok_or_else(|| problem("the batch has no such column".into()))?;
            if column.data_type() != field.data_type() {
                return Err(problem(format!("expected {}, the batch has {}", field.data_type(), column.data_type())));
            }
            columns.push(column.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|e| self.failure(&e))
    }

    fn evaluate_inputs(&self, inputs: &RecordBatch) -> Result<ArrayRef, ExprError> {
        let values = self.physical.evaluate(inputs).map_err(|e| self.failure(&e.strip_backtrace()))?;
        values.into_array(inputs.num_rows()).map_err(|e| self.failure(&e.strip_backtrace()))
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> ExprError {
        ExprError::Evaluation { text: self.text.clone(), message: compile::plain(&error.to_string()) }
    }
}

fn input_schema(inputs: &[(String, DataType)]) -> SchemaRef {
    // Nullable throughout: what a file promises about nulls is no reason to compute otherwise.
    Arc::new(Schema::new(inputs.iter().map(|(name, t)| Field::new(name, t.clone(), true)).collect::<Vec<_>>()))
}

//! SQL scalar expressions, typed once and evaluated over Arrow batches.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_physical_expr::PhysicalExpr;

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
}

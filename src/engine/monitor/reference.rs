//! What a monitor watches, with the references that are tables or files read.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::training;
use crate::engine::EngineError;
use crate::monitor::drift::alarm::Rule;
use crate::monitor::drift::labels::LabelWatch;
use crate::monitor::drift::reference::Reference;
use crate::monitor::drift::windows::{Against, Column, Watch};
use crate::plan::expr::{Expr, engine_type};
use crate::plan::model::{DriftColumn, DriftPlan, MonitorPlan, Plan, ReferencePlan};
use crate::store::offline::TableReader;

/// What a monitor watches.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    /// Of scored rows.
    pub rows: Option<Arc<Watch>>,
    /// Of labels.
    pub labels: Option<Arc<LabelWatch>>,
}

/// What a monitor watches, if it does.
///
/// # Errors
/// When a reference cannot be read or lacks a column.
pub fn watch(plan: &Plan, monitor: &MonitorPlan) -> Result<Watches, EngineError> {
    let Some(drift) = &monitor.drift else { return Ok(Watches::default()) };
    let model = &plan.models[monitor.model].name;
    let fault = |what: String| EngineError::Plan(format!("monitors.{model}.drift: {what}"));
    let trained = match training::is_wanted(monitor) {
        // Of the version that the job begins with: what is wrong there is told before the first row.
        true => Some(training::of_plan(&plan.registry, &plan.models[monitor.model]).map_err(fault)?),
        false => None,
    };
    let mut read = BTreeMap::new();
    for (index, reference) in drift.references.iter().enumerate() {
        if let Some(rows) = read_reference(reference, drift, index).map_err(fault)? {
            read.insert(index, rows);
        }
    }
    let column = |column: &DriftColumn| -> Result<Column, EngineError> {
        let against = match column.reference.map(|index| (index, &drift.references[index])) {
            None => Against::Nothing,
            Some((_, ReferencePlan::Training)) => {
                if let Some((set, profile)) = &trained {
                    let (theirs, categories) = (&column.reference_column, column.categories);
                    profile.reference(theirs, categories, drift.bins).map_err(|error| {
                        fault(format!(
                            "column `{}` against {set}: {error}; say under `names` what it is called there, or leave it out of `columns`",
                            column.name
                        ))
                    })?;
                }
                Against::Training(column.reference_column.as_str().into())
            }
            Some((_, ReferencePlan::Past(span))) => Against::Past(*span),
            Some((_, ReferencePlan::Between(from, to))) => Against::Between(*from, *to),
            Some((index, place)) => {
                let values = read.get(&index).and_then(|rows| rows.column_by_name(&column.reference_column));
                let values = values.ok_or_else(|| {
                    fault(format!(
                        "{} has no column `{}`; say under `names` what it is called there, leave it out of `columns`, or give outputs a `prediction_reference`",
                        name_of(place),
                        column.reference_column
                    ))
                })?;
                let reference = Reference::of_column(values, column.categories, drift.bins).map_err(|error| {
                    fault(format!("column `{}` of {}: {error}", column.reference_column, name_of(place)))
                })?;
                Against::Given(Arc::new(reference))
            }
        };
        let (name, role, metrics) = (column.name.clone(), column.role, column.metrics.clone());
        Ok(Column { name, role, categories: column.categories, metrics, against })
    };
    let columns = drift.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let parts = if drift.bonferroni { columns.len().max(1) as f64 } else { 1.0 };
    let rule = if drift.evidently { Rule::Evidently } else { Rule::Calibrated(drift.false_alarms / parts) };
    let labels = match (&drift.label, monitor.labels.map(|labels| &plan.labels[labels])) {
        (Some(label), Some(labels)) => Some(Arc::new(LabelWatch {
            model: model.clone(),
            column: column(label)?,
            window: drift.window,
            refresh: monitor.refresh,
            within: labels.within,
            bins: drift.bins,
            rule,
        })),
        _ => None,
    };
    let rows = Arc::new(Watch {
        model: model.clone(),
        window: drift.window,
        columns,
        bins: drift.bins,
        rule,
        false_alarms: drift.false_alarms / parts,
        quality: drift.quality.clone(),
    });
    Ok(Watches { rows: Some(rows), labels })
}

fn name_of(reference: &ReferencePlan) -> String {
    match reference {
        ReferencePlan::Delta { uri, .. } => format!("the reference table {}", uri.display()),
        ReferencePlan::File { path, .. } => format!("the reference file {}", path.display()),
        ReferencePlan::Training => "the training set".to_owned(),
        ReferencePlan::Past(_) | ReferencePlan::Between(..) => "the job's own stream".to_owned(),
    }
}

/// The rows of a reference that is a table or a file: the columns that are held against it, as far as it has them.
fn read_reference(reference: &ReferencePlan, drift: &DriftPlan, index: usize) -> Result<Option<RecordBatch>, String> {
    let named = |error: String| format!("{}: {error}", name_of(reference));
    let columns = drift.columns.iter().chain(&drift.label).filter(|column| column.reference == Some(index));
    let wanted: Vec<&str> = columns.map(|column| column.reference_column.as_str()).collect();
    let (batches, filter) = match reference {
        ReferencePlan::Delta { uri, version, filter } => {
            let table = TableReader::open(uri, *version).map_err(|error| named(error.to_string()))?;
            let filter = compiled(filter.as_deref(), table.schema()).map_err(named)?;
            let names = needed(&wanted, filter.as_ref(), table.schema());
            let batches = table.read(Some(&names)).map_err(|error| named(error.to_string()))?;
            (batches, filter)
        }
        ReferencePlan::File { path, filter } => read_file(path, filter.as_deref(), &wanted).map_err(named)?,
        ReferencePlan::Training | ReferencePlan::Past(_) | ReferencePlan::Between(..) => return Ok(None),
    };
    let mut kept = Vec::new();
    for batch in &batches {
        kept.push(filtered(batch, filter.as_ref()).map_err(named)?);
    }
    let schema = kept.first().map(RecordBatch::schema).ok_or_else(|| named("it has no rows".into()))?;
    let rows = concat_batches(&schema, &kept).map_err(|error| named(error.to_string()))?;
    if rows.num_rows() == 0 {
        return Err(named("its `where` leaves no rows".into()));
    }
    Ok(Some(rows))
}

fn read_file(path: &Path, filter: Option<&str>, wanted: &[&str]) -> Result<(Vec<RecordBatch>, Option<Expr>), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let filter = compiled(filter, builder.schema())?;
    let names = needed(wanted, filter.as_ref(), builder.schema());
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let reader = builder.with_projection(mask).build().map_err(|error| error.to_string())?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    Ok((batches, filter))
}

/// The columns that are there of those wanted, and those that the filter reads.
fn needed<'a>(wanted: &[&str], filter: Option<&Expr>, schema: &'a SchemaRef) -> Vec<&'a str> {
    let inputs = filter.map(|filter| filter.inputs.as_slice()).unwrap_or_default();
    let is_needed = |name: &str| wanted.contains(&name) || inputs.iter().any(|input| input == name);
    schema.fields().iter().map(|field| field.name().as_str()).filter(|name| is_needed(name)).collect()
}

fn compiled(filter: Option<&str>, schema: &SchemaRef) -> Result<Option<Expr>, String> {
    let Some(filter) = filter else { return Ok(None) };
    let fields = schema.fields().iter();
    let scope: Vec<(&str, &str, DataType)> =
        fields.filter_map(|f| Some((f.name().as_str(), f.name().as_str(), engine_type(f.data_type())?))).collect();
    let expr = Expr::compile(filter, &scope).map_err(|error| format!("`where`: {error} {}", error.mend()))?;
    if expr.data_type != DataType::Boolean {
        return Err(format!("`where`: `{filter}` is of type {}, not a condition", expr.data_type));
    }
    Ok(Some(expr))
}

fn filtered(batch: &RecordBatch, filter: Option<&Expr>) -> Result<RecordBatch, String> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let Some(data_type) = engine_type(field.data_type()) else { continue };
        columns.push(cast(column, &data_type).map_err(|error| error.to_string())?);
        fields.push(Field::new(field.name(), data_type, true));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())?;
    let Some(filter) = filter else { return Ok(batch) };
    let keep = filter.evaluate(&batch).map_err(|error| format!("`where`: {error}"))?;
    filter_record_batch(&batch, keep.as_boolean()).map_err(|error| error.to_string())
}

//! A model bound to the columns of a feature set: every clash of names, types and widths is found here, not at the first row.

use std::sync::Arc;

use arrow::datatypes::DataType;

use super::error::ScoreError;
use super::model::{Model, TensorInfo};
use super::scorer::Scorer;
use super::tensor::Kind;
use crate::plan::model::ModelOutput;

/// How columns reach inputs.
pub(super) enum Binding {
    /// All columns, in this order, are one row of the only input, of these dimensions after the rows.
    Matrix { order: Vec<usize>, dims: Vec<usize> },
    /// Each input, in the model's order, takes one column: its index, and the input's dimensions after the rows.
    Columns(Vec<(usize, Vec<usize>)>),
}

/// A bound column.
pub(super) struct BoundColumn {
    pub(super) name: String,
    pub(super) data_type: DataType,
    /// What the model takes there.
    pub(super) kind: Kind,
}

/// A declared output.
pub(super) struct Pick {
    pub(super) name: String,
    pub(super) tensor: String,
    /// Number of the model's output.
    pub(super) output: usize,
    pub(super) element: usize,
    pub(super) kind: Kind,
}

/// A model and the columns it scores. Share it between threads; each makes its own [`Scorer`].
pub struct Bound {
    pub(super) model: Model,
    pub(super) columns: Vec<BoundColumn>,
    pub(super) binding: Binding,
    pub(super) picks: Vec<Pick>,
}

fn accepts(kind: Kind, column: &DataType) -> bool {
    let text = matches!(column, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match kind {
        Kind::Text => text,
        Kind::F32 | Kind::F64 => column.is_integer() || column.is_floating() || *column == DataType::Boolean,
        Kind::I64 => column.is_integer() || *column == DataType::Boolean,
        Kind::Bool => *column == DataType::Boolean,
    }
}

fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::jaro_winkler(name, c), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |n| format!("; did you mean {n}?"))
}

impl Model {
    /// Binds the model to columns, given by name and type in the order of the feature set, and to the outputs that are wanted.
    ///
    /// A model with one input takes all columns as one row of it: by name where its file names them ([`super::COLUMNS`]), else in order. A model
    /// with several takes one column for each input, by name.
    ///
    /// # Errors
    /// Everything that does not fit, one message each, naming both sides.
    pub fn bind(&self, columns: &[(&str, DataType)], outputs: &[ModelOutput]) -> Result<Arc<Bound>, Vec<String>> {
        let mut faults = Vec::new();
        let model = self.with_columns(columns.len()).map_err(|e| vec![e.to_string()])?;
        let (binding, kinds) = match model.inputs() {
            [input] => bind_matrix(input, model.columns(), columns, &mut faults),
            inputs => bind_columns(inputs, columns, &mut faults),
        };
        let picks = outputs.iter().filter_map(|o| model.pick(o).map_err(|why| faults.push(why)).ok()).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let columns = columns
            .iter()
            .zip(kinds)
            .map(|((name, data_type), kind)| BoundColumn { name: name.to_string(), data_type: data_type.clone(), kind })
            .collect();
        Ok(Arc::new(Bound { model, columns, binding, picks }))
    }

    fn pick(&self, wanted: &ModelOutput) -> Result<Pick, String> {
        let (name, tensor) = (&wanted.name, &wanted.tensor);
        let Some(output) = self.outputs().iter().position(|o| o.name == *tensor) else {
            let all: Vec<String> = self.outputs().iter().map(ToString::to_string).collect();
            let near = hint(nearest(tensor, self.outputs().iter().map(|o| o.name.as_str())));
            return Err(format!(
                "output {name} reads {tensor}, which the model does not give; it gives {}{near}",
                all.join(", ")
            ));
        };
        let info = &self.outputs()[output];
        let element = match (wanted.element, info.width()) {
            (None, Some(w)) if w != 1 => {
                return Err(format!(
                    "output {name} reads {tensor}, which has {w} values per row; say which, as in {tensor}[{}]",
                    w.saturating_sub(1)
                ));
            }
            (Some(e), Some(w)) if e >= w => {
                return Err(format!("output {name} reads {tensor}[{e}], and {info} has {w} values per row"));
            }
            (e, _) => e.unwrap_or(0),
        };
        Ok(Pick { name: name.clone(), tensor: tensor.clone(), output, element, kind: info.element.into() })
    }
}

fn bind_matrix(
    input: &TensorInfo,
    named: Option<&[String]>,
    columns: &[(&str, DataType)],
    faults: &mut Vec<String>,
) -> (Binding, Vec<Kind>) {
    if columns.is_empty() {
        faults.push(format!("the model's input {input} is given no columns"));
    }
    let order = match named {
        Some(names) => order_by_name(names, columns, faults),
        None => (0..columns.len()).collect(),
    };
    if let Some(width) = input.width().filter(|&w| w != columns.len() && faults.is_empty()) {
        faults.push(format!(
            "the model's input {input} takes {width} values per row, and there are {} columns",
            columns.len()
        ));
    }
    let kind = input.element.into();
    for (name, data_type) in columns {
        if !accepts(kind, data_type) {
            faults.push(format!("column {name} is {data_type}, which the model's input {input} cannot take"));
        }
    }
    let dims = input.dims.clone().unwrap_or_else(|| vec![columns.len()]);
    (Binding::Matrix { order, dims }, vec![kind; columns.len()])
}

/// Where the columns that a model names are.
fn order_by_name(names: &[String], columns: &[(&str, DataType)], faults: &mut Vec<String>) -> Vec<usize> {
    let mut order = Vec::with_capacity(names.len());
    for name in names {
        match columns.iter().position(|(column, _)| column == name) {
            Some(at) => order.push(at),
            None => {
                let near = hint(nearest(name, columns.iter().map(|(n, _)| *n)));
                faults.push(format!("the model takes {name}, and there is no column of that name{near}"));
            }
        }
    }
    for (name, _) in columns.iter().filter(|(name, _)| !names.iter().any(|n| n == name)) {
        let near = hint(nearest(name, names.iter().map(String::as_str)));
        faults.push(format!("column {name} is no input of the model{near}"));
    }
    order
}

fn bind_columns(inputs: &[TensorInfo], columns: &[(&str, DataType)], faults: &mut Vec<String>) -> (Binding, Vec<Kind>) {
    let mut taken = Vec::new();
    let mut kinds = vec![None; columns.len()];
    for input in inputs {
        let kind: Kind = input.element.into();
        if input.width().is_some_and(|w| w != 1) {
            faults.push(format!("the model's input {input} takes several values per row; a model takes one matrix of all columns, or one column per input"));
            continue;
        }
        match columns.iter().position(|(name, _)| *name == input.name) {
            None => {
                let near = hint(nearest(&input.name, columns.iter().map(|(n, _)| *n)));
                faults.push(format!("the model's input {input} has no column of its name{near}"));
            }
            Some(i) => {
                if !accepts(kind, &columns[i].1) {
                    faults.push(format!(
                        "column {} is {}, which the model's input {input} cannot take",
                        columns[i].0, columns[i].1
                    ));
                }
                kinds[i] = Some(kind);
                taken.push((i, input.dims.clone().unwrap_or_else(|| vec![1])));
            }
        }
    }
    for ((name, _), _) in columns.iter().zip(&kinds).filter(|(_, k)| k.is_none()) {
        let near = hint(nearest(name, inputs.iter().map(|i| i.name.as_str())));
        faults.push(format!("column {name} is no input of the model{near}"));
    }
    (Binding::Columns(taken), kinds.into_iter().map(|k| k.unwrap_or(Kind::F32)).collect())
}

impl Bound {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Names and types of the score columns, in the order of the declaration.
    pub fn outputs(&self) -> Vec<(String, DataType)> {
        let data_type = |kind| match kind {
            Kind::F32 => DataType::Float32,
            Kind::F64 => DataType::Float64,
            Kind::I64 => DataType::Int64,
            Kind::Bool => DataType::Boolean,
            Kind::Text => DataType::Utf8,
        };
        self.picks.iter().map(|p| (p.name.clone(), data_type(p.kind))).collect()
    }

    /// A scorer for one thread.
    ///
    /// # Errors
    /// The neural engine cannot start.
    pub fn scorer(self: &Arc<Bound>) -> Result<Scorer, ScoreError> {
        Scorer::new(self.clone())
    }
}

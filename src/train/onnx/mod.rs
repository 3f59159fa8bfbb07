//! A fitted pipeline as an ONNX file.
//!
//! ```text
//! input [N, k] ──────────────────────────────┐
//! or one input [N, 1] per column:            ├─ Imputer ─ Scaler ─ TreeEnsembleRegressor ─ Sigmoid, Softmax … ─ probabilities, label
//!   numbers ─────────────────────────┐       │                     or LinearRegressor                            or variable
//!   categories ─ OneHotEncoder …     ├ Concat┘
//!   categories ─ LabelEncoder ─ Gather┘
//! ```
//!
//! The sums come from the regressors of ai.onnx.ml, links from ordinary operators: the classifiers' own rules for one score and for labels differ from
//! runtime to runtime. Numbers alone are one matrix, which is the fastest to fill; the file then names its columns ([`COLUMNS`]), and they are bound
//! by name all the same. With categories every column is an input of its own.
//!
//! ir_version 8, opsets 17 and ai.onnx.ml 3, `BRANCH_LEQ` only.

mod proto;
mod sums;
#[cfg(test)]
mod tests;

use prost::Message;

use super::data::Task;
use super::error::TrainError;
use super::learner::data;
use super::model::{Fitted, Link};
use super::pipeline::Pipeline;
use super::prepare::{Fill, Recipe, Step};
use crate::score::{COLUMNS, MISSING_TEXT};
use proto::{Element, Graph, floats, ints, text, texts};
use sums::Sets;

/// The output of a classifier: a probability per class.
pub const PROBABILITIES: &str = "probabilities";

/// The other output of a classifier: the likeliest class.
pub const LABEL: &str = "label";

/// The output of a regression.
pub const VARIABLE: &str = "variable";

/// The input of a model of numbers alone.
const INPUT: &str = "input";

/// Writes a pipeline as an ONNX file: the same bytes for the same pipeline.
///
/// Inputs: float `input` `[N, k]` where all columns are numbers, else one `[N, 1]`, float or string, per column and named like it. Outputs: float
/// `probabilities` `[N, classes]` and int64 `label` `[N]`, or float `variable` `[N, 1]`.
///
/// # Errors
/// A model that does not hang together (a tree that leads nowhere, a weight too few), or a column with the name of an output.
pub fn export(pipeline: &Pipeline) -> Result<Vec<u8>, TrainError> {
    let sets = Sets::of(&pipeline.fitted, &pipeline.prepare)?;
    let mut graph = Graph::new("tidemill");
    let x = inputs(&mut graph, &pipeline.prepare, &sets)?;
    let (sums, link, count) = match &pipeline.fitted {
        Fitted::Ensemble(e) => (sums::ensemble(&mut graph, &x, e, &sets), e.link, e.base.len()),
        Fitted::Linear(l) => (sums::linear(&mut graph, &x, l, sets.width())?, l.link, l.weights.len()),
    };
    let told = match (pipeline.task, link, count) {
        (Task::Regression, Link::Identity, 1) => {
            let to = graph.node("", "Identity", &[&sums], vec![]);
            graph.output(&to, VARIABLE, Element::Float, &[1]);
            return Ok(finish(graph, &pipeline.prepare));
        }
        (Task::Binary | Task::Classes(2), Link::Logistic | Link::Probability, 1) => {
            let p = probability(&mut graph, &sums, link);
            let one = graph.floats(&[1], vec![1.0]);
            let other = graph.node("", "Sub", &[&one, &p], vec![]);
            graph.node("", "Concat", &[&other, &p], vec![proto::int("axis", 1)])
        }
        (Task::Binary, Link::Softmax | Link::Probability, 2) => probability(&mut graph, &sums, link),
        (Task::Classes(n), Link::Softmax | Link::Probability, count) if n as usize == count => {
            probability(&mut graph, &sums, link)
        }
        (task, link, count) => {
            return Err(data(format!("a model with {count} sums by {link:?} does not tell {task:?}")));
        }
    };
    let attributes = vec![proto::int("axis", 1), proto::int("keepdims", 0)];
    let label = graph.node("", "ArgMax", &[&told], attributes);
    graph.output(&label, LABEL, Element::Int64, &[]);
    graph.output(&told, PROBABILITIES, Element::Float, &[pipeline.width() as i64]);
    Ok(finish(graph, &pipeline.prepare))
}

fn finish(graph: Graph, recipe: &Recipe) -> Vec<u8> {
    let mut metadata = Vec::new();
    if only_numbers(recipe) {
        let names: Vec<&str> = recipe.columns.iter().map(|c| c.name.as_str()).collect();
        metadata.push((COLUMNS, serde_json::Value::from(names).to_string()));
    } else {
        metadata.push((MISSING_TEXT, String::new()));
    }
    graph.into_model(metadata).encode_to_vec()
}

fn only_numbers(recipe: &Recipe) -> bool {
    recipe.columns.iter().all(|c| matches!(c.step, Step::Number(_)))
}

/// Sums as probabilities.
fn probability(graph: &mut Graph, sums: &str, link: Link) -> String {
    match link {
        Link::Identity => sums.to_string(),
        Link::Logistic => graph.node("", "Sigmoid", &[sums], vec![]),
        Link::Softmax => graph.node("", "Softmax", &[sums], vec![proto::int("axis", 1)]),
        Link::Probability => {
            // Averages of ones may add up to a hair more.
            let (low, high) = (graph.floats(&[], vec![0.0]), graph.floats(&[], vec![1.0]));
            graph.node("", "Clip", &[sums, &low, &high], vec![])
        }
    }
}

/// The prepared columns side by side; a category that stays one is a column per set of it that is asked for.
fn inputs(graph: &mut Graph, recipe: &Recipe, sets: &Sets) -> Result<String, TrainError> {
    if recipe.columns.is_empty() {
        return Err(data("a model without inputs cannot be exported".to_owned()));
    }
    let mut fills: Vec<Fill> = Vec::new();
    let plain = Fill { fill: None, scale: None };
    let mut x = if only_numbers(recipe) {
        graph.input(INPUT, Element::Float, recipe.columns.len() as i64);
        INPUT.to_string()
    } else {
        let mut parts = Vec::new();
        for (at, column) in recipe.columns.iter().enumerate() {
            let name = column.name.as_str();
            if [PROBABILITIES, LABEL, VARIABLE].contains(&name) || graph.has_input(name) || proto::is_inner(name) {
                return Err(data(format!(
                    "column {name} cannot be an input of an ONNX model with categories: the name is taken; give it another"
                )));
            }
            let element = if matches!(column.step, Step::Number(_)) { Element::Float } else { Element::Text };
            graph.input(name, element, 1);
            match &column.step {
                Step::Number(_) => parts.push(name.to_string()),
                Step::OneHot(levels) => {
                    let attributes = vec![texts("cats_strings", levels), proto::int("zeros", 1)];
                    let ones = graph.node(proto::ML, "OneHotEncoder", &[name], attributes);
                    let shape = graph.ints(vec![-1, levels.len() as i64]);
                    parts.push(graph.node("", "Reshape", &[&ones, &shape], vec![]));
                }
                Step::Ordinal(levels, _) => {
                    let places = (0..levels.len()).map(|i| i as f32).collect();
                    let values = floats("values_floats", places);
                    let attributes =
                        vec![texts("keys_strings", levels), values, proto::float("default_float", f32::NAN)];
                    parts.push(graph.node(proto::ML, "LabelEncoder", &[name], attributes));
                }
                Step::Native(levels) => parts.extend(sets.members(graph, at, name, levels)),
            }
        }
        match parts.as_slice() {
            [] => return Err(data("a model that asks none of its inputs cannot be exported".to_owned())),
            [one] => one.clone(),
            many => {
                let many: Vec<&str> = many.iter().map(String::as_str).collect();
                graph.node("", "Concat", &many, vec![proto::int("axis", 1)])
            }
        }
    };
    for (at, column) in recipe.columns.iter().enumerate() {
        match &column.step {
            Step::Number(fill) | Step::Ordinal(_, fill) => fills.push(*fill),
            Step::OneHot(levels) => fills.resize(fills.len() + levels.len(), plain),
            Step::Native(_) => fills.resize(fills.len() + sets.count(at), plain),
        }
    }
    if fills.iter().any(|f| f.fill.is_some()) {
        // A gap that is not filled is replaced by itself.
        let fill = fills.iter().map(|f| f.fill.unwrap_or(f32::NAN)).collect();
        let attributes = vec![floats("imputed_value_floats", fill), proto::float("replaced_value_float", f32::NAN)];
        x = graph.node(proto::ML, "Imputer", &[&x], attributes);
    }
    if fills.iter().any(|f| f.scale.is_some()) {
        let (offset, scale) = fills.iter().map(|f| f.scale.unwrap_or((0.0, 1.0))).unzip();
        x = graph.node(proto::ML, "Scaler", &[&x], vec![floats("offset", offset), floats("scale", scale)]);
    }
    Ok(x)
}

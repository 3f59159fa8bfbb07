//! What training sets of a job are made of: the plan's names as columns of its tables.

use std::path::PathBuf;

use super::EngineError;
use super::tables::{label_table, tables_of, wanted};
use crate::plan::chain::chains;
use crate::plan::model::Plan;
use crate::store::offline::TableSpec;
use crate::store::pit::{Labelled, View, ViewColumn, Window};

/// Where a job's tables are.
///
/// # Errors
/// When the job writes none.
pub fn lake(plan: &Plan) -> Result<PathBuf, EngineError> {
    let offline = plan.offline.as_ref().ok_or_else(|| {
        EngineError::Plan(
            "the job has no offline sink, so nothing is kept to make a set of; add `sinks.offline`".into(),
        )
    })?;
    Ok(PathBuf::from(&offline.uri))
}

/// The labels of a model and the features that were logged for its predictions.
///
/// # Errors
/// When there is no such model, it has no labels, or the job does not keep what is needed.
pub fn labelled(plan: &Plan, model: &str, window: Window) -> Result<Labelled, EngineError> {
    lake(plan)?;
    let names = || plan.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    let index = plan.models.iter().position(|m| m.name == model);
    let index = index
        .ok_or_else(|| EngineError::Plan(format!("the job has no model `{model}`; it has {}", or_none(names()))))?;
    if !plan.labels.iter().any(|labels| labels.model == index) {
        let what = format!("model `{model}` has no labels; declare them: `labels: {{{model}: …}}`");
        return Err(EngineError::Plan(what));
    }
    let set = &plan.sets[plan.models[index].inputs];
    let (labels, features) = (label_table(model), format!("feature_sets/{}", set.name));
    let spec = spec_of(plan, &features)?;
    for table in [&labels, &features] {
        kept(plan, table)?;
    }
    let spine = &plan.sources[set.spine];
    let id = spine.id.map(|id| spine.schema.field(id).name().clone());
    let id = id.ok_or_else(|| EngineError::defect(format!("labels of `{model}` without ids")))?;
    let column = |engine: &str| column_of(&spec, engine);
    let mut keys = Vec::new();
    for name in set.views.iter().flat_map(|view| &plan.views[*view].entity_names) {
        let name = column(name)?;
        if !keys.contains(&name) {
            keys.push(name);
        }
    }
    Ok(Labelled {
        model: model.to_owned(),
        labels,
        id: column(&id)?,
        keys,
        inputs: set.columns.iter().map(|c| column(&c.engine)).collect::<Result<_, _>>()?,
        features,
        window,
    })
}

/// All columns of some views, named as feature sets name them.
///
/// # Errors
/// When there is no such view, or the job does not keep its table.
pub fn views(plan: &Plan, names: &[String]) -> Result<Vec<View>, EngineError> {
    let one = |name: &String| {
        let all = || plan.views.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
        let view = plan.views.iter().position(|v| v.name == *name);
        let view = view.ok_or_else(|| {
            EngineError::Plan(format!("the job has no feature view `{name}`; it has {}", or_none(all())))
        })?;
        view_of(plan, view, &|_| true)
    };
    names.iter().map(one).collect()
}

/// Those columns of a feature set that its views' tables hold, and the names of those that they do not: columns of the spine,
/// and of a view over another stream those that are computed from the spine's row.
///
/// # Errors
/// When there is no such set, or the job does not keep a table.
pub fn views_of_set(plan: &Plan, name: &str) -> Result<(Vec<View>, Vec<String>), EngineError> {
    let all = || plan.sets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    let set = plan.sets.iter().find(|s| s.name == name);
    let set = set
        .ok_or_else(|| EngineError::Plan(format!("the job has no feature set `{name}`; it has {}", or_none(all()))))?;
    let is_taken = |engine: &str| set.columns.iter().any(|c| c.engine == engine);
    let mut views = Vec::new();
    for view in &set.views {
        let view = view_of(plan, *view, &is_taken)?;
        if !view.columns.is_empty() {
            views.push(view);
        }
    }
    let has = |name: &str| views.iter().any(|view| view.columns.iter().any(|column| column.name == name));
    let left_out = set.columns.iter().map(|c| c.name.clone()).filter(|name| !has(name)).collect();
    Ok((views, left_out))
}

fn view_of(plan: &Plan, view: usize, is_taken: &dyn Fn(&str) -> bool) -> Result<View, EngineError> {
    let view = &plan.views[view];
    let table = format!("features/{}", view.name);
    kept(plan, &table)?;
    let spec = spec_of(plan, &table)?;
    let keys = view.entity_names.iter().map(|key| column_of(&spec, key)).collect::<Result<Vec<_>, _>>()?;
    // Derived columns are in the table too, as of the entity's last event; a set takes them from its own row.
    let prefix = format!("{}.", view.name);
    let features = spec.columns().iter().filter(|c| c.engine.starts_with(&prefix) && is_taken(&c.engine));
    let columns =
        features.map(|c| ViewColumn { column: c.name.clone(), name: format!("{}__{}", view.name, c.name) }).collect();
    Ok(View { table, keys, columns, ttl: view.ttl })
}

fn or_none(names: String) -> String {
    if names.is_empty() { "none".to_owned() } else { names }
}

/// What the job declares of a table.
fn spec_of(plan: &Plan, name: &str) -> Result<TableSpec, EngineError> {
    // Only tables of predictions have columns of models' outputs.
    let outputs = vec![Vec::new(); plan.models.len()];
    let found = tables_of(plan, &chains(plan), &outputs, &|table| table == name)?.pop();
    found.map(|table| table.spec).ok_or_else(|| EngineError::defect(format!("there is no table {name}")))
}

/// Name in the table of a column of the engine.
fn column_of(spec: &TableSpec, engine: &str) -> Result<String, EngineError> {
    let found = spec.columns().iter().find(|column| column.engine == engine);
    let missing = || EngineError::defect(format!("table {} has no column of {engine}", spec.name()));
    found.map(|column| column.name.clone()).ok_or_else(missing)
}

fn kept(plan: &Plan, table: &str) -> Result<(), EngineError> {
    match plan.offline.as_ref().is_some_and(|offline| wanted(offline, table)) {
        true => Ok(()),
        false => Err(EngineError::Plan(format!(
            "the job does not keep table {table}; add it to `sinks.offline.tables`, or leave that list out"
        ))),
    }
}

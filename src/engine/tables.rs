//! The offline tables of a plan and where the rows of each come from.

use arrow::datatypes::{DataType, Schema, TimeUnit};

use super::monitor::alerts;
use super::rollout;
use crate::ingest::dead_letter_schema;
use crate::monitor::alert::alert_schema;
use crate::monitor::alert::table::TABLE;
use crate::monitor::{StatKind, stat_schema};
use crate::ops::system::SYSTEM_COLUMNS;
use crate::plan::chain::{Chain, update_schema, value_fields};
use crate::plan::model::{OfflinePlan, Plan, StreamRef};
use crate::rollout::record::TABLE as ROLLOUTS;
use crate::rollout::record_schema;
use crate::store::StoreError;
use crate::store::offline::TableSpec;
use crate::store::pit::LABEL_TABLE_COLUMNS;

/// Table of rows turned away, unless a source names its own.
pub const DEAD_LETTERS: &str = "dead_letters";

/// Engine columns that name the model, its version and the SHA-256 of its file.
pub const MODEL_COLUMNS: [&str; 3] = ["model", "model_version", "model_hash"];

/// Where a table's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Rows at the end of a chain (by index).
    Chain(usize),
    /// As-of-event rows of a view whose stream is no spine.
    SideView(usize),
    /// A model's scored rows.
    Model(usize),
    /// Label rows as they arrive (by index of their declaration).
    Labels(usize),
    /// Statistics of all monitors, in the form of their table.
    Statistics(StatKind),
    /// Alerts of all monitors, in the form of their table.
    Alerts,
    /// What was decided about versions of all models, in the form of its table.
    Rollouts,
}

/// One offline table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Name, columns and sort order.
    pub spec: TableSpec,
    /// Where its rows come from.
    pub origin: Origin,
}

/// Names of all tables that a plan can write, dead letters included.
pub fn table_names(plan: &Plan) -> Vec<String> {
    let views = plan.views.iter().map(|v| format!("features/{}", v.name));
    let sets = plan.sets.iter().map(|s| format!("feature_sets/{}", s.name));
    let models = plan.models.iter().map(|m| format!("predictions/{}", m.name));
    let labels = plan.labels.iter().map(|l| label_table(&plan.models[l.model].name));
    let stats = StatKind::ALL.into_iter().filter(|_| !plan.monitors.is_empty()).map(|kind| kind.table().to_owned());
    let alerts = alerts::wanted(plan).then(|| TABLE.to_owned());
    let rollouts = rollout::wanted(plan).then(|| ROLLOUTS.to_owned());
    let watched = stats.chain(alerts).chain(rollouts);
    views.chain(sets).chain(models).chain(labels).chain(watched).chain(dead_letter_tables(plan)).collect()
}

/// Name of the table of a model's labels.
pub fn label_table(model: &str) -> String {
    format!("labels/{model}")
}

/// Names of the dead-letter tables.
pub fn dead_letter_tables(plan: &Plan) -> Vec<String> {
    let mut names: Vec<String> = plan.sources.iter().map(|s| s.rejected_to.clone()).collect();
    names.push(DEAD_LETTERS.to_owned());
    names.sort_unstable();
    names.dedup();
    names
}

/// A table whose rows are made in the form that it has.
fn ready_made(name: &str, schema: &Schema) -> Result<TableSpec, StoreError> {
    let columns = schema.fields()[SYSTEM_COLUMNS.len()..].iter();
    TableSpec::new(name, columns.map(|f| named(f.name(), f.data_type())), &[])
}

/// A table of dead letters.
///
/// # Errors
/// Never, short of a defect: its columns are fixed.
pub fn dead_letter_spec(name: &str) -> Result<TableSpec, StoreError> {
    ready_made(name, &dead_letter_schema())
}

/// A table of statistics.
///
/// # Errors
/// Never, short of a defect: its columns are fixed.
pub fn statistics_spec(kind: StatKind) -> Result<TableSpec, StoreError> {
    ready_made(kind.table(), &stat_schema())
}

/// The table of alerts.
///
/// # Errors
/// Never, short of a defect: its columns are fixed.
pub fn alerts_spec() -> Result<TableSpec, StoreError> {
    ready_made(TABLE, &alert_schema())
}

/// The table of decisions about versions.
///
/// # Errors
/// Never, short of a defect: its columns are fixed.
pub fn rollouts_spec() -> Result<TableSpec, StoreError> {
    ready_made(ROLLOUTS, &record_schema())
}

/// Whether the plan wants this table.
pub fn wanted(offline: &OfflinePlan, name: &str) -> bool {
    offline.tables.as_ref().is_none_or(|list| list.iter().any(|table| table == name))
}

/// The tables that a plan writes, dead letters apart, in a fixed order; empty without an offline sink.
///
/// # Errors
/// When a column has a type that tables do not hold, or two columns would have one name.
pub fn tables(plan: &Plan, chains: &[Chain], outputs: &[Vec<(String, DataType)>]) -> Result<Vec<Table>, StoreError> {
    match &plan.offline {
        Some(offline) => tables_of(plan, chains, outputs, &|name| wanted(offline, name)),
        None => Ok(Vec::new()),
    }
}

/// The tables whose names are `wanted`, dead letters apart, in a fixed order, whether or not the plan writes them.
///
/// # Errors
/// As [`tables`].
pub fn tables_of(
    plan: &Plan,
    chains: &[Chain],
    outputs: &[Vec<(String, DataType)>],
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Table>, StoreError> {
    let mut tables = Vec::new();
    let mut add = |name: String, columns: Vec<(String, String, DataType)>, entity: &[String], origin| {
        if wanted(&name) {
            let entity: Vec<&str> = entity.iter().map(String::as_str).collect();
            tables.push(Table { spec: TableSpec::new(name, columns, &entity)?, origin });
        }
        Ok::<_, StoreError>(())
    };
    for (index, view) in plan.views.iter().enumerate() {
        let chain = chains.iter().position(|c| c.views.contains(&index) && view.stream == StreamRef::Source(c.spine));
        let schema = update_schema(plan, view);
        // In the view's own table its columns go by their short names.
        let prefix = format!("{}.", view.name);
        let short = |engine: &str, data_type: &DataType| {
            (engine.strip_prefix(&prefix).unwrap_or(engine).to_owned(), engine.to_owned(), data_type.clone())
        };
        let keyed = view.entity_names.iter().chain(&view.derived).filter_map(|name| schema.field_with_name(name).ok());
        let mut columns: Vec<_> = keyed.map(|f| short(f.name(), f.data_type())).collect();
        let values = value_fields(view);
        // Post columns may read the spine, so a side view's own rows carry its aggregates alone.
        let shown = if chain.is_some() { values.len() } else { view.aggregates.len() };
        columns.extend(values[..shown].iter().map(|f| short(f.name(), f.data_type())));
        let origin = chain.map_or(Origin::SideView(index), Origin::Chain);
        add(format!("features/{}", view.name), columns, &view.entity_names, origin)?;
    }
    for (chain_index, chain) in chains.iter().enumerate() {
        let identity = identity_columns(plan, chain);
        let entity = chain.views.first().map(|&view| plan.views[view].entity_names.clone()).unwrap_or_default();
        for &set in &chain.sets {
            let set_plan = &plan.sets[set];
            let mut columns = identity.clone();
            columns.retain(|(_, engine, _)| !set_plan.columns.iter().any(|c| &c.engine == engine));
            columns.extend(set_plan.columns.iter().map(|c| (c.name.clone(), c.engine.clone(), c.data_type.clone())));
            add(format!("feature_sets/{}", set_plan.name), columns.clone(), &entity, Origin::Chain(chain_index))?;
            for (model, model_plan) in plan.models.iter().enumerate().filter(|(_, m)| m.inputs == set) {
                let mut columns = columns.clone();
                columns.extend(MODEL_COLUMNS.map(|name| named(name, &DataType::Utf8)));
                columns.extend(outputs[model].iter().map(|(name, ty)| named(name, ty)));
                if rollout::is_rolled_out(plan, model) {
                    columns.extend(rollout::columns(&outputs[model]));
                }
                add(format!("predictions/{}", model_plan.name), columns, &entity, Origin::Model(model))?;
            }
        }
    }
    for (index, labels) in plan.labels.iter().enumerate() {
        let id = plan.sources[labels.from].stream_schema.field(labels.id).data_type();
        let [id_column, value, known_at] = LABEL_TABLE_COLUMNS;
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns = vec![named(id_column, id), named(value, &DataType::Float64), named(known_at, &time)];
        let entity = [id_column.to_owned()];
        add(label_table(&plan.models[labels.model].name), columns, &entity, Origin::Labels(index))?;
    }
    for kind in StatKind::ALL.into_iter().filter(|kind| !plan.monitors.is_empty() && wanted(kind.table())) {
        tables.push(Table { spec: statistics_spec(kind)?, origin: Origin::Statistics(kind) });
    }
    if rollout::wanted(plan) && wanted(ROLLOUTS) {
        tables.push(Table { spec: rollouts_spec()?, origin: Origin::Rollouts });
    }
    if alerts::wanted(plan) && wanted(TABLE) {
        tables.push(Table { spec: alerts_spec()?, origin: Origin::Alerts });
    }
    Ok(tables)
}

fn named(name: &str, data_type: &DataType) -> (String, String, DataType) {
    (name.to_owned(), name.to_owned(), data_type.clone())
}

/// Columns that name a spine row: its id and the entity keys of the views it visits.
fn identity_columns(plan: &Plan, chain: &Chain) -> Vec<(String, String, DataType)> {
    let spine = &plan.sources[chain.spine];
    let id = spine.id.iter().map(|&id| spine.schema.field(id).name());
    let keys = chain.views.iter().flat_map(|&view| &plan.views[view].entity_names);
    let mut columns: Vec<(String, String, DataType)> = Vec::new();
    for name in id.chain(keys) {
        if columns.iter().all(|(seen, ..)| seen != name)
            && let Ok(field) = chain.schema.field_with_name(name)
        {
            columns.push(named(name, field.data_type()));
        }
    }
    columns
}

//! Which views the rows of each spine visit, and what columns they carry at the end.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::model::{Plan, StreamRef, ViewPlan};

/// The way of one spine's rows.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The spine: a source, by index.
    pub spine: usize,
    /// Views visited, in the order of the file.
    pub views: Vec<usize>,
    /// The same in the order in which rows visit them: those of one entity together, and first the entity whose views add least.
    pub visits: Vec<usize>,
    /// Feature sets read at the end.
    pub sets: Vec<usize>,
    /// Columns of the rows at the end.
    pub schema: SchemaRef,
}

/// The chains of a plan: one per spine, with the views of all its sets, and one for each stream whose views no set reads.
pub fn chains(plan: &Plan) -> Vec<Chain> {
    let mut chains: Vec<(usize, Vec<usize>, Vec<usize>)> = Vec::new();
    let find = |chains: &mut Vec<(usize, Vec<usize>, Vec<usize>)>, spine: usize| {
        chains.iter().position(|chain| chain.0 == spine).unwrap_or_else(|| {
            chains.push((spine, Vec::new(), Vec::new()));
            chains.len() - 1
        })
    };
    for (index, set) in plan.sets.iter().enumerate() {
        let chain = find(&mut chains, set.spine);
        chains[chain].1.extend(&set.views);
        chains[chain].2.push(index);
    }
    for (index, view) in plan.views.iter().enumerate() {
        if !chains.iter().any(|chain| chain.1.contains(&index)) {
            let spine = match view.stream {
                StreamRef::Source(source) => source,
                StreamRef::Join(join) => plan.joins[join].left,
            };
            let chain = find(&mut chains, spine);
            chains[chain].1.push(index);
        }
    }
    chains
        .into_iter()
        .map(|(spine, mut views, sets)| {
            views.sort_unstable();
            views.dedup();
            let visits = visits(&plan.views, &views);
            let mut schema = Arc::clone(&plan.sources[spine].stream_schema);
            for &view in &visits {
                schema = schema_after(&schema, &plan.views[view]);
            }
            Chain { spine, views, visits, sets, schema }
        })
        .collect()
}

/// The order in which rows visit `views`, which are indices in the order of the file.
///
/// No view reads what another adds, so any order gives the same rows. Between two entities a row moves to another worker, with
/// all that views have added to it so far: hence the views of one entity come one after the other, and the entity whose views
/// add most comes last.
fn visits(plans: &[ViewPlan], views: &[usize]) -> Vec<usize> {
    let mut entities: Vec<(&[String], Vec<usize>)> = Vec::new();
    for &view in views {
        let entity = &plans[view].entity_names[..];
        match entities.iter_mut().find(|(seen, _)| *seen == entity) {
            Some((_, views)) => views.push(view),
            None => entities.push((entity, vec![view])),
        }
    }
    let added = |view: &usize| value_fields(&plans[*view]).iter().map(|field| width(field.data_type())).sum::<usize>();
    entities.sort_by_key(|(_, views)| views.iter().map(added).sum::<usize>());
    entities.into_iter().flat_map(|(_, views)| views).collect()
}

/// Bytes of a value, more or less.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Boolean => 1,
        other => other.primitive_width().unwrap_or(16),
    }
}

/// Columns of spine rows after they have visited `view`.
pub fn schema_after(schema: &SchemaRef, view: &ViewPlan) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.extend(value_fields(view));
    Arc::new(Schema::new(fields))
}

/// The columns that a view adds: aggregates, then post columns.
pub fn value_fields(view: &ViewPlan) -> Vec<Arc<Field>> {
    let aggregates = view.aggregates.iter().map(|a| Field::new(&a.name, a.output_type.clone(), true));
    let post = view.post.iter().map(|p| Field::new(&p.name, p.expr.data_type.clone(), true));
    aggregates.chain(post).map(Arc::new).collect()
}

/// The stream schema that a view's updates have.
pub fn update_schema(plan: &Plan, view: &ViewPlan) -> SchemaRef {
    match view.stream {
        StreamRef::Source(source) => Arc::clone(&plan.sources[source].stream_schema),
        StreamRef::Join(join) => Arc::clone(&plan.joins[join].schema),
    }
}

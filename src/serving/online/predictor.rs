//! A model's input from a request: the request's fields as a row of the spine, the features of its entities, and what the
//! job's expressions make of both. Nothing is defined here: checks, derived columns, defaults and expressions are the job's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Field, Schema};

use super::answer::Standing;
use super::catalogue::View;
use super::link::{LinkError, Rows};
use super::version::Versions;
use crate::ingest::{RequestReader, RequestRows};
use crate::ops::key;
use crate::plan::model::{Plan, ViewPlan};
use crate::serving::ServedJob;
use crate::store::online::Ask;
use crate::store::online::value::{Header, unpack};

/// What makes a model's input.
pub struct Predictor {
    plan: Arc<Plan>,
    model: usize,
    reader: RequestReader,
    /// The versions of the model.
    pub versions: Arc<Versions>,
    /// Engine names of the model's inputs.
    inputs: Vec<String>,
    /// The column that says when the row is, if it is one that a request may leave out.
    pub time: Option<String>,
    /// Columns that a row may have.
    pub fields: Vec<String>,
}

/// What a view gave for the rows of a request.
pub struct ViewRows {
    /// The view, as an index into the plan's.
    pub view: usize,
    /// How each row stands.
    pub standings: Vec<Standing>,
}

/// A model's input.
pub struct Inputs {
    /// The model's columns, in their order.
    pub columns: Vec<ArrayRef>,
    /// What the views gave.
    pub views: Vec<ViewRows>,
}

impl Predictor {
    /// Of a model of a job.
    ///
    /// # Errors
    /// A sentence, when requests cannot be read by the job's plan.
    pub fn new(served: &ServedJob, model: usize) -> Result<Predictor, String> {
        let plan = &served.plan;
        let set = &plan.sets[plan.models[model].inputs];
        let spine = &plan.sources[set.spine];
        let views = || set.views.iter().map(|view| &plan.views[*view]);
        let mut needed: Vec<&str> = set.columns.iter().map(|c| c.engine.as_str()).collect();
        needed.extend(views().flat_map(|view| &view.post).flat_map(|post| post.expr.inputs.iter().map(String::as_str)));
        // Derived columns that nothing of this model reads may be null.
        let derived = spine.derived.iter().filter(|derived| needed.contains(&derived.name.as_str()));
        let read: Vec<&str> = derived.flat_map(|derived| derived.expr.inputs.iter().map(String::as_str)).collect();
        needed.extend(read);
        needed.extend(spine.event_time.inputs.iter().map(String::as_str));
        needed.extend(spine.filter.iter().flat_map(|filter| filter.inputs.iter().map(String::as_str)));
        let keys: Vec<&str> = views().flat_map(|view| view.entity_names.iter().map(String::as_str)).collect();
        needed.extend(&keys);
        let place = |name: &&str| spine.schema.fields().iter().position(|field| field.name() == name);
        let reader = RequestReader::new(spine, keys.iter().filter_map(place).collect(), |name| needed.contains(&name));
        let time = match &spine.event_time.inputs[..] {
            [column] => {
                let field = spine.schema.field_with_name(column).ok();
                field.filter(|f| matches!(f.data_type(), DataType::Timestamp(..))).map(|f| f.name().clone())
            }
            _ => None,
        };
        Ok(Predictor {
            plan: Arc::clone(plan),
            model,
            reader: reader.map_err(|error| error.to_string())?,
            versions: Arc::new(Versions::new(Arc::clone(plan), model, served.state_dir.clone())),
            inputs: set.columns.iter().map(|c| c.engine.clone()).collect(),
            time,
            fields: spine.schema.fields().iter().map(|field| field.name().clone()).collect(),
        })
    }

    /// Names and types of the model's inputs, as tables have them.
    pub fn vector(&self) -> impl Iterator<Item = (&str, &DataType)> {
        let set = &self.plan.sets[self.plan.models[self.model].inputs];
        set.columns.iter().map(|column| (column.name.as_str(), &column.data_type))
    }

    /// The views that are read, as indices into the plan's.
    pub fn views(&self) -> &[usize] {
        &self.plan.sets[self.plan.models[self.model].inputs].views
    }

    /// Reads and checks a request's rows, each a JSON object.
    ///
    /// # Errors
    /// A sentence: a defect of ours.
    pub fn read(&self, rows: &[&[u8]]) -> Result<RequestRows, String> {
        self.reader.read(rows).map_err(|error| error.to_string())
    }

    /// What is to be read of each of [`views`](Self::views) for these rows.
    ///
    /// # Errors
    /// A sentence: a defect of ours.
    pub fn asks(&self, rows: &RecordBatch, served: &[View]) -> Result<Vec<Ask>, String> {
        let asks = self.views().iter().map(|&view| {
            let plan = &self.plan.views[view];
            let columns = plan.entity_names.iter().map(|name| {
                rows.column_by_name(name).cloned().ok_or_else(|| format!("the rows have no column `{name}`"))
            });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_, String>>()?;
            let keys = key::encode(&columns).map_err(|error| error.to_string())?;
            Ok(Ask { view: Arc::clone(&served[view].name), keys })
        });
        asks.collect()
    }

    /// The model's input: the request's rows, the features found for them, and the job's expressions over both.
    ///
    /// # Errors
    /// [`LinkError::Damaged`] when what is in the store makes no sense.
    pub fn inputs(&self, rows: RecordBatch, found: Vec<Rows>, served: &[View]) -> Result<Inputs, LinkError> {
        let damaged = |what: String| LinkError::Damaged(what);
        let mut views = Vec::with_capacity(found.len());
        let count = rows.num_rows();
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        for (&view, found) in self.views().iter().zip(found) {
            let plan = &self.plan.views[view];
            let (values, standings) = aggregates(plan, &served[view], found, count).map_err(damaged)?;
            views.push(ViewRows { view, standings });
            for (aggregate, values) in plan.aggregates.iter().zip(values) {
                fields.push(Arc::new(Field::new(&aggregate.name, aggregate.output_type.clone(), true)));
                columns.push(values);
            }
            if plan.post.is_empty() {
                continue;
            }
            let wide = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns.clone());
            let wide = wide.map_err(|error| damaged(error.to_string()))?;
            for post in &plan.post {
                // As in the stream: a row for which the expression fails has no value there.
                let (column, _failed) = post.expr.evaluate_rows(&wide).map_err(|error| damaged(error.to_string()))?;
                fields.push(Arc::new(Field::new(&post.name, post.expr.data_type.clone(), true)));
                columns.push(cast(&column, &post.expr.data_type).map_err(|error| damaged(error.to_string()))?);
            }
        }
        let input = |name: &String| {
            let place = fields.iter().position(|field| field.name() == name);
            place.map(|at| Arc::clone(&columns[at])).ok_or_else(|| damaged(format!("there is no column `{name}`")))
        };
        let columns = self.inputs.iter().map(input).collect::<Result<_, _>>()?;
        Ok(Inputs { columns, views })
    }
}

/// A view's aggregates for some rows. An entity that is not there has the defaults: its windows hold nothing.
fn aggregates(
    plan: &ViewPlan,
    served: &View,
    found: Rows,
    count: usize,
) -> Result<(Vec<ArrayRef>, Vec<Standing>), String> {
    let Rows { layouts, now, rows, .. } = found;
    let damaged = |what: String| format!("a row of view {}: {what}", plan.name);
    let mut standings = Vec::with_capacity(count);
    // Of each row which array it comes from: 0 is the defaults, then one for each layout.
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(count);
    let mut groups: Vec<Vec<Option<&[u8]>>> = vec![Vec::new(); layouts.all.len()];
    for row in &rows {
        let Some(row) = row else {
            standings.push(Standing::Absent);
            places.push((0, 0));
            continue;
        };
        let header = Header::read(row).ok_or_else(|| damaged("it has an unknown format".into()))?;
        let standing = Standing::of(&header, served, now);
        standings.push(standing);
        if standing == Standing::Expired {
            places.push((0, 0));
            continue;
        }
        let layout = layouts.place(header.schema).ok_or_else(|| damaged("it follows an unknown layout".into()))?;
        places.push((layout + 1, groups[layout].len()));
        groups[layout].push(Some(row));
    }
    let unpacked = groups.iter().zip(&layouts.types).map(|(group, types)| unpack(types, group).map_err(damaged));
    let unpacked: Vec<Vec<ArrayRef>> = unpacked.collect::<Result<_, _>>()?;
    let fail = |error: arrow::error::ArrowError| damaged(error.to_string());
    let columns = plan.aggregates.iter().zip(&served.columns).map(|(aggregate, name)| {
        let to = &aggregate.output_type;
        let default = match &aggregate.default {
            Some(value) => {
                let value = value.to_array_of_size(1).map_err(|error| damaged(error.to_string()))?;
                cast(&value, to).map_err(fail)?
            }
            None => new_null_array(to, 1),
        };
        let mut arrays = vec![default];
        for (((_, schema), columns), group) in layouts.all.iter().zip(&unpacked).zip(&groups) {
            let at = schema.columns.iter().position(|column| column.name == *name);
            let column = at.and_then(|at| cast(&columns[at], to).ok());
            arrays.push(column.unwrap_or_else(|| new_null_array(to, group.len())));
        }
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &places).map_err(fail)
    });
    Ok((columns.collect::<Result<_, String>>()?, standings))
}

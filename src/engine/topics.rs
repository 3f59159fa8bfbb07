//! The topics of a plan: which rows each takes, in what form and by what key.

use std::sync::Arc;

use arrow::datatypes::DataType;

use super::EngineError;
use super::outbox::{OutboxGroup, Outboxes, Staging};
use super::rollout;
use super::run::TopicSummary;
use super::tables::{DEAD_LETTERS, MODEL_COLUMNS, Origin, alerts_spec, dead_letter_spec, statistics_spec, tables_of};
use crate::ingest::Registry;
use crate::monitor::StatKind;
use crate::ops::key;
use crate::plan::chain::Chain;
use crate::plan::model::{Plan, TopicFormat, TopicPlan, TopicRows};
use crate::store::StoreError;
use crate::store::offline::{RowForm, TableSpec};
use crate::store::topic::{Encoding, KeyEncoder, Publisher, RowEncoder, avro_schema};

/// Where a topic's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicOrigin {
    /// Rows of a table.
    Table(Origin),
    /// Dead letters, in the form of their tables.
    DeadLetters,
    /// Statistics of a monitor (by index), in the form of their tables.
    Statistics(usize),
    /// Alerts for a receiver (by index among the plan's), in the form of their table.
    Alerts(usize),
}

/// A topic as the plan means it.
pub struct Resolved {
    /// Where its rows come from.
    pub origin: TopicOrigin,
    /// Brings them into the table's form.
    pub form: RowForm,
    /// Turns them into bytes.
    pub encoder: RowEncoder,
    /// Turns their key columns into keys.
    pub key: KeyEncoder,
    /// The key's columns in the engine's batches, where all are there: rows of one key then go through one worker.
    pub route: Option<Vec<usize>>,
    /// Schema of the messages, where they are Avro.
    pub schema: Option<String>,
}

/// A topic of a running job.
pub struct OpenTopic {
    /// Where its rows come from.
    pub origin: TopicOrigin,
    /// Brings them into the table's form.
    pub form: RowForm,
    /// Turns them into bytes.
    pub encoder: RowEncoder,
    /// Turns their key columns into keys.
    pub key: KeyEncoder,
    /// See [`Resolved::route`].
    pub route: Option<Vec<usize>>,
    /// How they get there.
    pub way: Way,
}

/// How messages reach a topic.
pub enum Way {
    /// As soon as their tick is durable.
    AtLeastOnce {
        /// The producer, shared by topics of the same brokers and settings.
        publisher: Arc<Publisher>,
        /// Number of the topic in the producer.
        slot: usize,
    },
    /// Through an outbox.
    ExactlyOnce {
        /// The publisher's topics, shared by topics of the same brokers and settings.
        group: Arc<OutboxGroup>,
        /// Number of the group.
        number: usize,
        /// Number of the topic in the group.
        topic: u16,
    },
}

impl OpenTopic {
    /// The producer of a topic that is written at once.
    pub fn publisher(&self) -> Option<&Publisher> {
        match &self.way {
            Way::AtLeastOnce { publisher, .. } => Some(publisher),
            Way::ExactlyOnce { .. } => None,
        }
    }
}

/// Holds a topic against the tables. `outputs` are the models' output columns.
///
/// # Errors
/// The key of the topic's settings that is at fault, and a sentence.
pub fn resolve(
    plan: &Plan,
    chains: &[Chain],
    outputs: &[Vec<(String, DataType)>],
    topic: &TopicPlan,
) -> Result<Resolved, (&'static str, String)> {
    let (origin, spec) = match &topic.rows {
        TopicRows::DeadLetters => {
            (TopicOrigin::DeadLetters, dead_letter_spec(DEAD_LETTERS).map_err(|e| ("topic", e.to_string()))?)
        }
        TopicRows::Statistics(name) => {
            let monitor = plan.monitors.iter().position(|m| plan.models[m.model].name == *name);
            let monitor = monitor.ok_or_else(|| ("topic", format!("the job has no monitor `{name}`")))?;
            let spec = statistics_spec(StatKind::Accuracy).map_err(|e| ("topic", e.to_string()))?;
            (TopicOrigin::Statistics(monitor), spec)
        }
        TopicRows::Alerts(name) => {
            let receiver = plan.receivers.iter().position(|r| r.name == *name);
            let receiver = receiver.ok_or_else(|| ("topic", format!("the job has no receiver `{name}`")))?;
            (TopicOrigin::Alerts(receiver), alerts_spec().map_err(|e| ("topic", e.to_string()))?)
        }
        TopicRows::Table(name) => {
            let found = tables_of(plan, chains, outputs, &|table| table == name);
            match found.map_err(|e| ("topic", e.to_string()))?.pop() {
                Some(table) => {
                    let spec = published(plan, table.origin, table.spec).map_err(|e| ("topic", e.to_string()))?;
                    (TopicOrigin::Table(table.origin), spec)
                }
                None => return Err(("topic", format!("the job has no rows `{name}`"))),
            }
        }
    };
    let sources: Vec<String> = plan.sources.iter().map(|s| s.name.clone()).collect();
    let form = RowForm::new(spec.clone(), &sources, plan.version);
    let mut key_columns = Vec::new();
    let mut engine_names = Vec::new();
    for wanted in &topic.key {
        let payload = spec.columns().iter().find(|c| c.name == *wanted || c.engine == *wanted);
        let name = payload.map_or(wanted, |c| &c.name);
        let Ok(column) = form.schema().index_of(name) else {
            let names: Vec<&str> = form.schema().fields().iter().map(|f| f.name().as_str()).collect();
            return Err(("key", format!("the rows have no column `{wanted}`; they have {}", names.join(", "))));
        };
        key_columns.push(column);
        engine_names.extend(payload.map(|c| c.engine.clone()));
    }
    let route = match origin {
        TopicOrigin::Table(origin) if !key_columns.is_empty() && engine_names.len() == key_columns.len() => {
            route(plan, chains, outputs, origin, &engine_names)
        }
        _ => None,
    };
    let schema = match topic.format {
        TopicFormat::Avro => {
            let name = topic.rows.name().replace(['/', ' '], "_");
            let schema = avro_schema(&format!("tidemill.{}", plan.job), &name, form.schema());
            Some(schema.map_err(|what| ("format", what))?)
        }
        TopicFormat::Json | TopicFormat::Original => None,
    };
    let encoding = match topic.format {
        TopicFormat::Json => Encoding::Json,
        TopicFormat::Avro => Encoding::Avro(Vec::new()),
        TopicFormat::Original => Encoding::Column("original".to_owned()),
    };
    let encoder = RowEncoder::new(format!("topic {}", topic.topic), encoding);
    Ok(Resolved { origin, form, encoder, key: KeyEncoder::new(key_columns), route, schema })
}

/// What of a table is published: not what a challenger says in shadow.
fn published(plan: &Plan, origin: Origin, spec: TableSpec) -> Result<TableSpec, StoreError> {
    match origin {
        Origin::Model(model) if rollout::is_rolled_out(plan, model) => {
            let columns = spec.columns().iter().filter(|column| !rollout::is_shadow(&column.engine));
            let columns = columns.map(|c| (c.name.clone(), c.engine.clone(), c.data_type.clone()));
            TableSpec::new(spec.name(), columns.collect::<Vec<_>>(), &[])
        }
        _ => Ok(spec),
    }
}

/// Positions of columns in the engine's batches, when rows can be routed by all of them.
fn route(
    plan: &Plan,
    chains: &[Chain],
    outputs: &[Vec<(String, DataType)>],
    origin: Origin,
    names: &[String],
) -> Option<Vec<usize>> {
    let (chain, model) = match origin {
        Origin::Chain(chain) => (&chains[chain], None),
        Origin::Model(model) => {
            let set = plan.models[model].inputs;
            (chains.iter().find(|c| c.sets.contains(&set))?, Some(model))
        }
        // A view's own rows are on the worker of their entity.
        Origin::SideView(_) | Origin::Labels(_) | Origin::Statistics(_) | Origin::Alerts | Origin::Rollouts => {
            return None;
        }
    };
    let mut fields: Vec<(&str, &DataType)> =
        chain.schema.fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
    if let Some(model) = model {
        fields.extend(MODEL_COLUMNS.map(|name| (name, &DataType::Utf8)));
        fields.extend(outputs[model].iter().map(|(name, data_type)| (name.as_str(), data_type)));
        if rollout::is_rolled_out(plan, model) {
            fields.push((rollout::ROUTE, &DataType::Utf8));
        }
    }
    let position = |name: &String| fields.iter().position(|(n, t)| n == name && key::is_supported(t));
    names.iter().map(position).collect()
}

/// Opens all topics of a plan, and the outboxes of those that are written exactly once.
///
/// # Errors
/// When a topic asks for columns that there are not, or for what the job cannot promise, or a producer cannot be made.
pub fn open(
    plan: &Plan,
    chains: &[Chain],
    outputs: &[Vec<(String, DataType)>],
    staging: Option<&Staging>,
) -> Result<(Vec<OpenTopic>, Option<Outboxes>), EngineError> {
    let once = plan.topics.iter().map(|topic| Outboxes::wanted(topic, staging)).collect::<Result<Vec<_>, _>>()?;
    let (outboxes, places) = Outboxes::of(plan, &once, staging)?;
    let mut ways: Vec<Option<Way>> = Vec::new();
    for place in places {
        let group = place.and_then(|(number, topic)| Some((outboxes.as_ref()?.groups().get(number)?, number, topic)));
        ways.push(group.map(|(group, number, topic)| Way::ExactlyOnce { group: Arc::clone(group), number, topic }));
    }
    // Topics that differ in name alone share a producer.
    let mut producers: Vec<(&TopicPlan, Vec<String>)> = Vec::new();
    let mut slots = Vec::new();
    for (topic, _) in plan.topics.iter().zip(&ways).filter(|(_, way)| way.is_none()) {
        let alike = |t: &TopicPlan| t.brokers == topic.brokers && t.properties == topic.properties;
        let at = producers.iter().position(|(first, _)| alike(first)).unwrap_or_else(|| {
            producers.push((topic, Vec::new()));
            producers.len() - 1
        });
        // A topic that takes two kinds of rows is counted for each.
        producers[at].1.push(topic.topic.clone());
        slots.push((at, producers[at].1.len() - 1));
    }
    let publishers = producers
        .iter()
        .map(|(topic, names)| Publisher::open(&topic.brokers, &topic.properties.0, names).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    for (way, (publisher, slot)) in ways.iter_mut().filter(|way| way.is_none()).zip(slots) {
        *way = Some(Way::AtLeastOnce { publisher: Arc::clone(&publishers[publisher]), slot });
    }
    let topics = plan.topics.iter().zip(ways.into_iter().flatten());
    let topics = topics
        .map(|(topic, way)| {
            let fault = |at: &str, what: String| EngineError::Plan(format!("{}.kafka.{at}: {what}", topic.rows.path()));
            let Resolved { origin, form, mut encoder, key, route, schema } =
                resolve(plan, chains, outputs, topic).map_err(|(at, what)| fault(at, what))?;
            if let (Some(registry), Some(schema)) = (&topic.registry, schema) {
                let registered =
                    Registry::of(registry).and_then(|r| r.register(&format!("{}-value", topic.topic), &schema));
                let id = registered.map_err(|error| fault("registry", error.to_string()))?;
                encoder = RowEncoder::new(format!("topic {}", topic.topic), Encoding::Avro(frame(id)));
            }
            Ok(OpenTopic { origin, form, encoder, key, route, way })
        })
        .collect::<Result<_, EngineError>>()?;
    Ok((topics, outboxes))
}

/// What stands in front of a datum whose schema has this id in a registry.
fn frame(id: u32) -> Vec<u8> {
    std::iter::once(0).chain(id.to_be_bytes()).collect()
}

/// What the topics have got.
pub fn summaries(plan: &Plan, topics: &[OpenTopic]) -> Vec<TopicSummary> {
    plan.topics
        .iter()
        .zip(topics)
        .map(|(plan, open)| TopicSummary {
            topic: plan.topic.clone(),
            rows: plan.rows.name().to_owned(),
            delivered: match &open.way {
                Way::AtLeastOnce { publisher, slot } => publisher.deliveries()[*slot].delivered,
                Way::ExactlyOnce { group, topic, .. } => group.delivered(*topic),
            },
        })
        .collect()
}

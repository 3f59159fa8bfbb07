//! Builds the dataflow of a job on one worker.
//!
//! Per chain: source rows move to the worker of the entity that the views add least for, wait there for the watermark (in
//! event-time order), pass the views one after the other, moving whenever the entity changes, and end in the tables, the models,
//! the topics and the online store. Updates of views over other streams come the same way into the view's operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};
use timely::worker::Worker;

use super::EngineError;
use super::finish;
use super::labels;
use super::monitor::alerts::{Alerts, alerts};
use super::monitor::receivers::{self, Receiver};
use super::monitor::reference::Watches;
use super::monitor::{self, Statistics, Watched};
use super::offline_sink::{SinkTable, offline_sink};
use super::online_sink::{OnlineView, online_sink, view_schema};
use super::ordered::ordered;
use super::outbox::{Outboxes, Staging};
use super::publish::table_sink;
use super::retrain::{Retraining, retrain};
use super::rollout;
use super::shared::Shared;
use super::source::{Looked, Sources, sources};
use super::stage::{self, StageInput, StageOutput, join_stage, view_stage};
use super::status::NodeKind;
use super::status::flow::{Inlet, Node};
use super::tables::{self, Origin, Table};
use super::telemetry;
use super::ticked::{Control, Port, Rows, per_tick};
use super::topic_sink::{TopicInput, topic_sink};
use super::topics::{self, OpenTopic, TopicOrigin};
use crate::base::Tick;
use crate::ingest::aligned::Aligned;
use crate::monitor::StatKind;
use crate::ops::exchange::Placement;
use crate::ops::order::merge_sorted;
use crate::plan::chain::{self, Chain};
use crate::plan::model::{OnlinePlace, Order, Plan, QualityMetric, StreamRef};
use crate::score::{Bound, Model};
use crate::store::offline::TableSpec;
use crate::store::online::{OnlineStore, Rank, RedisStore, SocketGuard};

/// What the workers of a job use together and what must be opened before it starts.
pub struct Resources {
    /// The chains of the plan.
    pub chains: Vec<Chain>,
    /// The offline tables.
    pub tables: Vec<Table>,
    /// The dead-letter tables.
    pub dead_letters: Vec<TableSpec>,
    /// The models, bound to their feature sets.
    pub models: Vec<Arc<Bound>>,
    /// The online store, the generation that this start writes, and the door that other processes read through; Redis
    /// since it was [joined](Self::join_redis).
    pub online: Option<OpenStore>,
    /// What the monitors watch of rows, by monitor.
    pub watches: Vec<Watches>,
    /// The topics that rows are published to.
    pub topics: Vec<OpenTopic>,
    /// Where rows of topics that are written exactly once wait for their epoch, if there are any.
    pub outboxes: Option<Outboxes>,
    /// Who is told of alerts, topics apart.
    pub receivers: Vec<Receiver>,
    /// Who takes what retraining the job asks for.
    pub retraining: Option<Retraining>,
}

/// An online store open for a running job.
pub enum OpenStore {
    /// In this process.
    Embedded {
        /// The store.
        store: Arc<OnlineStore>,
        /// Newer than any generation in the store.
        generation: u64,
        /// Open to readers while it is kept.
        _door: SocketGuard,
    },
    /// In Redis; the plan's views by their indices.
    Redis(RedisStore),
}

/// A store as an epoch has left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity {
    /// The generation that wrote it.
    pub generation: u64,
    /// The life of its values: who finds another has none of what was told in this one, whoever began the other and
    /// whatever was written since.
    pub life: String,
}

impl OpenStore {
    fn open(plan: &Plan, place: &OnlinePlace) -> Result<Option<Self>, EngineError> {
        match place {
            OnlinePlace::Embedded(path) => {
                let store = OnlineStore::open(path, plan.clock)?;
                let door = store.serve()?;
                let generation = store.newest().generation + 1;
                Ok(Some(OpenStore::Embedded { store: Arc::new(store), generation, _door: door }))
            }
            OnlinePlace::Redis(redis) => {
                RedisStore::reach(redis)?;
                Ok(None)
            }
        }
    }

    /// Whether the store still has what `told` says that an earlier start wrote.
    pub fn has(&self, told: &StoreIdentity) -> bool {
        match self {
            // An old copy of a directory may have been put back.
            OpenStore::Embedded { store, generation, .. } => told.life == store.life() && told.generation < *generation,
            OpenStore::Redis(store) => told.life == store.life().0,
        }
    }

    /// Counts how often the store was found to have lost its values; `None` for one that does not.
    pub fn losses(&self) -> Option<Arc<AtomicU64>> {
        match self {
            OpenStore::Embedded { .. } => None,
            OpenStore::Redis(store) => Some(store.losses()),
        }
    }
}

impl Resources {
    /// Whether rows are published to some topic at least once: by this process alone, and once its tick is through.
    pub fn sends(&self) -> bool {
        self.topics.iter().any(|topic| topic.publisher().is_some())
    }

    /// Loads models, opens stores; [Redis](Self::join_redis) and [topics](Self::open_topics) are still to be opened.
    ///
    /// # Errors
    /// When a model does not fit its feature set, or a store cannot be opened.
    pub fn open(plan: &Plan) -> Result<Self, EngineError> {
        let chains = chain::chains(plan);
        let models = plan.models.iter().map(|m| bind(plan, m)).collect::<Result<Vec<_>, _>>()?;
        let outputs: Vec<Vec<(String, DataType)>> = models.iter().map(|bound| bound.outputs()).collect();
        let tables = tables::tables(plan, &chains, &outputs)?;
        let mut dead_letters = Vec::new();
        if let Some(offline) = &plan.offline {
            for name in tables::dead_letter_tables(plan) {
                if tables::wanted(offline, &name) {
                    dead_letters.push(tables::dead_letter_spec(&name)?);
                }
            }
        }
        let online = plan.online.as_ref().map(|online| OpenStore::open(plan, &online.store)).transpose()?.flatten();
        let watches = plan.monitors.iter().map(|m| monitor::reference::watch(plan, m)).collect::<Result<_, _>>()?;
        let receivers = receivers::open(plan)?;
        let (topics, outboxes) = (Vec::new(), None);
        Ok(Resources {
            chains,
            tables,
            dead_letters,
            models,
            online,
            watches,
            topics,
            outboxes,
            receivers,
            retraining: None,
        })
    }

    /// Begins to write to Redis, where online values go there. Only who has the job's state may: it outranks all that had it
    /// before.
    ///
    /// # Errors
    /// When Redis cannot be used.
    pub fn join_redis(&mut self, plan: &Plan, rank: Option<Rank>) -> Result<(), EngineError> {
        if let Some(OnlinePlace::Redis(redis)) = plan.online.as_ref().map(|online| &online.store) {
            let views = plan.views.iter().map(|view| view_schema(plan, view)).collect::<Result<Vec<_>, _>>()?;
            self.online = Some(OpenStore::Redis(RedisStore::open(redis, plan.clock, &views, rank)?));
        }
        Ok(())
    }

    /// Opens the topics.
    ///
    /// # Errors
    /// When a topic asks for what there is not, or brokers or a registry refuse it.
    pub fn open_topics(&mut self, plan: &Plan, staging: Option<&Staging>) -> Result<(), EngineError> {
        let outputs: Vec<Vec<(String, DataType)>> = self.models.iter().map(|bound| bound.outputs()).collect();
        (self.topics, self.outboxes) = topics::open(plan, &self.chains, &outputs, staging)?;
        Ok(())
    }

    /// The tables that rows go to, dead letters among them.
    pub fn specs(&self) -> impl Iterator<Item = &TableSpec> {
        self.tables.iter().map(|table| &table.spec).chain(&self.dead_letters)
    }
}

/// Loads a model and binds it to its feature set.
pub fn bind(plan: &Plan, model: &crate::plan::model::ModelPlan) -> Result<Arc<Bound>, EngineError> {
    let bound = bind_file(plan, model, &model.path)?;
    let hash = bound.model().hash();
    if let Some(registered) = model.registered.as_ref().filter(|registered| registered.hash != hash) {
        return Err(EngineError::Plan(format!(
            "model `{}`: {} is not the file that was registered as version {}: its hash is {hash}, and was {}",
            model.name,
            model.path.display(),
            registered.number,
            registered.hash
        )));
    }
    Ok(bound)
}

/// Loads a file and binds it to the feature set of a model.
pub fn bind_file(plan: &Plan, model: &crate::plan::model::ModelPlan, path: &Path) -> Result<Arc<Bound>, EngineError> {
    let loaded = Model::load(path)?;
    let columns = &plan.sets[model.inputs].columns;
    let columns: Vec<(&str, DataType)> = columns.iter().map(|c| (c.name.as_str(), c.data_type.clone())).collect();
    loaded.bind(&columns, &model.outputs).map_err(|problems| {
        EngineError::Plan(format!("model `{}` ({}): {}", model.name, path.display(), problems.join("; ")))
    })
}

/// What [`build`] leaves behind.
pub struct Built {
    /// Done when every tick is published.
    pub done: Probe<Tick>,
    /// To be told of each step of the worker.
    pub looked: Looked,
}

/// Builds the job's dataflow on this worker.
pub fn build(worker: &mut Worker, shared: Arc<Shared>, resources: Arc<Resources>, reader: Option<Aligned>) -> Built {
    worker.dataflow_named::<Tick, _, _>("job", |scope| {
        let flow = Probe::new();
        let done = Probe::new();
        let Sources { rows, dead, control, commands, looked } =
            sources(scope, Arc::clone(&shared), reader, flow.clone());
        let (shared, resources) = (&shared, &resources);
        let graph = Graph { scope, shared, resources, rows, control, commands, flow: &flow, done: &done };
        graph.build(dead);
        Built { done, looked }
    })
}

struct Graph<'a, 's> {
    scope: Scope<'s, Tick>,
    shared: &'a Arc<Shared>,
    resources: &'a Arc<Resources>,
    rows: Vec<Rows<'s>>,
    control: Control<'s>,
    commands: Rows<'s>,
    flow: &'a Probe<Tick>,
    done: &'a Probe<Tick>,
}

impl<'s> Graph<'_, 's> {
    fn build(&self, dead: Vec<Rows<'s>>) {
        let plan = &self.shared.plan;
        let (joined, mut turned_away): (Vec<Rows<'s>>, Vec<Rows<'s>>) =
            (0..plan.joins.len()).map(|join| self.join(join)).unzip();
        let mut ends = Vec::new();
        let mut end_nodes = Vec::new();
        let mut seen = Vec::new();
        let mut side_rows: Vec<(usize, Rows<'s>)> = Vec::new();
        let mut online: Vec<(usize, Rows<'s>)> = Vec::new();
        for chain in &self.resources.chains {
            let (end, node) = self.chain(chain, &joined, &mut seen, &mut side_rows, &mut online);
            ends.push(self.tapped(end));
            end_nodes.push(node);
        }
        let (mut scored, mut routed) = (Vec::new(), Vec::new());
        for (model, bound) in self.resources.models.iter().enumerate() {
            let set = plan.models[model].inputs;
            let chain =
                self.resources.chains.iter().position(|c| c.sets.contains(&set)).expect("every set has a chain");
            let (control, rows) = (self.control.clone(), ends[chain].clone());
            let commands = rollout::is_rolled_out(plan, model).then(|| self.commands.clone());
            let node = self.node(NodeKind::Model, &plan.models[model].name);
            let inlet = node.inlet(0, &self.node(NodeKind::Set, &plan.sets[set].name));
            let control = control.of(&node).through([Some(inlet)]);
            let out = finish::score(self.scope, control, rows, commands, Arc::clone(self.shared), model, bound);
            scored.push(out.rows);
            turned_away.push(out.dead);
            routed.push(out.tallies);
        }
        let (statistics, matches) = self.monitors(&scored, &dead);
        let decided = rollout::controllers(self.scope, self.shared, &self.control, &self.commands, routed, matches);
        let alerts = alerts(self.scope, self.shared, &self.resources.receivers, self.control.clone(), &statistics);
        let told = alerts.as_ref().map(|alerts| &alerts.rows);
        retrain(self.scope, self.shared, self.resources.retraining.as_ref(), &self.control, told, &self.rows);
        let of_kind = |kind: StatKind| {
            let rows = statistics.iter().filter(|s| s.kind == kind).map(|s| s.rows.clone()).collect::<Vec<_>>();
            (!rows.is_empty()).then(|| self.scope.concatenate(rows))
        };
        let mut published = Vec::new();
        for (index, topic) in self.resources.topics.iter().enumerate() {
            let rows = match &topic.origin {
                TopicOrigin::Table(Origin::Statistics(kind)) => of_kind(*kind),
                TopicOrigin::Statistics(monitor) => {
                    let rows = statistics.iter().filter(|s| s.monitor == *monitor).map(|s| s.rows.clone());
                    Some(self.scope.concatenate(rows.collect::<Vec<_>>()))
                }
                TopicOrigin::Table(Origin::Rollouts) => decided.clone(),
                TopicOrigin::Table(Origin::Alerts) => alerts.as_ref().map(|alerts| alerts.rows.clone()),
                TopicOrigin::Alerts(receiver) => {
                    let name = &plan.receivers[*receiver].name;
                    let theirs = alerts.as_ref().and_then(|a| a.topics.iter().find(|(topic, _)| topic == name));
                    theirs.map(|(_, rows)| rows.clone())
                }
                TopicOrigin::Table(Origin::Chain(chain)) => Some(ends[*chain].clone()),
                TopicOrigin::Table(Origin::Model(model)) => Some(scored[*model].clone()),
                TopicOrigin::Table(Origin::Labels(labels)) => Some(self.label_rows(*labels)),
                TopicOrigin::Table(Origin::SideView(view)) => {
                    side_rows.iter().find(|(v, _)| v == view).map(|(_, rows)| rows.clone())
                }
                TopicOrigin::DeadLetters => {
                    Some(self.scope.concatenate(dead.iter().chain(&turned_away).cloned().collect::<Vec<_>>()))
                }
            };
            let name = format!("topic/{}", plan.topics[index].topic);
            let inlet = self.sink_inlet(&name, index, topic.origin, &end_nodes);
            published.extend(rows.map(|rows| TopicInput { topic: index, rows, route: topic.route.clone(), inlet }));
        }
        if !published.is_empty() {
            topic_sink(self.scope, self.shared, self.resources, self.control.clone(), published, self.flow, self.done);
        }
        let mut sink_tables = Vec::new();
        for Table { spec, origin } in &self.resources.tables {
            let rows = match origin {
                Origin::Chain(chain) => Some(ends[*chain].clone()),
                Origin::Model(model) => Some(scored[*model].clone()),
                Origin::Labels(labels) => Some(self.label_rows(*labels)),
                Origin::SideView(view) => side_rows.iter().find(|(v, _)| v == view).map(|(_, rows)| rows.clone()),
                Origin::Statistics(kind) => of_kind(*kind),
                Origin::Alerts => alerts.as_ref().map(|alerts| alerts.rows.clone()),
                Origin::Rollouts => decided.clone(),
            };
            if let Some(rows) = rows {
                let ready_made = matches!(origin, Origin::Statistics(_) | Origin::Alerts | Origin::Rollouts);
                let sink = self.node(NodeKind::Sink, &table_sink(spec.name()));
                let inlet = self.sink_inlet(&sink.name, 0, TopicOrigin::Table(*origin), &end_nodes);
                sink_tables.push(SinkTable { spec: spec.clone(), rows, ready_made, sink, inlet });
            }
        }
        for (name, rows) in tables::dead_letter_tables(plan).into_iter().zip(dead) {
            let rows = if name == tables::DEAD_LETTERS && !turned_away.is_empty() {
                self.scope.concatenate(turned_away.drain(..).chain([rows]))
            } else {
                rows
            };
            match self.resources.dead_letters.iter().find(|spec| spec.name() == name) {
                Some(spec) => {
                    let sink = self.node(NodeKind::Sink, &table_sink(spec.name()));
                    let inlet = sink.side_inlet(0, &self.letter_writers(&name));
                    sink_tables.push(SinkTable { spec: spec.clone(), rows, ready_made: true, sink, inlet });
                }
                None => self.follow(rows),
            }
        }
        let told = alerts
            .into_iter()
            .flat_map(|Alerts { rows, topics }| std::iter::once(rows).chain(topics.into_iter().map(|(_, rows)| rows)));
        for rows in
            ends.into_iter().chain(scored).chain(statistics.into_iter().map(|s| s.rows)).chain(told).chain(decided)
        {
            self.follow(rows);
        }
        if let Some(offline) = &plan.offline {
            let (root, control) = (PathBuf::from(&offline.uri), self.control.clone());
            offline_sink(self.scope, self.shared, root, control, sink_tables, self.flow, self.done);
        }
        if let Some(open) = &self.resources.online {
            let sink = self.node(NodeKind::Sink, "online");
            let view = |(view, rows): (usize, Rows<'s>)| {
                let from = self.node(NodeKind::View, &plan.views[view].name);
                OnlineView { view, rows, inlet: sink.side_inlet(view, &[from]) }
            };
            let views = online.into_iter().map(view).collect();
            online_sink(self.scope, self.shared, open, self.control.of(&sink), views, self.flow, self.done);
        }
    }

    /// A node of the dataflow, for those who watch.
    fn node(&self, kind: NodeKind, name: &str) -> Arc<Node> {
        self.shared.meters.flow.node(kind, name)
    }

    /// Where rows come into a sink.
    fn sink_inlet(&self, sink: &str, index: usize, origin: TopicOrigin, ends: &[Arc<Node>]) -> Arc<Inlet> {
        let plan = &self.shared.plan;
        let sink = self.node(NodeKind::Sink, sink);
        let monitors = |of: &dyn Fn(usize) -> bool| -> Vec<Arc<Node>> {
            let named = plan.monitors.iter().enumerate().filter(|(index, _)| of(*index));
            named.map(|(_, monitor)| self.node(NodeKind::Monitor, &plan.models[monitor.model].name)).collect()
        };
        match origin {
            TopicOrigin::Table(Origin::Chain(chain)) => sink.inlet(index, &ends[chain]),
            TopicOrigin::Table(Origin::Model(model)) => {
                sink.inlet(index, &self.node(NodeKind::Model, &plan.models[model].name))
            }
            TopicOrigin::Table(Origin::Labels(labels)) => {
                sink.inlet(index, &self.node(NodeKind::Source, &plan.sources[plan.labels[labels].from].name))
            }
            TopicOrigin::Table(Origin::SideView(view)) => {
                sink.side_inlet(index, &[self.node(NodeKind::View, &plan.views[view].name)])
            }
            TopicOrigin::Table(Origin::Statistics(_) | Origin::Alerts) | TopicOrigin::Alerts(_) => {
                sink.side_inlet(index, &monitors(&|_| true))
            }
            TopicOrigin::Statistics(monitor) => sink.side_inlet(index, &monitors(&|index| index == monitor)),
            TopicOrigin::Table(Origin::Rollouts) => {
                let rolled_out = (0..plan.models.len()).filter(|model| rollout::is_rolled_out(plan, *model));
                let models = rolled_out.map(|model| self.node(NodeKind::Model, &plan.models[model].name));
                sink.side_inlet(index, &models.collect::<Vec<_>>())
            }
            TopicOrigin::DeadLetters => {
                let tables = tables::dead_letter_tables(plan);
                let from: Vec<_> = tables.iter().flat_map(|table| self.letter_writers(table)).collect();
                sink.side_inlet(index, &from)
            }
        }
    }

    /// Who writes to a table of dead letters.
    fn letter_writers(&self, table: &str) -> Vec<Arc<Node>> {
        let plan = &self.shared.plan;
        let mut writers = Vec::new();
        // Late rows and duplicates go to the common table, whatever a source names for what is invalid.
        let sources = plan.sources.iter().filter(|source| table == tables::DEAD_LETTERS || source.rejected_to == table);
        writers.extend(sources.map(|source| self.node(NodeKind::Source, &source.name)));
        if table == tables::DEAD_LETTERS {
            writers.extend(plan.joins.iter().map(|join| self.node(NodeKind::Join, &join.name)));
            writers.extend(plan.models.iter().map(|model| self.node(NodeKind::Model, &model.name)));
        }
        writers
    }

    /// Follows rows that may have no sink, so that the sources know how far they have come.
    fn follow(&self, rows: Rows<'s>) {
        rows.probe_with(self.flow).probe_with(self.done);
    }

    /// Label rows in the form of their table.
    fn label_rows(&self, labels: usize) -> Rows<'s> {
        let rows = self.rows[self.shared.plan.labels[labels].from].clone();
        labels::label_rows(self.scope, self.shared, self.control.clone(), labels, rows)
    }

    /// Rows of a source on the workers of their key, in the plan's order; `reader` names who reads them: a node, by its input.
    fn ordered(
        &self,
        source: usize,
        key: Vec<usize>,
        placement: Option<&Arc<Placement>>,
        reader: &str,
        (node, inlet): (&Arc<Node>, &Inlet),
    ) -> Port<'s> {
        let rows = self.rows[source].clone();
        let port = match placement {
            _ if key.is_empty() => Port::local(rows),
            Some(placement) => Port::placed(rows, key.clone(), placement),
            None => Port::keyed(rows, key.clone()),
        };
        if self.shared.plan.order == Order::Arrival {
            return port;
        }
        let name = format!("reorder {} for {reader}", self.shared.plan.sources[source].name);
        ordered(self.scope, self.shared, self.control.of(node), (port, inlet), &name, key, placement)
    }

    fn source_node(&self, source: usize) -> Arc<Node> {
        self.node(NodeKind::Source, &self.shared.plan.sources[source].name)
    }

    fn join(&self, join: usize) -> (Rows<'s>, Rows<'s>) {
        let plan = &self.shared.plan.joins[join];
        let name = stage::join_name(plan);
        let node = self.node(NodeKind::Join, &plan.name);
        let inlet = |index: usize, source: usize| node.inlet(index, &self.source_node(source));
        let (left_in, right_in) = (inlet(0, plan.left), inlet(1, plan.right));
        let left = self.ordered(plan.left, vec![plan.left_on], None, &name, (&node, &left_in));
        let right = self.ordered(plan.right, vec![plan.right_on], None, &name, (&node, &right_in));
        let control = self.control.of(&node).through([Some(left_in), Some(right_in)]);
        join_stage(self.scope, self.shared, control, join, left, right)
    }

    /// The stages of one chain; returns its rows at the end, and the node that they leave.
    fn chain(
        &self,
        chain: &Chain,
        joined: &[Rows<'s>],
        seen: &mut Vec<usize>,
        side_rows: &mut Vec<(usize, Rows<'s>)>,
        online: &mut Vec<(usize, Rows<'s>)>,
    ) -> (Rows<'s>, Arc<Node>) {
        let plan = &self.shared.plan;
        let spine = &plan.sources[chain.spine];
        let mut rows: Option<(Rows<'s>, Vec<usize>, Arc<Placement>, Arc<Node>)> = None;
        let mut schema = Arc::clone(&spine.stream_schema);
        for &view_index in &chain.visits {
            let view = &plan.views[view_index];
            let key: Vec<usize> = view
                .entity_names
                .iter()
                .map(|name| {
                    spine.stream_schema.index_of(name).expect("the plan has checked the spine's entity columns")
                })
                .collect();
            // A view that two spines read has one state for each; the first speaks for it.
            let first = !seen.contains(&view_index);
            seen.push(view_index);
            let name = stage::view_name(view, (!first).then_some(spine));
            let node = match first {
                true => self.node(NodeKind::View, &view.name),
                false => self.node(NodeKind::View, &format!("{} for {}", view.name, spine.name)),
            };
            let before = rows.as_ref().map_or_else(|| self.source_node(chain.spine), |(.., node)| Arc::clone(node));
            let inlet = node.inlet(0, &before);
            let own = self.shared.checkpoints.placement(&name, self.scope.peers());
            let (port, placement) = match rows.take() {
                None => {
                    let (at, reader) = ((&node, &*inlet), format!("rows of {}", spine.name));
                    (self.ordered(chain.spine, key.clone(), Some(&own), &reader, at), own)
                }
                // Rows that are where the next view wants them stay.
                Some((rows, at, placement, _)) if at == key => (Port::local(rows), placement),
                Some((rows, ..)) => (Port::placed(rows, key.clone(), &own), own),
            };
            let (updates, updates_in) = match view.stream {
                StreamRef::Source(source) if source == chain.spine => (None, None),
                StreamRef::Source(source) => {
                    let inlet = node.inlet(1, &self.source_node(source));
                    let at = (&node, &*inlet);
                    (Some(self.ordered(source, view.entity.clone(), Some(&placement), &name, at)), Some(inlet))
                }
                StreamRef::Join(join) => {
                    let inlet = node.inlet(1, &self.node(NodeKind::Join, &plan.joins[join].name));
                    (Some(Port::placed(joined[join].clone(), view.entity.clone(), &placement)), Some(inlet))
                }
            };
            let control = self.control.of(&node).through([Some(inlet), updates_in]);
            let side = updates.is_some()
                && first
                && (self.resources.tables.iter().any(|t| t.origin == Origin::SideView(view_index))
                    || self
                        .resources
                        .topics
                        .iter()
                        .any(|t| t.origin == TopicOrigin::Table(Origin::SideView(view_index))));
            let input = StageInput {
                view: view_index,
                schema: Arc::clone(&schema),
                key: key.clone(),
                side,
                online: first && self.resources.online.is_some(),
                losses: self.resources.online.as_ref().and_then(OpenStore::losses),
                name,
                placement: Arc::clone(&placement),
            };
            schema = chain::schema_after(&schema, view);
            let StageOutput { rows: next, side_rows: own, online: values } =
                view_stage(self.scope, self.shared, control, &input, port, updates);
            side_rows.extend(own.map(|own| (view_index, own)));
            online.extend(values.map(|values| (view_index, values)));
            rows = Some((next, key, placement, node));
        }
        // Rows that visit no view are the first set's.
        let named = |index: usize| plan.sets[index].name.as_str();
        let (rows, end, rest) = match rows {
            Some((rows, .., node)) => (rows, node, &chain.sets[..]),
            None => {
                let node = self.node(NodeKind::Set, chain.sets.first().map_or(spine.name.as_str(), |set| named(*set)));
                let inlet = node.inlet(0, &self.source_node(chain.spine));
                let reader = format!("rows of {}", spine.name);
                let port = self.ordered(chain.spine, Vec::new(), None, &reader, (&node, &inlet));
                let control = self.control.of(&node).through([Some(inlet)]).telling(1);
                (self.sorted(port.rows, control), node, chain.sets.get(1..).unwrap_or_default())
            }
        };
        for set in rest {
            self.shared.meters.flow.passing(NodeKind::Set, named(*set), &end);
        }
        (rows, end)
    }

    /// The monitors of the models' scored rows: their statistics, and by model the rows that labels have come for.
    fn monitors(&self, scored: &[Rows<'s>], dead: &[Rows<'s>]) -> (Vec<Statistics<'s>>, Vec<Option<Rows<'s>>>) {
        let mut statistics = Vec::new();
        let mut matches = vec![None; scored.len()];
        let letters = tables::dead_letter_tables(&self.shared.plan).iter().position(|t| t == tables::DEAD_LETTERS);
        for (index, monitor) in self.shared.plan.monitors.iter().enumerate() {
            let model = self.node(NodeKind::Model, &self.shared.plan.models[monitor.model].name);
            let node = self.node(NodeKind::Monitor, &model.name);
            node.edge(&model);
            let labels_in =
                monitor.labels.map(|labels| node.inlet(1, &self.source_node(self.shared.plan.labels[labels].from)));
            let labels = monitor.labels.zip(labels_in.as_ref()).map(|(labels, inlet)| {
                let labels = &self.shared.plan.labels[labels];
                let reader = monitor::name(&self.shared.plan, monitor);
                self.ordered(labels.from, vec![labels.id], None, &reader, (&node, inlet))
            });
            let scored = scored[monitor.model].clone();
            let duplicates = monitor.drift.as_ref().is_some_and(|d| d.quality.contains(&QualityMetric::Duplicates));
            let dead = letters.filter(|_| duplicates).and_then(|letters| dead.get(letters)).cloned();
            let Watches { rows, labels: watched } = &self.resources.watches[index];
            let follows =
                monitor::training::is_wanted(monitor) && rollout::is_rolled_out(&self.shared.plan, monitor.model);
            let commands = follows.then(|| self.commands.clone());
            let watched = Watched { watch: rows.as_ref(), labels: watched.as_ref(), dead, commands };
            // A monitor of the job's operation alone reads no rows.
            let scored_in = (labels.is_some() || rows.is_some()).then(|| node.inlet(0, &model));
            let control = self.control.of(&node).through([scored_in, labels_in]);
            let (told, labelled) = monitor::monitor(self.scope, self.shared, &control, index, scored, labels, watched);
            statistics.extend(told);
            matches[monitor.model] = labelled;
        }
        telemetry::publish(self.scope, self.shared, &self.control, &statistics);
        (statistics, matches)
    }

    /// Shows the rows at the end of a chain to those who see or alter them, if there is anybody.
    fn tapped(&self, rows: Rows<'s>) -> Rows<'s> {
        let (tap, alter) = (self.shared.tap.clone(), self.shared.alter.clone());
        if tap.is_none() && alter.is_none() {
            return rows;
        }
        let logic = Box::new(
            move |info: &crate::ops::control::TickInfo, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
                for batch in inputs.into_iter().flatten() {
                    let altered = alter.as_ref().and_then(|alter| alter(info, &batch));
                    let batch = altered.unwrap_or(batch);
                    if let Some(tap) = &tap {
                        tap(info, &batch);
                    }
                    out[0].push(batch);
                }
            },
        );
        let mut outputs = per_tick(self.scope, "tap", self.control.clone(), vec![Port::local(rows)], 1, logic);
        outputs.pop().expect("one output")
    }

    /// Rows of each tick merged into one order.
    fn sorted(&self, rows: Rows<'s>, control: Control<'s>) -> Rows<'s> {
        let logic = Box::new(|_: &_, inputs: Vec<Vec<RecordBatch>>, out: &mut [Vec<RecordBatch>]| {
            out[0].extend(merge_sorted(inputs.into_iter().flatten().collect()));
        });
        let mut outputs = per_tick(self.scope, "sort", control, vec![Port::local(rows)], 1, logic);
        outputs.pop().expect("one output")
    }
}

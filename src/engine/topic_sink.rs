//! The topic sink: rows are published once their tick is durable, each tick's in order, and not before.
//!
//! Each worker has a thread that encodes and sends. A tick counts as taken in, for the bound on what is in flight, when
//! the producer's queue holds its rows: while the brokers are away the queue fills, ticks stay in flight, and the sources
//! stop reading. The worker itself never waits. At the last tick the thread waits for all acknowledgements; and where state
//! is saved it does so at each epoch's, for a start that goes on from there sends nothing of the epoch again.
//!
//! Rows of topics that are written exactly once go to the worker's outboxes instead. At an epoch's last tick these are
//! finished and reported; who publishes them, and when, is decided elsewhere.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};

use super::background::Background;
use super::graph::Resources;
use super::outbox::Staged;
use super::publish::SENT;
use super::shared::Shared;
use super::status::NodeKind;
use super::status::flow::{Inlet, Node};
use super::ticked::{Control, Port, Rows, TickBuffer, whole};
use super::topics::{OpenTopic, TopicOrigin, Way};
use crate::base::{Tick, format_time};
use crate::ops::control::TickInfo;
use crate::ops::order::merge_sorted;
use crate::plan::model::TopicPlan;
use crate::state::Report;
use crate::store::StoreError;
use crate::store::topic::outbox::{OutboxWriter, slot_of_key, slot_of_row};
use crate::store::topic::{Messages, Publisher};

/// How long a job that was asked to stop waits for brokers that take nothing.
pub const GRACE: Duration = Duration::from_secs(10);

/// Rows on their way to a topic.
pub struct TopicInput<'s> {
    /// The topic, by index.
    pub topic: usize,
    /// The rows.
    pub rows: Rows<'s>,
    /// Columns by which rows of one key come to one worker.
    pub route: Option<Vec<usize>>,
    /// Where they come into the topic's node of the dataflow.
    pub inlet: Arc<Inlet>,
}

/// Rows of one tick.
struct Request {
    info: TickInfo,
    rows: Vec<(usize, RecordBatch)>,
}

/// Attaches the topic sink. `flow` follows the rows as the producers take them, `done` their publication.
pub fn topic_sink<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    resources: &Arc<Resources>,
    control: Control<'s>,
    inputs: Vec<TopicInput<'s>>,
    flow: &Probe<Tick>,
    done: &Probe<Tick>,
) {
    let mut builder = OperatorBuilder::new("topics".to_owned(), scope);
    let peers = scope.peers();
    let topics: Vec<(usize, bool)> = inputs.iter().map(|i| (i.topic, i.route.is_some() && peers > 1)).collect();
    let control = control.through(inputs.iter().map(|input| Some(Arc::clone(&input.inlet))));
    let ports = inputs
        .into_iter()
        .map(|i| match i.route.filter(|_| peers > 1) {
            Some(key) => Port::keyed(i.rows, key),
            None => Port::local(i.rows),
        })
        .collect();
    let mut buffer = TickBuffer::attach(&mut builder, control, ports, vec![0]);
    let (_published, published) = builder.new_output::<Vec<()>>();
    published.probe_with(flow).probe_with(done);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let (shared, resources) = (Arc::clone(shared), Arc::clone(resources));
    let worker = scope.index();
    let reported = resources.outboxes.is_some() || (shared.checkpoints.enabled() && resources.sends());
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let thread = {
            let (shared, resources) = (Arc::clone(&shared), Arc::clone(&resources));
            // No more ticks than this can be under way, so the worker never waits for the queue.
            let queue = shared.plan.ticks.in_flight_max + 2;
            let start = move || publisher(shared, resources, worker);
            Background::spawn(&format!("tidemill-topics-{worker}"), queue, wake, start)
        };
        let mut waiting: Vec<Capability<Tick>> = Vec::new();
        move |frontiers| {
            buffer.pull();
            while let Some((info, inputs, mut capabilities)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                let mut rows: Vec<(usize, RecordBatch)> = Vec::new();
                for ((topic, routed), batches) in topics.iter().zip(inputs) {
                    if *routed {
                        // Rows of one key may come from several workers.
                        rows.extend(merge_sorted(batches).map(|batch| (*topic, batch)));
                    } else {
                        rows.extend(whole(batches).into_iter().map(|batch| (*topic, batch)));
                    }
                }
                if rows.is_empty() && !info.last && !(info.epoch_end && reported) {
                    continue;
                }
                thread.send(Request { info, rows });
                waiting.extend(capabilities.pop());
            }
            while let Some(tick) = thread.try_answer() {
                waiting.retain(|capability| *capability.time() != tick);
            }
            !waiting.is_empty() && !shared.failed()
        }
    });
}

/// The publishing thread's work.
fn publisher(shared: Arc<Shared>, resources: Arc<Resources>, worker: usize) -> impl FnMut(Request) -> Option<Tick> {
    let writers = resources.outboxes.as_ref().map_or(Ok(Vec::new()), |outboxes| outboxes.writers(worker));
    let writers = writers.unwrap_or_else(|error| {
        shared.fail(error.into());
        Vec::new()
    });
    let sink = |topic: &TopicPlan| shared.meters.flow.node(NodeKind::Sink, &format!("topic/{}", topic.topic));
    let nodes = shared.plan.topics.iter().map(sink).collect();
    let mut thread = Thread { shared, resources, worker, writers, nodes, key: Vec::new(), payload: Vec::new() };
    move |Request { info, rows }| {
        if thread.shared.failed() || !thread.shared.wait_durable(info.tick) {
            return None;
        }
        match thread.tick(&info, &rows) {
            Ok(()) => Some(info.tick),
            Err(error) => {
                thread.shared.fail(error.into());
                None
            }
        }
    }
}

struct Thread {
    shared: Arc<Shared>,
    resources: Arc<Resources>,
    worker: usize,
    /// One for each group of outboxes.
    writers: Vec<OutboxWriter>,
    /// The topics' nodes in the dataflow.
    nodes: Vec<Arc<Node>>,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Thread {
    fn tick(&mut self, info: &TickInfo, rows: &[(usize, RecordBatch)]) -> Result<(), StoreError> {
        let resources = Arc::clone(&self.resources);
        let fresh = self.shared.checkpoints.publishes(info.tick);
        for (index, batch) in rows.iter().filter(|_| fresh) {
            let started = Instant::now();
            let topic = &resources.topics[*index];
            let rows = Form::new(topic, info, batch)?;
            match &topic.way {
                Way::AtLeastOnce { publisher, slot } => self.publish(topic, publisher, *slot, info, &rows)?,
                Way::ExactlyOnce { number, topic: place, .. } => self.stage(topic, *number, *place, info, &rows)?,
            }
            self.nodes[*index].worked(started.elapsed());
        }
        if let Some(outboxes) = resources.outboxes.as_ref().filter(|_| info.epoch_end) {
            let mut parts = Vec::new();
            for writer in &mut self.writers {
                parts.extend(writer.finish(info.epoch)?);
            }
            outboxes.staged(Staged { worker: self.worker, epoch: info.epoch, parts });
        }
        let completes = info.epoch_end && self.shared.checkpoints.enabled() && resources.sends();
        if info.last || completes {
            for publisher in resources.topics.iter().filter_map(OpenTopic::publisher) {
                publisher.flush(&giving_up(&self.shared, publisher))?;
            }
        }
        if completes {
            let sent = Report::Staged { epoch: info.epoch, sink: SENT.to_owned(), value: None };
            self.shared.checkpoints.report(sent);
        }
        Ok(())
    }

    fn publish(
        &mut self,
        topic: &OpenTopic,
        publisher: &Publisher,
        slot: usize,
        info: &TickInfo,
        form: &Form<'_>,
    ) -> Result<(), StoreError> {
        publisher.check()?;
        let rows = topic.encoder.bind(&form.table)?;
        let (tick, epoch) = (info.tick.to_string(), info.epoch.to_string());
        let stamps = stamps(&self.shared, &tick, &epoch).map(|(name, value)| (name, value.as_bytes().to_vec()));
        let mut messages = Messages::new(stamps.to_vec());
        for row in 0..form.table.num_rows() {
            let about = form.about.as_ref().map(|about| about.headers(row)).unwrap_or_default();
            let about: Vec<(&str, &[u8])> = about.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            messages.push(|out| topic.key.write(&rows, row, out), |out| rows.write(row, out), &about);
        }
        publisher.submit(slot, messages, &giving_up(&self.shared, publisher))
    }

    fn stage(
        &mut self,
        topic: &OpenTopic,
        number: usize,
        place: u16,
        info: &TickInfo,
        form: &Form<'_>,
    ) -> Result<(), StoreError> {
        let Thread { shared, writers, key, payload, .. } = self;
        // Without writers the job has failed.
        let Some(writer) = writers.get_mut(number) else { return Ok(()) };
        let rows = topic.encoder.bind(&form.table)?;
        let (tick, epoch) = (info.tick.to_string(), info.epoch.to_string());
        let stamps = stamps(shared, &tick, &epoch).map(|(name, value)| (name, value.as_bytes()));
        let (slots, position) = (writer.slots(), form.positions());
        for row in 0..form.table.num_rows() {
            key.clear();
            payload.clear();
            rows.write(row, payload);
            let keyed = topic.key.write(&rows, row, key).then_some(key.as_slice());
            let slot = keyed.map_or_else(|| slot_of_row(position(row), slots), |key| slot_of_key(key, slots));
            match &form.about {
                None => writer.append(place, slot, keyed, payload, &stamps)?,
                Some(about) => {
                    let about = about.headers(row);
                    let about = about.iter().map(|(name, value)| (*name, value.as_bytes()));
                    let headers: Vec<(&str, &[u8])> = stamps.into_iter().chain(about).collect();
                    writer.append(place, slot, keyed, payload, &headers)?;
                }
            }
        }
        Ok(())
    }
}

/// What every message says of where it comes from.
fn stamps<'a>(shared: &'a Shared, tick: &'a str, epoch: &'a str) -> [(&'static str, &'a str); 3] {
    [("tidemill.job", shared.plan.job.as_str()), ("tidemill.tick", tick), ("tidemill.epoch", epoch)]
}

/// Rows in the form of their table.
struct Form<'a> {
    table: RecordBatch,
    about: Option<Letters<'a>>,
}

impl<'a> Form<'a> {
    fn new(topic: &OpenTopic, info: &TickInfo, batch: &'a RecordBatch) -> Result<Self, StoreError> {
        let letters = topic.origin == TopicOrigin::DeadLetters;
        let ready_made = letters || matches!(topic.origin, TopicOrigin::Statistics(_) | TopicOrigin::Alerts(_));
        let table =
            if ready_made { topic.form.table_rows(batch)? } else { topic.form.engine_rows(info.tick, batch)? };
        Ok(Form { table, about: letters.then(|| Letters::new(batch)).flatten() })
    }

    /// Where rows came from, as one number each.
    fn positions(&self) -> impl Fn(usize) -> u64 {
        let column = |name: &str| self.table.column_by_name(name);
        let partitions = column("_partition").and_then(|c| c.as_primitive_opt::<Int32Type>());
        let offsets = column("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
        move |row| {
            let partition = partitions.map_or(0, |c| u64::from(c.value(row).cast_unsigned()));
            partition << 40 | offsets.map_or(0, |c| c.value(row).cast_unsigned())
        }
    }
}

/// Whether to wait for the brokers no longer: the job has failed, or was asked to stop and they have taken nothing for
/// a while.
fn giving_up(shared: &Shared, publisher: &Publisher) -> impl Fn() -> bool {
    let seen = Cell::new((publisher.delivered(), Instant::now()));
    move || {
        let (delivered, since) = seen.get();
        let now = publisher.delivered();
        if now != delivered || !shared.stopping() {
            seen.set((now, Instant::now()));
            return shared.failed();
        }
        shared.failed() || since.elapsed() > GRACE
    }
}

/// The columns of dead letters that go into headers.
struct Letters<'a> {
    batch: &'a RecordBatch,
    columns: [usize; 6],
}

impl<'a> Letters<'a> {
    fn new(batch: &'a RecordBatch) -> Option<Self> {
        let names = ["kind", "reason", "_source", "_partition", "_offset", "event_time"];
        let mut columns = [0; 6];
        for (column, name) in columns.iter_mut().zip(names) {
            *column = batch.schema_ref().index_of(name).ok()?;
        }
        Some(Letters { batch, columns })
    }

    fn headers(&self, row: usize) -> Vec<(&'static str, Cow<'a, str>)> {
        let column = |i: usize| self.batch.column(self.columns[i]);
        let text = |i: usize| Cow::Borrowed(column(i).as_string::<i32>().value(row));
        let partition = column(3).as_primitive::<Int32Type>().value(row).to_string();
        let offset = column(4).as_primitive::<Int64Type>().value(row).to_string();
        let times = column(5).as_primitive::<TimestampMicrosecondType>();
        let mut headers = vec![
            ("tidemill.kind", text(0)),
            ("tidemill.reason", text(1)),
            ("tidemill.source", text(2)),
            ("tidemill.partition", partition.into()),
            ("tidemill.offset", offset.into()),
        ];
        if !times.is_null(row) {
            headers.push(("tidemill.event_time", format_time(times.value(row)).into()));
        }
        headers
    }
}

#[cfg(test)]
mod tests;

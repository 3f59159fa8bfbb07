//! The topic sink: rows are published once their tick is durable, each tick's in order, and not before.
//!
//! Each worker has a thread that encodes and sends. A tick counts as taken in, for the bound on what is in flight, when
//! the producer's queue holds its rows: while the brokers are away the queue fills, ticks stay in flight, and the sources
//! stop reading. The worker itself never waits. At the last tick the thread waits for all acknowledgements.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use rdkafka::message::{Header, OwnedHeaders};
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};

use super::background::Background;
use super::graph::Resources;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows, TickBuffer};
use super::topics::{OpenTopic, TopicOrigin};
use crate::base::{Tick, format_time};
use crate::ops::control::TickInfo;
use crate::ops::order::merge_sorted;
use crate::store::StoreError;

/// How long a job that was asked to stop waits for brokers that take nothing.
const GRACE: Duration = Duration::from_secs(10);

/// Rows on their way to a topic.
pub struct TopicInput<'s> {
    /// The topic, by index.
    pub topic: usize,
    /// The rows.
    pub rows: Rows<'s>,
    /// Columns by which rows of one key come to one worker.
    pub route: Option<Vec<usize>>,
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
    let ports = inputs.into_iter().map(|i| Port { rows: i.rows, key: i.route.filter(|_| peers > 1) }).collect();
    let mut buffer = TickBuffer::attach(&mut builder, control, ports, vec![0]);
    let (_published, published) = builder.new_output::<Vec<()>>();
    published.probe_with(flow).probe_with(done);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let (shared, resources) = (Arc::clone(shared), Arc::clone(resources));
    let worker = scope.index();
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let thread = {
            let (shared, resources) = (Arc::clone(&shared), Arc::clone(&resources));
            // No more ticks than this can be under way, so the worker never waits for the queue.
            let queue = shared.plan.ticks.in_flight_max + 2;
            let start = move || publisher(shared, resources);
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
                    let batches = batches.into_iter().map(|batch| batch.0);
                    if *routed {
                        // Rows of one key may come from several workers.
                        let batches: Vec<RecordBatch> = batches.collect();
                        rows.extend(merge_sorted(&batches).map(|batch| (*topic, batch)));
                    } else {
                        rows.extend(batches.map(|batch| (*topic, batch)));
                    }
                }
                if rows.is_empty() && !info.last {
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
fn publisher(shared: Arc<Shared>, resources: Arc<Resources>) -> impl FnMut(Request) -> Option<Tick> {
    let (mut key, mut payload) = (Vec::new(), Vec::new());
    move |Request { info, rows }| {
        if shared.failed() || !shared.wait_durable(info.tick) {
            return None;
        }
        let mut published = rows.iter().try_for_each(|(topic, batch)| {
            publish(&shared, &resources.topics[*topic], &info, batch, &mut key, &mut payload)
        });
        if info.last {
            published = published.and_then(|()| {
                resources.topics.iter().try_for_each(|topic| topic.publisher.flush(&giving_up(&shared, topic)))
            });
        }
        match published {
            Ok(()) => Some(info.tick),
            Err(error) => {
                shared.fail(error.into());
                None
            }
        }
    }
}

fn publish(
    shared: &Shared,
    topic: &OpenTopic,
    info: &TickInfo,
    batch: &RecordBatch,
    key: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) -> Result<(), StoreError> {
    topic.publisher.check()?;
    let letters = topic.origin == TopicOrigin::DeadLetters;
    let table = if letters { topic.form.table_rows(batch)? } else { topic.form.engine_rows(info.tick, batch)? };
    let rows = topic.encoder.bind(&table)?;
    let about = letters.then(|| Letters::new(batch)).flatten();
    let (tick, epoch) = (info.tick.to_string(), info.epoch.to_string());
    let stamps = [("tidemill.job", shared.plan.job.as_str()), ("tidemill.tick", &tick), ("tidemill.epoch", &epoch)];
    let give_up = giving_up(shared, topic);
    for row in 0..table.num_rows() {
        key.clear();
        payload.clear();
        rows.write(row, payload);
        let keyed = topic.key.write(&rows, row, key);
        let mut headers = OwnedHeaders::new_with_capacity(stamps.len());
        for (name, value) in stamps {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        if let Some(about) = &about {
            headers = about.headers(row, headers);
        }
        topic.publisher.send(topic.slot, keyed.then_some(key.as_slice()), payload, headers, &give_up)?;
    }
    Ok(())
}

/// Whether to wait for the brokers no longer: the job has failed, or was asked to stop and they have taken nothing for
/// a while.
fn giving_up(shared: &Shared, topic: &OpenTopic) -> impl Fn() -> bool {
    let seen = Cell::new((topic.publisher.delivered(), Instant::now()));
    move || {
        let (delivered, since) = seen.get();
        let now = topic.publisher.delivered();
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

    fn headers(&self, row: usize, mut headers: OwnedHeaders) -> OwnedHeaders {
        let column = |i: usize| self.batch.column(self.columns[i]);
        let text = |i: usize| column(i).as_string::<i32>().value(row);
        let partition = column(3).as_primitive::<Int32Type>().value(row).to_string();
        let offset = column(4).as_primitive::<Int64Type>().value(row).to_string();
        let times = column(5).as_primitive::<TimestampMicrosecondType>();
        let time = (!times.is_null(row)).then(|| format_time(times.value(row)));
        let all = [
            ("tidemill.kind", Some(text(0))),
            ("tidemill.reason", Some(text(1))),
            ("tidemill.source", Some(text(2))),
            ("tidemill.partition", Some(partition.as_str())),
            ("tidemill.offset", Some(offset.as_str())),
            ("tidemill.event_time", time.as_deref()),
        ];
        for (key, value) in all.into_iter().filter(|(_, value)| value.is_some()) {
            headers = headers.insert(Header { key, value });
        }
        headers
    }
}

//! The online sink: values that changed or slid are put into the online store, each tick's after the tick is durable.
//!
//! Each worker has a thread that writes; rows of one key come from one worker, in tick order, stamped (generation, tick).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use timely::dataflow::Scope;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};

use super::EngineError;
use super::background::Background;
use super::graph::{OpenStore, StoreIdentity};
use super::online_redis;
use super::publish::ONLINE;
use super::shared::{Shared, StopHandle};
use super::status::flow::{Inlet, Node};
use super::ticked::{Control, Port, Rows, TickBuffer, whole};
use crate::base::{Epoch, EventTime, Tick};
use crate::plan::chain::update_schema;
use crate::plan::model::{Plan, ViewPlan};
use crate::state::Report;
use crate::state::manifest::Manifest;
use crate::store::StoreError;
use crate::store::online::{ColumnSchema, OnlineStore, RedisStore, Stamp, View, ViewSchema};

/// Requests that may wait for the writing thread before its worker waits too.
const QUEUE: usize = 32;

/// A view's values on their way to the store.
pub struct OnlineView<'s> {
    /// The view, by index.
    pub view: usize,
    /// Batches as [`online_schema`](super::stage::online_schema) says.
    pub rows: Rows<'s>,
    /// Where they come into the store's node of the dataflow.
    pub inlet: Arc<Inlet>,
}

/// Values of one tick, or only its time.
pub struct Request {
    /// The tick.
    pub tick: Tick,
    /// The job's clock.
    pub now: EventTime,
    /// Batches and the inputs that they came by.
    pub rows: Vec<(usize, RecordBatch)>,
    /// The epoch that ends with the tick, if one does.
    pub ends: Option<Epoch>,
    /// Whether no tick follows.
    pub last: bool,
}

/// What the store must know of a view.
///
/// # Errors
/// When a column has a type that the online store does not hold.
pub fn view_schema(plan: &Plan, view: &ViewPlan) -> Result<ViewSchema, EngineError> {
    let stream = update_schema(plan, view);
    let column = |name: &str, data_type: &arrow::datatypes::DataType| {
        ColumnSchema::new(name, data_type).ok_or_else(|| {
            EngineError::Plan(format!(
                "features.{}: the online store does not hold columns of type {data_type} (`{name}`); cast it, or leave the online sink out",
                view.name
            ))
        })
    };
    let entity = view.entity.iter().zip(&view.entity_names);
    let entity =
        entity.map(|(&index, name)| column(name, stream.field(index).data_type())).collect::<Result<_, _>>()?;
    let prefix = format!("{}.", view.name);
    let columns =
        view.aggregates.iter().map(|a| column(a.name.strip_prefix(&prefix).unwrap_or(&a.name), &a.output_type));
    Ok(ViewSchema {
        view: view.name.clone(),
        entity,
        columns: columns.collect::<Result<_, _>>()?,
        ttl: view.ttl,
        job: plan.job.clone(),
        job_version: plan.version,
    })
}

/// Attaches the online sink.
pub fn online_sink<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    open: &OpenStore,
    control: Control<'s>,
    views: Vec<OnlineView<'s>>,
    flow: &Probe<Tick>,
    done: &Probe<Tick>,
) {
    let mut builder = OperatorBuilder::new("online".to_owned(), scope);
    let indices: Vec<usize> = views.iter().map(|v| v.view).collect();
    let node = control.node();
    let control = control.through(views.iter().map(|view| Some(Arc::clone(&view.inlet))));
    let ports = views.into_iter().map(|v| Port::local(v.rows)).collect();
    // A store in another process may be away for long: the sources then wait for it as they wait for the graph.
    let retain = match open {
        OpenStore::Embedded { .. } => vec![1],
        OpenStore::Redis(_) => vec![0, 1],
    };
    let mut buffer = TickBuffer::attach(&mut builder, control, ports, retain);
    let (_progress, progress) = builder.new_output::<Vec<()>>();
    let (_written, written) = builder.new_output::<Vec<()>>();
    progress.probe_with(flow);
    written.probe_with(done);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let shared = Arc::clone(shared);
    let worker = scope.index();
    let store = match open {
        OpenStore::Embedded { store, generation, .. } => Writer::Embedded(Arc::clone(store), *generation),
        OpenStore::Redis(store) => Writer::Redis(store.clone()),
    };
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let thread = {
            let shared = Arc::clone(&shared);
            let name = format!("tidemill-online-{worker}");
            let (counts, node) = (Arc::clone(&shared), node.clone());
            match store {
                Writer::Embedded(store, generation) => Background::spawn(&name, QUEUE, wake, move || {
                    timed(counts, node, writer(shared, store, generation, &indices))
                }),
                Writer::Redis(store) => Background::spawn(&name, QUEUE, wake, move || {
                    timed(counts, node, online_redis::writer(shared, &store, worker, indices))
                }),
            }
        };
        let mut waiting: Vec<Capability<Tick>> = Vec::new();
        let mut written: VecDeque<(Tick, usize)> = VecDeque::new();
        move |frontiers| {
            buffer.pull();
            while let Some((info, inputs, mut capabilities)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                let rows: Vec<(usize, RecordBatch)> = inputs
                    .into_iter()
                    .enumerate()
                    .flat_map(|(input, batches)| whole(batches).into_iter().map(move |batch| (input, batch)))
                    .collect();
                // A tick without values needs no trip through the thread, except that the store learns the time.
                if rows.is_empty() && !info.epoch_end && info.tick % 16 != 0 {
                    continue;
                }
                let ends = info.epoch_end.then_some(info.epoch);
                written.push_back((info.tick, rows.iter().map(|(_, batch)| batch.num_rows()).sum()));
                thread.send(Request { tick: info.tick, now: info.now, rows, ends, last: info.last });
                waiting.append(&mut capabilities);
            }
            while let Some(tick) = thread.try_answer() {
                waiting.retain(|capability| *capability.time() != tick);
                while let Some((_, rows)) = written.pop_front_if(|(sent, _)| *sent <= tick) {
                    node.iter().for_each(|node| node.sent(rows));
                }
            }
            !waiting.is_empty() && !shared.failed()
        }
    });
}

/// Counts the time of a thread's work, that of waiting for the tick log apart.
fn timed(
    shared: Arc<Shared>,
    node: Option<Arc<Node>>,
    mut work: impl FnMut(Request) -> Option<Tick>,
) -> impl FnMut(Request) -> Option<Tick> {
    move |request| {
        if !shared.failed() && !shared.wait_durable(request.tick) {
            return None;
        }
        let started = Instant::now();
        let answer = work(request);
        node.iter().for_each(|node| node.worked(started.elapsed()));
        answer
    }
}

/// What the writing thread writes to.
enum Writer {
    Embedded(Arc<OnlineStore>, u64),
    Redis(RedisStore),
}

/// The writing thread's work.
fn writer(
    shared: Arc<Shared>,
    store: Arc<OnlineStore>,
    generation: u64,
    indices: &[usize],
) -> impl FnMut(Request) -> Option<Tick> + use<> {
    let mut views: Vec<View> = Vec::new();
    for &index in indices {
        let defined = view_schema(&shared.plan, &shared.plan.views[index])
            .and_then(|schema| store.define(&schema).map_err(EngineError::Store));
        match defined {
            Ok(view) => views.push(view),
            Err(error) => shared.fail(error),
        }
    }
    move |request| {
        if shared.failed() || !shared.wait_durable(request.tick) {
            return None;
        }
        let stamp = Stamp { generation, tick: request.tick };
        let written =
            request.rows.iter().try_for_each(|(view, batch)| put(&store, &views[*view], stamp, batch)).and_then(|()| {
                store.set_now(request.now);
                // A restart takes what was told up to an epoch's end as told.
                if request.ends.is_some() { store.flush() } else { Ok(()) }
            });
        match written {
            Ok(()) => {
                told(&shared, request.ends, StoreIdentity { generation, life: store.life().to_owned() }, 0);
                Some(request.tick)
            }
            Err(error) => {
                shared.fail(EngineError::Store(error));
                None
            }
        }
    }
}

/// Tells a store the clock of the state that a start goes on from: there may be no further tick that would.
///
/// # Errors
/// When the store cannot be written.
pub fn tell_clock(open: &OpenStore, loaded: &Manifest, stop: &StopHandle) -> Result<(), EngineError> {
    if loaded.now == EventTime::MIN {
        return Ok(());
    }
    match open {
        OpenStore::Embedded { store, .. } => {
            store.set_now(loaded.now);
            Ok(store.flush()?)
        }
        OpenStore::Redis(store) => {
            let stamp = Stamp { generation: store.generation(), tick: loaded.tick };
            store.writer("0").put(stamp, Some(loaded.now), &[], &|| stop.is_stopped())?;
            Ok(())
        }
    }
}

/// Reports that the store has all values up to an epoch's end; without its identity when it had lost some, before its
/// present life, that the state says it was told.
pub fn told(shared: &Shared, ends: Option<Epoch>, store: StoreIdentity, losses: u64) {
    let Some(epoch) = ends else { return };
    let store = Some(store).filter(|_| shared.checkpoints.has_been_told(epoch, losses));
    let value = store.and_then(|store| serde_json::to_value(store).ok());
    shared.checkpoints.report(Report::Staged { epoch, sink: ONLINE.to_owned(), value });
}

fn put(store: &OnlineStore, view: &View, stamp: Stamp, batch: &RecordBatch) -> Result<(), StoreError> {
    let times = |column: usize| batch.column(column).as_primitive::<Int64Type>().values().to_vec();
    let keys = batch.column(0).as_binary::<i32>();
    let keys: Vec<&[u8]> = (0..keys.len()).map(|row| keys.value(row)).collect();
    store.put_encoded(view, stamp, &keys, &times(1), &times(2), &batch.columns()[3..])?;
    Ok(())
}

//! The offline sink: each worker writes sorted parts on a thread of its own; worker 0 makes one commit per table and epoch.
//!
//! Rows reach the writing thread when their tick is complete; at an epoch's last tick the parts are flushed and sent to
//! worker 0, under a capability that is held until the thread has answered. The committing thread waits until the tick
//! log holds the epoch's last tick, then commits with the table's transaction id, so a repeated epoch is skipped.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};
use timely::dataflow::{Scope, Stream};

use super::EngineError;
use super::background::Background;
use super::shared::Shared;
use super::ticked::{Control, Port, Rows, TickBuffer};
use crate::base::{Epoch, Tick};
use crate::ops::Batch;
use crate::store::offline::{Part, TableCommitter, TableSpec, TableWriter, WriterOptions};

/// Requests that may wait for a writing thread before its worker waits too.
const QUEUE: usize = 32;

/// A table to write and how its rows come.
pub struct SinkTable<'s> {
    /// Name, columns, sort order.
    pub spec: TableSpec,
    /// Rows: of the engine, or already in the table's form.
    pub rows: Rows<'s>,
    /// Whether rows are in the table's form already (dead letters).
    pub ready_made: bool,
}

/// Parts of one table and epoch from one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flushed {
    table: usize,
    epoch: Epoch,
    parts: Vec<Part>,
}

enum WriteRequest {
    Rows { table: usize, tick: Tick, batch: arrow::array::RecordBatch },
    Flush { tick: Tick, epoch: Epoch },
}

/// Attaches the offline sink. `flow` follows the rows as the sink takes them in, `done` follows the commits.
pub fn offline_sink<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    root: PathBuf,
    control: Control<'s>,
    tables: Vec<SinkTable<'s>>,
    flow: &Probe<Tick>,
    done: &Probe<Tick>,
) {
    let specs: Vec<(TableSpec, bool)> = tables.iter().map(|t| (t.spec.clone(), t.ready_made)).collect();
    let parts = write(scope, shared, root.clone(), control, tables, specs.clone(), flow);
    commit(scope, shared, root, parts, specs, done);
}

fn write<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    root: PathBuf,
    control: Control<'s>,
    tables: Vec<SinkTable<'s>>,
    specs: Vec<(TableSpec, bool)>,
    flow: &Probe<Tick>,
) -> Stream<'s, Tick, Vec<Flushed>> {
    let mut builder = OperatorBuilder::new("offline write".to_owned(), scope);
    let ports = tables.into_iter().map(|t| Port::local(t.rows)).collect();
    // Output 0 carries nothing: its frontier tells the sources how far rows have come, whatever the parts wait for.
    let mut buffer = TickBuffer::attach(&mut builder, control, ports, vec![1]);
    let (_progress, progress_stream) = builder.new_output::<Vec<()>>();
    let (output, stream) = builder.new_output::<Vec<Flushed>>();
    let mut output = OutputBuilder::<Tick, CapacityContainerBuilder<Vec<Flushed>>>::from(output);
    progress_stream.probe_with(flow);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let shared = Arc::clone(shared);
    let worker = scope.index();
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let thread = {
            let shared = Arc::clone(&shared);
            Background::spawn(&format!("tidemill-write-{worker}"), QUEUE, wake, move || {
                writer(shared, root, specs, worker)
            })
        };
        let mut waiting: Vec<Capability<Tick>> = Vec::new();
        move |frontiers| {
            buffer.pull();
            while let Some((info, rows, mut capabilities)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                for (table, batches) in rows.into_iter().enumerate() {
                    for Batch(batch) in batches {
                        thread.send(WriteRequest::Rows { table, tick: info.tick, batch });
                    }
                }
                if info.epoch_end {
                    thread.send(WriteRequest::Flush { tick: info.tick, epoch: info.epoch });
                    waiting.extend(capabilities.pop());
                }
            }
            while let Some((tick, flushed)) = thread.try_answer() {
                let Some(at) = waiting.iter().position(|capability| *capability.time() == tick) else {
                    continue;
                };
                let capability = waiting.swap_remove(at);
                output.activate().session(&capability).give_iterator(Vec::into_iter(flushed));
            }
            !waiting.is_empty() && !shared.failed()
        }
    });
    stream
}

/// The writing thread's work.
fn writer(
    shared: Arc<Shared>,
    root: PathBuf,
    specs: Vec<(TableSpec, bool)>,
    worker: usize,
) -> impl FnMut(WriteRequest) -> Option<(Tick, Vec<Flushed>)> {
    let options = WriterOptions {
        job_version: shared.plan.version,
        sources: shared.plan.sources.iter().map(|s| s.name.clone()).collect(),
        worker,
        ..WriterOptions::default()
    };
    let mut writers = Vec::new();
    for (spec, ready_made) in specs {
        match TableWriter::new(&root, &spec, options.clone()) {
            Ok(writer) => writers.push((writer, ready_made)),
            Err(error) => shared.fail(EngineError::Store(error)),
        }
    }
    move |request| {
        if shared.failed() {
            return None;
        }
        let outcome = match request {
            WriteRequest::Rows { table, tick, batch } => {
                let (writer, ready_made) = &mut writers[table];
                let appended = if *ready_made { writer.append_rows(&batch) } else { writer.append(tick, &batch) };
                appended.map(|()| None)
            }
            WriteRequest::Flush { tick, epoch } => writers
                .iter_mut()
                .enumerate()
                .map(|(table, (writer, _))| writer.flush().map(|parts| Flushed { table, epoch, parts }))
                .collect::<Result<Vec<_>, _>>()
                .map(|flushed| Some((tick, flushed))),
        };
        outcome.unwrap_or_else(|error| {
            shared.fail(EngineError::Store(error));
            None
        })
    }
}

fn commit<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    root: PathBuf,
    parts: Stream<'s, Tick, Vec<Flushed>>,
    specs: Vec<(TableSpec, bool)>,
    done: &Probe<Tick>,
) {
    let mut builder = OperatorBuilder::new("offline commit".to_owned(), scope);
    let mut input = builder.new_input(parts, Exchange::new(|_: &Flushed| 0));
    let (_output, stream) = builder.new_output::<Vec<()>>();
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    stream.probe_with(done);
    let shared = Arc::clone(shared);
    let committer = scope.index() == 0;
    let answers = scope.peers() * specs.len();
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let thread = committer.then(|| {
            let shared = Arc::clone(&shared);
            Background::spawn("tidemill-commit", QUEUE, wake, move || commits(shared, root, specs))
        });
        let mut arriving: Vec<(Capability<Tick>, Vec<Flushed>)> = Vec::new();
        let mut committing: Vec<Capability<Tick>> = Vec::new();
        move |frontiers| {
            let Some(thread) = &thread else {
                input.for_each(|_, _| {});
                return false;
            };
            input.for_each(|capability, flushed| {
                let tick = *capability.time();
                let at = arriving.iter().position(|(c, _)| *c.time() == tick).unwrap_or_else(|| {
                    arriving.push((capability.retain(0), Vec::new()));
                    arriving.len() - 1
                });
                arriving[at].1.append(flushed);
            });
            arriving.sort_by_key(|(capability, _)| *capability.time());
            while arriving.first().is_some_and(|(c, _)| !frontiers[0].less_equal(c.time())) {
                let (capability, flushed) = arriving.remove(0);
                // An epoch is complete when every worker has answered for every table; an empty frontier alone would
                // say the same of a job that was dropped.
                if flushed.len() != answers {
                    let what = format!("tick {} ended with {} of {answers} answers", capability.time(), flushed.len());
                    shared.fail(EngineError::defect(what));
                    continue;
                }
                thread.send((*capability.time(), flushed));
                committing.push(capability);
            }
            while let Some(tick) = thread.try_answer() {
                committing.retain(|capability| *capability.time() != tick);
            }
            !committing.is_empty() && !shared.failed()
        }
    });
}

/// The committing thread's work: one commit per table for an epoch's last tick.
fn commits(
    shared: Arc<Shared>,
    root: PathBuf,
    specs: Vec<(TableSpec, bool)>,
) -> impl FnMut((Tick, Vec<Flushed>)) -> Option<Tick> {
    let mut committers: Vec<Option<TableCommitter>> = specs.iter().map(|_| None).collect();
    move |(tick, flushed)| {
        if shared.failed() || !shared.wait_durable(tick) {
            return None;
        }
        let mut by_table: Vec<(Epoch, Vec<Part>)> = vec![(0, Vec::new()); committers.len()];
        for Flushed { table, epoch, parts } in flushed {
            by_table[table].0 = epoch;
            by_table[table].1.extend(parts);
        }
        for (table, (epoch, mut parts)) in by_table.into_iter().enumerate() {
            parts.sort_by(|a, b| a.path.cmp(&b.path));
            let committed = match &mut committers[table] {
                Some(committer) => committer.commit(epoch, &parts),
                empty => {
                    let application = shared.application_id(specs[table].0.name());
                    TableCommitter::open(&root, &specs[table].0, &application)
                        .and_then(|committer| empty.insert(committer).commit(epoch, &parts))
                }
            };
            if let Err(error) = committed {
                shared.fail(EngineError::Store(error));
                return None;
            }
        }
        Some(tick)
    }
}

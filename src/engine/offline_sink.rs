//! The offline sink: each worker writes sorted parts on a thread of its own.
//!
//! Rows reach the writing thread when their tick is complete; at an epoch's last tick the parts are flushed and reported.
//! They become visible when the epoch is published.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use timely::dataflow::Scope;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};

use super::EngineError;
use super::background::Background;
use super::publish::{OFFLINE, StagedTables};
use super::shared::Shared;
use super::status::flow::{Inlet, Node};
use super::ticked::{Control, Port, Rows, TickBuffer, whole};
use crate::base::{Epoch, Tick};
use crate::state::Report;
use crate::store::offline::{TableSpec, TableWriter, WriterOptions};

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
    /// The table's node in the dataflow.
    pub sink: Arc<Node>,
    /// Where rows come into it.
    pub inlet: Arc<Inlet>,
}

enum WriteRequest {
    Rows { table: usize, tick: Tick, batch: arrow::array::RecordBatch },
    Flush { epoch: Epoch },
}

/// Attaches the offline sink. `flow` and `done` follow the rows as the sink takes them in.
pub fn offline_sink<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    root: PathBuf,
    control: Control<'s>,
    tables: Vec<SinkTable<'s>>,
    flow: &Probe<Tick>,
    done: &Probe<Tick>,
) {
    let specs: Vec<(TableSpec, bool, Arc<Node>)> =
        tables.iter().map(|t| (t.spec.clone(), t.ready_made, Arc::clone(&t.sink))).collect();
    let control = control.through(tables.iter().map(|table| Some(Arc::clone(&table.inlet))));
    let mut builder = OperatorBuilder::new("offline write".to_owned(), scope);
    let ports = tables.into_iter().map(|t| Port::local(t.rows)).collect();
    let mut buffer = TickBuffer::attach(&mut builder, control, ports, Vec::new());
    let (_progress, progress) = builder.new_output::<Vec<()>>();
    progress.probe_with(flow).probe_with(done);
    let wake = scope.worker().sync_activator_for(builder.operator_info().address.to_vec());
    let shared = Arc::clone(shared);
    let worker = scope.index();
    builder.build(move |capabilities| {
        drop(capabilities);
        let thread: Background<WriteRequest, ()> = {
            let shared = Arc::clone(&shared);
            Background::spawn(&format!("tidemill-write-{worker}"), QUEUE, wake, move || {
                writer(shared, root, specs, worker)
            })
        };
        move |frontiers| {
            buffer.pull();
            while let Some((info, rows, _)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                let rows = if shared.checkpoints.publishes(info.tick) { rows } else { Vec::new() };
                for (table, batches) in rows.into_iter().enumerate() {
                    for batch in whole(batches) {
                        thread.send(WriteRequest::Rows { table, tick: info.tick, batch });
                    }
                }
                if info.epoch_end {
                    thread.send(WriteRequest::Flush { epoch: info.epoch });
                }
            }
        }
    });
}

/// The writing thread's work.
fn writer(
    shared: Arc<Shared>,
    root: PathBuf,
    specs: Vec<(TableSpec, bool, Arc<Node>)>,
    worker: usize,
) -> impl FnMut(WriteRequest) -> Option<()> {
    let options = WriterOptions {
        job_version: shared.plan.version,
        sources: shared.plan.sources.iter().map(|s| s.name.clone()).collect(),
        worker,
        outbox: shared.checkpoints.enabled().then(|| shared.outbox.clone()),
        ..WriterOptions::default()
    };
    let mut writers = Vec::new();
    for (spec, ready_made, sink) in specs {
        match TableWriter::new(&root, &spec, options.clone()) {
            Ok(writer) => writers.push((spec.name().to_owned(), writer, ready_made, sink)),
            Err(error) => shared.fail(EngineError::Store(error)),
        }
    }
    move |request| {
        if shared.failed() {
            return None;
        }
        let outcome = match request {
            WriteRequest::Rows { table, tick, batch } => {
                let (_, writer, ready_made, sink) = &mut writers[table];
                let started = Instant::now();
                let appended = if *ready_made { writer.append_rows(&batch) } else { writer.append(tick, &batch) };
                sink.worked(started.elapsed());
                appended.map_err(EngineError::Store)
            }
            WriteRequest::Flush { epoch } => flush(&mut writers).map(|staged| {
                shared.checkpoints.report(Report::Staged { epoch, sink: OFFLINE.to_owned(), value: staged });
            }),
        };
        outcome.unwrap_or_else(|error| shared.fail(error));
        None
    }
}

/// Flushes all tables; what was staged, if anything was.
fn flush(writers: &mut [(String, TableWriter, bool, Arc<Node>)]) -> Result<Option<serde_json::Value>, EngineError> {
    let mut staged = StagedTables::default();
    for (table, writer, _, sink) in writers {
        let started = Instant::now();
        let parts = writer.flush()?;
        sink.worked(started.elapsed());
        if !parts.is_empty() {
            staged.tables.insert(table.clone(), parts);
        }
    }
    let value = (!staged.tables.is_empty()).then(|| serde_json::to_value(&staged)).transpose();
    value.map_err(|error| EngineError::defect(error.to_string()))
}

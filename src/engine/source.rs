//! The source operator: worker 0 takes the ticks that were read ahead, writes the tick log and sends rows.
//!
//! The operator holds one capability per output at the tick it fills and lets go of it when the last tick is sent. It takes
//! none while more ticks are in flight past the probe than the plan allows, so memory is bounded by the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::Handle as Probe;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, Stream};
use timely::scheduling::Activator;

use super::EngineError;
use super::alarm::Alarm;
use super::checkpoint::Saver;
use super::offsets::Underway;
use super::read_ahead::{Read, ReadAhead, Ready};
use super::shared::Shared;
use super::tables::{DEAD_LETTERS, dead_letter_tables};
use super::ticked::{Control, Rows};
use crate::base::{SlotRange, Tick};
use crate::ingest::aligned::{Aligned, Cut};
use crate::ingest::{DeadLetter, DedupDelta, dead_letter_batch};
use crate::ops::Batch;
use crate::ops::control::{TickInfo, broadcast};
use crate::state::{CutReport, Encode, Mode, Report};

/// Epochs that may be on their way at once.
const EPOCHS_MAX: u64 = 2;

/// Names the reader's ids in snapshots.
pub const READER_IDS: &str = "reader ids";

/// Schedulings that a tick is given to get through before the next one sets out, where no other worker has a part of it.
const PATIENCE: u32 = 16;
/// The probe is looked at this often while the graph is busy and the reader waits, though nobody says that it has moved.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// The streams that leave the sources.
pub struct Sources<'s> {
    /// One stream of rows per source.
    pub rows: Vec<Rows<'s>>,
    /// Rows turned away at ingest, in the form of the dead-letter tables, one stream per table of
    /// [`dead_letter_tables`].
    pub dead: Vec<Rows<'s>>,
    /// Tick records, on every worker.
    pub control: Control<'s>,
    /// The commands of ticks that have any, on every worker, in the form of [`commands_of`].
    pub commands: Rows<'s>,
    /// Has the operator look at the probe.
    pub looked: Looked,
}

/// Schedules the source operator when the probe that it looks at moves, which by itself does not.
pub struct Looked {
    probe: Probe<Tick>,
    seen: Option<Tick>,
    activator: Activator,
}

impl Looked {
    /// To be called after each step of the worker.
    pub fn look(&mut self) {
        let first = self.probe.with_frontier(|frontier| frontier.first().copied());
        if first != self.seen {
            self.seen = first;
            self.activator.activate();
        }
    }
}

/// Builds the source operator. Only the worker that is given `reader` sends.
pub fn sources<'s>(
    scope: Scope<'s, Tick>,
    shared: Arc<Shared>,
    reader: Option<Aligned>,
    probe: Probe<Tick>,
) -> Sources<'s> {
    let count = shared.plan.sources.len();
    let mut builder = OperatorBuilder::new("sources".to_owned(), scope);
    let mut row_outputs = Vec::new();
    let mut rows = Vec::new();
    let dead_tables = dead_letter_tables(&shared.plan);
    for _ in 0..count + dead_tables.len() {
        let (output, stream) = builder.new_output::<Batch>();
        row_outputs.push(OutputBuilder::<Tick, NoopBuilder<Batch>>::from(output));
        rows.push(stream);
    }
    let (output, control): (_, Stream<'s, Tick, Vec<TickInfo>>) = builder.new_output();
    let mut control_output = OutputBuilder::<Tick, NoopBuilder<Vec<TickInfo>>>::from(output);
    let (output, commands): (_, Stream<'s, Tick, Vec<Vec<String>>>) = builder.new_output();
    let mut commands_output = OutputBuilder::<Tick, NoopBuilder<Vec<Vec<String>>>>::from(output);
    let info = builder.operator_info();
    let saver = reader.as_ref().and_then(|_| shared.checkpoints.operator(scope.index(), READER_IDS));
    let started = reader.map(|reader| {
        let to_wake = scope.worker().sync_activator_for(info.address.to_vec());
        ReadAhead::start(reader, Arc::clone(&shared), to_wake, scope.peers())
    });
    let reads = match started.transpose() {
        Ok(reads) => reads,
        Err(error) => {
            shared.fail(EngineError::Workers(format!("the reader thread could not be started: {error}")));
            None
        }
    };
    let looked = Looked { probe: probe.clone(), seen: None, activator: scope.activator_for(info.address.clone()) };
    let mut alarm = Alarm::new(scope.activator_for(info.address));
    let nodes = shared.meters.sources();
    builder.build_reschedule(move |capabilities| {
        let mut capabilities = Some(capabilities).filter(|_| reads.is_some());
        let in_flight = shared.plan.ticks.in_flight_max as Tick;
        let mut underway = Underway::default();
        // Rows and epochs before are an earlier process's.
        if let Some(held) = capabilities.as_mut() {
            held.iter_mut().for_each(|capability| capability.downgrade(&shared.checkpoints.first_tick));
        }
        let mut held_read: Option<Read> = None;
        let (patient, mut patience) = (if scope.peers() == 1 { PATIENCE } else { 0 }, 0);
        move |_frontiers| {
            let (Some(reads), Some(held)) = (reads.as_ref(), capabilities.as_mut()) else {
                return false;
            };
            // One tick per scheduling, and the one before gets through first if it can: its rows meet the next operators while
            // they are still in the cache.
            let tick = *held[0].time();
            if shared.failed() {
                capabilities = None;
                return false;
            }
            underway.through(&shared.offsets, |tick| !probe.less_equal(&tick));
            shared.checkpoints.figures.look(|tick| !probe.less_equal(&tick));
            shared.meters.through(|tick| !probe.less_equal(&tick));
            if tick >= in_flight && probe.less_equal(&(tick - in_flight)) {
                alarm.ring_after(BUSY_LOOK);
                return true;
            }
            if patience > 0 && probe.less_than(&tick) {
                patience -= 1;
                alarm.ring();
                return true;
            }
            let next = held_read.take().map_or_else(|| reads.next(), |read| Ok(Ready::Read(read)));
            let read = match next {
                Ok(Ready::Read(read)) if read.cut.info.epoch_end && !room_for_epoch(&shared) => {
                    held_read = Some(read);
                    alarm.ring_after(BUSY_LOOK);
                    return true;
                }
                Ok(Ready::Read(read)) => read,
                Ok(Ready::Nothing) => {
                    if probe.less_than(&tick) {
                        // Rows that wait for their tick may leave as soon as nothing is under way.
                        alarm.ring_after(BUSY_LOOK);
                    } else {
                        reads.idle();
                    }
                    return true;
                }
                Ok(Ready::End) => {
                    shared.meters.input_ended();
                    capabilities = None;
                    return false;
                }
                Err(error) => {
                    shared.fail(EngineError::from(error));
                    capabilities = None;
                    return false;
                }
            };
            let Read { mut cut, counts, anew, lanes } = read;
            shared.rollouts.steer(&mut cut);
            shared.note_cut(&cut, &counts, lanes);
            if let Err(error) = log(&shared, &cut) {
                shared.fail(error);
                capabilities = None;
                return false;
            }
            if let Err(error) = report(&shared, saver.as_ref(), &cut, anew) {
                shared.fail(error);
                capabilities = None;
                return false;
            }
            let Cut { info, offsets, commands, batches, dead, .. } = *cut;
            patience = patient;
            let last = info.last;
            underway.sent(&shared.offsets, &info, offsets);
            for (source, batch) in batches {
                nodes[source].sent(batch.num_rows());
                row_outputs[source]
                    .activate()
                    .session_with_builder(&held[source])
                    .give_container(&mut Batch::from(batch));
            }
            for (output, batch) in letters_by_table(&shared, &dead_tables, dead, info.tick) {
                let output = count + output;
                row_outputs[output]
                    .activate()
                    .session_with_builder(&held[output])
                    .give_container(&mut Batch::from(batch));
            }
            let control = count + dead_tables.len();
            control_output.activate().session_with_builder(&held[control]).give_container(&mut vec![info]);
            if !commands.is_empty() {
                let mut session = commands_output.activate();
                session.session_with_builder(&held[control + 1]).give_container(&mut vec![commands]);
            }
            if last {
                shared.meters.input_ended();
                capabilities = None;
                return false;
            }
            for capability in held.iter_mut() {
                capability.downgrade(&(tick + 1));
            }
            alarm.ring();
            true
        }
    });
    let dead = rows.split_off(count);
    let (control, commands) = (Control::new(broadcast(control)), as_rows(scope, commands.broadcast()));
    Sources { rows, dead, control, commands, looked }
}

/// Commands as batches, so that whoever hears of them takes them as one more input.
fn as_rows<'s>(scope: Scope<'s, Tick>, commands: Stream<'s, Tick, Vec<Vec<String>>>) -> Rows<'s> {
    let mut builder = OperatorBuilder::new("commands".to_owned(), scope);
    let mut input = builder.new_input(commands, Pipeline);
    let (output, rows) = builder.new_output::<Batch>();
    let mut output = OutputBuilder::<Tick, NoopBuilder<Batch>>::from(output);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            input.for_each(|time, commands| {
                let capability = time.retain(0);
                for commands in commands.drain(..) {
                    let mut session = output.activate();
                    session.session_with_builder(&capability).give_container(&mut Batch::from(command_rows(&commands)));
                }
            });
        }
    });
    rows
}

/// Commands as rows of one column of texts.
fn command_rows(commands: &[String]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("command", DataType::Utf8, false)]));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(commands));
    RecordBatch::try_new(schema, vec![texts]).expect("one column of texts is what the schema says")
}

/// The commands of a tick, in their order.
pub fn commands_of(batches: &[RecordBatch]) -> impl Iterator<Item = &str> {
    let texts = batches.iter().filter_map(|batch| batch.columns().first()?.as_string_opt::<i32>());
    texts.flat_map(|texts| texts.iter().flatten())
}

/// Whether another epoch may be on its way.
fn room_for_epoch(shared: &Shared) -> bool {
    shared.failed() || shared.checkpoints.progress.outstanding() < EPOCHS_MAX
}

/// Writes the tick log, unless the tick came from it.
fn log(shared: &Shared, cut: &Cut) -> Result<(), EngineError> {
    if cut.replayed {
        return Ok(());
    }
    shared.log_tick(&cut.record())
}

/// At an epoch's end: tells the coordinator of the cut, before any worker hears of it.
fn report(shared: &Shared, saver: Option<&Saver>, cut: &Cut, anew: SlotRange) -> Result<(), EngineError> {
    let info = &cut.info;
    if !info.epoch_end {
        return Ok(());
    }
    shared.checkpoints.begin(info.epoch, anew);
    if let Some(saver) = saver {
        let ids = cut.dedup.clone();
        let encode: Encode =
            Box::new(move || Ok(if ids.is_empty() { Vec::new() } else { vec![(0, DedupDelta::encode(&ids))] }));
        saver.save_later(info, Mode::Change, anew, encode);
    }
    let reader = cut.state.as_deref().map(serde_json::to_value).transpose();
    let reader = reader.map_err(|error| EngineError::defect(error.to_string()))?.unwrap_or_default();
    shared.checkpoints.report(Report::Cut(Box::new(CutReport {
        epoch: info.epoch,
        tick: info.tick,
        watermark: info.watermark,
        now: info.now,
        last: info.last,
        reader,
    })));
    Ok(())
}

/// The letters of a tick as batches, with the index of the table that takes each.
fn letters_by_table(
    shared: &Shared,
    tables: &[String],
    letters: Vec<DeadLetter>,
    tick: Tick,
) -> impl Iterator<Item = (usize, RecordBatch)> {
    let mut by_table: BTreeMap<usize, Vec<DeadLetter>> = BTreeMap::new();
    for letter in letters {
        let rejected_to = shared.plan.sources.iter().find(|s| *s.name == *letter.source).map(|s| &*s.rejected_to);
        let name = letter.table(rejected_to.unwrap_or(DEAD_LETTERS));
        let table = tables.iter().position(|table| table == name).unwrap_or_default();
        by_table.entry(table).or_default().push(letter);
    }
    let version = shared.plan.version;
    by_table.into_iter().map(move |(table, letters)| (table, dead_letter_batch(&letters, tick, version)))
}

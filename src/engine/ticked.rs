//! Operators that work tick by tick: rows of several inputs are held until the tick is complete, then handed over at once.
//!
//! A tick is complete when no input's frontier can still bring it. Ticks are handed over in order, also empty ones: every
//! worker hears of every tick through the control stream, and the capability under which output leaves is the control
//! record's own, so an operator keeps no older capability than the tick it works on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use super::alarm::Alarm;
use super::status::flow::{Inlet, Node};
use crate::base::Tick;
use crate::ops::Batch;
use crate::ops::control::TickInfo;
use crate::ops::exchange::{Placement, by_slot};

/// Batches of one logical stream.
pub type Rows<'s> = Stream<'s, Tick, Batch>;

/// The broadcast tick records, with the node of the graph that whoever follows them counts for.
#[derive(Clone)]
pub struct Control<'s> {
    /// The records.
    pub ticks: Stream<'s, Tick, Vec<TickInfo>>,
    node: Option<Arc<Node>>,
    inlets: Vec<Option<Arc<Inlet>>>,
    outs: usize,
}

impl<'s> Control<'s> {
    /// Records for operators that count for nobody.
    pub fn new(ticks: Stream<'s, Tick, Vec<TickInfo>>) -> Self {
        Control { ticks, node: None, inlets: Vec::new(), outs: 0 }
    }

    /// For an operator whose time is a node's.
    pub fn of(&self, node: &Arc<Node>) -> Self {
        Control { ticks: self.ticks.clone(), node: Some(Arc::clone(node)), inlets: Vec::new(), outs: 0 }
    }

    /// For an operator whose inputs are these, in their order.
    pub fn through(mut self, inlets: impl IntoIterator<Item = Option<Arc<Inlet>>>) -> Self {
        self.inlets = inlets.into_iter().collect();
        self
    }

    /// For an operator whose first so many outputs are the node's.
    pub fn telling(&self, outs: usize) -> Self {
        Control { outs, ..self.clone() }
    }

    /// For an operator behind the node's inputs.
    pub fn inside(&self) -> Self {
        Control { inlets: Vec::new(), ..self.clone() }
    }

    /// For an operator behind the first of the node's inputs, and at the others.
    pub fn behind_first(&self) -> Self {
        let mut behind = self.clone();
        behind.inlets.iter_mut().take(1).for_each(|inlet| *inlet = None);
        behind
    }

    /// The node.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.clone()
    }
}

/// An input of a per-tick operator.
pub struct Port<'s> {
    /// The stream.
    pub rows: Rows<'s>,
    /// Key columns by which rows move to the worker that owns their slot; `None` leaves them where they are.
    pub key: Option<Vec<usize>>,
    /// Which worker owns each slot, where not every worker has as many.
    pub placement: Option<Arc<Placement>>,
}

impl<'s> Port<'s> {
    /// An input whose rows stay on their worker.
    pub fn local(rows: Rows<'s>) -> Self {
        Port { rows, key: None, placement: None }
    }

    /// An input whose rows go to the worker that owns the slot of their key.
    pub fn keyed(rows: Rows<'s>, key: Vec<usize>) -> Self {
        Port { rows, key: Some(key), placement: None }
    }

    /// An input whose rows go to the worker that owns the slot of their key in a placement.
    pub fn placed(rows: Rows<'s>, key: Vec<usize>, placement: &Arc<Placement>) -> Self {
        Port { rows, key: Some(key), placement: Some(Arc::clone(placement)) }
    }

    /// An input whose rows all go to the first worker.
    pub fn first(rows: Rows<'s>) -> Self {
        Port { rows, key: Some(Vec::new()), placement: None }
    }
}

/// What has arrived for one tick.
struct Pending {
    /// Batches per input, in order of arrival.
    inputs: Vec<Vec<Batch>>,
    /// The control record and, per output, the capability to answer under.
    control: Option<(TickInfo, Vec<Capability<Tick>>)>,
}

/// Ticks that have begun to arrive and are not complete.
pub struct TickBuffer {
    pending: Rc<RefCell<BTreeMap<Tick, Pending>>>,
    pulls: Vec<Box<dyn FnMut()>>,
    inlets: Vec<Option<Arc<Inlet>>>,
}

impl TickBuffer {
    /// Attaches `inputs` and `control` to an operator under construction, before its outputs are added; `retain` are the
    /// outputs for which each tick's capability is kept.
    pub fn attach<'s>(
        builder: &mut OperatorBuilder<'s, Tick>,
        control: Control<'s>,
        inputs: Vec<Port<'s>>,
        retain: Vec<usize>,
    ) -> Self {
        let pending: Rc<RefCell<BTreeMap<Tick, Pending>>> = Rc::default();
        let count = inputs.len();
        let mut pulls: Vec<Box<dyn FnMut()>> = Vec::with_capacity(count + 1);
        let entry = move |map: &mut BTreeMap<Tick, Pending>, tick: Tick, fill: &mut dyn FnMut(&mut Pending)| {
            fill(map.entry(tick).or_insert_with(|| Pending { inputs: vec![Vec::new(); count], control: None }));
        };
        for (index, port) in inputs.into_iter().enumerate() {
            macro_rules! pull_from {
                ($pact:expr) => {{
                    let mut handle = builder.new_input(port.rows, $pact);
                    let pending = Rc::clone(&pending);
                    let inlet = control.inlets.get(index).cloned().flatten();
                    pulls.push(Box::new(move || {
                        let mut pending = pending.borrow_mut();
                        handle.for_each(|capability, batch| {
                            let batch = std::mem::take(batch);
                            if let Some(inlet) = &inlet {
                                inlet.arrived(batch.num_rows());
                            }
                            let mut batch = Some(batch);
                            entry(&mut pending, *capability.time(), &mut |p| p.inputs[index].extend(batch.take()));
                        });
                    }));
                }};
            }
            match port.key {
                Some(key) => pull_from!(by_slot(key, port.placement)),
                None => pull_from!(Pipeline),
            }
        }
        let mut handle = builder.new_input(control.ticks, Pipeline);
        let inlets = control.inlets;
        let shared = Rc::clone(&pending);
        pulls.push(Box::new(move || {
            let mut pending = shared.borrow_mut();
            handle.for_each(|capability, records| {
                for info in records.drain(..) {
                    let retained = retain.iter().map(|&output| capability.retain(output)).collect();
                    let mut control = Some((info, retained));
                    entry(&mut pending, *capability.time(), &mut |p| p.control = control.take());
                }
            });
        }));
        TickBuffer { pending, pulls, inlets }
    }

    /// Takes in what has arrived.
    pub fn pull(&mut self) {
        for pull in &mut self.pulls {
            pull();
        }
    }

    /// The next tick for which `complete` holds, with its rows and the capabilities retained for it.
    pub fn pop(&mut self, complete: impl Fn(&Tick) -> bool) -> Option<Complete> {
        let mut pending = self.pending.borrow_mut();
        let first = pending.first_entry()?;
        if !complete(first.key()) {
            return None;
        }
        let tick = *first.key();
        let Pending { inputs, control } = first.remove();
        for (inlet, batches) in self.inlets.iter().zip(&inputs) {
            if let Some(inlet) = inlet {
                inlet.taken(batches.iter().map(Batch::num_rows).sum());
            }
        }
        let (info, capabilities) =
            control.unwrap_or_else(|| panic!("tick {tick} is complete without a control record"));
        Some((info, inputs, capabilities))
    }
}

/// A complete tick: its record, the batches per input, and the capabilities retained for it.
pub type Complete = (TickInfo, Vec<Vec<Batch>>, Vec<Capability<Tick>>);

/// What a per-tick operator computes.
pub trait TickLogic {
    /// Works on a complete tick: the batches per input, and the batches to send per output.
    fn tick(&mut self, info: &TickInfo, inputs: Vec<Vec<Batch>>, out: &mut [Vec<RecordBatch>]);

    /// Does a slice of work that no tick waits for.
    fn slice(&mut self) -> Slice {
        Slice::Done
    }
}

/// Whether slices of work are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// None.
    Done,
    /// There are more, after a while.
    After(Duration),
}

/// An operator without work besides its ticks, which takes whole batches.
impl<F: FnMut(&TickInfo, Vec<Vec<RecordBatch>>, &mut [Vec<RecordBatch>])> TickLogic for F {
    fn tick(&mut self, info: &TickInfo, inputs: Vec<Vec<Batch>>, out: &mut [Vec<RecordBatch>]) {
        self(info, inputs.into_iter().map(whole).collect(), out);
    }
}

/// Batches by themselves.
pub fn whole(batches: Vec<Batch>) -> Vec<RecordBatch> {
    batches.into_iter().map(Batch::into_rows).collect()
}

/// What a per-tick operator computes, whatever it is.
pub type Logic = Box<dyn TickLogic>;

/// An operator is asked for slices whenever it is scheduled, and mostly has none.
const WORTH_COUNTING: Duration = Duration::from_micros(2);

/// Does a slice of work, and counts its time where there was any.
fn sliced(logic: &mut Logic, node: Option<&Node>) -> Slice {
    let started = Instant::now();
    let slice = logic.slice();
    let took = started.elapsed();
    if let Some(node) = node.filter(|_| took > WORTH_COUNTING) {
        node.worked(took);
    }
    slice
}

/// Builds an operator that applies `logic` to each complete tick, in order.
pub fn per_tick<'s>(
    scope: Scope<'s, Tick>,
    name: &str,
    control: Control<'s>,
    inputs: Vec<Port<'s>>,
    outputs: usize,
    mut logic: Logic,
) -> Vec<Rows<'s>> {
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let (node, counted) = (control.node(), control.outs);
    let mut buffer = TickBuffer::attach(&mut builder, control, inputs, (0..outputs).collect());
    let mut sessions = Vec::with_capacity(outputs);
    let mut streams = Vec::with_capacity(outputs);
    for _ in 0..outputs {
        let (output, stream) = builder.new_output::<Batch>();
        sessions.push(OutputBuilder::<Tick, NoopBuilder<Batch>>::from(output));
        streams.push(stream);
    }
    let mut alarm = Alarm::new(scope.activator_for(builder.operator_info().address));
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let mut out: Vec<Vec<RecordBatch>> = vec![Vec::new(); outputs];
        move |frontiers| {
            buffer.pull();
            while let Some((info, rows, capabilities)) =
                buffer.pop(|tick| frontiers.iter().all(|frontier| !frontier.less_equal(tick)))
            {
                let started = node.as_ref().map(|_| Instant::now());
                logic.tick(&info, rows, &mut out);
                if let (Some(node), Some(started)) = (&node, started) {
                    node.worked(started.elapsed());
                    let rows: usize = out[..counted].iter().flatten().map(RecordBatch::num_rows).sum();
                    if rows > 0 {
                        node.sent(rows);
                    }
                }
                for ((session, batches), capability) in sessions.iter_mut().zip(&mut out).zip(&capabilities) {
                    let mut session = session.activate();
                    let mut session = session.session_with_builder(capability);
                    for batch in batches.drain(..).filter(|batch| batch.num_rows() > 0) {
                        session.give_container(&mut Batch::from(batch));
                    }
                }
            }
            match sliced(&mut logic, node.as_deref()) {
                Slice::Done => {}
                Slice::After(Duration::ZERO) => alarm.ring(),
                Slice::After(wait) => alarm.ring_after(wait),
            }
            false
        }
    });
    streams
}

//! A model's graph as a list of steps over numbered slots, and the machine that runs it.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::pb::{GraphProto, NodeProto};

use super::kernels::{self, Args, Kernel, Recipe, Scratch};
use super::proto::{self, Opsets};
use super::tensor::Tensor;

/// One node, ready to run.
struct Step {
    kernel: Box<dyn Kernel>,
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    /// Operator and name of the node, for messages.
    label: String,
}

/// A compiled graph. Immutable; every thread runs it on a [`Machine`] of its own.
pub(crate) struct Graph {
    steps: Vec<Step>,
    slots: usize,
    constants: Vec<(usize, Arc<Tensor>)>,
    /// Slot of each graph input.
    inputs: Vec<usize>,
    /// Slot of each graph output.
    outputs: Vec<usize>,
}

/// Why a graph cannot be compiled.
pub(crate) enum Fault {
    /// A node is not as it should be.
    Node { node: String, why: String },
    /// The graph as a whole is not.
    Graph(String),
}

/// `LinearClassifier "lc1"`, or the operator alone where the node has no name.
pub(crate) fn label(node: &NodeProto) -> String {
    let domain = match node.domain.as_str() {
        "" | "ai.onnx" | "ai.onnx.ml" => String::new(),
        other => format!("{other}."),
    };
    match node.name.as_str() {
        "" => format!("{domain}{}", node.op_type),
        name => format!("{domain}{} {name:?}", node.op_type),
    }
}

impl Graph {
    /// Compiles a graph all of whose operators have kernels; names of inputs are those that are fed.
    pub(crate) fn compile(graph: &GraphProto, inputs: &[&str], opsets: Opsets) -> Result<Graph, Fault> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut slots = 0;
        let mut next = || {
            slots += 1;
            slots - 1
        };
        let mut known: HashMap<usize, Arc<Tensor>> = HashMap::new();
        let mut steps = Vec::new();
        for t in &graph.initializer {
            let slot = next();
            let value = proto::tensor(t).map_err(|why| Fault::Graph(format!("initializer {:?} {why}", t.name)))?;
            places.insert(&t.name, slot);
            known.insert(slot, Arc::new(value));
        }
        if let Some(t) = graph.sparse_initializer.first() {
            let name = t.values.as_ref().map_or("", |v| &v.name);
            return Err(Fault::Graph(format!("initializer {name:?} is sparse, which is not supported")));
        }
        for &name in inputs {
            places.insert(name, next());
        }
        for node in &graph.node {
            let fault = |why: String| Fault::Node { node: label(node), why };
            let mut from = Vec::with_capacity(node.input.len());
            for name in &node.input {
                from.push(match name.as_str() {
                    "" => None,
                    name => Some(
                        *places
                            .get(name)
                            .ok_or_else(|| fault(format!("reads {name:?}, which nothing before it gives")))?,
                    ),
                });
            }
            let constants: Vec<Option<&Tensor>> =
                from.iter().map(|p| p.and_then(|p| known.get(&p)).map(|t| &**t)).collect();
            let recipe = Recipe { node, opsets, constants: &constants };
            let kernel = kernels::make(recipe).unwrap_or_else(|| Err("has no kernel".into())).map_err(fault)?;
            let mut to = Vec::with_capacity(node.output.len());
            for name in &node.output {
                // An output without a name still needs a place to be written to.
                let slot = next();
                if !name.is_empty() && places.insert(name, slot).is_some() {
                    return Err(fault(format!("gives {name:?}, which is given already")));
                }
                to.push(slot);
            }
            let step = Step { kernel, inputs: from, outputs: to, label: label(node) };
            if step.inputs.iter().all(|i| i.is_none_or(|i| known.contains_key(&i))) {
                for (slot, value) in step.outputs.iter().zip(fold(&step, &known).map_err(fault)?) {
                    known.insert(*slot, Arc::new(value));
                }
            } else {
                steps.push(step);
            }
        }
        let slot_of = |name: &str| {
            places.get(name).copied().ok_or_else(|| Fault::Graph(format!("output {name:?} is given by no node")))
        };
        let outputs = graph.output.iter().map(|o| slot_of(&o.name)).collect::<Result<_, _>>()?;
        let inputs = inputs.iter().map(|n| places[n]).collect();
        Ok(Graph { steps, slots, constants: known.into_iter().collect(), inputs, outputs })
    }

    /// The steps needed for some of the outputs, in order, and for each the outputs of it that are read, as bits.
    fn needed(&self, outputs: &[usize]) -> Vec<(usize, u64)> {
        let mut wanted = vec![false; self.slots];
        outputs.iter().for_each(|&o| wanted[self.outputs[o]] = true);
        let mut needed = Vec::new();
        for (i, step) in self.steps.iter().enumerate().rev() {
            let read = step.outputs.iter().enumerate().filter(|&(_, &slot)| wanted[slot]);
            let bits = read.fold(0, |bits, (k, _)| bits | 1u64 << k.min(63));
            if bits != 0 {
                step.inputs.iter().flatten().for_each(|&slot| wanted[slot] = true);
                needed.push((i, bits));
            }
        }
        needed.reverse();
        needed
    }
}

/// Runs a step all of whose inputs are constants.
fn fold(step: &Step, known: &HashMap<usize, Arc<Tensor>>) -> Result<Vec<Tensor>, String> {
    let values: Vec<Tensor> =
        step.inputs.iter().map(|slot| slot.map_or_else(Tensor::default, |slot| Tensor::clone(&known[&slot]))).collect();
    let places: Vec<Option<usize>> = step.inputs.iter().enumerate().map(|(i, slot)| slot.map(|_| i)).collect();
    let mut outputs = vec![Tensor::default(); step.outputs.len()];
    let args = Args { slots: &values, places: &places, wanted: u64::MAX };
    step.kernel.run(args, &mut outputs, &mut Scratch::default())?;
    Ok(outputs)
}

/// What a thread needs to run a graph: the values between the steps and their buffers, kept from run to run.
pub(crate) struct Machine {
    graph: Arc<Graph>,
    /// Steps to run and which of their outputs are read.
    plan: Vec<(usize, u64)>,
    slots: Vec<Tensor>,
    scratch: Scratch,
    hold: Vec<Tensor>,
}

impl Machine {
    /// A machine that computes the outputs with these numbers.
    pub(crate) fn new(graph: Arc<Graph>, outputs: &[usize]) -> Machine {
        let mut slots = vec![Tensor::default(); graph.slots];
        for (slot, value) in &graph.constants {
            slots[*slot] = Tensor::clone(value);
        }
        Machine { plan: graph.needed(outputs), slots, graph, scratch: Scratch::default(), hold: Vec::new() }
    }

    /// The tensor of an input, to be filled before a run.
    pub(crate) fn input(&mut self, i: usize) -> &mut Tensor {
        &mut self.slots[self.graph.inputs[i]]
    }

    /// An output after a run.
    pub(crate) fn output(&self, i: usize) -> &Tensor {
        &self.slots[self.graph.outputs[i]]
    }

    /// Runs the graph on the inputs as they are. The error names the node.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for &(i, wanted) in &self.plan {
            let step = &self.graph.steps[i];
            self.hold.clear();
            self.hold.extend(step.outputs.iter().map(|&slot| std::mem::take(&mut self.slots[slot])));
            let args = Args { slots: &self.slots, places: &step.inputs, wanted };
            let done = step.kernel.run(args, &mut self.hold, &mut self.scratch);
            for (&slot, value) in step.outputs.iter().zip(self.hold.drain(..)) {
                self.slots[slot] = value;
            }
            done.map_err(|why| format!("node {} {why}", step.label))?;
        }
        Ok(())
    }
}

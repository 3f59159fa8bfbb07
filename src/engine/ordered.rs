//! The reorder buffer as an operator: a source's rows, on the workers of their key, wait until the watermark has passed them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use timely::dataflow::Scope;

use super::EngineError;
use super::checkpoint::Saver;
use super::shared::Shared;
use super::status::flow::Inlet;
use super::ticked::{Control, Port, TickLogic, per_tick};
use crate::base::Tick;
use crate::ops::control::TickInfo;
use crate::ops::exchange::{Placement, SlotDistributor};
use crate::ops::order::Reorder;
use crate::ops::{Batch, by_slot};
use crate::state::Mode;

/// Saved rows that are given to workers at once. A placement that is still open goes by the first that it sees, and one slot's by
/// another key would tell little; all of them may be many.
const SPLIT_ROWS: usize = 1 << 16;

/// Rows of `port` in event-time order. Its state has the name `name` and is kept by the slots of `key`, which `placement` gives
/// to workers where it is not even.
pub fn ordered<'s>(
    scope: Scope<'s, Tick>,
    shared: &Arc<Shared>,
    control: Control<'s>,
    (port, inlet): (Port<'s>, &Inlet),
    name: &str,
    key: Vec<usize>,
    placement: Option<&Arc<Placement>>,
) -> Port<'s> {
    let saver = shared.checkpoints.operator(scope.index(), name);
    let distributor = SlotDistributor::new(key.clone(), scope.peers(), placement.cloned());
    let buffer = restore(shared, name, distributor, scope.index()).unwrap_or_else(|error| {
        shared.fail(error);
        Reorder::new()
    });
    inlet.restored(buffer.len());
    let logic = Box::new(OrderLogic { buffer, saver, key, shared: Arc::clone(shared) });
    let mut outputs = per_tick(scope, name, control, vec![port], 1, logic);
    Port::local(outputs.pop().expect("one output"))
}

/// A worker's part of the rows that were saved under a name, whatever key they were saved by: another view may come first now.
fn restore(
    shared: &Shared,
    name: &str,
    mut distributor: SlotDistributor,
    worker: usize,
) -> Result<Reorder, EngineError> {
    let (mut own, mut some) = (Reorder::new(), Reorder::new());
    let mut take = |owner: usize, rows: Batch| {
        if owner == worker {
            own.push(rows);
        }
    };
    shared.checkpoints.restore_alike(name, |bytes| {
        let damaged = |error| EngineError::Plan(format!("the saved state of `{name}` cannot be read: {error}"));
        some.import(bytes).map_err(damaged)?;
        if some.len() >= SPLIT_ROWS {
            distributor.split(std::mem::take(&mut some).into_held(), &mut take);
        }
        Ok(())
    })?;
    distributor.split(some.into_held(), &mut take);
    distributor.finish(take);
    Ok(own)
}

/// The buffer between its ticks.
struct OrderLogic {
    buffer: Reorder,
    saver: Option<Saver>,
    key: Vec<usize>,
    shared: Arc<Shared>,
}

impl TickLogic for OrderLogic {
    fn tick(&mut self, info: &TickInfo, inputs: Vec<Vec<Batch>>, out: &mut [Vec<RecordBatch>]) {
        for batch in inputs.into_iter().flatten() {
            self.buffer.push(batch);
        }
        out[0].extend(self.buffer.release(info.watermark));
        if info.epoch_end
            && let Some(saver) = &self.saver
        {
            let (held, key) = (self.buffer.held(), self.key.clone());
            let encode = Box::new(move || by_slot(&held, &key).map_err(|error| error.to_string()));
            let anew = self.shared.checkpoints.anew(info.epoch);
            saver.save_later(info, Mode::Replace, anew, encode);
        }
    }
}

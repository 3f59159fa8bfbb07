//! The control record: what every worker must know about a tick, made by worker 0 and sent to all.

use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::operators::vec::Broadcast;

use crate::base::{Epoch, EventTime, Tick};

/// What every worker must know about a tick. One record per tick, at the tick's own timely timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickInfo {
    /// The tick.
    pub tick: Tick,
    /// Rows with an event time before this are complete once the tick is; `i64::MAX` at the end of finite input.
    pub watermark: EventTime,
    /// The watermark of the tick before; `i64::MIN` at the first.
    pub previous_watermark: EventTime,
    /// The job's clock in event time: the watermark, but never past the newest event.
    pub now: EventTime,
    /// The epoch that the tick belongs to.
    pub epoch: Epoch,
    /// Whether the tick is its epoch's last.
    pub epoch_end: bool,
    /// Whether no tick follows.
    pub last: bool,
}

/// Sends each control record to every worker, its own included.
pub fn broadcast<'scope>(control: Stream<'scope, Tick, Vec<TickInfo>>) -> Stream<'scope, Tick, Vec<TickInfo>> {
    Broadcast::broadcast(control)
}

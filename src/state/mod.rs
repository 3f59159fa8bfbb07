//! Recovery state: snapshots by key slot, manifests in a numbered log, and who may write them.
//!
//! State lies in one [`Store`]. Its log is a folder of entries `epochs/<n>.json`, each created if absent, with no number used
//! twice. An entry is a **claim**, by which a process takes the state over, or a **manifest**, which commits epoch `n`.
//! Whoever finds its next number taken has been superseded and stops: so a process that was frozen and wakes cannot commit.
//! The creation of the manifest is the commit point; what the sinks staged is published after it, and again after a restart.
//!
//! This room knows nothing of timely, of plans and of what the bytes of an operator mean.

mod coordinator;
pub mod decide;
mod error;
pub mod manifest;
mod part;
mod restore;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;

pub use coordinator::{
    Committed, Coordinator, CutReport, Expected, Hooks, Log, Pin, Progress, Report, Reporter, SnapshotSize, Written,
};
pub use error::StateError;
pub use part::{Mode, PartRef, SlotBytes};
pub use restore::{
    Found, Loaded, Opened, check_savepoint_target, committed, copy_epoch, copy_savepoint, open, open_savepoint,
    read_savepoint, savepoint_manifest,
};
pub use snapshots::{Encode, OperatorSnapshots, Snapshots};
pub use store::Store;

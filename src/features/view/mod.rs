//! A feature view: aggregates of one stream's rows by entity, over windows that trail each question.
//!
//! A *row* `(entity, time, ord, inputs)` is in the window of width `w` that ends at the head `h` when
//! `h − w < time ≤ h`; a question at time `t` has the head `t − delay`. With a resolution `r` the start is rounded down:
//! rows with `time ≥ ⌊(h − w) / r⌋ · r` are in, so no row of the exact window is missed and at most one tile too many is
//! seen. A lifetime window holds every row up to the head. Values come from exact integers (see
//! [`numeric`](crate::features::numeric)), so they are a function of the rows in the window alone: not of the order in which rows came, of
//! what was there before, or of how they are held here.
//!
//! **Input order.** Rows and questions come merged by (time, position), updates before questions at equal time; with
//! [`Order::Arrival`](crate::plan::model::Order::Arrival) they may fall back by the stream's disorder. **Late rows** must have been turned away before: a row
//! further back is still taken in, but questions so far back may miss rows already let go. **State** is bounded by the rows
//! of the widest window (plus delay and disorder) per key, or by tiles where every window has a resolution; keys with
//! nothing left are dropped by [`ViewState::advance`]. **A snapshot** of a key slot holds the rows, tiles and lifetime sums
//! of its keys, see [`ViewState::freeze`].
//!
//! **Forms of a key.** A sparse key is one block with its rows one after another; it is scanned for every question. A
//! busy key has a chunked queue of rows with running sums per window and wedges for extrema; where its windows have a
//! resolution it goes over to tiles when its rows are many, and a batch's rows then go by a lane from one edge of a tile to
//! the next. Blocks live in slabs, keys are found through one small table per
//! key slot, all of it in large pages of memory, and batches ask for memory some rows ahead.
//!
//! **Nulls.** A null or NaN input is skipped by everything but the count of rows and the last value; a float's NaN is a
//! null. A row with a null among its entity columns has no entity: it changes nothing and reads empty windows.

mod columns;
mod dense;
mod fused;
mod index;
mod inline;
mod keys;
mod lane;
mod layout;
mod own;
mod paired;
mod peek;
mod refresh;
mod slab;
mod small;
mod snapshot;
mod state;
mod strip;
mod sweep;
#[cfg(test)]
mod tests;
mod tiles;
mod value;
mod wedge;

use arrow::datatypes::DataType;

pub use refresh::Refreshed;
pub use state::{Merged, Revisions, Updates, ViewOptions, ViewState};

use crate::base::{Blame, Micros};

/// Why a view cannot be built, fed or restored.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A window's width is not positive.
    #[error("view {view}: aggregate {aggregate} has a window of {micros} µs; windows are longer than nothing")]
    Window {
        /// The view.
        view: String,
        /// The aggregate.
        aggregate: String,
        /// The width.
        micros: Micros,
    },
    /// An aggregate that needs an input has none.
    #[error("view {view}: aggregate {aggregate} has no input column; only count takes `*`")]
    Input {
        /// The view.
        view: String,
        /// The aggregate.
        aggregate: String,
    },
    /// The plan names a column that the stream does not have.
    #[error("view {view}: {what} is not in the stream")]
    Column {
        /// The view.
        view: String,
        /// Which column.
        what: String,
    },
    /// An aggregate of a type that it cannot take.
    #[error(
        "view {view}: aggregate {aggregate} cannot take a column of type {data_type}; use a number, or count or last"
    )]
    Unsupported {
        /// The view.
        view: String,
        /// The aggregate.
        aggregate: String,
        /// The column's type.
        data_type: DataType,
    },
    /// A default that its column cannot hold.
    #[error("view {view}: the default {value} of {aggregate} is no {data_type}")]
    Default {
        /// The view.
        view: String,
        /// The aggregate.
        aggregate: String,
        /// The default.
        value: String,
        /// The column's type.
        data_type: DataType,
    },
    /// An entity column of a type that cannot be a key.
    #[error(transparent)]
    Key(#[from] crate::ops::key::KeyError),
    /// A batch is not of the shape that the plan says.
    #[error("a batch does not fit its view: {what}")]
    Batch {
        /// What is wrong with it.
        what: String,
    },
    /// A snapshot of a key slot is damaged or of another view.
    #[error("a key slot's snapshot cannot be read: {what}; restore from an older one or rebuild from the input")]
    Snapshot {
        /// What is wrong with it.
        what: String,
    },
    /// A freeze, or what needs there to be none, at a wrong time.
    #[error("a checkpoint at the wrong time: {what}")]
    Freeze {
        /// Why.
        what: String,
    },
    /// Arrow refused a conversion.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl ViewError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            ViewError::Window { .. }
            | ViewError::Input { .. }
            | ViewError::Unsupported { .. }
            | ViewError::Default { .. }
            | ViewError::Key(_) => Blame::User,
            ViewError::Snapshot { .. } => Blame::Outside,
            ViewError::Column { .. } | ViewError::Batch { .. } | ViewError::Freeze { .. } | ViewError::Arrow(_) => {
                Blame::Ours
            }
        }
    }
}

//! Jobs as a server keeps them: submitted, supervised, changed, and found again.
//!
//! [`model`] is what the API says. [`disk`] keeps it: a directory per job, with its files, its state, its log and its
//! history.

pub mod console;
pub mod disk;
mod error;
pub mod model;

pub use error::ControlError;
